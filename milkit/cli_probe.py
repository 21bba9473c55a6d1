"""The command that looks at features by their cells' labels: `probe`, and how such commands find stores and folders."""

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from milkit import settings
from milkit.cli_options import Assignments, Config, Json, open_store, say, workspace_of
from milkit.errors import SettingsError
from milkit.runs import check_run_name

if TYPE_CHECKING:
    from milkit.bags import BagStore

Stores = Annotated[
    list[Path] | None,
    typer.Argument(metavar="STORE", help="Bag stores; without any, the one that extract made last."),
]
Name = Annotated[str | None, typer.Option(help="The name of the result's folder.")]


def probe(
    context: typer.Context,
    stores: Stores = None,
    config: Config = None,
    label: Annotated[str | None, typer.Option(help="The cells' column to predict; cell_type by default.")] = None,
    taxonomy: Annotated[bool, typer.Option("--taxonomy", help="Predict what the labels mean in the taxonomy.")] = False,
    folds: Annotated[int | None, typer.Option(help="Stratified folds, 2 or more; 5 by default.")] = None,
    split: Annotated[
        Path | None,
        typer.Option(
            help="A published split in place of folds: a CSV of cells with role, or of test cells; or a column."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Determines folds, few-shot draws and resamples.")] = None,
    name: Name = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Probe features by their cells' labels: 1-NN, 20-NN and a linear probe, for several encoders of a cohort at once.

    The evaluation of DinoBloom's paper, with intervals and few-shot curves. For a cohort with a recipe in
    configs/probe, that recipe is used unless another is named: it holds the paper's classes and published figures.
    """
    from milkit.probe.evaluate import probe as probe_stores
    from milkit.probe.table import probe_tables
    from milkit.probe_settings import ProbeSettings

    given: dict[str, Any] = {"stores": stores or None, "label": label, "taxonomy": taxonomy or None, "folds": folds}
    given |= {"split": split, "seed": seed}
    given |= settings.parse_assignments(assignments or [])
    chosen = settings.load(ProbeSettings, settings.find_recipe("probe", config) if config else None, given)
    opened = open_all(context, chosen.stores)
    cohort = str(opened[0].attributes["cohort"])
    if not config and cohort in settings.recipe_names("probe"):
        say(f"recipe configs/probe/{cohort}.yaml")
        chosen = settings.load(ProbeSettings, settings.find_recipe("probe", cohort), given)
    folder = new_folder(context, "probes", name, cohort)
    result = probe_stores(opened, chosen, folder)
    print_result(result, probe_tables(result), "probe", folder, as_json=as_json)


def open_all(context: typer.Context, paths: tuple[Path, ...]) -> "list[BagStore]":
    """The stores that were named, none twice; the current one where none was."""
    resolved = [path.resolve() for path in paths]
    if twice := [path for path in resolved if resolved.count(path) > 1]:
        msg = f"The store {twice[0]} was given twice; name every store once."
        raise SettingsError(msg)
    return [open_store(context, path, complete=True) for path in paths or (None,)]


def new_folder(context: typer.Context, kind: str, name: str | None, about: str) -> Path:
    """Where a result goes: ``<workspace>/<kind>/<name>``, by default what it is about and the time."""
    parent = workspace_of(context).root / kind
    if name:
        return parent / check_run_name(name)
    stem = f"{about}-{datetime.now():%Y%m%d-%H%M%S}"
    names = (stem, *(f"{stem}-{number}" for number in range(2, 1000)))
    return next(parent / name for name in names if not (parent / name).exists())


def print_result(result: dict[str, Any], text: str, what: str, folder: Path, *, as_json: bool) -> None:
    """A result and where it lies, as text or as JSON."""
    if as_json:
        print(json.dumps({what: str(folder), **result}, ensure_ascii=False))
    else:
        print(f"{text}\n\n{what} {folder}")
