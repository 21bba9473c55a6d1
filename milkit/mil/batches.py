"""All bags of a store in memory, once, and padded batches of them with a mask."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

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
        features = torch.from_numpy(store.load()).to(device).float()
        readable = torch.isfinite(features.sum(dim=1)).cpu().numpy()
        names = tuple(str(name) for name in store.patients.index)
        counts = [int(readable[store.rows_of(name)].sum()) for name in names]
        if 0 in counts:
            name = names[counts.index(0)]
            rows = store.rows_of(name)
            msg = (
                f"None of the {rows.stop - rows.start} cells of patient '{name}' could be read; "
                "mend the images that the store's failures.csv lists, then run `milkit extract` again."
            )
            raise StoreError(msg)
        if not readable.all():
            features = features[torch.from_numpy(readable).to(device)]
        cell_ids = store.cells["cell_id"].to_numpy()[readable].tolist()
        return cls(names, features, (0, *accumulate(counts)), tuple(cell_ids))

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
