"""Whole models from pixels to masks: segmenter, matching or tracker, refiner, post-processing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from dvis_fixtures import GOLDEN, arrays, needed, recipe, told

from masklet.core.frames import Frame
from masklet.models.mask2former.segmenter import Mask2Former
from masklet.models.mask2former.tensor_names import convert_mask2former_state, split_checkpoint
from masklet.models.mask2former.weights import fill_mask2former, infer_mask2former_config
from masklet.nn.referring_tracker import build_released_tracker
from masklet.nn.temporal_refiner import build_released_refiner
from masklet.systems import dvis, minvis
from masklet.systems.query.loop import follow_slots

MODES = ("minvis", "online", "offline")
CASES = [(p.stem, m) for p in sorted(GOLDEN.glob("e2e_*.npz")) for m in MODES] or [(None, None)]


class Clip:
    """The fixture's frames, to be answered at another size than they are looked at."""

    name, rate, damage = "e2e", 10.0, None

    def __init__(self, images, size):
        self.frames, self.size = [Frame(t, image) for t, image in enumerate(images)], size

    def __len__(self):
        return len(self.frames)

    def __iter__(self):
        return iter(self.frames)

    def read(self, start, stop):
        return self.frames[start:stop]


@pytest.fixture(scope="module", params=CASES, ids=lambda c: f"{c[0]}-{c[1]}")
def case(request):
    name, mode = request.param
    about, held = told(needed(name)), arrays(name)
    state = {k: recipe(k, tuple(shape)) for k, shape in about["state_dict"].items()}
    split = split_checkpoint(state)
    own, tracker, refiner = split.segmenter, split.tracker, split.refiner
    net = fill_mask2former(
        infer_mask2former_config(own, GOLDEN / f"{name}.json"), convert_mask2former_state(own), GOLDEN / f"{name}.json"
    )
    heads = net.config.num_attention_heads
    segmenter = Mask2Former(net, shortest=min(about["image_size"]))
    top = len(held[f"{mode}__scores"])
    window = {"top": top, "window": about[mode]["window_size"]}
    if mode == "minvis":
        system = minvis.build_minvis_system(segmenter, minvis.MinvisSettings(**window))
    elif mode == "online":
        system = dvis.build_dvis_system(segmenter, build_released_tracker(tracker, heads), dvis.DvisSettings(**window))
    else:
        parts = build_released_tracker(tracker, heads), build_released_refiner(refiner, heads)
        system = dvis.DvisRefined(segmenter, *parts, dvis.DvisSettings(**window))
    images = held["frames"].permute(0, 2, 3, 1).contiguous().numpy()
    return (
        system,
        Clip(images, tuple(about["out"])),
        {k.removeprefix(f"{mode}__"): v for k, v in held.items() if k.startswith(f"{mode}__")},
    )


@torch.inference_mode()
def test_logits(case):
    system, clip, held = case
    looks = list(follow_slots(system.segmenter, system.tracker, clip, system.settings.window, None))
    state, tracks, network = looks[-1].state, [look.tracked for look in looks], system.tracker
    logits = [state.logits / state.frames]
    if isinstance(system, dvis.DvisRefined):
        clip = torch.stack([look.tracked.queries for look in looks])
        context = torch.cat([system.tracker.context(look.slots) for look in looks])
        queries, after = system.refined(clip, context, state, None)
        tracks = [replace(one, queries=q) for one, q in zip(tracks, queries, strict=True)]
        network, logits = system.refiner, [after.logits / state.frames, *logits]
    for got, key in zip(logits, ("mean_logits", "online_mean_logits"), strict=False):
        torch.testing.assert_close(got.float(), held[key], atol=1e-4, rtol=0)
    masks = [network.masks(one, system.tracker.dense(look.slots)[0]) for one, look in zip(tracks, looks, strict=True)]
    torch.testing.assert_close(torch.stack(masks, 1), held["mask_logits"], atol=1e-3, rtol=0)


def test_masklets(case):
    system, clip, held = case
    result = system.run(clip, lambda *told: None)
    shape = held["masks_shape"].tolist()
    bits = np.unpackbits(held["masks"].numpy(), axis=-1, count=shape[-1]).astype(bool)
    rows = [r for r in held["scores"].argsort(descending=True, stable=True).tolist() if bits[r].any()]
    assert len(result.masklets) == len(rows)  # without those that have no pixel
    for one, row in zip(result.masklets, rows, strict=True):
        assert (one.score, one.label) == (pytest.approx(float(held["scores"][row]), abs=1e-4), int(held["labels"][row]))
        if "ids" in held:
            assert (one.id - 1) % len(held["mean_logits"]) == int(held["ids"][row])
        seen = [
            one.sightings[t].mask.decode().numpy() if t in one.sightings else np.zeros(shape[2:])
            for t in range(shape[1])
        ]
        assert (np.stack(seen) != bits[row]).mean() <= 1e-3
