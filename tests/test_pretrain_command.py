"""`milkit pretrain` as it is typed: what it says when it is interrupted, what it exports, and from what it starts."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_toys import described_vit, vit_state
from pretrain_toys import draw_acevedo, write_recipe
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from encoders.dinov2 import pretrain as verb
from encoders.dinov2.checkpoints import export_half
from encoders.dinov2.history import History
from encoders.dinov2.loop import Pretrained
from encoders.dinov2.pretrain_settings import PretrainSettings
from encoders.pretrained import pretrained, read_description
from encoders.vit import VitShape
from milkit import ranks
from milkit.cli import INTERRUPTED, app
from milkit.ranks import ALONE, Ranks
from milkit.settings import find_recipe, load


def run(tmp_path: Path, *more: object) -> Result:
    given = ["--workspace", tmp_path / "work", "pretrain", *more]
    return CliRunner().invoke(app, [str(word) for word in given])


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "mine.yaml", None, weights="start.pth")


def test_interrupted_it_says_that_it_goes_on_where_it_stopped(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> Pretrained:
        raise KeyboardInterrupt

    monkeypatch.setattr(verb, "pretrain", interrupted)
    done = run(tmp_path, "--config", recipe)
    assert done.exit_code == INTERRUPTED
    assert done.stderr == "milkit: interrupted; run the same command again, it goes on where it stopped.\n"


def test_what_is_typed_reaches_the_training(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def trained(settings: PretrainSettings, folder: Path, ranks: Ranks) -> Pretrained:
        seen.extend([settings, folder, ranks])
        return Pretrained(folder, folder / "teacher-best.safetensors", 7, 0.25, 2)

    monkeypatch.setattr(verb, "pretrain", trained)
    root = ["--root", f"acevedo={tmp_path}"]
    done = run(tmp_path, "--config", recipe, *root, "--seed", 3, "--set", "schedule.warmup=5", "--json")
    folder = tmp_path / "work" / "encoders" / "mine"
    assert done.exit_code == 0, done.output
    assert (seen[0].seed, seen[0].schedule.warmup, seen[0].sources[0].cohort.root) == (3, 5, tmp_path)
    assert seen[1:] == [folder, ALONE]
    assert json.loads(done.stdout) == {
        "weights": str(folder / "teacher-best.safetensors"),
        "iterations": 7,
        "score": 0.25,
    }
    listed = folder / "failures.csv"
    assert done.stderr == f"2 images could not be read; {listed} lists them with the reason.\n"


@pytest.mark.parametrize(("device", "gpu"), [("cpu", False), ("auto", True)])
def test_processes_that_may_use_gpus_meet_to_exchange_what_lies_on_them(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, gpu: bool
) -> None:
    asked: list[bool] = []

    @contextlib.contextmanager
    def meeting(*, gpu: bool = False) -> Iterator[Ranks]:
        asked.append(gpu)
        yield Ranks(1, 2)

    monkeypatch.setattr(ranks, "joined", meeting)
    monkeypatch.setattr(verb, "pretrain", lambda *_: None)
    assert run(tmp_path, "--config", recipe, "--device", device).output == ""
    assert asked == [gpu]


@pytest.mark.parametrize("root", ["acevedo", "=here", "acevedo="])
def test_a_root_without_its_cohort_or_folder_is_refused(recipe: Path, tmp_path: Path, root: str) -> None:
    done = run(tmp_path, "--config", recipe, "--root", root)
    assert (done.exit_code, done.stderr) == (
        2,
        f"milkit: --root got '{root}', expected a cohort of the recipe and its folder, such as --root "
        "acevedo=FOLDER.\n",
    )


# --- what it exports --------------------------------------------------------------------------------------------------


def test_an_export_is_half_as_large_and_says_what_the_teacher_that_it_is_of_says(tmp_path: Path) -> None:
    """The best one's iteration and score, which need not be the last one's."""
    shape = VitShape(dim=32, depth=1, heads=1, positions=10)
    said = {"name": "mine", "iteration": 250, "knn_20": 0.6, "seen": ["acevedo", "bccd"]}
    source = described_vit(tmp_path / "teacher-best.safetensors", shape, **said)
    export_half(source, tmp_path / "small.safetensors")
    assert read_description(tmp_path / "small.safetensors") == read_description(source) | {"name": "small"}
    held = load_file(tmp_path / "small.safetensors")
    assert all(torch.equal(held[name], tensor.half()) for name, tensor in vit_state(shape).items())
    assert pretrained(tmp_path / "small.safetensors").seen == ("acevedo", "bccd")


def test_the_teacher_to_use_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(History, "draw", lambda *_: None)
    recipe = write_recipe(tmp_path / "r.yaml", draw_acevedo(tmp_path / "cells", 2), batch_size=2)
    target = tmp_path / "mine.safetensors"
    done = run(tmp_path, "--config", recipe, "--stop-after", 2, "--export", target)
    assert (done.exit_code, done.stderr.splitlines()[-1]) == (0, f"exported {target}")
    about = read_description(target)
    assert (about["name"], about["iteration"], about["seen"]) == ("mine", 2, ["acevedo"])
    held, teacher = load_file(target), load_file(tmp_path / "work" / "encoders" / "r" / "teacher-last.safetensors")
    assert all(torch.equal(held[name], tensor.half()) for name, tensor in teacher.items())


# --- from what it starts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["s", "b", "l", "g"])
def test_a_recipe_of_dinobloom_s_starts_from_dinov2_s_release(size: str) -> None:
    recipe = load(PretrainSettings, find_recipe("encoders", f"dinobloom_{size}"), {})
    assert recipe.weights == Path(f"dinov2_vit{size}14_pretrain.pth")


def test_without_the_file_to_start_from_nothing_is_begun(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cells = draw_acevedo(tmp_path / "cells", 1)
    done = run(tmp_path, "--config", recipe, "--root", f"acevedo={cells}")
    assert (done.exit_code, done.stderr) == (
        2,
        "milkit: The weights file start.pth does not exist; give the path of a downloaded checkpoint with --weights "
        "FILE.\n",
    )
    assert not (tmp_path / "work").exists()
