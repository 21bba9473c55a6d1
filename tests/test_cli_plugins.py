"""Commands that other packages bring: listed by what they do, without being imported."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from milkit.cli import app


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """``milkit --help`` beside a package with a told, an untold and a missing command."""
    (tmp_path / "foreign_work.py").write_text(
        'raise RuntimeError("imported")\n\ndef told() -> None:\n    """Sort the cells.\n\n    By size."""\n\n'
        "def untold() -> None: ...\n"
    )
    info = tmp_path / "fake-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake\nVersion: 1.0\n")
    points = "told = foreign_work:told\nuntold = foreign_work:untold\nlost = foreign_lost:lost\n"
    (info / "entry_points.txt").write_text(f"[milkit.commands]\n{points}")
    monkeypatch.syspath_prepend(tmp_path)
    result = CliRunner().invoke(app, ["--help"], terminal_width=120)
    assert result.exit_code == 0, result.exception
    return result.output


@pytest.mark.parametrize(
    ("command", "text"),
    [
        ("told", "Sort the cells."),
        ("untold", "See milkit untold --help (foreign_work)."),
        ("lost", "See milkit lost --help (foreign_lost)."),
        ("pretrain", "Train an encoder on cells"),
    ],
)
def test_the_help_says_what_a_foreign_command_does_without_importing_it(listed: str, command: str, text: str) -> None:
    (line,) = [line for line in listed.splitlines() if line.split()[:1] == [command]]
    assert text in line
