import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import matplotlib as mpl
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from milkit import figures
from milkit.drawing import Drawn

CLASSES = ("control", "NPM1 <$x_1$> & more", "PML_RARA")
LABELS = [name for name in CLASSES for _ in range(6)]
PROBABILITIES = np.random.default_rng(0).dirichlet(np.ones(3), 18)
PREDICTED = [CLASSES[column] for column in PROBABILITIES.argmax(axis=1)]
METRIC = {"estimate": 0.87, "ci_low": 0.8, "ci_high": 0.93, "folds": [0.8, None, 0.9]}
UNDEFINED = {"estimate": None, "ci_low": None, "ci_high": None, "folds": [None]}
PER_CLASS = {
    CLASSES[0]: {"n": 6, "recall": METRIC, "auroc": METRIC},
    CLASSES[1]: {"n": 6, "recall": UNDEFINED, "auroc": UNDEFINED},
}  # the third class has no results at all

DRAW = {
    "confusion-matrix": lambda: figures.confusion_matrix(LABELS, PREDICTED, CLASSES),
    "roc-curves": lambda: figures.roc_curves([(LABELS, PROBABILITIES)], CLASSES, PER_CLASS),
    "class-results": lambda: figures.class_results(PER_CLASS, CLASSES),
    "metric-folds": lambda: figures.metric_folds({"Accuracy": METRIC, "F1": UNDEFINED}, {"Accuracy": 1 / 3}),
}


@pytest.mark.parametrize("name", DRAW)
def test_equal_numbers_give_equal_bytes(name: str) -> None:
    assert DRAW[name]() == DRAW[name]()


@pytest.mark.parametrize("name", DRAW)
def test_a_figure_s_pdf_brings_its_fonts_and_is_the_same_bytes_each_time(
    name: str, draw_pdf: Callable[[Drawn], bytes]
) -> None:
    one, two = (draw_pdf(DRAW[name]()) for _ in range(2))
    assert one == two
    assert one.startswith(b"%PDF-")
    assert b"/FontFile2" in one  # TrueType, which journals take and programs can edit
    assert b"CreationDate" not in one


@pytest.mark.parametrize("name", DRAW)
def test_figure_is_valid_xml_that_loads_nothing_and_names_no_time(name: str) -> None:
    svg = DRAW[name]()
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not re.search(r'(href|src)="(?!#)|@import|<style|<metadata|<!--', svg)
    assert not re.search(r"20\d\d-\d\d-\d\d", svg)


def test_ids_of_several_figures_do_not_collide() -> None:
    ids = [name for draw in DRAW.values() for name in re.findall(r'\bid="([^"]+)"', draw())]
    assert len(ids) > 50
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("name", DRAW)
def test_every_reference_inside_a_figure_has_its_target(name: str) -> None:
    svg = DRAW[name]()
    ids = set(re.findall(r'\bid="([^"]+)"', svg))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', svg)) <= ids


@pytest.mark.parametrize("name", DRAW)
def test_drawing_changes_nothing_global(name: str) -> None:
    before, backend = dict(mpl.rcParams), mpl.get_backend()
    DRAW[name]()
    assert dict(mpl.rcParams) == before
    assert mpl.get_backend() == backend


def test_drawing_needs_neither_a_display_nor_torch() -> None:
    code = (
        "import sys; from milkit.figures import metric_folds; metric_folds({}, {}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


def test_confusion_matrix_shows_counts_and_row_percentages() -> None:
    texts = _texts(figures.confusion_matrix(["a", "a", "a", "b"], ["a", "a", "b", "b"], ["a", "b"]))
    assert [text for text in texts if text[0].isdigit()] == ["2", "67 %", "1", "33 %", "0", "0 %", "1", "100 %"]


def test_confusion_matrix_of_repeats_shows_mean_counts() -> None:
    matrix = figures.confusion_matrix(["a", "a", "b"] * 2, ["a", "a", "b", "a", "b", "b"], ["a", "b"], repeats=2)
    assert [t for t in _texts(matrix) if t[0].isdigit()] == ["1.5", "75 %", "0.5", "25 %", "0.0", "0 %", "1.0", "100 %"]


def test_area_under_the_mean_curve_is_the_mean_area() -> None:
    generator = np.random.default_rng(3)
    repeats = [(generator.permutation([True] * 5 + [False] * 12), generator.integers(0, 9, 17) / 9) for _ in range(4)]
    false, true = figures.mean_roc(repeats)
    area = np.sum(np.diff(false) * (true[1:] + true[:-1]) / 2)
    assert area == pytest.approx(np.mean([roc_auc_score(*repeat) for repeat in repeats]), abs=1e-7)


def test_class_names_that_read_like_ids_stay_as_they_are() -> None:
    names = ['a" id="q"', 'url(#b) href="#b']
    assert set(names) <= set(_texts(figures.confusion_matrix(names, names, names)))


def test_class_names_stay_text_without_formulas() -> None:
    assert any(CLASSES[1] in text for text in _texts(DRAW["roc-curves"]()))


def test_legend_quotes_the_interval_of_the_metrics() -> None:
    assert "control: 0.87 (0.80 to 0.93)" in _texts(DRAW["roc-curves"]())


def test_undefined_metrics_are_a_dash() -> None:
    assert figures.with_interval(UNDEFINED) == figures.with_interval({}) == "–"
    assert figures.with_interval({"estimate": 0.5, "ci_low": None, "ci_high": None}) == "0.50"


def _texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
