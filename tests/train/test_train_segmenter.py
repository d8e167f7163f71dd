"""Training a Mask2Former: what is told to which query, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from masklet.core.instances import Detections
from masklet.models.mask2former.segmenter import Mask2Former
from masklet.models.mask2former.small import SmallMask2FormerSettings, create_small_mask2former, save_small
from masklet.models.mask2former.weights import build_mask2former
from masklet.models.transformers_output import drop_transformers_output
from masklet.train.data.clips import TrainingClip, seed_item_generator
from masklet.train.loop.loop import Task, TrainingPlan, train
from masklet.train.loop.run_folder import read_last_scores
from masklet.train.losses import LossSettings, make_uniform_sampler
from masklet.train.scoring import compute_image_scores
from masklet.train.tasks.segmenter import (
    ImageTruth,
    LayerPredictions,
    SegmenterTask,
    build_class_map,
    collect_image_truths,
    compute_layer_losses,
    compute_pixel_class_loss,
    compute_set_losses,
    draw_held_out_clips,
    fit_categories,
    make_segmenter_frames,
    predict_layers,
    prepare_images,
)

TINY = SmallMask2FormerSettings(32, 1, 2, 6, 2, 32, 32)
NAMES = ("square", "bar")
CPU = torch.device("cpu")
AT = LossSettings(points=64)


class Boxes:
    """Bright boxes on grey: a square, and most times a bar."""

    categories = NAMES

    def clip(self, random: np.random.Generator, frames: int) -> TrainingClip:
        images = torch.full((frames, 3, 32, 64), 90, dtype=torch.uint8)
        masks = torch.zeros(2, frames, 32, 64, dtype=torch.bool)
        corners = random.integers(2, 12, 2)
        masks[0, :, corners[0] : corners[0] + 14, 2:16] = True
        if random.random() < 0.8:
            masks[1, :, corners[1] : corners[1] + 8, 26:60] = True
        for mask, ink in zip(masks, (220, 20), strict=True):
            images = torch.where(mask[:, None], torch.tensor(ink, dtype=torch.uint8), images)
        seen = masks.flatten(1).any(1)
        return TrainingClip(images, masks[seen], masks[seen].flatten(2).any(2), torch.arange(2)[seen])


class Nothing:
    """Frames without an object."""

    categories = NAMES

    def clip(self, random: np.random.Generator, frames: int) -> TrainingClip:
        return replace(
            Boxes().clip(random, frames), **dict(zip(("masks", "present", "labels"), none(frames), strict=True))
        )


def none(frames: int) -> tuple[torch.Tensor, ...]:
    return (
        torch.zeros(0, frames, 32, 64, dtype=torch.bool),
        torch.zeros(0, frames, dtype=torch.bool),
        torch.zeros(0, dtype=torch.int64),
    )


def task(source: Any = None, **how: Any) -> SegmenterTask:
    net, source = create_small_mask2former(TINY, NAMES), source or Boxes()
    return SegmenterTask(
        net, source, draw_held_out_clips(source, 4), lambda path: save_small(path, net, TINY, (32, 64)), **how
    )


@cache
def resnet() -> Any:
    """Another Mask2Former, as transformers has them."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig

    stages = ["stage1", "stage2", "stage3", "stage4"]
    sizes = dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim", "encoder_feedforward_dim"), 32)
    torch.manual_seed(0)
    with drop_transformers_output():
        backbone = ResNetConfig(
            embedding_size=8, hidden_sizes=[16, 24, 32, 40], depths=[1, 1, 1, 1], out_features=stages
        )
        config = Mask2FormerConfig(
            backbone_config=backbone, **sizes, encoder_layers=1, decoder_layers=2, num_attention_heads=2,
            dim_feedforward=32, num_queries=6, id2label=dict(enumerate("abc")),
        )  # fmt: skip
        return Mask2FormerForUniversalSegmentation(config)


# -- learning


def test_the_loss_falls_and_the_boxes_are_found(tmp_path: Path) -> None:
    made, plan = task(clips=2), TrainingPlan(25, lr=3e-3, warm_up=5)
    assert isinstance(made, Task)
    with torch.no_grad():
        before = sum(made.loss(0, seed_item_generator(9, 0)).values())
    train(made, tmp_path, plan, {"task": "segmenter"})
    with torch.no_grad():
        after = sum(made.loss(0, seed_item_generator(9, 0)).values())
    assert after < 0.6 * before, (before, after)
    scores = read_last_scores(tmp_path)
    assert scores["found"] > 20 and set(scores) == {"AP", "AP50", "found", "AP/square", "AP/bar"}
    assert build_mask2former(tmp_path / "weights.safetensors").shortest == 32


def test_a_step_is_the_same_whenever_it_is_done() -> None:
    made = task(clips=2)
    first = made.loss(3, seed_item_generator(0, 3))
    torch.rand(5)
    made.loss(4, seed_item_generator(0, 4))
    again = made.loss(3, seed_item_generator(0, 3))
    assert all(torch.equal(again[name], value) for name, value in first.items())


