"""`milkit verify`, `export` and `import` as a person uses them, and what runs on an imported store."""

import html
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from toys import make_store, toy_patients
from typer.testing import CliRunner

from milkit.bags import BagStore
from milkit.cli import app

FAST = ["--set", "training.max_epochs=2", "--set", "bootstrap=100"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MILKIT_WORKSPACE", raising=False)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Nine patients of three classes, laid out like the published bags; class k is shifted along axis k."""
    folder, generator = tmp_path / "aml_hehr", np.random.default_rng(0)
    folder.mkdir()
    for number, name in enumerate(["ABC", "DEF", "GHI", "JKL", "NAR", "NA", "XXX", "Иван", "a b"]):
        features = generator.normal(size=(20, 16)).astype(np.float32)
        features[:7, number % 3] += 6
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["features"], file["labels"] = features, number % 3
    return folder


def _run(*arguments: object, status: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, (result.exit_code, result.output, result.exception)
    return result


def _text(page: Path) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.read_text(encoding="utf-8"))))


def test_published_bags_are_trained_on_and_reported_without_images(published: Path) -> None:
    taken = _run(
        "import", published, "--cohort", "aml_hehr", "--encoder", "dinobloom-b", "--classes", 'NPM1,"a, b",control'
    )
    assert "180 cells of 9 patients under dinobloom-b" in taken.stdout
    assert "note: The files do not say which images the encoder dinobloom-b was trained on" in taken.stderr
    trained = _run("train-mil", "--folds", 3, *FAST)
    assert "store milkit-work/stores/aml_hehr/dinobloom-b-" in trained.stderr
    page = Path(_run("report").stdout.split()[-1])
    text = _text(page)
    assert "The features were imported; there are no images here, and a box takes the place of each cell." in text
    assert "The features of every cell were imported; their encoder is called dinobloom-b." in text
    assert "There are no pictures, since the features were imported without images" in text
    assert "could not be read" not in text
    assert "a, b (3)" in text
    assert 'group top, rank 1 of 20, no image"' in page.read_text(encoding="utf-8")
    top = pd.read_csv(page.parent / "top_cells.csv", keep_default_na=False)
    assert set(top["path"][top["patient_id"] == "NA"]) == {"NA.h5"}


def test_an_export_is_imported_and_exported_again_with_the_same_bytes(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", toy_patients())
    out = _run("export", "--format", "hdf5", "--out", "first", store.path)
    assert "export first: 198 cells, 6 features each" in out.stdout
    _run("import", "first", "--cohort", "back", "--patients", "first/patients.csv")
    assert "store milkit-work/stores/back/toy-encoder-" in _run("export", "--format", "hdf5", "--out", "second").stderr
    assert Path("first/patients.csv").read_bytes() == Path("second/patients.csv").read_bytes()
    for path in sorted(Path("first").glob("*.h5")):
        with h5py.File(path) as one, h5py.File(Path("second") / path.name) as other:
            assert all(one[name][()].tobytes() == other[name][()].tobytes() for name in ("features", "labels"))
            assert one["cell_ids"][()].tolist() == other["cell_ids"][()].tolist()


def test_an_export_says_what_it_leaves_out_and_renames(tmp_path: Path) -> None:
    patients = toy_patients().rename(index={"P00": "P0/0"})
    store = make_store(tmp_path / "s.zarr", patients)
    writable = BagStore(store.path, writable=True)
    bag = writable["P01"]
    features = bag.features.copy()
    features[2:4] = np.nan
    lost = dict.fromkeys(bag.cell_ids[2:4], "the file is missing")
    writable.write("P01", features, np.zeros((len(features), 32), np.uint8), lost)
    writable.close()
    said = _run("export", store.path, "--format", "hdf5", "--out", "out").stderr
    assert "2 cells that could not be read were left out; the attribute n_failed of each file counts them." in said
    assert "1 patient ids cannot name a file; out/patients.csv says which file is whose." in said
    table = pd.read_csv("out/patients.csv", index_col="patient_id")
    assert Path("out", table.loc["P0/0", "hdf5_file"]).is_file()
    said = _run("export", store.path, "--format", "h5ad", "--out", "out.h5ad").stderr
    assert "2 cells that could not be read have NaN for features; the column failed of obs marks them." in said


def test_an_existing_target_is_refused_in_one_sentence(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", toy_patients())
    (tmp_path / "out").mkdir()
    said = _run("export", store.path, "--format", "hdf5", "--out", "out", status=2).stderr
    assert said == "milkit: out exists already and is not overwritten; give another name, or move that folder away.\n"
    assert "'csv' is not one of" in _run("export", store.path, "--format", "csv", "--out", "x", status=2).stderr


def test_a_store_with_gaps_is_not_exported(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", toy_patients())
    committed = store.path / "committed" / "c" / "0"
    committed.write_bytes(b"\x00" + committed.read_bytes()[1:])
    said = _run("export", store.path, "--format", "h5ad", "--out", "x.h5ad", status=2).stderr
    assert "lacks 1 of 18 patients" in said
    assert not Path("x.h5ad").exists()


def test_damaged_files_are_refused_and_cells_that_are_not_finite_end_with_status_3(published: Path) -> None:
    with h5py.File(published / "GHI.h5", "r+") as file:
        file["features"][3] = np.nan
    taken = _run("import", published, "--cohort", "aml_hehr", status=3)
    assert "1 cells are not finite; milkit-work/stores/aml_hehr/imported-" in taken.stderr
    (published / "GHI.h5").write_bytes(b"")
    said = _run("import", published, "--cohort", "aml_hehr", status=2).stderr
    assert re.fullmatch(r"milkit: \S+/GHI\.h5 cannot be read as a patient's HDF5 file \(.*\n", said)


def test_verify_takes_the_store_as_argument_and_finds_a_flipped_byte(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", toy_patients(3))
    assert "0 faults" in _run("verify", store.path).stdout
    chunk = store.path / "features" / "c" / "0" / "0"
    chunk.write_bytes(b"\x01" + chunk.read_bytes()[1:])
    assert "patient 'P00'" in _run("verify", store.path, status=3).stdout


def test_verify_takes_the_current_store_and_says_which(published: Path) -> None:
    _run("import", published, "--cohort", "aml_hehr")
    done = _run("verify")
    assert "store milkit-work/stores/aml_hehr/imported-" in done.stderr
    assert "9 patients, 180 cells, 0 faults" in done.stdout


def test_a_store_that_cannot_be_opened_is_a_finding_of_verify(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", toy_patients(2))
    rows = store.path / "rows" / "c" / "0" / "0"
    rows.write_bytes(bytes([rows.read_bytes()[0] ^ 1]) + rows.read_bytes()[1:])
    result = CliRunner().invoke(app, ["verify", str(store.path)])
    assert result.exit_code == 3, result.output
    assert "error: " in result.stdout
    assert "does not divide the cells into groups" in result.stdout
