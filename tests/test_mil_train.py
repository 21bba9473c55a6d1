"""One training: deterministic, blind to everybody else, and fair to every training patient."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from toys import CLASSES, make_store, toy_patients

from milkit.bags import BagStore
from milkit.errors import StoreError, TrainingError
from milkit.mil.batches import Bags
from milkit.mil.heads import MeanPool, MilOutput
from milkit.mil.train import Examples, TrainedHead, class_weights, predict, train_head
from milkit.settings import Component, TrainingSettings

SETTINGS = TrainingSettings(max_epochs=6, patience=3, batch_size=4)
HEAD = Component(name="abmil")


@pytest.fixture
def bags(toy_store: BagStore) -> Bags:
    return Bags.load(toy_store, torch.device("cpu"))


def _examples(bags: Bags, indices: range) -> Examples:
    return Examples(list(indices), [i % len(CLASSES) for i in indices])


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(bags: Bags) -> None:
    first, again, other = (
        train_head(bags, _examples(bags, range(9)), _examples(bags, range(9, 12)), 3, HEAD, SETTINGS, seed).model
        for seed in (1, 1, 2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    assert not torch.equal(first.head.output.weight, other.head.output.weight)


def test_training_leaves_the_global_random_numbers_alone(bags: Bags) -> None:
    before = torch.random.get_rng_state()
    train_head(bags, _examples(bags, range(6)), _examples(bags, range(6, 9)), 3, HEAD, SETTINGS, 0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_features_of_other_patients_change_no_weight(bags: Bags) -> None:
    train, validation = _examples(bags, range(9)), _examples(bags, range(9, 12))
    plain = train_head(bags, train, validation, 3, HEAD, SETTINGS, 0).model.state_dict()
    others = bags.features.clone()
    others[bags.offsets[12] :] = 1e6
    disturbed = train_head(replace(bags, features=others), train, validation, 3, HEAD, SETTINGS, 0).model.state_dict()
    assert all(torch.equal(plain[name], disturbed[name]) for name in plain)


def test_the_best_epoch_is_the_one_of_lowest_validation_loss_and_its_weights_are_kept(bags: Bags) -> None:
    train, validation = _examples(bags, range(9)), _examples(bags, range(9, 12))
    settings = TrainingSettings(max_epochs=30, patience=3, learning_rate=0.05)
    trained = train_head(bags, train, validation, 3, HEAD, settings, 0)
    losses = [loss for _, loss in trained.history]
    assert trained.best_epoch == int(np.argmin(losses))
    stopped = train_head(
        bags, train, validation, 3, HEAD, settings.model_copy(update={"max_epochs": trained.best_epoch + 1}), 0
    )
    for name, tensor in stopped.model.state_dict().items():
        assert torch.equal(tensor, trained.model.state_dict()[name])


def test_training_stops_when_patience_is_spent(bags: Bags) -> None:
    settings = TrainingSettings(max_epochs=200, patience=2, learning_rate=0.1)
    trained = train_head(bags, _examples(bags, range(9)), _examples(bags, range(9, 12)), 3, HEAD, settings, 0)
    assert len(trained.history) == trained.best_epoch + 1 + 2


def test_standardisation_uses_the_training_cells_alone(bags: Bags) -> None:
    trained = train_head(bags, _examples(bags, range(9)), _examples(bags, range(9, 12)), 3, HEAD, SETTINGS, 0)
    rows = bags.features[: bags.offsets[9]].double()
    torch.testing.assert_close(trained.model.mean, rows.mean(0).float())
    torch.testing.assert_close(trained.model.scale, 1 / rows.std(0, correction=0).float())


def test_class_weights_are_inverse_frequencies() -> None:
    torch.testing.assert_close(class_weights([0, 0, 0, 1], 3), torch.tensor([4 / 9, 4 / 3, 0.0]))


def test_batched_prediction_equals_one_patient_at_a_time(bags: Bags) -> None:
    model = train_head(bags, _examples(bags, range(9)), _examples(bags, range(9, 12)), 3, HEAD, SETTINGS, 0).model
    together, alone = predict(model, bags, range(18)), [predict(model, bags, [index])[0] for index in range(18)]
    for (p, a), (q, b) in zip(together, alone, strict=True):
        torch.testing.assert_close(p, q, atol=1e-5, rtol=0)
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_cells_that_could_not_be_read_have_no_row(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", toy_patients(1))
    writable = BagStore(store.path, writable=True)
    features = store["P01"].features.copy()
    features[2] = np.nan
    writable.write("P01", features, np.zeros((len(features), 32), dtype=np.uint8), {"P01/image_2": "broken"})
    writable.close()
    bags = Bags.load(BagStore.open(store.path), torch.device("cpu"))
    assert "P01/image_2" not in bags.cell_ids
    assert len(bags.cell_ids) == len(store.cells) - 1
    assert not bags.features.isnan().any()


def test_a_patient_without_a_readable_cell_is_named(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", toy_patients(1))
    writable = BagStore(store.path, writable=True)
    n = len(store["P02"].cell_ids)
    writable.write(
        "P02", np.full((n, 6), np.nan), np.zeros((n, 32), dtype=np.uint8), dict.fromkeys(store["P02"].cell_ids, "x")
    )
    writable.close()
    with pytest.raises(StoreError, match=rf"None of the {n} cells of patient 'P02' could be read"):
        Bags.load(BagStore.open(store.path), torch.device("cpu"))


@pytest.mark.parametrize("rate", [1e30, 1e8])
def test_a_training_that_diverges_is_an_error_and_no_result(bags: Bags, rate: float) -> None:
    settings = TrainingSettings(learning_rate=rate, max_epochs=50, patience=50, standardise=False)
    bags.features.mul_(1e4)
    with pytest.raises(TrainingError, match=r"The loss in epoch \d+ was .* expected finite numbers; lower"):
        train_head(bags, _examples(bags, range(9)), _examples(bags, range(9, 12)), 3, HEAD, settings, 0)


class _Taught(MeanPool):
    """A head whose auxiliary loss is the number of its cells, and its parameter ``taught``, which no logit uses."""

    def __init__(self, in_dim: int, n_classes: int) -> None:
        super().__init__(in_dim, 4, n_classes)
        self.taught = torch.nn.Parameter(torch.ones(()))

    def auxiliary_loss(self, output: MilOutput, label: Tensor, mask: Tensor) -> Tensor:
        return mask.sum(dim=1) + self.taught * (label + output.logits.shape[1])


def _one_step(bags: Bags, monkeypatch: pytest.MonkeyPatch, settings: TrainingSettings) -> TrainedHead:
    """One gradient step on five patients of unequal classes, too small to move what the losses are of."""
    monkeypatch.setattr("milkit.mil.train.build_head", lambda _, in_dim, n_classes, __: _Taught(in_dim, n_classes))
    return train_head(
        bags, Examples([0, 1, 3, 6, 9], [0, 1, 0, 0, 0]), _examples(bags, range(12, 15)), 3, HEAD, settings, 0
    )


TINY_STEP = TrainingSettings(max_epochs=1, learning_rate=1e-12, weight_decay=0.0, batch_size=16)


@pytest.mark.parametrize("weighted", [True, False])
def test_the_training_loss_is_cross_entropy_and_auxiliary_loss_weighted_alike(
    bags: Bags, monkeypatch: pytest.MonkeyPatch, weighted: bool
) -> None:
    settings = TINY_STEP.model_copy(update={"class_weights": weighted})
    trained = _one_step(bags, monkeypatch, settings)
    patients, labels = [0, 1, 3, 6, 9], [0, 1, 0, 0, 0]
    logits = trained.model(*bags.batch(patients)).logits.double()
    total, shares = 0.0, 0.0
    for patient, label, row in zip(patients, labels, logits, strict=True):
        share = 5 / (3 * labels.count(label)) if weighted else 1.0
        n_cells = bags.offsets[patient + 1] - bags.offsets[patient]
        total += share * (-float(functional.log_softmax(row, dim=0)[label].detach()) + n_cells + label + 3)
        shares += share
    assert trained.history[0][0] == pytest.approx(total / shares, rel=1e-5)


def test_early_stopping_looks_at_the_cross_entropy_alone(bags: Bags, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = _one_step(bags, monkeypatch, TINY_STEP.model_copy(update={"class_weights": False}))
    probabilities = [float(p[i % 3]) for i, (p, _) in enumerate(predict(trained.model, bags, range(12, 15)))]
    assert trained.validation_loss == pytest.approx(-np.log(probabilities).mean(), rel=1e-5)


def test_parameters_of_the_auxiliary_loss_alone_are_trained(bags: Bags, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = _one_step(bags, monkeypatch, TINY_STEP.model_copy(update={"learning_rate": 0.1}))
    assert float(trained.model.head.taught.detach()) == pytest.approx(0.9)  # Adam's first step is the rate
