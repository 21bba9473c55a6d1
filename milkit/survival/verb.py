"""VERB run -> survival/: what held-out predictions say of the time until an event, as figures, tables and sentences."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit import survival_figures as draw
from milkit.errors import SettingsError
from milkit.runs import provenance, write_json, write_text
from milkit.statistics.intervals import without_nan
from milkit.statistics.out_of_fold import Resamples
from milkit.survival import warn
from milkit.survival.cox import cox_model
from milkit.survival.curves import (
    curve_table,
    group_summaries,
    log_rank,
    median_follow_up,
    numbers_at_risk,
    round_times,
)
from milkit.survival.outcome import Outcome, read_outcome
from milkit.survival.predicted import GROUPS, Risks, class_groups, predicted_survival, relative_risks, risk_groups
from milkit.survival.scores import brier_scores, brier_times, calibration, concordance
from milkit.survival.terms import make_terms
from milkit.tables import write_table

FORMAT, VERSION = "milkit-survival", 1
RESULT = "survival.json"


class Analysed(NamedTuple):
    """What ``<run>/survival/`` holds.

    Attributes:
        result: The content of ``survival.json``.
        tables: By name, without ``.csv``.
    """

    result: dict[str, Any]
    tables: dict[str, pd.DataFrame]


def write_survival(
    run: Path,
    *,
    horizon: float | None = None,
    covariates: Sequence[str] = (),
    n_groups: int = 2,
    follow_up: Path | None = None,
) -> dict[str, Any]:
    """Analyse a run's survival, see ``analyse_survival``, and write ``<run>/survival/`` in the place of an earlier one.

    The folder holds ``survival.json`` (written last), the tables ``patients.csv``, ``curves.csv``, ``at_risk.csv``,
    ``cox.csv``, ``brier.csv`` and ``calibration.csv``, and the figures ``kaplan-meier.svg``, ``brier.svg`` and
    ``survival-calibration.svg``; what cannot be computed has no file.

    Returns:
        The content of ``survival.json``.
    """
    analysed = analyse_survival(run, horizon=horizon, covariates=covariates, n_groups=n_groups, follow_up=follow_up)
    _write(run / "survival", analysed)
    return analysed.result


def analyse_survival(
    run: Path,
    *,
    horizon: float | None = None,
    covariates: Sequence[str] = (),
    n_groups: int = 2,
    follow_up: Path | None = None,
) -> Analysed:
    """Set the predictions of a run against its patients' survival, without writing anything.

    Patients are grouped by the predicted class, or by the risk in a survival run.

    Args:
        run: A folder with ``predictions.csv``; times and events stand there or in the patients of its store.
        horizon: The time at which survival is judged, in units of ``time``; without it the median of the times.
        covariates: Columns of the store's patients that Cox's model has beside the prediction.
        n_groups: Two or three groups of risk.
        follow_up: A CSV table with patient_id, time and event, which goes over those that the run knows of.

    Returns:
        In ``result``: ``kind`` (classes or risk), ``n_patients``, ``n_events``, ``n_left_out``, ``repeats``,
        ``horizon``, ``horizon_given``, ``median_follow_up``, ``groups``, ``log_rank``, ``c_index`` (of
        risks), ``brier``, ``calibration``, ``cox``, ``covariates_missing``, ``warnings`` and ``notes``.

    Raises:
        RunError: See ``read_outcome``.
        SettingsError: A horizon that no patient has reached or before any event, a number of groups, a covariate, or
            the table of the follow-up.
    """
    if n_groups not in GROUPS:
        msg = f"{n_groups} groups of risk were asked for; give --groups 2 (halves) or 3 (thirds)."
        raise SettingsError(msg)
    outcome = read_outcome(run, follow_up)
    chosen = _horizon(outcome, horizon)
    risks = None if outcome.classes else relative_risks(outcome)
    groups, names = class_groups(outcome) if risks is None else risk_groups(risks.position, n_groups)
    names = tuple(name for name in names if (groups == name).any())
    terms, missing, told = make_terms(outcome, risks, groups, covariates)
    cox, more = cox_model(outcome, terms, outcome.settings.level)
    curves = curve_table(outcome.time, outcome.event, groups, names, outcome.settings.level)
    scores, tables = _scores(outcome, risks, chosen)
    result: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        **provenance(),
        "follow_up_sha256": None if follow_up is None else hashlib.sha256(follow_up.read_bytes()).hexdigest(),
        "predictions_sha256": hashlib.sha256(outcome.source.read_bytes()).hexdigest(),
        **_facts(outcome, chosen),
        "horizon_given": horizon is not None,
        "groups": group_summaries(curves, chosen),
        "log_rank": log_rank(outcome.time, outcome.event, groups),
        **scores,
        "cox": cox,
        "covariates_missing": missing,
    }
    result["warnings"] = warn.of_data(outcome, chosen) + warn.of_groups(result["groups"]) + told + more
    result["warnings"] += _missing_covariates(missing) + warn.of_scores(result)
    result["notes"] = warn.methods(outcome, risks, has_survival=scores["brier"] is not None)
    tables["curves"] = curves
    tables["at_risk"] = numbers_at_risk(outcome.time, groups, names, round_times(float(outcome.time.max())))
    tables["patients"] = _patient_table(outcome, groups, risks)
    if cox:
        tables["cox"] = _cox_table(cox["terms"])
    return Analysed(without_nan(result), tables)


def _horizon(outcome: Outcome, asked: float | None) -> float:
    time, first = outcome.time, float(outcome.time[outcome.event].min())
    if asked is None:
        return outcome.middle
    if not first < asked <= time.max():
        msg = (
            f"The horizon {asked:g} was given, expected one after the first event, at {first:g}, and up to the last "
            f"follow-up, at {time.max():g}, in the units of the patients' time; give another --horizon."
        )
        raise SettingsError(msg)
    return asked


def _facts(outcome: Outcome, horizon: float) -> dict[str, Any]:
    settings = outcome.settings
    return {
        "kind": "classes" if outcome.classes else "risk",
        "n_patients": len(outcome.patients),
        "n_events": int(outcome.event.sum()),
        "n_left_out": outcome.left_out,
        "repeats": outcome.repeats,
        "level": settings.level,
        "n_bootstrap": settings.bootstrap,
        "seed": settings.seed,
        "horizon": horizon,
        "median_follow_up": median_follow_up(outcome.time, outcome.event),
    }


def _scores(outcome: Outcome, risks: Risks | None, horizon: float) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:
    """c-index, Brier score and calibration, None where they cannot be had, and the tables of the last two."""
    settings, at = outcome.settings, brier_times(horizon)
    strata = np.zeros(len(outcome.patients), dtype=np.int64)
    resamples = Resamples.of(strata, settings.bootstrap, settings.level, settings.seed)
    scores: dict[str, Any] = {
        "c_index": None if risks is None else concordance(outcome, risks, horizon, resamples),
        "brier": None,
        "calibration": None,
    }
    predicted = predicted_survival(outcome, risks, at)
    if predicted is None:
        return scores, {}
    scores["brier"], by_time = brier_scores(outcome, *predicted, at, resamples)
    scores["calibration"] = calibration(outcome, predicted[0][:, -1], horizon, resamples)
    return scores, {
        "brier": pd.DataFrame({"time": at, **by_time}),
        "calibration": pd.DataFrame(scores["calibration"]["groups"]),
    }


def _missing_covariates(missing: dict[str, int]) -> list[str]:
    return [
        f"{count} patients lack the covariate {name} and are left out of Cox's model."
        for name, count in missing.items()
        if count
    ]


def _patient_table(outcome: Outcome, groups: npt.NDArray[np.object_], risks: Risks | None) -> pd.DataFrame:
    table = outcome.patients[["time", "event"]].astype({"event": int}).rename_axis("patient_id").assign(group=groups)
    if risks is not None:
        table = table.assign(relative_risk=risks.mean, position=risks.position)
    return table.reset_index()


def _write(folder: Path, analysed: Analysed) -> None:
    """Put the results in the place of earlier ones; ``survival.json`` goes first and comes back last."""
    result, tables = analysed
    folder.mkdir(exist_ok=True)
    names = [RESULT, "brier.csv", "calibration.csv", "cox.csv", "brier.svg", "survival-calibration.svg"]
    for name in names:
        (folder / name).unlink(missing_ok=True)
    for name, table in tables.items():
        write_table(folder / f"{name}.csv", table)
    write_text(folder / "kaplan-meier.svg", draw.kaplan_meier(tables["curves"], tables["at_risk"], result))
    if result["brier"]:
        write_text(folder / "brier.svg", draw.brier_over_time(tables["brier"], result["brier"]))
        calibrated = draw.calibration_at_horizon(tables["calibration"], result["horizon"])
        write_text(folder / "survival-calibration.svg", calibrated)
    write_json(folder / RESULT, result)


def _cox_table(terms: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row a term; intervals as columns of their own."""
    rows = []
    for term in terms:
        row = {key: term[key] for key in ("term", "unit", "coefficient", "p", "p_proportional")}
        for key in ("hazard_ratio", "early", "late"):
            found = term[key] or {}
            row |= {key: found.get("estimate"), f"{key}_low": found.get("ci_low"), f"{key}_high": found.get("ci_high")}
        rows.append(row)
    return pd.DataFrame(rows)
