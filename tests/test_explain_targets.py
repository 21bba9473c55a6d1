"""Explaining runs on survival, numbers and several targets: what is explained, in which direction, and of which one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import followed_patients, make_store
from typer.testing import CliRunner

from milkit.cli import app
from milkit.errors import RunError
from milkit.explain.attribution import METHODS, attribute
from milkit.explain.gradients import completeness_gap
from milkit.explain.held_out import HeldOutHeads, read_heads
from milkit.explain.parts import Bagged
from milkit.explain.settings import ExplainSettings
from milkit.explain.table import Explanations
from milkit.explain.verb import explain, explain_quickly
from milkit.mil.crossval import cross_validate
from milkit.runs import read_json
from milkit.settings import MilSettings
from milkit.tables import read_table

ALL = ("survival", "discrete-survival", "regression:age", "label")
NAMES = ("survival", "discrete-survival", "age", "label")
GRADIENTS = "integrated_gradients"
QUICK: dict[str, Any] = {"bootstrap": 100, "device": "cpu"}


def _run(folder: Path, *targets: str, epochs: int = 8, **other: Any) -> Path:
    store = make_store(folder / "toy.zarr", followed_patients(8, cycle=4))
    values: dict[str, Any] = {"folds": 3, "bootstrap": 100, "target": list(targets), **other}
    values["training"] = {"max_epochs": epochs, "learning_rate": 0.01}
    cross_validate(store, MilSettings.model_validate(values), folder / "run")
    return folder / "run"


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on all kinds of targets at once, of two repeats."""
    return _run(tmp_path_factory.mktemp("several"), *ALL, repeats=2)


def _of_outputs(run: Path, held_out: HeldOutHeads, cells: torch.Tensor, number: int) -> list[float]:
    """By the formulas of the targets, from all outputs of the first head that tested P00: what is high, by target."""
    model = held_out.tested_by["P00"][0]
    facts = read_json(run / "heads" / f"repeat{model.repeat}-fold{model.fold}-seed{model.seed}.json")
    features = held_out.bags[model].features[held_out.bags[model].cells_of(held_out.bags[model].indices(["P00"])[0])]
    part = features[cells][None]
    logits = held_out.heads[model](part, torch.ones(part.shape[:2], dtype=torch.bool)).logits[0].double()
    if number == 0:
        return [float(logits[0])]
    if number == 1:
        ends = np.array(facts["targets"][1]["fitted"])
        alive = np.concatenate([[1.0], np.cumprod(1 - torch.sigmoid(logits[1:5]).numpy())])
        return [float(-np.log((np.diff(ends, prepend=0.0) * (alive[:-1] + alive[1:]) / 2).sum()))]
    if number == 2:
        mean, spread = facts["targets"][2]["fitted"]
        return [float(logits[5]) * spread + mean]
    shares = logits[6:].softmax(dim=0).numpy()
    return [float(value) for value in np.log(shares / (1 - shares))]


@pytest.mark.parametrize("number", range(4), ids=NAMES)
def test_leaving_a_cell_out_tells_what_the_target_loses_with_it(several: Path, number: int) -> None:
    held_out = read_heads(several, "cpu", NAMES[number])
    bag = held_out.bagged("P00")[0]
    scores = attribute(bag, "leave_one_out").double().numpy()
    every = torch.arange(bag.n_cells)
    whole = np.array(_of_outputs(several, held_out, every, number))
    lost = np.array([whole - _of_outputs(several, held_out, every[every != i], number) for i in every.tolist()]).T
    np.testing.assert_allclose(scores[: len(lost)], lost, atol=2e-4 * max(1.0, float(np.abs(whole).max())))


@pytest.mark.parametrize("method", METHODS[1:])
@pytest.mark.parametrize("name", NAMES[:3])
def test_what_speaks_for_high_speaks_against_low(several: Path, name: str, method: str) -> None:
    held_out = read_heads(several, "cpu", name)
    high, low = attribute(held_out.bagged("P03")[0], method)
    torch.testing.assert_close(high, -low)
    what = "age" if name == "age" else "risk"
    assert held_out.classes == (f"higher {what}", f"lower {what}")


@pytest.mark.parametrize("name", NAMES)
def test_integrated_gradients_are_complete_for_every_target(several: Path, name: str) -> None:
    for bag in read_heads(several, "cpu", name).bagged("P00"):
        assert completeness_gap(bag, attribute(bag, GRADIENTS, steps=256)) < 0.02


