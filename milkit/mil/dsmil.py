"""The head ``dsmil``: for each class the most telling cell, and attention by likeness to it."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from milkit.mil.heads import MilOutput, Size, masked_softmax, without_padding


class Dsmil(nn.Module):
    """Dual-stream MIL: a classifier of cells finds each class's critical cell; cells like it make the bag vector.

    For a bag of cells x_1 … x_N and each class c, with Q the length of a query:

        s_ci = w_c · x_i + d_c                          the instance stream (``auxiliary["scores"]``, (B, C, N))
        m_c  = the cell of the highest s_ci             the critical cell
        a_ci = softmax over i of q_i · q_{m_c} / sqrt(Q),   q_i = W_q x_i + b_q
        z_c  = sum_i a_ci v_i,                              v_i = W_v x_i + b_v
        logits = W_b [z_1 … z_C] + b_b                  the bag stream
        loss = cross-entropy(logits) + cross-entropy(max over i of s_ci)

    The paper averages the two streams' scores; the released code gives each stream half of the loss and predicts with
    the bag stream, which is what stands here (times 2). There each class is a problem of its own (sigmoids), and here
    one of them is true (softmax).

    Source: Li, Li, Eliceiri, "Dual-stream Multiple Instance Learning Network for Whole Slide Image Classification with
    Self-supervised Contrastive Learning", CVPR 2021.
    """

    def __init__(self, in_dim: int, n_classes: int, query_dim: int) -> None:
        super().__init__()
        self.instance = nn.Linear(in_dim, n_classes)
        self.query = nn.Linear(in_dim, query_dim)
        self.value = nn.Linear(in_dim, in_dim)
        self.output = nn.Linear(n_classes * in_dim, n_classes)

    def forward(self, features: Tensor, mask: Tensor) -> MilOutput:
        """See ``milkit.mil.heads``."""
        scores = self.instance(features).transpose(1, 2)  # (B, N, D) -> (B, C, N)
        critical = scores.masked_fill(~mask[:, None, :], float("-inf")).argmax(dim=2)  # (B, C)
        queries = self.query(features)  # (B, N, Q)
        theirs = queries.gather(1, critical[:, :, None].expand(-1, -1, queries.shape[2]))  # (B, C, Q)
        likeness = theirs @ queries.transpose(1, 2) / math.sqrt(queries.shape[2])  # (B, C, N)
        attention = masked_softmax(likeness, mask)
        z = attention @ self.value(features)  # (B, C, N) @ (B, N, D) -> (B, C, D)
        return MilOutput(self.output(z.flatten(1)), attention, {"scores": without_padding(scores, mask)})

    def auxiliary_loss(self, output: MilOutput, label: Tensor, mask: Tensor) -> Tensor:
        """The cross-entropy of the instance stream for each bag, (B,), for classes ``label`` (B,)."""
        scores = output.auxiliary["scores"].masked_fill(~mask[:, None, :], float("-inf"))
        return functional.cross_entropy(torch.amax(scores, dim=2), label, reduction="none")


def dsmil(in_dim: int, n_classes: int, *, query_dim: Size = 128) -> nn.Module:
    """Dual-stream MIL (Li et al. 2021), with its linear queries and values; for classes alone."""
    return Dsmil(in_dim, n_classes, query_dim)
