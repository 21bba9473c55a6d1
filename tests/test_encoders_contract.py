"""What holds for every encoder in the registry; a new one is tested by being registered."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encoders.vit import VIT_SHAPES, VisionTransformer, VitShape
from milkit.encoder import Encoder
from milkit.errors import WeightsMissing
from milkit.registry import ENCODERS

TINY = {
    "s": VitShape(dim=24, depth=1, heads=2),
    "b": VitShape(dim=32, depth=1, heads=2),
    "l": VitShape(dim=24, depth=2, heads=2),
    "g": VitShape(dim=24, depth=1, heads=2, ffn="swiglu"),
}


@pytest.fixture(params=ENCODERS.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def arguments(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """How each is built offline; one that is not named here is built without arguments."""
    if name == "timm":
        return {"model": "test_resnet", "pretrained": False}
    if name.startswith("dinobloom-"):
        size = name[-1]
        monkeypatch.setitem(VIT_SHAPES, size, TINY[size])
        with torch.random.fork_rng():
            torch.manual_seed(0)
            state = {key: torch.randn_like(value) for key, value in VisionTransformer(TINY[size]).state_dict().items()}
        torch.save(state, tmp_path / "weights.bin")
        return {"weights": tmp_path / "weights.bin"}
    return {}


def build(name: str, arguments: dict[str, Any]) -> Encoder:
    try:
        encoder: Encoder = ENCODERS.build(name, arguments)
    except WeightsMissing as missing:
        pytest.skip(str(missing))
    return encoder


def test_an_encoder_keeps_the_contract(name: str, arguments: dict[str, Any]) -> None:
    encoder = build(name, arguments)
    encoder.model.eval().requires_grad_(False)
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, shape, dtype=np.uint8) for shape in ((144, 144, 3), (97, 130, 3), (360, 363, 3))]
    batch = torch.stack([encoder.transform(image) for image in images])
    assert batch.dtype == torch.float32
    assert batch.shape == (3, 3, encoder.transform.size, encoder.transform.size)
    features = encoder.model(batch)
    assert features.shape == (3, encoder.dim)
    assert features.is_floating_point()
    assert torch.isfinite(features).all()
    alone = torch.cat([encoder.model(image[None]) for image in batch])
    torch.testing.assert_close(alone, features, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(features[0], features[1])


def test_an_encoder_is_the_same_when_built_again(name: str, arguments: dict[str, Any]) -> None:
    first, second = build(name, arguments), build(name, arguments)
    assert first.digest == second.digest
    assert re.fullmatch(r"[0-9a-f]{64}", first.digest)
    assert re.fullmatch(r"[A-Za-z0-9._-]+", first.name)
    assert all(isinstance(value, str) and "/" not in value for value in first.made_of.values())
