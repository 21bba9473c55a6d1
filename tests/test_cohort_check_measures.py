"""What a check measures of one image, against the formulas, in plain loops."""

import io
import math
import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from check_toys import draw_cell, jpeg
from PIL import Image
from scipy.fft import dctn

from milkit.check.damage import LARGEST_STEP, LEAST_WIDTH, is_jpeg, tear
from milkit.check.fingerprint import NEAR, fingerprint
from milkit.check.measures import FAILED, MEASURED, UNSEEN, CellFile, measure_file

Grey = npt.NDArray[np.uint8]


def measured(folder: Path, image: Image.Image | Grey, **save: object) -> np.void:
    Image.fromarray(np.asarray(image)).save(folder / "image.png", **save)  # type: ignore[arg-type]
    records, reasons = measure_file(folder, CellFile("image.png", [""]))
    assert reasons == {}
    row: np.void = records[0]
    return row


def noise(height: int, width: int, seed: int = 0) -> Grey:
    return np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)


def tear_in_loops(grey: Grey) -> float:
    """The mean over the segments of the worst border of max(0, step - around), as the docstring says it."""
    values, worst = grey.astype(float), 0.0
    height, width = grey.shape
    for row in range(8, height - 1, 8):
        total = 0.0
        for segment in range(width // 8):
            means = values[:, 8 * segment : 8 * segment + 8].mean(axis=1)

            def step(y: int, means: npt.NDArray[np.float64] = means) -> float:
                y = min(y, height - 2)
                return abs(float(means[y + 1] - means[y]))

            around = max(step(row - 2), step(row)) + max(step(row - 3), step(row + 1))
            total += min(max(step(row - 1) - around, 0.0), LARGEST_STEP)
        worst = max(worst, total / (width // 8))
    return worst


@pytest.mark.parametrize("shape", [(128, 128), (130, 117), (17, 240), (18, 112)])
def test_tear_is_the_mean_step_across_the_worst_border(shape: tuple[int, int]) -> None:
    grey = noise(*shape, seed=shape[0])
    assert tear(grey)[0] == pytest.approx(tear_in_loops(grey), rel=1e-5)


def test_tear_names_the_row_where_the_picture_breaks_off() -> None:
    grey = np.asarray(draw_cell(3).convert("L")).copy()
    grey[72:] = np.roll(grey[72:], 50, axis=1) // 2
    assert tear(grey)[1] == 72


@pytest.mark.parametrize(("above", "below"), [(210, 210), (210, None), (255, None), (None, 255), (None, 0)])
def test_padding_is_no_tear(above: int | None, below: int | None) -> None:
    cell = np.asarray(draw_cell(3).convert("L"))
    bands = [np.full((24, 128), level, np.uint8) for level in (above, below) if level is not None]
    grey = np.concatenate([*(bands[:1] if above is not None else []), cell, *(bands[-1:] if below is not None else [])])
    assert tear(grey)[0] < 2


def test_one_grey_from_a_row_on_is_the_end_of_a_file_that_was_cut_off() -> None:
    grey = np.asarray(draw_cell(3).convert("L")).copy()
    grey[80:] = 128
    assert tear(grey)[0] > 30


def test_a_line_is_less_of_a_tear_than_a_step() -> None:
    grey = np.tile(np.linspace(150, 240, 128), (128, 1)).astype(np.uint8)
    lined, stepped = grey.copy(), grey.copy()
    lined[64] = 20
    stepped[64:] -= 100
    assert tear(lined)[0] < 2
    assert tear(stepped)[0] == pytest.approx(LARGEST_STEP, abs=1)


@pytest.mark.parametrize("shape", [(128, LEAST_WIDTH - 1), (9, 128), (1, 128)])
def test_small_images_are_not_judged(shape: tuple[int, int]) -> None:
    assert tear(noise(*shape)) == (0.0, 0)


def test_only_jpegs_are_looked_at_for_tears() -> None:
    assert is_jpeg(jpeg(draw_cell(0)))
    content = io.BytesIO()
    draw_cell(0).save(content, "PNG")
    assert not is_jpeg(content.getvalue())


def test_sharpness_is_the_variance_of_the_laplacian_over_that_of_the_image(tmp_path: Path) -> None:
    grey = noise(40, 50)
    values, steps = grey.astype(float), []
    for y in range(1, 39):
        for x in range(1, 49):
            around = values[y - 1, x] + values[y + 1, x] + values[y, x - 1] + values[y, x + 1]
            steps.append(around - 4 * values[y, x])
    expected = math.log(np.var(steps) / values.var())
    assert measured(tmp_path, grey)["sharpness"] == pytest.approx(expected, rel=1e-4)


def test_sharpness_does_not_depend_on_contrast_or_on_the_sampling(tmp_path: Path) -> None:
    cell = draw_cell(5)
    sharp = measured(tmp_path, cell)["sharpness"]
    pale = cell.point(lambda value: 100 + value // 2)
    assert measured(tmp_path, pale)["sharpness"] == pytest.approx(sharp, abs=0.1)
    large = cell.resize((512, 512), Image.Resampling.NEAREST)
    assert measured(tmp_path, large)["sharpness"] == pytest.approx(sharp, abs=0.01)


@pytest.mark.parametrize("image", [np.full((2, 2), 7, np.uint8), np.full((9, 9), 7, np.uint8)])
def test_sharpness_of_nothing_is_unknown(tmp_path: Path, image: Grey) -> None:
    assert math.isnan(measured(tmp_path, image)["sharpness"])


def test_contrast_leaves_out_half_a_per_cent_at_either_end(tmp_path: Path) -> None:
    grey = np.full((100, 100), 120, np.uint8)
    grey[:49] = 100
    grey[0, :49], grey[99, :49] = 0, 255
    assert measured(tmp_path, grey)["contrast"] == 20
    grey[0, :51] = 0
    assert measured(tmp_path, grey)["contrast"] == 120


def test_white_and_black_are_shares_of_pixels_with_all_channels_at_the_end(tmp_path: Path) -> None:
    image = np.full((10, 10, 3), 128, np.uint8)
    image[0] = (254, 255, 254)
    image[1] = (255, 255, 100)
    image[2:4] = (1, 0, 1)
    row = measured(tmp_path, image)
    assert (row["white"], row["black"]) == (pytest.approx(0.1), pytest.approx(0.2))
    assert row["brightest"] == 255


def test_one_colour_is_constant_and_two_are_not(tmp_path: Path) -> None:
    image = np.full((10, 10, 3), (230, 220, 225), np.uint8)
    assert measured(tmp_path, image)["constant"]
    image[5, 5, 1] = 221
    assert not measured(tmp_path, image)["constant"]


def test_fingerprint_is_the_low_terms_of_the_cosine_transform_above_their_median() -> None:
    grey = draw_cell(8).convert("L")
    small = np.asarray(grey.resize((32, 32), Image.Resampling.LANCZOS), float)
    terms = dctn(small, type=2)[:16, :16]
    expected = np.packbits((terms > np.median(terms.ravel()[1:])).ravel())
    different = np.bitwise_count(fingerprint(grey) ^ expected).sum()
    assert different <= 2, "terms next to the median may fall to either side by rounding"


def test_copies_are_near_and_other_cells_are_far() -> None:
    prints = {
        "cell": draw_cell(1),
        "smaller": draw_cell(1).resize((90, 90)),
        "brighter": draw_cell(1).point(lambda value: min(255, round(value * 1.1))),
        "encoded": Image.open(io.BytesIO(jpeg(draw_cell(1), quality=40))),
        "other": draw_cell(2),
    }
    bits = {name: fingerprint(image.convert("L")) for name, image in prints.items()}
    apart = {name: int(np.bitwise_count(bits["cell"] ^ bits[name]).sum()) for name in bits}
    assert max(apart[name] for name in ("smaller", "brighter", "encoded")) < NEAR / 2
    assert apart["other"] > NEAR


def test_cells_of_a_field_are_measured_one_by_one_and_a_wrong_box_fails_alone(tmp_path: Path) -> None:
    field = np.concatenate([np.full((20, 20), level, np.uint8) for level in (50, 200)], axis=1)
    Image.fromarray(field).save(tmp_path / "field.png")
    boxes = ["0 0 20 20", "nonsense", "20 0 20 20", "10 0 20 10"]
    records, reasons = measure_file(tmp_path, CellFile("field.png", boxes))
    assert records["state"].tolist() == [MEASURED, FAILED, MEASURED, MEASURED]
    assert records["brightness"][[0, 2, 3]].tolist() == [50, 200, 125]
    assert records[["width", "height"]][3].tolist() == (20, 10)
    assert list(reasons) == [1]
    assert "the box 'nonsense' is not" in reasons[1]


def test_a_file_of_known_size_and_time_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "cell.png").write_bytes(b"no image, which nobody sees")
    status = (tmp_path / "cell.png").stat()
    records, reasons = measure_file(
        tmp_path, CellFile("cell.png", [""], status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    )
    assert (records["state"].tolist(), reasons) == ([UNSEEN], {})
    _, reasons = measure_file(
        tmp_path, CellFile("cell.png", [""], status.st_size, status.st_mtime_ns + 1, status.st_ctime_ns)
    )
    assert reasons == {0: "the file is not an image"}


def test_a_cell_in_an_archive_is_known_by_the_archive_s_size_and_time(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "cells.zip", "w") as archive:
        archive.writestr("P1/cell.jpg", jpeg(draw_cell(0)))
    records, _ = measure_file(tmp_path, CellFile("cells.zip::P1/cell.jpg", [""]))
    assert records["state"].tolist() == [MEASURED]
    assert records["file_size"].tolist() == [(tmp_path / "cells.zip").stat().st_size]
