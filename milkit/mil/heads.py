"""MIL heads: from a bag of cell features to class logits, and the weight of each cell.

A head is any ``nn.Module`` with ``forward(features (B, N, dim), mask bool (B, N)) -> MilOutput``; ``mask`` is true
where there is a cell. There is no base class; a test over the registry holds every head to this. Letters: B bags, N
cells of the longest bag, D feature length, H hidden, C classes (or outputs), k attention branches (1, or C).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from milkit.registry import HEADS
from milkit.settings import Component

Size = Annotated[int, Field(ge=1)]
"""A layer's width."""

NOTHING: Mapping[str, Tensor] = MappingProxyType({})


class MilOutput(NamedTuple):
    """What a head returns.

    ``logits`` (B, C); ``attention`` (B, k, N), non-negative, 0 on padding, sums to 1 over the cells; ``auxiliary``
    further tensors by name, such as signed scores.
    """

    logits: Tensor
    attention: Tensor
    auxiliary: Mapping[str, Tensor] = NOTHING


class Abmil(nn.Module):
    """Attention-based MIL, with a classifier of two linear layers and a ReLU between.

    For a bag of cells x_1 … x_N:

        h_i = relu(P x_i)
        e_i = w · tanh(V h_i)                      gated: w · (tanh(V h_i) * sigmoid(U h_i))
        a   = softmax(e) over the cells of the bag
        z   = sum_i a_i h_i
        logits = W2 relu(W1 z + b1) + b2

    Class-wise, there is one row of w, one softmax and one z a class, and the logit of class c comes from z_c alone:
    ``logits_c = W2_c · relu(W1 z_c + b1) + b2_c``, so that each class names its own cells.

    Source: Ilse, Tomczak, Welling, "Attention-based Deep Multiple Instance Learning", ICML 2018, equations 7 to 9; the
    class-wise form follows Hehr et al., PLOS Digital Health 2023, with W1 shared between classes.
    """

    def __init__(self, dims: tuple[int, int, int, int], n_classes: int, *, gated: bool, class_wise: bool) -> None:
        """``dims`` are the lengths of a feature, of h, of the attention layer and of the classifier's hidden layer."""
        super().__init__()
        in_dim, hidden_dim, attention_dim, classifier_dim = dims
        self.class_wise = class_wise
        self.project = nn.Sequential(nn.Linear(in_dim, hidden_dim), nn.ReLU())
        self.value = nn.Linear(hidden_dim, attention_dim)
        self.gate = nn.Linear(hidden_dim, attention_dim) if gated else None
        self.score = nn.Linear(attention_dim, n_classes if class_wise else 1)
        self.hidden = nn.Sequential(nn.Linear(hidden_dim, classifier_dim), nn.ReLU())
        self.output = nn.Linear(classifier_dim, n_classes)

    def forward(self, features: Tensor, mask: Tensor) -> MilOutput:
        """See the module's docstring."""
        h = self.project(features)  # (B, N, D) -> (B, N, H)
        branch = torch.tanh(self.value(h))
        if self.gate is not None:
            branch = branch * torch.sigmoid(self.gate(h))
        scores = self.score(branch).transpose(1, 2)  # (B, N, A) -> (B, k, N)
        attention = masked_softmax(scores, mask)
        z = self.hidden(attention @ h)  # (B, k, N) @ (B, N, H) -> (B, k, H')
        logits = (z * self.output.weight).sum(dim=2) + self.output.bias if self.class_wise else self.output(z[:, 0])
        return MilOutput(logits, attention)


class MeanPool(nn.Module):
    """The classifier of ``Abmil`` on the mean of the cells: what attention has to beat. Every cell weighs 1/N."""

    def __init__(self, in_dim: int, hidden_dim: int, n_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Sequential(nn.Linear(in_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, n_classes))

    def forward(self, features: Tensor, mask: Tensor) -> MilOutput:
        """See the module's docstring."""
        attention = (mask / mask.sum(dim=1, keepdim=True)).to(features.dtype)[:, None, :]
        return MilOutput(self.classifier((attention @ features)[:, 0]), attention)


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax of (B, k, N) over the cells of each bag; exactly 0 where ``mask`` (B, N) is false."""
    return torch.softmax(scores.masked_fill(~mask[:, None, :], float("-inf")), dim=2)


def abmil(
    in_dim: int,
    n_classes: int,
    *,
    hidden_dim: Size = 128,
    attention_dim: Size = 128,
    classifier_dim: Size = 64,
    gated: bool = False,
    class_wise: bool = False,
) -> nn.Module:
    """Attention-based MIL (Ilse et al. 2018), plain or gated, with one attention for all classes or one for each."""
    return Abmil((in_dim, hidden_dim, attention_dim, classifier_dim), n_classes, gated=gated, class_wise=class_wise)


def meanpool(in_dim: int, n_classes: int, *, hidden_dim: Size = 64) -> nn.Module:
    """Mean over the cells, then two linear layers: the baseline without attention."""
    return MeanPool(in_dim, hidden_dim, n_classes)


def build_head(component: Component, in_dim: int, n_classes: int) -> nn.Module:
    """Build the head that a component names, with fresh random weights from torch's generator."""
    head: Any = HEADS.build(component.name, {"in_dim": in_dim, "n_classes": n_classes, **component.arguments})
    assert isinstance(head, nn.Module), f"the factory of head '{component.name}' returns no nn.Module"
    return head
