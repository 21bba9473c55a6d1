"""The declared cohort: patterns, tables, aliases, and every mistake by its message."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from milkit import settings
from milkit.cohort import Cohort, load_cohort
from milkit.errors import CohortError, SettingsError
from milkit.settings import CohortRecipe

ARGUMENTS: dict[str, Any] = {
    "images": "smears/{patient_id}/{cell_id}.png",
    "patients": "patients.csv",
    "columns": {
        "patient_id": "Case",
        "label": "Diagnosis",
        "sex": {"column": "Sex", "values": {"f": "F"}},
        "count": "Count",
    },
    "labels": {"0": "reactive", "1": "malignant"},
}
TABLE = "Case;Diagnosis;Sex;Count\nNA;0;f;1,5\nP1;1.0;M;2\n"


@pytest.fixture
def root(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Two patients, one called NA, whose images carry numbers and one an upper-case suffix."""
    (tmp_path / "patients.csv").write_text(TABLE, encoding="utf-8-sig")
    for name in ("NA/10.png", "NA/2.png", "P1/1.PNG"):
        write_image(tmp_path / "smears" / name)
    (tmp_path / "smears" / "P1" / "features.npy").write_bytes(b"")
    (tmp_path / "smears" / "P1" / ".DS_1.png").write_bytes(b"")
    return tmp_path


def _load(root: Path | None, **changes: Any) -> Cohort:
    return load_cohort(CohortRecipe(name="study", factory="tabular", root=root, arguments=ARGUMENTS | changes))


def test_images_are_found_by_the_pattern_in_natural_order(root: Path) -> None:
    cohort = _load(root)
    assert list(cohort.cells["cell_id"]) == ["NA/2", "NA/10", "P1/1"]
    assert list(cohort.cells["path"]) == ["smears/NA/2.png", "smears/NA/10.png", "smears/P1/1.PNG"]
    assert cohort.name == "study"


def test_labels_values_and_decimal_commas_are_translated(root: Path) -> None:
    patients = _load(root).patients
    assert patients["label"].to_dict() == {"NA": "reactive", "P1": "malignant"}
    assert patients["sex"].to_dict() == {"NA": "F", "P1": "M"}
    assert patients["count"].to_dict() == {"NA": 1.5, "P1": 2.0}


def test_classes_keep_the_order_of_the_recipe(root: Path) -> None:
    assert _load(root).classes == ("reactive", "malignant")
    assert _load(root, labels={"1": "malignant", "0": "reactive"}).classes == ("malignant", "reactive")


def test_codes_need_no_quotes_in_yaml(root: Path) -> None:
    assert _load(root, labels={0: "reactive", 1: "malignant"}).classes == ("reactive", "malignant")


def test_cells_can_come_from_a_table(root: Path) -> None:
    (root / "cells.tsv").write_text("Case\tcell_id\tpath\nNA\t1\tsmears/NA/2.png\nP1\t7\tsmears/P1/1.PNG\n")
    cohort = _load(root, images=None, cells="cells.tsv")
    assert list(cohort.cells["cell_id"]) == ["NA/1", "P1/7"]


def test_a_field_that_is_named_twice_repeats(root: Path) -> None:
    (root / "smears" / "P1" / "P1_5.png").write_bytes((root / "smears" / "NA" / "2.png").read_bytes())
    (root / "smears" / "NA" / "NA_3.png").write_bytes((root / "smears" / "NA" / "2.png").read_bytes())
    cohort = _load(root, images="smears/{patient_id}/{patient_id}_{cell_id}.png")
    assert list(cohort.cells["cell_id"]) == ["NA/3", "P1/5"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"images": "smears/{patient}/{cell_id}.png"},
            r"has the fields \['cell_id', 'patient'\]; expected {patient_id}",
        ),
        ({"images": "other/{patient_id}/{cell_id}.png"}, r"No image below .* matches the pattern 'other/"),
        ({"patients": "nothing.csv"}, r"The table .*nothing.csv does not exist; give the path"),
        (
            {"columns": {"patient_id": "Cse", "label": "Diagnosis"}},
            r"has no column 'Cse' \(nearest: 'Case'; found: Case",
        ),
        (
            {"labels": {"0": "reactive"}},
            r"holds labels that the recipe does not list: '1' \(P1\); add them to `labels`",
        ),
        ({"images": None}, r"must name `patients` and one of `images` or `cells`"),
    ],
)
def test_a_wrong_recipe_is_explained(root: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CohortError, match=message):
        _load(root, **changes)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"The folder .*nowhere does not exist, where the files of the recipe"):
        _load(tmp_path / "nowhere")
    with pytest.raises(CohortError, match=r"No folder was given, where the files of the recipe were expected"):
        _load(None)


