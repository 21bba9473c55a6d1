"""`milkit atlas --batch`: sources that differ are found, sources that do not are not, and a person can read which."""

import json
import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probe_toys import labelled_cells, labelled_store, with_patients
from typer.testing import CliRunner

from milkit.atlas.batch import batch_report, two_components
from milkit.atlas.sample import sample
from milkit.atlas.sentences import describe
from milkit.bags import BagStore
from milkit.cli import app
from milkit.errors import FoldError, SettingsError, StoreError
from milkit.labelled_cells import Groups
from milkit.probe_settings import AtlasSettings
from milkit.settings import load

COUNTS = {"BAS": 40, "LYT": 60, "MON": 50}


def settings(**changes: Any) -> AtlasSettings:
    return AtlasSettings(**({"bootstrap": 100, "neighbours": 10} | changes))


def source(path: Path, name: str, *, shift: float = 0.0, spread: float = 1.0, seed: int = 0, **other: Any) -> BagStore:
    """150 cells of a cohort, three classes 3 spreads apart, all shifted by a scanner and stretched by its contrast."""
    cells = other.pop("cells", labelled_cells(other.pop("counts", COUNTS), cohort=name))
    generator = np.random.default_rng([seed, len(name)])
    position = np.array([sorted(set(cells["cell_type"])).index(kind) for kind in cells["cell_type"]])
    features = (np.eye(8)[position] * 3 + generator.normal(size=(len(cells), 8))) * spread + shift
    offset = int(generator.integers(1, 1_000_000)) * 1000
    return labelled_store(
        path / f"{name}.zarr",
        cells,
        features=features,
        cohort=name,
        files=list(range(offset, offset + len(cells))),
        **other,
    )


def test_a_shift_of_all_cells_is_found_and_standardising_takes_it_away(tmp_path: Path) -> None:
    stores = [source(tmp_path, "a"), source(tmp_path, "bb", shift=3.0, seed=1)]
    result = batch_report(stores, settings(), tmp_path / "report")
    before, after = result["before"], result["after"]
    assert before["probe"]["linear"]["ci_low"] > 0.95
    assert before["same_source_share"] > 0.95
    assert before["same_source_chance"] == pytest.approx(149 / 299, abs=0.01)
    assert before["effective_sources"] < 1.1
    assert before["variance_source"] == pytest.approx(before["variance_source_beyond_class"], abs=0.02)
    assert before["variance_source"] > before["variance_class"]
    assert before["silhouette_source"] > 0.3
    for probe in after["probe"].values():
        assert probe["ci_low"] < 0.5 < probe["ci_high"]
    assert after["variance_source"] == pytest.approx(0, abs=1e-9)
    assert after["same_source_share"] == pytest.approx(0.5, abs=0.05)
    assert after["effective_sources"] > 1.8


def test_sources_without_a_difference_are_at_chance(tmp_path: Path) -> None:
    stores = [source(tmp_path, "a"), source(tmp_path, "bb", seed=1)]
    result = batch_report(stores, settings(), tmp_path / "report")
    for state in ("before", "after"):
        for probe in result[state]["probe"].values():
            assert probe["estimate"] == pytest.approx(0.5, abs=0.1)
        assert result[state]["same_source_share"] == pytest.approx(0.5, abs=0.05)
    assert result["before"]["variance_source"] < 0.02 < result["before"]["variance_class"]


def test_another_mix_of_classes_looks_like_a_source_and_is_said_to_be_one_of_classes(tmp_path: Path) -> None:
    stores = [
        source(tmp_path, "a", counts={"BAS": 110, "LYT": 20, "MON": 20}),
        source(tmp_path, "bb", counts={"BAS": 20, "LYT": 20, "MON": 110}, seed=1),
    ]
    before = batch_report(stores, settings(), tmp_path / "report")["before"]
    assert before["probe"]["linear"]["ci_low"] > 0.6
    assert before["variance_source"] > 0.05
    assert before["variance_source_beyond_class"] < 0.02
    within = before["same_source_chance_within_classes"]
    assert before["same_source_share"] == pytest.approx(within, abs=0.06)
    assert within > before["same_source_chance"] + 0.1


