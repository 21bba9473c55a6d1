"""What the report shows of probabilities, decisions, variance and controls, and when it shows nothing of them."""

import json
import re
import runpy
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audit_toys import people, store_of

from milkit.errors import RunError
from milkit.mil.crossval import cross_validate
from milkit.report.settings import ReportSettings
from milkit.report.write import write_report
from milkit.settings import MilSettings

_PAGE_TESTS: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("test_report.py")))
make_run: Callable[..., Path] = _PAGE_TESTS["make_run"]
text_of: Callable[[str], str] = _PAGE_TESTS["text_of"]
read: Callable[[Path], str] = _PAGE_TESTS["read"]

ONLY_SIZE = "Only the number of cells carries the label: alone it reaches 0.91, more than <b>the model</b>."
UNDEFINED = {"estimate": None, "ci_low": None, "ci_high": None}


def figure(estimate: float) -> dict[str, float]:
    return {"estimate": estimate, "ci_low": estimate - 0.1, "ci_high": estimate + 0.05}


def controls() -> dict[str, Any]:
    """As ``milkit.audit.controls`` documents it."""
    model = {"balanced_accuracy": figure(0.67), "auroc_macro": figure(0.8), "per_class": {}}
    size = {
        **{"name": "bag_size", "kind": "bag_size", "title": "Number of cells alone", "columns": []},
        **{"balanced_accuracy": figure(0.91), "auroc_macro": figure(0.93), "per_class": {}},
        "difference": {"balanced_accuracy": figure(-0.24), "auroc_macro": UNDEFINED},
    }
    covariates = {**size, "name": "covariates", "kind": "covariates", "title": "Age and sex alone"}
    covariates["difference"] = {"balanced_accuracy": UNDEFINED, "auroc_macro": UNDEFINED}
    together = {"balanced_accuracy": figure(0.7), "auroc_macro": figure(0.82), "per_class": {}}
    return {
        **{"format": "milkit-controls", "version": 1, "level": 0.95, "n_patients": 9},
        **{"chance": {"balanced_accuracy": 1 / 3, "auroc_macro": 0.5}, "model": model, "controls": [size, covariates]},
        "increment": {"columns": ["age", "sex"], "together": together, "weight": 0.4},
        "absent": ["The table of patients has no differential count (pb_… or bm_…), so there is no such control."],
        "warnings": [ONLY_SIZE],
        "sentences": [ONLY_SIZE, "Age and sex alone do not separate the classes."],
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path)


