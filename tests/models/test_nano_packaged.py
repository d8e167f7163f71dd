"""The packaged nano models do what their cards say: on generated clips, and on pictures where there are any."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from masklet.core.instances import Detections
from masklet.core.masks import mask_iou
from masklet.models.affinity import Affinity
from masklet.models.dense import ObjectSegmenter, load_dense
from masklet.models.encoder import Encoder
from masklet.models.nano_propagator import load_nano
from masklet.train.clips import Clip, draws
from masklet.train.framing import as_clip
from masklet.train.propagator import frames_of, visible
from masklet.train.scenes import CATEGORIES, SyntheticSettings
from masklet.train.scoring import image_scores
from masklet.train.stills import Stills
from masklet.train.synthetic import Synthetic

STILLS = Path(os.environ.get("MASKLET_DATA", Path(__file__).parents[3] / "shared/data")) / "stills" / "coco80"
CARD = json.loads((Path(__file__).parents[2] / "cards" / "nano.json").read_text())


@cache
def clips() -> list[Clip]:
    """Two generated clips with light occlusion."""
    source = Synthetic(SyntheticSettings(size=(96, 160), level="light"))
    return [source.clip(draws(77, n), 8) for n in range(2)]


def overlaps(propagator: Any, clip: Clip) -> Iterator[float]:
    """Mask IoU of the objects of the first frame in each later frame that shows them."""
    rows = visible(clip, 0.002)
    first, *others = propagator.encode(frames_of(clip))
    memory, _ = propagator.prompt(propagator.empty(), first, {row: clip.masks[row, 0] for row in rows})
    for t, features in enumerate(others, start=1):
        belief = propagator.predict(memory, features)
        memory = propagator.commit(memory, features, belief)
        found = dict(zip(belief.ids, belief.masks(features.size), strict=True))
        for row in rows:
            truth = clip.masks[row, t]
            if truth.any():
                yield float(mask_iou(found[row][None], truth[None])[0, 0]) if row in found else 0.0


def test_the_propagator_follows_generated_objects_as_its_card_says() -> None:
    encoder = Encoder()
    iou = np.mean([o for clip in clips() for o in overlaps(load_nano(None, encoder), clip)])
    assert iou == pytest.approx(CARD["propagator"]["iou on two generated clips"], abs=0.01)
    assert iou > np.mean([o for clip in clips() for o in overlaps(Affinity(encoder), clip)])


@cache
def pictures() -> list[Clip]:
    """Ten generated pictures."""
    source = Synthetic(SyntheticSettings(size=(192, 320), level="light"))
    return [source.clip(draws(78, n), 1) for n in range(10)]


def segmented(shown: list[Clip]) -> list[list[Detections]]:
    """What the packaged segmenter without names finds in each."""
    segmenter = ObjectSegmenter(load_dense(None, Encoder()))
    return [segmenter.segment(None, frames_of(clip), ())[0] for clip in shown]


@cache
def detections() -> list[list[Detections]]:
    """In the generated pictures."""
    return segmented(pictures())


def test_the_segmenter_finds_generated_objects_as_its_card_says() -> None:
    ap50 = image_scores(pictures(), detections(), CATEGORIES)["found"]
    assert ap50 == pytest.approx(CARD["segmenter"]["AP50 on ten generated pictures"], abs=1.0)


def test_most_of_what_scores_high_is_right() -> None:
    best = []
    for clip, [found] in zip(pictures(), detections(), strict=True):
        sure = found[found.scores > ObjectSegmenter.conf]
        best += mask_iou(sure.masks, clip.masks[:, 0]).amax(1).tolist()
    assert len(best) > 10
    assert np.mean(np.array(best) > 0.5) > 0.6


def test_the_segmenter_finds_real_objects_as_its_card_says() -> None:
    if not (STILLS / "annotations.json").is_file():
        pytest.skip(f"no pictures: {STILLS} is not there")
    stills = Stills(STILLS, wanted=lambda image: image["coco_split"] == "val2017")
    held = [stills.still(n) for n in range(10)]
    shown = [as_clip([still.picture], [still.ids], still.labels) for still in held]
    ap50 = image_scores(shown, segmented(shown), stills.categories)["found"]
    assert ap50 == pytest.approx(CARD["segmenter"]["AP50 on ten pictures of coco80's validation part"], abs=1.0)


def test_names_are_those_of_coco() -> None:
    assert load_dense(None, Encoder()).categories[:3] == ("person", "bicycle", "car")
    assert len(load_dense(None, Encoder()).categories) == 80
