"""How an encoder is run: nothing faster is used that was not held against plain float32 on the cohort's own images."""

import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoder_toys import vit_state
from torch import Tensor, nn

from encoders.vit import VisionTransformer, VitShape
from encoders.vit_features import FeatureVit
from milkit import calibration, execution
from milkit.bags import BagStore
from milkit.bags.files import write_attributes
from milkit.calibration import BATCH_SIZES, compare, settle
from milkit.cohort import Cohort
from milkit.encoder import Encoder, Transform
from milkit.errors import SettingsError, StoreError
from milkit.execution import Execution, onednn_is_exact, running
from milkit.extract import extract
from milkit.runs import Workspace
from milkit.settings import CohortRecipe, ExtractSettings

SIZE = 28
SQUARES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (10, SIZE, SIZE, 3), dtype=np.uint8))
GROUPS = [10]


@functools.cache
def _model() -> VisionTransformer:
    shape = VitShape(dim=48, depth=2, heads=3, positions=5)
    model = VisionTransformer(shape)
    model.load_state_dict(vit_state(shape))
    return model


def _encoder(**other: Any) -> Encoder:
    model = _model()
    facts: dict[str, Any] = {"for_features": functools.partial(FeatureVit, model, SIZE)} | other
    return Encoder("tiny", model, Transform(size=SIZE), 48, "d" * 64, **facts)


class Turned(nn.Module):
    """Something that is not the network: its features in the wrong order."""

    def forward(self, images: Tensor) -> Tensor:
        return _model()(images).flip(1)


def _wrong_in(*dtypes: torch.dtype) -> Callable[[torch.dtype, Any], nn.Module]:
    """A faster form that is right in the other number types only."""
    return lambda dtype, engine: Turned() if dtype in dtypes else FeatureVit(_model(), SIZE, dtype, engine)


def _settings(**given: Any) -> ExtractSettings:
    return ExtractSettings(cohort=CohortRecipe(name="toy"), **({"device": "cpu", "batch_size": 4} | given))


def _settle(encoder: Encoder, **given: Any) -> Execution:
    return settle(encoder, _settings(**given), SQUARES, GROUPS)


@pytest.fixture(autouse=True)
def _nothing_is_left_permitted() -> Iterator[None]:
    torch.set_float32_matmul_precision("highest")
    yield
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.fixture
def _has_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that multiplies bfloat16; here it may be emulated."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)


@pytest.fixture
def _has_no_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    for check in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, check, lambda: False, raising=False)


@pytest.fixture
def _fresh_check() -> Iterator[None]:
    onednn_is_exact.cache_clear()
    yield
    onednn_is_exact.cache_clear()


# --- precision and network --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_has_bf16")
def test_auto_takes_bfloat16_where_the_processor_has_it_and_records_how_close_it_is() -> None:
    found = _settle(_encoder())
    assert (found.backend, found.precision, found.network) == ("torch-cpu", "bf16", "for_features")
    assert found.cosine is not None
    assert 0.999 <= found.cosine < 1
    assert found.cosine == round(found.cosine, 6)


@pytest.mark.usefixtures("_has_no_bf16")
def test_auto_takes_float32_where_the_processor_has_no_bfloat16() -> None:
    found = _settle(_encoder())
    assert (found.precision, found.network, found.cosine) == ("fp32", "for_features", 1.0)


@pytest.mark.usefixtures("_has_bf16")
def test_auto_takes_float32_where_the_encoder_does_not_list_bfloat16() -> None:
    assert _settle(_encoder(precisions=("fp32",))).precision == "fp32"


@pytest.mark.usefixtures("_has_bf16")
def test_auto_falls_back_to_float32_where_bfloat16_changes_the_features() -> None:
    found = _settle(_encoder(for_features=_wrong_in(torch.bfloat16)))
    assert (found.precision, found.network, found.cosine) == ("fp32", "for_features", 1.0)


@pytest.mark.usefixtures("_has_bf16")
def test_auto_falls_back_to_the_plain_network_where_its_faster_form_is_wrong() -> None:
    found = _settle(_encoder(for_features=_wrong_in(torch.bfloat16, torch.float32)))
    assert (found.precision, found.network, found.cosine) == ("fp32", "model", None)


