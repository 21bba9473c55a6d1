"""Trainings by two real processes, which talk over gloo: what they learn is what one learns on all of their images."""

import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from extract_toys import wait_for
from pretrain_toys import TINY, Trainings, draw_acevedo, settings_of, write_recipe
from safetensors.torch import load_file
from torch import Tensor, distributed, multiprocessing

from encoders.dinov2.checkpoints import CHECKPOINT, read_state
from encoders.dinov2.engines import new_networks
from encoders.dinov2.label_chains import LabelChains
from encoders.dinov2.loop import LAST
from encoders.dinov2.optimiser import whole
from encoders.dinov2.pretrain_settings import PretrainSettings
from encoders.dinov2.step import Inputs, hidden_patches, train_step
from milkit.taxonomy import Taxonomy

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="needs fork")]

SCHEDULE = TINY["schedule"] | {"iterations": 8}


# --- steps ------------------------------------------------------------------------------------------------------------

FIRST, STEPS = 10, 4
LABELS = ((0, -1, 2, 1, 2, 0), (-1, -1, -1, 2, 0, -1), (2, 2, 1, -1, -1, -1), (0, 1, -1, -1, 0, 1))
"""Of six labelled cells a step, three for each of two processes; -1 has none, and a process may have none at all."""


def settings_for(parallel: str) -> PretrainSettings:
    return settings_of(None, batch_size=6, parallel=parallel, supervision={"batch_size": 6})


def inputs_at(settings: PretrainSettings, step: int, rank: int, world: int) -> Inputs:
    """The process' part of what one would see."""
    generator = torch.Generator().manual_seed(step)
    crops, labelled = (torch.randn(*shape, 3, 42, 42, generator=generator) for shape in ((2, 6), (6,)))
    own, labels = slice(rank * 6 // world, (rank + 1) * 6 // world), torch.tensor(LABELS[step])
    masked = hidden_patches(settings, FIRST + step, rank, world)
    return Inputs(crops[:, own].flatten(0, 1), masked, labelled[own], labels[own])


def trained(settings: PretrainSettings, rank: int, world: int) -> dict[str, Tensor]:
    """Both networks after some steps, and the figures of the last one."""
    chains = LabelChains(Taxonomy.load(), (("basophil",), ("monocyte",), ("neutrophil",)))
    networks = new_networks(settings, chains, torch.device("cpu"))
    for step in range(STEPS):
        inputs = inputs_at(settings, step, rank, world)
        figures = train_step(networks, inputs, settings, FIRST + step, torch.float32)()
    parts: Mapping[str, Any] = {"student": networks.student, "teacher": networks.teacher}
    held = {f"{kind}.{name}": value for kind, part in parts.items() for name, value in part.state_dict().items()}
    return whole(held.items()) | {f"figure.{name}": torch.tensor(value) for name, value in figures.items()}


def process(number: int, folder: Path) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error", FutureWarning)  # of how PyTorch is asked for either kind of parallelism
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=2)
    for parallel in ("ddp", "fsdp"):
        torch.save(trained(settings_for(parallel), number, 2), folder / f"{parallel}-{number}.pt")
    distributed.destroy_process_group()


def fork_two(folder: Path) -> None:
    """One start of Python and one import of PyTorch for both."""
    multiprocessing.start_processes(process, (folder,), nprocs=2, start_method="fork")


@pytest.fixture(scope="module")
def stepped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("steps")
    here = Path(__file__)
    code = "import sys, pathlib; sys.path[:0] = sys.argv[2:]; import {0}; {0}.fork_two(pathlib.Path(sys.argv[1]))"
    command = [sys.executable, "-c", code.format(here.stem), folder, here.parent, here.parents[1]]
    subprocess.run(command, check=True, timeout=300)
    return folder


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_processes_with_unequal_numbers_of_labels_move_as_one_does(stepped: Path, parallel: str) -> None:
    """Weights, teacher and every figure, the norms of the gradients included."""
    alone = trained(settings_for(parallel), 0, 1)
    for number in (0, 1):
        found = torch.load(stepped / f"{parallel}-{number}.pt")
        assert found.keys() == alone.keys()
        for name, tensor in alone.items():
            torch.testing.assert_close(
                found[name], tensor, rtol=1e-5, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
            )
    assert float(alone["figure.supervised"]) > 0.1


