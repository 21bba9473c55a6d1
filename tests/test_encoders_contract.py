"""What holds for every encoder in the registry; a new one is tested by being registered."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from encoder_toys import State, described_vit, draw, use_only, vit_in_transformers, vit_state

from encoders import ctranspath, phikon
from encoders.vit import VIT_SHAPES, VitShape
from milkit.encoder import Encoder
from milkit.errors import WeightsMissing
from milkit.registry import ENCODERS

TINY = {
    "s": VitShape(dim=24, depth=1, heads=2),
    "b": VitShape(dim=32, depth=1, heads=2),
    "l": VitShape(dim=24, depth=2, heads=2),
    "g": VitShape(dim=24, depth=1, heads=2, ffn="swiglu"),
}
POSITIONS = {"dinobloom": 257, "dinov2": 1370}


@pytest.fixture(params=ENCODERS.names())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random weights for the encoders that are tested at their full size; it suffices to draw them once."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        states: dict[str, State] = {"resnet50": timm.create_model("resnet50").state_dict()}
        states["ctranspath"] = _in_the_old_layout(ctranspath._network().state_dict())
    folder = tmp_path_factory.mktemp("weights")
    for name, state in states.items():
        torch.save(state, folder / f"{name}.bin")
    return {name: folder / f"{name}.bin" for name in states}


def _in_the_old_layout(state: State) -> State:
    return {re.sub(r"^layers\.(\d+)\.down", lambda m: f"layers.{int(m[1]) - 1}.down", n): v for n, v in state.items()}


@pytest.fixture
def arguments(name: str, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """How each is built offline; one that is not named here is built without arguments."""
    use_only(tmp_path, monkeypatch)
    if name == "timm":
        return {"model": "test_resnet", "pretrained": False}
    if name in ("ctranspath", "resnet50", "resnet50-pooled", "resnet50-trunc"):
        return {"weights": files[name.partition("-")[0]]}
    if name == "pretrained":
        return {"weights": described_vit(tmp_path / "mine.safetensors")}
    family, _, size = name.partition("-")
    if family in POSITIONS:
        monkeypatch.setitem(VIT_SHAPES, size, TINY[size])
        state = vit_state(replace(TINY[size], positions=POSITIONS[family]))
    elif name == "phikon":
        for key, value in {"embed_dim": 24, "depth": 1, "num_heads": 2}.items():
            monkeypatch.setitem(phikon.SHAPE, key, value)
        state = draw(vit_in_transformers(dim=24, depth=1))
    else:
        return {}
    torch.save(state, tmp_path / "weights.bin")
    return {"weights": tmp_path / "weights.bin"}


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


def test_an_encoder_s_faster_form_gives_the_same_features(name: str, arguments: dict[str, Any]) -> None:
    encoder = build(name, arguments)
    if encoder.for_features is None:
        return
    image = np.random.default_rng(0).integers(0, 256, (144, 144, 3), dtype=np.uint8)
    batch = encoder.transform(image)[None]
    with torch.inference_mode():
        torch.testing.assert_close(
            encoder.for_features(torch.float32, "cpu")(batch), encoder.model(batch), atol=1e-4, rtol=0
        )


def test_an_encoder_s_patch_tokens_are_a_grid_that_depends_on_its_own_image_alone(
    name: str, arguments: dict[str, Any]
) -> None:
    encoder = build(name, arguments)
    if encoder.patch_tokens is None:
        return
    images = np.random.default_rng(0).integers(0, 256, (2, 144, 144, 3), dtype=np.uint8)
    batch = torch.stack([encoder.transform(image) for image in images])
    with torch.inference_mode():
        tokens = encoder.patch_tokens(batch)
        torch.testing.assert_close(encoder.patch_tokens(batch[1:]), tokens[1:], atol=1e-5, rtol=1e-4)
    assert tokens.shape[0] == 2
    assert tokens.shape[1] == tokens.shape[2] > 1
    assert torch.isfinite(tokens).all()


def test_an_encoder_without_weights_is_refused_at_once_where_the_network_is_forbidden(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_only(tmp_path, monkeypatch)
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("the network was asked"))
    arguments = {"model": "resnet18"} if name == "timm" else {}
    if name in ("classical", "milkit-mini"):
        return  # nothing learned, or its weights are in the package: nothing to refuse
    with pytest.raises(WeightsMissing, match=r"--weights FILE\.$"):
        ENCODERS.build(name, arguments)


def test_the_names_of_our_encoders_are_known() -> None:
    ours = {"classical", "milkit-mini", "pretrained", "timm", "ctranspath", "phikon"}
    ours |= {"resnet50", "resnet50-pooled", "resnet50-trunc"}
    assert ours | {f"{family}-{size}" for family in POSITIONS for size in TINY} <= set(ENCODERS.names())
