"""Which objects of a clip DVIS trains on, and under which label, against the released program's answer."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from dvis_fixtures import GOLDEN

from masklet.train.data.framing import build_clip
from masklet.train.data.videos import make_released_labels

SETS = sorted(p.name for p in GOLDEN.glob("dvis_prepare_targets*.json")) or [None]


@pytest.fixture(params=SETS)
def told(request) -> dict[str, Any]:
    if request.param is None:
        pytest.skip(f"no dvis_prepare_targets*.json under {GOLDEN}: set MASKLET_GOLDEN")
    return json.loads((GOLDEN / request.param).read_text())


@pytest.fixture
def clip(told):
    """Object n is row n of the frame where it is annotated; its number is its label, to be told from others."""
    presence = np.array(told["presence"], bool)  # frames x objects
    rows = np.arange(1, presence.shape[1] + 1, dtype=np.uint16)
    ids = [np.where(there, rows, 0).astype(np.uint16)[:, None].repeat(4, 1) for there in presence]
    blank = np.zeros((*ids[0].shape, 3), np.uint8)
    return build_clip([blank] * len(ids), ids, list(range(len(rows))), presence.T)


def test_the_same_objects_in_the_same_frames(told, clip):
    own = [
        [told["ids"][n] if there else -1 for there in row]
        for n, row in zip(clip.labels, clip.present.tolist(), strict=True)
    ]
    assert own == told["out_ids"]
    visible = clip.masks.flatten(2).any(2).tolist()
    assert visible == [[area > 0 for area in row] for row in told["out_mask_areas"]]


def test_the_labels_as_released(told, clip):
    classes = clip.labels.new_tensor(told["classes"])[clip.labels]
    assert make_released_labels(clip.present, classes, told["num_classes"]).tolist() == told["out_labels"]
