"""Batches of views: the same for any workers and ranks, resumable, and open about images that cannot be read."""

import multiprocessing
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from encoders.dinov2.augmentation import MILD, Augmentation, crop, square
from encoders.dinov2.cell_images import UNLABELLED, CellImages, by_label
from encoders.dinov2.sampling import Draws, generator_of
from encoders.dinov2.stream import TRIES, Batch, ViewStream, batches
from milkit.cohort import Cohort
from milkit.errors import CohortError, ImageError, SettingsError
from milkit.images import read_image

SIZE = 14


def write_cells(folder: Path, n: int, *, seed: int = 0) -> CellImages:
    """Images of noise, told apart by any pixel; cell i has the label i % 3."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    for number in range(n):
        pixels = generator.integers(0, 256, size=(16, 18, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"cell_{number}.png")
    paths = [f"cell_{number}.png" for number in range(n)]
    return CellImages(folder, paths, [""] * n, [number % 3 for number in range(n)])


def stream_of(*sources: CellImages, seed: int = 0, n_views: int = 2) -> ViewStream:
    draws = Draws([len(cells) for cells in sources], seed=seed)
    return ViewStream(sources, draws, Augmentation(), SIZE, n_views)


def run(stream: ViewStream, **how: int) -> list[Batch]:
    chosen = {"batch_size": 6, "rank": 0, "world": 1, "start": 0, "stop": 4, "workers": 0} | how
    return list(batches(stream, **chosen))


def same(some: list[Batch], others: list[Batch]) -> bool:
    return len(some) == len(others) and all(
        torch.equal(a.views, b.views) and torch.equal(a.labels, b.labels) and a.failures == b.failures
        for a, b in zip(some, others, strict=True)
    )


@pytest.fixture
def cells(tmp_path: Path) -> CellImages:
    return write_cells(tmp_path / "cells", 11)


def test_an_item_is_two_crops_of_the_image_that_its_number_means(cells: CellImages) -> None:
    stream = stream_of(cells, seed=5)
    for number in (0, 1, 30, 4096):
        item = stream[number]
        row = stream.draws.at(number).row
        image = square(read_image(cells.root / f"cell_{row}.png"), SIZE)
        for view in (0, 1):
            source = generator_of(5, "cells", "crop", number, view)
            np.testing.assert_array_equal(item.views[view], crop(image, Augmentation(), view, source, SIZE))
        assert (item.label, item.failures) == (row % 3, [])
        assert not torch.equal(item.views[0], item.views[1])


def test_a_batch_has_its_crops_first_and_its_cells_second(cells: CellImages) -> None:
    stream = stream_of(cells)
    batch = run(stream)[2]
    assert (batch.views.shape, batch.views.dtype) == ((2, 6, SIZE, SIZE, 3), torch.uint8)
    assert (batch.labels.shape, batch.labels.dtype) == ((6,), torch.int64)
    for place in range(6):
        assert torch.equal(batch.views[:, place], stream[2 * 6 + place].views)
        assert batch.labels[place] == stream[2 * 6 + place].label


def test_one_view_is_drawn_where_a_label_is_learned_from(cells: CellImages) -> None:
    stream = ViewStream((cells,), Draws((11,), seed=0, purpose="labelled"), MILD, SIZE, n_views=1)
    assert run(stream)[0].views.shape == (1, 6, SIZE, SIZE, 3)


def test_any_number_of_workers_gives_the_same_batches_in_the_same_order(cells: CellImages) -> None:
    (cells.root / "cell_4.png").write_bytes(b"no image")
    alone = run(stream_of(cells))
    assert any(batch.failures for batch in alone)
    for workers in (1, 2):
        assert same(run(stream_of(cells), workers=workers), alone)
    assert multiprocessing.active_children() == []


def test_the_parts_of_the_ranks_make_up_the_batch_of_one_process(cells: CellImages) -> None:
    alone = run(stream_of(cells))
    parts = [run(stream_of(cells), rank=rank, world=3) for rank in range(3)]
    for step, batch in enumerate(alone):
        assert torch.equal(torch.cat([part[step].views for part in parts], dim=1), batch.views)
        assert torch.equal(torch.cat([part[step].labels for part in parts]), batch.labels)


def test_a_training_that_goes_on_sees_what_it_would_have_seen(cells: CellImages) -> None:
    assert same(run(stream_of(cells), start=5, stop=8), run(stream_of(cells), stop=8)[5:])
    assert run(stream_of(cells), start=3, stop=3, workers=1) == []


def test_no_random_number_is_taken_from_the_process_s_own(cells: CellImages) -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    run(stream_of(cells))
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)


def test_views_keep_no_memory_of_the_images_before(cells: CellImages) -> None:
    stream = stream_of(cells)
    begun = len(pickle.dumps(stream))
    run(stream)
    assert len(pickle.dumps(stream)) < begun + 80_000  # the order of one block of draws


def test_an_unreadable_image_is_replaced_by_another_of_its_source_and_reported(
    cells: CellImages, tmp_path: Path
) -> None:
    others = write_cells(tmp_path / "others", 5, seed=1)
    (cells.root / "cell_3.png").write_bytes(b"no image")
    (cells.root / "cell_7.png").unlink()
    stream = stream_of(cells, others)
    whole = {cells.read(row).tobytes() for row in range(11) if row not in (3, 7)}
    reasons: Counter[tuple[str, str]] = Counter()
    for number in range(200):
        drawn, item = stream.draws.at(number), stream[number]
        damaged = drawn.source == 0 and drawn.row in (3, 7)
        assert bool(item.failures) == damaged
        if damaged:
            assert item.failures[0].path == f"cell_{drawn.row}.png"
            image, _, _ = stream._readable(number)
            assert image.tobytes() in whole
        reasons.update(tuple(failure) for failure in item.failures)
    assert set(reasons) == {
        ("cell_3.png", "the file is not an image"),
        ("cell_7.png", "the file cannot be opened (No such file or directory)"),
    }


@pytest.mark.parametrize("workers", [0, 1])
def test_a_source_without_a_readable_image_ends_the_training_in_one_sentence(tmp_path: Path, workers: int) -> None:
    """Also from a worker, where an error's text would become that of a traceback."""
    gone = CellImages(tmp_path, [f"{number}.png" for number in range(40)], [""] * 40, [UNLABELLED] * 40)
    with pytest.raises(CohortError) as caught:
        run(stream_of(gone), workers=workers)
    begin, _, end = str(caught.value).partition(", the last one ")
    assert begin == f"{TRIES} images of {tmp_path} were tried and none could be read"
    assert end.endswith(
        ".png (the file cannot be opened (No such file or directory)), expected most to be readable; run `milkit "
        "cohort check`, and mend the folder."
    )
    assert multiprocessing.active_children() == []


