"""The head ``hehr``: one attention and one classifier for each class, straight on the encoder's features."""

import torch
from torch import Tensor, nn

from milkit.mil.heads import MilOutput, Size, masked_softmax


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
        scores = self.score(torch.tanh(self.value(features))).transpose(1, 2)  # (B, N, A) -> (B, C, N)
        attention = masked_softmax(scores, mask)
        z = attention @ features  # (B, C, N) @ (B, N, D) -> (B, C, D)
        logits = [classifier(z[:, c]) for c, classifier in enumerate(self.classifiers)]
        return MilOutput(torch.cat(logits, dim=1), attention)


def hehr(in_dim: int, n_classes: int, *, attention_dim: Size = 128, classifier_dim: Size = 64) -> nn.Module:
    """Class-wise attention and classifiers (Hehr et al. 2023), in the published sizes."""
    return Hehr(in_dim, n_classes, attention_dim, classifier_dim)
