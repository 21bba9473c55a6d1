"""The command line: parse, load settings, import the verb, call it, print where the result lies.

Heavy libraries are imported inside the commands, so that ``milkit --help`` answers at once. Results go to stdout,
progress and messages to stderr. Exit status: 0 done, 1 unexpected, 2 the user can correct it, 3 finished with findings,
130 interrupted.
"""

import errno
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

import milkit
from milkit import settings
from milkit.cli_cohort import FINDINGS, Json, Root, cohort_app
from milkit.errors import MilkitError, SettingsError
from milkit.registry import COHORTS, ENCODERS, HEADS, load_plugin
from milkit.runs import Workspace

if TYPE_CHECKING:
    from milkit.bags import BagStore

CORRECTABLE, INTERRUPTED = 2, 130
PLACE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
"""Faults of the place that is written to, which a user can mend: full, forbidden, read-only, or no folder."""


class Commands(TyperGroup):
    """Turn what users can correct into one sentence and an exit status; anything else keeps its traceback."""

    can_resume = ("extract", "demo")

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except MilkitError as error:
            _say(f"milkit: {error}")
            raise typer.Exit(CORRECTABLE) from None
        except OSError as error:
            if error.errno not in PLACE_ERRORS:
                raise
            place = error.filename or ctx.invoked_subcommand
            _say(
                f"milkit: {error.strerror or error} ({place}); free or allow that place, or choose another --workspace."
            )
            raise typer.Exit(CORRECTABLE) from None
        except KeyboardInterrupt:
            resumes = ctx.invoked_subcommand in self.can_resume
            what = "it goes on where it stopped" if resumes else "nothing was left half-written"
            _say(f"milkit: interrupted; run the same command again, {what}.")
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False
)
app.add_typer(cohort_app, name="cohort")

