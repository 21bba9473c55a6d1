"""`milkit probe --taxonomy`: how far off mistakes are in the tree, by hand, through what the command calls."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from probe_toys import labelled_cells, labelled_store
from scipy.stats import spearmanr

from milkit.bags import BagStore
from milkit.probe.evaluate import probe
from milkit.probe.hierarchy import TreeScores, tree_correlation
from milkit.probe.table import probe_tables
from milkit.probe_settings import ProbeSettings
from milkit.statistics.cell_intervals import Outcomes
from milkit.statistics.hierarchy import Tree
from milkit.taxonomy import Taxonomy

TREE = Tree.of(Taxonomy.load())
SETTINGS = ProbeSettings(taxonomy=True, bootstrap=200, shots=(), neighbours=(1, 5))
SPOTS = {"BA": (0.0, 0.0), "MY": (10.0, 0.0), "LY": (0.0, 10.0), "PLATELET": (10.0, 10.0)}
"""Depths 5, 5, 5 and 3. Whoever strays lies near another class, whose cells have nearer ones of their own."""
STRAY = [("LY", "MY", 3), ("MY", "BA", 2), ("PLATELET", "BA", 1)]
"""Heights of the common ancestors: haematopoietic 5, granulocytic 3, myeloid 4."""


def stray_store(path: Path) -> BagStore:
    """Ten cells a class, which 1-NN tells apart but for the strays."""
    cells = labelled_cells(dict.fromkeys(SPOTS, 10))
    kinds = cells["cell_type"].to_numpy()
    points = np.array([SPOTS[kind] for kind in kinds]) + np.random.default_rng(0).uniform(-0.05, 0.05, (len(cells), 2))
    angle = iter(np.linspace(0, 2 * math.pi, 7))  # at least 0.9 times the radius from each other
    for kind, near, count in STRAY:
        for row in np.flatnonzero(kinds == kind)[:count]:
            turn = next(angle)
            points[row] = SPOTS[near] + np.array([math.cos(turn), math.sin(turn)])
    return labelled_store(path, cells, features=points, cohort="acevedo")


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("strays")
    return probe([stray_store(folder / "s.zarr")], SETTINGS, folder / "p") | {"folder": folder / "p"}


def metrics(result: dict[str, Any], classifier: str = "1-NN", encoder: str = "toy-encoder") -> dict[str, Any]:
    found: dict[str, Any] = result["encoders"][encoder]["classifiers"][classifier]
    return found


def outcomes_of(truth: list[str], *predicted: list[str]) -> tuple[TreeScores, tuple[str, ...]]:
    nodes = tuple(sorted({*truth, *(name for own in predicted for name in own)}))
    at = {name: number for number, name in enumerate(nodes)}
    rows = [np.array([at[name] for name in names]) for names in (truth, *predicted)]
    outcomes = Outcomes.of(rows[0], np.stack(rows[1:]), len(nodes))
    return TreeScores(TREE, nodes, outcomes, n_bootstrap=200, level=0.95, seed=0), nodes


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_the_heights_of_mistakes_are_those_by_hand(result: dict[str, Any]) -> None:
    total = 3 * 5 + 2 * 3 + 1 * 4
    assert metrics(result)["height"]["estimate"] == pytest.approx(total / 40)
    assert metrics(result)["height_of_mistakes"]["estimate"] == pytest.approx(total / 6)
    assert metrics(result)["height"]["ci_low"] < total / 40 < metrics(result)["height"]["ci_high"]


def test_hierarchical_precision_and_recall_are_those_by_hand(result: dict[str, Any]) -> None:
    """Of 180 nodes in labels, the strays miss 3 · 4, 2 · 2 and 1; the platelet predicted to be deeper adds 2."""
    found = metrics(result)
    assert found["path_precision"]["estimate"] == pytest.approx(163 / 182)
    assert found["path_recall"]["estimate"] == pytest.approx(163 / 180)
    assert found["path_f1"]["estimate"] == pytest.approx(2 * 163 / (182 + 180))


def test_the_accuracies_of_the_depths_are_those_by_hand(result: dict[str, Any]) -> None:
    """All are haematopoietic at depth 1; platelets end at depth 3; a myelocyte taken for a basophil is granulocytic."""
    expected = {
        2: np.mean([1, 7 / 10]),  # myeloid, lymphoid
        3: np.mean([1, 9 / 10, 7 / 10]),  # granulocytic, platelet, lymphoid_mature
        4: np.mean([1, 8 / 10, 7 / 10]),  # granulocyte_mature, granulocyte_maturing, lymphocyte
        5: np.mean([1, 8 / 10, 7 / 10]),
    }
    found = {name: own["estimate"] for name, own in metrics(result).items() if "depth" in name}
    assert found == pytest.approx({f"balanced_accuracy_depth_{depth}": value for depth, value in expected.items()})
    assert result["hierarchy"] == {
        "taxonomy": "blood",
        "highest": 5,
        "levels": [
            {"depth": 2, "n_classes": 2, "n_cells": 40, "n_left_out": 0},
            {"depth": 3, "n_classes": 3, "n_cells": 40, "n_left_out": 0},
            {"depth": 4, "n_classes": 3, "n_cells": 30, "n_left_out": 10},
            {"depth": 5, "n_classes": 3, "n_cells": 30, "n_left_out": 10},
        ],
    }


def test_the_folds_own_heights_average_to_the_pooled_one(result: dict[str, Any]) -> None:
    """Folds of eight cells each; a mean over mistakes is none in a fold without one."""
    assert np.mean(metrics(result)["height"]["folds"]) == pytest.approx(25 / 40)
    table = pd.read_csv(result["folder"] / "predictions.csv")
    wrong = table[table["label"] != table["toy-encoder 1-NN"]].groupby("fold").size().reindex(range(5), fill_value=0)
    of_mistakes = metrics(result)["height_of_mistakes"]["folds"]
    assert [value is None for value in of_mistakes] == (wrong == 0).tolist()


def test_the_resamples_are_those_of_the_other_figures(tmp_path: Path) -> None:
    """Where all classes are leaves of one depth, its balanced accuracy is that of the classes, interval included."""
    cells = labelled_cells({"BA": 40, "MY": 30, "MMY": 30, "LY": 20})
    stores = [
        labelled_store(
            tmp_path / f"{name}.zarr", cells, cohort="acevedo", encoder=name, encoder_digest=name * 64, seed=n
        )
        for n, name in enumerate("ab")
    ]
    result = probe(stores, SETTINGS, tmp_path / "p")
    for own in (metrics(result, "5-NN", "b"), result["differences"]["b"]["linear"]):
        flat, deepest = own["balanced_accuracy"], own["balanced_accuracy_depth_5"]
        assert {key: deepest[key] for key in ("estimate", "ci_low", "ci_high")} == pytest.approx(
            {key: flat[key] for key in ("estimate", "ci_low", "ci_high")}
        )
    gap = result["differences"]["b"]["1-NN"]["height"]
    heights = [metrics(result, "1-NN", name)["height"]["estimate"] for name in "ab"]
    assert gap["estimate"] == pytest.approx(heights[1] - heights[0])
    assert gap["ci_low"] < gap["estimate"] < gap["ci_high"]


def test_classifiers_without_a_mistake_have_no_height_of_mistakes_and_an_interval_of_its_own() -> None:
    """Wilson's interval of 0 of 10 basophils: up to z² / (10 + z²), here of the 5 edges of the worst mistake."""
    truth = ["basophil"] * 10 + ["lymphocyte_typical"] * 30
    scores, _ = outcomes_of(truth, truth, ["lymphocyte_typical", *truth[1:]])
    upper = 1.959964**2 / (10 + 1.959964**2)
    assert scores.figure(0, "height") == pytest.approx({"estimate": 0.0, "ci_low": 0.0, "ci_high": 5 * upper}, abs=1e-5)
    assert scores.figure(0, "height_of_mistakes") == {"estimate": None, "ci_low": None, "ci_high": None}
    assert scores.figure(0, "path_f1") == pytest.approx(
        {"estimate": 1.0, "ci_low": 1 - upper, "ci_high": 1.0}, abs=1e-5
    )
    only = scores.figure(1, "height_of_mistakes")  # one mistake, of the worst height: known to be above 1 / (1 + z²)
    assert only == pytest.approx({"estimate": 5.0, "ci_low": 5 / (1 + 1.959964**2), "ci_high": 5.0}, abs=1e-5)
    same = scores.difference(0, 0, "height")
    assert same == pytest.approx({"estimate": 0.0, "ci_low": -5 * upper, "ci_high": 5 * upper}, abs=1e-5)


