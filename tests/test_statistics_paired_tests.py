"""Paired tests against enumeration and closed forms; what they say of equal models, by simulation."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score

from milkit.statistics import discrimination
from milkit.statistics.paired_tests import corrected_t_test, holm, permutation_test


def balanced(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """The metric of weightings of both models' rows."""
    twice, predicted = np.tile(labels, 2), np.concatenate([first, second])
    return lambda weights: discrimination.balanced_accuracy(twice, predicted, weights, 2)


@pytest.fixture
def cohort() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ten patients, the first model right about nine, the second about six."""
    labels = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
    first, second = labels.copy(), labels.copy()
    first[9] = 0
    second[[0, 3, 6, 8]] = 1 - labels[[0, 3, 6, 8]]
    return labels, first, second


def by_enumeration(labels: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    def recalls(predicted: np.ndarray) -> float:
        return sum(float((predicted[labels == c] == c).mean()) for c in (0, 1)) / 2

    observed, gaps = recalls(first) - recalls(second), []
    for swapped in product([False, True], repeat=len(labels)):
        one, other = np.where(swapped, second, first), np.where(swapped, first, second)
        gaps.append(recalls(one) - recalls(other))
    return float(np.mean(np.abs(gaps) >= abs(observed) - 1e-12))


def test_a_small_cohort_s_p_value_is_that_of_all_permutations(
    cohort: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    result = permutation_test(balanced(*cohort), 10)
    assert (result.exact, result.n_permutations) == (True, 1024)
    assert result.p_value == pytest.approx(by_enumeration(*cohort), abs=1e-12)
    expected = balanced_accuracy_score(cohort[0], cohort[1]) - balanced_accuracy_score(cohort[0], cohort[2])
    assert result.difference == pytest.approx(expected)


def test_random_permutations_come_near_all_of_them(cohort: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    exact = permutation_test(balanced(*cohort), 10)
    drawn = permutation_test(balanced(*cohort), 10, n_permutations=1000, seed=1)
    assert not drawn.exact
    assert drawn.p_value == pytest.approx(exact.p_value, abs=0.05)


def test_a_drawn_p_value_is_never_zero() -> None:
    labels = np.arange(60) % 2
    result = permutation_test(balanced(labels, labels, 1 - labels), 60, n_permutations=499)
    assert result.difference == pytest.approx(1.0)
    assert result.p_value == pytest.approx(1 / 500)


def test_equal_predictions_have_p_one_whichever_way_it_is_computed() -> None:
    labels = np.arange(40) % 2
    for n in (10, 40):
        same = permutation_test(balanced(labels[:n], labels[:n], labels[:n]), n, n_permutations=2000)
        assert same[:2] == (0.0, 1.0)


def test_the_same_permutations_are_drawn_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(30) % 2
    models = [np.where(generator.random(30) < right, labels, 1 - labels) for right in (0.9, 0.6)]
    whole = permutation_test(balanced(labels, *models), 30, n_permutations=700, seed=4)
    monkeypatch.setattr("milkit.statistics.paired_tests._WEIGHTS_AT_ONCE", 60 * 64)
    assert permutation_test(balanced(labels, *models), 30, n_permutations=700, seed=4) == whole


def test_an_undefined_metric_has_no_p_value() -> None:
    scores, positive = np.arange(16.0), np.zeros(16, dtype=bool)
    result = permutation_test(lambda weights: discrimination.auroc(positive, scores, weights), 8)
    assert np.isnan([result.difference, result.p_value]).all()


def test_the_corrected_statistic_is_nadeau_and_bengio_s() -> None:
    differences = np.random.default_rng(1).normal(0.03, 0.05, size=(3, 5))
    t = differences.mean() / np.sqrt((1 / 15 + 20 / 60) * differences.var(ddof=1))
    result = corrected_t_test(differences, 20, 60)
    assert result.p_value == pytest.approx(2 * stats.t.sf(abs(t), 14))
    assert (result.ci_low < 0) == (result.p_value > 0.05)


def test_without_shared_training_it_is_the_t_test() -> None:
    differences = np.random.default_rng(2).normal(0.03, 0.05, size=(2, 5))
    result, plain = corrected_t_test(differences, 0, 60), stats.ttest_1samp(differences.ravel(), 0)
    assert result.p_value == pytest.approx(plain.pvalue)
    assert (result.ci_low, result.ci_high) == pytest.approx(tuple(plain.confidence_interval()))


@pytest.mark.parametrize(("repeats", "times"), [(1, 1.5), (10, 3.67)])
def test_the_corrected_interval_is_wider_by_what_the_folds_share(repeats: int, times: float) -> None:
    differences = np.random.default_rng(3).normal(size=(repeats, 5))
    widths = [np.diff(corrected_t_test(differences, n_test, 4)[1:3])[0] for n_test in (1, 0)]
    assert widths[0] / widths[1] == pytest.approx(times, abs=0.005)


def test_folds_without_spread_say_nothing_unless_all_are_equal() -> None:
    assert corrected_t_test(np.zeros((1, 5)), 1, 4) == (0.0, 0.0, 0.0, 1.0)
    assert np.isnan(corrected_t_test(np.full((1, 5), 0.1), 1, 4).p_value)
    assert np.isnan(corrected_t_test(np.array([[0.1, np.nan, 0.2]]), 1, 4).p_value)


def test_holm_equals_the_worked_example() -> None:
    """R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")."""
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_an_undefined_p_value_counts_as_a_comparison_made() -> None:
    adjusted = holm(np.array([np.nan, 0.02, 0.9]))
    assert np.isnan(adjusted[0])
    assert adjusted[1:] == pytest.approx([0.06, 1.0])


