"""The command that types a run's cells and counts them: `differential`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from milkit import settings
from milkit.cli_options import Assignments, Config, Json, say, workspace_of


def differential(
    context: typer.Context,
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="The run folder; without it, the one that train-mil made last.")
    ] = None,
    labelled: Annotated[
        Path | None,
        typer.Option(help="The bag store of labelled cells, of the run's encoder; without it, the run's own store."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="The labelled cells' column; cell_type by default.")] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="A CSV (cell_id, cell_type) in place of that column: a review's expert_labels.csv."),
    ] = None,
    taxonomy: Annotated[
        bool, typer.Option("--taxonomy", help="Types are what the labels mean in the taxonomy.")
    ] = False,
    top: Annotated[int | None, typer.Option(help="Cells that count as the top of a ranking; 20 by default.")] = None,
    config: Config = None,
    seed: Annotated[int | None, typer.Option(help="Determines folds, resamples and signs.")] = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Type a run's cells by labelled ones, and count the types of all cells beside those that the models weigh most.

    Writes cell_types.parquet, differential.csv, enrichment.csv and composition.json into the run folder. Cells that
    are unlike the labelled ones, or of which no type is likely enough, are unknown.
    """
    given: dict[str, Any] = {"run": run, "labelled": labelled, "label": label, "taxonomy": taxonomy or None}
    given |= {"labels": labels, "top": top, "seed": seed}
    from milkit.composition.settings import DifferentialSettings

    recipe = settings.find_recipe("differential", config) if config else None
    chosen = settings.load(DifferentialSettings, recipe, given | settings.parse_assignments(assignments or []))
    folder = chosen.run or workspace_of(context).current("run")
    if not chosen.run:
        say(f"run {folder}")
    from milkit.composition.verb import compose

    result = compose(folder, chosen)
    if as_json:
        print(json.dumps({"run": str(folder), **result}, ensure_ascii=False))
        return
    print("\n".join([*result["sentences"], *(f"Warning: {text}" for text in result["warnings"])]))
    for ranking, told in result["rankings"].items():
        verdict = {True: "faithful", False: "not faithful", None: "not tested by milkit explain"}[told["faithful"]]
        print(f"\n{ranking} ({verdict}), {told['n_patients']} patients")
        for name, of_class in result["classes"].items():
            found = [row for row in of_class["enrichment"] if row["ranking"] == ranking]
            print(f"  {name:<16} {_enriched(found, chosen.false_discovery_rate)}")
    print(f"\ndifferential {folder / 'differential.csv'}\nenrichment {folder / 'enrichment.csv'}")


def _enriched(rows: list[dict[str, Any]], rate: float) -> str:
    """The types that differ from chance, those most enriched first."""
    found = [row for row in rows if row["p_adjusted"] is not None and row["p_adjusted"] <= rate]
    found.sort(key=lambda row: -row["enrichment"])
    texts = [f"{row['cell_type']} x{row['enrichment']:.2f} (adjusted p {row['p_adjusted']:.2g})" for row in found]
    return ", ".join(texts) or "no type is more or less frequent among the top than in the bags, beyond chance"
