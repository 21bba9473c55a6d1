"""Choosing settings within each training part where the target is no class: by the loss that training lowers."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from toys import CLASSES, make_store, toy_patients
from typer.testing import CliRunner

from milkit import losses
from milkit.bags import BagStore
from milkit.cli import app
from milkit.errors import FoldError, SettingsError
from milkit.folds import Folds
from milkit.mil.batches import Bags
from milkit.mil.crossval import cross_validate
from milkit.mil.target_learning import Learned
from milkit.mil.tuning import Loss
from milkit.runs import read_json
from milkit.settings import MilSettings
from milkit.target_choice import choose_targets

GRID = {"head": ["abmil", "meanpool"], "training.learning_rate": [1e-6, 0.03]}


def _patients(per_class: int = 10) -> pd.DataFrame:
    """Thirty patients; the first class dies soon and is young, the last one lives long and is old."""
    patients = toy_patients(per_class)
    generator, kind = np.random.default_rng(0), patients["label"].map(CLASSES.index).to_numpy()
    patients["time"] = np.exp(kind + generator.normal(0, 0.2, len(patients)))
    patients["event"] = (np.arange(len(patients)) // 3 % 5 > 0).astype(float)
    patients["age"] = 30.0 + 20 * kind + generator.normal(0, 2, len(patients))
    return patients


@pytest.fixture
def store(tmp_path: Path) -> BagStore:
    return make_store(tmp_path / "toy.zarr", _patients())


def _settings(*targets: str, **other: Any) -> MilSettings:
    values: dict[str, Any] = {"folds": 3, "tune_folds": 3, "bootstrap": 100, "target": targets, "tune": GRID}
    return MilSettings.model_validate({**values, "controls": False, "training": {"max_epochs": 4}, **other})


def test_losses_are_averaged_over_the_inner_folds_by_their_weights_and_summed_over_targets() -> None:
    first = np.array([[1.0, 4.0], [0.5, 10.0]])  # two targets: loss and weight
    second = np.array([[3.0, 1.0], [0.0, 0.0]])  # the second target is known of nobody here
    assert Loss.of([first, second]).loss == pytest.approx((1 * 4 + 3 * 1) / 5 + 0.5)


@pytest.mark.parametrize("target", ["survival", "regression:age", "discrete-survival"])
def test_the_candidate_of_the_lowest_loss_is_trained(store: BagStore, tmp_path: Path, target: str) -> None:
    metrics = cross_validate(store, _settings(target), tmp_path / "run")
    record = read_json(tmp_path / "run" / "tuning.json")
    assert record["n_configurations"] == metrics["tuning"]["n_configurations"] == 4
    for split in record["splits"]:
        found = [score["loss"] for score in split["scores"]]
        assert split["chosen"] == int(np.argmin(found))
        chosen = record["candidates"][split["chosen"]]
        assert chosen["training.learning_rate"] == 0.03
        facts = read_json(tmp_path / "run" / "heads" / f"repeat0-fold{split['fold']}-seed0.json")
        assert facts["head"] == {"name": chosen["head"]}


def test_the_loss_of_a_trial_is_the_target_s_over_the_patients_that_it_tests(store: BagStore) -> None:
    settings, patients = _settings("survival", "regression:age", tune={}), store.patients
    targets = choose_targets(settings, patients, CLASSES)
    split = next(Folds.stratified(patients["label"], 3, seed=0).splits())
    learned = Learned.of(Bags.load(store, torch.device("cpu")), patients, targets, split, settings)
    trained = learned.trained(0)
    (risk, age), _ = learned.said(trained, split.test)
    own = patients.loc[split.test]
    time, event = torch.tensor(own["time"].to_numpy()), torch.tensor(own["event"].to_numpy()) > 0
    train = patients.loc[split.train, "age"]
    expected = [
        (float(losses.cox(torch.tensor(risk[:, 0]), time, event)), float(event.sum())),
        (float((((age[:, 0] - own["age"].to_numpy()) / train.std(ddof=0)) ** 2).mean()), len(own)),
    ]
    np.testing.assert_allclose(learned.losses(trained, split.test), expected, rtol=1e-5)


def test_nothing_of_the_tested_patients_changes_a_choice_or_a_score(tmp_path: Path) -> None:
    patients, settings, records = _patients(), _settings("regression:age"), []
    folds = Folds.stratified(patients["label"], 3, seed=0)
    first = next(folds.splits())
    only_first = Folds(folds.table[folds.table["fold"] == 0].reset_index(drop=True))
    changed = patients.copy()
    changed.loc[first.test, "age"] += 100.0
    for name, table in (("plain", patients), ("changed", changed)):
        store = make_store(tmp_path / f"{name}.zarr", patients)
        store.replace_patients(table, CLASSES)
        cross_validate(store, settings, tmp_path / name, only_first)
        records.append(read_json(tmp_path / name / "tuning.json")["splits"][0])
    for record in records:
        assert len({score["loss"] for score in record["scores"]}) == 4
    assert records[0] == records[1]


def test_several_targets_are_chosen_for_together(store: BagStore, tmp_path: Path) -> None:
    metrics = cross_validate(store, _settings("survival", "regression:age", "label"), tmp_path / "run")
    assert metrics["tuning"]["n_splits"] == 3
    assert set(metrics["targets"]) == {"survival", "age", "label"}


def test_inner_folds_without_events_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    patients = _patients()
    patients["event"] = 0.0
    patients.loc[patients.index[:5], "event"] = 1.0
    store = make_store(tmp_path / "toy.zarr", patients)
    with pytest.raises(
        FoldError,
        match=r"^Candidates cannot be compared by inner folds: .* lack an event while others .*; set tune_folds lower",
    ):
        cross_validate(store, _settings("survival"), tmp_path / "runs" / "run")
    assert not (tmp_path / "runs").exists()


def test_a_candidate_head_that_learns_from_classes_is_refused(store: BagStore, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="The head 'clam' learns from the classes of its bags, and the target is"):
        cross_validate(store, _settings("survival", tune={"head": ["abmil", "clam"]}), tmp_path / "runs" / "run")
    assert not (tmp_path / "runs").exists()


def test_the_encoder_can_be_chosen_for_survival(store: BagStore, tmp_path: Path) -> None:
    other = make_store(tmp_path / "blind.zarr", _patients(), seed=5, encoder="blind", encoder_digest="b" * 64)
    tune = {"encoder": [str(store.path), str(other.path)]}
    cross_validate(store, _settings("survival", tune=tune), tmp_path / "run")
    record = read_json(tmp_path / "run" / "tuning.json")
    assert [one["encoder"] for one in record["candidates"]] == ["toy-encoder", "blind"]
    digests = {"toy-encoder": "e" * 64, "blind": "b" * 64}
    for split in record["splits"]:
        facts = read_json(tmp_path / "run" / "heads" / f"repeat0-fold{split['fold']}-seed0.json")
        assert facts["encoder_digest"] == digests[record["candidates"][split["chosen"]]["encoder"]]


def test_the_command_line_says_what_was_chosen_for_several_targets(store: BagStore, tmp_path: Path) -> None:
    arguments = ["--workspace", str(tmp_path / "w"), "train-mil", "--store", str(store.path), "--folds", "3"]
    arguments += ["--target", "survival", "--target", "regression:age", "--set", "tune.head=[abmil, meanpool]"]
    for one in ("training.max_epochs=1", "tune_folds=3", "bootstrap=100", "controls=false"):
        arguments += ["--set", one]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert "2 configurations were tried in each training part; chosen: head " in done.stdout
