"""Bootstrap over cells or whole groups: counted outcomes, paired differences, coverage by simulation."""

import numpy as np
import pytest
from sklearn import metrics as sk

from milkit.statistics.cell_intervals import METRICS, Outcomes, Scores
from milkit.statistics.intervals import wilson_interval
from milkit.statistics.linear_probe import linear_probe

C = 3


@pytest.fixture
def tested() -> tuple[np.ndarray, np.ndarray]:
    """Labels of 150 cells and the predictions of two classifiers, the second the better one."""
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [80, 50, 20])
    guesses = [np.where(generator.random(150) < right, labels, generator.integers(0, C, 150)) for right in (0.5, 0.8)]
    return labels, np.stack(guesses)


def scores(outcomes: Outcomes, n_bootstrap: int = 400, seed: int = 0) -> Scores:
    return Scores(outcomes, n_bootstrap=n_bootstrap, level=0.95, seed=seed)


def test_estimates_are_those_of_scikit_learn(tested: tuple[np.ndarray, np.ndarray]) -> None:
    labels, guesses = tested
    own = scores(Outcomes.of(labels, guesses, C))
    for row, guess in enumerate(guesses):
        expected = {
            "weighted_f1": sk.f1_score(labels, guess, average="weighted"),
            "accuracy": sk.accuracy_score(labels, guess),
            "balanced_accuracy": sk.balanced_accuracy_score(labels, guess),
        }
        assert {metric: own.figure(row, metric)["estimate"] for metric in METRICS} == pytest.approx(expected, abs=1e-12)


def test_alike_cells_are_counted_once(tested: tuple[np.ndarray, np.ndarray]) -> None:
    labels, guesses = tested
    outcomes = Outcomes.of(labels, guesses, C)
    assert len(outcomes.labels) <= C**3
    assert outcomes.counts.sum() == 150


def test_a_resample_of_cells_keeps_the_class_sizes(tested: tuple[np.ndarray, np.ndarray]) -> None:
    outcomes = Outcomes.of(*tested, C)
    (weights,) = outcomes.weightings(50, seed=1)
    for c, size in enumerate((80, 50, 20)):
        assert (weights[:, outcomes.labels == c].sum(axis=1) == size).all()


def test_a_resample_of_groups_holds_all_cells_of_a_group_or_none(tested: tuple[np.ndarray, np.ndarray]) -> None:
    groups = np.random.default_rng(3).integers(0, 12, 150)
    outcomes = Outcomes.of(*tested, C, groups)
    (weights,) = outcomes.weightings(50, seed=1)
    times = weights / outcomes.counts
    for group in range(12):
        own = times[:, outcomes.groups == group]
        assert (own == own[:, :1]).all()
    drawn = np.stack([times[:, np.flatnonzero(outcomes.groups == group)[0]] for group in range(12)], axis=1)
    assert (drawn.sum(axis=1) == 12).all()


def test_groups_of_one_class_each_are_drawn_within_their_class() -> None:
    labels, groups = np.repeat([0, 1], 20), np.arange(40) // 4
    outcomes = Outcomes.of(labels, labels[None], 2, groups)
    (weights,) = outcomes.weightings(50, seed=0)
    assert (weights[:, outcomes.labels == 0].sum(axis=1) == 20).all()


def test_differences_are_paired(tested: tuple[np.ndarray, np.ndarray]) -> None:
    labels, guesses = tested
    almost = guesses[1].copy()
    almost[0] = (labels[0] + 1) % C  # one cell of 150 differs
    own = scores(Outcomes.of(labels, np.stack([guesses[1], almost, guesses[0]]), C))
    near, far = own.difference(1, 0, "accuracy"), own.difference(2, 0, "accuracy")
    assert near["ci_high"] - near["ci_low"] < 0.03  # unpaired, it would be about 0.2
    assert far["ci_high"] < 0
    assert far["estimate"] == pytest.approx((guesses[0] == labels).mean() - (guesses[1] == labels).mean())


def test_an_interval_is_never_a_point() -> None:
    labels = np.repeat([0, 1], [30, 12])
    own = scores(Outcomes.of(labels, np.stack([labels, labels]), 2))
    figure, gap = own.figure(0, "balanced_accuracy"), own.difference(1, 0, "balanced_accuracy")
    assert (figure["ci_low"], figure["ci_high"]) == pytest.approx(wilson_interval(1.0, 12, 0.95))
    assert gap["ci_high"] == pytest.approx(wilson_interval(0.0, 12, 0.95)[1]) == -gap["ci_low"]


def test_chunks_of_resamples_add_up_to_what_was_asked_for(
    tested: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("milkit.statistics.cell_intervals._WEIGHTS_AT_ONCE", 100)
    outcomes = Outcomes.of(*tested, C)
    parts = list(outcomes.weightings(37, seed=0))
    assert len(parts) > 1
    assert sum(len(part) for part in parts) == 37


@pytest.mark.parametrize("clustered", [False, True])
def test_intervals_cover_the_truth_where_groups_are_drawn_as_they_are(clustered: bool) -> None:
    """40 patients with 10 cells; a patient's cells are right together. Drawing cells alone would cover far less."""
    generator, covered = np.random.default_rng(0), 0
    groups, labels = np.repeat(np.arange(40), 10), np.tile(np.arange(10) % 2, 40)
    for seed in range(300):
        right = np.repeat(generator.random(40) < 0.7, 10)
        outcomes = Outcomes.of(labels, np.where(right, labels, 1 - labels)[None], 2, groups if clustered else None)
        figure = scores(outcomes, 500, seed).figure(0, "accuracy")
        covered += figure["ci_low"] <= 0.7 <= figure["ci_high"]
    assert (0.90 <= covered / 300 <= 0.98) if clustered else covered / 300 < 0.7


def test_the_penalty_of_the_linear_probe_is_dimension_times_classes_over_hundred() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = generator.normal(size=(60, 40)) + 3 * np.eye(3, 40)[labels]
    probe = linear_probe(features[:45], labels[:45], features[45:])
    assert probe.inverse_penalty == pytest.approx(40 * 3 / 100)
    assert probe.converged
    assert (probe.predicted == labels[45:]).mean() > 0.8


def test_the_linear_probe_says_that_it_did_not_converge() -> None:
    generator = np.random.default_rng(0)
    assert not linear_probe(generator.normal(size=(60, 9)) * 100, np.arange(60) % 2, np.zeros((1, 9)), 2).converged


def test_the_linear_probe_minimises_the_penalised_likelihood() -> None:
    """The gradient of 1/2 |W|² + C sum(-log p), written out, vanishes at scikit-learn's solution."""
    from scipy.optimize import minimize

    generator = np.random.default_rng(1)
    labels, features = np.arange(90) % 3, generator.normal(size=(90, 4))
    features += np.eye(3, 4)[labels]
    tested = generator.normal(size=(200, 4)) * 2

    def loss(flat: np.ndarray) -> float:
        weights, bias = flat[:12].reshape(3, 4), flat[12:]
        logits = features @ weights.T + bias
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return float(0.5 * (weights**2).sum() - 4 * 3 / 100 * log_p[np.arange(90), labels].sum())

    best = minimize(loss, np.zeros(15), method="BFGS", options={"gtol": 1e-7}).x
    expected = (tested @ best[:12].reshape(3, 4).T + best[12:]).argmax(axis=1)
    assert (linear_probe(features, labels, tested).predicted == expected).mean() > 0.98
