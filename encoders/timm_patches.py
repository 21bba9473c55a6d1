"""Patch tokens of timm's vision transformers; its other networks have none."""

from collections.abc import Callable
from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor


def timm_patches(network: Any) -> Callable[[Tensor], Tensor] | None:
    """The network's patch tokens after its last norm: (B, 3, H, W) -> (B, rows, columns, D); None without such."""
    if not isinstance(network, VisionTransformer):
        return None

    def tokens(images: Tensor) -> Tensor:
        rows, columns = network.patch_embed.grid_size
        found: Tensor = network.forward_features(images)  # (B, prefix + rows · columns, D)
        return found[:, network.num_prefix_tokens :].reshape(len(found), rows, columns, -1)

    return tokens
