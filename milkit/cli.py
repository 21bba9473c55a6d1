"""The command line: parse, load settings, import the verb, call it, print where the result lies.

Heavy libraries are imported inside the commands, so that ``milkit --help`` answers at once. Results go to stdout,
progress and messages to stderr. Exit status: 0 done, 1 unexpected, 2 the user can correct it, 3 finished with findings,
130 interrupted.
"""

import ast
import contextlib
import errno
import importlib.util
import json
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

import milkit
from milkit import settings
from milkit.cli_atlas import atlas
from milkit.cli_audit import audit
from milkit.cli_cohort import cohort_app
from milkit.cli_compare import compare
from milkit.cli_differential import differential
from milkit.cli_explain import explain
from milkit.cli_extract import extract
from milkit.cli_guidelines import guidelines
from milkit.cli_options import FINDINGS, Assignments, Config, Device, Json, open_store, say, workspace_of
from milkit.cli_privacy import privacy
from milkit.cli_probe import probe
from milkit.cli_report import report
from milkit.cli_results import print_headline
from milkit.cli_review import review_app
from milkit.cli_store import export_bags, import_bags, verify
from milkit.cli_survival import survival
from milkit.errors import MilkitError, SettingsError
from milkit.registry import COHORTS, ENCODERS, HEADS, load_plugin
from milkit.runs import Workspace

CORRECTABLE, INTERRUPTED = 2, 130
PLACE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
"""Faults of the place that is written to, which a user can mend: full, forbidden, read-only, or no folder."""


def command_points() -> dict[str, EntryPoint]:
    """Commands that other packages bring, by name; none is loaded."""
    return {point.name: point for point in sorted(entry_points(group="milkit.commands"), key=lambda point: point.name)}


def _first_line(point: EntryPoint) -> str:
    """What another package's command does, read from its source: to import it could take seconds."""
    with contextlib.suppress(ImportError, OSError, SyntaxError):
        spec = importlib.util.find_spec(point.module)
        if spec and spec.origin:
            for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef) and node.name == point.attr and ast.get_docstring(node):
                    return str(ast.get_docstring(node)).partition("\n")[0]
    return f"See milkit {point.name} --help ({point.module})."


