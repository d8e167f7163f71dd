"""What a correction costs: one object, wrong in some frames of a clip with five, corrected by a prompt in one of them
and propagated, beside tracking all five anew. CPU seconds, so that a busy machine counts little.

python benchmarks/correction.py --frames 60 --wrong 12
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import cv2
import numpy as np
import torch

import masklet
from masklet.core.result import VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Sighting, Source

T = TypeVar("T")


def measure(work: Callable[[], T]) -> tuple[T, float, float]:
    """What some work gives, its CPU seconds and its wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    made = work()
    return made, time.process_time() - cpu, time.perf_counter() - wall


def make_clip(frames: int, seed: int) -> tuple[list[np.ndarray], torch.Tensor]:
    """480p frames with five textured tiles that move over a textured ground, and their masks, bool [n t h w]."""
    random = np.random.default_rng(seed)
    ground = cv2.resize(random.integers(30, 130, (30, 54, 3), np.uint8), (854, 480), interpolation=cv2.INTER_CUBIC)
    colours = random.integers(60, 255, (5, 1, 1, 3))
    tiles = [cv2.resize((c * random.random((6, 6, 1))).astype(np.uint8), (110, 80)) for c in colours]
    images, masks = [], torch.zeros(5, frames, 480, 854, dtype=torch.bool)
    for t in range(frames):
        image = ground.copy()
        for n, tile in enumerate(tiles):
            y, x = 10 + 93 * n, 40 + (5 + n) * t if n % 2 else 700 - (5 + n) * t
            image[y : y + 80, x : x + 110] = tile
            masks[n, t, y : y + 80, x : x + 110] = True
        images.append(image)
    return images, masks


def spoil(result: VideoResult, id: int, frames: range) -> VideoResult:
    """The result in which an object has shrunk to its upper half in some frames, as one does that is swallowed."""
    masklets = []
    for m in result.masklets:
        if m.id == id:
            wrong = {}
            for t in frames:
                mask = m.sightings[t].mask.decode()
                rows = mask.any(1).nonzero()[:, 0]
                mask[int(rows.float().mean()) :] = False
                wrong[t] = Sighting(Rle.encode(mask), Source.FORWARD, 0.9)
            m = replace(m, sightings={**m.sightings, **wrong})
        masklets.append(m)
    return replace(result, masklets=tuple(masklets))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--wrong", type=int, default=12, help="frames in which the object is wrong")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--propagator", default="nano")
    told = parser.parse_args()
    images, masks = make_clip(told.frames, told.seed)
    first = {n + 1: mask[0] for n, mask in enumerate(masks) if mask[0].sum() > 200}
    masklet.track(images[:2], {0: first}, propagator=told.propagator)  # networks are loaded
    anew, cpu, wall = measure(lambda: masklet.track(images, {0: first}, propagator=told.propagator))
    print(f"track anew, {len(first)} objects, {told.frames} frames: {cpu:.1f} CPU s, {wall:.1f} s")
    seen = [m.id for m in anew.masklets if len(m.sightings) == told.frames]
    id, middle = seen[0], told.frames // 2
    begun = spoil(anew, id, range(middle - told.wrong // 2, middle + told.wrong // 2))
    with masklet.open(images, result=begun, propagator=told.propagator) as session:
        _, prompt, prompt_wall = measure(lambda: session.prompt(middle, id, masks[id - 1][middle]))
        done, spread, spread_wall = measure(lambda: session.propagate(id))
        others = all(a == b for a, b in zip(begun.masklets, session.result.masklets, strict=True) if a.id != id)
        mended = next(m for m in session.result.masklets if m.id == id)
        truth = [Rle.encode(mask) for mask in masks[id - 1]]
        iou = [mended.sightings[t].mask.iou(truth[t]) if t in mended.sightings else 0.0 for t in done.frames]
        _, again, _ = measure(lambda: session.propagate(id, 0, told.frames))
    x0, y0, x1, y1 = mended.sightings[middle].mask.box
    one = masklet.Clicks((masklet.Point((x0 + x1) / 2, (y0 + y1) / 2),))
    two = masklet.Clicks((*one.points, masklet.Point(x0, y0, inside=False)))
    with masklet.open(images, propagator=told.propagator) as session:
        clicks = [measure(lambda one=one: session.prompt(middle, 1, one))[1:] for one in (one, two)]
    print(f"a mask in frame {middle}: {prompt:.2f} CPU s, {prompt_wall:.2f} s")
    for what, (own, waited) in zip(("a click in a frame not seen yet", "a second click"), clicks, strict=True):
        print(f"{what}: {own:.2f} CPU s, {waited:.2f} s")
    print(
        f"propagated: {spread:.1f} CPU s, {spread_wall:.1f} s, frames {done.frames[0]} to {done.frames[-1]}, "
        f"{(prompt + spread) / cpu:.0%} of tracking anew; IoU with the truth there {np.mean(iou):.3f}"
    )
    print(f"the whole video, features at hand: {again:.1f} CPU s, {again / cpu:.0%}; the others equal: {others}")


if __name__ == "__main__":
    main()
