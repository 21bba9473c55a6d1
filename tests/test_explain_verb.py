"""`milkit explain`: what it writes, that held-out heads alone are asked, and that planted cells are found."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from toys import made_of, make_store, toy_patients
from typer.testing import CliRunner

from milkit.bags import BagStore
from milkit.cli import app
from milkit.errors import RunError
from milkit.explain import cell_weights, consensus_predictions
from milkit.explain.agreement import Model
from milkit.explain.attribution import METHODS
from milkit.explain.held_out import read_head, read_heads
from milkit.explain.parts import Bagged
from milkit.explain.settings import ExplainSettings
from milkit.explain.table import Explanations
from milkit.explain.verb import explain, explain_quickly
from milkit.explain.verdicts import Verdicts
from milkit.folds import Folds
from milkit.mil.crossval import cross_validate
from milkit.predictions import Attention, Predictions
from milkit.settings import MilSettings, load
from milkit.tables import digest


def planted_store(path: Path) -> BagStore:
    """24 patients, 40 cells of four kinds well apart; the fourth kind, a fifth of the cells, is in ``sick`` alone."""
    generator = np.random.default_rng(0)
    ids = [f"P{number:02d}" for number in range(24)]
    labels = ["sick" if number % 2 else "well" for number in range(24)]
    patients = pd.DataFrame({"label": labels}, index=pd.Index(ids, name="patient_id"))
    cells = pd.DataFrame(
        [(f"{name}/{n}", name, f"{name}/{n}.png") for name in ids for n in range(40)],
        columns=["cell_id", "patient_id", "path"],
    )
    facts = made_of(cohort_digest=digest(cells), classes=["sick", "well"])
    store = BagStore.create(path, patients, cells, 12, facts)
    centres = 3.0 * np.eye(4, 12)
    for name, label in zip(ids, labels, strict=True):
        kinds = generator.integers(0, 3, size=40)
        if label == "sick":
            kinds[generator.permutation(40)[:8]] = 3
        features = (centres[kinds] + 0.25 * generator.normal(size=(40, 12))).astype(np.float32)
        store.write(name, features, np.zeros((40, 32), dtype=np.uint8), {})
        chosen = cells["patient_id"] == name
        cells.loc[chosen, "planted"] = (kinds == 3).astype(int)
    store.close()
    cells.loc[cells["patient_id"].map(patients["label"]) == "sick", ["cell_id", "planted"]].to_csv(
        path.parent / "planted.csv", index=False
    )
    return BagStore.open(path)


def train(store: BagStore, run: Path, **other: Any) -> Path:
    """A run with two repeats and two seeds of three folds."""
    values: dict[str, Any] = {"folds": 3, "repeats": 2, "seeds": 2, "bootstrap": 100, "controls": False}
    values["head"] = {"name": "abmil", "hidden_dim": 32, "attention_dim": 16}
    values["training"] = {"max_epochs": 15, "learning_rate": 0.01}
    cross_validate(store, MilSettings.model_validate(values | other), run)
    return run


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over planted cells, explained by every method."""
    root = tmp_path_factory.mktemp("planted")
    run = train(planted_store(root / "planted.zarr"), root / "run")
    settings = {"known": root / "planted.csv", "bootstrap": 200, "precision_at": (5,), "top": 8}
    explain(run, ExplainSettings.model_validate(settings))
    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy")
    store = make_store(root / "toy.zarr", toy_patients())
    return train(store, root / "run", repeats=1, seeds=1, training={"max_epochs": 2, "learning_rate": 0.01})


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run of one model a patient, which the test may change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


QUICK = ExplainSettings(methods=("attention",), bootstrap=100)


