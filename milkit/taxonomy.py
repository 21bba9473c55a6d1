"""Taxonomy: a tree of cell types, and what the labels of a cohort's cells mean in it.

Two kinds of files: ``configs/taxonomies/<name>.yaml`` is a tree, nested names under one root, and
``configs/taxonomies/labels/<cohort>.yaml`` says for every raw label of a cohort which nodes it means:

    labels:
      BAS: basophil
      BLA: [myeloblast, monoblast, lymphoblast]    # any of these
      OTH: []                                      # says nothing

A label is a set of leaves: those below its nodes. So a label may be a leaf, an inner node (a neutrophil, band or
segmented) or several nodes across lineages; one that says nothing is all leaves, the root's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import yaml

from milkit import settings
from milkit.errors import SettingsError
from milkit.registry import unknown_name


@dataclass(frozen=True)
class Taxonomy:
    """A tree of cell types.

    Attributes:
        name: Its file's.
        parents: The parent of every node, in the order of the file: a parent before its children, the root first, whose
            parent is None. ``nodes`` and ``leaves``, and so all indices, keep this order.

    An unknown node is an ``UnknownName`` that tells the nearest one.
    """

    name: str
    parents: Mapping[str, str | None]

    @classmethod
    def load(cls, name: str = "blood") -> Self:
        """The taxonomy of ``configs/taxonomies/<name>.yaml``, or of the file at that path; else a ``SettingsError``."""
        path = settings.find_recipe("taxonomies", name)
        top = _read(path)
        parents: dict[str, str | None] = {}
        _add(parents, top, None, path)
        if len(top.value) != 1:
            msg = f"{path} has {len(top.value)} roots, where one was expected; put all nodes below a single one."
            raise SettingsError(msg)
        return cls(path.stem, parents)

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes, the root first."""
        return tuple(self.parents)

    @property
    def root(self) -> str:
        """The node above all others; as a label it says nothing."""
        return next(iter(self.parents))

    @cached_property
    def leaves(self) -> tuple[str, ...]:
        """The nodes without children, in the order of the outputs that are trained on them."""
        inner = set(self.parents.values())
        return tuple(node for node in self.parents if node not in inner)

    def children(self, node: str) -> tuple[str, ...]:
        """The nodes right below a node; none below a leaf."""
        self._require(node)
        return tuple(name for name, parent in self.parents.items() if parent == node)

    def ancestors(self, node: str) -> tuple[str, ...]:
        """The nodes above a node, from the root down to its parent."""
        self._require(node)
        above: list[str] = []
        parent = self.parents[node]
        while parent is not None:
            above.insert(0, parent)
            parent = self.parents[parent]
        return tuple(above)

    def depth(self, node: str) -> int:
        """Edges between the root, whose depth is 0, and a node."""
        return len(self.ancestors(node))

    def lowest_common_ancestor(self, *nodes: str) -> str:
        """The deepest node that holds all of these, which may be one of them; the root where none is given."""
        paths = [(*self.ancestors(node), node) for node in nodes]
        common = self.root
        for level in zip(*paths, strict=False):
            if len(set(level)) > 1:
                break
            common = level[0]
        return common

    def distance(self, first: str, second: str) -> int:
        """Edges on the way between two nodes; 0 for the same one."""
        common = self.depth(self.lowest_common_ancestor(first, second))
        return self.depth(first) + self.depth(second) - 2 * common

    def leaves_of(self, *nodes: str) -> tuple[str, ...]:
        """The leaves below any of these nodes, a leaf being below itself, in the order of ``leaves``."""
        wanted = set(nodes)
        for node in nodes:
            self._require(node)
        return tuple(leaf for leaf in self.leaves if wanted.intersection((*self.ancestors(leaf), leaf)))

    @cached_property
    def membership(self) -> npt.NDArray[np.bool_]:
        """(n_nodes, n_leaves) whether a leaf is below a node; times leaf probabilities, those of all nodes."""
        return np.array([np.isin(self.leaves, self.leaves_of(node)) for node in self.nodes])

    def _require(self, node: str) -> None:
        if node not in self.parents:
            kind = f"node of the taxonomy '{self.name}'"
            raise unknown_name(kind, node, list(self.nodes))


