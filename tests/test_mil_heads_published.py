"""The heads with a paper behind them, each against its formula in loops over cells, in float64."""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from milkit.errors import SettingsError
from milkit.mil.additive import Additive
from milkit.mil.clam import Clam, clam
from milkit.mil.dsmil import Dsmil
from milkit.mil.heads import MilOutput
from milkit.mil.hehr import Hehr, hehr
from milkit.mil.transmil import Transmil, transmil

D, C, N = 7, 3, 8

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


class Run(NamedTuple):
    """A head's parameters, a bag, and what the head makes of it."""

    p: dict[str, Array]
    x: Array
    logits: Array
    attention: Array
    scores: Array
    output: MilOutput


def run(head: nn.Module, n_cells: int = N) -> Run:
    """One bag without padding through the head, whose weights are made large enough that no softmax is flat."""
    head = head.double().eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
        x = torch.randn(n_cells, D, dtype=torch.float64)
        output = head(x[None], torch.ones(1, n_cells, dtype=torch.bool))
    p = {name: value.numpy() for name, value in head.state_dict().items()}
    scores = [values[0].numpy() for values in output.auxiliary.values()]
    return Run(p, x.numpy(), output.logits[0].numpy(), output.attention[0].numpy(), *(scores or [np.empty(0)]), output)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(11)


def linear(p: dict[str, Array], name: str, x: Array) -> Array:
    return p[f"{name}.weight"] @ x + p.get(f"{name}.bias", 0.0)


def relu(x: Array) -> Array:
    return np.maximum(x, 0.0)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def softmax(e: list[float]) -> Array:
    return np.exp(e) / sum(np.exp(e))


def close(ours: Array, formula: object) -> None:
    np.testing.assert_allclose(ours, np.array(formula), atol=1e-12)


def test_hehr_equals_its_formula() -> None:
    p, x, logits, attention, *_ = run(Hehr(D, C, 5, 4))
    for c in range(C):
        a = softmax([p["score.weight"][c] @ np.tanh(linear(p, "value", cell)) for cell in x])
        z = sum(weight * cell for weight, cell in zip(a, x, strict=True))
        hidden = relu(linear(p, f"classifiers.{c}.0", z))
        close(attention[c], a)
        close(logits[c], linear(p, f"classifiers.{c}.2", hidden)[0])


def test_hehr_has_the_published_sizes_unless_told_otherwise() -> None:
    shapes = [tuple(parameter.shape) for parameter in hehr(384, 5).parameters()]
    of_a_class = [(64, 384), (64,), (1, 64), (1,)]
    assert shapes == [(128, 384), (128,), (5, 128), *(of_a_class * 5)]


@pytest.mark.parametrize("class_wise", [True, False])
def test_clam_equals_its_formula(class_wise: bool) -> None:
    p, x, logits, attention, scores, _ = run(Clam((D, 6, 5), C, class_wise=class_wise, dropout=0.25, n_instances=2))
    h = [relu(linear(p, "project.0", cell)) for cell in x]
    for c in range(C):
        row = c if class_wise else 0
        a = softmax(
            [p["score.weight"][row] @ (np.tanh(linear(p, "value.0", g)) * sigmoid(linear(p, "gate.0", g))) for g in h]
        )
        z = sum(weight * g for weight, g in zip(a, h, strict=True))
        close(attention[row], a)
        close(logits[c], p["output.weight"][c] @ z + p["output.bias"][c])
        close(scores[c], [linear(p, "instance", g)[c] for g in h])


@pytest.mark.parametrize("class_wise", [True, False])
@pytest.mark.parametrize(("n_cells", "k"), [(8, 2), (5, 2), (3, 1), (2, 1), (1, 0)])
def test_clam_s_instance_loss_equals_its_formula(class_wise: bool, n_cells: int, k: int) -> None:
    head = Clam((D, 6, 5), C, class_wise=class_wise, dropout=0.25, n_instances=2)
    bag = run(head, n_cells)
    for label in range(C):
        total = 0.0
        for c in range(C):
            order = sorted(range(n_cells), key=lambda i, row=c if class_wise else 0: -bag.attention[row, i])
            targets = [(i, 1.0 if c == label else -1.0) for i in order[:k]]
            if c == label:
                targets += [(i, -1.0) for i in order[n_cells - k :]]
            losses = [np.log(1 + np.exp(1.0 - t * bag.scores[c, i])) for i, t in targets]
            total += float(np.mean(losses)) if losses else 0.0
        mask = torch.ones(1, n_cells, dtype=torch.bool)
        (loss,) = head.auxiliary_loss(bag.output, torch.tensor([label]), mask).tolist()
        assert loss == pytest.approx(0.3 / 0.7 * total / C, abs=1e-12)


def test_clam_counts_no_padding_among_the_cells_of_no_attention() -> None:
    """All attention is on one cell; the others, whose exact 0 is that of the padding before them, are the lowest."""
    head = Clam((D, 6, 5), 1, class_wise=True, dropout=0.0, n_instances=2)
    mask = torch.tensor([[False, True, True, True, True]])
    scores = torch.tensor([[[0.0, 5.0, 1.0, 2.0, 3.0]]])
    output = MilOutput(torch.zeros(1, 1), torch.tensor([[[0.0, 1.0, 0.0, 0.0, 0.0]]]), {"scores": scores})
    losses = [np.log(1 + np.exp(1 - t * s)) for t, s in ((1, 5.0), (1, 1.0), (-1, 2.0), (-1, 3.0))]
    (loss,) = head.auxiliary_loss(output, torch.tensor([0]), mask).tolist()
    assert loss == pytest.approx(0.3 / 0.7 * np.mean(losses), rel=1e-6)


