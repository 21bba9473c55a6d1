"""A blinded review: which cells it shows, what its file holds and does not hold, and the key that stays behind."""

import base64
import html
import io
import json
import re
import shutil
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from review_toys import CLASSES, PATIENTS, key_of, review_run
from typer.testing import CliRunner

from milkit.cli import app
from milkit.errors import ReviewError, RunError
from milkit.review.key import Key, find_run
from milkit.review.out import Review, write_review
from milkit.review.page import SHORTCUTS, choices
from milkit.review.sample import arrange, choose, new_codes, stands_for
from milkit.taxonomy import Taxonomy

DATA_URI = re.compile(r"data:image/webp;base64,([A-Za-z0-9+/=]+)")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return review_run(tmp_path_factory.mktemp("review"))


@pytest.fixture(scope="module")
def made(run: Path) -> Review:
    return write_review(run, n_cells=30, n_twice=4, readers=("A. Meyer", "B"))


@pytest.fixture
def bags() -> tuple[pd.DataFrame, "pd.Series[str]"]:
    """Six patients of a large class and two of a small one, with twenty ranked cells each."""
    labels = pd.Series({f"P{n}": "rare" if n in (3, 6) else "common" for n in range(8)})
    rows = [(name, f"{name}/{rank}", rank) for name in labels.index for rank in range(1, 21)]
    return pd.DataFrame(rows, columns=["patient_id", "cell_id", "rank"]), labels


def page_of(made: Review) -> str:
    return made.page.read_text(encoding="utf-8")


def without_pictures(page: str) -> str:
    return DATA_URI.sub("", page)


@pytest.mark.parametrize("word", [*CLASSES, "top", "random", "bottom", "Mueller", "study", "attention", "predict",
                                  "percentile", "rank", ".png", "images", "noise", "dinobloom"])  # fmt: skip
def test_the_file_says_nothing_of_patients_predictions_groups_and_files(made: Review, word: str) -> None:
    """Also inside longer words; the taxonomy's own, such as haematopoietic, are the same for every cell."""
    text = without_pictures(page_of(made)).replace("haematopoietic", "")
    assert len(text) > 10_000
    assert word.lower() not in text.lower()


def test_no_cell_of_the_run_is_named(run: Path, made: Review) -> None:
    text = without_pictures(page_of(made))
    assert not [item["cell_id"] for item in key_of(made)["items"] if item["cell_id"] in text]
    assert not re.search(r"\d+/\d+\.png", text)


def test_pictures_are_the_true_pixels_without_any_tag(run: Path, made: Review) -> None:
    """A file's own tags, such as a patient's name, are left behind: the page has fresh WebP with a picture alone."""
    source = json.loads((run.parent.parent / "noise.zarr" / "source.json").read_text())["root"]
    paths = pd.read_csv(run.parent.parent / "noise.zarr" / "cells.csv").set_index("cell_id")["path"]
    items = key_of(made)["items"]
    pictures = [base64.b64decode(content) for content in DATA_URI.findall(page_of(made))]
    assert len(pictures) == len(items) == 34
    for item, content in zip(items, pictures, strict=True):
        assert re.findall(rb"EXIF|XMP |ICCP", content[:64] + content[-64:]) == []
        shown = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        np.testing.assert_array_equal(shown, np.asarray(Image.open(Path(source) / paths[item["cell_id"]])))


def test_a_tag_with_a_name_does_not_reach_the_file(tmp_path: Path) -> None:
    run = review_run(tmp_path)
    for path in (tmp_path / "images").rglob("*.png"):
        image = Image.open(path)
        exif = image.getexif()
        exif[270] = "Mueller_1957-03-02"
        image.save(path, exif=exif)
    assert b"Mueller_1957" in path.read_bytes()
    content = write_review(run, n_cells=9).page.read_bytes()
    pictures = [base64.b64decode(found) for found in re.findall(rb"base64,([A-Za-z0-9+/=]+)", content)]
    assert pictures
    assert not [part for part in (content, *pictures) if b"1957" in part and b"Mueller" in part]


def test_the_page_loads_and_sends_nothing(made: Review) -> None:
    page = html.unescape(page_of(made))
    assert re.search(r"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-[^']+'", page)
    assert "form-action 'none'" in page
    assert not re.search(
        r"https?:|@import|url\(|<link|<iframe|src=\"(?!data:)|fetch\(|XMLHttp|sendBeacon|WebSocket", page
    )


