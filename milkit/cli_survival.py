"""The command that sets a run's predictions against its patients' survival: `survival`."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from milkit.cli_options import Json, say, workspace_of
from milkit.figure_text import with_interval


def survival(
    context: typer.Context,
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="The run folder; without it, the one that train-mil made last.")
    ] = None,
    horizon: Annotated[
        float | None,
        typer.Option(help="The time at which survival is judged, in units of the patients' time; their median."),
    ] = None,
    covariates: Annotated[
        str | None, typer.Option(help="Columns of the patients beside the prediction in Cox's model: age,sex.")
    ] = None,
    follow_up: Annotated[
        Path | None,
        typer.Option(help="A CSV with patient_id, time and event; else those of the run or of the cohort's patients."),
    ] = None,
    groups: Annotated[int, typer.Option(help="Groups of risk, 2 or 3, of a run that predicts risks.")] = 2,
    as_json: Json = False,
) -> None:
    """Set what a run predicted against its patients' survival: Kaplan-Meier, log-rank, Cox, c-index, Brier score.

    Groups are the predicted classes, or low and high risk. The patients need columns time and event (1 or 0), or come
    with --follow-up. Writes the folder survival/ into the run.
    """
    from milkit.survival.verb import write_survival

    folder = run or workspace_of(context).current("run")
    if run is None:
        say(f"run {folder}")
    columns = [name.strip() for name in covariates.split(",")] if covariates else []
    result = write_survival(folder, horizon=horizon, covariates=columns, n_groups=groups, follow_up=follow_up)
    if as_json:
        print(json.dumps({"run": str(folder), **result}, ensure_ascii=False))
    else:
        print("\n".join(survival_lines(result)))
        print(f"survival {folder / 'survival'}")


def survival_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """What a person reads of it.

    Args:
        result: Of ``write_survival``.
    """
    level, horizon = f"{100 * result['level']:g} % CI", f"{result['horizon']:g}"
    follow_up = "-" if result["median_follow_up"] is None else f"{result['median_follow_up']:g}"
    chosen = "" if result["horizon_given"] else ", the median time"
    yield f"patients {result['n_patients']}, events {result['n_events']}, median follow-up {follow_up}"
    yield f"horizon  {horizon}{chosen}"
    yield ""
    width = max(len(group["group"]) for group in result["groups"]) + 2
    yield f"{'group':<{width}}{'n':>5}{'events':>8}  {f'median ({level})':<26}without event at {horizon} ({level})"
    for group in result["groups"]:
        median, there = (_figure(group[key], form) for key, form in (("median", "g"), ("survival_at_horizon", ".2f")))
        yield f"{group['group']:<{width}}{group['n']:>5}{group['n_events']:>8}  {median:<26}{there}"
    if found := result["log_rank"]:
        yield f"log-rank chi2 {found['statistic']:.2f}, df {found['df']}, p {_p(found['p'])}"
    yield from _scores(result, level)
    yield from _cox(result["cox"], level)
    yield ""
    yield from (f"warning: {text}" for text in result["warnings"])
    yield from (f"note: {text}" for text in result["notes"])


def _scores(result: Mapping[str, Any], level: str) -> Iterator[str]:
    yield ""
    titles = {"within_folds": "c-index, within folds", "uno": "  Uno, to the horizon", "pooled": "c-index, all pairs"}
    for key, figure in (result["c_index"] or {}).items():
        chance = "; chance 0.50, a higher risk is an earlier event" if key != "uno" else ""
        yield f"{titles[key]:<24}{_figure(figure, '.2f')} ({level}){chance}"
    if score := result["brier"]:
        yield f"{'integrated Brier score':<24}{_figure(score['model'], '.3f')}"
        yield f"{'  one curve for all':<24}{_figure(score['reference'], '.3f')}"
        yield f"{'  gain':<24}{_figure(score['gain'], '.2f')}; 0 adds nothing, 1 is perfect"
    if found := result["calibration"]:
        yield f"{'observed / expected':<24}{_figure(found['observed_to_expected'], '.2f')}; 1 is right, at the horizon"


def _cox(cox: Mapping[str, Any] | None, level: str) -> Iterator[str]:
    if not cox:
        return
    yield ""
    yield f"Cox's model, {cox['n']} patients, {cox['n_events']} events"
    width = max(len(term["unit"]) for term in cox["terms"]) + 2
    yield f"{'':<{width}}{f'hazard ratio ({level})':<28}{'p':>8}{'p (proportional)':>18}"
    for term in cox["terms"]:
        ratio, p, fair = _figure(term["hazard_ratio"], ".2f"), _p(term["p"]), _p(term["p_proportional"])
        yield f"{term['unit']:<{width}}{ratio:<28}{p:>8}{fair:>18}"
    if gain := cox["gain"]:
        figures = f"chi2 {gain['statistic']:.2f}, df {gain['df']}, p {_p(gain['p'])}"
        beside = "beside the covariates" if len(cox["terms"]) > gain["df"] else "alone"
        yield f"the prediction {beside}, likelihood ratio: {figures}"


def _figure(figure: Mapping[str, Any], form: str) -> str:
    return with_interval(figure, form, nothing="not reached" if form == "g" else "-")


def _p(value: float | None) -> str:
    if value is None:
        return "-"
    return "<0.001" if value < 0.001 else f"{value:.3f}"
