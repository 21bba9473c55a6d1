"""Typing cells by labelled ones: who types whom, what stays unknown, and what is refused."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from composition_toys import KINDS, STRANGER, labelled, make_run
from probe_toys import labelled_cells, labelled_store, with_patients

from milkit.bags import BagStore
from milkit.composition.cell_typing import EVEN, Rules, type_labelled
from milkit.composition.known_types import agreement
from milkit.composition.reference import read_reference
from milkit.composition.settings import DifferentialSettings
from milkit.composition.table import CellTypes
from milkit.composition.verb import compose
from milkit.errors import FoldError, RunError, StoreError
from milkit.runs import run_settings
from milkit.statistics.selective import Threshold

QUICK = DifferentialSettings(bootstrap=100, top=10)


def settings(**other: object) -> DifferentialSettings:
    return QUICK.model_copy(update=other)


def silent(n: int = 1) -> None:
    """In the place of progress."""


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose cells were typed by labelled cells of another cohort."""
    root = tmp_path_factory.mktemp("composed")
    run = make_run(root)
    compose(run, settings(labelled=labelled(root / "labelled.zarr").path))
    return run


def true_types(run: Path) -> "pd.Series[str]":
    cells = BagStore.open(run_settings(run)[1]).cells
    return cells.set_index("cell_id")["cell_type"]


def test_cells_get_the_type_that_they_have(composed: Path) -> None:
    table = CellTypes.load(composed / "cell_types.parquet").table.set_index("cell_id")
    true = true_types(composed)[table.index]
    ordinary = (true != STRANGER).to_numpy()
    given = table["cell_type"] != "unknown"
    assert (table["cell_type"] == true)[given & ordinary].all()
    assert given[ordinary].mean() > 0.9


def test_cells_of_a_kind_that_nobody_labelled_are_unknown(composed: Path) -> None:
    table = CellTypes.load(composed / "cell_types.parquet").table.set_index("cell_id")
    strangers = table[(true_types(composed)[table.index] == STRANGER).to_numpy()]
    assert (strangers["cell_type"] == "unknown").all()
    assert strangers["because"].str.contains("unlike").all()
    assert set(strangers["likeliest"]) <= set(KINDS)


def test_about_the_share_that_may_be_is_unlike_among_cells_that_are_like(composed: Path) -> None:
    table = CellTypes.load(composed / "cell_types.parquet").table.set_index("cell_id")
    like = table[(true_types(composed)[table.index] != STRANGER).to_numpy()]
    assert 0.005 < like["because"].str.contains("unlike").mean() < 0.08


def test_the_table_has_every_cell_in_the_order_of_the_store(composed: Path) -> None:
    table = CellTypes.load(composed / "cell_types.parquet").table
    assert table["cell_id"].tolist() == true_types(composed).index.tolist()
    assert not table["out_of_fold"].any()


def test_the_rules_are_those_of_the_docstring() -> None:
    logits = np.array([[2.0, 1.0, 0.0], [3.0, 0.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 5.0]])
    known = (np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0]), np.array([]))
    rules = Rules(2.0, Threshold(0.6, attained=True), known, unlike=0.3)
    typed = rules.apply(logits, np.array([2.0, 3.5, 1.0, 9.0]))
    raised = np.exp(logits / 2)
    np.testing.assert_allclose(typed.probability, (raised / raised.sum(axis=1, keepdims=True)).max(axis=1))
    assert typed.likeliest.tolist() == [0, 0, 1, 2]
    np.testing.assert_allclose(typed.usual, [(1 + 2) / 4, 1 / 4, 1.0, 1.0])
    assert typed.unsure.tolist() == [True, False, False, False]
    assert typed.unlike.tolist() == [False, True, False, False]
    assert typed.known.tolist() == [False, False, True, True]


def test_a_type_that_is_less_likely_than_not_is_given_to_no_cell() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, size=300)
    rules = Rules.of(10.0 * np.eye(3)[labels], labels, np.ones(300), QUICK)
    assert rules.temperature == 1.0
    assert rules.threshold == (EVEN, True)


def test_a_labelled_cell_is_not_typed_by_itself(tmp_path: Path) -> None:
    """More features than cells, all noise: a probe knows by heart whom it has seen."""
    noise = np.random.default_rng(0).normal(size=(99, 150))
    store = labelled_store(tmp_path / "noise.zarr", labelled_cells({"A": 33, "B": 33, "C": 33}), features=noise)
    reference = read_reference(store, QUICK)
    typed = type_labelled(reference, QUICK, silent).typed
    assert (typed.likeliest == reference.labels).mean() < 0.5


