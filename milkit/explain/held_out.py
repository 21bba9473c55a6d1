"""The heads of a finished run, each ready to be asked about the patients that it was not fitted on, and no others."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from milkit.bags import BagStore, store_of_run
from milkit.covariates import CovariateEncoding
from milkit.encoder import choose_device
from milkit.errors import RunError
from milkit.explain.agreement import Model
from milkit.explain.asked import asked_of, n_outputs
from milkit.explain.parts import Asked, Bagged
from milkit.explain.question import Question, read_question
from milkit.folds import Folds
from milkit.mil.batches import Bags
from milkit.mil.candidate_stores import CandidateStores, Loaded
from milkit.mil.heads import build_head
from milkit.mil.train import Standardised
from milkit.runs import read_json, run_settings
from milkit.settings import Component


@dataclass(frozen=True, slots=True)
class HeldOutHeads:
    """A run's heads and bags.

    Attributes:
        question: What is explained.
        store: Where the bags are from; the first one where folds chose among encoders.
        bags: All cells that could be read, for each head as its encoder sees them.
        heads: By repeat, fold and seed.
        asked: What of its outputs is explained, of each head.
        covariates: Of all patients as each head has them, (n_patients, V) in the order of its bags; of a head without
            any, nothing.
        tested_by: The heads that tested each patient, and so never saw the patient before.
        heads_sha256: Over the names and bytes of all files in ``heads/``.
    """

    question: Question
    store: BagStore
    bags: dict[Model, Bags]
    heads: dict[Model, Standardised]
    asked: dict[Model, Asked]
    covariates: dict[Model, Tensor]
    tested_by: dict[str, list[Model]]
    heads_sha256: str

    @property
    def classes(self) -> tuple[str, ...]:
        """What a cell can speak for, in the order of the answers."""
        return self.question.classes

    def bagged(self, patient_id: str) -> list[Bagged]:
        """The patient's bag before each of the heads of ``tested_by``."""
        bags = next(iter(self.bags.values()))
        (index,) = bags.indices([patient_id])
        cells, own = bags.cells_of(index), {model: values[index] for model, values in self.covariates.items()}
        return [
            Bagged(self.heads[model], self.bags[model].features[cells], own.get(model), self.asked[model])
            for model in self.tested_by[patient_id]
        ]

    def cell_ids(self, patient_id: str) -> tuple[str, ...]:
        """Of the cells of the patient's bag."""
        bags = next(iter(self.bags.values()))
        return bags.cell_ids[bags.cells_of(*bags.indices([patient_id]))]


def read_heads(run: Path, device: str, target: str | None = None) -> HeldOutHeads:
    """Read a run's heads, folds and predictions, and the bags of the store that it names.

    Args:
        run: The run folder.
        device: Where the heads are asked.
        target: For which of its targets; the first by default.

    Raises:
        RunError: The folder is no finished run, or a head is missing or damaged, or the store is another one now.
    """
    store = store_of_run(run)
    settings, _ = run_settings(run)
    question = read_question(run, target)
    chosen = choose_device(device)
    tested_by: dict[str, list[Model]] = {}
    heads, encoders, encodings = dict[Model, Standardised](), dict[Model, str](), dict[Model, CovariateEncoding]()
    asked = dict[Model, Asked]()
    for split in Folds.load(run / "folds.csv").splits():
        for seed in range(settings.seeds):
            model = Model(split.repeat, split.fold, seed)
            path = run / "heads" / f"{split.name}-seed{seed}"
            head, encoding = read_head(path)
            heads[model] = head.to(chosen)
            encodings |= {model: encoding} if encoding else {}
            facts = read_json(path.with_suffix(".json"))
            encoders[model], asked[model] = str(facts.get("encoder_digest")), asked_of(facts, question)
            for patient in split.test:
                tested_by.setdefault(patient, []).append(model)
    patients = question.predicted
    bags = _bags_of(encoders, CandidateStores.of(store, settings).load(chosen).values(), run)
    there = next(iter(bags.values())).patients
    lacking = patients.index.difference(list(there)).union(patients.index.difference(list(tested_by)))
    if len(lacking):
        msg = (
            f"Patient '{lacking[0]}' of {run} is not in its store or its folds; make the run again with "
            "`milkit train-mil`."
        )
        raise RunError(msg)
    table, digest = store.patients.loc[list(there)], _digest(run / "heads")
    covariates = {model: torch.from_numpy(own.encode(table)).float().to(chosen) for model, own in encodings.items()}
    return HeldOutHeads(question, store, bags, heads, asked, covariates, tested_by, digest)


def _bags_of(encoders: dict[Model, str], loaded: Iterable[Loaded], run: Path) -> dict[Model, Bags]:
    """The bags of each head's encoder."""
    known = {one.encoder_digest: one.bags for one in loaded}
    if foreign := sorted(set(encoders.values()) - set(known)):
        msg = (
            f"A head of {run} learned from features of another encoder ({foreign[0][:8]}) than the run's stores hold; "
            "give the stores that the run was made from, or make the run again with `milkit train-mil`."
        )
        raise RunError(msg)
    return {model: known[digest] for model, digest in encoders.items()}


def read_head(path: Path) -> tuple[Standardised, CovariateEncoding | None]:
    """One head from ``<path>.json`` and ``<path>.safetensors``, as it was after its best epoch; not to be trained.

    With it comes how it takes its patients' covariates; None where it was trained without any.
    """
    facts: dict[str, Any] = read_json(path.with_suffix(".json"))
    weights = path.with_suffix(".safetensors")
    try:
        n_covariates, in_dim = int(facts.get("n_covariates", 0)), int(facts["in_dim"])
        head = build_head(Component.model_validate(facts["head"]), in_dim, n_outputs(facts), n_covariates)
        model = Standardised(head, torch.zeros(in_dim), torch.ones(in_dim))
        state = load_file(weights)
        statistics = [state.pop(f"covariates.{name}").numpy() for name in ("mean", "scale")] if n_covariates else []
        encoding = CovariateEncoding.described(facts["covariates"], *statistics) if statistics else None
        model.load_state_dict(state)
    except (KeyError, FileNotFoundError, SafetensorError, RuntimeError) as error:
        msg = (
            f"The head {weights} cannot be read ({type(error).__name__}); it is missing, damaged or of another milkit, "
            "so make the run again with `milkit train-mil`."
        )
        raise RunError(msg) from None
    return model.eval().requires_grad_(requires_grad=False), encoding


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
