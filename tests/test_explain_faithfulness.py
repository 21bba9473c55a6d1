"""Deletion and insertion: the curves against the model itself, and that chance is not called faithful."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from toys import CLASSES, make_store, toy_patients

from milkit.bags import BagStore
from milkit.errors import RunError
from milkit.explain.attribution import attribute
from milkit.explain.faithfulness import chance, curves, gaps, judge, judge_patient, kept_cells, order_of
from milkit.explain.known_cells import chance_precision, found, read_known
from milkit.explain.parts import Bagged
from milkit.mil.heads import build_head
from milkit.mil.train import Standardised
from milkit.settings import Component
from milkit.statistics.discrimination import average_precision

JUDGED = {"level": 0.95, "n_bootstrap": 500, "seed": 0}


def toy_bags(number: int, n_cells: int = 30, name: str = "abmil") -> list[Bagged]:
    """Two heads with random weights before the same random cells, in double precision."""
    torch.manual_seed(number)
    features = torch.randn(n_cells, 6).double()
    heads = [build_head(Component(name=name), 6, 3) for _ in range(2)]
    return [Bagged(Standardised(head, torch.zeros(6), torch.ones(6)).double(), features) for head in heads]


def test_a_curve_ends_with_the_whole_bag_and_starts_with_a_cell() -> None:
    assert kept_cells(30, 10) == [3, 6, 9, 12, 15, 18, 21, 24, 27, 30]
    assert kept_cells(3, 10)[0] == 1
    assert kept_cells(1, 4) == [1, 1, 1, 1]


def test_curves_are_log_odds_of_the_first_and_of_the_last_cells() -> None:
    bags = toy_bags(0)
    order = np.random.default_rng(0).permutation(30)
    result = curves(bags, order[None], 1, 10)[0]
    for point, kept in enumerate(kept_cells(30, 10)):
        for row, cells in ((0, order[:kept]), (1, order[30 - kept :])):
            odds = []
            for bag in bags:
                features = bag.features[torch.from_numpy(cells)][None]
                with torch.no_grad():
                    logits = bag.model(features, torch.ones(1, kept, dtype=torch.bool)).logits[0]
                p = torch.softmax(logits, dim=0)[1]
                odds.append(float(torch.log(p / (1 - p))))
            assert result[row, point] == pytest.approx(np.mean(odds))


def test_the_reverse_of_a_ranking_has_the_opposite_gap() -> None:
    order = np.random.default_rng(1).permutation(30)
    forth, back = gaps(curves(toy_bags(1), np.stack([order, order[::-1].copy()]), 0, 10))
    assert forth == pytest.approx(-back)
    assert abs(forth) > 1e-6


def _judged(score: str, n_patients: int = 12) -> dict[str, object]:
    generator = np.random.default_rng(0)
    own, random = [], []
    for number in range(n_patients):
        bags = toy_bags(number)
        scores = torch.stack([attribute(bag, "leave_one_out")[0] for bag in bags]).mean(dim=0).numpy()
        shown = {"own": scores, "shuffled": generator.permutation(scores), "constant": np.zeros(30)}[score]
        orders = [order_of(shown, generator), *(generator.permutation(30) for _ in range(20))]
        both = curves(bags, np.stack(orders), 0, 10)
        own.append(both[0])
        random.append(both[1:])
    return judge(np.stack(own), np.stack(random), **JUDGED)


def test_what_the_model_goes_by_is_faithful() -> None:
    told = _judged("own")
    assert told["faithful"] is True
    assert told["beats_random"] == told["n_random"] == 20
    assert told["p"] == pytest.approx(1 / 21)
    assert told["insertion"]["area"] > told["insertion"]["random"]  # type: ignore[index]
    assert told["deletion"]["area"] < told["deletion"]["random"]  # type: ignore[index]
    assert told["deletion"]["beats_random"] == 20  # type: ignore[index]


@pytest.mark.parametrize("score", ["shuffled", "constant"])
def test_a_shuffled_ranking_and_one_without_order_are_not_faithful(score: str) -> None:
    assert _judged(score)["faithful"] is False


def test_random_rankings_are_called_faithful_by_chance_alone() -> None:
    generator = np.random.default_rng(3)
    own, random = generator.normal(size=(600, 15, 2, 4)), generator.normal(size=(600, 15, 20, 2, 4))
    told = [judge(a, b, level=0.95, n_bootstrap=100, seed=0) for a, b in zip(own, random, strict=True)]
    share = np.mean([one["faithful"] for one in told])
    assert share < 0.07


def test_chance_counts_the_ranking_itself_and_ties_against_it() -> None:
    assert chance(3.0, np.array([1.0, 2.0, 3.0])) == 0.5
    assert chance(4.0, np.array([1.0, 2.0, 3.0])) == 0.25


def test_a_patient_with_one_cell_has_no_faithful_ranking() -> None:
    same = np.ones((2, 10))
    told = judge_patient(same, np.stack([same] * 20))
    assert told["faithful"] is False
    assert told["gap"] == told["gap_random"] == 0


def test_a_patient_s_ranking_is_faithful_when_it_beats_every_random_one() -> None:
    own = np.stack([np.full(10, 2.0), np.full(10, -1.0)])
    random = np.zeros((20, 2, 10))
    told = judge_patient(own, random)
    assert told == {
        "insertion": 2.0, "deletion": -1.0, "gap": 3.0, "gap_random": 0.0, "beats_random": 20, "faithful": True
    }  # fmt: skip
    random[0, 0] = 4.0
    assert judge_patient(own, random)["faithful"] is False


def test_equal_scores_are_put_in_random_order() -> None:
    generator = np.random.default_rng(0)
    orders = {tuple(order_of(np.array([1.0, 2.0, 1.0, 1.0]), generator)) for _ in range(50)}
    assert {order[0] for order in orders} == {1}
    assert len(orders) == 6


def _ranked(n_patients: int, n_cells: int, n_known: int, shift: float, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng(seed)
    matters = np.tile(np.arange(n_cells) < n_known, n_patients)
    return pd.DataFrame(
        {
            "patient_id": np.repeat([f"P{i}" for i in range(n_patients)], n_cells),
            "score": generator.normal(size=n_patients * n_cells) + shift * matters,
            "matters": matters,
        }
    )


def test_known_cells_that_are_found_are_told_with_intervals_over_patients() -> None:
    ranked = _ranked(20, 50, 10, 1.5)
    told = found(ranked, (5, 20), **JUDGED)
    assert told is not None
    expected, precision = [], []
    for _, bag in ranked.groupby("patient_id"):
        matters, scores = bag["matters"].to_numpy(), bag["score"].to_numpy()
        expected.append(average_precision(matters, scores, np.ones((1, 50)))[0])
        precision.append(matters[np.argsort(-scores)[:5]].mean())
    assert told["n_patients"] == 20
    assert told["prevalence"] == pytest.approx(0.2)
    assert told["average_precision"]["estimate"] == pytest.approx(np.mean(expected))
    assert told["precision"]["5"]["estimate"] == pytest.approx(np.mean(precision))
    assert told["enrichment"]["5"]["estimate"] == pytest.approx(np.mean(precision) / 0.2)
    assert told["enrichment"]["5"]["ci_low"] > 1
    assert told["average_precision"]["ci_low"] < np.mean(expected) < told["average_precision"]["ci_high"]


def test_cells_that_are_found_by_chance_are_not_enriched() -> None:
    told = [found(_ranked(40, 50, 10, 0.0, seed), (20,), **JUDGED) for seed in range(40)]
    enrichments = [one["enrichment"]["20"] for one in told if one]
    assert np.mean([one["ci_low"] < 1 < one["ci_high"] for one in enrichments]) >= 0.85
    precisions = [one["average_precision"]["estimate"] for one in told if one]
    assert np.mean(precisions) == pytest.approx(told[0]["average_precision_random"], abs=0.01)  # type: ignore[index]


def test_the_chance_level_of_average_precision_is_the_mean_of_all_orders() -> None:
    matters = np.array([True, True, False, False, False, False])
    orders = [-np.array(order, dtype=np.float64) for order in permutations(range(6))]
    every = [average_precision(matters, scores, np.ones((1, 6)))[0] for scores in orders]
    assert chance_precision(6, 2) == pytest.approx(np.mean(every), rel=1e-12)
    assert chance_precision(1, 1) == 1


def test_a_single_patient_has_no_interval() -> None:
    told = found(_ranked(1, 50, 10, 1.0), (5,), **JUDGED)
    assert told is not None
    assert np.isfinite(told["average_precision"]["estimate"])
    assert np.isnan([told["average_precision"]["ci_low"], told["enrichment"]["5"]["ci_high"]]).all()


@pytest.mark.parametrize("n_known", [4, 16])
def test_patients_with_few_or_with_many_known_cells_are_left_out(n_known: int) -> None:
    assert found(_ranked(5, 50, n_known, 1.0), (5,), **JUDGED) is None


@pytest.fixture
def typed_store(tmp_path: Path) -> BagStore:
    """The toy store, with a cell type for the first four cells of every patient."""
    store = make_store(tmp_path / "typed.zarr", toy_patients())
    number = store.cells["cell_id"].str.extract(r"_(\d+)$")[0].astype(int)
    types = pd.Series(["blast", "faggot cell", "lymphocyte", "blast"]).reindex(number).to_numpy()
    store.replace_cells(store.cells.assign(cell_type=types))
    return store


def test_types_say_which_cells_matter_in_patients_of_a_class(typed_store: BagStore) -> None:
    known = read_known(None, typed_store, {"NPM1": ("blast",), "PML_RARA": ("faggot cell", "blast")})
    assert known is not None
    table = typed_store.cells.merge(known, on="cell_id")
    labels = table["patient_id"].map(typed_store.patients["label"])
    assert set(labels) == {"NPM1", "PML_RARA"}
    assert set(table.loc[table["matters"] & (labels == "NPM1"), "cell_type"]) == {"blast"}
    assert set(table.loc[table["matters"] & (labels == "PML_RARA"), "cell_type"]) == {"blast", "faggot cell"}
    assert len(table) == 4 * 12


def test_a_table_of_planted_cells_needs_no_types(toy_store: BagStore, tmp_path: Path) -> None:
    (tmp_path / "planted.csv").write_text("cell_id,planted\nP00/image_0,1\nP00/image_1,0\nP00/image_2,\nother,1\n")
    known = read_known(tmp_path / "planted.csv", toy_store, {})
    assert known is not None
    assert known.set_index("cell_id")["matters"].to_dict() == {"P00/image_0": True, "P00/image_1": False}


def test_without_a_table_and_without_types_nothing_is_known(toy_store: BagStore) -> None:
    assert read_known(None, toy_store, {}) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cell,planted\na,1\n", r"has the columns cell, planted, expected cell_id and one of planted, matters and"),
        ("cell_id,planted\na,1\n", r"No cell_id of .*known.csv is one of the store .*; give the table of the same coh"),
        ("cell_id,planted\nP00/image_0,2\n", r"has '2' in the column planted, expected 1 where a cell matters and 0"),
        ("cell_id,planted\nP00/image_0,1\nP00/image_0,0\n", r"has the cell 'P00/image_0' twice; leave one row a cell"),
        ("cell_id,cell_type\nP00/image_0,blast\n", r"types are blast, and those that matter were given as none; name"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(toy_store: BagStore, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "known.csv").write_text(text)
    with pytest.raises(RunError, match=message):
        read_known(tmp_path / "known.csv", toy_store, {})


def test_a_missing_table_and_types_without_labelled_cells_are_refused(toy_store: BagStore, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"does not exist; give --known a CSV file with cell_id, and planted or cell_t"):
        read_known(tmp_path / "none.csv", toy_store, {})
    with pytest.raises(RunError, match=r"have no cell_type, by which some would matter; give a table with --known"):
        read_known(None, toy_store, {CLASSES[0]: ("blast",)})
