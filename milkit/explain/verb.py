"""VERB run -> explain.parquet and faithfulness.json: which cells held-out heads weigh, and whether to believe it."""

import hashlib
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from milkit.errors import RunError
from milkit.explain.agreement import Agreement, agreement
from milkit.explain.attribution import attribute
from milkit.explain.faithfulness import curves, judge, judge_patient, order_of
from milkit.explain.gradients import completeness_gap
from milkit.explain.held_out import HeldOutHeads, read_heads
from milkit.explain.known_cells import found, read_known
from milkit.explain.pooling import is_pooling
from milkit.explain.ranking import in_top, ranks
from milkit.explain.settings import ExplainSettings
from milkit.explain.table import EXPLANATIONS, Explanations
from milkit.explain.verdicts import FORMAT, VERDICTS, VERSION
from milkit.predictions import SHARED
from milkit.progress import progress
from milkit.runs import provenance, write_json
from milkit.statistics.bca import bca_estimate

Floats = npt.NDArray[np.float64]


class Explained(NamedTuple):
    """One patient by every method.

    Attributes:
        rows: Of ``explain.parquet``.
        shown: For each method, the scores (n,) for the predicted class, which is the one that people are shown.
        curves: Log-odds of that class, or what stands in their place, (methods + random rankings, 2, points).
        agreement: For each method, of the heads that tested the patient.
        completeness: By how much integrated gradients miss their sum, where they were asked for.
    """

    rows: pd.DataFrame
    shown: dict[str, Floats]
    curves: Floats
    agreement: dict[str, dict[str, Agreement]]
    completeness: float


def explain(run: Path, settings: ExplainSettings) -> dict[str, Any]:
    """Explain every tested patient of a run by the heads that were not fitted on the patient.

    Writes ``explain.parquet`` (``milkit.explain.table``) and ``faithfulness.json`` into the run folder, in place of
    those that are there. Faithfulness, agreement and recovery are of the ranking for the predicted class.

    Returns:
        The content of ``faithfulness.json``: ``format``, ``version``, provenance, ``heads_sha256``, ``target`` (its
        ``name`` and ``kind``; null where the run is on the cohort's classes), ``settings`` and ``known_sha256`` (of the
        table of known cells, or null); ``n_patients`` and ``n_models`` (fewest and most a patient); for each of
        ``methods`` what ``faithfulness.judge`` says, ``agreement`` over ``seeds`` and ``repeats``
        (``agreement.agreement``, means over patients with intervals), ``known_cells`` where some were given
        (``known_cells.found``), and ``completeness_gap`` of integrated gradients (the largest of all bags); and
        ``patients``, a row per patient and method: ``faithfulness.judge_patient``.
    """
    return _explain(run, read_heads(run, settings.device, settings.target), settings)


def explain_quickly(run: Path, device: Literal["auto", "cpu", "cuda"] = "auto") -> str:
    """Explain a run that was just made by attention alone, where that costs little beside the training.

    It does where heads can be taken apart (``milkit.explain.pooling``); others have to be called on hundreds of parts
    of every bag, which is left to who asks for it.

    Returns:
        Why nothing was explained, in a sentence; empty where it was.
    """
    untold = "Whether the models go by the cells that they weigh most was not tested"
    try:
        held_out = read_heads(run, device)
    except RunError as error:
        return f"{untold}: {error}"
    slow = sorted({type(model.head).__name__ for model in held_out.heads.values() if not is_pooling(model.head)})
    if slow:
        return f"{untold}, which takes long for a head like {slow[0]}: `milkit explain --methods attention` does it."
    _explain(run, held_out, ExplainSettings(methods=("attention",), device=device))
    return ""


def _explain(run: Path, held_out: HeldOutHeads, settings: ExplainSettings) -> dict[str, Any]:
    known = read_known(settings.known, held_out.store, settings.relevant)
    explained: dict[str, Explained] = {}
    with progress("explain", len(held_out.question.predicted), "patients") as advance:
        for patient_id in map(str, held_out.question.predicted.index):
            explained[patient_id] = _patient(held_out, patient_id, settings)
            advance()
    result: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        **provenance(),
        "heads_sha256": held_out.heads_sha256,
        "target": held_out.question.target,
        "settings": settings.model_dump(mode="json", exclude={"run", "known", "device"}),
        "known_sha256": hashlib.sha256(settings.known.read_bytes()).hexdigest() if settings.known else None,
        "n_patients": len(explained),
        "n_models": [f(len(held_out.tested_by[name]) for name in explained) for f in (min, max)],
        "methods": {name: _method(name, held_out, explained, known, settings) for name in settings.methods},
        "patients": [row for name in explained for row in _verdicts(name, held_out, explained[name], settings)],
    }
    plain: dict[str, Any] = _without_nan(result)
    table = Explanations(pd.concat([one.rows for one in explained.values()], ignore_index=True))
    about = {"top": settings.top, "methods": list(settings.methods), "heads_sha256": held_out.heads_sha256}
    table.save(run / EXPLANATIONS, **about)
    write_json(run / VERDICTS, plain)
    return plain


