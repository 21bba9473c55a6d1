"""Options that several commands take alike, and how they find their place and speak."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from milkit.ranks import speaks
from milkit.runs import Workspace

if TYPE_CHECKING:
    from milkit.bags import BagStore

FINDINGS = 3
"""Exit status: finished, and there is something that should be looked at."""

Root = Annotated[Path | None, typer.Option(help="The folder with the cohort's files, where the recipe leaves it open.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Config = Annotated[str | None, typer.Option(help="A recipe: its name in configs/, or the path of a YAML file.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", help="Any setting, such as --set training.learning_rate=1e-3; repeatable.")
]
AllowIdentifiers = Annotated[
    str | None,
    typer.Option(metavar="REASON", help="Why what may tell who a patient is, if any is found, may be given away."),
]
Device = Annotated[str | None, typer.Option(help="auto (the default: a GPU where there is one), cpu or cuda.")]
StorePath = Annotated[Path | None, typer.Option(help="The bag store; without it, the one that extract made last.")]


def workspace_of(context: typer.Context) -> Workspace:
    """The workspace that this call of the program works in."""
    found: Workspace = context.find_root().obj
    return found


def open_store(context: typer.Context, path: Path | None, *, complete: bool) -> "BagStore":
    """The store that was named, or the current one, which is then said; ``complete`` refuses one with gaps."""
    from milkit.bags import BagStore

    if path is None:
        path = workspace_of(context).current("store")
        say(f"store {path}")
    return BagStore.open(path) if complete else BagStore(path)


def say(text: str) -> None:
    """Tell a person something on stderr, once for all the ranks of a job; stdout is for results."""
    if speaks(os.environ):
        print(text, file=sys.stderr)
