"""Files of the hub: from the cache, downloaded once, or refused in a sentence; a hub of our own on this machine."""

import hashlib
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
from encoder_toys import COMMIT, put_into_cache
from huggingface_hub.errors import LocalEntryNotFoundError

from milkit.downloads import downloads_forbidden, forbid_downloads, hub_file, network_is_forbidden
from milkit.errors import WeightsError, WeightsMissing

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """Serves ``owner/net`` with one file, the way huggingface.co answers."""

    asked: list[str]
    content: bytes

    def do_HEAD(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        found = self.path == "/owner/net/resolve/main/model.bin"
        self.send_response(200 if found else 404)
        self.send_header("X-Repo-Commit", COMMIT)
        if found:
            self.send_header("X-Linked-Etag", f'"{SHA256}"')
            self.send_header("Content-Length", str(len(self.content)))
        else:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.content)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no setting of the machine that forbids the network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub that can be reached; ``asked`` lists its requests."""
    handler = type("ThisHub", (Hub,), {"asked": [], "content": CONTENT})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture
def no_hub(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be asked of the network."""
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: pytest.fail("the network was asked"))


def put(cache: Path, content: bytes = CONTENT, *, named: str = SHA256, file: str = "model.bin") -> Path:
    return put_into_cache(cache, "owner/net", file, content, named=named)


def test_a_file_is_downloaded_once(hub: type[Hub], cache: Path) -> None:
    path = hub_file("owner/net", "model.bin")
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(cache)
    assert path.readlink().name == SHA256
    asked = len(hub.asked)
    assert asked >= 2
    assert hub_file("owner/net", "model.bin") == path
    assert len(hub.asked) == asked  # not even whether it has changed


def test_the_next_name_is_tried_where_the_repository_lacks_the_first(hub: type[Hub]) -> None:
    assert hub_file("owner/net", "model.safetensors", "model.bin").name == "model.bin"
    assert any("model.safetensors" in line for line in hub.asked)


def test_a_repository_without_the_file_is_named(hub: type[Hub]) -> None:
    with pytest.raises(WeightsMissing, match=r"^a\.bin of owner/net .* and the repository does not have it; download"):
        hub_file("owner/net", "a.bin", "b.bin")


def test_a_download_that_came_out_wrong_is_refused(hub: type[Hub]) -> None:
    hub.content = CONTENT[::-1]
    with pytest.raises(WeightsError, match=r"model\.bin of owner/net .* is damaged"):
        hub_file("owner/net", "model.bin")


def test_a_hub_that_cannot_be_reached_is_said_with_the_reason(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def unreachable(_: str, file: str, **__: object) -> str:
        asked.append(file)
        raise LocalEntryNotFoundError("Check your connection.") from TimeoutError()  # noqa: EM101

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    message = (
        r"^a\.bin of owner/net on Hugging Face is not in the cache, and it could not be downloaded "
        r"\(TimeoutError\); download it from huggingface\.co/owner/net and pass it with --weights FILE\.$"
    )
    with pytest.raises(WeightsMissing, match=message):
        hub_file("owner/net", "a.bin", "b.bin")
    assert asked == ["a.bin"]  # the second name would wait as long


def test_a_full_disk_is_said(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(WeightsMissing, match=r"could not be downloaded \(No space left on device\)"):
        hub_file("owner/net", "a.bin")


@pytest.mark.usefixtures("no_hub")
def test_a_cached_file_is_taken_while_the_network_is_forbidden(cache: Path) -> None:
    link = put(cache)
    with downloads_forbidden():
        assert hub_file("owner/net", "model.safetensors", "model.bin") == link


def test_what_is_cached_is_found_by_its_revision(no_hub: None, cache: Path) -> None:
    link = put(cache)
    assert hub_file("owner/net", "model.bin", revision=COMMIT) == link
    with downloads_forbidden(), pytest.raises(WeightsMissing):
        hub_file("owner/net", "model.bin", revision="d" * 40)


FORBIDDEN = r"not in the cache, and the network is forbidden \(--offline or HF_HUB_OFFLINE\); fetch it and say so\.$"


@pytest.mark.usefixtures("no_hub")
def test_a_forbidden_network_is_not_asked_and_the_advice_is_given() -> None:
    started = time.monotonic()
    with downloads_forbidden(), pytest.raises(WeightsMissing, match=FORBIDDEN):
        hub_file("owner/net", "model.bin", advice="fetch it and say so")
    assert time.monotonic() - started < 1.0


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("value", ["1", "true", "ON", "yes"])
def test_the_variable_counts_whenever_it_was_set(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)  # long after huggingface_hub was imported
    with pytest.raises(WeightsMissing, match=FORBIDDEN):
        hub_file("owner/net", "model.bin", advice="fetch it and say so")


@pytest.mark.usefixtures("no_hub")
def test_what_huggingface_hub_read_when_it_was_imported_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsMissing, match="the network is forbidden"):
        hub_file("owner/net", "model.bin")


@pytest.mark.usefixtures("cache")
def test_the_network_is_forbidden_in_the_context_only() -> None:
    assert not network_is_forbidden()
    with downloads_forbidden():
        assert network_is_forbidden()
        with downloads_forbidden():
            assert network_is_forbidden()
        assert network_is_forbidden()
    with pytest.raises(KeyError), downloads_forbidden():
        raise KeyError
    assert not network_is_forbidden()


@pytest.mark.usefixtures("cache")
def test_it_can_be_forbidden_for_the_process_and_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert not network_is_forbidden()
    forbid_downloads()
    assert network_is_forbidden()
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_damaged_file_is_refused_with_what_to_delete(no_hub: None, cache: Path) -> None:
    link = put(cache, CONTENT[:-1])
    with pytest.raises(WeightsError, match=rf"is damaged: its SHA-256 .*; delete \S*{SHA256} and run again") as caught:
        hub_file("owner/net", "model.bin")
    assert not isinstance(caught.value, WeightsMissing)  # nobody falls back in silence
    assert "\n" not in str(caught.value)
    link.resolve().unlink()
    with downloads_forbidden(), pytest.raises(WeightsMissing):
        hub_file("owner/net", "model.bin")


def test_deleting_what_the_message_names_mends_the_cache(hub: type[Hub], cache: Path) -> None:
    put(cache, CONTENT[:-1]).resolve().unlink()
    assert hub_file("owner/net", "model.bin").read_bytes() == CONTENT


def test_a_blob_that_links_to_another_store_is_held_to_its_own_name(no_hub: None, cache: Path) -> None:
    link = put(cache)
    store = cache / "shared" / ("a" * 64)  # another digest, of another kind
    store.parent.mkdir()
    blob = link.resolve()
    blob.rename(store)
    blob.symlink_to(store)
    assert hub_file("owner/net", "model.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("named", ["b" * 40, "some-etag"])
def test_small_files_have_no_sha256_in_their_name(named: str, no_hub: None, cache: Path) -> None:
    put(cache, b"{}", named=named, file="config.json")
    assert hub_file("owner/net", "config.json").read_bytes() == b"{}"


def test_a_cache_of_copies_is_read(no_hub: None, cache: Path) -> None:
    link = put(cache)
    content = link.read_bytes()
    link.unlink()
    link.write_bytes(content)
    assert hub_file("owner/net", "model.bin") == link
