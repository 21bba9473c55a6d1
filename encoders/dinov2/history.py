"""The figures of a training as a table that grows: ``history.csv``."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from encoders.dinov2.pretrain_settings import PretrainSettings
from milkit.errors import RunError
from milkit.runs import write_text

STEP = "step"
"""The first column of the table."""


class History:
    """Rows of named figures at steps: ``history.csv`` in a folder, one writer at a time.

    What ``add`` was given is in the file when it returns, so that a process that is killed then loses nothing; one that
    is killed within it tears the last line at most. A step may have several rows, as losses and an evaluation are told
    apart. Figures that a row does not have are empty; a new name gets a column, for which the table is written anew.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        """Open the table to go on at ``step``: rows from there on, and a torn last line, are cut off.

        Raises:
            RunError: If the file there is no table of figures.
        """
        self.path = folder / "history.csv"
        rows = _read(self.path)
        self._names = list(rows[0]) if rows else [STEP]
        kept = [row for row in rows[1:] if int(row[0]) < step]
        write_text(self.path, _lines([self._names, *kept]))

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """Append a row."""
        new = [name for name in figures if name not in self._names]
        if new:
            self._widen(new)
        values = {name: f"{value:.9g}" for name, value in figures.items()} | {STEP: str(step)}
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(_lines([[values.get(name, "") for name in self._names]]))

    def draw(self, settings: PretrainSettings | None = None) -> None:
        """Draw the table beside it, ``curves.svg`` and ``curves.png``, as ``encoders.dinov2.curves`` says."""
        from encoders.dinov2.curves import draw_curves  # matplotlib, which a training needs now and then, if at all

        draw_curves(self.path, settings)

    def _widen(self, new: list[str]) -> None:
        rows = _read(self.path)
        self._names += new
        write_text(self.path, _lines([self._names, *(row + [""] * len(new) for row in rows[1:])]))


def _lines(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _read(path: Path) -> list[list[str]]:
    """The header and all whole rows; nothing where there is no file, or not even a whole header."""
    if not path.exists():
        return []
    whole, _, _ = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")
    rows = list(csv.reader(io.StringIO(whole)))
    for number, row in enumerate(rows, start=1):
        begins = bool(row) and (row[0] == STEP if number == 1 else row[0].isdecimal())
        if not begins or len(row) != len(rows[0]):
            msg = (
                f"Line {number} of {path} is not one of a training's figures, which begin with a step and are as many "
                "as the header's names; mend the line, or move the file away."
            )
            raise RunError(msg)
    return rows
