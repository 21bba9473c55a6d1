"""Controls of a run: what they are fitted on, what they reach where the answer is known, and what they say."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from audit_toys import people, predictions_of, store_of
from scipy import stats
from sklearn.linear_model import LogisticRegression
from toys import toy_patients

from milkit.audit.columns import covariate_columns, differential_columns
from milkit.audit.control_sentences import describe
from milkit.audit.controls import run_controls
from milkit.audit.increment import RIDGE, combined, fitted_weights
from milkit.audit.scores import Scorer
from milkit.audit.simple_models import LIGHT, PENALTIES, Rows, logistic, of_covariates, of_sizes, rows_of, standardised
from milkit.bags import BagStore
from milkit.folds import Folds
from milkit.mil.crossval import cross_validate
from milkit.report.controls import shown_controls
from milkit.settings import MilSettings
from milkit.statistics.out_of_fold import Resamples
from milkit.statistics.summary import summarise

FAST: dict[str, Any] = {"folds": 3, "bootstrap": 200, "training": {"max_epochs": 2}}


def _controls(store: BagStore, p_first: dict[str, float]) -> dict[str, Any]:
    """The controls of a run of five folds that predicted these probabilities of the first class."""
    patients = store.patients
    folds = Folds.stratified(patients["label"], 5, seed=0)
    tested, validated = (predictions_of(folds, patients, p_first, role) for role in ("test", "validation"))
    return run_controls(store, folds, tested, MilSettings(bootstrap=300), validated)


def _by_name(result: dict[str, Any]) -> dict[str, Any]:
    return {control["name"]: control for control in result["controls"]}


@pytest.fixture(scope="module")
def only_size(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A cohort whose cells are noise, of which the patients of B have three times as many; a model that guesses."""
    patients = people(60)
    sizes = {name: 6 + number % 4 if number % 2 == 0 else 18 + number % 5 for number, name in enumerate(patients.index)}
    store = store_of(tmp_path_factory.mktemp("size") / "s.zarr", patients, sizes, {})
    generator = np.random.default_rng(3)
    return _controls(store, dict(zip(patients.index, generator.uniform(size=60), strict=True)))


def test_a_cohort_where_only_bag_size_carries_the_label_is_called_that_first(only_size: dict[str, Any]) -> None:
    assert only_size["sentences"][0].startswith(
        "Only the number of cells carries the label: alone it reaches balanced accuracy 1.00"
    )
    assert only_size["warnings"][0] == only_size["sentences"][0]


def test_bag_size_that_carries_the_label_is_found_and_the_cells_are_not(only_size: dict[str, Any]) -> None:
    controls = _by_name(only_size)
    assert controls["bag_size"]["balanced_accuracy"]["ci_low"] > 0.8
    assert controls["mean_pool"]["balanced_accuracy"]["ci_low"] < 0.5
    assert controls["bag_size"]["difference"]["balanced_accuracy"]["ci_high"] < 0


def test_controls_are_plain_json_without_patient_ids(only_size: dict[str, Any]) -> None:
    text = json.dumps(only_size, allow_nan=False)
    assert "P000" not in text
    assert only_size["chance"] == {"balanced_accuracy": 0.5, "auroc_macro": 0.5}


def test_cells_that_carry_the_label_are_found_and_shuffled_labels_are_not(tmp_path: Path) -> None:
    patients = people(60)
    shifts = {name: 3.0 * (label == "A") for name, label in patients["label"].items()}
    store = store_of(tmp_path / "s.zarr", patients, dict.fromkeys(patients.index, 5), shifts)
    result = _controls(store, {name: 0.9 if label == "A" else 0.1 for name, label in patients["label"].items()})
    controls = _by_name(result)
    assert controls["mean_pool"]["balanced_accuracy"]["estimate"] > 0.95
    shuffled = controls["permuted_labels"]["balanced_accuracy"]
    assert 0.35 < shuffled["estimate"] < 0.65
    assert not any("Only the number of cells" in sentence for sentence in result["sentences"])
    assert result["warnings"] == []
    assert (
        "The table of patients has no covariates, such as age or sex, so there is no such control." in result["absent"]
    )
    assert result["increment"] is None


