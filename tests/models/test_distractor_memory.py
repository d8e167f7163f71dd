"""DAM4SAM's memory: what is marked, what is read of it, a twin that keeps everything, and by name over nano."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import masklet
from masklet.models.sam2.distractor_memory import DistractorAwareFrames, measure_box_share
from masklet.models.sam2.memory import MemoryBank, MemoryEntry

POLICY = DistractorAwareFrames()
SIDE = 16


def entry(time: int, quality: float = 0.9, presence: float = 5.0) -> MemoryEntry:
    return MemoryEntry(time, torch.full((8,), float(time)), quality, presence, torch.zeros(4, 4, dtype=torch.bfloat16))


def hypotheses(width: int = 4, apart: int | None = None) -> torch.Tensor:
    """Logits of a mask of 4 x `width` pixels, and of the same with another one `apart` pixels to the right."""
    masks = torch.full((2, SIDE, SIDE), -1.0)
    masks[0, 4:8, :width] = 1
    masks[1] = masks[0]
    if apart is not None:
        masks[1] = -1.0
        masks[1, 4:8, apart : apart + 4] = 1
    return masks


def pass_frame(bank: MemoryBank, seen: MemoryEntry, masks: torch.Tensor, keep: bool = True) -> MemoryBank:
    marked = POLICY.mark(bank, seen, masks)
    bank = replace(bank, now=bank.now + 1, recent=(*bank.recent, marked))
    return POLICY.keep(bank) if keep else bank


def begin() -> MemoryBank:
    return MemoryBank(1, (entry(0, 1.0, 10.0),))


def read_times(bank: MemoryBank) -> tuple[list[int], list[int]]:
    found = POLICY.read(bank)
    assert all(e.spatial is not None for e in found.frames)
    return [e.time for e in found.frames], list(found.ranks)


def test_samples_are_taken_now_and_then_and_the_last_frame_is_one() -> None:
    bank = begin()
    for t in range(1, 14):
        bank = pass_frame(bank, entry(t), hypotheses())
    assert read_times(bank) == ([0, 6, 11, 13], [0, 3, 2, 1])
    assert [e.time for e in POLICY.read(bank).pointers] == [0, *range(13, 0, -1)]


def test_what_looks_alike_is_remembered_without_a_time() -> None:
    bank = begin()
    for t in range(1, 14):
        bank = pass_frame(bank, entry(t), hypotheses(apart=12 if t in (7, 8) else None))
    assert read_times(bank) == ([0, 7, 6, 11, 13], [0, 0, 3, 2, 1])  # 8 is too soon after 7


@pytest.mark.parametrize(
    ("quality", "presence", "width", "apart"),
    [(0.7, 5.0, 4, 12), (0.9, -1.0, 4, 12), (0.9, 5.0, 5, 12), (0.9, 5.0, 4, 1), (0.9, 5.0, 4, None)],
    ids=["unsure", "absent", "grown by a quarter", "near by", "nothing alike"],
)
def test_no_anchor(quality: float, presence: float, width: int, apart: int | None) -> None:
    bank = begin()
    for t in range(1, 7):
        bank = pass_frame(bank, entry(t), hypotheses())
    assert POLICY.mark(bank, entry(7), hypotheses(apart=12)).is_anchor
    assert not POLICY.mark(bank, entry(7, quality, presence), hypotheses(width, apart)).is_anchor


def test_in_a_long_absence_what_was_seen_stays() -> None:
    bank = begin()
    for t in range(1, 60):
        bank = pass_frame(bank, entry(t, presence=5.0 if t <= 13 else -5.0), hypotheses())
    assert read_times(bank) == ([0, 6, 11, 13], [0, 3, 2, 1])


FRAMES = st.lists(
    st.tuples(st.sampled_from([0.5, 0.9]), st.sampled_from([-2.0, 4.0, 4.0]), st.sampled_from([None, 5, 12])),
    max_size=60,
)


@given(FRAMES)
def test_what_is_dropped_is_never_read_and_little_is_kept(frames: list[tuple[float, float, int | None]]) -> None:
    kept = whole = begin()
    for t, (quality, presence, apart) in enumerate(frames, start=1):
        kept, whole = (
            pass_frame(bank, entry(t, quality, presence), hypotheses(apart=apart), keep)
            for bank, keep in ((kept, True), (whole, False))
        )
        for undone in (False, True):  # a prompt asks for the frame that was just seen again
            a, b = (bank.before(t) if undone else bank for bank in (kept, whole))
            assert read_times(a) == read_times(b)
            assert [e.time for e in POLICY.read(a).pointers] == [e.time for e in POLICY.read(b).pointers]
        assert len(kept.recent) <= 24 and sum(e.spatial is not None for e in kept.recent) <= 9


@given(st.integers(0, 2**32 - 1))
def test_a_box_has_a_share_of_a_joint_one(seed: int) -> None:
    masks = np.random.default_rng(seed).random((3, 6, 7)) > 0.7
    masks[0, 2, 3] = True
    assert 0 < measure_box_share(masks) <= 1 == measure_box_share(masks[:1]) == measure_box_share(masks[[0, 0]][:1])


def clip() -> np.ndarray:
    """Two squares that look alike; one is asked for."""
    frames = np.zeros((8, 48, 96, 3), np.uint8)
    for t, frame in enumerate(frames):
        frame[:] = 60
        frame[10:26, 4 + 2 * t : 20 + 2 * t] = frame[28:44, 70 - 3 * t : 86 - 3 * t] = (200, 80, 60)
    return frames


def test_over_nano_by_name_with_settings_and_in_the_result() -> None:
    frames = clip()
    prompts = {0: {1: (frames[0] == (200, 80, 60)).all(2) & (np.arange(96) < 40)}}
    result = masklet.load(propagator=("dam:nano", {"every": 2})).track(frames, prompts)
    assert "every=2" in result.provenance.settings["propagator"]
    [one] = result.masklets
    for t, sighting in one.sightings.items():
        assert sighting.mask.box[2] <= 24 + 2 * t + 6, t  # on the square that was asked for


@pytest.mark.parametrize(
    ("name", "words"),
    [("dam", "say over which propagator, such as dam:nano"), ("dam:affinity", "does not remember as SAM 2 does")],
)
def test_over_what_it_cannot_be(name: str, words: str) -> None:
    with pytest.raises(masklet.InputError, match=words):
        masklet.load(propagator=name)
