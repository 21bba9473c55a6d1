"""A cohort on disk, an encoder in a plugin, and real processes that extract one with the other.

``Jobs`` starts ``milkit`` in processes forked from one that has imported it already: a start takes milliseconds, so
that a test can kill many, at moments that fall into their work and not into ``import torch``.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image

PLUGIN = '''
import errno, os, time
from pathlib import Path
import pandas as pd
from torch import nn
from milkit.bags.arrays import BagArrays
from milkit.cohort import Cohort
from milkit.encoder import Encoder, Transform, encoder_digest
from milkit.registry import COHORTS, ENCODERS

class Means(nn.Module):
    """Means of each channel over a grid of fields, taken slowly."""

    def __init__(self, seconds, grid):
        super().__init__()
        self.seconds, self.grid = seconds, grid

    def forward(self, images):
        time.sleep(self.seconds)
        return nn.functional.adaptive_avg_pool2d(images, self.grid).flatten(1)

@ENCODERS.register("toy")
def toy(seconds: float = 0.0, size: int = 8, grid: int = 2) -> Encoder:
    """3 grid² features."""
    model, transform = Means(seconds, grid), Transform(size=size)
    digest = encoder_digest(model, transform, version=str(grid))
    return Encoder("toy", model, transform, 3 * grid**2, digest, precisions=("fp32",))

@COHORTS.register("loose")
def loose(root: Path) -> Cohort:
    """The same images as cells of nobody."""
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    cells = pd.DataFrame({"cell_id": paths, "patient_id": None, "path": paths}, dtype=object)
    patients = pd.DataFrame(index=pd.Index([], name="patient_id", dtype=object))
    return Cohort("loose", root, patients, cells, (), ids="pseudonymous")

if os.environ.get("NO_ROOM_FOR", "nobody") == os.environ.get("RANK", ""):
    writes, write = [], BagArrays.write

    def without_room(self, name, values, first):
        writes.append(name)
        if len(writes) > 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self, name, values, first)

    BagArrays.write = without_room
'''

LAUNCHER = """
import json, os, sys
import pandas, torch, torch.distributed
import milkit.bags, milkit.cli, milkit.cohort, milkit.extract, cohorts.tabular, zarr

