"""Published folds as their authors lay them out: what they mean, and what is refused."""

import os
from pathlib import Path

import pandas as pd
import pytest

from milkit.errors import FoldError
from milkit.folds import Folds
from milkit.published_folds import published_folds
from milkit.settings import MilSettings
from milkit.splitting import make_folds

LABELS = pd.Series(["A", "B"] * 15, index=pd.Index([f"P{number:02d}" for number in range(30)], name="patient_id"))
NUMBERS = LABELS.map({"A": "4", "B": "0"})


def _write(
    folder: Path, parts: list[tuple[list[str], list[str], list[str]]], numbers: "pd.Series[str]" = NUMBERS
) -> Path:
    """Folds in GenBloom's layout: patients of train, val and test of each."""
    for fold, own in enumerate(parts):
        place = folder / f"data_fold_{fold}"
        place.mkdir(parents=True)
        for role, ids in zip(("train", "val", "test"), own, strict=True):
            table = pd.DataFrame({"patient_name": ids, "labels": [numbers.get(name, "4") for name in ids]})
            table.to_csv(place / f"{role}.csv", index=False)
    return folder


def _fixed() -> list[tuple[list[str], list[str], list[str]]]:
    """One test of P24 to P29; five validation parts of the others."""
    ids = list(LABELS.index)
    val = [ids[start : start + 4] for start in range(0, 20, 4)]
    return [([name for name in ids[:24] if name not in own], own, ids[24:]) for own in val]


def test_folds_that_share_a_test_set_are_repeats(tmp_path: Path) -> None:
    published = published_folds(_write(tmp_path / "folds", _fixed()), LABELS)
    splits = list(published.folds.splits())
    assert [(split.repeat, split.fold) for split in splits] == [(repeat, 0) for repeat in range(5)]
    assert all(split.test == list(LABELS.index[24:]) for split in splits)
    assert splits[1].validation == list(LABELS.index[4:8])
    assert published.notes == ()


def test_folds_that_test_everybody_once_are_one_partition(tmp_path: Path) -> None:
    ids = list(LABELS.index)
    own = [
        (ids[10:], ids[8:10], ids[:8]),
        (ids[:8], ids[8:10], ids[10:20]),
        (ids[:8], ids[10:12], ids[20:] + ids[8:10]),
    ]
    splits = list(published_folds(_write(tmp_path / "folds", own), LABELS).folds.splits())
    assert [(split.repeat, split.fold) for split in splits] == [(0, 0), (0, 1), (0, 2)]


def test_folds_of_more_than_nine_keep_their_natural_order(tmp_path: Path) -> None:
    ids = list(LABELS.index)
    own = [([n for n in ids[12:] if n not in ids[f : f + 1]], ids[28:], ids[f : f + 1]) for f in range(11)]
    own = [([n for n in train if n not in val], val, test) for train, val, test in own]
    splits = list(published_folds(_write(tmp_path / "folds", own), LABELS).folds.splits())
    assert [split.test for split in splits] == [[name] for name in ids[:11]]


def test_tests_that_overlap_in_part_are_refused(tmp_path: Path) -> None:
    ids = list(LABELS.index)
    own = [(ids[10:], ids[8:10], ids[:8]), (ids[12:], ids[10:12], ids[4:10])]
    with pytest.raises(FoldError, match=r"test some patients several times and others not; expected folds that all"):
        published_folds(_write(tmp_path / "folds", own), LABELS)


def test_a_patient_in_two_files_of_a_fold_is_refused(tmp_path: Path) -> None:
    ids = list(LABELS.index)
    with pytest.raises(FoldError, match=r"has patient 'P05' twice in fold 0, expected one role"):
        published_folds(_write(tmp_path / "folds", [(ids[5:], ids[3:5], ids[5:6])]), LABELS)


def test_labels_that_cannot_be_the_store_s_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FoldError, match=r"The label '4' in .* stands for A and B in the store, expected one class"):
        published_folds(_write(tmp_path / "folds", _fixed(), NUMBERS.replace("0", "4")), LABELS)


def test_patients_of_one_side_only_are_left_out_and_counted(tmp_path: Path) -> None:
    parts = [([*train, "XXX"], val, test) for train, val, test in _fixed()]
    more = pd.concat([LABELS, pd.Series({"NEW1": "A", "NEW2": "B"})])
    published = published_folds(_write(tmp_path / "folds", parts), more)
    assert published.notes == (
        "1 patient of the published folds is not in the store.",
        "2 patients of the store are not in the published folds, and out of this run.",
    )
    assert not {"XXX", "NEW1"} & set(published.folds.table["patient_id"])


def test_folds_of_another_cohort_are_refused(tmp_path: Path) -> None:
    other = pd.Series("A", index=pd.Index(["Q1", "Q2"], name="patient_id"))
    with pytest.raises(FoldError, match=r"has no patient of the store; give the folds of this cohort"):
        published_folds(_write(tmp_path / "folds", _fixed()), other)


