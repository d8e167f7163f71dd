"""The motion segmenter on clips whose truth is known by construction."""

from __future__ import annotations

import pickle
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from masklet.cli import app
from masklet.core.features import count_tensor_bytes
from masklet.core.frames import Frame
from masklet.core.instances import Detections
from masklet.core.masks import mask_iou
from masklet.core.protocols import Segmenter
from masklet.models.encoder import Encoder
from masklet.models.segmenters.motion import (
    CONTRAST,
    FADING,
    MOST,
    SLOW,
    Motion,
    MotionEvidence,
    MotionMemory,
    MotionView,
    collect_detections,
    compute_otsu_threshold,
    estimate_moving_share,
    find_second_motion,
    init_appearance,
    make_regression_inputs,
    measure_texture,
    predict_moving,
    scale_window,
    score_motion_mask,
    select_heaviest_regions,
    select_largest_component,
    select_slowest_flow,
    split_regions,
    update_appearance,
)

SIZE = (120, 160)


@pytest.fixture(scope="module")
def motion() -> Motion:
    return Motion(Encoder())


def texture(seed: int, size: tuple[int, int], tint: tuple[int, int, int]) -> np.ndarray:
    """Blobs of a few pixels in shades of one colour."""
    noise = np.random.default_rng(seed).normal(0, 1, (*size, 3)).astype(np.float32)
    blobs = cv2.GaussianBlur(noise, (0, 0), 2)
    return (np.array(tint) + 45 * blobs / blobs.std()).clip(0, 255).astype(np.uint8)


GROUND = texture(0, (200, 300), (90, 120, 80))
THINGS = [texture(1, (40, 40), (200, 70, 60)), texture(2, (36, 36), (60, 90, 210))]


def clip(paths: list[list[tuple[int, int]]], pan: int = 1) -> tuple[list[Frame], list[torch.Tensor]]:
    """Things along paths of their top left corners, over a ground that moves by `pan` pixels a frame."""
    frames, truths = [], []
    for t in range(len(paths[0])):
        image = GROUND[20 : 20 + SIZE[0], 40 + pan * t : 40 + pan * t + SIZE[1]].copy()
        truth = torch.zeros(len(paths), *SIZE, dtype=torch.bool)
        for k, path in enumerate(paths):
            (y, x), thing = path[t], THINGS[k]
            image[y : y + thing.shape[0], x : x + thing.shape[1]] = thing
            truth[k, y : y + thing.shape[0], x : x + thing.shape[1]] = True
        frames.append(Frame(t, image))
        truths.append(truth)
    return frames, truths


def one_mover(n: int = 8) -> tuple[list[Frame], list[torch.Tensor]]:
    return clip([[(40, 30 + 4 * t) for t in range(n)]])


def run(motion: Motion, frames: list[Frame], cuts: tuple[int, ...] = ()) -> tuple[list[Detections], MotionMemory]:
    """The whole clip, in calls cut at the given places."""
    found, memory = [], motion.empty()
    ends = [*cuts, len(frames)]
    for start, end in zip([0, *cuts], ends, strict=True):
        some, memory = motion.segment(memory, frames[start:end], frames[end : end + motion.look_ahead])
        found += some
    return found, memory


def same(a: list[Detections], b: list[Detections]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x.masks, y.masks) and torch.equal(x.scores, y.scores) for x, y in zip(a, b, strict=True)
    )


def sure(motion: Motion, found: Detections) -> Detections:
    return found[found.scores > motion.conf]


def test_it_is_a_segmenter(motion: Motion) -> None:
    assert isinstance(motion, Segmenter)
    assert motion.categories == ("object",)


def test_a_mover_is_found_tightly_and_surely_against_a_moving_background(motion: Motion) -> None:
    frames, truths = one_mover()
    found, _ = run(motion, frames)
    for detections, truth in list(zip(found, truths, strict=True))[2:]:
        best = sure(motion, detections)
        assert len(best) == 1
        assert mask_iou(best.masks, truth)[0, 0] > 0.7
        assert detections.masks.shape[1:] == SIZE


