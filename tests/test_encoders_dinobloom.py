"""DinoBloom's weights: every published layout is read, everything else is refused in one sentence that helps."""

import hashlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

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
State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def tiny_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """All sizes, each of another shape, in milliseconds; the true shapes are tested with the transformer."""
    for size, shape in TINY.items():
        monkeypatch.setitem(VIT_SHAPES, size, shape)


def state(size: str = "s") -> State:
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        empty = VisionTransformer(TINY[size]).state_dict()
    return {name: torch.randn(value.shape, generator=generator) * 0.1 for name, value in empty.items()}


def prefixed(tensors: State, prefix: str) -> State:
    return {prefix + name: value for name, value in tensors.items()}


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


def images() -> Tensor:
    return torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))


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
    message = (
        r"holds 1370 positions, which is a DINOv2 release and not DinoBloom, expected 257; give a file from Zenodo"
    )
    refused(tmp_path, state() | {"pos_embed": torch.zeros(1, 1370, 24)}, message)


def test_another_grid_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, state() | {"pos_embed": torch.zeros(1, 50, 24)}, r"holds 50 positions, expected 257")


def test_missing_and_unexpected_tensors_are_named(tmp_path: Path) -> None:
    tensors = state() | {"register_tokens": torch.zeros(1, 4, 24)}
    del tensors["blocks.1.ls1.gamma"], tensors["mask_token"]
    refused(tmp_path, tensors, r"missing: blocks\.1\.ls1\.gamma, mask_token; unexpected: register_tokens")


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


def test_without_weights_the_cache_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: Encoder
) -> None:
    path = tmp_path / "cached.bin"
    torch.save(state(), path)
    asked = []

    def from_cache(repository: str, file: str) -> str:
        asked.append((repository, file))
        return str(path)

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", from_cache)
    assert dinobloom_s().digest == reference.digest
    assert asked == [("MarrLab/DinoBloom", "pytorch_model_s.bin")]


@pytest.mark.parametrize("answer", [None, object()])  # the object: the cache knows that the repository has no such file
@pytest.mark.parametrize("size", FACTORIES)
def test_weights_that_are_neither_given_nor_cached(answer: object, size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, file: answer)
    name = f"DinoBloom-{size.upper()}"
    message = (
        rf"{name} are neither given nor cached; download {name}\.pth from Zenodo record 10908163 or "
        rf"pytorch_model_{size}\.bin from MarrLab/DinoBloom on Hugging Face and pass it with --weights FILE\."
    )
    with pytest.raises(WeightsMissing, match=message):
        FACTORIES[size]()


def test_the_data_sets_of_the_pre_training_are_named_once() -> None:
    assert len(set(dinobloom.SEEN)) == len(dinobloom.SEEN) == 12
