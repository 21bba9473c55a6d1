"""What a model of survival or of a number adds to covariates: the weights against their formula, and known answers."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from audit_toys import people, store_of
from survival_toys import follow_up

from milkit.audit.increment import RIDGE
from milkit.audit.outcome_models import COX, cox_loss, held_out
from milkit.audit.outcome_models import RIDGE as RIDGE_MODEL
from milkit.audit.simple_models import LIGHT, Rows, rows_of, standardised
from milkit.audit.target_controls import Judged, target_controls
from milkit.audit.target_increment import Alone, fitted_sum, joined, target_increment
from milkit.audit.target_scores import TargetScorer
from milkit.folds import Folds
from milkit.mil.crossval import cross_validate
from milkit.runs import read_json
from milkit.settings import MilSettings
from milkit.statistics.out_of_fold import Resamples

N = 90
SPLIT = Rows(0, 0, np.arange(54), np.arange(54, 72), np.arange(72, N))


def _outcomes(kind: str, truth: np.ndarray, seed: int = 0) -> np.ndarray:
    """Follow-up whose log hazard is three times a number, or that number on another scale."""
    if kind == "survival":
        return np.column_stack(follow_up(3.0 * truth, seed)).astype(np.float64)
    return (40 + 10 * truth + np.random.default_rng(seed).normal(size=len(truth)))[:, None]


def _two_parts(kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of two models, each of which knows another half of the outcome, on scales of their own."""
    halves = np.random.default_rng(5).normal(size=(2, N))
    outcomes = _outcomes(kind, halves.sum(axis=0))
    scales = np.array([[0.02], [3.0]]) if kind == "survival" else np.array([[10.0], [2.0]])
    return (0.0 if kind == "survival" else 40.0) + scales * halves, outcomes


KINDS = pytest.mark.parametrize("kind", ["survival", "regression"])


@KINDS
def test_the_weights_have_the_least_penalised_loss_of_a_grid(kind: str) -> None:
    both, outcomes = _two_parts(kind)
    both, outcomes = both[:, :30], outcomes[:30]
    if kind == "survival":
        both = both - both.mean(axis=1, keepdims=True)
        n_events = (outcomes[:, 1] > 0).sum()
    else:
        both, outcomes = both - 40, (outcomes - 40) / 10
    scale = np.sqrt((both**2).mean(axis=1))

    def loss(v: float, w: float) -> float:
        total = v * both[0] / scale[0] + w * both[1] / scale[1]
        error = (
            n_events * cox_loss(total, outcomes) if kind == "survival" else ((total - outcomes[:, 0]) ** 2).sum() / 2
        )
        return float(error + RIDGE * (v**2 + w**2) / 2)

    weights, share = fitted_sum(both, outcomes, risk=kind == "survival")
    best = min((loss(v, w), v, w) for v in np.arange(0, 3, 0.02) for w in np.arange(0, 3, 0.02))
    np.testing.assert_allclose(weights * scale, best[1:], atol=0.021)
    assert share == pytest.approx(weights[1] * scale[1] / (weights * scale).sum())


@KINDS
def test_two_halves_of_a_truth_make_more_than_each(kind: str) -> None:
    both, outcomes = _two_parts(kind)
    together, share = joined(both[:, None], outcomes, [SPLIT], risk=kind == "survival")
    truth = np.random.default_rng(5).normal(size=(2, N)).sum(axis=0)[SPLIT.test]
    of = [np.corrcoef(own[SPLIT.test], truth)[0, 1] for own in (*both, together[0])]
    assert max(of[:2]) < 0.85
    assert of[2] > 0.95
    assert 0.3 < share < 0.7


@KINDS
def test_the_scale_of_a_model_changes_nothing_of_what_is_made_of_it(kind: str) -> None:
    both, outcomes = _two_parts(kind)
    start = 0.0 if kind == "survival" else float(outcomes[SPLIT.train].mean())
    timid = np.stack([both[0], start + 0.01 * (both[1] - start)])
    found = [joined(own[:, None], outcomes, [SPLIT], risk=kind == "survival") for own in (both, timid)]
    np.testing.assert_allclose(found[1][0], found[0][0], atol=1e-3)
    assert found[1][1] == pytest.approx(found[0][1], abs=1e-4)


