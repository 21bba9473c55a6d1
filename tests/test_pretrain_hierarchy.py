"""The loss over a taxonomy and its two heads, against probabilities written out in double precision."""

from itertools import pairwise
from math import exp, log

import numpy as np
import pytest
import torch

from encoders.dinov2.hierarchy import HierarchicalHead, hierarchical_head
from encoders.dinov2.label_chains import UNLABELLED, LabelChains, LabelTable, Scale, settled
from milkit import settings
from milkit.errors import SettingsError, UnknownName
from milkit.taxonomy import LabelMap, Taxonomy

BLOOD = Taxonomy.load()
BLAST = ("myeloblast", "monoblast", "lymphoblast")
LABELS = (*((node,) for node in BLOOD.nodes), BLAST, ("neutrophil", "basophil"), ("smudge_cell", "lymphoid"), ())
INNER = [node for node in BLOOD.nodes if BLOOD.children(node)]
RAGGED = Taxonomy(
    "ragged",
    {"r": None, "a": "r", "a1": "a", "a2": "a", "a21": "a2", "a22": "a2", "a221": "a22", "b": "r", "c": "r", "c1": "c"},
)
"""Leaves at depths 1 to 4, and two only children."""
KINDS = ("leaf", "sibling")
ALL_COHORTS = settings.recipe_names("taxonomies/labels")


def head_of(kind: str, labels: tuple[tuple[str, ...], ...] = LABELS, **options: object) -> HierarchicalHead:
    taxonomy = options.pop("taxonomy", BLOOD)
    return hierarchical_head(kind, 8, LabelChains(taxonomy, labels, **options))  # type: ignore[arg-type]


def drawn(head: HierarchicalHead, n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, head.linear.out_features, generator=torch.Generator().manual_seed(seed)) * 3


def leaf_probabilities(kind: str, tree: Taxonomy, logits: np.ndarray) -> dict[str, float]:
    """Of one cell, in double precision: softmax over leaves, or products of softmaxes over siblings."""
    z = logits.astype(np.float64)
    if kind == "leaf":
        return dict(zip(tree.leaves, np.exp(z) / np.exp(z).sum(), strict=True))
    logit, result = dict(zip(tree.nodes[1:], z, strict=True)), {tree.root: 1.0}
    for node in tree.nodes[1:]:  # a parent comes before its children
        parent = str(tree.parents[node])
        result[node] = result[parent] * exp(logit[node]) / sum(exp(logit[other]) for other in tree.children(parent))
    return {leaf: result[leaf] for leaf in tree.leaves}


def probability(leaves: dict[str, float], tree: Taxonomy, nodes: tuple[str, ...]) -> float:
    return sum(leaves[leaf] for leaf in tree.leaves_of(*nodes))


