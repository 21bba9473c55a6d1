"""The command that writes what people read: `report`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from milkit import settings
from milkit.cli_options import Assignments, Config, say, workspace_of


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
    assignments: Assignments = None,
) -> None:
    """Write the report that people read, offline: one page, or an index and a page a patient for a large cohort."""
    from milkit.report.settings import ReportSettings
    from milkit.report.write import write_report

    given: dict[str, Any] = {"run": run, "top": top, "single_file": single_file or None}
    recipe = settings.find_recipe("report", config) if config else None
    chosen = settings.load(ReportSettings, recipe, given | settings.parse_assignments(assignments or []))
    folder = chosen.run or workspace_of(context).current("run")
    if not chosen.run:
        say(f"run {folder}")
    print(f"report {write_report(folder, chosen)}")
