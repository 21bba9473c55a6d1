"""What the report says of the order of the cells: faithful or not, upheld by how many models, finding known cells."""

import html
import json
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from milkit.errors import RunError
from milkit.explain import consensus_predictions
from milkit.explain.verdicts import Verdicts
from milkit.predictions import Predictions
from milkit.report import write
from milkit.report.gallery import Picture
from milkit.report.rankings import orders, shown_rankings
from milkit.report.settings import ReportSettings
from milkit.report.write import write_report

_PAGE_TESTS: dict[str, Any] = runpy.run_path(str(Path(__file__).with_name("test_report.py")))
make_run: Callable[..., Path] = _PAGE_TESTS["make_run"]
text_of: Callable[[str], str] = _PAGE_TESTS["text_of"]
read: Callable[[Path], str] = _PAGE_TESTS["read"]

NOT_RUN = "Whether the model goes by this order was not tested: `milkit explain` was not run."
WARNING = "The order of the cells is not faithful: cells in random order move the predictions as surely"
DOUBTED = ("P2", "P5")
"""Patients whose own order is not faithful."""


def figure(estimate: float) -> dict[str, float]:
    return {"estimate": estimate, "ci_low": estimate - 0.1, "ci_high": estimate + 0.05}


def method(*, faithful: bool = True, **other: Any) -> dict[str, Any]:
    """As ``milkit.explain.verb.explain`` documents it, with all that the report reads."""
    beaten = {"faithful": faithful, "beats_random": 20 if faithful else 11, "n_random": 20, "advantage": figure(0.8)}
    pair = {"rank_correlation": figure(0.7), "jaccard": figure(0.6), "jaccard_chance": figure(0.14)}
    return {**beaten, "agreement": {"seeds": None, "repeats": pair}, **other}


KNOWN = {
    **{"n_patients": 6, "prevalence": 0.2, "average_precision": figure(0.83), "average_precision_random": 0.28},
    **{"precision": {"5": figure(0.9), "20": figure(0.4)}, "enrichment": {"5": figure(4.5), "20": figure(2.0)}},
}


def explained(run: Path, **methods: dict[str, Any]) -> Path:
    """The run with a ``faithfulness.json``; every method is not faithful in the ``DOUBTED`` alone."""
    predicted = consensus_predictions(Predictions.load(run / "predictions.csv"))["predicted"]
    told = {"format": "milkit-faithfulness", "version": 1, "settings": {"level": 0.95, "top": 20}, "methods": methods}
    told["patients"] = [
        {"patient_id": patient, "class": label, "method": name, "faithful": patient not in DOUBTED}
        for patient, label in predicted.items()
        for name in methods
    ]
    (run / "faithfulness.json").write_text(json.dumps(told))
    return run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path)


def page_of(run: Path) -> str:
    return read(write_report(run, ReportSettings()))


def cards_of(page: str) -> dict[str, str]:
    cards = re.findall(r'<details class="patient.*?</details>', page, re.DOTALL)
    return {re.search(r'class="who">(.*?)<', card)[1]: card for card in cards}  # type: ignore[index]


def test_a_run_that_was_not_explained_says_so_once(run: Path) -> None:
    page = page_of(run)
    assert text_of(page).count(NOT_RUN) == 1
    assert "aithful" not in page
    assert "How far the order of the cells" not in page


def test_a_run_whose_attention_was_not_asked_says_so_and_marks_nobody(run: Path) -> None:
    page = page_of(explained(run, single_cell=method(faithful=False)))
    assert "was not tested: `milkit explain` was not run for attention." in text_of(page)
    assert "Each cell alone✗ not faithful11 of 20+0.80 (+0.70 to +0.85)0.60 (0.50 to 0.65); 0.14" in text_of(page)
    assert [name for name, card in cards_of(page).items() if "aithful" in card] == []
    assert WARNING not in text_of(page)


def test_a_faithful_order_is_said_beside_every_gallery_and_doubted_patients_are_marked(run: Path) -> None:
    page = page_of(explained(run, attention=method()))
    sentence = Verdicts.load(run).sentence()  # type: ignore[union-attr]
    assert sentence.startswith("Faithful: ")
    cards = cards_of(page)
    assert len(cards) == 9
    assert all(sentence in text_of(card) for card in cards.values())
    assert "Taken alone, 7 of 9 patients have a faithful order; the others are marked." in text_of(page)
    for mark in ("order not faithful</span>", "✗ not faithful in this patient</strong>", "taken alone: <strong"):
        assert [name for name, card in cards.items() if mark in card] == list(DOUBTED)
    assert WARNING not in text_of(page)
    assert 'class="believed panel"' in page


