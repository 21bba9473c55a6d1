"""The benchmark of pre-training: its clocks, its count of work, and a run at a tiny size, whose figures say nothing."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from encoders.dinov2.engines import new_networks
from encoders.dinov2.label_chains import LabelChains
from encoders.dinov2.loop import Training
from encoders.dinov2.pretrain import transform_of
from encoders.dinov2.pretrain_settings import PretrainSettings
from encoders.dinov2.stream import Batch
from milkit.ranks import ALONE
from milkit.taxonomy import Taxonomy

FOLDER = Path(__file__).parent.parent / "benchmarks"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the benchmarks are not installed with the package")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Its parts; it finds the others beside it."""
    monkeypatch.syspath_prepend(str(FOLDER))
    import step_clock

    return step_clock  # type: ignore[no-any-return]


def batches_of(n_views: int, n: int, size: int) -> Iterator[Batch]:
    source = torch.Generator().manual_seed(n_views)
    while True:
        views = torch.randint(256, (n_views, n, size, size, 3), generator=source, dtype=torch.uint8)
        yield Batch(views, torch.arange(n) % 2, [])


def steps_of(step_clock: ModuleType, folder: Path, *, supervised: bool) -> Any:
    """A training of a tiny network on random pixels."""
    settings = PretrainSettings.model_validate(
        {
            "sources": ["acevedo"],
            "network": {"dim": 32, "depth": 2, "heads": 2, "image_size": 42},
            "heads": {"prototypes": 48, "hidden": 40, "bottleneck": 16, "layers": 4},
            "schedule": {"iterations": 100, "warmup": 0, "freeze_last_layer": 0},
            "supervision": {"batch_size": 3} if supervised else None,
            "batch_size": 4,
            "mask_ratio": (0.4, 0.6),
            "precision": "fp32",
        }
    )
    taxonomy = Taxonomy.load("blood")
    chains = LabelChains(taxonomy, tuple((leaf,) for leaf in taxonomy.leaves[:2])) if supervised else None
    networks = new_networks(settings, chains, torch.device("cpu"))
    training = Training(settings, folder, ALONE, networks, transform_of(settings), torch.float32)
    return step_clock.Steps(training, batches_of(2, 4, 42), batches_of(1, 3, 42) if supervised else None)


@pytest.mark.parametrize("supervised", [False, True])
def test_the_work_of_the_networks_is_what_pytorch_counts(
    benchmark: ModuleType, tmp_path: Path, *, supervised: bool
) -> None:
    steps = steps_of(benchmark, tmp_path, supervised=supervised)
    steps.make()
    with FlopCounterMode(display=False) as counted:
        benchmark.networks_alone(steps.training, steps.last, [])
    assert benchmark.gflop(steps.training.networks.student, steps.last) == counted.get_total_flops() / 1e9


@pytest.mark.parametrize("supervised", [False, True])
def test_a_step_with_clocks_moves_the_networks_as_one_without(
    benchmark: ModuleType, tmp_path: Path, *, supervised: bool
) -> None:
    plain, watched = (steps_of(benchmark, tmp_path, supervised=supervised) for _ in range(2))
    for _ in range(2):
        plain.make()
        started = time.perf_counter()
        parts = watched.parts()
        seconds = time.perf_counter() - started
    assert all(value > 0 for value in parts.values())
    assert sum(parts.values()) - parts["figures"] < seconds
    assert plain.made == watched.made == 2
    for kind in ("student", "teacher"):
        states = [getattr(steps.training.networks, kind).state_dict() for steps in (plain, watched)]
        assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    watched.make()  # and the clocks are gone
    assert watched.parts().keys() == parts.keys()


def test_what_is_slow_is_found_in_its_part(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = steps_of(benchmark, tmp_path, supervised=False)
    steps.make()

    class Slow(torch.autograd.Function):
        """The identity, a while later on the way back."""

        @staticmethod
        def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(_: Any, gradient: torch.Tensor) -> torch.Tensor:
            time.sleep(0.3)
            return gradient

    loss = benchmark.step.dino_loss
    monkeypatch.setattr(benchmark.step, "dino_loss", lambda logits, *others: loss(Slow.apply(logits), *others))
    parts = steps.parts()
    assert parts["losses backward"] > 0.3
    assert max(seconds for part, seconds in parts.items() if part != "losses backward") < 0.3

    monkeypatch.setattr(benchmark.step, "dino_loss", loss)
    head = steps.training.networks.student.dino_head
    head.register_forward_hook(lambda *given: Slow.apply(given[-1]))
    parts = steps.parts()
    assert parts["student backward"] > 0.3
    assert parts["losses backward"] < 0.3


def test_the_networks_alone_leave_no_gradient_and_move_nothing(benchmark: ModuleType, tmp_path: Path) -> None:
    steps = steps_of(benchmark, tmp_path, supervised=True)
    steps.make()
    student = steps.training.networks.student
    before = {name: value.clone() for name, value in student.state_dict().items()}
    reached: set[str] = set()
    for name, parameter in student.named_parameters():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: reached.add(name))
    gradients: list[torch.Tensor] = []
    for _ in range(2):
        benchmark.networks_alone(steps.training, steps.last, gradients)
    assert len(gradients) == 4
    assert reached == {name for name, _ in student.named_parameters()}
    assert all(parameter.grad is None for parameter in student.parameters())
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_the_largest_batch_is_the_last_power_of_two_whose_steps_fit(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pretrain

    settings = steps_of(benchmark, tmp_path, supervised=False).training.settings
    tried = []

    def step(_networks: Any, inputs: Any, settings: PretrainSettings, iteration: int, _dtype: Any) -> Any:
        assert len(inputs.crops) == len(inputs.masked) == 2 * settings.batch_size
        tried.append((settings.batch_size, iteration))
        if (settings.batch_size, iteration) == (64, 1):
            raise torch.OutOfMemoryError
        return dict

    monkeypatch.setattr(pretrain, "train_step", step)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    assert pretrain.largest_batch(settings, torch.device("cpu"), torch.float32) == 32
    assert tried == [(16, 0), (16, 1), (32, 0), (32, 1), (64, 0), (64, 1)]


@pytest.mark.slow
def test_the_benchmark_prints_its_tables_and_writes_its_figures(tmp_path: Path) -> None:
    sizes = ["--batch", "2", "--rounds", "1", "--steps", "1", "--images", "34", "--precision", "fp32"]
    recipe = tmp_path / "labelled.yaml"
    network = "{dim: 32, depth: 1, heads: 1, image_size: 28}"
    recipe.write_text(
        f"sources: [aslan]\nnetwork: {network}\nheads: {{prototypes: 8}}\nsupervision: {{batch_size: 2}}\n"
    )
    command = [sys.executable, str(FOLDER / "pretrain.py"), "--recipes", "tiny_cpu", str(recipe), *sizes]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "found.json")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "\ntiny_cpu fp32: overhead " in done.stdout
    assert "\nlabelled fp32: peak memory " in done.stdout
    assert "\nSinkhorn-Knopp " in done.stdout
    runs = json.loads((tmp_path / "found.json").read_text())
    assert [run["recipe"] for run in runs] == ["tiny_cpu", "labelled"]
    for run in runs:
        assert run["images_per_second"] == pytest.approx(2 / run["seconds"])
        assert run["overhead"] == pytest.approx(1 - run["networks_seconds"] / run["seconds"])
        assert run["share_of_ceiling"] == pytest.approx(run["gflop"] / run["seconds"] / run["ceiling_gflops"])
        assert run["peak_mib"] > 100
