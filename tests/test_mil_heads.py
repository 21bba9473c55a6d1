"""Heads: the contract that every head keeps, registered or not yet, and oracles of the plain ones."""

import inspect
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from milkit.errors import SettingsError
from milkit.mil.additive import additive
from milkit.mil.clam import clam
from milkit.mil.dsmil import dsmil
from milkit.mil.heads import Abmil, MaxPool, MeanPool, MilOutput, abmil, build_head, maxpool, meanpool
from milkit.mil.hehr import hehr
from milkit.mil.transmil import transmil
from milkit.registry import HEADS, Factory
from milkit.settings import Component

IN_DIM, N_CLASSES, LENGTHS = 7, 3, [4, 9, 1]
OURS = (abmil, additive, clam, dsmil, hehr, maxpool, meanpool, transmil)
FACTORIES: dict[str, Factory] = {f.__name__: f for f in OURS} | {name: HEADS.get(name) for name in HEADS.names()}
VARIANTS: list[tuple[str, dict[str, object]]] = [
    *((name, {}) for name in FACTORIES),
    ("abmil", {"gated": True}),
    ("abmil", {"class_wise": True}),
    ("abmil", {"gated": True, "class_wise": True}),
    ("clam", {"class_wise": False}),
    ("clam", {"n_instances": 0}),
    ("transmil", {"depth": 1}),
    ("transmil", {"depth": 3}),
]
WITH_COVARIATES = [name for name, f in FACTORIES.items() if "n_covariates" in inspect.signature(f).parameters]


