"""Matching and losses of DVIS's training against the official program's, with the random numbers that it drew."""

from __future__ import annotations

import pytest
import torch
from dvis_fixtures import GOLDEN, told
from training_fixtures import Replay, files, opened, targets, unweighted

from masklet.train.assignment import (
    collect_targets,
    mark_all_queries,
    match_first_appearance,
    match_whole_clip,
    take_last_frame_labels,
)
from masklet.train.data.clips import TrainingClip
from masklet.train.losses import LossSettings, compute_clip_losses, compute_frame_losses

CASES = [
    (file, case)
    for file in files("dvis_training_loss")
    for case in (sorted(told(file).keys() - {"setup"}) if file else [None])
]


def online(held, name, targets, rand, at):
    logits, masks = held[f"{name}__logits"][0], held[f"{name}__masks"][0]
    return match_first_appearance(logits, masks.transpose(0, 1), targets, rand, at, mark_all_queries)


def offline(held, name, targets, rand, at):
    """What guides is the tracker: its logits are averaged. The refiner's are the same in all frames."""
    logits = held[f"{name}__logits"][0]
    return match_whole_clip(
        logits.mean(0) if name == "seg" else logits[0], held[f"{name}__masks"][0], targets, rand, at
    )


def online_losses(held, name, targets, pairs, rand, at):
    masks = held[f"{name}__masks"][0].transpose(0, 1)[:, pairs.queries]
    return compute_frame_losses(held[f"{name}__logits"][0], masks, targets.masks, targets.labels, pairs, rand, at)


def offline_losses(held, name, targets, pairs, rand, at):
    logits, masks = held[f"{name}__logits"][0, 0], held[f"{name}__masks"][0, pairs.queries]
    return compute_clip_losses(logits, masks, targets.masks, targets.labels, pairs, rand, at)


RULES = {"online": (online, online_losses), "offline": (offline, offline_losses)}


def layers(held):
    """The last layer, then the others; with the endings of their losses' names."""
    others = sorted(int(k[3:-8]) for k in held if k.startswith("aux") and k.endswith("__logits"))
    return [("main", ""), *((f"aux{n}", f"_{n}") for n in others)]


def settings(setup):
    costs = (setup[f"cost_{name}"] for name in ("class", "mask", "dice"))
    return LossSettings(*costs, setup["eos_coef"], setup["num_points"], setup["oversample"], setup["importance"])


@pytest.mark.parametrize(("file", "case"), CASES)
def test_matching_and_losses(file, case):
    held, about = opened(file)
    wanted, at, objects = about[case]["losses"], settings(about["setup"]), targets(held)
    mode, guide = case.split("_")
    matched, losses = RULES[mode]
    rand, pairs, calls = Replay(held, f"{case}__rand"), None, 0
    for name, ending in layers(held):
        if guide == "own" or pairs is None:
            pairs = matched(held, "seg" if guide == "guided" else name, objects, rand, at)
            assert torch.equal(pairs.queries, held[f"{case}__match{calls}_pred"])
            assert torch.equal(pairs.objects, held[f"{case}__match{calls}_gt"])
            calls += 1
        for kind, loss in unweighted(losses(held, name, objects, pairs, rand, at), at).items():
            assert loss.item() == pytest.approx(wanted.pop(f"loss_{kind}{ending}"), abs=1e-5)
    assert not rand.draws and not wanted and calls == about[case]["n_matcher_calls"]


def test_classes_of_the_last_frame():
    """The defect, and where objects count as visible."""
    if not (about := told("dvis_prepare_targets")):
        pytest.skip(f"dvis_prepare_targets.json is not in {GOLDEN}")
    present = torch.tensor(about["presence"], dtype=torch.bool).T
    pixels = int(torch.tensor(about["out_mask_areas"]).max())
    masks = present[:, :, None, None].expand(-1, -1, 1, pixels)
    images = torch.zeros(present.shape[1], 3, 1, pixels, dtype=torch.uint8)
    clip = TrainingClip(images, masks, present, torch.tensor(about["classes"]))
    made = collect_targets(clip, about["num_classes"], take_last_frame_labels)
    assert made.labels.tolist() == about["out_labels"]
    assert torch.equal(made.visible, torch.tensor(about["out_ids"]) != -1)
    assert made.masks.flatten(2).sum(2).tolist() == about["out_mask_areas"]
    seen = present.any(1)
    assert collect_targets(clip, about["num_classes"]).labels.tolist() == torch.tensor(about["classes"])[seen].tolist()