def test_a_thing_that_the_camera_follows_is_found(motion: Motion) -> None:
    frames, truths = clip([[(40, 60)] * 6], pan=4)
    found, _ = run(motion, frames)
    for detections, truth in list(zip(found, truths, strict=True))[1:-1]:
        assert mask_iou(sure(motion, detections).masks, truth).max() > 0.7


def test_two_movers_are_two_detections(motion: Motion) -> None:
    frames, truths = clip([[(15, 10 + 4 * t) for t in range(7)], [(75, 110 - 4 * t) for t in range(7)]])
    found, _ = run(motion, frames)
    iou = mask_iou(found[-2].masks, truths[-2])
    assert (iou.max(0).values > 0.7).all()
    assert set(iou.argmax(0).tolist()) == {0, 1}
    assert (found[-2].scores[:2] > motion.low_conf).all()


def test_movers_that_touch_as_they_pass_are_two_detections(motion: Motion) -> None:
    frames, truths = clip([[(25, 20 + 5 * t) for t in range(8)], [(65, 90 - 5 * t) for t in range(8)]])
    found, _ = run(motion, frames)
    iou = mask_iou(found[-2].masks, truths[-2])
    assert (iou.max(0).values > 0.6).all()


def test_the_answer_does_not_depend_on_the_calls(motion: Motion) -> None:
    frames, _ = one_mover(9)
    whole, memory = run(motion, frames)
    for cuts in [tuple(range(1, 9)), (4,), (1, 2, 7)]:
        parts, after = run(motion, frames, cuts)
        assert same(whole, parts), cuts
        assert torch.equal(after.grey, memory.grey)
        assert torch.equal(after.appearance.gram, memory.appearance.gram)


def test_a_saved_memory_resumes_as_if_nothing_had_been(motion: Motion) -> None:
    frames, _ = one_mover(6)
    whole, _ = run(motion, frames)
    _, memory = motion.segment(motion.empty(), frames[:3], frames[3:4])
    rest, _ = motion.segment(pickle.loads(pickle.dumps(memory)), frames[3:], [])
    assert same(whole[3:], rest)


def test_the_memory_does_not_grow(motion: Motion) -> None:
    frames, _ = one_mover(9)
    _, early = motion.segment(motion.empty(), frames[:2], [])
    _, late = run(motion, frames)
    assert count_tensor_bytes(early) == count_tensor_bytes(late)
    assert [f.name for f in fields(late)] == ["grey", "appearance", "left", "gap"]


def test_what_moved_is_known_by_its_looks(motion: Motion) -> None:
    frames, truths = one_mover(6)
    _, memory = run(motion, frames)
    keys = motion.encoder(frames[-1]).keys
    likely = predict_moving(memory.appearance, make_regression_inputs(keys)).reshape(keys.shape[1:])
    inside = cv2.resize(truths[-1][0].numpy().astype(np.uint8), likely.shape[::-1]) > 0
    assert likely[inside].mean() > 0.5 > 0.2 > likely[~inside].mean()


def test_looking_ahead_changes_no_memory(motion: Motion) -> None:
    frames, _ = one_mover(3)
    memory = motion.empty()
    before = pickle.dumps(memory)
    motion.segment(memory, frames[:2], frames[2:])
    assert pickle.dumps(memory) == before


def stills() -> dict[str, list[np.ndarray]]:
    noise = np.random.default_rng(3)
    return {
        "the same picture": [GROUND[: SIZE[0], : SIZE[1]]] * 3,
        "black": [np.zeros((*SIZE, 3), np.uint8)] * 3,
        "noise": [noise.integers(0, 256, (*SIZE, 3), dtype=np.uint8) for _ in range(3)],
        "one frame": [GROUND[: SIZE[0], : SIZE[1]]],
        "camera noise": [
            (GROUND[: SIZE[0], : SIZE[1]] + noise.normal(0, 3, (*SIZE, 3))).clip(0, 255).astype(np.uint8)
            for _ in range(3)
        ],
        "a flash": [np.full((*SIZE, 3), v, np.uint8) for v in (40, 250, 40)],
        "a pan": [GROUND[: SIZE[0], 5 * t : SIZE[1] + 5 * t].copy() for t in range(3)],
    }


