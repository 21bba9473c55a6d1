"""BCCD and Aslan as published, with their published counts. Needs MILKIT_REAL_DATA."""

import os
from pathlib import Path

import numpy as np
import pytest

from cohorts.aslan import aslan
from cohorts.bccd import bccd
from cohorts.box_files import read_kitti
from milkit.cohort import Cohort
from milkit.images import cut, parse_box, read_image

pytestmark = pytest.mark.real_data

SUBTYPES = Path("wbc_subtype_labels.csv")


def real(name: str) -> Path:
    if not os.environ.get("MILKIT_REAL_DATA"):
        pytest.skip("MILKIT_REAL_DATA is unset: no real data here")
    return Path(os.environ["MILKIT_REAL_DATA"]).resolve() / name


def share_with_a_nucleus(cohort: Cohort) -> float:
    """Share of crops in whose middle third more than a tenth of the pixels are violet: far less green than blue."""
    hits = []
    for path, cells in cohort.cells.groupby("path"):
        field = read_image(cohort.root / str(path))
        for box in cells["box"]:
            crop = cut(field, parse_box(box)).astype(int)
            third = crop.shape[0] // 3
            middle = crop[third : 2 * third, third : 2 * third]
            hits.append(((middle[..., 2] - middle[..., 1]) > 30).mean() > 0.1)
    return float(np.mean(hits))


def test_bccd_has_its_published_fields_and_boxes() -> None:
    cohort = bccd(real("bccd"), objects=("wbc", "rbc", "platelet"), min_side=0)
    assert not [note for note in cohort.notes if note.startswith("Counts differ")]
    assert cohort.cells["path"].nunique() == 364
    assert cohort.cells["cell_type"].value_counts().to_dict() == {"RBC": 4153, "WBC": 372, "Platelets": 361}
    assert cohort.notes == ("Boxes without area were left out (2): BloodImage_00338/12, BloodImage_00343/3.",)


def test_bccd_leaves_out_the_one_white_cell_that_is_a_blur() -> None:
    cohort = bccd(real("bccd"))
    assert len(cohort.cells) == 371
    assert "White cells below 40 pixels were left out (1): BloodImage_00113/12." in cohort.notes


def test_bccd_splits_have_their_published_sizes() -> None:
    cells = bccd(real("bccd"), objects=("wbc", "rbc", "platelet")).cells
    assert cells.groupby("split")["path"].nunique().to_dict() == {"test": 72, "train": 205, "val": 87}


def test_bccd_xml_and_table_agree() -> None:
    root = real("bccd")
    assert bccd(root, objects=("wbc", "rbc", "platelet")).digest == (
        bccd(root, objects=("wbc", "rbc", "platelet"), annotations="csv").digest
    )


def test_bccd_subtypes_are_given_where_they_are_certain() -> None:
    kinds = bccd(real("bccd"), subtypes=SUBTYPES).cells["cell_type"]
    assert kinds.value_counts().to_dict() == {
        "NEUTROPHIL": 210,
        "EOSINOPHIL": 87,
        "LYMPHOCYTE": 35,
        "MONOCYTE": 20,
        "BASOPHIL": 2,
    }
    assert int(kinds.isna().sum()) == 17


def test_bccd_crops_hit_nuclei() -> None:
    assert share_with_a_nucleus(bccd(real("bccd"))) > 0.97


def test_bccd_red_cells_show_no_nuclei() -> None:
    cohort = bccd(real("bccd"), objects=("rbc",))
    few = Cohort("few", cohort.root, cohort.patients, cohort.cells.iloc[::40], ())
    assert share_with_a_nucleus(few) < 0.2


def test_aslan_has_its_published_boxes() -> None:
    cohort = aslan(real("aslan"), objects=("wbc", "rbc"))
    assert cohort.cells["cell_type"].value_counts().to_dict() == {"rbc": 2236, "wbc": 103}
    assert cohort.cells["path"].nunique() == 100
    assert len(cohort.notes) == 1
    assert "show red cells" in cohort.notes[0]


def test_aslan_fractions_and_kitti_pixels_agree_but_for_one_red_cell() -> None:
    root = real("aslan")
    assert aslan(root).cells["box"].tolist() == aslan(root, annotations="kitti").cells["box"].tolist()
    fractions = sorted(aslan(root, objects=("wbc", "rbc")).cells[["path", "cell_type", "box"]].to_numpy().tolist())
    pixels = sorted(
        aslan(root, objects=("wbc", "rbc"), annotations="kitti").cells[["path", "cell_type", "box"]].to_numpy().tolist()
    )
    for row in fractions:
        pixels.remove(row)
    assert [(path, kind) for path, kind, _ in pixels] == [("images/image-1.png", "rbc")]
    first, second = read_kitti(root / "labels" / "image-1.txt")[:2]
    assert (first.label, second.label) == ("wbc", "rbc")
    assert first[1:5] == second[1:5]


def test_aslan_stale_checkpoints_are_there_and_not_read() -> None:
    root = real("aslan")
    assert len(list((root / "labels" / ".ipynb_checkpoints").glob("*.txt"))) == 15
    assert not aslan(root, annotations="kitti").cells["path"].str.contains("checkpoint").any()


def test_aslan_fields_have_alpha_and_are_read_as_rgb() -> None:
    from PIL import Image

    cohort = aslan(real("aslan"))
    path = cohort.root / cohort.cells["path"].iloc[0]
    with Image.open(path) as image:
        assert image.mode == "RGBA"
    assert read_image(path).shape == (256, 256, 3)


def test_aslan_crops_hit_nuclei_but_for_the_three_boxes_on_red_cells() -> None:
    cohort = aslan(real("aslan"), min_side=48)
    assert len(cohort.cells) == 100
    assert share_with_a_nucleus(cohort) > 0.97
