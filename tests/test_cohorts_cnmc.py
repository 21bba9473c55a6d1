"""C-NMC: subjects out of file names, the spelling of H3, folds, and the preliminary test by its table."""

from pathlib import Path

import pytest
from cohort_fakes import picture, write
from cohort_fakes_patients import lay_out_cnmc

from cohorts.cnmc import cnmc
from milkit.errors import CohortError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return lay_out_cnmc(tmp_path).root


TRAINING = Path("C-NMC_Leukemia") / "training_data"
VALIDATION = Path("C-NMC_Leukemia") / "validation_data"


def test_subjects_have_their_label_and_fold(root: Path) -> None:
    patients = cnmc(root).patients
    assert patients["label"].to_dict() == {"1": "ALL", "57": "ALL", "70": "ALL", "H3": "healthy", "H40": "healthy"}
    assert patients["fold"].to_dict() == {"1": "0", "57": "2", "70": "preliminary", "H3": "1", "H40": "preliminary"}


def test_both_spellings_of_a_healthy_subject_are_one_subject_with_two_cells(root: Path) -> None:
    cells = cnmc(root).cells
    assert cells.loc[cells["patient_id"] == "H3", "cell_id"].tolist() == ["H3/UID_H3_1_1_hem", "H3/UID_h3_1_1_hem"]


def test_images_of_the_preliminary_test_have_their_names_from_the_table(root: Path) -> None:
    cells = cnmc(root).cells.set_index("cell_id")
    path = "C-NMC_Leukemia/validation_data/C-NMC_test_prelim_phase_data/1.bmp"
    assert cells.loc["70/UID_70_3_1_all", "path"] == path
    assert cells.loc["70/UID_70_3_1_all", "cell_type"] == "all"


def test_images_without_a_label_are_not_read(root: Path) -> None:
    paths = cnmc(root).cells["path"].tolist()
    assert not [path for path in paths if "final" in path or path.endswith("/3.bmp")]


def test_training_alone_is_enough(root: Path) -> None:
    cohort = cnmc(root / TRAINING)
    assert (len(cohort.patients), len(cohort.cells)) == (3, 6)
    assert cohort.notes == (
        "Counts differ from the published ones, which stand in brackets: 3 training subjects (73), 6 training images "
        "(10,661).",
    )


def test_a_subject_in_two_folds_is_noted(root: Path) -> None:
    write(root / TRAINING, ["fold_1/all/UID_1_77_1_all.bmp"], picture("BMP"))
    assert cnmc(root).notes[-1] == "Subjects with cells in several folds have the first one (1): 1."


def test_a_subject_with_both_labels_is_refused(root: Path) -> None:
    write(root / TRAINING, ["fold_0/hem/UID_1_77_1_hem.bmp"], picture("BMP"))
    with pytest.raises(
        CohortError, match=r"have cells in all/ and in hem/ \(1\), expected one of them; mend the folders"
    ):
        cnmc(root)


def test_a_table_of_the_preliminary_test_with_other_names_is_refused(root: Path) -> None:
    table = root / VALIDATION / "C-NMC_test_prelim_phase_data_labels.csv"
    table.write_text("Patient_ID,new_names,labels\npatient 7,1.bmp,1\n")
    with pytest.raises(CohortError, match=r"Patient_ID of .*labels.csv holds patient 7, expected UID_<subject>"):
        cnmc(root)
