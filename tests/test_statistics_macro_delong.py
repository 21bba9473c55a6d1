"""DeLong's test of the macro AUROC against all pairs of patients, the two-class test, and simulation."""

import numpy as np
import pytest

from milkit.statistics import discrimination
from milkit.statistics.bca import leave_one_out
from milkit.statistics.delong import delong_test
from milkit.statistics.macro_delong import macro_delong_test, macro_influence


@pytest.fixture
def cohort() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """45 patients of three classes, and two models with two repeats each; ties among the scores."""
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), [12, 15, 18])
    models = [np.round(generator.normal(size=(2, 45, 3)) + s * np.eye(3)[labels], 1) for s in (1.2, 0.8)]
    return labels, models[0], models[1]


def test_the_macro_auroc_is_that_of_the_metrics(cohort: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, first, _ = cohort
    expected = np.mean([discrimination.macro("auroc", labels, scores, np.ones((1, 45)))[0] for scores in first])
    assert macro_influence(labels, first)[0] == pytest.approx(expected)


def test_the_influence_of_a_patient_is_the_derivative_by_its_weight(
    cohort: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    labels, first, _ = cohort
    step = 1e-6
    weights = np.ones((45, 45)) + step * np.eye(45)
    moved = np.mean([discrimination.macro("auroc", labels, scores, weights) for scores in first], axis=0)
    area, influence = macro_influence(labels, first)
    np.testing.assert_allclose((moved - area) / step, influence, atol=1e-6)


def test_with_two_classes_it_is_the_test_of_one_auroc() -> None:
    generator = np.random.default_rng(1)
    labels = np.arange(50) % 2
    models = [generator.normal(size=(2, 50)) + s * labels for s in (1.3, 0.7)]
    both = [np.stack([-scores, scores], axis=2) for scores in models]
    assert macro_delong_test(labels, *both) == pytest.approx(delong_test(labels == 1, *models))


def test_its_variance_is_nearly_the_jackknife_s(cohort: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, first, second = cohort

    def gap(weights: np.ndarray) -> np.ndarray:
        return np.mean(
            [
                discrimination.macro("auroc", labels, a, weights) - discrimination.macro("auroc", labels, b, weights)
                for a, b in zip(first, second, strict=True)
            ],
            axis=0,
        )

    left_out = leave_one_out(gap, 45)
    variance = 0.0
    for k in range(3):
        own = left_out[labels == k]
        variance += (len(own) - 1) / len(own) * ((own - own.mean()) ** 2).sum()
    found = macro_delong_test(labels, first, second, 0.6826894921370859)  # one standard error to each side
    assert (found.ci_high - found.ci_low) / 2 == pytest.approx(np.sqrt(variance), rel=0.02)


def test_models_that_rank_alike_do_not_differ(cohort: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, first, _ = cohort
    assert macro_delong_test(labels, first, np.exp(first)) == (0.0, 0.0, 0.0, 1.0)


def test_a_class_of_one_patient_has_no_variance() -> None:
    labels = np.array([0, 1, 1, 1, 2, 2, 2])
    scores = np.random.default_rng(2).normal(size=(2, 1, 7, 3))
    found = macro_delong_test(labels, *scores)
    assert not np.isnan(found.difference)
    assert np.isnan(found[1:]).all()


def test_a_class_that_no_patient_has_is_left_out(cohort: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    labels, first, second = cohort
    empty = [np.concatenate([scores, scores[:, :, :1]], axis=2) for scores in (first, second)]
    assert macro_delong_test(labels, *empty) == macro_delong_test(labels, first, second)


@pytest.mark.slow
def test_equal_models_are_called_different_one_time_in_twenty() -> None:
    generator, labels, found = np.random.default_rng(3), np.repeat(np.arange(3), [20, 30, 40]), 0
    for _ in range(1000):
        shared = generator.normal(size=(90, 3)) + np.eye(3)[labels]
        models = [shared[None] + 0.7 * generator.normal(size=(1, 90, 3)) for _ in range(2)]
        found += macro_delong_test(labels, *models).p_value < 0.05
    assert 0.03 <= found / 1000 <= 0.07
