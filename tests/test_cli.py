"""The command line as a person uses it: what it prints, what it leaves on disk, and how it refuses."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from toys import make_store, toy_patients
from typer.testing import CliRunner

from milkit.bags import BagStore
from milkit.cli import app

COLUMNS = ["patient_id", "sex_1f_2m", "age", "bag_label", "instance_count", "leucocytes_per_µl", "pb_myeloblast"]
FAST = ["--set", "training.max_epochs=3", "--set", "bootstrap=100"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in a folder of its own, as a person who has just opened a terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MILKIT_WORKSPACE", raising=False)


@pytest.fixture
def collection(tmp_path: Path) -> Path:
    """Six patients of two classes with three cells each, as AML-Hehr is laid out; the classes differ in colour."""
    root, rows = tmp_path / "PKG", []
    for number, name in enumerate(["ABC", "DEF", "GHI", "JKL", "NAR", "XXX"]):
        label = ("PML_RARA", "control")[number % 2]
        folder = root / "data" / label / name
        folder.mkdir(parents=True)
        for cell in range(3):
            noise = np.random.default_rng([number, cell]).integers(0, 60, (144, 144, 3))
            image = noise + (np.array([150, 90, 160]) if number % 2 else np.array([90, 60, 140]))
            Image.fromarray(image.astype(np.uint8)).save(folder / f"image_{cell}.tif")
        rows.append((name, 1 + number % 2, "44,5", label, 3, "", 10))
    pd.DataFrame(rows, columns=COLUMNS).to_csv(root / "metadata.csv", index=False)
    return root


def _run(*arguments: object, status: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, (result.exit_code, result.output, result.exception)
    return result


def _extract(root: Path, status: int = 0) -> Any:
    return _run("extract", "--cohort", "aml_hehr", "--root", root, "--encoder", "classical", status=status)


def _refused(*arguments: object, sentence: str) -> None:
    """The command ends with status 2 and this sentence, and the workspace stays as it was, here: not even there."""
    import re

    result = _run(*arguments, status=2)
    assert result.stderr.startswith("milkit: "), result.stderr
    assert result.stderr.count("\n") == 1
    assert re.search(sentence, result.stderr), result.stderr
    assert not Path("milkit-work").exists()


def test_the_three_commands_chain_without_naming_anything(collection: Path) -> None:
    extracted = _extract(collection)
    assert "18 cells of 6 patients under classical" in extracted.stdout
    trained = _run("train-mil", "--folds", 3, *FAST)
    assert "bal. accuracy" in trained.stdout
    assert "95% CI" in trained.stdout
    reported = _run("report")
    page = Path(reported.stdout.split()[-1])
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (page.parent / "top_cells.csv").is_file()


def test_the_newest_store_and_run_are_taken_and_named(collection: Path) -> None:
    _extract(collection)
    trained = _run("train-mil", "--folds", 3, "--name", "first", *FAST)
    assert "store milkit-work" in trained.stderr.replace(os.sep, "/")
    assert "run milkit-work/runs/first" in _run("report").stderr.replace(os.sep, "/")


def test_results_can_be_read_by_a_script(collection: Path) -> None:
    _extract(collection)
    metrics = json.loads(_run("train-mil", "--folds", 3, "--json", *FAST).stdout)
    assert 0 <= metrics["balanced_accuracy"]["ci_low"] <= metrics["balanced_accuracy"]["ci_high"] <= 1


def test_the_recipe_s_encoder_falls_back_to_the_offline_default_and_says_so(
    collection: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(collection / "no-cache"))
    result = _run("extract", "--cohort", "aml_hehr", "--root", collection)
    assert "asks for the encoder 'dinobloom-s', whose weights are neither given (--weights) nor cached" in result.stderr
    assert "under milkit-mini" in result.stdout


def test_an_encoder_that_was_named_does_not_fall_back(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(collection / "no-cache"))
    _refused("extract", "--cohort", "aml_hehr", "--root", collection, "--encoder", "dinobloom-s", sentence=r"--weights")


def test_an_encoder_and_the_settings_of_its_arguments_go_together(collection: Path) -> None:
    random_network = ["--encoder", "timm:test_resnet", "--set", "encoder.pretrained=false"]
    done = _run("extract", "--cohort", "aml_hehr", "--root", collection, "--precision", "fp32", *random_network)
    assert "under timm-test_resnet-random" in done.stdout
    assert "encoded by torch-cpu in fp32" in done.stderr


def test_offline_an_encoder_that_is_not_cached_is_refused_at_once(collection: Path) -> None:
    started = time.monotonic()
    _refused(
        *("extract", "--cohort", "aml_hehr", "--root", collection, "--encoder", "dinov2-s", "--offline"),
        sentence=r"is not in the cache, and the network is forbidden \(--offline or HF_HUB_OFFLINE\); download",
    )
    assert time.monotonic() - started < 20


def test_settings_of_the_execution_that_contradict_the_store_are_refused(collection: Path) -> None:
    done = _run("extract", "--cohort", "aml_hehr", "--root", collection, "--encoder", "classical", "--batch-size", 4)
    assert "4 images a batch" in done.stderr
    again = ["extract", "--cohort", "aml_hehr", "--root", collection, "--encoder", "classical"]
    _run(*again)
    refused = _run(*again, "--batch-size", 8, status=2)
    assert "was made otherwise (batch_size: 4 there, 8 now)" in refused.stderr
    refused = _run(*again, "--precision", "bf16", status=2)
    assert "precision: fp32 there, bf16 now" in refused.stderr


def test_a_precision_that_an_encoder_does_not_know_is_refused(collection: Path) -> None:
    _refused(
        *("extract", "--cohort", "aml_hehr", "--root", collection, "--encoder", "classical", "--precision", "bf16"),
        sentence="--precision bf16 was given, and the encoder 'classical' knows fp32; use that",
    )


def test_list_and_cohort_show_say_what_there_is(collection: Path) -> None:
    listed = _run("list").stdout
    assert "encoders: classical, ctranspath, dinobloom-b" in listed
    assert "recipes in configs/cohorts: acevedo, aml_hehr" in listed
    shown = _run("cohort", "show", "aml_hehr", "--root", collection).stdout
    assert "6 patients, 18 cells" in shown
    assert "189" in shown


def test_cohort_check_finds_a_truncated_image_and_ends_with_status_3(collection: Path) -> None:
    _run("cohort", "check", "aml_hehr", "--root", collection)
    broken = collection / "data" / "control" / "JKL" / "image_1.tif"
    broken.write_bytes(broken.read_bytes()[:1000])
    result = _run("cohort", "check", "aml_hehr", "--root", collection, "--json", status=3)
    assert [f for f in json.loads(result.stdout) if f["level"] == "error"]


def test_a_plugin_s_encoder_is_used_by_name(collection: Path, tmp_path: Path) -> None:
    (tmp_path / "my_encoder.py").write_text(PLUGIN)
    try:
        result = _run(
            "--plugin", "my_encoder.py", "extract", "--cohort", "aml_hehr", "--root", collection,
            "--encoder", "mean-colour", "--set", "encoder.size=16",
        )  # fmt: skip
    finally:
        from milkit.registry import ENCODERS

        ENCODERS._registered.pop("mean-colour", None)
    assert "under mean-colour" in result.stdout


PLUGIN = '''
from torch import nn
from milkit.encoder import Encoder, Transform, encoder_digest
from milkit.registry import ENCODERS

@ENCODERS.register("mean-colour")
def mean_colour(size: int = 8) -> Encoder:
    """Three features."""
    model, transform = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), Transform(size=size)
    return Encoder("mean-colour", model, transform, 3, encoder_digest(model, transform, version="1"))
'''


# --- what is refused: one sentence, status 2, nothing half-written ---------------------------------------------


def test_a_missing_folder(tmp_path: Path) -> None:
    _refused("extract", "--cohort", "aml_hehr", "--root", tmp_path / "nowhere", sentence=r"nowhere .*6ppe-4020.*--root")
    _refused("extract", "--cohort", "aml_hehr", sentence=r"No folder was given for the cohort 'aml_hehr'.*6ppe-4020")


def test_an_empty_patient(collection: Path) -> None:
    for image in (collection / "data" / "PML_RARA" / "GHI").iterdir():
        image.unlink()
    _refused("extract", "--cohort", "aml_hehr", "--root", collection, sentence=r"patients have no cells: GHI")


def test_a_label_that_is_missing(collection: Path) -> None:
    table = pd.read_csv(collection / "metadata.csv", dtype=str, keep_default_na=False)
    table.loc[table["patient_id"] == "NAR", "bag_label"] = ""
    table.to_csv(collection / "metadata.csv", index=False)
    _refused("extract", "--cohort", "aml_hehr", "--root", collection, sentence=r"NAR")


def test_a_patient_in_two_classes(collection: Path) -> None:
    shutil.copytree(collection / "data" / "PML_RARA" / "ABC", collection / "data" / "control" / "ABC")
    _refused("extract", "--cohort", "aml_hehr", "--root", collection, sentence=r"several class folders: ABC")


@pytest.mark.parametrize(("content", "reason"), [(None, "cannot be decoded"), (b"a text", "is not an image")])
def test_a_truncated_tiff_and_a_text_file_are_listed_and_end_with_status_3(
    collection: Path, content: bytes | None, reason: str
) -> None:
    image = collection / "data" / "PML_RARA" / "NAR" / "image_2.tif"
    image.write_bytes(content if content is not None else image.read_bytes()[:20000])
    result = _extract(collection, status=3)
    assert "1 cells could not be read" in result.stderr
    store = BagStore.open(next(Path("milkit-work").glob("stores/*/*.zarr")))
    assert reason in store.failures["reason"].iloc[0]
    assert _run(
        "extract", "--cohort", "aml_hehr", "--root", collection, "--encoder", "classical", "--max-failures", 0.1
    )


def test_more_folds_than_the_smallest_class(collection: Path) -> None:
    _extract(collection)
    result = _run("train-mil", "--folds", 5, status=2)
    assert result.stderr.splitlines()[-1].startswith(
        "milkit: 5 folds were asked for and the smallest class, 'PML_RARA', has 3"
    )
    assert not Path("milkit-work/runs").exists()


def test_a_store_of_a_newer_format(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", toy_patients(3))
    metadata = store.path / "zarr.json"
    metadata.write_text(metadata.read_text().replace('"version": 1', '"version": 7'))
    _refused(
        "train-mil", "--store", store.path, sentence=r"format version 7, this milkit reads up to version 1; update"
    )


def test_a_misspelt_head_encoder_cohort_and_command(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", toy_patients(3))
    _refused(
        "train-mil", "--store", store.path, "--head", "abmli", sentence=r"No head is called 'abmli'. Did you mean 'ab"
    )
    _refused("extract", "--cohort", "aml_her", sentence=r"No cohort is called 'aml_her'. Did you mean 'aml_hehr'\?")
    assert "No such command 'trian-mil'" in _run("trian-mil", status=2).output


def test_a_misspelt_encoder(collection: Path) -> None:
    arguments = ("extract", "--cohort", "aml_hehr", "--root", collection, "--encoder", "classicl")
    _refused(*arguments, sentence=r"No encoder is called 'classicl'. Did you mean 'classical'\?")


def test_a_misspelt_yaml_key(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nfactroy: tabular\n")
    _refused(
        "extract", "--cohort", "mine.yaml", sentence=r"mine.yaml:2: factroy: there is no such setting; did you mean 'f"
    )


def test_a_misspelt_setting(tmp_path: Path) -> None:
    _refused(
        "train-mil", "--set", "training.epochs=3", sentence=r"command line: training.epochs: there is no such setting"
    )


def test_nothing_to_report_on() -> None:
    _refused("report", sentence=r"The workspace milkit-work holds no run; make one with `milkit train-mil`")


@pytest.mark.slow
def test_ctrl_c_leaves_a_store_that_a_rerun_completes(collection: Path) -> None:
    """Many cells in one process, interrupted as a person would; the rerun ends with the same bytes as a whole run."""
    for folder in (collection / "data").glob("*/*"):
        image = (folder / "image_0.tif").read_bytes()
        for number in range(3, 60):
            (folder / f"image_{number}.tif").write_bytes(image)
    command = [sys.executable, "-m", "milkit", "extract", "--cohort", "aml_hehr", "--root", str(collection)]
    command += ["--encoder", "classical"]
    running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (stores := list(Path("milkit-work").glob("stores/*/*.zarr"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "interrupted; run the same command again" in said
    assert BagStore(stores[0]).pending()
    subprocess.run(command, check=True)
    subprocess.run([*command[:3], "--workspace", "whole", *command[3:]], check=True)
    whole = next(Path("whole").glob("stores/*/*.zarr"))
    for name in ("features", "checksums", "committed", "image_sha256"):
        (one,), (other,) = ([p for p in (s / name / "c").rglob("0") if p.is_file()] for s in (stores[0], whole))
        assert one.read_bytes() == other.read_bytes()


def test_weights_without_an_encoder_are_refused(collection: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\nfactory: aml_hehr\n")
    arguments = ("extract", "--cohort", "mine.yaml", "--root", collection, "--weights", "nothing.pth")
    _refused(*arguments, sentence=r"--weights nothing.pth was given without an encoder to load it; name one")


def test_settings_of_the_cohort_can_be_set(collection: Path) -> None:
    arguments = ["--encoder", "classical", "--set", "cohort.name=other", "--set", f"cohort.root={collection}"]
    assert "stores/other/" in _run("extract", "--cohort", "aml_hehr", *arguments).stdout


def test_an_encoder_named_by_set_does_not_fall_back(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(collection / "no-cache"))
    arguments = ("extract", "--cohort", "aml_hehr", "--root", collection, "--set", "encoder=dinobloom-s")
    _refused(*arguments, sentence="--weights")


def test_an_existing_run_is_refused_before_training(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _extract(collection)
    _run("train-mil", "--folds", 3, "--name", "one", *FAST)
    monkeypatch.setattr("milkit.mil.crossval.train_head", lambda *_: pytest.fail("it was trained"))
    assert "one exists already" in _run("train-mil", "--folds", 3, "--name", "one", *FAST, status=2).stderr
    assert "The run name '../x' was given" in _run("train-mil", "--name", "../x", *FAST, status=2).stderr


def test_a_workspace_that_is_a_file_is_named(collection: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    arguments = ["--cohort", "aml_hehr", "--root", collection, "--encoder", "classical"]
    result = _run("--workspace", "taken", "extract", *arguments, status=2)
    assert "choose another --workspace" in result.stderr


def test_the_version_is_printed() -> None:
    assert _run("--version").stdout.startswith("milkit 0.")
