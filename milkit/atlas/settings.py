"""Settings of `milkit atlas` without --batch; how they are filled stands in ``milkit.settings``."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from milkit.settings import Settings

Number = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class MapSettings(Settings):
    """`milkit atlas`: a map of cells, fitted on training patients."""

    run: Path | None = None
    """The run whose split says who is training; without it, ``share`` does."""
    store: Path | None = None
    """The bag store, where no run is named."""
    repeat: Number = 0
    """Of the run's splits, the one that is taken …"""
    fold: Number = 0
    """… and its fold."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Without a run: the share of each class's patients that the map is fitted on."""
    cells: Count = 100
    """Cells of a patient on the map, at most; drawn at random."""
    max_cells: Count = 12_000
    """Cells of all patients together, at most; every patient then gives fewer."""
    fit_cells: Count = 4000
    """Cells of the training patients that the map is fitted on, at most, the same number of each; their others are
    placed into it. Below 4,096 UMAP finds neighbours exactly, and above in several minutes."""
    columns: tuple[str, ...] = ()
    """Columns of the patients or the cells to colour by, beside class, cell type, site, scanner and the run's own."""
    neighbours: Annotated[int, Field(ge=2)] = 15
    """Of UMAP: neighbours that a cell is kept close to."""
    min_dist: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Of UMAP: how tightly points may lie."""
    seed: Number = 0
    """Determines the drawn cells, the patients without a run, and the map."""
    allow_identifiers: str = ""
    """Why names, dates of birth or record numbers may stand in what is written, if any are found; empty: they may not.
    """


class PatchSettings(Settings):
    """`milkit atlas --patches`: what an encoder's patches have in common, as colours."""

    run: Path | None = None
    """The run whose top cells are shown, or whose store holds the named ones."""
    store: Path | None = None
    """The bag store, where no run is named."""
    patches: tuple[str, ...] = ("top",)
    """Ids of cells, or several parted by commas; ``top`` stands for the cells that the run weighs most."""
    top: Annotated[int, Field(ge=1, le=200)] = 12
    """How many cells ``top`` stands for, each of another patient."""
    background: Literal["keep", "first-component"] = "keep"
    """``first-component`` leaves out patches on the border's side of a threshold on the first component."""
    encoder: str | None = None
    """The encoder's name, where it is not the one that the store is called after."""
    weights: Path | None = None
    """The encoder's weights file."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: Number = 0
    """Determines whose top cells are shown where there are more patients."""
    allow_identifiers: str = ""
    """Why names, dates of birth or record numbers may stand in what is written, if any are found; empty: they may not.
    """
