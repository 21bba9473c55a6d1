"""A figure as text: its forms, and what is undefined."""

import pytest

from milkit.figure_text import listed, with_interval

WHOLE = {"estimate": 0.871, "ci_low": 0.8, "ci_high": 0.934}


@pytest.mark.parametrize(
    ("figure", "options", "text"),
    [
        (WHOLE, {}, "0.87 (0.80 to 0.93)"),
        (WHOLE, {"level": 0.95}, "0.87 (95 % CI 0.80 to 0.93)"),
        (WHOLE, {"form": "+.1f"}, "+0.9 (+0.8 to +0.9)"),
        ({**WHOLE, "ci_low": None, "ci_high": float("nan")}, {"level": 0.95}, "0.87"),
        ({**WHOLE, "ci_high": None}, {"nothing": "-"}, "0.87 (0.80 to -)"),
        ({"estimate": None}, {}, "–"),
        ({}, {"nothing": "undefined"}, "undefined"),
        ({"estimate": -0.001, "ci_low": -0.004, "ci_high": 0.02}, {"form": "+.2f"}, "+0.00 (+0.00 to +0.02)"),
    ],
)
def test_a_figure_is_written_with_its_interval(figure: dict, options: dict, text: str) -> None:
    assert with_interval(figure, **options) == text


def test_names_are_listed_as_people_say_them() -> None:
    assert [listed(list("abc")[:n]) for n in range(4)] == ["none", "a", "a and b", "a, b and c"]
    assert listed(list("abcd"), limit=2) == "a, b and 2 more"
