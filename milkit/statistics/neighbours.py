"""Exact nearest neighbours in Euclidean distance, and the class that most of them have.

One search serves every number of neighbours: the first of twenty are the one. That halves the time of a classifier for
each number, with the same predictions (tests/test_statistics_neighbours.py). Letters: n training rows, Q queries, d
features, k neighbours.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]


def nearest(train: Floats, queries: Floats, k: int) -> Ints:
    """The ``k <= n`` training rows nearest to each query, nearest first: (n, d), (Q, d) -> (Q, k).

    By brute force in blocks, so that memory does not grow with Q x n. Of equally distant rows the first comes first;
    where only some of them are among the k, it is scikit-learn that chooses.
    """
    from sklearn.neighbors import NearestNeighbors

    distances, found = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(train).kneighbors(queries)
    order = np.lexsort((found, distances), axis=1)
    return np.asarray(np.take_along_axis(found, order, axis=1), dtype=np.int64)


def nearest_of_others(features: Floats, groups: Ints, k: int) -> Ints:
    """The ``k`` rows nearest to each row that are not of its own group: (n, d), (n,) -> (n, k).

    Cells of one patient, or of one image, are alike for reasons of their own, and would fill each other's
    neighbourhoods. At most n less the size of the largest group.
    """
    largest = int(np.unique(groups, return_counts=True)[1].max())
    found = nearest(features, features, k + largest)
    own = groups[found] == groups[:, None]
    first = np.argsort(own, axis=1, kind="stable")[:, :k]  # others before own, each in order of distance
    return np.asarray(np.take_along_axis(found, first, axis=1))


def vote(labels: Ints, n_classes: int) -> Ints:
    """The most frequent class of each row of neighbours, (Q, k) -> (Q,); of equally frequent ones the first."""
    cells = np.arange(len(labels))[:, None] * n_classes + labels
    counts = np.bincount(cells.ravel(), minlength=len(labels) * n_classes)
    return np.asarray(counts.reshape(len(labels), n_classes).argmax(axis=1), dtype=np.int64)