def _told(run: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((run / "faithfulness.json").read_text())
    return told


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_kind_of_cell_that_decides(planted: Path, method: str) -> None:
    found = _told(planted)["methods"][method]["known_cells"]
    assert found["n_patients"] == 12
    assert found["average_precision"]["estimate"] > 0.8
    assert found["average_precision"]["ci_low"] > found["average_precision_random"]
    assert found["enrichment"]["5"]["ci_low"] > 1


@pytest.mark.parametrize("method", ["leave_one_out", "integrated_gradients", "single_cell"])
def test_signed_rankings_of_a_trained_head_are_faithful(planted: Path, method: str) -> None:
    assert _told(planted)["methods"][method]["faithful"] is True


def test_a_shuffled_ranking_is_marked_not_faithful(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in planted.glob("*.*")}
    generator = torch.Generator().manual_seed(0)

    def shuffled(bag: Any, method: str, *, steps: int) -> torch.Tensor:
        del method, steps
        return torch.rand(2, bag.n_cells, generator=generator)

    monkeypatch.setattr("milkit.explain.verb.attribute", shuffled)
    told = explain(planted, ExplainSettings(methods=("single_cell",), bootstrap=200))
    for name, content in before.items():
        (planted / name).write_bytes(content)
    assert told["methods"]["single_cell"]["faithful"] is False
    assert np.mean([row["faithful"] for row in told["patients"]]) < 0.3


def test_the_table_has_a_row_a_cell_class_and_method(planted: Path) -> None:
    table = Explanations.load(planted / "explain.parquet").table
    counts = table.groupby(["method", "class"]).size().to_dict()
    signed = {(method, name): 24 * 40 for method in METHODS[1:] for name in ("sick", "well")}
    assert counts == signed | {("attention", "*"): 24 * 40}
    assert set(table["n_models"]) == {4}
    assert table["in_top"].between(0, 4).all()
    assert (table.groupby(["patient_id", "method", "class"])["rank"].agg(sorted).map(len) == 40).all()


def test_attention_is_that_of_the_run(planted: Path) -> None:
    table = Explanations.load(planted / "explain.parquet").table.query("method == 'attention'")
    predictions = consensus_predictions(Predictions.load(planted / "predictions.csv"))
    run_s = cell_weights(Attention.load(planted / "attention.parquet"), predictions["predicted"])
    merged = table.merge(run_s, on=["patient_id", "cell_id"], validate="one_to_one")
    np.testing.assert_allclose(merged["score"], merged["weight"], atol=1e-6)


def test_heads_that_saw_a_patient_are_not_asked(planted: Path) -> None:
    held_out = read_heads(planted, "cpu")
    folds = Folds.load(planted / "folds.csv").table.set_index(["patient_id", "repeat", "fold"])["role"]
    asked = [(name, *model[:2]) for name, models in held_out.tested_by.items() for model in models]
    assert len(asked) == 24 * 2 * 2
    assert set(folds.loc[asked]) == {"test"}


def test_a_read_head_says_what_it_said_when_it_was_trained(planted: Path) -> None:
    held_out = read_heads(planted, "cpu")
    logits = [bag.whole() for bag in held_out.bagged("P03")]
    table = Predictions.load(planted / "predictions.csv").table.query("patient_id == 'P03'").sort_values("repeat")
    seeds = torch.softmax(torch.stack(logits), dim=1).reshape(2, 2, 2).mean(dim=1)
    np.testing.assert_allclose(seeds, table[["p_sick", "p_well"]], atol=1e-5)


def test_faithfulness_says_how_far_models_agree(planted: Path) -> None:
    told = _told(planted)
    assert told["n_models"] == [4, 4]
    agreement = told["methods"]["single_cell"]["agreement"]
    for kind in ("seeds", "repeats"):
        assert agreement[kind]["n_patients"] == 24
        assert agreement[kind]["jaccard_chance"]["estimate"] == pytest.approx(0.116, abs=0.01)  # 8 of 40
        assert agreement[kind]["jaccard"]["ci_low"] > 0.2
        assert agreement[kind]["rank_correlation"]["ci_low"] > 0.2


def test_the_report_can_read_the_verdicts(planted: Path) -> None:
    verdicts = Verdicts.load(planted)
    assert verdicts is not None
    assert verdicts.faithful("single_cell") is True
    assert set(verdicts.of_patients("single_cell")) == {f"P{number:02d}" for number in range(24)}
    assert np.mean(list(verdicts.of_patients("single_cell").values())) > 0.8


def test_integrated_gradients_are_complete(planted: Path) -> None:
    assert _told(planted)["methods"]["integrated_gradients"]["completeness_gap"] < 0.05


def test_the_same_seed_gives_the_same_files(planted: Path) -> None:
    settings = ExplainSettings(methods=("attention", "leave_one_out"), bootstrap=100)
    before = {name: (planted / name).read_bytes() for name in ("explain.parquet", "faithfulness.json")}
    one, two = (explain(planted, settings) for _ in range(2))
    for name, content in before.items():
        (planted / name).write_bytes(content)
    assert {**one, "created": ""} == {**two, "created": ""}


def test_one_model_a_patient_has_no_agreement(run: Path) -> None:
    told = explain(run, QUICK)
    assert told["methods"]["attention"]["agreement"] == {"seeds": None, "repeats": None}
    assert "known_cells" not in told["methods"]["attention"]


def test_class_wise_attention_and_mean_pooling_are_explained(toy_store: BagStore, tmp_path: Path) -> None:
    brief = {"repeats": 1, "seeds": 1, "training": {"max_epochs": 2}}
    class_wise = train(toy_store, tmp_path / "a", head={"name": "abmil", "class_wise": True}, **brief)
    explain(class_wise, QUICK)
    assert set(Explanations.load(class_wise / "explain.parquet").table["class"]) == {"NPM1", "PML_RARA", "control"}
    mean = train(toy_store, tmp_path / "b", head={"name": "meanpool"}, **brief)
    assert explain(mean, QUICK)["methods"]["attention"]["faithful"] is False


def test_the_quick_form_explains_by_attention_alone(run: Path) -> None:
    assert explain_quickly(run, "cpu") == ""
    assert list(_told(run)["methods"]) == ["attention"]
    assert set(Explanations.load(run / "explain.parquet").table["method"]) == {"attention"}


def test_a_head_that_cannot_be_taken_apart_is_left_to_who_asks(toy_store: BagStore, tmp_path: Path) -> None:
    run = train(toy_store, tmp_path / "run", head={"name": "dsmil"}, repeats=1, seeds=1, training={"max_epochs": 1})
    assert explain_quickly(run, "cpu") == (
        "Whether the models go by the cells that they weigh most was not tested, which takes long for a head like "
        "Dsmil: `milkit explain --methods attention` does it."
    )
    assert not (run / "faithfulness.json").exists()


def test_a_run_that_cannot_be_read_is_not_explained_quickly(tmp_path: Path) -> None:
    store = make_store(tmp_path / "toy.zarr", toy_patients())
    run = train(store, tmp_path / "run", repeats=1, seeds=1, training={"max_epochs": 1})
    (run / "predictions.csv").unlink()
    said = explain_quickly(run, "cpu")
    assert re.match(r"Whether .* was not tested: .*predictions.csv is missing; the folder is not a finished run", said)


@pytest.mark.parametrize(("head", "told"), [("abmil", True), ("dsmil", False)])
def test_training_ends_with_the_quick_form_or_says_why_not(
    head: str, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = make_store(tmp_path / "toy.zarr", toy_patients())
    few = ["--set", "training.max_epochs=1", "--set", "bootstrap=100", "--set", "controls=false"]
    arguments = ["train-mil", "--store", str(store.path), "--folds", "3", "--head", head, "--name", "run", *few]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "milkit-work" / "runs" / "run" / "faithfulness.json").is_file() == told
    assert ("was not tested" in done.stderr) != told


def test_a_newer_or_another_table_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match=r"explain.parquet is missing; make it with `milkit explain .*run`"):
        Explanations.load(run / "explain.parquet")
    monkeypatch.setattr("milkit.explain.table.VERSION", 2)
    explain(run, QUICK)
    monkeypatch.undo()
    with pytest.raises(RunError, match=r"holds milkit-explain, version 2, expected milkit-explain, version 1 or lower"):
        Explanations.load(run / "explain.parquet")
    with pytest.raises(RunError, match=r"holds no format, version unknown, expected milkit-explain, version 1"):
        Explanations.load(run / "attention.parquet")
    (run / "explain.parquet").write_text("no table")
    with pytest.raises(RunError, match=r"is not a Parquet file, where milkit had written one; run `milkit explain"):
        Explanations.load(run / "explain.parquet")


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        RunError, match=r"is no finished run \(settings.yaml is missing\); make one with `milkit train-mil`"
    ):
        explain(tmp_path, QUICK)