@KINDS
def test_two_models_of_which_neither_knows_anything_leave_the_first(kind: str) -> None:
    both, outcomes = _two_parts(kind)
    start = 0.0 if kind == "survival" else float(outcomes[SPLIT.train].mean())
    against = 2 * start - both
    together, share = joined(against[:, None], outcomes, [SPLIT], risk=kind == "survival")
    np.testing.assert_allclose(together[0], against[0])
    assert share == 0.0


@KINDS
def test_outcomes_of_tested_patients_and_unknown_ones_play_no_part(kind: str) -> None:
    both, outcomes = _two_parts(kind)
    changed = outcomes.copy()
    changed[SPLIT.test, 0] = changed[SPLIT.test, 0][::-1]
    changed[[3, 60]] = np.nan
    without = SPLIT._replace(train=np.delete(SPLIT.train, 3), validation=np.delete(SPLIT.validation, 6))
    risk = kind == "survival"
    expected, _ = joined(both[:, None], outcomes, [without], risk=risk)
    np.testing.assert_array_equal(joined(both[:, None], changed, [SPLIT], risk=risk)[0], expected)


@KINDS
def test_a_split_that_validates_nobody_of_known_outcome_keeps_the_covariates(kind: str) -> None:
    both, outcomes = _two_parts(kind)
    outcomes[SPLIT.validation] = np.nan
    together, share = joined(both[:, None], outcomes, [SPLIT], risk=kind == "survival")
    np.testing.assert_allclose(together[0], both[0])
    assert share == 0.0


def _added(folder: Path, kind: str, knows: float, **settings: Any) -> dict[str, Any]:
    """The controls of one target of 80 patients: age tells half of it, and the model so much of the other half."""
    generator, patients = np.random.default_rng(2), people(80)
    seen, other, noise = generator.normal(size=(3, 80))
    patients["age"] = 60 + 10 * other
    outcomes = _outcomes(kind, seen + other)
    columns = ("time", "event") if kind == "survival" else ("blasts",)
    patients[list(columns)] = outcomes
    store = store_of(folder / "s.zarr", patients, dict.fromkeys(patients.index, 3), {})
    folds = Folds.stratified(patients["label"], 5, seed=0)
    said = dict(zip(patients.index, 40 + 10 * (knows * seen + (1 - knows) * noise), strict=True))
    tables = []
    for role in ("test", "validation"):
        table = folds.table.loc[folds.table["role"] == role, ["patient_id", "repeat", "fold"]].reset_index(drop=True)
        happened = patients.loc[table["patient_id"]]
        if kind == "survival":
            table["time"], table["event"] = happened["time"].to_numpy(), happened["event"].to_numpy().astype(int)
        else:
            table["label"] = happened["blasts"].to_numpy()
        tables.append(table.assign(**{"risk" if kind == "survival" else "predicted": table["patient_id"].map(said)}))
    name = "survival" if kind == "survival" else "blasts"
    judged = Judged(name, kind, tables[0], outcomes, columns, (), tables[1])
    return target_controls(store, folds, [judged], MilSettings(bootstrap=200, **settings))


QUOTED = {"survival": ("c_index", "the c-index"), "regression": ("spearman", "Spearman's ρ")}


@KINDS
def test_a_model_that_knows_another_part_than_a_covariate_adds_to_it(kind: str, tmp_path: Path) -> None:
    found = _added(tmp_path, kind, 1.0)
    (own,) = found["targets"].values()
    key, name = QUOTED[kind]
    alone = next(control for control in own["controls"] if control["name"] == "covariates")
    added = own["increment"]
    assert added["columns"] == ["age"]
    assert added["difference"][key]["ci_low"] > 0.05
    gap = added["together"][key]["estimate"] - alone[key]["estimate"]
    assert added["difference"][key]["estimate"] == pytest.approx(gap)
    assert added["together"][key]["estimate"] > own["model"][key]["estimate"] + 0.05
    assert 0.3 < added["weight"] < 0.7
    (sentence,) = (text for text in found["sentences"] if text.startswith("Beside age, the model adds +0."))
    assert sentence.endswith(f" to {name}.")
    assert sentence not in found["warnings"]


@KINDS
def test_a_model_of_noise_adds_nothing_to_a_covariate_and_that_is_warned_of(kind: str, tmp_path: Path) -> None:
    found = _added(tmp_path, kind, 0.0)
    (own,) = found["targets"].values()
    key, name = QUOTED[kind]
    assert own["increment"]["difference"][key]["ci_low"] <= 0
    assert own["increment"]["weight"] < 0.3
    (sentence,) = (text for text in found["warnings"] if text.startswith("Beside age, the model adds "))
    assert sentence.endswith(f" to {name}, which may be nothing.")


