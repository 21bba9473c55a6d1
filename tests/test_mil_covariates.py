"""Covariates in training: fused where they are asked for, encoded by training patients alone, saved and reported."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file
from toys import CLASSES, make_store, toy_patients
from typer.testing import CliRunner

from milkit.bags import BagStore
from milkit.cli import app
from milkit.covariates import CovariateEncoding
from milkit.folds import Folds
from milkit.mil.crossval import cross_validate
from milkit.settings import MilSettings

QUICK = {"folds": 3, "bootstrap": 100, "controls": False, "training": {"max_epochs": 4, "learning_rate": 0.01}}
FLAGS = ["--folds", "3", "--set", "bootstrap=100", "--set", "controls=false", "--name", "run"]
FEW = ["--set", "training.max_epochs=2"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MILKIT_WORKSPACE", raising=False)


@pytest.fixture
def patients() -> pd.DataFrame:
    """Eighteen toys with an age that two lack, and a sex that one lacks."""
    table = toy_patients()
    table.loc[["P03", "P10"], "age"] = np.nan
    table["sex"] = ["F", "M"] * 9
    table.loc["P05", "sex"] = None
    return table


def _train(*arguments: object, status: int = 0) -> Any:
    result = CliRunner().invoke(app, ["train-mil", *map(str, arguments)])
    assert result.exit_code == status, (result.exit_code, result.output, result.exception)
    return result


def _run_of(patients: pd.DataFrame, folder: Path, *flags: str) -> Path:
    """The folder of a run with age and sex, from the command line."""
    make_store(folder / "s.zarr", patients)
    _train("--store", folder / "s.zarr", "--covariates", "age, sex", *FLAGS, *FEW, *flags)
    return folder / "milkit-work" / "runs" / "run"


def test_a_run_says_which_covariates_it_had_and_how_many_patients_lack_them(
    patients: pd.DataFrame, tmp_path: Path
) -> None:
    run = _run_of(patients, tmp_path)
    assert yaml.safe_load((run / "settings.yaml").read_text())["covariates"] == ["age", "sex"]
    assert json.loads((run / "provenance.json").read_text())["covariates_missing"] == {"age": 2, "sex": 1}
    lines = [line for line in (run / "log.txt").read_text().splitlines() if "missing in the" in line]
    first = next(Folds.load(run / "folds.csv").splits())
    lacking = patients.loc[first.train].isna().sum()
    assert len(lines) == 3
    assert lines[0].endswith(
        f"repeat0-fold0: missing in the {len(first.train)} training patients: age {lacking.age}, sex {lacking.sex}"
    )


def test_a_saved_head_has_the_encoding_of_its_own_training_patients(patients: pd.DataFrame, tmp_path: Path) -> None:
    run = _run_of(patients, tmp_path)
    for split in Folds.load(run / "folds.csv").splits():
        head = run / "heads" / f"repeat0-fold{split.fold}-seed0"
        facts, weights = json.loads(head.with_suffix(".json").read_text()), load_file(head.with_suffix(".safetensors"))
        ages = patients.loc[split.train, "age"].dropna()
        assert weights["covariates.mean"][0].item() == pytest.approx(ages.mean(), abs=1e-12)
        assert weights["covariates.scale"][0].item() == pytest.approx(1 / ages.std(ddof=0), abs=1e-12)
        statistics = (weights[f"covariates.{name}"].numpy() for name in ("mean", "scale"))
        encoding = CovariateEncoding.described(facts["covariates"], *statistics)
        expected = CovariateEncoding.fit(patients.loc[split.train], ["age", "sex"]).encode(patients)
        np.testing.assert_array_equal(encoding.encode(patients), expected)
        assert facts["n_covariates"] == expected.shape[1]
        assert weights["head.hidden.0.weight"].shape[1] == 128 + expected.shape[1]


def test_neither_heads_nor_log_nor_provenance_name_a_patient(patients: pd.DataFrame, tmp_path: Path) -> None:
    run = _run_of(patients, tmp_path)
    files = [*(run / "heads").iterdir(), run / "log.txt", run / "provenance.json"]
    assert not [f for f in files if any(name.encode() in f.read_bytes() for name in patients.index)]


def test_covariates_of_tested_patients_change_no_trained_weight(patients: pd.DataFrame, tmp_path: Path) -> None:
    folds = Folds.stratified(patients["label"], 3, seed=0)
    first = next(folds.splits())
    only_first = Folds(folds.table[folds.table["fold"] == 0])
    changed = patients.copy()
    changed.loc[first.test, "age"] = 1e6
    changed.loc[first.test, "sex"] = "X"
    weights = []
    for name, table in (("plain", patients), ("changed", changed)):
        store = make_store(tmp_path / f"{name}.zarr", table)
        settings = MilSettings.model_validate({**QUICK, "covariates": ["age", "sex"]})
        cross_validate(store, settings, tmp_path / name, only_first)
        weights.append(load_file(tmp_path / name / "heads" / "repeat0-fold0-seed0.safetensors"))
    assert weights[0].keys() == weights[1].keys()
    assert all(np.array_equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_a_label_that_only_a_covariate_carries_is_learned_with_it_alone(tmp_path: Path) -> None:
    patients = toy_patients(16)
    patients["age"] = [30.0 + 25 * CLASSES.index(label) + n % 5 for n, label in enumerate(patients["label"])]
    store = make_store(tmp_path / "s.zarr", patients)
    shuffled = BagStore(store.path, writable=True)
    generator = np.random.default_rng(3)
    for name in patients.index:
        n = len(store[name].cell_ids)
        shuffled.write(name, generator.normal(size=(n, 6)), np.zeros((n, 32), dtype=np.uint8), {})
    shuffled.close()
    found = []
    for flags in (["--covariates", "age"], []):
        training = ["--set", "training.learning_rate=0.01", "--set", "training.max_epochs=60", "--head", "meanpool"]
        result = _train("--store", store.path, *FLAGS[:-1], f"run{len(found)}", "--json", *training, *flags)
        found.append(json.loads(result.stdout)["balanced_accuracy"]["estimate"])
    assert found[0] > 0.9
    assert found[1] < 0.6


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--head", "hehr", "--covariates", "age"], "The head 'hehr' cannot use covariates, and 1 were given"),
        (["--covariates", "age,sexx"], "No covariate is called 'sexx'. Did you mean 'sex'? Known: age, sex."),
        (["--covariates", "label"], "The covariate 'label' is what is predicted"),
        (["--set", "covariates=[age, age]"], "The covariate 'age' was named 2 times"),
    ],
)
def test_what_cannot_be_fused_is_refused_before_anything_is_made(
    patients: pd.DataFrame, tmp_path: Path, flags: list[str], text: str
) -> None:
    make_store(tmp_path / "s.zarr", patients)
    result = _train("--store", tmp_path / "s.zarr", *FLAGS, *flags, status=2)
    assert text in result.output
    assert not (tmp_path / "milkit-work" / "runs").exists()


def test_a_run_without_covariates_says_so_by_an_empty_table(patients: pd.DataFrame, tmp_path: Path) -> None:
    cross_validate(make_store(tmp_path / "s.zarr", patients), MilSettings.model_validate(QUICK), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["covariates_missing"] == {}
    assert "n_covariates" not in json.loads((tmp_path / "run" / "heads" / "repeat0-fold0-seed0.json").read_text())