def chain(tree: Taxonomy, nodes: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The nodes of every set S_0 … S_d."""
    common = tree.lowest_common_ancestor(*nodes)
    path = [(node,) for node in (*tree.ancestors(common), common)]
    return path if set(tree.leaves_of(*(nodes or (common,)))) == set(tree.leaves_of(common)) else [*path, nodes]


def written_out(kind: str, tree: Taxonomy, nodes: tuple[str, ...], logits: np.ndarray, alpha: float) -> float:
    leaves = leaf_probabilities(kind, tree, logits)
    steps = [probability(leaves, tree, below) / probability(leaves, tree, above)
             for above, below in pairwise(chain(tree, nodes))]  # fmt: skip
    return -sum(exp(-alpha * k) * log(step) for k, step in enumerate(steps))


# --- the loss ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_preference_for_levels_the_loss_is_the_label_s_log_probability(kind: str) -> None:
    """All 43 nodes, the blasts and two more sets; a label that says nothing costs nothing."""
    head = head_of(kind, alpha=0.0)
    logits = drawn(head, len(LABELS))
    losses = head.losses(logits, torch.arange(len(LABELS))).numpy()
    for label, own, found in zip(LABELS, logits.numpy(), losses, strict=True):
        leaves = leaf_probabilities(kind, BLOOD, own)
        assert found == pytest.approx(-log(probability(leaves, BLOOD, label or (BLOOD.root,))), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("tree", [BLOOD, RAGGED], ids=["blood", "ragged"])
@pytest.mark.parametrize("kind", KINDS)
def test_levels_are_weighted_by_their_depth_also_where_the_tree_is_ragged(kind: str, tree: Taxonomy) -> None:
    labels = LABELS if tree is BLOOD else (*((node,) for node in tree.nodes), ("a1", "a221"), ("a21", "b"))
    head = head_of(kind, labels, alpha=0.7, taxonomy=tree)
    logits = drawn(head, len(labels), seed=1)
    expected = [written_out(kind, tree, *pair, 0.7) for pair in zip(labels, logits.numpy(), strict=True)]
    losses = head.losses(logits, torch.arange(len(labels))).numpy()
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)


def test_the_levels_of_a_ragged_tree_are_counted_from_the_root() -> None:
    """By hand: all leaves alike; P(a) = 3/5, P(a2 | a) = 2/3; the leaf a21 is half of a2."""
    head = head_of("leaf", (("a2",), ("a21",)), alpha=log(2), taxonomy=RAGGED)
    found = head.losses(torch.zeros(2, 5), torch.arange(2))
    coarse = log(5 / 3) + log(3 / 2) / 2
    assert found.tolist() == pytest.approx([coarse, coarse + log(2) / 4])


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_never_negative(kind: str) -> None:
    head = head_of(kind)
    for scale in (1e-3, 1.0, 30.0, 1e3):
        labels = torch.arange(len(LABELS)).repeat(40)
        assert head.losses(drawn(head, len(labels)) * scale, labels).min() >= 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("factor", [1e3, -1e3])
def test_loss_and_gradient_are_finite_at_a_thousand_times_the_logits(kind: str, factor: float) -> None:
    head = head_of(kind)
    logits = (drawn(head, len(LABELS)) * factor).requires_grad_()
    total = head.loss(logits, torch.arange(len(LABELS))).total
    total.backward()
    assert logits.grad is not None
    assert torch.isfinite(total)
    assert torch.isfinite(logits.grad).all()
    assert torch.isfinite(head.log_posteriors(logits)).all()


def test_the_loss_of_a_label_that_is_nearly_certain_keeps_its_digits() -> None:
    """A difference of two log-sum-exps near 1000 would be 0 or some 6e-5 here."""
    labels = (("platelet",), ("smudge_cell", "platelet"))
    head = head_of("leaf", labels, alpha=0.0)
    logits = torch.full((2, 26), 1000.0)
    logits[0, BLOOD.leaves.index("platelet")] += 12
    logits[1, [BLOOD.leaves.index(node) for node in labels[1]]] += 12
    expected = [written_out("leaf", BLOOD, *pair, 0.0) for pair in zip(labels, logits.numpy() - 1000, strict=True)]
    assert max(expected) < 1e-3
    np.testing.assert_allclose(head.losses(logits, torch.arange(2)).numpy(), expected, rtol=1e-4)


def test_the_gradient_is_that_of_the_formula() -> None:
    """Of the leaf head: Σ_k λ_k [p(ℓ | S_{k−1}) − p(ℓ | S_k)], each within its set; it sums to 0."""
    head, alpha = head_of("leaf", alpha=0.5), 0.5
    logits = drawn(head, len(LABELS)).requires_grad_()
    head.loss(logits, torch.arange(len(LABELS))).total.backward()
    assert logits.grad is not None
    for label, own, found in zip(LABELS, logits.detach().numpy(), logits.grad.numpy(), strict=True):
        leaves = leaf_probabilities("leaf", BLOOD, own)

        def within(nodes: tuple[str, ...], leaves: dict[str, float] = leaves) -> np.ndarray:
            kept = BLOOD.leaves_of(*nodes)
            return np.array([leaves[leaf] * (leaf in kept) for leaf in BLOOD.leaves]) / probability(leaves, BLOOD, kept)

        steps = list(pairwise(chain(BLOOD, label)))
        expected = sum(exp(-alpha * k) * (within(above) - within(below)) for k, (above, below) in enumerate(steps))
        np.testing.assert_allclose(found, expected * np.ones(26), atol=2e-6)
        assert abs(found.sum()) < 2e-6


def test_for_leaves_the_tree_s_scale_is_the_published_hierarchical_cross_entropy() -> None:
    """Bertinetto et al.: an edge weighs exp(−α · its child's depth), divided by the sum over all nodes, root too."""
    head = head_of("leaf", tuple((leaf,) for leaf in BLOOD.leaves), alpha=0.5, scale="tree")
    logits = drawn(head, 26)
    total = sum(exp(-0.5 * BLOOD.depth(node)) for node in BLOOD.nodes)
    for leaf, own, found in zip(BLOOD.leaves, logits.numpy(), head.losses(logits, torch.arange(26)), strict=True):
        p = leaf_probabilities("leaf", BLOOD, own)
        path = (*BLOOD.ancestors(leaf), leaf)
        conditionals = {
            node: probability(p, BLOOD, (node,)) / probability(p, BLOOD, (up,)) for up, node in pairwise(path)
        }
        expected = -sum(exp(-0.5 * BLOOD.depth(node)) / total * log(share) for node, share in conditionals.items())
        assert float(found) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("scale", "total"), [("none", 1 + exp(-0.5)), ("path", 1.0)])
def test_the_weights_of_a_path_add_up_as_its_scale_says(scale: Scale, total: float) -> None:
    chains = LabelChains(BLOOD, (("smudge_cell",), ("hairy_cell",), ()), scale=scale)
    assert chains.weights[0].sum() == pytest.approx(total)
    assert chains.weights[2].sum() == 0
    if scale == "path":
        assert chains.weights[1].sum() == pytest.approx(1)


@pytest.mark.parametrize("kind", KINDS)
def test_only_children_cost_nothing_and_learn_nothing(kind: str) -> None:
    head = head_of(kind, (("c",), ("c1",), ("a22",), ("a221",)), alpha=0.0, taxonomy=RAGGED)
    logits = drawn(head, 1).repeat(4, 1).requires_grad_()
    c, c1, a22, a221 = losses = head.losses(logits, torch.arange(4))
    assert c == c1
    assert a22 == a221
    losses.sum().backward()
    if kind == "sibling":
        assert logits.grad is not None
        only = [RAGGED.nodes[1:].index(node) for node in ("c1", "a221")]
        assert not logits.grad[:, only].any()


# --- what the training asks -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_only_cells_whose_label_says_something_are_counted(kind: str) -> None:
    head = head_of(kind)
    says_nothing = (LABELS.index((BLOOD.root,)), LABELS.index(()))
    labels = torch.tensor([3, UNLABELLED, *says_nothing, LABELS.index(BLAST)])
    logits = drawn(head, 5).requires_grad_()
    total, n_cells = head.loss(logits, labels)
    assert n_cells.item() == 2
    assert total.item() == pytest.approx(head.losses(logits, labels.clamp_min(0))[[0, 4]].sum().item())
    total.backward()
    assert logits.grad is not None
    assert not logits.grad[1:4].any()
    assert logits.grad[[0, 4]].any(dim=1).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_one_or_none_is_a_batch(kind: str) -> None:
    head = head_of(kind)
    logits = drawn(head, 7)
    labels = torch.arange(7)
    parts = [head.loss(logits[i : i + 1], labels[i : i + 1]).total for i in range(7)]
    assert sum(parts).item() == pytest.approx(head.loss(logits, labels).total.item())
    none = logits[:0].requires_grad_()
    total, n_cells = head.loss(none, labels[:0])
    total.backward()
    assert (total.item(), n_cells.item()) == (0, 0)
    assert head.predict(none).shape == (0,)


@pytest.mark.parametrize("kind", KINDS)
def test_halves_of_a_batch_add_up_to_it(kind: str) -> None:
    """So ranks that divide by the cells of all of them optimise one loss."""
    head = head_of(kind)
    logits, labels = drawn(head, 40), torch.arange(40) - 1
    whole, halves = head.loss(logits, labels), [head.loss(logits[i::2], labels[i::2]) for i in range(2)]
    assert sum(half.total for half in halves).item() == pytest.approx(whole.total.item(), rel=1e-6)
    assert sum(half.n_cells for half in halves) == whole.n_cells


@pytest.mark.parametrize("kind", KINDS)
def test_logits_of_half_precision_are_taken_in_single(kind: str) -> None:
    head = head_of(kind)
    logits = drawn(head, 20).bfloat16()
    total = head.loss(logits, torch.arange(20)).total
    assert total.dtype == torch.float32
    assert total == head.loss(logits.float(), torch.arange(20)).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert total == head.loss(logits, torch.arange(20)).total


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint_holds_the_linear_layer_alone(kind: str) -> None:
    head = head_of(kind)
    outputs = len(BLOOD.leaves) if kind == "leaf" else len(BLOOD.nodes) - 1
    assert {name: tuple(value.shape) for name, value in head.state_dict().items()} == {
        "linear.weight": (outputs, 8),
        "linear.bias": (outputs,),
    }
    assert head(torch.zeros(3, 8)).shape == (3, outputs)


# --- probabilities of nodes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_probability_of_a_node_is_the_sum_over_its_leaves_and_that_of_the_leaves_is_one(kind: str) -> None:
    head = head_of(kind)
    logits = drawn(head, 6)
    for own, found in zip(logits.numpy(), head.log_posteriors(logits).exp().numpy(), strict=True):
        leaves = leaf_probabilities(kind, BLOOD, own)
        assert sum(leaves.values()) == pytest.approx(1)
        expected = [probability(leaves, BLOOD, (node,)) for node in BLOOD.nodes]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-9)
        assert found[0] == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.9])
