"""Mask2Former against the official code: networks rebuilt from official names give what it gave (fixtures of DVIS)."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden.mask2former_fixtures import FOLDER, arrays, found, network, table
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from masklet.core.frames import Frame
from masklet.models.mask2former.segmenter import Mask2Former, resize_to_frame
from masklet.models.mask2former.tensor_names import convert_mask2former_state, infer_checkpoint_kind, split_checkpoint
from masklet.models.mask2former.weights import fill_mask2former, infer_mask2former_config
from masklet.models.query_video.genvis import GenvisNetSettings, build_released_genvis

NETWORKS, VIDEOS = found("mask2former_*"), found("e2e_*")
KEYS = sorted(p for p in FOLDER.glob("keys/*.json") if p.stem != "index")
KINDS = {"minvis": "minvis", "dvis_online": "dvis-online", "dvis_offline": "dvis-offline", "genvis": "genvis"}


def test_the_fixtures_are_here() -> None:
    if not NETWORKS:
        pytest.skip(f"no mask2former_*.npz under {FOLDER}: set MASKLET_GOLDEN")


def worst(made: Tensor, expected: np.ndarray) -> float:
    assert made.shape == expected.shape
    return float((made - torch.from_numpy(expected)).abs().max())


class Fed(Mask2Former):
    """The segmenter, given its input as the network takes it."""

    def fed(self, pixels: Tensor) -> Any:
        self.pixels = lambda frames: (pixels, tuple(pixels.shape[2:]))  # type: ignore[method-assign,return-value,assignment]
        return self._look([])


@pytest.mark.parametrize("name", NETWORKS)
def test_slots_are_the_official_ones(name: str) -> None:
    told = arrays(name)
    slots = Fed(network(name)).fed(torch.from_numpy(told["pixel_values"]))
    assert worst(slots.queries.permute(2, 0, 1)[None], told["pred_embds"]) <= 1e-4
    assert worst(slots.class_logits[None], told["pred_logits"]) <= 1e-4
    assert worst(slots.mask_logits.transpose(0, 1)[None], told["pred_masks"]) <= 1e-3
    step = 16 if "mask_features_every16" in told else 1
    features = told["mask_features_every16" if step == 16 else "mask_features"]
    assert worst(slots.pixel_features[:, ::step], features) <= 1e-4


@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_every_level_and_layer_is_the_official_one(name: str) -> None:
    told, net = arrays(name), network(name)
    maps = net.model.pixel_level_module.encoder(torch.from_numpy(told["pixel_values"])).feature_maps
    decoded = net.model.pixel_level_module.decoder(maps)
    answer = net.model.transformer_module(decoded.multi_scale_features, decoded.mask_features)
    layers = torch.stack([net.class_predictor(x.transpose(0, 1)) for x in answer.intermediate_hidden_states[:-1]])
    assert worst(layers, told["aux_logits"]) <= 1e-4
    levels = {f"res{n + 2}": m for n, m in enumerate(maps)}
    levels |= {f"ms{n}": m for n, m in enumerate(decoded.multi_scale_features)}
    for key, level in levels.items():
        file = next(f for f in told.files if f.split("_")[0] == key)
        step = int(file.partition("every")[2] or 1)
        assert worst(level[:, ::step], told[file]) <= 1e-4, file


def aligned(queries: Tensor) -> list[list[int]]:
    """MinVIS in short: which slot of each frame goes on with each of the frame before."""
    orders = [list(range(queries.shape[1]))]
    unit = queries / queries.norm(dim=2, keepdim=True)
    for before, now in pairwise(unit):
        orders.append(linear_sum_assignment(-(before[orders[-1]] @ now.T).numpy())[1].tolist())
    return orders


@pytest.mark.parametrize("name", VIDEOS)
def test_a_video_by_minvis_in_windows_of_three(name: str) -> None:
    told, facts = arrays(name), table(name)
    frames = [Frame(t, image.transpose(1, 2, 0)) for t, image in enumerate(told["frames"])]
    model = Mask2Former(network(name), shortest=min(frames[0].size), at_once=3)
    slots = model.slots(frames)
    orders = aligned(slots.queries)
    logits, masks = (
        torch.stack([frame[order] for frame, order in zip(x, orders, strict=True)])
        for x in (slots.class_logits, slots.mask_logits)
    )
    assert worst(logits.mean(0), told["minvis__mean_logits"]) <= 1e-4
    assert worst(masks.transpose(0, 1), told["minvis__mask_logits"]) <= 1e-3
    scores, best = logits.mean(0).softmax(1)[:, :-1].flatten().topk(len(told["minvis__scores"]))
    assert np.abs(scores.numpy() - np.sort(told["minvis__scores"])[::-1]).max() <= 1e-4
    by_score = np.argsort(-told["minvis__scores"])
    large = resize_to_frame(masks.flatten(0, 1), slots.inside, tuple(facts["out"])).unflatten(0, masks.shape[:2]) > 0
    made = large.transpose(0, 1)[best // (logits.shape[2] - 1)]
    bits = np.unpackbits(told["minvis__masks"], axis=-1)[..., : facts["out"][1]].astype(bool)
    assert (made.numpy() != bits[by_score]).mean() <= 1e-3


@pytest.mark.parametrize("path", KEYS, ids=lambda p: p.stem)
def test_official_key_lists_are_recognised_and_split(path: Path) -> None:
    told = table(f"keys/{path.stem}")
    state = {name: torch.empty(tuple(shape), device="meta") for name, shape in told["state_dict"].items()}
    wanted = next(kind for start, kind in KINDS.items() if path.stem.startswith(start))
    assert infer_checkpoint_kind(state) == wanted
    split = split_checkpoint(state)
    assert bool(split.tracker) == ("dvis" in wanted) and bool(split.refiner) == ("offline" in wanted)
    own = split.segmenter
    with torch.device("meta"):
        net = fill_mask2former(infer_mask2former_config(own, path), convert_mask2former_state(own), path)
        if wanted == "genvis":
            made = build_released_genvis(net, split.objects, path)
            trained = sum(p.numel() for p in made.objects.parameters())
            assert trained == told["n_trainable"] and made.settings == GenvisNetSettings()
