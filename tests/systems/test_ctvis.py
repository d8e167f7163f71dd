"""The memory bank of CTVIS: what it keeps while an object is away, and that it does not grow."""

from __future__ import annotations

import pytest
import torch
from slot_toys import Clip, ToySlots, quiet, shuffled
from test_minvis import live, told

from masklet.core.errors import InputError
from masklet.core.memory import load_memory, save_memory
from masklet.core.slots import FrameSlots
from masklet.systems.ctvis import BankMatching, CtvisSettings, EmbeddingBank, build_ctvis_system, update_bank
from masklet.systems.minvis import QueryMatching


def run(segmenter=None, **settings):
    return build_ctvis_system(segmenter or ToySlots(), CtvisSettings(**settings)).run(Clip(), quiet)


def test_slots_that_change_places_keep_their_identity():
    assert told(run(ToySlots(order=shuffled()), repeats=False)) == told(run(repeats=False))


def make_slots(queries, absent=()):
    """One frame of slots, of which some are no object."""
    logits = torch.zeros(1, len(queries), 2)
    logits[0, :, 0], logits[0, list(absent), 0], logits[0, list(absent), 1] = 5.0, 0.0, 5.0
    return FrameSlots(queries[None], logits, torch.zeros(1, 3, 1, 1), torch.zeros(1, len(queries), 1, 1), (4, 4))


def follow(tracker, frames):
    memory, orders = None, []
    for slots in frames:
        tracked, memory = tracker.follow(memory, slots)
        orders.append(tracked.order.tolist())
    return orders, memory


def test_an_object_that_was_hidden_comes_back_to_its_track():
    """Two objects; the second is hidden for two frames, and its slot looks like the first one meanwhile."""
    seen = torch.eye(3)[:2]
    away = torch.tensor([[[1.0, 0.3, 0.0], [0.0, 0.3, 1.0]], [[0.7, 0.7, 0.0], [0.7, 0.0, 0.7]]])
    frames = [make_slots(seen), *(make_slots(one, [1]) for one in away), make_slots(seen[[1, 0]])]
    nearer = [make_slots(seen), make_slots(torch.tensor([[0.1, 1.0, 0.0], [0.0, 0.2, 1.0]]), [0, 1])]
    assert follow(BankMatching(), frames)[0][-1] == [1, 0]
    assert follow(QueryMatching(), frames)[0][-1] == [0, 1]  # MinVIS gives both to the other track
    _, memory = follow(BankMatching(), nearer)
    assert torch.equal(memory.average, seen)  # nothing was there to be remembered
    _, last = follow(QueryMatching(), nearer)
    assert not torch.equal(last.queries, seen)


def test_an_embedding_moves_the_average_as_far_as_it_is_like_the_last_ones():
    bank = EmbeddingBank(torch.eye(2), torch.eye(2)[None])
    now = torch.tensor([[1.0, 1.0], [0.0, -1.0]])  # cosines 0.71 and -1
    moved = update_bank(bank, now, torch.tensor([True, True]), 3)
    share = 2**-0.5
    torch.testing.assert_close(moved.average, torch.tensor([[1.0, share], [0.0, 1.0]]))
    assert torch.equal(update_bank(bank, now, torch.tensor([False, False]), 3).average, torch.eye(2))


@pytest.mark.parametrize("remembered", [1, 3])
def test_the_memory_stops_growing(remembered):
    frames = [make_slots(torch.randn(4, 3, generator=torch.Generator().manual_seed(t))) for t in range(9)]
    assert follow(BankMatching(remembered), frames)[1].last.shape == (remembered, 4, 3)


def test_a_stream_goes_on_where_it_was_cut(tmp_path):
    made = build_ctvis_system(ToySlots(order=shuffled()))
    frames = [*Clip(5)]
    whole = made.stream(frames)
    want = live(whole)
    first = made.stream(frames[:3])
    got = live(first)
    save_memory(first.state, tmp_path / "state")
    got += live(made.stream(frames[3:], load_memory(tmp_path / "state")))
    assert got == want


def test_settings_that_cannot_be():
    with pytest.raises(InputError, match="remembered = 0: it counts embeddings"):
        CtvisSettings(remembered=0)
    with pytest.raises(InputError, match="present = 2: it is a probability"):
        CtvisSettings(present=2)
