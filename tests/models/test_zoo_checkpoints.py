"""Models that are fetched: where they are looked for, what they must be, and how that is remembered."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from masklet.core.errors import InputError
from masklet.weights import store as zoo
from masklet.weights.catalog import CHECKPOINTS, Checkpoint, OriginalFile
from masklet.weights.store import (
    find_checkpoint,
    find_weights,
    get_weights_folder,
    read_hash_record,
    resolve_weights,
    verify_weights,
)

CONTENT = b"the right tensors"
SHA = hashlib.sha256(CONTENT).hexdigest()
KNOWN = Checkpoint("toy", "owner/toy", len(CONTENT), SHA, original=OriginalFile("https://host/folder/toy.pt", SHA))
UNKNOWN = Checkpoint("toy", "owner/toy")


@pytest.fixture(autouse=True)
def weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty weights folder, and an empty hub cache."""
    monkeypatch.setenv("MASKLET_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "weights"


def put(folder: Path, content: bytes = CONTENT, file: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / file).write_bytes(content)
    return folder / file


def forbid_hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise AssertionError(f"{path} was hashed")

    monkeypatch.setattr(zoo, "compute_hash", refuse)


# -- the table


@pytest.mark.parametrize("model", CHECKPOINTS.values(), ids=lambda m: m.name)
def test_entries_are_well_formed(model: Checkpoint) -> None:
    hashes = [model.sha256, model.original and model.original.sha256]
    assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in hashes if sha256)
    homes = bool(zoo.HUB_ID.fullmatch(model.repo)), bool(model.page), bool(model.url)
    assert sum(homes) == 1, "fetched from the hub, by hand, or from a release"
    assert model.licence or model.repo, "the hub's page tells it"
    assert not model.url or model.url.endswith(f"/{model.alone}")
    assert model.sha256 is None or model.url or re.fullmatch("[0-9a-f]{40}", model.revision), "it is of one revision"


def test_no_two_files_share_a_hash() -> None:
    hashes = [h for m in CHECKPOINTS.values() for h in (m.sha256, m.original and m.original.sha256) if h]
    assert len(hashes) == len(set(hashes)) == 21


def test_original_files_go_by_the_last_part_of_their_address() -> None:
    original = CHECKPOINTS["sam2.1-base-plus"].original
    assert original and original.file == "sam2.1_hiera_base_plus.pt"


def test_hub_ids_are_names_too_and_paths_are_not() -> None:
    assert find_checkpoint("owner/some.model-1") == Checkpoint("owner/some.model-1", "owner/some.model-1")
    for name in ("../model", "owner/..", "a/b/c", "", "owner/"):
        with pytest.raises(InputError, match="no weights"):
            find_checkpoint(name)


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(
        InputError, match=r"no weights 'sam2\.1-larg'; did you mean sam2\.1-large\? `masklet weights list` has all"
    ):
        find_checkpoint("sam2.1-larg")


# -- where


def test_the_folder_is_the_variables_else_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("MASKLET_WEIGHTS", "~/shared")
    assert get_weights_folder() == Path("/home/someone/shared")
    monkeypatch.delenv("MASKLET_WEIGHTS")
    assert get_weights_folder() == Path("/home/someone/.cache/masklet/weights")


def test_looking_creates_nothing(weights: Path) -> None:
    assert find_weights(KNOWN) is None and not weights.exists()


def test_a_model_is_found_in_the_weights_folder(weights: Path) -> None:
    path = put(weights / "toy")
    found = find_weights(KNOWN)
    assert found and (found.path, found.sha256, found.config) == (path, SHA, path.with_name("config.json"))
    path.with_name("config.json").unlink()
    assert find_weights(KNOWN) is None


def test_a_model_may_be_one_file_without_a_config(weights: Path) -> None:
    model = Checkpoint("toy", "owner/toy", len(CONTENT), SHA, alone="toy.pth")
    put(weights / "toy")
    assert model.files == ("toy.pth",) and find_weights(model) is None, "another form of it is not it"
    path = put(weights / "toy", file="toy.pth")
    assert resolve_weights(model)[0].path == path and resolve_weights(model)[1] == SHA
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(InputError, match=r"toy\.pth has sha256 .* expected .* in 17 bytes"):
        resolve_weights(model)


def test_a_model_that_no_program_can_fetch_is_told_of_and_found(weights: Path) -> None:
    model = CHECKPOINTS["dvis-online-r50-ovis"]
    file = weights / model.name / "dvis-online-r50-ovis.pth"
    with pytest.raises(InputError, match=f"by hand only: see https://.*MODEL_ZOO.md, save as {file}$"):
        resolve_weights(model)
    put(file.parent, file=file.name)
    assert resolve_weights(model)[0].path == file and read_hash_record(model.name)[file.name].sha256 == SHA


def test_the_authors_own_file_will_do(weights: Path) -> None:
    path = put(weights / "toy", file="toy.pt")
    found = find_weights(KNOWN)
    assert found and (found.path, found.sha256, found.config) == (path, SHA, None)


