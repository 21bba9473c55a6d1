"""`milkit guidelines` and `milkit report --final` as a person calls them."""

import re
from pathlib import Path
from typing import Any

import pytest
from guidelines_toys import answer_all, make_run
from typer.testing import CliRunner

from milkit.cli import app
from milkit.guidelines.answers import ANSWERS


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("command"), controls=False)


def _run(*arguments: object, status: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, (result.exit_code, result.output, result.exception)
    return result


def test_final_ends_with_status_3_and_one_sentence_while_an_answer_is_open(run: Path) -> None:
    (run / ANSWERS).unlink(missing_ok=True)
    for command in (["guidelines", run], ["report", "--run", run]):
        told = _run(*command, "--final", status=3)
        sentences = [line for line in told.stderr.splitlines() if "open" in line]
        assert len(sentences) == 1
        expected = r"^\d+ answers are open in .*guidelines\.yaml, the first being 'title', .*write them there and call"
        assert re.search(expected, sentences[0])
        assert _run(*command).stdout.splitlines()[0] == f"guidelines {run / 'report' / 'guidelines'}"


def test_final_passes_once_every_answer_is_written(run: Path) -> None:
    answer_all(run)
    assert "open" not in _run("guidelines", run, "--final").stderr
    assert "open" not in _run("report", "--run", run, "--final").stderr


def test_the_report_links_to_drafts_that_are_there(run: Path) -> None:
    page = Path(_run("report", "--run", run).stdout.split()[-1])
    links = re.findall(r'href="(guidelines/[^"#]+)"', page.read_text(encoding="utf-8"))
    assert [Path(link).name for link in links] == ["tripod_ai.html", "claim.html", "table1.html", "model_card.html"]
    assert all((page.parent / link).is_file() for link in links)


def test_an_unknown_answer_is_refused_with_the_nearest(run: Path) -> None:
    (run / ANSWERS).write_text("titel: A study\n")
    told = _run("guidelines", run, status=2).stderr
    assert "No answer is called 'titel'. Did you mean 'title'?" in told
