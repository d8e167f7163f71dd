"""GenVIS's scores and masks of a video against the official program's."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from dvis_fixtures import GOLDEN, arrays, needed

from masklet.systems.query.answers import MaskResizer
from masklet.systems.rocovis import GradedInstanceOutput, RocovisSystemSettings, accumulate_max_probabilities

FOUND = sorted(p.stem for p in GOLDEN.glob("genvis_inference*.npz")) or [None]


@pytest.fixture(scope="module", params=FOUND)
def case(request):
    name = needed(request.param)
    about, held = json.loads((GOLDEN / f"{name}.json").read_text()), arrays(name)
    tally = None
    for logits in held["logits"].double():
        tally = accumulate_max_probabilities(tally, logits)
    made = GradedInstanceOutput(tally.float(), RocovisSystemSettings(top=about["topk"]))
    view = MaskResizer(tuple(about["image_size"]), tuple(about["out"]))
    for t, (embedded, features) in enumerate(zip(held["mask_embed"], held["mask_features"], strict=True)):
        made.add(t, torch.einsum("nc,chw->nhw", embedded, features)[list(made.slots)], view)
    return made, held


def wanted(held):
    """What the program answers: score, label, masks of each frame; without those that have no pixel anywhere."""
    masks = torch.from_numpy(unpacked(held))
    rows = zip(held["scores"].tolist(), held["labels"].tolist(), masks, strict=True)
    return sorted((r for r in rows if r[2].any()), key=lambda r: -r[0])


def unpacked(held):
    shape = tuple(held["masks_shape"].tolist())
    return np.unpackbits(held["masks"].numpy(), axis=-1)[..., : shape[-1]].reshape(shape).astype(bool)


def test_scores_labels_and_masks(case):
    made, held = case
    found, want = made.masklets(), wanted(held)
    assert [m.label for m in found] == [label for _, label, _ in want]
    for m, (score, _, masks) in zip(found, want, strict=True):
        assert m.score == pytest.approx(score, abs=1e-5)
        for t, mask in enumerate(masks):
            own = m.sightings[t].mask.decode() if t in m.sightings else torch.zeros_like(mask)
            assert (own != mask).float().mean() <= 1e-3


def test_empty_masks_score_nothing(case):
    made, held = case
    assert len(made.pairs) == len(held["scores"])
    empty = held["scores"][~torch.from_numpy(unpacked(held)).flatten(1).any(1)]
    assert not empty.any() and len(made.masklets()) == len(held["scores"]) - len(empty)
