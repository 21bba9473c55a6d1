"""What every registered cohort owes its user, whoever wrote it."""

import re
from pathlib import Path
from typing import Any

import pytest

from milkit.errors import CohortError, SettingsError
from milkit.registry import COHORTS

ARGUMENTS: dict[str, dict[str, Any]] = {
    "tabular": {"images": "a/{patient_id}/{cell_id}.png", "patients": "t.csv"},
}
"""What a factory cannot do without, beside its root."""
MAKES_ITS_FOLDER = {"synthetic"}


def is_one_sentence(text: str) -> bool:
    """One full stop, and that at the end; a stop within a file name or a version is none."""
    return text.endswith(".") and "\n" not in text and not re.search(r"[.!?]\s+[A-Z]", text)


def refusal(name: str, **root: Path | None) -> str:
    with pytest.raises((CohortError, SettingsError)) as caught:
        COHORTS.build(name, ARGUMENTS.get(name, {}) | root)
    return str(caught.value)


@pytest.mark.parametrize("root", [{}, {"root": None}], ids=["absent", "null"])
@pytest.mark.parametrize("name", COHORTS.names())
def test_cohort_without_a_root_is_refused_in_one_sentence(name: str, root: dict[str, None]) -> None:
    text = refusal(name, **root)
    assert is_one_sentence(text)
    assert re.search(r"\broot\b", text)


@pytest.mark.parametrize("name", [name for name in COHORTS.names() if name not in MAKES_ITS_FOLDER])
def test_root_that_does_not_exist_is_refused_in_one_sentence_that_names_it(name: str, tmp_path: Path) -> None:
    text = refusal(name, root=tmp_path / "nowhere")
    assert is_one_sentence(text)
    assert str(tmp_path / "nowhere") in text
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", COHORTS.names())
def test_factory_says_what_it_reads(name: str) -> None:
    assert COHORTS.get(name).__doc__
