"""Figures over a tree of cell types, against examples by hand and against sets of ancestors written out."""

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import balanced_accuracy_score

from milkit.errors import UnknownName
from milkit.statistics.hierarchy import (
    LevelAccuracy,
    Tree,
    feature_correlation,
    level_accuracies,
    mistake_heights,
    path_scores,
)
from milkit.taxonomy import Taxonomy

BLOOD = Taxonomy.load()
SMALL = Taxonomy(
    "small",
    {"cell": None, "gran": "cell", "neut": "gran", "band": "neut", "segm": "neut", "baso": "gran", "lymph": "cell",
     "typical": "lymph", "hairy": "lymph", "art": "cell"},
)  # fmt: skip
TREE, BLOOD_TREE = Tree.of(SMALL), Tree.of(BLOOD)
EXAMPLE = {
    "band": ["band", "segm", "baso", "neut"],  # right; height 1; 2; stops above its label: 1
    "typical": ["band"],  # height 3, the root's
    "neut": ["segm", "baso"],  # below its label, so right; height 2
    "cell": ["art"],  # says nothing
}


def once(truth: np.ndarray) -> np.ndarray:
    return np.ones((1, len(truth)))


def example() -> tuple[np.ndarray, np.ndarray]:
    pairs = [(label, guess) for label, guesses in EXAMPLE.items() for guess in guesses]
    return TREE.positions([label for label, _ in pairs]), TREE.positions([guess for _, guess in pairs])


def random_cells(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 43, size=n), generator.integers(0, 43, size=n)


# --- the tree ---------------------------------------------------------------------------------------------------------


def test_heights_are_those_of_the_longest_way_down() -> None:
    assert dict(zip(SMALL.nodes, TREE.heights.tolist(), strict=True)) == {
        "cell": 3, "gran": 2, "neut": 1, "band": 0, "segm": 0, "baso": 0, "lymph": 1, "typical": 0, "hairy": 0, "art": 0
    }  # fmt: skip


def test_ancestors_and_distances_are_those_of_the_taxonomy() -> None:
    for i, first in enumerate(BLOOD.nodes):
        path = (*BLOOD.ancestors(first), first)
        assert [BLOOD.nodes[k] for k in BLOOD_TREE.lifted[i] if k >= 0] == list(path)
        for j, second in enumerate(BLOOD.nodes):
            assert BLOOD.nodes[BLOOD_TREE.common[i, j]] == BLOOD.lowest_common_ancestor(first, second)
            assert BLOOD_TREE.distances()[i, j] == BLOOD.distance(first, second)


def test_names_have_the_positions_of_the_taxonomy() -> None:
    assert TREE.positions(["band", "cell", "band"]).tolist() == [3, 0, 3]
    with pytest.raises(UnknownName, match=r"No node of the taxonomy 'small' is called 'bnad'. Did you mean 'band'"):
        TREE.positions(["cell", "bnad"])


# --- precision and recall of paths ------------------------------------------------------------------------------------


def test_the_path_scores_of_the_example_are_those_by_hand() -> None:
    """Shared nodes 3 + 2 + 1 + 2 + 0 + 2 + 1; predicted 3 + 3 + 2 + 2 + 3 + 2 + 2; true 4 · 3 + 2 + 2 + 2."""
    scores = path_scores(TREE, *example(), once(example()[0]))
    assert scores.precision.tolist() == pytest.approx([11 / 17])
    assert scores.recall.tolist() == pytest.approx([11 / 18])
    assert scores.f1.tolist() == pytest.approx([2 * (11 / 17) * (11 / 18) / (11 / 17 + 11 / 18)])


def test_path_scores_are_shares_of_ancestors_in_common() -> None:
    truth, predicted = random_cells(500, 0)
    leaves = BLOOD_TREE.positions(BLOOD.leaves)
    truth = leaves[truth % len(leaves)]

    def nodes(position: int) -> set[str]:
        return {*BLOOD.ancestors(BLOOD.nodes[position]), BLOOD.nodes[position]} - {BLOOD.root}

    both = sum(len(nodes(a) & nodes(b)) for a, b in zip(truth, predicted, strict=True))
    scores = path_scores(BLOOD_TREE, truth, predicted, once(truth))
    assert scores.precision[0] == pytest.approx(both / sum(len(nodes(b)) for b in predicted))
    assert scores.recall[0] == pytest.approx(both / sum(len(nodes(a)) for a in truth))


def test_who_only_says_the_root_has_no_precision_and_finds_nothing() -> None:
    truth = TREE.positions(["band", "art"])
    scores = path_scores(TREE, truth, np.zeros_like(truth), once(truth))
    assert np.isnan(scores.precision[0])
    assert (scores.recall[0], scores.f1[0]) == (0, 0)


# --- heights of mistakes ----------------------------------------------------------------------------------------------


def test_the_heights_of_the_example_s_mistakes_are_those_by_hand() -> None:
    heights = mistake_heights(TREE, *example(), once(example()[0]))
    assert heights.n_mistakes.tolist() == [5]
    assert heights.of_mistakes.tolist() == pytest.approx([(1 + 2 + 1 + 3 + 2) / 5])
    assert heights.of_all.tolist() == pytest.approx([9 / 7])  # the eighth cell's label says nothing


def test_without_a_mistake_there_is_no_mean_over_mistakes() -> None:
    truth = TREE.positions(["neut", "art"])
    heights = mistake_heights(TREE, truth, TREE.positions(["band", "art"]), once(truth))
    assert np.isnan(heights.of_mistakes[0])
    assert heights.of_all[0] == 0


# --- accuracy by level ------------------------------------------------------------------------------------------------


