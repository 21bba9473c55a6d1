"""What the controls of a run have in common: the same patients, splits, resamples and weights of classes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from milkit.audit.pooled import Pooled
from milkit.audit.scores import Scorer, Scores
from milkit.audit.simple_models import LIGHT, Inputs, Rows, logistic, places_of, rows_of, tested
from milkit.folds import Folds
from milkit.predictions import Predictions
from milkit.settings import MilSettings
from milkit.statistics.out_of_fold import Resamples

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Study(NamedTuple):
    """What every control of a run is made from.

    Attributes:
        bags: Mean features and sizes of all patients.
        labels: (n,) position of each patient's class.
        classes: Of the run.
        splits: Of the run, as rows.
        rows: (n_tested,) the patients that were tested, by their ids.
        scorer: Of the tested patients.
        balanced: Whether patients weigh by the inverse frequency of their class, as in the run.
        seed: Of the run.
    """

    bags: Pooled
    labels: Ints
    classes: tuple[str, ...]
    splits: list[Rows]
    rows: Ints
    scorer: Scorer
    balanced: bool
    seed: int

    def fit(self, inputs: Inputs, penalties: Sequence[float] = LIGHT) -> tuple[Floats, list[float]]:
        """A control's held-out probabilities, see ``logistic``; of few inputs the penalty is not chosen."""
        return logistic(inputs, self.labels, len(self.classes), self.splits, penalties, balanced=self.balanced)

    def score(self, held_out: Floats) -> Scores:
        """The figures of held-out probabilities (S, n, C)."""
        return self.scorer.score(tested(held_out, self.splits, self.rows))

    def of_run(self, tables: Sequence[Predictions]) -> Floats:
        """The run's own held-out probabilities, (S, n, C); NaN where a patient was not predicted."""
        held_out = np.full((len(self.splits), len(self.labels), len(self.classes)), np.nan)
        for predictions in tables:
            held_out[places_of(predictions.table, self.splits, self.bags.patients.index)] = predictions.probabilities
        return held_out


def make_study(bags: Pooled, folds: Folds, predictions: Predictions, settings: MilSettings) -> Study:
    """Of a run and the bags of all patients of its store."""
    position = {name: c for c, name in enumerate(predictions.classes)}
    labels = np.array([position[label] for label in bags.patients["label"]], dtype=np.int64)
    known = set(predictions.table["patient_id"])
    names = [str(name) for name in bags.patients.index]
    # In the order of ``OutOfFold``, so that resamples and intervals are those of metrics.json.
    rows = np.array(sorted((r for r in range(len(names)) if names[r] in known), key=names.__getitem__), dtype=np.int64)
    resamples = Resamples.of(labels[rows], settings.bootstrap, settings.level, settings.seed)
    scorer = Scorer(labels[rows], predictions.classes, resamples)
    splits = rows_of(folds.splits(), list(bags.patients.index))
    balanced = settings.training.class_weights
    return Study(bags, labels, predictions.classes, splits, rows, scorer, balanced, settings.seed)