def test_an_absolute_pattern_is_refused(root: Path) -> None:
    with pytest.raises(CohortError, match=r"is absolute, expected one below .*; give the folder with --root"):
        _load(root, images="/smears/{patient_id}/{cell_id}.png")


def test_linked_folders_are_followed(root: Path) -> None:
    (root / "smears" / "P1").rename(root / "elsewhere")
    (root / "smears" / "P1").symlink_to(root / "elsewhere", target_is_directory=True)
    assert list(_load(root).cells["cell_id"]) == ["NA/2", "NA/10", "P1/1"]


def test_folder_names_are_taken_literally(root: Path) -> None:
    (root / "smears").rename(root / "smears [2019]")
    assert len(_load(root, images="smears [2019]/{patient_id}/{cell_id}.png").cells) == 3


def test_an_age_that_is_no_number_is_refused(root: Path) -> None:
    (root / "patients.csv").write_text("Case;Diagnosis;age\nNA;0;44,5\nP1;1;4o\n")
    with pytest.raises(CohortError, match=r"column 'age' holds '4o' \(P1\) where a number was expected; mend"):
        _load(root, columns={"patient_id": "Case", "label": "Diagnosis"})


def test_a_site_code_stays_text(root: Path) -> None:
    (root / "patients.csv").write_text("Case;Diagnosis;site\nNA;0;01\nP1;1;2\n")
    cohort = _load(root, columns={"patient_id": "Case", "label": "Diagnosis"})
    assert cohort.patients["site"].tolist() == ["01", "2"]


def test_a_sex_that_is_not_translated_is_named(root: Path) -> None:
    (root / "patients.csv").write_text(TABLE.replace(";f;", ";weiblich;"))
    with pytest.raises(
        CohortError,
        match=r"column 'Sex' \(sex\) holds 'weiblich' \(NA\) where F, M or a blank was expected; translate it in `val",
    ):
        _load(root)


def test_a_misspelt_argument_is_named(root: Path) -> None:
    with pytest.raises(SettingsError, match=r"cohort 'tabular' cannot be made from .* \(image: Unexpected keyword"):
        _load(root, image="x")


def test_a_missing_label_names_the_patient(root: Path) -> None:
    (root / "patients.csv").write_text(TABLE.replace("P1;1.0", "P1;"))
    with pytest.raises(CohortError, match=r"patients have no label: P1"):
        _load(root)


def test_a_patient_without_images_is_named(root: Path) -> None:
    (root / "patients.csv").write_text(TABLE + "P9;1;M;3\n")
    with pytest.raises(CohortError, match=r"patients have no cells: P9"):
        _load(root)


def test_images_without_a_patient_are_named(root: Path, write_image: Callable[..., Path]) -> None:
    write_image(root / "smears" / "X7" / "1.png")
    with pytest.raises(CohortError, match=r"1 patients have images but no row in .*patients.csv \(X7\)"):
        _load(root)


def test_a_patient_with_two_rows_is_named(root: Path) -> None:
    (root / "patients.csv").write_text(TABLE + "P1;0;M;3\n")
    with pytest.raises(CohortError, match=r"patient ids occur twice: P1"):
        _load(root)


@pytest.mark.real_data
def test_lymphocytosis_has_its_published_patients() -> None:
    if not os.environ.get("MILKIT_REAL_DATA"):
        pytest.skip("MILKIT_REAL_DATA is unset: no real data here")
    root = Path(os.environ["MILKIT_REAL_DATA"]) / "lymphocytosis"
    cohort = load_cohort(settings.load(CohortRecipe, settings.find_recipe("cohorts", "lymphocytosis"), {"root": root}))
    assert cohort.patients["label"].value_counts().to_dict() == {"malignant": 76, "reactive": 34}
    assert set(cohort.patients["sex"]) == {"F", "M"}
    assert cohort.patients["lymphocyte_count"].min() == 2.28
