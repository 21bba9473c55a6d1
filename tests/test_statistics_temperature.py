"""The temperature against a search, a known fault of the logits, and cases without a best one."""

import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from milkit.statistics.temperature import HIGHEST, LOWEST, fit_temperature, logits_of, scaled


def cohort(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn with the probabilities of the logits."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 1.5, size=(n, 4))
    shares = softmax(logits, axis=1)
    return (generator.random(n)[:, None] > shares.cumsum(axis=1)).sum(axis=1).clip(max=3), logits


def loss(labels: np.ndarray, logits: np.ndarray, temperature: float) -> float:
    return float(-log_softmax(logits / temperature, axis=1)[np.arange(len(labels)), labels].mean())


def test_no_other_temperature_has_a_smaller_loss() -> None:
    labels, logits = cohort(60)
    best = fit_temperature(labels, 3 * logits)
    tried = np.exp(np.linspace(np.log(LOWEST), np.log(HIGHEST), 2001))
    losses = [loss(labels, 3 * logits, temperature) for temperature in tried]
    assert loss(labels, 3 * logits, best) <= min(losses) + 1e-12
    assert best == pytest.approx(tried[np.argmin(losses)], rel=0.01)


def test_logits_that_are_too_large_by_a_factor_have_it_as_their_temperature() -> None:
    labels, logits = cohort(20_000)
    assert fit_temperature(labels, logits) == pytest.approx(1, abs=0.05)
    assert fit_temperature(labels, 2.5 * logits) == pytest.approx(2.5 * fit_temperature(labels, logits))


def test_probabilities_serve_as_well_as_logits() -> None:
    labels, logits = cohort(60)
    assert fit_temperature(labels, logits_of(softmax(logits, axis=1))) == pytest.approx(fit_temperature(labels, logits))


def test_a_probability_of_zero_has_a_logit() -> None:
    assert np.isfinite(logits_of(np.array([[0.0, 1.0]]))).all()


@pytest.mark.parametrize(("sign", "bound"), [(1, LOWEST), (-1, HIGHEST)])
def test_where_there_is_no_best_temperature_it_is_the_bound(sign: int, bound: float) -> None:
    labels = np.array([0, 1, 2])
    assert fit_temperature(labels, sign * 5.0 * np.eye(3)) == bound


def test_logits_that_say_nothing_are_left_alone() -> None:
    assert fit_temperature(np.array([0, 1]), np.full((2, 3), 7.0)) == 1.0


def test_scaling_keeps_the_order_and_makes_shares() -> None:
    _, logits = cohort(30)
    shares = scaled(logits, 2.0)
    np.testing.assert_allclose(shares, softmax(logits / 2, axis=1), atol=1e-12)
    np.testing.assert_array_equal(shares.argsort(axis=1), logits.argsort(axis=1))
