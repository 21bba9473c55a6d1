"""AdamW over groups of parameters, the limit of the gradients, and the teacher's moving average."""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from encoders.dinov2.networks import Branch
from encoders.dinov2.pretrain_settings import PretrainSettings
from encoders.dinov2.schedules import Moment


class Rule(NamedTuple):
    """How a parameter is treated."""

    decays: bool
    """Whether weight decay applies: not to biases, norms and LayerScale; but to positions and tokens."""
    rate: float
    """Factor of the learning rate."""
    last_layer: bool
    """Whether it is one of the prototypes, whose learning begins later."""


def rule(name: str, patch_embed_factor: float) -> Rule:
    """DINOv2's rules, by the name of the parameter."""
    decays = not (name.endswith(".bias") or "norm" in name or "gamma" in name)
    return Rule(decays, patch_embed_factor if "patch_embed" in name else 1.0, "last_layer" in name)


def new_optimiser(student: nn.Module, settings: PretrainSettings, *, fused: bool) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, arXiv:1711.05101) with a group for each rule, in the order of first use."""
    groups: dict[Rule, list[nn.Parameter]] = {}
    for name, parameter in student.named_parameters():
        groups.setdefault(rule(name, settings.patch_embed_factor), []).append(parameter)
    described: list[dict[str, Any]] = [{"params": members, "rule": kind} for kind, members in groups.items()]
    return torch.optim.AdamW(described, lr=0.0, betas=settings.betas, fused=fused)


def set_moment(optimiser: torch.optim.Optimizer, now: Moment) -> None:
    """Give every group the learning rate and the weight decay of this iteration."""
    for group in optimiser.param_groups:
        kind: Rule = group["rule"]
        group["lr"] = kind.rate * (now.last_layer_learning_rate if kind.last_layer else now.learning_rate)
        group["weight_decay"] = now.weight_decay if kind.decays else 0.0


def clip(student: Branch, limit: float) -> dict[str, float]:
    """Scale the gradients of the backbone and of each head to a norm of at most ``limit``; the norms before."""
    parts = dict(student.named_children())
    norms = [_whole(nn.utils.clip_grad_norm_(part.parameters(), limit)) for part in parts.values()]
    return dict(zip(parts, torch.stack(norms).tolist(), strict=True))  # a GPU is waited for once, not for each part


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Teacher = momentum · teacher + (1 - momentum) · student, for the parameters that the teacher has."""
    of_student = dict(student.named_parameters())
    pairs = [(_local(held), _local(of_student[name])) for name, held in teacher.named_parameters()]
    torch._foreach_lerp_([held for held, _ in pairs], [new for _, new in pairs], 1.0 - momentum)


def optimiser_tensors(optimiser: torch.optim.Optimizer, student: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The moving averages and counts of every parameter, by its name."""
    for name, parameter in student.named_parameters():
        for key, value in optimiser.state.get(parameter, {}).items():
            yield f"{key}.{name}", value


def _local(parameter: Tensor) -> Tensor:
    """This process' share of a parameter that is spread over several."""
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def whole(tensors: Iterable[tuple[str, Tensor]], *, keeps: bool = True) -> dict[str, Tensor]:
    """Tensors gathered from all processes, on the CPU of those that keep them; every process must ask for them."""
    kept = {}
    for name, tensor in tensors:
        gathered = _whole(tensor.detach())
        if keeps:
            kept[name] = gathered.cpu().contiguous()
    return kept
