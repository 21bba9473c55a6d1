"""Heads: the contract that every registered head keeps, and oracles written from the formulas."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from milkit.mil.heads import Abmil, build_head
from milkit.registry import HEADS
from milkit.settings import Component

IN_DIM, N_CLASSES = 7, 3
VARIANTS = [
    *(Component(name=name) for name in HEADS.names()),
    Component(name="abmil", gated=True),
    Component(name="abmil", class_wise=True),
    Component(name="abmil", gated=True, class_wise=True),
]


@pytest.fixture(params=VARIANTS, ids=lambda c: "-".join([c.name, *c.arguments]))
def head(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(1)
    return build_head(request.param, IN_DIM, N_CLASSES).double().eval()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    mask = torch.arange(9)[None, :] < torch.tensor([4, 9, 1])[:, None]
    return torch.randn(3, 9, IN_DIM, dtype=torch.float64) * mask[:, :, None], mask


def test_shapes_are_those_of_the_contract(head: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    output = head(*batch)
    assert output.logits.shape == (3, N_CLASSES)
    assert output.attention.shape in {(3, 1, 9), (3, N_CLASSES, 9)}


def test_attention_is_not_negative_and_sums_to_one_over_the_cells(
    head: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    attention = head(*batch).attention
    assert (attention >= 0).all()
    torch.testing.assert_close(attention.sum(dim=2), torch.ones_like(attention.sum(dim=2)))


def test_attention_is_zero_on_padding(head: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    features, mask = batch
    attention = head(features, mask).attention
    assert (attention.transpose(1, 2)[~mask] == 0).all()


def test_padding_changes_no_logit(head: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    features, mask = batch
    head = head.float()
    together = head(features.float(), mask).logits
    alone = torch.cat([head(f[None, m].float(), m[None, m]).logits for f, m in zip(features, mask, strict=True)])
    assert (together - alone).abs().max() < 1e-5


def test_what_stands_in_the_padding_does_not_matter(head: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    features, mask = batch
    dirty = torch.where(mask[:, :, None], features, torch.full_like(features, 1e3))
    torch.testing.assert_close(head(dirty, mask).logits, head(features, mask).logits)


def test_permuting_the_cells_permutes_attention_and_nothing_else(head: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    features, _ = batch
    mask, order = torch.ones(3, 9, dtype=torch.bool), torch.randperm(9)
    plain, permuted = head(features, mask), head(features[:, order], mask)
    torch.testing.assert_close(permuted.logits, plain.logits)
    torch.testing.assert_close(permuted.attention, plain.attention[:, :, order])


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("class_wise", [False, True])
def test_abmil_equals_its_formula(gated: bool, class_wise: bool) -> None:
    torch.manual_seed(5)
    head = Abmil((IN_DIM, 5, 4, 6), N_CLASSES, gated=gated, class_wise=class_wise).double()
    x = torch.randn(8, IN_DIM, dtype=torch.float64)
    output = head(x[None], torch.ones(1, 8, dtype=torch.bool))
    p = {name: value.detach().numpy() for name, value in head.state_dict().items()}
    h = np.maximum(x.numpy() @ p["project.0.weight"].T + p["project.0.bias"], 0)
    v = np.tanh(h @ p["value.weight"].T + p["value.bias"])
    if gated:
        v = v / (1 + np.exp(-(h @ p["gate.weight"].T + p["gate.bias"])))
    e = v @ p["score.weight"].T + p["score.bias"]
    a = np.exp(e) / np.exp(e).sum(axis=0)
    z = np.maximum((a.T @ h) @ p["hidden.0.weight"].T + p["hidden.0.bias"], 0)
    w, b = p["output.weight"], p["output.bias"]
    logits = [w[c] @ z[c if class_wise else 0] + b[c] for c in range(N_CLASSES)]
    np.testing.assert_allclose(output.logits[0].detach().numpy(), logits, atol=1e-12)
    np.testing.assert_allclose(output.attention[0].detach().numpy(), a.T, atol=1e-12)


def test_meanpool_is_the_classifier_of_the_mean() -> None:
    head = build_head(Component(name="meanpool"), IN_DIM, N_CLASSES).double()
    x = torch.randn(5, IN_DIM, dtype=torch.float64)
    expected = head.classifier(x.mean(dim=0))
    torch.testing.assert_close(head(x[None], torch.ones(1, 5, dtype=torch.bool)).logits[0], expected)


def test_the_default_classifier_is_two_linear_layers_with_a_relu_between() -> None:
    head = build_head(Component(name="abmil"), IN_DIM, N_CLASSES)
    layers = [*head.hidden, head.output]
    assert [type(layer) for layer in layers] == [nn.Linear, nn.ReLU, nn.Linear]
