"""A check of published images. Needs MILKIT_REAL_DATA; no image of them is part of the repository."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from milkit.check.files import check_folder, read_known, write_check
from milkit.check.verb import Check, check_cohort
from milkit.cohort import Cohort, find_recipe, load_cohort
from milkit.runs import Workspace

pytestmark = pytest.mark.real_data


@pytest.fixture
def data() -> Path:
    """The folder with the published data."""
    if not os.environ.get("MILKIT_REAL_DATA"):
        pytest.skip("MILKIT_REAL_DATA is unset: no real data here")
    return Path(os.environ["MILKIT_REAL_DATA"]).resolve()


def images_below(root: Path, pattern: str) -> Cohort:
    """Every image as a cell without a patient; its type is the prefix of its name."""
    paths = sorted(path.relative_to(root) for path in root.glob(pattern))
    cells = pd.DataFrame({"cell_id": [path.stem for path in paths], "path": [path.as_posix() for path in paths]})
    cells["cell_type"] = cells["cell_id"].str.partition("_")[0]
    patients = pd.DataFrame({"label": []}, index=pd.Index([], name="patient_id"), dtype=object)
    return Cohort("images", root, patients, cells.assign(patient_id=None).astype(object), ())


def counts(check: Check) -> dict[Any, int]:
    """How many cells have each flag."""
    flags = check.cells["flags"].str.split().explode().dropna()
    return flags.value_counts().to_dict()


def test_the_eight_damaged_images_of_the_bone_marrow_sample_are_found_and_the_four_sound_ones_pass(data: Path) -> None:
    check = check_cohort(images_below(data / "bmc_sample", "*/*.jpg"))
    folder = check.cells["path"].str.partition("/")[0]
    assert check.cells["flags"].groupby(folder).value_counts().to_dict() == {("corrupt", "damaged"): 8, ("ok", ""): 4}
    assert [finding.level for finding in check.findings] == ["error"] * 8


@pytest.mark.slow
def test_lymphocytosis_is_sound_but_for_a_few_cells_out_of_focus(data: Path) -> None:
    check = check_cohort(load_cohort(find_recipe("lymphocytosis", data / "lymphocytosis")))
    assert len(check.cells) == 3482
    assert set(counts(check)) == {"blurred"}
    assert counts(check)["blurred"] <= 4


def test_fields_offered_as_cells_are_said_to_be_fields(data: Path) -> None:
    check = check_cohort(images_below(data / "bccd", "BCCD/JPEGImages/*.jpg"))
    assert counts(check)["field"] == 364


def test_cells_of_aslan_that_were_photographed_twice_are_found(data: Path) -> None:
    """Ten pairs, seen by eye to be one cell each; no other finding."""
    assert counts(check_cohort(load_cohort(find_recipe("aslan", data / "aslan")))) == {"near_copy": 20}


@pytest.mark.slow
def test_acevedo_has_its_published_copies_and_hardly_another_finding(data: Path) -> None:
    check = check_cohort(images_below(data / "acevedo", "*/*/[A-Z]*.jpg"))
    known = pd.read_csv(data / "acevedo" / "_known_duplicates_full_set.csv")
    names = set(check.cells["cell_id"])
    pairs = {(Path(a).stem, Path(b).stem) for a, b in zip(known["file_a"], known["file_b"], strict=True)}
    here = {frozenset(pair) for pair in pairs if names.issuperset(pair)}
    copies = check.cells[check.cells["flags"] == "copy"].dropna(subset="copy_of")
    assert {frozenset(pair) for pair in zip(copies["cell_id"], copies["copy_of"], strict=True)} == here
    assert counts(check) == {"copy": 18, "near_copy": 2, "blurred": 4}


@pytest.mark.slow
def test_reduced_copies_are_found_in_another_cohort(data: Path, tmp_path: Path) -> None:
    """96 of the 130 originals are among the reduced images, and of one more (MO_145357) its published copy."""
    reduced = images_below(data / "acevedo", "*/*/[A-Z]*.jpg")
    workspace = Workspace(tmp_path)
    write_check(check_cohort(reduced), check_folder(workspace, "reduced"))
    originals = images_below(data / "acevedo_original", "*/*/[A-Z]*.jpg")
    check = check_cohort(originals, against=[read_known("reduced", workspace, "originals")])
    found = check.cells.dropna(subset="elsewhere").set_index("cell_id")["elsewhere"].to_dict()
    names = set(originals.cells["cell_id"]) & set(reduced.cells["cell_id"])
    assert len(names) == 96
    assert found == {name: f"reduced: {name}" for name in names} | {"MO_145357": "reduced: MO_997225"}
