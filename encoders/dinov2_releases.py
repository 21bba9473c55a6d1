"""DINOv2 as it was released: vision transformers trained on LVD-142M, 142 million photographs (arXiv:2304.07193).

The networks that DinoBloom started from. They were trained up to 518 pixels, so their 37 × 37 positions are scaled to
16 × 16 for images of 224 pixels, by the factor 16.1 / 37, as the released code does and as DinoBloom's paper did.

The weights are published as ``dinov2_vit{s,b,l,g}14_pretrain.pth`` (dl.fbaipublicfiles.com/dinov2: flat, with
``mask_token``) and as ports by timm on Hugging Face, from where they are taken (``model.safetensors``: no
``mask_token``, the giant's SwiGLU named otherwise). Files with register tokens (``…_reg4_…``) are other networks.

No published file could be had where this was written: what is tested are files in both layouts, and the network
against its formulas and against timm's.
"""

from pathlib import Path

from encoders.vit_weights import Family, vit_encoder
from encoders.weights import HUB_NAMES, read_weights
from milkit.downloads import hub_file
from milkit.encoder import Encoder

_FAMILY = Family(
    "DINOv2",
    positions=1370,
    published="dl.fbaipublicfiles.com/dinov2 or timm on Hugging Face",
    seen=("lvd142m",),
)
_WORDS = {"s": "small", "b": "base", "l": "large", "g": "giant"}


def dinov2_s(weights: Path | None = None) -> Encoder:
    """DINOv2 ViT-S/14, 384 features; ``weights`` is a published file, or None to take it from Hugging Face, once."""
    return _dinov2("s", weights)


def dinov2_b(weights: Path | None = None) -> Encoder:
    """DINOv2 ViT-B/14, 768 features; ``weights`` is a published file, or None to take it from Hugging Face, once."""
    return _dinov2("b", weights)


def dinov2_l(weights: Path | None = None) -> Encoder:
    """DINOv2 ViT-L/14, 1024 features; ``weights`` is a published file, or None to take it from Hugging Face, once."""
    return _dinov2("l", weights)


def dinov2_g(weights: Path | None = None) -> Encoder:
    """DINOv2 ViT-g/14, 1536 features; ``weights`` is a published file, or None to take it from Hugging Face, once."""
    return _dinov2("g", weights)


def _dinov2(size: str, path: Path | None) -> Encoder:
    return vit_encoder(_FAMILY, size, read_weights(path or _from_the_hub(size)))


def _from_the_hub(size: str) -> Path:
    original = f"dinov2_vit{size}14_pretrain.pth from dl.fbaipublicfiles.com/dinov2/dinov2_vit{size}14"
    advice = f"download it there, or {original}, and pass it with --weights FILE"
    return hub_file(f"timm/vit_{_WORDS[size]}_patch14_dinov2.lvd142m", *HUB_NAMES, advice=advice)
