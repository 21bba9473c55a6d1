"""Any backbone of timm (github.com/huggingface/pytorch-image-models) as an encoder: the ImageNet baselines."""

import difflib
import re
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.config import resolve_model_data_config
from torch import nn

from encoders.dinobloom import SEEN
from encoders.weights import read_weights
from milkit.encoder import Encoder, Transform, encoder_digest
from milkit.errors import SettingsError, WeightsMissing
from milkit.registry import unknown_name

_KIND = "timm model"
_NAMED = 5
_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")


def timm_model(model: str, weights: Path | None = None, pretrained: bool = True) -> Encoder:  # noqa: FBT001, FBT002
    """A timm backbone without its classifier, with the input that timm says it was evaluated with.

    The trap: the timm ports of DinoBloom on Hugging Face carry DINOv2's data configuration. They are fed 518 pixels and
    stretch the 16 × 16 positions to 37 × 37, which is not what DinoBloom was trained with. Use ``dinobloom-s`` and its
    siblings for DinoBloom.

    Args:
        model: timm's name, with or without a tag: ``resnet50``, ``vit_small_patch16_224.augreg_in1k``; or a source that
            timm understands, such as ``hf-hub:owner/name``.
        weights: A checkpoint of this backbone; its classifier, if it has one, is left out.
        pretrained: Take timm's weights, downloaded once to Hugging Face's cache. False gives a seeded random network,
            whose name ends in ``-random``: a baseline for what the architecture alone contributes.

    Raises:
        UnknownName: If timm has no such model; the nearest are named.
        WeightsMissing: If timm's weights cannot be downloaded.
        WeightsError: If ``weights`` is not a checkpoint of this backbone.
    """
    _require_known(model)
    network = _create(model, pretrained=pretrained and weights is None)
    made_of = {"timm": timm.__version__, "timm_tag": str(network.pretrained_cfg.get("tag") or "")}
    if weights is not None:
        made_of |= _load(network, weights)
    transform = _transform(network, model)
    random = "" if pretrained or weights is not None else "-random"
    return Encoder(
        name=f"timm-{re.sub(r'[^A-Za-z0-9._-]+', '-', model)}{random}",
        model=network,
        transform=transform,
        dim=int(getattr(network, "head_hidden_size", None) or network.num_features),
        digest=encoder_digest(network, transform),
        seen=SEEN if "dinobloom" in model.lower() and not random else (),
        made_of=made_of,
    )


def _require_known(model: str) -> None:
    if ":" in model:  # a source outside timm's list; timm says itself whether it is there
        return
    architecture, _, tag = model.partition(".")
    if not timm.is_model(architecture):
        known = timm.list_models()
    elif tag and model not in (tagged := timm.list_models(f"{architecture}.*", pretrained=True)):
        known = tagged
    else:
        return
    nearest = difflib.get_close_matches(model, known, n=_NAMED, cutoff=0.0)  # timm knows more than a thousand
    raise unknown_name(_KIND, model, nearest)


def _create(model: str, *, pretrained: bool) -> Any:
    """Build the backbone; what is not loaded is drawn from seed 0, and the global state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        try:
            return timm.create_model(model, pretrained=pretrained, num_classes=0)
        except Exception as error:
            if not pretrained and ":" not in model:
                raise
            msg = (
                f"timm's weights of '{model}' are not cached and could not be downloaded ({type(error).__name__}); run "
                "where huggingface.co can be reached, give a file with --weights FILE, or set pretrained to false."
            )
            raise WeightsMissing(msg) from error


def _load(network: Any, path: Path) -> dict[str, str]:
    weights = read_weights(path)
    classifier = network.pretrained_cfg.get("classifier") or ()
    layers = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    for name in [name for name in weights.tensors if name.startswith(tuple(f"{layer}." for layer in layers))]:
        del weights.tensors[name]
    module: nn.Module = network
    weights.load_into(module)
    return {"weights_sha256": weights.sha256, "weights_format": weights.layout}


def _transform(network: Any, model: str) -> Transform:
    data: dict[str, Any] = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    channels, height, width = data["input_size"]
    if channels != 3 or height != width:
        found = f"{channels}x{height}x{width}"
        msg = f"The timm model '{model}' expects {found}, milkit gives 3 channels of a square; choose another model."
        raise SettingsError(msg)
    return Transform(
        size=height,
        interpolation=data["interpolation"] if data["interpolation"] in _INTERPOLATIONS else "bicubic",
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        crop=1.0 if data["crop_mode"] == "squash" else float(data["crop_pct"]),
    )
