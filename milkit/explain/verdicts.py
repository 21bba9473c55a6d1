"""What ``faithfulness.json`` says of a run, for whoever shows its cells: which rankings are not to be believed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milkit.errors import RunError
from milkit.runs import read_json

FORMAT, VERSION = "milkit-faithfulness", 1
VERDICTS = "faithfulness.json"


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The content of ``faithfulness.json``; ``milkit.explain.verb.explain`` says what it holds."""

    told: Mapping[str, Any]

    @classmethod
    def load(cls, run: Path) -> "Verdicts | None":
        """Of a run folder; None where `milkit explain` was not called, and a ``RunError`` for a newer format."""
        path = run / VERDICTS
        if not path.is_file():
            return None
        told = read_json(path)
        if told.get("format") != FORMAT or int(told.get("version", 0)) > VERSION:
            what = f"{told.get('format', 'no format')}, version {told.get('version', 'unknown')}"
            msg = f"{path} holds {what}, expected {FORMAT}, version {VERSION} or lower; read it with a newer milkit."
            raise RunError(msg)
        return cls(told)

    @property
    def target(self) -> str | None:
        """The name of the target that was explained; None where the run is on the cohort's classes."""
        target = self.told.get("target")
        return str(target["name"]) if target else None

    def faithful(self, method: str = "attention") -> bool | None:
        """Whether the ranking beats random ones over the patients; None where the method was not asked for."""
        found = self.told["methods"].get(method)
        return None if found is None else bool(found["faithful"])

    def of_patients(self, method: str = "attention") -> dict[str, bool]:
        """The same for the ranking of each patient, by patient id."""
        return {row["patient_id"]: bool(row["faithful"]) for row in self.told["patients"] if row["method"] == method}

    def sentence(self, method: str = "attention") -> str:
        """What to write beside cells that were ranked by ``method``; empty where it was not asked for."""
        found = self.told["methods"].get(method)
        if found is None:
            return ""
        what = "adding and taking away cells in this order moves the prediction"
        beaten = f"it beats {found['beats_random']} of {found['n_random']} random orders"
        if found["faithful"]:
            return f"Faithful: {what} more than chance does ({beaten})."
        return f"Not faithful: {what} no more surely than chance does ({beaten})."
