"""Training on targets other than the cohort's classes: a risk, a number, or several at once.

The loss of a step may be none of single patients (Cox's compares each with all others), while only a portion of them
goes through the head at a time. So each step goes through the patients twice: once for the outputs of all, of which the
loss and its gradient are taken, and once more, with the same random numbers of dropout, to hand that gradient on. That
is the gradient of one pass over all patients together (tests/test_mil_targets.py).
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from milkit.errors import SettingsError
from milkit.mil.batches import Bags
from milkit.mil.descent import descend
from milkit.mil.heads import build_head
from milkit.mil.pace import exact_products, pace_of
from milkit.mil.train import Examples, Standardised, TrainedHead, Training, moments, new_optimiser
from milkit.settings import Component, TrainingSettings
from milkit.targets import Fitted


@dataclass(frozen=True, slots=True)
class TargetTraining(Training):
    """Like ``Training``, with the loss of targets; the weights of classes are theirs."""

    fitted: Fitted = field(kw_only=True)

    def gradients(self, train: Examples, part: list[int]) -> float:
        """Add the gradients of one step to those of the parameters; its loss, of the patients at positions ``part``."""
        device = self.bags.features.device
        cpu, cuda = torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        outputs = self._outputs(train, part).requires_grad_()
        loss = self.fitted.loss(outputs, [values[part] for values in train.outcomes])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)
        assert outputs.grad is not None
        with self._precision():
            for portion in self._portions(train, part):
                own = self._logits(train, [part[position] for position in portion])
                own.backward(outputs.grad[portion])  # type: ignore[no-untyped-call]
        return float(loss.detach())

    def loss(self, examples: Examples) -> float:
        """The targets' loss, without gradients."""
        self.model.eval()
        everybody = list(range(len(examples.indices)))
        return float(self.fitted.loss(self._outputs(examples, everybody), examples.outcomes))

    def _precision(self) -> torch.autocast:
        """A block of its own for each pass: weights that one without gradients has rounded would give none."""
        return torch.autocast(self.bags.features.device.type, self.pace.dtype, enabled=self.pace.dtype != torch.float32)

    def _portions(self, examples: Examples, part: list[int]) -> list[list[int]]:
        return self.bags.portions([examples.indices[i] for i in part], self.pace.rows(self.model.head))

    @torch.no_grad()
    def _outputs(self, examples: Examples, part: list[int]) -> Tensor:
        """(len(part), O), without gradients."""
        portions = self._portions(examples, part)
        with self._precision():
            found = torch.cat([self._logits(examples, [part[position] for position in own]) for own in portions])
        order = torch.tensor([position for own in portions for position in own], device=found.device)
        return torch.empty_like(found).index_copy(0, order, found)

    def _logits(self, examples: Examples, few: list[int]) -> Tensor:
        covariates = None if examples.covariates is None else examples.covariates[few].to(self.bags.features.device)
        output = self.model.of_bags(self.bags, [examples.indices[i] for i in few], covariates, self.pace)
        return output.logits.float()


def build_target_head(head: Component, in_dim: int, n_outputs: int, n_covariates: int) -> nn.Module:
    """Like ``build_head``; a head that learns from the classes of its bags beside the logits is a ``SettingsError``."""
    built = build_head(head, in_dim, n_outputs, n_covariates)
    if hasattr(built, "auxiliary_loss"):
        msg = (
            f"The head '{head.name}' learns from the classes of its bags, and the target is another; name a head "
            "without a loss of its own, such as abmil."
        )
        raise SettingsError(msg)
    return built


def train_on_targets(
    bags: Bags,
    train: Examples,
    validation: Examples,
    fitted: Fitted,
    head: Component,
    settings: TrainingSettings,
    seed: int,
) -> TrainedHead:
    """Like ``train_head``, for targets; where one needs all training patients in a step, every step takes them all.

    Args:
        bags: All bags; only those of the two sets are read.
        train: Patients that the gradients come from; ``outcomes`` for each target.
        validation: Patients that early stopping looks at; who lacks all outcomes plays no part.
        fitted: The targets, with what is estimated from ``train``.
        head: Which head.
        settings: Optimiser and stopping.
        seed: Determines initialisation, order and dropout.
    """
    device = bags.features.device
    pace = pace_of(device, settings.precision)
    n_covariates = 0 if train.covariates is None else train.covariates.shape[1]
    n_outputs = fitted.slices[-1].stop
    if any(target.whole for target in fitted.targets):
        settings = settings.model_copy(update={"batch_size": max(1, len(train.indices))})
    with exact_products(device), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        built = build_target_head(head, bags.dim, n_outputs, n_covariates)
        model = Standardised(built, *moments(bags, train, settings)).to(device)
        train, validation = (
            part._replace(outcomes=tuple(values.to(device) for values in part.outcomes)) for part in (train, validation)
        )
        training = TargetTraining(model, bags, torch.ones(0), pace, fitted=fitted)
        optimiser, order = new_optimiser(model, settings), np.random.default_rng(seed)
        best_epoch, history = descend(
            model,
            lambda: training.epoch(train, optimiser, order, settings.batch_size),
            lambda: training.loss(validation),
            settings,
        )
    return TrainedHead(model.eval(), best_epoch, history)
