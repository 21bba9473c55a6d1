"""A progress bar on stderr with rate and time left, where a person is watching; silent otherwise."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Tell the bar that ``n`` more items are done."""

    def __call__(self, n: int = 1) -> None: ...  # noqa: D102


@contextmanager
def progress(what: str, total: int, unit: str) -> Iterator[Advance]:
    """Show ``what``, how many of ``total`` units are done, units a second and the time left."""
    if not sys.stderr.isatty():
        yield lambda n=1: None
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
