"""Phikon: a ViT-B/16 trained on histology by iBOT (Filiot et al., medRxiv 2023.07.21.23292757).

The weights are published as owkin/phikon on Hugging Face, in the names of ``transformers.ViTModel``, under a licence
that forbids commercial use. Here timm's vision transformer carries them: query, key and value become one matrix, and
the pooler, which was not trained, is left out. The feature is the class token after the last norm.

The layer norms have an epsilon of 1e-6, which is what the repository's ``config.json`` says since 2023-10-31 (before
that it said 1e-12, by mistake). Images are squashed to 224 × 224 (bilinear, ImageNet's mean and std), as its
``preprocessor_config.json`` says.

It was trained on 40 million tiles of TCGA. The published file could not be had where this was written: what is tested
are files in its layout, against the formulas.
"""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from encoders.timm_patches import timm_patches
from encoders.weights import HUB_NAMES, Weights, read_weights
from milkit.downloads import hub_file
from milkit.encoder import Encoder, Transform, encoder_digest

SHAPE: dict[str, Any] = {"embed_dim": 768, "depth": 12, "num_heads": 12}
"""Of a ViT-B, in timm's words."""

EPSILON = 1e-6
"""Of every layer norm."""

_NAMES = (  # the longer name first where one holds the other
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("encoder.layer.", "blocks."),
    (".attention.attention.", ".attn."),
    (".attention.output.dense.", ".attn.proj."),
    (".intermediate.dense.", ".mlp.fc1."),
    (".output.dense.", ".mlp.fc2."),
    (".layernorm_before.", ".norm1."),
    (".layernorm_after.", ".norm2."),
    ("layernorm.", "norm."),
)
_QUERY = re.compile(r"^(blocks\.\d+\.attn\.)query(\.weight|\.bias)$")


def phikon(weights: Path | None = None) -> Encoder:
    """Phikon, 768 features; ``weights`` is the published file, or None to take it from Hugging Face, once."""
    held = read_weights(weights or hub_file("owkin/phikon", *HUB_NAMES))
    with torch.device("meta"):  # no memory and no random numbers for values that are replaced at once
        model = VisionTransformer(
            img_size=224, patch_size=16, num_classes=0, norm_layer=partial(nn.LayerNorm, eps=EPSILON), **SHAPE
        )
    _in_timm_s_layout(held.without("pooler.")).load_into(model)
    transform = Transform(size=224, interpolation="bilinear")
    return Encoder(
        name="phikon",
        model=model,
        transform=transform,
        dim=SHAPE["embed_dim"],
        digest=encoder_digest(model, transform),
        seen=("tcga",),
        made_of=held.made_of | {"timm": timm.__version__},
        patch_tokens=timm_patches(model),
    )


def _in_timm_s_layout(weights: Weights) -> Weights:
    """From the names of transformers to timm's; what is incomplete stays as it is, and loading reports it."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in weights.tensors.items():
        for theirs, ours in _NAMES:
            name = name.replace(theirs, ours)
        tensors[name] = tensor
    for query in [match for name in tensors if (match := _QUERY.match(name))]:
        parts = [f"{query[1]}{part}{query[2]}" for part in ("query", "key", "value")]
        if all(part in tensors for part in parts):
            tensors[f"{query[1]}qkv{query[2]}"] = torch.cat([tensors.pop(part) for part in parts])
    return replace(weights, tensors=tensors)
