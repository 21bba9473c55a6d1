"""Whether predicted survival is what happens: Brier score over time, and calibration at a horizon, under censoring.

Patients whose follow-up ended early are neither alive nor dead at a later time. They count until then, and those still
followed stand for them by the inverse probability of still being followed (IPCW), from a Kaplan-Meier estimate of the
censoring. Leaving them out instead takes the long-lived for the few that were seen to the end.

Assumption of all: independent patients, whose censoring depends on nothing at all (Brier score) or at least not on how
they will do (Kaplan-Meier); out-of-fold predictions. Figures take many weightings of the patients, as those of
``discrimination`` do. Letters: n patients, B weightings, T times, m patients of the training part.
"""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from milkit.statistics.intervals import wilson_interval

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class HorizonGroup(NamedTuple):
    """Patients of similar predicted risk at a horizon.

    Attributes:
        n: Patients.
        n_events: Of them, with an event up to the horizon.
        predicted: Mean predicted probability of an event up to the horizon.
        observed: 1 - Kaplan-Meier there; NaN where nobody of the group was followed that long.
        ci_low: Interval of it, by Greenwood's variance on the scale log(-log S).
        ci_high: Its upper limit.
    """

    n: int
    n_events: int
    predicted: float
    observed: float
    ci_low: float
    ci_high: float


def kaplan_meier(time: Floats, event: Bools, at: Floats, weights: Floats) -> Floats:
    """Share without an event beyond each time, Π over t_k <= t of 1 - d_k / r_k: (n,), (n,), (T,), (B, n) -> (B, T).

    d_k events among r_k at risk (Kaplan and Meier 1958, JASA 53:457). After the last follow-up it stays as it is,
    although nothing is known there.
    """
    times, at_risk, events, _ = _table(time, event, weights)
    return _product(times, at_risk, events, at, side="right")


def still_followed(time: Floats, event: Bools, at: Floats, weights: Floats, *, before: bool = False) -> Floats:
    """Probability of not being censored up to each time, G(t), or before it, G(t-): (n,), (n,), (T,), (B, n) -> (B, T).

    Kaplan-Meier with censoring as the event. Of a death and a censoring at the same time the death was first, so that
    who died then is no longer at risk of being censored.
    """
    times, at_risk, events, censored = _table(time, event, weights)
    return _product(times, at_risk - events, censored, at, side="left" if before else "right")


def breslow_survival(time: Floats, event: Bools, training_risk: Floats, risk: Floats, at: Floats) -> Floats:
    """Survival that log hazards of a Cox model mean: (m,), (m,), (m,), (n,), (T,) -> (n, T).

        S(t | x) = exp(-H₀(t) e^risk),    H₀(t) = Σ over events at t_k <= t of d_k / Σ_{j: t_j >= t_k} e^risk_j

    Breslow's baseline (1972, JRSS B 34:216) of the training part alone: from tested patients it would know how many of
    them died. Assumes proportional hazards.
    """
    centre = training_risk.mean()  # cancels; keeps the exponentials in range
    deaths = np.unique(time[event])
    n_deaths = (time[event][:, None] == deaths).sum(axis=0)
    exposed = ((time[:, None] >= deaths) * np.exp(training_risk - centre)[:, None]).sum(axis=0)
    cumulative = np.concatenate([[0.0], np.cumsum(n_deaths / exposed)])
    baseline = cumulative[np.searchsorted(deaths, at, side="right")]
    return np.asarray(np.exp(-baseline * np.exp(risk - centre)[:, None]))


def brier(time: Floats, event: Bools, survival: Floats, at: Floats, weights: Floats) -> Floats:
    """Mean squared distance of predicted survival and state, with IPCW: (n,), (n,), (n, T), (T,), (B, n) -> (B, T).

        BS(t) = 1/n Σ_i S_i(t)² [dead by t] / G(t_i-) + (1 - S_i(t))² [t_i > t] / G(t)

    (Graf, Schmoor, Sauerbrei and Schumacher 1999, Statistics in Medicine 18:2529). 0 is best, 0.25 is S = 1/2 for all.
    """
    own = still_followed(time, event, time, weights, before=True)
    then = still_followed(time, event, at, weights)
    dead = (event & (time <= at[:, None])).T
    inverse = np.divide(weights, own, out=np.zeros_like(own), where=own > 0)
    alive_loss = weights @ ((time > at[:, None]).T * (1 - survival) ** 2)
    loss = inverse @ (dead * survival**2) + np.divide(alive_loss, then, out=np.zeros_like(then), where=then > 0)
    result: Floats = loss / weights.sum(axis=1, keepdims=True)
    return result


