"""Drawn cells for the tests of `milkit cohort check`. No image of a real patient is among them."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw

from milkit.cohort import Cohort


def draw_cell(seed: int, side: int = 128) -> Image.Image:
    """A dark round cell with a darker nucleus on a light, slightly noisy ground; places and colours vary."""
    generator = np.random.default_rng(seed)
    image = Image.new("RGB", (4 * side, 4 * side), (225, 215, 205))
    pen = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, r = generator.uniform((0, 0, 0.08), (4, 4, 0.6))
        pen.ellipse([(x - r) * side, (y - r) * side, (x + r) * side, (y + r) * side], (205, 160, 160))
    x, y, r = generator.uniform((1.6, 1.6, 0.7), (2.4, 2.4, 1.2))
    pen.ellipse([(x - r) * side, (y - r) * side, (x + r) * side, (y + r) * side], (150, 130, 190))
    pen.ellipse([(x - r / 2) * side, (y - r) * side, (x + r / 2) * side, (y + r / 2) * side], (70, 40, 120))
    small = np.asarray(image.resize((side, side), Image.Resampling.BOX), float)
    return Image.fromarray((small + generator.normal(0, 3, small.shape)).clip(0, 253).astype(np.uint8))


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return content.getvalue()


def drawn_cohort(root: Path, number: int = 30) -> Cohort:
    """Cells of 128 x 128 pixels without patients, as JPEG; their types are EO and BNE in turn."""
    root.mkdir(parents=True)
    names = [f"cell_{n}" for n in range(number)]
    for seed, name in enumerate(names):
        (root / f"{name}.jpg").write_bytes(jpeg(draw_cell(seed)))
    cells = pd.DataFrame({"cell_id": names, "patient_id": None, "path": [f"{name}.jpg" for name in names]})
    cells["cell_type"] = [("EO", "BNE")[n % 2] for n in range(number)]
    patients = pd.DataFrame({"label": []}, index=pd.Index([], name="patient_id"), dtype=object)
    return Cohort("drawn", root, patients, cells.astype(object), ())
