"""Tracking in a small textured world: a striped disc (or two) over a textured background."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from masklet.core import memory as store
from masklet.core.features import count_tensor_bytes
from masklet.core.frames import Frame
from masklet.core.instances import Box, Point, Prediction
from masklet.core.protocols import Propagator
from masklet.models import affinity
from masklet.models.affinity import Affinity, AffinityMemory
from masklet.models.encoder import Encoder, EncoderFeatures

SIZE = 64, 96
RADIUS = 14
COLOURS = ((220, 60, 40), (40, 90, 220))
Places = list[tuple[int, int] | None]


@pytest.fixture(scope="module")
def model() -> Affinity:
    return Affinity(Encoder())


def disc(at: tuple[int, int], radius: int = RADIUS) -> Tensor:
    y, x = torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="ij")
    return (y - at[0]) ** 2 + (x - at[1]) ** 2 <= radius**2


def picture(*centres: tuple[int, int] | None, colours: tuple[tuple[int, int, int], ...] = COLOURS) -> Frame:
    draw = np.random.default_rng(0)
    grass = draw.integers(60, 110, (SIZE[0] // 4, SIZE[1] // 4, 1)).repeat(4, 0).repeat(4, 1)
    image = np.concatenate([grass, grass + 40, grass], axis=2).astype(np.uint8)
    for colour, centre in zip(colours, centres, strict=False):
        if centre is not None:
            mask = disc(centre).numpy()
            rows = np.arange(SIZE[0])[:, None] - centre[0]
            stripes = np.broadcast_to(np.where(rows // 4 % 2, 1.0, 0.7), SIZE)
            image[mask] = (np.array(colour) * stripes[..., None])[mask].astype(np.uint8)
    return Frame(0, image)


def encode(model: Affinity, *places: Places) -> list[EncoderFeatures]:
    return model.encode([picture(*centres) for centres in zip(*places, strict=True)])


def iou(a: Tensor, b: Tensor) -> float:
    return float((a & b).sum() / (a | b).sum().clamp(min=1))


def started(model: Affinity, features: EncoderFeatures, prompts: dict[int, Tensor]) -> AffinityMemory:
    memory = model.empty()
    memory = model.commit(memory, features, model.predict(memory, features))
    return model.prompt(memory, features, prompts)[0]


def follow(
    model: Affinity, memory: AffinityMemory, frames: list[EncoderFeatures]
) -> tuple[list[Prediction], AffinityMemory]:
    beliefs = []
    for features in frames:
        beliefs.append(model.predict(memory, features))
        memory = model.commit(memory, features, beliefs[-1])
    return beliefs, memory


PATH: Places = [(32, 20 + 4 * t) for t in range(10)]


def test_it_is_a_propagator(model):
    assert isinstance(model, Propagator)


def test_follows_a_moving_object(model):
    frames = encode(model, PATH)
    beliefs, _ = follow(model, started(model, frames[0], {7: disc(PATH[0])}), frames[1:])
    for belief, at in zip(beliefs, PATH[1:], strict=True):
        assert belief.ids == (7,) and belief.logits.shape[1] == 1
        assert 0 < belief.quality[0, 0] <= 1 and belief.presence[0, 0] > 0
        assert iou(belief.masks(SIZE)[0], disc(at)) > 0.85


def test_a_prompt_is_answered_with_its_own_mask(model):
    [features] = encode(model, PATH[:1])
    mask = disc((20, 50)) & (torch.arange(96) % 3 > 0)
    _, answer = model.prompt(model.empty(), features, {3: mask})
    assert answer.ids == (3,) and answer.masks(SIZE)[0].equal(mask)


def test_knows_when_the_object_has_left_and_when_it_is_back(model):
    places: Places = [*PATH[:5], *[None] * 5, *PATH[4::-1]]
    frames = encode(model, places)
    beliefs, _ = follow(model, started(model, frames[0], {1: disc(PATH[0])}), frames[1:])
    seen = [bool(b.masks(SIZE).any()) for b in beliefs]
    assert seen == [at is not None for at in places[1:]]
    assert iou(beliefs[-1].masks(SIZE)[0], disc(PATH[0])) > 0.8


def test_knows_when_the_object_is_hidden_by_another(model):
    still: Places = [(32, 40)] * 12
    cover: Places = [(32, 84 - 4 * t) for t in range(12)]
    frames = encode(model, still, cover)
    memory = started(model, frames[0], {1: disc((32, 40)), 2: disc((32, 84))})
    beliefs, _ = follow(model, memory, frames[1:])
    assert beliefs[4].masks(SIZE).any((1, 2)).tolist() == [True, True]
    assert beliefs[-1].masks(SIZE).any((1, 2)).tolist() == [False, True]


def test_memory_has_one_size_for_ever(model):
    frames = model.encode([Frame(0, np.roll(picture(PATH[0]).image, t, 1)[:16, :24]) for t in range(5)])
    mask = torch.zeros(16, 24, dtype=torch.bool)
    mask[4:12, 4:12] = True
    memory = started(model, frames[0], {1: mask})
    _, memory = follow(model, memory, frames * 2)
    early, belief = count_tensor_bytes(memory), model.predict(memory, frames[0])
    for t in range(100):
        memory = model.commit(memory, frames[t % 5], belief)
    assert count_tensor_bytes(memory) == early and len(pickle.dumps(memory)) < early * 1.01 + 5000


def same(a: list[Prediction], b: list[Prediction]) -> bool:
    return all(
        x.ids == y.ids and x.logits.equal(y.logits) and x.presence.equal(y.presence) for x, y in zip(a, b, strict=True)
    )


def test_what_is_prepared_ahead_is_used_and_changes_nothing(model, monkeypatch):
    frames = encode(model, PATH[:5])
    fresh = Affinity(model.encoder)
    expected, _ = follow(fresh, started(fresh, frames[0], {1: disc(PATH[0])}), frames[1:])
    ready = Affinity(model.encoder)
    for features in frames:
        ready.prepare(features)
    made = []
    monkeypatch.setattr(affinity, "make_affinity_view", lambda *told: made.append(told))
    monkeypatch.setattr(affinity, "measure_frame_link", lambda *told: made.append(told))
    beliefs, _ = follow(ready, started(ready, frames[0], {1: disc(PATH[0])}), frames[1:])
    assert not made
    assert same(beliefs, expected)


def test_a_saved_memory_resumes_exactly(model):
    frames = encode(model, PATH)
    whole, _ = follow(model, started(model, frames[0], {1: disc(PATH[0])}), frames[1:])
    first, memory = follow(model, started(model, frames[0], {1: disc(PATH[0])}), frames[1:4])
    rest, _ = follow(model, pickle.loads(pickle.dumps(memory)), frames[4:])
    assert same(whole, first + rest)


def test_a_memory_is_a_value(model):
    frames = encode(model, PATH[:4])
    memory = started(model, frames[0], {1: disc(PATH[0])})
    once, _ = follow(model, memory, frames[1:])
    again, _ = follow(model, memory, frames[1:])
    assert same(once, again)


def test_order_of_ids_changes_nothing_else(model):
    other: Places = [(20, 84 - 3 * t) for t in range(4)]
    frames = encode(model, PATH[:4], other)
    masks = {1: disc(PATH[0]), 2: disc(other[0])}
    a, _ = follow(model, started(model, frames[0], masks), frames[1:])
    b, _ = follow(model, started(model, frames[0], dict(reversed(masks.items()))), frames[1:])
    assert a[-1].ids == (1, 2) and b[-1].ids == (2, 1)
    torch.testing.assert_close(a[-1].logits, b[-1].logits.flip(0), atol=2e-2, rtol=1e-2)


def test_backward_is_forward_on_the_reversed_video(model):
    frames = encode(model, PATH)
    beliefs, _ = follow(model, started(model, frames[-1], {1: disc(PATH[-1])}), frames[-2::-1])
    assert iou(beliefs[-1].masks(SIZE)[0], disc(PATH[0])) > 0.85


def test_two_objects_share_no_pixel(model):
    a: Places = [(32, 30 + 2 * t) for t in range(6)]
    b: Places = [(32, 70 - 2 * t) for t in range(6)]
    frames = encode(model, a, b)
    memory = started(model, frames[0], {1: disc(a[0]), 2: disc(b[0])})
    beliefs, _ = follow(model, memory, frames[1:])
    for belief in beliefs:
        assert not belief.masks(SIZE).all(0).any()
    assert iou(beliefs[-1].masks(SIZE)[1], disc(b[-1])) > 0.8


def test_many_lost_objects_take_nothing_from_one_that_is_seen(model):
    """Nine of the same look were there one after the other, and are gone when the last one passes."""
    empty, *frames = encode(model, [None, *PATH])
    memory = model.empty()
    for n, (frame, place) in enumerate(zip(frames[1:], PATH[1:], strict=True)):
        memory, _ = model.prompt(memory, frame, {100 + n: disc(place)})
        memory = model.commit(memory, empty, model.predict(memory, empty))
    memory, _ = model.prompt(memory, frames[0], {1: disc(PATH[0])})
    beliefs, _ = follow(model, memory, frames[1:])
    for belief, place in zip(beliefs, PATH[1:], strict=True):
        assert iou(belief.masks(SIZE)[-1], disc(place)) > 0.8


def test_hypotheses_of_an_object_do_not_contend_and_count_as_one(model):
    a: Places = [(32, 22), (32, 22), None, None, (32, 30)]
    b: Places = [(32, 74), (32, 72), (32, 70), (32, 66), (32, 62)]
    frames = encode(model, a, b)
    memory = started(model, frames[0], {1: disc((32, 22)), 2: disc((32, 74))})
    thrice = model.branch(memory, {1: 1, 11: 1, 12: 1, 2: 2, 21: 2})
    for now in frames[1:]:
        alone, several = model.predict(memory, now), model.predict(thrice, now)
        for row, origin in enumerate((0, 0, 0, 1, 1)):
            torch.testing.assert_close(several.logits[row], alone.logits[origin], atol=1e-3, rtol=0)
        memory, thrice = model.commit(memory, now, alone), model.commit(thrice, now, several)
    assert iou(several.masks(SIZE)[2], disc((32, 30))) > 0.7


def test_a_wrong_hypothesis_of_an_object_does_not_keep_another_from_it(model):
    frames = encode(model, [(32, 22), (32, 22), (32, 22)])
    memory = model.branch(started(model, frames[0], {1: disc((32, 22))}), {1: 1, 2: 1})
    belief = model.predict(memory, frames[1])
    away = belief.logits.clone()
    away[1] = torch.where(belief.logits[1].roll(40, dims=1) > 0, 4.0, -4.0)
    memory = model.commit(memory, frames[1], replace(belief, logits=away))
    alone = model.predict(model.branch(memory, {1: 1}), frames[2])
    torch.testing.assert_close(model.predict(memory, frames[2]).logits[0], alone.logits[0], atol=1e-3, rtol=0)


def twins(model: Affinity, *places: Places) -> list[EncoderFeatures]:
    """Two discs of one colour."""
    return model.encode([picture(*centres, colours=COLOURS[:1] * 2) for centres in zip(*places, strict=True)])


def test_a_look_alike_that_turns_up_elsewhere_is_not_the_object(model):
    left: Places = [(32, 20)] * 4
    frames = twins(model, left, [None, (32, 76), (32, 76), (32, 76)])
    beliefs, _ = follow(model, started(model, frames[0], {1: disc((32, 20))}), frames[1:])
    for belief in beliefs:
        assert iou(belief.masks(SIZE)[0], disc((32, 20))) > 0.85


def test_an_object_that_was_given_in_two_parts_keeps_both(model):
    places: tuple[Places, Places] = [(32, 20)] * 3, [(32, 76)] * 3
    frames = twins(model, *places)
    whole = disc((32, 20)) | disc((32, 76))
    beliefs, _ = follow(model, started(model, frames[0], {1: whole}), frames[1:])
    for belief in beliefs:
        assert iou(belief.masks(SIZE)[0], whole) > 0.85


def test_nested_objects_both_survive(model):
    frames = encode(model, PATH[:5])
    whole, part = disc(PATH[0]), disc(PATH[0]) & (torch.arange(SIZE[0]) < 32)[:, None]
    beliefs, _ = follow(model, started(model, frames[0], {1: whole, 2: part}), frames[1:])
    masks = beliefs[-1].masks(SIZE)
    assert iou(masks[0], disc(PATH[4])) > 0.8 and masks[1].any() and (masks[0] & masks[1]).any()


def test_objects_that_overlap_are_followed_as_well_as_alone(model):
    frames, columns = encode(model, PATH[:6]), torch.arange(SIZE[1])
    masks = [{1: disc((y, x)) & (columns < x + 5), 2: disc((y, x)) & (columns > x - 5)} for y, x in PATH[:6]]
    both, memory = follow(model, started(model, frames[0], masks[0]), frames[1:])
    shared = (masks[0][1] & masks[0][2]).sum() / masks[0][1].sum()
    assert abs(memory.shared[0, 1] - shared) < 0.05 and memory.shared.equal(memory.shared.T)
    for id in (1, 2):
        alone, _ = follow(model, started(model, frames[0], {id: masks[0][id]}), frames[1:])
        for t in range(5):
            wanted = masks[t + 1][id]
            assert iou(both[t].masks(SIZE)[id - 1], wanted) > iou(alone[t].masks(SIZE)[0], wanted) - 0.1


def test_how_far_objects_overlap_is_remembered_from_where_they_were_given(model):
    frames = encode(model, PATH[:3])
    left, right = disc((32, 20)), disc((32, 34))
    memory = started(model, frames[0], {1: left, 2: right})
    share = float((left & right).sum() / left.sum())
    assert memory.shared[0, 1] == memory.shared[1, 0] and abs(float(memory.shared[0, 1]) - share) < 0.05
    memory, _ = model.prompt(memory, frames[0], {3: disc((32, 80))})
    assert memory.shared[2].count_nonzero() == 0 and memory.shared[0, 1] > 0
    one, _ = model.prompt(memory, frames[0], {1: disc((32, 80))})  # of the other the user said nothing new
    assert one.shared.equal(memory.shared)
    two, _ = model.prompt(memory, frames[0], {1: disc((32, 70)), 2: right})
    assert two.shared[0, 1] == 0
    assert model.branch(memory, {7: 3, 8: 2, 9: 1}).shared.equal(memory.shared.flip(0, 1))


def test_a_newcomer_joins_those_already_tracked(model):
    other: Places = [(20, 84 - 3 * t) for t in range(6)]
    frames = encode(model, PATH[:6], other)
    _, memory = follow(model, started(model, frames[0], {1: disc(PATH[0])}), frames[1:3])
    memory, answer = model.prompt(memory, frames[2], {2: disc(other[2])})
    beliefs, _ = follow(model, memory, frames[3:])
    assert answer.ids == (2,) and beliefs[-1].ids == (1, 2)
    assert min(iou(m, disc(p[5])) for m, p in zip(beliefs[-1].masks(SIZE), (PATH, other), strict=True)) > 0.75


def test_a_later_prompt_stands_in_for_the_belief(model):
    frames = encode(model, PATH[:3])
    wrong = started(model, frames[0], {1: disc((32, 80))})
    _, wrong = follow(model, wrong, frames[1:2])
    memory, _ = model.prompt(wrong, frames[1], {1: disc(PATH[1])})
    assert count_tensor_bytes(memory) == count_tensor_bytes(wrong)
    assert iou(memory.last.soft[0] > 0.5, wrong.last.soft[0] > 0.5) < 0.5
    again, _ = model.prompt(memory, frames[1], {1: disc(PATH[1])})
    assert again.last.soft.equal(memory.last.soft) and again.recent.gram[0].equal(memory.recent.gram[0])


def test_an_empty_prompt_is_absent_until_seen(model):
    frames = encode(model, PATH[:4])
    nothing = torch.zeros(SIZE, dtype=torch.bool)
    memory, answer = model.prompt(model.empty(), frames[0], {1: nothing})
    assert answer.presence[0, 0] < 0
    beliefs, memory = follow(model, memory, frames[1:2])
    assert beliefs[0].presence[0, 0] < 0 and not beliefs[0].masks(SIZE).any()
    memory, _ = model.prompt(memory, frames[1], {1: disc(PATH[1])})
    beliefs, _ = follow(model, memory, frames[2:])
    assert iou(beliefs[-1].masks(SIZE)[0], disc(PATH[3])) > 0.8


def test_forgetting_leaves_the_others_alone(model):
    frames = encode(model, PATH[:2], [(20, 84)] * 2)
    both = started(model, frames[0], {1: disc(PATH[0]), 2: disc((20, 84))})
    memory = model.forget(both, [1, 99])
    assert memory.ids == (2,) and memory.anchor.gram[0].equal(both.anchor.gram[1])
    nobody = model.forget(memory, [2])
    assert model.predict(nobody, frames[1]).ids == ()
    assert count_tensor_bytes(nobody) == memory.last.grey.nbytes


def test_objects_nobody_speaks_of_are_kept(model):
    frames = encode(model, PATH[:3], [(20, 84)] * 3)
    memory = started(model, frames[0], {1: disc(PATH[0]), 2: disc((20, 84))})
    memory = model.commit(memory, frames[1], model.predict(memory, frames[1]).only([1]))
    assert memory.ids == (1, 2)
    assert model.predict(memory, frames[2]).presence[1, 0] > 0


def test_who_is_not_learnt_is_not_solved_again_and_is_found_as_by_one_who_solves_it(model, monkeypatch):
    frames = encode(model, PATH[:3], [(20, 84)] * 3)
    memory = started(model, frames[0], {1: disc(PATH[0]), 2: disc((20, 84))})
    belief = model.predict(memory, frames[1])
    part = model.commit_some(memory, frames[1], belief, [2], 0.3)
    assert part.recent.gram[0] is memory.recent.gram[0] and part.recent.gram[1] is not memory.recent.gram[1]
    assert part.last.soft.equal(model.commit(memory, frames[1], belief).last.soft)  # masks are remembered of both
    solve, solved = affinity.solve_regressions, list[int]()
    monkeypatch.setattr(affinity, "solve_regressions", lambda m, ridge: solved.append(len(m.moment)) or solve(m, ridge))
    found = [one.predict(part, frames[2]) for one in (model, model, Affinity(model.encoder))]
    assert solved == [1, 2]
    for other in found[1:]:
        torch.testing.assert_close(other.logits, found[0].logits, rtol=0, atol=1e-4)


def test_regressions_are_kept_for_both_matrices_and_no_longer_than_these():
    recent, anchor, other, cache = torch.ones(2), torch.ones(2), torch.ones(2), affinity.RegressionCache()
    cache.keep(torch.arange(3.0), recent, anchor)
    assert cache.find(recent, anchor).tolist() == [0, 1, 2]
    assert cache.find(recent, other) is cache.find(other, anchor) is None
    del recent
    assert not len(cache._kept)


Size = tuple[int, int]


@pytest.mark.parametrize("size", [(1, 1), (5, 9), (16, 200)])
@pytest.mark.parametrize(
    "make", [lambda s: torch.ones(s, dtype=torch.bool), lambda s: Point(0, 0), lambda s: Box(0, 0, 1, 1)]
)
def test_smallest_frames_and_prompts(model, size: Size, make: Callable[[Size], Tensor | Point | Box]):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    frames = model.encode([Frame(t, image) for t in range(3)])
    memory, answer = model.prompt(model.empty(), frames[0], {1: make(size)})
    beliefs, _ = follow(model, memory, frames[1:])
    assert answer.masks(size).shape == (1, *size)
    assert all(b.logits.isfinite().all() and b.quality.isfinite().all() for b in beliefs)


def test_an_object_of_one_pixel(model):
    frames = encode(model, PATH[:4])
    dot = torch.zeros(SIZE, dtype=torch.bool)
    dot[32, 20] = True
    beliefs, _ = follow(model, started(model, frames[0], {1: dot}), frames[1:])
    assert beliefs[-1].logits.isfinite().all()


@pytest.mark.parametrize("prompt", [Box(6, 18, 35, 47), Point(20, 32)])
def test_boxes_and_points_become_masks(model, prompt):
    [features] = encode(model, PATH[:1])
    _, answer = model.prompt(model.empty(), features, {1: prompt})
    assert iou(answer.masks(SIZE)[0], disc(PATH[0])) > 0.7


def test_no_object_no_belief(model):
    frames = encode(model, PATH[:2])
    beliefs, memory = follow(model, model.empty(), frames)
    assert beliefs[-1].ids == () and len(beliefs[-1].masks(SIZE)) == 0 and memory.ids == ()


def test_frames_larger_than_the_working_size(model):
    image = picture(PATH[0]).image.repeat(6, axis=0).repeat(6, axis=1)
    mask = disc(PATH[0]).repeat_interleave(6, 0).repeat_interleave(6, 1)
    frames = model.encode([Frame(t, image) for t in range(2)])
    memory, answer = model.prompt(model.empty(), frames[0], {1: mask})
    memory, nobody = model.prompt(memory, frames[0], {})
    beliefs, _ = follow(model, memory, frames[1:])
    assert answer.masks(image.shape[:2])[0].equal(mask) and nobody.ids == ()
    assert iou(beliefs[0].masks(image.shape[:2])[0], mask) > 0.9


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)


def exposed(image: np.ndarray, gain: float, offset: float) -> np.ndarray:
    return (image * gain + offset).clip(0, 255).astype(np.uint8)


WAYS: dict[str, Callable[[int], np.ndarray]] = {
    "black": lambda t: np.zeros((*SIZE, 3), np.uint8),
    "white": lambda t: np.full((*SIZE, 3), 255, np.uint8),
    "noise": noise,
    "fog": lambda t: exposed(picture(PATH[t]).image, 0.2, 180),
    "blur": lambda t: cv2.blur(picture(PATH[t]).image, (9, 9)),
    "dark": lambda t: exposed(picture(PATH[t]).image, 0.4, 0),
    "bright": lambda t: exposed(picture(PATH[t]).image, 1, 120),
    "repeat": lambda t: picture(PATH[t - 1]).image,
    "shift": lambda t: np.roll(picture(PATH[t]).image, SIZE[1] // 2, axis=1),
}


def disturbed(model: Affinity, way: str, at: tuple[int, ...] = (4,)) -> list[EncoderFeatures]:
    images = [WAYS[way](t) if t in at else picture(place).image for t, place in enumerate(PATH)]
    return model.encode([Frame(t, image) for t, image in enumerate(images)])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", [1, -1])
def test_a_disturbed_frame_costs_that_frame_only(model, way: str, step: int):
    frames, places = disturbed(model, way)[::step], PATH[::step]
    beliefs, memory = follow(model, started(model, frames[0], {1: disc(places[0])}), frames[1:])
    assert memory.ids == (1,)
    found = [iou(b.masks(SIZE)[0], disc(at)) for b, at in zip(beliefs, places[1:], strict=True)]
    del found[3 if step == 1 else 4]
    assert min(found) > 0.85


def test_of_a_disturbed_frame_nothing_is_learnt(model):
    frames = disturbed(model, "dark")
    _, before = follow(model, started(model, frames[0], {1: disc(PATH[0])}), frames[1:4])
    _, after = follow(model, before, frames[4:5])
    assert after.recent.gram[0].equal(before.recent.gram[0]) and after.left is before.last
    _, later = follow(model, after, frames[5:6])
    assert not later.recent.gram[0].equal(before.recent.gram[0])


@pytest.mark.parametrize("way", WAYS)
def test_a_memory_saved_in_the_middle_of_a_disturbance_resumes_exactly(model, tmp_path, way: str):
    frames = disturbed(model, way, at=(4, 5))
    _, memory = follow(model, started(model, frames[0], {1: disc(PATH[0])}), frames[1:5])
    store.save_memory(memory, tmp_path / "memory")
    rest, _ = follow(model, memory, frames[5:])
    resumed, _ = follow(model, store.load_memory(tmp_path / "memory"), frames[5:])
    assert same(rest, resumed)


def test_a_scene_that_comes_back_goes_on_where_it_was_left(model):
    frames = disturbed(model, "black", at=(4, 5, 6))
    beliefs, _ = follow(model, started(model, frames[0], {1: disc(PATH[0])}), frames[1:])
    assert [bool(b.masks(SIZE).any()) for b in beliefs] == [True] * 3 + [False] * 3 + [True] * 3
    assert iou(beliefs[-1].masks(SIZE)[0], disc(PATH[-1])) > 0.85


def test_after_a_cut_an_object_is_looked_for_and_the_next_scene_may_have_others(model):
    upside_down = [np.ascontiguousarray(picture((32, 20)).image[::-1, ::-1])] * 3
    frames = [*encode(model, PATH[:4]), *model.encode([Frame(0, image) for image in (noise(5), *upside_down)])]
    beliefs, memory = follow(model, started(model, frames[0], {1: disc(PATH[0])}), frames[1:])
    assert [bool(b.masks(SIZE).any()) for b in beliefs[:4]] == [True, True, True, False]
    assert memory.ids == (1,) and iou(beliefs[-1].masks(SIZE)[0], disc((31, 75))) > 0.7
    memory, answer = model.prompt(memory, frames[-1], {2: disc((10, 10), 6)})
    assert memory.ids == (1, 2) and answer.ids == (2,)


def test_memory_has_one_size_whatever_is_disturbed(model):
    frames = disturbed(model, "noise")
    _, memory = follow(model, started(model, frames[0], {1: disc(PATH[0])}), frames[1:6])
    held = count_tensor_bytes(memory)
    for _ in range(3):
        _, memory = follow(model, memory, frames)
    assert count_tensor_bytes(memory) == held


@pytest.mark.parametrize("reach", [0.1, 0.7, 3.0])
def test_surroundings_are_the_cells_that_are_not_further_away(reach: float) -> None:
    """As by the greatest value of a window of cells."""
    draw = torch.Generator().manual_seed(0)
    cells = torch.rand(3, 12, 17, generator=draw) * torch.tensor([0.52, 0.0, 1.0])[:, None, None]
    steps = [max(round(reach * float(inside.sum().sqrt())), 2) for inside in cells]
    wide = [
        torch.nn.functional.max_pool2d((one > 0.5).float()[None], 2 * k + 1, 1, k)[0]
        for one, k in zip(cells, steps, strict=True)
    ]
    assert torch.equal(affinity.find_surroundings(cells, reach), torch.stack(wide) * (1 - cells))


@pytest.mark.parametrize("level", [0.1, 0.5])
def test_soft_masks_are_compared_by_their_bits(level: float) -> None:
    """With every number of half precision that a soft mask may hold, and those of `level` and beside it."""
    every = torch.from_numpy(np.arange(np.float16(1).view(np.int16) + 1, dtype=np.int16).view(np.float16))[None]
    above = affinity.find_above(every, level)
    assert torch.equal(above, every > level) and above.any() and not above.all()
    assert torch.equal(affinity.find_above(every[None].transpose(1, 2), level), every[None].transpose(1, 2) > level)
    assert affinity.find_above(every[None][:0], level).shape == (0, *every.shape)
