"""Kaplan-Meier curves of groups of patients with confidence bands and numbers at risk, and the log-rank test."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Names = npt.NDArray[np.object_]


def curve_table(time: Floats, event: Bools, groups: Names, names: Sequence[str], level: float) -> pd.DataFrame:
    """Every step of every group's curve: group, time, at_risk, events, censored, survival, ci_low, ci_high.

    By lifelines; the band is Greenwood's variance on the scale log(-log S), point by point. Where nobody has died yet,
    or nobody is left, that variance says nothing and the band is empty. ``at_risk`` counts those followed up to the
    time, before it takes any of them.
    """
    from lifelines import KaplanMeierFitter

    parts = []
    for name in names:
        own = groups == name
        fitter = KaplanMeierFitter(alpha=1 - level).fit(time[own], event[own])
        steps, survival = fitter.event_table, fitter.survival_function_.iloc[:, 0].to_numpy(dtype=np.float64)
        limits = fitter.confidence_interval_survival_function_.to_numpy(dtype=np.float64)
        limits[(survival == 1) | (survival == 0)] = np.nan
        part = pd.DataFrame({"group": name, "time": fitter.survival_function_.index.to_numpy(dtype=np.float64)})
        for title, column in (("at_risk", "at_risk"), ("events", "observed"), ("censored", "censored")):
            part[title] = steps[column].to_numpy(dtype=np.int64)
        parts.append(part.assign(survival=survival, ci_low=limits.min(axis=1), ci_high=limits.max(axis=1)))
    return pd.concat(parts, ignore_index=True)


def numbers_at_risk(time: Floats, groups: Names, names: Sequence[str], at: Sequence[float]) -> pd.DataFrame:
    """Patients of each group who are still followed at each time: group, time, at_risk."""
    rows = [(name, float(t), int((time[groups == name] >= t).sum())) for name in names for t in at]
    return pd.DataFrame(rows, columns=["group", "time", "at_risk"])


def round_times(last: float) -> list[float]:
    """From 0 to the last time, in four to ten round steps: 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** np.floor(np.log10(last / 4))
    step = max(factor * power for factor in (1.0, 2.0, 2.5, 5.0) if factor * power <= last / 4)
    return [float(number * step) for number in range(int(last / step + 1e-9) + 1)]


def group_summaries(curves: pd.DataFrame, horizon: float) -> list[dict[str, Any]]:
    """Patients, events, median survival and survival at the horizon of each group, with intervals; NaN where unknown.

    The median is the first time at which the curve is at or below 1/2, its limits those at which the band's limits are
    (Brookmeyer and Crowley 1982, Biometrics 38:29).
    """
    result = []
    for name, curve in curves.groupby("group", sort=False):
        last = curve[curve["time"] <= horizon].iloc[-1]
        known = curve["time"].max() >= horizon or last["survival"] == 0
        at_horizon = [float(last[key]) if known else float("nan") for key in ("survival", "ci_low", "ci_high")]
        median, low, high = (_half(curve, key) for key in ("survival", "ci_low", "ci_high"))
        result.append(
            {
                "group": str(name),
                "n": int(curve["at_risk"].iloc[0]),
                "n_events": int(curve["events"].sum()),
                "median": {"estimate": median, "ci_low": low, "ci_high": high},
                "survival_at_horizon": dict(zip(("estimate", "ci_low", "ci_high"), at_horizon, strict=True)),
            }
        )
    return result


def log_rank(time: Floats, event: Bools, groups: Names) -> dict[str, float] | None:
    """Whether the groups' hazards differ, all groups at once: statistic, degrees of freedom, p; None of one group.

        Z_g = Σ_k d_kg - d_k r_kg / r_k,   statistic = Zᵀ V⁻ Z ~ χ²(groups - 1)

    d_k events among r_k at risk (Mantel 1966; Peto and Peto 1972, JRSS A 135:185). By lifelines.
    """
    from lifelines.statistics import multivariate_logrank_test

    n_groups = len(set(groups))
    if n_groups < 2:
        return None
    found = multivariate_logrank_test(time, groups.astype(str), event)
    return {"statistic": float(found.test_statistic), "df": n_groups - 1, "p": float(found.p_value)}


def median_follow_up(time: Floats, event: Bools) -> float:
    """Half of the patients would be followed so long if nobody died: the median of the curve of censoring.

    Schemper and Smith 1996, Controlled Clinical Trials 17:343. NaN where more than half died before.
    """
    table = curve_table(time, ~event, np.full(len(time), "all", dtype=object), ["all"], 0.95)
    return _half(table, "survival")


def _half(curve: pd.DataFrame, key: str) -> float:
    below = curve.loc[curve[key] <= 0.5 + 1e-9, "time"]  # a half, where a product of shares has been rounded
    return float(below.iloc[0]) if len(below) else float("nan")