def test_the_prediction_is_the_deepest_node_that_is_likely_enough(kind: str, threshold: float) -> None:
    head = head_of(kind)
    logits = drawn(head, 60) / 2
    for own, found in zip(logits.numpy(), head.predict(logits, threshold), strict=True):
        leaves = leaf_probabilities(kind, BLOOD, own)
        posterior = {node: probability(leaves, BLOOD, (node,)) for node in BLOOD.nodes}
        likely = [node for node in BLOOD.nodes if node == BLOOD.root or posterior[node] >= threshold]
        assert BLOOD.nodes[int(found)] == max(likely, key=lambda node: (BLOOD.depth(node), posterior[node]))


def test_a_hesitation_between_siblings_is_reported_as_their_parent() -> None:
    head = head_of("leaf")
    logits = torch.full((1, 26), -20.0)
    logits[0, [BLOOD.leaves.index(name) for name in ("neutrophil_band", "neutrophil_segmented")]] = 5.0
    assert BLOOD.nodes[int(head.predict(logits, 0.6))] == "neutrophil"
    assert BLOOD.nodes[int(head.predict(torch.zeros(1, 26), 0.95))] == BLOOD.root


# --- what the sibling head is for -------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [*((node,) for node in INNER), BLAST, ("neutrophil", "lymphoid")], ids="-".join)
def test_below_its_label_the_sibling_head_learns_exactly_nothing(label: tuple[str, ...]) -> None:
    head = head_of("sibling", (label,))
    logits = drawn(head, 3).requires_grad_()
    head.loss(logits, torch.zeros(3, dtype=torch.int64)).total.backward()
    below = [i for i, node in enumerate(BLOOD.nodes[1:]) if set(BLOOD.ancestors(node)) & set(label)]
    assert logits.grad is not None
    assert not logits.grad[:, below].any()
    if label != (BLOOD.root,):
        assert logits.grad.any()


