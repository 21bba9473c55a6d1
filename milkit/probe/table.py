"""The tables of `milkit probe` as text: the layout of the paper's, an interval below every figure."""

from collections.abc import Mapping, Sequence
from typing import Any

from milkit.statistics.cell_intervals import METRICS

_SHORT = {"weighted_f1": "wF1", "accuracy": "Acc", "balanced_accuracy": "bAcc"}
_CELL = 11
"""Width of a figure's column: an interval such as 100.0-100.0."""


def probe_tables(result: Mapping[str, Any]) -> str:
    """What a person reads of ``probe.json``: what was done, the table in per cent, differences, few-shot curves."""
    parts = [_heading(result), _table(result)]
    parts += [_differences(result)] if result["differences"] else []
    parts += [_few_shot(result)] if any(encoder["few_shot"] for encoder in result["encoders"].values()) else []
    parts += [_published(result["published"])] if result["published"] else []
    return "\n\n".join(parts)


def _heading(result: Mapping[str, Any]) -> str:
    split, unit = result["split"], result["unit"]
    if split["kind"] == "folds":
        kept = "patients" if unit == "patients" else "fields" if unit == "fields" else "copies of an image"
        how = f"{split['folds']} stratified folds (seed {split['seed']}), {kept} in one fold"
    else:
        how = f"the split {split['file']}"
    left_out = ", ".join(f"{n} {reason}" for reason, n in result["left_out"].items() if n)
    level, drawn = f"{100 * result['level']:g} %", unit if unit == "cells" else f"{result['n_units']} {unit}"
    lines = [
        f"{result['cohort']}: {result['n_tested']} cells tested of {result['n_cells']} in {len(result['classes'])} "
        f"classes, by {how}",
        f"cells left out: {left_out or 'none'}",
        f"per cent, with the {level} interval over {drawn}{_assumption(unit)}; balanced accuracy by chance "
        f"{100 * result['chance_balanced_accuracy']:.1f}",
        *(f"note: {note}" for note in result["notes"]),
    ]
    for name, encoder in result["encoders"].items():
        linear = encoder["linear"]
        if linear["not_converged"]:
            lines.append(
                f"note: {linear['not_converged']} of {linear['trainings']} linear probes of {name} stopped at their "
                "last iteration, as in the paper's evaluation, before they had converged."
            )
    return "\n".join(lines)


def _assumption(unit: str) -> str:
    return {
        "cells": ", as if each were independent: too narrow where patients are behind them",
        "fields": ", as if no two were of one patient",
        "patients": "",
    }[unit]


def _table(result: Mapping[str, Any]) -> str:
    classifiers = list(next(iter(result["encoders"].values()))["classifiers"])
    published = (result["published"] or {}).get("rows", {})
    names = [*result["encoders"], *(f"{name} (published)" for name in published)]
    width = max(len(name) for name in names) + 2
    group = _CELL * len(METRICS)
    lines = [
        " " * width + "".join(name.center(group) for name in classifiers),
        " " * width + "".join(_SHORT[metric].rjust(_CELL) for metric in METRICS) * len(classifiers),
    ]
    for name, encoder in result["encoders"].items():
        figures = [encoder["classifiers"][classifier][metric] for classifier in classifiers for metric in METRICS]
        lines.append(name.ljust(width) + "".join(_percent(figure["estimate"]).rjust(_CELL) for figure in figures))
        lines.append(" " * width + "".join(_interval(figure).rjust(_CELL) for figure in figures))
    for name, row in published.items():
        values = [value for classifier in classifiers for value in row.get(classifier, [None] * len(METRICS))]
        texts = ["-" if value is None else f"{value:.1f}" for value in values]
        lines.append(f"{name} (published)".ljust(width) + "".join(text.rjust(_CELL) for text in texts))
    return "\n".join(line.rstrip() for line in lines)


def _differences(result: Mapping[str, Any]) -> str:
    lines = [f"balanced accuracy less that of {result['reference']}, on the same cells, in percentage points:"]
    for name, classifiers in result["differences"].items():
        for classifier, metrics in classifiers.items():
            figure = metrics["balanced_accuracy"]
            low, high = 100 * figure["ci_low"], 100 * figure["ci_high"]
            lines.append(f"  {name}, {classifier}: {100 * figure['estimate']:+.1f} ({low:+.1f} to {high:+.1f})")
    return "\n".join(lines)


def _few_shot(result: Mapping[str, Any]) -> str:
    points = {name: encoder["few_shot"] for name, encoder in result["encoders"].items()}
    shots = sorted({point["shots"] for own in points.values() for point in own})
    draws = next(iter(points.values()))[0]["draws"]
    width = max(len(name) for name in points) + 9
    lines = [
        f"balanced accuracy with a few training cells of each class, mean of {draws} draws and what "
        f"{100 * result['level']:g} % of them lie between:",
        " " * width + "".join(str(number).rjust(_CELL) for number in shots),
    ]
    for name, own in points.items():
        for classifier in dict.fromkeys(point["classifier"] for point in own):
            curve = [point["balanced_accuracy"] for point in own if point["classifier"] == classifier]
            lines.append(
                f"{name}, {classifier}".ljust(width) + "".join(_percent(v["mean"]).rjust(_CELL) for v in curve)
            )
            spans = [f"{100 * value['low']:.1f}-{100 * value['high']:.1f}" for value in curve]
            lines.append(" " * width + "".join(span.rjust(_CELL) for span in spans))
    return "\n".join(lines)


def _published(published: Mapping[str, Any]) -> str:
    rows = "" if published["rows"] else " (no figure of it is filled in)"
    differs: Sequence[str] = published["differs"]
    return "\n".join([f"published: {published['source']}{rows}", *(f"  differs: {text}" for text in differs)])


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _interval(figure: Mapping[str, Any]) -> str:
    return f"{100 * figure['ci_low']:.1f}-{100 * figure['ci_high']:.1f}"
