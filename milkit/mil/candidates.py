"""The settings that a run may choose among: each combination of the values that ``tune`` names."""

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from milkit.errors import SettingsError
from milkit.settings import Component, MilSettings, TrainingSettings, assign, find_recipe, load

ENCODER = "encoder"
"""What ``tune`` calls the stores of one cohort by different encoders; its values are their paths."""


def candidates(settings: MilSettings) -> list[MilSettings]:
    """The settings with each combination of the values that ``tune`` names; a ``SettingsError`` says what is wrong."""
    # Whether probabilities are to be those of the classes' shares is no question of performance.
    known = [f"training.{name}" for name in TrainingSettings.model_fields if name != "class_weights"]
    for key in settings.tune:
        if key not in {*known, ENCODER} and key.partition(".")[0] != "head":
            msg = (
                f"tune names '{key}', which inner folds cannot choose; name head, an argument of it such as "
                f"head.hidden_dim, {ENCODER}, or one of {', '.join(known)}."
            )
            raise SettingsError(msg)
    found: list[MilSettings] = []
    for values in product(*settings.tune.values()):
        # A head before its arguments, whatever the order in the recipe.
        candidate = _with(settings, dict(sorted(zip(settings.tune, values, strict=True))))
        if candidate in found:
            msg = f"tune names {named(candidate)} twice, where candidates must differ; leave one of the two out."
            raise SettingsError(msg)
        found.append(candidate)
    if len(found) < 2:
        msg = (
            f"tune names a single candidate, {named(found[0])}, where a choice needs two or more; add a value, or set "
            "it without tune."
        )
        raise SettingsError(msg)
    return found


def with_default_candidates(settings: MilSettings) -> MilSettings:
    """The candidates of the recipe ``tuned`` where the settings name none, without those that they settle already."""
    if settings.tune:
        return settings
    grid = load(MilSettings, find_recipe("mil", "tuned"), {}).tune
    settled = {*settings.model_fields_set, *(f"training.{name}" for name in settings.training.model_fields_set)}
    left = {key: values for key, values in grid.items() if key not in settled}
    if not left:
        msg = (
            f"--tune was given, and all that it chooses by default ({', '.join(grid)}) is set already; leave a setting "
            "out, or name candidates with tune."
        )
        raise SettingsError(msg)
    return settings.model_copy(update={"tune": left})


def _with(settings: MilSettings, values: Mapping[str, Any]) -> MilSettings:
    changed = settings.model_dump(exclude_unset=True)
    for key, value in values.items():
        assign(changed, "store" if key == ENCODER else key, value, MilSettings)
    try:
        return MilSettings.model_validate(changed)
    except ValidationError as error:
        fault = error.errors()[0]
        name = ".".join(str(part) for part in fault["loc"])
        msg = f"A candidate of tune cannot be ({name} {fault['input']!r}: {fault['msg']}); give another value."
        raise SettingsError(msg) from None


def named(candidate: MilSettings, encoders: Mapping[str, str] | None = None) -> str:
    """What a person is told of a candidate; ``encoders`` are the names of those of the stores, by path."""
    return " and ".join(f"{key} {short(plain_value(candidate, key, encoders))}" for key in candidate.tune)


def plain_value(settings: MilSettings, key: str, encoders: Mapping[str, str] | None = None) -> Any:
    """A value as JSON holds it; a head without arguments is its name, and so is a store's encoder."""
    if key == ENCODER:
        return (encoders or {}).get(str(settings.store), Path(str(settings.store)).stem)
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    if isinstance(value, Component):
        return value.model_dump() if value.arguments else value.name
    return value


def short(value: Any) -> str:
    """A plain value in few characters."""
    if isinstance(value, dict):
        arguments = ", ".join(f"{name} {short(own)}" for name, own in value.items() if name != "name")
        return f"{value['name']} ({arguments})" if "name" in value else arguments
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
