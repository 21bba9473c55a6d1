"""Extraction that is killed, started twice, or without room: a rerun always ends with the bytes of a quiet run."""

import contextlib
import errno
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from extract_toys import Done, Jobs, Study, committed, store_bytes, store_in, wait_for, write_study
from torch import Tensor, nn

from milkit.bags import BagStore
from milkit.bags.arrays import BagArrays
from milkit.cohort import find_recipe, load_cohort
from milkit.encoder import Encoder, Transform
from milkit.errors import StoreError
from milkit.extract import extract
from milkit.runs import Workspace
from milkit.settings import ExtractSettings

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="needs fork and signals")]

N_PATIENTS, N_KILLS = 150, 20
SLOWLY = 0.004
"""Seconds a batch, so that most of the time goes into the work and not into its start."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kills")


@pytest.fixture(scope="module")
def jobs(folder: Path) -> Iterator[Jobs]:
    with Jobs(folder / "said") as jobs:
        yield jobs


@pytest.fixture(scope="module")
def study(folder: Path) -> Study:
    """Many patients with 2 to 4 cells, of which three have images that cannot be read."""
    study = write_study(folder / "study", N_PATIENTS, lambda number: 2 + number % 3)
    study.image(4, 1).write_bytes(b"no image")
    study.image(40, 0).write_bytes(study.image(40, 0).read_bytes()[:60])
    study.image(N_PATIENTS - 1, 1).write_bytes(b"")
    return study


@pytest.fixture(scope="module")
def whole(jobs: Jobs, study: Study, folder: Path) -> dict[str, bytes]:
    """The files of the store of a run that nobody disturbed."""
    jobs.run(study.extract(folder / "whole"), status=3)
    return store_bytes(folder / "whole")


def _lock_of(workspace: Path) -> str:
    store = store_in(workspace)
    return (store / "lock").read_text() if store and (store / "lock").exists() else ""


def _is_completed(jobs: Jobs, study: Study, workspace: Path, whole: dict[str, bytes]) -> Done:
    """A rerun ends as a quiet run does: status 3 for the bad images, its bytes, nothing wrong with the store."""
    done = jobs.run(study.extract(workspace), status=3)
    assert store_bytes(workspace) == whole
    assert BagStore.open(store_in(workspace) or workspace).verify() == []
    assert _lock_of(workspace) == ""
    return done


def test_killed_at_twenty_moments_and_rerun_the_bytes_are_those_of_a_quiet_run(
    jobs: Jobs, study: Study, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """Every fourth kill is timed from the start (making and opening the store), the others by what has been written."""
    rng, seen = random.Random(0), list[int]()
    started = time.monotonic()
    job = jobs.start(study.extract(tmp_path / "clock", seconds=SLOWLY))
    wait_for(lambda: committed(tmp_path / "clock") > 0)
    job.signal(signal.SIGKILL)
    job.wait()
    until_first = time.monotonic() - started
    for number in range(N_KILLS):
        before = committed(tmp_path / "work")
        job = jobs.start(study.extract(tmp_path / "work", seconds=SLOWLY))
        if number % 4 == 0:
            time.sleep(rng.uniform(0, until_first))
        else:
            target = before + rng.randrange(1, 5)
            wait_for(lambda target=target: committed(tmp_path / "work") >= target)
            time.sleep(rng.uniform(0, 0.01))
        job.signal(signal.SIGKILL)
        assert job.wait().status == -signal.SIGKILL
        seen.append(committed(tmp_path / "work"))
    assert len({count for count in seen if 0 < count < N_PATIENTS}) >= 8, seen  # they fell into the work
    _is_completed(jobs, study, tmp_path / "work", whole)


def test_a_second_extract_into_one_store_is_told_who_holds_the_lock_and_does_no_harm(
    jobs: Jobs, study: Study, whole: dict[str, bytes], tmp_path: Path
) -> None:
    first = jobs.start(study.extract(tmp_path, seconds=0.02))
    wait_for(lambda: committed(tmp_path) > 0)
    second = jobs.run(study.extract(tmp_path), status=2)
    store = store_in(tmp_path)
    assert second.stderr.startswith(
        f"milkit: Process {first.pid} on {socket.gethostname()} has been writing the store {store} since "
    )
    assert second.stderr.endswith("wait until it has finished, or stop it, then run the command again.\n")
    assert second.stderr.count("\n") == 1
    assert first.wait().status == 3
    assert store_bytes(tmp_path) == whole


def test_two_that_begin_the_same_store_at_once_do_not_share_it(
    jobs: Jobs, study: Study, whole: dict[str, bytes], tmp_path: Path
) -> None:
    started = [jobs.start(study.extract(tmp_path, seconds=0.01)) for _ in range(3)]
    done = [job.wait() for job in started]
    assert sorted(process.status for process in done) == [2, 2, 3], done
    assert all("has been writing" in p.stderr or "Another process" in p.stderr for p in done if p.status == 2), done
    assert store_bytes(tmp_path) == whole


def test_the_lock_of_a_killed_process_is_taken_over(
    jobs: Jobs, study: Study, whole: dict[str, bytes], tmp_path: Path
) -> None:
    job = jobs.start(study.extract(tmp_path, seconds=0.02))
    wait_for(lambda: committed(tmp_path) > 0)
    job.signal(signal.SIGKILL)
    job.wait()
    assert json.loads(_lock_of(tmp_path))["pid"] == job.pid
    _is_completed(jobs, study, tmp_path, whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_store_that_a_rerun_completes(
    jobs: Jobs, study: Study, whole: dict[str, bytes], tmp_path: Path, number: int
) -> None:
    job = jobs.start(study.extract(tmp_path, seconds=0.02))
    wait_for(lambda: committed(tmp_path) > 0)
    job.signal(number)
    done = job.wait()
    assert done.status == (130 if number == signal.SIGINT else -signal.SIGTERM)
    assert "Traceback" not in done.stderr
    assert 0 < committed(tmp_path) < N_PATIENTS
    _is_completed(jobs, study, tmp_path, whole)


def test_the_images_of_a_patient_that_came_back_are_read_by_the_rerun_after_a_kill(
    jobs: Jobs, study: Study, tmp_path: Path
) -> None:
    """A kill between reading bad images and mending them leaves nothing of the bad ones behind."""
    own = write_study(tmp_path / "own", 20, lambda _: 3)
    jobs.run(own.extract(tmp_path / "quiet"))
    image = own.image(2, 1)
    content = image.read_bytes()
    image.write_bytes(content[:50])
    job = jobs.start(own.extract(tmp_path / "work", seconds=0.02))
    wait_for(lambda: committed(tmp_path / "work") > 5)
    job.signal(signal.SIGKILL)
    job.wait()
    image.write_bytes(content)
    jobs.run(own.extract(tmp_path / "work"))
    assert store_bytes(tmp_path / "work") == store_bytes(tmp_path / "quiet")


def test_a_full_disk_is_one_sentence_and_the_store_stays_valid(
    jobs: Jobs, study: Study, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """The plugin lets the eleventh write and all later ones fail as a full disk does."""
    done = jobs.start(study.extract(tmp_path), {"NO_ROOM_FOR": ""}).wait()
    assert done.status == 2, done
    assert done.stderr.startswith(f"milkit: The disk has no room left for the store {store_in(tmp_path)}")
    assert done.stderr.endswith(
        "free some space, then run the same `milkit extract` again, it goes on where it stopped.\n"
    )
    assert done.stderr.count("\n") == 1
    n_committed = committed(tmp_path)
    assert 0 < n_committed < N_PATIENTS
    faults = BagStore(store_in(tmp_path) or tmp_path).verify()
    assert len(faults) == N_PATIENTS - n_committed
    assert all("is not committed" in fault for fault in faults)
    _is_completed(jobs, study, tmp_path, whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 KB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a file system cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_file_system_that_runs_full_is_one_sentence_and_more_room_completes_the_store(
    jobs: Jobs, study: Study, small_disk: Path, tmp_path: Path
) -> None:
    """At 1,728 features a cell the store needs some 1.5 MB."""
    jobs.run(study.extract(tmp_path / "quiet", grid=24, size=24), status=3)
    arguments = study.extract(small_disk, grid=24, size=24)
    done = jobs.run(arguments, status=2)
    assert done.stderr.startswith("milkit: The disk has no room left for the store"), done
    assert done.stderr.count("\n") == 1
    assert 0 < committed(small_disk) < N_PATIENTS
    assert jobs.run(arguments, status=2).stderr.count("\n") == 1  # still full, still one sentence
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    jobs.run(arguments, status=3)
    assert store_bytes(small_disk) == store_bytes(tmp_path / "quiet")


def test_a_folder_that_may_not_be_written_is_one_sentence(jobs: Jobs, study: Study, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        (tmp_path / "work").write_text("")  # root may write anywhere, but not below a file
    else:
        (tmp_path / "work").mkdir(mode=0o500)
    done = jobs.run(study.extract(tmp_path / "work"), status=2)
    assert done.stderr.startswith("milkit: ")
    assert "choose another --workspace" in done.stderr
    assert done.stderr.count("\n") == 1


class Counting(nn.Module):
    """A mean colour; counts the batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches = 0

    def forward(self, images: Tensor) -> Tensor:
        self.batches += 1
        return images.mean((2, 3))


