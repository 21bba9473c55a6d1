"""The benchmark of the report runs, at a tiny size; its figures say nothing here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "benchmarks" / "report.py"


@pytest.mark.slow
@pytest.mark.skipif(not SCRIPT.is_file(), reason="the benchmarks are not installed with the package")
def test_the_benchmark_of_the_report_prints_its_table_and_writes_its_figures(tmp_path: Path) -> None:
    sizes = ["--patients", "15", "--cells", "25", "--images", "5", "--keep", str(tmp_path / "made")]
    command = [sys.executable, str(SCRIPT), *sizes, "--json", str(tmp_path / "report.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "report.json").read_text())
    for way in ("pages", "single file"):
        assert f"\n{way} " in done.stdout
        assert results["seconds"] >= results["ways"][way]["seconds"] > 0
        assert results["peak_mb"] >= results["ways"][way]["peak_mb"] > 0
    assert results["single_file_mb"] == results["ways"]["single file"]["page_mb"] > 0
    assert "bar" not in done.stdout
    page = (tmp_path / "made" / "run" / "report" / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") == 15 * 25
    assert "Faithful" in page or "Not faithful" in page
