"""What is about to be given away is looked through first, and stays where it is if something may tell whose it is."""

import logging
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from milkit.errors import PrivacyError
from milkit.privacy.scan import Scan, scan
from milkit.runs import read_json, write_json

log = logging.getLogger(__name__)

_SHOWN = 5
"""Findings that the message names."""


def release(path: Path, what: str, *, reason: str = "", known: Collection[str] = ()) -> dict[str, Any]:
    """Look through what is about to be given away, before it is put where it can be taken from.

    Args:
        path: The file or folder, under a name of its own or a hidden one.
        what: It is called in the message: ``report``.
        reason: Why it may leave as it is, in the user's words; empty: it may not.
        known: Source ids that must not occur.

    Returns:
        What provenance keeps where identifiers were allowed: ``what``, ``created``, ``reason``, ``found`` (how often
        each kind). Empty where nothing was found.

    Raises:
        PrivacyError: Something was found, and no reason was given.
    """
    return judge(scan(path, known), what, reason=reason)


def judge(found: Scan, what: str, *, reason: str = "") -> dict[str, Any]:
    """The same of what was scanned already."""
    if not found.findings:
        return {}
    if not reason.strip():
        raise PrivacyError(_refusal(found, what))
    log.warning("identifiers were allowed in the %s: %s", what, found.kinds)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return {"what": what, "created": created, "reason": reason.strip(), "found": found.kinds}


def keep_allowed(provenance: Path, allowed: Mapping[str, Any]) -> None:
    """Add what was allowed to the list ``identifiers_allowed`` of a JSON file of provenance."""
    if not allowed:
        return
    values = read_json(provenance) if provenance.is_file() else {}
    write_json(provenance, {**values, "identifiers_allowed": [*values.get("identifiers_allowed", []), dict(allowed)]})


def _refusal(found: Scan, what: str) -> str:
    n = sum(found.kinds.values())
    shown = "; ".join(finding.sentence for finding in found.findings[:_SHOWN])
    rest = len(found.findings) - _SHOWN
    more = f"; and in {rest} more places" if rest > 0 else ""
    return (
        f"The {what} was not written, since {n} thing{'s' if n > 1 else ''} in it may tell who a patient is ({shown}"
        f"{more}); rename or remove these where they come from, say `ids: identifying` in the cohort's recipe and "
        f'extract again, or say why they may stay with --allow-identifiers "reason".'
    )
