"""Choosing settings within each training part: what is chosen, what is recorded, and that nobody tested has a say."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from audit_toys import people, store_of
from toys import CLASSES, make_store, toy_patients
from typer.testing import CliRunner

from milkit.audit.verb import audit_run
from milkit.bags import BagStore
from milkit.cli import app
from milkit.errors import FoldError, SettingsError, UnknownName
from milkit.explain.settings import ExplainSettings
from milkit.explain.table import Explanations
from milkit.explain.verb import explain
from milkit.folds import Folds, Split, patients_digest
from milkit.mil.candidates import candidates, with_default_candidates
from milkit.mil.crossval import cross_validate
from milkit.mil.tuning import Score, Tuning, inner_folds, sentence
from milkit.report.results import read_results
from milkit.report.summary import method
from milkit.runs import read_json
from milkit.settings import MilSettings, find_recipe, load, parse_assignments
from milkit.splitting import make_folds

GRID = {"head": ["meanpool", "abmil"], "training.learning_rate": [1e-5, 0.03]}


def _settings(**other: Any) -> MilSettings:
    values: dict[str, Any] = {"folds": 3, "bootstrap": 100, "controls": False, "tune_folds": 3, "tune": GRID}
    return MilSettings.model_validate({**values, "training": {"max_epochs": 4}, **other})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of 18 patients, and a run that chose among four candidates in each of three splits."""
    folder = tmp_path_factory.mktemp("tuned")
    cross_validate(make_store(folder / "s.zarr", toy_patients()), _settings(), folder / "run")
    return folder


def _advance(_: int = 1) -> None:
    pass


def test_the_score_is_the_mean_recall_and_the_mean_log_loss_of_the_classes() -> None:
    labels = np.array([0, 0, 0, 1])
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]])
    log_loss = (-np.log([0.9, 0.6, 0.2]).mean() - np.log(0.7)) / 2
    assert Score.of(labels, probabilities) == pytest.approx(((2 / 3 + 1) / 2, log_loss), abs=1e-11)


def test_a_probability_of_none_leaves_the_log_loss_finite() -> None:
    assert Score.of(np.array([0, 1]), np.array([[0.0, 1.0], [0.0, 1.0]])).log_loss == pytest.approx(-np.log(2**-23) / 2)


@pytest.mark.parametrize(
    ("wrong", "confidence", "chosen"),
    [
        ((3, 1, 2, 2), (0.6, 0.6, 0.9, 0.9), 1),  # the fewest mistakes, whatever the confidence
        ((2, 1, 1, 2), (0.9, 0.6, 0.9, 0.9), 2),  # of equals the one that is surer of what is right
        ((1, 1, 1, 1), (0.8, 0.8, 0.8, 0.8), 0),  # and then the first
    ],
)
def test_the_best_score_is_chosen(wrong: tuple[int, ...], confidence: tuple[float, ...], chosen: int) -> None:
    settings, patients = _settings(), toy_patients(12)
    folds = make_folds(patients, settings)
    tuning, split = Tuning.of(patients, CLASSES, folds, settings), next(folds.splits())
    mistaken = {number: sorted([*split.train, *split.validation])[:n] for number, n in enumerate(wrong)}

    def trial(inner: Split, candidate: MilSettings) -> Any:
        number = [c.head == candidate.head and c.training == candidate.training for c in tuning.candidates].index(True)
        sure = confidence[number]
        rows = []
        for name in inner.test:
            own = CLASSES.index(patients.loc[name, "label"])
            row = np.full(3, (1 - sure) / 2)
            row[(own + (name in mistaken[number])) % 3] = sure
            rows.append(row)
        return np.array(rows)

    choice = tuning.choose(split, trial, _advance)
    assert choice.settings == tuning.candidates[chosen]


def test_trials_see_training_and_validation_patients_only_and_test_each_once() -> None:
    settings, patients = _settings(repeats=2), toy_patients(12)
    folds = make_folds(patients, settings)
    tuning, seen = Tuning.of(patients, CLASSES, folds, settings), list[tuple[int, Split, MilSettings]]()
    for number, split in enumerate(folds.splits()):

        def trial(inner: Split, candidate: MilSettings, number: int = number) -> Any:
            seen.append((number, inner, candidate))
            return np.full((len(inner.test), 3), 1 / 3)

        tuning.choose(split, trial, _advance)
        own = [(inner, candidate) for outer, inner, candidate in seen if outer == number]
        known = sorted([*split.train, *split.validation])
        assert all(sorted([*i.train, *i.validation, *i.test]) == known for i, _ in own)
        assert sorted(name for i, _ in own for name in i.test) == sorted(known * len(tuning.candidates))
    assert len(seen) + len(list(folds.splits())) == tuning.n_models(len(list(folds.splits())))


