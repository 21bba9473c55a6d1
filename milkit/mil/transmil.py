"""The head ``transmil``: a transformer over the cells of a bag, read out by a class token."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from milkit.errors import SettingsError
from milkit.mil.activations import Dropout
from milkit.mil.attention import within_bags
from milkit.mil.heads import MilOutput, Rate, Size, masked_softmax
from milkit.mil.packing import of_cells, packed_softmax, spread


class Transmil(nn.Module):
    """Cells look at each other before a class token looks at them.

    For a bag of cells x_1 … x_N, a learnt class token t_0, heads of d features, and T_1 … T_N the cells alone:

        t_i = relu(P x_i)
        in each block:  n = LayerNorm(t)
                        A = softmax((W_q n) (W_k n_1…N)ᵀ / sqrt(d)) over the cells, for each head
                        t = t + W_o [A W_v n_1…N] + b_o
        logits = W LayerNorm(t_0) + b

    The attention is the class token's in the last block, averaged over the heads: the cells that are read, as they are
    after the blocks before. There are no feed-forward layers, as in the source.

    Cells have no order and no place in a grid, so the source's convolutions over both (in the attention, and PPEG) and
    the padding to a square are left out; with hundreds of cells, and not ten thousands, its Nyström approximation is
    not needed and the softmax is exact. The class token is not among what is looked at: its share would shrink as cells
    are added, which tells a bag's size, and the weights of the cells would not sum to 1.

    Source: Shao et al., "TransMIL: Transformer based Correlated Multiple Instance Learning for Whole Slide Image
    Classification", NeurIPS 2021; the class token that only asks follows Lee et al., "Set Transformer", ICML 2019.
    """

    def __init__(self, dims: tuple[int, int], n_classes: int, *, n_heads: int, depth: int, dropout: float) -> None:
        """``dims`` are the lengths of a feature and of a token."""
        super().__init__()
        in_dim, hidden_dim = dims
        self.project = nn.Sequential(nn.Linear(in_dim, hidden_dim), nn.ReLU())
        self.class_token = nn.Parameter(torch.randn(1, 1, hidden_dim))
        self.mixing = nn.ModuleList(_Block(hidden_dim, n_heads, dropout) for _ in range(depth - 1))
        self.reading = _Block(hidden_dim, n_heads, dropout)
        self.norm = nn.LayerNorm(hidden_dim)
        self.output = nn.Linear(hidden_dim, n_classes)

    def forward(self, features: Tensor, mask: Tensor) -> MilOutput:
        """See ``milkit.mil.heads``."""
        cells = self.project(features)  # (B, N, D) -> (B, N, H)
        tokens = torch.cat([self.class_token.expand(len(cells), -1, -1), cells], dim=1)  # (B, 1 + N, H)
        for block in self.mixing:
            tokens = block(tokens, mask)
        token, attention = self.reading.read(tokens, mask)
        return MilOutput(self.output(self.norm(token)), attention)

    def forward_packed(self, features: Tensor, offsets: Sequence[int]) -> MilOutput:
        """See ``milkit.mil.heads``."""
        cells = self.project(features)  # (T, H)
        tokens = self.class_token[0].expand(len(offsets) - 1, -1)  # (B, H)
        for block in self.mixing:
            assert isinstance(block, _Block)
            # No cell looks at a class token, so that the two go apart.
            tokens, cells = block.read_packed(tokens, cells, offsets)[0], block.mix_packed(cells, offsets)
        tokens, attention = self.reading.read_packed(tokens, cells, offsets)
        return MilOutput(self.output(self.norm(tokens)), attention)


class _Block(nn.Module):
    """Multi-head attention of all tokens to the cells, behind a layer norm and beside a residual."""

    def __init__(self, dim: int, n_heads: int, dropout: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm = nn.LayerNorm(dim)
        self.query = nn.Linear(dim, dim, bias=False)
        self.key_value = nn.Linear(dim, 2 * dim, bias=False)
        self.output = nn.Sequential(nn.Linear(dim, dim), Dropout(dropout))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """All tokens after the block: (B, 1 + N, H) -> (B, 1 + N, H)."""
        normed = self.norm(tokens)
        query, (key, value) = self._split(self.query(normed)), self._keys_and_values(normed)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None, :])
        return tokens + self._joined(mixed)

    def read(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The class token alone after the block, (B, H), and its attention, (B, 1, N).

        No other token is used after the last block, so that no other is computed there.
        """
        normed = self.norm(tokens)
        query, (key, value) = self._split(self.query(normed[:, :1])), self._keys_and_values(normed)
        scores = (query @ key.transpose(2, 3))[:, :, 0] / math.sqrt(query.shape[3])  # (B, heads, N)
        weights = masked_softmax(scores, mask)
        mixed = weights[:, :, None] @ value  # (B, heads, 1, d)
        return (tokens[:, :1] + self._joined(mixed))[:, 0], weights.mean(dim=1, keepdim=True)

    def mix_packed(self, cells: Tensor, offsets: Sequence[int]) -> Tensor:
        """The cells of packed bags after the block: (T, H) -> (T, H)."""
        normed = self.norm(cells)
        parts = (self.query(normed), *self.key_value(normed).chunk(2, dim=1))
        query, key, value = (part.unflatten(1, (self.n_heads, -1)) for part in parts)
        mixed = within_bags(query, key, value, offsets)
        after: Tensor = cells + self.output(mixed.flatten(1))
        return after

    def read_packed(self, tokens: Tensor, cells: Tensor, offsets: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The class tokens after the block, (B, H), and their attention, (1, T)."""
        key, value = (
            part.unflatten(1, (self.n_heads, -1)) for part in self.key_value(self.norm(cells)).chunk(2, dim=1)
        )
        query = spread(self.query(self.norm(tokens)), offsets, len(cells)).view_as(key)
        scores = (query * key).sum(dim=2) / math.sqrt(key.shape[2])  # (T, heads)
        weights = packed_softmax(scores, offsets)  # (B, heads, T)
        mixed = torch.einsum("bht,thd->bhd", weights.to(value.dtype), value)
        after: Tensor = tokens + self.output(mixed.flatten(1))
        return after, of_cells(weights).mean(dim=0, keepdim=True)

    def _keys_and_values(self, normed: Tensor) -> tuple[Tensor, Tensor]:
        key, value = self.key_value(normed[:, 1:]).chunk(2, dim=2)
        return self._split(key), self._split(value)

    def _split(self, tokens: Tensor) -> Tensor:
        """(B, n, H) -> (B, heads, n, d)."""
        return tokens.reshape(*tokens.shape[:2], self.n_heads, -1).transpose(1, 2)

    def _joined(self, mixed: Tensor) -> Tensor:
        """(B, heads, n, d) -> (B, n, H), and the last linear layer."""
        joined: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return joined


def transmil(
    in_dim: int,
    n_classes: int,
    *,
    hidden_dim: Size = 128,
    n_heads: Size = 4,
    depth: Size = 2,
    dropout: Rate = 0.1,
) -> nn.Module:
    """A transformer over the cells without a grid, after TransMIL (Shao et al. 2021; there 512 features in 8 heads).

    Raises:
        SettingsError: If ``n_heads`` does not divide ``hidden_dim``.
    """
    if hidden_dim % n_heads:
        msg = (
            f"The head 'transmil' was given hidden_dim {hidden_dim} and n_heads {n_heads}, expected a hidden_dim that "
            f"is a multiple of n_heads; take {hidden_dim + n_heads - hidden_dim % n_heads}, say."
        )
        raise SettingsError(msg)
    return Transmil((in_dim, hidden_dim), n_classes, n_heads=n_heads, depth=depth, dropout=dropout)
