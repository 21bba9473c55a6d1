"""Shares of cells that come in groups, such as patients: the accuracy of a typing, and how many cells were typed."""

import numpy as np
import numpy.typing as npt

from milkit.composition.settings import DifferentialSettings
from milkit.statistics.bca import Estimate
from milkit.statistics.intervals import wilson_interval
from milkit.statistics.out_of_fold import Resamples

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def shares_over_groups(
    asked: dict[str, tuple[Bools, Bools]], among: Bools, groups: Ints | None, settings: DifferentialSettings
) -> dict[str, dict[str, float]]:
    """Shares of cells, each of those that are both over those of the second, with intervals over groups.

    Args:
        asked: By name, (n,) which cells count, and among which of them.
        among: (n,) which cells are looked at.
        groups: (n,) numbers of what is drawn as a whole; None where every cell stands for itself (Wilson's interval).
        settings: Resamples, level, seed.
    """
    result = {}
    for name, (counted, base) in asked.items():
        base = base & among
        if groups is None or not base.any():
            n = int(base.sum())
            share = float((counted & base).sum() / n) if n else float("nan")
            values = Estimate(share, *wilson_interval(share, n, settings.level))
        else:
            _, own = np.unique(groups[base], return_inverse=True)
            hits, totals = np.bincount(own, weights=counted[base]), np.bincount(own)
            values = _ratio(hits, totals, settings)
        result[name] = values._asdict()
    return result


def _ratio(hits: Floats | Ints, totals: Floats | Ints, settings: DifferentialSettings) -> Estimate:
    def ratio(weights: Floats) -> Floats:
        result: Floats = ((weights @ hits) / (weights @ totals))[:, None]
        return result

    strata = np.zeros(len(hits), dtype=np.int64)
    resamples = Resamples.of(strata, settings.bootstrap, settings.level, settings.seed)
    return resamples.estimates(ratio, n_smallest=len(hits))[0]
