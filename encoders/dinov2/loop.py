"""The loop of a training: iterations, and now and then figures, an evaluation, a checkpoint."""

import contextlib
import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encoders.dinov2.checkpoints import description, save_backbone, save_checkpoint, save_failures
from encoders.dinov2.history import History
from encoders.dinov2.monitors import SCORE, Validation
from encoders.dinov2.optimiser import whole
from encoders.dinov2.origins import seen_by
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
        origins: What it learns from, as ``encoders.dinov2.origins`` has it; kept with each checkpoint.
    """

    settings: PretrainSettings
    folder: Path
    ranks: Ranks
    networks: Networks
    transform: Transform
    dtype: torch.dtype
    unreadable: set[Unreadable] = field(default_factory=set)
    origins: Mapping[str, Any] = field(default_factory=dict)

    def run(
        self,
        unlabelled: Iterator[Batch],
        labelled: Iterator[Batch] | None,
        state: dict[str, Any],
        validation: Validation | None,
    ) -> Pretrained:
        """Iterate from ``state["iteration"]`` to the end; only the first process has validation cells."""
        settings, first, stop = self.settings, int(state["iteration"]), self.settings.stop
        history = self.ranks.each(lambda: None if self.ranks.rank else History(self.folder, first + 1))
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
                    self._keep({**kept, "settings": settings.model_dump(mode="json"), "origins": self.origins})
                said += time.monotonic() - paused
        best = self.folder / BEST
        weights = best if score is not None and not math.isnan(score) else self.folder / LAST
        return Pretrained(self.folder, weights, max(first, stop), score, len(self.unreadable))

    def _inputs(self, batch: Batch, labelled: Iterator[Batch] | None, iteration: int) -> Inputs:
        masked = hidden_patches(self.settings, iteration, self.ranks.rank, self.ranks.size)
        hidden = self._placed(masked.nonzero().T.contiguous())
        self.unreadable |= set(batch.failures)
        inputs = Inputs(self._normalised(batch.views), self._placed(masked), hidden=hidden)
        if labelled is None:
            return inputs
        cells = next(labelled)
        self.unreadable |= set(cells.failures)
        return inputs._replace(labelled=self._normalised(cells.views), labels=self._placed(cells.labels))

    def _normalised(self, views: Tensor) -> Tensor:
        """(n_views, b, S, S, 3) uint8 -> (n_views · b, 3, S, S) float32, on the device."""
        return self.transform.normalise(self._placed(views.flatten(0, 1)))

    def _placed(self, tensor: Tensor) -> Tensor:
        """On the device; a GPU reads it when it comes to it, from memory that stays where it is, and nobody waits."""
        device = self.networks.device
        return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)

    def _record(self, history: History | None, done: int, figures: dict[str, float]) -> None:
        self.ranks.agreed(lambda: history.add(done, figures) if history else None)

    def _evaluate(
        self, history: History | None, done: int, validation: Validation | None, best: float | None
    ) -> float | None:
        """Look at the validation cells, keep the teacher, and the best one so far; its score, None without cells.

        The first process does so, and the others wait for the score.
        """
        tensors = whole(self.networks.teacher.backbone.state_dict().items(), keeps=history is not None)
        return self.ranks.agreed(lambda: self._judged(tensors, history, done, validation, best) if history else best)

    def _judged(
        self,
        tensors: dict[str, Tensor],
        history: History,
        done: int,
        validation: Validation | None,
        best: float | None,
    ) -> float | None:
        network = self._teacher(tensors)
        seen = seen_by(self.settings, (self.origins.get("weights") or {}).get("seen", ()))
        about = {**description(self.settings, seen), "name": self.folder.name, "iteration": done}
        save_backbone(self.folder / LAST, network, about)
        if validation is None:
            history.draw(self.settings)
            return best
        found = validation.evaluate(network, self.transform, self.networks.device, self.dtype)
        history.add(done, found)
        history.draw(self.settings)
        LOG.info("iteration %d: %s", done, ", ".join(f"{name} {value:.3f}" for name, value in found.items()))
        if math.isnan(found[SCORE]) or (best is not None and found[SCORE] <= best):
            return best
        save_backbone(self.folder / BEST, network, {**about, SCORE: round(found[SCORE], 4)})
        return found[SCORE]

    def _teacher(self, tensors: dict[str, Tensor]) -> VisionTransformer:
        """The teacher's backbone by itself."""
        with torch.device("meta"):
            network = VisionTransformer(self.settings.network.shape)
        network.load_state_dict(tensors, assign=True)
        return network.to(self.networks.device).eval()

    def _keep(self, state: dict[str, Any]) -> None:
        """A checkpoint, and the list of images that could not be read by any process, which goes on with it."""
        self.unreadable.update(*self.ranks.gathered(self.unreadable))
        if self.unreadable:
            self.ranks.agreed(lambda: save_failures(self.folder, self.unreadable))
        save_checkpoint(self.folder, self.networks, state, self.ranks)


def _advance_unseen(n: int = 1) -> None:
    """What the processes do that do not speak."""