def test_all_pictures_have_alternative_texts_that_tell_nothing(made: Review) -> None:
    assert set(re.findall(r'<img[^>]* alt="([^"]*)"', page_of(made))) == {""}
    assert re.findall(r'aria-label="(Cell \d+)"', page_of(made)) == [f"Cell {n}" for n in range(1, 35)]


def test_readers_names_are_escaped(run: Path) -> None:
    page = page_of(write_review(run, n_cells=3, readers=("<script>alert(1)</script>", 'B "&')))
    assert "<option>&lt;script&gt;alert(1)&lt;/script&gt;</option>" in page
    assert page.count("<script>") == 1


def test_the_key_is_its_owner_s_alone_and_tells_which_cell_each_code_is(run: Path, made: Review) -> None:
    assert stat.S_IMODE(made.key.stat().st_mode) == 0o600
    assert made.key.parent == made.page.parent == run / "review"
    items = key_of(made)["items"]
    assert re.findall(r'data-code="([^"]+)"', page_of(made)) == [item["code"] for item in items]
    assert {item["patient_id"] for item in items} <= set(PATIENTS)
    assert {item["group"] for item in items} == {"top", "random", "bottom"}
    loaded = Key.load(run, made.review)
    assert loaded.items.to_dict("records") == items
    assert loaded.taxonomy == Taxonomy.load()
    assert loaded.readers == ("A. Meyer", "B")


def test_a_seed_gives_the_same_cells_in_the_same_order_under_other_codes(run: Path, made: Review) -> None:
    again = key_of(write_review(run, n_cells=30, n_twice=4))
    before = key_of(made)
    assert again["review"] != before["review"]
    first, second = pd.DataFrame(before["items"]), pd.DataFrame(again["items"])
    pd.testing.assert_frame_equal(first.drop(columns="code"), second.drop(columns="code"))
    assert not set(first["code"]) & set(second["code"])
    other = pd.DataFrame(key_of(write_review(run, n_cells=30, n_twice=4, seed=1))["items"])
    assert other["cell_id"].tolist() != first["cell_id"].tolist()


def test_the_order_mixes_patients_and_groups(made: Review) -> None:
    items = pd.DataFrame(key_of(made)["items"])
    for column in ("patient_id", "group"):
        changes = (items[column] != items[column].shift()).mean()
        assert changes > 0.45  # sorted by group, 3 of 34 would be changes


def test_cells_shown_twice_come_again_in_the_second_half(made: Review) -> None:
    items = pd.DataFrame(key_of(made)["items"])
    assert (made.n_cells, made.n_twice, len(items)) == (30, 4, 34)
    again = items[items["showing"] == 2]
    assert len(again) == 4
    assert (again.index >= 15).all()
    for position, item in again.iterrows():
        earlier = items.index[(items["cell_id"] == item["cell_id"]) & (items["showing"] == 1)]
        assert earlier.item() < min(position, 10)


@pytest.mark.parametrize(("n", "twice"), [(1, 0), (1, 1), (2, 1), (20, 0), (20, 2), (21, 7)])
def test_every_cell_is_shown_once_and_some_again(n: int, twice: int) -> None:
    places, showing = arrange(n, twice, seed=0)
    assert sorted(places[showing == 1]) == list(range(n))
    assert len(set(places[showing == 2])) == twice == (showing == 2).sum()


