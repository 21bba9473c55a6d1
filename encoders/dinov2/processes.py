"""What the processes of one training know of each other; a process alone gets back what it gave.

Every function is called by all processes alike, as all of ``torch.distributed``. Each process has the same number of
images and the average of their gradients is the step's, as DDP makes it: a loss that is a mean over a process' own
images, and whose sums over images come from here, has then the gradient that one process would compute.
"""

from typing import Any

import torch
from torch import Tensor, distributed


def rank() -> int:
    """Which of the processes this is, from 0."""
    return distributed.get_rank() if _together() else 0


def world_size() -> int:
    """How many processes there are."""
    return distributed.get_world_size() if _together() else 1


def summed(tensor: Tensor) -> Tensor:
    """The sum over processes, without a gradient; what was given is left as it is."""
    return _reduced(tensor, distributed.ReduceOp.SUM)


def largest(tensor: Tensor) -> Tensor:
    """The largest of all processes, number by number, without a gradient; what was given is left as it is."""
    return _reduced(tensor, distributed.ReduceOp.MAX)


def gathered(tensor: Tensor) -> Tensor:
    """The rows of all processes in the order of their ranks, equally many of each: (n, …) -> (n · world, …).

    A gradient that any process has for a row goes back to the row's owner, who gets the sum over processes.
    """
    if world_size() == 1:
        return tensor
    rows: Tensor = _Gathered.apply(tensor)
    return rows


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def _reduced(tensor: Tensor, operation: Any) -> Tensor:
    if world_size() == 1:
        return tensor.detach()
    reduced = tensor.detach().clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(reduced, operation)
    return reduced


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.rows = len(tensor)
        parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(world_size())]
        distributed.all_gather(parts, tensor.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        first = rank() * ctx.rows
        return summed(gradients[0])[first : first + ctx.rows]