def test_a_missing_head_is_refused(run: Path) -> None:
    (run / "heads" / "repeat0-fold1-seed0.safetensors").unlink()
    with pytest.raises(RunError, match=r"repeat0-fold1-seed0.safetensors cannot be read \(FileNotFoundError\)"):
        explain(run, QUICK)
    assert not (run / "explain.parquet").exists()


def test_a_damaged_head_is_refused(run: Path) -> None:
    (run / "heads" / "repeat0-fold1-seed0.safetensors").write_bytes(b"no tensors")
    with pytest.raises(RunError, match=r"cannot be read \(SafetensorError\); it is missing, damaged or of another"):
        read_head(run / "heads" / "repeat0-fold1-seed0")


@pytest.mark.parametrize("name", ["abmil", "meanpool"])
def test_covariates_stay_the_patient_s_own(name: str, tmp_path: Path) -> None:
    store = make_store(tmp_path / "toy.zarr", toy_patients())
    brief = {"repeats": 1, "seeds": 1, "training": {"max_epochs": 2}, "covariates": ("age",), "head": {"name": name}}
    run = train(store, tmp_path / "run", **brief)
    assert explain(run, ExplainSettings(bootstrap=100, steps=4))["n_patients"] == 18
    held_out = read_heads(run, "cpu")
    table = Predictions.load(run / "predictions.csv").table.set_index("patient_id")
    for patient_id in ("P00", "P07"):
        (bag,) = held_out.bagged(patient_id)
        expected = table.loc[patient_id, [f"p_{label}" for label in held_out.classes]].to_numpy(dtype=float)
        np.testing.assert_allclose(torch.softmax(bag.whole(), dim=0), expected, atol=1e-5)
        plain = Bagged(bag.model, bag.features, bag.covariates, fast=False)
        torch.testing.assert_close(bag.leave_one_out(), plain.leave_one_out(), atol=1e-5, rtol=1e-5)


