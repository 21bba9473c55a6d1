"""What is wrong with a recipe or a flag, in the words of a person: where it stands, and what was probably meant."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError


def explain(
    error: ValidationError,
    path: Path | None,
    text: str,
    overrides: Mapping[str, Any],
    known: Mapping[str, set[str]],
) -> str:
    """All faults of settings, a line each.

    Args:
        error: What pydantic found.
        path: Of the recipe, if there is one.
        text: Its content.
        overrides: What the command line gave, by dotted key.
        known: Names of the settings of each class.
    """
    lines = _lines(yaml.compose(text)) if text else {}
    faults = []
    for fault in error.errors():
        keys = tuple(str(part) for part in fault["loc"])
        name = ".".join(keys)
        if name in overrides or path is None:
            where = "command line"
        else:
            line = next((lines[keys[:n]] for n in range(len(keys), -1, -1) if keys[:n] in lines), 1)
            where = f"{path}:{line}"
        what = "there is no such setting" if fault["type"] == "extra_forbidden" else fault["msg"]
        faults.append(f"{where}: {name}: {what}{_nearest(keys, fault, error, known)}")
    return "\n".join(faults)


def _lines(node: yaml.Node | None, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], int]:
    lines = {path: node.start_mark.line + 1} if node else {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*path, str(key.value))
            lines |= _lines(value, below) | {below: key.start_mark.line + 1}
    return lines


def _nearest(keys: tuple[str, ...], fault: Any, error: ValidationError, known: Mapping[str, set[str]]) -> str:
    import difflib

    if fault["type"] != "extra_forbidden":
        return ""
    names = {name for settings, own in known.items() if settings == error.title or len(keys) > 1 for name in own}
    near = difflib.get_close_matches(keys[-1], sorted(names), n=1)
    return f"; did you mean '{near[0]}'?" if near else ""
