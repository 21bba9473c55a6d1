"""The verb and the command `survival`: what it finds in survival by design, what it writes, warns of and refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from survival_toys import (
    CLASS,
    CLASSES,
    EVENT,
    IDS,
    RISK,
    TIME,
    N,
    class_table,
    follow_up,
    patients,
    risk_table,
    write_run,
)
from toys import make_store, toy_patients
from typer.testing import CliRunner

from milkit.cli import app
from milkit.settings import MilSettings, TrainingSettings
from milkit.survival.verb import analyse_survival, write_survival


def analysed(run: Path, **options: Any) -> dict[str, Any]:
    return analyse_survival(run, **options).result


@pytest.mark.parametrize(("sign", "expected"), [(1.0, 1.0), (-1.0, 0.0)])
def test_a_risk_that_orders_the_times_has_a_c_index_of_1_and_reversed_of_0(
    tmp_path: Path, sign: float, expected: float
) -> None:
    time = np.arange(1.0, N + 1)
    run = write_run(tmp_path / "run", risk_table(-sign * time / N, time, np.ones(N, dtype=int), k=4))
    result = analysed(run)
    assert [result["c_index"][name]["estimate"] for name in ("within_folds", "uno")] == [expected, expected]
    assert result["c_index"]["pooled"]["estimate"] == pytest.approx(expected, abs=0.15)  # folds of 15 are centred
    wrong = [text for text in result["warnings"] if "the sign of the risks is wrong" in text]
    assert len(wrong) == (sign < 0)
    high = next(group for group in result["groups"] if group["group"] == "high risk")
    assert (high["median"]["estimate"] < N / 2) == (sign > 0)


def test_risks_that_hold_beat_one_curve_for_everybody(tmp_path: Path) -> None:
    log_hazard = 1.5 * np.random.default_rng(5).normal(size=300)
    run = write_run(tmp_path / "run", risk_table(log_hazard, *follow_up(log_hazard)))
    result = analysed(run)
    assert result["brier"]["gain"]["ci_low"] > 0.1
    assert result["brier"]["model"]["estimate"] < result["brier"]["reference"]["estimate"]
    ratio = result["calibration"]["observed_to_expected"]
    assert ratio["ci_low"] < 1 < ratio["ci_high"]
    assert result["log_rank"]["p"] < 0.001
    assert not [text for text in result["warnings"] if "not shown to be better" in text]


def test_risks_without_meaning_are_said_to_add_nothing(tmp_path: Path) -> None:
    noise = np.random.default_rng(6).normal(size=N)
    result = analysed(write_run(tmp_path / "run", risk_table(noise, TIME, EVENT)))
    c_index = result["c_index"]["pooled"]
    assert c_index["ci_low"] < 0.5 < c_index["ci_high"]
    assert any(text.startswith("The predicted survival is not shown to be better than") for text in result["warnings"])


def test_a_class_run_is_grouped_by_the_predicted_class(class_run: Path) -> None:
    result = analysed(class_run)
    assert {group["group"]: group["n"] for group in result["groups"]} == pd.Series(CLASS).value_counts().to_dict()
    assert [group["group"] for group in result["groups"]] == list(CLASSES)
    assert result["c_index"] is None  # classes have no order
    largest = pd.Series(CLASS).value_counts().index[0]
    terms = [term["unit"] for term in result["cox"]["terms"]]
    assert terms == [f"predicted {name} against {largest}" for name in sorted(set(CLASSES) - {largest})]


def test_patients_without_follow_up_are_left_out_and_counted(tmp_path: Path) -> None:
    table = patients()
    table.loc[list(IDS[:7]), "time"] = np.nan
    result = analysed(write_run(tmp_path / "run", class_table(CLASS, CLASSES), table))
    assert (result["n_patients"], result["n_left_out"]) == (N - 7, 7)
    assert "7 tested patients without a known time and event are left out." in result["notes"]


def test_events_written_as_truth_values_are_read(tmp_path: Path) -> None:
    table = patients()
    table["event"] = (table["event"] == 1).astype(object)
    table.loc[IDS[0], "event"] = None
    result = analysed(write_run(tmp_path / "run", class_table(CLASS, CLASSES), table))
    assert result["n_events"] == EVENT[1:].sum()


def test_covariates_are_standardised_and_missing_ones_reported(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    sex = np.where(generator.random(N) < 0.5, "F", "M").astype(object)
    age = generator.normal(60, 10, N)
    age[:4], sex[5] = np.nan, None
    table = patients(age=age, sex=sex)
    run = write_run(tmp_path / "run", risk_table(RISK, TIME, EVENT), table)
    result = analysed(run, covariates=["age", "sex"])
    assert result["covariates_missing"] == {"age": 4, "sex": 1}
    assert "4 patients lack the covariate age and are left out of Cox's model." in result["warnings"]
    assert [term["term"] for term in result["cox"]["terms"]] == ["predicted risk", "age", "sex=M"]
    assert result["cox"]["n"] == N - 5
    kept = [i for i in range(N) if i not in {0, 1, 2, 3, 5}]
    assert result["cox"]["terms"][1]["unit"] == f"one spread ({age[kept].std():.3g}) of age"
    assert result["cox"]["terms"][2]["unit"] == "sex=M against F"
    in_months = write_run(tmp_path / "other", risk_table(RISK, TIME, EVENT), table.assign(age=12 * age))
    again = analysed(in_months, covariates=["age", "sex"])["cox"]["terms"][1]
    assert again["coefficient"] == pytest.approx(result["cox"]["terms"][1]["coefficient"])


def test_few_events_a_term_and_few_events_at_all_are_said(tmp_path: Path) -> None:
    event = np.zeros(N, dtype=int)
    event[np.argsort(TIME)[[5, 10, 15, 20, 25, 30]]] = 1
    result = analysed(write_run(tmp_path / "run", risk_table(RISK, TIME, event)))
    assert any(text.startswith("The number of events is 6, fewer than 10:") for text in result["warnings"])
    assert any(
        text.startswith("Cox's model has 6 events for 1 term, fewer than 10 a term") for text in result["warnings"]
    )


def test_a_class_without_an_event_is_left_out_of_cox_s_model(tmp_path: Path) -> None:
    table = patients()
    table["event"] *= CLASS != "control"
    result = analysed(write_run(tmp_path / "run", class_table(CLASS, CLASSES), table))
    assert "Nobody predicted as control had an event: these patients are left out of Cox's model." in result["warnings"]
    assert len(result["groups"]) == 3
    assert result["cox"]["n"] == (CLASS != "control").sum()


def test_one_predicted_class_is_nothing_to_compare(tmp_path: Path) -> None:
    table = class_table(np.full(N, "NPM1", dtype=object), CLASSES)
    result = analysed(write_run(tmp_path / "run", table, patients()))
    assert result["log_rank"] is None
    assert result["cox"] is None
    assert "All patients are in the group NPM1: there is nothing to compare." in result["warnings"]


def test_times_of_0_and_immortal_times_are_said(tmp_path: Path) -> None:
    time = TIME.copy()
    time[:2] = 0
    told = analysed(write_run(tmp_path / "a", risk_table(RISK, time, EVENT)))["warnings"]
    assert any(text.startswith("2 patients have a time of 0, ") for text in told)
    late = analysed(write_run(tmp_path / "b", risk_table(RISK, TIME + 1000, EVENT)))["warnings"]
    assert any("else that time counts as immortal" in text for text in late)
    assert not any("immortal" in text for text in told)


def test_repeats_and_the_making_of_groups_are_stated(tmp_path: Path) -> None:
    result = analysed(write_run(tmp_path / "run", risk_table(RISK, TIME, EVENT, repeats=3)))
    notes = " ".join(result["notes"])
    assert "The risks of 3 repeats are averaged per patient" in notes
    assert "because the run has kept no risks of training patients" in notes
    assert result["c_index"]["within_folds"]["estimate"] > 0.5


def test_the_folder_holds_figures_tables_and_the_result(risk_run: Path) -> None:
    result = write_survival(risk_run)
    folder = risk_run / "survival"
    tables = {f"{name}.csv" for name in ("patients", "curves", "at_risk", "cox", "brier", "calibration")}
    figures = {"kaplan-meier.svg", "brier.svg", "survival-calibration.svg"}
    assert {path.name for path in folder.iterdir()} == tables | figures | {"survival.json"}
    assert json.loads((folder / "survival.json").read_text()) == result
    groups = pd.read_csv(folder / "patients.csv").groupby("group").size()
    assert groups.to_dict() == {group["group"]: group["n"] for group in result["groups"]}


def test_what_an_earlier_analysis_left_and_a_new_one_has_not_is_taken_away(risk_run: Path) -> None:
    write_survival(risk_run)
    table = risk_table(RISK, TIME, EVENT, k=1)
    (risk_run / "predictions.csv").write_text(table.to_csv(index=False))
    result = write_survival(risk_run)
    assert result["brier"] is None
    assert not (risk_run / "survival" / "brier.svg").exists()
    assert any("no Brier score, no calibration" in text for text in result["notes"])


def test_the_horizon_is_the_median_time_or_the_one_that_was_asked_for(risk_run: Path) -> None:
    assert analysed(risk_run)["horizon"] == np.median(TIME)
    result, tables = analyse_survival(risk_run, horizon=700)
    assert result["horizon"] == 700
    assert tables["brier"]["time"].iloc[-1] == 700


def test_of_several_targets_the_one_with_risks_is_taken(risk_run: Path) -> None:
    (risk_run / "predictions.csv").rename(risk_run / "predictions.survival.csv")
    class_table(CLASS, CLASSES).to_csv(risk_run / "predictions.diagnosis.csv", index=False)
    assert analysed(risk_run)["kind"] == "risk"


def test_the_command_prints_what_was_found_and_where(risk_run: Path) -> None:
    done = CliRunner().invoke(app, ["survival", str(risk_run), "--horizon", "400"])
    assert done.exit_code == 0, done.output
    assert f"patients {N}, events {EVENT.sum()}, median follow-up" in done.stdout
    assert "log-rank chi2" in done.stdout
    assert "c-index" in done.stdout
    assert done.stdout.splitlines()[-1] == f"survival {risk_run / 'survival'}"


def test_the_command_prints_json_for_scripts(class_run: Path) -> None:
    done = CliRunner().invoke(app, ["survival", str(class_run), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["n_events"] == int(EVENT.sum())


def test_the_command_refuses_in_one_sentence(risk_run: Path) -> None:
    done = CliRunner().invoke(app, ["survival", str(risk_run), "--horizon", "-1"])
    assert done.exit_code == 2
    assert done.stderr.startswith("milkit: The horizon -1 was given, expected one after the first event")


def test_a_run_of_train_mil_is_analysed_as_it_is(tmp_path: Path) -> None:
    from milkit.mil.crossval import cross_validate

    table = toy_patients(per_class=8)
    hazard = table["label"].map({"NPM1": 0.0, "PML_RARA": 2.0, "control": np.nan})
    table["time"], table["event"] = follow_up(hazard.fillna(0.0).to_numpy())
    table.loc[hazard.isna(), ["time", "event"]] = np.nan  # healthy donors are not followed
    settings = MilSettings.model_validate({"folds": 3, "bootstrap": 100, "controls": False, "repeats": 2})
    settings = settings.model_copy(update={"training": TrainingSettings(max_epochs=4, learning_rate=0.01)})
    cross_validate(make_store(tmp_path / "store.zarr", table), settings, tmp_path / "run")
    done = CliRunner().invoke(app, ["survival", str(tmp_path / "run"), "--covariates", "age", "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert (result["n_patients"], result["n_left_out"], result["repeats"]) == (16, 8, 2)
    assert [term["term"] for term in result["cox"]["terms"]][-1] == "age"


@pytest.mark.parametrize("of_classes", [True, False])
def test_a_table_of_follow_up_goes_over_what_the_run_knows(tmp_path: Path, *, of_classes: bool) -> None:
    later = patients(time=TIME + 30)[["time", "event"]].iloc[:50].rename_axis("patient_id")
    later.to_csv(tmp_path / "later.csv")
    table = class_table(CLASS, CLASSES) if of_classes else risk_table(RISK, TIME, EVENT)
    run = write_run(tmp_path / "run", table, patients() if of_classes else None)
    result, tables = analyse_survival(run, follow_up=tmp_path / "later.csv")
    assert (result["n_patients"], result["n_left_out"]) == (N, 0)
    assert tables["patients"]["time"].tolist() == [*(TIME[:50] + 30), *TIME[50:]]