@pytest.mark.parametrize("name", list(stills()))
def test_where_nothing_moves_nothing_is_sure(motion: Motion, name: str) -> None:
    found, memory = run(motion, [Frame(t, image) for t, image in enumerate(stills()[name])])
    for detections in found:
        assert len(sure(motion, detections)) == 0
        assert detections.scores.isfinite().all()
    assert memory.appearance.gram.isfinite().all()


@pytest.mark.parametrize("size", [(48, 48), (200, 90), (24, 160), (241, 163)])
def test_pictures_of_any_shape(motion: Motion, size: tuple[int, int]) -> None:
    ground = cv2.resize(GROUND, (size[1] + 8, size[0] + 8), interpolation=cv2.INTER_AREA)
    frames = []
    for t in range(3):
        image = ground[: size[0], : size[1]].copy()
        image[4:20, 4 + 3 * t : 20 + 3 * t] = THINGS[0][:16, :16]
        frames.append(Frame(t, image))
    found, _ = run(motion, frames)
    for detections in found:
        assert detections.masks.shape[1:] == size
        assert ((detections.scores >= 0) & (detections.scores <= 1)).all()


def test_something_that_starts_after_a_long_rest_is_found(motion: Motion) -> None:
    frames, truths = clip([[(40, 30 + 4 * max(t - 12, 0)) for t in range(16)]], pan=0)
    found, _ = run(motion, frames)
    assert all(len(sure(motion, detections)) == 0 for detections in found[:12])
    best = sure(motion, found[-2])
    assert mask_iou(best.masks, truths[-2]).max() > 0.7


def test_a_cut_ends_what_was_learnt(motion: Motion) -> None:
    first, _ = one_mover(4)
    second, truths = clip([[(70, 100 - 4 * t) for t in range(4)]])
    flipped = [Frame(4 + f.index, np.ascontiguousarray(f.image[:, :, ::-1][::-1])) for f in second]
    found, memory = run(motion, first + flipped)
    alone, fresh = run(motion, flipped)
    assert torch.equal(memory.appearance.gram, fresh.appearance.gram)
    assert same(found[4:], alone)
    assert mask_iou(found[6].masks, truths[2].flip(1)).max() > 0.7


@pytest.mark.parametrize("black", [(4,), (4, 5)])
def test_frames_like_no_other_leave_what_was_learnt(motion: Motion, black: tuple[int, ...]) -> None:
    frames, truths = one_mover(9)
    noise = np.random.default_rng(3)
    bad = [Frame(f.index, noise.integers(0, 256, f.image.shape, np.uint8)) if f.index in black else f for f in frames]
    found, memory = run(motion, bad)
    assert all(len(found[t]) == 0 for t in black) and memory.gap == 0
    after = max(black) + 1
    assert mask_iou(sure(motion, found[after]).masks, truths[after]).max() > 0.7
    parts, resumed = run(motion, bad, cuts=tuple(range(1, 9)))
    assert same(found, parts) and torch.equal(resumed.appearance.gram, memory.appearance.gram)


def test_many_small_movers_are_answered(motion: Motion) -> None:
    frames = []
    for t in range(3):
        image = GROUND[: SIZE[0], : SIZE[1]].copy()
        for y in range(2, SIZE[0] - 6, 8):
            for x in range(2, SIZE[1] - 10, 8):
                image[y : y + 4, x + t : x + t + 4] = (250, 30, 30)
        frames.append(Frame(t, image))
    found, _ = run(motion, frames)
    assert all(len(detections) <= 16 for detections in found)


def test_the_best_comes_first(motion: Motion) -> None:
    frames, _ = clip([[(15, 10 + 4 * t) for t in range(4)], [(75, 110 - t) for t in range(4)]])
    for detections in run(motion, frames)[0]:
        assert detections.scores.tolist() == sorted(detections.scores.tolist(), reverse=True)