def test_classes_that_no_two_sources_share_are_a_caution(tmp_path: Path) -> None:
    stores = [source(tmp_path, "a"), source(tmp_path, "bb", counts={"NGS": 70, "NGB": 80}, shift=2.0, seed=1)]
    result = batch_report(stores, settings(), tmp_path / "report")
    assert result["shared_classes"] == []
    assert "same_source_chance_within_classes" not in result["before"]
    assert "No two sources share a class" in result["sentences"][-1]


def test_the_taxonomy_gives_two_cohorts_common_classes(tmp_path: Path) -> None:
    stores = [
        source(tmp_path, "acevedo", counts={"BNE": 30, "SNE": 40, "EO": 40, "LY": 40}),
        source(tmp_path, "bccd", counts={"NEUTROPHIL": 60, "EOSINOPHIL": 50, "WBC": 40}, shift=2.0, seed=1),
    ]
    result = batch_report(stores, settings(taxonomy=True), tmp_path / "report")
    assert result["shared_classes"] == ["eosinophil", "neutrophil"]
    assert "the class (cell_type in the taxonomy)" in result["sentences"][3]
    assert "in addition to the class" in result["sentences"][3]
    assert "No two sources share a class" not in result["sentences"][-1]


def test_a_difference_of_shape_survives_standardisation_and_only_neighbours_see_it(tmp_path: Path) -> None:
    """One source lies on a ring, the other fills it: equal means and spreads, and no line divides them."""
    generator = np.random.default_rng(0)
    angle = generator.uniform(0, 2 * np.pi, 300)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1) * 1.4 + generator.normal(size=(300, 2)) * 0.05
    disc = generator.normal(size=(300, 2))
    stores = [
        labelled_store(
            tmp_path / f"{name}.zarr",
            labelled_cells({"BAS": 150, "LYT": 150}, cohort=name),
            features=features,
            cohort=name,
            files=list(range(first, first + 300)),
        )
        for name, features, first in (("ring", ring, 0), ("disc", disc, 1000))
    ]
    probe = batch_report(stores, settings(), tmp_path / "report")["after"]["probe"]
    assert probe["neighbours"]["ci_low"] > 0.7
    assert probe["linear"]["ci_low"] < 0.5 < probe["linear"]["ci_high"]


def test_a_column_of_the_patients_can_be_the_source_and_patients_are_not_divided(tmp_path: Path) -> None:
    store = labelled_store(tmp_path / "s.zarr", with_patients(labelled_cells(COUNTS), 18))
    result = batch_report([store], settings(source="site"), tmp_path / "report")
    assert list(result["sources"]) == ["site 0", "site 1", "site 2"]
    assert (result["unit"], result["n_units"]) == ("patients", 18)
    drawn = sample([store], settings(source="site"))
    fold = drawn.groups.folds(drawn.sources, 5, 0)
    assert all(len(np.unique(fold[drawn.groups.of_cell == group])) == 1 for group in range(18))


def test_patients_of_one_id_in_two_cohorts_are_two_patients(tmp_path: Path) -> None:
    stores = [
        source(tmp_path, name, cells=with_patients(labelled_cells(COUNTS, cohort=name), 10), seed=seed)
        for seed, name in enumerate(("a", "bb"))
    ]
    assert len(np.unique(sample(stores, settings()).groups.of_cell)) == 20


def test_a_patient_s_own_cells_are_not_its_neighbours(tmp_path: Path) -> None:
    """Every patient is a cluster of its own; without that rule all neighbours would be of the same patient and site."""
    cells = with_patients(labelled_cells({"BAS": 90, "LYT": 90}), 18)
    owner = np.array([int(name[1:]) for name in cells["patient_id"]])
    features = np.random.default_rng(0).normal(size=(18, 6))[owner] * 10 + np.random.default_rng(1).normal(
        size=(180, 6)
    )
    store = labelled_store(tmp_path / "s.zarr", cells, features=features)
    before = batch_report([store], settings(source="site"), tmp_path / "report")["before"]
    assert before["same_source_share"] < 0.6


def test_the_sample_is_seeded_and_counts_what_it_leaves_out(tmp_path: Path) -> None:
    stores = [source(tmp_path, "a", failed=(3, 7)), source(tmp_path, "bb", seed=1)]
    drawn, same, other = (sample(stores, settings(sample=40, seed=seed)) for seed in (1, 1, 2))
    assert np.bincount(drawn.sources).tolist() == [40, 40]
    np.testing.assert_array_equal(drawn.features, same.features)
    assert not np.array_equal(drawn.features, other.features)
    assert drawn.left_out["unreadable"] == 2
    assert drawn.left_out["beyond the sample"] == 300 - 2 - 80


