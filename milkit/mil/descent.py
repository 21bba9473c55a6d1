"""Epoch after epoch until the validation loss has stopped falling."""

from collections.abc import Callable

import numpy as np
from torch import Tensor, nn

from milkit.errors import TrainingError
from milkit.settings import TrainingSettings


def descend(
    model: nn.Module, train: Callable[[], float], validate: Callable[[], float], settings: TrainingSettings
) -> tuple[int, list[tuple[float, float]]]:
    """Train a model, and leave it with the weights of its best epoch.

    Args:
        model: Whose weights ``train`` changes.
        train: Goes through one epoch and returns its mean loss.
        validate: Returns the loss that decides which epoch is the best.
        settings: How many epochs at most, and how many without a lower validation loss.

    Returns:
        The best epoch, and training and validation loss of each.

    Raises:
        TrainingError: A loss is not finite.
    """
    best, best_epoch, history = _weights_of(model), 0, list[tuple[float, float]]()
    lowest = float("inf")
    for epoch in range(settings.max_epochs):
        train_loss = train()
        validation_loss = validate()
        if not np.isfinite([train_loss, validation_loss]).all():
            msg = (
                f"The loss in epoch {epoch} was {train_loss} in training and {validation_loss} in validation, "
                "expected finite numbers; lower training.learning_rate, or look at the features."
            )
            raise TrainingError(msg)
        history.append((train_loss, validation_loss))
        if validation_loss < lowest:
            lowest, best, best_epoch = validation_loss, _weights_of(model), epoch
        if epoch - best_epoch >= settings.patience:
            break
    model.load_state_dict(best)
    return best_epoch, history


def _weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
