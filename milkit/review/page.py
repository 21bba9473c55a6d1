"""The blinded page: pictures under codes, and the labels of the taxonomy. It is given nothing else about the cells.

The page has one script, which its policy names by digest; nothing is loaded and nothing can be sent. Template, style
and script avoid the words that name the groups of cells (top, …), also inside longer words, so that whoever searches
the file for them finds none; hence ``inset`` and ``margin-block`` in the style.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment

from milkit.report.templates import offline_templates
from milkit.review.key import UNCLEAR
from milkit.taxonomy import Taxonomy

_HERE = Path(__file__).parent

UNCLEAR_KEY = "0"
SHORTCUTS = {
    "1": "myeloblast",
    "2": "promyelocyte",
    "3": "myelocyte",
    "4": "metamyelocyte",
    "5": "neutrophil_band",
    "6": "neutrophil_segmented",
    "7": "lymphocyte",
    "8": "monocyte",
    "9": "eosinophil",
    "b": "basophil",
    "m": "monoblast",
    "f": "faggot_cell",
    "l": "lymphoblast",
    "a": "lymphocyte_atypical",
    "p": "plasma_cell",
    "e": "erythroblast",
    "t": "platelet",
    "s": "smudge_cell",
    "x": "artefact",
}
"""Keys of the commonest labels: the series from blast to segmented neutrophil by digits, others by their letter."""


class Shown(NamedTuple):
    """A cell as the page has it: its code, and a ``data:`` URI of its true pixels, written anew without any tag."""

    code: str
    uri: str


class Choice(NamedTuple):
    """A label that can be given: its name in files and on the page, its key (may be empty) and depth in the tree."""

    label: str
    text: str
    key: str
    depth: int


def choices(taxonomy: Taxonomy) -> list[Choice]:
    """All labels in the order of the tree: its nodes but the root, which says nothing, and that a cell is unclear.

    A taxonomy that has none of the usual cells gets the digits for its first leaves.
    """
    keys = {node: key for key, node in SHORTCUTS.items() if node in taxonomy.parents}
    keys = keys or {leaf: str(number) for number, leaf in enumerate(taxonomy.leaves[:9], start=1)}
    nodes = [Choice(node, readable(node), keys.get(node, ""), taxonomy.depth(node) - 1) for node in taxonomy.nodes[1:]]
    return [*nodes, Choice(UNCLEAR, "cannot tell", UNCLEAR_KEY, 0)]


def readable(node: str) -> str:
    """A node's name for people."""
    return node.replace("_", " ")


def review_page(review: str, cells: Sequence[Shown], taxonomy: Taxonomy, readers: Sequence[str]) -> str:
    """The whole page.

    Args:
        review: Its id.
        cells: In the order in which they are shown.
        taxonomy: Whose nodes are the labels.
        readers: The names to choose from; where there are none, readers type theirs.
    """
    labels = choices(taxonomy)
    return (
        _templates()
        .get_template("review.html.j2")
        .render(
            review=review,
            cells=cells,
            choices=labels,
            quick=sorted((choice for choice in labels if choice.key), key=lambda choice: _order(choice.key)),
            readers=readers,
        )
    )


def _order(key: str) -> int:
    """Digits first, from 1; then letters as listed; the unclear one last."""
    return len(SHORTCUTS) if key == UNCLEAR_KEY else [*SHORTCUTS].index(key)


@lru_cache(maxsize=1)
def _templates() -> Environment:
    return offline_templates(_HERE, "review.js", "review.css")
