"""Fakes of the data sets of fields with boxes, masks or points; an object is a disc of its own colour in its field."""

import io
import json
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cohort_fakes import FOLDER_OF_THE_FINDER, Fake, LayOut, write
from PIL import Image, ImageDraw

Disc = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""

GROUND = 230
COLOURS = ((150, 30, 120), (30, 90, 160), (200, 80, 80), (40, 140, 60))
"""Of the first, second, … object of a field."""


def field(kind: str, size: tuple[int, int], discs: Iterable[Disc], mode: str = "RGB") -> bytes:
    """A bright field of this Pillow format with a disc for each object."""
    image = Image.new("RGB", size, (GROUND, GROUND, GROUND))
    for number, disc in enumerate(discs):
        ImageDraw.Draw(image).ellipse(disc, fill=COLOURS[number % len(COLOURS)])
    content = io.BytesIO()
    image.convert(mode).save(content, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return content.getvalue()


def mask(kind: str, size: tuple[int, int], cells: Iterable[Disc], specks: Iterable[Disc] = ()) -> bytes:
    """A mask with a nucleus (255) in the cytoplasm (150) of each cell, around it a smoothed edge (40), and specks."""
    image = Image.new("L", size, 0)
    draw = ImageDraw.Draw(image)
    for left, top, right, bottom in cells:
        draw.rectangle((left - 3, top - 3, right + 2, bottom + 2), fill=40)
        draw.rectangle((left, top, right - 1, bottom - 1), fill=150)
        draw.rectangle((left + 10, top + 10, right - 11, bottom - 11), fill=255)
    for speck in specks:
        draw.rectangle(speck, fill=255)
    content = io.BytesIO()
    image.save(content, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return content.getvalue()


# --- boxes ------------------------------------------------------------------------------------------------------------

BCCD: dict[str, list[tuple[str, Disc]]] = {
    "BloodImage_00000": [("WBC", (260, 177, 491, 376)), ("RBC", (78, 336, 184, 435)), ("Platelets", (10, 10, 46, 50))],
    "BloodImage_00002": [("WBC", (0, 200, 150, 380)), ("WBC", (400, 280, 560, 480))],
    "BloodImage_00010": [("RBC", (504, 337, 504, 337)), ("RBC", (300, 300, 400, 400))],
    "BloodImage_00113": [("WBC", (257, 430, 288, 457)), ("WBC", (60, 60, 260, 240))],
}
"""Two white cells in a field, one at each of two borders; a red cell without area; a white cell that is too small."""


def lay_out_bccd(root: Path) -> Fake:
    """VOC and the table of the same boxes, lists of splits, subtypes by field, litter, gaps in the numbers."""
    rows = ["filename,cell_type,xmin,xmax,ymin,ymax"]
    for name, objects in BCCD.items():
        picture = field("JPEG", (640, 480), [disc for _, disc in objects])
        write(root, [f"BCCD/JPEGImages/{name}.jpg"], picture)
        write(root, [f"BCCD/Annotations/{name}.xml"], voc(name, objects))
        rows += [f"{name}.jpg,{label},{left},{right},{top},{bottom}" for label, (left, top, right, bottom) in objects]
    write(root, ["test.csv"], "\n".join(rows).encode())
    write(root, ["BCCD/ImageSets/Main/train.txt"], b"BloodImage_00000\nBloodImage_00002\nBloodImage_00010\n")
    write(root, ["BCCD/ImageSets/Main/test.txt"], b"BloodImage_00113\n")
    kinds = ["0,NEUTROPHIL", '2,"NEUTROPHIL, EOSINOPHIL"', "3,", "10,EOSINOPHIL", '113,"MONOCYTE,MONOCYTE"']
    write(root, ["labels.csv"], "\r\n".join([",Image,Category", *(f",{kind}" for kind in kinds)]).encode())
    write(root, ["BCCD/JPEGImages/.DS_Store", "BCCD/Annotations/.DS_169665.xml"], FOLDER_OF_THE_FINDER)
    write(root, ["BCCD/JPEGImages/.ipynb_checkpoints/BloodImage_00000-checkpoint.jpg"], b"stale")
    return Fake(root, {}, 4, {"WBC": 4}, 0)


def voc(name: str, objects: Sequence[tuple[str, Disc]]) -> bytes:
    """An annotation as labelImg writes it, with the path of the annotator's machine."""
    parts = [
        f"<object><name>{label}</name><truncated>0</truncated><bndbox><xmin>{left}</xmin><ymin>{top}</ymin>"
        f"<xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>"
        for label, (left, top, right, bottom) in objects
    ]
    path = f"<filename>other.jpg</filename><path>/home/pi/detection_dataset/JPEGImages/{name}.jpg</path>"
    return f"<annotation>{path}<segmented>0</segmented>{''.join(parts)}</annotation>".encode()


ASLAN: dict[int, list[tuple[str, Disc]]] = {
    1: [("wbc", (85.61, 2.33, 187.74, 120.07)), ("rbc", (0.0, 0.0, 53.69, 35.36))],
    2: [
        ("rbc", (10.5, 10.25, 70.75, 80.5)),
        ("wbc", (100.25, 100.5, 190.0, 200.75)),
        ("wbc", (200.5, 20.0, 256.0, 90.5)),
    ],
    10: [("rbc", (120.0, 120.0, 180.5, 175.25))],
}


def lay_out_aslan(root: Path) -> Fake:
    """RGBA fields, fractions and KITTI pixels that agree but for one red cell, and stale copies of both."""
    rows = ["image_id,image,xmin,ymin,xmax,ymax,label"]
    for number, objects in ASLAN.items():
        write(root, [f"images/image-{number}.png"], field("PNG", (256, 256), [disc for _, disc in objects], "RGBA"))
        rows += [
            f"{number},image-{number}.png,{','.join(repr(side / 256) for side in disc)},{label}"
            for label, disc in objects
        ]
        doubled = [("rbc", objects[0][1])] if number == 1 else []
        write(root, [f"labels/image-{number}.txt"], kitti([*objects, *doubled]))
    write(root, ["annotations.csv"], "\n".join(rows).encode())
    write(root, ["labels/.ipynb_checkpoints/image-1-checkpoint.txt"], kitti([("wbc", (1.0, 1.0, 99.0, 99.0))]))
    write(root, ["images/.ipynb_checkpoints/image-1-checkpoint.png", "tfrecords/train.record"], b"stale")
    return Fake(root, {}, 3, {"wbc": 3}, 0)


def kitti(objects: Sequence[tuple[str, Disc]]) -> bytes:
    """A line an object in KITTI's 15 columns."""
    lines = [f"{label} 0.00 0 0 {' '.join(map(repr, disc))} 0 0 0 0 0 0 0" for label, disc in objects]
    return ("\n".join(lines) + "\n").encode()


LEUKEMIA: dict[str, list[tuple[str, Disc]]] = {
    "train/4_15_1000_ALL": [("lymphoblast", (100.5, 200.0, 160.5, 300.0)), ("none", (400.0, 20.0, 450.0, 90.0))],
    "train/4_2_1000_ALL": [("lymphoblast", (300.0, 300.0, 380.0, 420.0)), ("neutrophil", (10.0, 10.0, 10.0, 60.0))],
    "test/23_40_1000_APML": [("abnormal promyelocyte", (560.0, 540.0, 640.0, 640.0))],
    "test/9_1_1000": [("lymphocyte", (200.0, 200.0, 260.0, 290.0))],
}
"""A box without area, a cell in a corner, and a patient whose diagnosis no name gives."""


def lay_out_leukemia_attri(root: Path) -> Fake:
    """Two domains one folder deeper; COCO under two names, once zipped, with repeated images and boxes; YOLO."""
    home = root / "LeukemiaAttr"
    for name, objects in LEUKEMIA.items():
        picture = field("PNG", (640, 640), [disc for _, disc in objects])
        write(home, [f"H_100X_C1/Images/{name}.png", f"L_100X_C2/images/{name}.png"], picture)
        write(home, [f"H_100X_C1/labels/{name}.txt"], yolo(objects, 640))
    write(home, ["H_100X_C1/Images/train/.DS_Store"], FOLDER_OF_THE_FINDER)
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        for split in ("train", "test"):
            content = json.dumps(coco({name: found for name, found in LEUKEMIA.items() if name.startswith(split)}))
            write(home, [f"H_100X_C1/WBC_detection/{split}.json"], content.encode())
            archive.writestr(f"labels/json_labels/{split}.json", content)
    write(home, ["L_100X_C2/labels.zip"], zipped.getvalue())
    return Fake(root, {}, 4, {"lymphoblast": 2, "none": 1, "abnormal promyelocyte": 1}, 2)


def coco(fields: dict[str, list[tuple[str, Disc]]]) -> dict[str, Any]:
    """A COCO document that lists an image anew for each of its boxes, and repeats the very first box."""
    labels = sorted({label for objects in LEUKEMIA.values() for label, _ in objects})
    boxes = [(Path(name).name, label, disc) for name, objects in fields.items() for label, disc in objects]
    boxes.append(boxes[0])
    return {
        "images": [{"id": n, "file_name": f"{name}.png", "width": 640} for n, (name, _, _) in enumerate(boxes)],
        "categories": [{"id": number, "name": label} for number, label in enumerate(labels)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": labels.index(label), "cell_size": 4, "bbox": corner_and_size(disc)}
            for n, (_, label, disc) in enumerate(boxes)
        ],
    }


def corner_and_size(disc: Disc) -> list[float]:
    """Left, top, width, height."""
    return [disc[0], disc[1], disc[2] - disc[0], disc[3] - disc[1]]


def yolo(objects: Sequence[tuple[str, Disc]], side: int) -> bytes:
    """A line an object: class, centre, width and height as fractions, and attributes."""
    lines = []
    for _, (left, top, right, bottom) in objects:
        sides = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
        lines.append(f"3 {' '.join(repr(value / side) for value in sides)} 0 1 0 1 0 1")
    return "\n".join(lines).encode()


# --- masks and points -------------------------------------------------------------------------------------------------

LISC: dict[str, list[Disc]] = {
    "Baso/7": [(100, 100, 180, 190), (400, 300, 470, 380)],
    "eosi/1": [(4, 200, 90, 290)],
    "lymp/9": [(300, 200, 350, 250)],
    "lymp/10": [(500, 400, 716, 572)],
    "mixt/1": [(100, 100, 180, 190), (300, 120, 390, 200)],
    "mono/1": [(200, 200, 300, 300)],
}
"""Fields with two cells, numbers that are not padded, and cells at the border of the mask."""


def lay_out_lisc(root: Path) -> Fake:
    """Masks 4 pixels smaller on each side, with grey cytoplasm, a smoothed edge and a speck; a field without a mask."""
    home = root / "LISC Database"
    for name, cells in LISC.items():
        write(home, [f"Main Dataset/{name}.bmp"], field("BMP", (720, 576), cells))
        shifted = [(left - 4, top - 4, right - 4, bottom - 4) for left, top, right, bottom in cells]
        kind, _, number = name.partition("/")
        path = f"Ground Truth Segmentation/{kind}/areaforexpert1/{number}_expert.bmp"
        write(home, [path], mask("BMP", (712, 568), shifted, specks=[(600, 20, 604, 24)]))
    write(home, ["Main Dataset/neut/2.bmp"], field("BMP", (720, 576), []))
    write(home, ["More Dataset without Ground Truth/alll/1.bmp"], field("BMP", (720, 576), []))
    write(home, ["Main Dataset/Baso/Thumbs.db"], FOLDER_OF_THE_FINDER)
    return Fake(root, {}, 8, {"Baso": 2, "eosi": 1, "lymp": 2, "mono": 1}, 0)


KRD_WBC: dict[int, list[Disc]] = {1: [(150, 150, 300, 330)], 2: [(0, 0, 140, 120), (300, 300, 420, 400)], 10: []}


def lay_out_krd_wbc(root: Path) -> Fake:
    """JPEG masks, so with values in between; a mask of nothing, an image without a mask, and the misspelt column."""
    home = root / "KRD-WBC dataset"
    for number, cells in KRD_WBC.items():
        write(home, [f"Dataset/image/image{number}.jpg"], field("JPEG", (512, 512), cells))
        write(home, [f"Dataset/mask/mask{number}.jpg"], mask("JPEG", (512, 512), cells))
    write(home, ["Dataset/image/image11.jpg"], field("JPEG", (512, 512), []))
    write(home, ["class labels.csv"], b"Image,Categoriy\nimage01.jpg,Monocytes\n2,Neutrophils\n10,Basophils\n")
    return Fake(root, {}, 3, {"Monocytes": 1, "Neutrophils": 2}, 0)


CHULA: dict[int, list[tuple[int, int, int]]] = {
    1: [(594, 95, 0), (3, 275, 6), (320, 240, 0)],
    10: [],
    577: [(100, 100, 12)],
    623: [(100, 100, 12)],
}
"""Points of a field: x, y, type. One lies at the border, one field has an empty file, two are the same."""


def lay_out_chula(root: Path) -> Fake:
    """Point labels, an image without any, fields by disease that are not read, and a file of the Finder."""
    for number, points in CHULA.items():
        discs = [(x - 30, y - 30, x + 30, y + 30) for x, y, _ in points]
        write(root, [f"Dataset/{number}.jpg"], field("JPEG", (640, 480), discs))
        write(root, [f"Label/{number}.txt"], "".join(f"{x} {y} {kind}\n" for x, y, kind in points).encode())
    write(root, ["Dataset/2.jpg", "RBC Diseases/HE/1.JPG"], field("JPEG", (640, 480), []))
    write(root, ["RBC Diseases/.DS_Store", "Label/.DS_1.txt"], FOLDER_OF_THE_FINDER)
    return Fake(root, {}, 5, {"Normal cell": 2, "Ovalocyte": 1, "Elliptocyte": 2}, 0)


FAKES: dict[str, LayOut] = {
    "aslan": lay_out_aslan,
    "bccd": lay_out_bccd,
    "chula": lay_out_chula,
    "krd_wbc": lay_out_krd_wbc,
    "leukemia_attri": lay_out_leukemia_attri,
    "lisc": lay_out_lisc,
}