def test_candidates_are_trained_by_the_same_seeds_and_splits_by_others() -> None:
    settings, patients = _settings(), toy_patients(12)
    folds = make_folds(patients, settings)
    tuning, seeds = Tuning.of(patients, CLASSES, folds, settings), list[set[int]]()
    for split in folds.splits():
        own = set[int]()

        def trial(inner: Split, candidate: MilSettings, own: set[int] = own) -> Any:
            own.add(candidate.seed)
            return np.full((len(inner.test), 3), 1 / 3)

        tuning.choose(split, trial, _advance)
        seeds.append(own)
    assert [len(own) for own in seeds] == [1, 1, 1]
    assert len({0}.union(*seeds)) == 4


def test_nothing_of_the_tested_patients_changes_a_choice_or_a_score(tmp_path: Path) -> None:
    patients, settings = toy_patients(), _settings()
    folds = make_folds(patients, settings)
    first = next(folds.splits())
    only_first = Folds(folds.table[folds.table["fold"] == 0].reset_index(drop=True))
    changed = patients.copy()
    changed.loc[first.test, "label"] = np.roll(patients.loc[first.test, "label"].to_numpy(), 1)
    assert not changed["label"].equals(patients["label"])
    records = []
    for name, table in (("plain", patients), ("changed", changed)):
        store = make_store(tmp_path / f"{name}.zarr", patients)
        if name == "changed":
            store.replace_patients(table, CLASSES)
            writable = BagStore(tmp_path / "changed.zarr", writable=True)
            for patient in first.test:
                n = len(writable[patient].features)
                digests = writable.image_digests()[writable.rows_of(patient)]
                writable.write(patient, np.full((n, 6), 9.0, dtype=np.float32), digests, {})
            writable.close()
            store = BagStore.open(tmp_path / "changed.zarr")
        cross_validate(store, settings, tmp_path / name, only_first)
        records.append(read_json(tmp_path / name / "tuning.json"))
    assert records[0] == records[1]
    assert len({score["log_loss"] for score in records[0]["splits"][0]["scores"]}) == 4


def test_a_validation_patient_s_label_changes_the_scores(tmp_path: Path) -> None:
    patients, settings = toy_patients(), _settings(tune={"head": ["meanpool", "maxpool"]})
    folds = make_folds(patients, settings)
    first = next(folds.splits())
    only_first = Folds(folds.table[folds.table["fold"] == 0].reset_index(drop=True))
    changed = patients.copy()
    changed.loc[first.validation, "label"] = np.roll(patients.loc[first.validation, "label"].to_numpy(), 1)
    scores = []
    for name, table in (("plain", patients), ("changed", changed)):
        store = make_store(tmp_path / f"{name}.zarr", patients)
        store.replace_patients(table, CLASSES)
        cross_validate(store, settings, tmp_path / name, only_first)
        scores.append(read_json(tmp_path / name / "tuning.json")["splits"][0]["scores"])
    assert scores[0] != scores[1]


def test_every_split_is_trained_with_what_it_chose(finished: Path) -> None:
    record = read_json(finished / "run" / "tuning.json")
    assert [split["fold"] for split in record["splits"]] == [0, 1, 2]
    for split in record["splits"]:
        best = max(split["scores"], key=lambda score: (score["balanced_accuracy"], -score["log_loss"]))
        assert split["scores"][split["chosen"]] == best
        chosen = record["candidates"][split["chosen"]]
        assert chosen["training.learning_rate"] == 0.03
        facts = read_json(finished / "run" / "heads" / f"repeat0-fold{split['fold']}-seed0.json")
        assert facts["head"] == {"name": chosen["head"]}


