"""Steps of a pre-training, and what of them is not the networks: ``python benchmarks/pretrain.py [--json FILE]``.

A step is that of ``milkit pretrain``: the loop's own functions, on drawn JPEGs that worker processes read. Recipes:
``vit_s`` is DinoBloom-S (224 pixels, 65,536 prototypes) with 8 images a step on a CPU and, on a GPU, the largest power
of two that fits; others are names in ``configs/encoders`` or files, their cohorts replaced by the drawn images. Each
recipe and precision has a process of its own, in which three things take turns, round after round:

step      whole steps; first, untimed, as many as batches wait ready made, so that slow reading shows
parts     a step with clocks around the functions that it calls; on a GPU each clock waits for what was started
networks  the teacher's forward, the student's forward and backward, with their projection heads, on the same crops,
          and nothing else: no targets, losses, clipping, optimiser or moving average; nothing is left to read

The overhead is 1 - networks / step. Figures, which are computed at every ``log_every``-th step, are in the step with
that share. Work is that of the matrix products, by formula; the ceiling is the rate of the widest product of a block
over all crops of a step, in the same process and number type (on a GPU, float32 trains in TF32, and so is its ceiling).
Nobody has run it on a GPU yet.
"""

import argparse
import contextlib
import functools
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from step_clock import NETWORKS, OVERHEAD, Clock, Steps, gflop, networks_alone

from encoders.dinov2.engines import device_of, new_networks, precision_of
from encoders.dinov2.feeds import MOST_WORKERS, labelled_images, streams_of
from encoders.dinov2.loop import Training
from encoders.dinov2.pretrain import transform_of
from encoders.dinov2.pretrain_settings import PretrainSettings
from encoders.dinov2.step import Inputs, hidden_patches, train_step
from encoders.dinov2.stream import AHEAD
from milkit.cohort import load_cohort
from milkit.encoder import choose_device, computes_in_bf16
from milkit.errors import MilkitError
from milkit.ranks import ALONE
from milkit.runs import available_cores
from milkit.settings import find_recipe, load

BAR = 0.15
LABELS = "BA EO ERB LY MO PLATELET BNE SNE MMY MY PMY".split()  # noqa: SIM905
MOST_IMAGES = 4096


def main() -> None:
    """Measure, print the tables, and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="Write the figures to this file.")
    parser.add_argument("--recipes", nargs="+", default=["vit_s", "milkit_mini", "tiny_cpu"])
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--batch", type=int, help="Images a step, in place of the recipe's.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="Timed steps a round.")
    parser.add_argument("--images", type=int, default=256, help="Images that are drawn.")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.folder:
        print(json.dumps(measure(given)))
        return
    try:
        fast = computes_in_bf16(choose_device(given.device))
    except MilkitError as error:
        parser.error(str(error))
    if "bf16" in given.precision and not fast:
        print("bf16 is left out: this device emulates it")
        given.precision.remove("bf16")
    with tempfile.TemporaryDirectory(prefix="milkit-benchmark-") as folder:
        draw(Path(folder), given.images)
        runs = [in_own_process(given, folder, name, kind) for name in given.recipes for kind in given.precision]
    show(runs)
    if given.json:
        given.json.write_text(json.dumps(runs, indent=2) + "\n", encoding="utf-8")


def draw(folder: Path, n_images: int) -> None:
    """Write drawn cells as JPEGs of Acevedo's size, under names as that cohort has them."""
    import numpy as np
    from PIL import Image

    from cohorts.cell_drawing import draw_cell, draw_stain
    from cohorts.cell_kinds import KINDS

    kinds, source = list(KINDS), np.random.default_rng(0)
    for number in range(n_images):
        cell = Image.fromarray(draw_cell(kinds[number % len(kinds)], draw_stain(source), source))
        name = f"{LABELS[number % len(LABELS)]}_{number}.jpg"
        cell.resize((360, 363), Image.Resampling.BICUBIC).save(folder / name, quality=90)


def in_own_process(given: argparse.Namespace, folder: str, name: str, precision: str) -> dict[str, Any]:
    """One recipe in one precision, measured alone."""
    command = [sys.executable, __file__, "--folder", folder, "--recipes", name, "--precision", precision]
    command += ["--device", given.device, "--rounds", str(given.rounds), "--steps", str(given.steps)]
    command += ["--batch", str(given.batch)] if given.batch else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {"recipe": Path(name).stem, **json.loads(done.stdout)}


