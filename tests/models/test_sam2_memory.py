"""What SAM 2's banks keep and read: worked examples, twins that keep everything, and bounds."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from masklet.core import memory as store
from masklet.core.features import count_tensor_bytes
from masklet.models.sam2.memory import (
    MemoryBank,
    MemoryEntry,
    MemoryPolicy,
    MemoryReading,
    RecentFrames,
    ReliableFrames,
    Sam2Memory,
    compute_key_factors,
    reverse_time,
    select_closest,
    shift_time,
)

POLICIES = [RecentFrames(), RecentFrames(2), RecentFrames(pointers=4), ReliableFrames(), ReliableFrames(pointers=4)]
NAMES = ["recent", "recent-2-conditioning", "recent-4-pointers", "reliable", "reliable-4-pointers"]


def entry(time: int, quality: float = 0.9, presence: float = 5.0) -> MemoryEntry:
    return MemoryEntry(time, torch.full((8,), float(time)), quality, presence, torch.zeros(16, 4, dtype=torch.bfloat16))


def bank(now: int, *prompted: int, recent: tuple[MemoryEntry, ...] | None = None) -> MemoryBank:
    """A bank of perfect frames from 1 to now - 1, but for those prompted."""
    seen = [entry(t) for t in range(1, now) if t not in prompted] if recent is None else recent
    return MemoryBank(now, tuple(entry(t, 1.0, 10.0) for t in prompted or (0,)), tuple(seen))


def told(reading: MemoryReading) -> dict[str, list[float]]:
    """A reading by times."""
    assert all(e.spatial is not None for e in reading.frames)
    return {
        "frames": [e.time for e in reading.frames],
        "ranks": list(reading.ranks),
        "pointers": [e.time for e in reading.pointers],
        "distances": list(reading.distances),
    }


# -- SAM 2's rule


def test_recent_frames_of_a_full_memory() -> None:
    got = told(RecentFrames().read(bank(30)))
    assert got["frames"] == [0, 24, 25, 26, 27, 28, 29] and got["ranks"] == [0, 6, 5, 4, 3, 2, 1]
    assert got["pointers"] == [0, *range(29, 14, -1)]
    assert got["distances"] == [d / 15 for d in (30, *range(1, 16))]


def test_recent_frames_go_by_true_distance() -> None:
    """Frames of which nothing is remembered leave gaps; nothing moves up."""
    seen = tuple(entry(t) for t in (1, 6, 7, 9))
    got = told(RecentFrames().read(bank(11, recent=seen)))
    assert got["frames"] == [0, 6, 7, 9] and got["ranks"] == [0, 5, 4, 2]
    assert got["pointers"] == [0, 9, 7, 6, 1] and got["distances"] == [d / 15 for d in (11, 2, 4, 5, 10)]


def test_frames_beyond_the_reach_are_not_read() -> None:
    assert told(RecentFrames().read(bank(40, recent=(entry(3),)))) == {"frames": [0], "ranks": [0], "pointers": [0], "distances": [40 / 15]}  # fmt: skip


def test_of_a_frame_that_was_not_encoded_the_pointer_alone_is_read() -> None:
    """Every other frame was encoded: those that were keep their distances, and the six frames reach no further back."""
    seen = tuple(replace(entry(t), spatial=None) if t % 2 else entry(t) for t in range(1, 10))
    got = told(RecentFrames().read(bank(10, recent=seen)))
    assert got["frames"] == [0, 4, 6, 8] and got["ranks"] == [0, 6, 4, 2]
    assert got["pointers"] == [0, *range(9, 0, -1)]
    assert RecentFrames().keep(bank(10, recent=seen)).recent[-2:] == seen[-2:]


def test_the_frame_after_the_prompt_reads_the_prompt_alone() -> None:
    got = RecentFrames().read(bank(1))
    assert told(got) == {"frames": [0], "ranks": [0], "pointers": [0], "distances": [1 / 15]}
    assert got.frame_weights is None and got.pointer_weights is None and got.shape == (1, 1)


def test_a_conditioning_frame_that_is_not_selected_counts_as_any_other() -> None:
    got = told(RecentFrames(1).read(bank(10, 0, 6)))
    assert got["frames"] == [6, 4, 5, 7, 8, 9] and got["ranks"] == [0, 6, 5, 3, 2, 1]
    got = told(RecentFrames(1).read(bank(10, 0, 5, 8)))
    assert got["frames"] == [8, 4, 5, 6, 7, 9] and got["ranks"] == [0, 6, 5, 4, 3, 1]
    assert got["pointers"] == [8, 9, 7, 6, 5, 4, 3, 2, 1, 0] and got["distances"][-1] == 10 / 15


def test_a_conditioning_frame_yet_to_come_has_no_pointer() -> None:
    """After `reverse_time`: the prompt of frame 12 is read on the way to it, as official SAM 2 does."""
    ahead = MemoryBank(10, (entry(12), entry(3)), (entry(9),))
    got = told(RecentFrames().read(ahead))
    assert got["frames"] == [12, 3, 9] and got["pointers"] == [3, 9] and got["distances"] == [7 / 15, 1 / 15]


@pytest.mark.parametrize(
    ("times", "most", "chosen"),
    [
        ((0, 5, 9, 20), 1, [9]),
        ((0, 5, 9, 20), 2, [9, 20]),
        ((0, 5, 9, 20), 3, [9, 20, 5]),
        ((0, 5, 9), 2, [9, 5]),
        ((12, 20), 1, [12]),
        ((0, 5, 9, 20), 4, [0, 5, 9, 20]),
        ((0, 5, 9, 20), None, [0, 5, 9, 20]),
        ((4, 10, 16), 2, [4, 10]),  # the frame to come is not before itself
        ((1, 9, 10, 12, 13), 4, [9, 10, 12, 13]),
    ],
)
def test_closest_conditioning_frames(times: tuple[int, ...], most: int | None, chosen: list[int]) -> None:
    assert [e.time for e in select_closest([entry(t) for t in times], 10, most)] == chosen


@given(st.sets(st.integers(0, 40), min_size=1, max_size=9), st.integers(0, 40), st.integers(1, 9))
def test_closest_is_a_selection_with_the_neighbours_in_it(times: set[int], now: int, most: int) -> None:
    entries = [entry(t) for t in sorted(times)]
    chosen = [e.time for e in select_closest(entries, now, most)]
    assert len(chosen) == len(set(chosen)) == min(most, len(times)) and set(chosen) <= times
    before, after = [t for t in times if t < now], [t for t in times if t >= now]
    if before:
        assert max(before) in chosen
    if after and most > 1:
        assert min(after) in chosen


# -- SAM2Long's rule

POOR, GONE = (0.2, 5.0), (0.9, -3.0)  # a frame seen badly, a frame without the object


def long_bank(states: list[tuple[float, float]]) -> MemoryBank:
    return bank(len(states) + 1, recent=tuple(entry(t, *s) for t, s in enumerate(states, start=1)))


def test_reliable_frames_are_ranked_and_the_oldest_leaves_no_pointer() -> None:
    good = (0.9, 5.0)
    got = told(ReliableFrames().read(long_bank([good, POOR, good, GONE, good])))
    assert got["frames"] == [0, 1, 3, 5] and got["ranks"] == [0, 3, 2, 1]
    assert got["pointers"] == [0, 5, 3] and got["distances"] == [6 / 15, 1 / 15, 2 / 15]


@pytest.mark.parametrize("last", [POOR, GONE])
def test_the_last_frame_is_read_reliable_or_not(last: tuple[float, float]) -> None:
    got = told(ReliableFrames().read(long_bank([(0.9, 5.0), POOR, last])))
    assert got["frames"] == [0, 1, 3] and got["ranks"] == [0, 2, 1] and got["pointers"] == [0, 3]


def test_with_no_reliable_frame_only_the_last_one_is_read() -> None:
    got = ReliableFrames().read(long_bank([POOR, GONE, POOR]))
    assert told(got) == {"frames": [0, 3], "ranks": [0, 1], "pointers": [0], "distances": [4 / 15]}
    assert got.pointer_weights == [0.94921875] and got.frame_weights == pytest.approx([1.05, 0.95])


def test_an_unreliable_frame_before_a_prompt_is_not_the_last_one() -> None:
    """The last frame is the prompted one, and is read as such; the poor frame before it has no claim."""
    held = long_bank([(0.9, 5.0), POOR, POOR]).with_prompt(entry(3, 1.0, 10.0), torch.zeros(2, 2), 8)
    got = told(ReliableFrames().read(held))
    assert got["frames"] == [0, 3, 1] and got["ranks"] == [0, 0, 1] and got["pointers"] == [0, 3]


def test_thresholds_are_strict() -> None:
    policy = ReliableFrames(quality=0.25)
    limits = [(0.25, 5.0), (0.2500001, 5.0), (0.9, 0.0), (0.9, 1e-6)]
    assert [policy.is_reliable(entry(1, *s)) for s in limits] == [False, True, False, True]


def test_fifteen_reliable_frames_and_the_last_at_most() -> None:
    assert [e.time for e in ReliableFrames().valid(bank(40))] == list(range(25, 40))
    got = long_bank([(0.9, 5.0)] * 38 + [GONE])
    assert [e.time for e in ReliableFrames().valid(got)] == [*range(24, 39), 39]
    reading = told(ReliableFrames().read(got))
    assert reading["frames"] == [0, *range(34, 40)] and reading["pointers"] == [0, *range(39, 24, -1)]
    assert max(reading["distances"][1:]) == 1.0


def test_nothing_is_weighted_while_there_is_only_the_prompt() -> None:
    got = ReliableFrames().read(bank(1))
    assert told(got) == {"frames": [0], "ranks": [0], "pointers": [0], "distances": [1 / 15]}
    assert got.frame_weights is None and got.pointer_weights is None


def test_the_surest_frame_has_the_largest_factor() -> None:
    got = ReliableFrames().read(long_bank([(0.9, 12.0), (0.9, 3.0), (0.9, 7.0)]))
    assert got.frame_weights == pytest.approx([1.05 - 0.1 / 3, 1.05, 0.95, 0.95 + 0.1 / 3])  # the prompt counts as 10
    assert [e.time for e in got.pointers] == [0, 3, 2] and got.pointer_weights == pytest.approx([1.05, 1.0, 0.95])


def test_every_conditioning_frame_counts_as_ten_at_its_true_distance() -> None:
    states = tuple(entry(t, 0.9, 20.0) for t in (1, 2, 4))
    got = ReliableFrames().read(bank(5, 0, 3, recent=states))
    assert told(got)["frames"] == [0, 3, 1, 2, 4] and told(got)["ranks"] == [0, 0, 3, 2, 1]
    assert told(got)["pointers"] == [0, 3, 4, 2]
    assert got.distances == [5 / 15, 2 / 15, 1 / 15, 2 / 15]
    assert got.frame_weights == pytest.approx([0.95, 0.975, 1.0, 1.025, 1.05])  # equal scores: list order


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([10.0], [0.94921875]),
        ([10.0, 3.0], [1.05, 0.95]),
        ([3.0, 3.0, 3.0], [0.95, 1.0, 1.05]),
        ([5.0, -1.0, 5.0, 0.0, 9.0], [1.0, 0.95, 1.025, 0.975, 1.05]),
    ],
)
def test_factors(scores: list[float], expected: list[float]) -> None:
    assert compute_key_factors(scores, (0.95, 1.05)) == pytest.approx(expected, abs=1e-6)


@given(st.lists(st.integers(-3, 3).map(float), min_size=2, max_size=17))
def test_factors_are_evenly_spaced_and_in_the_order_of_the_scores(scores: list[float]) -> None:
    found = compute_key_factors(scores, (0.95, 1.05))
    assert sorted(found) == pytest.approx([0.95 + 0.1 * n / (len(scores) - 1) for n in range(len(scores))], abs=1e-6)
    order = sorted(range(len(scores)), key=lambda n: found[n])
    assert [(scores[n], n) for n in order] == sorted((s, n) for n, s in enumerate(scores))


# -- what is dropped is never read, and what is kept is bounded

Step = tuple[float, float, str]  # quality, presence, what happens in the frame
HAPPENS = ["seen", "seen", "seen", "seen", "unseen", "seen and prompted", "seen and prompted twice", "prompted"]
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.1, 0.3, 0.6, 0.9, 0.9]),
        st.sampled_from([-4.0, 0.0, 3.0, 4.0, 12.0, 15.0]),
        st.sampled_from(HAPPENS),
    ),
    max_size=70,
)


def stepped(
    policy: MemoryPolicy, bank: MemoryBank, step: Step, keep: bool, most: int
) -> tuple[MemoryBank, list[MemoryReading]]:
    """One frame as `Sam2` treats it, and all that was read for it."""
    quality, presence, what = step
    readings = [policy.read(bank)]
    new, bank = entry(bank.now, quality, presence), replace(bank, now=bank.now + 1)
    if what.startswith("seen"):
        bank = replace(bank, recent=(*bank.recent, new))
        bank = policy.keep(bank) if keep else bank
    for _ in range(0 if "prompted" not in what else 2 if "twice" in what else 1):
        readings.append(policy.read(bank.before(bank.now - 1)))
        bank = bank.with_prompt(entry(bank.now - 1, 1.0, 10.0), torch.zeros(2, 2), most)
    return bank, readings


def test_six_spatial_memories_are_kept_however_few_pointers_are_read() -> None:
    policy, whole = RecentFrames(pointers=4), bank(9)
    assert told(policy.read(policy.keep(whole)))["frames"] == told(policy.read(whole))["frames"] == [0, *range(3, 9)]


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
@given(steps=STEPS, most=st.sampled_from([1, 2, 8]))
def test_what_is_dropped_is_never_read(policy: MemoryPolicy, steps: list[Step], most: int) -> None:
    """A twin that keeps everything reads the same."""
    kept = whole = bank(1)
    for step in steps:
        kept, got = stepped(policy, kept, step, True, most)
        whole, expected = stepped(policy, whole, step, False, most)
        for a, b in zip(got, expected, strict=True):
            assert told(a) == told(b)
            assert (a.frame_weights, a.pointer_weights) == (b.frame_weights, b.pointer_weights)


@pytest.mark.parametrize("policy", POLICIES, ids=NAMES)
@given(steps=STEPS)
@settings(max_examples=25)
def test_what_is_kept_is_in_order_and_bounded(policy: MemoryPolicy, steps: list[Step]) -> None:
    held = bank(1)
    for step in steps:
        held, _ = stepped(policy, held, step, True, 8)
        times = [e.time for e in held.recent]
        assert times == sorted(set(times)) and all(t < held.now for t in times)
        assert not {e.time for e in held.prompted} & set(times)
        assert len(held.recent) <= 18 and len(held.prompted) <= 8
        assert sum(e.spatial is not None for e in held.recent) <= 8


@pytest.mark.parametrize("every", [0, 10])
@pytest.mark.parametrize("policy", [RecentFrames(), ReliableFrames()], ids=["recent", "reliable"])
def test_a_bank_after_510_frames_is_as_large_as_after_60(policy: MemoryPolicy, every: int) -> None:
    held, sizes = bank(1), {}
    for t in range(1, 511):
        what = "seen and prompted" if every and t % every == 0 else "seen"
        held, _ = stepped(policy, held, (0.9 if t % 3 else 0.1, 4.0, what), True, 8)
        sizes[t] = count_tensor_bytes(held), len(held.recent), len(held.prompted)
    assert sizes[510] == sizes[120]  # the pattern repeats every 30 frames; 8 prompts are there from frame 70 on
    assert sizes[510] == sizes[60] or every == 10


def test_during_a_long_absence_the_reliable_frames_stay() -> None:
    held = bank(1)
    for t in range(1, 301):
        held, _ = stepped(ReliableFrames(), held, (0.9, 4.0 if t <= 20 else -4.0, "seen"), True, 8)
    got = told(ReliableFrames().read(held))
    assert got["frames"] == [0, 16, 17, 18, 19, 20, 300] and got["pointers"] == [0, 300, *range(20, 6, -1)]


# -- prompts


def test_the_anchor_and_the_latest_prompts_stay() -> None:
    held = bank(1)
    for t in range(1, 12):
        held = replace(held, now=t + 1).with_prompt(entry(t), torch.zeros(2, 2), 4)
    assert [e.time for e in held.prompted] == [0, 9, 10, 11]


def test_a_prompt_takes_the_place_of_what_was_believed_and_of_an_earlier_prompt() -> None:
    first, second = entry(5), entry(5)
    held = bank(6).with_prompt(first, torch.zeros(2, 2), 8)
    assert [e.time for e in held.recent] == [1, 2, 3, 4] and [e.time for e in held.prompted] == [0, 5]
    held = held.with_prompt(second, torch.ones(2, 2), 8)
    assert held.prompted[-1] is second and len(held.prompted) == 2 and held.now == 6
    assert held.logits is not None and held.logits.all()


def test_before_is_the_bank_of_the_frame_before() -> None:
    then = bank(6).before(5)
    assert then.now == 5 and [e.time for e in then.recent] == [1, 2, 3, 4] and then.logits is None
    assert told(RecentFrames().read(then)) == told(RecentFrames().read(bank(5)))


# -- the clock


def memory_of(times: set[int], now: int) -> Sam2Memory:
    seen = tuple(entry(t) for t in sorted(times - {0}))
    return Sam2Memory({3: MemoryBank(now, (entry(0),), seen, torch.ones(2, 2)), 7: bank(now)})


def plain(memory: Sam2Memory) -> dict[int, tuple[int, list[int], list[int]]]:
    return {i: (b.now, [e.time for e in b.prompted], [e.time for e in b.recent]) for i, b in memory.banks.items()}


@given(st.sets(st.integers(0, 30), max_size=20), st.integers(-40, 40))
@settings(max_examples=20)
def test_passed_and_turned_are_undone(times: set[int], frames: int) -> None:
    memory = memory_of(times, 31)
    assert plain(shift_time(shift_time(memory, frames), -frames)) == plain(memory)
    assert plain(reverse_time(reverse_time(memory))) == plain(memory)
    assert plain(shift_time(reverse_time(shift_time(reverse_time(memory), frames)), frames)) == plain(memory)


def test_turned_reads_what_was_to_come() -> None:
    """A memory of frames 0 to 9, about to see frame 5 on the way back, reads frames 6, 7, ... at distances 1, 2, ..."""
    there = shift_time(Sam2Memory({1: bank(10)}), -5)
    assert [e.time for e in reverse_time(there).banks[1].recent] == list(range(-9, 0))  # oldest first, as ever
    got = told(RecentFrames().read(reverse_time(there).banks[1]))
    assert got["frames"] == [0, -9, -8, -7, -6] and got["ranks"] == [0, 4, 3, 2, 1]
    assert got["pointers"] == [-6, -7, -8, -9]


@given(st.sets(st.integers(0, 30), max_size=20))
@settings(max_examples=10)
def test_a_saved_memory_is_read_the_same(tmp_path_factory: pytest.TempPathFactory, times: set[int]) -> None:
    path = tmp_path_factory.mktemp("memory") / "m.safetensors"
    memory = memory_of(times, 31)
    store.save_memory(memory, path)
    loaded = store.load_memory(path)
    assert plain(loaded) == plain(memory) and count_tensor_bytes(loaded) == count_tensor_bytes(memory)
    for policy in POLICIES:
        assert all(told(policy.read(loaded.banks[i])) == told(policy.read(b)) for i, b in memory.banks.items())


def test_the_policies_are_policies() -> None:
    assert all(isinstance(policy, MemoryPolicy) for policy in POLICIES)