def integrated_brier(time: Floats, event: Bools, survival: Floats, at: Floats, weights: Floats) -> Floats:
    """Mean of the Brier score from the first to the last time, by trapezoids, (B,).

    Read it beside that of the training part's Kaplan-Meier curve given to everyone, which is what a model must beat.
    End the times where a good part of the patients is still followed: G near 0 makes it noise.
    """
    scores = brier(time, event, survival, at, weights)
    result: Floats = np.trapezoid(scores, at, axis=1) / (at[-1] - at[0])
    return result


def observed_to_expected(time: Floats, event: Bools, survival: Floats, horizon: float, weights: Floats) -> Floats:
    """Events up to a horizon by Kaplan-Meier over those predicted: (n,), (n,), (n,), (B, n) -> (B,); 1 is right.

    Calibration in the large: above 1, more patients have an event than the model says. ``survival`` is the predicted
    one at the horizon. NaN where the model expects nobody to have one.
    """
    observed = 1 - kaplan_meier(time, event, np.array([horizon]), weights)[:, 0]
    expected = weights @ (1 - survival) / weights.sum(axis=1)
    result: Floats = np.divide(observed, expected, out=np.full_like(observed, np.nan), where=expected > 0)
    return result


def calibration_at(
    time: Floats, event: Bools, survival: Floats, horizon: float, n_groups: int = 5, level: float = 0.95
) -> list[HorizonGroup]:
    """Predicted and observed events up to a horizon in groups of equally many patients, lowest risk first.

    Observed is 1 - Kaplan-Meier within the group, with its interval, by lifelines. Where nobody, or everybody, had an
    event by then, Greenwood's variance is 0 and Wilson's interval over those whose state at the horizon is known stands
    in. ``survival`` (n,) is the predicted one at the horizon; equal values stay in one group. Few events per group make
    wide intervals: take fewer groups rather than believe their middle.
    """
    edges = np.quantile(1 - survival, np.arange(1, n_groups) / n_groups)
    groups = np.searchsorted(edges, 1 - survival, side="right")
    result = []
    for number in np.unique(groups):
        own = groups == number
        deaths = int((event[own] & (time[own] <= horizon)).sum())
        observed = _observed(time[own], event[own], horizon, level)
        result.append(HorizonGroup(int(own.sum()), deaths, float(1 - survival[own].mean()), *observed))
    return result


def _observed(time: Floats, event: Bools, horizon: float, level: float) -> tuple[float, float, float]:
    """1 - Kaplan-Meier at the horizon with its interval."""
    from lifelines import KaplanMeierFitter

    fitter = KaplanMeierFitter(alpha=1 - level).fit(time, event, timeline=[horizon])
    share = 1 - float(fitter.survival_function_.loc[horizon].iloc[0])
    if time.max() < horizon and share < 1:
        return float("nan"), float("nan"), float("nan")
    if share in (0.0, 1.0):
        known = int(((time > horizon) | (event & (time <= horizon))).sum())
        return share, *wilson_interval(share, known, level)
    limits = 1 - fitter.confidence_interval_survival_function_.loc[horizon].to_numpy(dtype=np.float64)
    return share, float(limits.min()), float(limits.max())


def _table(time: Floats, event: Bools, weights: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Distinct times (K,), and at each the weight at risk, with an event, and censored, each (B, K)."""
    order = np.argsort(time, kind="stable")
    times, starts = np.unique(time[order], return_index=True)
    sorted_weights = weights[:, order]
    ends = np.add.reduceat(sorted_weights, starts, axis=1)
    events = np.add.reduceat(sorted_weights * event[order], starts, axis=1)
    at_risk = np.cumsum(ends[:, ::-1], axis=1)[:, ::-1]
    return times, at_risk, events, ends - events


def _product(times: Floats, at_risk: Floats, leaving: Floats, at: Floats, side: Literal["left", "right"]) -> Floats:
    """Product-limit estimate at given times, (B, T); ``side`` is "right" for t_k <= t, "left" for t_k < t."""
    kept = 1 - np.divide(leaving, at_risk, out=np.zeros_like(leaving), where=at_risk > 1e-12)
    curve = np.concatenate([np.ones((len(kept), 1)), np.cumprod(kept, axis=1)], axis=1)
    steps = np.searchsorted(times, at, side=side)
    return np.asarray(curve[:, steps])
