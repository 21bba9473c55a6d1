"""What a check of a cohort finds: damage, copies and small numbers, each with the cells that it concerns."""

import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from check_toys import draw_cell, drawn_cohort, jpeg
from PIL import Image, ImageFilter

from milkit.check import images, people
from milkit.check.findings import Finding, Level
from milkit.check.people import describe
from milkit.check.verb import Check, check_cohort
from milkit.cohort import Cohort
from milkit.errors import SettingsError


def of(check: Check, level: Level) -> list[Finding]:
    return [finding for finding in check.findings if finding.level == level]


def about_cells(check: Check) -> list[Finding]:
    return [finding for finding in check.findings if finding.flag]


def flags(check: Check) -> dict[str, str]:
    cells = check.cells[check.cells["flags"] != ""]
    return dict(zip(cells["cell_id"], cells["flags"], strict=True))


def without_patients(cohort: Cohort) -> Cohort:
    cells = cohort.cells.assign(patient_id=None, cell_type=["blast", "other"] * (len(cohort.cells) // 2))
    return replace(cohort, cells=cells, patients=cohort.patients.iloc[:0], classes=())


@pytest.fixture
def drawn(tmp_path: Path) -> Cohort:
    """Thirty drawn cells of 128 x 128 pixels without patients, as JPEG."""
    return drawn_cohort(tmp_path / "drawn")


def test_sound_images_have_no_finding(toy_cohort: Cohort, drawn: Cohort) -> None:
    assert about_cells(check_cohort(toy_cohort)) == []
    assert check_cohort(drawn).findings == []


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_truncated_tiff_is_an_error_with_patient_cell_and_reason(toy_cohort: Cohort) -> None:
    path = toy_cohort.root / toy_cohort.cells["path"][5]
    Image.open(path).save(path.with_suffix(".tif"), compression="tiff_lzw")
    content = path.with_suffix(".tif").read_bytes()
    path.write_bytes(content[: len(content) // 2])
    check = check_cohort(toy_cohort)
    (finding,) = about_cells(check)
    assert (finding.level, finding.subject) == ("error", "patient P1, cell P1/image_1")
    assert finding.text.startswith("P1/image_1.png cannot be read: ")
    assert "leave the cell out" in finding.text
    assert flags(check) == {"P1/image_1": "unreadable"}
    assert check.cells["reason"][5] in finding.text


def test_text_named_tif_is_an_error(toy_cohort: Cohort) -> None:
    cells = toy_cohort.cells.copy()
    cells.loc[0, "path"] = "P0/notes.tif"
    (toy_cohort.root / "P0/notes.tif").write_text("no image at all")
    (finding,) = about_cells(check_cohort(replace(toy_cohort, cells=cells)))
    assert (finding.level, finding.subject) == ("error", "patient P0, cell P0/image_0")
    assert "the file is not an image" in finding.text


def test_missing_file_is_an_error(toy_cohort: Cohort) -> None:
    (toy_cohort.root / "P2/image_3.png").unlink()
    (finding,) = about_cells(check_cohort(toy_cohort))
    assert (finding.level, finding.subject) == ("error", "patient P2, cell P2/image_3")
    assert "No such file" in finding.text


def test_a_cohort_of_unreadable_files_is_checked_to_its_end(toy_cohort: Cohort) -> None:
    for path in toy_cohort.cells["path"]:
        (toy_cohort.root / path).write_bytes(b"")
    errors = of(check_cohort(toy_cohort), "error")
    assert len(errors) == images.NAMED + 1
    assert errors[-1].text.startswith("Another 14 cells cannot be read either; the table lists them")


def test_files_that_cannot_be_read_are_no_copies(toy_cohort: Cohort) -> None:
    for path in ("P0/image_0.png", "P1/image_0.png"):
        (toy_cohort.root / path).write_bytes(b"")
    assert flags(check_cohort(toy_cohort)) == {"P0/image_0": "unreadable", "P1/image_0": "unreadable"}


def test_jpeg_whose_lower_part_is_shifted_is_an_error_although_it_decodes(drawn: Cohort) -> None:
    sound = np.asarray(draw_cell(7))
    torn = np.concatenate([sound[:80], np.roll(sound[80:], 40, axis=1) // 2])
    (drawn.root / "cell_7.jpg").write_bytes(jpeg(Image.fromarray(torn)))
    check = check_cohort(drawn)
    (finding,) = check.findings
    assert (finding.level, finding.subject, finding.flag) == ("error", "cell cell_7", "damaged")
    assert "its picture breaks off about pixel row 80, and what is below may be wrong" in finding.text
    assert flags(check) == {"cell_7": "damaged"}


def test_the_same_pixels_are_no_damage_where_no_jpeg_made_them(drawn: Cohort) -> None:
    sound = np.asarray(draw_cell(7))
    torn = np.concatenate([sound[:80], np.roll(sound[80:], 40, axis=1) // 2])
    Image.fromarray(torn).save(drawn.root / "cell_7.jpg", "PNG")
    assert "damaged" not in str(flags(check_cohort(drawn)))


@pytest.mark.parametrize("colour", [(230, 220, 225), (0, 0, 0)])
def test_constant_image_is_a_warning(toy_cohort: Cohort, colour: tuple[int, int, int]) -> None:
    Image.new("RGB", (12, 12), colour).save(toy_cohort.root / "P5/image_1.png")
    (finding,) = about_cells(check_cohort(toy_cohort))
    assert (finding.level, finding.subject, finding.flag) == ("warning", "toy", "blank")
    assert finding.text.startswith("1 image has one colour only or no value of 64 or above: P5/image_1; ")


@pytest.mark.parametrize(("brightest", "warned"), [(63, True), (64, False)])
def test_image_is_nearly_black_below_64(toy_cohort: Cohort, brightest: int, warned: bool) -> None:
    dark = np.random.default_rng(0).integers(0, brightest, (12, 12, 3)).astype(np.uint8)
    dark[3, 4, 1] = brightest
    Image.fromarray(dark).save(toy_cohort.root / "P5/image_1.png")
    assert ("blank" in str(flags(check_cohort(toy_cohort)))) is warned


@pytest.mark.parametrize(("levels", "warned"), [(50, True), (60, False)])
def test_image_of_few_grey_levels_is_flat(drawn: Cohort, levels: int, warned: bool) -> None:
    grey = np.tile(np.linspace(100, 100 + levels, 128), (128, 1)).round().astype(np.uint8)
    Image.fromarray(grey).save(drawn.root / "cell_3.jpg", "PNG")
    check = check_cohort(drawn)
    assert (check.cells["flags"][3] == "flat") is warned
    if warned:
        assert "1 image has fewer than 52 grey levels between dark and bright: cell_3" in check.findings[0].text


@pytest.mark.parametrize("colour", ["white", "black"])
def test_image_with_a_clipped_border_is_a_warning(drawn: Cohort, colour: str) -> None:
    image = draw_cell(4)
    image.paste(colour, (0, 0, 128, 12))
    image.save(drawn.root / "cell_4.jpg", "PNG")
    (finding,) = check_cohort(drawn).findings
    assert (finding.level, finding.flag) == ("warning", "clipped")
    assert "1 image has pure white or pure black in more than 5% of the pixels: cell_4" in finding.text


def test_image_out_of_focus_is_a_warning(drawn: Cohort) -> None:
    (drawn.root / "cell_9.jpg").write_bytes(jpeg(draw_cell(9).filter(ImageFilter.GaussianBlur(2))))
    (finding,) = check_cohort(drawn).findings
    assert (finding.level, finding.flag) == ("warning", "blurred")
    assert "far less sharp than the cohort's median (by more than 5 deviations): cell_9" in finding.text


def test_nobody_is_called_blurred_among_few(drawn: Cohort) -> None:
    (drawn.root / "cell_9.jpg").write_bytes(jpeg(draw_cell(9).filter(ImageFilter.GaussianBlur(2))))
    few = replace(drawn, cells=drawn.cells.iloc[: images.FEW_FOR_SPREAD - 1])
    assert check_cohort(few).findings == []


def test_much_larger_image_is_a_warning_with_its_size(toy_cohort: Cohort, write_image: Callable[..., Path]) -> None:
    write_image(toy_cohort.root / "P1/image_1.png", seed=90, size=48)
    assert about_cells(check_cohort(toy_cohort)) == []
    write_image(toy_cohort.root / "P1/image_2.png", seed=91, size=49)
    (finding,) = about_cells(check_cohort(toy_cohort))
    assert (finding.level, finding.subject, finding.flag) == ("warning", "toy", "field")
    assert "P1/image_2 (49x49)" in finding.text
    assert "median of 12 pixels" in finding.text


@pytest.mark.parametrize(("side", "warned"), [(600, False), (601, True)])
def test_whole_field_offered_as_a_cell_is_a_warning(drawn: Cohort, side: int, warned: bool) -> None:
    for number in range(2):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (480, side, 3), np.uint8)).save(
            drawn.root / f"cell_{number}.jpg", "PNG"
        )
    check = check_cohort(replace(drawn, cells=drawn.cells.iloc[:2]))
    assert (flags(check) == {"cell_0": "field", "cell_1": "field"}) is warned
    if warned:
        assert "2 images have a side above 600 pixels and no box" in check.findings[0].text
        assert "cell_0 (601x480)" in check.findings[0].text


def test_field_with_boxes_is_judged_by_its_cells(drawn: Cohort) -> None:
    """A large file is no finding where boxes cut the cells out, and copies are the same box of the same file."""
    field = np.concatenate([np.asarray(draw_cell(n)) for n in range(6)], axis=1)
    Image.fromarray(field).save(drawn.root / "field.png")
    cells = pd.DataFrame({"cell_id": [f"c{n}" for n in range(7)], "patient_id": None, "path": "field.png"})
    cells["box"] = [f"{128 * n} 0 128 128" for n in (0, 1, 2, 3, 4, 5, 5)]
    check = check_cohort(replace(drawn, cells=cells.astype(object)))
    (finding,) = check.findings
    assert finding.text.startswith("1 file occurs in several cells of the cohort: c5 = c6; ")
    assert check.cells[["width", "height"]].to_numpy().tolist() == [[128, 128]] * 7
    assert check.n_files_read == 1


def test_box_of_any_size_is_no_field(drawn: Cohort) -> None:
    large = draw_cell(0).resize((700, 700))
    large.save(drawn.root / "large.png")
    cells = drawn.cells.iloc[:2].assign(path="large.png", box=["0 0 650 650", "40 40 650 650"])
    assert "field" not in str(flags(check_cohort(replace(drawn, cells=cells))))


def test_patients_with_few_cells_are_one_note(toy_cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = of(check_cohort(toy_cohort), "note")
    assert [note.text for note in notes] == [
        "6 patients have fewer than 100 cells: P0, P1, P2, P3, P4 and 1 more.",
    ]
    monkeypatch.setattr(people, "MIN_CELLS", 4)
    assert of(check_cohort(toy_cohort), "note") == []


def test_classes_with_few_patients_are_warned_of(toy_cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [finding.subject for finding in of(check_cohort(toy_cohort), "warning")] == ["class A", "class B"]
    monkeypatch.setattr(people, "MIN_PATIENTS", 3)
    assert of(check_cohort(toy_cohort), "warning") == []


def test_notes_of_the_cohort_come_first_and_errors_last(toy_cohort: Cohort) -> None:
    (toy_cohort.root / "P2/image_3.png").unlink()
    findings = check_cohort(replace(toy_cohort, notes=("Counts differ.",))).findings
    assert findings[0] == Finding("note", "toy", "Counts differ.")
    assert [finding.level for finding in findings] == ["note", "note", "warning", "warning", "error"]


def test_sample_is_evenly_spread_and_said(toy_cohort: Cohort) -> None:
    check = check_cohort(toy_cohort, sample=3)
    assert check.cells["cell_id"].tolist() == toy_cohort.cells["cell_id"][[0, 12, 23]].tolist()
    assert check.n_files_read == 3
    assert any(note.text.startswith("Only 3 of 24 images were read") for note in of(check, "note"))


def test_sample_larger_than_the_cohort_reads_all(toy_cohort: Cohort) -> None:
    assert check_cohort(toy_cohort, sample=1000).findings == check_cohort(toy_cohort).findings


def test_empty_sample_is_refused(toy_cohort: Cohort) -> None:
    with pytest.raises(SettingsError, match=r"sample has 0 images, expected at least 1; leave --sample out"):
        check_cohort(toy_cohort, sample=0)


def test_finding_has_the_keys_that_the_command_line_prints() -> None:
    finding = Finding("note", "toy", "text")
    assert asdict(finding) == {"level": "note", "subject": "toy", "text": "text", "flag": None}


def test_cells_without_patients_are_checked_too(toy_cohort: Cohort) -> None:
    shutil.copy(toy_cohort.root / "P0/image_1.png", toy_cohort.root / "P4/image_3.png")
    (toy_cohort.root / "P2/image_3.png").unlink()
    Image.new("RGB", (12, 12)).save(toy_cohort.root / "P5/image_1.png")
    findings = check_cohort(without_patients(toy_cohort)).findings
    assert [(finding.level, finding.subject) for finding in findings] == [
        ("warning", "toy"),
        ("warning", "toy"),
        ("error", "cell P2/image_3"),
    ]
    assert "P0/image_1 = P4/image_3" in findings[1].text


def test_table_has_a_row_a_cell_with_its_measures(toy_cohort: Cohort) -> None:
    cells = check_cohort(toy_cohort).cells
    assert cells["cell_id"].tolist() == toy_cohort.cells["cell_id"].tolist()
    assert {"patient_id", "path", "width", "contrast", "sharpness", "sha256", "fingerprint", "flags"} <= set(cells)
    assert cells["sha256"].str.fullmatch(r"[0-9a-f]{64}").all()


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
    assert table.to_dict("list") == {"cell type": ["blast", "other"], "cells": [12, 12]}
