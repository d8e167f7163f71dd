"""SAMURAI's memory: the filter, what it changes in the choice of a hypothesis, what is remembered, and by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from models.test_sam3_tracker import PLACES, clip, propagator

import masklet
from masklet.core.features import count_tensor_bytes
from masklet.core.instances import Point
from masklet.core.memory import load_memory, save_memory
from masklet.models.sam2.memory import MemoryBank, MemoryEntry, RecentFrames, Sam2Memory, reverse_time
from masklet.models.sam2.motion_memory import (
    MotionAwareFrames,
    convert_from_box,
    convert_to_box,
    correct_motion,
    find_motion,
    predict_motion,
    start_motion,
)

SIDE = 48
POLICY = MotionAwareFrames()


def draw_square(x: int, y: int = 20, wide: int = 8) -> torch.Tensor:
    """Logits of a square."""
    logits = torch.full((SIDE, SIDE), -1.0)
    logits[y : y + wide, x : x + wide] = 1.0
    return logits


def make_entry(time: int, quality: float = 0.9, presence: float = 5.0) -> MemoryEntry:
    return MemoryEntry(time, torch.zeros(4), quality, presence, torch.zeros(4, 4, dtype=torch.bfloat16))


def pass_frame(bank: MemoryBank, logits: torch.Tensor, quality: float = 0.9, presence: float = 5.0) -> MemoryBank:
    entry = POLICY.mark(bank, make_entry(bank.now, quality, presence), logits[None])
    return POLICY.keep(replace(bank, now=bank.now + 1, recent=(*bank.recent, entry)))


def follow(frames: int) -> MemoryBank:
    """A square that goes one cell to the right each frame, up to column `frames`."""
    bank = MemoryBank(1, (make_entry(0, 1.0, 10.0),))
    for t in range(1, frames + 1):
        bank = pass_frame(bank, draw_square(t))
    return bank


def test_the_filter_expects_what_goes_on_as_it_did() -> None:
    motion = find_motion(follow(20))
    assert motion is not None and motion.seen == 20
    expected = convert_to_box(predict_motion(motion).mean[:4])
    torch.testing.assert_close(expected, torch.tensor([21.0, 20, 29, 28]).double(), atol=0.3, rtol=0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-50, 50), min_size=4, max_size=4), st.floats(1, 40), st.integers(1, 6))
def test_what_is_seen_makes_it_surer_and_time_less_so(at: list[float], size: float, frames: int) -> None:
    place = torch.tensor([*at[:2], size, size]).double()
    motion = start_motion(place)
    for _ in range(frames):
        later = predict_motion(motion)
        assert later.covariance.diagonal()[:4].sum() > motion.covariance.diagonal()[:4].sum()
        motion = correct_motion(later, place, 1)
        assert motion.covariance.diagonal()[:4].sum() < later.covariance.diagonal()[:4].sum()
        torch.testing.assert_close(motion.mean[:4], place)
        assert torch.linalg.eigvalsh(motion.covariance).min() > -1e-9
    box = convert_to_box(place)
    torch.testing.assert_close(convert_from_box(box), place)


def test_where_it_should_be_counts_once_it_is_settled() -> None:
    """A lookalike elsewhere that the network likes a little better."""
    hypotheses, quality = torch.stack([draw_square(40), draw_square(21)]), torch.tensor([0.85, 0.80])
    young, old = follow(10), follow(20)
    assert torch.equal(POLICY.weigh(young, hypotheses, quality), quality)
    weighed = POLICY.weigh(old, hypotheses, quality)
    assert weighed.argmax() == 1 and weighed[0] == pytest.approx(0.85 * 0.85)
    assert weighed[1] == pytest.approx(0.85 * 0.80 + 0.15, abs=0.02)


def test_what_was_weighed_is_remembered_with_its_own_quality() -> None:
    bank = follow(20)
    weighed = float(POLICY.weigh(bank, draw_square(21)[None], torch.tensor([0.8]))[0])
    entry = POLICY.mark(bank, make_entry(21, weighed), draw_square(21)[None])
    assert entry.quality == pytest.approx(0.8, abs=1e-6) and entry.fit > 0.9


def test_only_frames_that_fit_are_read() -> None:
    bank = follow(16)
    bank = pass_frame(bank, draw_square(17), quality=0.3)  # doubtful
    bank = pass_frame(bank, draw_square(40, 2), quality=0.9)  # sure, and elsewhere
    bank = pass_frame(bank, draw_square(19), presence=-3.0)  # not in sight
    bank = pass_frame(bank, draw_square(20))
    read = [e.time for e in POLICY.read(bank).frames]
    assert read == [0, 12, 13, 14, 15, 16, 20]  # 20 is the last frame: it always counts
    motion = find_motion(bank)
    assert motion is not None and motion.seen == 1  # it must settle again
    times = [e.time for e in bank.recent]
    assert len(times) <= 18


def test_a_prompt_begins_the_motion_anew() -> None:
    bank = follow(20)
    told = bank.with_prompt(make_entry(20), draw_square(20), 8)
    assert find_motion(bank) is not None and find_motion(told) is None
    back = reverse_time(Sam2Memory({1: bank})).banks[1]
    assert find_motion(back) is None


def test_where_all_is_sure_it_is_sam2_until_it_settles() -> None:
    """Of drawn weights no quality is high: what is remembered then is everything."""
    every = MotionAwareFrames(quality=-9.0)
    answers: list[list[torch.Tensor]] = []
    for policy in (RecentFrames(), every):
        tracker, found = propagator(policy), []
        memory = tracker.empty()
        for t, features in enumerate(tracker.encode(clip(6))):
            belief = tracker.predict(memory, features)
            memory = tracker.commit(memory, features, belief)
            if t == 0:
                memory, _ = tracker.prompt(memory, features, {1: Point(*PLACES[1])})
            found.append(belief.logits)
        answers.append(found)
    for one, other in zip(*answers, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_its_memory_is_bounded_and_saved(tmp_path: Path) -> None:
    tracker = propagator(MotionAwareFrames(quality=-9.0, settled=2))
    [features] = tracker.encode(clip(1))
    memory, _ = tracker.prompt(tracker.empty(), features, {1: Point(*PLACES[1])})
    sizes = []
    for _ in range(24):
        memory = tracker.commit(memory, features, tracker.predict(memory, features))
        sizes.append(count_tensor_bytes(memory))
    assert sizes[-1] == sizes[19] == max(sizes)
    save_memory(memory, tmp_path / "state")
    again: Any = load_memory(tmp_path / "state")
    expected = tracker.predict(memory, features)
    assert torch.equal(tracker.predict(again, features).quality, expected.quality)


def test_over_what_has_no_such_memory() -> None:
    with pytest.raises(masklet.InputError, match="samurai:nano: nano is no SAM 2; write samurai:sam2"):
        masklet.load(propagator="samurai:nano")
