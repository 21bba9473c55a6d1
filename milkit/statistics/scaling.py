"""What one temperature a split, fitted on its validation patients, makes of the tested patients' probabilities.

``predictions.csv`` keeps the probabilities as they are; this tells whether scaling them would be worth it. The
validation patients are neither trained on nor tested, but they chose the epoch, so that a temperature is a little too
near 1.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from milkit.predictions import Predictions
from milkit.statistics.out_of_fold import OutOfFold, RepeatMetric, Resamples
from milkit.statistics.reliability import calibration
from milkit.statistics.temperature import fit_temperature, logits_of, scaled

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def temperature_scaling(predictions: Predictions, validated: Predictions, resamples: Resamples) -> dict[str, Any]:
    """``temperatures`` of the splits, repeat by repeat, and what they change for the tested patients.

    ``log_loss`` has ``before``, ``after`` and their ``difference``; ``calibration`` is of the scaled probabilities.

    Args:
        predictions: Of the tested patients.
        validated: Of the validation patients of the same splits; a split without any has a temperature of 1.
        resamples: Of the tested patients.
    """
    fitted = _temperatures(validated)
    table = predictions.table
    splits = list(zip(table["repeat"].astype(int), table["fold"].astype(int), strict=True))
    each = np.array([fitted.get(split, 1.0) for split in splits])
    shares = scaled(logits_of(predictions.probabilities) / each[:, None], 1.0)
    after = table.assign(**{f"p_{name}": shares[:, c] for c, name in enumerate(predictions.classes)})
    pooled = [OutOfFold.of(Predictions(own, predictions.classes)) for own in (table, after)]
    losses = [one.mean_of(_log_loss_of(one)) for one in pooled]

    def figures(weights: Floats) -> Floats:
        before, later = (loss(weights) for loss in losses)
        return np.concatenate([before, later, later - before], axis=1)

    found = [figure._asdict() for figure in resamples.estimates(figures)]
    return {
        "temperatures": [fitted.get(split, 1.0) for split in sorted(set(splits))],
        "log_loss": dict(zip(("before", "after", "difference"), found, strict=True)),
        "calibration": calibration(pooled[1], resamples),
    }


def _temperatures(validated: Predictions) -> dict[tuple[int, int], float]:
    position = {name: c for c, name in enumerate(validated.classes)}
    found = {}
    for key, part in validated.table.groupby(["repeat", "fold"]):
        repeat, fold = (int(str(number)) for number in key)
        labels = np.asarray(part["label"].map(position), dtype=np.int64)
        logits = logits_of(Predictions(part, validated.classes).probabilities)
        found[repeat, fold] = fit_temperature(labels, logits)
    return found


def _log_loss_of(pooled: OutOfFold) -> RepeatMetric:
    """Mean of -log p of the true class in one repeat, as a single column."""
    patients = np.arange(len(pooled.labels))

    def metric(_: Ints, probabilities: Floats, weights: Floats) -> Floats:
        loss = -logits_of(probabilities)[patients, pooled.labels]
        result: Floats = (weights @ loss / weights.sum(axis=1))[:, None]
        return result

    return metric
