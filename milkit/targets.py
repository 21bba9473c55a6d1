"""Targets: what a network learns to tell of a patient. A class, a number, or when an event comes.

A target owns its columns of the patient table, its slice of a network's outputs, its loss, and the decoding of the
outputs into what ``predictions.csv`` holds. What it estimates (class weights, bins, means) comes from the training
patients of one fold alone. With several targets at once, a patient who lacks the outcome of one teaches nothing about
that one, and counts for the others.

Letters: n patients, O outputs, S scores: what is averaged over seeds (probabilities, a risk, a value).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from milkit import losses

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Target(ABC):
    """What is predicted of a patient.

    Attributes:
        name: Unique among the targets of a run; names the file ``predictions.<name>.csv`` where there are several.
        columns: Of the patient table, which hold the outcome.
    """

    name: str
    columns: tuple[str, ...]
    kind: ClassVar[str]
    whole: ClassVar[bool] = False
    """Whether a training step needs all training patients."""

    @property
    @abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """Names of the network's outputs that are the target's."""

    @abstractmethod
    def outcomes(self, patients: pd.DataFrame) -> Floats:
        """What happened, as numbers, (n, columns); a row of NaN where it is unknown."""

    @abstractmethod
    def fit(self, outcomes: Floats) -> Floats:
        """What is estimated from the known outcomes of training patients, (m, columns), as a vector."""

    @abstractmethod
    def loss(self, outputs: Tensor, outcomes: Tensor, fitted: Tensor) -> Tensor:
        """One number, of patients whose outcome is known: (n, O), (n, columns) and what ``fit`` gave."""

    @abstractmethod
    def scores(self, outputs: Tensor, fitted: Tensor) -> Tensor:
        """What the outputs say, in a form that can be averaged over networks: (n, O) -> (n, S)."""

    @abstractmethod
    def rows(self, outcomes: Floats, scores: Floats) -> pd.DataFrame:
        """The columns of ``predictions.csv``, of patients whose outcome is known: outcome first, then prediction."""

    @abstractmethod
    def strata(self, outcomes: Floats) -> "list[str]":
        """Which patients, of known outcome, are shared out evenly over the folds."""

    @abstractmethod
    def lacks(self, outcomes: Floats) -> str:
        """What patients of known outcomes (m, columns) lack to learn from; empty where nothing."""


@dataclass(frozen=True, slots=True)
class Classes(Target):
    """One of several classes. Outcome: the class's position. Fitted: the weight n / (C · n_c) of each class c, or 1."""

    classes: tuple[str, ...]
    weighted: bool = True
    kind: ClassVar[str] = "classes"

    @property
    def outputs(self) -> tuple[str, ...]:
        """See ``Target``."""
        return self.classes

    def outcomes(self, patients: pd.DataFrame) -> Floats:
        """See ``Target``."""
        position = {name: c for c, name in enumerate(self.classes)}
        texts = as_texts(patients[self.columns[0]])
        return np.array([[position.get(text, np.nan)] for text in texts], dtype=np.float64).reshape(-1, 1)

    def fit(self, outcomes: Floats) -> Floats:
        """See ``Target``; 0 for a class without a training patient."""
        counts = np.bincount(outcomes[:, 0].astype(np.int64), minlength=len(self.classes))
        if not self.weighted:
            return np.ones(len(counts))
        return np.where(counts > 0, len(outcomes) / (len(counts) * np.maximum(counts, 1)), 0.0)

    def loss(self, outputs: Tensor, outcomes: Tensor, fitted: Tensor) -> Tensor:
        """See ``Target``."""
        return losses.cross_entropy(outputs, outcomes[:, 0].long(), fitted)

    def scores(self, outputs: Tensor, fitted: Tensor) -> Tensor:
        """Probabilities, (n, C)."""
        return outputs.double().softmax(dim=1)

    def rows(self, outcomes: Floats, scores: Floats) -> pd.DataFrame:
        """``label``, ``predicted`` and ``p_<class>``."""
        names = np.array(self.classes, dtype=object)
        table = pd.DataFrame({"label": names[outcomes[:, 0].astype(np.int64)], "predicted": names[scores.argmax(1)]})
        return table.assign(**{f"p_{name}": scores[:, c] for c, name in enumerate(self.classes)})

    def strata(self, outcomes: Floats) -> list[str]:
        """See ``Target``."""
        return [self.classes[int(c)] for c in outcomes[:, 0]]

    def lacks(self, outcomes: Floats) -> str:
        """See ``Target``."""
        return "" if len(np.unique(outcomes)) > 1 else "two classes"


