"""The report's part about types of cells: what it shows, what it doubts, and that names from data stay text."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from composition_toys import labelled, make_run
from probe_toys import labelled_store

from milkit.composition.settings import DifferentialSettings
from milkit.composition.verb import compose
from milkit.errors import RunError
from milkit.explain.table import EXPLANATIONS, Explanations
from milkit.predictions import Attention
from milkit.report.composition import differentials, shown_composition
from milkit.report.composition_file import read_composition
from milkit.report.settings import ReportSettings
from milkit.report.write import write_report
from milkit.tables import read_table

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SCRIPT = "<script>alert(1)</script>"
FORMULA = '=HYPERLINK("http://x")'
NAMES = {"monocyte": SCRIPT, "lymphocyte": FORMULA, "neutrophil": "neutrophil & co"}
SETTINGS = DifferentialSettings(bootstrap=100, top=10)


def composed(root: Path, **other: Any) -> Path:
    """A run whose labelled cells have hostile names."""
    source = labelled(root / "plain.zarr")
    cells = source.cells.assign(cell_type=source.cells["cell_type"].map(NAMES))
    store = labelled_store(root / "labelled.zarr", cells, features=source.load())
    run = make_run(root, **other)
    compose(run, SETTINGS.model_copy(update={"labelled": store.path}))
    return run


def explained(run: Path, **faithful: bool) -> Path:
    """The run with rankings like attention's; in P02 none is faithful."""
    cells = Attention.load(run / "attention.parquet").table
    table = cells[["patient_id", "cell_id", "class"]].assign(score=cells["weight"].astype("float32"))
    Explanations(read_all(table, tuple(faithful))).save(run / EXPLANATIONS)
    figure = {"estimate": 0.5, "ci_low": 0.4, "ci_high": 0.6}
    method = {"beats_random": 3, "n_random": 20, "advantage": figure, "agreement": {"seeds": None, "repeats": None}}
    methods = {name: method | {"faithful": value} for name, value in faithful.items()}
    predicted = read_table(run / "predictions.csv").set_index("patient_id")["predicted"]
    patients = [
        {"patient_id": name, "class": value, "method": one, "faithful": faithful[one] and name != "P02"}
        for name, value in predicted.items()
        for one in methods
    ]
    told = {"format": "milkit-faithfulness", "version": 1, "settings": {"level": 0.95, "top": 10}}
    (run / "faithfulness.json").write_text(json.dumps(told | {"methods": methods, "patients": patients}))
    return run


def read_all(table: Any, methods: tuple[str, ...]) -> Any:
    import pandas as pd

    return pd.concat([table.assign(method=name) for name in methods], ignore_index=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = composed(tmp_path_factory.mktemp("report"))
    write_report(made, ReportSettings())
    return made


@pytest.fixture(scope="module")
def page(run: Path) -> str:
    return (run / "report" / "report.html").read_text()


def told(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "composition.json").read_text())
    return found


def test_a_run_without_types_says_nothing_of_them(tmp_path: Path) -> None:
    made = make_run(tmp_path, n_patients=6)
    page = write_report(made, ReportSettings()).read_text()
    assert 'id="types"' not in page
    assert 'class="types"' not in page
    assert not (made / "report" / "differential.csv").exists()


def test_names_of_types_stay_text(page: str) -> None:
    assert SCRIPT not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert len(re.findall(r"<script", page)) == 1


def test_every_patient_has_a_table_of_all_cells_beside_the_top(run: Path, page: str) -> None:
    tables = re.findall(r'<div class="types">.*?</table>', page, re.DOTALL)
    assert len(tables) == 24
    patient = told(run)["patients"][0]
    table = differentials(told(run), None)[patient["patient_id"]].table
    assert table.header == ["Type", "All 60 cells (95\u00a0%\u00a0CI)", "Top 10 by attention (95\u00a0%\u00a0CI)"]
    rows = {(row["cells"], row["cell_type"]): row for row in patient["differential"]}
    for kind, *shown in table.rows:
        for part, text in zip(("bag", "attention"), shown, strict=True):
            row = rows[part, kind]
            expected = (
                f"{row['count']} · {100 * row['share']:.0f} % ({100 * row['ci_low']:.0f} to {100 * row['ci_high']:.0f})"
            )
            assert text == expected
    assert [row[0] for row in table.rows][-1] == "unknown"
    assert "".join(f"<td>{text}</td>" for text in table.rows[-1][1:]) in tables[0]


