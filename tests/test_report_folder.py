"""The report's folder: complete or untouched, in one file or in many."""

import re
import runpy
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from milkit.errors import RunError, StoreError
from milkit.predictions import Attention
from milkit.report import write
from milkit.report.write import write_report
from milkit.settings import ReportSettings

_PAGE_TESTS: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("test_report.py")))
make_run: Callable[..., Path] = _PAGE_TESTS["make_run"]
text_of: Callable[[str], str] = _PAGE_TESTS["text_of"]
read: Callable[[Path], str] = _PAGE_TESTS["read"]
assert_loads_nothing: Callable[[str], None] = _PAGE_TESTS["assert_loads_nothing"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("finished"))


@pytest.mark.parametrize(
    "name", ["settings.yaml", "provenance.json", "folds.csv", "predictions.csv", "attention.parquet", "metrics.json"]
)
def test_missing_file_of_the_run_is_named(finished: Path, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run, ignore=shutil.ignore_patterns("report", name))
    with pytest.raises(RunError, match=rf"{name} is missing; .* make it again with `milkit train-mil`"):
        write_report(run, ReportSettings())
    assert not (run / "report").exists()


def test_missing_run_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"There is no run at .*nowhere; make one with `milkit train-mil`"):
        write_report(tmp_path / "nowhere", ReportSettings())


def test_missing_store_is_named(run: Path) -> None:
    (run.parent.parent / "noise.zarr").rename(run.parent / "moved.zarr")
    with pytest.raises(StoreError, match=r"There is no bag store at .*noise\.zarr"):
        write_report(run, ReportSettings())


def test_store_of_another_cohort_is_refused(run: Path) -> None:
    table = pd.read_parquet(run / "attention.parquet")
    Attention(table.assign(cell_id="x" + table["cell_id"])).save(run / "attention.parquet")
    with pytest.raises(RunError, match="lacks 107 cells of the run, the first being 'xc"):
        write_report(run, ReportSettings())


def test_rerun_replaces_the_old_report_with_equal_bytes(run: Path) -> None:
    first = write_report(run, ReportSettings()).read_bytes()
    (run / "report" / "leftover.txt").touch()
    assert write_report(run, ReportSettings()).read_bytes() == first
    assert not (run / "report" / "leftover.txt").exists()
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


def test_failure_leaves_the_old_report_whole(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = write_report(run, ReportSettings()).read_bytes()

    def fail(*_: object, **__: object) -> None:
        msg = "disk full"
        raise OSError(msg)

    monkeypatch.setattr(write, "report_page", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(run, ReportSettings(top=1))
    assert (run / "report" / "report.html").read_bytes() == old
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


def test_failed_exchange_brings_the_old_report_back(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    with pytest.raises(FileNotFoundError):
        write._replace(tmp_path / "report", tmp_path / "nothing")
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_large_cohort_gets_a_page_a_patient(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "CARDS_LIMIT", 100_000)
    index = write_report(run, ReportSettings())
    page = read(index)
    assert_loads_nothing(page)
    assert "<img" not in page
    links = re.findall(r'href="(patients/[^"]+)"', page)
    assert len(links) == len(list((index.parent / "patients").iterdir())) == 9
    for link in links:
        patient = read(index.parent / link)
        assert_loads_nothing(patient)
        assert patient.count("<img") in (11, 12)
        assert f'href="../report.html#{link[9:-5]}"' in patient


def test_large_cohort_in_a_single_file_is_marked_as_reduced(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "CARDS_LIMIT", 100_000)
    index = write_report(run, ReportSettings(single_file=True))
    assert "Pictures are reduced to 72 px" in text_of(read(index))
    assert read(index).count("<img") == 9 * 12 - 1
    assert not (index.parent / "patients").exists()


def test_small_cohort_in_a_single_file_keeps_true_pixels(run: Path) -> None:
    assert "true pixels, 1:1" in text_of(read(write_report(run, ReportSettings(single_file=True))))