@dataclass(frozen=True)
class LabelMap:
    """What the labels of a cohort's cells mean in a taxonomy.

    Attributes:
        cohort: Whose labels they are.
        taxonomy: The tree that the nodes are of.
        nodes: The nodes of every raw label; none for a label that says nothing.

    An unknown label is an ``UnknownName`` that tells the nearest one.
    """

    cohort: str
    taxonomy: Taxonomy
    nodes: Mapping[str, tuple[str, ...]]

    @classmethod
    def load(cls, cohort: str, taxonomy: Taxonomy) -> Self:
        """The labels of ``configs/taxonomies/labels/<cohort>.yaml``, or of the file at that path.

        Raises:
            UnknownName: There is no such file, or it names a node that the taxonomy does not have.
            SettingsError: The file does not have the form of the module's docstring.
        """
        path = settings.find_recipe("taxonomies/labels", cohort)
        content = {key.value: (key, value) for key, value in _read(path).value}
        if set(content) != {"labels"} or not isinstance(content["labels"][1], yaml.MappingNode):
            msg = f"{path} has the keys {', '.join(content) or 'none'}, expected `labels` with a node for every label."
            raise SettingsError(msg)
        nodes: dict[str, tuple[str, ...]] = {}
        for key, value in content["labels"][1].value:
            _refuse_repeated(nodes, key, path)
            nodes[key.value] = _names(key, value, path)
            for node in nodes[key.value]:
                if node not in taxonomy.parents:
                    kind = f"node of the taxonomy '{taxonomy.name}' ({_place(path, value)})"
                    raise unknown_name(kind, node, list(taxonomy.nodes))
        return cls(path.stem, taxonomy, nodes)

    def leaves(self, label: str) -> tuple[str, ...]:
        """The leaves that a cell of this label may be, in the taxonomy's order: all of them if it says nothing."""
        return self.taxonomy.leaves_of(*(self._nodes_of(label) or (self.taxonomy.root,)))

    def node(self, label: str) -> str:
        """The deepest node that holds all that the label means: the root if it says nothing."""
        return self.taxonomy.lowest_common_ancestor(*self._nodes_of(label))

    def _nodes_of(self, label: str) -> tuple[str, ...]:
        if label not in self.nodes:
            kind = f"cell label of the cohort '{self.cohort}'"
            raise unknown_name(kind, label, list(self.nodes))
        return self.nodes[label]


def _read(path: Path) -> yaml.MappingNode:
    """The file's uppermost mapping. Its texts stay texts: a label ``NO`` or ``1`` is neither false nor a number."""
    try:
        top = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        msg = f"{path} is not valid YAML in UTF-8 ({' '.join(str(error).split())}); mend it there."
        raise SettingsError(msg) from None
    if not isinstance(top, yaml.MappingNode):
        msg = f"{path} holds no names, where names with what is below them were expected; see configs/taxonomies."
        raise SettingsError(msg)
    return top


def _add(parents: dict[str, str | None], mapping: yaml.MappingNode, parent: str | None, path: Path) -> None:
    """Add the nodes of a mapping, and all below them."""
    for key, below in mapping.value:
        _refuse_repeated(parents, key, path)
        parents[key.value] = parent
        if isinstance(below, yaml.MappingNode):
            _add(parents, below, key.value, path)
        elif below.value:
            msg = (
                f"{_place(path, key)}: '{key.value}' holds a value, where the nodes below it, each with a colon, or "
                "nothing was expected; mend it there."
            )
            raise SettingsError(msg)


def _names(key: yaml.Node, value: yaml.Node, path: Path) -> tuple[str, ...]:
    """The node names of one label."""
    items = value.value if isinstance(value, yaml.SequenceNode) else [value]
    if not all(isinstance(item, yaml.ScalarNode) and item.value for item in items):
        msg = (
            f"{_place(path, key)}: the label '{key.value}' has no node, expected a node, a list of nodes, or [] where "
            "it says nothing; mend it there."
        )
        raise SettingsError(msg)
    return tuple(item.value for item in items)


def _refuse_repeated(known: Mapping[str, object], key: yaml.Node, path: Path) -> None:
    if key.value in known:
        msg = f"{_place(path, key)}: '{key.value}' occurs twice, expected every name once; rename one of them."
        raise SettingsError(msg)


def _place(path: Path, node: yaml.Node) -> str:
    return f"{path}:{node.start_mark.line + 1}"
