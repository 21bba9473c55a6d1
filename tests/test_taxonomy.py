"""The tree of cell types, and what the labels of cohorts mean in it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from milkit.errors import SettingsError, UnknownName
from milkit.taxonomy import LabelMap, Taxonomy

BLOOD = Taxonomy.load()
TREE = """
cell:
  granulocyte:
    neutrophil: {band: , segmented: }
    basophil:
  NO:
"""
"""Ragged on purpose, and with a node that YAML takes for false where it is not careful."""


@pytest.fixture
def tree(write_text: Callable[[str, str], Path]) -> Taxonomy:
    return Taxonomy.load(str(write_text("tree.yaml", TREE)))


@pytest.fixture
def write_text(tmp_path: Path) -> Callable[[str, str], Path]:
    def write(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return write


# --- the tree ---------------------------------------------------------------------------------------------------------


def test_nodes_and_leaves_keep_the_order_of_the_file(tree: Taxonomy) -> None:
    assert tree.nodes == ("cell", "granulocyte", "neutrophil", "band", "segmented", "basophil", "NO")
    assert tree.leaves == ("band", "segmented", "basophil", "NO")
    assert tree.root == "cell"
    assert tree.name == "tree"


def test_children_and_ancestors_are_those_of_the_file(tree: Taxonomy) -> None:
    assert tree.children("cell") == ("granulocyte", "NO")
    assert tree.children("band") == ()
    assert tree.ancestors("segmented") == ("cell", "granulocyte", "neutrophil")
    assert tree.ancestors("cell") == ()


def test_depth_counts_the_edges_from_the_root(tree: Taxonomy) -> None:
    assert [tree.depth(node) for node in tree.nodes] == [0, 1, 2, 3, 3, 2, 1]


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        (("band", "segmented"), "neutrophil"),
        (("band", "basophil"), "granulocyte"),
        (("band", "NO"), "cell"),
        (("band", "neutrophil"), "neutrophil"),
        (("band",), "band"),
        (("band", "segmented", "basophil"), "granulocyte"),
        ((), "cell"),
    ],
)
def test_the_lowest_common_ancestor_is_the_deepest_node_that_holds_all(
    tree: Taxonomy, nodes: tuple[str, ...], expected: str
) -> None:
    assert tree.lowest_common_ancestor(*nodes) == expected


def test_the_leaves_of_nodes_are_all_below_them_in_the_tree_s_order(tree: Taxonomy) -> None:
    assert tree.leaves_of("granulocyte") == ("band", "segmented", "basophil")
    assert tree.leaves_of("NO", "neutrophil", "band") == ("band", "segmented", "NO")
    assert tree.leaves_of("cell") == tree.leaves


def walked(taxonomy: Taxonomy, first: str, second: str) -> int:
    """Edges between two nodes, by spreading over the edges of the tree from one of them."""
    neighbours = {node: {*taxonomy.children(node), *taxonomy.ancestors(node)[-1:]} for node in taxonomy.nodes}
    reached, steps = {first}, 0
    while second not in reached:
        reached |= {other for node in reached for other in neighbours[node]}
        steps += 1
    return steps


def test_the_distance_is_the_number_of_edges_on_the_way() -> None:
    pairs = [(first, second) for first in BLOOD.nodes[::3] for second in BLOOD.nodes[::2]]
    assert [BLOOD.distance(*pair) for pair in pairs] == [walked(BLOOD, *pair) for pair in pairs]


def test_membership_sums_leaf_probabilities_to_those_of_the_nodes() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(len(BLOOD.leaves)))
    of_nodes = dict(zip(BLOOD.nodes, BLOOD.membership @ probabilities, strict=True))
    assert of_nodes[BLOOD.root] == pytest.approx(1)
    for node in BLOOD.nodes:
        if below := BLOOD.children(node):
            assert of_nodes[node] == pytest.approx(sum(of_nodes[child] for child in below))
    leaves = dict(zip(BLOOD.leaves, probabilities, strict=True))
    assert {leaf: of_nodes[leaf] for leaf in leaves} == pytest.approx(leaves)


def test_blood_has_the_nodes_that_its_file_promises() -> None:
    assert (len(BLOOD.nodes), len(BLOOD.leaves), max(map(BLOOD.depth, BLOOD.nodes))) == (43, 26, 6)
    assert BLOOD.membership.shape == (43, 26)
    assert BLOOD.lowest_common_ancestor("faggot_cell", "monoblast") == "myeloid"


def test_an_unknown_node_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UnknownName, match=r"No node of the taxonomy 'blood' is called 'monocytes'. Did you mean 'mono"):
        BLOOD.ancestors("monocytes")


def test_an_unknown_taxonomy_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UnknownName, match=r"'blod'. Did you mean 'blood'"):
        Taxonomy.load("blod")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cell: {a: {b: }, c: {b: }}", r"broken.yaml:1: 'b' occurs twice, expected every name once"),
        ("cell:\n  a:\n  a:\n", r"broken.yaml:3: 'a' occurs twice"),
        ("cell:\nother:\n", r"broken.yaml has 2 roots, where one was expected; put all nodes below a single one"),
        ("cell:\n  a: b\n", r"broken.yaml:2: 'a' holds a value, where the nodes below it"),
        ("cell: [a, b]", r"broken.yaml:1: 'cell' holds a value"),
        ("- cell", r"broken.yaml holds no names, where names with what is below them were expected"),
        ("", r"broken.yaml holds no names"),
        ("cell: {", r"broken.yaml is not valid YAML in UTF-8 \("),
    ],
)
def test_a_broken_tree_is_refused_with_its_place(
    write_text: Callable[[str, str], Path], text: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        Taxonomy.load(str(write_text("broken.yaml", text)))


# --- labels -----------------------------------------------------------------------------------------------------------

LABELS = """
labels:
  NGB: band
  NEU: neutrophil
  MIX: [basophil, band]
  "1": NO
  OFF: []