@dataclass(frozen=True, slots=True)
class Survival(Target):
    """When an event comes, by Cox's partial likelihood. Outcome: time and event (1) or end of follow-up (0).

    The single output is a log hazard: **higher for an earlier event**, known up to a constant that each fold has its
    own of. Nothing is fitted.
    """

    kind: ClassVar[str] = "survival"
    whole: ClassVar[bool] = True

    @property
    def outputs(self) -> tuple[str, ...]:
        """See ``Target``."""
        return ("risk",)

    def outcomes(self, patients: pd.DataFrame) -> Floats:
        """See ``Target``."""
        return known_rows(patients, self.columns)

    def fit(self, outcomes: Floats) -> Floats:
        """See ``Target``."""
        return np.zeros(0)

    def loss(self, outputs: Tensor, outcomes: Tensor, fitted: Tensor) -> Tensor:
        """See ``Target``."""
        return losses.cox(outputs[:, 0], outcomes[:, 0], outcomes[:, 1] > 0)

    def scores(self, outputs: Tensor, fitted: Tensor) -> Tensor:
        """The risk, (n, 1)."""
        return outputs.double()

    def rows(self, outcomes: Floats, scores: Floats) -> pd.DataFrame:
        """``time``, ``event`` and ``risk``."""
        return pd.DataFrame({"time": outcomes[:, 0], "event": outcomes[:, 1].astype(np.int64), "risk": scores[:, 0]})

    def strata(self, outcomes: Floats) -> list[str]:
        """See ``Target``; where everybody had the event, up to their median time or later."""
        if outcomes[:, 1].all():
            return ["early" if time <= np.median(outcomes[:, 0]) else "late" for time in outcomes[:, 0]]
        return ["event" if died else "censored" for died in outcomes[:, 1]]

    def lacks(self, outcomes: Floats) -> str:
        """See ``Target``; an event teaches something where somebody was still followed then."""
        died = outcomes[outcomes[:, 1] > 0, 0]
        return "" if len(died) and (outcomes[:, 0] >= died.min()).sum() > 1 else "an event while others were followed"


@dataclass(frozen=True, slots=True)
class DiscreteSurvival(Survival):
    """When an event comes, by the hazard in each of ``n_bins`` bins of time, without proportional hazards.

    Fitted: the ends of the bins, which the events of training patients are shared out over evenly; the last is their
    last event. The risk is -log of the mean time without event up to there: as the log hazard is, where hazards do not
    change and patients are followed for long.
    """

    n_bins: int = 4
    kind: ClassVar[str] = "discrete-survival"
    whole: ClassVar[bool] = False

    @property
    def outputs(self) -> tuple[str, ...]:
        """See ``Target``."""
        return tuple(f"hazard {k + 1}" for k in range(self.n_bins))

    def fit(self, outcomes: Floats) -> Floats:
        """See ``Target``. Events at the same time may leave a bin empty, whose hazard is then learned to be 0."""
        died = outcomes[outcomes[:, 1] > 0, 0]
        shares = np.arange(1, self.n_bins + 1) / self.n_bins
        return np.asarray(np.quantile(died, shares, method="inverted_cdf"), dtype=np.float64)

    def loss(self, outputs: Tensor, outcomes: Tensor, fitted: Tensor) -> Tensor:
        """See ``Target``."""
        return losses.discrete_time(outputs, outcomes[:, 0], outcomes[:, 1] > 0, fitted)

    def scores(self, outputs: Tensor, fitted: Tensor) -> Tensor:
        """The risk, (n, 1)."""
        return -losses.restricted_mean(outputs, fitted).clamp(min=1e-12).log()[:, None]


