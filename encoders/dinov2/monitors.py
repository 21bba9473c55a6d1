"""What tells, while a network trains without labels, whether it learns or collapses.

Its losses do not: a network that gives every image the same features has low ones, too. Letters: n cells, D features,
K prototypes.
"""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from encoders.dinov2.processes import summed
from encoders.dinov2.sampling import generator_of
from milkit.cohort import Cohort
from milkit.decode import decode
from milkit.encoder import Transform
from milkit.errors import CohortError
from milkit.images import Place
from milkit.labelled_cells import Groups, labels_of
from milkit.statistics.discrimination import balanced_accuracy
from milkit.statistics.hierarchy import Tree, mistake_heights, path_scores
from milkit.statistics.neighbours import nearest_of_others, vote
from milkit.tables import places
from milkit.taxonomy import LabelMap

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]

NEIGHBOURS = (1, 20)
"""How many of the nearest cells vote on a cell's class."""

SCORE = "knn_20"
"""The figure by which the best teacher is chosen."""

BATCH = 64
"""Cells that are encoded, and that are decoded ahead, at once."""

_NONE = -1
"""In place of a class."""


def rank_me(features: Floats) -> float:
    """How many dimensions features (n, D) use: between 1 and the smaller of n and D; NaN where they are not finite.

    exp(-Σ p ln p), where p are the singular values over their sum (RankMe: Garrido et al., arXiv:2210.02885, without
    the 1e-7 that they add for the logarithm's sake: 0 ln 0 is 0 here). As published, no mean is subtracted.
    """
    if not np.isfinite(features).all():
        return math.nan
    values = np.linalg.svd(features.astype(np.float64), compute_uv=False)
    values = values[values > 0]
    shares = values / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


@torch.no_grad()
def centre_entropy(logits: Tensor, temperature: float) -> float:
    """How evenly the prototypes are used: 1 where all are alike, 0 where one of them is all that is used.

    H(mean of softmax(logits / temperature)) / ln K, the mean over the rows (n, K) of all processes, which call this
    together. It is 1, too, where every image has the same even output: ``rank_me`` tells that.
    """
    used = torch.softmax(logits.float() / temperature, dim=-1).sum(dim=0)
    counted = summed(torch.cat([used, used.new_tensor([len(logits)])]))
    mean = counted[:-1] / counted[-1]
    return float(torch.special.entr(mean).sum()) / math.log(len(mean)) if len(mean) > 1 else 1.0


