"""What every registered cohort owes its user, whoever wrote it: tried on a tiny fake of each published data set."""

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from aml_hehr_toys import FOLDERS, ROWS, write_collection
from cohort_fakes import Fake, LayOut, picture, write
from toys import made_of

from milkit.bags import BagStore
from milkit.cohort import Cohort, find_recipe, load_cohort, natural_key
from milkit.errors import CohortError, SettingsError, StoreError
from milkit.images import parse_box, read_bytes, read_cell
from milkit.registry import COHORTS
from milkit.settings import recipe_names
from milkit.taxonomy import LabelMap, Taxonomy

ARGUMENTS: dict[str, dict[str, Any]] = {
    "tabular": {"images": "a/{patient_id}/{cell_id}.png", "patients": "t.csv"},
}
"""What a factory cannot do without, beside its root."""
MAKES_ITS_FOLDER = {"synthetic"}
OUR_OWN = {"synthetic", "tabular"}
"""Factories that read no published data set."""


def lay_out_aml_hehr(root: Path) -> Fake:
    return Fake(write_collection(root), {}, sum(FOLDERS.values()), {}, len(ROWS))


def lay_out_lymphocytosis(root: Path) -> Fake:
    write(root, ["trainset/P1/000000.jpg", "trainset/P1/000010.jpg", "trainset/P22/000000.jpg"], picture("JPEG"))
    write(
        root,
        ["trainset/trainset_true.csv"],
        b"ID,LABEL,GENDER,DOB,LYMPH_COUNT\nP1,0,F,11/3/1933,4.5\nP22,1,f,5/15/1942,27.3\n",
    )
    return Fake(root, {}, 3, {}, 2)


def lay_out_synthetic(root: Path) -> Fake:
    return Fake(root, {"patients_per_class": 1, "cells_per_patient": (2, 2)}, 10, {}, 5)


def lay_out_tabular(root: Path) -> Fake:
    write(root, ["a/P1/1.png", "a/P1/10.png", "a/P2/1.PNG"], picture("PNG"))
    write(root, ["t.csv"], b"patient_id,label\nP1,AML\nP2,donor\n")
    return Fake(root, ARGUMENTS["tabular"], 3, {}, 2)


def collect_fakes() -> dict[str, LayOut]:
    """The fakes of all parts that are there, and those of the cohorts that are tested in files of their own."""
    fakes: dict[str, LayOut] = {
        "aml_hehr": lay_out_aml_hehr,
        "lymphocytosis": lay_out_lymphocytosis,
        "synthetic": lay_out_synthetic,
        "tabular": lay_out_tabular,
    }
    for part in ("folders", "fields", "patients"):
        if importlib.util.find_spec(f"cohort_fakes_{part}"):
            fakes |= importlib.import_module(f"cohort_fakes_{part}").FAKES
    return fakes


FAKES = collect_fakes()
PUBLISHED = sorted(FAKES.keys() - OUR_OWN)


def read(name: str, fake: Fake) -> Cohort:
    """The fake, read as the command line reads a data set: by its recipe, or without one by its factory alone."""
    recipe = find_recipe(name, fake.root)
    return load_cohort(recipe.model_copy(update={"arguments": recipe.arguments | fake.arguments}))


class Laid(NamedTuple):
    """A fake, and what was made of it."""

    name: str
    fake: Fake
    cohort: Cohort