def test_small_sources_and_cells_of_no_source_are_left_out(tmp_path: Path) -> None:
    cells = labelled_cells(COUNTS)
    cells["scanner"] = ["x"] * 70 + ["y"] * 70 + ["z"] * 3 + [""] * 7
    drawn = sample([labelled_store(tmp_path / "s.zarr", cells)], settings(source="scanner"))
    assert drawn.source_names == ("x", "y")
    assert (drawn.left_out["of sources that are too small"], drawn.left_out["of no source"]) == (3, 7)


def test_the_sentences_name_sources_figures_interval_and_chance(tmp_path: Path) -> None:
    stores = [source(tmp_path, "a"), source(tmp_path, "bb", shift=9.0, seed=1)]
    sentences = batch_report(stores, settings(), tmp_path / "report")["sentences"]
    assert sentences[0] == "150 cells of a and 150 cells of bb were compared under toy-encoder."
    assert re.match(
        r"a and bb can be told apart with balanced accuracy 1\.00 \(95 % CI 0\.9\d to 1\.00\) by a linear probe and "
        r"1\.00 by 10 neighbours \(interval over cells; chance 0\.50\)\.$",
        sentences[1],
    )
    assert sentences[2].startswith("Of the 10 nearest neighbours of a cell 100 % are of its own source, where 50 %")
    assert re.search(
        r"The source explains \d+ % of the features' variance, the class \(cell_type\) \d+ %", sentences[3]
    )
    assert all(sentence.endswith(".") for sentence in sentences)


def test_intervals_over_cells_say_what_they_take_for_granted(tmp_path: Path) -> None:
    stores = [source(tmp_path, "a"), source(tmp_path, "bb", shift=9.0, seed=1)]
    sentences = batch_report(stores, settings(), tmp_path / "report")["sentences"]
    assert sentences[-2] == (
        "The intervals are over cells as if each were independent, too narrow where patients are behind them."
    )
    store = labelled_store(tmp_path / "s.zarr", with_patients(labelled_cells(COUNTS), 18))
    sentences = batch_report([store], settings(source="site"), tmp_path / "patients")["sentences"]
    assert not any("The intervals are over" in sentence for sentence in sentences)


def test_stores_with_and_without_patients_name_both_units(tmp_path: Path) -> None:
    cells = with_patients(labelled_cells(COUNTS, cohort="bb"), 15)
    fields = labelled_cells(COUNTS, cohort="ccc").assign(box=[f"{n} 0 5 5" for n in range(150)])
    stores = [source(tmp_path, "a"), source(tmp_path, "bb", cells=cells, shift=2.0, seed=1)]
    result = batch_report([*stores, source(tmp_path, "ccc", cells=fields)], settings(), tmp_path / "report")
    assert result["unit"] == "patients, fields and cells"
    assert result["n_units"] == 15 + 150 + 150
    assert "(interval over 315 patients, fields and cells; chance 0.33)" in result["sentences"][1]
    assert result["sentences"][-2] == (
        "The intervals are over fields as if no two were of one patient, and over cells as if each were independent, "
        "too narrow where patients are behind them."
    )


def test_units_are_those_of_the_cells_that_are_sampled(tmp_path: Path) -> None:
    """Cells of no source are left out; with them goes what only they were."""
    cells = labelled_cells(COUNTS).assign(box=[""] * 100 + [f"{n} 0 5 5" for n in range(50)])
    cells["scanner"] = ["x", "y"] * 50 + [""] * 50
    drawn = sample([labelled_store(tmp_path / "s.zarr", cells)], settings(source="scanner"))
    assert drawn.groups.unit == "cells"


def test_a_sample_has_cells_of_as_many_patients_as_there_are_folds(tmp_path: Path) -> None:
    """One patient has nearly all cells of a site, so that most small samples are of hardly any other."""
    sizes = [294 if n == 0 else 1 if n % 3 == 0 else 25 for n in range(18)]
    owners = [f"P{n:02d}" for n in range(18) for _ in range(sizes[n])]
    cells = labelled_cells({"BAS": 300, "LYT": 299}).assign(patient_id=owners)
    store = labelled_store(tmp_path / "s.zarr", cells)
    for seed in range(5):
        drawn = sample([store], settings(source="site", sample=20, seed=seed))
        assert np.bincount(drawn.sources).tolist() == [20, 20, 20]
        assert len(np.unique(drawn.groups.of_cell[drawn.sources == 0])) >= 5
        assert all(set(drawn.sources[drawn.fold != fold]) == {0, 1, 2} for fold in range(5))


