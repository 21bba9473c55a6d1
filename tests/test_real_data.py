"""Real patients, from images to report, through a recipe. Needs MILKIT_REAL_DATA."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from aml_hehr_toys import write_images

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
    assert "110 tested patients" in (report / "report.html").read_text(encoding="utf-8")
    cells = pd.read_csv(report / "top_cells.csv")
    assert cells.groupby("patient_id").size().eq(6).all()
    root = Path(os.environ["MILKIT_REAL_DATA"]) / "lymphocytosis"
    assert all((root / path).is_file() for path in cells["path"])


def test_the_real_table_of_aml_hehr_is_extracted_and_split(tmp_path: Path) -> None:
    """All 189 published patients with three fake images each: the README's command, then five folds."""
    if not os.environ.get("MILKIT_REAL_DATA"):
        pytest.skip("MILKIT_REAL_DATA is unset: no published table here")
    published = Path(os.environ["MILKIT_REAL_DATA"]).resolve() / "aml_hehr_metadata" / "metadata_reconstructed.csv"
    table = pd.read_csv(published, dtype=str, keep_default_na=False)
    root = tmp_path / "PKG - AML-Cytomorphology_MLL_Helmholtz_v1"
    write_images(root / "data", {f"{row.bag_label}/{row.patient_id}": 3 for row in table.itertuples()})
    (root / "metadata.csv").write_bytes(published.read_bytes())
    milkit = [sys.executable, "-m", "milkit"]
    subprocess.run([*milkit, "extract", "--cohort", "aml_hehr", "--root", str(root)], cwd=tmp_path, check=True)
    subprocess.run(
        [*milkit, "train-mil", "--folds", "5", "--name", "run", "--set", "training.max_epochs=1"],
        cwd=tmp_path,
        check=True,
    )
    store = BagStore.open(next(tmp_path.glob("milkit-work/stores/aml_hehr/*.zarr")))
    assert (len(store), len(store.cells)) == (189, 567)
    assert list(store.patients.index) == sorted(table["patient_id"])
    folds = pd.read_csv(tmp_path / "milkit-work" / "runs" / "run" / "folds.csv", keep_default_na=False)
    assert sorted(folds.loc[folds["role"] == "test", "patient_id"]) == sorted(table["patient_id"])
