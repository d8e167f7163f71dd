"""Fetching weights from the hub: announced, resumed, checked, and put in place whole."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from masklet.core.errors import InputError
from masklet.core.files import explain_write_error
from masklet.weights.catalog import Checkpoint
from masklet.weights.store import (
    compute_hash,
    describe_mismatch,
    explain_manual_fetch,
    find_weights,
    get_model_folder,
    record_hash,
    verify_weights,
)

Watch = Callable[[str, int, int | None], None]  # file, bytes done, bytes in all

SHA256 = re.compile(r"[0-9a-f]{64}")
CHUNK = 1 << 20  # bytes between two reports
GATED = (401, 403)  # not logged in; logged in, and not let in
UNKNOWN = (401, 403, 404)  # the hub answers 401 of models that do not exist, too


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub describes it."""

    url: str
    size: int | None
    sha256: str | None  # the hub knows it of large files only


def find_verified_file(model: Checkpoint) -> Path | None:
    """The weight file of a model that needs no fetching: it is here and it is the right one."""
    located = find_weights(model)
    try:
        return located.path if located and verify_weights(model, located) else None
    except InputError:  # another file: a fetch puts that right
        return None


def plan_fetch(model: Checkpoint) -> Mapping[str, RemoteFile]:
    """The files of a model, as the hub describes them now. Raises InputError where it cannot be asked."""
    if model.page:
        raise InputError(explain_manual_fetch(model))
    with explain_hub_errors(model):
        return {file: describe_remote(model, file) for file in model.files}


def fetch_checkpoint(model: Checkpoint, files: Mapping[str, RemoteFile], watch: Watch) -> Path:
    """Fetches a model's files into the weights folder, and gives its weight file; goes on with what was begun before.

    `files` are those of `plan_fetch`; `watch` is called with a file, the bytes done and the bytes in all, if known.
    Raises InputError where the hub cannot be reached or sends another file than it must be, or nothing can be written.
    """
    there = get_model_folder(model.name)
    try:
        there.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_write_error(there, error) from None
    for file, remote in files.items():
        partial = there / f".{file}.{(remote.sha256 or 'unknown')[:8]}.partial"
        with explain_hub_errors(model):
            download_file(remote, partial, lambda done, f=file, all=remote.size: watch(f, done, all))  # type: ignore[misc]
        install_file(model, file, remote, partial)
    return there / model.weight


def describe_remote(model: Checkpoint, file: str) -> RemoteFile:
    """Asks the hub, or where else the model's file is, for one file's size and sha256."""
    if model.url:
        return describe_released(model.url)
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(model.repo, file, revision=model.revision)
    facts = get_hf_file_metadata(url)
    etag = facts.etag or ""
    return RemoteFile(url, facts.size, etag if SHA256.fullmatch(etag) else None)


def describe_released(url: str) -> RemoteFile:
    """Asks the server of a `url` for the file's size; it says no sha256."""
    from huggingface_hub import get_session
    from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined]

    answer = get_session().head(url, headers={"Accept-Encoding": "identity"}, follow_redirects=True, timeout=30)
    hf_raise_for_status(answer)
    length = answer.headers.get("Content-Length", "")
    return RemoteFile(url, int(length) if length.isdecimal() else None, None)


@contextmanager
def open_url(url: str, start: int) -> Iterator[tuple[bool, Iterator[bytes]]]:
    """The content of a file from byte `start` on, and whether the server heeded that; if not, all of it."""
    from huggingface_hub import get_session
    from huggingface_hub.utils import build_hf_headers, hf_raise_for_status  # type: ignore[attr-defined]

    own = build_hf_headers() if is_of_hub(url) else {}  # the user's token goes to the hub alone
    headers = own | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=30) as response:
        hf_raise_for_status(response)
        yield response.status_code == 206, response.iter_bytes(CHUNK)


def is_of_hub(url: str) -> bool:
    """Whether a `url` is one of the hub that is used, or of its mirror."""
    from huggingface_hub import constants

    return url.startswith(f"{constants.ENDPOINT}/")


