"""Training a propagator: prompts, losses, and that what is trained learns and the rest holds still."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from small_sam2 import build_small_config
from torch import Tensor

from masklet.core.instances import Box, Point, Prediction
from masklet.models.encoder import Encoder
from masklet.models.nano import propagator as nano_propagator
from masklet.models.nano.network import NanoSettings, create_nano, read_nano
from masklet.models.nano.propagator import Nano
from masklet.models.sam2.propagator import Sam2
from masklet.train.data.clips import TrainingClip, seed_item_generator
from masklet.train.data.stills import Stills, name_as_object
from masklet.train.loop.loop import Task, TrainingPlan, train
from masklet.train.tasks.nano import GuessDrift, build_nano_task, create_moving_clips
from masklet.train.tasks.propagator import (
    PromptSampling,
    PropagatorTask,
    clear_absent_masks,
    compute_belief_losses,
    draw_inner_point,
    draw_loose_box,
    draw_prompt,
    find_visible_objects,
    focal_loss,
    make_propagator_frames,
    measure_point_iou,
    reverse_clip_time,
)

SIZE = (64, 96)
SETTINGS = NanoSettings(side=64, layers=1, width=32)
ABSENT = {"no_object_pointer", "occlusion_spatial_embedding_parameter"}


def square(y: int, x: int, side: int = 24) -> Tensor:
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[max(y, 0) : y + side, max(x, 0) : x + side] = True
    return mask


class Squares:
    """Two squares that move; the second leaves the frame."""

    categories = ("object",)

    def clip(self, random: np.random.Generator, frames: int) -> TrainingClip:
        ground = torch.from_numpy(random.integers(0, 120, (3, 8, 12), dtype=np.uint8))
        images = ground.repeat_interleave(8, 1).repeat_interleave(8, 2)[None].repeat(frames, 1, 1, 1)
        first = torch.stack([square(20, 10 + 5 * t) for t in range(frames)])
        second = torch.stack([square(4, 66 + 16 * t) for t in range(frames)])
        for t in range(frames):
            images[t][:, first[t]] = torch.tensor([[230], [40], [40]], dtype=torch.uint8)
            images[t][:, second[t]] = torch.tensor([[40], [60], [220]], dtype=torch.uint8)
        masks = torch.stack([first, second])
        return TrainingClip(images, masks, masks.flatten(2).any(2), torch.zeros(2, dtype=torch.int64))


def task(**asking: Any) -> PropagatorTask:
    net = create_nano(SETTINGS, seed=2)
    return build_nano_task(
        net,
        SETTINGS,
        Squares(),
        [Squares().clip(seed_item_generator(9, 0), 3)],
        PromptSampling(**{"frames": 3, **asking}),
    )


# -- prompts


def test_boxes_hold_what_they_ask_for_and_are_off_by_some() -> None:
    boxes = [draw_loose_box(square(20, 30), seed_item_generator(1, n)) for n in range(50)]
    corners = np.array([[b.x0, b.y0, b.x1, b.y1] for b in boxes])
    assert np.abs(corners - [30, 20, 54, 44]).max() <= 0.2 * 24
    assert corners.std(0).min() > 1


def test_boxes_stay_in_the_frame_and_hold_something() -> None:
    edge = torch.zeros(SIZE, dtype=torch.bool)
    edge[0, -1] = True
    for n in range(20):
        box = draw_loose_box(edge, seed_item_generator(2, n))
        assert 0 <= box.x0 < box.x1 <= SIZE[1] and 0 <= box.y0 < box.y1 <= SIZE[0]


def test_clicks_are_well_inside() -> None:
    for n in range(50):
        point = draw_inner_point(square(20, 30), seed_item_generator(3, n))
        assert 34 < point.x < 50 and 24 < point.y < 40 and point.inside


def test_prompts_come_as_often_as_asked() -> None:
    kinds = [
        type(draw_prompt(square(20, 30), seed_item_generator(4, n), PromptSampling(boxes=0.5, clicks=0.25)))
        for n in range(400)
    ]
    shares = [kinds.count(kind) / 400 for kind in (Box, Point, Tensor)]
    assert shares == pytest.approx([0.5, 0.25, 0.25], abs=0.08)


def test_only_objects_that_show_are_asked_for() -> None:
    clip = Squares().clip(seed_item_generator(5, 0), 4)
    assert find_visible_objects(clip, 0.01) == [0, 1]
    assert find_visible_objects(reverse_clip_time(clip), 0.01) == [0]


def test_backward_is_the_other_way() -> None:
    clip = Squares().clip(seed_item_generator(6, 0), 3)
    turned = reverse_clip_time(clip)
    assert torch.equal(turned.images[0], clip.images[2]) and torch.equal(turned.masks[:, 0], clip.masks[:, 2])
    assert torch.equal(turned.present[:, 0], clip.present[:, 2])


# -- losses


def belief(logits: Tensor, quality: list[list[float]], presence: float = 8.0) -> Prediction:
    return Prediction((1,), logits, torch.tensor(quality), torch.full((1, logits.shape[1]), presence))


def shown(mask: Tensor, sure: float = 12.0) -> Tensor:
    return torch.where(mask, sure, -sure)[None]


def test_focal_loss_by_hand() -> None:
    logits, inside = torch.tensor([[[0.0, 2.0]]]), torch.tensor([[[1.0, 0.0]]])
    p = 1 / (1 + np.exp(-2.0))
    expected = (0.25 * 0.5**2 * np.log(2) + 0.75 * p**2 * -np.log(1 - p)) / 2
    assert float(focal_loss(logits, inside)) == pytest.approx(expected, rel=1e-5)


def test_a_right_answer_costs_nothing() -> None:
    mask = square(20, 30)
    losses = compute_belief_losses(belief(shown(mask)[None], [[1.0]]), mask[None], PromptSampling())
    assert all(float(v) < 1e-3 for v in losses.values())


def test_only_the_best_hypothesis_is_told_of_its_mask_and_all_of_their_quality() -> None:
    right, wrong = square(20, 30), square(20, 60)
    logits = torch.stack([shown(wrong, 3.0)[0], shown(right, 3.0)[0], shown(wrong, 3.0)[0]])[None].requires_grad_()
    quality = torch.tensor([[0.5, 0.5, 0.5]], requires_grad=True)
    said = Prediction((1,), logits, quality, torch.ones(1, 3))
    losses = compute_belief_losses(said, right[None], PromptSampling())
    torch.stack([*losses.values()]).sum().backward()
    assert logits.grad is not None and quality.grad is not None
    assert [bool(g.any()) for g in logits.grad[0]] == [False, True, False]
    assert [float(g) for g in quality.grad[0].sign()] == [1, -1, 1]
    assert float(losses["quality"].detach()) == pytest.approx(0.5)


def test_a_hidden_object_costs_its_score_alone() -> None:
    hidden = torch.zeros(1, *SIZE, dtype=torch.bool)
    losses = compute_belief_losses(belief(shown(square(20, 30))[None], [[0.9]], presence=2.0), hidden, PromptSampling())
    assert float(losses["focal"]) == float(losses["dice"]) == float(losses["quality"]) == 0
    assert float(losses["presence"]) == pytest.approx(np.log(1 + np.exp(2.0)), rel=1e-5)


def test_overlap_is_mask_iou() -> None:
    a, b = shown(square(20, 30)).flatten(1)[None], square(20, 42).float().flatten()[None, None]
    assert float(measure_point_iou(a, b)) == pytest.approx(1 / 3)


def test_a_seen_object_that_is_judged_absent_learns_its_mask_and_that_its_answer_is_worth_nothing() -> None:
    mask = square(20, 30)
    logits, quality = shown(mask, 3.0)[None].requires_grad_(), torch.tensor([[0.4]])
    losses = compute_belief_losses(
        replace(belief(logits, [[0.4]], -2.0), quality=quality), mask[None], PromptSampling()
    )
    assert float(losses["quality"]) == pytest.approx(0.4)
    (losses["focal"] + losses["dice"]).backward()
    assert float(losses["focal"].detach()) < 1 and logits.grad is not None and bool(logits.grad.any())


def test_in_training_masks_are_told_whatever_the_object_score_and_remembered_as_they_are_used() -> None:
    net = create_nano(SETTINGS, seed=2)
    torch.nn.init.constant_(net.mask_decoder.pred_obj_score_head.proj_out.bias, -30.0)
    frames, said = make_propagator_frames(Squares().clip(seed_item_generator(1, 0), 2)), []
    for gradients in (True, False):
        propagator = Nano(net, Encoder(SIZE[0]), gradients=gradients)
        first, second = propagator.encode(frames)
        memory, _ = propagator.prompt(propagator.empty(), first, {1: square(20, 10)})
        said.append(propagator.predict(memory, second))
    told, used = said
    assert bool((told.presence < 0).all()) and bool((told.logits > 0).any()) and not bool((used.logits > 0).any())
    assert torch.equal(clear_absent_masks(told).logits > 0, used.logits > 0)


# -- the task


def test_is_a_task_whose_losses_reach_everything_that_is_trained() -> None:
    made = task(boxes=0.4, clicks=0.3, others=0.5)
    assert isinstance(made, Task)
    for n in range(6):  # boxes, clicks, masks; one object and two
        losses = made.loss(n, seed_item_generator(0, n))
        assert losses.keys() == {"focal", "dice", "quality", "presence"}
        torch.stack([*losses.values()]).sum().backward()
    untouched = {n for n, p in made.module.named_parameters() if p.grad is None or not p.grad.any()}
    never = {"no_memory_positional_encoding", "prompt_encoder.no_mask_embed.weight"}  # there is always a guess
    # Clicks and boxes are the image predictor's to answer, so that SAM 2's own answer to them has nothing to learn.
    never |= {"no_memory_embedding", "prompt_encoder.point_embed.weight"}
    clicked = "mask_decoder.output_hypernetworks_mlps.0."
    assert {name for name in untouched - never if not name.startswith(clicked)} <= ABSENT


def test_what_stands_for_absent_objects_is_trained_where_they_are_believed_absent() -> None:
    made = task(boxes=0, clicks=0)
    torch.nn.init.constant_(made.module.mask_decoder.pred_obj_score_head.proj_out.bias, -30.0)
    torch.stack([*made.loss(0, seed_item_generator(0, 0)).values()]).sum().backward()
    reached = {n for n, p in made.module.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached >= ABSENT


def test_training_is_repeatable_and_lowers_the_loss(tmp_path: Path) -> None:
    class Same(Squares):
        def clip(self, random: np.random.Generator, frames: int) -> TrainingClip:
            return super().clip(seed_item_generator(7, 0), frames)

    net = create_nano(SETTINGS, seed=2)
    made = build_nano_task(net, SETTINGS, Same(), [], PromptSampling(frames=3, objects=1, boxes=0, clicks=0))
    before = [sum(float(v.detach()) for v in made.loss(n, seed_item_generator(8, n)).values()) for n in range(3)]
    again = [sum(float(v.detach()) for v in made.loss(n, seed_item_generator(8, n)).values()) for n in range(3)]
    assert before == again
    train(made, tmp_path, TrainingPlan(12, lr=1e-3, warm_up=2), {})
    after = [sum(float(v.detach()) for v in made.loss(n, seed_item_generator(8, n)).values()) for n in range(3)]
    assert sum(after) < 0.8 * sum(before)
    saved, _ = read_nano(tmp_path / "weights.safetensors")
    assert torch.equal(saved.hints.gain, net.hints.gain.half().float())


def test_frozen_parts_hold_still(tmp_path: Path) -> None:
    made = task()
    made.module.memory_attention.requires_grad_(False)
    before = {n: p.clone() for n, p in made.module.named_parameters()}
    train(made, tmp_path, TrainingPlan(2, lr=1e-3), {})
    moved = {n for n, p in made.module.named_parameters() if not torch.equal(p, before[n])}
    assert moved and not any(n.startswith("memory_attention") for n in moved)


def test_training_and_use_give_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for masks' being drawn anew by another network, which is not trained."""
    monkeypatch.setattr(nano_propagator, "refine_best_masks", lambda belief, seen, predictor, ids: belief)
    net = create_nano(SETTINGS, seed=3).eval()
    frames = make_propagator_frames(Squares().clip(seed_item_generator(1, 0), 3))
    said = []
    for gradients in (True, False):
        propagator = Nano(net, Encoder(SIZE[0]), gradients=gradients)
        first, second, third = propagator.encode(frames)
        memory, _ = propagator.prompt(propagator.empty(), first, {1: square(20, 10)})
        memory = propagator.commit(memory, second, propagator.predict(memory, second))
        said.append(propagator.predict(memory, third).logits)
    assert said[0].requires_grad and not said[1].requires_grad
    assert torch.allclose(said[0], said[1], atol=1e-3)


