"""A step computes without asking: a GPU, which answers late, is waited for once in it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pretrain_toys import draw_acevedo, settings_of
from torch.utils._python_dispatch import TorchDispatchMode

from encoders.dinov2 import step
from encoders.dinov2.engines import new_networks
from encoders.dinov2.feeds import labelled_images, own_cores, streams_of
from encoders.dinov2.loop import Training
from encoders.dinov2.optimiser import clip, whole
from encoders.dinov2.pretrain import transform_of
from encoders.dinov2.pretrain_settings import PretrainSettings
from encoders.dinov2.step import Inputs, train_step
from milkit.cohort import load_cohort
from milkit.ranks import ALONE, Ranks
from milkit.runs import available_cores

CPU = torch.device("cpu")
WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::unique", "aten::equal"}
"""Operators whose result, or its shape, must be known before Python can go on."""


class Asked(TorchDispatchMode):
    """Notes what a GPU would be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(func.name()).partition(".")[0]
        indices = args[1] if name == "aten::index" else ()
        by_mask = any(index is not None and index.dtype is torch.bool for index in indices)
        counted = name == "aten::repeat_interleave" and (kwargs or {}).get("output_size") is None
        if name in WAITS or by_mask or counted:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module", params=["leaf", "sibling"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Training, Inputs]:
    """A training with labels, and what one of its steps sees."""
    cells = draw_acevedo(tmp_path_factory.mktemp("cells"), 1)
    chosen = settings_of(cells, batch_size=4, supervision={"batch_size": 4, "head": request.param})
    images, chains = labelled_images(chosen, [load_cohort(source.cohort) for source in chosen.sources])
    training = Training(chosen, cells, ALONE, new_networks(chosen, chains, CPU), transform_of(chosen), torch.float32)
    unlabelled, labelled = streams_of(chosen, images, ALONE, 0)
    return training, training._inputs(next(unlabelled), labelled, 0)


def asked_in(training: Training, inputs: Inputs) -> list[str]:
    with Asked() as asked:
        train_step(training.networks, inputs, training.settings, 10, training.dtype)
    return asked.found


def test_a_step_waits_for_the_norms_of_its_gradients_alone(
    made: tuple[Training, Inputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    def norms(*given: Any) -> dict[str, float]:
        with torch.utils._python_dispatch._disable_current_modes():  # what is waited for there is the one time
            return clip(*given)

    monkeypatch.setattr(step, "clip", norms)
    assert asked_in(*made) == []


def test_a_wait_would_be_noticed(made: tuple[Training, Inputs]) -> None:
    """Where the places of hidden patches are not given, student and teacher look for them."""
    training, inputs = made
    assert asked_in(training, inputs._replace(hidden=None)).count("aten::index") == 2


def test_the_norms_are_asked_for_together(made: tuple[Training, Inputs]) -> None:
    with Asked() as asked:
        norms = clip(made[0].networks.student, 3.0)
    assert (len(norms), asked.found) == (4, [])


def test_the_places_of_hidden_patches_are_those_of_the_masks(made: tuple[Training, Inputs]) -> None:
    _, inputs = made
    assert inputs.hidden is not None
    assert torch.equal(inputs.hidden.T, inputs.masked.nonzero())
    assert inputs.hidden.shape[1] > 0


@pytest.mark.parametrize("seed", [0, 1])
def test_a_step_is_the_same_whether_these_places_are_given_or_found(seed: int) -> None:
    chosen = settings_of(None, batch_size=3, seed=seed)
    found = []
    for given in (True, False):
        networks = new_networks(chosen, None, CPU)
        crops = torch.randn(6, 3, 42, 42, generator=torch.Generator().manual_seed(seed))
        masked = step.hidden_patches(chosen, 10, 0, 1)
        inputs = Inputs(crops, masked, hidden=masked.nonzero().T if given else None)
        figures = train_step(networks, inputs, chosen, 10, torch.float32)()
        found.append((figures, networks.student.state_dict()))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(tensor, found[1][1][name]) for name, tensor in found[0][1].items())


# --- what each process does -------------------------------------------------------------------------------------------


class Spread:
    """A parameter of which this process has a share."""

    def __init__(self) -> None:
        self.gathered = 0

    def detach(self) -> "Spread":
        return self

    def full_tensor(self) -> torch.Tensor:
        self.gathered += 1
        return torch.ones(3)


def test_a_process_that_does_not_write_takes_part_in_gathering_and_keeps_nothing() -> None:
    spread: Any = Spread()
    assert whole([("a", spread), ("b", torch.ones(2))], keeps=False) == {}
    assert spread.gathered == 1
    assert {name: tuple(tensor.shape) for name, tensor in whole([("a", spread)]).items()} == {"a": (3,)}


class Beside(Ranks):
    """The processes of a job, made up: what they say of themselves besides this one."""

    others: Callable[[Any], list[Any]]

    def gathered(self, own: Any) -> list[Any]:
        return [own, *type(self).others(own)]


@pytest.mark.parametrize(
    ("others", "cores"),
    [
        (lambda own: [], 6),
        (lambda own: [own] * 2, 2),
        (lambda own: [(own[0], {6, 7, 8, 9, 10, 11})], 6),
        (lambda own: [("elsewhere", {0, 1})] * 7, 6),
        (lambda own: [own] * 7, 1),
    ],
    ids=["alone", "torchrun: all use all", "srun: each its own", "other machines", "too many"],
)
def test_processes_of_a_machine_share_the_cores_that_they_may_use(
    others: Callable[[Any], list[Any]], cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encoders.dinov2.feeds.usable_cores", lambda: {0, 1, 2, 3, 4, 5})
    monkeypatch.setattr(Beside, "others", others, raising=False)
    assert own_cores(Beside(0, 8)) == cores


def test_a_process_alone_has_all_cores_that_it_may_use() -> None:
    assert own_cores(ALONE) == available_cores()


def test_images_are_kept_where_a_gpu_reads_them_only_if_one_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a GPU then does so was not tested: there was none."""
    asked: list[bool] = []

    class Loader:
        def __init__(self, *_: object, pin_memory: bool, **__: object) -> None:
            asked.append(pin_memory)

        def __iter__(self) -> Any:
            return iter(())

    chosen: PretrainSettings = settings_of(draw_acevedo(tmp_path, 1), workers=1)
    images, _ = labelled_images(chosen, [load_cohort(source.cohort) for source in chosen.sources])
    monkeypatch.setattr("encoders.dinov2.stream.DataLoader", Loader)
    for in_use in (False, True):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda in_use=in_use: in_use)
        streams_of(chosen, images, ALONE, 0)
    assert asked == [False, True]
