"""Settings of `milkit probe` and `milkit atlas`; how they are filled stands in ``milkit.settings``."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from milkit.settings import Settings

Count = Annotated[int, Field(ge=1)]
Level = Annotated[float, Field(gt=0.5, lt=1)]


class PublishedFigures(Settings):
    """Figures of a paper that a table shows beside one's own."""

    source: str
    """Where they stand."""
    differs: tuple[str, ...] = ()
    """What the published evaluation did otherwise, one sentence each."""
    rows: dict[str, dict[str, tuple[float | None, float | None, float | None]]] = Field(default={})
    """Model, then classifier (`1-NN`, `20-NN`, `linear`): weighted F1, accuracy, balanced accuracy in per cent."""


class ProbeSettings(Settings):
    """`milkit probe`: k-NN and linear probe on frozen features of labelled cells."""

    stores: tuple[Path, ...] = ()
    """Bag stores of one cohort, an encoder each; empty means the one that `extract` made last."""
    label: str = "cell_type"
    """The column of the cells that is predicted."""
    taxonomy: bool = False
    """Predict what the labels mean in the taxonomy, as far as all of them tell cells apart."""
    leave_out: tuple[str, ...] = ()
    """Labels, as published, whose cells are neither trained on nor tested."""
    folds: Annotated[int, Field(ge=2)] = 5
    split: Path | None = None
    """A published split in place of folds: a table of cells with their role, or of the tested cells alone;
    or a column of the cells or patients, which holds roles or folds."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Determines the folds, the cells of the few-shot draws and the resamples."""
    neighbours: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 20)
    iterations: Count = 1000
    """At which the linear probe stops, converged or not."""
    shots: tuple[Count, ...] = (1, 2, 5, 10, 20, 50)
    """Training cells a class of the few-shot curves; empty leaves them out."""
    draws: Annotated[int, Field(ge=2)] = 10
    """How often the cells of a few-shot training are drawn anew."""
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    """Resamples behind each interval."""
    level: Level = 0.95
    """Coverage of the intervals."""
    published: PublishedFigures | None = None


class AtlasSettings(Settings):
    """`milkit atlas --batch`: how much of the features is where the cells come from."""

    stores: tuple[Path, ...] = ()
    """Bag stores of one encoder; empty means the one that `extract` made last."""
    source: str = "cohort"
    """What is a source: `cohort`, that of each store, or a column of the cells or the patients, such as `site`."""
    label: str | None = None
    """The column of classes to set beside the source; empty means `cell_type`, or else the patients' `label`."""
    taxonomy: bool = False
    """Take for classes what the labels mean in the taxonomy, so that cohorts with other labels share classes."""
    sample: Annotated[int, Field(ge=10)] = 2000
    """Cells of a source that are looked at, at most."""
    neighbours: Count = 20
    folds: Annotated[int, Field(ge=2)] = 5
    seed: Annotated[int, Field(ge=0)] = 0
    """Determines the sampled cells, the folds and the resamples."""
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    """Resamples behind each interval."""
    level: Level = 0.95
    """Coverage of the intervals."""
