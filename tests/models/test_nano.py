"""The nano propagator: the seams, what guesses do, files, and every system that runs on it. Its weights are random."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from masklet.core import memory as store
from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.instances import Box, Clicks, Detections, Point, Prediction, Prompt
from masklet.core.protocols import Propagator
from masklet.models.affinity import Affinity
from masklet.models.encoder import Encoder
from masklet.models.nano.image_predictor import ImagePredictor, load_image_predictor
from masklet.models.nano.network import NanoSettings, create_nano, read_nano, save_nano
from masklet.models.nano.propagator import (
    TURNS,
    Nano,
    NanoCore,
    NanoMemory,
    SingleNano,
    build_nano_propagator,
    choose_turn,
    weigh_empty_hypotheses,
)
from masklet.models.sam2.memory import MemoryPolicy, ReliableFrames
from masklet.systems.deva.online import Deva
from masklet.systems.deva.online import DevaSettings as DevaSettings
from masklet.systems.sam2bmp import Sam2Bmp
from masklet.systems.sam2bmp import Sam2BmpSettings as BmpSettings
from masklet.systems.sam2long import MemoryTree
from masklet.systems.track import Track

SIZE = (96, 160)
SETTINGS = NanoSettings(side=64, layers=1, width=32)


@cache
def network() -> Any:
    return create_nano(SETTINGS, seed=1).eval().requires_grad_(False)


@cache
def encoder() -> Encoder:
    return Encoder(SIZE[0])


def nano(policy: MemoryPolicy | None = None) -> Nano:
    return Nano(network(), encoder(), policy)


@cache
def clip(length: int = 6) -> tuple[Frame, ...]:
    """A red disc that moves over a ground of coloured squares."""
    draw = np.random.default_rng(2)
    ground = draw.integers(0, 140, (12, 20, 3)).repeat(8, 0).repeat(8, 1)
    frames = []
    for t in range(length):
        image = ground.copy()
        image[disc(t).numpy()] = 230, 40, 40
        frames.append(Frame(t, image.astype(np.uint8)))
    return tuple(frames)


def disc(t: int, x: int = 50) -> Tensor:
    ys, xs = np.mgrid[: SIZE[0], : SIZE[1]]
    return torch.from_numpy((ys - 48) ** 2 + (xs - x - 6 * t) ** 2 < 20**2)


def iou(a: Tensor, b: Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())


def tracked(propagator: Any, prompts: dict[int, Prompt], frames: int = 4) -> tuple[Any, list[Prediction]]:
    """The memory after some frames, and what was believed of those after the first."""
    first, *others = propagator.encode(clip()[:frames])
    memory, _ = propagator.prompt(propagator.empty(), first, prompts)
    beliefs = []
    for features in others:
        beliefs.append(propagator.predict(memory, features))
        memory = propagator.commit(memory, features, beliefs[-1])
    return memory, beliefs


# -- the propagator


def test_is_a_propagator_with_three_hypotheses_at_the_encoders_resolution() -> None:
    assert isinstance(nano(), Propagator)
    memory, (belief, *_) = tracked(nano(), {7: disc(0), 3: disc(0, 120)})
    assert belief.ids == tuple(memory.banks) == (7, 3)
    assert belief.logits.shape == (2, 3, *SIZE)
    assert belief.quality.shape == belief.presence.shape == (2, 3)
    assert belief.tokens is not None and belief.tokens.shape == (2, 3, 128)
    assert ((belief.quality > 0) & (belief.quality < 1)).all()


def test_untrained_it_leaves_the_guess_alone() -> None:
    _, beliefs = tracked(nano(), {1: disc(0)})
    for t, belief in enumerate(beliefs, start=1):
        assert iou(belief.masks(SIZE)[0], disc(t)) > 0.8


def test_the_answer_is_the_correction_added_to_the_guess() -> None:
    propagator = nano()
    first, second = propagator.encode(clip()[:2])
    memory, _ = propagator.prompt(propagator.empty(), first, {1: disc(0)})
    plain = propagator.predict(memory, second).logits
    guess = propagator._guesses(memory, second)[1]
    correction = plain[0] - guess
    assert correction.abs().max() < 0.75 * guess.abs().max()  # small, as training begins
    assert correction.abs().max() > 1e-4


def test_three_hypotheses_differ() -> None:
    _, (belief, *_) = tracked(nano(), {1: disc(0)})
    assert not torch.equal(belief.logits[0, 0], belief.logits[0, 1])
    assert len(set(belief.quality[0].tolist())) == 3


def test_an_answer_without_a_pixel_is_worth_what_absence_is_likely() -> None:
    logits = torch.full((3, 2, 4, 4), -2.0)
    logits[0, 0, 1, 1] = logits[1, :, 2, 2] = 2.0
    score = torch.tensor([1.0, 1.0, 3.0])[:, None].expand(-1, 2)
    said = weigh_empty_hypotheses(Prediction((1, 2, 3), logits, torch.full((3, 2), 0.6), score))
    gone = 1 / (1 + np.exp([1.0, 3.0]))
    assert said.quality.flatten().tolist() == pytest.approx([0.6, gone[0], 0.6, 0.6, gone[1], gone[1]])
    assert said.presence[:, 0].tolist() == [1, 1, -3]
    assert said.logits is logits


class Blind(NanoCore):
    """A decoder that sees nothing and is sure of it."""

    def decode(self, *asked: Any, **more: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        logits, quality, presence, pointers = super().decode(*asked, **more)
        return torch.full_like(logits, -99.0), quality, presence.abs() + 0.5, pointers


@pytest.mark.parametrize("gradients", [False, True])
def test_an_object_without_a_pixel_is_absent_in_use_and_not_in_training(gradients: bool) -> None:
    blind = Nano(network(), encoder(), gradients=gradients)
    blind.core = Blind(network(), gradients=gradients)
    _, (belief, *_) = tracked(blind, {1: disc(0)}, frames=2)
    assert not bool((belief.logits > 0).any())
    assert bool((belief.presence > 0).all()) == gradients


def test_what_was_remembered_changes_the_answer_beyond_the_guess() -> None:
    propagator = nano()
    memory, _ = tracked(propagator, {1: disc(0)}, frames=3)
    features = propagator.encode([clip()[3]])[0]
    bank = memory.banks[1]
    other = replace(bank, prompted=tuple(replace(e, spatial=e.spatial.flip(0)) for e in bank.prompted))
    changed = NanoMemory({1: other}, guessed=memory.guessed)
    a, b = (propagator.predict(m, features).logits for m in (memory, changed))
    assert not torch.equal(a, b)


def test_object_pointers_are_read() -> None:
    propagator = nano()
    memory, _ = tracked(propagator, {1: disc(0)}, frames=3)
    features = propagator.encode([clip()[3]])[0]
    bank = memory.banks[1]
    other = replace(bank, recent=tuple(replace(e, pointer=e.pointer + 1) for e in bank.recent))
    changed = NanoMemory({1: other}, guessed=memory.guessed)
    a, b = (propagator.predict(m, features).logits for m in (memory, changed))
    assert not torch.equal(a, b)


def test_predict_reads_and_does_not_write() -> None:
    propagator = nano()
    memory, _ = tracked(propagator, {1: disc(0)})
    features = propagator.encode([clip()[4]])[0]
    a, b = (propagator.predict(memory, features).logits for _ in range(2))
    assert torch.equal(a, b)


def test_guesses_are_made_beside_memory_attention_and_learnt_beside_memory_encoding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    propagator, before, names = nano(), torch.get_num_threads(), list[str]()
    predict = Affinity.predict

    def watch(self: Affinity, *told: Any) -> Prediction:
        names.append(threading.current_thread().name)
        return predict(self, *told)

    monkeypatch.setattr(Affinity, "predict", watch)
    torch.set_num_threads(1)
    _, alone = tracked(propagator, {1: disc(0), 2: disc(0, 110)})
    torch.set_num_threads(2)
    _, beside = tracked(propagator, {1: disc(0), 2: disc(0, 110)})
    torch.set_num_threads(before)
    assert names == ["MainThread"] * 3 + ["beside"] * 3
    for a, b in zip(alone, beside, strict=True):
        torch.testing.assert_close(a.logits, b.logits, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(a.quality, b.quality, atol=1e-4, rtol=1e-4)


def test_guesses_contend_for_pixels() -> None:
    """Two of a kind side by side: affinity gives each pixel to one, alone either would take some of the other's."""
    propagator = nano()
    memory, _ = tracked(propagator, {1: disc(0), 2: disc(0, 75) & ~disc(0)})
    guesses = propagator._guesses(memory, propagator.encode([clip()[4]])[0])
    assert (guesses[1] > 0).any() and (guesses[2] > 0).any()
    assert not ((guesses[1] > 0) & (guesses[2] > 0)).any()


