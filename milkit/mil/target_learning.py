"""What one split learns of targets by one candidate's settings: training, what its models say, and their losses."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from milkit.folds import Split
from milkit.mil.batches import Bags
from milkit.mil.fusion import Fusion
from milkit.mil.target_training import train_on_targets
from milkit.mil.train import Examples, TrainedHead, predict
from milkit.settings import MilSettings
from milkit.targets import Classes, Fitted, Floats, Target, is_known


class Learned(NamedTuple):
    """A split with what is estimated from its training patients.

    Attributes:
        bags: Of all patients.
        patients: The table of patients.
        split: Who is learned from.
        settings: With which.
        fusion: Covariates, as the training patients have them.
        fitted: The targets, with what is estimated from the training patients.
    """

    bags: Bags
    patients: pd.DataFrame
    split: Split
    settings: MilSettings
    fusion: Fusion
    fitted: Fitted

    @classmethod
    def of(
        cls, bags: Bags, patients: pd.DataFrame, targets: Sequence[Target], split: Split, settings: MilSettings
    ) -> "Learned":
        """Estimate; only outcomes of training patients are looked up."""
        fusion = Fusion.of(patients, split, settings.covariates)
        outcomes = [target.outcomes(patients.loc[_known(targets, patients, split.train)]) for target in targets]
        return cls(bags, patients, split, settings, fusion, Fitted(targets, outcomes))

    def trained(self, number: int) -> TrainedHead:
        """By the seed of this number."""
        train, validation = (self._examples(names) for names in (self.split.train, self.split.validation))
        seed = self.split.seed(self.settings.seed, number)
        head, training = self.settings.head, self.settings.training
        return train_on_targets(self.bags, train, validation, self.fitted, head, training, seed)

    def said(self, trained: TrainedHead, names: list[str]) -> tuple[list[Floats], list[Tensor]]:
        """Scores of some patients, (n, S) for each target, and their attention, (k, n_cells) of each patient."""
        outputs, weights = self._outputs(trained, names)
        return self.fitted.scores(outputs), weights

    def losses(self, trained: TrainedHead, names: list[str]) -> Floats:
        """Each target's loss over some patients, and how many patients, or events, it is the mean of: (T, 2)."""
        outputs, _ = self._outputs(trained, names)
        result = []
        parts = zip(self.fitted.targets, self.fitted.slices, self.fitted.numbers, strict=True)
        for target, own, numbers in parts:
            happened = target.outcomes(self.patients.loc[names])
            there = is_known(happened)
            weight = float((happened[there, 1] > 0).sum()) if target.whole else float(there.sum())
            loss = 0.0
            if weight:
                known = torch.from_numpy(happened[there])
                loss = float(target.loss(outputs[torch.from_numpy(there)][:, own], known, torch.as_tensor(numbers)))
            result.append((loss, weight))
        return np.array(result)

    def known(self, names: list[str]) -> list[str]:
        """Those of whom some outcome is known."""
        return _known(self.fitted.targets, self.patients, names)

    def facts(self) -> dict[str, Any]:
        """What the outputs of a saved head are: their targets in order, and what is needed to decode them."""
        targets = self.fitted.targets
        found = [
            {
                "name": target.name,
                "kind": target.kind,
                "columns": list(target.columns),
                "outputs": list(target.outputs),
                "fitted": numbers.tolist(),
            }
            for target, numbers in zip(targets, self.fitted.numbers, strict=True)
        ]
        alone = {"classes": targets[0].outputs} if len(targets) == 1 and isinstance(targets[0], Classes) else {}
        return {"targets": found, **alone}

    def _outputs(self, trained: TrainedHead, names: list[str]) -> tuple[Tensor, list[Tensor]]:
        told = predict(trained.model, self.bags, self.bags.indices(names), self.fusion.values(names), softmax=False)
        return torch.stack([outputs for outputs, _ in told]), [weights for _, weights in told]

    def _examples(self, names: list[str]) -> Examples:
        """Only outcomes of these patients are looked up; who has none is left out."""
        left = self.known(names)
        outcomes = [target.outcomes(self.patients.loc[left]) for target in self.fitted.targets]
        happened = tuple(map(torch.from_numpy, outcomes))
        return Examples(self.bags.indices(left), [], self.fusion.values(left), happened)


def _known(targets: Sequence[Target], patients: pd.DataFrame, names: list[str]) -> list[str]:
    known = np.any([is_known(target.outcomes(patients.loc[names])) for target in targets], axis=0)
    return [name for name, there in zip(names, known, strict=True) if there]
