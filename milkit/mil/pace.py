"""How bags go through a head: what suits the device and the precision, and changes no result beyond rounding."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn

from milkit.encoder import computes_in_bf16, keep_freed_memory
from milkit.errors import SettingsError
from milkit.execution import onednn_is_exact
from milkit.settings import Precision

VALUES = {"cpu": 2**23, "cuda": 2**24}
"""Of the cells that go through a head together, in its widest layer: where fewer calls stop paying, or fill a GPU."""

ROWS = {"cpu": 2**14, "cuda": 2**17}
"""The most cells that do: with bags of few cells, packed weights (bags times cells) grow with their square."""

MULTIPLE = 256
"""Of cells, where oneDNN computes: it compiles its products for each shape anew."""


class Pace(NamedTuple):
    """How bags go through a head.

    Attributes:
        dtype: Of the factors of the products.
        values: ``VALUES`` of the device.
        multiple: What the number of cells is rounded up to.
        most: ``ROWS`` of the device.
    """

    dtype: torch.dtype
    values: int
    multiple: int
    most: int = ROWS["cuda"]

    def rows(self, head: nn.Module) -> int:
        """How many cells go through a head together."""
        widest = max((len(p) for p in head.parameters() if p.dim() == 2), default=1)
        return min(self.most, max(1, self.values // widest))


def pace_of(device: torch.device, precision: Precision) -> Pace:
    """What suits a device.

    Raises:
        SettingsError: If it does not compute in the precision.
    """
    if precision == "bf16" and not computes_in_bf16(device):
        msg = (
            "training.precision was bf16, which this machine only emulates, far slower than fp32; leave "
            "training.precision at fp32."
        )
        raise SettingsError(msg)
    onednn = device.type == "cpu" and (precision == "bf16" or onednn_is_exact())
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    kind = device.type if device.type in VALUES else "cpu"
    return Pace(dtype, VALUES[kind], MULTIPLE if onednn else 1, ROWS[kind])


@contextlib.contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Let a processor compute float32 products in the fastest way that is float32, and keep the memory it frees."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cpu":
        keep_freed_memory()
        torch.set_float32_matmul_precision("medium" if onednn_is_exact() else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
