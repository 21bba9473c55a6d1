"""The head ``additive``: each cell's signed share in each logit, exactly."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from milkit.mil.activations import bounded, projected
from milkit.mil.heads import MilOutput, Size, masked_softmax
from milkit.mil.packing import membership, of_cells, packed_softmax


class Additive(nn.Module):
    """Attention scales each cell, a classifier scores each scaled cell, and the logits are the sums of the scores.

    For a bag of cells x_1 … x_N:

        h_i = relu(P x_i)
        a   = softmax(w · tanh(V h_i)) over the cells of the bag
        s_i = W2 relu(W1 (a_i h_i))
        logits = sum_i s_i + b

    ``auxiliary["contributions"]`` (B, C, N) holds s: what each cell adds to, or takes from, each logit, and with b all
    that a logit is made of.

    The published classifier has biases inside the sum, so that a logit has a term that grows with the number of cells
    and a bag's size alone can be a diagnosis; here W1 and W2 have none, and one bias b stands outside. The classifier
    is then homogeneous: s_i = a_i W2 relu(W1 h_i), the attention times what the cell would score on its own.

    Source: Javed et al., "Additive MIL: Intrinsically Interpretable Multiple Instance Learning for Pathology", NeurIPS
    2022.
    """

    def __init__(self, in_dim: int, n_classes: int, hidden_dim: int, attention_dim: int) -> None:
        super().__init__()
        self.project = nn.Sequential(nn.Linear(in_dim, hidden_dim), nn.ReLU())
        self.value = nn.Linear(hidden_dim, attention_dim)
        self.score = nn.Linear(attention_dim, 1, bias=False)  # a constant would cancel in the softmax
        classifier_dim = max(1, hidden_dim // 2)
        self.hidden = nn.Sequential(nn.Linear(hidden_dim, classifier_dim, bias=False), nn.ReLU())
        self.output = nn.Linear(classifier_dim, n_classes, bias=False)
        self.bias = nn.Parameter(torch.zeros(n_classes))

    def forward(self, features: Tensor, mask: Tensor) -> MilOutput:
        """See ``milkit.mil.heads``."""
        h, scores = self._of_cells(features)
        attention = masked_softmax(scores.transpose(1, 2), mask)  # (B, 1, N)
        # Attention is 0 on padding, which therefore contributes 0.
        contributions = self._contributions(attention.transpose(1, 2), h).transpose(1, 2)  # (B, N, C) -> (B, C, N)
        return MilOutput(contributions.sum(dim=2) + self.bias, attention, {"contributions": contributions})

    def forward_packed(self, features: Tensor, offsets: Sequence[int]) -> MilOutput:
        """See ``milkit.mil.heads``."""
        h, scores = self._of_cells(features)
        weights = packed_softmax(scores, offsets)  # (B, 1, T); each cell has a weight in its own bag alone
        contributions = self._contributions(weights.sum(dim=0).T, h)  # (T, C)
        sums = membership(offsets, len(h), h.device).to(contributions.dtype) @ contributions
        return MilOutput(sums + self.bias, of_cells(weights), {"contributions": contributions.T})

    def _of_cells(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Values h and their scores in the attention: (…, D) -> (…, H) and (…, 1)."""
        h = projected(features, self.project)
        return h, bounded(h, self.value, self.score)

    def _contributions(self, attention: Tensor, h: Tensor) -> Tensor:
        """(…, 1) and (…, H) -> (…, C)."""
        contributions: Tensor = self.output(self.hidden(attention * h))
        return contributions


def additive(in_dim: int, n_classes: int, *, hidden_dim: Size = 128, attention_dim: Size = 128) -> nn.Module:
    """Additive MIL (Javed et al. 2022): logits that are sums over the cells, in the sizes of ``abmil``."""
    return Additive(in_dim, n_classes, hidden_dim, attention_dim)
