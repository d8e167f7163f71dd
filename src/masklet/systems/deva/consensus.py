"""DEVA's two merges (Cheng et al. 2023): of a few frames with each other (3.2.1), of detections with tracks (3.2.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64
from torch import Tensor

from masklet.core.label_map import LabelMap, paint_in_front, rank_small_in_front, rank_small_in_front_last
from masklet.core.masks import stack_masks
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
    rendered: LabelMap  # by the place in `selected`
    objective: float  # sum of (sum of IoU - alpha), eq. 4 to 8

    @property
    def masks(self) -> Bool[Tensor, "q h w"]:
        """What is rendered, one by one."""
        return self.rendered.stack()


@dataclass(frozen=True)
class ProposalLayer:
    """Proposals of one frame of which no two share a pixel."""

    frame: int
    masks: LabelMap  # by the proposals' numbers among those of all frames


def stack_layers(masks: Bool[Tensor, "p h w"], frames: Sequence[int]) -> list[ProposalLayer]:
    """Proposals, each of one of the `frames`, in as few layers as they come to in their order."""
    layers: list[tuple[int, list[int]]] = []
    for p, frame in enumerate(frames):
        free = (own for t, own in layers if t == frame and not (masks[own] & masks[p]).any())
        own = next(free, None)
        if own is None:
            layers.append((frame, own := []))
        own.append(p)
    return [ProposalLayer(frame, LabelMap.paint(masks, own, rank_small_in_front)) for frame, own in layers]


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

    >>> import torch
    >>> square = torch.ones(1, 2, 2, dtype=torch.bool)
    >>> find_consensus(torch.cat([square, square]), (0, 1), (None, None)).selected
    (0,)
    """
    size = (masks.shape[1], masks.shape[2])
    return find_layer_consensus(stack_layers(masks, frames), things, size, alpha)


def find_layer_consensus(
    layers: Sequence[ProposalLayer], things: Sequence[Thing], size: tuple[int, int], alpha: float = 0.5
) -> Agreement:
    """`find_consensus` of proposals in `layers` of `size` (h, w), numbered as `things` are."""
    iou = measure_layer_support(layers, things)
    frame = {p: layer.frame for layer in layers for p in layer.masks}
    order = sorted(frame, key=lambda p: (frame[p], p))
    gain, linked = iou.sum(1) - alpha, iou > 0
    components = find_support_components(linked, order)
    chosen = [p for component in components for p in find_best_selection(gain, linked, component)]
    selected = tuple(sorted(chosen))
    members = tuple((p, *np.flatnonzero(iou[p]).tolist()) for p in selected)
    return Agreement(selected, members, render_selection(layers, selected, size), float(gain[list(selected)].sum()))


def measure_support(
    masks: Bool[Tensor, "p h w"], frames: Sequence[int], things: Sequence[Thing]
) -> Float64[np.ndarray, "p p"]:
    """Mask IoU of every pair of `masks` that supports each other: above 0.5, of different `frames` and one group of
    `things`; elsewhere 0.
    """
    return measure_layer_support(stack_layers(masks, frames), things)


def measure_layer_support(layers: Sequence[ProposalLayer], things: Sequence[Thing]) -> Float64[np.ndarray, "p p"]:
    """`measure_support` of proposals in layers, numbered as `things` are: all pairs of two layers at once."""
    group, iou = np.array([GROUPS.index(t) for t in things]), np.zeros((len(things), len(things)))
    for one, other in combinations(layers, 2):
        if one.frame != other.frame:
            rows, columns = np.ix_(one.masks.ids, other.masks.ids)
            both = one.masks.count_common(other.masks)
            either = one.masks.areas[:, None] + other.masks.areas - both
            same = (2 * both > either) & (group[rows] == group[columns])
            iou[rows, columns] = np.where(same, both / either.clip(min=1), 0)
            iou[columns.T, rows.T] = iou[rows, columns].T
    return iou


def render_selection(layers: Sequence[ProposalLayer], selected: Sequence[int], size: tuple[int, int]) -> LabelMap:
    """The `selected` proposals without overlaps, by their places: small ones lie in front, of equal ones the last.
    `size` (h, w) is that of the `layers`.
    """
    area = {p: int(area) for layer in layers for p, area in zip(layer.masks, layer.masks.areas, strict=True)}
    painted = sorted(range(len(selected)), key=lambda place: -area[selected[place]])
    front = {selected[place]: n for n, place in enumerate(painted, start=1)}
    canvas = paint_in_front([(layer.masks, [front.get(p, 0) for p in layer.masks]) for layer in layers], size)
    return LabelMap(tuple(painted), canvas).relabel(range(len(selected)))


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
    near = {p: sum(1 << q for q in np.flatnonzero(linked[p]).tolist()) for p in order}
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


def compute_best_gain(left: int, gain: Sequence[float], near: Mapping[int, int], known: dict[int, float]) -> float:
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


def _find_reached_part(left: int, near: Mapping[int, int]) -> int:
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
    return LabelMap.paint(masks, range(len(masks)), rank_small_in_front_last).stack()


@dataclass(frozen=True)
class SegmentVotes:
    """All that the supporters of a segment said of it."""

    labels: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()
    thing: Thing = None


@dataclass(frozen=True)
class FrameSegments:
    """What is to be merged into a frame. All that DEVA finds lies in one layer, no pixel twice."""

    layers: tuple[LabelMap, ...]  # by the place in `said`
    said: tuple[SegmentVotes, ...]


@dataclass(frozen=True)
class DetectedSegment:
    """One detection to be merged, with its own mask, and with all that its supporters said of it."""

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

    def seen(self, segment: SegmentVotes) -> VotedTrack:
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
    masks: LabelMap  # of every track, in its order
    matched: tuple[int, ...]
    new: tuple[int, ...]
    deleted: tuple[int, ...]
    refused: int  # detections that were not even looked at, or began no object for want of room


