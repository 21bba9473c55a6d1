"""Student and teacher: their names are the published ones, their heads the formulas, their start what a file holds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoder_toys import State, images, vit_state
from scipy.special import erf
from torch.nn import functional

from encoders.dinov2.checkpoints import save_backbone
from encoders.dinov2.hierarchy import HierarchicalHead, hierarchical_head
from encoders.dinov2.label_chains import LabelChains
from encoders.dinov2.networks import Branch, ProjectionHead, new_backbone, started_backbone, teacher_of
from encoders.dinov2.pretrain_settings import Heads, Network
from encoders.vit import VIT_SHAPES, VisionTransformer, VitShape
from encoders.weights import Weights, read_weights
from milkit.errors import WeightsError
from milkit.taxonomy import Taxonomy

DIM, PROTOTYPES, BOTTLENECK = 12, 10, 6
NETWORK = Network(dim=DIM, depth=1, heads=3, image_size=28)
HEADS = Heads(prototypes=PROTOTYPES, hidden=16, bottleneck=BOTTLENECK)


def type_head() -> HierarchicalHead:
    labels = (("basophil",), ("monocyte",), ("neutrophil",))
    return hierarchical_head("leaf", DIM, LabelChains(Taxonomy.load(), labels))


def drawn_anew(branch: Branch, seed: int = 0) -> Branch:
    """No parameter at a neutral 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in branch.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return branch


def student(types: HierarchicalHead | None = None) -> Branch:
    return drawn_anew(Branch(new_backbone(NETWORK), HEADS, types))


def file_of(positions: int, dim: int = DIM, **changed: Any) -> Weights:
    """Weights in DINOv2's layout with so many positions."""
    state: State = vit_state(VitShape(dim, 1, 3, positions=positions)) | changed
    return Weights("dinov2.pth", {name: value for name, value in state.items() if value is not None}, "flat", "")


# --- names ------------------------------------------------------------------------------------------------------------


def test_an_exported_backbone_has_the_names_and_shapes_of_dinobloom_s(tmp_path: Path) -> None:
    save_backbone(tmp_path / "s.safetensors", new_backbone(Network.model_validate("s")), {})
    held = read_weights(tmp_path / "s.safetensors").tensors
    expected = VisionTransformer(VIT_SHAPES["s"]).state_dict()
    assert {name: value.shape for name, value in held.items()} == {
        name: value.shape for name, value in expected.items()
    }
    assert len(held) == 175
    assert sum(value.numel() for value in held.values()) == 21_629_184
    assert {value.dtype for value in held.values()} == {torch.float32}


def test_a_branch_has_the_names_of_the_published_training_s_files() -> None:
    shapes = {name: tuple(value.shape) for name, value in student().state_dict().items()}
    of_heads = {name: shape for name, shape in shapes.items() if not name.startswith("backbone.")}
    head = {
        "mlp.0.weight": (16, DIM),
        "mlp.0.bias": (16,),
        "mlp.2.weight": (16, 16),
        "mlp.2.bias": (16,),
        "mlp.4.weight": (BOTTLENECK, 16),
        "mlp.4.bias": (BOTTLENECK,),
        "last_layer.weight_g": (PROTOTYPES, 1),
        "last_layer.weight_v": (PROTOTYPES, BOTTLENECK),
    }
    assert of_heads == {f"{kind}_head.{name}": shape for kind in ("dino", "ibot") for name, shape in head.items()}
    assert shapes["backbone.pos_embed"] == (1, 5, DIM)


def test_heads_have_the_published_widths() -> None:
    head = ProjectionHead(384, Heads())
    assert {name: tuple(value.shape) for name, value in head.named_parameters() if value.ndim == 2} == {
        "mlp.0.weight": (2048, 384),
        "mlp.2.weight": (2048, 2048),
        "mlp.4.weight": (256, 2048),
        "last_layer.weight_g": (65_536, 1),
        "last_layer.weight_v": (65_536, 256),
    }


