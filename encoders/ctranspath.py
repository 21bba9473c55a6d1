"""CTransPath: a Swin-T with a convolutional stem, trained on histology (Wang et al., Medical Image Analysis 2022).

The weights are published as ``ctranspath.pth`` by a link in github.com/Xiyue-Wang/TransPath: ``{"model": …}``, in the
names of timm 0.5.4. Three things have changed since: a stage's ``downsample`` stood at its end and stands at the
beginning of the next one, ``relative_position_index`` and ``attn_mask`` were stored and are computed, and the stem
was a plug-in of a modified timm. Everything else (window 7, layer norms with 1e-5, mean over 49 positions after the
last norm) is as it was.

It was trained on TCGA and PAIP by contrastive learning. Images are squashed to 224 × 224 (bilinear, ImageNet's mean
and std), as in DinoBloom's evaluation. The published file could not be had where this was written: what is tested is a
random file in the published layout, at its full size, against the formulas. Its SHA-256 is the one that
KatherLab/STAMP pins.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from encoders.weights import Weights, read_weights
from milkit.encoder import Encoder, Transform, encoder_digest
from milkit.errors import WeightsMissing

_FILE = "ctranspath.pth"
_SHA256 = "7c998680060c8743551a412583fac689db43cec07053b72dfec6dcd810113539"
_DOWNSAMPLE = re.compile(r"^layers\.(\d+)\.downsample\.")
_COMPUTED = (".relative_position_index", ".attn_mask")


def ctranspath(weights: Path | None = None) -> Encoder:
    """CTransPath, 768 features; ``weights`` is the published file, which cannot be fetched and must be given.

    Raises:
        WeightsMissing: If it is not given; the message says where it is published.
    """
    if weights is None:
        msg = (
            "The weights of ctranspath are not given, and are published by a link only; download "
            f"{_FILE} as github.com/Xiyue-Wang/TransPath says and pass it with --weights FILE."
        )
        raise WeightsMissing(msg)
    held = read_weights(weights)
    if held.file == _FILE:
        held.require_sha256(_SHA256)
    model = _network()
    _in_current_layout(held).load_into(model)
    transform = Transform(size=224, interpolation="bilinear")
    return Encoder(
        name="ctranspath",
        model=model,
        transform=transform,
        dim=768,
        digest=encoder_digest(model, transform),
        seen=("tcga", "paip"),
        made_of=held.made_of | {"timm": timm.__version__},
    )


def _network() -> Any:
    """A Swin-T of timm with CTransPath's stem; it computes tables when it is built, so it is not built empty."""
    with torch.random.fork_rng(devices=[]):
        network = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0)
        network.patch_embed = _ConvStem(dim=96)
    return network


class _ConvStem(nn.Module):
    """Three convolutions instead of one on patches of 4 × 4: (B, 3, H, W) -> (B, H / 4, W / 4, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.Conv2d(3, dim // 8, kernel_size=3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(dim // 8),
            nn.ReLU(),
            nn.Conv2d(dim // 8, dim // 4, kernel_size=3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(dim // 4),
            nn.ReLU(),
            nn.Conv2d(dim // 4, dim, kernel_size=1),
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:
        normalised: Tensor = self.norm(self.proj(images).permute(0, 2, 3, 1))
        return normalised


def _in_current_layout(weights: Weights) -> Weights:
    """From the names of timm 0.5.4 to today's."""
    tensors = {
        _DOWNSAMPLE.sub(lambda match: f"layers.{int(match[1]) + 1}.downsample.", name): tensor
        for name, tensor in weights.tensors.items()
        if not name.endswith(_COMPUTED)
    }
    return replace(weights, tensors=tensors)
