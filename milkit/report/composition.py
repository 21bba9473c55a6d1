"""The types of the cells, of whole bags beside those that weigh most: the run's ``composition.json`` as rows and words.

``milkit.composition.verb`` makes the file and documents it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from milkit.explain.verdicts import Verdicts
from milkit.figure_text import capital, with_interval
from milkit.report.rankings import SHOWN
from milkit.report.tables import Table

BAG, UNKNOWN = "bag", "unknown"
RANKINGS = {
    "attention": "attention",
    "leave_one_out": "leaving one cell out",
    "integrated_gradients": "integrated gradients",
    "single_cell": "each cell alone",
}
"""Rankings by their names in the file, and what they are called in the head of a column."""
NOT_FAITHFUL = "✗ not faithful"

Row = Mapping[str, Any]


class Differential(NamedTuple):
    """One patient's types; ``few`` says how few cells they rest on, empty where these are enough."""

    table: Table
    few: str


class OfClass(NamedTuple):
    """The patients whom the models predicted one class of.

    Attributes:
        name: The class.
        who: How many patients, and of how many it is the label; a half of a number is nobody's label.
        shown: Every type, in the bags and among the cells that the galleries show first.
        others: The same types by the other rankings; None where `milkit explain` was not run.
    """

    name: str
    who: str
    shown: Table
    others: Table | None


class Composition(NamedTuple):
    """The page's part.

    Attributes:
        sentences: How the cells came by their types.
        warnings: What should make a reader careful.
        doubts: Of rankings that are not faithful, one sentence each.
        classes: In the order of the run.
        typing: How the labelled cells of each type fared.
        assumptions: What intervals and tests take for granted.
    """

    sentences: Sequence[str]
    warnings: Sequence[str]
    doubts: Sequence[str]
    classes: Sequence[OfClass]
    typing: Table
    assumptions: Sequence[str]


def shown_composition(found: Mapping[str, Any], verdicts: Verdicts | None) -> Composition | None:
    """The page's part; None where the run has none."""
    if not found:
        return None
    level, rate = _level(found), float(found["settings"]["false_discovery_rate"])
    doubted = [name for name in found["rankings"] if _faithful(name, verdicts) is False]
    doubts = [
        f"The order by {RANKINGS.get(name, name)} is not faithful: what is enriched at its top is what it holds up, "
        "not what the predictions go by."
        for name in doubted
    ]
    others = [name for name in found["rankings"] if name != SHOWN]
    classes = []
    for name, of_class in found["classes"].items():
        if not of_class["n_patients"]:
            continue
        n, right = of_class["n_patients"], of_class["n_labelled_so"]
        who = f"{n} patient{'' if n == 1 else 's'} predicted so"
        who += "" if right is None else f", {right} of them with that label"
        others_table = _others(name, of_class, others, doubted, found["types"]) if others else None
        shown = _shown(name, of_class, found, level, rate, doubted=SHOWN in doubted)
        classes.append(OfClass(name, who, shown, others_table))
    typing = _typing(found["typing"]["types"], found["typing"]["untaught"])
    return Composition(found["sentences"], found["warnings"], doubts, classes, typing, found["assumptions"])


def differentials(found: Mapping[str, Any], verdicts: Verdicts | None) -> dict[str, Differential]:
    """Every patient's table, by patient id."""
    if not found:
        return {}
    rankings, level, enough = list(found["rankings"]), _level(found), int(found["settings"]["enough"])
    faithful = {name: verdicts.of_patients(name) if verdicts else {} for name in rankings}
    result = {}
    for patient in found["patients"]:
        name, n_typed = patient["patient_id"], int(patient["n_typed"])
        rows = {part: {row["cell_type"]: row for row in patient["differential"] if row["cells"] == part}
                for part in (BAG, *rankings)}  # fmt: skip
        sizes = {part: next(iter(own.values()))["n_cells"] if own else 0 for part, own in rows.items()}
        header = ["Type", f"All {sizes[BAG]:,} cells ({level})"]
        for ranking in rankings:
            doubt = _faithful(ranking, verdicts) is False or faithful[ranking].get(name) is False
            header.append(_headed(f"Top {sizes[ranking]} by {RANKINGS.get(ranking, ranking)}", doubted=doubt))
        header[2:3] = [f"{header[2]} ({level})"]
        body = []
        for kind in _ordered(rows[BAG], found["types"]):
            counts = [_counted(rows[part].get(kind)) for part in (BAG, rankings[0])]
            counts += [str(rows[part][kind]["count"]) if kind in rows[part] else "–" for part in rankings[1:]]
            body.append([kind, *counts])
        few = f"Only {n_typed:,} typed cells: fewer than {enough}, so shares are rough." if n_typed < enough else ""
        result[name] = Differential(Table(f"Types of the cells of {name}", header, body), few)
    return result


