"""Kaplan-Meier tables, the log-rank test and Cox's model against sums written out and hazards by design."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats
from survival_toys import follow_up, risk_table, write_run

from milkit.survival.cox import cox_model, fit
from milkit.survival.curves import (
    curve_table,
    group_summaries,
    log_rank,
    median_follow_up,
    numbers_at_risk,
    round_times,
)
from milkit.survival.outcome import read_outcome
from milkit.survival.predicted import relative_risks
from milkit.survival.terms import Terms, make_terms

TIME = np.array([1.0, 2.0, 2.0, 3.0, 4.0, 5.0, 6.0, 6.0])
EVENT = np.array([True, True, False, True, False, True, False, True])
GROUPS = np.array(["a", "a", "a", "b", "b", "b", "b", "a"], dtype=object)


def negative_log_likelihood(beta: np.ndarray, time: np.ndarray, event: np.ndarray, values: np.ndarray) -> float:
    """Cox's partial likelihood without ties."""
    score = values @ beta
    return -sum(score[i] - np.log(np.exp(score[time >= time[i]]).sum()) for i in np.flatnonzero(event))


def ward(seed: int = 0, n: int = 200) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    generator = np.random.default_rng(seed)
    values = pd.DataFrame(generator.normal(size=(n, 2)), columns=["marker", "age"])
    death = generator.exponential(np.exp(-values.to_numpy() @ [1.0, 0.5]))
    return np.minimum(death, 2.0), death < 2.0, values


def test_the_curve_is_the_product_over_events_with_greenwood_s_band() -> None:
    table = curve_table(TIME, EVENT, np.full(8, "all", dtype=object), ["all"], 0.95)
    steps = table.set_index("time")
    survival = (1 - 1 / 8) * (1 - 1 / 7) * (1 - 1 / 5)
    assert steps.loc[3.0, "survival"] == pytest.approx(survival)
    spread = np.sqrt(1 / (8 * 7) + 1 / (7 * 6) + 1 / (5 * 4)) / abs(np.log(survival))
    expected = survival ** np.exp(np.array([1, -1]) * stats.norm.ppf(0.975) * spread)
    assert steps.loc[3.0, ["ci_low", "ci_high"]].tolist() == pytest.approx(list(expected))
    assert steps.loc[2.0, ["at_risk", "events", "censored"]].tolist() == [7, 1, 1]


def test_a_curve_at_1_or_at_0_has_no_band() -> None:
    table = curve_table(TIME, EVENT, GROUPS, ["a"], 0.95)
    assert table["survival"].iloc[[0, -1]].tolist() == [1.0, 0.0]
    assert table[["ci_low", "ci_high"]].iloc[[0, -1]].isna().all(axis=None)
    assert table[["ci_low", "ci_high"]].iloc[1].notna().all()


def test_numbers_at_risk_count_who_is_followed_up_to_that_time() -> None:
    table = numbers_at_risk(TIME, GROUPS, ["a", "b"], [0.0, 2.0, 6.0])
    assert table["at_risk"].tolist() == [4, 3, 1, 4, 4, 1]


@pytest.mark.parametrize("last", [0.03, 1.0, 9.7, 10.0, 1500.0])
def test_times_of_the_risk_table_are_few_and_reach_far(last: float) -> None:
    times = round_times(last)
    assert 4 <= len(times) <= 11
    assert times[0] == 0
    assert 0.6 * last < times[-1] <= last * (1 + 1e-9)


def test_the_log_rank_statistic_is_observed_less_expected_over_its_variance() -> None:
    excess = variance = 0.0
    for at in np.unique(TIME[EVENT]):
        risk = at <= TIME
        r, r_a = risk.sum(), (risk & (GROUPS == "a")).sum()
        d, d_a = (EVENT & (at == TIME)).sum(), (EVENT & (at == TIME) & (GROUPS == "a")).sum()
        excess += d_a - d * r_a / r
        variance += d * r_a * (r - r_a) * (r - d) / (r**2 * (r - 1)) if r > 1 else 0
    found = log_rank(TIME, EVENT, GROUPS)
    assert found is not None
    assert found["statistic"] == pytest.approx(excess**2 / variance)
    assert found["p"] == pytest.approx(stats.chi2.sf(excess**2 / variance, 1))


def test_one_group_is_not_tested() -> None:
    assert log_rank(TIME, EVENT, np.full(8, "a", dtype=object)) is None


