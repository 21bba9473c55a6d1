"""Ranks: the processes of one job under torchrun or Slurm, which share work and agree through their first.

``torchrun --nproc-per-node 4 -m milkit extract …`` and ``srun milkit extract …`` start the same command several times.
A process finds its rank in the environment; a process that was started alone is rank 0 of 1 and pays nothing. Under
Slurm the meeting place is derived from the job's variables (the first node of the step, a port made of the numbers of
job and step); that part was exercised with made-up variables only, not on a cluster.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from milkit.errors import MilkitError, SettingsError

T = TypeVar("T")

_ARRIVAL = timedelta(minutes=30)
"""All ranks of a job start within it; else one of them was never started, or died before it came."""

_PATIENCE = timedelta(days=14)
"""Ranks wait for each other at the end of a long extraction; one that dies is noticed by its closed connection."""

_IN_STEP = timedelta(minutes=30)
"""Ranks whose GPUs compute in step wait no longer: NCCL may not notice that one has died."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which process of a job this is.

    Attributes:
        rank: From 0; the first one decides, writes what is written once, and speaks.
        size: How many there are.
        local: Position among those of the same machine, which chooses the GPU.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    def agreed(self, decide: Callable[[], T]) -> T:
        """What the first rank decides, on every rank; its ``MilkitError`` or ``OSError`` is raised on every rank."""
        if self.size == 1:
            return decide()
        from torch import distributed

        box: list[Any] = [None, None]  # PyTorch pickles it, between processes of one user and one job
        if self.rank == 0:
            try:
                box[0] = decide()
            except (MilkitError, OSError) as error:
                box[1] = error
        with others_alive():
            distributed.broadcast_object_list(box, src=0)
        if isinstance(box[1], MilkitError | OSError):
            raise _shared(box[1])
        decided: T = box[0]
        return decided

    def each(self, work: Callable[[], T]) -> T:
        """This rank's result, when all have done their work; one's ``MilkitError`` or ``OSError`` is raised on all."""
        if self.size == 1:
            return work()
        done, error = list[T](), None
        try:
            done.append(work())
        except (MilkitError, OSError) as raised:
            error = raised
        for first in self.gathered(error):
            if first is not None:
                raise _shared(first)
        return done[0]

    def gathered(self, own: T) -> list[T]:
        """What every rank has, in the order of ranks, on every rank; all of them call this together."""
        if self.size == 1:
            return [own]
        from torch import distributed

        parts: list[Any] = [None] * self.size
        with others_alive():
            distributed.all_gather_object(parts, own)
        return parts

    def share(self, weights: Sequence[int]) -> slice:
        """This rank's run of consecutive items, such that the runs weigh about the same.

        Args:
            weights: What each item weighs, such as the cells of a patient.
        """
        total, before, bounds = sum(weights), 0, [0]
        for position, weight in enumerate(weights):
            # An item belongs to the rank in whose part of the total its middle lies.
            owner = min(int((before + weight / 2) * self.size / total), self.size - 1) if total else 0
            bounds += [position] * (owner + 1 - len(bounds))
            before += weight
        bounds += [len(weights)] * (self.size + 1 - len(bounds))
        return slice(bounds[self.rank], bounds[self.rank + 1])


ALONE = Ranks()
"""A process that shares its work with no other."""


@contextlib.contextmanager
def joined(*, gpu: bool = False) -> Iterator[Ranks]:
    """Meet the other processes of this job, if there are any, and part from them at the end.

    Args:
        gpu: Whether what lies on GPUs, where there are any, will be exchanged, too.
    """
    ranks, place = found(os.environ)
    if ranks.size == 1:
        yield ranks
        return
    from torch import distributed
    from torch.distributed.rendezvous import rendezvous

    for name, value in place.items():
        os.environ.setdefault(name, value)
    try:
        store, *_ = next(rendezvous("env://", ranks.rank, ranks.size, timeout=_ARRIVAL))
        backend = _backend(store, ranks) if gpu else "gloo"
        patience = _PATIENCE if backend == "gloo" else _IN_STEP
        distributed.init_process_group(backend, store=store, rank=ranks.rank, world_size=ranks.size, timeout=patience)
    except (RuntimeError, ValueError) as error:  # ValueError: no meeting place in the environment
        msg = (
            f"Process {ranks.rank} of {ranks.size} did not meet the others of its job ({str(error).splitlines()[0]}); "
            "see what they said, and start all of them together with torchrun or srun."
        )
        raise SettingsError(msg) from None
    try:
        yield ranks
    finally:
        distributed.destroy_process_group()


