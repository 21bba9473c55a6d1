"""A training from its images to its weights: it goes on as if it had never stopped, and leaves what can be used."""

import itertools
import json
import math
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from encoder_toys import vit_state
from extract_toys import wait_for
from pretrain_toys import TINY, Trainings, draw_acevedo, settings_of, write_recipe
from safetensors.torch import load_file, save_file

from encoders.dinobloom import dinobloom_s
from encoders.dinov2 import loop
from encoders.dinov2.checkpoints import CHECKPOINT, read_state, refuse_other_settings
from encoders.dinov2.engines import new_networks
from encoders.dinov2.history import History
from encoders.dinov2.loop import BEST, LAST, Pretrained
from encoders.dinov2.monitors import Validation
from encoders.dinov2.pretrain import pretrain
from encoders.dinov2.pretrain_settings import PretrainSettings
from encoders.dinov2.step import Inputs, hidden_patches, train_step
from encoders.pretrained import pretrained
from encoders.vit import VIT_SHAPES, VisionTransformer, VitShape
from milkit import settings
from milkit.errors import CohortError, RunError, TrainingError, WeightsError

CPU, SIDE = torch.device("cpu"), 42
TIMES = ["images_per_second"]


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To learn from; others, beside them, validate."""
    folder = tmp_path_factory.mktemp("cells")
    draw_acevedo(folder / "others", 4, first=10)
    return draw_acevedo(folder / "cells", 4)


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves take seconds, and have tests of their own."""
    monkeypatch.setattr(History, "draw", lambda *_: None)


def schedule(**other: Any) -> dict[str, Any]:
    return {**TINY["schedule"], "iterations": 8, **other}


def validation(root: Path, **arguments: Any) -> dict[str, Any]:
    return {"cohort": "acevedo", "root": str(root.with_name("others")), "arguments": arguments}


def rich(root: Path, **other: Any) -> PretrainSettings:
    """All parts at once: labels, and a validation."""
    parts = {
        "supervision": {"batch_size": 4},
        "validation": validation(root),
        "evaluate_every": 4,
        "checkpoint_every": 4,
        "schedule": schedule(),
    }
    return settings_of(root, **(parts | other))


def differences(one: Path, other: Path) -> dict[str, float]:
    """The largest of each tensor of two trainings' checkpoints."""
    some, others = load_file(one / CHECKPOINT), load_file(other / CHECKPOINT)
    assert some.keys() == others.keys()
    return {name: float((some[name].double() - others[name].double()).abs().max()) for name in some}


def history_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "history.csv").drop(columns=TIMES)


# --- going on ---------------------------------------------------------------------------------------------------------


def test_a_training_that_stopped_goes_on_as_if_it_had_not(cells: Path, tmp_path: Path) -> None:
    whole = pretrain(rich(cells), tmp_path / "whole")
    pretrain(rich(cells, stop_after=4), tmp_path / "parts")
    resumed = pretrain(rich(cells), tmp_path / "parts")
    found = differences(tmp_path / "whole", tmp_path / "parts")
    assert max(found.values()) <= 1e-6, max(found, key=lambda name: found[name])
    assert {name.partition(".")[0] for name in found} == {"student", "teacher", "optimiser"}
    pd.testing.assert_frame_equal(history_of(tmp_path / "whole"), history_of(tmp_path / "parts"), rtol=1e-6)
    assert (whole.iterations, resumed.iterations) == (8, 8)
    assert whole.score == pytest.approx(resumed.score)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs fork and signals")
def test_killed_at_any_moment_and_run_again_it_ends_as_a_training_that_nobody_disturbed(
    cells: Path, tmp_path: Path
) -> None:
    recipe = write_recipe(
        tmp_path / "r.yaml",
        cells,
        schedule=schedule(iterations=24),
        checkpoint_every=4,
        evaluate_every=8,
        supervision={"batch_size": 4},
        validation=validation(cells),
    )

    def arguments(name: str) -> list[object]:
        return ["--workspace", tmp_path, "pretrain", "--config", recipe, "--name", name]

    killed = tmp_path / "encoders" / "killed"
    with Trainings(tmp_path / "said") as jobs:
        jobs.run(arguments("whole"))
        for least in (1, 12):
            job = jobs.start(arguments("killed"))
            wait_for(lambda least=least: ((read_state(killed) or {}).get("iteration", 0)) >= least)
            job.signal(signal.SIGKILL)
            assert job.wait().status == -signal.SIGKILL
        reached = (read_state(killed) or {})["iteration"]
        assert 12 <= reached < 24
        jobs.run(arguments("killed"))
    found = differences(tmp_path / "encoders" / "whole", killed)
    assert max(found.values()) <= 1e-6, max(found, key=lambda name: found[name])
    pd.testing.assert_frame_equal(history_of(killed.with_name("whole")), history_of(killed), rtol=1e-6)