def test_below_its_label_the_leaf_head_makes_the_likelier_leaf_likelier() -> None:
    """The caveat of its docstring, and the reason for the other head."""
    head = head_of("leaf", (("neutrophil",),))
    logits = torch.zeros(1, 26)
    band, segmented = (BLOOD.leaves.index(name) for name in ("neutrophil_band", "neutrophil_segmented"))
    logits[0, band] = 1.0
    logits.requires_grad_()
    head.loss(logits, torch.tensor([0])).total.backward()
    assert logits.grad is not None
    assert logits.grad[0, band] < logits.grad[0, segmented] < 0


# --- labels -----------------------------------------------------------------------------------------------------------


def test_the_outputs_and_all_indices_have_the_order_of_the_taxonomy() -> None:
    """A tree whose file has another order than the alphabet: were names sorted, indices would be others'."""
    tree = Taxonomy("tree", {"z": None, "b": "z", "c": "b", "a": "b", "0": "z"})
    leaf, sibling = (head_of(kind, (("c",), ("0",)), taxonomy=tree) for kind in KINDS)
    assert leaf.losses(torch.tensor([[9.0, 0, 0]]), torch.tensor([0])) < 0.01  # c, a, 0
    assert leaf.losses(torch.tensor([[0.0, 0, 9]]), torch.tensor([1])) < 0.01
    assert sibling.losses(torch.tensor([[9.0, 9, 0, 0]]), torch.tensor([0])) < 0.01  # b, c, a, 0
    assert sibling.losses(torch.tensor([[0.0, 0, 0, 9]]), torch.tensor([1])) < 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cohort", ALL_COHORTS)
