"""Readers beside each other, themselves and the model: against figures worked out cell by cell."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from review_toys import key_of, review_run, save_json
from sklearn.metrics import cohen_kappa_score
from typer.testing import CliRunner

from milkit.bags import BagStore
from milkit.cli import app
from milkit.labelled_cells import labels_of
from milkit.review.compare import against_model, between_readers, consensus, within_readers
from milkit.review.key import UNCLEAR
from milkit.review.labels import with_formulas
from milkit.review.out import Review, write_review
from milkit.review.unblind import read_review
from milkit.statistics.discrimination import auroc
from milkit.tables import read_table
from milkit.taxonomy import Taxonomy

TAXONOMY = Taxonomy.load()
KINDS = ["myeloblast", "neutrophil_segmented", "neutrophil_band", "monocyte", "lymphocyte_typical"]


def table(readings: dict[str, list[str]], *, patients: int = 6, showing: int = 1) -> pd.DataFrame:
    """Labels of the same cells by several readers, as ``to_table`` gives them; percentiles fall along the cells."""
    rows = []
    for reader, labels in readings.items():
        for n, label in enumerate(labels):
            rows.append({"reader": reader, "patient_id": f"P{n % patients}", "cell_id": f"c{n}", "label": label,
                         "showing": showing, "group": "top", "stands_for": 1.0, "class": "x", "rank": n,
                         "percentile": 100.0 - n})  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def readings() -> dict[str, list[str]]:
    generator = np.random.default_rng(0)
    first = generator.choice(KINDS, size=60).tolist()
    return {name: [label if generator.random() < 0.7 else str(generator.choice(KINDS)) for label in first]
            for name in ("A", "B", "C")}  # fmt: skip


def test_kappa_of_every_two_readers_is_that_of_scikit_learn(readings: dict[str, list[str]]) -> None:
    found = between_readers(table(readings), TAXONOMY)
    assert [pair["readers"] for pair in found] == [["A", "B"], ["A", "C"], ["B", "C"]]
    for pair in found:
        one, other = (readings[name] for name in pair["readers"])
        assert pair["as_given"]["estimate"] == pytest.approx(cohen_kappa_score(one, other), abs=1e-12)
        assert pair["as_given"]["n_equal"] == sum(x == y for x, y in zip(one, other, strict=True))
        assert pair["as_given"]["ci_low"] < pair["as_given"]["estimate"] < pair["as_given"]["ci_high"]
        assert (pair["n_cells"], pair["n_patients"]) == (60, 6)


def test_readers_who_stop_at_different_depths_agree_at_the_coarser_one() -> None:
    fine = ["neutrophil_segmented", "neutrophil_band", "monocyte", UNCLEAR, "monocyte"]
    coarse = ["neutrophil", "neutrophil", "monocyte", UNCLEAR, "myeloblast"]
    (pair,) = between_readers(table({"A": fine, "B": coarse}), TAXONOMY)
    assert (pair["as_given"]["n_equal"], pair["levelled"]["n_equal"]) == (2, 4)
    expected = cohen_kappa_score(["n", "n", "m", "u", "m"], ["n", "n", "m", "u", "b"])
    assert pair["levelled"]["estimate"] == pytest.approx(expected, abs=1e-12)


def test_only_cells_that_both_labelled_count_and_none_leave_the_figure_open() -> None:
    labels = table({"A": KINDS, "B": KINDS})
    apart = labels[(labels["reader"] == "A") == labels["cell_id"].isin(["c0", "c1"])]
    (pair,) = between_readers(apart, TAXONOMY)
    assert pair["n_cells"] == 0
    assert pair["as_given"] == {"n_equal": 0, "estimate": None, "ci_low": None, "ci_high": None}
    (overlapping,) = between_readers(labels[(labels["reader"] == "A") | (labels["cell_id"] != "c0")], TAXONOMY)
    assert overlapping["n_cells"] == 4


def test_a_reader_s_second_look_is_set_beside_the_first(readings: dict[str, list[str]]) -> None:
    labels = pd.concat([table({"A": readings["A"]}), table({"A": readings["B"][:20]}, showing=2), table({"B": KINDS})])
    (found,) = within_readers(labels, TAXONOMY)
    assert (found["reader"], found["n_cells"]) == ("A", 20)
    assert found["as_given"]["estimate"] == pytest.approx(
        cohen_kappa_score(readings["A"][:20], readings["B"][:20]), abs=1e-12
    )


@pytest.mark.parametrize(
    ("labels", "shared"),
    [
        (["monocyte", "monocyte"], "monocyte"),
        (["neutrophil", "neutrophil_band"], "neutrophil"),
        (["myeloblast", "monoblast"], "myeloid"),
        (["myeloblast", "artefact"], None),
        (["myeloblast", UNCLEAR], None),
    ],
)
def test_what_all_readers_say_is_the_deepest_node_that_holds_their_labels(
    labels: list[str], shared: str | None
) -> None:
    cells = consensus(table({str(n): [label] for n, label in enumerate(labels)}), TAXONOMY)
    assert cells["readers"].tolist() == [2]
    assert (cells["cell_type"].iloc[0] if shared else cells["cell_type"].isna().item()) == (shared or True)


def test_the_first_look_counts_where_a_cell_was_seen_twice() -> None:
    labels = pd.concat([table({"A": ["monocyte"]}), table({"A": ["myeloblast"]}, showing=2)])
    assert consensus(labels, TAXONOMY)["cell_type"].tolist() == ["monocyte"]


@pytest.fixture
def reviewed() -> pd.DataFrame:
    """Cells of eight patients; band and segmented cells have higher percentiles than others do."""
    generator = np.random.default_rng(1)
    kinds = generator.choice([*KINDS, "neutrophil", "granulocytic"], size=120)
    shift = np.where(np.char.startswith(kinds, "neutrophil"), 20.0, 0.0)
    return pd.DataFrame({
        "patient_id": [f"P{n % 8}" for n in range(120)], "cell_id": [f"c{n}" for n in range(120)], "cell_type": kinds,
        "percentile": generator.uniform(0, 80, size=120).round() + shift,
        "stands_for": generator.choice([1.0, 30.0], size=120),
    })  # fmt: skip


def test_the_auc_of_a_type_is_the_share_of_pairs_in_the_right_order(reviewed: pd.DataFrame) -> None:
    """Positive: neutrophils of any kind. Left out: granulocytic ones, which may be. Negative: all others."""
    found = {row["cell_type"]: row for row in against_model(reviewed, TAXONOMY)}
    assert set(found) == {*KINDS, "neutrophil", "granulocytic"}
    is_one = reviewed["cell_type"].str.startswith("neutrophil")
    others = reviewed[~is_one & (reviewed["cell_type"] != "granulocytic")]
    wins = pairs = weighted_wins = weighted_pairs = 0.0
    for (_, up), (_, down) in product(reviewed[is_one].iterrows(), others.iterrows()):
        win = (up["percentile"] > down["percentile"]) + 0.5 * (up["percentile"] == down["percentile"])
        weight = up["stands_for"] * down["stands_for"]
        wins, pairs = wins + win, pairs + 1
        weighted_wins, weighted_pairs = weighted_wins + weight * win, weighted_pairs + weight
    row = found["neutrophil"]
    assert (row["n_cells"], row["n_others"]) == (is_one.sum(), len(others))
    assert row["shown"]["estimate"] == pytest.approx(wins / pairs, abs=1e-12)
    assert row["all_cells"]["estimate"] == pytest.approx(weighted_wins / weighted_pairs, abs=1e-12)
    assert row["shown"]["ci_low"] < row["shown"]["estimate"] < row["shown"]["ci_high"]


def test_cells_that_stand_for_others_give_the_auc_of_whole_bags() -> None:
    """Of 60 bags the ten highest, ten lowest and ten random cells are shown; their weights undo the choice."""
    generator = np.random.default_rng(2)
    parts, whole = [], []
    for name in range(60):
        percentile = np.linspace(100, 0, 120)
        relevant = generator.random(120) < 0.2 + 0.3 * percentile / 100
        chosen = np.concatenate(
            [np.arange(10), generator.choice(np.arange(10, 110), 10, replace=False), np.arange(110, 120)]
        )
        parts.append(pd.DataFrame({"patient_id": f"P{name}", "percentile": percentile[chosen],
                                   "cell_type": np.where(relevant[chosen], "myeloblast", "monocyte"),
                                   "stands_for": np.repeat([1.0, 10.0, 1.0], 10)}))  # fmt: skip
        whole.append((relevant, percentile))
    relevant, percentile = (np.concatenate(part) for part in zip(*whole, strict=True))
    truth = auroc(relevant, percentile, np.ones((1, len(relevant))))[0]
    found = {row["cell_type"]: row for row in against_model(pd.concat(parts, ignore_index=True), TAXONOMY)}[
        "myeloblast"
    ]
    assert found["all_cells"]["estimate"] == pytest.approx(truth, abs=0.03)
    assert found["shown"]["estimate"] > truth + 0.02  # the ends of the ranking flatter


def test_a_type_that_all_or_no_cells_have_has_no_auc(reviewed: pd.DataFrame) -> None:
    assert against_model(reviewed.assign(cell_type="monocyte"), TAXONOMY) == []
    assert against_model(reviewed.assign(cell_type=None), TAXONOMY) == []


def test_one_patient_has_no_interval(reviewed: pd.DataFrame) -> None:
    row = against_model(reviewed.assign(patient_id="P0"), TAXONOMY)[0]
    assert row["shown"]["estimate"] is not None
    assert (row["shown"]["ci_low"], row["shown"]["ci_high"]) == (None, None)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return review_run(tmp_path)


def answer(made: Review, folder: Path) -> list[Path]:
    """Two readers: A calls cells of a high percentile blasts, B agrees on all but one; both look twice."""
    items = key_of(made)["items"]
    labels = {i["code"]: "myeloblast" if i["percentile"] > 60 else "lymphocyte_typical" for i in items}
    other = labels | {items[0]["code"]: "monocyte"}
    return [save_json(folder / "a.json", made, labels), save_json(folder / "b.json", made, other, reader="=B")]


def test_the_run_gets_one_expert_label_a_cell_under_the_names_of_a_store_s_columns(run: Path, tmp_path: Path) -> None:
    made = write_review(run, n_cells=24, n_twice=3)
    result = read_review(answer(made, tmp_path), [run])
    labels = read_table(run / "expert_labels.csv")
    assert list(labels.columns) == ["patient_id", "cell_id", "cell_type", "readers", "review"]
    assert Path(result["expert_labels"]) == run / "expert_labels.csv"
    store = BagStore.open(tmp_path / "noise.zarr")
    joined = store.cells.merge(labels, on=["patient_id", "cell_id"], validate="one_to_one")
    assert len(joined) == len(labels) == 24
    assert labels_of(joined, "cell_type").dropna().isin(TAXONOMY.nodes).all()
    items = {item["cell_id"]: item for item in key_of(made)["items"]}
    sure = labels[~labels["cell_id"].eq(key_of(made)["items"][0]["cell_id"])]
    expected = ["myeloblast" if items[cell]["percentile"] > 60 else "lymphocyte_typical" for cell in sure["cell_id"]]
    assert sure["cell_type"].tolist() == expected


def test_a_second_review_adds_its_cells_and_replaces_shared_ones(run: Path, tmp_path: Path) -> None:
    first, second = (write_review(run, n_cells=24, n_twice=0, seed=seed) for seed in (0, 1))
    for made in (first, second, second):
        read_review(answer(made, tmp_path)[:1], [run])
    labels = read_table(run / "expert_labels.csv")
    cells = [{item["cell_id"] for item in key_of(made)["items"]} for made in (first, second)]
    assert set(labels["cell_id"]) == cells[0] | cells[1]
    assert not labels["cell_id"].duplicated().any()
    assert set(labels.loc[labels["review"] == second.review, "cell_id"]) == cells[1]


def test_no_cell_of_a_written_table_is_computed_by_a_spreadsheet(run: Path, tmp_path: Path) -> None:
    made = write_review(run, n_cells=9, n_twice=0)
    path = answer(made, tmp_path)[1]
    values = json.loads(path.read_text())
    for row, comment in zip(values["cells"], ["=cmd|' /C calc'!A0", "+1", "-1", "@x"], strict=False):
        row["comment"] = comment
    path.write_text(json.dumps(values))
    read_review([path], [run])
    written = read_table(run / "review" / f"{made.review}.labels.csv")
    texts = [value for value in written.to_numpy().ravel() if isinstance(value, str)]
    assert not [text for text in texts if text.startswith(("=", "+", "-", "@"))]
    back = with_formulas(written)
    assert set(back["reader"]) == {"=B"}
    assert {"=cmd|' /C calc'!A0", "+1", "-1", "@x"} <= set(back["comment"].dropna())


def test_the_command_tells_agreement_and_the_expert_beside_the_model(run: Path, tmp_path: Path) -> None:
    made = write_review(run, n_cells=24, n_twice=8)
    files = [str(path) for path in answer(made, tmp_path)]
    found = CliRunner().invoke(app, ["--workspace", str(run.parent.parent), "review", "in", *files])
    assert found.exit_code == 0, (found.output, found.exception)
    assert "=B and A: kappa 0." in found.stdout
    assert "the same label for 23 of 24 cells" in found.stdout
    assert "A and the same again: kappa 1.00" in found.stdout
    assert "myeloblast" in found.stdout
    told = json.loads(CliRunner().invoke(app, ["review", "in", *files, "--run", str(run), "--json"]).stdout)
    assert told["readers"] == {"A": 32, "=B": 32}
    blasts = next(row for row in told["against_model"] if row["cell_type"] == "myeloblast")
    assert blasts["shown"]["estimate"] == 1.0
    kept = json.loads((run / "review" / f"{made.review}.result.json").read_text())
    assert kept["between_readers"] == told["between_readers"]
    assert kept["run"] == run.name
