"""Tracking by detection, to which DEVA is compared (Cheng et al. 2023, Table 6): what is detected in a frame is matched
by mask IoU with what was detected in the one before, carried to it by a propagator. What no detection shows is not
there, and comes back as another object.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Generic, TypeVar

from jaxtyping import Bool
from torch import Tensor

from masklet.core.frames import Video, iterate_with_future
from masklet.core.masks import mask_iou, stack_masks
from masklet.core.matching import match
from masklet.core.progress import Watch, discard_progress
from masklet.core.protocols import Propagator, Segmenter
from masklet.core.result import VideoResult
from masklet.core.tracks import Masklet, Sighting, Source, TrackBook
from masklet.systems.common import build_video_result, describe_lost_objects
from masklet.systems.deva.consensus import VotedTrack
from masklet.systems.deva.online import Deva, DevaSettings, apply_final_vote, propagate_between_frames
from masklet.systems.sweep import FORWARD

F = TypeVar("F")
M = TypeVar("M")
S = TypeVar("S")


@dataclass(frozen=True)
class ByDetectionSettings:
    """How detections are taken, as in DEVA, and when two are one."""

    conf: float = 0.5  # detections above this count
    nms_iou: float = 0.8  # duplicates within a frame; 1 keeps them all
    match_iou: float = 0.5  # mask IoU above which two detections are one object
    stuff: tuple[str, ...] = ()  # categories that are stuff, all others being things; none given: nobody knows


@dataclass(frozen=True)
class ByDetection(Generic[F, M, S]):
    """The system. The propagator carries masks by one frame: "still" and "flow" are the paper's."""

    segmenter: Segmenter[S]
    propagator: Propagator[F, M]
    settings: ByDetectionSettings = ByDetectionSettings()

    def run(self, video: Video, watch: Watch = discard_progress) -> VideoResult:
        """All masklets of a video, named by the votes of all their detections."""
        at, book, tracks = self.settings, TrackBook(), dict[int, VotedTrack]()
        finder = Deva(self.segmenter, self.propagator, DevaSettings(conf=at.conf, nms_iou=at.nms_iou, stuff=at.stuff))
        sight, before, known = self.segmenter.empty(), None, dict[int, Sighting]()
        for frame, future in iterate_with_future(video, self.segmenter.look_ahead):
            found, sight = finder.find(sight, frame, future, needed=True)
            [features] = self.propagator.encode([frame])
            expected = self.carry(known, before, features, frame.size)
            masks = found.layers[0]
            ids = self.identify(expected, masks.stack(), len(tracks))
            encoded = masks.encode()
            known = {}
            for id, place, said in zip(ids, masks, found.said, strict=True):
                tracks[id] = tracks.get(id, VotedTrack()).seen(said)
                known[id] = Sighting(encoded[place], Source.DETECTED, said.scores[0], said.labels[0])
                book.note(id, frame.index, known[id])
            before = features
            watch(FORWARD, frame.index + 1, len(video) or None, len(known))
        masklets = tuple(apply_final_vote(m, tracks[m.id]) for m in book.masklets())
        return self.describe(video, masklets)

    def carry(
        self, known: Mapping[int, Sighting], source: F | None, target: F, size: tuple[int, int]
    ) -> dict[int, Bool[Tensor, "h w"]]:
        """Where what was detected in the frame with features `source` is expected in that with features `target`: masks
        of `size` (h, w) by id.
        """
        if source is None or not known:
            return {}
        masks = {id: sighting.mask.decode() for id, sighting in known.items()}
        belief = propagate_between_frames(self.propagator, masks, source, target)
        return dict(zip(belief.ids, belief.masks(size), strict=True))

    def identify(
        self, expected: Mapping[int, Bool[Tensor, "h w"]], found: Bool[Tensor, "n h w"], born: int
    ) -> list[int]:
        """The id of each mask that was `found`: that of the mask that was `expected` there, or a new one, counted on
        from the `born` ones.
        """
        ids = list(expected)
        iou = mask_iou(stack_masks(list(expected.values()), (found.shape[1], found.shape[2])), found)
        known = {column: ids[row] for row, column in match(iou.numpy(), self.settings.match_iou).pairs}
        new = iter(range(born + 1, born + len(found) + 1))
        return [known[column] if column in known else next(new) for column in range(len(found))]

    def describe(self, video: Video, masklets: tuple[Masklet, ...]) -> VideoResult:
        """The result for `video`: its `masklets`, and what its reader must know."""
        notes = describe_lost_objects(masklets, len(video))
        if not masklets:
            notes.append(f"no object: no detection scores above conf = {self.settings.conf:g}; lower it")
        settings = asdict(self.settings)
        return build_video_result(video, masklets, self.segmenter.categories, "by-detection", settings, notes)
