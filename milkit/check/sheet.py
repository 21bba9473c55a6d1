"""The contact sheet of a check: one offline page with the worst cells of each finding, everything escaped."""

import contextlib
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from milkit.check.findings import Finding, Flag
from milkit.check.verb import Check
from milkit.errors import ImageError
from milkit.images import data_uri, read_bytes, read_cell

SHOWN = 24
"""Cells of a flag that are shown: some rows of a screen, a few hundred kB."""
SIDE = 160
"""Longest side of a picture, pixels; the pictures are reduced and only for looking at."""

_WORST: dict[Flag, tuple[str, bool, str]] = {
    "damaged": ("tear", False, "breaks off by {:.0f} grey levels"),
    "blank": ("brightest", True, "brightest value {:.0f}"),
    "flat": ("contrast", True, "{:.0f} grey levels"),
    "clipped": ("clipped", False, "{:.0%} white or black"),
    "blurred": ("sharpness", True, "sharpness {:.1f}"),
    "field": ("side", False, "{:.0f} pixels"),
}
"""By flag the measure that says how bad it is, whether low is bad, and how it is written under a picture."""

_REFERENCES = {"copy_of": "copy of", "elsewhere": "also"}
"""Columns of the table of cells that name another cell."""


class Picture(NamedTuple):
    """One cell on the sheet: a ``data:`` URI (empty where there is no picture), and the lines under it."""

    cell_id: str
    uri: str
    lines: list[str]


class Section(NamedTuple):
    """The findings that share a flag, how many cells have it, and the worst of them."""

    flag: str
    findings: list[Finding]
    n_cells: int
    pictures: list[Picture]


def contact_sheet(check: Check) -> str:
    """The page, as HTML. It has the ids of the cohort's own table, no path, and loads nothing."""
    flags: list[Flag] = list(dict.fromkeys(finding.flag for finding in reversed(check.findings) if finding.flag))
    plain = [finding for finding in reversed(check.findings) if not finding.flag]
    return _template().render(
        cohort=check.cohort.name,
        n_cells=len(check.cells),
        plain=plain,
        sections=[_section(check, flag) for flag in flags],
    )


def _section(check: Check, flag: Flag) -> Section:
    cells = check.cells[[flag in flags.split() for flags in check.cells["flags"]]]
    cells = cells.assign(clipped=cells[["white", "black"]].max(axis=1), side=cells[["width", "height"]].max(axis=1))
    if flag in _WORST:
        cells = cells.sort_values(_WORST[flag][0], ascending=_WORST[flag][1], kind="stable")
    elif flag != "unreadable":  # copies stand behind what they are copies of
        cells = cells.assign(first=cells["copy_of"].fillna(cells["cell_id"])).sort_values("first", kind="stable")
    findings = [finding for finding in reversed(check.findings) if finding.flag == flag]
    pictures = [_picture(check.cohort.root, cell, flag) for cell in cells.head(SHOWN).to_dict("records")]
    return Section(flag, findings, len(cells), pictures)


def _picture(root: Path, cell: dict[Any, Any], flag: Flag) -> Picture:
    lines = [f"patient {cell['patient_id']}"] if isinstance(cell["patient_id"], str) else []
    lines += [text for name in ("cell_type", "reason") if isinstance(text := cell.get(name), str)]
    lines += [f"{word} {text}" for name, word in _REFERENCES.items() if isinstance(text := cell[name], str)]
    if flag in _WORST:
        measure, _, form = _WORST[flag]
        lines.append(form.format(cell[measure]))
    uri = ""
    with contextlib.suppress(ImageError):
        box = cell.get("box")
        uri = data_uri(read_cell(read_bytes(root, cell["path"]), box if isinstance(box, str) else ""), reduce_to=SIDE)
    return Picture(cell["cell_id"], uri, lines)


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("sheet.html.j2")
