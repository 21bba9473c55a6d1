"""One sentence about a cohort, and how urgent it is."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.errors import first_rows

Level = Literal["note", "warning", "error"]

Flag = Literal[
    "unreadable",
    "damaged",
    "blank",
    "flat",
    "clipped",
    "blurred",
    "field",
    "conflict",
    "copy",
    "near_copy",
    "elsewhere",
    "near_elsewhere",
]
"""What can be said of one cell; a cell may have several."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about a cohort; only an ``error`` must be mended before a study.

    Attributes:
        level: ``note``, ``warning`` or ``error``.
        subject: What the sentence is about: the cohort, a class, or a cell.
        text: The sentence.
        flag: The cells that it is about have this flag in the table of cells; empty where it is about no cell.
    """

    level: Level
    subject: str
    text: str
    flag: Flag | None = None


class Verdict(NamedTuple):
    """A finding, and the rows of the table of cells that it is about."""

    finding: Finding
    rows: npt.NDArray[np.int64]


def by_level(findings: Iterable[Finding]) -> list[Finding]:
    """Notes first, errors last, where a terminal shows them."""
    return sorted(findings, key=lambda finding: get_args(Level).index(finding.level))


def counted(number: int, noun: str, singular: str, plural: str) -> str:
    """``1 image has``, ``2,000 images have``: the number, the noun, and the verb that fits."""
    return f"{number:,} {noun} {singular}" if number == 1 else f"{number:,} {noun}s {plural}"


def listed(names: Iterable[str], number: int) -> str:
    """The first few of ``number`` names, which are made only as far as they are shown, and how many more there are."""
    some = list(islice(names, 6))
    return first_rows(some + [""] * (number - len(some)))


def cell_name(cell_id: str, patient_id: Any) -> str:
    """A cell, and the patient it belongs to if there is one."""
    return f"cell {cell_id}" if pd.isna(patient_id) else f"patient {patient_id}, cell {cell_id}"
