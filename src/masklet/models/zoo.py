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

from safetensors.torch import load
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.files import write_atomically

CONFIG, TENSORS = "config.json", "model.safetensors"  # the two files of every model, as transformers saves them
RECORD = "record.json"  # beside them: what they were when they were last hashed
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
MEGABYTE = 10**6


@dataclass(frozen=True)
class Weights:
    """One weight file that comes with the package."""

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class Original:
    """The file in which the authors published a model."""

    url: str
    sha256: str

    @property
    def file(self) -> str:
        """Its name."""
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class Checkpoint:
    """A model that is fetched once. Where no sha256 is known, the hub's own counts, and is recorded at the fetch."""

    name: str
    repo: str
    size: int | None = None  # bytes of model.safetensors
    sha256: str | None = None  # of model.safetensors
    revision: str = "main"
    licence: str = ""
    original: Original | None = None
    besides: tuple[str, ...] = ()  # files without which it cannot be used: a tokenizer's

    @property
    def files(self) -> tuple[str, ...]:
        """All that is fetched, the largest last."""
        return (CONFIG, *self.besides, TENSORS)


@dataclass(frozen=True)
class Located:
    """A weight file that is on this machine, not yet looked into."""

    path: Path
    sha256: str | None  # what it must have
    cached: bool = False  # by huggingface_hub, in its own folder

    @property
    def config(self) -> Path | None:
        """The config that goes with the file; the authors' own files have none."""
        return self.path.with_name(CONFIG) if self.path.name == TENSORS else None


@dataclass(frozen=True)
class Hashed:
    """A file's content, and by what to tell that it was not touched since."""

    sha256: str
    size: int
    mtime_ns: int


def _packaged(file: str) -> Path:
    return Path(str(resources.files("masklet") / "weights" / file))


ZOO = {
    w.name: w
    for w in (
        Weights(
            "mobilenetv2",
            _packaged("mobilenetv2.safetensors"),
            "9793fd2eebf993a47ec125a23d29228a527c0955b60663a04b2b306b99944e25",
        ),
    )
}

_META = "https://dl.fbaipublicfiles.com/segment_anything_2"

# What finds boxes by text. Where each number was seen: docs/text.md.
DETECTORS = {
    c.name: c
    for c in (
        Checkpoint(
            "grounding-dino-tiny",
            "IDEA-Research/grounding-dino-tiny",
            689_359_096,
            "1a2412ef99bd74bcd3c2a246fa1e48581f8889a1300c9051974741314fc042f3",
            "a2bb814dd30d776dcf7e30523b00659f4f141c71",
            "Apache-2.0",
            besides=("tokenizer.json", "tokenizer_config.json"),
        ),
        Checkpoint(
            "grounding-dino-base",
            "IDEA-Research/grounding-dino-base",
            933_400_872,
            "5548f844c928c4b6f411fa8cbcc2bfa8dbbba437cb1d513975519f93c2a9ed21",
            "12bdfa3120f3e7ec7b434d90674b3396eccf88eb",
            "Apache-2.0",
            besides=("tokenizer.json", "tokenizer_config.json"),
        ),
        Checkpoint(
            "owlv2-base",
            "google/owlv2-base-patch16-ensemble",
            619_918_824,
            "e1e130b9e404cf91a75ad45644c1da9d7fa5284085eecc864266a6923efb99e7",
            "cfd3195ba4ea9592eec887ded089f4c08eff231d",
            "Apache-2.0",
            besides=("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"),
        ),
    )
}

