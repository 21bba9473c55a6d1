"""The vision transformer as it is run for features: the same function of the image, with less to compute.

What never changes is folded once: each layer norm's gain and bias into the linear layer behind it, LayerScale into the
one before it, and on the CPU the scale of the attention scores into the queries. The last block computes its class
token alone, since its patches are not used: 7 % of a ViT-S. Tokens stay float32 between the blocks, also where the
matrix products are bfloat16, which keeps the features much closer to plain float32 than a network in bfloat16
throughout: cosine 0.9998 against 0.998 after centring (ViT-S, random weights).
"""

from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from encoders.attention import attention, short_attention
from encoders.onednn import PackedLinear, PlainLinear, can_pack
from encoders.vit import EPSILON, PATCH, Block, SwiGlu, VisionTransformer
from milkit.encoder import Engine


class FeatureVit(nn.Module):
    """Images of one size to class tokens: (B, 3, size, size) float32 -> (B, D) float32, without gradients."""

    def __init__(self, model: VisionTransformer, size: int, dtype: torch.dtype, engine: Engine) -> None:
        """Copy a transformer, which is not changed.

        Args:
            model: The transformer.
            size: Side of the images in pixels.
            dtype: Number type of the matrix products.
            engine: What runs it.
        """
        super().__init__()
        self.dtype, self.dim, self.grid = dtype, model.shape.dim, size // PATCH
        fold = _Folding(dtype, engine)
        with torch.no_grad():
            projection = model.patch_embed.proj
            self.project = fold.linear(projection.weight.flatten(1), cast(Tensor, projection.bias))
            positions = model.positions(self.grid, self.grid)  # interpolated once, not at every batch
            self.register_buffer("positions", positions[:, 1:].clone())
            self.register_buffer("cls", model.cls_token + positions[:, :1])
            last = len(model.blocks) - 1
            self.blocks = nn.Sequential(
                *(_FeatureBlock(cast(Block, block), fold, cls_only=i == last) for i, block in enumerate(model.blocks))
            )
        self.norm = nn.LayerNorm(self.dim, eps=EPSILON)
        self.norm.load_state_dict(model.norm.state_dict())
        self.eval().requires_grad_(False)  # noqa: FBT003

    def forward(self, images: Tensor) -> Tensor:
        """The normalised class token: (B, 3, size, size) -> (B, D)."""
        n = self.grid
        # A convolution whose stride is its size is a product over patches: (B, 3, n, 14, n, 14) -> (B, n², 3 · 14²).
        cut = images.reshape(-1, 3, n, PATCH, n, PATCH).permute(0, 2, 4, 1, 3, 5).reshape(-1, n * n, 3 * PATCH * PATCH)
        patches = self.project(cut.to(self.dtype)) + self.get_buffer("positions")
        x = torch.cat(
            [self.get_buffer("cls").expand(images.shape[0], -1, -1), patches], dim=1
        )  # (B, 1 + n², D) float32
        features: Tensor = self.norm(self.blocks(x)[:, 0])
        return features


class _Folding:
    """Makes the linear layers of one number type and engine, with their neighbours multiplied in."""

    def __init__(self, dtype: torch.dtype, engine: Engine) -> None:
        self.dtype, self.engine = dtype, engine
        self.layer = PackedLinear if engine == "cpu" and can_pack(dtype) else PlainLinear

    def linear(self, weight: Tensor, bias: Tensor, activation: Literal["none", "gelu"] = "none") -> nn.Module:
        return self.layer(weight.to(self.dtype), bias.to(self.dtype), activation)

    @staticmethod
    def behind_norm(layer: nn.Linear, norm: nn.LayerNorm) -> tuple[Tensor, Tensor]:
        """W (g · x + b) + c = (W g) x + (W b + c)."""
        return layer.weight * norm.weight, layer.bias + layer.weight @ norm.bias

    @staticmethod
    def before_scale(layer: nn.Linear, gamma: Tensor) -> tuple[Tensor, Tensor]:
        """γ · (W x + c) = (γ W) x + γ c."""
        return layer.weight * gamma[:, None], layer.bias * gamma


class _FeatureBlock(nn.Module):
    """(B, N, D) float32 -> (B, N, D), or (B, 1, D) where only the class token is wanted."""

    def __init__(self, block: Block, fold: _Folding, *, cls_only: bool) -> None:
        super().__init__()
        self.cls_only, self.packed = cls_only, fold.engine == "cpu"
        self.dtype, self.heads = fold.dtype, block.attn.heads
        weight, bias = fold.behind_norm(block.attn.qkv, block.norm1)
        dim = len(weight) // 3
        scale = (dim // self.heads) ** -0.5 if self.packed else 1.0
        self.queries = fold.linear(weight[:dim] * scale, bias[:dim] * scale)
        self.keys_values = fold.linear(weight[dim:], bias[dim:])
        self.proj = fold.linear(*fold.before_scale(block.attn.proj, block.ls1.gamma))
        self.gated = isinstance(block.mlp, SwiGlu)
        enter, leave = (
            (block.mlp.w12, block.mlp.w3) if isinstance(block.mlp, SwiGlu) else (block.mlp.fc1, block.mlp.fc2)
        )
        self.enter = fold.linear(*fold.behind_norm(enter, block.norm2), "none" if self.gated else "gelu")
        self.leave = fold.linear(*fold.before_scale(leave, block.ls2.gamma))

    def forward(self, x: Tensor) -> Tensor:
        wanted = slice(0, 1 if self.cls_only else None)
        normed = self._normed(x)
        x = x[:, wanted] + self.proj(self._attend(self.queries(normed[:, wanted]), self.keys_values(normed)))
        hidden = self.enter(self._normed(x))
        if self.gated:
            gate, value = hidden.chunk(2, dim=-1)
            hidden = functional.silu(gate) * value
        y: Tensor = x + self.leave(hidden)
        return y

    def _normed(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], eps=EPSILON).to(self.dtype)

    def _attend(self, queries: Tensor, keys_values: Tensor) -> Tensor:
        """Queries (B, M, D) over keys and values (B, N, 2 D) -> (B, M, D)."""
        (n, m, dim), heads = queries.shape, self.heads
        q = queries.view(n, m, heads, -1)  # (B, M, heads, head_dim)
        kv = keys_values.view(n, -1, 2, heads, dim // heads)
        if not self.packed:
            return attention(q, *kv.unbind(2)).flatten(-2)
        k, v = kv.permute(2, 0, 3, 1, 4).flatten(1, 2)  # one copy each: (B · heads, N, head_dim)
        attended = short_attention(q.transpose(1, 2).flatten(0, 1), k, v)
        return attended.view(n, heads, m, -1).transpose(1, 2).flatten(-2)
