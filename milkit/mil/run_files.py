"""What every run folder holds, whatever its target: settings, heads, attention and what made it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.torch import save_file
from torch import Tensor

from milkit.bags import BagStore
from milkit.covariates import count_missing
from milkit.explain import ranks
from milkit.folds import Folds, Split, patients_digest
from milkit.mil.batches import Bags
from milkit.mil.candidate_stores import CandidateStores
from milkit.mil.candidates import ENCODER
from milkit.mil.train import TrainedHead
from milkit.mil.tuning import Choice, Tuning
from milkit.predictions import SHARED
from milkit.runs import log_failure, provenance, write_json
from milkit.settings import MilSettings, dump
from milkit.statistics.decisions import Declared


def dump_of(store: BagStore, settings: MilSettings) -> str:
    """The settings as YAML, with paths that hold from wherever they are read again."""
    paths: dict[str, Any] = {"folds_file": settings.folds_file.resolve()} if settings.folds_file else {}
    if ENCODER in settings.tune:
        encoders = tuple(str(Path(str(path)).resolve()) for path in settings.tune[ENCODER])
        paths["tune"] = {**settings.tune, ENCODER: encoders}
    return dump(settings.model_copy(update={"store": store.path.resolve(), **paths}))


def declared_by(settings: MilSettings) -> Declared:
    """What the settings declare of the clinic."""
    weighted = settings.training.class_weights
    return Declared(settings.prevalence, settings.thresholds, settings.specificity, weighted)


def attention_rows(
    bags: Bags, split: Split, seed: int, classes: Sequence[str], attention: list[Tensor]
) -> pd.DataFrame:
    """The rows of ``attention.parquet`` of a split's tested patients: (k, n_cells) of each, k = 1 or the classes."""
    parts = []
    for name, index, weights in zip(split.test, bags.indices(split.test), attention, strict=True):
        cells = bags.cells_of(index)
        for branch, weight in enumerate(weights.double().numpy()):
            rank, percentile = ranks(weight)
            part = pd.DataFrame(
                {"cell_id": bags.cell_ids[cells], "weight": weight, "rank": rank, "percentile": percentile}
            )
            part.insert(0, "patient_id", name)
            part.insert(2, "repeat", split.repeat)
            part.insert(3, "seed", seed)
            part.insert(4, "fold", split.fold)
            part.insert(5, "class", SHARED if len(weights) == 1 else classes[branch])
            parts.append(part)
    return pd.concat(parts, ignore_index=True)


def save_head(
    path: Path, trained: TrainedHead, settings: MilSettings, facts: Mapping[str, Any], statistics: Mapping[str, Tensor]
) -> None:
    """Weights as safetensors, and beside them what is needed to build and to judge the head; no patient ids."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in trained.model.state_dict().items()}
    save_file({**state, **statistics}, path.with_suffix(".safetensors"))
    facts = {
        "head": settings.head.model_dump(),
        "in_dim": len(trained.model.mean),
        **facts,
        "best_epoch": trained.best_epoch,
        "history": trained.history,
    }
    write_json(path.with_suffix(".json"), facts)


def figures_or_failure(
    make: Callable[[], dict[str, Any]], predictions: pd.DataFrame, patients: Iterable[object]
) -> dict[str, Any]:
    """The figures of ``metrics.json``; where they fail, what says so, since the trained run must not be lost by that.

    Args:
        make: Computes the figures.
        predictions: Rows of tested patients.
        patients: Ids that no log line may hold.

    Returns:
        Without figures: ``failed``, the kind of error, ``warning``, a sentence, and ``n_patients``.
    """
    try:
        return make()
    except Exception as error:
        log_failure("The figures failed", error, patients)
        kind = type(error).__name__
        sentence = (
            f"The figures of this run failed ({kind}; the traceback is in log.txt): its heads, predictions and "
            "attention are kept, and no figure of them."
        )
        return {"failed": kind, "warning": sentence, "n_patients": int(predictions["patient_id"].nunique())}


def controls_store(stores: CandidateStores, choices: Sequence[Choice]) -> BagStore:
    """The store whose features the controls look at: the one that most splits chose."""
    chosen = [choice.settings.store for choice in choices]
    return stores.stores[max(dict.fromkeys(chosen), key=chosen.count)]


def controls_note(stores: CandidateStores, pooled: BagStore) -> list[str]:
    """Whose features the controls looked at, where there are several stores."""
    if len(stores.stores) == 1:
        return []
    name = next(stores.names[str(path)] for path, store in stores.stores.items() if store is pooled)
    return [f"The control on the mean of the cells' features is of the encoder {name}, which most folds chose."]


def provenance_of(stores: Sequence[BagStore], folds: Folds, tuning: Tuning) -> Mapping[str, Any]:
    """What made the run. Patients that a step was fitted on appear as a digest, to be compared with the folds.

    Of several stores, the first stands for what they share; ``encoders`` lists those that could be chosen.
    """
    store = stores[0]
    fitted = {
        split.name: {
            **{role: patients_digest(getattr(split, role)) for role in ("train", "validation")},
            **tuning.fitted_on(split),
        }
        for split in folds.splits()
    }
    seen = ("encoder", "encoder_digest", "encoder_seen")
    several = {"encoders": [{key: one.attributes.get(key) for key in seen} for one in stores]} if stores[1:] else {}
    keys = (
        "cohort",
        "cohort_digest",
        "patients_digest",
        "encoder",
        "encoder_digest",
        "encoder_seen",
        "transform",
        "precision",
        "backend",
    )
    return {
        **provenance(),
        **{key: store.attributes.get(key) for key in keys},
        **several,
        "folds_digest": folds.digest,
        "fitted_on": fitted,
        "covariates_missing": count_missing(
            store.patients.loc[sorted(set(folds.table["patient_id"]))], tuning.settings.covariates
        ),
    }
