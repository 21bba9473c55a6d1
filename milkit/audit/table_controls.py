"""What a table of patients knows of the label without any image: its columns, cross-validated as the controls of a run.

The same folds, logistic regressions and intervals as in ``milkit.audit.controls``, for cohorts whose images are not at
hand, or to know beforehand what a model of images has to beat.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.audit.scores import HEADLINES, Scorer, Scores
from milkit.audit.simple_models import LIGHT, Inputs, logistic, of_covariates, of_sizes, rows_of, tested
from milkit.folds import Folds
from milkit.statistics.out_of_fold import Resamples

Ints = npt.NDArray[np.int64]

SIZE = "number of cells"
"""In place of a column: the sizes of the bags, see ``of_sizes``."""


def table_controls(
    patients: pd.DataFrame,
    sizes: Ints,
    wanted: Mapping[str, Sequence[str]],
    folds: Folds,
    *,
    n_bootstrap: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Predict the label by some sets of columns.

    Args:
        patients: Index patient_id; ``label`` and the columns.
        sizes: (n,) cells of each patient.
        wanted: Columns by title; ``SIZE`` may be among them.
        folds: Of which every patient is tested once a repeat.
        n_bootstrap: Resamples of patients.
        level: Of the intervals.
        seed: Of the resamples.

    Returns:
        ``folds_digest``, ``level``, ``n_patients``, ``chance`` and ``controls``: by title the ``columns``,
        ``balanced_accuracy``, ``auroc_macro`` and ``per_class`` of ``controls.json``, and ``difference``: the first
        set less this one, paired.
    """
    classes = tuple(sorted(set(patients["label"])))
    labels: Ints = np.array([classes.index(label) for label in patients["label"]], dtype=np.int64)
    splits = rows_of(folds.splits(), list(patients.index))
    scorer = Scorer(labels, classes, Resamples.of(labels, n_bootstrap, level, seed))
    rows, scores = np.arange(len(labels)), dict[str, Scores]()
    for title, columns in wanted.items():
        inputs = _inputs(patients, sizes, columns)
        held_out, _ = logistic(inputs, labels, len(classes), splits, LIGHT, balanced=True)
        scores[title] = scorer.score(tested(held_out, splits, rows))
    first = next(iter(scores.values()))
    return {
        "folds_digest": folds.digest,
        "level": level,
        "n_patients": len(labels),
        "chance": {name: 1 / len(classes) if name == "balanced_accuracy" else 0.5 for name in HEADLINES},
        "controls": {
            title: {
                "columns": list(wanted[title]),
                **scorer.summary(own),
                "difference": scorer.difference(first, own),
            }
            for title, own in scores.items()
        },
    }


def _inputs(patients: pd.DataFrame, sizes: Ints, columns: Sequence[str]) -> Inputs:
    others = [name for name in columns if name != SIZE]
    parts = [of_sizes(sizes)] * (SIZE in columns) + [of_covariates(patients, others)] * bool(others)
    return lambda train: np.concatenate([part(train) for part in parts], axis=1)
