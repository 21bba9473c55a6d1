"""Metrics and intervals against scikit-learn, closed forms and simulation."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from milkit.predictions import Predictions
from milkit.statistics import discrimination as d
from milkit.statistics.intervals import bootstrap_weights, percentile_interval, wilson_interval
from milkit.statistics.ranking import planted_cell_recovery
from milkit.statistics.summary import summarise

N, C = 83, 4


@pytest.fixture
def patients() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probabilities with ties, predictions, and five weightings; the first is all ones."""
    generator = np.random.default_rng(4)
    labels = np.arange(N) % C
    scores = np.round(generator.normal(size=(N, C)) + 1.5 * np.eye(C)[labels], 1)
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    weights = np.concatenate([np.ones((1, N)), bootstrap_weights(labels, 4, seed=1)])
    return labels, probabilities, probabilities.argmax(axis=1), weights


def test_every_metric_equals_scikit_learn_under_every_weighting(
    patients: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    y, p, guess, weights = patients
    for row, w in enumerate(weights):
        ours = {
            "balanced": d.balanced_accuracy(y, guess, weights, C)[row],
            "accuracy": d.accuracy(y, guess, weights)[row],
            "f1": d.weighted_f1(y, guess, weights, C)[row],
            "auroc": d.macro("auroc", y, p, weights)[row],
            "auprc": d.macro("average_precision", y, p, weights)[row],
        }
        theirs = {
            "balanced": sk.balanced_accuracy_score(y, guess, sample_weight=w),
            "accuracy": sk.accuracy_score(y, guess, sample_weight=w),
            "f1": sk.f1_score(y, guess, average="weighted", sample_weight=w),
            "auroc": np.mean([sk.roc_auc_score(y == c, p[:, c], sample_weight=w) for c in range(C)]),
            "auprc": np.mean([sk.average_precision_score(y == c, p[:, c], sample_weight=w) for c in range(C)]),
        }
        assert ours == pytest.approx(theirs, abs=1e-12)


def test_auroc_counts_ties_half() -> None:
    positive = np.array([True, False, False])
    assert d.auroc(positive, np.array([0.5, 0.5, 0.1]), np.ones((1, 3)))[0] == 0.75


def test_a_class_without_patients_is_undefined_and_left_out_of_the_mean() -> None:
    labels, guess = np.array([0, 0, 1]), np.array([0, 1, 1])
    assert np.isnan(d.recall(labels, guess, np.ones((1, 3)), 3)[0, 2])
    assert d.balanced_accuracy(labels, guess, np.ones((1, 3)), 3)[0] == 0.75


def test_a_resample_keeps_the_class_sizes() -> None:
    labels = np.array([0] * 7 + [1] * 3)
    weights = bootstrap_weights(labels, 50, seed=0)
    assert (weights[:, :7].sum(axis=1) == 7).all()
    assert (weights[:, 7:].sum(axis=1) == 3).all()


def test_wilson_equals_the_published_example() -> None:
    """22 of 24: 0.742 to 0.977 (computed by R's prop.test(22, 24, correct = FALSE))."""
    assert wilson_interval(22 / 24, 24, 0.95) == pytest.approx((0.742, 0.977), abs=5e-4)


def test_wilson_does_not_shrink_to_a_point() -> None:
    low, high = wilson_interval(1.0, 10, 0.95)
    assert low < 0.75
    assert high == pytest.approx(1.0)


def test_the_percentile_interval_is_the_central_part() -> None:
    assert percentile_interval(np.arange(101.0), 0.9) == pytest.approx((5, 95))
    assert np.isnan(percentile_interval(np.array([np.nan]), 0.9)[0])


@pytest.mark.slow
def test_the_interval_of_balanced_accuracy_covers_the_truth() -> None:
    """60 patients in two classes, true recalls 0.9 and 0.7: about 95 of 100 intervals hold 0.8."""
    generator, labels, covered = np.random.default_rng(0), np.arange(60) % 2, 0
    for seed in range(400):
        right = generator.random(60) < np.where(labels == 0, 0.9, 0.7)
        resampled = d.balanced_accuracy(
            labels, np.where(right, labels, 1 - labels), bootstrap_weights(labels, 1000, seed), 2
        )
        low, high = percentile_interval(resampled, 0.95)
        covered += low <= 0.8 <= high
    assert 0.90 <= covered / 400 <= 0.98


def _predictions(repeats: int = 1) -> Predictions:
    parts = []
    for repeat in range(repeats):
        generator = np.random.default_rng(repeat)
        labels = np.array(["A", "B", "C"])[np.arange(30) % 3]
        p = generator.dirichlet([1, 1, 1], size=30)
        p[np.arange(30), np.arange(30) % 3] += 0.5
        p /= p.sum(axis=1, keepdims=True)
        table = pd.DataFrame(
            {"patient_id": [f"P{i:02d}" for i in range(30)], "repeat": repeat, "fold": np.arange(30) // 6}
        )
        table["label"], table["predicted"] = labels, np.array(["A", "B", "C"])[p.argmax(axis=1)]
        table[["p_A", "p_B", "p_C"]] = p
        parts.append(table)
    return Predictions(pd.concat(parts, ignore_index=True), ("A", "B", "C"))


def test_the_summary_pools_patients_and_lists_folds() -> None:
    predictions = _predictions()
    summary = summarise(predictions, n_bootstrap=200, level=0.95, seed=0)
    table = predictions.table
    expected = sk.balanced_accuracy_score(table["label"], table["predicted"])
    assert summary["balanced_accuracy"]["estimate"] == pytest.approx(expected)
    by_fold = [sk.accuracy_score(part["label"], part["predicted"]) for _, part in table.groupby("fold")]
    assert summary["accuracy"]["folds"] == pytest.approx(by_fold)
    assert summary["per_class"]["B"]["n"] == 10
    assert summary["n_patients"] == 30


def test_the_estimate_of_several_repeats_is_their_mean_and_patients_stay_the_unit() -> None:
    both = summarise(_predictions(2), n_bootstrap=200, level=0.95, seed=0)
    table = _predictions(2).table
    single = [sk.accuracy_score(part["label"], part["predicted"]) for _, part in table.groupby("repeat")]
    assert both["accuracy"]["estimate"] == pytest.approx(np.mean(single))
    assert both["n_patients"] == 30


def _cells(n_patients: int, informative: bool) -> pd.DataFrame:
    generator, rows = np.random.default_rng(1), []
    for number in range(n_patients):
        planted = np.arange(50) < 10
        weight = generator.random(50) + (planted if informative else 0)
        rows.append(pd.DataFrame({"patient_id": f"P{number}", "weight": weight, "planted": planted.astype(int)}))
    return pd.concat(rows, ignore_index=True)


def test_a_perfect_ranking_has_average_precision_one_and_a_random_one_that_of_chance() -> None:
    perfect, chance = planted_cell_recovery(_cells(20, True)), planted_cell_recovery(_cells(20, False))
    assert perfect.mean_average_precision == pytest.approx(1.0)
    assert chance.mean_average_precision == pytest.approx(chance.random_average_precision, abs=0.06)
    assert chance.prevalence == pytest.approx(0.2)


def test_patients_with_too_few_or_too_many_planted_cells_are_left_out() -> None:
    assert planted_cell_recovery(_cells(3, True), min_cells=11).n_patients == 0
    assert planted_cell_recovery(_cells(3, True), max_prevalence=0.1).n_patients == 0


def test_an_interval_never_shrinks_to_a_point_when_everybody_is_right() -> None:
    predictions = _predictions()
    table = predictions.table.assign(predicted=predictions.table["label"])
    for name in predictions.classes:
        table[f"p_{name}"] = (table["label"] == name).astype(float)
    summary = summarise(Predictions(table, predictions.classes), n_bootstrap=100, level=0.95, seed=0)
    low, high = wilson_interval(1.0, 10, 0.95)
    for figure in (summary["balanced_accuracy"], summary["auroc_macro"], summary["per_class"]["A"]["auroc"]):
        assert (figure["ci_low"], figure["ci_high"]) == pytest.approx((low, high))
