"""Progress where nobody watches a terminal."""

import pytest

from milkit import progress


def test_a_long_job_writes_a_line_with_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([0.0, 10.0, 40.0, 45.0])
    monkeypatch.setattr("milkit.progress.time.monotonic", lambda: next(times))
    with progress.progress("extract", 100, "cells") as advance:
        advance(10)
        advance(10)
        advance(10)
    assert capsys.readouterr().err == "extract: 20 of 100 cells, 0.5 cells/s, 160 s left\n"
