"""What a table knows of the label, with the columns of the published table, and no real patient."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from audit_toys import people

from milkit.audit.columns import covariate_columns
from milkit.audit.table_controls import SIZE, table_controls
from milkit.errors import FoldError
from milkit.folds import Folds


@pytest.fixture(scope="module")
def patients() -> pd.DataFrame:
    table = people(60, ("A", "B", "C"))
    table["count"] = table["label"].map({"A": 1.0, "B": 5.0, "C": 9.0}) + np.random.default_rng(0).normal(size=60)
    table["noise"] = np.random.default_rng(1).normal(size=60)
    return table


def test_a_column_that_carries_the_label_is_told_from_one_that_does_not(patients: pd.DataFrame) -> None:
    folds = Folds.stratified(patients["label"], 5, seed=0, repeats=2)
    sets = {"count": ["count"], "noise": ["noise"]}
    result = table_controls(patients, np.full(60, 10), sets, folds, n_bootstrap=300)
    count, noise = result["controls"]["count"], result["controls"]["noise"]
    assert count["balanced_accuracy"]["estimate"] > 0.9
    assert noise["balanced_accuracy"]["ci_low"] < 1 / 3 < count["balanced_accuracy"]["ci_low"]
    assert noise["difference"]["balanced_accuracy"]["estimate"] == pytest.approx(
        count["balanced_accuracy"]["estimate"] - noise["balanced_accuracy"]["estimate"]
    )
    assert noise["difference"]["balanced_accuracy"]["ci_low"] > 0.3
    assert result["folds_digest"] == folds.digest


def test_folds_that_leave_somebody_untested_are_refused(patients: pd.DataFrame) -> None:
    folds = Folds.stratified(patients["label"], 5, seed=0)
    some = Folds(folds.table[folds.table["fold"] < 4])
    with pytest.raises(FoldError, match=r"^12 of 60 patients are not tested in every repeat; give folds that test"):
        table_controls(patients, np.full(60, 10), {"count": ["count"]}, some, n_bootstrap=100)


def test_the_number_of_cells_is_a_column_of_its_own_and_goes_with_others(patients: pd.DataFrame) -> None:
    sizes = np.array([10 + 40 * (label == "A") for label in patients["label"]]) + np.arange(60) // 3 % 3
    folds = Folds.stratified(patients["label"], 5, seed=0)
    sets = {"both": ["noise", SIZE], "size": [SIZE]}
    result = table_controls(patients, sizes, sets, folds, n_bootstrap=200)
    for control in result["controls"].values():
        assert control["per_class"]["A"]["recall"]["estimate"] == 1.0
        assert control["per_class"]["B"]["auroc"]["estimate"] < 0.9


def test_recalls_of_the_classes_average_to_the_balanced_accuracy(patients: pd.DataFrame) -> None:
    folds = Folds.stratified(patients["label"], 3, seed=0)
    result = table_controls(patients, np.full(60, 10), {"count": ["count"]}, folds, n_bootstrap=200)
    control = result["controls"]["count"]
    recalls = [own["recall"]["estimate"] for own in control["per_class"].values()]
    assert control["balanced_accuracy"]["estimate"] == pytest.approx(np.mean(recalls))


def test_the_published_columns_are_read_for_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    from tables import aml_hehr, hehr_sets

    header = "patient_id,sex_1f_2m,age,bag_label,instance_count,leucocytes_per_µl,pb_myeloblast,pb_monocyte,pb_total\n"
    (tmp_path / "m.csv").write_text(header + 'NAR,2,"44,4",control,99,,1,2,100\nABF,1,60,NPM1,497,44.41,87,2,100\n')
    patients, sizes = aml_hehr(tmp_path / "m.csv")
    assert patients.index.tolist() == ["ABF", "NAR"]
    assert sizes.tolist() == [497, 99]
    assert patients["sex"].tolist() == ["F", "M"]
    assert covariate_columns(patients) == ("age", "sex")
    assert hehr_sets(patients)["differential count"] == ["pb_myeloblast", "pb_monocyte"]
