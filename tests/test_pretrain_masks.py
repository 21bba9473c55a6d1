"""Masks: how many patches are hidden, in how many crops, and in what shapes."""

import numpy as np
import pytest

from encoders.dinov2.masking import block_masks

GRIDS = [1, 2, 5, 8, 16]


def masks(grid: int, n_crops: int = 64, seed: int = 0, **more: float) -> np.ndarray:
    return block_masks(np.random.default_rng(seed), n_crops, grid, **more)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("n_crops", [1, 2, 7, 64])
@pytest.mark.parametrize("probability", [0.0, 0.5, 0.7, 1.0])
def test_so_many_crops_have_hidden_patches(grid: int, n_crops: int, probability: float) -> None:
    drawn = block_masks(np.random.default_rng(0), n_crops, grid, probability, (1.0, 1.0))
    assert drawn.shape == (n_crops, grid**2)
    assert drawn.dtype == np.bool_
    assert drawn.any(axis=1).sum() == int(n_crops * probability)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.31, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("grid", GRIDS)
def test_every_mask_hides_exactly_as_many_patches_as_asked_for(grid: int, share: float) -> None:
    """Also where a block of four does not fit any more, or never did."""
    for seed in range(5):
        drawn = block_masks(np.random.default_rng(seed), 64, grid, 1.0, (share, share))
        assert (drawn.sum(axis=1) == int(grid**2 * share)).all()


@pytest.mark.parametrize("grid", GRIDS)
def test_each_part_of_the_range_of_shares_has_one_mask(grid: int) -> None:
    for seed in range(5):
        counts = np.sort(masks(grid, 64, seed, probability=1.0).sum(axis=1))
        edges = grid**2 * np.linspace(0.1, 0.5, 65)
        assert (counts >= np.floor(edges[:-1])).all()
        assert (counts <= np.floor(edges[1:])).all()


def test_large_and_small_masks_come_in_no_order() -> None:
    counts = np.stack([masks(8, seed=seed).sum(axis=1) for seed in range(400)])
    hidden = (counts > 0).mean(axis=0)  # 64 crops, each with hidden patches in half of the batches
    assert abs(hidden - 0.5).max() < 4 * 0.5 / 20
    assert abs(counts.mean(axis=0) - counts.mean()).max() < 4 * counts.std() / 20


def test_the_same_state_gives_the_same_masks_and_another_gives_others() -> None:
    np.testing.assert_array_equal(masks(8), masks(8))
    assert (masks(8) != masks(8, seed=1)).any()


def shared_sides(drawn: np.ndarray, grid: int) -> float:
    """Sides between two hidden patches, for each hidden patch."""
    square = drawn.reshape(-1, grid, grid)
    sides = (square[:, 1:] & square[:, :-1]).sum() + (square[:, :, 1:] & square[:, :, :-1]).sum()
    return float(sides / square.sum())


@pytest.mark.parametrize("grid", [5, 8, 16])
def test_hidden_patches_lie_together(grid: int) -> None:
    """1 shared side a patch in a block of 2 x 2, and more in larger ones; scattered, about 2 · 0.3."""
    drawn = masks(grid, 256, probability=1.0)
    scattered = np.random.default_rng(1).permuted(drawn, axis=1)
    assert shared_sides(drawn, grid) > 2 * shared_sides(scattered, grid)


def test_a_patch_that_fills_up_lies_beside_the_block() -> None:
    """On a grid of 3 x 3, 5 patches are a block of 4, or of 3 with more beside it; alone is only what could not be."""
    for seed in range(20):
        for square in masks(3, 32, seed, probability=1.0, ratio=(5 / 9 + 1e-9,) * 2).reshape(-1, 3, 3):
            framed = np.pad(square, 1)
            beside = framed[2:, 1:-1] | framed[:-2, 1:-1] | framed[1:-1, 2:] | framed[1:-1, :-2]
            assert (square & beside).sum() >= 4


def test_blocks_lie_in_all_directions_alike() -> None:
    """The mean of many masks is the same turned by 90°, and mirrored; the middle is hidden more often than a corner."""
    mean = np.mean([masks(8, 256, seed, probability=1.0).mean(axis=0) for seed in range(40)], axis=0).reshape(8, 8)
    error = np.sqrt(0.3 * 0.7 / (40 * 256))
    for other in (np.rot90(mean), np.rot90(mean, 2), mean.T, mean[::-1]):
        assert abs(mean - other).max() < 4.5 * np.sqrt(2) * error
    assert mean[3:5, 3:5].mean() > mean[[0, 0, -1, -1], [0, -1, 0, -1]].mean() + 10 * error
