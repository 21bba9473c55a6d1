"""Data sets of one cell an image: what each of them holds of its own, on fakes and on real files."""

import csv
import os
from collections import Counter
from hashlib import sha256
from pathlib import Path, PurePosixPath

import pytest
from cohort_fakes import picture, write
from cohort_fakes_folders import FAKES

from cohorts import acevedo as acevedo_module
from cohorts.acevedo import acevedo
from cohorts.aml_matek import aml_matek
from cohorts.bmc import DAMAGED, bmc
from cohorts.cell_folders import foldered, images_below, stem
from cohorts.mll23 import mll23
from cohorts.nuclick import nuclick
from cohorts.raabin import raabin
from cohorts.sslseg import sslseg
from cohorts.warty_pig import warty_pig
from milkit.cohort import Cohort
from milkit.errors import CohortError, SettingsError
from milkit.images import read_bytes, read_cell
from milkit.registry import COHORTS


def labels_of(cohort: Cohort) -> dict[str, str]:
    return dict(zip(cohort.cells["cell_id"], cohort.cells["cell_type"], strict=True))


def only(cohort: Cohort, part: str) -> str:
    """The one note that has this part."""
    (note,) = [note for note in cohort.notes if part in note]
    return note


# --- what they share --------------------------------------------------------------------------------------------------


def test_litter_and_hidden_files_are_no_images(tmp_path: Path) -> None:
    litter = [
        ".DS_1.jpg",
        "__MACOSX/a/1.jpg",
        "a/.ipynb_checkpoints/1.jpg",
        "augmented/a/1.jpg",
        "a/Thumbs.db",
        "a/1.npy",
    ]
    write(tmp_path, [*litter, "a/1.jpg", "a/2.TIFF"], b"")
    assert {str(path) for path in images_below(tmp_path)} == {"a/1.jpg", "a/2.TIFF"}


def test_litter_above_the_root_does_not_count(tmp_path: Path) -> None:
    write(tmp_path / "augmented", ["a/1.jpg"], b"")
    assert images_below(tmp_path / "augmented") == [PurePosixPath("a/1.jpg")]


def test_class_folders_may_be_links(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", ["1.jpg"], b"")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a").symlink_to(tmp_path / "elsewhere")
    assert images_below(tmp_path / "here") == [PurePosixPath("a/1.jpg")]


@pytest.mark.parametrize(
    ("path", "expected"),
    [("A/x/1.jpg", "A"), ("as/1.jpg", "A"), ("A/b_c/1.jpg", "B-C"), ("x/A.jpg", None), ("AA/1.jpg", None)],
)
def test_the_nearest_folder_of_a_known_name_counts_whatever_its_spelling(path: str, expected: str | None) -> None:
    assert foldered(["A", "B-C"])(PurePosixPath(path)) == expected


def test_a_name_is_without_its_suffix_even_where_it_was_appended_twice() -> None:
    names = ("a/BAS_0001.tiff", "BAS_0001.tiff.tiff", "00-0000.PAP.PB~E.1-12.TIF", "img (1).png")
    assert [stem(PurePosixPath(name)) for name in names] == [
        *("BAS_0001", "BAS_0001", "00-0000.PAP.PB~E.1-12", "img (1)")
    ]


# --- BMC --------------------------------------------------------------------------------------------------------------


def test_bmc_numbers_count_and_not_their_folders(tmp_path: Path) -> None:
    cells = bmc(FAKES["bmc"](tmp_path).root).cells
    assert list(cells["cell_id"][cells["cell_type"] == "NGS"]) == ["NGS_00002", "NGS_00010", "NGS_00999", "NGS_01001"]


def test_bmc_leaves_out_what_is_damaged_and_says_so(tmp_path: Path) -> None:
    root = FAKES["bmc"](tmp_path).root
    assert only(bmc(root), "damaged") == "Left out, as they are damaged in their lower part (1): EBO_06999."
    assert "EBO_06999" in labels_of(bmc(root, damaged="keep"))


def test_bmc_counts_are_compared_with_the_published_ones(tmp_path: Path) -> None:
    assert "brackets: 7 images (171,374), 0 ABE (8), 0 ART (19,630)" in only(bmc(FAKES["bmc"](tmp_path).root), "Counts")