class Commands(TyperGroup):
    """Turn what users can correct into one sentence and an exit status; anything else keeps its traceback."""

    can_resume = ("extract", "demo", "cohort")
    """Of the core's own commands; the function of another package's says so by an attribute ``can_resume``."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The core's own, then those of other packages."""
        return [*super().list_commands(ctx), *command_points()]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The core's own, or that of another package, which is loaded now."""
        own = super().get_command(ctx, cmd_name)
        point = command_points().get(cmd_name)
        if own or not point:
            return own
        alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        alone.command(cmd_name)(point.load())
        return typer.main.get_command(alone)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List all, those of other packages by their docstrings as the source has them: none is loaded."""
        own_names = super().list_commands(ctx)
        rows = [(name, super(Commands, self).get_command(ctx, name)) for name in own_names]
        texts = [(name, own.get_short_help_str(limit=formatter.width)) for name, own in rows if own]
        texts += [(name, _first_line(point)) for name, point in command_points().items()]
        with formatter.section("Commands"):
            formatter.write_dl(texts)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except MilkitError as error:
            if error.shared:
                say(f"milkit: {error}")
            else:
                print(f"milkit: {error}", file=sys.stderr)
            raise typer.Exit(error.status) from None
        except OSError as error:
            if error.errno not in PLACE_ERRORS:
                raise
            place = error.filename or ctx.invoked_subcommand
            say(
                f"milkit: {error.strerror or error} ({place}); free or allow that place, or choose another --workspace."
            )
            raise typer.Exit(CORRECTABLE) from None
        except KeyboardInterrupt:
            command = self.get_command(ctx, ctx.invoked_subcommand)
            resumes = ctx.invoked_subcommand in self.can_resume or hasattr(command.callback, "can_resume")
            what = "it goes on where it stopped" if resumes else "nothing was left half-written"
            say(f"milkit: interrupted; run the same command again, {what}.")
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None, add_completion=False
)
app.add_typer(cohort_app, name="cohort")
app.add_typer(review_app, name="review")


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

    result = run_demo(workspace_of(context), seed=seed)
    found = result.recovery
    if as_json:
        print(json.dumps({"metrics": result.metrics, "recovery": found._asdict(), "report": result.report}))
        return
    print_headline(result.metrics)
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
    for kind in ("cohorts", "encoders", "explain", "mil", "probe", "report"):
        if names := settings.recipe_names(kind):
            print(f"recipes in configs/{kind}: {', '.join(names)}")


app.command()(extract)
app.command("verify")(verify)
app.command("export")(export_bags)
app.command("import")(import_bags)
app.command("probe")(probe)
app.command("atlas")(atlas)
app.command("audit")(audit)
app.command("compare")(compare)
app.command("explain")(explain)
app.command("differential")(differential)
app.command("survival")(survival)
app.command("privacy")(privacy)
app.command("guidelines")(guidelines)


@app.command("train-mil")
def train_mil(
    context: typer.Context,
    config: Config = None,
    store: Annotated[
        list[Path] | None,
        typer.Option(help="The bag store, by default the one made last; of several, each fold chooses its encoder."),
    ] = None,
    head: Annotated[str | None, typer.Option(help="A head's name, see milkit list; abmil by default.")] = None,
    folds: Annotated[int | None, typer.Option(help="Patient-level folds, 3 or more; 5 by default.")] = None,
    repeats: Annotated[int | None, typer.Option(help="How often the patients are split anew; 1 by default.")] = None,
    splits: Annotated[
        str | None, typer.Option(help="partition (the default), site-preserved or leave-site-out.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Keep patients of one value of this column together.")] = None,
    folds_file: Annotated[
        Path | None, typer.Option(help="Published folds: a table, or a folder with train, val and test.csv a fold.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="Trainings per fold, averaged; 1 by default.")] = None,
    seed: Annotated[int | None, typer.Option(help="Determines splits, initialisations and order.")] = None,
    covariates: Annotated[
        str | None, typer.Option(help="Columns of the patients that the head is given beside the cells: age,sex.")
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Choose head and learning rate, or what `tune` names, within each fold.")
    ] = False,
    target: Annotated[
        list[str] | None,
        typer.Option(help="survival, discrete-survival, regression:COLUMN or classes:COLUMN; repeatable."),
    ] = None,
    device: Device = None,
    name: Annotated[str | None, typer.Option(help="The run's name.")] = None,
    assignments: Assignments = None,
    as_json: Json = False,
) -> None:
    """Cross-validate a MIL head over the bags of a cohort; every patient is tested by a model that never saw them."""
    given: dict[str, Any] = {"folds": folds, "repeats": repeats, "seeds": seeds, "seed": seed, "device": device}
    given |= {"store": store[0] if store else None, "splits": splits, "by": by, "folds_file": folds_file}
    named = {"covariates": [column.strip() for column in covariates.split(",")]} if covariates is not None else {}
    named |= {"target": target} if target else {}
    given |= {"head": head} | named | settings.parse_assignments(assignments or [])
    recipe = settings.find_recipe("mil", config) if config else None
    chosen = settings.load(settings.MilSettings, recipe, given)
    if twice := [key for key, value in given.items() if value is not None and key in chosen.tune]:
        msg = f"{twice[0]} was given, and tune is to choose it among candidates; leave one of the two out."
        raise SettingsError(msg)
    from milkit.mil.candidate_stores import with_stores
    from milkit.mil.candidates import with_default_candidates

    chosen = with_stores(with_default_candidates(chosen) if tune else chosen, store or [], workspace_of(context))
    HEADS.get(chosen.head.name)
    bags = open_store(context, chosen.store, complete=True)
    from milkit.mil.crossval import cross_validate

    cohort, encoder = bags.attributes["cohort"], bags.attributes["encoder"]
    runs = workspace_of(context)
    encoder = "tuned" if "encoder" in chosen.tune else encoder
    called = "tuned" if "head" in chosen.tune else chosen.head.name
    run = runs.run_path(name) if name else runs.new_run(cohort, encoder, called)
    metrics = cross_validate(bags, chosen, run)
    runs.make_current("run", run)
    from milkit.explain.verb import explain_quickly

    if untold := explain_quickly(run, chosen.device):
        say(untold)
    if as_json:
        print(json.dumps({"run": str(run), **metrics}))
    else:
        print_headline(metrics)
        print(f"run             {run}")
    if "failed" in metrics or any("failed" in own for own in metrics.get("targets", {}).values()):
        raise typer.Exit(FINDINGS)


app.command()(report)


def main() -> NoReturn:
    """Run the command line."""
    sys.exit(app())
