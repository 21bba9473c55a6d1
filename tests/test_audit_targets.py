"""The audit of runs on survival, numbers and several targets."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from audit_toys import people, store_of
from typer.testing import CliRunner

from milkit.audit.confounders import tie
from milkit.audit.verb import audit_run
from milkit.cli import app
from milkit.folds import patients_digest
from milkit.mil.crossval import cross_validate
from milkit.runs import read_json, write_json
from milkit.settings import MilSettings
from milkit.tables import read_table


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A run on survival (or on what the test names) of 40 patients of two sites, of which one's patients die sooner."""
    generator, patients = np.random.default_rng(0), people(40)
    patients["site"] = ["x", "y"] * 20
    shifts = {name: 3.0 * (site == "x") for name, site in patients["site"].items()}
    patients["time"] = np.ceil(generator.exponential(np.where(patients["site"] == "x", 100, 1000)))
    patients["event"] = 1.0
    patients["age"] = generator.normal(60, 10, 40) + np.where(patients["site"] == "x", 15, 0)
    store = store_of(tmp_path / "s.zarr", patients, dict.fromkeys(patients.index, 3), shifts)
    values: dict[str, Any] = {"folds": 3, "bootstrap": 200, "training": {"max_epochs": 1}}
    values["target"] = getattr(request, "param", "survival")
    cross_validate(store, MilSettings.model_validate(values), tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("run", ["survival", "regression:age", ["survival", "regression:age"]], indirect=True)
def test_a_clean_run_has_no_error(run: Path) -> None:
    assert [finding for finding in audit_run(run, images=False) if finding.level == "error"] == []


def test_a_site_that_the_bags_tell_is_set_against_survival(run: Path) -> None:
    (found,) = [one for one in audit_run(run, images=False) if "tell the site" in one.text]
    assert found.level == "warning"
    assert found.text.endswith("over 40 patients; survival differs with p below 0.001 (log-rank).")


@pytest.mark.parametrize("run", ["regression:age"], indirect=True)
def test_a_site_that_the_bags_tell_is_set_against_a_number(run: Path) -> None:
    (found,) = [one for one in audit_run(run, images=False) if "tell the site" in one.text]
    assert "its tie to the value that is predicted, above its median or not, is 0." in found.text
    assert found.text.endswith(" (Cramér's V).")


def test_the_controls_warnings_are_among_the_findings(run: Path) -> None:
    warned = read_json(run / "controls.json")["warnings"]
    texts = [finding.text for finding in audit_run(run, images=False) if finding.name == "control"]
    assert texts == warned


@pytest.mark.parametrize("run", [["survival", "regression:age"]], indirect=True)
def test_a_prediction_by_a_model_that_knew_the_patient_is_found_in_any_table(run: Path) -> None:
    path = run / "predictions.age.csv"
    table = read_table(path)
    table.loc[0, "fold"] = (table.loc[0, "fold"] + 1) % 3
    path.write_text(table.to_csv(index=False))
    (error,) = [finding for finding in audit_run(run, images=False) if finding.level == "error"]
    assert error.name == "prediction-of-known-patient"
    assert str(table.loc[0, "patient_id"]) in error.text


def test_a_step_that_was_fitted_on_everybody_is_named_and_ends_the_command_with_3(run: Path) -> None:
    made = read_json(run / "provenance.json")
    made["fitted_on"]["repeat0-fold1"]["standardise"] = patients_digest(list(people(40).index))
    write_json(run / "provenance.json", made)
    done = CliRunner().invoke(app, ["audit", str(run), "--no-images", "--json"])
    assert done.exit_code == 3
    (error,) = [one for one in json.loads(done.stdout)["findings"] if one["level"] == "error"]
    assert error["name"] == "fitted-outside-fold"


def test_a_tie_to_classes_has_an_interval() -> None:
    names = [f"P{number}" for number in range(40)]
    predictions = pd.DataFrame({"patient_id": names, "repeat": 0, "label": ["A", "B"] * 20})
    told = tie(pd.Series(["x", "y"] * 20, index=names), predictions, 0.95)
    assert told.startswith("its tie to the label is 1.00 (95 % CI 0.6")
    assert told.endswith(" to 1.00) (Cramér's V)")