def test_a_source_that_falls_into_one_fold_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = [source(tmp_path, "a"), source(tmp_path, "bb", seed=1)]
    monkeypatch.setattr(Groups, "folds", lambda self, labels, k, seed: np.arange(len(labels)) % k * (labels == 0))
    with pytest.raises(FoldError, match=r"^All 40 sampled cells of the source 'bb' fell into one of 5 folds, so that "):
        sample(stores, settings(sample=40))


def test_a_sample_smaller_than_the_folds_is_refused(tmp_path: Path) -> None:
    stores = [source(tmp_path, "a"), source(tmp_path, "bb", seed=1)]
    with pytest.raises(SettingsError, match=r"^A sample of 10 cells of a source cannot be divided into 20 folds; give"):
        sample(stores, settings(sample=10, folds=20))


def test_sources_at_chance_are_said_not_to_be_told_apart(tmp_path: Path) -> None:
    stores = [source(tmp_path, "a"), source(tmp_path, "bb", shift=9.0, seed=1)]
    result = batch_report(stores, settings(), tmp_path / "report")
    at_chance = {"estimate": 0.52, "ci_low": 0.45, "ci_high": 0.6}
    result["before"]["probe"] = {"linear": at_chance, "neighbours": at_chance}
    assert describe(result)[1].startswith("a and bb could not be told apart beyond chance: balanced accuracy 0.52")


def test_the_folder_holds_figures_and_numbers_that_any_reader_opens(tmp_path: Path) -> None:
    stores = [source(tmp_path, "a"), source(tmp_path, "b&<c", shift=1.0, seed=1)]
    chosen = settings()
    result = batch_report(stores, chosen, tmp_path / "report")
    folder = tmp_path / "report"
    assert json.loads((folder / "batch.json").read_text()) == json.loads(json.dumps(result))
    assert (folder / "sentences.txt").read_text().splitlines() == result["sentences"]
    for name in ("sources.svg", "batch-effects.svg"):
        root = ElementTree.parse(folder / name).getroot()
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = ["".join(n.itertext()) for n in ElementTree.parse(folder / "sources.svg").iter() if n.tag.endswith("text")]
    assert "b&<c" in texts
    assert load(AtlasSettings, folder / "settings.yaml", {}) == chosen


def test_equal_stores_give_equal_pictures(tmp_path: Path) -> None:
    stores = [source(tmp_path, "a"), source(tmp_path, "bb", shift=1.0, seed=1)]
    for name in ("one", "two"):
        batch_report(stores, settings(), tmp_path / name)
    for picture in ("sources.svg", "batch-effects.svg"):
        assert (tmp_path / "one" / picture).read_bytes() == (tmp_path / "two" / picture).read_bytes()


def test_two_components_are_those_of_the_singular_value_decomposition() -> None:
    features = np.random.default_rng(0).normal(size=(50, 6)) * np.array([5, 3, 1, 1, 1, 1])
    points, shares = two_components(features)
    left, singular, _ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    np.testing.assert_allclose(np.abs(points), np.abs(left[:, :2] * singular[:2]), rtol=1e-8)
    np.testing.assert_allclose(shares, singular[:2] ** 2 / (singular**2).sum(), rtol=1e-8)


