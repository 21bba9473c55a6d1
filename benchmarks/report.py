"""What a report of a large cohort costs: ``python benchmarks/report.py [--json FILE]``.

200 simulated patients of five classes with 500 cells each, whose images are drawn cells of 144 x 144 px (some hundred
files, which the patients share). A run of one short training with the quick explanation is made first, which is not
timed. Then ``milkit report`` is called as a user calls it, from start to the finished folder, on two cores at most:

pages          true pixels, 12 pictures a patient, in an index and one page a patient
single file    reduced pictures, 60 a patient, in one file

seconds        from call to end
peak MB        the largest memory of the process (Linux only)
page MB        ``report.html``, and in brackets the whole folder
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

WAYS = {
    "pages": [],
    "single file": ["--single-file", "--top", "20", "--set", "random=20", "--set", "bottom=20"],
}
BARS = {"seconds": 60.0, "peak_mb": 2048.0, "single_file_mb": 25.0}
CLASSES = ("APL", "NPM1", "CBFB_MYH11", "RUNX1_RUNX1T1", "control")
DIM = 16


def main() -> None:
    """Measure, print the table, and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="Write the figures to this file.")
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--cells", type=int, default=500)
    parser.add_argument("--images", type=int, default=400, help="Different images that are drawn.")
    parser.add_argument("--keep", type=Path, help="Make the run in this folder, and leave it there.")
    given = parser.parse_args()
    if given.keep:
        results = measure(given.keep, given)
    else:
        with tempfile.TemporaryDirectory(prefix="milkit-benchmark-") as folder:
            results = measure(Path(folder), given)
    if (given.patients, given.cells) == (200, 500):
        bars(results)
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def measure(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Make the run, and write its report in both ways."""
    run = folder / "run"
    if not run.exists():
        make_run(folder, run, given)
    ways = {}
    print(f"{'way':<12}{'seconds':>9}{'CPU s':>8}{'peak MB':>9}{'page MB':>9}")
    for way, flags in WAYS.items():
        ways[way] = own = watched([sys.executable, "-m", "milkit", "report", "--run", str(run), *flags])
        report = run / "report"
        own["page_mb"] = (report / "report.html").stat().st_size / 1e6
        own["folder_mb"] = sum(path.stat().st_size for path in report.rglob("*") if path.is_file()) / 1e6
        print(
            f"{way:<12}{own['seconds']:>9.1f}{own['cpu_seconds']:>8.1f}{own['peak_mb']:>9.0f}{own['page_mb']:>9.1f} "
            f"({own['folder_mb']:.1f})"
        )
    return {
        "seconds": max(own["seconds"] for own in ways.values()),
        "peak_mb": max(own["peak_mb"] for own in ways.values()),
        "single_file_mb": ways["single file"]["page_mb"],
        "patients": given.patients,
        "cells": given.cells,
        "ways": ways,
    }


def make_run(folder: Path, run: Path, given: argparse.Namespace) -> None:
    """A store of simulated features whose cells point at drawn images, and a run of three folds."""
    from milkit.bags import SCALE, BagStore
    from milkit.explain.verb import explain_quickly
    from milkit.mil.crossval import cross_validate
    from milkit.settings import MilSettings

    draw(folder / "images", given.images)
    generator = np.random.default_rng(0)
    names = [f"P{n:03d}" for n in range(given.patients)]
    rows = [(f"{name}/{n}", name) for name in names for n in range(given.cells)]
    cells = pd.DataFrame(rows, columns=["cell_id", "patient_id"])
    cells["path"] = [f"{n}.tif" for n in generator.integers(0, given.images, len(cells))]
    labels = [CLASSES[n % len(CLASSES)] for n in range(given.patients)]
    patients = pd.DataFrame({"label": labels}, index=pd.Index(names, name="patient_id"))
    facts: dict[str, Any] = {
        "dtype": "float16",
        "cohort": "benchmark",
        "classes": list(CLASSES),
        "encoder": "none",
        "backend": "",
    }
    facts |= {"encoder_digest": "", "cohort_digest": "", "transform": {}, "batch_size": 8, "precision": ""}
    store = BagStore.create(folder / "bags.zarr", patients, cells, DIM, {**facts, "milkit": "", SCALE: 25 / 144})
    for name, label in zip(names, labels, strict=True):
        bag = generator.normal(size=(given.cells, DIM))
        bag[: given.cells // 10, CLASSES.index(label)] += 4.0
        store.write(name, bag, np.zeros((given.cells, 32), dtype=np.uint8), {})
    store.close()
    source = {"root": str((folder / "images").resolve()), "notes": []}
    (folder / "bags.zarr" / "source.json").write_text(json.dumps(source), encoding="utf-8")
    settings = MilSettings.model_validate(
        {"store": folder / "bags.zarr", "folds": 3, "repeats": 2, "bootstrap": 200, "training": {"max_epochs": 3}}
    )
    cross_validate(BagStore.open(folder / "bags.zarr"), settings, run)
    explain_quickly(run, "cpu")


def draw(folder: Path, number: int) -> None:
    """Cells of all kinds in turn, some of each smear."""
    from PIL import Image

    from cohorts.cell_drawing import draw_cell, draw_stain
    from cohorts.cell_kinds import KINDS

    folder.mkdir(parents=True)
    kinds = sorted(KINDS)
    for n in range(number):
        stain = draw_stain(np.random.default_rng((n // 20, 0)))
        image = draw_cell(kinds[n % len(kinds)], stain, np.random.default_rng((n, 1)))
        Image.fromarray(image).save(folder / f"{n}.tif")


def watched(command: list[str]) -> dict[str, float]:
    """Run a command on two cores at most; its seconds, and the CPU time and the peak memory of its process."""
    two = set(sorted(os.sched_getaffinity(0))[:2]) if hasattr(os, "sched_getaffinity") else set()
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    if two:
        os.sched_setaffinity(process.pid, two)
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        msg = f"{' '.join(command)} ended with status {os.waitstatus_to_exitcode(status)}"
        raise RuntimeError(msg)
    return {"seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime, "peak_mb": used.ru_maxrss / 1024}


def bars(results: dict[str, Any]) -> None:
    """Say which bars are met."""
    for name, bar in BARS.items():
        print(f"{name} {results[name]:.1f}, bar {bar:g}: {'met' if results[name] <= bar else 'MISSED'}")


if __name__ == "__main__":
    main()
