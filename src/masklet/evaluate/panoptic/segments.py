"""Two panoptic segmentations of a video as one table: the pixels that their segments share, frame by frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int, Int64

from masklet.core.errors import InputError
from masklet.core.result import VideoResult
from masklet.core.rle import paint_mask_numbers

VOID = 0  # a map's pixels without a segment
ABSENT = -1  # the category of a tube that a frame or a window does not list

IdMap = Int[np.ndarray, "h w"]  # a pixel holds its segment's id


@dataclass(frozen=True)
class ListedSegment:
    """What a frame's list says of one segment."""

    category: int  # place in the list of categories
    area: int = 0  # pixels, as the ground truth's file has it; a prediction's is counted
    crowd: bool = False


@dataclass(frozen=True)
class FrameOverlap:
    """One frame: the pixels that each pair of segments shares, and the two lists, in their order."""

    pairs: Int64[np.ndarray, "n 2"]  # id of the true segment, of the predicted one; 0: none
    pixels: Int64[np.ndarray, " n"]
    truth: Mapping[int, ListedSegment]
    found: Mapping[int, ListedSegment]


def count_shared_pixels(truth: IdMap, found: IdMap) -> tuple[Int64[np.ndarray, "n 2"], Int64[np.ndarray, " n"]]:
    """The pairs of ids (below 2^31) that share pixels, and how many.

    >>> count_shared_pixels(np.array([[1, 1, 0]]), np.array([[7, 0, 0]]))
    (array([[0, 0],
           [1, 0],
           [1, 7]]), array([1, 1, 1]))
    """
    t, f = truth.ravel(), found.ravel()
    starts = np.append(0, np.flatnonzero((t[1:] != t[:-1]) | (f[1:] != f[:-1])) + 1)  # of runs: few to sort
    keys, places = np.unique(t[starts].astype(np.int64) << 32 | f[starts], return_inverse=True)
    pixels = np.bincount(places, weights=np.diff(np.append(starts, t.size))).astype(np.int64)
    return np.stack([keys >> 32, keys & 0xFFFFFFFF], 1), pixels


@dataclass(frozen=True)
class WindowTubes:
    """One side's tubes in every window: a tube is what its first frame in there says of it."""

    category: Int64[np.ndarray, "w n"]
    crowd: Bool[np.ndarray, "w n"]
    turn: Int64[np.ndarray, "w n"]
    area: Int64[np.ndarray, "w n"]


@dataclass(frozen=True)
class SegmentTubes:
    """The segments of one side through a video, one column each, in the order in which the lists name them."""

    ids: Int64[np.ndarray, " n"]
    category: Int64[np.ndarray, "t n"]
    crowd: Bool[np.ndarray, "t n"]
    turn: Int64[np.ndarray, "t n"]  # which place it has among all that was listed so far
    following: Int64[np.ndarray, "t n"]  # the next frame that lists it, this one included; t: none
    area: Int64[np.ndarray, "t1 n"]  # of all frames before

    @staticmethod
    def of(lists: Sequence[Mapping[int, ListedSegment]], others: Sequence[int]) -> SegmentTubes:
        """The tubes of every frame's list, and columns for the ids that are only in the pixels."""
        ids = list(dict.fromkeys([*(i for listed in lists for i in listed), *others]))
        column, shape = {i: n for n, i in enumerate(ids)}, (len(lists), len(ids))
        category, turn = np.full(shape, ABSENT, np.int64), np.zeros(shape, np.int64)
        crowd, area = np.zeros(shape, bool), np.zeros((len(lists) + 1, len(ids)), np.int64)
        following, count = np.full((len(lists) + 1, len(ids)), len(lists)), 0
        for t, listed in enumerate(lists):
            for i, s in listed.items():
                n, count = column[i], count + 1
                category[t, n], crowd[t, n], area[t + 1, n], turn[t, n] = s.category, s.crowd, s.area, count
        for t in reversed(range(len(lists))):
            following[t] = np.where(category[t] != ABSENT, t, following[t + 1])
        return SegmentTubes(np.array(ids, np.int64), category, crowd, turn, following[:-1], area.cumsum(0))

    def window(self, starts: Int64[np.ndarray, " w"], length: int) -> WindowTubes:
        """The tubes in windows of `length` frames each, one from each of `starts` on."""
        first, column = self.following[starts], np.arange(len(self.ids))
        listed, at = first < starts[:, None] + length, np.minimum(first, len(self.category) - 1)
        category = np.where(listed, self.category[at, column], ABSENT)
        area = self.area[starts + length] - self.area[starts]
        return WindowTubes(category, listed & self.crowd[at, column], self.turn[at, column], area)


