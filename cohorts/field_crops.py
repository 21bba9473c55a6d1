"""Cells out of fields: each annotated object of a field becomes a square box, and a row of the table of cells.

A field is one image with several cells. What its annotation is (boxes, masks, points) is said by the adapter of a data
set, never guessed from files. The pixels stay in the field: ``milkit.images.cut`` shifts a box that reaches over the
border inside, or repeats the edge.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd
from PIL import Image, UnidentifiedImageError

from cohorts.published_sets import missing_note
from milkit.cohort import is_image, natural_key
from milkit.errors import CohortError
from milkit.images import Box

MARGIN = 0.1
"""What a crop shows around an object on each side, as a share of the object's longer side."""

Role = Literal["wbc", "rbc", "platelet"]
"""What an object is, coarsely: white cell, red cell, platelet."""


class Found(NamedTuple):
    """One annotated object, in pixels of its field from the upper left corner; ``right`` and ``bottom`` are beyond it.

    Coordinates may be fractions and may lie outside the field. ``label`` is the type of the cell as published, or None.
    """

    label: str | None
    left: float
    top: float
    right: float
    bottom: float
    role: Role = "wbc"

    @property
    def shorter(self) -> float:
        """The shorter side, in pixels; 0 or less for an object without area."""
        return min(self.right - self.left, self.bottom - self.top)


class Field(NamedTuple):
    """One field: its name, its path relative to the cohort's root, and its objects in the order of their file."""

    name: str
    path: str
    objects: Sequence[Found]


def square(found: Found, margin: float = MARGIN) -> Box:
    """The square around an object's centre whose side is the object's longer side and a margin at both ends."""
    # Rounded first: copies of a box in fractions and in pixels differ in the last bits, and are to give the same crop.
    side = math.ceil(round(max(found.right - found.left, found.bottom - found.top) * (1 + 2 * margin), 6))
    middles = (found.left + found.right) / 2, (found.top + found.bottom) / 2
    left, top = (math.floor(round(middle - side / 2 + 0.5, 6)) for middle in middles)
    return Box(left, top, side, side)


def cell_table(
    fields: Sequence[Field], *, roles: Sequence[Role] = ("wbc",), smallest: float = 0, margin: float = MARGIN
) -> tuple[pd.DataFrame, list[str]]:
    """A row for each object of these roles, without patients; and a sentence on what was left out.

    A cell is called ``<field>/<n>``; n counts all objects of the field from 0, so that it stays the same whatever is
    left out: objects without area, and white cells whose shorter side is below ``smallest`` pixels.
    """
    rows: list[tuple[str, None, str, str, str | None, Role]] = []
    flat, small = [], []
    for field in fields:
        for number, found in enumerate(field.objects):
            cell_id = f"{field.name}/{number}"
            if found.shorter <= 0:
                flat.append(cell_id)
            elif found.role in roles and found.role == "wbc" and found.shorter < smallest:
                small.append(cell_id)
            elif found.role in roles:
                rows.append((cell_id, None, field.path, str(square(found, margin)), found.label, found.role))
    notes = [
        *missing_note("Boxes without area were left out", flat),
        *missing_note(f"White cells below {smallest:g} pixels were left out", small),
    ]
    columns = ["cell_id", "patient_id", "path", "box", "cell_type", "role"]
    return pd.DataFrame(rows, columns=columns, dtype=object), notes


def folder_with(root: Path, marks: Collection[str], places: Sequence[str], published: str) -> Path:
    """The first of the places below ``root`` (or ``root`` itself) that holds a folder called like each of the marks."""
    for place in (root, *(root / name for name in places)):
        if all((place / mark).is_dir() for mark in marks):
            return place
    msg = f"{root} holds no {' and no '.join(sorted(marks))}, where {published}"
    raise CohortError(msg)


def images_by_stem(folder: Path) -> dict[str, Path]:
    """The images in a folder by their name without suffix, in natural order; litter is passed over."""
    found = {path.stem: path for path in folder.iterdir() if is_image(Path(path.name))}
    return {stem: found[stem] for stem in sorted(found, key=natural_key)}


def join_fields(
    root: Path,
    images: Mapping[str, Path],
    objects: Mapping[str, Sequence[Found]],
    roles: Mapping[str, Role] | None = None,
) -> tuple[list[Field], list[str]]:
    """The fields that have an image and an annotation, by name; and a sentence each on those that lack something.

    ``roles`` has every label that the data set knows; without it the objects keep the role that they have.
    """
    fields = [
        Field(name, path.relative_to(root).as_posix(), [_with_role(found, roles, name) for found in objects[name]])
        for name, path in images.items()
        if name in objects
    ]
    lacking = {
        "Images without an annotation were left out": images.keys() - objects.keys(),
        "Annotations without an image were left out": objects.keys() - images.keys(),
        "Nothing is annotated in fields": {field.name for field in fields if not field.objects},
    }
    return fields, [note for what, names in lacking.items() for note in missing_note(what, names)]


def _with_role(found: Found, roles: Mapping[str, Role] | None, field: str) -> Found:
    if roles is None:
        return found
    if found.label is None or found.label not in roles:
        msg = f"{field} has an object '{found.label}', expected one of {', '.join(roles)}; mend its annotation."
        raise CohortError(msg)
    return found._replace(role=roles[found.label])


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image, from its header alone; ``CohortError`` where it cannot be read."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, UnidentifiedImageError) as error:
        msg = f"The size of {path} cannot be read, which its annotation needs ({error}); get the file anew."
        raise CohortError(msg) from None
