"""Ids that identify stay in the store: runs, logs, heads, reports and reviews carry study ids."""

import csv
import io
import json
import re
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from milkit.bags import BagStore, image_paths, open_patients, source_texts, study_cells, study_patients
from milkit.bags.keys import KEY, StudyKey, find_key
from milkit.cli import app
from milkit.errors import StoreError
from milkit.tables import read_table

NAMES = ("Mueller", "Özdemir", "Kowalska", "Иванов", "Nguyen", "OBrien", "Santos", "Weber", "Yilmaz", "Dubois",
         "Papadopoulos", "Lindqvist")  # fmt: skip
pytestmark = pytest.mark.slow

PATIENTS = tuple(f"{name}_19{50 + number}-03-02" for number, name in enumerate(NAMES))
FAST = ("--set", "training.max_epochs=2", "--set", "bootstrap=100")
PLUGIN = """
from torch import nn
from milkit.encoder import Encoder, Transform, encoder_digest
from milkit.registry import ENCODERS

class Means(nn.Module):
    def forward(self, images):
        return nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)

if "means" not in ENCODERS.names():
    @ENCODERS.register("means")
    def means() -> Encoder:
        '''Colours of the four quarters.'''
        model, transform = Means(), Transform(size=8)
        digest = encoder_digest(model, transform, version="1")
        return Encoder("means", model, transform, 12, digest, precisions=("fp32",))
"""


def _run(workspace: Path, *arguments: object, status: int = 0) -> Any:
    words = ["--workspace", workspace, "--plugin", workspace.parent / "means.py", *arguments]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == status, (result.exit_code, result.output, result.exception)
    return result