def test_a_labelled_cell_is_not_typed_by_others_of_its_patient(tmp_path: Path) -> None:
    """Patients differ, their types do not: who has seen a patient knows the type of all of that patient's cells."""
    generator = np.random.default_rng(0)
    cells = with_patients(labelled_cells({"A": 100, "B": 100}), 20)
    number = cells["patient_id"].str[1:].astype(int).to_numpy()
    cells["cell_type"] = np.array(["A", "B"])[generator.permutation(20) % 2][number]
    features = 5 * np.eye(20)[number] + 0.1 * generator.normal(size=(200, 20))
    reference = read_reference(labelled_store(tmp_path / "p.zarr", cells, features=features), QUICK)
    typed = type_labelled(reference, QUICK, silent).typed
    assert reference.groups.unit == "patients"
    assert (typed.likeliest == reference.labels).mean() < 0.75
    assert typed.unlike.mean() < 0.15


def test_hard_cells_are_unsure_until_the_others_are_accurate(tmp_path: Path) -> None:
    cells = labelled_cells({"A": 400, "B": 400})
    store = labelled_store(tmp_path / "hard.zarr", cells, separation=1.4, dim=2, seed=1)
    reference = read_reference(store, QUICK)
    found = type_labelled(reference, settings(accuracy=0.93), silent)
    right, kept = found.typed.likeliest == reference.labels, ~found.typed.unsure
    assert right.mean() < 0.9
    assert found.rules.threshold.attained
    assert right[kept].mean() == pytest.approx(0.93, abs=0.03)
    assert 0.4 < kept.mean() < 0.95


def test_accuracy_out_of_reach_is_warned_of(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    generator = np.random.default_rng(0)
    store = labelled_store(
        tmp_path / "l.zarr", labelled_cells({"A": 60, "B": 60}), features=generator.normal(size=(120, 8))
    )
    told = compose(run, settings(labelled=store.path))
    assert any("not typed with the accuracy that was asked for (95 %)" in text for text in told["warnings"])


def test_how_far_untaught_types_stay_unknown_is_measured(composed: Path, tmp_path: Path) -> None:
    run = make_run(tmp_path, n_patients=6)
    told = compose(run, settings(labelled=labelled(tmp_path / "l.zarr").path))
    assert {name: one["unknown"] for name, one in told["typing"]["untaught"].items()} == dict.fromkeys(KINDS, 1.0)
    assert any("not taught stayed unknown in 100 % of its cells" in text for text in told["sentences"])
    none = compose(run, settings(labelled=tmp_path / "l.zarr", left_out_cells=0))
    assert none["typing"]["untaught"] == {}


def test_own_labels_type_the_other_cells_and_labelled_ones_are_typed_out_of_fold(tmp_path: Path) -> None:
    run = make_run(tmp_path, strangers=0)
    store = BagStore.open(run_settings(run)[1])
    cells = store.cells.copy()
    cells["cell_type"] = cells["cell_type"].where(np.arange(len(cells)) % 3 > 0)
    BagStore(store.path, writable=True).replace_cells(cells)
    told = compose(run, settings())
    table = CellTypes.load(run / "cell_types.parquet").table
    assert told["labelled"]["own"] is True
    assert told["known_types"] is None
    assert table["out_of_fold"].tolist() == cells["cell_type"].notna().tolist()
    given = (table["cell_type"] != "unknown").to_numpy()
    assert (table["cell_type"] == store.cells["cell_type"])[given].all()
    assert told["cells"]["n_out_of_fold"] == told["labelled"]["n_cells"]
    assert "labelled cells of the cohort itself, under toy-encoder" in told["sentences"][0]
    reference = read_reference(BagStore.open(store.path), settings())
    typed = type_labelled(reference, settings(), silent).typed
    own = table[table["out_of_fold"]]
    assert (own["likeliest"] == np.array(reference.types)[typed.likeliest]).all()
    np.testing.assert_allclose(own["probability"], typed.probability, rtol=1e-6)


def test_another_encoder_is_refused(tmp_path: Path) -> None:
    run, other = make_run(tmp_path), labelled(tmp_path / "l.zarr", encoder_digest="f" * 64)
    with pytest.raises(StoreError, match=r"is of the encoder toy-encoder \(ffffffff, 8 features\), the run's store of "
                       r"toy-encoder \(eeeeeeee, 8 features\); cells are typed by features of one encoder, so extract "
                       r"the labelled cells with the run's weights\."):  # fmt: skip
        compose(run, settings(labelled=other.path))
    assert not (run / "composition.json").exists()


def test_a_store_without_labels_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, known=False)
    with pytest.raises(
        StoreError, match=r"have no column 'cell_type', only cell_id, patient_id, path; give --labelled a"
    ):
        compose(run, QUICK)


