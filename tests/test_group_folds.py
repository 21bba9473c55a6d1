"""Folds that part no group: against all assignments where they can be counted, and what is refused."""

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from milkit.bags import BagStore
from milkit.cli import app
from milkit.errors import FoldError
from milkit.folds import Folds
from milkit.group_folds import assign_groups, grouped, imbalance, leave_site_out
from milkit.settings import MilSettings
from milkit.splitting import make_folds


def _cohort(n_groups: int = 12, seed: int = 0) -> pd.DataFrame:
    """Patients of two classes at sites of 3 to 8 patients each."""
    generator = np.random.default_rng(seed)
    sites = np.repeat([f"site{group:02d}" for group in range(n_groups)], generator.integers(3, 9, n_groups))
    index = pd.Index([f"P{number:03d}" for number in range(len(sites))], name="patient_id")
    labels = np.where(np.arange(len(sites)) % 3 == 0, "APL", "control")
    return pd.DataFrame({"label": labels, "site": sites}, index=index)


def _sites(patients: pd.DataFrame, ids: list[str]) -> set[str]:
    return set(patients.loc[ids, "site"])


@pytest.mark.parametrize("seed", range(5))
def test_the_search_finds_the_best_of_all_assignments(seed: int) -> None:
    counts = np.random.default_rng(seed).integers(0, 9, size=(8, 3)).astype(float)
    counts[:3] += 1
    scaled = counts / np.sqrt(counts.sum(axis=0))
    share = counts.sum(axis=0) / 3

    def cost(assigned: tuple[int, ...]) -> float:
        return sum(
            (sum(counts[g, c] for g in range(8) if assigned[g] == f) - share[c]) ** 2 / counts[:, c].sum()
            for f in range(3)
            for c in range(3)
        )

    best = min(cost(assigned) for assigned in product(range(3), repeat=8) if len(set(assigned)) == 3)
    found = assign_groups(counts, 3, np.random.default_rng(seed))
    assert imbalance(scaled, found, 3) == pytest.approx(best)
    assert cost(tuple(found)) == pytest.approx(best)


def test_no_group_is_parted_and_every_patient_is_tested_once_a_repeat() -> None:
    patients = _cohort()
    folds = grouped(patients["label"], patients["site"], 4, seed=1, repeats=2)
    for split in folds.splits():
        roles = [_sites(patients, ids) for ids in (split.train, split.validation, split.test)]
        assert sum(map(len, roles)) == len(set.union(*roles))
    tested = folds.table[folds.table["role"] == "test"].groupby("repeat")["patient_id"]
    assert all(sorted(ids) == list(patients.index) for _, ids in tested)


def test_folds_of_groups_have_like_shares_of_the_classes() -> None:
    patients = _cohort()
    folds = grouped(patients["label"], patients["site"], 3, seed=0)
    shares = [(patients.loc[split.test, "label"] == "APL").mean() for split in folds.splits()]
    assert max(shares) - min(shares) < 0.1


def test_the_seed_repeats_the_folds() -> None:
    patients = _cohort(40)
    digests = [grouped(patients["label"], patients["site"], 5, seed=seed).digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_no_fold_is_empty_where_one_group_has_nearly_everybody() -> None:
    labels = pd.Series(["A", "B"] * 50, index=[f"P{number:03d}" for number in range(100)])
    groups = pd.Series(["big"] * 90 + [f"small{number % 4}" for number in range(10)], index=labels.index, name="site")
    folds = grouped(labels, groups, 3, seed=0)
    assert all(split.test for split in folds.splits())


def test_each_site_is_tested_once_by_models_that_never_saw_it() -> None:
    patients = _cohort()
    splits = list(leave_site_out(patients["label"], patients["site"], inner=5, seed=0).splits())
    assert [_sites(patients, split.test) for split in splits] == [{name} for name in sorted(set(patients["site"]))]
    for split in splits:
        assert not _sites(patients, split.test) & _sites(patients, [*split.train, *split.validation])
        assert set(patients.loc[split.validation, "label"]) == {"APL", "control"}
        assert len(split.validation) == pytest.approx(len(split.train) / 4, abs=2)


def test_site_preserved_is_a_partition_by_site() -> None:
    patients = _cohort()
    named = make_folds(patients, MilSettings(splits="site-preserved", folds=3))
    assert named.digest == grouped(patients["label"], patients["site"], 3, seed=0).digest
    assert named.digest == make_folds(patients, MilSettings(by="site", folds=3)).digest


def test_without_a_word_the_folds_are_stratified() -> None:
    patients = _cohort()
    plain = Folds.stratified(patients["label"], 5, seed=0, repeats=2)
    assert make_folds(patients, MilSettings(repeats=2)).digest == plain.digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"site": None},
            r"62 patients have no value in the column 'site' \(P000, .* and 57 more\), where each belongs",
        ),
        ({"site": "Munich"}, r"5 folds were asked for and the column 'site' has 1 values, which are not parted"),
        ({"label": "APL", "site": lambda table: table["site"].str[:5]}, r"'site' has 2 values, which are not parted"),
    ],
)
def test_groups_that_cannot_be_kept_are_refused(change: dict[str, object], message: str) -> None:
    patients = _cohort().assign(**change)
    with pytest.raises(FoldError, match=message):
        grouped(patients["label"], patients["site"], 5, seed=0)


def test_a_class_of_two_sites_is_refused() -> None:
    patients = _cohort()
    few = patients["site"].isin(["site00", "site01"])
    patients["label"] = np.where(few, "APL", "control")
    with pytest.raises(FoldError, match=r"Patients of the class 'APL' have 2 values of 'site', where training, valid"):
        grouped(patients["label"], patients["site"], 4, seed=0)


def test_a_class_of_one_site_cannot_leave_it_out() -> None:
    patients = _cohort()
    patients["label"] = np.where(patients["site"] == "site03", "APL", "control")
    with pytest.raises(FoldError, match=r"one value of 'site' is left out, no patient of the class 'APL' is left for"):
        leave_site_out(patients["label"], patients["site"], inner=5, seed=0)


def test_one_site_cannot_be_left_out() -> None:
    patients = _cohort().assign(site="Munich")
    with pytest.raises(FoldError, match=r"All 62 patients have 'Munich' in the column 'site', where two values are"):
        leave_site_out(patients["label"], patients["site"], inner=5, seed=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--splits", "by-luck"], "splits: Input should be 'partition', 'site-preserved' or 'leave-site-out'"),
        (["--splits", "site-preserved"], "kept together by 'site', which is no column"),
        (["--folds-file", "none.csv"], "The folds none.csv do not exist; give a table of folds"),
    ],
)
def test_the_command_line_refuses_splits_in_one_sentence_and_leaves_no_run(
    toy_store: BagStore, tmp_path: Path, arguments: list[str], message: str
) -> None:
    given = ["--workspace", str(tmp_path / "work"), "train-mil", "--store", str(toy_store.path), *arguments]
    done = CliRunner().invoke(app, given)
    assert (done.exit_code, message in done.stderr) == (2, True), done.output
    assert not (tmp_path / "work" / "runs").exists()


def test_a_column_that_is_not_there_is_refused() -> None:
    with pytest.raises(
        FoldError, match=r"kept together by 'family', which is no column .* name one with --by \(site\)"
    ):
        make_folds(_cohort(), MilSettings(by="family"))
