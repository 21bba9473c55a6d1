"""The tables of `milkit probe` as text: the layout of the paper's, an interval below every figure."""

from collections.abc import Mapping, Sequence
from typing import Any

from milkit.statistics.cell_intervals import METRICS

_SHORT = {"weighted_f1": "wF1", "accuracy": "Acc", "balanced_accuracy": "bAcc"}
_CELL = 11
"""Width of a figure's column: an interval such as 100.0-100.0."""


def probe_tables(result: Mapping[str, Any]) -> str:
    """What a person reads of ``probe.json``: what was done, the tables, differences, few-shot curves."""
    parts = [_heading(result), _table(result)]
    parts += [_in_taxonomy(result)] if result["hierarchy"] else []
    parts += [_differences(result)] if result["differences"] else []
    parts += [_few_shot(result)] if any(encoder["few_shot"] for encoder in result["encoders"].values()) else []
    parts += [_published(result["published"])] if result["published"] else []
    return "\n\n".join(parts)


def _heading(result: Mapping[str, Any]) -> str:
    split, unit = result["split"], result["unit"]
    if split["kind"] == "folds":
        kept = unit.replace("cells", "copies of an image")
        how = f"{split['folds']} stratified folds (seed {split['seed']}), {kept} in one fold"
    elif split["kind"] == "column":
        part = "test" if "test" in split else "folds"
        how = f"the column {split['column']} ({part}: {', '.join(split[part])})"
    else:
        how = f"the split {split['file']}"
    left_out = ", ".join(f"{n} {reason}" for reason, n in result["left_out"].items() if n)
    level, drawn = f"{100 * result['level']:g} %", unit if unit == "cells" else f"{result['n_units']} {unit}"
    lines = [
        f"{result['cohort']}: {result['n_tested']} cells tested of {result['n_cells']} in {len(result['classes'])} "
        f"classes, by {how}",
        f"cells left out: {left_out or 'none'}",
        f"per cent, with the {level} interval over {drawn}; balanced accuracy by chance "
        f"{100 * result['chance_balanced_accuracy']:.1f}",
        *([f"the intervals are {result['assumption']}"] if result["assumption"] else []),
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


def _in_taxonomy(result: Mapping[str, Any]) -> str:
    """How far off mistakes are in the tree; a depth at which all cells are of one class says nothing."""
    about, level = result["hierarchy"], f"{100 * result['level']:g} %"
    depths = {f"depth {own['depth']}": own for own in about["levels"]}
    columns = ["height", "path_f1", *(f"balanced_accuracy_depth_{own['depth']}" for own in depths.values())]
    rows = {
        f"{name}, {classifier}": [metrics[column] for column in columns]
        for name, encoder in result["encoders"].items()
        for classifier, metrics in encoder["classifiers"].items()
    }
    width = max(len(name) for name in rows) + 2
    lines = [
        f"in the taxonomy '{about['taxonomy']}', with the {level} interval: mean height of mistakes over all cells (0 "
        f"to {about['highest']} edges,",
        "the lower the better), hierarchical F1, and balanced accuracy at each depth that has several classes, in per "
        "cent:",
        " " * width + "".join(title.rjust(_CELL) for title in ("height", "hF1", *depths)),
        "classes".ljust(width + 2 * _CELL) + "".join(str(own["n_classes"]).rjust(_CELL) for own in depths.values()),
        "cells".ljust(width + 2 * _CELL) + "".join(str(own["n_cells"]).rjust(_CELL) for own in depths.values()),
    ]
    for name, (height, *shares) in rows.items():
        values = [f"{height['estimate']:.2f}", *(_percent(share["estimate"]) for share in shares)]
        spans = [f"{height['ci_low']:.2f}-{height['ci_high']:.2f}", *(_interval(share) for share in shares)]
        lines += [name.ljust(width) + "".join(value.rjust(_CELL) for value in values)]
        lines += [" " * width + "".join(span.rjust(_CELL) for span in spans)]
    lines.append(
        "rank correlation of the classes' distances in the tree and in the features (range, each class left out once):"
    )
    for name, encoder in result["encoders"].items():
        lines.append(f"  {name}: {_correlation(encoder['feature_correlation'])}")
    return "\n".join(lines)


def _correlation(found: Mapping[str, Any]) -> str:
    if found["estimate"] is None:
        return f"none, of {found['n_classes']} classes"
    spread = "" if found["lowest"] is None else f" ({found['lowest']:.2f} to {found['highest']:.2f})"
    return f"{found['estimate']:.2f}{spread}"


def _differences(result: Mapping[str, Any]) -> str:
    also = ", and height of mistakes" if result["hierarchy"] else ""
    lines = [f"balanced accuracy less that of {result['reference']}, on the same cells, in percentage points{also}:"]
    for name, classifiers in result["differences"].items():
        for classifier, metrics in classifiers.items():
            gap = [100 * metrics["balanced_accuracy"][key] for key in ("estimate", "ci_low", "ci_high")]
            line = "  {}, {}: {:+.1f} ({:+.1f} to {:+.1f})".format(name, classifier, *gap)
            if result["hierarchy"]:
                gap = [metrics["height"][key] for key in ("estimate", "ci_low", "ci_high")]
                line += "; height {:+.2f} ({:+.2f} to {:+.2f})".format(*gap)
            lines.append(line)
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
