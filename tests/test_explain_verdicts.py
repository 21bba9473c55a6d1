"""What is said of a run's rankings, to those who show its cells."""

import json
from pathlib import Path
from typing import Any

import pytest

from milkit.errors import RunError
from milkit.explain.verdicts import Verdicts


def _write(run: Path, **other: Any) -> Path:
    method = {"faithful": True, "beats_random": 20, "n_random": 20}
    told: dict[str, Any] = {"format": "milkit-faithfulness", "version": 1}
    told["methods"] = {"attention": {**method, "faithful": False, "beats_random": 11}, "leave_one_out": method}
    told["patients"] = [
        {"patient_id": "P1", "method": "attention", "faithful": False},
        {"patient_id": "P1", "method": "leave_one_out", "faithful": True},
        {"patient_id": "P2", "method": "attention", "faithful": True},
    ]
    (run / "faithfulness.json").write_text(json.dumps(told | other))
    return run


def test_a_run_that_was_not_explained_has_no_verdicts(tmp_path: Path) -> None:
    assert Verdicts.load(tmp_path) is None


def test_verdicts_are_of_a_method_and_of_each_patient(tmp_path: Path) -> None:
    verdicts = Verdicts.load(_write(tmp_path))
    assert verdicts is not None
    assert [verdicts.faithful(name) for name in ("attention", "leave_one_out", "single_cell")] == [False, True, None]
    assert verdicts.of_patients() == {"P1": False, "P2": True}


def test_a_sentence_says_which_ranking_does_not_beat_chance(tmp_path: Path) -> None:
    verdicts = Verdicts.load(_write(tmp_path))
    assert verdicts is not None
    what = "adding and taking away cells in this order moves the prediction"
    assert verdicts.sentence() == (
        f"Not faithful: {what} no more surely than chance does (it beats 11 of 20 random orders)."
    )
    assert verdicts.sentence("leave_one_out") == (
        f"Faithful: {what} more than chance does (it beats 20 of 20 random orders)."
    )
    assert verdicts.sentence("single_cell") == ""


@pytest.mark.parametrize("other", [{"version": 2}, {"format": "something"}])
def test_a_newer_or_another_file_is_refused(tmp_path: Path, other: dict[str, Any]) -> None:
    with pytest.raises(
        RunError, match=r"expected milkit-faithfulness, version 1 or lower; read it with a newer milkit"
    ):
        Verdicts.load(_write(tmp_path, **other))
