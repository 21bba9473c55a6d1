"""Guideline drafts: every number stands where its link says, nothing is invented, and what is open is asked once."""

import csv
import hashlib
import html
import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from guidelines_toys import FLOW, answer_all, at, make_run, pages, patients, quoted
from toys import CLASSES, toy_patients

from milkit.errors import PrivacyError, RunError, SettingsError, UnknownName
from milkit.figure_text import with_interval
from milkit.guidelines import claim, model_card, tripod_ai
from milkit.guidelines.answers import ANSWERS, TODO
from milkit.guidelines.questions import QUESTIONS
from milkit.guidelines.write import write_guidelines
from milkit.tables import read_table

HOSTILE = "<script>alert(1)</script>"
STORE, SOURCE = "zarr.json of the store", "source.json of the store"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with covariates, controls, a declared threshold and a flow of patients, and its drafts."""
    root = tmp_path_factory.mktemp("guidelines")
    run = make_run(root, covariates=["age", "sex"], thresholds={"PML_RARA": [0.05, 0.4]}, repeats=2)
    (run / "faithfulness.json").write_text(json.dumps(_faithfulness()))
    write_guidelines(run)
    return run


def _faithfulness() -> dict[str, Any]:
    method = {"faithful": False, "beats_random": 3, "n_random": 20}
    return {"format": "milkit-faithfulness", "version": 1, "methods": {"attention": method}, "patients": []}


def _rows(page: str) -> dict[str, dict[str, str]]:
    """The rows of ``numbers.html`` by their anchor."""
    cells = r'<th scope="row">([^<]*)</th><td>([^<]*)</td><td>(.*?)</td><td>([^<]*)</td>'
    pattern = rf'<tr id="([^"]+)" data-form="([^"]*)">{cells}'
    names = ("form", "text", "full", "file", "where")
    return {
        anchor: {name: html.unescape(re.sub("<[^>]*>", "", value)) for name, value in zip(names, values, strict=True)}
        for anchor, *values in re.findall(pattern, page)
    }


def _files(run: Path) -> dict[str, Any]:
    """What links may point at, read without milkit's own reader."""
    store = Path(yaml.safe_load((run / "settings.yaml").read_text())["store"])
    files = {path.name: json.loads(path.read_text()) for path in run.glob("*.json")}
    files["settings.yaml"] = yaml.safe_load((run / "settings.yaml").read_text())
    files[STORE] = json.loads((store / "zarr.json").read_text())["attributes"]
    files[SOURCE] = json.loads((store / "source.json").read_text())
    return files


def test_every_number_equals_what_stands_where_its_link_says(run: Path) -> None:
    files, found = _files(run), pages(run)
    rows = _rows(found["numbers.html"])
    for row in rows.values():
        if row["where"].startswith("/"):
            value = at(files[row["file"]], row["where"])
            shown = with_interval(value, row["form"]) if isinstance(value, dict) else format(value, row["form"])
            assert row["text"] == shown, row
    assert sum(row["where"].startswith("/") for row in rows.values()) > 60
    links = [link for name in ("tripod_ai.html", "claim.html", "model_card.html") for link in quoted(found[name])]
    assert len(links) > 200
    assert [(anchor, text) for anchor, text in links if html.unescape(text) != rows[anchor]["text"]] == []
    marked = re.findall(r"\[((?:[^\]\\]|\\.)*)\]\(numbers\.html#([^)]*)\)", found["model_card.md"])
    assert len(marked) == len(quoted(found["model_card.html"]))
    assert [text for text, anchor in marked if text.replace("\\", "") != rows[anchor]["text"]] == []


