"""The command that encodes a cohort, alone or as one of the processes that torchrun or srun started."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from milkit import settings
from milkit.cli_options import FINDINGS, Assignments, Config, Device, Root, say, workspace_of
from milkit.errors import SettingsError

if TYPE_CHECKING:
    from milkit.cohort import Cohort
    from milkit.encoder import Encoder
    from milkit.extract import Extraction


def extract(
    context: typer.Context,
    cohort: Annotated[str, typer.Option(help="A cohort's recipe: its name, or the path of a YAML file.")],
    root: Root = None,
    config: Config = None,
    encoder: Annotated[
        str | None, typer.Option(help="An encoder's name, or timm:MODEL; without it, the one that the recipe names.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="The encoder's weights file.")] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Use no network: weights must be given or cached.")
    ] = False,
    device: Device = None,
    precision: Annotated[
        str | None,
        typer.Option(help="auto (the default: bf16 where it is fast and the features stay the same), fp32, bf16."),
    ] = None,
    backend: Annotated[str | None, typer.Option(help="auto (the default: torch), torch or openvino.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images a forward pass; without it, the fastest for this cohort is measured.")
    ] = None,
    max_failures: Annotated[
        float | None, typer.Option(help="Share of cells that may be unreadable before the status is 3; 0 by default.")
    ] = None,
    assignments: Assignments = None,
) -> None:
    """Encode every cell of a cohort, once, into a bag store; run again, it goes on where it stopped.

    How the encoder is run is settled when a store is begun and kept. Started by torchrun or srun, the processes share
    the patients and write one store.
    """
    from milkit.cohort import find_recipe, load_cohort
    from milkit.downloads import forbid_downloads
    from milkit.encoder import load_encoder, load_preferred
    from milkit.extract import extract as extract_cells
    from milkit.ranks import joined

    if offline:
        forbid_downloads()
    recipe = find_recipe(cohort, root)
    assigned = settings.parse_assignments(assignments or [])
    named = encoder or assigned.get("encoder")
    wish = settings.Component.model_validate(named) if named else None if config else recipe.encoder
    if weights:
        if wish is None:
            msg = (
                f"--weights {weights} was given without an encoder to load it; name one, such as --encoder dinobloom-s."
            )
            raise SettingsError(msg)
        wish = settings.Component(name=wish.name, **{**wish.arguments, "weights": weights})
    given: dict[str, Any] = {"batch_size": batch_size, "device": device, "max_failures": max_failures}
    given |= {"precision": precision, "backend": backend, "cohort": recipe.model_dump()}
    given |= {"encoder": wish.model_dump()} if wish else {}  # before the assignments to its arguments
    given |= {key: value for key, value in assigned.items() if key != "encoder"}
    path = settings.find_recipe("extract", config) if config else None
    chosen = settings.load(settings.ExtractSettings, path, given)

    def load() -> "tuple[Cohort, Encoder, str]":
        preferred = load_preferred(chosen.encoder) if wish and not named else (load_encoder(chosen.encoder), "")
        return load_cohort(chosen.cohort), *preferred

    with joined() as ranks:
        loaded, network, note = ranks.each(load)
        if note:
            say(note)
        result = extract_cells(loaded, network, chosen, workspace_of(context), note=note, ranks=ranks)
    if ranks.rank == 0:
        for sentence in loaded.notes:
            say(f"note: {sentence}")
        whose = f" of {len(loaded.patients)} patients" if loaded.has_patients else ""
        _print_result(result, f"{whose} under {network.name}")
    if result.n_failures > chosen.max_failures * result.n_cells:
        raise typer.Exit(FINDINGS)


def _print_result(result: "Extraction", of_whom: str) -> None:
    how = result.execution
    compared = f", least cosine to plain float32 {how.cosine:.6f}" if how.cosine is not None else ""
    say(f"encoded by {how.backend} in {how.precision}, {how.batch_size} images a batch{compared}")
    print(f"store {result.path}: {result.n_cells} cells{of_whom}")
    if result.n_failures:
        say(f"{result.n_failures} cells could not be read; {result.path / 'failures.csv'} lists them with the reason.")
