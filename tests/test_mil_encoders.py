"""Choosing among encoders: stores of one cohort, of which each training part takes the one that suits it."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from toys import CLASSES, make_store, toy_patients
from typer.testing import CliRunner

from milkit.audit.verb import audit_run
from milkit.bags import BagStore
from milkit.cli import app
from milkit.errors import RunError, SettingsError, StoreError, UnknownName
from milkit.explain.held_out import read_heads
from milkit.explain.settings import ExplainSettings
from milkit.explain.table import Explanations
from milkit.explain.verb import explain
from milkit.mil.candidate_stores import with_stores
from milkit.mil.crossval import cross_validate
from milkit.report.results import read_results
from milkit.report.summary import method, warnings
from milkit.runs import Workspace, read_json
from milkit.settings import MilSettings, load


def _noise(path: Path, patients: pd.DataFrame, dim: int = 4, **other: object) -> BagStore:
    """The cells of ``make_store`` under an encoder that sees nothing in them."""
    blind = patients.assign(label=np.roll(patients["label"].to_numpy(), 1))
    store = make_store(path, blind, dim=dim, encoder="blind", encoder_digest="b" * 64, **other)
    store.replace_patients(patients, CLASSES)
    writable, generator = BagStore(path, writable=True), np.random.default_rng(3)
    for name in patients.index:
        n = len(writable[name].features)
        digests = writable.image_digests()[writable.rows_of(name)]
        writable.write(name, generator.normal(size=(n, dim)).astype(np.float32), digests, {})
    writable.close()
    return BagStore.open(path)


def _settings(folder: Path, **other: Any) -> MilSettings:
    tune = {"encoder": [str(folder / "blind.zarr"), str(folder / "seeing.zarr")]}
    values: dict[str, Any] = {"folds": 3, "tune_folds": 3, "bootstrap": 100, "tune": tune, "head": "meanpool"}
    values["training"] = {"max_epochs": 6, "learning_rate": 0.03}
    return MilSettings.model_validate({**values, **other})


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stores ``seeing.zarr`` and ``blind.zarr`` of the same 18 patients."""
    folder = tmp_path_factory.mktemp("encoders")
    make_store(folder / "seeing.zarr", toy_patients())
    _noise(folder / "blind.zarr", toy_patients())
    return folder


@pytest.fixture(scope="module")
def finished(stores: Path) -> Path:
    """A run that chose between the two."""
    cross_validate(BagStore.open(stores / "blind.zarr"), _settings(stores), stores / "run")
    return stores / "run"


def test_every_fold_takes_the_encoder_that_sees_the_classes(finished: Path) -> None:
    record, metrics = read_json(finished / "tuning.json"), read_json(finished / "metrics.json")
    assert record["candidates"] == [{"encoder": "blind"}, {"encoder": "toy-encoder"}]
    assert [split["chosen"] for split in record["splits"]] == [1, 1, 1]
    assert metrics["tuning"]["n_configurations"] == 2
    assert metrics["tuning"]["chosen"] == [{"settings": {"encoder": "toy-encoder"}, "splits": 3}]
    for path in sorted((finished / "heads").glob("*.json")):
        facts = read_json(path)
        assert (facts["encoder_digest"], facts["in_dim"]) == ("e" * 64, 6)


def test_the_chosen_encoder_trains_as_if_its_store_had_been_given(finished: Path, stores: Path, tmp_path: Path) -> None:
    cross_validate(BagStore.open(stores / "seeing.zarr"), _settings(stores, tune={}), tmp_path / "run")
    for path in sorted((tmp_path / "run" / "heads").glob("*.safetensors")):
        assert path.read_bytes() == (finished / "heads" / path.name).read_bytes()


def test_the_settings_of_the_run_name_its_stores_and_the_provenance_its_encoders(finished: Path, stores: Path) -> None:
    kept = load(MilSettings, finished / "settings.yaml", {})
    assert kept.tune["encoder"] == tuple(str((stores / f"{name}.zarr").resolve()) for name in ("blind", "seeing"))
    told = read_json(finished / "provenance.json")["encoders"]
    assert [one["encoder"] for one in told] == ["blind", "toy-encoder"]
    assert str(stores) not in (finished / "tuning.json").read_text() + (finished / "provenance.json").read_text()


def test_controls_look_at_the_features_that_most_folds_chose(finished: Path) -> None:
    found = read_json(finished / "controls.json")
    pooled = next(control for control in found["controls"] if control["kind"] == "mean_pool")
    assert pooled["balanced_accuracy"]["estimate"] > 0.8
    assert (
        "The control on the mean of the cells' features is of the encoder toy-encoder, which most folds chose."
    ) in found["absent"]


