"""The temporal refiner against the official program's, alone and behind the tracker."""

from __future__ import annotations

import re

import pytest
import torch
from dvis_fixtures import arrays, config, filled, needed, sets, told, with_inputs

from masklet.nn.referring_tracker import ReferringTracker, TrackerSettings
from masklet.nn.temporal_refiner import RefinerSettings, TemporalRefiner


def turned(x):
    """(1, c, t, n) as (t, n, c)."""
    return x[0].permute(1, 2, 0).contiguous()


def near(got, want, atol=2e-5):
    torch.testing.assert_close(got, want, atol=atol, rtol=0)


def masks(network, normed, features):
    return torch.stack([network.predict_masks(q, f) for q, f in zip(normed, features[0], strict=True)], 1)


@pytest.fixture(scope="module", params=sets("refiner"))
def case(request):
    name = needed(request.param)
    about = told("refiner")[name]
    refiner = filled(TemporalRefiner(RefinerSettings(**config(about))), about["state_dict"])
    held = with_inputs("refiner", name, "instance_embeds")
    tracks, context = turned(held["instance_embeds"]), turned(held["frame_embeds"])
    with torch.inference_mode():
        return refiner, held, tracks, context, list(refiner(tracks, context))


@torch.inference_mode()
def test_class_logits_of_every_layer(case):
    refiner, held, _, _, layers = case
    for want in held["pred_logits"][0]:  # every frame says the same
        near(refiner.classify(layers[-1]), want)
    for got, want in zip(layers[:-1], held["aux_logits_frame0"], strict=True):
        near(refiner.classify(got), want[0])


@torch.inference_mode()
def test_embeddings_weights_and_masks(case):
    refiner, held, _, _, layers = case
    if "pred_embds" not in held:
        pytest.skip("the set holds logits only")
    near(layers[-1], turned(held["pred_embds"]))
    near(refiner.weights(layers[-1]), held["temporal_weights"][0])
    near(masks(refiner, layers[-1], held["mask_features"]), held["pred_masks"][0], 1e-4)
    for got, want in zip(layers[:-1], held.get("aux_masks", layers[:-1]), strict=True):
        if "aux_masks" in held:
            near(masks(refiner, got, held["mask_features"]), want[0], 1e-4)


def test_the_first_frames_alone(case):
    refiner, held, tracks, context, _ = case
    for key in (k for k in held if re.fullmatch(r"T\d+__pred_logits", k)):
        n = held[key].shape[1]
        normed, logits = refiner.refine(tracks[:n], context[:n])
        near(logits, held[key][0, 0])
        if f"T{n}__pred_embds" in held:
            near(normed, turned(held[f"T{n}__pred_embds"]))


@pytest.mark.parametrize("name", sets("offline_chain"))
@torch.inference_mode()
def test_tracker_and_refiner_in_a_row(name):
    held = arrays(f"offline_chain_{needed(name)}")
    about = {part: told(part)[name] for part in ("tracker", "refiner")}
    tracker = filled(ReferringTracker(TrackerSettings(**config(about["tracker"]), matching="released")))
    refiner = filled(TemporalRefiner(RefinerSettings(**config(about["refiner"]))))
    queries = turned(held["frame_embeds"])
    normed, *_ = tracker(queries)
    near(normed[-1], turned(held["online_embds"]))
    near(tracker.classify(normed[-1]), held["online_logits"][0])
    near(tracker.alone(queries), turned(held["frame_forward"]))
    refined, logits = refiner.refine(normed[-1], tracker.alone(queries))
    near(refined, turned(held["refined_embds"]))
    near(logits.expand(len(queries), -1, -1), held["refined_logits"][0])
    near(masks(refiner, refined, held["mask_features"]), held["refined_masks"][0], 1e-4)
