"""One training: one head on the training patients of one split, stopped early by its validation patients.

How patients go through the head is settled by the device and the precision alone (``Pace``) and changes no gradient:
those of a step are sums over its patients, whatever portions these come in (tests/test_mil_gradients.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from milkit.mil.batches import Bags
from milkit.mil.descent import descend
from milkit.mil.heads import MilOutput, build_head
from milkit.mil.optimiser import AdamW
from milkit.mil.pace import Pace, exact_products, pace_of
from milkit.mil.packing import padded, padding_mask
from milkit.settings import Component, TrainingSettings


class Examples(NamedTuple):
    """Patients by their position in ``Bags``, the position of each one's class, and their covariates if there are any.

    ``covariates`` are encoded, (n, n_covariates). Other targets than one of classes leave ``labels`` empty and have
    ``outcomes``, (n, columns) for each.
    """

    indices: list[int]
    labels: list[int]
    covariates: Tensor | None = None
    outcomes: tuple[Tensor, ...] = ()


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

    def forward(self, features: Tensor, mask: Tensor, covariates: Tensor | None = None) -> MilOutput:
        """Like the head's own; padding stays zero."""
        standardised = (features - self.mean) * self.scale * mask[:, :, None]
        output: MilOutput = self.head(standardised, mask, **_keyword(covariates))
        return output

    def of_bags(self, bags: Bags, indices: Sequence[int], covariates: Tensor | None, pace: Pace) -> MilOutput:
        """The head's output for some patients: packed where it can be, as ``packs`` says, and otherwise padded."""
        output: MilOutput
        if not self.packs:
            output = self(*bags.batch(indices), covariates)
            return output
        return self.of_packed(self.pack(bags, indices, pace), covariates)

    def pack(self, bags: Bags, indices: Sequence[int], pace: Pace) -> tuple[Tensor, tuple[int, ...]]:
        """Standardised cells of some patients and their offsets, for a head that packs."""
        return bags.packed(indices, -self.mean * self.scale, self.scale, pace.dtype, pace.multiple)

    def of_packed(self, packed: tuple[Tensor, tuple[int, ...]], covariates: Tensor | None) -> MilOutput:
        """The head's output for what ``pack`` made."""
        forward_packed: Callable[..., MilOutput] = self.head.forward_packed  # type: ignore[assignment]
        return forward_packed(*packed, **_keyword(covariates))

    @property
    def packs(self) -> bool:
        """Whether the head has ``forward_packed``."""
        return hasattr(self.head, "forward_packed")


def _keyword(covariates: Tensor | None) -> Mapping[str, Tensor]:
    return {} if covariates is None else {"covariates": covariates}


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
    pace = pace_of(device, settings.precision)
    n_covariates = 0 if train.covariates is None else train.covariates.shape[1]
    with exact_products(device), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        built = build_head(head, bags.dim, n_classes, n_covariates)
        model = Standardised(built, *moments(bags, train, settings)).to(device)
        weights = class_weights(train.labels, n_classes) if settings.class_weights else torch.ones(n_classes)
        training = Training(model, bags, weights.to(device), pace)
        optimiser = new_optimiser(model, settings)
        order = np.random.default_rng(seed)
        best_epoch, history = descend(
            model,
            lambda: training.epoch(train, optimiser, order, settings.batch_size),
            lambda: training.loss(validation),
            settings,
        )
    return TrainedHead(model.eval(), best_epoch, history)


@torch.no_grad()
def predict(
    model: Standardised,
    bags: Bags,
    indices: Sequence[int],
    covariates: Tensor | None = None,
    *,
    softmax: bool = True,
) -> list[tuple[Tensor, Tensor]]:
    """For each patient, class probabilities (C,), or the bare outputs, and attention (k, n_cells), on the CPU.

    Always in float32, whatever the head was trained in.
    """
    model.eval()
    device = bags.features.device
    pace = pace_of(device, "fp32")
    results: dict[int, tuple[Tensor, Tensor]] = {}
    with exact_products(device):
        for portion in bags.portions(indices, pace.rows(model.head)):
            chosen = [indices[position] for position in portion]
            own = None if covariates is None else covariates[portion].to(device)
            output = model.of_bags(bags, chosen, own, pace)
            probabilities = (output.logits.softmax(dim=1) if softmax else output.logits).cpu()
            sizes = [bags.n_cells(index) for index in chosen]
            if model.packs:
                attention = list(torch.split(output.attention[:, : sum(sizes)].cpu(), sizes, dim=1))
            else:
                attention = [a[:, :size] for a, size in zip(output.attention.cpu(), sizes, strict=True)]
            results |= dict(zip(portion, zip(probabilities, attention, strict=True), strict=True))
    return [results[position] for position in range(len(indices))]


def new_optimiser(model: nn.Module, settings: TrainingSettings) -> AdamW:
    """What the settings ask for."""
    return AdamW(model.parameters(), settings.learning_rate, settings.weight_decay)


