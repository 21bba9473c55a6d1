"""Random weights in published layouts, and a Hugging Face cache that holds them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from encoders.vit import VisionTransformer, VitShape

COMMIT = "c" * 40

State = dict[str, Tensor]


def draw(shapes: Mapping[str, tuple[int, ...]], seed: int = 0, scale: float = 0.1) -> State:
    """Values for every name, none of them a neutral 0 or 1: normal, gains and variances around one and positive."""
    generator = torch.Generator().manual_seed(seed)
    state: State = {}
    for name, shape in shapes.items():
        values = torch.randn(shape, generator=generator) * scale
        if name.endswith("running_var") or (name.endswith((".weight", ".gamma")) and len(shape) == 1):
            values = (1 + values).abs()
        state[name] = torch.tensor(7) if name.endswith("num_batches_tracked") else values
    return state


def vit_state(shape: VitShape, seed: int = 0) -> State:
    """A vision transformer in DINOv2's own layout."""
    with torch.device("meta"):
        empty = VisionTransformer(shape).state_dict()
    return draw({name: tuple(value.shape) for name, value in empty.items()}, seed)


def described_vit(path: Path, shape: VitShape | None = None, **about: Any) -> Path:
    """A file like those of `milkit pretrain`, with random values."""
    shape = shape or VitShape(dim=24, depth=1, heads=2, positions=10)
    known = {"format": "milkit-encoder", "version": "1", "heads": shape.heads, "ffn": shape.ffn, "seen": ["acevedo"]}
    text = json.dumps({**known, "image_size": 14 * shape.grid, **about})
    save_file(vit_state(shape), path, {"milkit": text})
    return path


def vit_in_transformers(dim: int, depth: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of transformers' ``ViTModel``, pooler included, for 224 pixels."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, dim),
        "embeddings.position_embeddings": (1, 197, dim),
        "embeddings.patch_embeddings.projection.weight": (dim, 3, 16, 16),
        "embeddings.patch_embeddings.projection.bias": (dim,),
    }
    square, wide, narrow = (dim, dim), (4 * dim, dim), (dim, 4 * dim)
    for i in range(depth):
        layer = f"encoder.layer.{i}"
        linears = {f"attention.attention.{part}": square for part in ("query", "key", "value")}
        linears |= {"attention.output.dense": square, "intermediate.dense": wide, "output.dense": narrow}
        for name, shape in linears.items():
            shapes[f"{layer}.{name}.weight"], shapes[f"{layer}.{name}.bias"] = shape, shape[:1]
        for name in ("layernorm_before", "layernorm_after"):
            shapes[f"{layer}.{name}.weight"] = shapes[f"{layer}.{name}.bias"] = (dim,)
    shapes |= {"layernorm.weight": (dim,), "layernorm.bias": (dim,)}
    return shapes | {"pooler.dense.weight": square, "pooler.dense.bias": (dim,)}


def prefixed(state: State, prefix: str) -> State:
    """The same with ``prefix`` before every name."""
    return {prefix + name: value for name, value in state.items()}


def images(n: int = 2, size: int = 224) -> Tensor:
    """Random images (n, 3, size, size)."""
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(1))


def put_into_cache(cache: Path, repository: str, file: str, content: bytes, named: str = "") -> Path:
    """A cached file as huggingface_hub lays it out: the snapshot links to a blob, which is named by its SHA-256."""
    named = named or hashlib.sha256(content).hexdigest()
    folder = cache / f"models--{repository.replace('/', '--')}"
    for part in ("blobs", "refs", f"snapshots/{COMMIT}"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(COMMIT)
    (folder / "blobs" / named).write_bytes(content)
    link = folder / "snapshots" / COMMIT / file
    link.symlink_to(Path("..", "..", "blobs", named))
    return link


def use_only(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forbid the network, and look for cached files in ``cache`` alone."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return cache
