"""Which image comes when: a function of a seed and a number, without a list of what was drawn.

Number 0, 1, 2, … are the images of a training in the order of its batches. Any of them is found in the same few
microseconds, so a training goes on where it was stopped, each process of a job takes its own numbers, and nothing grows
with the images or the steps.
"""

import hashlib
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from milkit.errors import SettingsError

BLOCK = 4096
"""Consecutive numbers over which the shares of the sources are exact; a square of a whole number."""

ROUNDS = 6
"""Of the permutation."""

_BITS = 2**64 - 1


def key_of(*parts: int | str) -> int:
    """64 bits that name a stream of random numbers, such as ``key_of(seed, "crop", number, view)``."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


def generator_of(*parts: int | str) -> np.random.Generator:
    """A generator of its own for each name; see ``key_of``.

    Philox's streams are independent by their keys (Salmon et al., Parallel random numbers: as easy as 1, 2, 3, 2011).
    """
    return np.random.Generator(np.random.Philox(key=key_of(*parts)))


def permuted(n: int, i: int, key: int) -> int:
    """Where ``i`` of 0 … n - 1 comes in a random order of them, by ``key``: a bijection.

    A Feistel network on the rectangle of about √n x √n that holds n, walked on from what lies beyond n (Black and
    Rogaway, Ciphers with arbitrary finite domains, 2002). At most √n of the rectangle do.
    """
    columns = math.isqrt(n - 1) + 1
    rows = -(-n // columns)
    place: int = _feistel(i, columns, rows, key)
    while place >= n:
        place = _feistel(place, columns, rows, key)
    return place


class Drawn(NamedTuple):
    """One image: the number of its source, and its row there."""

    source: int
    row: int


class Draws:
    """Images of several sources, each with its share: ``at(number)``.

    Every ``BLOCK`` numbers hold each source as often as its share says, in an order of their own. Within a source, all
    images come once before one comes again, each time in another order.

    Attributes:
        sizes: Images of each source.
        shares: Of ``BLOCK`` draws, how many are of each source; at least one where its weight is not zero.
        seed, purpose: Name the order.
    """

    def __init__(
        self, sizes: Sequence[int], weights: Sequence[float] | None = None, *, seed: int, purpose: str = "cells"
    ) -> None:
        """``weights`` are in any unit; without them a source weighs as much as it has images, as published."""
        self.sizes, self.seed, self.purpose = tuple(sizes), seed, purpose
        self.shares = _shares(self.sizes, tuple(float(size) for size in sizes) if weights is None else tuple(weights))
        self._block = (-1, np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))

    def at(self, number: int) -> Drawn:
        """The image of a number from 0 on."""
        block, position = divmod(number, BLOCK)
        if self._block[0] != block:
            self._block = (block, *self._order(block))
        source, before = int(self._block[1][position]), int(self._block[2][position])
        epoch, place = divmod(block * self.shares[source] + before, self.sizes[source])
        key = key_of(self.seed, self.purpose, "row", source, epoch)
        return Drawn(source, permuted(self.sizes[source], place, key))

    def _order(self, block: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """For each position in a block its source, and how often that source comes before it there."""
        side = math.isqrt(BLOCK)
        key = key_of(self.seed, self.purpose, "block", block)
        shuffled = _feistel(np.arange(BLOCK, dtype=np.uint64), side, side, key)
        sources = np.repeat(np.arange(len(self.shares)), self.shares)[shuffled]
        order = np.argsort(sources, kind="stable")
        before = np.empty(BLOCK, dtype=np.int64)
        before[order] = np.arange(BLOCK) - np.repeat(np.cumsum(self.shares) - self.shares, self.shares)
        return sources, before


def _shares(sizes: tuple[int, ...], weights: tuple[float, ...]) -> tuple[int, ...]:
    """Whole numbers that sum to ``BLOCK``, by largest remainder; no positive weight gets less than one."""
    if len(sizes) != len(weights):
        msg = f"{len(weights)} weights were given for {len(sizes)} sources of images; give each source one weight."
        raise SettingsError(msg)
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not any(weights):
        msg = f"The weights of the sources are {weights}, expected numbers from 0 on, not all of them 0; mend them."
        raise SettingsError(msg)
    drawn = [number for number, weight in enumerate(weights) if weight > 0]
    empty = [number for number in drawn if sizes[number] < 1]
    if empty:
        msg = f"Source {empty[0] + 1} of {len(sizes)} has a weight and no images; leave it out, or weigh it with 0."
        raise SettingsError(msg)
    if len(drawn) > BLOCK:
        msg = f"{len(drawn)} sources of images have a weight, expected at most {BLOCK}; join some of them."
        raise SettingsError(msg)
    total = math.fsum(weights)
    wanted = [weight / total * BLOCK for weight in weights]
    shares = [max(int(weight > 0), math.floor(want)) for weight, want in zip(weights, wanted, strict=True)]
    while sum(shares) < BLOCK:
        shares[max(drawn, key=lambda number: wanted[number] - shares[number])] += 1
    while sum(shares) > BLOCK:
        shares[max((n for n in drawn if shares[n] > 1), key=lambda number: shares[number] - wanted[number])] -= 1
    return tuple(shares)


def _feistel(i: Any, columns: int, rows: int, key: int) -> Any:
    """A bijection on 0 … columns · rows - 1: in turns, one coordinate is shifted by a hash of the other.

    Of an int, or of each of an array of uint64, which are the same.
    """
    left, right = i % columns, i // columns
    for number in range(ROUNDS):
        round_key = _mixed((key + number * 0x9E3779B97F4A7C15) & _BITS)
        if number % 2:
            right = (right + _mixed(left ^ round_key) % rows) % rows
        else:
            left = (left + _mixed(right ^ round_key) % columns) % columns
    return right * columns + left


def _mixed(z: Any) -> Any:
    """64 bits, mixed (the last step of SplitMix64; Steele, Lea and Flood, 2014)."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _BITS
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _BITS
    return z ^ (z >> 31)
