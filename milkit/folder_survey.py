"""What a folder holds that could be a cohort: images by the shape of their paths, tables, and which belong together.

Nothing here is certain: ``milkit cohort init`` writes it down as a guess for a person to correct.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from milkit import archives
from milkit.clinical_tables import TABLE_SUFFIXES, plain, read_table, sheet_names
from milkit.cohort import is_image
from milkit.errors import CohortError, ImageError

MAX_TABLE_BYTES = 50 * 2**20
"""A larger table is none of patients."""
MAX_ALIKE = 50
"""Tables of one suffix in one folder; more of them belong to an image each."""
MIN_IDS = 2
UNIQUE = 0.9
"""Of a column of ids that names a row each; a blank or two may be among them."""
MIN_SHARE = 0.5
"""Of the folders (or of the beginnings of file names) that must occur in a column of ids."""

_HEADER_BYTES = 4096
"""Of a text, to see whether its first line has a separator."""
_ARCHIVE = re.compile(r".+\.(?:zip|tar)", re.IGNORECASE)
_PREFIX = re.compile(r"(.+)([_ -])[^_ -]+")
"""Of a file name that begins with an id: the id, and what separates it from the rest."""


class Table(NamedTuple):
    """A table of the folder: its path relative to it, its sheet where it has several, and its values as text."""

    path: str
    sheet: str | None
    values: pd.DataFrame


class Images(NamedTuple):
    """The images whose paths have the commonest shape.

    Attributes:
        separators: Between the parts of a path: slashes, and ``::`` behind an archive.
        levels: For each part but the last, the names there, one for each image, without an archive's suffix.
        archive: The suffix of the archives among the parts, or nothing.
        stems: The names of the files without suffix.
        suffixes: Their suffixes.
        others: Images of another shape.
    """

    separators: tuple[str, ...]
    levels: tuple[tuple[str, ...], ...]
    archive: str
    stems: tuple[str, ...]
    suffixes: tuple[str, ...]
    others: int


class Owner(NamedTuple):
    """Where a patient's id stands: the level of the path (None: in front of the file name), and the column with ids.

    ``matched`` of ``names`` occur in the column; ``separator`` ends an id in front of a file name.
    """

    level: int | None
    separator: str
    table: Table
    column: str
    matched: int
    names: int


def find_images(folder: Path) -> list[str]:
    """Paths of the images below a folder, relative to it; where there is none, of those inside its archives."""
    files = list(_files(folder))
    images = [path for path in files if is_image(Path(path))]
    if images:
        return images
    return [
        f"{path}{archives.SEPARATOR}{member}"
        for path in files
        if _ARCHIVE.fullmatch(path)
        for member in _members(folder / path)
        if is_image(Path(member))
    ]


def find_tables(folder: Path) -> list[Table]:
    """Every table below a folder that can be read, every sheet of an Excel file by itself.

    Texts whose first line has no separator are none, nor are tables that belong to an image each.
    """
    found = []
    paths = [folder / name for name in _files(folder) if _may_be_table(folder / name)]
    alike = Counter((path.parent, path.suffix.lower()) for path in paths)
    for path in paths:
        if alike[path.parent, path.suffix.lower()] > MAX_ALIKE:
            continue
        sheets: list[str | None] = [*sheet_names(path)]
        for sheet in sheets or [None]:
            try:
                values = read_table(path, sheet=sheet)
                found.append(Table(path.relative_to(folder).as_posix(), sheet, values))
            except CohortError:  # a text that is no table; whoever means it will be told when it is named
                continue
    return found


def shape(paths: Iterable[str]) -> Images:
    """Take apart the paths of the commonest shape."""
    parts = [re.split(r"(::|/)", path) for path in paths]
    commonest = Counter(tuple(path[1::2]) for path in parts).most_common(1)[0][0]
    alike = [path[0::2] for path in parts if tuple(path[1::2]) == commonest]
    levels, suffix = [], ""
    for number, separator in enumerate(commonest):
        names = [path[number] for path in alike]
        if separator == archives.SEPARATOR:
            names, suffix = [Path(name).stem for name in names], Path(names[0]).suffix
        levels.append(tuple(names))
    files = [Path(path[-1]) for path in alike]
    return Images(
        commonest,
        tuple(levels),
        suffix,
        tuple(file.stem for file in files),
        tuple(file.suffix for file in files),
        len(parts) - len(alike),
    )


def find_owner(images: Images, tables: Sequence[Table]) -> Owner | None:
    """The column whose values are the names at some level of the paths; None where no table fits.

    Of several, one that names each row once comes first, then the one that most names occur in, then the one with most
    names, then the deepest level: a class folder is above its patients.
    """
    places: list[tuple[int | None, str, Sequence[str]]] = [(n, "", names) for n, names in enumerate(images.levels)]
    prefixes = [match for stem in images.stems if (match := _PREFIX.fullmatch(stem))]
    if len(prefixes) == len(images.stems) and len({match[2] for match in prefixes}) == 1:
        places.append((None, prefixes[0][2], [match[1] for match in prefixes]))
    columns = [(table, str(name), Counter(map(plain, table.values[name]))) for table in tables for name in table.values]
    found: list[tuple[tuple[bool, float, int, int], Owner]] = []
    for level, separator, names in places:
        distinct = set(map(plain, names))
        for table, column, values in columns:
            matched = len(distinct & values.keys())
            share = matched / len(distinct)
            if matched >= MIN_IDS and share >= MIN_SHARE:
                depth = len(images.levels) if level is None else level
                rank = (len(values) >= UNIQUE * values.total(), share, len(distinct), depth)
                found.append((rank, Owner(level, separator, table, column, matched, len(distinct))))
    return max(found, key=lambda candidate: candidate[0])[1] if found else None


def owners(images: Images, owner: Owner) -> list[str]:
    """The id of each image's patient, as ``milkit.clinical_tables.plain`` makes it."""
    if owner.level is not None:
        return [plain(name) for name in images.levels[owner.level]]
    return [plain(stem.rpartition(owner.separator)[0]) for stem in images.stems]


def _files(folder: Path) -> Iterator[str]:
    """All files below a folder but hidden ones, relative to it; linked folders are followed, once."""
    seen = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = [] if real in seen else sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        if real not in seen:
            relative = Path(place).relative_to(folder)
            yield from ((relative / name).as_posix() for name in sorted(files) if not name.startswith("."))
        seen.add(real)


def _may_be_table(path: Path) -> bool:
    if path.suffix.lower() not in TABLE_SUFFIXES or path.name.startswith("~") or not path.is_file():
        return False
    if path.stat().st_size > MAX_TABLE_BYTES or path.suffix.lower() != ".txt":
        return path.stat().st_size <= MAX_TABLE_BYTES
    with path.open("rb") as file:
        header, _, _ = file.read(_HEADER_BYTES).partition(b"\n")
    return any(separator in header for separator in b",;\t")


def _members(archive: Path) -> list[str]:
    try:
        return archives.members(archive)
    except ImageError:
        return []