def test_a_source_of_one_unreadable_image_ends_too(tmp_path: Path) -> None:
    with pytest.raises(CohortError, match=r"^1 images of"):
        stream_of(CellImages(tmp_path, ["a.png"], [""], [0]))[0]


def test_a_batch_that_the_processes_cannot_share_alike_is_refused_before_a_worker_starts(cells: CellImages) -> None:
    with pytest.raises(SettingsError) as caught:
        batches(stream_of(cells), batch_size=10, rank=0, world=4, start=0, stop=1, workers=0)
    assert str(caught.value) == (
        "The batch of 10 images was to be shared by 4 processes, expected a multiple of 4; set the batch size to 8, or "
        "start another number of processes."
    )


def test_workers_end_with_the_training_that_leaves_off_early(cells: CellImages) -> None:
    running = batches(stream_of(cells), batch_size=6, rank=0, world=1, start=0, stop=10**6, workers=1)
    next(running)
    assert len(multiprocessing.active_children()) == 1
    running.close()
    assert multiprocessing.active_children() == []


def test_cells_of_a_cohort_are_read_with_their_boxes(tmp_path: Path) -> None:
    field = np.random.default_rng(0).integers(0, 256, size=(20, 30, 3), dtype=np.uint8)
    Image.fromarray(field).save(tmp_path / "Feld ä.png")
    table = pd.DataFrame(
        {
            "cell_id": ["a", "b"],
            "patient_id": [None, None],
            "path": ["Feld ä.png", "Feld ä.png"],
            "box": ["3 4 10 12", None],
        }
    )
    cohort = Cohort("toy", tmp_path, pd.DataFrame({"label": []}), table, ())
    found = CellImages.of(cohort, [7, UNLABELLED])
    assert (len(found), found.labels.tolist(), found.path(1)) == (2, [7, UNLABELLED], "Feld ä.png")
    np.testing.assert_array_equal(found.read(0), field[4:16, 3:13])
    np.testing.assert_array_equal(found.read(1), field)
    assert CellImages.of(cohort).labels.tolist() == [UNLABELLED, UNLABELLED]


def test_a_cell_takes_little_more_memory_than_its_path() -> None:
    paths = [f"patient_{number // 100}/image_{number}.tif" for number in range(20_000)]
    cells = CellImages(Path("root"), paths, [""] * 20_000, [UNLABELLED] * 20_000)
    assert len(pickle.dumps(cells)) < sum(map(len, paths)) + 14 * 20_000 + 1000
    assert [cells.path(row) for row in (0, 1, 777, 19_999)] == [paths[row] for row in (0, 1, 777, 19_999)]


def test_some_of_the_cells_are_the_same_cells(cells: CellImages) -> None:
    some = cells.keep([9, 2])
    assert ([some.path(0), some.path(1)], some.labels.tolist()) == (["cell_9.png", "cell_2.png"], [0, 2])
    np.testing.assert_array_equal(some.read(1), cells.read(2))
    assert len(cells.keep([])) == 0
    with pytest.raises(ImageError):
        CellImages(cells.root, ["none.png"], [""], [0]).read(0)


def labelled(*labels: int) -> CellImages:
    return CellImages(Path("root"), [f"{i}.png" for i in range(len(labels))], [""] * len(labels), labels)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_a_label_is_drawn_with_its_number_of_cells_to_the_power_of_the_balance(balance: float) -> None:
    """Over both cohorts: 9 cells of label 0 and 4 of label 2; those without a label are not drawn."""
    first, second = labelled(*[0] * 6, *[2] * 4, *[UNLABELLED] * 5), labelled(*[0] * 3, UNLABELLED)
    sources, weights = by_label((first, second), balance)
    assert [set(source.labels.tolist()) for source in sources] == [{0}, {2}, {0}]
    assert [len(source) for source in sources] == [6, 4, 3]
    expected = [9**balance * 6 / 9, 4**balance, 9**balance * 3 / 9]
    np.testing.assert_allclose(weights, expected)
    Draws([len(source) for source in sources], weights, seed=0)


def test_labels_to_learn_from_are_refused_where_there_are_none() -> None:
    with pytest.raises(CohortError) as caught:
        by_label((labelled(UNLABELLED, UNLABELLED),), 0.5)
    assert str(caught.value) == (
        "None of the cells has a label, expected labelled ones to learn from; add a cohort with labels."
    )
