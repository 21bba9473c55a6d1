"""The classical baseline: hand-made colour, shape and texture features of a blood cell, with no learned weights.

A network's features should beat these before anyone believes in them. Each has a name (``FEATURE_NAMES``), so a model
on top can be read. They run offline, on a CPU, at about 160 images a second and core.
"""

import numpy as np
import torch
from torch import Tensor, nn

from encoders.cell_measures import Features, colour_features, shape_features
from encoders.cell_regions import Array, find_regions
from encoders.cell_textures import texture_features
from milkit.encoder import Encoder, Transform, encoder_digest

VERSION = "classical-1"
"""Part of the digest: change it whenever a feature changes, so that old stores are not taken for new ones."""

SIZE = 144
"""Side of the images in pixels, which is the native size of the AML cohort of Hehr et al.; scales are chosen for it."""


def classical() -> Encoder:
    """Hand-made features: nothing learned, nothing downloaded; the baseline that a network has to beat."""
    model = ClassicalFeatures()
    transform = Transform(size=SIZE, interpolation="bilinear", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    digest = encoder_digest(model, transform, version=VERSION)
    what = f"a fixed bank of {len(FEATURE_NAMES)} colour, shape and texture measurements, nothing learned"
    made_of, numbers = {"description": what}, len(FEATURE_NAMES)
    return Encoder(
        "classical", model, transform, numbers, digest, made_of=made_of, precisions=("fp32",), backends=("torch",)
    )


class ClassicalFeatures(nn.Module):
    """RGB in [0, 1] (B, 3, H, W) -> ``FEATURE_NAMES`` (B, dim), float32; finite for every image.

    It has no parameters and no gradients, and computes on the CPU, one image at a time: most of the time goes into
    short calls that hold Python's lock, so that a second thread makes it slower (measured). Use processes instead.
    """

    def forward(self, images: Tensor) -> Tensor:
        """The features of each image: (B, 3, H, W) -> (B, dim)."""
        features = np.zeros((len(images), len(FEATURE_NAMES)), dtype=np.float32)
        for row, image in zip(features, images.detach().to("cpu", torch.float32).numpy(), strict=True):
            row[:] = list(describe(image).values())
        return torch.from_numpy(features).to(images.device)


def describe(image: Array) -> Features:
    """Names and values of all features of one RGB image (3, H, W) in [0, 1]."""
    regions = find_regions(np.ascontiguousarray(image))
    return colour_features(regions) | shape_features(regions) | texture_features(regions)


FEATURE_NAMES = tuple(describe(np.ones((3, SIZE, SIZE), dtype=np.float32)))
"""In the order of the features; the names are the same for every image."""
