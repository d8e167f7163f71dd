"""One process of the fuzzer: makes inputs, reads them, and says a line before and after each. If it dies in between or
takes too long, the one who started it knows of which input.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import traceback
import warnings
import zlib
from pathlib import Path

import numpy as np

from masklet.core.errors import COMMANDS, InputError

MEMORY = 6 << 30  # bytes of address space beyond what the imports took


def main() -> None:
    """SEED FOLDER, then a line KIND NUMBER for each input on standard input."""
    seed, root = int(sys.argv[1]), Path(sys.argv[2]).resolve()
    say, sys.stdout = sys.stdout, Path(os.devnull).open("w")  # noqa: SIM115  # tables are printed too
    from fuzz.kinds import KINDS, Place
    from fuzz.samples import make_files

    warnings.simplefilter("ignore")
    make_files()
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("ready", file=say, flush=True)
    for line in sys.stdin:
        kind, number = line.split()
        place = Place(root, root / "a" / "b" / "c" / "given", root / "a" / "b" / "c" / "out")
        said = run_one(KINDS[kind], np.random.default_rng([seed, zlib.crc32(kind.encode()), int(number)]), place)
        print(json.dumps(said), file=say, flush=True)


def run_one(kind, draw, place) -> dict[str, str]:
    """What became of one input: "done", "refused", or "traceback", "outside" or "command" with what was found."""
    for folder in (place.given, place.out):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    os.chdir(place.out)
    steps = kind(draw, place)
    next(steps)
    before, status, detail = list_outside(place), "done", ""
    try:
        next(steps, None)
    except InputError as error:
        status, detail = "refused", str(error)
        if COMMANDS.search(detail):
            status = "command"
    except Exception as error:
        place_of_error = traceback.extract_tb(error.__traceback__)
        ours = next((f for f in reversed(place_of_error) if "/masklet/" in f.filename), place_of_error[-1])
        where = f"{ours.filename.rpartition('/masklet/')[2]}:{ours.lineno} in {ours.name}"
        status, detail = "traceback", f"{type(error).__name__}: {str(error)[:200]!r} at {where}"
    changed = list_outside(place) ^ before
    return {"status": "outside", "detail": sorted(changed)[0]} if changed else {"status": status, "detail": detail}


def list_outside(place) -> set[str]:
    """Every file and folder with its size, but for those in the place that may be written to."""
    found = set()
    for folder, folders, files in os.walk(place.root):
        if Path(folder) == place.out.parent:
            folders.remove("out")
        found |= {f"{folder}/{name}" for name in folders}
        found |= {f"{folder}/{name} {os.lstat(f'{folder}/{name}').st_size}" for name in files}
    return found


if __name__ == "__main__":
    main()
