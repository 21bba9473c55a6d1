"""What benchmarks/mil.py compares: one network in two hands, and the work that its floor is of."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from milkit.mil.clam import clam

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("benchmarks_mil", ROOT / "benchmarks" / "mil.py")
assert spec is not None
assert spec.loader is not None
mil = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mil)


def test_both_loops_train_the_same_network() -> None:
    """milkit's attention has no constant, which the softmax would cancel."""
    hidden, attention = mil.SAME
    ours = clam(384, 5, hidden_dim=hidden, attention_dim=attention, class_wise=False, n_instances=0)
    sizes = [sorted(p.shape for p in head.parameters() if p.dim() == 2) for head in (ours, mil.GatedAttention(384, 5))]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("dim", [384, 1024])
def test_the_floor_is_of_the_products_that_a_fold_epoch_needs(dim: int) -> None:
    head, bag = mil.GatedAttention(dim, 5), torch.randn(50, dim)
    with FlopCounterMode(display=False) as training:
        head(bag)[0].sum().backward()
    with FlopCounterMode(display=False) as looking, torch.no_grad():
        head(bag)
    counted = (training.get_total_flops() + looking.get_total_flops()) / 1e9
    assert mil.gflop(dim, "same", [50, 50]) == pytest.approx(counted, rel=0.02)
