"""How much of an embedding is where a cell comes from: its site, scanner, stain or data set, here called its source.

None of these figures knows a cause. Sources that hold other kinds of cells, or other patients, differ in their features
without any fault of a scanner; what the mix of cell classes explains is given beside. Letters: n cells, d features, S
sources, k neighbours.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]


def standardise(features: Floats, sources: Ints, fitted_on: npt.NDArray[np.bool_] | None = None) -> Floats:
    """Centre and scale each feature by the mean and the spread of its own source's cells, (n, d) -> (n, d).

    A feature that is constant in a source is only centred. This takes away every difference of mean and spread, also
    the real ones between other mixes of cells.

    Args:
        features: (n, d).
        sources: (n,).
        fitted_on: (n,) the cells that means and spreads are taken from; all by default.
    """
    result = np.empty(features.shape, dtype=np.float64)
    for source in np.unique(sources):
        own = sources == source
        fitted = features[own if fitted_on is None else own & fitted_on].astype(np.float64)
        spread = fitted.std(axis=0)
        result[own] = (features[own] - fitted.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    return result


def variance_explained(features: Floats, groups: Ints) -> float:
    """Share of the features' total variance that lies between groups, R² = 1 - W / T.

    T and W are the sums of squared distances to the mean of all cells and to the mean of the own group, over all
    features: the traces of the matrices of a one-way MANOVA, and the R² of Anderson's permutational analysis of
    variance (2001) under Euclidean distance. Features of large spread count most. Groups without any effect reach
    (S - 1) / (n - 1) on average. NaN where all cells are the same.
    """
    return 1.0 - _share_within(features, _indicators(groups))


def variance_beyond(features: Floats, groups: Ints, given: Ints) -> float:
    """Share of the total variance that groups explain in addition to other groups, R²(both) - R²(given).

    Both are fitted together without interaction, by least squares. 0 where the one follows from the other.
    """
    known = _indicators(given)
    both = np.concatenate([known, _indicators(groups)], axis=1)
    return max(0.0, _share_within(features, known) - _share_within(features, both))


def silhouette(features: Floats, groups: Ints) -> float:
    """Mean silhouette of each group (Rousseeuw 1987), averaged over the groups; -1 to 1.

    Of a cell (b - a) / max(a, b): a is its mean distance to the rest of its group, b that to the nearest other group. 1
    is a group far from the others, 0 one that overlaps them, below 0 one whose cells lie nearer to another.
    """
    from sklearn.metrics import silhouette_samples

    values = silhouette_samples(features, groups)
    return float(np.mean([values[groups == group].mean() for group in np.unique(groups)]))


def same_source_share(sources: Ints, neighbours: Ints) -> float:
    """Share of a cell's neighbours (n, k) that are of its own source; mean over each source's cells, then over S."""
    own = (sources[neighbours] == sources[:, None]).mean(axis=1)
    return float(np.mean([own[sources == source].mean() for source in np.unique(sources)]))


def chance_of_same_source(
    sources: Ints, neighbours: Ints, classes: Ints | None = None, groups: Ints | None = None
) -> float:
    """What ``same_source_share`` is on average when neighbours are drawn at random, or within the neighbour's class.

    A neighbour of class c is of source s with probability n(s, c) / n(c), the cells of the own group (a patient, a
    field; by default the cell itself) not counted, as they are never neighbours. With classes, it is what the mix of
    cells alone explains; 1 where no two sources share a class.
    """
    kinds = np.zeros(len(sources), dtype=np.int64) if classes is None else classes
    group = np.arange(len(sources)) if groups is None else np.unique(groups, return_inverse=True)[1]
    own = np.zeros((int(group.max()) + 1, int(sources.max()) + 1, int(kinds.max()) + 1), dtype=np.float32)
    np.add.at(own, (group, sources, kinds), 1)
    table, near, mine, source = own.sum(axis=0), kinds[neighbours], group[:, None], sources[:, None]
    others = table.sum(axis=0)[near] - own.sum(axis=1)[mine, near]
    chance = (table[source, near] - own[mine, source, near]) / np.maximum(others, 1).astype(np.float64)
    return float(np.mean([chance[sources == source].mean() for source in np.unique(sources)]))


def effective_sources(sources: Ints, neighbours: Ints) -> float:
    """Mean of 1 / sum_s p_s² over the cells, p_s the share of source s among the neighbours: from 1 to S.

    The inverse Simpson index of LISI (Korsunsky et al. 2019), each neighbour counted alike instead of by a kernel.
    """
    shares = np.stack([(sources[neighbours] == source).mean(axis=1) for source in np.unique(sources)])
    return float(np.mean(1.0 / (shares**2).sum(axis=0)))


def _indicators(groups: Ints) -> npt.NDArray[np.float64]:
    return np.asarray(groups[:, None] == np.unique(groups)[None, :], dtype=np.float64)


def _share_within(features: Floats, design: npt.NDArray[np.float64]) -> float:
    """Sum of squares that a least-squares fit on the design leaves, over the total."""
    centred = features.astype(np.float64) - features.mean(axis=0, dtype=np.float64)
    total = float((centred**2).sum())
    if total == 0.0:
        return float("nan")
    left, singular, _ = np.linalg.svd(design, full_matrices=False)
    basis = left[:, singular > 1e-9 * singular[0]]
    return 1.0 - float(((basis.T @ centred) ** 2).sum()) / total
