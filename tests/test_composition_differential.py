"""Counts, shares and enrichment: against the formulas, where there is nothing to find, and where there is."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from composition_toys import CLASSES, labelled, make_run
from scipy.stats import norm
from typer.testing import CliRunner

from milkit.cli import app
from milkit.composition.differential import BAG, Counts, class_rows, patient_rows
from milkit.composition.enrichment import enrichment_rows
from milkit.composition.settings import DifferentialSettings
from milkit.errors import RunError
from milkit.explain.table import Explanations
from milkit.predictions import Attention
from milkit.tables import read_table

SETTINGS = DifferentialSettings(bootstrap=200, top=10)
FORMULA = '=HYPERLINK("http://x","y")'
HOSTILE = {"monocyte": "<script>alert(1)</script>", "lymphocyte": FORMULA, "neutrophil": 'a "quoted", type'}


def counts_of(bag: list[list[int]], top: list[list[int]], classes: list[str]) -> Counts:
    types = (*"abcdefg"[: len(bag[0]) - 1], "unknown")
    patients = tuple(f"P{number}" for number in range(len(bag)))
    parts = {BAG: np.array(bag), "attention": np.array(top)}
    return Counts(patients, np.array(classes, dtype=object), types, parts)


SMALL = counts_of([[5, 3, 2], [8, 0, 12], [1, 1, 2]], [[2, 0, 1], [1, 0, 2], [0, 0, 0]], ["A", "A", "B"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was composed by the command, whose labelled cells have hostile names."""
    root = tmp_path_factory.mktemp("composed")
    made = make_run(root, known=False)
    done = invoke(made, rename(root, HOSTILE))
    assert done.exit_code == 0, done.output
    return made


def rename(root: Path, names: dict[str, str]) -> Path:
    """A store of labelled cells with other names for their types."""
    from probe_toys import labelled_store

    source = labelled(root / "plain.zarr")
    cells = source.cells.assign(cell_type=source.cells["cell_type"].map(names))
    return labelled_store(root / "labelled.zarr", cells, features=source.load()).path


def invoke(run: Path, store: Path, *more: str) -> Any:
    arguments = ["differential", str(run), "--labelled", str(store), "--top", "10", "--set", "bootstrap=200", *more]
    return CliRunner().invoke(app, arguments)


def told(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "composition.json").read_text())
    return found


def test_a_patient_s_shares_have_wilson_s_intervals() -> None:
    z = norm.ppf(0.975)
    rows = {(row["patient_id"], row["cells"], row["cell_type"]): row for row in patient_rows(SMALL, 0.95)}
    for (patient, part, kind), row in rows.items():
        column, number = SMALL.types.index(kind), SMALL.patients.index(patient)
        n, x = int(SMALL.parts[part][number].sum()), int(SMALL.parts[part][number, column])
        p, scale = x / n, 1 + z * z / n
        half = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / scale
        middle = (p + z * z / (2 * n)) / scale
        assert (row["count"], row["n_cells"], row["share"]) == (x, n, p)
        assert (row["ci_low"], row["ci_high"]) == (
            pytest.approx(middle - half, abs=1e-12),
            pytest.approx(middle + half),
        )
    assert ("P1", BAG, "b") not in rows
    assert ("P2", "attention", "a") not in rows


def test_a_class_s_share_is_the_mean_of_its_patients_shares() -> None:
    rows = {(row["class"], row["cells"], row["cell_type"]): row for row in class_rows(SMALL, ("A", "B"), SETTINGS)}
    own = rows["A", BAG, "unknown"]
    assert own["share"] == pytest.approx((2 / 10 + 12 / 20) / 2)
    assert (own["count"], own["n_cells"], own["n_patients"]) == (14, 30, 2)
    assert rows["A", "attention", "a"]["share"] == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert ("B", "attention", "a") not in rows


def test_intervals_of_a_class_widen_with_the_spread_of_its_patients() -> None:
    widths = []
    for spread in (2, 20):
        bag = [[50 + spread * (number % 2), 50 - spread * (number % 2), 0] for number in range(20)]
        (row,) = (
            row
            for row in class_rows(counts_of(bag, bag, ["A"] * 20), ("A",), SETTINGS)
            if (row["cells"], row["cell_type"]) == (BAG, "a")
        )
        widths.append(row["ci_high"] - row["ci_low"])
    assert widths[1] == pytest.approx(10 * widths[0], rel=0.2)


def test_nothing_is_found_where_tops_are_drawn_at_random() -> None:
    """The share of studies in which anything is believed is at most the false discovery rate, all nulls being true."""
    generator = np.random.default_rng(0)
    believed = 0
    for _ in range(60):
        bag, top = [], []
        for _ in range(24):
            cells = generator.multinomial(80, generator.dirichlet(4 * np.array([3, 2, 2, 1, 0.5])))
            bag.append(cells.tolist())
            top.append(generator.multivariate_hypergeometric(cells, 20).tolist())
        rows = enrichment_rows(
            counts_of(bag, top, ["A", "B"] * 12), ("A", "B"), SETTINGS.model_copy(update={"bootstrap": 100})
        )
        believed += min(row["p_adjusted"] for row in rows) <= 0.05
    assert believed <= 6  # 3 are expected; more than 6 have a chance of 3 %


