"""SAM 2 as a propagator, with the slim network of the fixtures: its masks mean nothing, its memory does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from golden.sam2_fixtures import clip, needs, network, object_mask
from PIL import Image
from torch import Tensor

from masklet.api import bind_parts
from masklet.core import memory as store
from masklet.core.features import count_tensor_bytes
from masklet.core.frames import Frame
from masklet.core.instances import Box, Clicks, Detections, Point, Prediction, Prompt
from masklet.core.protocols import Propagator, SizedPropagator
from masklet.core.result import VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet
from masklet.models.sam2.core import ABSENT, BATCHES, Sam2Core, Sam2Features, encode_prompt_points, encode_sines
from masklet.models.sam2.memory import MemoryBank, MemoryReading, RecentFrames, ReliableFrames, Sam2Memory
from masklet.models.sam2.propagator import Sam2
from masklet.systems.sam2bmp import Sam2Bmp, Sam2BmpSettings
from masklet.systems.sam2long import MemoryTree
from masklet.systems.track import Prompts, Track

needs("model.json", "key_map.json", "recipe.py", "clips.npz")

SIZE = (144, 192)  # of the clips


class CachedSam2(Sam2):
    """Encodes each frame of the clip once for all tests, and counts."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(network("w1"), *args, **kwargs)  # type: ignore[arg-type]
        self.encoded: list[int] = []

    def encode(self, frames: Sequence[Frame]) -> list[Sam2Features]:
        self.encoded += [f.index for f in frames]
        return [seen(self._index(f)) for f in frames]

    @staticmethod
    def _index(frame: Frame) -> int:
        return next(t for t, f in enumerate(clip("plain")) if f.image is frame.image)


@cache
def seen(t: int) -> Sam2Features:
    return Sam2(network("w1")).encode([clip("plain")[t]])[0]


@pytest.fixture
def sam2() -> CachedSam2:
    return CachedSam2()


def given(t: int, *objects: int) -> dict[int, Prompt]:
    return {o: object_mask("plain", t, o) for o in objects}


def after(sam2: Sam2, memory: Sam2Memory, frames: Sequence[int]) -> tuple[Sam2Memory, list[Prediction]]:
    """The memory after some frames of the clip, and what was believed of each."""
    beliefs = []
    for t in frames:
        beliefs.append(sam2.predict(memory, seen(t)))
        memory = sam2.commit(memory, seen(t), beliefs[-1])
    return memory, beliefs


def started(sam2: Sam2, *objects: int, frames: int = 0) -> Sam2Memory:
    memory, _ = sam2.prompt(sam2.empty(), seen(0), given(0, *objects))
    return after(sam2, memory, range(1, 1 + frames))[0]


def content(memory: Sam2Memory, folder: Path) -> bytes:
    store.save_memory(memory, folder / "content")
    return (folder / "content").read_bytes()


def row(belief: Prediction, id: int) -> Prediction:
    return belief.only([belief.ids.index(id)])


def equal(a: Prediction, b: Prediction, atol: float = 0.0) -> None:
    for name in ("logits", "quality", "presence", "tokens"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=atol)


# -- shapes


def test_it_is_a_propagator_with_three_hypotheses(sam2: CachedSam2) -> None:
    assert isinstance(sam2, Propagator)
    memory = started(sam2, 1, 2, frames=2)
    belief = sam2.predict(memory, seen(3))
    assert belief.ids == (1, 2) and belief.logits.shape == (2, 3, 64, 64)
    assert belief.quality.shape == belief.presence.shape == (2, 3)
    assert belief.tokens is not None and belief.tokens.shape == (2, 3, 256)
    assert ((belief.quality >= 0) & (belief.quality <= 1)).all() and (belief.presence == belief.presence[:, :1]).all()
    absent = belief.presence[:, 0] <= 0
    assert (belief.logits[absent] == ABSENT).all() and (belief.logits[~absent] != ABSENT).any()
    for bank in memory.banks.values():
        assert bank.now == 3 and [e.time for e in bank.prompted] == [0] and [e.time for e in bank.recent] == [1, 2]
        assert bank.logits is not None and bank.logits.shape == (64, 64)
        for e in (*bank.prompted, *bank.recent):
            assert e.pointer.shape == (256,)
            assert e.spatial is not None and e.spatial.shape == (256, 64) and e.spatial.dtype == torch.bfloat16