@pytest.mark.parametrize("precision", ["auto", "fp32"])
@pytest.mark.usefixtures("_has_no_bf16")
def test_a_wrong_faster_form_in_float32_falls_back_to_the_plain_network(precision: str) -> None:
    found = _settle(_encoder(for_features=_wrong_in(torch.float32)), precision=precision)
    assert (found.precision, found.network) == ("fp32", "model")


def test_a_faster_form_that_is_slightly_off_in_float32_is_not_used() -> None:
    """Its direction is right to seven digits: the difference counts."""

    class Off(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return _model()(images) * 1.001

    assert _settle(_encoder(for_features=lambda *_: Off()), precision="fp32").network == "model"


@pytest.mark.usefixtures("_has_no_bf16")
def test_bfloat16_that_is_asked_for_is_used_also_where_it_is_emulated() -> None:
    assert _settle(_encoder(), precision="bf16").precision == "bf16"


def test_bfloat16_that_is_asked_for_and_changes_the_features_is_refused() -> None:
    sentence = (
        r"^The encoder 'tiny' run by torch-cpu in bf16 gives other features than plain float32 \(a largest difference "
        r"of \S+ and a least cosine of -?0\.\d{6}; expected .* at least 0\.999 in bf16\); use --precision fp32"
    )
    with pytest.raises(SettingsError, match=sentence):
        _settle(_encoder(for_features=_wrong_in(torch.bfloat16)), precision="bf16")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.usefixtures("_has_bf16")
def test_a_faster_form_that_is_not_finite_is_not_used(bad: float) -> None:
    class Broken(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return torch.full((len(images), 48), bad)

    assert _settle(_encoder(for_features=lambda *_: Broken())).network == "model"


@pytest.mark.usefixtures("_has_bf16")
def test_an_encoder_without_a_faster_form_is_run_as_it_is() -> None:
    plain, fast = _settle(_encoder(for_features=None), precision="fp32"), _settle(_encoder(for_features=None))
    assert (plain.network, plain.cosine) == ("model", None)
    assert (fast.network, fast.precision) == ("model", "bf16")
    assert fast.cosine is not None
    assert fast.cosine < 1


def test_a_precision_that_the_encoder_does_not_list_is_refused_by_name() -> None:
    sentence = r"^--precision bf16 was given, and the encoder 'tiny' knows fp32; use that\.$"
    with pytest.raises(SettingsError, match=sentence):
        _settle(_encoder(precisions=("fp32",)), precision="bf16")


# --- backends ---------------------------------------------------------------------------------------------------


def test_a_backend_that_the_encoder_does_not_list_is_refused_by_name() -> None:
    sentence = r"^The backend openvino was asked for, and the encoder 'tiny' runs by torch only; use that\.$"
    with pytest.raises(SettingsError, match=sentence):
        _settle(_encoder(backends=("torch",)), backend="openvino")


def test_openvino_that_is_not_installed_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(SettingsError, match=r"openvino is not installed; run `pip install 'milkit\[openvino\]'`, or"):
        _settle(_encoder(), backend="openvino")


def test_openvino_on_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(SettingsError, match=r"openvino was asked for on a GPU, expected the CPU; add --device cpu"):
        _settle(_encoder(), backend="openvino", device="auto")


@pytest.fixture
def _with_openvino() -> None:
    if not _has_openvino():
        pytest.skip("openvino is not installed")


def _has_openvino() -> bool:
    try:
        execution.require_openvino()
    except SettingsError:
        return False
    return True


@pytest.mark.usefixtures("_with_openvino")
@pytest.mark.parametrize("network", ["model", "for_features"])
def test_openvino_s_features_are_the_plain_ones(network: Any) -> None:
    plain = calibration._features(_encoder(), Execution("torch-cpu", "fp32", "model", 4), SQUARES)
    for precision, tolerance in (("fp32", 1e-4), ("bf16", None)):
        how = Execution("openvino-cpu", precision, network, 4)
        difference, cosine = compare(calibration._features(_encoder(), how, SQUARES), plain)
        assert cosine >= 0.999
        assert tolerance is None or difference <= tolerance


@pytest.mark.usefixtures("_with_openvino")
def test_openvino_does_not_write_a_batch_s_features_over_the_last_one_s() -> None:
    with running(_encoder(), Execution("openvino-cpu", "fp32", "for_features", 4)) as run:
        first = run(SQUARES[:4])
        kept = first.clone()
        second = run(SQUARES[4:8])
    assert torch.equal(first, kept)
    assert not torch.equal(first, second)


@pytest.mark.usefixtures("_with_openvino", "_has_no_bf16")
def test_openvino_is_settled_with_the_first_batch_size_and_its_cosine() -> None:
    found = _settle(_encoder(), backend="openvino", batch_size=None)
    assert found == Execution("openvino-cpu", "fp32", "for_features", BATCH_SIZES["cpu"][0], 1.0)


@pytest.mark.usefixtures("_with_openvino")
@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_openvino_that_changes_the_features_is_refused_and_not_replaced(precision: str) -> None:
    """The user has asked for it: the plain network would not be what they believe to have."""
    with pytest.raises(SettingsError, match=r"run by openvino-cpu in fp32 gives other .*--backend torch"):
        _settle(_encoder(for_features=_wrong_in(torch.float32)), backend="openvino", precision=precision)


# --- batch size -------------------------------------------------------------------------------------------------


def _timed(monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float]) -> list[int]:
    """Batches take these times; returns the sizes that were measured."""
    measured = list[int]()

    def take(run: Any, batch: Tensor, device: torch.device) -> float:
        measured.append(len(batch))
        if seconds[len(batch)] == float("inf"):
            raise torch.cuda.OutOfMemoryError
        return seconds[len(batch)]

    monkeypatch.setattr(calibration, "_seconds", take)
    return measured


def test_a_batch_size_that_is_given_is_taken_unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = _timed(monkeypatch, {})
    assert _settle(_encoder(), batch_size=5).batch_size == 5
    assert measured == []


@pytest.mark.parametrize(
    ("groups", "best"),
    [
        ([64, 64], 16),  # per image, 16 is fastest
        ([8] * 50, 8),  # half of 16 would be padding
        ([4, 3, 2, 1], 4),  # a batch of 4 each
        ([9] * 20, 16),  # one batch of 16 is faster than two of 8
        ([1], 4),
    ],
)
def test_the_batch_size_is_the_one_that_takes_this_cohort_the_least_time(
    monkeypatch: pytest.MonkeyPatch, groups: list[int], best: int
) -> None:
    seconds = {4: 0.5, 8: 0.8, 16: 1.2}
    predicted = {size: sum(-(-n // size) for n in groups) * seconds[size] for size in seconds}
    assert min(predicted, key=predicted.__getitem__) == best
    measured = _timed(monkeypatch, seconds)
    assert settle(_encoder(), _settings(batch_size=None), SQUARES, groups).batch_size == best
    assert sorted(measured) == [4, 8, 16]


def test_batch_sizes_that_the_memory_has_no_room_for_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    _timed(monkeypatch, {8: float("inf"), 4: 0.5, 16: float("inf")})
    assert settle(_encoder(), _settings(batch_size=None), SQUARES, GROUPS).batch_size == 4
    _timed(monkeypatch, dict.fromkeys((4, 8, 16), float("inf")))
    assert settle(_encoder(), _settings(batch_size=None), SQUARES, GROUPS).batch_size == 1


def test_the_time_of_a_batch_is_that_of_the_second_the_first_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 9.0, 10.0, 10.3])
    monkeypatch.setattr(calibration.time, "perf_counter", lambda: next(clock))
    assert calibration._seconds(lambda batch: batch, SQUARES, torch.device("cpu")) == pytest.approx(0.3)


def test_fewer_images_than_a_batch_are_repeated_to_fill_it() -> None:
    filled = calibration._filled(SQUARES[:3], 8)
    assert torch.equal(filled, torch.cat([SQUARES[:3], SQUARES[:3], SQUARES[:2]]))


@pytest.mark.usefixtures("_has_bf16")
def test_without_any_image_to_compare_the_plain_network_is_taken_in_float32() -> None:
    none = SQUARES[:0]
    found = settle(_encoder(), _settings(batch_size=None), none, GROUPS)
    assert found == Execution("torch-cpu", "fp32", "model", BATCH_SIZES["cpu"][0], None)
    assert settle(_encoder(), _settings(batch_size=3), none, GROUPS).batch_size == 3


# --- running ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["model", "for_features"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_features_are_float32_without_gradients_and_those_of_the_plain_network(precision: Any, network: Any) -> None:
    encoder = _encoder()
    with running(encoder, Execution("torch-cpu", precision, network, 4)) as run:
        found = run(SQUARES[:4])
    with torch.inference_mode():
        expected = encoder.model(encoder.transform.normalise(SQUARES[:4]))
    assert found.dtype == torch.float32
    assert not found.requires_grad
    difference, cosine = compare(found, expected)
    assert cosine >= 0.999
    assert (difference < 1e-5) == (precision == "fp32")


@pytest.mark.usefixtures("_fresh_check")
@pytest.mark.parametrize("exact", [True, False])
def test_faster_products_are_permitted_only_while_running_and_only_where_they_are_exact(
    exact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execution, "onednn_is_exact", lambda: exact)
    for before in ("highest", "high"):
        torch.set_float32_matmul_precision(before)
        with running(_encoder(), Execution("torch-cpu", "fp32", "model", 4)):
            assert torch.get_float32_matmul_precision() == ("medium" if exact else "highest")
        assert torch.get_float32_matmul_precision() == before
    torch.set_float32_matmul_precision("highest")


def _fail(*_: Any) -> nn.Module:
    raise RuntimeError


@pytest.mark.parametrize(
    ("encoder", "network", "error"),
    [(_encoder(), "model", KeyboardInterrupt), (_encoder(for_features=_fail), "for_features", RuntimeError)],
    ids=["while it runs", "before it runs"],
)
def test_what_is_permitted_while_running_is_taken_back_after_an_error_too(
    encoder: Encoder, network: Any, error: type[BaseException]
) -> None:
    with pytest.raises(error), running(encoder, Execution("torch-cpu", "fp32", network, 4)):
        raise KeyboardInterrupt
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.is_inference_mode_enabled()


def test_features_of_a_network_that_ends_in_bfloat16_are_float32() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 5))
    encoder = Encoder("linear", model, Transform(size=SIZE), 5, "d" * 64)
    with running(encoder, Execution("torch-cpu", "bf16", "model", 4)) as run:
        assert run(SQUARES[:4]).dtype == torch.float32


