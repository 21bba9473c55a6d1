"""The three commands in a row, on a synthetic cohort whose decisive cells are known."""

from typing import Any, NamedTuple

import pandas as pd

from milkit.bags import BagStore
from milkit.cohort import load_cohort
from milkit.encoder import load_encoder
from milkit.explain import cell_weights, consensus_predictions
from milkit.explain.verb import explain_quickly
from milkit.extract import extract
from milkit.guidelines.write import write_guidelines
from milkit.mil.crossval import cross_validate
from milkit.predictions import Attention, Predictions
from milkit.progress import progress
from milkit.report.settings import ReportSettings
from milkit.report.write import write_report
from milkit.runs import Workspace
from milkit.settings import CohortRecipe, ExtractSettings, MilSettings
from milkit.statistics.ranking import Recovery, planted_cell_recovery


class Demo(NamedTuple):
    """What the demo found: the run's metrics, how well attention found the planted cells, and the report's path."""

    metrics: dict[str, Any]
    recovery: Recovery
    report: str


def run_demo(workspace: Workspace, *, seed: int = 0) -> Demo:
    """Draw the cohort, extract, cross-validate, explain, write the report, and compare attention with what was planted.

    The planted kinds of cells stand in ``planted.csv`` beside the cohort; only the last step reads them.
    """
    recipe = CohortRecipe(
        name="synthetic", factory="synthetic", root=workspace.root / "cohort", arguments={"seed": seed}
    )
    with progress("draw the cohort", 1, "cohorts") as advance:
        cohort = load_cohort(recipe)
        advance()
    settings = ExtractSettings(cohort=recipe)
    extraction = extract(cohort, load_encoder(settings.encoder), settings, workspace)
    mil = MilSettings(store=extraction.path, seed=seed)
    run = workspace.new_run("synthetic", settings.encoder.name, mil.head.name)
    metrics = cross_validate(BagStore.open(extraction.path), mil, run)
    workspace.make_current("run", run)
    explain_quickly(run, mil.device)
    few = ReportSettings(run=run, top=5, random=3, bottom=2)  # true pixels of 60 patients in one file under 25 MB
    report = write_report(run, few)
    write_guidelines(run)
    predictions = consensus_predictions(Predictions.load(run / "predictions.csv"))
    cells = cell_weights(Attention.load(run / "attention.parquet"), predictions["predicted"])
    planted = pd.read_csv(cohort.root / "planted.csv", dtype={"patient_id": str, "cell_id": str}, keep_default_na=False)
    merged = cells.merge(planted[["cell_id", "planted"]], on="cell_id", validate="one_to_one")
    return Demo(metrics, planted_cell_recovery(merged, seed=seed), str(report))