def test_validation_measures_held_out_objects() -> None:
    scores = task().validate()
    assert scores["iou"] > 0.7 and 0 <= scores["quality error"] <= 1
    assert PropagatorTask(create_nano(SETTINGS), never, Squares(), [], lambda path: None).validate() == {}


def never(short: int) -> Sam2:
    raise AssertionError


def test_drift_misleads_the_guess_and_leaves_the_memory() -> None:
    clip = Squares().clip(seed_item_generator(1, 0), 3)
    propagator = Nano(create_nano(SETTINGS, seed=2).eval(), Encoder(SIZE[0]))
    first, second, third = propagator.encode(make_propagator_frames(clip))
    memory, _ = propagator.prompt(propagator.empty(), first, {1: clip.masks[0, 0]})
    belief = propagator.predict(memory, second)
    memory = propagator.commit(memory, second, belief)
    misled = GuessDrift(often=1.0)(propagator, memory, second, belief, clip, seed_item_generator(0, 0))
    assert misled.banks == memory.banks
    a, b = (propagator._guesses(m, third)[1] for m in (memory, misled))
    assert not torch.equal(a, b)
    assert GuessDrift(often=0.0)(propagator, memory, second, belief, clip, seed_item_generator(0, 0)) is memory


def test_clips_of_stills_are_wide_square_and_tall(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    Image.fromarray(seed_item_generator(1, 0).integers(0, 255, (80, 100, 3), dtype=np.uint8)).save(
        tmp_path / "images" / "a.png"
    )
    mask = {"image_id": 1, "category_id": 1, "segmentation": [[20, 20, 70, 20, 70, 60, 20, 60]]}
    told = {
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 80}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, **mask}],
    }
    (tmp_path / "annotations.json").write_text(json.dumps(told))
    source = create_moving_clips([Stills(tmp_path, name_as_object)], [1.0], short=64)
    sizes = [tuple(source.clip(seed_item_generator(1, n), 2).images.shape[2:]) for n in range(40)]
    assert set(sizes) == {(64, 112), (64, 64), (112, 64)}
    assert sizes.count((64, 112)) > 20


