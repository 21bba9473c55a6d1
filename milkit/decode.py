"""Cell images, read and resized by threads some way ahead of the network."""

import hashlib
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from milkit.encoder import Transform
from milkit.errors import ImageError
from milkit.images import Place, RgbImage, read_bytes, read_cell
from milkit.runs import available_cores

MAX_RATIO = 64
"""Of the longer side to the shorter; a transform that scales the shorter one up makes gigabytes of a thin strip."""


class DecodedCell(NamedTuple):
    """One cell: the resized image (size, size, 3), or (``reason``) why there is none, and the file's SHA-256."""

    square: RgbImage | None
    sha256: bytes
    reason: str


def decode(places: Iterable[Place], transform: Transform, ahead: int) -> Generator[DecodedCell, None, None]:
    """Yield the cells in order, at most ``ahead`` of them waiting, so that memory does not grow with the cohort.

    Threads suffice: Pillow decodes and resizes outside Python's lock. They end with the generator; close it where not
    all cells are taken.
    """
    with ThreadPoolExecutor(max_workers=available_cores()) as pool:
        waiting: deque[Future[DecodedCell]] = deque()
        try:
            for place in places:
                waiting.append(pool.submit(decode_one, place, transform))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def decode_one(place: Place, transform: Transform) -> DecodedCell:
    """Read one cell; what is wrong with it becomes the reason."""
    sha256 = bytes(32)
    try:
        content = read_bytes(place.root, place.path)
        sha256 = hashlib.sha256(content).digest()
        image = read_cell(content, place.box)
    except ImageError as error:
        return DecodedCell(None, sha256, str(error))
    height, width, _ = image.shape
    if max(height, width) > MAX_RATIO * min(height, width):
        return DecodedCell(None, sha256, f"{width}x{height} pixels is a strip, not a cell")
    return DecodedCell(transform.square(image), sha256, "")
