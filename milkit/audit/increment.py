"""What a model adds to covariates that are known before any image.

p(class | covariates) is multiplied by p(class | cells)ʷ and normalised. w in 0 to 2 is chosen on each split's
validation patients, whom neither of the two models was fitted on, although the head was stopped by them; 0 leaves the
covariates alone. It is the only number that is fitted: a second model, fitted to out-of-fold probabilities, would learn
from models that had been trained on the patients it is tested on. Assumed is that covariates and cells are independent
within a class; where they are not, the product counts twice what both say, so that the increment errs towards too
little. Of a head that was itself given the covariates, it is the head less the covariates alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from milkit.audit.scores import Scores
from milkit.audit.simple_models import cross_entropy, of_covariates
from milkit.audit.study import Study

Floats = npt.NDArray[np.float64]

WEIGHTS = tuple(round(0.1 * step, 1) for step in range(21))
"""Of the model beside the covariates."""


def increment(
    study: Study,
    columns: Sequence[str],
    model: Floats | None,
    scores: Scores,
    alone: Scores,
) -> dict[str, Any] | None:
    """What the model adds to covariates, as ``controls.json`` has it; None where its validation patients are unknown.

    Args:
        study: Of the run.
        columns: The covariates.
        model: The run's own held-out probabilities (S, n, C); None of a head that was given the covariates.
        scores: Of the run.
        alone: Of the covariates.
    """
    weight = None
    if model is not None:
        if any(np.isnan(model[number, split.validation]).any() for number, split in enumerate(study.splits)):
            return None
        together, weight = _together(study, columns, model)
        scores = study.score(together)
    return {
        "columns": list(columns),
        "together": study.scorer.summary(scores),
        "difference": study.scorer.difference(scores, alone),
        "weight": weight,
    }


def _together(study: Study, columns: Sequence[str], model: Floats) -> tuple[Floats, float]:
    """The product of covariates and model, (S, n, C), and the mean of the weights that the splits chose."""
    covariates, _ = study.fit(of_covariates(study.bags.patients, columns))
    together, weights = np.full_like(model, np.nan), []
    for number, split in enumerate(study.splits):
        held_out = np.concatenate([split.validation, split.test])
        products = [combined(covariates[number, held_out], model[number, held_out], weight) for weight in WEIGHTS]
        n, truth = len(split.validation), study.labels[split.validation]
        best = int(np.argmin([cross_entropy(product[:n], truth) for product in products]))
        weights.append(WEIGHTS[best])
        together[number, held_out] = products[best]
    return together, float(np.mean(weights))


def combined(first: Floats, second: Floats, weight: float) -> Floats:
    """The product p qʷ of two models' probabilities, normalised, (n, C), (n, C) -> (n, C); 0 is taken as 1e-12."""
    logits = np.log(np.maximum(first, 1e-12)) + weight * np.log(np.maximum(second, 1e-12))
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))
