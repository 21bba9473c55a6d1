"""The losses without labels: DINO on class tokens, iBOT on hidden patches, KoLeo; and the targets of the first two.

Sources: Caron et al., arXiv:2104.14294 (DINO); Zhou et al., arXiv:2111.07832 (iBOT); Sablayrolles et al.,
arXiv:1806.03198 (KoLeo); Cuturi, arXiv:1306.0895 (Sinkhorn-Knopp); Oquab et al., arXiv:2304.07193 (all of them
together, DINOv2). Letters: b images of this process, in 2b crops (first all first crops, then all second ones), N
patches, m of them hidden, K prototypes, D features.

All is computed in float32, whatever the networks computed in, and is a mean over this process' own images: the average
over processes of a loss and of its gradient are those of all images (``encoders.dinov2.processes``).
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from encoders.dinov2.processes import gathered, largest, rank, summed

DINO_FACTOR = 0.5
"""Of the class token's loss. The published training divided it by the number of its terms, which counted two of small
crops that were left out: 2 / (2 + 2). The weights of the losses to each other were chosen, and the networks trained,
with it."""

KOLEO_SHIFT = 1e-4
"""Added to each coordinate of a difference: a copy's distance is √D times it, not 0, which has no gradient."""

AT_ONCE, AT_ONCE_ON_A_GPU = 2**20, 2**27
"""Numbers of the logits that a loss looks at in one go: 4 MB in float32, about a processor's cache; 512 MB of a GPU."""

TINY = 1e-30
"""Least sum of a column, relative to the mean: above 0, by which it would be divided."""


@torch.no_grad()
def sinkhorn_knopp(logits: Tensor, temperature: float, iterations: int = 3) -> Tensor:
    """The teacher's targets: distributions over prototypes that use all of them about equally, (n, K) -> (n, K).

    exp(logits / temperature) is made to have equal sums of its columns, then sums of 1 of its rows, and so on
    (Sinkhorn-Knopp): the more iterations, the more nearly equal the columns' sums are at the end. Rows are those of all
    processes; each may have another number of them, or none. Adding a number to all logits changes nothing, and none of
    them is too large: a prototype that is unlikely by more than e^-87 in every row gets no share, and no NaN.

    Args:
        logits: Of the teacher.
        temperature: Lower is sharper.
        iterations: At least 1; three in the published training.
    """
    with torch.autocast(logits.device.type, enabled=False):
        # The matrix is kept with 1 as the largest number of each row, beside one factor a row and one a column: what
        # an iteration changes are the factors, so that it reads the matrix twice and never writes it.
        kernel = logits.to(torch.float32, copy=True).div_(temperature)
        highest = kernel.amax(dim=1)
        kernel.sub_(highest.unsqueeze(1)).exp_()
        of_rows = (highest - largest(functional.pad(highest, (0, 1), value=-torch.inf).amax())).exp()
        for _ in range(iterations):
            used = summed(of_rows @ kernel)
            of_columns = 1 / (used / used.mean()).clamp(min=TINY)
            of_rows = 1 / (kernel @ of_columns)
        return kernel.mul_(of_columns).mul_(of_rows.unsqueeze(1))


