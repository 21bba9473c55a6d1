"""The vision transformer of DINOv2 and DinoBloom, without registers (Oquab et al., arXiv:2304.07193).

Names and shapes of the parameters are those of the published weights, so that a state dict loads as it is. Letters:
B images, N patches (positions, with the class token: 1 + N), D features, and a grid of h × w patches.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.attention import attention

PATCH = 14
"""Side of a patch in pixels."""

EPSILON = 1e-6
"""Of every layer norm; PyTorch's default is ten times larger."""

OFFSET = 0.1
"""Added to the wanted grid before the positions are scaled to it, as the published code does."""


@dataclass(frozen=True, slots=True)
class VitShape:
    """All that determines the names and shapes of the parameters.

    Attributes:
        dim: Features of a token.
        depth: Transformer blocks.
        heads: Attention heads; they divide ``dim``, into 64 features each in all published sizes.
        ffn: What follows the attention in a block: two linear layers with a GELU, or a gated SwiGLU.
        positions: Rows of the positional embedding: 1 for the class token and a square grid of patches.
    """

    dim: int
    depth: int
    heads: int
    ffn: Literal["mlp", "swiglu"] = "mlp"
    positions: int = 257

    @property
    def grid(self) -> int:
        """Patches on one side of the native square."""
        return math.isqrt(self.positions - 1)

    @property
    def hidden(self) -> int:
        """Width of the feed-forward network: 4 dim; two thirds of it, rounded up to a multiple of 8, where gated."""
        if self.ffn == "mlp":
            return 4 * self.dim
        return (int(4 * self.dim * 2 / 3) + 7) // 8 * 8


VIT_SHAPES = {
    "s": VitShape(dim=384, depth=12, heads=6),
    "b": VitShape(dim=768, depth=12, heads=12),
    "l": VitShape(dim=1024, depth=24, heads=16),
    "g": VitShape(dim=1536, depth=40, heads=24, ffn="swiglu"),
}
"""The published sizes, at DinoBloom's 224 pixels."""


class VitTokens(NamedTuple):
    """The output of the network after its last norm."""

    cls: Tensor
    """The class token, which is the image's feature vector: (B, D)."""
    patches: Tensor
    """The patch tokens, row by row from the top left: (B, N, D)."""


class VisionTransformer(nn.Module):
    """Image to class token: (B, 3, H, W) -> (B, D); H and W are multiples of 14."""

    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.shape = shape
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.positions, shape.dim))
        self.mask_token = nn.Parameter(torch.zeros(1, shape.dim))
        self.patch_embed = _PatchEmbedding(shape.dim)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.dim, eps=EPSILON)

    def forward(self, images: Tensor) -> Tensor:
        """The normalised class token: (B, 3, H, W) -> (B, D)."""
        return self.tokens(images).cls

    def tokens(self, images: Tensor, masked: Tensor | None = None) -> VitTokens:
        """Class token and patch tokens: (B, 3, H, W) -> (B, D) and (B, N, D).

        ``masked`` (B, N) is true where a patch is hidden behind the mask token, as in masked pre-training.

        Raises:
            ValueError: If height or width is not a multiple of 14.
        """
        height, width = images.shape[-2:]
        if height % PATCH or width % PATCH:
            msg = f"The images have {height}x{width} pixels, expected multiples of {PATCH}; resize them."
            raise ValueError(msg)
        x = self.patch_embed(images)  # (B, N, D)
        if masked is not None:
            x = torch.where(masked.unsqueeze(-1), self.mask_token.to(x.dtype), x)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)  # (B, 1 + N, D)
        x = x + self.positions(height // PATCH, width // PATCH)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        return VitTokens(x[:, 0], x[:, 1:])

    def patch_grid(self, images: Tensor) -> Tensor:
        """The patch tokens where they lie in the image: (B, 3, H, W) -> (B, H / 14, W / 14, D)."""
        patches = self.tokens(images).patches
        return patches.reshape(len(patches), images.shape[-2] // PATCH, images.shape[-1] // PATCH, -1)

    def positions(self, rows: int, columns: int) -> Tensor:
        """Positional embedding for a grid of patches: (1, 1 + rows × columns, D).

        The native grid is returned as it is; another is scaled bicubically, without antialiasing, by the factor
        (n + 0.1) / native grid a side, which is what the published features were made with.
        """
        native = self.shape.grid
        if (rows, columns) == (native, native):
            return self.pos_embed
        # (1, grid², D) -> (1, D, grid, grid) -> (1, D, rows, columns) -> (1, rows × columns, D)
        grid = self.pos_embed[:, 1:].reshape(1, native, native, -1).permute(0, 3, 1, 2)
        scale = ((rows + OFFSET) / native, (columns + OFFSET) / native)
        scaled = functional.interpolate(grid.float(), scale_factor=scale, mode="bicubic", antialias=False)
        patches = scaled.to(grid.dtype).flatten(2).transpose(1, 2)
        return torch.cat([self.pos_embed[:, :1], patches], dim=1)


class _PatchEmbedding(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, dim, kernel_size=PATCH, stride=PATCH)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, D), row by row."""
        projected: Tensor = self.proj(images)
        return projected.flatten(2).transpose(1, 2)


class Block(nn.Module):
    """x + ls1 · attention(norm1 x), then x + ls2 · ffn(norm2 x): (B, 1 + N, D) -> (B, 1 + N, D)."""

    def __init__(self, shape: VitShape) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(shape.dim, eps=EPSILON)
        self.attn = _SelfAttention(shape.dim, shape.heads)
        self.ls1 = _LayerScale(shape.dim)
        self.norm2 = nn.LayerNorm(shape.dim, eps=EPSILON)
        self.mlp: Mlp | SwiGlu = (Mlp if shape.ffn == "mlp" else SwiGlu)(shape.dim, shape.hidden)
        self.ls2 = _LayerScale(shape.dim)

    def forward(self, x: Tensor) -> Tensor:
        """One block's tokens from the last one's."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))  # type: ignore[no-any-return]


class _LayerScale(nn.Module):
    """A learned factor for each feature."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        # (B, 1 + N, 3 D) -> (B, 1 + N, 3, heads, head_dim) -> three of (B, 1 + N, heads, head_dim)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).unbind(2)
        attended: Tensor = self.proj(attention(q, k, v).flatten(-2))
        return attended


class Mlp(nn.Module):
    """w2 gelu(w1 x), with the exact GELU."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) -> (…, D)."""
        y: Tensor = self.fc2(functional.gelu(self.fc1(x)))
        return y


class SwiGlu(nn.Module):
    """w3 (silu(w1 x) · w2 x), with w1 and w2 in one matrix (Shazeer, arXiv:2002.05202)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(dim, 2 * hidden)
        self.w3 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) -> (…, D)."""
        gate, value = self.w12(x).chunk(2, dim=-1)
        y: Tensor = self.w3(functional.silu(gate) * value)
        return y