def test_the_empty_memory_and_no_prompts(sam2: CachedSam2) -> None:
    belief = sam2.predict(sam2.empty(), seen(0))
    assert belief.ids == () and belief.logits.shape == (0, 3, 64, 64) and belief.masks(SIZE).shape == (0, *SIZE)
    memory = sam2.commit(sam2.empty(), seen(0), belief)
    memory, answer = sam2.prompt(memory, seen(0), {})
    assert not memory.banks and answer.ids == () and answer.masks(SIZE).shape == (0, *SIZE)


def test_a_frame_with_no_row_is_time_that_goes_by(sam2: CachedSam2) -> None:
    memory = started(sam2, 1, frames=1)
    later = sam2.commit(memory, seen(2), sam2.predict(memory, seen(2)).only([]))
    assert later.banks[1].now == 3 and later.banks[1].recent == memory.banks[1].recent
    assert later.banks[1].logits is None


# -- the memory is a value


def test_predict_and_the_others_write_nothing(sam2: CachedSam2, tmp_path: Path) -> None:
    memory = started(sam2, 1, 2, frames=2)
    before = content(memory, tmp_path)
    belief = sam2.predict(memory, seen(3))
    equal(sam2.predict(memory, seen(3)), belief)
    sam2.commit(memory, seen(3), belief)
    sam2.prompt(memory, seen(3), {1: Point(20, 20), **given(3, 2)})
    sam2.forget(memory, [1])
    sam2.branch(memory, {4: 1})
    assert content(memory, tmp_path) == before


def test_a_run_is_the_same_every_time() -> None:
    runs = [after(s := CachedSam2(), started(s, 1, 2), range(1, 4))[1] for _ in range(2)]
    for a, b in zip(*runs, strict=True):
        equal(a, b)


def test_to_forget_one_object_leaves_the_others_bit_equal(sam2: CachedSam2) -> None:
    memory = started(sam2, 1, 2, frames=2)
    _, whole = after(sam2, memory, (3, 4))
    rest = sam2.forget(memory, [2, 77])
    assert list(rest.banks) == [1] and rest.banks[1] is memory.banks[1]
    _, alone = after(sam2, rest, (3, 4))
    for a, b in zip(alone, whole, strict=True):
        assert a.ids == (1,)
        equal(a, row(b, 1))


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(1)


@pytest.mark.parametrize("others", [(2,), (2, 3)])
def test_an_answer_does_not_depend_on_which_others_are_there(
    sam2: CachedSam2, threads: int, others: tuple[int, ...]
) -> None:
    alone = started(sam2, 1)
    together, _ = sam2.prompt(alone, seen(0), {o: object_mask("plain", 5 * o, 2) for o in others})
    equal(row(sam2.predict(together, seen(1)), 1), sam2.predict(alone, seen(1)), 1e-5)


