"""The vision transformer, held to a float64 forward written from the formulas and to the published table."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from encoders import attention as attention_module
from encoders.attention import attention
from encoders.vit import VIT_SHAPES, VisionTransformer, VitShape

Matrix = np.ndarray[Any, np.dtype[Any]]

TINY = {
    "mlp": VitShape(dim=12, depth=2, heads=3, positions=5),
    "swiglu": VitShape(dim=12, depth=2, heads=3, ffn="swiglu", positions=5),
}


def random_vit(shape: VitShape, seed: int = 0) -> VisionTransformer:
    """All parameters drawn anew, so that none is a neutral 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    model = VisionTransformer(shape).requires_grad_(False)
    for parameter in model.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def oracle(weights: dict[str, Matrix], shape: VitShape, image: Matrix) -> Matrix:
    """One image (3, H, W) -> all tokens (1 + N, D), in float64, head by head and patch by patch."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    head_dim = shape.dim // shape.heads

    def norm(x: Matrix, prefix: str) -> Matrix:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return scaled * w[f"{prefix}.weight"] + w[f"{prefix}.bias"]

    def linear(x: Matrix, prefix: str) -> Matrix:
        return x @ w[f"{prefix}.weight"].T + w[f"{prefix}.bias"]

    rows, columns = image.shape[1] // 14, image.shape[2] // 14
    patches = [image[:, 14 * r : 14 * r + 14, 14 * c : 14 * c + 14] for r in range(rows) for c in range(columns)]
    kernel = w["patch_embed.proj.weight"]
    embedded = [[np.sum(kernel[d] * patch) for d in range(shape.dim)] for patch in patches]
    x = np.concatenate([w["cls_token"][0], np.array(embedded) + w["patch_embed.proj.bias"]]) + w["pos_embed"][0]
    for i in range(shape.depth):
        block = f"blocks.{i}"
        q, k, v = np.split(linear(norm(x, f"{block}.norm1"), f"{block}.attn.qkv"), 3, axis=1)
        heads = []
        for h in range(shape.heads):
            part = slice(h * head_dim, (h + 1) * head_dim)
            scores = np.exp(q[:, part] @ k[:, part].T / math.sqrt(head_dim))
            heads.append(scores / scores.sum(1, keepdims=True) @ v[:, part])
        x = x + w[f"{block}.ls1.gamma"] * linear(np.concatenate(heads, axis=1), f"{block}.attn.proj")
        y = norm(x, f"{block}.norm2")
        if shape.ffn == "mlp":
            z = linear(y, f"{block}.mlp.fc1")
            z = linear(z * 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2))), f"{block}.mlp.fc2")
        else:
            gate, value = np.split(linear(y, f"{block}.mlp.w12"), 2, axis=1)
            z = linear(gate / (1 + np.exp(-gate)) * value, f"{block}.mlp.w3")
        x = x + w[f"{block}.ls2.gamma"] * z
    return norm(x, "norm")


@pytest.mark.parametrize("ffn", ["mlp", "swiglu"])
def test_forward_equals_the_formulas(ffn: str) -> None:
    shape = TINY[ffn]
    model = random_vit(shape)
    images = torch.randn(3, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    expected = np.stack([oracle(weights, shape, image.numpy().astype(np.float64)) for image in images])
    cls, patches = model.tokens(images)
    np.testing.assert_allclose(cls, expected[:, 0], atol=1e-5)
    np.testing.assert_allclose(patches, expected[:, 1:], atol=1e-5)
    assert torch.equal(model(images), cls)


def test_the_oracle_sees_the_order_of_the_swiglu_halves() -> None:
    model = random_vit(TINY["swiglu"])
    images = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    before = model(images)
    for block in model.blocks:
        for parameter in (block.mlp.w12.weight, block.mlp.w12.bias):
            parameter.copy_(torch.cat(parameter.chunk(2)[::-1]))
    assert (model(images) - before).abs().max() > 1e-3


TABLE = {  # tensors, parameters at 257 positions, width of the feed-forward's first and second matrix
    "s": (175, 21_629_184, {"fc1": (1536, 384), "fc2": (384, 1536)}),
    "b": (175, 85_725_696, {"fc1": (3072, 768), "fc2": (768, 3072)}),
    "l": (343, 303_228_928, {"fc1": (4096, 1024), "fc2": (1024, 4096)}),
    "g": (567, 1_134_771_200, {"w12": (8192, 1536), "w3": (1536, 4096)}),
}


@pytest.mark.parametrize("size", sorted(TABLE))
def test_keys_and_shapes_are_the_published_ones(size: str) -> None:
    shape = VIT_SHAPES[size]
    dim = shape.dim
    tensors, parameters, ffn = TABLE[size]
    expected = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, 257, dim),
        "mask_token": (1, dim),
        "patch_embed.proj.weight": (dim, 3, 14, 14),
        "patch_embed.proj.bias": (dim,),
        "norm.weight": (dim,),
        "norm.bias": (dim,),
    }
    for i in range(shape.depth):
        layers = {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim)} | {f"mlp.{name}": s for name, s in ffn.items()}
        for name, matrix in layers.items():
            expected[f"blocks.{i}.{name}.weight"], expected[f"blocks.{i}.{name}.bias"] = matrix, matrix[:1]
        for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "ls1.gamma", "ls2.gamma"):
            expected[f"blocks.{i}.{name}"] = (dim,)
    with torch.device("meta"):
        state = VisionTransformer(shape).state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == expected
    assert len(state) == tensors
    assert sum(value.numel() for value in state.values()) == parameters
    assert dim // shape.heads == 64


def test_positions_are_used_as_they_are_on_the_native_grid() -> None:
    shape = VitShape(dim=8, depth=1, heads=2)
    model = random_vit(shape)
    assert shape.grid == 224 // 14
    assert model.positions(16, 16) is model.pos_embed


@pytest.mark.parametrize(("rows", "columns"), [(7, 7), (16, 9), (37, 37)])
def test_positions_on_another_grid_are_scaled_with_the_offset(rows: int, columns: int) -> None:
    model = random_vit(VitShape(dim=4, depth=1, heads=1))
    grid = model.pos_embed[0, 1:].reshape(16, 16, 4).numpy().astype(np.float64)

    def weights(
        length: int,
    ) -> Matrix:  # cubic convolution with a = -0.75 (Keys, 1981) at scale (length + 0.1) / 16, edges repeated
        matrix = np.zeros((length, 16))
        for i in range(length):
            centre = (i + 0.5) * 16 / (length + 0.1) - 0.5
            for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
                d = abs(tap - centre)
                near, far = 1.25 * d**3 - 2.25 * d**2 + 1, -0.75 * d**3 + 3.75 * d**2 - 6 * d + 3
                matrix[i, min(max(tap, 0), 15)] += near if d <= 1 else far
        return matrix

    expected = np.einsum("ri,cj,ijd->rcd", weights(rows), weights(columns), grid)
    scaled = model.positions(rows, columns)
    assert scaled.shape == (1, 1 + rows * columns, 4)
    np.testing.assert_allclose(scaled[0, 1:].reshape(rows, columns, 4), expected, atol=1e-5)
    assert torch.equal(scaled[:, 0], model.pos_embed[:, 0])


def test_a_masked_patch_does_not_matter_and_an_open_one_does() -> None:
    model = random_vit(TINY["mlp"])
    images = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    other = images.clone()
    other[:, :, :14, 14:] += 1.0  # the second patch
    masked = torch.tensor([[False, True, False, False]])
    assert torch.equal(model.tokens(images, masked).cls, model.tokens(other, masked).cls)
    assert not torch.equal(model(images), model(other))


def test_sizes_that_are_no_multiple_of_the_patch_are_refused() -> None:
    with pytest.raises(ValueError, match=r"30x28 pixels, expected multiples of 14; resize"):
        random_vit(TINY["mlp"])(torch.zeros(1, 3, 30, 28))


def test_attention_equals_plain_softmax() -> None:
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64)
    k, v = torch.randn(2, 2, 7, 3, 4, generator=generator, dtype=torch.float64)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(4)
    expected = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)
    torch.testing.assert_close(attention(q, k, v), expected)


class OnCuda(torch.Tensor):
    """A tensor that says that it lies on CUDA."""

    is_cuda = True


def test_attention_asks_the_kernel_on_cuda_only_and_falls_back_where_it_has_no_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []

    def kernel(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        asked.append(type(q))
        raise NotImplementedError

    monkeypatch.setattr(attention_module, "_memory_efficient_kernel", lambda: kernel)
    q = torch.randn(1, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    plain = attention(q, q, q)
    assert asked == []
    fallen_back = attention(q.as_subclass(OnCuda), q, q)
    assert asked == [OnCuda]
    assert torch.equal(fallen_back.as_subclass(torch.Tensor), plain)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA, where xformers works")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_kernel_equals_the_fallback(dtype: torch.dtype) -> None:
    q, k, v = torch.randn(3, 2, 257, 6, 64, device="cuda", dtype=dtype)
    expected = nn.functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-3
    torch.testing.assert_close(attention(q, k, v), expected, atol=tolerance, rtol=0)
