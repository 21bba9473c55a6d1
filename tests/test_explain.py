"""Ranking and choosing cells."""

import numpy as np
import pandas as pd

from milkit.explain import cell_weights, choose_cells, consensus_predictions, ranks
from milkit.predictions import Attention, Predictions


def test_the_highest_weight_has_rank_1_and_percentile_100() -> None:
    rank, percentile = ranks(np.array([0.1, 0.6, 0.3]))
    assert rank.tolist() == [3, 1, 2]
    assert percentile.tolist() == [0, 100, 50]


def test_ties_keep_the_order_of_the_cells_and_a_single_cell_has_a_rank() -> None:
    assert ranks(np.array([0.5, 0.5]))[0].tolist() == [1, 2]
    assert ranks(np.array([1.0]))[0].tolist() == [1]


def _attention(classes: list[str]) -> Attention:
    rows = [
        ("P1", f"P1/{cell}", repeat, 0, 0, name, weight)
        for name in classes
        for repeat, weights in enumerate(([0.7, 0.2, 0.1], [0.5, 0.1, 0.4]))
        for cell, weight in enumerate(weights if name != "B" else weights[::-1])
    ]
    return Attention(pd.DataFrame(rows, columns=["patient_id", "cell_id", "repeat", "seed", "fold", "class", "weight"]))


def test_weights_are_averaged_over_held_out_models() -> None:
    cells = cell_weights(_attention(["*"]), pd.Series({"P1": "A"})).set_index("cell_id")
    np.testing.assert_allclose(cells["weight"], [0.6, 0.15, 0.25])
    assert cells["rank"].tolist() == [1, 3, 2]
    assert set(cells["class"]) == {"A"}


def test_class_wise_attention_is_that_of_the_predicted_class() -> None:
    cells = cell_weights(_attention(["A", "B"]), pd.Series({"P1": "B"})).set_index("cell_id")
    np.testing.assert_allclose(cells["weight"], [0.25, 0.15, 0.6])


def test_the_consensus_averages_probabilities_over_repeats() -> None:
    table = pd.DataFrame({"patient_id": ["P1", "P1"], "repeat": [0, 1], "fold": [0, 2], "label": ["B", "B"]})
    table["predicted"], table["p_A"], table["p_B"] = ["A", "B"], [0.6, 0.1], [0.4, 0.9]
    consensus = consensus_predictions(Predictions(table, ("A", "B")))
    assert consensus.loc["P1", "predicted"] == "B"
    assert consensus.loc["P1", "p_B"] == 0.65


def _ranked(n: int) -> pd.DataFrame:
    return pd.DataFrame({"cell_id": [f"c{i}" for i in range(n)], "rank": np.arange(1, n + 1)})


def test_no_cell_is_chosen_twice_and_groups_are_what_they_say() -> None:
    chosen = choose_cells(_ranked(30), top=4, random=5, bottom=3, seed=1)
    assert chosen["cell_id"].is_unique
    ranks_of = {name: part["rank"].tolist() for name, part in chosen.groupby("group")}
    assert ranks_of["top"] == [1, 2, 3, 4]
    assert ranks_of["bottom"] == [28, 29, 30]
    assert len(ranks_of["random"]) == 5
    assert set(ranks_of["random"]) <= set(range(5, 28))


def test_a_small_bag_serves_top_then_bottom_then_random() -> None:
    chosen = choose_cells(_ranked(5), top=4, random=5, bottom=3, seed=1)
    assert chosen["group"].tolist() == ["top"] * 4 + ["bottom"]
    assert choose_cells(_ranked(2), top=4, random=5, bottom=3, seed=1)["group"].tolist() == ["top", "top"]


def test_the_random_cells_are_the_same_for_the_same_seed() -> None:
    one, two = (choose_cells(_ranked(90), top=1, random=5, bottom=1, seed=s) for s in (1, 1))
    pd.testing.assert_frame_equal(one, two)


def test_a_class_called_all_keeps_its_own_attention() -> None:
    """ALL is a leukaemia: shared attention has a name that no label may have."""
    cells = cell_weights(_attention(["all", "B"]), pd.Series({"P1": "B"})).set_index("cell_id")
    np.testing.assert_allclose(cells["weight"], [0.25, 0.15, 0.6])


def test_the_only_cell_of_a_patient_has_percentile_100() -> None:
    assert ranks(np.array([1.0]))[1].tolist() == [100]
