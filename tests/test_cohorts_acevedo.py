"""The parts of Acevedo: what is kept from training, on a fake and on the published names."""

import csv
import hashlib
import os
from pathlib import Path

import pytest
from cohort_fakes import picture, write

from cohorts.acevedo import COPIES, SHOWN_ELSEWHERE, acevedo, part_of
from milkit.errors import CohortError, SettingsError
from milkit.registry import COHORTS

PARTS = ("train", "validation", "test")
KINDS = ("prefix", "paper", "folder")
PAIRS = [name for pair in COPIES for name in pair]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 images with made-up numbers, and all that are known to be copies of each other."""
    home = tmp_path_factory.mktemp("acevedo") / "PBC_dataset_normal_DIB"
    names = [f"ig/{prefix}_{7 * n}.jpg" for n in range(50) for prefix in ("IG", "MY")]
    names += [f"neutrophil/SNE_{n}.jpg" for n in range(100)] + [f"copies/{name}.jpg" for name in PAIRS]
    write(home, names, picture("JPEG"))
    return home


@pytest.fixture
def real() -> Path:
    if not os.environ.get("MILKIT_REAL_DATA"):
        pytest.skip("MILKIT_REAL_DATA is unset: no published files here")
    return Path(os.environ["MILKIT_REAL_DATA"]).resolve() / "acevedo"


def ids(root: Path, classes: str, part: str) -> set[str]:
    cohort = COHORTS.build("acevedo", {"root": root, "classes": classes, "part": part})
    return set(cohort.cells["cell_id"])


@pytest.mark.parametrize("classes", KINDS)
def test_every_image_is_in_exactly_one_part(root: Path, classes: str) -> None:
    parts = [ids(root, classes, part) for part in PARTS]
    assert all(parts)
    assert sum(map(len, parts)) == len(set.union(*parts))
    assert set.union(*parts) == ids(root, classes, "all")


@pytest.mark.parametrize(("name", "part"), [("SNE_0", "test"), ("SNE_2", "train"), ("EO_225902", "train")])
def test_some_images_are_in_the_part_of_their_hash(name: str, part: str) -> None:
    """Theirs begin with 08 and 4f; EO_225902 is in the part of BNE_191112 (46), and its own would be test (1a)."""
    assert part_of(name) == part


def test_the_part_is_that_of_the_hash_of_the_name() -> None:
    for name in (f"MO_{n}" for n in range(300)):
        h = int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) / 16**16
        assert part_of(name) == ("test" if h < 0.2 else "validation" if h < 0.25 else "train")


def test_copies_are_in_the_part_of_the_first_of_them(root: Path) -> None:
    alone = [hashlib.sha256(name.encode()).digest()[0] / 256 for name in PAIRS]
    crossing = [(a < 0.2) != (b < 0.2) for a, b in zip(alone[::2], alone[1::2], strict=True)]
    assert any(crossing)  # so that it is not by chance that none does
    for part in PARTS:
        own = ids(root, "prefix", part)
        for first, second in COPIES:
            assert (first in own) == (second in own) == (part_of(first) == part)


def test_a_copy_without_its_pair_stays_in_its_part(tmp_path: Path) -> None:
    write(tmp_path, [f"{second}.jpg" for _, second in COPIES], picture("JPEG"))
    for part in ("train", "test"):
        assert ids(tmp_path, "prefix", part) == {second for first, second in COPIES if part_of(first) == part}


def test_an_image_whose_cell_another_part_shows_is_in_none(tmp_path: Path) -> None:
    write(tmp_path, [f"{name}.jpg" for name in [*SHOWN_ELSEWHERE, "SNE_0"]], picture("JPEG"))
    assert ids(tmp_path, "prefix", "test") == {"SNE_0"}
    assert ids(tmp_path, "prefix", "all") == {*SHOWN_ELSEWHERE, "SNE_0"}


def test_an_image_in_no_part_would_have_been_held_out() -> None:
    """A training that was made before they were found has seen none of them."""
    assert all(hashlib.sha256(name.encode()).digest()[0] < 64 for name in SHOWN_ELSEWHERE)


def test_the_parts_are_the_same_below_any_root(root: Path) -> None:
    assert ids(root.parent, "prefix", "test") == ids(root, "prefix", "test")
    inside = ids(root / "neutrophil", "prefix", "test")
    assert inside == {name for name in ids(root, "prefix", "test") if name.startswith("SNE")}


def test_a_part_says_so_in_its_notes_and_all_does_not(root: Path) -> None:
    assert "Only the images of part 'test' were read." in acevedo(root, part="test").notes
    assert not any("part" in note for note in acevedo(root).notes)


def test_a_part_without_images_is_refused(tmp_path: Path) -> None:
    write(tmp_path, ["SNE_1.jpg", "SNE_2.jpg"], picture("JPEG"))
    expected = r"None of the 2 images below .* is of the part 'test', where .* give the folder of all images"
    with pytest.raises(CohortError, match=expected):
        acevedo(tmp_path, part="test")


def test_another_part_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="part: Input should be 'all', 'train', 'validation' or 'test'"):
        COHORTS.build("acevedo", {"root": tmp_path, "part": "hold-out"})


@pytest.mark.real_data
def test_the_copies_are_the_published_ones(real: Path) -> None:
    with (real / "_known_duplicates_full_set.csv").open(newline="") as file:
        listed = [(Path(row["file_a"]).stem, Path(row["file_b"]).stem) for row in csv.DictReader(file)]
    assert sorted(tuple(sorted(pair)) for pair in listed) == sorted(COPIES)


@pytest.mark.real_data
def test_the_parts_of_the_real_images_have_their_sizes_and_share_no_file(real: Path) -> None:
    sizes, seen = [], dict[bytes, str]()
    for part in PARTS:
        cohort = acevedo(real, "paper", part)
        sizes.append(len(cohort.cells))
        for path in cohort.cells["path"]:
            assert seen.setdefault(hashlib.sha256((cohort.root / path).read_bytes()).digest(), part) == part
    assert sizes == [10_152, 624, 2_713]
