"""Sentences of a draft: text with numbers, each of which knows where it stands. They become HTML or Markdown."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any, NamedTuple

from markupsafe import Markup, escape

NUMBERS = "numbers.html"
"""The page beside the drafts that lists every number that they quote."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number as drafts show it.

    Attributes:
        file: Where it stands: a file of the run, or of its store.
        where: The place in it, as a JSON pointer (RFC 6901), or which rows were counted.
        text: As shown.
        value: As it stands there; of a figure with an interval, the mapping with ``estimate``.
        form: The format of the numbers in ``text``.
    """

    file: str
    where: str
    text: str
    value: Any
    form: str

    @property
    def anchor(self) -> str:
        """Of its row among all numbers; the form counts, as one number may be shown in two."""
        key = f"{self.file}\n{self.where}\n{self.form}"
        return f"n-{hashlib.sha256(key.encode()).hexdigest()[:10]}"


class Link(NamedTuple):
    """A link to a page or file beside the drafts."""

    text: str
    target: str


Sentence = tuple[str | Figure | Link, ...]


def pointer(path: Sequence[str | int]) -> str:
    """A JSON pointer: ``/per_class/A~1B/n``."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in path)


def told(template: str, **parts: object) -> list[Sentence]:
    """One sentence with its parts filled in, or none where one of them is None: what is not known is not told."""
    pieces: list[str | Figure | Link] = []
    for text, name, _, _ in Formatter().parse(template):
        pieces.append(text)
        if name is not None:
            part = parts[name]
            if part is None:
                return []
            pieces += _flat(part)
    return [tuple(piece for piece in pieces if piece != "")]


def listed(parts: Sequence[Sentence], between: str = "; ") -> Sentence | None:
    """Several parts of a sentence in a row; None where there are none."""
    row: list[str | Figure | Link] = []
    for number, part in enumerate(parts):
        row += [between, *part] if number else part
    return tuple(row) or None


def as_html(sentence: Sentence) -> Markup:
    """With every text escaped, and every number a link to where it is listed."""
    return Markup("").join(_html(piece) for piece in sentence)


def as_markdown(sentence: Sentence) -> str:
    """The same in Markdown, on one line."""
    return _at_start("".join(_markdown(piece) for piece in sentence))


def plain_markdown(text: str) -> str:
    """Text that means nothing but itself in Markdown, on one line."""
    return _at_start(_inline(" ".join(text.split())))


def _flat(part: object) -> Sentence:
    if isinstance(part, Figure | Link):
        return (part,)
    return part if isinstance(part, tuple) else (str(part),)


def _html(piece: str | Figure | Link) -> Markup:
    if isinstance(piece, Figure):
        title = f"{piece.file}, {piece.where}"
        return Markup('<a class="number" href="{}#{}" title="{}">{}</a>').format(
            NUMBERS, piece.anchor, title, piece.text
        )
    if isinstance(piece, Link):
        return Markup('<a href="{}">{}</a>').format(piece.target, piece.text)
    return escape(piece)


def _markdown(piece: str | Figure | Link) -> str:
    if isinstance(piece, Figure):
        return f"[{_inline(piece.text)}]({NUMBERS}#{piece.anchor})"
    if isinstance(piece, Link):
        return f"[{_inline(piece.text)}]({piece.target})"
    return _inline(re.sub(r"\s+", " ", piece))


def _inline(text: str) -> str:
    escaped = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", text)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _at_start(line: str) -> str:
    """Without what would begin a heading or a list."""
    return re.sub(r"^(\d*)([.)#+-])", r"\1\\\2", line)
