"""A package whose segmenter goes wrong in the way that a frame's first pixel says: bad clips on demand."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from typing import Any

import torch

import masklet

# What the first pixel's red means; anything else is a frame in which all that is bright is one object.
KILLED, HANGS, NO_MEMORY, ABORTS, ENDS, EXITS, RAISES, SLOW = range(201, 209)


def go_wrong(how: int) -> None:
    """Does what `how` stands for."""
    if how == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    if how == HANGS:
        time.sleep(10_000)
    if how == NO_MEMORY:
        bytearray(1 << 60)
    if how == ABORTS:
        os.abort()
    if how == ENDS:
        os._exit(7)
    if how == EXITS:
        raise SystemExit(3)
    if how == RAISES:
        raise RuntimeError("no idea")
    if how == SLOW:
        time.sleep(0.5)


class Odd:
    """What is bright is one object, unless something goes wrong."""

    categories, look_ahead, conf, low_conf = ("bright",), 0, 0.5, 0.5
    description = "odd"

    def empty(self) -> None:
        return None

    def segment(
        self, memory: None, frames: Sequence[masklet.Frame], future: Sequence[masklet.Frame]
    ) -> tuple[list[masklet.Detections], None]:
        found = []
        for frame in frames:
            go_wrong(int(frame.image[0, 0, 0]))
            mask = torch.from_numpy((frame.image.min(2) > 128)[None])
            found.append(masklet.Detections(mask, torch.tensor([0.9]), torch.tensor([0])))
        return found, None


def load_odd(request: masklet.PartRequest) -> Odd:
    """Bright things, and trouble."""
    return Odd()


def write_clip(folder: Any, how: int = 0, length: int = 3, size: tuple[int, int] = (24, 32)) -> None:
    """A clip of `length` images in which a bright square moves; its second frame goes wrong as `how` says."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    for t in range(length):
        image = np.zeros((*size, 3), np.uint8)
        image[6:16, 4 + t : 14 + t] = 200
        image[0, 0] = how if t == 1 else 0
        Image.fromarray(image).save(folder / f"{t:05}.png")


def install(site: Any, source: Any) -> None:
    """Puts this package and the toy beside `source` into the folder `site`, as pip leaves them."""
    info = site / "odd-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    points = "[masklet.segmenters]\nodd = odd:load_odd\n[masklet.propagators]\nstill = toy:load_still\n"
    (info / "entry_points.txt").write_text(points)
    for name in ("odd.py", "toy.py"):
        (site / name).write_text((source / name).read_text())
