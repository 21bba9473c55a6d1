"""Schedules against the published training's own numbers, and against arrays written from their description."""

from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from encoders.dinov2.pretrain_settings import PretrainSettings
from encoders.dinov2.schedules import Moment, moment, warmed_cosine

BATCHES = {"s": 1216, "b": 960, "l": 448, "g": 208}
"""Images a step of the published trainings, by the size of the network."""


def settings_of(batch_size: int = BATCHES["b"], **schedule: Any) -> PretrainSettings:
    """The published schedules, or others."""
    chosen = {"sources": [{"cohort": {"name": "toy"}}], "batch_size": batch_size, "schedule": schedule}
    return PretrainSettings.model_validate(chosen)


def to_its_digits(published: float) -> Any:
    """What a number that was published is the rounding of."""
    return pytest.approx(published, rel=0, abs=0.5 * 10.0 ** int(Decimal(str(published)).as_tuple().exponent))


@pytest.mark.parametrize(("size", "peak"), [("s", 2.179e-4), ("b", 1.936e-4), ("l", 1.323e-4), ("g", 9.01e-5)])
def test_the_peak_learning_rate_is_that_of_the_published_batch(size: str, peak: float) -> None:
    settings = settings_of(BATCHES[size])
    assert settings.peak_learning_rate == to_its_digits(peak)
    assert moment(settings, 10_000).learning_rate == pytest.approx(settings.peak_learning_rate)


@pytest.mark.parametrize(
    ("iteration", "published"),
    [
        (4000, {"learning_rate": 7.7e-5, "momentum": 0.99402, "weight_decay": 0.0406, "teacher_temperature": 0.048}),
        (8000, {"learning_rate": 1.55e-4, "teacher_temperature": 0.056}),
        (9999, {"learning_rate": 1.94e-4}),
    ],
)
def test_values_are_those_of_the_published_training_of_dinobloom_b(iteration: int, published: dict[str, float]) -> None:
    now = moment(settings_of(), iteration)._asdict()
    assert {name: now[name] for name in published} == {name: to_its_digits(value) for name, value in published.items()}


def test_all_starts_where_it_was_published_to_start() -> None:
    assert tuple(moment(settings_of(), 0)) == pytest.approx((0.0, 0.0, 0.04, 0.994, 0.04), rel=1e-12, abs=0)


@pytest.mark.parametrize("iteration", [14_999, 15_000, 50_000])
def test_the_temperature_has_risen_after_15_000_iterations(iteration: int) -> None:
    assert moment(settings_of(), iteration).teacher_temperature == 0.07
    assert moment(settings_of(), 14_998).teacher_temperature < 0.07


@pytest.mark.parametrize(("iteration", "frozen"), [(0, True), (499, True), (500, False), (501, False)])
def test_the_prototypes_do_not_learn_in_the_first_500_iterations(iteration: int, frozen: bool) -> None:
    now = moment(settings_of(), iteration)
    assert now.last_layer_learning_rate == (0.0 if frozen else now.learning_rate)
    assert iteration == 0 or now.learning_rate > 0


@pytest.mark.parametrize("beyond", [100_000, 100_001, 10**9])
def test_beyond_the_horizon_all_stays_at_its_end(beyond: int) -> None:
    assert moment(settings_of(), beyond) == Moment(1e-6, 1e-6, 0.2, 1.0, 0.07)


def test_a_line_of_numpy_s_and_half_a_cosine_follow_each_other() -> None:
    start, peak, end, warmup, length = 0.5, 3.0, 0.25, 7, 40
    i = np.arange(length - warmup)
    line = np.linspace(start, peak, warmup)
    expected = [*line, *(end + 0.5 * (peak - end) * (1 + np.cos(np.pi * i / len(i)))), end, end]
    found = [warmed_cosine(n, start, peak, end, warmup=warmup, length=length) for n in range(length + 2)]
    np.testing.assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.parametrize("warmup", [0, 1])
def test_without_a_warmup_the_first_iteration_that_moves_is_at_the_peak(warmup: int) -> None:
    """One iteration of warming up is at its start, as numpy's line of one number is."""
    found = [warmed_cosine(n, 0.0, 2.0, 1.0, warmup=warmup, length=10) for n in range(warmup + 1)]
    assert found == [0.0] * warmup + [2.0]


@pytest.mark.parametrize(
    "schedule",
    [
        {"iterations": 5, "warmup": 10, "teacher_warmup": 20, "freeze_last_layer": 30},
        {"iterations": 10, "warmup": 10, "teacher_warmup": 10},
        {"iterations": 1, "warmup": 0, "teacher_warmup": 0, "freeze_last_layer": 0},
    ],
)
def test_a_run_shorter_than_its_warmups_has_finite_values_that_do_not_jump_back(schedule: dict[str, Any]) -> None:
    settings = settings_of(**schedule)
    moments = [moment(settings, iteration) for iteration in range(40)]
    assert np.isfinite(moments).all()
    temperatures = [now.teacher_temperature for now in moments]
    assert temperatures == sorted(temperatures)
    assert temperatures[-1] == 0.07