def test_what_is_planted_is_found_and_nothing_in_the_other_class(run: Path) -> None:
    rows = {(row["class"], row["cell_type"]): row for c in CLASSES for row in told(run)["classes"][c]["enrichment"]}
    planted = rows["sick", HOSTILE["monocyte"]]
    assert planted["p_adjusted"] < 0.01
    assert planted["enrichment_low"] > 1
    assert planted["odds_ratio_low"] > 1
    assert rows["sick", HOSTILE["lymphocyte"]]["enrichment"] < 1
    for kind in told(run)["types"]:
        assert rows["well", kind]["p_adjusted"] > 0.05
        assert rows["well", kind]["enrichment_low"] <= 1.05


def test_the_enrichment_is_that_of_the_counts(run: Path) -> None:
    table = read_table(run / "differential.csv")
    kind = HOSTILE["monocyte"]
    sick = table[table["class"].eq("sick") & table["patient_id"].notna()]
    bag = sick[sick["cells"] == BAG].set_index(["patient_id", "cell_type"])["count"].unstack(fill_value=0)
    top = sick[sick["cells"] == "attention"].set_index(["patient_id", "cell_type"])["count"].unstack(fill_value=0)
    expected = (top.sum(axis=1) * bag[kind] / bag.sum(axis=1)).sum()
    own = read_table(run / "enrichment.csv").set_index(["class", "cell_type"]).loc[("sick", kind)]
    assert own["in_top"] == top[kind].sum()
    assert own["enrichment"] == pytest.approx(top[kind].sum() / expected)
    assert (bag.sum(axis=1) == 60).all()
    assert (top.sum(axis=1) == 10).all()


def test_formulas_are_text_in_the_tables(run: Path) -> None:
    for name in ("differential.csv", "enrichment.csv"):
        kinds = set(read_table(run / name)["cell_type"])
        assert f"'{FORMULA}" in kinds
        assert FORMULA not in kinds


def test_few_typed_cells_are_warned_of(run: Path) -> None:
    found = told(run)
    assert set(found["few"]) == {f"P{number:02d}" for number in range(24)}
    assert found["few"]["P00"] == found["patients"][0]["n_typed"] < 60
    assert found["warnings"][0].startswith("24 of 24 patients have fewer than 200 typed cells, where a manual")


def test_enough_typed_cells_are_not(tmp_path: Path) -> None:
    made = make_run(tmp_path, n_patients=6)
    done = invoke(made, labelled(tmp_path / "l.zarr").path, "--set", "enough=20")
    assert done.exit_code == 0, done.output
    assert told(made)["few"] == {}
    assert "manual differential" not in done.output


def test_the_file_says_what_made_it_and_no_place(run: Path) -> None:
    found = told(run)
    assert (found["format"], found["version"]) == ("milkit-composition", 1)
    assert found["encoder_digest"] == "e" * 64
    assert found["labelled"]["cohort"] == "toy"
    assert len(found["labelled"]["cells_sha256"]) == len(found["labelled"]["cohort_digest"]) == 64
    assert found["settings"]["top"] == 10
    assert str(run.parent) not in (run / "composition.json").read_text()


def test_the_command_says_how_far_to_believe_it(run: Path) -> None:
    done = invoke(run, run.parent / "labelled.zarr")
    assert "were given one of 3 types by a linear probe of 150 labelled cells of toy, under toy-encoder" in done.output
    assert "Of the labelled cells, each typed by other cells, " in done.output
    assert "attention (not tested by milkit explain), 24 patients" in done.output
    assert f"sick             {HOSTILE['monocyte']} x2." in done.output
    assert (
        "well             no type is more or less frequent among the top than in the bags, beyond chance" in done.output
    )


def test_the_same_seed_gives_the_same_files(run: Path) -> None:
    names = ("composition.json", "differential.csv", "enrichment.csv")
    before = [(run / name).read_text() for name in names]
    cells = pd.read_parquet(run / "cell_types.parquet")
    invoke(run, run.parent / "labelled.zarr")
    after = [(run / name).read_text() for name in names]
    assert before[1:] == after[1:]
    assert {**json.loads(before[0]), "created": ""} == {**json.loads(after[0]), "created": ""}
    pd.testing.assert_frame_equal(cells, pd.read_parquet(run / "cell_types.parquet"))


