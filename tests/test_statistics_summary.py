"""The figures of ``metrics.json`` against formulas and scikit-learn, and what their intervals hold by simulation."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression

from milkit.errors import FoldError, SettingsError
from milkit.predictions import Predictions
from milkit.statistics import discrimination
from milkit.statistics.bca import bca_estimate
from milkit.statistics.decision_curve import net_benefit
from milkit.statistics.decisions import Declared, for_other_shares
from milkit.statistics.intervals import wilson_interval
from milkit.statistics.out_of_fold import OutOfFold, Resamples
from milkit.statistics.summary import auroc_macro_of, balanced_accuracy_of, summarise
from milkit.statistics.variance_parts import variance_parts

CLASSES = ("A", "B", "C")
SIZES = (20, 30, 40)
LABELS = np.repeat(np.arange(3), SIZES)


def predictions_of(scores: np.ndarray, labels: np.ndarray = LABELS, classes: tuple[str, ...] = CLASSES) -> Predictions:
    """Softmax of scores (R, n, C) as a run's table; five folds, other ones in every repeat."""
    parts = []
    for repeat, own in enumerate(scores):
        p = np.exp(own) / np.exp(own).sum(axis=1, keepdims=True)
        names = np.array(classes)
        table = pd.DataFrame({"patient_id": [f"P{i:03d}" for i in range(len(labels))], "repeat": repeat})
        table["fold"] = (np.arange(len(labels)) + repeat * (np.arange(len(labels)) // 5)) % 5
        table["label"], table["predicted"] = names[labels], names[p.argmax(axis=1)]
        table[[f"p_{name}" for name in classes]] = p
        parts.append(table)
    return Predictions(pd.concat(parts, ignore_index=True), classes)


def noisy(n_repeats: int = 1, seed: int = 0, labels: np.ndarray = LABELS) -> np.ndarray:
    """Scores (R, n, C) that are right of two in three patients, and alike over the repeats."""
    generator = np.random.default_rng(seed)
    patients = generator.normal(size=(1, len(labels), 3)) + 1.4 * np.eye(3)[labels]
    return patients + 0.4 * generator.normal(size=(n_repeats, len(labels), 3))


def summary_of(predictions: Predictions, declared: Declared | None = None, **other: object) -> dict:
    chosen = {"n_bootstrap": 200, "level": 0.95, "seed": 3} | other
    return summarise(predictions, declared=declared or Declared(), **chosen)


@pytest.fixture(scope="module")
def three() -> Predictions:
    return predictions_of(noisy(3))


@pytest.fixture(scope="module")
def found(three: Predictions) -> dict:
    return summary_of(three)


def repeats_of(predictions: Predictions) -> list[pd.DataFrame]:
    return [part.sort_values("patient_id") for _, part in predictions.table.groupby("repeat")]


def test_the_headline_has_the_bca_interval_over_patients_with_all_repeats_drawn_together(
    three: Predictions, found: dict
) -> None:
    guesses = [part["predicted"].map(CLASSES.index).to_numpy() for part in repeats_of(three)]

    def metric(weights: np.ndarray) -> np.ndarray:
        return np.mean([discrimination.balanced_accuracy(LABELS, guess, weights, 3) for guess in guesses], axis=0)

    expected = bca_estimate(metric, LABELS, n_resamples=200, seed=3)
    figure = found["balanced_accuracy"]
    assert (figure["estimate"], figure["ci_low"], figure["ci_high"]) == pytest.approx(tuple(expected))
    by_hand = [sk.balanced_accuracy_score(part["label"], part["predicted"]) for part in repeats_of(three)]
    assert figure["estimate"] == pytest.approx(np.mean(by_hand))


def test_every_pooled_figure_is_scikit_learn_s_averaged_over_the_repeats(three: Predictions, found: dict) -> None:
    parts = repeats_of(three)
    columns = [f"p_{name}" for name in CLASSES]
    expected = {
        "weighted_f1": [sk.f1_score(part["label"], part["predicted"], average="weighted") for part in parts],
        "accuracy": [sk.accuracy_score(part["label"], part["predicted"]) for part in parts],
        "auroc_macro": [sk.roc_auc_score(part["label"], part[columns], multi_class="ovr") for part in parts],
        "auprc_macro": [
            np.mean([sk.average_precision_score(part["label"] == name, part[f"p_{name}"]) for name in CLASSES])
            for part in parts
        ],
    }
    assert {name: found[name]["estimate"] for name in expected} == pytest.approx(
        {name: np.mean(values) for name, values in expected.items()}
    )


def test_a_recall_has_wilson_s_interval_over_the_patients_of_its_class(found: dict) -> None:
    for name, n in zip(CLASSES, SIZES, strict=True):
        recall = found["per_class"][name]["recall"]
        limits = (recall["ci_low"], recall["ci_high"])
        assert limits == pytest.approx(wilson_interval(recall["estimate"], n, 0.95))


def test_fold_values_are_those_of_each_fold_s_patients(three: Predictions, found: dict) -> None:
    groups = three.table.groupby(["repeat", "fold"])
    expected = [sk.accuracy_score(part["label"], part["predicted"]) for _, part in groups]
    assert found["accuracy"]["folds"] == pytest.approx(expected)


def test_the_confusion_matrix_is_the_mean_over_the_repeats(three: Predictions, found: dict) -> None:
    counts = [sk.confusion_matrix(part["label"], part["predicted"], labels=CLASSES) for part in repeats_of(three)]
    assert found["confusion"]["classes"] == list(CLASSES)
    np.testing.assert_allclose(found["confusion"]["counts"], np.mean(counts, axis=0))


def test_a_sensitivity_is_the_largest_at_its_specificity(three: Predictions, found: dict) -> None:
    sensitivities = []
    for part in repeats_of(three):
        false, true, _ = sk.roc_curve(part["label"] == "B", part["p_B"], drop_intermediate=False)
        sensitivities.append(true[false <= 0.1 + 1e-12].max())
    assert found["sensitivity"]["specificity"] == 0.9
    assert found["sensitivity"]["per_class"]["B"]["estimate"] == pytest.approx(np.mean(sensitivities))


def test_slope_and_intercept_are_those_of_a_logistic_regression_on_the_log_odds(
    three: Predictions, found: dict
) -> None:
    fits = []
    for part in repeats_of(three):
        odds = np.log(part["p_C"] / (1 - part["p_C"])).to_numpy()[:, None]
        fit = LogisticRegression(C=np.inf, tol=1e-10).fit(odds, part["label"] == "C")
        fits.append([fit.coef_[0, 0], fit.intercept_[0]])
    own = found["calibration"]["C"]
    assert [own["slope"]["estimate"], own["intercept"]["estimate"]] == pytest.approx(np.mean(fits, axis=0), abs=1e-5)
    assert own["slope"]["ci_low"] < own["slope"]["estimate"] < own["slope"]["ci_high"]


def test_the_brier_score_is_scikit_learn_s_and_its_parts_add_up(three: Predictions, found: dict) -> None:
    expected = np.mean([sk.brier_score_loss(part["label"] == "A", part["p_A"]) for part in repeats_of(three)])
    own = found["calibration"]["A"]
    assert own["brier"]["estimate"] == pytest.approx(expected)
    parts = own["brier_parts"]
    assert parts["miscalibration"] - parts["discrimination"] + parts["uncertainty"] == pytest.approx(expected)


def test_reliability_counts_every_patient_once_however_many_repeats_there_are(found: dict) -> None:
    for name, size in zip(CLASSES, SIZES, strict=True):
        bins = found["calibration"][name]["reliability"]
        assert sum(part["n"] for part in bins) == pytest.approx(90)
        assert sum(part["n"] * part["observed"] for part in bins) == pytest.approx(size)
        assert len(bins) == 9  # of ten patients each
        first = bins[0]
        limits = (first["ci_low"], first["ci_high"])
        assert limits == pytest.approx(wilson_interval(first["observed"], first["n"], 0.95))


def test_a_slope_that_many_resamples_leave_undefined_has_no_interval() -> None:
    """One patient alone keeps the class from being told apart, and is in 63 of 100 resamples."""
    scores = 9.0 * np.eye(3)[LABELS] + 0.1 * np.random.default_rng(1).normal(size=(90, 3))
    scores[0] = [-1.0, 9.0, 0.0]
    slope = summary_of(predictions_of(scores[None]))["calibration"]["A"]["slope"]
    assert slope["estimate"] is not None
    assert (slope["ci_low"], slope["ci_high"]) == (None, None)


def test_a_separated_class_has_no_slope_and_the_file_stays_json() -> None:
    found = summary_of(predictions_of(9.0 * np.eye(3)[LABELS][None]))
    assert found["calibration"]["A"]["slope"] == {"estimate": None, "ci_low": None, "ci_high": None}
    json.dumps(found, allow_nan=False)


def test_nothing_declared_gives_no_curve_and_no_predictive_value(found: dict) -> None:
    assert found["decision_curves"] == found["predictive_values"] == {}


def test_a_decision_curve_is_drawn_over_the_declared_range_and_averaged_over_the_repeats(three: Predictions) -> None:
    curve = summary_of(three, Declared(thresholds={"A": (0.1, 0.4)}))["decision_curves"]["A"]
    assert (curve["thresholds"][0], curve["thresholds"][-1]) == pytest.approx((0.1, 0.4))
    assert curve["prevalence"] == pytest.approx(20 / 90)
    assert not curve["prevalence_declared"]
    benefits = []
    for part in repeats_of(three):
        treated, ill = part["p_A"] >= 0.1, part["label"] == "A"
        benefits.append(((treated & ill).sum() - (treated & ~ill).sum() * 0.1 / 0.9) / 90)
    assert curve["model"][0] == pytest.approx(np.mean(benefits))
    assert curve["everybody"][0] == pytest.approx(20 / 90 - 70 / 90 * 0.1 / 0.9)
    assert curve["avoided_per_100"][0] == pytest.approx(100 * (curve["model"][0] - curve["everybody"][0]) / (0.1 / 0.9))


def test_models_of_weighted_classes_are_brought_to_the_shares_of_the_cohort_first(three: Predictions) -> None:
    curve = summary_of(three, Declared(thresholds={"A": (0.1, 0.4)}, class_weights=True))["decision_curves"]["A"]
    benefits = []
    for part in repeats_of(three):
        odds = part[[f"p_{name}" for name in CLASSES]].to_numpy() * np.array(SIZES)
        own = odds[:, 0] / odds.sum(axis=1)
        positive = (part["label"] == "A").to_numpy()
        benefits.append(net_benefit(positive, own, np.array([0.1]), np.ones((1, 90)))[0, 0])
    assert curve["model"][0] == pytest.approx(np.mean(benefits))


def test_other_shares_are_those_of_a_cohort_with_its_patients_repeated() -> None:
    """A finding that 8 of 10 A, 1 of 10 B and 4 of 10 C have, in a cohort with every B three times."""
    before = np.array([8, 1, 4]) / 13
    after = np.array([8, 3, 4]) / 15
    found = for_other_shares(before, np.full(3, 1 / 3), np.array([10, 30, 10]) / 50)
    np.testing.assert_allclose(found, after)


def test_predictive_values_are_natural_frequencies_of_the_clinic(three: Predictions) -> None:
    values = summary_of(three, Declared(prevalence={"A": 0.05}))["predictive_values"]["A"]
    flagged = np.mean([(part["predicted"] == "A").to_numpy() for part in repeats_of(three)], axis=0)
    ill, well = 50 * flagged[LABELS == 0].mean(), 950 * flagged[LABELS != 0].mean()
    assert values["prevalence"] == 0.05
    assert values["positive"]["estimate"] == pytest.approx(ill / (ill + well))
    assert values["negative"]["estimate"] == pytest.approx((950 - well) / (950 - well + 50 - ill))


@pytest.mark.parametrize(
    ("declared", "text"),
    [
        (
            Declared({"X": 0.1}),
            "prevalence was declared for the class 'X', and the classes are A, B, C; name one of these.",
        ),
        (
            Declared(thresholds={"X": (0.1, 0.2)}),
            "thresholds was declared for the class 'X', and the classes are A, B, C; name one of these.",
        ),
        (
            Declared(thresholds={"A": (0.3, 0.1)}),
            "thresholds of 'A' were given as 0.3 to 0.1; give the lower one first.",
        ),
    ],
)
def test_what_cannot_be_declared_is_refused(declared: Declared, text: str) -> None:
    with pytest.raises(SettingsError) as error:
        declared.check(CLASSES)
    assert str(error.value) == text


def test_one_training_of_one_split_has_no_parts_of_variance() -> None:
    one = predictions_of(noisy())
    assert summary_of(one, by_seed=[one])["variance"] == {}


def test_parts_of_the_variance_are_those_of_the_single_trainings() -> None:
    scores = [noisy(2, seed) for seed in (1, 2, 3)]
    by_seed = [predictions_of(own) for own in scores]
    parts = summary_of(predictions_of(np.mean(scores, axis=0)), by_seed=by_seed)["variance"]["balanced_accuracy"]
    values = np.array(
        [[sk.balanced_accuracy_score(part["label"], part["predicted"]) for part in repeats_of(one)] for one in by_seed]
    )
    expected = variance_parts(values.T, np.array([0.0, 1.0]))
    assert (parts["split"], parts["seed"]) == pytest.approx((expected.split, expected.seed))
    assert (parts["n_repeats"], parts["n_seeds"]) == (2, 3)
    assert 0 < parts["patients"] < 0.01


def test_repeats_that_test_different_patients_are_refused() -> None:
    table = predictions_of(noisy(2)).table
    other = Predictions(table[(table["repeat"] == 0) | (table["patient_id"] != "P001")], CLASSES)
    with pytest.raises(FoldError, match=r"where each repeat must test the same ones once; make splits that do\.$"):
        OutOfFold.of(other)


def test_the_order_of_rows_changes_nothing(three: Predictions, found: dict) -> None:
    shuffled = Predictions(three.table.sample(frac=1, random_state=1), CLASSES)
    assert summary_of(shuffled) == found


@pytest.mark.slow
def test_intervals_of_the_headline_hold_the_truth_in_19_of_20_cohorts() -> None:
    """A cohort of AML-Hehr's five class sizes; the mean of the classes' true recalls is known."""
    sizes, recalls = np.array([24, 36, 37, 32, 60]), np.array([0.85, 0.8, 0.9, 0.75, 0.95])
    labels, generator, covered = np.repeat(np.arange(5), sizes), np.random.default_rng(0), 0
    for seed in range(800):
        right = generator.random(189) < recalls[labels]
        predicted = np.where(right, labels, (labels + 1 + generator.integers(0, 4, 189)) % 5)
        pooled = OutOfFold(
            (), tuple("abcde"), labels, predicted[None], np.full((1, 189, 5), 0.2), np.zeros((1, 189), int)
        )
        metric = pooled.mean_of(balanced_accuracy_of(pooled))
        (figure,) = Resamples.of(labels, 1000, 0.95, seed).estimates(metric, n_smallest=24)
        covered += figure.ci_low <= recalls.mean() <= figure.ci_high
    assert 0.92 <= covered / 800 <= 0.97


@pytest.mark.slow
def test_intervals_of_the_macro_auroc_hold_the_truth_in_19_of_20_cohorts() -> None:
    """Scores of three normal classes; each AUROC against the rest is a mixture of normal ones."""
    shift, sizes = np.array([0.8, 1.2, 1.6]), np.array([40, 60, 80])
    labels, generator, covered = np.repeat(np.arange(3), sizes), np.random.default_rng(1), 0
    truth = stats.norm.cdf(shift / np.sqrt(2)).mean()  # a class's own score against that of any other class
    for seed in range(400):
        scores = generator.normal(size=(1, 180, 3)) + np.eye(3)[labels] * shift
        pooled = OutOfFold((), CLASSES, labels, scores.argmax(axis=2), scores, np.zeros((1, 180), int))
        metric = pooled.mean_of(auroc_macro_of(pooled))
        (figure,) = Resamples.of(labels, 1000, 0.95, seed).estimates(metric, n_smallest=40)
        covered += figure.ci_low <= truth <= figure.ci_high
    assert 0.92 <= covered / 400 <= 0.97
