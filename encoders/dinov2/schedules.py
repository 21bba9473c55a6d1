"""What changes with the iteration: a pure function of it, so that a resumed run needs nothing kept."""

import math
from typing import NamedTuple

from encoders.dinov2.pretrain_settings import PretrainSettings


class Moment(NamedTuple):
    """The values of all schedules at one iteration."""

    learning_rate: float
    last_layer_learning_rate: float
    """Of the prototypes, which begin to learn later."""
    weight_decay: float
    momentum: float
    teacher_temperature: float


def moment(settings: PretrainSettings, iteration: int) -> Moment:
    """The values at an iteration, counted from 0; beyond the horizon those at its end."""
    schedule = settings.schedule
    horizon = schedule.iterations
    rate = warmed_cosine(
        iteration, 0.0, settings.peak_learning_rate, schedule.min_learning_rate, warmup=schedule.warmup, length=horizon
    )
    cold, warm = schedule.teacher_temperature
    rising = schedule.teacher_warmup
    return Moment(
        learning_rate=rate,
        last_layer_learning_rate=0.0 if iteration < schedule.freeze_last_layer else rate,
        weight_decay=warmed_cosine(iteration, 0.0, *schedule.weight_decay, warmup=0, length=horizon),
        momentum=warmed_cosine(iteration, 0.0, *schedule.momentum, warmup=0, length=horizon),
        teacher_temperature=warmed_cosine(iteration, cold, warm, warm, warmup=rising, length=max(horizon, rising)),
    )


def warmed_cosine(iteration: int, start: float, peak: float, end: float, *, warmup: int, length: int) -> float:
    """From ``start`` to ``peak`` along a line in ``warmup`` iterations, then to ``end`` along half a cosine.

    The line's last iteration is at ``peak`` (numpy's linspace); of the cosine, iteration i of n is at
    end + (peak - end) (1 + cos(π i / n)) / 2, so that its first one is at ``peak`` again, and ``end`` is reached at
    ``length``.
    """
    if iteration < warmup:
        return start + (peak - start) * iteration / max(warmup - 1, 1)
    if iteration >= length:
        return end
    return end + 0.5 * (peak - end) * (1 + math.cos(math.pi * (iteration - warmup) / (length - warmup)))
