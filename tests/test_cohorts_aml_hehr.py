"""AML Hehr: each way in which copies of the collection differ, on fake ones; and the real table of its patients."""

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from aml_hehr_toys import FOLDERS, HEADER, ROWS, write_collection, write_images

from cohorts.aml_hehr import CLASSES, N_PATIENTS, aml_hehr
from milkit.cohort import Cohort
from milkit.images import read_image

Collection = Callable[..., Path]


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    """Write a fake collection; without arguments one of three patients, as published."""
    return partial(write_collection, tmp_path / "collection")


def only(cohort: Cohort, word: str) -> str:
    """The one note with this word."""
    (note,) = [note for note in cohort.notes if word in note]
    return note


# --- the published layout ---------------------------------------------------------------------------------------------


def test_published_layout_is_read(collection: Collection) -> None:
    cohort = aml_hehr(collection())
    assert cohort.patients.index.tolist() == ["ABF", "AEC", "NAR"]
    assert cohort.patients["label"].tolist() == ["NPM1", "control", "PML_RARA"]
    assert cohort.patients["age"].tolist() == [44.4, 35.0, 61.0]
    assert cohort.patients["sex"].tolist() == ["F", "M", "M"]
    assert cohort.patients["pb_total"].tolist() == [100, 100, 103]
    assert cohort.cells.loc[0].to_dict() == {
        "cell_id": "ABF/image_0",
        "patient_id": "ABF",
        "path": "data/NPM1/ABF/image_0.tif",
    }


def test_every_path_leads_to_an_image(collection: Collection) -> None:
    cohort = aml_hehr(collection())
    assert len(cohort.cells) == 17
    assert {read_image(cohort.root / path).shape for path in cohort.cells["path"]} == {(4, 4, 3)}


def test_classes_are_those_present_in_the_published_order(collection: Collection) -> None:
    assert aml_hehr(collection()).classes == ("NPM1", "PML_RARA", "control")


def test_controls_without_leucocyte_count_are_missing_not_zero(collection: Collection) -> None:
    leucocytes = aml_hehr(collection()).patients["leucocytes"]
    assert leucocytes.isna().tolist() == [False, True, False]
    assert leucocytes["ABF"] == 44.41


def test_instance_count_is_no_covariate(collection: Collection) -> None:
    assert "instance_count" not in aml_hehr(collection()).patients.columns


def test_images_are_in_numeric_order(collection: Collection) -> None:
    cells = aml_hehr(collection()).cells
    expected = [f"NAR/image_{number}" for number in range(12)]
    assert cells["cell_id"][cells["patient_id"] == "NAR"].tolist() == expected


# --- how copies differ ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["data", "image_data", "."])
def test_class_folders_lie_in_any_of_three_places(collection: Collection, place: str) -> None:
    cohort = aml_hehr(collection(place=place))
    assert cohort.cells["path"][0] == f"{'' if place == '.' else place + '/'}NPM1/ABF/image_0.tif"


def test_decimal_commas_are_read(collection: Collection) -> None:
    rows = ('ABF,1,"44,4",NPM1,3,"44,41",87,100', *ROWS[1:])
    patients = aml_hehr(collection(rows)).patients
    assert (patients["age"]["ABF"], patients["leucocytes"]["ABF"]) == (44.4, 44.41)


def test_semicolons_with_decimal_commas_are_read(collection: Collection) -> None:
    rows = tuple(row.replace(",", ";").replace(".", ",") for row in ROWS)
    patients = aml_hehr(collection(rows, header=HEADER.replace(",", ";"))).patients
    assert patients["age"].tolist() == [44.4, 35.0, 61.0]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252"])
def test_byte_order_mark_and_windows_encoding_are_read(collection: Collection, encoding: str) -> None:
    patients = aml_hehr(collection(encoding=encoding)).patients
    assert patients.index.tolist() == ["ABF", "AEC", "NAR"]
    assert patients["leucocytes"]["NAR"] == 1.39


