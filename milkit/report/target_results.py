"""A finished run on survival, numbers or several targets, read from disk for the report."""

from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from milkit.explain.verdicts import Verdicts
from milkit.predictions import SHARED, Attention, Predictions, prediction_files
from milkit.runs import read_json
from milkit.survival.outcome import Outcome, read_outcome
from milkit.survival.predicted import Risks, relative_risks

KEYS = ["patient_id", "repeat", "fold"]


class ShownTarget(NamedTuple):
    """One target of a run.

    Attributes:
        name: Of the target.
        kind: ``survival``, ``discrete-survival``, ``regression`` or ``classes``.
        table: Rows of its predictions.
        metrics: Its figures.
        controls: What ``controls.json`` has of it; empty where there is nothing.
        outcome: Of survival, who was followed how long.
    """

    name: str
    kind: str
    table: pd.DataFrame
    metrics: Mapping[str, Any]
    controls: Mapping[str, Any]
    outcome: Outcome | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Of a target of classes."""
        return tuple(name[2:] for name in map(str, self.table) if name.startswith("p_"))

    @property
    def patients(self) -> pd.DataFrame:
        """One row a patient, numbers averaged over the repeats. Index patient_id."""
        numbers = self.table.drop(columns=["repeat", "fold"]).groupby("patient_id")
        mean = numbers.mean(numeric_only=True)
        if self.classes:
            mean["label"] = numbers["label"].first()
            highest = mean[[f"p_{name}" for name in self.classes]].to_numpy().argmax(axis=1)
            mean["predicted"] = [self.classes[c] for c in highest]
        return mean

    def risks(self) -> Risks | None:
        """Of survival, the risks on one scale."""
        return None if self.outcome is None else relative_risks(self.outcome)


def read_targets(run: Path) -> tuple[ShownTarget, ...]:
    """The targets of a run that is reported by target; none where it is one of classes alone."""
    named = figures_by_target(run)
    if not named:
        return ()
    path = run / "controls.json"
    controls = read_json(path).get("targets", {}) if path.is_file() else {}
    targets = []
    for file, (name, figures) in zip(prediction_files(list(named)), named.items(), strict=True):
        table = Predictions.load(run / file, any_target=True).table
        outcome = read_outcome(run, source=run / file) if "risk" in table else None
        kind = figures["target"]["kind"]
        targets.append(ShownTarget(name, kind, table, figures, controls.get(name, {}), outcome))
    return tuple(targets)


def figures_by_target(run: Path) -> Mapping[str, Any]:
    """The figures of each target of a run that is reported by target; nothing where it is one of classes alone."""
    metrics = read_json(run / "metrics.json") if (run / "metrics.json").is_file() else {}
    several: Mapping[str, Any] = metrics.get("targets") or {}
    own = metrics.get("target")
    if several or own is None or own["kind"] == "classes":
        return several
    return {own["name"]: metrics}


def all_predictions(targets: tuple[ShownTarget, ...]) -> Predictions:
    """All predictions in one table without classes: of one target its own, of several with the target's name before.

    One row a patient and repeat; what is not known of a patient is missing.
    """
    if len(targets) == 1:
        return Predictions(targets[0].table, ())
    tables = [
        target.table.rename(columns={name: f"{target.name}: {name}" for name in target.table if name not in KEYS})
        for target in targets
    ]
    joined = reduce(lambda first, second: first.merge(second, on=KEYS, how="outer"), tables)
    return Predictions(joined.sort_values(["repeat", "patient_id"], ignore_index=True), ())


def told_of_patients(targets: tuple[ShownTarget, ...]) -> pd.DataFrame:
    """What happened and what was predicted, in words: ``label`` and ``predicted`` of each tested patient."""
    parts: dict[str, dict[str, list[str]]] = {}
    for target in targets:
        for patient, (label, predicted) in _told(target).items():
            own = parts.setdefault(patient, {"label": [], "predicted": []})
            prefix = f"{target.name}: " if len(targets) > 1 else ""
            own["label"].append(prefix + label)
            own["predicted"].append(prefix + predicted)
    rows = {patient: {key: "; ".join(texts) for key, texts in own.items()} for patient, own in parts.items()}
    return pd.DataFrame.from_dict(rows, orient="index").sort_index().rename_axis("patient_id")


def shown_branch(attention: Attention, patients: pd.DataFrame, verdicts: Verdicts | None) -> "pd.Series[str]":
    """Whose attention orders the cells, for each patient: what all outputs share, or that of one output.

    It is the first output of the target that was explained, or of the first target.
    """
    names = list(dict.fromkeys(attention.table["class"].astype(str)))
    target = verdicts.target if verdicts else None
    own = [name for name in names if target and name.startswith(f"{target}: ")]
    branch = SHARED if SHARED in names or not names else (own or names)[0]
    return pd.Series(branch, index=patients.index, dtype=object)


def _told(target: ShownTarget) -> dict[str, tuple[str, str]]:
    patients = target.patients
    if target.classes:
        return {str(name): (str(row["label"]), str(row["predicted"])) for name, row in patients.iterrows()}
    risks = target.risks()
    if risks is None:
        return {str(name): (f"{row['label']:.4g}", f"{row['predicted']:.4g}") for name, row in patients.iterrows()}
    assert target.outcome is not None
    followed, found = target.outcome.patients, {}
    for name, time, event, share in zip(
        followed.index, target.outcome.time, target.outcome.event, risks.position, strict=True
    ):
        label = f"event at {time:g}" if event else f"followed to {time:g} without event"
        found[str(name)] = label, f"risk above that of {100 * float(share):.0f} % of patients"
    return found
