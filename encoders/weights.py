"""Weights files: read without running code, whatever the wrapping, and held strictly against a network."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from milkit.downloads import file_sha256
from milkit.errors import WeightsError, first_rows

HUB_NAMES = ("model.safetensors", "pytorch_model.bin")
"""What the weights of a network are called in a Hugging Face repository; the first cannot hold code."""

_WRAPPERS = ("teacher", "state_dict", "model")
_PREFIX = re.compile(r"^(?:(?:module|backbone)\.)+")


@dataclass(frozen=True, slots=True)
class Weights:
    """What a weights file holds.

    Attributes:
        file: The file's name, for messages, without its folder.
        tensors: By the names that the network uses: ``module.`` and ``backbone.`` in front are taken off.
        layout: The key that the state dict was wrapped in, or ``flat``; `` safetensors`` where it is one.
        sha256: Of the file as it lies on disk.
    """

    file: str
    tensors: dict[str, Tensor]
    layout: str
    sha256: str

    @property
    def made_of(self) -> dict[str, str]:
        """What the provenance of an encoder says about its file."""
        return {"weights_sha256": self.sha256, "weights_format": self.layout}

    def without(self, *beginnings: str) -> "Weights":
        """The same without the tensors whose names begin so, such as a head that is not used."""
        kept = {name: tensor for name, tensor in self.tensors.items() if not name.startswith(beginnings)}
        return replace(self, tensors=kept)

    def require_sha256(self, beginning: str) -> None:
        """Refuse a file that bears a published name and is not the published file.

        Raises:
            WeightsError: If the digest does not begin as given.
        """
        if not self.sha256.startswith(beginning):
            msg = (
                f"{self.file} is called like a published file, whose SHA-256 begins with {beginning[:8]}, and its own "
                f"begins with {self.sha256[:8]}; download it again, or rename it if it is your own."
            )
            raise WeightsError(msg)

    def load_into(self, model: nn.Module) -> None:
        """Give the tensors, as float32, to a network that may lie on the ``meta`` device.

        Raises:
            WeightsError: If a name is missing or unexpected, or a shape differs; the message names them.
        """
        expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        given = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        faults = {
            "missing": sorted(expected.keys() - given.keys()),
            "unexpected": sorted(given.keys() - expected.keys()),
            "of another shape": [
                f"{name} {given[name]} instead of {expected[name]}"
                for name in sorted(expected.keys() & given.keys())
                if given[name] != expected[name]
            ],
        }
        if any(faults.values()):
            found = "; ".join(f"{kind}: {first_rows(names)}" for kind, names in faults.items() if names)
            msg = f"{self.file} does not fit the network ({found}); give the file that was published for this encoder."
            raise WeightsError(msg)
        as_float = {name: _float32(tensor) for name, tensor in self.tensors.items()}
        model.load_state_dict(as_float, strict=True, assign=True)


def read_weights(path: Path) -> Weights:
    """Read a state dict from a ``.safetensors`` file or a PyTorch checkpoint, on the CPU.

    Raises:
        WeightsError: If the file is missing, is no checkpoint, holds Python code, or holds no tensors.
    """
    if not path.is_file():
        msg = f"The weights file {path} does not exist; give the path of a downloaded checkpoint with --weights FILE."
        raise WeightsError(msg)
    safetensors = path.suffix == ".safetensors"
    content = _read_safetensors(path) if safetensors else _read_checkpoint(path)
    layout = "flat"
    for wrapper in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content, layout = content[wrapper], wrapper
            break
    tensors = _tensors(content, path.name)
    return Weights(path.name, tensors, f"{layout} safetensors" if safetensors else layout, file_sha256(path))


def _read_checkpoint(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the bytes lead it to
        if "GLOBAL" in str(error):
            msg = (
                f"{path.name} holds Python objects beside its tensors, and milkit runs no code from a weights file; "
                "give a file that holds a state dict only."
            )
        else:
            msg = f"{path.name} is not a PyTorch checkpoint or is damaged; download it again."
        raise WeightsError(msg) from None


def _read_safetensors(path: Path) -> object:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError):
        msg = f"{path.name} is not a safetensors file or is damaged; download it again."
        raise WeightsError(msg) from None


def _tensors(content: object, file: str) -> dict[str, Tensor]:
    held = content if isinstance(content, Mapping) else {}
    others = sorted(str(name) for name, value in held.items() if not isinstance(value, Tensor))
    if not held or others:
        found = f"{first_rows(others)} beside its tensors" if others else f"a {type(content).__name__} without tensors"
        msg = f"{file} holds {found}, expected a state dict; give a file of names and tensors only."
        raise WeightsError(msg)
    return {_PREFIX.sub("", str(name)): tensor for name, tensor in held.items()}


def _float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