for line in sys.stdin:
    order = json.loads(line)
    if "wait" in order:
        _, status, usage = os.wait4(order["wait"], 0)
        print(os.waitstatus_to_exitcode(status), usage.ru_maxrss, flush=True)
        continue
    child = os.fork()
    if not child:
        os.environ.update(order["environment"])
        for number, path in enumerate((os.devnull, order["stdout"], order["stderr"])):
            os.dup2(os.open(path, os.O_RDONLY if not number else os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
        sys.argv = ["milkit", *order["arguments"]]
        milkit.cli.main()
    print(child, flush=True)
"""


class Done(NamedTuple):
    """How a process ended: its status (negative: by this signal), its most memory in KiB, and what it said."""

    status: int
    peak: int
    stdout: str
    stderr: str


class Job:
    """A ``milkit`` that runs."""

    def __init__(self, jobs: "Jobs", pid: int, said: Path) -> None:
        self.jobs, self.pid, self.said = jobs, pid, said

    def signal(self, number: int) -> None:
        """Send it a signal; one that has ended takes it without a word."""
        os.kill(self.pid, number)  # until it is waited for, its id stays its own

    def wait(self) -> Done:
        """Wait for its end."""
        status, peak = map(int, self.jobs.order(wait=self.pid).split())
        return Done(status, peak, *(self.said.with_suffix(end).read_text() for end in (".out", ".err")))


class Jobs:
    """Starts processes of ``milkit``; a context that ends with the process that they are forked from."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.started = folder, 0

    def __enter__(self) -> "Jobs":
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MILKIT", "SLURM"))}
        self.launcher = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment | {"OMP_NUM_THREADS": "1"},
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self.launcher.stdin
        assert self.launcher.stdout
        self.launcher.stdin.close()
        self.launcher.wait(timeout=60)
        self.launcher.stdout.close()

    def order(self, **order: object) -> str:
        """One order, one answer."""
        assert self.launcher.stdin
        assert self.launcher.stdout
        self.launcher.stdin.write(json.dumps(order) + "\n")
        self.launcher.stdin.flush()
        return self.launcher.stdout.readline()

    def start(self, arguments: Sequence[object], environment: Mapping[str, str] | None = None) -> Job:
        """Start ``milkit`` with these arguments."""
        self.started += 1
        said = self.folder / f"{self.started}.said"
        out, err = (str(said.with_suffix(end)) for end in (".out", ".err"))
        words = [str(argument) for argument in arguments]
        pid = self.order(arguments=words, environment=dict(environment or {}), stdout=out, stderr=err)
        return Job(self, int(pid), said)

    def run(self, arguments: Sequence[object], status: int = 0) -> Done:
        """Run ``milkit`` to its end, which has this status."""
        done = self.start(arguments).wait()
        assert done.status == status, done
        return done

    def ranks(self, n: int, arguments: Sequence[object]) -> list[Job]:
        """Start ``milkit`` as ``n`` processes of one job."""
        place = {"WORLD_SIZE": str(n), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        return [self.start(arguments, place | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(n)]


class Study(NamedTuple):
    """A cohort on disk, and its recipe."""

    root: Path
    recipe: Path
    plugin: Path

    def image(self, patient: int, cell: int) -> Path:
        """Where an image lies."""
        return self.root / "smears" / f"P{patient:03d}" / f"{cell}.png"

    def extract(self, workspace: Path, *more: object, **encoder: float) -> list[object]:
        """Arguments of a ``milkit extract`` in batches of two; ``encoder`` are the arguments of the encoder."""
        start = ["--plugin", self.plugin, "--workspace", workspace, "extract", "--cohort", self.recipe]
        return [*start, "--batch-size", 2, "--set", f"encoder={json.dumps({'name': 'toy'} | encoder)}", *more]


def write_study(folder: Path, n_patients: int, n_cells: Callable[[int], int], size: int = 10) -> Study:
    """Noise images of patients P000, P001, … with ``n_cells(number)`` cells each, and everything to extract them."""
    study = Study(folder / "images", folder / "toy.yaml", folder / "toy_encoder.py")
    for patient in range(n_patients):
        for cell in range(n_cells(patient)):
            path = study.image(patient, cell)
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng([patient, cell]).integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(noise).save(path)
    names = [f"P{patient:03d}" for patient in range(n_patients)]
    table = pd.DataFrame({"patient_id": names, "label": [("A", "B")[number % 2] for number in range(n_patients)]})
    table.to_csv(study.root / "patients.csv", index=False)
    study.recipe.write_text(
        f"name: toy\nfactory: tabular\nids: pseudonymous\nroot: {study.root}\n"
        "arguments: {images: 'smears/{patient_id}/{cell_id}.png', patients: patients.csv}\n"
    )
    study.plugin.write_text(PLUGIN)
    return study


def store_in(workspace: Path) -> Path | None:
    """The workspace's only store, once it is there."""
    return next(iter(workspace.glob("stores/*/[!.]*.zarr")), None)


def store_bytes(workspace: Path) -> dict[str, bytes]:
    """Every file of the workspace's only store but ``source.json`` (times of day) and ``lock`` (who wrote it last)."""
    store = store_in(workspace)
    assert store
    files = (path for path in store.rglob("*") if path.is_file() and path.name not in ("source.json", "lock"))
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in files}


def committed(workspace: Path) -> int:
    """How many groups the store holds; -1 where there is none yet."""
    store = store_in(workspace)
    return sum((store / "committed" / "c" / "0").read_bytes()) if store else -1


def wait_for(what: Callable[[], bool], seconds: float = 60.0) -> None:
    """Return as soon as it is so."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.001)


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
