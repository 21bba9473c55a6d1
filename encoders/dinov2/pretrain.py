"""VERB: cells of cohorts -> a trained encoder, by self-distillation, and by labels where there are some."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from encoders.dinov2.checkpoints import FAILURES, load_checkpoint, read_failures, read_state, refuse_other_settings
from encoders.dinov2.engines import device_of, networks_of, new_student, precision_of
from encoders.dinov2.feeds import labelled_images, meaning_of_validation, streams_of
from encoders.dinov2.label_chains import LabelChains
from encoders.dinov2.loop import Pretrained, Training
from encoders.dinov2.monitors import Validation
from encoders.dinov2.networks import Branch
from encoders.dinov2.origins import origins_of, refuse_other_origins, refuse_shared_images, seen_by_weights
from encoders.dinov2.pretrain_settings import PretrainSettings
from encoders.weights import read_weights
from milkit.bags.lock import acquire_lock, release_lock
from milkit.cohort import Cohort, load_cohort
from milkit.encoder import Transform
from milkit.errors import RunError
from milkit.ranks import ALONE, Ranks, others_alive
from milkit.runs import log_to, provenance, write_json, write_text
from milkit.settings import dump

LOG = logging.getLogger("milkit.pretrain")


def pretrain(settings: PretrainSettings, folder: Path, ranks: Ranks = ALONE) -> Pretrained:
    """Train until ``settings.stop``; in a folder with a checkpoint, go on from there as if it had never stopped.

    Raises:
        RunError: If the folder's training was begun with other settings or other data.
        StoreError: If another process trains in this folder.
        CohortError: If a cohort cannot be read, or the validation has images that are learned from.
        SettingsError: If the processes cannot share a batch alike, or the device is not there.
        WeightsError: If the weights to start from do not fit.
        TrainingError: If gradients are not finite.
    """
    with others_alive(), _holder() as hold:
        device = ranks.each(lambda: device_of(settings, ranks.local))
        dtype = precision_of(settings, device)
        precision = str(dtype).removeprefix("torch.")
        begun = ranks.agreed(lambda: _state(folder, settings, precision, hold))
        cohorts = ranks.each(lambda: [load_cohort(source.cohort) for source in settings.sources])
        validating = ranks.each(lambda: None if ranks.rank else _validating(settings, cohorts))
        images, chains = ranks.each(lambda: labelled_images(settings, cohorts))
        origins = ranks.agreed(lambda: origins_of(settings, cohorts, validating, images, chains))
        state = ranks.agreed(lambda: _going_on(folder, settings, begun, origins))
        transform = transform_of(settings)
        validation = ranks.each(lambda: _validation(settings, validating, transform))
        student, weights = ranks.each(lambda: _student(settings, chains, begun))
        origins |= {"precision": precision, "weights": weights}
        unlabelled, labelled = ranks.each(lambda: streams_of(settings, images, ranks, state["iteration"]))
        networks = networks_of(student, settings, device)
        if begun:
            load_checkpoint(folder, networks, ranks)
            unreadable = ranks.agreed(lambda: read_failures(folder))
        else:
            unreadable = set()
            ranks.agreed(lambda: _begin(folder, settings, origins, hold))
        training = Training(settings, folder, ranks, networks, transform, dtype, unreadable, origins)
        with contextlib.nullcontext() if ranks.rank else log_to(folder / "log.txt"):
            for cohort in cohorts:
                LOG.info("%s: %d images", cohort.name, len(cohort.cells))
            if begun and begun["score"] != state["score"]:
                LOG.info("other cells validate than before: the best teacher is chosen anew")
            if validation and validation.unreadable:
                LOG.info("validation: %d cells could not be read", validation.unreadable)
            return training.run(unlabelled, labelled, state, validation)


@contextlib.contextmanager
def _holder() -> Iterator[Callable[[Path], None]]:
    """What keeps other processes from training in a folder until the end."""
    handles: list[int] = []

    def hold(folder: Path) -> None:
        if not handles:
            handles.append(acquire_lock(folder, "the training"))

    try:
        yield hold
    finally:
        for handle in handles:
            release_lock(handle)


def _state(
    folder: Path, settings: PretrainSettings, precision: str, hold: Callable[[Path], None]
) -> dict[str, Any] | None:
    """What to go on from, or None at the start."""
    if folder.is_dir():
        hold(folder)
    state = read_state(folder)
    if state is not None:
        begun, given = state["settings"], settings.model_dump(mode="json")
        if origins := state.get("origins"):  # what ``auto`` came to; checkpoints of earlier versions do not say it
            begun, given = (
                {**each, "precision": own} for each, own in ((begun, origins["precision"]), (given, precision))
            )
        refuse_other_settings(folder, begun, given)
    return state


def _begin(folder: Path, settings: PretrainSettings, origins: Mapping[str, Any], hold: Callable[[Path], None]) -> None:
    """A folder for the training, now that all that it needs was found; what one without a checkpoint left goes."""
    folder.mkdir(parents=True, exist_ok=True)
    hold(folder)
    if read_state(folder) is not None:
        msg = f"Another process has trained in {folder} meanwhile; run the command again to go on, or give a --name."
        raise RunError(msg)
    (folder / FAILURES).unlink(missing_ok=True)
    write_text(folder / "settings.yaml", dump(settings))
    write_json(folder / "provenance.json", {**provenance(), **origins})


def _student(
    settings: PretrainSettings, chains: LabelChains | None, begun: Mapping[str, Any] | None
) -> tuple[Branch, dict[str, Any] | None]:
    """The student, which the checkpoint is to fill where there is one; and which weights the training started from."""
    if settings.weights is None:
        return new_student(settings, chains, None), None
    if begun is None:
        start = read_weights(settings.weights)
        about = {"file": start.file, "sha256": start.sha256, "seen": list(seen_by_weights(settings.weights, start))}
        return new_student(settings, chains, start), about
    name = settings.weights.name
    kept = begun.get("origins", {}).get("weights") or {"file": name, "sha256": None, "seen": [name]}
    return new_student(settings, chains, None), kept


def _going_on(
    folder: Path, settings: PretrainSettings, begun: Mapping[str, Any] | None, origins: Mapping[str, Any]
) -> dict[str, Any]:
    """Where the loop goes on. The best score so far is forgotten where other cells validate than those it is of."""
    if begun is None:
        return {"iteration": 0, "score": None}
    if before := begun.get("origins"):
        refuse_other_origins(folder, before, origins)
        same = before["validation"] == origins["validation"]
    else:  # a checkpoint of an earlier version
        same = _validates(begun["settings"]) == _validates(settings.model_dump(mode="json"))
    return {**begun, "score": begun["score"] if same else None}


def _validates(settings: Mapping[str, Any]) -> Any:
    """The cells that validate, wherever they lie."""
    cohort = (settings["validation"] or {}).get("cohort")
    return cohort and (cohort["factory"], cohort["arguments"], settings["validation_cells"])


def transform_of(settings: PretrainSettings) -> Transform:
    """How the finished encoder sees an image."""
    return Transform(size=settings.network.image_size, interpolation="bilinear")


def _validating(settings: PretrainSettings, cohorts: list[Cohort]) -> Cohort | None:
    """The cohort that validates."""
    if settings.validation is None:
        return None
    validating = load_cohort(settings.validation.cohort)
    refuse_shared_images(cohorts, validating)
    return validating


def _validation(settings: PretrainSettings, cohort: Cohort | None, transform: Transform) -> Validation | None:
    if cohort is None:
        return None
    meaning = meaning_of_validation(settings, cohort)
    return Validation.of(cohort, transform, limit=settings.validation_cells, seed=settings.seed, meaning=meaning)