def test_a_training_that_has_ended_ends_at_once_with_the_same_result(cells: Path, tmp_path: Path) -> None:
    first = pretrain(settings_of(cells, schedule=schedule(iterations=2)), tmp_path)
    written = (tmp_path / CHECKPOINT).stat().st_mtime_ns
    assert pretrain(settings_of(cells, schedule=schedule(iterations=2)), tmp_path) == first
    assert (tmp_path / CHECKPOINT).stat().st_mtime_ns == written


def dumped(root: Path, **other: Any) -> dict[str, Any]:
    return settings_of(root, **other).model_dump(mode="json")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 1}, "seed"),
        ({"batch_size": 16}, "batch_size"),
        ({"schedule": schedule(learning_rate=1e-3, warmup=5)}, "schedule.learning_rate, schedule.warmup"),
        ({"network": TINY["network"] | {"dim": 64}}, "network.dim"),
        ({"precision": "bf16"}, "precision"),
        ({"sources": [{"cohort": "acevedo", "weight": 2}]}, "sources"),
        ({"sources": [{"cohort": "acevedo", "arguments": {"part": "train"}}]}, "sources"),
        ({"sources": [{"cohort": "bccd"}]}, "sources"),
        ({"augmentation": {"hue": 0.0}}, "augmentation.hue"),
        ({"weights": "dinobloom.pth"}, "weights"),
        ({"supervision": {"alpha": 0.1}}, "supervision.alpha"),
    ],
)
def test_other_settings_of_what_is_learned_are_refused_by_name(changed: dict[str, Any], named: str) -> None:
    supervised = {"supervision": {"alpha": 0.2}, "schedule": schedule()}
    begun, given = dumped(Path("cells"), **supervised), dumped(Path("cells"), **(supervised | changed))
    with pytest.raises(RunError) as caught:
        refuse_other_settings(Path("mine"), begun, given)
    assert str(caught.value) == (
        f"The training in mine was begun with other settings ({named}), and goes on only with its own; give those, or "
        "another --name."
    )


def test_labels_that_come_later_are_refused(cells: Path) -> None:
    with pytest.raises(RunError, match=r"begun with other settings \(supervision\), and goes on only with its own"):
        refuse_other_settings(Path("mine"), dumped(cells), dumped(cells, supervision={}))


@pytest.mark.parametrize(
    "changed",
    [
        {"stop_after": 3},
        {"log_every": 7, "evaluate_every": 7, "checkpoint_every": 7},
        {"validation": {"cohort": "bccd"}, "validation_cells": 7},
        {"device": "auto", "parallel": "fsdp", "workers": 7},
        {"sources": [{"cohort": "acevedo", "root": "elsewhere"}]},
        {"weights": "elsewhere/start.pth"},
    ],
)
def test_what_changes_nothing_of_what_is_learned_may_change(changed: dict[str, Any]) -> None:
    start = {"weights": "start.pth"}
    refuse_other_settings(Path("mine"), dumped(Path("cells"), **start), dumped(Path("cells"), **(start | changed)))


def test_images_and_weights_that_were_moved_do_not_stop_a_training(cells: Path, tmp_path: Path) -> None:
    """A checkpoint holds what was learned from the weights by then."""
    shape = VitShape(dim=32, depth=1, heads=1, positions=10)
    save_file(vit_state(shape), tmp_path / "start.safetensors")
    shutil.copytree(cells, tmp_path / "here")
    given = {"schedule": schedule(iterations=4), "weights": str(tmp_path / "start.safetensors")}
    pretrain(settings_of(tmp_path / "here", **given, stop_after=2), tmp_path / "moved")
    (tmp_path / "here").rename(tmp_path / "there")
    (tmp_path / "start.safetensors").rename(tmp_path / "gone")
    pretrain(settings_of(tmp_path / "there", **given), tmp_path / "moved")
    (tmp_path / "gone").rename(tmp_path / "start.safetensors")
    pretrain(settings_of(tmp_path / "there", **given), tmp_path / "whole")
    assert max(differences(tmp_path / "moved", tmp_path / "whole").values()) <= 1e-6


