"""The experts' labels of AML Hehr's cells: every one that was published means something in the taxonomy."""

import os
from pathlib import Path

import pandas as pd
import pytest

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
