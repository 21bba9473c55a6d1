"""Cells that occur more than once: within a patient, across patients, under other labels, in other cohorts."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from check_toys import draw_cell, drawn_cohort, jpeg
from PIL import Image

from milkit.check import fingerprint as module
from milkit.check.copies import known_cells
from milkit.check.files import CELLS, check_folder, read_known, write_check
from milkit.check.findings import Finding
from milkit.check.fingerprint import NEAR, Fingerprints, near_pairs
from milkit.check.verb import Check, check_cohort
from milkit.cohort import Cohort
from milkit.errors import CohortError
from milkit.runs import Workspace


def about_cells(check: Check) -> list[Finding]:
    return [finding for finding in check.findings if finding.flag]


@pytest.fixture
def drawn(tmp_path: Path) -> Cohort:
    """Thirty drawn cells without patients; their types are EO and BNE in turn."""
    return drawn_cohort(tmp_path / "drawn")


def owned(cohort: Cohort, n_patients: int = 3) -> Cohort:
    """The same cells, dealt out to patients with the labels A and B in turn; no types."""
    ids = [f"P{n}" for n in range(n_patients)]
    owners = [ids[int(cell.removeprefix("cell_")) % n_patients] for cell in cohort.cells["cell_id"]]
    patients = pd.DataFrame({"label": ["A", "B"] * 3}, index=pd.Index([f"P{n}" for n in range(6)], name="patient_id"))
    cells = cohort.cells.drop(columns="cell_type").assign(patient_id=owners)
    return Cohort("drawn", cohort.root, patients.iloc[:n_patients], cells, ("A", "B"))


def encode_anew(cohort: Cohort, source: int, target: int) -> None:
    """Let one cell's file show the same picture as another's, coarser and smaller."""
    (cohort.root / f"cell_{target}.jpg").write_bytes(jpeg(draw_cell(source).resize((100, 100)), quality=60))


def random_prints(number: int, seed: int = 0) -> Fingerprints:
    return np.random.default_rng(seed).integers(0, 2**64, (number, 4), dtype=np.uint64)


def flipped(prints: Fingerprints, bits: int, seed: int = 0) -> Fingerprints:
    """Fingerprints with so many bits changed in each."""
    loose = np.unpackbits(prints.view(np.uint8), axis=1)
    for row in loose:
        row[np.random.default_rng(seed).choice(256, bits, replace=False)] ^= 1
        seed += 1
    return np.packbits(loose, axis=1).view(np.uint64)


def test_near_pairs_are_those_that_a_comparison_of_all_with_all_finds() -> None:
    """Of pairs up to 7 bits apart in all none can be missed, by the pigeonhole principle."""
    prints = random_prints(300)
    prints = np.concatenate([prints, flipped(prints[:100], 7), prints[:5]])
    apart = np.bitwise_count(prints[:, None] ^ prints[None]).sum(axis=2)
    expected = [(i, j, apart[i, j]) for i, j in np.argwhere(apart <= NEAR) if i < j]
    found = near_pairs(prints)
    assert found is not None
    assert [tuple(pair) for pair in found.tolist()] == expected
    assert len(expected) >= 105


def test_a_bit_in_every_band_hides_no_pair() -> None:
    """Seven of the bits that are looked up differ, so that every band does, and one of them in a single bit."""
    prints = random_prints(200)
    bands = module._stable_bits().reshape(4, 16)
    loose = np.unpackbits(prints.view(np.uint8), axis=1)
    loose[:, [*bands[:, 3], *bands[:3, 8]]] ^= 1
    found = near_pairs(prints, np.packbits(loose, axis=1).view(np.uint64))
    assert found is not None
    assert found.tolist() == [[n, n, 7] for n in range(200)]


def test_the_bits_that_are_looked_up_are_64_different_ones_of_low_frequency() -> None:
    down, across = np.divmod(module._stable_bits(), 16)
    assert len({*zip(down.tolist(), across.tolist(), strict=True)}) == 64
    assert ((down % 2 == 1) | (across % 2 == 1)).all()
    assert (down + across).max() <= 13


@pytest.mark.parametrize(("bits", "near"), [(NEAR, True), (NEAR + 1, False)])
def test_the_limit_itself_is_near(bits: int, near: bool) -> None:
    prints = random_prints(1)
    loose = np.unpackbits(prints.view(np.uint8), axis=1)
    loose[:, np.setdiff1d(np.arange(256), module._stable_bits())[:bits]] ^= 1
    found = near_pairs(np.concatenate([prints, np.packbits(loose, axis=1).view(np.uint64)]))
    assert found is not None
    assert found.tolist() == ([[0, 1, bits]] if near else [])


def test_near_pairs_are_the_same_whatever_is_compared_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    prints = np.concatenate([random_prints(200), flipped(random_prints(200), 5)])
    before = near_pairs(prints)
    monkeypatch.setattr(module, "_CHUNK", 7)
    np.testing.assert_array_equal(near_pairs(prints), before)


def test_near_pairs_with_others_name_a_row_of_each() -> None:
    others = random_prints(50, seed=1)
    prints = np.concatenate([random_prints(20), flipped(others[[30, 10]], 6)])
    found = near_pairs(prints, others)
    assert found is not None
    assert found.tolist() == [[20, 30, 6], [21, 10, 6]]


def test_pairs_beyond_the_limit_are_not_near() -> None:
    prints = random_prints(100)
    assert near_pairs(np.concatenate([prints, flipped(prints, NEAR + 1)])).tolist() == []  # type: ignore[union-attr]


@pytest.mark.parametrize("number", [0, 1])
def test_one_image_or_none_has_no_copy(number: int) -> None:
    assert near_pairs(random_prints(number)).tolist() == []  # type: ignore[union-attr]


def test_images_that_are_all_alike_are_not_compared_by_their_looks(drawn: Cohort) -> None:
    one = random_prints(1)
    assert near_pairs(np.concatenate([flipped(one, 3, seed=n) for n in range(150)])) is None


def test_copy_across_patients_is_an_error_that_names_both_cells(drawn: Cohort) -> None:
    shutil.copy(drawn.root / "cell_0.jpg", drawn.root / "cell_1.jpg")
    shutil.copy(drawn.root / "cell_0.jpg", drawn.root / "cell_2.jpg")
    check = check_cohort(owned(drawn))
    conflict, across = (finding for finding in about_cells(check) if finding.level == "error")
    assert across.flag == "copy"
    assert across.text.startswith("1 file occurs in several patients: cell_0 = cell_1 = cell_2; find out whose")
    assert conflict.text.startswith("1 file occurs under different labels: cell_0 (A) = cell_1 (B) = cell_2 (A); ")
    assert check.cells.set_index("cell_id")["copy_of"].dropna().to_dict() == {"cell_1": "cell_0", "cell_2": "cell_0"}


def test_copy_within_a_patient_is_a_warning(drawn: Cohort) -> None:
    shutil.copy(drawn.root / "cell_0.jpg", drawn.root / "cell_3.jpg")
    (finding,) = about_cells(check_cohort(owned(drawn)))
    assert (finding.level, finding.flag) == ("warning", "copy")
    assert finding.text.startswith("1 file occurs in several cells of a patient: cell_0 = cell_3; ")


def test_near_copies_are_warnings_wherever_they_are(drawn: Cohort) -> None:
    encode_anew(drawn, 0, 3)
    encode_anew(drawn, 1, 5)
    findings = about_cells(check_cohort(owned(drawn)))
    assert {(finding.level, finding.flag) for finding in findings} == {
        ("warning", "near_copy"),
        ("warning", "conflict"),
    }
    texts = " ".join(finding.text for finding in findings)
    assert "1 picture is found in several cells of a patient: cell_0 ~ cell_3; " in texts
    assert "1 picture is found in several patients: cell_1 ~ cell_5; " in texts


def test_copy_under_another_label_is_an_error_that_names_both_labels(drawn: Cohort) -> None:
    shutil.copy(drawn.root / "cell_4.jpg", drawn.root / "cell_7.jpg")
    check = check_cohort(drawn)
    (error,) = (finding for finding in check.findings if finding.level == "error")
    assert error.flag == "conflict"
    assert "1 file occurs under different labels: cell_4 (EO) = cell_7 (BNE); " in error.text
    assert check.cells["flags"][[4, 7]].tolist() == ["conflict copy"] * 2


def test_copies_of_one_label_are_no_conflict(drawn: Cohort) -> None:
    shutil.copy(drawn.root / "cell_4.jpg", drawn.root / "cell_6.jpg")
    assert [finding.level for finding in check_cohort(drawn).findings] == ["warning"]


def test_a_cell_without_a_label_conflicts_with_none(drawn: Cohort) -> None:
    shutil.copy(drawn.root / "cell_4.jpg", drawn.root / "cell_7.jpg")
    cells = drawn.cells.assign(cell_type=[None, "EO"] * 15)
    assert [finding.flag for finding in check_cohort(replace(drawn, cells=cells)).findings] == ["copy"]


def test_empty_images_are_not_said_to_look_the_same(drawn: Cohort) -> None:
    for number in (3, 8):
        ground = np.full((128, 128, 3), 210, np.uint8)
        ground[:4, :4] = 190 + number
        (drawn.root / f"cell_{number}.jpg").write_bytes(jpeg(Image.fromarray(ground)))
    assert {finding.flag for finding in check_cohort(drawn).findings} == {"flat"}


@pytest.fixture
def workspace(tmp_path: Path, drawn: Cohort) -> Workspace:
    """A workspace in which another cohort was checked, 20 cells with other pictures than the drawn ones but two."""
    other = drawn_cohort(tmp_path / "other", 20)
    for number in range(20):
        (other.root / f"cell_{number}.jpg").write_bytes(jpeg(draw_cell(100 + number)))
    for number in (11, 15):
        shutil.copy(drawn.root / "cell_1.jpg", other.root / f"cell_{number}.jpg")
    encode_anew(other, 2, 12)
    space = Workspace(tmp_path / "work")
    write_check(check_cohort(replace(other, name="other")), check_folder(space, "other"))
    return space


def test_cells_of_another_cohort_are_an_error_where_the_files_are_the_same(drawn: Cohort, workspace: Workspace) -> None:
    check = check_cohort(drawn, against=[read_known("other", workspace, "drawn")])
    near, exact = check.findings
    assert (exact.level, exact.flag) == ("error", "elsewhere")
    assert exact.text.startswith("1 image is a file of 'other' too: cell_1 = cell_11; do not train on one")
    assert (near.level, near.flag) == ("warning", "near_elsewhere")
    assert "cell_2 ~ cell_12" in near.text
    assert check.cells["elsewhere"].dropna().tolist() == ["other: cell_11", "other: cell_12"]
    assert check.cells["flags"][[1, 2]].tolist() == ["elsewhere", "near_elsewhere"]


def test_a_table_of_cells_stands_for_a_cohort_without_its_images(drawn: Cohort, workspace: Workspace) -> None:
    table = workspace.root.parent / "passed_on.csv"
    shutil.copy(check_folder(workspace, "other") / CELLS, table)
    shutil.rmtree(workspace.root)
    check = check_cohort(drawn, against=[read_known(str(table), workspace, "drawn")])
    assert [finding.flag for finding in check.findings] == ["near_elsewhere", "elsewhere"]
    assert "of 'passed_on' too" in check.findings[1].text


def test_a_cohort_that_was_not_checked_cannot_be_compared_with(workspace: Workspace) -> None:
    with pytest.raises(CohortError, match=r"no table of cells at .* make it with `milkit cohort check acevedo` first"):
        read_known("acevedo", workspace, "drawn")


def test_a_cohort_is_not_compared_with_itself(workspace: Workspace) -> None:
    with pytest.raises(CohortError, match=r"'other', which is the cohort itself; its own copies are looked for anyway"):
        read_known("other", workspace, "other")


def boxed(cohort: Cohort, rows: list[tuple[str, str, str]], name: str = "drawn") -> Cohort:
    """A cohort of cells (id, file, box) of the same folder; no types."""
    cells = pd.DataFrame(rows, columns=["cell_id", "path", "box"], dtype=object).assign(patient_id=None)
    return replace(cohort, name=name, cells=cells)


FIELD = [("f/0", "cell_0.jpg", "0 0 64 64"), ("f/1", "cell_0.jpg", "64 64 64 64")]


@pytest.mark.parametrize(
    ("here", "there", "named"),
    [
        (FIELD, [("f", "cell_0.jpg", "")], ["f/0 in f", "f/1 in f"]),
        ([("f", "cell_0.jpg", "")], FIELD, ["f with f/0 in it"]),
        (FIELD, [("g", "cell_0.jpg", "8 0 60 60")], ["f/0 overlaps g"]),
        (FIELD, [("g", "cell_0.jpg", "64 0 64 64"), ("h", "cell_0.jpg", "64 64 64 64")], ["f/1 = h"]),
        ([("f/1", "cell_0.jpg", "64 64 64 64")], [("f", "cell_0.jpg", ""), *FIELD], ["f/1 = f/1"]),
    ],
    ids=[
        "parts of a whole",
        "whole with its parts",
        "boxes drawn anew",
        "other cells of a field",
        "the same box first",
    ],
)
def test_a_cell_of_a_file_is_found_elsewhere_however_the_file_was_cut(
    drawn: Cohort, here: list[tuple[str, str, str]], there: list[tuple[str, str, str]], named: list[str]
) -> None:
    other = check_cohort(boxed(drawn, there, "other"))
    check = check_cohort(boxed(drawn, here), against=[known_cells("other", other.cells)])
    (finding,) = (finding for finding in check.findings if finding.flag == "elsewhere")
    assert finding.level == "error"
    assert f"of 'other' too: {', '.join(named)}; do not train" in finding.text
    assert check.cells["elsewhere"].notna().sum() == len(named)


def test_other_cells_of_the_same_field_are_not_found_elsewhere(drawn: Cohort) -> None:
    other = check_cohort(boxed(drawn, FIELD[1:], "other"))
    check = check_cohort(boxed(drawn, FIELD[:1]), against=[known_cells("other", other.cells)])
    assert about_cells(check) == []


def test_a_whole_field_beside_its_cells_is_a_warning_and_no_conflict_of_labels(drawn: Cohort) -> None:
    cohort = boxed(drawn, [*FIELD, ("f", "cell_0.jpg", "")])
    check = check_cohort(replace(cohort, cells=cohort.cells.assign(cell_type=["EO", "BNE", "WBC"])))
    (finding,) = (finding for finding in check.findings if finding.flag != "near_copy")
    assert (finding.level, finding.flag) == ("warning", "copy")
    assert finding.text == (
        "1 file is one cell as a whole and others in parts: f with f/0, f/1 in it; leave out the whole or its parts."
    )
    assert check.cells.set_index("cell_id")["copy_of"].dropna().to_dict() == {"f/0": "f", "f/1": "f"}


def test_a_whole_field_of_another_patient_than_its_cells_is_an_error(drawn: Cohort) -> None:
    cells = pd.DataFrame([*FIELD, ("f", "cell_0.jpg", "")], columns=["cell_id", "path", "box"], dtype=object)
    cohort = owned(drawn, 2)
    check = check_cohort(replace(cohort, cells=cells.assign(patient_id=["P0", "P0", "P1"])))
    (finding,) = (finding for finding in check.findings if finding.level == "error")
    assert finding.text.endswith("f with f/0, f/1 in it; find out whose the field is, and remove the others.")


def test_near_copies_elsewhere_are_told_of_all_copies_of_a_file(drawn: Cohort, workspace: Workspace) -> None:
    shutil.copy(drawn.root / "cell_2.jpg", drawn.root / "cell_20.jpg")
    check = check_cohort(drawn, against=[read_known("other", workspace, "drawn")])
    elsewhere = check.cells.set_index("cell_id")["elsewhere"].dropna().to_dict()
    assert elsewhere == dict.fromkeys(["cell_2", "cell_20"], "other: cell_12") | {"cell_1": "other: cell_11"}
    (near,) = (finding for finding in check.findings if finding.flag == "near_elsewhere")
    assert "cell_2 ~ cell_12, cell_20 ~ cell_12" in near.text


def test_another_cohort_that_is_all_alike_is_compared_by_its_files_only_and_that_is_said(
    drawn: Cohort, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = read_known("other", workspace, "drawn")
    monkeypatch.setattr(
        "milkit.check.copies.near_pairs",
        lambda prints, others=None: near_pairs(prints) if others is None else None,
    )
    check = check_cohort(drawn, against=[known])
    note, exact = check.findings
    assert exact.flag == "elsewhere"
    assert (note.level, note.flag) == ("note", None)
    assert note.text.startswith("The images are too much alike to tell by their looks which of them 'other' has too ")


@pytest.mark.parametrize("content", ["a,b\n1,2\n", "cell_id,sha256,fingerprint,flags\nc,00,zz,\n", ""])
def test_another_table_is_refused(workspace: Workspace, tmp_path: Path, content: str) -> None:
    (tmp_path / "wrong.csv").write_text(content)
    with pytest.raises(CohortError, match=r"wrong\.csv is not a table of cells that `milkit cohort check` wrote"):
        read_known(str(tmp_path / "wrong.csv"), workspace, "drawn")


def test_what_is_known_of_cells_is_the_same_from_the_check_and_from_its_table(drawn: Cohort, tmp_path: Path) -> None:
    (drawn.root / "cell_0.jpg").write_bytes(jpeg(draw_cell(0).resize((1, 1)).resize((128, 128))))
    (drawn.root / "cell_1.jpg").write_bytes(b"no image")
    check = check_cohort(drawn)
    write_check(check, tmp_path / "checks" / "drawn")
    known = known_cells("drawn", check.cells)
    again = read_known("drawn", Workspace(tmp_path), "other")
    assert (known.cell_ids, known.files) == (again.cell_ids, again.files)
    np.testing.assert_array_equal(known.fingerprints, again.fingerprints)
    assert known.distinct.tolist() == again.distinct.tolist() == [False] + [True] * 28
    assert "cell_1" not in known.cell_ids
