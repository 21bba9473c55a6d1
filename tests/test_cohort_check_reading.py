"""How a check reads a cohort: every file once, by several processes, and not again what has not changed."""

import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from check_toys import draw_cell, drawn_cohort, jpeg
from PIL import Image

from milkit.check import reading, workers
from milkit.check.measures import FAILED, MEASURED, CellFile
from milkit.check.reading import read_cells
from milkit.check.verb import check_cohort
from milkit.check.workers import Measured, measure_by_processes, measure_files
from milkit.cohort import Cohort


@pytest.fixture
def drawn(tmp_path: Path) -> Cohort:
    """Thirty drawn cells, on disk for some time."""
    cohort = drawn_cohort(tmp_path / "drawn")
    for path in cohort.root.iterdir():
        os.utime(path, (1e9, 1e9))
    return cohort


def overwrite(path: Path, content: bytes, seconds: float = 1e9 + 60) -> None:
    path.write_bytes(content)
    os.utime(path, (seconds, seconds))


def test_processes_measure_what_this_process_measures(drawn: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    (drawn.root / "cell_4.jpg").write_bytes(b"no image")
    (drawn.root / "cell_29.jpg").unlink()
    alone = read_cells(drawn.root, drawn.cells)
    monkeypatch.setattr(reading, "ALONE", 9)
    monkeypatch.setattr(reading, "AT_ONCE", 4)
    monkeypatch.setattr(reading, "_cores", lambda: 2)
    together = read_cells(drawn.root, drawn.cells)
    assert together.records.tobytes() == alone.records.tobytes()
    assert together.reasons == alone.reasons
    assert list(alone.reasons) == [4, 29]
    assert alone.records["state"].tolist() == [FAILED if n in (4, 29) else MEASURED for n in range(30)]


def test_answers_come_in_the_order_of_the_questions(drawn: Cohort) -> None:
    batches = [[CellFile(f"cell_{n}.jpg", [""])] for n in range(30)]
    answers = list(measure_by_processes(drawn.root, batches, 3))
    expected = [measure_files(drawn.root, batch).records["sha256"].tolist() for batch in batches]
    assert [answer.records["sha256"].tolist() for answer in answers] == expected


def test_batches_are_asked_for_only_as_far_as_answers_are_taken(drawn: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise memory would grow with the cohort."""
    monkeypatch.setattr(workers, "AHEAD", 2)
    asked = []

    def batches() -> Sequence[Sequence[CellFile]]:
        for n in range(30):
            asked.append(n)
            yield [CellFile(f"cell_{n}.jpg", [""])]

    answers = measure_by_processes(drawn.root, batches(), 1)
    next(answers)
    assert len(asked) == 3
    answers.close()


def test_processes_end_with_who_asked_them(drawn: Cohort) -> None:
    answers = measure_by_processes(drawn.root, [[CellFile(f"cell_{n}.jpg", [""])] for n in range(30)], 2)
    next(answers)
    children = {int(pid) for tasks in Path("/proc/self/task").glob("*/children") for pid in tasks.read_text().split()}
    if not children:
        pytest.skip("this system does not list the processes of a process")
    answers.close()
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []


def test_a_process_that_dies_is_an_error_and_no_silence(drawn: Cohort, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("true"))
    with pytest.raises((RuntimeError, BrokenPipeError)):
        list(measure_by_processes(drawn.root, [[CellFile("cell_0.jpg", [""])]], 1))


def test_what_has_not_changed_is_not_read_again(drawn: Cohort, tmp_path: Path) -> None:
    kept = tmp_path / "kept.npy"
    first = check_cohort(drawn, kept=kept)
    assert first.n_files_read == 30
    overwrite(drawn.root / "cell_3.jpg", jpeg(draw_cell(77)))
    second = check_cohort(drawn, kept=kept)
    assert second.n_files_read == 1
    assert second.cells.equals(check_cohort(drawn).cells)
    assert not second.cells.equals(first.cells)
    assert check_cohort(drawn, kept=kept).n_files_read == 0


def test_fresh_reads_all_and_keeps_it(drawn: Cohort, tmp_path: Path) -> None:
    kept = tmp_path / "kept.npy"
    check_cohort(drawn, kept=kept)
    content = (drawn.root / "cell_3.jpg").read_bytes()
    overwrite(drawn.root / "cell_3.jpg", content[:-200] + bytes(198) + b"\xff\xd9", seconds=1e9)
    fresh = check_cohort(drawn, kept=kept, fresh=True)
    assert fresh.n_files_read == 30
    assert fresh.cells["sha256"][3] == check_cohort(drawn, kept=kept).cells["sha256"][3]


def test_a_change_that_hides_behind_the_old_size_and_time_is_seen(drawn: Cohort, tmp_path: Path) -> None:
    """As copying tools and scanners leave it, which set the time of a file back."""
    kept = tmp_path / "kept.npy"
    check_cohort(drawn, kept=kept)
    content = (drawn.root / "cell_3.jpg").read_bytes()
    overwrite(drawn.root / "cell_3.jpg", content[:-200] + bytes(198) + b"\xff\xd9", seconds=1e9)
    assert check_cohort(drawn, kept=kept).n_files_read == 1


def test_the_same_paths_below_another_root_are_other_files(drawn: Cohort, tmp_path: Path) -> None:
    kept, other = tmp_path / "kept.npy", tmp_path / "other"
    other.mkdir()
    for path in drawn.root.iterdir():
        (other / path.name).hardlink_to(path)  # of the same size and times
    check_cohort(drawn, kept=kept)
    assert check_cohort(replace(drawn, root=other), kept=kept).n_files_read == 30
    assert check_cohort(replace(drawn, root=tmp_path / "other" / ".." / "other"), kept=kept).n_files_read == 0


def test_a_file_of_this_very_moment_is_read_again(drawn: Cohort, tmp_path: Path) -> None:
    """Within the grain of a file's time it could change once more, to the same size, and nobody could tell."""
    kept = tmp_path / "kept.npy"
    now = time.time()
    overwrite(drawn.root / "cell_3.jpg", jpeg(draw_cell(77)), seconds=now)
    check_cohort(drawn, kept=kept)
    assert check_cohort(drawn, kept=kept).n_files_read == 1


def test_a_file_that_could_not_be_read_is_tried_again(drawn: Cohort, tmp_path: Path) -> None:
    kept = tmp_path / "kept.npy"
    overwrite(drawn.root / "cell_3.jpg", b"no image", seconds=1e9)
    assert check_cohort(drawn, kept=kept).cells["flags"][3] == "unreadable"
    again = check_cohort(drawn, kept=kept)
    assert again.n_files_read == 1
    assert again.cells["flags"][3] == "unreadable"


def test_a_sample_does_not_forget_the_others(drawn: Cohort, tmp_path: Path) -> None:
    kept = tmp_path / "kept.npy"
    check_cohort(drawn, kept=kept)
    assert check_cohort(drawn, kept=kept, sample=4).n_files_read == 0
    assert check_cohort(drawn, kept=kept).n_files_read == 0


def test_a_new_box_in_a_known_file_is_measured(drawn: Cohort, tmp_path: Path) -> None:
    kept = tmp_path / "kept.npy"
    cells = drawn.cells.iloc[[0, 0]].assign(cell_id=["a", "b"], box=["0 0 64 64", "64 64 64 64"])
    check_cohort(replace(drawn, cells=cells.iloc[:1]), kept=kept)
    both = check_cohort(replace(drawn, cells=cells), kept=kept)
    assert both.n_files_read == 1
    assert both.cells.equals(check_cohort(replace(drawn, cells=cells)).cells)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"nonsense"])