def settings_of(given: argparse.Namespace) -> PretrainSettings:
    """The recipe, on the drawn images."""
    name = given.recipes[0]
    recipe = None if name == "vit_s" else find_recipe("encoders", name)
    batch = given.batch or (None if recipe else 8)
    workers = min(max(available_cores() - 1, 1), MOST_WORKERS)  # as many as an empty setting means
    changes = {"sources": [{"cohort": "acevedo", "root": str(given.folder)}], "batch_size": batch, "workers": workers}
    return load(PretrainSettings, recipe, {**changes, "device": given.device, "precision": given.precision[0]})


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """All rounds of one recipe in one precision."""
    settings = settings_of(given)
    device = device_of(settings, 0)
    dtype = precision_of(settings, device)
    if device.type == "cuda" and given.recipes[0] == "vit_s" and not given.batch:
        settings = settings.model_copy(update={"batch_size": largest_batch(settings, device, dtype)})
    images, chains = labelled_images(settings, [load_cohort(source.cohort) for source in settings.sources])
    networks = new_networks(settings, chains, device)
    training = Training(settings, given.folder, ALONE, networks, transform_of(settings), dtype)
    steps = Steps(training, *streams_of(settings, images, ALONE, 0))
    clock, rounds = Clock(device), []
    memory: dict[str, float] = {}
    for _ in range(given.rounds):
        before, made = readers_idle(), steps.made
        for _ in range(AHEAD * (settings.workers or 0)):
            steps.make()
        whole = [clock.time(steps.make) for _ in range(given.steps)]
        parts = steps.parts()
        memory = memory or peaks(device)  # of steps alone
        reading = (readers_idle() - before) / (steps.made - made) / settings.batch_size
        assert steps.last is not None
        gradients: list[torch.Tensor] = []
        alone = functools.partial(networks_alone, training, steps.last, gradients)
        alone()  # makes the gradients
        found = {"step": statistics.median(whole) + parts["figures"], "parts": parts, "reading": reading}
        found |= {"networks": statistics.median(clock.time(alone) for _ in range(given.steps))}
        rounds.append(found | {"gflop": gflop(networks.student, steps.last), "ceiling": ceiling(training, clock)})
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    about = {"device": where, "precision": given.precision[0], "batch": settings.batch_size, "rounds": given.rounds}
    return {**about, "workers": settings.workers, **summary(rounds, settings.batch_size), **memory}


def summary(rounds: list[dict[str, Any]], batch: int) -> dict[str, Any]:
    """Medians over rounds, and what follows from them."""
    middle = {key: statistics.median(each[key] for each in rounds) for key in rounds[0] if key != "parts"}
    shares = [1 - each["networks"] / each["step"] for each in rounds]
    return {
        "seconds": middle["step"],
        "spread": [min(each["step"] for each in rounds), max(each["step"] for each in rounds)],
        "images_per_second": batch / middle["step"],
        "networks_seconds": middle["networks"],
        "overhead": statistics.median(shares),
        "overhead_spread": [min(shares), max(shares)],
        "gflop": middle["gflop"],
        "ceiling_gflops": middle["ceiling"],
        "share_of_ceiling": middle["gflop"] / middle["step"] / middle["ceiling"],
        "share_of_networks": middle["gflop"] / middle["networks"] / middle["ceiling"],
        "reading_ms": 1e3 * middle["reading"],
        "parts": {part: statistics.median(each["parts"][part] for each in rounds) for part in NETWORKS + OVERHEAD},
    }


def largest_batch(settings: PretrainSettings, device: torch.device, dtype: torch.dtype) -> int:
    """The largest power of two of images whose step fits on the GPU."""
    size = 8
    while size < MOST_IMAGES:
        larger = settings.model_copy(update={"batch_size": 2 * size})
        try:
            networks = new_networks(larger, None, device)
            crops = torch.randn(4 * size, 3, *2 * [settings.network.image_size], device=device)
            for iteration in range(2):  # the optimiser's averages are made by the first one
                inputs = Inputs(crops, hidden_patches(larger, iteration, 0, 1).to(device))
                train_step(networks, inputs, larger, iteration, dtype)()
        except torch.OutOfMemoryError:
            break
        finally:
            networks = crops = inputs = None  # type: ignore[assignment]
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        size *= 2
    return size


