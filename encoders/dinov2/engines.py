"""Where the networks of a training lie: on one device, copied to several, or spread over them."""

import functools
from collections.abc import Callable
from typing import cast

import torch
from torch import nn

from encoders.dinov2.hierarchy import HierarchicalHead, hierarchical_head
from encoders.dinov2.label_chains import LabelChains
from encoders.dinov2.networks import Branch, StudentOutput, new_backbone, started_backbone, teacher_of
from encoders.dinov2.optimiser import new_optimiser
from encoders.dinov2.pretrain_settings import PretrainSettings
from encoders.dinov2.processes import world_size
from encoders.dinov2.step import Networks
from encoders.weights import Weights, read_weights
from milkit.encoder import choose_device, computes_in_bf16, keep_freed_memory


def device_of(settings: PretrainSettings, local: int) -> torch.device:
    """The device of this process, the ``local``-th on its machine."""
    device = choose_device(settings.device)
    if device.type == "cuda":
        device = torch.device("cuda", local % torch.cuda.device_count())
        torch.cuda.set_device(device)
        torch.cuda.init()  # type: ignore[no-untyped-call]  # the stream of images asks whether it is for a GPU
        torch.set_float32_matmul_precision("high")  # TF32, as published; the losses are float32
    else:
        keep_freed_memory()
    return device


def precision_of(settings: PretrainSettings, device: torch.device) -> torch.dtype:
    """The number type of the matrix products."""
    fast = settings.precision == "bf16" or (settings.precision == "auto" and computes_in_bf16(device))
    return torch.bfloat16 if fast else torch.float32


def new_networks(settings: PretrainSettings, chains: LabelChains | None, device: torch.device) -> Networks:
    """Student, teacher and optimiser at the start; the same on all processes, from the seed alone."""
    start = read_weights(settings.weights) if settings.weights else None
    return networks_of(new_student(settings, chains, start), settings, device)


def new_student(settings: PretrainSettings, chains: LabelChains | None, start: Weights | None) -> Branch:
    """The student at the start, on the CPU: of the weights ``start``, or at random.

    Raises:
        WeightsError: If the weights do not fit the network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        backbone = started_backbone(settings.network, start) if start else new_backbone(settings.network)
        types: HierarchicalHead | None = None
        if chains is not None and settings.supervision is not None:
            types = hierarchical_head(settings.supervision.head, settings.network.dim, chains)
        return Branch(backbone, settings.heads, types)


def networks_of(student: Branch, settings: PretrainSettings, device: torch.device) -> Networks:
    """The student on its device, a teacher that is its copy, and an optimiser; all processes call this together."""
    student = student.to(device)
    teacher = teacher_of(student)
    wrapped: Callable[..., StudentOutput] = student
    if world_size() > 1 and settings.parallel == "fsdp":
        _spread(student, device)
        _spread(teacher, device)
    elif world_size() > 1:
        own = [device] if device.type == "cuda" else None
        parallel = nn.parallel.DistributedDataParallel(student, device_ids=own)
        wrapped = cast("Callable[..., StudentOutput]", parallel)
    return Networks(student, wrapped, teacher, new_optimiser(student, settings, fused=_can_fuse(settings)))


def _can_fuse(settings: PretrainSettings) -> bool:
    """PyTorch's AdamW in one pass over each parameter; for parameters that are spread, its plain form."""
    return not (world_size() > 1 and settings.parallel == "fsdp")


def _spread(branch: Branch, device: torch.device) -> None:
    """FSDP: each process holds its share of the parameters; a block's are gathered when it computes."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    # By itself it leaves what is outside the blocks gathered until the backward pass, which a teacher does not have.
    shard = functools.partial(
        fully_shard, mesh=init_device_mesh(device.type, (world_size(),)), reshard_after_forward=True
    )
    for block in branch.backbone.blocks:
        shard(block)
    shard(branch)
    register_fsdp_forward_method(branch, "targets")
