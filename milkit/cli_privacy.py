"""The command that looks through files before they are given away: `privacy`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from milkit.cli_options import FINDINGS, Json, say
from milkit.errors import SettingsError

SHOWN = 100
"""Findings that are printed."""


def privacy(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH", help="Files or folders that are to be given away.")],
    as_json: Json = False,
) -> None:
    """Look for names, dates of birth and record numbers in names of files, tables, pages and tags of images.

    What is found is told by its place and kind, and masked; status 3. What is not found may be there all the same: in
    pixels, or as a name that stands alone. report, review, atlas and export look through what they write themselves.
    """
    from milkit.privacy.scan import scan

    if absent := [path for path in paths if not path.exists()]:
        msg = f"There is nothing at {absent[0]}, where a file or a folder was expected; name what is to be given away."
        raise SettingsError(msg)
    scans = {str(path): scan(path) for path in paths}
    findings = [(path, finding) for path, found in scans.items() for finding in found.findings]
    if as_json:
        told = {
            path: {
                "n_files": found.n_files,
                "unread": list(found.unread),
                "findings": [one._asdict() for one in found.findings],
            }
            for path, found in scans.items()
        }
        print(json.dumps(told, ensure_ascii=False))
    else:
        for path, finding in findings[:SHOWN]:
            print(f"{path}: {finding.sentence}")
        if len(findings) > SHOWN:
            print(f"and {len(findings) - SHOWN} more")
        n_files = sum(found.n_files for found in scans.values())
        unread = sum(len(found.unread) for found in scans.values())
        print(f"{n_files} files, {len(findings)} findings")
        if unread:
            say(f"{unread} files are of kinds that are not looked into; only their names were.")
    if findings:
        raise typer.Exit(FINDINGS)
