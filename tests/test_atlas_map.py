"""`milkit atlas`, but for UMAP itself: who fits the map, what is drawn, and what the page is given."""

import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from atlas_toys import CLASSES, N_CELLS, PATIENTS, SIDE, first_two, make_run
from probe_toys import labelled_store
from sklearn.metrics import pairwise_distances

from milkit.atlas import cell_map
from milkit.atlas.cell_map import write_map
from milkit.atlas.cells import choose_cells
from milkit.atlas.embedding import place, standardise, trust
from milkit.atlas.page import MARKS
from milkit.atlas.settings import MapSettings
from milkit.atlas.sources import source_of_run, source_of_store
from milkit.atlas.thumbnails import thumbnails
from milkit.bags import BagStore
from milkit.errors import RunError, SettingsError, StoreError, UnknownName
from milkit.folds import Folds, patients_digest
from milkit.runs import read_json
from milkit.tables import read_table, write_table

HOSTILE = "<script>alert(1)</script>"


def drawn(run: Path, name: str = "atlas", **settings: Any) -> Path:
    write_map(MapSettings(run=run, **({"neighbours": 5} | settings)), run / name, embed=first_two)
    return run / name


def page_data(folder: Path) -> dict[str, Any]:
    text = (folder / "atlas.html").read_text()
    found = re.search(r'<div id="data" hidden>(.*?)</div>', text, re.DOTALL)
    assert found
    values: dict[str, Any] = json.loads(html.unescape(found[1]))
    return values


def split_of(run: Path) -> Any:
    return next(iter(Folds.load(run / "folds.csv").splits()))


def test_the_map_is_fitted_on_training_patients_alone_and_says_who_they_were(tmp_path: Path) -> None:
    run, seen = make_run(tmp_path), []

    def embed(training: Any, others: Any, settings: Any, advance: Any) -> Any:
        seen.append((len(training), [len(cells) for cells in others]))
        return first_two(training, others, settings, advance)

    facts = write_map(MapSettings(run=run, neighbours=5), run / "atlas", embed=embed)
    split = split_of(run)
    lost = "P2" in split.train
    assert seen == [(len(split.train) * N_CELLS - lost, seen[0][1])]
    assert sum(seen[0][1]) == (9 - len(split.train)) * N_CELLS - (not lost)
    assert facts["fitted_on"] == patients_digest(split.train)
    table = read_table(run / "atlas" / "atlas.csv").drop_duplicates("patient_id").set_index("patient_id")
    for role in ("train", "validation", "test"):
        assert set(table.index[table["role"] == role]) == set(getattr(split, role))


def test_a_changed_held_out_patient_moves_no_training_point(tmp_path: Path) -> None:
    held_out = split_of(make_run(tmp_path / "first")).test[0]
    make_run(tmp_path / "second", changed=held_out)
    tables = [read_table(drawn(tmp_path / name / "runs" / "first") / "atlas.csv") for name in ("first", "second")]
    same, other = (
        [table[table["role"].eq("train") == training].to_csv(index=False) for table in tables]
        for training in (True, False)
    )
    assert same[0].encode() == same[1].encode()
    assert other[0] != other[1]


