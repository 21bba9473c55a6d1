"""What is measured of a cell in one pass over its file: size, grey levels, sharpness, tears, digest, fingerprint."""

import hashlib
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from milkit import archives
from milkit.check.damage import is_jpeg, tear
from milkit.check.fingerprint import fingerprint
from milkit.errors import ImageError
from milkit.images import RgbImage, cut, parse_box, read_bytes, read_image

VERSION = 2
"""Of what follows: measures of another version are not taken over from an earlier check."""

MEASURES = np.dtype(
    [
        ("state", "u1"),
        ("file_size", "i8"),
        ("file_time", "i8"),
        ("file_change", "i8"),
        ("sha256", "u1", 32),
        ("fingerprint", "u8", 4),
        ("width", "u4"),
        ("height", "u4"),
        ("constant", "?"),
        ("brightest", "u1"),
        ("brightness", "f4"),
        ("contrast", "u1"),
        ("white", "f4"),
        ("black", "f4"),
        ("sharpness", "f4"),
        ("tear", "f4"),
        ("tear_row", "u4"),
    ]
)
"""One row a cell.

* ``state``: one of ``UNSEEN``, ``MEASURED`` and ``FAILED``.
* ``file_size``, ``file_time``, ``file_change``: of the file, bytes and nanoseconds; with its path they say that it is
  unchanged. The time is that of its content, which programs can set, the other that of any change, which they cannot.
* ``sha256``: of the file. ``fingerprint``: of the cell, see ``milkit.check.fingerprint``.
* ``width``, ``height``: of the cell, pixels.
* ``constant``: all pixels have one colour. ``brightest``: value of any channel. ``brightness``: mean grey level.
* ``contrast``: grey levels between the darkest and the brightest half per cent of the pixels.
* ``white``, ``black``: share of pixels with all three channels at 254 or above, at 1 or below.
* ``sharpness``: natural logarithm of the variance of the grey image's Laplacian over the variance of the grey image,
  so that a small cell on an empty ground is no less sharp than a large one; both of the image reduced to
  ``SHARPNESS_SIDE``, below which images from a 40x lens hold no detail but the noise of their coding.
* ``tear``, ``tear_row``: of the file, see ``milkit.check.damage``.
"""
UNSEEN, MEASURED, FAILED = 0, 1, 2

Records = npt.NDArray[Any]
"""(n,) of ``MEASURES``."""

SHARPNESS_SIDE = 128
"""Longer side, pixels."""
CLIPPED_WHITE, CLIPPED_BLACK = 254, 1
SETTLED = 2_000_000_000
"""Nanoseconds. A file that was changed less long ago could change again without its time telling: it is read anew."""


class CellFile(NamedTuple):
    """One file of a cohort: its path, the boxes of its cells (``""``: all of it), and what was known of it before."""

    path: str
    boxes: Sequence[str]
    size: int = 0
    time: int = 0
    change: int = 0


def measure_file(root: Path, file: CellFile) -> tuple[Records, dict[int, str]]:
    """Read one file, and measure each of its cells.

    Returns:
        A row for each box, ``UNSEEN`` where the file has the size and the times that were known; and by the number of
        the box why a cell could not be read.
    """
    records = np.zeros(len(file.boxes), dtype=MEASURES)
    size, changed, touched = _stamp(root, file.path)
    if file.size and (size, changed, touched) == (file.size, file.time, file.change):
        return records, {}
    records["file_size"], records["file_change"] = size, touched
    records["file_time"] = changed if time.time_ns() - changed > SETTLED else -1
    reasons = {}
    try:
        content = read_bytes(root, file.path)
        records["sha256"] = np.frombuffer(hashlib.sha256(content).digest(), dtype=np.uint8)
        image = read_image(io.BytesIO(content))
        if is_jpeg(content):
            records["tear"], records["tear_row"] = tear(np.asarray(Image.fromarray(image).convert("L")))
    except ImageError as error:
        records["state"] = FAILED
        return records, dict.fromkeys(range(len(file.boxes)), str(error))
    for number, box in enumerate(file.boxes):
        try:
            _measure(cut(image, parse_box(box)) if box else image, records[number])
        except ImageError as error:
            records["state"][number] = FAILED
            reasons[number] = str(error)
    return records, reasons


def _stamp(root: Path, path: str) -> tuple[int, int, int]:
    """Size and times of a file, or of the archive that it is in; zeros where there is none, as reading it will tell."""
    inside = archives.split(path)
    try:
        status = (root / (inside[0] if inside else path)).stat()
    except OSError:
        return 0, 0, 0
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _measure(image: RgbImage, record: Any) -> None:
    picture = Image.fromarray(image)
    grey = picture.convert("L")
    levels = np.array(grey.histogram())
    below = np.cumsum(levels)
    n_pixels = int(below[-1])
    low, high = np.searchsorted(below, [0.005 * n_pixels, 0.995 * n_pixels])
    red, green, blue = picture.split()
    least = ImageChops.darker(ImageChops.darker(red, green), blue).histogram()
    most = ImageChops.lighter(ImageChops.lighter(red, green), blue).histogram()
    record["state"] = MEASURED
    record["height"], record["width"] = image.shape[:2]
    record["constant"] = all(len(set(channel.getextrema())) == 1 for channel in (red, green, blue))
    record["brightest"] = next(level for level in range(255, -1, -1) if most[level])
    record["brightness"] = float(levels @ np.arange(256)) / n_pixels
    record["contrast"] = high - low
    record["white"] = sum(least[CLIPPED_WHITE:]) / n_pixels
    record["black"] = sum(most[: CLIPPED_BLACK + 1]) / n_pixels
    record["sharpness"] = _sharpness(grey)
    record["fingerprint"] = fingerprint(grey).view(np.uint64)


def _sharpness(grey: Image.Image) -> float:
    """NaN where there is no inner pixel, or nothing but one grey level."""
    scale = SHARPNESS_SIDE / max(grey.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in grey.size)
        grey = grey.resize((width, height), Image.Resampling.BOX)
    values = np.asarray(grey, dtype=np.float32)
    inner = values[1:-1, 1:-1]
    laplacian = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:] - 4 * inner
    variance, steps = float(values.var()), float(laplacian.var()) if laplacian.size else 0.0
    return float(np.log(steps / variance)) if steps > 0 and variance > 0 else float("nan")
