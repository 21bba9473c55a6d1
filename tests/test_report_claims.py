"""What the report's words claim: about labels, repeats, pre-training, weights, and whom to cite."""

import json
import re
import runpy
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from milkit.errors import RunError
from milkit.patient_flow import Exclusion, flow_notes
from milkit.predictions import Attention, Predictions
from milkit.report.citations import citations
from milkit.report.settings import ReportSettings
from milkit.report.write import write_report
from milkit.statistics.summary import summarise
from milkit.tables import read_table, write_table

_PAGE_TESTS: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("test_report.py")))
make_run: Callable[..., Path] = _PAGE_TESTS["make_run"]
text_of: Callable[[str], str] = _PAGE_TESTS["text_of"]
read: Callable[[Path], str] = _PAGE_TESTS["read"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path)


def page_of(run: Path) -> str:
    return text_of(read(write_report(run, ReportSettings())))


def change_store(run: Path, **attributes: Any) -> None:
    path = run.parent.parent / "noise.zarr" / "zarr.json"
    values = json.loads(read(path))
    values["attributes"] |= attributes
    path.write_text(json.dumps(values))


def change_notes(run: Path, notes: list[str]) -> None:
    path = run.parent.parent / "noise.zarr" / "source.json"
    path.write_text(json.dumps(json.loads(read(path)) | {"notes": notes}))


@pytest.mark.parametrize(
    ("head", "encoder", "cohorts", "cited"),
    [
        ("abmil", "classical", ["synthetic"], ["Ilse"]),
        ("mean", "dinobloom-b", ["other", "tabular"], ["Koch"]),
        ("mean", "timm-hf-hub-x-dinobloom-s", ["other"], ["Koch"]),
        ("mean", "classical", ["mine", "aml_hehr"], ["10.7937/6ppe-4020"]),
        ("mean", "classical", ["AML_Hehr"], ["CC BY 4.0"]),
        ("mean", "classical", ["lymphocytosis", "tabular"], ["Sahasrabudhe"]),
        ("mine", "timm-vit", ["mine"], []),
    ],
)
def test_only_what_the_run_used_is_cited(head: str, encoder: str, cohorts: list[str], cited: list[str]) -> None:
    works = citations({"head": [head], "encoder": [encoder], "cohort": cohorts})
    assert [word in work for word, work in zip(cited, works, strict=True)] == [True] * len(cited)


def test_page_cites_the_run_s_head_and_encoder_and_no_cohort_that_it_lacks(run: Path) -> None:
    page = page_of(run)
    assert [name in page for name in ("Ilse", "Koch", "Hehr", "Sahasrabudhe")] == [True, True, False, False]


@pytest.mark.parametrize("attributes", [{"cohort": "aml_hehr"}, {"cohort": "mine", "cohort_factory": "aml_hehr"}])
def test_images_of_the_pretraining_are_known_by_cohort_and_by_factory(run: Path, attributes: dict[str, str]) -> None:
    change_store(run, encoder_seen=["aml_hehr", "bmc"], **attributes)
    assert "saw images of aml_hehr (wholly or in part) in its pre-training" in page_of(run)


def test_cohort_that_the_encoder_never_saw_gets_no_such_warning(run: Path) -> None:
    change_store(run, encoder_seen=["aml_hehr"], cohort_factory="tabular")
    assert "pre-training" not in page_of(run)


def test_flow_of_patients_is_shown_as_a_list_of_its_steps_and_not_as_a_warning(run: Path) -> None:
    steps = [Exclusion("age <18>", 1, 1_203, 2, 1_400), Exclusion("label missing", 0, 1_203, 1, 1_399)]
    change_notes(run, ["A note.", *flow_notes(1_204, steps, 1_402)])
    page = read(write_report(run, ReportSettings()))
    figure = re.search(r'<figure class="panel flow".*?</figure>', page, re.DOTALL)
    assert figure
    assert "age &lt;18&gt;" in figure[0]
    assert [text_of(item).strip() for item in re.findall(r"<li.*?</li>", figure[0], re.DOTALL)] == [
        "Enrolled 1,204 patients, 1,402 samples",
        "Excluded 1 patient, 2 samples: age <18> 1,203 patients, 1,400 samples left",
        "Excluded 0 patients, 1 sample: label missing 1,203 patients, 1,399 samples left",
        "Analysed 1,203 patients, 1,399 samples",
    ]
    assert re.search(r'<section id="cohort">(?:(?!</section>).)*<figure class="panel flow"', page, re.DOTALL)
    assert "Patient flow:" not in page
    assert "A note." in re.search(r'<ul class="warnings">.*?</ul>', page, re.DOTALL)[0]  # type: ignore[index]