def test_every_count_is_that_of_the_rows_it_names(run: Path) -> None:
    store = Path(yaml.safe_load((run / "settings.yaml").read_text())["store"])
    folds, predictions = read_table(run / "folds.csv"), read_table(run / "predictions.csv")
    tested = folds[folds["role"] == "test"]
    expected = {
        ("folds.csv", "different patient_id with role test"): tested["patient_id"].nunique(),
        ("folds.csv", "different fold"): folds["fold"].nunique(),
        ("folds.csv", "different repeat"): folds["repeat"].nunique(),
        ("patients.csv of the store", "rows"): len(read_table(store / "patients.csv")),
        ("cells.csv of the store", "rows"): len(read_table(store / "cells.csv")),
        ("failures.csv of the store", "rows"): 0,
        ("heads/", "files *.safetensors"): len(list((run / "heads").glob("*.safetensors"))),
        (SOURCE, "note of the patient flow, enrolled"): 25,
        (SOURCE, "note of the patient flow, excluded: no smear was made"): 5,
        (SOURCE, "note of the patient flow, excluded: too few cells"): 2,
        (SOURCE, "note of the patient flow, analysed"): 18,
    }
    for label, part in predictions.groupby("label"):
        expected["predictions.csv", f"different patient_id with label {label}"] = part["patient_id"].nunique()
    rows = [row for row in _rows(pages(run)["numbers.html"]).values() if not row["where"].startswith("SHA-256 over")]
    assert {(r["file"], r["where"]): int(r["full"]) for r in rows if not r["where"].startswith("/")} == expected


