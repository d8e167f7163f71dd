"""DAVIS's form: a palette PNG per frame, the pixel's value the object's id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from masklet.core.errors import InputError
from masklet.core.masks import paint, stack
from masklet.core.result import VideoResult


def palette() -> list[int]:
    """The colours of Pascal VOC and DAVIS: the bits of the id, dealt out to red, green and blue from the top."""
    ids = np.arange(256)
    channels = [sum(((ids >> (3 * bit + c)) & 1) << (7 - bit) for bit in range(3)) for c in range(3)]
    return [int(v) for v in np.stack(channels, axis=1).ravel()]


def write_davis(result: VideoResult, folder: Path, names: Sequence[str] | None = None) -> None:
    """One PNG per frame, under the frames' own names or, where they have none of their own each, 00000.png on;
    where masks overlap, the smallest is on top.

    Raises InputError where an id is beyond what a palette holds.
    """
    most = max((m.id for m in result.masklets), default=0)
    if most > 255:
        raise InputError(f"{result.name}: object {most} does not fit into a palette PNG, which holds ids up to 255")
    own = names is not None and len(set(names)) == len(names)
    folder.mkdir()
    for frame in range(result.length):
        image = Image.fromarray(labels(result, frame))
        image.putpalette(palette())
        image.save(folder / f"{names[frame] if names and own else f'{frame:05d}'}.png")


def labels(result: VideoResult, frame: int) -> UInt8[np.ndarray, "h w"]:
    """The id of the object at every pixel of a frame, 0 where there is none."""
    seen = result.at(frame)
    masks = paint(stack([s.mask.decode() for _, s in seen], result.size))
    ids = torch.tensor([m.id for m, _ in seen], dtype=torch.uint8)
    return (masks * ids[:, None, None]).sum(0, dtype=torch.uint8).numpy()