def test_the_chosen_settings_train_as_if_they_had_been_given(finished: Path, tmp_path: Path) -> None:
    record = read_json(finished / "run" / "tuning.json")
    chosen = record["candidates"][record["splits"][0]["chosen"]]
    training = {"max_epochs": 4, "learning_rate": chosen["training.learning_rate"]}
    given = _settings(tune={}, head=chosen["head"], training=training)
    cross_validate(BagStore.open(finished / "s.zarr"), given, tmp_path / "run")
    name = "heads/repeat0-fold0-seed0.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (finished / "run" / name).read_bytes()


def test_how_many_were_tried_and_what_was_chosen_stands_in_the_metrics(finished: Path) -> None:
    metrics, record = read_json(finished / "run" / "metrics.json"), read_json(finished / "run" / "tuning.json")
    assert metrics["tuning"]["n_configurations"] == record["n_configurations"] == 4
    assert sum(one["splits"] for one in metrics["tuning"]["chosen"]) == metrics["tuning"]["n_splits"] == 3


def test_a_sentence_says_what_was_tried_and_chosen() -> None:
    chosen = [
        {"settings": {"head": {"name": "abmil", "gated": True}, "training.learning_rate": 3e-4}, "splits": 3},
        {"settings": {"head": "meanpool", "training.learning_rate": 1e-3}, "splits": 2},
    ]
    assert sentence({"n_configurations": 6, "n_splits": 5, "chosen": chosen}) == (
        "6 configurations were tried in each training part; chosen: head abmil (gated true) and training.learning_rate "
        "0.0003 (3 of 5 splits), head meanpool and training.learning_rate 0.001 (2 of 5 splits)."
    )


def test_the_report_says_what_was_tried_and_which_heads_were_chosen(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished / "run", tmp_path / "run")
    metrics = read_json(tmp_path / "run" / "metrics.json")
    rates = {"training.learning_rate": 0.03}
    metrics["tuning"]["chosen"] = [
        {"settings": {"head": "meanpool"} | rates, "splits": 2},
        {"settings": {"head": {"name": "abmil", "gated": True}} | rates, "splits": 1},
    ]
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics))
    results = read_results(tmp_path / "run")
    assert results.heads == ["abmil", "meanpool"]
    told = method(results)[1]
    assert told.startswith("The head abmil or meanpool learned from whole patients in 3-fold cross-validation")
    assert "4 configurations were tried in each training part; chosen: head meanpool and " in told


