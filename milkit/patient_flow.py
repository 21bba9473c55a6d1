"""How many patients were enrolled, excluded for which reason, and analysed: what STARD's flow diagram shows.

A cohort carries the steps as sentences among its notes, which every store keeps; ``flow_table`` reads them back. STARD:
Bossuyt et al., BMJ 2015; 351: h5527, item 19.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd

_SENTENCE = re.compile(
    r"Patient flow: ([\d,]+) (?:(enrolled|analysed)|(excluded) \((.+)\), ([\d,]+) left)\.", re.DOTALL
)


class Exclusion(NamedTuple):
    """One step: why patients were excluded, how many, and how many were left."""

    reason: str
    patients: int
    left: int


def flow_notes(enrolled: int, exclusions: Sequence[Exclusion]) -> tuple[str, ...]:
    """The steps as sentences, from enrolled to analysed."""
    analysed = exclusions[-1].left if exclusions else enrolled
    return (
        f"Patient flow: {enrolled:,} enrolled.",
        *(f"Patient flow: {step.patients:,} excluded ({step.reason}), {step.left:,} left." for step in exclusions),
        f"Patient flow: {analysed:,} analysed.",
    )


def flow_table(notes: Iterable[str]) -> pd.DataFrame:
    """The steps that are among a cohort's notes, in the columns ``step``, ``reason``, ``patients`` and ``left``.

    A step is enrolled, excluded or analysed. Empty where the cohort declares no inclusion and no exclusion.
    """
    rows = []
    for match in filter(None, map(_SENTENCE.fullmatch, notes)):
        patients, whole, excluded, reason, left = match.groups()
        rows.append((whole or excluded, reason or "", _count(patients), _count(left or patients)))
    return pd.DataFrame(rows, columns=["step", "reason", "patients", "left"])


def _count(text: str) -> int:
    return int(text.replace(",", ""))
