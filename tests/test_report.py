import html
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from milkit.bags import BagStore
from milkit.explain import cell_weights, consensus_predictions, ranks
from milkit.folds import Folds
from milkit.predictions import SHARED, Attention, Predictions
from milkit.report.gallery import Picture
from milkit.report.patients import Patient
from milkit.report.settings import ReportSettings
from milkit.report.write import write_report
from milkit.settings import MilSettings, dump
from milkit.statistics.decisions import Declared
from milkit.statistics.summary import summarise

CLASSES = ("control", "NPM1", "PML_RARA")
PATIENTS = tuple(f"P{number}" for number in range(1, 10))
N_CELLS = 12
SIDE = 36
HOSTILE = "<script>alert(1)</script>"


def make_run(
    root: Path,
    *,
    classes: tuple[str, ...] = CLASSES,
    patients: tuple[str, ...] = PATIENTS,
    repeats: int = 1,
    class_wise: bool = False,
    n_cells: int = N_CELLS,
) -> Path:
    """A store with drawn noise and a run whose third, sixth and ninth patient are predicted wrong; returns the run."""
    rng = np.random.default_rng(0)
    labels = pd.Series([classes[number % 3] for number in range(len(patients))], index=list(patients))
    cells = pd.DataFrame(
        [(f"c{p}/{c}", name, f"{p}/{c}.png") for p, name in enumerate(patients) for c in range(n_cells)],
        columns=["cell_id", "patient_id", "path"],
    )
    for path in cells["path"]:
        (root / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / path, compress_level=0)
    table = pd.DataFrame({"label": labels, "age": 50.0, "sex": "F"}).rename_axis("patient_id")
    table.iloc[0, 1] = np.nan
    made_of = {"cohort": "noise", "classes": list(classes), "encoder": "dinobloom-s", "encoder_digest": "ab" * 32,
               "encoder_seen": ["Noise"], "dtype": "float16"}  # fmt: skip
    store = BagStore.create(root / "noise.zarr", table, cells, 2, made_of)
    for name in patients:
        lost = {"c1/0": "the file is missing"} if name == patients[1] else {}
        store.write(name, np.zeros((n_cells, 2)), np.zeros((n_cells, 32), np.uint8), lost)
    store.close()
    source = {
        "root": str(root / "images"),
        "notes": ["A note <b>of the cohort</b>."],
        "encoder_note": "Chosen by hand.",
    }
    (root / "noise.zarr" / "source.json").write_text(json.dumps(source))
    _write_run(root / "runs" / "first", labels, cells, repeats, class_wise)
    settings = MilSettings(store=root / "noise.zarr", folds=3, repeats=repeats)
    (root / "runs" / "first" / "settings.yaml").write_text(dump(settings))
    return root / "runs" / "first"


