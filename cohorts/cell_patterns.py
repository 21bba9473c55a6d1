"""Cells found by a pattern of paths, in folders and in archives, or listed in a table.

    smears/{patient_id}/{cell_id}.png
    data/*/{patient_id}/{sample_id}/image_{cell_id}.tif          # a star is any text without a slash
    smears.zip::{patient_id}/{cell_id}.png                       # inside an archive, see milkit.archives
    zips/{patient_id}.zip::{cell_type}/{cell_id}.png             # or one for each patient

A field that occurs again must have the same text there. Capitals do not matter, so that ``.PNG`` is found too. What is
returned has the columns ``path``, ``cell_id`` as in the pattern, and of ``patient_id``, ``sample_id``, ``cell_type``
(and, from a table, ``box``) those that are there.
"""

import glob
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath

import pandas as pd

from cohorts.clinical_tables import ClinicalTable, Column, plain, read_table
from milkit import archives
from milkit.cohort import is_image
from milkit.errors import CohortError, ImageError, first_rows
from milkit.images import parse_box

FIELDS = frozenset({"patient_id", "sample_id", "cell_id", "cell_type"})


def cells_by_pattern(root: Path, pattern: str) -> pd.DataFrame:
    """The images below ``root`` whose path fits; ``CohortError`` where none does, or the pattern is no pattern."""
    fields = set(re.findall(r"{(\w*)}", pattern))
    if pattern.startswith("/"):
        msg = f"The pattern '{pattern}' is absolute, expected one below the root; give the folder with --root."
        raise CohortError(msg)
    if not fields <= FIELDS or "cell_id" not in fields or not fields & {"patient_id", "sample_id"}:
        msg = (
            f"The pattern '{pattern}' has the fields {sorted(fields)}; expected {{patient_id}} and {{cell_id}} in it, "
            "and where there are such {sample_id} and {cell_type}."
        )
        raise CohortError(msg)
    expression = re.compile(_expression(pattern), re.IGNORECASE)
    rows = []
    for path in _candidates(root, pattern):
        if match := expression.fullmatch(path):
            rows.append({"path": path, **match.groupdict()})
    if not rows:
        msg = f"No image below {root} matches the pattern '{pattern}'; check --root and the recipe's `images`."
        raise CohortError(msg)
    return pd.DataFrame(rows, dtype=object)


def cells_by_table(path: Path, columns: Mapping[str, Column | None]) -> pd.DataFrame:
    """The cells that a table lists: ``cell_id``, ``path``, ``patient_id`` or ``sample_id``, as the recipe calls them.

    A column may have our name, too, where the recipe has another for the table of patients. Paths may have
    backslashes.
    """
    raw = read_table(path)
    names = {name: columns.get(name) or Column(column=name) for name in ("patient_id", "sample_id", "cell_id", "path")}
    known = {
        name: Column(column=name) if column.column not in raw and name in raw else column
        for name, column in names.items()
    }
    known |= {name: columns.get(name) or Column(column=name) for name in ("cell_type", "box")}
    rows = [f"row {row + 2}" for row in raw.index]
    table = ClinicalTable(path, raw, known, rows)
    owners = [name for name in ("patient_id", "sample_id") if (known[name].column or name) in raw]
    needed = ["cell_id", "path", *(owners or ["patient_id"])]
    cells = pd.DataFrame({name: table.text(name) for name in needed})
    cells["path"] = cells["path"].str.replace("\\", "/")
    for name in ("cell_type", "box"):
        if (known[name].column or name) in raw:
            text = table.text(name)
            cells[name] = text.mask(text == "") if name == "cell_type" else text
    if blank := [rows[row] for row in cells.index[(cells[needed] == "").any(axis=1)]]:
        msg = f"{path} lacks {', '.join(needed)} in {first_rows(blank)}, expected in every row; complete the table."
        raise CohortError(msg)
    boxes: Iterable[str] = cells.get("box", [])
    if wrong := [f"'{box}' ({row})" for row, box in zip(rows, boxes, strict=False) if not _is_box(box)]:
        msg = f"{path} has the boxes {first_rows(wrong)}, expected `left top width height` in whole pixels; mend them."
        raise CohortError(msg)
    return cells


def identified(cells: pd.DataFrame) -> pd.DataFrame:
    """The cells under ids that are unique in the cohort: ``<patient>/<cell>``, or ``<patient>/<sample>/<cell>``."""
    owners = [cells[name] for name in ("patient_id", "sample_id") if name in cells]
    names = ["/".join(parts) for parts in zip(*owners, cells["cell_id"].map(plain), strict=True)]
    cells = cells.assign(cell_id=pd.Series(names, index=cells.index, dtype=object))
    return cells[["cell_id", "patient_id", "path", *cells.columns.difference(["cell_id", "patient_id", "path"])]]


def _candidates(root: Path, pattern: str) -> Iterator[str]:
    """Paths of images, relative to the root, that the pattern may fit."""
    inside = archives.split(pattern)
    outer = inside[0] if inside else pattern
    for path in root.glob(_wildcards(outer)):
        relative = path.relative_to(root)
        if not inside:
            if is_image(relative):
                yield relative.as_posix()
        elif re.fullmatch(_expression(outer), relative.as_posix(), re.IGNORECASE) and path.is_file():
            for member in _members(path):
                if is_image(Path(member)):
                    yield f"{relative.as_posix()}{archives.SEPARATOR}{member}"


def _members(archive: Path) -> list[str]:
    try:
        return archives.members(archive)
    except ImageError as error:
        msg = f"{archive} was given as an archive of images, and {error}; mend it, or unpack it."
        raise CohortError(msg) from None


def _wildcards(pattern: str) -> str:
    """The pattern as a glob of the folders in it and of all files in them, as a suffix may be in capitals."""
    folders = "*".join(glob.escape(part) for part in re.split(r"{\w+}|\*", str(PurePosixPath(pattern).parent)))
    return f"{folders}/*" if folders != "." else "*"


def _expression(pattern: str) -> str:
    """The pattern as a regular expression: a field or a star is any text without a slash; a repeated field repeats."""
    seen: set[str] = set()
    parts = []
    for part in re.split(r"({\w+}|\*)", pattern):
        name = part[1:-1]
        if part == "*":
            parts.append("[^/]*")
        elif part.startswith("{") and name in seen:
            parts.append(f"(?P={name})")
        elif part.startswith("{"):
            seen.add(name)
            parts.append(f"(?P<{name}>[^/]+)")
        else:
            parts.append(re.escape(part))
    return "".join(parts)


def _is_box(text: str) -> bool:
    try:
        return not text or bool(parse_box(text))
    except ImageError:
        return False
