"""Settings that are chosen and not given: in each split anew, by inner folds over its training and validation patients.

What is chosen by the folds that also measure it is measured too well (Varma and Simon 2006, BMC Bioinformatics 7:91).
So the patients that a split may learn from are split once more, as the outer splits are; every candidate is trained
and tested on these inner folds, once each, and the best one is trained on the outer split as if it had been given. The
patients that the outer split tests are in none of its inner folds.

A candidate's score pools the inner test patients. The highest balanced accuracy is chosen; among equals, of which there
are many where patients are few, the lowest log-loss; then the candidate that was named first. As balanced accuracy is
the mean recall of the classes, the log-loss is the mean over the classes of that of their patients:

    L = 1/C sum_c 1/n_c sum_{i in c} -ln p_i(c)

Of other targets the lowest loss is chosen, the one that training lowers: a model's loss of the patients that it tests
in an inner fold, averaged over the inner folds by how many patients (of survival: events) each has, and then summed
over the targets. Losses are not pooled, since risks of two models have no common zero.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.errors import FoldError
from milkit.folds import Folds, Split, patients_digest
from milkit.mil.candidates import ENCODER, candidates, named, plain_value, short
from milkit.progress import Advance
from milkit.settings import MilSettings
from milkit.splitting import make_folds
from milkit.statistics.discrimination import balanced_accuracy

Floats = npt.NDArray[np.float64]
Trial = Callable[[Split, MilSettings], Floats]
"""Train by some settings on an inner split, and give what the score of a candidate is made from.

Of classes: the probabilities of its test patients, (n, C). Of other targets: (T, 2), the loss of each target over its
test patients, and how many of them it is of.
"""

log = logging.getLogger(__name__)

VERSION = 1
"""Of ``tuning.json``."""
_LEAST = float(np.finfo(np.float32).eps)
"""A probability below what float32 tells from none counts as this much, so that no log-loss is infinite."""


class Score(NamedTuple):
    """Of one candidate over all inner test patients of a split."""

    balanced_accuracy: float
    log_loss: float

    @classmethod
    def of(cls, labels: npt.NDArray[np.int64], probabilities: Floats) -> "Score":
        """From positions of the true classes (n,), and probabilities (n, C)."""
        predicted, ones = probabilities.argmax(axis=1), np.ones((1, len(labels)))
        own = -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], _LEAST))
        of_classes = [own[labels == c].mean() for c in np.unique(labels)]
        accuracy = balanced_accuracy(labels, predicted, ones, probabilities.shape[1])
        # Recalls that are equal in another order may differ in the last digit of their mean.
        return cls(round(float(accuracy[0]), 12), float(np.mean(of_classes)))

    @property
    def order(self) -> tuple[float, ...]:
        """Lower is better."""
        return -self.balanced_accuracy, self.log_loss


class Loss(NamedTuple):
    """Of one candidate over the inner folds of a split, for targets other than the cohort's classes."""

    loss: float

    @classmethod
    def of(cls, parts: Sequence[Floats]) -> "Loss":
        """From each inner fold's loss and weight of each target, (T, 2)."""
        losses, weights = np.moveaxis(np.stack(parts), 2, 0)  # (folds, T) each
        total = weights.sum(axis=0)
        means = np.divide((losses * weights).sum(axis=0), total, out=np.zeros(len(total)), where=total > 0)
        return cls(float(means.sum()))

    @property
    def order(self) -> tuple[float, ...]:
        """Lower is better."""
        return (self.loss,)


class Choice(NamedTuple):
    """What one split is trained with: candidate ``number``. Without a choice there are no ``scores`` of candidates."""

    split: Split
    settings: MilSettings
    number: int
    scores: list[Score] | list[Loss]


