"""What an audit finds: a name that scripts can look for, how urgent it is, and a sentence."""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

from milkit.errors import first_rows

Level = Literal["note", "warning", "error"]

Name = Literal[
    "patient-in-two-roles",
    "patient-in-two-folds",
    "prediction-of-known-patient",
    "group-parted",
    "folds-changed",
    "fitted-outside-fold",
    "image-of-two-patients",
    "near-duplicate",
    "feature-twins",
    "encoder-overlap",
    "confounder",
    "control",
    "not-assessed",
]
"""What can be found; ``milkit.audit.verb`` says what each means."""


class AuditFinding(NamedTuple):
    """One finding; only an ``error`` makes the result of a run wrong.

    Attributes:
        level: ``note``, ``warning`` or ``error``.
        name: What kind it is.
        text: The sentence.
    """

    level: Level
    name: Name
    text: str


def by_level(findings: Iterable[AuditFinding]) -> list[AuditFinding]:
    """Notes first, errors last, where a terminal shows them."""
    return sorted(findings, key=lambda finding: get_args(Level).index(finding.level))


def several(names: Sequence[str], noun: str, singular: str, plural: str) -> str:
    """``3 patients (P1, P2, P3) have``: how many, which, and the verb that fits."""
    one = len(names) == 1
    return f"{len(names):,} {noun}{'' if one else 's'} ({first_rows(list(names))}) {singular if one else plural}"
