"""Typed settings of every command, and how a recipe (YAML) and the command line fill them.

Order: defaults below < recipe < command line. There is no interpolation, no environment variable and no include. All
mistakes of a recipe are reported at once, each with file and line. The settings of a run are written to its
``settings.yaml``, which is itself a valid ``--config``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from milkit.errors import SettingsError
from milkit.registry import unknown_name
from milkit.settings_faults import explain


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, values do not change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Component(BaseModel):
    """A factory's name and its keyword arguments; ``head: abmil`` is short for ``head: {name: abmil}``.

    ``timm:resnet50`` is short for ``{name: timm, model: resnet50}``: what follows the colon is the argument ``model``.
    """

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        if isinstance(value, str):
            name, colon, model = value.partition(":")
            return {"name": name, "model": model} if colon else {"name": name}
        return value

    @property
    def arguments(self) -> dict[str, Any]:
        """The factory's keyword arguments."""
        return dict(self.model_extra or {})


DEFAULT_ENCODER = Component(name="milkit-mini")
"""The encoder that needs no weights, so that everything runs offline."""


Ids = Literal["pseudonymous", "identifying"]


class CohortRecipe(Settings):
    """Where a cohort's patients and cells come from: a cohort factory and its arguments."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    """Names the store's folder, so letters, digits, `_` and `-` only."""
    factory: str
    """A registered cohort factory; without it, the one called like the recipe."""
    root: Path | None = None
    """The folder that the cohort's paths are relative to; `--root` on the command line."""
    encoder: Component | None = None
    """The encoder that suits this cohort, used where its weights can be had and `--encoder` names no other."""
    micrometres_per_pixel: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Of the images, for scale bars; without it, what the cohort itself knows."""
    ids: Ids | None = None
    """Whether ids of patients and cells tell who somebody is; without it, what the cohort itself says."""
    arguments: dict[str, Any] = {}
    """Further keyword arguments of the factory."""
    kind: Literal["patients", "cells", ""] = ""
    """What carries the labels: patients, or single cells whose patients are unknown (no multiple-instance learning)."""
    verified: Literal["real files", "faithful fake", "unverified"] = "unverified"
    """What the reader was tested on: the published files themselves, files laid out as published, or neither."""
    licence: str = ""
    """Under which the images are published."""
    source: str = ""
    """Where they are published."""

    @model_validator(mode="before")
    @classmethod
    def _factory_of_its_name(cls, values: Any) -> Any:
        return {"factory": values.get("name", ""), **values} if isinstance(values, dict) else values


Precision = Literal["fp32", "bf16"]
Backend = Literal["torch", "openvino"]


class ExtractSettings(Settings):
    """`milkit extract`: cells to features. How the encoder is run is settled when a store is begun, and kept."""

    cohort: CohortRecipe
    encoder: Component = DEFAULT_ENCODER
    batch_size: Annotated[int, Field(ge=1)] | None = None
    """Images a forward pass; empty means the one that a measurement finds fastest for this cohort."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto"] | Precision = "auto"
    """Of the matrix products; `auto` is bf16 where the hardware computes in it and the features stay the same."""
    backend: Literal["auto"] | Backend = "auto"
    """`openvino` (`pip install milkit[openvino]`) is faster on some processors; `auto` is torch."""
    dtype: Literal["float16", "float32"] = "float16"
    """How features are stored; half precision halves the store and costs 3 decimal digits beyond the first."""
    max_failures: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of cells that may be unreadable before the command ends with status 3."""


class TrainingSettings(Settings):
    """How one head is trained on one split."""

    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3e-4
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-2
    max_epochs: Annotated[int, Field(ge=1)] = 100
    patience: Annotated[int, Field(ge=1)] = 15
    """Epochs without a lower validation loss before training stops; the best epoch's weights are kept."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Patients a gradient step; whole bags."""
    precision: Precision = "fp32"
    """Of the matrix products in training; `bf16` is faster where the hardware computes in it, and rounds them."""
    class_weights: bool = True
    """Weigh the loss by the inverse class frequency of the training patients."""
    standardise: bool = True
    """Centre and scale each feature by the mean and spread of the training patients' cells."""


Share = Annotated[float, Field(gt=0, lt=1)]


def _dotted(values: Any, prefix: str = "") -> Any:
    """``{training: {learning_rate: [...]}}``, as `--set` writes it, is ``{training.learning_rate: [...]}``."""
    if not isinstance(values, dict):
        return {prefix: values} if prefix else values
    parts = [_dotted(value, f"{prefix}.{key}".lstrip(".")) for key, value in values.items()]
    return {key: value for part in parts for key, value in part.items()}


