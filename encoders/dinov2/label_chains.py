"""Labels of cells in a taxonomy: those of several cohorts as one list, and each as a chain of nested sets of leaves.

A label is any node, or a set of nodes. Its chain is 𝓛 = S_0 ⊇ S_1 ⊇ … ⊇ S_d, the leaves below each node on the way from
the root to it. A set of nodes has the chain of their lowest common ancestor, and the set itself as one step more. The
loss of ``encoders.dinov2.hierarchy`` is a sum over the steps. Letters: V nodes, d steps.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from milkit.errors import SettingsError
from milkit.taxonomy import LabelMap, Taxonomy

Nodes = tuple[str, ...]
"""A label: the nodes of which a cell is one; none where it says nothing."""
Scale = Literal["none", "path", "tree"]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

UNLABELLED = -1
"""The index of a cell without a label, or with one that says nothing."""


@dataclass(frozen=True)
class LabelTable:
    """The labels of several cohorts as one list, which a taxonomy puts in order.

    Attributes:
        labels: Every label that says something, once: in the order of the taxonomy, whatever that of the cohorts.
        indices: Of each cohort the position in ``labels`` of its raw labels, or ``UNLABELLED``.
        maps: What the raw labels mean.
    """

    labels: tuple[Nodes, ...]
    indices: Mapping[str, Mapping[str, int]]
    maps: Mapping[str, LabelMap]

    @classmethod
    def of(cls, taxonomy: Taxonomy, maps: Mapping[str, LabelMap]) -> Self:
        """Merge the cohorts' labels; those that mean the same leaves are one label.

        Raises:
            SettingsError: No label of these cohorts says anything.
        """
        meanings = {name: {raw: settled(taxonomy, own.nodes[raw]) for raw in own.nodes} for name, own in maps.items()}
        order = {node: position for position, node in enumerate(taxonomy.nodes)}
        distinct = {nodes for own in meanings.values() for nodes in own.values()} - {(taxonomy.root,)}
        if not distinct:
            msg = (
                f"The cell labels of {', '.join(maps) or 'no cohort'} say nothing in the taxonomy '{taxonomy.name}', "
                "expected at least one that means less than all cells; add a cohort with labels, or train without them."
            )
            raise SettingsError(msg)
        labels = tuple(sorted(distinct, key=lambda nodes: [order[node] for node in nodes]))
        position = {nodes: index for index, nodes in enumerate(labels)} | {(taxonomy.root,): UNLABELLED}
        indices = {name: {raw: position[nodes] for raw, nodes in own.items()} for name, own in meanings.items()}
        return cls(labels, indices, maps)

    def index(self, cohort: str, label: str) -> int:
        """Position of a raw label's meaning in ``labels``; an ``UnknownName`` tells the nearest label of the cohort."""
        if label not in self.indices[cohort]:
            self.maps[cohort].node(label)  # raises
        return self.indices[cohort][label]


def settled(taxonomy: Taxonomy, nodes: Nodes) -> Nodes:
    """The fewest nodes that mean the same leaves, in the taxonomy's order: bands and segmented ones are neutrophils.

    One node stays itself; none, and any that together have all leaves, are the root.
    """
    common = taxonomy.lowest_common_ancestor(*nodes)
    leaves = taxonomy.leaves_of(*(nodes or (common,)))
    if leaves == taxonomy.leaves:
        return (taxonomy.root,)
    if leaves == taxonomy.leaves_of(common):
        return (common,)
    return tuple(itertools.compress(taxonomy.nodes, cover(taxonomy, np.isin(taxonomy.leaves, leaves))))


def cover(taxonomy: Taxonomy, leaves: Bools) -> Bools:
    """(V,) the uppermost nodes that have no other leaf than these (n_leaves,)."""
    fitting = {node for node, own in zip(taxonomy.nodes, taxonomy.membership, strict=True) if not (own & ~leaves).any()}
    return np.array([node in fitting and above not in fitting for node, above in taxonomy.parents.items()])


@dataclass(frozen=True)
class LabelChains:
    """The chains of a list of labels, as arrays.

    Attributes:
        taxonomy: The tree; leaves and nodes have its order.
        labels: The nodes of every label; a label's index is its position here.
        alpha: How much less a level counts than the one above: by the factor exp(−α).
        scale: ``none``: the weights λ_k as they are, comparable to a cross-entropy. ``path``: divided by their sum over
            the label's chain, so that deep labels count as much as shallow ones. ``tree``: exp(−α k), divided by the
            sum of exp(−α depth) over all nodes, as published; 13 times smaller than ``none`` for blood at α 0.5.
    """

    taxonomy: Taxonomy
    labels: tuple[Nodes, ...]
    alpha: float = 0.5
    scale: Scale = "none"

    @cached_property
    def paths(self) -> tuple[tuple[Nodes, ...], ...]:
        """The steps below the root of every label's chain, each the nodes whose leaves it keeps."""
        return tuple(self._path(nodes) for nodes in self.labels)

    def _path(self, nodes: Nodes) -> tuple[Nodes, ...]:
        final = settled(self.taxonomy, nodes)
        common = self.taxonomy.lowest_common_ancestor(*final)
        steps = [(node,) for node in (*self.taxonomy.ancestors(common), common)[1:]]
        return (*steps, final) if len(final) > 1 else tuple(steps)

    @property
    def steps(self) -> Ints:
        """(n_labels,) d, the steps of each chain; 0 for a label that says nothing."""
        return np.array([len(path) for path in self.paths], dtype=np.int64)

    @cached_property
    def membership(self) -> Bools:
        """(n_labels, d_max + 1, n_leaves) the leaves of S_0, S_1, …; short chains repeat their last set."""
        longest = max(map(len, self.paths))
        tree = self.taxonomy
        result = np.ones((len(self.labels), longest + 1, len(tree.leaves)), dtype=bool)
        for chain, path in zip(result, self.paths, strict=True):
            for level, nodes in enumerate(path, start=1):
                chain[level:] = np.isin(tree.leaves, tree.leaves_of(*nodes))
        return result

    @cached_property
    def weights(self) -> Floats:
        """(n_labels, d_max) the weight of every step, 0 beyond the end of a chain."""
        levels = np.arange(self.membership.shape[1] - 1)
        weights: Floats = np.exp(-self.alpha * levels) * (levels < self.steps[:, None])
        if self.scale == "path":
            weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1.0)  # 0 where there is no step, else at least 1
        if self.scale == "tree":
            depths = np.array([self.taxonomy.depth(node) for node in self.taxonomy.nodes])
            weights *= np.exp(-self.alpha) / np.exp(-self.alpha * depths).sum()
        return weights
