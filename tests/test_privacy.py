"""What may tell who a patient is, is found in names of files, tables, pages and tags, and told by its shape only."""

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin
from typer.testing import CliRunner

from milkit.cli import app
from milkit.privacy.patterns import find, mask
from milkit.privacy.scan import scan, scan_page

GIVEN = ("Hans", "Ayşe", "Olga", "Wolfgang", "Katarzyna", "Yusuf", "Ingeborg", "Dmitri", "Marie-Luise", "Chloé")
FAMILY = ("Mustermann", "Quastenflosser", "Ö'Rourke", "Grabowski", "Öztürk", "Schmidt", "von Ahnen", "Ng", "Petrova",
          "Thistlewood")  # fmt: skip
"""Half of them stand on no list of names."""
PUBLISHED = """
image_12.tif image_0.tif AEC IDA TOM ALK_183 SCD_417 Patient_00 Signed_slides P12/000034.jpg UID_45_22_2_all.bmp
UID_H23_1_1_hem.bmp BLA_06642.jpg BNE_191112.jpg PLATELET_987654.jpg .DS_169665.jpg BloodImage_00338.jpg
20190527_163526_0.jpg 4_15_1000_ALL.png areaforexpert1 12_expert.bmp 19-6574.PAP.PB~E.1-1232.TIF CBFB_MYH11
RUNX1_RUNX1T1 Atypical_Lymphocyte P-LFQIPCVHLON5 C-44OE5U27K5PE 2026-11-21T19:15:00+00:00 0.19570302 -1.5e-08
e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 synthetic-milkit-mini-abmil-20261121-191500
repeat0-fold1-seed0 10.7937/6ppe-4020 dinobloom-b-1957abcd.zarr
"""
"""Names of files, patients, runs and versions that are nobody's."""
DATES = ("1957-03-02", "02.03.1957", "2.3.1957", "3/2/1957", "1957_03_02", "02-03-1957", "2. März 1957", "Mar 2, 1957")


def _kinds(text: str, **about: object) -> list[str]:
    return [found.kind for found in find(text, **about)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Mueller_1957-03-02", "name and date"),
        ("mustermann-02.03.1957.tif", "name and date"),
        ("Mustermann_19570302", "name and date"),
        ("Patient geb. 02.03.57", "date of birth"),
        ("geboren am 2.3.1957", "date of birth"),
        ("Geburtsdatum: 2. März 1957", "date of birth"),
        ("DOB 03/25/1957", "date of birth"),
        ("date of birth=19570302", "date of birth"),
        ("*2.3.1957", "date of birth"),
        ("1957-03-02", "date"),
        ("MRN: 0012345", "record number"),
        ("Fallnummer 4711-0815", "record number"),
        ("Pat.-Nr. 998877", "record number"),
        ("A123456789", "record number"),
        ("Frau Quastenflosser", "name"),
        ("Name: Mustermann, Erika", "name"),
        ("MUELLER_smear3", "name"),
        ("hans_0001.tif", "name"),
        ("SchmidtHans", "name"),
    ],
)
def test_what_identifies_is_found_with_its_kind(text: str, kind: str) -> None:
    assert kind in _kinds(text)


@pytest.mark.parametrize(
    "text",
    PUBLISHED.split(),
)
def test_published_names_study_ids_digests_and_times_are_no_findings(text: str) -> None:
    assert _kinds(text) == []
    assert _kinds(text, is_id=True) == []
    assert _kinds(text, prose=True) == []


def test_a_date_in_prose_counts_beside_a_listed_name_or_a_word_for_birth_alone() -> None:
    assert _kinds("The collection of 2023-05-03 was read.", prose=True) == []
    assert _kinds("Kaplan-Meier curves, Cox model, Brier score, Youden index", prose=True) == []
    assert _kinds("Schmidt, 1957-03-02", prose=True) == ["name and date"]
    assert _kinds("She was born on 1957-03-02.", prose=True) == ["date of birth"]
    assert _kinds("as Hans Schmidt said", prose=True) == ["name"]


