"""CTransPath at its full size, held to a float64 forward written from the formulas over the names of timm 0.5.4."""

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoder_toys import State, draw, images
from scipy.special import erf
from torch.nn import functional

from encoders import ctranspath as module
from encoders.ctranspath import ctranspath
from milkit.encoder import Transform
from milkit.errors import WeightsError, WeightsMissing

Matrix = np.ndarray[Any, np.dtype[Any]]

DEPTHS, WINDOW, SHIFT, PATCHES = (2, 2, 6, 2), 7, 3, 56


def published() -> dict[str, tuple[int, ...]]:
    """Names and shapes of ``ctranspath.pth``, tables that timm 0.5.4 stored included."""
    norms = {"patch_embed.proj.1": 12, "patch_embed.proj.4": 24, "patch_embed.norm": 96, "norm": 768}
    linears: dict[str, tuple[int, ...]] = {"patch_embed.proj.6": (96, 24, 1, 1)}
    shapes: dict[str, tuple[int, ...]] = {
        "patch_embed.proj.0.weight": (12, 3, 3, 3),
        "patch_embed.proj.3.weight": (24, 12, 3, 3),
    }
    for name, width in (("patch_embed.proj.1", 12), ("patch_embed.proj.4", 24)):
        shapes[f"{name}.running_mean"] = shapes[f"{name}.running_var"] = (width,)
        shapes[f"{name}.num_batches_tracked"] = ()
    for i, depth in enumerate(DEPTHS):
        dim, grid = 96 * 2**i, PATCHES // 2**i
        for j in range(depth):
            block = f"layers.{i}.blocks.{j}"
            norms |= {f"{block}.norm1": dim, f"{block}.norm2": dim}
            linears |= {f"{block}.attn.qkv": (3 * dim, dim), f"{block}.attn.proj": (dim, dim)}
            linears |= {f"{block}.mlp.fc1": (4 * dim, dim), f"{block}.mlp.fc2": (dim, 4 * dim)}
            shapes[f"{block}.attn.relative_position_bias_table"] = ((2 * WINDOW - 1) ** 2, 3 * 2**i)
            shapes[f"{block}.attn.relative_position_index"] = (WINDOW**2, WINDOW**2)
            if j % 2 and grid > WINDOW:
                shapes[f"{block}.attn_mask"] = ((grid // WINDOW) ** 2, WINDOW**2, WINDOW**2)
        if i < len(DEPTHS) - 1:
            norms[f"layers.{i}.downsample.norm"] = 4 * dim
            shapes[f"layers.{i}.downsample.reduction.weight"] = (2 * dim, 4 * dim)
    for name, width in norms.items():
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)
    for name, shape in linears.items():
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]
    return shapes


def windows(grid: int, shift: int) -> tuple[Matrix, Matrix, Matrix]:
    """Who sees whom when windows of 7 × 7 start at ``shift`` and wrap around the edge of the grid.

    Returns:
        The positions of each window (windows, 49), whether two of them may see each other (windows, 49, 49), and the
        row of the bias table for their distance (49, 49).
    """
    row, column = np.divmod(np.arange(grid * grid), grid)
    row, column = (row - shift) % grid, (column - shift) % grid  # as if the grid were moved
    number = row // WINDOW * (grid // WINDOW) + column // WINDOW
    members = np.lexsort((column % WINDOW, row % WINDOW, number)).reshape(-1, WINDOW**2)
    # What was moved around the edge is no neighbour of what it now lies beside.
    side = 2 * (row >= grid - shift) + (column >= grid - shift)
    visible = side[members][:, :, None] == side[members][:, None, :]
    inner_row, inner_column = np.divmod(np.arange(WINDOW**2), WINDOW)
    distance = (inner_row[:, None] - inner_row + WINDOW - 1, inner_column[:, None] - inner_column + WINDOW - 1)
    return members, visible, distance[0] * (2 * WINDOW - 1) + distance[1]