@dataclass(frozen=True)
class VideoTable:
    """One video: its tubes, and the pixels that every pair shares, up to every frame."""

    truth: SegmentTubes
    found: SegmentTubes
    pairs: Int64[np.ndarray, "p 2"]  # columns of the true tube and of the predicted one
    pixels: Int64[np.ndarray, "t1 p"]  # of all frames before

    @property
    def length(self) -> int:
        """How many frames the table was made of."""
        return len(self.pixels) - 1

    @staticmethod
    def of(frames: Sequence[FrameOverlap]) -> VideoTable:
        """The table of at least one frame."""
        keys, places = np.unique(np.concatenate([f.pairs for f in frames]), axis=0, return_inverse=True)
        when = np.repeat(np.arange(len(frames)), [len(f.pairs) for f in frames])
        pixels = np.zeros((len(frames) + 1, len(keys)), np.int64)
        pixels[when + 1, places.ravel()] = np.concatenate([f.pixels for f in frames])
        truth = SegmentTubes.of([f.truth for f in frames], keys[:, 0].tolist())
        found = SegmentTubes.of([f.found for f in frames], keys[:, 1].tolist())
        pairs = np.stack([_find_columns(truth.ids, keys[:, 0]), _find_columns(found.ids, keys[:, 1])], 1)
        return VideoTable(truth, found, pairs, pixels.cumsum(0))


def _find_columns(ids: Int64[np.ndarray, " n"], wanted: Int64[np.ndarray, " p"]) -> Int64[np.ndarray, " p"]:
    order = np.argsort(ids)
    return order[np.searchsorted(ids, wanted, sorter=order)]


def build_video_table(
    truth: VideoResult, found: VideoResult
) -> tuple[VideoTable, tuple[str, ...], Bool[np.ndarray, " c"]]:
    """The table of two results of one video, the names of the categories of both, and which are things.

    Where masklets of one result overlap, a pixel goes to the smallest. Raises InputError where the videos differ.
    """
    if (truth.size, truth.length) != (found.size, found.length):
        raise InputError(
            f"{truth.name} ({truth.length} frames of {truth.size}) and {found.name} ({found.length} of {found.size}) "
            "are not the same video; compare results of one"
        )
    names = tuple(dict.fromkeys(r.name_of(m) for r in (truth, found) for m in r.masklets))
    frames = []
    for t in range(truth.length):
        maps = _paint_id_map(truth, t), _paint_id_map(found, t)
        frames.append(
            FrameOverlap(
                *count_shared_pixels(*maps),
                _list_segments(truth, names, maps[0]),
                _list_segments(found, names, maps[1]),
            )
        )
    things = {r.name_of(m) for r in (truth, found) for m in r.masklets if m.is_thing}
    return VideoTable.of(frames), names, np.array([name in things for name in names], bool)


def _paint_id_map(result: VideoResult, frame: int) -> IdMap:
    """A frame's pixels with the number of their masklet, from 1 on."""
    owners = [n for n, m in enumerate(result.masklets, start=1) if frame in m.sightings]
    masks = [result.masklets[n - 1].sightings[frame].mask for n in owners]
    painted: IdMap = np.array([0, *owners], np.int32)[paint_mask_numbers(masks, result.size)]
    return painted


def _list_segments(result: VideoResult, names: Sequence[str], labels: IdMap) -> dict[int, ListedSegment]:
    ids, areas = np.unique(labels[labels != VOID], return_counts=True)
    of = {n: names.index(result.name_of(m)) for n, m in enumerate(result.masklets, start=1)}
    return {i: ListedSegment(of[i], area) for i, area in zip(ids.tolist(), areas.tolist(), strict=True)}