def test_a_column_of_folds_is_a_partition(tmp_path: Path) -> None:
    table = pd.DataFrame({"patient_id": LABELS.index, "fold_a": [n % 5 for n in range(30)], "fold_b": "x"})
    table.to_csv(tmp_path / "s.csv", index=False)
    folds = published_folds(tmp_path / "s.csv", LABELS, "fold_a").folds
    splits = list(folds.splits())
    assert [split.test for split in splits] == [[f"P{n:02d}" for n in range(30) if n % 5 == f] for f in range(5)]
    assert splits[4].validation == splits[0].test
    with pytest.raises(FoldError, match=r"has the columns fold_a, fold_b beside 'patient_id'; say with --by which"):
        published_folds(tmp_path / "s.csv", LABELS)
    with pytest.raises(FoldError, match=r"The column 'fold_b' of .* holds x, expected train and test, or from 3 to 20"):
        published_folds(tmp_path / "s.csv", LABELS, "fold_b")


def test_a_column_of_roles_is_a_fixed_test_with_every_part_of_training_as_validation_once(tmp_path: Path) -> None:
    roles = ["Test" if n >= 20 else "train" for n in range(30)]
    pd.DataFrame({"patient_id": LABELS.index, "role": roles}).to_csv(tmp_path / "s.csv", index=False)
    splits = list(published_folds(tmp_path / "s.csv", LABELS, inner=5, seed=0).folds.splits())
    assert [split.repeat for split in splits] == [0, 1, 2, 3, 4]
    assert all(split.test == list(LABELS.index[20:]) for split in splits)
    validated = [name for split in splits for name in split.validation]
    assert sorted(validated) == list(LABELS.index[:20])


def test_a_run_s_own_table_of_folds_can_be_used_again(tmp_path: Path) -> None:
    folds = Folds.stratified(LABELS, 3, seed=4, repeats=2)
    folds.save(tmp_path / "folds.csv")
    again = make_folds(pd.DataFrame({"label": LABELS}), MilSettings(folds_file=tmp_path / "folds.csv"))
    assert again.digest == folds.digest


def test_a_place_without_folds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FoldError, match=r"holds no folder with train.csv, val.csv and test.csv"):
        published_folds(tmp_path, LABELS)
    with pytest.raises(FoldError, match=r"do not exist; give a table of folds, or a folder"):
        published_folds(tmp_path / "none.csv", LABELS)


def test_two_ways_to_split_are_refused(tmp_path: Path) -> None:
    settings = MilSettings(folds_file=tmp_path / "folds.csv", splits="leave-site-out")
    with pytest.raises(
        FoldError, match=r"Both --splits leave-site-out and --folds-file .* were given, expected one way"
    ):
        make_folds(pd.DataFrame({"label": LABELS}), settings)


def test_a_table_whose_repeats_test_other_patients_is_refused(tmp_path: Path) -> None:
    folds = Folds.stratified(LABELS, 5, seed=0, repeats=2)
    folds = Folds(folds.table[(folds.table["repeat"] == 0) | (folds.table["fold"] < 4)])
    folds.save(tmp_path / "folds.csv")
    with pytest.raises(FoldError, match=r"^Of the 30 patients that the splits test, 0 .* and 6 not in every repeat"):
        published_folds(tmp_path / "folds.csv", LABELS)


def test_repeats_beside_published_folds_are_refused(tmp_path: Path) -> None:
    settings = MilSettings(folds_file=tmp_path / "folds.csv", repeats=3)
    with pytest.raises(FoldError, match=r"^Both --repeats 3 and --folds-file .* were given, where the file says how"):
        make_folds(pd.DataFrame({"label": LABELS}), settings)


@pytest.fixture
def real() -> Path:
    if not os.environ.get("MILKIT_REAL_DATA"):
        pytest.skip("MILKIT_REAL_DATA is not set")
    return Path(os.environ["MILKIT_REAL_DATA"])


@pytest.fixture
def hehr(real: Path) -> "pd.Series[str]":
    table = pd.read_csv(real / "aml_hehr_metadata" / "patient_splits.csv", dtype=str, keep_default_na=False)
    return table.set_index("patient_id")["bag_label"]


def test_genbloom_s_folds_share_one_test_of_43_patients(real: Path, hehr: "pd.Series[str]") -> None:
    published = published_folds(real / "genbloom_splits" / "aml_hehr" / "folds", hehr)
    splits = list(published.folds.splits())
    assert (len(splits), {len(split.test) for split in splits}) == (5, {43})
    assert sorted(len(split.validation) for split in splits) == [29, 29, 29, 29, 30]
    assert published.notes == ()


@pytest.mark.parametrize(
    ("column", "n_repeats", "n_folds", "n_tested"),
    [("scemila_fold", 1, 5, 189), ("artificial_patient_paper_split", 5, 1, 37)],
)
def test_columns_of_the_table_of_splits_are_read(
    real: Path, hehr: "pd.Series[str]", column: str, n_repeats: int, n_folds: int, n_tested: int
) -> None:
    table = published_folds(real / "aml_hehr_metadata" / "patient_splits.csv", hehr, column).folds.table
    assert (table["repeat"].nunique(), table["fold"].nunique()) == (n_repeats, n_folds)
    assert table.loc[table["role"] == "test", "patient_id"].nunique() == n_tested
