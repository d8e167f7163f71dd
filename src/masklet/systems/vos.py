"""Given objects as the official programs of benchmarks track them (SA-V, DAVIS, YouTube-VOS, MOSE, LVOS, VOST).

Every object is given as a mask in one frame and followed from there to the end; nothing is completed before it. Where a
benchmark asks for one label image a frame, a pixel goes to the object of greatest logit, and since SAM2Long knows at
the end only which pathway an object took, all logits are kept until then, on the disk.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from masklet.core.ahead import iterate_ahead
from masklet.core.errors import InputError
from masklet.core.frames import Video
from masklet.core.instances import Branches, Prediction, paint_greatest
from masklet.core.masks import resize_above_zero
from masklet.core.progress import Watch, discard_progress
from masklet.core.protocols import Propagator
from masklet.core.result import VideoResult
from masklet.core.rle import Rle
from masklet.core.spill import Spill
from masklet.core.tracks import Sighting, Source, TrackBook
from masklet.systems.common import build_video_result, describe_lost_objects
from masklet.systems.filters import name_masklet
from masklet.systems.sweep import FORWARD
from masklet.systems.track import Prompts, describe_frame_range, describe_prompts

F = TypeVar("F")
M = TypeVar("M")

SURE = 10.0  # logit of a pixel in a given mask, as SAM 2 has it
MASKS = "masks"  # the phase after the last frame


class StoredLogits(NamedTuple):
    """What is kept of one object in one frame along one pathway."""

    at: int  # where its logits begin in the spill
    shape: tuple[int, int]  # h, w
    quality: float
    presence: float


class PathwayFork(NamedTuple):
    """One object in one frame along several pathways, the best first."""

    frame: int
    stored: tuple[StoredLogits, ...]
    origins: tuple[int, ...]  # which pathway of the frame before each one continues


class LogitsBook:
    """The logits of all objects in all frames, on the disk; of several pathways those of the one that wins."""

    def __init__(self) -> None:
        self._spill = Spill()
        self._frames: dict[int, dict[int, StoredLogits]] = defaultdict(dict)
        self._open: dict[int, list[PathwayFork]] = defaultdict(list)

    def note(self, frame: int, belief: Prediction) -> None:
        """Keeps what is believed of a `frame`: of one hypothesis each, or of several pathways."""
        if not isinstance(belief, Branches):
            best = belief.best
            for row, id in enumerate(best.ids):
                self._frames[frame][id] = self._store(best, row, 0)
            return
        for row, id in enumerate(belief.ids):
            origins = tuple(belief.origins[row].tolist())
            pairs = list(zip(origins, belief.hypotheses[row].tolist(), strict=True))
            unlike = {pair: self._store(belief, row, pairs.index(pair)) for pair in dict.fromkeys(pairs)}
            if len(set(origins)) == 1:  # all go on from one: all before is decided
                self._settle(id, origins[0])
            self._open[id].append(PathwayFork(frame, tuple(unlike[pair] for pair in pairs), origins))

    def settle(self) -> None:
        """The best pathways have won."""
        for id in list(self._open):
            self._settle(id, 0)

    def read(self, frame: int) -> Iterator[tuple[int, StoredLogits, Float[Tensor, "h w"]]]:
        """Each object that something is known of in a `frame`: its id, what is kept of it, and its logits."""
        for id, stored in self._frames.get(frame, {}).items():
            h, w = stored.shape
            data = bytearray(self._spill.read(stored.at, 4 * h * w))
            yield id, stored, torch.frombuffer(data, dtype=torch.float32).view(h, w)

    def _store(self, belief: Prediction, row: int, k: int) -> StoredLogits:
        logits = belief.logits[row, k].detach().float().cpu().contiguous().numpy()
        at = self._spill.append(logits.tobytes())
        shape = logits.shape[0], logits.shape[1]
        return StoredLogits(at, shape, float(belief.quality[row, k]), float(belief.presence[row, k]))

    def _settle(self, id: int, winner: int) -> None:
        """Follows a pathway back through the open forks."""
        for fork in reversed(self._open.pop(id, [])):
            self._frames[fork.frame][id] = fork.stored[winner]
            winner = fork.origins[winner]


Join = Callable[[Sequence[int], Sequence[Tensor], tuple[int, int]], Mapping[int, Rle]]


def keep_apart(ids: Sequence[int], logits: Sequence[Float[Tensor, "h w"]], size: tuple[int, int]) -> dict[int, Rle]:
    """The masks of each object by itself, which may overlap (SA-V, an image for each object).

    Args:
        ids: of the objects.
        logits: of each, of any size.
        size: (h, w) of the masks.
    """
    masks = {id: np.zeros(size, bool) for id in ids}
    for id, window, above in _draw_all(ids, logits, size):
        masks[id][window] = (above > 0).numpy()
    return {id: Rle.encode_pixels(mask) for id, mask in masks.items()}


def exclude_by_logits(
    ids: Sequence[int], logits: Sequence[Float[Tensor, "h w"]], size: tuple[int, int]
) -> dict[int, Rle]:
    """The masks of objects of which no two share a pixel: it goes to the greatest logit (one image for all).

    `ids`, `logits` and `size` are as in `keep_apart`.
    """
    rows = {id: row for row, id in enumerate(ids)}
    drawn = ((rows[id], window, above) for id, window, above in _draw_all(ids, logits, size))
    return paint_greatest(drawn, tuple(ids), size).encode()


def _draw_all(
    ids: Sequence[int], logits: Sequence[Tensor], size: tuple[int, int]
) -> Iterator[tuple[int, tuple[slice, slice], Tensor]]:
    """Each object's logits at `size` (h, w), where they can be above 0; one by one, for they may differ in size."""
    for id, one in zip(ids, logits, strict=True):
        for _, window, above in resize_above_zero([one], size):
            yield id, window, above


