"""The optimiser of heads against PyTorch's own."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from milkit.mil.optimiser import AdamW


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3), nn.Linear(3, 3))


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_steps_are_pytorch_s_to_the_last_bit(weight_decay: float) -> None:
    """Also where a layer has a gradient in some steps only."""
    ours, theirs = _network(), _network()
    optimiser = AdamW(ours.parameters(), 0.05, weight_decay)
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.05, weight_decay=weight_decay, fused=True)
    for step in range(6):
        x = torch.randn(4, 5)
        for network, own in ((ours, optimiser), (theirs, reference)):
            own.zero_grad()
            network[: 3 + step % 2](x).square().sum().backward()
            own.step()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(a, b)


def test_a_frozen_parameter_and_one_without_gradient_stay() -> None:
    network = _network()
    network[0].requires_grad_(requires_grad=False)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    optimiser = AdamW(network.parameters(), 0.05, 0.1)
    optimiser.step()
    network[:3](torch.randn(4, 5)).sum().backward()
    optimiser.step()
    after = list(network.parameters())
    same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert same == [True, True, False, False, True, True]


def test_training_a_head_does_not_import_pytorch_s_compiler() -> None:
    """It takes longer than many a training."""
    code = (
        "import sys, torch\n"
        "from milkit.mil.optimiser import AdamW\n"
        "p = torch.nn.Parameter(torch.ones(2)); p.square().sum().backward()\n"
        "AdamW([p], 0.1, 0.1).step()\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
