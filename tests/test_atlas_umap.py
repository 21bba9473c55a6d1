"""`milkit atlas` as a person uses it, with UMAP: seeded, and no held-out patient moves another point."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from atlas_toys import PATIENTS, make_run
from typer.testing import CliRunner

from milkit.atlas.embedding import embed_umap, place, standardise
from milkit.atlas.settings import MapSettings
from milkit.cli import app
from milkit.folds import Folds
from milkit.runs import Workspace, read_json
from milkit.tables import read_table

pytestmark = pytest.mark.slow  # numba compiles UMAP when it is first used: about 20 seconds


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MILKIT_WORKSPACE", raising=False)


def atlas(*arguments: object, status: int = 0) -> Any:
    result = CliRunner().invoke(app, ["atlas", *(str(argument) for argument in arguments)])
    assert result.exit_code == status, (result.exit_code, result.output, result.exception)
    return result


def islands(n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Two kinds of cells far apart, and which kind each is."""
    kinds = np.arange(n) % 2
    return np.random.default_rng(0).normal(size=(n, 8)) + 8 * kinds[:, None], kinds


def placed(features: np.ndarray, patients: list[str], seed: int = 0) -> np.ndarray:
    settings = MapSettings(neighbours=8, seed=seed)
    training = np.array([name.startswith("t") for name in patients])
    known = standardise(features, training)
    return place(known, training, patients, settings, embed=embed_umap, advance=lambda n=1: None)


def test_neighbours_stay_neighbours_also_for_patients_who_are_only_placed() -> None:
    features, kinds = islands(80)
    points = placed(features, ["t"] * 50 + ["h1"] * 15 + ["h2"] * 15)
    centres = np.stack([points[:50][kinds[:50] == kind].mean(axis=0) for kind in (0, 1)])
    nearest = np.linalg.norm(points[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == kinds).all()


def test_equal_seeds_give_equal_maps_and_other_seeds_others() -> None:
    features, _ = islands()
    patients = ["t"] * 45 + ["h"] * 15
    first = placed(features, patients)
    assert first.tobytes() == placed(features, patients).tobytes()
    assert first.tobytes() != placed(features, patients, seed=1).tobytes()


def test_a_held_out_patient_moves_neither_training_points_nor_another_held_out_patient() -> None:
    features, _ = islands()
    patients = ["t"] * 40 + ["h1"] * 10 + ["h2"] * 10
    changed = features.copy()
    changed[50:] = np.random.default_rng(1).normal(3, 2, (10, 8))
    before, after = placed(features, patients), placed(changed, patients)
    assert before[:50].tobytes() == after[:50].tobytes()
    assert (before[50:] != after[50:]).any()
    assert before[:50].tobytes() == placed(features[:50], patients[:50]).tobytes()


def test_a_patient_with_one_cell_can_be_placed() -> None:
    features, _ = islands(41)
    points = placed(features, ["t"] * 40 + ["h"])
    assert np.isfinite(points).all()


def test_a_changed_held_out_patient_leaves_the_training_points_of_a_run_as_they_are(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    split = next(iter(Folds.load(run / "folds.csv").splits()))
    make_run(tmp_path / "b", changed=split.test[0])
    for name in ("a", "b"):
        atlas("--run", tmp_path / name / "runs/first", "--set", "neighbours=6")
    tables = [read_table(tmp_path / name / "runs/first/atlas/atlas.csv") for name in ("a", "b")]
    digests = [
        [
            hashlib.sha256(table[table["role"] == role].to_csv(index=False).encode()).hexdigest()
            for role in ("train", "test")
        ]
        for table in tables
    ]
    assert digests[0][0] == digests[1][0]
    assert digests[0][1] != digests[1][1]


def test_the_newest_run_is_taken_and_the_atlas_lies_in_its_folder(tmp_path: Path) -> None:
    run = make_run(tmp_path / "milkit-work")
    Workspace(tmp_path / "milkit-work").make_current("run", run)
    result = atlas("--set", "neighbours=6", "--columns", "age, site")
    assert "run milkit-work/runs/first\n" in result.stderr
    assert result.stdout.splitlines()[-1] == "atlas milkit-work/runs/first/atlas/atlas.html"
    assert "UMAP was fitted on" in result.stdout
    assert sorted(path.name for path in (run / "atlas").iterdir()) == [
        "atlas.csv", "atlas.html", "atlas.json", "atlas.parquet", "settings.yaml",
    ]  # fmt: skip
    assert "Age" in read_json(run / "atlas" / "atlas.json")["colours"]
    assert "exists already and is not overwritten" in atlas("--set", "neighbours=6", status=2).stderr
    assert "whose split says who is training; leave it out." in atlas("--share", 0.5, status=2).stderr
    result = atlas("--config", run / "atlas" / "settings.yaml", "--name", "b", "--json")
    assert "run milkit-work" not in result.stderr  # the recipe names it
    again = json.loads(result.stdout)
    assert again["atlas"].endswith("runs/first/b/atlas.html")
    pd.testing.assert_frame_equal(read_table(run / "atlas/atlas.csv"), read_table(run / "b/atlas.csv"))


def test_a_store_without_a_run_has_its_atlas_in_the_workspace(tmp_path: Path) -> None:
    make_run(tmp_path)
    result = atlas("toy.zarr", "--share", 0.6, "--set", "neighbours=6", "--name", "mine", "--cells", 8)
    assert result.stdout.splitlines()[-1] == "atlas milkit-work/atlas/mine/atlas.html"
    facts = read_json(tmp_path / "milkit-work/atlas/mine/atlas.json")
    assert (facts["share"], facts["cells_each"]) == (0.6, 8)
    assert facts["n_patients"] == len(PATIENTS)


def test_the_command_line_starts_without_umap() -> None:
    code = "import sys, milkit.cli; print({'umap', 'numba', 'torch', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