def test_a_branch_goes_on_like_its_origin() -> None:
    """Pathways of one object do not contend with each other."""
    propagator = nano()
    memory, _ = tracked(propagator, {1: disc(0)})
    features = propagator.encode([clip()[4]])[0]
    whole = propagator.predict(memory, features)
    twins = propagator.predict(propagator.branch(memory, {5: 1, 6: 1}), features)
    assert twins.ids == (5, 6)
    assert torch.allclose(twins.logits, whole.logits[[0, 0]], atol=1e-4)


def test_forgetting_leaves_the_others() -> None:
    propagator = nano()
    memory, _ = tracked(propagator, {1: disc(0), 2: disc(0, 120)})
    memory = propagator.forget(memory, [1])
    assert tuple(memory.banks) == memory.guessed.ids == (2,)
    assert propagator.predict(memory, propagator.encode([clip()[4]])[0]).ids == (2,)
    assert propagator.predict(propagator.empty(), propagator.encode([clip()[4]])[0]).ids == ()


def test_after_a_cut_objects_are_remembered_and_looked_for() -> None:
    propagator = nano()
    memory, _ = tracked(propagator, {1: disc(0)})
    held = memory.banks[1]
    other = np.random.default_rng(9).integers(0, 255, (12, 20, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    features = propagator.encode([Frame(4, other)])[0]
    belief = propagator.predict(memory, features)
    memory = propagator.commit(memory, features, belief)
    assert memory.guessed.ids == tuple(memory.banks) == (1,)
    assert memory.banks[1].recent == held.recent and memory.banks[1].now == held.now + 1
    memory, answer = propagator.prompt(memory, features, {1: disc(4)})
    assert memory.guessed.ids == (1,) and bool((answer.logits[0, 0] > 0).eq(disc(4)).all())


DISTURBED = {
    "black": lambda image: image * 0,
    "white": lambda image: image * 0 + 255,
    "noise": lambda image: np.random.default_rng(3).integers(0, 256, image.shape),
    "fog": lambda image: image * 0.2 + 180,
    "blur": lambda image: cv2.blur(image, (15, 15)),
    "dark": lambda image: image * 0.4,
    "bright": lambda image: np.minimum(image * 1.0 + 120, 255),
    "shift": lambda image: np.roll(image, SIZE[1] // 2, axis=1),
}


@pytest.mark.parametrize("way", DISTURBED)
@pytest.mark.parametrize("tree", [False, True])
def test_a_disturbed_frame_costs_that_frame_only(way: str, tree: bool) -> None:
    propagator: Any = MemoryTree(nano(ReliableFrames())) if tree else nano()
    frames = list(clip())
    frames[3] = Frame(3, DISTURBED[way](frames[3].image).astype(np.uint8))
    first, *others = propagator.encode(frames)
    memory, _ = propagator.prompt(propagator.empty(), first, {1: disc(0)})
    for t, features in enumerate(others, start=1):
        belief = propagator.predict(memory, features)
        memory = propagator.commit(memory, features, belief)
        assert belief.ids == (1,) and (t == 3 or iou(belief.masks(SIZE)[0], disc(t)) > 0.8)


def test_a_memory_is_a_value_that_can_be_saved(tmp_path: Path) -> None:
    propagator = nano()
    memory, _ = tracked(propagator, {1: disc(0)})
    store.save_memory(memory, tmp_path / "m.safetensors")
    features = propagator.encode([clip()[4]])[0]
    a, b = (propagator.predict(m, features).logits for m in (memory, store.load_memory(tmp_path / "m.safetensors")))
    assert torch.equal(a, b)


def test_the_encoder_is_shared() -> None:
    looked = encoder()(clip()[0])
    assert nano().encode([clip()[0]])[0].seen is looked  # type: ignore[attr-defined]


def single() -> SingleNano:
    return SingleNano(network(), encoder())


def test_one_hypothesis_is_the_best_of_three() -> None:
    memory, _ = tracked(nano(), {7: disc(0), 3: disc(0, 120)})
    features = nano().encode([clip()[4]])[0]
    whole, one = nano().predict(memory, features), single().predict(memory, features)
    assert one.logits.shape == (2, 1, *SIZE)
    for name in ("ids", "logits", "quality", "presence", "tokens"):
        a, b = getattr(whole.best, name), getattr(one, name)
        assert a == b if name == "ids" else torch.equal(a, b), name


@pytest.mark.parametrize("kind", [Nano, SingleNano])
def test_an_empty_hypothesis_is_the_best_where_absence_is_likelier(kind: type[Nano]) -> None:
    """Of three hypotheses the first is empty and predicts the best IoU; the object score says whether it is there."""
    guess = torch.full(SIZE, -4.0)
    guess[20:60, 20:60] = 4.0
    answers = Prediction(
        (1,),
        torch.stack([torch.full((1, 16, 16), v) for v in (-99.0, 0.0, 0.0)], 1),
        torch.tensor([[0.9, 0.6, 0.5]]),
        torch.tensor([[score := 1.0] * 3]),
        torch.arange(3.0)[None, :, None],
    )
    propagator = kind(network(), encoder())
    memory, _ = tracked(propagator, {1: disc(0)}, frames=1)
    there = propagator._draw(answers, {1: guess}, memory.guessed).best
    assert there.tokens.item() == 1 and (there.logits[0, 0] > 0).equal(guess > 0)  # 0.27 of the empty one < 0.6
    gone = propagator._draw(replace(answers, presence=-2 * answers.presence * score), {1: guess}, memory.guessed).best
    assert gone.tokens.item() == 0 and not (gone.logits > 0).any()  # 0.88 > 0.6


def test_bfloat16_gives_almost_the_same_masks_and_leaves_the_network_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    _, exact = tracked(nano_with(monkeypatch, False), {1: disc(0)}, frames=4)
    _, halves = tracked(nano_with(monkeypatch, True), {1: disc(0)}, frames=4)
    for a, b in zip(exact, halves, strict=True):
        assert iou(a.masks(SIZE)[0], b.masks(SIZE)[0]) > 0.98
        assert b.logits.dtype == torch.float32 and not torch.equal(a.logits, b.logits)
    propagator = nano_with(monkeypatch, True)
    assert propagator.core.net.memory_encoder.projection.weight.dtype == torch.bfloat16
    assert all(parameter.dtype == torch.float32 for parameter in propagator.net.parameters())


def nano_with(monkeypatch: pytest.MonkeyPatch, halves: bool) -> Nano:
    monkeypatch.setattr("masklet.models.nano.propagator.has_bfloat16_matrices", lambda: halves)
    return nano()


# -- many objects: turns


@given(count=st.integers(1, 70), most=st.integers(1, 20), frame=st.integers(-30, 1000))
def test_each_object_has_its_turn_as_often_as_any(count: int, most: int, frame: int) -> None:
    ids = list(range(100, 100 + count))
    rounds = -(-count // most)
    turns = [choose_turn(ids, frame + n, most) for n in range(rounds)]
    assert all(len(set(turn)) == len(turn) == min(count, most) for turn in turns)
    assert set().union(*turns) == set(ids)
    spread = [sum(id in choose_turn(ids, frame + n, most) for n in range(count)) for id in ids]
    assert set(spread) == {min(count, most)}


def test_of_twenty_objects_each_has_its_turn_in_three_frames_and_of_a_few_in_every_one() -> None:
    assert len(choose_turn(range(20), 4, TURNS)) == TURNS == 8
    assert {*choose_turn(range(20), 4, TURNS), *choose_turn(range(20), 5, TURNS)} == set(range(20)) - {8, 9, 10, 11}
    assert choose_turn(range(5), 4, TURNS) == [*range(5)] and choose_turn([], 4, TURNS) == []


CROWD: dict[int, Prompt] = {9 - n: disc(0, 20 + 30 * n) for n in range(5)}  # ids 9, 8, 7, 6, 5


def track_crowd(monkeypatch: pytest.MonkeyPatch, kind: type[Nano], turns: int) -> tuple[list[int], NanoMemory]:
    """How many masks were redrawn in each of three frames after the prompts, and the memory."""
    counts, redraw = list[int](), ImagePredictor.redraw

    def watch(self: ImagePredictor, image: Any, believed: Tensor) -> Tensor:
        counts.append(len(believed))
        return redraw(self, image, believed)

    monkeypatch.setattr("masklet.models.nano.propagator.TURNS", turns)
    with monkeypatch.context() as patch:
        patch.setattr(ImagePredictor, "redraw", watch)
        memory, _ = tracked(kind(network(), encoder()), CROWD)
    return counts, memory


def list_encoded_frames(memory: NanoMemory) -> dict[int, list[int]]:
    return {id: [e.time for e in bank.recent if e.spatial is not None] for id, bank in memory.banks.items()}


def test_many_are_redrawn_and_encoded_in_turns_and_all_leave_pointers(monkeypatch: pytest.MonkeyPatch) -> None:
    counts, memory = track_crowd(monkeypatch, SingleNano, 2)
    assert counts == [2, 2, 2]
    assert list_encoded_frames(memory) == {9: [2], 8: [3], 7: [1, 3], 6: [1], 5: [2]}  # 7 and 6, 5 and 9, 8 and 7
    assert all([e.time for e in bank.recent] == [1, 2, 3] for bank in memory.banks.values())


def test_a_few_and_those_of_several_hypotheses_have_their_turn_in_every_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, turns in ((SingleNano, 5), (Nano, 2)):
        counts, memory = track_crowd(monkeypatch, kind, turns)
        assert counts == [5, 5, 5]
        assert list_encoded_frames(memory) == {id: [1, 2, 3] for id in CROWD}


def test_whose_turn_it_is_has_the_mask_and_the_memory_that_it_has_without_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    propagator = single()
    first, second, third = propagator.encode(clip()[:3])
    memory, _ = propagator.prompt(propagator.empty(), first, CROWD)
    belief = propagator.predict(memory, second)
    whole = propagator.commit(memory, second, belief)
    monkeypatch.setattr("masklet.models.nano.propagator.TURNS", 2)
    monkeypatch.setattr("masklet.models.nano.propagator.load_quick_redrawer", load_image_predictor)
    drawn = zip(CROWD, belief.logits, propagator.predict(memory, second).logits, strict=True)
    assert {id for id, a, b in drawn if torch.equal(a, b)} == {7, 6}
    part = propagator.commit(memory, second, belief)
    for id in (7, 6):
        a, b = part.banks[id].recent[0].spatial, whole.banks[id].recent[0].spatial
        assert a is not None and b is not None
        torch.testing.assert_close(a.float(), b.float(), rtol=0.02, atol=0.02)
    for id in CROWD:
        assert torch.equal(part.banks[id].recent[0].pointer, whole.banks[id].recent[0].pointer)
    after = {id: propagator.policy.read(bank).shape for id, bank in part.banks.items()}
    assert after == {9: (1, 2), 8: (1, 2), 7: (2, 2), 6: (2, 2), 5: (1, 2)}  # frames and pointers that are read
    assert propagator.predict(part, third).ids == tuple(CROWD)


def test_looks_are_learnt_in_turns_and_then_as_much_as_in_all_frames_since(monkeypatch: pytest.MonkeyPatch) -> None:
    propagator = single()
    first, second = propagator.encode(clip()[:2])
    memory, _ = propagator.prompt(propagator.empty(), first, CROWD)
    belief = propagator.predict(memory, second)
    often = propagator.commit(memory, second, belief).guessed.recent.moment
    monkeypatch.setattr("masklet.models.nano.propagator.TURNS", 2)
    seldom = propagator.commit(memory, second, belief).guessed.recent.moment
    before = memory.guessed.recent.moment
    assert [torch.equal(a, b) for a, b in zip(before, often, strict=True)] == [False] * 5
    assert [torch.equal(a, b) for a, b in zip(before, seldom, strict=True)] == [True, True, False, False, True]
    share = (1 - 0.95**2.5) / 0.05  # 5 objects, 2 in each frame
    torch.testing.assert_close(seldom[2:4] - before[2:4], share * (often[2:4] - before[2:4]), rtol=1e-3, atol=1e-6)


# -- prompts


def test_a_given_mask_is_answered_as_it_is() -> None:
    propagator = nano()
    _, answer = propagator.prompt(propagator.empty(), propagator.encode(clip()[:1])[0], {1: disc(0)})
    assert torch.equal(answer.logits[0, 0] > 0, disc(0))


@pytest.mark.parametrize("prompt", [Box(30, 28, 71, 69), Point(50, 48), Clicks((Point(50, 48), Point(100, 20, False)))])
def test_boxes_and_clicks_are_answered_and_tracked(prompt: Prompt) -> None:
    propagator = nano()
    first, second = propagator.encode(clip()[:2])
    memory, answer = propagator.prompt(propagator.empty(), first, {1: prompt})
    assert answer.logits.shape == (1, 1, *SIZE)
    assert iou(answer.logits[0, 0] > 0, disc(0)) > 0.6
    assert iou(propagator.predict(memory, second).masks(SIZE)[0], disc(1)) > 0.6


def test_correcting_clicks_after_tracking_change_the_answer() -> None:
    propagator = nano()
    memory, _ = tracked(propagator, {1: disc(0)})
    features = propagator.encode([clip()[3]])[0]
    _, answer = propagator.prompt(memory, features, {1: Clicks((Point(20, 12, True),))})
    assert bool(answer.logits[0, 0, 12, 20] > 0) and bool(answer.logits[0, 0, 48, 68] > 0)


# -- the systems


class Finder:
    """Finds the disc in every frame from the second on."""

    categories = ("disc",)
    look_ahead = 0
    conf = low_conf = 0.5

    def empty(self) -> None:
        return None

    def segment(self, memory: None, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], None]:
        return [self.found(f.index) for f in frames], None

    @staticmethod
    def found(t: int) -> Detections:
        if t < 1:
            return Detections.none(SIZE)
        return Detections(disc(t)[None], torch.tensor([0.99]), torch.tensor([0]))


class Video:
    name, size, rate, damage = "disc", SIZE, 25.0, None

    def __len__(self) -> int:
        return len(clip())

    def __iter__(self) -> Iterator[Frame]:
        return iter(clip())

    def read(self, start: int, stop: int) -> list[Frame]:
        return list(clip()[start:stop])


def silent(phase: str, done: int, total: int | None, objects: int) -> None:
    pass


SYSTEMS = {
    "sam2bmp": lambda p: Sam2Bmp(Finder(), p, BmpSettings(feature_memory=0)),
    "sam2bmp over sam2long": lambda p: Sam2Bmp(Finder(), MemoryTree(p, uncertainty=100.0)),
    "deva": lambda p: Deva(Finder(), p, DevaSettings(backward=True)),
    "track": lambda p: Track(p, {2: {1: disc(2)}}),
}


@pytest.mark.parametrize("system", SYSTEMS)
def test_systems_run_on_it_in_both_directions(system: str) -> None:
    result = SYSTEMS[system](nano(ReliableFrames())).run(Video(), silent)
    [masklet] = result.masklets
    assert masklet.sightings.keys() == set(range(6))
    for t, sighting in masklet.sightings.items():
        assert iou(sighting.mask.decode(), disc(t)) > 0.7


def test_sam2long_grows_its_tree() -> None:
    tree = MemoryTree(nano(ReliableFrames()), paths=3, uncertainty=100.0)
    memory, beliefs = tracked(tree, {1: disc(0)}, frames=5)
    assert len(set(memory.trees[1].paths)) > 1
    for t, belief in enumerate(beliefs, start=1):
        assert iou(belief.masks(SIZE)[0], disc(t)) > 0.7


# -- files


def test_a_file_gives_the_same_network(tmp_path: Path) -> None:
    path = tmp_path / "nano.safetensors"
    half = create_nano(SETTINGS, seed=4).half().float()
    save_nano(path, half, SETTINGS)
    net, settings = read_nano(path)
    assert settings == SETTINGS
    assert all(torch.equal(a, b) for a, b in zip(half.state_dict().values(), net.state_dict().values(), strict=True))
    assert not net.training and not any(p.requires_grad for p in net.parameters())
    propagator = build_nano_propagator(path, encoder())
    assert set(propagator.weights) == {"mobilenetv2", "nano.safetensors", "nano-image-predictor", "nanodet"}
    assert propagator.description.startswith("nano, 96 px")


def test_the_network_runs_at_another_side(tmp_path: Path) -> None:
    save_nano(tmp_path / "a.safetensors", network(), replace(SETTINGS, side=96))
    propagator = build_nano_propagator(tmp_path / "a.safetensors", encoder())
    assert propagator.encode(clip()[:1])[0].coarse.shape == (128, 6, 6)


def test_files_that_are_no_nano_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "nano.safetensors"
    with pytest.raises(InputError, match="no such file"):
        build_nano_propagator(path, encoder())
    path.write_bytes(b"no tensors")
    with pytest.raises(InputError, match="damaged or cut off"):
        read_nano(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="not weights of a nano propagator"):
        read_nano(path)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "nano.safetensors"
    save_nano(path, network(), SETTINGS)
    state = load_file(path)
    told = {"kind": "nano-propagator", "settings": '{"side": 64, "layers": 1, "width": 32}'}
    for metadata in ({**told, "settings": "{"}, {**told, "settings": '{"side": 64}'}, {"kind": told["kind"]}):
        save_file(state, path, metadata)
        with pytest.raises(InputError, match="damaged"):
            read_nano(path)
    state.popitem()
    save_file(state, path, told)
    with pytest.raises(InputError, match="damaged"):
        read_nano(path)


def test_the_same_seed_gives_the_same_network() -> None:
    a, b, c = (create_nano(SETTINGS, seed=s).state_dict() for s in (1, 1, 2))
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert any(not torch.equal(a[k], c[k]) for k in a)
