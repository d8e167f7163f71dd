"""Mask2Former as a segmenter: what goes into the network, and what is made of its answers."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.masks import resize_bilinear
from masklet.core.protocols import Segmenter, SlotSegmenter
from masklet.models.mask2former.networks import MEAN, STD, compute_mask2former_size
from masklet.models.mask2former.segmenter import (
    AT_ONCE,
    Mask2Former,
    PanopticMask2Former,
    resize_to_frame,
    score_mask_certainty,
)
from masklet.models.transformers_output import drop_transformers_output

ODD = [(60, 84), (33, 31), (64, 96), (97, 65), (1, 40)]


@cache
def network(classes: int = 3) -> Any:
    """A small Mask2Former with random weights."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig

    torch.manual_seed(0)
    stages = ["stage1", "stage2", "stage3", "stage4"]
    with drop_transformers_output():
        config = Mask2FormerConfig(
            backbone_config=ResNetConfig(
                embedding_size=8, hidden_sizes=[16, 24, 32, 40], depths=[1, 1, 1, 1], out_features=stages
            ),
            **dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim", "encoder_feedforward_dim"), 32),
            encoder_layers=1,
            decoder_layers=3,
            num_attention_heads=4,
            dim_feedforward=32,
            num_queries=20,
            id2label={n: f"kind {n}" for n in range(classes)},
        )
        return Mask2FormerForUniversalSegmentation(config).eval().requires_grad_(False)


def frames(size: tuple[int, int], n: int) -> list[Frame]:
    noise = np.random.default_rng(5)
    return [Frame(t, noise.integers(0, 256, (*size, 3), dtype=np.uint8)) for t in range(n)]


def model(**how: Any) -> Mask2Former:
    return Mask2Former(network(), **{"shortest": 48, "threshold": 0.0, **how})


# -- what goes in


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(32, 1000))
def test_the_short_side_is_as_told_unless_the_long_one_grows_too_long(h: int, w: int, shortest: int) -> None:
    seen = compute_mask2former_size((h, w), shortest)
    exact = min(shortest / min(h, w), 1333 / max(h, w))
    assert max(seen) <= 1333
    assert all(abs(s - exact * side) <= 0.5 + 1e-6 or s == 1 for s, side in zip(seen, (h, w), strict=True))


def test_seen_sizes_of_known_videos() -> None:
    assert compute_mask2former_size((480, 854), 480) == (480, 854)
    assert compute_mask2former_size((720, 1280), 800) == (750, 1333)  # the long side would be 1422
    assert compute_mask2former_size((333, 500), 360) == (360, 541)  # 540.54, rounded up


