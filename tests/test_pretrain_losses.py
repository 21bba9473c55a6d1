"""Losses and targets of pre-training against float64 oracles, written from the formulas, row by row."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from encoders.dinov2.losses import dino_loss, ibot_loss, koleo_loss, sinkhorn_knopp, target_entropy

Rows = np.ndarray


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).float()


def double(tensor: Tensor) -> Rows:
    return tensor.detach().double().numpy()


def balanced(logits: Rows, temperature: float, iterations: int) -> Rows:
    """Sinkhorn-Knopp as the paper has it: columns to 1 / K, rows to 1 / n, in turns; then rows to 1."""
    q = np.exp((logits - logits.max()) / temperature)
    n, k = q.shape
    q /= q.sum()
    for _ in range(iterations):
        q /= q.sum(axis=0) * k
        q /= q.sum(axis=1, keepdims=True) * n
    return q * n


def cross_entropy(target: Rows, logits: Rows, temperature: float) -> float:
    scaled = logits / temperature
    log_sum = scaled.max() + math.log(sum(math.exp(value - scaled.max()) for value in scaled))
    return -sum(t * (value - log_sum) for t, value in zip(target, scaled, strict=True))


def spread(cls: Rows, shift: float = 1e-4) -> float:
    rows = [row / math.sqrt((row**2).sum()) for row in cls]
    total = 0.0
    for i, row in enumerate(rows):
        nearest = max((j for j in range(len(rows)) if j != i), key=lambda j: row @ rows[j])
        total -= math.log(math.sqrt(((row - rows[nearest] + shift) ** 2).sum()) + 1e-8)
    return total / len(rows)


@pytest.fixture
def hidden() -> Tensor:
    """Four crops of six patches, of which 2, 0, 5 and 1 are hidden."""
    return torch.tensor([[0, 1, 0, 0, 1, 0], [0] * 6, [1, 1, 0, 1, 1, 1], [0, 0, 0, 1, 0, 0]], dtype=torch.bool)


@pytest.mark.parametrize(
    ("n", "k", "temperature", "iterations"),
    [(12, 5, 0.1, 3), (7, 40, 0.04, 3), (9, 6, 0.07, 1), (2, 4096, 0.04, 20), (600, 2, 0.04, 20)],
)
def test_sinkhorn_targets_are_those_of_the_paper(n: int, k: int, temperature: float, iterations: int) -> None:
    logits = random(n, k).tanh()  # cosines
    targets = sinkhorn_knopp(logits, temperature, iterations)
    np.testing.assert_allclose(targets.numpy(), balanced(double(logits), temperature, iterations), rtol=2e-5, atol=1e-9)


def test_each_target_is_a_distribution() -> None:
    targets = sinkhorn_knopp(random(30, 8), 0.05)
    assert (targets >= 0).all()
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(30))


def test_in_the_end_all_prototypes_are_used_equally() -> None:
    logits = random(30, 8) + torch.arange(8)  # the last would be the first choice of most
    few, many = (sinkhorn_knopp(logits, 0.5, iterations).sum(dim=0) for iterations in (3, 500))
    torch.testing.assert_close(many, torch.full((8,), 30 / 8), rtol=1e-4, atol=0)
    assert (few - 30 / 8).abs().max() > 0.01


def test_adding_a_number_to_all_logits_changes_no_target() -> None:
    logits = random(12, 6)
    torch.testing.assert_close(sinkhorn_knopp(logits + 64, 0.1), sinkhorn_knopp(logits, 0.1), rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e4])
def test_logits_of_any_size_give_distributions(scale: float) -> None:
    """exp(scale / 0.04) is far beyond float32, as is the reciprocal of its sum, also where one row has all of it."""
    logits = scale * random(12, 6)
    logits[3] += 10 * scale
    targets = sinkhorn_knopp(logits, 0.04)
    assert torch.isfinite(targets).all()
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(12))


def test_a_prototype_that_nobody_wants_gets_nothing() -> None:
    logits = random(12, 6)
    logits[:, 2] = -1e4
    targets = sinkhorn_knopp(logits, 0.1)
    assert (targets[:, 2] == 0).all()
    others = balanced(double(logits)[:, [0, 1, 3, 4, 5]], 0.1, 3)
    np.testing.assert_allclose(targets[:, [0, 1, 3, 4, 5]].numpy(), others, rtol=2e-5, atol=1e-9)


def test_no_rows_have_no_targets() -> None:
    assert sinkhorn_knopp(torch.zeros(0, 6), 0.1).shape == (0, 6)


def test_targets_have_no_gradient_and_leave_the_logits_as_they_are() -> None:
    logits = random(12, 6).requires_grad_()
    before = logits.detach().clone()
    assert not sinkhorn_knopp(logits, 0.1).requires_grad
    torch.testing.assert_close(logits.detach(), before, rtol=0, atol=0)


def test_dino_is_half_the_mean_cross_entropy_with_the_other_crop() -> None:
    student, targets = random(6, 5), random(6, 5, seed=1).softmax(dim=1)
    pairs = [(0, 3), (1, 4), (2, 5), (3, 0), (4, 1), (5, 2)]
    entropies = [cross_entropy(double(targets)[j], double(student)[i], 0.2) for i, j in pairs]
    assert dino_loss(student, targets, 0.2).item() == pytest.approx(0.5 * sum(entropies) / 6, rel=1e-6)


def test_dino_of_students_who_know_nothing_is_half_of_ln_k() -> None:
    assert dino_loss(torch.zeros(8, 32), random(8, 32).softmax(dim=1)).item() == pytest.approx(math.log(32) / 2)


def test_ibot_is_the_mean_over_crops_of_the_mean_over_hidden_patches(hidden: Tensor) -> None:
    student, targets = random(8, 5), random(8, 5, seed=1).softmax(dim=1)
    expected, row = 0.0, 0
    for crop in hidden:
        for patch in crop:
            if patch:
                entropy = cross_entropy(double(targets)[row], double(student)[row], 0.1)
                expected += entropy / int(crop.sum()) / 4
                row += 1
    assert row == 8
    assert ibot_loss(student, targets, hidden).item() == pytest.approx(expected, rel=1e-6)


def test_ibot_without_hidden_patches_is_zero_and_has_gradients_of_zero() -> None:
    weights = random(4, 5).requires_grad_()
    loss = ibot_loss(torch.zeros(0, 4) @ weights, torch.zeros(0, 5), torch.zeros(4, 6, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert weights.grad is not None
    assert (weights.grad == 0).all()


def test_the_gradient_of_a_cross_entropy_is_softmax_less_target(hidden: Tensor) -> None:
    student, targets = random(8, 5).requires_grad_(), random(8, 5, seed=1).softmax(dim=1)
    ibot_loss(student, targets, hidden, 0.1).backward()
    weights = torch.tensor([1 / 2] * 2 + [1 / 5] * 5 + [1.0])[:, None] / 4
    expected = weights * ((student.detach() / 0.1).softmax(dim=1) - targets) / 0.1
    torch.testing.assert_close(student.grad, expected)


@pytest.mark.parametrize("shape", [(9, 4), (2, 3), (40, 16)])
def test_koleo_is_the_mean_logarithm_of_the_nearest_distance(shape: tuple[int, int]) -> None:
    cls = 3 * random(*shape)
    assert koleo_loss(cls).item() == pytest.approx(spread(double(cls)), rel=1e-5)


def test_the_gradient_of_koleo_is_that_of_its_formula_by_differences() -> None:
    """Also through the row that is the neighbour: it is moved away just as the other is."""
    cls = 3 * random(9, 4).requires_grad_()
    cls.retain_grad()
    koleo_loss(cls).backward()
    expected, step = np.zeros((9, 4)), 1e-6
    for place in np.ndindex(9, 4):
        ends = []
        for sign in (1, -1):
            moved = double(cls)
            moved[place] += sign * step
            ends.append(spread(moved))
        expected[place] = (ends[0] - ends[1]) / (2 * step)
    assert cls.grad is not None
    np.testing.assert_allclose(cls.grad.numpy(), expected, rtol=2e-4, atol=1e-6)


def test_copies_of_an_image_are_as_near_as_the_shift_and_no_nearer() -> None:
    cls = random(1, 16).repeat(4, 1).requires_grad_()
    loss = koleo_loss(cls)
    loss.backward()
    assert loss.item() == pytest.approx(-math.log(4e-4), rel=1e-4)  # 1e-4 in each of 16 coordinates
    assert cls.grad is not None
    assert torch.isfinite(cls.grad).all()


def test_koleo_of_one_image_is_zero_and_has_gradients_of_zero() -> None:
    cls = random(1, 4).requires_grad_()
    loss = koleo_loss(cls)
    loss.backward()
    assert loss.item() == 0
    assert cls.grad is not None
    assert (cls.grad == 0).all()


LOSSES: dict[str, Callable[[Tensor], Tensor]] = {
    "sinkhorn": lambda x: sinkhorn_knopp(x, 0.05),
    "dino": lambda x: dino_loss(x, random(8, 16, seed=1).softmax(dim=1)),
    "ibot": lambda x: ibot_loss(x, random(8, 16, seed=1).softmax(dim=1), torch.ones(2, 4, dtype=torch.bool)),
    "koleo": koleo_loss,
}


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_changes_nothing_and_half_a_precision_in_gives_float32_out(name: str) -> None:
    x = random(8, 16)
    with torch.autocast("cpu", torch.bfloat16):
        inside, of_halves = LOSSES[name](x), LOSSES[name](x.bfloat16())
    torch.testing.assert_close(inside, LOSSES[name](x), rtol=0, atol=0)
    torch.testing.assert_close(of_halves, LOSSES[name](x.bfloat16().float()), rtol=0, atol=0)


def test_neighbours_are_told_apart_in_float32_under_autocast() -> None:
    """Cosines that differ by less than bfloat16 shows, as those of a network at its start do."""
    cls = 30 + random(40, 16)
    with torch.autocast("cpu", torch.bfloat16):
        assert koleo_loss(cls).item() == pytest.approx(spread(double(cls)), rel=1e-3)


def test_the_entropy_of_targets_is_in_nats() -> None:
    even, certain = torch.full((3, 8), 1 / 8), torch.eye(8)[:3]
    assert target_entropy(even) == pytest.approx(math.log(8))
    assert target_entropy(certain) == 0
    assert target_entropy(torch.cat([even, certain])) == pytest.approx(math.log(8) / 2)
    assert target_entropy(torch.zeros(0, 8)) == 0