def test_damaged_measures_are_only_a_convenience_lost(drawn: Cohort, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "kept.npy").write_bytes(content)
    assert check_cohort(drawn, kept=tmp_path / "kept.npy").n_files_read == 30
    assert check_cohort(drawn, kept=tmp_path / "kept.npy").n_files_read == 0


def test_measures_of_another_version_are_not_taken_over(
    drawn: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_cohort(drawn, kept=tmp_path / "kept.npy")
    monkeypatch.setattr(reading, "VERSION", 0)
    assert check_cohort(drawn, kept=tmp_path / "kept.npy").n_files_read == 30


def test_an_interrupted_check_goes_on_where_it_stopped(
    drawn: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, asked = tmp_path / "kept.npy", []

    def interrupted(root: Path, files: Sequence[CellFile]) -> Measured:
        asked.append(files)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return measure_files(root, files)

    monkeypatch.setattr(reading, "AT_ONCE", 10)
    monkeypatch.setattr(reading, "measure_files", interrupted)
    with pytest.raises(KeyboardInterrupt):
        check_cohort(drawn, kept=kept)
    monkeypatch.setattr(reading, "measure_files", measure_files)
    assert check_cohort(drawn, kept=kept).n_files_read == 10


def test_cells_of_a_field_are_read_together_wherever_they_stand_in_the_table(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.fromarray(np.random.default_rng(ord(name)).integers(0, 256, (40, 40, 3)).astype(np.uint8)).save(
            tmp_path / f"{name}.png"
        )
    cells = pd.DataFrame({"path": ["a.png", "b.png"] * 3, "box": [f"{n} 0 10 10" for n in range(6)]})
    together = read_cells(tmp_path, cells)
    assert together.n_files_read == 2
    for row in range(6):
        one = read_cells(tmp_path, cells.iloc[[row]])
        assert one.records.tobytes() == together.records[[row]].tobytes()


def test_cells_in_an_archive_are_read_without_unpacking(drawn: Cohort, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "drawn.zip", "w") as archive:
        for path in sorted(drawn.root.iterdir()):
            archive.write(path, path.name)
    os.utime(tmp_path / "drawn.zip", (1e9, 1e9))
    packed = drawn.cells.assign(path="drawn.zip::" + drawn.cells["path"])
    unpacked = check_cohort(drawn).cells
    check = check_cohort(replace(drawn, root=tmp_path, cells=packed), kept=tmp_path / "kept.npy")
    assert check.cells.drop(columns="path").equals(unpacked.drop(columns="path"))
    assert check_cohort(replace(drawn, root=tmp_path, cells=packed), kept=tmp_path / "kept.npy").n_files_read == 0


def test_processes_load_no_table_library() -> None:
    """Each costs its memory as often as there are cores."""
    code = "import sys, milkit.check.workers; print({'pandas', 'scipy', 'jinja2', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says how much memory a process had")
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """Beyond the tables, which have about a kilobyte a cell: the pixels of 8,000 more images would be 96 MB."""
    script = Path(__file__).parent.parent / "benchmarks" / "check.py"
    if not script.is_file():
        pytest.skip("the benchmarks are not installed with the package")
    command = [sys.executable, str(script), "--sizes", "2000", "10000", "--json", str(tmp_path / "check.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    few, many = pd.read_json(tmp_path / "check.json")["cost"]
    assert many["peak_mb"] - few["peak_mb"] < 25
    assert many["worker_mb"] - few["worker_mb"] < 10
    assert (few["files_read_again"], many["files_read_again"]) == (0, 0)
