"""Is one model better than another on the same patients: permutation, corrected t-test, and many comparisons.

The two tests ask different things. The permutation test takes the models as they are: would these predictions differ
for other patients? The corrected t-test asks it of the procedure: would models trained on other patients differ?
A t-test over fold values as they are answers neither: the folds share most of their training patients, and with
5 folds it calls two equal procedures different far more often than it says (tests/test_statistics_paired_tests.py).
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_WEIGHTS_AT_ONCE = 2**22


class PermutationTest(NamedTuple):
    """What a paired permutation test says.

    Attributes:
        difference: The metric of the first model less that of the second.
        p_value: Two-sided.
        n_permutations: How many were looked at.
        exact: Whether they were all that there are.
    """

    difference: float
    p_value: float
    n_permutations: int
    exact: bool


class CorrectedTest(NamedTuple):
    """What the corrected resampled t-test says.

    Attributes:
        difference: Mean over repeats and folds.
        ci_low: Lower limit.
        ci_high: Upper limit.
        p_value: Two-sided, of no difference; NaN where the folds differ by a constant.
    """

    difference: float
    ci_low: float
    ci_high: float
    p_value: float


def permutation_test(
    metric: Callable[[Floats], Floats], n_patients: int, *, n_permutations: int = 10_000, seed: int = 0
) -> PermutationTest:
    """Paired permutation test of any metric: in each permutation some patients' predictions change models.

    Both models' rows are stacked, the first's n above the second's, and ``metric`` computes the metric of weightings of
    them, (B, 2n) -> (B,), as those of ``discrimination`` do with labels given twice. A model of a permutation is a row
    of ones and zeros with one row of each patient. Repeats are averaged inside the metric, so that all predictions of a
    patient change together.

    Where all 2ⁿ permutations are no more than ``n_permutations``, p is the share of them with a difference at least as
    large, exactly. Else random ones are drawn and p = (1 + count) / (1 + drawn), the observed one being among those
    that could have been drawn: without the 1, p could be 0 and its test would be too liberal (Phipson and Smyth 2010,
    Statistical Applications in Genetics and Molecular Biology 9:39).

    Null hypothesis: a patient's two predictions could be exchanged, which is more than equal metrics. For metrics of
    ranks, give each model's scores as ranks, or a difference of scale alone will count (Venkatraman and Begg 1996,
    Biometrika 83:835). NaN where the metric is undefined.
    """
    exact = n_patients < 63 and 2**n_patients <= n_permutations
    gaps = np.concatenate(
        [_differences(metric, swapped) for swapped in _swaps(n_patients, n_permutations, seed, exact=exact)]
    )
    observed = float(_differences(metric, np.zeros((1, n_patients)))[0])
    if np.isnan(observed):
        return PermutationTest(observed, float("nan"), len(gaps), exact)
    as_large = int((np.abs(gaps) >= abs(observed) - 1e-12).sum())  # rounding must not lose the observed one
    p_value = as_large / len(gaps) if exact else (1 + as_large) / (1 + len(gaps))
    return PermutationTest(observed, p_value, len(gaps), exact)


def corrected_t_test(differences: Floats, n_test: float, n_train: float, level: float = 0.95) -> CorrectedTest:
    """Nadeau and Bengio's corrected resampled t-test of fold values, (repeats, folds).

        t = mean / sqrt((1/J + n_test/n_train) s²),    J = repeats x folds, J - 1 degrees of freedom

    s² is the variance over all J differences. Without n_test/n_train it is the naive test, whose error shrinks with
    every further repeat although there are no further patients (Nadeau and Bengio 2003, Machine Learning 52:239;
    Bouckaert and Frank 2004, PAKDD, for repeated cross-validation). Assumes that differences of two folds correlate by
    n_test / (n_test + n_train), a heuristic that is mostly cautious; no unbiased estimate exists for one
    cross-validation (Bengio and Grandvalet 2004, JMLR 5:1089).

    Args:
        differences: The metric of the first model less that of the second, in each tested fold.
        n_test: Patients in a tested fold, on average.
        n_train: Patients that a model was fitted on, on average: not those held out for its validation.
        level: Of the interval.

    NaN where a fold's difference is undefined, and p where all are the same but not 0; p = 1 where all are 0.
    """
    from scipy.stats import t as student

    values = np.asarray(differences, dtype=np.float64).ravel()
    mean = float(values.mean())
    spread = float(values.var(ddof=1)) if len(values) > 1 else float("nan")
    if np.isnan(spread):
        return CorrectedTest(mean, *[float("nan")] * 3)
    if spread < 1e-24:
        alike = abs(mean) < 1e-12
        return CorrectedTest(mean, mean, mean, 1.0) if alike else CorrectedTest(mean, *[float("nan")] * 3)
    error = float(np.sqrt((1 / len(values) + n_test / n_train) * spread))
    freedom = len(values) - 1
    half = float(student.ppf((1 + level) / 2, freedom)) * error
    return CorrectedTest(mean, mean - half, mean + half, float(2 * student.sf(abs(mean) / error, freedom)))


def holm(p_values: Floats) -> Floats:
    """P values adjusted for all comparisons made, (m,): Holm's step-down method (1979, Scand. J. Statistics 6:65).

    The i-th smallest becomes the largest of (m - j + 1) p_(j) over j <= i, at most 1. Whoever calls those below α
    different errs in any of them with probability at most α, whatever their dependence; without it, ten comparisons of
    equal models find a difference in two of five cohorts. A test that says nothing (NaN) counts in m, stays NaN.
    """
    order = np.argsort(p_values, kind="stable")  # NaN last
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(factors * np.asarray(p_values, dtype=np.float64)[order]))
    return adjusted


def _differences(metric: Callable[[Floats], Floats], swapped: Floats) -> Floats:
    """The metric's difference where some patients' (B, n) predictions change models, (B,)."""
    kept = 1 - swapped
    return metric(np.concatenate([kept, swapped], axis=1)) - metric(np.concatenate([swapped, kept], axis=1))


def _swaps(n: int, n_permutations: int, seed: int, *, exact: bool) -> Iterator[Floats]:
    """Which patients change models, (some, n) of 0 and 1: each of the 2ⁿ ways once, or random ones."""
    generator = np.random.default_rng(seed)
    total, step = 2**n if exact else n_permutations, max(1, _WEIGHTS_AT_ONCE // (2 * n))
    for first in range(0, total, step):
        rows = np.arange(first, min(first + step, total))
        if exact:
            yield ((rows[:, None] >> np.arange(n)) & 1).astype(np.float64)
        else:
            yield generator.integers(0, 2, size=(len(rows), n)).astype(np.float64)