def test_objects_that_go_through_the_networks_together_get_what_each_gets_alone(
    sam2: CachedSam2, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: one batch of all objects whose memories have one shape, here of two shapes."""
    memory = started(sam2, 1, 2, frames=2)
    memory, _ = sam2.prompt(memory, seen(2), {7: object_mask("plain", 2, 2), 8: Point(60, 60)})
    each = sam2.predict(memory, seen(3))
    kept = sam2.commit(memory, seen(3), each)
    monkeypatch.setattr(Sam2Core, "split_rows", lambda self, rows: [list(rows)] if rows else [])
    readings = {i: sam2.policy.read(b) for i, b in memory.banks.items()}
    assert sorted(map(len, sam2.core.group_readings(readings))) == [2, 2]
    equal(sam2.predict(memory, seen(3)), each, 1e-4)
    batched = sam2.commit(memory, seen(3), each)
    for id, bank in kept.banks.items():
        a, b = bank.recent[-1].spatial, batched.banks[id].recent[-1].spatial
        assert a is not None and b is not None
        torch.testing.assert_close(a.float(), b.float(), rtol=2**-7, atol=2**-7)


@pytest.mark.parametrize("objects", [*range(20), 31, 64])
def test_buckets_are_of_few_sizes(objects: int) -> None:
    on = [SimpleNamespace(batches=batches) for batches in (BATCHES, (1,))]  # on a GPU, and on a CPU
    gpu, cpu = (Sam2Core.split_rows(where, range(objects)) for where in on)  # type: ignore[arg-type]
    assert [r for group in gpu for r in group] == [r for group in cpu for r in group] == list(range(objects))
    sizes = [len(group) for group in gpu]
    assert set(sizes) <= {16, 8, 4, 2, 1} and sizes == sorted(sizes, reverse=True) and set(map(len, cpu)) <= {1}
    assert len(sizes) == objects // 16 + (objects % 16).bit_count()


def test_a_copy_goes_its_own_way(sam2: CachedSam2) -> None:
    memory = started(sam2, 1, 2, frames=1)
    twins = sam2.branch(memory, {5: 1, 6: 1})
    assert list(twins.banks) == [5, 6]
    belief = sam2.predict(twins, seen(2))
    equal(row(belief, 5), row(belief, 6))
    assert belief.tokens is not None
    apart = belief.pick(torch.tensor([0, 1]))
    [quality_5, quality_6] = (b.recent[-1].quality for b in sam2.commit(twins, seen(2), apart).banks.values())
    assert quality_5 == float(belief.quality[0, 0]) and quality_6 == float(belief.quality[1, 1])


@pytest.mark.parametrize("policy", [RecentFrames(), ReliableFrames(quality=0.1)], ids=["recent", "reliable"])
def test_a_stream_resumed_from_a_saved_memory_continues_bit_equal(policy: RecentFrames, tmp_path: Path) -> None:
    sam2 = CachedSam2(policy)
    memory = started(sam2, 1, 2, frames=4)
    store.save_memory(memory, tmp_path / "m")
    loaded = store.load_memory(tmp_path / "m")
    for a, b in zip(after(sam2, memory, (5, 6))[1], after(sam2, loaded, (5, 6))[1], strict=True):
        assert a.ids == b.ids
        equal(a, b)
    click = {1: Clicks((Point(50, 60), Point(80, 60, inside=False)))}
    equal_answers(sam2.prompt(memory, seen(4), click)[1], sam2.prompt(loaded, seen(4), click)[1])


def equal_answers(a: Prediction, b: Prediction, atol: float = 0.0) -> None:
    assert a.ids == b.ids
    for name in ("logits", "quality", "presence"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=atol)


def test_memory_stops_growing(sam2: CachedSam2) -> None:
    """20 frames, the second half of them with a click in every third."""
    memory, sizes = started(sam2, 1), []
    for t in range(1, 20):
        memory, _ = after(sam2, memory, [t])
        if t > 12 and t % 3 == 0:
            memory, _ = sam2.prompt(memory, seen(t), {1: Point(40, 40)})
        [bank] = memory.banks.values()
        sizes.append((len(bank.recent), len(bank.prompted), sum(e.spatial is not None for e in bank.recent)))
    assert max(r for r, *_ in sizes) <= 17 and max(s for *_, s in sizes) == 7 and sizes[-1][1] == 3
    held = 256 * 64 * 2 * (3 + 7) + 256 * 4 * (3 + 17) + 64 * 64 * 4
    assert count_tensor_bytes(memory) <= held <= sam2.count_object_bytes((1, 1))
    assert isinstance(sam2, SizedPropagator) and sam2.count_object_bytes((1, 1)) < 4 * held  # a full bank, hypotheses
    assert sam2.count_object_bytes((480, 854)) > sam2.count_object_bytes((1, 1)) + 480 * 854


# -- prompts

KINDS: dict[str, Prompt] = {
    "box": Box(30, 40, 90, 100),
    "point": Point(60.5, 70),
    "outside": Point(60.5, 70, inside=False),
    "clicks": Clicks((Point(60, 70), Point(10, 10, inside=False), Point(64, 80))),
    "box and click": Clicks((Point(60, 70),), Box(30, 40, 90, 100)),
}


def prompt_of(kind: str, t: int) -> Prompt:
    return object_mask("plain", t, 1) if kind == "mask" else KINDS[kind]


@pytest.mark.parametrize("kind", ["mask", *KINDS])
@pytest.mark.parametrize("situation", ["first", "new", "known", "known, believed otherwise", "twice"])
def test_any_prompt_in_any_frame(sam2: CachedSam2, kind: str, situation: str) -> None:
    """Object 2 is there already, and is left alone."""
    memory = sam2.empty() if situation == "first" else started(sam2, 2, frames=1)
    id, now = (2, 2) if "known" in situation else (1, 1)
    if situation == "known, believed otherwise":  # the frame was ended without a belief
        memory = sam2.commit(memory, seen(2), sam2.predict(memory, seen(2)).only([]))
        now = 3
    if situation == "twice":
        memory, _ = sam2.prompt(memory, seen(2), {id: Point(33, 44)})
    later, answer = sam2.prompt(memory, seen(2), {id: prompt_of(kind, 2)})
    assert answer.ids == (id,) and answer.logits.shape == (1, 1, *SIZE) and answer.quality.shape == (1, 1)
    assert all(later.banks[o] is bank for o, bank in memory.banks.items() if o != id)
    bank = later.banks[id]
    assert bank.now == now and [e.time for e in bank.prompted] == ([0, now - 1] if "known" in situation else [0])
    assert now - 1 not in [e.time for e in bank.recent]
    assert bank.logits is not None and bank.logits.shape == (64, 64)
    assert (sam2.predict(later, seen(3)).ids, bank.prompted[-1].quality) == ((*memory.banks, *[id] * (id not in memory.banks)), float(answer.quality))  # fmt: skip


def test_objects_prompted_together_are_those_prompted_apart(sam2: CachedSam2) -> None:
    memory = sam2.empty()
    prompts = {3: KINDS["clicks"], **given(0, 2), 4: Point(30, 30), **given(0, 1)}
    together, answer = sam2.prompt(memory, seen(0), prompts)
    assert answer.ids == tuple(prompts) and set(together.banks) == set(prompts)
    apart = memory
    for row_, (id, prompt) in enumerate(prompts.items()):
        apart, alone = sam2.prompt(apart, seen(0), {id: prompt})
        equal_answers(answer.only([row_]), alone, 1e-5)
    a, b = (sam2.predict(m, seen(1)) for m in (together, apart))
    for id in prompts:
        equal(row(a, id), row(b, id), 1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (1, 7), (90, 16), (108, 192), (1080, 1920)])
def test_a_given_mask_is_answered_exactly_in_frames_of_any_size(size: tuple[int, int]) -> None:
    sam2 = Sam2(network("w1"))
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    [features] = sam2.encode([Frame(0, noise, 0.0)])
    mask = torch.zeros(size, dtype=torch.bool)
    mask[: (size[0] + 1) // 2, : (2 * size[1] + 2) // 3] = True
    mask[size[0] // 4, size[1] // 3] = size == (1, 1)  # a hole of one pixel
    memory, answer = sam2.prompt(sam2.empty(), features, {1: mask})
    assert torch.equal(answer.masks(size)[0], mask) and float(answer.presence) == 10
    assert sam2.predict(memory, features).masks(size).shape == (1, *size)
    _, clicked = sam2.prompt(memory, features, {2: Point(0, 0)})
    assert clicked.masks(size).shape == (1, *size)


def test_an_empty_mask_says_that_the_object_is_not_there(sam2: CachedSam2) -> None:
    memory, answer = sam2.prompt(sam2.empty(), seen(0), {1: torch.zeros(SIZE, dtype=torch.bool)})
    assert float(answer.presence) == -10 and not answer.masks(SIZE).any()
    [anchor] = memory.banks[1].prompted
    assert torch.equal(anchor.pointer, network("w1").no_object_pointer[0])
    assert sam2.predict(memory, seen(1)).ids == (1,)


def test_a_mask_of_one_pixel_in_a_large_frame_is_answered_exactly() -> None:
    sam2, size = Sam2(network("w1")), (540, 960)
    [features] = sam2.encode([Frame(0, np.zeros((*size, 3), np.uint8), 0.0)])
    mask = torch.zeros(size, dtype=torch.bool)
    mask[100, 200] = True
    _, answer = sam2.prompt(sam2.empty(), features, {1: mask})
    assert torch.equal(answer.masks(size)[0], mask)


def test_an_object_that_was_forgotten_is_new(sam2: CachedSam2) -> None:
    memory = sam2.forget(started(sam2, 1, 2, frames=2), [1])
    for prompt in (given(2, 1), {1: Point(40, 50)}):
        again, answer = sam2.prompt(memory, seen(2), prompt)
        fresh, expected = sam2.prompt(sam2.empty(), seen(2), prompt)
        equal_answers(answer, expected)
        assert again.banks[1].now == fresh.banks[1].now == 1
        equal(row(sam2.predict(again, seen(3)), 1), sam2.predict(fresh, seen(3)))


def test_a_click_sees_what_is_remembered_and_what_was_answered_before(sam2: CachedSam2) -> None:
    click = {1: Point(60, 70)}
    fresh = sam2.prompt(sam2.empty(), seen(2), click)[1]
    memory = started(sam2, 1, frames=1)
    silent = sam2.commit(memory, seen(2), sam2.predict(memory, seen(2)).only([]))
    known = sam2.prompt(silent, seen(2), click)[1]
    believed = sam2.prompt(sam2.commit(memory, seen(2), sam2.predict(memory, seen(2))), seen(2), click)[1]
    answers = [fresh.logits, known.logits, believed.logits]
    assert all((a - b).abs().max() > 1e-3 for n, a in enumerate(answers) for b in answers[:n])


def test_a_mask_prompt_does_not_depend_on_the_past(sam2: CachedSam2) -> None:
    """Its memory is that of the same mask on a first frame: the anchor's, bit by bit."""
    memory, answer = sam2.prompt(started(sam2, 1, frames=2), seen(2), given(2, 1))
    fresh, expected = sam2.prompt(sam2.empty(), seen(2), given(2, 1))
    equal_answers(answer, expected)
    a, b = memory.banks[1].prompted[-1], fresh.banks[1].prompted[0]
    assert a.spatial is not None and b.spatial is not None
    assert torch.equal(a.spatial, b.spatial) and torch.equal(a.pointer, b.pointer)


class Spy:
    """A policy that notes what was read."""

    def __init__(self) -> None:
        self.policy, self.read_times = RecentFrames(), list[list[int]]()

    def read(self, bank: MemoryBank) -> MemoryReading:
        reading = self.policy.read(bank)
        self.read_times.append([e.time for e in reading.frames])
        return reading

    def keep(self, bank: MemoryBank) -> MemoryBank:
        return self.policy.keep(bank)


def test_a_click_reads_what_was_before_its_frame() -> None:
    """Neither an earlier answer in this frame nor what was believed of it is memory; the anchor's frame has none."""
    spy = Spy()
    sam2 = CachedSam2(spy)
    memory, _ = sam2.prompt(sam2.empty(), seen(0), {1: Point(60, 70)})
    memory, _ = sam2.prompt(memory, seen(0), {1: Point(64, 70)})
    assert spy.read_times == [[], []]
    memory, _ = after(sam2, memory, (1, 2))
    for _ in range(2):
        spy.read_times.clear()
        memory, _ = sam2.prompt(memory, seen(2), {1: Point(60, 70)})
        assert spy.read_times == [[0, 1]]


def test_a_prompt_a_frame_late_is_that_frames(sam2: CachedSam2) -> None:
    """The same clicks on the same frame give the same memory, said at once or one by one with all said again."""
    first, both = Clicks((Point(60, 70),)), Clicks((Point(60, 70), Point(20, 20, inside=False)))
    memory, _ = sam2.prompt(started(sam2, 2, frames=1), seen(1), {1: first})
    refined, answer = sam2.prompt(memory, seen(1), {1: both})
    assert len(refined.banks[1].prompted) == 1
    at_once = sam2.prompt(started(sam2, 2, frames=1), seen(1), {1: both})[1]
    assert (answer.logits - at_once.logits).abs().max() > 1e-3  # the earlier answer is refined, as officially


def test_post_processing_makes_given_masks_binary_in_memory() -> None:
    """As officially: an edge is a slope without post-processing, and a step with it; a belief is never a step."""
    with_, without = CachedSam2(), CachedSam2(postprocess=False)
    anchors = [started(s, 1).banks[1].prompted[0].spatial for s in (with_, without)]
    assert all(a is not None for a in anchors) and not torch.equal(*anchors)  # type: ignore[arg-type]


def test_two_over_one_network_do_not_disturb_each_other() -> None:
    """A single mask that is not stable gives way to the best of three, with post-processing only."""
    box = {1: KINDS["box"]}
    first = CachedSam2()
    before = first.prompt(first.empty(), seen(0), box)[1]
    second = CachedSam2(postprocess=False)
    assert (second.prompt(second.empty(), seen(0), box)[1].logits - before.logits).abs().max() > 1
    equal_answers(first.prompt(first.empty(), seen(0), box)[1], before)


# -- small parts


def test_frames_are_squeezed_bicubically() -> None:
    image = clip("plain")[0].image
    square = np.array(Image.fromarray(image).resize((256, 256), Image.Resampling.BICUBIC))
    [expected] = Sam2(network("w1")).encode([Frame(0, square, 0.0)])
    assert torch.equal(seen(0).coarse, expected.coarse)


def test_only_a_lone_click_has_three_masks_and_only_prompts_are_binary(monkeypatch: pytest.MonkeyPatch) -> None:
    several, binary = list[bool](), list[bool]()
    decode, remember = Sam2Core.decode, Sam2Core.encode_memories
    monkeypatch.setattr(Sam2Core, "decode", lambda *a, **k: several.append(k["several"]) or decode(*a, **k))
    monkeypatch.setattr(Sam2Core, "encode_memories", lambda self, f, a, b: binary.append(b) or remember(self, f, a, b))
    for postprocess in (True, False):
        sam2 = CachedSam2(postprocess=postprocess)
        for kind in ("mask", *KINDS):
            sam2.prompt(sam2.empty(), seen(0), {1: prompt_of(kind, 0)})
        assert several == [kind in ("point", "outside") for kind in ("mask", *KINDS)] and set(binary) == {postprocess}
        several.clear(), binary.clear()
        started(sam2, 1, frames=1)
        assert several == [False, True] and binary == [postprocess, False]
        several.clear(), binary.clear()


def test_weights_scale_keys_with_their_positions_and_no_values(sam2: CachedSam2) -> None:
    bank = started(sam2, 1, frames=2).banks[1]
    plain = sam2.policy.read(bank)
    assert plain.shape == (3, 3)
    frames, pointers = [0.5, 1.0, 2.0], [3.0, 1.0, 0.25]
    keys, values = sam2.core.embed_reading(plain)
    weighted, same = sam2.core.embed_reading(replace(plain, frame_weights=frames, pointer_weights=pointers))
    each = torch.cat([torch.tensor(frames).repeat_interleave(256), torch.tensor(pointers).repeat_interleave(4)])
    torch.testing.assert_close(weighted, keys * each[:, None])
    assert torch.equal(same, values)
    spatial = [e.spatial for e in (*bank.prompted, *bank.recent) if e.spatial is not None]
    assert torch.equal(values[:768], torch.cat(spatial).float())
    assert torch.equal(values[-4:].flatten(), plain.pointers[-1].pointer)  # a pointer is cut into four tokens


def test_marks_are_in_the_networks_pixels_boxes_first() -> None:
    assert encode_prompt_points(Point(48, 36), (72, 96), 256) == ([(128.0, 128.0)], [1])
    assert encode_prompt_points(Box(0, 18, 96, 72), (72, 96), 256) == ([(0.0, 64.0), (256.0, 256.0)], [2, 3])
    several = Clicks((Point(96, 0, inside=False), Point(0, 72)), Box(24, 0, 48, 36))
    assert encode_prompt_points(several, (72, 96), 256) == ([(64, 0), (128, 128), (256, 0), (0, 256)], [2, 3, 0, 1])


def test_sines() -> None:
    got = encode_sines(torch.tensor([0.0, 0.5]), 8)
    angles = torch.tensor([0.5, 0.5, 0.005, 0.005])
    torch.testing.assert_close(got[0], torch.tensor([0.0] * 4 + [1.0] * 4))
    torch.testing.assert_close(got[1], torch.cat([angles.sin(), angles.cos()]))


# -- in the systems


class Clip:
    """Frames of the clip as a video."""

    name, size, rate, damage = "clip", SIZE, 10.0, None

    def __init__(self, order: Sequence[int]) -> None:
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.read(0, len(self)))

    def read(self, start: int, stop: int) -> list[Frame]:
        return [Frame(n, clip("plain")[self.order[n]].image, n / 10) for n in range(start, stop)]


