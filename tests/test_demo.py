"""The main job as `make demo` runs it: far above chance, the planted cells found, one page without a network."""

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("demo")
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "milkit", "demo", "--json"], cwd=folder, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout) | {"seconds": time.monotonic() - started, "folder": folder}


def test_it_takes_at_most_three_minutes(demo: dict[str, Any]) -> None:
    assert demo["seconds"] < 180


def test_balanced_accuracy_is_far_above_chance(demo: dict[str, Any]) -> None:
    """Chance is 0.2; the whole interval lies above three times that."""
    assert demo["metrics"]["balanced_accuracy"]["ci_low"] > 0.6


def test_attention_finds_the_planted_cells(demo: dict[str, Any]) -> None:
    recovery = demo["recovery"]
    assert recovery["n_patients"] >= 30
    assert recovery["mean_average_precision"] >= 2 * recovery["prevalence"]
    assert recovery["ci_low"] > 2 * recovery["random_average_precision"]


def test_the_report_is_one_page_under_25_mb_without_a_network_reference(demo: dict[str, Any]) -> None:
    page = demo["folder"] / demo["report"]
    assert page.stat().st_size < 25e6
    assert not (page.parent / "patients").exists()
    text = re.sub(r"data:image/webp;base64,[A-Za-z0-9+/=]+", "", page.read_text(encoding="utf-8"))
    assert not re.search(r"""(src|srcset|action)\s*=\s*["']?\s*(https?:|//)|url\(\s*["']?(https?:|//)|@import""", text)


def test_extraction_and_training_need_nothing_of_what_was_planted(demo: dict[str, Any]) -> None:
    """Without planted.csv, the same cohort gives the same store and the same predictions."""
    cohort: Path = demo["folder"] / "milkit-demo" / "cohort"
    milkit = [sys.executable, "-m", "milkit"]
    bare = demo["folder"] / "bare"
    shutil.copytree(cohort, bare)
    (bare / "planted.csv").unlink()
    extract = [*milkit, "extract", "--cohort", "aml_hehr", "--root", str(bare), "--encoder", "milkit-mini"]
    for command in (extract, [*milkit, "train-mil", "--folds", "5", "--name", "bare"]):
        subprocess.run(command, cwd=demo["folder"], check=True, capture_output=True)
    (first,) = (demo["folder"] / "milkit-demo" / "runs").glob("*/predictions.csv")
    assert first.read_bytes() == (demo["folder"] / "milkit-work" / "runs" / "bare" / "predictions.csv").read_bytes()


def test_the_demo_runs_again_in_the_same_workspace(demo: dict[str, Any]) -> None:
    again = subprocess.run(
        [sys.executable, "-m", "milkit", "demo", "--json"],
        cwd=demo["folder"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(again.stdout)["metrics"] == demo["metrics"]
