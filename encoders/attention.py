"""Softmax attention behind one function: xformers' memory-efficient kernel on CUDA, PyTorch's own elsewhere.

All compute softmax(q kᵀ / sqrt(head_dim)) v exactly, up to rounding (Rabe and Staats, arXiv:2112.05682).
"""

import contextlib
import functools
import importlib
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]

SHORT = 300
"""Positions up to which ``short_attention`` is taken on a CPU; its gradient costs a third of the fused kernel's."""


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend to all positions: (B, N, heads, head_dim) each -> (B, N, heads, head_dim).

    ``k`` and ``v`` may have another length N than ``q``. Scores are scaled by head_dim^-0.5; there is no mask.
    """
    kernel = _memory_efficient_kernel() if q.is_cuda else None
    if kernel is not None:
        with contextlib.suppress(NotImplementedError):  # it has no code for this type on this device, such as float64
            return kernel(q, k, v)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # PyTorch wants the heads before the positions
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]  # OpenVINO knows the fused operator
    if q.device.type == "cpu" and k.shape[2] <= SHORT and not tracing:
        q = q * q.shape[-1] ** -0.5
        attended = short_attention(q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1))
        return attended.view(*q.shape[:2], *attended.shape[1:]).transpose(1, 2)
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def short_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same for few positions on a CPU: (B × heads, N, head_dim) each, contiguous; ``q`` is scaled already.

    Two batched products with the scores between them, B × heads × N² numbers: at 257 positions 1.7 times (float32) and
    2.3 times (bfloat16) as fast as PyTorch's fused kernel, which has no fast matrix product for the CPU.
    """
    # Autocast makes the softmax float32.
    return torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)), dim=-1).to(v.dtype), v)


@functools.cache
def _memory_efficient_kernel() -> Kernel | None:
    """The kernel of xformers, or None; imported on CUDA only, because elsewhere xformers warns at length."""
    try:
        kernel: Kernel = importlib.import_module("xformers.ops").memory_efficient_attention
    except (ImportError, AttributeError, OSError):  # OSError: built for another CUDA
        return None
    return kernel
