"""Fakes of the data sets with patients that have adapters of their own: APL and AML, cAItomorph, C-NMC."""

from pathlib import Path

from cohort_fakes import FOLDER_OF_THE_FINDER, Fake, LayOut, picture, write

MASTER = (
    "Patient_ID,Diagnosis,Cohort,Age at Diagnosis,Gender",
    "Patient_00,APL,Discovery,29,Female",
    "Patient_01,AML,Discovery,28,Male",
    "Patient 99,AML,Validation,61,Male",
    "Patient_100,APL,Validation,31,Female",
)
"""The real table's columns; one id has a blank where the folder has none."""


def lay_out_apl_aml(root: Path) -> Fake:
    """Both spellings of folders, two smears of one patient, three digits, unsigned cells, Thumbs.db in every folder."""
    home = root / "AML_APL"
    signed = ["Blast_no_lineage_spec/BL_15336348.jpg", "Blast_no_lineage_spec/BL_9.jpg", "Arifact/ART_1.jpg"]
    write(home, [f"Patient_00/Signed_slides/{name}" for name in signed], picture("JPEG", size=(36, 36)))
    write(home, [f"Patient_00/Unsigned_slides/10027293117_{n:03d}.jpg" for n in (5, 8)], picture("JPEG"))
    write(home, ["Patient_01/2018-12-16_2346/Signed slides/Lymphocyte, variant/VLY_1.jpg"], picture("JPEG"))
    write(home, ["Patient_01/2019-01-02_1200/Signed slides/Lymphocyte, variant/VLY_1.jpg"], picture("JPEG", seed=1))
    write(home, ["Patient_99/Unsigned_slides/1_001.JPG", "Patient_100/Unsigned_slides/1_001.jpg"], picture("JPEG"))
    write(home, ["Patient_00/Signed_slides/Arifact/Thumbs.db", ".DS_Store"], FOLDER_OF_THE_FINDER)
    write(home, ["Patient_00/Signed_slides/Promyelocyte/.DS_1.jpg"], FOLDER_OF_THE_FINDER)
    write(home, ["master.csv"], ("\n".join(MASTER) + "\n").encode("utf-8-sig"))
    write(root, ["__MACOSX/AML_APL/Patient_00/Signed_slides/Arifact/ART_1.jpg", "cover.png"], picture("PNG"))
    cell_types = {"Blast_no_lineage_spec": 2, "Arifact": 1, "Lymphocyte_variant": 2}
    return Fake(root, {}, 9, cell_types, 4)


def lay_out_caitomorph(root: Path) -> Fake:
    """Capital suffixes, numbers without zeros in front, a patient called NA_1, features beside the images."""
    cells = {"ALK_183": 3, "LYM_224": 2, "SCD_417": 2, "NA_1": 1}
    for patient, count in cells.items():
        write(root, [f"patients/{patient}/{n}.TIF" for n in range(9, 9 + count)], picture("TIFF"))
        write(root, [f"patients/{patient}/features.npy", f"patients/{patient}/.DS_Store"], b"")
    table = (
        "patient_id,diagnosis_coarse,diagnosis_fine,number_of_cells",
        "ALK_183,AML,AML NPM1,3",
        "LYM_224,B-NHL,CLL,5",
        "NA_1,AML,AML NOS,1",
        "SCD_417,stem cell donor,stem cell donor,2",
    )
    write(root, ["metadata.csv"], ("\n".join(table) + "\n").encode())
    return Fake(root, {}, 8, {}, 4)


def lay_out_cnmc(root: Path) -> Fake:
    """``h3`` for H3, with one name in both spellings, the preliminary test, the final one, and a mirror's litter."""
    training = root / "C-NMC_Leukemia" / "training_data"
    paths = ["fold_0/all/UID_1_1_1_all.bmp", "fold_0/all/UID_1_10_2_all.bmp", "fold_0/all/UID_1_2_1_all.bmp"]
    paths += ["fold_1/hem/UID_H3_1_1_hem.bmp", "fold_1/hem/UID_h3_1_1_hem.bmp", "fold_2/all/UID_57_29_1_all.bmp"]
    write(training, paths, picture("BMP"))
    write(training, ["fold_1/hem/._UID_H3_1_1_hem.bmp"], b"resource fork")
    write(root, ["__MACOSX/training_data/fold_0/all/UID_1_1_1_all.bmp"], b"resource fork")
    validation = root / "C-NMC_Leukemia" / "validation_data"
    write(validation, [f"C-NMC_test_prelim_phase_data/{n}.bmp" for n in (1, 2, 3)], picture("BMP"))
    labels = "Patient_ID,new_names,labels\nUID_70_3_1_all.bmp,1.bmp,1\nUID_H40_1_1_hem.bmp,2.bmp,0\n"
    write(validation, ["C-NMC_test_prelim_phase_data_labels.csv"], labels.encode())
    write(root / "C-NMC_Leukemia" / "testing_data", ["C-NMC_test_final_phase_data/1.bmp"], picture("BMP"))
    return Fake(root, {}, 8, {"all": 5, "hem": 3}, 5)


FAKES: dict[str, LayOut] = {
    "apl_aml": lay_out_apl_aml,
    "caitomorph": lay_out_caitomorph,
    "cnmc": lay_out_cnmc,
}
