"""Video object segmentation as DAVIS scores it: region similarity J, boundary accuracy F, their statistics.

Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, CVPR 2016;
the rules at the edges are those of the program davis2017-evaluation, which the golden test compares with.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8

from masklet.core.masks import Rle, rle_iou
from masklet.core.result import VideoResult
from masklet.core.tracks import Masklet

Mask = Bool[np.ndarray, "h w"]
LabelMap = UInt8[np.ndarray, "h w"]  # a pixel holds its object's id; 0: background, 255: void
BOUND = 0.008  # tolerance of F, as a share of the image's diagonal
RECALL = 0.5  # a frame counts as found above this
VOID = 255  # a label map's pixels about which nothing is said


def jaccard(prediction: Mask, truth: Mask) -> float:
    """J of one frame: intersection over union, 0 to 1. Two empty masks have 1 (in association: 0)."""
    union = np.count_nonzero(prediction | truth)
    return np.count_nonzero(prediction & truth) / union if union else 1.0


def boundary_f(prediction: Mask, truth: Mask, bound: float = BOUND) -> float:
    """F of one frame: harmonic mean of the contours' precision and recall, 0 to 1.

    A contour pixel is right when the other contour has one within `bound` of the image's diagonal, rounded
    up to pixels. Two masks without a contour (empty, or the whole frame) have 1, one alone has 0.
    """
    radius = math.ceil(bound * math.hypot(*truth.shape))
    found, wanted = (contour(mask) for mask in _crop(prediction, truth))
    if not found.any() or not wanted.any():
        return float(found.any() == wanted.any())
    precision = _near(wanted, radius)[found].mean()
    recall = _near(found, radius)[wanted].mean()
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def contour(mask: Mask) -> Mask:
    """Pixels that differ from their right, lower or lower-right neighbour; outside the frame there is none.

    >>> contour(np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]], dtype=bool)).astype(int)
    array([[1, 1, 0],
           [1, 1, 0],
           [0, 0, 0]])
    """
    edge = np.zeros_like(mask)
    edge[:, :-1] |= mask[:, :-1] ^ mask[:, 1:]
    edge[:-1] |= mask[:-1] ^ mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] ^ mask[1:, 1:]
    return edge


def _crop(*masks: Mask) -> list[Bool[np.ndarray, "y x"]]:
    """The part of the frame that holds every contour: the masks' common box and one pixel more."""
    some = np.logical_or.reduce(masks)
    rows, cols = np.flatnonzero(some.any(1)), np.flatnonzero(some.any(0))
    if len(rows) == 0:
        return [mask[:0, :0] for mask in masks]
    window = np.s_[max(rows[0] - 1, 0) : rows[-1] + 2, max(cols[0] - 1, 0) : cols[-1] + 2]
    return [mask[window] for mask in masks]


def _near(edge: Mask, radius: int) -> Mask:
    """Pixels within `radius` of a contour: its dilation with a disk."""
    y, x = np.ogrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x * x + y * y <= radius * radius).astype(np.uint8)
    return np.asarray(cv2.dilate(edge.view(np.uint8), disk)).view(bool)


@dataclass(frozen=True)
class Summary:
    """DAVIS's statistics of one measure over one object's frames."""

    mean: float
    recall: float  # share of frames above 0.5
    decay: float  # mean of the first quarter minus mean of the last

    @staticmethod
    def of(values: Sequence[float] | Float[np.ndarray, " t"]) -> Summary:
        """The statistics of at least one frame's values, in order of time."""
        scores = np.asarray(values, dtype=float)
        # The quarters share their end frames, and a half is rounded up, as in DAVIS. Its program counts
        # frames in eight bits and goes wrong from the 257th on; here that is mended.
        ends = np.round(np.linspace(1, len(scores), 5) + 1e-10).astype(int) - 1
        first, last = scores[: ends[1] + 1], scores[ends[3] : ends[4] + 1]
        return Summary(float(scores.mean()), float((scores > RECALL).mean()), float(first.mean() - last.mean()))


@dataclass(frozen=True)
class ObjectScore:
    """One object in one sequence."""

    j: Summary
    f: Summary

    @property
    def jf(self) -> float:
        """J&F: the mean of the two means."""
        return (self.j.mean + self.f.mean) / 2


