"""The experts' labels of AML Hehr's cells: every one that was published means something in the taxonomy."""

import os
from pathlib import Path

import pandas as pd
import pytest
from aml_hehr_toys import write_collection

from cohorts.aml_hehr import CLASSES, aml_hehr
from milkit.errors import CohortError
from milkit.explain.settings import ExplainSettings
from milkit.settings import find_recipe, load
from milkit.taxonomy import LabelMap, Taxonomy


@pytest.mark.real_data
@pytest.mark.parametrize("column", ["mll_annotation", "prediction"])
def test_every_published_label_of_a_cell_is_known(column: str) -> None:
    if not os.environ.get("MILKIT_REAL_DATA"):
        pytest.skip("MILKIT_REAL_DATA is unset: no published labels here")
    path = Path(os.environ["MILKIT_REAL_DATA"]) / "aml_hehr_metadata" / "image_annotation_master.csv"
    published = pd.read_csv(path, dtype=str, keep_default_na=False)[column].value_counts()
    labels = LabelMap.load("aml_hehr", Taxonomy.load())
    assert sorted(set(published.index) - set(labels.nodes)) == []
    assert (
        published[[label for label in published.index if not labels.nodes[label]]].sum()
        == {
            "mll_annotation": 580 + 44,  # other, ambiguous
            "prediction": 268,  # other
        }[column]
    )


ROWS = (
    ",mll_annotation,prediction,ID,im_tiffname",
    "0,faggot cell,myeloblast,NAR,007.TIF",
    '1,"atypical promyelocyte, bilobed",other,NAR,011.TIF',
    "2,cup-like blast,other,ABF,000.TIF",
    "3,monocyte,monocyte,ABF,168.TIF",
)


def test_a_label_belongs_to_the_image_of_its_number(tmp_path: Path) -> None:
    root = write_collection(tmp_path)
    (root / "image_annotation_master.csv").write_text("\n".join(ROWS) + "\n")
    cohort = aml_hehr(root)
    types = cohort.cells.set_index("cell_id")["cell_type"].dropna().to_dict()
    bilobed = "atypical promyelocyte, bilobed"
    assert types == {"NAR/image_7": "faggot cell", "NAR/image_11": bilobed, "ABF/image_0": "cup-like blast"}
    (note,) = [note for note in cohort.notes if "image_annotation_master" in note]
    assert note == "1 labels of image_annotation_master.csv are of cells that are not there (ABF/image_168)."


def test_without_the_table_of_labels_cells_have_no_type(tmp_path: Path) -> None:
    assert "cell_type" not in aml_hehr(write_collection(tmp_path)).cells


def test_a_label_of_no_image_number_is_refused(tmp_path: Path) -> None:
    root = write_collection(tmp_path)
    (root / "image_annotation_master.csv").write_text(f"{ROWS[0]}\n0,monocyte,monocyte,ABF,cell.TIF\n")
    with pytest.raises(CohortError, match=r"holds cell.TIF, expected names such as 007.TIF; mend those rows"):
        aml_hehr(root)


def test_the_recipe_s_cells_that_matter_are_labels_of_the_cohort() -> None:
    recipe = load(ExplainSettings, find_recipe("explain", "aml_hehr"), {})
    assert set(recipe.relevant) < set(CLASSES)
    labels = LabelMap.load("aml_hehr", Taxonomy.load())
    assert {label for named in recipe.relevant.values() for label in named} <= set(labels.nodes)
