"""Measures of batch effects against sums written out, limiting cases and simulation."""

import numpy as np
import pytest

from milkit.statistics import batch_effects as b
from milkit.statistics.neighbours import nearest_of_others


@pytest.fixture
def cells() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, sources and classes of 120 cells; both shift the features, and classes are mixed unevenly."""
    generator = np.random.default_rng(0)
    sources = np.repeat([0, 1, 2], [60, 40, 20])
    classes = (generator.random(120) < np.array([0.2, 0.5, 0.8])[sources]).astype(int)
    features = generator.normal(size=(120, 5)) + sources[:, None] + 2 * classes[:, None] * np.array([1, 0, 0, 0, 1])
    return features, sources, classes


def test_variance_explained_is_the_sum_of_squares_between_over_the_total(
    cells: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    features, sources, _ = cells
    mean, between, total = features.mean(axis=0), 0.0, 0.0
    for source in range(3):
        own = features[sources == source]
        between += len(own) * ((own.mean(axis=0) - mean) ** 2).sum()
    for row in features:
        total += ((row - mean) ** 2).sum()
    assert b.variance_explained(features, sources) == pytest.approx(between / total, rel=1e-12)


def test_variance_beyond_is_what_least_squares_gains(cells: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    features, sources, classes = cells

    def left(design: np.ndarray) -> float:
        fitted = design @ np.linalg.lstsq(design, features, rcond=None)[0]
        return float(((features - fitted) ** 2).sum())

    ones = np.ones(120)
    by_class, by_both = np.stack([ones, classes], 1), np.stack([ones, classes, sources == 1, sources == 2], 1)
    expected = (left(by_class) - left(by_both)) / left(ones[:, None])
    assert b.variance_beyond(features, sources, classes) == pytest.approx(expected, rel=1e-9)


def test_a_source_that_follows_from_the_class_explains_nothing_beyond_it(
    cells: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    features, sources, _ = cells
    assert b.variance_beyond(features, sources // 2, sources) == pytest.approx(0.0, abs=1e-12)


def test_sources_without_effect_explain_one_less_than_their_number_over_the_cells() -> None:
    generator = np.random.default_rng(1)
    shares = [b.variance_explained(generator.normal(size=(60, 20)), np.arange(60) % 4) for _ in range(200)]
    assert np.mean(shares) == pytest.approx(3 / 59, rel=0.03)


def test_constant_features_have_no_share_of_variance() -> None:
    assert np.isnan(b.variance_explained(np.ones((10, 3)), np.arange(10) % 2))


def test_the_silhouette_is_its_definition_averaged_over_the_groups(
    cells: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    features, sources, _ = cells
    values = []
    for i, source in enumerate(sources):
        gaps = np.sqrt(((features - features[i]) ** 2).sum(axis=1))
        own = gaps[(sources == source) & (np.arange(120) != i)].mean()
        other = min(gaps[sources == s].mean() for s in range(3) if s != source)
        values.append((other - own) / max(own, other))
    expected = np.mean([np.array(values)[sources == s].mean() for s in range(3)])
    assert b.silhouette(features, sources) == pytest.approx(expected, rel=1e-6)


def test_the_share_of_the_own_source_counts_every_source_alike() -> None:
    sources = np.array([0, 0, 0, 1])
    neighbours = np.array([[1, 2], [0, 3], [3, 1], [0, 1]])
    assert b.same_source_share(sources, neighbours) == pytest.approx(((1 + 0.5 + 0.5) / 3 + 0) / 2)


def test_chance_is_what_shuffled_sources_give_on_average(cells: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    features, sources, classes = cells
    neighbours = nearest_of_others(features, np.arange(120), 10)
    generator = np.random.default_rng(2)

    def shuffled(kinds: np.ndarray) -> np.ndarray:
        result = sources.copy()
        for kind in np.unique(kinds):
            own = np.flatnonzero(kinds == kind)
            result[own] = sources[generator.permutation(own)]
        return result

    plain = np.mean([b.same_source_share(shuffled(np.zeros(120)), neighbours) for _ in range(400)])
    assert b.chance_of_same_source(sources, neighbours) == pytest.approx(plain, abs=0.005)
    table = np.array([[((sources == s) & (classes == c)).sum() for c in range(2)] for s in range(3)])
    expected = []
    for s in range(3):
        shares = []
        for i in np.flatnonzero(sources == s):
            for j in neighbours[i]:
                same = int(classes[i] == classes[j])
                shares.append((table[s, classes[j]] - same) / (table[:, classes[j]].sum() - same))
        expected.append(np.mean(shares))
    assert b.chance_of_same_source(sources, neighbours, classes) == pytest.approx(np.mean(expected), rel=1e-12)


def test_chance_leaves_out_the_own_patient_whose_cells_are_never_neighbours() -> None:
    sources, groups = np.repeat([0, 1], 500), np.repeat(np.arange(10), 100)
    features = np.random.default_rng(0).normal(size=(1000, 3))
    neighbours = nearest_of_others(features, groups, 10)
    assert b.chance_of_same_source(sources, neighbours, groups=groups) == pytest.approx(400 / 900)
    assert b.same_source_share(sources, neighbours) == pytest.approx(400 / 900, abs=0.03)


def test_chance_within_classes_is_one_where_no_class_is_shared() -> None:
    sources = np.arange(40) % 2
    neighbours = nearest_of_others(
        np.random.default_rng(0).normal(size=(40, 2)) + 50 * sources[:, None], sources * 0 + np.arange(40), 5
    )
    assert b.chance_of_same_source(sources, neighbours, sources) == 1.0


def test_effective_sources_runs_from_one_to_their_number() -> None:
    sources = np.array([0, 0, 1, 1])
    alone, mixed = np.array([[1, 1], [0, 0], [3, 3], [2, 2]]), np.array([[0, 2]] * 4)
    assert b.effective_sources(sources, alone) == 1.0
    assert b.effective_sources(sources, mixed) == 2.0


def test_standardised_sources_have_mean_zero_and_spread_one(cells: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    features, sources, _ = cells
    after = b.standardise(features, sources)
    for source in range(3):
        np.testing.assert_allclose(after[sources == source].mean(axis=0), 0, atol=1e-12)
        np.testing.assert_allclose(after[sources == source].std(axis=0), 1, rtol=1e-12)
    assert b.variance_explained(after, sources) == pytest.approx(0, abs=1e-12)


def test_means_and_spreads_come_from_the_fitted_cells_alone(cells: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    features, sources, _ = cells
    train = np.arange(120) % 2 == 0
    before, changed = features.copy(), features.copy()
    changed[~train] += 100
    np.testing.assert_array_equal(
        b.standardise(before, sources, train)[train], b.standardise(changed, sources, train)[train]
    )
    assert b.standardise(changed, sources, train)[~train].min() > 20


def test_a_feature_that_is_constant_in_a_source_is_centred_and_stays_finite() -> None:
    features = np.array([[3.0, 1.0], [3.0, 2.0], [5.0, 1.0], [7.0, 2.0]])
    after = b.standardise(features, np.array([0, 0, 1, 1]))
    assert after[:, 0].tolist() == [0, 0, -1, 1]
