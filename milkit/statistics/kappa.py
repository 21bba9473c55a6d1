"""Cohen's kappa: how far two readings of the same cells agree beyond what their label frequencies alone would give.

    κ = (p_o - p_e) / (1 - p_e),    p_o = Σ_i w_i [a_i = b_i] / Σ_i w_i,    p_e = Σ_c p_c(a) p_c(b)

p_c(a) is the (weighted) share of cells that reading a gives label c (Cohen 1960, Educational and Psychological
Measurement 20:37). 1 is perfect agreement, 0 what two readers who guess by their own label frequencies reach. κ is low
where nearly all cells have one label, however well the readers agree (Feinstein and Cicchetti 1990, Journal of Clinical
Epidemiology 43:543), so that the share of equal labels stands beside it.

Assumptions: the two readings were made independently, and both could choose any of the labels, all of which are equally
far apart. Cells of one patient are alike, so whole patients are drawn for intervals (Davison and Hinkley 1997, section
3.8), independent of each other. Letters: n cells, P patients, C labels, B weightings.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from milkit.statistics.bca import Estimate, bca_estimate
from milkit.statistics.intervals import wilson_interval

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Agreement(NamedTuple):
    """Two readings of the same cells.

    Attributes:
        kappa: With its interval over patients.
        n_cells: Cells that both readings have.
        n_equal: Those with the same label in both.
        n_patients: Whose cells they are.
    """

    kappa: Estimate
    n_cells: int
    n_equal: int
    n_patients: int


def kappa(first: Ints, second: Ints, weights: Floats, n_labels: int) -> Floats:
    """Cohen's κ of two readings (n,) under each weighting of the cells, (B, n) -> (B,).

    NaN where p_e is 1, all cells having one and the same label in both readings: there is nothing to agree about.
    """
    names = np.eye(n_labels)
    total = weights.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        equal = weights @ (first == second) / total
        by_chance = ((weights @ names[first]) * (weights @ names[second])).sum(axis=1) / total**2
        result: Floats = np.where(by_chance < 1 - 1e-12, (equal - by_chance) / (1 - by_chance), np.nan)
    return result


def agreement(
    first: Ints, second: Ints, patients: Ints, *, n_resamples: int = 2000, level: float = 0.95, seed: int = 0
) -> Agreement:
    """κ of two readings of the same cells, with the BCa interval of a bootstrap that draws whole patients.

    Where every cell got the same label twice, the bootstrap knows nothing: the interval then reaches from the κ of
    Wilson's lower limit of p_o, over as many independent readings as there are patients, to 1. A single patient gives
    no interval.

    Args:
        first: (n,) labels as numbers from 0.
        second: (n,) the other reading's, numbered alike.
        patients: (n,) the patient of each cell, as numbers from 0 to P - 1.
        n_resamples: Of the patients.
        level: Of the interval.
        seed: Of the resamples.
    """
    n_labels = int(max(first.max(initial=0), second.max(initial=0))) + 1
    n_patients = len(np.unique(patients))

    def of_patients(weights: Floats) -> Floats:
        return kappa(first, second, weights[:, patients], n_labels)

    if n_patients < 2:
        nan = float("nan")
        found = Estimate(float(kappa(first, second, np.ones((1, len(first))), n_labels)[0]), nan, nan)
    else:
        strata = np.zeros(n_patients, dtype=np.int64)
        found = bca_estimate(of_patients, strata, n_resamples=n_resamples, level=level, seed=seed)
        if found.estimate == 1.0:
            shares = np.bincount(first, minlength=n_labels) / len(first)
            by_chance = float((shares**2).sum())
            lowest = wilson_interval(1.0, n_patients, level)[0]
            found = Estimate(1.0, (lowest - by_chance) / (1 - by_chance), 1.0)
    return Agreement(found, len(first), int((first == second).sum()), n_patients)