@dataclass(frozen=True)
class Validation:
    """Cells in memory, the same at every evaluation.

    Attributes:
        squares: (n, size, size, 3) uint8 RGB, so 3 n size² bytes.
        labels: (n,) position of each cell's class in ``classes``; negative where it has none that can be told.
        classes: In alphabetical order; none where fewer than two can be told from others.
        groups: (n,) cells that are alike for reasons of their own, as ``milkit.labelled_cells.Groups`` has them: copies
            of an image, cells of one file, cells of a patient.
        unreadable: How many cells were drawn and could not be read.
        tree: The taxonomy that the classes have a meaning in; None where none is known.
        nodes: (classes,) position of each class's node in it; None without a tree.
    """

    squares: npt.NDArray[np.uint8]
    labels: Ints
    classes: tuple[str, ...]
    groups: Ints
    unreadable: int
    tree: Tree | None = None
    nodes: Ints | None = None

    @classmethod
    def of(
        cls,
        cohort: Cohort,
        transform: Transform,
        *,
        limit: int,
        seed: int,
        meaning: LabelMap | None = None,
    ) -> "Validation":
        """Read at most ``limit`` labelled cells, which ``seed`` chooses such that the classes keep their shares.

        Where no cell has a label, any are taken. A class in fewer than two groups cannot be found from others, and its
        cells count for ``rank_me`` alone.

        Args:
            cohort: Of the cells.
            transform: How the encoder sees them.
            limit: Cells.
            seed: Determines which.
            meaning: What the labels mean in a taxonomy; a class is the deepest node that holds all that it means.

        Raises:
            CohortError: If none of them can be read.
            UnknownName: If a class has no meaning there.
        """
        cells = cohort.cells
        if "cell_type" in cells and (types := labels_of(cells, "cell_type")).notna().any():
            cells, names = cells[types.notna()], types.dropna().to_numpy(dtype=str)
        else:
            names = np.full(len(cells), "")
        drawn = _drawn(names, limit, generator_of(seed, "validation"))
        cells, names = cells.iloc[drawn], names[drawn]
        squares = np.empty((len(drawn), transform.size, transform.size, 3), dtype=np.uint8)
        read, digests, reason = list[int](), list[str](), ""
        for row, cell in enumerate(decode((Place(cohort.root, *at) for at in places(cells)), transform, BATCH)):
            if cell.square is None:
                reason = reason or cell.reason
                continue
            squares[len(read)] = cell.square
            read.append(row)
            digests.append(cell.sha256.hex())
        if not read:
            msg = (
                f"None of {len(drawn)} cells of the cohort '{cohort.name}' that were to validate the training could "
                f"be read (the first one: {reason}); run `milkit cohort check`, and mend the folder."
            )
            raise CohortError(msg)
        groups = Groups.of(cells.iloc[read].assign(image_sha256=digests)).of_cell
        labels, classes = _told_apart(names[read], groups)
        found = cls(squares[: len(read)], labels, classes, groups, len(drawn) - len(read))
        if meaning is None:
            return found
        tree = Tree.of(meaning.taxonomy)
        return replace(found, tree=tree, nodes=tree.positions([meaning.node(name) for name in classes]))

    def evaluate(
        self, model: nn.Module, transform: Transform, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> dict[str, float]:
        """``rank_me`` of the cells' features, and by leave-one-out among them ``knn_1`` and ``knn_20``.

        These are the balanced accuracies of the votes of the nearest cells of other groups, by Euclidean distance of
        the features as they are; NaN where no classes can be told apart, or features are not finite.

        Where the classes have nodes in a taxonomy, also how far off the vote of 20 is in it: ``height``, the mean
        height of the lowest common ancestor of label and vote over all cells, 0 for those that are right, the lower
        the better; and ``path_f1``, the hierarchical F1. Both are over cells, so that frequent classes have more say.

        Args:
            model: (B, 3, size, size) -> (B, D); its modules are in training or evaluation as before, afterwards.
            transform: The one that the cells were read with.
            device: Where the model lies.
            dtype: Number type of the matrix products.
        """
        features = self._features(model, transform, device, dtype)
        found = {f"knn_{k}": math.nan for k in NEIGHBOURS} | {"rank_me": rank_me(features)}
        found |= {} if self.tree is None else {"height": math.nan, "path_f1": math.nan}
        if not self.classes or math.isnan(found["rank_me"]):
            return found
        own = self.labels >= 0
        labels, groups = self.labels[own], self.groups[own]
        others = len(labels) - int(np.unique(groups, return_counts=True)[1].max())
        neighbours = labels[nearest_of_others(features[own], groups, min(max(NEIGHBOURS), others))]
        ones = np.ones((1, len(labels)))
        for k in NEIGHBOURS:
            predicted = vote(neighbours[:, :k], len(self.classes))
            found[f"knn_{k}"] = float(balanced_accuracy(labels, predicted, ones, len(self.classes))[0])
        if self.tree is not None and self.nodes is not None:
            pairs = self.nodes[labels], self.nodes[vote(neighbours, len(self.classes))]
            found["height"] = float(mistake_heights(self.tree, *pairs, ones).of_all[0])
            found["path_f1"] = float(path_scores(self.tree, *pairs, ones).f1[0])
        return found

    @torch.no_grad()
    def _features(
        self, model: nn.Module, transform: Transform, device: torch.device, dtype: torch.dtype
    ) -> npt.NDArray[np.float32]:
        """(n, D)."""
        parts = []
        with _evaluating(model), torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
            for squares in torch.split(torch.from_numpy(self.squares), BATCH):
                parts.append(model(transform.normalise(squares.to(device))).float())
        return torch.cat(parts).cpu().numpy()


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:  # not model.train(): a part of it may have been frozen
            module.training = True


def _drawn(names: npt.NDArray[np.str_], limit: int, source: np.random.Generator) -> Ints:
    """At most ``limit`` rows, in their order, of each class a like share: its members at random are spread over [0, 1].

    The rows with the lowest places are taken, so a class of n cells has limit n / N of them, but for the rounding.
    """
    place = np.empty(len(names))
    for name in np.unique(names):
        own = source.permutation(np.flatnonzero(names == name))
        place[own] = (np.arange(len(own)) + 0.5) / len(own)
    return np.sort(np.argsort(place, kind="stable")[:limit])


def _told_apart(names: npt.NDArray[np.str_], groups: Ints) -> tuple[Ints, tuple[str, ...]]:
    """The labels and the classes: those names, but for the empty one, that are in two groups or more."""
    classes = [str(name) for name in np.unique(names) if name and len(np.unique(groups[names == name])) > 1]
    if len(classes) < 2:
        classes = []
    position = {name: c for c, name in enumerate(classes)}
    return np.array([position.get(str(name), _NONE) for name in names], dtype=np.int64), tuple(classes)