@pytest.mark.usefixtures("_fresh_check")
def test_products_that_round_their_factors_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = torch.Tensor.__matmul__

    def rounded(x: Tensor, y: Tensor) -> Tensor:
        if x.dtype == torch.float32 and torch.get_float32_matmul_precision() == "medium":
            x, y = x.bfloat16().float(), y.bfloat16().float()
        return plain(x, y)

    monkeypatch.setattr(torch.Tensor, "__matmul__", rounded)
    assert not onednn_is_exact()


@pytest.mark.usefixtures("_fresh_check")
def test_products_in_float32_are_taken_for_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda _: None)  # the default, which is float32
    assert onednn_is_exact()


# --- compare ----------------------------------------------------------------------------------------------------


def test_the_comparison_is_its_formula() -> None:
    """max |a - b| / max(max |b|, 1), and the least a·b / (|a| |b|) of a row."""
    rng = np.random.default_rng(0)
    for scale in (0.01, 1.0, 100.0):
        b = rng.normal(size=(7, 5)) * scale
        a = b + rng.normal(size=b.shape) * scale / 10
        difference, cosine = compare(torch.from_numpy(a), torch.from_numpy(b))
        assert difference == pytest.approx(np.abs(a - b).max() / max(np.abs(b).max(), 1.0))
        rows = (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))
        assert cosine == pytest.approx(rows.min())


