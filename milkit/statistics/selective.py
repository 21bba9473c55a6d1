"""A classifier that may abstain: how sure it must be, and whether an item is like any that it learned from.

Letters: n labelled items, none of which its own prediction was fitted on; Q further ones.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class Threshold(NamedTuple):
    """From which probability on a prediction counts, and whether those that count are as accurate as was asked."""

    value: float
    attained: bool


def probability_threshold(probability: Floats, right: Bools, accuracy: float, keep: float = 0.5) -> Threshold:
    """The lowest threshold at which the items above it are accurate, (n,), (n,).

    Sought is the least t with mean(right | probability >= t) >= ``accuracy``; 0 where all items together are that
    accurate. Where no t that keeps the share ``keep`` of the items is, the highest one that keeps so many, not
    attained. Abstention in exchange for accuracy is Chow's (1970, IEEE Transactions on Information Theory 16:41); the
    threshold read off held-out items is that of El-Yaniv and Wiener (2010, JMLR 11:1605), without their bound: the
    accuracy at t is told for items that did not choose t.
    """
    order = np.argsort(-probability, kind="stable")
    ordered, n_above = probability[order], np.arange(1, len(order) + 1)
    last = np.append(ordered[1:] < ordered[:-1], True)  # equal probabilities are kept or left together
    enough = last & (n_above >= keep * len(order))
    good = np.flatnonzero(enough & (np.cumsum(right[order]) >= accuracy * n_above - 1e-9))
    if not len(good):
        return Threshold(float(ordered[np.flatnonzero(enough)[0]]), attained=False)
    return Threshold(0.0 if good[-1] == len(order) - 1 else float(ordered[good[-1]]), attained=True)


def conformal_p(distances: Floats, known: Floats) -> Floats:
    """How usual each distance is among ``known`` ones, (Q,), (n,) -> (Q,): small for items unlike the labelled.

        p = (1 + |{i: known_i >= distance}|) / (n + 1)

    An item that is exchangeable with the labelled ones has p <= α with a probability of at most α, whatever the
    distance is; so none has where n < 1/α - 1 (Vovk, Gammerman and Shafer 2005; Bates et al. 2023, Annals of Statistics
    51:149).
    """
    below = np.searchsorted(np.sort(known), distances, side="left")
    result: Floats = (1 + len(known) - below) / (len(known) + 1)
    return result