def download_file(remote: RemoteFile, partial: Path, report: Callable[[int], None]) -> None:
    """Fetches a `remote` file to the path `partial`, or what is missing of it there; `report` is told the bytes so far.

    Raises InputError where nothing can be written, ConnectionError where the connection ends early.
    """
    done = partial.stat().st_size if partial.is_file() and remote.size else 0
    if remote.size and done >= remote.size:
        return
    with open_url(remote.url, done) as (resumed, chunks), _open_partial(partial, resumed) as file:
        done = done if resumed else 0
        report(done)
        for chunk in chunks:
            _write_chunk(file, chunk, partial)
            done += len(chunk)
            report(done)
    if remote.size and done < remote.size:
        raise ConnectionError(f"the connection ended after {done:,} of {remote.size:,} bytes")


@contextmanager
def _open_partial(partial: Path, resumed: bool) -> Iterator[FileIO]:
    """Without a buffer, so that a full disk shows when we write and not when the file is closed."""
    try:
        file = partial.open("ab" if resumed else "wb", buffering=0)
    except OSError as error:
        raise explain_write_error(partial, error) from None
    with file:
        yield file


def _write_chunk(file: FileIO, chunk: bytes, partial: Path) -> None:
    left = memoryview(chunk)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise explain_write_error(partial, error) from None


def install_file(model: Checkpoint, file: str, remote: RemoteFile, partial: Path) -> None:
    """Gives the fetched file at `partial` its name `file` in the folder of `model`, and notes its hash.

    Raises InputError, having removed it, where its sha256 is not the one of `model` or else of `remote`, or a config is
    not JSON; and where it cannot be moved.
    """
    found, final = compute_hash(partial), get_model_folder(model.name) / file
    expected = (model.sha256 if file == model.weight else None) or remote.sha256
    if expected and found.sha256 != expected:
        partial.unlink()
        raise InputError(describe_mismatch(model.name, final, found, expected, remote.size))
    if file.endswith(".json") and not is_json(partial):
        partial.unlink()
        raise InputError(f"weights {model.name}: {remote.url} is not a config but another page; is HF_ENDPOINT right?")
    try:
        partial.replace(final)
    except OSError as error:
        raise explain_write_error(final, error) from None
    record_hash(model.name, file, found)


def is_json(path: Path) -> bool:
    """Whether a file holds a JSON object: a mirror or a login page may answer with something else."""
    try:
        return isinstance(json.loads(path.read_bytes()), dict)
    except ValueError:
        return False


@contextmanager
def explain_hub_errors(model: Checkpoint) -> Iterator[None]:
    """Says in one sentence what to do when the hub does not answer or does not have it."""
    from huggingface_hub import errors

    network: Any = errors.HTTPError  # type: ignore[attr-defined]  # httpx's or httpx2's, as the version has it
    try:
        yield
    except (network, OSError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in UNKNOWN and model.url:
            raise InputError(f"there is no {model.url} any more ({status}); {explain_offline_fetch(model)}") from None
        if status in GATED and model.gate:
            raise InputError(explain_gate(model, status)) from None
        if status in UNKNOWN:
            raise InputError(
                f"the hub has no {model.repo} with {' and '.join(model.files)} for you ({status}): "
                "check the name, or log in with `hf auth login`"
            ) from None
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{model.repo or model.url} cannot be fetched ({reason}); {explain_offline_fetch(model)}"
        ) from None


def explain_gate(model: Checkpoint, status: int) -> str:
    """What a person has to do before the hub gives a gated `model`, after it answered with a `status`."""
    login = "log in with `hf auth login`, or set HF_TOKEN to a token that may read gated models"
    todo = login if status == GATED[0] else "wait until its authors let your account in"
    return (
        f"weights {model.name}: {model.repo} is gated ({status}): ask for access and accept its terms "
        f"({model.licence}) at {model.gate}, {todo}, then run `masklet weights fetch {model.name}` again; "
        f"or bring {', '.join(model.files)} from where you have them to {get_model_folder(model.name)}"
    )


def explain_offline_fetch(model: Checkpoint) -> str:
    """How to get a model by way of another machine."""
    if model.url:
        return (
            f"try again (what is here is kept), or on a machine with network download {model.url} and save it as "
            f"{get_model_folder(model.name) / model.weight}"
        )
    revision = "" if model.revision == "main" else f" --revision {model.revision}"
    command = f"hf download {model.repo} {' '.join(model.files)}{revision} --local-dir {model.name}"
    return (
        f"try again (what is here is kept), or on a machine with network run `{command}` and bring the folder "
        f"{model.name} to {get_model_folder(model.name)}, or to any folder DIR and set MASKLET_WEIGHTS=DIR"
    )
