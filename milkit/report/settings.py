"""Settings of `milkit report`; how they are filled stands in ``milkit.settings``."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from milkit.settings import Settings


class ReportSettings(Settings):
    """`milkit report`: what people read."""

    run: Path | None = None
    """The run folder; empty means the one that `train-mil` made last."""
    top: Annotated[int, Field(ge=1)] = 6
    """Cells of each patient that the model weighs most."""
    random: Annotated[int, Field(ge=0)] = 3
    bottom: Annotated[int, Field(ge=0)] = 3
    single_file: bool = False
    """Keep a large cohort in one file by reducing the pictures (marked as reduced)."""
    allow_identifiers: str = ""
    """Why names, dates of birth or record numbers may stand in the report, if any are found; empty: they may not."""
