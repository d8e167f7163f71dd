"""Weights by name: where they lie, and the sha256 they must have."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from masklet.core.errors import InputError
from masklet.core.files import write_atomically
from masklet.weights.catalog import CHECKPOINTS, CONFIG, TENSORS, Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

RECORD = "record.json"  # beside a model's files: what they were when they were last hashed
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
MEGABYTE = 10**6


OURS = "Apache-2.0"  # the licence of what was trained here


@dataclass(frozen=True)
class PackagedWeights:
    """One weight file that comes with the package."""

    name: str
    path: Path
    sha256: str
    licence: str = OURS


@dataclass(frozen=True)
class LocatedWeights:
    """A weight file that is on this machine, not yet looked into."""

    path: Path
    sha256: str | None  # what it must have
    cached: bool = False  # by huggingface_hub, in its own folder

    @property
    def config(self) -> Path | None:
        """The config that goes with the file; the authors' own files have none."""
        return self.path.with_name(CONFIG) if self.path.name == TENSORS else None


@dataclass(frozen=True)
class FileHash:
    """A file's content, and by what to tell that it was not touched since."""

    sha256: str
    size: int
    mtime_ns: int


def _locate_packaged(file: str) -> Path:
    return Path(str(resources.files("masklet") / "weights" / "files" / file))


ZOO = {
    name: PackagedWeights(name, _locate_packaged(f"{name}.safetensors"), sha256, *licence)
    for name, sha256, *licence in (
        ("mobilenetv2", "9793fd2eebf993a47ec125a23d29228a527c0955b60663a04b2b306b99944e25", "MIT"),
        ("mobilenetv2-deep", "b370be0858920e16c73fff4aea9aa3c74040f89a4906fa62ffe48894f8d3c05a", "MIT"),
        ("nano-image-predictor", "fb307cd2491decb325f0b737ad847a121b25eb307ad761a09ca31e5aa6862d7a"),
        ("nano-propagator", "c46f020fb75e46cba06a87902bed51ee14e1e677dcc15034f07d245febd0e3b9"),
        ("nano-segmenter", "eee58e21ca9a71234d8fec45ff6697f4565273f2102ce800271525075e0a84a5"),
        ("nanodet", "bdecf4f308d7bb514e313d296e219c386d971f8dcf3b1a3c171ff33e9fe84302", "Apache-2.0"),
    )
}

# -- what comes with the package


def read_packaged(weights: PackagedWeights) -> dict[str, Tensor]:
    """The tensors of a weight file, by name. Raises InputError as `verify_packaged`."""
    from safetensors.torch import load_file  # with torch, which a list of weights does not need

    return load_file(verify_packaged(weights))


