"""What a held-out head says of parts of a patient's bag: the one way in which every explanation asks it."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from milkit.explain.pooling import pooled
from milkit.mil.heads import MilOutput
from milkit.mil.train import Standardised

_VALUES_AT_ONCE = 2**23
"""Numbers in the features of parts that a head sees in one call: 32 MB."""


class Asked(NamedTuple):
    """What of a head's outputs is explained: by default every class, by its log-odds.

    Of a number or a risk F, being high and being low are the two classes, with F and -F in the place of log-odds.

    Attributes:
        outputs: Those of the target that is asked for; others stay out of it.
        number: Makes a number of them, (n, outputs) -> (n,); None of classes.
        unit: What is a step of an answer: 1 of log-odds or log hazards, and of a number its spread in training.
    """

    outputs: slice = slice(None)
    number: Callable[[Tensor], Tensor] | None = None
    unit: float = 1.0

    def answers(self, logits: Tensor) -> Tensor:
        """Of all outputs, over the last axis: (…, outputs) -> (…, C)."""
        own = logits[..., self.outputs]
        if self.number is None:
            return log_odds(own)
        value = self.number(own.reshape(-1, own.shape[-1])).reshape(own.shape[:-1])
        return torch.stack([value, -value], dim=-1)

    def branches(self, attention: Tensor) -> Tensor:
        """The attention that serves the answers, (k, N) -> (C, N) or (1, N), which serves all; of a number the first.

        The galleries of the report show that one, too.
        """
        if len(attention) == 1:
            return attention
        own = attention[self.outputs]
        return own if self.number is None else own[:1]


EVERY_CLASS = Asked()


class Bagged:
    """A head, behind its standardisation, before one patient's cells.

    ``features`` (N, dim) are the patient's, and so are the ``covariates`` (V,) where the head was trained with some:
    they stay with every part. ``asked`` is what is explained of the outputs. ``fast`` is false to call the head on
    every part even where it can be taken apart. Cells are named by their position among the N; C are the outputs.
    """

    def __init__(
        self,
        model: Standardised,
        features: Tensor,
        covariates: Tensor | None = None,
        asked: Asked = EVERY_CLASS,
        *,
        fast: bool = True,
    ) -> None:
        self.model, self.features, self.covariates, self.asked = model, features, covariates, asked
        standardised = (features - model.mean) * model.scale
        with torch.no_grad():
            self._pooled = pooled(model.head, standardised, covariates) if fast else None

    @property
    def n_cells(self) -> int:
        """N."""
        return len(self.features)

    @torch.no_grad()
    def logits(self, cells: Tensor) -> Tensor:
        """Of parts of equal size, given as positions of their cells: (M, n) -> (M, C)."""
        step = max(1, _VALUES_AT_ONCE // (cells.shape[1] * self.features.shape[1]))
        return torch.cat([self._of_few(cells[first : first + step]) for first in range(0, len(cells), step)])

    def _of_few(self, cells: Tensor) -> Tensor:
        return self._pooled.logits(cells) if self._pooled is not None else self.output(self.features[cells]).logits

    @torch.no_grad()
    def of_masks(self, masks: Tensor) -> Tensor:
        """Of parts of any size but none, (M, N) bool, true where a cell is in the part: (M, C)."""
        if self._pooled is not None:
            step = max(1, _VALUES_AT_ONCE // masks.shape[1])
            return torch.cat([self._pooled.of_masks(few) for few in torch.split(masks, step)])
        sizes, logits = masks.sum(dim=1), dict[int, Tensor]()
        for size in sorted(set(sizes.tolist())):  # parts of one size need no padding
            rows = (sizes == size).nonzero()[:, 0]
            cells = masks[rows].nonzero()[:, 1].reshape(-1, size)
            logits |= dict(zip(rows.tolist(), self.logits(cells), strict=True))
        return torch.stack([logits[row] for row in range(len(masks))])

    def output(self, bags: Tensor) -> MilOutput:
        """What the head says of bags of equal size (M, n, dim), each with the patient's covariates."""
        mask = torch.ones(bags.shape[:2], dtype=torch.bool, device=bags.device)
        own = None if self.covariates is None else self.covariates.expand(len(bags), -1)
        output: MilOutput = self.model(bags, mask, own)
        return output

    def whole(self) -> Tensor:
        """Of the whole bag, (C,)."""
        return self.logits(self._all()[None])[0]

    @torch.no_grad()
    def leave_one_out(self) -> Tensor:
        """Of the bag without each cell in turn, (N, C); needs two cells."""
        if self._pooled is not None:
            return self._pooled.leave_one_out()
        others, cells = self._all()[:-1], self._all()[:, None]
        step = max(1, _VALUES_AT_ONCE // self.features.numel())
        left_out = (cells[first : first + step] for first in range(0, self.n_cells, step))
        return torch.cat([self.logits(others + (others >= few)) for few in left_out])

    def single_cells(self) -> Tensor:
        """Of each cell as a bag of its own, (N, C)."""
        return self.logits(self._all()[:, None])

    @torch.no_grad()
    def attention(self) -> Tensor:
        """In the whole bag, as ``Asked.branches`` has it."""
        return self.asked.branches(self.output(self.features[None]).attention[0])

    def _all(self) -> Tensor:
        return torch.arange(self.n_cells, device=self.features.device)


def log_odds(logits: Tensor) -> Tensor:
    """Of each class against all others, log p_c - log(1 - p_c), over the last axis: (…, C) -> (…, C).

    A softmax does not change when all logits rise alike; log-odds do not either, which a logit by itself does. A single
    output (a risk) is its own.
    """
    n_classes = logits.shape[-1]
    if n_classes == 1:
        return logits
    own = torch.eye(n_classes, dtype=torch.bool, device=logits.device)
    others = logits[..., None, :].masked_fill(own, float("-inf"))  # row c: the others than c
    return logits - torch.logsumexp(others, dim=-1)
