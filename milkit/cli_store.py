"""The commands on stores: verify one, export it for other tools, import what other tools made."""

import csv
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from milkit.cli_options import FINDINGS, AllowIdentifiers, open_store, say, workspace_of
from milkit.errors import StoreError
from milkit.settings import Ids

StoreArgument = Annotated[
    Path | None, typer.Argument(metavar="STORE", help="The bag store; without it, the workspace's current one.")
]


class ExportFormat(StrEnum):
    """What `milkit export` writes."""

    hdf5 = "hdf5"
    h5ad = "h5ad"


def verify(context: typer.Context, store: StoreArgument = None) -> None:
    """Read a whole store and compare its bytes with the recorded digests; status 3 when one is wrong."""
    path = store or workspace_of(context).current("store")
    try:
        bags = open_store(context, store, complete=False)
    except StoreError as error:
        if not (path / "zarr.json").is_file():
            raise
        print(f"error: {error}")
        raise typer.Exit(FINDINGS) from None
    faults = bags.verify()
    for fault in faults:
        print(f"error: {fault}")
    print(f"store {bags.path}: {len(bags)} patients, {bags.n_cells} cells, {len(faults)} faults")
    if faults:
        raise typer.Exit(FINDINGS)


def export_bags(
    context: typer.Context,
    file_format: Annotated[
        ExportFormat, typer.Option("--format", help="hdf5: a folder with one file a patient; h5ad: one AnnData file.")
    ],
    out: Annotated[Path, typer.Option(help="The new folder (hdf5) or file (h5ad).")],
    store: StoreArgument = None,
    allow_identifiers: AllowIdentifiers = None,
) -> None:
    """Write the features for other tools: one HDF5 a patient (GenBloom, CLAM, TRIDENT), or AnnData of the cohort."""
    from milkit.exchange.exporting import export_h5ad, export_hdf5

    bags = open_store(context, store, complete=True)
    if file_format is ExportFormat.hdf5:
        done = export_hdf5(bags, out, allow_identifiers=allow_identifiers or "")
        lost = "were left out; the attribute n_failed of each file counts them"
    else:
        done = export_h5ad(bags, out, allow_identifiers=allow_identifiers or "")
        lost = "have NaN for features; the column failed of obs marks them"
    print(f"export {done.path}: {done.n_cells} cells, {bags.dim} features each")
    if done.n_failed:
        say(f"{done.n_failed} cells that could not be read {lost}.")
    if done.n_renamed:
        say(f"{done.n_renamed} patient ids cannot name a file; {out / 'patients.csv'} says which file is whose.")


def import_bags(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A folder with one HDF5 file a patient, <patient>.h5.")
    ],
    cohort: Annotated[str, typer.Option(help="Names the cohort.")],
    patients: Annotated[
        Path | None, typer.Option(help="A CSV table with patient_id and label; further columns become covariates.")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="What made the features; without it, what the files say, or 'imported'.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Names of the integers in `labels`, in their order: NPM1,PML_RARA,control.")
    ] = None,
    ids: Annotated[
        Ids | None,
        typer.Option(help="identifying: runs get study ids. Without it, what files or a recipe say; else identifying."),
    ] = None,
) -> None:
    """Make a store of ready features, one HDF5 a patient, so that train-mil and report run without images."""
    from milkit.exchange.importing import import_hdf5

    names = [name.strip() for name in next(csv.reader([classes], skipinitialspace=True))] if classes else []
    done = import_hdf5(
        folder, cohort, workspace_of(context), patients=patients, encoder=encoder, classes=names, ids=ids
    )
    for sentence in done.notes:
        say(f"note: {sentence}")
    print(f"store {done.path}: {done.n_cells} cells of {done.n_patients} patients under {done.encoder}")
    if done.n_failures:
        say(f"{done.n_failures} cells are not finite; {done.path / 'failures.csv'} lists them.")
        raise typer.Exit(FINDINGS)
