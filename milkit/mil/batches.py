"""All bags of a store in memory, once, and padded batches of them with a mask."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from milkit.bags import BagStore
from milkit.errors import StoreError


@dataclass(frozen=True, slots=True)
class Bags:
    """Every readable cell of every patient, packed one patient after the other.

    Attributes:
        patients: Patient ids; a patient's position here is the index that the methods take.
        features: (T, dim) float32, all cells of all patients, on the device where training happens.
        offsets: (n_patients + 1,) first row of each patient, and T.
        cell_ids: Ids of the T rows. Cells that could not be read have no row.
    """

    patients: tuple[str, ...]
    features: Tensor
    offsets: tuple[int, ...]
    cell_ids: tuple[str, ...]

    @classmethod
    def load(cls, store: BagStore, device: torch.device) -> "Bags":
        """Read a whole store; a patient without a readable cell is a ``StoreError``."""
        features: list[npt.NDArray[np.float32]] = []
        cell_ids: list[str] = []
        offsets = [0]
        for bag in store:
            readable = np.isfinite(bag.features.sum(axis=1))
            if not readable.any():
                msg = (
                    f"None of the {len(readable)} cells of patient '{bag.patient_id}' could be read; "
                    "mend the images that the store's failures.csv lists, then run `milkit extract` again."
                )
                raise StoreError(msg)
            features.append(bag.features[readable])
            cell_ids += [cell for cell, fine in zip(bag.cell_ids, readable, strict=True) if fine]
            offsets.append(offsets[-1] + int(readable.sum()))
        packed = torch.from_numpy(np.concatenate(features)).to(device)
        return cls(tuple(str(name) for name in store.patients.index), packed, tuple(offsets), tuple(cell_ids))

    @property
    def dim(self) -> int:
        """Length of a feature vector."""
        return int(self.features.shape[1])

    def indices(self, patients: Sequence[str]) -> list[int]:
        """Positions of the patients in ``patients``."""
        position = {name: index for index, name in enumerate(self.patients)}
        return [position[name] for name in patients]

    def cells_of(self, index: int) -> slice:
        """Rows of one patient in ``features`` and ``cell_ids``."""
        return slice(self.offsets[index], self.offsets[index + 1])

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Features (B, N, dim), zero where padded, and mask (B, N), true where there is a cell."""
        bags = [self.features[self.cells_of(index)] for index in indices]
        features = torch.nn.utils.rnn.pad_sequence(bags, batch_first=True)
        lengths = torch.tensor([len(bag) for bag in bags], device=features.device)
        mask = torch.arange(features.shape[1], device=features.device)[None, :] < lengths[:, None]
        return features, mask
