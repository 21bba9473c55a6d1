"""Cross-validation: what a run folder holds, and that the test fold is never looked at."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file
from toys import CLASSES, made_of, make_store, toy_patients
from typer.testing import CliRunner

from milkit.bags import BagStore
from milkit.cli import app
from milkit.errors import FoldError, SettingsError, StoreError
from milkit.folds import Folds
from milkit.mil.crossval import cross_validate
from milkit.predictions import Attention, Predictions
from milkit.report.settings import ReportSettings
from milkit.report.write import write_report
from milkit.settings import MilSettings, load


def _settings(**other: Any) -> MilSettings:
    values: dict[str, Any] = {"folds": 3, "bootstrap": 100, "training": {"max_epochs": 4, "learning_rate": 0.01}}
    return MilSettings.model_validate(values | other)


@pytest.fixture
def run(toy_store: BagStore, tmp_path: Path) -> Path:
    cross_validate(toy_store, _settings(repeats=2, seeds=2), tmp_path / "run")
    return tmp_path / "run"


def test_the_run_folder_holds_what_the_design_says(run: Path) -> None:
    tables = {"folds.csv", "predictions.csv", "attention.parquet", "metrics.json"}
    assert {path.name for path in run.iterdir()} == tables | {
        "settings.yaml",
        "provenance.json",
        "controls.json",
        "heads",
        "log.txt",
    }


def test_each_patient_is_tested_exactly_once_per_repeat(run: Path) -> None:
    table = Predictions.load(run / "predictions.csv").table
    assert table.groupby("repeat")["patient_id"].apply(lambda ids: sorted(ids) == sorted(toy_patients().index)).all()
    assert len(table) == 2 * 18


def test_probabilities_sum_to_one_and_the_highest_is_predicted(run: Path) -> None:
    predictions = Predictions.load(run / "predictions.csv")
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1, atol=1e-6)
    highest = [predictions.classes[c] for c in predictions.probabilities.argmax(axis=1)]
    assert highest == list(predictions.table["predicted"])


def test_attention_sums_to_one_for_each_patient_and_model(run: Path) -> None:
    table = Attention.load(run / "attention.parquet").table
    sums = table.groupby(["patient_id", "repeat", "seed", "class"])["weight"].sum()
    np.testing.assert_allclose(sums, 1, atol=1e-6)
    assert len(sums) == 18 * 2 * 2


def test_attention_is_of_the_fold_that_tested_the_patient(run: Path) -> None:
    attention = Attention.load(run / "attention.parquet").table
    tested = Folds.load(run / "folds.csv").table.query("role == 'test'")
    merged = attention.merge(tested, on=["patient_id", "repeat", "fold"])
    assert len(merged) == len(attention)


def test_permuting_the_labels_of_the_test_fold_changes_no_trained_weight(tmp_path: Path) -> None:
    patients = toy_patients()
    folds = Folds.stratified(patients["label"], 3, seed=0)
    first = next(folds.splits())
    only_first = Folds(folds.table[folds.table["fold"] == 0])
    permuted = patients.copy()
    permuted.loc[first.test, "label"] = patients.loc[first.test[::-1], "label"].to_numpy()
    assert not permuted["label"].equals(patients["label"])
    weights = []
    for name, table in (("plain", patients), ("permuted", permuted)):
        store = make_store(tmp_path / f"{name}.zarr", patients)
        store.replace_patients(table, CLASSES)
        cross_validate(store, _settings(), tmp_path / name, only_first)
        weights.append(load_file(tmp_path / name / "heads" / "repeat0-fold0-seed0.safetensors"))
    assert all(np.array_equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_planted_features_are_learned(toy_store: BagStore, tmp_path: Path) -> None:
    metrics = cross_validate(toy_store, _settings(training={"learning_rate": 0.01, "max_epochs": 60}), tmp_path / "run")
    assert metrics["balanced_accuracy"]["estimate"] > 0.9
    table = Attention.load(tmp_path / "run" / "attention.parquet").table
    number = table["cell_id"].str.extract(r"_(\d+)$")[0].astype(int)
    planted = number < table.groupby("patient_id")["cell_id"].transform("count") // 3
    assert table["weight"][planted].mean() > 2 * table["weight"][~planted].mean()


def test_the_same_seed_gives_the_same_run(toy_store: BagStore, tmp_path: Path) -> None:
    for name in ("a", "b"):
        cross_validate(toy_store, _settings(), tmp_path / name)
    for file in ("predictions.csv", "metrics.json", "folds.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_settings_of_a_run_are_a_recipe(run: Path, toy_store: BagStore) -> None:
    loaded = load(MilSettings, run / "settings.yaml", {})
    assert loaded == _settings(repeats=2, seeds=2).model_copy(update={"store": toy_store.path.resolve()})


def test_no_head_and_no_log_holds_a_patient_id(run: Path) -> None:
    texts = [p.read_bytes() for p in (run / "heads").iterdir()] + [(run / "log.txt").read_bytes()]
    texts.append((run / "provenance.json").read_bytes())
    assert not [name for name in toy_patients().index if any(name.encode() in text for text in texts)]


def test_class_wise_attention_has_rows_for_every_class(toy_store: BagStore, tmp_path: Path) -> None:
    cross_validate(toy_store, _settings(head={"name": "abmil", "class_wise": True}), tmp_path / "run")
    assert set(Attention.load(tmp_path / "run" / "attention.parquet").table["class"]) == set(CLASSES)


def test_metrics_have_an_estimate_with_its_interval_and_folds(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    for name in ("balanced_accuracy", "weighted_f1", "accuracy", "auroc_macro", "auprc_macro"):
        figure = metrics[name]
        assert figure["ci_low"] <= figure["estimate"] <= figure["ci_high"]
        assert len(figure["folds"]) == 6
    assert list(metrics["per_class"]) == list(CLASSES)


def test_more_folds_than_the_smallest_class_leave_no_run(toy_store: BagStore, tmp_path: Path) -> None:
    with pytest.raises(FoldError, match=r"7 folds were asked for and the smallest class, 'NPM1', has 6 patients"):
        cross_validate(toy_store, _settings(folds=7), tmp_path / "runs" / "run")
    assert not (tmp_path / "runs").exists()


def test_a_head_that_cannot_be_made_leaves_no_run(toy_store: BagStore, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="hidden_dim: Input should be greater than or equal to 1"):
        cross_validate(toy_store, _settings(head={"name": "abmil", "hidden_dim": 0}), tmp_path / "runs" / "run")
    assert not (tmp_path / "runs").exists()


def test_an_interrupted_run_leaves_nothing(
    toy_store: BagStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("milkit.mil.crossval.train_head", interrupt)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(toy_store, _settings(), tmp_path / "runs" / "run")
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_store_without_patients_is_refused(tmp_path: Path) -> None:
    cells = pd.DataFrame({"cell_id": ["a"], "patient_id": [None], "path": ["a.png"]})
    store = BagStore.create(tmp_path / "s.zarr", pd.DataFrame(), cells, 2, made_of())
    with pytest.raises(StoreError, match=r"cohort without patients; multiple-instance learning needs a label"):
        cross_validate(store, _settings(), tmp_path / "run")


def test_settings_yaml_is_plain(run: Path) -> None:
    assert yaml.safe_load((run / "settings.yaml").read_text())["folds"] == 3


@pytest.mark.parametrize("target", [[], ["regression:age"]])
def test_a_fault_in_the_figures_does_not_cost_the_run(
    toy_store: BagStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: list[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        msg = "P03 is not finite"
        raise ValueError(msg)

    monkeypatch.setattr("milkit.mil.crossval.summarise", broken)
    monkeypatch.setattr("milkit.mil.crossval_targets.regression_figures", broken)
    run, settings = tmp_path / "run", {"folds": 3, "bootstrap": 100, "target": target, "training": {"max_epochs": 1}}
    metrics = cross_validate(toy_store, MilSettings.model_validate(settings), run)
    sentence = (
        "The figures of this run failed (ValueError; the traceback is in log.txt): its heads, predictions and "
        "attention are kept, and no figure of them."
    )
    assert (metrics["failed"], metrics["warning"], metrics["n_patients"]) == ("ValueError", sentence, 18)
    assert json.loads((run / "metrics.json").read_text()) == metrics
    for name in ("predictions.csv", "attention.parquet", "provenance.json", "controls.json"):
        assert (run / name).is_file()
    log = (run / "log.txt").read_text()
    assert "in broken" in log
    assert "P03" not in log
    assert sentence in write_report(run, ReportSettings()).read_text(encoding="utf-8")


def test_the_command_says_that_the_figures_failed_and_ends_with_3(
    toy_store: BagStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("milkit.mil.crossval.summarise", lambda *_, **__: 1 / 0)
    arguments = ["--workspace", str(tmp_path / "w"), "train-mil", "--store", str(toy_store.path), "--folds", "3"]
    done = CliRunner().invoke(app, [*arguments, "--set", "training.max_epochs=1", "--name", "r"])
    assert done.exit_code == 3
    assert "The figures of this run failed (ZeroDivisionError; the traceback is in log.txt)" in done.stdout
    assert done.stdout.splitlines()[-1].endswith("runs/r")
