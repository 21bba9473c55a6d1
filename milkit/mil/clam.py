"""The head ``clam``: gated attention, and a branch that sorts the cells that attention ranks highest and lowest."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from milkit.mil.activations import Dropout, gated, projected
from milkit.mil.heads import NOTHING, MilOutput, Rate, Size, masked_softmax, own_rows, without_padding
from milkit.mil.packing import of_cells, packed_mean, packed_softmax

BAG_WEIGHT = 0.7
"""Share of the bag's loss in the sum; the instance branch has the rest."""

Instances = Annotated[int, Field(ge=0)]
"""Cells of a bag that the instance branch is taught with, on either side."""

MARGIN = 1.0
"""By which a cell's score should be on its side of zero."""


class Clam(nn.Module):
    """Clustering-constrained attention MIL.

    For a bag of cells x_1 … x_N and each class c:

        h_i  = relu(P x_i)
        e_ci = w_c · (tanh(V h_i) * sigmoid(U h_i))
        a_c  = softmax(e_c) over the cells of the bag
        logits_c = u_c · sum_i a_ci h_i + b_c

    Not class-wise, there is one w, one softmax and one bag vector for all classes. Dropout follows relu, tanh and
    sigmoid.

    The instance branch scores cells, s_ci = v_c · h_i + d_c (``auxiliary["scores"]``, (B, C, N)), and is taught by the
    attention. In the bag's own class, the k cells that a_c ranks highest have the target t = 1 and the k lowest -1; in
    every other class, the k highest have -1 and the lowest none:

        L = 1/C sum_c mean over these cells of log(1 + exp(MARGIN - t s_ci))
        loss = cross-entropy + (1 - BAG_WEIGHT) / BAG_WEIGHT · L

    which is the published 0.7 · bag + 0.3 · instances, divided by 0.7. The smooth SVM loss of two outputs is this one
    of their difference, so that one output is enough. k = min(n_instances, N // 2): no cell is both high and low, and a
    bag of a single cell has no instance loss.

    Source: Lu et al., "Data-efficient and weakly supervised computational pathology on whole-slide images", Nature
    Biomedical Engineering 2021 (class-wise, mutually exclusive classes); the smooth SVM of Berrada, Zisserman, Kumar,
    ICLR 2018.
    """

    def __init__(
        self, dims: tuple[int, int, int], n_classes: int, *, class_wise: bool, dropout: float, n_instances: int
    ) -> None:
        """``dims`` are the lengths of a feature, of h and of the attention layer."""
        super().__init__()
        in_dim, hidden_dim, attention_dim = dims
        self.class_wise, self.dropout, self.n_instances = class_wise, dropout, n_instances
        # Each layer's activation and dropout are one step with it (``_of_cells``).
        self.project = nn.Sequential(nn.Linear(in_dim, hidden_dim), nn.ReLU(), Dropout(dropout))
        self.value = nn.Sequential(nn.Linear(hidden_dim, attention_dim), nn.Tanh(), Dropout(dropout))
        self.gate = nn.Sequential(nn.Linear(hidden_dim, attention_dim), nn.Sigmoid(), Dropout(dropout))
        # A constant added to all scores would cancel in the softmax.
        self.score = nn.Linear(attention_dim, n_classes if class_wise else 1, bias=False)
        self.output = nn.Linear(hidden_dim, n_classes)
        self.instance = nn.Linear(hidden_dim, n_classes) if n_instances else None

    def forward(self, features: Tensor, mask: Tensor) -> MilOutput:
        """See ``milkit.mil.heads``."""
        h, scores = self._of_cells(features)
        attention = masked_softmax(scores.transpose(1, 2), mask)  # (B, N, k) -> (B, k, N)
        instances = {name: without_padding(s.transpose(1, 2), mask) for name, s in self._instances(h).items()}
        return MilOutput(self._classify(attention @ h), attention, instances)

    def forward_packed(self, features: Tensor, offsets: Sequence[int]) -> MilOutput:
        """See ``milkit.mil.heads``."""
        h, scores = self._of_cells(features)
        weights = packed_softmax(scores, offsets)
        instances = {name: s.T for name, s in self._instances(h).items()}
        return MilOutput(self._classify(packed_mean(weights, h)), of_cells(weights), instances)

    def _of_cells(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Values h and scores e of the cells: (…, D) -> (…, H) and (…, k)."""
        rate = self.dropout if self.training else 0.0
        h = projected(features, self.project, rate)
        return h, gated(h, self.value, self.gate, self.score, rate)

    def _instances(self, h: Tensor) -> Mapping[str, Tensor]:
        """The instance branch, if there is one: (…, H) -> (…, C)."""
        return {"scores": self.instance(h)} if self.instance is not None else NOTHING

    def _classify(self, z: Tensor) -> Tensor:
        """(B, k, H) -> (B, C)."""
        if self.class_wise:
            return own_rows(z, self.output)
        logits: Tensor = self.output(z[:, 0])
        return logits

    def auxiliary_loss(self, output: MilOutput, label: Tensor, mask: Tensor) -> Tensor:
        """The weighted instance loss of each bag, (B,), for classes ``label`` (B,); 0 without an instance branch."""
        if self.instance is None:
            return output.logits.new_zeros(len(label))
        scores = output.auxiliary["scores"]  # (B, C, N)
        n_cells = mask.sum(dim=1)[:, None, None]
        k = (n_cells // 2).clamp(max=self.n_instances)
        order = output.attention.masked_fill(~mask[:, None, :], -1.0).argsort(dim=2, descending=True, stable=True)
        rank = order.argsort(dim=2)  # 0 for the highest; padding comes last
        highest = rank < k
        lowest = (rank >= n_cells - k) & mask[:, None, :]
        own = functional.one_hot(label, scores.shape[1]).bool()[:, :, None]  # (B, C, 1)
        target = torch.where(own & highest, 1.0, -1.0)
        counted = highest | (own & lowest)  # (B, C, N)
        losses = functional.softplus(MARGIN - target * scores) * counted
        of_classes = losses.sum(dim=2) / counted.sum(dim=2).clamp(min=1)
        return (1 - BAG_WEIGHT) / BAG_WEIGHT * of_classes.mean(dim=1)


def clam(
    in_dim: int,
    n_classes: int,
    *,
    hidden_dim: Size = 512,
    attention_dim: Size = 256,
    class_wise: bool = True,
    dropout: Rate = 0.25,
    n_instances: Instances = 8,
) -> nn.Module:
    """CLAM (Lu et al. 2021) with its instance branch, in the published small size; for classes alone.

    ``class_wise`` is the paper's (the released ``clam_mb``); without, one attention serves all classes (``clam_sb``).
    ``n_instances: 0`` leaves the instance branch out.
    """
    dims = (in_dim, hidden_dim, attention_dim)
    return Clam(dims, n_classes, class_wise=class_wise, dropout=dropout, n_instances=n_instances)
