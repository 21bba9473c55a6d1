"""A differential of drawn cells, whose every kind is known: trained, explained and typed as a person would."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from milkit.bags import BagStore
from milkit.cohort import load_cohort
from milkit.composition.settings import DifferentialSettings
from milkit.composition.table import CellTypes
from milkit.composition.verb import compose
from milkit.encoder import load_encoder
from milkit.explain.settings import ExplainSettings
from milkit.explain.verb import explain
from milkit.extract import extract
from milkit.mil.crossval import cross_validate
from milkit.runs import Workspace
from milkit.settings import CohortRecipe, ExtractSettings, MilSettings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], "pd.Series[str]"]:
    """A run of which an expert labelled every second cell, its differential, and all cells' kinds."""
    root = tmp_path_factory.mktemp("differential")
    arguments = {"seed": 0, "patients_per_class": 12, "cells_per_patient": (40, 50)}
    recipe = CohortRecipe(name="synthetic", factory="synthetic", root=root / "cohort", arguments=arguments)
    settings = ExtractSettings(cohort=recipe)
    path = extract(load_cohort(recipe), load_encoder(settings.encoder), settings, Workspace(root / "work")).path
    planted = pd.read_csv(root / "cohort" / "planted.csv", dtype=str, keep_default_na=False)
    store = BagStore(path, writable=True)
    kinds = store.cells["cell_id"].map(planted.set_index("cell_id")["kind"])
    labelled = np.random.default_rng(0).random(len(kinds)) < 0.5
    store.replace_cells(store.cells.assign(cell_type=kinds.where(labelled)))
    store.close()
    run = root / "run"
    cross_validate(BagStore.open(path), MilSettings(store=path, controls=False, bootstrap=200), run)
    explain(run, ExplainSettings(methods=("attention", "single_cell"), bootstrap=200))
    return run, compose(run, DifferentialSettings(bootstrap=500, top=10)), kinds


def test_cells_without_a_label_get_the_kind_that_they_are(done: tuple[Path, dict[str, Any], "pd.Series[str]"]) -> None:
    run, told, kinds = done
    table = CellTypes.load(run / "cell_types.parquet").table
    others = ~table["out_of_fold"].to_numpy() & (table["cell_type"] != "unknown").to_numpy()
    right = (table["cell_type"] == kinds)[others].mean()
    figure = told["typing"]["accuracy"]
    assert right > 0.9
    assert figure["ci_low"] - 0.03 < right < figure["ci_high"] + 0.03


@pytest.mark.parametrize("ranking", ["attention", "single_cell"])
@pytest.mark.parametrize(("label", "kind"), [("CBFB_MYH11", "eosinophil_abnormal"), ("PML_RARA", "faggot_cell")])
def test_cells_that_tell_a_leukaemia_are_enriched_at_its_top(
    done: tuple[Path, dict[str, Any], "pd.Series[str]"], ranking: str, label: str, kind: str
) -> None:
    rows = {row["cell_type"]: row for row in done[1]["classes"][label]["enrichment"] if row["ranking"] == ranking}
    assert rows[kind]["enrichment_low"] > 2
    assert rows[kind]["p_adjusted"] < 0.05


def test_lymphocytes_do_not_lead_any_top(done: tuple[Path, dict[str, Any], "pd.Series[str]"]) -> None:
    for of_class in done[1]["classes"].values():
        for row in of_class["enrichment"]:
            if row["cell_type"] == "lymphocyte_typical":
                assert row["enrichment"] < 1 or row["p_adjusted"] > 0.05
