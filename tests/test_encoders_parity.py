"""Our vision transformer against timm's with the same weights: the second oracle beside the formulas."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from encoder_toys import State, images, vit_state
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer as TimmVit
from torch import nn
from torch.nn import functional

from encoders.vit import VisionTransformer, VitShape

SHAPES = {
    "mlp": VitShape(dim=24, depth=3, heads=3),
    "swiglu": VitShape(dim=24, depth=3, heads=3, ffn="swiglu"),
}


def timm_s(shape: VitShape, state: State) -> TimmVit:
    """timm's DINOv2 at this shape and 224 pixels, with our weights under its names."""
    gated = {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "mlp_ratio": 2 * shape.hidden / shape.dim}
    model = TimmVit(
        img_size=224,
        patch_size=14,
        embed_dim=shape.dim,
        depth=shape.depth,
        num_heads=shape.heads,
        num_classes=0,
        init_values=1e-5,
        norm_layer=partial(nn.LayerNorm, eps=1e-6),
        **(gated if shape.ffn == "swiglu" else {}),
    )
    renamed = {name.replace("mlp.w12", "mlp.fc1").replace("mlp.w3", "mlp.fc2"): v for name, v in state.items()}
    del renamed["mask_token"]
    model.load_state_dict(renamed)
    return model.eval().requires_grad_(False)


def ours(shape: VitShape, state: State) -> VisionTransformer:
    model = VisionTransformer(shape)
    model.load_state_dict(state)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("ffn", SHAPES)
def test_features_and_patch_tokens_are_timm_s_at_224_pixels(ffn: str) -> None:
    shape = SHAPES[ffn]
    state = vit_state(shape)
    expected = timm_s(shape, state).forward_features(images())
    tokens = ours(shape, state).tokens(images())
    torch.testing.assert_close(tokens.cls, expected[:, 0], atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens.patches, expected[:, 1:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("ffn", SHAPES)
def test_features_of_a_network_of_518_pixels_are_timm_s_with_the_published_positions(ffn: str) -> None:
    """timm would resample with antialiasing and without the offset, so it is given positions that are resampled here.

    The rule is the published one, in float64: cubic, the grid by the factor 16.1 / 37, the class token's as it is.
    """
    shape = replace(SHAPES[ffn], positions=1370)
    state = vit_state(shape)
    grid = state["pos_embed"][:, 1:].double().unflatten(1, (37, 37)).permute(0, 3, 1, 2)
    resampled = functional.interpolate(grid, scale_factor=(16.1 / 37, 16.1 / 37), mode="bicubic", antialias=False)
    assert resampled.shape[-2:] == (16, 16)
    positions = torch.cat([state["pos_embed"][:, :1], resampled.flatten(2).transpose(1, 2).float()], dim=1)
    expected = timm_s(shape, state | {"pos_embed": positions})(images())
    torch.testing.assert_close(ours(shape, state)(images()), expected, atol=1e-5, rtol=0)


def test_the_oracle_sees_the_offset() -> None:
    shape = replace(SHAPES["mlp"], positions=1370)
    state = vit_state(shape)
    grid = state["pos_embed"][:, 1:].double().unflatten(1, (37, 37)).permute(0, 3, 1, 2)
    without = functional.interpolate(grid, size=(16, 16), mode="bicubic").flatten(2).transpose(1, 2).float()
    other = timm_s(shape, state | {"pos_embed": torch.cat([state["pos_embed"][:, :1], without], dim=1)})(images())
    assert (ours(shape, state)(images()) - other).abs().max() > 1e-4


def test_the_oracle_sees_the_order_of_the_swiglu_halves() -> None:
    shape = SHAPES["swiglu"]
    state = vit_state(shape)
    swapped = {name: torch.cat(v.chunk(2)[::-1]) if ".w12." in name else v for name, v in state.items()}
    assert (ours(shape, state)(images()) - timm_s(shape, swapped)(images())).abs().max() > 1e-4
