"""`pretrained` and `milkit-mini`: files of our own training, which say how they are used."""

import re
from pathlib import Path

import pytest
import torch
from encoder_toys import described_vit, vit_state
from safetensors.torch import save_file

from encoders.milkit_mini import WEIGHTS, milkit_mini
from encoders.pretrained import pretrained
from encoders.vit import VisionTransformer, VitShape
from milkit.downloads import file_sha256
from milkit.errors import WeightsError
from milkit.settings import DEFAULT_ENCODER

SHAPE = VitShape(dim=24, depth=2, heads=3, positions=17)
CARD = WEIGHTS.with_suffix(".md")


def test_a_file_is_run_with_the_size_and_the_heads_that_it_says(tmp_path: Path) -> None:
    encoder = pretrained(described_vit(tmp_path / "own.safetensors", SHAPE))
    plain = VisionTransformer(SHAPE)
    plain.load_state_dict(vit_state(SHAPE))
    image = torch.rand(2, 3, 56, 56)
    with torch.inference_mode():
        assert torch.equal(encoder.model(image), plain(image))
    assert (encoder.transform.size, encoder.dim) == (56, 24)


def test_what_it_has_seen_is_known_to_reports(tmp_path: Path) -> None:
    assert pretrained(described_vit(tmp_path / "own.safetensors", seen=["bccd", "mine"])).seen == ("bccd", "mine")


def test_a_gated_network_is_loaded(tmp_path: Path) -> None:
    shape = VitShape(dim=24, depth=1, heads=2, ffn="swiglu", positions=5)
    assert pretrained(described_vit(tmp_path / "own.safetensors", shape)).model.shape == shape


@pytest.mark.parametrize(
    ("about", "sentence"),
    [
        (
            {"format": "another"},
            "own.safetensors does not say how its network is used, as files of `milkit pretrain` do",
        ),
        ({"version": "2"}, "own.safetensors has version 2, expected 1; update milkit to read it."),
        ({"image_size": 70}, "own.safetensors has 10 positions, which are not those of 70 pixels; write it again."),
    ],
    ids=lambda given: str(given)[:12],
)
def test_another_description_is_refused(about: dict[str, object], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=re.escape(sentence)):
        pretrained(described_vit(tmp_path / "own.safetensors", **about))


def test_a_file_without_a_description_is_refused(tmp_path: Path) -> None:
    save_file(vit_state(SHAPE), tmp_path / "bare.safetensors")
    with pytest.raises(WeightsError, match=r"give such a file, or name the encoder that it belongs to, such as dino"):
        pretrained(tmp_path / "bare.safetensors")


def test_a_file_that_holds_no_transformer_is_refused(tmp_path: Path) -> None:
    described = described_vit(tmp_path / "own.safetensors", SHAPE)
    from safetensors import safe_open

    with safe_open(described, "pt") as file:
        about = file.metadata()
    save_file({"weight": torch.zeros(2)}, described, about)
    with pytest.raises(WeightsError, match=r"own\.safetensors holds no vision transformer; give a teacher"):
        pretrained(described)


def test_the_shipped_encoder_is_the_one_of_its_card_and_the_default() -> None:
    encoder = milkit_mini()
    assert DEFAULT_ENCODER.name == encoder.name == "milkit-mini"
    card = CARD.read_text(encoding="utf-8")
    assert file_sha256(WEIGHTS) in card
    assert encoder.digest in card


def test_the_shipped_file_is_small_half_precision_and_has_seen_what_may_be_shipped() -> None:
    from safetensors.torch import load_file

    assert WEIGHTS.stat().st_size < 12e6
    assert {tensor.dtype for tensor in load_file(WEIGHTS).values()} == {torch.float16}
    assert milkit_mini().seen == ("acevedo", "aslan", "bccd")