def test_heads_that_share_attention_and_heads_that_do_not_are_explained_together(
    toy_store: BagStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = iter([0, 0, 0, 1, 1, 1])
    monkeypatch.setattr("milkit.mil.tuning._best", lambda _: next(turns))
    tune = {"head": ["abmil", {"name": "abmil", "class_wise": True}]}
    run = tmp_path / "run"
    cross_validate(toy_store, _settings(tune=tune, repeats=2, training={"max_epochs": 1}), run)
    explain(run, ExplainSettings(run=run, methods=("attention",)))
    table = Explanations.load(run / "explain.parquet").table
    assert set(table["class"]) == set(CLASSES)
    assert set(table["n_models"]) == {2}
    assert len(read_results(run).cells) == len(toy_store.cells)


def test_the_log_tells_what_each_split_chose(finished: Path) -> None:
    text = (finished / "run" / "log.txt").read_text()
    assert "repeat0-fold2: 4 candidates are compared by 3 inner folds" in text
    assert text.count(": chosen is head ") == 3


def test_the_settings_of_a_tuned_run_are_a_recipe(finished: Path) -> None:
    loaded = load(MilSettings, finished / "run" / "settings.yaml", {})
    assert loaded == _settings().model_copy(update={"store": (finished / "s.zarr").resolve()})


def test_a_run_without_candidates_records_no_choice(toy_store: BagStore, tmp_path: Path) -> None:
    metrics = cross_validate(toy_store, _settings(tune={}), tmp_path / "run")
    assert "tuning" not in metrics
    assert not (tmp_path / "run" / "tuning.json").exists()
    fitted = read_json(tmp_path / "run" / "provenance.json")["fitted_on"]
    assert {step for steps in fitted.values() for step in steps} == {"train", "validation"}


def test_the_record_holds_no_patient_id(finished: Path) -> None:
    text = (finished / "run" / "tuning.json").read_text()
    assert not [name for name in toy_patients().index if name in text]


def test_the_audit_accepts_choices_of_training_parts_and_names_those_of_everybody(
    finished: Path, tmp_path: Path
) -> None:
    assert [finding for finding in audit_run(finished / "run", images=False) if finding.level == "error"] == []
    shutil.copytree(finished / "run", tmp_path / "run")
    provenance = read_json(tmp_path / "run" / "provenance.json")
    provenance["fitted_on"]["repeat0-fold1"]["tuning"] = patients_digest(list(toy_patients().index))
    (tmp_path / "run" / "provenance.json").write_text(json.dumps(provenance))
    (found,) = [finding for finding in audit_run(tmp_path / "run", images=False) if finding.level == "error"]
    assert found.name == "fitted-outside-fold"
    assert "The step 'tuning' of repeat0-fold1 was fitted on all patients of the cohort" in found.text


def test_inner_folds_keep_groups_together() -> None:
    patients = people(36)
    patients["family"] = [f"F{number // 3}" for number in range(36)]
    settings = _settings(by="family")
    for split in make_folds(patients, settings).splits():
        for own in inner_folds(patients, split, settings).splits():
            families = [set(patients.loc[names, "family"]) for names in (own.train, own.validation, own.test)]
            assert sum(map(len, families)) == len(set().union(*families))


@pytest.mark.parametrize(("n_sites", "tests"), [(3, 2), (2, 3)])
def test_inner_folds_leave_sites_out_where_two_are_left(n_sites: int, tests: int) -> None:
    patients = people(36)
    patients["site"] = [f"S{number // 2 % n_sites}" for number in range(36)]
    settings = _settings(splits="leave-site-out")
    for split in make_folds(patients, settings).splits():
        inner = list(inner_folds(patients, split, settings).splits())
        assert len(inner) == tests
        assert sorted(name for own in inner for name in own.test) == sorted([*split.train, *split.validation])
        if n_sites == 3:
            assert all(patients.loc[own.test, "site"].nunique() == 1 for own in inner)


def test_published_folds_have_inner_ones_by_class(tmp_path: Path) -> None:
    patients = people(36)
    Folds.stratified(patients["label"], 4, seed=5).save(tmp_path / "folds.csv")
    settings = _settings(folds_file=tmp_path / "folds.csv")
    split = next(make_folds(patients, settings).splits())
    inner = inner_folds(patients, split, settings)
    assert inner.table["fold"].nunique() == 3
    assert patients.loc[next(inner.splits()).test, "label"].value_counts().tolist() in ([5, 4], [4, 5], [4, 4], [5, 5])


def test_candidates_are_all_combinations_in_the_order_named() -> None:
    named = [(one.head.name, one.training.learning_rate) for one in candidates(_settings())]
    assert named == [("meanpool", 1e-5), ("meanpool", 0.03), ("abmil", 1e-5), ("abmil", 0.03)]
    assert {one.training.max_epochs for one in candidates(_settings())} == {4}


def test_an_argument_of_the_head_joins_the_head_wherever_it_stands() -> None:
    found = candidates(_settings(tune={"head.hidden_dim": [8, 16], "head": ["abmil", "meanpool"]}))
    assert [(one.head.name, one.head.arguments) for one in found] == [
        ("abmil", {"hidden_dim": 8}),
        ("meanpool", {"hidden_dim": 8}),
        ("abmil", {"hidden_dim": 16}),
        ("meanpool", {"hidden_dim": 16}),
    ]


@pytest.mark.parametrize(
    ("tune", "sentence"),
    [
        ({"head": ["abmil"]}, r"^tune names a single candidate, head abmil, where a choice needs two or more; add"),
        ({"folds": [3, 5]}, r"^tune names 'folds', which inner folds cannot choose; name head, an argument of it such"),
        ({"training.class_weights": [True, False]}, r"^tune names 'training.class_weights', which inner folds cannot"),
        ({"training.rate": [1, 2]}, r"^tune names 'training.rate', which inner folds cannot .*training.learning_rate,"),
        ({"head": ["abmil", {"name": "abmil"}]}, r"^tune names head abmil twice, where candidates must differ; leave"),
        (
            {"training.learning_rate": [1e-3, -1]},
            r"^A candidate of tune cannot be \(training.learning_rate -1: Input should be greater than 0\); give",
        ),
    ],
)
def test_what_cannot_be_a_choice_is_refused_before_anything_is_made(
    toy_store: BagStore, tmp_path: Path, tune: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SettingsError, match=sentence) as error:
        cross_validate(toy_store, _settings(tune=tune), tmp_path / "runs" / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


def test_a_head_that_there_is_not_is_refused_before_anything_is_made(toy_store: BagStore, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match=r"^No head is called 'meanpol'\. Did you mean 'meanpool'\?"):
        cross_validate(toy_store, _settings(tune={"head": ["abmil", "meanpol"]}), tmp_path / "runs" / "run")
    assert not (tmp_path / "runs").exists()


def test_too_few_patients_for_inner_folds_are_refused_before_anything_is_made(
    toy_store: BagStore, tmp_path: Path
) -> None:
    with pytest.raises(
        FoldError,
        match=r"^Candidates cannot be compared within fold 0 \(repeat 0\): 5 folds were asked for and the smallest "
        r"class, '\w+', has 4 patients; set tune_folds lower \(3 or more\), or train without tune\.$",
    ):
        cross_validate(toy_store, _settings(tune_folds=5), tmp_path / "runs" / "run")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "assignments",
    [
        ["tune={head: [abmil, meanpool], training.learning_rate: [1e-4, 3e-4]}"],
        ["tune.head=[abmil, meanpool]", "tune.training.learning_rate=[1e-4, 3e-4]"],
    ],
)
def test_candidates_can_be_named_on_the_command_line(assignments: list[str]) -> None:
    found = candidates(load(MilSettings, None, parse_assignments(assignments)))
    assert [(one.head.name, one.training.learning_rate) for one in found] == [
        ("abmil", 1e-4),
        ("abmil", 3e-4),
        ("meanpool", 1e-4),
        ("meanpool", 3e-4),
    ]


@pytest.mark.parametrize("value", ["abmil", []])
def test_values_that_are_no_list_are_refused_by_name(value: Any) -> None:
    with pytest.raises(SettingsError, match=r"^command line: tune\.head: "):
        load(MilSettings, None, {"tune": {"head": value}})


def test_the_recipe_tuned_tries_six_configurations() -> None:
    assert len(candidates(load(MilSettings, find_recipe("mil", "tuned"), {}))) == 6


def test_the_flag_takes_the_recipe_s_candidates_for_what_is_not_set() -> None:
    recipe = load(MilSettings, find_recipe("mil", "tuned"), {})
    assert with_default_candidates(MilSettings()).tune == recipe.tune
    assert list(with_default_candidates(load(MilSettings, None, {"head": "hehr"})).tune) == ["training.learning_rate"]
    assert with_default_candidates(_settings()).tune == _settings().tune
    with pytest.raises(SettingsError, match=r"^--tune was given, and all that it chooses by default \(head, training"):
        with_default_candidates(load(MilSettings, None, {"head": "hehr", "training.learning_rate": 1e-3}))


def test_what_the_command_line_sets_is_not_chosen_silently(tmp_path: Path) -> None:
    arguments = ["--workspace", str(tmp_path), "train-mil", "--config", "tuned", "--head", "hehr"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert done.stderr.strip() == (
        "milkit: head was given, and tune is to choose it among candidates; leave one of the two out."
    )


def test_the_flag_tunes(tmp_path: Path) -> None:
    patients = people(24)
    store_of(tmp_path / "s.zarr", patients, dict.fromkeys(patients.index, 4), {})
    arguments = ["--workspace", str(tmp_path / "w"), "train-mil", "--store", str(tmp_path / "s.zarr"), "--tune"]
    fast = ["training.max_epochs=1", "tune_folds=3", "bootstrap=100", "controls=false"]
    sets = [part for one in fast for part in ("--set", one)]
    done = CliRunner().invoke(app, [*arguments, "--folds", "3", "--head", "meanpool", "--name", "r", *sets])
    assert done.exit_code == 0, done.output
    assert "3 configurations were tried in each training part; chosen: training.learning_rate " in done.stdout
    assert read_json(tmp_path / "w" / "runs" / "r" / "tuning.json")["n_configurations"] == 3
    kept = yaml.safe_load((tmp_path / "w" / "runs" / "r" / "settings.yaml").read_text())
    assert kept["tune"] == {"training.learning_rate": [1e-4, 3e-4, 1e-3]}
