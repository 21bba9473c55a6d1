"""The faster form of the vision transformer, held to the plain one; its layers and kernels, held to their formulas."""

import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from encoder_toys import images, vit_state
from torch import Tensor
from torch.nn import functional

from encoders import onednn
from encoders.attention import attention, short_attention
from encoders.onednn import PackedLinear, PlainLinear, can_pack
from encoders.vit import VisionTransformer, VitShape
from encoders.vit_features import FeatureVit
from milkit.encoder import Engine

ENGINES: tuple[Engine, ...] = ("cpu", "cuda", "openvino")
SHAPES = {
    "mlp": VitShape(dim=48, depth=3, heads=3),
    "swiglu": VitShape(dim=48, depth=3, heads=3, ffn="swiglu"),
    "mlp, 1370 positions": VitShape(dim=48, depth=2, heads=3, positions=1370),
    "swiglu, 1370 positions": VitShape(dim=48, depth=2, heads=3, ffn="swiglu", positions=1370),
}


@pytest.fixture(autouse=True)
def _without_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


@pytest.fixture
def _fresh_check() -> Iterator[None]:
    """The check of the operators is made anew in the test, and again after it."""
    can_pack.cache_clear()
    yield
    can_pack.cache_clear()


def _vit(shape: VitShape, seed: int = 0) -> VisionTransformer:
    """Random weights: gains, LayerScale and biases are no neutral 1 and 0."""
    model = VisionTransformer(shape)
    model.load_state_dict(vit_state(shape, seed))
    return model.eval().requires_grad_(False)


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max().clamp(min=1.0))


def _cosines(found: Tensor, expected: Tensor) -> Tensor:
    return functional.cosine_similarity(found.double(), expected.double(), dim=1)


