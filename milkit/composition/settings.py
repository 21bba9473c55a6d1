"""Settings of `milkit differential`; how they are filled stands in ``milkit.settings``."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from milkit.settings import Settings

Share = Annotated[float, Field(gt=0, lt=1)]


class DifferentialSettings(Settings):
    """`milkit differential`: the types of a run's cells, of the whole bag and of those that the models weigh most."""

    run: Path | None = None
    """The run folder; empty means the one that `train-mil` made last."""
    labelled: Path | None = None
    """The bag store of labelled cells, of the run's encoder; empty means the run's own store."""
    label: str = "cell_type"
    """The column of the labelled cells that says what they are."""
    labels: Path | None = None
    """A table (cell_id, cell_type) in place of that column, such as the expert_labels.csv of a review; with `taxonomy`,
    its types are nodes."""
    taxonomy: bool = False
    """Type cells by what the labels mean in the taxonomy, as far as all of them tell cells apart."""
    leave_out: tuple[str, ...] = ()
    """Labels, as published, whose cells are not learned from."""
    top: Annotated[int, Field(ge=1)] = 20
    """Cells that count as the top of a ranking."""
    folds: Annotated[int, Field(ge=2)] = 5
    """Of the labelled cells; patients, fields and copies of an image are not parted."""
    iterations: Annotated[int, Field(ge=1)] = 1000
    """At which the probe's training stops, converged or not."""
    accuracy: Share = 0.95
    """Of the cells that are given a type: below the probability that reaches it, a cell is unknown."""
    unlike: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    """The share of a type's own cells that may be unknown for lying far from the others."""
    left_out_cells: Annotated[int, Field(ge=0)] = 300
    """Cells a type at most from which probes learn that show how far a type without labels stays unknown; 0: none."""
    enough: Annotated[int, Field(ge=1)] = 200
    """Typed cells below which a patient's differential is warned of; a manual one counts 200 (CLSI H20-A2)."""
    false_discovery_rate: Share = 0.05
    """Up to which adjusted p an enrichment counts."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Determines folds, resamples and signs."""
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    """Resamples behind each interval."""
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Coverage of the intervals."""
