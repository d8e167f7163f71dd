"""Damages videos byte by byte and compares what is read with the undamaged frames: what is told, and what is silent.

A frame is silent where its pixels are not those of the undamaged video, it is in no gap, and nothing is said of the
file. What of it a decoder could have known is asked of ffmpeg with all its checks on (`err_detect`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "io"))
from clips import write_clip

from masklet.core.errors import InputError
from masklet.io.video.sources import open_video

CLIPS = {  # by suffix and codec
    ("mp4", "libx264"): {},
    ("mkv", "libx264"): {},
    ("ts", "libx264"): {},
    ("mp4", "libx265"): {"options": {"x265-params": "log-level=none"}},
    ("webm", "libvpx-vp9"): {},
    ("webm", "libvpx"): {},
    ("mpg", "mpeg2video"): {"options": {"bf": "2"}},
    ("avi", "mpeg4"): {},
    ("avi", "mjpeg"): {"pixels": "yuvj420p"},
    ("mkv", "ffv1"): {},
}
CHECKS = {"err_detect": "crccheck+bitstream+buffer+careful+compliant+aggressive+explode"}
COLUMNS = ("same", "refused", "told", "silent frames", "silent pixels", "seen by checks")


def read_all(path: Path) -> tuple[list[np.ndarray], set[int], bool]:
    """The frames of a file, those in gaps, and whether anything is said of damage."""
    with open_video(path) as video:
        frames = [frame.image for frame in video]
        gaps = {t for gap in video.gaps for t in range(gap.start, gap.stop)}
        return frames, gaps, bool(gaps or video.damage or video.notes)


def is_seen_by_checks(path: Path) -> bool:
    """Whether ffmpeg finds an error in a file with all its checks on."""
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.video[0]
            stream.codec_context.options = CHECKS
            return any(frame.is_corrupt for frame in container.decode(stream))
    except (av.FFmpegError, IndexError):
        return True


def damage(data: bytes, draw: np.random.Generator) -> bytes:
    """Some bytes changed, one bit, a run of zeros, or a piece taken out; not in the first tenth, the header of many."""
    out, start = bytearray(data), len(data) // 10
    at, kind = int(draw.integers(start, len(data))), int(draw.integers(4))
    if kind == 0:
        out[at] ^= 1 << int(draw.integers(8))
    elif kind == 1:
        for place in draw.integers(start, len(data), 8):
            out[place] = int(draw.integers(256))
    elif kind == 2:
        out[at : at + 64] = bytes(len(out[at : at + 64]))
    else:
        del out[at : at + int(draw.integers(1, 400))]
    return bytes(out)


def judge(path: Path, good: Sequence[np.ndarray]) -> str:
    """What became of a damaged file, whose undamaged frames are `good`."""
    try:
        frames, gaps, told = read_all(path)
    except InputError:
        return "refused"
    if told:
        return "told"
    if len(frames) != len(good):
        return "silent frames"
    return "same" if all(map(np.array_equal, frames, good)) and not gaps else "silent pixels"


def main() -> None:
    """Reads the options, damages the clips, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", nargs="?", type=int, default=100, help="of each kind of clip")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    av.logging.set_level(av.logging.PANIC)
    print("clip".ljust(20) + "".join(name.rjust(16) for name in COLUMNS))
    with tempfile.TemporaryDirectory() as folder:
        for (suffix, codec), how in CLIPS.items():
            source, target = Path(folder) / f"good.{suffix}", Path(folder) / f"bad.{suffix}"
            write_clip(source, codec, **how)
            data, good = source.read_bytes(), read_all(source)[0]
            draw, counts = np.random.default_rng(asked.seed), Counter[str]()
            for _ in range(asked.inputs):
                target.write_bytes(damage(data, draw))
                found = judge(target, good)
                counts[found] += 1
                counts["seen by checks"] += found.startswith("silent") and is_seen_by_checks(target)
            print(f"{suffix} {codec}".ljust(20) + "".join(str(counts[name]).rjust(16) for name in COLUMNS), flush=True)


if __name__ == "__main__":
    main()