def test_a_worse_confusion_of_as_many_cells_is_seen() -> None:
    truth = ["myelocyte"] * 20 + ["metamyelocyte"] * 20 + ["lymphocyte_typical"] * 20
    near = truth[:15] + ["metamyelocyte"] * 5 + truth[20:]
    far = truth[:15] + ["lymphocyte_typical"] * 5 + truth[20:]
    scores, _ = outcomes_of(truth, near, far)
    gap = scores.difference(1, 0, "height")
    assert gap["estimate"] == pytest.approx(5 * (5 - 2) / 60)  # granulocyte_maturing is 2 above faggot cells
    assert gap["ci_low"] > 0
    assert scores.figure(1, "path_f1")["estimate"] < scores.figure(0, "path_f1")["estimate"]


# --- features ---------------------------------------------------------------------------------------------------------

NODES = ("myelocyte", "basophil", "lymphocyte_typical")
"""4 edges between the first two, 8 from each to the third."""


def test_the_rank_correlation_is_that_by_hand() -> None:
    """Class means 0, 1 and 3: their distances have the ranks 1, 3, 2; those in the tree 1, 2.5, 2.5."""
    labels = np.array([0, 0, 1, 1, 2, 2])
    features = np.array([[-1.0], [1.0], [1.0], [1.0], [2.0], [4.0]], dtype=np.float32)
    found = tree_correlation(TREE, features, labels, NODES)
    assert found["estimate"] == pytest.approx(spearmanr([4, 8, 8], [1, 3, 2]).statistic)
    assert found["estimate"] == pytest.approx(math.sqrt(3) / 2)
    assert (found["lowest"], found["highest"], found["n_classes"]) == (None, None, 3)  # two classes have no correlation


