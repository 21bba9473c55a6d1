"""The evaluation of the encoder that ships: its statistics against their formulas, and a run on drawn images."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from cohort_fakes import picture
from safetensors.torch import save_file

from encoders.dinov2.networks import new_backbone
from encoders.dinov2.pretrain_settings import Network

FOLDER = Path(__file__).parent.parent / "benchmarks"
PREFIXES = "BA EO ERB LY MO PLATELET BNE SNE MMY MY PMY".split()  # noqa: SIM905
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the benchmarks are not installed with the package")


@pytest.fixture(scope="module")
def paired() -> ModuleType:
    spec = importlib.util.spec_from_file_location("paired", FOLDER / "paired.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_student_s_interval_is_that_of_the_mean_or_with_a_larger_variance(paired: ModuleType) -> None:
    gaps = np.array([0.02, 0.05, -0.01, 0.03, 0.06])
    plain = paired.students_interval(gaps, 1 / 5)
    half = 2.7764451 * np.std(gaps, ddof=1) / np.sqrt(5)  # the table's value of t for 4 degrees of freedom
    assert plain["estimate"] == pytest.approx(0.03)
    assert (plain["ci_low"], plain["ci_high"]) == pytest.approx((0.03 - half, 0.03 + half))
    corrected = paired.students_interval(gaps, 1 / 5 + 1 / 3)
    assert corrected["ci_high"] - 0.03 == pytest.approx(half * np.sqrt((1 / 5 + 1 / 3) * 5))
    assert paired.students_interval(gaps[:1], 1.0)["ci_low"] is None


def test_resamples_draw_groups_as_a_whole_and_keep_the_sizes_of_the_classes(paired: ModuleType) -> None:
    labels, groups = np.array([0, 0, 0, 0, 1, 1, 1]), np.array([5, 5, 2, 3, 7, 8, 9])
    weights = paired.resamples(labels, groups, 200)
    assert (weights[0] == 1).all()
    assert (weights[:, 0] == weights[:, 1]).all()
    assert set(weights[1:, 4:].sum(axis=1)) == {3}
    assert set(weights[1:, 1:4].sum(axis=1)) == {3}  # three groups of the first class, whichever they are
    assert len(np.unique(weights, axis=0)) > 50


def test_differences_are_paired(paired: ModuleType) -> None:
    """Two encoders that are wrong on the same cells but one differ surely, though each figure is uncertain."""
    labels = np.zeros(200, dtype=np.int64)
    weights = paired.resamples(labels, np.arange(200), 500)
    right = np.arange(200) < 100
    more = right | (np.arange(200) < 120)
    scores = [paired.Scores(weights @ own / 200) for own in (more, right)]
    gap = scores[0].less(scores[1])
    assert gap["estimate"] == pytest.approx(0.1)
    assert 0.05 < gap["ci_low"] < 0.1 < gap["ci_high"] < 0.15
    assert scores[0].figure()["ci_low"] < scores[1].figure()["ci_high"]


def test_trainings_of_a_kind_are_compared_by_their_means_and_over_their_seeds(paired: ModuleType) -> None:
    values = {"tree/1": 0.7, "tree/0": 0.9, "ssl/0": 0.6, "ssl/1": 0.5, "classical": 0.4}
    scores = paired.with_kinds({name: paired.Scores(np.full(3, value)) for name, value in values.items()})
    assert paired.pairs(list(values)) == [("tree, mean of 2", "ssl, mean of 2"), ("tree, mean of 2", "classical")]
    gap = scores["tree, mean of 2"].less(scores["ssl, mean of 2"])
    assert gap["estimate"] == pytest.approx(0.25)
    # The trainings of seed 0 differ by 0.3, those of seed 1 by 0.2.
    half = 12.7062047 * np.std([0.3, 0.2], ddof=1) / np.sqrt(2)
    assert gap["over_seeds"]["ci_high"] == pytest.approx(0.25 + half)
    assert "over_seeds" not in scores["tree, mean of 2"].less(scores["classical"])


@pytest.mark.slow
def test_the_evaluation_prints_its_tables_and_writes_its_figures(tmp_path: Path) -> None:
    for number in range(15 * len(PREFIXES)):
        path = tmp_path / "acevedo" / f"{PREFIXES[number % len(PREFIXES)]}_{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture("JPEG", size=(30, 30), seed=number))
    trained = tmp_path / "lymphocytosis" / "trainset"
    for patient in range(12):
        (trained / f"P{patient}").mkdir(parents=True)
        for cell in range(2):
            (trained / f"P{patient}" / f"{cell}.jpg").write_bytes(picture("JPEG", size=(30, 30), seed=patient + cell))
    rows = [f"P{patient},{patient % 2},F,5/15/1942,3" for patient in range(12)]
    (trained / "trainset_true.csv").write_text("\n".join(["ID,LABEL,GENDER,DOB,LYMPH_COUNT", *rows]) + "\n")
    network = Network.model_validate({"dim": 64, "depth": 1, "heads": 1, "image_size": 28, "layer_scale": 1.0})
    for seed in range(2):
        torch.manual_seed(seed)
        save_file(new_backbone(network).state_dict(), tmp_path / f"{seed}.safetensors")
    encoders = [f"net/{seed}={tmp_path}/{seed}.safetensors" for seed in range(2)] + ["classical", "untrained=7"]
    command = [sys.executable, FOLDER / "quality.py", "--acevedo", tmp_path / "acevedo", "--lymphocytosis"]
    command += [tmp_path / "lymphocytosis", "--encoders", *encoders, "--json", tmp_path / "found.json"]
    command += ["--repeats", "2", "--folds", "3", "--bootstrap", "100", "--device", "cpu"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for row in ("net/0 ", "net, mean of 2 ", "classical ", "untrained ", "net, mean of 2 - untrained "):
        assert f"\n{row}" in done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    blood, lymphocytes = found["acevedo"], found["lymphocytosis"]
    assert blood["tested"] + blood["neighbours"] < 15 * len(PREFIXES)  # the others are for validation
    ways = blood["metrics"]["balanced accuracy"]["figures"]
    assert list(ways) == ["20-NN", "20-NN, standardised", "1-NN", "linear, standardised"]
    assert 0 <= ways["20-NN"]["classical"]["estimate"] <= 1
    assert len({encoder["digest"] for encoder in found["encoders"].values()}) == 4
    assert [len(own) for own in lymphocytes["repeats"]["AUROC"].values()] == [2, 2, 2, 2]
    pooled = lymphocytes["metrics"]["AUROC"]["figures"]["of all patients"]["classical"]["estimate"]
    assert np.mean(lymphocytes["repeats"]["AUROC"]["classical"]) == pytest.approx(pooled)
    assert set(lymphocytes["corrected"]["AUROC"]) == {"net, mean of 2 - classical", "net, mean of 2 - untrained"}
