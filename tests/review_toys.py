"""A run whose classes, ids and paths are words that can be searched for, and readers who label its cells."""

import json
import runpy
from pathlib import Path
from typing import Any

CLASSES = ("control", "NPM1", "PML_RARA")
PATIENTS = tuple(f"Mueller-{number}-study" for number in range(1, 10))

make_run = runpy.run_path(str(Path(__file__).with_name("test_report.py")))["make_run"]


def review_run(root: Path) -> Path:
    """Nine patients of three classes with twelve cells each."""
    run: Path = make_run(root, classes=CLASSES, patients=PATIENTS)
    return run


def key_of(made: Any) -> dict[str, Any]:
    """The content of a review's key."""
    values: dict[str, Any] = json.loads(made.key.read_text(encoding="utf-8"))
    return values


def save_json(path: Path, made: Any, labels: dict[str, str], reader: str = "A", **other: Any) -> Path:
    """What the page saves for a reader who gave these labels by code."""
    rows = [{"code": code, "label": label, "comment": "", "time": ""} for code, label in labels.items()]
    values = {"format": "milkit-review", "version": 1, "review": made.review, "reader": reader, "cells": rows}
    path.write_text(json.dumps(values | other), encoding="utf-8")
    return path
