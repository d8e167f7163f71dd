"""Soft masks made elsewhere: a folder of grey images for each object, 0 to 255, as models of referring expressions and
of saliency leave them (DEVA's offline protocol averages them before anything is decided).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.files import read_json
from masklet.core.frames import Frame, Video, get_frame_names
from masklet.core.image_files import open_image
from masklet.core.instances import Detections

SCORES = "scores.json"  # beside the images: {frame: how sure the model is of it, 0 to 1}
MOST = 255.0  # of a grey image


class SoftMaskFolder:
    """What a folder says of each frame: <frame>.png of one object, or <object>/<frame>.png."""

    categories: tuple[str, ...] = ("object",)
    look_ahead = 0

    def __init__(self, path: Path) -> None:
        """Raises InputError where the folder holds no image."""
        inner = sorted(p for p in path.iterdir() if p.is_dir()) if path.is_dir() else []
        self.path, self.objects = path, [p for p in (path, *inner) if any(p.glob("*.png"))]
        if not self.objects:
            raise InputError(f"soft:{path}: no folder with a grey png for each frame, nor with one for each object")
        self.description = f"soft masks in {path}"
        self._names: Sequence[str] = ()
        self._scores = [self._read_scores(folder) for folder in self.objects]

    def _read_scores(self, folder: Path) -> Mapping[str, float] | None:
        if not (folder / SCORES).is_file():
            return None
        told = read_json(folder / SCORES, "scores by frame")
        if not isinstance(told, dict) or not all(isinstance(v, int | float) and 0 <= v <= 1 for v in told.values()):
            raise InputError(f"{folder / SCORES}: must be numbers from 0 to 1 by the names of frames")
        return {Path(name).stem: float(value) for name, value in told.items()}

    def bind_video(self, video: Video) -> SoftMaskFolder:
        """The same for the frames of one `video`, by their names, or 00000 on where they have none."""
        bound = copy(self)
        bound._names = get_frame_names(video) or [f"{t:05d}" for t in range(len(video))]
        return bound

    def empty(self) -> None:
        """The memory before the first frame: None, for nothing is remembered."""

    def segment(self, memory: None, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], None]:
        """The pixels of each of `frames` that are rather inside than not. `memory` is None, `future` not looked at."""
        return [self._decide(frame) for frame in frames], None

    def _decide(self, frame: Frame) -> Detections:
        soft, score = self.read_soft_masks(frame.index, frame.size)
        masks = soft > 0.5
        there = masks.flatten(1).any(1)
        labels = torch.zeros(int(there.sum()), dtype=torch.int64)
        return Detections(masks[there], torch.full((len(labels),), 1.0 if score is None else score), labels)

    def read_soft_masks(self, frame: int, size: tuple[int, int]) -> tuple[Float[Tensor, "n h w"], float | None]:
        """Each object's probabilities in a `frame` of `size` (h, w), and how sure the model is of the frame: the mean
        over the objects; None where a score is missing. What has no image is nowhere.
        """
        name = self._names[frame] if frame < len(self._names) else f"{frame:05d}"
        masks = [self._read_soft_mask(folder / f"{name}.png", size) for folder in self.objects]
        scores = [held.get(name) if held else None for held in self._scores]
        known = [score for score in scores if score is not None]
        return torch.stack(masks), mean(known) if len(known) == len(scores) else None

    def _read_soft_mask(self, path: Path, size: tuple[int, int]) -> Float[Tensor, "h w"]:
        if not path.is_file():
            return torch.zeros(size)
        pixels = np.asarray(open_image(path, "give a grey png").convert("L"))
        if pixels.shape != size:
            raise InputError(f"{path}: {pixels.shape[1]}x{pixels.shape[0]}, the video {size[1]}x{size[0]}")
        return torch.from_numpy(pixels.astype(np.float32) / MOST)