class MilSettings(Settings):
    """`milkit train-mil`: cross-validated multiple-instance learning."""

    store: Path | None = None
    """The bag store; empty means the one that `extract` made last."""
    head: Component = Component(name="abmil")
    folds: Annotated[int, Field(ge=3)] = 5
    """Patient-level folds: one is tested, the next one stops the training early, the others train."""
    repeats: Annotated[int, Field(ge=1)] = 1
    """How often the patients are split anew."""
    splits: Literal["partition", "site-preserved", "leave-site-out"] = "partition"
    """`partition`: every fold is tested once; with `by`, patients of one value stay together, and `site-preserved` is
    that with `site`. `leave-site-out`: every site is tested once, by models of the others."""
    by: str | None = None
    """The column of the patients that keeps them together or is their site; of `folds_file`, the column to read."""
    folds_file: Path | None = None
    """Published folds in place of own ones: a table, or a folder with train, val and test.csv for each fold."""
    seeds: Annotated[int, Field(ge=1)] = 1
    """Trainings per fold, which differ by initialisation and order; their probabilities are averaged."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The one number that determines splits, initialisations and order."""
    target: tuple[Component, ...] = ()
    """What is predicted in place of the cohort's classes: `survival`, `discrete-survival`, `regression:COLUMN`,
    `classes:COLUMN`, `label`; one or several, such as `{name: survival, time: os_months, event: died}`."""
    covariates: tuple[str, ...] = ()
    """Columns of the patients (age, sex, counts) that join the bag vector, where the head can take them."""
    training: TrainingSettings = TrainingSettings()
    tune: Annotated[dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]], BeforeValidator(_dotted)] = {}
    """What each training part chooses for itself, with all values to try: {training.learning_rate: [1e-4, 1e-3]};
    of `encoder` the names or paths of stores of one cohort."""
    tune_folds: Annotated[int, Field(ge=3)] = 5
    """Inner folds of a training part, by which the candidates are compared."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    bootstrap: Annotated[int, Field(ge=100)] = 2000
    """Resamples of patients behind each interval."""
    level: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Coverage of the intervals."""
    prevalence: dict[str, Share] = {}
    """Share of patients with a class where the model would be used, such as {PML_RARA: 0.05}: for predictive values."""
    thresholds: dict[str, tuple[Share, Share]] = {}
    """Lowest and highest probability of a class from which somebody would act: the range of its decision curve."""
    specificity: Share = 0.9
    """At which each class's sensitivity is given."""
    controls: bool = True
    """Also see, on the same folds, what is reached without the model: by the number of cells, by covariates, …"""

    @field_validator("target", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | dict) else value


S = TypeVar("S", bound=BaseModel)


def recipe_folder() -> Path:
    """The folder of recipes: beside the package in a checkout, inside it in a wheel."""
    here = Path(__file__).parent
    return next(folder for folder in (here / "_configs", here.parent / "configs") if folder.is_dir())


def recipe_names(kind: str) -> list[str]:
    """Names of the recipes of one kind (`cohorts`, `mil`, …)."""
    return sorted(path.stem for path in (recipe_folder() / kind).glob("*.yaml"))


def is_path(name: str) -> bool:
    """Whether a recipe is named by its path."""
    return Path(name).suffix in {".yaml", ".yml"} or "/" in name


def find_recipe(kind: str, name: str) -> Path:
    """A recipe's path, from its path or its name in ``configs/<kind>/``."""
    if is_path(name):
        if Path(name).is_file():
            return Path(name)
        msg = (
            f"The recipe {name} does not exist; give the path of a YAML file or one of the names {recipe_names(kind)}."
        )
        raise SettingsError(msg)
    path = recipe_folder() / kind / f"{name}.yaml"
    if not path.is_file():
        what = f"recipe in configs/{kind}"
        raise unknown_name(what, name, recipe_names(kind))
    return path


def load(kind: type[S], path: Path | None, overrides: Mapping[str, Any]) -> S:
    """Fill the settings class ``kind`` from a recipe and the command line's ``overrides`` (dotted keys allowed)."""
    try:
        text = path.read_text(encoding="utf-8") if path else ""
        values = yaml.safe_load(text) or {}
    except UnicodeDecodeError:
        msg = f"{path} is not text in UTF-8, which recipes are written in; save it as UTF-8."
        raise SettingsError(msg) from None
    except yaml.YAMLError as error:
        msg = f"{path} is not valid YAML ({' '.join(str(error).split())}); mend it there."
        raise SettingsError(msg) from None
    if not isinstance(values, dict):
        msg = f"{path} holds a {type(values).__name__} where keys with values were expected; see configs/ for examples."
        raise SettingsError(msg)
    given = {key: value for key, value in overrides.items() if value is not None}
    for key, value in given.items():
        assign(values, key, value, kind)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        known = {other.__name__: set(other.model_fields) for other in Settings.__subclasses__()}
        raise SettingsError(explain(error, path, text, given, known)) from None


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """``training.learning_rate=1e-3`` becomes a key and a value; values are read as YAML, and 1e-3 as a number."""
    parsed: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            msg = f"--set got '{assignment}', expected key=value, such as --set training.learning_rate=3e-4."
            raise SettingsError(msg)
        try:
            parsed[key.strip()] = _number_or_yaml(value)
        except yaml.YAMLError:
            msg = f"--set got '{assignment}', whose value is not valid YAML; put quotes around it."
            raise SettingsError(msg) from None
    return parsed


def dump(settings: BaseModel) -> str:
    """The settings as YAML that ``load`` reads back."""
    return yaml.safe_dump(settings.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)


def _number_or_yaml(text: str) -> Any:
    try:
        return float(text) if "e" in text.lower() else yaml.safe_load(text)  # YAML 1.1 reads 1e-3 as a string
    except ValueError:
        return yaml.safe_load(text)


def assign(values: dict[str, Any], key: str, value: Any, kind: type[BaseModel] | None) -> None:
    """Set a dotted key; a component on the way is written out in its long form, from its default where it has none."""
    first, _, rest = key.partition(".")
    if not rest:
        values[first] = value
        return
    default = kind.model_fields[first].default if kind and first in kind.model_fields else None
    inner = values.get(first, default.model_dump() if isinstance(default, Component) else None)
    if isinstance(inner, str):
        inner = Component.model_validate(inner).model_dump()
    if not isinstance(inner, dict | None):
        msg = f"'{key}' was set, and '{first}' holds the value {inner} and no settings; set '{first}' itself."
        raise SettingsError(msg)
    values[first] = dict(inner or {})
    assign(values[first], rest, value, None)
