"""The command that looks for leaks and confounders in a run: `audit`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from milkit.cli_options import FINDINGS, Json, say, workspace_of


def audit(
    context: typer.Context,
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="The run folder; without it, the one that train-mil made last.")
    ] = None,
    images: Annotated[
        bool,
        typer.Option("--images/--no-images", help="Read the images, to find cells of two patients that look alike."),
    ] = True,
    as_json: Json = False,
) -> None:
    """Look for leaks and confounders in a run: status 3 when an error is found, which makes its result wrong.

    Patients on both sides of a fold, one cell in two patients, steps fitted outside the fold; what the encoder has
    seen; whether the bags tell site, scanner, age, sex or their own size.
    """
    from milkit.audit.subject import Audited
    from milkit.audit.verb import audit_run
    from milkit.check.files import MEASURES, check_folder

    workspace = workspace_of(context)
    folder = run or workspace.current("run")
    if run is None:
        say(f"run {folder}")
    cohort = str(Audited.read(folder).store.attributes["cohort"])
    findings = audit_run(folder, images=images, kept=check_folder(workspace, cohort) / MEASURES)
    if as_json:
        print(json.dumps({"run": str(folder), "findings": [finding._asdict() for finding in findings]}))
    else:
        for finding in findings:
            print(f"{finding.level}: {finding.name}: {finding.text}")
        counts = {level: sum(finding.level == level for finding in findings) for level in ("error", "warning", "note")}
        print(f"findings: {', '.join(f'{count} {level}s' for level, count in counts.items())}")
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(FINDINGS)
