"""Comparing runs: what is refused, what each figure is, and what a person and a script read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score
from typer.testing import CliRunner

from milkit.cli import app
from milkit.compare import compare_runs
from milkit.errors import RunError, SettingsError
from milkit.folds import Folds
from milkit.group_folds import leave_site_out
from milkit.predictions import Predictions
from milkit.settings import MilSettings, dump
from milkit.statistics.delong import delong_test
from milkit.statistics.paired_tests import holm
from milkit.statistics.summary import summarise

CLASSES = ("NPM1", "control", "PML_RARA")
PATIENTS = tuple(f"P{number:02d}" for number in range(60))
LABELS = pd.Series([CLASSES[number % 3] for number in range(60)], index=list(PATIENTS), name="label")

WriteRun = Callable[..., Path]


@pytest.fixture
def write_run(tmp_path: Path) -> WriteRun:
    """Write the files of a run whose scores tell the classes apart by ``shift``; the noise is that of ``seed``."""

    def write(
        name: str,
        shift: float = 1.0,
        seed: int = 0,
        *,
        folds: Folds | None = None,
        labels: "pd.Series[str]" = LABELS,
        classes: tuple[str, ...] = CLASSES,
        cohort: str = "toy",
    ) -> Path:
        run = tmp_path / "milkit-work" / "runs" / name
        run.mkdir(parents=True)
        folds = folds or Folds.stratified(labels, 5, seed=0, repeats=2)
        generator = np.random.default_rng(seed)
        parts = []
        for split in folds.splits():
            own = labels[split.test]
            truth = own.to_numpy()[:, None] == np.array(classes)
            shares = np.exp(generator.normal(size=truth.shape) + shift * truth)
            shares /= shares.sum(axis=1, keepdims=True)
            table = pd.DataFrame({"patient_id": split.test, "repeat": split.repeat, "fold": split.fold})
            table["label"], table["predicted"] = own.to_numpy(), np.array(classes)[shares.argmax(axis=1)]
            table[[f"p_{c}" for c in classes]] = shares
            parts.append(table)
        predictions = Predictions(pd.concat(parts, ignore_index=True), classes)
        predictions.save(run / "predictions.csv")
        folds.save(run / "folds.csv")
        metrics = summarise(predictions, n_bootstrap=200, level=0.95, seed=0)
        (run / "metrics.json").write_text(json.dumps(metrics))
        (run / "provenance.json").write_text(json.dumps({"cohort": cohort, "encoder": "classical"}))
        (run / "settings.yaml").write_text(dump(MilSettings(bootstrap=200)))
        return run

    return write


def table_of(run: Path) -> pd.DataFrame:
    return Predictions.load(run / "predictions.csv").table.sort_values(["repeat", "patient_id"])


def fold_differences(first: Path, second: Path) -> np.ndarray:
    accuracies = [
        [balanced_accuracy_score(p["label"], p["predicted"]) for _, p in table_of(run).groupby(["repeat", "fold"])]
        for run in (first, second)
    ]
    return np.subtract(*accuracies)


def refused(*runs: Path, **options: Any) -> str:
    with pytest.raises((RunError, SettingsError)) as error:
        compare_runs(runs, **options)
    return str(error.value)


def test_the_difference_of_balanced_accuracies_is_that_of_the_runs_with_its_interval(write_run: WriteRun) -> None:
    runs = [write_run("a", 2.0), write_run("b", 1.0, seed=1)]
    (pair,) = compare_runs(runs)["pairs"]
    means = [
        np.mean([balanced_accuracy_score(p["label"], p["predicted"]) for _, p in table_of(run).groupby("repeat")])
        for run in runs
    ]
    gap = pair["balanced_accuracy"]
    assert gap["difference"] == pytest.approx(means[0] - means[1])
    assert 0 < gap["ci_low"] < gap["difference"] < gap["ci_high"]
    assert gap["p"] < 0.01


def test_the_test_over_folds_is_corrected_for_what_they_share(write_run: WriteRun) -> None:
    runs = [write_run("a", 1.5), write_run("b", 1.0, seed=1)]
    (pair,) = compare_runs(runs)["pairs"]
    differences = fold_differences(*runs)
    t = differences.mean() / np.sqrt((1 / 10 + 12 / 36) * differences.var(ddof=1))  # three of five folds train
    assert pair["balanced_accuracy_folds"]["p"] == pytest.approx(2 * stats.t.sf(abs(t), 9))


def test_repeats_that_leave_out_the_same_sites_are_no_further_folds(write_run: WriteRun) -> None:
    sites = pd.Series([f"S{number // 3 % 4}" for number in range(60)], index=LABELS.index, name="site")
    folds = leave_site_out(LABELS, sites, inner=5, seed=0, repeats=3)
    runs = [write_run("a", 1.5, folds=folds), write_run("b", 1.0, seed=1, folds=folds)]
    result = compare_runs(runs)
    differences = fold_differences(*runs).reshape(3, 4).mean(axis=0)
    t = differences.mean() / np.sqrt((1 / 4 + result["n_test"] / result["n_train"]) * differences.var(ddof=1))
    assert result["pairs"][0]["balanced_accuracy_folds"]["p"] == pytest.approx(2 * stats.t.sf(abs(t), 3))
    assert (result["folds"], result["repeats"], result["distinct_folds"]) == (4, 3, 4)


def test_one_fixed_test_has_no_test_over_folds(write_run: WriteRun) -> None:
    once = Folds.stratified(LABELS, 5, seed=0)
    first = once.table[once.table["fold"] == 0]
    folds = Folds(pd.concat([first.assign(repeat=repeat) for repeat in range(4)], ignore_index=True))
    result = compare_runs([write_run("a", 1.5, folds=folds), write_run("b", 1.0, seed=1, folds=folds)])
    gap = result["pairs"][0]["balanced_accuracy_folds"]
    assert gap["difference"] == pytest.approx(result["pairs"][0]["balanced_accuracy"]["difference"])
    assert gap["p"] is gap["ci_low"] is None
    assert result["distinct_folds"] == 1


def test_a_run_without_predictions_is_refused(write_run: WriteRun) -> None:
    runs = [write_run("a"), write_run("b")]
    table = pd.read_csv(runs[1] / "predictions.csv")
    table[["patient_id", "repeat", "fold", "label"]].to_csv(runs[1] / "predictions.csv", index=False)
    assert refused(*runs) == (
        f"{runs[1] / 'predictions.csv'} holds neither classes nor risks nor numbers; make the run again with `milkit "
        "train-mil`."
    )


def test_a_class_s_auroc_is_compared_by_delong_s_test_over_all_repeats(write_run: WriteRun) -> None:
    runs = [write_run("a", 1.5), write_run("b", 1.0, seed=1)]
    (pair,) = compare_runs(runs)["pairs"]
    scores = [table_of(run)["p_control"].to_numpy().reshape(2, 60) for run in runs]
    positive = (table_of(runs[0])["label"] == "control").to_numpy()[:60]
    expected = delong_test(positive, *scores)
    assert pair["per_class"]["control"]["difference"] == pytest.approx(expected.difference)
    assert pair["per_class"]["control"]["p"] == pytest.approx(expected.p_value)


def test_p_values_are_adjusted_over_all_pairs_and_those_of_classes_over_all_classes(write_run: WriteRun) -> None:
    runs = [write_run("a", 1.6), write_run("b", 1.0, seed=1), write_run("c", 1.3, seed=2)]
    pairs = compare_runs(runs)["pairs"]
    assert [(pair["first"], pair["second"]) for pair in pairs] == [(0, 1), (0, 2), (1, 2)]
    for name in ("balanced_accuracy", "balanced_accuracy_folds", "auroc_macro"):
        expected = holm(np.array([pair[name]["p"] for pair in pairs]))
        assert [pair[name]["p_holm"] for pair in pairs] == pytest.approx(list(expected))
    classes = [own for pair in pairs for own in pair["per_class"].values()]
    assert len(classes) == 9
    assert [own["p_holm"] for own in classes] == pytest.approx(list(holm(np.array([own["p"] for own in classes]))))


def test_classes_in_another_order_are_the_same_classes(write_run: WriteRun) -> None:
    first, second = write_run("a", 1.5), write_run("b", 1.0, seed=1)
    expected = compare_runs([first, second])["pairs"]
    table = Predictions.load(second / "predictions.csv").table
    Predictions(table[[*table.columns[:5], *table.columns[:4:-1]]], CLASSES[::-1]).save(second / "predictions.csv")
    assert compare_runs([first, second])["pairs"] == expected


def test_the_order_of_rows_of_folds_does_not_make_other_folds(write_run: WriteRun) -> None:
    first, second = write_run("a", 1.5), write_run("b", 1.0, seed=1)
    Folds(Folds.load(second / "folds.csv").table.sample(frac=1, random_state=0)).save(second / "folds.csv")
    assert len(compare_runs([first, second])["pairs"]) == 1


def test_runs_that_predict_alike_do_not_differ_and_the_result_stays_json(write_run: WriteRun) -> None:
    result = compare_runs([write_run("a"), write_run("b")])
    json.dumps(result, allow_nan=False)
    (pair,) = result["pairs"]
    rows = [pair[name] for name in ("balanced_accuracy", "balanced_accuracy_folds", "auroc_macro")]
    assert [(row["difference"], row["p"], row["p_holm"]) for row in rows] == [(0.0, 1.0, 1.0)] * 3


def test_a_run_alone_is_refused(write_run: WriteRun) -> None:
    expected = "1 run was given, where a comparison needs two or more; name another one."
    assert refused(write_run("a")) == expected


def test_a_run_beside_itself_is_refused(write_run: WriteRun) -> None:
    run = write_run("a")
    expected = f"The run {run} was given twice, and a run does not differ from itself; name each one once."
    assert refused(run, run.parent / "." / "a") == expected


def test_a_folder_that_is_not_there_is_refused(write_run: WriteRun) -> None:
    run = write_run("a")
    expected = f"There is no run at {run}x; make one with `milkit train-mil`, or name another."
    assert refused(run, Path(f"{run}x")) == expected


@pytest.mark.parametrize("name", ["settings.yaml", "folds.csv", "predictions.csv", "metrics.json", "provenance.json"])
def test_an_unfinished_run_is_refused(write_run: WriteRun, name: str) -> None:
    runs = [write_run("a"), write_run("b")]
    (runs[1] / name).unlink()
    expected = (
        f"{runs[1] / name} is missing; the folder is not a finished run, so make it again with `milkit train-mil`."
    )
    assert refused(*runs) == expected


def test_runs_of_other_classes_are_refused(write_run: WriteRun) -> None:
    labels = LABELS.replace("NPM1", "CBFB_MYH11")
    other = write_run("b", labels=labels, classes=("CBFB_MYH11", "control", "PML_RARA"))
    expected = (
        "The runs 'a' and 'b' have the classes NPM1, control, PML_RARA and CBFB_MYH11, control, PML_RARA; compare runs "
        "of the same classes."
    )
    assert refused(write_run("a"), other) == expected


def test_runs_of_other_patients_are_refused(write_run: WriteRun) -> None:
    expected = (
        "The runs 'a' and 'b' tested different patients: 6 are in one of them only (P54, P55, P56, P57, P58 and 1 "
        "more); compare runs of the same patients."
    )
    assert refused(write_run("a"), write_run("b", labels=LABELS[:54])) == expected


def test_runs_of_other_labels_are_refused(write_run: WriteRun) -> None:
    labels = LABELS.copy()
    labels["P00"], labels["P01"] = labels["P01"], labels["P00"]
    expected = (
        "The runs 'a' and 'b' have different labels of 2 patients (P00, P01); compare runs of one target, or make the "
        "older run again with `milkit train-mil`."
    )
    assert refused(write_run("a"), write_run("b", labels=labels)) == expected


def test_runs_of_other_folds_are_refused(write_run: WriteRun) -> None:
    expected = (
        "The runs 'a' and 'b' split the patients differently, so that a difference could be that of their folds; make "
        "one of them again with the other's --seed, --folds and --repeats."
    )
    assert refused(write_run("a"), write_run("b", folds=Folds.stratified(LABELS, 5, seed=1, repeats=2))) == expected


def test_a_cohort_without_a_published_table_has_none_to_show(write_run: WriteRun) -> None:
    expected = "--paper was given, and there is no published table of the cohort 'toy', only of aml_hehr; leave it out."
    assert refused(write_run("a"), write_run("b"), paper=True) == expected


def test_the_table_names_the_runs_once_and_every_test_of_every_pair(
    write_run: WriteRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, shift in (("a", 1.6), ("b", 1.0), ("c", 1.3)):
        write_run(name, shift, seed=int(10 * shift))
    done = CliRunner().invoke(app, ["compare", "a", "b", "milkit-work/runs/c"])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert lines[0].startswith("toy: 60 patients in 3 classes, 5 folds x 2 repeats (")
    assert [line[:4].strip() for line in lines[3:6]] == ["1  a", "2  b", "3  c"]
    assert [line.split("difference")[0].strip() for line in lines if "p (Holm)" in line] == [
        "1 less 2", "1 less 3", "2 less 3"
    ]  # fmt: skip
    assert sum(line.endswith("permutation") for line in lines) == 3
    assert sum(line.endswith("DeLong") for line in lines) == 3 * 4
    assert "Holm: over 3 pairs of runs for each test, and over 9 AUROCs of single classes" in lines
    assert all(len(line) <= 150 and line == line.rstrip() for line in lines)


def test_what_cannot_be_compared_ends_with_status_2_and_one_sentence(
    write_run: WriteRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run("a")
    done = CliRunner().invoke(app, ["compare", "a", "b"])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == "milkit: There is no run at b; make one with `milkit train-mil`, or name another.\n"


def test_a_script_reads_json(write_run: WriteRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    runs = [write_run("a", 1.5), write_run("b")]
    done = CliRunner().invoke(app, ["compare", "a", "b", "--json"])
    assert json.loads(done.stdout) == json.loads(json.dumps(compare_runs(runs)))


def test_the_published_table_stands_beside_the_runs_and_says_that_it_is_of_other_patients(
    write_run: WriteRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run("a", 1.5, cohort="aml_hehr")
    write_run("b", cohort="aml_hehr")
    text = CliRunner().invoke(app, ["compare", "a", "b", "--paper"]).stdout
    assert "242 patients are not the 189 that are public" in text
    assert "DinoBloom-S (published)  93.0 ± 3.0" in text
    assert "ResNet50 (published)" in text
