"""A figure with its interval as text, the same wherever people read one: report, command line, sentences, plots."""

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

Figure = Mapping[str, Any]
"""Of ``metrics.json`` and its like: ``estimate``, ``ci_low``, ``ci_high``; None or NaN where undefined."""


def with_interval(figure: Figure, form: str = ".2f", *, level: float | None = None, nothing: str = "–") -> str:
    """``0.87 (0.80 to 0.93)``, each number in that form.

    Args:
        figure: The figure.
        form: Of every number.
        level: Coverage of the interval, where the text is to say it: ``0.87 (95 % CI 0.80 to 0.93)``.
        nothing: In the place of a figure, or of a limit beside a known one, that is undefined.
    """
    estimate, low, high = (_known(figure.get(key)) for key in ("estimate", "ci_low", "ci_high"))
    if estimate is None:
        return nothing
    if low is None and high is None:
        return _formatted(estimate, form)
    what = "" if level is None else f"{100 * level:g} % CI "
    ends = " to ".join(nothing if end is None else _formatted(end, form) for end in (low, high))
    return f"{_formatted(estimate, form)} ({what}{ends})"


def listed(names: Sequence[str], limit: int | None = None) -> str:
    """``a, b and c``; beyond the limit, how many more there are; ``none`` of nothing."""
    if limit is not None and len(names) > limit:
        return f"{', '.join(names[:limit])} and {len(names) - limit} more"
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part) if names else "none"


def capital(text: str) -> str:
    """With a capital first letter, the others as they are."""
    return text[:1].upper() + text[1:]


def _formatted(value: float, form: str) -> str:
    """Without a sign of minus before what is rounded to 0."""
    text = f"{value:{form}}"
    return f"{0.0:{form}}" if not text.strip("+-0.") else text


def _known(value: float | None) -> float | None:
    return None if value is None or isnan(value) else float(value)