@pytest.mark.parametrize("size", ODD)
def test_the_input_is_padded_right_and_below_to_a_multiple_of_32(size: tuple[int, int]) -> None:
    images, (h, w) = model(shortest=min(size)).pixels(frames(size, 2))
    assert (h, w) == size and images.shape[:2] == (2, 3)
    assert all(side % 32 == 0 and 0 <= side - at < 32 for side, at in zip(images.shape[2:], size, strict=True))
    assert not images[:, :, h:].any() and not images[:, :, :, w:].any()
    whole = torch.from_numpy(frames(size, 2)[1].image).permute(2, 0, 1).float()
    expected = (whole - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    assert torch.allclose(images[1, :, :h, :w], expected, atol=1e-6)


def test_red_green_and_blue_each_have_their_mean_and_deviation() -> None:
    image = np.full((32, 32, 3), (200, 100, 0), dtype=np.uint8)
    images, _ = model(shortest=32).pixels([Frame(0, image)])
    expected = torch.tensor([(200 - 123.675) / 58.395, (100 - 116.28) / 57.12, -103.53 / 57.375])
    assert torch.allclose(images[0, :, 7, 9], expected)


# -- masks at the frame's size


@pytest.mark.parametrize("size", ODD)
def test_what_lies_in_the_padding_is_cut_off(size: tuple[int, int]) -> None:
    padded = [-(-side // 32) * 8 for side in size]
    logits = torch.full((1, *padded), -5.0)
    logits[:, -(-size[0] // 4) + 1 :] = 50.0
    logits[:, :, -(-size[1] // 4) + 1 :] = 50.0
    assert not (resize_to_frame(logits, size, (2 * size[0], 3 * size[1])) > 0).any()


def test_an_edge_stays_where_it_is() -> None:
    """Left of column 40 of 84, at a stride of 4 in a padded width of 96; the frame is twice as large."""
    logits = torch.full((1, 16, 24), -1.0)
    logits[:, :, :10] = 1.0
    made = resize_to_frame(logits, (60, 84), (120, 168)) > 0
    assert torch.equal(made[0], (torch.arange(168) < 80).expand(120, 168))


def test_without_padding_or_another_size_it_is_one_bilinear_step() -> None:
    logits = torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(1))
    assert torch.equal(resize_to_frame(logits, (32, 64), (32, 64)), resize_bilinear(logits, (32, 64)))


# -- detections


def test_certainty_is_the_mean_probability_inside() -> None:
    maps = torch.tensor([[[0.9, 0.2, 0.7]], [[0.1, 0.2, 0.3]], [[0.6, 0.6, 0.6]]]).logit()
    assert torch.allclose(score_mask_certainty(maps), torch.tensor([0.8, 0.0, 0.6]), atol=1e-5)


def classes(*probabilities: list[float]) -> Tensor:
    """Class logits of probabilities, the last that of no object."""
    return torch.tensor(probabilities).log()


def flat(*values: float, size: tuple[int, int] = (8, 8)) -> Tensor:
    """Mask logits: the top half of each at one probability, the rest far outside."""
    maps = torch.full((len(values), *size), -50.0)
    for row, value in enumerate(values):
        maps[row, : size[0] // 2] = torch.tensor(value).logit()
    return maps


def test_the_score_is_class_probability_times_certainty_by_the_best_class() -> None:
    logits = classes([0.1, 0.2, 0.6, 0.1], [0.8, 0.05, 0.05, 0.1], [0.25, 0.05, 0.0, 0.7])
    found = model()._found(logits, flat(0.9, 0.6, 0.99), (32, 32), (32, 32))
    assert found.labels.tolist() == [2, 0, 0]  # 0.54, 0.48, and what is most likely no object, 0.25
    rows = torch.stack([resize_to_frame(flat(p), (32, 32), (32, 32))[0] for p in (0.9, 0.6, 0.99)])
    assert torch.allclose(found.scores, torch.tensor([0.6, 0.8, 0.25]) * score_mask_certainty(rows), atol=1e-6)
    assert torch.equal(found.masks, rows > 0)


def test_the_threshold_is_on_the_score_and_empty_masks_go() -> None:
    logits = classes(*[[0.9, 0.0, 0.0, 0.1]] * 3)
    found = model()._found(logits, flat(0.95, 0.51, 0.2), (32, 32), (32, 32), 0.6)
    assert len(found) == 1 and found.masks[0, :14].all()
    every = model()._found(logits, flat(0.95, 0.51, 0.2), (32, 32), (32, 32))
    assert len(every) == 2  # the third is nowhere more likely than not


def test_the_likeliest_are_kept() -> None:
    likely = torch.linspace(0.1, 0.9, 40)
    logits = torch.stack([likely, 1 - likely], 1).log()
    masks = flat(*[0.9] * 40)
    all_of_them = model()._found(logits, masks, (30, 30), (45, 45))
    assert len(all_of_them) == 40 > 2 * AT_ONCE and all_of_them.masks.shape == (40, 45, 45)
    assert all_of_them.scores.diff().le(0).all()
    some = model(at_most=7)._found(logits, masks, (30, 30), (45, 45))
    assert torch.equal(some.scores, all_of_them.scores[:7])


def test_no_query_above_the_threshold_is_no_detection() -> None:
    found = model()._found(classes([0.1, 0.1, 0.1, 0.7]), flat(0.9), (32, 32), (20, 30), 0.5)
    assert len(found) == 0 and found.masks.shape == (0, 20, 30)


def test_who_asks_for_unsure_detections_gets_them_unless_a_threshold_was_set() -> None:
    """SAM2BMP's proposals of low confidence (`low_conf`) would else never come."""
    [frame] = frames((48, 64), 1)
    counts = {}
    for threshold in (None, 0.2):
        finder = model(threshold=threshold)
        [every], _ = finder.segment_above(None, [frame], [], 0.0)
        [usual], _ = finder.segment(None, [frame], [])
        counts[threshold] = (len(every), len(usual))
        assert not len(every) or float(every.scores.min()) >= (threshold or 0.0)
        assert not len(usual) or float(usual.scores.min()) >= (threshold or 0.5)
    assert counts[None][0] > counts[0.2][0] >= counts[0.2][1]


def panoptic(**how: Any) -> PanopticMask2Former:
    """Of three kinds, of which the last is stuff."""
    made = PanopticMask2Former(network(), **{"shortest": 48, "threshold": 0.5, **how})
    made.stuff = ("kind 2",)
    return made


def test_panoptic_no_pixel_is_in_two_segments_and_stuff_of_a_kind_is_one() -> None:
    """By score x probability; a query whose best class is no object, or that scores too little, takes no part."""
    logits = classes(
        [0.9, 0.0, 0.05, 0.05],
        [0.05, 0.0, 0.9, 0.05],
        [0.05, 0.0, 0.8, 0.15],
        [0.1, 0.1, 0.1, 0.7],
        [0.4, 0.3, 0.2, 0.1],
    )
    maps = torch.full((5, 8, 8), -50.0)
    maps[0, :, :4], maps[1, :, 4:6], maps[2, :, 6:], maps[3], maps[4] = 50.0, 50.0, 50.0, 50.0, 50.0
    found = panoptic()._found(logits, maps, (32, 32), (32, 32), 0.5)
    assert found.labels.tolist() == [0, 2] and torch.allclose(found.scores, torch.tensor([0.9, 0.9]))
    assert found.masks.sum(0).max() == 1 and found.masks[1, :, 17:].all() and found.masks[0, :, :15].all()
    assert len(panoptic()._found(logits[3:4], maps[3:4], (32, 32), (32, 32), 0.5)) == 0


def test_panoptic_a_segment_that_wins_too_little_of_its_own_is_dropped() -> None:
    logits = classes([0.9, 0.0, 0.0, 0.1], [0.0, 0.7, 0.2, 0.1])
    maps = torch.full((2, 8, 8), -50.0)
    maps[0, :, :6], maps[1] = 50.0, 50.0
    assert panoptic()._found(logits, maps, (32, 32), (32, 32), 0.5).labels.tolist() == [0]
    assert panoptic(overlap=0.2)._found(logits, maps, (32, 32), (32, 32), 0.5).labels.tolist() == [0, 1]


# -- the whole


def test_it_is_a_segmenter() -> None:
    assert isinstance(model(), Segmenter) and isinstance(model(), SlotSegmenter)
    assert model().categories == ("kind 0", "kind 1", "kind 2") and model().look_ahead == 0
    assert model(categories=("a", "b", "c")).categories == ("a", "b", "c")
    with pytest.raises(InputError, match="2 categories are named, this Mask2Former has 3 classes"):
        model(categories=("a", "b"))


@pytest.mark.parametrize("size", ODD[:4])
def test_detections_are_at_the_frames_size_and_do_not_depend_on_how_frames_are_cut(size: tuple[int, int]) -> None:
    given_, plain = frames(size, 3), model()
    together, memory = plain.segment(plain.empty(), given_, [])
    assert memory is None and len(together) == 3 and any(len(d) for d in together)
    for frame, found in zip(given_, together, strict=True):
        [alone], _ = plain.segment(None, [frame], given_[:1])
        assert torch.equal(alone.masks, found.masks) and torch.equal(alone.scores, found.scores)
        assert found.masks.shape[1:] == size and ((found.scores >= 0) & (found.scores <= 1)).all()
        assert found.masks.flatten(1).any(1).all() and (found.labels < 3).all()


def test_slots_of_a_window_are_those_of_its_frames() -> None:
    window = frames((60, 84), 5)
    alone, batched = (model(shortest=60, at_once=n).slots(window) for n in (1, 2))
    assert alone.queries.shape == (5, 20, 32) and alone.class_logits.shape == (5, 20, 4)
    assert alone.pixel_features.shape == (5, 32, 16, 24) and alone.mask_logits.shape == (5, 20, 16, 24)
    assert alone.inside == (60, 84)
    for name in ("queries", "class_logits", "pixel_features", "mask_logits"):
        assert torch.allclose(getattr(alone, name), getattr(batched, name), atol=1e-4), name


def test_slots_hold_together() -> None:
    """Class logits and masks are what the network's heads make of the queries and the pixels."""
    slots, net = model().slots(frames((48, 70), 2)), network()
    assert torch.allclose(net.class_predictor(slots.queries), slots.class_logits, atol=1e-5)
    embedded = net.model.transformer_module.decoder.mask_predictor.mask_embedder(slots.queries)
    made = torch.einsum("tnc,tchw->tnhw", embedded, slots.pixel_features)
    assert torch.allclose(made, slots.mask_logits, atol=1e-4)


def test_few_frames_are_in_the_network_at_once() -> None:
    seen: list[int] = []
    encoder = network().model.pixel_level_module.encoder
    hook = encoder.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    try:
        model(at_once=2).segment(None, frames((40, 40), 5), [])
    finally:
        hook.remove()
    assert seen == [2, 2, 1]


def test_in_bfloat16_the_pixel_decoder_stays_in_float32() -> None:
    """As on a GPU; what leaves is float32, and not far from what it is without."""
    halved, dtypes = model(), list[torch.dtype]()
    halved.half = True
    decoder = network().model.pixel_level_module.decoder
    hook = decoder.register_forward_hook(lambda module, given, out: dtypes.append(out.mask_features.dtype))
    try:
        rough = halved.slots(frames((48, 70), 1))
    finally:
        hook.remove()
    exact = model().slots(frames((48, 70), 1))
    assert dtypes == [torch.float32]
    for name in ("queries", "class_logits", "pixel_features", "mask_logits"):
        made, wanted = getattr(rough, name), getattr(exact, name)
        assert made.dtype == torch.float32 and not torch.equal(made, wanted), name
        assert (made - wanted).norm() < 0.2 * wanted.norm(), name