# Where each number was seen: cards/sam2.md.
CHECKPOINTS = {
    c.name: c
    for c in (
        Checkpoint(
            "sam2.1-tiny",
            "facebook/sam2.1-hiera-tiny",
            155_908_064,
            "48c14467e5cf9e51870511feb72c89688e82dd74523142c0538b663e193ac2a7",
            "de431c4043854a71d8101e17995dfe596bf101a5",
            "Apache-2.0",
            Original(
                f"{_META}/092824/sam2.1_hiera_tiny.pt",
                "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
            ),
        ),
        Checkpoint(
            "sam2.1-small",
            "facebook/sam2.1-hiera-small",
            184_305_280,
            "0a4067b11ce1e23d5229203f11c718a823060d15a4b23fa2372a7d4b77cbbc60",
            "ee5bba1d82bb8749febdf90f45e84b687142ba03",
            "Apache-2.0",
            Original(
                f"{_META}/092824/sam2.1_hiera_small.pt",
                "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
            ),
        ),
        Checkpoint(
            "sam2.1-base-plus",
            "facebook/sam2.1-hiera-base-plus",
            323_476_296,
            "2012733a0de5d03efd1bba550a2847c4551be9ef2e0d497c83074df66189f780",
            "b7320756a13354e7530a63935656d35b2f91a290",
            "Apache-2.0",
            Original(
                f"{_META}/092824/sam2.1_hiera_base_plus.pt",
                "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
            ),
        ),
        Checkpoint(
            "sam2.1-large",
            "facebook/sam2.1-hiera-large",
            897_897_416,
            "dc407dce21301fd94abb395c5099b4f2c455fdc8a8f261ac3d0ea6d4cd197230",
            "665f8e2ad61cf5f53d65644ff27c8ee525124610",
            "Apache-2.0",
            Original(
                f"{_META}/092824/sam2.1_hiera_large.pt",
                "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
            ),
        ),
        Checkpoint(
            "sam2-tiny",
            "facebook/sam2-hiera-tiny",
            155_841_672,
            licence="Apache-2.0",
            original=Original(
                f"{_META}/072824/sam2_hiera_tiny.pt",
                "65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125",
            ),
        ),
        Checkpoint(
            "sam2-small",
            "facebook/sam2-hiera-small",
            184_238_888,
            licence="Apache-2.0",
            original=Original(
                f"{_META}/072824/sam2_hiera_small.pt",
                "95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3",
            ),
        ),
        Checkpoint(
            "sam2-base-plus",
            "facebook/sam2-hiera-base-plus",
            323_409_896,
            licence="Apache-2.0",
            original=Original(
                f"{_META}/072824/sam2_hiera_base_plus.pt",
                "d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071",
            ),
        ),
        Checkpoint(
            "sam2-large",
            "facebook/sam2-hiera-large",
            897_831_024,
            revision="e6a8e8809b8f1bfa2238b6d080f3d05cc76bd251",
            licence="Apache-2.0",
            original=Original(
                f"{_META}/072824/sam2_hiera_large.pt",
                "7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b",
            ),
        ),
        Checkpoint("edgetam", "yonigozlan/EdgeTAM-hf", licence="Apache-2.0"),
        *DETECTORS.values(),
    )
}


# -- what comes with the package


def read(weights: Weights) -> dict[str, Tensor]:
    """The tensors of a weight file, by name.

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
    return load(content)


# -- what is fetched


def checkpoint(name: str) -> Checkpoint:
    """The model of a name of ours, or of a hub id "owner/name". Raises InputError for other names."""
    if name in CHECKPOINTS:
        return CHECKPOINTS[name]
    if HUB_ID.fullmatch(name) and not {".", ".."} & set(name.split("/")):
        return Checkpoint(name, name)
    near = get_close_matches(name, CHECKPOINTS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    known = ", ".join(CHECKPOINTS)
    raise InputError(f"no weights {name!r}; {hint}there are: {known}, and hub ids such as owner/name")


def folder() -> Path:
    """The weights folder: MASKLET_WEIGHTS, else one in the user's cache. Nothing is created."""
    given = os.environ.get("MASKLET_WEIGHTS")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "masklet" / "weights"


def where(name: str) -> Path:
    """The folder of one model, there or not: <weights folder>/<name>."""
    return folder() / name


def find(model: Checkpoint) -> Located | None:
    """A model's weight file: in the weights folder, as we fetch it or as its authors publish it, or in the hub's cache.

    Nothing is read, hashed or fetched.
    """
    here = where(model.name)
    if all((here / file).is_file() for file in model.files):
        return Located(here / TENSORS, model.sha256)
    if model.original and (here / model.original.file).is_file():
        return Located(here / model.original.file, model.original.sha256)
    return _cached(model)


