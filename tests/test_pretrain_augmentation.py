"""Crops for pre-training: probabilities counted operation by operation, and each operation against its formula."""

import colorsys
import math
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from encoders.dinov2 import augmentation
from encoders.dinov2.augmentation import MILD, Augmentation, blur, crop, square, turn_hue
from encoders.dinov2.sampling import generator_of
from milkit import settings
from milkit.errors import SettingsError

NONE = Augmentation(
    crop_scale=(1, 1),
    crop_ratio=(1, 1),
    horizontal_flip=0,
    vertical_flip=0,
    quarter_turn=0,
    jitter=0,
    grayscale=0,
    blur=(0, 0),
    solarize=(0, 0),
)
"""The whole image as it is; tests add the one operation that they look at."""

DRAWS = 2000


def noise(height: int = 12, width: int = 12, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


def only(**fields: object) -> Augmentation:
    return Augmentation.model_validate(NONE.model_dump() | fields)


def crops(image: np.ndarray, chosen: Augmentation, which: int = 0, n: int = DRAWS) -> list[np.ndarray]:
    return [crop(image, chosen, which, generator_of("test", number), len(image)) for number in range(n)]


def test_without_any_operation_the_image_stays_as_it_is() -> None:
    image = noise()
    np.testing.assert_array_equal(crop(image, NONE, 0, generator_of(0), 12), image)


@pytest.mark.parametrize(
    ("field", "which", "probability"),
    [
        ("horizontal_flip", 0, 0.5),
        ("vertical_flip", 0, 0.5),
        ("quarter_turn", 0, 0.5),
        ("rotation", 0, 0.0),
        ("jitter", 0, 0.8),
        ("grayscale", 0, 0.2),
        ("grayscale", 1, 0.2),
        ("blur", 0, 0.0),
        ("blur", 1, 0.9),
        ("solarize", 0, 0.0),
        ("solarize", 1, 0.2),
    ],
)
def test_an_operation_is_applied_as_often_as_the_published_code_did_in_effect(
    field: str, which: int, probability: float
) -> None:
    """Crop 1 is never blurred, crop 2 with 0.9: the published code inverts the probabilities that it names."""
    image = noise()
    visible = {"blur_sigma": (1.0, 1.0)} if field == "blur" else {}  # a narrow blur changes no 8-bit value
    changed = [
        (done != image).any()
        for done in crops(image, only(**visible, **{field: getattr(Augmentation(), field)}), which)
    ]
    spread = math.sqrt(DRAWS * probability * (1 - probability))
    assert abs(sum(changed) - DRAWS * probability) <= 4 * spread


@pytest.mark.parametrize(
    ("chosen", "formula"),
    [
        (only(horizontal_flip=1), lambda image: image[:, ::-1]),
        (only(vertical_flip=1), lambda image: image[::-1]),
        (only(quarter_turn=1), lambda image: np.rot90(image)),
        (only(solarize=(1, 1)), lambda image: np.where(image >= 128, 255 - image, image)),
    ],
    ids=["horizontal flip", "vertical flip", "quarter turn", "solarise"],
)
def test_an_operation_without_strength_is_its_formula(
    chosen: Augmentation, formula: Callable[[np.ndarray], np.ndarray]
) -> None:
    image = noise()
    np.testing.assert_array_equal(crop(image, chosen, 0, generator_of(0), 12), formula(image))


def test_grey_is_the_luma_of_the_colours() -> None:
    image = noise()
    grey = crop(image, only(grayscale=1), 0, generator_of(0), 12)
    luma = image.astype(np.float64) @ [0.299, 0.587, 0.114]
    assert np.ptp(grey, axis=2).max() == 0
    assert np.abs(grey[..., 0] - luma).max() <= 1


def test_a_crop_of_the_whole_image_is_pillow_s_bicubic_resize() -> None:
    image = noise(40, 40)
    expected = np.asarray(Image.fromarray(image).resize((28, 28), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(crop(image, NONE, 0, generator_of(0), 28), expected)


def extents(n: int) -> np.ndarray:
    """Width and height of crops as shares of the image's, read off crops of a picture of its own coordinates."""
    side = 250
    place = np.zeros((side, side, 3), dtype=np.uint8)
    place[..., 0], place[..., 1] = np.arange(side)[None, :], np.arange(side)[:, None]
    chosen = only(crop_scale=Augmentation().crop_scale, crop_ratio=Augmentation().crop_ratio)
    seen = [crop(place, chosen, 0, generator_of("extent", number), 60).astype(int) for number in range(n)]
    return np.array([[np.ptp(done[..., channel]) + 1 for channel in (0, 1)] for done in seen]) / side


def test_crops_have_the_areas_and_ratios_of_the_published_draw() -> None:
    """Area uniform in its limits, log ratio uniform, drawn again where the crop would leave the image."""
    generator, expected = np.random.default_rng(5), []
    for _ in range(20_000):
        area, ratio = generator.uniform(0.32, 1.0), np.exp(generator.uniform(np.log(3 / 4), np.log(4 / 3)))
        width, height = np.sqrt(area * ratio), np.sqrt(area / ratio)
        if width <= 1 and height <= 1:
            expected.append((width, height))
    ours, theirs = extents(600), np.array(expected)
    for of in (lambda sides: sides.prod(axis=1), lambda sides: sides[:, 0] / sides[:, 1]):
        low, high = np.quantile(of(theirs), [0.0, 1.0])
        assert of(ours).min() > low - 0.03
        assert of(ours).max() < high + 0.03
        error = 4 * of(theirs).std() / math.sqrt(len(ours)) + 0.01  # a pixel of the picture's 250 and its filter
        assert abs(of(ours).mean() - of(theirs).mean()) < error
        assert of(ours).std() == pytest.approx(of(theirs).std(), rel=0.15)


def test_where_no_draw_fits_the_largest_part_in_the_middle_is_taken() -> None:
    image = noise(20, 60)
    image[:, 20:40] = 200
    chosen = only(crop_ratio=(1, 1))  # all of its area, and square: no draw fits into a strip
    middle = crop(image, chosen, 0, generator_of(0), 20).astype(int)
    np.testing.assert_array_equal(middle, 200)


def brightness_of(image: np.ndarray) -> float:
    return image[0, 0, 0] / 100


def contrast_of(image: np.ndarray) -> float:
    return (int(image[0, 0, 0]) - int(image[0, 1, 0])) / 80


def saturation_of(image: np.ndarray) -> float:
    return (int(image[0, 0, 0]) - int(image[0, 0, 2])) / 100


FLAT = np.full((8, 8, 3), 100, dtype=np.uint8)
STRIPES = np.where(np.arange(8)[None, :, None] % 2, np.uint8(88), np.uint8(168)) * np.ones((8, 1, 3), dtype=np.uint8)
PINK = np.full((8, 8, 3), (180, 100, 80), dtype=np.uint8)


@pytest.mark.parametrize(
    ("field", "image", "factor"),
    [
        ("brightness", FLAT, brightness_of),
        ("contrast", STRIPES, contrast_of),
        ("saturation", PINK, saturation_of),
    ],
    ids=["brightness", "contrast", "saturation"],
)
def test_a_factor_of_the_jitter_is_uniform_around_one(
    field: str, image: np.ndarray, factor: Callable[[np.ndarray], float]
) -> None:
    strength = getattr(Augmentation(), field)
    others = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0)
    found = [factor(done) for done in crops(image, only(jitter=1, **(others | {field: strength})), n=600)]
    assert factor(image) == pytest.approx(1, abs=0.01)
    quantiles = np.quantile(found, [0.0, 0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(quantiles, 1 + strength * np.array([-1, -0.5, 0, 0.5, 1]), atol=0.06)


@pytest.mark.parametrize("change", [-0.1, -0.037, 0.0, 0.05, 0.1, 0.5])
def test_a_turned_hue_is_that_of_colorsys_to_the_steps_of_eight_bits(change: float) -> None:
    image = noise(20, 20)
    turned = np.asarray(turn_hue(Image.fromarray(image), change)).reshape(-1, 3)
    for before, after in zip(image.reshape(-1, 3), turned, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(before / 255.0))
        expected = 255 * np.array(colorsys.hsv_to_rgb((hue + change) % 1.0, saturation, value))
        # half a step of the change and one of the hue, 6 levels of value a step of 255, and one of the saturation
        assert np.abs(after - expected).max() <= 1.5 * 6 + 2


def test_hues_turn_to_both_sides_by_at_most_their_limit() -> None:
    chosen = only(jitter=1, brightness=0, contrast=0, saturation=0, hue=0.1)
    green = np.full((8, 8, 3), (40, 200, 40), dtype=np.uint8)
    hues = [colorsys.rgb_to_hsv(*(done[0, 0] / 255.0))[0] - 1 / 3 for done in crops(green, chosen, n=600)]
    np.testing.assert_allclose(np.quantile(hues, [0, 0.25, 0.5, 0.75, 1]), [-0.1, -0.05, 0, 0.05, 0.1], atol=0.012)


def test_the_jitter_s_operations_come_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    applied: list[str] = []

    def recorder(name: str) -> Callable[[Image.Image], object]:
        class Recorder:
            def __init__(self, picture: Image.Image) -> None:
                self.picture = picture

            def enhance(self, _: float) -> Image.Image:
                applied.append(name)
                return self.picture

        return Recorder

    def hue(picture: Image.Image, _: float) -> Image.Image:
        applied.append("h")
        return picture

    monkeypatch.setattr(augmentation, "_ENHANCERS", tuple(map(recorder, "bcs")))
    monkeypatch.setattr(augmentation, "turn_hue", hue)
    crops(noise(), only(jitter=1), n=500)
    orders = ["".join(applied[i : i + 4]) for i in range(0, 2000, 4)]
    assert len(set(orders)) == 24
    assert {"".join(sorted(order)) for order in orders} == {"bchs"}


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
@pytest.mark.parametrize("shape", [(5, 9), (56, 20), (130, 61)])
def test_the_blur_is_a_mirrored_gaussian_of_nine_pixels(sigma: float, shape: tuple[int, int]) -> None:
    image = noise(*shape)
    weights = np.array([math.exp(-(k**2) / (2 * sigma**2)) for k in range(-4, 5)])
    kernel = np.outer(weights, weights) / weights.sum() ** 2
    padded = np.pad(image.astype(np.float64), ((4, 4), (4, 4), (0, 0)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (9, 9), axis=(0, 1))
    expected = np.einsum("yxcij,ij->yxc", windows, kernel)
    assert np.abs(blur(image, sigma) - expected).max() <= 0.5 + 1e-3


def test_a_rotated_crop_s_corners_are_one_grey_level_drawn_for_each() -> None:
    red = np.full((40, 40, 3), (200, 0, 0), dtype=np.uint8)
    corners = np.array([done[0, 0] for done in crops(red, only(rotation=1), n=200)]).astype(int)
    grey = corners[np.ptp(corners, axis=1) == 0]
    assert len(grey) > 150  # an angle near a multiple of 90° leaves the corners nearly as they are
    assert len(np.unique(grey[:, 0])) > 60


def test_a_crop_is_determined_by_its_generator_s_name() -> None:
    image = noise(30, 30)
    first, again, other = (crop(image, Augmentation(), 1, generator_of(7, "crop", number), 28) for number in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("chosen", [Augmentation(rotation=0.3), MILD], ids=["default", "mild"])
def test_a_crop_of_any_image_is_eight_bit_rgb_of_the_size_asked_for(chosen: Augmentation, which: int) -> None:
    for number, shape in enumerate([(5, 5), (112, 112), (30, 200)]):
        done = crop(noise(*shape), chosen, which, generator_of(number), 42)
        assert (done.shape, done.dtype) == ((42, 42, 3), np.uint8)


def test_an_image_becomes_a_square_by_lanczos_filter_without_keeping_its_ratio() -> None:
    image = noise(30, 50)
    expected = np.asarray(Image.fromarray(image).resize((20, 20), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(square(image, 20), expected)
    assert (square(image, 20, "bilinear") != expected).any()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"blur": (0.0, 1.5)}, "blur.1: Input should be less than or equal to 1"),
        ({"crop_scale": (0.9, 0.3)}, "the limits are 0.9 and 0.3, expected the smaller one first"),
        ({"crop_scale": (0.0, 1.0)}, "crop_scale.0: Input should be greater than 0"),
        ({"hue": 0.6}, "hue: Input should be less than or equal to 0.5"),
        ({"solarise": (0.0, 0.2)}, "solarise: there is no such setting; did you mean 'solarize'?"),
    ],
)
def test_a_setting_outside_its_range_is_refused_by_name(given: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        settings.load(Augmentation, None, given)
    assert said in str(caught.value)
