"""How many patients were enrolled, excluded for which reason, and analysed: what STARD's flow diagram shows.

A cohort carries the steps as sentences among its notes, which every store keeps; ``flow_table`` reads them back. STARD:
Bossuyt et al., BMJ 2015; 351: h5527, item 19.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd

_SENTENCE = re.compile(
    r"Patient flow: ([\d,]+) "
    r"(?:(enrolled|analysed)(?:; samples: ([\d,]+))?"
    r"|(excluded) \((.+)\), ([\d,]+) left(?:; samples: ([\d,]+) excluded, ([\d,]+) left)?)\.",
    re.DOTALL,
)


class Exclusion(NamedTuple):
    """One step: why patients were excluded, how many, and how many were left.

    Where patients have several samples, which a step may take away while their patient stays, these are counted too.
    """

    reason: str
    patients: int
    left: int
    samples: int | None = None
    samples_left: int | None = None


def flow_notes(enrolled: int, exclusions: Sequence[Exclusion], samples: int | None = None) -> tuple[str, ...]:
    """The steps as sentences, from enrolled to analysed; ``samples`` is how many were enrolled, where that matters."""
    analysed, samples_analysed = (
        (exclusions[-1].left, exclusions[-1].samples_left) if exclusions else (enrolled, samples)
    )
    return (
        f"Patient flow: {enrolled:,} enrolled{_samples(samples)}.",
        *(
            f"Patient flow: {step.patients:,} excluded ({step.reason}), {step.left:,} left"
            f"{_samples(step.samples, step.samples_left)}."
            for step in exclusions
        ),
        f"Patient flow: {analysed:,} analysed{_samples(samples_analysed)}.",
    )


def flow_table(notes: Iterable[str]) -> pd.DataFrame:
    """The steps that are among a cohort's notes, in the columns ``step``, ``reason``, ``patients`` and ``left``.

    A step is enrolled, excluded or analysed. Where samples were counted there are ``samples`` and ``samples_left``,
    too. Empty where the cohort declares no inclusion and no exclusion.
    """
    rows = []
    for match in filter(None, map(_SENTENCE.fullmatch, notes)):
        patients, whole, samples, excluded, reason, left, samples_out, samples_left = match.groups()
        counts = (patients, left or patients, samples or samples_out, samples or samples_left)
        rows.append((whole or excluded, reason or "", *map(_count, counts)))
    table = pd.DataFrame(rows, columns=["step", "reason", "patients", "left", "samples", "samples_left"])
    counted = len(table) and table["samples"].notna().all()
    return table if counted else table.drop(columns=["samples", "samples_left"])


def without_flow(notes: Iterable[str]) -> list[str]:
    """The notes that are no step of the flow, for a reader who is shown the steps otherwise."""
    return [note for note in notes if not _SENTENCE.fullmatch(note)]


def _samples(number: int | None, left: int | None = None) -> str:
    if number is None:
        return ""
    return f"; samples: {number:,}" + ("" if left is None else f" excluded, {left:,} left")


def _count(text: str | None) -> int | None:
    return None if text is None else int(text.replace(",", ""))
