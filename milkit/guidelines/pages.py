"""The drafts as pages and as Markdown. Escaping is always on: text from data and from people never becomes markup."""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment
from markupsafe import Markup

from milkit.guidelines.answers import ANSWERS, TODO
from milkit.guidelines.items import Answered, Question, open_keys
from milkit.guidelines.sentences import Figure, as_html, as_markdown, plain_markdown
from milkit.guidelines.table_one import TableOne
from milkit.report.templates import offline_templates

_HERE = Path(__file__).parent
_ELSEWHERE = " of the store"
"""How files are named that lie where a link from the drafts does not reach."""


class Draft(NamedTuple):
    """A checklist or the model card: name of its file, title, source, and its items with what is known of them."""

    name: str
    title: str
    citation: str
    items: list[Answered]


def draft_page(draft: Draft, about: Mapping[str, str]) -> str:
    """A checklist, or the model card, as HTML.

    Args:
        draft: What it shows.
        about: ``cohort`` and ``run`` by name, and the link to the ``report``, empty where there is none.
    """
    return _templates().get_template("checklist.html.j2").render(
        **about,
        draft=draft,
        sections=[(name, list(group)) for name, group in groupby(draft.items, key=lambda one: one.item.section)],
        n_open_items=sum(one.open for one in draft.items),
        n_open=len(open_keys(draft.items)),
    )  # fmt: skip


def draft_markdown(draft: Draft, about: Mapping[str, str]) -> str:
    """The same as Markdown."""
    lines = [
        f"# {draft.title}: {plain_markdown(about['cohort'])}",
        "",
        f"Run {plain_markdown(about['run'])}. After {plain_markdown(draft.citation)}",
    ]
    section = ""
    for one in draft.items:
        if one.item.section != section:
            section = one.item.section
            lines += ["", f"## {section}"]
        lines += ["", f"### {one.item.topic}", ""]
        lines += [f"- {as_markdown(sentence)}" for sentence in one.sentences]
        lines += [line for question in one.questions for line in _markdown(question)]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def table_page(table: TableOne, flow: str, about: Mapping[str, str]) -> str:
    """The flow of patients and Table 1.

    Args:
        table: Table 1.
        flow: The figure, as SVG.
        about: ``cohort`` and ``run`` by name, and the link to the ``report``, empty where there is none.
    """
    rows = [(name, list(group)) for name, group in groupby(table.rows, key=lambda row: row.characteristic)]
    return _templates().get_template("table1.html.j2").render(**about, table=table, rows=rows, flow=Markup(flow))


def numbers_page(figures: Sequence[Figure], about: Mapping[str, str]) -> str:
    """Every number that the drafts quote, in full, with where it stands."""
    rows = [
        (figure, _in_full(figure), "" if figure.file.endswith(_ELSEWHERE) else f"../../{figure.file}")
        for figure in figures
    ]
    return _templates().get_template("numbers.html.j2").render(**about, rows=rows)


def _in_full(figure: Figure) -> str:
    if not isinstance(figure.value, Mapping):
        return str(figure.value)
    return ", ".join(f"{key} {figure.value.get(key)}" for key in ("estimate", "ci_low", "ci_high"))


def _paragraphs(answer: str) -> list[str]:
    return [part.strip() for part in re.split(r"\n\s*\n", answer) if part.strip()]


def _markdown(question: Question) -> list[str]:
    if question.open:
        return ["", f"**{TODO}** {plain_markdown(question.hint)} (`{question.key}` in {ANSWERS})"]
    return [line for part in _paragraphs(question.answer) for line in ("", plain_markdown(part))]


@lru_cache(maxsize=1)
def _templates() -> Environment:
    templates = offline_templates(_HERE, "guidelines.js", "guidelines.css")
    templates.filters |= {"sentence": as_html, "paragraphs": _paragraphs}
    templates.globals |= {"answers": ANSWERS, "todo": TODO}
    return templates
