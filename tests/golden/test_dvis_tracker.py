"""The referring tracker against the official program's, weights by the fixtures' recipe."""

from __future__ import annotations

import pytest
import torch
from dvis_fixtures import config, filled, needed, sets, told, with_inputs

from masklet.nn.referring_tracker import ReferringTracker, TrackerSettings


@pytest.fixture(scope="module", params=sets("tracker"))
def case(request):
    name = needed(request.param)
    about = told("tracker")[name]
    tracker = filled(ReferringTracker(TrackerSettings(**config(about), matching="released")), about["state_dict"])
    held = with_inputs("tracker", name, "frame_embeds")
    queries = held["frame_embeds"][0].permute(1, 2, 0).contiguous()
    with torch.inference_mode():
        return tracker, held, queries, tracker(queries)


def near(got, want, atol=2e-5):
    torch.testing.assert_close(got, want, atol=atol, rtol=0)


def test_number_of_parameters(case):
    tracker, *_ = case
    wanted = {t["n_params"] for t in told("tracker").values() if "n_params" in t}
    assert sum(p.numel() for p in tracker.parameters()) in wanted


@torch.inference_mode()
def test_class_logits_of_every_layer(case):
    tracker, held, _, (normed, *_) = case
    logits = tracker.classify(normed)
    near(logits[-1], held["pred_logits"][0])
    if "aux_logits" in held:
        near(logits[:-1], held["aux_logits"][:, 0])


def test_embeddings(case):
    _, held, _, (normed, *_) = case
    if "pred_embds" not in held:
        pytest.skip("the set holds logits only")
    near(normed[-1], held["pred_embds"][0].permute(1, 2, 0))


def test_order(case):
    _, held, _, (_, order, _) = case
    if "indices" not in held:
        pytest.skip("the set holds logits only")
    assert torch.equal(order, held["indices"])


def test_memory_after_the_last_frame(case):
    _, held, _, (*_, memory) = case
    if "last_frame_embeds" not in held:
        pytest.skip("the set holds logits only")
    near(memory.matched, held["last_frame_embeds"][:, 0])
    near(memory.output, held["last_outputs_final_layer"][:, 0])


@torch.inference_mode()
def test_masks(case):
    tracker, held, _, (normed, *_) = case
    if "pred_masks" not in held:
        pytest.skip("the set holds logits only")
    wanted = [*held.get("aux_masks", ()), held["pred_masks"]]
    for layer, want in zip(normed[-len(wanted) :], wanted, strict=True):
        masks = [tracker.predict_masks(q, f) for q, f in zip(layer, held["mask_features"][0], strict=True)]
        near(torch.stack(masks, 1), want[0], 1e-4)


@torch.inference_mode()
def test_every_frame_alone(case):
    tracker, held, queries, _ = case
    if "frame_forward" not in held:
        pytest.skip("the set holds logits only")
    near(tracker.alone(queries), held["frame_forward"][0].permute(1, 2, 0))


@torch.inference_mode()
def test_a_later_window_as_a_new_video(case):
    tracker, held, queries, _ = case
    want = held["noresume_second_window_logits"][0]
    normed, *_ = tracker(queries[-len(want) :])
    near(tracker.classify(normed[-1]), want)