# --- the network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shape", SHAPES)
def test_features_are_those_of_the_plain_network(shape: str, engine: Engine) -> None:
    model = _vit(SHAPES[shape])
    found = FeatureVit(model, 224, torch.float32, engine)(images(3))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, model(images(3)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("size", [14, 112, 238, 518])
def test_features_are_those_of_the_plain_network_at_other_sizes(size: int, engine: Engine) -> None:
    """One patch; fewer than the native 16 × 16; more; and the grid of 1370 positions."""
    for positions in (257, 1370):
        model = _vit(VitShape(dim=24, depth=2, heads=2, positions=positions))
        found = FeatureVit(model, size, torch.float32, engine)(images(2, size))
        torch.testing.assert_close(found, model(images(2, size)), atol=1e-5, rtol=0)


def test_images_may_lie_in_memory_as_they_like() -> None:
    model = _vit(SHAPES["mlp"])
    fast = FeatureVit(model, 224, torch.float32, "cpu")
    torch.testing.assert_close(fast(images().contiguous(memory_format=torch.channels_last)), fast(images()))


@pytest.mark.parametrize("part", ["norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"])
@pytest.mark.parametrize("ffn", ["mlp", "swiglu"])
def test_what_is_folded_still_counts(ffn: str, part: str) -> None:
    """The comparison above would see a gain, a bias or a scale that is left out of the last block."""
    model, changed = _vit(SHAPES[ffn]), _vit(SHAPES[ffn])
    changed.get_parameter(f"blocks.2.{part}").mul_(1.5).add_(0.5)
    before, after = (FeatureVit(m, 224, torch.float32, "cpu")(images()) for m in (model, changed))
    assert (before - after).abs().max() > 1e-3


def test_every_parameter_but_the_mask_token_is_in_the_features() -> None:
    shape = VitShape(dim=24, depth=2, heads=2)
    before = FeatureVit(_vit(shape), 224, torch.float32, "cpu")(images())
    without_effect = []
    for name, _ in _vit(shape).named_parameters():
        model = _vit(shape)
        model.get_parameter(name).mul_(torch.linspace(0.5, 2.0, 24 if name.endswith("weight") else 1).mean() + 1)
        if torch.allclose(FeatureVit(model, 224, torch.float32, "cpu")(images()), before, atol=1e-6):
            without_effect.append(name)
    assert without_effect == ["mask_token"]


@pytest.mark.parametrize("ffn", ["mlp", "swiglu"])
def test_the_network_that_it_was_made_of_is_unchanged(ffn: str) -> None:
    model = _vit(SHAPES[ffn])
    before, expected = {name: value.clone() for name, value in model.state_dict().items()}, model(images())
    for dtype in (torch.float32, torch.bfloat16):
        FeatureVit(model, 224, dtype, "cpu")(images())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(images()), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("engine", ENGINES)
def test_an_image_s_features_do_not_depend_on_the_others(engine: Engine, dtype: torch.dtype) -> None:
    fast = FeatureVit(_vit(SHAPES["mlp"]), 224, dtype, engine)
    batch, other = images(4), images(4).flip(0) * 3 + 1
    other[2] = batch[2]
    assert torch.equal(fast(batch)[2], fast(other)[2])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("shape", ["mlp", "swiglu", "mlp, 1370 positions"])
def test_features_with_bfloat16_products_keep_their_direction(shape: str, engine: Engine) -> None:
    """Also after the mean of all images is taken away, which is most of what random networks answer."""
    wide = VitShape(96, 6, 3, SHAPES[shape].ffn, SHAPES[shape].positions)
    model, batch = _vit(wide), images(12) + torch.linspace(-2, 2, 12).view(-1, 1, 1, 1)
    expected, found = model(batch), FeatureVit(model, 224, torch.bfloat16, engine)(batch)
    assert found.dtype == torch.float32
    assert _cosines(found, expected).min() >= 0.999
    centre = expected.mean(0)
    assert _cosines(found - centre, expected - centre).min() >= 0.99
    assert _relative(found, expected) > 1e-5  # it is bfloat16 that was tried


def test_bfloat16_products_with_float32_tokens_are_closer_than_a_network_in_bfloat16() -> None:
    model, batch = _vit(VitShape(96, 6, 3)), images(4)
    expected = model(batch)
    mixed = FeatureVit(model, 224, torch.bfloat16, "cpu")(batch)
    throughout = _vit(VitShape(96, 6, 3)).to(torch.bfloat16)(batch.to(torch.bfloat16))
    assert (mixed - expected).norm() < (throughout.float() - expected).norm()


# --- oneDNN -----------------------------------------------------------------------------------------------------


def _layer(rows: int = 10, width: int = 33, out: int = 21) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((out, width), (out,), (rows, width))
    weight, bias, x = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return weight / math.sqrt(width), bias, x


def _exact(weight: Tensor, bias: Tensor, x: Tensor, activation: str) -> Tensor:
    """x Wᵀ + b, and z/2 (1 + erf(z / √2)), in float64."""
    y = x.numpy() @ weight.numpy().T + bias.numpy()
    if activation == "gelu":
        y = y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
    return torch.from_numpy(y)


@pytest.mark.parametrize("activation", ["none", "gelu"])
@pytest.mark.parametrize("kind", [PackedLinear, PlainLinear])
def test_a_linear_layer_is_its_formula(kind: Any, activation: Any) -> None:
    if kind is PackedLinear and not can_pack(torch.float32):
        pytest.skip("this PyTorch or this processor has no oneDNN operators")
    weight, bias, x = _layer()
    layer = kind(weight.float(), bias.float(), activation)
    torch.testing.assert_close(layer(x.float()).double(), _exact(weight, bias, x, activation), atol=2e-6, rtol=0)


def test_the_gelu_is_the_exact_one_and_not_its_approximation() -> None:
    """They differ by up to 4.7e-4, which the comparison above sees and this one states."""
    z = torch.linspace(-4, 4, 801, dtype=torch.float64)
    weight, bias = torch.eye(801), torch.zeros(801)
    exact = _exact(torch.eye(801, dtype=torch.float64), torch.zeros(801, dtype=torch.float64), z[None], "gelu")
    tanh = functional.gelu(z, approximate="tanh")
    assert (exact[0] - tanh).abs().max() > 4e-4
    for layer in [PlainLinear(weight, bias, "gelu")] + [PackedLinear(weight, bias, "gelu")] * can_pack(torch.float32):
        torch.testing.assert_close(layer(z[None].float()).double(), exact, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(5, 33), (2, 7, 33), (1, 1, 33)])
def test_the_packed_layer_takes_what_the_plain_one_takes(shape: tuple[int, ...]) -> None:
    weight, bias, _ = _layer()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    kinds = [PackedLinear] * can_pack(torch.float32) + [PlainLinear]
    found = [kind(weight.float(), bias.float())(x) for kind in kinds]
    assert {y.shape for y in found} == {(*shape[:-1], 21)}
    torch.testing.assert_close(found[0], found[-1], atol=2e-6, rtol=0)


