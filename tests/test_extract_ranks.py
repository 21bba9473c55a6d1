"""Extraction by the processes of one job: the bytes are those of one process, whoever fails, dies or comes later."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from extract_toys import Done, Jobs, Study, committed, free_port, store_bytes, store_in, wait_for, write_study

from milkit.bags import BagStore

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="needs fork")]

N_PATIENTS = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def jobs(folder: Path) -> Iterator[Jobs]:
    with Jobs(folder / "said") as jobs:
        yield jobs


@pytest.fixture(scope="module")
def study(folder: Path) -> Study:
    """Twelve patients with 2 to 6 cells; no image is bad."""
    return write_study(folder / "whole", N_PATIENTS, lambda number: 2 + number % 5)


@pytest.fixture(scope="module")
def whole(jobs: Jobs, study: Study, folder: Path) -> dict[str, bytes]:
    """The files of the store that one process makes."""
    jobs.run(study.extract(folder / "one"))
    return store_bytes(folder / "one")


@pytest.fixture(scope="module")
def broken(folder: Path) -> Study:
    """The same with bad images among the first patients and among the last, which different ranks take."""
    study = write_study(folder / "broken", N_PATIENTS, lambda number: 2 + number % 5)
    study.image(0, 1).write_bytes(b"no image")
    study.image(2, 0).write_bytes(study.image(2, 0).read_bytes()[:60])
    study.image(N_PATIENTS - 1, 1).write_bytes(b"")
    return study


@pytest.fixture(scope="module")
def whole_of_broken(jobs: Jobs, broken: Study, folder: Path) -> dict[str, bytes]:
    jobs.run(broken.extract(folder / "one-broken"), status=3)
    files = store_bytes(folder / "one-broken")
    assert files["failures.csv"].count(b"\n") == 1 + 3
    return files


def _run(jobs: Jobs, n: int, arguments: list[object]) -> list[Done]:
    return [job.wait() for job in jobs.ranks(n, arguments)]


def test_two_processes_make_the_store_of_one(jobs: Jobs, study: Study, whole: dict[str, bytes], tmp_path: Path) -> None:
    done = _run(jobs, 2, study.extract(tmp_path))
    assert [process.status for process in done] == [0, 0], done
    assert store_bytes(tmp_path) == whole
    assert BagStore.open(store_in(tmp_path) or tmp_path).verify() == []


def test_what_a_job_has_to_say_it_says_once(jobs: Jobs, study: Study, tmp_path: Path) -> None:
    first, second = _run(jobs, 2, study.extract(tmp_path))
    assert first.stdout.startswith("store ")
    assert first.stdout.endswith(f"cells of {N_PATIENTS} patients under toy\n")
    assert first.stderr == "encoded by torch-cpu in fp32, 2 images a batch\n"
    assert second.stdout + second.stderr == ""


def test_bad_images_of_all_ranks_are_listed_as_by_one_process_and_each_ends_with_status_3(
    jobs: Jobs, broken: Study, whole_of_broken: dict[str, bytes], tmp_path: Path
) -> None:
    first, second = _run(jobs, 2, broken.extract(tmp_path))
    assert (first.status, second.status) == (3, 3), (first, second)
    assert store_bytes(tmp_path) == whole_of_broken
    assert first.stderr.count("3 cells could not be read") == 1
    assert second.stdout + second.stderr == ""


@pytest.mark.parametrize("n", [3, 5])
def test_more_ranks_than_patients_make_the_same_store(jobs: Jobs, n: int, tmp_path: Path) -> None:
    small = write_study(tmp_path / "images", 2, lambda _: 3)
    jobs.run(small.extract(tmp_path / "one"))
    assert [process.status for process in _run(jobs, n, small.extract(tmp_path / "many"))] == [0] * n
    assert store_bytes(tmp_path / "many") == store_bytes(tmp_path / "one")


def test_ranks_find_nothing_to_do_in_a_store_that_is_complete(
    jobs: Jobs, study: Study, whole: dict[str, bytes], tmp_path: Path
) -> None:
    jobs.run(study.extract(tmp_path))
    assert [process.status for process in _run(jobs, 2, study.extract(tmp_path))] == [0, 0]
    assert store_bytes(tmp_path) == whole


def test_cells_of_nobody_are_shared_by_blocks(jobs: Jobs, tmp_path: Path) -> None:
    study = write_study(tmp_path / "images", 2, lambda _: 1030)  # blocks of 1,024, 1,024 and 12 cells
    study.recipe.write_text(f"name: toy\nfactory: loose\nroot: {study.root}\n")
    jobs.run(study.extract(tmp_path / "one"))
    assert [process.status for process in _run(jobs, 2, study.extract(tmp_path / "two"))] == [0, 0]
    assert store_bytes(tmp_path / "two") == store_bytes(tmp_path / "one")
    store = BagStore.open(store_in(tmp_path / "two") or tmp_path)
    assert [len(bag.features) for bag in store] == [1024, 1024, 12]


def _kill_halfway(jobs: Jobs, n: int, arguments: list[object], workspace: Path) -> None:
    """Kill all processes when the first and the last patients have begun to be there: all have written by then."""

    def marks() -> bytes:
        store = store_in(workspace)
        return (store / "committed" / "c" / "0").read_bytes() if store else bytes(N_PATIENTS)

    started = jobs.ranks(n, arguments)
    wait_for(lambda: any(marks()[: N_PATIENTS // 2]) and (n == 1 or any(marks()[N_PATIENTS // 2 :])))
    for job in started:
        job.signal(signal.SIGKILL)
    assert [job.wait().status for job in started] == [-signal.SIGKILL] * n
    assert 0 < committed(workspace) < N_PATIENTS


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (2, 3)])
def test_a_job_that_was_killed_is_completed_by_another_number_of_processes(
    jobs: Jobs, broken: Study, whole_of_broken: dict[str, bytes], tmp_path: Path, before: int, after: int
) -> None:
    _kill_halfway(jobs, before, broken.extract(tmp_path, seconds=0.05), tmp_path)
    done = _run(jobs, after, broken.extract(tmp_path))
    assert [process.status for process in done] == [3] * after, done
    assert store_bytes(tmp_path) == whole_of_broken


@pytest.mark.parametrize("victim", [0, 1])
def test_when_one_rank_is_killed_the_others_end_with_a_sentence_and_a_rerun_completes_the_store(
    jobs: Jobs, study: Study, whole: dict[str, bytes], tmp_path: Path, victim: int
) -> None:
    started = jobs.ranks(2, study.extract(tmp_path, seconds=0.05))
    wait_for(lambda: committed(tmp_path) > 0)
    started[victim].signal(signal.SIGKILL)
    done = [job.wait() for job in started]
    assert [process.status for process in done] == ([-9, 2] if victim == 0 else [2, -9]), done
    assert "Traceback" not in done[1 - victim].stderr
    if victim == 1:
        assert done[0].stderr.startswith("milkit: Another process of this job ended before its work was done; see what")
    jobs.run(study.extract(tmp_path))
    assert store_bytes(tmp_path) == whole


@pytest.mark.parametrize("victim", [0, 1])
def test_a_disk_that_is_full_for_one_rank_is_said_once_and_the_other_finishes_its_part(
    jobs: Jobs, study: Study, whole: dict[str, bytes], tmp_path: Path, victim: int
) -> None:
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "NO_ROOM_FOR": str(victim)}
    started = [jobs.start(study.extract(tmp_path), place | {"RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
    first, second = [job.wait() for job in started]
    assert (first.status, second.status) == (2, 2), (first, second)
    assert first.stderr.startswith("milkit: The disk has no room left for the store")
    assert first.stderr.count("\n") == 1
    assert second.stdout + second.stderr == ""
    marks = [((store_in(tmp_path) or tmp_path) / "committed" / "c" / "0").read_bytes()]
    assert 0 < sum(marks[0]) < N_PATIENTS
    assert marks[0][0 if victim else -1] == 1
    jobs.run(study.extract(tmp_path))
    assert store_bytes(tmp_path) == whole


def test_a_refusal_of_the_first_rank_is_said_once_and_ends_all(jobs: Jobs, study: Study, tmp_path: Path) -> None:
    jobs.run(study.extract(tmp_path))
    before = store_bytes(tmp_path)
    first, second = _run(jobs, 2, study.extract(tmp_path, "--set", "dtype=float32"))
    assert (first.status, second.status) == (2, 2)
    assert "was made otherwise (dtype: float16 there, float32 now)" in first.stderr
    assert first.stderr.count("\n") == 1
    assert second.stdout + second.stderr == ""
    assert store_bytes(tmp_path) == before


def test_an_interruption_of_all_leaves_a_store_that_a_rerun_completes(
    jobs: Jobs, study: Study, whole: dict[str, bytes], tmp_path: Path
) -> None:
    started = jobs.ranks(2, study.extract(tmp_path, seconds=0.1))
    wait_for(lambda: committed(tmp_path) > 0)
    for job in started:
        job.signal(signal.SIGINT)
    first, second = [job.wait() for job in started]
    assert (first.status, second.status) == (130, 130), (first, second)
    assert first.stderr == "milkit: interrupted; run the same command again, it goes on where it stopped.\n"
    assert second.stderr == ""
    jobs.run(study.extract(tmp_path))
    assert store_bytes(tmp_path) == whole


def test_srun_s_variables_bring_the_processes_together(
    jobs: Jobs, study: Study, whole: dict[str, bytes], tmp_path: Path
) -> None:
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_ID": str(_free_job())}
    started = [
        jobs.start(study.extract(tmp_path), step | {"SLURM_PROCID": rank, "SLURM_LOCALID": rank}) for rank in "01"
    ]
    done = [job.wait() for job in started]
    assert [process.status for process in done] == [0, 0], done
    assert done[1].stdout + done[1].stderr == ""
    assert store_bytes(tmp_path) == whole


def _free_job() -> int:
    """The number of a job whose port is free here."""
    for number in range(1000, 2000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 20000 + number)) != 0:
                return number
    pytest.fail("every port is taken")


def test_torchrun_makes_the_store_of_one_process(study: Study, whole: dict[str, bytes], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()]
    command += ["-m", "milkit", *study.extract(tmp_path)]
    alone = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=Path(__file__).parent.parent,
        env=alone | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done
    assert done.stdout.count("store ") == 1
    assert done.stderr.count("encoded by torch-cpu") == 1
    assert store_bytes(tmp_path) == whole
