"""Targets: losses against their formulas written out, what is estimated, decoded and refused."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from milkit.errors import FoldError, MilkitError, SettingsError
from milkit.folds import Folds
from milkit.losses import cox, cross_entropy, discrete_time, restricted_mean, squared_error
from milkit.settings import MilSettings
from milkit.statistics.target_figures import regression_figures, spearman, survival_figures
from milkit.target_choice import check_splits, choose_targets, stratify
from milkit.targets import Classes, DiscreteSurvival, Fitted, Regression, Survival, Target, is_known

TIME = np.array([5.0, 3.0, 3.0, 8.0, 3.0, 9.0, 5.0, 1.0])
EVENT = np.array([1, 1, 1, 0, 0, 1, 1, 0])
RISK = np.array([0.3, -1.2, 2.0, 0.7, 0.1, -0.4, 1.1, 5.0])
TABLE = pd.DataFrame(
    {
        "label": ["AML", "control", "AML", "AML", "control", "control", "AML", "control"],
        "time": [*TIME[:7], np.nan],
        "event": EVENT.astype(float),
        "age": [30.0, 40.0, np.nan, 50.0, 60.0, 70.0, 80.0, 90.0],
        "npm1": [1.0, 0.0, np.nan, 1.0, 0.0, 1.0, 0.0, np.nan],
    },
    index=pd.Index([f"P{n}" for n in range(8)], name="patient_id"),
)


def _chosen(*targets: object, patients: pd.DataFrame = TABLE, **other: object) -> tuple[Target, ...]:
    settings = MilSettings.model_validate({"target": list(targets)} | other)
    return choose_targets(settings, patients, ("control", "AML"))


def _efron(risk: np.ndarray, time: np.ndarray, event: np.ndarray) -> float:
    total = 0.0
    for at in np.unique(time[event > 0]):
        followed, died = np.exp(risk[time >= at]).sum(), risk[(time == at) & (event > 0)]
        for position in range(len(died)):
            total += died[position] - np.log(followed - position / len(died) * np.exp(died).sum())
    return -total / event.sum()


def test_the_loss_of_survival_is_the_partial_likelihood_with_efron_s_ties() -> None:
    loss = cox(torch.tensor(RISK), torch.tensor(TIME), torch.tensor(EVENT > 0))
    assert float(loss) == pytest.approx(_efron(RISK, TIME, EVENT), abs=1e-12)


def test_the_gradient_of_the_partial_likelihood_is_that_of_finite_differences() -> None:
    risk = torch.tensor(RISK, requires_grad=True)
    cox(risk, torch.tensor(TIME), torch.tensor(EVENT > 0)).backward()
    for row in range(len(RISK)):
        step = np.eye(len(RISK))[row] * 1e-6
        slope = (_efron(RISK + step, TIME, EVENT) - _efron(RISK - step, TIME, EVENT)) / 2e-6
        assert float(risk.grad[row]) == pytest.approx(slope, abs=1e-8)


def test_the_partial_likelihood_depends_on_neither_the_order_of_patients_nor_a_constant() -> None:
    order = np.random.default_rng(0).permutation(len(RISK))
    shuffled = cox(torch.tensor(RISK[order] + 500), torch.tensor(TIME[order]), torch.tensor(EVENT[order] > 0))
    assert float(shuffled) == pytest.approx(_efron(RISK, TIME, EVENT), abs=1e-9)


def test_the_partial_likelihood_falls_where_who_dies_first_has_the_higher_risk() -> None:
    time, event = torch.arange(1.0, 6.0), torch.ones(5, dtype=torch.bool)
    right, none, wrong = (float(cox(sign * -time, time, event)) for sign in (1.0, 0.0, -1.0))
    assert right < none < wrong


def test_without_events_the_partial_likelihood_is_0_and_teaches_nothing() -> None:
    risk = torch.tensor(RISK, requires_grad=True)
    loss = cox(risk, torch.tensor(TIME), torch.zeros(8, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not risk.grad.any()


def test_the_loss_of_discrete_time_is_the_likelihood_of_hazards_bin_by_bin() -> None:
    ends, logits = np.array([3.0, 5.0, 8.0]), np.random.default_rng(0).normal(size=(8, 3))
    total = 0.0
    for time, event, row in zip(TIME, EVENT, logits, strict=True):
        for end, begin, hazard in zip(ends, [-1.0, *ends[:-1]], 1 / (1 + np.exp(-row)), strict=True):
            if event and begin < time <= end:
                total -= np.log(hazard)
            elif time > end or (time == end and not event):
                total -= np.log(1 - hazard)
    loss = discrete_time(torch.tensor(logits), torch.tensor(TIME), torch.tensor(EVENT > 0), torch.tensor(ends))
    assert float(loss) == pytest.approx(total / 8, abs=1e-12)


def test_the_mean_time_without_event_is_the_area_under_the_curve_of_survival() -> None:
    ends, logits = np.array([2.0, 3.0, 7.0]), np.random.default_rng(0).normal(size=(5, 3))
    for row, found in zip(logits, restricted_mean(torch.tensor(logits), torch.tensor(ends)), strict=True):
        survival = np.cumprod([1.0, *(1 - 1 / (1 + np.exp(-row)))])
        assert float(found) == pytest.approx(np.trapezoid(survival, [0.0, *ends]), abs=1e-12)


def test_the_loss_of_classes_is_a_weighted_mean_and_that_of_a_number_the_mean_square() -> None:
    logits, labels, weights = np.random.default_rng(0).normal(size=(4, 3)), np.array([0, 2, 2, 1]), np.array([1, 2, 5])
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = -(weights[labels] * np.log(shares[np.arange(4), labels])).sum() / weights[labels].sum()
    found = cross_entropy(torch.tensor(logits), torch.tensor(labels), torch.tensor(weights, dtype=torch.float64))
    assert float(found) == pytest.approx(expected, abs=1e-12)
    errors = squared_error(torch.tensor([1.0, 4.0]), torch.tensor([3.0, 3.0]))
    assert float(errors) == pytest.approx((4 + 1) / 2)


def test_several_targets_add_up_and_a_missing_outcome_contributes_nothing() -> None:
    targets = _chosen("label", "survival", "regression:age", "classes:npm1", {"name": "discrete-survival", "bins": 2})
    outcomes = [target.outcomes(TABLE) for target in targets]
    fitted = Fitted(targets, outcomes)
    assert [(part.start, part.stop) for part in fitted.slices] == [(0, 2), (2, 3), (3, 4), (4, 6), (6, 8)]
    outputs = torch.randn(8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = fitted.loss(outputs, [torch.tensor(values) for values in outcomes])
    loss.backward()
    expected = 0.0
    for target, own, numbers, values in zip(targets, fitted.slices, fitted.numbers, outcomes, strict=True):
        known = is_known(values)
        few = outputs.detach()[torch.tensor(known)][:, own]
        expected += float(target.loss(few, torch.tensor(values[known]), torch.tensor(numbers)))
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-12)
    assert not outputs.grad[7, 2:3].any()  # no time
    assert not outputs.grad[2, 3:6].any()  # no age, no mutation
    assert outputs.grad[2, 0:3].all()


def test_where_no_outcome_is_known_the_loss_is_0_with_a_gradient_of_0() -> None:
    target = _chosen("regression:age")
    outputs = torch.ones(2, 1, requires_grad=True)
    fitted = Fitted(target, [target[0].outcomes(TABLE)])
    fitted.loss(outputs, [torch.full((2, 1), float("nan"), dtype=torch.float64)]).backward()
    assert outputs.grad.tolist() == [[0.0], [0.0]]


def test_a_number_is_standardised_by_the_training_patients_and_decoded_into_its_own_unit() -> None:
    (target,) = _chosen("regression:age")
    training = target.outcomes(TABLE)[[0, 1, 2, 3]]
    fitted = Fitted([target], [training])
    mean, spread = np.mean([30, 40, 50]), np.std([30, 40, 50])
    np.testing.assert_allclose(fitted.numbers[0], [mean, spread])
    np.testing.assert_allclose(fitted.scores(torch.tensor([[0.0], [1.0]]))[0], [[mean], [mean + spread]])


def test_bins_of_time_share_out_the_training_patients_events_and_end_with_the_last() -> None:
    target = DiscreteSurvival("os", ("time", "event"), 2)
    outcomes = np.array([[1, 1], [2, 1], [3, 1], [4, 1], [9, 0], [3.5, 0]], dtype=np.float64)
    assert target.fit(outcomes).tolist() == [2.0, 4.0]


@pytest.mark.parametrize(("weighted", "expected"), [(True, [5 / 9, 0.0, 5 / 6]), (False, [1.0, 1.0, 1.0])])
def test_class_weights_are_of_the_known_training_patients(weighted: bool, expected: list[float]) -> None:
    target = Classes("label", ("label",), ("a", "b", "c"), weighted)
    labels = np.array([[0.0], [0.0], [2.0], [0.0], [2.0], [np.nan]])
    np.testing.assert_allclose(Fitted([target], [labels]).numbers[0], expected)


@pytest.mark.parametrize(
    ("target", "columns"),
    [
        ("survival", ["time", "event", "risk"]),
        ("discrete-survival", ["time", "event", "risk"]),
        ("regression:age", ["label", "predicted"]),
        ("classes:npm1", ["label", "predicted", "p_0", "p_1"]),
    ],
)
def test_a_target_s_predictions_have_its_columns(target: str, columns: list[str]) -> None:
    (chosen,) = _chosen(target)
    outcomes = chosen.outcomes(TABLE)
    known = is_known(outcomes)
    outputs = torch.randn(8, len(chosen.outputs), generator=torch.Generator().manual_seed(0))
    table = chosen.rows(outcomes[known], Fitted([chosen], [outcomes]).scores(outputs)[0][known])
    assert list(table) == columns
    assert len(table) == known.sum()


def test_a_higher_output_is_a_higher_risk_for_both_kinds_of_survival() -> None:
    for kind in ("survival", "discrete-survival"):
        (target,) = _chosen(kind)
        outputs = torch.tensor([[-1.0], [2.0]]).expand(2, len(target.outputs))
        low, high = Fitted([target], [target.outcomes(TABLE)]).scores(outputs)[0][:, 0]
        assert low < high


def test_the_cohort_s_classes_alone_are_no_further_target() -> None:
    assert _chosen() == _chosen("label") == _chosen("classes:label") == ()


def test_arguments_of_a_target_name_its_columns() -> None:
    table = TABLE.rename(columns={"time": "os", "event": "died"})
    (target,) = _chosen({"name": "survival", "time": "os", "event": "died", "called": "overall"}, patients=table)
    assert target == Survival("overall", ("os", "died"))


def test_one_target_may_be_given_without_a_list() -> None:
    assert [target.name for target in MilSettings.model_validate({"target": "survival"}).target] == ["survival"]


NO_EVENT = TABLE.assign(event=0.0)
REFUSED: list[tuple[object, pd.DataFrame, str]] = [
    ("surviva", TABLE, r"No kind of target is called 'surviva'. Did you mean 'survival'"),
    ("regression:weight", TABLE, r"No column for the target 'regression' is called 'weight'"),
    ("survival", TABLE.drop(columns="time"), r"patients have no column time, which the target 'survival' needs; add"),
    ("survival", TABLE.drop(columns=["time", "event"]), r"have no column time and no column event, which the target"),
    ("survival", NO_EVENT, r"None of the 7 patients with a time in 'time' has an event in 'event', from which the"),
    ("survival", TABLE.assign(time=-1.0), r"The column 'time' holds '-1.0' for patient 'P0', expected times from 0 up"),
    ("survival", TABLE.assign(event="yes"), r"The column 'event' holds 'yes' for patient 'P0', expected 1 \(event\)"),
    ("regression:label", TABLE, r"The column 'label' holds 'AML' for patient 'P0', expected numbers; mend the table"),
    ("classes:age", TABLE.assign(age=1.0), r"The column 'age' has 1 different values, expected 2 to 20 classes; group"),
    ({"name": "discrete-survival", "bins": 1}, TABLE, r"was given bins 1, expected 2 to 50; give a number of these"),
    ({"name": "survival", "bins": 3}, TABLE, r"The target 'survival' was given bins, which it does not take; leave"),
    ({"name": "survival", "called": "a/b"}, TABLE, r"The target 'a/b' names a file, expected letters, digits, blanks"),
]


@pytest.mark.parametrize(("target", "patients", "sentence"), REFUSED)
def test_what_cannot_be_a_target_is_refused(target: object, patients: pd.DataFrame, sentence: str) -> None:
    with pytest.raises(MilkitError, match=sentence):
        _chosen(target, patients=patients)


def test_two_targets_of_one_name_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"Several targets are called 'age', where each needs a name of its own"):
        _chosen("regression:age", "regression:age")


def test_a_covariate_is_no_target() -> None:
    with pytest.raises(SettingsError, match=r"The column 'age' is a covariate and the target; name it as one of them"):
        _chosen("regression:age", covariates=["age"])


def test_folds_are_balanced_by_the_first_target_and_leave_out_who_has_none() -> None:
    strata = stratify(_chosen("survival"), TABLE)["label"]
    assert list(strata.index) == [f"P{n}" for n in range(7)]
    assert list(strata) == ["event" if died else "censored" for died in EVENT[:7]]
    assert list(stratify(_chosen("survival", "regression:age"), TABLE)["label"])[7] == "event"  # what most are


def _folds(roles: str) -> Folds:
    names = {"t": "train", "v": "validation", "x": "test"}
    rows = [(name, 0, 0, names[role]) for name, role in zip(TABLE.index, roles, strict=True)]
    return Folds(pd.DataFrame(rows, columns=["patient_id", "repeat", "fold", "role"]))


@pytest.mark.parametrize(
    ("target", "roles", "sentence"),
    [
        (
            "survival",
            "vvxttxvt",
            r"training patients of repeat 0, fold 0 lack an event while others were followed, from",
        ),
        (
            "survival",
            "ttxvvtxt",
            r"The validation patients of repeat 0, fold 0 lack an event while others were followed",
        ),
        (
            "regression:age",
            "tvtvvxxv",
            r"lack two different values, from which the target 'age' is learned; give fewer",
        ),
        ("classes:npm1", "tvxtvxvx", r"lack two classes, from which the target 'npm1' is learned; give fewer folds"),
    ],
)
def test_a_split_that_teaches_nothing_about_a_target_is_refused(target: str, roles: str, sentence: str) -> None:
    with pytest.raises(FoldError, match=sentence):
        check_splits(_chosen(target), TABLE, _folds(roles))


def _survival_table(sign: float) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    time = generator.exponential(size=30)
    fold = np.arange(30) % 3
    table = pd.DataFrame({"patient_id": [f"P{n:02d}" for n in range(30)], "repeat": 0, "fold": fold, "time": time})
    return table.assign(event=(np.arange(30) % 4 > 0).astype(int), risk=100.0 * fold - sign * time)


def test_the_c_index_of_perfect_risks_is_1_whatever_constant_a_fold_has_and_0_where_the_sign_is_wrong() -> None:
    for sign, expected in ((1.0, 1.0), (-1.0, 0.0)):
        found = survival_figures(_survival_table(sign), n_bootstrap=100, level=0.95, seed=0)
        assert found["c_index"]["estimate"] == expected
        assert found["c_index"]["folds"] == [expected] * 3
        assert (found["n_events"], found["n_patients"]) == (22, 30)


def test_figures_of_a_number_are_those_of_their_formulas_with_an_interval_around_them() -> None:
    generator = np.random.default_rng(0)
    label = np.round(generator.normal(50, 10, size=40))
    predicted = np.round(label + generator.normal(0, 8, size=40))
    table = pd.DataFrame({"patient_id": [f"P{n:02d}" for n in range(40)], "repeat": 0, "fold": np.arange(40) % 4})
    found = regression_figures(table.assign(label=label, predicted=predicted), n_bootstrap=200, level=0.95, seed=0)
    expected: dict[str, Callable[[], float]] = {
        "mae": lambda: float(np.abs(label - predicted).mean()),
        "r2": lambda: float(1 - ((label - predicted) ** 2).sum() / ((label - label.mean()) ** 2).sum()),
        "spearman": lambda: float(spearmanr(label, predicted).statistic),
    }
    for name, formula in expected.items():
        assert found[name]["estimate"] == pytest.approx(formula(), abs=1e-12)
        assert found[name]["ci_low"] < found[name]["estimate"] < found[name]["ci_high"]
        assert len(found[name]["folds"]) == 4


def test_a_weighted_rank_correlation_is_that_of_patients_drawn_as_often() -> None:
    generator = np.random.default_rng(0)
    first, second = (np.round(generator.normal(size=20), 1) for _ in range(2))
    weights = generator.multinomial(20, np.full(20, 1 / 20), size=4)
    for row, found in zip(weights, spearman(first, second, weights.astype(float)), strict=True):
        expected = spearmanr(np.repeat(first, row), np.repeat(second, row)).statistic
        assert found == pytest.approx(expected, abs=1e-12)


def test_a_column_of_one_value_has_no_number_s_figures() -> None:
    table = pd.DataFrame({"patient_id": list("abcd"), "repeat": 0, "fold": 0, "label": 1.0, "predicted": [1, 2, 3, 4]})
    found = regression_figures(table, n_bootstrap=100, level=0.95, seed=0)
    assert found["r2"]["estimate"] is None
    assert found["spearman"]["estimate"] is None


def test_regression_learns_nothing_from_one_value() -> None:
    assert Regression("age", ("age",)).lacks(np.ones((3, 1))) == "two different values"


def test_patients_who_all_had_the_event_are_shared_out_by_its_time() -> None:
    outcomes = np.column_stack([[1.0, 9.0, 2.0, 8.0], np.ones(4)])
    assert Survival("survival", ("time", "event")).strata(outcomes) == ["early", "late", "early", "late"]
