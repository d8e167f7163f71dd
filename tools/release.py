"""`make release`: builds what goes to PyPI into out/dist, and tries it as a stranger would. Nothing is uploaded.

Checked are the changelog, the wheel's contents and size, the licences of the packaged weights, and the metadata; then
the wheel is installed into a fresh environment, and used outside of the checkout in a path with spaces.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "out" / "dist"
LARGEST_WHEEL = 25 << 20  # bytes
LARGEST_SOURCE = 40 << 20
OWN = ("nano",)  # weights that were trained here: the package's own licence
WANTED = ("masklet/py.typed", "masklet/weights/files/nano-propagator.safetensors")
SMOKE = """
import sys, numpy as np, masklet
ground = np.random.default_rng(0).integers(60, 200, (18, 24, 3), np.uint8).repeat(8, 0).repeat(8, 1)
frames = np.stack([ground] * 4)
for t in range(4):
    frames[t, 40:90, 10 + 6 * t : 70 + 6 * t] = (220, 60, 40)
result = masklet.track(frames, {0: {1: masklet.Box(10, 40, 70, 90)}})
assert len(result.masklets) == 1 and len(result.masklets[0].sightings) == 4, result
result.save("masklets.json")
assert "site-packages" in masklet.__file__, masklet.__file__
print(result)
"""


def main() -> None:
    """All steps; the first that fails ends it with a sentence."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-install", action="store_true", help="leave out the fresh environment")
    chosen = parser.parse_args()
    version = read_version(ROOT / "pyproject.toml")
    stop_at(check_changelog((ROOT / "CHANGELOG.md").read_text(), version))
    wheel, source = build()
    stop_at(check_wheel(wheel))
    stop_at(check_size(source, LARGEST_SOURCE))
    run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(source))
    if not chosen.no_install:
        install_and_use(wheel)
    for path in (wheel, source):
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(ROOT)}")


def stop_at(problems: Iterator[str]) -> None:
    """Ends the program with what is wrong, if anything is."""
    found = list(problems)
    if found:
        sys.exit("release: " + "; ".join(found))


def read_version(path: Path) -> str:
    """The version, which stands in pyproject.toml alone."""
    return str(tomllib.loads(path.read_text())["project"]["version"])


def check_changelog(text: str, version: str) -> Iterator[str]:
    """The newest heading is the version's, with a date, and something stands under it."""
    heading = re.search(r"^## (\S+) \(([^)\n]+)\)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    if heading is None:
        yield "CHANGELOG.md: no heading such as '## 0.2.0 (2026-12-01)'"
        return
    if heading[1] != version:
        yield f"CHANGELOG.md begins with {heading[1]}, pyproject.toml says {version}"
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", heading[2]):
        yield f"CHANGELOG.md: {heading[1]} is {heading[2]!r}; give the day"
    if not heading[3].strip():
        yield f"CHANGELOG.md: nothing under {heading[1]}"


def build() -> tuple[Path, Path]:
    """The wheel and the source archive."""
    DIST.mkdir(parents=True, exist_ok=True)
    for old in DIST.iterdir():
        old.unlink()
    run(sys.executable, "-m", "hatchling", "build", "-d", str(DIST))
    return next(DIST.glob("*.whl")), next(DIST.glob("*.tar.gz"))


def check_size(path: Path, largest: int) -> Iterator[str]:
    """Whether a file is larger than it may be."""
    size = path.stat().st_size
    if size > largest:
        yield f"{path.name}: {size / (1 << 20):.1f} MB, more than {largest >> 20}"


def check_wheel(path: Path) -> Iterator[str]:
    """What a wheel lacks, has too much of, or has without a licence."""
    yield from check_size(path, LARGEST_WHEEL)
    names = zipfile.ZipFile(path).namelist()
    yield from (f"{path.name}: no {name}" for name in WANTED if name not in names)
    for name in names:
        if not (name.startswith("masklet/") or ".dist-info/" in name):
            yield f"{path.name}: {name} does not belong there"
        if name.endswith(".safetensors") and not is_licensed(name, names):
            yield f"{path.name}: {name} without a licence beside it"
    if not any(name.endswith("licenses/LICENSE") for name in names):
        yield f"{path.name}: no LICENSE"


def is_licensed(name: str, names: list[str]) -> bool:
    """Whether a weight file is our own, or has its licence beside it.

    >>> is_licensed("w/net-deep.safetensors", ["w/net.LICENSE"]), is_licensed("w/other.safetensors", ["w/net.LICENSE"])
    (True, False)
    """
    stem = Path(name).stem
    beside = [Path(n).stem for n in names if n.endswith(".LICENSE")]
    return any(stem == one or stem.startswith(f"{one}-") for one in (*OWN, *beside))


def install_and_use(wheel: Path) -> None:
    """Installs the wheel into a fresh environment and uses it where no checkout is near, in a path with spaces."""
    with tempfile.TemporaryDirectory(prefix="a stranger ") as folder:
        home = Path(folder)
        venv.create(home / "env", with_pip=True)
        python = home / "env" / "bin" / "python"
        run(str(python), "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), str(wheel))
        (home / "smoke.py").write_text(SMOKE)
        run(str(python), "-m", "masklet", "--version", folder=home)
        run(str(python), "-m", "masklet", "weights", "verify", folder=home)
        run(str(python), "smoke.py", folder=home)
        run(
            str(python),
            "-m",
            "masklet",
            "edit",
            "masklets.json",
            "--do",
            "rename 1 red thing",
            "-o",
            "better",
            folder=home,
        )


def run(*words: str, folder: Path = ROOT) -> None:
    """One command, which must succeed."""
    print("+", " ".join(words), flush=True)
    if subprocess.run(words, cwd=folder, check=False).returncode:
        sys.exit(f"release: {' '.join(words)} failed")


if __name__ == "__main__":
    main()