def test_the_accuracies_of_the_example_s_levels_are_those_by_hand() -> None:
    """Depth 1: gran 6 of 6, lymph 0 of 1. Depth 2: neut 4 of 6, typical 0 of 1. Depth 3: band 1 of 4."""
    expected = [(1, 1 / 2, 2, 7, 1), (2, 1 / 3, 2, 7, 1), (3, 1 / 4, 1, 4, 4)]
    found = level_accuracies(TREE, *example(), once(example()[0]))
    for level, (depth, accuracy, n_classes, n_cells, n_left_out) in zip(found, expected, strict=True):
        assert level == LevelAccuracy(depth, level.balanced_accuracy, n_classes, n_cells, n_left_out)
        assert level.balanced_accuracy.tolist() == pytest.approx([accuracy])


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_each_level_is_scikit_learn_s_balanced_accuracy_of_the_ancestors() -> None:
    truth, predicted = random_cells(400, 1)

    def lifted(position: int, depth: int) -> str:
        path = (*BLOOD.ancestors(BLOOD.nodes[position]), BLOOD.nodes[position])
        return path[depth] if depth < len(path) else "too shallow"

    for level in level_accuracies(BLOOD_TREE, truth, predicted, once(truth)):
        pairs = [(lifted(a, level.depth), lifted(b, level.depth)) for a, b in zip(truth, predicted, strict=True)]
        kept = [pair for pair in pairs if pair[0] != "too shallow"]
        assert (level.n_cells, level.n_left_out) == (len(kept), 400 - len(kept))
        assert level.balanced_accuracy[0] == pytest.approx(balanced_accuracy_score(*zip(*kept, strict=True)))


def test_labels_that_say_nothing_have_no_levels() -> None:
    assert level_accuracies(TREE, np.zeros(3, dtype=np.int64), np.arange(3), np.ones((1, 3))) == []


# --- tree and features ------------------------------------------------------------------------------------------------


def test_features_that_lie_as_the_tree_does_correlate_fully() -> None:
    """One feature a node, 1 for the cells below it: squared distances are then those in the tree."""
    truth = BLOOD_TREE.positions([leaf for leaf in BLOOD.leaves for _ in range(3)])
    features = BLOOD.membership[:, np.repeat(np.arange(26), 3)].T.astype(np.float32)
    assert feature_correlation(BLOOD_TREE, features, truth, once(truth)).tolist() == pytest.approx([1])
    shuffled = np.random.default_rng(0).permutation(26).repeat(3) * 3
    assert abs(feature_correlation(BLOOD_TREE, features[shuffled], truth, once(truth))[0]) < 0.3


def test_the_correlation_is_spearman_s_over_pairs_of_class_means() -> None:
    generator = np.random.default_rng(2)
    truth = generator.choice(BLOOD_TREE.positions([*BLOOD.leaves[:7], "neutrophil"]), size=90)
    features = generator.normal(size=(90, 5))
    names = [node for node in BLOOD.nodes if node in {BLOOD.nodes[k] for k in truth}]
    means = [features[truth == BLOOD.nodes.index(name)].mean(axis=0) for name in names]
    pairs = [(i, j) for i in range(len(names)) for j in range(i)]
    edges = [BLOOD.distance(names[i], names[j]) for i, j in pairs]
    expected = spearmanr(edges, [np.linalg.norm(means[i] - means[j]) for i, j in pairs]).statistic
    with_unlabelled = np.append(truth, [0, 0]), np.vstack([features, np.full((2, 5), 99.0)])
    found = feature_correlation(BLOOD_TREE, with_unlabelled[1], with_unlabelled[0], once(with_unlabelled[0]))
    assert found.tolist() == pytest.approx([expected])


@pytest.mark.parametrize("labels", [["band", "segm"], ["typical", "hairy"] * 2, ["gran", "lymph", "art"]])
def test_too_few_classes_or_equal_distances_have_no_correlation(labels: list[str]) -> None:
    truth = TREE.positions(labels)
    features = np.random.default_rng(3).normal(size=(len(truth), 4))
    assert np.isnan(feature_correlation(TREE, features, truth, once(truth))).all()


# --- resamples --------------------------------------------------------------------------------------------------------


def test_a_weight_is_how_often_a_cell_is_there() -> None:
    """So resamples are rows of weights; in the second row a whole class is missing."""
    truth, predicted = random_cells(60, 4)
    features = np.random.default_rng(5).normal(size=(60, 3))
    weights = np.random.default_rng(6).integers(0, 3, size=(2, 60)).astype(np.float64)
    weights[1, truth == truth[0]] = 0
    for row, weight in enumerate(weights):
        drawn = np.repeat(np.arange(60), weight.astype(int))
        cells = truth[drawn], predicted[drawn], once(drawn)
        for whole, part in [
            (path_scores(BLOOD_TREE, truth, predicted, weights), path_scores(BLOOD_TREE, *cells)),
            (mistake_heights(BLOOD_TREE, truth, predicted, weights), mistake_heights(BLOOD_TREE, *cells)),
        ]:
            assert [figure[row] for figure in whole] == pytest.approx([figure[0] for figure in part])
        levels = level_accuracies(BLOOD_TREE, truth, predicted, weights)
        assert [level.balanced_accuracy[row] for level in levels] == pytest.approx(
            [level.balanced_accuracy[0] for level in level_accuracies(BLOOD_TREE, *cells)]
        )
        rho = feature_correlation(BLOOD_TREE, features, truth, weights)[row]
        assert rho == pytest.approx(feature_correlation(BLOOD_TREE, features[drawn], truth[drawn], once(drawn))[0])
