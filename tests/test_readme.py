"""What the README tells people to type exists, and its example runs."""

import re
from pathlib import Path

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from milkit.cli import app

ROOT = Path(__file__).parent.parent
PACKAGES = (".", "milkit", "encoders")
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def _commands() -> list[list[str]]:
    lines = re.findall(r"^\.venv/bin/milkit ([a-z-].*)$", TEXT, re.MULTILINE)
    inline = re.findall(r"`milkit ([a-z][^`]*)`", TEXT)
    return [line.split() for line in [*lines, *inline] if "COMMAND" not in line]


@pytest.mark.parametrize("words", _commands(), ids=" ".join)
def test_every_command_and_flag_of_the_readme_exists(words: list[str]) -> None:
    command = get_command(app)
    while words and not words[0].startswith("-") and hasattr(command, "get_command"):
        command = command.get_command(typer.Context(command), words.pop(0))  # also those that other packages bring
    assert command is not None
    known = {flag for parameter in command.params for flag in parameter.opts}
    assert [word for word in words if word.startswith("--") and word not in known] == []


def test_the_example_encoder_of_the_readme_is_a_plugin(tmp_path: Path) -> None:
    source = re.search(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert source
    plugin = tmp_path / "my_encoder.py"
    plugin.write_text(source[1], encoding="utf-8")
    from milkit.registry import ENCODERS

    try:
        listed = CliRunner().invoke(app, ["--plugin", str(plugin), "list"])
        assert "my-net" in listed.output
        encoder = ENCODERS.build("my-net", {"size": 16})
        assert encoder.dim == 12
    finally:
        ENCODERS._registered.pop("my-net", None)


def test_every_file_of_the_annotated_tree_exists() -> None:
    tree = re.search(r"```\n(milkit/.*?)```", TEXT, re.DOTALL)
    assert tree
    named = re.findall(r"^\s*((?:[\w/]+(?:\.py|/) )+)", tree[1], re.MULTILINE)
    names = [name for line in named for name in line.split()]
    assert len(names) > 20
    missing = [name for name in names if not any((ROOT / package / name).exists() for package in PACKAGES)]
    assert missing == []
