"""The table of a training's figures, also of one that is killed, and its picture."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from encoders.dinov2.history import History
from encoders.dinov2.pretrain_settings import PretrainSettings
from milkit.errors import RunError


def table(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "history.csv")


def write_some(folder: Path, steps: range) -> None:
    history = History(folder, steps.start)
    for step in steps:
        history.add(step, {"loss": 10 / step, "rate": float(step)})


# --- the table --------------------------------------------------------------------------------------------------------


def test_a_row_is_in_the_file_at_once(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.add(10, {"loss": 0.1, "rank_me": 3})
    assert (tmp_path / "history.csv").read_text() == "step,loss,rank_me\n10,0.1,3\n"
    history.add(20, {"rank_me": math.nan, "loss": math.inf})
    assert (tmp_path / "history.csv").read_text().splitlines()[-1] == "20,inf,nan"


def test_numbers_of_single_precision_are_kept_exactly(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=50).astype(np.float32) * np.float32(1e-5)
    history = History(tmp_path)
    for step, value in enumerate(values):
        history.add(step, {"loss": float(value)})
    np.testing.assert_array_equal(table(tmp_path)["loss"].to_numpy(dtype=np.float32), values)


def test_a_new_name_gets_a_column_and_rows_without_it_are_empty(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.add(10, {"loss": 2.0})
    history.add(10, {"knn_20": 0.5})
    history.add(20, {"loss": 1.0})
    found = table(tmp_path)
    assert found.columns.tolist() == ["step", "loss", "knn_20"]
    assert found["step"].tolist() == [10, 10, 20]
    assert found["loss"].dropna().tolist() == [2.0, 1.0]
    assert found["knn_20"].dropna().tolist() == [0.5]


def test_going_on_cuts_what_was_written_after_the_checkpoint(tmp_path: Path) -> None:
    write_some(tmp_path / "whole", range(1, 13))
    write_some(tmp_path / "killed", range(1, 10))
    write_some(tmp_path / "killed", range(6, 13))
    assert (tmp_path / "killed" / "history.csv").read_bytes() == (tmp_path / "whole" / "history.csv").read_bytes()


@pytest.mark.parametrize("lost", range(1, 12))
def test_a_torn_last_line_is_cut(tmp_path: Path, lost: int) -> None:
    """Wherever it is torn, also such that what is left of it reads like a row."""
    write_some(tmp_path, range(1, 10))
    whole = (tmp_path / "history.csv").read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    assert 0 < lost < len(last)
    (tmp_path / "history.csv").write_bytes(whole[:-lost])
    History(tmp_path, 100)
    assert (tmp_path / "history.csv").read_bytes() == whole[: -len(last)]


@pytest.mark.parametrize("torn", [b"", b"st", b"step,loss"])
def test_a_torn_header_is_begun_again(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / "history.csv").write_bytes(torn)
    History(tmp_path, 5).add(5, {"loss": 1.0})
    assert (tmp_path / "history.csv").read_text() == "step,loss\n5,1\n"


def test_a_training_that_begins_again_begins_a_new_table(tmp_path: Path) -> None:
    write_some(tmp_path, range(1, 10))
    write_some(tmp_path, range(1, 3))
    assert table(tmp_path)["step"].tolist() == [1, 2]


def test_columns_stay_where_their_rows_were_cut(tmp_path: Path) -> None:
    history = History(tmp_path)
    history.add(1, {"loss": 1.0})
    history.add(2, {"knn_20": 0.5})
    History(tmp_path, 2).add(2, {"knn_20": 0.25})
    assert (tmp_path / "history.csv").read_text() == "step,loss,knn_20\n1,1,\n2,,0.25\n"


@pytest.mark.parametrize(("content", "line"), [("time,loss\n1,2\n", 1), ("step,loss\n1,2\n3\n", 3), ("step\na\n", 2)])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: str, line: int) -> None:
    (tmp_path / "history.csv").write_text(content)
    expected = rf"Line {line} of .*history.csv is not one of a training's figures, .*; mend the line, or move"
    with pytest.raises(RunError, match=expected):
        History(tmp_path, 10)
    assert (tmp_path / "history.csv").read_text() == content


# --- the picture ------------------------------------------------------------------------------------------------------


def settings(prototypes: int = 512, batch_size: int = 32) -> PretrainSettings:
    return PretrainSettings.model_validate(
        {"sources": ["synthetic"], "heads": {"prototypes": prototypes}, "batch_size": batch_size}
    )


def drawn(folder: Path, chosen: PretrainSettings | None, rows: int = 100) -> str:
    history = History(folder)
    for step in range(1, rows + 1):
        history.add(step, {"dino": 0.5 * math.log(512), "ibot": 3.0 / step, "learning_rate": 1e-3 * step})
    history.add(rows, {"knn_20": 0.5, "knn_1": 0.25, "rank_me": 17.0})
    history.draw(chosen)
    return (folder / "curves.svg").read_text()


def heights(picture: str, colour: str) -> list[set[float]]:
    """The heights of the points of every curve of a colour, from the first panel on."""
    paths = re.findall(rf'd="([^"]*)" clip-path="[^"]*" style="[^"]*stroke: {colour}', picture)
    return [{float(y) for y in re.findall(r"[ML] [\d.]+ ([\d.]+)", path)} for path in paths]


def test_the_picture_has_a_panel_for_what_there_is(tmp_path: Path) -> None:
    picture = drawn(tmp_path, settings())
    titles = ["Cross entropies", "Balanced accuracy", "RankMe", "Learning rate"]
    assert [title for title in titles if title not in picture] == []
    assert [title for title in ("KoLeo", "Hierarchical", "Norms", "Images a second") if title in picture] == []
    with Image.open(tmp_path / "curves.png") as image:
        assert image.format == "PNG"
        assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_the_losses_stand_between_what_nothing_learned_and_certain_targets_give(tmp_path: Path) -> None:
    picture = drawn(tmp_path, settings())
    assert f"ln K = {math.log(512):.2f}" in picture
    assert f"ln(K / 2B) = {math.log(8):.2f}" in picture


@pytest.mark.parametrize("batch_size", [256, 400])
def test_a_batch_that_can_be_certain_of_all_prototypes_has_no_floor(tmp_path: Path, batch_size: int) -> None:
    assert "ln(K / 2B)" not in drawn(tmp_path, settings(batch_size=batch_size))


def test_without_settings_there_are_no_lines(tmp_path: Path) -> None:
    assert "ln K" not in drawn(tmp_path, None)


def test_a_student_that_has_learned_nothing_lies_on_the_upper_line(tmp_path: Path) -> None:
    """The loss of the class tokens has a factor of 0.5, which the curve has not."""
    picture = drawn(tmp_path, settings(), rows=20)
    (curve, *_), lines = heights(picture, "#0173b2"), heights(picture, "#1b2430")
    assert len(lines) == 2
    assert curve == min(lines, key=max)  # y grows downwards


@pytest.mark.parametrize("rows", [0, 1, 59, 61, 700])
def test_any_number_of_rows_can_be_drawn(tmp_path: Path, rows: int) -> None:
    history = History(tmp_path)
    for step in range(1, rows + 1):
        history.add(
            step, {"dino": math.nan if step == 3 else 1 / step, "gradient_backbone": math.inf if step == 2 else 1}
        )
    history.draw(settings())
    assert (tmp_path / "curves.svg").exists() == (rows > 0)


def test_the_same_figures_give_the_same_picture_and_it_does_not_grow_with_them(tmp_path: Path) -> None:
    first, again = (drawn(tmp_path / name, settings(), rows=2000) for name in ("a", "b"))
    assert first == again
    assert len(first) < 1.1 * len(drawn(tmp_path / "c", settings(), rows=1000))
