"""Decoding: every file becomes the right pixels or a reason, in order, and never more at once than asked for."""

import hashlib
import io
import itertools
import re
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from extract_toys import Jobs, wait_for, write_study
from PIL import Image
from torch import nn

from milkit.bags import BagStore
from milkit.cohort import Cohort
from milkit.decode import DecodedCell, decode, decode_one
from milkit.encoder import Encoder, Transform
from milkit.extract import extract
from milkit.images import Place, RgbImage
from milkit.runs import Workspace
from milkit.settings import CohortRecipe, ExtractSettings

SIZE = 12
AS_IT_IS = Transform(size=SIZE)
"""For images of this size, which are then not resized."""

NOISE: RgbImage = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 4), dtype=np.uint8)
RGB, GREY = NOISE[:, :, :3], NOISE[:, :, 0]
LEVELS = np.random.default_rng(1).integers(0, 65536, (SIZE, SIZE), dtype=np.uint16)
PALETTE = np.random.default_rng(2).integers(0, 256, (256, 3), dtype=np.uint8)


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _with_palette() -> Image.Image:
    image = Image.fromarray(GREY, "L").convert("P")
    image.putpalette(PALETTE.ravel().tolist())
    return image


def _grey(values: RgbImage) -> RgbImage:
    return np.repeat(values[:, :, None], 3, axis=2)


def _bomb() -> bytes:
    """A PNG whose header says 60,000 × 60,000 pixels, in 100 bytes."""

    def part(name: bytes, content: bytes) -> bytes:
        return len(content).to_bytes(4, "big") + name + content + zlib.crc32(name + content).to_bytes(4, "big")

    header = (60_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(b"\0" * 64)) + part(b"IEND", b"")


def _cmyk_as_rgb() -> RgbImage:
    """255 (1 - c) (1 - k), c and k in [0, 1]."""
    ink = 1 - NOISE.astype(np.float64) / 255
    return (255 * ink[:, :, :3] * ink[:, :, 3:]).round().astype(np.uint8)


READABLE: dict[str, tuple[bytes, RgbImage]] = {
    "RGB": (_encoded(Image.fromarray(RGB), "TIFF"), RGB),
    "RGBA": (_encoded(Image.fromarray(NOISE), "PNG"), RGB),
    "P": (_encoded(_with_palette(), "PNG"), PALETTE[GREY]),
    "L": (_encoded(Image.fromarray(GREY), "PNG"), _grey(GREY)),
    "LA": (_encoded(Image.fromarray(NOISE[:, :, :2]), "PNG"), _grey(GREY)),
    "1": (_encoded(Image.fromarray(GREY > 127), "PNG"), _grey((GREY > 127).astype(np.uint8) * 255)),
    "16-bit PNG": (_encoded(Image.fromarray(LEVELS), "PNG"), _grey((LEVELS / 257).astype(np.uint8))),
    "16-bit TIFF": (_encoded(Image.fromarray(LEVELS), "TIFF"), _grey((LEVELS / 257).astype(np.uint8))),
    "CMYK": (_encoded(Image.frombytes("CMYK", (SIZE, SIZE), NOISE.tobytes()), "TIFF"), _cmyk_as_rgb()),
}


@pytest.mark.parametrize("mode", READABLE)
def test_every_mode_of_image_is_converted_rightly(mode: str, tmp_path: Path) -> None:
    content, expected = READABLE[mode]
    (tmp_path / "cell").write_bytes(content)
    cell = decode_one(Place(tmp_path, "cell"), AS_IT_IS)
    assert cell.reason == ""
    assert cell.square is not None
    assert cell.square.dtype == np.uint8
    np.testing.assert_allclose(cell.square.astype(int), expected, atol=1 if mode == "CMYK" else 0)


