"""Encoders compared on the same cells or patients: resamples, differences and their intervals, and their tables."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Figure = dict[str, Any]
"""``estimate``, ``ci_low`` and ``ci_high``; None where there is no interval."""

SEED, LEVEL = 0, 0.95


class Scores(NamedTuple):
    """One metric of one encoder."""

    values: Floats
    """(1 + bootstrap,): of all cells or patients, and of each resample."""
    trainings: Mapping[str, float] | None = None
    """Of each training of a kind, by what stands behind the slash of its name."""

    def figure(self) -> Figure:
        """With the interval of the resamples."""
        from milkit.statistics.intervals import percentile_interval

        low, high = percentile_interval(self.values[1:], LEVEL)
        trainings = {"trainings": dict(self.trainings)} if self.trainings else {}
        return {"estimate": float(self.values[0]), "ci_low": low, "ci_high": high, **trainings}

    def less(self, other: "Scores") -> Figure:
        """The difference on the same resamples and, where both are kinds with the same seeds, Student's over these."""
        found = Scores(self.values - other.values).figure()
        if self.trainings and other.trainings and self.trainings.keys() == other.trainings.keys():
            gaps = np.array([value - other.trainings[seed] for seed, value in self.trainings.items()])
            found["over_seeds"] = students_interval(gaps, 1 / len(gaps))
        return found


def students_interval(differences: Floats, factor: float) -> Figure:
    """The mean of J differences, its variance ``factor`` s², with Student's interval of J - 1 degrees of freedom."""
    from scipy.stats import t

    n, mean = len(differences), float(np.mean(differences))
    if n < 2:
        return {"estimate": mean, "ci_low": None, "ci_high": None}
    half = float(t.ppf((1 + LEVEL) / 2, n - 1)) * float(np.sqrt(factor * np.var(differences, ddof=1)))
    return {"estimate": mean, "ci_low": mean - half, "ci_high": mean + half}


def kind_of(name: str) -> str:
    """What trainings that differ by their seed have in common."""
    return name.partition("/")[0]


def with_kinds(scores: Mapping[str, Scores]) -> dict[str, Scores]:
    """The encoders, and beside them the means of each kind of which there are several trainings."""
    found = dict(scores)
    for kind in dict.fromkeys(map(kind_of, scores)):
        own = [name for name in scores if kind_of(name) == kind]
        if len(own) > 1:
            trainings = {name.partition("/")[2]: float(scores[name].values[0]) for name in own}
            found[mean_name(kind, len(own))] = Scores(np.mean([scores[name].values for name in own], axis=0), trainings)
    return found


def mean_name(kind: str, n: int) -> str:
    """What the mean of a kind is called."""
    return f"{kind}, mean of {n}"


def pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """The first encoder with each of the others, kinds in place of their trainings."""
    kinds = [kind_of(name) for name in names]
    means = [
        mean_name(kind, n) if (n := kinds.count(kind)) > 1 else name for name, kind in zip(names, kinds, strict=True)
    ]
    first, *others = dict.fromkeys(means)
    return [(first, other) for other in others]


def resamples(labels: Ints, groups: Ints, n: int) -> Floats:
    """(1 + n, cells) all ones, and how often each cell is drawn: groups as a whole, within the class of their first."""
    from milkit.statistics.intervals import bootstrap_weights

    first, member = np.unique(groups, return_index=True, return_inverse=True)[1:]
    weights = bootstrap_weights(labels[first], n, SEED)[:, member]
    return np.concatenate([np.ones((1, len(labels))), weights])


def table(title: str, columns: Mapping[str, Mapping[str, Figure]], sign: str = "") -> None:
    """Print a row an encoder or a difference, and a column a way; nothing where there is no row."""
    names = list(dict.fromkeys(name for rows in columns.values() for name in rows))
    if names:
        width = max(map(len, names)) + 2
        print(f"\n{title}\n" + " " * width + "".join(column.rjust(28) for column in columns))
    for name in names:
        print(name.ljust(width) + "".join(said(rows.get(name), sign).rjust(28) for rows in columns.values()))


def said(figure: Figure | None, sign: str) -> str:
    """An estimate with its interval, where there is one."""
    if figure is None or figure["ci_low"] is None:
        return "" if figure is None else f"{figure['estimate']:{sign}.3f}"
    return f"{figure['estimate']:{sign}.3f} ({figure['ci_low']:{sign}.3f} to {figure['ci_high']:{sign}.3f})"


def report(title: str, metrics: Mapping[str, Mapping[str, Mapping[str, Scores]]]) -> dict[str, Any]:
    """Print every metric by way and encoder, and the differences; the figures."""
    found: dict[str, Any] = {}
    for metric, ways in metrics.items():
        scores = {way: with_kinds(own) for way, own in ways.items()}
        figures = {way: {name: one.figure() for name, one in own.items()} for way, own in scores.items()}
        names = list(next(iter(ways.values())))
        gaps = {
            way: {f"{first} - {other}": own[first].less(own[other]) for first, other in pairs(names)}
            for way, own in scores.items()
        }
        table(f"{title}: {metric}", figures)
        table("difference", gaps, "+")
        seeds = {way: {k: v["over_seeds"] for k, v in own.items() if "over_seeds" in v} for way, own in gaps.items()}
        table("difference, over the seeds", seeds, "+")
        found[metric] = {"figures": figures, "differences": gaps}
    return found
