"""One iteration: the teacher's targets, the student's losses and their gradients, and both networks moved.

What is computed is DinoBloom's training as its code in effect ran it (Koch et al., arXiv:2404.05022; Oquab et al.,
arXiv:2304.07193): the class token's loss between the two crops, the hidden patches' loss, and KoLeo. Labels add the
hierarchical loss. Every mean is over the images of all processes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from encoders.dinov2.hierarchy import HierarchicalHead
from encoders.dinov2.losses import dino_loss, ibot_loss, koleo_loss, sinkhorn_knopp, target_entropy
from encoders.dinov2.masking import block_masks
from encoders.dinov2.monitors import centre_entropy
from encoders.dinov2.networks import Branch, StudentOutput
from encoders.dinov2.optimiser import clip, follow, set_moment
from encoders.dinov2.pretrain_settings import PretrainSettings
from encoders.dinov2.processes import summed, world_size
from encoders.dinov2.schedules import moment
from milkit.errors import TrainingError

MASKS = 1
"""Purpose of the random numbers that choose hidden patches, beside those of the stream."""


class Inputs(NamedTuple):
    """What one iteration of this process sees."""

    crops: Tensor
    """(2b, 3, H, W) float32: first all first crops, then all second ones."""
    masked: Tensor
    """(2b, N) bool: the patches that are hidden from the student."""
    labelled: Tensor | None = None
    """(L, 3, H, W) float32."""
    labels: Tensor | None = None
    """(L,) rows of the table of labels."""
    hidden: Tensor | None = None
    """(2, m): ``masked.nonzero().T``, told beforehand so that a GPU need not be waited for."""


def hidden_patches(settings: PretrainSettings, iteration: int, rank: int, world: int) -> Tensor:
    """The masks of this process' crops, (2b, N); all processes draw those of all images, and each takes its own."""
    source = np.random.default_rng([settings.seed, MASKS, iteration])
    n, grid = settings.batch_size, settings.network.shape.grid
    drawn = block_masks(source, 2 * n, grid, settings.mask_probability, settings.mask_ratio)
    own = slice(rank * n // world, (rank + 1) * n // world)
    return torch.from_numpy(drawn.reshape(2, n, -1)[:, own].reshape(-1, drawn.shape[-1]))


@dataclass(frozen=True)
class Networks:
    """All that learns.

    Attributes:
        student: The student itself.
        wrapped: What is called in its place: the same, or one that averages gradients over processes.
        teacher: Its moving average.
        optimiser: Of the student.
    """

    student: Branch
    wrapped: Callable[..., StudentOutput]
    teacher: Branch
    optimiser: torch.optim.Optimizer

    @property
    def device(self) -> torch.device:
        """Where they lie."""
        return next(self.student.parameters()).device


def train_step(
    networks: Networks, inputs: Inputs, settings: PretrainSettings, iteration: int, dtype: torch.dtype
) -> Callable[[], dict[str, float]]:
    """Move student and teacher by one iteration. A GPU is waited for once: for the norms of its gradients.

    Returns:
        What tells the figures of this iteration when it is called, which waits for a GPU; call it now and then, on all
        processes alike.

    Raises:
        TrainingError: If the gradients are not finite: nothing was moved.
    """
    now = moment(settings, iteration)
    set_moment(networks.optimiser, now)
    device = networks.device.type
    with torch.autocast(device, dtype, enabled=dtype is not torch.float32):
        with torch.no_grad():
            cls, patches = networks.teacher.targets(inputs.crops, inputs.masked, inputs.hidden)
            dino_targets = sinkhorn_knopp(cls, now.teacher_temperature)
            ibot_targets = sinkhorn_knopp(patches, now.teacher_temperature)
        output = networks.wrapped(inputs.crops, inputs.masked, inputs.labelled, inputs.hidden)
    losses = _losses(output, dino_targets, ibot_targets, inputs, networks.student.type_head, settings)
    weights = {"dino": settings.dino_weight, "ibot": settings.ibot_weight, "koleo": settings.koleo_weight}
    weights |= {"supervised": settings.supervision.weight} if settings.supervision else {}
    total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum()
    total.backward()  # type: ignore[no-untyped-call]
    norms = clip(networks.student, settings.clip)
    if not all(np.isfinite(norm) for norm in norms.values()):
        msg = (
            f"The gradients of iteration {iteration} are not finite ({', '.join(map(str, norms.values()))}), where "
            "numbers were expected; begin anew under another --name with a lower schedule.learning_rate."
        )
        error = TrainingError(msg)
        error.shared = True  # the norms are those of all processes
        raise error
    networks.optimiser.step()
    networks.optimiser.zero_grad(set_to_none=True)
    follow(networks.teacher, networks.student, now.momentum)

    def figures() -> dict[str, float]:
        means = summed(torch.stack([total.detach(), *(loss.detach() for loss in losses.values())])) / world_size()
        return {
            **dict(zip(["loss", *losses], means.tolist(), strict=True)),
            "target_entropy": target_entropy(dino_targets),
            "centre_entropy": centre_entropy(output.dino.detach().float(), settings.student_temperature),
            **{f"gradient_{name}": norm for name, norm in norms.items()},
            **now._asdict(),
        }

    return figures


def _losses(
    output: StudentOutput,
    dino_targets: Tensor,
    ibot_targets: Tensor,
    inputs: Inputs,
    types: HierarchicalHead | nn.Module | None,
    settings: PretrainSettings,
) -> dict[str, Tensor]:
    temperature = settings.student_temperature
    first, second = output.cls.float().chunk(2)
    losses = {
        "dino": dino_loss(output.dino, dino_targets, temperature),
        "ibot": ibot_loss(output.ibot, ibot_targets, inputs.masked, temperature),
        "koleo": koleo_loss(first) + koleo_loss(second),
    }
    if output.types is not None and isinstance(types, HierarchicalHead) and inputs.labels is not None:
        of_own, n_own = types.loss(output.types.float(), inputs.labels)
        n_all = summed(n_own.float())
        losses["supervised"] = of_own * world_size() / n_all.clamp(min=1)  # the mean over all, once gradients are
    return losses
