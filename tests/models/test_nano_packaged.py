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
from masklet.models.encoder import Encoder
from masklet.models.nano.dense import ObjectSegmenter, load_dense
from masklet.models.nano.propagator import build_nano_propagator
from masklet.train.data.clips import TrainingClip, seed_item_generator
from masklet.train.data.framing import build_clip
from masklet.train.data.scenes import CATEGORIES, SyntheticSettings
from masklet.train.data.stills import Stills
from masklet.train.data.synthetic import SyntheticClips
from masklet.train.scoring import compute_image_scores
from masklet.train.tasks.propagator import find_visible_objects, make_propagator_frames

STILLS = Path(os.environ.get("MASKLET_DATA", Path(__file__).parents[3] / "shared/data")) / "stills" / "coco80"
CARD = json.loads((Path(__file__).parents[2] / "cards" / "nano.json").read_text())


@cache
def clips() -> list[TrainingClip]:
    """Two generated clips with light occlusion."""
    source = SyntheticClips(SyntheticSettings(size=(96, 160), level="light"))
    return [source.clip(seed_item_generator(77, n), 8) for n in range(2)]


def overlaps(propagator: Any, clip: TrainingClip) -> Iterator[float]:
    """Mask IoU of the objects of the first frame in each later frame that shows them."""
    rows = find_visible_objects(clip, 0.002)
    first, *others = propagator.encode(make_propagator_frames(clip))
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
    iou = np.mean([o for clip in clips() for o in overlaps(build_nano_propagator(None, encoder), clip)])
    assert iou == pytest.approx(CARD["propagator"]["iou on two generated clips"], abs=0.01)
    assert iou > np.mean([o for clip in clips() for o in overlaps(Affinity(encoder), clip)])


@cache
def pictures() -> list[TrainingClip]:
    """Ten generated pictures."""
    source = SyntheticClips(SyntheticSettings(size=(192, 320), level="light"))
    return [source.clip(seed_item_generator(78, n), 1) for n in range(10)]


def segmented(shown: list[TrainingClip]) -> list[list[Detections]]:
    """What the packaged segmenter without names finds in each."""
    segmenter = ObjectSegmenter(load_dense(None, Encoder()))
    return [segmenter.segment(None, make_propagator_frames(clip), ())[0] for clip in shown]


@cache
def detections() -> list[list[Detections]]:
    """In the generated pictures."""
    return segmented(pictures())


def test_the_segmenter_finds_generated_objects_as_its_card_says() -> None:
    ap50 = compute_image_scores(pictures(), detections(), CATEGORIES)["found"]
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
    shown = [build_clip([still.image], [still.ids], still.labels) for still in held]
    ap50 = compute_image_scores(shown, segmented(shown), stills.categories)["found"]
    assert ap50 == pytest.approx(CARD["segmenter"]["AP50 on ten pictures of coco80's validation part"], abs=1.0)


def test_names_are_those_of_coco() -> None:
    assert load_dense(None, Encoder()).categories[:3] == ("person", "bicycle", "car")
    assert len(load_dense(None, Encoder()).categories) == 80
