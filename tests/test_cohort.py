"""The rules that every cohort keeps, the order of its rows, and its identity."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from milkit.cohort import Cohort, is_image, load_cohort, natural_key, numeric
from milkit.errors import CohortError, first_rows
from milkit.registry import COHORTS
from milkit.settings import CohortRecipe

PATIENTS = {"NAR": "A", "BCD": "B"}


def cells_of(*rows: tuple[str, str | None, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["cell_id", "patient_id", "path"], dtype=object)


def cohort_of(cells: pd.DataFrame | None = None, labels: dict[str, Any] | None = None, **other: Any) -> Cohort:
    """Two patients with one cell each, unless told otherwise."""
    labels = PATIENTS if labels is None else labels
    index = pd.Index(list(labels), name="patient_id", dtype=object)
    patients = pd.DataFrame({"label": list(labels.values())}, index=index, dtype=object)
    if cells is None:
        cells = cells_of(*((f"{name}/1", name, f"{name}/1.png") for name in PATIENTS))
    return Cohort(
        **{"name": "toy", "root": Path("/data"), "classes": ("A", "B")} | other, patients=patients, cells=cells
    )


# --- the rules --------------------------------------------------------------------------------------------------------


def test_cohort_without_cells_is_refused() -> None:
    with pytest.raises(CohortError, match=r"^Cohort 'toy' has no cells under /data; check --root"):
        cohort_of(cells_of())


def test_cell_id_that_occurs_twice_is_refused() -> None:
    cells = cells_of(("1", "NAR", "a.png"), ("1", "BCD", "b.png"))
    with pytest.raises(CohortError, match=r"cell ids occur twice: 1\); mend the tables"):
        cohort_of(cells)


def test_patient_id_that_occurs_twice_is_refused() -> None:
    patients = pd.DataFrame({"label": ["A", "B", "B"]}, index=["NAR", "BCD", "BCD"])
    with pytest.raises(CohortError, match="patient ids occur twice: BCD"):
        replace(cohort_of(), patients=patients)


def test_cell_of_an_unknown_patient_is_refused() -> None:
    cells = cells_of(("1", "NAR", "a.png"), ("2", "BCD", "b.png"), ("3", "XXX", "c.png"))
    with pytest.raises(CohortError, match="cells belong to no patient of the patient table: 3"):
        cohort_of(cells)


def test_cell_without_patient_among_patients_is_refused() -> None:
    cells = cells_of(("1", "NAR", "a.png"), ("2", "BCD", "b.png"), ("3", None, "c.png"))
    with pytest.raises(CohortError, match="cells belong to no patient of the patient table: 3"):
        cohort_of(cells)


def test_patient_without_cells_is_refused() -> None:
    with pytest.raises(CohortError, match="patients have no cells: XXX"):
        cohort_of(labels=PATIENTS | {"XXX": "A"})


@pytest.mark.parametrize("label", [None, np.nan, ""])
def test_missing_label_is_refused(label: object) -> None:
    with pytest.raises(CohortError, match="patients have no label: NAR"):
        cohort_of(labels=PATIENTS | {"NAR": label})


def test_label_that_is_no_class_is_refused() -> None:
    with pytest.raises(CohortError, match="labels are none of the classes: APL"):
        cohort_of(labels=PATIENTS | {"NAR": "APL"})


@pytest.mark.parametrize("path", ["/etc/cell.png", "../cell.png", "a/../../cell.png"])
def test_path_that_leaves_the_root_is_refused(path: str) -> None:
    cells = cells_of(("1", "NAR", path), ("2", "BCD", "b.png"))
    with pytest.raises(CohortError, match=f"paths lead out of the cohort's root: {path}"):
        cohort_of(cells)


def test_all_broken_rules_are_told_at_once() -> None:
    with pytest.raises(CohortError, match=r"have no cells: X; labels are none of the classes: APL\); mend"):
        cohort_of(labels=PATIENTS | {"X": "APL"})


def test_only_the_first_offenders_are_listed() -> None:
    assert first_rows(list("abcdefg")) == "a, b, c, d, e and 2 more"
    assert first_rows(list("abcde")) == "a, b, c, d, e"


# --- order and identity -----------------------------------------------------------------------------------------------


def test_rows_are_in_order_of_patients_and_natural_order_of_cells() -> None:
    names = ["image_10", "image_2", "image_0"]
    cells = cells_of(*((f"{p}/{name}", p, f"{p}/{name}.tif") for p in PATIENTS for name in names))
    cohort = cohort_of(cells)
    assert list(cohort.patients.index) == ["BCD", "NAR"]
    ordered = ["image_0", "image_2", "image_10"]
    assert cohort.cells["cell_id"].tolist() == [f"{p}/{name}" for p in ("BCD", "NAR") for name in ordered]
    assert cohort.cells.index.tolist() == list(range(6))


@pytest.mark.parametrize("names", [["image_2", "image_10"], ["1", "a"], ["a", "a1"], ["a1", "aa"], ["x1", "x²"]])
def test_natural_order(names: list[str]) -> None:
    smaller, larger = map(natural_key, names)
    assert smaller < larger


def test_digest_does_not_depend_on_the_order_of_rows() -> None:
    cohort = cohort_of()
    assert replace(cohort, cells=cohort.cells.iloc[::-1]).digest == cohort.digest


def test_digest_does_not_depend_on_the_root() -> None:
    assert cohort_of(root=Path("/elsewhere")).digest == cohort_of().digest


def test_digest_does_not_depend_on_labels() -> None:
    assert cohort_of(labels={"NAR": "B", "BCD": "A"}).digest == cohort_of().digest


@pytest.mark.parametrize("column", ["path", "cell_id"])
def test_digest_depends_on_ids_and_paths(column: str) -> None:
    cohort = cohort_of()
    cells = cohort.cells.copy()
    cells.loc[0, column] += "x"
    assert replace(cohort, cells=cells).digest != cohort.digest


# --- cohorts without patients, recipes --------------------------------------------------------------------------------


def test_cells_without_patients_are_a_cohort() -> None:
    cohort = cohort_of(cells_of(("cell_10", None, "b.png"), ("cell_9", None, "a.png")), labels={}, classes=())
    assert not cohort.has_patients
    assert cohort.cells["cell_id"].tolist() == ["cell_9", "cell_10"]
    assert cohort_of().has_patients


def test_cells_with_patients_need_a_patient_table() -> None:
    with pytest.raises(CohortError, match="cells belong to no patient of the patient table: NAR/1, BCD/1"):
        cohort_of(labels={})


def test_cohort_is_called_like_its_recipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def factory(root: Path, classes: tuple[str, ...]) -> Cohort:
        return cohort_of(root=root, classes=classes)

    monkeypatch.setitem(COHORTS._registered, "two-patients", factory)
    arguments = {"classes": ["B", "A"]}
    recipe = CohortRecipe(name="my_study", factory="two-patients", root=tmp_path, arguments=arguments)
    cohort = load_cohort(recipe)
    assert (cohort.name, cohort.root, cohort.classes) == ("my_study", tmp_path, ("B", "A"))


@pytest.mark.parametrize(("own", "given", "known"), [(None, 0.2, 0.2), (0.1, None, 0.1), (0.1, 0.2, 0.2)])
def test_a_recipe_s_size_of_a_pixel_goes_over_the_cohort_s(
    monkeypatch: pytest.MonkeyPatch, own: float | None, given: float | None, known: float
) -> None:
    monkeypatch.setitem(COHORTS._registered, "sized", lambda: replace(cohort_of(), micrometres_per_pixel=own))
    recipe = CohortRecipe(name="my_study", factory="sized", micrometres_per_pixel=given)
    assert load_cohort(recipe).micrometres_per_pixel == known


# --- what adapters share ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["a/image_1.tif", "a/IMAGE.TIF", "b.tiff", "b.png", "b.JPG", "b.jpeg", "b.webp", "b.bmp"]
)
def test_images_are_known_by_suffix_in_any_case(path: str) -> None:
    assert is_image(Path(path))


@pytest.mark.parametrize(
    "path",
    [
        "a/.DS_Store",
        "a/.DS_169665.jpg",
        "a/._image_1.tif",
        "__MACOSX/a/image_1.tif",
        "a/.ipynb_checkpoints/image_1.png",
        "a/augmented/image_1.png",
        "a/Thumbs.db",
        "a/fnl34_bn_features_layer_7.npy",
        "a/image_1",
    ],
)
def test_litter_is_no_image(path: str) -> None:
    assert not is_image(Path(path))


def test_numbers_are_read_with_point_or_comma() -> None:
    column = pd.Series(["44,4", "35.5", " 7 ", "1e3", "-2"], name="age")
    assert numeric(column).tolist() == [44.4, 35.5, 7.0, 1000.0, -2.0]


@pytest.mark.parametrize("blank", ["", " ", "NA", "nan", "None", "null", None, np.nan])
def test_blanks_are_missing_numbers(blank: object) -> None:
    assert numeric(pd.Series([blank, "1"], name="age", dtype=object)).isna().tolist() == [True, False]


@pytest.mark.parametrize("text", ["unknown", "<1", "1.234,5"])
def test_text_among_numbers_is_refused(text: str) -> None:
    with pytest.raises(CohortError, match=r"^Column 'age' holds '.*' where a number was expected; mend the table\.$"):
        numeric(pd.Series(["44,4", text], name="age"))


def test_a_table_without_a_column_that_is_needed_is_refused(tmp_path: Path) -> None:
    patients = pd.DataFrame({"age": [1.0]}, index=pd.Index(["P1"], name="patient_id"))
    cells = pd.DataFrame({"cell_id": ["a"], "patient_id": ["P1"]})
    with pytest.raises(CohortError, match="The tables of cohort 'x' lack path, label; a cohort factory must give"):
        Cohort("x", tmp_path, patients, cells, ("A",))


@pytest.mark.parametrize("ids", [[1, 2], ["1", ""], ["1", None]])
def test_patient_ids_that_are_no_text_are_refused(tmp_path: Path, ids: list[object]) -> None:
    patients = pd.DataFrame({"label": "A"}, index=pd.Index(ids, name="patient_id", dtype=object))
    cells = pd.DataFrame({"cell_id": ["a", "b"], "patient_id": ids, "path": ["a", "b"]})
    with pytest.raises(CohortError, match="patient ids that are no text, or empty"):
        Cohort("x", tmp_path, patients, cells, ("A",))


def test_ids_that_differ_only_in_leading_zeros_have_an_order() -> None:
    assert natural_key("image_01") != natural_key("image_1")


def test_infinite_numbers_are_refused() -> None:
    with pytest.raises(CohortError, match="holds 'inf' where a number was expected"):
        numeric(pd.Series(["1", "inf"], name="age"))
