"""Whether the recipe learns at all: some minutes on a processor, on drawn cells, without labels."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from pretrain_toys import lit_cells
from torch import Tensor, nn

from encoders.dinov2.engines import new_networks
from encoders.dinov2.monitors import Validation
from encoders.dinov2.pretrain import pretrain, transform_of
from encoders.dinov2.pretrain_settings import PretrainSettings
from milkit.cohort import load_cohort
from milkit.settings import find_recipe, load

pytestmark = pytest.mark.slow

SIDE, ZOOM, OFF_CENTRE, TINT = 96, 0.3, 24, 0.2
"""A field's largest side in pixels, and the part of it that it may lack; pixels by which a cell may be off its middle;
the part of each colour that the light may lack. As other microscopes, other hands and other lamps would have it."""

FEWER_STEPS = {"iterations": 1000, "warmup": 100, "teacher_warmup": 500, "freeze_last_layer": 10}


def draw(folder: Path, n: int, first: int) -> Path:
    """``n`` cells of each of six kinds, which colour, place and size alone do not tell apart."""
    for path, lit, generator in lit_cells(folder, n, first=first, tint=TINT):
        side = round(SIDE * generator.uniform(1 - ZOOM, 1))
        room = len(lit) - side
        y, x = (room // 2 + generator.integers(-OFF_CENTRE, OFF_CENTRE + 1, 2)).clip(0, room)
        Image.fromarray(lit[y : y + side, x : x + side]).save(path, quality=95)
    return folder


class Pixels(nn.Module):
    """The image itself as its features."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)


def test_neighbours_by_a_trained_network_are_far_better_than_untrained_ones_and_than_raw_pixels(tmp_path: Path) -> None:
    """``tiny_cpu`` with 1,000 iterations on 6,000 cells; 20-NN balanced accuracy of 1,200 others, chance 0.17."""
    recipe = load(PretrainSettings, find_recipe("encoders", "tiny_cpu"), {"workers": 0, "evaluate_every": 250})
    settings = PretrainSettings.model_validate(
        recipe.model_dump(mode="json")
        | {
            "sources": [{"cohort": "acevedo", "root": str(draw(tmp_path / "cells", 1000, 0))}],
            "validation": {"cohort": "acevedo", "root": str(draw(tmp_path / "others", 200, 100_000))},
            "schedule": recipe.schedule.model_dump() | FEWER_STEPS,
        }
    )
    assert settings.validation is not None
    transform, cpu = transform_of(settings), torch.device("cpu")
    validation = Validation.of(load_cohort(settings.validation.cohort), transform, limit=2000, seed=0)
    raw = validation.evaluate(Pixels(), transform, cpu)["knn_20"]
    untrained = validation.evaluate(new_networks(settings, None, cpu).teacher.backbone, transform, cpu)["knn_20"]
    trained = pretrain(settings, tmp_path / "run").score
    print(f"20-NN: {trained:.3f} trained, {untrained:.3f} untrained, {raw:.3f} raw pixels")
    assert trained is not None
    assert trained > untrained + 0.1
    assert trained > raw + 0.1
