"""Processes of our own that measure images, and are asked through pipes.

Measuring makes many short calls of numpy and Pillow, which hold Python's lock: on two cores two threads were no faster
than one (1.0 times), two processes 1.9 times. ``multiprocessing`` would run the caller's main module once more.
"""

import json
import os
import signal
import subprocess
import sys
import warnings
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np

from milkit.check.measures import MEASURES, CellFile, Records, measure_file

AT_ONCE = 64
"""Files that a process is asked for together: tens of milliseconds of work, against one millisecond to ask."""
AHEAD = 4
"""Answers a process that may wait for who takes them; memory is bounded by these."""


class Measured(NamedTuple):
    """What was measured of some files: a row a box, and by the number of the row why a cell could not be read."""

    records: Records
    reasons: dict[int, str]


def measure_files(root: Path, files: Sequence[CellFile]) -> Measured:
    """Measure files one after the other, in this process."""
    parts, reasons, done = [], dict[int, str](), 0
    for file in files:
        records, failed = measure_file(root, file)
        reasons |= {done + number: reason for number, reason in failed.items()}
        parts.append(records)
        done += len(records)
    return Measured(np.concatenate(parts), reasons)


def measure_by_processes(
    root: Path, batches: Iterable[Sequence[CellFile]], processes: int
) -> Generator[Measured, None, None]:
    """Measure batches of files with several processes; the answers come in the order of the batches."""
    with ExitStack() as stack:
        idle = SimpleQueue[_Worker]()
        for _ in range(processes):
            idle.put(stack.enter_context(_Worker()))
        pool = stack.enter_context(ThreadPoolExecutor(processes))  # left before the processes are ended

        def ask(batch: Sequence[CellFile]) -> Measured:
            worker = idle.get()
            try:
                return worker.ask(root, batch)
            finally:
                idle.put(worker)

        waiting: deque[Future[Measured]] = deque()
        try:
            for batch in batches:
                waiting.append(pool.submit(ask, batch))
                if len(waiting) > AHEAD * processes:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def serve() -> None:
    """Answer on stdout what is asked on stdin, until it ends: the other side of ``measure_by_processes``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interruption reaches all processes; the first one ends the others
    warnings.simplefilter("ignore")  # Pillow's, of metadata that nobody reads
    for line in sys.stdin.buffer:
        question = json.loads(line)
        records, reasons = measure_files(Path(question["root"]), [CellFile(*file) for file in question["files"]])
        answer = {"rows": len(records), "reasons": list(reasons.items())}
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + records.tobytes())
        sys.stdout.buffer.flush()


class _Worker:
    """One process, asked one batch at a time."""

    def __init__(self) -> None:
        path = os.pathsep.join(part or str(Path.cwd()) for part in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from milkit.check.workers import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, root: Path, files: Sequence[CellFile]) -> Measured:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps({"root": str(root), "files": files}).encode() + b"\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            msg = "A process that measures images ended before its time; its traceback, if it left one, is above."
            raise RuntimeError(msg)
        answer: dict[str, Any] = json.loads(line)
        content = stdout.read(answer["rows"] * MEASURES.itemsize)
        return Measured(np.frombuffer(content, dtype=MEASURES), dict(answer["reasons"]))
