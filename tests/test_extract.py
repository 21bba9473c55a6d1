"""Extraction: resumable, the same bytes however it was interrupted, and no cell lost silently."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from milkit.bags import BagStore
from milkit.cohort import Cohort
from milkit.encoder import Encoder, Transform, encoder_digest
from milkit.errors import SettingsError, StoreError
from milkit.execution import Execution
from milkit.extract import extract
from milkit.images import read_image
from milkit.ranks import Ranks
from milkit.runs import Workspace
from milkit.settings import CohortRecipe, ExtractSettings

SETTINGS = ExtractSettings(cohort=CohortRecipe(name="toy"), batch_size=3, precision="fp32")


class Corners(nn.Module):
    """Means of the four quarters of each channel: 12 features. Counts how many batches it has seen."""

    def __init__(self, fail_after: int | None = None) -> None:
        super().__init__()
        self.batches, self.fail_after = 0, fail_after

    def forward(self, images: Tensor) -> Tensor:
        self.batches += 1
        if self.fail_after is not None and self.batches > self.fail_after:
            raise KeyboardInterrupt
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def _encoder(fail_after: int | None = None) -> Encoder:
    model, transform = Corners(fail_after), Transform(size=8)
    return Encoder("corners", model, transform, 12, encoder_digest(model, transform, version="corners-1"))


def _bytes(path: Path) -> dict[str, bytes]:
    """Every file of a store but ``source.json``, which holds the time of day."""
    files = (p for p in path.rglob("*") if p.is_file() and p.name != "source.json")
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in files}


def test_features_are_the_encoder_s_of_the_transformed_images(toy_cohort: Cohort, tmp_path: Path) -> None:
    encoder = _encoder()
    result = extract(toy_cohort, encoder, SETTINGS, Workspace(tmp_path / "work"))
    cells = toy_cohort.cells[toy_cohort.cells["patient_id"] == "P3"]
    images = torch.stack([encoder.transform(read_image(toy_cohort.root / path)) for path in cells["path"]])
    expected = encoder.model(images).numpy()
    np.testing.assert_allclose(BagStore.open(result.path)["P3"].features, expected, rtol=2e-3, atol=1e-3)
    assert (result.n_cells, result.n_failures) == (24, 0)


def test_the_store_says_what_made_it_and_nothing_of_this_machine(toy_cohort: Cohort, tmp_path: Path) -> None:
    path = extract(toy_cohort, _encoder(), SETTINGS, Workspace(tmp_path / "work")).path
    attributes = BagStore.open(path).attributes
    assert attributes["encoder_digest"] == _encoder().digest
    assert attributes["transform"]["interpolation"] == "bilinear"
    assert attributes["batch_size"] == 3
    assert str(tmp_path) not in json.dumps(attributes)


@pytest.mark.parametrize("fail_after", [0, 1, 2, 5, 11])
def test_an_interrupted_extraction_ends_with_the_same_bytes(
    toy_cohort: Cohort, tmp_path: Path, fail_after: int
) -> None:
    whole = extract(toy_cohort, _encoder(), SETTINGS, Workspace(tmp_path / "whole")).path
    work = Workspace(tmp_path / "work")
    with pytest.raises(KeyboardInterrupt):
        extract(toy_cohort, _encoder(fail_after), SETTINGS, work)
    resumed = extract(toy_cohort, _encoder(), SETTINGS, work).path
    assert _bytes(resumed) == _bytes(whole)


def test_a_rerun_encodes_only_what_is_missing(toy_cohort: Cohort, tmp_path: Path) -> None:
    work = Workspace(tmp_path / "work")
    with pytest.raises(KeyboardInterrupt):
        extract(toy_cohort, _encoder(fail_after=4), SETTINGS, work)  # two batches a patient: two patients are committed
    encoder = _encoder()
    extract(toy_cohort, encoder, SETTINGS, work)
    assert encoder.model.batches == 2 * 4


def test_a_cell_s_features_do_not_depend_on_its_neighbours_in_the_batch(toy_cohort: Cohort, tmp_path: Path) -> None:
    stores = [
        BagStore.open(extract(toy_cohort, _encoder(), SETTINGS.model_copy(update={"batch_size": n}), work).path)
        for n, work in ((1, Workspace(tmp_path / "a")), (7, Workspace(tmp_path / "b")))
    ]
    for one, seven in zip(*stores, strict=True):
        np.testing.assert_array_equal(one.features, seven.features)


def test_the_size_of_a_pixel_is_kept_and_mended_without_encoding_again(toy_cohort: Cohort, tmp_path: Path) -> None:
    work, encoder = Workspace(tmp_path / "work"), _encoder()
    found = []
    for size in (None, 0.2, 0.25):
        known = dataclasses.replace(toy_cohort, micrometres_per_pixel=size)
        store = BagStore.open(extract(known, encoder, SETTINGS, work).path)
        found.append((store.attributes["micrometres_per_pixel"], encoder.model.batches, store.verify()))
    assert found == [(size, encoder.model.batches, []) for size in (None, 0.2, 0.25)]


def test_unreadable_cells_keep_their_row_and_are_listed(
    toy_cohort: Cohort, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    root = toy_cohort.root
    write_image(tmp_path / "whole.tif", size=30)
    (root / "P0" / "image_1.png").write_bytes((tmp_path / "whole.tif").read_bytes()[:200])
    (root / "P2" / "image_3.png").write_text("this is no image")
    (root / "P5" / "image_0.png").unlink()
    result = extract(toy_cohort, _encoder(), SETTINGS, Workspace(tmp_path / "work"))
    store = BagStore.open(result.path)
    assert result.n_failures == 3
    assert list(store.failures["cell_id"]) == ["P0/image_1", "P2/image_3", "P5/image_0"]
    reasons = list(store.failures["reason"])
    assert "cannot be decoded" in reasons[0] or "not an image" in reasons[0]
    assert reasons[1] == "the file is not an image"
    assert reasons[2] == "the file cannot be opened (No such file or directory)"
    assert np.isnan(store["P2"].features).any(axis=1).tolist() == [False, False, False, True]
    assert store.verify() == []


def test_other_settings_are_refused_and_named(toy_cohort: Cohort, tmp_path: Path) -> None:
    work = Workspace(tmp_path / "work")
    extract(toy_cohort, _encoder(), SETTINGS, work)
    with pytest.raises(StoreError, match=r"was made otherwise \(batch_size: 3 there, 4 now\); use the same settings"):
        extract(toy_cohort, _encoder(), SETTINGS.model_copy(update={"batch_size": 4}), work)


def test_a_corrected_label_is_taken_over_without_encoding_again(toy_cohort: Cohort, tmp_path: Path) -> None:
    work = Workspace(tmp_path / "work")
    extract(toy_cohort, _encoder(), SETTINGS, work)
    patients = toy_cohort.patients.copy()
    patients.loc["P0", "label"] = "B"
    encoder = _encoder()
    corrected = dataclasses.replace(toy_cohort, patients=patients)
    path = extract(corrected, encoder, SETTINGS, work).path
    assert BagStore.open(path).patients.loc["P0", "label"] == "B"
    assert encoder.model.batches == 0


def test_a_second_extract_into_one_store_is_told_to_wait(toy_cohort: Cohort, tmp_path: Path) -> None:
    work = Workspace(tmp_path / "work")
    path = extract(toy_cohort, _encoder(), SETTINGS, work).path
    holder = BagStore(path, writable=True)
    with pytest.raises(StoreError, match=r"Process \d+ on .* has been writing the store"):
        extract(toy_cohort, _encoder(), SETTINGS, work)
    holder.close()


def test_image_digests_are_those_of_the_files(toy_cohort: Cohort, tmp_path: Path) -> None:
    import hashlib

    import zarr

    path = extract(toy_cohort, _encoder(), SETTINGS, Workspace(tmp_path / "work")).path
    digests = zarr.open_group(path, mode="r")["image_sha256"][:]
    first = hashlib.sha256((toy_cohort.root / toy_cohort.cells["path"][0]).read_bytes()).digest()
    assert bytes(digests[0]) == first


def test_mended_images_are_read_by_a_rerun_and_the_store_becomes_that_of_whole_images(
    toy_cohort: Cohort, tmp_path: Path
) -> None:
    whole = extract(toy_cohort, _encoder(), SETTINGS, Workspace(tmp_path / "whole")).path
    image, work = toy_cohort.root / "P2" / "image_1.png", Workspace(tmp_path / "work")
    content = image.read_bytes()
    image.write_bytes(content[:50])
    assert extract(toy_cohort, _encoder(), SETTINGS, work).n_failures == 1
    assert extract(toy_cohort, _encoder(), SETTINGS, work).n_failures == 1
    image.write_bytes(content)
    mended = extract(toy_cohort, _encoder(), SETTINGS, work)
    assert mended.n_failures == 0
    assert _bytes(mended.path) == _bytes(whole)


def test_a_corrected_table_can_bring_a_new_class(toy_cohort: Cohort, tmp_path: Path) -> None:
    work = Workspace(tmp_path / "work")
    extract(toy_cohort, _encoder(), SETTINGS, work)
    patients = toy_cohort.patients.assign(label=["C", "B"] * 3)
    renamed = dataclasses.replace(toy_cohort, patients=patients, classes=("B", "C"))
    store = BagStore.open(extract(renamed, _encoder(), SETTINGS, work).path)
    assert store.attributes["classes"] == ["B", "C"]
    assert set(store.patients["label"]) == {"B", "C"}
    assert store.verify() == []


def test_features_too_large_for_float16_are_failures_with_a_reason(toy_cohort: Cohort, tmp_path: Path) -> None:
    class Huge(Corners):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images) + 1e5

    encoder = Encoder("huge", Huge(), Transform(size=8), 12, "d" * 64)
    result = extract(toy_cohort, encoder, SETTINGS, Workspace(tmp_path / "work"))
    assert result.n_failures == result.n_cells
    assert "not finite as float16; extract with --set dtype=float32" in BagStore.open(result.path).failures["reason"][0]
    wide = SETTINGS.model_copy(update={"dtype": "float32"})
    assert extract(toy_cohort, encoder, wide, Workspace(tmp_path / "wide")).n_failures == 0


def test_the_same_weights_from_another_file_continue_the_store(toy_cohort: Cohort, tmp_path: Path) -> None:
    work = Workspace(tmp_path / "work")
    for digest_of_file in ("1", "2"):
        encoder = dataclasses.replace(_encoder(), made_of={"weights_sha256": digest_of_file})
        extract(toy_cohort, encoder, SETTINGS, work)
    assert len(list((tmp_path / "work" / "stores" / "toy").iterdir())) == 1


def test_a_gpu_that_is_not_there_leaves_no_store(toy_cohort: Cohort, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is there")
    cuda = SETTINGS.model_copy(update={"device": "cuda"})
    with pytest.raises(SettingsError, match="The device cuda was asked for and PyTorch finds no GPU here"):
        extract(toy_cohort, _encoder(), cuda, Workspace(tmp_path / "work"))
    assert not (tmp_path / "work").exists()


def test_a_corrected_cell_label_is_taken_over_without_encoding_again(toy_cohort: Cohort, tmp_path: Path) -> None:
    work = Workspace(tmp_path / "work")
    typed = dataclasses.replace(toy_cohort, cells=toy_cohort.cells.assign(cell_type="blast"))
    extract(typed, _encoder(), SETTINGS, work)
    corrected = dataclasses.replace(toy_cohort, cells=toy_cohort.cells.assign(cell_type="monocyte"))
    encoder = _encoder()
    store = BagStore.open(extract(corrected, encoder, SETTINGS, work).path)
    assert set(store.cells["cell_type"]) == {"monocyte"}
    assert encoder.model.batches == 0
    assert store.verify() == []


def test_a_cell_in_a_box_is_encoded_as_if_it_had_been_cut_out_before(toy_cohort: Cohort, tmp_path: Path) -> None:
    boxed = dataclasses.replace(toy_cohort, cells=toy_cohort.cells.assign(box="2 3 6 6"))
    cut = dataclasses.replace(toy_cohort, root=tmp_path / "cut")
    for path in toy_cohort.cells["path"]:
        (cut.root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.open(toy_cohort.root / path).crop((2, 3, 8, 9)).save(cut.root / path)
    stores = [
        BagStore.open(extract(cohort, _encoder(), SETTINGS, Workspace(tmp_path / name)).path)
        for name, cohort in (("boxed", boxed), ("cut", cut))
    ]
    np.testing.assert_array_equal(stores[0].load(), stores[1].load())
    assert stores[0].attributes["cohort_digest"] != stores[1].attributes["cohort_digest"]


def test_a_rank_with_another_encoder_than_the_first_is_refused(toy_cohort: Cohort, tmp_path: Path) -> None:
    """As when the weights that a recipe wishes for are cached on one machine only."""
    work = Workspace(tmp_path / "work")
    path = extract(toy_cohort, _encoder(), SETTINGS, work).path
    agreed = [(path, Execution.recorded(BagStore(path).attributes), ["P0"]), None]

    class Second(Ranks):
        def agreed(self, decide: Any) -> Any:
            return agreed.pop(0)

        def each(self, work: Any) -> Any:
            return work()

    other = dataclasses.replace(_encoder(), digest="0" * 64)
    with pytest.raises(StoreError, match="was made otherwise \\(encoder_digest"):
        extract(toy_cohort, other, SETTINGS, work, ranks=Second(1, 2))
