"""The pages of an atlas: all that comes from data is text in them, and their one script is named by its digest."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from jinja2 import Environment

from milkit.atlas.cells import Chosen
from milkit.atlas.map_sentences import TITLES
from milkit.report.templates import offline_templates

_HERE = Path(__file__).parent

MARKS = 28
"""Categories that colour and shape tell apart; where there are more, the rarest are one."""


def map_page(facts: Mapping[str, Any], data: str, pictures: Sequence[str], note: str) -> str:
    """The page of a map.

    Args:
        facts: ``atlas.json``.
        data: From ``page_data``.
        pictures: (n,) WebP in base64 in the same order, empty where there is none.
        note: How the pictures differ from the images.
    """
    return (
        _templates()
        .get_template("atlas.html.j2")
        .render(
            facts=facts,
            data=data,
            pictures=" ".join(picture or "-" for picture in pictures),
            note=note,
            title=f"Cells of {facts['cohort']}",
        )
    )


def patches_page(facts: Mapping[str, Any], cells: Sequence[Mapping[str, Any]]) -> str:
    """The page of patch pictures; ``cells`` have cell_id, patient_id, image and components (``data:`` URIs)."""
    return _templates().get_template("patches.html.j2").render(facts=facts, cells=cells)


def page_data(chosen: Chosen, points: npt.NDArray[np.float64]) -> str:
    """What the page's script draws, as JSON: patients, cells and colourings by column."""
    table = chosen.table
    numbers, names = pd.factorize(table["patient_id"])
    first = table.drop_duplicates("patient_id").set_index("patient_id")
    label = first["class"] if "class" in first else pd.Series(index=first.index, dtype=object)
    patients = [
        {"id": str(name), "label": _text(label[name]), "role": TITLES[first.loc[name, "role"]]} for name in names
    ]
    values = {
        "patients": patients,
        "ids": table["cell_id"].astype(str).tolist(),
        "patient": numbers.tolist(),
        "x": points[:, 0].tolist(),
        "y": points[:, 1].tolist(),
        "colours": [_colouring(column, title, table[column]) for column, title in chosen.colours.items()],
        "weight": [_rounded(value) for value in table["weight"]] if "weight" in table else None,
    }
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def _colouring(column: str, title: str, values: "pd.Series[Any]") -> dict[str, Any]:
    """Numbers with their range, or categories by frequency with the position of each cell's, -1 where it has none."""
    if pd.api.types.is_float_dtype(values):
        found = values.dropna()
        low, high = (float(found.min()), float(found.max())) if len(found) else (0.0, 0.0)
        if column == "percentile":
            low, high = 0.0, 100.0
        return {"title": title, "low": low, "high": high, "of": [_rounded(value) for value in values]}
    if column == "role":
        names, codes = list(TITLES.values()), values.map({role: n for n, role in enumerate(TITLES)}).astype(int)
        return {"title": title, "names": names, "of": codes.tolist()}
    counts = values.dropna().astype(str).value_counts()
    names = [str(name) for name in counts.sort_index().sort_values(ascending=False, kind="stable").index]
    kept = names if len(names) <= MARKS else [*names[: MARKS - 1], f"{len(names) - MARKS + 1} others"]
    position = {name: min(number, len(kept) - 1) for number, name in enumerate(names)}
    return {"title": title, "names": kept, "of": [-1 if pd.isna(v) else position[str(v)] for v in values]}


def _text(value: Any) -> str:
    return "" if pd.isna(value) else str(value)


def _rounded(value: float) -> float | None:
    return None if pd.isna(value) else float(f"{value:.5g}")


@lru_cache(maxsize=1)
def _templates() -> Environment:
    return offline_templates(_HERE, "atlas.js", "atlas.css")