def class_weights(labels: Sequence[int], n_classes: int) -> Tensor:
    """Weights n / (C · n_c) for each class c; 0 for a class without a training patient."""
    counts = torch.bincount(torch.tensor(labels), minlength=n_classes).float()
    return torch.where(counts > 0, len(labels) / (n_classes * counts.clamp(min=1)), 0.0)


def moments(bags: Bags, train: Examples, settings: TrainingSettings) -> tuple[Tensor, Tensor]:
    """Mean and reciprocal spread of each feature over the training patients' cells; 1 where a feature does not vary."""
    if not settings.standardise:
        return torch.zeros(bags.dim), torch.ones(bags.dim)
    mean, spread = bags.moments(train.indices)
    scale = torch.where(spread > 1e-6, 1.0 / spread.clamp(min=1e-6), 1.0)
    return mean.float(), scale.float()


@dataclass(frozen=True, slots=True)
class Training:
    """What stays the same from epoch to epoch.

    Attributes:
        model: What is trained.
        bags: Of all patients.
        weights: (C,), of the classes.
        pace: How bags go through the head.
        held: Standardised cells of the validation patients, whose portions are the same in every epoch.
    """

    model: Standardised
    bags: Bags
    weights: Tensor
    pace: Pace
    held: dict[tuple[int, ...], tuple[Tensor, tuple[int, ...]]] = field(default_factory=dict)

    def epoch(self, train: Examples, optimiser: AdamW, order: np.random.Generator, batch_size: int) -> float:
        """A step for every ``batch_size`` patients, in random order; the mean loss of a patient's step."""
        self.model.train()
        total = 0.0
        shuffled = order.permutation(len(train.indices))
        for part in np.array_split(shuffled, -(-len(shuffled) // batch_size)):
            optimiser.zero_grad()
            total += self.gradients(train, part.tolist()) * len(part)
            optimiser.step()
        return total / len(shuffled)

    def gradients(self, train: Examples, part: list[int]) -> float:
        """Add the gradients of one step to those of the parameters; its loss, of the patients at positions ``part``.

        The loss is the cross-entropy, and the head's own ``auxiliary_loss`` if it has one, each a class-weighted mean
        over the patients.
        """
        return self._over_portions(train, part, self._with_auxiliary)

    @torch.no_grad()
    def loss(self, examples: Examples) -> float:
        """The class-weighted cross-entropy."""
        self.model.eval()
        return self._over_portions(examples, list(range(len(examples.indices))), _cross_entropy)

    def _over_portions(
        self, examples: Examples, part: list[int], loss_of: Callable[[list[int], MilOutput, Tensor], Tensor]
    ) -> float:
        """The class-weighted mean of a loss, and its gradients where they are wanted."""
        device = self.bags.features.device
        labels = torch.tensor(examples.labels, device=device)
        whole = self.weights[labels[part]].sum()
        total = torch.zeros((), device=device)
        # Within one such block, weights are rounded once, and not for each portion.
        with torch.autocast(device.type, self.pace.dtype, enabled=self.pace.dtype != torch.float32):
            for portion in self.bags.portions([examples.indices[i] for i in part], self.pace.rows(self.model.head)):
                few = [part[position] for position in portion]
                covariates = None if examples.covariates is None else examples.covariates[few].to(device)
                indices = [examples.indices[i] for i in few]
                output = self._output(indices, covariates)
                losses = loss_of(indices, output, labels[few])
                loss = (self.weights[labels[few]] * losses).sum() / whole
                if torch.is_grad_enabled():
                    loss.backward()  # type: ignore[no-untyped-call]
                total += loss.detach()
        return float(total)

    def _output(self, indices: list[int], covariates: Tensor | None) -> MilOutput:
        if torch.is_grad_enabled() or not self.model.packs:
            return self.model.of_bags(self.bags, indices, covariates, self.pace)
        key = tuple(indices)
        if key not in self.held:
            self.held[key] = self.model.pack(self.bags, indices, self.pace)
        return self.model.of_packed(self.held[key], covariates)

    def _with_auxiliary(self, indices: list[int], output: MilOutput, labels: Tensor) -> Tensor:
        losses = _cross_entropy(indices, output, labels)
        if not hasattr(self.model.head, "auxiliary_loss"):
            return losses
        auxiliary: Callable[[MilOutput, Tensor, Tensor], Tensor]
        auxiliary = self.model.head.auxiliary_loss  # type: ignore[assignment]
        sizes = [self.bags.n_cells(index) for index in indices]
        if self.model.packs:
            of_cells = {name: padded(values, sizes) for name, values in output.auxiliary.items()}
            output = MilOutput(output.logits, padded(output.attention, sizes), of_cells)
        return losses + auxiliary(output, labels, padding_mask(sizes, labels.device))


def _cross_entropy(_: list[int], output: MilOutput, labels: Tensor) -> Tensor:
    return functional.cross_entropy(output.logits.float(), labels, reduction="none")
