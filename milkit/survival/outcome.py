"""Who of a run's patients was followed how long, and what models that never saw them said of them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.bags import open_patients
from milkit.errors import RunError, SettingsError, first_rows
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
        source: The table of predictions.
    """

    patients: pd.DataFrame
    predictions: pd.DataFrame
    classes: tuple[str, ...]
    training: pd.DataFrame | None
    left_out: int
    settings: MilSettings
    source: Path

    @property
    def time(self) -> Floats:
        """(n,) until the event or the end of follow-up."""
        return self.patients["time"].to_numpy(dtype=np.float64)

    @property
    def event(self) -> Bools:
        """(n,) whether it was the event."""
        return self.patients["event"].to_numpy(dtype=np.bool_)

    @property
    def middle(self) -> float:
        """The median time, or where nobody had the event by then the median time of those who had."""
        middle = float(np.median(self.time))
        return middle if middle > self.time[self.event].min() else float(np.median(self.time[self.event]))

    @property
    def repeats(self) -> int:
        """How often each patient was tested at most."""
        return int(self.predictions["repeat"].nunique())


def read_outcome(run: Path, follow_up: Path | None = None, *, source: Path | None = None) -> Outcome:
    """Read a run folder: its predictions, and times and events.

    Args:
        run: The folder.
        follow_up: A table with patient_id, time and event; without it, they are the predictions' own, or those of the
            patients of the run's store.
        source: The table of predictions, where the run has several.

    Raises:
        SettingsError: ``follow_up`` is no such table, or names none of the tested patients.
        RunError: No run, no predictions, ones that are not out of fold, no times and events, or ones that cannot be.
        StoreError: The run's store is gone, and is needed for the times.
    """
    if not run.is_dir():
        msg = f"There is no run at {run}; make one with `milkit train-mil`, or name another."
        raise RunError(msg)
    source = source or _source(run)
    predictions = Predictions.load(source, any_target=True)
    table, classes = predictions.table, predictions.classes
    if "risk" not in table and not classes:
        msg = (
            f"{source} has neither a column risk nor probabilities p_<class>, where survival needs "
            "one of them; name a run of classes or of survival."
        )
        raise RunError(msg)
    classes = () if "risk" in table else classes
    _check_out_of_fold(run, table)
    settings = load(MilSettings, run / "settings.yaml", {}) if (run / "settings.yaml").is_file() else MilSettings()
    followed = _followed(run, table if follow_up is None else _with_times(table, follow_up, settings), settings)
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
        _check_finite(rows["risk"], source)
    training = _training(run, known, table) if "risk" in table else None
    return Outcome(patients, rows, classes, training, len(tested) - len(patients), settings, source)


def _source(run: Path) -> Path:
    """``predictions.csv``, or of a run of several targets the one that holds risks."""
    one, several = run / "predictions.csv", sorted(run.glob("predictions.*.csv"))
    return next((path for path in several if "risk" in read_table(path)), one) if not one.is_file() else one


def _check_out_of_fold(run: Path, predictions: pd.DataFrame) -> None:
    """Refuse predictions of patients whom their fold did not test, where the run says who was what."""
    if not (run / "folds.csv").is_file():
        return
    keys = ["patient_id", "repeat", "fold"]
    folds = read_table(run / "folds.csv")
    roles = predictions[keys].merge(folds[folds["role"] == "test"], on=keys, how="left")["role"]
    if roles.isna().any():
        msg = (
            f"{int(roles.isna().sum())} predictions of {run} are of patients whom that fold did not test, where "
            "survival needs out-of-fold predictions; make the run again with `milkit train-mil`."
        )
        raise RunError(msg)


