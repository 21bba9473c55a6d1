"""The benchmark of the store runs, at a tiny size; its figures say nothing here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "store.py"


@pytest.mark.skipif(not SCRIPT.is_file(), reason="the benchmarks are not installed with the package")
def test_the_benchmark_of_the_store_prints_its_table_and_writes_its_ratios(tmp_path: Path) -> None:
    (tmp_path / "meanwhile").mkdir()
    sizes = ["--patients", "3", "--cells", "6", "--dim", "8", "--rounds", "1"]
    command = [sys.executable, str(SCRIPT), *sizes, "--folder", str(tmp_path / "meanwhile")]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "store.json")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for way in ("memory", "npy", "milkit", "hdf5", "pt", "zarr", "zarr 512"):
        assert f"\n{way} " in done.stdout
    results = json.loads((tmp_path / "store.json").read_text())
    ways = results["ways"]
    assert results["load_over_npload"] == ways["milkit"]["load_ms"] / ways["npy"]["load_ms"] > 0
    assert results["bag_over_hdf5"] == ways["milkit"]["bag_ms"] / ways["hdf5"]["bag_ms"] > 0
    assert results["open_ms"] == ways["milkit"]["open_ms"] > 0
    assert (results["patients"], ways["hdf5"]["files"], ways["pt"]["files"]) == (3, 3, 3)
    assert list((tmp_path / "meanwhile").iterdir()) == []
