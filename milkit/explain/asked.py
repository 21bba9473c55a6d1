"""What a question about a run asks of each of its heads: which outputs, and what is made of them."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from milkit.explain.parts import EVERY_CLASS, Asked
from milkit.explain.question import Question
from milkit.target_choice import described_target
from milkit.targets import Classes, Regression, Target


def asked_of(facts: Mapping[str, Any], question: Question) -> Asked:
    """What the question asks of a head that was saved with these facts."""
    if question.target is None:
        return EVERY_CLASS
    names = [one["name"] for one in facts["targets"]]
    place = names.index(question.target["name"])
    first, one = n_outputs({"targets": facts["targets"][:place]}), facts["targets"][place]
    target = described_target(one)
    number = None if isinstance(target, Classes) else partial(_number, target, torch.tensor(one["fitted"]))
    unit = float(one["fitted"][1]) if isinstance(target, Regression) else 1.0
    return Asked(slice(first, first + len(one["outputs"])), number, unit)


def n_outputs(facts: Mapping[str, Any]) -> int:
    """Of a head that was saved with these facts."""
    return sum(len(one["outputs"]) for one in facts["targets"]) if "targets" in facts else len(facts["classes"])


def _number(target: Target, fitted: Tensor, outputs: Tensor) -> Tensor:
    return target.scores(outputs, fitted.to(outputs.device))[:, 0]
