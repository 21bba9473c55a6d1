"""The differential of runs on survival, numbers and several targets: by the half that a patient was predicted in."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from composition_toys import labelled, make_run

from milkit.bags import BagStore
from milkit.composition.settings import DifferentialSettings
from milkit.composition.verb import compose
from milkit.errors import RunError
from milkit.predictions import Predictions, prediction_files
from milkit.report.composition_file import read_composition
from milkit.report.settings import ReportSettings
from milkit.report.write import write_report
from milkit.runs import read_json, write_json
from milkit.statistics.intervals import without_nan
from milkit.statistics.summary import summarise
from milkit.statistics.target_figures import regression_figures, survival_figures
from milkit.tables import read_table, write_table

SETTINGS = DifferentialSettings(bootstrap=100, top=10)
RUNS = [
    ("survival",),
    ("blasts", "survival"),
    *(pytest.param(names, marks=pytest.mark.slow) for names in (("blasts",), ("diagnosis",), ("diagnosis", "blasts"))),
]
OF_FIGURES: dict[str, Any] = {"n_bootstrap": 100, "level": 0.95, "seed": 0}


def on_targets(run: Path, *names: str) -> Path:
    """The run, whose sick patients have monocytes on top, as one on other targets: the sick have a high risk or number.

    The first patient's number is not known where there are several targets.
    """
    generator, old = np.random.default_rng(1), read_table(run / "predictions.csv")
    (run / "predictions.csv").unlink()
    sick = (old["label"] == "sick").to_numpy()
    keys, figures = old[["patient_id", "repeat", "fold"]], {}
    for name, file in zip(names, prediction_files(names), strict=True):
        shift = generator.uniform(-0.4, 0.4, len(old)) + sick
        if name == "survival":
            table = keys.assign(time=np.round(100 * np.exp(-shift), 1), event=1, risk=shift)
            kind, found = name, survival_figures(table, **OF_FIGURES)
        elif name == "blasts":
            table = keys.assign(label=50 * shift, predicted=20 + 30 * shift)
            table = table.iloc[1:] if len(names) > 1 else table
            kind, found = "regression", regression_figures(table, **OF_FIGURES)
        else:
            table, kind = old, "classes"
            found = summarise(Predictions(old, ("sick", "well")), **OF_FIGURES)
        write_table(run / file, table)
        figures[name] = without_nan({**found, "target": {"name": name, "kind": kind}})
    write_json(run / "metrics.json", {"targets": figures} if len(names) > 1 else figures[names[0]])
    return run


@pytest.fixture(scope="module", params=RUNS, ids=" ".join)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("targets")
    made = on_targets(make_run(root, n_patients=30), *request.param)
    compose(made, SETTINGS.model_copy(update={"labelled": labelled(root / "labelled.zarr").path}))
    write_report(made, ReportSettings())
    return made


def told(run: Path) -> dict[str, Any]:
    return read_json(run / "composition.json")


def test_what_is_planted_in_the_higher_half_is_found_there_alone(run: Path) -> None:
    found = told(run)["classes"]
    (high,) = (name for name in found if name.startswith("higher") or name == "sick")
    (low,) = (name for name in found if name.startswith("lower") or name == "well")
    rows = {(name, row["cell_type"]): row for name in found for row in found[name]["enrichment"]}
    assert rows[high, "monocyte"]["p_adjusted"] < 0.01
    assert rows[high, "monocyte"]["enrichment_low"] > 1
    assert rows[low, "monocyte"]["p_adjusted"] > 0.05
    patients = {one["patient_id"]: one["class"] for one in told(run)["patients"]}
    labels = BagStore.open(run.parent / "run.zarr").patients["label"]
    assert {name for name, half in patients.items() if half == high} <= set(labels.index[labels == "sick"])


def test_a_half_is_nobody_s_label_and_a_class_may_be(run: Path) -> None:
    target, found = told(run)["target"], told(run)["classes"]
    right = {one["n_labelled_so"] for one in found.values()}
    assert right == ({15} if target["kind"] == "classes" else {None})


def test_patients_without_the_first_target_are_left_out(run: Path) -> None:
    metrics = read_json(run / "metrics.json")
    names = list(metrics.get("targets", {})) or [metrics["target"]["name"]]
    n = 29 if names[0] == "blasts" and len(names) > 1 else 30
    assert told(run)["target"]["name"] == names[0]
    assert len(told(run)["patients"]) == sum(one["n_patients"] for one in told(run)["classes"].values()) == n


def test_the_report_shows_both_halves(run: Path) -> None:
    page = (run / "report" / "report.html").read_text(encoding="utf-8")
    assert "Which types of cells the model weighs most" in page
    for name, one in told(run)["classes"].items():
        assert f"Types of the cells of patients predicted {name}" in page
        who = f"{one['n_patients']} patients predicted so"
        assert f'<h4>{name} <span class="count">{who}' in page
    what = {"survival": "whether their predicted risk lies", "blasts": "whether their predicted blasts lies"}
    assert f"Patients are counted by {what.get(told(run)['target']['name'], 'the class of diagnosis that was')}" in page
    assert (run / "report" / "enrichment.csv").is_file()


def test_types_of_other_predictions_are_refused(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(run, other)
    file = next(iter(sorted(other.glob("predictions*.csv"))))
    if told(run)["target"]["name"] not in file.name and len(list(other.glob("predictions*.csv"))) > 1:
        file = other / f"predictions.{told(run)['target']['name']}.csv"
    table = read_table(file)
    for column in ("risk", "p_sick", "p_well", *(["predicted"] if "p_sick" not in table else [])):
        if column in table:
            table[column] = -pd.to_numeric(table[column])
    write_table(file, table)
    with pytest.raises(
        RunError, match=r"composition\.json is of other patients or predictions than those of the run; "
    ):
        read_composition(other)


def test_the_target_that_was_explained_is_the_one_that_is_counted(tmp_path: Path) -> None:
    run = on_targets(make_run(tmp_path), "blasts", "survival")
    target = {"name": "survival", "kind": "survival"}
    verdicts = {"format": "milkit-faithfulness", "version": 1, "methods": {}, "patients": [], "target": target}
    (run / "faithfulness.json").write_text(json.dumps(verdicts))
    compose(run, SETTINGS.model_copy(update={"labelled": labelled(tmp_path / "labelled.zarr").path}))
    assert told(run)["target"] == target
    assert list(told(run)["classes"]) == ["higher risk", "lower risk"]
    assert len(told(run)["patients"]) == 24