def test_images_that_are_named_otherwise_are_not_read_and_noted(tmp_path: Path) -> None:
    root = FAKES["bmc"](tmp_path).root
    write(root, ["BAS/notes_1.jpg", "XYZ/XYZ_00001.jpg"], picture("JPEG"))
    assert only(bmc(root), "were not read").endswith("data set were not read (2): BAS/notes_1.jpg, XYZ/XYZ_00001.jpg.")


# --- AML Matek --------------------------------------------------------------------------------------------------------


def test_aml_matek_has_re_annotations_even_of_the_file_with_two_suffixes(tmp_path: Path) -> None:
    cells = aml_matek(FAKES["aml_matek"](tmp_path).root).cells.set_index("cell_id")
    assert cells.loc["MYO_0001", ["first_reannotation", "second_reannotation"]].tolist() == ["MOB", "MYO"]
    assert cells.loc["BAS_0001", "first_reannotation"] == "BAS"
    assert cells.loc[["BAS_0002", "MYO_0010"], "first_reannotation"].isna().all()
    assert cells.loc["BAS_0002", "path"].endswith("BAS_0002.tiff.tiff")


def test_aml_matek_without_its_table_is_read_and_says_so(tmp_path: Path) -> None:
    root = FAKES["aml_matek"](tmp_path).root
    next(root.rglob("annotations.dat")).unlink()
    cohort = aml_matek(root)
    assert len(cohort.cells) == 4
    assert "first_reannotation" not in cohort.cells
    assert only(cohort, "annotations.dat is missing")


def test_aml_matek_says_where_images_and_table_disagree(tmp_path: Path) -> None:
    root = FAKES["aml_matek"](tmp_path).root
    table = next(root.rglob("annotations.dat"))
    table.write_text("BAS/BAS_0001.tiff NGS nan nan\nMON/MON_0001.tiff MON\n\n")
    cohort = aml_matek(root)
    assert only(cohort, "does not list").endswith("(3): BAS_0002, MYO_0001, MYO_0010.")
    assert only(cohort, "not there").endswith("(1): MON_0001.")
    assert only(cohort, "otherwise").endswith("which was taken (1): BAS_0001 (NGS).")
    assert labels_of(cohort)["BAS_0001"] == "BAS"


def test_aml_matek_refuses_a_table_of_another_form(tmp_path: Path) -> None:
    root = FAKES["aml_matek"](tmp_path).root
    table = next(root.rglob("annotations.dat"))
    table.write_text("BAS/BAS_0001.tiff BAS nan nan\nBAS/BAS_0002.tiff\n")
    with pytest.raises(CohortError, match=r"annotations.dat:2 has 1 fields, expected a path, a label and up to two"):
        aml_matek(root)


# --- Acevedo ----------------------------------------------------------------------------------------------------------


def test_acevedo_labels_are_prefixes_the_paper_s_classes_or_folders(tmp_path: Path) -> None:
    root = FAKES["acevedo"](tmp_path).root
    assert len(set(acevedo(root).cells["cell_type"])) == 13
    paper = set(acevedo(root, classes="paper").cells["cell_type"])
    assert paper == set("BA EO ERB LY MO PLATELET BNE SNE MMY MY PMY".split())  # noqa: SIM905
    folders = Counter(acevedo(root, classes="folder").cells["cell_type"])
    assert (folders["ig"], folders["neutrophil"], len(folders)) == (6, 3, 8)


def test_acevedo_refuses_another_list_of_classes(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="classes: Input should be 'prefix', 'paper' or 'folder'"):
        COHORTS.build("acevedo", {"root": tmp_path, "classes": "readme"})


# --- Raabin, MLL23, warty pig, NuClick --------------------------------------------------------------------------------


def test_raabin_tells_its_parts_and_reads_one_of_them(tmp_path: Path) -> None:
    root = FAKES["raabin"](tmp_path).root
    cells = raabin(root).cells
    assert cells["split"].value_counts().to_dict() == {"Train": 2, "TestA": 2, "TestB": 1}
    assert {"Train/Basophil/95-1-24-1-2_1", "TestA/Basophil/95-1-24-1-2_1", "TestB/Lymphocyte/7"} <= set(
        cells["cell_id"]
    )
    assert set(raabin(root, split="TestA").cells["cell_type"]) == {"Monocyte", "Basophil"}


def test_raabin_compares_the_parts_that_are_read(tmp_path: Path) -> None:
    root = FAKES["raabin"](tmp_path).root
    assert only(raabin(root), "Counts").endswith("2 Train (10,175), 2 TestA (4,339).")
    assert not [note for note in raabin(root, split="TestB").notes if "Counts" in note]