@pytest.mark.parametrize("added", [0.0, 1.0])
def test_mistakes_add_or_take_away(added: float) -> None:
    clip, mask = Squares().clip(seed_item_generator(1, 0), 3), square(20, 10)
    drift = GuessDrift(added=added)
    made = [drift._mistaken(mask, clip, seed_item_generator(2, n)) for n in range(20)]
    assert all(bool((m | mask if added else m & mask).eq(m).all()) for m in made)
    assert any(not torch.equal(m, mask) for m in made)


def test_sam2_itself_is_trained_the_same_way_its_image_encoder_frozen() -> None:
    from transformers import Sam2VideoModel

    torch.manual_seed(4)
    net: Any = Sam2VideoModel(build_small_config(SETTINGS))
    net.vision_encoder.requires_grad_(False)
    torch.nn.init.constant_(net.mask_decoder.pred_obj_score_head.proj_out.bias, 1.0)
    sam2 = Sam2(net, gradients=True)
    made = PropagatorTask(net, lambda short: sam2, Squares(), [], lambda path: None, asking=PromptSampling(frames=3))
    losses = made.loss(0, seed_item_generator(0, 0))
    torch.stack([*losses.values()]).sum().backward()
    reached = {n.partition(".")[0] for n, p in net.named_parameters() if p.grad is not None and p.grad.any()}
    assert reached >= {"memory_attention", "memory_encoder", "mask_decoder", "object_pointer_proj"}
    assert "vision_encoder" not in reached
