"""Bags packed one after the other, without padding: softmax and averages over each bag's own cells.

Packed features are (T, dim); ``offsets`` (B + 1) say at which row each bag begins, and where the last one ends. Rows
behind that belong to no bag: a processor that makes its matrix products for each shape anew wants few shapes.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def membership(offsets: Sequence[int], n_rows: int, device: torch.device) -> Tensor:
    """(B, T) bool, true where a row is of the bag."""
    rows = torch.arange(n_rows, device=device)
    edges = torch.tensor(offsets, device=device)
    return (rows >= edges[:-1, None]) & (rows < edges[1:, None])


def packed_softmax(scores: Tensor, offsets: Sequence[int]) -> Tensor:
    """Softmax of (T, k) over the cells of each bag: (B, k, T), exactly 0 for the cells of other bags.

    With a bag's weights in one row, its weighted mean is a matrix product, ``packed_mean``; for the few bags that go
    through a head together that costs less than to go from bag to bag.
    """
    weights: Tensor = _Softmax.apply(scores.float() if scores.dtype == torch.bfloat16 else scores, offsets)
    return weights


class _Softmax(torch.autograd.Function):
    """Without the passes over (B, k, T) that masks would take, forwards and backwards."""

    @staticmethod
    def forward(context: Any, scores: Tensor, offsets: Sequence[int]) -> Tensor:
        own = scores.new_full((len(offsets) - 1, scores.shape[1], len(scores)), float("-inf"))
        for rows, (start, end) in zip(own, pairwise(offsets), strict=True):
            rows[:, start:end] = scores[start:end].t()
        weights = own.softmax(dim=2)
        context.save_for_backward(weights)
        return weights

    @staticmethod
    @once_differentiable
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (weights,) = context.saved_tensors
        own = torch.ops.aten._softmax_backward_data(gradient, weights, 2, weights.dtype)
        return own.sum(dim=0).t(), None


def packed_mean(weights: Tensor, values: Tensor) -> Tensor:
    """Weighted sums of the cells' values: (B, k, T), (T, H) -> (B, k, H)."""
    return (weights.flatten(0, 1) @ values).reshape(*weights.shape[:2], -1)


def spread(values: Tensor, offsets: Sequence[int], n_rows: int) -> Tensor:
    """Each bag's values for each of its cells, (B, H) -> (T, H), with 0 behind the last bag."""
    sizes = torch.tensor([end - start for start, end in pairwise(offsets)], device=values.device)
    of_bags = values.repeat_interleave(sizes, dim=0, output_size=offsets[-1])
    return torch.nn.functional.pad(of_bags, (0, 0, 0, n_rows - offsets[-1]))


def of_cells(weights: Tensor) -> Tensor:
    """Each cell's weight in its own bag: (B, k, T) -> (k, T)."""
    return weights.sum(dim=0)


def padded(values: Tensor, sizes: Sequence[int]) -> Tensor:
    """Values of the packed cells of bags of these sizes, (k, T), as those of a batch: (B, k, N), 0 on padding."""
    bags = torch.split(values.T[: sum(sizes)], list(sizes))
    return torch.nn.utils.rnn.pad_sequence(list(bags), batch_first=True).transpose(1, 2)


def padding_mask(sizes: Sequence[int], device: torch.device) -> Tensor:
    """(B, N) bool, true where a batch of bags of these sizes has a cell."""
    return torch.arange(max(sizes), device=device)[None, :] < torch.tensor(sizes, device=device)[:, None]