# The rules, each on an example worked by hand.


def test_otsu_lies_between_two_clusters() -> None:
    values = np.array([[0.0, 0.1, 0.1, 0.9, 1.0]], np.float32)
    assert 0.1 <= compute_otsu_threshold(values) < 0.9  # `> otsu` keeps the upper two
    assert compute_otsu_threshold(np.zeros((2, 2), np.float32)) == 0


def test_half_moves_at_the_level() -> None:
    speed = np.zeros((10, 10), np.float32)
    speed[0, 0], speed[9, 9] = 0.5, 5.0
    share = estimate_moving_share(np.where(speed == 5, 0, speed), scale=0.01)
    assert share[0, 0] == pytest.approx(0.5)  # STILL
    assert estimate_moving_share(speed, scale=2.0)[9, 9] == pytest.approx(25 / (25 + 64))  # four scales of noise


def test_two_motions_against_each_other_are_told_apart() -> None:
    jitter = np.random.default_rng(0).normal(0, 0.2, (40, 2)).astype(np.float32)
    against = np.repeat(np.array([[3, 0], [-3, 0]], np.float32), 20, axis=0) + jitter
    second = find_second_motion(against)
    assert second[:20].all() != second[20:].all()
    assert second[:20].all() == second[:20].any()
    along = np.repeat(np.array([[3, 0], [6, 0]], np.float32), 20, axis=0) + jitter
    turning = np.stack([np.linspace(-3, 3, 40), np.zeros(40)], axis=1).astype(np.float32)
    for one in (along, turning, jitter, np.zeros((40, 2), np.float32), np.ones((1, 2), np.float32)):
        assert not find_second_motion(one).any()