# --- formulas ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [2, 3, 4])
def test_a_head_is_its_formula_in_double_precision(layers: int) -> None:
    """GELU between linear layers, a bottleneck of length 1, and the cosines to directions times their lengths."""
    head = ProjectionHead(DIM, HEADS.model_copy(update={"layers": layers}))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = torch.randn(7, DIM, generator=generator)
    w = {name: value.detach().numpy().astype(np.float64) for name, value in head.named_parameters()}
    y = x.numpy().astype(np.float64)
    for layer in range(layers):
        y = y @ w[f"mlp.{2 * layer}.weight"].T + w[f"mlp.{2 * layer}.bias"]
        if layer < layers - 1:
            y = y * (1 + erf(y / np.sqrt(2))) / 2
    z, v = y / np.linalg.norm(y, axis=1, keepdims=True), w["last_layer.weight_v"]
    directions = w["last_layer.weight_g"] * v / np.linalg.norm(v, axis=1, keepdims=True)
    np.testing.assert_allclose(head(x).detach(), z @ directions.T, rtol=1e-4, atol=1e-5)


def test_a_new_head_gives_cosines() -> None:
    """Its directions have length 1 at the start, and the length is learned."""
    head = ProjectionHead(DIM, HEADS)
    assert head(100 * torch.randn(50, DIM)).abs().max() <= 1 + 1e-6
    assert head.last_layer.weight_g.requires_grad


def test_a_new_backbone_has_small_weights_and_its_layer_scale() -> None:
    model = new_backbone(Network(dim=192, depth=1, heads=3, image_size=112, layer_scale=0.25))
    weights = dict(model.named_parameters())
    for name in ("pos_embed", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc2.weight"):
        assert weights[name].std().item() == pytest.approx(0.02, rel=0.05), name
    assert {weights[f"blocks.0.ls{n}.gamma"].unique().item() for n in (1, 2)} == {0.25}
    assert not weights["blocks.0.mlp.fc1.bias"].any()


# --- both ways --------------------------------------------------------------------------------------------------------


def test_the_student_does_not_see_hidden_patches_and_the_teacher_does() -> None:
    learner = student()
    teacher = teacher_of(learner)
    crops, masked = images(4, 28), torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 1, 1]]).bool()
    other = crops.clone()
    other[0, :, :14, :14] = 9.0  # the first patch of the first crop, which is hidden
    same, seen = learner(crops, masked), learner(other, masked)
    torch.testing.assert_close(same.dino, seen.dino)
    torch.testing.assert_close(same.ibot, seen.ibot)
    assert (teacher.targets(crops, masked)[0] - teacher.targets(other, masked)[0])[0].abs().max() > 1e-3


def test_logits_of_hidden_patches_come_in_the_order_of_their_places() -> None:
    learner = student()
    crops, masked = images(2, 28), torch.tensor([[0, 1, 1, 0], [1, 0, 0, 0]]).bool()
    output = learner(crops, masked)
    tokens = learner.backbone.tokens(crops, masked)
    for row, (crop, patch) in enumerate([(0, 1), (0, 2), (1, 0)]):
        torch.testing.assert_close(output.ibot[row], learner.ibot_head(tokens.patches[crop, patch]))
    torch.testing.assert_close(output.cls, tokens.cls)
    torch.testing.assert_close(output.dino, learner.dino_head(tokens.cls))
    assert output.types is None
    unmasked = learner.backbone.tokens(crops)
    _, targets = learner.targets(crops, masked)
    torch.testing.assert_close(targets[2], learner.ibot_head(unmasked.patches[1, 0]))


def test_labelled_cells_are_seen_whole() -> None:
    learner = student(type_head())
    cells = images(3, 28)
    output = learner(images(2, 28), torch.ones(2, 4, dtype=torch.bool), cells)
    torch.testing.assert_close(output.types, learner.type_head(learner.backbone(cells)))