def test_every_class_has_its_enrichment(run: Path) -> None:
    shown = shown_composition(told(run), None)
    assert shown is not None
    sick, well = shown.classes
    assert (sick.name, sick.who) == ("sick", "12 patients predicted so, 12 of them with that label")
    found = {row[0]: row[3:] for row in sick.shown.rows}
    assert re.fullmatch(r"2\.\d\d \(2\.\d\d to [23]\.\d\d\)", found[SCRIPT][0])
    assert found[SCRIPT][1:] == ["12 / 0", "0.003", "more"]
    assert found[FORMULA][3] == "fewer"
    assert {row[-1] for row in well.shown.rows} == {""}
    assert sick.others is None


def test_sentences_warnings_and_assumptions_are_on_the_page(run: Path, page: str) -> None:
    import html

    text = html.unescape(page)
    for sentence in (*told(run)["sentences"], *told(run)["warnings"], *told(run)["assumptions"]):
        assert sentence in text
    assert text.count("fewer than 200, so shares are rough.") == 24


def test_the_tables_lie_beside_the_page(run: Path, page: str) -> None:
    for name in ("differential.csv", "enrichment.csv", "composition.json"):
        assert (run / "report" / name).read_bytes() == (run / name).read_bytes()
        assert f'href="{name}"' in page
    assert f"'{FORMULA}" in set(read_table(run / "report" / "enrichment.csv")["cell_type"])


def test_rankings_that_are_not_faithful_are_marked(tmp_path: Path) -> None:
    made = explained(make_run(tmp_path, n_patients=12), attention=False, single_cell=True)
    compose(made, SETTINGS)
    page = write_report(made, ReportSettings()).read_text()
    assert page.count("The order by attention is not faithful: what is enriched at its top") == 1
    assert "The order by each cell alone is not faithful" not in page
    tables = differentials(told(made), _verdicts(made))
    assert tables["P00"].table.header[2:] == [
        "Top 10 by attention, ✗ not faithful (95\u00a0%\u00a0CI)",
        "Top 10 by each cell alone",
    ]
    assert tables["P02"].table.header[3] == "Top 10 by each cell alone, ✗ not faithful"
    shown = shown_composition(told(made), _verdicts(made))
    assert shown is not None
    assert shown.classes[0].shown.header[2] == "Share of the top 10, ✗ not faithful (95\u00a0%\u00a0CI)"
    assert shown.classes[0].others is not None
    assert shown.classes[0].others.header == ["Type", "Each cell alone"]


def test_types_of_other_predictions_are_refused(tmp_path: Path) -> None:
    made = make_run(tmp_path, n_patients=6)
    compose(made, SETTINGS)
    path = made / "predictions.csv"
    path.write_text(
        path.read_text().replace("P00,0,0,sick,sick", "P00,0,0,sick,well").replace("0.8,0.2\n", "0.2,0.8\n", 1)
    )
    with pytest.raises(RunError, match=r"composition.json is of other patients or predictions than those of the run; "
                       r"make it again with `milkit differential .*run`\."):  # fmt: skip
        write_report(made, ReportSettings())


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "composition.json").write_text(json.dumps({"format": "milkit-composition", "version": 2}))
    with pytest.raises(
        RunError, match=r"holds milkit-composition, version 2, expected milkit-composition, version 1 or"
    ):
        read_composition(tmp_path)


def test_a_class_that_nobody_was_predicted_of_is_left_out(run: Path) -> None:
    found = told(run)
    found["classes"]["well"] |= {"n_patients": 0, "differential": [], "enrichment": []}
    shown = shown_composition(found, None)
    assert shown is not None
    assert [one.name for one in shown.classes] == ["sick"]


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [1400, 820, 390])
def test_nothing_overflows_and_tables_are_reached_by_keyboard(tmp_path: Path, browser: "Browser", width: int) -> None:
    made = explained(composed(tmp_path, n_patients=6), attention=True, single_cell=True, leave_one_out=True)
    compose(made, SETTINGS.model_copy(update={"labelled": tmp_path / "labelled.zarr"}))
    context = browser.new_context(offline=True, viewport={"width": width, "height": 900})
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.goto(write_report(made, ReportSettings()).as_uri())
    opened.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert opened.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0
    tables = opened.locator(".types .scroll, .more-types .scroll, #patients > h4 + .scroll")
    reached = "(one) => one.clientHeight > 0 && (one.tabIndex === 0 || one.scrollWidth <= one.clientWidth)"
    opened.wait_for_function(f"[...document.querySelectorAll('.types .scroll, .more-types .scroll')].every({reached})")
    assert tables.count() == 6 + 2 + 2 + 1
    assert complaints == []
    context.close()


def _verdicts(run: Path) -> Any:
    from milkit.explain.verdicts import Verdicts

    return Verdicts.load(run)
