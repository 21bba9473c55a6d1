"""Phikon, held to a float64 forward written from the formulas over the names that are published."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoder_toys import State, draw, images, put_into_cache, use_only, vit_in_transformers
from safetensors.torch import save
from scipy.special import erf
from torch import nn

from encoders.phikon import EPSILON, SHAPE, phikon
from milkit.encoder import Transform
from milkit.errors import WeightsError, WeightsMissing

Matrix = np.ndarray[Any, np.dtype[Any]]

DIM, DEPTH, HEADS = 24, 2, 3


def oracle(state: State, image: Matrix) -> Matrix:
    """One image (3, 224, 224) -> the class token after the last norm (D,), in float64, head by head."""
    w = {name: value.double().numpy() for name, value in state.items()}

    def norm(x: Matrix, prefix: str) -> Matrix:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        return scaled * w[f"{prefix}.weight"] + w[f"{prefix}.bias"]

    def linear(x: Matrix, prefix: str) -> Matrix:
        return x @ w[f"{prefix}.weight"].T + w[f"{prefix}.bias"]

    patches = np.stack(
        [image[:, 16 * r : 16 * r + 16, 16 * c : 16 * c + 16].ravel() for r in range(14) for c in range(14)]
    )
    kernel = w["embeddings.patch_embeddings.projection.weight"].reshape(DIM, -1)
    embedded = patches @ kernel.T + w["embeddings.patch_embeddings.projection.bias"]
    x = np.concatenate([w["embeddings.cls_token"][0], embedded]) + w["embeddings.position_embeddings"][0]
    for i in range(DEPTH):
        layer = f"encoder.layer.{i}"
        before = norm(x, f"{layer}.layernorm_before")
        q, k, v = (linear(before, f"{layer}.attention.attention.{part}") for part in ("query", "key", "value"))
        heads = []
        for columns in np.split(np.arange(DIM), HEADS):
            scores = np.exp(q[:, columns] @ k[:, columns].T / math.sqrt(DIM / HEADS))
            heads.append(scores / scores.sum(1, keepdims=True) @ v[:, columns])
        x = x + linear(np.concatenate(heads, axis=1), f"{layer}.attention.output.dense")
        hidden = linear(norm(x, f"{layer}.layernorm_after"), f"{layer}.intermediate.dense")
        x = x + linear(hidden * (1 + erf(hidden / math.sqrt(2))) / 2, f"{layer}.output.dense")
    return norm(x[0], "layernorm")


@pytest.fixture(autouse=True)
def tiny_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"embed_dim": DIM, "depth": DEPTH, "num_heads": HEADS}.items():
        monkeypatch.setitem(SHAPE, name, value)


def test_the_features_equal_the_formulas(tmp_path: Path) -> None:
    state = draw(vit_in_transformers(DIM, DEPTH), scale=0.3)
    torch.save(state, tmp_path / "pytorch_model.bin")
    encoder = phikon(tmp_path / "pytorch_model.bin")
    expected = np.stack([oracle(state, image.double().numpy()) for image in images()])
    np.testing.assert_allclose(encoder.model(images()).numpy(), expected, atol=1e-5)
    assert encoder.name == "phikon"
    assert encoder.dim == DIM
    assert encoder.seen == ("tcga",)
    assert encoder.transform == Transform(size=224, interpolation="bilinear", crop=1.0)


def test_every_norm_has_the_published_epsilon(tmp_path: Path) -> None:
    torch.save(draw(vit_in_transformers(DIM, DEPTH)), tmp_path / "weights.bin")
    norms = [module for module in phikon(tmp_path / "weights.bin").model.modules() if isinstance(module, nn.LayerNorm)]
    assert {norm.eps for norm in norms} == {1e-6} == {EPSILON}
    assert len(norms) == 2 * DEPTH + 1


def test_the_true_shape_has_the_published_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"embed_dim": 768, "depth": 12, "num_heads": 12}.items():
        monkeypatch.setitem(SHAPE, name, value)
    empty = {name: torch.zeros(1).expand(shape) for name, shape in vit_in_transformers(768, 12).items()}
    torch.save(empty, tmp_path / "weights.bin")  # a few kilobytes: every value is the same one
    encoder = phikon(tmp_path / "weights.bin")
    assert sum(parameter.numel() for parameter in encoder.model.parameters()) == 85_798_656  # 85.8 M, says its card


def test_the_pooler_does_not_matter(tmp_path: Path) -> None:
    state = draw(vit_in_transformers(DIM, DEPTH))
    torch.save(state, tmp_path / "with.bin")
    torch.save({name: v for name, v in state.items() if "pooler" not in name}, tmp_path / "without.bin")
    assert phikon(tmp_path / "with.bin").digest == phikon(tmp_path / "without.bin").digest


def test_without_weights_the_hub_s_file_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = use_only(tmp_path / "cache", monkeypatch)
    state = draw(vit_in_transformers(DIM, DEPTH))
    put_into_cache(cache, "owkin/phikon", "model.safetensors", save(state))
    torch.save(state, tmp_path / "weights.bin")
    assert phikon().digest == phikon(tmp_path / "weights.bin").digest


def test_weights_that_are_neither_given_nor_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_only(tmp_path, monkeypatch)
    with pytest.raises(WeightsMissing, match=r"owkin/phikon .* forbidden .*; download it from .* --weights FILE\."):
        phikon()


@pytest.mark.parametrize("lost", ["encoder.layer.1.attention.attention.key.bias", "layernorm.weight"])
def test_a_file_that_lacks_a_tensor_is_refused(lost: str, tmp_path: Path) -> None:
    state = draw(vit_in_transformers(DIM, DEPTH))
    del state[lost]
    torch.save(state, tmp_path / "weights.bin")
    with pytest.raises(WeightsError, match=r"missing: (blocks\.1\.attn\.qkv\.bias|norm\.weight)"):
        phikon(tmp_path / "weights.bin")
