"""DinoBloom: DINOv2 vision transformers trained further on single blood cells (Koch et al., arXiv:2404.05022).

The weights are published as ``DinoBloom-{S,B,L,G}.pth`` (Zenodo record 10908163: ``{"teacher": …}``, names that begin
with ``backbone.``, the projection heads of the training possibly beside them) and as ``pytorch_model_{s,b,l,g}.bin``
(MarrLab/DinoBloom on Hugging Face: a flat state dict). Both give the same features and the same digest here.

No published file could be had where this was written: what is tested are files in the published layouts, and the
network against its formulas.
"""

import re
from pathlib import Path

import torch

from encoders.vit import VIT_SHAPES, VisionTransformer, VitShape
from encoders.weights import Weights, read_weights
from milkit.encoder import Encoder, Transform, encoder_digest
from milkit.errors import WeightsError, WeightsMissing

SEEN = (
    "aml_hehr",
    "bmc",
    "aml_matek",
    "raabin",
    "mll23",
    "nuclick",
    "warty_pig",
    "lisc",
    "chula",
    "sslseg",
    "bccd",
    "aslan",
)
"""The data sets of the pre-training; of ``aml_hehr`` and ``bmc`` 80 % of the images, of the others all."""

DINOV2_POSITIONS = 1370
"""Of the DINOv2 releases, which were trained at 518 pixels: 37 × 37 patches and the class token."""

_HEAD = re.compile(r"^(dino|ibot)_head\.")
_BLOCK = re.compile(r"^blocks\.(\d+)\.")
_PUBLISHED = "Zenodo record 10908163 or MarrLab/DinoBloom on Hugging Face"


def dinobloom_s(weights: Path | None = None) -> Encoder:
    """DinoBloom-S, 384 features; ``weights`` is the published file, or None to take it from Hugging Face's cache."""
    return _dinobloom("s", weights)


def dinobloom_b(weights: Path | None = None) -> Encoder:
    """DinoBloom-B, 768 features; ``weights`` is the published file, or None to take it from Hugging Face's cache."""
    return _dinobloom("b", weights)


def dinobloom_l(weights: Path | None = None) -> Encoder:
    """DinoBloom-L, 1024 features; ``weights`` is the published file, or None to take it from Hugging Face's cache."""
    return _dinobloom("l", weights)


def dinobloom_g(weights: Path | None = None) -> Encoder:
    """DinoBloom-G, 1536 features; ``weights`` is the published file, or None to take it from Hugging Face's cache."""
    return _dinobloom("g", weights)


def _dinobloom(size: str, path: Path | None) -> Encoder:
    """Build one size: images squashed to 224 × 224 (bilinear, ImageNet's mean and std) -> normalised class token."""
    weights = read_weights(path or _cached(size))
    for name in [name for name in weights.tensors if _HEAD.match(name)]:
        del weights.tensors[name]
    _require_size(weights, size)
    with torch.device("meta"):  # no memory and no random numbers for values that are replaced at once
        model = VisionTransformer(VIT_SHAPES[size])
    weights.load_into(model)
    transform = Transform(size=224, interpolation="bilinear")
    return Encoder(
        name=f"dinobloom-{size}",
        model=model,
        transform=transform,
        dim=model.shape.dim,
        digest=encoder_digest(model, transform),
        seen=SEEN,
        made_of={"weights_sha256": weights.sha256, "weights_format": weights.layout},
    )


def _cached(size: str) -> Path:
    """The file in Hugging Face's cache, where someone downloaded it before; nothing is downloaded."""
    import huggingface_hub

    file = f"pytorch_model_{size}.bin"
    found = huggingface_hub.try_to_load_from_cache("MarrLab/DinoBloom", file)
    if isinstance(found, str):
        return Path(found)
    msg = (
        f"The weights of DinoBloom-{size.upper()} are neither given nor cached; download DinoBloom-{size.upper()}.pth "
        f"from Zenodo record 10908163 or {file} from MarrLab/DinoBloom on Hugging Face and pass it with --weights FILE."
    )
    raise WeightsMissing(msg)


def _require_size(weights: Weights, size: str) -> None:
    """Refuse weights of another network than the one asked for, saying both."""
    tensors, expected = weights.tensors, VIT_SHAPES[size]
    if "cls_token" not in tensors or "pos_embed" not in tensors or tensors["pos_embed"].ndim != 3:
        msg = (
            f"{weights.file} holds no vision transformer of DINOv2's layout (cls_token or pos_embed is missing); "
            f"give a file from {_PUBLISHED}."
        )
        raise WeightsError(msg)
    blocks = {int(match[1]) for name in tensors if (match := _BLOCK.match(name))}
    dim, positions = tensors["cls_token"].shape[-1], tensors["pos_embed"].shape[1]
    ffn = "swiglu" if any(".mlp.w12." in name for name in tensors) else "mlp"
    held, wanted = (dim, len(blocks), ffn), (expected.dim, expected.depth, expected.ffn)
    if held != wanted:
        fitting = next(
            (other for other, shape in VIT_SHAPES.items() if held == (shape.dim, shape.depth, shape.ffn)), None
        )
        advice = f"use the encoder dinobloom-{fitting}" if fitting else f"give a file from {_PUBLISHED}"
        msg = f"{weights.file} holds {_say(*held)}, but DinoBloom-{size.upper()} has {_say(*wanted)}; {advice}."
        raise WeightsError(msg)
    _require_positions(weights.file, positions, expected)


def _require_positions(file: str, positions: int, expected: VitShape) -> None:
    if positions == expected.positions:
        return
    kind = ", which is a DINOv2 release and not DinoBloom" if positions == DINOV2_POSITIONS else ""
    msg = f"{file} holds {positions} positions{kind}, expected {expected.positions}; give a file from {_PUBLISHED}."
    raise WeightsError(msg)


def _say(dim: int, depth: int, ffn: str) -> str:
    return f"{depth} blocks of {dim} features with {ffn}"
