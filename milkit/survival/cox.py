"""Hazard ratios of what a run predicted, beside covariates: Cox's model, and whether hazards are proportional.

Everything is fitted on the tested patients with their out-of-fold predictions, as one would fit a new marker: what the
hazard ratios say is association, not the error of a prediction. Letters: n patients, k terms.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.figure_text import with_interval
from milkit.survival.outcome import Outcome
from milkit.survival.terms import Terms

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

EVENTS_PER_TERM = 10
"""Below, coefficients are biased and intervals too narrow (Peduzzi et al. 1995, J. Clin. Epidemiol. 48:1503)."""

MOST = 10.0
"""Coefficients, and standard errors of them, beyond this are a maximum that is not there."""

SUSPECT = 0.05
"""p of the test of proportional hazards, below which a term's hazard ratio is given early and late."""


class Coefficient(NamedTuple):
    """A log hazard ratio, Wald's interval and p, and p of the test of proportional hazards."""

    estimate: float
    low: float
    high: float
    p: float
    p_proportional: float

    def hazard_ratio(self) -> dict[str, float]:
        """With its interval, as values of JSON."""
        low, high = np.exp([self.low, self.high]).tolist()
        return {"estimate": float(np.exp(self.estimate)), "ci_low": low, "ci_high": high}


class Fitted(NamedTuple):
    """A Cox model: its coefficients by term, and twice the gain in log likelihood over no term."""

    terms: dict[str, Coefficient]
    ratio: float


def cox_model(outcome: Outcome, terms: Terms, level: float) -> tuple[dict[str, Any] | None, list[str]]:
    """Hazard ratios with Wald's intervals, the gain of the model over the covariates, and warnings in sentences.

    Proportional hazards are tested term by term, by the slope of scaled Schoenfeld residuals over time as Kaplan-Meier
    has it (Grambsch and Therneau 1994, Biometrika 81:515). Where p < 0.05, the hazard ratio is also given for the time
    up to the median event, where all later ones count as censored, and after it, among those still followed.

    Returns:
        ``n``, ``n_events``, ``split``, ``terms`` (a list: name, unit, coefficient, hazard_ratio with interval, p,
        p_proportional, early, late), ``gain`` (likelihood ratio of the model's terms over the covariates, df, p); or
        None where nothing can be fitted.
    """
    own = outcome.patients.loc[terms.values.index]
    time, event = own["time"].to_numpy(dtype=np.float64), own["event"].to_numpy(dtype=np.bool_)
    k, n_events = terms.values.shape[1], int(event.sum())
    if k == 0 or n_events < 2:
        return None, [f"Cox's model was not fitted: {n_events} events and {k} terms, where it needs two and one."]
    told = []
    if n_events < EVENTS_PER_TERM * k:
        told.append(
            f"Cox's model has {n_events} events for {k} {'terms' if k > 1 else 'term'}, fewer than {EVENTS_PER_TERM} a "
            "term: its hazard ratios are unstable; name fewer covariates."
        )
    full = fit(time, event, terms.values, level)
    if full is None:
        return None, [*told, "Cox's model does not converge: its terms separate who had an event, or say the same."]
    split = float(np.median(time[event]))
    rows = [_row(name, terms.units[name], own) for name, own in full.terms.items()]
    suspects = [row for row in rows if row["p_proportional"] < SUSPECT]
    if suspects:
        early = fit(np.minimum(time, split), event & (time <= split), terms.values, level)
        late = fit(time[time > split], event[time > split], terms.values[time > split], level)
        for row in suspects:
            row["early"], row["late"] = (
                None if part is None else part.terms[row["term"]].hazard_ratio() for part in (early, late)
            )
            told.append(
                f"The hazard ratio of {row['term']} changes over time (scaled Schoenfeld residuals, p = "
                f"{row['p_proportional']:.2g}): the one number is a mean over time, {_periods(row, split)}."
            )
    return {
        "n": len(own),
        "n_events": n_events,
        "split": split,
        "terms": rows,
        "gain": _gain(time, event, terms, full),
    }, told


def fit(time: Floats, event: Bools, values: pd.DataFrame, level: float) -> Fitted | None:
    """Cox's partial likelihood with Efron's ties, by lifelines; None where it has no finite maximum.

    A column that does not vary, a coefficient or a standard error beyond ``MOST`` mean that there is none.
    """
    from lifelines import CoxPHFitter
    from lifelines.exceptions import ConvergenceError
    from lifelines.statistics import proportional_hazard_test

    if not event.any() or not len(values) or (values.nunique() < 2).any():
        return None
    names = [f"x{number}" for number in range(values.shape[1])]  # names of the data's may hold anything
    table = pd.DataFrame(values.to_numpy(dtype=np.float64), columns=names).assign(time=time, event=event)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what they warn of is checked below
        try:
            fitter = CoxPHFitter(alpha=1 - level).fit(table, "time", "event")
        except (ConvergenceError, np.linalg.LinAlgError):
            return None
        found = fitter.summary[["coef", *_limits(fitter.summary), "p"]].to_numpy(dtype=np.float64)
        errors = fitter.standard_errors_.to_numpy(dtype=np.float64)
        if not (np.abs(found[:, 0]) <= MOST).all() or not (errors <= MOST).all():
            return None
        tested = proportional_hazard_test(fitter, table, time_transform="km").summary.loc[names, "p"]
    rows = np.column_stack([found, tested.to_numpy(dtype=np.float64)]).tolist()
    terms = {str(name): Coefficient(*row) for name, row in zip(values, rows, strict=True)}
    return Fitted(terms, float(fitter.log_likelihood_ratio_test().test_statistic))


def _limits(summary: pd.DataFrame) -> list[str]:
    """The columns of the interval, whose names hold the level."""
    return [str(name) for end in ("lower", "upper") for name in summary if str(name).startswith(f"coef {end}")]


def _gain(time: Floats, event: Bools, terms: Terms, full: Fitted) -> dict[str, float] | None:
    """Likelihood-ratio test of the model's terms beside the covariates, or alone where there are none."""
    from scipy.stats import chi2

    covariates = terms.values.drop(columns=list(terms.of_model))
    if not terms.of_model:
        return None
    without = fit(time, event, covariates, 0.95) if covariates.shape[1] else None
    if covariates.shape[1] and without is None:
        return None
    statistic = max(0.0, full.ratio - (0.0 if without is None else without.ratio))
    return {"statistic": statistic, "df": len(terms.of_model), "p": float(chi2.sf(statistic, len(terms.of_model)))}


def _row(name: str, unit: str, found: Coefficient) -> dict[str, Any]:
    return {
        "term": name,
        "unit": unit,
        "coefficient": found.estimate,
        "hazard_ratio": found.hazard_ratio(),
        "p": found.p,
        "p_proportional": found.p_proportional,
        "early": None,
        "late": None,
    }


def _periods(row: dict[str, Any], split: float) -> str:
    texts = [with_interval(row[key] or {}, nothing="not estimable") for key in ("early", "late")]
    return f"{texts[0]} up to time {split:g} and {texts[1]} after it"