def test_the_largest_gap_of_all_bags_is_told(several: Path) -> None:
    explain(several, ExplainSettings(target="age", methods=(GRADIENTS,), steps=32, **QUICK))
    held_out = read_heads(several, "cpu", "age")
    bags = [bag for name in held_out.question.predicted.index for bag in held_out.bagged(str(name))]
    expected = max(completeness_gap(bag, attribute(bag, GRADIENTS, steps=32)) for bag in bags)
    told = read_json(several / "faithfulness.json")["methods"][GRADIENTS]["completeness_gap"]
    assert told == pytest.approx(expected, rel=1e-4)


def test_how_complete_integrated_gradients_are_does_not_depend_on_the_unit_of_a_number(several: Path) -> None:
    bag = read_heads(several, "cpu", "age").bagged("P00")[0]
    number = bag.asked.number
    assert number is not None
    millennia = bag.asked._replace(number=lambda outputs: number(outputs) / 1000, unit=bag.asked.unit / 1000)
    rescaled = Bagged(bag.model, bag.features, bag.covariates, millennia)
    in_years, in_millennia = (completeness_gap(one, attribute(one, GRADIENTS, steps=4)) for one in (bag, rescaled))
    assert in_millennia == pytest.approx(in_years, rel=1e-4)


def test_a_risk_is_high_or_low_among_the_patients_of_its_fold(several: Path) -> None:
    table = read_table(several / "predictions.survival.csv")
    above = table["risk"] - table.groupby(["repeat", "fold"])["risk"].transform("median")
    expected = above.groupby(table["patient_id"]).mean().map(lambda value: "higher risk" if value > 0 else "lower risk")
    predicted = read_heads(several, "cpu", "survival").question.predicted
    assert predicted.to_dict() == expected.to_dict()
    assert set(predicted) == {"higher risk", "lower risk"}
    assert "P04" not in predicted  # whose outcome is not known


def test_the_files_name_the_target_and_rank_the_cells_for_both_directions(several: Path) -> None:
    told = explain(several, ExplainSettings(target="age", methods=("attention", "leave_one_out"), **QUICK))
    assert told["target"] == {"name": "age", "kind": "regression"}
    table = Explanations.load(several / "explain.parquet").table
    assert set(table.loc[table["method"] == "leave_one_out", "class"]) == {"higher age", "lower age"}
    assert set(table.loc[table["method"] == "attention", "class"]) == {"*"}
    assert {row["class"] for row in told["patients"]} == {"higher age", "lower age"}


def test_the_first_target_is_explained_unless_another_is_named(several: Path) -> None:
    assert explain(several, ExplainSettings(methods=("attention",), **QUICK))["target"]["name"] == "survival"
    with pytest.raises(
        RunError, match=r"predicts survival, .*, and --target height was given; name one of its targets"
    ):
        explain(several, ExplainSettings(target="height", methods=("attention",), **QUICK))


def test_attention_of_its_own_for_every_output_is_that_of_the_target(tmp_path: Path) -> None:
    run = _run(tmp_path, "survival", "regression:age", "label", epochs=2, head={"name": "abmil", "class_wise": True})
    by_output = read_heads(run, "cpu", "survival").bagged("P00")[0]
    whole = by_output.output(by_output.features[None]).attention[0]
    for name, rows in {"survival": slice(0, 1), "age": slice(1, 2), "label": slice(2, 5)}.items():
        torch.testing.assert_close(read_heads(run, "cpu", name).bagged("P00")[0].attention(), whole[rows])


def test_a_number_that_is_learned_from_cells_has_a_faithful_order(tmp_path: Path) -> None:
    run = _run(tmp_path, "regression:age", epochs=60)
    assert not explain_quickly(run, "cpu")
    told = read_json(run / "faithfulness.json")
    assert told["methods"]["attention"]["faithful"]
    assert told["n_patients"] == 24


def test_the_command_line_explains_a_target(several: Path) -> None:
    quick = ["--methods", "attention", "--device", "cpu", "--set", "bootstrap=100"]
    done = CliRunner().invoke(app, ["explain", str(several), "--target", "discrete-survival", *quick])
    assert done.exit_code == 0, done.output
    assert "target   discrete-survival (discrete-survival)" in done.stdout
    done = CliRunner().invoke(app, ["explain", str(several), "--target", "label", "--json", *quick])
    assert json.loads(done.stdout)["target"] == {"name": "label", "kind": "classes"}
