"""The order of images: permutations, shares, and the same image for a number wherever it is asked for."""

import itertools
import pickle
import time
from collections import Counter

import numpy as np
import pytest

from encoders.dinov2.sampling import BLOCK, Draws, generator_of, key_of, permuted
from milkit.errors import SettingsError


@pytest.mark.parametrize("n", [*range(1, 40), 97, 256, 1000, 4096, 4097, 10_007])
def test_a_permutation_has_every_number_once(n: int) -> None:
    for key in (0, key_of("some", "key"), 2**64 - 1):
        assert sorted(permuted(n, i, key) for i in range(n)) == list(range(n))


def test_every_order_of_a_few_is_as_likely_as_any_other() -> None:
    """Chi-squared over keys: 23 degrees of freedom, exceeded by 52 once in 2,000."""
    orders = Counter(tuple(permuted(4, i, key_of(number)) for i in range(4)) for number in range(4800))
    assert set(orders) == set(itertools.permutations(range(4)))
    assert sum((count - 200) ** 2 / 200 for count in orders.values()) < 52


def test_neighbours_do_not_stay_neighbours() -> None:
    n = 10_000
    order = np.array([permuted(n, i, key_of(1)) for i in range(n)])
    assert abs(np.corrcoef(order, np.arange(n))[0, 1]) < 0.04
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.04
    steps = np.diff(order)
    assert (np.abs(steps) == 1).sum() < 12  # two expected
    assert np.unique(steps).size > 0.6 * n  # no constant stride


def test_a_permutation_of_a_million_million_takes_no_longer_and_no_memory() -> None:
    started = time.perf_counter()
    found = [permuted(10**12, i, 5) for i in range(1000)]
    assert time.perf_counter() - started < 1
    assert len(set(found)) == 1000
    assert 0 <= min(found) < max(found) < 10**12


def test_the_order_is_the_same_in_every_version() -> None:
    """Written down, since a run that is resumed after an upgrade must go on in its order."""
    assert key_of(3, "row", 1, 0) == 6759699662785933613
    assert [permuted(10, i, 1) for i in range(10)] == [0, 1, 6, 7, 2, 9, 4, 8, 3, 5]
    assert [tuple(Draws((30, 5), (2, 1), seed=1).at(number)) for number in (0, 1, 4095, 4096, 10**9)] == [
        (0, 3),
        (0, 27),
        (0, 7),
        (0, 15),
        (1, 3),
    ]


def test_names_of_generators_do_not_run_together() -> None:
    names = [(1, 23), (12, 3), ("1", 23), (1, 2, 3), ("1, 23",)]
    assert len({key_of(*name) for name in names}) == len(names)
    assert len({generator_of(*name).random() for name in names}) == len(names)


@pytest.mark.parametrize(
    ("sizes", "weights", "shares"),
    [
        ((300, 100), None, (3072, 1024)),
        ((300, 100), (1, 1), (2048, 2048)),
        ((5, 5, 5), (1, 1, 1), (1366, 1365, 1365)),
        ((5, 5, 5), (0.2, 0, 0.6), (1024, 0, 3072)),
        ((10**9, 7), None, (4095, 1)),
        ((10**9, 1, 1), None, (4094, 1, 1)),
    ],
)
def test_each_block_holds_a_source_as_often_as_its_weight_says(
    sizes: tuple[int, ...], weights: tuple[float, ...] | None, shares: tuple[int, ...]
) -> None:
    draws = Draws(sizes, weights, seed=0)
    assert draws.shares == shares
    for block in (0, 1, 77):
        counts = Counter(draws.at(number).source for number in range(block * BLOCK, (block + 1) * BLOCK))
        assert tuple(counts[source] for source in range(len(sizes))) == shares


def test_a_batch_holds_sources_about_as_often_as_a_block() -> None:
    draws = Draws((50, 50), (3, 1), seed=4)
    counts = [sum(draws.at(step * 64 + i).source for i in range(64)) for step in range(64)]
    assert np.std(counts) == pytest.approx(np.sqrt(64 * 3 / 16), rel=0.35)  # neither in runs nor evenly spread
    orders = [[draws.at(block * BLOCK + i).source for i in range(BLOCK)] for block in (0, 1)]
    assert orders[0] != orders[1]


def test_all_images_of_a_source_come_once_before_one_comes_again() -> None:
    sizes = (13, 700, 5000)
    draws = Draws(sizes, (1, 1, 2), seed=9)
    rows: dict[int, list[int]] = {source: [] for source in range(3)}
    for number in range(4 * BLOCK):
        source, row = draws.at(number)
        rows[source].append(row)
    for source, size in enumerate(sizes):
        epochs = [rows[source][i : i + size] for i in range(0, len(rows[source]), size)]
        assert all(len(set(epoch)) == len(epoch) for epoch in epochs)
        assert sorted(epochs[0]) == list(range(size))
        assert len(epochs) > 1
        assert epochs[0] != epochs[1]


def test_a_number_means_the_same_image_whoever_asks_and_in_which_order() -> None:
    draws = Draws((40, 9, 333), (1, 2, 3), seed=2)
    in_order = [draws.at(number) for number in range(2 * BLOCK)]
    copy = pickle.loads(pickle.dumps(draws))
    for number in (8191, 0, 4096, 4095, 1, 6000):
        assert copy.at(number) == in_order[number]


def test_seeds_and_purposes_have_orders_of_their_own() -> None:
    orders = [
        [Draws((1000,), seed=seed, purpose=purpose).at(number).row for number in range(100)]
        for seed, purpose in ((0, "cells"), (1, "cells"), (0, "labelled"))
    ]
    assert all(len(set(a) & set(b)) < 40 and a != b for a, b in itertools.combinations(orders, 2))


@pytest.mark.parametrize(
    ("sizes", "weights", "said"),
    [
        ((3, 4), (1.0,), "1 weights were given for 2 sources of images; give each source one weight."),
        (
            (3, 4),
            (0.0, 0.0),
            "The weights of the sources are (0.0, 0.0), expected numbers from 0 on, not all of them 0; mend them.",
        ),
        (
            (3, 4),
            (1.0, float("nan")),
            "The weights of the sources are (1.0, nan), expected numbers from 0 on, not all of them 0; mend them.",
        ),
        (
            (3, 0),
            (1.0, 2.0),
            "Source 2 of 2 has a weight and no images; leave it out, or weigh it with 0.",
        ),
        (
            (1,) * 4097,
            None,
            "4097 sources of images have a weight, expected at most 4096; join some of them.",
        ),
    ],
)
def test_weights_that_mean_nothing_are_refused(
    sizes: tuple[int, ...], weights: tuple[float, ...] | None, said: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        Draws(sizes, weights, seed=0)
    assert str(caught.value) == said
