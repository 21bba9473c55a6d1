"""Fields become cells: square crops around boxes, outlines and points; and each kind of annotation file."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cohorts.box_files import read_box_table, read_coco, read_kitti, read_points, read_voc, read_yolo
from cohorts.field_crops import Field, Found, cell_table, image_size, images_by_stem, join_fields, square
from cohorts.mask_files import outlines
from milkit.errors import CohortError
from milkit.images import Box


def found(*sides: float, label: str | None = "WBC", role: Any = "wbc") -> Found:
    return Found(label, *sides, role=role)  # type: ignore[misc]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# --- crops ------------------------------------------------------------------------------------------------------------


def test_crop_is_the_square_of_the_longer_side_and_a_tenth_of_it_on_each_side() -> None:
    assert square(found(100, 200, 200, 250)) == Box(90, 165, 120, 120)


def test_crop_may_reach_over_the_border_of_the_field() -> None:
    assert square(found(0, 0, 100, 100)) == Box(-10, -10, 120, 120)


def test_crop_without_a_margin_is_the_square_itself() -> None:
    assert square(found(10, 20, 90, 100), margin=0) == Box(10, 20, 80, 80)


@pytest.mark.parametrize("error", [-1e-12, 0.0, 1e-12])
def test_last_bits_of_a_coordinate_do_not_move_the_crop(error: float) -> None:
    assert square(found(10.5 + error, 20, 110.5 - error, 60 + error)) == Box(1, -20, 120, 120)


def test_every_object_lies_within_its_crop() -> None:
    for left, top, width, height in np.random.default_rng(0).uniform(1, 90, (200, 4)):
        box = square(found(left, top, left + width, top + height))
        assert box.left <= left
        assert box.top <= top
        assert box.left + box.width >= left + width
        assert box.top + box.height >= top + height


# --- the table of cells -----------------------------------------------------------------------------------------------

FIELD = Field(
    "f1",
    "images/f1.png",
    [found(5, 5, 5, 5), found(0, 0, 30, 100), found(50, 50, 90, 90, label="RBC", role="rbc"), found(0, 0, 50, 60)],
)


def test_cell_ids_count_all_objects_of_a_field_whatever_is_left_out() -> None:
    cells, _ = cell_table([FIELD], smallest=40)
    assert cells["cell_id"].tolist() == ["f1/3"]
    cells, _ = cell_table([FIELD], roles=("rbc",))
    assert cells["cell_id"].tolist() == ["f1/2"]


def test_table_says_what_was_left_out_and_why() -> None:
    _, notes = cell_table([FIELD], smallest=40)
    assert notes == [
        "Boxes without area were left out (1): f1/0.",
        "White cells below 40 pixels were left out (1): f1/1.",
    ]


def test_smallest_side_is_asked_of_white_cells_only() -> None:
    cells, _ = cell_table([FIELD], roles=("wbc", "rbc"), smallest=45)
    assert cells["role"].tolist() == ["rbc", "wbc"]


def test_cells_have_path_and_box_of_their_field_and_no_patient() -> None:
    cells, _ = cell_table([FIELD], roles=("rbc",))
    assert cells.loc[0].to_dict() == {
        "cell_id": "f1/2",
        "patient_id": None,
        "path": "images/f1.png",
        "box": "46 46 48 48",
        "cell_type": "RBC",
        "role": "rbc",
    }


def test_fields_that_lack_image_annotation_or_objects_are_named(tmp_path: Path) -> None:
    images = {name: tmp_path / f"{name}.png" for name in ("f2", "f10", "f3")}
    fields, notes = join_fields(tmp_path, images, {"f3": [found(0, 0, 9, 9)], "f10": [], "f4": []})
    assert [(field.name, field.path) for field in fields] == [("f10", "f10.png"), ("f3", "f3.png")]
    assert notes == [
        "Images without an annotation were left out (1): f2.",
        "Annotations without an image were left out (1): f4.",
        "Nothing is annotated in fields (1): f10.",
    ]


def test_label_that_the_data_set_does_not_know_is_refused(tmp_path: Path) -> None:
    images, objects = {"f1": tmp_path / "f1.png"}, {"f1": [found(0, 0, 9, 9, label="WCB")]}
    with pytest.raises(CohortError, match=r"^f1 has an object 'WCB', expected one of WBC, RBC; mend its annotation\.$"):
        join_fields(tmp_path, images, objects, {"WBC": "wbc", "RBC": "rbc"})


def test_images_of_a_folder_come_in_natural_order_without_litter(tmp_path: Path) -> None:
    for name in ("10.jpg", "2.JPG", ".DS_7.jpg", "notes.txt"):
        (tmp_path / name).touch()
    assert list(images_by_stem(tmp_path)) == ["2", "10"]


def test_size_of_a_file_that_is_no_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"^The size of .*f\.png cannot be read, .*; get the file anew\.$"):
        image_size(write(tmp_path / "f.png", "no image"))


# --- files of boxes and points ----------------------------------------------------------------------------------------

VOC = (
    "<annotation><object><name>WBC</name><bndbox>"
    "<xmin>{}</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax>"
    "</bndbox></object></annotation>"
)


def test_voc_has_corners_in_pixels(tmp_path: Path) -> None:
    assert read_voc(write(tmp_path / "f.xml", VOC.format(1))) == [found(1, 2, 3, 4)]


def test_kitti_has_corners_in_its_fifth_to_eighth_column(tmp_path: Path) -> None:
    path = write(tmp_path / "f.txt", "wbc 0.00 0 0 85.5 2.25 187.5 120.0 0 0 0 0 0 0 0\n\n")
    assert read_kitti(path) == [found(85.5, 2.25, 187.5, 120.0, label="wbc")]


def test_yolo_has_centre_and_size_as_fractions_of_a_field_that_may_be_oblong(tmp_path: Path) -> None:
    path = write(tmp_path / "f.txt", "7 0.5 0.25 0.25 0.5 1 0 1")
    assert read_yolo(path, (640, 480)) == [found(240, 0, 400, 240, label="7")]


def test_points_become_windows_around_them(tmp_path: Path) -> None:
    assert read_points(write(tmp_path / "f.txt", "100 50 3\n"), 80) == [found(60, 10, 140, 90, label="3")]


@pytest.mark.parametrize(
    ("size_of", "sides"), [(None, (0.25, 0.5, 0.5, 1.0)), (lambda _: (640, 480), (160, 240, 320, 480))]
)
def test_table_has_pixels_or_fractions_as_the_reader_is_told(tmp_path: Path, size_of: Any, sides: Any) -> None:
    path = write(tmp_path / "boxes.csv", "image,xmin,xmax,ymin,ymax,label\nf1.png,0.25,0.5,0.5,1.0,wbc\n")
    assert read_box_table(path, "image", "label", size_of) == {"f1.png": [found(*sides, label="wbc")]}


def coco(**changes: Any) -> bytes:
    document = {
        "images": [{"id": 1, "file_name": "f.png"}, {"id": 2, "file_name": "f.png"}, {"id": 3, "file_name": "g.png"}],
        "categories": [{"id": 5, "name": "monocyte"}],
        "annotations": [{"image_id": n, "category_id": 5, "bbox": [10, 20, 30, 40]} for n in (1, 2)],
    }
    return json.dumps(document | changes).encode()


def test_coco_joins_entries_of_the_same_image_and_drops_repeated_boxes() -> None:
    assert read_coco(coco(), "x.json") == {"f.png": [found(10, 20, 40, 60, label="monocyte")], "g.png": []}


def test_file_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    text = write(tmp_path / "f.txt", "wbc 0 0 0 1 2 3\n")
    no_number = write(tmp_path / "n.txt", "0 0.5 0.5 nan 0.5\n")
    table = write(tmp_path / "t.csv", "image,label,xmin,ymin,xmax,ymax\nf.png,wbc,1,2,3,\n")
    faults = {
        r"f\.txt cannot be read as Pascal VOC": lambda: read_voc(text),
        r"v\.xml cannot be read as Pascal VOC": lambda: read_voc(write(tmp_path / "v.xml", VOC.format("left"))),
        r"e\.xml cannot be read as Pascal VOC": lambda: read_voc(write(tmp_path / "e.xml", "<a><object/></a>")),
        r"f\.txt cannot be read as KITTI, which was expected \(a line is 'wbc 0 0 0 1 2 3'\)": lambda: read_kitti(text),
        r"n\.txt cannot be read as YOLO, which was expected \(a coordinate is missing\)": lambda: read_yolo(
            no_number, (9, 9)
        ),
        r"f\.txt cannot be read as points": lambda: read_points(text, 80),
        r"t\.csv cannot be read as box table": lambda: read_box_table(table, "image", "label"),
        r"c\.json cannot be read as COCO": lambda: read_coco(b"[]", "c.json"),
        r"d\.json cannot be read as COCO, which was expected \('images'\)": lambda: read_coco(b"{}", "d.json"),
        r"k\.json cannot be read as COCO, which was expected \(5\)": lambda: read_coco(coco(categories=[]), "k.json"),
    }
    for text_of_error, read in faults.items():
        with pytest.raises(CohortError, match=text_of_error + r".*; get the file anew\.$"):
            read()


# --- masks ------------------------------------------------------------------------------------------------------------


def draw(path: Path, size: tuple[int, int], *areas: tuple[int, int, int, int, int]) -> Path:
    """A grey image with rectangles: left, top, right, bottom, value."""
    pixels = np.zeros((size[1], size[0]), dtype=np.uint8)
    for left, top, right, bottom, value in areas:
        pixels[top:bottom, left:right] = value
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def plain_field(tmp_path: Path) -> Path:
    return draw(tmp_path / "field.png", (100, 80))


def test_outlines_are_the_touching_areas_of_a_mask_in_reading_order(tmp_path: Path, plain_field: Path) -> None:
    mask = draw(tmp_path / "mask.png", (100, 80), (60, 10, 80, 30, 255), (5, 40, 25, 60, 150), (25, 60, 45, 78, 255))
    assert outlines(mask, plain_field) == [found(60, 10, 80, 30, label=None), found(5, 40, 45, 78, label=None)]


def test_smoothed_edges_and_specks_are_no_part_of_a_cell(tmp_path: Path, plain_field: Path) -> None:
    areas = ((8, 8, 42, 42, 63), (10, 10, 40, 40, 64), (60, 60, 75, 76, 255))
    assert outlines(draw(tmp_path / "mask.png", (100, 80), *areas), plain_field) == [found(10, 10, 40, 40, label=None)]


def test_outlines_of_a_mask_that_was_cut_off_are_shifted(tmp_path: Path, plain_field: Path) -> None:
    mask = draw(tmp_path / "mask.png", (92, 72), (0, 10, 20, 30, 255))
    assert outlines(mask, plain_field, cropped=4) == [found(4, 14, 24, 34, label=None)]


def test_outlines_of_a_mask_as_large_as_its_field_are_not_shifted(tmp_path: Path, plain_field: Path) -> None:
    mask = draw(tmp_path / "mask.png", (100, 80), (0, 10, 20, 30, 255))
    assert outlines(mask, plain_field, cropped=4) == [found(0, 10, 20, 30, label=None)]


def test_mask_of_another_size_is_refused(tmp_path: Path, plain_field: Path) -> None:
    mask = draw(tmp_path / "mask.png", (90, 80))
    with pytest.raises(
        CohortError, match=r"mask\.png has 90x80 pixels, expected 100x80 or 92x72 to fit its field; get"
    ):
        outlines(mask, plain_field, cropped=4)
    with pytest.raises(CohortError, match=r"mask\.png has 90x80 pixels, expected 100x80 to fit its field; get both"):
        outlines(mask, plain_field)


def test_mask_that_is_no_image_is_refused(tmp_path: Path, plain_field: Path) -> None:
    with pytest.raises(CohortError, match=r"^The mask .*m\.png cannot be read, .* get it anew\.$"):
        outlines(write(tmp_path / "m.png", "no image"), plain_field)
