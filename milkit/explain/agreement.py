"""How far models agree on the cells of a patient: do other folds, or another seed, hold up the same ones?

Models are compared in pairs, on patients that neither was fitted on. Two of another seed saw the same patients and
differ by initialisation and order alone; two of another repeat were fitted on other patients too. Letters: M models, n
cells, k cells that count as the top.

* Rank correlation: Spearman's, of all cells; ties share their mean rank. NaN where a ranking holds all cells alike.
* Jaccard@k = |A ∩ B| / |A ∪ B| of the two tops (``ranking.in_top``; a top with ties is smaller than k).
* Its chance level is what two rankings in random order would reach, for tops of sizes a and b:

      E[X / (a + b - X)],    X hypergeometric: b drawn from n, of which a count

  which is far from 0 in a small bag: 0.14 for 20 of 80 cells, 1 where k is all of them.
"""

from functools import lru_cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from milkit.explain.ranking import in_top

Floats = npt.NDArray[np.float64]


class Model(NamedTuple):
    """Which of a run's models: each patient is tested once a repeat, by ``fold``'s."""

    repeat: int
    fold: int
    seed: int


class Agreement(NamedTuple):
    """Means over pairs of models, for one patient: NaN where no pair tells.

    ``rank_correlation``, ``jaccard`` and ``jaccard_chance`` are as above; ``pairs`` counts the pairs.
    """

    rank_correlation: float
    jaccard: float
    jaccard_chance: float
    pairs: int


def agreement(scores: Floats, models: list[Model], k: int) -> dict[str, Agreement]:
    """Of one patient, class and method: scores of the cells by each model, (M, n).

    Returns:
        ``seeds``, over the pairs of one split and different seeds, and ``repeats``, over those of different splits;
        only what there are pairs of.
    """
    kinds: dict[str, list[tuple[int, int]]] = {"seeds": [], "repeats": []}
    for one, other in combinations(range(len(models)), 2):
        same = models[one][:2] == models[other][:2]
        kinds["seeds" if same else "repeats"].append((one, other))
    if len(models) == 1:
        return {}
    correlations, tops = rank_correlations(scores), in_top(scores, k)
    return {kind: _mean(pairs, correlations, tops) for kind, pairs in kinds.items() if pairs}


def rank_correlations(scores: Floats) -> Floats:
    """Spearman's correlation of every pair of rankings, (M, n) -> (M, M); NaN where one holds all cells alike."""
    from scipy.stats import rankdata

    places = rankdata(scores, axis=1)
    centred = places - places.mean(axis=1, keepdims=True)
    length = np.sqrt((centred**2).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = centred @ centred.T / np.outer(length, length)
    return result


@lru_cache(maxsize=4096)
def jaccard_chance(n: int, a: int, b: int) -> float:
    """Expected Jaccard index of two random sets of ``a`` and ``b`` among ``n`` cells; NaN where both are empty."""
    from scipy.stats import hypergeom

    if a + b == 0:
        return float("nan")
    shared = np.arange(max(0, a + b - n), min(a, b) + 1)
    return float((hypergeom.pmf(shared, n, a, b) * shared / (a + b - shared)).sum())


def _mean(pairs: list[tuple[int, int]], correlations: Floats, tops: npt.NDArray[np.bool_]) -> Agreement:
    ones, others = (tops[list(side)] for side in zip(*pairs, strict=True))
    union = (ones | others).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        jaccard = (ones & others).sum(axis=1) / union
    sizes = zip(ones.sum(axis=1).tolist(), others.sum(axis=1).tolist(), strict=True)
    chance = [jaccard_chance(tops.shape[1], *pair) for pair in sizes]
    spearman = np.array([correlations[pair] for pair in pairs])
    return Agreement(_defined_mean(spearman), _defined_mean(jaccard), _defined_mean(np.array(chance)), pairs=len(pairs))


def _defined_mean(values: Floats) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