def test_frames_without_an_object_are_told_to_say_so() -> None:
    made = task(Nothing(), clips=2)
    losses = made.loss(0, seed_item_generator(0, 0))
    assert set(losses) == {"class", "mask", "dice", "pixels"}
    assert losses["mask"].item() == losses["dice"].item() == 0 < losses["class"].item()
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.module.parameters())
    assert made.validate() == {"AP": 0.0, "AP50": 0.0, "found": 0.0}


def test_frames_of_a_clip_are_images_of_their_own() -> None:
    clip = Boxes().clip(seed_item_generator(0, 0), 3)
    clip.masks[0, 1] = False  # away in the second frame
    truths = collect_image_truths(clip, CPU)
    assert [t.labels.tolist() for t in truths] == [[0, 1], [1], [0, 1]]
    assert torch.equal(truths[2].masks, clip.masks[:, 2].float())
    assert made_finite(task(clips=1, frames=3))


def made_finite(made: SegmenterTask) -> bool:
    return all(bool(v.isfinite()) for v in made.loss(0, seed_item_generator(0, 0)).values())


# -- what is told


def test_the_picture_and_its_masks_are_padded_alike() -> None:
    clip = Boxes().clip(seed_item_generator(0, 0), 1)
    clip = TrainingClip(clip.images[..., :20, :50], clip.masks[..., :20, :50], clip.present, clip.labels)
    seen = prepare_images(clip.images)
    assert seen.shape == (1, 3, 32, 64) and collect_image_truths(clip, CPU)[0].masks.shape == (2, 32, 64)
    model = Mask2Former(create_small_mask2former(TINY, NAMES).eval(), shortest=20)
    assert torch.allclose(seen, model.pixels(make_segmenter_frames(clip))[0])


