"""timm's backbones: their own input, a name that can be a folder, and errors that help when offline."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch

from encoders.timm_models import timm_model
from milkit.encoder import Transform, load_encoder
from milkit.errors import SettingsError, UnknownName, WeightsError, WeightsMissing
from milkit.registry import ENCODERS
from milkit.settings import Component

SMALL = "test_resnet.r160_in1k"  # timm's own model for tests: half a million parameters


def test_a_random_backbone_says_so_and_is_the_same_each_time() -> None:
    torch.manual_seed(1)
    first = timm_model(SMALL, pretrained=False)
    drawn = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(3))  # the global random numbers were left alone
    second = timm_model(SMALL, pretrained=False)
    assert first.name == f"timm-{SMALL}-random"
    assert first.digest == second.digest
    assert first.model(torch.rand(2, 3, 160, 160)).shape == (2, first.dim)
    assert not first.model.training
    assert first.made_of["timm"] == timm.__version__


def test_the_input_is_the_one_that_timm_names() -> None:
    encoder = timm_model(SMALL, pretrained=False)
    assert encoder.transform.size == 160
    assert encoder.transform.interpolation == "bilinear"
    assert encoder.transform.crop == 0.95


def test_the_crop_is_honoured() -> None:
    transform = timm_model("resnet10t", pretrained=False).transform
    assert (transform.size, transform.crop) == (176, 0.875)
    image = np.full((200, 200, 3), 255, dtype=np.uint8)
    image[:9], image[:, :9] = 0, 0  # a dark border of 4.5 % is cut away, of 6.25 % on each side
    assert float(transform(image).min()) > 1.9
    assert float(Transform(size=176)(image).min()) < -1.7


def test_the_registry_knows_the_short_form() -> None:
    component = Component.model_validate({"name": "timm", "model": SMALL, "pretrained": False})
    assert load_encoder(component).name == f"timm-{SMALL}-random"
    assert Component.model_validate("timm:resnet50").arguments == {"model": "resnet50"}
    assert "timm" in ENCODERS.names()


def test_an_unknown_model_lists_the_nearest_only() -> None:
    with pytest.raises(
        UnknownName, match=r"No timm model is called 'resnet5000'\. Did you mean 'resnet50'\?"
    ) as caught:
        timm_model("resnet5000")
    assert str(caught.value).count(",") == 4


def test_an_unknown_tag_lists_the_tags() -> None:
    with pytest.raises(UnknownName, match=r"'resnet50\.a1_in1'\. Did you mean 'resnet50\.a1_in1k'"):
        timm_model("resnet50.a1_in1")


@pytest.mark.parametrize("model", [SMALL, "hf-hub:someone/some-model"])
def test_weights_that_cannot_be_downloaded(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("Name or service not known\nRetry")  # noqa: EM101

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        WeightsMissing, match=r"could not be downloaded \(ConnectionError\); .* --weights FILE"
    ) as caught:
        timm_model(model)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_is_loaded_without_its_classifier(tmp_path: Path) -> None:
    torch.manual_seed(5)
    trained = timm.create_model(SMALL, pretrained=False, num_classes=7).eval()
    torch.save({"state_dict": trained.state_dict()}, tmp_path / "weights.pth")
    encoder = timm_model(SMALL, weights=tmp_path / "weights.pth")
    images = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        expected = trained.forward_head(trained.forward_features(images), pre_logits=True)
    torch.testing.assert_close(encoder.model(images), expected)
    assert encoder.name == f"timm-{SMALL}"
    assert len(encoder.made_of["weights_sha256"]) == 64


def test_a_checkpoint_of_another_backbone_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "weights.pth")
    with pytest.raises(WeightsError, match=r"weights\.pth does not fit the network \(missing: .* and \d+ more"):
        timm_model(SMALL, weights=tmp_path / "weights.pth")


def test_names_become_safe_for_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    small = timm.create_model(SMALL, pretrained=False, num_classes=0)
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: small)
    assert timm_model("hf-hub:some/mödel name").name == "timm-hf-hub-some-m-del-name"


def test_an_input_that_is_not_square_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"input_size": (3, 32, 64), "interpolation": "bicubic", "mean": (0,) * 3, "std": (1,) * 3, "crop_pct": 1}
    monkeypatch.setattr("encoders.timm_models.resolve_model_data_config", lambda _: config)
    with pytest.raises(SettingsError, match=r"expects 3x32x64, milkit gives 3 channels of a square; choose another"):
        timm_model(SMALL, pretrained=False)


def test_ports_of_dinobloom_have_seen_what_dinobloom_has(monkeypatch: pytest.MonkeyPatch) -> None:
    small = timm.create_model(SMALL, pretrained=False, num_classes=0)
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: small)
    assert "aml_hehr" in timm_model("hf-hub:1aurent/vit_small_patch14_224.dinobloom").seen
    assert timm_model(SMALL).seen == ()
