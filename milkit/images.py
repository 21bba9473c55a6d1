"""One cell image: read as 8-bit RGB, cut out of its field where it is part of one, and written for a page."""

import base64
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from milkit import archives
from milkit.errors import ImageError

MAX_PIXELS = 4096 * 4096
"""A single cell is far smaller; a larger image is a whole field, or a decompression bomb."""

RgbImage = npt.NDArray[np.uint8]
"""(height, width, 3), RGB."""


def read_image(source: Path | io.BytesIO) -> RgbImage:
    """Decode one image, a file or its bytes, fully into 8-bit RGB (height, width, 3).

    Alpha is dropped, palettes and grey levels are expanded, 16-bit grey is scaled by its full range (65,535). A file
    that is missing, truncated, not an image, or larger than ``MAX_PIXELS`` raises ``ImageError`` with the reason.
    """
    try:
        with Image.open(source) as image:
            if image.width * image.height > MAX_PIXELS:
                msg = f"{image.width}x{image.height} pixels is a whole field, not a cell"
                raise ImageError(msg)
            image.load()
            return _to_rgb(image)
    except ImageError:
        raise
    except FileNotFoundError:
        msg = "the file is missing"
        raise ImageError(msg) from None
    except UnidentifiedImageError:
        msg = "the file is not an image"
        raise ImageError(msg) from None
    except Exception as error:  # Pillow lets through whatever damaged bytes lead its decoders to
        msg = f"the image cannot be decoded ({str(error) or type(error).__name__})"
        raise ImageError(msg) from None


class Place(NamedTuple):
    """Where a cell's pixels lie: a file relative to the cohort's root, and the box in it where it is a field."""

    root: Path
    path: str
    box: str = ""


def read_bytes(root: Path, path: str) -> bytes:
    """The bytes of a cell's image file, by its path relative to the cohort's root; else an ``ImageError``.

    ``smears.zip::P1/image_3.png`` is a file inside an archive, see ``milkit.archives``.
    """
    inside = archives.split(path)
    if inside:
        return archives.read_member(root / inside[0], inside[1])
    try:
        file = root / path
        if file.exists() and not file.is_file():
            msg = "the file cannot be opened (it is no regular file)"
            raise ImageError(msg)
        if file.stat().st_size > archives.MAX_BYTES:
            msg = f"{file.stat().st_size / 1e6:.0f} MB is no image of a cell"
            raise ImageError(msg)
        return file.read_bytes()
    except OSError as error:
        msg = f"the file cannot be opened ({error.strerror})"
        raise ImageError(msg) from None


def read_cell(content: bytes, box: str = "") -> RgbImage:
    """One cell from the bytes of its file: the whole image, or the part in the box; else an ``ImageError``."""
    image = read_image(io.BytesIO(content))
    return cut(image, parse_box(box)) if box else image


class Box(NamedTuple):
    """A part of an image in its own pixels; it may reach over the border."""

    left: int
    top: int
    width: int
    height: int

    def __str__(self) -> str:
        """As the column ``box`` of a cohort's cells has it."""
        return " ".join(map(str, self))


def parse_box(text: str) -> Box:
    """``left top width height`` in whole pixels, as the column ``box`` of a cohort's cells has them."""
    try:
        box = Box(*map(int, text.split()))
    except (TypeError, ValueError):
        box = Box(0, 0, 0, 0)
    if box.width < 1 or box.height < 1:
        msg = f"the box '{text}' is not `left top width height` in whole pixels"
        raise ImageError(msg)
    return box


def cut(image: RgbImage, box: Box) -> RgbImage:
    """The part of an image that a box shows, (height, width, 3) of the box; never with a black border.

    A box over the border is shifted inside; where the image is smaller than the box, its edge pixels are repeated.
    """
    height, width = image.shape[:2]
    left = min(max(box.left, 0), max(width - box.width, 0))
    top = min(max(box.top, 0), max(height - box.height, 0))
    part = image[top : top + box.height, left : left + box.width]
    lacking = (box.height - part.shape[0], box.width - part.shape[1])
    if not any(lacking):
        return part
    around = [(missing // 2, missing - missing // 2) for missing in lacking]
    return np.pad(part, (*around, (0, 0)), mode="edge")


def _to_rgb(image: Image.Image) -> RgbImage:
    if image.mode == "F":
        msg = "the image has floating-point values of unknown range"
        raise ImageError(msg)
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it to white
        if np.asarray(image).max(initial=0) > 65535:
            msg = "the image has whole numbers beyond 16 bits, of unknown range"
            raise ImageError(msg)
        grey = (np.asarray(image, dtype=np.float64) * (255.0 / 65535.0)).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def data_uri(image: RgbImage, *, reduce_to: int | None = None) -> str:
    """The image as a ``data:`` URI: lossless WebP with the true pixels, or reduced (longest side in px, lossy)."""
    picture = Image.fromarray(image)
    buffer = io.BytesIO()
    if reduce_to is None:
        picture.save(buffer, "WEBP", lossless=True, quality=20, method=2)  # effort: 50 takes twice as long for 1 % less
    else:
        picture.thumbnail((reduce_to, reduce_to))
        picture.save(buffer, "WEBP", quality=70, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
