"""A linear layer for the CPU through oneDNN: the widest vectors that the processor has, and a fused GELU.

PyTorch sends float32 matrix products to MKL, which takes its narrower AVX2 path on processors that are not Intel's;
oneDNN's float32 kernel runs at 1.1 (AMD Zen 4) to 2.2 times (AMD Zen 5) its rate, with the same accuracy, and keeps
the weights in the layout that it computes in. The operators are those that ``torch.compile`` emits for the CPU; they
have no public name, so a PyTorch that lacks them gets its own linear layer, and features are checked in any case
before a store is begun (``milkit.calibration``).
"""

import functools
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional


class PackedLinear(nn.Module):
    """x Wᵀ + b, then a GELU where asked for: (rows, in) -> (rows, out), in the number type of the weights."""

    def __init__(self, weight: Tensor, bias: Tensor, activation: Literal["none", "gelu"] = "none") -> None:
        super().__init__()
        self.activation = activation
        self.out_features = len(weight)
        self.weight = _operators()._reorder_linear_weight(weight.contiguous())  # opaque layout: not a parameter
        self.bias = bias.contiguous()

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        algorithm = "none" if self.activation == "gelu" else ""  # "none" is the exact GELU, "tanh" the approximation
        y: Tensor = _operators()._linear_pointwise(x, self.weight, self.bias, self.activation, [], algorithm)
        return y


class PlainLinear(nn.Module):
    """The same with PyTorch's own operators, for GPUs, for other backends, and where oneDNN cannot be had."""

    def __init__(self, weight: Tensor, bias: Tensor, activation: Literal["none", "gelu"] = "none") -> None:
        super().__init__()
        self.activation = activation
        self.register_buffer("weight", weight.contiguous())
        self.register_buffer("bias", bias.contiguous())

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        y = functional.linear(x, self.get_buffer("weight"), self.get_buffer("bias"))
        return functional.gelu(y) if self.activation == "gelu" else y


@functools.cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this PyTorch has the operators and this processor their kernels, tried on a small product."""
    weight, bias, x = torch.eye(16, dtype=dtype) * 2, torch.ones(16, dtype=dtype), torch.ones(4, 16, dtype=dtype)
    try:
        with torch.inference_mode():
            y = PackedLinear(weight, bias)(x)
    except (AttributeError, RuntimeError):  # NotImplementedError, which missing kernels raise, is a RuntimeError
        return False
    return torch.equal(y, torch.full((4, 16), 3.0, dtype=dtype))


def _operators() -> Any:
    return torch.ops.mkldnn
