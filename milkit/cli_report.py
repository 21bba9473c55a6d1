"""The command that writes what people read: `report`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from milkit import settings
from milkit.cli_guidelines import Final, say_open
from milkit.cli_options import AllowIdentifiers, Assignments, Config, say, workspace_of


def report(
    context: typer.Context,
    run: Annotated[
        Path | None, typer.Option(help="The run folder; without it, the one that train-mil made last.")
    ] = None,
    config: Config = None,
    top: Annotated[
        int | None, typer.Option(help="Cells of each patient that the model weighs most; 6 by default.")
    ] = None,
    single_file: Annotated[bool, typer.Option(help="Reduce the pictures of a large cohort to fit one file.")] = False,
    final: Final = False,
    allow_identifiers: AllowIdentifiers = None,
    assignments: Assignments = None,
) -> None:
    """Write the report that people read, offline: one page, or an index and a page a patient for a large cohort.

    Drafts of checklists, patient flow, Table 1 and model card are written beside it, as `milkit guidelines` does.
    """
    from milkit.guidelines.answers import ANSWERS, read_answers
    from milkit.guidelines.write import write_guidelines
    from milkit.report.settings import ReportSettings
    from milkit.report.write import write_report

    given: dict[str, Any] = {"run": run, "top": top, "single_file": single_file or None}
    given |= {"allow_identifiers": allow_identifiers}
    recipe = settings.find_recipe("report", config) if config else None
    chosen = settings.load(ReportSettings, recipe, given | settings.parse_assignments(assignments or []))
    folder = chosen.run or workspace_of(context).current("run")
    if not chosen.run:
        say(f"run {folder}")
    read_answers(folder / ANSWERS)  # what is wrong with them is said before a minute's work, not after it
    page = write_report(folder, chosen)
    drafts = write_guidelines(folder, allow_identifiers=chosen.allow_identifiers)
    print(f"guidelines {drafts.folder}")
    print(f"report {page}")
    say_open(drafts, final=final)
