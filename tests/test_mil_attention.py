"""Attention within packed bags: by the formula, bag by bag, and as a GPU's kernel is called."""

import sys
from collections.abc import Iterator
from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from milkit.mil import attention
from milkit.mil.attention import block_diagonal_kernel, kernel_for, within_bags
from milkit.mil.transmil import transmil

OFFSETS = (0, 4, 5, 12)


def _cells(n_rows: int, device: str = "cpu", dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    torch.manual_seed(0)
    return tuple(torch.randn(n_rows, 2, 8, dtype=dtype, device=device, requires_grad=True) for _ in range(3))


def _by_formula(query: Tensor, key: Tensor, value: Tensor) -> np.ndarray:
    q, k, v = (part.detach().cpu().double().numpy() for part in (query, key, value))
    expected = np.zeros_like(v)
    for start, end in pairwise(OFFSETS):
        for head in range(q.shape[1]):
            for i in range(start, end):
                weights = np.exp(q[i, head] @ k[start:end, head].T / np.sqrt(q.shape[2]))
                expected[i, head] = weights / weights.sum() @ v[start:end, head]
    return expected


@pytest.mark.parametrize("behind", [0, 3])
def test_each_cell_gathers_from_its_own_bag_by_the_formula(behind: int) -> None:
    cells = _cells(OFFSETS[-1] + behind)
    np.testing.assert_allclose(within_bags(*cells, OFFSETS).detach().numpy(), _by_formula(*cells), atol=1e-12)


def test_gradients_are_those_of_small_differences() -> None:
    assert torch.autograd.gradcheck(lambda *cells: within_bags(*cells, OFFSETS), _cells(14))


class _Blocks:
    """What the kernel is told of the bags."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes

    @classmethod
    def from_seqlens(cls, sizes: list[int], *, device: torch.device) -> "_Blocks":
        assert device.type == "cpu"
        return cls(sizes)


def _attend(query: Tensor, key: Tensor, value: Tensor, attn_bias: _Blocks) -> Tensor:
    """As xformers documents it: (1, T, heads, d), each block apart, scores scaled by d^-0.5."""
    assert query.shape[:2] == (1, sum(attn_bias.sizes))
    blocks = torch.block_diag(*(torch.ones(size, size) for size in attn_bias.sizes)).bool()
    scores = torch.einsum("bihd,bjhd->bhij", query, key) * query.shape[3] ** -0.5
    return torch.einsum("bhij,bjhd->bihd", scores.masked_fill(~blocks, float("-inf")).softmax(dim=3), value)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """xformers as it behaves on a GPU, here; the list counts its calls."""
    calls: list[int] = []

    def counted(query: Tensor, key: Tensor, value: Tensor, attn_bias: _Blocks) -> Tensor:
        calls.append(len(attn_bias.sizes))
        return _attend(query, key, value, attn_bias)

    operators, biases = ModuleType("xformers.ops"), ModuleType("xformers.ops.fmha.attn_bias")
    vars(operators)["memory_efficient_attention"] = counted
    vars(biases)["BlockDiagonalMask"] = _Blocks
    monkeypatch.setitem(sys.modules, "xformers.ops", operators)
    monkeypatch.setitem(sys.modules, "xformers.ops.fmha.attn_bias", biases)
    block_diagonal_kernel.cache_clear()
    monkeypatch.setattr(attention, "kernel_for", lambda _: block_diagonal_kernel())
    yield calls
    block_diagonal_kernel.cache_clear()


def test_a_kernel_of_blocks_gathers_the_same(stand_in: list[int]) -> None:
    cells = _cells(15)
    np.testing.assert_allclose(within_bags(*cells, OFFSETS).detach().numpy(), _by_formula(*cells), atol=1e-12)
    assert stand_in == [3]


def test_transmil_with_the_kernel_equals_its_bags_one_by_one(stand_in: list[int]) -> None:
    torch.manual_seed(0)
    head = transmil(5, 3, hidden_dim=16, n_heads=2, depth=3).double().eval()
    features = torch.randn(OFFSETS[-1], 5, dtype=torch.float64)
    packed = head.forward_packed(features, OFFSETS)
    assert stand_in == [3, 3]
    for number, (start, end) in enumerate(pairwise(OFFSETS)):
        alone = head(features[None, start:end], torch.ones(1, end - start, dtype=torch.bool))
        torch.testing.assert_close(packed.logits[number], alone.logits[0], atol=1e-12, rtol=0)
        torch.testing.assert_close(packed.attention[:, start:end], alone.attention[0], atol=1e-12, rtol=0)


def test_a_kernel_that_has_no_code_for_the_type_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> Tensor:
        raise NotImplementedError

    monkeypatch.setattr(attention, "kernel_for", lambda _: refuses)
    cells = _cells(OFFSETS[-1])
    np.testing.assert_allclose(within_bags(*cells, OFFSETS).detach().numpy(), _by_formula(*cells), atol=1e-12)


def test_without_a_gpu_nothing_is_imported() -> None:
    assert kernel_for(torch.device("cpu")) is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_values_and_gradients_are_those_of_the_formula() -> None:
    cells, same = _cells(OFFSETS[-1], "cuda", torch.float32), _cells(OFFSETS[-1], "cuda", torch.float64)
    with torch.no_grad():
        for single, double in zip(cells, same, strict=True):
            double.copy_(single)
    mixed = within_bags(*cells, OFFSETS)
    np.testing.assert_allclose(mixed.detach().cpu().numpy(), _by_formula(*cells), atol=1e-4)
    mixed.square().sum().backward()
    within_bags(*same, OFFSETS).square().sum().backward()  # float64, which the kernel leaves to PyTorch
    for single, double in zip(cells, same, strict=True):
        assert single.grad is not None
        assert double.grad is not None
        torch.testing.assert_close(single.grad.double(), double.grad, atol=1e-3, rtol=1e-3)