def test_stores_of_two_encoders_are_refused(tmp_path: Path) -> None:
    stores = [source(tmp_path, "a"), source(tmp_path, "bb", encoder="other", encoder_digest="b" * 64)]
    with pytest.raises(StoreError, match=r"of the encoder other \(8 features\), .* under one encoder, so extract both"):
        batch_report(stores, settings(), tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_features_that_are_all_the_same_are_refused(tmp_path: Path) -> None:
    cells = labelled_cells().assign(scanner=["x", "y"] * 49 + ["x"])
    store = labelled_store(tmp_path / "s.zarr", cells, features=np.ones((99, 4)))
    with pytest.raises(StoreError, match=r"^All 99 sampled cells have the same features; look at the images"):
        batch_report([store], settings(source="scanner"), tmp_path / "report")


def test_two_stores_of_one_cohort_are_no_two_sources(tmp_path: Path) -> None:
    stores = [source(tmp_path, "a"), labelled_store(tmp_path / "c.zarr", cohort="a")]
    with pytest.raises(SettingsError, match=r"Two stores are of the cohort 'a'; name the column .* with --source\.$"):
        batch_report(stores, settings(), tmp_path / "report")


def test_one_store_without_a_column_has_one_source(tmp_path: Path) -> None:
    with pytest.raises(FoldError, match=r"The source 'cohort' has 1 values with 5 cells or more; expected two"):
        batch_report([source(tmp_path, "a")], settings(), tmp_path / "report")


def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"have a column 'stain'; give --source one of cell_id, .*, or cohort\.$"):
        batch_report([source(tmp_path, "a")], settings(source="stain"), tmp_path / "report")
    with pytest.raises(StoreError, match=r"^No store has the column 'kind'; give --label one of cell_id"):
        batch_report([source(tmp_path, "bb")], settings(label="kind"), tmp_path / "report")


@pytest.fixture
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MILKIT_WORKSPACE", raising=False)


def run(*arguments: object, status: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, (result.exit_code, result.output, result.exception)
    return result


@pytest.mark.usefixtures("_elsewhere")
def test_the_command_prints_sentences_and_where_the_report_lies(tmp_path: Path) -> None:
    source(tmp_path, "a")
    source(tmp_path, "bb", shift=3.0, seed=1)
    printed = run("atlas", "--batch", "a.zarr", "bb.zarr", "--name", "first", "--set", "bootstrap=100").stdout
    assert "a and bb can be told apart" in printed
    assert printed.splitlines()[-1] == f"atlas {Path('milkit-work/atlas/first')}"
    parsed = json.loads(run("atlas", "--batch", "a.zarr", "bb.zarr", "--json", "--set", "bootstrap=100").stdout)
    assert parsed["atlas"].startswith("milkit-work/atlas/a-bb-")


@pytest.mark.usefixtures("_elsewhere")
def test_an_atlas_of_nothing_says_what_to_make_first() -> None:
    message = "milkit: The workspace milkit-work holds no store; make one with `milkit extract`, or name one.\n"
    assert run("atlas", status=2).stderr == message


@pytest.mark.usefixtures("_elsewhere")
def test_options_of_another_kind_of_atlas_are_refused(tmp_path: Path) -> None:
    source(tmp_path, "a")
    for arguments, message in (
        (["--batch", "--patches", "x"], "--batch and --patches were both given"),
        (["--batch", "--run", "x"], "The run x was given with --batch, which compares stores"),
        (["--batch", "--share", 0.5], "--share was given, which is for a map and has no use for --batch"),
        (["--source", "site"], "--source was given, which is for --batch and has no use for a map; leave it out."),
        (["--weights", "w"], "--weights was given, which is for --patches and has no use for a map; leave it out."),
        (["a.zarr", "b.zarr"], "2 stores were named, where a map shows one; name one, or compare them with --batch."),
        (["a.zarr", "--run", "x"], "were both named; a run names its own store, so leave one out."),
    ):
        assert message in run("atlas", *arguments, status=2).stderr


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.usefixtures("_elsewhere")
def test_cells_of_two_real_data_sets_are_separable_and_it_says_how_far(tmp_path: Path) -> None:
    """White cells cut out of BCCD's fields, and white cells of Acevedo."""
    if not os.environ.get("MILKIT_REAL_DATA"):
        pytest.skip("MILKIT_REAL_DATA is unset: no real data here")
    from real_cells import CLASSICAL, extract_acevedo, extract_bccd

    work = tmp_path / "work"
    bccd, (acevedo,) = extract_bccd(work, CLASSICAL, 120), extract_acevedo(work, CLASSICAL, per_prefix=20)
    printed = run("atlas", "--batch", bccd, acevedo, "--name", "two").stdout
    result = json.loads((tmp_path / "milkit-work/atlas/two/batch.json").read_text())
    assert result["before"]["probe"]["linear"]["ci_low"] > 0.95
    assert result["before"]["same_source_share"] > result["before"]["same_source_chance"] + 0.2
    assert "acevedo and bccd can be told apart with balanced accuracy" in printed
    assert "No two sources share a class" in printed