Config = Annotated[str | None, typer.Option(help="A recipe: its name in configs/, or the path of a YAML file.")]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", help="Any setting, such as --set training.learning_rate=1e-3; repeatable.")
]
CohortName = Annotated[str, typer.Option("--cohort", help="A cohort's recipe: its name, or the path of a YAML file.")]
Device = Annotated[str | None, typer.Option(help="auto (the default: a GPU where there is one), cpu or cuda.")]
StorePath = Annotated[Path | None, typer.Option(help="The bag store; without it, the one that extract made last.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"milkit {milkit.__version__}")
        raise typer.Exit


@app.callback()
def prepare(
    context: typer.Context,
    workspace: Annotated[
        Path | None,
        typer.Option(envvar="MILKIT_WORKSPACE", help="Where stores and runs are kept; ./milkit-work by default."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop.")
    ] = False,
    plugin: Annotated[
        list[Path] | None, typer.Option(help="A Python file that registers an encoder, a cohort or a head; repeatable.")
    ] = None,
) -> None:
    """From single-cell images of blood, with a label per patient, to ranked cells that a haematologist can review."""
    default = "milkit-demo" if context.invoked_subcommand == "demo" else "milkit-work"
    context.obj = Workspace(workspace or Path(default))
    for path in plugin or []:
        load_plugin(path)


@app.command()
def demo(
    context: typer.Context,
    seed: Annotated[int, typer.Option(help="Determines the cohort, the folds and the training.")] = 0,
    as_json: Json = False,
) -> None:
    """Draw a synthetic cohort, then extract, train-mil and report on it; offline, about two minutes on two cores."""
    from milkit.demo import run_demo

    result = run_demo(_workspace(context), seed=seed)
    found = result.recovery
    if as_json:
        print(json.dumps({"metrics": result.metrics, "recovery": found._asdict(), "report": result.report}))
        return
    _print_headline(result.metrics)
    print(
        f"planted cells   mean average precision {found.mean_average_precision:.2f} "
        f"(95% CI {found.ci_low:.2f} to {found.ci_high:.2f}) over {found.n_patients} patients; "
        f"planted prevalence {found.prevalence:.2f}, random ranking {found.random_average_precision:.2f}"
    )
    print(f"report          {result.report}")


@app.command("list")
def list_names() -> None:
    """List the encoders, cohorts, heads and recipes that can be named."""
    for registry in (ENCODERS, COHORTS, HEADS):
        print(f"{registry.kind}s: {', '.join(registry.names())}")
    for kind in ("cohorts", "encoders", "mil", "report"):
        if names := settings.recipe_names(kind):
            print(f"recipes in configs/{kind}: {', '.join(names)}")


@app.command()
def extract(
    context: typer.Context,
    cohort: CohortName,
    root: Root = None,
    config: Config = None,
    encoder: Annotated[
        str | None, typer.Option(help="An encoder's name, or timm:MODEL; without it, the one that the recipe names.")
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="The encoder's weights file.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Images a forward pass; 8 by default, a GPU wants more.")
    ] = None,
    device: Device = None,
    max_failures: Annotated[
        float | None, typer.Option(help="Share of cells that may be unreadable before the status is 3; 0 by default.")
    ] = None,
    assignments: Assignments = None,
) -> None:
    """Encode every cell of a cohort, once, into a bag store; run again, it goes on where it stopped."""
    from milkit.cohort import find_recipe, load_cohort
    from milkit.encoder import load_encoder, load_preferred
    from milkit.extract import extract as extract_cells

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
    given |= {"cohort": recipe.model_dump()} | assigned | ({"encoder": wish.model_dump()} if wish else {})
    given |= {key: value for key, value in assigned.items() if key.startswith("encoder.")}
    path = settings.find_recipe("extract", config) if config else None
    chosen = settings.load(settings.ExtractSettings, path, given)
    loaded = load_cohort(chosen.cohort)
    network, note = load_preferred(chosen.encoder) if wish and not named else (load_encoder(chosen.encoder), "")
    if note:
        _say(note)
    result = extract_cells(loaded, network, chosen, _workspace(context), note=note)
    for sentence in loaded.notes:
        _say(f"note: {sentence}")
    print(f"store {result.path}: {result.n_cells} cells of {len(loaded.patients)} patients under {network.name}")
    if result.n_failures:
        _say(f"{result.n_failures} cells could not be read; {result.path / 'failures.csv'} lists them with the reason.")
    if result.n_failures > chosen.max_failures * result.n_cells:
        raise typer.Exit(FINDINGS)


@app.command()
def verify(context: typer.Context, store: StorePath = None) -> None:
    """Read a whole store and compare its bytes with the recorded digests; status 3 when one is wrong."""
    bags = _store(context, store, complete=False)
    faults = bags.verify()
    for fault in faults:
        print(f"error: {fault}")
    print(f"store {bags.path}: {len(bags)} patients, {len(bags.cells)} cells, {len(faults)} faults")
    if faults:
        raise typer.Exit(FINDINGS)


@app.command("train-mil")
def train_mil(
    context: typer.Context,
    config: Config = None,
    store: StorePath = None,
    head: Annotated[str | None, typer.Option(help="A head's name, see milkit list; abmil by default.")] = None,
    folds: Annotated[int | None, typer.Option(help="Patient-level folds, 3 or more; 5 by default.")] = None,
    repeats: Annotated[int | None, typer.Option(help="How often the patients are split anew; 1 by default.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Trainings per fold, averaged; 1 by default.")] = None,
    seed: Annotated[int | None, typer.Option(help="Determines splits, initialisations and order.")] = None,
    device: Device = None,
    name: Annotated[str | None, typer.Option(help="The run's name.")] = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Cross-validate a MIL head over the bags of a cohort; every patient is tested by a model that never saw them."""
    given = {"store": store, "folds": folds, "repeats": repeats, "seeds": seeds, "seed": seed, "device": device}
    given |= {"head": head} | settings.parse_assignments(assignments or [])
    recipe = settings.find_recipe("mil", config) if config else None
    chosen = settings.load(settings.MilSettings, recipe, given)
    HEADS.get(chosen.head.name)
    bags = _store(context, chosen.store, complete=True)
    from milkit.mil.crossval import cross_validate

    cohort, encoder = bags.attributes["cohort"], bags.attributes["encoder"]
    runs = _workspace(context)
    run = runs.run_path(name) if name else runs.new_run(cohort, encoder, chosen.head.name)
    metrics = cross_validate(bags, chosen, run)
    runs.make_current("run", run)
    if as_json:
        print(json.dumps({"run": str(run), **metrics}))
    else:
        _print_headline(metrics)
        print(f"run             {run}")


@app.command()
def report(
    context: typer.Context,
    run: Annotated[
        Path | None, typer.Option(help="The run folder; without it, the one that train-mil made last.")
    ] = None,
    config: Config = None,
    top: Annotated[
        int | None, typer.Option(help="Cells of each patient that the model weighs most; 6 by default.")
    ] = None,
    single_file: Annotated[bool, typer.Option(help="Reduce the pictures of a large cohort to fit one file.")] = False,
    assignments: Assignments = None,
) -> None:
    """Write the report that people read, offline: one page, or an index and a page a patient for a large cohort."""
    from milkit.report.write import write_report

    given: dict[str, Any] = {"run": run, "top": top, "single_file": single_file or None}
    recipe = settings.find_recipe("report", config) if config else None
    chosen = settings.load(settings.ReportSettings, recipe, given | settings.parse_assignments(assignments or []))
    folder = chosen.run or _workspace(context).current("run")
    if not chosen.run:
        _say(f"run {folder}")
    print(f"report {write_report(folder, chosen)}")


def main() -> NoReturn:
    """Run the command line."""
    sys.exit(app())


def _workspace(context: typer.Context) -> Workspace:
    """The workspace that this call of the program works in."""
    found: Workspace = context.find_root().obj
    return found


def _store(context: typer.Context, path: Path | None, *, complete: bool) -> "BagStore":
    from milkit.bags import BagStore

    if path is None:
        path = _workspace(context).current("store")
        _say(f"store {path}")
    return BagStore.open(path) if complete else BagStore(path)


def _print_headline(metrics: dict[str, Any]) -> None:
    print(f"patients        {metrics['n_patients']}, each tested by models that never saw them")
    chance = {"balanced_accuracy": f"; chance {1 / len(metrics['per_class']):.2f}", "auroc_macro": "; chance 0.50"}
    for key, title in (("balanced_accuracy", "bal. accuracy"), ("auroc_macro", "macro AUROC")):
        figure, level = metrics[key], metrics["level"]
        interval = f"{100 * level:g}% CI {figure['ci_low']:.2f} to {figure['ci_high']:.2f}"
        print(f"{title:<15} {figure['estimate']:.2f} ({interval}){chance[key]}")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
