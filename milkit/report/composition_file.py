"""The run's ``composition.json``, which ``milkit.composition.verb`` makes and documents, read and refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from milkit.errors import RunError
from milkit.explain.question import read_question
from milkit.runs import read_json

COMPOSITION, FORMAT, VERSION = "composition.json", "milkit-composition", 1
TYPES = ("differential.csv", "enrichment.csv")
"""The tables beside it, in which no text is a formula of a spreadsheet."""


def read_composition(run: Path) -> Mapping[str, Any]:
    """The run's ``composition.json``, empty where there is none; one of other predictions is a ``RunError``."""
    path = run / COMPOSITION
    if not path.is_file():
        return {}
    found = read_json(path)
    if found.get("format") != FORMAT or int(found.get("version", 0)) > VERSION:
        what = f"{found.get('format', 'no format')}, version {found.get('version', 'unknown')}"
        msg = f"{path} holds {what}, expected {FORMAT}, version {VERSION} or lower; read it with a newer milkit."
        raise RunError(msg)
    target = found.get("target")
    predicted = read_question(run, target["name"] if target else None).predicted
    if {one["patient_id"]: one["class"] for one in found["patients"]} != {str(k): str(v) for k, v in predicted.items()}:
        msg = (
            f"{path} is of other patients or predictions than those of the run; make it again with `milkit "
            f"differential {run}`."
        )
        raise RunError(msg)
    return found
