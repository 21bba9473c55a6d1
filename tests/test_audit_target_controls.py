"""Controls of runs on survival and numbers: the regressions against references, and what is said where it is known."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from audit_toys import people, store_of
from lifelines import CoxPHFitter
from scipy.optimize import minimize
from sklearn.linear_model import Ridge
from survival_toys import follow_up

from milkit.audit.outcome_models import COX, RIDGE, cox_loss, held_out, ridge_cox, ridge_regression
from milkit.audit.simple_models import LIGHT, PENALTIES, Rows, of_sizes, standardised
from milkit.audit.target_controls import Judged, target_controls
from milkit.bags import BagStore
from milkit.folds import Folds
from milkit.mil.crossval import cross_validate
from milkit.runs import read_json
from milkit.settings import MilSettings

FAST: dict[str, Any] = {"folds": 3, "bootstrap": 200, "training": {"max_epochs": 2}}


def _survival(n: int = 80, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three inputs, and times and events that the first of them moves."""
    x = np.random.default_rng(seed).normal(size=(n, 3))
    return x, np.column_stack(follow_up(1.2 * x[:, 0], seed)).astype(np.float64)


def test_a_number_is_regressed_as_scikit_learn_does() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(40, 5)), generator.normal(5, 3, 40)
    spread = y.std()
    expected = Ridge(alpha=2.5).fit(x[:30], (y[:30] - y[:30].mean()) / y[:30].std()).predict(x[30:])
    found = ridge_regression(x[:30], y[:30, None], x[30:], 2.5)
    np.testing.assert_allclose(found, expected * y[:30].std() + y[:30].mean())
    assert spread > 0


def test_log_hazards_without_a_penalty_are_those_of_lifelines() -> None:
    x, outcomes = _survival()
    outcomes[:, 0] += np.arange(len(x)) * 1e-6  # without ties Breslow's and Efron's likelihood are one
    table = pd.DataFrame(x, columns=list("abc")).assign(time=outcomes[:, 0], event=outcomes[:, 1])
    beta = CoxPHFitter().fit(table, "time", "event").params_.to_numpy()
    np.testing.assert_allclose(ridge_cox(x, outcomes, x, 1e-9), (x - x.mean(axis=0)) @ beta, atol=2e-3)


def test_a_penalised_cox_model_is_the_minimum_of_its_formula() -> None:
    x, outcomes = _survival(40)
    outcomes[:, 0] = np.ceil(outcomes[:, 0] / 100)  # ties
    time, event = outcomes[:, 0], outcomes[:, 1] > 0

    def loss(beta: np.ndarray) -> float:
        risk = x @ beta
        sums = [np.log(np.exp(risk[time >= t]).sum()) - r for t, r in zip(time[event], risk[event], strict=True)]
        return sum(sums) + 3.0 / 2 * beta @ beta

    beta = minimize(loss, np.zeros(3), tol=1e-10).x
    np.testing.assert_allclose(ridge_cox(x, outcomes, x, 3.0), (x - x.mean(axis=0)) @ beta, atol=1e-3)


def test_the_loss_that_chooses_a_penalty_is_the_partial_likelihood_an_event() -> None:
    risk, outcomes = np.array([0.3, -0.2, 1.0]), np.array([[2.0, 1.0], [5.0, 0.0], [3.0, 1.0]])
    first = np.log(np.exp(risk).sum()) - 0.3
    second = np.log(np.exp(-0.2) + np.exp(1.0)) - 1.0
    assert cox_loss(risk, outcomes) == pytest.approx((first + second) / 2)


@pytest.mark.parametrize("model", [COX, RIDGE], ids=["cox", "ridge"])
def test_outcomes_of_tested_patients_change_no_control(model: Any) -> None:
    x, outcomes = _survival(60)
    outcomes = outcomes if model is COX else outcomes[:, :1]
    split = Rows(0, 0, np.arange(36), np.arange(36, 48), np.arange(48, 60))
    changed = outcomes.copy()
    changed[48:, 0] = changed[48:, 0][::-1]
    both = [held_out(model, standardised(x), own, [split], PENALTIES) for own in (outcomes, changed)]
    np.testing.assert_array_equal(both[0][0], both[1][0])
    assert np.isnan(both[0][0][0, :36]).all()
    assert both[0][1] == both[1][1]