@dataclass(frozen=True)
class VosTrack(Generic[F, M]):
    """The system.

    Attributes:
        propagator: any.
        prompts: masks of the objects, each in its first frame.
        join: makes the masks of a frame of all objects' logits: `exclude_by_logits`, or `keep_apart`.
    """

    propagator: Propagator[F, M]
    prompts: Prompts
    join: Join = exclude_by_logits

    def run(self, video: Video, watch: Watch = discard_progress) -> VideoResult:
        """One masklet for each given id, under that id. Raises InputError where an object is given in no frame."""
        late = sorted(t for t in self.prompts if t >= len(video))
        if late:
            raise InputError(f"{video.name}: prompt in frame {late[0]}, but {describe_frame_range(video)}")
        logits, given = LogitsBook(), dict[int, dict[int, Rle]]()
        memory = self.propagator.empty()
        for frame, features in iterate_ahead((frame, self.propagator.encode([frame])[0]) for frame in video):
            told = {id: mask for id, mask in self.prompts.get(frame.index, {}).items() if isinstance(mask, Tensor)}
            belief = self.propagator.predict(memory, features)
            memory = self.propagator.commit(memory, features, belief)
            logits.note(frame.index, belief)
            if told:
                memory, _ = self.propagator.prompt(memory, features, told)
                given[frame.index] = {id: Rle.encode(mask) for id, mask in told.items()}
            watch(FORWARD, frame.index + 1, len(video) or None, len(belief.ids) + len(told))
        logits.settle()
        book = TrackBook()
        for t in range(len(video)):
            self.write_frame(book, t, logits, given.get(t, {}), video.size)
            watch(MASKS, t + 1, len(video), len(book.pages))
        masklets = tuple(sorted((name_masklet(m) for m in book.masklets()), key=lambda m: m.id))
        settings = {"prompts": describe_prompts(self.prompts), "overlaps": self.join is keep_apart}
        notes = describe_lost_objects(masklets, len(video))
        return build_video_result(video, masklets, ("object",), "vos", settings, notes)

    def write_frame(
        self, book: TrackBook, frame: int, logits: LogitsBook, given: Mapping[int, Rle], size: tuple[int, int]
    ) -> None:
        """Writes the masks of one `frame`, of `size` (h, w), into `book`: of the `logits` of all objects that are in
        it, and of those `given` there.
        """
        known = {id: (stored, page) for id, stored, page in logits.read(frame) if id not in given}
        there = {id: page for id, (stored, page) in known.items() if stored.presence > 0}
        sure = {id: mask.decode().float() * 2 * SURE - SURE for id, mask in given.items()}
        ids = sorted([*there, *sure])
        for id, mask in self.join(ids, [there[id] if id in there else sure[id] for id in ids], size).items():
            if id in given:
                seen = Sighting(mask, Source.PROMPTED, 1.0, 0, SURE)
            else:
                stored = known[id][0]
                seen = Sighting(mask, Source.FORWARD, stored.quality, -1, stored.presence)
            book.note(id, frame, seen)