@pytest.fixture(scope="module", params=sorted(FAKES))
def laid(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Laid:
    """Each fake in turn, laid out and read once."""
    fake = FAKES[request.param](tmp_path_factory.mktemp(request.param))
    return Laid(request.param, fake, read(request.param, fake))


def is_one_sentence(text: str) -> bool:
    """One full stop, and that at the end; a stop within a file name or a version is none."""
    return text.endswith(".") and "\n" not in text and not re.search(r"[.!?]\s+[A-Z]", text)


def test_factories_of_published_cells_say_themselves_that_ids_are_pseudonyms(laid: Laid) -> None:
    recipe = find_recipe(laid.name, laid.fake.root)
    silent = recipe.model_copy(update={"ids": None, "arguments": recipe.arguments | laid.fake.arguments})
    assert load_cohort(silent).ids == ("identifying" if recipe.factory == "tabular" else "pseudonymous")


def refusal(name: str, **root: Path | None) -> str:
    with pytest.raises((CohortError, SettingsError)) as caught:
        COHORTS.build(name, ARGUMENTS.get(name, {}) | root)
    return str(caught.value)


# --- without data -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("root", [{}, {"root": None}], ids=["absent", "null"])
@pytest.mark.parametrize("name", COHORTS.names())
def test_cohort_without_a_root_is_refused_in_one_sentence(name: str, root: dict[str, None]) -> None:
    text = refusal(name, **root)
    assert is_one_sentence(text)
    assert re.search(r"\broot\b", text)


@pytest.mark.parametrize("name", [name for name in COHORTS.names() if name not in MAKES_ITS_FOLDER])
def test_root_that_does_not_exist_is_refused_in_one_sentence_that_names_it(name: str, tmp_path: Path) -> None:
    text = refusal(name, root=tmp_path / "nowhere")
    assert is_one_sentence(text)
    assert str(tmp_path / "nowhere") in text
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", [name for name in COHORTS.names() if name not in MAKES_ITS_FOLDER])
def test_a_folder_without_the_data_set_is_refused_in_one_sentence_that_names_it(name: str, tmp_path: Path) -> None:
    write(tmp_path, ["holiday/beach_1.jpg"], picture("JPEG"))
    if name in {"warty_pig"}:  # takes any folder for a class
        (tmp_path / "holiday" / "beach_1.jpg").rename(tmp_path / "beach_1.jpg")
    text = refusal(name, root=tmp_path)
    assert is_one_sentence(text)
    assert str(tmp_path) in text


@pytest.mark.parametrize("name", COHORTS.names())
def test_factory_says_what_it_reads(name: str) -> None:
    assert COHORTS.get(name).__doc__


def test_every_cohort_that_can_be_named_has_a_fake() -> None:
    assert sorted(FAKES) == sorted({*COHORTS.names(), *recipe_names("cohorts")})


# --- the fake, as it is read ------------------------------------------------------------------------------------------


def test_cells_and_patients_are_as_many_as_were_laid_out(laid: Laid) -> None:
    assert (len(laid.cohort.cells), len(laid.cohort.patients)) == (laid.fake.n_cells, laid.fake.n_patients)


def test_cells_have_the_labels_that_were_laid_out(laid: Laid) -> None:
    if laid.name in OUR_OWN:
        pytest.skip("its cells are labelled in tests of its own")
    found = laid.cohort.cells["cell_type"].value_counts().to_dict() if "cell_type" in laid.cohort.cells else {}
    assert found == laid.fake.cell_types


def test_every_image_is_there_and_shows_its_cell(laid: Laid) -> None:
    boxes = laid.cohort.cells["box"] if "box" in laid.cohort.cells else [""] * len(laid.cohort.cells)
    for path, box in zip(laid.cohort.cells["path"], boxes, strict=True):
        cell = read_cell(read_bytes(laid.cohort.root, path), box)
        assert cell.dtype == np.uint8
        assert cell.ndim == 3
        assert not box or cell.shape == (parse_box(box).height, parse_box(box).width, 3)


def test_cells_have_one_id_each_in_natural_order(laid: Laid) -> None:
    cells = laid.cohort.cells
    assert cells["cell_id"].is_unique
    for _, ids in cells.groupby("patient_id", dropna=False)["cell_id"]:
        assert list(ids) == sorted(ids, key=natural_key)


def test_reading_twice_gives_the_same_rows(laid: Laid) -> None:
    again = read(laid.name, laid.fake)
    pd.testing.assert_frame_equal(again.cells, laid.cohort.cells)
    assert again.digest == laid.cohort.digest


def test_a_data_set_without_patients_invents_none(laid: Laid) -> None:
    if laid.fake.n_patients:
        pytest.skip("has patients")
    assert laid.cohort.cells["patient_id"].isna().all()
    assert laid.cohort.classes == ()
    assert not laid.cohort.has_patients


def test_multiple_instance_learning_refuses_a_data_set_without_patients(laid: Laid, tmp_path: Path) -> None:
    if laid.fake.n_patients:
        pytest.skip("has patients")
    from milkit.mil.crossval import cross_validate
    from milkit.settings import MilSettings

    facts = made_of(cohort=laid.name, cohort_digest=laid.cohort.digest, classes=[])
    with_cells = BagStore.create(tmp_path / "s.zarr", laid.cohort.patients, laid.cohort.cells, 2, facts)
    for name in with_cells.pending():
        rows = with_cells.rows_of(name)
        n_cells = rows.stop - rows.start
        with_cells.write(name, np.zeros((n_cells, 2), np.float32), np.zeros((n_cells, 32), np.uint8), {})
    with_cells.close()
    with pytest.raises(StoreError) as caught:
        cross_validate(BagStore.open(tmp_path / "s.zarr"), MilSettings(), tmp_path / "run")
    assert is_one_sentence(str(caught.value))
    assert "without patients; multiple-instance learning needs a label per patient" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_notes_are_sentences(laid: Laid) -> None:
    assert [note for note in laid.cohort.notes if not is_one_sentence(note)] == []


# --- what goes with it ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_data_set_has_a_recipe_that_says_its_state_licence_and_source(name: str) -> None:
    assert name in recipe_names("cohorts")
    recipe = find_recipe(name)
    assert recipe.factory in COHORTS.names()
    assert {"verified", "licence", "source"} <= recipe.model_fields_set
    assert recipe.licence
    assert recipe.source


@pytest.mark.parametrize("name", sorted(set(PUBLISHED) & set(COHORTS.names())))
def test_the_docstring_of_the_module_shows_the_published_layout(name: str) -> None:
    text = sys.modules[COHORTS.get(name).__module__].__doc__ or ""
    assert re.search(r"^    <root>/\S", text, re.MULTILINE)


def test_the_taxonomy_knows_every_label_of_the_cells(laid: Laid) -> None:
    if not laid.fake.cell_types:
        pytest.skip("its cells have no labels")
    labels = LabelMap.load(laid.name, Taxonomy.load())
    assert [label for label in laid.fake.cell_types if not labels.leaves(label)] == []


@pytest.mark.parametrize("name", recipe_names("taxonomies/labels"))
def test_labels_are_of_a_cohort_and_name_nodes_of_the_taxonomy(name: str) -> None:
    assert name in {*recipe_names("cohorts"), *COHORTS.names()}
    labels = LabelMap.load(name, Taxonomy.load())
    assert all(labels.node(label) for label in labels.nodes)