def test_patients_of_unknown_outcome_are_predicted_and_not_learned_from() -> None:
    x, outcomes = _survival(60)
    gaps = outcomes.copy()
    gaps[[0, 40, 50]] = np.nan
    split = Rows(0, 0, np.arange(36), np.arange(36, 48), np.arange(48, 60))
    found, _ = held_out(COX, standardised(x), gaps, [split], LIGHT)
    without = Rows(0, 0, np.arange(1, 36), np.arange(36, 48), np.arange(48, 60))
    expected, _ = held_out(COX, standardised(x), outcomes, [without], LIGHT)
    np.testing.assert_allclose(found, expected[:, :])
    assert np.isfinite(found[0, 36:]).all()


def test_nobody_with_an_event_gives_everybody_the_same_risk() -> None:
    outcomes = np.column_stack([np.arange(1.0, 11.0), np.zeros(10)])
    assert (ridge_cox(np.arange(20.0).reshape(10, 2), outcomes, np.ones((3, 2)), 1.0) == 0).all()


def _controls_of(folder: Path, patients: pd.DataFrame, sizes: dict[str, int], risk: np.ndarray) -> dict[str, Any]:
    """Controls beside a model of given risks."""
    store, folds = store_of(folder / "s.zarr", patients, sizes, {}), Folds.stratified(patients["label"], 5, seed=0)
    table = folds.table.loc[folds.table["role"] == "test", ["patient_id", "repeat", "fold"]]
    own = patients.loc[table["patient_id"]]
    told = dict(zip(patients.index, risk, strict=True))
    table = table.assign(time=own["time"].to_numpy(), event=own["event"].to_numpy().astype(int))
    table["risk"] = table["patient_id"].map(told)
    outcomes = patients[["time", "event"]].to_numpy(dtype=np.float64)
    judged = Judged("survival", "survival", table, outcomes, ("time", "event"))
    return target_controls(store, folds, [judged], MilSettings(bootstrap=200))


