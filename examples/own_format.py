"""A format of your own writes one result into a folder; named as an entry point "masklet.formats" of a package,
it is `masklet run clip.mp4 -o out --format boxes`: `python examples/own_format.py masklets.json`.
"""

import csv
import sys
from pathlib import Path

from masklet import VideoResult


def write_boxes(result: VideoResult, names: list[str] | None, folder: Path) -> None:
    """A box a line. `names` are those of the frames' files, None where there are none."""
    with (folder / "boxes.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["frame", "id", "name", "x0", "y0", "x1", "y1"])
        for t in range(result.length):
            for (m, _), box in zip(result.at(t), result.boxes(t).tolist(), strict=True):
                out.writerow([names[t] if names else t, m.id, result.name_of(m), *box])


def main(result: str, folder: str = ".") -> Path:
    write_boxes(VideoResult.load(result), None, Path(folder))
    return Path(folder) / "boxes.csv"


if __name__ == "__main__":
    print(main(*sys.argv[1:]).read_text())
