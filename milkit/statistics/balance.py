"""How far groups of patients differ in a characteristic: standardised differences, which do not grow with n as p does.

Two groups differ in a number by

    d = |m1 - m2| / sqrt((s1² + s2²) / 2)

with means m and variances s² (divisor n - 1), and in a category with k levels by

    d = sqrt((p - q)ᵀ S⁻¹ (p - q)),   S = (S_p + S_q) / 2,   S_p = diag(p) - p pᵀ

with the shares p and q of all levels but one. For two levels that is |p - q| / sqrt((p (1 - p) + q (1 - q)) / 2).
Values that are missing take no part. Where both groups are constant, d is 0 if they are equal and infinite if not.

Austin 2009, Statistics in Medicine 28: 3083-3107; Yang & Dalton 2012, SAS Global Forum, paper 335. A difference above
0.1 is often called a sign of imbalance; in small groups chance alone makes larger ones.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
_NOTHING = 1e-12
"""A variance below which nothing varies: shares and their products are no smaller than 1 / n²."""


def difference_of_numbers(first: Floats, second: Floats) -> float:
    """The d of two groups' numbers, (n1,) and (n2,) without NaN; NaN where a group has fewer than two."""
    if min(len(first), len(second)) < 2:
        return float("nan")
    spread = (first.var(ddof=1) + second.var(ddof=1)) / 2
    gap = abs(float(first.mean() - second.mean()))
    scale = max(float(np.abs(first).max()), float(np.abs(second).max()), 1.0)
    if spread <= _NOTHING * scale**2:
        return 0.0 if gap <= 1e-9 * scale else float("inf")
    return float(gap / np.sqrt(spread))


def difference_of_levels(first: Sequence[str], second: Sequence[str]) -> float:
    """The d of two groups' categories, a level for each patient; NaN where a group is empty."""
    if not len(first) or not len(second):
        return float("nan")
    levels = sorted({*first, *second})[1:]
    p, q = (np.array([list(group).count(level) / len(group) for level in levels]) for group in (first, second))
    spread = sum(np.diag(shares) - np.outer(shares, shares) for shares in (p, q)) / 2
    values, axes = np.linalg.eigh(spread) if levels else (np.zeros(0), np.zeros((0, 0)))
    along = axes.T @ (p - q)
    fixed = values <= _NOTHING
    if np.any(np.abs(along[fixed]) > 1e-9):
        return float("inf")
    return float(np.sqrt((along[~fixed] ** 2 / values[~fixed]).sum()))


def largest_difference(values: "pd.Series[Any]", groups: "pd.Series[str]") -> float:
    """The largest d between any two groups; NaN where no two can be compared.

    Args:
        values: (n,) numbers, or else categories; missing ones are left out.
        groups: (n,) the group of each, by the same index.
    """
    known = values.dropna()
    numeric = pd.api.types.is_numeric_dtype(known) and not pd.api.types.is_bool_dtype(known)
    parts = [known[groups.loc[known.index] == name] for name in sorted(set(groups))]
    compare: Callable[[Any, Any], float] = difference_of_numbers if numeric else difference_of_levels
    arrays = [part.to_numpy(dtype=np.float64) if numeric else list(map(str, part)) for part in parts]
    found = [compare(one, other) for one, other in combinations(arrays, 2)]
    return max((d for d in found if not np.isnan(d)), default=float("nan"))
