"""Images: every mode becomes 8-bit RGB with the right values, and what cannot be read says why."""

import base64
import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from milkit import images
from milkit.errors import ImageError
from milkit.images import Box, RgbImage, cut, data_uri, parse_box, read_bytes, read_cell, read_image


@pytest.fixture
def noise() -> RgbImage:
    return np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(uri: str) -> Image.Image:
    head, _, body = uri.partition(",")
    assert head == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(body)))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_rgb_is_read_as_it_is(noise: RgbImage, kind: str) -> None:
    found = read_image(io.BytesIO(encoded(Image.fromarray(noise), kind)))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, noise)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
def test_compressed_tiff_is_read_as_it_is(noise: RgbImage, compression: str) -> None:
    content = encoded(Image.fromarray(noise), "TIFF", compression=compression)
    np.testing.assert_array_equal(read_image(io.BytesIO(content)), noise)


def test_file_is_read_like_its_bytes(noise: RgbImage, tmp_path: Path) -> None:
    (tmp_path / "cell.TIF").write_bytes(encoded(Image.fromarray(noise), "TIFF"))
    np.testing.assert_array_equal(read_image(tmp_path / "cell.TIF"), noise)


def test_alpha_is_dropped(noise: RgbImage) -> None:
    alpha = np.random.default_rng(1).integers(0, 256, (9, 14, 1), dtype=np.uint8)
    content = encoded(Image.fromarray(np.concatenate([noise, alpha], axis=2)), "PNG")
    np.testing.assert_array_equal(read_image(io.BytesIO(content)), noise)


def test_palette_is_expanded() -> None:
    colours = np.array([(10, 20, 30), (200, 100, 50)], np.uint8)
    indices = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    picture = Image.fromarray(indices, "L").convert("P")
    picture.putpalette(colours.ravel().tolist())
    np.testing.assert_array_equal(read_image(io.BytesIO(encoded(picture, "PNG"))), colours[indices])


def test_grey_is_repeated(noise: RgbImage) -> None:
    grey = noise[:, :, 0].copy()
    found = read_image(io.BytesIO(encoded(Image.fromarray(grey), "PNG")))
    np.testing.assert_array_equal(found, np.repeat(grey[:, :, None], 3, axis=2))


def test_one_bit_is_black_and_white() -> None:
    bits = np.array([[True, False, True]])
    found = read_image(io.BytesIO(encoded(Image.fromarray(bits), "PNG")))
    assert found[0, :, 0].tolist() == [255, 0, 255]
    assert found.shape == (1, 3, 3)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_16_bits_is_scaled_by_its_full_range(kind: str) -> None:
    levels = np.array([[0, 257, 32896, 65535]], np.uint16)
    found = read_image(io.BytesIO(encoded(Image.fromarray(levels), kind)))
    assert found.dtype == np.uint8
    assert found.shape == (1, 4, 3)
    assert found[0, :, 2].tolist() == [0, 1, 128, 255]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize(("kind", "options"), [("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PNG", {})])