def test_days_that_no_calendar_has_and_the_future_are_no_dates() -> None:
    assert _kinds("1957-13-40") == _kinds("31.02.1957") == _kinds("2999-01-01") == _kinds("1857-03-02") == []


def test_long_digits_are_a_record_number_where_a_patient_or_a_folder_is_called_so() -> None:
    assert _kinds("0012345678", is_id=True) == ["record number"]
    assert _kinds("0012345678") == []
    assert _kinds("20190527", is_id=True) == []  # a day
    assert _kinds("0012345", label="MRN") == ["record number"]


def test_a_column_says_what_stands_in_it() -> None:
    assert _kinds("19570302", label="Geburtsdatum") == ["date of birth"]
    assert _kinds("Quastenflosser", label="last_name") == ["name"]
    assert _kinds("AEC", label="patient_name") == []


def test_generated_names_and_dates_are_found_as_often_as_the_docstring_says() -> None:
    """Sensitivity, measured: all of what has a date or a label, most listed names alone, none that stand on no list."""
    people = list(itertools.product(GIVEN, FAMILY))
    dated = [f"{family}_{given}_{date}" for given, family in people for date in DATES]
    born = [f"{given} {family}, geb. {date}" for given, family in people for date in DATES]
    found = {name: np.mean([bool(find(text)) for text in texts]) for name, texts in (("dated", dated), ("born", born))}
    assert found == {"dated": 1.0, "born": 1.0}
    prose = np.mean([bool(find(f"The patient was {text}.", prose=True)) for text in born])
    assert prose == 1.0
    alone = [f"{family}_{given}_smear1.png" for given, family in people]
    unlisted = [f"{family}_smear1.png" for family in ("Mustermann", "Quastenflosser", "Thistlewood", "Ng")]
    assert 0.75 < np.mean([bool(find(text)) for text in alone]) < 1
    assert not any(find(text) for text in unlisted)


def test_a_value_is_told_by_its_shape_alone() -> None:
    assert mask("Müller_1957-03-02") == "******_####-##-##"


def _tagged_tiff(path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270] = "Mueller_1957-03-02"
    Image.new("RGB", (8, 8)).save(path, tiffinfo=tags)


def _tagged_png(path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "Fallnummer 4711081")
    text.add_itxt("Patient", "Frau Öztürk")
    Image.new("RGB", (8, 8)).save(path, pnginfo=text)


def _tagged_jpeg(path: Path) -> None:
    exif = Image.Exif()
    exif[0x013B] = "Schmidt, geb. 2.3.1957"
    exif[0x0132] = "1957:03:02 10:00:00"
    Image.new("RGB", (8, 8)).save(path, exif=exif)


def _parquet(path: Path) -> None:
    pd.DataFrame({"patient_id": ["Mueller_1957-03-02"], "weight": [0.19570302]}).to_parquet(path)


def _hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.attrs["patient_id"] = "Mueller_1957-03-02"
        file["features"] = np.zeros((2, 3))
        file["store"] = json.dumps({"notes": ["geb. 2.3.1957"]})


