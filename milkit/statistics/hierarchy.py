"""How wrong predictions are in a tree of cell types, and whether features lie as the tree does.

Truth and prediction are any nodes, as positions in ``taxonomy.nodes``. A label says nothing about what is below it, so
a prediction below its label is taken as the label, neither rewarded nor punished; where all labels are leaves, these
are the metrics as published. Cells whose label is the root, which says nothing, count nowhere. A label of several nodes
has no position: leave its cells out, since their common ancestor would take too much for right.

As in ``discrimination``, every figure takes many weightings of the cells at once: a row of ones for the estimate, how
often each cell was drawn for a resample. Assumption of all: rows are independent. Where cells come from patients, draw
patients, or all intervals are too narrow. All depend on the form of the tree, where a node inserted between two others
changes every figure: compare figures only within one taxonomy. Letters: n cells, V nodes, B weightings, d features.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from milkit.statistics import discrimination
from milkit.taxonomy import Taxonomy

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tree:
    """A taxonomy as arrays.

    Attributes:
        taxonomy: Its nodes have the positions that all arrays mean.
        depths: (V,) edges up to the root.
        heights: (V,) edges of the longest way down to a leaf; 0 for a leaf.
        lifted: (V, 1 + largest depth) the ancestor of a node at each depth, itself at its own; -1 below.
        common: (V, V) the lowest common ancestor of two nodes.
    """

    taxonomy: Taxonomy
    depths: Ints
    heights: Ints
    lifted: Ints
    common: Ints

    @classmethod
    def of(cls, taxonomy: Taxonomy) -> Self:
        """The arrays of a taxonomy."""
        position = {node: number for number, node in enumerate(taxonomy.nodes)}
        depths = np.array([taxonomy.depth(node) for node in taxonomy.nodes], dtype=np.int64)
        lifted = np.full((len(depths), int(depths.max()) + 1), -1, dtype=np.int64)
        heights = np.zeros_like(depths)
        for node, number in position.items():
            path = [position[name] for name in (*taxonomy.ancestors(node), node)]
            lifted[number, : len(path)] = path
            heights[path] = np.maximum(heights[path], depths[number] - depths[path])
        shared = ((lifted[:, None] == lifted[None]) & (lifted >= 0)).sum(axis=2)  # (V, V) nodes from the root on
        return cls(taxonomy, depths, heights, lifted, lifted[np.arange(len(depths))[:, None], shared - 1])

    def positions(self, names: Sequence[str]) -> Ints:
        """Positions of named nodes, (n,); an ``UnknownName`` tells the nearest node."""
        for name in dict.fromkeys(names):
            self.taxonomy.depth(name)  # raises
        position = {node: number for number, node in enumerate(self.taxonomy.nodes)}
        return np.array([position[name] for name in names], dtype=np.int64)

    def distances(self) -> Ints:
        """(V, V) edges on the way between two nodes."""
        return np.asarray(self.depths[:, None] + self.depths - 2 * self.depths[self.common])

    def agreed(self, truth: Ints, predicted: Ints) -> Ints:
        """The predictions, those below their label being taken as the label, (n,)."""
        return np.where(self.common[truth, predicted] == truth, truth, predicted)


class PathScores(NamedTuple):
    """Hierarchical precision, recall and F1, each (B,)."""

    precision: Floats
    recall: Floats
    f1: Floats


def path_scores(tree: Tree, truth: Ints, predicted: Ints, weights: Floats) -> PathScores:
    """Precision and recall of the nodes on the way from the root: (n,), (n,), (B, n) -> three of (B,).

    With A a cell's label and its ancestors without the root, and Â those of its prediction, summed over cells (micro):

        hP = Σ |A ∩ Â| / Σ |Â|,    hR = Σ |A ∩ Â| / Σ |A|,    hF1 = 2 hP hR / (hP + hR)

    Kiritchenko et al. 2006 (Canadian AI); Silla and Freitas 2011 (Data Mining and Knowledge Discovery 22:31). Sums over
    cells give frequent classes, and deep ones, more say: where classes are unequal, read it beside the balanced
    accuracies. Precision is NaN where only the root is predicted, recall where no label says anything.
    """
    guess = tree.agreed(truth, predicted)
    both, said, true = (weights @ tree.depths[nodes] for nodes in (tree.common[truth, guess], guess, truth))
    with np.errstate(invalid="ignore"):
        return PathScores(both / said, both / true, 2 * both / (said + true))


class MistakeHeights(NamedTuple):
    """Heights of mistakes and how many there are, each (B,)."""

    of_mistakes: Floats
    """Mean over the mistakes: how bad they are; NaN where there is none."""
    of_all: Floats
    """Mean over all labelled cells, 0 for those that are right: how often and how bad, in one figure."""
    n_mistakes: Floats


def mistake_heights(tree: Tree, truth: Ints, predicted: Ints, weights: Floats) -> MistakeHeights:
    """Mean height of the lowest common ancestor of label and prediction: (n,), (n,), (B, n) -> three of (B,).

    A node's height is the number of edges of the longest way down to a leaf (Deng et al., ECCV 2010; Bertinetto et al.,
    CVPR 2020, arXiv:1912.09393, who call it the hierarchical distance of a mistake). A mistake is a prediction that is
    neither the label nor below it, so one that stops above its label is a mistake of that node's height. The mean over
    mistakes falls when a classifier errs more often in harmless ways: compare it only beside the mean over all.
    """
    guess = tree.agreed(truth, predicted)
    wrong = guess != truth
    heights = tree.heights[tree.common[truth, guess]] * wrong
    n_mistakes, total, n_cells = weights @ wrong, weights @ heights, weights @ (tree.depths[truth] > 0)
    with np.errstate(invalid="ignore"):
        return MistakeHeights(total / n_mistakes, total / n_cells, n_mistakes)


class LevelAccuracy(NamedTuple):
    """Balanced accuracy at one depth of the tree."""

    depth: int
    balanced_accuracy: Floats
    """(B,); chance is 1 / ``n_classes``."""
    n_classes: int
    """Nodes of this depth that are, or hold, the label of a cell."""
    n_cells: int
    n_left_out: int
    """Cells whose label is less deep, which says nothing here."""


def level_accuracies(tree: Tree, truth: Ints, predicted: Ints, weights: Floats) -> list[LevelAccuracy]:
    """Balanced accuracy at every depth from 1 on that some label reaches: (n,), (n,), (B, n).

    Label and prediction are lifted to their ancestors of that depth, and the recalls of the label's are averaged. A
    prediction that is less deep is wrong there. Assumes that nodes of one depth are comparable; in a ragged tree they
    are not quite (a platelet, a leaf of depth 3, beside all lymphocytes), and the cells change from depth to depth, by
    ``n_left_out``: levels of one classifier are no curve, but two classifiers can be compared at each.
    """
    result = []
    for depth in range(1, int(tree.depths[truth].max(initial=0)) + 1):
        own = tree.lifted[truth, depth]
        kept = own >= 0
        accuracy = discrimination.balanced_accuracy(
            own[kept], tree.lifted[predicted[kept], depth], weights[:, kept], len(tree.depths)
        )
        n_cells = int(kept.sum())
        result.append(LevelAccuracy(depth, accuracy, len(np.unique(own[kept])), n_cells, len(truth) - n_cells))
    return result


def feature_correlation(tree: Tree, features: Floats, truth: Ints, weights: Floats) -> Floats:
    """Spearman's ρ of tree distance and Euclidean distance of mean features: (n, d), (n,), (B, n) -> (B,).

    Over all pairs of the classes that occur, a class being a node that is a label: edges between the two in the tree,
    and the distance between the means of their cells' features, ties at their mean rank. The cophenetic correlation of
    Sokal and Rohlf 1962 (Taxon 11:33), in ranks. Assumes features of like scale (standardise them first, or the largest
    decide), and classes large enough for their means: noise lengthens all distances of a rare class, by its variance
    over its cells. Pairs share classes, so ρ has no p-value of its own (Mantel 1967). NaN below three classes, or where
    all distances are equal.
    """
    says = tree.depths[truth] > 0
    classes, members = np.unique(truth[says], return_inverse=True)
    shares = np.eye(len(classes))[members]  # (cells, classes)
    own, result = np.asarray(features[says], dtype=np.float64), []
    for weight in weights[:, says]:
        totals = weight @ shares
        there = totals > 0
        means = ((shares[:, there] * weight[:, None]).T @ own) / totals[there, None]
        result.append(_spearman(tree.distances()[np.ix_(classes[there], classes[there])], means))
    return np.array(result, dtype=np.float64)


def _spearman(edges: Ints, means: Floats) -> float:
    from scipy.spatial.distance import pdist
    from scipy.stats import rankdata

    pairs = np.triu_indices(len(means), k=1)  # in the order of pdist
    ranks = rankdata(edges[pairs]), rankdata(pdist(means))
    if len(means) < 3 or any(np.ptp(rank) == 0 for rank in ranks):
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])