LARGE = Image.fromarray(np.random.default_rng(3).integers(0, 256, (60, 60, 3), dtype=np.uint8))
WHOLE = {
    "TIFF": _encoded(LARGE, "TIFF"),
    "TIFF with LZW": _encoded(LARGE, "TIFF", compression="tiff_lzw"),
    "PNG": _encoded(LARGE, "PNG"),
    "JPEG": _encoded(LARGE, "JPEG"),
    "WebP": _encoded(LARGE, "WEBP"),
    "BMP": _encoded(LARGE, "BMP"),
}
_CUT = "^the image cannot be decoded|^the file is not an image$"
BROKEN: dict[str, tuple[bytes, str]] = {
    **{
        f"half a {kind}": (content[: len(content) // 2], "cannot be decoded|not an image")
        for kind, content in WHOLE.items()
    },
    **{f"a {kind}'s first bytes": (content[:20], "cannot be decoded|not an image") for kind, content in WHOLE.items()},
    "a text": (b"patient_id,label\n", "^the file is not an image$"),
    "an empty file": (b"", "^the file is not an image$"),
    "a decompression bomb": (_bomb(), "^60000x60000 pixels is a whole field, not a cell$|decompression bomb"),
    "a strip": (_encoded(Image.new("RGB", (2000, 1)), "PNG"), "^2000x1 pixels is a strip, not a cell$"),
    "floating-point values": (_encoded(Image.fromarray(GREY / np.float32(255)), "TIFF"), "floating-point values"),
    "a web page": (b"<!doctype html><title>404</title>", "^the file is not an image$"),
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_decoded_has_a_reason_and_the_digest_of_its_file(kind: str, tmp_path: Path) -> None:
    content, reason = BROKEN[kind]
    (tmp_path / "cell").write_bytes(content)
    cell = decode_one(Place(tmp_path, "cell"), AS_IT_IS)
    assert cell.square is None
    assert re.search(reason, cell.reason), cell.reason
    assert cell.sha256 == hashlib.sha256(content).digest()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", WHOLE)
def test_a_file_cut_anywhere_gives_its_true_pixels_or_a_reason(kind: str, tmp_path: Path) -> None:
    content, transform = WHOLE[kind], Transform(size=60)
    (tmp_path / "whole").write_bytes(content)
    true = decode_one(Place(tmp_path, "whole"), transform).square
    assert true is not None
    refused = 0
    for length in range(1, len(content), 97):
        (tmp_path / "cut").write_bytes(content[:length])
        cell = decode_one(Place(tmp_path, "cut"), transform)
        refused += cell.square is None
        assert bool(cell.reason) == (cell.square is None)
        assert cell.square is None or np.array_equal(cell.square, true), length
    assert refused > 20


def _missing(path: Path) -> None:
    """Nothing is there."""


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_missing, "No such file or directory"),
        (Path.mkdir, "it is no regular file"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    ],
    ids=["missing", "a folder", "a link to itself"],
)
def test_what_cannot_be_opened_has_a_reason_and_no_digest(
    make: Callable[[Path], None], reason: str, tmp_path: Path
) -> None:
    make(tmp_path / "cell.png")
    cell = decode_one(Place(tmp_path, "cell.png"), AS_IT_IS)
    assert cell == DecodedCell(None, bytes(32), f"the file cannot be opened ({reason})")


def test_a_strip_is_refused_before_a_transform_makes_gigabytes_of_it(tmp_path: Path) -> None:
    """Scaling the shorter side to 256 pixels would make 256 × 4,096,000 pixels of it."""
    Image.new("RGB", (1, 16_000)).save(tmp_path / "cell.png")
    started = time.monotonic()
    assert "strip" in decode_one(Place(tmp_path, "cell.png"), Transform(crop=0.875, crop_mode="center")).reason
    assert time.monotonic() - started < 1


def test_a_long_cell_is_no_strip(tmp_path: Path) -> None:
    Image.new("RGB", (64, 10)).save(tmp_path / "cell.png")
    square = decode_one(Place(tmp_path, "cell.png"), Transform(crop=0.875, crop_mode="center")).square
    assert square is not None
    assert square.shape == (224, 224, 3)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_bad_files_of_every_kind_are_listed_by_extract_and_no_cell_is_lost(tmp_path: Path) -> None:
    root, kinds = tmp_path / "images", list(BROKEN)
    root.mkdir()
    for number, (content, _) in enumerate([*BROKEN.values(), *READABLE.values()]):
        (root / f"{number}.img").write_bytes(content)
    (root / "folder.img").mkdir()
    names = [f"{number}.img" for number in range(len(BROKEN) + len(READABLE))] + ["folder.img", "missing.img"]
    cells = pd.DataFrame({"cell_id": [f"{n:03d}" for n in range(len(names))], "patient_id": "P", "path": names})
    patients = pd.DataFrame({"label": ["A"]}, index=pd.Index(["P"], name="patient_id"))
    settings = ExtractSettings(cohort=CohortRecipe(name="bad"), batch_size=4, precision="fp32")
    encoder = Encoder("mean", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), AS_IT_IS, 3, "e" * 64)
    done = extract(
        Cohort("bad", root, patients, cells, ("A",), ids="pseudonymous"),
        encoder,
        settings,
        Workspace(tmp_path / "work"),
    )
    store = BagStore.open(done.path)
    bad = [*range(len(kinds)), len(names) - 2, len(names) - 1]
    assert list(store.failures["cell_id"]) == [f"{number:03d}" for number in bad]
    assert (store.failures["reason"].str.len() > 0).all()
    assert np.flatnonzero(np.isnan(store["P"].features).all(axis=1)).tolist() == bad
    assert (done.n_cells, done.n_failures) == (len(names), len(bad))
    assert store.verify() == []


# --- many -------------------------------------------------------------------------------------------------------


class Watched:
    """A transform that counts what it is given, and takes its time as it is told."""

    def __init__(self, seconds: Callable[[int], float] = lambda _: 0.0) -> None:
        self.started, self.done, self.seconds, self.lock = 0, 0, seconds, threading.Lock()

    def square(self, image: RgbImage) -> RgbImage:
        with self.lock:
            self.started += 1
        time.sleep(self.seconds(int(image[0, 0, 0])))
        with self.lock:
            self.done += 1
        return image


@pytest.fixture
def numbered(tmp_path: Path) -> list[Place]:
    """Forty images; the pixels of each are its number."""
    for number in range(40):
        Image.new("RGB", (4, 4), (number, number, number)).save(tmp_path / f"{number}.png")
    return [Place(tmp_path, f"{number}.png") for number in range(40)]


