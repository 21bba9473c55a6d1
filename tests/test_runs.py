"""The workspace, and writes that are whole or not there."""

from pathlib import Path

import pytest

from milkit import runs
from milkit.errors import RunError, StoreError
from milkit.runs import Workspace


def _store(workspace: Workspace, cohort: str) -> Path:
    path = workspace.store_path(cohort, "classical", "abcdef0123456789")
    path.mkdir(parents=True)
    return path


def test_the_only_store_is_the_current_one(tmp_path: Path) -> None:
    path = _store(Workspace(tmp_path), "one")
    assert path == tmp_path / "stores" / "one" / "classical-abcdef01.zarr"
    assert Workspace(tmp_path).current("store") == path


def test_a_guess_between_stores_lists_the_choices(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    _store(workspace, "one"), _store(workspace, "two")
    with pytest.raises(StoreError, match=r"has no current store; name one .*: stores/one/.*two"):
        workspace.current("store")


def test_what_was_made_last_is_current(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    first, second = _store(workspace, "one"), _store(workspace, "two")
    workspace.make_current("store", second)
    workspace.make_current("store", first)
    assert workspace.current("store") == first


def test_an_empty_workspace_says_which_command_makes_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"holds no store; make one with `milkit extract`, or name one"):
        Workspace(tmp_path).current("store")
    with pytest.raises(RunError, match=r"holds no run; make one with `milkit train-mil`, or name one"):
        Workspace(tmp_path).current("run")


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs.write_text(tmp_path / "a.txt", "old")

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("milkit.runs.os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        runs.write_text(tmp_path / "a.txt", "new")
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_folder_is_there_when_it_is_whole(tmp_path: Path) -> None:
    def write_half() -> None:
        with runs.whole_folder(tmp_path / "run") as folder:
            (folder / "a").touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == []
    with runs.whole_folder(tmp_path / "run") as folder:
        (folder / "a").touch()
    assert [p.name for p in (tmp_path / "run").iterdir()] == ["a"]


def test_a_damaged_file_of_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"metrics.json is missing; the folder is not a finished run"):
        runs.read_json(tmp_path / "metrics.json")
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(RunError, match=r"metrics.json is not valid JSON"):
        runs.read_json(tmp_path / "metrics.json")


def test_provenance_names_software_and_no_machine() -> None:
    facts = runs.provenance()
    assert facts["packages"]["torch"]
    assert str(Path.home()) not in str(facts)


def test_a_run_that_exists_is_not_overwritten_and_nothing_is_computed(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with (
        pytest.raises(RunError, match="run exists already and is not overwritten; give another name"),
        runs.whole_folder(tmp_path / "run"),
    ):
        pytest.fail("the block was entered")


@pytest.mark.parametrize("name", ["../escape", "a/b", ".", "", "-x"])
def test_a_run_name_cannot_leave_the_workspace(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="expected letters, digits"):
        Workspace(tmp_path).run_path(name)


def test_two_runs_of_one_second_have_two_names(tmp_path: Path) -> None:
    first = Workspace(tmp_path).new_run("c", "e", "h")
    first.mkdir(parents=True)
    assert Workspace(tmp_path).new_run("c", "e", "h") != first


def test_a_current_store_that_is_gone_is_not_replaced_by_a_guess(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    _store(workspace, "other")
    gone = _store(workspace, "gone")
    workspace.make_current("store", gone)
    gone.rmdir()
    with pytest.raises(StoreError, match=r"no current store; name one .*stores/other"):
        workspace.current("store")


def test_a_damaged_pointer_is_as_good_as_none(tmp_path: Path) -> None:
    path = _store(Workspace(tmp_path), "one")
    (tmp_path / "current.json").write_text("{")
    assert Workspace(tmp_path).current("store") == path