def test_the_command_prints_json_and_takes_the_current_run(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    made = make_run(tmp_path, n_patients=6).rename(tmp_path / "runs" / "only")
    arguments = ["--workspace", str(tmp_path), "differential", "--set", "bootstrap=100", "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed.pop("run") == str(made)
    assert printed == told(made)
    assert f"run {made}" in done.stderr


def explained(run: Path, methods: tuple[str, ...] = ("attention", "single_cell")) -> pd.DataFrame:
    """What `milkit explain` would leave: the other ranking holds up the opposite of attention for ``sick``."""
    cells = Attention.load(run / "attention.parquet").table
    parts = []
    for method in methods:
        for name in ("*",) if method == "attention" else CLASSES:
            score = cells["weight"] if name != "sick" else -cells["weight"]
            own = {"patient_id": cells["patient_id"], "cell_id": cells["cell_id"], "class": name, "method": method}
            parts.append(pd.DataFrame({**own, "score": score.astype("float32")}))
    return pd.concat(parts, ignore_index=True)


def test_every_ranking_of_milkit_explain_has_a_top_and_its_verdict(tmp_path: Path) -> None:
    made = make_run(tmp_path)
    Explanations(explained(made)).save(made / "explain.parquet")
    methods = {"attention": {"faithful": False}, "single_cell": {"faithful": True}}
    verdicts = {"format": "milkit-faithfulness", "version": 1, "methods": methods, "patients": []}
    (made / "faithfulness.json").write_text(json.dumps(verdicts))
    done = invoke(made, labelled(tmp_path / "l.zarr").path)
    found = told(made)
    assert {name: one["faithful"] for name, one in found["rankings"].items()} == {
        "attention": False,
        "single_cell": True,
    }
    rows = {(row["ranking"], row["cell_type"]): row for row in found["classes"]["sick"]["enrichment"]}
    assert rows["attention", "monocyte"]["enrichment"] > 2
    assert rows["single_cell", "monocyte"]["enrichment"] < 0.3
    well = {(row["ranking"], row["cell_type"]): row["in_top"] for row in found["classes"]["well"]["enrichment"]}
    assert well["single_cell", "monocyte"] == well["attention", "monocyte"]
    assert "attention (not faithful), 24 patients" in done.output
    assert "single_cell (faithful), 24 patients" in done.output


def test_rankings_of_other_cells_are_refused(tmp_path: Path) -> None:
    made = make_run(tmp_path, n_patients=6)
    Explanations(explained(made).iloc[:-3]).save(made / "explain.parquet")
    done = invoke(made, labelled(tmp_path / "l.zarr").path)
    assert done.exit_code == 2
    assert "explain.parquet ranks other cells than the run weighed; make it again with `milkit explain" in done.stderr


def test_equal_weights_have_no_top(tmp_path: Path) -> None:
    made = make_run(tmp_path, n_patients=6)
    attention = Attention.load(made / "attention.parquet").table
    Attention(attention.assign(weight=1 / 60)).save(made / "attention.parquet")
    done = invoke(made, labelled(tmp_path / "l.zarr").path)
    assert done.exit_code == 0, done.output
    assert told(made)["rankings"]["attention"]["n_without_top"] == 6
    assert told(made)["classes"]["sick"]["enrichment"] == []
    assert read_table(made / "enrichment.csv").empty


def test_bags_no_larger_than_the_top_are_not_enriched(tmp_path: Path) -> None:
    made = make_run(tmp_path, n_patients=6, n_cells=12, strangers=0)
    done = CliRunner().invoke(app, ["differential", str(made), "--set", "bootstrap=100", "--set", "folds=3"])
    assert done.exit_code == 0, done.output
    assert told(made)["rankings"]["attention"] == {"faithful": None, "n_patients": 0, "n_without_top": 6}
    assert "no type is more or less frequent" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labelled", "none.zarr"], "none.zarr"),
        (
            ["--label", "kind"],
            "have no column 'kind', only cell_id, patient_id, path, cell_type; give --labelled a store",
        ),
        (["--labels", "none.csv"], "The table none.csv does not exist; give --labels a CSV file with cell_id and"),
        (["--set", "accuracy=95"], "accuracy: Input should be less than 1"),
        (["--top", "0"], "top: Input should be greater than or equal to 1"),
        (["--taxonomy"], "No recipe in configs/taxonomies/labels is called 'toy'"),
    ],
)
def test_what_cannot_be_done_is_refused_in_a_sentence(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["differential", str(make_run(tmp_path, n_patients=6)), *arguments])
    assert done.exit_code == 2, done.output
    assert message in done.stderr


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["differential", str(tmp_path)])
    assert done.exit_code == 2
    assert "is no finished run; make one with `milkit train-mil`, or name its folder" in done.stderr


def test_a_store_that_changed_is_refused(tmp_path: Path) -> None:
    from milkit.composition.verb import compose

    made = make_run(tmp_path, n_patients=6)
    (made / "provenance.json").write_text(json.dumps({"encoder_digest": "f" * 64}))
    with pytest.raises(
        RunError, match=r"has another encoder_digest than when the run was made, so its encoder changed"
    ):
        compose(made, SETTINGS)
