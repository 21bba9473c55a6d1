"""How closely two columns of categories are tied: Cramér's V with its interval."""

from typing import Any

import numpy as np
import pandas as pd

from milkit.statistics.bca import Estimate


def cramers_v(first: "pd.Series[Any]", second: "pd.Series[Any]", level: float = 0.95) -> Estimate:
    """Cramér's V of two columns over the same patients, 0 (independent) to 1; NaN where a column has a single value.

        V = sqrt(χ² / (n m)),   m = min(rows, columns) - 1

    Where V is the truth, χ² follows the noncentral χ² distribution of noncentrality n m V² (Steiger and Fouladi 1997,
    "Noncentrality interval estimation"; Smithson 2003, Confidence Intervals, chapter 4). The interval holds the V under
    which χ² is neither too high nor too low, and is stretched to hold the estimate, which chance alone moves upwards in
    small cohorts. Assumption: independent patients, and about five or more expected in a cell of the table.

    Args:
        first: By patient.
        second: By patient; who is in both counts.
        level: Of the interval.
    """
    nothing = Estimate(*[float("nan")] * 3)
    table = pd.crosstab(first, second).to_numpy(dtype=np.float64)
    if table.size == 0 or min(table.shape) < 2:
        return nothing
    n, m = table.sum(), min(table.shape) - 1
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / n
    chi_square = float(((table - expected) ** 2 / expected).sum())
    freedom = (table.shape[0] - 1) * (table.shape[1] - 1)
    low, high = (_noncentrality(chi_square, freedom, share) for share in ((1 + level) / 2, (1 - level) / 2))
    v, ends = np.sqrt(chi_square / (n * m)), np.sqrt(np.array([low, high]) / (n * m))
    return Estimate(float(v), float(min(ends[0], v)), float(np.clip(ends[1], v, 1.0)))


def _noncentrality(statistic: float, freedom: int, share: float) -> float:
    """Under which the share of statistics below this one is ``share``; 0 where it is smaller even without any."""
    from scipy.optimize import brentq
    from scipy.stats import chi2, ncx2

    if chi2.cdf(statistic, freedom) <= share:
        return 0.0
    top = statistic + 10 * np.sqrt(statistic + freedom) + 10 * freedom + 50

    def gap(noncentrality: float) -> float:
        return float(ncx2.cdf(statistic, freedom, noncentrality)) - share

    return float(brentq(gap, 1e-9, top, xtol=1e-9))
