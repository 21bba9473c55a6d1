"""The commands under ``milkit cohort``: look at a cohort before anything is learned from it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from milkit import settings
from milkit.cli_options import FINDINGS, Json, Root, say, workspace_of
from milkit.registry import COHORTS

CohortArgument = Annotated[str, typer.Argument(metavar="COHORT", help="A recipe's name, or the path of a YAML file.")]

LINE = 100
"""Columns of a terminal that a table fits into."""
LISTED = ("name", "kind", "state", "licence", "source")

cohort_app = typer.Typer(no_args_is_help=True, help="Look at a cohort before anything is learned from it.")


@cohort_app.command("list")
def cohort_list(as_json: Json = False) -> None:
    """List what --cohort takes: recipes, and factories without one, with what was verified and under which licence."""
    recipes = (settings.find_recipe("cohorts", name) for name in settings.recipe_names("cohorts"))
    rows = [_listed(settings.load(settings.CohortRecipe, path, {})) for path in recipes]
    known = {row["name"] for row in rows}
    rows += [
        dict.fromkeys(LISTED, "") | {"name": name, "state": "no recipe"}
        for name in COHORTS.names()
        if name not in known
    ]
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return
    shown = [{column: column for column in LISTED}, *rows]
    widths = {column: max(len(row[column]) for row in shown) for column in ("name", "kind", "state")}
    for row in shown:
        line = "  ".join((row[column] or "-").ljust(width) for column, width in widths.items())
        line += f"  {row['licence'] or '-'}"
        print(line if len(line) <= LINE else f"{line[: LINE - 1]}…")


def _listed(recipe: settings.CohortRecipe) -> dict[str, str]:
    return dict(zip(LISTED, (recipe.name, recipe.kind, recipe.verified, recipe.licence, recipe.source), strict=True))


@cohort_app.command("show")
def cohort_show(cohort: CohortArgument, root: Root = None) -> None:
    """Print the classes with their patients, cells and covariates."""
    from milkit.check.people import describe
    from milkit.cohort import find_recipe, load_cohort

    loaded = load_cohort(find_recipe(cohort, root))
    print(f"cohort {loaded.name}: {len(loaded.patients)} patients, {len(loaded.cells)} cells")
    print(describe(loaded).to_string(index=False))
    for note in loaded.notes:
        print(f"note: {note}")


@cohort_app.command("init")
def cohort_init(
    folder: Annotated[Path, typer.Argument(help="The folder with the images and the table of patients.")],
    out: Annotated[Path | None, typer.Option(help="The YAML file; without it, FOLDER's name, here.")] = None,
) -> None:
    """Look at a folder and write a first recipe for it, to be edited; status 3 where it cannot be read as it is."""
    from milkit.cohort import load_cohort
    from milkit.cohort_init import write_recipe
    from milkit.errors import CohortError
    from milkit.settings import CohortRecipe

    path = write_recipe(folder, out)
    print(path)
    try:
        loaded = load_cohort(settings.load(CohortRecipe, path, {}))
    except CohortError as error:
        say(f"as it is, the recipe is refused: {error}")
        raise typer.Exit(FINDINGS) from None
    say(f"{len(loaded.patients)} patients of the classes {', '.join(loaded.classes)}, {len(loaded.cells)} cells")


@cohort_app.command("check")
def cohort_check(
    context: typer.Context,
    cohort: CohortArgument,
    root: Root = None,
    against: Annotated[
        list[str] | None,
        typer.Option(help="Look for cells of this one, too: a cohort checked before, or a cells.csv; repeatable."),
    ] = None,
    sample: Annotated[int | None, typer.Option(help="Read only this many images, evenly spread.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Read files again that have not changed since.")] = False,
    as_json: Json = False,
) -> None:
    """Read every image and look for what would spoil a study; status 3 when an error is found.

    The table of all cells and a contact sheet of the worst ones go to checks/<cohort>/ in the workspace.
    """
    from milkit.check.files import CELLS, MEASURES, SHEET, check_folder, read_known, write_check
    from milkit.check.verb import check_cohort
    from milkit.cohort import find_recipe, load_cohort

    workspace = workspace_of(context)
    recipe = find_recipe(cohort, root)
    others = [read_known(named, workspace, recipe.name) for named in against or []]
    folder = check_folder(workspace, recipe.name)
    check = check_cohort(load_cohort(recipe), sample=sample, against=others, kept=folder / MEASURES, fresh=fresh)
    write_check(check, folder)
    if as_json:
        print(json.dumps([asdict(finding) for finding in check.findings], ensure_ascii=False))
    else:
        for finding in check.findings:
            print(f"{finding.level}: {finding.subject}: {finding.text}")
        print(f"findings: {len(check.findings)}")
        print(f"cells: {folder / CELLS}")
        print(f"contact sheet: {folder / SHEET}")
    if any(finding.level == "error" for finding in check.findings):
        raise typer.Exit(FINDINGS)