def silent(phase: str, done: int, total: int | None, objects: int) -> None:
    pass


def pixels(masklet: Masklet) -> dict[int, Tensor]:
    return {t: s.mask.decode() for t, s in masklet.sightings.items()}


def track(sam2: Sam2, prompts: Prompts, order: Sequence[int] = range(10)) -> VideoResult:
    return Track(sam2, prompts).run(Clip(order), silent)


def test_backward_is_forward_through_the_reversed_clip(sam2: CachedSam2) -> None:
    [late] = track(sam2, {9: given(9, 1)}).masklets
    [early] = track(sam2, {0: given(9, 1)}, range(9, -1, -1)).masklets
    assert {9 - t: s.mask for t, s in late.sightings.items()} == {t: s.mask for t, s in early.sightings.items()}
    assert "".join(s.source.value[0] for s in early.sightings.values()).strip("f") == "p"


def test_a_correction_in_mid_stream_and_an_object_that_joins_late(sam2: CachedSam2) -> None:
    plain = {m.id: pixels(m) for m in track(sam2, {2: given(2, 1), 4: given(4, 2)}).masklets}
    assert sam2.encoded == list(range(10))  # once, for both directions
    corrected = {m.id: m for m in track(sam2, {2: given(2, 1), 4: given(4, 2), 6: given(9, 1)}).masklets}
    now = {id: pixels(m) for id, m in corrected.items()}
    assert torch.equal(now[1][6], object_mask("plain", 9, 1)) and corrected[1].key_frames == {2, 6}
    for t in (*range(6), 6):
        same = t in plain[1] and t in now[1] and torch.equal(plain[1][t], now[1][t])
        assert same == (t != 6) or (t not in plain[1] and t not in now[1])
    assert plain[2].keys() == now[2].keys()  # another object's correction is none of object 2's business
    assert all(torch.equal(plain[2][t], m) for t, m in now[2].items())
    kinds = track(sam2, {1: {1: KINDS["box"], 2: KINDS["clicks"]}, 3: {1: KINDS["point"]}}, range(5))
    assert {1, 2} >= {m.id for m in kinds.masklets}