def _write_run(run: Path, labels: "pd.Series[str]", cells: pd.DataFrame, repeats: int, class_wise: bool) -> None:
    run.mkdir(parents=True)
    rng = np.random.default_rng(1)
    classes = list(dict.fromkeys(labels))
    folds = Folds.stratified(labels, 3, seed=0, repeats=repeats)
    folds.save(run / "folds.csv")
    rows, attention = [], []
    for split in folds.splits():
        for name in split.test:
            likely = classes[(classes.index(labels[name]) + (list(labels.index).index(name) % 3 == 2)) % 3]
            shares = {f"p_{c}": 0.6 if c == likely else 0.2 for c in classes}
            rows.append({"patient_id": name, "repeat": split.repeat, "fold": split.fold, "label": labels[name],
                         "predicted": likely, **shares})  # fmt: skip
            for branch in classes if class_wise else [SHARED]:
                ids = [cell for cell in cells["cell_id"][cells["patient_id"] == name] if cell != "c1/0"]
                weight = rng.dirichlet(np.ones(len(ids)))
                rank, percentile = ranks(weight)
                attention.append(pd.DataFrame(
                    {"patient_id": name, "cell_id": ids, "repeat": split.repeat, "seed": 0, "fold": split.fold,
                     "class": branch, "weight": weight, "rank": rank, "percentile": percentile}
                ))  # fmt: skip
    predictions = Predictions(pd.DataFrame(rows), tuple(classes))
    predictions.save(run / "predictions.csv")
    Attention(pd.concat(attention, ignore_index=True)).save(run / "attention.parquet")
    metric = {"estimate": 0.6712, "ci_low": 0.4123, "ci_high": 0.8845, "folds": [0.5, None, 1.0]}
    per_class = {name: {"n": 3, "recall": metric, "auroc": metric} for name in classes}
    names = ("balanced_accuracy", "weighted_f1", "accuracy", "auroc_macro", "auprc_macro")
    declared = Declared({classes[2]: 0.05}, {classes[2]: (0.1, 0.4)}, class_weights=True)
    metrics = {
        **summarise(predictions, n_bootstrap=100, level=0.95, seed=0, declared=declared),
        **dict.fromkeys(names, metric),
        "per_class": per_class,
        "level": 0.95,
        "n_bootstrap": 500,
        "n_patients": 9,
    }
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "provenance.json").write_text(json.dumps({"created": "2026-01-02T03:04:05+00:00", "milkit": "0.1.0"}))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One report that several tests only read."""
    run = make_run(tmp_path_factory.mktemp("finished"))
    write_report(run, ReportSettings())
    return run


def text_of(page: str) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", page)))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def assert_loads_nothing(page: str) -> None:
    """No attribute and no style names anything but data:, an anchor, or a file beside the page."""
    targets = re.findall(r"""\b(?:src|href|action|poster|srcset|data|background)\s*=\s*["']([^"']*)""", page)
    assert targets
    assert [
        t for t in targets if not re.match(r"data:image/|#|(\.\./)?[\w./-]+\.(html|csv|json)(#[\w-]*)?$|figures/$", t)
    ] == []
    assert not re.search(r"@import|url\((?!#)|<link|<iframe|<object|<script[^>]+src", page)


def test_report_folder_holds_what_the_design_lists(finished: Path) -> None:
    found = {path.relative_to(finished / "report").as_posix() for path in (finished / "report").rglob("*.*")}
    names = ("calibration", "class_results", "confusion_matrix", "decision_curves", "metric_folds", "roc_curves")
    plots = {f"figures/{name}.{kind}" for name in names for kind in ("svg", "pdf")}
    tables = {f"{name}.csv" for name in ("top_cells", "shown_cells", "patients", "predictions", "cohort")}
    assert found == {"report.html", "metrics.json"} | tables | plots
    for name in plots:
        if name.endswith("svg"):
            ElementTree.parse(finished / "report" / name)
        else:
            assert (finished / "report" / name).read_bytes().startswith(b"%PDF-")


def test_page_loads_nothing_from_anywhere(finished: Path) -> None:
    page = read(finished / "report" / "report.html")
    assert_loads_nothing(page)
    assert "default-src &#39;none&#39;" in page
    assert str(finished.parent.parent) not in page  # a path would name the user's home


def test_headline_is_that_of_the_metrics(finished: Path) -> None:
    page = read(finished / "report" / "report.html")
    sentence = text_of(re.search(r'<p class="sentence">(.*?)</p>', page, re.DOTALL)[1]).strip()
    assert sentence == "0.67 (95 % CI 0.41 to 0.88), chance 0.33"


def test_first_screen_says_what_was_asked_and_warns(finished: Path) -> None:
    text = text_of(read(finished / "report" / "report.html"))
    for sentence in (
        "The cohort noise has 9 tested patients with 107 cells in 3 classes: control (3), NPM1 (3) and PML_RARA (3).",
        "The encoder dinobloom-s turned every cell into features. Chosen by hand.",
        "The head abmil learned from whole patients in 3-fold cross-validation",
        "This is internal validation: predictions are out-of-fold",
        "come from 500 resamples of patients within their classes (BCa bootstrap); recall, and figures that no "
        "resample changes, have Wilson's interval",
        "No controls stand beside this run",
        "Models are not retrained within resamples, so training variance is not included",
        "bootstrap intervals are too narrow in such small classes",
        "share this report as you would share the table",
        "3 of 9 patients were predicted wrong",
        "The encoder dinobloom-s saw images of Noise (wholly or in part) in its pre-training",
        "Fewer than 20 patients in control (3), NPM1 (3) and PML_RARA (3)",
        "Fewer than 100 cells in 9 of 9 patients",
        "1 cell could not be read when features were made",
        "A note <b>of the cohort</b>.",
        "50 (50 to 50), 1 missing",
        "gets a higher score than a patient of another class",
        "not a medical device",
    ):
        assert sentence in text
    assert not re.search(r"\bcausal|\bdiagnostic", text)


def test_every_picture_says_which_cell_it_shows(finished: Path) -> None:
    page = read(finished / "report" / "report.html")
    pictures = re.findall(r'<img src="data:image/webp;base64,[^"]+" width="(\d+)" height="(\d+)" alt="([^"]*)"', page)
    assert len(pictures) == len(re.findall("<img", page)) == 9 * N_CELLS - 1
    assert {(width, height) for width, height, _ in pictures} == {("144", "144")}  # 36 px, each shown as 4 x 4
    assert all(re.fullmatch(r"Cell c\d/\d+, group (top|random|bottom), rank \d+ of 1[12]", alt) for *_, alt in pictures)


def test_top_cells_are_those_of_the_attention(finished: Path) -> None:
    predicted = consensus_predictions(Predictions.load(finished / "predictions.csv"))["predicted"]
    expected = cell_weights(Attention.load(finished / "attention.parquet"), predicted)
    expected = expected[expected["rank"] <= 6].sort_values(["patient_id", "rank"])
    table = pd.read_csv(finished / "report" / "top_cells.csv")
    columns = ["patient_id", "class", "rank", "cell_id", "path", "weight", "percentile", "agreement"]
    assert table.columns.tolist() == columns
    assert table["cell_id"].tolist() == expected["cell_id"].tolist()
    np.testing.assert_allclose(table["weight"], expected["weight"])
    assert table["path"].tolist() == [f"{cell[1:]}.png" for cell in table["cell_id"]]
    assert table["agreement"].isna().all()


def test_predictions_are_copied(finished: Path) -> None:
    assert read(finished / "report" / "predictions.csv") == read(finished / "predictions.csv")


def test_ids_and_labels_from_data_stay_text(tmp_path: Path) -> None:
    classes = ("control", 'a"><img src=x onerror=alert(2)>', "</title><b>'c'&")
    run = make_run(tmp_path, classes=classes, patients=(HOSTILE, "../../x", *PATIENTS[2:]))
    page = read(write_report(run, ReportSettings()))
    assert_loads_nothing(page)
    assert HOSTILE not in page
    assert html.escape(HOSTILE) in page
    assert len(re.findall("<script", page)) == len(re.findall("</title>", page)) == 1
    assert "<img src=x" not in page
    assert "<b>'c'" not in page


def test_unreadable_images_become_counted_placeholders(run: Path) -> None:
    images = run.parent.parent / "images"
    (images / "0" / "0.png").write_bytes(b"no image")
    for path in (images / "3").glob("*.png"):
        path.unlink()
    page = read(write_report(run, ReportSettings(top=N_CELLS, random=0, bottom=0)))
    assert "13 of the 107 images chosen for this report could not be read" in text_of(page)
    assert page.count('class="missing"') == 13
    assert re.search(r'role="img" aria-label="Cell c0/0, group top, rank \d+ of 12, image cannot be read"', page)


def test_optional_facts_may_be_missing(run: Path) -> None:
    (run / "metrics.json").write_text("{}")
    (run / "provenance.json").write_text("{}")
    (run.parent.parent / "noise.zarr" / "source.json").unlink()
    text = text_of(read(write_report(run, ReportSettings())))
    assert "undefined for this run" in text
    assert "107 of the 107 images chosen" in text


def test_repeats_and_class_wise_attention_are_said(tmp_path: Path) -> None:
    run = make_run(tmp_path, repeats=2, class_wise=True)
    text = text_of(read(write_report(run, ReportSettings())))
    assert "repeated 2 times with new folds" in text
    assert "the attention for the predicted class" in text
    assert re.search(r"repeat 0 fold \d; repeat 1 fold \d", text)


def test_uniform_attention_is_said(run: Path) -> None:
    table = pd.read_parquet(run / "attention.parquet")
    Attention(table.assign(weight=1 / table.groupby("patient_id")["weight"].transform("size"))).save(
        run / "attention.parquet"
    )
    assert "weighs all cells of a patient alike" in text_of(read(write_report(run, ReportSettings())))


@pytest.mark.parametrize("patient_id", [HOSTILE, "../../etc/passwd", "ü" * 300, "CON", "", "a b/c\\d:e"])
def test_page_names_are_safe_for_any_id(patient_id: str) -> None:
    slug = _patient(patient_id).slug
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}-[0-9a-f]{8}", slug)
    assert slug != _patient(patient_id.upper() + "x").slug


def test_only_the_first_cell_is_called_the_hundredth_percentile() -> None:
    captions = [Picture("c", "top", rank, 5000, p, "", 1, 1, False).caption for rank, p in ((1, 100.0), (2, 99.98))]
    assert captions == ["#1 · P100", "#2 · P99.9"]


def _patient(patient_id: str) -> Patient:
    return Patient(patient_id, "a", "b", (("a", 0.4), ("b", 0.6)), "fold 0", 1, 1.0, "", pd.DataFrame())
