"""How each parameter is treated by its name, the limits of the gradients, and the teacher's exact moving average."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from encoders.dinov2.hierarchy import hierarchical_head
from encoders.dinov2.label_chains import LabelChains
from encoders.dinov2.networks import Branch, new_backbone, teacher_of
from encoders.dinov2.optimiser import Rule, clip, follow, new_optimiser, optimiser_tensors, rule, set_moment
from encoders.dinov2.pretrain_settings import Heads, Network, PretrainSettings
from encoders.dinov2.schedules import Moment
from milkit.taxonomy import Taxonomy

SETTINGS = PretrainSettings.model_validate(
    {
        "sources": [{"cohort": {"name": "toy"}}],
        "network": {"dim": 8, "depth": 2, "heads": 2, "image_size": 28},
        "heads": {"prototypes": 6, "hidden": 12, "bottleneck": 4},
        "betas": [0.8, 0.95],
    }
)
NOW = Moment(0.01, 0.0, 0.3, 0.9, 0.05)


def student(*, seed: int = 0) -> Branch:
    """With a head for labels, all parameters drawn anew."""
    types = hierarchical_head("leaf", 8, LabelChains(Taxonomy.load(), (("basophil",), ("monocyte",))))
    branch = Branch(new_backbone(SETTINGS.network), SETTINGS.heads, types)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in branch.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return branch


def give_gradients(branch: Branch, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(100 + seed)
    for parameter in branch.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return {name: parameter.grad.clone() for name, parameter in branch.named_parameters() if parameter.grad is not None}


# --- rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("backbone.pos_embed", Rule(True, 1.0, False)),
        ("backbone.cls_token", Rule(True, 1.0, False)),
        ("backbone.mask_token", Rule(True, 1.0, False)),
        ("backbone.patch_embed.proj.weight", Rule(True, 0.2, False)),
        ("backbone.patch_embed.proj.bias", Rule(False, 0.2, False)),
        ("backbone.blocks.0.norm1.weight", Rule(False, 1.0, False)),
        ("backbone.blocks.0.norm1.bias", Rule(False, 1.0, False)),
        ("backbone.blocks.1.ls2.gamma", Rule(False, 1.0, False)),
        ("backbone.blocks.1.attn.qkv.weight", Rule(True, 1.0, False)),
        ("backbone.blocks.1.attn.qkv.bias", Rule(False, 1.0, False)),
        ("backbone.blocks.1.mlp.w12.weight", Rule(True, 1.0, False)),
        ("backbone.norm.weight", Rule(False, 1.0, False)),
        ("dino_head.mlp.0.weight", Rule(True, 1.0, False)),
        ("dino_head.mlp.4.bias", Rule(False, 1.0, False)),
        ("dino_head.last_layer.weight_g", Rule(True, 1.0, True)),
        ("ibot_head.last_layer.weight_v", Rule(True, 1.0, True)),
        ("type_head.linear.weight", Rule(True, 1.0, False)),
        ("type_head.linear.bias", Rule(False, 1.0, False)),
    ],
)
def test_a_parameter_s_name_says_how_it_is_treated(name: str, expected: Rule) -> None:
    """As DINOv2 does: positions, tokens and prototypes decay; biases, norms and LayerScale do not."""
    assert rule(name, 0.2) == expected


def test_every_parameter_is_in_the_one_group_of_its_rule() -> None:
    branch = student()
    optimiser = new_optimiser(branch, SETTINGS, fused=False)
    group_of = {id(member): group["rule"] for group in optimiser.param_groups for member in group["params"]}
    assert sum(len(group["params"]) for group in optimiser.param_groups) == len(list(branch.parameters()))
    for name, parameter in branch.named_parameters():
        assert group_of[id(parameter)] == rule(name, SETTINGS.patch_embed_factor), name
    assert len({group["rule"] for group in optimiser.param_groups}) == len(optimiser.param_groups) == 5


def test_a_group_has_the_rates_of_the_moment_by_its_rule() -> None:
    optimiser = new_optimiser(student(), SETTINGS, fused=False)
    set_moment(optimiser, NOW)
    for group in optimiser.param_groups:
        kind = group["rule"]
        assert group["lr"] == (0.0 if kind.last_layer else 0.01 * kind.rate)
        assert group["weight_decay"] == (0.3 if kind.decays else 0.0)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_is_adam_with_decoupled_decay_in_double_precision(fused: bool) -> None:
    """Three steps: p - lr · wd · p, then - lr · m̂ / (√v̂ + 1e-8); prototypes stay where their rate is 0."""
    branch = student()
    before = {name: parameter.detach().double().numpy() for name, parameter in branch.named_parameters()}
    mean = {name: np.zeros_like(value) for name, value in before.items()}
    square = {name: np.zeros_like(value) for name, value in before.items()}
    optimiser = new_optimiser(branch, SETTINGS, fused=fused)
    expected = dict(before)
    for t in (1, 2, 3):
        set_moment(optimiser, NOW)
        gradients = give_gradients(branch, seed=t)
        optimiser.step()
        for name, gradient in gradients.items():
            own, g = rule(name, 0.2), gradient.double().numpy()
            rate = 0.0 if own.last_layer else 0.01 * own.rate
            mean[name] = 0.8 * mean[name] + 0.2 * g
            square[name] = 0.95 * square[name] + 0.05 * g**2
            update = (mean[name] / (1 - 0.8**t)) / (np.sqrt(square[name] / (1 - 0.95**t)) + 1e-8)
            expected[name] = expected[name] * (1 - rate * 0.3 * own.decays) - rate * update
    for name, parameter in branch.named_parameters():
        np.testing.assert_allclose(parameter.detach(), expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    held = dict(branch.named_parameters())["dino_head.last_layer.weight_v"]
    np.testing.assert_array_equal(held.detach().double(), before["dino_head.last_layer.weight_v"])


def test_what_the_optimiser_remembers_is_named_by_parameter() -> None:
    branch = student()
    optimiser = new_optimiser(branch, SETTINGS, fused=False)
    assert dict(optimiser_tensors(optimiser, branch)) == {}
    give_gradients(branch)
    optimiser.step()
    held = dict(optimiser_tensors(optimiser, branch))
    names = [name for name, _ in branch.named_parameters()]
    assert held.keys() == {f"{key}.{name}" for name in names for key in ("step", "exp_avg", "exp_avg_sq")}
    assert held["exp_avg.backbone.pos_embed"].shape == branch.backbone.pos_embed.shape


# --- limits -----------------------------------------------------------------------------------------------------------


def norm_of(gradients: dict[str, Tensor], module: str) -> float:
    own = [gradient.double() for name, gradient in gradients.items() if name.startswith(f"{module}.")]
    return math.sqrt(sum(float((gradient**2).sum()) for gradient in own))


def test_a_norm_above_the_limit_in_one_module_scales_that_module_alone() -> None:
    branch = student()
    gradients = give_gradients(branch)
    for name, parameter in branch.named_parameters():
        factor = 100.0 if name.startswith("ibot_head.") else 1e-3
        assert parameter.grad is not None
        parameter.grad.mul_(factor)
        gradients[name] *= factor
    norms = clip(branch, 3.0)
    assert norms == pytest.approx({name: norm_of(gradients, name) for name in norms}, rel=1e-5)
    assert list(norms) == ["backbone", "dino_head", "ibot_head", "type_head"]
    assert [name for name, norm in norms.items() if norm > 3.0] == ["ibot_head"]
    for name, parameter in branch.named_parameters():
        expected = gradients[name] * (3.0 / norms["ibot_head"] if name.startswith("ibot_head.") else 1.0)
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-5, atol=0, msg=name)


# --- the teacher ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.994, 0.5, 0.0])
def test_the_teacher_moves_exactly_by_its_formula(momentum: float) -> None:
    """m · teacher + (1 - m) · student, several times with a student that moves, in double precision."""
    learner = student().double()
    teacher = teacher_of(learner)
    expected = {name: parameter.numpy().copy() for name, parameter in teacher.named_parameters()}
    for seed in (1, 2, 3):
        moved = dict(student(seed=seed).double().named_parameters())
        with torch.no_grad():
            for name, parameter in learner.named_parameters():
                parameter.copy_(moved[name])
        follow(teacher, learner, momentum)
        for name in expected:
            expected[name] = momentum * expected[name] + (1 - momentum) * moved[name].detach().numpy()
    for name, parameter in teacher.named_parameters():
        np.testing.assert_allclose(parameter, expected[name], rtol=1e-13, atol=1e-15, err_msg=name)
    for name, parameter in learner.named_parameters():
        assert torch.equal(parameter, moved[name]), name


def test_in_single_precision_the_teacher_is_the_formula_but_for_rounding() -> None:
    learner = student()
    teacher = teacher_of(learner)
    moved = dict(student(seed=1).named_parameters())
    before = {name: parameter.double().numpy().copy() for name, parameter in teacher.named_parameters()}
    with torch.no_grad():
        for name, parameter in learner.named_parameters():
            parameter.copy_(moved[name])
    follow(teacher, learner, 0.994)
    for name, parameter in teacher.named_parameters():
        old, new = before[name], moved[name].detach().double().numpy()
        error = np.abs(parameter.double().numpy() - (0.994 * old + 0.006 * new))
        assert (error <= 2**-23 * (np.abs(old) + 0.006 * (np.abs(old) + np.abs(new)))).all(), name


def test_a_teacher_of_momentum_one_stays_as_it_is() -> None:
    learner = student()
    teacher = teacher_of(learner)
    before = [parameter.clone() for parameter in teacher.parameters()]
    follow(teacher, student(seed=1), 1.0)
    assert all(torch.equal(old, new) for old, new in zip(before, teacher.parameters(), strict=True))


def test_published_widths_make_the_same_groups() -> None:
    """Also of the giant, whose feed-forward network is gated."""
    with torch.device("meta"):
        branch = Branch(new_backbone(Network(dim=64, depth=1, heads=1, ffn="swiglu")), Heads())
    groups = new_optimiser(branch, SETTINGS, fused=False).param_groups
    assert len(groups) == 5
