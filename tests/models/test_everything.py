"""SAM 2 as an image model, with a small network of random weights, and the automatic masks made of it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.masks import resize_bilinear
from masklet.core.protocols import Segmenter
from masklet.models.boxes import Boxes, box_iou, box_nms, compute_box_areas, convert_to_corners
from masklet.models.sam2.edgetam import EdgeTam, build_edgetam
from masklet.models.sam2.propagator import Sam2
from masklet.models.segmenters.prompted import (
    HIGH,
    INSIDE,
    LOW,
    EverythingSegmenter,
    PromptedMasker,
    compute_stability_score,
    iterate_good_answers,
    make_point_grid,
    remove_small_regions,
)
from masklet.parts import load_masker

SIDE = 256  # of the network's input


@cache
def small_sam2() -> Any:
    """SAM 2 with few channels, at 256 pixels."""
    from transformers import Sam2HieraDetConfig, Sam2VideoConfig, Sam2VideoModel, Sam2VisionConfig
    from transformers.models.sam2_video.configuration_sam2_video import Sam2VideoPromptEncoderConfig

    hiera = Sam2HieraDetConfig(
        hidden_size=8,
        num_attention_heads=1,
        image_size=[SIDE, SIDE],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 2],
        global_attention_blocks=[3],
    )
    vision = Sam2VisionConfig(
        backbone_config=hiera,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[64, 64], [32, 32], [16, 16]],
    )
    torch.manual_seed(0)
    net = Sam2VideoModel(
        Sam2VideoConfig(
            vision_config=vision,
            prompt_encoder_config=Sam2VideoPromptEncoderConfig(image_size=SIDE),
            image_size=SIDE,
            memory_attention_num_layers=1,
            memory_attention_feed_forward_hidden_size=32,
            memory_attention_rope_feat_sizes=[16, 16],
        )
    )
    for name, value in net.named_parameters():  # transformers begins with small ones, whose masks would be flat
        torch.nn.init.normal_(value, std=0.08) if value.ndim > 1 else None
    return net.eval().requires_grad_(False)


@cache
def saved_sam2(folder: Path) -> Path:
    """The same as transformers saves it."""
    small_sam2().save_pretrained(folder)
    return folder


@cache
def masker(at_once: int | None = None) -> PromptedMasker:
    return PromptedMasker(Sam2(small_sam2()), at_once)


@cache
def picture(h: int, w: int) -> Frame:
    """Discs on a ramp."""
    y, x = np.mgrid[:h, :w]
    image = np.stack([255 * x / w, 255 * y / h, 90 + 0 * x], axis=2)
    for cx, cy, colour in ((0.3, 0.3, 250), (0.7, 0.6, 10)):
        image[np.hypot(x - cx * w, y - cy * h) < 0.18 * min(h, w)] = colour
    return Frame(0, image.astype(np.uint8), 0.0)


@cache
def image_model() -> Any:
    """transformers' image model of the same weights: the reference."""
    from transformers import Sam2Config, Sam2Model
    from transformers.models.sam2.configuration_sam2 import Sam2PromptEncoderConfig

    net, own = small_sam2(), small_sam2().config
    model = Sam2Model(
        Sam2Config(vision_config=own.vision_config, prompt_encoder_config=Sam2PromptEncoderConfig(image_size=SIDE))
    )
    lacks = model.load_state_dict(net.state_dict(), strict=False).missing_keys
    assert not lacks
    return model.eval()


# -- the masker


