"""Choose how to run an encoder over a cohort: what is faster is compared with what is plain, and timed.

It is settled once, when a store is begun, and recorded there. What is faster than the plain network in float32 is used
only after its features of some of the cohort's own images were held against the plain ones, on this machine. The batch
size is the one with which this cohort takes the least time, as measured.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from milkit.encoder import Encoder, choose_device, computes_in_bf16
from milkit.errors import SettingsError
from milkit.execution import Execution, Run, require_openvino, running
from milkit.settings import ExtractSettings, Precision

CALIBRATION_IMAGES = 8
"""Images of the cohort whose features are compared and on which the time is taken."""

FP32_TOLERANCE = 1e-4
"""Largest difference to the plain features, in units of the largest of them (at least 1)."""

LEAST_COSINE = 0.999
"""Between an image's features with bfloat16 products and its plain ones."""

BATCH_SIZES: Mapping[str, Sequence[int]] = {"cpu": (8, 4, 16), "cuda": (32, 64, 128, 256)}
"""What is measured, by device; the first is taken where nothing can be measured."""


def settle(encoder: Encoder, settings: ExtractSettings, squares: Tensor, group_sizes: Sequence[int]) -> Execution:
    """Choose how to run an encoder over a cohort, by comparing and measuring.

    Args:
        encoder: Network and transform.
        settings: What the user insists on; what is ``auto`` or empty there is chosen here.
        squares: Some of the cohort's images, uint8 (n, size, size, 3); without any, the plain network is taken.
        group_sizes: Cells of each patient. A batch never crosses patients, so a larger one is padded more.

    Raises:
        SettingsError: If what was asked for cannot be had here, or changes the features too much.
    """
    device = choose_device(settings.device)
    backend = _backend(encoder, settings, device)
    precisions = _precisions(encoder, settings, device)
    size = settings.batch_size or BATCH_SIZES[device.type][0]
    plain = Execution(f"torch-{device.type}", "fp32", "model", size)
    if not len(squares):
        return dataclasses.replace(plain, backend=backend, precision=precisions[-1])
    network: Literal["for_features", "model"] = "for_features" if encoder.for_features else "model"
    trials = [Execution(backend, precision, network, size) for precision in precisions]
    trials += [plain] if precisions[-1] == "fp32" and backend == plain.backend else []
    found, expected = "", torch.empty(0)
    for trial in trials:
        if trial == plain:
            return _with_best_batch(encoder, trial, settings, squares, group_sizes)
        expected = expected if len(expected) else _features(encoder, plain, squares, plainly=True)
        difference, cosine = compare(_features(encoder, trial, squares), expected)
        if cosine >= LEAST_COSINE if trial.precision == "bf16" else difference <= FP32_TOLERANCE:
            checked = dataclasses.replace(trial, cosine=round(cosine, 6))
            return _with_best_batch(encoder, checked, settings, squares, group_sizes)
        found = f"a largest difference of {difference:.2g} and a least cosine of {cosine:.6f}"
    msg = (
        f"The encoder '{encoder.name}' run by {backend} in {precisions[-1]} gives other features than plain float32 "
        f"({found}; expected at most {FP32_TOLERANCE:g} in fp32, at least {LEAST_COSINE:g} in bf16); "
        "use --precision fp32 --backend torch."
    )
    raise SettingsError(msg)


def compare(found: Tensor, expected: Tensor) -> tuple[float, float]:
    """How far features (n, dim) are from the expected ones: largest difference (relative), least cosine of a row."""
    found, expected = found.double(), expected.double()
    difference = (found - expected).abs().max() / expected.abs().max().clamp(min=1.0)
    cosine = functional.cosine_similarity(found, expected, dim=1)
    cosine = torch.where((found == expected).all(dim=1), 1.0, cosine)  # rows of zeros have no direction
    return float(difference), float(cosine.min())


def _backend(encoder: Encoder, settings: ExtractSettings, device: torch.device) -> str:
    name = "torch" if settings.backend == "auto" else settings.backend
    if name not in encoder.backends:
        known = ", ".join(encoder.backends)
        msg = f"The backend {name} was asked for, and the encoder '{encoder.name}' runs by {known} only; use that."
        raise SettingsError(msg)
    if name == "openvino":
        if device.type != "cpu":
            msg = "The backend openvino was asked for on a GPU, expected the CPU; add --device cpu, or use torch."
            raise SettingsError(msg)
        require_openvino()
    return f"{name}-{device.type}"


def _precisions(encoder: Encoder, settings: ExtractSettings, device: torch.device) -> tuple[Precision, ...]:
    """What may be used, in the order in which it is tried."""
    if settings.precision == "auto":
        fast = "bf16" in encoder.precisions and computes_in_bf16(device)
        return ("bf16", "fp32") if fast else ("fp32",)
    if settings.precision not in encoder.precisions:
        known = ", ".join(encoder.precisions)
        msg = f"--precision {settings.precision} was given, and the encoder '{encoder.name}' knows {known}; use that."
        raise SettingsError(msg)
    return (settings.precision,)


def _features(encoder: Encoder, execution: Execution, squares: Tensor, *, plainly: bool = False) -> Tensor:
    """Features of some images on the CPU, in batches of the execution's size."""
    with running(encoder, execution, plainly=plainly) as run:
        size = execution.batch_size
        return torch.cat([run(_filled(part, size))[: len(part)] for part in torch.split(squares, size)]).cpu()


def _filled(squares: Tensor, n: int) -> Tensor:
    """The images, repeated to n."""
    return squares.repeat(-(-n // len(squares)), 1, 1, 1)[:n]


def _with_best_batch(
    encoder: Encoder, execution: Execution, settings: ExtractSettings, squares: Tensor, group_sizes: Sequence[int]
) -> Execution:
    """The execution with the batch size that this cohort is encoded fastest with, padding counted."""
    if settings.batch_size or execution.engine == "openvino":  # OpenVINO compiles for one size, many seconds each
        return execution
    times = {}
    with running(encoder, execution) as run:
        for size in BATCH_SIZES[execution.device.type]:
            try:
                seconds = _seconds(run, _filled(squares, size), execution.device)
            except torch.cuda.OutOfMemoryError:
                continue  # a smaller one may come behind it
            times[size] = seconds * sum(-(-n // size) for n in group_sizes)
    return dataclasses.replace(execution, batch_size=min(times, key=lambda size: times[size]) if times else 1)


def _seconds(run: Run, batch: Tensor, device: torch.device) -> float:
    """The time of a batch, after one that warms up."""
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        run(batch)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - started
    return seconds