def test_a_refused_training_is_left_as_it_was(cells: Path, tmp_path: Path) -> None:
    pretrain(settings_of(cells, schedule=schedule(iterations=2)), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RunError, match=r"\(seed\), and goes on only with its own"):
        pretrain(settings_of(cells, schedule=schedule(iterations=2), seed=3), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("content", [b"", b"no tensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_a_damaged_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).write_bytes(content)
    with pytest.raises(RunError) as caught:
        read_state(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / CHECKPOINT} is damaged or no checkpoint of `milkit pretrain`; move it away to start from the "
        "beginning."
    )


# --- starting ---------------------------------------------------------------------------------------------------------


def test_a_training_starts_from_the_weights_that_it_was_given(cells: Path, tmp_path: Path) -> None:
    """The first iteration's learning rate is 0: the networks are those of the file, their positions scaled."""
    state = vit_state(VitShape(dim=32, depth=1, heads=1, positions=257))
    torch.save(state, tmp_path / "dinobloom.pth")
    pretrain(settings_of(cells, weights=str(tmp_path / "dinobloom.pth"), stop_after=1), tmp_path / "run")
    held = load_file(tmp_path / "run" / CHECKPOINT)
    for kind, (name, tensor) in itertools.product(("student", "teacher"), state.items()):
        if name != "pos_embed":
            torch.testing.assert_close(held[f"{kind}.backbone.{name}"], tensor, rtol=0, atol=1e-7)
    assert held["student.backbone.pos_embed"].shape == (1, 10, 32)
    torch.testing.assert_close(held["student.backbone.pos_embed"][:, 0], state["pos_embed"][:, 0])


def test_nothing_is_written_where_what_is_needed_is_not_there(cells: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(CohortError, match="--root"):
        pretrain(settings_of(tmp_path / "nowhere"), folder)
    with pytest.raises(CohortError, match="--root"):
        pretrain(settings_of(cells, validation={"cohort": "acevedo", "root": str(tmp_path / "nowhere")}), folder)
    with pytest.raises(WeightsError, match="does not exist"):
        pretrain(settings_of(cells, weights=str(tmp_path / "nowhere.pth")), folder)
    assert not folder.exists()


def test_the_same_seed_makes_the_same_training_and_another_one_another(cells: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)  # which no training asks for
    state = torch.get_rng_state()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        pretrain(settings_of(cells, seed=seed, stop_after=3), tmp_path / name)
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(7)
        state = torch.get_rng_state()
    assert max(differences(tmp_path / "a", tmp_path / "b").values()) == 0.0
    assert max(differences(tmp_path / "a", tmp_path / "c").values()) > 1e-3


def test_the_settings_that_are_kept_are_a_recipe_for_the_same_training(cells: Path, tmp_path: Path) -> None:
    chosen = rich(cells, stop_after=1)
    pretrain(chosen, tmp_path)
    assert settings.load(PretrainSettings, tmp_path / "settings.yaml", {}) == chosen
    text = (tmp_path / "provenance.json").read_text() + (tmp_path / "log.txt").read_text()
    assert str(tmp_path) not in text
    assert "acevedo: 24 images" in text


# --- unreadable images ------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(cells: Path, tmp_path: Path) -> Path:
    """Two images that cannot be read."""
    root = shutil.copytree(cells, tmp_path / "damaged")
    (root / "basophil" / "BA_1.jpg").write_bytes(b"no image")
    (root / "lymphocyte" / "LY_2.jpg").write_bytes((root / "lymphocyte" / "LY_2.jpg").read_bytes()[:300])
    return root


def failures_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "failures.csv")


def test_images_that_cannot_be_read_are_replaced_counted_and_listed(damaged: Path, tmp_path: Path) -> None:
    """8 images a step come by all 24 in three steps."""
    done = pretrain(settings_of(damaged, schedule=schedule(iterations=3)), tmp_path / "run")
    listed = failures_of(tmp_path / "run")
    assert done.n_unreadable == len(listed) == 2
    assert listed["path"].tolist() == ["basophil/BA_1.jpg", "lymphocyte/LY_2.jpg"]
    assert listed["reason"].str.len().min() > 10
    assert np.isfinite(history_of(tmp_path / "run")["loss"]).all()


def test_the_list_of_unreadable_images_survives_a_stop(damaged: Path, tmp_path: Path) -> None:
    """Also where what comes later has none of them."""
    given = {"schedule": schedule(iterations=4)}
    pretrain(settings_of(damaged, **given, stop_after=3), tmp_path / "run")
    before = failures_of(tmp_path / "run")
    for kind, number in (("basophil/BA", 1), ("lymphocyte/LY", 2)):
        shutil.copy(damaged / f"{kind}_0.jpg", damaged / f"{kind}_{number}.jpg")
    done = pretrain(settings_of(damaged, **given), tmp_path / "run")
    pd.testing.assert_frame_equal(failures_of(tmp_path / "run"), before)
    assert done.n_unreadable == 2


def test_without_unreadable_images_there_is_no_list_of_them(cells: Path, tmp_path: Path) -> None:
    (tmp_path / "failures.csv").write_text("path,reason\nof an earlier try,x\n")
    assert pretrain(settings_of(cells, stop_after=1), tmp_path).n_unreadable == 0
    assert not (tmp_path / "failures.csv").exists()


# --- what is left -----------------------------------------------------------------------------------------------------


def test_a_training_of_dinobloom_s_shape_leaves_weights_that_dinobloom_s_loads(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their features are those of the teacher."""
    monkeypatch.setitem(VIT_SHAPES, "s", VitShape(dim=32, depth=1, heads=1))
    done = pretrain(settings_of(cells, network="s", batch_size=2, stop_after=2), tmp_path)
    assert done.weights == tmp_path / LAST
    encoder = dinobloom_s(done.weights)
    held = load_file(tmp_path / CHECKPOINT)
    teacher = VisionTransformer(VIT_SHAPES["s"])
    own = {name.removeprefix("teacher.backbone."): held[name] for name in held if name.startswith("teacher.backbone.")}
    teacher.load_state_dict(own)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(encoder.model(images), teacher(images))
    assert (encoder.dim, encoder.transform.size) == (32, 224)


def test_weights_of_any_shape_say_how_they_are_used(cells: Path, tmp_path: Path) -> None:
    done = pretrain(settings_of(cells, stop_after=1), tmp_path)
    encoder = pretrained(done.weights)
    assert (encoder.dim, encoder.transform.size, encoder.seen) == (32, SIDE, ("acevedo",))


def with_scores(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Evaluations find these, one after the other."""
    found: Iterator[float] = iter(scores)
    monkeypatch.setattr(Validation, "evaluate", lambda *_, **__: {"knn_1": 0.0, "knn_20": next(found), "rank_me": 1.0})


def test_the_teacher_with_the_best_validation_is_kept_beside_the_last_one(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An equal score later is no better one, and none at all is none."""
    with_scores(monkeypatch, [0.3, 0.6, math.nan, 0.6, 0.5])
    given = {"supervision": None, "evaluate_every": 1, "schedule": schedule(iterations=5)}
    done = pretrain(rich(cells, **given), tmp_path / "five")
    assert (done.score, done.weights) == (0.6, tmp_path / "five" / BEST)
    monkeypatch.undo()
    monkeypatch.setattr(History, "draw", lambda *_: None)
    with_scores(monkeypatch, [0.3, 0.6])
    pretrain(rich(cells, **given, stop_after=2), tmp_path / "two")
    best, then = load_file(tmp_path / "five" / BEST), load_file(tmp_path / "two" / LAST)
    assert all(torch.equal(best[name], then[name]) for name in then)
    last = load_file(tmp_path / "five" / LAST)
    assert not all(torch.equal(best[name], last[name]) for name in last)


def test_the_best_score_so_far_is_remembered_over_a_stop(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"supervision": None, "evaluate_every": 1, "schedule": schedule(iterations=3)}
    with_scores(monkeypatch, [0.6, 0.5, 0.4])
    pretrain(rich(cells, **given, stop_after=1), tmp_path)
    kept = (tmp_path / BEST).read_bytes()
    assert pretrain(rich(cells, **given), tmp_path).score == 0.6
    assert (tmp_path / BEST).read_bytes() == kept


def test_without_a_score_the_last_teacher_is_the_one_to_use(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_scores(monkeypatch, [math.nan])
    done: Pretrained = pretrain(rich(cells, stop_after=1), tmp_path)
    assert (done.score, done.weights) == (None, tmp_path / LAST)


def test_the_rate_of_images_is_that_of_the_training_without_its_pauses(
    cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes a second of this clock, an evaluation and a checkpoint a hundred; rows are told every 4 steps.

    And at a stop, after which it goes on some hours later.
    """
    clock = [0.0]
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: clock[0]))

    def taking(seconds: float, work: Callable[..., Any]) -> Callable[..., Any]:
        def slowly(*given: Any) -> Any:
            clock[0] += seconds
            return work(*given)

        return slowly

    monkeypatch.setattr(loop, "train_step", taking(1.0, loop.train_step))
    monkeypatch.setattr(loop.Training, "_evaluate", taking(100.0, loop.Training._evaluate))
    monkeypatch.setattr(loop.Training, "_keep", taking(100.0, loop.Training._keep))
    often = {"log_every": 4, "evaluate_every": 3, "checkpoint_every": 5}
    for stop in (6, None):
        pretrain(settings_of(cells, **often, schedule=schedule(iterations=12), stop_after=stop), tmp_path)
        clock[0] += 1e4
    rates = pd.read_csv(tmp_path / "history.csv")["images_per_second"]
    assert rates.tolist() == pytest.approx([8.0] * 4)
    assert 112 <= (read_state(tmp_path) or {})["seconds"] < 1e4


# --- astray -----------------------------------------------------------------------------------------------------------


def test_gradients_that_are_not_finite_end_the_training_before_anything_moves(cells: Path) -> None:
    chosen = settings_of(cells)
    networks = new_networks(chosen, None, CPU)
    generator = torch.Generator().manual_seed(0)

    def inputs(iteration: int) -> Inputs:
        return Inputs(torch.randn(16, 3, SIDE, SIDE, generator=generator), hidden_patches(chosen, iteration, 0, 1))

    for iteration in (10, 11):
        train_step(networks, inputs(iteration), chosen, iteration, torch.float32)
    parts = (networks.student, networks.teacher)
    before = [{name: tensor.clone() for name, tensor in part.state_dict().items()} for part in parts]
    moments = [held["exp_avg"].clone() for held in networks.optimiser.state.values()]
    broken = inputs(12)
    broken.crops[3] = math.inf
    with pytest.raises(TrainingError) as caught:
        train_step(networks, broken, chosen, 12, torch.float32)
    start, end = str(caught.value).split("(nan", maxsplit=1)[0], str(caught.value).rsplit("), ", maxsplit=1)[1]
    assert start == "The gradients of iteration 12 are not finite "
    assert end == ("where numbers were expected; begin anew under another --name with a lower schedule.learning_rate.")
    assert caught.value.shared
    for part, was in zip(parts, before, strict=True):
        assert all(torch.equal(tensor, was[name]) for name, tensor in part.state_dict().items())
    held = [state["exp_avg"] for state in networks.optimiser.state.values()]
    assert all(torch.equal(*pair) for pair in zip(moments, held, strict=True))


def test_a_learning_rate_that_is_far_too_high_is_an_error_and_leaves_the_last_checkpoint(
    cells: Path, tmp_path: Path
) -> None:
    wild = schedule(learning_rate=1e30, warmup=0, iterations=20)
    with pytest.raises(TrainingError, match=r"^The gradients of iteration \d+ are not finite"):
        pretrain(settings_of(cells, schedule=wild, checkpoint_every=1), tmp_path)
    state = json.loads(json.dumps(read_state(tmp_path)))
    assert 1 <= state["iteration"] < 20
    assert not list(tmp_path.glob(".*"))
