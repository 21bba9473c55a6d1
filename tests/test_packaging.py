"""The house rules that a machine can check: wheel, imports, layers, ceilings, docstrings, what may be committed."""

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("milkit", "encoders", "cohorts")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
HEAVY = {"torch", "timm", "pandas", "zarr", "sklearn", "lifelines", "matplotlib", "seaborn", "skimage", "umap", "numba"}


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    code = f"import sys, milkit.cli; print({HEAVY!r} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.slow
def test_the_wheel_s_top_level_names_are_exactly_ours(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)
    assert "milkit/_configs/cohorts/lymphocytosis.yaml" in names
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert [name for name in names if name.startswith("milkit/report/") and name.endswith(".j2")]


def test_the_import_contracts_hold() -> None:
    lint = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run([str(lint), "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("package", ["encoders", "cohorts"])
def test_a_generic_package_s_init_is_a_docstring_and_nothing_else(package: str) -> None:
    body = ast.parse((ROOT / package / "__init__.py").read_text()).body
    assert [type(node) for node in body] == [ast.Expr]


def _functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_under_their_ceilings(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300
    long = [f.name for f in _functions(path) if f.body[-1].end_lineno - f.body[0].lineno + 1 > 60]  # type: ignore[operator]
    assert long == []
    assert [f.name for f in _functions(path) if f.returns is None] == []
    assert path.stem not in {"utils", "helpers", "common", "base", "misc"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_everything_public_is_documented(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    top = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    assert [node.name for node in top if not node.name.startswith("_") and not ast.get_docstring(node)] == []


def test_no_test_folder_hides_a_package() -> None:
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_the_repository_names_no_machine_and_no_index() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not listed:
        pytest.skip("no git checkout here")
    places = [re.escape(str(place)) + "/" for place in (ROOT.parent, Path.home()) if place != Path("/")]
    pattern = re.compile("|".join([*(f"(?<![\\w}}.]){place}" for place in places), "index-" + "url", "/simp" + "le/"]))
    texts = {
        name: (ROOT / name).read_text(encoding="utf-8", errors="ignore") for name in listed if (ROOT / name).is_file()
    }
    assert [name for name, text in texts.items() if pattern.search(text)] == []


def test_weights_and_features_are_never_pickled() -> None:
    for path in MODULES:
        text = path.read_text()
        assert "import pickle" not in text
        assert "torch.save" not in text
        assert all("weights_only=True" in call for call in re.findall(r"torch\.load\([^)]*\)", text))