def test_the_digest_of_the_heads_is_over_the_names_and_digests_of_their_files(run: Path) -> None:
    total = hashlib.sha256()
    for path in sorted((run / "heads").glob("*.safetensors")):
        total.update(f"{path.name}\n{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    (row,) = [row for row in _rows(pages(run)["numbers.html"]).values() if row["where"].startswith("SHA-256 over")]
    assert row["full"] == total.hexdigest()


def test_no_number_outside_a_link_is_told_of_the_run(run: Path) -> None:
    page = re.sub(r'<p class="todo">.*?</p>', "", pages(run)["tripod_ai.html"], flags=re.DOTALL)
    told = re.findall(r"<li>(.*?)</li>|<p>(.*?)</p>", page[page.index("<section") : page.index("<footer")])
    texts = [html.unescape(re.sub(r"<a .*?</a>", "", first + second)) for first, second in told]
    digits = [text for text in texts if re.search(r"\d", re.sub(r"SHA-256|RUNX1|NPM1|F1|R²|[0-9a-f]{64}", "", text))]
    assert digits == []


def test_links_between_the_drafts_and_to_the_run_lead_somewhere(run: Path) -> None:
    folder = run / "report" / "guidelines"
    for name, page in pages(run).items():
        if not name.endswith(".html"):
            continue
        for target in re.findall(r'href="([^"]+)"', page):
            path, _, anchor = target.partition("#")
            if path == "../report.html":  # another verb's
                continue
            place = folder / (path or name)
            assert place.exists(), target
            assert not anchor or f'id="{anchor}"' in place.read_text(encoding="utf-8"), target


def test_the_checklists_have_every_item_once_and_in_order(run: Path) -> None:
    parts = {
        3: "abc",
        5: "ab",
        6: "abc",
        8: "abc",
        9: "abc",
        12: "abcdefg",
        18: "abcdef",
        20: "abc",
        23: "ab",
        27: "abc",
    }
    numbers = [f"{number}{part}" for number in range(1, 28) for part in parts.get(number, [""])]
    found = pages(run)
    assert re.findall(r'id="item-([^"]+)"', found["tripod_ai.html"]) == numbers
    assert len(numbers) == 52
    assert re.findall(r'id="item-([^"]+)"', found["claim.html"]) == [str(number) for number in range(1, 45)]


def test_every_question_is_asked_by_an_item_and_no_item_asks_another() -> None:
    items = [*tripod_ai.ITEMS, *claim.ITEMS, *model_card.ITEMS]
    asked = {key for item in items for key in [*item.asks, item.otherwise] if key}
    assert asked == set(QUESTIONS)
    assert [item for item in items if not item.asks and not item.otherwise and not item.tells] == []


def test_what_is_open_is_counted_and_stands_in_the_file_of_answers(run: Path) -> None:
    drafts = write_guidelines(run)
    assert len(drafts.open) == len(set(drafts.open)) == 53
    assert drafts.refusal() == (
        f"53 answers are open in {run / ANSWERS}, the first being 'title', where final drafts have none; write them "
        "there and call again."
    )
    assert yaml.safe_load((run / ANSWERS).read_text()) == dict.fromkeys(QUESTIONS, TODO)
    assert pages(run)["tripod_ai.html"].count(TODO) > 40


def test_answers_survive_a_rerun_and_close_their_items(run: Path, tmp_path: Path) -> None:
    own = _copied(run, tmp_path)
    write_guidelines(own)
    path = own / ANSWERS
    path.write_text(path.read_text().replace(f"funding: {TODO}", "funding: |\n  A foundation.\n\n  No part."))
    before = path.read_bytes()
    assert len(write_guidelines(own).open) == 52
    assert path.read_bytes() == before
    item = re.search(r'id="item-18a".*?</article>', pages(own)["tripod_ai.html"], re.DOTALL)
    assert item
    assert "<p>A foundation.</p><p>No part.</p>" in item[0]
    assert TODO not in item[0]
    answer_all(own)
    drafts = write_guidelines(own)
    assert (drafts.open, drafts.refusal()) == ([], "")
    assert "No answer is open." in pages(own)["claim.html"]
    assert 'class="todo"' not in "".join(pages(own).values())


def test_an_answer_that_still_says_todo_is_open(run: Path, tmp_path: Path) -> None:
    own = _copied(run, tmp_path)
    answer_all(own)
    path = own / ANSWERS
    path.write_text(path.read_text().replace("ethics: 'Not", f"ethics: '{TODO} number; Not"))
    drafts = write_guidelines(own)
    assert drafts.open == ["ethics"]
    assert drafts.refusal().startswith(f"1 answer is open in {path}, the first being 'ethics'")


def test_a_newer_question_is_appended_and_nothing_else_changes(run: Path, tmp_path: Path) -> None:
    own = _copied(run, tmp_path)
    text = "# mine\ntitle: A title\nfunding: >-\n  somebody\n  else\n"
    (own / ANSWERS).write_text(text)
    write_guidelines(own)
    longer = (own / ANSWERS).read_text()
    assert longer.startswith(text)
    assert yaml.safe_load(longer) == dict.fromkeys(QUESTIONS, TODO) | {"title": "A title", "funding": "somebody else"}


def test_braces_are_left_as_they_are(run: Path, tmp_path: Path) -> None:
    own = _copied(run, tmp_path)
    (own / ANSWERS).write_text('{"title": "A title"}')
    assert "title" not in write_guidelines(own).open
    assert (own / ANSWERS).read_text() == '{"title": "A title"}'


@pytest.mark.parametrize(
    ("text", "kind", "sentence"),
    [
        ("foundin: x", UnknownName, r"No answer is called 'foundin'\. Did you mean 'funding'\?"),
        ("- x", SettingsError, r"holds a list where keys with answers were expected; write `key: your text`\."),
        ("title: a: b", SettingsError, r"is not valid YAML .*; mend it there, or put quotes around the text\."),
        ("title: [x]", SettingsError, r"answers 'title' with \['x'\] where text was expected; put quotes around"),
        ("title: yes", SettingsError, r"answers 'title' with True where text was expected; put quotes around"),
        ("title: a\ntitle: b", SettingsError, r"answers 'title' 2 times, expected once; keep one of the answers\."),
    ],
)
def test_answers_that_cannot_be_read_are_refused(
    run: Path, tmp_path: Path, text: str, kind: type[Exception], sentence: str
) -> None:
    own = _copied(run, tmp_path)
    (own / ANSWERS).write_text(text)
    with pytest.raises(kind, match=sentence):
        write_guidelines(own)
    assert (own / ANSWERS).read_text() == text


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"There is no run at .*; make one with `milkit train-mil`, or name another"):
        write_guidelines(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"settings\.yaml is missing; name the folder of a finished run"):
        write_guidelines(tmp_path)


