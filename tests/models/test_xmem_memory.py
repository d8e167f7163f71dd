"""XMem's memory: what is read of it, and what becomes of what was written into it."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import xmem as twin
from torch import Tensor

from masklet.models.xmem import memory as xmem_memory
from masklet.models.xmem.memory import (
    DecodedMasks,
    MemoryGroup,
    MemoryLimits,
    MemoryTokens,
    ObjectTrace,
    XmemMemory,
    compute_affinity,
    compute_prototypes,
    compute_similarity,
    select_most_used,
)
from masklet.nn.xmem import VALUE, XmemQuery

C = 4  # channels of keys


def query(p: int, seed: int = 0, scale: float = 1.0) -> XmemQuery:
    draw = torch.Generator().manual_seed(seed)
    keys, shrinkage, selection = (torch.randn(p, n, generator=draw) for n in (C, 1, C))
    return XmemQuery(keys * scale, shrinkage[:, 0] ** 2 + 1, selection.sigmoid())


def tokens(m: int, seed: int = 0, ids: tuple[int, ...] = (1,), scale: float = 1.0) -> MemoryTokens:
    draw = torch.Generator().manual_seed(seed + 1000)
    values = {id: torch.randn(m, 3, generator=draw) for id in ids}
    fresh = MemoryTokens.of(query(m, seed, scale), values)
    return MemoryTokens(
        fresh.keys, fresh.shrinkage, fresh.selection, torch.rand(m, generator=draw), fresh.reads + 1, values
    )


def used(tokens: MemoryTokens, usage: list[float]) -> MemoryTokens:
    return MemoryTokens(
        tokens.keys, tokens.shrinkage, tokens.selection, torch.tensor(usage), tokens.reads, tokens.values
    )


def grown(frames: int, p: int, limits: MemoryLimits, ids: tuple[int, ...] = (1,)) -> list[MemoryGroup]:
    """A group after each of so many frames, read once between any two."""
    groups = [MemoryGroup((MemoryTokens.of(query(p), {id: torch.full((p, 2), float(id)) for id in ids}),))]
    for t in range(1, frames):
        group = groups[-1]
        found = compute_affinity(query(p, seed=-t), group.parts, 5)
        group = group.read(found.received(len(group)))
        frame = MemoryTokens.of(query(p, seed=t), {id: torch.full((p, 2), float(id + t)) for id in ids})
        groups.append(group.with_frame(frame, limits))
    return groups


def content(value: object) -> list[Tensor]:
    """All tensors in a memory."""
    if isinstance(value, Tensor):
        return [value.clone()]
    if isinstance(value, dict):
        return [t for v in value.values() for t in content(v)]
    if isinstance(value, tuple):
        return [t for v in value for t in content(v)]
    return [t for f in fields(value) for t in content(getattr(value, f.name))] if hasattr(value, "keys") else []


# -- reading


@given(p=st.integers(1, 6), m=st.integers(1, 9), seed=st.integers(0, 99))
def test_similarity_is_that_of_the_paper(p: int, m: int, seed: int) -> None:
    asked, held = query(p, seed), tokens(m, seed + 1)
    got = compute_similarity(asked.keys, asked.selection, held.keys, held.shrinkage)
    for i in range(p):
        for j in range(m):
            told = twin.similarity(
                *(x.numpy() for x in (asked.keys[i], asked.selection[i], held.keys[j])), held.shrinkage[j]
            )
            assert float(got[i, j]) == pytest.approx(told, abs=1e-5)


def test_similarity_by_hand() -> None:
    asked, selection = torch.tensor([[1.0, 2.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.5, 0.0, 1.0]])
    held, shrinkage = torch.tensor([[1.0, 2.0, 9.0, 0.0], [3.0, 0.0, 0.0, 0.0]]), torch.tensor([4.0, 2.0])
    # 0: only a channel differs that is not compared; else -(1 * 4 + 0.5 * 4) * 2 / 2
    torch.testing.assert_close(compute_similarity(asked, selection, held, shrinkage), torch.tensor([[0.0, -6.0]]))


@given(p=st.integers(1, 6), m=st.integers(1, 9), most=st.integers(1, 12), seed=st.integers(0, 99))
def test_a_cell_reads_the_most_similar_tokens(p: int, m: int, most: int, seed: int) -> None:
    asked, held = query(p, seed), tokens(m, seed + 1)
    found = compute_affinity(asked, [held], most)
    told = torch.tensor(
        [
            twin.shares(k, e, held.keys.numpy(), held.shrinkage.numpy(), most)
            for k, e in zip(asked.keys.numpy(), asked.selection.numpy(), strict=True)
        ]
    ).float()
    dense = torch.zeros(p, m).scatter_add_(1, found.tokens, found.shares)
    torch.testing.assert_close(dense, told, rtol=0, atol=1e-5)
    torch.testing.assert_close(found.of(held.values[1]), told @ held.values[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(found.received(m), told.sum(0), rtol=0, atol=1e-5)
    assert found.tokens.shape == (p, min(most, m))


def test_tokens_that_are_all_far_away_are_read_nonetheless() -> None:
    """exp of their similarities is 0 in float32: the released code divides 0 by 0 there."""
    asked, held = query(3, 0), tokens(5, 1, scale=100.0)
    assert float(compute_similarity(asked.keys, asked.selection, held.keys, held.shrinkage).max()) < -110
    shares = compute_affinity(asked, [held], 2).shares
    torch.testing.assert_close(shares.sum(1), torch.ones(3))


def test_reading_in_pieces_is_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, held = query(7), [tokens(4, 1), tokens(5, 2)]
    whole = compute_affinity(asked, held, 3)
    monkeypatch.setattr(xmem_memory, "SCORES", 20)  # two rows at a time
    pieces = compute_affinity(asked, held, 3)
    values = torch.cat([part.values[1] for part in held])
    torch.testing.assert_close(pieces.of(values), whole.of(values))


def test_usage_is_the_affinity_of_a_mean_read() -> None:
    held = tokens(3)
    fresh = MemoryTokens.of(query(3), held.values)
    assert fresh.usage.tolist() == [0, 0, 0]
    once = fresh.read(torch.tensor([1.0, 0.5, 0.0]))
    assert once.usage.tolist() == [1.0, 0.5, 0.0]
    assert once.read(torch.tensor([0.0, 0.5, 1.0])).usage.tolist() == [0.5, 0.5, 0.5]
    assert fresh.usage.tolist() == [0, 0, 0]


def test_a_group_counts_its_reads_token_by_token() -> None:
    group = MemoryGroup((tokens(2, 1), tokens(2, 2)), tokens(3, 3))
    received = torch.arange(7.0)
    after = group.read(received)
    assert after.long_term is not None and group.long_term is not None
    torch.testing.assert_close(after.long_term.received, group.long_term.received + received[:3])
    for n, part in enumerate(after.working):
        torch.testing.assert_close(part.received, group.working[n].received + received[3 + 2 * n : 5 + 2 * n])
    assert len(group) == 7 and all((part.reads == 2).all() for part in after.parts)


# -- writing


def test_consolidation_keeps_the_first_frame_and_the_last() -> None:
    limits = MemoryLimits(frames=5, recent=3, prototypes=4, long_term=100)
    groups = grown(9, 6, limits)
    lengths = [(len(g.working), 0 if g.long_term is None else len(g.long_term)) for g in groups]
    assert lengths == [(1, 0), (2, 0), (3, 0), (4, 0), (3, 4), (4, 4), (3, 8), (4, 8), (3, 12)]
    starts = [[float(w.values[1][0, 0]) for w in g.working] for g in (groups[4], groups[6], groups[8])]
    assert starts == [[1, 4, 5], [1, 6, 7], [1, 8, 9]]


def test_two_recent_frames_keep_the_last_one_only() -> None:
    limits = MemoryLimits(frames=4, recent=2, prototypes=2, long_term=100)
    assert [float(w.values[1][0, 0]) for w in grown(4, 6, limits)[-1].working] == [1, 4]
    limits = MemoryLimits(frames=4, recent=1, prototypes=2, long_term=100)
    assert [float(w.values[1][0, 0]) for w in grown(4, 6, limits)[-1].working] == [1]


def test_few_frames_stay_although_they_are_consolidated() -> None:
    """As released: with T_max = T_min + 1 nothing leaves working memory the first time."""
    groups = grown(6, 6, MemoryLimits(frames=4, recent=3, prototypes=2, long_term=100))
    assert [len(g.working) for g in groups] == [1, 2, 3, 4, 3, 4]
    assert [0 if g.long_term is None else len(g.long_term) for g in groups] == [0, 0, 0, 2, 4, 6]


@given(m=st.integers(1, 8), most=st.integers(1, 10), seed=st.integers(0, 99))
def test_prototypes_are_those_of_the_paper(m: int, most: int, seed: int) -> None:
    held = tokens(m, seed)
    new = compute_prototypes(held, most)
    own = [x.numpy() for x in (held.keys, held.selection, held.shrinkage, held.usage, held.values[1])]
    told = twin.prototypes(*own, most)
    assert len(new) == len(told) == min(m, most)
    for n, (key, shrinkage, value) in enumerate(told):
        np.testing.assert_array_equal(new.keys[n].numpy(), key)
        assert float(new.shrinkage[n]) == pytest.approx(shrinkage, abs=1e-5)
        np.testing.assert_allclose(new.values[1][n].numpy(), value, rtol=0, atol=1e-5)
    assert not new.received.any() and not new.reads.any()


@given(usage=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]), min_size=1, max_size=9), most=st.integers(0, 9))
def test_the_least_used_go_and_equals_with_them(usage: list[float], most: int) -> None:
    held = used(tokens(len(usage)), usage)
    kept = select_most_used(held, most)
    np.testing.assert_array_equal(kept.keys.numpy(), held.keys[twin.most_used(usage, most)].numpy())
    assert len(kept) <= most


def test_long_term_memory_makes_room_before_it_grows() -> None:
    limits = MemoryLimits(frames=5, recent=3, prototypes=4, long_term=10)
    sizes = [0 if g.long_term is None else len(g.long_term) for g in grown(41, 6, limits)]
    assert max(sizes) == 10 and sizes[6] == 8 and sizes[8] == 10
    assert all(len(g) <= 5 * 6 + 10 for g in grown(41, 6, limits))


def test_what_was_written_before_stays_as_it_was() -> None:
    limits = MemoryLimits(frames=4, recent=2, prototypes=3, long_term=5)
    before = grown(12, 6, limits)
    copies = [content(g.parts) for g in before]
    group = before[-1]
    group = group.read(torch.rand(len(group))).with_frame(MemoryTokens.of(query(6, 77), {1: torch.zeros(6, 2)}), limits)
    for g, copy in zip(before, copies, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(content(g.parts), copy, strict=True))


# -- groups of objects


def test_branching_renames_and_doubles_and_forgets() -> None:
    limits = MemoryLimits(frames=4, recent=2, prototypes=3, long_term=50)
    group = grown(6, 6, limits, ids=(1, 2))[-1]
    assert group.ids == (1, 2) and group.long_term is not None
    both = group.branch({5: 2, 6: 2, 7: 9})
    assert both is not None and both.ids == (5, 6) and len(both) == len(group) and both.long_term is not None
    for part, old in zip(both.parts, group.parts, strict=True):
        assert part.values[5] is old.values[2] and part.values[6] is old.values[2] and part.keys is old.keys
    assert group.branch({1: 9}) is None


def test_a_memory_branches_with_all_that_hangs_on_it() -> None:
    trace = ObjectTrace(torch.zeros(1, 1, 1), torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.bool))
    groups = (MemoryGroup((tokens(2, ids=(1, 2)),)), MemoryGroup((tokens(2, ids=(3,)),)))
    memory = XmemMemory({1: trace, 2: trace, 3: trace}, groups)
    memory = XmemMemory(memory.traces, memory.groups, memory)
    part = memory.branch({1: 1, 8: 2})
    assert list(part.traces) == [1, 8] and [g.ids for g in part.groups] == [(1, 8)]
    assert (
        part.unwritten and list(part.unwritten.traces) == [1, 8] and [g.ids for g in part.unwritten.groups] == [(1, 8)]
    )
    assert not memory.branch({}).groups


def test_what_a_mask_leaves_goes_through_tokens() -> None:
    left = DecodedMasks(torch.rand(2, VALUE, 2, 3), torch.rand(2, 32, 48), torch.rand(2), torch.rand(2, 7))
    back = DecodedMasks.of(left.tokens(), (32, 48))
    for f in fields(DecodedMasks):
        assert torch.equal(getattr(back, f.name), getattr(left, f.name))
    assert torch.equal(DecodedMasks.of(left.tokens()[[1]], (32, 48)).soft, left.soft[[1]])
