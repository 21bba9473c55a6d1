"""The first recipe for one's own folder: it can be read as it is, says what it guessed, and overwrites nothing."""

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from aml_hehr_toys import write_collection, write_images
from typer.testing import CliRunner

from milkit import settings
from milkit.cli import app
from milkit.clinical_tables import read_table
from milkit.cohort import Cohort, load_cohort
from milkit.cohort_init import draft_recipe, write_recipe
from milkit.errors import CohortError
from milkit.settings import CohortRecipe


def load(recipe: Path) -> Cohort:
    return load_cohort(settings.load(CohortRecipe, recipe, {}))


@pytest.fixture
def root(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Four patients with a table of the hospital, in a folder whose name is none of a cohort's."""
    root = tmp_path / "Smears 2021 (neu)"
    for number, name in enumerate(("0012/a_1", "0012/a_2", "0013/a_1", "14/a_1", "15/a_1")):
        write_image(root / "pictures" / f"{name}.png", seed=number)
    write_image(root / "pictures" / "logo.png")
    table = "Fall;Diagnose;Alter;Geschlecht;Geb.;WBC\n0012;AML;44,5;w;01.02.1951;3\n0013;AML;k.A.;m;03.04.1960;4\n"
    (root / "Patienten.csv").write_text(table + "14;no;60;w;;5\n15;no;61;m;;6\n", encoding="utf-8-sig")
    return root


def test_the_recipe_can_be_read_as_it_is(root: Path, tmp_path: Path) -> None:
    cohort = load(write_recipe(root, tmp_path / "study.yaml"))
    assert cohort.name == "Smears_2021_neu"
    assert cohort.root == root
    assert cohort.cells["cell_id"].tolist() == ["0012/1", "0012/2", "0013/1", "14/1", "15/1"]
    assert cohort.patients["label"].to_dict() == {"0012": "AML", "0013": "AML", "14": "no", "15": "no"}
    assert cohort.patients["sex"].tolist() == ["F", "M", "F", "M"]
    assert cohort.patients["age"].dropna().to_dict() == {"0012": 44.5, "14": 60.0, "15": 61.0}


def test_guesses_and_what_must_be_edited_are_marked(root: Path) -> None:
    lines = draft_recipe(root).splitlines()
    assert "    label: Diagnose     # GUESS" in lines
    assert "    age: {column: Alter, missing: [k.A.]}     # GUESS: what is missing" in lines
    assert '    # birth_date: {column: Geb., date: "%d.%m.%Y"}     # EDIT: how they are written' in lines
    assert "    # WBC: WBC" in lines
    assert "  # 5 images fit, 1 lie elsewhere" in lines
    assert '    "no": "no"' in lines


def test_a_collection_of_aml_hehr_gives_a_recipe_that_works(tmp_path: Path) -> None:
    root = write_collection(tmp_path / "PKG - AML")
    cohort = load(write_recipe(root, tmp_path / "aml.yaml"))
    assert cohort.cells["cell_id"].tolist()[:3] == ["ABF/0", "ABF/1", "ABF/2"]
    assert cohort.patients["label"].to_dict() == {"ABF": "NPM1", "AEC": "control", "NAR": "PML_RARA"}
    text = draft_recipe(root)
    assert '  images: "data/*/{patient_id}/image_{cell_id}.tif"' in text
    assert "# sex: {column: sex_1f_2m," in text


def test_an_existing_file_is_not_overwritten(root: Path, tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("precious")
    with pytest.raises(CohortError, match=r"study.yaml exists already and is not overwritten; give another path"):
        write_recipe(root, tmp_path / "study.yaml")
    assert (tmp_path / "study.yaml").read_text() == "precious"


def test_without_a_path_the_recipe_is_written_here_and_named_like_the_folder(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["cohort", "init", str(root)])
    assert (result.exit_code, result.stdout) == (0, "Smears_2021_neu.yaml\n")
    assert "4 patients of the classes AML, no, 5 cells" in result.stderr
    assert CliRunner().invoke(app, ["cohort", "init", str(root)]).exit_code == 2
    checked = CliRunner().invoke(app, ["cohort", "show", "Smears_2021_neu.yaml"])
    assert "cohort Smears_2021_neu: 4 patients, 5 cells" in checked.stdout


def test_a_recipe_that_is_refused_as_it_is_says_why_and_stays(root: Path, tmp_path: Path) -> None:
    (root / "Patienten.csv").unlink()
    out = tmp_path / "study.yaml"
    result = CliRunner().invoke(app, ["cohort", "init", str(root), "--out", str(out)])
    assert result.exit_code == 3
    assert "as it is, the recipe is refused: The table" in result.stderr
    assert "EDIT: no table was found" in out.read_text()


def test_patients_without_images_or_label_are_left_out_by_rules_that_can_be_seen(root: Path, tmp_path: Path) -> None:
    with (root / "Patienten.csv").open("a") as table:
        table.write("16;AML;50;m;;7\n")
    (root / "pictures" / "15").rename(root / "pictures" / "17")
    (root / "Patienten.csv").write_text((root / "Patienten.csv").read_text().replace("15;no", "17;"))
    recipe = write_recipe(root, tmp_path / "study.yaml")
    text = recipe.read_text()
    assert "    include: [{column: n_cells, at_least: 1}]     # 1 rows have no image" in text
    assert "    exclude: [{column: label, missing: true}]     # 1 rows have none" in text
    assert list(load(recipe).patients.index) == ["0012", "0013", "14"]


def test_a_sex_in_codes_is_left_to_a_person(root: Path, tmp_path: Path) -> None:
    table = (
        (root / "Patienten.csv").read_text().replace("Geschlecht", "sex").replace(";w;", ";2;").replace(";m;", ";1;")
    )
    (root / "Patienten.csv").write_text(table)
    recipe = write_recipe(root, tmp_path / "study.yaml")
    assert "    sex: null     # left out, as it is no sex that can be read" in recipe.read_text()
    assert '    # sex: {column: sex, values: {"1": F or M, "2": F or M}}     # EDIT' in recipe.read_text()
    assert "sex" not in load(recipe).patients


def test_the_right_table_and_sheet_are_found_among_others(root: Path, tmp_path: Path) -> None:
    table = pd.read_csv(root / "Patienten.csv", sep=";", dtype=str)
    (root / "Patienten.csv").unlink()
    (root / "notes.txt").write_text("Read me.\n")
    (root / "other.csv").write_text("patient,Diagnose\n0012,x\n99,y\n98,z\n")
    with pd.ExcelWriter(root / "Study.xlsx") as book:
        pd.DataFrame({"column": ["Fall"], "meaning": ["patient"]}).to_excel(book, sheet_name="Dictionary", index=False)
        table.to_excel(book, sheet_name="Data", index=False)
    recipe = write_recipe(root, tmp_path / "study.yaml")
    assert "    table: Study.xlsx\n    sheet: Data\n" in recipe.read_text()
    assert len(load(recipe).patients) == 4


def test_texts_that_can_be_no_table_are_not_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data sets of fields have a text for each image: a box a line, with blanks between its numbers."""
    read: list[str] = []
    monkeypatch.setattr(
        "milkit.folder_survey.read_table", lambda path, **more: (read.append(path.name), read_table(path, **more))[1]
    )
    for number in range(5):
        (root / "pictures" / f"{number}.txt").write_text("0 0.5 0.5 0.1 0.1\n1 0.2 0.2 0.1 0.1\n")
    (root / "empty.txt").write_text("")
    (root / "utf-16.txt").write_text("a;b\n1;2\n", encoding="utf-16")
    draft_recipe(root)
    assert read == ["Patienten.csv", "utf-16.txt"]


def test_of_many_tables_in_a_folder_none_is_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They belong to single images, and each would cost as much as the one of the patients."""
    read: list[str] = []
    monkeypatch.setattr(
        "milkit.folder_survey.read_table", lambda path, **more: (read.append(path.name), read_table(path, **more))[1]
    )
    for number in range(200):
        (root / "pictures" / f"{number}.csv").write_text("x,y\n1,2\n")
    draft_recipe(root)
    assert read == ["Patienten.csv"]


def test_an_interruption_leaves_no_half_of_a_recipe(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").mkdir()

    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_recipe(root, tmp_path / "recipes" / "study.yaml")
    assert list((tmp_path / "recipes").iterdir()) == []


def test_a_recipe_that_somebody_else_writes_meanwhile_is_not_overwritten(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "study.yaml"
    monkeypatch.setattr("os.fsync", lambda descriptor: out.write_text("precious"))
    with pytest.raises(CohortError, match=r"study.yaml exists already and is not overwritten"):
        write_recipe(root, out)
    assert out.read_text() == "precious"
    assert [path.name for path in tmp_path.glob("*study*")] == ["study.yaml"]


@pytest.mark.parametrize("links", [True, False])
def test_a_recipe_is_written_where_files_cannot_be_linked(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, links: bool
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    if not links:
        monkeypatch.setattr("os.link", refuse)
    assert load(write_recipe(root, tmp_path / "new" / "study.yaml")).name == "Smears_2021_neu"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["study.yaml"]


def test_a_folder_between_patient_and_image_is_a_sample(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for name in ("P1/left/1.jpg", "P1/right/1.png", "P2/left/1.jpg"):
        write_image(tmp_path / "study" / name)
    (tmp_path / "study" / "t.csv").write_text("id,group\nP1,A\nP2,B\n")
    recipe = write_recipe(tmp_path / "study", tmp_path / "study.yaml")
    assert '  images: "{patient_id}/{sample_id}/{cell_id}.*"' in recipe.read_text()
    assert load(recipe).cells["sample_id"].tolist() == ["left", "right", "left"]


def test_ids_may_be_the_beginnings_of_file_names(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for name in ("P_1-001", "P_1-002", "P_2-001"):
        write_image(tmp_path / "study" / f"{name}.png")
    (tmp_path / "study" / "t.csv").write_text("id,group\nP_1,A\nP_2,B\n")
    recipe = write_recipe(tmp_path / "study", tmp_path / "study.yaml")
    assert '  images: "{patient_id}-{cell_id}.png"' in recipe.read_text()
    assert load(recipe).cells["cell_id"].tolist() == ["P_1/001", "P_1/002", "P_2/001"]


@pytest.mark.parametrize("each", [False, True], ids=["one archive", "one for each patient"])
def test_images_in_archives_are_found_where_they_are(
    tmp_path: Path, write_image: Callable[..., Path], *, each: bool
) -> None:
    image = write_image(tmp_path / "1.png")
    root = tmp_path / "study"
    root.mkdir()
    for patient in ("P1", "P2"):
        with zipfile.ZipFile(root / (f"{patient}.zip" if each else "all.zip"), "a") as archive:
            archive.write(image, "cells/1.png" if each else f"{patient}/1.png")
    (root / "t.csv").write_text("id,group\nP1,A\nP2,B\n")
    recipe = write_recipe(root, tmp_path / "study.yaml")
    expected = "{patient_id}.zip::cells/{cell_id}.png" if each else "all.zip::{patient_id}/{cell_id}.png"
    assert f'  images: "{expected}"' in recipe.read_text()
    assert load(recipe).cells["cell_id"].tolist() == ["P1/1", "P2/1"]


def test_linked_folders_are_followed_and_a_circle_ends(root: Path, tmp_path: Path) -> None:
    (root / "pictures" / "0012").rename(tmp_path / "elsewhere")
    (root / "pictures" / "0012").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "pictures" / "again").symlink_to(root, target_is_directory=True)
    assert "  # 5 images fit, 1 lie elsewhere" in draft_recipe(root)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, r"is not a folder, where one with images and a table of patients was expected; give its"),
        (lambda path: path.mkdir(), r"holds no image, and no zip or tar with images; give the folder that holds those"),
    ],
)
def test_a_folder_without_images_is_refused(tmp_path: Path, make: Callable[[Path], None], message: str) -> None:
    make(tmp_path / "nothing")
    with pytest.raises(CohortError, match=message):
        write_recipe(tmp_path / "nothing", tmp_path / "study.yaml")
    assert not (tmp_path / "study.yaml").exists()


@pytest.mark.real_data
def test_lymphocytosis_gives_a_recipe_that_works(tmp_path: Path) -> None:
    if not os.environ.get("MILKIT_REAL_DATA"):
        pytest.skip("MILKIT_REAL_DATA is unset: no real data here")
    root = Path(os.environ["MILKIT_REAL_DATA"]) / "lymphocytosis"
    cohort = load(write_recipe(root, tmp_path / "study.yaml"))
    assert (len(cohort.patients), len(cohort.cells), cohort.classes) == (110, 3482, ("0", "1"))
    assert cohort.patients["sex"].value_counts().to_dict() == {"M": 61, "F": 49}


@pytest.mark.real_data
def test_the_published_table_of_aml_hehr_gives_a_recipe_that_works(tmp_path: Path) -> None:
    if not os.environ.get("MILKIT_REAL_DATA"):
        pytest.skip("MILKIT_REAL_DATA is unset: no published table here")
    published = Path(os.environ["MILKIT_REAL_DATA"]) / "aml_hehr_metadata" / "metadata_reconstructed.csv"
    table = pd.read_csv(published, dtype=str, keep_default_na=False)
    root = tmp_path / "aml"
    write_images(root / "data", {f"{row.bag_label}/{row.patient_id}": 2 for row in table.itertuples()})
    (root / "metadata.csv").write_bytes(published.read_bytes())
    cohort = load(write_recipe(root, tmp_path / "study.yaml"))
    assert cohort.patients["label"].to_dict() == dict(zip(table["patient_id"], table["bag_label"], strict=True))
