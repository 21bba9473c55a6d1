"""The commands under `milkit review`: cells out to readers who know nothing of the patients, their labels back in."""

import json
from pathlib import Path
from typing import Annotated

import typer

from milkit.cli_options import AllowIdentifiers, Json, say, workspace_of

review_app = typer.Typer(no_args_is_help=True, help="Show cells to readers who know nothing else, and compare.")


@review_app.command("out")
def review_out(
    context: typer.Context,
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="The run folder; without it, the one that train-mil made last.")
    ] = None,
    cells: Annotated[
        int,
        typer.Option(min=1, help="Cells to show, of all patients together."),
    ] = 200,
    twice: Annotated[
        int | None,
        typer.Option(min=0, help="How many of them come twice; a tenth by default, a third at most."),
    ] = None,
    readers: Annotated[
        list[str] | None, typer.Option(help="A name to choose from; repeatable. Without it, readers type theirs.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Determines which cells are shown, and in which order.")] = 0,
    taxonomy: Annotated[
        str, typer.Option(help="Whose nodes are the labels: a name in configs/taxonomies, or a YAML file.")
    ] = "blood",
    allow_identifiers: AllowIdentifiers = None,
    as_json: Json = False,
) -> None:
    """Write one offline page of cells in shuffled order, in which neither patients nor predictions can be found.

    A third of the cells is weighed most by the model, a third is drawn at random, a third is weighed least. The key
    stays in the run folder: send the page alone.
    """
    from milkit.review.out import write_review

    folder = run or workspace_of(context).current("run")
    if run is None:
        say(f"run {folder}")
    made = write_review(
        folder,
        n_cells=cells,
        n_twice=twice,
        seed=seed,
        readers=tuple(readers or ()),
        taxonomy=taxonomy,
        allow_identifiers=allow_identifiers or "",
    )
    if made.n_unreadable:
        say(f"{made.n_unreadable} chosen cells were left out: their images could not be read.")
    if as_json:
        print(json.dumps({**made._asdict(), "page": str(made.page), "key": str(made.key)}))
        return
    print(f"review {made.review}: {made.n_cells} cells of {made.n_patients} patients, {made.n_twice} shown twice")
    print(f"page   {made.page}")
    print(f"key    {made.key} (keep it: without it, nothing can be unblinded)")


@review_app.command("in")
def review_in(
    context: typer.Context,
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="What the readers saved, one CSV or JSON each.")],
    run: Annotated[
        Path | None, typer.Option(help="The run folder; without it, the workspace's run that has the review's key.")
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Take files in which cells lack a label.")] = False,
    as_json: Json = False,
) -> None:
    """Compare readers with each other and with the model, and write expert_labels.csv into the run folder."""
    from milkit.review.unblind import read_review, summary

    runs = [run] if run else sorted((workspace_of(context).root / "runs").glob("*"))
    result = read_review(files, runs, partial=partial)
    if as_json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        print("\n".join([*summary(result), "", f"expert labels {result['expert_labels']}"]))
