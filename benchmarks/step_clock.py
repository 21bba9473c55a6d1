"""The parts of a training's step: clocks around the functions that it calls, the networks alone, and their work."""

import contextlib
import functools
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from encoders.dinov2 import loop, step
from encoders.dinov2.networks import Branch, StudentOutput
from encoders.dinov2.step import Inputs, Networks, train_step
from encoders.dinov2.stream import Batch

NETWORKS = ("teacher forward", "student forward", "student backward")
OVERHEAD = (
    "waiting for images",
    "crops to numbers",
    "masks",
    "Sinkhorn-Knopp",
    "losses",
    "losses backward",
    "clipping",
    "optimiser",
    "moving average",
    "figures",
    "all else",
)


class Clock:
    """Seconds by what was done in them."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    def now(self) -> float:
        """Seconds, once a GPU has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def time(self, call: Callable[[], Any]) -> float:
        """Seconds that a call takes."""
        started = self.now()
        call()
        return self.now() - started

    def around(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time counted to a part."""

        @functools.wraps(call)
        def timed(*given: Any, **named: Any) -> Any:
            started = self.now()
            result = call(*given, **named)
            self.seconds[part] += self.now() - started
            return result

        return timed

    def both_ways(self, networks: Networks) -> tuple[Callable[..., StudentOutput], Callable[[Tensor], None]]:
        """The student's forward and a tensor's backward, their time counted.

        PyTorch goes back in the order of making, last first: all losses, then the networks. So the networks' part
        begins with the first of the heads that goes on from its logits, which is when their hook is called.
        """
        forward, backward = self.around("student forward", networks.wrapped), Tensor.backward
        begun: list[float] = []

        def begin(_: Tensor) -> None:
            begun.append(self.now())

        def watched(*given: Any) -> StudentOutput:
            output: StudentOutput = forward(*given)
            for logits in (output.dino, output.ibot, output.types):
                if logits is not None:
                    logits.register_hook(begin)
            return output

        def timed(total: Tensor) -> None:
            started = self.now()
            backward(total)  # type: ignore[no-untyped-call]
            self.seconds["losses backward"] += begun[0] - started
            self.seconds["student backward"] += self.now() - begun[0]

        return watched, timed


@dataclass
class Steps:
    """The steps of a training, one after another, as its loop makes them."""

    training: loop.Training
    unlabelled: Iterator[Batch]
    labelled: Iterator[Batch] | None
    made: int = 0
    last: Inputs | None = None
    """What the last one saw."""

    def make(self) -> Callable[[], dict[str, float]]:
        """One step; what tells its figures."""
        training = self.training
        self.last = training._inputs(next(self.unlabelled), self.labelled, self.made)
        figures = train_step(training.networks, self.last, training.settings, self.made, training.dtype)
        self.made += 1
        return figures

    def parts(self) -> dict[str, float]:
        """The seconds of the parts of one step; of the figures, their share in it."""
        clock = Clock(self.training.networks.device)
        with self._watched(clock):
            started = clock.now()
            figures = self.make()
            seconds = clock.now() - started
        clock.seconds["all else"] = seconds - sum(clock.seconds.values())
        clock.seconds["figures"] = clock.time(figures) / self.training.settings.log_every
        return {part: clock.seconds[part] for part in NETWORKS + OVERHEAD}

    @contextlib.contextmanager
    def _watched(self, clock: Clock) -> Iterator[None]:
        """With clocks around all that a step calls."""
        training, networks = self.training, self.training.networks
        forward, backward = clock.both_ways(networks)
        functions = [(step, name, "losses") for name in ("dino_loss", "ibot_loss", "koleo_loss")]
        functions += [(step, "sinkhorn_knopp", "Sinkhorn-Knopp"), (step, "clip", "clipping")]
        functions += [(step, "follow", "moving average"), (networks.optimiser, "step", "optimiser")]
        functions += [(networks.teacher, "targets", "teacher forward"), (loop, "hidden_patches", "masks")]
        functions += [(training, "_normalised", "crops to numbers")]
        if networks.student.type_head is not None:
            functions += [(networks.student.type_head, "loss", "losses")]
        replaced = [(owner, name, clock.around(part, getattr(owner, name))) for owner, name, part in functions]
        replaced += [(Tensor, "backward", backward), (training, "networks", replace(networks, wrapped=forward))]
        for name in ("unlabelled", "labelled"):
            if batches := getattr(self, name):
                waiting = clock.around("waiting for images", functools.partial(next, batches))
                replaced += [(self, name, iter(waiting, None))]
        with contextlib.ExitStack() as stack:
            for owner, name, new in replaced:
                stack.enter_context(mock.patch.object(owner, name, new))
            yield


def networks_alone(training: loop.Training, inputs: Inputs, gradients: list[Tensor]) -> None:
    """Both networks with their heads; ``gradients`` stand for the losses', and are made where there are none yet."""
    networks, dtype = training.networks, training.dtype
    with torch.autocast(networks.device.type, dtype, enabled=dtype is not torch.float32):
        with torch.no_grad():
            networks.teacher.targets(inputs.crops, inputs.masked)
        output = networks.wrapped(inputs.crops, inputs.masked, inputs.labelled)
    outputs = [tensor for tensor in output if tensor is not None]
    gradients += [torch.full_like(tensor, 1e-4) for tensor in outputs[len(gradients) :]]
    torch.autograd.backward(outputs, gradients)
    networks.optimiser.zero_grad(set_to_none=True)


def gflop(student: Branch, inputs: Inputs) -> float:
    """Of the matrix products of both networks in a step, a multiplication and an addition as two.

    The teacher's forward, the student's forward, and twice that for its backward; but an image has no gradient. Of n
    positions of D features, a block multiplies with each of its weights at each position, and 4 n² D for attention.
    """
    shape, (crops, n_patches) = student.backbone.shape, inputs.masked.shape

    def weights(module: nn.Module) -> int:
        return sum(own.weight.numel() for own in module.modules() if isinstance(own, nn.Linear))

    n = 1 + n_patches
    blocks = 2 * n * weights(student.backbone.blocks) + shape.depth * 4 * n**2 * shape.dim
    projection = 2 * n_patches * math.prod(student.backbone.patch_embed.proj.weight.shape)
    heads = 0
    for head, rows in ((student.dino_head, crops), (student.ibot_head, int(inputs.masked.sum()))):
        heads += 2 * rows * (weights(head.mlp) + head.last_layer.weight_v.numel())
    total = crops * (4 * blocks + 3 * projection) + 4 * heads
    if inputs.labelled is not None and student.type_head is not None:
        total += len(inputs.labelled) * (3 * blocks + 2 * projection + 3 * 2 * weights(student.type_head))
    return total / 1e9