def test_truncated_image_says_so(noise: RgbImage, kind: str, options: dict[str, object]) -> None:
    content = encoded(Image.fromarray(np.tile(noise, (9, 9, 1))), kind, **options)
    with pytest.raises(ImageError, match=r"^the (image cannot be decoded|file is not an image)"):
        read_image(io.BytesIO(content[: len(content) // 2]))


def test_text_is_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "cell.tif").write_text("patient_id,label\n")
    with pytest.raises(ImageError, match=r"^the file is not an image$"):
        read_image(tmp_path / "cell.tif")


def test_empty_file_is_not_an_image(tmp_path: Path) -> None:
    (tmp_path / "cell.tif").touch()
    with pytest.raises(ImageError, match=r"^the file is not an image$"):
        read_image(tmp_path / "cell.tif")


def test_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"^the file is missing$"):
        read_image(tmp_path / "cell.tif")


def test_folder_is_not_decoded(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"^the image cannot be decoded"):
        read_image(tmp_path)


def test_whole_field_is_refused_before_it_is_decoded(noise: RgbImage, monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(Image.fromarray(noise), "PNG")
    monkeypatch.setattr(images, "MAX_PIXELS", 9 * 14)
    assert read_image(io.BytesIO(content)).shape == (9, 14, 3)
    monkeypatch.setattr(images, "MAX_PIXELS", 9 * 14 - 1)
    monkeypatch.setattr(images, "_to_rgb", None)
    with pytest.raises(ImageError, match=r"^14x9 pixels is a whole field, not a cell$"):
        read_image(io.BytesIO(content))


def test_decompression_bomb_is_refused(noise: RgbImage, monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(Image.fromarray(noise), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ImageError, match=r"^the image cannot be decoded .*decompression bomb"):
        read_image(io.BytesIO(content))


def test_data_uri_holds_the_very_pixels(noise: RgbImage) -> None:
    np.testing.assert_array_equal(np.asarray(decoded(data_uri(noise)).convert("RGB")), noise)


@pytest.mark.parametrize(("limit", "longest"), [(7, 7), (14, 14), (100, 14)])
def test_reduced_data_uri_keeps_to_its_longest_side(noise: RgbImage, limit: int, longest: int) -> None:
    assert max(decoded(data_uri(noise, reduce_to=limit)).size) == longest


def test_floating_point_images_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="floating-point values of unknown range"):
        read_image(tmp_path / "a.tif")


def _field(height: int = 40, width: int = 60) -> np.ndarray:
    """Every pixel tells its place: red is the row, green the column."""
    field = np.zeros((height, width, 3), dtype=np.uint8)
    field[..., 0], field[..., 1] = np.arange(height)[:, None], np.arange(width)
    return field


def test_a_box_cuts_its_part_out_of_a_field() -> None:
    np.testing.assert_array_equal(cut(_field(), Box(10, 5, 20, 8)), _field()[5:13, 10:30])


@pytest.mark.parametrize(
    ("box", "top", "left"), [(Box(-7, -3, 20, 20), 0, 0), (Box(50, 35, 20, 20), 20, 40)], ids=["before", "beyond"]
)
def test_a_box_over_the_border_is_shifted_inside(box: Box, top: int, left: int) -> None:
    np.testing.assert_array_equal(cut(_field(), box), _field()[top : top + 20, left : left + 20])


def test_a_box_larger_than_its_field_repeats_the_edges_and_is_never_black() -> None:
    part = cut(_field() + 100, Box(-10, 0, 80, 50))
    assert part.shape == (50, 80, 3)
    assert part[..., :2].min() >= 100
    np.testing.assert_array_equal(part[5:45, 10:70], _field() + 100)


def test_a_box_is_read_back_as_it_was_written() -> None:
    assert parse_box(str(Box(-3, 4, 50, 60))) == Box(-3, 4, 50, 60)


@pytest.mark.parametrize("text", ["1 2 3", "1 2 3 4 5", "a b c d", "1 2 0 5", "1.5 2 3 4"])
def test_a_box_that_is_none_is_an_image_error(text: str) -> None:
    with pytest.raises(ImageError, match=r"is not `left top width height` in whole pixels"):
        parse_box(text)


def test_a_cell_is_its_whole_image_or_its_box(tmp_path: Path) -> None:
    Image.fromarray(_field()).save(tmp_path / "field.png")
    content = read_bytes(tmp_path, "field.png")
    np.testing.assert_array_equal(read_cell(content), _field())
    np.testing.assert_array_equal(read_cell(content, "3 4 10 12"), _field()[4:16, 3:13])


def test_a_file_that_is_not_there_has_a_reason(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"the file cannot be opened \(No such file or directory\)"):
        read_bytes(tmp_path, "nothing.png")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "BMP", "WEBP"])
def test_damaged_bytes_give_an_image_or_a_reason_and_nothing_else(noise: RgbImage, kind: str) -> None:
    content, rng = encoded(Image.fromarray(np.tile(noise, (5, 5, 1))), kind), np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(content)
        for place in rng.integers(0, len(damaged), 3):
            damaged[place] ^= int(rng.integers(1, 256))
        with contextlib.suppress(ImageError):
            assert read_image(io.BytesIO(bytes(damaged))).dtype == np.uint8


def test_a_file_too_large_for_a_cell_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "slide.tif").open("wb") as file:
        file.truncate(300 * 2**20)
    with pytest.raises(ImageError, match="315 MB is no image of a cell"):
        read_bytes(tmp_path, "slide.tif")


def test_whole_numbers_beyond_16_bits_are_refused(tmp_path: Path) -> None:
    levels = Image.fromarray(np.full((4, 4), 70_000, dtype=np.int32))
    with pytest.raises(ImageError, match="whole numbers beyond 16 bits"):
        read_image(io.BytesIO(encoded(levels, "TIFF")))
