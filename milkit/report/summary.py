"""The first screen in plain sentences: what was asked, what came out, and what should make a reader careful."""

from typing import NamedTuple

from milkit import figure_text
from milkit.bags import seen_in_pretraining
from milkit.mil.tuning import sentence
from milkit.patient_flow import without_flow
from milkit.report.results import Results

FEW_PATIENTS = 20
"""Below this many patients, a class's recall has an interval about 0.4 wide."""
FEW_CELLS = 100
"""A manual differential counts at least as many."""


class Headline(NamedTuple):
    """Balanced accuracy, None where it is undefined. ``context`` follows the estimate: interval and chance."""

    estimate: float | None
    low: float | None
    high: float | None
    chance: float
    context: str


def headline(results: Results) -> Headline:
    """The one number that is quoted, with its interval and what guessing would reach."""
    metric = results.metrics.get("balanced_accuracy", {})
    estimate, low, high = (metric.get(key) for key in ("estimate", "ci_low", "ci_high"))
    chance = 1 / max(len(results.classes), 1)
    if estimate is None:
        return Headline(None, None, None, chance, "")
    interval = "" if low is None or high is None else f"({results.level} CI {low:.2f} to {high:.2f}), "
    return Headline(estimate, low, high, chance, f"{interval}chance {chance:.2f}")


def question(results: Results) -> str:
    """What was asked, of how many patients and cells."""
    counts = results.patients["label"].value_counts()
    classes = listed([f"{name} ({counts.get(name, 0)})" for name in results.classes])
    return (
        f"Can a patient's class be told from images of single blood cells alone? The cohort {results.cohort} has "
        f"{len(results.patients):,} tested patients with {len(results.cells):,} cells in "
        f"{len(results.classes)} classes: {classes}."
    )


def method(results: Results) -> list[str]:
    """How the answer was found: encoder, head, folds, intervals."""
    table, settings = results.folds.table, results.settings
    folds, repeats = table.groupby("repeat")["fold"].nunique().max(), table["repeat"].nunique()
    repeated = f", repeated {repeats} times with new folds" if repeats > 1 else ""
    seeds = f", {settings.seeds} trainings a fold with averaged predictions" if settings.seeds > 1 else ""
    resamples = results.metrics.get("n_bootstrap")
    kind = "BCa" if str(results.metrics.get("intervals", "")).startswith("BCa") else "percentile"
    intervals = (
        f" The {results.level} intervals come from {resamples:,} resamples of patients within their classes ({kind} "
        "bootstrap); recall, and figures that no resample changes, have Wilson's interval. Models are not retrained "
        "within resamples, so training variance is not included."
        if resamples
        else ""
    )
    note = str(results.source.get("encoder_note") or "")
    what = dict(results.store.attributes.get("encoder_made_of") or {}).get("description")
    if len(results.encoders) > 1:
        names = listed([str(own["encoder"]) for own in results.encoders])
        encoder = f"The encoders {names} turned every cell into features, and each training part chose one."
    elif results.imported:
        encoder = f"The features of every cell were imported; their encoder is called {results.encoder}."
    else:
        encoder = f"The encoder {results.encoder}{f', {what},' if what else ''} turned every cell into features."
    tried = results.metrics.get("tuning")
    tuned = f" {sentence(tried)} The tested patients had no part in these choices." if tried else ""
    return [
        f"{encoder} {note}".strip(),
        f"The head {' or '.join(results.heads)} learned from whole patients in {folds}-fold "
        f"cross-validation{repeated}{seeds}: "
        f"every patient was predicted only by models that had not seen this patient.{tuned}",
        "This is internal validation: predictions are out-of-fold and the patient, not the cell, is what is counted. "
        f"It does not say how the models would do on another hospital's patients, stain or microscope.{intervals}",
    ]


def warnings(results: Results, n_shown: int, n_unreadable: int) -> list[str]:
    """What should make a reader careful, one sentence each.

    Args:
        results: The run.
        n_shown: Images that the report shows.
        n_unreadable: Images among them that could not be read while the report was made.
    """
    faults = [*_about_encoder(results), *_about_labels(results), *_about_result(results), *_about_sizes(results)]
    faults += [*_about_attention(results), *_about_order(results)]
    if failed := results.metrics.get("warning"):
        faults.insert(0, str(failed))
    if not results.controls:
        faults.append(
            "No controls stand beside this run, so that it cannot be told whether age, sex or the number of cells "
            "alone would do as well."
        )
    if failures := len(results.store.failures):
        cells = "cell" if failures == 1 else "cells"
        faults.append(f"{failures:,} {cells} could not be read when features were made and took no part.")
    if results.imported:
        faults.append("The features were imported; there are no images here, and a box takes the place of each cell.")
    elif n_unreadable:
        faults.append(
            f"{n_unreadable:,} of the {n_shown:,} images chosen for this report could not be read; "
            "a box takes their place."
        )
    return faults + without_flow(map(str, results.source.get("notes") or ()))


def listed(names: list[str], limit: int = 8) -> str:
    """``a, b and c``; beyond the limit, how many more there are."""
    return figure_text.listed(names, limit)


def _about_encoder(results: Results) -> list[str]:
    return [
        f"The encoder {own['encoder']} saw images of {name} (wholly or in part) in its pre-training, without labels, "
        "so the result may be better than on images that are new to it."
        for own in results.encoders
        for name in seen_in_pretraining({**results.store.attributes, **own})
    ]


def _about_result(results: Results) -> list[str]:
    found = headline(results)
    if results.classes and found.low is not None and found.low <= found.chance:
        return ["The interval of the balanced accuracy includes chance: the cells may say nothing about the class."]
    return []


def _about_sizes(results: Results) -> list[str]:
    faults = []
    counts = results.patients["label"].value_counts().reindex(list(results.classes)).fillna(0).astype(int)
    small = [f"{name} ({n})" for name, n in counts.items() if n < FEW_PATIENTS]
    if small:
        faults.append(
            f"Fewer than {FEW_PATIENTS} patients in {listed(small)}: the results of such classes are uncertain, and "
            "bootstrap intervals are too narrow in such small classes."
        )
    sizes = results.cells["patient_id"].value_counts().reindex(results.patients.index).fillna(0).astype(int)
    few = [f"{name} ({n})" for name, n in sizes.items() if n < FEW_CELLS]
    if few:
        faults.append(f"Fewer than {FEW_CELLS} cells in {len(few)} of {len(sizes)} patients: {listed(few, limit=5)}.")
    untested = len(results.store.patients) - len(results.patients)
    if untested:
        faults.append(f"{untested} of the cohort's patients were in no test fold and are not in the results.")
    return faults


def _about_labels(results: Results) -> list[str]:
    now = results.store.patients["label"].reindex(results.patients.index)
    changed = int((now != results.patients["label"]).sum())
    if changed and results.classes:
        return [
            f"The labels of {changed} of {len(now)} patients were changed after this run, which has the old ones; make "
            "the run again with `milkit train-mil`."
        ]
    return []


def _about_attention(results: Results) -> list[str]:
    spread = results.cells.groupby("patient_id")["weight"].agg(["min", "max"])
    if len(spread) and ((spread["max"] - spread["min"]) <= 1e-6 * spread["max"]).all():
        return [
            "This head weighs all cells of a patient alike: ranks only reflect the order of files, "
            "and no cell stands out."
        ]
    return []


def _about_order(results: Results) -> list[str]:
    if results.verdicts and results.verdicts.faithful() is False:
        return [
            "The order of the cells is not faithful: cells in random order move the predictions as surely, so that "
            "those shown first are not to be taken for those that the model goes by."
        ]
    return []
