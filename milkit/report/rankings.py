"""Whether the order of the cells can be believed: what `milkit explain` found for the run, as rows and sentences.

``milkit.explain.verb.explain`` documents ``faithfulness.json``, from which all of it comes.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from milkit.explain.verdicts import Verdicts
from milkit.figure_text import capital, with_interval
from milkit.report.controls import signed
from milkit.report.summary import listed
from milkit.report.tables import Table

SHOWN = "attention"
"""The ranking by which the galleries are ordered."""
METHODS = {
    "attention": "Attention, as shown here",
    "leave_one_out": "Leaving one cell out",
    "integrated_gradients": "Integrated gradients",
    "single_cell": "Each cell alone",
}
"""Rankings by their names in the file, and what they are called."""
PAIRS = {"seeds": "other seeds", "repeats": "other folds"}
"""What two models that are compared differ in."""

UNTESTED = "Whether the model goes by this order was not tested: `milkit explain` was not run"


class Order(NamedTuple):
    """What is said of the order of one patient's cells.

    Attributes:
        sentence: Of the ranking over all patients.
        faithful: Whether it beats random orders over all patients.
        here: Whether it does in this patient taken alone.
    """

    sentence: str
    faithful: bool
    here: bool

    @property
    def mark(self) -> str:
        """What stands at the cells that weigh most; empty where nothing speaks against them."""
        if not self.faithful:
            return "✗ not faithful"
        return "" if self.here else "✗ not faithful in this patient"


class Rankings(NamedTuple):
    """What the page says of the order of the cells.

    Attributes:
        faithful: Whether it beats random orders over all patients; None where that was not tested.
        sentences: The verdict, or that there is none; then what single patients and known cells say.
        table: Every ranking that was tested; None where none was.
    """

    faithful: bool | None
    sentences: list[str]
    table: Table | None


def orders(verdicts: Verdicts | None) -> dict[str, Order]:
    """By patient id; empty where the order of the galleries was not tested."""
    faithful = verdicts.faithful(SHOWN) if verdicts else None
    if verdicts is None or faithful is None:
        return {}
    sentence = verdicts.sentence(SHOWN)
    return {name: Order(sentence, faithful, here) for name, here in verdicts.of_patients(SHOWN).items()}


def shown_rankings(verdicts: Verdicts | None) -> Rankings:
    """The page's part, of the galleries' order first."""
    if verdicts is None:
        return Rankings(None, [f"{UNTESTED}."], None)
    table = _table(verdicts.told)
    faithful = verdicts.faithful(SHOWN)
    if faithful is None:
        return Rankings(None, [f"{UNTESTED} for {SHOWN}."], table)
    here = list(verdicts.of_patients(SHOWN).values())
    others = "; the others are marked" if not all(here) else ""
    alone = f"Taken alone, {sum(here)} of {len(here)} patients have a faithful order{others}."
    known = _known_cells(verdicts.told["methods"][SHOWN].get("known_cells"), _level(verdicts.told))
    return Rankings(faithful, [verdicts.sentence(SHOWN), *_asked(verdicts.told), alone, *known], table)


def _asked(told: Mapping[str, Any]) -> list[str]:
    """What a prediction is where it is no class."""
    target = _number(told)
    if target is None:
        return []
    return [
        f"What is moved is the {target} that the models predict, up in patients above the middle prediction and down "
        "in the others."
    ]


def _number(told: Mapping[str, Any]) -> str | None:
    """What the models predict where it is no class: the risk, or a number by its name."""
    target = told.get("target")
    if target is None or target["kind"] == "classes":
        return None
    return str(target["name"]) if target["kind"] == "regression" else "risk"


def _known_cells(found: Mapping[str, Any] | None, level: str) -> list[str]:
    """How well the order finds cells of which an expert, or who planted them, says that they matter."""
    if found is None:
        return []
    shares = [f"{found['prevalence']:.2f} among all cells of these patients"]
    shares += [f"{with_interval(value)} among the first {k}" for k, value in found["precision"].items()]
    return [
        f"In {found['n_patients']} patients it is known which cells matter (planted ones, or those that an expert "
        f"labelled so): this order finds them with average precision {with_interval(found['average_precision'])}, a "
        f"random one with {found['average_precision_random']:.2f}. Their share is {listed(shares)} ({level} CI)."
    ]


def _table(told: Mapping[str, Any]) -> Table:
    """A ranking a row; columns that no ranking fills are left out."""
    level, top = _level(told), told["settings"]["top"]
    moved = capital(_number(told) or "log-odds")
    header = ["Cells ordered by", "Verdict", "Random orders beaten", f"{moved} moved beyond chance ({level} CI)"]
    header += [f"Overlap (Jaccard) of the top {top}, {name} ({level} CI); chance" for name in PAIRS.values()]
    header += [f"Known cells, average precision ({level} CI); random order"]
    rows = [_row(name, method) for name, method in told["methods"].items()]
    filled = [column for column in range(len(header)) if any(row[column] for row in rows)]
    picked = [[row[column] or "–" for column in filled] for row in rows]
    return Table("How far the order of the cells can be believed", [header[column] for column in filled], picked)


def _row(name: str, method: Mapping[str, Any]) -> list[str]:
    verdict = "faithful" if method["faithful"] else "✗ not faithful"
    row = [METHODS.get(name, name), verdict, f"{method['beats_random']} of {method['n_random']}"]
    row.append(signed(method["advantage"]))
    for kind in PAIRS:
        pair = method["agreement"].get(kind)
        shared = pair and pair["jaccard"]
        row.append(f"{with_interval(shared)}; {pair['jaccard_chance']['estimate']:.2f}" if shared else "")
    found = method.get("known_cells")
    precision = with_interval(found["average_precision"]) if found else ""
    return [*row, f"{precision}; {found['average_precision_random']:.2f}" if found else ""]


def _level(told: Mapping[str, Any]) -> str:
    return f"{100 * float(told['settings']['level']):g} %"
