"""MIL heads: from a bag of cell features to class logits, and the weight of each cell.

A head is any ``nn.Module`` with ``forward(features (B, N, dim), mask bool (B, N)) -> MilOutput``; ``mask`` is true
where there is a cell. There is no base class; a test over the registry holds every head to this, and to treating a bag
as a set: neither the order of its cells nor a second copy of them all changes a logit, so that their number as such
cannot be a diagnosis (the highest of more cells is still higher, which ``maxpool`` and ``dsmil`` feel). Letters: B
bags, N cells of the longest bag, D feature length, H hidden, C classes (or outputs), k attention branches (1, or C).

Three things are optional. A head that is trained by more than its logits has
``auxiliary_loss(output, label (B,), mask (B, N)) -> (B,)``, a loss a bag that training adds to the cross-entropy,
weighted by class like it. A head whose factory takes ``n_covariates`` is called with the keyword ``covariates``
(B, n_covariates), which join the bag vector where the classifier begins (late fusion). A head that can do without
padding has ``forward_packed(features (T, dim), offsets (B + 1)) -> MilOutput``, with the keyword ``covariates`` where
``forward`` has it (``milkit.mil.packing`` says what is packed, and how): the same logits, and attention and scores of
the cells as (k, T), for the rows of the bags the same as ``forward``'s.
"""

import inspect
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from milkit.errors import SettingsError
from milkit.mil.activations import bounded, gated, projected
from milkit.mil.packing import membership, of_cells, packed_mean, packed_softmax
from milkit.registry import HEADS
from milkit.settings import Component

Size = Annotated[int, Field(ge=1)]
"""A layer's width, or another count."""

Rate = Annotated[float, Field(ge=0, lt=1)]
"""Of dropout: the share of values that are set to zero in training."""

Covariates = Annotated[int, Field(ge=0)]
"""How many covariates of a patient join the bag vector."""

NOTHING: Mapping[str, Tensor] = MappingProxyType({})


