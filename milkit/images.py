"""One cell image: read as 8-bit RGB, and written for a page."""

import base64
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

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
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        msg = f"the image cannot be decoded ({error})"
        raise ImageError(msg) from None


def _to_rgb(image: Image.Image) -> RgbImage:
    if image.mode == "F":
        msg = "the image has floating-point values of unknown range"
        raise ImageError(msg)
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion would clip it to white
        grey = (np.asarray(image, dtype=np.float64) * (255.0 / 65535.0)).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def data_uri(image: RgbImage, *, reduce_to: int | None = None) -> str:
    """The image as a ``data:`` URI: lossless WebP with the true pixels, or reduced (longest side in px, lossy)."""
    picture = Image.fromarray(image)
    buffer = io.BytesIO()
    if reduce_to is None:
        picture.save(buffer, "WEBP", lossless=True, quality=50, method=2)
    else:
        picture.thumbnail((reduce_to, reduce_to))
        picture.save(buffer, "WEBP", quality=70, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
