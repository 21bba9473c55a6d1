"""Layers with their activation and dropout in one step, against PyTorch's own and against their formulas."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from milkit.encoder import computes_in_bf16
from milkit.mil.activations import Dropout, bounded, gated, keep, projected

Layer = nn.Linear


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)


@pytest.fixture(params=[1, 3], ids=["one score", "three scores"])
def layers(request: pytest.FixtureRequest) -> tuple[Layer, Layer, Layer]:
    """Two layers and the scores of what they make; the gradients of a single score go another way."""
    torch.manual_seed(1)
    return nn.Linear(5, 4).double(), nn.Linear(5, 4).double(), nn.Linear(4, request.param).double()


def _all(x: Tensor, layers: tuple[Layer, Layer, Layer], rate: float) -> Tensor:
    first, second, score = layers
    parts = projected(x, first, rate), bounded(x, second, score), gated(x, first, second, score, rate)
    return torch.cat(parts, dim=-1)


def test_without_dropout_they_are_the_plain_layers(x: Tensor, layers: tuple[Layer, Layer, Layer]) -> None:
    (a, b), score = (layer(x) for layer in layers[:2]), layers[2]
    parts = torch.relu(a), score(torch.tanh(b)), score(torch.tanh(a) * torch.sigmoid(b))
    torch.testing.assert_close(_all(x, layers, 0.0), torch.cat(parts, dim=-1), atol=1e-14, rtol=0)


def test_scores_without_a_bias_are_those_of_the_layer(x: Tensor, layers: tuple[Layer, Layer, Layer]) -> None:
    score = nn.Linear(4, 2, bias=False).double()
    torch.testing.assert_close(bounded(x, layers[0], score), score(torch.tanh(layers[0](x))), atol=1e-14, rtol=0)


def test_single_precision_is_kept_near_zero_and_far_from_it(layers: tuple[Layer, Layer, Layer]) -> None:
    x = torch.logspace(-6, 2, 2000)[:, None].expand(-1, 5)
    layer, score = layers[0].float(), layers[2].float()
    torch.testing.assert_close(bounded(x, layer, score), score(torch.tanh(layer(x))), atol=1e-6, rtol=0)


@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_gradients_are_those_of_small_differences(x: Tensor, layers: tuple[Layer, Layer, Layer], rate: float) -> None:
    """Of the input, the weights and the biases; with the same zeros in every call, since the seed is the same."""

    def seeded(x: Tensor, *_: Tensor) -> Tensor:
        torch.manual_seed(3)
        return _all(x, layers, rate)

    parameters = [p for layer in layers for p in layer.parameters()]
    assert torch.autograd.gradcheck(seeded, (x, *parameters))


@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_an_input_that_needs_no_gradient_gets_none(layers: tuple[Layer, Layer, Layer], rate: float) -> None:
    x = torch.randn(9, 5, dtype=torch.float64)
    _all(x, layers, rate).sum().backward()
    assert x.grad is None
    assert all(p.grad is not None for layer in layers for p in layer.parameters())


def _of_ones(function: Callable[[Tensor], Tensor], n: int = 1_000_000) -> Tensor:
    """A layer of weight 0 and bias 20, so that relu is 20 and tanh and sigmoid are 1."""
    torch.manual_seed(1)
    return function(torch.ones(n // 100, 2)).flatten()


def _constant() -> Layer:
    layer = nn.Linear(2, 100)
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, 20.0)
    return layer


@pytest.mark.parametrize("rate", [0.25, 0.1, 0.5])
def test_values_are_zero_at_the_rate_and_keep_their_mean(rate: float) -> None:
    y = _of_ones(lambda x: projected(x, _constant(), rate))
    exact = round(rate * 256) / 256
    assert float((y == 0).float().mean()) == pytest.approx(exact, abs=4 * (0.25 / len(y)) ** 0.5)
    assert y.unique().tolist() == [0.0, pytest.approx(20 / (1 - exact))]


def test_a_gated_value_is_kept_where_both_factors_would_be() -> None:
    each = nn.Linear(100, 100, bias=False)
    nn.init.eye_(each.weight)  # a value's score is the value
    y = _of_ones(lambda x: gated(x, _constant(), _constant(), each, 0.25))
    assert float((y != 0).float().mean()) == pytest.approx(0.75**2, abs=4 * (0.25 / len(y)) ** 0.5)
    assert y.unique().tolist() == [0.0, pytest.approx(1 / 0.75**2)]


def test_the_zeros_are_independent_of_each_other_and_from_call_to_call() -> None:
    torch.manual_seed(2)
    first, second = (keep(torch.empty(1000, 1000), 0.5)[0] for _ in range(2))
    for a, b in (
        (first, second),
        (first[1:], first[:-1]),
        (first[:, 1:], first[:, :-1]),
        (first[:, 8:], first[:, :-8]),
    ):
        together = float((a * b).mean() - a.mean() * b.mean())
        assert abs(together) < 4 * 0.25 / 1000


def test_the_seed_of_torch_determines_the_zeros() -> None:
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(keep(torch.empty(50), 0.5)[0])
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_a_rate_near_one_still_keeps_some() -> None:
    kept, factor = keep(torch.empty(100_000), 0.9999)
    assert 0 < float(kept.sum()) < 1000
    assert factor == 256


def test_dropout_is_for_training_alone(x: Tensor) -> None:
    layer = Dropout(0.5)
    assert (layer(x) == 0).any()
    assert layer.eval()(x) is x


@pytest.mark.skipif(not computes_in_bf16(torch.device("cpu")), reason="this processor does not compute in bfloat16")
def test_half_precision_stays_near_and_its_gradients_are_single(layers: tuple[Layer, Layer, Layer]) -> None:
    layers = (layers[0].float(), layers[1].float(), layers[2].float())
    x = torch.randn(300, 5, requires_grad=True)
    exact = _all(x, layers, 0.0)
    with torch.autocast("cpu", torch.bfloat16):
        y = _all(x, layers, 0.0)
        assert projected(x, layers[0]).dtype == torch.bfloat16
    torch.testing.assert_close(y, exact, atol=0.04, rtol=0)
    y.square().sum().backward()
    found = [x.grad, *(p.grad for layer in layers for p in layer.parameters())]
    x.grad = None
    for layer in layers:
        layer.zero_grad()
    exact.square().sum().backward()
    for near, gradient in zip(found, [x.grad, *(p.grad for layer in layers for p in layer.parameters())], strict=True):
        assert near is not None
        assert gradient is not None
        assert near.dtype == torch.float32
        assert float((near - gradient).norm()) < 0.02 * float(gradient.norm())
