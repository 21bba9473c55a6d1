"""Who is analysed: every rule, in its order, and the counts that a flow diagram needs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from milkit.cohort import Cohort, load_cohort
from milkit.errors import CohortError, SettingsError
from milkit.patient_flow import Exclusion, flow_notes, flow_table, without_flow
from milkit.settings import CohortRecipe

TABLE = """id,label,age,Consent,seen
P1,A,17,yes,2014-06-01
P2,A,18,yes,2015-06-01
P3,B,,yes,2016-06-01
P4,B,60,no,2017-06-01
P5,unclear,40,yes,2018-06-01
P6,B,61.5,yes,
P7,,50,yes,2018-06-01
"""


@pytest.fixture
def root(tmp_path: Path, write_image: Callable[..., Path]) -> Path:
    """Seven patients; the second has two images, the last none, the others one."""
    (tmp_path / "t.csv").write_text(TABLE)
    for name in ("P1/1", "P2/1", "P2/2", "P3/1", "P4/1", "P5/1", "P6/1"):
        write_image(tmp_path / f"{name}.png")
    return tmp_path


NEEDED = [{"column": "n_cells", "at_least": 1}]


def load(root: Path, include: Any = (), exclude: Any = (), labels: Any = None) -> Cohort:
    arguments = {
        "images": "{patient_id}/{cell_id}.png",
        "patients": {"table": "t.csv", "include": [*NEEDED, *include], "exclude": list(exclude)},
        "columns": {"patient_id": "id", "seen": {"date": "%Y-%m-%d"}},
        "labels": labels,
    }
    return load_cohort(CohortRecipe(name="study", factory="tabular", root=root, arguments=arguments))


def test_an_inclusion_keeps_those_who_meet_it_and_counts_the_unknown_apart(root: Path) -> None:
    cohort = load(root, include=[{"column": "age", "at_least": 18}])
    assert list(cohort.patients.index) == ["P2", "P4", "P5", "P6"]
    assert set(cohort.cells["patient_id"]) == set(cohort.patients.index)
    assert flow_table(cohort.notes).to_dict("list") == {
        "step": ["enrolled", "excluded", "excluded", "excluded", "analysed"],
        "reason": ["", "n_cells not at least 1", "age missing", "age not at least 18", ""],
        "patients": [7, 1, 1, 1, 4],
        "left": [7, 6, 5, 4, 4],
    }


@pytest.mark.parametrize(
    ("rule", "gone"),
    [
        ({"column": "age", "at_most": 17}, {"P1"}),
        ({"column": "age", "at_least": 18, "at_most": 60}, {"P2", "P4", "P5"}),
        ({"column": "age", "in": [40, "60"]}, {"P4", "P5"}),
        ({"column": "age", "missing": True}, {"P3"}),
        ({"column": "label", "in": ["unclear"]}, {"P5"}),
        ({"column": "Consent", "in": ["no"]}, {"P4"}),
        ({"column": "seen", "at_least": "2017-06-01"}, {"P4", "P5"}),
        ({"column": "seen", "missing": True}, {"P6"}),
        ({"column": "patient_id", "in": ["P1", "P2"]}, {"P1", "P2"}),
        ({"column": "n_cells", "at_least": 2}, {"P2"}),
    ],
)
def test_an_exclusion_takes_away_those_who_meet_it(root: Path, rule: dict[str, Any], gone: set[str]) -> None:
    cohort = load(root, exclude=[rule])
    assert {f"P{n}" for n in range(1, 7)} - set(cohort.patients.index) == gone
    last = flow_table(cohort.notes).iloc[-2]
    assert (last["step"], last["patients"], last["left"]) == ("excluded", len(gone), 6 - len(gone))


def test_each_step_counts_those_that_the_steps_before_it_left(root: Path) -> None:
    young = {"column": "age", "at_most": 30, "reason": "under age"}
    refused = {"column": "Consent", "in": ["no"], "reason": "consent (written) withdrawn"}
    table = flow_table(load(root, exclude=[young, young, refused]).notes)
    assert table["reason"].tolist()[2:5] == ["under age", "under age", "consent (written) withdrawn"]
    assert table["patients"].tolist() == [7, 1, 2, 0, 1, 3]
    assert table["left"].iloc[-1] == 3


def test_excluded_patients_need_no_class_in_the_recipe(root: Path) -> None:
    labels = {"A": "case", "B": "control"}
    cohort = load(root, exclude=[{"column": "label", "in": ["unclear"]}], labels=labels)
    assert cohort.classes == ("case", "control")
    with pytest.raises(CohortError, match=r"holds labels that the recipe does not list: 'unclear' \(P5\)"):
        load(root, labels=labels)


def test_a_rule_on_the_label_means_the_class(root: Path) -> None:
    labels = {"A": "case", "B": "control", "unclear": "other"}
    assert "P5" not in load(root, exclude=[{"column": "label", "in": ["other"]}], labels=labels).patients.index


def test_without_rules_there_is_no_flow(root: Path) -> None:
    (root / "t.csv").write_text("\n".join(TABLE.splitlines()[:-1]))
    arguments = {"images": "{patient_id}/{cell_id}.png", "patients": "t.csv", "columns": {"patient_id": "id"}}
    cohort = load_cohort(CohortRecipe(name="study", factory="tabular", root=root, arguments=arguments))
    assert cohort.notes == ()
    assert flow_table(cohort.notes).empty


def test_rules_that_leave_nobody_are_refused(root: Path) -> None:
    with pytest.raises(CohortError, match=r"leave no patient of 7: the last went with 'age not at least 90'; mend"):
        load(root, include=[{"column": "age", "at_least": 90}])


def test_a_rule_on_a_column_that_is_not_there_names_the_nearest(root: Path) -> None:
    with pytest.raises(CohortError, match=r"has no column 'consent' \(nearest: 'Consent'; found: id, label"):
        load(root, exclude=[{"column": "consent", "in": ["no"]}])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            {"column": "Consent", "at_least": 1},
            r"'Consent' against 1, where numbers were expected, not 'yes', 'no'; m",
        ),
        ({"column": "age", "at_least": "2015-01-01"}, r"'age' against 2015-01-01, where dates, declared with `date`"),
    ],
)
def test_a_comparison_that_cannot_be_made_shows_the_values(root: Path, rule: dict[str, Any], message: str) -> None:
    with pytest.raises(CohortError, match=message):
        load(root, include=[rule])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"column": "age"}, r"a rule needs `in`, `at_least`, `at_most` or `missing: true`"),
        ({"column": "age", "above": 18}, r"patients.exclude.0.above: Extra inputs"),
        ({"column": "Consent", "in": [False]}, r"patients.exclude.0.in.0"),
    ],
)
def test_a_rule_that_is_none_is_named(root: Path, rule: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(root, exclude=[rule])


def test_a_recipe_with_rules_survives_its_own_dump(root: Path) -> None:
    """A run writes the recipe as JSON would: dates become text there."""
    rule = {"column": "seen", "at_least": "2016-01-01"}
    assert set(load(root, include=[rule]).patients.index) == {"P3", "P4", "P5"}


SAMPLES = """id,slide,label,quality
P1,a,A,good
P1,b,A,bad
P2,a,A,bad
P3,a,B,good
P3,b,B,good
"""


def samples(tmp_path: Path, write_image: Callable[..., Path], table: str, *exclude: dict[str, Any]) -> Cohort:
    """A study with a row and an image a slide."""
    (tmp_path / "t.csv").write_text(table)
    for row in table.splitlines()[1:]:
        write_image(tmp_path / "/".join(row.split(",")[:2]) / "1.png")
    arguments = {
        "images": "{patient_id}/{sample_id}/{cell_id}.png",
        "patients": {"table": "t.csv", "exclude": list(exclude)},
        "columns": {"patient_id": "id", "sample_id": "slide"},
    }
    return load_cohort(CohortRecipe(name="study", factory="tabular", root=tmp_path, arguments=arguments))


def test_samples_that_leave_while_their_patient_stays_are_counted(
    tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    poor = {"column": "quality", "in": ["bad"], "reason": "poor stain"}
    cohort = samples(tmp_path, write_image, SAMPLES, poor)
    assert cohort.cells["cell_id"].tolist() == ["P1/a/1", "P3/a/1", "P3/b/1"]
    assert flow_table(cohort.notes).to_dict("list") == {
        "step": ["enrolled", "excluded", "analysed"],
        "reason": ["", "poor stain", ""],
        "patients": [3, 1, 2],
        "left": [3, 2, 2],
        "samples": [5, 2, 3],
        "samples_left": [5, 3, 3],
    }


def test_a_rule_that_takes_samples_alone_is_a_step_without_patients(
    tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    rule = {"column": "sample_id", "in": ["b"]}
    cohort = samples(tmp_path, write_image, SAMPLES, rule)
    assert cohort.notes[:3] == (
        "Patient flow: 3 enrolled; samples: 5.",
        "Patient flow: 0 excluded (sample_id one of b), 3 left; samples: 2 excluded, 3 left.",
        "Patient flow: 3 analysed; samples: 3.",
    )


def test_one_sample_of_each_patient_is_not_counted_apart(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    table = "id,slide,label,quality\nP1,a,A,good\nP2,a,A,bad\nP3,a,B,good\n"
    notes = samples(tmp_path, write_image, table, {"column": "quality", "in": ["bad"]}).notes
    assert notes[1] == "Patient flow: 1 excluded (quality one of bad), 2 left."
    assert "samples" not in flow_table(notes)


def test_sentences_with_samples_are_read_back_as_they_were_written() -> None:
    steps = [Exclusion("no stain (x), 1 left; samples: 7 excluded, 2 left", 1, 9_000, 1_500, 12_000)]
    table = flow_table(flow_notes(9_001, steps, 13_500))
    assert table["reason"].tolist() == ["", steps[0].reason, ""]
    assert table["samples"].tolist() == [13_500, 1_500, 12_000]
    assert table["samples_left"].tolist() == [13_500, 12_000, 12_000]


def test_notes_that_are_no_flow_are_told_from_those_that_are() -> None:
    notes = ["A note.", *flow_notes(7, [Exclusion("age missing", 1, 6)]), "Patient flow: unknown."]
    assert without_flow(notes) == ["A note.", "Patient flow: unknown."]


def test_sentences_are_read_back_as_they_were_written() -> None:
    steps = [Exclusion("age (years) not at least 18), 3 left", 1_204, 9_000), Exclusion("label missing", 0, 9_000)]
    table = flow_table(["Another note.", *flow_notes(10_204, steps)])
    assert table["reason"].tolist() == ["", steps[0].reason, steps[1].reason, ""]
    assert table["patients"].tolist() == [10_204, 1_204, 0, 9_000]
    assert table["left"].tolist() == [10_204, 9_000, 9_000, 9_000]