@dataclass(frozen=True, slots=True)
class Tuning:
    """What is chosen from, and by whom.

    Attributes:
        settings: Of the run.
        candidates: Its settings with each combination of ``tune``; without one, they alone.
        labels: Positions of the patients' classes; index patient_id. None where the target is another.
        inner: The inner folds of each outer split, by repeat and fold; empty without ``tune``.
        encoders: Names of those of the stores among the candidates, by path.
    """

    settings: MilSettings
    candidates: list[MilSettings]
    labels: "pd.Series[int] | None"
    inner: dict[tuple[int, int], Folds]
    encoders: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        patients: pd.DataFrame,
        classes: Sequence[str] | None,
        folds: Folds,
        settings: MilSettings,
        encoders: Mapping[str, str] | None = None,
        strata: Callable[[pd.DataFrame], pd.DataFrame] | None = None,
    ) -> "Tuning":
        """Make candidates and inner folds.

        Args:
            patients: With the class in ``label``.
            classes: In the order of the outputs; None where the target is another.
            folds: The outer ones.
            settings: Of the run.
            encoders: Names of those of the stores that ``tune`` names, by path.
            strata: Of a training part alone, puts what inner folds on another target are balanced by into ``label``.

        Raises:
            SettingsError: ``tune`` names what cannot be chosen, a value that cannot be, or a single candidate.
            FoldError: Too few patients for the inner folds of a split.
        """
        labels = None if classes is None else patients["label"].map({name: c for c, name in enumerate(classes)})
        if not settings.tune:
            return cls(settings, [settings], labels, {})
        found = candidates(settings)
        inner = {(split.repeat, split.fold): inner_folds(patients, split, settings, strata) for split in folds.splits()}
        return cls(settings, found, labels, inner, encoders or {})

    def n_models(self, outer: int) -> int:
        """All trainings of a run, of which ``outer`` are those of the outer splits."""
        return outer + len(self.candidates) * sum(len(list(folds.splits())) for folds in self.inner.values())

    def choose(self, split: Split, trial: Trial, advance: Advance) -> Choice:
        """Compare the candidates within one outer split; ``trial`` is called for no patient that the split tests."""
        if not self.inner:
            return Choice(split, self.settings, 0, [])
        scores: list[Any] = []
        inner = list(self.inner[split.repeat, split.fold].splits())
        tested = [name for own in inner for name in own.test]
        log.info("%s: %d candidates are compared by %d inner folds", split.name, len(self.candidates), len(inner))
        for candidate in self.candidates:
            # The same seeds for all candidates, and others than those of the outer split.
            seeded = candidate.model_copy(update={"seed": _inner_seed(self.settings.seed, split)})
            parts = []
            for own in inner:
                parts.append(trial(own, seeded))
                advance()
            if self.labels is None:
                scores.append(Loss.of(parts))
            else:
                scores.append(Score.of(np.asarray(self.labels[tested], dtype=np.int64), np.concatenate(parts)))
        number = _best(scores)
        log.info("%s: chosen is %s", split.name, named(self.candidates[number], self.encoders))
        return Choice(split, self.candidates[number], number, scores)

    def fitted_on(self, split: Split) -> dict[str, str]:
        """The digest of everybody who took part in a split's choice, for ``provenance.json``."""
        if not self.inner:
            return {}
        return {"tuning": patients_digest(sorted(set(self.inner[split.repeat, split.fold].table["patient_id"])))}

    def summary(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The part of ``metrics.json``: ``n_configurations``, ``n_splits``, and each choice with its splits."""
        numbers = Counter(choice.number for choice in choices)
        chosen = [{"settings": self._values(number), "splits": n} for number, n in numbers.most_common()]
        return {"n_configurations": len(self.candidates), "n_splits": len(choices), "chosen": chosen}

    def record(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The content of ``tuning.json``; no patient ids.

        ``candidates`` in the order tried; for each of ``splits`` the position of the ``chosen`` one, the ``scores`` of
        all, and of each inner fold the digests of the patients that models were fitted on and tested with.
        """
        return {
            "version": VERSION,
            "n_configurations": len(self.candidates),
            "candidates": [self._values(number) for number in range(len(self.candidates))],
            "splits": [
                {
                    "repeat": choice.split.repeat,
                    "fold": choice.split.fold,
                    "chosen": choice.number,
                    "scores": [score._asdict() for score in choice.scores],
                    "inner_folds": [_digests(own) for own in self.inner[choice.split[:2]].splits()],
                }
                for choice in choices
            ],
        }

    def _values(self, number: int) -> dict[str, Any]:
        return {key: plain_value(self.candidates[number], key, self.encoders) for key in self.settings.tune}


def inner_folds(
    patients: pd.DataFrame,
    split: Split,
    settings: MilSettings,
    strata: Callable[[pd.DataFrame], pd.DataFrame] | None = None,
) -> Folds:
    """Split the training and validation patients of a split as the outer splits were made, into ``tune_folds``.

    Groups and sites stay together. Published folds say nothing of inner ones, which are then stratified by class; and
    so they are where a site was left out and a single one is there to learn from.
    """
    known = patients.loc[[*split.train, *split.validation]].sort_index()
    known = known if strata is None else strata(known)
    changed: dict[str, Any] = {"folds": settings.tune_folds, "repeats": 1, "folds_file": None}
    changed["seed"] = _inner_seed(settings.seed, split)
    one_site = settings.splits == "leave-site-out" and known[settings.by or "site"].nunique() == 1
    if settings.folds_file is not None or one_site:
        changed |= {"by": None, "splits": "partition"}
    try:
        return make_folds(known, settings.model_copy(update=changed))
    except FoldError as error:
        msg = (
            f"Candidates cannot be compared within fold {split.fold} (repeat {split.repeat}): "
            f"{str(error).partition(';')[0]}; set tune_folds lower (3 or more), or train without tune."
        )
        raise FoldError(msg) from None


def sentence(summary: Mapping[str, Any]) -> str:
    """What people are told of ``metrics.json``'s part: how many configurations were tried, and what was chosen."""
    told = ", ".join(_told(summary))
    return f"{summary['n_configurations']} configurations were tried in each training part; chosen: {told}."


def heads_of(settings: MilSettings, metrics: Mapping[str, Any]) -> list[str]:
    """Names of the heads that a run was trained with: those that were chosen, or the one that was given."""
    chosen = [one["settings"].get("head", settings.head.name) for one in metrics.get("tuning", {}).get("chosen", [])]
    names = [head if isinstance(head, str) else str(head["name"]) for head in chosen]
    return sorted(set(names)) or [settings.head.name]


def encoders_of(metrics: Mapping[str, Any], given: str) -> list[str]:
    """Names of the encoders behind a run: those that were chosen, or the one that was given."""
    chosen = [one["settings"].get(ENCODER, given) for one in metrics.get("tuning", {}).get("chosen", [])]
    return sorted(set(chosen)) or [given]


def _told(summary: Mapping[str, Any]) -> Iterator[str]:
    for one in summary["chosen"]:
        what = " and ".join(f"{key} {short(value)}" for key, value in one["settings"].items())
        yield f"{what} ({one['splits']} of {summary['n_splits']} splits)"


def _best(scores: Sequence[Score] | Sequence[Loss]) -> int:
    return min(range(len(scores)), key=lambda n: (scores[n].order, n))


def _inner_seed(seed: int, split: Split) -> int:
    return int(np.random.default_rng([seed, split.repeat, split.fold, 0, 1]).integers(2**31))


def _digests(split: Split) -> dict[str, str]:
    return {role: patients_digest(getattr(split, role)) for role in ("train", "validation", "test")}
