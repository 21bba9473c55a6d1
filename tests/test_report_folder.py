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
from milkit.report.folder import exchange, without_formulas
from milkit.report.settings import ReportSettings
from milkit.report.write import write_report

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
    assert write_report(run, ReportSettings()).read_bytes() == first
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []


def test_rerun_keeps_files_that_a_reader_put_there(run: Path) -> None:
    report = write_report(run, ReportSettings()).parent
    mine = ["notes.txt", "figures/mine.svg", "patients/review.docx", "new/deep/x.csv"]
    for name in mine:
        (report / name).parent.mkdir(parents=True, exist_ok=True)
        (report / name).write_text(name)
    write_report(run, ReportSettings(top=1))
    assert [(report / name).read_text() for name in mine] == mine


def test_rerun_removes_what_an_older_report_wrote(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as small:
        small.setattr(write, "CARDS_LIMIT", 1000)
        write_report(run, ReportSettings())
    assert (run / "report" / "patients").is_dir()
    write_report(run, ReportSettings())
    assert not (run / "report" / "patients").exists()


def test_text_that_a_spreadsheet_would_compute_gets_an_apostrophe() -> None:
    table = pd.DataFrame({"text": ["=1+1", "+a", "-a", "@a", "\ta", "a=b", ""], "number": [-1.5, 0, 1, 2, 3, 4, 5]})
    plain = without_formulas(table)
    assert plain["text"].tolist() == ["'=1+1", "'+a", "'-a", "'@a", "'\ta", "a=b", ""]
    assert plain["number"].equals(table["number"])


@pytest.mark.parametrize("name", ["top_cells.csv", "predictions.csv"])
def test_tables_of_the_report_hold_no_formulas(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path, classes=("=cmd()", "b", "c"), patients=("-P1", *(f"P{n}" for n in range(2, 10))))
    table = pd.read_csv(write_report(run, ReportSettings()).with_name(name), dtype=str)
    assert {"'-P1", "P2"} <= set(table["patient_id"])
    assert not table.stack().astype(str).str.match(r"[=+@\t]|-\D").any()


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
        exchange(tmp_path / "report", tmp_path / "nothing")
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


@pytest.mark.parametrize(("limit", "smoothed"), [(100_000, True), (10_000_000, False)])
def test_only_reduced_pictures_may_be_smoothed(
    run: Path, monkeypatch: pytest.MonkeyPatch, limit: int, smoothed: bool
) -> None:
    monkeypatch.setattr(write, "CARDS_LIMIT", limit)
    page = read(write_report(run, ReportSettings(single_file=True)))
    assert page.count('class="true"') == (0 if smoothed else page.count("<img"))


def test_small_cohort_in_a_single_file_keeps_true_pixels(run: Path) -> None:
    assert "true pixels, 1:1" in text_of(read(write_report(run, ReportSettings(single_file=True))))
