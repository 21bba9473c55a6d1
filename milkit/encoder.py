"""Encoder: a frozen network together with the transform that it expects and one digest for both."""

import contextlib
import ctypes
import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from milkit.downloads import downloads_forbidden
from milkit.errors import SettingsError, WeightsMissing
from milkit.images import RgbImage
from milkit.registry import ENCODERS
from milkit.settings import DEFAULT_ENCODER, Backend, Component, Precision

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

Engine = Literal["cpu", "cuda", "openvino"]
"""What runs a network: PyTorch on the processor or on a GPU, or OpenVINO, which wants PyTorch's plain operators."""

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, slots=True)
class Transform:
    """uint8 RGB (H, W, 3) -> float32 (3, size, size): resize with Pillow, scale to [0, 1], normalise.

    Attributes:
        size: Side of the square that the network sees, in pixels.
        interpolation: Pillow's filter; antialiased when it shrinks.
        mean: Subtracted per channel, after scaling to [0, 1].
        std: Divided by per channel.
        crop: Share of a side that is kept: the image is resized to ``size / crop``, and its centre cut out.
        crop_mode: ``squash`` resizes both sides to that length (what DinoBloom does, with a crop of 1); ``center`` the
            shorter one (what ImageNet models were evaluated with; loses the ends of the longer one).
    """

    size: int = 224
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    crop: float = 1.0
    crop_mode: Literal["squash", "center"] = "squash"

    def __call__(self, image: RgbImage) -> Tensor:
        """Transform one image."""
        return self.normalise(torch.from_numpy(self.square(image))[None])[0]

    def square(self, image: RgbImage) -> RgbImage:
        """The first half, which Pillow does on the CPU: uint8 (H, W, 3) -> uint8 (size, size, 3)."""
        return np.array(self._resized(Image.fromarray(image)), dtype=np.uint8)  # a copy, since Pillow's is read-only

    def normalise(self, squares: Tensor) -> Tensor:
        """The second half, where the network runs: uint8 (B, size, size, 3) -> float32 (B, 3, size, size)."""
        images = squares.permute(0, 3, 1, 2).float().contiguous().div_(255.0)
        for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            images[:, channel].sub_(mean).div_(std)  # numbers, not tensors: a GPU would be waited for
        return images

    def _resized(self, image: Image.Image) -> Image.Image:
        resample = _RESAMPLING[self.interpolation]
        side = int(self.size / self.crop)  # floored, as timm's evaluation does
        if self.crop_mode == "squash":
            wanted = (side, side)
        else:
            scale = side / min(image.size)
            wanted = (round(image.width * scale), round(image.height * scale))
        resized = image if image.size == wanted else image.resize(wanted, resample)
        if wanted == (self.size, self.size):
            return resized
        left, top = (resized.width - self.size) // 2, (resized.height - self.size) // 2
        return resized.crop((left, top, left + self.size, top + self.size))


@dataclass(frozen=True, slots=True)
class Encoder:
    """A frozen network with the transform that it expects; equal digests mean equal features.

    Attributes:
        name: What people call it; names the store.
        model: Maps float (B, 3, H, W) to float (B, dim), row by row: no image influences another's features.
        transform: The input that the network was trained with.
        dim: Length of a feature vector.
        digest: SHA-256 over weights and transform; see ``encoder_digest``.
        seen: Names of the data sets that its pre-training has seen, so that reports can warn of overlap.
        made_of: Further facts for the provenance, such as the weights file's SHA-256, or a ``description`` for readers.
        for_features: Makes the same network in a form that computes features alone, and faster; ``model`` is run
            where there is none. Its features are held against those of ``model`` before it is used.
        precisions: Number types that it can be run in.
        backends: What it can be run by, beside each other; ``torch`` is always among them.
        patch_tokens: Maps float (B, 3, H, W), on the device of ``model``, to the tokens of its patches as they leave
            the network, float (B, rows, columns, D), the top left first; None where the network has no such tokens.
    """

    name: str
    model: nn.Module
    transform: Transform
    dim: int
    digest: str
    seen: tuple[str, ...] = ()
    made_of: Mapping[str, str] = field(default_factory=dict)
    for_features: Callable[[torch.dtype, Engine], nn.Module] | None = None
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    backends: tuple[Backend, ...] = ("torch", "openvino")
    patch_tokens: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        """Freeze the network: evaluation mode, no gradients."""
        self.model.eval().requires_grad_(False)  # noqa: FBT003


def encoder_digest(model: nn.Module, transform: Transform, *, version: str = "") -> str:
    """SHA-256 over the state dict (names, types, shapes, values), the transform, and ``version``.

    ``version`` is for models whose features also depend on code, such as hand-made ones: change it with the code.
    """
    if not version and not model.state_dict():
        msg = "encoder_digest was given a model without weights; pass a version=, and change it with the model's code."
        raise SettingsError(msg)
    sha = hashlib.sha256(json.dumps([version, asdict(transform)], sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        array = tensor.detach().cpu().contiguous()
        sha.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        sha.update(array.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def load_encoder(component: Component) -> Encoder:
    """Build the encoder that a component names."""
    encoder: Encoder = ENCODERS.build(component.name, component.arguments)
    return encoder


def load_preferred(wish: Component) -> tuple[Encoder, str]:
    """The encoder that a cohort's recipe wishes for, or the offline default where its weights cannot be had.

    Returns:
        The encoder, and a sentence for people where it is not the one wished for, else an empty text.
    """
    try:
        with downloads_forbidden():  # gigabytes are fetched for those who ask by name
            return load_encoder(wish), ""
    except WeightsMissing:
        note = (
            f"The cohort's recipe asks for the encoder '{wish.name}', whose weights are neither given (--weights) nor "
            f"cached, so the offline default '{DEFAULT_ENCODER.name}' was used."
        )
        return load_encoder(DEFAULT_ENCODER), note


def choose_device(device: str) -> torch.device:
    """``auto`` is the GPU where there is one; ``cuda`` without one is a ``SettingsError``."""
    if device == "cuda" and not torch.cuda.is_available():
        msg = "The device cuda was asked for and PyTorch finds no GPU here; use --device cpu, or mend the driver."
        raise SettingsError(msg)
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)


def computes_in_bf16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16; elsewhere it is emulated, and far slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # PyTorch has no public name for them
    return any(bool(getattr(torch.cpu, check, bool)()) for check in checks)


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc keep what is freed, where it is the C library.

    Otherwise each batch's activations go back to the system, and are faulted in again page by page at the next: up to a
    fifth of a ViT's time (measured).
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    with contextlib.suppress(AttributeError, OSError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(mmap_threshold, 32 << 20)  # the largest that glibc takes
        mallopt(trim_threshold, 1 << 30)
