"""`milkit cohort list` and `milkit cohort check` as a person uses them."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from check_toys import draw_cell, jpeg
from typer.testing import CliRunner

from milkit import settings
from milkit.cli import app
from milkit.registry import COHORTS


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in a folder of its own, as a person who has just opened a terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MILKIT_WORKSPACE", raising=False)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A recipe for twelve patients of two classes with two cells each, and their files."""
    return write_study(tmp_path, "study", seed=0)


def write_study(folder: Path, name: str, seed: int) -> Path:
    rows = []
    for number in range(12):
        for cell in range(2):
            path = folder / name / f"P{number}" / f"c{cell}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(draw_cell(seed + 2 * number + cell)))
            os.utime(path, (1e9, 1e9))
        rows.append((f"P{number}", "AB"[number % 2]))
    pd.DataFrame(rows, columns=["case", "diagnosis"]).to_csv(folder / name / "patients.csv", index=False)
    recipe = folder / f"{name}.yaml"
    recipe.write_text(
        f"name: {name}\nfactory: tabular\nroot: {folder / name}\narguments:\n"
        "  images: '{patient_id}/{cell_id}.jpg'\n  patients: patients.csv\n"
        "  columns: {patient_id: case, label: diagnosis}\n"
    )
    return recipe


def run(*arguments: object, status: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, (result.exit_code, result.output, result.exception)
    return result


def test_list_has_a_row_for_every_recipe_and_factory_that_fits_a_terminal() -> None:
    lines = run("cohort", "list").stdout.splitlines()
    assert lines[0].split() == ["name", "kind", "state", "licence"]
    names = [line.split()[0] for line in lines[1:]]
    assert sorted(names) == sorted({*settings.recipe_names("cohorts"), *COHORTS.names()})
    assert max(map(len, lines)) <= 100


def test_list_says_what_was_verified_and_under_which_licence() -> None:
    rows = {line.split()[0]: line for line in run("cohort", "list").stdout.splitlines()}
    assert re.fullmatch(r"aml_hehr +patients +faithful fake +CC BY 4\.0", rows["aml_hehr"])
    assert re.fullmatch(r"acevedo +cells +real files +CC BY 4\.0", rows["acevedo"])
    assert re.fullmatch(r"tabular +- +no recipe +-", rows["tabular"])


def test_list_can_be_read_by_a_script() -> None:
    rows = {row["name"]: row for row in json.loads(run("cohort", "list", "--json").stdout)}
    assert rows["acevedo"]["state"] == "real files"
    assert rows["acevedo"]["source"].startswith("https://doi.org/")
    assert set(rows["tabular"]) == set(rows["acevedo"])


def test_check_of_a_sound_cohort_ends_with_0_and_says_where_its_table_and_sheet_are(study: Path) -> None:
    lines = run("cohort", "check", study).stdout.splitlines()
    assert lines[0].startswith("note: study: 12 patients have fewer than 100 cells")
    assert lines[1] == "findings: 1"
    table = Path(lines[2].removeprefix("cells: "))
    assert table == Path("milkit-work/checks/study/cells.csv")
    assert len(pd.read_csv(table)) == 24
    sheet = Path(lines[3].removeprefix("contact sheet: "))
    assert sheet.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_check_ends_with_3_when_an_error_is_found(study: Path) -> None:
    (study.parent / "study" / "P3" / "c1.jpg").write_bytes(b"no image")
    result = run("cohort", "check", study, status=3)
    assert "error: patient P3, cell P3/c1: P3/c1.jpg cannot be read: the file is not an image; " in result.stdout


def test_check_prints_findings_as_json_and_nothing_else(study: Path) -> None:
    shutil.copy(study.parent / "study/P0/c0.jpg", study.parent / "study/P1/c0.jpg")
    findings = json.loads(run("cohort", "check", study, "--json", status=3).stdout)
    assert {finding["flag"] for finding in findings if finding["level"] == "error"} == {"copy", "conflict"}
    assert all(set(finding) == {"level", "subject", "text", "flag"} for finding in findings)


def test_check_finds_cells_of_a_cohort_that_was_checked_before(study: Path, tmp_path: Path) -> None:
    other = write_study(tmp_path, "other", seed=100)
    shutil.copy(tmp_path / "study/P0/c0.jpg", tmp_path / "other/P7/c1.jpg")
    run("cohort", "check", other)
    assert "'other'" not in run("cohort", "check", study).stdout
    for named in ("other", other, "milkit-work/checks/other/cells.csv"):
        result = run("cohort", "check", study, "--against", named, status=3)
        assert "error: study: 1 image is a file of 'other' too: P0/c0 = P7/c1; " in result.stdout


def test_check_refuses_to_compare_with_what_was_not_checked(study: Path) -> None:
    result = run("cohort", "check", study, "--against", "acevedo", status=2)
    assert result.stderr.startswith("milkit: There is no table of cells at milkit-work/checks/acevedo/cells.csv")
    assert not Path("milkit-work").exists()


def test_a_second_check_reads_only_what_changed_and_fresh_reads_all(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from milkit.check import measures

    read: list[str] = []
    original = measures.read_bytes
    monkeypatch.setattr(measures, "read_bytes", lambda root, path: (read.append(path), original(root, path))[1])
    run("cohort", "check", study)
    assert len(read) == 24
    changed = tmp_path / "study/P4/c0.jpg"
    changed.write_bytes(jpeg(draw_cell(500)))
    os.utime(changed, (1e9 + 5, 1e9 + 5))
    run("cohort", "check", study)
    assert read[24:] == ["P4/c0.jpg"]
    run("cohort", "check", study, "--fresh")
    assert len(read) == 24 + 1 + 24


def test_show_counts_the_types_of_cells_that_have_no_patients(tmp_path: Path) -> None:
    folder = tmp_path / "PBC_dataset_normal_DIB"
    for name in ("basophil/BA_1.jpg", "basophil/BA_2.jpg", "eosinophil/EO_3.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(draw_cell(len(name))))
    shown = run("cohort", "show", "acevedo", "--root", folder).stdout
    assert re.search(r"BA +2\n *EO +1\n", shown)
