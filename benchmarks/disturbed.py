"""What one disturbed frame costs the others: mean IoU beside that of the undisturbed clip, for every way of disturbing.

python benchmarks/disturbed.py --propagator nano --clip squares shared/data/videos/davis2017_240p/dogs-jump
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

import masklet
from masklet.core.result import VideoResult
from masklet.evaluate.vos.davis import DavisSequence
from masklet.io.video.sources import open_video

Image = np.ndarray  # uint8 [h w 3]
LabelMap = np.ndarray  # [h w], 0: background
Clip = tuple[list[Image], list[LabelMap]]
BAR = 0.97


def black(frames: Sequence[Image], t: int) -> Image:
    return np.zeros_like(frames[t])


def white(frames: Sequence[Image], t: int) -> Image:
    return np.full_like(frames[t], 255)


def noise(frames: Sequence[Image], t: int) -> Image:
    return np.random.default_rng(t).integers(0, 256, frames[t].shape, dtype=np.uint8)


def fog(frames: Sequence[Image], t: int) -> Image:
    return exposed(frames, t, 0.2, 180)


def blurred(frames: Sequence[Image], t: int) -> Image:
    return cv2.blur(frames[t], (max(frames[t].shape[0] // 10, 3),) * 2)


def exposed(frames: Sequence[Image], t: int, gain: float, offset: float) -> Image:
    return np.clip(frames[t] * gain + offset, 0, 255).astype(np.uint8)


def repeated(frames: Sequence[Image], t: int) -> Image:
    return frames[t - 1]


def shifted(frames: Sequence[Image], t: int) -> Image:
    return np.roll(frames[t], frames[t].shape[1] // 2, axis=1)


WAYS: Mapping[str, Callable[[Sequence[Image], int], Image]] = {
    "black": black,
    "white": white,
    "noise": noise,
    "fog": fog,
    "blur": blurred,
    "x 0.4": partial(exposed, gain=0.4, offset=0),
    "+ 120": partial(exposed, gain=1, offset=120),
    "repeat": repeated,
    "shift": shifted,
}


def squares(length: int) -> Clip:
    """A red and a green square that cross a still ground, 120 x 160 pixels."""
    ground = np.random.default_rng(0).integers(60, 140, (31, 41, 1)).repeat(4, 0).repeat(4, 1)
    ground = ground[:120, :160].repeat(3, 2).astype(np.uint8)
    frames, labels = [], []
    for t in range(length):
        frame, label = ground.copy(), np.zeros((120, 160), np.uint8)
        places = [((220, 30, 30), 10 + 6 * t, 20 + t, 30), ((30, 200, 40), max(110 - 5 * t, 0), 75, 25)]
        for id, (colour, x, y, side) in enumerate(places, start=1):
            frame[y : y + side, x : x + side] = colour
            label[y : y + side, x : x + side] = id
        frames.append(frame)
        labels.append(label)
    return frames, labels


def read_clip(name: str, length: int) -> Clip:
    """The first frames of `squares`, of FOLDER/frames with FOLDER/masks, or of a sequence of a DAVIS folder."""
    if name == "squares":
        return squares(length)
    folder = Path(name)
    images, masks = folder / "frames", folder / "masks"
    if not images.is_dir():
        root = folder.parent.parent.parent
        images, masks = root / "JPEGImages/480p" / folder.name, root / "Annotations/480p" / folder.name
    with open_video(images) as video:
        frames = [frame.image for frame in video.read(0, length)]
    truth = DavisSequence(name, images, dict(enumerate(sorted(masks.glob("*.png"))[:length])), length).truth()
    return frames, [truth[t] for t in range(len(frames))]


def iou_of_others(result: VideoResult, labels: Sequence[LabelMap], without: int) -> float:
    """Mean IoU of all objects in all frames but the first, in which they are given, and the disturbed one."""
    pages = {m.id: m.sightings for m in result.masklets}
    found = []
    for id in np.unique(labels[0][labels[0] > 0]).tolist():
        for t, label in enumerate(labels):
            if t not in (0, without) and (label == id).any():
                seen = pages.get(id, {}).get(t)
                mask = seen.mask.decode().numpy() if seen else np.zeros(label.shape, bool)
                found.append((mask & (label == id)).sum() / (mask | (label == id)).sum())
    return float(np.mean(found))


def measure(propagator: str, clip: Clip, at: int, ways: Sequence[str]) -> dict[str, float]:
    """IoU of the clip as it is, and for each way the share of it that is left."""
    frames, labels = clip
    ids = np.unique(labels[0][labels[0] > 0]).tolist()
    prompts = {0: {id: torch.from_numpy(labels[0] == id) for id in ids}}

    def followed(pictures: Sequence[Image]) -> float:
        return iou_of_others(masklet.track(pictures, prompts, propagator=propagator), labels, at)

    plain = followed(frames)
    disturbed = {way: [*frames[:at], WAYS[way](frames, at), *frames[at + 1 :]] for way in ways}
    return {"undisturbed": plain} | {way: followed(pictures) / plain for way, pictures in disturbed.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--propagator", nargs="+", default=["affinity", "nano", "sam2long:nano"])
    parser.add_argument("--clip", nargs="+", default=["squares"], help="squares, or folders of frames and masks")
    parser.add_argument("--length", type=int, default=12, help="frames of each clip")
    parser.add_argument("--at", type=int, default=6, help="the frame that is disturbed")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print(f"{'clip':<16}{'propagator':<16}{'IoU':>7}" + "".join(f"{way:>8}" for way in options.ways))
    for name in options.clip:
        clip = read_clip(name, options.length)
        for propagator in options.propagator:
            row = measure(propagator, clip, options.at, options.ways)
            cells = "".join(f"{row[way]:>7.3f}{' ' if row[way] >= BAR else '!'}" for way in options.ways)
            print(f"{Path(name).name:<16}{propagator:<16}{row['undisturbed']:>7.3f}{cells}", flush=True)


if __name__ == "__main__":
    main()
