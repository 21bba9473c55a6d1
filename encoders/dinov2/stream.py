"""Batches of views of cells, from the files of cohorts, some way ahead of the network.

Item ``number`` is a pure function of the seed: its image by ``encoders.dinov2.sampling``, its crops by a generator of
its own. So a batch is the same for any number of workers, ranks take slices of it, and a training goes on at any step.
"""

import multiprocessing
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from encoders.dinov2.augmentation import Augmentation, Interpolation, crop, square
from encoders.dinov2.cell_images import CellImages
from encoders.dinov2.sampling import Draws, generator_of, key_of, permuted
from milkit.errors import CohortError, ImageError, MilkitError, SettingsError
from milkit.images import RgbImage

TRIES = 16
"""Images of a source that are tried for one item before the files are taken to be missing as a whole."""

AHEAD = 2
"""Batches a worker that may wait for the network; memory is bounded by these."""


class Unreadable(NamedTuple):
    """An image that another one took the place of."""

    path: str
    """As the cohort's cells have it."""
    reason: str


class Item(NamedTuple):
    """The views of one cell."""

    views: Tensor
    """uint8 RGB (n_views, size, size, 3)."""
    label: int
    """Index of its label; ``UNLABELLED`` where it has none."""
    failures: list[Unreadable]
    """What could not be read on the way to it."""


class Batch(NamedTuple):
    """The views of one rank's cells of a step."""

    views: Tensor
    """uint8 RGB (n_views, b, size, size, 3)."""
    labels: Tensor
    """int64 (b,); ``UNLABELLED`` where a cell has none."""
    failures: list[Unreadable]
    """What could not be read, and was replaced."""


@dataclass(frozen=True)
class ViewStream(Dataset[Item]):
    """Views of cells by number, from 0 on without end.

    Attributes:
        sources: What is drawn from.
        draws: Which image a number is; its seed and purpose also name the crops' random numbers.
        augmentation: How a crop is drawn.
        size: Side of the crops in pixels, and of the square that the image is brought to before.
        n_views: Crops of each image, 1 or 2; the second has probabilities of its own in ``augmentation``.
        interpolation: By which the image becomes a square.
    """

    sources: tuple[CellImages, ...]
    draws: Draws
    augmentation: Augmentation
    size: int
    n_views: int = 2
    interpolation: Interpolation = "lanczos"

    def __getitem__(self, number: int) -> Item:
        """The views of one number; an image that cannot be read is replaced by another of its source.

        Raises:
            CohortError: If ``TRIES`` images of a source cannot be read.
        """
        image, label, failures = self._readable(number)
        image = square(image, self.size, self.interpolation)
        seed, purpose = self.draws.seed, self.draws.purpose
        views = [
            crop(image, self.augmentation, view, generator_of(seed, purpose, "crop", number, view), self.size)
            for view in range(self.n_views)
        ]
        return Item(torch.from_numpy(np.stack(views)), label, failures)

    def batch(self, numbers: Iterable[int]) -> Batch:
        """Several numbers at once."""
        items = [self[number] for number in numbers]
        views = torch.stack([item.views for item in items], dim=1)
        labels = torch.tensor([item.label for item in items], dtype=torch.int64)
        return Batch(views, labels, [failure for item in items for failure in item.failures])

    def _readable(self, number: int) -> tuple[RgbImage, int, list[Unreadable]]:
        drawn = self.draws.at(number)
        cells = self.sources[drawn.source]
        failures: list[Unreadable] = []
        for row in self._rows(number, drawn.row, len(cells)):
            try:
                return cells.read(row), int(cells.labels[row]), failures
            except ImageError as error:
                failures.append(Unreadable(cells.path(row), str(error)))
        last = failures[-1]
        msg = (
            f"{len(failures)} images of {cells.root} were tried and none could be read, the last one {last.path} "
            f"({last.reason}), expected most to be readable; run `milkit cohort check`, and mend the folder."
        )
        raise CohortError(msg)

    def _rows(self, number: int, row: int, size: int) -> Iterator[int]:
        """The row that was drawn, then others at random; the next ones in the table would be as damaged as it is."""
        yield row
        key = key_of(self.draws.seed, self.draws.purpose, "instead", number)
        others = (permuted(size, i, key) for i in range(size))
        for _, other in zip(range(TRIES - 1), (other for other in others if other != row), strict=False):
            yield other


def batches(
    stream: ViewStream, *, batch_size: int, rank: int, world: int, start: int, stop: int, workers: int
) -> Iterator[Batch]:
    """The rank's part of the batches of steps ``start`` to ``stop - 1``, in order; at once, workers begin to read.

    Args:
        stream: What the numbers mean.
        batch_size: Images of a step over all ranks; rank r has the r-th of ``world`` equal slices.
        rank: The number of this process in the job.
        world: Processes of the job.
        start: The first step.
        stop: One past the last step.
        workers: Processes that read ahead, of one thread each; with 0 a batch is read when it is asked for.

    Raises:
        SettingsError: If the ranks cannot have equal slices.
        CohortError: While iterating, if the files of a source cannot be read.
    """
    if batch_size % world:
        msg = (
            f"The batch of {batch_size} images was to be shared by {world} processes, expected a multiple of {world}; "
            f"set the batch size to {max(batch_size // world, 1) * world}, or start another number of processes."
        )
        raise SettingsError(msg)
    slices = _Slices(batch_size, rank, world, start, stop)
    context = _context() if workers and stop > start else None
    loader: DataLoader[Batch | MilkitError] = DataLoader(
        _Batches(stream),
        batch_sampler=slices,
        collate_fn=_as_it_is,
        num_workers=workers if context else 0,
        prefetch_factor=AHEAD if context else None,
        multiprocessing_context=context,
        worker_init_fn=_begin if context else None,
        pin_memory=context is not None and _gpu_in_use(),  # from there it reads while it computes
        generator=torch.Generator(),  # else the loader draws from the process's own, which a training resumes
    )
    return _raising(iter(loader))


def _raising(loaded: Iterator[Batch | MilkitError]) -> Iterator[Batch]:
    try:
        for batch in loaded:
            if isinstance(batch, MilkitError):
                raise batch
            yield batch
    finally:
        del loaded  # with it the workers end; in an error's traceback it would live on


@dataclass(frozen=True)
class _Slices:
    """The numbers of a rank's part of each step."""

    batch_size: int
    rank: int
    world: int
    start: int
    stop: int

    def __iter__(self) -> Iterator[list[int]]:
        part = self.batch_size // self.world
        for step in range(self.start, self.stop):
            first = step * self.batch_size + self.rank * part
            yield list(range(first, first + part))


@dataclass(frozen=True)
class _Batches(Dataset[Any]):
    """Whole batches, or the error that ended one: raised in a worker, its text would become a traceback's."""

    stream: ViewStream

    def __getitems__(self, numbers: list[int]) -> Batch | MilkitError:
        try:
            return self.stream.batch(numbers)
        except MilkitError as error:
            return error


def _as_it_is(batch: Any) -> Any:
    return batch


def _gpu_in_use() -> bool:
    return bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def _context() -> Any:
    """How workers are started: by a server that was started afresh, and has imported all that they need.

    Copies of this process (fork) would hold whatever its threads (of PyTorch, CUDA, gloo) had locked; fresh processes
    (spawn) import PyTorch each. The server does that once, in two seconds, and its copies share that memory.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _begin(_: int) -> None:
    """PyTorch has set a worker to one thread; an interruption reaches all processes, and the first one ends others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
