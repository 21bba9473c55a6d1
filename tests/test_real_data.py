"""Real patients, from images to report, through a recipe. Needs MILKIT_REAL_DATA."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from milkit.bags import BagStore
from milkit.predictions import Predictions

pytestmark = [pytest.mark.slow, pytest.mark.real_data]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three commands on the lymphocytosis cohort, as in the README."""
    if not os.environ.get("MILKIT_REAL_DATA"):
        pytest.skip("MILKIT_REAL_DATA is unset: no real data here")
    folder = tmp_path_factory.mktemp("lymphocytosis")
    root = Path(os.environ["MILKIT_REAL_DATA"]).resolve() / "lymphocytosis"
    recipe = Path(__file__).parent.parent / "configs" / "cohorts" / "lymphocytosis.yaml"
    for command in (
        ["extract", "--cohort", str(recipe), "--root", str(root)],
        ["train-mil", "--folds", "5", "--name", "run"],
        ["report"],
    ):
        subprocess.run([sys.executable, "-m", "milkit", *command], cwd=folder, check=True)
    return folder / "milkit-work"


def test_bags_and_classes_are_right(workspace: Path) -> None:
    store = BagStore.open(next(workspace.glob("stores/lymphocytosis/*.zarr")))
    assert store.patients["label"].value_counts().to_dict() == {"malignant": 76, "reactive": 34}
    assert len(store.cells) == 3482
    assert store.failures.empty
    assert store.verify() == []
    assert store["P22"].features.shape == (32, store.dim)


def test_every_patient_is_predicted_once_and_better_than_by_chance(workspace: Path) -> None:
    predictions = Predictions.load(workspace / "runs" / "run" / "predictions.csv")
    assert predictions.table["patient_id"].is_unique
    assert len(predictions.table) == 110
    metrics = json.loads((workspace / "runs" / "run" / "metrics.json").read_text())
    assert metrics["balanced_accuracy"]["ci_low"] > 0.5


def test_the_report_s_top_cells_are_images_of_the_cohort(workspace: Path) -> None:
    report = workspace / "runs" / "run" / "report"
    assert "110" in (report / "report.html").read_text(encoding="utf-8")
    cells = pd.read_csv(report / "top_cells.csv")
    assert cells.groupby("patient_id").size().eq(6).all()
    root = Path(os.environ["MILKIT_REAL_DATA"]) / "lymphocytosis"
    assert all((root / path).is_file() for path in cells["path"])
