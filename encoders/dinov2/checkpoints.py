"""What a training goes on from, and the networks that it leaves: safetensors files that are whole or not there.

A checkpoint holds student, teacher and the optimiser's averages, gathered from all processes, so that another number
of processes can go on. There is no more state: schedules, masks, crops and the order of the images are functions of the
seed and the iteration.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from encoders.dinov2.optimiser import optimiser_tensors, whole
from encoders.dinov2.pretrain_settings import PretrainSettings
from encoders.dinov2.step import Networks
from encoders.dinov2.stream import Unreadable
from milkit.errors import RunError, first_rows
from milkit.runs import write_bytes

VERSION = "1"
CHECKPOINT, FAILURES = "checkpoint.safetensors", "failures.csv"
FREE = frozenset(
    [
        "stop_after",
        "log_every",
        "evaluate_every",
        "checkpoint_every",
        "validation",
        "validation_cells",
        "device",
        "parallel",
        "workers",
    ]
)
"""Settings that may differ when a training goes on: they change nothing of what the network learns until then."""


def save_checkpoint(folder: Path, networks: Networks, state: Mapping[str, Any], *, writes: bool) -> None:
    """Keep the training's state; all processes call this, and the one that ``writes`` does so.

    Args:
        folder: Of the training.
        networks: What learns.
        state: ``iteration`` (the next one), ``settings`` and what else the loop wants to find again, as JSON.
        writes: Whether this process writes.
    """
    tensors = {f"student.{name}": tensor for name, tensor in whole(networks.student.state_dict().items()).items()}
    tensors |= {f"teacher.{name}": tensor for name, tensor in whole(networks.teacher.state_dict().items()).items()}
    kept = whole(optimiser_tensors(networks.optimiser, networks.student))
    tensors |= {f"optimiser.{name}": tensor for name, tensor in kept.items()}
    if writes:
        _write(folder / CHECKPOINT, tensors, {"format": "milkit-pretraining", "version": VERSION, **state})


def read_state(folder: Path) -> dict[str, Any] | None:
    """What was given with the checkpoint of this folder, or None where there is none.

    Raises:
        RunError: If the file is damaged, or a newer milkit wrote it.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            state: dict[str, Any] = json.loads((file.metadata() or {})["milkit"])
    except (SafetensorError, OSError, KeyError, ValueError):
        msg = f"{path} is damaged or no checkpoint of `milkit pretrain`; move it away to start from the beginning."
        raise RunError(msg) from None
    if state.get("version") != VERSION:
        msg = f"{path} has version {state.get('version')}, expected {VERSION}; use the milkit that began this training."
        raise RunError(msg)
    return state


def refuse_other_settings(folder: Path, begun: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """A training goes on with the settings that it began with, wherever its files lie by now.

    Raises:
        RunError: If a setting differs that changes what is learned; it names the settings.
    """
    differ = list(_differing(_binding(begun), _binding(given)))
    if differ:
        msg = (
            f"The training in {folder} was begun with other settings ({first_rows(differ)}), and goes on only with "
            "its own; give those, or another --name."
        )
        raise RunError(msg)


def _binding(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the settings say of what is learned: nothing of folders, licences or workers."""
    kept = {key: value for key, value in settings.items() if key not in FREE}
    learned = ("factory", "arguments")
    cohorts = [{name: source["cohort"].get(name) for name in learned} for source in kept["sources"]]
    kept["sources"] = [source | {"cohort": cohort} for source, cohort in zip(kept["sources"], cohorts, strict=True)]
    kept["weights"] = kept.get("weights") and Path(kept["weights"]).name
    return kept


def _differing(old: Mapping[str, Any], new: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The dotted names of what is not the same in both."""
    for key in sorted({*old, *new}):
        one, other = old.get(key), new.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _differing(one, other, f"{above}{key}.")
        elif one != other:
            yield above + key


def load_checkpoint(folder: Path, networks: Networks) -> None:
    """Bring student, teacher and optimiser to the state of the folder's checkpoint.

    Raises:
        RunError: If it is of another network.
    """
    from safetensors.torch import load_file

    held = load_file(folder / CHECKPOINT)
    parts = {
        kind: {name.partition(".")[2]: held[name] for name in held if name.startswith(f"{kind}.")} for kind in KINDS
    }
    _fill(folder, networks.student, parts["student"])
    _fill(folder, networks.teacher, parts["teacher"])
    optimiser, held = networks.optimiser, parts["optimiser"]
    counts_on = networks.device if optimiser.defaults["fused"] else torch.device("cpu")  # as AdamW makes them
    for name, parameter in networks.student.named_parameters():
        if f"step.{name}" in held:
            state = optimiser.state[parameter]
            state["step"] = held[f"step.{name}"].to(counts_on)
            state |= {key: _like(held[f"{key}.{name}"], parameter) for key in ("exp_avg", "exp_avg_sq")}


KINDS = ("student", "teacher", "optimiser")


def save_failures(folder: Path, unreadable: Iterable[Unreadable]) -> None:
    """List the images that could not be read, sorted by path."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([Unreadable._fields, *sorted(unreadable)])
    write_bytes(folder / FAILURES, text.getvalue().encode(errors="surrogateescape"))  # names of files may be any bytes


def read_failures(folder: Path) -> set[Unreadable]:
    """What ``save_failures`` listed; nothing where there is no list."""
    path = folder / FAILURES
    if not path.is_file():
        return set()
    text = path.read_bytes().decode(errors="surrogateescape")
    return {Unreadable(*row) for row in list(csv.reader(io.StringIO(text, newline="")))[1:]}


def description(settings: PretrainSettings) -> dict[str, Any]:
    """What a file of weights cannot say by its tensors: how images are brought to it, and what it has seen."""
    network = settings.network
    return {
        "format": "milkit-encoder",
        "version": VERSION,
        "image_size": network.image_size,
        "heads": network.heads,
        "ffn": network.ffn,
        "seen": sorted({source.cohort.factory for source in settings.sources}),
    }


def save_backbone(path: Path, backbone: nn.Module, about: Mapping[str, Any], *, writes: bool) -> None:
    """A backbone alone, float32, in the names of DINOv2: a file that the encoders load with ``--weights``."""
    if writes:
        _write(path, {name: tensor.float().cpu() for name, tensor in backbone.state_dict().items()}, about)


def export_half(source: Path, target: Path, about: Mapping[str, Any]) -> None:
    """The same backbone in half precision, which is half the file; features differ by about 1e-3 of their size."""
    from safetensors.torch import load_file

    _write(target, {name: tensor.half() for name, tensor in load_file(source).items()}, about)


def _write(path: Path, tensors: dict[str, Tensor], about: Mapping[str, Any]) -> None:
    from safetensors.torch import save

    write_bytes(path, save(tensors, {"milkit": json.dumps(about)}))


def _fill(folder: Path, module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    own = module.state_dict()
    differ = [name for name in {*own, *tensors} if name not in own or name not in tensors]
    differ += [name for name in own if name in tensors and own[name].shape != tensors[name].shape]
    if differ:
        msg = f"{folder / CHECKPOINT} is of another network ({min(differ)} differs); give another --name."
        raise RunError(msg)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(_like(tensors[name], tensor))


def _like(tensor: Tensor, model: Tensor) -> Tensor:
    """The same values where ``model`` lies: on its device, and spread over the processes as it is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(model, DTensor):
        return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements)
    return tensor.to(model.device, model.dtype)