def _shown(name: str, of_class: Row, found: Row, level: str, rate: float, *, doubted: bool) -> Table:
    """A class: each type's share in the bags and at the top, and whether they differ."""
    shares = {(row["cells"], row["cell_type"]): row for row in of_class["differential"]}
    tested = {row["cell_type"]: row for row in of_class["enrichment"] if row["ranking"] == SHOWN}
    top = _headed(f"Share of the top {found['settings']['top']}", doubted=doubted)
    header = ["Type", f"Share of all cells ({level})", f"{top} ({level})", f"Enrichment ({level})"]
    header += ["Patients with more / fewer", "Adjusted p", f"At the top, FDR {100 * rate:g}\u00a0%"]
    body = []
    for kind in _ordered({kind: row for (part, kind), row in shares.items() if part == BAG}, found["types"]):
        row = [kind, _share(shares.get((BAG, kind))), _share(shares.get((SHOWN, kind)))]
        body.append([*row, *_enriched(tested.get(kind), rate)])
    return Table(f"Types of the cells of patients predicted {name}", header, body)


def _others(name: str, of_class: Row, rankings: Sequence[str], doubted: Sequence[str], types: Sequence[str]) -> Table:
    """The enrichment of each type by the other rankings."""
    tested = {(row["ranking"], row["cell_type"]): row for row in of_class["enrichment"]}
    bag = {row["cell_type"]: row for row in of_class["differential"] if row["cells"] == BAG}
    header = ["Type", *(_headed(capital(RANKINGS.get(one, one)), doubted=one in doubted) for one in rankings)]
    body = [[kind, *(_brief(tested.get((one, kind))) for one in rankings)] for kind in _ordered(bag, types)]
    return Table(f"Enrichment of types by other rankings, patients predicted {name}", header, body)


def _typing(types: Row, untaught: Row) -> Table:
    header = ["Type", "Labelled cells", "Given this type", "Unknown", "Right, of those given it"]
    header += ["Unknown if it is not taught"] if untaught else []
    body = []
    for name, own in types.items():
        row = [name, f"{own['n']:,}", _rounded(own["found"]), _rounded(own["unknown"]), _rounded(own["right_of_given"])]
        body.append([*row, *([_rounded(untaught.get(name, {}).get("unknown"))] if untaught else [])])
    return Table("How the labelled cells were typed by cells of others", header, body)


def _enriched(row: Row | None, rate: float) -> list[str]:
    if row is None:
        return ["–", "–", "–", ""]
    p = row["p_adjusted"]
    found = "" if p is None or p > rate else "more" if row["enrichment"] > 1 else "fewer"
    return [_ratio(row), f"{row['more']} / {row['fewer']}", _p(p), found]


def _brief(row: Row | None) -> str:
    return "–" if row is None else f"{_ratio(row)}; p {_p(row['p_adjusted'])}"


def _ratio(row: Row) -> str:
    ends = {"ci_low": row["enrichment_low"], "ci_high": row["enrichment_high"]}
    return with_interval({"estimate": row["enrichment"], **ends})


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.3f}" if value >= 0.001 else "< 0.001"


def _ordered(bag: Mapping[str, Row], types: Sequence[str]) -> list[str]:
    """The most frequent first, and what is unknown last."""
    known = [name for name in types if name in bag and name != UNKNOWN]
    known.sort(key=lambda name: -float(bag[name]["share"]))
    return [*known, *([UNKNOWN] if UNKNOWN in bag else [])]


def _counted(row: Row | None) -> str:
    return "–" if row is None else f"{row['count']:,} · {_share(row)}"


def _share(row: Row | None) -> str:
    if row is None:
        return "–"
    share, low, high = row["share"], row["ci_low"], row["ci_high"]
    interval = "" if low is None or high is None else f" ({100 * low:.0f} to {100 * high:.0f})"
    return f"{100 * share:.0f} %{interval}"


def _rounded(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _headed(text: str, *, doubted: bool) -> str:
    return f"{text}, {NOT_FAITHFUL}" if doubted else text


def _faithful(ranking: str, verdicts: Verdicts | None) -> bool | None:
    return verdicts.faithful(ranking) if verdicts else None


def _level(found: Mapping[str, Any]) -> str:
    return f"{100 * float(found['settings']['level']):g}\u00a0%\u00a0CI"
