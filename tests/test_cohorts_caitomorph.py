"""cAItomorph's test set: either diagnosis as the label, and counts held against the table."""

from pathlib import Path

import pytest
from cohort_fakes_patients import lay_out_caitomorph

from cohorts.caitomorph import caitomorph
from milkit.errors import CohortError, SettingsError
from milkit.registry import COHORTS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return lay_out_caitomorph(tmp_path).root


def test_the_coarse_diagnosis_is_the_label_unless_the_fine_one_is_asked_for(root: Path) -> None:
    coarse, fine = caitomorph(root), caitomorph(root, diagnosis="fine")
    assert coarse.classes == ("AML", "B-NHL", "stem cell donor")
    assert coarse.patients["label"]["ALK_183"] == "AML"
    assert coarse.patients["diagnosis_fine"]["ALK_183"] == "AML NPM1"
    assert fine.classes == ("AML NOS", "AML NPM1", "CLL", "stem cell donor")
    assert fine.patients["diagnosis_coarse"]["LYM_224"] == "B-NHL"


def test_cells_are_in_natural_order(root: Path) -> None:
    cells = caitomorph(root).cells
    assert cells.loc[cells["patient_id"] == "ALK_183", "cell_id"].tolist() == [f"ALK_183/{n}" for n in (9, 10, 11)]


def test_a_patient_whose_images_are_not_as_many_as_the_table_says_is_noted(root: Path) -> None:
    notes = caitomorph(root).notes
    assert "4 patients (409), 8 images (201,560)" in notes[0]
    assert notes[1:] == ("Patients whose images are not as many as number_of_cells says (1): LYM_224 2 for 5.",)


def test_what_is_missing_is_named(root: Path) -> None:
    (root / "metadata.csv").unlink()
    with pytest.raises(
        CohortError, match=r"holds no metadata.csv, where cAItomorph's test set .* get it from the Nefeli"
    ):
        caitomorph(root)


def test_another_diagnosis_is_refused(root: Path) -> None:
    if "caitomorph" not in COHORTS.names():
        pytest.skip("not installed yet")
    with pytest.raises(SettingsError, match=r"cohort 'caitomorph' cannot be made .*'coarse' or 'fine'"):
        COHORTS.build("caitomorph", {"root": root, "diagnosis": "finest"})
