"""The hand-made features: finite for anything, one row an image, and each means what its name says."""

import numpy as np
import pytest
import torch
from torch import Tensor

from encoders.classical import FEATURE_NAMES, SIZE, classical, describe
from milkit.images import RgbImage

BACKGROUND, CYTOPLASM, CHROMATIN = (240, 225, 205), (205, 170, 200), (90, 50, 140)
AZURE, RED_CELL = (150, 40, 130), (190, 160, 150)
ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE]


def disc(radius: float, row: float = 72, column: float = 72) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    return np.asarray((ROWS - row) ** 2 + (COLUMNS - column) ** 2 < radius**2)


def paint(*layers: tuple[object, tuple[int, int, int]]) -> RgbImage:
    """Layers of (mask, colour) on an empty slide, with the noise of a camera."""
    image = np.full((SIZE, SIZE, 3), BACKGROUND, dtype=np.float64)
    for mask, colour in layers:
        image[np.asarray(mask)] = colour
    noise = np.random.default_rng(0).normal(0, 2, image.shape)
    return np.asarray((image + noise).clip(0, 255), dtype=np.uint8)


def blast(nucleus: float = 28, cell: float = 42) -> RgbImage:
    return paint((disc(cell), CYTOPLASM), (disc(nucleus), CHROMATIN))


def features(image: RgbImage) -> dict[str, float]:
    row = classical().model(classical().transform(image)[None])[0]
    return dict(zip(FEATURE_NAMES, row.tolist(), strict=True))


def degenerate() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    dot, line = torch.ones(3, SIZE, SIZE), torch.ones(3, SIZE, SIZE)
    dot[:, 70, 70], line[:, 70] = 0, 0
    return {
        "black": torch.zeros(3, SIZE, SIZE),
        "white": torch.ones(3, SIZE, SIZE),
        "grey": torch.full((3, SIZE, SIZE), 0.5),
        "red": torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, SIZE, SIZE),
        "noise": torch.rand(3, SIZE, SIZE, generator=generator),
        "black and white": torch.randint(2, (3, SIZE, SIZE), generator=generator).float(),
        "ramp": torch.linspace(0, 1, SIZE).expand(3, SIZE, SIZE),
        "dot": dot,
        "line": line,
        "checks": torch.from_numpy(((ROWS + COLUMNS) % 2).astype(np.float32)).expand(3, SIZE, SIZE),
        "half": torch.from_numpy((COLUMNS < 72).astype(np.float32)).expand(3, SIZE, SIZE),
        "small": torch.rand(3, 16, 16, generator=generator),
        "wide": torch.rand(3, 40, 90, generator=generator),
    }


@pytest.mark.parametrize("kind", degenerate())
def test_every_image_has_finite_features_in_the_same_order(kind: str) -> None:
    image = degenerate()[kind]
    assert tuple(describe(image.numpy())) == FEATURE_NAMES
    row = classical().model(image[None])
    assert row.shape == (1, len(FEATURE_NAMES))
    assert torch.isfinite(row).all()
    assert row.abs().max() < 100


def test_the_encoder_says_what_it_is() -> None:
    encoder = classical()
    assert encoder.name == "classical"
    assert encoder.dim == len(FEATURE_NAMES) == len(set(FEATURE_NAMES))
    assert 100 <= encoder.dim <= 200
    assert encoder.seen == ()
    assert not list(encoder.model.parameters())
    assert encoder.transform(blast()).max() <= 1


def test_a_row_depends_on_its_image_only_and_is_the_same_each_time() -> None:
    encoder = classical()
    batch = torch.stack([encoder.transform(blast(radius)) for radius in (15, 25, 35)])
    together = encoder.model(batch)
    assert together.dtype == torch.float32
    assert torch.equal(together, torch.cat([encoder.model(image[None]) for image in batch]))
    assert torch.equal(together.flip(0), encoder.model(batch.flip(0)))
    assert encoder.model(batch[:0]).shape == (0, encoder.dim)


