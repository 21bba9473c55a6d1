"""Networks that `milkit pretrain` made, of any size: their file says how images are brought to them, and what they saw.

    milkit extract --cohort my_cohort --encoder pretrained --weights milkit-work/encoders/mine/teacher-best.safetensors

Files in the published sizes are loaded by `dinobloom-s` to `dinobloom-g`, too; there they count as DinoBloom's.
"""

import functools
import json
import re
from pathlib import Path
from typing import Any

import torch

from encoders.vit import PATCH, VisionTransformer, VitShape
from encoders.vit_features import FeatureVit
from encoders.weights import Weights, read_weights
from milkit.encoder import Encoder, Transform, encoder_digest
from milkit.errors import WeightsError, WeightsMissing

VERSION = "1"
"""Of the description in the files; others are refused."""

_BLOCK = re.compile(r"^blocks\.(\d+)\.")


def pretrained(weights: Path | None = None) -> Encoder:
    """The network of a file that `milkit pretrain` wrote: images squashed to its size -> normalised class token."""
    if weights is None:
        msg = (
            "The encoder 'pretrained' is a network that `milkit pretrain` made, and no file was given; pass its "
            "teacher-best.safetensors with --weights FILE."
        )
        raise WeightsMissing(msg)
    return encoder_of("pretrained", weights)


def encoder_of(name: str, path: Path) -> Encoder:
    """The encoder that a file describes.

    Raises:
        WeightsError: If it holds no network of this layout, or does not describe it.
    """
    held, about = read_weights(path), read_description(path)
    shape = _shape(held, about)
    with torch.device("meta"):
        model = VisionTransformer(shape)
    held.load_into(model)
    transform = Transform(size=int(about["image_size"]), interpolation="bilinear")
    return Encoder(
        name=name,
        model=model,
        transform=transform,
        dim=shape.dim,
        digest=encoder_digest(model, transform),
        seen=tuple(about["seen"]),
        made_of=held.made_of,
        for_features=functools.partial(FeatureVit, model, transform.size),
        patch_tokens=model.patch_grid,
    )


def read_description(path: Path) -> dict[str, Any]:
    """What `milkit pretrain` wrote beside the tensors.

    Raises:
        WeightsError: If there is none, or a newer milkit wrote it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            about: dict[str, Any] = json.loads((file.metadata() or {})["milkit"])
        if about["format"] != "milkit-encoder" or not {"image_size", "heads", "ffn", "seen"} <= about.keys():
            raise KeyError(about["format"])
    except (SafetensorError, OSError, KeyError, ValueError):
        msg = (
            f"{path.name} does not say how its network is used, as files of `milkit pretrain` do; give such a file, "
            "or name the encoder that it belongs to, such as dinobloom-s."
        )
        raise WeightsError(msg) from None
    if about.get("version") != VERSION:
        msg = f"{path.name} has version {about.get('version')}, expected {VERSION}; update milkit to read it."
        raise WeightsError(msg)
    return about


def _shape(held: Weights, about: dict[str, Any]) -> VitShape:
    tensors = held.tensors
    depth = len({match[1] for name in tensors if (match := _BLOCK.match(name))})
    if not {"cls_token", "pos_embed"} <= tensors.keys() or not depth:
        msg = f"{held.file} holds no vision transformer; give a teacher that `milkit pretrain` wrote."
        raise WeightsError(msg)
    size, positions = int(about["image_size"]), tensors["pos_embed"].shape[1]
    if positions != 1 + (size // PATCH) ** 2:
        msg = f"{held.file} has {positions} positions, which are not those of {size} pixels; write it again."
        raise WeightsError(msg)
    return VitShape(tensors["cls_token"].shape[-1], depth, int(about["heads"]), about["ffn"], positions)