def object_score(predictions: Sequence[Mask], truths: Sequence[Mask]) -> ObjectScore:
    """J and F of one object over the frames that count, in order of time; an absent one has an empty mask."""
    pairs = list(zip(predictions, truths, strict=True))
    return ObjectScore(Summary.of([jaccard(p, t) for p, t in pairs]), Summary.of([boundary_f(p, t) for p, t in pairs]))


def semi_supervised(frames: Sequence[int]) -> Sequence[int]:
    """The frames that count when the first one's masks were given: all but the first and the last.

    >>> semi_supervised([0, 1, 2, 3])
    [1, 2]
    """
    return frames[1:-1]


def object_ids(labels: LabelMap) -> tuple[int, ...]:
    """The objects in a label map: its values but 0 (background) and 255 (void)."""
    return tuple(int(i) for i in np.unique(labels) if i not in (0, VOID))


def given_objects(truth: Mapping[int, LabelMap]) -> tuple[int, tuple[int, ...]]:
    """The first annotated frame with an object, and its objects: what a semi-supervised run is given."""
    return next((t, ids) for t, labels in sorted(truth.items()) if (ids := object_ids(labels)))


def track_scores(result: VideoResult, truth: Mapping[int, LabelMap]) -> dict[int, ObjectScore]:
    """J and F of every object that was given in the first frame, from the masklet of the same id.

    Semi-supervised DAVIS: neither that frame nor the last counts, nor do objects that appear later.
    """
    start, ids = given_objects(truth)
    masklets = {m.id: m for m in result.masklets}
    frames = semi_supervised([t for t in sorted(truth) if t >= start])
    return {
        i: object_score([pixels(masklets.get(i), t, result.size) for t in frames], [truth[t] == i for t in frames])
        for i in ids
    }


@dataclass(frozen=True)
class Discovery:
    """What an automatic result holds of one sequence's objects. All annotated frames count."""

    best: Mapping[int, tuple[int | None, float]]  # by object: the best single masklet and its mean J
    union: float  # mean J of all masklets together with the whole foreground


def discovery(result: VideoResult, truth: Mapping[int, LabelMap]) -> Discovery:
    """How well the masklets of a result cover the true objects, each by a single one and all together."""
    ids = sorted({i for labels in truth.values() for i in object_ids(labels)})
    tubes = {i: {t: _rle(labels == i) for t, labels in truth.items()} for i in ids}
    ground = {t: _rle((labels != 0) & (labels != VOID)) for t, labels in truth.items()}
    best = {i: best_masklet(result.masklets, tube) for i, tube in tubes.items()}
    return Discovery(best, union_jaccard(result.masklets, ground))


def pixels(masklet: Masklet | None, frame: int, size: tuple[int, int]) -> Mask:
    """A masklet's mask in one frame; empty where it is not seen, or where there is no masklet."""
    if masklet is None or frame not in masklet.sightings:
        return np.zeros(size, dtype=bool)
    return np.asarray(masklet.sightings[frame].mask.decode().numpy())


def best_masklet(masklets: Iterable[Masklet], truth: Mapping[int, Rle]) -> tuple[int | None, float]:
    """The id of the masklet of highest mean J with one object, and that J; None and 0 where there is none."""
    scores = {m.id: tube_jaccard(m, truth) for m in masklets}
    best = max(scores, key=lambda i: scores[i], default=None)
    return best, 0.0 if best is None else scores[best]


def tube_jaccard(masklet: Masklet, truth: Mapping[int, Rle]) -> float:
    """Mean J of a masklet over the annotated frames; where neither has a pixel it is 1."""
    return float(np.mean([_frame_jaccard(masklet, t, mask) for t, mask in truth.items()]))


def _frame_jaccard(masklet: Masklet, frame: int, truth: Rle) -> float:
    if frame not in masklet.sightings:
        return float(truth.area == 0)
    return float(rle_iou([masklet.sightings[frame].mask], [truth])[0, 0])  # a sighting is never empty


def union_jaccard(masklets: Iterable[Masklet], truth: Mapping[int, Rle]) -> float:
    """Mean J over the annotated frames of all masklets together with the whole foreground."""
    held = tuple(masklets)
    scores = []
    for t, mask in truth.items():
        found = np.zeros(mask.size, dtype=bool)
        for m in held:
            found |= pixels(m, t, mask.size)
        scores.append(jaccard(found, mask.decode().numpy()))
    return float(np.mean(scores))


def _rle(mask: Mask) -> Rle:
    return Rle.encode(torch.from_numpy(mask))