WRITERS: dict[str, tuple[Callable[[Path], None], set[str], str]] = {
    "a.tif": (_tagged_tiff, {"name and date"}, "a.tif, tag ImageDescription: name and date (*******_####-##-##)"),
    "a.png": (_tagged_png, {"record number", "name"}, "a.png, text Comment: record number (#######)"),
    "a.jpg": (_tagged_jpeg, {"name", "date of birth"}, "a.jpg, tag Artist: name (*******)"),
    "a.parquet": (_parquet, {"name and date"},
                  "a.parquet, column patient_id, row 1: name and date (*******_####-##-##)"),
    "a.h5": (_hdf5, {"name and date", "date of birth"},
             "a.h5, attribute patient_id of /: name and date (*******_####-##-##)"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_tags_of_images_and_texts_in_other_formats_are_read(name: str, tmp_path: Path) -> None:
    write, kinds, sentence = WRITERS[name]
    write(tmp_path / name)
    found = scan(tmp_path)
    assert set(found.kinds) == kinds
    assert sentence in [finding.sentence for finding in found.findings]


def test_places_are_named_and_masked_too(tmp_path: Path) -> None:
    folder = tmp_path / "Mueller_1957-03-02"
    folder.mkdir()
    (folder / "Schmidt.csv").write_text("patient_id,MRN,note\nA,4711081,1\nB,4711082,2\n")
    (tmp_path / "a.json").write_text('{"rows": [{"name": "x", "Geburtsdatum": "2.3.1957"}]}')
    (tmp_path / "a.html").write_text('<p title="Frau Schmidt">fine</p><img src="data:image/png;base64,MRN1234567">')
    told = [finding.sentence for finding in scan(tmp_path).findings]
    assert sorted(told) == sorted(
        [
            "the name of *******_####-##-##/*******.csv: name and date (*******_####-##-##)",
            "the name of *******_####-##-##/*******.csv: name (*******.***)",
            "*******_####-##-##/*******.csv, column MRN, row 1: record number (#######), and 1 more there",
            "a.html, an attribute: name (*******)",
            "a.json, key rows[0].Geburtsdatum: date of birth (#.#.####)",
        ]
    )
    assert "Mueller" not in str(told)


def test_known_source_ids_are_found_wherever_they_stand(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the patient K4711 and K47111, 2000 resamples\n")
    (tmp_path / "k4711.csv").write_text("a\nx\n")
    found = scan(tmp_path, ["K4711", "x", "a", "2000"])
    assert [finding.kind for finding in found.findings] == ["source id", "source id"]
    assert scan(tmp_path).findings == ()
    assert scan_page("<p>K4711</p>", ["K4711"]).kinds == {"source id": 1}


def test_files_that_cannot_be_looked_into_are_counted_and_damaged_ones_stop_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\0\0")
    (tmp_path / "a.h5").write_bytes(b"no hdf5")
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    found = scan(tmp_path)
    assert (found.findings, found.n_files, set(found.unread)) == ((), 4, {"a.npy", "a.h5", "a.parquet"})


def test_the_command_prints_findings_masked_and_ends_with_status_3(tmp_path: Path) -> None:
    _tagged_tiff(tmp_path / "Mueller_1957-03-02.tif")
    told = CliRunner().invoke(app, ["privacy", str(tmp_path)])
    assert told.exit_code == 3
    assert "tag ImageDescription: name and date (*******_####-##-##)" in told.stdout
    assert "Mueller" not in told.stdout
    Image.new("RGB", (8, 8)).save(tmp_path / "Mueller_1957-03-02.tif")
    (tmp_path / "Mueller_1957-03-02.tif").rename(tmp_path / "image_12.tif")
    assert CliRunner().invoke(app, ["privacy", str(tmp_path)]).exit_code == 0
    absent = CliRunner().invoke(app, ["privacy", str(tmp_path / "absent")])
    assert absent.exit_code == 2
    assert "where a file or a folder was expected; name what is to be given away." in absent.stderr


@pytest.mark.skipif("MILKIT_REAL_DATA" not in os.environ, reason="MILKIT_REAL_DATA is not set")
def test_published_files_are_free_of_findings_but_for_the_dates_of_birth_of_lymphocytosis() -> None:
    real = Path(os.environ["MILKIT_REAL_DATA"])
    for name in ("aml_hehr_metadata", "genbloom_splits", "wbcatt_labels", "aslan", "bmc_sample", "acevedo_original"):
        assert scan(real / name).findings == (), name
    assert [one.kind for one in scan(real / "lymphocytosis").findings] == ["date of birth"]
