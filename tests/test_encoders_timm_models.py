"""timm's backbones: their own input, a name that can be a folder, and errors that help when offline."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from encoder_toys import COMMIT, State, draw, put_into_cache, use_only
from safetensors.torch import save

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


def published() -> State:
    """timm's small network with a classifier, as its repository on the hub holds it."""
    with torch.device("meta"):
        empty = timm.create_model(SMALL, pretrained=False, num_classes=7).state_dict()
    return draw({name: tuple(value.shape) for name, value in empty.items()})


CONFIG = {
    "architecture": "test_resnet",
    "num_classes": 7,
    "pretrained_cfg": {"tag": "ours", "input_size": [3, 96, 96], "num_classes": 7, "classifier": "fc"},
}


def test_pretrained_weights_are_taken_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = use_only(tmp_path / "cache", monkeypatch)
    content = save(published())
    put_into_cache(cache, f"timm/{SMALL}", "model.safetensors", content)
    encoder = timm_model(SMALL)
    assert encoder.name == f"timm-{SMALL}"
    assert encoder.made_of["timm_tag"] == "r160_in1k"
    assert encoder.made_of["weights_sha256"] == hashlib.sha256(content).hexdigest()
    held = encoder.model.state_dict()
    assert all(torch.equal(held[name], value) for name, value in published().items() if not name.startswith("fc."))
    assert "state_dict" not in encoder.model.pretrained_cfg


def test_a_repository_on_the_hub_is_taken_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = use_only(tmp_path / "cache", monkeypatch)
    put_into_cache(cache, "someone/net", "config.json", json.dumps(CONFIG).encode(), named="b" * 40)
    torch.save(published(), tmp_path / "weights.bin")
    put_into_cache(cache, "someone/net", "pytorch_model.bin", (tmp_path / "weights.bin").read_bytes())
    encoder = timm_model("hf-hub:someone/net")
    assert encoder.name == "timm-hf-hub-someone-net"
    assert encoder.transform.size == 96
    assert torch.equal(encoder.model.state_dict()["conv1.0.weight"], published()["conv1.0.weight"])
    assert timm_model(f"hf-hub:someone/net@{COMMIT}").digest == encoder.digest
    assert timm_model("hf-hub:someone/net", weights=tmp_path / "weights.bin").digest == encoder.digest
    assert timm_model("hf-hub:someone/net", pretrained=False).name.endswith("-random")


def test_code_in_a_repository_s_weights_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = use_only(tmp_path / "cache", monkeypatch)
    put_into_cache(cache, "someone/net", "config.json", json.dumps(CONFIG).encode(), named="b" * 40)
    torch.save({"fc.weight": pytest.MonkeyPatch}, tmp_path / "weights.bin")
    put_into_cache(cache, "someone/net", "pytorch_model.bin", (tmp_path / "weights.bin").read_bytes())
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin holds Python objects .* milkit runs no code"):
        timm_model("hf-hub:someone/net")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            SMALL,
            rf"^model\.safetensors of timm/{SMALL} .* the network is forbidden .*; download it .* --weights FILE\.$",
        ),
        ("hf-hub:someone/net", r"^model\.safetensors of someone/net .* the network is forbidden .* --weights FILE\.$"),
        (
            "gcvit_tiny.in1k",
            r"'gcvit_tiny\.in1k' are not cached, and .* forbidden .*; download https://\S+ and pass it",
        ),
    ],
)
def test_a_forbidden_network_is_not_asked(
    model: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_only(tmp_path, monkeypatch)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: pytest.fail("the network was asked"))
    started = time.monotonic()
    with pytest.raises(WeightsMissing, match=message):
        timm_model(model)
    assert time.monotonic() - started < 5.0


def test_a_repository_whose_configuration_is_not_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_only(tmp_path, monkeypatch)
    message = (
        r"^config\.json of someone/net .*; take timm's own name of the architecture and pass the file with --weights"
    )
    with pytest.raises(WeightsMissing, match=message):
        timm_model("hf-hub:someone/net", pretrained=False)


def test_a_configuration_that_timm_cannot_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = use_only(tmp_path / "cache", monkeypatch)
    config = json.dumps(CONFIG | {"architecture": "nobody_knows"}).encode()
    put_into_cache(cache, "someone/net", "config.json", config, named="b" * 40)
    with pytest.raises(SettingsError, match=r"timm cannot build '\S+' \(RuntimeError\); check its configuration"):
        timm_model("hf-hub:someone/net", pretrained=False)


def test_weights_that_timm_cannot_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("Name or service not known\nRetry")  # noqa: EM101

    monkeypatch.setattr("encoders.timm_models.network_is_forbidden", lambda: False)
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        WeightsMissing, match=r"could not be downloaded \(ConnectionError\); .* --weights FILE"
    ) as caught:
        timm_model("gcvit_tiny.in1k")
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


def test_names_become_safe_for_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mödel name").mkdir()
    (tmp_path / "mödel name" / "config.json").write_text(json.dumps(CONFIG))
    monkeypatch.chdir(tmp_path)
    assert timm_model("local-dir:mödel name", pretrained=False).name == "timm-local-dir-m-del-name-random"


def test_an_input_that_is_not_square_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"input_size": (3, 32, 64), "interpolation": "bicubic", "mean": (0,) * 3, "std": (1,) * 3, "crop_pct": 1}
    monkeypatch.setattr("encoders.timm_models.resolve_model_data_config", lambda _: config)
    with pytest.raises(SettingsError, match=r"expects 3x32x64, milkit gives 3 channels of a square; choose another"):
        timm_model(SMALL, pretrained=False)


def test_ports_of_dinobloom_have_seen_what_dinobloom_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = use_only(tmp_path / "cache", monkeypatch)
    for name in ("1aurent/vit_small_patch14_224.dinobloom", "someone/net"):
        put_into_cache(cache, name, "config.json", json.dumps(CONFIG).encode(), named="b" * 40)
        put_into_cache(cache, name, "model.safetensors", save(published()))
    assert "aml_hehr" in timm_model("hf-hub:1aurent/vit_small_patch14_224.dinobloom").seen
    assert timm_model("hf-hub:someone/net").seen == ()
