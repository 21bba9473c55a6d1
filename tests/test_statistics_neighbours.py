"""Nearest neighbours and votes against distances written out, and against scikit-learn's classifier."""

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from milkit.statistics.neighbours import nearest, nearest_of_others, vote


def distances(train: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances in double precision, pair by pair."""
    return np.array([[((query - row) ** 2).sum() for row in train.astype(np.float64)] for query in queries])


@pytest.fixture
def cells() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return generator.normal(size=(90, 7)).astype(np.float32), generator.normal(size=(25, 7)).astype(np.float32)


def test_the_neighbours_are_those_of_all_distances_in_their_order(cells: tuple[np.ndarray, np.ndarray]) -> None:
    train, queries = cells
    expected = np.argsort(distances(train, queries), axis=1)[:, :20]
    np.testing.assert_array_equal(nearest(train, queries, 20), expected)


def test_equally_distant_neighbours_are_as_near_as_any_choice_of_them() -> None:
    generator = np.random.default_rng(1)
    train, queries = (generator.integers(0, 2, size=(n, 4)).astype(np.float32) for n in (60, 20))
    all_distances = distances(train, queries)
    chosen = np.take_along_axis(all_distances, nearest(train, queries, 20), axis=1)
    np.testing.assert_array_equal(chosen, np.sort(all_distances, axis=1)[:, :20])


@pytest.mark.parametrize(("k", "tied"), [(1, False), (5, False), (20, False), (1, True), (20, True)])
def test_votes_of_one_search_are_the_predictions_of_scikit_learn(k: int, tied: bool) -> None:
    """Also where two classes have equally many votes, and where distances are tied, as copies of an image are."""
    generator = np.random.default_rng(2)
    train, queries = generator.normal(size=(80, 3)), generator.normal(size=(40, 3))
    if tied:
        train, queries = train.round(), queries.round()
    labels = generator.integers(0, 4, size=80)
    ours = vote(labels[nearest(train, queries, 20)[:, :k]], 4)
    theirs = KNeighborsClassifier(n_neighbors=k, algorithm="brute").fit(train, labels).predict(queries)
    np.testing.assert_array_equal(ours, theirs)


def test_a_draw_is_won_by_the_first_class() -> None:
    assert vote(np.array([[2, 1, 2, 1], [0, 0, 3, 1]]), 4).tolist() == [1, 0]


def test_others_are_never_of_the_own_group() -> None:
    generator = np.random.default_rng(3)
    features, groups = generator.normal(size=(60, 4)).astype(np.float32), np.arange(60) // 6
    gaps = distances(features, features)
    gaps[groups[:, None] == groups[None, :]] = np.inf
    np.testing.assert_array_equal(nearest_of_others(features, groups, 7), np.argsort(gaps, axis=1)[:, :7])


def test_a_cell_is_not_its_own_neighbour() -> None:
    features = np.zeros((6, 2), dtype=np.float32)  # all equal: nothing but the group tells cells apart
    found = nearest_of_others(features, np.arange(6), 5)
    assert not (found == np.arange(6)[:, None]).any()
