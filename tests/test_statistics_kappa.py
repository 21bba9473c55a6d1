"""Cohen's kappa against its formula cell by cell, a table worked by hand, and scikit-learn's."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from milkit.statistics.intervals import wilson_interval
from milkit.statistics.kappa import agreement, kappa


@pytest.fixture
def readings() -> tuple[np.ndarray, np.ndarray]:
    """Two readers of 90 cells and four labels, who agree on about two thirds."""
    generator = np.random.default_rng(0)
    first = generator.choice(4, size=90, p=[0.5, 0.3, 0.15, 0.05])
    return first, np.where(generator.random(90) < 0.6, first, generator.integers(0, 4, size=90))


def ones(n: int) -> np.ndarray:
    return np.ones((1, n))


def test_a_table_worked_by_hand() -> None:
    """20 and 15 cells with the same label, 5 and 10 with different ones: p_o = 0.7, p_e = 0.5, κ = 0.4."""
    first = np.repeat([0, 0, 1, 1], [20, 5, 10, 15])
    second = np.repeat([0, 1, 0, 1], [20, 5, 10, 15])
    assert kappa(first, second, ones(50), 2)[0] == pytest.approx(0.4, abs=1e-12)


def test_kappa_is_the_formula_s_with_cells_counted_as_often_as_they_weigh(
    readings: tuple[np.ndarray, np.ndarray],
) -> None:
    first, second = readings
    weights = np.random.default_rng(1).integers(0, 4, size=(5, 90))
    for row, found in zip(weights, kappa(first, second, weights.astype(np.float64), 4), strict=True):
        a, b = np.repeat(first, row).tolist(), np.repeat(second, row).tolist()
        equal = sum(x == y for x, y in zip(a, b, strict=True)) / len(a)
        by_chance = sum(a.count(c) / len(a) * b.count(c) / len(b) for c in range(4))
        assert found == pytest.approx((equal - by_chance) / (1 - by_chance), abs=1e-12)
        assert found == pytest.approx(cohen_kappa_score(a, b), abs=1e-12)


def test_kappa_does_not_depend_on_who_is_called_first(readings: tuple[np.ndarray, np.ndarray]) -> None:
    first, second = readings
    assert kappa(first, second, ones(90), 4)[0] == kappa(second, first, ones(90), 4)[0]


def test_independent_readers_have_kappa_0() -> None:
    generator = np.random.default_rng(2)
    first, second = generator.integers(0, 3, size=(2, 100_000))
    assert kappa(first, second, ones(100_000), 3)[0] == pytest.approx(0.0, abs=0.01)


def test_one_label_for_everything_leaves_kappa_undefined() -> None:
    same = np.zeros(6, dtype=np.int64)
    assert np.isnan(kappa(same, same, ones(6), 2)[0])
    assert np.isnan(agreement(same, same, np.arange(6)).kappa.ci_low)


def test_copies_of_a_patient_s_cells_do_not_narrow_the_interval(readings: tuple[np.ndarray, np.ndarray]) -> None:
    """Patients are what is drawn: seeing each cell five times says no more about other patients."""
    first, second = readings
    patients = np.arange(90) // 6
    once = agreement(first, second, patients, n_resamples=500)
    often = agreement(np.tile(first, 5), np.tile(second, 5), np.tile(patients, 5), n_resamples=500)
    assert often.kappa == pytest.approx(once.kappa, abs=1e-9)
    assert (once.n_cells, often.n_cells, often.n_patients) == (90, 450, 15)
    assert once.n_equal == (first == second).sum()


def test_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """40 patients of 8 cells, in whom a reader's mistakes come together; the truth is that of a million cells."""
    generator = np.random.default_rng(3)

    def read(n_patients: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        patients = np.repeat(np.arange(n_patients), 8)
        hard = generator.choice([0.05, 0.6], size=n_patients)[patients]
        first = generator.integers(0, 3, size=len(patients))
        return first, np.where(generator.random(len(patients)) < hard, (first + 1) % 3, first), patients

    first, second, _ = read(125_000)
    truth = kappa(first, second, ones(len(first)), 3)[0]
    held = [
        found.ci_low <= truth <= found.ci_high
        for found in (agreement(*read(40), n_resamples=400, seed=n).kappa for n in range(150))
    ]
    assert 0.90 <= np.mean(held) <= 0.985


def test_perfect_agreement_is_not_certain_of_itself() -> None:
    """All 12 cells of 4 patients are equal: the lower limit is Wilson's for 4 of 4, not 1."""
    labels = np.arange(12) % 2
    found = agreement(labels, labels, np.arange(12) // 3).kappa
    lowest = wilson_interval(1.0, 4, 0.95)[0]
    assert found == pytest.approx((1.0, (lowest - 0.5) / 0.5, 1.0), abs=1e-12)


def test_one_patient_gives_no_interval(readings: tuple[np.ndarray, np.ndarray]) -> None:
    first, second = readings
    found = agreement(first, second, np.zeros(90, dtype=np.int64)).kappa
    assert found.estimate == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)
    assert np.isnan([found.ci_low, found.ci_high]).all()