def test_the_teacher_is_a_copy_without_gradients_and_without_a_head_for_labels() -> None:
    learner = student(type_head())
    teacher = teacher_of(learner)
    assert teacher.type_head is None
    assert learner.type_head is not None
    assert [name for name, _ in learner.named_children()] == ["backbone", "dino_head", "ibot_head", "type_head"]
    own, held = dict(learner.named_parameters()), dict(teacher.named_parameters())
    assert held.keys() == {name for name in own if not name.startswith("type_head.")}
    for name, parameter in held.items():
        assert torch.equal(parameter, own[name]), name
        assert not parameter.requires_grad, name
        assert parameter.data_ptr() != own[name].data_ptr(), name
    assert all(parameter.requires_grad for parameter in own.values())


# --- starting from a file ---------------------------------------------------------------------------------------------


def test_positions_are_scaled_to_the_crops_grid_as_dinobloom_s_training_did() -> None:
    """By the factor 16 / 37, with which PyTorch gives the very same numbers as with the size."""
    held = file_of(1370)
    model = started_backbone(Network(dim=DIM, depth=1, heads=3, image_size=224), held)
    original = held.tensors["pos_embed"]
    grid = original[:, 1:].reshape(1, 37, 37, DIM).permute(0, 3, 1, 2)
    scaled = functional.interpolate(grid, scale_factor=(16 / 37, 16 / 37), mode="bicubic")
    expected = torch.cat([original[:, :1], scaled.flatten(2).transpose(1, 2)], dim=1)
    assert model.pos_embed.shape == (1, 257, DIM)
    assert (model.pos_embed - expected).abs().max().item() == 0.0
    for name, tensor in model.state_dict().items():
        assert name == "pos_embed" or torch.equal(tensor, held.tensors[name]), name


def test_positions_of_the_crops_grid_are_kept_as_they_are() -> None:
    held = file_of(5)
    assert torch.equal(started_backbone(NETWORK, held).pos_embed, held.tensors["pos_embed"])


def test_a_published_training_s_file_starts_it_too_whatever_heads_it_has(tmp_path: Path) -> None:
    teacher = teacher_of(student(type_head()))
    torch.save({"teacher": teacher.state_dict() | {"type_head.weight": torch.ones(2)}}, tmp_path / "teacher.pth")
    model = started_backbone(NETWORK, read_weights(tmp_path / "teacher.pth"))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, teacher.backbone.state_dict()[name]), name
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_a_file_without_a_mask_token_starts_with_zeros() -> None:
    assert not started_backbone(NETWORK, file_of(5, mask_token=None)).mask_token.any()


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (
            file_of(5, pos_embed=None),
            "dinov2.pth holds no pos_embed, so no vision transformer; give a file of DINOv2 or DinoBloom.",
        ),
        (
            file_of(5, pos_embed=torch.zeros(1, 7, DIM)),
            "dinov2.pth has 7 positions, expected 1 and those of a square of patches; give a file of DINOv2 or "
            "DinoBloom.",
        ),
    ],
)
def test_a_file_without_positions_of_a_square_is_refused(weights: Weights, sentence: str) -> None:
    with pytest.raises(WeightsError) as caught:
        started_backbone(NETWORK, weights)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        (file_of(1370, dim=24), r"^dinov2.pth does not fit the network \(of another shape: blocks.0.attn.proj.bias"),
        (file_of(5, norm=torch.ones(2)), r"^dinov2.pth does not fit the network \(unexpected: norm\); give the file"),
        (file_of(5, cls_token=None), r"^dinov2.pth does not fit the network \(missing: cls_token\); give the file"),
    ],
)
def test_a_file_of_another_network_is_refused(weights: Weights, sentence: str) -> None:
    with pytest.raises(WeightsError, match=sentence):
        started_backbone(NETWORK, weights)
