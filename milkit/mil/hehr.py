"""The head ``hehr``: one attention and one classifier for each class, straight on the encoder's features."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from milkit.mil.activations import bounded
from milkit.mil.heads import MilOutput, Size, masked_softmax
from milkit.mil.packing import of_cells, packed_mean, packed_softmax


class Hehr(nn.Module):
    """Class-wise attention with a classifier of its own for each class.

    For a bag of cells x_1 … x_N and each class c:

        e_ci = w_c · tanh(V x_i + d)
        a_c  = softmax(e_c) over the cells of the bag
        z_c  = sum_i a_ci x_i
        logits_c = u_c · relu(W_c z_c + b_c) + g_c

    V is shared between the classes; w_c, W_c and u_c are each class's own, so that a class's attention answers to its
    logit alone. Features are not projected first.

    Source: Hehr et al., "Explainable AI identifies diagnostic cells of genetic AML subtypes", PLOS Digital Health 2023,
    whose convolutions on the features (512 -> 500) are left out, as in the evaluation of Koch et al., "DinoBloom",
    MICCAI 2024.
    """

    def __init__(self, in_dim: int, n_classes: int, attention_dim: int, classifier_dim: int) -> None:
        super().__init__()
        self.value = nn.Linear(in_dim, attention_dim)
        self.score = nn.Linear(attention_dim, n_classes, bias=False)  # a constant would cancel in the softmax
        self.classifiers = nn.ModuleList(
            nn.Sequential(nn.Linear(in_dim, classifier_dim), nn.ReLU(), nn.Linear(classifier_dim, 1))
            for _ in range(n_classes)
        )

    def forward(self, features: Tensor, mask: Tensor) -> MilOutput:
        """See ``milkit.mil.heads``."""
        attention = masked_softmax(self._scores(features).transpose(1, 2), mask)  # (B, N, C) -> (B, C, N)
        return MilOutput(self._classify(attention @ features), attention)

    def forward_packed(self, features: Tensor, offsets: Sequence[int]) -> MilOutput:
        """See ``milkit.mil.heads``."""
        weights = packed_softmax(self._scores(features), offsets)
        return MilOutput(self._classify(packed_mean(weights, features)), of_cells(weights))

    def _scores(self, features: Tensor) -> Tensor:
        """Scores e of the cells: (…, D) -> (…, C)."""
        return bounded(features, self.value, self.score)

    def _classify(self, z: Tensor) -> Tensor:
        """(B, C, D) -> (B, C)."""
        return torch.cat([classifier(z[:, c]) for c, classifier in enumerate(self.classifiers)], dim=1)


def hehr(in_dim: int, n_classes: int, *, attention_dim: Size = 128, classifier_dim: Size = 64) -> nn.Module:
    """Class-wise attention and classifiers (Hehr et al. 2023), in the published sizes."""
    return Hehr(in_dim, n_classes, attention_dim, classifier_dim)
