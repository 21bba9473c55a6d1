"""AdamW, for the small networks that heads are."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""PyTorch's own defaults."""


class AdamW:
    """``torch.optim.AdamW`` as a single pass over the parameters, the same to the last bit.

    PyTorch's class imports its compiler where it is first made, two seconds of a processor, and looks after hooks,
    groups and states at every step, a good part of a step of a small head. Here are the formula's tensors alone.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float) -> None:
        """``weight_decay`` is a share of the learning rate, as in PyTorch."""
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.means = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.squares = [torch.zeros_like(parameter) for parameter in self.parameters]
        self.steps = [torch.zeros((), dtype=torch.float32, device=parameter.device) for parameter in self.parameters]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Change each parameter that has a gradient."""
        there = [
            (parameter, parameter.grad, *state)
            for parameter, *state in zip(self.parameters, self.means, self.squares, self.steps, strict=True)
            if parameter.grad is not None
        ]
        if not there:
            return
        columns: list[list[Tensor]] = [list(column) for column in zip(*there, strict=True)]
        parameters, gradients, means, squares, steps = columns
        adamw(
            parameters,
            gradients,
            means,
            squares,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            eps=EPSILON,
            maximize=False,
        )