def test_rows_of_zeros_are_alike_and_a_row_of_zeros_is_unlike_any_other() -> None:
    zeros, ones = torch.zeros(2, 3), torch.ones(2, 3)
    assert compare(zeros, zeros) == (0.0, 1.0)
    assert compare(torch.stack([ones[0], zeros[0]]), ones)[1] == 0.0


# --- what the store records -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        Execution("torch-cpu", "fp32", "model", 7),
        Execution("torch-cuda", "bf16", "for_features", 256, 0.999731),
        Execution("openvino-cpu", "fp32", "model", 1, 1.0),
    ],
)
def test_an_execution_is_read_back_from_a_store_as_it_was(how: Execution) -> None:
    attributes = json.loads(json.dumps({"cohort": "toy", **dataclasses.asdict(how)}))
    assert Execution.recorded(attributes) == how


def test_device_and_engine_follow_from_the_backend() -> None:
    found = {
        backend: (how.device.type, how.engine)
        for backend in ("torch-cpu", "torch-cuda", "openvino-cpu")
        for how in [Execution(backend, "fp32", "model", 1)]
    }
    assert found == {
        "torch-cpu": ("cpu", "cpu"),
        "torch-cuda": ("cuda", "cuda"),
        "openvino-cpu": ("cpu", "openvino"),
    }