def verify_packaged(weights: PackagedWeights) -> Path:
    """The path of a weight file.

    Raises InputError where the file is not there or is not the one whose sha256 is on record.
    """
    try:
        content = weights.path.read_bytes()
    except OSError as error:
        raise InputError(
            f"weights {weights.name}: cannot read {weights.path} ({error.strerror}); install masklet again"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != weights.sha256:
        raise InputError(
            f"weights {weights.name}: {weights.path} has sha256 {found}, expected {weights.sha256}; "
            "the file is damaged or was replaced: install masklet again"
        )
    return weights.path


# -- what is fetched


def find_checkpoint(name: str) -> Checkpoint:
    """The model of a name of ours, or of a hub id "owner/name". Raises InputError for other names."""
    if name in CHECKPOINTS:
        return CHECKPOINTS[name]
    if HUB_ID.fullmatch(name) and not {".", ".."} & set(name.split("/")):
        return Checkpoint(name, name)
    near = get_close_matches(name, CHECKPOINTS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise InputError(f"no weights {name!r}; {hint}`masklet weights list` has all, and hub ids are owner/name")


def get_weights_folder() -> Path:
    """The weights folder: MASKLET_WEIGHTS, else one in the user's cache. Nothing is created."""
    given = os.environ.get("MASKLET_WEIGHTS")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "masklet" / "weights"


def get_model_folder(name: str) -> Path:
    """The folder of one model, there or not: <weights folder>/<name>."""
    return get_weights_folder() / name


def find_weights(model: Checkpoint) -> LocatedWeights | None:
    """A model's weight file: in the weights folder, as we fetch it or as its authors publish it, or in the hub's cache.

    Nothing is read, hashed or fetched.
    """
    here = get_model_folder(model.name)
    if all((here / file).is_file() for file in model.files):
        return LocatedWeights(here / model.weight, model.sha256)
    if model.original and (here / model.original.file).is_file():
        return LocatedWeights(here / model.original.file, model.original.sha256)
    return _find_cached(model)


def _find_cached(model: Checkpoint) -> LocatedWeights | None:
    """The model in huggingface_hub's own cache: all files of one revision."""
    from huggingface_hub import constants

    if (
        model.page
        or model.url
        or not (Path(constants.HF_HUB_CACHE) / f"models--{model.repo.replace('/', '--')}").is_dir()
    ):
        return None
    from huggingface_hub import try_to_load_from_cache  # an eighth of a second, which only those pay who use the cache

    for revision in dict.fromkeys((model.revision, "main")):
        files = [try_to_load_from_cache(model.repo, file, revision=revision) for file in model.files]
        if all(isinstance(file, str) for file in files):
            return LocatedWeights(Path(str(files[-1])), model.sha256, cached=True)
    return None


def require_weights(model: Checkpoint) -> LocatedWeights:
    """A model's weight file. Raises InputError where it is not on this machine: nothing is ever fetched here."""
    found = find_weights(model)
    if found is None:
        here = get_model_folder(model.name)
        if model.page:
            raise InputError(explain_manual_fetch(model))
        if model.url:
            raise InputError(explain_released_fetch(model))
        missing = [file for file in model.files if not (here / file).is_file()]
        if model.weight not in missing:
            raise InputError(
                f"weights {model.name}: {here} has no {', '.join(missing)}; bring that of {model.repo} there, "
                f"or run `masklet weights fetch {model.name}`"
            )
        terms = f", once its terms are accepted at {model.gate}" if model.gate else ""
        raise InputError(
            f"weights {model.name} are not on this machine: run `masklet weights fetch {model.name}` "
            f"({format_file_size(model.size)}){terms}, or set MASKLET_WEIGHTS to the folder that holds {model.name}/"
        )
    return found


def resolve_weights(model: Checkpoint) -> tuple[LocatedWeights, str]:
    """A model's weight file and its sha256, hashed only where it was touched since it was last hashed.

    Raises InputError where it is not on this machine, or is another file than it must be.
    """
    file = require_weights(model)
    last = read_hash_record(model.name).get(file.path.name)
    if last and _is_untouched(file.path, last) and last.sha256 == (file.sha256 or last.sha256):
        return file, last.sha256
    return file, verify_weights(model, file)


def verify_weights(model: Checkpoint, file: LocatedWeights) -> str:
    """The sha256 of a weight file, hashed now; noted for later loads.

    Raises InputError where it is neither the one on record with us nor, where there is none, the one noted before.
    """
    last = read_hash_record(model.name).get(file.path.name)
    expected = file.sha256 or (last and last.sha256)
    found = compute_hash(file.path)
    if expected and found.sha256 != expected:
        raise InputError(
            describe_mismatch(model.name, file.path, found, expected, _find_expected_size(model, file, last))
        )
    record_hash(model.name, file.path.name, found)
    return found.sha256


def _find_expected_size(model: Checkpoint, file: LocatedWeights, last: FileHash | None) -> int | None:
    """Bytes that the file should have, where that is known."""
    return model.size if file.sha256 and file.path.name == model.weight else last.size if last else None


def describe_mismatch(name: str, path: Path, found: FileHash, expected: str, size: int | None) -> str:
    """What to tell the user of a file that is not the right one, and how to get that.

    `name` is the model's, `path` the file's, `found` its hash, `expected` the sha256 that it should have; `size`, the
    bytes that it should have, None: unknown.
    """
    bytes_ = f" in {size:,} bytes" if size else ""
    return (
        f"weights {name}: {path} has sha256 {found.sha256} in {found.size:,} bytes, expected {expected}{bytes_}; "
        f"it is damaged or another file: fetch it with `masklet weights fetch {name}`"
    )


def compute_hash(path: Path) -> FileHash:
    """Hashes a file. Raises InputError where it cannot be read."""
    try:
        before = path.stat()  # first: what changes while we read is hashed again next time
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return FileHash(sha256, before.st_size, before.st_mtime_ns)


def _is_untouched(path: Path, last: FileHash) -> bool:
    now = path.stat()
    return (now.st_size, now.st_mtime_ns) == (last.size, last.mtime_ns)


def read_hash_record(name: str) -> Mapping[str, FileHash]:
    """What a model's files were when they were last hashed; nothing where there is no record that can be read."""
    try:
        entries = json.loads((get_model_folder(name) / RECORD).read_bytes())
        return {file: FileHash(**entry) for file, entry in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def record_hash(name: str, file: str, found: FileHash) -> None:
    """Notes in the folder of the model `name` that its `file` has the hash `found`, for `read_hash_record`. In a folder
    that cannot be written (shared, read-only) nothing is noted: the file is hashed at every load.
    """
    entries = {**read_hash_record(name), file: found}
    text = json.dumps({file: asdict(entry) for file, entry in entries.items()}, indent=1)
    try:
        get_model_folder(name).mkdir(parents=True, exist_ok=True)
        with write_atomically(get_model_folder(name) / RECORD) as out:
            out.write(text.encode())
    except (OSError, InputError):
        return


def explain_manual_fetch(model: Checkpoint) -> str:
    """What to tell the user of a model that no program can fetch."""
    path = get_model_folder(model.name) / model.weight
    return f"weights {model.name} are not on this machine, and fetched by hand only: see {model.page}, save as {path}"


def explain_released_fetch(model: Checkpoint) -> str:
    """What to tell the user of a model that its authors released elsewhere than on the hub."""
    path = get_model_folder(model.name) / model.weight
    return (
        f"weights {model.name} are not on this machine: run `masklet weights fetch {model.name}`, or download "
        f"{model.url} (licence {model.licence}, its authors') and save it as {path}"
    )


def format_file_size(size: int | None) -> str:
    """A file's size for people."""
    return f"{size / MEGABYTE:,.0f} MB" if size else "size unknown"
