"""Training and cross-validation on survival, numbers and several targets at once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from toys import CLASSES, followed_patients, make_store
from typer.testing import CliRunner

from milkit.bags import BagStore
from milkit.cli import app
from milkit.compare import compare_runs
from milkit.errors import FoldError, RunError, SettingsError
from milkit.explain.held_out import read_heads
from milkit.folds import Folds
from milkit.mil.batches import Bags
from milkit.mil.crossval import cross_validate
from milkit.mil.heads import build_head
from milkit.mil.pace import Pace
from milkit.mil.target_training import TargetTraining, train_on_targets
from milkit.mil.train import Examples, Standardised
from milkit.predictions import Attention
from milkit.report.results import read_results
from milkit.settings import Component, MilSettings, TrainingSettings, load
from milkit.survival.outcome import read_outcome
from milkit.tables import read_table
from milkit.target_choice import choose_targets
from milkit.targets import Fitted

ALL = ("survival", "discrete-survival", "regression:age", "label")
ABMIL = Component(name="abmil")


def _patients() -> pd.DataFrame:
    """Thirty patients, of one of whom the age is not known."""
    patients = followed_patients(10, cycle=5)
    patients.loc["P05", "age"] = np.nan
    return patients


@pytest.fixture
def store(tmp_path: Path) -> BagStore:
    return make_store(tmp_path / "toy.zarr", _patients())


def _settings(*targets: object, epochs: int = 2, **other: Any) -> MilSettings:
    values: dict[str, Any] = {"folds": 3, "bootstrap": 100, "target": list(targets)}
    values["training"] = {"max_epochs": epochs, "learning_rate": 0.01}
    return MilSettings.model_validate(values | other)


def _examples(bags: Bags, store: BagStore, fitted_to: list[int], names: tuple[str, ...] = ALL) -> tuple[Any, Fitted]:
    targets = choose_targets(_settings(*names), store.patients, CLASSES)
    outcomes = [target.outcomes(store.patients) for target in targets]
    examples = Examples(list(range(30)), [], None, tuple(torch.tensor(values) for values in outcomes))
    return examples, Fitted(targets, [values[fitted_to] for values in outcomes])


@pytest.mark.parametrize("rows", [1, 60, 2**20])
@pytest.mark.parametrize("head", ["abmil", "maxpool"])
def test_gradients_of_a_step_are_those_of_all_its_patients_in_one_pass(store: BagStore, head: str, rows: int) -> None:
    bags = Bags.load(store, torch.device("cpu"))
    examples, fitted = _examples(bags, store, list(range(20)))
    torch.manual_seed(0)
    built = build_head(Component(name=head), bags.dim, fitted.slices[-1].stop, 0)
    model = Standardised(built, torch.zeros(bags.dim), torch.ones(bags.dim)).train()
    part = list(range(2, 25))
    widest = max(len(p) for p in built.parameters() if p.dim() == 2)
    training = TargetTraining(model, bags, torch.ones(0), Pace(torch.float32, rows * widest, 1), fitted=fitted)
    found = training.gradients(examples, part)
    own = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    loss = fitted.loss(model(*bags.batch(part)).logits, [values[part] for values in examples.outcomes])
    loss.backward()
    assert found == pytest.approx(float(loss.detach()), rel=1e-5)
    for gradient, parameter in zip(own, model.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-5, atol=1e-5)


def test_dropout_is_the_same_in_both_passes_of_a_step(store: BagStore) -> None:
    bags = Bags.load(store, torch.device("cpu"))
    examples, fitted = _examples(bags, store, list(range(20)))

    class Noisy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(bags.dim, fitted.slices[-1].stop)
            self.seen: list[torch.Tensor] = []

        def forward(self, features: torch.Tensor, mask: torch.Tensor) -> Any:
            dropped = torch.nn.functional.dropout(features.mean(dim=1), 0.5, training=self.training)
            self.seen.append(dropped)
            output = self.linear(dropped)
            from milkit.mil.heads import MilOutput

            return MilOutput(output, mask[:, None, :].float())

    model = Standardised(Noisy(), torch.zeros(bags.dim), torch.ones(bags.dim)).train()
    training = TargetTraining(model, bags, torch.ones(0), Pace(torch.float32, 60 * 9, 1), fitted=fitted)
    training.gradients(examples, list(range(20)))
    first, second = model.head.seen[: len(model.head.seen) // 2], model.head.seen[len(model.head.seen) // 2 :]
    assert len(first) > 1
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_step_of_survival_takes_all_training_patients(store: BagStore, monkeypatch: pytest.MonkeyPatch) -> None:
    bags, steps = Bags.load(store, torch.device("cpu")), list[int]()
    plain = TargetTraining.gradients

    def counted(self: TargetTraining, train: Examples, part: list[int]) -> float:
        steps.append(len(part))
        return plain(self, train, part)

    monkeypatch.setattr(TargetTraining, "gradients", counted)
    for names, expected in ((("survival",), [20, 20]), (("regression:age",), [10, 10, 10, 10])):
        steps.clear()
        examples, fitted = _examples(bags, store, list(range(20)), names)
        train, validation = (
            Examples(list(rows), [], None, tuple(values[list(rows)] for values in examples.outcomes))
            for rows in (range(20), range(20, 30))
        )
        settings = TrainingSettings(max_epochs=2, batch_size=10)
        train_on_targets(bags, train, validation, fitted, ABMIL, settings, 0)
        assert steps == expected


@pytest.mark.parametrize(
    ("target", "columns"),
    [
        ("survival", ["time", "event", "risk"]),
        ("discrete-survival", ["time", "event", "risk"]),
        ("regression:age", ["label", "predicted"]),
    ],
)
def test_predictions_of_one_target_have_a_row_for_each_tested_patient(
    store: BagStore, tmp_path: Path, target: str, columns: list[str]
) -> None:
    metrics = cross_validate(store, _settings(target, repeats=2, seeds=2), tmp_path / "run")
    table = read_table(tmp_path / "run" / "predictions.csv")
    assert list(table) == ["patient_id", "repeat", "fold", *columns]
    lacking = "P05" if target == "regression:age" else "P04"
    expected = sorted(set(store.patients.index) - {lacking})
    assert table.groupby("repeat")["patient_id"].apply(lambda ids: sorted(ids) == expected).all()
    assert table.notna().all(axis=None)
    assert metrics["n_patients"] == 29
    assert metrics["target"]["kind"] == target.partition(":")[0]
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == metrics


def test_several_targets_have_a_table_each_and_rows_where_the_outcome_is_known(store: BagStore, tmp_path: Path) -> None:
    metrics = cross_validate(store, _settings(*ALL), tmp_path / "run")
    run, lacking = tmp_path / "run", {"survival": {"P04"}, "discrete-survival": {"P04"}, "age": {"P05"}, "label": set()}
    assert not (run / "predictions.csv").exists()
    assert list(metrics["targets"]) == list(lacking)
    for name, without in lacking.items():
        table = read_table(run / f"predictions.{name}.csv")
        assert set(store.patients.index) - set(table["patient_id"]) == without
        assert metrics["targets"][name]["n_patients"] == len(table)
    assert load(MilSettings, run / "settings.yaml", {}).target == _settings(*ALL).target


@pytest.mark.parametrize("target", ["survival", "discrete-survival"])
def test_who_dies_early_has_the_higher_risk_out_of_fold(store: BagStore, tmp_path: Path, target: str) -> None:
    metrics = cross_validate(store, _settings(target, epochs=40, folds=5), tmp_path / "run")
    assert metrics["c_index"]["estimate"] > 0.65
    table = read_table(tmp_path / "run" / "predictions.csv").set_index("patient_id")
    kinds = table["risk"].groupby(store.patients["label"].reindex(table.index)).mean()
    assert kinds[CLASSES[0]] > kinds[CLASSES[2]]


@pytest.mark.parametrize("targets", [("survival",), ("label", "survival")])
def test_risks_of_training_patients_are_kept_for_survival_s_verb(
    store: BagStore, tmp_path: Path, targets: tuple[str, ...]
) -> None:
    cross_validate(store, _settings(*targets, epochs=1), tmp_path / "run")
    table = read_table(tmp_path / "run" / "training_risks.csv")
    assert list(table) == ["patient_id", "repeat", "fold", "risk"]
    for split in Folds.load(tmp_path / "run" / "folds.csv").splits():
        own = table.loc[table["fold"] == split.fold, "patient_id"]
        assert set(split.train) - set(own) == ({"P04"} & set(split.train) if len(targets) == 1 else set())
    outcome = read_outcome(tmp_path / "run")
    assert outcome.training is not None
    assert len(outcome.patients) == 29


def test_classes_of_another_column_make_a_run_that_can_be_reported_and_explained(tmp_path: Path) -> None:
    patients = _patients().assign(npm1=["mutated", "wild", "wild"] * 10)
    patients.loc["P03", "npm1"] = np.nan
    metrics = cross_validate(
        make_store(tmp_path / "s.zarr", patients), _settings("classes:npm1", epochs=15), tmp_path / "run"
    )
    assert metrics["target"] == {"name": "npm1", "kind": "classes"}
    assert metrics["balanced_accuracy"]["estimate"] > 0.7
    assert read_results(tmp_path / "run").classes == ("mutated", "wild")
    assert read_heads(tmp_path / "run", "cpu").classes == ("mutated", "wild")


def test_a_planted_number_is_learned_in_its_own_unit(store: BagStore, tmp_path: Path) -> None:
    metrics = cross_validate(store, _settings("regression:age", epochs=60), tmp_path / "run")
    assert metrics["r2"]["estimate"] > 0.6
    assert metrics["mae"]["estimate"] < 12
    assert metrics["spearman"]["ci_low"] > 0.5


def test_outcomes_of_the_test_fold_change_no_trained_weight(tmp_path: Path) -> None:
    patients = _patients()
    store = make_store(tmp_path / "plain.zarr", patients)
    cross_validate(store, _settings(*ALL), tmp_path / "first")
    folds = Folds.load(tmp_path / "first" / "folds.csv")
    only_first = Folds(folds.table[folds.table["fold"] == 0])
    test = next(only_first.splits()).test
    changed = patients.copy()
    changed.loc[test, ["time", "event", "age"]] = patients.loc[test[::-1], ["time", "event", "age"]].to_numpy()
    changed.loc[test, "time"] *= 100
    weights = []
    for name, table in (("plain", patients), ("changed", changed)):
        store.replace_patients(table, CLASSES)
        cross_validate(store, _settings(*ALL), tmp_path / name, only_first)
        weights.append(load_file(tmp_path / name / "heads" / "repeat0-fold0-seed0.safetensors"))
        weights[-1] |= {"facts": torch.tensor(_numbers(tmp_path / name))}
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def _numbers(run: Path) -> list[float]:
    facts = json.loads((run / "heads" / "repeat0-fold0-seed0.json").read_text())
    return [number for target in facts["targets"] for number in target["fitted"]]


def test_the_same_seed_gives_the_same_run(store: BagStore, tmp_path: Path) -> None:
    for name in ("a", "b"):
        cross_validate(store, _settings("survival"), tmp_path / name)
    for file in ("predictions.csv", "metrics.json", "folds.csv", "attention.parquet"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_saved_head_says_how_to_decode_it(store: BagStore, tmp_path: Path) -> None:
    cross_validate(store, _settings("regression:age", epochs=1), tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "heads" / "repeat0-fold1-seed0.json").read_text())["targets"]
    train = list(Folds.load(tmp_path / "run" / "folds.csv").splits())[1].train
    ages = store.patients.loc[train, "age"].dropna()
    assert facts == [
        {
            "name": "age",
            "kind": "regression",
            "columns": ["age"],
            "outputs": ["value"],
            "fitted": pytest.approx([ages.mean(), ages.std(ddof=0)]),
        }
    ]


def test_attention_of_a_head_with_one_branch_an_output_names_the_outputs(store: BagStore, tmp_path: Path) -> None:
    settings = _settings("survival", "regression:age", head={"name": "abmil", "class_wise": True})
    cross_validate(store, settings, tmp_path / "run")
    assert set(Attention.load(tmp_path / "run" / "attention.parquet").table["class"]) == {
        "survival: risk",
        "age: value",
    }


def test_no_head_and_no_log_holds_a_patient_id(store: BagStore, tmp_path: Path) -> None:
    cross_validate(store, _settings("survival"), tmp_path / "run")
    run = tmp_path / "run"
    texts = [path.read_bytes() for path in [*(run / "heads").iterdir(), run / "log.txt", run / "provenance.json"]]
    assert not [name for name in store.patients.index if any(name.encode() in text for text in texts)]


def test_covariates_join_the_cells(store: BagStore, tmp_path: Path) -> None:
    cross_validate(store, _settings("survival", covariates=["age"]), tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "heads" / "repeat0-fold0-seed0.json").read_text())
    assert facts["n_covariates"] >= 1


@pytest.mark.parametrize("head", ["clam", "dsmil"])
def test_a_head_that_learns_from_classes_beside_the_logits_is_refused(
    store: BagStore, tmp_path: Path, head: str
) -> None:
    with pytest.raises(
        SettingsError, match=f"The head '{head}' learns from the classes of its bags, and the target is"
    ):
        cross_validate(store, _settings("survival", head=head), tmp_path / "runs" / "run")
    assert not (tmp_path / "runs").exists()


def test_a_split_without_events_in_training_leaves_no_run(store: BagStore, tmp_path: Path) -> None:
    folds = Folds.stratified(store.patients["label"], 3, seed=0)
    patients = store.patients.copy()
    patients.loc[next(folds.splits()).train, "event"] = 0.0
    store.replace_patients(patients, CLASSES)
    with pytest.raises(
        FoldError, match=r"training patients of repeat 0, fold 0 lack an event while others were follow"
    ):
        cross_validate(store, _settings("survival"), tmp_path / "runs" / "run", folds)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("targets", "sentence"),
    [
        (
            ("survival",),
            r"holds risks, as `milkit survival` reads them, where probabilities of classes were expected; name",
        ),
        (
            ("regression:age",),
            r"csv holds numbers where probabilities of classes were expected; name a run of `milkit tr",
        ),
        (
            ("survival", "label"),
            r"on several targets \(predictions.label.csv, predictions.survival.csv\), expected one; n",
        ),
    ],
)
def test_what_reads_classes_refuses_a_run_on_other_targets(
    store: BagStore, tmp_path: Path, targets: tuple[str, ...], sentence: str
) -> None:
    cross_validate(store, _settings(*targets, epochs=1), tmp_path / "run")
    with pytest.raises(RunError, match=sentence):
        read_results(tmp_path / "run")


def test_runs_on_targets_are_compared_each_target_by_its_own_figures(store: BagStore, tmp_path: Path) -> None:
    targets = ("survival", "regression:age", "label")
    for name in ("abmil", "meanpool"):
        cross_validate(store, _settings(*targets, epochs=5, head=Component(name=name)), tmp_path / name)
    runs = [tmp_path / "abmil", tmp_path / "meanpool"]
    told = {name: compare_runs(runs, target=name) for name in ("survival", "age", "label")}
    figures = {"survival": "c_index", "age": "mae", "label": "balanced_accuracy"}
    for name, result in told.items():
        first, second = (run[figures[name]]["estimate"] for run in result["runs"])
        pair = result["pairs"][0]
        gap = pair[figures[name]] if name == "label" else pair["figures"][figures[name]]
        assert gap["difference"] == pytest.approx(first - second)
    assert [result["n_patients"] for result in told.values()] == [29, 29, 30]


def test_the_command_line_trains_on_a_target_and_prints_its_figure(store: BagStore, tmp_path: Path) -> None:
    common = ["--workspace", str(tmp_path / "work"), "train-mil", "--store", str(store.path), "--folds", "3"]
    common += ["--set", "training.max_epochs=1", "--set", "bootstrap=100"]
    done = CliRunner().invoke(app, [*common, "--target", "survival"])
    assert done.exit_code == 0, done.output
    assert "c-index" in done.stdout
    done = CliRunner().invoke(app, [*common, "--target", "regression:age", "--target", "label", "--name", "both"])
    assert done.exit_code == 0, done.output
    assert "Spearman's ρ" in done.stdout
    assert "macro AUROC" in done.stdout
    done = CliRunner().invoke(app, [*common, "--set", "target=discrete-survival", "--set", "target.bins=3"])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, [*common, "--target", "survivl"])
    assert done.exit_code == 2
    assert "No kind of target is called 'survivl'. Did you mean 'survival'" in done.stderr
