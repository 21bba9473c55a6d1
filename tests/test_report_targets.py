"""The report of runs on survival, numbers and several targets: its figures, its claims, and what it leaves alone."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from toys import CLASSES, make_store, toy_patients

from milkit.bags import BagStore
from milkit.errors import RunError
from milkit.explain.settings import ExplainSettings
from milkit.explain.verb import explain, explain_quickly
from milkit.mil.crossval import cross_validate
from milkit.report.results import read_results
from milkit.report.settings import ReportSettings
from milkit.report.target_results import all_predictions, read_targets
from milkit.report.write import write_report
from milkit.runs import read_json
from milkit.settings import MilSettings
from milkit.tables import read_table


class _Text(HTMLParser):
    """The words of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.hidden += tag in {"style", "script"}

    def handle_endtag(self, tag: str) -> None:
        self.hidden -= tag in {"style", "script"}

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.words.append(data)


def _words(page: Path) -> str:
    parser = _Text()
    parser.feed(page.read_text(encoding="utf-8"))
    return re.sub(r"\s+", " ", " ".join(parser.words))


def _patients() -> pd.DataFrame:
    patients = toy_patients(12)
    generator, kind = np.random.default_rng(0), patients["label"].map(CLASSES.index).to_numpy()
    patients["time"] = np.round(10 * np.exp(kind + generator.normal(0, 0.4, len(patients))), 1)
    patients["event"] = (np.arange(len(patients)) % 4 > 0).astype(float)
    patients["age"] = np.round(30.0 + 12 * kind + generator.normal(0, 5, len(patients)))
    patients.loc["P04", ["time", "event"]] = np.nan
    patients.loc["P07", "age"] = np.nan
    return patients


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs ``survival``, ``age``, ``npm1`` and ``several``, each with its report."""
    folder = tmp_path_factory.mktemp("targets")
    patients = _patients()
    patients["npm1"] = ["mutated", "wild", "wild"] * 12
    store = make_store(folder / "s.zarr", patients)
    targets = {"survival": ["survival"], "age": ["regression:age"], "npm1": ["classes:npm1"]}
    for name, own in targets.items():
        _trained(store, folder / name, own)
        assert not explain_quickly(folder / name, "cpu")
        write_report(folder / name, ReportSettings())
    _trained(store, folder / "several", ["survival", "regression:age", "label"], **DECLARED)
    write_report(folder / "several", ReportSettings())
    return folder


@pytest.fixture(scope="module")
def alike(runs: Path) -> Path:
    """In the same folder the run ``alike``, on two targets of classes."""
    store = BagStore.open(runs / "s.zarr")
    write_report(_trained(store, runs / "alike", ["label", "classes:npm1"], **DECLARED), ReportSettings())
    return runs / "alike"


@pytest.fixture(params=["several", pytest.param("alike", marks=pytest.mark.slow)])
def classes_among_others(request: pytest.FixtureRequest, runs: Path) -> Path:
    """A run on several targets, of which at least one is of classes."""
    if request.param == "alike":
        request.getfixturevalue("alike")
    return runs / str(request.param)


DECLARED: dict[str, Any] = {"prevalence": {"NPM1": 0.1}, "thresholds": {"control": [0.2, 0.6]}}


def _trained(store: BagStore, run: Path, targets: list[str], **declared: Any) -> Path:
    values: dict[str, Any] = {"folds": 3, "repeats": 2, "bootstrap": 100, "target": targets, **declared}
    values["training"] = {"max_epochs": 8, "learning_rate": 0.01}
    cross_validate(store, MilSettings.model_validate(values), run)
    return run


def test_the_report_of_survival_has_its_figure_controls_and_curves(runs: Path) -> None:
    text, metrics = _words(runs / "survival" / "report" / "report.html"), read_json(runs / "survival" / "metrics.json")
    assert "Can survival be told from images of single blood cells alone?" in text
    assert f"survival of 35 patients is known, with {_patients()['event'].sum():.0f} events" in text
    found = metrics["c_index"]
    assert f"{found['estimate']:.2f} (95 % CI {found['ci_low']:.2f} to {found['ci_high']:.2f}), chance 0.50" in text
    assert "low risk: " in text
    assert "Still followed" in text
    assert "Number of cells alone" in text
    assert "Outcomes shuffled in training" in text
    assert (runs / "survival" / "report" / "figures" / "target_1.svg").is_file()


def test_every_sentence_of_the_controls_stands_in_the_report_once(runs: Path) -> None:
    for name in ("survival", "age", "several"):
        text = _words(runs / name / "report" / "report.html")
        controls = read_json(runs / name / "controls.json")
        assert controls["sentences"]
        assert [text.count(sentence) for sentence in controls["sentences"]] == [1] * len(controls["sentences"])
        first = text.index("learned from whole patients")
        assert all(text.index(own) < first for own in controls["warnings"])


def test_a_patient_s_card_says_what_happened_and_what_was_predicted(runs: Path) -> None:
    patients, text = _patients(), _words(runs / "survival" / "report" / "report.html")
    told = read_table(runs / "survival" / "report" / "patients.csv").set_index("patient_id")
    row = patients.loc["P01"]
    expected = f"event at {row['time']:g}" if row["event"] else f"followed to {row['time']:g} without event"
    assert told.loc["P01", "label"] == expected
    assert re.fullmatch(r"risk above that of \d+ % of patients", told.loc["P01", "predicted"])
    assert f"label {expected}" in text
    assert "✗ wrong" not in text
    assert "✓ right" not in text
    assert "P04" not in told.index


def test_the_report_of_a_number_shows_predicted_over_true_values(runs: Path) -> None:
    text, metrics = _words(runs / "age" / "report" / "report.html"), read_json(runs / "age" / "metrics.json")
    for name in ("spearman", "r2", "mae"):
        found = metrics[name]
        assert f"{found['estimate']:.2f} ({found['ci_low']:.2f} to {found['ci_high']:.2f})" in text
    assert "Predicted age" in text
    assert "age of 35 patients is known, median " in text


def test_several_targets_stand_below_each_other_in_their_order(runs: Path) -> None:
    text = _words(runs / "several" / "report" / "report.html")
    places = [text.index(f"{name}: metrics over all patients") for name in ("Survival", "Age", "Label")]
    assert places == sorted(places)
    assert "Can survival, the number age and the class of label be told" in text
    table = read_table(runs / "several" / "report" / "predictions.csv")
    assert {"survival: risk", "age: predicted", "label: p_NPM1"} <= set(table)
    assert len(table) == 2 * 36
    assert table.loc[table["patient_id"] == "P04", "survival: risk"].isna().all()


def test_a_target_of_classes_among_several_has_all_that_classes_alone_have(classes_among_others: Path) -> None:
    run = classes_among_others
    text, targets = _words(run / "report" / "report.html"), read_json(run / "metrics.json")["targets"]
    own, number = targets["label"], list(targets).index("label") + 1
    titles = ("metrics over all patients", "results of each class", "the model beside controls")
    titles += ("calibration of each class", "predictive values at the declared prevalence")
    places = [text.index(f"Label: {title}") for title in titles]
    assert places == sorted(places)
    slope, positive = own["calibration"]["control"]["slope"], own["predictive_values"]["NPM1"]["positive"]
    for figure in (own["per_class"]["PML_RARA"]["auroc"], slope, positive):
        if figure["estimate"] is not None and figure["ci_low"] is not None and figure["ci_high"] is not None:
            assert f"{figure['estimate']:.2f} ({figure['ci_low']:.2f} to {figure['ci_high']:.2f})" in text
    assert "Dividing the logits by a temperature" in text
    assert "control: prevalence 33.3 %, the share in this cohort" in text
    figures = {"confusion_matrix", "roc_curves", "class_results", "metric_folds", "calibration", "decision_curves"}
    there = {path.name for path in (run / "report" / "figures").iterdir()}
    assert {f"target_{number}_{name}.{kind}" for name in figures for kind in ("svg", "pdf")} <= there


def test_a_second_report_keeps_none_of_the_first_s_figures(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "age", tmp_path / "age")
    figures = tmp_path / "age" / "report" / "figures"
    (figures / "target_9_roc_curves.svg").write_text("of a run with more targets")
    (figures / "mine.svg").write_text("a reader's own")
    write_report(tmp_path / "age", ReportSettings())
    assert not (figures / "target_9_roc_curves.svg").exists()
    assert (figures / "mine.svg").exists()


def test_what_the_model_adds_to_covariates_has_a_row(runs: Path) -> None:
    text, controls = (
        _words(runs / "survival" / "report" / "report.html"),
        read_json(runs / "survival" / "controls.json"),
    )
    added = controls["targets"]["survival"]["increment"]["together"]["c_index"]
    assert f"The model and age {added['estimate']:.2f} ({added['ci_low']:.2f} to {added['ci_high']:.2f})" in text


def test_the_ids_of_figures_differ_in_one_page(classes_among_others: Path) -> None:
    page = (classes_among_others / "report" / "report.html").read_text(encoding="utf-8")
    found = re.findall(r' id="([^"]+)"', page)
    assert len(found) == len(set(found))


def test_cells_are_those_that_the_attention_weighs_most(runs: Path) -> None:
    cells = read_table(runs / "survival" / "report" / "top_cells.csv")
    weights = (
        pd.read_parquet(runs / "survival" / "attention.parquet").groupby(["patient_id", "cell_id"])["weight"].mean()
    )
    for patient, own in cells.groupby("patient_id"):
        assert own["cell_id"].iloc[0] == weights[patient].idxmax()


def test_a_run_on_one_target_of_classes_has_the_report_of_classes(runs: Path) -> None:
    text = _words(runs / "npm1" / "report" / "report.html")
    assert "Can a patient's class be told" in text
    controls = read_json(runs / "npm1" / "controls.json")
    for sentence in controls["warnings"]:
        assert sentence in text
    assert "The model beside controls" in text
    assert read_targets(runs / "npm1") == ()


def test_the_page_loads_nothing_and_escapes_what_a_table_says(tmp_path: Path) -> None:
    patients = _patients().rename(columns={"age": "a<b>g"}).assign(sex=["<i>F", "M", "M"] * 12)
    store = make_store(tmp_path / "s.zarr", patients)
    values = {"folds": 3, "bootstrap": 100, "target": {"name": "regression", "column": "a<b>g", "called": "age"}}
    settings = MilSettings.model_validate(values | {"covariates": ["sex"], "training": {"max_epochs": 1}})
    cross_validate(store, settings, tmp_path / "run")
    page = write_report(tmp_path / "run", ReportSettings()).read_text(encoding="utf-8")
    assert "<i>F" not in page
    assert "a<b>g" not in page
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)


def test_runs_without_controls_are_said_to_have_none(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "survival", tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    (tmp_path / "run" / "controls.json").unlink()
    text = _words(write_report(tmp_path / "run", ReportSettings()))
    assert "No controls stand beside this run" in text


def test_figures_that_failed_are_said_to_have_and_the_rest_is_shown(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "age", tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    metrics = read_json(runs / "age" / "metrics.json")
    kept = {key: metrics[key] for key in ("target", "n_patients", "folds_digest")}
    failed = kept | {"failed": "ValueError", "warning": "The figures of this run failed (ValueError; see log.txt)."}
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(failed))
    text = _words(write_report(tmp_path / "run", ReportSettings()))
    assert "undefined for this run" in text
    assert text.count("The figures of this run failed (ValueError; see log.txt).") == 1
    assert "P00" in text


def test_the_report_of_classes_refuses_other_targets_where_they_are_not_asked_for(runs: Path) -> None:
    with pytest.raises(RunError, match="holds risks, as `milkit survival` reads them, where probabilities of classes"):
        read_results(runs / "survival")
    targets = read_targets(runs / "several")
    assert [target.kind for target in targets] == ["survival", "regression", "classes"]
    assert not all_predictions(targets).classes


@pytest.mark.parametrize(
    ("run", "moved"), [("survival", "Risk"), ("age", "Age"), ("npm1", "Log-odds")], ids=lambda text: text
)
def test_the_order_of_the_cells_is_judged_by_what_the_models_predict(runs: Path, run: str, moved: str) -> None:
    text = _words(runs / run / "report" / "report.html")
    assert f"{moved} moved beyond chance (95 % CI)" in text
    sentence = f"What is moved is the {moved.lower()} that the models predict, up in patients above the middle"
    assert (sentence in text) == (run != "npm1")


def test_a_run_that_was_not_explained_says_so(runs: Path) -> None:
    assert "`milkit explain` was not run" in _words(runs / "several" / "report" / "report.html")


def test_cells_are_those_of_the_target_that_was_explained(runs: Path, tmp_path: Path) -> None:
    """With attention of its own for every output of several targets."""
    store = make_store(tmp_path / "s.zarr", _patients())
    values: dict[str, Any] = {"folds": 3, "bootstrap": 100, "target": ["survival", "regression:age"]}
    values |= {"training": {"max_epochs": 2}, "head": {"name": "abmil", "class_wise": True}}
    run = tmp_path / "run"
    cross_validate(store, MilSettings.model_validate(values), run)
    shown = {}
    for name in (None, "survival", "age"):
        if name:
            explain(run, ExplainSettings(target=name, methods=("attention",), bootstrap=100, device="cpu"))
        shown[name] = read_results(run, read_targets(run)).cells["class"].unique().tolist()
    assert shown == {None: ["survival: risk"], "survival": ["survival: risk"], "age": ["age: value"]}
