"""Comparing runs on other targets than classes: risks, numbers, and one of several targets."""

import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lifelines.utils import concordance_index
from scipy import stats
from typer.testing import CliRunner

from milkit.cli import app
from milkit.compare import compare_runs
from milkit.errors import RunError, SettingsError
from milkit.folds import Folds
from milkit.predictions import prediction_files
from milkit.settings import MilSettings, dump
from milkit.statistics.target_figures import regression_figures, survival_figures
from milkit.tables import write_table

PATIENTS = [f"P{number:02d}" for number in range(60)]
RISK = np.random.default_rng(5).normal(size=60)
"""What the patients' times depend on, and a model may know with noise."""

WriteRun = Callable[..., Path]


def followed() -> pd.DataFrame:
    generator = np.random.default_rng(6)
    times, ends = generator.exponential(np.exp(-RISK)), generator.exponential(2.0, size=60)
    return pd.DataFrame({"time": np.minimum(times, ends), "event": (times <= ends).astype(int)}, index=PATIENTS)


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Write the files of a run whose predictions know ``RISK`` up to noise, times ``scale``."""

    def write(
        name: str,
        noise: float,
        kinds: Sequence[str] = ("survival",),
        *,
        seed: int = 0,
        scale: float = 1.0,
        patients: Sequence[str] = tuple(PATIENTS),
        n_folds: int = 5,
        repeats: int = 2,
        shift: float = 0.0,
    ) -> Path:
        run = tmp_path / "milkit-work" / "runs" / name
        run.mkdir(parents=True)
        strata = pd.Series(["a", "b"] * (len(patients) // 2), index=list(patients), name="label")
        folds = Folds.stratified(strata, n_folds, seed=0, repeats=repeats)
        generator = np.random.default_rng(seed)
        figures = {}
        for kind, file in zip(kinds, prediction_files(kinds), strict=True):
            parts = []
            for split in folds.splits():
                own = [PATIENTS.index(patient) for patient in split.test]
                said = scale * (RISK[own] + noise * generator.normal(size=len(own)))
                part = pd.DataFrame({"patient_id": split.test, "repeat": split.repeat, "fold": split.fold})
                if kind == "survival":
                    part = part.join(followed().iloc[own].reset_index(drop=True)).assign(risk=said)
                else:
                    part = part.assign(label=50 + 10 * RISK[own] + shift, predicted=50 + 10 * said)
                parts.append(part)
            table = pd.concat(parts, ignore_index=True)
            write_table(run / file, table)
            judge = survival_figures if kind == "survival" else regression_figures
            figures[kind] = {
                "target": {"name": kind, "kind": kind},
                **judge(table, n_bootstrap=200, level=0.95, seed=0),
            }
        folds.save(run / "folds.csv")
        metrics = figures[kinds[0]] if len(kinds) == 1 else {"targets": figures}
        (run / "metrics.json").write_text(json.dumps(metrics))
        (run / "provenance.json").write_text(json.dumps({"cohort": "toy", "encoder": "classical"}))
        (run / "settings.yaml").write_text(dump(MilSettings(bootstrap=200)))
        return run

    return write


def of_folds(run: Path, figure: Callable[[pd.DataFrame], float]) -> np.ndarray:
    table = pd.read_csv(run / "predictions.csv")
    return np.array([figure(part) for _, part in table.groupby(["repeat", "fold"])])


def c_index(table: pd.DataFrame) -> float:
    return float(concordance_index(table["time"], -table["risk"], table["event"]))


def mae(table: pd.DataFrame) -> float:
    return float((table["label"] - table["predicted"]).abs().mean())


def test_the_difference_of_c_indices_is_that_of_the_runs_with_its_interval(write_run: WriteRun) -> None:
    runs = [write_run("good", 0.2), write_run("poor", 3.0, seed=1)]
    result = compare_runs(runs)
    gap = result["pairs"][0]["figures"]["c_index"]
    told = [json.loads((run / "metrics.json").read_text())["c_index"]["estimate"] for run in runs]
    assert gap["difference"] == pytest.approx(told[0] - told[1])
    assert 0 < gap["ci_low"] < gap["difference"] < gap["ci_high"]
    assert gap["p"] < 0.01
    assert (result["predicts"], result["target"], result["classes"]) == ("risks", "survival", [])
    assert result["runs"][0]["c_index"]["estimate"] == told[0]


@pytest.mark.parametrize(("kind", "name", "figure"), [("survival", "c_index", c_index), ("regression", "mae", mae)])
def test_the_test_over_folds_is_corrected_for_what_they_share(
    write_run: WriteRun, kind: str, name: str, figure: Callable[[pd.DataFrame], float]
) -> None:
    runs = [write_run("a", 0.5, [kind]), write_run("b", 1.0, [kind], seed=1)]
    found = compare_runs(runs)["pairs"][0]["folds"][name]
    differences = of_folds(runs[0], figure) - of_folds(runs[1], figure)
    t = differences.mean() / np.sqrt((1 / 10 + 12 / 36) * differences.var(ddof=1))  # three of five folds train
    assert found["difference"] == pytest.approx(differences.mean())
    assert found["p"] == pytest.approx(2 * stats.t.sf(abs(t), 9))


def test_the_permutation_of_a_mean_error_is_that_of_all_signs(write_run: WriteRun) -> None:
    """Of 12 patients, all 4,096 ways to exchange predictions are looked at."""
    few = {"patients": PATIENTS[:12], "n_folds": 3, "repeats": 1}
    runs = [write_run("a", 0.3, ["regression"], **few), write_run("b", 0.8, ["regression"], seed=1, **few)]
    found = compare_runs(runs)["pairs"][0]["figures"]["mae"]
    tables = [pd.read_csv(run / "predictions.csv").set_index("patient_id").sort_index() for run in runs]
    errors = [(table["label"] - table["predicted"]).abs().to_numpy() for table in tables]
    gaps = errors[0] - errors[1]
    signs = np.array(list(product([1, -1], repeat=12)))
    assert found["p"] == pytest.approx(np.mean(np.abs(signs @ gaps) >= abs(gaps.sum()) - 1e-9))


@pytest.mark.parametrize("kind", ["survival", "regression"])
def test_the_scale_of_a_model_does_not_change_what_is_told_of_its_order(write_run: WriteRun, kind: str) -> None:
    """Cox's log hazards of two models have no common unit, and neither has a model that shrinks to the mean."""
    name = "c_index" if kind == "survival" else "spearman"
    plain = compare_runs([write_run("a", 0.5, [kind]), write_run("b", 1.0, [kind], seed=1)])
    scaled = compare_runs([write_run("c", 0.5, [kind]), write_run("d", 1.0, [kind], seed=1, scale=100.0)])
    assert scaled["pairs"][0]["figures"][name] == plain["pairs"][0]["figures"][name]
    assert scaled["pairs"][0]["folds"][name] == plain["pairs"][0]["folds"][name]


