"""Stores of one cohort by different encoders: those that a run may choose among, all their bags in memory once.

A comparison of encoders is one only if all of them saw the same: the same patients with the same labels, the same cells
from the same images, and the same of them readable.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from milkit.bags import BagStore
from milkit.errors import SettingsError, StoreError, first_rows
from milkit.mil.batches import Bags
from milkit.mil.candidates import ENCODER
from milkit.registry import unknown_name
from milkit.runs import Workspace
from milkit.settings import MilSettings

_DIGEST = r"-[0-9a-f]{8}"


class Loaded(NamedTuple):
    """One store's bags, and the digest of the encoder that made them."""

    bags: Bags
    encoder_digest: str


@dataclass(frozen=True, slots=True)
class CandidateStores:
    """The stores of a run, by the path that the settings of a candidate give as ``store``; one where none is chosen."""

    stores: Mapping[Path | None, BagStore]

    @classmethod
    def of(cls, store: BagStore, settings: MilSettings) -> "CandidateStores":
        """Open the stores that ``tune`` names, or take the given one.

        Raises:
            StoreError: A store that is missing or incomplete, or that holds other patients or cells than ``store``.
            SettingsError: Two of them are by the same encoder.
        """
        if ENCODER not in settings.tune:
            return cls({settings.store: store})
        stores: dict[Path | None, BagStore] = {}
        for path in map(Path, map(str, settings.tune[ENCODER])):
            stores[path] = store if path.resolve() == store.path.resolve() else BagStore.open(path)
            _require_same(store, stores[path])
            digests = [one.attributes["encoder_digest"] for one in stores.values()]
            if digests.count(digests[-1]) > 1:
                msg = (
                    f"The store {path} is by the encoder {stores[path].attributes['encoder']} as another of them is, "
                    "where candidates must differ; leave one of the two out."
                )
                raise SettingsError(msg)
        return cls(stores)

    def dim(self, settings: MilSettings) -> int:
        """Length of the features that a candidate learns from."""
        return self.stores[settings.store].dim

    @property
    def names(self) -> dict[str, str]:
        """Names of the encoders by the path of their store; two versions of one also have a part of their digest."""
        called = [str(store.attributes["encoder"]) for store in self.stores.values()]
        return {
            str(path): name if called.count(name) == 1 else f"{name}-{str(store.attributes['encoder_digest'])[:8]}"
            for (path, store), name in zip(self.stores.items(), called, strict=True)
        }

    def load(self, device: torch.device) -> dict[Path | None, Loaded]:
        """All bags of all stores."""
        return {
            path: Loaded(Bags.load(store, device), str(store.attributes["encoder_digest"]))
            for path, store in self.stores.items()
        }


def with_stores(settings: MilSettings, given: Sequence[Path], workspace: Workspace) -> MilSettings:
    """The settings with paths for the encoders that ``tune`` names, and with several given stores as candidates.

    A name is looked up beside the run's store, which is the workspace's current one where none is given.

    Args:
        settings: Of `milkit train-mil`.
        given: What ``--store`` was given, once or several times.
        workspace: Where stores are kept.

    Raises:
        SettingsError: Several stores although ``tune`` names encoders, or a name with several stores.
        UnknownName: A name without a store.
    """
    if ENCODER in settings.tune:
        if len(given) > 1:
            msg = f"{len(given)} stores were given, and tune names encoders to choose among; leave one of the two out."
            raise SettingsError(msg)
        beside = (settings.store or workspace.current("store")).parent
        paths = [_path(str(value), beside) for value in settings.tune[ENCODER]]
    elif len(given) > 1:
        paths = list(given)
    else:
        return settings
    found = tuple(str(path.resolve()) for path in paths)
    return settings.model_copy(update={"store": Path(found[0]), "tune": {**settings.tune, ENCODER: found}})


def _path(value: str, beside: Path) -> Path:
    """The store that a path or the name of an encoder means."""
    if "/" in value or value.endswith(".zarr"):
        return Path(value)
    known = sorted(beside.glob("*.zarr"))
    found = [path for path in known if re.fullmatch(f"{re.escape(value)}({_DIGEST})?", path.stem)]
    if not found:
        what = f"encoder with a store in {beside}"
        raise unknown_name(what, value, sorted({re.sub(f"{_DIGEST}$", "", path.stem) for path in known}))
    if len(found) > 1:
        msg = (
            f"The encoder {value} has {len(found)} stores in {beside} ({', '.join(path.name for path in found)}), "
            "expected one; name them by their paths."
        )
        raise SettingsError(msg)
    return found[0]


def _require_same(first: BagStore, second: BagStore) -> None:
    """Refuse a store that encoders cannot be compared with."""
    columns = ["patient_id", "cell_id"]
    if not first.cells[columns].equals(second.cells[columns]):
        ours, theirs = (set(map(tuple, store.cells[columns].to_numpy().tolist())) for store in (first, second))
        differ = [cell for _, cell in sorted(ours ^ theirs)]
        what = f"cells ({len(differ)} are in one of them only, {first_rows(differ)})" if differ else "orders of cells"
    elif not first.patients.equals(second.patients):
        what = "tables of patients"
    elif _differ(first, second):
        what = "images of the same cells"
    elif set(first.failures["cell_id"]) != set(second.failures["cell_id"]):
        what = "readable cells"
    else:
        return
    msg = (
        f"The stores {first.path} and {second.path} hold different {what}, where encoders are compared on the same "
        "patients and cells; run `milkit extract` again for both."
    )
    raise StoreError(msg)


def _differ(first: BagStore, second: BagStore) -> bool:
    """Whether a cell's image is known to be another file."""
    ours, theirs = first.image_digests(), second.image_digests()
    known = ours.any(axis=1) & theirs.any(axis=1)
    return bool((ours[known] != theirs[known]).any())
