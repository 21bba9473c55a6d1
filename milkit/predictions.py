"""The two result tables of a run: one row a patient, and one row a cell. Held-out patients only."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.errors import RunError
from milkit.tables import read_table, write_table

SHARED = "*"
"""The ``class`` of attention that one head shares between all classes; no label may be called so."""

_NAMES = ("label", "predicted")
_OTHER_TARGETS = "name a run of `milkit train-mil` without --target, whose targets are the cohort's classes"


def prediction_files(targets: Sequence[str]) -> list[str]:
    """Names of the tables of predictions in a run on these targets."""
    return ["predictions.csv"] if len(targets) == 1 else [f"predictions.{name}.csv" for name in targets]


def choose_target(run: Path, metrics: Mapping[str, Any], target: str | None) -> tuple[str, Path]:
    """One of the targets of a run, and where its predictions are.

    Args:
        run: The run folder.
        metrics: The content of its ``metrics.json``.
        target: A name, or None of a run on one target.

    Raises:
        RunError: The run has no target of this name, or several where none was named.
    """
    known = list(metrics.get("targets", {})) or [metrics.get("target", {}).get("name", "label")]
    if (target or len(known) > 1) and target not in known:
        given = f"--target {target} was given" if target else "no --target was given"
        msg = f"The run {run} predicts {', '.join(known)}, and {given}; name one of its targets by --target."
        raise RunError(msg)
    chosen = target or known[0]
    return chosen, run / prediction_files(known)[known.index(chosen)]


@dataclass(frozen=True, slots=True)
class Predictions:
    """Out-of-fold class probabilities.

    ``table`` has one row per patient and repeat: patient_id, repeat, fold, label, predicted, and ``p_<class>`` for each
    of ``classes``, averaged over the seeds. ``predicted`` is the class of the highest probability.
    """

    table: pd.DataFrame
    classes: tuple[str, ...]

    @classmethod
    def load(cls, path: Path, *, any_target: bool = False) -> "Predictions":
        """Read ``predictions.csv``; one of another target than classes is a ``RunError`` unless ``any_target``.

        There are no ``classes`` then, and the columns are those of ``milkit.targets``.
        """
        several = sorted(file.name for file in path.parent.glob("predictions.*.csv"))
        if several and not path.is_file():
            msg = f"{path.parent} is a run on several targets ({', '.join(several)}), expected one; {_OTHER_TARGETS}."
            raise RunError(msg)
        if not path.is_file():
            msg = f"{path} is missing; the folder is not a finished run, so make it again with `milkit train-mil`."
            raise RunError(msg)
        table = read_table(path)
        classes = tuple(name[2:] for name in table.columns if name.startswith("p_"))
        if not classes and not any_target:
            what = "risks, as `milkit survival` reads them," if "risk" in table else "numbers"
            msg = f"{path} holds {what} where probabilities of classes were expected; {_OTHER_TARGETS}."
            raise RunError(msg)
        if not classes:  # numbers, whose columns are called like those of classes
            numbers = {name: pd.to_numeric(table[name], errors="coerce") for name in _NAMES if name in table}
            table = table.assign(**{name: own for name, own in numbers.items() if own.notna().all()})
        return cls(table, classes)

    def save(self, path: Path) -> None:
        """Write ``predictions.csv``."""
        write_table(path, self.table)

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """(rows, classes), in the order of ``classes``."""
        return self.table[[f"p_{name}" for name in self.classes]].to_numpy(dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Attention:
    """How much each cell weighed when its patient, held out, was predicted.

    ``table`` has one row per cell, class, repeat and seed: patient_id, cell_id, repeat, seed, fold, class (``*``
    where one attention serves all classes), weight (sums to 1 over the patient's cells), rank (1 = highest) and
    percentile (100 = highest).
    """

    table: pd.DataFrame

    @classmethod
    def load(cls, path: Path) -> "Attention":
        """Read ``attention.parquet``."""
        if not path.is_file():
            msg = f"{path} is missing; the folder is not a finished run, so make it again with `milkit train-mil`."
            raise RunError(msg)
        return cls(pd.read_parquet(path))

    def save(self, path: Path) -> None:
        """Write ``attention.parquet``."""
        self.table.to_parquet(path, index=False)