def test_p_values_are_adjusted_over_the_pairs_of_runs(write_run: WriteRun) -> None:
    runs = [write_run(name, noise, seed=n) for n, (name, noise) in enumerate(zip("abc", (0.2, 1.0, 2.0), strict=True))]
    pairs = compare_runs(runs)["pairs"]
    p_values = sorted(pair["figures"]["c_index"]["p"] for pair in pairs)
    assert min(pair["figures"]["c_index"]["p_holm"] for pair in pairs) == pytest.approx(3 * p_values[0])


def test_models_that_predict_alike_do_not_differ(write_run: WriteRun) -> None:
    result = compare_runs([write_run("a", 1.0), write_run("b", 1.0)])
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert result["pairs"][0]["figures"]["c_index"]["difference"] == 0
    assert result["pairs"][0]["figures"]["c_index"]["p"] == 1


def refused(*runs: Path, **options: Any) -> str:
    with pytest.raises((RunError, SettingsError)) as error:
        compare_runs(runs, **options)
    return str(error.value)


def test_of_runs_on_several_targets_one_is_named(write_run: WriteRun) -> None:
    runs = [write_run("a", 0.5, ["survival", "regression"]), write_run("b", 1.0, ["survival", "regression"], seed=1)]
    assert refused(*runs) == (
        f"The run {runs[0]} predicts survival, regression, and no --target was given; name one of its targets by "
        "--target."
    )
    assert refused(*runs, target="age") == (
        f"The run {runs[0]} predicts survival, regression, and --target age was given; name one of its targets by "
        "--target."
    )
    result = compare_runs(runs, target="regression")
    assert (result["predicts"], result["target"], set(result["pairs"][0]["figures"])) == (
        "numbers", "regression", {"mae", "r2", "spearman"}
    )  # fmt: skip


def test_a_target_of_a_run_on_several_is_compared_with_a_run_on_that_alone(write_run: WriteRun) -> None:
    runs = [write_run("a", 0.5, ["survival", "regression"]), write_run("b", 1.0, ["survival"], seed=1)]
    assert compare_runs(runs, target="survival")["predicts"] == "risks"


def test_runs_of_other_kinds_of_targets_are_refused(write_run: WriteRun) -> None:
    expected = "The runs 'a' and 'b' predict risks and numbers; compare runs of the same target."
    assert refused(write_run("a", 0.5), write_run("b", 0.5, ["regression"])) == expected


def test_runs_of_other_outcomes_are_refused(write_run: WriteRun) -> None:
    runs = [write_run("a", 0.5, ["regression"]), write_run("b", 0.5, ["regression"], shift=1.0)]
    assert refused(*runs) == (
        "The runs 'a' and 'b' have different outcomes of 60 patients (P00, P01, P02, P03, P04 and 55 more); compare "
        "runs of one target, or make the older run again with `milkit train-mil`."
    )


def test_published_tables_are_of_classes(write_run: WriteRun) -> None:
    expected = "--paper was given, whose tables are of classes, and the runs predict risks; leave it out."
    assert refused(write_run("a", 0.5), write_run("b", 1.0), paper=True) == expected


def test_the_table_names_the_target_its_figures_and_their_tests(
    write_run: WriteRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, noise in (("a", 0.5), ("b", 1.0)):
        write_run(name, noise, ["survival", "regression"], seed=int(10 * noise))
    done = CliRunner().invoke(app, ["compare", "a", "b", "--target", "regression"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("toy: 60 patients, target regression, 5 folds x 2 repeats (")
    assert lines[2].split() == ["mean", "absolute", "error", "R²", "Spearman's", "ρ", "(95", "%", "CI)"]
    assert sum(line.endswith("  permutation") for line in lines) == 3
    assert sum(line.endswith("  corrected t") for line in lines) == 3
    assert "Holm: over 1 pair of runs for each test" in lines
    assert not any("AUROC" in line or "DeLong" in line for line in lines)
    assert all(len(line) <= 150 and line == line.rstrip() for line in lines)
    risks = CliRunner().invoke(app, ["compare", "a", "b", "--target", "survival"]).stdout
    assert "c-index: 0.5 is chance; patients are compared within their fold" in risks
