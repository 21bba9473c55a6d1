"""Files of Hugging Face repositories: taken from the cache, or downloaded once, unless the network is forbidden.

The cache is that of huggingface_hub (``HF_HUB_CACHE``), shared with every other program. What lies there is used
without asking whether the repository has changed, so that an encoder stays the same from run to run.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from milkit.errors import WeightsError, WeightsMissing

_VARIABLE = "HF_HUB_OFFLINE"
_TRUE = {"1", "ON", "YES", "TRUE"}
_SHA256 = re.compile(r"[0-9a-f]{64}")
_cache_only: ContextVar[bool] = ContextVar("cache_only", default=False)


def hub_file(repository: str, *files: str, revision: str | None = None, advice: str = "") -> Path:
    """The first of ``files`` that the repository has: from the cache, or downloaded to it.

    Args:
        repository: Owner and name, such as ``MarrLab/DinoBloom``.
        files: Names in the repository, in the order of preference.
        revision: A branch, a tag or a commit; the main branch by default.
        advice: What to do where it cannot be had, for the message.

    Raises:
        WeightsMissing: If none is cached and the network is forbidden or does not give it; nothing is retried where it
            is forbidden.
        WeightsError: If the cached file is damaged.
    """
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    for file in files:
        cached = huggingface_hub.try_to_load_from_cache(repository, file, revision=revision)
        if isinstance(cached, str):
            return _intact(Path(cached), repository)
    if network_is_forbidden():
        raise _missing(repository, files, "the network is forbidden (--offline or HF_HUB_OFFLINE)", advice)
    for file in files:
        try:
            downloaded = huggingface_hub.hf_hub_download(repository, file, revision=revision)
        except Exception as error:  # huggingface_hub lets through whatever its HTTP library raises
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                continue  # the repository was reached and has no such file
            reason = getattr(error, "strerror", None) or type(error.__cause__ or error).__name__
            raise _missing(repository, files, f"it could not be downloaded ({reason})", advice) from error
        return _intact(Path(downloaded), repository)
    raise _missing(repository, files, "the repository does not have it", advice)


@contextlib.contextmanager
def downloads_forbidden() -> Iterator[None]:
    """Within this context only the cache is used; for what nobody has asked for by name."""
    before = _cache_only.set(True)
    try:
        yield
    finally:
        _cache_only.reset(before)


def forbid_downloads() -> None:
    """Use only the cache from now on, in this process and in those that it starts (``--offline``)."""
    os.environ[_VARIABLE] = "1"


def network_is_forbidden() -> bool:
    """Whether the network may not be asked, by the context, by ``HF_HUB_OFFLINE``, or by huggingface_hub's own setting.

    huggingface_hub reads the variable once, when it is imported; here it counts whenever it was set.
    """
    from huggingface_hub import constants

    return _cache_only.get() or os.environ.get(_VARIABLE, "").upper() in _TRUE or bool(constants.HF_HUB_OFFLINE)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _missing(repository: str, files: tuple[str, ...], why: str, advice: str) -> WeightsMissing:
    advice = advice or f"download it from huggingface.co/{repository} and pass it with --weights FILE"
    return WeightsMissing(f"{files[0]} of {repository} on Hugging Face is not in the cache, and {why}; {advice}.")


def _intact(path: Path, repository: str) -> Path:
    """Refuse a damaged file: the cache links to a blob, which is named by its SHA-256 where the hub holds it as LFS.

    Only the first link is read: a blob may itself be a link into a store that names its files by another digest.
    Where the cache holds copies instead of links, nothing is known.
    """
    promised = path.readlink().name if path.is_symlink() else ""
    if _SHA256.fullmatch(promised) and file_sha256(path) != promised:
        msg = (
            f"{path.name} of {repository} in the Hugging Face cache is damaged: its SHA-256 is not the published one; "
            f"delete {path.resolve()} and run again to download it anew."
        )
        raise WeightsError(msg)
    return path