def _threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")}


@pytest.mark.parametrize("ahead", [1, 3, 100])
def test_cells_come_in_the_order_of_their_paths_whichever_is_ready_first(numbered: list[Place], ahead: int) -> None:
    slow_at_first = Watched(lambda number: 0.02 if number % 4 == 0 else 0.0)
    cells = list(decode(numbered, slow_at_first, ahead))
    assert [int(cell.square[0, 0, 0]) for cell in cells if cell.square is not None] == list(range(40))
    assert [cell.sha256 for cell in cells] == [
        hashlib.sha256((place.root / place.path).read_bytes()).digest() for place in numbered
    ]


def test_a_bad_cell_among_others_keeps_its_place(numbered: list[Place]) -> None:
    (numbered[7].root / numbered[7].path).write_bytes(b"no image")
    (numbered[8].root / numbered[8].path).unlink()
    cells = list(decode(numbered, AS_IT_IS, 5))
    assert [position for position, cell in enumerate(cells) if cell.square is None] == [7, 8]
    assert len(cells) == 40


@pytest.mark.parametrize("ahead", [1, 6])
def test_no_more_than_asked_for_are_decoded_ahead_and_all_of_these_are(numbered: list[Place], ahead: int) -> None:
    watched = Watched()
    for taken, _ in enumerate(decode(numbered, watched, ahead), start=1):
        expected = min(taken + ahead, 40)
        wait_for(lambda expected=expected: watched.done >= expected)
        time.sleep(0.002)  # a chance to do too much
        assert watched.started <= expected
    assert watched.done == 40


def test_cells_of_one_field_are_cut_out_of_it_and_share_its_digest(tmp_path: Path) -> None:
    Image.fromarray(np.tile(RGB, (3, 3, 1))).save(tmp_path / "field.png")
    boxes = [f"{left} {SIZE} {SIZE} {SIZE}" for left in (0, SIZE)]
    first, second = decode([Place(tmp_path, "field.png", box) for box in boxes], AS_IT_IS, 2)
    np.testing.assert_array_equal(first.square, RGB)
    np.testing.assert_array_equal(second.square, RGB)
    assert first.sha256 == second.sha256 == hashlib.sha256((tmp_path / "field.png").read_bytes()).digest()


def test_a_box_that_is_none_is_a_reason(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "field.png")
    assert decode_one(Place(tmp_path, "field.png", "0 0 5"), AS_IT_IS).reason.startswith("the box '0 0 5' is not")


def test_paths_are_asked_for_as_they_are_needed(numbered: list[Place]) -> None:
    cells = decode(itertools.cycle(numbered), AS_IT_IS, 3)
    assert len(list(itertools.islice(cells, 100))) == 100
    cells.close()


def test_threads_end_with_the_last_cell(numbered: list[Place]) -> None:
    before = _threads()
    assert len(list(decode(numbered, AS_IT_IS, 3))) == 40
    assert _threads() == before


def test_threads_end_and_decode_no_more_when_the_consumer_stops_early(numbered: list[Place]) -> None:
    before, watched = _threads(), Watched(lambda _: 0.01)
    cells = decode(numbered, watched, 30)
    next(cells)
    assert _threads() != before
    cells.close()
    assert _threads() == before
    assert watched.started < 31
    assert watched.started == watched.done


def test_extract_ends_its_threads_also_when_it_is_interrupted(numbered: list[Place], tmp_path: Path) -> None:
    class Interrupted(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise KeyboardInterrupt

    names = [place.path for place in numbered]
    cells = pd.DataFrame({"cell_id": names, "patient_id": "P", "path": names})
    patients = pd.DataFrame({"label": ["A"]}, index=pd.Index(["P"], name="patient_id"))
    cohort = Cohort("toy", tmp_path, patients, cells, ("A",))
    settings = ExtractSettings(cohort=CohortRecipe(name="toy"), batch_size=2, precision="fp32")
    encoder = Encoder("interrupted", Interrupted(), AS_IT_IS, 3, "e" * 64)
    before = _threads()
    with pytest.raises(KeyboardInterrupt) as kept:  # whoever keeps the error keeps its frames, and their generators
        extract(cohort, encoder, settings, Workspace(tmp_path / "work"))
    assert _threads() == before
    assert kept.value is not None


@pytest.mark.slow
def test_memory_does_not_grow_with_the_cohort(tmp_path: Path) -> None:
    """As squares, the pixels of 4,500 cells are 680 MB; the tables of 4,500 cells are about 2."""
    with Jobs(tmp_path / "said") as jobs:
        peaks = []
        for n_patients in (10, 100):
            study = write_study(tmp_path / str(n_patients), n_patients, lambda _: 50)
            work = tmp_path / f"work-{n_patients}"
            peaks.append(jobs.run(study.extract(work, size=224)).peak / 1024)
            assert len(BagStore.open(next(work.glob("stores/*/*.zarr"))).cells) == 50 * n_patients
    assert peaks[1] - peaks[0] < 100, peaks
