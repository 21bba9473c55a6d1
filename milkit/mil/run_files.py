"""What every run folder holds, whatever its target: settings, heads, attention and what made it."""

from collections.abc import Mapping, Sequence
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
from milkit.mil.train import TrainedHead
from milkit.mil.tuning import Tuning
from milkit.predictions import SHARED
from milkit.runs import provenance, write_json
from milkit.settings import MilSettings, dump


def dump_of(store: BagStore, settings: MilSettings) -> str:
    """The settings as YAML, with paths that hold from wherever they are read again."""
    published = {"folds_file": settings.folds_file.resolve()} if settings.folds_file else {}
    return dump(settings.model_copy(update={"store": store.path.resolve(), **published}))


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


def provenance_of(store: BagStore, folds: Folds, tuning: Tuning) -> Mapping[str, Any]:
    """What made the run. Patients that a step was fitted on appear as a digest, to be compared with the folds."""
    fitted = {
        split.name: {
            **{role: patients_digest(getattr(split, role)) for role in ("train", "validation")},
            **tuning.fitted_on(split),
        }
        for split in folds.splits()
    }
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
        "folds_digest": folds.digest,
        "fitted_on": fitted,
        "covariates_missing": count_missing(
            store.patients.loc[sorted(set(folds.table["patient_id"]))], tuning.settings.covariates
        ),
    }