"""


@pytest.fixture
def labels(tree: Taxonomy, write_text: Callable[[str, str], Path]) -> LabelMap:
    return LabelMap.load(str(write_text("study.yaml", LABELS)), tree)


def test_a_label_is_the_set_of_leaves_below_its_nodes(labels: LabelMap) -> None:
    assert labels.leaves("NGB") == ("band",)
    assert labels.leaves("NEU") == ("band", "segmented")
    assert labels.leaves("MIX") == ("band", "basophil")
    assert labels.cohort == "study"


def test_a_label_that_says_nothing_is_all_leaves_and_the_root(labels: LabelMap) -> None:
    assert labels.leaves("OFF") == labels.taxonomy.leaves
    assert labels.node("OFF") == labels.taxonomy.root


def test_the_node_of_a_label_is_the_deepest_that_holds_all_it_means(labels: LabelMap) -> None:
    assert [labels.node(label) for label in ("NGB", "NEU", "MIX")] == ["band", "neutrophil", "granulocyte"]


def test_labels_and_nodes_stay_text_where_yaml_knows_numbers_and_booleans(labels: LabelMap) -> None:
    assert list(labels.nodes) == ["NGB", "NEU", "MIX", "1", "OFF"]
    assert labels.leaves("1") == ("NO",)


def test_a_blast_of_no_lineage_is_any_of_three_leaves() -> None:
    bmc = LabelMap.load("bmc", BLOOD)
    assert set(bmc.leaves("BLA")) == {"myeloblast", "monoblast", "lymphoblast"}
    assert bmc.node("BLA") == "haematopoietic"
    assert bmc.node("MYB") == "myelocyte"


def test_an_unknown_label_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(UnknownName, match=r"No cell label of the cohort 'bmc' is called 'NGSS'. Did you mean 'NGS'?"):
        LabelMap.load("bmc", BLOOD).leaves("NGSS")


def test_labels_of_an_unknown_cohort_are_refused_with_the_nearest_one() -> None:
    with pytest.raises(UnknownName, match=r"'acevdo'. Did you mean 'acevedo'"):
        LabelMap.load("acevdo", BLOOD)


def test_a_node_that_the_tree_lacks_is_refused_with_its_place(
    tree: Taxonomy, write_text: Callable[[str, str], Path]
) -> None:
    path = write_text("study.yaml", "labels:\n  A: band\n  B: [basophil, bnad]\n")
    with pytest.raises(UnknownName, match=r"\(.*study.yaml:3\) is called 'bnad'. Did you mean 'band'?"):
        LabelMap.load(str(path), tree)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A: band", r"study.yaml has the keys A, expected `labels` with a node for every label"),
        ("labels: {A: band}\nmore: 1", r"study.yaml has the keys labels, more, expected `labels`"),
        ("labels: band", r"study.yaml has the keys labels, expected `labels` with a node for every label"),
        ("labels:\n  A:\n", r"study.yaml:2: the label 'A' has no node, expected a node, a list of nodes, or \[\]"),
        ("labels:\n  A: {band: }\n", r"study.yaml:2: the label 'A' has no node"),
        ("labels:\n  A: [[band]]\n", r"study.yaml:2: the label 'A' has no node"),
        ("labels:\n  A: band\n  A: NO\n", r"study.yaml:3: 'A' occurs twice"),
    ],
)
def test_a_broken_file_of_labels_is_refused_with_its_place(
    tree: Taxonomy, write_text: Callable[[str, str], Path], text: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        LabelMap.load(str(write_text("study.yaml", text)), tree)
