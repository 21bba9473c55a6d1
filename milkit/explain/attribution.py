"""Four answers to how much a cell matters to one held-out head: a score for every class and cell of a bag.

``attention``             a_i, the weight in the pooling; one for all classes, or one a class, as the head has it
``leave_one_out``         F_c(bag) - F_c(bag without i): what the class loses with the cell, exactly
``integrated_gradients``  the cell's share of F_c(bag) - F_c(baseline) (``milkit.explain.gradients``)
``single_cell``           F_c({i}): what the head says of the cell as a bag of its own

F_c is the log-odds of class c (``parts.log_odds``), or what stands in its place (``parts.Asked``). Attention is never
negative and does not say which class a cell speaks for; the others are signed. Leaving out one cell of many of a kind
changes little, since the others stand in for it, and where attention is on that kind alone its less typical cells even
seem to weaken the class: the more a head is sure of a kind of cell, the less leaving single ones out tells of it. The
percentile of a cell is its place among the patient's cells and not a probability. None of the four says that a cell
causes anything: they say what a head weighs.
"""

import torch
from torch import Tensor

from milkit.explain.gradients import integrated_gradients
from milkit.explain.parts import Bagged

METHODS = ("attention", "leave_one_out", "integrated_gradients", "single_cell")


def attribute(bag: Bagged, method: str, *, steps: int = 32) -> Tensor:
    """The score of every cell by one of ``METHODS``, (C, N); attention that is shared by the classes is (1, N)."""
    match method:
        case "attention":
            return bag.attention()
        case "leave_one_out":
            return leave_one_out(bag)
        case "integrated_gradients":
            return integrated_gradients(bag, steps)
        case "single_cell":
            return bag.asked.answers(bag.single_cells()).T
    msg = f"there is no method '{method}'"
    raise ValueError(msg)


def leave_one_out(bag: Bagged) -> Tensor:
    """What each class's log-odds lose without each cell, (C, N); 0 for an only cell, which cannot be left out."""
    whole = bag.asked.answers(bag.whole())
    if bag.n_cells == 1:
        return torch.zeros_like(whole)[:, None]
    return (whole - bag.asked.answers(bag.leave_one_out())).T
