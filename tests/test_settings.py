"""Settings: recipes, overrides, and mistakes reported all at once with file and line."""

from pathlib import Path

import pytest

from encoders.dinov2.pretrain_settings import PretrainSettings
from milkit import settings
from milkit.errors import SettingsError, UnknownName
from milkit.explain.settings import ExplainSettings
from milkit.probe_settings import ProbeSettings
from milkit.report.settings import ReportSettings
from milkit.settings import CohortRecipe, Component, MilSettings

KINDS = {
    "cohorts": CohortRecipe,
    "encoders": PretrainSettings,
    "explain": ExplainSettings,
    "mil": MilSettings,
    "probe": ProbeSettings,
    "report": ReportSettings,
}
OTHERS = {"taxonomies", "compare"}
"""Folders whose files hold no settings: trees and labels, and published figures."""
RECIPES = [path for path in settings.recipe_folder().rglob("*.yaml") if not OTHERS.intersection(path.parts)]


@pytest.mark.parametrize("path", sorted(RECIPES), ids=lambda path: path.stem)
def test_every_recipe_loads_into_its_class(path: Path) -> None:
    settings.load(KINDS[path.parent.name], path, {})


def test_the_command_line_goes_over_the_recipe_and_the_recipe_over_the_defaults(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("folds: 4\nrepeats: 3\nhead: meanpool\n")
    chosen = settings.load(MilSettings, recipe, {"folds": 6, "seed": None, "head.hidden_dim": 32})
    assert (chosen.folds, chosen.repeats, chosen.seed) == (6, 3, 0)
    assert chosen.head == Component(name="meanpool", hidden_dim=32)


def test_all_mistakes_are_reported_at_once_with_file_and_line(tmp_path: Path) -> None:
    recipe = tmp_path / "bad.yaml"
    recipe.write_text("folds: 2\ntraining:\n  learnin_rate: 1\n  max_epochs: many\n")
    with pytest.raises(SettingsError) as error:
        settings.load(MilSettings, recipe, {"repeats": 0})
    lines = str(error.value).splitlines()
    assert f"{recipe}:1: folds: Input should be greater than or equal to 3" in lines
    assert f"{recipe}:3: training.learnin_rate: there is no such setting; did you mean 'learning_rate'?" in lines
    assert any(line.startswith(f"{recipe}:4: training.max_epochs: Input should be a valid integer") for line in lines)
    assert "command line: repeats: Input should be greater than or equal to 1" in lines


def test_a_recipe_that_is_no_yaml_or_no_mapping_is_refused(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("folds: [1\n")
    with pytest.raises(SettingsError, match="is not valid YAML"):
        settings.load(MilSettings, recipe, {})
    recipe.write_text("- folds\n")
    with pytest.raises(SettingsError, match="holds a list where keys with values were expected"):
        settings.load(MilSettings, recipe, {})


def test_a_component_is_written_short_or_long() -> None:
    assert Component.model_validate("timm:resnet50").arguments == {"model": "resnet50"}
    assert Component.model_validate({"name": "abmil", "gated": True}).arguments == {"gated": True}


def test_assignments_are_read_as_yaml_and_exponents_as_numbers() -> None:
    parsed = settings.parse_assignments(["training.learning_rate=1e-3", "training.class_weights=no", "head=meanpool"])
    assert parsed == {"training.learning_rate": 1e-3, "training.class_weights": False, "head": "meanpool"}
    with pytest.raises(SettingsError, match=r"--set got 'folds', expected key=value"):
        settings.parse_assignments(["folds"])


def test_a_recipe_is_found_by_name_or_path_and_an_unknown_one_lists_the_known() -> None:
    assert settings.find_recipe("cohorts", "lymphocytosis").is_file()
    with pytest.raises(UnknownName, match=r"No recipe in configs/cohorts is called 'lymphocytos'. Did you"):
        settings.find_recipe("cohorts", "lymphocytos")
    with pytest.raises(SettingsError, match=r"The recipe nowhere/x.yaml does not exist"):
        settings.find_recipe("cohorts", "nowhere/x.yaml")


def test_dumped_settings_load_again(tmp_path: Path) -> None:
    chosen = MilSettings(folds=7, head=Component(name="abmil", gated=True), store=Path("/somewhere"))
    (tmp_path / "s.yaml").write_text(settings.dump(chosen))
    assert settings.load(MilSettings, tmp_path / "s.yaml", {}) == chosen


def test_a_cohort_s_name_is_safe_as_a_folder(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="name: String should match pattern"):
        settings.load(CohortRecipe, None, {"name": "../other"})


def test_a_component_s_argument_can_be_set_without_naming_the_component() -> None:
    assert settings.load(MilSettings, None, {"head.gated": True}).head == Component(name="abmil", gated=True)
    timm = settings.load(
        settings.ExtractSettings, None, {"cohort.name": "c", "encoder": "timm:resnet18", "encoder.x": 1}
    )
    assert timm.encoder == Component(name="timm", model="resnet18", x=1)


def test_a_setting_below_a_value_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"'folds.x' was set, and 'folds' holds the value 3 and no settings"):
        settings.load(MilSettings, None, {"folds": 3, "folds.x": 1})


def test_an_assignment_that_is_no_yaml_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"--set got 'training=\[1', whose value is not valid YAML"):
        settings.parse_assignments(["training=[1"])


def test_a_recipe_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes("name: größe".encode("latin-1"))
    with pytest.raises(SettingsError, match="is not text in UTF-8"):
        settings.load(MilSettings, tmp_path / "r.yaml", {})


def test_an_infinite_learning_rate_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"training.learning_rate: Input should be a finite number"):
        settings.load(MilSettings, None, {"training.learning_rate": float("inf")})
