"""Agreement of models: 1 where they are the same, and what chance gives where they have nothing in common."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import spearmanr

from milkit.explain import cell_weights
from milkit.explain.agreement import Model, agreement, jaccard_chance, rank_correlations
from milkit.explain.attribution import attribute
from milkit.explain.parts import Bagged
from milkit.explain.ranking import in_top
from milkit.mil.heads import build_head
from milkit.mil.train import Standardised
from milkit.predictions import Attention
from milkit.settings import Component

SEEDS = [Model(0, 1, seed) for seed in range(3)]
REPEATS = [Model(repeat, 2 * repeat, 0) for repeat in range(4)]


def test_identical_models_agree_fully() -> None:
    scores = np.tile(np.random.default_rng(0).normal(size=80), (3, 1))
    told = agreement(scores, SEEDS, 20)
    assert set(told) == {"seeds"}
    assert told["seeds"].jaccard == 1
    assert told["seeds"].rank_correlation == pytest.approx(1)
    assert told["seeds"].pairs == 3


def test_independent_random_heads_agree_as_chance_would_have_it() -> None:
    """Heads with nothing in common but the cells: each scores by features of its own."""
    generator = torch.Generator().manual_seed(0)
    shares, chances = [], []
    for number in range(40):
        scores = []
        for seed in range(2):
            torch.manual_seed(100 * number + seed)
            head = build_head(Component(name="abmil"), 16, 2)
            own = torch.randn(80, 16, generator=generator)
            scores.append(attribute(Bagged(Standardised(head, torch.zeros(16), torch.ones(16)), own), "attention")[0])
        told = agreement(torch.stack(scores).double().numpy(), REPEATS[:2], 20)["repeats"]
        shares.append(told.jaccard)
        chances.append(told.jaccard_chance)
    expected = _exact_chance(80, 20, 20)
    assert np.mean(shares) == pytest.approx(expected, abs=0.05)
    assert chances == pytest.approx([expected] * 40)


def _exact_chance(n: int, a: int, b: int) -> float:
    """The expected Jaccard index by counting: A fixed, B any of the sets of b cells."""
    from math import comb

    terms = [
        Fraction(comb(a, x) * comb(n - a, b - x) * x, comb(n, b) * (a + b - x))
        for x in range(max(0, a + b - n), min(a, b) + 1)
    ]
    return float(sum(terms))


@pytest.mark.parametrize(("n", "a", "b"), [(80, 20, 20), (12, 5, 3), (20, 20, 20), (7, 6, 4), (9, 0, 4)])
def test_the_chance_level_is_the_hypergeometric_expectation(n: int, a: int, b: int) -> None:
    assert jaccard_chance(n, a, b) == pytest.approx(_exact_chance(n, a, b), rel=1e-12)


def test_the_chance_level_is_that_of_all_pairs_of_sets() -> None:
    sets = [set(chosen) for chosen in combinations(range(6), 3)]
    every = [len(one & other) / len(one | other) for one in sets for other in sets]
    assert jaccard_chance(6, 3, 3) == pytest.approx(np.mean(every))


def test_two_empty_tops_have_no_chance_level() -> None:
    assert np.isnan(jaccard_chance(9, 0, 0))


def test_rank_correlation_is_spearman_s_with_ties() -> None:
    scores = np.random.default_rng(1).integers(0, 6, size=(4, 30)).astype(np.float64)
    np.testing.assert_allclose(rank_correlations(scores), spearmanr(scores, axis=1).statistic)


def test_pairs_of_one_split_are_told_from_pairs_of_several() -> None:
    scores = np.random.default_rng(2).normal(size=(4, 50))
    models = [Model(0, 1, 0), Model(0, 1, 1), Model(1, 3, 0), Model(1, 3, 1)]
    told = agreement(scores, models, 10)
    assert {kind: one.pairs for kind, one in told.items()} == {"seeds": 2, "repeats": 4}
    tops = [set(np.argsort(-row)[:10]) for row in scores]
    expected = [len(tops[i] & tops[j]) / len(tops[i] | tops[j]) for i, j in ((0, 1), (2, 3))]
    assert told["seeds"].jaccard == pytest.approx(np.mean(expected))


def test_equal_weights_have_no_top_and_are_no_agreement() -> None:
    told = agreement(np.full((2, 40), 1 / 40), REPEATS[:2], 20)["repeats"]
    assert np.isnan([told.jaccard, told.jaccard_chance, told.rank_correlation]).all()


def test_one_model_agrees_with_nobody() -> None:
    assert agreement(np.random.default_rng(3).normal(size=(1, 40)), SEEDS[:1], 20) == {}


def test_the_top_is_what_no_order_of_ties_could_change() -> None:
    scores = np.array([5.0, 3.0, 3.0, 3.0, 1.0])
    assert in_top(scores, 1).tolist() == [True, False, False, False, False]
    assert in_top(scores, 2).tolist() == [True, False, False, False, False]
    assert in_top(scores, 4).tolist() == [True, True, True, True, False]
    assert in_top(scores, 9).all()


def _attention(n_cells: int, n_models: int) -> Attention:
    rows = [
        ("P1", f"P1/{cell}", model, 0, 0, "*", float(cell == model) + (0.5 if cell < 19 else 0.001 * cell))
        for model in range(n_models)
        for cell in range(n_cells)
    ]
    return Attention(pd.DataFrame(rows, columns=["patient_id", "cell_id", "repeat", "seed", "fold", "class", "weight"]))


def test_a_cell_s_agreement_says_in_how_many_models_it_is_among_the_top() -> None:
    cells = cell_weights(_attention(30, 2), pd.Series({"P1": "A"})).set_index("cell_id")
    assert cells.loc["P1/0", "agreement"] == "2 of 2"
    assert cells.loc["P1/29", "agreement"] == "2 of 2"
    assert cells.loc["P1/25", "agreement"] == "0 of 2"


@pytest.mark.parametrize(("n_cells", "n_models"), [(30, 1), (20, 2)])
def test_one_model_and_a_small_bag_have_no_agreement(n_cells: int, n_models: int) -> None:
    assert cell_weights(_attention(n_cells, n_models), pd.Series({"P1": "A"}))["agreement"].isna().all()
