"""Collapse monitors against their formulas in double precision, and the validation among a frozen set of cells."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from encoders.dinov2 import monitors
from encoders.dinov2.monitors import Validation, centre_entropy, rank_me
from milkit.cohort import Cohort
from milkit.encoder import Transform
from milkit.errors import CohortError
from milkit.statistics.hierarchy import Tree
from milkit.taxonomy import LabelMap, Taxonomy

TRANSFORM = Transform(size=8, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
CPU = torch.device("cpu")


class Means(nn.Module):
    """The mean of each channel; a dropout that would spoil it stands for what differs in training."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.99)
        self.frozen = nn.BatchNorm2d(3).eval()

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.dropout(images.mean(dim=(2, 3)))
        return features


def cohort_of(
    root: Path, colours: Sequence[object], labels: Sequence[object] | None = None, **columns: object
) -> Cohort:
    """An image of one colour each; None is a file that is no image."""
    paths = [f"{n}.png" for n in range(len(colours))]
    for path, colour in zip(paths, colours, strict=True):
        if colour is None:
            (root / path).write_bytes(b"no image")
        else:
            Image.new("RGB", (9, 11), colour).save(root / path)
    cells = pd.DataFrame({"cell_id": paths, "patient_id": None, "path": paths}, dtype=object)
    if labels is not None:
        cells["cell_type"] = labels
    return Cohort("toy", root, pd.DataFrame({"label": []}, index=pd.Index([], name="patient_id")), cells, ())


def validation(cohort: Cohort, limit: int = 100, seed: int = 0) -> Validation:
    return Validation.of(cohort, TRANSFORM, limit=limit, seed=seed)


def evaluated(cohort: Cohort) -> dict[str, float]:
    return validation(cohort).evaluate(Means(), TRANSFORM, CPU)


# --- RankMe -----------------------------------------------------------------------------------------------------------


def test_rank_me_is_the_exponential_of_the_entropy_of_the_singular_values() -> None:
    features = np.random.default_rng(0).normal(size=(40, 12)) * np.geomspace(1, 1e-3, 12)
    values = np.sqrt(np.linalg.eigvalsh(features.T @ features))
    p = values / values.sum()
    assert rank_me(features.astype(np.float32)) == pytest.approx(math.exp(-sum(p * np.log(p))), rel=1e-5)


@pytest.mark.parametrize(("n", "dim"), [(50, 8), (8, 50), (8, 8)])
def test_rank_me_is_the_smaller_side_for_orthogonal_features_and_one_for_equal_ones(n: int, dim: int) -> None:
    orthogonal = np.linalg.qr(np.random.default_rng(0).normal(size=(max(n, dim), max(n, dim))))[0][:n, :dim]
    smaller = orthogonal if min(orthogonal.shape) == n else np.linalg.qr(orthogonal)[0]
    assert rank_me(smaller) == pytest.approx(min(n, dim))
    assert rank_me(np.ones((n, 1)) * np.arange(1.0, dim + 1)) == pytest.approx(1.0)


def test_rank_me_counts_the_directions_and_not_their_scale() -> None:
    generator = np.random.default_rng(0)
    two = generator.normal(size=(100, 2)) @ generator.normal(size=(2, 16))
    assert rank_me(two) <= 2 + 1e-6
    assert rank_me(1e4 * two) == pytest.approx(rank_me(two))


def test_rank_me_of_nothing_but_zeros_is_one_and_of_no_numbers_none() -> None:
    assert rank_me(np.zeros((5, 3))) == 1.0
    assert math.isnan(rank_me(np.array([[1.0, np.nan], [0.0, 1.0]])))
    assert math.isnan(rank_me(np.array([[1.0, np.inf], [0.0, 1.0]])))


# --- centre entropy ---------------------------------------------------------------------------------------------------


def test_centre_entropy_is_that_of_the_mean_of_the_softmax() -> None:
    logits = np.random.default_rng(0).normal(size=(30, 7))
    rows = np.exp(logits / 0.3) / np.exp(logits / 0.3).sum(axis=1, keepdims=True)
    mean = rows.mean(axis=0)
    expected = -(mean * np.log(mean)).sum() / math.log(7)
    assert centre_entropy(torch.from_numpy(logits), 0.3) == pytest.approx(expected, abs=1e-6)
    assert expected < 0.99


def test_centre_entropy_is_one_where_each_prototype_has_its_image_and_zero_where_one_has_all() -> None:
    each, one = 1e4 * torch.eye(6), torch.zeros(6, 6)
    one[:, 2] = 1e4
    assert centre_entropy(each, 0.1) == pytest.approx(1.0)
    assert centre_entropy(one, 0.1) == 0.0
    assert centre_entropy(torch.ones(4, 1), 0.1) == 1.0


