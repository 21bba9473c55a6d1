"""How well a ranking of cells finds the cells that are known to matter (planted, or labelled by experts)."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.statistics.discrimination import average_precision
from milkit.statistics.intervals import percentile_interval


class Recovery(NamedTuple):
    """Means over patients: of average precision, of the relevant cells' share, and of random rankings' precision."""

    n_patients: int
    mean_average_precision: float
    ci_low: float
    ci_high: float
    prevalence: float
    random_average_precision: float


def planted_cell_recovery(
    cells: pd.DataFrame, *, min_cells: int = 5, max_prevalence: float = 0.3, n_random: int = 200, seed: int = 0
) -> Recovery:
    """Mean average precision over the patients in whom the relevant cells are few enough to be worth finding.

    Args:
        cells: patient_id, weight, planted (0 or 1); one row a cell.
        min_cells: Patients with fewer relevant cells are left out: their average precision is mostly noise.
        max_prevalence: Patients with a larger share are left out: there, any ranking does well.
        n_random: Random rankings per patient for the chance level, which exceeds the prevalence in small bags.
        seed: Of the random rankings and of the bootstrap over patients.
    """
    generator = np.random.default_rng(seed)
    found, shares, chance = [], [], []
    for _, bag in cells.groupby("patient_id", sort=True):
        planted = bag["planted"].to_numpy(dtype=bool)
        if planted.sum() < min_cells or planted.mean() > max_prevalence:
            continue
        found.append(_precision(planted, bag["weight"].to_numpy(dtype=np.float64)))
        shares.append(float(planted.mean()))
        chance.append(np.mean([_precision(planted, generator.random(len(bag))) for _ in range(n_random)]))
    if not found:
        return Recovery(0, *[float("nan")] * 5)
    resampled = generator.choice(found, size=(2000, len(found))).mean(axis=1)
    low, high = percentile_interval(resampled, 0.95)
    return Recovery(len(found), float(np.mean(found)), low, high, float(np.mean(shares)), float(np.mean(chance)))


def _precision(relevant: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]) -> float:
    return float(average_precision(relevant, scores, np.ones((1, len(scores))))[0])
