"""What may tell who a patient is stays here, unless somebody writes down why it may leave."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, TiffImagePlugin
from toys import make_store, toy_patients
from typer.testing import CliRunner

from milkit.bags import BagStore
from milkit.cli import app
from milkit.errors import PrivacyError
from milkit.exchange.exporting import export_h5ad, export_hdf5
from milkit.privacy.gate import keep_allowed, release
from milkit.report.settings import ReportSettings
from milkit.report.write import write_report
from milkit.review.out import write_review

make_run = runpy.run_path(str(Path(__file__).with_name("test_report.py")))["make_run"]
HOSTILE = ("Mueller_1957-03-02", *(f"P{number}" for number in range(2, 10)))


def _tagged(path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270] = "Mueller_1957-03-02"
    Image.new("RGB", (12, 12), (200, 90, 120)).save(path, "TIFF", tiffinfo=tags)


def _named_store(path: Path) -> BagStore:
    return make_store(path, toy_patients().rename(index={"P00": "Mueller_1957-03-02"}))


def test_a_report_that_names_a_patient_is_not_written_and_the_earlier_one_stays(tmp_path: Path) -> None:
    run = make_run(tmp_path, patients=HOSTILE)
    (run / "report").mkdir()
    (run / "report" / "note.txt").write_text("earlier")
    with pytest.raises(PrivacyError) as told:
        write_report(run, ReportSettings())
    text = str(told.value)
    assert text.startswith("The report was not written, since ")
    assert "patients.csv, column patient_id, row 1: name and date (*******_####-##-##)" in text
    assert text.endswith('or say why they may stay with --allow-identifiers "reason".')
    assert "Mueller" not in text
    assert [path.name for path in (run / "report").iterdir()] == ["note.txt"]
    assert not list(run.glob(".report*"))


def test_a_written_reason_lets_a_report_through_and_stands_in_provenance(tmp_path: Path) -> None:
    run = make_run(tmp_path, patients=HOSTILE)
    assert write_report(run, ReportSettings(allow_identifiers="  stays on the ward ")).is_file()
    (kept,) = json.loads((run / "provenance.json").read_text())["identifiers_allowed"]
    assert (kept["what"], kept["reason"]) == ("report", "stays on the ward")
    assert kept["found"]["name and date"] >= 2
    assert kept["created"].endswith("+00:00")
    keep_allowed(run / "provenance.json", {"what": "report", "reason": "again"})
    reasons = [one["reason"] for one in json.loads((run / "provenance.json").read_text())["identifiers_allowed"]]
    assert reasons == ["stays on the ward", "again"]


@pytest.mark.parametrize("reason", ["", "   "])
def test_no_reason_is_no_reason(tmp_path: Path, reason: str) -> None:
    (tmp_path / "Mueller_1957-03-02.csv").write_text("a\n")
    with pytest.raises(PrivacyError):
        release(tmp_path, "report", reason=reason)


def test_tags_of_a_cell_s_image_do_not_come_into_report_or_review_and_provenance_stays(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    before = (run / "provenance.json").read_bytes()
    for path in (tmp_path / "images").rglob("*.png"):
        _tagged(path)  # a TIFF, whatever it is called
    page = write_report(run, ReportSettings())
    review = write_review(run, n_cells=9).page
    assert page.read_text(encoding="utf-8").count("data:image/") > 9
    for path in (*page.parent.rglob("*"), review):
        assert not path.is_file() or b"Mueller" not in path.read_bytes()
    assert (run / "provenance.json").read_bytes() == before


def test_a_tagged_image_that_somebody_put_beside_the_report_holds_it_back(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run / "report").mkdir()
    _tagged(run / "report" / "smear.tif")
    with pytest.raises(PrivacyError, match=r"smear\.tif, tag ImageDescription: name and date \(\*{7}_####-##-##\)"):
        write_report(run, ReportSettings())


def test_a_review_names_no_patient_and_its_readers_may_be_called_as_they_are(tmp_path: Path) -> None:
    run = make_run(tmp_path, patients=HOSTILE)
    made = write_review(run, n_cells=9, readers=("Frau Hans Mueller", "Dr. Ayşe Öztürk"))
    assert b"1957" not in made.page.read_bytes()


def test_a_review_that_tells_who_somebody_is_leaves_no_page_and_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path)
    page = "<p>Frau Mueller, geb. 2.3.1957</p>"
    monkeypatch.setattr("milkit.review.out.review_page", lambda *_: page)
    with pytest.raises(PrivacyError, match=r"The review was not written, since 2 things in it may tell who"):
        write_review(run, n_cells=9)
    assert not list((run / "review").glob("*"))
    assert write_review(run, n_cells=9, allow_identifiers="consented").page.read_text() == page
    (kept,) = json.loads((run / "provenance.json").read_text())["identifiers_allowed"]
    assert (kept["what"], kept["found"]) == ("review", {"date of birth": 1, "name": 1})


@pytest.mark.parametrize(("export", "name"), [(export_hdf5, "bags"), (export_h5ad, "bags.h5ad")])
def test_an_export_that_names_a_patient_is_held_back(tmp_path: Path, export: Any, name: str) -> None:
    store = _named_store(tmp_path / "s.zarr")
    with pytest.raises(PrivacyError, match=r"The export was not written, since"):
        export(store, tmp_path / "out" / name)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    export(store, tmp_path / "out" / name, allow_identifiers="to our own server")
    (kept,) = json.loads((tmp_path / "s.zarr" / "source.json").read_text())["identifiers_allowed"]
    assert kept["reason"] == "to our own server"


def test_the_command_ends_with_status_3_and_one_sentence(tmp_path: Path) -> None:
    store = _named_store(tmp_path / "s.zarr")
    export = ["export", "--format", "h5ad", "--out", str(tmp_path / "x.h5ad"), str(store.path)]
    told = CliRunner().invoke(app, export)
    assert told.exit_code == 3
    assert told.stderr.count("milkit: ") == 1
    assert "Mueller" not in told.output
    assert CliRunner().invoke(app, [*export, "--allow-identifiers", "ours"]).exit_code == 0
