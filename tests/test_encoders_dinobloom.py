"""DinoBloom's weights: every published layout is read, everything else is refused in one sentence that helps."""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from encoder_toys import State, images, prefixed, put_into_cache, use_only, vit_state
from safetensors.torch import save_file

from encoders import dinobloom
from encoders.dinobloom import dinobloom_b, dinobloom_g, dinobloom_l, dinobloom_s
from encoders.vit import VIT_SHAPES, VisionTransformer, VitShape
from milkit.encoder import Encoder, Transform
from milkit.errors import WeightsError, WeightsMissing

TINY = {
    "s": VitShape(dim=24, depth=2, heads=2),
    "b": VitShape(dim=32, depth=2, heads=2),
    "l": VitShape(dim=32, depth=3, heads=2),
    "g": VitShape(dim=24, depth=2, heads=2, ffn="swiglu"),
}
FACTORIES: dict[str, Callable[..., Encoder]] = {
    "s": dinobloom_s,
    "b": dinobloom_b,
    "l": dinobloom_l,
    "g": dinobloom_g,
}


@pytest.fixture(autouse=True)
def tiny_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """All sizes, each of another shape, in milliseconds; the true shapes are tested with the transformer."""
    for size, shape in TINY.items():
        monkeypatch.setitem(VIT_SHAPES, size, shape)


def state(size: str = "s") -> State:
    return vit_state(TINY[size])


def heads() -> State:
    return {
        f"{head}_head.{layer}": torch.zeros(2, 2) for head in ("dino", "ibot") for layer in ("mlp.0.weight", "bias")
    }


LAYOUTS: dict[str, Callable[[State], object]] = {
    "flat": lambda s: s,
    "zenodo without heads": lambda s: {"teacher": prefixed(s, "backbone.")},
    "zenodo with heads": lambda s: {"teacher": prefixed(s, "backbone.") | heads()},
    "wrapped by DDP": lambda s: {"teacher": prefixed(s, "module.backbone.") | prefixed(heads(), "module.")},
    "half precision": lambda s: {name: value.half() for name, value in s.items()},
}


@pytest.fixture
def reference(tmp_path: Path) -> Encoder:
    path = tmp_path / "reference.bin"
    torch.save(state(), path)
    return dinobloom_s(path)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_published_layout_gives_the_same_features(layout: str, tmp_path: Path, reference: Encoder) -> None:
    path = tmp_path / "weights.pth"
    torch.save(LAYOUTS[layout](state()), path)
    encoder = dinobloom_s(path)
    tolerance = 2e-2 if layout == "half precision" else 0.0
    torch.testing.assert_close(encoder.model(images()), reference.model(images()), atol=tolerance, rtol=0)
    assert (encoder.digest == reference.digest) == (layout != "half precision")
    assert encoder.made_of["weights_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    wrapped = layout.startswith(("zenodo", "wrapped"))
    assert encoder.made_of["weights_format"] == ("teacher" if wrapped else "flat")


def test_safetensors(tmp_path: Path, reference: Encoder) -> None:
    path = tmp_path / "model.safetensors"
    save_file(prefixed(state(), "backbone."), path)
    encoder = dinobloom_s(path)
    assert encoder.digest == reference.digest
    assert encoder.made_of["weights_format"] == "flat safetensors"


@pytest.mark.parametrize("size", FACTORIES)
def test_each_size_says_what_it_is(size: str, tmp_path: Path) -> None:
    torch.save({"teacher": prefixed(state(size), "backbone.")}, tmp_path / "weights.pth")
    encoder = FACTORIES[size](tmp_path / "weights.pth")
    assert encoder.name == f"dinobloom-{size}"
    assert encoder.transform == Transform(size=224, interpolation="bilinear", crop=1.0)
    assert {"aml_hehr", "bmc", "mll23"} <= set(encoder.seen)
    assert "acevedo" not in encoder.seen
    assert encoder.model(images()).shape == (2, encoder.dim) == (2, TINY[size].dim)
    assert not encoder.model.training
    assert str(tmp_path) not in repr((encoder.name, encoder.made_of))


def test_the_features_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(state(), path)
    model = VisionTransformer(TINY["s"])
    model.load_state_dict(state())
    with torch.no_grad():
        assert torch.equal(dinobloom_s(path).model(images()), model(images()))


def refused(tmp_path: Path, content: object, message: str, factory: Callable[..., Encoder] = dinobloom_s) -> None:
    torch.save(content, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=message) as caught:
        factory(tmp_path / "weights.pth")
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("asked", FACTORIES)
@pytest.mark.parametrize("held", FACTORIES)
def test_another_size_is_refused_with_both_shapes(held: str, asked: str, tmp_path: Path) -> None:
    if held == asked:
        return
    said = [f"{TINY[size].depth} blocks of {TINY[size].dim} features with {TINY[size].ffn}" for size in (held, asked)]
    message = f"holds {said[0]}, but DinoBloom-{asked.upper()} has {said[1]}; use the encoder dinobloom-{held}"
    refused(tmp_path, state(held), message, FACTORIES[asked])


def test_an_unpublished_size_is_refused_with_the_address(tmp_path: Path) -> None:
    narrow = {name: value[..., :8] for name, value in state().items()}
    refused(tmp_path, narrow, r"2 blocks of 8 features .* give a file from Zenodo record 10908163 or MarrLab/DinoBloom")


def test_a_dinov2_release_is_recognised(tmp_path: Path) -> None:
    message = r"holds 1370 positions, but DinoBloom-S has 257; use the encoder dinov2-s\."
    refused(tmp_path, state() | {"pos_embed": torch.zeros(1, 1370, 24)}, message)


def test_another_grid_is_refused(tmp_path: Path) -> None:
    message = r"holds 50 positions, but DinoBloom-S has 257; give a file from Zenodo record 10908163 or MarrLab"
    refused(tmp_path, state() | {"pos_embed": torch.zeros(1, 50, 24)}, message)


def test_another_size_and_family_are_told_at_once(tmp_path: Path) -> None:
    message = r"holds 2 blocks of 32 features with mlp, but DinoBloom-S has .*; use the encoder dinov2-b\."
    refused(tmp_path, state("b") | {"pos_embed": torch.zeros(1, 1370, 32)}, message)


def test_missing_and_unexpected_tensors_are_named(tmp_path: Path) -> None:
    tensors = state() | {"register_tokens": torch.zeros(1, 4, 24)}
    del tensors["blocks.1.ls1.gamma"], tensors["norm.bias"]
    refused(tmp_path, tensors, r"missing: blocks\.1\.ls1\.gamma, norm\.bias; unexpected: register_tokens")


def test_tensors_of_another_shape_are_named(tmp_path: Path) -> None:
    wrong = {"blocks.0.mlp.fc1.bias": torch.zeros(7)}
    refused(tmp_path, state() | wrong, r"of another shape: blocks\.0\.mlp\.fc1\.bias \(7,\) instead of \(96,\)")


def test_many_faults_are_counted(tmp_path: Path) -> None:
    refused(tmp_path, state() | {f"extra{i}": torch.zeros(1) for i in range(9)}, r"extra0, .*, extra4 and 4 more\)")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"fc.weight": torch.zeros(2, 2)}, r"holds no vision transformer .* \(cls_token or pos_embed is missing\)"),
        ({"epoch": 3, "loss": 0.5}, r"holds epoch, loss beside its tensors, expected a state dict"),
        ({}, r"holds a dict without tensors"),
        (torch.zeros(3), r"holds a Tensor without tensors, expected a state dict"),
    ],
)
def test_checkpoints_of_something_else_are_refused(content: object, message: str, tmp_path: Path) -> None:
    refused(tmp_path, content, message)


