"""Fakes of the data sets of one cell an image, whose labels are folders, prefixes or a table."""

from collections.abc import Mapping
from pathlib import Path

from cohort_fakes import FOLDER_OF_THE_FINDER, Fake, LayOut, picture, write


def lay_out_bmc(root: Path) -> Fake:
    """Two layers of folders for a large class, one for a small one; a damaged image, and what a mirror adds."""
    home = root / "bone_marrow_cell_dataset"
    large = [f"NGS/0001-1000/NGS_{n:05d}.jpg" for n in (2, 10, 999)] + ["NGS/1001-2000/NGS_01001.jpg"]
    write(home, [*large, "FGC/FGC_00001.jpg", "BLA/0001-1000/BLA_00007.jpg"], picture("JPEG", size=(25, 25)))
    write(home, ["EBO/6001-7000/EBO_06999.jpg"], picture("JPEG"))
    write(root, ["__MACOSX/bone_marrow_cell_dataset/FGC/FGC_00001.jpg"], b"resource fork")
    write(root, ["abbreviations.csv"], b"Abbreviation;Meaning\nBLA;Blast\n")
    return Fake(root, {}, 6, {"NGS": 4, "FGC": 1, "BLA": 1}, 0)


def lay_out_aml_matek(root: Path) -> Fake:
    """The folder twice inside itself, RGBA, a suffix twice, re-annotations, and the augmented copies of a mirror."""
    home = root / "AML-Cytomorphology_LMU" / "AML-Cytomorphology_LMU"
    paths = ["BAS/BAS_0001.tiff", "BAS/BAS_0002.tiff.tiff", "MYO/MYO_0001.tiff", "MYO/MYO_0010.tiff"]
    write(home, paths, picture("TIFF", size=(40, 40), mode="RGBA"))
    write(home, ["augmented/BAS/BAS_0001.tiff"], picture("TIFF"))
    table = ["BAS/BAS_0001.tiff BAS BAS nan", "BAS/BAS_0002.tiff BAS nan nan", "MYO/MYO_0001.tiff MYO MOB MYO"]
    write(home, ["annotations.dat"], "\n".join([*table, "MYO/MYO_0010.tiff MYO nan nan", ""]).encode())
    write(home, ["annotations_augmented.dat"], b"augmented/BAS/BAS_0001.tiff BAS nan nan\n")
    return Fake(root, {}, 4, {"BAS": 2, "MYO": 2}, 0)


def lay_out_acevedo(root: Path) -> Fake:
    """Every prefix once, two files of the same bytes and different labels, a file of the Finder, and copies."""
    home = root / "PBC_dataset_normal_DIB"
    of_folder = {
        **{"basophil": ["BA"], "eosinophil": ["EO"], "erythroblast": ["ERB"], "ig": ["IG", "MMY", "MY", "PMY"]},
        **{"lymphocyte": ["LY"], "monocyte": ["MO"], "platelet": ["PLATELET"]},
        "neutrophil": ["BNE", "NEUTROPHIL", "SNE"],
    }
    prefixes = [(folder, prefix) for folder, members in of_folder.items() for prefix in members]
    write(home, [f"{folder}/{prefix}_100878.jpg" for folder, prefix in prefixes], picture("JPEG", size=(36, 37)))
    write(home, ["ig/MY_9.jpg", "ig/MY_10.jpg"], picture("JPEG", seed=1))
    write(home, ["neutrophil/.DS_169665.jpg"], FOLDER_OF_THE_FINDER)
    write(home, ["wbc_resized/basophil/BA_100878.jpg", "__MACOSX/basophil/BA_1.jpg"], picture("JPEG"))
    write(root, ["PBC_dataset_split/Train/basophil/BA_100878.jpg"], picture("JPEG"))
    return Fake(root, {}, 15, {prefix: 3 if prefix == "MY" else 1 for _, prefix in prefixes}, 0)