def test_an_order_that_does_not_beat_chance_is_marked_everywhere(run: Path) -> None:
    page = page_of(explained(run, attention=method(faithful=False), leave_one_out=method()))
    sentence = Verdicts.load(run).sentence()  # type: ignore[union-attr]
    assert sentence.startswith("Not faithful: ")
    assert 'class="believed doubted"' in page
    assert text_of(page).count(WARNING) == 1
    for card in cards_of(page).values():
        assert sentence in text_of(card)
        assert "Cells the model weighs most 6 ✗ not faithful" in text_of(card)
    assert "Attention, as shown here✗ not faithful11 of 20" in text_of(page)
    assert "Leaving one cell outfaithful20 of 20" in text_of(page)


def test_pages_of_patients_carry_the_verdict_too(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "CARDS_LIMIT", 1000)
    pages = sorted((write_report(run, ReportSettings()).parent / "patients").iterdir())
    assert [text_of(read(path)).count(NOT_RUN) for path in pages] == [1] * 9
    write_report(explained(run, attention=method(faithful=False)), ReportSettings())
    sentence = Verdicts.load(run).sentence()  # type: ignore[union-attr]
    assert [text_of(read(path)).count(sentence) for path in pages] == [1] * 9
    assert [text_of(read(path)).count("taken alone: faithful") for path in pages] == [1, 0, 1, 1, 0, 1, 1, 1, 1]


def test_known_cells_are_compared_where_there_are_some(run: Path) -> None:
    page = text_of(page_of(explained(run, attention=method(known_cells=KNOWN), leave_one_out=method())))
    assert (
        "In 6 patients it is known which cells matter (planted ones, or those that an expert labelled so): this order "
        "finds them with average precision 0.83 (0.73 to 0.88), a random one with 0.28. Their share is 0.20 among all "
        "cells of these patients, 0.90 (0.80 to 0.95) among the first 5 and 0.40 (0.30 to 0.45) among the first 20 "
        "(95 % CI)."
    ) in page
    assert "0.83 (0.73 to 0.88); 0.28" in page
    assert "it is known which" not in text_of(page_of(explained(run, attention=method(known_cells=None))))


def test_columns_that_no_ranking_fills_are_left_out(run: Path) -> None:
    verdicts = Verdicts.load(explained(run, attention=method(), leave_one_out=method(known_cells=KNOWN)))
    table = shown_rankings(verdicts).table
    assert table is not None
    assert [name for name in table.header if "seeds" in name] == []
    assert [row[-1] for row in table.rows] == ["–", "0.83 (0.73 to 0.88); 0.28"]
    assert {len(row) for row in table.rows} == {len(table.header)}


def test_single_patients_have_orders_only_where_attention_was_asked(run: Path) -> None:
    assert orders(None) == {}
    assert orders(Verdicts.load(explained(run, single_cell=method()))) == {}
    found = orders(Verdicts.load(explained(run, attention=method())))
    assert {name: order.mark for name, order in found.items() if order.mark} == dict.fromkeys(
        DOUBTED, "✗ not faithful in this patient"
    )


@pytest.mark.parametrize("changed", ["class", "patient_id"])
def test_verdicts_of_other_predictions_are_refused(run: Path, changed: str) -> None:
    told = json.loads(read(explained(run, attention=method()) / "faithfulness.json"))
    told["patients"][0][changed] = "another"
    (run / "faithfulness.json").write_text(json.dumps(told))
    with pytest.raises(
        RunError,
        match=r"faithfulness\.json is of other patients or predictions than those of the run; make it again with "
        r"`milkit explain ",
    ):
        write_report(run, ReportSettings())


def test_names_in_the_verdicts_stay_text(run: Path) -> None:
    name = "<img src=x onerror=alert(1)>"
    page = page_of(explained(run, **{name: method()}))
    assert name not in page
    assert html.escape(name) in page


def test_cells_of_the_top_have_a_badge_with_the_agreement_of_the_table(tmp_path: Path) -> None:
    run = make_run(tmp_path, repeats=3, n_cells=24)
    page = page_of(run)
    table = pd.read_csv(run / "report" / "top_cells.csv").set_index("cell_id")["agreement"]
    assert set(table.str.split().str[1:].str.join(" ")) == {"of 3"}
    badges = re.findall(r'class="badge">(.*?)</span> <span class="cell-id">(.*?)<', page)
    assert {cell: badge for badge, cell in badges} == {cell: f"top 20 in {told} models" for cell, told in table.items()}
    assert "in how many of the models the cell is among the 20 highest" in text_of(page)


def test_one_model_has_no_agreement_to_show(run: Path) -> None:
    page = page_of(run)
    assert 'class="badge"' not in page
    assert "in how many of the models" not in page


@pytest.mark.parametrize(("group", "badge"), [("top", "top 20 in 9 of 10 models"), ("random", ""), ("bottom", "")])
def test_only_cells_of_the_top_have_a_badge(group: str, badge: str) -> None:
    assert Picture("c", group, 1, 50, 100.0, "", 1, 1, True, agreement="9 of 10").badge == badge
