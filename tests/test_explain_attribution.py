"""Scores of cells: the fast paths against the plain one, and each method against what its formula says."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from milkit.explain.attribution import METHODS, attribute, leave_one_out
from milkit.explain.gradients import completeness_gap, integrated_gradients
from milkit.explain.parts import Bagged, log_odds
from milkit.explain.pooling import pooled
from milkit.mil.heads import Abmil, MeanPool, MilOutput, build_head
from milkit.mil.train import Standardised
from milkit.registry import HEADS
from milkit.settings import Component

VARIANTS: list[dict[str, object]] = [
    *({"name": name} for name in HEADS.names()),
    {"name": "abmil", "gated": True},
    {"name": "abmil", "class_wise": True},
    {"name": "clam", "class_wise": False},
]
POOLING = {"abmil", "additive", "clam", "hehr", "meanpool"}


def toy_bag(
    component: dict[str, object], *, n_cells: int = 17, n_classes: int = 3, fast: bool = True, spread: float = 1.0
) -> Bagged:
    """A head with random weights, in double precision, before a bag of random cells."""
    torch.manual_seed(0)
    head = build_head(Component.model_validate(component), 8, n_classes)
    model = Standardised(head, torch.randn(8), torch.rand(8) + 0.5).double().eval()
    return Bagged(model, spread * torch.randn(n_cells, 8).double(), fast=fast)


def odds(bag: Bagged, cells: list[int]) -> np.ndarray:
    """The log-odds of the classes for some cells of the bag, from the probabilities."""
    features = bag.features[cells][None]
    with torch.no_grad():
        logits = bag.model(features, torch.ones(features.shape[:2], dtype=torch.bool)).logits[0]
    p = torch.softmax(logits, dim=0).numpy()
    return np.asarray(np.log(p / (1 - p)))


def test_log_odds_are_those_of_the_softmax() -> None:
    logits = torch.tensor([[0.3, -1.2, 2.0], [5.0, 5.0, -4.0]], dtype=torch.float64)
    p = torch.softmax(logits, dim=1)
    torch.testing.assert_close(log_odds(logits), torch.log(p / (1 - p)))
    torch.testing.assert_close(log_odds(logits + 7), log_odds(logits))


def test_the_log_odds_of_a_single_output_are_the_output() -> None:
    assert log_odds(torch.tensor([[0.7]])).tolist() == [[pytest.approx(0.7)]]


@pytest.mark.parametrize("component", VARIANTS, ids=str)
def test_leaving_out_is_the_difference_to_the_bag_without_the_cell(component: dict[str, object]) -> None:
    bag = toy_bag(component)
    everybody = list(range(bag.n_cells))
    expected = [odds(bag, everybody) - odds(bag, everybody[:i] + everybody[i + 1 :]) for i in everybody]
    np.testing.assert_allclose(leave_one_out(bag).numpy(), np.transpose(expected), atol=1e-9)


@pytest.mark.parametrize("component", VARIANTS, ids=str)
def test_fast_and_plain_paths_agree_on_any_part(component: dict[str, object]) -> None:
    fast, plain = toy_bag(component), toy_bag(component, fast=False)
    parts = torch.stack([torch.randperm(17)[:6] for _ in range(9)])
    torch.testing.assert_close(fast.logits(parts), plain.logits(parts), atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(fast.leave_one_out(), plain.leave_one_out(), atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(fast.single_cells(), plain.single_cells(), atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("component", VARIANTS, ids=str)
def test_parts_given_as_masks_are_those_given_as_cells(component: dict[str, object]) -> None:
    masks = torch.rand(12, 17) > 0.6
    masks[:, 3] = True
    for bag in (toy_bag(component), toy_bag(component, fast=False)):
        expected = torch.cat([bag.logits(mask.nonzero()[:, 0][None]) for mask in masks])
        torch.testing.assert_close(bag.of_masks(masks), expected, atol=1e-7, rtol=1e-6)


def test_attention_pooling_has_the_fast_path_and_the_other_heads_the_plain_one() -> None:
    for component in VARIANTS:
        head = build_head(Component.model_validate(component), 8, 3)
        assert (pooled(head, torch.randn(5, 8)) is not None) == (component["name"] in POOLING)


def test_a_head_that_inherits_from_a_known_one_is_not_taken_apart() -> None:
    class Doubled(MeanPool):
        def forward(self, features: Tensor, mask: Tensor, covariates: Tensor | None = None) -> MilOutput:
            return super().forward(2 * features, mask, covariates)

    assert pooled(Doubled(8, 4, 3), torch.randn(5, 8)) is None


@pytest.mark.parametrize("class_wise", [False, True])
def test_a_cell_with_all_the_attention_can_be_left_out(class_wise: bool) -> None:  # 1 - a is 0 in single precision
    bag = toy_bag({"name": "abmil", "class_wise": class_wise})
    head = bag.model.float().head
    assert isinstance(head, Abmil)
    with torch.no_grad():
        head.score.weight.mul_(2000.0)
    features = bag.features.float()
    fast, plain = Bagged(bag.model, features), Bagged(bag.model, features, fast=False)
    assert fast.attention().max() == 1
    torch.testing.assert_close(fast.leave_one_out(), plain.leave_one_out(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("component", VARIANTS, ids=str)
def test_integrated_gradients_share_out_the_way_from_average_cells(component: dict[str, object]) -> None:
    bag = toy_bag(component)
    average = Bagged(bag.model, bag.model.mean.expand(bag.n_cells, -1))
    expected = odds(bag, list(range(bag.n_cells))) - odds(average, list(range(bag.n_cells)))
    scores = integrated_gradients(bag, 128)
    np.testing.assert_allclose(scores.sum(dim=1), expected, atol=0.02 * max(1.0, float(np.abs(expected).max())))
    assert completeness_gap(bag, scores) < 0.02


def test_integrated_gradients_of_a_linear_head_are_its_terms() -> None:
    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.output = nn.Linear(8, 1)

        def forward(self, features: Tensor, mask: Tensor) -> MilOutput:
            attention = (mask / mask.sum(dim=1, keepdim=True))[:, None].to(features.dtype)
            return MilOutput(self.output((attention @ features)[:, 0]), attention)

    torch.manual_seed(1)
    head = Linear()
    bag = Bagged(Standardised(head, torch.randn(8), torch.rand(8) + 0.5).double(), torch.randn(5, 8).double())
    standardised = (bag.features - bag.model.mean) * bag.model.scale
    expected = (standardised @ head.output.weight[0] / 5).detach()
    torch.testing.assert_close(integrated_gradients(bag, 2)[0], expected)


def test_the_gap_of_completeness_is_seen() -> None:
    bag = toy_bag({"name": "abmil"})
    scores = integrated_gradients(bag, 64)
    assert completeness_gap(bag, scores + 1.0) > 1.0


def test_a_single_cell_is_judged_as_a_bag_of_its_own() -> None:
    bag = toy_bag({"name": "transmil"})
    expected = [odds(bag, [i]) for i in range(bag.n_cells)]
    np.testing.assert_allclose(attribute(bag, "single_cell").numpy(), np.transpose(expected), atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_scores_follow_the_cells_and_not_their_order(method: str) -> None:
    bag = toy_bag({"name": "clam"})
    turned = Bagged(bag.model, bag.features.flip(0))
    torch.testing.assert_close(attribute(bag, method).flip(1), attribute(turned, method))


@pytest.mark.parametrize("method", METHODS)
def test_an_only_cell_has_a_score(method: str) -> None:
    scores = attribute(toy_bag({"name": "abmil"}, n_cells=1), method)
    assert scores.shape == (1 if method == "attention" else 3, 1)
    assert torch.isfinite(scores).all()


def test_an_unknown_method_is_a_defect() -> None:
    with pytest.raises(ValueError, match="there is no method 'magic'"):
        attribute(toy_bag({"name": "abmil"}), "magic")
