"""Covariates of patients beside their cells, encoded anew in each split: what late fusion gives to a head."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import Tensor

from milkit.covariates import CovariateEncoding
from milkit.folds import Split

log = logging.getLogger(__name__)


class Fusion(NamedTuple):
    """The covariates of all patients, encoded as the training patients of one split have them.

    ``encoding`` is None where there are no covariates, and so is what comes from it.
    """

    patients: pd.DataFrame
    encoding: CovariateEncoding | None

    @classmethod
    def of(cls, patients: pd.DataFrame, split: Split, columns: Sequence[str]) -> "Fusion":
        """Estimate the encoding, and log how many training patients lack each covariate."""
        if not columns:
            return cls(patients, None)
        encoding = CovariateEncoding.fit(patients.loc[split.train], columns)
        lacking = ", ".join(f"{name} {n}" for name, n in encoding.missing.items())
        log.info("%s: missing in the %d training patients: %s", split.name, len(split.train), lacking)
        return cls(patients, encoding)

    def values(self, patients: list[str]) -> Tensor | None:
        """Of some patients, (n, n_covariates) float32."""
        if self.encoding is None:
            return None
        return torch.from_numpy(self.encoding.encode(self.patients.loc[patients])).float()

    def facts(self) -> dict[str, Any]:
        """What each covariate of a saved head is."""
        if self.encoding is None:
            return {}
        return {"n_covariates": len(self.encoding.parts), "covariates": self.encoding.description()}

    def statistics(self) -> dict[str, Tensor]:
        """By which covariates are standardised; they are saved with the weights."""
        if self.encoding is None:
            return {}
        own = {"covariates.mean": self.encoding.mean, "covariates.scale": self.encoding.scale}
        return {name: torch.from_numpy(values) for name, values in own.items()}