# --- trainings --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trainings")


@pytest.fixture(scope="module")
def jobs(folder: Path) -> Iterator[Trainings]:
    with Trainings(folder / "said") as jobs:
        yield jobs


@pytest.fixture(scope="module")
def recipe(folder: Path) -> Path:
    """Of cells of which two cannot be read, with labels and a validation."""
    cells = draw_acevedo(folder / "cells", 4)
    (cells / "basophil" / "BA_1.jpg").write_bytes(b"no image")
    (cells / "lymphocyte" / "LY_2.jpg").write_bytes(b"")
    others = draw_acevedo(folder / "others", 4, first=10)
    parts: dict[str, Any] = {"supervision": {"batch_size": 4}, "validation": {"cohort": "acevedo", "root": str(others)}}
    return write_recipe(folder / "r.yaml", cells, schedule=SCHEDULE, evaluate_every=4, checkpoint_every=4, **parts)


def arguments(recipe: Path, name: str, *more: object) -> list[object]:
    return ["--workspace", recipe.parent, "pretrain", "--config", recipe, "--name", name, *more]


def run_two(jobs: Trainings, given: list[object]) -> None:
    done = [job.wait() for job in jobs.ranks(2, given)]
    assert [process.status for process in done] == [0, 0], done
    assert done[0].stdout.startswith("weights ")
    assert (done[1].stdout, done[1].stderr) == ("", "")


@pytest.fixture(scope="module")
def one(jobs: Trainings, recipe: Path) -> Path:
    """What one process makes of it."""
    jobs.run(arguments(recipe, "one"))
    return recipe.parent / "encoders" / "one"


def assert_same(found: Path, one: Path) -> None:
    for file in (CHECKPOINT, LAST):
        some, others = load_file(found / file), load_file(one / file)
        assert some.keys() == others.keys()
        for name, tensor in others.items():
            torch.testing.assert_close(
                some[name], tensor, rtol=1e-5, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}"
            )
    tables = [pd.read_csv(run / "history.csv").drop(columns="images_per_second") for run in (found, one)]
    pd.testing.assert_frame_equal(*tables, rtol=1e-3, atol=1e-5)
    assert (found / "failures.csv").read_bytes() == (one / "failures.csv").read_bytes()


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_training_by_two_processes_is_that_of_one(jobs: Trainings, recipe: Path, one: Path, parallel: str) -> None:
    """Their list of unreadable images, too, of which each read some."""
    run_two(jobs, arguments(recipe, parallel, "--parallel", parallel))
    assert_same(one.with_name(parallel), one)
    assert (one / "failures.csv").read_text().count("\n") == 3


@pytest.mark.parametrize(("before", "after"), [("ddp", "alone"), ("fsdp", "ddp"), ("alone", "fsdp")])
def test_another_number_of_processes_goes_on_with_a_training(
    jobs: Trainings, recipe: Path, one: Path, before: str, after: str
) -> None:
    name = f"{before}-{after}"
    for how, more in ((before, ["--stop-after", 4]), (after, [])):
        if how == "alone":
            jobs.run(arguments(recipe, name, *more))
        else:
            run_two(jobs, arguments(recipe, name, "--parallel", how, *more))
        reached = read_state(one.with_name(name)) or {}
        assert reached["iteration"] == (4 if more else 8)
    assert_same(one.with_name(name), one)


