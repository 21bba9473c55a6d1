"""Drawn cells in Acevedo's layout, and the recipe of a training that takes seconds."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import extract_toys
import numpy as np
import pytest
import yaml
from extract_toys import Jobs
from PIL import Image

from cohorts.cell_drawing import draw_cell, draw_stain
from encoders.dinov2.pretrain_settings import PretrainSettings

KINDS = {
    "BA": ("basophil", "basophil"),
    "EO": ("eosinophil", "eosinophil"),
    "LY": ("lymphocyte", "lymphocyte_typical"),
    "MO": ("monocyte", "monocyte"),
    "PMY": ("ig", "promyelocyte"),
    "SNE": ("neutrophil", "neutrophil_segmented"),
}
"""From Acevedo's prefixes to their folders, and to the kind that is drawn."""

TINY = {
    "network": {"dim": 32, "depth": 1, "heads": 1, "image_size": 42, "layer_scale": 1.0},
    "heads": {"prototypes": 16, "hidden": 32, "bottleneck": 8},
    "batch_size": 8,
    "schedule": {
        "iterations": 40,
        "learning_rate": 4e-3,
        "warmup": 4,
        "teacher_warmup": 10,
        "freeze_last_layer": 2,
        "momentum": [0.9, 1.0],
    },
    "log_every": 1,
    "evaluate_every": 1000,
    "checkpoint_every": 1000,
    "device": "cpu",
    "precision": "fp32",
    "workers": 0,
}


def lit_cells(
    folder: Path, n: int, *, first: int, tint: float, kinds: Mapping[str, Any] = KINDS
) -> Iterator[tuple[Path, np.ndarray, np.random.Generator]]:
    """``n`` cells of each kind: where each is to lie in Acevedo's layout, its field, and its own random numbers.

    Each has a stain of its own; ``tint`` is how much of red, green and blue each lacks at most, as if every one were
    taken in another light.
    """
    for place, (prefix, (home, kind)) in enumerate(kinds.items()):
        (folder / home).mkdir(parents=True, exist_ok=True)
        for number in range(first, first + n):
            generator = np.random.default_rng([place, number])
            cell = draw_cell(kind, draw_stain(generator), generator)
            lit = (cell * generator.uniform(1 - tint, 1, size=3)).astype(np.uint8)
            yield folder / home / f"{prefix}_{number}.jpg", lit, generator


def draw_acevedo(
    folder: Path, n: int, *, side: int = 48, first: int = 0, tint: float = 0.0, kinds: Mapping[str, Any] = KINDS
) -> Path:
    """Write the cells of ``lit_cells``, whose numbers begin at ``first``, as squares of ``side`` pixels."""
    for path, lit, _ in lit_cells(folder, n, first=first, tint=tint, kinds=kinds):
        Image.fromarray(lit).resize((side, side), Image.Resampling.BOX).save(path, quality=95)
    return folder


def recipe_of(root: Path | None, **other: Any) -> dict[str, Any]:
    """The tiny training on the cells below ``root``; ``other`` settings replace its own."""
    source = {"cohort": "acevedo"} | ({"root": str(root)} if root else {})
    return {"sources": [source], **TINY, **other}


def settings_of(root: Path | None, **other: Any) -> PretrainSettings:
    """The same as settings."""
    return PretrainSettings.model_validate(recipe_of(root, **other))


def write_recipe(path: Path, root: Path | None, **other: Any) -> Path:
    """The same as a file."""
    path.write_text(yaml.safe_dump(recipe_of(root, **other)))
    return path


class Trainings(Jobs):
    """Starts processes of ``milkit`` that have all that a training imports, and draw no curves."""

    def __enter__(self) -> "Trainings":
        imports = "import torch._dynamo, encoders.dinov2.pretrain, encoders.dinov2.history as history\n"
        undrawn = "history.History.draw = lambda *_: None\n"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(extract_toys, "LAUNCHER", imports + undrawn + extract_toys.LAUNCHER)
            super().__enter__()
        return self