def equal_learners(generator: np.random.Generator, repeats: int) -> np.ndarray:
    """Differences in accuracy of nearest-mean classifiers on two equally informative sets of ten features, 5 folds."""
    labels = np.arange(200) % 2
    views = [generator.normal(size=(200, 10)) + 0.05 * (2 * labels[:, None] - 1) for _ in range(2)]
    differences = np.empty((repeats, 5))
    for repeat in range(repeats):
        folds = np.empty(200, dtype=np.int64)
        for c in (0, 1):
            folds[generator.permutation(np.flatnonzero(labels == c))] = np.arange(100) % 5
        trained = (folds != np.arange(5)[:, None]).astype(np.float64)  # (5, 200)
        accuracies = []
        for view in views:
            up, down = ((trained * (labels == c)) @ view / 80 for c in (1, 0))
            says = (up - down) @ view.T > ((up**2 - down**2).sum(axis=1) / 2)[:, None]
            accuracies.append((((says == labels) * (1 - trained)).sum(axis=1)) / 40)
        differences[repeat] = accuracies[0] - accuracies[1]
    return differences


@pytest.mark.slow
@pytest.mark.parametrize("repeats", [1, 5])
def test_equal_learners_are_called_different_by_the_naive_test_and_not_by_the_corrected(repeats: int) -> None:
    generator, corrected, naive = np.random.default_rng(1), 0, 0
    for _ in range(1000):
        differences = equal_learners(generator, repeats)
        corrected += corrected_t_test(differences, 40, 160).p_value < 0.05
        naive += stats.ttest_1samp(differences.ravel(), 0).pvalue < 0.05 if np.ptp(differences) > 0 else False
    assert corrected / 1000 <= 0.07
    assert naive / 1000 > (0.08 if repeats == 1 else 0.3)


@pytest.mark.slow
def test_exchangeable_predictions_are_called_different_one_time_in_twenty() -> None:
    generator, labels, found = np.random.default_rng(2), np.arange(50) % 2, 0
    for seed in range(400):
        models = [np.where(generator.random(50) < 0.8, labels, 1 - labels) for _ in range(2)]
        p_value = permutation_test(balanced(labels, *models), 50, n_permutations=400, seed=seed).p_value
        found += p_value <= 0.05
    assert found / 400 <= 0.07
