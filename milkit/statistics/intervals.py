"""Intervals over patients: the stratified bootstrap, and Wilson's interval of a share."""

from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def bootstrap_weights(labels: npt.NDArray[np.int64], n_resamples: int, seed: int) -> Floats:
    """How often each patient is drawn in each resample, (n_resamples, n).

    Patients are drawn with replacement within each class, so that every resample has the cohort's class sizes
    (Davison and Hinkley 1997, section 3.2). Assumes independent patients whose class sizes were fixed by the study's
    design; where the mix of classes was itself left to chance, the interval is slightly too narrow.
    """
    generator = np.random.default_rng(seed)
    weights = np.zeros((n_resamples, len(labels)))
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        shares = np.full(len(members), 1.0 / len(members))
        weights[:, members] = generator.multinomial(len(members), shares, size=n_resamples)
    return weights


def percentile_interval(resamples: Floats, level: float) -> tuple[float, float]:
    """The central ``level`` of the resampled estimates; NaN where no resample is defined."""
    defined = resamples[~np.isnan(resamples)]
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilson_interval(share: float, n: float, level: float) -> tuple[float, float]:
    """Wilson's score interval of a share of ``n`` independent patients (Wilson 1927).

    (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n). Unlike the bootstrap it does not shrink to a point when all,
    or none, of a small class are right.
    """
    from scipy.stats import norm

    if n <= 0 or np.isnan(share):
        return float("nan"), float("nan")
    z = float(norm.ppf((1 + level) / 2))
    centre = share + z * z / (2 * n)
    half = z * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, float((centre - half) / scale)), min(1.0, float((centre + half) / scale))


def without_nan(value: Any) -> Any:
    """Figures in dicts and lists with None in the place of every NaN or infinite one: JSON has neither."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