@pytest.mark.parametrize("revision", ["main", "abc", "f" * 40])
def test_the_hubs_cache_is_looked_into(revision: str, tmp_path: Path) -> None:
    model = replace(KNOWN, revision=revision)
    repo = tmp_path / "hub" / "models--owner--toy"
    path = put(repo / "snapshots" / "abc")
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc")
    found = find_weights(model)
    assert found and found.cached and found.path == path and resolve_weights(model)[1] == SHA
    path.with_name("config.json").unlink()
    assert find_weights(model) is None


def test_a_model_that_is_not_here_is_not_fetched_but_told_of() -> None:
    words = (
        r"^weights sam2\.1-large are not on this machine: run `masklet weights fetch sam2\.1-large` \(898 MB\), or set"
    )
    with pytest.raises(InputError, match=words):
        resolve_weights(CHECKPOINTS["sam2.1-large"])


# -- what it must be


def test_a_wrong_file_is_refused_by_name_with_both_hashes(weights: Path) -> None:
    path = put(weights / "toy", CONTENT[:-1])
    other = hashlib.sha256(CONTENT[:-1]).hexdigest()
    words = f"weights toy: {path} has sha256 {other} in 16 bytes, expected {SHA} in 17 bytes; .*weights fetch toy`"
    with pytest.raises(InputError, match=words):
        resolve_weights(KNOWN)
    assert not read_hash_record("toy"), "what was refused is not noted"


def test_the_second_load_does_not_hash(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(weights / "toy")
    assert resolve_weights(KNOWN)[1] == SHA
    forbid_hashing(monkeypatch)
    assert resolve_weights(KNOWN)[1] == SHA


def test_a_new_date_makes_it_hash_again(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(weights / "toy")
    resolve_weights(KNOWN)
    os.utime(path, ns=(1, 1))
    assert resolve_weights(KNOWN)[1] == SHA
    os.utime(path, ns=(2, 2))
    forbid_hashing(monkeypatch)
    with pytest.raises(AssertionError, match="was hashed"):
        resolve_weights(KNOWN)


@pytest.mark.parametrize("model", [KNOWN, UNKNOWN], ids=["sha256 with us", "sha256 noted before"])
def test_an_altered_byte_is_refused(model: Checkpoint, weights: Path) -> None:
    path = put(weights / "toy")
    assert resolve_weights(model)[1] == SHA
    path.write_bytes(CONTENT[:-1] + b"x")
    os.utime(path, ns=(1, 1))
    with pytest.raises(InputError, match=f"expected {SHA} in 17 bytes"):
        resolve_weights(model)


def test_verifying_hashes_what_looks_untouched(weights: Path) -> None:
    path = put(weights / "toy")
    resolve_weights(UNKNOWN)
    date = path.stat().st_mtime_ns
    path.write_bytes(CONTENT[:-1] + b"x")
    os.utime(path, ns=(date, date))
    assert resolve_weights(UNKNOWN)[1] == SHA, "size and date are as they were"
    found = find_weights(UNKNOWN)
    assert found
    with pytest.raises(InputError, match=f"expected {SHA}"):
        verify_weights(UNKNOWN, found)


def test_a_note_of_another_file_does_not_count_where_we_know_better(weights: Path) -> None:
    put(weights / "toy", b"another")
    resolve_weights(UNKNOWN)
    with pytest.raises(InputError, match=f"expected {SHA}"):
        resolve_weights(KNOWN)


@pytest.mark.parametrize("text", ["", "[1]", '{"model.safetensors": 1}', '{"model.safetensors": {"sha256": "a"}}', "\xff"])  # fmt: skip
def test_a_damaged_record_is_no_record(text: str, weights: Path) -> None:
    put(weights / "toy")
    (weights / "toy" / "record.json").write_text(text, encoding="latin-1")
    assert resolve_weights(KNOWN)[1] == SHA
    assert read_hash_record("toy")["model.safetensors"].sha256 == SHA


def test_the_record_holds_what_it_says(weights: Path) -> None:
    path = put(weights / "toy")
    resolve_weights(KNOWN)
    entry = json.loads((weights / "toy" / "record.json").read_text())
    assert entry == {"model.safetensors": {"sha256": SHA, "size": 17, "mtime_ns": path.stat().st_mtime_ns}}


def test_a_folder_that_cannot_be_written_still_serves(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(weights / "toy")

    def full(path: Path) -> None:
        raise InputError("the disk is full")

    monkeypatch.setattr(zoo, "write_atomically", full)
    assert resolve_weights(KNOWN)[1] == SHA and not read_hash_record("toy")


def test_a_file_that_cannot_be_read_is_named(weights: Path) -> None:
    (weights / "toy").mkdir(parents=True)
    with pytest.raises(InputError, match=r"toy/gone: cannot be read \(No such file"):
        zoo.compute_hash(weights / "toy" / "gone")


def test_the_original_is_compared_with_its_own_hash(weights: Path) -> None:
    put(weights / "toy", b"another", "toy.pt")
    with pytest.raises(InputError, match=r"toy\.pt has sha256 .* in 7 bytes, expected a{64};"):
        resolve_weights(replace(KNOWN, original=OriginalFile("https://host/toy.pt", "a" * 64)))
