"""Hierarchical supervision: any node of a taxonomy, or any set of nodes, as the label of a cell.

With the chain of a label, 𝓛 = S_0 ⊇ S_1 ⊇ … ⊇ S_d (``encoders.dinov2.label_chains``), its loss is

    L = Σ_k λ_k · −log P(S_k | S_{k−1}),    k = 1 … d,    λ_k = exp(−α (k − 1)),

so that a label says nothing about what is below it, and one that says nothing (the root) costs nothing. α = 0 is
−log P(S_d): cross-entropy for a leaf. α > 0 makes the coarse levels matter more. For leaves, and with the weights of
``scale="tree"``, this is the hierarchical cross-entropy of Bertinetto et al. (CVPR 2020, arXiv:1912.09393). That inner
nodes may be labels is the idea of Chossegros et al. (Expert Systems with Applications 327:132710, 2026); the formula is
ours, and exact also where the leaves of one node differ in depth.

All is computed in float32 from log-odds: −log P(S_k | S_{k−1}) = softplus(A(S_{k−1} ∖ S_k) − A(S_k)), where A is the
log-sum-exp of the logits of a set. It is never negative, and finite at any logits that a network could give.

Letters: n cells, D features, V nodes, O logits.
"""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.dinov2.label_chains import LabelChains, cover

Kind = Literal["leaf", "sibling"]

_NEVER = torch.finfo(torch.float32).min
"""In place of a logit that is not in a set. Not −inf: an empty set then has the gradient 0, where −inf gives NaN."""


class LabelLoss(NamedTuple):
    """The loss of some cells, to be divided by how many there are in the batches of all ranks."""

    total: Tensor
    """Sum of the losses, () float32."""
    n_cells: Tensor
    """Cells with a label that says something, () int64."""