def _followed(run: Path, table: pd.DataFrame, settings: MilSettings) -> pd.DataFrame:
    """All patients that are known, with checked ``time`` and ``event``; NaN where a follow-up is not known.

    The predictions' own times go over the store's, whose table may have been corrected since.
    """
    of_predictions = set(OUTCOME) <= set(table)
    there = settings.store is not None and (settings.store / "patients.csv").is_file()
    if not there and not of_predictions:
        msg = (
            f"The predictions of {run} have no columns time and event, and the run's store {settings.store} is not "
            "there to take them from; give a table of them with --follow-up, or put the store back."
        )
        raise RunError(msg)
    stored = open_patients(settings.store)[0] if there and settings.store is not None else pd.DataFrame()
    if of_predictions:
        own = table.groupby("patient_id")[list(OUTCOME)].first()
        rest = stored.drop(columns=[name for name in OUTCOME if name in stored])
        times = own.combine_first(stored[list(OUTCOME)]) if set(OUTCOME) <= set(stored) else own
        stored = times.join(rest, how="left")
    if lacking := [name for name in OUTCOME if name not in stored]:
        msg = (
            f"The patients of the run {run} have no column {' and no column '.join(lacking)}, where survival needs "
            "time and event (1 or 0); give a table of them with --follow-up, or add them to the cohort's table of "
            "patients and run `milkit extract` again, which keeps the features."
        )
        raise RunError(msg)
    return _checked(stored, run)


def _with_times(predictions: pd.DataFrame, path: Path, settings: MilSettings) -> pd.DataFrame:
    """The predictions with the times and events of a table of their own, where it has the patient."""
    columns = ["patient_id", *OUTCOME]
    table = read_table(path) if path.is_file() else pd.DataFrame()
    if lacking := [name for name in columns if name not in table]:
        msg = (
            f"The follow-up {path} lacks {', '.join(lacking)}, expected a CSV file with patient_id, time and event "
            "(1 or 0); mend it, or give another --follow-up."
        )
        raise SettingsError(msg)
    if settings.store is not None and (settings.store / "patients.csv").is_file():
        table = table.assign(patient_id=open_patients(settings.store)[1](table["patient_id"]))
    if twice := sorted(set(table.loc[table["patient_id"].duplicated(), "patient_id"].astype(str))):
        msg = (
            f"The follow-up {path} lists {len(twice)} patients more than once ({first_rows(twice)}), expected one row "
            "a patient; keep the last follow-up of each."
        )
        raise SettingsError(msg)
    if not predictions["patient_id"].isin(table["patient_id"]).any():
        msg = (
            f"The follow-up {path} has none of the patients that the run tested; give the table with the same "
            "patient_id."
        )
        raise SettingsError(msg)
    known = table.dropna(subset=list(OUTCOME)).set_index("patient_id")
    times = {name: predictions["patient_id"].map(known[name]) for name in OUTCOME}
    before = {name: predictions[name] for name in OUTCOME if name in predictions}
    return predictions.assign(**{name: own.fillna(before.get(name, own)) for name, own in times.items()})


def _checked(patients: pd.DataFrame, run: Path) -> pd.DataFrame:
    time = pd.to_numeric(patients["time"], errors="coerce")
    truths = patients["event"].map(lambda value: {"True": 1, "False": 0}.get(str(value), value))
    event = pd.to_numeric(truths, errors="coerce")
    wrong = {
        "time that is no number": patients["time"].notna() & ~np.isfinite(time.astype(np.float64)),
        "time below 0": time < 0,
        "event other than 1 and 0": patients["event"].notna() & ~event.isin([0, 1]),
    }
    for what, rows in wrong.items():
        if rows.any():
            names = first_rows([str(name) for name in patients.index[rows]])
            msg = (
                f"{int(rows.sum())} patients of the run {run} have a {what} ({names}); mend the table of patients "
                "and run `milkit extract` again, which keeps the features, or mend that of --follow-up."
            )
            raise RunError(msg)
    return patients.assign(time=time.astype(np.float64), event=event.astype(np.float64))


def _training(run: Path, known: pd.DataFrame, tested: pd.DataFrame) -> pd.DataFrame | None:
    path = run / TRAINING_RISKS
    if not path.is_file():
        return None
    table = read_table(path)
    if lacking := [name for name in ("patient_id", "repeat", "fold", "risk") if name not in table]:
        msg = f"{path} lacks the column {' and '.join(lacking)}; make the run again with `milkit train-mil`."
        raise RunError(msg)
    _check_finite(table["risk"], path)
    keys = ["repeat", "fold"]
    folds, there = (set(map(tuple, own[keys].drop_duplicates().to_numpy().tolist())) for own in (tested, table))
    if folds - there:
        msg = f"{path} lacks {len(folds - there)} of the run's folds; make the run again with `milkit train-mil`."
        raise RunError(msg)
    both = table.merge(tested[["patient_id", *keys]], on=["patient_id", *keys])
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