def oracle(state: State, image: torch.Tensor) -> Matrix:
    """One image (3, 224, 224) -> the mean over the last 7 × 7 positions after the norm (768,), in float64."""
    w = {name: value.double().numpy() for name, value in state.items()}

    def norm(x: Matrix, prefix: str) -> Matrix:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return scaled * w[f"{prefix}.weight"] + w[f"{prefix}.bias"]

    def linear(x: Matrix, prefix: str) -> Matrix:
        return x @ w[f"{prefix}.weight"].T + w[f"{prefix}.bias"]

    def convolution(x: Matrix, number: int) -> Matrix:
        """3 × 3 of stride 2, batch norm, ReLU: (C, H, W) -> (C', H / 2, W / 2)."""
        kernel = torch.from_numpy(w[f"patch_embed.proj.{number}.weight"])
        x = functional.conv2d(torch.from_numpy(x)[None], kernel, stride=2, padding=1)[0].numpy()
        prefix = f"patch_embed.proj.{number + 1}"
        mean, variance, scale, bias = (
            w[f"{prefix}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return np.maximum((x - mean) / np.sqrt(variance + 1e-5) * scale + bias, 0)

    def attend(x: Matrix, block: str, heads: int, shift: int) -> Matrix:
        members, visible, distance = windows(math.isqrt(len(x)), shift)
        # (windows, 49, 3 D) -> q, k and v of (windows, heads, 49, 32)
        split = linear(x, f"{block}.qkv")[members].reshape(*members.shape, 3, heads, 32)
        q, k, v = split.transpose(2, 0, 3, 1, 4)
        bias = w[f"{block}.relative_position_bias_table"][distance].transpose(2, 0, 1)
        scores = q @ k.swapaxes(-1, -2) / math.sqrt(32) + bias
        scores = np.where(visible[:, None], np.exp(scores - scores.max(-1, keepdims=True)), 0)
        attended = scores / scores.sum(-1, keepdims=True) @ v
        out = np.empty_like(x)
        out[members] = attended.swapaxes(1, 2).reshape(*members.shape, -1)
        return linear(out, f"{block}.proj")

    x = convolution(convolution(image.double().numpy(), 0), 3).reshape(24, -1).T
    x = x @ w["patch_embed.proj.6.weight"][:, :, 0, 0].T + w["patch_embed.proj.6.bias"]
    x = norm(x, "patch_embed.norm")
    for i, depth in enumerate(DEPTHS):
        grid = PATCHES // 2**i
        for j in range(depth):
            block = f"layers.{i}.blocks.{j}"
            shift = SHIFT if j % 2 and grid > WINDOW else 0
            x = x + attend(norm(x, f"{block}.norm1"), f"{block}.attn", 3 * 2**i, shift)
            hidden = linear(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")
            x = x + linear(hidden * (1 + erf(hidden / math.sqrt(2))) / 2, f"{block}.mlp.fc2")
        if i < len(DEPTHS) - 1:
            square = x.reshape(grid, grid, -1)
            four = [square[row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
            merged = norm(np.concatenate(four, axis=-1), f"layers.{i}.downsample.norm")
            x = (merged @ w[f"layers.{i}.downsample.reduction.weight"].T).reshape(-1, 2 * x.shape[1])
    return norm(x, "norm").mean(0)


@pytest.fixture(scope="module")
def state() -> State:
    return draw(published(), scale=0.05)


@pytest.fixture(scope="module")
def path(state: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("ctranspath") / "random.pth"
    torch.save({"model": state}, file)
    return file


def test_the_features_equal_the_formulas(state: State, path: Path) -> None:
    encoder = ctranspath(path)
    image = images(1)
    np.testing.assert_allclose(encoder.model(image)[0].numpy(), oracle(state, image[0]), atol=1e-5)
    assert encoder.name == "ctranspath"
    assert encoder.dim == 768
    assert encoder.seen == ("tcga", "paip")
    assert encoder.transform == Transform(size=224, interpolation="bilinear", crop=1.0)
    assert encoder.made_of["weights_format"] == "model"


def test_the_size_is_that_of_a_swin_t_with_its_stem(path: Path) -> None:
    parameters = sum(parameter.numel() for parameter in ctranspath(path).model.parameters())
    stem = 12 * 27 + 24 * 108 + 2 * (12 + 24) + 96 * 24 + 96
    assert parameters == 27_519_354 - (96 * 48 + 96) + stem  # timm's Swin-T without its head, and its own stem


def test_the_global_random_numbers_are_left_alone(path: Path) -> None:
    torch.manual_seed(1)
    drawn = torch.rand(3)
    torch.manual_seed(1)
    ctranspath(path)
    assert torch.equal(drawn, torch.rand(3))


def test_without_weights_it_is_said_where_they_are() -> None:
    message = (
        r"ctranspath are not given, .*; download ctranspath\.pth as github\.com/Xiyue-Wang/TransPath says and pass it "
        r"with --weights FILE\."
    )
    with pytest.raises(WeightsMissing, match=message):
        ctranspath()


def test_a_file_that_only_bears_the_published_name_is_refused(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ctranspath.pth").write_bytes(path.read_bytes())
    with pytest.raises(WeightsError, match=r"ctranspath\.pth is called like a published file, .* begins with 7c998680"):
        ctranspath(tmp_path / "ctranspath.pth")
    monkeypatch.setattr(module, "_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    assert ctranspath(tmp_path / "ctranspath.pth").dim == 768


def test_a_plain_swin_is_refused(state: State, tmp_path: Path) -> None:
    plain = {name: value for name, value in state.items() if "proj.6" not in name and "downsample" not in name}
    torch.save({"model": plain}, tmp_path / "weights.pth")
    message = r"missing: layers\.1\.downsample\.norm\.bias, layers\.1\.downsample\.norm\.weight, .* and 6 more"
    with pytest.raises(WeightsError, match=message):
        ctranspath(tmp_path / "weights.pth")
