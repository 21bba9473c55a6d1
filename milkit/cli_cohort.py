"""The commands under ``milkit cohort``: look at a cohort before anything is learned from it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from milkit import settings
from milkit.registry import COHORTS

FINDINGS = 3
"""Exit status: finished, and there is something that should be looked at."""

Root = Annotated[Path | None, typer.Option(help="The folder with the cohort's files, where the recipe leaves it open.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
CohortArgument = Annotated[str, typer.Argument(metavar="COHORT", help="A recipe's name, or the path of a YAML file.")]

cohort_app = typer.Typer(no_args_is_help=True, help="Look at a cohort before anything is learned from it.")


@cohort_app.command("list")
def cohort_list() -> None:
    """List the cohorts' recipes and factories."""
    print(f"recipes: {', '.join(settings.recipe_names('cohorts'))}")
    print(f"factories: {', '.join(COHORTS.names())}")


@cohort_app.command("show")
def cohort_show(cohort: CohortArgument, root: Root = None) -> None:
    """Print the classes with their patients, cells and covariates."""
    from milkit.cohort import find_recipe, load_cohort
    from milkit.cohort_check import describe

    loaded = load_cohort(find_recipe(cohort, root))
    print(f"cohort {loaded.name}: {len(loaded.patients)} patients, {len(loaded.cells)} cells")
    print(describe(loaded).to_string(index=False))
    for note in loaded.notes:
        print(f"note: {note}")


@cohort_app.command("check")
def cohort_check(
    cohort: CohortArgument,
    root: Root = None,
    sample: Annotated[int | None, typer.Option(help="Decode only this many images, evenly spread.")] = None,
    as_json: Json = False,
) -> None:
    """Decode every image and look for what would spoil a study; status 3 when an error is found."""
    from milkit.cohort import find_recipe, load_cohort
    from milkit.cohort_check import check_cohort

    findings = check_cohort(load_cohort(find_recipe(cohort, root)), sample=sample)
    if as_json:
        print(json.dumps([finding.__dict__ for finding in findings], ensure_ascii=False))
    else:
        for finding in findings:
            print(f"{finding.level}: {finding.subject}: {finding.text}")
        print(f"findings: {len(findings)}")
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(FINDINGS)
