"""Risk groups and predicted survival: relative to what, and made from whom."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from survival_toys import IDS, N, class_table, folds_of, follow_up, risk_table, write_run

from milkit.errors import RunError
from milkit.survival.outcome import TRAINING_RISKS, Outcome, read_outcome
from milkit.survival.predicted import class_groups, predicted_survival, relative_risks, risk_groups
from milkit.tables import write_table

RISK = np.random.default_rng(3).normal(size=N)
TIME, EVENT = follow_up(RISK)
AT = np.array([0.0, 100.0, 400.0])


def of_risks(folder: Path, risk: np.ndarray = RISK, **other: int) -> Outcome:
    return read_outcome(write_run(folder, risk_table(risk, TIME, EVENT, **other)))


def with_training(folder: Path, training: pd.DataFrame) -> Outcome:
    run = write_run(folder, risk_table(RISK, TIME, EVENT))
    write_table(run / TRAINING_RISKS, training)
    return read_outcome(run)


def training_table(shift: float = 0.0) -> pd.DataFrame:
    """Each fold's training patients, all others, with their own risks."""
    folds = folds_of(N)
    parts = [
        pd.DataFrame({"patient_id": IDS, "repeat": 0, "fold": fold, "risk": RISK + shift})[folds != fold]
        for fold in range(5)
    ]
    return pd.concat(parts, ignore_index=True)


