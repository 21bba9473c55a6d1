"""Concordance against lifelines and pairs written out; its orientation; censoring; coverage by simulation."""

import numpy as np
import pytest
from lifelines.utils import concordance_index

from milkit.statistics.bca import bca_estimate
from milkit.statistics.concordance import harrell, uno
from milkit.statistics.intervals import bootstrap_weights


@pytest.fixture
def cohort() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times with ties, events, and risks with ties that say something."""
    generator = np.random.default_rng(0)
    risk = np.round(generator.normal(size=60), 1)
    death, leaving = generator.exponential(np.exp(-risk)), generator.exponential(2.0, size=60)
    return np.ceil(10 * np.minimum(death, leaving)), death <= leaving, risk


ONES = np.ones((1, 60))


def test_the_index_is_that_of_lifelines_for_minus_the_risk(cohort: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    time, event, risk = cohort
    assert harrell(time, event, risk, ONES)[0] == pytest.approx(concordance_index(time, -risk, event), abs=1e-12)


def test_a_higher_risk_is_an_earlier_event() -> None:
    """Planted: the risk is the order of the deaths. The other sign is 0, not 1."""
    time, event = np.arange(1.0, 21.0), np.arange(20) % 3 > 0
    ones = np.ones((1, 20))
    for index in (harrell, lambda *arguments: uno(*arguments, 15.0)):
        assert index(time, event, -time, ones)[0] == 1.0
        assert index(time, event, time, ones)[0] == 0.0
        assert index(time, event, np.zeros(20), ones)[0] == 0.5


def test_a_weighting_is_a_cohort_with_its_patients_as_often(
    cohort: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    weights = bootstrap_weights(np.zeros(60, dtype=np.int64), 3, seed=0)
    for row, weight in enumerate(weights):
        drawn = tuple(values[np.repeat(np.arange(60), weight.astype(int))] for values in cohort)
        expected = concordance_index(drawn[0], -drawn[2], drawn[1])
        assert harrell(*cohort, weights)[row] == pytest.approx(expected, abs=1e-12)
        assert uno(*cohort, weights, 12.0)[row] == pytest.approx(uno(*drawn, ONES, 12.0)[0], abs=1e-12)


def test_of_a_death_and_a_censoring_at_once_the_death_was_first() -> None:
    time, event, ones = np.array([2.0, 2.0]), np.array([True, False]), np.ones((1, 2))
    assert harrell(time, event, np.array([1.0, 0.0]), ones)[0] == 1.0
    assert np.isnan(harrell(time, np.array([True, True]), np.array([1.0, 0.0]), ones)[0])


def test_only_pairs_of_a_group_are_compared(cohort: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    """What is added to all risks of a fold changes nothing."""
    time, event, risk = cohort
    folds = np.arange(60) % 3
    shifted = risk + 10.0 * folds
    for index in (harrell, lambda *a, groups=None: uno(*a, 12.0, groups)):
        within = index(time, event, risk, ONES, groups=folds)[0]
        assert index(time, event, shifted, ONES, groups=folds)[0] == within
        assert index(time, event, shifted, ONES)[0] != pytest.approx(within, abs=0.01)
    won = known = 0.0
    for fold in range(3):
        for i in np.flatnonzero(folds == fold):
            for j in np.flatnonzero(folds == fold):
                if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
                    known += 1
                    won += 1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0
    assert harrell(time, event, risk, ONES, groups=folds)[0] == pytest.approx(won / known)


def followed_before(time: np.ndarray, event: np.ndarray, when: float) -> float:
    """Kaplan-Meier of the censoring, just before a time; deaths at the same time have left."""
    result = 1.0
    for moment in np.unique(time[~event]):
        if moment < when:
            at_risk = (time >= moment).sum() - (event & (time == moment)).sum()
            result *= 1 - ((time == moment) & ~event).sum() / at_risk
    return result


def test_uno_s_index_is_that_of_weighted_pairs(cohort: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    time, event, risk = cohort
    won = known = 0.0
    for i in range(60):
        for j in range(60):
            later = time[i] < time[j] or (time[i] == time[j] and not event[j])
            if event[i] and time[i] < 12 and later:
                weight = followed_before(time, event, time[i]) ** -2
                known += weight
                won += weight * (1.0 if risk[i] > risk[j] else 0.5 if risk[i] == risk[j] else 0.0)
    assert uno(time, event, risk, ONES, 12.0)[0] == pytest.approx(won / known, abs=1e-12)


def test_without_censoring_uno_s_index_is_harrell_s(cohort: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    time, _, risk = cohort
    event = np.ones(60, dtype=bool)
    assert uno(time, event, risk, ONES, np.inf)[0] == pytest.approx(harrell(time, event, risk, ONES)[0])


def test_uno_s_index_does_not_depend_on_the_follow_up_and_harrell_s_does() -> None:
    """Risk that matters early only: who is followed for a short time makes Harrell's index look better."""
    generator = np.random.default_rng(1)
    risk = generator.normal(size=1500)
    early, late = generator.exponential(np.exp(-1.5 * risk)), generator.exponential(1.0, size=1500)
    death = np.where(early < 0.5, early, 0.5 + late)
    leaving = generator.exponential(0.7, size=1500)
    ones = np.ones((1, 1500))
    truth = harrell(np.minimum(death, 2.0), death < 2.0, risk, ones)[0]
    seen = np.minimum(death, leaving), death <= leaving, risk
    assert uno(*seen, ones, 2.0)[0] == pytest.approx(truth, abs=0.02)
    assert harrell(*seen, ones)[0] > truth + 0.03


@pytest.mark.slow
def test_bootstrap_intervals_of_the_index_cover_the_truth() -> None:
    """Exponential times under proportional hazards, a third censored; the truth from one large uncensored cohort."""
    generator, n = np.random.default_rng(2), 80
    large = generator.normal(size=4000)
    truth = harrell(generator.exponential(np.exp(-large)), np.ones(4000, dtype=bool), large, np.ones((1, 4000)))[0]
    covered = 0
    for seed in range(400):
        risk = generator.normal(size=n)
        death, leaving = generator.exponential(np.exp(-risk)), generator.exponential(np.exp(-risk) * 2)
        time, event = np.minimum(death, leaving), death <= leaving
        _, low, high = bca_estimate(
            lambda weights, own=(time, event, risk): harrell(*own, weights),
            np.zeros(n, dtype=np.int64),
            n_resamples=600,
            seed=seed,
        )
        covered += low <= truth <= high
    assert 0.92 <= covered / 400 <= 0.97
