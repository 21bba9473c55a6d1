"""Few-shot curves: what the probes reach with a handful of labelled cells of each class."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.probe.task import Task
from milkit.probe_settings import ProbeSettings
from milkit.progress import Advance
from milkit.statistics.cell_intervals import METRICS, score
from milkit.statistics.intervals import percentile_interval
from milkit.statistics.linear_probe import linear_probe
from milkit.statistics.neighbours import nearest

CLASSIFIERS = ("1-NN", "linear")

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]


def few_shot(features: Floats, task: Task, settings: ProbeSettings, advance: Advance) -> pd.DataFrame:
    """Train on ``shots`` cells of each class, and test on all cells of a fold: shots, draw, classifier and metrics.

    Draw r tests on fold r, beginning anew after the last, and draws its training cells from the rest. Fewer shots are
    the first of more, and every encoder gets the same cells, so that both are compared like with like. A class with
    fewer training cells than shots gives all that it has.
    """
    rows = []
    n_classes = len(task.classes)
    for draw in range(settings.draws):
        tested = task.fold == task.folds[draw % len(task.folds)]
        order = _shuffled_by_class(task.labels, ~tested, [settings.seed, draw])
        everything = np.ones((1, int(tested.sum())))
        for shots in settings.shots:
            train = np.concatenate([own[:shots] for own in order])
            labels = task.labels[train]
            guesses = {
                "1-NN": labels[nearest(features[train], features[tested], 1)[:, 0]],
                "linear": linear_probe(features[train], labels, features[tested], settings.iterations).predicted,
            }
            for name in CLASSIFIERS:
                values = score(task.labels[tested], guesses[name], everything, n_classes)[0]
                rows.append((shots, draw, name, *values))
            advance()
    return pd.DataFrame(rows, columns=["shots", "draw", "classifier", *METRICS])


def summarise_draws(draws: pd.DataFrame, level: float) -> list[dict[str, Any]]:
    """Mean of each point of the curves, and between what the central ``level`` of the draws lie.

    That is what somebody can expect who labels so many cells once; the mean is known better. With few draws it is
    little less than the range.
    """
    points = []
    for (classifier, shots), part in draws.groupby(["classifier", "shots"], sort=True):
        point: dict[str, Any] = {"classifier": classifier, "shots": int(str(shots)), "draws": len(part)}
        for metric in METRICS:
            low, high = percentile_interval(part[metric].to_numpy(dtype=np.float64), level)
            point[metric] = {"mean": float(part[metric].mean()), "low": low, "high": high}
        points.append(point)
    return points


def classes_with_fewer(task: Task, shots: int) -> list[str]:
    """Classes that have fewer training cells than ``shots`` in some fold."""
    fewest = np.min(
        [np.bincount(task.labels[task.fold != fold], minlength=len(task.classes)) for fold in task.folds], axis=0
    )
    return [name for name, count in zip(task.classes, fewest, strict=True) if count < shots]


def _shuffled_by_class(labels: Ints, chosen: npt.NDArray[np.bool_], entropy: list[int]) -> list[Ints]:
    generator = np.random.default_rng(entropy)
    return [generator.permutation(np.flatnonzero(chosen & (labels == c))) for c in np.unique(labels[chosen])]