def test_a_constant_of_a_fold_changes_nothing(tmp_path: Path) -> None:
    plain, shifted = of_risks(tmp_path / "a"), of_risks(tmp_path / "b", RISK + 7.0 * folds_of(N))
    first, second = relative_risks(plain), relative_risks(shifted)
    assert first.yardstick == "tested"
    np.testing.assert_allclose(first.mean, second.mean, atol=1e-12)
    np.testing.assert_allclose(first.position, second.position)
    for ours, theirs in zip(
        predicted_survival(plain, first, AT) or (), predicted_survival(shifted, second, AT) or (), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_groups_are_made_by_the_risks_of_training_patients_where_they_are_known(tmp_path: Path) -> None:
    """Training risks that are all higher put every tested patient below their median."""
    risks = relative_risks(with_training(tmp_path / "a", training_table(shift=10.0)))
    assert risks.yardstick == "training"
    assert set(risk_groups(risks.position, 2)[0]) == {"low risk"}
    fair = relative_risks(with_training(tmp_path / "b", training_table()))
    folds = folds_of(N)
    below = [bool((RISK[folds != folds[i]] < RISK[i]).sum() < (folds != folds[i]).sum() / 2) for i in range(N)]
    assert (risk_groups(fair.position, 2)[0] == "low risk").tolist() == below


def test_small_folds_are_measured_by_the_whole_repeat(tmp_path: Path) -> None:
    risks = relative_risks(of_risks(tmp_path / "run", k=20))
    assert risks.yardstick == "repeat"
    np.testing.assert_allclose(risks.mean, RISK - RISK.mean())


def test_thirds_are_equally_large_and_the_highest_risks_are_last(tmp_path: Path) -> None:
    risks = relative_risks(of_risks(tmp_path / "run"))
    groups, names = risk_groups(risks.position, 3)
    assert names == ("low risk", "middle risk", "high risk")
    assert [int((groups == name).sum()) for name in names] == [20, 20, 20]
    assert risks.mean[groups == "low risk"].mean() < risks.mean[groups == "high risk"].mean()


def test_repeats_are_averaged_per_patient(tmp_path: Path) -> None:
    table = risk_table(RISK, TIME, EVENT, repeats=2)
    table["fold"] = np.tile(folds_of(N), 2)
    table.loc[table["repeat"] == 1, "risk"] *= 3
    risks = relative_risks(read_outcome(write_run(tmp_path / "run", table)))
    once = relative_risks(of_risks(tmp_path / "once"))
    np.testing.assert_allclose(risks.mean, 2 * once.mean)


def test_a_patient_s_own_outcome_does_not_change_the_own_prediction(tmp_path: Path) -> None:
    """Nor that of anybody of the same fold; those of the others it may."""
    alike = folds_of(N) == folds_of(N)[0]
    outcomes = (TIME, EVENT), (np.where(alike, 3.0, TIME), np.where(alike, 1, EVENT))
    of = [read_outcome(write_run(tmp_path / f"{n}", risk_table(RISK, *own))) for n, own in enumerate(outcomes)]
    before, after = (predicted_survival(outcome, relative_risks(outcome), AT) for outcome in of)
    for ours, theirs in zip(before or (), after or (), strict=True):
        np.testing.assert_array_equal(ours[alike], theirs[alike])
        assert not np.array_equal(ours[~alike], theirs[~alike])
    assert before


def test_a_risk_is_turned_into_survival_by_breslow_s_baseline_of_the_training_patients(tmp_path: Path) -> None:
    outcome = with_training(tmp_path / "run", training_table())
    predicted = predicted_survival(outcome, relative_risks(outcome), np.array([300.0]))
    assert predicted is not None
    others = folds_of(N) != folds_of(N)[0]
    time, event, risk = TIME[others], EVENT[others] == 1, RISK[others]
    cumulative = sum(
        (event & (time == at)).sum() / np.exp(risk[time >= at]).sum() for at in np.unique(time[event]) if at <= 300
    )
    assert predicted[0][0, 0] == pytest.approx(np.exp(-cumulative * np.exp(RISK[0])))


def test_a_class_is_turned_into_the_curve_of_that_class_in_other_folds(tmp_path: Path) -> None:
    names = np.where(RISK > 0, "bad", "good").astype(object)
    patients = pd.DataFrame({"time": TIME, "event": EVENT}, index=list(IDS))
    outcome = read_outcome(write_run(tmp_path / "run", class_table(names, ("good", "bad")), patients))
    predicted = predicted_survival(outcome, None, np.array([300.0]))
    assert predicted is not None
    expected = []
    for own in ((folds_of(N) != folds_of(N)[0]) & (names == names[0]), folds_of(N) != folds_of(N)[0]):
        time, event = TIME[own], EVENT[own] == 1
        steps = [1 - (event & (time == at)).sum() / (time >= at).sum() for at in np.unique(time) if at <= 300]
        expected.append(np.prod(steps))
    assert [curves[0, 0] for curves in predicted] == pytest.approx(expected)


def test_one_fold_alone_predicts_no_survival(tmp_path: Path) -> None:
    outcome = of_risks(tmp_path / "run", k=1)
    assert predicted_survival(outcome, relative_risks(outcome), AT) is None


def test_the_class_of_a_patient_is_that_of_the_mean_probabilities(tmp_path: Path) -> None:
    table = pd.concat([class_table(np.repeat(["a", "b"], N // 2), ("a", "b", "c")).assign(repeat=r) for r in range(3)])
    first = table["patient_id"] == "P000"
    table.loc[first & (table["repeat"] < 2), ["p_a", "p_b", "p_c"]] = [0.45, 0.55, 0.0]
    patients = pd.DataFrame({"time": TIME, "event": EVENT}, index=list(IDS))
    groups, names = class_groups(read_outcome(write_run(tmp_path / "run", table, patients)))
    assert groups[0] == "a"  # 0.6 on average, although two of three repeats say b
    assert names == ("a", "b")


def test_training_risks_of_tested_patients_are_refused(tmp_path: Path) -> None:
    table = training_table()
    table.loc[0, "fold"] = folds_of(N)[IDS.index(table.loc[0, "patient_id"])]
    with pytest.raises(RunError, match=r"lists 1 patients as training patients of the fold that tests them \(P0"):
        with_training(tmp_path / "run", table)


def test_training_risks_of_some_folds_only_are_refused(tmp_path: Path) -> None:
    table = training_table()
    with pytest.raises(RunError, match=r"training_risks.csv lacks 1 of the run's folds; make the run again"):
        with_training(tmp_path / "run", table[table["fold"] != 2])
