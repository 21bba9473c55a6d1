"""Student and teacher: a vision transformer each, with a projection head for the class token and one for the patches.

Letters: 2b crops of this process, N patches, D features, K prototypes, m hidden patches, L labelled cells.
"""

import copy
import itertools
import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.dinov2.hierarchy import HierarchicalHead
from encoders.dinov2.pretrain_settings import Heads, Network
from encoders.vit import Block, VisionTransformer
from encoders.weights import Weights
from milkit.errors import WeightsError


class ProjectionHead(nn.Module):
    """D features to K logits, the cosines to K learned directions: (n, D) -> (n, K).

    Linear layers with GELU down to a bottleneck, which is normalised to length 1, then a linear layer without a bias
    whose rows are directions v / |v| times a length g that starts at 1 (Caron et al., arXiv:2104.14294, appendix C;
    Salimans and Kingma, arXiv:1602.07868). The names are those of the published training's files.
    """

    def __init__(self, dim: int, heads: Heads) -> None:
        super().__init__()
        widths = [dim, *[heads.hidden] * (heads.layers - 1), heads.bottleneck]
        layers: list[nn.Module] = []
        for enter, leave in itertools.pairwise(widths):
            layers += [nn.Linear(enter, leave), nn.GELU()]
        self.mlp = nn.Sequential(*layers[:-1])
        self.last_layer = _Directions(heads.bottleneck, heads.prototypes)
        for layer in layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> Tensor:  # noqa: D102
        logits: Tensor = self.last_layer(functional.normalize(self.mlp(features), dim=-1))
        return logits


class _Directions(nn.Module):
    def __init__(self, enter: int, leave: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(leave, 1))
        self.weight_v = nn.Parameter(nn.init.kaiming_uniform_(torch.empty(leave, enter), a=5**0.5))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight_g * functional.normalize(self.weight_v, dim=1))


class StudentOutput(NamedTuple):
    """What the losses are made of."""

    dino: Tensor
    """Logits of the class tokens (2b, K)."""
    ibot: Tensor
    """Logits of the hidden patches (m, K), in the order of ``masked.nonzero()``."""
    cls: Tensor
    """Class tokens (2b, D)."""
    types: Tensor | None
    """Outputs of the head over the taxonomy (L, outputs), where there is one."""


class Branch(nn.Module):
    """A backbone with its heads: the student, or the teacher, which has no head over the taxonomy."""

    def __init__(self, backbone: VisionTransformer, heads: Heads, types: HierarchicalHead | None = None) -> None:
        super().__init__()
        dim = backbone.shape.dim
        self.backbone = backbone
        self.dino_head = ProjectionHead(dim, heads)
        self.ibot_head = ProjectionHead(dim, heads)
        self.type_head = types

    def forward(
        self, crops: Tensor, masked: Tensor, labelled: Tensor | None = None, hidden: Tensor | None = None
    ) -> StudentOutput:
        """The student's way: crops (2b, 3, H, W) with hidden patches (2b, N), labelled cells (L, 3, H, W) without.

        ``hidden`` (2, m) are the places of the hidden patches, as ``masked.nonzero().T``: found here where they are not
        given, for which a GPU has to be waited for.
        """
        tokens = self.backbone.tokens(crops, masked)
        types = None
        if labelled is not None and self.type_head is not None:
            types = self.type_head(self.backbone(labelled))
        cls = tokens.cls.clone()  # FSDP watches what is returned, which must be no view
        return StudentOutput(self.dino_head(cls), self.ibot_head(_chosen(tokens.patches, masked, hidden)), cls, types)

    def targets(self, crops: Tensor, masked: Tensor, hidden: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The teacher's way: nothing is hidden from it; the logits (2b, K) and, of the hidden patches, (m, K)."""
        tokens = self.backbone.tokens(crops)
        return self.dino_head(tokens.cls), self.ibot_head(_chosen(tokens.patches, masked, hidden))


def _chosen(patches: Tensor, masked: Tensor, hidden: Tensor | None) -> Tensor:
    return patches[masked] if hidden is None else patches[hidden[0], hidden[1]]


def new_backbone(network: Network) -> VisionTransformer:
    """From scratch: normal weights of standard deviation 0.02, LayerScale at ``network.layer_scale``."""
    model = VisionTransformer(network.shape)
    nn.init.trunc_normal_(model.pos_embed, std=0.02)
    nn.init.normal_(model.cls_token, std=1e-6)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    for block in model.blocks:
        for scale in (cast(Block, block).ls1, cast(Block, block).ls2):
            nn.init.constant_(scale.gamma, network.layer_scale)
    return model


def started_backbone(network: Network, weights: Weights) -> VisionTransformer:
    """From weights of DINOv2 or DinoBloom, whose positions are scaled to the crops' grid as DinoBloom's training did.

    Bicubic, by the ratio of the grids, without the offset that features at another size are made with, and without
    antialiasing; the class token's position is kept.

    Raises:
        WeightsError: If the weights are of another size than the network.
    """
    weights = weights.without("dino_head.", "ibot_head.", "type_head.")
    held = weights.tensors.get("pos_embed")
    if held is None or held.ndim != 3:
        msg = f"{weights.file} holds no pos_embed, so no vision transformer; give a file of DINOv2 or DinoBloom."
        raise WeightsError(msg)
    grid, native = network.shape.grid, math.isqrt(held.shape[1] - 1)
    if native**2 != held.shape[1] - 1:
        msg = (
            f"{weights.file} has {held.shape[1]} positions, expected 1 and those of a square of patches; give a file "
            "of DINOv2 or DinoBloom."
        )
        raise WeightsError(msg)
    if grid != native:
        patches = held[:, 1:].float().reshape(1, native, native, -1).permute(0, 3, 1, 2)
        scaled = functional.interpolate(patches, size=(grid, grid), mode="bicubic", antialias=False)
        weights.tensors["pos_embed"] = torch.cat([held[:, :1].float(), scaled.flatten(2).transpose(1, 2)], dim=1)
    weights.tensors.setdefault("mask_token", torch.zeros(1, network.dim))
    model = VisionTransformer(network.shape)
    weights.load_into(model)
    return model


def teacher_of(student: Branch) -> Branch:
    """A copy of the student's backbone and projection heads, without gradients."""
    types, student.type_head = student.type_head, None
    teacher = copy.deepcopy(student)
    student.type_head = types
    return teacher.requires_grad_(False)  # noqa: FBT003
