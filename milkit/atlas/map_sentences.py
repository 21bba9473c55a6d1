"""What a map of cells says to a person about how it was made and how far it can be believed."""

from collections.abc import Mapping
from typing import Any

ISLANDS = (
    "A map keeps neighbours, not distances: how far apart islands lie, how large they are and how they are turned "
    "means little, and a cell between two islands need not be a form between two kinds."
)
TITLES = {"train": "training", "validation": "validation", "test": "held out"}
"""What people call the roles."""
_KINDS = TITLES | {"test": "held-out"}
"""The same before `patients`."""


def describe(facts: Mapping[str, Any]) -> list[str]:
    """The facts of ``atlas.json`` as sentences."""
    return [
        *_patients(facts),
        f"At most {facts['cells_each']:,} cells of a patient are shown, drawn at random with seed {facts['seed']}: "
        f"{facts['n_cells']:,} of {facts['n_cells_of_store']:,}{_left_out(facts)}. Counts and shares are of these.",
        _trust(facts),
        ISLANDS,
        *_attention(facts),
    ]


def picture_note(facts: Mapping[str, Any]) -> str:
    """How the pictures differ from the images."""
    told = facts["pictures"]
    if not told["shown"]:
        return "This page has no pictures of the cells: the images were not found when it was made."
    what = "Pictures are compressed" + (
        f", and {told['reduced']:,} of {told['shown']:,} reduced to {told['side']} px" if told["reduced"] else ""
    )
    lacking = [
        f"{n:,} {reason}"
        for reason, n in (("could not be read", told["unreadable"]), ("did not fit", told["left_out"]))
        if n
    ]
    lost = f" {' and '.join(lacking)}, and have none." if lacking else ""
    return f"{what}; judge morphology on the images themselves.{lost}"


def _patients(facts: Mapping[str, Any]) -> list[str]:
    roles, fitted = facts["roles"], facts["fitted_cells"]
    training, others = roles["train"], [role for role in ("validation", "test") if role in roles]
    whole = fitted == training["cells"]
    cells = f"{fitted:,} cells" if whole else f"{fitted:,} of the {training['cells']:,} cells"
    first = f"UMAP was fitted on {cells} of {training['patients']:,} training patients ({facts['divided']})"
    told = " and ".join(f"{roles[role]['patients']:,} {_KINDS[role]}" for role in others)
    placed = [] if whole else ["their other cells"]
    placed += [f"those of {told} patients" if placed else f"cells of {told} patients"] if others else []
    sentences = [f"{first}."]
    if placed:
        text = " and ".join(placed)
        sentences = [
            f"{first}. {text[0].upper()}{text[1:]} were placed into it one patient at a time, so that no other point "
            "depends on them."
        ]
    if not others:
        sentences.append("Nobody is held out, so the map cannot show how it fits patients that it has not seen.")
    return sentences


def _left_out(facts: Mapping[str, Any]) -> str:
    reasons = []
    if facts["patients_not_shown"]:
        reasons.append(f"{_so_many(facts['patients_not_shown'])} of the store without a role or a readable cell")
    if facts["unreadable_when_extracted"]:
        n = facts["unreadable_when_extracted"]
        reasons.append(f"{n:,} cell{'' if n == 1 else 's'} that could not be read")
    return f" (not shown: {' and '.join(reasons)})" if reasons else ""


def _trust(facts: Mapping[str, Any]) -> str:
    told = [
        f"{measure['value']:.2f} for cells of {_KINDS[role]} patients"
        for role, measure in facts["trustworthiness"].items()
        if measure["value"] is not None
    ]
    figures = ", ".join(told) or "unknown, as there are too few cells"
    return (
        f"Trustworthiness is {figures}: 1 where all neighbours on the map are neighbours among the features, 0.5 where "
        "points lie at random."
    )


def _attention(facts: Mapping[str, Any]) -> list[str]:
    if not facts["attention"]:
        return []
    return [
        "The percentile of attention comes from models that had not seen the patient: 100 is the cell of the patient "
        "that the model weighs most, which does not make it diagnostic."
    ]


def _so_many(n: int) -> str:
    return f"{n:,} patient{'' if n == 1 else 's'}"