class MilOutput(NamedTuple):
    """What a head returns.

    ``logits`` (B, C); ``attention`` (B, k, N), non-negative, 0 on padding, sums to 1 over the cells; ``auxiliary``
    further tensors by name; one of shape (B, k, N) holds signed scores of the cells, 0 on padding. What is (B, k, N) is
    (k, T) where the bags were packed.
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
    ``logits_c = W2_c · relu(W1 z_c + b1) + b2_c``, so that each class names its own cells. Covariates v join each bag
    vector: W1 is applied to [z, v].

    Source: Ilse, Tomczak, Welling, "Attention-based Deep Multiple Instance Learning", ICML 2018, equations 7 to 9; the
    class-wise form follows Hehr et al., PLOS Digital Health 2023, with W1 shared between classes.
    """

    def __init__(
        self, dims: tuple[int, int, int, int], n_classes: int, *, gated: bool, class_wise: bool, n_covariates: int = 0
    ) -> None:
        """``dims`` are the lengths of a feature, of h, of the attention layer and of the classifier's hidden layer."""
        super().__init__()
        in_dim, hidden_dim, attention_dim, classifier_dim = dims
        self.class_wise = class_wise
        self.project = nn.Sequential(nn.Linear(in_dim, hidden_dim), nn.ReLU())
        self.value = nn.Linear(hidden_dim, attention_dim)
        self.gate = nn.Linear(hidden_dim, attention_dim) if gated else None
        self.score = nn.Linear(attention_dim, n_classes if class_wise else 1)
        self.hidden = nn.Sequential(nn.Linear(hidden_dim + n_covariates, classifier_dim), nn.ReLU())
        self.output = nn.Linear(classifier_dim, n_classes)

    def forward(self, features: Tensor, mask: Tensor, covariates: Tensor | None = None) -> MilOutput:
        """See the module's docstring."""
        h, scores = self._of_cells(features)
        attention = masked_softmax(scores.transpose(1, 2), mask)  # (B, N, k) -> (B, k, N)
        return MilOutput(self._classify(attention @ h, covariates), attention)

    def forward_packed(self, features: Tensor, offsets: Sequence[int], covariates: Tensor | None = None) -> MilOutput:
        """See the module's docstring."""
        h, scores = self._of_cells(features)
        weights = packed_softmax(scores, offsets)
        return MilOutput(self._classify(packed_mean(weights, h), covariates), of_cells(weights))

    def _of_cells(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Values h and scores e of the cells: (…, D) -> (…, H) and (…, k)."""
        h = projected(features, self.project)
        if self.gate is None:
            return h, bounded(h, self.value, self.score)
        return h, gated(h, self.value, self.gate, self.score)

    def _classify(self, z: Tensor, covariates: Tensor | None) -> Tensor:
        """(B, k, H) -> (B, C)."""
        hidden = self.hidden(_fused(z, covariates))
        if self.class_wise:
            return own_rows(hidden, self.output)
        logits: Tensor = self.output(hidden[:, 0])
        return logits


class MeanPool(nn.Module):
    """The classifier of ``Abmil`` on the mean of the cells: what attention has to beat. Every cell weighs 1/N.

    For a bag of cells x_1 … x_N, with covariates v beside the mean where there are any:

        logits = W2 relu(W1 [sum_i x_i / N, v] + b1) + b2

    Source: the mean operator of MI-Net in Wang, Yan, Tang, Bai, Liu, "Revisiting multiple instance neural networks",
    Pattern Recognition 74, 2018.
    """

    def __init__(self, in_dim: int, hidden_dim: int, n_classes: int, n_covariates: int = 0) -> None:
        super().__init__()
        self.classifier = _two_layers(in_dim + n_covariates, hidden_dim, n_classes)

    def forward(self, features: Tensor, mask: Tensor, covariates: Tensor | None = None) -> MilOutput:
        """See the module's docstring."""
        attention = (mask / mask.sum(dim=1, keepdim=True)).to(features.dtype)[:, None, :]
        return MilOutput(self.classifier(_fused(attention @ features, covariates)[:, 0]), attention)

    def forward_packed(self, features: Tensor, offsets: Sequence[int], covariates: Tensor | None = None) -> MilOutput:
        """See the module's docstring."""
        there = membership(offsets, len(features), features.device)
        weights = (there / there.sum(dim=1, keepdim=True)).to(features.dtype)[:, None, :]
        return MilOutput(self.classifier(_fused(packed_mean(weights, features), covariates)[:, 0]), of_cells(weights))


class MaxPool(nn.Module):
    """The same classifier on every cell; the highest cell speaks for the bag, for each class its own.

    For a bag of cells x_1 … x_N:

        s_i = W2 relu(W1 x_i + b1) + b2
        logits_c = max over i of s_ic
        a_ci = 1 for the cell of the maximum, 0 for the others

    ``auxiliary["scores"]`` (B, C, N) holds s.

    Source: the max operator of mi-Net in Wang, Yan, Tang, Bai, Liu, "Revisiting multiple instance neural networks",
    Pattern Recognition 74, 2018.
    """

    def __init__(self, in_dim: int, hidden_dim: int, n_classes: int) -> None:
        super().__init__()
        self.classifier = _two_layers(in_dim, hidden_dim, n_classes)

    def forward(self, features: Tensor, mask: Tensor) -> MilOutput:
        """See the module's docstring."""
        scores = self.classifier(features).transpose(1, 2)  # (B, N, D) -> (B, C, N)
        highest = scores.masked_fill(~mask[:, None, :], float("-inf")).max(dim=2)
        attention = torch.zeros_like(scores).scatter(2, highest.indices[:, :, None], 1.0)
        return MilOutput(highest.values, attention, {"scores": without_padding(scores, mask)})


def _two_layers(in_dim: int, hidden_dim: int, n_classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(in_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, n_classes))


def _fused(z: Tensor, covariates: Tensor | None) -> Tensor:
    """The bag vectors (B, k, H), each followed by its patient's covariates (B, V): (B, k, H + V)."""
    if covariates is None:
        return z
    return torch.cat([z, covariates[:, None, :].expand(-1, z.shape[1], -1)], dim=2)


def own_rows(z: Tensor, output: nn.Linear) -> Tensor:
    """Each class's logit from its own bag vector and its own row of the weights: (B, C, H) -> (B, C)."""
    return (z * output.weight).sum(dim=2) + output.bias


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax of (B, k, N) over the cells of each bag; exactly 0 where ``mask`` (B, N) is false."""
    return torch.softmax(scores.masked_fill(~mask[:, None, :], float("-inf")), dim=2)


def without_padding(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores of cells (B, k, N), with 0 where ``mask`` (B, N) is false."""
    return scores.masked_fill(~mask[:, None, :], 0.0)


def abmil(
    in_dim: int,
    n_classes: int,
    *,
    hidden_dim: Size = 128,
    attention_dim: Size = 128,
    gated: bool = False,
    class_wise: bool = False,
    n_covariates: Covariates = 0,
) -> nn.Module:
    """Attention-based MIL (Ilse et al. 2018), plain or gated, with one attention for all classes or one for each.

    The hidden layer of the classifier is half as wide as ``hidden_dim``.
    """
    dims = (in_dim, hidden_dim, attention_dim, max(1, hidden_dim // 2))
    return Abmil(dims, n_classes, gated=gated, class_wise=class_wise, n_covariates=n_covariates)


def meanpool(in_dim: int, n_classes: int, *, hidden_dim: Size = 64, n_covariates: Covariates = 0) -> nn.Module:
    """Mean over the cells, then two linear layers: the baseline without attention."""
    return MeanPool(in_dim, hidden_dim, n_classes, n_covariates)


def maxpool(in_dim: int, n_classes: int, *, hidden_dim: Size = 64) -> nn.Module:
    """Two linear layers on every cell, then each class's highest score: the baseline that a single cell decides."""
    return MaxPool(in_dim, hidden_dim, n_classes)


def build_head(component: Component, in_dim: int, n_classes: int, n_covariates: int = 0) -> nn.Module:
    """Build the head that a component names, with fresh random weights from torch's generator.

    Raises:
        SettingsError: If the factory does not take the arguments, or takes no covariates and some are asked for.
    """
    sizes = {"in_dim": in_dim, "n_classes": n_classes}
    if n_covariates:
        if "n_covariates" not in inspect.signature(HEADS.get(component.name)).parameters:
            msg = (
                f"The head '{component.name}' cannot use covariates, and {n_covariates} were given; "
                "name a head that can (such as abmil or meanpool), or leave the covariates out."
            )
            raise SettingsError(msg)
        sizes["n_covariates"] = n_covariates
    head: Any = HEADS.build(component.name, {**sizes, **component.arguments})
    assert isinstance(head, nn.Module), f"the factory of head '{component.name}' returns no nn.Module"
    return head