def test_mll23_keeps_an_image_under_both_of_its_labels_and_takes_no_case_for_a_patient(tmp_path: Path) -> None:
    cohort = mll23(FAKES["mll23"](tmp_path).root)
    name = f"{sha256(b'00-0000.PAP.PB').hexdigest()[:12]}~E.1-12"
    assert labels_of(cohort)[f"lymphocyte/{name}"] == "lymphocyte"
    assert labels_of(cohort)[f"lymphocyte_reactive/{name}"] == "lymphocyte_reactive"
    assert cohort.cells["patient_id"].isna().all()


def test_mll23_ids_hold_no_part_of_a_name_that_may_number_a_case_and_a_note_says_where_it_stays(tmp_path: Path) -> None:
    root = FAKES["mll23"](tmp_path).root
    write(root, ["monocyte/11-2222.TIF"], picture("TIFF"))
    cohort = mll23(root)
    assert not cohort.cells["cell_id"].str.contains("00-0000|PAP|11-2222").any()
    assert cohort.cells["cell_id"].is_unique
    assert "do not pass on tables with paths" in only(cohort, "may be the number of a case")


def test_warty_pig_says_that_it_is_no_human_and_keeps_foreign_classes(tmp_path: Path) -> None:
    root = FAKES["warty_pig"](tmp_path).root
    write(root, ["Band cell/1.jpg"], picture("JPEG"))
    cohort = warty_pig(root)
    assert "Sus cebifrons" in only(cohort, "animal")
    assert labels_of(cohort)["Band cell/1"] == "Band cell"


def test_nuclick_has_pictures_without_masks_and_without_labels(tmp_path: Path) -> None:
    cells = nuclick(FAKES["nuclick"](tmp_path).root).cells
    assert list(cells["cell_id"]) == ["Train/img (1)", "Train/img (2)", "Train/img (10)", "Validation/img (1)"]
    assert "cell_type" not in cells
    assert list(cells["split"]) == ["Train"] * 3 + ["Validation"]


# --- SSLSeg -----------------------------------------------------------------------------------------------------------


def test_sslseg_joins_padded_names_with_unpadded_numbers(tmp_path: Path) -> None:
    cohort = sslseg(FAKES["sslseg"](tmp_path).root)
    assert labels_of(cohort) == {
        **{"Dataset 1/001": "lymphocyte", "Dataset 1/002": "neutrophil", "Dataset 1/010": "basophil"},
        "Dataset 2/001": "monocyte",
    }


def test_sslseg_says_which_images_and_rows_have_no_partner(tmp_path: Path) -> None:
    root = FAKES["sslseg"](tmp_path).root
    (root / "Dataset 1" / "002.bmp").rename(root / "Dataset 1" / "003.BMP")
    cohort = sslseg(root)
    assert only(cohort, "without a row") == "Images without a row in the table of Dataset 1 (1): 3."
    assert only(cohort, "without an image") == "Rows of the table of Dataset 1 without an image (1): 2."
    assert cohort.cells.set_index("cell_id")["cell_type"].isna().to_dict()["Dataset 1/003"]


def test_sslseg_takes_the_padded_one_of_two_names_for_a_number_and_says_so(tmp_path: Path) -> None:
    root = FAKES["sslseg"](tmp_path).root
    write(root, ["Dataset 1/1.bmp", "Dataset 1/more/001.bmp"], picture("BMP", seed=1))
    cohort = sslseg(root)
    assert cohort.cells.set_index("cell_id")["path"]["Dataset 1/001"] == "Dataset 1/001.bmp"
    assert only(cohort, "number of another") == (
        "Images of Dataset 1 with the number of another one were not read (2): 1.bmp, more/001.bmp."
    )


def test_sslseg_refuses_a_number_with_two_classes(tmp_path: Path) -> None:
    root = FAKES["sslseg"](tmp_path).root
    (root / "Class Labels of Dataset 1.csv").write_text("image ID,class label\n1,2\n001,2\n2,1\n02,3\n10,5\n")
    with pytest.raises(
        CohortError, match=r"Dataset 1\.csv gives the images 2 several classes, expected one; mend those"
    ):
        sslseg(root)