class ClipSegmenter:
    """Finds both objects of the clip, but object 2 only from frame 2 on."""

    categories = ("thing", "other")
    look_ahead = 0

    def empty(self) -> None:
        return None

    def segment(self, memory: None, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], None]:
        return [self.one(f.index) for f in frames], None

    def one(self, t: int) -> Detections:
        masks = [object_mask("plain", t, o) for o in ((1, 2) if t >= 2 else (1,))]
        return Detections(torch.stack(masks), torch.full((len(masks),), 0.99), torch.arange(len(masks)))


@pytest.mark.parametrize("memory", ["propagated", "detected", "key"])
def test_sam2bmp_with_each_memory(sam2: CachedSam2, memory: str, tmp_path: Path) -> None:
    system = Sam2Bmp(ClipSegmenter(), sam2, Sam2BmpSettings(memory=memory, match_iou=0.0, key_ratio=0.0, twin_iou=1.0))  # type: ignore[arg-type]
    result = system.run(Clip(range(6)), silent)
    assert sam2.encoded == list(range(6)) and result.masklets
    for m in result.masklets:
        for t, s in m.sightings.items():
            assert s.source.value != "detected" or s.mask in [Rle.encode(object_mask("plain", t, o)) for o in (1, 2)]
    frames = list(Clip(range(6)))
    whole = system.stream(frames)
    expected = [(f.ids, f.masks) for f in whole]
    stream = system.stream(frames[:3])
    parts = [(f.ids, f.masks) for f in stream]
    store.save_memory(stream.state, tmp_path / "s")
    parts += [(f.ids, f.masks) for f in system.stream(frames[3:], store.load_memory(tmp_path / "s"))]
    assert all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in zip(parts, expected, strict=True))


