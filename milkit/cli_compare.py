"""The command `compare`: runs of the same patients beside each other, and what their differences are worth."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from milkit.cli_options import Json, workspace_of
from milkit.figure_text import with_interval

_NAMES = {
    "balanced_accuracy": "balanced accuracy",
    "auroc_macro": "macro AUROC",
    "weighted_f1": "weighted F1",
    "c_index": "c-index",
    "mae": "mean absolute error",
    "r2": "R²",
    "spearman": "Spearman's ρ",
}
"""The figures that are shown of a run, in their order; a run has some of them."""

_FORMS = {"mae": ".3g"}
"""Of figures that are no share; others have two decimals."""

_TESTS = {
    "balanced_accuracy": ("balanced accuracy", "permutation"),
    "balanced_accuracy_folds": ("  mean over folds", "corrected t"),
    "auroc_macro": ("macro AUROC", "DeLong"),
}


def compare(
    context: typer.Context,
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN RUN [RUN...]", help="Folders of runs, or names of the workspace's.")
    ],
    target: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which target of runs that were trained on several.")
    ] = None,
    paper: Annotated[bool, typer.Option("--paper", help="Show the published table of the cohort beside them.")] = False,
    as_json: Json = False,
) -> None:
    """Compare runs of the same patients and folds, every pair, with intervals and p values.

    Other patients: permutation and DeLong. Other training sets: the t-test over folds, corrected for what they share.
    """
    from milkit.compare import compare_runs

    result = compare_runs([_folder(context, run) for run in runs], target=target, paper=paper)
    print(json.dumps(result) if as_json else "\n".join(comparison_lines(result)))


def comparison_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """What a person reads of a comparison.

    Args:
        result: Of ``compare_runs``.
    """
    level, repeats = f"{100 * result['level']:g} % CI", result["repeats"]
    what = f" in {len(result['classes'])} classes" if result["classes"] else ""
    target = f", target {result['target']}" if result["target"] else ""
    yield (
        f"{result['cohort']}: {result['n_patients']} patients{what}{target}, "
        f"{result['folds']} folds{f' x {repeats} repeats' if repeats > 1 else ''} ({result['folds_digest'][:12]})"
    )
    yield ""
    names = [f"{number}  {run['name']}" for number, run in enumerate(result["runs"], 1)]
    width = max(map(len, names)) + 2
    shown = {key: title for key, title in _NAMES.items() if key in result["runs"][0]}
    yield " " * width + "".join(f"{title:<22}" for title in shown.values()).rstrip() + f"   ({level})"
    for name, run in zip(names, result["runs"], strict=True):
        texts = (with_interval(run[key] or {}, _FORMS.get(key, ".2f"), nothing="-") for key in shown)
        yield (name.ljust(width) + "".join(f"{text:<22}" for text in texts)).rstrip()
    for pair in result["pairs"]:
        yield from _pair(pair, result, level)
    yield ""
    yield from _explained(result)
    if result["published"]:
        yield from _paper(result)


def _folder(context: typer.Context, run: str) -> Path:
    """A run's folder; a bare name that is no folder here is one of the workspace."""
    named = workspace_of(context).root / "runs" / run
    return named if not Path(run).is_dir() and "/" not in run and named.is_dir() else Path(run)


def _pair(pair: Mapping[str, Any], result: Mapping[str, Any], level: str) -> Iterator[str]:
    yield ""
    title = f"{pair['first'] + 1} less {pair['second'] + 1}"
    yield f"{title:<26}{f'difference ({level})':<32}{'p':>8}{'p (Holm)':>10}  test"
    for name, found, test, form in _rows(pair):
        gap = with_interval({"estimate": found["difference"], **found}, f"+{form}", nothing="-")
        yield f"{name:<26}{gap:<32}{_p(found['p']):>8}{_p(found['p_holm']):>10}  {test}"


def _rows(pair: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any], str, str]]:
    """What is compared, the comparison, the test, and the form of its numbers."""
    for key, over_patients in pair.get("figures", {}).items():
        form = _FORMS.get(key, ".2f")
        yield _NAMES[key], over_patients, "permutation", form
        yield "  mean over folds", pair["folds"][key], "corrected t", form
    if "per_class" in pair:
        yield from ((title, pair[key], test, ".2f") for key, (title, test) in _TESTS.items())
        yield from ((f"  AUROC {name}", found, "DeLong", ".2f") for name, found in pair["per_class"].items())


def _explained(result: Mapping[str, Any]) -> Iterator[str]:
    n_pairs, n_classes = len(result["pairs"]), len(result["classes"])
    yield (
        f"permutation: {result['n_permutations']:,} of patients' predictions between the runs; interval BCa, "
        f"{result['n_bootstrap']:,} resamples of patients; both for other patients and these models"
    )
    over = (
        f"over {result['distinct_folds']} folds of {result['n_test']:.1f} tested and {result['n_train']:.1f} training "
        "patients; for models of other training sets"
    )
    if result["distinct_folds"] == 1:
        over = "not made, since all folds test the same patients"
    yield f"corrected t: Nadeau and Bengio, {over}"
    if n_classes:
        yield "DeLong: macro is the mean of the classes' AUROCs, the patients of each class being one sample"
    if result["predicts"] == "risks":
        yield "c-index: 0.5 is chance; patients are compared within their fold"
    if result["predicts"] == "numbers":
        yield "mean absolute error: in the target's unit, lower is better; R²: 0 is the mean of the tested patients"
    singly = f", and over {n_pairs * n_classes} AUROCs of single classes" if n_classes else ""
    yield f"Holm: over {n_pairs} pair{'s' if n_pairs > 1 else ''} of runs for each test{singly}"


def _paper(result: Mapping[str, Any]) -> Iterator[str]:
    """The published table, in per cent as there, below the same figures of the runs."""
    published = result["published"]
    rows = {run["name"]: [_percent(run[metric]) for metric in published["metrics"]] for run in result["runs"]}
    rows |= {f"{name} (published)": list(map(_spread, values)) for name, values in published["rows"].items()}
    width = max(map(len, rows)) + 2
    yield ""
    yield f"published: {published['source']}"
    for note in published["differs"]:
        yield f"note: {note}"
    yield " " * width + "".join(f"{name.replace('_', ' '):<24}" for name in published["metrics"]).rstrip()
    for name, texts in rows.items():
        yield (name.ljust(width) + "".join(f"{text:<24}" for text in texts)).rstrip()


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _percent(figure: Mapping[str, Any] | None) -> str:
    known = {key: None if value is None else 100 * value for key, value in (figure or {}).items() if key != "folds"}
    return with_interval(known, ".1f", nothing="-")


def _spread(values: list[float]) -> str:
    """A published mean, and its spread where it is known."""
    return " ± ".join(f"{value:.1f}" for value in values)
