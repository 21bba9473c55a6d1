"""What `milkit cohort check` and `show` say: damage, doubles and small numbers, each with whom it concerns."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from milkit import cohort_check as module
from milkit.cohort import Cohort
from milkit.cohort_check import Finding, Level, check_cohort, describe
from milkit.errors import SettingsError


def of(findings: list[Finding], level: Level) -> list[Finding]:
    return [finding for finding in findings if finding.level == level]


def about_images(findings: list[Finding]) -> list[Finding]:
    """Warnings and errors, without those about classes of few patients, which every toy cohort has."""
    return [finding for finding in findings if finding.level != "note" and not finding.subject.startswith("class ")]


def without_patients(cohort: Cohort) -> Cohort:
    cells = cohort.cells.assign(patient_id=None, cell_type=["blast", "other"] * (len(cohort.cells) // 2))
    return replace(cohort, cells=cells, patients=cohort.patients.iloc[:0], classes=("blast", "other"))


def test_sound_images_have_no_finding(toy_cohort: Cohort) -> None:
    assert about_images(check_cohort(toy_cohort)) == []


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_truncated_tiff_is_an_error_with_patient_cell_and_reason(toy_cohort: Cohort) -> None:
    path = toy_cohort.root / toy_cohort.cells["path"][5]
    Image.open(path).save(path.with_suffix(".tif"), compression="tiff_lzw")
    content = path.with_suffix(".tif").read_bytes()
    path.write_bytes(content[: len(content) // 2])
    (finding,) = about_images(check_cohort(toy_cohort))
    assert finding.level == "error"
    assert finding.subject == "patient P1, cell P1/image_1"
    assert finding.text.startswith("P1/image_1.png cannot be read: ")
    assert "leave the cell out" in finding.text


def test_text_named_tif_is_an_error(toy_cohort: Cohort) -> None:
    cells = toy_cohort.cells.copy()
    cells.loc[0, "path"] = "P0/notes.tif"
    (toy_cohort.root / "P0/notes.tif").write_text("no image at all")
    (finding,) = about_images(check_cohort(replace(toy_cohort, cells=cells)))
    assert (finding.level, finding.subject) == ("error", "patient P0, cell P0/image_0")
    assert "the file is not an image" in finding.text


def test_missing_file_is_an_error(toy_cohort: Cohort) -> None:
    (toy_cohort.root / "P2/image_3.png").unlink()
    (finding,) = about_images(check_cohort(toy_cohort))
    assert (finding.level, finding.subject) == ("error", "patient P2, cell P2/image_3")
    assert "No such file" in finding.text


def test_duplicate_across_patients_is_an_error_that_names_both_cells(toy_cohort: Cohort) -> None:
    shutil.copy(toy_cohort.root / "P0/image_1.png", toy_cohort.root / "P4/image_2.png")
    (finding,) = about_images(check_cohort(toy_cohort))
    assert finding.level == "error"
    assert finding.text.startswith("P0/image_1, P4/image_2 are the same file in 2 patients")


def test_duplicate_within_a_patient_is_a_warning(toy_cohort: Cohort) -> None:
    shutil.copy(toy_cohort.root / "P3/image_0.png", toy_cohort.root / "P3/image_2.png")
    (finding,) = about_images(check_cohort(toy_cohort))
    assert (finding.level, finding.subject) == ("warning", "patient P3")
    assert "P3/image_0 = P3/image_2" in finding.text


def test_files_that_cannot_be_read_are_no_duplicates(toy_cohort: Cohort) -> None:
    for path in ("P0/image_0.png", "P1/image_0.png"):
        (toy_cohort.root / path).write_bytes(b"")
    findings = about_images(check_cohort(toy_cohort))
    assert [finding.subject for finding in findings] == ["patient P0, cell P0/image_0", "patient P1, cell P1/image_0"]


@pytest.mark.parametrize("colour", [(230, 220, 225), (0, 0, 0)])
def test_constant_image_is_a_warning(toy_cohort: Cohort, colour: tuple[int, int, int]) -> None:
    Image.new("RGB", (12, 12), colour).save(toy_cohort.root / "P5/image_1.png")
    (finding,) = about_images(check_cohort(toy_cohort))
    assert (finding.level, finding.subject) == ("warning", "patient P5")
    assert finding.text.startswith("1 image has one colour only")
    assert "P5/image_1" in finding.text


@pytest.mark.parametrize(("brightest", "warned"), [(63, True), (64, False)])
def test_image_is_nearly_black_below_64(toy_cohort: Cohort, brightest: int, warned: bool) -> None:
    dark = np.zeros((12, 12, 3), np.uint8)
    dark[3, 4, 1] = brightest
    Image.fromarray(dark).save(toy_cohort.root / "P5/image_1.png")
    assert bool(about_images(check_cohort(toy_cohort))) is warned


def test_much_larger_image_is_a_warning_with_its_size(toy_cohort: Cohort, write_image: Callable[..., Path]) -> None:
    write_image(toy_cohort.root / "P1/image_1.png", seed=90, size=48)
    assert about_images(check_cohort(toy_cohort)) == []
    write_image(toy_cohort.root / "P1/image_2.png", seed=91, size=49)
    (finding,) = about_images(check_cohort(toy_cohort))
    assert (finding.level, finding.subject) == ("warning", "toy")
    assert "P1/image_2 (49x49)" in finding.text
    assert "median of 12 pixels" in finding.text


def test_patients_with_few_cells_are_one_note(toy_cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = of(check_cohort(toy_cohort), "note")
    assert [note.text for note in notes] == [
        "6 patients have fewer than 100 cells: P0, P1, P2, P3, P4 and 1 more.",
    ]
    monkeypatch.setattr(module, "MIN_CELLS", 4)
    assert of(check_cohort(toy_cohort), "note") == []


def test_classes_with_few_patients_are_warned_of(toy_cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [finding.subject for finding in of(check_cohort(toy_cohort), "warning")] == ["class A", "class B"]
    monkeypatch.setattr(module, "MIN_PATIENTS", 3)
    assert of(check_cohort(toy_cohort), "warning") == []


def test_notes_of_the_cohort_come_first_and_errors_last(toy_cohort: Cohort) -> None:
    (toy_cohort.root / "P2/image_3.png").unlink()
    findings = check_cohort(replace(toy_cohort, notes=("Counts differ.",)))
    assert findings[0] == Finding("note", "toy", "Counts differ.")
    assert [finding.level for finding in findings] == ["note", "note", "warning", "warning", "error"]


def test_every_image_is_read_once(toy_cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    look = module._look
    monkeypatch.setattr(module, "_look", lambda path: (read.append(path), look(path))[1])
    monkeypatch.setattr(module, "_AT_ONCE", 7)
    check_cohort(toy_cohort)
    assert sorted(read) == sorted(toy_cohort.root / path for path in toy_cohort.cells["path"])


def test_sample_is_evenly_spread_and_said(toy_cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    look = module._look
    monkeypatch.setattr(module, "_look", lambda path: (read.append(path), look(path))[1])
    findings = check_cohort(toy_cohort, sample=3)
    rows = toy_cohort.cells["path"][[0, 12, 23]]
    assert sorted(read) == [toy_cohort.root / path for path in rows]
    assert any(note.text.startswith("Only 3 of 24 images were read") for note in of(findings, "note"))


def test_sample_larger_than_the_cohort_reads_all(toy_cohort: Cohort) -> None:
    assert check_cohort(toy_cohort, sample=1000) == check_cohort(toy_cohort)


def test_empty_sample_is_refused(toy_cohort: Cohort) -> None:
    with pytest.raises(SettingsError, match=r"sample has 0 images, expected at least 1; leave --sample out"):
        check_cohort(toy_cohort, sample=0)


def test_finding_has_the_three_keys_that_the_command_line_prints() -> None:
    assert Finding("note", "toy", "text").__dict__ == {"level": "note", "subject": "toy", "text": "text"}


def test_cells_without_patients_are_checked_too(toy_cohort: Cohort) -> None:
    shutil.copy(toy_cohort.root / "P0/image_1.png", toy_cohort.root / "P4/image_2.png")
    (toy_cohort.root / "P2/image_3.png").unlink()
    Image.new("RGB", (12, 12)).save(toy_cohort.root / "P5/image_1.png")
    findings = check_cohort(without_patients(toy_cohort))
    assert [(finding.level, finding.subject) for finding in findings] == [
        ("warning", "toy"),
        ("warning", "toy"),
        ("error", "cell P2/image_3"),
    ]
    assert "P0/image_1 = P4/image_2" in findings[1].text


def test_describe_has_a_row_per_class_in_their_order(toy_cohort: Cohort) -> None:
    table = describe(replace(toy_cohort, classes=("B", "A")))
    assert list(table.columns) == ["class", "patients", "cells", "cells/patient"]
    assert table.to_numpy().tolist() == [["B", 3, 12, "4 (4-4)"], ["A", 3, 12, "4 (4-4)"]]


def test_describe_counts_what_is_missing(toy_cohort: Cohort) -> None:
    patients = toy_cohort.patients.assign(
        age=[60.0, math.nan, 20.5, math.nan, 44.0, math.nan], sex=["F", "M", "M", None, None, "F"]
    )
    cells = toy_cohort.cells.drop(index=[0, 1, 8])  # two of P0, one of P2
    table = describe(replace(toy_cohort, patients=patients, cells=cells)).set_index("class")
    assert table.loc["A"].tolist() == [3, 9, "3 (2-4)", "44 (20.5-60)", "1 (50 %), 1 missing"]
    assert table.loc["B"].tolist() == [3, 12, "4 (4-4)", "-, 3 missing", "1 (50 %), 1 missing"]


def test_describe_counts_cells_without_patients_by_their_type(toy_cohort: Cohort) -> None:
    table = describe(without_patients(toy_cohort))
    assert table[["class", "patients", "cells"]].to_numpy().tolist() == [["blast", 0, 12], ["other", 0, 12]]