@pytest.mark.parametrize("radius", [14, 20, 28, 36])
def test_areas_are_those_that_were_drawn(radius: int) -> None:
    found = features(blast(nucleus=radius, cell=45))
    assert found["nucleus_area"] == pytest.approx(np.pi * radius**2 / SIZE**2, rel=0.1)
    assert found["cell_area"] == pytest.approx(np.pi * 45**2 / SIZE**2, rel=0.1)
    assert found["nucleus_share"] == pytest.approx(radius**2 / 45**2, rel=0.15)


def test_a_round_nucleus_is_round() -> None:
    found = features(blast())
    assert found["nucleus_eccentricity"] < 0.3
    assert found["nucleus_solidity"] > 0.95
    assert found["nucleus_indentation"] < 0.05
    assert found["nucleus_lobes55"] == found["nucleus_parts"] == 1
    assert found["nucleus_thickness"] == pytest.approx(1, abs=0.05)
    assert found["nucleus_hu1"] == pytest.approx(np.log1p(np.sqrt(1 / (2 * np.pi))), rel=0.02)  # of a disc


def test_two_lobes_are_two() -> None:
    bridge = (abs(ROWS - 72) < 4) & (abs(COLUMNS - 72) < 18)
    lobed = paint((disc(42), CYTOPLASM), (disc(14, 72, 54) | disc(14, 72, 90) | bridge, CHROMATIN))
    found = features(lobed)
    assert found["nucleus_lobes55"] == 2
    assert found["nucleus_parts"] == 1
    assert found["nucleus_eccentricity"] > 0.8
    parted = paint((disc(42), CYTOPLASM), (disc(12, 72, 55) | disc(12, 72, 89), CHROMATIN))
    assert features(parted)["nucleus_parts"] == 2


def test_a_cup_is_an_indentation() -> None:
    cup = paint((disc(42), CYTOPLASM), (disc(28) & ~disc(13, 52, 72), CHROMATIN))
    found, round_one = features(cup), features(blast())
    assert found["nucleus_indentation"] > round_one["nucleus_indentation"] + 0.2
    assert found["nucleus_solidity"] < round_one["nucleus_solidity"] - 0.05


def test_granules_and_rods_are_told_apart() -> None:
    places = [(72 + 36 * np.sin(a), 72 + 36 * np.cos(a)) for a in np.linspace(0, 2 * np.pi, 12, endpoint=False)]
    spots = np.any([disc(1.6, row, column) for row, column in places], axis=0)
    rod = (abs(ROWS - 72 - 36) < 1.2) & (abs(COLUMNS - 72) < 10)
    plain = features(blast(24, 46))
    granular = features(paint((disc(46), CYTOPLASM), (disc(24), CHROMATIN), (spots, AZURE)))
    auer = features(paint((disc(46), CYTOPLASM), (disc(24), CHROMATIN), (rod, AZURE)))
    assert granular["granules_pink_count"] > plain["granules_pink_count"] + 0.1
    assert granular["granules_pink_count"] > auer["granules_pink_count"]
    assert auer["rods_pink_longest"] > max(granular["rods_pink_longest"], plain["rods_pink_longest"]) + 0.5


def test_stain_and_light_matter_less_than_they_change_the_image() -> None:
    image = blast()
    dimmed = (image * np.array([0.8, 0.75, 0.85])).astype(np.uint8)  # another lamp
    bright, dim = features(image), features(dimmed)
    for name in ("nucleus_area", "cell_area", "nucleus_green_mean", "cytoplasm_red_mean", "nucleus_solidity"):
        assert dim[name] == pytest.approx(bright[name], rel=0.05, abs=0.01), name
    assert dim["background_red"] < bright["background_red"] - 0.1


def test_a_touching_red_cell_is_not_the_cell() -> None:
    alone = features(blast(26, 34))
    touched = features(paint((disc(22, 72, 127), RED_CELL), (disc(34), CYTOPLASM), (disc(26), CHROMATIN)))
    assert touched["cell_area"] == pytest.approx(alone["cell_area"], rel=0.15)
    assert touched["nucleus_area"] == pytest.approx(alone["nucleus_area"], rel=0.05)