@dataclass(frozen=True, slots=True)
class Regression(Target):
    """A number, by squared error. Fitted: mean and spread (with divisor m), by which it is standardised in training."""

    kind: ClassVar[str] = "regression"

    @property
    def outputs(self) -> tuple[str, ...]:
        """See ``Target``."""
        return ("value",)

    def outcomes(self, patients: pd.DataFrame) -> Floats:
        """See ``Target``."""
        return known_rows(patients, self.columns)

    def fit(self, outcomes: Floats) -> Floats:
        """See ``Target``."""
        return np.array([outcomes.mean(), outcomes.std()])

    def loss(self, outputs: Tensor, outcomes: Tensor, fitted: Tensor) -> Tensor:
        """See ``Target``; the error counts in spreads."""
        return losses.squared_error(outputs[:, 0], (outcomes[:, 0] - fitted[0]) / fitted[1])

    def scores(self, outputs: Tensor, fitted: Tensor) -> Tensor:
        """The value in the column's own unit, (n, 1)."""
        return outputs.double() * fitted[1] + fitted[0]

    def rows(self, outcomes: Floats, scores: Floats) -> pd.DataFrame:
        """``label`` and ``predicted``, in the column's own unit."""
        return pd.DataFrame({"label": outcomes[:, 0], "predicted": scores[:, 0]})

    def strata(self, outcomes: Floats) -> list[str]:
        """See ``Target``: below the median or not; finer parts would leave few patients of each to a fold."""
        median = np.median(outcomes)
        return ["high" if value > median else "low" for value in outcomes[:, 0]]

    def lacks(self, outcomes: Floats) -> str:
        """See ``Target``."""
        return "" if len(np.unique(outcomes)) > 1 else "two different values"


class Fitted:
    """Targets, each with its slice of the outputs and with what it estimates from the training patients of a fold."""

    def __init__(self, targets: Sequence[Target], training: Sequence[Floats]) -> None:
        """``training`` are the outcomes of the training patients, (n, columns) for each target."""
        self.targets = tuple(targets)
        self.numbers = [
            target.fit(outcomes[is_known(outcomes)]) for target, outcomes in zip(targets, training, strict=True)
        ]
        ends = np.cumsum([0, *(len(target.outputs) for target in targets)]).tolist()
        self.slices = [slice(first, last) for first, last in pairwise(ends)]

    def loss(self, outputs: Tensor, outcomes: Sequence[Tensor]) -> Tensor:
        """The sum of the targets' losses, each over the patients whose outcome is known: (n, O)."""
        total = outputs.double().sum() * 0.0  # so that there is a gradient where nobody's outcome is known
        for target, own, numbers, happened in zip(self.targets, self.slices, self.numbers, outcomes, strict=True):
            known = ~torch.isnan(happened).any(dim=1)
            if known.any():
                fitted = torch.as_tensor(numbers, device=outputs.device)
                total = total + target.loss(outputs[known][:, own], happened[known], fitted)
        return total

    def scores(self, outputs: Tensor) -> list[Floats]:
        """(n, S) of each target."""
        parts = zip(self.targets, self.slices, self.numbers, strict=True)
        return [
            target.scores(outputs[:, own].cpu(), torch.as_tensor(numbers)).numpy() for target, own, numbers in parts
        ]


def is_known(outcomes: Floats) -> npt.NDArray[np.bool_]:
    """Which rows hold an outcome, (n, columns) -> (n,)."""
    return np.asarray(~np.isnan(outcomes).any(axis=1))


def known_rows(patients: pd.DataFrame, columns: Sequence[str]) -> Floats:
    """Columns as numbers, (n, columns); what is not finite in one of them is NaN in all."""
    values = np.stack([patients[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in columns], axis=1)
    return np.where(np.isfinite(values).all(axis=1, keepdims=True), values, np.nan)


def as_texts(column: "pd.Series[Any]") -> list[str]:
    """The values as texts, an empty one where missing; 1.0, as a column of numbers with gaps holds it, is "1"."""
    return [
        "" if pd.isna(value) else str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
        for value in column.tolist()
    ]