def test_too_few_labelled_cells_are_refused(tmp_path: Path) -> None:
    run, store = make_run(tmp_path), labelled_store(tmp_path / "l.zarr", labelled_cells({"A": 20, "B": 3}), dim=8)
    with pytest.raises(FoldError, match=r"has 1 types of 5 cells or more, of several cells \(B too rare\), expected"):
        compose(run, settings(labelled=store.path))


def test_what_says_nothing_of_a_cell_is_left_out_and_counted(tmp_path: Path) -> None:
    cells = labelled_cells({"A": 20, "B": 20, "Unknown": 6, "smudge": 5, "rare": 2})
    cells.loc[cells["cell_type"] == "A", "cell_type"] = ["", "  "] + ["A"] * 18
    store = labelled_store(tmp_path / "l.zarr", cells, failed=(0,))
    reference = read_reference(store, settings(leave_out=("smudge",)))
    assert reference.types == ("A", "B")
    assert reference.rare == ("rare",)
    assert sum(reference.left_out.values()) + len(reference.labels) == 53
    assert reference.left_out["unreadable"] == 1
    assert reference.left_out["of rare types"] == 2


HEHR = dict(zip(KINDS, ("typical lymphocyte", "monocyte", "neutrophil granulocyte (band)"), strict=True))
"""What a published cohort calls the kinds. Acevedo's calls them as they are, and says less of neutrophils."""


def labelled_as(path: Path, words: dict[str, str], cohort: str) -> BagStore:
    source = labelled(path.with_name("raw.zarr"))
    cells = source.cells.assign(cell_type=source.cells["cell_type"].map(words))
    return labelled_store(path, cells, features=source.load(), cohort=cohort)


def test_labels_are_translated_by_the_taxonomy_and_agree_with_nodes_above(tmp_path: Path) -> None:
    run = make_run(tmp_path, strangers=0, cohort="acevedo")
    store = labelled_as(tmp_path / "l.zarr", HEHR, "aml_hehr")
    told = compose(run, settings(labelled=store.path, taxonomy=True))
    assert told["types"] == ["lymphocyte_typical", "monocyte", "neutrophil_band", "unknown"]
    assert told["taxonomy"]["labels"] == dict(zip(HEHR.values(), told["types"], strict=False))
    assert len(told["taxonomy"]["sha256"]) == 64
    assert "translated by the taxonomy blood" in told["sentences"][0]
    assert told["known_types"]["n_cells"] == 24 * 60
    assert told["known_types"]["agreement"]["estimate"] == 1.0


def test_a_cohort_whose_words_the_taxonomy_lacks_is_typed_all_the_same(tmp_path: Path) -> None:
    store = labelled_as(tmp_path / "l.zarr", HEHR, "aml_hehr")
    told = compose(make_run(tmp_path), settings(labelled=store.path, taxonomy=True))
    reason = (
        "Whether the types agree with those that the cohort knows is not told: No recipe in configs/taxonomies/labels"
    )
    assert any(text.startswith(reason) for text in told["sentences"])


