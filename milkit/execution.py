"""How an encoder is run: by what, in which precision, how many images at a time, and in which form of its network."""

import contextlib
import dataclasses
import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from milkit.encoder import Encoder, Engine, keep_freed_memory
from milkit.errors import SettingsError
from milkit.settings import Precision

_DTYPES: Mapping[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}

Run = Callable[[Tensor], Tensor]
"""uint8 squares (B, size, size, 3) -> features (B, dim) float32 on the device, without waiting for it."""


@dataclass(frozen=True, slots=True)
class Execution:
    """A settled way to run an encoder; its fields are attributes of the store.

    Attributes:
        backend: ``torch-cpu``, ``torch-cuda`` or ``openvino-cpu``.
        precision: Of the matrix products, ``fp32`` or ``bf16``; sums, norms and softmax are float32 in both.
        network: ``for_features``, the encoder's faster form, or ``model``, its plain one.
        batch_size: Images a forward pass.
        cosine: The least cosine between the features of a calibration image and its plain ones, to six digits; None
            where nothing was compared: the plain network itself is run, or no image could be read.
    """

    backend: str
    precision: Precision
    network: Literal["for_features", "model"]
    batch_size: int
    cosine: float | None = None

    @classmethod
    def recorded(cls, attributes: Mapping[str, Any]) -> "Execution":
        """The execution that a store was begun with."""
        return cls(**{field.name: attributes[field.name] for field in dataclasses.fields(cls)})

    @property
    def device(self) -> torch.device:
        """Where the features arise."""
        return torch.device(self.backend.partition("-")[2])

    @property
    def engine(self) -> Engine:
        """What the network is made for."""
        return "openvino" if self.backend == "openvino-cpu" else "cuda" if self.backend == "torch-cuda" else "cpu"


@contextlib.contextmanager
def running(encoder: Encoder, execution: Execution, *, plainly: bool = False) -> Iterator[Run]:
    """Make an encoder ready to run; batches have ``execution.batch_size`` images, the last one padded by the caller."""
    keep_freed_memory()
    before, tf32 = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    by_onednn = execution.backend == "torch-cpu" and not plainly and onednn_is_exact()
    torch.set_float32_matmul_precision("medium" if by_onednn else "highest")  # whatever the process had set
    torch.backends.cudnn.allow_tf32 = False  # convolutions on a GPU, which by default round what is to be float32
    try:
        with torch.inference_mode():
            make = _openvino_run if execution.engine == "openvino" else _torch_run
            yield make(encoder, execution)
    finally:
        torch.set_float32_matmul_precision(before)
        torch.backends.cudnn.allow_tf32 = tf32


@functools.cache
def onednn_is_exact() -> bool:
    """Whether PyTorch's permission for faster float32 products leaves them float32 on this processor.

    The permission ("medium") sends products to oneDNN, up to 2.2 times as fast as the default where the processor has
    AVX-512 and is not Intel's. On others it may round the factors to bfloat16, an error of 3e-3 instead of 3e-7.
    """
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(64, 512, generator=generator), torch.randn(512, 64, generator=generator)
    exact = x.double() @ w.double()
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        error = (x @ w - exact).norm() / exact.norm()
    finally:
        torch.set_float32_matmul_precision(before)
    return float(error) < 1e-6


def _torch_run(encoder: Encoder, execution: Execution) -> Run:
    device, dtype = execution.device, _DTYPES[execution.precision]
    network, plain = encoder.model.cpu(), True  # the faster form is made there, so that a resumed run has the same bits
    if execution.network == "for_features" and encoder.for_features:
        network, plain = encoder.for_features(dtype, execution.engine), False
    layout = torch.channels_last if plain and device.type == "cuda" else torch.contiguous_format
    network = network.to(device).to(memory_format=layout)

    def run(squares: Tensor) -> Tensor:
        images = encoder.transform.normalise(squares.to(device, non_blocking=True)).contiguous(memory_format=layout)
        with torch.autocast(device.type, dtype, enabled=plain and execution.precision == "bf16"):
            features: Tensor = network(images)
        return features.float()

    return run


def _openvino_run(encoder: Encoder, execution: Execution) -> Run:
    openvino, size = require_openvino(), encoder.transform.size
    network: nn.Module = encoder.model
    if execution.network == "for_features" and encoder.for_features:
        network = encoder.for_features(torch.float32, execution.engine)
    example = torch.zeros(execution.batch_size, 3, size, size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch about the tracing that OpenVINO asks it for
        converted = openvino.convert_model(network, example_input=example, input=[tuple(example.shape)])
    hints = {"INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[execution.precision]}
    compiled = openvino.Core().compile_model(converted, "CPU", hints)

    def run(squares: Tensor) -> Tensor:
        return torch.from_numpy(compiled(encoder.transform.normalise(squares).numpy())[0])

    return run


def require_openvino() -> Any:
    """The package, or a ``SettingsError`` that says how to install it."""
    # It reports its use to its makers over the network from its import on, unless that part cannot be imported.
    sys.modules.setdefault("openvino_telemetry", cast(ModuleType, None))
    try:
        return importlib.import_module("openvino")
    except ImportError:
        msg = (
            "The backend openvino was asked for and the package openvino is not installed; run `pip install "
            "'milkit[openvino]'`, or use --backend torch."
        )
        raise SettingsError(msg) from None
