"""The command that drafts what a journal asks for: `guidelines`; `report` writes the same drafts."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from milkit.cli_options import FINDINGS, AllowIdentifiers, say, workspace_of

if TYPE_CHECKING:
    from milkit.guidelines.write import Drafts

Final = Annotated[
    bool, typer.Option("--final", help="End with status 3 while a TODO(human) is open in the run's guidelines.yaml.")
]


def guidelines(
    context: typer.Context,
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="The run folder; without it, the one that train-mil made last.")
    ] = None,
    final: Final = False,
    allow_identifiers: AllowIdentifiers = None,
) -> None:
    """Draft TRIPOD+AI and CLAIM checklists, patient flow, Table 1 and model card, filled from a run.

    What software cannot know is asked in guidelines.yaml in the run's folder, and read from there the next time.
    """
    from milkit.guidelines.write import write_guidelines

    folder = run or workspace_of(context).current("run")
    if run is None:
        say(f"run {folder}")
    drafts = write_guidelines(folder, allow_identifiers=allow_identifiers or "")
    print(f"guidelines {drafts.folder}")
    say_open(drafts, final=final)


def say_open(drafts: "Drafts", *, final: bool) -> None:
    """Say how many answers are open; ``final`` ends the command with status 3 then."""
    if drafts.open:
        say(drafts.refusal() if final else f"{len(drafts.open)} answers are open in {drafts.answers}")
        if final:
            raise typer.Exit(FINDINGS)