@dataclass(frozen=True)
class _PaintEntry:
    """What is painted: a track, a detection, or both."""

    id: int | None
    place: int | None  # of the detection
    area: int


def merge_detections(
    tracks: Mapping[int, VotedTrack],
    own: Mapping[int, Bool[Tensor, "h w"]],
    found: Sequence[DetectedSegment],
    size: tuple[int, int],
    born: int,
    rules: MergeRules,
) -> MergedFrame:
    """`merge_segments` of masks, one by one.

    Args:
        tracks: what is tracked, in order of birth.
        own: every track's propagated mask; no pixel twice.
        found: this frame's detections or the clip's consensus.
        size: h, w.
        born: objects begun so far; the next one gets `born` + 1.
        rules: the open points.
    """
    before = LabelMap.paint(stack_masks(list(own.values()), size), range(len(own)), rank_small_in_front)
    layers = stack_layers(stack_masks([s.mask for s in found], size), [0] * len(found))
    said = tuple(SegmentVotes(s.labels, s.scores, s.thing) for s in found)
    segments = FrameSegments(tuple(layer.masks for layer in layers), said)
    return merge_segments(tracks, LabelMap(tuple(own), before.rows), segments, born, rules)


def merge_segments(
    tracks: Mapping[int, VotedTrack], own: LabelMap, found: FrameSegments, born: int, rules: MergeRules
) -> MergedFrame:
    """Merges segments into the propagation (DEVA eq. 9 and 10), then deletes what was missed too often.

    Args:
        tracks: what is tracked, in order of birth.
        own: every track's propagated mask.
        found: this frame's detections or the clip's consensus.
        born: objects begun so far; the next one gets `born` + 1.
        rules: the open points.
    """
    refused, said = 0, found.said
    if rules.max_objects is not None and rules.overflow == "all" and len(tracks) + len(said) > rules.max_objects:
        refused, said = len(said), ()
    room = len(said) if rules.max_objects is None else max(rules.max_objects - len(tracks), 0)
    area = dict(zip(own, own.areas.tolist(), strict=True))
    entries = order_for_painting(tracks, own, found.layers, said)
    fresh = [e for e in entries if e.id is None and (rules.empty_born or e.area)]
    ids = {e.place: born + n for n, e in enumerate(fresh[:room], start=1)}
    kept = [(ids.get(e.place, -1) if e.id is None else e.id, e.place) for e in entries]
    kept = [(i, place) for i, place in kept if i > 0]

    after = {i: track for i, track in tracks.items()}
    after |= {i: after.get(i, VotedTrack()).seen(said[place]) for i, place in kept if place is not None}
    after |= {i: count_missed_merge(tracks[i], area[i] > 0, rules) for i, place in kept if place is None}
    after = {i: after[i] for i in [*tracks, *ids.values()]}
    limit = rules.max_missed + (rules.delete == "beyond")
    deleted = tuple(i for i, track in after.items() if track.missed >= max(limit, 1))
    staying = {i: track for i, track in after.items() if i not in deleted}
    front = {i: n for n, (i, _) in enumerate(kept, start=1)}
    shown = {place: front[i] for i, place in kept}
    painted = [(masks, [shown.get(place, 0) for place in masks]) for masks in found.layers]
    canvas = paint_in_front([(own, [front.get(i, 0) for i in own]), *painted], own.size)
    return MergedFrame(
        staying,
        LabelMap(tuple(front), canvas).relabel(tuple(staying)),
        tuple(i for i, place in kept if i in tracks and place is not None),
        tuple(ids.values()),
        deleted,
        refused + len(fresh) - len(ids),
    )


def order_for_painting(
    tracks: Mapping[int, VotedTrack], own: LabelMap, found: Sequence[LabelMap], said: Sequence[SegmentVotes]
) -> list[_PaintEntry]:
    """Associates the `tracks` and the detections `found` of each group (mask IoU > 0.5), and sorts them: stuff first,
    then large ones first, a pair by its union. `own` are the tracks' propagated masks, `said` what the detections are.
    """
    before = dict(zip(own, range(len(own)), strict=True))
    common, inside = np.zeros((len(own), len(said)), np.int64), np.zeros(len(said), np.int64)
    for masks in found if said else ():
        common[:, masks.ids], inside[list(masks.ids)] = own.count_common(masks), masks.areas
    entries = []
    for group in GROUPS:
        ids = [i for i, track in tracks.items() if track.thing is group]
        places = [place for place, votes in enumerate(said) if votes.thing is group]
        rows = [before[i] for i in ids]
        both, areas = common[np.ix_(rows, places)], own.areas[rows]
        union = areas[:, None] + inside[places] - both
        links = match((both / union.clip(min=1)).astype(np.float32), SUPPORT)
        partner = {c: r for r, c in links.pairs}
        mixed = [
            _PaintEntry(ids[partner[c]], place, int(union[partner[c], c]))
            if c in partner
            else _PaintEntry(None, place, int(inside[place]))
            for c, place in enumerate(places)
        ]
        mixed += [_PaintEntry(ids[r], None, int(areas[r])) for r in links.free_rows]
        entries += sorted(mixed, key=lambda e: -e.area)
    return entries


def count_missed_merge(track: VotedTrack, seen: bool, rules: MergeRules) -> VotedTrack:
    """The `track` after a merge without a match, where its propagated mask was `seen`, or empty; `rules` say whether
    that counts as a miss.
    """
    if rules.count == "invisible" and seen:
        return replace(track, missed=0)
    return replace(track, missed=track.missed + 1)