def _cached(model: Checkpoint) -> Located | None:
    """The model in huggingface_hub's own cache: all files of one revision."""
    from huggingface_hub import try_to_load_from_cache

    for revision in dict.fromkeys((model.revision, "main")):
        files = [try_to_load_from_cache(model.repo, file, revision=revision) for file in model.files]
        if all(isinstance(file, str) for file in files):
            return Located(Path(str(files[-1])), model.sha256, cached=True)
    return None


def located(model: Checkpoint) -> Located:
    """A model's weight file. Raises InputError where it is not on this machine: nothing is ever fetched here."""
    found = find(model)
    if found is None:
        here = where(model.name)
        missing = [file for file in model.files if not (here / file).is_file()]
        if TENSORS not in missing:
            raise InputError(
                f"weights {model.name}: {here} has no {', '.join(missing)}; bring that of {model.repo} there, "
                f"or run `masklet weights fetch {model.name}`"
            )
        raise InputError(
            f"weights {model.name} are not on this machine: run `masklet weights fetch {model.name}` "
            f"({in_words(model.size)}), or set MASKLET_WEIGHTS to the folder that holds {model.name}/"
        )
    return found


def ready(model: Checkpoint) -> tuple[Located, str]:
    """A model's weight file and its sha256, hashed only where it was touched since it was last hashed.

    Raises InputError where it is not on this machine, or is another file than it must be.
    """
    file = located(model)
    last = recorded(model.name).get(file.path.name)
    if last and _untouched(file.path, last) and last.sha256 == (file.sha256 or last.sha256):
        return file, last.sha256
    return file, verify(model, file)


def verify(model: Checkpoint, file: Located) -> str:
    """The sha256 of a weight file, hashed now; noted for later loads.

    Raises InputError where it is neither the one on record with us nor, where there is none, the one noted before.
    """
    last = recorded(model.name).get(file.path.name)
    expected = file.sha256 or (last and last.sha256)
    found = hashed(file.path)
    if expected and found.sha256 != expected:
        raise InputError(mismatch(model.name, file.path, found, expected, _size(model, file, last)))
    note(model.name, file.path.name, found)
    return found.sha256


def _size(model: Checkpoint, file: Located, last: Hashed | None) -> int | None:
    """Bytes that the file should have, where that is known."""
    return model.size if file.sha256 and file.config else last.size if last else None


def mismatch(name: str, path: Path, found: Hashed, expected: str, size: int | None) -> str:
    """What to tell the user of a file that is not the right one."""
    bytes_ = f" in {size:,} bytes" if size else ""
    return (
        f"weights {name}: {path} has sha256 {found.sha256} in {found.size:,} bytes, expected {expected}{bytes_}; "
        f"it is damaged or another file: fetch it with `masklet weights fetch {name}`"
    )


def hashed(path: Path) -> Hashed:
    """Hashes a file. Raises InputError where it cannot be read."""
    try:
        before = path.stat()  # first: what changes while we read is hashed again next time
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return Hashed(sha256, before.st_size, before.st_mtime_ns)


def _untouched(path: Path, last: Hashed) -> bool:
    now = path.stat()
    return (now.st_size, now.st_mtime_ns) == (last.size, last.mtime_ns)


def recorded(name: str) -> Mapping[str, Hashed]:
    """What a model's files were when they were last hashed; nothing where there is no record that can be read."""
    try:
        entries = json.loads((where(name) / RECORD).read_bytes())
        return {file: Hashed(**entry) for file, entry in entries.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def note(name: str, file: str, found: Hashed) -> None:
    """Notes what a file is. In a folder that cannot be written (shared, read-only) it is hashed at every load."""
    entries = {**recorded(name), file: found}
    text = json.dumps({file: asdict(entry) for file, entry in entries.items()}, indent=1)
    try:
        where(name).mkdir(parents=True, exist_ok=True)
        with write_atomically(where(name) / RECORD) as out:
            out.write(text.encode())
    except (OSError, InputError):
        return


def in_words(size: int | None) -> str:
    """A file's size for people."""
    return f"{size / MEGABYTE:,.0f} MB" if size else "size unknown"