def test_the_report_names_the_encoders_that_were_chosen(finished: Path, tmp_path: Path) -> None:
    assert read_results(finished).encoder == "toy-encoder"
    assert (
        "2 configurations were tried in each training part; chosen: encoder toy-encoder (3 of 3 splits)."
        in method(read_results(finished))[1]
    )
    shutil.copytree(finished, tmp_path / "run")
    metrics = read_json(finished / "metrics.json")
    metrics["tuning"]["chosen"] = [{"settings": {"encoder": name}, "splits": 1} for name in ("toy-encoder", "blind")]
    made = read_json(finished / "provenance.json")
    made["encoders"][0]["encoder_seen"] = ["toy"]
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "run" / "provenance.json").write_text(json.dumps(made))
    results = read_results(tmp_path / "run")
    assert results.encoder == "blind or toy-encoder"
    assert method(results)[0].startswith("The encoders blind and toy-encoder turned every cell into features, and each")
    assert warnings(results, 0, 0)[0].startswith("The encoder blind saw images of toy")


def test_folds_with_different_encoders_are_explained_by_their_own_features(
    stores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = iter([0, 1, 0, 1, 0, 1])
    monkeypatch.setattr("milkit.mil.tuning._best", lambda _: next(turns))
    run = tmp_path / "run"
    cross_validate(BagStore.open(stores / "blind.zarr"), _settings(stores, repeats=2, head="abmil"), run)
    held_out = read_heads(run, "cpu")
    assert {bags.dim for bags in held_out.bags.values()} == {4, 6}
    assert all(len(held_out.heads[model].mean) == bags.dim for model, bags in held_out.bags.items())
    explain(run, ExplainSettings(run=run, methods=("attention",)))
    assert set(Explanations.load(run / "explain.parquet").table["n_models"]) == {2}


def test_a_head_of_an_encoder_whose_store_is_gone_is_refused(finished: Path, stores: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / "heads" / "repeat0-fold1-seed0.json"
    path.write_text(path.read_text().replace("e" * 64, "f" * 64))
    sentence = r"learned from features of another encoder \(ffffffff\) than the run's stores hold; give the stores that"
    with pytest.raises(RunError, match=sentence):
        read_heads(tmp_path / "run", "cpu")


def test_the_audit_says_whose_features_it_looked_at(finished: Path) -> None:
    texts = [finding.text for finding in audit_run(finished, images=False)]
    assert (
        "Each fold chose among 2 encoders; copies of cells and confounders are looked for in the features of blind "
        "alone."
    ) in texts


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            "cells",
            r"hold different cells \(\d+ are in one of them only, P00/image_1\d, .*\), where encoders are compared",
        ),
        (
            "labels",
            r"hold different tables of patients, where encoders are compared on the same patients and cells; run",
        ),
        (
            "images",
            r"hold different images of the same cells, where encoders are compared on the same patients and cel",
        ),
        ("failed", r"hold different readable cells, where encoders are compared on the same patients and cells; run"),
    ],
)
def test_stores_of_other_patients_or_cells_are_refused(
    stores: Path, tmp_path: Path, change: str, sentence: str
) -> None:
    patients = toy_patients()
    other = _noise(tmp_path / "blind.zarr", patients, n_cells=12 if change == "cells" else 10)
    if change == "labels":
        other.replace_patients(patients.assign(label=patients["label"].to_numpy()[::-1]), CLASSES)
    if change in {"images", "failed"}:
        for path in (stores / "seeing.zarr",) if change == "images" else ():
            shutil.copytree(path, tmp_path / "seeing.zarr")
            _rewrite(tmp_path / "seeing.zarr", 1, {})
        failures = {"P00/image_3": "torn"} if change == "failed" else {}
        _rewrite(tmp_path / "blind.zarr", 2 if change == "images" else 0, failures)
    if not (tmp_path / "seeing.zarr").exists():
        shutil.copytree(stores / "seeing.zarr", tmp_path / "seeing.zarr")
    with pytest.raises(StoreError, match=sentence) as error:
        cross_validate(BagStore.open(tmp_path / "seeing.zarr"), _settings(tmp_path), tmp_path / "runs" / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def _rewrite(path: Path, digest: int, failures: dict[str, str]) -> None:
    """Give the first patient's images other digests, and let some of its cells fail."""
    store = BagStore(path, writable=True)
    features = store["P00"].features
    store.write("P00", features, np.full((len(features), 32), digest, dtype=np.uint8), failures)
    store.finish()
    store.close()


def test_two_stores_by_one_encoder_are_refused(stores: Path, tmp_path: Path) -> None:
    for name in ("blind", "seeing"):
        shutil.copytree(stores / "seeing.zarr", tmp_path / f"{name}.zarr")
    with pytest.raises(SettingsError, match=r"is by the encoder toy-encoder as another of them is, where candidates"):
        cross_validate(BagStore.open(tmp_path / "seeing.zarr"), _settings(tmp_path), tmp_path / "run")


def test_two_versions_of_an_encoder_are_told_apart_by_their_digests(stores: Path, tmp_path: Path) -> None:
    shutil.copytree(stores / "seeing.zarr", tmp_path / "seeing.zarr")
    make_store(tmp_path / "blind.zarr", toy_patients(), seed=1, encoder_digest="d" * 64)
    cross_validate(BagStore.open(tmp_path / "seeing.zarr"), _settings(tmp_path), tmp_path / "run")
    named = [one["encoder"] for one in read_json(tmp_path / "run" / "tuning.json")["candidates"]]
    assert named == ["toy-encoder-dddddddd", "toy-encoder-eeeeeeee"]


@pytest.fixture
def workspace(stores: Path, tmp_path: Path) -> Workspace:
    """One whose stores are named as `milkit extract` names them."""
    place = tmp_path / "work" / "stores" / "toy"
    shutil.copytree(stores / "seeing.zarr", place / "toy-encoder-eeeeeeee.zarr")
    shutil.copytree(stores / "blind.zarr", place / "blind-bbbbbbbb.zarr")
    found = Workspace(tmp_path / "work")
    found.make_current("store", place / "blind-bbbbbbbb.zarr")
    return found


def test_names_of_encoders_mean_the_stores_beside_the_current_one(workspace: Workspace) -> None:
    named = MilSettings.model_validate({"tune": {"encoder": ["toy-encoder", "blind"], "head": ["abmil", "hehr"]}})
    found = with_stores(named, [], workspace)
    paths = [path.rpartition("/")[2] for path in found.tune["encoder"]]
    assert paths == ["toy-encoder-eeeeeeee.zarr", "blind-bbbbbbbb.zarr"]
    assert str(found.store) == found.tune["encoder"][0]
    assert found.tune["head"] == ("abmil", "hehr")


def test_a_name_without_a_store_or_with_two_is_refused(workspace: Workspace) -> None:
    place = workspace.root / "stores" / "toy"
    for name, kind, sentence in (
        (
            "toy-encodr",
            UnknownName,
            r"^No encoder with a store in .* is called 'toy-encodr'\. Did you mean 'toy-encoder'",
        ),
        (
            "blind",
            SettingsError,
            r"^The encoder blind has 2 stores in .* \(blind-bbbbbbbb\.zarr, blind-cccccccc\.zarr\), exp",
        ),
    ):
        shutil.copytree(place / "blind-bbbbbbbb.zarr", place / "blind-cccccccc.zarr", dirs_exist_ok=True)
        named = MilSettings.model_validate({"tune": {"encoder": ["toy-encoder", name]}})
        with pytest.raises(kind, match=sentence):
            with_stores(named, [], workspace)


def test_several_stores_on_the_command_line_are_candidates_beside_those_of_tune(workspace: Workspace) -> None:
    place = workspace.root / "stores" / "toy"
    paths = [str(place / name) for name in ("toy-encoder-eeeeeeee.zarr", "blind-bbbbbbbb.zarr")]
    common = ["--workspace", str(workspace.root), "train-mil", "--store", paths[0], "--store", paths[1], "--folds", "3"]
    fast = ["training.max_epochs=1", "tune_folds=3", "bootstrap=100", "controls=false"]
    common += [part for one in fast for part in ("--set", one)]
    done = CliRunner().invoke(app, [*common, "--set", "tune.head=[meanpool, abmil]", "--name", "both"])
    assert done.exit_code == 0, done.output
    assert "4 configurations were tried in each training part; chosen: " in done.stdout
    kept = yaml.safe_load((workspace.root / "runs" / "both" / "settings.yaml").read_text())
    assert kept["tune"]["encoder"] == [str(Path(path).resolve()) for path in paths]
    done = CliRunner().invoke(app, [*common, "--set", "tune.encoder=[toy-encoder, blind]"])
    assert done.exit_code == 2
    assert done.stderr.strip().endswith(
        "2 stores were given, and tune names encoders to choose among; leave one of the two out."
    )


def test_the_name_of_a_run_that_chooses_its_encoder_says_so(workspace: Workspace) -> None:
    arguments = [
        "--workspace",
        str(workspace.root),
        "train-mil",
        "--folds",
        "3",
        "--set",
        "tune.encoder=[toy-encoder, blind]",
    ]
    for one in ("training.max_epochs=1", "tune_folds=3", "bootstrap=100", "controls=false"):
        arguments += ["--set", one]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    (run,) = (workspace.root / "runs").iterdir()
    assert run.name.startswith("toy-tuned-abmil-")