def _backend(store: Any, ranks: Ranks) -> str:
    """NCCL for what lies on GPUs, where each process has one of its own; gloo takes it through main memory, slowly.

    Where this was written there was no GPU: the choice was tested with made-up ones, and NCCL has not been run.
    """
    import torch

    own = ""
    if torch.cuda.is_available() and torch.distributed.is_nccl_available():
        torch.cuda.set_device(ranks.local % torch.cuda.device_count())
        own = str(torch.cuda.get_device_properties(torch.cuda.current_device()).uuid)
    store.set(f"gpu-{ranks.rank}", own)
    gpus = {store.get(f"gpu-{rank}") for rank in range(ranks.size)}
    return "cpu:gloo,cuda:nccl" if len(gpus - {b""}) == ranks.size else "gloo"


def _shared(error: MilkitError | OSError) -> MilkitError | OSError:
    """The same error, marked as one that every rank raises."""
    if isinstance(error, MilkitError):
        error.shared = True
    return error


@contextlib.contextmanager
def others_alive() -> Iterator[None]:
    """Turn the closed connection of a rank that has died into a ``MilkitError``; other errors are left as they are."""
    try:
        yield
    except RuntimeError as error:
        from torch import distributed

        if not isinstance(error, distributed.DistError) and "gloo" not in str(error):
            raise
        msg = (
            "Another process of this job ended before its work was done; see what it said, then run the same command "
            "again, it goes on where it stopped."
        )
        raise MilkitError(msg) from None


def found(environment: Mapping[str, str]) -> tuple[Ranks, dict[str, str]]:
    """The rank that the environment gives this process, and where the ranks meet (``MASTER_ADDR``, ``MASTER_PORT``).

    torchrun's variables go before Slurm's. Slurm's step variables count, which only ``srun`` sets: a plain command in
    a batch script of several tasks runs alone.
    """
    if "WORLD_SIZE" in environment and "RANK" in environment:
        return _ranks(environment, "RANK", "WORLD_SIZE", "LOCAL_RANK"), {}
    if "SLURM_STEP_NUM_TASKS" not in environment or "SLURM_PROCID" not in environment:
        return ALONE, {}
    ranks = _ranks(environment, "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
    nodes = environment.get("SLURM_STEP_NODELIST", "localhost")
    step = environment.get("SLURM_JOB_ID", "") + environment.get("SLURM_STEP_ID", "")  # a job's steps may run at once
    port = 20000 + int(step) % 20000 if step.isdecimal() else 29500
    return ranks, {"MASTER_ADDR": _first_node(nodes), "MASTER_PORT": str(port)}


def speaks(environment: Mapping[str, str]) -> bool:
    """Whether this process is the one of its job that talks to people."""
    try:
        return found(environment)[0].rank == 0
    except SettingsError:
        return True


def _ranks(environment: Mapping[str, str], rank: str, size: str, local: str) -> Ranks:
    try:
        ranks = Ranks(int(environment[rank]), int(environment[size]), int(environment.get(local, "0")))
    except ValueError:
        given = f"{rank}={environment[rank]}, {size}={environment[size]}, {local}={environment.get(local)}"
        msg = f"The environment says {given}, expected whole numbers; start with torchrun or srun, or unset them."
        raise SettingsError(msg) from None
    if not 0 <= ranks.rank < ranks.size:
        msg = f"The environment says rank {ranks.rank} of {ranks.size}; start with torchrun or srun, or unset {size}."
        raise SettingsError(msg)
    return ranks


def _first_node(nodes: str) -> str:
    """The first host of Slurm's list: ``gpu[03-05,09],cpu1`` -> ``gpu03``."""
    match = re.match(r"([^,\[]+)(?:\[([^\],-]+)[^\]]*\]([^,\[]*))?", nodes)
    return "".join(part or "" for part in match.groups()) if match else "localhost"
