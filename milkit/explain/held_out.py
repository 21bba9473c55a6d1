"""The heads of a finished run, each ready to be asked about the patients that it was not fitted on, and no others."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from milkit.bags import BagStore
from milkit.encoder import choose_device
from milkit.errors import RunError
from milkit.explain.agreement import Model
from milkit.explain.parts import Bagged
from milkit.explain.ranking import consensus_predictions
from milkit.folds import Folds
from milkit.mil.batches import Bags
from milkit.mil.heads import build_head
from milkit.mil.train import Standardised
from milkit.predictions import Predictions
from milkit.runs import read_json, run_settings
from milkit.settings import Component


@dataclass(frozen=True, slots=True)
class HeldOutHeads:
    """A run's heads and bags.

    Attributes:
        classes: In the order of the logits.
        store: Where the bags are from.
        bags: All cells that could be read.
        patients: Tested patients: label, predicted and mean probabilities. Index patient_id.
        heads: By repeat, fold and seed.
        tested_by: The heads that tested each patient, and so never saw the patient before.
        heads_sha256: Over the names and bytes of all files in ``heads/``.
    """

    classes: tuple[str, ...]
    store: BagStore
    bags: Bags
    patients: pd.DataFrame
    heads: dict[Model, Standardised]
    tested_by: dict[str, list[Model]]
    heads_sha256: str

    def bagged(self, patient_id: str) -> list[Bagged]:
        """The patient's bag before each of the heads of ``tested_by``."""
        (index,) = self.bags.indices([patient_id])
        features = self.bags.features[self.bags.cells_of(index)]
        return [Bagged(self.heads[model], features) for model in self.tested_by[patient_id]]

    def cell_ids(self, patient_id: str) -> tuple[str, ...]:
        """Of the cells of the patient's bag."""
        (index,) = self.bags.indices([patient_id])
        return self.bags.cell_ids[self.bags.cells_of(index)]


def read_heads(run: Path, device: str) -> HeldOutHeads:
    """Read a run's heads, folds and predictions, and the bags of the store that it names.

    Raises:
        RunError: The folder is no finished run, or a head is missing or damaged, or the store is another one now.
    """
    if not (run / "settings.yaml").is_file() or not (run / "folds.csv").is_file():
        msg = f"{run} is no finished run; make one with `milkit train-mil`, or name its folder."
        raise RunError(msg)
    settings, path = run_settings(run)
    predictions = Predictions.load(run / "predictions.csv")
    store, made_from = BagStore.open(path), read_json(run / "provenance.json")
    for key, what in (("cohort_digest", "cells"), ("encoder_digest", "encoder")):
        if made_from.get(key) and made_from[key] != store.attributes.get(key):
            msg = (
                f"The store {store.path} has another {key} than when the run was made, so its {what} changed; give the "
                "store that the run was made from, or make the run again with `milkit train-mil`."
            )
            raise RunError(msg)
    chosen = choose_device(device)
    tested_by: dict[str, list[Model]] = {}
    heads = {}
    for split in Folds.load(run / "folds.csv").splits():
        for seed in range(settings.seeds):
            model = Model(split.repeat, split.fold, seed)
            heads[model] = read_head(run / "heads" / f"{split.name}-seed{seed}").to(chosen)
            for patient in split.test:
                tested_by.setdefault(patient, []).append(model)
    patients = consensus_predictions(predictions)
    bags = Bags.load(store, chosen)
    lacking = patients.index.difference(list(bags.patients)).union(patients.index.difference(list(tested_by)))
    if len(lacking):
        msg = (
            f"Patient '{lacking[0]}' of {run} is not in its store or its folds; make the run again with "
            "`milkit train-mil`."
        )
        raise RunError(msg)
    return HeldOutHeads(predictions.classes, store, bags, patients, heads, tested_by, _digest(run / "heads"))


def read_head(path: Path) -> Standardised:
    """One head from ``<path>.json`` and ``<path>.safetensors``, as it was after its best epoch; not to be trained."""
    facts: dict[str, Any] = read_json(path.with_suffix(".json"))
    weights = path.with_suffix(".safetensors")
    if facts.get("n_covariates"):
        msg = f"The head {path.name} was trained with covariates, which `milkit explain` cannot show; train it without."
        raise RunError(msg)
    try:
        head = build_head(Component.model_validate(facts["head"]), int(facts["in_dim"]), len(facts["classes"]))
        model = Standardised(head, torch.zeros(int(facts["in_dim"])), torch.ones(int(facts["in_dim"])))
        model.load_state_dict(load_file(weights))
    except (KeyError, FileNotFoundError, SafetensorError, RuntimeError) as error:
        msg = (
            f"The head {weights} cannot be read ({type(error).__name__}); it is missing, damaged or of another milkit, "
            "so make the run again with `milkit train-mil`."
        )
        raise RunError(msg) from None
    return model.eval().requires_grad_(requires_grad=False)


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