@pytest.mark.parametrize("column", ["leucocytes_perl", "leucocytes_per_¬µl", "leucocytes_per_Âµl", "leucocytes_per_ul"])
def test_broken_micro_sign_is_read(collection: Collection, column: str) -> None:
    cohort = aml_hehr(collection(header=HEADER.replace("leucocytes_per_µl", column)))
    assert cohort.patients["leucocytes"]["ABF"] == 44.41


def test_unnamed_first_column_is_passed_over(collection: Collection) -> None:
    rows = tuple(f"{number},{row}" for number, row in enumerate(ROWS))
    assert aml_hehr(collection(rows, header="," + HEADER)).patients.equals(aml_hehr(collection()).patients)


@pytest.mark.parametrize("name", ["NAR", "NA", "NAN", "XXX", "TRU"])
def test_ids_that_look_like_blanks_are_kept(collection: Collection, name: str) -> None:
    rows = (*ROWS[:2], ROWS[2].replace("NAR", name))
    cohort = aml_hehr(collection(rows, {"NPM1/ABF": 3, "control/AEC": 2, f"PML_RARA/{name}": 12}))
    assert name in cohort.patients.index
    assert (cohort.cells["patient_id"] == name).sum() == 12


def test_old_laboratory_names_are_read(collection: Collection) -> None:
    old = {"NPM1": "AML-NPM1", "PML_RARA": "AML-PML-RARA", "control": "SCD"}
    rows, folders = list(ROWS), dict(FOLDERS)
    for name, alias in old.items():
        rows = [row.replace(f",{name},", f",{alias},") for row in rows]
        folders = {folder.replace(f"{name}/", f"{alias}/"): count for folder, count in folders.items()}
    cohort = aml_hehr(collection(tuple(rows), folders))
    assert cohort.patients["label"].tolist() == ["NPM1", "control", "PML_RARA"]
    assert cohort.cells["path"][3] == "data/SCD/AEC/image_0.tif"


def test_folders_of_old_names_go_with_labels_of_new_ones(collection: Collection) -> None:
    cohort = aml_hehr(collection(folders={"AML-NPM1/ABF": 3, "scd/AEC": 2, "PML::RARA/NAR": 12}))
    assert cohort.classes == ("NPM1", "PML_RARA", "control")


def test_suffix_in_capitals_is_read(collection: Collection) -> None:
    root = collection(folders={"NPM1/ABF": 3, "control/AEC": 2})
    write_images(root / "data", {"PML_RARA/NAR": 12}, name="image_{}.TIF")
    cells = aml_hehr(root).cells
    assert cells["path"].iloc[-1] == "data/PML_RARA/NAR/image_11.TIF"
    assert cells["cell_id"].iloc[-1] == "NAR/image_11"


@pytest.mark.parametrize(
    "litter",
    [
        "data/NPM1/ABF/fnl34_bn_features_layer_7.npy",
        "data/NPM1/ABF/.DS_Store",
        "data/NPM1/ABF/._image_0.tif",
        "data/NPM1/ABF/Thumbs.db",
        "data/NPM1/ABF/processed/stacked_images.npy",
        "data/NPM1/.ipynb_checkpoints/image_0.tif",
        "data/__MACOSX/NPM1/image_0.tif",
        "__MACOSX/data/NPM1/image_0.tif",
        "data/readme.txt",
    ],
)
def test_litter_is_passed_over(collection: Collection, litter: str) -> None:
    root = collection()
    before = aml_hehr(root)
    (root / litter).parent.mkdir(parents=True, exist_ok=True)
    (root / litter).write_bytes(b"litter")
    after = aml_hehr(root)
    assert (after.digest, after.notes) == (before.digest, before.notes)


@pytest.mark.parametrize(
    "table", ["metadata_with_data_dictionary.csv_metadata.csv", "AML-Cytomorphology_MLL_Helmholtz.csv", "METADATA.CSV"]
)
def test_table_is_found_under_its_other_names(collection: Collection, table: str) -> None:
    assert len(aml_hehr(collection(table=table)).patients) == 3