def test_what_a_match_writes(sam2: CachedSam2) -> None:
    """With `detected`, a matched object's frames are conditioning frames, at most `prompts` of them; else beliefs."""
    for memory in ("propagated", "detected"):
        system = Sam2Bmp(ClipSegmenter(), sam2, Sam2BmpSettings(memory=memory, match_iou=0.0))  # type: ignore[arg-type]
        *_, last = system.forward(Clip(range(4)))
        bank = last.state.memory.banks[1]
        assert bank.now == 4
        times = [e.time for e in (*bank.prompted, *bank.recent)]
        assert sorted(times) == [0, 1, 2, 3] and (len(bank.prompted) > 1) == (memory == "detected")


class ClipOfLength:
    """A video of so many frames."""

    name, size, rate, damage = "clip", SIZE, 10.0, None

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Frame]:
        return iter(())

    def read(self, start: int, stop: int) -> list[Frame]:
        return []


@pytest.mark.parametrize(("length", "pointers"), [(1, 2), (5, 5), (15, 15), (16, 16), (300, 16), (0, 16)])
def test_a_short_clip_reads_as_many_pointers_as_it_has_frames(sam2: CachedSam2, length: int, pointers: int) -> None:
    """So does the official code (max_obj_ptrs_in_encoder); of a pipe nobody knows the length."""
    for policy in (RecentFrames(), ReliableFrames(0.1)):
        sam2.policy = policy
        [bound] = [s.propagator for s in [bind_parts(Track(sam2, {}), ClipOfLength(length))]]
        assert bound.policy == replace(policy, pointers=pointers) and sam2.policy.pointers == 16
        tree = bind_parts(Track(MemoryTree(sam2), {}), ClipOfLength(length)).propagator
        assert tree.propagator.policy.pointers == pointers


@pytest.mark.parametrize(("answered", "seen"), [(100.0, 32.0), (-100.0, -32.0), (20.0, 20.0)])
def test_an_earlier_answer_is_held_within_32_when_clicks_refine_it(
    sam2: CachedSam2, answered: float, seen: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the official code: what the mask prompt's encoder is given."""
    given: list[Tensor] = []
    encode = sam2.core.encode_masks
    monkeypatch.setattr(sam2.core, "encode_masks", lambda logits: given.append(logits) or encode(logits))
    [features] = sam2.encode(clip("plain")[:1])
    memory, _ = sam2.prompt(sam2.empty(), features, {1: Point(60, 70)})
    bank = memory.banks[1]
    held = Sam2Memory({1: replace(bank, logits=torch.full_like(bank.logits, answered))})
    given.clear()
    sam2.prompt(held, features, {1: Clicks((Point(60, 70), Point(20, 20, inside=False)))})
    assert [float(x) for x in given[0].unique()] == [seen]