@pytest.mark.usefixtures("_has_bf16")
def test_a_store_is_continued_as_it_was_begun_whatever_would_be_settled_now(
    toy_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Workspace(tmp_path / "work")
    begun = extract(toy_cohort, _encoder(), _settings(batch_size=None), work).execution
    assert begun.precision == "bf16"
    assert Execution.recorded(BagStore.open(next((tmp_path / "work").glob("stores/*/*.zarr"))).attributes) == begun
    monkeypatch.setattr("milkit.extract.settle", lambda *_: pytest.fail("it was settled again"))
    assert extract(toy_cohort, _encoder(), _settings(batch_size=None), work).execution == begun
    insisting = _settings(precision="bf16", backend="torch", batch_size=begun.batch_size)
    assert extract(toy_cohort, _encoder(), insisting, work).execution == begun


@pytest.mark.parametrize(
    ("given", "difference"),
    [
        ({"precision": "bf16"}, "precision: fp32 there, bf16 now"),
        ({"backend": "openvino"}, "backend: torch-cpu there, openvino-cpu now"),
        ({"device": "cuda"}, "backend: torch-cpu there, torch-cuda now"),
        ({"batch_size": 5}, "batch_size: 4 there, 5 now"),
        ({"dtype": "float32"}, "dtype: float16 there, float32 now"),
    ],
)
def test_a_store_is_not_continued_otherwise_than_it_was_begun(
    toy_cohort: Cohort, tmp_path: Path, given: dict[str, Any], difference: str
) -> None:
    work = Workspace(tmp_path / "work")
    extract(toy_cohort, _encoder(), _settings(precision="fp32"), work)
    with pytest.raises(StoreError, match=rf"was made otherwise \({difference}\); use the same settings"):
        extract(toy_cohort, _encoder(), _settings(**given), work)


def _changed(toy_cohort: Cohort, tmp_path: Path, **attributes: Any) -> Workspace:
    work = Workspace(tmp_path / "work")
    path = extract(toy_cohort, _encoder(), _settings(precision="fp32"), work).path
    write_attributes(path, attributes)
    return work


def test_a_store_that_was_begun_on_a_gpu_is_not_continued_without_one(
    toy_cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    work = _changed(toy_cohort, tmp_path, backend="torch-cuda")
    extract(toy_cohort, _encoder(), _settings(device="auto"), work)  # nothing is left to be encoded
    (marks,) = (tmp_path / "work").glob("stores/*/*.zarr/committed/c/0")
    marks.write_bytes(bytes(len(marks.read_bytes())))
    with pytest.raises(StoreError, match=r"was begun on a GPU, and PyTorch finds none here; go on where one is, or"):
        extract(toy_cohort, _encoder(), _settings(device="auto"), work)


def test_a_store_that_does_not_say_how_it_was_encoded_is_refused(toy_cohort: Cohort, tmp_path: Path) -> None:
    work = _changed(toy_cohort, tmp_path)
    metadata = next((tmp_path / "work").glob("stores/*/*.zarr")) / "zarr.json"
    content = json.loads(metadata.read_text())
    for name in ("network", "backend"):
        del content["attributes"][name]
    metadata.write_text(json.dumps(content))
    with pytest.raises(StoreError, match=r"does not say how its features were computed \(backend, network\)"):
        extract(toy_cohort, _encoder(), _settings(), work)