def test_the_median_is_where_the_curve_reaches_a_half_and_unknown_where_it_does_not() -> None:
    groups = np.where(np.arange(8) < 4, "early", "late").astype(object)
    time, event = np.arange(1.0, 9.0), np.arange(8) < 4
    early, late = group_summaries(curve_table(time, event, groups, ["early", "late"], 0.95), 4.0)
    assert early["median"]["estimate"] == 2.0
    assert np.isnan(late["median"]["estimate"])
    assert (early["n"], early["n_events"], late["n_events"]) == (4, 4, 0)
    assert early["survival_at_horizon"]["estimate"] == 0.0


def test_survival_beyond_the_last_follow_up_is_unknown() -> None:
    (group,) = group_summaries(curve_table(TIME, EVENT, GROUPS, ["b"], 0.95), 7.0)
    assert np.isnan(group["survival_at_horizon"]["estimate"])


def test_the_median_follow_up_counts_the_end_of_follow_up_as_the_event() -> None:
    assert median_follow_up(np.arange(1.0, 9.0), np.zeros(8, dtype=np.bool_)) == 4.0
    assert np.isnan(median_follow_up(np.arange(1.0, 9.0), np.ones(8, dtype=np.bool_)))


def test_coefficients_maximise_the_partial_likelihood() -> None:
    time, event, values = ward()
    found = fit(time, event, values, 0.95)
    best = optimize.minimize(negative_log_likelihood, np.zeros(2), (time, event, values.to_numpy()))
    assert found is not None
    np.testing.assert_allclose([found.terms[name].estimate for name in ("marker", "age")], best.x, atol=1e-3)
    none = negative_log_likelihood(np.zeros(2), time, event, values.to_numpy())
    assert found.ratio == pytest.approx(2 * (none - best.fun), rel=1e-4)


def test_a_term_that_separates_the_dead_has_no_hazard_ratio() -> None:
    time, event, values = ward(n=40)
    assert fit(time, event, values.assign(dead=event.astype(float)), 0.95) is None
    assert fit(time, event, values.assign(same=1.0), 0.95) is None


def test_the_gain_is_twice_the_difference_of_log_likelihoods(tmp_path: Path) -> None:
    time, event, values = ward()
    outcome = read_outcome(
        write_run(tmp_path / "run", risk_table(values["marker"].to_numpy(), time, event.astype(int)))
    )
    terms = Terms(values.set_index(outcome.patients.index), {"marker": "", "age": ""}, ("marker",))
    cox, _ = cox_model(outcome, terms, 0.95)
    both, age = fit(time, event, values, 0.95), fit(time, event, values[["age"]], 0.95)
    assert cox
    assert both
    assert age
    assert cox["gain"] == pytest.approx(
        {"statistic": both.ratio - age.ratio, "df": 1, "p": stats.chi2.sf(both.ratio - age.ratio, 1)}
    )


def test_hazards_that_cross_are_named_with_an_early_and_a_late_ratio(tmp_path: Path) -> None:
    """High risks die more often before time 1, and less often after it."""
    generator = np.random.default_rng(0)
    risk = np.repeat([-1.0, 1.0], 200) + 0.01 * generator.normal(size=400)
    early = generator.exponential(2 * np.exp(-1.2 * risk))
    time = np.where(early < 1, early, 1 + generator.exponential(np.exp(1.2 * risk)))
    outcome = read_outcome(write_run(tmp_path / "run", risk_table(risk, time, np.ones(400, dtype=int))))
    risks = relative_risks(outcome)
    terms, _, _ = make_terms(outcome, risks, np.full(400, "", dtype=object), [])
    cox, told = cox_model(outcome, terms, 0.95)
    assert cox is not None
    (row,) = cox["terms"]
    assert row["p_proportional"] < 0.001
    assert row["early"]["ci_low"] > 1 > row["late"]["ci_high"]
    (text,) = told
    assert text.startswith("The hazard ratio of predicted risk changes over time (scaled Schoenfeld residuals, p = ")
    assert "is a mean over time" in text


def test_proportional_hazards_are_left_alone(tmp_path: Path) -> None:
    log_hazard = np.random.default_rng(1).normal(size=300)
    outcome = read_outcome(write_run(tmp_path / "run", risk_table(log_hazard, *follow_up(log_hazard))))
    terms, _, _ = make_terms(outcome, relative_risks(outcome), np.full(300, "", dtype=object), [])
    cox, told = cox_model(outcome, terms, 0.95)
    assert told == []
    assert cox is not None
    assert cox["terms"][0]["early"] is None
    assert cox["terms"][0]["coefficient"] == pytest.approx(1.0, abs=0.25)