def lay_out_raabin(root: Path) -> Fake:
    """Three parts, the same file name in two of them, and a folder spelled otherwise."""
    paths = ["Train/Basophil/95-1-24-1-2_1.jpg", "Train/Neutrophil/95-1-24-1-2_10.jpg", "TestA/Monocyte/1.jpg"]
    write(root, [*paths, "TestA/Basophil/95-1-24-1-2_1.jpg", "Test-B/lymphocytes/7.JPG"], picture("JPEG"))
    write(root, ["Train/Basophil/Thumbs.db", "Train/.DS_Store"], FOLDER_OF_THE_FINDER)
    return Fake(root, {}, 5, {"Basophil": 2, "Neutrophil": 1, "Monocyte": 1, "Lymphocyte": 1}, 0)


def lay_out_mll23(root: Path) -> Fake:
    """Capital suffixes, one image under two labels, what an archive leaves behind, and the table of counts."""
    border = "00-0000.PAP.PB~E.1-12.TIF"
    paths = [f"lymphocyte/{border}", f"lymphocyte_reactive/{border}", "promyelocyte_atypical/00-0000.PAP.PB~E.1-9.TIF"]
    write(root, paths, picture("TIFF", size=(28, 28)))
    write(root, [f"__MACOSX/lymphocyte/._{border}", f"lymphocyte/._{border}"], b"resource fork")
    write(root, ["labels_MLL23.csv"], b"Labels, count\nlymphocyte,5532\n")
    return Fake(root, {}, 3, {"lymphocyte": 1, "lymphocyte_reactive": 1, "promyelocyte_atypical": 1}, 0)


def lay_out_warty_pig(root: Path) -> Fake:
    """Class folders of any spelling, and augmented ones beside them."""
    write(root, ["Basophil/1.jpg", "eosinophils/1.jpg", "eosinophils/2.jpg", "Monocyte/1.PNG"], picture("JPEG"))
    write(root, ["Augmented/Basophil/1.jpg", "Basophil augmented/1.jpg"], picture("JPEG"))
    return Fake(root, {}, 4, {"Basophil": 1, "Eosinophil": 2, "Monocyte": 1}, 0)


def lay_out_nuclick(root: Path) -> Fake:
    """Names with blanks and brackets, and masks, which are no cells."""
    for part, numbers in (("Train", (1, 2, 10)), ("Validation", (1,))):
        write(root, [f"Hemato_Data/{part}/images/img ({n}).png" for n in numbers], picture("PNG"))
        write(root, [f"Hemato_Data/{part}/masks/img ({n})_mask.png" for n in numbers], picture("PNG", mode="L"))
    return Fake(root, {}, 4, {}, 0)


def lay_out_sslseg(root: Path) -> Fake:
    """Padded names and unpadded ids, two spellings of a column, masks, and a picture that is no cell."""
    tables: Mapping[str, tuple[str, Mapping[int, int]]] = {
        "Dataset 1": ("class label", {1: 2, 2: 1, 10: 5}),
        "Dataset 2": ("class", {1: 3}),
    }
    for part, (column, labels) in tables.items():
        rows = [f"{number},{label}" for number, label in labels.items()]
        write(root, [f"Class Labels of {part}.csv"], "\r\n".join([f"image ID,{column}", *rows, ""]).encode())
        write(root, [f"{part}/{number:03d}.bmp" for number in labels], picture("BMP"))
        write(root, [f"{part}/{number:03d}.png" for number in labels], picture("PNG", mode="L"))
    write(root, ["Dataset 1.png"], picture("PNG"))
    return Fake(root, {}, 4, {"lymphocyte": 1, "neutrophil": 1, "basophil": 1, "monocyte": 1}, 0)


FAKES: dict[str, LayOut] = {
    "acevedo": lay_out_acevedo,
    "aml_matek": lay_out_aml_matek,
    "bmc": lay_out_bmc,
    "mll23": lay_out_mll23,
    "nuclick": lay_out_nuclick,
    "raabin": lay_out_raabin,
    "sslseg": lay_out_sslseg,
    "warty_pig": lay_out_warty_pig,
}