def test_table_one_counts_medians_quartiles_and_missing_values(run: Path) -> None:
    table = patients()
    with (run / "report" / "guidelines" / "table1.csv").open(encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["characteristic", "told as", "All", *CLASSES, "largest standardised difference"]
    found = {(row[0], row[1]): row[2:] for row in rows}
    assert found["Patients", "n"][:4] == ["18", "6", "6", "6"]
    for column, group in enumerate([table, *(table[table["label"] == name] for name in CLASSES)]):
        ages = sorted(group["age"].dropna())
        low, middle, high = (_quantile(ages, q) for q in (0.25, 0.5, 0.75))
        digits = 0 if all(value == int(value) for value in (low, middle, high)) else 1
        told = f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
        assert found["Age", "median [quartiles]"][column] == told
        assert found["Age", "missing, n"][column] == str(int(group["age"].isna().sum()))
        known, women = int(group["sex"].notna().sum()), int((group["sex"] == "F").sum())
        assert found["Sex", "F, n (%)"][column] == f"{women} ({100 * women / known:.0f})"
        assert found["Sex", "missing, n"][column] == str(len(group) - known)
    assert found["Site", "A, n (%)"][-1] == "∞"  # the third class is of another site
    assert found["Cells of a patient", "median [quartiles]"][:4] == [
        "11 [10, 12]",
        *["10 [10, 10]", "11 [11, 11]", "12 [12, 12]"],
    ]


def _quantile(ordered: list[float], q: float) -> float:
    place = q * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


def test_the_flow_says_who_was_left_out_before_and_in_the_run(run: Path) -> None:
    figure = pages(run)["flow.svg"]
    texts = html.unescape(" | ".join(re.findall(r"<text[^>]*>([^<]*)</text>", figure)))
    assert texts.startswith("Enrolled: 25 patients | ")
    for part in ("Excluded: 5 patients | no smear was made", "Tested: 18 patients", "control: 6 patients"):
        assert part in texts


def test_what_a_run_lacks_becomes_a_question(tmp_path: Path) -> None:
    run = make_run(tmp_path, toy_patients(), notes=(), controls=False)
    drafts = write_guidelines(run)
    assert {"flow_before", "characteristics", "explainability"} <= set(drafts.open)
    page = pages(run)["claim.html"]
    assert "Controls on the same folds" not in page
    assert "no covariate of the patient was used" in pages(run)["tripod_ai.html"]


def test_what_the_model_adds_to_covariates_is_told_with_a_link(run: Path) -> None:
    found = json.loads((run / "controls.json").read_text())["increment"]
    gap = with_interval(found["difference"]["balanced_accuracy"], "+.2f")
    text = re.sub("<[^>]*>", "", pages(run)["tripod_ai.html"])
    assert f"Beside {', '.join(found['columns'])} the model adds {gap} in balanced accuracy." in text
    rows = _rows(pages(run)["numbers.html"]).values()
    assert "/increment/difference/balanced_accuracy" in {row["where"] for row in rows}


def test_what_was_chosen_is_told_with_its_splits(tmp_path: Path) -> None:
    run = make_run(tmp_path, tune={"training.learning_rate": [1e-4, 3e-2]}, tune_folds=3, controls=False)
    write_guidelines(run)
    found = pages(run)
    item = re.search(r'id="item-26".*?</article>', found["claim.html"], re.DOTALL)
    assert item
    chosen = json.loads((run / "metrics.json").read_text())["tuning"]["chosen"]
    text = re.sub("<[^>]*>", "", item[0])
    assert "2 configurations were compared in inner folds" in text
    for one in chosen:
        rate = one["settings"]["training.learning_rate"]
        assert f"Chosen in {one['splits']} of 3 splits: training.learning_rate {rate}." in text
    rows = _rows(found["numbers.html"]).values()
    assert "/tuning/chosen/0/settings/training.learning_rate" in {row["where"] for row in rows}


def test_a_store_without_the_patients_of_the_run_is_refused(run: Path, tmp_path: Path) -> None:
    own = _copied(run, tmp_path)
    text = (own / "folds.csv").read_text()
    (own / "folds.csv").write_text(text.replace("P03", "Q03"))
    with pytest.raises(RunError, match=r"lacks 1 patients of the run .*; give the store that the run was made from"):
        write_guidelines(own)


def test_a_run_on_several_targets_is_taken(tmp_path: Path) -> None:
    run = make_run(tmp_path, target=["survival", "regression:age", "label"], notes=FLOW)
    write_guidelines(run)
    rows = _rows(pages(run)["numbers.html"])
    files = _files(run)
    pointers = [row["where"] for row in rows.values() if row["file"] == "metrics.json"]
    assert {"/targets/survival/c_index", "/targets/age/mae", "/targets/survival/n_events"} <= set(pointers)
    assert all(at(files["metrics.json"], pointer) is not None for pointer in pointers)
    told = {row["where"] for row in rows.values() if row["file"] == "controls.json"}
    assert {"/targets/survival/controls/0/c_index", "/targets/label/controls/0/balanced_accuracy"} <= told
    assert "predictions.label.csv" in "".join(row["file"] for row in rows.values())


def test_a_run_on_survival_alone_has_one_group(tmp_path: Path) -> None:
    run = make_run(tmp_path, target="survival")
    write_guidelines(run)
    table = pd.read_csv(run / "report" / "guidelines" / "table1.csv", dtype=str)
    assert list(table.columns) == ["characteristic", "told as", "All", "largest standardised difference"]


def test_texts_from_data_and_people_never_become_markup(run: Path, tmp_path: Path) -> None:
    own = _copied(run, tmp_path)
    metrics = json.loads((own / "metrics.json").read_text())
    metrics["per_class"] = {HOSTILE: metrics["per_class"]["control"], "a/b~c": metrics["per_class"]["NPM1"]}
    (own / "metrics.json").write_text(json.dumps(metrics))
    provenance = json.loads((own / "provenance.json").read_text())
    (own / "provenance.json").write_text(json.dumps(provenance | {"cohort": HOSTILE, "python": HOSTILE}))
    table = read_table(own / "predictions.csv")
    table["label"] = table["label"].replace({"control": HOSTILE, "NPM1": "=cmd|' /C calc'!A0"})
    table.to_csv(own / "predictions.csv", index=False)
    answer_all(own, f"{HOSTILE} [x](javascript:alert(1)) **b**")
    write_guidelines(own)
    found = pages(own)
    assert [name for name, page in found.items() if HOSTILE in page and not name.endswith(".csv")] == []
    assert HOSTILE in "".join(ElementTree.fromstring(found["flow.svg"].encode()).itertext())
    assert "](javascript" not in found["model_card.md"].replace("\\]", "")
    assert "**b**" not in found["model_card.md"]
    assert re.search(r"(^|[,\n\"])=cmd", found["table1.csv"]) is None
    rows = _rows(found["numbers.html"])
    assert at(metrics, "/per_class/a~1b~0c/n") == 6
    assert "/per_class/a~1b~0c/n" in {row["where"] for row in rows.values()}


def test_what_may_tell_who_a_patient_is_blocks_the_drafts_and_answers_do_not(tmp_path: Path) -> None:
    run = make_run(tmp_path, notes=("Mueller_1957-03-02 was left out.",), controls=False)
    answer_all(run, "Patients entered from 2015-01-03 to 2019-12-31; Dr Anna Weber labelled.")
    with pytest.raises(PrivacyError, match="The draft of guidelines was not written"):
        write_guidelines(run)
    assert not (run / "report").exists()
    assert [path.name for path in run.iterdir() if path.name.startswith(".")] == []
    write_guidelines(run, allow_identifiers="An invented patient.")
    kept = json.loads((run / "provenance.json").read_text())["identifiers_allowed"]
    assert [one["reason"] for one in kept] == ["An invented patient."]
    assert "2019-12-31" in pages(run)["claim.html"]


def test_drafts_hold_no_patient_id_and_load_nothing(run: Path) -> None:
    found = pages(run)
    ids = set(patients().index)
    assert [(name, one) for name, page in found.items() for one in ids if re.search(rf"\b{one}\b", page)] == []
    for name, page in found.items():
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page), name
        assert not re.search(r"<link|<iframe|@import|<script[^>]+src|url\(", page), name


def test_other_files_in_the_folder_stay(run: Path, tmp_path: Path) -> None:
    own = _copied(run, tmp_path)
    (own / "report" / "guidelines").mkdir(parents=True, exist_ok=True)
    (own / "report" / "guidelines" / "mine.docx").write_text("mine")
    write_guidelines(own)
    assert pages(own)["mine.docx"] == "mine"


def test_drafts_of_the_same_run_are_the_same_bytes(run: Path) -> None:
    before = pages(run)
    write_guidelines(run)
    assert pages(run) == before


def _copied(run: Path, root: Path) -> Path:
    """The run's own files in another folder."""
    own = root / "copy"
    (own / "heads").mkdir(parents=True)
    for path in [*run.glob("*.json"), *run.glob("*.csv"), run / "settings.yaml"]:
        (own / path.name).write_bytes(path.read_bytes())
    return own


def test_the_labels_of_the_toy_are_its_classes() -> None:
    assert set(patients()["label"]) == set(CLASSES)
    assert np.isnan(patients()["age"]).sum() == 2
