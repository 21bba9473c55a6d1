"""Ranks: who of a job does what, and how they agree; two of them are real processes that talk over gloo."""

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from extract_toys import free_port
from torch import distributed

from milkit import ranks
from milkit.errors import SettingsError
from milkit.ranks import ALONE, Ranks, found, joined, speaks

TWO_RANKS = """
import json, os, sys
from torch import distributed
from milkit.errors import CohortError, SettingsError, StoreError
from milkit.ranks import joined

said = {}

def fail(error):
    raise error

def caught(what):
    try:
        return what()
    except Exception as error:
        return [type(error).__name__, str(error)]

with joined() as ranks:
    me = ranks.rank
    said["ranks"] = [ranks.rank, ranks.size]
    said["agreed"] = ranks.agreed(lambda: {"decided by": me, "cells": [1, 2]})
    said["refused"] = caught(lambda: ranks.agreed(lambda: fail(CohortError("the first rank says no"))))
    said["own"] = ranks.each(lambda: 10 + me)
    said["gathered"] = ranks.gathered(["of rank", me])
    said["one failed"] = caught(lambda: ranks.each(lambda: fail(StoreError(f"rank {me} has no room")) if me else 1))
    said["forbidden"] = caught(lambda: ranks.each(lambda: os.listdir("no-such-folder") if me else 1))
    said["forbidden first"] = caught(lambda: ranks.agreed(lambda: os.listdir("no-such-folder")))
    said["both failed"] = caught(lambda: ranks.each(lambda: fail(SettingsError(f"rank {me} failed"))))
    said["still agreed"] = ranks.agreed(lambda: "yes")
print(json.dumps(said | {"parted": not distributed.is_initialized()}), flush=True)
"""

ONE_DIES = """
import json, os
from milkit.ranks import joined

said = {}
with joined() as ranks:
    ranks.each(lambda: None)
    if ranks.rank:
        os._exit(7)
    for name, call in (("each", ranks.each), ("agreed", ranks.agreed)):
        try:
            call(lambda: None)
        except Exception as error:
            said[name] = [type(error).__name__, str(error)]
print(json.dumps(said))
"""


@pytest.fixture(autouse=True)
def _started_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)


def _two_processes(script: str) -> list[subprocess.CompletedProcess[str]]:
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env={"PATH": "", "HOME": str(Path.home()), "RANK": str(rank), **place},
            cwd=Path(__file__).parent.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    return [
        subprocess.CompletedProcess("", process.wait(), stdout=out, stderr=err)
        for process in started
        for out, err in [process.communicate(timeout=120)]
    ]


@pytest.fixture(scope="module")
def said() -> list[dict[str, Any]]:
    """What each of two ranks has seen."""
    done = _two_processes(TWO_RANKS)
    assert [process.returncode for process in done] == [0, 0], done
    return [json.loads(process.stdout) for process in done]


def test_two_processes_are_ranks_0_and_1_of_2(said: list[dict[str, Any]]) -> None:
    assert [seen["ranks"] for seen in said] == [[0, 2], [1, 2]]


def test_what_the_first_rank_decides_holds_on_all(said: list[dict[str, Any]]) -> None:
    assert [seen["agreed"] for seen in said] == [{"decided by": 0, "cells": [1, 2]}] * 2


def test_an_error_of_the_first_rank_is_raised_on_all(said: list[dict[str, Any]]) -> None:
    assert [seen["refused"] for seen in said] == [["CohortError", "the first rank says no"]] * 2


def test_each_rank_keeps_its_own_result(said: list[dict[str, Any]]) -> None:
    assert [seen["own"] for seen in said] == [10, 11]


def test_what_each_rank_has_is_known_to_all_in_their_order(said: list[dict[str, Any]]) -> None:
    assert [seen["gathered"] for seen in said] == [[["of rank", 0], ["of rank", 1]]] * 2


def test_an_error_of_any_rank_is_raised_on_all_the_first_rank_s_first(said: list[dict[str, Any]]) -> None:
    assert [seen["one failed"] for seen in said] == [["StoreError", "rank 1 has no room"]] * 2
    assert [seen["both failed"] for seen in said] == [["SettingsError", "rank 0 failed"]] * 2


