"""`milkit pretrain`: train an encoder on the cells of cohorts, on one device or under torchrun and srun."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from milkit import settings
from milkit.cli_options import Assignments, Device, Json, say, workspace_of
from milkit.errors import SettingsError
from milkit.runs import check_run_name


def pretrain(
    context: typer.Context,
    config: Annotated[str, typer.Option(help="A recipe: its name in configs/encoders/, or the path of a YAML file.")],
    root: Annotated[
        list[str] | None,
        typer.Option(help="Where a cohort of the recipe lies, such as --root acevedo=FOLDER; repeatable."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="A file of DINOv2's or DinoBloom's layout to start from, instead of at random.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="The training's name; the recipe's without one.")] = None,
    stop_after: Annotated[int | None, typer.Option(help="Iterations to make, of those of the schedules.")] = None,
    parallel: Annotated[str | None, typer.Option(help="ddp or fsdp, over several processes.")] = None,
    device: Device = None,
    precision: Annotated[str | None, typer.Option(help="auto (the default), fp32 or bf16.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that read images ahead.")] = None,
    seed: Annotated[int | None, typer.Option(help="Determines all that is random.")] = None,
    export: Annotated[
        Path | None, typer.Option(help="Also write the encoder in half precision, as it is shipped, to this file.")
    ] = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Train an encoder on cells, without labels or with them (DINOv2's recipe as DinoBloom uses it).

    Run again, it goes on from its last checkpoint. Started by torchrun or srun, the processes share each step's images.
    The result is a weights file that the encoders load with --weights.
    """
    from encoders.dinov2.checkpoints import export_half
    from encoders.dinov2.pretrain import pretrain as train
    from encoders.dinov2.pretrain_settings import PretrainSettings
    from milkit.ranks import joined

    recipe = settings.find_recipe("encoders", config)
    given: dict[str, Any] = {"weights": weights, "stop_after": stop_after, "parallel": parallel, "device": device}
    given |= {"precision": precision, "workers": workers, "seed": seed}
    given |= settings.parse_assignments(assignments or [])
    chosen = settings.load(PretrainSettings, recipe, given)
    chosen = chosen.with_roots(_roots(root or []))
    folder = workspace_of(context).root / "encoders" / check_run_name(name or recipe.stem)
    with joined(gpu=chosen.device != "cpu") as ranks:
        result = train(chosen, folder, ranks)
    if ranks.rank:
        return
    if export:
        export_half(result.weights, export)
        say(f"exported {export}")
    if result.n_unreadable:
        say(f"{result.n_unreadable} images could not be read; {folder / 'failures.csv'} lists them with the reason.")
    if as_json:
        print(json.dumps({"weights": str(result.weights), "iterations": result.iterations, "score": result.score}))
        return
    score = f", {result.score:.3f} balanced accuracy of 20 neighbours" if result.score is not None else ""
    print(f"weights {result.weights}: {result.iterations} iterations{score}")


pretrain.can_resume = True  # type: ignore[attr-defined]
"""Interrupted, it goes on from its last checkpoint; the command line says so."""


def _roots(given: list[str]) -> dict[str, Path]:
    roots = {}
    for text in given:
        cohort, equals, path = text.partition("=")
        if not equals or not cohort or not path:
            msg = f"--root got '{text}', expected a cohort of the recipe and its folder, such as --root acevedo=FOLDER."
            raise SettingsError(msg)
        roots[cohort] = Path(path)
    return roots