def _patient(held_out: HeldOutHeads, patient_id: str, settings: ExplainSettings) -> Explained:
    """The random numbers are keyed by patient, so that they do not depend on who else is in the run."""
    key = hashlib.sha256(f"{settings.seed}/{patient_id}".encode()).digest()
    generator = np.random.default_rng(int.from_bytes(key[:8], "big"))
    bags, models = held_out.bagged(patient_id), held_out.tested_by[patient_id]
    c = held_out.classes.index(held_out.question.predicted[patient_id])
    scores: dict[str, Floats] = {}
    gap = float("nan")
    for method in settings.methods:
        of_heads = [attribute(bag, method, steps=settings.steps) for bag in bags]
        if method == "integrated_gradients":
            gap = max(completeness_gap(bag, score) for bag, score in zip(bags, of_heads, strict=True))
        branches = max(map(len, of_heads))  # where splits chose their heads, one may share what another has by class
        alike = [score.expand(branches, -1) for score in of_heads]
        scores[method] = np.stack([score.double().cpu().numpy() for score in alike])  # (M, C or 1, n)
    own = {method: score[:, c if score.shape[1] > 1 else 0] for method, score in scores.items()}
    shown = {method: score.mean(axis=0) for method, score in own.items()}
    n = bags[0].n_cells
    orders = [order_of(score, generator) for score in shown.values()]
    orders += [generator.permutation(n) for _ in range(settings.random_rankings)]
    return Explained(
        _rows(held_out, patient_id, scores, settings.top),
        shown,
        curves(bags, np.stack(orders), c, settings.points),
        {method: agreement(score, models, settings.top) for method, score in own.items()},
        gap,
    )


def _rows(held_out: HeldOutHeads, patient_id: str, scores: dict[str, Floats], top: int) -> pd.DataFrame:
    cell_ids = held_out.cell_ids(patient_id)
    parts = []
    for method, of_heads in scores.items():
        classes = held_out.classes if of_heads.shape[1] > 1 else (SHARED,)
        for name, own in zip(classes, of_heads.transpose(1, 0, 2), strict=True):
            mean = own.mean(axis=0)
            rank, percentile = ranks(mean)
            columns: dict[str, Any] = {"patient_id": patient_id, "cell_id": cell_ids, "class": name, "method": method}
            columns |= {"score": mean.astype(np.float32), "rank": rank.astype(np.int32)}
            columns |= {"percentile": percentile.astype(np.float32)}
            columns |= {"in_top": in_top(own, top).sum(axis=0).astype(np.int32), "n_models": np.int32(len(own))}
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _method(
    method: str,
    held_out: HeldOutHeads,
    explained: dict[str, Explained],
    known: pd.DataFrame | None,
    settings: ExplainSettings,
) -> dict[str, Any]:
    """All that is said of one method, over the patients."""
    n_methods, number = len(settings.methods), settings.methods.index(method)
    all_curves = np.stack([one.curves for one in explained.values()])
    intervals: dict[str, Any] = {"level": settings.level, "n_bootstrap": settings.bootstrap, "seed": settings.seed}
    result = judge(all_curves[:, number], all_curves[:, n_methods:], **intervals)
    told = [one.agreement[method] for one in explained.values()]
    result["agreement"] = {
        kind: _mean_agreement([one[kind] for one in told if kind in one], intervals) for kind in ("seeds", "repeats")
    }
    if known is not None:
        cells = pd.concat(
            pd.DataFrame({"patient_id": name, "cell_id": held_out.cell_ids(name), "score": one.shown[method]})
            for name, one in explained.items()
        )
        ranked = cells.merge(known, on="cell_id", validate="one_to_one")
        result["known_cells"] = found(ranked, settings.precision_at, **intervals)
    if method == "integrated_gradients":
        result["completeness_gap"] = max(one.completeness for one in explained.values())
    return result


def _mean_agreement(told: list[Agreement], intervals: dict[str, Any]) -> dict[str, Any] | None:
    """Means over the patients, with intervals; None where there is no pair of models."""
    if not told:
        return None
    result: dict[str, Any] = {"n_patients": len(told)}
    for name in ("rank_correlation", "jaccard", "jaccard_chance"):
        values = np.array([getattr(one, name) for one in told])
        result[name] = _mean_estimate(values[~np.isnan(values)], intervals)
    return result


def _mean_estimate(values: Floats, intervals: dict[str, Any]) -> dict[str, float] | None:
    if not len(values):
        return None

    def mean(weights: Floats) -> Floats:
        result: Floats = weights @ values / weights.sum(axis=1)
        return result

    resamples = {"n_resamples": intervals["n_bootstrap"], "level": intervals["level"], "seed": intervals["seed"]}
    return bca_estimate(mean, np.zeros(len(values), dtype=np.int64), **resamples)._asdict()


def _verdicts(
    patient_id: str, held_out: HeldOutHeads, one: Explained, settings: ExplainSettings
) -> list[dict[str, Any]]:
    random = one.curves[len(settings.methods) :]
    about = {"patient_id": patient_id, "class": held_out.question.predicted[patient_id]}
    return [
        {**about, "method": method, **judge_patient(own, random)}
        for method, own in zip(settings.methods, one.curves, strict=False)
    ]


def _without_nan(values: Any) -> Any:
    """The same with None for what is not defined, as JSON has no NaN."""
    if isinstance(values, dict):
        return {key: _without_nan(value) for key, value in values.items()}
    if isinstance(values, list):
        return [_without_nan(value) for value in values]
    return None if isinstance(values, float) and math.isnan(values) else values