@pytest.mark.parametrize("n_cells", [1, 3, 5, 9, 24, 60, 100])
def test_cells_are_dealt_out_in_threes(bags: tuple[pd.DataFrame, "pd.Series[str]"], n_cells: int) -> None:
    chosen = choose(*bags, n_cells, seed=0)
    assert len(chosen) == n_cells
    assert not chosen["cell_id"].duplicated().any()
    groups = chosen["group"].value_counts().reindex(["top", "random", "bottom"], fill_value=0)
    assert groups.max() - groups.min() <= -(-n_cells // 24)
    per_patient = chosen["patient_id"].value_counts()
    assert per_patient.max() - per_patient.min() <= 5


def test_classes_take_turns_in_a_small_review(bags: tuple[pd.DataFrame, "pd.Series[str]"]) -> None:
    for seed in range(5):
        chosen = choose(*bags, 12, seed=seed)
        counts = bags[1][chosen["patient_id"].unique()].value_counts()
        assert counts.to_dict() == {"common": 2, "rare": 2}


def test_weights_of_shown_cells_sum_to_the_whole_bag(bags: tuple[pd.DataFrame, "pd.Series[str]"]) -> None:
    """Of twenty cells two are highest, two lowest, and two random ones stand for eight each."""
    chosen = choose(*bags, 48, seed=0)
    each = stands_for(chosen, np.ones(48, dtype=bool))
    assert set(each[chosen["group"] != "random"]) == {1.0}
    assert set(each[chosen["group"] == "random"]) == {8.0}
    assert set(each.groupby(chosen["patient_id"]).sum()) == {20.0}


def test_a_random_cell_that_cannot_be_read_leaves_its_share_to_the_other(
    bags: tuple[pd.DataFrame, "pd.Series[str]"],
) -> None:
    chosen = choose(*bags, 48, seed=0)
    shown = np.ones(48, dtype=bool)
    lost = chosen.index[chosen["group"] == "random"][0]
    shown[lost] = False
    mate = (chosen["patient_id"] == chosen["patient_id"][lost]) & (chosen["group"] == "random") & shown
    assert stands_for(chosen, shown)[mate].tolist() == [16.0]


def test_codes_are_different_and_no_numbers() -> None:
    codes = new_codes(2000)
    assert len(set(codes)) == 2000
    assert all(re.fullmatch(r"c\d{6}", code) for code in codes)
    assert codes != sorted(codes)


def test_every_node_but_the_root_can_be_chosen_and_no_key_twice() -> None:
    taxonomy = Taxonomy.load()
    found = choices(taxonomy)
    assert [choice.label for choice in found] == [*taxonomy.nodes[1:], "unclear"]
    keys = [choice.key for choice in found if choice.key]
    assert len(set(keys)) == len(keys) == len(SHORTCUTS) + 1
    assert not set(keys) & set("ucz/+-=")  # these move, undo, search and comment


def test_another_taxonomy_gets_digits_for_its_first_leaves(tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text("all:\n  ring form:\n  trophozoite:\n")
    keys = {choice.label: choice.key for choice in choices(Taxonomy.load(str(tmp_path / "two.yaml")))}
    assert keys == {"ring form": "1", "trophozoite": "2", "unclear": "0"}


def test_images_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    run = review_run(tmp_path)
    for path in sorted((tmp_path / "images").rglob("*.png"))[::2]:
        path.unlink()
    made = write_review(run, n_cells=30, n_twice=0)
    assert made.n_unreadable > 0
    assert made.n_cells + made.n_unreadable == 30
    assert len(DATA_URI.findall(page_of(made))) == made.n_cells
    shutil.rmtree(tmp_path / "images")
    with pytest.raises(ReviewError, match=r"None of the 30 chosen images in .* could be read; put the images back"):
        write_review(run, n_cells=30)


def test_a_store_without_images_is_refused(tmp_path: Path) -> None:
    run = review_run(tmp_path)
    (tmp_path / "noise.zarr" / "source.json").unlink()
    with pytest.raises(ReviewError, match=r"knows no images to show; make the run from a store that `extract` made"):
        write_review(run)


@pytest.mark.parametrize("names", [("A", "A "), ("A", "")])
def test_readers_must_differ(run: Path, names: tuple[str, str]) -> None:
    with pytest.raises(ReviewError, match=r"expected names that differ; give each with its own --readers"):
        write_review(run, readers=names)


def test_a_newer_or_damaged_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "review").mkdir()
    path = tmp_path / "review" / "r1.key.json"
    path.write_text('{"format": "milkit-review-key", "version": 2}')
    with pytest.raises(ReviewError, match=r"is milkit-review-key 2, expected milkit-review-key 1; read it with"):
        Key.load(tmp_path, "r1")
    path.write_text("{")
    with pytest.raises(RunError, match="not valid JSON"):
        Key.load(tmp_path, "r1")


def test_a_review_without_its_key_is_refused(run: Path, made: Review, tmp_path: Path) -> None:
    assert find_run(made.review, [tmp_path, run]) == run
    with pytest.raises(ReviewError, match=r"The key of the review r0 is not in .*; name the run .* with --run"):
        find_run("r0", [run])


def test_the_command_says_what_it_made(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["review", "out", str(run), "--cells", "12", "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["n_cells"], told["n_twice"], told["n_patients"]) == (12, 1, 4)
    assert Path(told["page"]).is_file()
    refused = CliRunner().invoke(app, ["review", "out", str(tmp_path / "none")])
    assert refused.exit_code == 2
    assert refused.stderr.startswith("milkit: There is no run at ")
