"""What a batch report says to a person."""

from collections.abc import Mapping
from typing import Any


def describe(result: Mapping[str, Any]) -> list[str]:
    """The findings of ``batch.json`` as sentences, the plainest first."""
    before, after = result["before"], result["after"]
    names = _listed(list(result["sources"]))
    sentences = [
        f"{_listed([f'{n:,} cells of {name}' for name, n in result['sources'].items()])} were compared under "
        f"{result['encoder']}{_left_out(result)}.",
        f"{names} {_told_apart(result, before['probe'])}.",
        f"Of the {result['neighbours']} nearest neighbours of a cell {_per_cent(before['same_source_share'])} are of "
        f"its own source, where {_per_cent(before['same_source_chance'])} would be by chance{_within_classes(before)}.",
        _variance(result, before),
    ]
    classes = f", that of the classes {before['silhouette_class']:.2f}" if "silhouette_class" in before else ""
    sentences.append(
        f"The silhouette of the sources is {before['silhouette_source']:.2f}{classes}; 1 is far apart, 0 is overlap."
    )
    sentences.append(
        f"After each source is standardised by its own mean and spread, {names} {_told_apart(result, after['probe'])}; "
        f"{_per_cent(after['same_source_share'])} of the neighbours are of the own source."
    )
    assumed = [f"The intervals are {result['assumption']}."] if result["assumption"] else []
    return [*sentences, *assumed, _caution(result)]


def _told_apart(result: Mapping[str, Any], probe: Mapping[str, Any]) -> str:
    chance = result["chance_balanced_accuracy"]
    best = max(probe, key=lambda name: probe[name]["estimate"])
    apart = any(figure["ci_low"] > chance for figure in probe.values())
    other = next(name for name in probe if name != best)
    ways = {"linear": "by a linear probe", "neighbours": f"by {result['neighbours']} neighbours"}
    unit = "cells" if result["unit"] == "cells" else f"{result['n_units']:,} {result['unit']}"
    figures = (
        f"{_figure(probe[best], result['level'])} {ways[best]} and {probe[other]['estimate']:.2f} {ways[other]} "
        f"(interval over {unit}; chance {chance:.2f})"
    )
    if not apart:
        return f"could not be told apart beyond chance: balanced accuracy {figures}"
    return f"can be told apart with balanced accuracy {figures}"


def _figure(figure: Mapping[str, Any], level: float) -> str:
    interval = f"{100 * level:g} % CI {figure['ci_low']:.2f} to {figure['ci_high']:.2f}"
    return f"{figure['estimate']:.2f} ({interval})"


def _within_classes(measures: Mapping[str, Any]) -> str:
    within = measures.get("same_source_chance_within_classes")
    return "" if within is None else f" and {_per_cent(within)} by the mix of classes alone"


def _variance(result: Mapping[str, Any], measures: Mapping[str, Any]) -> str:
    text = f"The source explains {_per_cent(measures['variance_source'])} of the features' variance"
    if "variance_class" in measures:
        label = f"{result['label']} in the taxonomy" if result["taxonomy"] else result["label"]
        text += f", the class ({label}) {_per_cent(measures['variance_class'])}"
    if "variance_source_beyond_class" in measures:
        text += f", the source in addition to the class {_per_cent(measures['variance_source_beyond_class'])}"
    return text + "; by construction, standardisation takes the source's share away."


def _caution(result: Mapping[str, Any]) -> str:
    if result["n_classes"] and not result["shared_classes"]:
        return (
            "No two sources share a class, so that these figures cannot tell a difference of scanner, stain or site "
            "from one of the cells themselves, and standardisation takes away both."
        )
    return (
        "Sources that hold other cells or other patients differ without any fault of a scanner or a stain, and "
        "standardisation takes away such differences, too."
    )


def _left_out(result: Mapping[str, Any]) -> str:
    left_out = [f"{n:,} {reason}" for reason, n in result["left_out"].items() if n]
    return f" (left out: {', '.join(left_out)})" if left_out else ""


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _per_cent(share: float) -> str:
    return f"{100 * share:.0f} %"
