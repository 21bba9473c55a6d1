"""Published cells as stores, for the tests that need MILKIT_REAL_DATA. Nothing is written beside the images."""

import os
from dataclasses import replace
from pathlib import Path

from PIL import Image

from cohorts.acevedo import acevedo
from cohorts.bccd import bccd
from milkit.cohort import Cohort
from milkit.encoder import load_encoder
from milkit.extract import extract
from milkit.images import read_bytes, read_cell
from milkit.runs import Workspace
from milkit.settings import CohortRecipe, Component, ExtractSettings

CLASSICAL = Component(name="classical")
RANDOM_NET = Component(name="timm", model="resnet18", pretrained=False)


def extract_acevedo(work: Path, *encoders: Component, per_prefix: int) -> list[Path]:
    """The first images of each file-name prefix, a store an encoder."""
    cohort = acevedo(_published("acevedo"))
    few = replace(cohort, cells=cohort.cells.groupby("cell_type").head(per_prefix))
    return [_encode(few, encoder, work) for encoder in encoders]


def extract_bccd(work: Path, encoder: Component, n_cells: int) -> Path:
    """White cells, cut out of their fields."""
    cohort = bccd(_published("bccd"))
    cells = cohort.cells.head(n_cells)
    crops = work / "crops"
    crops.mkdir(parents=True)
    for row, (path, box) in enumerate(zip(cells["path"], cells["box"], strict=True)):
        Image.fromarray(read_cell(read_bytes(cohort.root, path), box)).save(crops / f"{row}.png")
    cut = cells.drop(columns="box").assign(path=[f"{row}.png" for row in range(len(cells))])
    return _encode(replace(cohort, root=crops, cells=cut), encoder, work)


def _published(name: str) -> Path:
    return Path(os.environ["MILKIT_REAL_DATA"]).resolve() / name


def _encode(cohort: Cohort, encoder: Component, work: Path) -> Path:
    recipe = CohortRecipe(name=cohort.name, factory=cohort.name, root=cohort.root)
    settings = ExtractSettings(cohort=recipe, encoder=encoder, batch_size=16, precision="fp32")
    return extract(cohort, load_encoder(encoder), settings, Workspace(work)).path
