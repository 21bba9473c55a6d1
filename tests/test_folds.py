"""Folds, as sentences."""

from pathlib import Path

import pandas as pd
import pytest
from toys import toy_patients

from milkit.bags import BagStore
from milkit.errors import FoldError
from milkit.folds import Folds, refuse_unequal_repeats
from milkit.mil.crossval import cross_validate
from milkit.settings import MilSettings


@pytest.fixture
def folds() -> Folds:
    return Folds.stratified(toy_patients()["label"], 5, seed=3, repeats=2)


def test_each_patient_is_tested_exactly_once_per_repeat(folds: Folds) -> None:
    tested = folds.table[folds.table["role"] == "test"].groupby("repeat")["patient_id"]
    assert all(sorted(ids) == sorted(toy_patients().index) for _, ids in tested)


def test_no_patient_has_two_roles_in_a_fold(folds: Folds) -> None:
    assert not folds.table.duplicated(["patient_id", "repeat", "fold"]).any()


def test_the_validation_fold_is_the_next_one(folds: Folds) -> None:
    splits = [split for split in folds.splits() if split.repeat == 0]
    assert all(set(split.validation) == set(splits[(split.fold + 1) % 5].test) for split in splits)


def test_every_test_fold_holds_every_class(folds: Folds) -> None:
    labels = toy_patients()["label"]
    assert all(set(labels[split.test]) == set(labels) for split in folds.splits())


def test_repeats_split_anew_and_the_seed_repeats_them(folds: Folds) -> None:
    first, second = (part.reset_index(drop=True) for _, part in folds.table.groupby("repeat"))
    assert not first["role"].equals(second["role"])
    assert folds.digest == Folds.stratified(toy_patients()["label"], 5, seed=3, repeats=2).digest
    assert folds.digest != Folds.stratified(toy_patients()["label"], 5, seed=4, repeats=2).digest


@pytest.mark.parametrize("k", [2, 7])
def test_a_number_of_folds_that_cannot_be_is_refused(k: int) -> None:
    with pytest.raises(FoldError, match=rf"{k} folds were asked for and the smallest class, 'NPM1', has 6 patients"):
        Folds.stratified(toy_patients()["label"], k, seed=0)


def test_one_class_is_refused() -> None:
    with pytest.raises(FoldError, match=r"All 4 patients have the label 'A'; training needs two classes"):
        Folds.stratified(pd.Series("A", index=list("wxyz")), 3, seed=0)


def test_repeats_that_test_other_patients_are_refused(folds: Folds) -> None:
    refuse_unequal_repeats(folds.tested)
    once = (folds.tested["repeat"] == 1) & (folds.tested["patient_id"] == "P00")
    with pytest.raises(FoldError, match=r"^Of the 18 patients that the splits test, 0 are tested several times in a"):
        refuse_unequal_repeats(folds.tested[~once])
    twice = pd.concat([folds.tested, folds.tested[once]])
    with pytest.raises(FoldError, match=r"1 are tested several times in a repeat and 0 not in every repeat, where"):
        refuse_unequal_repeats(twice)


def test_they_are_refused_before_anything_is_trained(
    folds: Folds, toy_store: BagStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("milkit.mil.crossval.Bags.load", lambda *_: pytest.fail("read the bags"))
    some = Folds(folds.table[(folds.table["repeat"] == 0) | (folds.table["fold"] == 0)])
    with pytest.raises(FoldError, match=r"the splits test, 0 are tested several times in a repeat and 14 not in every"):
        cross_validate(toy_store, MilSettings(), tmp_path / "run", some)
    assert not (tmp_path / "run").exists()


def test_a_saved_table_comes_back(folds: Folds, tmp_path: Path) -> None:
    folds.save(tmp_path / "folds.csv")
    assert Folds.load(tmp_path / "folds.csv").digest == folds.digest


def test_a_patient_in_two_roles_is_refused_when_loading(tmp_path: Path) -> None:
    (tmp_path / "folds.csv").write_text("patient_id,repeat,fold,role\nNAR,0,0,train\nNAR,0,0,test\n")
    with pytest.raises(FoldError, match=r"gives patient 'NAR' two roles in one fold"):
        Folds.load(tmp_path / "folds.csv")


def test_an_unknown_role_is_refused_when_loading(tmp_path: Path) -> None:
    (tmp_path / "folds.csv").write_text("patient_id,repeat,fold,role\nNAR,0,0,dev\n")
    with pytest.raises(FoldError, match=r"is no table of folds"):
        Folds.load(tmp_path / "folds.csv")
