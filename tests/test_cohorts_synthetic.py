"""The synthetic cohort: its layout, its answers, that it is the same each time, that its cells can be told apart."""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cohorts import synthetic as module
from cohorts.cell_drawing import Stain, draw_cell, draw_stain
from cohorts.cell_kinds import KIND_OF, KINDS, PLANTED
from cohorts.synthetic import BLOOD, draw_differential, draw_kinds, synthetic
from milkit.cohort import Cohort
from milkit.errors import CohortError
from milkit.images import RgbImage

SMALL = {"seed": 3, "patients_per_class": 2, "cells_per_patient": (6, 10)}
COLUMNS = ["patient_id", "sex_1f_2m", "age", "bag_label", "instance_count", "leucocytes_per_µl", *KIND_OF, "pb_total"]
BASE = {
    "blast_auer_rods": "myeloblast",
    "faggot_cell": "promyelocyte",
    "cup_like_blast": "myeloblast",
    "eosinophil_abnormal": "eosinophil",
    "blast_hof_salmon_granules": "myeloblast",
}


def digests(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    return synthetic(tmp_path_factory.mktemp("synthetic"), **SMALL)


@pytest.fixture(scope="module")
def metadata(cohort: Cohort) -> pd.DataFrame:
    return pd.read_csv(cohort.root / "metadata.csv", encoding="utf-8", dtype={"patient_id": str})


@pytest.fixture(scope="module")
def planted(cohort: Cohort) -> pd.DataFrame:
    return pd.read_csv(cohort.root / "planted.csv", dtype={"patient_id": str})


def test_cohort_is_read_like_aml_hehr(cohort: Cohort) -> None:
    assert cohort.name == "synthetic"
    assert cohort.classes == tuple(BLOOD)
    assert cohort.patients["label"].value_counts().to_dict() == dict.fromkeys(BLOOD, 2)
    assert set(cohort.patients["sex"]) <= {"F", "M"}
    assert len(cohort.notes) == 1
    assert "drawn" in cohort.notes[0]


def test_table_has_the_published_columns(metadata: pd.DataFrame) -> None:
    assert list(metadata.columns) == COLUMNS
    assert len(COLUMNS) == 20
    assert metadata["patient_id"].is_monotonic_increasing
    assert metadata["patient_id"].str.fullmatch("[A-Z]{3}").all()
    controls = metadata["bag_label"] == "control"
    assert metadata.loc[controls, "leucocytes_per_µl"].isna().all()
    assert metadata.loc[~controls, "leucocytes_per_µl"].between(0.5, 800).all()
    assert (metadata[list(KIND_OF)].sum(axis=1) == 100).all()


def test_images_are_numbered_from_zero_without_a_gap(cohort: Cohort, metadata: pd.DataFrame) -> None:
    for row in metadata.itertuples():
        folder = cohort.root / "data" / row.bag_label / row.patient_id
        expected = {f"image_{n}.tif" for n in range(row.instance_count)}
        assert {path.name for path in folder.iterdir()} == expected
    with Image.open(cohort.root / cohort.cells["path"].iloc[0]) as image:
        assert (image.format, image.mode, image.size) == ("TIFF", "RGB", (144, 144))


def test_every_cell_has_its_answer(cohort: Cohort, planted: pd.DataFrame) -> None:
    assert set(planted["cell_id"]) == set(cohort.cells["cell_id"])
    assert len(planted) == len(cohort.cells)
    assert set(planted["kind"]) <= set(KINDS)


def test_planted_kinds_occur_in_their_class_only(cohort: Cohort, planted: pd.DataFrame) -> None:
    labels = planted["patient_id"].map(cohort.patients["label"])
    for label, rows in planted.groupby(labels):
        assert set(rows["kind"][rows["planted"] == 1]) <= set(PLANTED.get(label, ()))
        assert not set(rows["kind"][rows["planted"] == 0]) & {kind for kinds in PLANTED.values() for kind in kinds}
    per_patient = planted.groupby("patient_id")["planted"].sum()
    controls = cohort.patients.index[cohort.patients["label"] == "control"]
    assert (per_patient[controls] == 0).all()
    assert (per_patient.drop(controls) > 0).all()


def test_survival_is_planted_for_leukaemias(cohort: Cohort) -> None:
    survival = pd.read_csv(cohort.root / "survival.csv", dtype={"patient_id": str})
    leukaemias = cohort.patients.index[cohort.patients["label"] != "control"]
    assert set(survival["patient_id"]) == set(leukaemias)
    assert (survival["time"] > 0).all()
    assert survival["event"].isin((0, 1)).all()


def test_same_seed_gives_the_same_bytes(cohort: Cohort, tmp_path: Path) -> None:
    synthetic(tmp_path / "elsewhere", **SMALL)
    assert digests(tmp_path / "elsewhere") == digests(cohort.root)


def test_killed_writing_is_completed(cohort: Cohort, tmp_path: Path) -> None:
    synthetic(tmp_path, **SMALL)
    for n, path in enumerate(sorted(tmp_path.rglob("*.tif"))):
        if n % 3 == 0:
            path.unlink()
    for name in ("metadata.csv", "planted.csv"):
        (tmp_path / name).unlink()
    assert len(synthetic(tmp_path, **SMALL).cells) == len(cohort.cells)
    assert digests(tmp_path) == digests(cohort.root)


def test_writing_that_fails_leaves_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def fail_at_ten(kind: str, stain: Stain, rng: np.random.Generator) -> RgbImage:
        drawn.append(kind)
        if len(drawn) == 10:
            raise KeyboardInterrupt
        return draw_cell(kind, stain, rng)

    monkeypatch.setattr(module, "draw_cell", fail_at_ten)
    with pytest.raises(KeyboardInterrupt):
        synthetic(tmp_path, **SMALL)
    assert len(list(tmp_path.rglob("*.tif"))) == 9
    assert not (tmp_path / "metadata.csv").exists()


def test_complete_cohort_is_not_drawn_again(cohort: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "draw_cell", None)
    assert synthetic(cohort.root, **SMALL).digest == cohort.digest


def test_another_seed_gives_other_patients(cohort: Cohort, tmp_path: Path) -> None:
    other = synthetic(tmp_path, **(SMALL | {"seed": 4}))
    assert set(other.patients.index) != set(cohort.patients.index)


def test_other_parameters_are_refused(cohort: Cohort) -> None:
    with pytest.raises(CohortError, match=r"\"seed\": 3.*expected .*\"seed\": 5.*give another --root"):
        synthetic(cohort.root, **(SMALL | {"seed": 5}))


def test_another_cohorts_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(CohortError, match="not drawn here, expected an empty or new folder"):
        synthetic(tmp_path, **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize("wrong", [{"cells_per_patient": (9, 3)}, {"patients_per_class": 0}, {"seed": -1}])
def test_impossible_parameters_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(CohortError, match="correct the recipe's arguments"):
        synthetic(tmp_path, **(SMALL | wrong))


@pytest.mark.slow
def test_processes_draw_the_same_bytes(cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OWN_PROCESS", 20)
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    synthetic(tmp_path, **SMALL)
    assert digests(tmp_path) == digests(cohort.root)


@pytest.mark.slow
def test_failed_process_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OWN_PROCESS", 20)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="failed"):
        synthetic(tmp_path, **SMALL)
    assert not (tmp_path / "metadata.csv").exists()


@pytest.mark.parametrize("label", BLOOD)
def test_differentials_follow_the_published_patients(label: str) -> None:
    rng = np.random.default_rng(0)
    drawn = pd.DataFrame([draw_differential(label, rng) for _ in range(1500)])
    assert (drawn.sum(axis=1) == 100).all()
    # Drawing again where blasts are few lifts the blasts of PML_RARA, whose patients differ most, by some points.
    np.testing.assert_allclose(drawn.mean(), BLOOD[label].differential, atol=6 if label == "PML_RARA" else 3)
    if label != "control":
        assert (drawn[["pb_myeloblast", "pb_promyelocyte", "pb_myelocyte"]].sum(axis=1) >= 20).all()


@pytest.mark.parametrize("label", PLANTED)
def test_prevalence_of_planted_cells(label: str) -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        kinds = draw_kinds(label, draw_differential(label, rng), 100, rng)
        shares.append(sum(kind in PLANTED[label] for kind in kinds) / 100)
    assert 0.14 < np.mean(shares) < 0.2
    assert min(shares) >= 0.05
    assert max(shares) <= 0.4


def test_place_of_a_cell_says_nothing() -> None:
    rng = np.random.default_rng(0)
    differential = draw_differential("NPM1", rng)
    first = [draw_kinds("NPM1", differential, 20, rng)[0] in PLANTED["NPM1"] for _ in range(600)]
    assert 0.12 < np.mean(first) < 0.23


@pytest.mark.parametrize("kind", KINDS)
def test_kind_is_drawn(kind: str) -> None:
    stain = draw_stain(np.random.default_rng(1))
    images = [draw_cell(kind, stain, np.random.default_rng(seed)) for seed in (0, 1, 0)]
    assert images[0].shape == (144, 144, 3)
    assert images[0].dtype == np.uint8
    np.testing.assert_array_equal(images[0], images[2])
    assert np.abs(images[0].astype(int) - images[1]).mean() > 3
    centre = images[0][52:92, 52:92].astype(float)
    background = np.percentile(images[0].reshape(-1, 3), 90, axis=0)
    assert np.percentile(centre[..., 1], 25) < background[1] - 60


def test_stains_differ_between_patients() -> None:
    backgrounds = [draw_stain(np.random.default_rng(seed)).background for seed in range(20)]
    assert np.std(backgrounds, axis=0).min() > 2


def features(image: RgbImage) -> list[float]:
    """What a first look sees: shares of dark, red, orange and pale blue in the middle, and the reddest dark spot."""
    middle = image[22:122, 22:122].astype(float)
    red, green, blue = (middle[..., channel] for channel in range(3))
    nucleus = (green < 95) & (blue > red - 30)
    magenta = (red - green > 50) & (red > blue - 10) & (green < 120)
    orange = (red - blue > 35) & (red - green > 40) & (green < 150)
    cytoplasm = (blue - red > 15) & (green > 110)
    reddest = np.percentile(np.where(green < 125, red - blue, -100), 99.8)
    return [*(float(part.mean()) for part in (nucleus, magenta, orange, cytoplasm)), float(reddest)]


@pytest.mark.parametrize("kind", BASE)
def test_planted_kind_differs_from_what_it_replaces(kind: str) -> None:
    stain = draw_stain(np.random.default_rng(2))
    drawn = {
        name: np.array([features(draw_cell(name, stain, np.random.default_rng((7, n)))) for n in range(40)])
        for name in (kind, BASE[kind])
    }
    gap = np.abs(drawn[kind].mean(0) - drawn[BASE[kind]].mean(0))
    spread = np.sqrt((drawn[kind].var(0) + drawn[BASE[kind]].var(0)) / 2) + 1e-6
    assert (gap / spread).max() > 1


def test_parameters_are_written_beside_the_cohort(cohort: Cohort) -> None:
    found = json.loads((cohort.root / "synthetic.json").read_text())
    assert found == {"version": module.VERSION} | SMALL | {"cells_per_patient": [6, 10]}
