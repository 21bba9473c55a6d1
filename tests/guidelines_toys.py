"""A small finished run for the tests of guideline drafts: trained for a moment on simulated features."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from toys import make_store, toy_patients

from milkit.guidelines.answers import ANSWERS
from milkit.guidelines.questions import QUESTIONS
from milkit.mil.crossval import cross_validate
from milkit.patient_flow import Exclusion, flow_notes
from milkit.settings import MilSettings, dump, load

FLOW = flow_notes(25, [Exclusion("no smear was made", 5, 20), Exclusion("too few cells", 2, 18)])


def patients() -> pd.DataFrame:
    """Those of ``toys`` with sex and site, one sex and two ages missing, a time and an event."""
    table = toy_patients()
    table["sex"] = ["F", "M", "F", "F", "M", None] * 3
    table["site"] = ["A", "A", "B"] * 6
    table.iloc[[0, 7], table.columns.get_loc("age")] = np.nan
    table["time"] = np.arange(len(table)) * 10.0 + 30
    table["event"] = [1.0, 0.0, 1.0] * 6
    return table


def make_run(root: Path, table: pd.DataFrame | None = None, *, notes: tuple[str, ...] = FLOW, **given: Any) -> Path:
    """Train for two epochs on the patients, and return the run folder; ``given`` are settings."""
    own = patients() if table is None else table
    store = make_store(root / "toy.zarr", own, cohort="toy", encoder_seen=["toy"])
    (store.path / "source.json").write_text(json.dumps({"root": None, "notes": list(notes), "encoder_note": ""}))
    settings = {"folds": 3, "bootstrap": 100, "training": {"max_epochs": 2}, "store": store.path, "seed": 1}
    path = root / "recipe.yaml"
    path.write_text(yaml.safe_dump(json.loads(json.dumps(settings | given, default=str))))
    run = root / "runs" / "first"
    cross_validate(store, load(MilSettings, path, {}), run)
    assert dump(load(MilSettings, run / "settings.yaml", {}))
    return run


def answer_all(run: Path, text: str = "Not applicable: invented.") -> None:
    """Write an answer to every question."""
    (run / ANSWERS).write_text(yaml.safe_dump(dict.fromkeys(QUESTIONS, text), allow_unicode=True), encoding="utf-8")


def pages(run: Path) -> dict[str, str]:
    """Every page of the drafts, by its name."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted((run / "report" / "guidelines").iterdir())}


def at(values: Any, pointer: str) -> Any:
    """What stands at a JSON pointer, read as RFC 6901 says."""
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        values = values[int(key)] if isinstance(values, list) else values[key]
    return values


def quoted(page: str) -> list[tuple[str, str]]:
    """Anchor and text of every number that a page quotes."""
    return re.findall(r'<a class="number" href="numbers\.html#([^"]+)"[^>]*>([^<]*)</a>', page)
