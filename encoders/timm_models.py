"""Any backbone of timm (github.com/huggingface/pytorch-image-models) as an encoder: the ImageNet baselines."""

import difflib
import re
from pathlib import Path
from typing import Any

import timm
import torch
from timm.data.config import resolve_model_data_config

from encoders.dinobloom import SEEN
from encoders.timm_patches import timm_patches
from encoders.weights import HUB_NAMES, Weights, read_weights
from milkit.downloads import hub_file, network_is_forbidden
from milkit.encoder import Encoder, Transform, encoder_digest
from milkit.errors import SettingsError, WeightsMissing
from milkit.registry import unknown_name

_KIND = "timm model"
_NAMED = 5
_HUB = ("hf-hub", "hf_hub")
_SETS = {
    "in1k": "imagenet1k",
    "in12k": "imagenet12k",
    "in21k": "imagenet21k",
    "in22k": "imagenet21k",
    "lvd142m": "lvd142m",
    "laion2b": "laion2b",
    "lvd1689m": "lvd1689m",
}
"""Data sets by the words of timm's tags; a word that is not here is not known to be one."""

_INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
_CROP_MODES = ("squash", "center")


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
        WeightsMissing: If timm's weights are not cached and cannot be downloaded.
        SettingsError: If timm cannot build what a source outside its list describes.
        WeightsError: If ``weights`` is not a checkpoint of this backbone.
    """
    _require_known(model)
    if weights is None and pretrained:
        network, held = _pretrained(model)
    else:
        network, held = _create(_local(model)), None
    if weights is not None:
        held = _without_classifier(network, read_weights(weights))
        held.load_into(network)
    transform = _transform(network, model)
    random = "" if pretrained or weights is not None else "-random"
    made_of = {"timm": timm.__version__, "timm_tag": str(network.pretrained_cfg.get("tag") or "")}
    return Encoder(
        name=f"timm-{re.sub(r'[^A-Za-z0-9._-]+', '-', model)}{random}",
        model=network,
        transform=transform,
        dim=int(getattr(network, "head_hidden_size", None) or network.num_features),
        digest=encoder_digest(network, transform),
        seen=() if random else _seen(network, model),
        made_of=made_of | (held.made_of if held else {}),
        patch_tokens=timm_patches(network),
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


def _pretrained(model: str) -> tuple[Any, Weights | None]:
    """The backbone with timm's weights, and the file that they come from where it lies on Hugging Face.

    Such a file is fetched and read here, and timm is only given the tensors: then nothing in it is executed, its
    digest is known, and a forbidden network is not asked.
    """
    repository, revision = _repository(model)
    if repository is None:
        _require_allowed(model)
        return _create(model, pretrained=True), None
    held = read_weights(hub_file(repository, *_file_names(model), revision=revision))
    tensors = {"source": None, "state_dict": held.tensors}
    network = _create(_local(model), pretrained=True, pretrained_cfg_overlay=tensors)
    network.pretrained_cfg.pop("state_dict", None)  # timm would keep a second copy of the weights
    return network, held


def _repository(model: str) -> tuple[str | None, str | None]:
    """Owner/name on Hugging Face and, where one is named, the revision; none where timm takes the model elsewhere."""
    source, _, name = model.rpartition(":")
    if source in _HUB:
        repository, _, revision = name.partition("@")
        return repository, revision or None
    config = None if source else timm.get_pretrained_cfg(model)
    return (config.hf_hub_id if config else None), None


def _file_names(model: str) -> tuple[str, ...]:
    """What the weights may be called in the repository; where timm knows of a name of its own, that first."""
    config = None if ":" in model else timm.get_pretrained_cfg(model)
    own = str(config.hf_hub_filename or "") if config else ""
    return (own, *HUB_NAMES) if own else HUB_NAMES


def _seen(network: Any, model: str) -> tuple[str, ...]:
    """What the name and timm's tag say of the pre-training: ``augreg_in21k_ft_in1k`` saw two sets of photographs."""
    if "dinobloom" in model.lower():
        return SEEN
    tag = str(network.pretrained_cfg.get("tag") or "").split("_")
    return tuple(dict.fromkeys(_SETS[word] for word in tag if word in _SETS))


def _require_allowed(model: str) -> None:
    """Refuse the few models whose weights timm takes from elsewhere, where the network is forbidden."""
    config = None if ":" in model else timm.get_pretrained_cfg(model)
    url = str(config.url or "") if config else ""
    if url and network_is_forbidden() and not Path(torch.hub.get_dir(), "checkpoints", Path(url).name).exists():
        msg = (
            f"timm's weights of '{model}' are not cached, and the network is forbidden (--offline or HF_HUB_OFFLINE); "
            f"download {url} and pass it with --weights FILE."
        )
        raise WeightsMissing(msg)


def _local(model: str) -> str:
    """For timm, a repository on Hugging Face is the folder in the cache that holds its configuration."""
    if model.partition(":")[0] not in _HUB:
        return model
    repository, revision = _repository(model)
    advice = "take timm's own name of the architecture and pass the file with --weights FILE"
    return f"local-dir:{hub_file(str(repository), 'config.json', revision=revision, advice=advice).parent}"


def _create(model: str, *, pretrained: bool = False, **overlay: Any) -> Any:
    """Build the backbone; what is not loaded is drawn from seed 0, and the global state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        try:
            return timm.create_model(model, pretrained=pretrained, num_classes=0, **overlay)
        except Exception as error:
            reason = type(error).__name__
            if ":" in model:
                msg = f"timm cannot build '{model}' ({reason}); check its configuration and weights, or name another."
                raise SettingsError(msg) from error
            if overlay or not pretrained:
                raise
            msg = (
                f"timm's weights of '{model}' are not cached and could not be downloaded ({reason}); run where the "
                "network can be reached, give a file with --weights FILE, or set pretrained to false."
            )
            raise WeightsMissing(msg) from error


def _without_classifier(network: Any, weights: Weights) -> Weights:
    classifier = network.pretrained_cfg.get("classifier") or ()
    layers = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return weights.without(*(f"{layer}." for layer in layers))


def _transform(network: Any, model: str) -> Transform:
    data: dict[str, Any] = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    channels, height, width = data["input_size"]
    if channels != 3 or height != width:
        found = f"{channels}x{height}x{width}"
        msg = f"The timm model '{model}' expects {found}, milkit gives 3 channels of a square; choose another model."
        raise SettingsError(msg)
    if data["crop_mode"] not in _CROP_MODES or data["interpolation"] not in _INTERPOLATIONS:
        found = f"{data['interpolation']} interpolation and the crop '{data['crop_mode']}'"
        msg = (
            f"The timm model '{model}' was evaluated with {found}, milkit knows {', '.join(_INTERPOLATIONS)} and "
            f"{', '.join(_CROP_MODES)}; choose another model."
        )
        raise SettingsError(msg)
    return Transform(
        size=height,
        interpolation=data["interpolation"],
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        crop=float(data["crop_pct"]),
        crop_mode=data["crop_mode"],
    )
