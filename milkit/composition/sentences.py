"""What a differential says to a person, and what it warns of."""

from collections.abc import Mapping
from typing import Any

_MORE_UNLIKE = 2.0
"""How many times more cells than expected may be unlike the labelled ones before it is warned of."""


def sentences(result: Mapping[str, Any]) -> list[str]:
    """How the cells of ``composition.json`` came by their types, and how far that holds."""
    labelled, typing, cells = result["labelled"], result["typing"], result["cells"]
    source = f"labelled cells of {'the cohort itself' if labelled['own'] else labelled['cohort']}"
    among = f", translated by the taxonomy {result['taxonomy']['name']}" if result["taxonomy"] else ""
    others = f"cells of other {labelled['unit']}" if labelled["unit"] != "cells" else "other cells"
    return [
        f"{cells['n_typed']:,} of {cells['n']:,} cells were given one of {len(labelled['types'])} types by a linear "
        f"probe of {labelled['n_cells']:,} {source}{among}, under {result['encoder']}; the others are unknown "
        f"({_per_cent(cells['unsure'])} of all as no type is likely enough, {_per_cent(cells['unlike'])} as they are "
        "unlike the labelled cells of their type).",
        f"Of the labelled cells, each typed by {others}, {_share(typing['typed'], result)} were given a type, and "
        f"{_share(typing['accuracy'], result)} of these the right one{_assumed(labelled)}.",
        *_grouped(result),
        *_known(result),
        *_untaught(typing["untaught"]),
    ]


def warnings(result: Mapping[str, Any]) -> list[str]:
    """What should make a reader of the differential careful."""
    labelled, typing, cells, settings = (result[name] for name in ("labelled", "typing", "cells", "settings"))
    found = []
    if few := result["few"]:
        n = len(result["patients"])
        found.append(
            f"{len(few)} of {n} patients have fewer than {settings['enough']} typed cells, where a manual differential "
            "counts 200 (CLSI H20-A2): their shares are rough."
        )
    if cells["unlike"] > _MORE_UNLIKE * cells["unlike_expected"]:
        found.append(
            f"{_per_cent(cells['unlike'])} of the cells are unlike the labelled ones of their type, where "
            f"{_per_cent(cells['unlike_expected'])} would be if they came from the same source: stain, scanner or crop "
            "differ, or there are types among them that nobody labelled, so the types of the others are in doubt, too."
        )
    if not typing["accuracy_attained"]:
        found.append(
            f"Labelled cells were not typed with the accuracy that was asked for ({_per_cent(settings['accuracy'])}), "
            "even where the probe is surest; the less sure half of them is unknown."
        )
    if labelled["rare"]:
        names = ", ".join(labelled["rare"])
        found.append(f"Too rare among the labelled cells to be learned, so that no cell is given them: {names}.")
    if typing["not_converged"]:
        found.append(
            f"{typing['not_converged']} trainings of the probe stopped before they converged; give more with --set "
            "iterations."
        )
    return found


def assumptions(result: Mapping[str, Any]) -> list[str]:
    """What intervals and tests take for granted."""
    rate = _per_cent(result["settings"]["false_discovery_rate"])
    return [
        "Types hold as far as the cells look like the labelled ones of their type (stain, scanner, crop), and their "
        "probabilities as far as types are about as frequent as among these.",
        "Intervals of a patient's shares are Wilson's, as if cells were drawn one by one from the blood; those of a "
        "class are over its patients. What the probe mistakes is in neither.",
        "An enrichment is the number of cells of a type among the top over the number that as many cells drawn at "
        "random from the same patients would have. Its p is the larger of two: one takes a patient's cells as "
        "exchangeable, one whole patients as independent, with excesses as likely above as below. It is adjusted over "
        f"all types and classes of a ranking (Benjamini and Hochberg), and counts up to {rate}. It describes what "
        "these models weigh, and is not evidence that a type of cell makes the disease.",
    ]


def _grouped(result: Mapping[str, Any]) -> list[str]:
    """What tells the patients apart, where that is no class of the cohort's."""
    target = result["target"]
    if target is None:
        return []
    if target["kind"] == "classes":
        return [f"Patients are counted by the class of {target['name']} that was predicted of them."]
    what = "risk" if "survival" in target["kind"] else target["name"]
    return [f"Patients are counted by whether their predicted {what} lies above the middle one or not."]


def _known(result: Mapping[str, Any]) -> list[str]:
    known = result["known_types"]
    if not known:
        return []
    text = []
    if reason := known.get("untranslated"):
        text.append(f"Whether the types agree with those that the cohort knows is not told: {reason}")
    if known["n_cells"]:
        text.append(
            f"Of {known['n_cells']:,} cells of {known['n_patients']} patients whose type the cohort knows, "
            f"{_share(known['typed'], result)} were given a type, and {_share(known['agreement'], result)} of these "
            "the known one."
        )
    if (others := known["others"])["n_cells"]:
        text.append(
            f"Of {others['n_cells']:,} cells of known types that the labelled cells lack, "
            f"{_per_cent(others['unknown'])} are unknown."
        )
    return text


def _untaught(found: Mapping[str, Mapping[str, float]]) -> list[str]:
    if not found:
        return []
    shares = {name: one["unknown"] for name, one in found.items()}
    least, most = min(shares, key=lambda name: shares[name]), max(shares, key=lambda name: shares[name])
    mean = sum(shares.values()) / len(shares)
    ends = f" ({least} {_per_cent(shares[least])}, {most} {_per_cent(shares[most])})" if least != most else ""
    return [
        f"A type that the probe was not taught stayed unknown in {_per_cent(mean)} of its cells, on average over the "
        f"types{ends}; the others were given the name of another type."
    ]


def _assumed(labelled: Mapping[str, Any]) -> str:
    return f" (intervals {labelled['assumption']})" if labelled["assumption"] else ""


def _share(figure: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    values = [figure.get(key) for key in ("estimate", "ci_low", "ci_high")]
    if any(value is None or value != value for value in values):
        return "–"
    share, low, high = (f"{100 * float(value):.0f}" for value in values if value is not None)
    return f"{share} % ({100 * result['settings']['level']:g} % CI {low} to {high})"


def _per_cent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 or share == 0 else f"{100 * share:.1f} %"
