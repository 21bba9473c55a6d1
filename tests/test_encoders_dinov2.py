"""The DINOv2 releases: both published layouts, 1370 positions, and no mistaking them for DinoBloom."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from encoder_toys import State, images, prefixed, put_into_cache, use_only, vit_state
from safetensors.torch import save, save_file

from encoders.dinov2_releases import dinov2_b, dinov2_g, dinov2_l, dinov2_s
from encoders.vit import VIT_SHAPES, VisionTransformer, VitShape
from milkit.encoder import Encoder, Transform
from milkit.errors import WeightsError, WeightsMissing

TINY = {
    "s": VitShape(dim=24, depth=2, heads=2),
    "b": VitShape(dim=32, depth=2, heads=2),
    "l": VitShape(dim=32, depth=3, heads=2),
    "g": VitShape(dim=24, depth=2, heads=2, ffn="swiglu"),
}
ORIGINAL = dict(VIT_SHAPES)
FACTORIES: dict[str, Callable[..., Encoder]] = {"s": dinov2_s, "b": dinov2_b, "l": dinov2_l, "g": dinov2_g}
PORTS = {
    "s": "timm/vit_small_patch14_dinov2.lvd142m",
    "b": "timm/vit_base_patch14_dinov2.lvd142m",
    "l": "timm/vit_large_patch14_dinov2.lvd142m",
    "g": "timm/vit_giant_patch14_dinov2.lvd142m",
}


@pytest.fixture(autouse=True)
def tiny_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    for size, shape in TINY.items():
        monkeypatch.setitem(VIT_SHAPES, size, shape)


def state(size: str = "s") -> State:
    return vit_state(replace(TINY[size], positions=1370))


def port(size: str) -> State:
    """As timm publishes it."""
    renamed = {name.replace("mlp.w12", "mlp.fc1").replace("mlp.w3", "mlp.fc2"): v for name, v in state(size).items()}
    del renamed["mask_token"]
    return renamed


@pytest.mark.parametrize("size", FACTORIES)
def test_the_features_are_those_of_the_file(size: str, tmp_path: Path) -> None:
    torch.save(state(size), tmp_path / "pretrain.pth")
    encoder = FACTORIES[size](tmp_path / "pretrain.pth")
    model = VisionTransformer(replace(TINY[size], positions=1370))
    model.load_state_dict(state(size))
    with torch.no_grad():
        assert torch.equal(encoder.model(images()), model(images()))
    assert encoder.name == f"dinov2-{size}"
    assert encoder.dim == TINY[size].dim
    assert encoder.seen == ("lvd142m",)
    assert encoder.transform == Transform(size=224, interpolation="bilinear", crop=1.0)


@pytest.mark.parametrize("size", FACTORIES)
def test_a_training_s_file_and_timm_s_port_give_the_same_features(size: str, tmp_path: Path) -> None:
    torch.save(state(size), tmp_path / "pretrain.pth")
    torch.save({"teacher": prefixed(state(size), "module.backbone.")}, tmp_path / "teacher.pth")
    save_file(port(size), tmp_path / "model.safetensors")
    names = ("pretrain.pth", "teacher.pth", "model.safetensors")
    flat, teacher, ported = (FACTORIES[size](tmp_path / name) for name in names)
    assert torch.equal(teacher.model(images()), flat.model(images()))
    assert torch.equal(ported.model(images()), flat.model(images()))
    assert teacher.digest == flat.digest


@pytest.mark.parametrize("size", FACTORIES)
def test_the_port_s_names_are_those_of_timm_s_own_network(size: str) -> None:
    with torch.device("meta"):
        network = timm.create_model(PORTS[size].removeprefix("timm/"), num_classes=0)
        ours = VisionTransformer(replace(ORIGINAL[size], positions=1370))
    renamed = {
        name.replace("mlp.w12", "mlp.fc1").replace("mlp.w3", "mlp.fc2"): value.shape
        for name, value in ours.state_dict().items()
    }
    del renamed["mask_token"]
    assert renamed == {name: value.shape for name, value in network.state_dict().items()}


@pytest.mark.parametrize("size", FACTORIES)
def test_without_weights_timm_s_port_is_taken(size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert timm.get_pretrained_cfg(PORTS[size].removeprefix("timm/")).hf_hub_id == PORTS[size]
    cache = use_only(tmp_path / "cache", monkeypatch)
    put_into_cache(cache, PORTS[size], "model.safetensors", save(port(size)))
    encoder = FACTORIES[size]()
    assert encoder.name == f"dinov2-{size}"
    assert encoder.made_of["weights_format"] == "flat safetensors"


def test_weights_that_are_neither_given_nor_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_only(tmp_path, monkeypatch)
    message = (
        r"model\.safetensors of timm/vit_giant_patch14_dinov2\.lvd142m .* the network is forbidden .*; download it "
        r"there, or dinov2_vitg14_pretrain\.pth from dl\.fbaipublicfiles\.com/dinov2/dinov2_vitg14, and pass it with "
        r"--weights FILE\."
    )
    with pytest.raises(WeightsMissing, match=message):
        dinov2_g()


def refused(tmp_path: Path, content: State, message: str) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=message) as caught:
        dinov2_s(tmp_path / "weights.pth")
    assert "\n" not in str(caught.value)


def test_a_dinobloom_file_is_recognised(tmp_path: Path) -> None:
    refused(
        tmp_path, vit_state(TINY["s"]), r"holds 257 positions, but DINOv2-S has 1370; use the encoder dinobloom-s\."
    )


def test_another_size_is_refused_with_both_shapes(tmp_path: Path) -> None:
    message = r"holds 2 blocks of 24 features with swiglu, but DINOv2-S has .* with mlp; use the encoder dinov2-g\."
    refused(tmp_path, port("g"), message)


def test_register_tokens_are_another_network(tmp_path: Path) -> None:
    refused(tmp_path, state() | {"register_tokens": torch.zeros(1, 4, 24)}, r"unexpected: register_tokens")


def test_the_file_of_another_network_is_refused_with_the_address(tmp_path: Path) -> None:
    refused(
        tmp_path, {"fc.weight": torch.zeros(2, 2)}, r"cls_token or pos_embed is missing\); give a file from dl\.fba"
    )