def test_a_head_without_the_statistics_of_its_covariates_is_refused(run: Path) -> None:
    path = run / "heads" / "repeat0-fold0-seed0.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "n_covariates": 2}))
    with pytest.raises(RunError, match=r"repeat0-fold0-seed0.safetensors cannot be read \(KeyError\); it is missing"):
        explain(run, QUICK)


def test_a_store_that_changed_is_refused(run: Path, tmp_path: Path) -> None:
    settings = (run / "settings.yaml").read_text()
    other = make_store(tmp_path / "other.zarr", toy_patients(), encoder_digest="f" * 64)
    before = str(load(MilSettings, run / "settings.yaml", {}).store)
    (run / "settings.yaml").write_text(settings.replace(before, str(other.path)))
    with pytest.raises(
        RunError, match=r"has another encoder_digest than when the run was made, so its encoder changed"
    ):
        explain(run, QUICK)


def test_the_heads_are_named_by_repeat_fold_and_seed(planted: Path) -> None:
    assert set(read_heads(planted, "cpu").heads) == {Model(r, f, s) for r in (0, 1) for f in (0, 1, 2) for s in (0, 1)}


def test_the_command_says_what_can_be_believed(run: Path) -> None:
    done = CliRunner().invoke(
        app, ["explain", str(run), "--methods", "attention,single_cell", "--set", "bootstrap=100"]
    )
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0] == "patients 18, each explained by 1 held-out model"
    assert [line.split()[0] for line in lines[1:3]] == ["attention", "single_cell"]
    assert all("faithful" in line and "of 20 random rankings" in line for line in lines[1:3])
    assert (run / "explain.parquet").is_file()


def test_the_command_prints_json(run: Path) -> None:
    arguments = ["explain", str(run), "--methods", "attention", "--set", "bootstrap=100", "--json"]
    printed = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert printed.pop("run") == str(run)
    assert printed == _told(run)


def test_the_command_takes_the_current_run_and_says_so(run: Path, tmp_path: Path) -> None:
    (tmp_path / "work" / "runs").mkdir(parents=True)
    run.rename(tmp_path / "work" / "runs" / "only")
    arguments = ["--workspace", str(tmp_path / "work"), "explain", "--methods", "attention", "--set", "bootstrap=100"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert f"run {tmp_path / 'work' / 'runs' / 'only'}" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--methods", "attention,magic"], "methods.1: Input should be 'attention', 'leave_one_out',"),
        (["--methods", ""], "methods: Tuple should have at least 1 item"),
        (["--set", "random_rankings=5"], "random_rankings: Input should be greater than or equal to 19"),
        (["--known", "none.csv"], "The table none.csv does not exist; give --known a CSV file with cell_id"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(run: Path, arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["explain", str(run), *arguments])
    assert done.exit_code == 2
    assert message in done.stderr