def dino_loss(student: Tensor, targets: Tensor, temperature: float = 0.1) -> Tensor:
    """What the student says of one crop against what the teacher says of the other: a scalar.

    0.5 · 1/2b Σ_i -Σ_k targets[other crop of i]_k log softmax(student_i / temperature)_k

    Args:
        student: Logits of the student's class tokens (2b, K).
        targets: Distributions of the teacher's class tokens, in the same order (2b, K); the halves are swapped here.
        temperature: Of the student.
    """
    other = targets.roll(len(targets) // 2, dims=0)
    weights = torch.full((len(student),), DINO_FACTOR / len(student), device=student.device)
    return _cross_entropy(student, other, weights, temperature)


def ibot_loss(student: Tensor, targets: Tensor, masked: Tensor, temperature: float = 0.1) -> Tensor:
    """What the student says of hidden patches against what the teacher, who sees them, says: a scalar.

    1/2b Σ_j w_j · -Σ_k targets_jk log softmax(student_j / temperature)_k, with w_j = 1 / hidden patches of j's crop:
    the mean over all crops of the means over their hidden patches. A crop without any counts as 0.

    Args:
        student: Logits of the student's hidden patches (m, K), in the order of ``masked.nonzero()``; m may be 0.
        targets: Distributions of the teacher's patches at the same places (m, K).
        masked: Which patches are hidden (2b, N).
        temperature: Of the student.
    """
    counts = masked.sum(dim=1)
    weights = (1 / counts).repeat_interleave(counts, output_size=len(student))  # its length given: no wait for a GPU
    return _cross_entropy(student, targets, weights / len(masked), temperature)


def koleo_loss(cls: Tensor) -> Tensor:
    """Class tokens kept apart from their nearest neighbours: the mean of -log distance, (b, D) -> a scalar.

    1/b Σ_i -log(‖x_i - x_nn(i) + 1e-4‖ + 1e-8) of features x of length 1. The neighbour is the nearest by cosine of all
    other images' of all processes, so that their number changes nothing; the published training took each GPU's by
    themselves, where neighbours are farther apart. Of a single image the loss is 0.
    """
    with torch.autocast(cls.device.type, enabled=False):
        own = functional.normalize(cls.float(), dim=1)
        others = gathered(own)
        if len(others) < 2:
            return 0 * own.sum()
        with torch.no_grad():
            cosines = own @ others.T  # (b, b · world)
            cosines.diagonal(rank() * len(own)).fill_(-torch.inf)  # not its own neighbour
            nearest = cosines.argmax(dim=1)
        distances = torch.linalg.vector_norm(own - others[nearest] + KOLEO_SHIFT, dim=1)
        apart: Tensor = (distances + 1e-8).log().mean()
        return -apart


def target_entropy(targets: Tensor) -> float:
    """The mean entropy of distributions (n, K) of all processes in nats: 0 if all are certain, ln K if all are even."""
    entropies = torch.special.entr(targets.float()).sum()
    total, n = summed(torch.stack([entropies, entropies.new_tensor(len(targets))]))
    return float(total / n.clamp(min=1))


def _cross_entropy(student: Tensor, targets: Tensor, weights: Tensor, temperature: float) -> Tensor:
    """-Σ_j w_j Σ_k targets_jk log softmax(student_j / temperature)_k: (n, K), (n, K), (n,) -> a scalar."""
    with torch.autocast(student.device.type, enabled=False):
        loss: Tensor = _CrossEntropy.apply(student, targets, weights, temperature)
        return loss


class _CrossEntropy(torch.autograd.Function):
    """The loss and its gradient, a few rows at a time.

    With 65,536 prototypes a step's logits do not fit into a processor's cache, and each array of float32 beside them is
    one more to fetch, or on a GPU to keep until the gradient. So all that is kept of them is the gradient, in the
    logits' own number type: w_j (softmax(z_j) Σ_k t_jk - t_j) / temperature of z = student / temperature.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, targets: Tensor, weights: Tensor, temperature: float) -> Tensor:
        """The loss in float32."""
        loss = torch.zeros((), device=student.device)
        gradient = torch.empty_like(student) if ctx.needs_input_grad[0] else None
        numbers = AT_ONCE if student.device.type == "cpu" else AT_ONCE_ON_A_GPU
        step = max(1, numbers // max(1, student.shape[1]))
        for start in range(0, len(student), step):
            rows = slice(start, start + step)
            logits = student[rows].to(torch.float32, copy=True).div_(temperature)
            target, weight = targets[rows].float(), weights[rows].float().unsqueeze(1)
            log_sums = logits.logsumexp(dim=1, keepdim=True)
            totals = target.sum(dim=1, keepdim=True)
            loss += (weight * (totals * log_sums - (target * logits).sum(dim=1, keepdim=True))).sum()
            if gradient is not None:
                slopes = logits.sub_(log_sums).exp_().mul_(totals).sub_(target)
                gradient[rows] = slopes.mul_(weight / temperature)
        ctx.save_for_backward(gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        """Of the student alone."""
        (gradient,) = ctx.saved_tensors
        return gradient * upstream, None, None, None