@pytest.fixture(scope="module")
def controlled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a run with controls, which several tests only read."""
    run = make_run(tmp_path_factory.mktemp("controlled"))
    (run / "controls.json").write_text(json.dumps(controls()))
    return write_report(run, ReportSettings())


def change_metrics(run: Path, **values: Any) -> None:
    found = json.loads(read(run / "metrics.json"))
    (run / "metrics.json").write_text(json.dumps(found | values))


def rows_of(page: str, caption: str) -> list[list[str]]:
    table = re.search(rf"<caption>{caption}</caption>.*?</table>", page, re.DOTALL)
    assert table
    rows = re.findall(r"<tr>(.*?)</tr>", table[0], re.DOTALL)
    return [[text_of(cell) for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", row)] for row in rows]


def test_what_only_bag_size_carries_is_said_before_the_result(controlled: Path) -> None:
    page = read(controlled)
    first = re.search(r'<section class="first".*?</section>', page, re.DOTALL)
    assert first
    assert first[0].index("Only the number of cells") < first[0].index("Balanced accuracy")


def test_sentences_of_data_stay_text(controlled: Path) -> None:
    assert "<b>the model</b>" not in read(controlled)


def test_every_control_stands_below_the_model_with_the_difference(controlled: Path) -> None:
    assert rows_of(read(controlled), "The model beside controls")[1:] == [
        ["The model", "0.67 (0.57 to 0.72)", "0.80 (0.70 to 0.85)", ""],
        ["Number of cells alone", "0.91 (0.81 to 0.96)", "0.93 (0.83 to 0.98)", "-0.24 (-0.34 to -0.19)"],
        ["Age and sex alone", "0.91 (0.81 to 0.96)", "0.93 (0.83 to 0.98)", "–"],
        ["The model and age and sex", "0.70 (0.60 to 0.75)", "0.82 (0.72 to 0.87)", ""],
    ]


def test_sentences_of_controls_are_said_once_each_and_what_is_absent_too(controlled: Path) -> None:
    text = text_of(read(controlled))
    assert text.count("Only the number of cells carries the label") == 1
    assert text.count("Age and sex alone do not separate the classes.") == 1
    assert text.count("has no differential count") == 1
    assert "No controls stand beside this run" not in text


def test_a_run_without_controls_says_that_it_has_none(run: Path) -> None:
    text = text_of(read(write_report(run, ReportSettings())))
    assert (
        "No controls stand beside this run, so that it cannot be told whether age, sex or the number of cells" in text
    )
    assert "What is reached without the model" not in text


def test_controls_of_another_version_are_refused(run: Path) -> None:
    (run / "controls.json").write_text(json.dumps(controls() | {"version": 2}))
    with pytest.raises(RunError) as error:
        write_report(run, ReportSettings())
    assert str(error.value) == (
        f"{run / 'controls.json'} is of version 2, and this milkit reads version 1; make the controls again with it."
    )


def test_calibration_of_each_class_is_that_of_the_metrics(run: Path) -> None:
    own = {
        **{"slope": figure(0.8), "intercept": UNDEFINED, "in_the_large": figure(-0.5), "brier": figure(0.125)},
        "brier_parts": {"miscalibration": 0.0, "discrimination": 0.0, "uncertainty": 0.222},
        "expected_calibration_error": {"5": 0.1, "10": 0.2, "20": 0.3},
        "reliability": [{"n": 9, "predicted": 0.4, "observed": 0.5, "ci_low": 0.2, "ci_high": 0.8}],
    }
    change_metrics(run, calibration=dict.fromkeys(("control", "NPM1", "PML_RARA"), own))
    header, *rows = rows_of(read(write_report(run, ReportSettings())), "Calibration of each class")
    assert header[-1] == "Expected error, 5 / 10 / 20 bins"
    assert "There is no slope for" not in read(run / "report" / "report.html")
    assert rows[1] == [
        "NPM1", "0.80 (0.70 to 0.85)", "–", "-0.50 (-0.60 to -0.45)", "0.125 (0.025 to 0.175)", "0.222",
        "0.10 / 0.20 / 0.30",
    ]  # fmt: skip


def test_a_class_without_a_slope_is_explained(run: Path) -> None:
    calibration = json.loads(read(run / "metrics.json"))["calibration"]
    for name in ("control", "NPM1"):
        calibration[name]["slope"] = UNDEFINED
    calibration["PML_RARA"]["slope"] = figure(1.0)
    change_metrics(run, calibration=calibration)
    text = text_of(read(write_report(run, ReportSettings())))
    assert "There is no slope for control and NPM1: the probabilities tell all patients of the class from" in text


def test_probabilities_of_weighted_classes_are_said_to_be_of_equal_classes(run: Path) -> None:
    sentence = "The training weighted the classes to equal shares"
    assert sentence in text_of(read(write_report(run, ReportSettings())))
    path = run / "settings.yaml"
    path.write_text(read(path).replace("class_weights: true", "class_weights: false"))
    assert sentence not in text_of(read(write_report(run, ReportSettings())))


def test_a_curve_names_the_declared_prevalence_and_range(run: Path) -> None:
    page = write_report(run, ReportSettings())
    assert "PML_RARA: prevalence 5 %, as declared. Against acting on everybody, the model spares" in text_of(read(page))
    drawn = ElementTree.parse(page.parent / "figures" / "decision_curves.svg")
    texts = ["".join(node.itertext()) for node in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"PML_RARA, prevalence 5 %", "act on everybody", "act on nobody"} <= set(texts)


def test_a_prevalence_that_was_not_declared_is_called_the_cohort_s(run: Path) -> None:
    curves = json.loads(read(run / "metrics.json"))["decision_curves"]
    curves["PML_RARA"] |= {"prevalence_declared": False, "prevalence": 1 / 3}
    change_metrics(run, decision_curves=curves)
    text = text_of(read(write_report(run, ReportSettings())))
    assert "PML_RARA: prevalence 33.3 %, the share in this cohort, which is a clinic's only if" in text


def test_predictive_values_stand_beside_their_prevalence(run: Path) -> None:
    values = {"PML_RARA": {"prevalence": 0.05, "positive": figure(0.3), "negative": figure(0.9)}}
    change_metrics(run, predictive_values=values)
    rows = rows_of(read(write_report(run, ReportSettings())), "Predictive values at the declared prevalence")
    assert rows[1] == ["PML_RARA", "5 %", "0.30 (0.20 to 0.35)", "0.90 (0.80 to 0.95)"]


def test_where_nothing_was_declared_nothing_is_shown_of_decisions(run: Path) -> None:
    change_metrics(run, predictive_values={}, decision_curves={})
    page = write_report(run, ReportSettings())
    assert "What decisions are worth" not in read(page)
    assert not (page.parent / "figures" / "decision_curves.svg").exists()


def test_a_run_of_an_older_milkit_is_shown_without_what_it_lacks(run: Path) -> None:
    lacking = ("calibration", "decision_curves", "predictive_values", "sensitivity", "variance", "intervals")
    found = json.loads(read(run / "metrics.json"))
    (run / "metrics.json").write_text(json.dumps({key: found[key] for key in found if key not in lacking}))
    page = read(write_report(run, ReportSettings()))
    assert "within their classes (percentile bootstrap)" in text_of(page)
    assert "Can the probabilities be believed?" not in page


def test_the_sensitivity_of_a_class_names_its_specificity(run: Path) -> None:
    per_class = dict.fromkeys(("control", "NPM1", "PML_RARA"), figure(0.75))
    change_metrics(run, sensitivity={"specificity": 0.95, "per_class": per_class})
    header, *rows = rows_of(read(write_report(run, ReportSettings())), "Results of each class")
    assert header[-1] == "Sensitivity at specificity 0.95 (95 % CI)"
    assert {row[-1] for row in rows} == {"0.75 (0.65 to 0.80)"}


def test_parts_of_the_variance_are_standard_deviations_in_words(run: Path) -> None:
    parts = {"patients": 0.0009, "split": 0.0004, "seed": None, "n_repeats": 5, "n_seeds": 1}
    change_metrics(run, variance={"balanced_accuracy": parts})
    text = text_of(read(write_report(run, ReportSettings())))
    assert "deviation of 0.030 by the choice of patients, 0.020 by their split into folds (5 splits x 1 seed)." in text


def test_what_a_temperature_would_change_is_said_and_that_the_page_is_without_it(run: Path) -> None:
    found = {
        "temperatures": [1.4, 1.1, 1.25],
        "log_loss": {"before": figure(0.62), "after": figure(0.58), "difference": figure(-0.04)},
        "calibration": {name: {"slope": figure(0.95)} for name in ("control", "NPM1", "PML_RARA")},
    }
    change_metrics(run, temperature=found)
    text = text_of(read(write_report(run, ReportSettings())))
    assert (
        "validation patients (1.10 to 1.40) would change the mean log loss of the tested ones from 0.62 to 0.58 "
        "(difference -0.04 (-0.14 to +0.01)), and the slope to 0.95 (0.85 to 1.00) for control, "
    ) in text
    assert "The probabilities on this page are not scaled." in text


def test_a_trained_run_of_a_cohort_where_only_bag_size_carries_the_label_says_so_first(tmp_path: Path) -> None:
    """The whole way: noise for cells, three times as many of them in one class, from the store to the page."""
    patients = people(60)
    sizes = {name: 6 + number % 4 if number % 2 == 0 else 18 + number % 5 for number, name in enumerate(patients.index)}
    store = store_of(tmp_path / "size.zarr", patients, sizes, {})
    few = MilSettings.model_validate({"bootstrap": 200, "training": {"max_epochs": 2}})
    cross_validate(store, few, tmp_path / "run")
    page = read(write_report(tmp_path / "run", ReportSettings()))
    first = re.search(r'<section class="first".*?</section>', page, re.DOTALL)
    assert first
    lines = text_of(first[0])
    assert "Only the number of cells carries the label: alone it reaches balanced accuracy 1.00" in lines
    assert lines.index("Only the number of cells") < lines.index("Balanced accuracy")
    assert rows_of(page, "The model beside controls")[3][0] == "Number of cells alone"