def test_what_the_system_refuses_one_rank_is_raised_on_all_with_its_place(said: list[dict[str, Any]]) -> None:
    refused = ["FileNotFoundError", "[Errno 2] No such file or directory: 'no-such-folder'"]
    assert [[seen["forbidden"], seen["forbidden first"]] for seen in said] == [[refused, refused]] * 2


def test_after_an_error_the_ranks_can_go_on_talking_and_part_in_the_end(said: list[dict[str, Any]]) -> None:
    assert [seen["still agreed"] for seen in said] == ["yes", "yes"]
    assert [seen["parted"] for seen in said] == [True, True]


def test_a_rank_that_dies_is_a_sentence_on_the_others() -> None:
    survivor, dead = _two_processes(ONE_DIES)
    assert (survivor.returncode, dead.returncode) == (0, 7), survivor
    for name in ("each", "agreed"):
        kind, message = json.loads(survivor.stdout)[name]
        assert kind == "MilkitError"
        assert message.startswith("Another process of this job ended before its work was done; see what it said")


def test_a_process_that_was_started_alone_meets_nobody_and_decides_by_itself() -> None:
    with joined() as alone:
        assert alone == ALONE
        assert alone.agreed(lambda: 3) == 3
        assert alone.each(lambda: 4) == 4
        assert alone.gathered(5) == [5]


def test_a_rank_whose_companions_never_come_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks, "_ARRIVAL", timedelta(seconds=1))
    with (
        pytest.raises(SettingsError, match=r"^Process 0 of 2 did not meet the others .*; see what they said"),
        joined(),
    ):
        pytest.fail("it met somebody")


def test_ranks_without_a_meeting_place_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (
        pytest.raises(SettingsError, match=r"^Process 1 of 2 did not meet .*MASTER_ADDR.*torchrun or srun\.$"),
        joined(),
    ):
        pytest.fail("it met somebody")


