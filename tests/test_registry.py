"""The registries: found by name, loaded when asked for, and clear when they can't."""

import subprocess
import sys
from pathlib import Path

import pytest

from milkit.errors import SettingsError, UnknownName
from milkit.registry import COHORTS, ENCODERS, HEADS, Registry, load_plugin


def test_the_registries_hold_what_is_documented() -> None:
    assert set(ENCODERS.names()) >= {"classical", "dinobloom-s", "dinobloom-b", "dinobloom-l", "dinobloom-g", "timm"}
    assert set(COHORTS.names()) >= {"aml_hehr", "synthetic", "tabular"}
    assert set(HEADS.names()) >= {"abmil", "meanpool"}


@pytest.mark.parametrize("registry", [ENCODERS, COHORTS, HEADS], ids=lambda registry: registry.kind)
def test_every_name_loads_a_documented_factory(registry: Registry) -> None:
    for name in registry.names():
        assert registry.get(name).__doc__


def test_listing_names_imports_no_factory() -> None:
    code = (
        "import sys, milkit.registry as r; r.ENCODERS.names(); r.COHORTS.names(); r.HEADS.names();"
        "print({'torch', 'pandas', 'encoders', 'cohorts', 'milkit.mil'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_an_unknown_name_lists_the_nearest_and_the_known() -> None:
    with pytest.raises(UnknownName, match=r"No head is called 'abmli'. Did you mean 'abmil'\? Known: abmil, add"):
        HEADS.get("abmli")


def test_a_taken_name_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"The head name 'abmil' is taken already"):
        HEADS.register("abmil")


def test_a_misspelt_argument_is_named() -> None:
    with pytest.raises(SettingsError, match=r"head 'abmil' cannot be made from .* \(hiden_dim: Unexpected"):
        HEADS.build("abmil", {"in_dim": 3, "n_classes": 2, "hiden_dim": 8})


def test_text_becomes_the_number_that_the_signature_asks_for() -> None:
    head = HEADS.build("meanpool", {"in_dim": 3, "n_classes": 2, "hidden_dim": "8"})
    assert head.classifier[0].out_features == 8


def test_a_plugin_registers_a_head(tmp_path: Path) -> None:
    plugin = tmp_path / "my_head.py"
    plugin.write_text(
        "from milkit.registry import HEADS\nfrom milkit.mil.heads import meanpool\n"
        "@HEADS.register('mine')\ndef mine(in_dim: int, n_classes: int):\n    return meanpool(in_dim, n_classes)\n"
    )
    load_plugin(plugin)
    try:
        assert "mine" in HEADS.names()
    finally:
        del HEADS._registered["mine"]
    with pytest.raises(SettingsError, match=r"The plugin file .*nothing.py does not exist"):
        load_plugin(tmp_path / "nothing.py")


def test_a_foreign_package_in_the_way_explains_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both generic names are taken on PyPI; the error says which file Python found instead."""
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "__init__.py").write_text("")
    info = tmp_path / "fake-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fake\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[milkit.encoders]\nforeign-net = foreign.network:make\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError) as error:
        ENCODERS.get("foreign-net")
    note = error.value.__notes__[0]
    assert "'foreign-net' should come from 'foreign.network:make'" in note
    assert str(tmp_path / "foreign" / "__init__.py") in note


def test_a_class_instead_of_a_function_is_refused() -> None:
    with pytest.raises(SettingsError, match="'mine' was registered as a class; register a function that returns it"):
        HEADS.register("mine")(Registry)


def test_wrong_arguments_list_those_that_there_are() -> None:
    with pytest.raises(SettingsError, match=r"it takes in_dim, n_classes, hidden_dim, n_covariates\."):
        HEADS.build("meanpool", {"in_dim": 3, "n_classes": 2, "hidden_dim": -3})


def test_a_plugin_that_cannot_be_executed_is_named_and_one_named_twice_is_loaded_once(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def (:\n")
    with pytest.raises(SettingsError, match=r"The plugin .*broken.py cannot be executed \(SyntaxError"):
        load_plugin(tmp_path / "broken.py")
    (tmp_path / "twice.py").write_text(
        "from milkit.registry import HEADS\n@HEADS.register('twice')\ndef twice(in_dim: int, n_classes: int): ...\n"
    )
    try:
        load_plugin(tmp_path / "twice.py")
        load_plugin(tmp_path / "twice.py")
    finally:
        del HEADS._registered["twice"]