def test_a_region_is_cut_into_things_not_into_stripes() -> None:
    regions = np.zeros((40, 40), np.int32)
    regions[10:30, 5:35] = 1
    flow = np.zeros((40, 40, 2), np.float32)
    flow[..., 0] = np.where(np.arange(40) < 20, 4, -4)
    cut = split_regions(regions, flow)
    assert sorted(np.bincount(cut.ravel())[1:].tolist()) == [300, 300]
    assert ((cut > 0) == (regions > 0)).all()
    flow[..., 0] = np.where(np.arange(40) // 3 % 2, 4, -4)
    assert (split_regions(regions, flow) == regions).all()


def test_flow_without_contrast_is_not_believed() -> None:
    grey = np.full((40, 80), 90, np.uint8)
    grey[:, 40:] += (np.indices((40, 40)).sum(0) % 2 * 160).astype(np.uint8)  # a checkerboard, deviation 80
    weight = measure_texture(grey)
    assert weight[:, :30].max() == pytest.approx(0)
    assert weight[:, 50:].min() == pytest.approx(80**2 / (80**2 + CONTRAST**2), abs=0.02)


def test_the_past_fades(motion: Motion) -> None:
    [frame] = one_mover(1)[0]
    keys = motion.encoder(frame).keys
    moving = np.zeros(keys.shape[1:], np.float32)
    moving[5:15, 5:15] = 1
    cells, all_ = make_regression_inputs(keys), np.ones_like(moving)
    once = update_appearance(init_appearance(), cells, moving, all_, reliable=1.0)
    twice = update_appearance(once, cells, moving, all_, reliable=1.0)
    assert torch.allclose(twice.gram, (1 + FADING) * once.gram)
    assert torch.allclose(twice.moment, (1 + FADING) * once.moment)
    assert float(update_appearance(init_appearance(), cells, moving, all_, reliable=0.0).gram.abs().sum()) == 0
    likely = predict_moving(once, cells).reshape(moving.shape)
    assert likely[5:15, 5:15].mean() > likely[20:].mean()
    doubted = np.where(np.indices(moving.shape)[1] < 10, all_, 0).astype(np.float32)  # its right half
    half = update_appearance(init_appearance(), cells, moving, doubted, reliable=1.0)
    assert float((half.gram - once.gram).abs().sum()) > 0


def test_the_slower_view_is_believed() -> None:
    a, b = np.zeros((1, 2, 2), np.float32), np.zeros((1, 2, 2), np.float32)
    a[0, 0], b[0, 0] = (3, 0), (0, 2)
    a[0, 1], b[0, 1] = (0, 1), (4, 4)
    assert select_slowest_flow([MotionView(a, 0.1, 0.0), MotionView(b, 0.1, 0.0)]).tolist() == [[[0, 2], [0, 1]]]


def test_the_score_is_the_expected_iou_less_what_makes_doubtful() -> None:
    half, inside = np.zeros((4, 4), np.float32), np.zeros((4, 4), bool)
    half[:2], half[2], inside[:2] = 1, 0.5, True  # 8 pixels sure, 4 more likely as not
    there = slice(0, 4), slice(0, 4)

    def at(speed: float, reliable: float) -> float:
        image, map_ = np.zeros((4, 4, 3), np.uint8), np.full((4, 4), speed, np.float32)
        ones = np.ones((4, 4), np.float32)
        return score_motion_mask(
            MotionEvidence(image, map_, ones, half, inside.astype(np.int32), reliable), there, half, inside
        )

    assert at(1e4, 1.0) == pytest.approx(8 / (8 + 4 * 0.5), abs=1e-3)
    assert at(SLOW, 1.0) == pytest.approx(0.8 / np.sqrt(2), abs=1e-3)
    assert at(1e4, 0.25) == pytest.approx(0.8 / 2, abs=1e-3)


def test_detections_are_sorted() -> None:
    frame = Frame(0, np.zeros((2, 3, 3), np.uint8))
    masks = [np.full((2, 3), k % 2 == 0) for k in range(3)]
    found = collect_detections(frame, list(zip(masks, [0.1, 0.7, 0.3], strict=True)))
    assert found.scores.tolist() == pytest.approx([0.7, 0.3, 0.1])
    assert found.masks[:, 0, 0].tolist() == [False, True, True]


def test_only_the_heaviest_regions_are_looked_at() -> None:
    regions = np.kron(1 + np.arange(25, dtype=np.int32).reshape(5, 5), np.ones((4, 4), np.int32))
    assert len(select_heaviest_regions(regions, np.ones((20, 20), np.float32))) == MOST


def test_regions_come_by_mass_and_specks_do_not() -> None:
    regions = np.zeros((100, 100), np.int32)
    regions[:10, :10], regions[50:80, 50:80], regions[99, 99] = 1, 2, 3
    assert select_heaviest_regions(regions, np.ones((100, 100), np.float32)) == [2, 1]
    soft = np.where(regions == 1, 1.0, 0.05).astype(np.float32)
    assert select_heaviest_regions(regions, soft) == [1, 2]


def test_only_the_largest_part_stays() -> None:
    mask = np.array([[1, 1, 0, 1], [1, 0, 0, 0]], bool)
    assert select_largest_component(mask).tolist() == [[True, True, False, False], [True, False, False, False]]
    assert not select_largest_component(np.zeros((3, 3), bool)).any()


def test_a_window_keeps_its_place_at_another_size() -> None:
    assert scale_window((slice(10, 20), slice(0, 30)), (240, 426), (480, 852)) == (slice(20, 40), slice(0, 60))
    assert scale_window((slice(5, 6), slice(5, 6)), (100, 100), (10, 10))[0] == slice(0, 1)


@pytest.mark.parametrize("size", [(4, 900), (900, 4)])
def test_a_strip_of_a_video_is_done(tmp_path: Path, size: tuple[int, int]) -> None:
    """OpenCV's optical flow ended the process on it."""
    (tmp_path / "strip").mkdir()
    for n in range(3):
        picture = np.random.default_rng(n).integers(0, 255, (*size, 3)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"strip/{n:05d}.png"), picture)
    words = ["run", str(tmp_path / "strip"), "-o", str(tmp_path / "out"), "--no-overlay", "-q"]
    told = CliRunner().invoke(app, words)
    assert told.exit_code == 0, told.output
    assert (tmp_path / "out/strip/masklets.json").is_file()
