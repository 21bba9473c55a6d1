"""Integrated gradients on a bag: each cell's share in the way from average cells to the patient's.

    IG_ci = sum_d (x_id - b_d) * integral over t from 0 to 1 of dF_c(b + t (x - b)) / dx_id

F_c is the log-odds of class c, or what stands in its place (``parts.Asked``). The baseline b, the same for every cell,
is the mean cell of the training patients (zero where features were not standardised). The shares of all cells sum to
F_c(x) - F_c(b) ("completeness"), as closely as the integral is computed: by Gauss-Legendre quadrature, exact for smooth
functions and less so across the kinks of a ReLU; ``completeness_gap`` tells by how much.

Source: Sundararajan, Taly, Yan, "Axiomatic Attribution for Deep Networks", ICML 2017. Letters: N cells, S nodes, C
classes.
"""

import numpy as np
import torch
from torch import Tensor

from milkit.explain.parts import Bagged

_VALUES_AT_ONCE = 2**22
"""Numbers in the features of the bags on the path that are looked at together: 16 MB."""


def integrated_gradients(bag: Bagged, steps: int = 32) -> Tensor:
    """See the module's docstring: (C, N), from ``steps`` nodes."""
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    difference = bag.features - bag.model.mean
    at_once = max(1, _VALUES_AT_ONCE // bag.features.numel())
    parts = []
    for first in range(0, steps, at_once):
        chosen = slice(first, first + at_once)
        t = difference.new_tensor((nodes[chosen] + 1) / 2)[:, None, None]
        share = difference.new_tensor(weights[chosen] / 2)[:, None, None]
        slopes = _gradients(bag, bag.model.mean + t * difference)
        parts.append(torch.stack([((share * slope).sum(dim=0) * difference).sum(dim=1) for slope in slopes]))
    return torch.stack(parts).sum(dim=0)


def completeness_gap(bag: Bagged, scores: Tensor) -> float:
    """By how much integrated gradients (C, N) miss what they share out, as a part of it; the largest of the classes.

    A difference F(x) - F(b) below one step (``Asked.unit``) is counted as one, so that a class that hardly moves is not
    divided by nothing.
    """
    average = Bagged(bag.model, bag.model.mean.expand(bag.n_cells, -1), bag.covariates, bag.asked)
    moved = bag.asked.answers(bag.whole()) - bag.asked.answers(average.whole())
    return float(((scores.sum(dim=1) - moved).abs() / moved.abs().clamp(min=bag.asked.unit)).max())


def _gradients(bag: Bagged, path: Tensor) -> list[Tensor]:
    """Of each class's log-odds by the features of the bags on the path: C times (S, N, dim)."""
    path = path.detach().requires_grad_()
    odds = bag.asked.answers(bag.output(path).logits).sum(
        dim=0
    )  # bags do not touch each other: one sum serves them all
    return [torch.autograd.grad(one, path, retain_graph=True)[0] for one in odds]
