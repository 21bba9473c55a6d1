"""Layers that heads are made of, each with its activation, its dropout and their gradients as one step.

In a head as others write it, most of the time on a processor is not the matrix products': PyTorch draws the zeros of
dropout one by one, calls a slow tanh, and passes over the cells once for every operation. Here eight zeros come from
one 64-bit random number, tanh(x) = 2 sigmoid(2x) - 1, and constant factors are given to the products, which multiply
anyway. The numbers are drawn from a seed that PyTorch's own generator gives, so that ``torch.manual_seed`` determines
them. Letters: T cells (any number of axes), D and H lengths of a feature and of a hidden vector.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

STEPS = 256
"""A rate of dropout is rounded to a multiple of 1 / STEPS: a byte decides about a value."""


class Dropout(nn.Module):
    """As ``nn.Dropout``: in training a share ``rate`` of the values becomes 0, and the others grow to keep the mean."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        if not self.training or not self.rate:
            return x
        kept, factor = keep(x, self.rate)
        return x * kept.mul_(factor)


def keep(like: Tensor, rate: float) -> tuple[Tensor, float]:
    """Zeros and ones in shape and type of ``like``, a zero with probability ``rate``, and the factor 1/(1 - rate).

    The rate is rounded as ``STEPS`` says, and the factor is that of the rounded rate, so that the mean stays.
    """
    threshold = min(round(rate * STEPS), STEPS - 1)
    kept = torch.empty_like(like, memory_format=torch.contiguous_format)
    if like.device.type == "cpu":
        seed = int(torch.randint(2**63 - 1, ()))
        words = np.random.SFC64(seed).random_raw(-(-like.numel() // 8))
        drawn = torch.from_numpy(words.view(np.uint8))[: like.numel()].view(like.shape)
    else:
        drawn = torch.randint(STEPS, like.shape, dtype=torch.uint8, device=like.device)
    torch.ge(drawn, threshold, out=kept)
    return kept, STEPS / (STEPS - threshold)


def projected(x: Tensor, layer: nn.Module, rate: float = 0.0) -> Tensor:
    """Dropout of relu(layer(x)): (…, D) -> (…, H).

    A ``layer`` is a linear one or, here and below, a sequence that begins with it and ends in its activation.
    """
    y: Tensor = _Projected.apply(*_flat(x, layer), rate)
    return y.view(*x.shape[:-1], -1)


def bounded(x: Tensor, layer: nn.Module, score: nn.Linear) -> Tensor:
    """score(tanh(layer(x))): (…, D) -> (…, k)."""
    return _scored(_Bounded.apply(*_flat(x, layer), score.weight), x, score)


def gated(x: Tensor, value: nn.Module, gate: nn.Module, score: nn.Linear, rate: float = 0.0) -> Tensor:
    """score(tanh(value(x)) · sigmoid(gate(x))): (…, D) -> (…, k).

    With dropout of both factors, whose product is kept where both would be.
    """
    flat, *first = _flat(x, value)
    return _scored(_Gated.apply(flat, rate, *first, *_flat(x, gate)[1:], score.weight), x, score)


def _scored(scores: Tensor, x: Tensor, score: nn.Linear) -> Tensor:
    """With the bias, and in the shape of ``x``."""
    return (scores if score.bias is None else scores + score.bias).view(*x.shape[:-1], -1)


def _flat(x: Tensor, layer: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Cells in rows, weight and bias, in the type of the products."""
    if isinstance(layer, nn.Sequential):
        layer = layer[0]
    assert isinstance(layer, nn.Linear)
    assert layer.bias is not None
    x, tensors = x.flatten(0, -2), (layer.weight, layer.bias)
    if torch.is_autocast_enabled(x.device.type):
        kind = torch.get_autocast_dtype(x.device.type)
        return x.to(kind), tensors[0].to(kind), tensors[1].to(kind)
    return x, *tensors


def _exact(x: Tensor) -> Tensor:
    """bfloat16 has too few digits for what is between the products."""
    return x.float() if x.dtype == torch.bfloat16 else x


def _product(x: Tensor, weight: Tensor, bias: Tensor, factor: float) -> Tensor:
    """(x Wᵀ + b) · factor."""
    return torch.addmm(bias, x, weight.t(), beta=factor, alpha=factor)


def _to_input(g: Tensor, weight: Tensor, factor: Tensor | float) -> Tensor:
    """Of x, from the gradient ``g`` of ``_product`` over ``factor``, which may be one for each row of the weight."""
    return g @ (weight * factor)


def _to_layer(g: Tensor, x: Tensor, factor: Tensor | float) -> tuple[Tensor, Tensor]:
    """The same of the weight and of the bias."""
    # As a product, a sum over rows is a single pass; in bfloat16 its digits would not do.
    sums = g.sum(dim=0) if g.dtype == torch.bfloat16 else g.new_ones(len(g)) @ g
    return (g.t() @ x).mul_(factor), sums[:, None].mul_(factor)[:, 0]


def _from_score(g: Tensor, score: Tensor) -> tuple[Tensor, Tensor | float]:
    """Of y, from the gradient ``g`` (T, k) of y wᵀ, as (T, H) or (T, 1) and a factor (H, 1) for its columns.

    A single score has the gradient g wᵀ. Its w can wait for the products that follow, where it multiplies a row of a
    weight instead of a column of all cells.
    """
    return (g, score.t()) if len(score) == 1 else (g @ score, 1.0)


def _tanh_of_half(x: Tensor, factor: float = 1.0) -> Tensor:
    """tanh(x/2) · factor, in place."""
    return torch.add(x.new_tensor(-factor), x.sigmoid_(), alpha=2 * factor, out=x)


class _Projected(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, bias: Tensor, rate: float) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            kept, context.factor = keep(x.new_empty(len(x), len(weight)), rate) if rate else (None, 1.0)
            y = _product(x, weight, bias, context.factor).relu_()
            if kept is not None:
                y.mul_(kept)
        context.save_for_backward(x, weight, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, y = context.saved_tensors
        own = torch.ops.aten.threshold_backward(gradient, y, 0)  # y is above 0 where x was and was kept
        to_x = _to_input(own, weight, context.factor) if context.needs_input_grad[0] else None
        return to_x, *_to_layer(own, x, context.factor), None


class _Bounded(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, x: Tensor, weight: Tensor, bias: Tensor, score: Tensor) -> Tensor:
        score = score.to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            y = _tanh_of_half(_exact(_product(x, weight, bias, 2.0))).to(x.dtype)
            scores = y @ score.t()
        context.save_for_backward(x, weight, score, y)
        return scores

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, score, y = context.saved_tensors
        g, row = _from_score(gradient, score)
        own = torch.ops.aten.tanh_backward(g.expand_as(y), y)
        to_x = _to_input(own, weight, row) if context.needs_input_grad[0] else None
        return to_x, *_to_layer(own, x, row), gradient.t() @ y


class _Gated(torch.autograd.Function):
    """The scores of y = f t r with t = tanh, r = s k, s the sigmoid, k the zeros and ones of dropout, and its factor f.

    Gradients, from g of y:  of the tanh's argument f (g r - (g y) (f t) / f²), of the sigmoid's g y - (g y) s.
    """

    @staticmethod
    def forward(context: Any, x: Tensor, rate: float, *layers: Tensor) -> Tensor:
        value, value_bias, gate, gate_bias, score = layers
        score = score.to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            s = _exact(_product(x, gate, gate_bias, 1.0)).sigmoid_()
            kept, factor = keep(s, 1 - (1 - rate) ** 2) if rate else (None, 1.0)
            t = _tanh_of_half(_exact(_product(x, value, value_bias, 2.0)), factor)
            r = s if kept is None else torch.mul(s, kept, out=kept)
            y = t * r
            scores = y.to(x.dtype) @ score.t()
        context.factor = factor
        context.save_for_backward(x, value, gate, score, t, s, r, y)
        return scores

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, value, gate, score, t, s, r, y = context.saved_tensors
        g, row = _from_score(gradient, score)
        g, f = g.to(y.dtype), context.factor
        both = g * y
        to_value = (g * r).addcmul_(both, t, value=-1 / f**2).to(x.dtype)
        to_gate = torch.addcmul(both, both, s, value=-1).to(x.dtype)
        to_x = None
        if context.needs_input_grad[0]:
            to_x = _to_input(to_value, value, row * f).addmm_(to_gate, gate * row)
        layers = (*_to_layer(to_value, x, row * f), *_to_layer(to_gate, x, row))
        return to_x, None, *layers, gradient.t() @ y.to(x.dtype)