def _write_cohort(folder: Path) -> None:
    """Images below folders that are called after patients, whose files have a name and a date of birth, too."""
    for number, patient in enumerate(PATIENTS):
        for cell in range(7):
            path = folder / "Ausstriche" / patient / f"{patient}-cell{cell}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = np.random.default_rng([number, cell]).integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(noise).save(path)
    labels = ["AML", "APL", "control"] * (len(PATIENTS) // 3)
    table = {"patient_id": PATIENTS, "label": labels, "age": range(40, 52), "time": range(1, 13), "event": [1, 0] * 6}
    pd.DataFrame(table).to_csv(folder / "patients.csv", index=False)


def _recipe(folder: Path, name: str, **more: object) -> Path:
    path = folder / f"{name}.yaml"
    arguments = {"images": "Ausstriche/{patient_id}/{cell_id}.png", "patients": "patients.csv"}
    recipe = {"name": name, "factory": "tabular", "root": str(folder), "arguments": arguments, **more}
    path.write_text(json.dumps(recipe), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which every verb was called on a cohort of one's own."""
    base = tmp_path_factory.mktemp("study")
    _write_cohort(images := base / "clinic")
    (base / "means.py").write_text(PLUGIN)
    workspace = base / "work"
    _run(workspace, "extract", "--cohort", _recipe(images, "own"), "--encoder", "means", "--batch-size", 4)
    published = pd.DataFrame({"patient_id": PATIENTS, "fold": [number // 3 % 4 for number in range(12)]})
    published.to_csv(base / "folds.csv", index=False)
    known = pd.DataFrame({"cell_id": _source_cells(), "planted": [int(n % 7 < 2) for n in range(84)]})
    known.to_csv(base / "known.csv", index=False)
    _run(workspace, "train-mil", "--folds-file", base / "folds.csv", "--name", "first", *FAST)
    run = workspace / "runs" / "first"
    _run(workspace, "explain", run, "--known", base / "known.csv", "--set", "bootstrap=100")
    _run(workspace, "survival", run)
    _run(workspace, "report", "--run", run)
    _run(workspace, "review", "out", run, "--cells", 12)
    _run(workspace, "audit", run)
    return workspace


def _source_cells() -> list[str]:
    return [f"{patient}/{patient}-cell{cell}" for patient in PATIENTS for cell in range(7)]


def _texts(path: Path) -> Iterator[str]:
    """All that a file says, also where it is compressed."""
    yield path.name
    yield path.read_bytes().decode("utf-8", errors="ignore")
    yield path.read_bytes().decode("utf-16-le", errors="ignore")
    if path.suffix == ".parquet":
        yield pq.read_table(path).to_pandas().to_csv()
    if path.suffix == ".pdf":
        yield from _pdf_texts(path.read_bytes())
    if path.suffix in {".json", ".html"}:
        yield re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), path.read_text(encoding="utf-8"))


def _pdf_texts(content: bytes) -> Iterator[str]:
    """What the compressed streams of a PDF say."""
    # Only the line feed is taken for the line's end: one compressed stream in 256 ends with a carriage return of its
    # own, and one that belongs to the line's end instead lies behind the compressed data, where it does no harm.
    for stream in re.findall(rb"stream\r?\n(.*?)\nendstream", content, re.DOTALL):
        inflate = zlib.decompressobj()
        text = inflate.decompress(stream)
        assert inflate.eof, "a stream of a PDF ends before its compressed data do"
        yield text.decode("latin-1")


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_a_pdfs_stream_is_read_whole_whatever_byte_it_ends_with(line_end: bytes) -> None:
    texts = ["a" * number for number in range(256)]
    last = {zlib.compress(text.encode())[-1:]: text for text in texts}
    assert {b"\r", b"\n"} <= last.keys()
    for text in last.values():
        stream = b"<<>>\nstream" + line_end + zlib.compress(text.encode()) + line_end + b"endstream\nendobj"
        assert list(_pdf_texts(stream)) == [text]


def test_no_file_of_a_run_says_who_a_patient_is(work: Path) -> None:
    telling = re.compile("|".join([*NAMES, r"19[56]\d-03-02", "Ausstriche", "-cell\\d"]), re.IGNORECASE)
    files = [path for path in (work / "runs").rglob("*") if path.is_file()]
    kinds = {path.suffix for path in files}
    assert {".csv", ".json", ".parquet", ".html", ".safetensors", ".txt", ".yaml", ".svg"} <= kinds
    for path in files:
        for text in _texts(path):
            assert not telling.search(text), (path, telling.search(text))


def test_the_key_and_the_map_are_for_their_owner_only(work: Path) -> None:
    keys = work / "keys"
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700
    files = sorted(keys.iterdir())
    assert len(files) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    key = (keys / KEY).read_text().strip()
    for path in (path for path in work.rglob("*") if path.is_file() and path != keys / KEY):
        assert key.encode() not in path.read_bytes()
        assert bytes.fromhex(key) not in path.read_bytes()


def test_the_map_leads_back_from_every_study_id(work: Path) -> None:
    table = read_table(next((work / "keys").glob("own-*.csv")))
    back = dict(zip(table["study_id"], table["source_id"], strict=True))
    predictions = read_table(work / "runs" / "first" / "predictions.csv")
    assert {back[name] for name in predictions["patient_id"]} == set(PATIENTS)
    attention = pq.read_table(work / "runs" / "first" / "attention.parquet").to_pandas()
    assert {back[name] for name in attention["cell_id"]} == {f"{name}" for name in _stored(work)["cell_id"]}


def _stored(work: Path) -> pd.DataFrame:
    return read_table(next(work.glob("stores/own/*.zarr")) / "cells.csv")


def test_a_patient_keeps_label_and_covariates_and_cells_keep_their_features_under_a_study_id(work: Path) -> None:
    path = next(work.glob("stores/own/*.zarr"))
    source, view = BagStore(path), BagStore.open(path)
    study = dict(zip(source.patients.index, study_patients(view, source.patients.index.to_series()), strict=True))
    cell = dict(zip(source.cells["cell_id"], study_cells(view, source.cells["cell_id"]), strict=True))
    whole, digests, paths = view.load(), view.image_digests(), image_paths(view)
    assert list(view.patients.index) == sorted(study.values())
    for name in source.patients.index:
        bag, own = source[name], view[study[name]]
        rows, stored = view.rows_of(study[name]), source.rows_of(name)
        assert view.patients.loc[study[name]].to_dict() == source.patients.loc[name].to_dict()
        assert own.cell_ids == tuple(cell[each] for each in bag.cell_ids)
        np.testing.assert_array_equal(own.features, bag.features)
        np.testing.assert_array_equal(whole[rows].astype(np.float32), bag.features)
        np.testing.assert_array_equal(digests[rows], source.image_digests()[stored])
        assert paths[rows].tolist() == source.cells["path"][stored].tolist()
        assert view.cells["cell_id"][rows].tolist() == list(own.cell_ids)
        assert set(view.cells["patient_id"][rows]) == {study[name]}
    assert set(view.cells["path"]) == {""}
    assert [bag.patient_id for bag in view] == list(view.patients.index)
    assert view.verify() == []


def test_published_folds_known_cells_and_follow_up_may_name_source_ids(work: Path, tmp_path: Path) -> None:
    store = next(work.glob("stores/own/*.zarr"))
    patients, names = open_patients(store)
    folds = read_table(work / "runs" / "first" / "folds.csv")
    own = dict(zip(names(pd.Series(PATIENTS)), [number // 3 % 4 for number in range(12)], strict=True))
    tested = folds[folds["role"] == "test"]
    assert {row.patient_id: row.fold for row in tested.itertuples()} == own
    assert set(own) == set(patients.index)
    faithful = json.loads((work / "runs" / "first" / "faithfulness.json").read_text())
    assert all("known_cells" in told for told in faithful["methods"].values())
    follow_up = pd.DataFrame({"patient_id": PATIENTS, "time": range(101, 113), "event": 1})
    follow_up.to_csv(tmp_path / "later.csv", index=False)
    _run(work, "survival", work / "runs" / "first", "--follow-up", tmp_path / "later.csv")
    told = read_table(work / "runs" / "first" / "survival" / "patients.csv")
    assert told["time"].min() == 101
    assert set(told["patient_id"]) == set(own)


def test_top_cells_have_no_path_and_the_report_has_pictures(work: Path) -> None:
    report = work / "runs" / "first" / "report"
    top = read_table(report / "top_cells.csv")
    assert top["path"].isna().all()
    assert top["patient_id"].str.fullmatch(r"P-[A-Z2-7]{12}").all()
    assert top["cell_id"].str.fullmatch(r"C-[A-Z2-7]{12}").all()
    assert (report / "report.html").read_text(encoding="utf-8").count("data:image/") >= 12


def test_labels_of_a_review_come_back_to_study_ids(work: Path) -> None:
    run = work / "runs" / "first"
    (key,) = run.glob("review/*.key.json")
    items = json.loads(key.read_text())["items"]
    review = key.name.split(".")[0]
    rows = [{"review": review, "reader": "R1", "code": item["code"], "label": "lymphocyte"} for item in items]
    table = io.StringIO()
    writer = csv.DictWriter(table, ["review", "reader", "code", "label"])
    writer.writeheader()
    writer.writerows(rows)
    (work.parent / "labels.csv").write_text(table.getvalue())
    _run(work, "review", "in", work.parent / "labels.csv")
    assert read_table(run / "expert_labels.csv")["patient_id"].str.startswith("P-").all()


def test_several_runs_agree_and_another_workspace_does_not(work: Path, tmp_path: Path) -> None:
    _run(work, "train-mil", "--folds", 3, "--name", "again", *FAST)
    first, again = (read_table(work / "runs" / name / "predictions.csv") for name in ("first", "again"))
    assert set(first["patient_id"]) == set(again["patient_id"])
    images = work.parent / "clinic"
    other = tmp_path / "other"
    (tmp_path / "means.py").write_text(PLUGIN)
    _run(other, "extract", "--cohort", images / "own.yaml", "--encoder", "means", "--batch-size", 4)
    view = BagStore.open(next(other.glob("stores/own/*.zarr")))
    assert not set(view.patients.index) & set(first["patient_id"])


def test_an_export_of_identifying_ids_has_study_ids(work: Path, tmp_path: Path) -> None:
    _run(work, "export", "--format", "hdf5", "--out", tmp_path / "bags", next(work.glob("stores/own/*.zarr")))
    assert len(list((tmp_path / "bags").glob("P-*.h5"))) == 12
    for path in (tmp_path / "bags").iterdir():
        assert not any(name.encode() in path.read_bytes() for name in NAMES)


def test_a_lost_or_foreign_key_is_refused_with_what_to_do(work: Path, tmp_path: Path) -> None:
    store = next(work.glob("stores/own/*.zarr"))
    keys, kept = work / "keys", (work / "keys" / KEY).read_bytes()
    try:
        (keys / KEY).unlink()
        with pytest.raises(
            StoreError, match=r"study-ids\.key is missing, and own-\w+-\w+\.csv beside it was made with it; put"
        ):
            BagStore.open(store)
        (keys / KEY).write_text("ab" * 32)
        with pytest.raises(
            StoreError, match=r"is not the one that own-\w+-\w+\.csv beside it was made with; put that key"
        ):
            BagStore.open(store)
        (keys / KEY).write_text("abc")
        with pytest.raises(
            StoreError, match=r"is damaged, where 32 bytes in hexadecimal were expected; put back a backup"
        ):
            BagStore.open(store)
    finally:
        (keys / KEY).write_bytes(kept)
        (keys / KEY).chmod(0o600)


def test_a_key_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    find_key(tmp_path / "keys", "own")
    (tmp_path / "keys" / KEY).chmod(0o644)
    (tmp_path / "keys").chmod(0o755)
    find_key(tmp_path / "keys", "own")
    assert stat.S_IMODE((tmp_path / "keys" / KEY).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_study_ids_follow_rfc_2104_and_depend_on_key_kind_and_cohort() -> None:
    import base64
    import hashlib

    key = bytes(range(32))
    inner, outer = (bytes(byte ^ pad for byte in key.ljust(64, b"\0")) for pad in (0x36, 0x5C))
    message = b'["patient", "own", "Mueller"]'
    expected = hashlib.sha256(outer + hashlib.sha256(inner + message).digest()).digest()
    ids = StudyKey(key, "own").study_ids("patient", pd.Series(["Mueller"]))
    assert ids[0] == f"P-{base64.b32encode(expected).decode()[:12]}"
    others = [StudyKey(key, "own").study_ids("cell", pd.Series(["Mueller"]))[0],
              StudyKey(key, "other").study_ids("patient", pd.Series(["Mueller"]))[0],
              StudyKey(bytes(32), "own").study_ids("patient", pd.Series(["Mueller"]))[0]]  # fmt: skip
    assert len({ids[0][2:], *(other[2:] for other in others)}) == 4


def test_two_ids_with_one_study_id_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StudyKey, "_study_id", lambda *_: "P-AAAAAAAAAAAA")
    with pytest.raises(StoreError, match="Two patients of the cohort 'own' get the same study id, which happens once"):
        StudyKey(bytes(32), "own").study_ids("patient", pd.Series(["a", "b"]))


def test_what_must_not_leave_are_ids_and_names_of_files_but_no_folders_of_classes(work: Path) -> None:
    texts = source_texts(BagStore.open(next(work.glob("stores/own/*.zarr"))))
    assert {*PATIENTS, *_stored(work)["cell_id"]} <= texts
    assert "Ausstriche" not in texts


def test_the_same_cohort_as_pseudonymous_makes_the_same_files_as_a_store_that_says_nothing(tmp_path: Path) -> None:
    images, work = tmp_path / "clinic", tmp_path / "work"
    _write_cohort(images)
    (tmp_path / "means.py").write_text(PLUGIN)
    recipe = _recipe(images, "open", ids="pseudonymous")
    _run(work, "extract", "--cohort", recipe, "--encoder", "means", "--batch-size", 4)
    (store,) = work.glob("stores/open/*.zarr")
    _run(work, "train-mil", "--folds", 3, "--name", "said", *FAST)
    metadata = json.loads((store / "zarr.json").read_text())
    assert metadata["attributes"].pop("ids") == "pseudonymous"
    (store / "zarr.json").write_text(json.dumps(metadata))
    _run(work, "train-mil", "--folds", 3, "--name", "silent", *FAST)
    assert not (work / "keys").exists()
    said = {path.relative_to(work / "runs" / "said"): path for path in (work / "runs" / "said").rglob("*")}
    for name, path in said.items():
        if path.is_file() and path.name not in {
            "log.txt",
            "provenance.json",
            "faithfulness.json",
            "explain.parquet",
        }:  # with times of day
            assert path.read_bytes() == (work / "runs" / "silent" / name).read_bytes(), name
    assert set(read_table(work / "runs" / "said" / "predictions.csv")["patient_id"]) == set(PATIENTS)


def test_a_recipe_that_changes_its_mind_is_followed_without_encoding_again(tmp_path: Path) -> None:
    images, work = tmp_path / "clinic", tmp_path / "work"
    _write_cohort(images)
    (tmp_path / "means.py").write_text(PLUGIN)
    extract = ["extract", "--cohort", images / "own.yaml", "--encoder", "means", "--batch-size", 4]
    _recipe(images, "own", ids="pseudonymous")
    _run(work, *extract)
    (store,) = work.glob("stores/own/*.zarr")
    assert set(BagStore.open(store).patients.index) == set(PATIENTS)
    before = (store / "features" / "c" / "0" / "0").stat().st_mtime_ns
    _recipe(images, "own")
    _run(work, *extract)
    assert not set(BagStore.open(store).patients.index) & set(PATIENTS)
    assert (store / "features" / "c" / "0" / "0").stat().st_mtime_ns == before


def test_an_atlas_has_study_ids_and_pictures(work: Path) -> None:
    run = work / "runs" / "first"
    _run(work, "atlas", "--run", run, "--set", "neighbours=5")
    page = (run / "atlas" / "atlas.html").read_text(encoding="utf-8")
    assert "data:image/" in page
    for path in (path for path in (run / "atlas").iterdir() if path.is_file()):
        assert not any(name in text for name in NAMES for text in _texts(path)), path
