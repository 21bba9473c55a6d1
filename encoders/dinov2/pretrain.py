"""VERB: cells of cohorts -> a trained encoder, by self-distillation, and by labels where there are some."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import distributed

from encoders.dinov2.checkpoints import FAILURES, load_checkpoint, read_failures, read_state, refuse_other_settings
from encoders.dinov2.engines import device_of, networks_of, new_student, precision_of
from encoders.dinov2.feeds import labelled_images, streams_of
from encoders.dinov2.loop import Pretrained, Training
from encoders.dinov2.monitors import Validation
from encoders.dinov2.pretrain_settings import PretrainSettings
from milkit.cohort import load_cohort
from milkit.encoder import Transform
from milkit.errors import MilkitError
from milkit.ranks import ALONE, Ranks
from milkit.runs import log_to, provenance, write_json, write_text
from milkit.settings import dump

LOG = logging.getLogger("milkit.pretrain")


def pretrain(settings: PretrainSettings, folder: Path, ranks: Ranks = ALONE) -> Pretrained:
    """Train until ``settings.stop``; in a folder with a checkpoint, go on from there as if it had never stopped.

    Raises:
        RunError: If the folder's training was begun with other settings.
        CohortError: If a cohort cannot be read.
        SettingsError: If the processes cannot share a batch alike, or the device is not there.
        WeightsError: If the weights to start from do not fit.
        TrainingError: If gradients are not finite.
    """
    begun = ranks.agreed(lambda: _state(folder, settings))
    state = begun or {"iteration": 0, "score": None}
    cohorts = ranks.each(lambda: [load_cohort(source.cohort) for source in settings.sources])
    images, chains = ranks.each(lambda: labelled_images(settings, cohorts))
    transform = transform_of(settings)
    validation = ranks.each(lambda: None if ranks.rank else _validation(settings, transform))
    device = ranks.each(lambda: device_of(settings, ranks.local))
    student = ranks.each(lambda: new_student(settings, chains, begun=begun is not None))
    unlabelled, labelled = ranks.each(lambda: streams_of(settings, images, ranks, state["iteration"]))
    networks = networks_of(student, settings, device)
    if begun:
        load_checkpoint(folder, networks)
    else:
        ranks.agreed(lambda: _begin(folder, settings))
    training = Training(settings, folder, ranks, networks, transform, precision_of(settings, device))
    with _others_alive(), contextlib.nullcontext() if ranks.rank else log_to(folder / "log.txt"):
        if begun and not ranks.rank:
            training.unreadable |= read_failures(folder)
        for cohort in cohorts:
            LOG.info("%s: %d images", cohort.name, len(cohort.cells))
        if validation and validation.unreadable:
            LOG.info("validation: %d cells could not be read", validation.unreadable)
        return training.run(unlabelled, labelled, state, validation)


@contextlib.contextmanager
def _others_alive() -> Iterator[None]:
    """Turn the closed connection of a process that has died into a ``MilkitError``; other faults stay what they are."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error):
            raise
        msg = (
            "Another process of this job ended before the training did; see what it said, then run the same command "
            "again, it goes on where it stopped."
        )
        raise MilkitError(msg) from None


def _state(folder: Path, settings: PretrainSettings) -> dict[str, Any] | None:
    """What to go on from, or None at the start."""
    state = read_state(folder)
    if state is not None:
        refuse_other_settings(folder, state["settings"], settings.model_dump(mode="json"))
    return state


def _begin(folder: Path, settings: PretrainSettings) -> None:
    """A folder for the training, now that all that it needs was found; what one without a checkpoint left goes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAILURES).unlink(missing_ok=True)
    write_text(folder / "settings.yaml", dump(settings))
    write_json(folder / "provenance.json", provenance())


def transform_of(settings: PretrainSettings) -> Transform:
    """How the finished encoder sees an image."""
    return Transform(size=settings.network.image_size, interpolation="bilinear")


def _validation(settings: PretrainSettings, transform: Transform) -> Validation | None:
    if settings.validation is None:
        return None
    cohort = load_cohort(settings.validation.cohort)
    return Validation.of(cohort, transform, limit=settings.validation_cells, seed=settings.seed)
