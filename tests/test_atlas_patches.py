"""`milkit atlas --patches`: the components are those of the formula, and only encoders with patch tokens are asked."""

import html
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from atlas_toys import make_run
from encoder_toys import described_vit
from PIL import Image
from typer.testing import CliRunner

from encoders.classical import classical
from encoders.pretrained import pretrained
from encoders.timm_patches import timm_patches
from milkit.atlas.components import principal_components
from milkit.atlas.patches import write_patches
from milkit.atlas.settings import PatchSettings
from milkit.cli import app
from milkit.encoder import Encoder
from milkit.errors import RunError, SettingsError, StoreError
from milkit.runs import read_json
from milkit.tables import read_table


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return described_vit(tmp_path_factory.mktemp("weights") / "mine.safetensors")  # 24 features, 3 × 3 patches


@pytest.fixture(scope="module")
def encoder(weights: Path) -> Encoder:
    return pretrained(weights)


def run_of(root: Path, encoder: Encoder, **other: Any) -> Path:
    return make_run(root, encoder="pretrained", encoder_digest=encoder.digest, **other)


def tokens_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape) * np.linspace(1, 3, shape[-1])


def test_components_are_those_of_a_singular_value_decomposition_of_all_cells_together() -> None:
    tokens = tokens_of(5, 4, 3, 8).astype(np.float32)
    found = principal_components(tokens)
    flat = tokens.astype(np.float64).reshape(-1, 8)
    centred = flat - flat.mean(axis=0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    for number in range(3):
        axis = axes[number] * (1 if axes[number][np.abs(axes[number]).argmax()] > 0 else -1)
        np.testing.assert_allclose(found.scores[..., number].ravel(), centred @ axis, atol=1e-9)
    np.testing.assert_allclose(found.explained, values[:3] ** 2 / (values**2).sum(), rtol=1e-9)


def test_the_sign_is_the_same_whatever_the_order_of_the_cells() -> None:
    tokens = tokens_of(6, 3, 3, 7)
    turned = principal_components(tokens[::-1].copy())
    np.testing.assert_allclose(turned.scores[::-1], principal_components(tokens).scores, atol=1e-9)


def test_one_scale_colours_all_cells() -> None:
    tokens = tokens_of(4, 5, 5, 6)
    found = principal_components(tokens)
    low, high = np.percentile(found.scores.reshape(-1, 3), [1, 99], axis=0)
    np.testing.assert_allclose(found.colours, ((found.scores - low) / (high - low)).clip(0, 1))


def test_the_border_s_side_of_the_first_component_is_background_and_is_not_fitted() -> None:
    tokens = tokens_of(3, 8, 8, 6) * 0.1
    cell = np.zeros((8, 8), dtype=bool)
    cell[2:6, 2:6] = True
    tokens[:, cell] += np.array([9.0, 0, 0, 0, 0, 0])
    found = principal_components(tokens, without_background=True)
    np.testing.assert_array_equal(found.foreground, np.broadcast_to(cell, (3, 8, 8)))
    assert (found.colours[~found.foreground] == 1).all()
    alone = principal_components(tokens[:, 2:6, 2:6])
    np.testing.assert_allclose(found.scores[:, 2:6, 2:6], alone.scores, atol=1e-9)


def test_too_few_patches_are_a_sentence() -> None:
    with pytest.raises(StoreError, match=r"^3 patches of 5 features were left to compare, .* choose more cells\.$"):
        principal_components(tokens_of(1, 1, 3, 5))


def test_patch_tokens_lie_where_the_patches_are(encoder: Encoder) -> None:
    image = torch.randn(1, 3, 42, 42, generator=torch.Generator().manual_seed(0))
    assert encoder.patch_tokens is not None
    grid = encoder.patch_tokens(image)
    assert grid.shape == (1, 3, 3, 24)
    tokens = encoder.model.tokens(image).patches  # type: ignore[operator]
    torch.testing.assert_close(grid[0, 1, 2], tokens[0, 5])


def test_timm_s_vision_transformers_give_tokens_and_its_convolutions_none() -> None:
    network = timm.create_model("test_vit", num_classes=0).eval()
    images = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    tokens = timm_patches(network)
    assert tokens is not None
    with torch.inference_mode():
        grid, whole = tokens(images), network.forward_features(images)
    torch.testing.assert_close(grid.flatten(1, 2), whole[:, network.num_prefix_tokens :])
    assert timm_patches(timm.create_model("test_resnet")) is None


def test_pictures_are_those_of_the_cells_that_were_asked_for(tmp_path: Path, encoder: Encoder) -> None:
    run = run_of(tmp_path, encoder)
    chosen = ("P3/c1,P1/c0", "P3/c1")
    facts = write_patches(PatchSettings(run=run, patches=chosen), run / "atlas-patches", encoder=encoder)
    folder = run / "atlas-patches"
    table = read_table(folder / "patches.csv")
    assert table["cell_id"].tolist() == ["P3/c1", "P1/c0"]
    assert facts["grid"] == [3, 3]
    with Image.open(folder / "pictures" / "001-cell.png") as picture, Image.open(tmp_path / "images/2/1.png") as image:
        np.testing.assert_array_equal(np.asarray(picture), encoder.transform.square(np.asarray(image)))
    squares = [np.asarray(Image.open(folder / "pictures" / f"00{n}-cell.png")) for n in (1, 2)]
    with torch.inference_mode():
        images = torch.stack([encoder.transform.normalise(torch.from_numpy(s.copy())[None])[0] for s in squares])
        tokens = encoder.model.tokens(images).patches.reshape(2, 3, 3, 24)  # type: ignore[operator]
    colours = principal_components(tokens.numpy()).colours
    shown = np.asarray(Image.open(folder / "pictures" / "002-components.png"))
    np.testing.assert_allclose(shown[7::14, 7::14], colours[1] * 255, atol=1.01)


def test_top_cells_are_of_different_patients_and_classes_take_turns(tmp_path: Path, encoder: Encoder) -> None:
    run = run_of(tmp_path, encoder)
    write_patches(PatchSettings(run=run, top=6), run / "atlas-patches", encoder=encoder)
    chosen = read_table(run / "atlas-patches" / "patches.csv")
    attention = pd.read_parquet(run / "attention.parquet")
    first = attention[attention["rank"] == 1].set_index("patient_id")["cell_id"]
    assert chosen["patient_id"].is_unique
    assert chosen["cell_id"].tolist() == first[chosen["patient_id"]].tolist()
    labels = read_table(run / "predictions.csv").set_index("patient_id")["predicted"][chosen["patient_id"]]
    assert sorted(labels[:3]) == sorted(labels[3:]) == sorted(set(labels))


def test_equal_runs_give_equal_pictures(tmp_path: Path, encoder: Encoder) -> None:
    run = run_of(tmp_path, encoder)
    for name in ("a", "b"):
        write_patches(PatchSettings(run=run), run / name, encoder=encoder)
    for path in sorted((run / "a" / "pictures").iterdir()):
        assert path.read_bytes() == (run / "b" / "pictures" / path.name).read_bytes()


def test_text_from_data_is_text_on_the_page(tmp_path: Path, encoder: Encoder) -> None:
    hostile = "<script>alert(1)</script>"
    run = run_of(tmp_path, encoder, patients=[hostile, *(f"P{n}" for n in range(8))])
    write_patches(PatchSettings(run=run, patches=(f"{hostile}/c0", "P1/c0")), run / "p", encoder=encoder)
    text = (run / "p" / "patches.html").read_text()
    assert "<script" not in text
    assert hostile in html.unescape(text)


def test_an_encoder_without_patch_tokens_is_refused_by_name(tmp_path: Path) -> None:
    encoder = classical()
    run = make_run(tmp_path, encoder="classical", encoder_digest=encoder.digest)
    with pytest.raises(SettingsError, match=r"^The encoder classical gives no tokens of patches, .* or milkit-mini\.$"):
        write_patches(PatchSettings(run=run), run / "p")


def test_other_weights_than_the_store_s_are_refused(tmp_path: Path, encoder: Encoder) -> None:
    run = make_run(tmp_path, encoder="pretrained")
    with pytest.raises(SettingsError, match=r"has other weights than the store .* as --weights FILE, and its name as"):
        write_patches(PatchSettings(run=run), run / "p", encoder=encoder)


def test_what_a_user_can_correct_is_one_sentence(tmp_path: Path, encoder: Encoder) -> None:
    run = run_of(tmp_path, encoder)
    with pytest.raises(StoreError, match=r"has no cells called P1/c99, nobody; its cells\.csv lists those"):
        write_patches(PatchSettings(run=run, patches=("P1/c99,nobody",)), run / "p", encoder=encoder)
    with pytest.raises(RunError, match=r"^The cells that weigh most \(top\) were asked for without a run that has att"):
        write_patches(PatchSettings(store=tmp_path / "toy.zarr"), run / "p", encoder=encoder)
    with pytest.raises(SettingsError, match=r"^Neither a run nor a store was named"):
        write_patches(PatchSettings(), run / "p", encoder=encoder)
    many = tuple(f"P{p}/c{c}" for p in range(1, 10) for c in range(12))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("milkit.atlas.patches.MOST", 100)
        with pytest.raises(
            SettingsError, match=r"^108 cells were chosen, where one page shows 100 at most; choose fewer"
        ):
            write_patches(PatchSettings(run=run, patches=many), run / "p", encoder=encoder)
    assert not (run / "p").exists()


def test_images_that_cannot_be_read_are_left_out_and_counted(tmp_path: Path, encoder: Encoder) -> None:
    run = run_of(tmp_path, encoder)
    (tmp_path / "images" / "0" / "0.png").write_text("no image")
    settings = PatchSettings(run=run, patches=("P1/c0", "P1/c1", "P1/c2"))
    write_patches(settings, run / "p", encoder=encoder)
    assert read_table(run / "p" / "patches.csv")["cell_id"].tolist() == ["P1/c1", "P1/c2"]
    assert "1 chosen cells are left out" in (run / "p" / "patches.html").read_text()
    with pytest.raises(
        StoreError, match=r"^None of the 1 chosen images in .* could be read; put the images back there"
    ):
        write_patches(settings.model_copy(update={"patches": ("P1/c0",)}), run / "q", encoder=encoder)


def test_the_command_finds_the_encoder_by_its_name_and_weights(
    tmp_path: Path, encoder: Encoder, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(tmp_path, replace(encoder))
    monkeypatch.chdir(tmp_path)
    arguments = ["atlas", "--run", run, "--patches", "P1/c0,P2/c3", "--weights", weights]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"atlas {run / 'atlas-patches' / 'patches.html'}"
    assert read_json(run / "atlas-patches" / "patches.json")["n_cells"] == 2
    text = (run / "atlas-patches" / "patches.html").read_text()
    assert len(re.findall(r"<img ", text)) == 4
