"""Settings of `milkit explain`; how they are filled stands in ``milkit.settings``."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from milkit.settings import Settings

Method = Literal["attention", "leave_one_out", "integrated_gradients", "single_cell"]


class ExplainSettings(Settings):
    """`milkit explain`: which cells the held-out heads of a run weigh, and whether that can be believed."""

    run: Path | None = None
    """The run folder; empty means the one that `train-mil` made last."""
    target: str | None = None
    """For which target of a run on several; empty means the first."""
    methods: Annotated[tuple[Method, ...], Field(min_length=1)] = (
        "attention",
        "leave_one_out",
        "integrated_gradients",
        "single_cell",
    )
    top: Annotated[int, Field(ge=1)] = 20
    """Cells that count as the top of a ranking, where models are compared."""
    steps: Annotated[int, Field(ge=2)] = 32
    """Nodes of the integral behind integrated gradients."""
    points: Annotated[int, Field(ge=2)] = 10
    """Points of the deletion and insertion curves."""
    random_rankings: Annotated[int, Field(ge=19)] = 20
    """Random rankings a patient; 19 are the fewest of which beating all is better than chance at 5%."""
    known: Path | None = None
    """A table of cells that are known to matter: cell_id, and planted (0 or 1) or cell_type."""
    relevant: dict[str, tuple[str, ...]] = Field(default={})
    """For each class, the cell types that matter in its patients; of the table, or else of the store's own cells."""
    precision_at: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (5, 20)
    """Cells whose precision and enrichment are told, where known cells are given."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Determines random rankings, the order of equal scores, and resamples."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    """Resamples of patients behind each interval."""
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Coverage of the intervals."""
