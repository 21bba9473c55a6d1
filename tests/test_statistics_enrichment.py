"""Enrichment over patients: against the formulas written out, exact small cases, and simulated patients."""

from itertools import product
from math import comb

import numpy as np
import pytest

from milkit.statistics.enrichment import Strata


def strata(n_cells: list[int], n_chosen: list[int], of_kind: list[int], both: list[int]) -> Strata:
    """One kind of cell."""
    columns = np.array(of_kind)[:, None], np.array(both)[:, None]
    return Strata(np.array(n_cells), np.array(n_chosen), *columns)


SOME = ([40, 60, 30], [10, 10, 5], [8, 30, 3], [5, 7, 1])
ONES = np.ones((1, 3))


def test_enrichment_is_observed_over_expected() -> None:
    expected = 10 * 8 / 40 + 10 * 30 / 60 + 5 * 3 / 30
    assert strata(*SOME).enrichment(ONES)[0, 0] == pytest.approx((5 + 7 + 1) / expected, rel=1e-12)


def test_the_odds_ratio_is_that_of_mantel_and_haenszel() -> None:
    above = below = 0.0
    for n, k, m, x in zip(*SOME, strict=True):
        a, b, c = x, k - x, m - x
        d = n - a - b - c
        above, below = above + a * d / n, below + b * c / n
    assert strata(*SOME).odds_ratio(ONES)[0, 0] == pytest.approx(above / below, rel=1e-12)


def test_weights_count_a_patient_as_often_as_they_say() -> None:
    twice = [[*values, values[0]] for values in SOME]
    for figure in ("enrichment", "odds_ratio"):
        weighted = getattr(strata(*SOME), figure)(np.array([[2.0, 1.0, 1.0]]))
        assert weighted == pytest.approx(getattr(strata(*twice), figure)(np.ones((1, 4))))


def test_a_kind_that_is_in_every_top_only_has_an_infinite_odds_ratio() -> None:
    assert strata([20, 20], [5, 5], [2, 3], [2, 3]).odds_ratio(np.ones((1, 2)))[0, 0] == np.inf


def test_the_p_within_patients_goes_through_all_choices() -> None:
    tables = [(6, 2, 3, 2), (5, 2, 2, 1)]
    chances: dict[int, float] = {}
    for picked in product(*(range(comb(n, k)) for n, k, _, _ in tables)):
        found = 0
        for (n, k, m, _), number in zip(tables, picked, strict=True):
            chosen = _subset(n, k, number)
            found += sum(cell < m for cell in chosen)
        chances[found] = chances.get(found, 0) + 1 / (comb(6, 2) * comb(5, 2))
    upper = sum(chance for found, chance in chances.items() if found >= 3)
    lower = sum(chance for found, chance in chances.items() if found <= 3)
    own = strata(*map(list, zip(*tables, strict=True))).within_patients()[0]
    assert own == pytest.approx(min(1.0, 2 * min(upper, lower)), rel=1e-12)


def test_the_p_over_patients_goes_through_all_signs() -> None:
    own = strata(*SOME)
    excess = (own.both - own.expected)[:, 0]
    sums = [abs(sum(s * e for s, e in zip(signs, excess, strict=True))) for signs in product([-1, 1], repeat=3)]
    assert own.over_patients(0)[0] == np.mean([total >= abs(excess.sum()) - 1e-12 for total in sums])


def test_five_patients_never_reach_a_twentieth() -> None:
    own = strata([40] * 5, [10] * 5, [10] * 5, [10] * 5)
    assert own.within_patients()[0] < 1e-20
    assert own.p_value(0)[0] == 2 / 2**5


def test_patients_who_could_not_differ_say_nothing() -> None:
    informed = strata(*SOME)
    more = strata(
        *([*values, *added] for values, added in zip(SOME, [(9, 8, 7), (3, 8, 2), (0, 4, 7), (0, 4, 2)], strict=True))
    )
    assert more.informative[:, 0].tolist() == [True] * 3 + [False] * 3
    assert more.p_value(0) == pytest.approx(informed.p_value(0))


def test_no_patient_who_could_differ_has_no_p() -> None:
    own = strata([10, 12], [3, 3], [0, 12], [0, 3])
    assert np.isnan(own.within_patients()[0])
    assert np.isnan(own.over_patients(0)[0])


def test_like_cells_ranked_alike_mislead_the_p_within_patients_alone() -> None:
    """Each patient prefers the kind, or the others, at random: nothing that the next patient would share."""
    generator = np.random.default_rng(0)
    within, over = [], []
    for _ in range(200):
        of_kind, both = [], []
        for _ in range(14):
            m = int(generator.integers(10, 60))
            scores = generator.gumbel(size=100) + generator.normal() * (np.arange(100) < m)
            of_kind.append(m)
            both.append(int((np.argsort(-scores)[:20] < m).sum()))
        own = strata([100] * 14, [20] * 14, of_kind, both)
        within.append(own.within_patients()[0])
        over.append(own.p_value(0)[0])
    assert np.mean(np.array(within) < 0.05) > 0.2
    assert np.mean(np.array(over) < 0.05) < 0.09


def _subset(n: int, k: int, number: int) -> list[int]:
    """The ``number``-th way to choose ``k`` of ``n``."""
    chosen, first = [], 0
    while k:
        ways = comb(n - first - 1, k - 1)
        if number < ways:
            chosen.append(first)
            k -= 1
        else:
            number -= ways
        first += 1
    return chosen
