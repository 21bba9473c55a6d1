"""Softmax and sums over packed bags, against their formulas."""

import numpy as np
import pytest
import torch

from milkit.mil.packing import of_cells, packed_mean, packed_softmax, spread

OFFSETS = (0, 3, 4, 9)
BAGS = (slice(0, 3), slice(3, 4), slice(4, 9))


@pytest.mark.parametrize("behind", [0, 2])
def test_weights_are_a_softmax_over_each_bag_s_own_cells_and_exactly_zero_elsewhere(behind: int) -> None:
    scores = np.random.default_rng(0).normal(size=(9 + behind, 2)) * 30
    weights = packed_softmax(torch.from_numpy(scores), OFFSETS).numpy()
    expected = np.zeros((3, 2, 9 + behind))
    for bag, rows in enumerate(BAGS):
        shares = np.exp(scores[rows] - scores[rows].max(axis=0))
        expected[bag, :, rows] = (shares / shares.sum(axis=0)).T
    np.testing.assert_allclose(weights, expected, atol=1e-14)
    assert np.array_equal(weights == 0, expected == 0)


def test_gradients_of_weights_and_their_sums_are_those_of_small_differences() -> None:
    torch.manual_seed(0)
    scores = torch.randn(11, 2, dtype=torch.float64, requires_grad=True)
    values = torch.randn(11, 3, dtype=torch.float64, requires_grad=True)

    def pooled(scores: torch.Tensor, values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weights = packed_softmax(scores, OFFSETS)
        return packed_mean(weights, values), of_cells(weights)

    assert torch.autograd.gradcheck(pooled, (scores, values))


def test_half_precision_s_weights_are_single() -> None:
    weights = packed_softmax(torch.randn(9, 1).bfloat16(), OFFSETS)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(of_cells(weights).sum(), torch.tensor(3.0))


def test_a_bag_s_values_are_those_of_each_of_its_cells_and_of_no_row_behind() -> None:
    values = torch.tensor([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])
    expected = [1.0] * 3 + [2.0] + [3.0] * 5 + [0.0] * 2
    assert spread(values, OFFSETS, 11).tolist() == [[value, 10 * value] for value in expected]
