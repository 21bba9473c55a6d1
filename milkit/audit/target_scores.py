"""Figures of out-of-fold risks and numbers with intervals over patients, and paired differences of two models.

What ``scores`` is to classes: the figures are those of ``metrics.json``, and all models of a run are resampled with the
same patients, drawn alike. Letters: n tested patients, S splits, B resamples, T figures.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.audit.scores import Scores
from milkit.statistics.bca import leave_one_out
from milkit.statistics.intervals import without_nan
from milkit.statistics.out_of_fold import Resamples
from milkit.statistics.target_figures import METRICS, pooled_metric

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CHANCE: Mapping[str, Mapping[str, float]] = {"risk": {"c_index": 0.5}, "predicted": {"r2": 0.0, "spearman": 0.0}}
"""The figures that models are compared by, with what guessing reaches, by the column of the predictions."""


@dataclass(frozen=True, slots=True)
class TargetScorer:
    """Scores models on the tested patients of a run and the same resamples of them.

    Attributes:
        table: Rows of the run's predictions.
        column: Of the prediction in it.
        where: (rows,) the split that tested each row, and (rows,) the patient's row in the store.
        resamples: Of the patients, by their ids.
    """

    table: pd.DataFrame
    column: Literal["risk", "predicted"]
    where: tuple[Ints, Ints]
    resamples: Resamples

    @property
    def names(self) -> tuple[str, ...]:
        """Of the T figures."""
        return tuple(CHANCE[self.column])

    def score(self, held_out: Floats) -> Scores:
        """All figures of a model's held-out predictions, (S, n)."""
        return self.score_table(self.table.assign(**{self.column: held_out[self.where]}))

    def score_table(self, table: pd.DataFrame) -> Scores:
        """All figures of rows of predictions."""
        patients, metric = pooled_metric(table, {name: METRICS[self.column][name] for name in self.names})
        n = len(patients)
        return Scores(metric(np.ones((1, n)))[0], metric(self.resamples.weights), leave_one_out(metric, n))

    def summary(self, scores: Scores) -> dict[str, dict[str, float | None]]:
        """Each figure with its interval; null where undefined."""
        found = {
            name: self.resamples.estimate(
                float(scores.estimate[t]), scores.resamples[:, t], scores.left_out[:, t]
            )._asdict()
            for t, name in enumerate(self.names)
        }
        result: dict[str, dict[str, float | None]] = without_nan(found)
        return result

    def table_of(self, held_out: Floats) -> pd.DataFrame:
        """Rows of several models' predictions, (M, S, n), each of which counts as further repeats."""
        parts, n = [], int(self.table["repeat"].max()) + 1
        for number, own in enumerate(held_out):
            moved = {"repeat": self.table["repeat"] + number * n, self.column: own[self.where]}
            parts.append(self.table.assign(**moved))
        return pd.concat(parts, ignore_index=True)

    def over_repeats(self, table: pd.DataFrame) -> dict[str, dict[str, float | None]]:
        """The figures of models that learned from shuffled outcomes, with Student's interval over the shuffles.

        An interval over the patients would not see what each shuffle happened to be, see ``Scorer.over_shuffles``.
        """
        from scipy.stats import t as student

        each = []
        for _, part in table.groupby("repeat"):
            ones = np.ones((1, len(part)))
            each.append([float(METRICS[self.column][name](part, ones)[0]) for name in self.names])
        values = np.array(each)
        half = float(student.ppf((1 + self.resamples.level) / 2, len(values) - 1))
        half = half * values.std(axis=0, ddof=1) / np.sqrt(len(values))
        middle = values.mean(axis=0)
        found = {
            name: {"estimate": float(m), "ci_low": float(m - h), "ci_high": float(m + h)}
            for name, m, h in zip(self.names, middle, half, strict=True)
        }
        result: dict[str, Any] = without_nan(found)
        return result
