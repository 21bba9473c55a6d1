"""What the pre-training of a store's encoder has seen of the store's cohort, whatever the cohort's recipe is called."""

import re
from collections.abc import Mapping
from typing import Any


def cohort_names(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """The name of a store's cohort and, where another one is recorded, that of its factory: what is read, not whose."""
    names = (attributes.get("cohort"), attributes.get("cohort_factory"))
    return tuple(dict.fromkeys(str(name) for name in names if name))


def seen_in_pretraining(attributes: Mapping[str, Any]) -> list[str]:
    """The data sets of the encoder's pre-training that the cohort is one of; capitals and separators do not count."""
    names = {_plain(name) for name in cohort_names(attributes)}
    return [str(name) for name in attributes.get("encoder_seen") or () if _plain(str(name)) in names]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "", name.lower())
