"""Two real processes that talk over gloo compute what one computes on all of their images."""

import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, distributed, multiprocessing

from encoders.dinov2.losses import dino_loss, ibot_loss, koleo_loss, sinkhorn_knopp, target_entropy
from encoders.dinov2.processes import gathered, largest, rank, summed, world_size

IMAGES, PATCHES, ENTERING, FEATURES, PROTOTYPES = 6, 9, 7, 5, 11
HIDDEN = {"unequal": (4, 0, 9, 1, 0, 2, 0, 0, 3, 0, 5, 1), "of one process": (4, 1, 9, 0, 0, 0, 2, 0, 3, 0, 0, 0)}
"""Hidden patches of the first crops of six images, then of the second ones."""


class Batch(NamedTuple):
    """Crops (2b, 1 + N, entering features), the class token's place first, and which patches are hidden (2b, N)."""

    crops: Tensor
    masked: Tensor

    def share(self, part: int, parts: int) -> "Batch":
        """A process' images: the same run of the first crops and of the second ones."""
        own = slice(part * IMAGES // parts, (part + 1) * IMAGES // parts)
        return Batch(*(rows.unflatten(0, (2, IMAGES))[:, own].flatten(0, 1) for rows in self))


def batch_of(case: str) -> Batch:
    crops = np.random.default_rng(0).normal(size=(2 * IMAGES, 1 + PATCHES, ENTERING))
    masked = np.random.default_rng(1).permuted(np.arange(PATCHES) < np.array(HIDDEN[case])[:, None], axis=1)
    return Batch(torch.from_numpy(crops).float(), torch.from_numpy(masked))


def trained(batch: Batch) -> dict[str, Tensor]:
    """A step's losses, targets and gradients with respect to a linear backbone and two heads."""
    draw = np.random.default_rng(2)
    shapes = [(ENTERING, FEATURES), (FEATURES, PROTOTYPES), (FEATURES, PROTOTYPES)]
    student, teacher = ([torch.from_numpy(draw.normal(size=shape)).float() for shape in shapes] for _ in range(2))
    for weights in student:
        weights.requires_grad_()
    tokens, seen = (batch.crops @ backbone for backbone in (student[0], teacher[0]))
    masked = torch.nn.functional.pad(batch.masked, (1, 0))
    dino, ibot = sinkhorn_knopp(seen[:, 0] @ teacher[1], 2.0), sinkhorn_knopp(seen[masked] @ teacher[2], 2.0)
    losses = {
        "dino": dino_loss(tokens[:, 0] @ student[1], dino, 1.0),
        "ibot": ibot_loss(tokens[masked] @ student[2], ibot, batch.masked, 1.0),
        "koleo": sum(koleo_loss(half) for half in tokens[:, 0].chunk(2)),
    }
    torch.stack(list(losses.values())).sum().backward()
    gradients = {f"gradient {number}": weights.grad for number, weights in enumerate(student)}
    values = {name: loss.detach() for name, loss in losses.items()}
    return values | gradients | {"targets": dino, "patch targets": ibot, "entropy": torch.tensor(target_entropy(ibot))}


def talk() -> dict[str, Any]:
    """What the functions answer in this process."""
    own = torch.tensor([[1.0, 5.0], [2.0, 0.0]]) + 10 * rank()
    own.requires_grad_()
    rows = gathered(own.T).T  # not contiguous, as slices of tokens are
    (rows * torch.arange(1.0, rows.numel() + 1).reshape(rows.shape) * (1 + rank())).sum().backward()
    given = own.detach().clone()
    answers = {"summed": summed(own), "largest": largest(own), "gathered": rows.detach(), "gradient": own.grad}
    assert not answers["summed"].requires_grad
    assert not answers["largest"].requires_grad
    torch.testing.assert_close(own.detach(), given, rtol=0, atol=0)
    return answers | {"place": (rank(), world_size())}


def process(number: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=2)
    answers: dict[str, Any] = {case: trained(batch_of(case).share(number, 2)) for case in HIDDEN}
    torch.save(answers | {"talk": talk()}, folder / f"{number}.pt")
    distributed.destroy_process_group()


def fork_two(folder: Path) -> None:
    """One start of Python and one import of PyTorch for both."""
    multiprocessing.start_processes(process, (folder,), nprocs=2, start_method="fork")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("two")
    here = Path(__file__)
    code = "import sys, pathlib; sys.path[:0] = sys.argv[2:]; import {0}; {0}.fork_two(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code.format(here.stem), folder, here.parent, here.parents[1]]
    subprocess.run(command, check=True, timeout=120)
    return [torch.load(folder / f"{number}.pt") for number in range(2)]


def test_each_process_knows_its_place(two: list[dict[str, Any]]) -> None:
    assert [answers["talk"]["place"] for answers in two] == [(0, 2), (1, 2)]


def test_all_get_the_same_sums_and_the_same_largest_numbers(two: list[dict[str, Any]]) -> None:
    for answers in two:
        assert answers["talk"]["summed"].tolist() == [[12.0, 20.0], [14.0, 10.0]]
        assert answers["talk"]["largest"].tolist() == [[11.0, 15.0], [12.0, 10.0]]


def test_rows_are_gathered_in_the_order_of_the_processes(two: list[dict[str, Any]]) -> None:
    for answers in two:
        assert answers["talk"]["gathered"].tolist() == [[1.0, 5.0, 11.0, 15.0], [2.0, 0.0, 12.0, 10.0]]


def test_a_gathered_row_takes_the_gradients_of_all_processes_home(two: list[dict[str, Any]]) -> None:
    weights = torch.arange(1.0, 9).reshape(2, 4) * (1 + 2)  # process 0's gradient, and process 1's, which is twice it
    for number, answers in enumerate(two):
        torch.testing.assert_close(answers["talk"]["gradient"], weights[:, 2 * number : 2 * number + 2])


@pytest.mark.parametrize("case", HIDDEN)
def test_the_averages_of_losses_and_gradients_are_those_of_one_process(two: list[dict[str, Any]], case: str) -> None:
    """With other numbers of hidden patches in each, or none in one, and neighbours in the other's images."""
    alone = trained(batch_of(case))
    for name in ("dino", "ibot", "koleo", "gradient 0", "gradient 1", "gradient 2", "entropy"):
        average = (two[0][case][name] + two[1][case][name]) / 2
        torch.testing.assert_close(average, alone[name], rtol=1e-5, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.parametrize("case", HIDDEN)
def test_each_process_has_its_share_of_the_targets(two: list[dict[str, Any]], case: str) -> None:
    """Balanced over the rows of both, of which one may have none."""
    batch = batch_of(case)
    alone = trained(batch)
    expected = torch.full((*batch.masked.shape, PROTOTYPES), -1.0)
    expected[batch.masked] = alone["patch targets"]
    for number, answers in enumerate(two):
        own = Batch(alone["targets"], expected).share(number, 2)
        patches = own.masked[batch.share(number, 2).masked]
        torch.testing.assert_close(answers[case]["targets"], own.crops, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(answers[case]["patch targets"], patches, rtol=1e-5, atol=1e-7)
    assert len({len(answers["unequal"]["patch targets"]) for answers in two}) == 2
    assert {len(answers["of one process"]["patch targets"]) for answers in two} == {0, 19}


def test_a_process_alone_gets_back_what_it_gave() -> None:
    own = torch.tensor([[1.0, 5.0], [2.0, 0.0]], requires_grad=True)
    assert (rank(), world_size()) == (0, 1)
    for reduced in (summed(own), largest(own)):
        assert torch.equal(reduced, own.detach())
        assert not reduced.requires_grad
    (3 * gathered(own)).sum().backward()
    assert torch.equal(own.grad, torch.full((2, 2), 3.0))