def _extract_here(study: Study, workspace: Path, model: Counting) -> None:
    """Extract in this process, a batch a patient; without room on the disk, only as far as it goes."""
    encoder = Encoder("counting", model, Transform(size=8), 3, "c" * 64)
    recipe = find_recipe(str(study.recipe))
    settings = ExtractSettings(cohort=recipe, batch_size=4, precision="fp32")
    with contextlib.suppress(StoreError):
        extract(load_cohort(recipe), encoder, settings, Workspace(workspace))


def test_what_cannot_be_written_ends_the_work_soon(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(BagArrays, "write", full)
    model = Counting()
    _extract_here(study, tmp_path, model)
    assert 0 < model.batches < 10
    assert committed(tmp_path) == 0


def test_encoded_patients_do_not_pile_up_before_a_slow_disk(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, written, ahead, write = Counting(), [0], list[int](), BagStore.write

    def slow(*arguments: Any) -> None:
        time.sleep(0.005)
        ahead.append(model.batches - written[0])
        write(*arguments)
        written[0] += 1

    monkeypatch.setattr(BagStore, "write", slow)
    _extract_here(study, tmp_path, model)
    assert written == [N_PATIENTS]
    assert 1 < max(ahead) <= 4  # two that wait, one that is being written, one that is being encoded