@pytest.mark.parametrize(
    ("own", "other", "backend"),
    [
        ("GPU-a", "GPU-b", "cpu:gloo,cuda:nccl"),
        ("GPU-a", "GPU-a", "gloo"),
        ("GPU-a", "", "gloo"),
        ("", "GPU-b", "gloo"),
        ("", "", "gloo"),
    ],
)
def test_nccl_exchanges_what_lies_on_gpus_where_every_process_has_its_own(
    own: str, other: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The choice alone, with made-up GPUs: NCCL itself was not run where there was none."""
    store, chosen = distributed.HashStore(), list[int]()
    store.set("gpu-1", other)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(own))
    monkeypatch.setattr(distributed, "is_nccl_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: chosen[-1])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid=own))
    assert ranks._backend(store, Ranks(0, 2, local=3)) == backend
    assert chosen == ([1] if own else [])


# --- shares -----------------------------------------------------------------------------------------------------


def _shares(weights: list[int], size: int) -> list[list[int]]:
    """The items of each rank."""
    return [list(range(len(weights)))[Ranks(rank, size).share(weights)] for rank in range(size)]


def _random_weights() -> Iterator[tuple[list[int], int]]:
    rng = random.Random(0)
    for _ in range(500):
        heaviest = rng.choice([1, 10, 3000])
        yield [rng.randint(0, heaviest) for _ in range(rng.randrange(0, 40))], rng.randint(1, 12)


def test_every_item_is_shared_out_exactly_once_and_in_order() -> None:
    for weights, size in _random_weights():
        shares = _shares(weights, size)
        assert [item for share in shares for item in share] == list(range(len(weights))), (weights, size)


def test_no_rank_s_load_is_further_from_the_mean_than_one_item() -> None:
    for weights, size in _random_weights():
        loads = [sum(weights[item] for item in share) for share in _shares(weights, size)]
        fair = sum(weights) / size
        assert all(abs(load - fair) <= max(weights, default=0) for load in loads), (weights, size, loads)


def test_more_ranks_than_items_leave_some_without_work() -> None:
    shares = _shares([5, 5], 5)
    assert sorted(map(len, shares)) == [0, 0, 0, 1, 1]


def test_one_heavy_item_keeps_one_rank_busy_and_the_others_share_the_rest() -> None:
    assert _shares([1, 1, 98, 2, 2], 2) == [[0, 1, 2], [3, 4]]
    assert _shares([2, 2, 98, 1, 1], 2) == [[0, 1], [2, 3, 4]]


@pytest.mark.parametrize("weights", [[], [0], [0, 0, 0], [0, 7, 0], [7, 0, 0], [0, 0, 7]])
def test_items_that_weigh_nothing_are_shared_out_too(weights: list[int]) -> None:
    assert [item for share in _shares(weights, 3) for item in share] == list(range(len(weights)))


# --- what the environment says ----------------------------------------------------------------------------------

STEP = {"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "1234567"}
STEP |= {"SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "gpu[03-04]"}


def test_torchrun_s_variables_are_found() -> None:
    environment = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    assert found(environment) == (Ranks(rank=3, size=4, local=1), {})


def test_srun_s_variables_are_found_with_a_place_to_meet() -> None:
    rank, place = found(STEP)
    assert rank == Ranks(rank=5, size=8, local=1)
    assert place["MASTER_ADDR"] == "gpu03"
    assert 20000 <= int(place["MASTER_PORT"]) < 40000


def test_all_ranks_of_a_step_meet_at_one_place_and_other_steps_and_jobs_elsewhere() -> None:
    def place(**other: str) -> dict[str, str]:
        return found(STEP | other)[1]

    assert place(SLURM_PROCID="0", SLURM_LOCALID="0") == place()
    assert place(SLURM_STEP_ID="1") != place()
    assert place(SLURM_JOB_ID="1234568") != place()


def test_torchrun_inside_of_a_step_goes_before_it() -> None:
    assert found(STEP | {"RANK": "0", "WORLD_SIZE": "2"}) == (Ranks(rank=0, size=2, local=0), {})


def test_a_plain_command_in_a_batch_script_of_many_tasks_runs_alone() -> None:
    batch = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    assert found(batch) == (ALONE, {})
    assert found({}) == (ALONE, {})


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"RANK": "first", "WORLD_SIZE": "2"}, r"RANK=first, WORLD_SIZE=2, LOCAL_RANK=None, expected whole numbers"),
        ({"RANK": "0", "WORLD_SIZE": ""}, r"RANK=0, WORLD_SIZE=, LOCAL_RANK=None, expected whole numbers"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, r"rank 2 of 2; start with torchrun or srun, or unset WORLD_SIZE"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, r"rank -1 of 2"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, r"rank 0 of 0"),
        (STEP | {"SLURM_STEP_NUM_TASKS": "many"}, r"SLURM_STEP_NUM_TASKS=many, SLURM_LOCALID=1, expected whole"),
        (STEP | {"SLURM_PROCID": "9"}, r"rank 9 of 8; start with torchrun or srun, or unset SLURM_STEP_NUM_TASKS"),
    ],
)
def test_nonsense_in_the_environment_is_refused_and_said(environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        found(environment)
    assert speaks(environment)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node7", "node7"),
        ("node7,node8", "node7"),
        ("gpu[03-05,09],cpu1", "gpu03"),
        ("gpu[9]", "gpu9"),
        ("gpu[1,4]", "gpu1"),
        ("rack-2-gpu[007-010]", "rack-2-gpu007"),
        ("a[1-2]-ib,b", "a1-ib"),
        ("head.cluster.example", "head.cluster.example"),
    ],
)
def test_the_first_node_of_a_step_is_where_its_ranks_meet(nodes: str, first: str) -> None:
    assert found(STEP | {"SLURM_STEP_NODELIST": nodes})[1]["MASTER_ADDR"] == first


def test_only_the_first_rank_speaks() -> None:
    assert speaks({})
    assert speaks({"RANK": "0", "WORLD_SIZE": "2"})
    assert not speaks({"RANK": "1", "WORLD_SIZE": "2"})
    assert not speaks(STEP)
