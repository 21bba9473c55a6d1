"""The command that asks held-out heads which cells they weigh: `explain`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from milkit import settings
from milkit.cli_options import Assignments, Config, Device, Json, say, workspace_of


def explain(
    context: typer.Context,
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="The run folder; without it, the one that train-mil made last.")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(help="attention,leave_one_out,integrated_gradients,single_cell: some of these; all by default."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(metavar="NAME", help="For which target of a run on several; the first by default.")
    ] = None,
    config: Config = None,
    known: Annotated[
        Path | None, typer.Option(help="A CSV of cells that are known to matter: cell_id, and planted or cell_type.")
    ] = None,
    top: Annotated[int | None, typer.Option(help="Cells that count as the top of a ranking; 20 by default.")] = None,
    seed: Annotated[int | None, typer.Option(help="Determines random rankings and resamples.")] = None,
    device: Device = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Rank every patient's cells by held-out heads in several ways, and say which of the rankings can be believed.

    Writes explain.parquet and faithfulness.json into the run folder.
    """
    given: dict[str, Any] = {"run": run, "target": target, "known": known, "top": top, "seed": seed, "device": device}
    given["methods"] = _names(methods) if methods is not None else None
    from milkit.explain.settings import ExplainSettings

    recipe = settings.find_recipe("explain", config) if config else None
    chosen = settings.load(ExplainSettings, recipe, given | settings.parse_assignments(assignments or []))
    folder = chosen.run or workspace_of(context).current("run")
    if not chosen.run:
        say(f"run {folder}")
    from milkit.explain.verb import explain as explain_run

    result = explain_run(folder, chosen)
    if as_json:
        print(json.dumps({"run": str(folder), **result}, ensure_ascii=False))
        return
    fewest, most = result["n_models"]
    models = f"{fewest}" if fewest == most else f"{fewest} to {most}"
    print(f"patients {result['n_patients']}, each explained by {models} held-out model{'' if most == 1 else 's'}")
    if result["target"]:
        print(f"target   {result['target']['name']} ({result['target']['kind']})")
    for name, told in result["methods"].items():
        print(_line(name, told))
    print(f"explain {folder / 'explain.parquet'}\nfaithfulness {folder / 'faithfulness.json'}")


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _line(name: str, told: dict[str, Any]) -> str:
    """What a reader asks first of a ranking: can it be believed, do models agree, does it find what is known."""
    verdict = "faithful" if told["faithful"] else "not faithful"
    text = f"{name:<21} {verdict:<13} beats {told['beats_random']} of {told['n_random']} random rankings"
    for kind, pair in told["agreement"].items():
        if pair and pair["jaccard"]:
            chance = pair["jaccard_chance"]["estimate"]
            text += f"; overlap of tops over {kind} {pair['jaccard']['estimate']:.2f} (chance {chance:.2f})"
    if found := told.get("known_cells"):
        precision = found["average_precision"]["estimate"]
        text += f"; average precision {precision:.2f} (random {found['average_precision_random']:.2f})"
    return text
