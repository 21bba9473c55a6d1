"""Self-attention within packed bags: xformers' block-diagonal kernel on CUDA, PyTorch's bag by bag elsewhere.

Both compute softmax(q kᵀ / sqrt(d)) v over the cells of a bag exactly, up to rounding (Rabe and Staats,
arXiv:2112.05682); the kernel takes all bags at once and never writes the scores down.
"""

import contextlib
import functools
import importlib
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

Kernel = Callable[[Tensor, Tensor, Tensor, list[int]], Tensor]
"""Queries, keys and values (T, heads, d), and the sizes of the bags -> (T, heads, d)."""


def within_bags(query: Tensor, key: Tensor, value: Tensor, offsets: Sequence[int]) -> Tensor:
    """What each cell gathers from all cells of its own bag: (T, heads, d) each -> (T, heads, d).

    Rows behind the last bag (``milkit.mil.packing``) become 0.
    """
    sizes, end = [stop - start for start, stop in pairwise(offsets)], offsets[-1]
    mixed = _mixed(query[:end], key[:end], value[:end], sizes)
    return functional.pad(mixed, (0, 0, 0, 0, 0, len(query) - end)) if end < len(query) else mixed


def _mixed(query: Tensor, key: Tensor, value: Tensor, sizes: list[int]) -> Tensor:
    kernel = kernel_for(query.device)
    if kernel is not None:
        with contextlib.suppress(NotImplementedError):  # it has no code for this type or length on this device
            return kernel(query, key, value, sizes)
    parts = (torch.split(cells.transpose(0, 1), sizes, dim=1) for cells in (query, key, value))
    bags = zip(*parts, strict=True)
    own = [functional.scaled_dot_product_attention(*(cells[None] for cells in bag))[0] for bag in bags]
    return torch.cat(own, dim=1).transpose(0, 1)


def kernel_for(device: torch.device) -> Kernel | None:
    """That of xformers where there is a GPU and it is installed for it; imported there only: elsewhere it warns."""
    return block_diagonal_kernel() if device.type == "cuda" else None


@functools.cache
def block_diagonal_kernel() -> Kernel | None:
    """The memory-efficient attention of xformers with one block a bag, or None where it cannot be imported."""
    try:
        attend = importlib.import_module("xformers.ops").memory_efficient_attention
        blocks = importlib.import_module("xformers.ops.fmha.attn_bias").BlockDiagonalMask
    except (ImportError, AttributeError, OSError):  # OSError: built for another CUDA
        return None

    def kernel(query: Tensor, key: Tensor, value: Tensor, sizes: list[int]) -> Tensor:
        own = blocks.from_seqlens(sizes, device=query.device)
        mixed: Tensor = attend(query[None], key[None], value[None], attn_bias=own)
        return mixed[0]

    return kernel