@pytest.mark.parametrize("activation", ["none", "gelu"])
@pytest.mark.parametrize("kind", [PackedLinear, PlainLinear])
def test_a_linear_layer_in_bfloat16_rounds_its_factors_and_sums_in_more_digits(kind: Any, activation: Any) -> None:
    if kind is PackedLinear and not can_pack(torch.bfloat16):
        pytest.skip("this PyTorch or this processor has no oneDNN operators for bfloat16")
    weight, bias, x = _layer(width=1024)
    rounded = [value.to(torch.bfloat16) for value in (weight, bias, x)]
    y = kind(rounded[0], rounded[1], activation)(rounded[2])
    assert y.dtype == torch.bfloat16
    expected = _exact(*(value.double() for value in rounded), activation)
    torch.testing.assert_close(y.double(), expected, atol=2**-8, rtol=2**-7)


@pytest.mark.usefixtures("_fresh_check")
@pytest.mark.parametrize("missing", [SimpleNamespace(), "raises"])
def test_without_the_operators_the_features_are_the_same(missing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a PyTorch that has renamed them (no attribute), or on a processor that they have no code for (an error)."""

    def no_code(*_: object) -> Tensor:
        msg = "could not create a primitive descriptor"
        raise RuntimeError(msg)

    if missing == "raises":
        missing = SimpleNamespace(_reorder_linear_weight=no_code, _linear_pointwise=no_code)
    model = _vit(SHAPES["mlp"])
    monkeypatch.setattr(onednn, "_operators", lambda: missing)
    assert not can_pack(torch.float32)
    fast = FeatureVit(model, 224, torch.float32, "cpu")
    assert not [module for module in fast.modules() if isinstance(module, PackedLinear)]
    torch.testing.assert_close(fast(images()), model(images()), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("_fresh_check")
def test_operators_that_compute_something_else_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_bias(x: Tensor, weight: Tensor, *_: object) -> Tensor:
        return x @ weight.T

    other = SimpleNamespace(_reorder_linear_weight=lambda weight: weight, _linear_pointwise=without_bias)
    monkeypatch.setattr(onednn, "_operators", lambda: other)
    assert not can_pack(torch.float32)


def test_the_packed_layer_is_used_on_the_cpu_where_it_can_be_and_nowhere_else() -> None:
    model = _vit(SHAPES["mlp"])
    packed = {
        engine: any(isinstance(m, PackedLinear) for m in FeatureVit(model, 224, torch.float32, engine).modules())
        for engine in ENGINES
    }
    assert packed == {"cpu": can_pack(torch.float32), "cuda": False, "openvino": False}


# --- attention --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queries", [1, 9])
def test_both_attentions_are_the_formula(queries: int) -> None:
    """softmax(q kᵀ / √d) v for each image and head, in float64 loops; q has its own length."""
    generator = torch.Generator().manual_seed(0)
    n_images, n, heads, d = 2, 9, 3, 8
    q = torch.randn(n_images, queries, heads, d, generator=generator, dtype=torch.float64) * 2
    k, v = torch.randn(2, n_images, n, heads, d, generator=generator, dtype=torch.float64) * 2
    expected = np.zeros((n_images, queries, heads, d))
    for image in range(n_images):
        for head in range(heads):
            for row in range(queries):
                weights = np.exp(k[image, :, head].numpy() @ q[image, row, head].numpy() / math.sqrt(d))
                expected[image, row, head] = weights @ v[image, :, head].numpy() / weights.sum()

    def by_head(x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(0, 1).contiguous()

    short = short_attention(by_head(q) / math.sqrt(d), by_head(k), by_head(v))
    np.testing.assert_allclose(attention(q, k, v), expected, atol=1e-12)
    np.testing.assert_allclose(short.unflatten(0, (n_images, heads)).transpose(1, 2), expected, atol=1e-12)
    single = short_attention(*(by_head(x).float() for x in (q / math.sqrt(d), k, v)))
    torch.testing.assert_close(single.double(), short, atol=1e-5, rtol=0)


def test_large_scores_do_not_overflow() -> None:
    q = torch.full((1, 2, 4), 100.0)
    assert torch.isfinite(short_attention(q, q, q)).all()