def test_cohort_without_rules_has_no_flow(run: Path) -> None:
    assert "Flow of patients" not in page_of(run)


def test_cohort_table_counts_the_labels_that_the_run_had(run: Path) -> None:
    before = _table(write_report(run, ReportSettings()), "The cohort")
    _relabel(run)
    assert _table(write_report(run, ReportSettings()), "The cohort") == before


def test_labels_corrected_after_the_run_are_said(run: Path) -> None:
    _relabel(run)
    assert "The labels of 1 of 9 patients were changed after this run" in page_of(run)


def test_patient_that_the_store_lacks_is_named(run: Path) -> None:
    table = read_table(run / "predictions.csv")
    table["patient_id"] = table["patient_id"].replace("P4", "gone")
    write_table(run / "predictions.csv", table)
    with pytest.raises(RunError, match=r"lacks 1 patients of the run, the first being 'gone'; give the store"):
        write_report(run, ReportSettings())


def test_attention_of_other_classes_is_refused(run: Path) -> None:
    attention = Attention.load(run / "attention.parquet").table
    Attention(attention.assign(**{"class": "all"})).save(run / "attention.parquet")
    with pytest.raises(RunError, match=r"attention\.parquet has no weights of the tested patients; make the run again"):
        write_report(run, ReportSettings())


def test_confusion_matrix_of_repeats_has_the_recalls_of_the_metrics(tmp_path: Path) -> None:
    run = make_run(tmp_path, repeats=2)
    predictions = Predictions.load(run / "predictions.csv")
    table, classes = predictions.table.copy(), predictions.classes
    changed = (table["repeat"] == 1) & (table["patient_id"] == "P1")
    table.loc[changed, [f"p_{name}" for name in classes]] = [0.1, 0.2, 0.7]
    table.loc[changed, "predicted"] = classes[2]
    Predictions(table, classes).save(run / "predictions.csv")
    metrics = summarise(Predictions(table, classes), n_bootstrap=20, level=0.95, seed=0)
    (run / "metrics.json").write_text(json.dumps(metrics))
    svg = ElementTree.parse(write_report(run, ReportSettings()).parent / "figures" / "confusion_matrix.svg")
    texts = ["".join(node.itertext()) for node in svg.iter("{http://www.w3.org/2000/svg}text")]
    shares = [text for text in texts if text.endswith(" %")]
    recalls = [f"{100 * metrics['per_class'][name]['recall']['estimate']:.0f} %" for name in classes]
    assert recalls[0] == "83 %"  # 3 of 3, then 2 of 3
    assert shares[:: len(classes) + 1] == recalls


def test_weights_are_not_called_reasons(run: Path) -> None:
    page = page_of(run)
    assert "it does not show why a patient has a class, or why it was predicted" in page
    assert "what the model used" not in page


def test_random_cells_are_called_those_from_between(run: Path) -> None:
    page = page_of(run)
    assert "beside random cells from between" in page
    assert "random sample" not in page


def test_page_links_to_the_tables_and_plots_beside_it(run: Path) -> None:
    index = write_report(run, ReportSettings())
    links = re.findall(r'href="(?!guidelines/)([^"#]+)"', read(index))  # those are another verb's
    tables = [f"{name}.csv" for name in ("patients", "shown_cells", "top_cells", "predictions", "cohort")]
    assert links == [*tables, "metrics.json", "figures/"]
    assert all((index.parent / link).exists() for link in links)


def _relabel(run: Path) -> None:
    path = run.parent.parent / "noise.zarr" / "patients.csv"
    table = read_table(path)
    table.loc[table["patient_id"] == "P1", "label"] = "NPM1"
    write_table(path, table)


def _table(index: Path, caption: str) -> str:
    found = re.search(rf"<caption>{caption}</caption>.*?</table>", read(index), re.DOTALL)
    assert found
    return found[0]