@pytest.fixture(params=VARIANTS, ids=lambda variant: "-".join([variant[0], *variant[1]]))
def head(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(1)
    name, arguments = request.param
    made: nn.Module = FACTORIES[name](in_dim=IN_DIM, n_classes=N_CLASSES, **arguments)
    return made.double().eval()


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    mask = torch.arange(9)[None, :] < torch.tensor(LENGTHS)[:, None]
    return torch.randn(3, 9, IN_DIM, dtype=torch.float64) * mask[:, :, None], mask


LABEL = torch.tensor([2, 0, 1])


def _of_cells(output: MilOutput) -> dict[str, Tensor]:
    """Attention, and what else has a value for every cell."""
    return {"attention": output.attention, **{k: v for k, v in output.auxiliary.items() if v.dim() == 3}}


def _auxiliary_loss(head: nn.Module, output: MilOutput, label: Tensor, mask: Tensor) -> Tensor:
    return head.auxiliary_loss(output, label, mask) if hasattr(head, "auxiliary_loss") else torch.zeros(len(label))


def _bags(features: Tensor, mask: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Each bag on its own, without padding."""
    for bag, there in zip(features, mask, strict=True):
        yield bag[None, there], there[None, there]


def test_shapes_are_those_of_the_contract(head: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    output = head(*batch)
    assert output.logits.shape == (3, N_CLASSES)
    assert all(values.shape in {(3, 1, 9), (3, N_CLASSES, 9)} for values in _of_cells(output).values())
    assert _auxiliary_loss(head, output, LABEL, batch[1]).shape == (3,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_output_has_the_precision_of_the_features(
    head: nn.Module, batch: tuple[Tensor, Tensor], dtype: torch.dtype
) -> None:
    output = head.to(dtype)(batch[0].to(dtype), batch[1])
    tensors = [output.logits, *_of_cells(output).values()]
    assert [tensor.dtype for tensor in tensors] == [dtype] * len(tensors)


def test_half_precision_moves_the_logits_little_and_attention_still_sums_to_one(
    head: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    features, mask = batch
    head = head.float()
    exact = head(features.float(), mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = head(features.float(), mask)
    assert (output.logits.float() - exact.logits).abs().max() < 0.05
    assert (output.attention.float().sum(dim=2) - 1).abs().max() < 0.02


def test_attention_is_not_negative_and_sums_to_one_over_the_cells(
    head: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    attention = head(*batch).attention
    assert (attention >= 0).all()
    torch.testing.assert_close(attention.sum(dim=2), torch.ones_like(attention.sum(dim=2)))


def test_attention_and_scores_are_zero_on_padding(head: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    features, mask = batch
    for values in _of_cells(head(features, mask)).values():
        assert (values.transpose(1, 2)[~mask] == 0).all()


def test_a_bag_of_one_cell_gives_all_its_attention_to_it(head: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    features, mask = list(_bags(*batch))[LENGTHS.index(1)]
    output = head(features, mask)
    assert (output.attention == 1).all()
    assert output.logits.isfinite().all()
    assert _auxiliary_loss(head, output, LABEL[:1], mask).isfinite().all()


def test_padding_changes_nothing(head: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    together = head(*batch)
    losses = _auxiliary_loss(head, together, LABEL, batch[1])
    for row, (bag, mask) in enumerate(_bags(*batch)):
        alone = head(bag, mask)
        torch.testing.assert_close(alone.logits[0], together.logits[row], atol=1e-12, rtol=0)
        for name, values in _of_cells(alone).items():
            expected = _of_cells(together)[name][row, :, : LENGTHS[row]]
            torch.testing.assert_close(values[0], expected, atol=1e-12, rtol=0)
        loss = _auxiliary_loss(head, alone, LABEL[row : row + 1], mask)
        torch.testing.assert_close(loss[0], losses[row], atol=1e-12, rtol=0)


def test_padding_changes_no_logit_in_single_precision_either(head: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    features, mask = batch[0].float(), batch[1]
    head = head.float()
    alone = torch.cat([head(*bag).logits for bag in _bags(features, mask)])
    assert (head(features, mask).logits - alone).abs().max() < 1e-6


def test_what_stands_in_the_padding_does_not_matter(head: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    features, mask = batch
    clean, dirty = head(features, mask), head(features.masked_fill(~mask[:, :, None], 1e3), mask)
    torch.testing.assert_close(dirty.logits, clean.logits, atol=1e-12, rtol=0)
    losses = [_auxiliary_loss(head, output, LABEL, mask) for output in (dirty, clean)]
    torch.testing.assert_close(*losses, atol=1e-12, rtol=0)


def test_padding_may_stand_anywhere(head: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    behind, before = head(*batch), head(*(tensor.flip(1) for tensor in batch))
    torch.testing.assert_close(before.logits, behind.logits, atol=1e-12, rtol=0)
    torch.testing.assert_close(before.attention.flip(2), behind.attention, atol=1e-12, rtol=0)
    losses = [_auxiliary_loss(head, before, LABEL, batch[1].flip(1)), _auxiliary_loss(head, behind, LABEL, batch[1])]
    torch.testing.assert_close(*losses, atol=1e-12, rtol=0)


def test_permuting_the_cells_permutes_what_belongs_to_cells_and_nothing_else(
    head: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    features = torch.randn_like(batch[0])
    mask, order = torch.ones(3, 9, dtype=torch.bool), torch.randperm(9)
    plain, permuted = head(features, mask), head(features[:, order], mask)
    torch.testing.assert_close(permuted.logits, plain.logits)
    for name, values in _of_cells(permuted).items():
        torch.testing.assert_close(values, _of_cells(plain)[name][:, :, order])
    losses = [_auxiliary_loss(head, output, LABEL, mask) for output in (permuted, plain)]
    torch.testing.assert_close(*losses)


def test_a_bag_twice_over_has_the_same_logits_so_that_no_head_reads_its_size(
    head: nn.Module, batch: tuple[Tensor, Tensor]
) -> None:
    once, twice = head(*batch), head(*(torch.cat([tensor, tensor], dim=1) for tensor in batch))
    torch.testing.assert_close(twice.logits, once.logits, atol=1e-12, rtol=0)


def _contribution(head: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """A number that all logits and all auxiliary losses of the batch enter."""
    torch.manual_seed(3)
    output = head(*batch)
    weights = torch.randn(3, N_CLASSES, dtype=torch.float64)
    return (output.logits * weights).sum() + _auxiliary_loss(head, output, LABEL, batch[1]).sum()


def test_gradients_reach_all_parameters(head: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    _contribution(head, batch).backward()
    without = [name for name, p in head.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-9]
    # A constant added to all scores of abmil changes no softmax; the parameter is older than this test.
    assert [name for name in without if not (isinstance(head, Abmil) and name == "score.bias")] == []


def test_gradients_reach_every_bag_and_no_padding(head: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    features, mask = batch[0].requires_grad_(), batch[1]
    _contribution(head, (features, mask)).backward()
    assert features.grad is not None
    assert (features.grad.abs().amax(dim=(1, 2)) > 0).all()
    assert (features.grad[~mask] == 0).all()


def test_auxiliary_losses_are_not_negative(head: nn.Module, batch: tuple[Tensor, Tensor]) -> None:
    for label in (torch.full((3,), c) for c in range(N_CLASSES)):
        assert (_auxiliary_loss(head, head(*batch), label, batch[1]) >= 0).all()


def _gradients(head: nn.Module, output: MilOutput) -> dict[str, Tensor]:
    """Of a number that all logits enter."""
    head.zero_grad()
    weights = torch.linspace(-1, 1, output.logits.numel(), dtype=torch.float64).view_as(output.logits)
    (output.logits * weights).sum().backward()
    return {name: parameter.grad for name, parameter in head.named_parameters() if parameter.grad is not None}


def _packed_equals_padded(head: nn.Module, batch: tuple[Tensor, Tensor], behind: int, **covariates: Tensor) -> None:
    features, mask = batch
    cells = torch.cat([features[mask], torch.full((behind, IN_DIM), 50.0, dtype=torch.float64)])
    plain = head(features, mask, **covariates)
    packed = head.forward_packed(cells, (0, *np.cumsum(LENGTHS).tolist()), **covariates)
    torch.testing.assert_close(packed.logits, plain.logits, atol=1e-12, rtol=0)
    assert packed.auxiliary.keys() == plain.auxiliary.keys()
    for name, values in {"attention": plain.attention, **plain.auxiliary}.items():
        own = packed.attention if name == "attention" else packed.auxiliary[name]
        torch.testing.assert_close(own[:, : sum(LENGTHS)], values.transpose(1, 2)[mask].T, atol=1e-12, rtol=0)
    expected, found = _gradients(head, plain), _gradients(head, packed)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-12, rtol=0)


@pytest.mark.parametrize("behind", [0, 5])
def test_packed_bags_have_the_output_and_the_gradients_of_padded_ones(
    head: nn.Module, batch: tuple[Tensor, Tensor], behind: int
) -> None:
    """Also with rows behind the last bag, whatever they hold."""
    if not hasattr(head, "forward_packed"):
        pytest.skip("this head is padded")
    _packed_equals_padded(head, batch, behind)


@pytest.mark.parametrize("name", WITH_COVARIATES)
def test_packed_bags_have_the_covariates_of_padded_ones(name: str, batch: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(1)
    head = FACTORIES[name](in_dim=IN_DIM, n_classes=N_CLASSES, n_covariates=2).double().eval()
    _packed_equals_padded(head, batch, 0, covariates=torch.randn(3, 2, dtype=torch.float64))


def test_all_heads_but_those_of_single_cells_can_be_packed() -> None:
    heads = {name: factory(in_dim=IN_DIM, n_classes=N_CLASSES) for name, factory in FACTORIES.items()}
    packed = {name for name, head in heads.items() if hasattr(head, "forward_packed")}
    assert packed == set(heads) - {"dsmil", "maxpool"}


@pytest.mark.parametrize("name", WITH_COVARIATES)
def test_covariates_move_a_patient_s_own_logits_and_no_attention(name: str, batch: tuple[Tensor, Tensor]) -> None:
    torch.manual_seed(1)
    head = FACTORIES[name](in_dim=IN_DIM, n_classes=N_CLASSES, n_covariates=2).double().eval()
    covariates = torch.randn(3, 2, dtype=torch.float64)
    other = covariates.clone()
    other[1] += 1.0
    plain, moved = (head(*batch, covariates=values) for values in (covariates, other))
    changed = (plain.logits != moved.logits).any(dim=1)
    assert changed.tolist() == [False, True, False]
    assert torch.equal(plain.attention, moved.attention)


def test_covariates_reach_a_head_that_takes_them() -> None:
    assert set(WITH_COVARIATES) >= {"abmil", "meanpool"}
    head = build_head(Component(name="meanpool"), IN_DIM, N_CLASSES, n_covariates=2)
    assert head.classifier[0].in_features == IN_DIM + 2


def test_a_head_that_takes_no_covariates_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HEADS._registered, "hehr", hehr)
    with pytest.raises(SettingsError, match=r"^The head 'hehr' cannot use covariates, and 2 were given; name a head"):
        build_head(Component(name="hehr"), IN_DIM, N_CLASSES, n_covariates=2)


@pytest.mark.parametrize("n_covariates", [0, 2])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("class_wise", [False, True])
def test_abmil_equals_its_formula(gated: bool, class_wise: bool, n_covariates: int) -> None:
    torch.manual_seed(5)
    dims = (IN_DIM, 5, 4, 6)
    head = Abmil(dims, N_CLASSES, gated=gated, class_wise=class_wise, n_covariates=n_covariates).double()
    x = torch.randn(8, IN_DIM, dtype=torch.float64)
    v = torch.randn(n_covariates, dtype=torch.float64)
    output = head(x[None], torch.ones(1, 8, dtype=torch.bool), covariates=v[None] if n_covariates else None)
    p = {name: value.detach().numpy() for name, value in head.state_dict().items()}
    h = np.maximum(x.numpy() @ p["project.0.weight"].T + p["project.0.bias"], 0)
    t = np.tanh(h @ p["value.weight"].T + p["value.bias"])
    if gated:
        t = t / (1 + np.exp(-(h @ p["gate.weight"].T + p["gate.bias"])))
    e = t @ p["score.weight"].T + p["score.bias"]
    a = np.exp(e) / np.exp(e).sum(axis=0)
    z = np.concatenate([a.T @ h, np.tile(v.numpy(), (a.shape[1], 1))], axis=1)
    z = np.maximum(z @ p["hidden.0.weight"].T + p["hidden.0.bias"], 0)
    w, b = p["output.weight"], p["output.bias"]
    logits = [w[c] @ z[c if class_wise else 0] + b[c] for c in range(N_CLASSES)]
    np.testing.assert_allclose(output.logits[0].detach().numpy(), logits, atol=1e-12)
    np.testing.assert_allclose(output.attention[0].detach().numpy(), a.T, atol=1e-12)


def test_meanpool_is_the_classifier_of_the_mean_and_the_covariates() -> None:
    head = MeanPool(IN_DIM, 4, N_CLASSES, n_covariates=2).double()
    x, v = torch.randn(5, IN_DIM, dtype=torch.float64), torch.randn(2, dtype=torch.float64)
    output = head(x[None], torch.ones(1, 5, dtype=torch.bool), covariates=v[None])
    torch.testing.assert_close(output.logits[0], head.classifier(torch.cat([x.mean(dim=0), v])))
    torch.testing.assert_close(output.attention, torch.full((1, 1, 5), 0.2, dtype=torch.float64))


def test_maxpool_is_the_highest_cell_of_each_class() -> None:
    torch.manual_seed(6)
    head = MaxPool(IN_DIM, 4, N_CLASSES).double()
    x = torch.randn(5, IN_DIM, dtype=torch.float64)
    output = head(x[None], torch.ones(1, 5, dtype=torch.bool))
    scores = [[head.classifier(cell)[c].item() for cell in x] for c in range(N_CLASSES)]
    for c, row in enumerate(scores):
        assert output.logits[0, c].item() == pytest.approx(max(row), abs=1e-12)
        assert output.attention[0, c].tolist() == [float(score == max(row)) for score in row]
    np.testing.assert_allclose(output.auxiliary["scores"][0].detach().numpy(), scores, atol=1e-12)


def test_the_default_classifier_is_two_linear_layers_with_a_relu_between() -> None:
    head = build_head(Component(name="abmil"), IN_DIM, N_CLASSES)
    layers = [*head.hidden, head.output]
    assert [type(layer) for layer in layers] == [nn.Linear, nn.ReLU, nn.Linear]
    assert [layer.out_features for layer in layers[::2]] == [64, N_CLASSES]
