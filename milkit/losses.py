"""What training lowers, for each kind of target: functions of a network's outputs and of what happened.

All are computed in float64, take only patients whose outcome is known, and return one number: a mean over them, or over
those with an event. Letters: n patients, C classes, K bins of time.
"""

import torch
from torch import Tensor
from torch.nn import functional


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """The class-weighted mean of -log softmax(logits)_label: (n, C), (n,) int, (C,); 0 where no weight is left."""
    own = weights[labels]
    losses = functional.cross_entropy(logits.double(), labels, reduction="none")
    return (own * losses).sum() / own.sum().clamp(min=1e-12)


def squared_error(values: Tensor, expected: Tensor) -> Tensor:
    """The mean of (value - expected)², (n,) and (n,)."""
    return (values.double() - expected.double()).square().mean()


def cox(risk: Tensor, time: Tensor, event: Tensor) -> Tensor:
    """Minus the log partial likelihood of Cox's model per event, with Efron's treatment of ties: each (n,).

        -1/d Σ over times t with d_t events of
            Σ_{i in D_t} risk_i - Σ_{l = 0}^{d_t - 1} log(Σ_{j in R_t} e^risk_j - l / d_t Σ_{j in D_t} e^risk_j)

    D_t had the event at t, R_t was still followed then, who was censored at t included, d is the number of all events
    (Cox 1972, JRSS B 34:187; ties: Efron 1977, JASA 72:557, as lifelines and R's coxph have them; without ties it is
    Breslow's, too). Every patient is compared with all others, so that a part of them has another loss than a share of
    the whole: a training step takes all training patients. ``event`` is bool; 0 where there is no event.
    """
    risk, time = risk.double(), time.double()
    at, own = time[event], risk[event]
    if not len(at):
        return risk.sum() * 0.0
    follows = time[None, :] >= at[:, None]  # (events, n)
    dies = event[None, :] & (time[None, :] == at[:, None])
    # The position l of each event among those at its time; their order does not matter.
    position = torch.tril(at[:, None] == at[None, :], diagonal=-1).sum(dim=1)
    share = (position / dies.sum(dim=1))[:, None]
    weights = follows.double() - share * dies
    return ((risk[None, :] + weights.log()).logsumexp(dim=1) - own).mean()


def discrete_time(logits: Tensor, time: Tensor, event: Tensor, ends: Tensor) -> Tensor:
    """Minus the mean log likelihood of hazards in bins of time: (n, K), (n,), (n,) bool, (K,) ends of the bins.

        h_k = sigmoid(logit_k),    loss_i = -Σ_{k survived by i} log(1 - h_k) - [event in bin k] log h_k

    Bin k holds the times above ends_{k-1} up to ends_k. Who has an event has survived the bins before its own; who is
    censored, the bins that ended by then, so that a bin in which follow-up ended counts for nothing. Of those followed
    beyond the last end only that they survived is used (Gensheimer and Narasimhan 2019, PeerJ 7:e6257; censoring
    rounded down as in Kvamme and Borgan 2021, Lifetime Data Analysis 27:710).
    """
    logits, time, ends = logits.double(), time.double()[:, None], ends.double()[None, :]
    ended = torch.where(event[:, None], ends < time, ends <= time)  # (n, K)
    first = torch.cat([torch.full_like(ends[:, :1], -torch.inf), ends[:, :-1]], dim=1)
    died = event[:, None] & (first < time) & (time <= ends)
    losses = ended * functional.softplus(logits) + died * functional.softplus(-logits)
    return losses.sum(dim=1).mean()


def restricted_mean(logits: Tensor, ends: Tensor) -> Tensor:
    """Mean time without event up to the end of the last bin, of hazards in bins: (n, K), (K,) -> (n,).

        μ = Σ_k (ends_k - ends_{k-1}) (S_{k-1} + S_k) / 2,    S_k = Π_{j <= k} (1 - h_j),  S_0 = 1,  ends_0 = 0

    The area under the survival curve, which is straight within a bin (Royston and Parmar 2013, BMC Medical Research
    Methodology 13:152). Hazards of bins that nobody like a patient has lived to see hardly count.
    """
    survival = (-functional.softplus(logits.double()).cumsum(dim=1)).exp()
    before = torch.cat([torch.ones_like(survival[:, :1]), survival[:, :-1]], dim=1)
    widths = torch.diff(ends.double(), prepend=torch.zeros_like(ends[:1]).double())
    return (widths * (before + survival) / 2).sum(dim=1)