# --- what is noted ----------------------------------------------------------------------------------------------------


def test_other_numbers_than_published_are_noted(collection: Collection) -> None:
    notes = aml_hehr(collection()).notes
    assert "3 patients were found where the published collection has 189." in notes
    assert "17 images were found where the published collection has 81,214." in notes


def test_instance_count_that_differs_is_noted(collection: Collection) -> None:
    rows = (ROWS[0].replace("NPM1,3", "NPM1,4"), *ROWS[1:])
    cohort = aml_hehr(collection(rows))
    assert only(cohort, "instance_count") == (
        "The number of images differs from instance_count in 1 patients (ABF 3 instead of 4)."
    )


def test_missing_instance_count_is_not_noted(collection: Collection) -> None:
    rows = (ROWS[0].replace("NPM1,3", "NPM1,"), *ROWS[1:])
    assert not any("instance_count" in note for note in aml_hehr(collection(rows)).notes)


def test_gap_in_the_image_numbers_is_noted(collection: Collection) -> None:
    root = collection()
    (root / "data/NPM1/ABF/image_1.tif").unlink()
    assert "do not run from 0 without a gap in 1 patients (ABF)" in only(aml_hehr(root), "gap")


def test_foreign_folder_among_the_classes_is_noted(collection: Collection) -> None:
    cohort = aml_hehr(collection(folders=FOLDERS | {"CEBPA/QQQ": 2}))
    assert only(cohort, "CEBPA") == "The folder data/CEBPA is none of the classes and was not read."


# --- the published table ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published() -> Path:
    if not os.environ.get("MILKIT_REAL_DATA"):
        pytest.skip("MILKIT_REAL_DATA is unset: no published table here")
    return Path(os.environ["MILKIT_REAL_DATA"]) / "aml_hehr_metadata"


@pytest.fixture(scope="module")
def root_of_189(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders with three fake images of each published patient; the table is still to be added."""
    root = tmp_path_factory.mktemp("published")
    table = pd.read_csv(published / "metadata_reconstructed.csv", dtype=str, keep_default_na=False)
    folders = "data/" + table["bag_label"] + "/" + table["patient_id"]
    write_images(root, dict.fromkeys(folders, 3))
    return root


def check_published(cohort: Cohort) -> None:
    """The published numbers of patients, and that no id and no age was lost on the way."""
    counts = cohort.patients["label"].value_counts()
    assert cohort.classes == CLASSES
    assert [int(counts[name]) for name in CLASSES] == [37, 36, 24, 32, 60]
    assert len(cohort.patients) == N_PATIENTS
    assert len(cohort.cells) == 3 * N_PATIENTS
    assert {"NAR", "XXX"} <= set(cohort.patients.index)
    assert cohort.patients["age"].notna().all()
    assert cohort.patients["age"].agg(["min", "max"]).tolist() == [19.8, 86.1]
    assert int(cohort.patients["leucocytes"].isna().sum()) == 72
    controls = cohort.patients[cohort.patients["label"] == "control"]
    assert controls["sex"].value_counts().to_dict() == {"M": 52, "F": 8}
    assert "differs from instance_count in 189 patients" in only(cohort, "instance_count")
    assert not any(note.startswith("189 patients") for note in cohort.notes)


@pytest.mark.real_data
def test_published_table_is_read(published: Path, root_of_189: Path) -> None:
    shutil.copy(published / "metadata_reconstructed.csv", root_of_189 / "metadata.csv")
    check_published(aml_hehr(root_of_189))


@pytest.mark.real_data
def test_table_as_found_with_decimal_commas_is_read(published: Path, root_of_189: Path) -> None:
    train, test = ((published / "as_found" / f"metadata_{part}.csv").read_bytes() for part in ("train", "test"))
    (root_of_189 / "metadata.csv").write_bytes(train.rstrip() + b"\n" + test.partition(b"\n")[2])
    assert b'"44,4"' in test
    assert b"leucocytes_perl" in train
    check_published(aml_hehr(root_of_189))