def ceiling(training: Training, clock: Clock) -> float:
    """GFLOP/s of the widest product of a block."""
    shape, device = training.settings.network.shape, training.networks.device
    rows = 2 * training.settings.batch_size * shape.positions
    x, w = (torch.randn(n, shape.dim, device=device, dtype=training.dtype) for n in (rows, shape.hidden))
    seconds = statistics.median(clock.time(lambda: torch.nn.functional.linear(x, w)) for _ in range(13))
    return 2 * x.numel() * len(w) / seconds / 1e9


def peaks(device: torch.device) -> dict[str, float]:
    """Largest memory so far in MiB: of this process, of the largest one that reads, and of the GPU."""
    others = max((status(pid).get("VmHWM", 0.0) for pid in descendants(os.getpid())), default=0.0)
    found = {"peak_mib": status(os.getpid()).get("VmHWM", 0.0), "reader_mib": others}
    if device.type == "cuda":
        found["gpu_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return found


def status(pid: int) -> dict[str, float]:
    """Sizes that Linux keeps of a process, in MiB; nothing elsewhere."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {line.partition(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.endswith(" kB")}
    return {}


def descendants(pid: int) -> list[int]:
    """Processes that a process has started, and those that these have."""
    own: list[int] = []
    with contextlib.suppress(OSError):
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            own += map(int, children.read_text().split())
    return own + [pid for child in own for pid in descendants(child)]


def readers_idle() -> float:
    """Wait until the processes that read have read all that may wait; the processor's seconds that they had so far."""
    ticks = -1
    while ticks != (ticks := sum(map(ticks_of, descendants(os.getpid())))):
        time.sleep(0.2)
    return ticks / os.sysconf("SC_CLK_TCK")


def ticks_of(pid: int) -> int:
    """Of the processor, that a process had."""
    with contextlib.suppress(OSError):
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return int(user) + int(system)
    return 0


def show(runs: list[dict[str, Any]]) -> None:
    """Print the tables, and whether the bar is met."""
    print(f"{runs[0]['device']}; medians of {runs[0]['rounds']} rounds")
    print(
        f"{'':<18}{'batch':>6}{'s/step':>8} {'spread':>13}{'images/s':>10}{'GFLOP':>9}{'GFLOP/s':>9}{'ceiling':>9}",
        end="",
    )
    print(f"{'share':>7}{'networks alone':>16}{'their share':>13}")
    for run in runs:
        spread = "-".join(f"{seconds:.3f}" for seconds in run["spread"])
        print(
            f"{title(run):<18}{run['batch']:>6}{run['seconds']:>8.3f} {spread:>13}{run['images_per_second']:>10.1f}",
            end="",
        )
        print(f"{run['gflop']:>9.1f}{run['gflop'] / run['seconds']:>9.0f}{run['ceiling_gflops']:>9.0f}", end="")
        print(f"{run['share_of_ceiling']:>7.0%}{run['networks_seconds']:>14.3f} s{run['share_of_networks']:>13.0%}")
    print("\nms of a step" + "".join(f"{title(run):>21}" for run in runs))
    for part in NETWORKS + OVERHEAD:
        each = [(run["parts"][part], sum(run["parts"].values())) for run in runs]
        print(f"{part:<20}" + "".join(f"{1e3 * own:>12.1f} {own / whole:>6.1%} " for own, whole in each))
    print()
    for run in runs:
        gpu = f", {run['gpu_mib']:.0f} MiB of the GPU" if "gpu_mib" in run else ""
        print(
            f"{title(run)}: peak memory {run['peak_mib']:.0f} MiB and {run['reader_mib']:.0f} MiB a process that reads"
            f"{gpu}; reading takes {run['reading_ms']:.1f} ms of one core an image, by {run['workers']} workers"
        )
    for run in runs:
        low, high = run["overhead_spread"]
        verdict = "met" if run["overhead"] <= BAR else "MISSED"
        print(f"{title(run)}: overhead {run['overhead']:.1%} ({low:.1%} to {high:.1%}), bar {BAR:.0%}: {verdict}")


def title(run: dict[str, Any]) -> str:
    """Recipe and precision."""
    return f"{run['recipe']} {run['precision']}"


if __name__ == "__main__":
    main()
