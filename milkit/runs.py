"""The workspace on disk, run folders, provenance, and writes that are whole or not there at all."""

import contextlib
import json
import logging
import os
import platform
import re
import shutil
import tempfile
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import milkit
from milkit.errors import RunError, StoreError
from milkit.settings import MilSettings, load

Kind = Literal["store", "run"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Workspace:
    """The folder that holds `stores/<cohort>/<encoder>-<digest>.zarr` and `runs/<name>/`.

    `extract` makes its store, and `train-mil` its run, the current one: the next command takes it when none is named.
    """

    root: Path

    def store_path(self, cohort: str, encoder: str, digest: str) -> Path:
        """Where the features of this cohort under this encoder are kept."""
        return self.root / "stores" / cohort / f"{encoder}-{digest[:8]}.zarr"

    def run_path(self, name: str) -> Path:
        """Where the run of this name is kept."""
        return self.root / "runs" / check_run_name(name)

    def current(self, kind: Kind) -> Path:
        """The store or run that was made last; an error lists the choices where there is none, or several."""
        named, found = self._pointers().get(kind), self._all(kind)
        if named and (self.root / named).exists():
            return self.root / named
        if len(found) == 1 and not named:
            return found[0]
        command = "extract" if kind == "store" else "train-mil"
        error = StoreError if kind == "store" else RunError
        if not found:
            msg = f"The workspace {self.root} holds no {kind}; make one with `milkit {command}`, or name one."
            raise error(msg)
        names = ", ".join(str(path.relative_to(self.root)) for path in found)
        msg = f"The workspace {self.root} has no current {kind}; name one of those that it holds: {names}."
        raise error(msg)

    def new_run(self, cohort: str, encoder: str, head: str) -> Path:
        """A run folder that is not there yet: `<cohort>-<encoder>-<head>-<date>-<time>`, in local time."""
        name = f"{cohort}-{encoder}-{head}-{datetime.now():%Y%m%d-%H%M%S}"
        return next(
            path for n in range(1, 1000) if not (path := self.run_path(name if n == 1 else f"{name}-{n}")).exists()
        )

    def make_current(self, kind: Kind, path: Path) -> None:
        """Let the next command take this store or run when none is named."""
        pointer = self.root / "current.json"
        values = self._pointers()
        if path.resolve().is_relative_to(self.root.resolve()):
            values[kind] = path.resolve().relative_to(self.root.resolve()).as_posix()
            write_json(pointer, values)

    def _pointers(self) -> dict[str, str]:
        pointer = self.root / "current.json"
        try:
            values: dict[str, str] = json.loads(pointer.read_text(encoding="utf-8")) if pointer.is_file() else {}
        except ValueError:  # only a convenience: without it, the store or run is named by hand
            return {}
        return values

    def _all(self, kind: Kind) -> list[Path]:
        pattern = "stores/*/*.zarr" if kind == "store" else "runs/*"
        return sorted(path for path in self.root.glob(pattern) if path.is_dir() and not path.name.startswith("."))


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a hidden folder to fill; it is renamed to ``path`` when the block ends, and removed when it fails.

    A ``path`` that exists is a ``RunError``, also when it came into being meanwhile.
    """
    exists = f"{path} exists already and is not overwritten; give another name, or move that folder away."
    if path.exists():
        raise RunError(exists)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.partial-", dir=path.parent))
    partial.chmod(0o755)  # mkdtemp's 0700 would keep colleagues out of the finished folder
    try:
        yield partial
        try:
            partial.replace(path)
        except OSError as error:
            if path.exists():
                raise RunError(exists) from error
            raise
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a hidden place for a file; it becomes ``path`` when the block ends, and goes when it fails.

    A reader sees the old content or the new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part."""
    with whole_file(path) as partial:
        partial.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Like ``write_bytes``, for text in UTF-8."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Like ``write_bytes``, for JSON that people can read."""
    write_text(path, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of a run or a store; a missing or damaged one is a ``RunError`` that names it."""
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        msg = f"{path} is missing; the folder is not a finished run, so make it again with `milkit train-mil`."
        raise RunError(msg) from None
    except json.JSONDecodeError as error:
        msg = f"{path} is not valid JSON ({error}); the file was changed after it was written, so make the run again."
        raise RunError(msg) from None
    return values


def run_settings(run: Path) -> tuple[MilSettings, Path]:
    """The settings of a run folder, and the path of the store behind it; a ``RunError`` if they name none."""
    settings = load(MilSettings, run / "settings.yaml", {})
    if settings.store is None:
        msg = f"{run / 'settings.yaml'} names no store; add `store:` with the path of the store behind the run."
        raise RunError(msg)
    return settings, settings.store


def provenance() -> dict[str, Any]:
    """Software and time: what a later reader needs in order to repeat a result. Holds no path and no host name."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "milkit": milkit.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "packages": {name: _version(name) for name in ("torch", "timm", "zarr", "numpy", "pandas", "scikit-learn")},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Append what milkit logs to a file. Log lines hold no patient ids."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("milkit")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        handler.close()


def log_failure(what: str, error: Exception, patients: Iterable[object]) -> None:
    """Log an error that must not cost what is done already: its traceback, and its message unless it names a patient.

    Args:
        what: The log line's beginning, such as ``The controls failed``.
        error: What was caught.
        patients: Ids that no log line may hold.
    """
    named = any(str(name) in str(error) for name in patients)
    message = "its message names a patient and is left out" if named else str(error)
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s, and the run goes on without them: %s: %s\n%s", what, type(error).__name__, message, frames)


def available_cores() -> int:
    """Processor cores that this process may use, which on a cluster are fewer than the machine has."""
    return len(usable_cores())


def usable_cores() -> set[int]:
    """Which cores these are, by the system's numbers."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def check_run_name(name: str) -> str:
    """The name, if it is safe as a folder's; else a ``RunError``."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        msg = (
            f"The run name '{name}' was given; expected letters, digits, '.', '_' and '-' only, so give another --name."
        )
        raise RunError(msg)
    return name