def test_features_count_by_their_spread_and_constant_ones_not_at_all() -> None:
    generator, labels = np.random.default_rng(0), np.repeat([0, 1, 2, 3], 25)
    nodes = (*NODES, "platelet")
    features = generator.normal(size=(4, 3))[labels] + generator.normal(size=(100, 3))
    scaled = np.concatenate([features * [1.0, 1e3, 1e-3] + [0.0, 5.0, 0.0], np.full((100, 1), 0.1)], axis=1)
    first, second = (tree_correlation(TREE, own, labels, nodes) for own in (features, scaled))
    assert second == pytest.approx(first)


def test_the_range_is_that_of_the_other_classes_without_each() -> None:
    generator, labels = np.random.default_rng(0), np.repeat([0, 1, 2, 3, 4], 20)
    nodes = ("basophil", "lymphocyte_typical", "monocyte", "myelocyte", "platelet")
    features = generator.normal(size=(5, 3))[labels]
    spread = features.std(axis=0)
    distances = TREE.distances()[np.ix_(TREE.positions(nodes), TREE.positions(nodes))]
    expected = []
    for left_out in range(5):
        kept = [c for c in range(5) if c != left_out]
        pairs = [(a, b) for a in kept for b in kept if a < b]
        lengths = [np.linalg.norm((features[20 * a] - features[20 * b]) / spread) for a, b in pairs]
        expected.append(spearmanr([distances[pair] for pair in pairs], lengths).statistic)
    found = tree_correlation(TREE, features, labels, nodes)
    assert (found["lowest"], found["highest"]) == pytest.approx((min(expected), max(expected)))


