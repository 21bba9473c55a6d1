"""What the verb `survival` refuses, in one sentence each, before anything is written."""

from pathlib import Path
from typing import Any

import pytest
from survival_toys import (
    CLASS,
    CLASSES,
    EVENT,
    RISK,
    TIME,
    N,
    class_table,
    patients,
    risk_table,
    write_run,
)

from milkit.errors import MilkitError, RunError, SettingsError, UnknownName
from milkit.survival.verb import write_survival


def refused(kind: type[MilkitError], run: Path, **options: Any) -> str:
    with pytest.raises(kind) as error:
        write_survival(run, **options)
    assert not (run / "survival").exists()
    return str(error.value)


def test_a_horizon_that_nobody_reached_is_refused(risk_run: Path) -> None:
    expected = (
        f"The horizon 9000 was given, expected one after the first event, at {TIME[EVENT == 1].min():g}, and up to the "
        f"last follow-up, at {TIME.max():g}, in the units of the patients' time; give another --horizon."
    )
    assert refused(SettingsError, risk_run, horizon=9000.0) == expected


def test_other_numbers_of_groups_are_refused(risk_run: Path) -> None:
    expected = "5 groups of risk were asked for; give --groups 2 (halves) or 3 (thirds)."
    assert refused(SettingsError, risk_run, n_groups=5) == expected


def test_patients_without_times_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", class_table(CLASS, CLASSES), patients().drop(columns=["event"]))
    assert refused(RunError, run) == (
        f"The patients of the run {run} have no column event, where survival needs time and event (1 or 0); give a "
        "table of them with --follow-up, or add them to the cohort's table of patients and run `milkit extract` again, "
        "which keeps the features."
    )


def test_a_run_without_its_store_and_without_times_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", class_table(CLASS, CLASSES))
    assert refused(RunError, run) == (
        f"The predictions of {run} have no columns time and event, and the run's store None is not there to take them "
        "from; give a table of them with --follow-up, or put the store back."
    )


def test_patients_without_events_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", risk_table(RISK, TIME, 0 * EVENT))
    assert refused(RunError, run) == (
        f"None of the {N} tested patients of {run} with a known follow-up had an event, where survival needs some; "
        "check that 1 stands for the event, or follow the patients longer."
    )


@pytest.mark.parametrize(
    ("column", "value", "what"), [("time", -3.0, "time below 0"), ("event", 2, "event other than 1 and 0")]
)
def test_times_and_events_that_cannot_be_are_refused(tmp_path: Path, column: str, value: float, what: str) -> None:
    table = patients()
    table.loc["P004", column] = value
    run = write_run(tmp_path / "run", class_table(CLASS, CLASSES), table)
    assert refused(RunError, run) == (
        f"1 patients of the run {run} have a {what} (P004); mend the table of patients and run `milkit extract` "
        "again, which keeps the features, or mend that of --follow-up."
    )


def test_a_run_without_predictions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert "predictions.csv is missing; the folder is not a finished run" in refused(RunError, tmp_path / "run")
    assert refused(RunError, tmp_path / "none").startswith(f"There is no run at {tmp_path / 'none'}; make one with")


def test_predictions_that_are_not_out_of_fold_are_refused(risk_run: Path) -> None:
    table = risk_table(RISK, TIME, EVENT)[["patient_id", "repeat", "fold"]].assign(role="test")
    table.loc[:1, "role"] = "train"
    (risk_run / "folds.csv").write_text(table.to_csv(index=False))
    assert refused(RunError, risk_run) == (
        f"2 predictions of {risk_run} are of patients whom that fold did not test, where survival needs out-of-fold "
        "predictions; make the run again with `milkit train-mil`."
    )


def test_predictions_of_a_number_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", risk_table(RISK, TIME, EVENT).rename(columns={"risk": "value"}))
    assert refused(RunError, run) == (
        f"{run / 'predictions.csv'} has neither a column risk nor probabilities p_<class>, where survival needs one of "
        "them; name a run of classes or of survival."
    )


def test_an_unknown_covariate_and_the_outcome_as_one_are_refused(class_run: Path) -> None:
    assert "agee" in refused(UnknownName, class_run, covariates=["agee"])
    assert "is what is predicted" in refused(SettingsError, class_run, covariates=["time"])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "lacks patient_id, time, event, expected a CSV file with patient_id, time and event (1 or 0); mend it"),
        ("patient_id,time\nP000,3\n", "lacks event, expected a CSV file with patient_id, time and event (1 or 0)"),
        ("patient_id,time,event\nP000,3,1\nP000,4,0\n", "lists 1 patients more than once (P000), expected one row a"),
        (
            "patient_id,time,event\nX,3,1\n",
            "has none of the patients that the run tested; give the table with the same",
        ),
    ],
    ids=["missing", "no event", "twice", "strangers"],
)
def test_a_table_of_follow_up_that_does_not_fit_is_refused(risk_run: Path, content: str | None, text: str) -> None:
    path = risk_run.parent / "follow_up.csv"
    if content is not None:
        path.write_text(content)
    assert refused(SettingsError, risk_run, follow_up=path).startswith(f"The follow-up {path} {text}")