def test_every_label_of_every_data_set_has_a_finite_loss(cohort: str, kind: str) -> None:
    """All in one list, as a training on several has them; those of red cells say nothing."""
    table = LabelTable.of(BLOOD, {name: LabelMap.load(name, BLOOD) for name in ALL_COHORTS})
    meaning = table.maps[cohort]
    head = head_of(kind, table.labels)
    labels = [table.index(cohort, label) for label in meaning.nodes]
    for label, index in zip(meaning.nodes, labels, strict=True):
        means = table.labels[index] if index != UNLABELLED else (BLOOD.root,)
        assert BLOOD.leaves_of(*means) == meaning.leaves(label)
    total, n_cells = head.loss(drawn(head, len(labels)), torch.tensor(labels))
    assert torch.isfinite(total)
    assert int(n_cells) == sum(index >= 0 for index in labels)


def test_the_list_of_labels_does_not_depend_on_the_order_of_the_cohorts() -> None:
    maps = {name: LabelMap.load(name, BLOOD) for name in ("bmc", "acevedo", "raabin")}
    table, other = LabelTable.of(BLOOD, maps), LabelTable.of(BLOOD, dict(reversed(maps.items())))
    assert table.labels == other.labels
    assert table.indices == {name: other.indices[name] for name in maps}
    assert list(table.labels) == sorted(table.labels, key=lambda nodes: [BLOOD.nodes.index(node) for node in nodes])
    assert table.index("bmc", "BAS") == table.index("acevedo", "BA") == table.labels.index(("basophil",))
    assert table.labels[table.index("bmc", "BLA")] == BLAST
    assert table.index("bmc", "OTH") == UNLABELLED


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ((), ("object",)),
        (("not_a_cell", "haematopoietic"), ("object",)),
        (("neutrophil_segmented", "neutrophil_band"), ("neutrophil",)),
        (("neutrophil", "neutrophil_band"), ("neutrophil",)),
        (("lymphoblast", "monoblast", "myeloblast"), BLAST),
        (("lymphocyte_typical", "eosinophil_abnormal", "eosinophil"), ("eosinophil_any", "lymphocyte_typical")),
        (("monocyte",), ("monocyte",)),
    ],
)
def test_labels_that_mean_the_same_leaves_are_one(nodes: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert settled(BLOOD, nodes) == expected


def test_the_chain_of_a_set_leads_to_its_common_ancestor_and_then_to_the_set() -> None:
    chains = LabelChains(BLOOD, (BLAST, ("monocyte",)))
    assert chains.paths[0] == (("haematopoietic",), BLAST)
    assert chains.steps.tolist() == [2, 4]
    kept = [tuple(np.array(BLOOD.leaves)[row]) for row in chains.membership[0]]
    assert kept == [BLOOD.leaves, BLOOD.leaves_of("haematopoietic"), BLAST, BLAST, BLAST]


def test_an_unknown_label_is_refused_with_the_nearest_of_its_cohort() -> None:
    table = LabelTable.of(BLOOD, {"bmc": LabelMap.load("bmc", BLOOD)})
    with pytest.raises(UnknownName, match=r"No cell label of the cohort 'bmc' is called 'NGSS'. Did you mean 'NGS'?"):
        table.index("bmc", "NGSS")


def test_labels_that_all_say_nothing_are_refused() -> None:
    nothing = LabelMap("mine", BLOOD, {"OTH": (), "ALL": ("object",)})
    with pytest.raises(SettingsError, match=r"labels of mine say nothing in the taxonomy 'blood', expected .*; add a "):
        LabelTable.of(BLOOD, {"mine": nothing})
