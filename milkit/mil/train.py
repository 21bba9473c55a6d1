"""One training: one head on the training patients of one split, stopped early by its validation patients."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from milkit.errors import TrainingError
from milkit.mil.batches import Bags
from milkit.mil.heads import MilOutput, build_head
from milkit.settings import Component, TrainingSettings


class Examples(NamedTuple):
    """Patients by their position in ``Bags``, and the position of each one's class."""

    indices: list[int]
    labels: list[int]


@dataclass(frozen=True, slots=True)
class TrainedHead:
    """A head with the weights of its best epoch, and the losses that led there."""

    model: "Standardised"
    best_epoch: int
    history: list[tuple[float, float]]
    """Mean training and validation loss of each epoch; what a head's ``auxiliary_loss`` adds is in the former alone."""

    @property
    def validation_loss(self) -> float:
        """The lowest validation loss: that of the best epoch."""
        return self.history[self.best_epoch][1]


class Standardised(nn.Module):
    """A head behind the centring and scaling of the features that it was trained with; both are saved together."""

    mean: Tensor
    scale: Tensor

    def __init__(self, head: nn.Module, mean: Tensor, scale: Tensor) -> None:
        """``mean`` is subtracted from, and ``scale`` multiplied to, each feature (both of length dim)."""
        super().__init__()
        self.head = head
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)

    def forward(self, features: Tensor, mask: Tensor) -> MilOutput:
        """Like the head's own; padding stays zero."""
        standardised = (features - self.mean) * self.scale * mask[:, :, None]
        output: MilOutput = self.head(standardised, mask)
        return output


def train_head(
    bags: Bags,
    train: Examples,
    validation: Examples,
    n_classes: int,
    head: Component,
    settings: TrainingSettings,
    seed: int,
) -> TrainedHead:
    """Train one head; the same arguments give the same weights.

    Nothing of any other patient enters: class weights and standardisation come from ``train`` alone, and the epoch is
    chosen by the (class-weighted) cross-entropy of ``validation`` alone. Every training patient contributes to every
    epoch.

    Args:
        bags: All bags; only those of the two sets are read.
        train: Patients that the gradients come from.
        validation: Patients that early stopping looks at.
        n_classes: Number of logits.
        head: Which head.
        settings: Optimiser and stopping.
        seed: Determines initialisation, order and dropout.
    """
    device = bags.features.device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = Standardised(build_head(head, bags.dim, n_classes), *_moments(bags, train, settings)).to(device)
        weights = class_weights(train.labels, n_classes).to(device) if settings.class_weights else None
        optimiser = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
        order = np.random.default_rng(seed)
        best, best_epoch, history = copy.deepcopy(model.state_dict()), 0, list[tuple[float, float]]()
        lowest = float("inf")
        for epoch in range(settings.max_epochs):
            train_loss = _one_epoch(model, optimiser, bags, train, (weights, order, settings.batch_size))
            validation_loss = _loss(model, bags, validation, weights)
            if not np.isfinite([train_loss, validation_loss]).all():
                msg = (
                    f"The loss in epoch {epoch} was {train_loss} in training and {validation_loss} in validation, "
                    "expected finite numbers; lower training.learning_rate, or look at the features."
                )
                raise TrainingError(msg)
            history.append((train_loss, validation_loss))
            if validation_loss < lowest:
                lowest, best, best_epoch = validation_loss, copy.deepcopy(model.state_dict()), epoch
            if epoch - best_epoch >= settings.patience:
                break
        model.load_state_dict(best)
    return TrainedHead(model.eval(), best_epoch, history)


@torch.no_grad()
def predict(model: nn.Module, bags: Bags, indices: Sequence[int], batch_size: int = 16) -> list[tuple[Tensor, Tensor]]:
    """For each patient, class probabilities (C,) and attention (k, n_cells), on the CPU."""
    model.eval()
    results: list[tuple[Tensor, Tensor]] = []
    for start in range(0, len(indices), batch_size):
        chosen = list(indices[start : start + batch_size])
        output: MilOutput = model(*bags.batch(chosen))
        probabilities = output.logits.float().softmax(dim=1).cpu()
        attention = output.attention.float().cpu()
        for row, index in enumerate(chosen):
            cells = bags.cells_of(index)
            results.append((probabilities[row], attention[row, :, : cells.stop - cells.start]))
    return results


def class_weights(labels: Sequence[int], n_classes: int) -> Tensor:
    """Weights n / (C · n_c) for each class c; 0 for a class without a training patient."""
    counts = torch.bincount(torch.tensor(labels), minlength=n_classes).float()
    return torch.where(counts > 0, len(labels) / (n_classes * counts.clamp(min=1)), 0.0)


def _moments(bags: Bags, train: Examples, settings: TrainingSettings) -> tuple[Tensor, Tensor]:
    """Mean and reciprocal spread of each feature over the training patients' cells; 1 where a feature does not vary."""
    if not settings.standardise:
        return torch.zeros(bags.dim), torch.ones(bags.dim)
    cells = [bags.features[bags.cells_of(index)] for index in train.indices]  # bag by bag: float64 of all is too large
    n_cells = sum(map(len, cells))
    mean = torch.stack([bag.double().sum(dim=0) for bag in cells]).sum(dim=0) / n_cells
    squares = torch.stack([(bag.double() - mean).square().sum(dim=0) for bag in cells]).sum(dim=0)
    spread = (squares / n_cells).sqrt()
    scale = torch.where(spread > 1e-6, 1.0 / spread.clamp(min=1e-6), 1.0)
    return mean.float(), scale.float()


def _one_epoch(
    model: Standardised,
    optimiser: torch.optim.Optimizer,
    bags: Bags,
    train: Examples,
    plan: tuple[Tensor | None, np.random.Generator, int],
) -> float:
    weights, order, batch_size = plan
    model.train()
    total = 0.0
    shuffled = order.permutation(len(train.indices))
    for part in np.array_split(shuffled, -(-len(shuffled) // batch_size)):
        labels = torch.tensor([train.labels[i] for i in part], device=bags.features.device)
        loss = _training_loss(model, bags.batch([train.indices[i] for i in part]), labels, weights)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += float(loss.detach()) * len(part)
    return total / len(shuffled)


def _training_loss(model: Standardised, batch: tuple[Tensor, Tensor], labels: Tensor, weights: Tensor | None) -> Tensor:
    """Cross-entropy, and the head's own ``auxiliary_loss`` if it has one, each a class-weighted mean over the bags."""
    output: MilOutput = model(*batch)
    loss = functional.cross_entropy(output.logits, labels, weight=weights)
    auxiliary: Callable[[MilOutput, Tensor, Tensor], Tensor] | None = getattr(model.head, "auxiliary_loss", None)
    if auxiliary is None:
        return loss
    of_bags = auxiliary(output, labels, batch[1])
    shares = torch.ones_like(of_bags) if weights is None else weights[labels]
    return loss + (shares * of_bags).sum() / shares.sum()


@torch.no_grad()
def _loss(model: nn.Module, bags: Bags, examples: Examples, weights: Tensor | None) -> float:
    model.eval()
    probabilities = torch.stack([p for p, _ in predict(model, bags, examples.indices)])
    log_likelihood = probabilities.clamp(min=1e-12).log()
    cpu_weights = None if weights is None else weights.cpu()
    return float(functional.nll_loss(log_likelihood, torch.tensor(examples.labels), weight=cpu_weights))