@pytest.mark.parametrize("size", [(97, 160), (160, 97), (256, 256), (33, 200)])
def test_answers_are_those_of_transformers_image_model(size: tuple[int, int]) -> None:
    frame, own = picture(*size), masker()
    features, pixels = own.look(frame), own.sam2.pixels(frame)
    boxes = torch.tensor([[3.0, 4, 90, 30], [0, 0, size[1], size[0]], [10.5, 1.25, 40, 33]])
    points = torch.tensor([[5.0, 6], [size[1] - 1, size[0] - 1]])
    scale = torch.tensor([SIDE / size[1], SIDE / size[0]])
    for given_, marks, how in (
        (boxes.view(-1, 2, 2), (LOW, HIGH), {"input_boxes": (boxes.view(-1, 2, 2) * scale).view(1, -1, 4)}),
        (points[:, None], (INSIDE,), {"input_points": (points * scale)[None, :, None]}),
    ):
        with torch.no_grad():
            out = image_model()(pixel_values=pixels, multimask_output=True, **how)
        logits, quality = (torch.cat(x) for x in zip(*own.answers(features, given_, marks), strict=True))
        torch.testing.assert_close(logits, out.pred_masks[0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(quality, out.iou_scores[0], atol=1e-5, rtol=1e-5)
        assert logits.shape[1:] == (3, 64, 64) and logits.std() > 0.01


def test_one_batch_is_one_by_one() -> None:
    frame, boxes = picture(97, 160), torch.rand(7, 4).sort(1).values[:, [0, 2, 1, 3]] * 90
    features = masker().look(frame)
    ways = [
        [torch.cat(x) for x in zip(*masker(n).answers(features, boxes.view(-1, 2, 2), (LOW, HIGH)), strict=True)]
        for n in (1, 3, 64)
    ]
    for other in ways[1:]:
        torch.testing.assert_close(other[0], ways[0][0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(other[1], ways[0][1], atol=1e-5, rtol=1e-5)
    assert [len(q) for _, q in masker(3).answers(features, boxes.view(-1, 2, 2), (LOW, HIGH))] == [3, 3, 1]


def test_a_boxs_mask_is_its_best_answer_at_the_frames_size() -> None:
    frame, boxes = picture(97, 160), torch.tensor([[3.0, 4, 90, 30], [20, 20, 120, 90]])
    own = masker()
    features = own.look(frame)
    masks = own.boxed(features, boxes)
    assert masks.shape == (2, 97, 160) and masks.dtype == torch.bool
    for row, box in enumerate(boxes):
        [(logits, quality)] = own.answers(features, box.view(1, 2, 2), (LOW, HIGH))
        best = logits[0, quality[0].argmax()]
        assert (masks[row] == (resize_bilinear(best[None], frame.size)[0] > 0)).float().mean() > 0.999
    assert own.boxed(features, torch.zeros(0, 4)).shape == (0, 97, 160)


def test_absent_objects_have_masks_too() -> None:
    """The video model empties what it holds absent; who asks for a box's mask knows better."""
    own = masker()
    features = own.look(picture(97, 160))
    with torch.no_grad():
        before = own.boxed(features, torch.tensor([[3.0, 4, 90, 60]]))
        bias = small_sam2().mask_decoder.pred_obj_score_head.proj_out.bias
        kept = bias.clone()
        bias -= 1000
    try:
        assert torch.equal(own.boxed(features, torch.tensor([[3.0, 4, 90, 60]])), before) and before.any()
    finally:
        bias.copy_(kept)


def test_a_masker_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLET_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = saved_sam2(tmp_path / "small")
    own = load_masker(str(folder), "cpu")
    assert list(own.weights) == ["small/model.safetensors"] and own.description == "sam2, 256 px"
    boxes = torch.tensor([[3.0, 4, 90, 60]])
    frame = picture(97, 160)
    assert torch.equal(own.boxed(own.look(frame), boxes), masker().boxed(masker().look(frame), boxes))
    with pytest.raises(InputError, match=r"run `masklet weights fetch sam2\.1-tiny`"):
        load_masker("", "cpu")


def test_edgetam_is_a_masker_too(tmp_path: Path) -> None:
    from transformers import EdgeTamVideoConfig, EdgeTamVisionConfig

    config = EdgeTamVideoConfig(
        vision_config=EdgeTamVisionConfig(),
        enable_temporal_pos_encoding_for_object_pointers=False,
        enable_occlusion_spatial_embedding=False,
    )
    torch.manual_seed(0)
    own = PromptedMasker(EdgeTam(build_edgetam(config).eval().requires_grad_(False)))
    masks = own.boxed(own.look(picture(40, 61)), torch.tensor([[3.0, 4, 30, 20]]))
    assert masks.shape == (1, 40, 61) and own.description == "edgetam, 1024 px"


# -- boxes


def whole_boxes(most: int) -> some.SearchStrategy[Tensor]:
    sides = some.tuples(*[some.integers(0, 12)] * 4)
    rows = some.lists(sides.map(lambda s: [min(s[0], s[2]), min(s[1], s[3]), max(s[0], s[2]), max(s[1], s[3])]), max_size=most)  # fmt: skip
    return rows.map(lambda r: torch.tensor(r, dtype=torch.float32).view(-1, 4))


def filled(box: Tensor) -> set[tuple[int, int]]:
    x0, y0, x1, y1 = (int(v) for v in box)
    return {(x, y) for x in range(x0, x1) for y in range(y0, y1)}


@given(whole_boxes(5), whole_boxes(5))
def test_box_iou_counts_pixels(a: Tensor, b: Tensor) -> None:
    got = box_iou(a, b)
    assert got.shape == (len(a), len(b))
    for i, j in np.ndindex(*got.shape):
        p, q = filled(a[i]), filled(b[j])
        assert got[i, j] == pytest.approx(len(p & q) / len(p | q) if p | q else 0)
    assert [int(v) for v in compute_box_areas(a)] == [len(filled(x)) for x in a]


def slow_nms(boxes: Tensor, scores: Tensor, iou: float) -> list[int]:
    """Word by word: the best that is left stays and sends those away that it overlaps."""
    left, kept = list(range(len(boxes))), []
    while left:
        best = max(left, key=lambda r: (float(scores[r]), -r))
        kept.append(best)
        left = [r for r in left if r != best and float(box_iou(boxes[[best]], boxes[[r]])) <= iou]
    return sorted(kept)


@given(whole_boxes(12), some.lists(some.integers(0, 5), min_size=12, max_size=12), some.sampled_from([0.0, 0.3, 0.7, 1.0]))  # fmt: skip
def test_box_nms_is_the_slow_one(boxes: Tensor, scores: list[int], iou: float) -> None:
    at = torch.tensor(scores[: len(boxes)], dtype=torch.float32)
    assert box_nms(boxes, at, iou).tolist() == slow_nms(boxes, at, iou)


def test_a_chain_of_boxes() -> None:
    """The second goes for the first; the third overlaps only the second, and stays."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]])
    assert box_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.4).tolist() == [0, 2]
    assert box_nms(boxes, torch.tensor([0.9, 0.99, 0.7]), 0.4).tolist() == [1]
    assert box_nms(boxes[:2], torch.tensor([0.9, 0.8]), float(box_iou(boxes, boxes)[0, 1])).tolist() == [0, 1]


def test_boxes_are_cut_at_the_border() -> None:
    found = Boxes(
        convert_to_corners(torch.tensor([[5.0, 5, 20, 4], [5, 5, 2, 2], [15, 5, 10, 10], [-3, -3, 2, 2]])),
        torch.tensor([0.1, 0.2, 0.3, 0.4]),
        torch.tensor([3, 2, 1, 0]),
    )
    cut = found.within((6, 10))
    assert cut.corners.tolist() == [[0, 3, 10, 6], [4, 4, 6, 6]] and cut.labels.tolist() == [3, 2]
    assert cut.scores.tolist() == pytest.approx([0.1, 0.2]) and len(cut) == 2


# -- everything


class KnownMasker(PromptedMasker):
    """Gives known answers to each point, and notes how they were asked for."""

    def __init__(self, answers: Any, at_once: int = 3) -> None:
        self.of, self.at_once, self.sizes = answers, at_once, list[int]()
        self.weights, self.description = {}, "known"

    def look(self, frame: Frame) -> Any:
        return SimpleNamespace(size=frame.size)

    def answers(self, features: Any, points: Tensor, marks: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
        assert marks == (INSIDE,)
        for group in torch.split(points, self.at_once):
            self.sizes.append(len(group))
            logits, quality = zip(*(self.of(*p[0].tolist()) for p in group), strict=True)
            yield torch.stack(logits), torch.stack(quality)

    def pointed(self, features: Any, points: Tensor, least: float) -> Iterator[tuple[Tensor, float]]:
        return iterate_good_answers(self.answers(features, points[:, None], (INSIDE,)), least)


def everything(answers: Any, side: int, **settings: Any) -> EverythingSegmenter:
    return EverythingSegmenter(KnownMasker(answers), side, **settings)


def rectangle(x0: int, y0: int, x1: int, y1: int, inside: float = 9.0, outside: float = -9.0) -> Tensor:
    """Logits of an 8 x 8 frame."""
    logits = torch.full((8, 8), outside)
    logits[y0:y1, x0:x1] = inside
    return logits


FRAME = Frame(0, np.zeros((8, 8, 3), np.uint8), 0.0)
NOTHING = rectangle(0, 0, 0, 0)


def test_points_lie_in_the_middle_of_cells() -> None:
    assert make_point_grid(2, (8, 20)).tolist() == [[5, 2], [15, 2], [5, 6], [15, 6]]
    assert make_point_grid(1, (3, 5)).tolist() == [[2.5, 1.5]]
    assert make_point_grid(32, (480, 854)).shape == (1024, 2)


def test_good_and_stable_masks_stay_and_twins_go() -> None:
    def answers(x: float, y: float) -> tuple[Tensor, Tensor]:
        shaky = rectangle(4, 4, 8, 8)
        shaky[4, 4] = -0.5  # 15 of 16 pixels are sure: below 0.95
        sure = rectangle(0, 0, 4, 8)
        sure[0, 0] = -0.5  # 31 of 32
        return torch.stack([sure, shaky, rectangle(5, 5, 7, 7)]), torch.tensor([0.9 + x / 100, 0.99, 0.88])

    segmenter = everything(answers, 2)
    [found], memory = segmenter.segment(None, [FRAME], [])
    assert memory is None and segmenter.empty() is None and isinstance(segmenter, Segmenter)
    assert found.scores.tolist() == pytest.approx([0.96]) and found.labels.tolist() == [0]
    assert torch.equal(found.masks[0], answers(6, 0)[0][0] > 0)
    assert segmenter.masker.sizes == [3, 1] and segmenter.categories == ("object",)  # type: ignore[attr-defined]
    [more], _ = everything(answers, 2, quality=0.8, stability=0.9).segment(None, [FRAME], [])
    assert len(more) == 3 and more.masks.flatten(1).sum(1).tolist() == [15, 4, 31]


def test_whole_and_part_overlap() -> None:
    def answers(x: float, y: float) -> tuple[Tensor, Tensor]:
        parts = [rectangle(0, 0, 8, 8), rectangle(0, 0, 4, 8), NOTHING]
        return torch.stack(parts), torch.tensor([0.9, 0.95, 0.9])

    [found], _ = everything(answers, 1).segment(None, [FRAME], [])
    assert found.masks.flatten(1).sum(1).tolist() == [64, 32] and found.scores.tolist() == pytest.approx([0.9, 0.95])


def test_no_mask_at_all() -> None:
    found = everything(lambda x, y: (torch.stack([NOTHING] * 3), torch.ones(3)), 2).segment(None, [FRAME] * 2, [])[0]
    assert [len(f) for f in found] == [0, 0] and found[0].masks.shape == (0, 8, 8)
    assert found[0].labels.dtype == torch.int64


def test_stability_by_hand() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.5, -0.5, -1.0, -2.0]])
    assert compute_stability_score(logits, 1.0) == pytest.approx(1 / 4)  # above 1: one; above -1: four
    assert compute_stability_score(logits, 0.0) == 1 and compute_stability_score(logits - 9, 1.0) == 0


def test_small_holes_and_islands() -> None:
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[1:7, 1:6] = True
    mask[3, 3] = False  # a hole of one pixel
    mask[0, 7] = True  # an island of one
    got = remove_small_regions(mask, 2)
    assert got.sum() == 30 and got[3, 3] and not got[0, 7]
    assert torch.equal(remove_small_regions(mask, 1), mask)
    specks = torch.zeros(8, 8, dtype=torch.bool)
    specks[0, 0] = specks[4, 4] = specks[5, 5] = True  # two pixels that touch at a corner are one island
    assert remove_small_regions(specks, 6).nonzero().tolist() == [[4, 4], [5, 5]]
    assert remove_small_regions(torch.ones(3, 3, dtype=torch.bool), 99).all()


def test_masks_are_tidied_before_twins_are_told() -> None:
    """An island far away makes the boxes of two twins different."""

    def answers(x: float, y: float) -> tuple[Tensor, Tensor]:
        far = rectangle(0, 0, 4, 4)
        far[7, 7] = 9
        return torch.stack([rectangle(0, 0, 4, 4), far, NOTHING]), torch.tensor([0.9, 0.95, 0.5])

    plain = everything(answers, 1, stability=0.9).segment(None, [FRAME], [])[0][0]
    tidy = everything(answers, 1, stability=0.9, smallest=3).segment(None, [FRAME], [])[0][0]
    assert plain.masks.flatten(1).sum(1).tolist() == [16, 17] and tidy.masks.flatten(1).sum(1).tolist() == [16]
    assert tidy.scores.tolist() == pytest.approx([0.95])


def automatic_by_hand(frame: Frame, side: int, quality: float, stability: float, nms: float) -> list[Tensor]:
    """SAM's automatic masks, point by point and all at the frame's size."""
    own, (h, w) = masker(), frame.size
    features, found = own.look(frame), []
    for j in range(side):
        for i in range(side):
            point = torch.tensor([[[w * (2 * i + 1) / (2 * side), h * (2 * j + 1) / (2 * side)]]])
            [(logits, guess)] = own.answers(features, point, (INSIDE,))
            full = torch.nn.functional.interpolate(logits, (h, w), mode="bilinear", align_corners=False)[0]
            for k in range(3):
                high, low = (full[k] > 1).sum(), (full[k] > -1).sum()
                if guess[0, k] > quality and low > 0 and high / low >= stability:
                    y, x = (full[k] > 0).nonzero().T
                    box = [float(v) for v in (x.min(), y.min(), x.max() + 1, y.max() + 1)]
                    found.append((full[k] > 0, float(guess[0, k]), box))
    kept = slow_nms(torch.tensor([b for *_, b in found]).view(-1, 4), torch.tensor([q for _, q, _ in found]), nms)
    return [found[r][0] for r in kept]


@pytest.mark.parametrize(("size", "nms", "least"), [((40, 61), 1.0, 30), ((64, 48), 0.6, 1)])
def test_everything_is_that_by_hand(size: tuple[int, int], nms: float, least: int) -> None:
    frame, own = picture(*size), masker()
    features = own.look(frame)
    quality = torch.cat([q for _, q in own.answers(features, make_point_grid(5, size)[:, None], (INSIDE,))])
    at = {"quality": float(quality.quantile(0.3)), "stability": 0.05, "nms": nms}
    expected = automatic_by_hand(frame, 5, at["quality"], at["stability"], at["nms"])
    for n in (None, 1, 25):
        [found], _ = EverythingSegmenter(masker(n), 5, **at).segment(None, [frame], [])
        assert len(found) == len(expected) >= least
        for mask, other in zip(found.masks, expected, strict=True):
            assert (mask != other).float().mean() < 0.002
    every, _ = EverythingSegmenter(own, 5, **at).segment(None, [frame, picture(30, 30), frame], [])
    assert torch.equal(every[0].masks, every[2].masks) and torch.equal(every[0].scores, every[2].scores)


def test_memory_is_bounded_by_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 64 points' logits, all of which stay, those of two batches of three are alive at most."""
    alive: list[weakref.ref[Tensor]] = []

    class Watched(KnownMasker):
        def answers(self, features: Any, points: Tensor, marks: Sequence[int]) -> Iterator[tuple[Tensor, Tensor]]:
            for logits, quality in super().answers(features, points, marks):
                alive.append(weakref.ref(logits))
                assert sum(one() is not None for one in alive) <= 2
                yield logits, quality

    same = torch.stack([rectangle(0, 0, 4, 4)] * 3), torch.full((3,), 0.9)
    [found], _ = EverythingSegmenter(Watched(lambda x, y: same), 8, nms=1.0).segment(None, [FRAME], [])
    assert len(alive) == 22 and len(found) == 192


def test_outside_only_the_points_are_asked_that_nothing_covers() -> None:
    asked = []

    class Masker:
        weights, device, description = {}, torch.device("cpu"), "toy"

        def look(self, frame: Frame) -> Frame:
            return frame

        def boxed(self, features: Frame, boxes: Tensor) -> Tensor:
            raise NotImplementedError

        def pointed(self, features: Frame, points: Tensor, least: float) -> Iterator[tuple[Tensor, float]]:
            asked.append(points.tolist())
            for x, y in points.long().tolist():
                logits = torch.full(features.size, -9.0)
                logits[y - 1 : y + 2, x - 1 : x + 2] = 9
                yield logits, 0.9

    frame, known = Frame(0, np.zeros((8, 16, 3), np.uint8), 0.0), torch.zeros(8, 16, dtype=torch.bool)
    known[:, :8] = True
    segmenter = EverythingSegmenter(Masker(), 2)
    found = segmenter.segment_outside(frame, known)
    assert asked == [[[12.0, 2.0], [12.0, 6.0]]] and len(found.masks) == 2
    assert len(segmenter.segment(None, [frame], [])[0][0].masks) == 4
    assert not len(segmenter.segment_outside(frame, ~torch.zeros_like(known)).masks)