def test_every_encoder_has_its_correlation(result: dict[str, Any]) -> None:
    found = result["encoders"]["toy-encoder"]["feature_correlation"]
    assert found["n_classes"] == 4
    assert -1 <= found["lowest"] <= found["estimate"] <= found["highest"] <= 1


# --- what is printed and kept -----------------------------------------------------------------------------------------


def test_the_table_of_the_tree_is_printed_beside_the_other(result: dict[str, Any]) -> None:
    lines = probe_tables(result).splitlines()
    (title,) = [
        number for number, line in enumerate(lines) if line.startswith("in the taxonomy 'blood', with the 95 %")
    ]
    header, classes, cells, row, spans = (line.split() for line in lines[title + 2 : title + 7])
    assert header == ["height", "hF1", "depth", "2", "depth", "3", "depth", "4", "depth", "5"]
    assert (classes[1:], cells[1:]) == (["2", "3", "3", "3"], ["40", "40", "30", "30"])
    assert row == ["toy-encoder,", "1-NN", "0.62", "90.1", "85.0", "86.7", "83.3", "83.3"]
    height = metrics(result)["height"]
    assert spans[0] == f"{height['ci_low']:.2f}-{height['ci_high']:.2f}"
    rho = result["encoders"]["toy-encoder"]["feature_correlation"]
    assert f"  toy-encoder: {rho['estimate']:.2f} ({rho['lowest']:.2f} to {rho['highest']:.2f})" in lines


def test_a_difference_of_heights_is_printed_beside_that_of_accuracies(tmp_path: Path) -> None:
    cells = labelled_cells({"BA": 20, "MY": 20, "LY": 20})
    stores = [
        labelled_store(
            tmp_path / f"{name}.zarr", cells, cohort="acevedo", encoder=name, encoder_digest=name * 64, seed=n
        )
        for n, name in enumerate("ab")
    ]
    result = probe(stores, SETTINGS, tmp_path / "p")
    gap = result["differences"]["b"]["1-NN"]["height"]
    expected = f"; height {gap['estimate']:+.2f} ({gap['ci_low']:+.2f} to {gap['ci_high']:+.2f})"
    (line,) = [line for line in probe_tables(result).splitlines() if line.startswith("  b, 1-NN: ")]
    assert line.endswith(expected)


def test_two_classes_have_no_correlation_and_are_printed_so(tmp_path: Path) -> None:
    store = labelled_store(tmp_path / "s.zarr", labelled_cells({"BA": 20, "LY": 20}), cohort="acevedo")
    result = probe([store], SETTINGS, tmp_path / "p")
    assert result["encoders"]["toy-encoder"]["feature_correlation"]["estimate"] is None
    assert "  toy-encoder: none, of 2 classes" in probe_tables(result).splitlines()


def test_the_files_hold_all_figures(result: dict[str, Any]) -> None:
    kept = json.loads((result["folder"] / "probe.json").read_text())
    assert metrics(kept) == metrics(result)
    figures = pd.read_csv(result["folder"] / "figures.csv").set_index(["classifier", "metric"])["estimate"]
    assert figures["1-NN", "height"] == pytest.approx(25 / 40)
    assert figures["1-NN", "balanced_accuracy_depth_2"] == pytest.approx(0.85)


def test_without_the_taxonomy_there_is_nothing_of_it(tmp_path: Path) -> None:
    store = labelled_store(tmp_path / "s.zarr", cohort="acevedo")
    result = probe([store], SETTINGS.model_copy(update={"taxonomy": False}), tmp_path / "p")
    assert result["hierarchy"] is None
    assert result["encoders"]["toy-encoder"]["feature_correlation"] is None
    assert list(metrics(result)) == ["weighted_f1", "accuracy", "balanced_accuracy"]
    assert "taxonomy" not in probe_tables(result)