def test_equal_runs_give_equal_pages_but_for_the_time(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    first, second = (drawn(run, name) for name in ("a", "b"))
    assert (first / "atlas.csv").read_bytes() == (second / "atlas.csv").read_bytes()
    assert page_data(first) == page_data(second)
    told = [{**read_json(folder / "atlas.json"), "created": ""} for folder in (first, second)]
    assert told[0] == told[1]


def test_features_are_standardised_by_the_cells_that_are_fitted() -> None:
    features = np.random.default_rng(0).normal(3, 5, (40, 4)).astype(np.float32)
    features[:, 3] = 7
    fitted, patients = np.arange(40) < 25, ["a"] * 25 + ["b"] * 10 + ["c"] * 5
    wide = features.astype(np.float64)
    spread = np.where(np.arange(4) == 3, 1, wide[:25].std(axis=0))
    expected = (wide - wide[:25].mean(axis=0)) / spread
    found = standardise(features, fitted)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    points = place(found, fitted, patients, MapSettings(neighbours=5), embed=first_two, advance=lambda n=1: None)
    np.testing.assert_allclose(points, expected[:, :2], atol=1e-4)
    np.testing.assert_array_equal(points, points.round(4))


def test_a_map_of_many_training_cells_is_fitted_on_some_of_each_patient_and_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    source = source_of_run(run, 0, 0)
    chosen = choose_cells(source, MapSettings(fit_cells=20))
    fitted = chosen.table[chosen.fitted]
    assert set(fitted["role"]) == {"train"}
    assert fitted.groupby("patient_id").size().tolist() == [6, 6, 6]  # 20 would need a third of a patient more
    fewer = choose_cells(source, MapSettings(fit_cells=9))
    assert set(fewer.table["cell_id"][fewer.fitted]) < set(fitted["cell_id"])
    facts = read_json(drawn(run, fit_cells=20) / "atlas.json")
    assert re.match(
        r"UMAP was fitted on 18 of the 3\d cells of 3 training patients \(.*\)\. Their other cells and those of 3 "
        r"validation and 3 held-out patients were placed into it one patient at a time", facts["sentences"][0]
    )  # fmt: skip


def test_trustworthiness_is_that_of_the_formula() -> None:
    generator = np.random.default_rng(0)
    features, points, k, n = generator.normal(size=(40, 4)), generator.normal(size=(40, 2)), 5, 40
    told = trust(features, points, ["train"] * n, MapSettings(neighbours=k))["train"]
    far = pairwise_distances(features)
    near = pairwise_distances(points)
    penalty = 0
    for i in range(n):
        rank = {int(j): r for r, j in enumerate(j for j in np.argsort(far[i], kind="stable") if j != i)}
        on_map = [j for j in np.argsort(near[i], kind="stable") if j != i][:k]
        penalty += sum(max(0, rank[int(j)] + 1 - k) for j in on_map)
    assert told["value"] == pytest.approx(1 - penalty * 2 / (n * k * (2 * n - 3 * k - 1)))
    assert (told["n_cells"], told["neighbours"]) == (40, 5)


def test_a_perfect_map_is_trusted_and_a_shuffled_one_is_not() -> None:
    features = np.random.default_rng(0).normal(size=(300, 2))
    settings, roles = MapSettings(neighbours=10), ["train"] * 150 + ["test"] * 150
    whole = trust(features, features, roles, settings)
    assert all(whole[role]["value"] > 0.95 for role in ("train", "test"))
    shuffled = trust(features, np.random.default_rng(1).permutation(features), roles, settings)
    assert shuffled["test"]["value"] == pytest.approx(0.5, abs=0.1)


def test_a_patient_s_sample_is_bounded_seeded_and_nobody_else_s_matter(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    source = source_of_run(run, 0, 0)
    ids = {seed: choose_cells(source, MapSettings(run=run, cells=4, seed=seed)).table for seed in (0, 1)}
    assert ids[0].groupby("patient_id").size().tolist() == [4] * 9
    assert ids[0]["cell_id"].tolist() != ids[1]["cell_id"].tolist()
    source.roles.drop("P3", inplace=True)
    fewer = choose_cells(source, MapSettings(run=run, cells=4)).table
    expected = ids[0][ids[0]["patient_id"] != "P3"]
    assert fewer["cell_id"].tolist() == expected["cell_id"].tolist()


def test_cells_of_many_patients_are_bounded_together(tmp_path: Path) -> None:
    chosen = choose_cells(source_of_run(make_run(tmp_path), 0, 0), MapSettings(max_cells=30))
    assert chosen.each == 3
    assert len(chosen.table) == 27


def test_unreadable_cells_are_never_drawn_and_are_counted(tmp_path: Path) -> None:
    facts = read_json(drawn(make_run(tmp_path)) / "atlas.json")
    assert facts["n_cells"] == 9 * N_CELLS - 1
    assert facts["unreadable_when_extracted"] == 1
    assert "(not shown: 1 cell that could not be read)" in facts["sentences"][1]
    assert facts["fitted_cells"] == facts["roles"]["train"]["cells"]


def test_the_page_can_be_coloured_by_all_that_is_known(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    cells = BagStore.open(tmp_path / "toy.zarr").cells
    typed = cells[["patient_id", "cell_id"]].assign(cell_type="unknown")
    typed.iloc[::-1].to_parquet(run / "cell_types.parquet")
    colours = {one["title"]: one for one in page_data(drawn(run, columns=("age",)))["colours"]}
    assert list(colours) == [
        "Class", "Predicted class", "Cell type", "Cell type by the probe", "Percentile of attention", "Site", "Age",
        "Training and held out",
    ]  # fmt: skip
    assert sorted(colours["Class"]["names"]) == sorted(CLASSES)
    assert colours["Cell type by the probe"]["names"] == ["unknown"]
    assert (colours["Percentile of attention"]["low"], colours["Percentile of attention"]["high"]) == (0, 100)
    assert (colours["Age"]["low"], colours["Age"]["high"]) == (20, 90)


def test_the_values_of_each_cell_are_its_own(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    data, placed = page_data(drawn(run)), read_table(run / "atlas" / "atlas.csv")
    cells = BagStore.open(tmp_path / "toy.zarr").cells.set_index("cell_id")
    attention = pd.read_parquet(run / "attention.parquet").set_index("cell_id")
    assert data["ids"] == placed["cell_id"].tolist()
    assert (data["x"], data["y"]) == (placed["x"].tolist(), placed["y"].tolist())
    colours = {one["title"]: one for one in data["colours"]}
    for row, name in enumerate(data["ids"]):
        assert data["patients"][data["patient"][row]]["id"] == cells.loc[name, "patient_id"]
        kind = colours["Cell type"]
        assert kind["names"][kind["of"][row]] == cells.loc[name, "cell_type"]
        assert data["weight"][row] == pytest.approx(attention.loc[name, "weight"], rel=1e-4)
        assert colours["Percentile of attention"]["of"][row] == pytest.approx(
            attention.loc[name, "percentile"], rel=1e-4
        )


def test_the_rarest_of_too_many_types_are_one(tmp_path: Path) -> None:
    kinds = [f"kind {number:02d}" for number in range(40)]
    data = page_data(drawn(make_run(tmp_path, kinds=kinds, n_cells=40)))
    names = next(one for one in data["colours"] if one["title"] == "Cell type")["names"]
    assert len(names) == MARKS
    assert names[-1] == "13 others"


def test_columns_that_may_identify_are_on_no_page_unless_they_are_named(tmp_path: Path) -> None:
    folder = drawn(make_run(tmp_path))
    assert "Age" not in [one["title"] for one in page_data(folder)["colours"]]
    assert read_table(folder / "atlas.csv").columns.tolist() == ["cell_id", "patient_id", "x", "y", "role"]
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "atlas.parquet"), read_table(folder / "atlas.csv"))


def test_the_facts_hold_digests_versions_and_no_path_or_patient(tmp_path: Path) -> None:
    run = make_run(tmp_path, patients=[f"subject-{n}" for n in range(9)])
    text = (drawn(run) / "atlas.json").read_text()
    facts = json.loads(text)
    assert (facts["format"], facts["version"], facts["seed"]) == ("milkit-atlas", 1, 0)
    assert facts["encoder_digest"] == "e" * 64
    assert facts["folds_digest"] == Folds.load(run / "folds.csv").digest
    assert facts["points_digest"] == hashlib.sha256((run / "atlas" / "atlas.csv").read_bytes()).hexdigest()
    assert {"umap-learn", "numba", "scikit-learn"} <= facts["packages"].keys()
    assert str(tmp_path) not in text
    assert "subject-" not in text


def test_the_page_says_how_it_was_made_and_what_it_cannot_show(tmp_path: Path) -> None:
    folder = drawn(make_run(tmp_path))
    told, text = read_json(folder / "atlas.json"), html.unescape((folder / "atlas.html").read_text())
    assert all(sentence in text for sentence in told["sentences"])
    assert re.match(r"UMAP was fitted on \d+ cells of 3 training patients \(fold 0 of repeat 0", told["sentences"][0])
    assert "how far apart islands lie" in text
    assert "does not make it diagnostic" in text
    assert f"Trustworthiness is {told['trustworthiness']['train']['value']:.2f} for cells of training patients" in text


def test_without_a_run_a_stated_share_of_each_class_is_fitted_and_the_page_says_so(tmp_path: Path) -> None:
    make_run(tmp_path)
    settings = MapSettings(store=tmp_path / "toy.zarr", share=0.67, seed=3, neighbours=5)
    facts = write_map(settings, tmp_path / "out", embed=first_two)
    assert facts["roles"]["train"]["patients"] == 6
    assert "6 training patients (67 % of each class, drawn with seed 3)" in facts["sentences"][0]
    everybody = write_map(settings.model_copy(update={"share": 1.0}), tmp_path / "all", embed=first_two)
    assert "Nobody is held out" in everybody["sentences"][1]


def test_text_from_data_is_text_in_the_page_and_formulas_are_text_in_the_table(tmp_path: Path) -> None:
    patients = [HOSTILE, "=cmd|' /C calc'!A0", *PATIENTS[2:]]
    run = make_run(tmp_path, patients=patients, classes=('a,"b"', "</div><img src=x onerror=alert(1)>", "control"))
    folder = drawn(run)
    text = (folder / "atlas.html").read_text()
    assert "<script>alert" not in text
    assert "<img src=x" not in text
    assert text.count("<script") == 1
    assert page_data(folder)["patients"][0]["id"] in patients
    assert not re.search(r"^=|,=", (folder / "atlas.csv").read_text(), re.MULTILINE)


def test_an_atlas_of_identifying_ids_has_study_ids(tmp_path: Path) -> None:
    make_run(tmp_path, patients=[f"subject-{n}" for n in range(9)], ids="identifying")
    settings = MapSettings(store=tmp_path / "toy.zarr", neighbours=5)
    facts = write_map(settings, tmp_path / "out", embed=first_two)
    assert facts["pictures"]["shown"] == 107
    assert read_table(tmp_path / "out" / "atlas.csv")["patient_id"].str.match(r"P-[A-Za-z0-9]{12}$").all()
    for path in (tmp_path / "out").iterdir():
        assert b"subject-" not in path.read_bytes()


def test_pictures_are_as_large_as_the_limit_allows(tmp_path: Path) -> None:
    make_run(tmp_path)
    places = [(f"{p}/{c}.png", "") for p in range(4) for c in range(5)]
    turns = [c for _ in range(4) for c in range(5)]
    root = tmp_path / "images"
    whole = thumbnails(places, turns, root, limit=10**9)
    assert (whole.side, whole.n_reduced, whole.n_left_out) == (96, 0, 0)
    assert all(whole.encoded)
    some = thumbnails(places, turns, root, limit=whole.size // 2)
    assert 0 < some.size <= whole.size // 2
    kept = [bool(picture) for picture in some.encoded]
    assert some.n_left_out == kept.count(False)
    latest = max(turn for turn, there in zip(turns, kept, strict=True) if there)
    assert all(there for turn, there in zip(turns, kept, strict=True) if turn < latest)


def test_large_pictures_are_reduced_and_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("milkit.atlas.thumbnails.SIDES", (16, 8))
    folder = drawn(make_run(tmp_path))
    assert read_json(folder / "atlas.json")["pictures"]["side"] == 16 < SIDE
    assert "107 of 107 reduced to 16 px" in (folder / "atlas.html").read_text()


def test_the_page_stays_below_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell_map, "LIMIT", 260_000)
    folder = drawn(make_run(tmp_path))
    assert (folder / "atlas.html").stat().st_size <= 260_000
    told = read_json(folder / "atlas.json")["pictures"]
    assert told["left_out"] > 0
    assert f"{told['left_out']} did not fit" in (folder / "atlas.html").read_text()


def test_a_store_without_images_has_a_page_that_says_so(tmp_path: Path) -> None:
    folder = drawn(make_run(tmp_path, images=False))
    assert "This page has no pictures of the cells" in (folder / "atlas.html").read_text()


def test_a_run_without_attention_is_drawn_without_it(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run / "attention.parquet").unlink()
    titles = [one["title"] for one in page_data(drawn(run))["colours"]]
    assert "Percentile of attention" not in titles


def test_a_run_on_other_targets_than_classes_is_coloured_by_shared_attention(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    table = read_table(run / "predictions.csv")
    write_table(run / "predictions.csv", table[["patient_id", "repeat", "fold"]].assign(risk=0.5))
    titles = [one["title"] for one in page_data(drawn(run))["colours"]]
    assert "Percentile of attention" in titles
    assert "Predicted class" not in titles


def test_a_folder_that_is_there_is_kept(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    drawn(run)
    with pytest.raises(RunError, match=r"atlas exists already and is not overwritten; give another name"):
        drawn(run)


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path)

    def broken(*_: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_map(MapSettings(run=run, neighbours=5), run / "atlas", embed=broken)
    assert not [path for path in run.iterdir() if "atlas" in path.name]


def test_what_a_user_can_correct_is_one_sentence(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    with pytest.raises(SettingsError, match=r"fitted on 3[56] cells of training patients, and 40 neighbours .*=N, or"):
        drawn(run, neighbours=40)
    with pytest.raises(RunError, match=r"^Fold 7 of repeat 0 was asked for, and .* 0/0, 0/1, 0/2; name one\.$"):
        drawn(run, fold=7)
    with pytest.raises(UnknownName, match=r"have a column 'stain'; give one of cell_id, .*site, age\.$"):
        drawn(run, columns=("stain",))
    with pytest.raises(SettingsError, match=r"were both named; a run names its own store, so leave one out\.$"):
        drawn(run, store=tmp_path / "toy.zarr")
    with pytest.raises(SettingsError, match=r"^Neither a run nor a store was named"):
        write_map(MapSettings(), tmp_path / "x", embed=first_two)
    with pytest.raises(RunError, match=r"is no finished run \(settings\.yaml is missing\)"):
        drawn(tmp_path)
    labelled_store(tmp_path / "cells.zarr")
    with pytest.raises(
        StoreError, match=r"holds cells without patients, .* look at these cells with `milkit probe`\.$"
    ):
        source_of_store(BagStore.open(tmp_path / "cells.zarr"), 0.7, 0)
    (run / "provenance.json").write_text(json.dumps({"encoder_digest": "f" * 64}))
    with pytest.raises(RunError, match=r"another encoder_digest than when the run was made"):
        drawn(run)


def test_equal_features_are_refused() -> None:
    with pytest.raises(StoreError, match=r"^All 20 training cells have the same features; look at the images"):
        standardise(np.ones((30, 4), np.float32), np.arange(30) < 20)