def test_a_process_that_dies_ends_the_others_with_a_sentence(jobs: Trainings, recipe: Path) -> None:
    """And the training can be gone on with."""
    run = recipe.parent / "encoders" / "died"
    given = arguments(recipe, "died", "--set", "schedule.iterations=400")
    running = jobs.ranks(2, given)
    wait_for(lambda: (run / CHECKPOINT).is_file())
    running[1].signal(signal.SIGKILL)
    first, second = (job.wait() for job in running)
    assert second.status == -signal.SIGKILL
    assert (first.status, first.stderr) == (
        2,
        "milkit: Another process of this job ended before its work was done; see what it said, then run the same "
        "command again, it goes on where it stopped.\n",
    )
    reached = (read_state(run) or {})["iteration"]
    jobs.run([*given, "--stop-after", reached + 4])
    assert (read_state(run) or {})["iteration"] == reached + 4


@pytest.mark.parametrize(
    ("setting", "images"), [("batch_size=9", 9), ("supervision.batch_size=5", 5)], ids=["images", "labelled"]
)
def test_a_batch_that_two_processes_cannot_share_is_refused_once(
    jobs: Trainings, recipe: Path, setting: str, images: int
) -> None:
    first, second = [job.wait() for job in jobs.ranks(2, arguments(recipe, "odd", "--set", setting))]
    assert (first.status, second.status, second.stderr) == (2, 2, "")
    assert first.stderr == (
        f"milkit: The batch of {images} images was to be shared by 2 processes, expected a multiple of 2; set the "
        f"batch size to {images - 1}, or start another number of processes.\n"
    )
    assert not (recipe.parent / "encoders" / "odd").exists()


def test_what_only_the_first_process_reads_or_writes_ends_all_of_them(jobs: Trainings, recipe: Path) -> None:
    """A table of figures that is damaged is said once; where no file can be written, each process has that error."""
    given = arguments(recipe, "spoilt")
    run = recipe.parent / "encoders" / "spoilt"
    run_two(jobs, [*given, "--stop-after", 2])
    table = (run / "history.csv").read_bytes()
    (run / "history.csv").write_text("no table\n")
    first, second = [job.wait() for job in jobs.ranks(2, given)]
    assert (first.status, second.status, second.stderr) == (2, 2, "")
    assert first.stderr.startswith(f"milkit: Line 1 of {run / 'history.csv'} is not one of a training's figures")
    (run / "history.csv").write_bytes(table)
    (run / LAST).unlink()
    (run / LAST).mkdir()
    for process in [job.wait() for job in jobs.ranks(2, given)]:
        assert process.status == 1
        assert "IsADirectoryError: " in process.stderr.splitlines()[-1]
    (run / LAST).rmdir()
    run_two(jobs, given)


def test_a_training_of_two_processes_is_one_that_others_see(jobs: Trainings, recipe: Path) -> None:
    """A second job is refused by its first process, and by all that it started."""
    given = arguments(recipe, "twice", "--set", "schedule.iterations=400")
    running = jobs.ranks(2, given)
    wait_for(lambda: (recipe.parent / "encoders" / "twice" / CHECKPOINT).is_file())
    first, second = [job.wait() for job in jobs.ranks(2, given)]
    for job in running:
        job.signal(signal.SIGKILL)
        job.wait()
    assert (first.status, second.status, second.stderr) == (2, 2, "")
    assert "has been writing the training" in first.stderr
    assert first.stderr.count("\n") == 1


def test_a_root_that_only_the_first_process_needs_ends_all_of_them(jobs: Trainings, recipe: Path) -> None:
    """The validation's: it is the first process that validates."""
    gone = ["--set", f"validation={{cohort: acevedo, root: {recipe.parent / 'gone'}}}"]
    first, second = [job.wait() for job in jobs.ranks(2, arguments(recipe, "gone", *gone))]
    assert (first.status, second.status, second.stderr) == (2, 2, "")
    assert "gone" in first.stderr
    assert first.stderr.count("\n") == 1
