"""The data sets of fields, on fake copies: which cells they have, that crops hit them, and what the notes say."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cohort_fakes import Fake
from cohort_fakes_fields import COLOURS, FAKES, field, mask

from cohorts.aslan import aslan
from cohorts.bccd import bccd
from cohorts.chula import chula
from cohorts.krd_wbc import krd_wbc
from cohorts.leukemia_attri import leukemia_attri
from cohorts.lisc import lisc
from milkit.cohort import Cohort
from milkit.errors import CohortError
from milkit.images import parse_box, read_bytes, read_cell

FACTORIES: dict[str, Callable[..., Cohort]] = {
    "aslan": aslan,
    "bccd": bccd,
    "chula": chula,
    "krd_wbc": krd_wbc,
    "leukemia_attri": leukemia_attri,
    "lisc": lisc,
}


@pytest.fixture
def fake(tmp_path: Path) -> Callable[[str], Fake]:
    return lambda name: FAKES[name](tmp_path)


def shows(crop: Any, number: int) -> int:
    """How many pixels have the colour of a field's nth object, which is no other's there; JPEG blurs it."""
    return int((np.abs(crop.astype(int) - COLOURS[number % len(COLOURS)]).max(axis=2) < 30).sum())


# --- what holds for all -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAKES)
def test_fake_has_the_cells_that_it_should(name: str, fake: Callable[[str], Fake]) -> None:
    expected = fake(name)
    cohort = FACTORIES[name](expected.root)
    assert len(cohort.cells) == expected.n_cells
    assert cohort.cells["cell_type"].value_counts().to_dict() == expected.cell_types
    assert len(cohort.patients) == expected.n_patients


@pytest.mark.parametrize("name", FAKES)
def test_crop_is_a_square_that_shows_the_whole_object(name: str, fake: Callable[[str], Fake]) -> None:
    cohort = FACTORIES[name](fake(name).root)
    for cell in cohort.cells.itertuples():
        content, box = read_bytes(cohort.root, str(cell.path)), parse_box(str(cell.box))
        crop = read_cell(content, str(cell.box))
        assert crop.shape == (box.height, box.width, 3)
        assert box.height == box.width
        number = int(str(cell.cell_id).rpartition("/")[2])
        assert shows(crop, number) == shows(read_cell(content), number) > 500


@pytest.mark.parametrize("name", FAKES)
def test_two_readings_give_the_same_cells(name: str, fake: Callable[[str], Fake]) -> None:
    root = fake(name).root
    assert FACTORIES[name](root).digest == FACTORIES[name](root).digest


@pytest.mark.parametrize("name", sorted(set(FAKES) - {"leukemia_attri"}))
def test_no_patient_is_invented(name: str, fake: Callable[[str], Fake]) -> None:
    cohort = FACTORIES[name](fake(name).root)
    assert not cohort.has_patients
    assert cohort.cells["patient_id"].isna().all()
    assert cohort.classes == ()


@pytest.mark.parametrize("name", FAKES)
def test_folder_of_something_else_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=rf"^{tmp_path} holds no .* was expected; .* give its folder with --root\.$"):
        FACTORIES[name](tmp_path)


@pytest.mark.parametrize("name", FAKES)
def test_counts_that_differ_from_the_published_ones_are_one_note(name: str, fake: Callable[[str], Fake]) -> None:
    notes = [note for note in FACTORIES[name](fake(name).root).notes if note.startswith("Counts differ")]
    assert len(notes) == 1
    assert notes[0].endswith(".")


# --- BCCD -------------------------------------------------------------------------------------------------------------


def test_bccd_leaves_out_boxes_without_area_and_white_cells_that_are_too_small(fake: Callable[[str], Fake]) -> None:
    cohort = bccd(fake("bccd").root)
    assert "Boxes without area were left out (1): BloodImage_00010/0." in cohort.notes
    assert "White cells below 40 pixels were left out (1): BloodImage_00113/0." in cohort.notes
    assert len(bccd(cohort.root, min_side=20).cells) == 5


def test_bccd_counts_are_those_of_the_files_before_anything_is_left_out(fake: Callable[[str], Fake]) -> None:
    assert bccd(fake("bccd").root).notes[0] == (
        "Counts differ from the published ones, which stand in brackets: "
        "4 fields (364), 5 WBC boxes (372), 3 RBC boxes (4,155), 1 Platelets boxes (361)."
    )


def test_bccd_gives_the_objects_that_are_asked_for(fake: Callable[[str], Fake]) -> None:
    cohort = bccd(fake("bccd").root, objects=("rbc", "platelet"))
    assert cohort.cells["cell_type"].tolist() == ["RBC", "Platelets", "RBC"]
    assert cohort.cells["role"].tolist() == ["rbc", "platelet", "rbc"]


def test_bccd_table_and_voc_give_the_same_cells(fake: Callable[[str], Fake]) -> None:
    root = fake("bccd").root
    assert bccd(root, annotations="csv").digest == bccd(root).digest


def test_bccd_is_found_in_the_repository_and_in_its_inner_folder(fake: Callable[[str], Fake]) -> None:
    inner = bccd(fake("bccd").root / "BCCD")
    assert inner.cells["path"].iloc[0] == "JPEGImages/BloodImage_00000.jpg"
    assert len(inner.cells) == 4


def test_bccd_takes_a_subtype_where_all_entries_of_a_field_agree(fake: Callable[[str], Fake]) -> None:
    cells = bccd(fake("bccd").root, subtypes=Path("labels.csv")).cells
    assert cells.set_index("cell_id")["cell_type"].where(lambda kinds: kinds.notna(), None).to_dict() == {
        "BloodImage_00000/0": "NEUTROPHIL",
        "BloodImage_00002/0": None,
        "BloodImage_00002/1": None,
        "BloodImage_00113/1": "MONOCYTE",
    }


def test_bccd_subtype_of_one_cell_is_not_given_to_two(fake: Callable[[str], Fake]) -> None:
    root = fake("bccd").root
    (root / "labels.csv").write_text("Image,Category\n2,NEUTROPHIL\n")
    assert bccd(root, subtypes=Path("labels.csv")).cells["cell_type"].isna().all()


def test_bccd_table_of_subtypes_without_field_numbers_is_refused(fake: Callable[[str], Fake]) -> None:
    root = fake("bccd").root
    (root / "labels.csv").write_text("Image,Category\nBloodImage_2,NEUTROPHIL\n")
    with pytest.raises(
        CohortError, match=r"labels\.csv numbers fields as BloodImage_2, expected whole numbers in 'Image'"
    ):
        bccd(root, subtypes=Path("labels.csv"))


def test_bccd_cells_have_the_published_split_of_their_field(fake: Callable[[str], Fake]) -> None:
    assert bccd(fake("bccd").root).cells["split"].tolist() == ["train", "train", "train", "test"]


# --- Aslan ------------------------------------------------------------------------------------------------------------


def test_aslan_fractions_and_kitti_pixels_give_the_same_cells(fake: Callable[[str], Fake]) -> None:
    root = fake("aslan").root
    assert aslan(root, annotations="kitti").digest == aslan(root).digest


def test_aslan_stale_copies_are_not_read(fake: Callable[[str], Fake]) -> None:
    cohort = aslan(fake("aslan").root, objects=("wbc", "rbc"), annotations="kitti")
    assert not cohort.cells["path"].str.contains("checkpoint").any()
    assert cohort.cells["cell_type"].value_counts().to_dict() == {"rbc": 4, "wbc": 3}
    assert not [note for note in cohort.notes if "without an image" in note]


def test_aslan_fields_with_known_mistakes_are_noted_where_they_are_there(fake: Callable[[str], Fake]) -> None:
    root = fake("aslan").root
    assert not [note for note in aslan(root).notes if "show red cells" in note]
    for number in (100, 104, 114):
        shutil.copy(root / "images" / "image-1.png", root / "images" / f"image-{number}.png")
    assert [note for note in aslan(root).notes if "show red cells" in note]


def test_aslan_without_its_table_is_refused(fake: Callable[[str], Fake]) -> None:
    root = fake("aslan").root
    (root / "annotations.csv").unlink()
    with pytest.raises(CohortError, match=r"holds no annotations\.csv, where the repository"):
        aslan(root)


# --- LISC -------------------------------------------------------------------------------------------------------------


def test_lisc_cells_of_the_mixed_folder_have_no_label(fake: Callable[[str], Fake]) -> None:
    cells = lisc(fake("lisc").root).cells
    assert cells[cells["cell_type"].isna()]["cell_id"].tolist() == ["mixt/1/0", "mixt/1/1"]


def test_lisc_boxes_are_shifted_by_what_the_masks_were_cut_off(fake: Callable[[str], Fake]) -> None:
    cells = lisc(fake("lisc").root).cells.set_index("cell_id")
    assert cells.loc["lymp/9/0", "box"] == "295 195 60 60"


def test_lisc_fields_without_a_mask_are_noted(fake: Callable[[str], Fake]) -> None:
    assert "Images without an annotation were left out (1): neut/2." in lisc(fake("lisc").root).notes


def test_lisc_says_which_fields_gave_two_cells_and_which_should_have(fake: Callable[[str], Fake]) -> None:
    root = fake("lisc").root
    notes = lisc(root).notes
    assert "Fields gave several cells, each with the class of the field (1): Baso/7." in notes
    assert not [note for note in notes if "are known to show two cells" in note]
    home = root / "LISC Database"
    touching = [(96, 96, 256, 186)]
    path = home / "Ground Truth Segmentation" / "Baso" / "areaforexpert1" / "7_expert.bmp"
    path.write_bytes(mask("BMP", (712, 568), touching))
    notes = lisc(root).notes
    assert "Fields that are known to show two cells gave another number (1): Baso/7." in notes


def test_lisc_folder_names_may_differ_in_case_and_the_second_expert_be_asked(fake: Callable[[str], Fake]) -> None:
    home = fake("lisc").root / "LISC Database"
    (home / "Main Dataset" / "eosi").rename(home / "Main Dataset" / "EOSI")
    second = home / "Ground Truth Segmentation" / "eosi" / "areaforexpert2"
    second.mkdir()
    (second / "1_expert2.bmp").write_bytes(mask("BMP", (712, 568), [(96, 96, 196, 196)]))
    cohort = lisc(home, expert=2)
    assert cohort.cells[["cell_id", "cell_type", "box"]].to_numpy().tolist() == [["eosi/1/0", "eosi", "90 90 120 120"]]


# --- KRD-WBC ----------------------------------------------------------------------------------------------------------


def test_krd_wbc_matches_images_masks_and_types_by_number(fake: Callable[[str], Fake]) -> None:
    cells = krd_wbc(fake("krd_wbc").root).cells
    assert cells["cell_id"].tolist() == ["image1/0", "image2/0", "image2/1"]
    assert cells["cell_type"].tolist() == ["Monocytes", "Neutrophils", "Neutrophils"]


def test_krd_wbc_without_the_table_has_no_types_and_says_so(fake: Callable[[str], Fake]) -> None:
    root = fake("krd_wbc").root / "KRD-WBC dataset"
    (root / "class labels.csv").unlink()
    cohort = krd_wbc(root)
    assert cohort.cells["cell_type"].isna().all()
    assert "No table of types was found beside Dataset/, so that cells have no label." in cohort.notes


def test_krd_wbc_names_without_a_number_are_refused(fake: Callable[[str], Fake]) -> None:
    root = fake("krd_wbc").root
    (root / "KRD-WBC dataset" / "Dataset" / "image" / "cell.jpg").write_bytes(field("JPEG", (9, 9), []))
    with pytest.raises(CohortError, match=r"^'cell' has no number, .*; rename it\.$"):
        krd_wbc(root)


# --- Chula ------------------------------------------------------------------------------------------------------------


def test_chula_cells_are_red_cells_and_say_so(fake: Callable[[str], Fake]) -> None:
    cohort = chula(fake("chula").root)
    assert set(cohort.cells["role"]) == {"rbc"}
    assert cohort.notes[0].startswith("All cells are red cells")


def test_chula_windows_are_of_the_side_that_is_asked_for(fake: Callable[[str], Fake]) -> None:
    cells = chula(fake("chula").root, window=61).cells
    assert cells.loc[0, "box"] == "564 65 61 61"


def test_chula_window_without_pixels_is_refused(fake: Callable[[str], Fake]) -> None:
    with pytest.raises(CohortError, match=r"^The window has 0 pixels, expected at least 1; set `window`"):
        chula(fake("chula").root, window=0)


def test_chula_type_that_has_no_name_keeps_its_number(fake: Callable[[str], Fake]) -> None:
    root = fake("chula").root
    (root / "Label" / "10.txt").write_text("5 5 13\n")
    cells = chula(root).cells
    assert cells[cells["path"] == "Dataset/10.jpg"]["cell_type"].tolist() == ["13"]


# --- LeukemiaAttri ----------------------------------------------------------------------------------------------------


def test_leukemia_attri_patients_and_diagnoses_come_from_the_names_of_fields(fake: Callable[[str], Fake]) -> None:
    cohort = leukemia_attri(fake("leukemia_attri").root)
    assert cohort.patients["label"].to_dict() == {"23": "APML", "4": "ALL"}
    assert cohort.classes == ("ALL", "APML")
    assert cohort.cells["patient_id"].tolist() == ["23", "4", "4", "4"]
    assert cohort.cells["split"].tolist() == ["test", "train", "train", "train"]


def test_leukemia_attri_patients_without_one_diagnosis_are_left_out_and_named(fake: Callable[[str], Fake]) -> None:
    root = fake("leukemia_attri").root
    for path in root.rglob("23_40_1000_APML.*"):
        shutil.copy(path, path.with_name(f"4_99_1000_APML{path.suffix}"))
    split = root / "LeukemiaAttr" / "H_100X_C1" / "WBC_detection" / "test.json"
    split.write_text(split.read_text().replace("23_40_1000_APML", "4_99_1000_APML"))
    split = split.with_name("train.json")
    split.write_text(json.dumps(json.loads(split.read_text().replace("4_2_1000_ALL", "7_2_1000_ALL"))))
    place = root / "LeukemiaAttr" / "H_100X_C1" / "Images" / "train"
    (place / "4_2_1000_ALL.png").rename(place / "7_2_1000_ALL.png")
    cohort = leukemia_attri(root)
    assert cohort.patients.index.tolist() == ["7"]
    assert (
        "Patients whose file names do not give one diagnosis were left out, with 4 cells: 4 (ALL and APML), 9 (none)."
        in cohort.notes
    )


def test_leukemia_attri_reads_one_domain_unless_more_are_named(fake: Callable[[str], Fake]) -> None:
    root = fake("leukemia_attri").root
    assert set(leukemia_attri(root).patients["scanner"]) == {"H_100X_C1"}
    both = leukemia_attri(root, domains=("L_100X_C2", "h_100x_c1"))
    assert set(both.patients["scanner"]) == {"H_100X_C1+L_100X_C2"}
    assert both.cells["scanner"].value_counts().to_dict() == {"H_100X_C1": 4, "L_100X_C2": 4}
    assert both.cells["sample_id"].tolist() == both.cells["scanner"].tolist()
    assert both.cells["cell_id"].iloc[0] == "H_100X_C1/23_40_1000_APML/0"


def test_leukemia_attri_domain_that_is_not_there_is_refused_with_those_that_are(fake: Callable[[str], Fake]) -> None:
    with pytest.raises(CohortError, match=r"no domain 'L_10X_C1' \(found: H_100X_C1, L_100X_C2\), where LeukemiaAttri"):
        leukemia_attri(fake("leukemia_attri").root, domains=("L_10X_C1",))


def test_leukemia_attri_yolo_has_the_boxes_of_coco_without_types(fake: Callable[[str], Fake]) -> None:
    root = fake("leukemia_attri").root
    cohort = leukemia_attri(root, annotations="yolo")
    assert cohort.cells["box"].tolist() == leukemia_attri(root).cells["box"].tolist()
    assert cohort.cells["cell_type"].isna().all()


def test_leukemia_attri_fields_that_did_not_arrive_are_noted(fake: Callable[[str], Fake]) -> None:
    root = fake("leukemia_attri").root
    (root / "LeukemiaAttr" / "H_100X_C1" / "Images" / "train" / "4_2_1000_ALL.png").unlink()
    notes = leukemia_attri(root).notes
    assert "Annotations without an image were left out (1): H_100X_C1/4_2_1000_ALL." in notes


def test_leukemia_attri_yolo_boxes_of_fields_that_did_not_arrive_are_noted(fake: Callable[[str], Fake]) -> None:
    root = fake("leukemia_attri").root
    (root / "LeukemiaAttr" / "H_100X_C1" / "Images" / "train" / "4_2_1000_ALL.png").unlink()
    notes = leukemia_attri(root, annotations="yolo").notes
    assert "Annotations without an image were left out (1): H_100X_C1/4_2_1000_ALL." in notes


def test_leukemia_attri_fields_in_train_and_in_test_are_read_once_and_noted(fake: Callable[[str], Fake]) -> None:
    root = fake("leukemia_attri").root
    place = root / "LeukemiaAttr" / "H_100X_C1" / "Images"
    shutil.copy(place / "train" / "4_2_1000_ALL.png", place / "test" / "4_2_1000_ALL.png")
    cohort = leukemia_attri(root)
    assert (
        "Fields that are in train and in test were read as those of train (1): H_100X_C1/4_2_1000_ALL." in cohort.notes
    )
    cells = cohort.cells.set_index("cell_id")
    assert cells["split"]["H_100X_C1/4_2_1000_ALL/0"] == "train"
    assert len(cells) == 4


def test_leukemia_attri_domain_without_boxes_is_refused(fake: Callable[[str], Fake]) -> None:
    root = fake("leukemia_attri").root
    with pytest.raises(CohortError, match=r"L_100X_C2 holds no YOLO boxes of train or test, where LeukemiaAttri"):
        leukemia_attri(root, domains=("L_100X_C2",), annotations="yolo")
