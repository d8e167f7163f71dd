"""From class and mask logits to instances, panoptic and semantic segments, against the official programs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from dvis_fixtures import arrays, cases, needed, told

from masklet.systems.dvis import SCORES
from masklet.systems.query.answers import MaskResizer, SlotSettings, build_task_output, compute_mean_probabilities

NAMES = cases("postprocess", "mask_logits")


@pytest.fixture(params=[n for n in NAMES if n is None or "__" not in n])
def case(request):
    name = needed(request.param)
    held = {k.removeprefix(f"{name}__"): v for k, v in arrays("postprocess").items() if k.startswith(f"{name}__")}
    return name, told("postprocess"), held


def probabilities(held, prefix, mode):
    own = compute_mean_probabilities(held[f"{prefix}logits"])
    aux = f"{prefix}aux_logits"
    return SCORES["released"](own, compute_mean_probabilities(held[aux])) if mode == "offline" else own


def answered(case, prob, mask_logits, **settings):
    name, about, _ = case
    at = about[name]
    categories = [str(k) for k in range(prob.shape[1] - 1)]
    assert list(at["pad"]) == [4 * n for n in mask_logits.shape[2:]]
    made = build_task_output(prob, categories, SlotSettings(**settings))
    for t in range(mask_logits.shape[1]):
        made.add(t, mask_logits[list(made.slots), t], MaskResizer(tuple(at["img"]), tuple(at["out"])))
    return made, {m.id: m for m in made.masklets()}


def pixels(masklet, like):
    frames = [
        masklet.sightings[t].mask.decode() if masklet and t in masklet.sightings else None for t in range(len(like))
    ]
    return np.stack([np.zeros(like.shape[1:], bool) if f is None else f.numpy() for f in frames])


def few_differ(got, want):
    assert (got != want).mean() <= 1e-4


@pytest.mark.parametrize("mode", ["minvis", "online", "offline"])
def test_instances(case, mode):
    _, _, held = case
    want = {k: held[f"{mode}__{k}"].numpy() for k in ("scores", "labels", "masks", "masks_shape")}
    made, found = answered(case, probabilities(held, "", mode), held["mask_logits"], top=len(want["scores"]))
    order = np.argsort(-want["scores"], kind="stable")
    np.testing.assert_allclose([p.score for p in made.pairs], want["scores"][order], atol=1e-6)
    bits = np.unpackbits(want["masks"], axis=-1, count=want["masks_shape"][-1]).astype(bool)
    slots = held["mask_logits"].shape[0]
    for pair, row in zip(made.pairs, order, strict=True):
        assert pair.label == want["labels"][row]
        if f"{mode}__ids" in held:
            assert pair.slot == int(held[f"{mode}__ids"][row]) == (pair.id - 1) % slots
        few_differ(pixels(found.get(pair.id), bits[row]), bits[row])


@pytest.mark.parametrize("mode", ["online", "offline"])
def test_panoptic(case, mode):
    name, about, held = case
    if "vps_logits" not in held:
        pytest.skip("the case has no panoptic part")
    prob = probabilities(held, "vps_", mode)
    stuff = tuple(str(k) for k in range(about[name]["num_thing_classes"], prob.shape[1] - 1))
    _, found = answered(case, prob, held["vps_mask_logits"], task="panoptic", stuff=stuff)
    segments = about[f"{name}__vps_{mode}__segments"]
    want = held[f"vps_{mode}__masks"].numpy()
    got = np.zeros_like(want)
    for told_segment, one in zip(segments, found.values(), strict=True):
        assert (told_segment["isthing"], told_segment["category_id"]) == (one.is_thing, one.label)
        mask = pixels(one, want)
        assert not (got[mask] > 0).any()
        got[mask] = told_segment["id"]
    few_differ(got, want)
    things = [m.id - 1 for m in found.values() if m.is_thing]
    queries = held[f"vps_{mode}__ids"].tolist()
    assert things == [q for q, s in zip(queries, segments, strict=True) if s["isthing"]]


def test_semantic(case):
    _, _, held = case
    if "vss__masks" not in held:
        pytest.skip("the case has no semantic part")
    prob = probabilities(held, "vps_", "online")
    _, found = answered(case, prob, held["vps_mask_logits"], task="semantic")
    want = held["vss__masks"].numpy()
    got = np.full_like(want, -1)
    for one in found.values():
        got[pixels(one, want)] = one.label
    few_differ(got, want)


def test_nothing_kept():
    about = told("postprocess").get("vps_nothing_kept") or pytest.skip("no fixture: set MASKLET_GOLDEN")
    frames, h, w = about["shape"]
    made = build_task_output(torch.tensor([[0.1, 0.9], [0.7, 0.3]]), ["a"], SlotSettings(task="panoptic"))
    for t in range(frames):
        made.add(t, torch.zeros(0, h // 4, w // 4), MaskResizer((h, w), (h, w)))
    assert list(made.masklets()) == about["segments"] == []