def test_clam_s_instance_loss_is_the_smooth_svm_of_two_outputs() -> None:
    """log sum_j exp(1[j != t] + o_j - o_t), the form in which Berrada et al. write it, for outputs o = (0, s)."""
    head = Clam((D, 6, 5), 1, class_wise=True, dropout=0.0, n_instances=1)
    bag = run(head, 2)
    high = int(bag.attention[0].argmax())
    losses = []
    for cell, target in ((high, 1), (1 - high, 0)):
        o = [0.0, bag.scores[0, cell]]
        losses.append(np.log(sum(np.exp((j != target) + o[j] - o[target]) for j in range(2))))
    (loss,) = head.auxiliary_loss(bag.output, torch.tensor([0]), torch.ones(1, 2, dtype=torch.bool)).tolist()
    assert loss == pytest.approx(0.3 / 0.7 * np.mean(losses), abs=1e-12)


def test_clam_drops_out_in_training_alone() -> None:
    head = clam(D, C).double()
    x, mask = torch.randn(1, N, D, dtype=torch.float64), torch.ones(1, N, dtype=torch.bool)
    assert not torch.equal(head.train()(x, mask).logits, head(x, mask).logits)
    assert torch.equal(head.eval()(x, mask).logits, head(x, mask).logits)


def test_dsmil_equals_its_formula() -> None:
    p, x, logits, attention, scores, _ = run(Dsmil(D, C, 4))
    z = []
    for c in range(C):
        s = [linear(p, "instance", cell)[c] for cell in x]
        q = [linear(p, "query", cell) for cell in x]
        critical = int(np.argmax(s))
        a = softmax([q_i @ q[critical] / np.sqrt(4) for q_i in q])
        z.append(sum(weight * linear(p, "value", cell) for weight, cell in zip(a, x, strict=True)))
        close(scores[c], s)
        close(attention[c], a)
    close(logits, linear(p, "output", np.concatenate(z)))


def test_dsmil_s_auxiliary_loss_is_the_cross_entropy_of_the_highest_cells() -> None:
    head = Dsmil(D, C, 4)
    bag = run(head)
    highest = [max(row) for row in bag.scores]
    for label in range(C):
        (loss,) = head.auxiliary_loss(bag.output, torch.tensor([label]), torch.ones(1, N, dtype=torch.bool)).tolist()
        assert loss == pytest.approx(-np.log(softmax(highest)[label]), abs=1e-12)


def test_additive_equals_its_formula_and_its_contributions_are_all_that_its_logits_are_made_of() -> None:
    p, x, logits, attention, contributions, _ = run(Additive(D, C, 6, 5))
    h = [relu(linear(p, "project.0", cell)) for cell in x]
    a = softmax([p["score.weight"][0] @ np.tanh(linear(p, "value", g)) for g in h])
    close(attention[0], a)
    for i, (weight, g) in enumerate(zip(a, h, strict=True)):
        close(contributions[:, i], linear(p, "output", relu(linear(p, "hidden.0", weight * g))))
        close(contributions[:, i], weight * linear(p, "output", relu(linear(p, "hidden.0", g))))  # homogeneous
    close(logits, contributions.sum(axis=1) + p["bias"])


def _layer_norm(p: dict[str, Array], name: str, t: Array) -> Array:
    return (t - t.mean()) / np.sqrt(t.var() + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_transmil_equals_its_formula(depth: int) -> None:
    n_heads, d = 2, 3
    p, x, logits, attention, *_ = run(Transmil((D, n_heads * d), C, n_heads=n_heads, depth=depth, dropout=0.1))
    tokens = [p["class_token"][0, 0], *(relu(linear(p, "project.0", cell)) for cell in x)]
    for name in [*(f"mixing.{number}" for number in range(depth - 1)), "reading"]:
        n = [_layer_norm(p, f"{name}.norm", t) for t in tokens]
        q = [linear(p, f"{name}.query", t) for t in n]
        k, v = zip(*(np.split(linear(p, f"{name}.key_value", t), 2) for t in n[1:]), strict=True)
        after, of_class_token = [], []
        for number, t in enumerate(tokens):
            mixed = []
            for head in range(n_heads):
                part = slice(head * d, (head + 1) * d)
                weights = softmax([q[number][part] @ k_i[part] / np.sqrt(d) for k_i in k])
                mixed.append(sum(weight * v_i[part] for weight, v_i in zip(weights, v, strict=True)))
                if number == 0:
                    of_class_token.append(weights)
            after.append(t + linear(p, f"{name}.output.0", np.concatenate(mixed)))
        tokens = after
    close(attention[0], np.mean(of_class_token, axis=0))
    close(logits, linear(p, "output", _layer_norm(p, "norm", tokens[0])))


def test_transmil_says_which_sizes_do_not_fit() -> None:
    with pytest.raises(SettingsError, match=r"hidden_dim 10 and n_heads 4, expected .* multiple of n_heads; take 12"):
        transmil(D, C, hidden_dim=10)