class Malicious:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch executed",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(tmp_path, {"teacher": Malicious()}, r"holds Python objects .* milkit runs no code from a weights file")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"<!doctype html><title>Not found</title>", b"PK\x03\x04 cut short"])
def test_files_that_are_no_checkpoint_are_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{re.escape(name)} is not a .* or is damaged; download it again\."):
        dinobloom_s(tmp_path / name)


def test_a_file_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nowhere\.pth does not exist; give the path of .* --weights FILE"):
        dinobloom_s(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("size", FACTORIES)
def test_without_weights_the_hub_s_file_is_taken(size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.bin"
    torch.save(state(size), path)
    cache = use_only(tmp_path / "cache", monkeypatch)
    put_into_cache(cache, "MarrLab/DinoBloom", f"pytorch_model_{size}.bin", path.read_bytes())
    taken, given = FACTORIES[size](), FACTORIES[size](path)
    assert taken.digest == given.digest
    assert taken.made_of == given.made_of


@pytest.mark.parametrize("size", FACTORIES)
def test_weights_that_are_neither_given_nor_cached(size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_only(tmp_path / "cache", monkeypatch)
    message = (
        rf"pytorch_model_{size}\.bin of MarrLab/DinoBloom on Hugging Face is not in the cache, and the network is "
        rf"forbidden .*; download it there, or DinoBloom-{size.upper()}\.pth from Zenodo record 10908163, and pass it "
        r"with --weights FILE\."
    )
    with pytest.raises(WeightsMissing, match=message):
        FACTORIES[size]()


def test_a_file_that_only_bears_the_published_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "DinoBloom-S.pth"
    torch.save({"teacher": prefixed(state(), "backbone.")}, path)
    message = (
        r"DinoBloom-S\.pth is called like a published file, whose SHA-256 begins with c2f7990b, and its own begins "
        r"with [0-9a-f]{8}; download it again, or rename it if it is your own\."
    )
    with pytest.raises(WeightsError, match=message):
        dinobloom_s(path)
    assert dinobloom_s(path.rename(tmp_path / "mine.pth")).dim == 24


def test_the_published_file_is_accepted_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "DinoBloom-S.pth"
    torch.save(state(), path)
    monkeypatch.setitem(dinobloom._SHA256, path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    assert dinobloom_s(path).dim == 24


@pytest.mark.parametrize("size", FACTORIES)
def test_timm_s_ports_are_read(size: str, tmp_path: Path) -> None:
    torch.save(state(size), tmp_path / "original.pth")
    port = {name.replace("mlp.w12", "mlp.fc1").replace("mlp.w3", "mlp.fc2"): v for name, v in state(size).items()}
    del port["mask_token"]
    save_file(port, tmp_path / "model.safetensors")
    original, ported = (FACTORIES[size](tmp_path / name) for name in ("original.pth", "model.safetensors"))
    assert torch.equal(ported.model(images()), original.model(images()))
    assert not ported.model.state_dict()["mask_token"].any()


def test_the_data_sets_of_the_pre_training_are_named_once() -> None:
    assert len(set(dinobloom.SEEN)) == len(dinobloom.SEEN) == 12
