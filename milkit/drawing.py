"""How every figure of milkit is drawn: one look, SVG text, the same bytes for the same numbers.

Texts stay texts, so that a page's fonts and a reader's search apply to them. Ids are prefixed with the figure's name:
several figures can stand in one page. Nothing global changes: no pyplot, no backend, no ``rcParams``.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from html import escape
from typing import Any

import matplotlib as mpl
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

INK, MUTED, ACCENT = "#1b2430", "#6b7684", "#0b5c7a"
LINES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)))
"""Solid, dashed, dotted, dash-dotted: curves differ by more than their colour."""


@contextmanager
def style(name: str) -> Iterator[None]:
    """Settings of one figure; DejaVu Sans comes with matplotlib, so that the layout is the same everywhere."""
    own: dict[Any, Any] = {
        "font.family": ["sans-serif"], "font.sans-serif": ["DejaVu Sans"], "font.size": 10.5, "text.parse_math": False,
        "axes.spines.top": False, "axes.spines.right": False, "svg.fonttype": "none", "svg.hashsalt": name,
        "pdf.fonttype": 42,
        "axes.edgecolor": MUTED, "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    }  # fmt: skip
    with mpl.rc_context({**sns.axes_style("ticks"), **own}):
        yield


def subplots(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of this size in inches, and its one plot."""
    figure = blank(width, height)
    return figure, figure.add_subplot()


def blank(width: float, height: float) -> Figure:
    """A figure of this size in inches without a plot."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


class Drawn(str):
    """A figure as SVG text, which can be had as PDF, too."""

    _figure: Figure
    _name: str

    def within(self, place: str) -> "Drawn":
        """The same for a page that holds others of its kind: its ids begin with the place."""
        moved = Drawn(_with_ids(self, place))
        moved._figure, moved._name = self._figure, self._name
        return moved

    def pdf(self) -> bytes:
        """The same figure as a PDF file without a date; its fonts come with it."""
        buffer = io.BytesIO()
        self._figure.set_layout_engine("none")  # it stays as it was laid out for the SVG
        with style(self._name):
            self._figure.savefig(buffer, format="pdf", metadata={"CreationDate": None, "Creator": None})
        return buffer.getvalue()


def svg(figure: Figure, name: str, title: str) -> Drawn:
    """The figure without prologue and metadata, its ids made the figure's own, its style sheet made attributes."""
    buffer = io.StringIO()
    figure.savefig(
        buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
    )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text, count=1, flags=re.DOTALL)
    text = _with_ids(text, name)
    head = f'<svg role="img" aria-label="{escape(title)}" stroke-linejoin="round" stroke-linecap="butt"'
    drawn = Drawn(text.replace("<svg", head, 1))
    drawn._figure, drawn._name = figure, name
    return drawn


def _with_ids(text: str, first: str) -> str:
    """With another beginning of every id and of what refers to it."""
    own = partial(re.sub, r'( id="|url\(#|href="#)', rf"\g<1>{first}-")
    return re.sub(r"<[^>]*>", lambda tag: own(tag[0]), text)  # texts hold no '<', but may read like an id
