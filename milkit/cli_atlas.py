"""The command that shows where cells lie: `atlas`, a map of them, pictures of their patches, or effects of sources."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from milkit import settings
from milkit.cli_options import AllowIdentifiers, Assignments, Config, Device, Json, say, workspace_of
from milkit.cli_probe import Name, Stores, new_folder, open_all, print_result
from milkit.errors import RunError, SettingsError
from milkit.runs import check_run_name

Mode = Literal["map", "--patches", "--batch"]


def atlas(
    context: typer.Context,
    stores: Stores = None,
    run: Annotated[
        Path | None,
        typer.Option(help="The run whose split says who is training; without it and a store, the one made last."),
    ] = None,
    patches: Annotated[
        list[str] | None,
        typer.Option(help="Pictures of patches instead of a map: ids of cells, or `top` for a run's top cells."),
    ] = None,
    batch: Annotated[
        bool, typer.Option("--batch", help="How much of the features is site, scanner, stain or data set, instead.")
    ] = False,
    config: Config = None,
    columns: Annotated[
        str | None, typer.Option(help="Further columns to colour the map by: age,stain; site and scanner always are.")
    ] = None,
    cells: Annotated[int | None, typer.Option(help="Cells of a patient on the map, at most; 100 by default.")] = None,
    share: Annotated[
        float | None, typer.Option(help="Of patients that the map is fitted on, without a run; 0.7 by default.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="For --patches: the store's encoder, where its name alone does not tell.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="For --patches: the encoder's weights file.")] = None,
    device: Device = None,
    source: Annotated[
        str | None, typer.Option(help="For --batch: what a source is, cohort (the default) or a column such as site.")
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="For --batch: the classes to set beside, cell_type or else the patients' label.")
    ] = None,
    taxonomy: Annotated[
        bool, typer.Option("--taxonomy", help="For --batch: classes are what the labels mean, so that cohorts share.")
    ] = False,
    seed: Annotated[int | None, typer.Option(help="Determines what is drawn, and the map.")] = None,
    name: Name = None,
    allow_identifiers: AllowIdentifiers = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Draw a map of cells (UMAP) on which gates count them by patient: one offline page.

    The map is fitted on training patients, and held-out ones are placed into it; coloured by class, cell type,
    attention, site, training and held out. It goes into the run's folder, or without a run into the workspace's atlas/.

    With --patches, pictures of what the patches of chosen cells have in common for the encoder. With --batch, how far
    the sources of cells can be told apart by their features, before and after standardising each.
    """
    if batch and patches:
        msg = "--batch and --patches were both given, where each makes a result of its own; give one of them."
        raise SettingsError(msg)
    mode: Mode = "--batch" if batch else "--patches" if patches else "map"
    named: dict[Mode, dict[str, Any]] = {
        "map": {"columns": _listed(columns), "cells": cells, "share": share},
        "--patches": {"patches": patches, "encoder": encoder, "weights": weights, "device": device},
        "--batch": {"source": source, "label": label, "taxonomy": taxonomy or None},
    }
    _refuse_others(mode, named, run)
    given = {key: value for key, value in named[mode].items() if value is not None} | {"seed": seed}
    assigned = settings.parse_assignments(assignments or [])
    recipe = settings.find_recipe("atlas", config) if config else None
    if mode == "--batch":
        _batch(context, recipe, given | {"stores": stores or None} | assigned, name, as_json=as_json)
    else:
        given |= {"run": run, "store": _only(stores), "allow_identifiers": allow_identifiers}
        _draw(context, recipe, given | assigned, mode, name, as_json=as_json)


def _batch(
    context: typer.Context, recipe: Path | None, given: dict[str, Any], name: str | None, *, as_json: bool
) -> None:
    from milkit.atlas.batch import batch_report
    from milkit.probe_settings import AtlasSettings

    chosen = settings.load(AtlasSettings, recipe, given)
    opened = open_all(context, chosen.stores)
    about = "-".join(sorted({str(store.attributes["cohort"]) for store in opened}))
    folder = new_folder(context, "atlas", name, about)
    result = batch_report(opened, chosen, folder)
    print_result(result, "\n".join(result["sentences"]), "atlas", folder, as_json=as_json)


def _draw(
    context: typer.Context, recipe: Path | None, given: dict[str, Any], mode: Mode, name: str | None, *, as_json: bool
) -> None:
    """A map or pictures of patches, in the run's folder or the workspace's."""
    from milkit.atlas.settings import MapSettings, PatchSettings

    chosen: MapSettings | PatchSettings
    chosen = settings.load(MapSettings, recipe, given) if mode == "map" else settings.load(PatchSettings, recipe, given)
    if not chosen.run and not chosen.store:
        chosen = chosen.model_copy(update=_newest(context))
    if chosen.run and given.get("share") is not None:
        msg = f"--share was given with the run {chosen.run}, whose split says who is training; leave it out."
        raise SettingsError(msg)
    if chosen.run:
        default = "atlas" if mode == "map" else "atlas-patches"
        folder = chosen.run / (check_run_name(name) if name else default)
    else:
        about = chosen.store.resolve().parent.name if chosen.store else "cells"
        folder = new_folder(context, "atlas", name, about)
    if isinstance(chosen, MapSettings):
        from milkit.atlas.cell_map import write_map

        result = write_map(chosen, folder)
        print_result(result, "\n".join(result["sentences"]), "atlas", folder / "atlas.html", as_json=as_json)
        return
    from milkit.atlas.patches import write_patches

    result = write_patches(chosen, folder)
    shares = ", ".join(f"{100 * share:.0f} %" for share in result["explained"])
    text = f"{result['n_cells']} cells; the components hold {shares} of the variance of their patches"
    print_result(result, text, "atlas", folder / "patches.html", as_json=as_json)


def _only(stores: list[Path] | None) -> Path | None:
    if stores and len(stores) > 1:
        msg = f"{len(stores)} stores were named, where a map shows one; name one, or compare them with --batch."
        raise SettingsError(msg)
    return stores[0] if stores else None


def _newest(context: typer.Context) -> dict[str, Path]:
    """The run that was made last, or where there is no run, the store; it is said."""
    workspace = workspace_of(context)
    try:
        found = {"run": workspace.current("run")}
    except RunError:
        if any((workspace.root / "runs").glob("[!.]*")):  # several: which one would be a guess
            raise
        found = {"store": workspace.current("store")}
    for kind, path in found.items():
        say(f"{kind} {path}")
    return found


def _refuse_others(mode: Mode, named: dict[Mode, dict[str, Any]], run: Path | None) -> None:
    """A ``SettingsError`` where an option was given that this mode has no use for."""
    if mode == "--batch" and run:
        msg = f"The run {run} was given with --batch, which compares stores; name the stores, or leave --batch out."
        raise SettingsError(msg)
    for other, options in named.items():
        if other != mode and (useless := [key for key, value in options.items() if value is not None]):
            has = "a map" if mode == "map" else mode
            belongs = "a map" if other == "map" else other
            msg = f"--{useless[0]} was given, which is for {belongs} and has no use for {has}; leave it out."
            raise SettingsError(msg)


def _listed(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
