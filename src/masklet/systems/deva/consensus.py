"""DEVA's two merges (Cheng et al. 2023): of a few frames with each other (3.2.1), of detections with tracks (3.2.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor

from masklet.core.masks import mask_iou, stack_masks
from masklet.core.matching import match

SUPPORT = 0.5  # mask IoU above which two segments are one: they support each other, and exclude each other
TIE = 1e-9  # objectives nearer than this are equal

Thing = bool | None  # True: a thing, False: stuff, None: nobody said; the three never mix
GROUPS: tuple[Thing, ...] = (None, False, True)  # in painting order: things cover stuff


@dataclass(frozen=True)
class Agreement:
    """What the consensus selected."""

    selected: tuple[int, ...]  # ascending
    members: tuple[tuple[int, ...], ...]  # of each selected proposal: itself, then its direct supporters
    masks: Bool[Tensor, "q h w"]  # rendered: no pixel twice
    objective: float  # sum of (sum of IoU - alpha), eq. 4 to 8


def find_consensus(
    masks: Bool[Tensor, "p h w"], frames: Sequence[int], things: Sequence[Thing], alpha: float = 0.5
) -> Agreement:
    """In-clip consensus (DEVA eq. 1 to 8): the best supported proposals of which no two are the same segment.

    Args:
        masks: all frames' proposals, aligned to one frame.
        frames: the frame each one comes from.
        things: whether each one is a thing.
        alpha: what selecting a proposal costs; with 0.5, any support suffices and none does not.

    Among equally good selections the one with the earliest proposal (by frame, then by order) is taken.

    >>> square = torch.ones(1, 2, 2, dtype=torch.bool)
    >>> find_consensus(torch.cat([square, square]), (0, 1), (None, None)).selected
    (0,)
    """
    iou = measure_support(masks, frames, things)
    order = sorted(range(len(masks)), key=lambda p: (frames[p], p))
    gain = iou.sum(1) - alpha
    chosen = [
        p
        for component in find_support_components(iou > 0, order)
        for p in find_best_selection(gain, iou > 0, component)
    ]
    selected = tuple(sorted(chosen))
    members = tuple((p, *np.flatnonzero(iou[p]).tolist()) for p in selected)
    return Agreement(selected, members, resolve_overlaps(masks[list(selected)]), float(gain[list(selected)].sum()))


def measure_support(
    masks: Bool[Tensor, "p h w"], frames: Sequence[int], things: Sequence[Thing]
) -> Float64[np.ndarray, "p p"]:
    """Mask IoU of every pair of `masks` that supports each other: above 0.5, of different `frames` and one group of
    `things`; elsewhere 0.

    Counts whole words of pixels, and only for pairs whose areas and kinds leave it possible.
    """
    words = _pack_pixels(masks)
    area = np.bitwise_count(words).sum(1, dtype=np.int64)
    frame, group = np.asarray(frames), np.asarray([GROUPS.index(t) for t in things])
    iou = np.zeros((len(words), len(words)))
    for i in range(len(words) - 1):
        rest = np.arange(i + 1, len(words))
        low, high = np.minimum(area[i], area[rest]), np.maximum(area[i], area[rest])
        near = rest[(frame[rest] != frame[i]) & (group[rest] == group[i]) & (2 * low > high)]
        both = np.bitwise_count(words[near] & words[i]).sum(1, dtype=np.int64)
        either = area[i] + area[near] - both
        same = 2 * both > either
        iou[i, near[same]] = iou[near[same], i] = both[same] / either[same]
    return iou


def _pack_pixels(masks: Bool[Tensor, "p h w"]) -> np.ndarray:
    """64 pixels in a word."""
    bits = np.packbits(masks.flatten(1).cpu().numpy(), axis=1)
    return np.pad(bits, ((0, 0), (0, -bits.shape[1] % 8))).view(np.uint64)


def find_support_components(linked: Bool[np.ndarray, "p p"], order: Sequence[int]) -> list[list[int]]:
    """The proposals that hang together by support, each list in the given order."""
    found: list[list[int]] = []
    seen: set[int] = set()
    for start in order:
        reached, open_ = set[int](), [start] if start not in seen else []
        while open_:
            p = open_.pop()
            if p not in reached:
                reached.add(p)
                open_ += np.flatnonzero(linked[p]).tolist()
        seen |= reached
        found += [[p for p in order if p in reached]] if reached else []
    return found


def find_best_selection(
    gain: Float64[np.ndarray, " p"], linked: Bool[np.ndarray, "p p"], order: Sequence[int]
) -> list[int]:
    """The selection of greatest gain without two that are linked; the first in `order` where several are equal.

    Exact: with `compute_best_gain` of what is left, a proposal is taken when nothing is lost by it.
    """
    near = [sum(1 << int(q) for q in np.flatnonzero(row)) for row in linked]
    weights = [float(g) for g in gain]
    left = sum(1 << p for p in order if weights[p] > 0)
    known: dict[int, float] = {}
    chosen = []
    for p in order:
        rest = left & ~near[p] & ~(1 << p)
        if (
            left >> p & 1
            and weights[p] + compute_best_gain(rest, weights, near, known)
            > compute_best_gain(left, weights, near, known) - TIE
        ):
            chosen.append(p)
            left = rest
        left &= ~(1 << p)
    return chosen


def compute_best_gain(left: int, gain: Sequence[float], near: Sequence[int], known: dict[int, float]) -> float:
    """The greatest `gain` of a selection among the proposals in the bits of `left`: each part by itself, and where a
    part is not trivial, with and without the proposal that excludes most others. `near` has the bits of those that each
    one excludes; `known` holds the answers for parts so far, and is added to.
    """
    total = 0.0
    while left:
        part = _find_reached_part(left, near)
        left &= ~part
        if part not in known:
            hub = max(_iterate_bits(part), key=lambda p: (near[p] & part).bit_count())
            without = part & ~(1 << hub)
            taking = gain[hub] + compute_best_gain(without & ~near[hub], gain, near, known)
            known[part] = max(taking, compute_best_gain(without, gain, near, known))
        total += known[part]
    return total


def _find_reached_part(left: int, near: Sequence[int]) -> int:
    """The part of `left` that hangs together with its first proposal."""
    part = edge = left & -left
    while edge:
        around = 0
        for p in _iterate_bits(edge):
            around |= near[p]
        edge = around & left & ~part
        part |= edge
    return part


def _iterate_bits(mask: int) -> Iterator[int]:
    """The proposals in a bit mask."""
    while mask:
        yield (mask & -mask).bit_length() - 1
        mask &= mask - 1


def resolve_overlaps(masks: Bool[Tensor, "q h w"]) -> Bool[Tensor, "q h w"]:
    """Removes overlaps: small ones lie in front, of equal ones the last."""
    area = [int(mask.count_nonzero()) for mask in masks]
    canvas = masks.new_zeros(masks.shape[1:], dtype=torch.int16)
    for row in sorted(range(len(masks)), key=lambda r: -area[r]):
        canvas.masked_fill_(masks[row], row + 1)
    return canvas == torch.arange(1, len(masks) + 1, dtype=torch.int16, device=masks.device)[:, None, None]


@dataclass(frozen=True)
class DetectedSegment:
    """One detection to be merged, with all that its supporters said of it."""

    mask: Bool[Tensor, "h w"]
    labels: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    thing: Thing = None


@dataclass(frozen=True)
class VotedTrack:
    """What is remembered of an object besides its masks."""

    votes: Mapping[int, int] = field(default_factory=dict)  # label: detections that said so
    score_sum: float = 0.0
    score_count: int = 0
    thing: Thing = None
    missed: int = 0  # consecutive merges without a matching detection

    @property
    def label(self) -> int:
        """The most frequent label, on a tie the smallest; -1: none."""
        return max(self.votes, key=lambda k: (self.votes[k], -k), default=-1)

    @property
    def score(self) -> float:
        """The mean score of all detections so far."""
        return self.score_sum / max(self.score_count, 1)

    def seen(self, segment: DetectedSegment) -> VotedTrack:
        """The track after a match."""
        votes = dict(self.votes)
        for label in segment.labels:
            votes[label] = votes.get(label, 0) + 1
        summed, count = self.score_sum + sum(segment.scores), self.score_count + len(segment.scores)
        return VotedTrack(votes, summed, count, segment.thing)


@dataclass(frozen=True)
class MergeRules:
    """The open points of merging. The released code: "all", "beyond", empty_born=True."""

    max_missed: int = 5  # L
    delete: Literal["beyond", "at"] = "beyond"  # at more than L merges without a match, or at L (the paper's words)
    max_objects: int | None = None
    overflow: Literal["new", "all"] = "new"  # what is refused: new objects beyond it, or all detections of the frame
    count: Literal["unmatched", "invisible"] = "unmatched"  # which tracks miss: any, or those propagated as empty
    empty_born: bool = False  # whether a detection without a pixel begins an object


@dataclass(frozen=True)
class MergedFrame:
    """One frame after the merge."""

    tracks: Mapping[int, VotedTrack]
    masks: Mapping[int, Bool[Tensor, "h w"]]  # of every track, in its order; no pixel twice
    matched: tuple[int, ...]
    new: tuple[int, ...]
    deleted: tuple[int, ...]
    refused: int  # detections that were not even looked at, or began no object for want of room


@dataclass(frozen=True)
class _PaintEntry:
    """What is painted: a track, a detection, or both."""

    id: int | None
    segment: DetectedSegment | None
    mask: Bool[Tensor, "h w"]


def merge_detections(
    tracks: Mapping[int, VotedTrack],
    own: Mapping[int, Bool[Tensor, "h w"]],
    found: Sequence[DetectedSegment],
    size: tuple[int, int],
    born: int,
    rules: MergeRules,
) -> MergedFrame:
    """Merges detections into the propagation (DEVA eq. 9 and 10), then deletes what was missed too often.

    Args:
        tracks: what is tracked, in order of birth.
        own: every track's propagated mask.
        found: this frame's detections or the clip's consensus; no pixel twice.
        size: h, w.
        born: objects begun so far; the next one gets `born` + 1.
        rules: the open points.
    """
    refused = 0
    if rules.max_objects is not None and rules.overflow == "all" and len(tracks) + len(found) > rules.max_objects:
        refused, found = len(found), []
    room = len(found) if rules.max_objects is None else max(rules.max_objects - len(tracks), 0)
    entries = [e for group in GROUPS for e in order_for_painting(tracks, own, found, size, group)]
    fresh = [e for e in entries if e.id is None and (rules.empty_born or bool(e.mask.any()))]
    ids = {id(e): born + n for n, e in enumerate(fresh[:room], start=1)}
    kept = [(ids.get(id(e), -1) if e.id is None else e.id, e) for e in entries]
    kept = [(i, e) for i, e in kept if i > 0]

    after = {i: track for i, track in tracks.items()}
    after |= {i: after.get(i, VotedTrack()).seen(e.segment) for i, e in kept if e.segment is not None}
    after |= {i: count_missed_merge(tracks[i], e.mask, rules) for i, e in kept if e.segment is None}
    after = {i: after[i] for i in [*tracks, *ids.values()]}
    limit = rules.max_missed + (rules.delete == "beyond")
    deleted = tuple(i for i, track in after.items() if track.missed >= max(limit, 1))
    painted = paint_over([(i, e.mask) for i, e in kept], size)
    staying = {i: track for i, track in after.items() if i not in deleted}
    return MergedFrame(
        staying,
        {i: painted[i] for i in staying},
        tuple(i for i, e in kept if e.id is not None and e.segment is not None),
        tuple(ids.values()),
        deleted,
        refused + len(fresh) - len(ids),
    )


def order_for_painting(
    tracks: Mapping[int, VotedTrack],
    own: Mapping[int, Bool[Tensor, "h w"]],
    found: Sequence[DetectedSegment],
    size: tuple[int, int],
    group: Thing,
) -> list[_PaintEntry]:
    """Associates the `tracks` and the detections `found` of one `group` (mask IoU > 0.5), and sorts them: large ones
    first, a pair by its union. `own` are the tracks' propagated masks; all masks are of `size` (h, w).
    """
    ids = [i for i, track in tracks.items() if track.thing is group]
    segments = [s for s in found if s.thing is group]
    iou = mask_iou(stack_masks([own[i] for i in ids], size), stack_masks([s.mask for s in segments], size))
    links = match(iou.cpu().numpy(), SUPPORT)
    partner = {c: ids[r] for r, c in links.pairs}
    pairs = [(partner.get(c), s) for c, s in enumerate(segments)]
    entries = [_PaintEntry(i, s, s.mask if i is None else s.mask | own[i]) for i, s in pairs]
    entries += [_PaintEntry(ids[r], None, own[ids[r]]) for r in links.free_rows]
    return sorted(entries, key=lambda e: -int(e.mask.sum()))


def count_missed_merge(track: VotedTrack, mask: Bool[Tensor, "h w"], rules: MergeRules) -> VotedTrack:
    """The `track` after a merge without a match, where it was propagated as `mask`; `rules` say whether that counts as
    a miss.
    """
    if rules.count == "invisible" and mask.any():
        return replace(track, missed=0)
    return replace(track, missed=track.missed + 1)


def paint_over(
    entries: Sequence[tuple[int, Bool[Tensor, "h w"]]], size: tuple[int, int]
) -> dict[int, Bool[Tensor, "h w"]]:
    """Every entry's visible pixels; later ones lie in front."""
    canvas = torch.zeros(size, dtype=torch.int64)
    for id, mask in entries:
        canvas[mask] = id
    return {id: canvas == id for id, _ in entries}
