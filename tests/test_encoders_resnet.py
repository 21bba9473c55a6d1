"""ResNet-50 three times: the logits, the pooled features and the third stage of torchvision's own network."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from encoder_toys import images, put_into_cache, use_only
from safetensors.torch import save
from torch import nn

from encoders.resnet import resnet50, resnet50_pooled, resnet50_trunc
from milkit.encoder import Encoder, Transform
from milkit.errors import WeightsError, WeightsMissing

torchvision = pytest.importorskip("torchvision")

FACTORIES: dict[str, Callable[..., Encoder]] = {
    "resnet50": resnet50,
    "resnet50-pooled": resnet50_pooled,
    "resnet50-trunc": resnet50_trunc,
}


@pytest.fixture(scope="module")
def original() -> Any:
    """torchvision's network, seeded, with statistics in its batch norms that are not 0 and 1."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torchvision.models.resnet50().eval().requires_grad_(False)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
    return network


@pytest.fixture(scope="module")
def published(original: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file as torchvision publishes it: a flat state dict, named by the beginning of its SHA-256."""
    path = tmp_path_factory.mktemp("resnet") / "unnamed.pth"
    torch.save(original.state_dict(), path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return path.rename(path.with_name(f"resnet50-{sha256[:8]}.pth"))


def test_timm_s_network_has_torchvision_s_names_and_shapes(original: Any) -> None:
    with torch.device("meta"):
        theirs = timm.create_model("resnet50").state_dict()
    ours = {name: value.shape for name, value in theirs.items()}
    assert ours == {name: value.shape for name, value in original.state_dict().items()}


def expected(name: str, original: Any) -> torch.Tensor:
    """The features by torchvision's modules, as DinoBloom's evaluation cut them."""
    if name == "resnet50":
        logits: torch.Tensor = original(images())
        return logits
    cut = -1 if name == "resnet50-pooled" else -3
    return nn.Sequential(*list(original.children())[:cut], nn.AdaptiveAvgPool2d(1))(images()).flatten(1)


@pytest.mark.parametrize(("name", "dim"), [("resnet50", 1000), ("resnet50-pooled", 2048), ("resnet50-trunc", 1024)])
def test_the_features_are_torchvision_s(name: str, dim: int, original: Any, published: Path) -> None:
    encoder = FACTORIES[name](published)
    features = encoder.model(images())
    assert features.shape == (2, dim) == (2, encoder.dim)
    torch.testing.assert_close(features, expected(name, original), atol=1e-5, rtol=1e-5)
    assert encoder.name == name
    assert encoder.seen == ("imagenet1k",)
    assert encoder.transform == Transform(size=224, interpolation="bilinear", crop=1.0)
    assert encoder.made_of["weights_sha256"].startswith(published.stem.rpartition("-")[2])


def test_the_three_have_three_digests(published: Path) -> None:
    assert len({factory(published).digest for factory in FACTORIES.values()}) == 3


def test_the_global_random_numbers_are_left_alone(published: Path) -> None:
    torch.manual_seed(1)
    drawn = torch.rand(3)
    torch.manual_seed(1)
    resnet50(published)
    assert torch.equal(drawn, torch.rand(3))


def test_a_damaged_file_of_the_published_name_is_refused(original: Any, tmp_path: Path) -> None:
    path = tmp_path / "resnet50-11ad3fa6.pth"
    torch.save(original.state_dict(), path)
    with pytest.raises(WeightsError, match=r"whose SHA-256 begins with 11ad3fa6, and its own begins with .*; download"):
        resnet50(path)
    assert resnet50(path.rename(tmp_path / "resnet50.pth")).dim == 1000


def test_another_network_is_refused(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"weights\.pth does not fit the network \(missing: layer1\.0\.bn3\.bias"):
        resnet50_trunc(tmp_path / "weights.pth")


def test_without_weights_timm_s_copy_is_taken(
    original: Any, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = timm.get_pretrained_cfg("resnet50.tv2_in1k")
    assert config.hf_hub_id == "timm/resnet50.tv2_in1k"
    assert config.url.endswith("/resnet50-11ad3fa6.pth")  # timm's word that both are the same weights
    cache = use_only(tmp_path / "cache", monkeypatch)
    put_into_cache(cache, "timm/resnet50.tv2_in1k", "model.safetensors", save(original.state_dict()))
    assert resnet50_trunc().digest == resnet50_trunc(published).digest


@pytest.mark.parametrize("name", FACTORIES)
def test_weights_that_are_neither_given_nor_cached(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_only(tmp_path, monkeypatch)
    message = (
        r"model\.safetensors of timm/resnet50\.tv2_in1k .* the network is forbidden .*; download it there, or "
        r"resnet50-11ad3fa6\.pth from download\.pytorch\.org/models, and pass it with --weights FILE\."
    )
    with pytest.raises(WeightsMissing, match=message):
        FACTORIES[name]()
