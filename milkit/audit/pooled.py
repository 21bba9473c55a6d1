"""What is left of a bag without looking at single cells: the mean of their features, and how many there are."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.bags import BagStore


class Pooled(NamedTuple):
    """One row a patient, in the store's order.

    Attributes:
        patients: The store's table of patients.
        means: (n, dim) of the features of the readable cells, float64; NaN for a patient without any.
        sizes: (n,) number of readable cells.
    """

    patients: pd.DataFrame
    means: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.int64]


def pool(store: BagStore) -> Pooled:
    """Read a store bag by bag; cells that could not be read, whose features are NaN, are left out."""
    means = np.full((len(store), store.dim), np.nan)
    sizes = np.zeros(len(store), dtype=np.int64)
    for row, bag in enumerate(store):
        readable = bag.features[np.isfinite(bag.features).all(axis=1)]
        sizes[row] = len(readable)
        if len(readable):
            means[row] = readable.mean(axis=0, dtype=np.float64)
    return Pooled(store.patients, means, sizes)