class HierarchicalHead(nn.Module):
    """Features to logits by a linear layer, and what these say about the nodes of the taxonomy."""

    def __init__(self, dim: int, outputs: int, chains: LabelChains) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, outputs)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)
        self.chains = chains
        taxonomy = chains.taxonomy
        self._keep("depths", np.array([taxonomy.depth(node) for node in taxonomy.nodes]))
        self._keep("says_something", chains.steps > 0)

    def _keep(self, name: str, array: npt.NDArray[np.generic]) -> None:
        """A constant that moves with the module to its device, and is in no checkpoint."""
        tensor = torch.from_numpy(array)
        self.register_buffer(name, tensor.float() if tensor.is_floating_point() else tensor, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """(n, D) -> (n, O)."""
        logits: Tensor = self.linear(features)
        return logits

    def log_posteriors(self, logits: Tensor) -> Tensor:
        """Log-probability of every node, in the order of ``taxonomy.nodes``: (n, O) -> (n, V), the root's 0."""
        raise NotImplementedError

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """L of every cell: (n, O), (n,) positions in ``chains.labels`` -> (n,)."""
        raise NotImplementedError

    def loss(self, logits: Tensor, labels: Tensor) -> LabelLoss:
        """Sum of the losses over the labelled cells: (n, O), (n,); ``UNLABELLED`` ones cost nothing, and n may be 0."""
        index = labels.clamp_min(0)
        counted = (labels >= 0) & self.get_buffer("says_something")[index]
        return LabelLoss((self.losses(logits.float(), index) * counted).sum(), counted.sum())

    @torch.no_grad()
    def predict(self, logits: Tensor, threshold: float = 0.5) -> Tensor:
        """The deepest node of at least this probability, of equally deep ones the likeliest: (n, O) -> (n,) positions.

        From 0.5 on, all such nodes are on one path. The root is always one of them.
        """
        posteriors = self.log_posteriors(logits).exp()
        score = self.get_buffer("depths") + posteriors
        return score.masked_fill(posteriors < threshold, -1.0).argmax(dim=1)


class LeafHead(HierarchicalHead):
    """One logit a leaf, softmax over all leaves; a node's probability is the sum of those of its leaves.

    Of the leaves below a label the likelier ones get likelier, as is so with any label that is a sum. ``SiblingHead``
    leaves them alone.
    """

    def __init__(self, dim: int, chains: LabelChains) -> None:
        super().__init__(dim, len(chains.taxonomy.leaves), chains)
        self._keep("nodes", chains.taxonomy.membership)
        self._keep("inside", chains.membership[:, 1:])
        self._keep("outside", chains.membership[:, :-1] & ~chains.membership[:, 1:])
        self._keep("weights", chains.weights)

    def log_posteriors(self, logits: Tensor) -> Tensor:
        """Log-probability of every node: (n, O) -> (n, V)."""
        nodes, logits = self.get_buffer("nodes"), logits.float()[:, None]
        return -_surprise(logits, nodes, ~nodes)

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """L of every cell: (n, O), (n,) -> (n,)."""
        inside, outside, weights = (self.get_buffer(name)[labels] for name in ("inside", "outside", "weights"))
        return (weights * _surprise(logits[:, None], inside, outside)).sum(dim=1)


class SiblingHead(HierarchicalHead):
    """One logit a node below the root, softmax over siblings; a node's probability is the product along its path.

    The loss of a label then does not touch the logits below it. The last step of a set of nodes is taken among all
    nodes below their common ancestor, so it moves the logits on the ways to them.
    """

    def __init__(self, dim: int, chains: LabelChains) -> None:
        taxonomy = chains.taxonomy
        nodes = taxonomy.nodes[1:]
        super().__init__(dim, len(nodes), chains)
        parents = [taxonomy.parents[node] for node in nodes]
        families = [[i for i, own in enumerate(parents) if own == parent] for parent in dict.fromkeys(parents)]
        width = max(map(len, families))
        padded = np.array([family + [len(nodes)] * (width - len(family)) for family in families])
        self._keep("families", padded)
        self._keep("places", np.argsort(padded, axis=None, kind="stable")[: len(nodes)])
        above = [np.isin(nodes, (*taxonomy.ancestors(node), node)) for node in taxonomy.nodes]
        self._keep("above", np.array(above))
        self._keep_labels(chains, nodes)

    def _keep_labels(self, chains: LabelChains, nodes: tuple[str, ...]) -> None:
        """The weight of every label's nodes; of a set also that of its step, and the nodes in and outside of it."""
        edges = np.zeros((len(chains.labels), len(nodes)))
        weights = np.zeros(len(chains.labels))
        inside = np.zeros((len(chains.labels), len(chains.taxonomy.nodes)), dtype=bool)
        outside = inside.copy()
        for label, path in enumerate(chains.paths):
            for step, own in enumerate(path):
                if len(own) == 1:
                    edges[label, nodes.index(own[0])] = chains.weights[label, step]
                else:
                    weights[label] = chains.weights[label, step]
                    kept = chains.membership[label, step + 1]
                    inside[label] = cover(chains.taxonomy, kept)
                    outside[label] = cover(chains.taxonomy, chains.membership[label, step] & ~kept)
        for name, array in {"edges": edges, "weights": weights, "inside": inside, "outside": outside}.items():
            self._keep(name, array)

    def log_conditionals(self, logits: Tensor) -> Tensor:
        """Log-probability of every node but the root, given its parent: (n, O) -> (n, O)."""
        families = self.get_buffer("families")
        padded = functional.pad(logits.float(), (0, 1), value=_NEVER)[:, families]  # (n, families, most siblings)
        return padded.log_softmax(dim=-1).flatten(1)[:, self.get_buffer("places")]

    def log_posteriors(self, logits: Tensor) -> Tensor:
        """Log-probability of every node: (n, O) -> (n, V)."""
        return _along_paths(self.log_conditionals(logits), self.get_buffer("above"))

    def losses(self, logits: Tensor, labels: Tensor) -> Tensor:
        """L of every cell: (n, O), (n,) -> (n,)."""
        conditionals = self.log_conditionals(logits)
        edges, weights, inside, outside = (
            self.get_buffer(name)[labels] for name in ("edges", "weights", "inside", "outside")
        )
        posteriors = _along_paths(conditionals, self.get_buffer("above"))
        return weights * _surprise(posteriors, inside, outside) - (edges * conditionals).sum(dim=1)


def hierarchical_head(kind: Kind, dim: int, chains: LabelChains) -> HierarchicalHead:
    """The head of this kind for features of ``dim`` numbers."""
    return {"leaf": LeafHead, "sibling": SiblingHead}[kind](dim, chains)


def _along_paths(conditionals: Tensor, above: Tensor) -> Tensor:
    """Sums over each node and those above it: (n, O), (V, O) -> (n, V)."""
    # Not a product of matrices, which autocast and TF32 would round.
    return (conditionals[:, None] * above).sum(dim=-1)


def _surprise(logits: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """−log of the share that ``inside`` has of both sets: softplus(A(outside) − A(inside)), (…, O) -> (…)."""
    within = logits.masked_fill(~inside, _NEVER).logsumexp(dim=-1)
    beyond = logits.masked_fill(~outside, _NEVER).logsumexp(dim=-1)
    return functional.softplus(beyond - within)
