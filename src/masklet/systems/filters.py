"""SAM2BMP 3.4: from masklets to fewer masklets, and their names and scores."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf

import numpy as np
from jaxtyping import Int64

from masklet.core.rle import compute_rle_iou
from masklet.core.tracks import Masklet


def keep_supported(masklets: Sequence[Masklet], ratio: float = 0.1) -> tuple[Masklet, ...]:
    """Key-frame ratio filter: drops a masklet when key frames / non-empty frames < `ratio`."""
    return tuple(m for m in masklets if len(m.key_frames) / len(m.sightings) >= ratio)


def drop_twins(
    masklets: Sequence[Masklet], iou: float = 0.5, frames: int = 6, join: float | None = None
) -> tuple[Masklet, ...]:
    """Tracklet NMS: of two masklets that agree (mask IoU > `iou`) in at least `frames` frames, the one with
    more key frames stays, on a tie the older one. Where they meet in few frames, agreeing in half of those
    is enough.

    Args:
        masklets: all of a video.
        iou: above which two masks agree.
        frames: in which they have to.
        join: share of the frames in which both are seen; twins that agree in as many are one object that was lost and
            found, and the one that stays takes masks from the other (`join_twins`). None, as published: what is dropped
            is lost.
    """
    agree, meet = _count_agreement(masklets, iou)
    enough = np.maximum(np.minimum(frames, np.ceil(meet / 2)), 1)
    kept: list[int] = []
    twins: dict[int, list[int]] = defaultdict(list)
    for row in sorted(range(len(masklets)), key=lambda r: (-len(masklets[r].key_frames), masklets[r].id)):
        alike = [one for one in kept if agree[row, one] >= enough[row, one]]
        if not alike:
            kept.append(row)
            continue
        nearest = max(alike, key=lambda one: agree[row, one] / meet[row, one])
        if join is not None and agree[row, nearest] >= join * meet[row, nearest]:
            twins[nearest].append(row)
    return tuple(join_twins(masklets[r], [masklets[twin] for twin in twins[r]]) for r in sorted(kept))


def join_twins(masklet: Masklet, twins: Sequence[Masklet]) -> Masklet:
    """A masklet with the masks of its `twins` where these were detected nearer: each frame's mask is that of the one
    with a key frame least frames away, on a tie the masklet's own, then the first twin's.
    """
    if not twins:
        return masklet
    sightings = dict(masklet.sightings)
    away = measure_key_distance(masklet)
    for twin in twins:
        for t, distance in measure_key_distance(twin).items():
            if t not in away or distance < away[t]:
                sightings[t], away[t] = twin.sightings[t], distance
    return replace(masklet, sightings=dict(sorted(sightings.items())))


def measure_key_distance(masklet: Masklet) -> dict[int, float]:
    """How many frames away the nearest key frame is, of each frame in which a masklet is seen."""
    keys = np.array(sorted(masklet.key_frames), np.float64)
    return {t: float(abs(keys - t).min(initial=inf)) for t in masklet.sightings}


def _count_agreement(
    masklets: Sequence[Masklet], iou: float
) -> tuple[Int64[np.ndarray, "n n"], Int64[np.ndarray, "n n"]]:
    """In how many frames two masklets agree, and in how many both are seen."""
    agree, meet = (np.zeros((len(masklets), len(masklets)), np.int64) for _ in range(2))
    rows_at: dict[int, list[int]] = defaultdict(list)
    for row, masklet in enumerate(masklets):
        for frame in masklet.sightings:
            rows_at[frame].append(row)
    for frame, rows in rows_at.items():
        masks = [masklets[r].sightings[frame].mask for r in rows]
        agree[np.ix_(rows, rows)] += compute_rle_iou(masks, masks) > iou
        meet[np.ix_(rows, rows)] += 1
    return agree, meet


def name_masklet(masklet: Masklet, gamma: float = 0.0, nameless: int | None = None) -> Masklet:
    """The masklet with its category, the one with the greatest sum of scores over the key frames, and its
    score, the mean score of the key frames that voted for it x (key frames / non-empty frames)^`gamma`.
    A masklet without key frames is named by its detections of low confidence, and scores 0.

    Args:
        masklet: of which sightings know what detections called them.
        gamma: how much support counts.
        nameless: the label of what was found without a name; any name counts more.
    """
    keys = masklet.key_frames
    told = ((t, s) for t, s in masklet.sightings.items() if s.label >= 0 and (t in keys or not keys))
    scores_of: dict[int, list[float]] = defaultdict(list)  # without the masks, which are many
    for _, s in told:
        scores_of[s.label].append(s.score)
    if not scores_of:
        return masklet
    label = choose_label({label: sum(scores) for label, scores in scores_of.items()}, nameless)
    scores = scores_of[label] if keys else [0.0]
    support = len(keys) / len(masklet.sightings)
    return replace(masklet, label=label, score=sum(scores) / len(scores) * support**gamma)


def choose_label(votes: Mapping[int, float], nameless: int | None = None) -> int:
    """The label with the greatest sum of scores, on a tie the first; the nameless one where there is no other.

    >>> choose_label({3: 0.4, 8: 2.0}), choose_label({3: 0.4, 8: 2.0}, nameless=8), choose_label({})
    (8, 3, -1)
    """
    return max(votes, key=lambda label: (label != nameless, votes[label], -label), default=-1)
