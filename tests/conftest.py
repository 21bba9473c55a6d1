"""Fixtures that the tests share. No image of a real patient is among them."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from survival_toys import CLASS, CLASSES, EVENT, RISK, TIME, class_table, patients, risk_table, write_run
from toys import make_store, toy_patients

from milkit.bags import BagStore
from milkit.cohort import Cohort

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from milkit.drawing import Drawn

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--no-first-run", "--disable-default-apps"]  # fmt: skip


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks a hub for weights."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session", autouse=True)
def draw_pdf() -> Iterator[Callable[["Drawn"], bytes]]:
    """Every PDF once: reports of the same numbers have the same figures, whose fonts take most of the time of a report.

    Gives what draws one anew.
    """
    from milkit.drawing import Drawn

    draw, done = Drawn.pdf, dict[str, bytes]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Drawn, "pdf", lambda own: done[own] if own in done else done.setdefault(own, draw(own)))
        yield draw


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Headless chromium, without a network of its own accord."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium is installed; `apt-get install chromium` brings one")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def toy_store(tmp_path: Path) -> BagStore:
    """18 patients, three classes, 10 to 12 cells each, 6 features."""
    return make_store(tmp_path / "toy.zarr", toy_patients())


@pytest.fixture
def risk_run(tmp_path: Path) -> Path:
    """A run on survival, without a store."""
    return write_run(tmp_path / "run", risk_table(RISK, TIME, EVENT))


@pytest.fixture
def class_run(tmp_path: Path) -> Path:
    """A run on classes, whose patients' survival is known."""
    return write_run(tmp_path / "run", class_table(CLASS, CLASSES), patients())


@pytest.fixture
def write_image() -> Callable[..., Path]:
    """Write a small noise image whose colour depends on ``seed``."""

    def write(path: Path, seed: int = 0, size: int = 12) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
        return path

    return write


@pytest.fixture
def toy_cohort(tmp_path: Path, write_image: Callable[..., Path]) -> Cohort:
    """Six patients of two classes, four noise images each, on disk."""
    root = tmp_path / "images"
    ids = [f"P{number}" for number in range(6)]
    cells = [(f"{name}/image_{n}", name, f"{name}/image_{n}.png") for name in ids for n in range(4)]
    for number, (_, _, path) in enumerate(cells):
        write_image(root / path, seed=number)
    patients = pd.DataFrame({"label": ["A", "B"] * 3}, index=pd.Index(ids, name="patient_id"))
    table = pd.DataFrame(cells, columns=["cell_id", "patient_id", "path"])
    return Cohort("toy", root, patients, table, ("A", "B"), ids="pseudonymous")
