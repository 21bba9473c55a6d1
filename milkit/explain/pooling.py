"""Heads that pool by attention, taken apart, so that the logits of many parts of a bag cost little more than of one.

Such a head scores and projects every cell on its own, and only then averages. Both are done once, and a part of the bag
is another average of the same cells. ``pooled`` takes apart the heads that ``take_apart`` knows; a head of another
package joins with ``@take_apart.register``. Any other head is called on every part (``milkit.explain.parts``), with the
same result (tests/test_explain_attribution.py). Letters: N cells, k attention branches, H length of a value, C classes,
M parts.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import singledispatch

import torch
from torch import Tensor, nn

from milkit.mil.additive import Additive
from milkit.mil.clam import Clam
from milkit.mil.heads import Abmil, MeanPool, own_rows
from milkit.mil.hehr import Hehr


@dataclass(frozen=True, slots=True)
class Pooled:
    """One bag before its cells are averaged.

    Attributes:
        scores: (k, N); their softmax over the cells of a part is the attention in it.
        values: (N, H); what the attention averages.
        classify: The rest of the head, from bag vectors (M, k, H) to logits (M, C).
        covariates: (V,), of the patient, which join each bag vector before the rest; None where there are none.
    """

    scores: Tensor
    values: Tensor
    classify: Callable[[Tensor], Tensor]
    covariates: Tensor | None = None

    def logits(self, cells: Tensor) -> Tensor:
        """Of parts of equal size, given as positions of their cells: (M, n) -> (M, C)."""
        attention = torch.softmax(self.scores[:, cells], dim=2).transpose(0, 1)  # (k, M, n) -> (M, k, n)
        return self._rest(attention @ self.values[cells])

    def of_masks(self, masks: Tensor) -> Tensor:
        """Of parts of any size, (M, N) bool, true where a cell is in the part: (M, C).

        The cells' values are gathered for no part: all parts together are one matrix product.
        """
        scores = self.scores[None].masked_fill(~masks[:, None, :], float("-inf"))  # (M, k, N)
        return self._rest(torch.softmax(scores, dim=2) @ self.values)

    def leave_one_out(self) -> Tensor:
        """The logits of the bag without each cell in turn, (N, C), at the cost of O(N).

            z without j = (z - a_j h_j) / (1 - a_j)

        A cell with more than half of the attention, of which a branch has at most one, would leave a difference of
        nearly equal numbers; without it, the average is computed anew. Needs two cells.
        """
        attention = torch.softmax(self.scores, dim=1)  # (k, N)
        z = attention @ self.values  # (k, H)
        shares = attention.T[:, :, None]  # (N, k, 1)
        without = (z - shares * self.values[:, None, :]) / (1 - shares).clamp(min=0.5)
        for branch, cell in (attention > 0.5).nonzero().tolist():
            scores = self.scores[branch].clone()
            scores[cell] = float("-inf")
            without[cell, branch] = torch.softmax(scores, dim=0) @ self.values
        return self._rest(without)

    def _rest(self, z: Tensor) -> Tensor:
        if self.covariates is not None:
            z = torch.cat([z, self.covariates.expand(*z.shape[:2], -1)], dim=2)
        return self.classify(z)


def pooled(head: nn.Module, features: Tensor, covariates: Tensor | None = None) -> Pooled | None:
    """Take a head apart for one bag of (standardised) features (N, dim); None where it is of no known pooling class.

    Args:
        head: Any head. A class that only inherits from a known one may do something else with the cells, and is not
            known.
        features: Of the cells.
        covariates: (V,), of the patient, for a head that was trained with some.
    """
    return replace(take_apart(head, features), covariates=covariates) if is_pooling(head) else None


def is_pooling(head: nn.Module) -> bool:
    """Whether a head can be taken apart."""
    return type(head) in take_apart.registry


@singledispatch
def take_apart(head: nn.Module, features: Tensor) -> Pooled:
    """Of a head whose class is registered: see ``pooled``."""
    msg = f"{type(head).__name__} is not registered, for {len(features)} cells"
    raise TypeError(msg)


@take_apart.register
def _(head: Abmil, features: Tensor) -> Pooled:
    h = head.project(features)
    branch = torch.tanh(head.value(h))
    if head.gate is not None:
        branch = branch * torch.sigmoid(head.gate(h))
    scores = head.score(branch).T

    def classify(z: Tensor) -> Tensor:
        hidden = head.hidden(z)
        return own_rows(hidden, head.output) if head.class_wise else _first(hidden, head.output)

    return Pooled(scores, h, classify)


@take_apart.register
def _(head: Clam, features: Tensor) -> Pooled:
    h = head.project(features)
    scores = head.score(head.value(h) * head.gate(h)).T
    classify = own_rows if head.class_wise else _first
    return Pooled(scores, h, lambda z: classify(z, head.output))


@take_apart.register
def _(head: Hehr, features: Tensor) -> Pooled:
    scores = head.score(torch.tanh(head.value(features))).T

    def classify(z: Tensor) -> Tensor:
        return torch.cat([classifier(z[:, c]) for c, classifier in enumerate(head.classifiers)], dim=1)

    return Pooled(scores, features, classify)


@take_apart.register
def _(head: Additive, features: Tensor) -> Pooled:
    """Its classifier is homogeneous, so that the logits are an average of what each cell would score on its own."""
    h = head.project(features)
    scores = head.score(torch.tanh(head.value(h))).T
    return Pooled(scores, head.output(head.hidden(h)), lambda z: z[:, 0] + head.bias)


@take_apart.register
def _(head: MeanPool, features: Tensor) -> Pooled:
    return Pooled(features.new_zeros(1, len(features)), features, lambda z: _first(z, head.classifier))


def _first(z: Tensor, output: nn.Module) -> Tensor:
    """Logits from the only branch."""
    logits: Tensor = output(z[:, 0])
    return logits
