"""Who of a run's patients was followed how long, and what models that never saw them said of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.bags.tables import read_patients
from milkit.errors import RunError, first_rows
from milkit.predictions import Predictions
from milkit.settings import MilSettings, load
from milkit.tables import read_table

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

TRAINING_RISKS = "training_risks.csv"
"""Optional in a survival run: patient_id, repeat, fold, risk of each model's own training patients."""

OUTCOME = ("time", "event")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Tested patients whose follow-up is known.

    Attributes:
        patients: By ``patient_id``, sorted: ``time`` (float64), ``event`` (bool), and the columns of the store.
        predictions: Rows of ``predictions.csv`` of these patients, by repeat and patient.
        classes: Of the probabilities; empty in a survival run, whose rows have ``risk``.
        training: Rows of ``training_risks.csv`` of patients whose follow-up is known, with ``time`` and ``event``; or
            None.
        left_out: Tested patients without a known follow-up.
        settings: Of the run; the defaults where it has none.
    """

    patients: pd.DataFrame
    predictions: pd.DataFrame
    classes: tuple[str, ...]
    training: pd.DataFrame | None
    left_out: int
    settings: MilSettings

    @property
    def time(self) -> Floats:
        """(n,) until the event or the end of follow-up."""
        return self.patients["time"].to_numpy(dtype=np.float64)

    @property
    def event(self) -> Bools:
        """(n,) whether it was the event."""
        return self.patients["event"].to_numpy(dtype=np.bool_)

    @property
    def repeats(self) -> int:
        """How often each patient was tested at most."""
        return int(self.predictions["repeat"].nunique())


def read_outcome(run: Path) -> Outcome:
    """Read a run folder: its predictions, and times and events from there or from its store's patients.

    Raises:
        RunError: No run, no predictions, no times and events, or ones that cannot be.
        StoreError: The run's store is gone, and is needed for the times.
    """
    if not run.is_dir():
        msg = f"There is no run at {run}; make one with `milkit train-mil`, or name another."
        raise RunError(msg)
    predictions = Predictions.load(run / "predictions.csv")
    table, classes = predictions.table, predictions.classes
    if "risk" not in table and not classes:
        msg = (
            f"{run / 'predictions.csv'} has neither a column risk nor probabilities p_<class>, where survival needs "
            "one of them; name a run of classes or of survival."
        )
        raise RunError(msg)
    classes = () if "risk" in table else classes
    settings = load(MilSettings, run / "settings.yaml", {}) if (run / "settings.yaml").is_file() else MilSettings()
    followed = _followed(run, table, settings)
    known = followed.dropna(subset=list(OUTCOME)).astype({"time": np.float64, "event": np.bool_})
    tested = sorted(set(table["patient_id"]))
    patients = known.loc[[name for name in tested if name in known.index]]
    if not patients["event"].any():
        msg = (
            f"None of the {len(patients)} tested patients of {run} with a known follow-up had an event, where survival "
            "needs some; check that 1 stands for the event, or follow the patients longer."
        )
        raise RunError(msg)
    rows = table[table["patient_id"].isin(patients.index)].sort_values(["repeat", "patient_id"], ignore_index=True)
    if "risk" in table:
        _check_finite(rows["risk"], run / "predictions.csv")
    training = _training(run, known) if "risk" in table else None
    return Outcome(patients, rows, classes, training, len(tested) - len(patients), settings)


def _followed(run: Path, table: pd.DataFrame, settings: MilSettings) -> pd.DataFrame:
    """All patients that are known, with checked ``time`` and ``event``; NaN where a follow-up is not known.

    The predictions' own times go over the store's, whose table may have been corrected since.
    """
    of_predictions = set(OUTCOME) <= set(table)
    there = settings.store is not None and (settings.store / "patients.csv").is_file()
    if not there and not of_predictions:
        msg = (
            f"{run / 'predictions.csv'} has no columns time and event, and the run's store {settings.store} is not "
            "there to take them from; put the store back, or name a run whose store is there."
        )
        raise RunError(msg)
    stored = read_patients(settings.store) if there and settings.store is not None else pd.DataFrame()
    if of_predictions:
        own = table.groupby("patient_id")[list(OUTCOME)].first()
        rest = stored.drop(columns=[name for name in OUTCOME if name in stored])
        times = own.combine_first(stored[list(OUTCOME)]) if set(OUTCOME) <= set(stored) else own
        stored = times.join(rest, how="left")
    if lacking := [name for name in OUTCOME if name not in stored]:
        msg = (
            f"The patients of the run {run} have no column {' and no column '.join(lacking)}, where survival needs "
            "time and event (1 or 0); add them to the cohort's table of patients and run `milkit extract` again, which "
            "keeps the features."
        )
        raise RunError(msg)
    return _checked(stored, run)


def _checked(patients: pd.DataFrame, run: Path) -> pd.DataFrame:
    time = pd.to_numeric(patients["time"], errors="coerce")
    event = pd.to_numeric(patients["event"].replace({"True": 1, "False": 0}), errors="coerce")
    wrong = {
        "time that is no number": patients["time"].notna() & ~np.isfinite(time.astype(np.float64)),
        "time below 0": time < 0,
        "event other than 1 and 0": patients["event"].notna() & ~event.isin([0, 1]),
    }
    for what, rows in wrong.items():
        if rows.any():
            names = first_rows([str(name) for name in patients.index[rows]])
            msg = (
                f"{int(rows.sum())} patients of the run {run} have a {what} ({names}); mend the cohort's table of "
                "patients and run `milkit extract` again, which keeps the features."
            )
            raise RunError(msg)
    return patients.assign(time=time.astype(np.float64), event=event.astype(np.float64))


def _training(run: Path, known: pd.DataFrame) -> pd.DataFrame | None:
    path = run / TRAINING_RISKS
    if not path.is_file():
        return None
    table = read_table(path)
    if lacking := [name for name in ("patient_id", "repeat", "fold", "risk") if name not in table]:
        msg = f"{path} lacks the column {' and '.join(lacking)}; make the run again with `milkit train-mil`."
        raise RunError(msg)
    _check_finite(table["risk"], path)
    tested = read_table(run / "predictions.csv")[["patient_id", "repeat", "fold"]]
    folds = [{(int(r), int(f)) for r, f in own.groupby(["repeat", "fold"]).groups} for own in (tested, table)]
    if folds[0] - folds[1]:
        msg = f"{path} lacks {len(folds[0] - folds[1])} of the run's folds; make the run again with `milkit train-mil`."
        raise RunError(msg)
    both = table.merge(tested, on=["patient_id", "repeat", "fold"])
    if len(both):
        msg = (
            f"{path} lists {len(both)} patients as training patients of the fold that tests them "
            f"({first_rows(sorted(set(both['patient_id'])))}); their risks are not out of fold, so make the run again "
            "with `milkit train-mil`."
        )
        raise RunError(msg)
    return table.join(known[list(OUTCOME)], on="patient_id", how="inner")


def _check_finite(risks: "pd.Series[float]", path: Path) -> None:
    wrong = ~np.isfinite(pd.to_numeric(risks, errors="coerce").astype(np.float64))
    if wrong.any():
        msg = f"{path} has {int(wrong.sum())} risks that are no finite numbers; make the run again with another seed."
        raise RunError(msg)
