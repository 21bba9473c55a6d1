"""What a training goes on from, and the networks that it leaves: safetensors files that are whole or not there.

A checkpoint holds student, teacher and the optimiser's averages, gathered from all processes, so that another number
of processes can go on. There is no more state: schedules, masks, crops and the order of the images are functions of the
seed and the iteration.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from encoders.dinov2.optimiser import optimiser_tensors, whole
from encoders.dinov2.pretrain_settings import PretrainSettings
from encoders.dinov2.step import Networks
from encoders.dinov2.stream import Unreadable
from encoders.pretrained import read_description
from milkit.errors import RunError, first_rows
from milkit.ranks import ALONE, Ranks
from milkit.runs import write_bytes

VERSION = "1"
CHECKPOINT, FAILURES = "checkpoint.safetensors", "failures.csv"
KINDS = ("student", "teacher", "optimiser")
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


def save_checkpoint(folder: Path, networks: Networks, state: Mapping[str, Any], ranks: Ranks = ALONE) -> None:
    """Keep the training's state; all processes call this, and the first one writes.

    Args:
        folder: Of the training.
        networks: What learns.
        state: ``iteration`` (the next one), ``settings`` and what else the loop wants to find again, as JSON.
        ranks: The processes; where the first one cannot write, all raise its error.
    """
    tensors: dict[str, Tensor] = {}
    parts = (
        networks.student.state_dict().items(),
        networks.teacher.state_dict().items(),
        optimiser_tensors(networks.optimiser, networks.student),
    )
    for kind, part in zip(KINDS, parts, strict=True):
        kept = whole(part, keeps=ranks.rank == 0)
        tensors |= {f"{kind}.{name}": tensor for name, tensor in kept.items()}
    about = {"format": "milkit-pretraining", "version": VERSION, **state}
    ranks.agreed(lambda: _write(folder / CHECKPOINT, tensors, about))


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


def load_checkpoint(folder: Path, networks: Networks, ranks: Ranks = ALONE) -> None:
    """Bring student, teacher and optimiser to the state of the folder's checkpoint; all processes call this together.

    Raises:
        RunError: If it is of another network, or a process cannot read it.
    """
    parts = ranks.each(lambda: _read(folder, networks))
    for name, module in (("student", networks.student), ("teacher", networks.teacher)):
        with torch.no_grad():
            for key, tensor in module.state_dict().items():
                tensor.copy_(_like(parts[name][key], tensor))
    optimiser, held = networks.optimiser, parts["optimiser"]
    counts_on = networks.device if optimiser.defaults["fused"] else torch.device("cpu")  # as AdamW makes them
    for name, parameter in networks.student.named_parameters():
        if f"step.{name}" in held:
            state = optimiser.state[parameter]
            state["step"] = held[f"step.{name}"].to(counts_on)
            state |= {key: _like(held[f"{key}.{name}"], parameter) for key in ("exp_avg", "exp_avg_sq")}


def _read(folder: Path, networks: Networks) -> dict[str, dict[str, Tensor]]:
    """The checkpoint's tensors by kind and name, if they are those of these networks."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / CHECKPOINT
    try:
        held = load_file(path)
    except (SafetensorError, OSError) as error:
        msg = f"{path} could not be read ({error}), which all processes do; let them see the folder, or mend the file."
        raise RunError(msg) from None
    parts = {
        kind: {name.partition(".")[2]: held[name] for name in held if name.startswith(f"{kind}.")} for kind in KINDS
    }
    for kind, module in (("student", networks.student), ("teacher", networks.teacher)):
        own, other = (
            {name: tensor.shape for name, tensor in each.items()} for each in (module.state_dict(), parts[kind])
        )
        if differ := [name for name in {*own, *other} if own.get(name) != other.get(name)]:
            msg = f"{path} is of another network ({min(differ)} differs); give another --name."
            raise RunError(msg)
    return parts


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


def description(settings: PretrainSettings, seen: Sequence[str]) -> dict[str, Any]:
    """What a file of weights cannot say by its tensors: how images are brought to it, and which data sets it saw."""
    network = settings.network
    return {
        "format": "milkit-encoder",
        "version": VERSION,
        "image_size": network.image_size,
        "heads": network.heads,
        "ffn": network.ffn,
        "seen": list(seen),
    }


def save_backbone(path: Path, backbone: nn.Module, about: Mapping[str, Any]) -> None:
    """A backbone alone, float32, in the names of DINOv2: a file that the encoders load with ``--weights``."""
    _write(path, {name: tensor.float().cpu() for name, tensor in backbone.state_dict().items()}, about)


def export_half(source: Path, target: Path) -> None:
    """The same backbone in half precision, which is half the file; features differ by about 1e-3 of their size.

    It says of itself what ``source`` does, so which iteration's teacher it is, under its own name.
    """
    from safetensors.torch import load_file

    about = {**read_description(source), "name": target.stem}
    _write(target, {name: tensor.half() for name, tensor in load_file(source).items()}, about)


def _write(path: Path, tensors: dict[str, Tensor], about: Mapping[str, Any]) -> None:
    from safetensors.torch import save

    write_bytes(path, save(tensors, {"milkit": json.dumps(about)}))


def _like(tensor: Tensor, model: Tensor) -> Tensor:
    """The same values where ``model`` lies: on its device, and spread over the processes as it is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(model, DTensor):
        return distribute_tensor(tensor.to(model.device), model.device_mesh, model.placements)
    return tensor.to(model.device, model.dtype)
