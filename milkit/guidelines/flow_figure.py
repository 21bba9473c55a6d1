"""The flow of patients as a figure (STARD 2015, item 19): who was enrolled, left out and why, and tested.

Boxes below each other, exclusions at the side, the classes at the end. Written as SVG text, which a page holds and a
manuscript can take.
"""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

from milkit.guidelines.sentences import Figure
from milkit.guidelines.study import SOURCE, Study
from milkit.patient_flow import flow_table

BOX, SIDE, BETWEEN = 330, 300, 90
LETTERS_BOX, LETTERS_SIDE = 42, 38
MARGIN = 4
MIDDLE = MARGIN + BOX // 2
LINE, PAD, GAP = 20, 12, 34
FLOW_NOTE = "note of the patient flow,"
"""How the place of its numbers begins."""
INK, EDGE, FILL, ACCENT = "#1b2430", "#8a96a3", "#ffffff", "#dcebf1"


class Step(NamedTuple):
    """A box: ``enrolled``, ``excluded``, ``analysed``, ``tested`` or ``class``, …; what it says; how many."""

    kind: str
    text: str
    patients: Figure
    samples: Figure | None = None


def flow_steps(study: Study) -> list[Step]:
    """From the cohort's notes where it declares rules, and from the folds of the run."""
    steps = []
    notes = [str(note) for note in study.files[SOURCE].get("notes") or ()]
    for row in flow_table(notes).to_dict("records"):
        what = f"{FLOW_NOTE} {row['step']}{': ' if row['reason'] else ''}{row['reason']}"
        samples = row.get("samples")
        steps.append(
            Step(
                str(row["step"]),
                str(row["reason"]),
                study.count(SOURCE, what, int(row["patients"])),
                None if samples is None else study.count(SOURCE, f"{what}, samples", int(samples)),
            )
        )
    store, tested = len(study.store.patients), len(study.tested)
    if not steps:
        steps.append(Step("in the data", "", study.count("patients.csv of the store", "rows", store)))
    if store > tested:
        left = study.count("folds.csv", "patients of the store without a row of role test", store - tested)
        steps.append(Step("excluded", "in no test fold of this run", left))
    what = "different patient_id with role test"
    steps.append(Step("tested", "by models that had not seen them", study.count("folds.csv", what, tested)))
    if study.labels is not None and study.class_table is not None:
        counts = study.labels.reindex(study.tested).value_counts()
        for name in study.classes:
            number = int(counts.get(name, 0))
            steps.append(
                Step(
                    "class", name, study.count(study.class_table[0], f"different patient_id with label {name}", number)
                )
            )
    return steps


def flow_svg(steps: Sequence[Step]) -> str:
    """The figure; every text from data is escaped."""
    parts, excluded = list[Markup](), list[Step]()
    bottom = 0
    for step in steps:
        if step.kind == "excluded":
            excluded.append(step)
        elif step.kind != "class":
            y = bottom + GAP if bottom else MARGIN
            if bottom:
                side, below = _exclusions(excluded, bottom + GAP // 2)
                y, excluded = max(y, below), []
                parts += [_arrow(MIDDLE, bottom, MIDDLE, y), *side]
            lines = _lines(step, LETTERS_BOX)
            parts.append(_box(MARGIN, y, BOX, lines, fill=FILL if step.kind == "analysed" else ACCENT))
            bottom = y + _height(lines)
    if classes := [f"{step.text}: {_patients(step.patients)}" for step in steps if step.kind == "class"]:
        lines = [part for line in classes for part in textwrap.wrap(line, LETTERS_BOX, subsequent_indent="   ")]
        parts += [_arrow(MIDDLE, bottom, MIDDLE, bottom + GAP)]
        parts += [_box(MARGIN, bottom + GAP, BOX, ["By class", *lines], fill=FILL)]
        bottom += GAP + _height(["", *lines])
    height = bottom + MARGIN
    width = BOX + 2 * MARGIN + (BETWEEN + SIDE if any(step.kind == "excluded" for step in steps) else 0)
    title = "Flow of patients: " + "; ".join(
        f"{step.kind} {step.text}".strip() + f" {step.patients.text}" for step in steps
    )
    return str(
        Markup(
            '<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{}" viewBox="0 0 {} {}" width="{}" '
            'height="{}" font-family="DejaVu Sans, Arial, sans-serif" font-size="13.5" fill="{}">{}</svg>\n'
        ).format(title, width, height, width, height, INK, Markup("\n").join(parts))
    )


def _exclusions(steps: Sequence[Step], y: int) -> tuple[list[Markup], int]:
    """Boxes at the side from ``y`` on, and where the next box of the middle may begin."""
    parts = []
    for step in steps:
        lines = _lines(step, LETTERS_SIDE)
        height = _height(lines)
        parts.append(_arrow(MIDDLE, y + height // 2, BOX + BETWEEN, y + height // 2))
        parts.append(_box(BOX + BETWEEN, y, SIDE, lines, fill=FILL))
        y += height + GAP // 2
    return parts, y + GAP // 4


def _lines(step: Step, letters: int) -> list[str]:
    counts = _patients(step.patients)
    if step.samples is not None:
        counts += f", {step.samples.text} sample{'' if step.samples.value == 1 else 's'}"
    return [f"{step.kind.capitalize()}: {counts}", *textwrap.wrap(step.text, letters)]


def _patients(figure: Figure) -> str:
    return f"{figure.text} patient{'' if figure.value == 1 else 's'}"


def _height(lines: Sequence[str]) -> int:
    return LINE * len(lines) + 2 * PAD - 4


def _box(x: int, y: int, width: int, lines: Sequence[str], *, fill: str) -> Markup:
    texts = Markup("").join(
        Markup('<text x="{}" y="{}"{}>{}</text>').format(
            x + PAD, y + PAD + 10 + LINE * number, Markup(' font-weight="bold"') if not number else "", escape(line)
        )
        for number, line in enumerate(lines)
    )
    return Markup('<rect x="{}" y="{}" width="{}" height="{}" rx="6" fill="{}" stroke="{}"/>{}').format(
        x, y, width, _height(lines), fill, EDGE, texts
    )


def _arrow(x: int, y: int, to_x: int, to_y: int) -> Markup:
    """A line with a head, to the right or down."""
    head = (
        f"{to_x - 7},{to_y - 4} {to_x},{to_y} {to_x - 7},{to_y + 4}"
        if to_x > x
        else f"{to_x - 4},{to_y - 7} {to_x},{to_y} {to_x + 4},{to_y - 7}"
    )
    return Markup(
        '<path d="M{} {}L{} {}" stroke="{}" fill="none" stroke-width="1.5"/><polygon points="{}" fill="{}"/>'
    ).format(x, y, to_x, to_y, EDGE, head, EDGE)