def test_sslseg_refuses_a_class_that_has_no_meaning(tmp_path: Path) -> None:
    root = FAKES["sslseg"](tmp_path).root
    (root / "Class Labels of Dataset 1.csv").write_text("image ID,class label\n1,2\n2,6\n")
    with pytest.raises(CohortError, match=r"holds 6, expected numbers of images, and classes from 1 to 5; mend those"):
        sslseg(root)


def test_sslseg_needs_the_tables(tmp_path: Path) -> None:
    root = FAKES["sslseg"](tmp_path).root
    (root / "Class Labels of Dataset 2.csv").unlink()
    with pytest.raises(CohortError, match=r"Class Labels of Dataset 2.csv does not exist"):
        sslseg(root)


# --- real files -------------------------------------------------------------------------------------------------------


@pytest.fixture
def real() -> Path:
    if not os.environ.get("MILKIT_REAL_DATA"):
        pytest.skip("MILKIT_REAL_DATA is unset: no published files here")
    return Path(os.environ["MILKIT_REAL_DATA"]).resolve()


@pytest.mark.real_data
def test_acevedo_s_published_names_are_those_of_the_adapter(real: Path) -> None:
    with (real / "acevedo" / "_full_listing_prefix_counts.csv").open(newline="") as file:
        listed = {(row["folder"], row["prefix"]): int(row["n_files"]) for row in csv.DictReader(file)}
    assert listed.pop(("neutrophil", ".DS")) == 1
    known = {(name, prefix): n for name, counts in acevedo_module.FOLDERS.items() for prefix, n in counts.items()}
    assert known == listed
    assert sum(known.values()) == 17_092


@pytest.mark.real_data
def test_real_acevedo_images_are_read_each_once_under_their_prefix(real: Path) -> None:
    root = real / "acevedo" / "PBC_dataset_normal_DIB"
    there = Counter(path.name.split("_")[0] for folder in root.iterdir() for path in folder.iterdir())
    cohort = acevedo(root)
    assert len(cohort.cells) == 13_675
    assert Counter(cohort.cells["cell_type"]) == there
    assert "13,675 images (17,092), 991 BA (1,218)" in only(cohort, "Counts")
    assert len(acevedo(root, classes="paper").cells) == 13_675 - there["IG"] - there["NEUTROPHIL"]
    assert read_cell(read_bytes(root, cohort.cells["path"].iloc[-1])).shape == (128, 128, 3)


@pytest.mark.real_data
def test_the_real_file_of_the_finder_is_no_cell_and_odd_sizes_are_decoded(real: Path) -> None:
    root = real / "acevedo_original"
    assert next(root.rglob(".DS_169665.jpg")).stat().st_size == 6_148
    cohort = acevedo(root)
    assert set(Counter(cohort.cells["cell_type"]).values()) == {10}
    assert len(cohort.cells) == 130
    shapes = {read_cell(read_bytes(root, path)).shape for path in cohort.cells["path"]}
    assert (363, 360, 3) in shapes
    assert all(shape[2] == 3 for shape in shapes)


@pytest.mark.real_data
def test_real_bmc_images_are_labelled_and_the_damaged_ones_left_out(real: Path) -> None:
    root = real / "bmc_sample"
    cohort = bmc(root)
    assert labels_of(cohort) == {"BLA_06642": "BLA", "LYT_11703": "LYT", "NGB_05456": "NGB", "NGS_04010": "NGS"}
    everything = bmc(root, damaged="keep")
    assert set(everything.cells["cell_id"]) - set(cohort.cells["cell_id"]) == set(DAMAGED)
    assert {read_cell(read_bytes(root, path)).shape for path in everything.cells["path"]} == {(250, 250, 3)}


@pytest.mark.real_data
def test_a_real_tiff_of_the_mll_is_read_from_a_class_folder(real: Path, tmp_path: Path) -> None:
    """Its label is made up: the file came without one."""
    (image,) = (real / "mll_single_cell_tif").glob("*.TIF")
    (tmp_path / "monocyte").mkdir()
    (tmp_path / "monocyte" / image.name).symlink_to(image)
    (cell,) = mll23(tmp_path).cells.itertuples()
    case, _, rest = image.name.removesuffix(".TIF").partition("~")
    assert cell.cell_id == f"monocyte/{sha256(case.encode()).hexdigest()[:12]}~{rest}"
    assert read_cell(read_bytes(tmp_path, cell.path)).shape == (288, 288, 3)
