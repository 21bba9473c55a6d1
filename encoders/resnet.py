"""ResNet-50 trained on ImageNet (He et al., arXiv:1512.03385), the supervised baseline of DinoBloom's paper.

The weights are torchvision's ``IMAGENET1K_V2``, published as ``resnet50-11ad3fa6.pth`` (download.pytorch.org/models;
the name ends in the first eight digits of its SHA-256, which are checked) and copied by timm to Hugging Face, from
where they are taken. timm's network has torchvision's names and shapes, so both files load as they are.

All see images squashed to 224 × 224 (bilinear, ImageNet's mean and std), as in DinoBloom's evaluation; torchvision's
own crops instead. The published file could not be had where this was written: what is tested are files of its names
and shapes.
"""

import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from encoders.weights import HUB_NAMES, Weights, read_weights
from milkit.downloads import hub_file
from milkit.encoder import Encoder, Transform, encoder_digest

_REPOSITORY = "timm/resnet50.tv2_in1k"
_FILE = "resnet50-11ad3fa6.pth"
_DIGEST = re.compile(r"-([0-9a-f]{8})\.pth$")
_UP_TO_THE_THIRD_STAGE = ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3")


def resnet50(weights: Path | None = None) -> Encoder:
    """The 1000 ImageNet logits, as DinoBloom's paper has it; ``weights`` is torchvision's file, or None to fetch it."""
    network, held = _network_and_weights(weights)
    return _encoder("resnet50", network, held, 1000)


def resnet50_pooled(weights: Path | None = None) -> Encoder:
    """The usual 2048 features before the classifier; ``weights`` is torchvision's file, or None to fetch it once."""
    network, held = _network_and_weights(weights)
    network.reset_classifier(0)
    return _encoder("resnet50-pooled", network, held.without("fc."), 2048)


def resnet50_trunc(weights: Path | None = None) -> Encoder:
    """1024 features, the third of four stages averaged over the image: the truncated ResNet-50 of DinoBloom's paper."""
    network, held = _network_and_weights(weights)
    stages = dict(network.named_children())
    kept = {name: stages[name] for name in _UP_TO_THE_THIRD_STAGE}
    truncated = nn.Sequential(OrderedDict(kept | {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}))
    return _encoder("resnet50-trunc", truncated, held.without("layer4.", "fc."), 1024)


def _network_and_weights(path: Path | None) -> tuple[Any, Weights]:
    """ResNet-50 by timm, still empty, and what the file holds."""
    advice = f"download it there, or {_FILE} from download.pytorch.org/models, and pass it with --weights FILE"
    held = read_weights(path or hub_file(_REPOSITORY, *HUB_NAMES, advice=advice))
    if promised := _DIGEST.search(held.file):
        held.require_sha256(promised[1])
    with torch.device("meta"):  # no memory and no random numbers for values that are replaced at once
        return timm.create_model("resnet50"), held


def _encoder(name: str, network: nn.Module, held: Weights, dim: int) -> Encoder:
    held.load_into(network)
    transform = Transform(size=224, interpolation="bilinear")
    return Encoder(
        name=name,
        model=network,
        transform=transform,
        dim=dim,
        digest=encoder_digest(network, transform),
        seen=("imagenet1k",),
        made_of=held.made_of | {"timm": timm.__version__},
    )
