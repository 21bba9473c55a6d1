"""Files that say where objects are in fields: Pascal VOC, KITTI, YOLO, COCO, tables (pixels, or fractions), points.

Each reader gives the objects in the order of the file, in pixels. A file that is not of its kind is a ``CohortError``.
Boxes are not judged here: one without area is given as it is.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from cohorts.clinical_tables import column_named, read_table
from cohorts.field_crops import Found
from milkit.errors import CohortError

_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read_voc(path: Path) -> list[Found]:
    """Pascal VOC: one XML a field, ``object`` with ``name`` and ``bndbox``, pixels.

    The file's own ``filename`` and ``path`` are not read: they name the annotator's machine.
    """
    try:
        objects = ElementTree.parse(path).getroot().iter("object")
        return [
            Found(item.findtext("name", "").strip(), *_four(item.findtext(f"bndbox/{side}") for side in _CORNERS))
            for item in objects
        ]
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise _not_of_kind(path, "Pascal VOC", error) from None


def read_kitti(path: Path) -> list[Found]:
    """KITTI: one text a field, a line an object: type, three values, left, top, right, bottom in pixels, and others."""
    return _lines(path, "KITTI", 8, lambda parts: Found(parts[0], *_four(parts[4:8])))


def read_yolo(path: Path, size: tuple[int, int]) -> list[Found]:
    """YOLO: one text a field, a line an object: class number, centre x and y, width, height, fractions of the field.

    Values behind these (attributes) are not read. The label is the class number, as text.
    """

    def found(parts: list[str]) -> Found:
        x, y, width, height = _four(parts[1:5])
        sides = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return Found(parts[0], *_scaled(sides, size))

    return _lines(path, "YOLO", 5, found)


def read_points(path: Path, window: float) -> list[Found]:
    """Points: one text a field, a line an object: x, y, class number; each becomes the centre of a square window."""

    def found(parts: list[str]) -> Found:
        x, y, half = (*_numbers(parts[:2]), window / 2)
        return Found(parts[2], x - half, y - half, x + half, y + half)

    return _lines(path, "points", 3, found)


def read_box_table(
    path: Path, image: str, label: str, size_of: Callable[[str], tuple[int, int]] | None = None
) -> dict[str, list[Found]]:
    """A table with a row an object: a column that names the image, one with the label, and xmin, ymin, xmax, ymax.

    Coordinates are pixels; with ``size_of`` (image name to width and height) they are fractions of the field.
    """
    table = read_table(path)
    columns = [table[column_named(table, name, path)].str.strip() for name in (image, label, *_CORNERS)]
    objects: dict[str, list[Found]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    try:
        for name, text, *corners in zip(*columns, strict=True):
            if name not in sizes:
                sizes[name] = size_of(name) if size_of else (1, 1)
            objects.setdefault(name, []).append(Found(text, *_scaled(_four(corners), sizes[name])))
    except ValueError as error:
        raise _not_of_kind(path, "box table", error) from None
    return objects


def read_coco(content: bytes, source: str) -> dict[str, list[Found]]:
    """COCO: one JSON for many fields; ``bbox`` is left, top, width, height in pixels. Objects by image file name.

    An image may be listed under several ids; they are joined by its file name, and objects that repeat another of the
    same field, label and box are passed over.
    """
    try:
        document: dict[str, Any] = json.loads(content)
        names: Mapping[Any, str] = {image["id"]: str(image["file_name"]) for image in document["images"]}
        labels: Mapping[Any, str] = {kind["id"]: str(kind["name"]) for kind in document["categories"]}
        objects: dict[str, list[Found]] = {name: [] for name in names.values()}
        for item in document["annotations"]:
            left, top, width, height = _four(item["bbox"])
            found = Found(labels[item["category_id"]], left, top, left + width, top + height)
            if found not in objects[names[item["image_id"]]]:
                objects[names[item["image_id"]]].append(found)
    except (KeyError, TypeError, ValueError) as error:
        raise _not_of_kind(source, "COCO", error) from None
    return objects


def _numbers(values: Iterable[Any]) -> list[float]:
    """Finite numbers; ``ValueError`` otherwise."""
    numbers = [float(value) if value is not None else math.nan for value in values]
    if not all(map(math.isfinite, numbers)):
        msg = "a coordinate is missing"
        raise ValueError(msg)
    return numbers


def _four(values: Iterable[Any]) -> tuple[float, float, float, float]:
    """Four finite numbers; ``ValueError`` otherwise."""
    first, second, third, fourth = _numbers(values)
    return first, second, third, fourth


def _scaled(sides: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Left, top, right, bottom times the width or height of a field."""
    return sides[0] * size[0], sides[1] * size[1], sides[2] * size[0], sides[3] * size[1]


def _lines(path: Path, kind: str, fewest: int, found: Callable[[list[str]], Found]) -> list[Found]:
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        short = next((" ".join(parts) for parts in lines if len(parts) < fewest), None)
        if short is not None:
            msg = f"a line is '{short}'"
            raise ValueError(msg)
        return [found(parts) for parts in lines]
    except (OSError, ValueError) as error:
        raise _not_of_kind(path, kind, error) from None


def _not_of_kind(source: Path | str, kind: str, error: Exception) -> CohortError:
    reason = " ".join(str(error).split())
    return CohortError(f"{source} cannot be read as {kind}, which was expected ({reason}); get the file anew.")
