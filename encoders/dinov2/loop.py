"""The loop of a training: iterations, and now and then figures, an evaluation, a checkpoint."""

import contextlib
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from encoders.dinov2.checkpoints import description, save_backbone, save_checkpoint, save_failures
from encoders.dinov2.history import History
from encoders.dinov2.monitors import SCORE, Validation
from encoders.dinov2.optimiser import whole
from encoders.dinov2.pretrain_settings import PretrainSettings
from encoders.dinov2.step import Inputs, Networks, hidden_patches, train_step
from encoders.dinov2.stream import Batch, Unreadable
from encoders.vit import VisionTransformer
from milkit.encoder import Transform
from milkit.progress import progress
from milkit.ranks import Ranks

LOG = logging.getLogger("milkit.pretrain")
LAST, BEST = "teacher-last.safetensors", "teacher-best.safetensors"


@dataclass(frozen=True)
class Pretrained:
    """What a training left.

    Attributes:
        folder: With everything that it wrote.
        weights: The teacher to use: the best one by the validation cells, or the last one where there are none.
        iterations: How many were made in all.
        score: Of the best teacher on the validation cells, None where there are none.
        n_unreadable: Images that could not be read, and others took the place of.
    """

    folder: Path
    weights: Path
    iterations: int
    score: float | None
    n_unreadable: int


@dataclass
class Training:
    """A training under way on this process.

    Attributes:
        settings: Of the training.
        folder: Where the first process writes.
        ranks: Which process this is.
        networks: What learns.
        transform: Of the finished encoder, which also normalises the crops.
        dtype: Of the matrix products.
        unreadable: The images that could not be read so far; of all processes, once a checkpoint was kept.
    """

    settings: PretrainSettings
    folder: Path
    ranks: Ranks
    networks: Networks
    transform: Transform
    dtype: torch.dtype
    unreadable: set[Unreadable] = field(default_factory=set)

    def run(
        self,
        unlabelled: Iterator[Batch],
        labelled: Iterator[Batch] | None,
        state: dict[str, Any],
        validation: Validation | None,
    ) -> Pretrained:
        """Iterate from ``state["iteration"]`` to the end; only the first process has validation cells."""
        settings, first, stop = self.settings, int(state["iteration"]), self.settings.stop
        history = History(self.folder, first + 1) if self.ranks.rank == 0 else None
        started = time.monotonic() - float(state.get("seconds", 0.0))
        score: float | None = state["score"]
        total = (stop - first) * settings.batch_size
        with progress("pretrain", total, "images") if history else contextlib.nullcontext(_advance_unseen) as advance:
            said, at = time.monotonic(), first
            for iteration in range(first, stop):
                figures_of = train_step(
                    self.networks, self._inputs(next(unlabelled), labelled, iteration), settings, iteration, self.dtype
                )
                advance(settings.batch_size)
                done = iteration + 1
                if done % settings.log_every == 0 or done == stop:
                    figures = figures_of()
                    rate = (done - at) * settings.batch_size / (time.monotonic() - said)
                    said, at = time.monotonic(), done
                    self._record(history, done, {"images_per_second": rate, **figures})
                paused = time.monotonic()
                if done % settings.evaluate_every == 0 or done == stop:
                    score = self._evaluate(history, done, validation, score)
                if done % settings.checkpoint_every == 0 or done == stop:
                    kept = {"iteration": done, "score": score, "seconds": time.monotonic() - started}
                    self._keep({**kept, "settings": settings.model_dump(mode="json")})
                said += time.monotonic() - paused
        best = self.folder / BEST
        weights = best if score is not None and not math.isnan(score) else self.folder / LAST
        return Pretrained(self.folder, weights, max(first, stop), score, len(self.unreadable))

    def _inputs(self, batch: Batch, labelled: Iterator[Batch] | None, iteration: int) -> Inputs:
        masked = hidden_patches(self.settings, iteration, self.ranks.rank, self.ranks.size)
        device = self.networks.device
        self.unreadable |= set(batch.failures)
        crops = self._normalised(batch.views)
        if labelled is None:
            return Inputs(crops, masked.to(device))
        cells = next(labelled)
        self.unreadable |= set(cells.failures)
        return Inputs(crops, masked.to(device), self._normalised(cells.views), cells.labels.to(device))

    def _normalised(self, views: Tensor) -> Tensor:
        """(n_views, b, S, S, 3) uint8 -> (n_views · b, 3, S, S) float32, on the device."""
        return self.transform.normalise(views.flatten(0, 1).to(self.networks.device, non_blocking=True))

    def _record(self, history: History | None, done: int, figures: dict[str, float]) -> None:
        if history is not None:
            history.add(done, figures)

    def _evaluate(
        self, history: History | None, done: int, validation: Validation | None, best: float | None
    ) -> float | None:
        """Look at the validation cells, keep the teacher, and the best one so far; its score, None without cells."""
        network = self._teacher()
        about = {**description(self.settings), "name": self.folder.name, "iteration": done}
        save_backbone(self.folder / LAST, network, about, writes=history is not None)
        if history is None:
            return best
        if validation is None:
            history.draw(self.settings)
            return best
        found = validation.evaluate(network, self.transform, self.networks.device, self.dtype)
        history.add(done, found)
        history.draw(self.settings)
        LOG.info("iteration %d: %s", done, ", ".join(f"{name} {value:.3f}" for name, value in found.items()))
        if math.isnan(found[SCORE]) or (best is not None and found[SCORE] <= best):
            return best
        save_backbone(self.folder / BEST, network, {**about, SCORE: round(found[SCORE], 4)}, writes=True)
        return found[SCORE]

    def _teacher(self) -> VisionTransformer:
        """The teacher's backbone as it is now, whole on this process; all processes ask for it together."""
        tensors = whole(self.networks.teacher.backbone.state_dict().items())
        with torch.device("meta"):
            network = VisionTransformer(self.settings.network.shape)
        network.load_state_dict(tensors, assign=True)
        return network.to(self.networks.device).eval()

    def _keep(self, state: dict[str, Any]) -> None:
        """A checkpoint, and the list of images that could not be read by any process, which goes on with it."""
        if self.ranks.size > 1:
            parts: list[set[Unreadable]] = [set()] * self.ranks.size
            distributed.all_gather_object(parts, self.unreadable)
            self.unreadable.update(*parts)
        writes = self.ranks.rank == 0
        if writes and self.unreadable:
            save_failures(self.folder, self.unreadable)
        save_checkpoint(self.folder, self.networks, state, writes=writes)


def _advance_unseen(n: int = 1) -> None:
    """What the processes do that do not speak."""