def test_predictions_are_those_of_the_segmenter() -> None:
    net = create_small_mask2former(TINY, NAMES).eval()
    clip = Boxes().clip(seed_item_generator(0, 0), 2)
    with torch.no_grad():
        made = predict_layers(net, prepare_images(clip.images))
    slots = Mask2Former(net, shortest=32).slots(make_segmenter_frames(clip))
    assert made.logits.shape == (3, 2, 6, 3)  # the queries alone, then two layers
    torch.testing.assert_close(made.logits[-1], slots.class_logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(made.masks[-1], slots.mask_logits, atol=1e-4, rtol=1e-4)


def test_perfect_answers_in_any_order_cost_nothing() -> None:
    clips = [Boxes().clip(seed_item_generator(0, n), 1) for n in range(3)]
    truths = [truth for clip in clips for truth in collect_image_truths(clip, CPU)]
    order = torch.tensor([4, 1])  # of the queries
    logits, masks = torch.zeros(3, 6, 3), torch.full((3, 6, 32, 64), -40.0)
    logits[..., 2] = 50.0
    for n, truth in enumerate(truths):
        for label, mask in zip(truth.labels.tolist(), truth.masks, strict=True):
            logits[n, order[label]] = torch.nn.functional.one_hot(torch.tensor(label), 3) * 50.0
            masks[n, order[label]] = mask * 80 - 40
    losses = compute_layer_losses(logits, masks, truths, make_uniform_sampler(seed_item_generator(0, 0), CPU), AT)
    assert float(losses["class"]) < 1e-6
    assert float(losses["dice"]) < 1 and float(losses["mask"]) < 3  # what is left lies on the edges, between pixels
    away = compute_layer_losses(
        logits, masks.roll(20, 3), truths, make_uniform_sampler(seed_item_generator(0, 0), CPU), AT
    )
    assert float(away["dice"]) > 3 and float(away["mask"]) > 20
    other = compute_layer_losses(
        logits.flip(1), masks, truths, make_uniform_sampler(seed_item_generator(0, 0), CPU), AT
    )
    assert float(other["class"]) > 1


def test_each_cell_has_the_class_at_its_middle() -> None:
    masks = torch.zeros(2, 8, 16)
    masks[0, :4, :8] = 1
    masks[1, 6, 14] = 1  # the middle of the last cell
    masks[1, 0, 15] = 1  # no cell's middle
    told = build_class_map(ImageTruth(masks, torch.tensor([1, 0])), 2, (2, 4))
    assert told.tolist() == [[1, 1, 2, 2], [2, 2, 2, 0]]
    certain = 40 * torch.nn.functional.one_hot(told, 3).permute(2, 0, 1).float()[None]
    truths = [ImageTruth(masks, torch.tensor([1, 0]))]
    assert float(compute_pixel_class_loss(certain, truths)) < 1e-6
    assert float(compute_pixel_class_loss(torch.zeros(1, 3, 2, 4), truths)) == pytest.approx(np.log(3))


def test_layers_add_up_and_images_share_the_count() -> None:
    truths = [
        truth for n in range(2) for truth in collect_image_truths(Boxes().clip(seed_item_generator(0, n), 1), CPU)
    ]
    noise = torch.Generator().manual_seed(0)
    logits, masks = torch.randn(2, 6, 3, generator=noise), torch.randn(2, 6, 8, 16, generator=noise)
    one = compute_layer_losses(logits, masks, truths, lambda *shape: torch.full(shape, 0.3), AT)
    two = compute_set_losses(
        LayerPredictions(logits[None].repeat(2, 1, 1, 1), masks[None].repeat(2, 1, 1, 1, 1), masks),
        truths,
        lambda *shape: torch.full(shape, 0.3),
        AT,
    )
    assert all(float(two[k]) == pytest.approx(2 * float(one[k])) for k in one)
    empty = ImageTruth(torch.zeros(0, 32, 64), torch.zeros(0, dtype=torch.int64))
    with_empty = compute_layer_losses(logits, masks, [truths[0], empty], lambda *shape: torch.full(shape, 0.3), AT)
    alone = compute_layer_losses(logits[:1], masks[:1], truths[:1], lambda *shape: torch.full(shape, 0.3), AT)
    assert float(with_empty["mask"]) == pytest.approx(float(alone["mask"]))


# -- other networks


def test_a_network_of_transformers_keeps_its_statistics_and_can_be_saved(tmp_path: Path) -> None:
    net = resnet()
    fit_categories(net, NAMES, 0, [(net, "class_predictor")])
    assert net.class_predictor.out_features == 3 and net.config.id2label == dict(enumerate(NAMES))
    before = {k: v.clone() for k, v in net.state_dict().items() if "running" in k}
    made = SegmenterTask(net, Boxes(), [], lambda path: net.save_pretrained(path.with_suffix("")), clips=1)
    train(made, tmp_path, TrainingPlan(2), {})
    assert before and all(torch.equal(net.state_dict()[k], v) for k, v in before.items())
    built = build_mask2former(tmp_path / "weights")
    assert torch.equal(built.net.class_predictor.weight, net.class_predictor.weight)
    assert tuple(built.net.config.id2label.values()) == NAMES


def test_a_head_of_the_same_categories_stays() -> None:
    net = create_small_mask2former(TINY, NAMES)
    head = net.class_predictor
    assert fit_categories(net, NAMES, 0, [(net, "class_predictor")]) == [] and net.class_predictor is head


def test_a_head_keeps_what_it_knows_by_name() -> None:
    """Another order is another meaning: rows go where their names are, the new one is random, no object stays last."""
    net = create_small_mask2former(TINY, NAMES)
    before = net.class_predictor
    told = fit_categories(net, ("Bar", "ring", "square"), 0, [(net, "class_predictor")])
    rows = [NAMES.index("bar"), NAMES.index("square"), 2]
    assert torch.equal(net.class_predictor.weight[[0, 2, 3]], before.weight[rows])
    assert torch.equal(net.class_predictor.bias[[0, 2, 3]], before.bias[rows])
    assert told == ["class head: 2 of 3 categories are known by name and kept; new ones begin at random: ring"]
    assert tuple(net.config.id2label.values()) == ("Bar", "ring", "square")
    turned = fit_categories(net, ("square", "ring", "Bar"), 0, [(net, "class_predictor")])
    assert turned == ["class head: 3 of 3 categories are known by name and kept; their order is another one"]
    assert torch.equal(net.class_predictor.weight[0], before.weight[NAMES.index("square")])


# -- scores


def detections(clip: TrainingClip, t: int, scores: list[float], labels: list[int]) -> Detections:
    return Detections(clip.masks[:, t], torch.tensor(scores), torch.tensor(labels))


def test_perfect_detections_score_a_hundred() -> None:
    clips = [Boxes().clip(seed_item_generator(1, n), 2) for n in range(3)]
    found = [[detections(c, t, [0.9] * len(c.labels), c.labels.tolist()) for t in range(2)] for c in clips]
    scores = compute_image_scores(clips, found, NAMES)
    assert scores == dict.fromkeys(("AP", "AP50", "found", "AP/square", "AP/bar"), pytest.approx(100))


def test_wrong_names_are_found_and_not_right() -> None:
    clip = Boxes().clip(seed_item_generator(1, 1), 1)
    assert clip.labels.tolist() == [0, 1]
    scores = compute_image_scores([clip], [[detections(clip, 0, [0.9, 0.8], [1, 0])]], NAMES)
    assert scores["found"] == pytest.approx(100) and scores["AP"] == scores["AP50"] == 0


def test_half_of_the_categories_is_half_the_score(capsys: pytest.CaptureFixture[str]) -> None:
    clip = Boxes().clip(seed_item_generator(1, 1), 1)
    right = detections(clip, 0, [0.9, 0.8], [0, 1])
    scores = compute_image_scores([clip], [[right[[0]]]], (*NAMES, "never"))
    assert scores["AP"] == pytest.approx(50) and scores["AP/square"] == pytest.approx(100) and scores["AP/bar"] == 0
    assert "AP/never" not in scores and capsys.readouterr().out == ""


def test_held_out_clips_are_always_the_same() -> None:
    first, second = draw_held_out_clips(Boxes(), 3, 2), draw_held_out_clips(Boxes(), 3, 2)
    assert all(torch.equal(a.images, b.images) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0].masks, first[1].masks)