def test_a_head_that_was_given_the_covariates_is_compared_with_them_as_it_is(tmp_path: Path) -> None:
    (own,) = _added(tmp_path, "survival", 1.0, covariates=["age"])["targets"].values()
    alone = next(control for control in own["controls"] if control["name"] == "covariates")
    assert own["increment"] == {
        "columns": ["age"],
        "together": own["model"],
        "difference": alone["difference"],
        "weight": None,
    }


def test_a_run_on_several_targets_has_the_increment_of_each(tmp_path: Path) -> None:
    generator, patients = np.random.default_rng(3), people(60)
    patients["time"], patients["event"] = follow_up(generator.normal(size=60))
    patients["blasts"], patients["age"] = generator.uniform(0, 100, 60), generator.normal(60, 10, 60)
    patients["npm1"] = ["mutated", "wild"] * 30
    patients.loc["P005", ["time", "blasts", "npm1"]] = np.nan
    store = store_of(tmp_path / "s.zarr", patients, dict.fromkeys(patients.index, 3), {})
    targets = ["survival", "regression:blasts", "classes:npm1"]
    training = {"max_epochs": 2}
    settings = {"folds": 3, "repeats": 2, "seeds": 2, "bootstrap": 200, "training": training, "target": targets}
    metrics = cross_validate(store, MilSettings.model_validate(settings), tmp_path / "run")
    found = read_json(tmp_path / "run" / "controls.json")["targets"]
    assert {name: own["increment"]["columns"] for name, own in found.items()} == {key: ["age"] for key in found}
    assert all(0 <= own["increment"]["weight"] <= 1 for own in found.values())
    assert {key for own in found.values() for key in own["increment"]["together"]} >= {"c_index", "r2", "auroc_macro"}
    assert len(metrics["targets"]["npm1"]["temperature"]["temperatures"]) == 6


def _study(kind: str, seed: int, knows: float, n: int = 100) -> dict[str, Any]:
    """The increment of a model beside age: it sees a second cause of this strength, or nothing but noise."""
    generator = np.random.default_rng(seed)
    age, other = generator.normal(size=(2, n))
    truth, risk = age + knows * other, kind == "survival"
    outcomes = np.column_stack(follow_up(truth, seed)) if risk else 40 + 10 * (truth + generator.normal(size=n))
    outcomes = outcomes.reshape(n, -1).astype(np.float64)
    names = [f"P{number:03d}" for number in range(n)]
    labels = pd.Series(["A", "B"] * (n // 2), index=pd.Index(names, name="patient_id"))
    splits = rows_of(Folds.stratified(labels, 5, seed=seed).splits(), names)
    alone, _ = held_out(COX if risk else RIDGE_MODEL, standardised(age[:, None]), outcomes, splits, LIGHT)
    model = np.tile(other if risk else 40 + 5 * other, (len(splits), 1))
    folds = [(number, row) for number, split in enumerate(splits) for row in split.test]
    where = np.array([number for number, _ in folds]), np.array([row for _, row in folds])
    happened, said = outcomes[where[1]], model[where]
    table = pd.DataFrame({"patient_id": [names[row] for row in where[1]], "repeat": 0, "fold": where[0]})
    if risk:
        table = table.assign(time=happened[:, 0], event=happened[:, 1].astype(int), risk=said)
    else:
        table = table.assign(label=happened[:, 0], predicted=said)
    resamples = Resamples.of(np.zeros(n, dtype=np.int64), 200, 0.95, seed)
    scorer = TargetScorer(table, "risk" if risk else "predicted", where, resamples)
    covariates = Alone(("age",), alone, scorer.score(alone))
    return target_increment(scorer, splits, outcomes, covariates, model, scorer.score_table(table))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "least"), [("survival", 0.05), ("regression", 0.5)])
def test_noise_is_rarely_found_to_add_and_a_second_cause_more_often(kind: str, least: float) -> None:
    def found(knows: float) -> float:
        studies = [_study(kind, seed, knows)["difference"][QUOTED[kind][0]]["ci_low"] for seed in range(100)]
        return float(np.mean([low is not None and low > 1e-9 for low in studies]))

    assert found(0.0) <= 0.05
    assert found(0.7) >= least