def test_a_model_that_repeats_a_covariate_adds_nothing_to_it(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    patients = people(60)
    risk = (patients["label"] == "A") * 1.5 + generator.normal(size=60)
    patients["lymphocyte_count"] = risk
    store = store_of(tmp_path / "s.zarr", patients, dict.fromkeys(patients.index, 5), {})
    result = _controls(store, dict(1 / (1 + np.exp(-(risk - 0.75)))))
    gap = result["increment"]["difference"]["balanced_accuracy"]
    assert gap["ci_low"] is None or gap["ci_low"] <= 0 <= gap["ci_high"]
    (sentence,) = (text for text in result["warnings"] if text.startswith("Beside lymphocyte count, the model adds"))
    assert sentence.endswith("which may be nothing.")
    assert any(text.startswith("Lymphocyte count alone separates the classes") for text in result["warnings"])


def test_a_model_that_knows_more_than_a_covariate_adds_to_it(tmp_path: Path) -> None:
    patients = people(60)
    patients["age"] = np.random.default_rng(0).normal(60, 10, size=60)
    store = store_of(tmp_path / "s.zarr", patients, dict.fromkeys(patients.index, 5), {})
    result = _controls(store, {name: 0.8 if label == "A" else 0.2 for name, label in patients["label"].items()})
    assert result["increment"]["difference"]["balanced_accuracy"]["ci_low"] > 0.2
    assert result["increment"]["together"]["balanced_accuracy"]["estimate"] == 1.0
    assert result["increment"]["columns"] == ["age"]


def test_a_head_that_was_given_the_covariates_is_compared_with_them_as_it_is(tmp_path: Path) -> None:
    patients = people(60)
    patients["age"], patients["weight"] = np.random.default_rng(0).normal(60, 10, size=(2, 60))
    store = store_of(tmp_path / "s.zarr", patients, dict.fromkeys(patients.index, 3), {})
    folds = Folds.stratified(patients["label"], 5, seed=0)
    p_first = dict(zip(patients.index, np.random.default_rng(1).uniform(size=60), strict=True))
    tested, validated = (predictions_of(folds, patients, p_first, role) for role in ("test", "validation"))
    result = run_controls(store, folds, tested, MilSettings(bootstrap=200, covariates=["age"]), validated)
    added, alone = result["increment"], _by_name(result)["covariates"]
    assert alone["columns"] == added["columns"] == ["age"]
    assert added["weight"] is None
    assert added["together"] == {key: result["model"][key] for key in added["together"]}
    assert added["difference"] == alone["difference"]


def test_a_value_that_one_class_lacks_is_said_to_tell_it(tmp_path: Path) -> None:
    patients = people(30)
    patients["leucocytes"] = np.where(patients["label"] == "B", np.nan, np.arange(30.0))
    store = store_of(tmp_path / "s.zarr", patients, dict.fromkeys(patients.index, 3), {})
    result = _controls(store, dict.fromkeys(patients.index, 0.5))
    assert (
        "Leucocytes is missing in 100 % of the patients of B and 0 % of A, so that whether it was measured already "
        "tells them apart."
    ) in result["warnings"]


def test_the_product_of_two_models_is_normalised_and_a_weight_of_0_leaves_the_other() -> None:
    both = np.array([[[0.2, 0.8], [0.5, 0.5]], [[0.9, 0.1], [0.3, 0.7]]])
    product = both[0] ** 0.7 * both[1] ** 0.5
    np.testing.assert_allclose(combined(both, np.array([0.7, 0.5])), product / product.sum(axis=1, keepdims=True))
    np.testing.assert_allclose(combined(both, np.array([1.0, 0.0])), both[0])


def _two_models(timid: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A first model of noise and a second one that knows something of three unequal classes, as sure as asked for."""
    generator = np.random.default_rng(7)
    labels = np.array([0] * 4 + [1] * 8 + [2] * 3)
    logits = generator.normal(size=(2, 15, 3))
    logits[1] = timid * (logits[1] + 1.5 * np.eye(3)[labels])
    return np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True), labels


def test_the_weights_have_the_least_penalised_cross_entropy_of_a_grid() -> None:
    both, labels = _two_models()
    logits = np.log(both) - np.log(both).mean(axis=2, keepdims=True)
    scale = np.sqrt((logits**2).mean(axis=(1, 2)))
    of_patient = 15 / 3 / np.bincount(labels)[labels]

    def loss(v: float, w: float) -> float:
        z = v * logits[0] / scale[0] + w * logits[1] / scale[1]
        true = np.exp(z[np.arange(15), labels]) / np.exp(z).sum(axis=1)
        return float(-(of_patient * np.log(true)).sum() + RIDGE * (v**2 + w**2) / 2)

    weights, share = fitted_weights(both, labels)
    best = min((loss(v, w), v, w) for v in np.arange(0, 3, 0.01) for w in np.arange(0, 3, 0.01))
    np.testing.assert_allclose(weights * scale, best[1:], atol=0.011)
    assert share == pytest.approx(weights[1] * scale[1] / (weights * scale).sum())


def test_how_sure_a_model_is_changes_nothing_of_what_is_made_of_it() -> None:
    (sure, labels), (timid, _) = _two_models(), _two_models(0.01)
    np.testing.assert_allclose(
        combined(timid, fitted_weights(timid, labels)[0]), combined(sure, fitted_weights(sure, labels)[0]), atol=1e-4
    )


def test_two_models_of_which_neither_knows_anything_leave_the_first() -> None:
    both, labels = _two_models()
    swapped = np.stack([both[1], both[1]])[:, :, [1, 2, 0]]
    weights, share = fitted_weights(swapped, labels)
    np.testing.assert_array_equal(weights, [1.0, 0.0])
    assert share == 0.0


@pytest.mark.parametrize("timid", [0.02, 2.0])
def test_a_good_model_is_not_spoiled_by_a_covariate_that_knows_nothing(tmp_path: Path, timid: float) -> None:
    """A head that was stopped early ranks well and is hardly sure of anything; age is noise."""
    generator = np.random.default_rng(0)
    patients = people(60)
    patients["age"] = generator.normal(60, 10, size=60)
    store = store_of(tmp_path / "s.zarr", patients, dict.fromkeys(patients.index, 3), {})
    logits = timid * (np.where(patients["label"] == "A", 1, -1) + 0.8 * generator.normal(size=60))
    result = _controls(store, dict(zip(patients.index, 1 / (1 + np.exp(-logits)), strict=True)))
    alone, together = result["model"], result["increment"]["together"]
    assert alone["balanced_accuracy"]["estimate"] > 0.8
    assert together["balanced_accuracy"]["estimate"] > alone["balanced_accuracy"]["estimate"] - 0.05
    assert together["auroc_macro"]["estimate"] > alone["auroc_macro"]["estimate"] - 0.05
    assert result["increment"]["weight"] > 0.7


def test_shuffles_that_are_all_right_or_all_wrong_are_not_called_above_chance() -> None:
    """Of 10 shuffles 7 hit everybody: over patients nothing varies, over shuffles 0.7 is an ordinary share of 0.5."""
    labels = np.arange(40) % 2
    scorer = Scorer(labels, ("A", "B"), Resamples.of(labels, 200, 0.95, 0))
    right = np.eye(2)[labels]
    shuffles = np.stack([right if number < 7 else 1 - right for number in range(10)])
    figure = scorer.over_shuffles(shuffles)["balanced_accuracy"]
    expected = stats.ttest_1samp([1.0] * 7 + [0.0] * 3, 0.5).confidence_interval(0.95)
    assert figure == pytest.approx({"estimate": 0.7, "ci_low": expected.low, "ci_high": expected.high})
    assert expected.low < 0.5


def test_a_covariate_that_a_split_cannot_learn_is_named_and_not_said_to_be_absent(tmp_path: Path) -> None:
    patients = people(20)
    patients["age"] = np.where(np.arange(20) < 2, np.arange(20.0), np.nan)
    store = store_of(tmp_path / "s.zarr", patients, dict.fromkeys(patients.index, 3), {})
    folds = Folds.stratified(patients["label"], 5, seed=0)
    others = ~folds.table["patient_id"].isin(["P000", "P001"]) | (folds.table["role"] != "train")
    folds = Folds(folds.table[others])
    tested = predictions_of(folds, patients, dict.fromkeys(patients.index, 0.5), "test")
    assert run_controls(store, folds, tested, MilSettings(bootstrap=100))["absent"] == [
        "No control uses age: some split has no training patient whose value is known.",
        "The table of patients has no differential count (pb_… or bm_…), so there is no such control.",
    ]


def test_a_fault_in_the_controls_does_not_cost_the_run(
    toy_store: BagStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        msg = "patient P00 is not finite"
        raise ValueError(msg)

    monkeypatch.setattr("milkit.audit.controls.run_controls", broken)
    run = tmp_path / "run"
    metrics = cross_validate(toy_store, MilSettings.model_validate(FAST), run)
    controls, log = json.loads((run / "controls.json").read_text()), (run / "log.txt").read_text()
    assert controls["failed"] == "ValueError"
    assert controls["warnings"] == [
        "The controls beside this run failed (ValueError; the traceback is in log.txt), so that it cannot be told "
        "whether age, sex or the number of cells alone would do as well."
    ]
    assert controls["model"]["balanced_accuracy"]["estimate"] == metrics["balanced_accuracy"]["estimate"]
    assert "in broken" in log
    assert "P00" not in log
    assert not shown_controls(controls, "95 %").others  # type: ignore[union-attr]


def test_the_log_keeps_the_message_of_a_fault_that_names_no_patient(
    toy_store: BagStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("milkit.audit.controls.make_study", lambda *_: 1 / 0)
    cross_validate(toy_store, MilSettings.model_validate(FAST), tmp_path / "run")
    assert "ZeroDivisionError: division by zero" in (tmp_path / "run" / "log.txt").read_text()


def test_more_features_than_patients_are_fitted_as_without_the_rotation() -> None:
    generator = np.random.default_rng(1)
    features, labels = generator.normal(size=(30, 80)), np.arange(30) % 3
    split = Rows(0, 0, np.arange(18), np.arange(18, 24), np.arange(24, 30))
    held_out, chosen = logistic(standardised(features), labels, 3, [split], (1.0,), balanced=True)
    train = features[:18]
    plain = (features - train.mean(axis=0)) / train.std(axis=0)
    expected = LogisticRegression(C=1 / 80, class_weight="balanced", tol=1e-8).fit(plain[:18], labels[:18])
    np.testing.assert_allclose(held_out[0, 18:], expected.predict_proba(plain[18:]), atol=1e-3)
    assert np.isnan(held_out[0, :18]).all()
    assert chosen == [1.0]


def test_labels_of_tested_patients_change_no_control() -> None:
    generator = np.random.default_rng(2)
    features, labels = generator.normal(size=(30, 5)), np.arange(30) % 2
    split = Rows(0, 0, np.arange(18), np.arange(18, 24), np.arange(24, 30))
    other = labels.copy()
    other[24:] = 1 - other[24:]
    fitted = [logistic(standardised(features), own, 2, [split], PENALTIES, balanced=True) for own in (labels, other)]
    np.testing.assert_array_equal(fitted[0][0], fitted[1][0])
    assert fitted[0][1] == fitted[1][1]


@pytest.mark.parametrize("what", ["features", "sizes", "covariates"])
def test_held_out_patients_change_no_input_of_training_patients(what: str) -> None:
    generator = np.random.default_rng(4)
    train = np.arange(10)
    values = generator.uniform(1, 50, size=20)
    changed = values.copy()
    changed[10:] += 1000

    def inputs(numbers: np.ndarray) -> np.ndarray:
        if what == "features":
            return standardised(numbers[:, None])(train)
        if what == "sizes":
            return of_sizes(numbers.astype(np.int64))(train)
        return of_covariates(pd.DataFrame({"age": numbers}), ["age"])(train)

    np.testing.assert_array_equal(inputs(values)[:10], inputs(changed)[:10])
    assert not np.array_equal(inputs(values), inputs(changed))


def test_a_class_that_training_lacks_gets_no_probability() -> None:
    labels = np.array([0, 1] * 6 + [2] * 3)
    split = Rows(0, 0, np.arange(12), np.array([12]), np.array([13, 14]))
    held_out, _ = logistic(of_sizes(np.arange(1, 16)), labels, 3, [split], LIGHT, balanced=True)
    np.testing.assert_allclose(held_out[0, 12:].sum(axis=1), 1)
    assert (held_out[0, 12:, 2] == 0).all()


def test_a_size_in_the_middle_can_be_told() -> None:
    """A straight line in the number of cells never prefers the class in the middle."""
    sizes = np.array([10, 100, 1000] * 10)
    labels = np.array([0, 1, 2] * 10)
    split = Rows(0, 0, np.arange(24), np.array([24, 25, 26]), np.array([27, 28, 29]))
    held_out, _ = logistic(of_sizes(sizes), labels, 3, [split], LIGHT, balanced=True)
    assert held_out[0, 27:].argmax(axis=1).tolist() == [0, 1, 2]


def test_the_difference_of_a_model_to_itself_is_nothing_and_has_no_limits() -> None:
    labels = np.arange(20) % 2
    scorer = Scorer(labels, ("A", "B"), Resamples.of(labels, 200, 0.95, 0))
    shares = np.random.default_rng(0).uniform(size=(1, 20))
    scores = scorer.score(np.stack([shares, 1 - shares], axis=2))
    for figure in scorer.difference(scores, scores).values():
        assert figure == {"estimate": 0.0, "ci_low": None, "ci_high": None}


def test_the_paired_difference_is_narrower_than_the_two_intervals_beside_each_other() -> None:
    generator = np.random.default_rng(5)
    labels = np.arange(100) % 2
    scorer = Scorer(labels, ("A", "B"), Resamples.of(labels, 500, 0.95, 0))
    shared = np.where(labels == 0, 0.6, 0.4) + generator.normal(0, 0.2, 100)
    both = [shared, shared + generator.normal(0, 0.02, 100)]
    first, second = (scorer.score(np.stack([share, 1 - share], axis=1)[None]) for share in both)
    gap = scorer.difference(first, second)["auroc_macro"]
    own = scorer.figure(first, 1)
    assert gap["ci_high"] - gap["ci_low"] < 0.5 * (own["ci_high"] - own["ci_low"])  # type: ignore[operator]


def test_covariates_are_age_sex_and_numbers_and_a_differential_is_apart() -> None:
    patients = pd.DataFrame(
        {
            "label": ["A", "B"],
            "age": [40.0, 50.0],
            "sex": ["F", "M"],
            "site": ["x", "y"],
            "scanner_number": [1, 1],
            "note": ["free", "text"],
            "time": [1.0, 2.0],
            "pb_blast": [10, 20],
            "pb_total": [99, 100],
            "lymphocyte_count": [3.0, None],
            "leucocytes": [3.0, 4.0],
        }
    )
    assert covariate_columns(patients) == ("age", "sex", "leucocytes")
    assert differential_columns(patients) == ("pb_blast",)


def test_the_controls_beside_a_run_hold_its_own_figures(toy_store: BagStore, tmp_path: Path) -> None:
    metrics = cross_validate(toy_store, MilSettings.model_validate(FAST), tmp_path / "run")
    controls = json.loads((tmp_path / "run" / "controls.json").read_text())
    for name in ("balanced_accuracy", "auroc_macro"):
        for key in ("estimate", "ci_low", "ci_high"):
            assert controls["model"][name][key] == pytest.approx(metrics[name][key])
    names = ["mean_pool", "bag_size", "covariates", "permuted_labels"]
    assert [control["name"] for control in controls["controls"]] == names
    digest = Folds.load(tmp_path / "run" / "folds.csv").digest
    assert controls["folds_digest"] == metrics["folds_digest"] == digest
    assert controls["increment"]["columns"] == ["age"]


def test_controls_can_be_switched_off(toy_store: BagStore, tmp_path: Path) -> None:
    cross_validate(toy_store, MilSettings.model_validate(FAST | {"controls": False}), tmp_path / "run")
    assert not (tmp_path / "run" / "controls.json").exists()


def test_the_intervals_of_the_model_are_those_of_metrics_json_whatever_the_order_of_patients(tmp_path: Path) -> None:
    """The store's order is natural, P2 before P10; that of the metrics is of text."""
    patients = people(40)
    patients.index = pd.Index([f"P{number}" for number in range(40)], name="patient_id")
    store = store_of(tmp_path / "s.zarr", patients, dict.fromkeys(patients.index, 3), {})
    folds = Folds.stratified(patients["label"], 5, seed=0)
    p_first = dict(zip(patients.index, np.random.default_rng(1).uniform(size=40), strict=True))
    tested = predictions_of(folds, patients, p_first, "test")
    found = run_controls(store, folds, tested, MilSettings(bootstrap=200))["model"]
    metrics = summarise(tested, n_bootstrap=200, level=0.95, seed=MilSettings().seed)
    for name in ("balanced_accuracy", "auroc_macro"):
        assert found[name] == pytest.approx({key: metrics[name][key] for key in found[name]})


def test_rows_are_positions_in_the_table_of_patients() -> None:
    patients = toy_patients()
    split = next(Folds.stratified(patients["label"], 3, seed=0).splits())
    (rows,) = rows_of([split], list(patients.index))
    assert list(patients.index[rows.train]) == split.train
    assert list(patients.index[rows.test]) == split.test


def _model_above_chance(folder: Path, sharp: float) -> dict[str, Any]:
    """Cells that are noise, whose number tells the classes, and a model that knows something of them."""
    patients = people(60)
    sizes = {name: 6 + number % 4 if number % 2 == 0 else 18 + number % 5 for number, name in enumerate(patients.index)}
    store = store_of(folder / "s.zarr", patients, sizes, {})
    logits = sharp * np.where(patients["label"] == "A", 1, -1) + np.random.default_rng(0).normal(size=60)
    return _controls(store, dict(zip(patients.index, 1 / (1 + np.exp(-logits)), strict=True)))


def test_beside_a_model_above_chance_the_number_of_cells_is_not_called_all_there_is(tmp_path: Path) -> None:
    first = _model_above_chance(tmp_path, 1.0)["warnings"][0]
    assert first.startswith("The number of cells carries the label: alone it reaches balanced accuracy 1.00")
    assert first.endswith(": that the looks of the cells add anything is not shown.")
    assert "which is above chance and, beside the number of cells, worse, by -0." in first


@pytest.mark.parametrize(
    ("estimate", "low", "found"),
    [
        (0.53, 0.51, "hardly separates"),  # true of many patients, and of no consequence
        (0.70, 0.48, "does not separate"),
        (0.60, 0.51, "separates"),
    ],
)
def test_only_what_is_above_chance_and_large_enough_separates_the_classes(
    only_size: dict[str, Any], estimate: float, low: float, found: str
) -> None:
    result = json.loads(json.dumps(only_size))
    size = next(control for control in result["controls"] if control["kind"] == "bag_size")
    size["balanced_accuracy"] = {"estimate": estimate, "ci_low": low, "ci_high": 0.9}
    size["difference"]["balanced_accuracy"] = {"estimate": 0.2, "ci_low": 0.1, "ci_high": 0.3}
    warnings, notes = describe(result, people(60))
    (told,) = [text for text in (*warnings, *notes) if text.startswith("The number of cells alone")]
    assert told.startswith(f"The number of cells alone {found} the classes: balanced accuracy {estimate:.2f}")
    assert (told in warnings) == (found == "separates")


@pytest.mark.parametrize(("auroc", "told"), [(0.53, 0), (0.62, 1)])
def test_a_class_that_is_hardly_told_from_the_others_is_not_named(auroc: float, told: int) -> None:
    figure = {"estimate": 0.4, "ci_low": 0.3, "ci_high": 0.5}
    classes = {name: {"auroc": {"estimate": auroc, "ci_low": 0.51, "ci_high": 0.9}} for name in "ABC"}
    about = {"columns": [], "balanced_accuracy": figure, "difference": {"balanced_accuracy": figure}}
    kinds = ("mean_pool", "bag_size", "permuted_labels")
    result = {
        "level": 0.95,
        "chance": {"balanced_accuracy": 1 / 3, "auroc_macro": 0.5},
        "model": {"balanced_accuracy": figure},
        "controls": [{"kind": kind, "per_class": classes, **about} for kind in kinds],
        "increment": None,
    }
    warnings, _ = describe(result, people(9))
    assert sum("from the other classes with AUROC" in text for text in warnings) == told
