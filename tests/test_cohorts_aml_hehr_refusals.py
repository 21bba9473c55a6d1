"""AML Hehr: what is refused, and that the message tells whom it concerns and what to do."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from aml_hehr_toys import FOLDERS, HEADER, ROWS, write_collection

from cohorts.aml_hehr import aml_hehr
from milkit.errors import CohortError

Collection = Callable[..., Path]


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    """Write a fake collection; without arguments one of three patients, as published."""
    return partial(write_collection, tmp_path / "collection")


def test_no_root_is_refused_with_layout_and_doi() -> None:
    expected = r"^No folder was given .*data/<class>/<patient>/image_<N>\.tif.*doi 10\.7937/6ppe-4020.*--root\.$"
    with pytest.raises(CohortError, match=expected):
        aml_hehr()


@pytest.mark.parametrize("exists", [True, False])
def test_empty_folder_is_refused_with_layout_and_doi(tmp_path: Path, exists: bool) -> None:
    root = tmp_path / "empty"
    if exists:
        root.mkdir()
    expected = (
        r"empty holds no class folders and no table of patients, where .*metadata\.csv and "
        r"data/<class>/<patient>/image_<N>\.tif.*doi 10\.7937/6ppe-4020.*--root\.$"
    )
    with pytest.raises(CohortError, match=expected):
        aml_hehr(root)


def test_folders_without_a_table_are_refused(collection: Collection) -> None:
    root = collection()
    (root / "metadata.csv").unlink()
    with pytest.raises(CohortError, match="collection holds no table of patients, where"):
        aml_hehr(root)


def test_table_without_folders_is_refused(collection: Collection) -> None:
    root = collection()
    shutil.rmtree(root / "data")
    with pytest.raises(CohortError, match="collection holds no class folders, where"):
        aml_hehr(root)


def test_patient_in_another_class_folder_than_its_label_is_refused(collection: Collection) -> None:
    folders = {"NPM1/ABF": 3, "control/AEC": 2, "NPM1/NAR": 12}
    expected = (
        r"in another class folder than bag_label says: NAR \(data/NPM1/NAR, bag_label PML_RARA\)\); mend the table"
    )
    with pytest.raises(CohortError, match=expected):
        aml_hehr(collection(folders=folders))


def test_patient_in_two_class_folders_is_refused(collection: Collection) -> None:
    with pytest.raises(CohortError, match="patients lie in several class folders: ABF;"):
        aml_hehr(collection(folders=FOLDERS | {"control/ABF": 1}))


def test_patient_without_folder_is_refused(collection: Collection) -> None:
    with pytest.raises(CohortError, match=r"disagree \(patients have no cells: AEC, NAR\)"):
        aml_hehr(collection(folders={"NPM1/ABF": 3}))


def test_patient_with_an_empty_folder_is_refused(collection: Collection) -> None:
    with pytest.raises(CohortError, match=r"disagree \(patients have no cells: AEC\)"):
        aml_hehr(collection(folders=FOLDERS | {"control/AEC": 0}))


def test_folder_without_row_is_refused(collection: Collection) -> None:
    with pytest.raises(CohortError, match=r"disagree \(patient folders have no row in the table: QQQ\)"):
        aml_hehr(collection(folders=FOLDERS | {"NPM1/QQQ": 1}))


def test_missing_label_is_refused(collection: Collection) -> None:
    with pytest.raises(CohortError, match="patients have no label: ABF"):
        aml_hehr(collection((ROWS[0].replace("NPM1", ""), *ROWS[1:])))


def test_unknown_label_is_refused(collection: Collection) -> None:
    with pytest.raises(CohortError, match=r"bag_label of .*metadata\.csv holds CEBPA, expected CBFB_MYH11, .*control;"):
        aml_hehr(collection((ROWS[0].replace("NPM1", "CEBPA"), *ROWS[1:])))


def test_one_class_alone_is_refused(collection: Collection) -> None:
    with pytest.raises(CohortError, match=r"lists patients of NPM1 only.* at least two classes are needed"):
        aml_hehr(collection(ROWS[:1], {"NPM1/ABF": 3}))


def test_patient_listed_twice_is_refused(collection: Collection) -> None:
    with pytest.raises(CohortError, match="patient ids occur twice: ABF"):
        aml_hehr(collection((*ROWS, ROWS[0])))


def test_wrong_sex_is_refused(collection: Collection) -> None:
    with pytest.raises(CohortError, match=r"sex_1f_2m of .* holds '3', expected 1 \(female\), 2 \(male\) or a blank"):
        aml_hehr(collection(("ABF,3,44.4,NPM1,3,44.41,87,100", *ROWS[1:])))


def test_wrong_age_is_refused(collection: Collection) -> None:
    with pytest.raises(CohortError, match="Column 'age' holds 'old' where a number was expected"):
        aml_hehr(collection((ROWS[0].replace("44.4,NPM1", "old,NPM1"), *ROWS[1:])))


def test_table_without_labels_is_refused_with_the_columns_it_has(collection: Collection) -> None:
    with pytest.raises(CohortError, match=r"has no column 'bag_label' .*found: patient_id, sex_1f_2m, age, label"):
        aml_hehr(collection(header=HEADER.replace("bag_label", "label")))
