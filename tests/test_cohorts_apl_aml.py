"""APL and AML: whose a cell is, what was signed, and the spellings of copies."""

from pathlib import Path

import pytest
from cohort_fakes import picture, write
from cohort_fakes_patients import MASTER, lay_out_apl_aml

from cohorts.apl_aml import CELL_TYPES, apl_aml
from milkit.errors import CohortError
from milkit.taxonomy import LabelMap, Taxonomy


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return lay_out_apl_aml(tmp_path).root


def test_patients_have_their_diagnosis_cohort_age_and_sex(root: Path) -> None:
    patients = apl_aml(root).patients
    assert list(patients.index) == ["Patient_00", "Patient_01", "Patient_100", "Patient_99"]
    assert patients.loc["Patient_100"].to_dict() == {"label": "APL", "site": "Validation", "age": 31.0, "sex": "F"}
    assert patients["label"].to_dict()["Patient_99"] == "AML"


def test_classes_have_the_order_of_the_published_splits(root: Path) -> None:
    assert apl_aml(root).classes == ("APL", "AML")


def test_only_signed_cells_have_a_type_under_its_name_without_blanks_and_commas(root: Path) -> None:
    cells = apl_aml(root).cells.set_index("cell_id")["cell_type"]
    assert cells["Patient_00/BL_9"] == "Blast_no_lineage_spec"
    assert cells["Patient_01/2018-12-16_2346/VLY_1"] == "Lymphocyte_variant"
    assert cells[["Patient_00/10027293117_005", "Patient_99/1_001"]].isna().all()


def test_a_folder_between_patient_and_cells_is_a_sample(root: Path) -> None:
    cells = apl_aml(root).cells
    samples = cells[cells["patient_id"] == "Patient_01"]
    assert samples["sample_id"].tolist() == ["2018-12-16_2346", "2019-01-02_1200"]
    assert cells["sample_id"].isna().sum() == 7


def test_the_folder_itself_or_the_one_above_can_be_given(root: Path) -> None:
    above, itself = apl_aml(root), apl_aml(root / "AML_APL")
    assert above.cells["cell_id"].tolist() == itself.cells["cell_id"].tolist()


def test_images_of_no_patient_and_other_counts_are_noted(root: Path) -> None:
    notes = apl_aml(root).notes
    assert notes[0].startswith("Counts differ from the published ones, which stand in brackets: 4 patients (106)")
    assert notes[1] == "Images that are neither signed nor unsigned cells of a patient were not read (1): cover.png."


def test_an_unknown_folder_of_signed_cells_is_no_type(root: Path) -> None:
    write(root / "AML_APL", ["Patient_00/Signed_slides/Something new/XX_1.jpg"], picture("JPEG"))
    cohort = apl_aml(root)
    assert cohort.cells.set_index("cell_id")["cell_type"].isna()["Patient_00/XX_1"]
    path = "AML_APL/Patient_00/Signed_slides/Something new/XX_1.jpg"
    assert f"Signed cells in folders of no known type have no type (1): {path}." in cohort.notes


def test_images_of_a_patient_without_a_row_are_refused(root: Path) -> None:
    (root / "AML_APL" / "master.csv").write_text("\n".join(MASTER[:-1]))
    with pytest.raises(CohortError, match=r"master.csv has no row for the patients Patient_100, who have images"):
        apl_aml(root)


def test_a_number_without_its_zero_is_another_patient(root: Path) -> None:
    """The authors' earlier numbering had a Patient_0 who is not Patient_00."""
    write(root / "AML_APL", ["Patient_0/Unsigned_slides/1_001.jpg"], picture("JPEG"))
    with pytest.raises(CohortError, match=r"no row for the patients Patient_0, who"):
        apl_aml(root)


@pytest.mark.parametrize(
    ("change", "missing"),
    [("master.csv", r"no master\.csv, where the APL data set .* was expected; download it from Kaggle")],
)
def test_what_is_missing_is_named(root: Path, change: str, missing: str) -> None:
    (root / "AML_APL" / change).unlink()
    with pytest.raises(CohortError, match=missing):
        apl_aml(root)


def test_a_sex_that_is_not_known_is_refused(root: Path) -> None:
    (root / "AML_APL" / "master.csv").write_text("\n".join(MASTER).replace("28,Male", "28,X"))
    with pytest.raises(CohortError, match=r"column 'Gender' \(sex\) holds 'X' \(Patient_01\) where F, M or a blank"):
        apl_aml(root)


def test_the_taxonomy_knows_every_type(root: Path) -> None:
    labels = LabelMap.load("apl_aml", Taxonomy.load())
    assert sorted(labels.nodes) == sorted(CELL_TYPES)
