"""``guidelines.yaml``: what people know of a study and a run cannot, one answer a key. It survives every new report.

The file lies in the run folder, not in the report, which is rewritten; it is made with every question open, and only
ever appended to (questions that a newer milkit asks).
"""

import datetime
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

import yaml

from milkit.errors import SettingsError, UnknownName
from milkit.guidelines.questions import QUESTIONS
from milkit.registry import unknown_name
from milkit.runs import write_text

ANSWERS = "guidelines.yaml"
TODO = "TODO(human)"

_HEAD = f"""\
# milkit-guidelines 1
# What software cannot know of this study. Put your text in the place of {TODO}; several lines are written as
#   key: |
#     first line
#     second line
# then call `milkit guidelines` (or `milkit report`) again. "Not applicable", with the reason, is an answer too.
"""


def read_answers(path: Path) -> dict[str, str]:
    """The answers by key, of all questions; an open one is empty.

    Raises:
        UnknownName: A key that no question has, with the nearest that there is.
        SettingsError: A file that is not YAML in UTF-8, or an answer that is not text.
    """
    if not path.is_file():
        return dict.fromkeys(QUESTIONS, "")
    return {**dict.fromkeys(QUESTIONS, ""), **_parsed(path, _text(path))}


def keep_answers(path: Path) -> None:
    """Make the file with every question open, or append those that it lacks; what stands in it stays as it is."""
    if not path.is_file():
        write_text(path, _HEAD + "".join(map(_open, QUESTIONS)))
        return
    text = _text(path)
    found = _parsed(path, text)
    lacking = [key for key in QUESTIONS if key not in found]
    longer = f"{text.rstrip()}\n{''.join(map(_open, lacking))}"
    # A file in another style than ours (one pair of braces, say) may not be a whole any more.
    if lacking and _loads(longer) == {**_loads(text), **dict.fromkeys(lacking, TODO)}:
        write_text(path, longer)


def is_open(answer: str) -> bool:
    """Whether something is left to write."""
    return not answer.strip() or TODO in answer


def _open(key: str) -> str:
    hint = textwrap.fill(QUESTIONS[key], 110, initial_indent="# ", subsequent_indent="# ")
    return f"\n{hint}\n{key}: {TODO}\n"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        msg = f"{path} is not text in UTF-8, which answers are written in; save it as UTF-8."
        raise SettingsError(msg) from None


def _loads(text: str) -> dict[str, object]:
    try:
        return dict(yaml.safe_load(text) or {})
    except (yaml.YAMLError, TypeError, ValueError):
        return {}


def _parsed(path: Path, text: str) -> dict[str, str]:
    try:
        values = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        msg = (
            f"{path} is not valid YAML ({' '.join(str(error).split())}); mend it there, or put quotes around the text."
        )
        raise SettingsError(msg) from None
    if not isinstance(values, Mapping):
        msg = f"{path} holds a {type(values).__name__} where keys with answers were expected; write `key: your text`."
        raise SettingsError(msg)
    keys = re.findall(r"^([A-Za-z_]\w*):", text, re.MULTILINE)
    if twice := next((key for key in keys if key in QUESTIONS and keys.count(key) > 1), None):
        msg = f"{path} answers '{twice}' {keys.count(twice)} times, expected once; keep one of the answers."
        raise SettingsError(msg)
    for key in values:
        if key not in QUESTIONS:
            fault = unknown_name("answer", str(key), list(QUESTIONS))
            msg = f"{path}: {fault}"
            raise UnknownName(msg)
    return {str(key): _answer(path, str(key), value) for key, value in values.items()}


def _answer(path: Path, key: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float | datetime.date):
        msg = f"{path} answers '{key}' with {value!r} where text was expected; put quotes around the text."
        raise SettingsError(msg)
    return str(value)
