"""Progress on stderr, with rate and time left: a bar where a person is watching, a line now and then in a log."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

SECONDS_BETWEEN_LINES = 30.0


class Advance(Protocol):
    """Tell that ``n`` more items are done."""

    def __call__(self, n: int = 1) -> None: ...  # noqa: D102


@contextmanager
def progress(what: str, total: int, unit: str) -> Iterator[Advance]:
    """Show ``what``, how many of ``total`` units are done, units a second and the time left."""
    if not sys.stderr.isatty():
        yield _lines(what, total, unit)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(f"{task.speed:.3g} {unit}/s" if task.speed else f"- {unit}/s")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda n=1: bar.advance(task, n)


def _lines(what: str, total: int, unit: str) -> Advance:
    """Batch systems and CI keep stderr in a file: a line every half minute, none for what is quick."""
    started = said = time.monotonic()
    done = 0

    def advance(n: int = 1) -> None:
        nonlocal done, said
        done += n
        now = time.monotonic()
        if now - said >= SECONDS_BETWEEN_LINES:
            said, rate = now, done / (now - started)
            left = (total - done) / rate
            print(f"{what}: {done} of {total} {unit}, {rate:.3g} {unit}/s, {left:.0f} s left", file=sys.stderr)  # noqa: T201

    return advance
