"""Fetching, from a small server on this machine that is not the hub."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from masklet.core.errors import InputError
from masklet.weights import fetch as fetching
from masklet.weights.catalog import CHECKPOINTS, Checkpoint
from masklet.weights.fetch import RemoteFile, explain_offline_fetch, fetch_checkpoint, find_verified_file, plan_fetch
from masklet.weights.store import read_hash_record, resolve_weights

TENSORS = bytes(range(256)) * 10_000  # three reports
SHA = hashlib.sha256(TENSORS).hexdigest()
MODEL = Checkpoint("toy", "owner/toy", len(TENSORS), SHA)
PATH = "/owner/toy/resolve/main/"


@dataclass
class FakeHub:
    """Files by path; what was asked for."""

    files: dict[str, bytes]
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    tokens: list[str | None] = field(default_factory=list)
    heeds_ranges: bool = True
    cut: int | None = None  # bytes after which the connection ends
    status: int = 200
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        self.answer(None)

    def answer(self, body: bytes | None) -> None:
        hub, wanted = self.hub, self.headers.get("Range")
        hub.asked.append((self.command, self.path, wanted))
        hub.tokens.append(self.headers.get("Authorization"))
        content = hub.files.get(self.path)
        if content is None or hub.status != 200:
            self.send_response(404 if content is None else hub.status)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and hub.heeds_ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("X-Repo-Commit", "c" * 40)
        large = self.path.endswith((".safetensors", ".pth"))
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest() if large else "1" * 40}"')
        self.end_headers()
        self.wfile.write(content[start:][: hub.cut] if body is None else body)

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A hub with one model, for a machine that has nothing."""
    hub = FakeHub({PATH + "config.json": b'{"model_type": "toy"}', PATH + "model.safetensors": TENSORS})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("MASKLET_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr("huggingface_hub.hf_hub_url", lambda r, f, revision: f"{hub.url}/{r}/resolve/{revision}/{f}")
    yield hub
    server.shutdown()
    server.server_close()


def quietly(model: Checkpoint) -> Path:
    return fetch_checkpoint(model, plan_fetch(model), lambda file, done, total: None)


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def partial(tmp_path: Path, content: bytes, sha256: str = SHA) -> Path:
    """What an earlier fetch left."""
    path = tmp_path / "weights" / "toy" / f".model.safetensors.{sha256[:8]}.partial"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_a_model_of_one_file_is_fetched_alone(hub: FakeHub, tmp_path: Path) -> None:
    hub.files = {PATH + "toy.pth": TENSORS}
    path = quietly(Checkpoint("toy", "owner/toy", len(TENSORS), SHA, alone="toy.pth"))
    assert path.read_bytes() == TENSORS and names(tmp_path / "weights" / "toy") == ["record.json", "toy.pth"]
    path.unlink()
    with pytest.raises(InputError, match="expected " + "0" * 64):
        quietly(Checkpoint("toy", "owner/toy", len(TENSORS), "0" * 64, alone="toy.pth"))
    with pytest.raises(InputError, match="by hand only"):
        plan_fetch(CHECKPOINTS["dvis-offline-r50-ovis"])
    assert all(asked[1].endswith("toy.pth") for asked in hub.asked)


def test_what_its_authors_released_is_fetched_from_there_without_the_hubs_token(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files = {"/v1.0/toy.pth": TENSORS}
    sent: list[dict[str, str]] = []
    monkeypatch.setattr("huggingface_hub.utils.build_hf_headers", lambda: sent.append({}) or {"authorization": "t"})
    model = Checkpoint("toy", "", sha256=SHA, alone="toy.pth", url=f"{hub.url}/v1.0/toy.pth")
    with pytest.raises(InputError, match=r"run `masklet weights fetch toy`, or download http.*/v1.0/toy.pth"):
        resolve_weights(model)
    assert plan_fetch(model) == {"toy.pth": RemoteFile(model.url, len(TENSORS), None)}
    partial = tmp_path / "weights/toy/.toy.pth.unknown.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(TENSORS[:1000])
    assert quietly(model).read_bytes() == TENSORS and not sent
    assert [asked for asked in hub.asked if asked[0] == "GET"] == [("GET", "/v1.0/toy.pth", "bytes=1000-")]
    assert find_verified_file(model) == tmp_path / "weights/toy/toy.pth"
    with pytest.raises(InputError, match="expected " + "0" * 64):
        quietly(replace(model, sha256="0" * 64))
    hub.files = {}
    with pytest.raises(InputError, match=r"there is no http.* any more \(404\); .*download http.* and save it as"):
        plan_fetch(model)


def test_a_model_is_announced_fetched_and_noted(hub: FakeHub, tmp_path: Path) -> None:
    files, seen = plan_fetch(MODEL), []
    assert files["model.safetensors"] == RemoteFile(hub.url + PATH + "model.safetensors", len(TENSORS), SHA)
    assert files["config.json"].sha256 is None and files["config.json"].size == 21
    assert not (tmp_path / "weights").exists(), "asking writes nothing"
    path = fetch_checkpoint(MODEL, files, lambda *args: seen.append(args))
    assert path.read_bytes() == TENSORS and json.loads(path.with_name("config.json").read_text())
    assert names(path.parent) == ["config.json", "model.safetensors", "record.json"]
    assert read_hash_record("toy")["model.safetensors"].sha256 == SHA
    done = [d for file, d, total in seen if file == "model.safetensors" and total == len(TENSORS)]
    assert done[0] == 0 and done == sorted(done) and done[-1] == len(TENSORS) and len(done) >= 3
    assert find_verified_file(MODEL) == path


def test_the_hubs_hash_is_noted_where_we_know_none(hub: FakeHub) -> None:
    model = replace(MODEL, sha256=None, size=None)
    path = quietly(model)
    assert resolve_weights(model)[1] == SHA
    path.write_bytes(TENSORS[:-1] + b"x")
    with pytest.raises(InputError, match=f"expected {SHA}"):
        resolve_weights(model)
    assert find_verified_file(model) is None


def test_a_fetch_goes_on_where_it_ended(hub: FakeHub, tmp_path: Path) -> None:
    hub.cut = 1_500_000
    with pytest.raises(InputError, match=r"owner/toy cannot be fetched \(.*\); try again \(what is here is kept\)"):
        fetch_checkpoint(MODEL, {"model.safetensors": plan_fetch(MODEL)["model.safetensors"]}, lambda *args: None)
    [left] = (tmp_path / "weights" / "toy").iterdir()
    begun = left.stat().st_size
    assert 0 < begun <= 1_500_000 and left.name.endswith(".partial")
    hub.cut = None
    assert quietly(MODEL).read_bytes() == TENSORS
    assert hub.asked[-1] == ("GET", PATH + "model.safetensors", f"bytes={begun}-")


def test_a_server_that_starts_over_is_followed(hub: FakeHub, tmp_path: Path) -> None:
    partial(tmp_path, TENSORS[:1000])
    hub.heeds_ranges = False
    assert quietly(MODEL).read_bytes() == TENSORS


def test_what_is_complete_is_not_asked_for_again(hub: FakeHub, tmp_path: Path) -> None:
    partial(tmp_path, TENSORS)
    assert quietly(MODEL).read_bytes() == TENSORS
    assert ("GET", PATH + "model.safetensors") not in [asked[:2] for asked in hub.asked]


def test_what_was_begun_of_another_version_is_not_gone_on_with(hub: FakeHub, tmp_path: Path) -> None:
    partial(tmp_path, b"old" * 100, "0" * 64)
    assert quietly(MODEL).read_bytes() == TENSORS


def test_a_wrong_beginning_is_found_out(hub: FakeHub, tmp_path: Path) -> None:
    left = partial(tmp_path, b"x" * 1000)
    with pytest.raises(InputError, match=rf"toy/model\.safetensors has sha256 .* expected {SHA} in 2,560,000 bytes"):
        quietly(MODEL)
    assert not left.exists() and not (left.parent / "model.safetensors").exists()
    assert quietly(MODEL).read_bytes() == TENSORS


def test_another_file_than_on_record_with_us_is_refused(hub: FakeHub) -> None:
    with pytest.raises(InputError, match=f"has sha256 {SHA} .* expected {'a' * 64}"):
        quietly(replace(MODEL, sha256="a" * 64))


def test_a_wrong_file_is_replaced(hub: FakeHub, tmp_path: Path) -> None:
    path = quietly(MODEL)
    path.write_bytes(b"cut off")
    assert find_verified_file(MODEL) is None
    assert quietly(MODEL).read_bytes() == TENSORS and resolve_weights(MODEL)[1] == SHA


def test_a_page_in_place_of_a_config_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    hub.files[PATH + "config.json"] = b"<html>log in</html>"
    with pytest.raises(InputError, match=r"config\.json is not a config but another page; is HF_ENDPOINT right\?"):
        quietly(MODEL)
    assert names(tmp_path / "weights" / "toy") == []


def test_a_model_that_the_hub_does_not_have(hub: FakeHub) -> None:
    with pytest.raises(InputError, match=r"the hub has no owner/other with config\.json and model\.safetensors for you \(404\)"):  # fmt: skip
        plan_fetch(Checkpoint("owner/other", "owner/other"))


def test_a_hub_that_fails_is_no_crash(hub: FakeHub) -> None:
    hub.status = 500
    with pytest.raises(InputError, match=r"owner/toy cannot be fetched \(.*500.*\); try again"):
        plan_fetch(MODEL)


def test_without_network_there_is_one_sentence_with_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def unreachable(*_: object) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setenv("MASKLET_WEIGHTS", "/big/disk")
    monkeypatch.setattr(fetching, "describe_remote", unreachable)
    with pytest.raises(InputError) as error:
        plan_fetch(CHECKPOINTS["sam2.1-tiny"])
    assert str(error.value) == (
        "facebook/sam2.1-hiera-tiny cannot be fetched ([Errno 101] Network is unreachable); try again (what is here is "
        "kept), or on a machine with network run `hf download facebook/sam2.1-hiera-tiny config.json model.safetensors "
        "--revision de431c4043854a71d8101e17995dfe596bf101a5 --local-dir sam2.1-tiny` and bring the folder sam2.1-tiny "
        "to /big/disk/sam2.1-tiny, or to any folder DIR and set MASKLET_WEIGHTS=DIR"
    )
    assert "--revision" not in explain_offline_fetch(CHECKPOINTS["sam2-tiny"])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("file", [".config.json.unknown.partial", f".model.safetensors.{SHA[:8]}.partial"])
def test_a_full_disk_is_not_taken_for_a_lost_network(file: str, hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "weights" / "toy").mkdir(parents=True)
    (tmp_path / "weights" / "toy" / file).symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"partial: the disk is full"):
        quietly(MODEL)


def test_a_folder_that_cannot_be_made_is_named(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "weights").write_text("a file")
    with pytest.raises(InputError, match=r"weights/toy: cannot be written"):
        quietly(MODEL)


@pytest.mark.parametrize(
    ("status", "todo"),
    [(401, "log in with `hf auth login`, or set HF_TOKEN"), (403, "wait until its authors let your account in")],
)
def test_a_gated_model_says_what_to_accept_where(hub: FakeHub, status: int, todo: str) -> None:
    gated = replace(MODEL, gate="https://huggingface.co/owner/toy", licence="Toy License")
    hub.status = status
    with pytest.raises(InputError) as error:
        plan_fetch(gated)
    said = str(error.value)
    assert f"owner/toy is gated ({status}): ask for access and accept its terms (Toy License) at {gated.gate}" in said
    assert todo in said and "run `masklet weights fetch toy` again" in said
    assert "or bring config.json, model.safetensors from where you have them to" in said


@pytest.mark.parametrize("held", ["environment", "file", "nowhere"])
def test_a_token_that_the_hubs_tools_hold_is_used(
    hub: FakeHub, held: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if held == "environment":
        monkeypatch.setenv("HF_TOKEN", "hf_toy")
    elif held == "file":
        (tmp_path / "token").write_text("hf_toy\n")
    quietly(MODEL)
    assert set(hub.tokens) == ({None} if held == "nowhere" else {"Bearer hf_toy"})