def test_labels_of_a_review_type_the_other_cells(tmp_path: Path) -> None:
    """As `milkit review in` writes them: nodes of the taxonomy, none where the readers do not agree."""
    kinds = true_types(make_run(tmp_path, strangers=0, name="known"))
    run = make_run(tmp_path, strangers=0, known=False)
    store = BagStore.open(run_settings(run)[1])
    table = pd.DataFrame({"patient_id": "", "cell_id": kinds.index, "cell_type": kinds.to_numpy(), "readers": 2})
    table = table.iloc[::4]
    table.loc[table.index[:5], "cell_type"] = None
    table.loc[table.index[5:9], "cell_type"] = "object"
    table.to_csv(tmp_path / "expert_labels.csv", index=False)
    told = compose(run, settings(labels=tmp_path / "expert_labels.csv", taxonomy=True))
    assert told["labelled"]["n_cells"] == len(table) - 9
    assert told["labelled"]["left_out"]["of labels that mean no single node"] == 4
    assert told["types"] == ["lymphocyte", "monocyte", "neutrophil", "unknown"]
    typed = CellTypes.load(run / "cell_types.parquet").table
    given = (typed["cell_type"] != "unknown").to_numpy()
    assert given.mean() > 0.9
    assert (typed["cell_type"].to_numpy() == kinds[store.cells["cell_id"]].to_numpy())[given].all()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("cell,type\nP00/1,monocyte\n", r"labels.csv lacks cell_id and cell_type, expected a row a cell with both"),
        (
            "cell_id,cell_type\nX,monocyte\n",
            r"labels.csv has no cell of .*run.zarr; expected the cells of the labelled",
        ),
        ("cell_id,cell_type\nP00/1,a\nP00/1,b\n", r"labels.csv has the cell 'P00/1' twice; expected the cells of the"),
    ],
)
def test_a_table_of_labels_that_does_not_fit_is_refused(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(table)
    with pytest.raises(StoreError, match=message):
        compose(make_run(tmp_path, n_patients=6), settings(labels=tmp_path / "labels.csv"))


def test_agreement_is_with_what_the_store_knows_and_over_patients(composed: Path, tmp_path: Path) -> None:
    store = BagStore.open(run_settings(composed)[1])
    table = CellTypes.load(composed / "cell_types.parquet").table
    reference = read_reference(labelled(tmp_path / "l.zarr"), QUICK)
    reference = type(reference)(**{**{f: getattr(reference, f) for f in reference.__slots__}, "own": False})
    wrong = table.assign(cell_type=["monocyte" if n % 4 == 0 else kind for n, kind in enumerate(table["cell_type"])])
    found = agreement(store, wrong, reference, QUICK)
    assert found is not None
    true = store.cells["cell_type"]
    possible, typed = true.isin(KINDS), wrong["cell_type"] != "unknown"
    expected = (wrong["cell_type"] == true)[possible & typed].mean()
    assert found["agreement"]["estimate"] == pytest.approx(expected)
    assert found["agreement"]["ci_low"] < expected < found["agreement"]["ci_high"]
    assert found["typed"]["estimate"] == pytest.approx(typed[possible].mean())
    assert found["n_cells"] == possible.sum()
    assert found["n_patients"] == 24
    assert found["others"] == {"n_cells": 24 * 6, "unknown": (wrong["cell_type"] == "unknown")[~possible].mean()}


def test_cells_that_the_probe_learned_from_are_no_test_of_it(tmp_path: Path) -> None:
    """The labelled cohort has images of the run's."""
    generator = np.random.default_rng(0)
    cells = labelled_cells({"A": 30, "B": 30})
    own = labelled_store(tmp_path / "run.zarr", with_patients(cells, 6), features=generator.normal(size=(60, 4)))
    files = [*range(20), *range(100, 140)]
    other = labelled_store(tmp_path / "l.zarr", cells, features=generator.normal(size=(60, 4)), files=files)
    reference = read_reference(other, QUICK)
    reference = type(reference)(**{**{f: getattr(reference, f) for f in reference.__slots__}, "own": False})
    found = agreement(own, own.cells.assign(cell_type="A"), reference, QUICK)
    assert found is not None
    assert (found["n_learned"], found["n_cells"]) == (20, 40)


def test_ids_that_identify_are_in_no_file(tmp_path: Path) -> None:
    run = make_run(tmp_path, n_patients=6, ids="identifying")
    store = BagStore.open(run_settings(run)[1])
    compose(run, settings())
    written = [(run / name).read_text() for name in ("composition.json", "differential.csv", "enrichment.csv")]
    written.append(CellTypes.load(run / "cell_types.parquet").table.to_csv())
    assert all(str(store.patients.index[0]) in text for text in (written[0], written[1], written[3]))
    assert not any(re.search(r"\bP0\d\b", text) for text in written)


def test_a_newer_or_another_table_is_refused(composed: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is missing; make it with `milkit differential"):
        CellTypes.load(tmp_path / "cell_types.parquet")
    with pytest.raises(RunError, match=r"holds no format, version unknown, expected milkit-cell-types, version 1 or"):
        CellTypes.load(composed / "attention.parquet")
    (tmp_path / "cell_types.parquet").write_text("no table")
    with pytest.raises(RunError, match=r"is not a Parquet file; make it with"):
        CellTypes.load(tmp_path / "cell_types.parquet")
