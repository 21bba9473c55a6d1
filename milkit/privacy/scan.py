"""Look through files that are about to be given away for what may tell who a patient is.

Assumptions and limits are those of ``milkit.privacy.patterns`` and ``milkit.privacy.contents``: a scan that finds
nothing proves nothing. It is a net below those who look at what they give away, and does not take their place. The
source ids of a cohort whose ids identify are known, and looked for letter by letter.
"""

import re
import struct
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from milkit.privacy.contents import Piece, final_name, of_markup, pieces
from milkit.privacy.patterns import Found, Kind, find, mask, masked

SHORTEST_ID, SHORTEST_NUMBER = 4, 6
"""Shorter source ids (``P12``, and of digits alone ``2000``) occur in any text."""
_TOKEN = re.compile(r"[\w.-]+")


class Finding(NamedTuple):
    """Something that may tell who a patient is.

    Attributes:
        place: The file, relative to what was scanned, and where in it; what would identify is masked there, too.
        kind: What it seems to be.
        shape: The value, masked.
        more: How often the same kind was found again in the same column, tag or text.
    """

    place: str
    kind: Kind
    shape: str
    more: int = 0

    @property
    def sentence(self) -> str:
        """For a person."""
        return f"{self.place}: {self.kind} ({self.shape}){f', and {self.more} more there' if self.more else ''}"


class Scan(NamedTuple):
    """What was found in how many files, and which of them could not be looked into beyond their names."""

    findings: tuple[Finding, ...]
    n_files: int
    unread: tuple[str, ...]

    @property
    def kinds(self) -> dict[str, int]:
        """How many findings there are of each kind."""
        counts: dict[str, int] = {}
        for finding in self.findings:
            counts[finding.kind] = counts.get(finding.kind, 0) + 1 + finding.more
        return dict(sorted(counts.items()))


def scan(path: Path, known: Collection[str] = ()) -> Scan:
    """Look at the names and the contents of a file, or of all files in a folder.

    Args:
        path: The file or folder. Of a file its name counts, too; a folder's own name, and those above, do not.
        known: Source ids and names of source files that must not occur, where they are long enough to mean something.
    """
    wanted = _wanted(known)
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    findings, unread, named = list[Finding](), list[str](), set[str]()
    for file in files:
        parts = file.relative_to(path).parts or (final_name(file.name),)
        shown = "/".join(masked(part, _look(_name(part), wanted)) for part in parts)
        for part in parts:
            if part not in named:
                named.add(part)
                findings += [Finding(f"the name of {shown}", kind, mask(part)) for kind in _kinds(_name(part), wanted)]
        try:
            content = pieces(file)
            if content is None:
                unread.append(shown)
            else:
                findings += _in_file(shown, content, wanted)
        except (OSError, ValueError, KeyError, struct.error):  # damaged, or another format than its suffix says
            unread.append(shown)
    return Scan(tuple(findings), len(files), tuple(unread))


def scan_page(content: str, known: Collection[str] = ()) -> Scan:
    """Look at an HTML page before it is a file."""
    wanted = _wanted(known)
    return Scan(tuple(_in_file("the page", of_markup(content), wanted)), 1, ())


def _wanted(known: Collection[str]) -> frozenset[str]:
    return frozenset(
        text.casefold() for text in known if len(text) >= (SHORTEST_NUMBER if text.isdigit() else SHORTEST_ID)
    )


def _name(part: str) -> Piece:
    return Piece("", part, is_id="." not in part)


def _kinds(piece: Piece, wanted: Collection[str]) -> list[Kind]:
    return list(dict.fromkeys(one.kind for one in _look(piece, wanted)))


def _in_file(shown: str, content: Iterator[Piece], wanted: Collection[str], *, authored: bool = False) -> list[Finding]:
    """The findings of a file, those of one kind in one column or tag as one."""
    found: dict[tuple[str, Kind], Finding] = {}
    for piece in content:
        for one in _look(piece, wanted):
            key = re.sub(r"(, row|^line) \d+|\[\d+\].*", "", piece.place), one.kind
            if key in found:
                found[key] = found[key]._replace(more=found[key].more + 1)
            else:
                place = masked(piece.place, _look(Piece("", piece.place), wanted))
                found[key] = Finding(f"{shown}, {place}", one.kind, mask(piece.text[one.start : one.end]))
    return list(found.values())


def _look(piece: Piece, wanted: Collection[str]) -> list[Found]:
    """By the source ids that are known, else by patterns."""
    if wanted and (exact := _known(piece.text, wanted)):
        return exact
    return find(piece.text, prose=piece.prose, label=piece.label, is_id=piece.is_id)


def _known(text: str, wanted: Collection[str]) -> list[Found]:
    if text.casefold() in wanted:
        return [Found("source id", 0, len(text))]
    tokens = ((match, match.group().strip(".-")) for match in _TOKEN.finditer(text))
    return [
        Found("source id", match.start(), match.end())
        for match, token in tokens
        if token.casefold() in wanted or token.rpartition(".")[0].casefold() in wanted
    ]
