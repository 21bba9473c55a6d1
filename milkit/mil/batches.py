"""All bags of a store in memory, once, and how they go through a head: padded with a mask, or packed, in portions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from milkit.bags import BagStore
from milkit.errors import StoreError
from milkit.mil.packing import padding_mask


@dataclass(frozen=True)
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

    def n_cells(self, index: int) -> int:
        """Number of readable cells of one patient."""
        return self.offsets[index + 1] - self.offsets[index]

    def moments(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Mean and spread (with divisor n) of each feature over all cells of some patients, in float64.

        From the means and squared deviations of each patient, which are computed once for all folds.
        """
        counts = torch.tensor([self.n_cells(index) for index in indices], dtype=torch.float64)[:, None]
        own = self._own_moments[list(indices)].cpu()  # (n, 2, dim)
        mean = (counts * own[:, 0]).sum(dim=0) / counts.sum()
        squares = (own[:, 1] + counts * (own[:, 0] - mean).square()).sum(dim=0)
        return mean, (squares / counts.sum()).sqrt()

    @cached_property
    def _own_moments(self) -> Tensor:
        """Each patient's mean of each feature, and the sum of squared deviations from it: (n_patients, 2, dim)."""
        found = []
        for index in range(len(self.patients)):  # one by one: float64 of all is too large
            bag = self.features[self.cells_of(index)].detach().double()
            mean = bag.mean(dim=0)
            found.append(torch.stack([mean, (bag - mean).square().sum(dim=0)]))
        return torch.stack(found)

    def portions(self, indices: Sequence[int], rows: int) -> list[list[int]]:
        """Divide patients, by their positions in ``indices``, into portions of about as many cells as are wanted.

        Bags of like size stand together, so that padding is short, and each portion has at most ``rows`` cells with its
        padding, or a single bag.
        """
        portions: list[list[int]] = []
        width = 0
        for position in sorted(range(len(indices)), key=lambda position: -self.n_cells(indices[position])):
            if not portions or (len(portions[-1]) + 1) * width > rows:
                portions.append([])
                width = self.n_cells(indices[position])
            portions[-1].append(position)
        return portions

    def batch(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Features (B, N, dim), zero where padded, and mask (B, N), true where there is a cell."""
        bags = [self.features[self.cells_of(index)] for index in indices]
        features = torch.nn.utils.rnn.pad_sequence(bags, batch_first=True)
        return features, padding_mask([len(bag) for bag in bags], features.device)

    def packed(
        self, indices: Sequence[int], shift: Tensor, scale: Tensor, dtype: torch.dtype, multiple: int = 1
    ) -> tuple[Tensor, tuple[int, ...]]:
        """Features times ``scale`` plus ``shift``, packed: (T, dim), and offsets (B + 1).

        T is a ``multiple``; rows behind the last bag are zero.
        """
        offsets = (0, *accumulate(self.n_cells(index) for index in indices))
        features = torch.empty(-(-offsets[-1] // multiple) * multiple, self.dim, dtype=dtype, device=shift.device)
        features[offsets[-1] :] = 0
        for index, start, end in zip(indices, offsets[:-1], offsets[1:], strict=True):
            torch.addcmul(shift, self.features[self.cells_of(index)], scale, out=features[start:end])
        return features, offsets
