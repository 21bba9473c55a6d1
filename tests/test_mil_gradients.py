"""The fast way through a head against patients one by one: the same gradients, from every patient, in every epoch."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from toys import CLASSES

from milkit.encoder import computes_in_bf16
from milkit.errors import SettingsError
from milkit.mil.batches import Bags
from milkit.mil.heads import build_head
from milkit.mil.pace import Pace, exact_products, pace_of
from milkit.mil.train import Examples, Standardised, Training, train_head
from milkit.registry import HEADS
from milkit.settings import Component, TrainingSettings

CPU = torch.device("cpu")
SIZES = [99, 3, 41, 1, 60, 17, 8, 120, 33, 52, 2, 75]
PACES = [Pace(torch.float32, n, multiple) for n, multiple in ((15_000, 1), (15_000, 32), (2**24, 1))]
HEADS_WITHOUT_DROPOUT: list[dict[str, object]] = [
    *({"name": name} for name in HEADS.names() if name not in ("clam", "transmil")),
    {"name": "abmil", "gated": True, "class_wise": True},
    {"name": "clam", "dropout": 0.0},
    {"name": "clam", "dropout": 0.0, "class_wise": False, "n_instances": 0},
    {"name": "transmil", "dropout": 0.0},
]


def simulated(dim: int = 6, seed: int = 0) -> Bags:
    """Twelve bags of very different sizes."""
    generator = torch.Generator().manual_seed(seed)
    offsets = (0, *np.cumsum(SIZES).tolist())
    features = torch.randn(offsets[-1], dim, generator=generator) * 2 + 1
    names = tuple(f"P{n:02d}" for n in range(len(SIZES)))
    return Bags(names, features, offsets, tuple(f"c{n}" for n in range(offsets[-1])))


def everybody(bags: Bags) -> Examples:
    return Examples(list(range(len(bags.patients))), [n % len(CLASSES) for n in range(len(bags.patients))])


def standardised(bags: Bags, component: dict[str, object], n_covariates: int = 0) -> Standardised:
    torch.manual_seed(5)
    head = build_head(Component.model_validate(component), bags.dim, len(CLASSES), n_covariates)
    mean, spread = bags.moments([0, 1, 2])
    return Standardised(head, mean.float(), (1 / spread).float()).train()


def one_by_one(model: Standardised, bags: Bags, train: Examples, part: list[int], weights: Tensor) -> float:
    """The textbook's way: a patient's bag as it is, its loss, its gradients; no packing, no padding, no portions."""
    total, whole = 0.0, float(sum(weights[train.labels[i]] for i in part))
    for i in part:
        bag = bags.features[bags.cells_of(train.indices[i])][None]
        mask = torch.ones(bag.shape[:2], dtype=torch.bool)
        output = model(bag, mask, None if train.covariates is None else train.covariates[[i]])
        label = torch.tensor([train.labels[i]])
        loss = functional.cross_entropy(output.logits, label)
        if hasattr(model.head, "auxiliary_loss"):
            loss = loss + model.head.auxiliary_loss(output, label, mask)[0]
        loss = weights[label[0]] / whole * loss
        loss.backward()
        total += float(loss.detach())
    return total


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("pace", PACES, ids=["portions", "rounded", "at once"])
@pytest.mark.parametrize("component", HEADS_WITHOUT_DROPOUT, ids=str)
def test_gradients_are_those_of_patients_one_by_one(component: dict[str, object], pace: Pace) -> None:
    bags = simulated()
    train, part, weights = everybody(bags), [0, 2, 3, 4, 7, 8, 9, 11], torch.tensor([0.5, 1.0, 2.0])
    model = standardised(bags, component)
    loss = one_by_one(model, bags, train, part, weights)
    expected = gradients(model)
    assert Training(model, bags, weights, pace).gradients(train, part) == pytest.approx(loss, rel=1e-5)
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        # abmil's score.bias is a constant of the softmax: its gradient is rounding alone
        assert float((found[name] - gradient).norm()) <= 1e-5 * float(gradient.norm()) + 1e-7, name


def test_gradients_with_covariates_are_those_of_patients_one_by_one() -> None:
    bags = simulated()
    train = everybody(bags)._replace(covariates=torch.randn(12, 2))
    part, weights = [1, 5, 7, 10, 11], torch.ones(3)
    model = standardised(bags, {"name": "abmil"}, 2)
    one_by_one(model, bags, train, part, weights)
    expected = gradients(model)
    Training(model, bags, weights, PACES[0]).gradients(train, part)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-5)


@pytest.mark.skipif(not computes_in_bf16(CPU), reason="this processor does not compute in bfloat16")
@pytest.mark.parametrize("component", HEADS_WITHOUT_DROPOUT, ids=str)
def test_gradients_in_half_precision_point_the_same_way(component: dict[str, object]) -> None:
    bags = simulated(dim=64)
    train, part, weights = everybody(bags), list(range(12)), torch.ones(3)
    model = standardised(bags, component)
    one_by_one(model, bags, train, part, weights)
    expected = torch.cat([g.flatten() for g in gradients(model).values()])
    Training(model, bags, weights, pace_of(CPU, "bf16")).gradients(train, part)
    found = torch.cat([g.flatten() for g in gradients(model).values()])
    assert found.dtype == torch.float32
    assert float(functional.cosine_similarity(found, expected, dim=0)) > 0.99


@pytest.mark.parametrize("head", ["abmil", "clam", "transmil"])
def test_each_training_patient_moves_the_weights_and_nobody_else_does(head: str) -> None:
    """In a single epoch, with patients in groups that do not divide evenly."""
    bags, settings = simulated(), TrainingSettings(max_epochs=1, batch_size=4, standardise=False)
    everyone = everybody(bags)
    train, validation = (Examples(everyone.indices[s], everyone.labels[s]) for s in (slice(9), slice(9, 12)))

    def trained(features: Tensor) -> Tensor:
        own = replace(bags, features=features)
        fitted = train_head(own, train, validation, len(CLASSES), Component(name=head), settings, 0)
        return torch.cat([p.detach().flatten() for p in fitted.model.parameters()])

    plain = trained(bags.features)
    moved = []
    for index in range(12):
        features = bags.features.clone()
        features[bags.cells_of(index)] += 1.0
        moved.append(not torch.equal(trained(features), plain))
    assert moved == [True] * 9 + [False] * 3


@pytest.mark.parametrize("batch_size", [1, 4, 5, 16])
def test_every_training_patient_is_in_one_step_of_every_epoch(monkeypatch: pytest.MonkeyPatch, batch_size: int) -> None:
    steps: list[list[int]] = []
    plainly = Training.gradients

    def counted(self: Training, train: Examples, part: list[int]) -> float:
        steps.append(part)
        return plainly(self, train, part)

    monkeypatch.setattr(Training, "gradients", counted)
    bags = simulated()
    settings = TrainingSettings(max_epochs=3, patience=3, batch_size=batch_size)
    train_head(bags, everybody(bags), everybody(bags), 3, Component(name="abmil"), settings, 0)
    n_steps = -(-12 // batch_size)
    assert len(steps) == 3 * n_steps
    for epoch in range(3):
        seen = Counter(i for part in steps[epoch * n_steps : (epoch + 1) * n_steps] for i in part)
        assert seen == dict.fromkeys(range(12), 1)


@pytest.mark.parametrize("rows", [1, 100, 150, 10_000])
def test_portions_hold_everybody_once_and_no_more_cells_than_wanted(rows: int) -> None:
    bags, indices = simulated(), [11, 3, 0, 7, 9]
    portions = bags.portions(indices, rows)
    assert sorted(position for portion in portions for position in portion) == [0, 1, 2, 3, 4]
    widths = [max(SIZES[indices[position]] for position in portion) for portion in portions]
    assert all(len(p) == 1 or len(p) * width <= rows for p, width in zip(portions, widths, strict=True))


def test_moments_are_those_of_all_cells_of_the_patients() -> None:
    bags, indices = simulated(), [2, 3, 7]
    cells = torch.cat([bags.features[bags.cells_of(index)] for index in indices]).double().numpy()
    mean, spread = bags.moments(indices)
    np.testing.assert_allclose(mean.numpy(), cells.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(spread.numpy(), cells.std(axis=0), rtol=1e-12)


def test_packed_cells_are_standardised_and_rounded_up_with_zeros() -> None:
    bags, shift, scale = simulated(), torch.arange(6.0), torch.full((6,), 2.0)
    features, offsets = bags.packed([4, 1], shift, scale, torch.float32, 32)
    assert (len(features), offsets) == (64, (0, 60, 63))
    for index, (start, end) in zip([4, 1], pairwise(offsets), strict=True):
        torch.testing.assert_close(features[start:end], bags.features[bags.cells_of(index)] * 2 + shift)
    assert not features[63:].any()


def test_a_precision_that_is_only_emulated_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milkit.mil.pace.computes_in_bf16", lambda _: False)
    bags, settings = simulated(), TrainingSettings(precision="bf16")
    with pytest.raises(
        SettingsError, match=r"^training\.precision was bf16, which this machine only emulates, far slower"
    ):
        train_head(bags, everybody(bags), everybody(bags), 3, Component(name="abmil"), settings, 0)


@pytest.mark.parametrize(("width", "rows"), [(4, 2**14), (512, 2**14), (1024, 2**13), (2**24, 1)])
def test_so_many_cells_go_through_a_head_that_neither_its_layers_nor_the_weights_of_many_bags_grow_large(
    width: int, rows: int
) -> None:
    layer = torch.nn.Linear(1, width, device="meta")
    assert pace_of(CPU, "fp32").rows(layer) == rows


@pytest.mark.parametrize("before", ["highest", "high", "medium"])
def test_the_process_s_way_of_multiplying_is_left_as_it_was(before: str) -> None:
    outer = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(before)
        with exact_products(CPU):
            x, w = torch.randn(64, 512), torch.randn(512, 64)
            assert float((x @ w - (x.double() @ w.double())).norm()) < 1e-6 * float((x @ w).norm())
        assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision(outer)
