"""Cells of one's own data: samples, cell types, archives, and tables of cells."""

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from milkit.cohort import Cohort, load_cohort
from milkit.errors import CohortError
from milkit.images import read_bytes, read_cell
from milkit.settings import CohortRecipe

NAMES = ("P1/S1/1.png", "P1/S1/2.png", "P1/S2/1.png", "P2/S3/1.png")


@pytest.fixture
def root(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Two patients, the first with two samples whose cells have the same numbers."""
    for number, name in enumerate(NAMES):
        write_image(tmp_path / name, seed=number)
    (tmp_path / "t.csv").write_text("patient_id,label\nP1,A\nP2,B\n")
    return tmp_path


def load(root: Path, **arguments: Any) -> Cohort:
    return load_cohort(
        CohortRecipe(name="study", factory="tabular", root=root, arguments={"patients": "t.csv"} | arguments)
    )


def test_cells_of_several_samples_are_told_apart(root: Path) -> None:
    cells = load(root, images="{patient_id}/{sample_id}/{cell_id}.png").cells
    assert cells["cell_id"].tolist() == ["P1/S1/1", "P1/S1/2", "P1/S2/1", "P2/S3/1"]
    assert cells["sample_id"].tolist() == ["S1", "S1", "S2", "S3"]


def test_a_folder_can_be_the_type_of_its_cells(root: Path) -> None:
    (root / "P1" / "S2" / "1.png").rename(root / "P1" / "S2" / "3.png")
    cells = load(root, images="{patient_id}/{cell_type}/{cell_id}.png").cells
    assert cells["cell_id"].tolist() == ["P1/1", "P1/2", "P1/3", "P2/1"]
    assert cells["cell_type"].tolist() == ["S1", "S1", "S2", "S3"]


def test_a_star_that_hides_what_tells_cells_apart_is_found_out(root: Path) -> None:
    with pytest.raises(CohortError, match=r"cell ids occur twice: P1/1"):
        load(root, images="{patient_id}/*/{cell_id}.png")


# --- a table with a row for each sample -------------------------------------------------------------------------------

SAMPLES = "slide,patient,label,age\nS1,P1,A,40\nS2,P1,A,41\nS3,P2,B,60\n"
BY_SAMPLE = {"patient_id": "patient", "sample_id": "slide"}


def test_a_row_for_each_sample_becomes_one_for_each_patient(root: Path) -> None:
    (root / "t.csv").write_text(SAMPLES)
    cohort = load(root, images="*/{sample_id}/{cell_id}.png", columns=BY_SAMPLE)
    assert cohort.patients["label"].to_dict() == {"P1": "A", "P2": "B"}
    assert cohort.patients["age"].to_dict() == {"P1": 40.0, "P2": 60.0}
    assert cohort.cells["cell_id"].tolist() == ["P1/S1/1", "P1/S1/2", "P1/S2/1", "P2/S3/1"]
    assert cohort.notes == ("age differs between the samples of 1 patients; the first row of each was taken.",)


def test_a_rule_may_take_a_sample_and_leave_its_patient(root: Path) -> None:
    (root / "t.csv").write_text(SAMPLES)
    patients = {"table": "t.csv", "exclude": [{"column": "age", "at_most": 40}]}
    cohort = load(root, images="*/{sample_id}/{cell_id}.png", columns=BY_SAMPLE, patients=patients)
    assert cohort.cells["cell_id"].tolist() == ["P1/S2/1", "P2/S3/1"]
    assert cohort.notes[1] == "Patient flow: 0 excluded (age at most 40), 2 left; samples: 1 excluded, 2 left."


@pytest.mark.parametrize(
    ("table", "images", "columns", "message"),
    [
        (
            SAMPLES.replace("S2,P1,A", "S2,P1,B"),
            "*/{sample_id}",
            BY_SAMPLE,
            r"different labels in .*: P1 \(A, B\); give",
        ),
        (
            SAMPLES.replace("S2,P1", "S1,P1"),
            "*/{sample_id}",
            BY_SAMPLE,
            r"several rows for the samples S1, expected one",
        ),
        (
            SAMPLES.replace("S3,P2,B,60\n", ""),
            "*/{sample_id}",
            BY_SAMPLE,
            r"^1 samples have images but no row in .*\(S3\)",
        ),
        (
            SAMPLES,
            "{patient_id}/*",
            BY_SAMPLE,
            r"rows of .* are samples, and the cells have no sample_id; add {sample_id}",
        ),
        (
            SAMPLES,
            "*/{sample_id}",
            {"patient_id": "patient"},
            r"no patient_id but a sample_id; say under `columns` which",
        ),
        (SAMPLES.replace("S3,P2", "S3,P1"), "{patient_id}/{sample_id}", BY_SAMPLE, r"1 samples .* no row .*\(P2 S3\)"),
    ],
)
def test_samples_that_do_not_fit_are_explained(
    root: Path, table: str, images: str, columns: dict[str, str], message: str
) -> None:
    (root / "t.csv").write_text(table)
    with pytest.raises(CohortError, match=message):
        load(root, images=f"{images}/{{cell_id}}.png", columns=columns)


# --- archives ---------------------------------------------------------------------------------------------------------


def pack(root: Path, archive: str, names: tuple[str, ...] = NAMES, inside: str = "") -> None:
    """The images into an archive, with what archives of the Finder bring along, and away from the folder."""
    with zipfile.ZipFile(root / archive, "w") as packed:
        for name in names:
            packed.write(root / name, f"{inside}{name}")
        packed.writestr(f"__MACOSX/{inside}P1/S1/._1.png", b"resource fork")
        packed.writestr(f"{inside}P1/S1/.DS_1.png", b"litter")
        packed.writestr(f"{inside}P1/S1/Thumbs.db", b"litter")


def test_images_in_a_zip_are_the_cells_that_they_are_unpacked(root: Path) -> None:
    unpacked = load(root, images="{patient_id}/{sample_id}/{cell_id}.png")
    pack(root, "smears.zip", inside="export/")
    packed = load(root, images="smears.zip::export/{patient_id}/{sample_id}/{cell_id}.png")
    assert packed.cells["cell_id"].tolist() == unpacked.cells["cell_id"].tolist()
    for one, other in zip(packed.cells["path"], unpacked.cells["path"], strict=True):
        np.testing.assert_array_equal(read_cell(read_bytes(root, one)), read_cell(read_bytes(root, other)))


def test_a_tar_serves_as_well(root: Path) -> None:
    with tarfile.open(root / "smears.tar", "w") as archive:
        for name in NAMES:
            archive.add(root / name, f"./{name}")
    cells = load(root, images="smears.tar::{patient_id}/{sample_id}/{cell_id}.png").cells
    assert cells["path"].tolist() == [f"smears.tar::{name}" for name in NAMES]


def test_there_may_be_an_archive_for_each_patient(root: Path) -> None:
    pack(root, "P1.ZIP", NAMES[:3])
    pack(root, "P2.zip", NAMES[3:])
    (root / "other.txt").write_text("no archive")
    cells = load(root, images="{patient_id}.zip::*/{sample_id}/{cell_id}.png").cells
    assert cells["cell_id"].tolist() == ["P1/S1/1", "P1/S1/2", "P1/S2/1", "P2/S3/1"]
    assert cells["path"].tolist()[0] == "P1.ZIP::P1/S1/1.png"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "smears.tar.gz",
            r"smears.tar.gz was given as an archive .* compressed as a whole, .*unpack it, or pack it anew",
        ),
        ("smears.zip", r"smears.zip was given as an archive of images, and smears.zip is not a readable zip archive"),
    ],
)
def test_an_archive_that_cannot_be_read_is_refused(root: Path, name: str, message: str) -> None:
    (root / name).write_bytes(b"no archive" * 99)
    with pytest.raises(CohortError, match=message):
        load(root, images=f"{name}::{{patient_id}}/{{cell_id}}.png")


def test_an_archive_that_is_not_there_holds_no_image(root: Path) -> None:
    with pytest.raises(
        CohortError, match=r"No image below .* matches the pattern 'other.zip::{patient_id}/{cell_id}.png'"
    ):
        load(root, images="other.zip::{patient_id}/{cell_id}.png")


# --- tables of cells --------------------------------------------------------------------------------------------------


def test_a_table_of_cells_may_have_samples_types_boxes_and_backslashes(root: Path) -> None:
    rows = ("P1;S1;1;P1\\S1\\1.png;blast;0 0 6 6", "P1;S1;2;P1/S1/1.png;;6 0 6 6", "P2;S3;1;P2/S3/1.png;blast;")
    (root / "cells.csv").write_text("\n".join(("patient_id;sample_id;cell_id;path;cell_type;box", *rows)))
    cells = load(root, cells="cells.csv").cells
    assert cells["cell_id"].tolist() == ["P1/S1/1", "P1/S1/2", "P2/S3/1"]
    assert cells["path"].tolist()[:2] == ["P1/S1/1.png"] * 2
    assert cells["cell_type"].fillna("-").tolist() == ["blast", "-", "blast"]
    assert cells["box"].tolist() == ["0 0 6 6", "6 0 6 6", ""]


def test_a_table_of_cells_may_point_into_archives(root: Path) -> None:
    pack(root, "smears.zip")
    rows = [f"{name[:2]},{number},smears.zip::{name}" for number, name in enumerate(NAMES)]
    (root / "cells.csv").write_text("\n".join(("patient_id,cell_id,path", *rows)))
    cohort = load(root, cells="cells.csv")
    assert read_cell(read_bytes(root, cohort.cells["path"][0])).shape == (12, 12, 3)


def test_a_table_of_cells_keeps_our_names_where_the_patients_have_others(root: Path) -> None:
    (root / "t.csv").write_text("Case,Diagnosis\nP1,A\nP2,B\n")
    rows = [f"{name[:2]},{number},{name}" for number, name in enumerate(NAMES)]
    (root / "cells.csv").write_text("\n".join(("patient_id,cell_id,path", *rows)))
    cohort = load(root, cells="cells.csv", columns={"patient_id": "Case", "label": "Diagnosis"})
    assert cohort.cells["patient_id"].tolist() == ["P1", "P1", "P1", "P2"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("P1,,x.png,\nP2,1,y.png,\nP1,2,,", r"lacks cell_id, path, patient_id in row 2, row 4, expected in every row"),
        (
            "P1,1,x.png,1 2 3\nP2,1,y.png,",
            r"has the boxes '1 2 3' \(row 2\), expected `left top width height` in whole",
        ),
        ("P1,1,../x.png,\nP2,1,y.png,", r"paths lead out of the cohort's root: \.\./x\.png"),
    ],
)
def test_wrong_rows_of_a_table_of_cells_are_named(root: Path, rows: str, message: str) -> None:
    (root / "cells.csv").write_text(f"patient_id,cell_id,path,box\n{rows}\n")
    with pytest.raises(CohortError, match=message):
        load(root, cells="cells.csv")
