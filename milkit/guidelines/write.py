"""VERB run -> guideline drafts: checklists, Table 1, flow of patients and model card, in the report's folder."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pandas as pd

from milkit.bags import source_texts
from milkit.errors import RunError
from milkit.guidelines import claim, model_card, tripod_ai
from milkit.guidelines.answers import ANSWERS, keep_answers, read_answers
from milkit.guidelines.flow_figure import flow_steps, flow_svg
from milkit.guidelines.items import answered, open_keys
from milkit.guidelines.pages import Draft, draft_markdown, draft_page, numbers_page, table_page
from milkit.guidelines.questions import QUESTIONS
from milkit.guidelines.sentences import NUMBERS
from milkit.guidelines.study import Study
from milkit.guidelines.table_one import table_one
from milkit.privacy.gate import keep_allowed, release
from milkit.report.folder import without_formulas
from milkit.runs import write_text
from milkit.tables import write_table

FOLDER = "guidelines"


class Drafts(NamedTuple):
    """What was written.

    Attributes:
        folder: With the drafts.
        answers: The file that people answer in.
        open: Keys of the questions that are open, in the order of the drafts.
    """

    folder: Path
    answers: Path
    open: list[str]

    def refusal(self) -> str:
        """Why the drafts are not final, as one sentence; empty where they are."""
        if not self.open:
            return ""
        one = len(self.open) == 1
        return (
            f"{len(self.open)} answer{' is' if one else 's are'} open in {self.answers}, the first being "
            f"'{self.open[0]}', where final drafts have none; write {'it' if one else 'them'} there and call again."
        )


def write_guidelines(run: Path, *, allow_identifiers: str = "") -> Drafts:
    """Write ``<run>/report/guidelines/`` and, where it is not there yet, ``<run>/guidelines.yaml``.

    Each file is whole or not at all; files in the folder that are not ours stay. A run on any target is taken. What
    comes from the data is looked through for what may tell who a patient is before anything is written; what people
    answered is not, since answers name dates and people.

    Raises:
        RunError: A folder that is no finished run, or a store without its patients.
        UnknownName: An answer to a question that there is not.
        SettingsError: Answers that cannot be read.
        PrivacyError: Identifiers were found, and ``allow_identifiers`` gives no reason.
    """
    if not run.is_dir():
        msg = f"There is no run at {run}; make one with `milkit train-mil`, or name another."
        raise RunError(msg)
    study = Study.read(run)
    answers = read_answers(run / ANSWERS)
    with TemporaryDirectory(prefix=".guidelines.new-", dir=run) as place:
        _write(Path(place), study, dict.fromkeys(QUESTIONS, ""))
        known = source_texts(study.store)
        allowed = release(Path(place), "draft of guidelines", reason=allow_identifiers, known=known)
    keep_answers(run / ANSWERS)
    questions = _write(run / "report" / FOLDER, study, answers)
    keep_allowed(run / "provenance.json", allowed)
    return Drafts(run / "report" / FOLDER, run / ANSWERS, questions)


def _write(folder: Path, study: Study, answers: Mapping[str, str]) -> list[str]:
    """Write all files, and return the keys of the open questions."""
    report = study.run / "report" / "report.html"
    about = {
        "cohort": str(study.value("provenance.json", "cohort") or "unnamed cohort"),
        "run": study.run.resolve().name,
        "report": "../report.html" if report.is_file() else "",
    }
    drafts = [
        Draft(name, source.TITLE, source.CITATION, answered(source.ITEMS, study, answers))
        for name, source in (("tripod_ai", tripod_ai), ("claim", claim), ("model_card", model_card))
    ]
    for draft in drafts:
        write_text(folder / f"{draft.name}.html", draft_page(draft, about))
    write_text(folder / "model_card.md", draft_markdown(drafts[-1], about))
    table, flow = table_one(study), flow_svg(flow_steps(study))
    write_table(folder / "table1.csv", _without_formulas(table.frame()))
    write_text(folder / "flow.svg", f'<?xml version="1.0" encoding="utf-8"?>\n{flow}')
    write_text(folder / "table1.html", table_page(table, flow, about))
    figures = sorted(study.quoted.values(), key=lambda one: (one.file, one.where, one.form))
    write_text(folder / NUMBERS, numbers_page(figures, about))
    return list(dict.fromkeys(key for draft in drafts for key in open_keys(draft.items)))


def _without_formulas(table: pd.DataFrame) -> pd.DataFrame:
    """In the header, too: it holds names of classes."""
    header = without_formulas(pd.DataFrame([list(table.columns)])).iloc[0].tolist()
    return without_formulas(table).set_axis(header, axis=1)
