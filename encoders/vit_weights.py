"""DinoBloom and DINOv2 share one network: read a file of either, and make sure that it is the one asked for.

The layouts that are read, with ``module.`` or ``backbone.`` before the names or without:

* DINOv2's own: a flat state dict;
* that of a training: ``{"teacher": …}``, possibly with the projection heads beside the network, which are left out;
* timm's ports: no ``mask_token``, and the giant's ``mlp.w12`` and ``mlp.w3`` are called ``mlp.fc1`` and ``mlp.fc2``.

Features need no mask token: where the file has none it is left at zero. It is part of the digest, so a port and the
original have the same features under two digests.
"""

import functools
import re
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from encoders.vit import VIT_SHAPES, VisionTransformer, VitShape
from encoders.vit_features import FeatureVit
from encoders.weights import Weights
from milkit.encoder import Encoder, Transform, encoder_digest
from milkit.errors import WeightsError

_HEADS = ("dino_head.", "ibot_head.")
_BLOCK = re.compile(r"^blocks\.(\d+)\.")
_FIRST = ".mlp.fc1.weight"
_FAMILIES = {257: "dinobloom", 1370: "dinov2"}
"""By the positions of the networks: 16 × 16 or 37 × 37 patches of 14 pixels, and the class token."""


@dataclass(frozen=True, slots=True)
class Family:
    """Networks that were trained alike and differ in size.

    Attributes:
        name: As its authors write it; in small letters and with the size, the name of the encoder.
        positions: Rows of the positional embedding, which tell the families apart.
        published: Where the files are, for messages.
        seen: The data sets of the pre-training.
    """

    name: str
    positions: int
    published: str
    seen: tuple[str, ...]


def vit_encoder(family: Family, size: str, weights: Weights) -> Encoder:
    """One size of a family: images squashed to 224 × 224 (bilinear, ImageNet's mean and std) -> normalised class token.

    Raises:
        WeightsError: If the file holds no network of this layout, another size, or another family; it says which.
    """
    shape = replace(VIT_SHAPES[size], positions=family.positions)
    weights = _in_our_layout(weights.without(*_HEADS))
    _require(weights, family, size, shape)
    with torch.device("meta"):  # no memory and no random numbers for values that are replaced at once
        model = VisionTransformer(shape)
    weights.load_into(model)
    transform = Transform(size=224, interpolation="bilinear")
    return Encoder(
        name=f"{family.name.lower()}-{size}",
        model=model,
        transform=transform,
        dim=shape.dim,
        digest=encoder_digest(model, transform),
        seen=family.seen,
        made_of=weights.made_of,
        for_features=functools.partial(FeatureVit, model, transform.size),
        patch_tokens=model.patch_grid,
    )


def _in_our_layout(weights: Weights) -> Weights:
    """Give timm's ports the names of DINOv2."""
    tensors = weights.tensors
    if "mask_token" in tensors or "cls_token" not in tensors:
        return weights
    # Only a gated network has twice as many outputs of the first matrix as inputs of the second.
    gated = {
        name.removesuffix(_FIRST)
        for name, first in tensors.items()
        if name.endswith(_FIRST)
        and (second := tensors.get(name.replace("fc1", "fc2"))) is not None
        and len(first) == 2 * second.shape[-1]
    }
    renamed: dict[str, Tensor] = {"mask_token": torch.zeros(1, tensors["cls_token"].shape[-1])}
    for name, tensor in tensors.items():
        if name.partition(".mlp.")[0] in gated:
            name = name.replace(".mlp.fc1.", ".mlp.w12.").replace(".mlp.fc2.", ".mlp.w3.")
        renamed[name] = tensor
    return replace(weights, tensors=renamed)


def _require(weights: Weights, family: Family, size: str, expected: VitShape) -> None:
    """Refuse weights of another network than the one asked for, saying both."""
    tensors = weights.tensors
    if "cls_token" not in tensors or "pos_embed" not in tensors or tensors["pos_embed"].ndim != 3:
        msg = (
            f"{weights.file} holds no vision transformer of DINOv2's layout (cls_token or pos_embed is missing); "
            f"give a file from {family.published}."
        )
        raise WeightsError(msg)
    blocks = {int(match[1]) for name in tensors if (match := _BLOCK.match(name))}
    dim, positions = tensors["cls_token"].shape[-1], tensors["pos_embed"].shape[1]
    ffn = "swiglu" if any(".mlp.w12." in name for name in tensors) else "mlp"
    held, wanted = (dim, len(blocks), ffn), (expected.dim, expected.depth, expected.ffn)
    if held == wanted and positions == expected.positions:
        return
    fitting = next((other for other, shape in VIT_SHAPES.items() if held == (shape.dim, shape.depth, shape.ffn)), None)
    of = _FAMILIES.get(positions)
    advice = f"use the encoder {of}-{fitting}" if fitting and of else f"give a file from {family.published}"
    found, needed = _say(*held), _say(*wanted)
    if held == wanted:
        found, needed = f"{positions} positions", f"{expected.positions}"
    msg = f"{weights.file} holds {found}, but {family.name}-{size.upper()} has {needed}; {advice}."
    raise WeightsError(msg)


def _say(dim: int, depth: int, ffn: str) -> str:
    return f"{depth} blocks of {dim} features with {ffn}"