@pytest.fixture(scope="module")
def by_size(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Who has many cells dies soon; the cells are noise, and so is the model; age tells nothing."""
    generator, patients = np.random.default_rng(1), people(70)
    sizes = generator.integers(3, 40, 70)
    patients["time"], patients["event"] = follow_up((sizes - 20) / 8)
    patients["age"] = generator.normal(60, 10, 70)
    folder = tmp_path_factory.mktemp("survival")
    return _controls_of(
        folder, patients, dict(zip(patients.index, sizes.tolist(), strict=True)), generator.normal(size=70)
    )


def test_a_number_of_cells_that_orders_the_patients_is_warned_of(by_size: dict[str, Any]) -> None:
    found = {control["name"]: control for control in by_size["targets"]["survival"]["controls"]}
    assert list(found) == ["mean_pool", "bag_size", "covariates", "permuted_labels"]
    assert found["bag_size"]["c_index"]["ci_low"] > 0.6
    assert found["bag_size"]["difference"]["c_index"]["ci_high"] < 0
    assert by_size["warnings"][0].startswith("The model is not shown to be better than chance: c-index 0.")
    assert by_size["warnings"][1].startswith("The number of cells alone orders the patients by their risk: c-index 0.")
    assert " is worse, by -0." in by_size["warnings"][1]
    assert not [text for text in by_size["warnings"] if text.startswith("Age alone")]


def test_shuffled_outcomes_and_noise_stay_at_chance(by_size: dict[str, Any]) -> None:
    found = {control["name"]: control for control in by_size["targets"]["survival"]["controls"]}
    for name in ("mean_pool", "covariates", "permuted_labels"):
        assert found[name]["c_index"]["ci_low"] < 0.5
    assert any(text.startswith("With the outcomes shuffled in training, c-index 0.") for text in by_size["sentences"])


def test_controls_are_plain_json_without_patient_ids(by_size: dict[str, Any]) -> None:
    assert "P000" not in json.dumps(by_size, allow_nan=False)


def test_an_outcome_is_no_covariate_of_another_target(tmp_path: Path) -> None:
    generator, patients = np.random.default_rng(2), people(40)
    patients["time"], patients["event"] = follow_up(generator.normal(size=40))
    patients["months"], patients["age"] = patients["time"] / 30, generator.normal(60, 10, 40)
    store = store_of(tmp_path / "s.zarr", patients, dict.fromkeys(patients.index, 3), {})
    settings = MilSettings.model_validate({**FAST, "target": ["survival", "regression:months"]})
    cross_validate(store, settings, tmp_path / "run")
    controls = read_json(tmp_path / "run" / "controls.json")
    for own in controls["targets"].values():
        assert {name for control in own["controls"] for name in control["columns"]} == {"age"}
    assert all(text.startswith(("survival: ", "months: ")) for text in controls["sentences"])
    assert list(controls["targets"]["months"]["model"]) == ["r2", "spearman"]


@pytest.mark.parametrize("target", ["survival", "regression:age"])
def test_the_controls_beside_a_run_hold_its_own_figures(tmp_path: Path, target: str) -> None:
    generator, patients = np.random.default_rng(3), people(40)
    patients["time"], patients["event"] = follow_up(generator.normal(size=40))
    patients["age"] = generator.normal(60, 10, 40)
    patients.loc["P005", ["time", "age"]] = np.nan
    store = store_of(tmp_path / "s.zarr", patients, dict.fromkeys(patients.index, 3), {})
    metrics = cross_validate(
        store, MilSettings.model_validate({**FAST, "target": target, "repeats": 2}), tmp_path / "run"
    )
    (own,) = read_json(tmp_path / "run" / "controls.json")["targets"].values()
    for name, figure in own["model"].items():
        assert figure == pytest.approx({key: metrics[name][key] for key in figure})
    assert own["n_patients"] == metrics["n_patients"] == 39


def test_classes_of_another_column_have_the_controls_of_classes(tmp_path: Path) -> None:
    patients = people(40)
    patients["npm1"] = ["mutated", "wild"] * 20
    patients.loc["P003", "npm1"] = np.nan
    sizes = {name: 12 if own == "wild" else 4 for name, own in patients["npm1"].items()}
    store = store_of(tmp_path / "s.zarr", patients, sizes, {})
    cross_validate(store, MilSettings.model_validate({**FAST, "target": "classes:npm1"}), tmp_path / "run")
    found = read_json(tmp_path / "run" / "controls.json")
    own = found["targets"]["npm1"]
    assert own["n_patients"] == 39
    assert set(own["model"]["per_class"]) == {"mutated", "wild"}
    assert "number of cells" in found["warnings"][0]


def test_a_fault_in_the_controls_does_not_cost_the_run(
    toy_store: BagStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("milkit.audit.target_controls.pool", lambda _: 1 / 0)
    cross_validate(toy_store, MilSettings.model_validate({**FAST, "target": "regression:age"}), tmp_path / "run")
    controls = read_json(tmp_path / "run" / "controls.json")
    assert (controls["failed"], controls["targets"]) == ("ZeroDivisionError", {})
    assert controls["warnings"][0].startswith("The controls beside this run failed (ZeroDivisionError; the traceback")
    assert "ZeroDivisionError: division by zero" in (tmp_path / "run" / "log.txt").read_text()


def test_more_features_than_patients_are_fitted_as_without_the_rotation() -> None:
    generator = np.random.default_rng(4)
    x, outcomes = generator.normal(size=(30, 60)), np.column_stack(follow_up(generator.normal(size=30))).astype(float)
    split = Rows(0, 0, np.arange(20), np.arange(20, 25), np.arange(25, 30))
    found, _ = held_out(COX, standardised(x), outcomes, [split], (1.0,))
    plain = standardised(x)(split.train)
    expected = ridge_cox(plain[:20], outcomes[:20], plain[20:], 60.0)
    np.testing.assert_allclose(found[0, 20:], expected, atol=1e-3)


def test_controls_can_be_switched_off(toy_store: BagStore, tmp_path: Path) -> None:
    settings = MilSettings.model_validate({**FAST, "target": "regression:age", "controls": False})
    cross_validate(toy_store, settings, tmp_path / "run")
    assert not (tmp_path / "run" / "controls.json").exists()


def test_sizes_are_inputs_of_the_regressions() -> None:
    sizes = np.array([5, 50, 500] * 10)
    outcomes = np.log(sizes).reshape(-1, 1).astype(np.float64)
    split = Rows(0, 0, np.arange(18), np.arange(18, 24), np.arange(24, 30))
    found, _ = held_out(RIDGE, of_sizes(sizes), outcomes, [split], LIGHT)
    assert np.corrcoef(found[0, 24:], outcomes[24:, 0])[0, 1] > 0.99
