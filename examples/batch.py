"""Many videos with one model; one that cannot be read costs only itself: `python examples/batch.py *.mp4`.

For thousands, several machines, time limits and restarts take `masklet run *.mp4 -o out` (docs/batch.md).
"""

import sys
from pathlib import Path

import masklet


def main(*videos: str, out: str = "results") -> list[str]:
    model = masklet.load()
    Path(out).mkdir(exist_ok=True)
    failed = []
    for video in videos:
        try:
            result = model.segment(video)
        except masklet.InputError as error:
            print(error, file=sys.stderr)
            failed.append(video)
            continue
        result.save(f"{out}/{result.name}.json")
        print(f"{video}: {len(result.masklets)} objects in {result.length} frames")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main(*sys.argv[1:])))