def test_centre_entropy_is_that_of_the_rows_of_all_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where they have different numbers of rows; what each would send is added up by hand."""
    logits = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    sent: list[Tensor] = []
    monkeypatch.setattr(monitors, "summed", lambda tensor: sent.append(tensor) or tensor)
    for part in (logits[:2], logits[2:]):
        centre_entropy(part, 0.2)
    monkeypatch.setattr(monitors, "summed", lambda _: sent[0] + sent[1])
    together = centre_entropy(logits[:2], 0.2)
    monkeypatch.undo()
    assert together == pytest.approx(centre_entropy(logits, 0.2), abs=1e-6)
    assert together != pytest.approx(centre_entropy(logits[:2], 0.2), abs=1e-3)


# --- validation -------------------------------------------------------------------------------------------------------

RED, BLUE = [(200 + n, 0, 0) for n in range(8)], [(0, 0, 200 + n) for n in range(8)]


def test_neighbours_of_the_own_class_are_found_and_wrong_labels_are_not(tmp_path: Path) -> None:
    found = evaluated(cohort_of(tmp_path, [*RED, *BLUE], ["r"] * 8 + ["b"] * 8))
    assert found["knn_1"] == 1.0
    assert 1.0 <= found["rank_me"] <= 3.0
    # Every other one is called otherwise: the nearest of (200 + n, 0, 0) is then of the other class.
    assert evaluated(cohort_of(tmp_path, [*RED, *BLUE], ["r", "b"] * 8))["knn_1"] == 0.0


def test_accuracy_is_balanced_over_the_classes(tmp_path: Path) -> None:
    """Both of the few stand beside one of the many, which they mislead: the mean of 4 / 6 and 0, not 4 / 8."""
    colours = [(50 + 40 * n, 0, 0) for n in range(6)] + [(45, 0, 0), (255, 0, 0)]
    assert evaluated(cohort_of(tmp_path, colours, ["many"] * 6 + ["few"] * 2))["knn_1"] == pytest.approx(4 / 12)


def test_twenty_neighbours_are_as_many_as_there_are_in_a_small_set(tmp_path: Path) -> None:
    """5 others vote on each: 3 of the larger class on one of it, 2 of its own on one of the smaller."""
    found = evaluated(cohort_of(tmp_path, [*RED[:4], *BLUE[:2]], ["r"] * 4 + ["b"] * 2))
    assert found["knn_20"] == 0.5


def test_copies_of_an_image_are_no_neighbours(tmp_path: Path) -> None:
    colours = [(0, 0, 0), (0, 0, 0), (100, 0, 0), (100, 0, 0), (40, 0, 0), (60, 0, 0)]
    labels = ["a", "a", "b", "b", "b", "a"]
    assert evaluated(cohort_of(tmp_path, colours, labels))["knn_1"] == 0.0  # each with its copy would be found


def test_cells_of_a_patient_are_no_neighbours(tmp_path: Path) -> None:
    cohort = cohort_of(tmp_path, [(0, 0, 0), (1, 0, 0), (90, 0, 0), (91, 0, 0)], ["a", "a", "b", "b"])
    assert evaluated(cohort)["knn_1"] == 1.0
    cells = cohort.cells.assign(patient_id=["P", "P", "Q", "R"])
    patients = pd.DataFrame({"label": "x"}, index=pd.Index(["P", "Q", "R"], name="patient_id"))
    owned = validation(Cohort("toy", tmp_path, patients, cells, ("x",)))
    assert owned.groups.tolist() == [0, 0, 1, 2]
    assert owned.classes == ()  # 'a' is of one patient alone


def test_unreadable_cells_are_left_out_and_counted(tmp_path: Path) -> None:
    checked = validation(cohort_of(tmp_path, [RED[0], None, BLUE[0], None], ["r", "r", "b", "b"]))
    assert (len(checked.squares), checked.unreadable) == (2, 2)
    assert checked.squares[:, 0, 0].tolist() == [list(RED[0]), list(BLUE[0])]


def test_cells_of_which_none_can_be_read_are_refused(tmp_path: Path) -> None:
    expected = r"None of 2 cells of the cohort 'toy' that were to validate .*the file is not an image.*cohort check"
    with pytest.raises(CohortError, match=expected):
        validation(cohort_of(tmp_path, [None, None], ["a", "b"]))


@pytest.mark.parametrize("labels", [None, ["", " ", None, "", "", ""], ["a"] * 6, ["a", "b", "c", "d", "e", "f"]])
def test_without_classes_there_is_only_rank_me(tmp_path: Path, labels: list[str] | None) -> None:
    found = evaluated(cohort_of(tmp_path, RED[:6], labels))
    assert math.isnan(found["knn_1"])
    assert math.isnan(found["knn_20"])
    assert found["rank_me"] >= 1.0


def test_unlabelled_cells_are_left_out_where_others_have_labels(tmp_path: Path) -> None:
    checked = validation(cohort_of(tmp_path, [*RED[:3], *BLUE[:3]], ["r", "r", None, "b", "b", " "]))
    assert checked.labels.tolist() == [1, 1, 0, 0]
    assert checked.classes == ("b", "r")


def test_a_class_of_one_cell_is_no_class_and_its_cell_no_neighbour(tmp_path: Path) -> None:
    colours = [(0, 0, 0), (50, 0, 0), (100, 0, 0), (140, 0, 0), (49, 0, 0)]
    checked = validation(cohort_of(tmp_path, colours, ["a", "a", "b", "b", "rare"]))
    assert checked.classes == ("a", "b")
    assert checked.labels.tolist() == [0, 0, 1, 1, -1]
    assert len(checked.squares) == 5
    # (50, 0, 0) lies as near to 0 as to 100, and of equally distant cells the first votes.
    assert checked.evaluate(Means(), TRANSFORM, CPU)["knn_1"] == 1.0


def test_how_far_off_votes_are_is_said_where_the_labels_have_a_meaning(tmp_path: Path) -> None:
    """All mistakes take one of two classes for the other, so that each is as high as their common ancestor."""
    cohort = cohort_of(tmp_path, [*RED, *BLUE], [*["LY"] * 7, *["SNE"] * 9])
    meaning = LabelMap.load("acevedo", Taxonomy.load())
    known = Validation.of(cohort, TRANSFORM, limit=100, seed=0, meaning=meaning)
    found = known.evaluate(Means(), TRANSFORM, CPU)
    tree = Tree.of(meaning.taxonomy)
    nodes = tree.positions([meaning.node(label) for label in ("LY", "SNE")])
    off = tree.heights[tree.common[nodes[0], nodes[1]]]
    assert found["knn_20"] == 0.5  # of the 15 others, 8 or 9 are neutrophils, for every cell
    assert found["height"] == pytest.approx(off * 7 / 16)
    assert 0 < found["path_f1"] < 1
    assert "height" not in evaluated(cohort)


def test_a_limit_keeps_the_shares_of_the_classes_and_the_seed_says_which_cells(tmp_path: Path) -> None:
    labels = ["a"] * 24 + ["b"] * 12 + ["c"] * 8
    cohort = cohort_of(tmp_path, [(n, 0, 0) for n in range(44)], labels)
    drawn = [validation(cohort, limit=11, seed=seed) for seed in (0, 0, 1)]
    assert np.bincount(drawn[0].labels).tolist() == [6, 3, 2]
    assert np.array_equal(drawn[0].squares, drawn[1].squares)
    assert not np.array_equal(drawn[0].squares, drawn[2].squares)
    assert len(validation(cohort, limit=44).squares) == len(validation(cohort, limit=99).squares) == 44


def test_evaluation_leaves_every_module_in_its_mode(tmp_path: Path) -> None:
    checked, model = validation(cohort_of(tmp_path, [*RED, *BLUE], ["r"] * 8 + ["b"] * 8)), Means()
    modes = [module.training for module in model.modules()]
    assert modes == [True, True, False]
    assert checked.evaluate(model, TRANSFORM, CPU)["knn_1"] == 1.0  # with its dropout it would be nonsense
    assert [module.training for module in model.modules()] == modes


def test_evaluation_takes_no_gradients_and_repeats_itself(tmp_path: Path) -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 5))
    checked = validation(cohort_of(tmp_path, [*RED, *BLUE], ["r"] * 8 + ["b"] * 8))
    assert checked.evaluate(model, TRANSFORM, CPU) == checked.evaluate(model, TRANSFORM, CPU)
    assert all(parameter.grad is None for parameter in model.parameters())
    half = checked.evaluate(model, TRANSFORM, CPU, torch.bfloat16)
    assert half["rank_me"] != checked.evaluate(model, TRANSFORM, CPU)["rank_me"]


def test_a_network_that_has_diverged_gives_no_figures(tmp_path: Path) -> None:
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    nn.init.constant_(model[2].weight, math.nan)
    found = validation(cohort_of(tmp_path, [*RED, *BLUE], ["r"] * 8 + ["b"] * 8)).evaluate(model, TRANSFORM, CPU)
    assert all(math.isnan(value) for value in found.values())
