"""SAM2Long's tree over a scripted propagator, against a twin that computes every pathway and stores every table."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from golden.sam2_fixtures import FOLDER, clip, network, object_mask
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toys import Place, ToyPropagator, ToySegmenter, World, moving, still

from masklet.core import memory as store
from masklet.core.budget import MemoryBudget
from masklet.core.frames import Frame
from masklet.core.instances import Box, Branches, Detections, Point, Prediction, Prompt
from masklet.core.protocols import Propagator
from masklet.core.rle import Rle
from masklet.core.tracks import Source, TrackBook
from masklet.models.sam2.memory import ReliableFrames, Sam2Memory
from masklet.models.sam2.propagator import Sam2, Sam2Features
from masklet.systems.sam2bmp import Sam2Bmp, Sam2BmpSettings
from masklet.systems.sam2long import MemoryTree, ObjectPathways, drop_repeated_continuations, select_pathways
from masklet.systems.sweep import note_prediction
from masklet.systems.track import Prompts, Track

SIZE = (4, 4)
History = tuple[int, ...]  # what was prompted (100 and more), and which hypotheses were taken since
Said = tuple[list[float], float, list[Tensor]]  # quality and mask of each hypothesis, and the object score
Say = Callable[[History, int], Said]


def drawn(history: History, content: int) -> Said:
    """Three hypotheses that depend on the history and the frame; ties and uncertain frames are common."""
    dice = random.Random(repr((history, content)))
    qualities = [dice.choice([0.1, 0.302, 0.304, 0.5, 0.9, round(dice.random(), 3)]) for _ in range(3)]
    masks = [torch.tensor([dice.random() < 0.5 for _ in range(16)]).view(SIZE) for _ in range(3)]
    return qualities, dice.choice([-4.0, -1.0, 0.0, 0.5, 1.5, 2.0, 3.0]), masks


@dataclass(frozen=True)
class ScriptMemory:
    histories: Mapping[int, History] = field(default_factory=dict)


@dataclass
class Scripted:
    """A propagator that says what it is told to, by an object's history. Features are a frame's number."""

    say: Say = drawn
    limit: int = 10**6  # how much of a history is remembered
    rows: list[int] = field(default_factory=list)  # objects in each prediction
    committed: list[int] = field(default_factory=list)

    def encode(self, frames: Sequence[Frame]) -> list[int]:
        return [int(f.image[0, 0, 0]) for f in frames]

    def empty(self) -> ScriptMemory:
        return ScriptMemory()

    def predict(self, memory: ScriptMemory, features: int) -> Prediction:
        self.rows.append(len(memory.histories))
        said = [self.say(h, features) for h in memory.histories.values()]
        k = len(said[0][0]) if said else 3
        quality = torch.tensor([q for q, *_ in said]).view(-1, k)
        presence = torch.tensor([p for _, p, _ in said]).view(-1, 1).expand(-1, k)
        logits = torch.stack([torch.stack(m).float() - 0.5 for *_, m in said]) if said else torch.zeros(0, k, *SIZE)
        tokens = torch.arange(float(k)).view(1, k, 1).expand(len(said), -1, -1)
        return Prediction(tuple(memory.histories), logits, quality, presence, tokens)

    def commit(self, memory: ScriptMemory, features: int, belief: Prediction) -> ScriptMemory:
        self.committed.append(len(belief.ids))
        best = belief.best
        assert best.tokens is not None
        taken = dict(zip(best.ids, best.tokens[:, 0, 0].int().tolist(), strict=True))
        assert taken.keys() <= memory.histories.keys()
        # An object of which nothing is believed sees time go by.
        return ScriptMemory({i: (*h, taken.get(i, 9))[-self.limit :] for i, h in memory.histories.items()})

    def prompt(
        self, memory: ScriptMemory, features: int, prompts: Mapping[int, Prompt]
    ) -> tuple[ScriptMemory, Prediction]:
        new = {i: (*memory.histories.get(i, ()), marker(p)) for i, p in prompts.items()}
        masks = [p if isinstance(p, Tensor) else torch.zeros(SIZE) for p in prompts.values()]
        logits = torch.stack([m.float() - 0.5 for m in masks])[:, None] if masks else torch.zeros(0, 1, *SIZE)
        one = torch.ones(len(prompts), 1)
        return ScriptMemory({**memory.histories, **new}), Prediction(tuple(prompts), logits, one, one)

    def forget(self, memory: ScriptMemory, ids: Iterable[int]) -> ScriptMemory:
        return ScriptMemory({i: h for i, h in memory.histories.items() if i not in set(ids)})

    def branch(self, memory: ScriptMemory, origins: Mapping[int, int]) -> ScriptMemory:
        return ScriptMemory({n: memory.histories[o] for n, o in origins.items()})


def marker(prompt: Prompt) -> int:
    return 100 + (int(prompt.sum()) if isinstance(prompt, Tensor) else 50)


def mask(pixels: int) -> Tensor:
    return (torch.arange(16) < pixels).view(SIZE)


# -- the twin


@dataclass
class Twin:
    """One object's pathways by the rules of the paper and its code: nothing shared, nothing dropped."""

    say: Say
    paths: int
    uncertainty: float
    pixels: int  # of the prompt
    histories: list[History] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    traces: list[list[Tensor]] = field(default_factory=list)  # every pathway's mask in every frame
    grown: bool = False

    def __post_init__(self) -> None:
        self.histories = [(100 + self.pixels,)] * self.paths
        self.scores, self.traces = [0.0] * self.paths, [[] for _ in range(self.paths)]

    def told(self, pixels: int) -> None:
        self.histories = [(*self.histories[0], 100 + pixels)] * self.paths
        self.scores = [self.scores[0]] * self.paths
        self.traces = [list(self.traces[0]) for _ in range(self.paths)]

    def unseen(self) -> None:
        self.histories = [(*h, 9) for h in self.histories]

    def step(self, content: int) -> Tensor:
        said = [self.say(h, content) for h in self.histories]
        quality = [torch.tensor(q).tolist() for q, *_ in said]  # as float32 has it
        if self.grown:
            kept = chosen(self.scores, quality, [p for _, p, _ in said], self.uncertainty)
            self.scores = [self.scores[p] + math.log(quality[p][c] + 1e-5) for p, c in kept]
        else:
            kept = [(0, quality[0].index(max(quality[0])))] * self.paths
        self.grown = True
        masks = [said[p][2][c] & (said[p][1] > 0) for p, c in kept]
        self.traces = [[*self.traces[p], m] for (p, _), m in zip(kept, masks, strict=True)]
        self.histories = [(*self.histories[p], c) for p, c in kept]
        return masks[0]


def chosen(scores: list[float], quality: list[list[float]], presence: list[float], limit: float) -> list[tuple[int, int]]:  # fmt: skip
    """Rules 4 to 9 of the notes, literally."""
    candidates = [
        (scores[p] + math.log(quality[p][c] + 1e-5), p, c) for p in range(len(scores)) for c in range(len(quality[p]))
    ]
    candidates.sort(key=lambda x: x[0], reverse=True)
    if any(abs(s) > limit for s in presence):
        return [(p, c) for _, p, c in candidates[: len(scores)]]
    kept: list[tuple[int, int]] = []
    values: list[float] = []
    for _, p, c in candidates:
        value = round(quality[p][c] if presence[p] > 0 else -quality[p][c], 2)
        if value not in values and len(kept) < len(scores):
            values.append(value)
            kept.append((p, c))
    for p in range(len(scores)):
        if len(kept) < len(scores) and p not in {path for path, _ in kept}:
            kept.append(next((q, c) for _, q, c in candidates if q == p))
    return kept


class Filming:
    """A tree at work: objects join, are corrected and leave; its book is kept as the systems keep it."""

    def __init__(self, tree: MemoryTree[int, ScriptMemory]) -> None:
        self.tree, self.memory, self.book, self.frame = tree, tree.empty(), TrackBook(), 0

    def step(self, content: int, without: Sequence[int] = ()) -> Branches:
        belief = self.tree.predict(self.memory, content)
        belief = belief.only([r for r, id in enumerate(belief.ids) if id not in without])
        note_prediction(self.book, self.frame, belief, SIZE, Source.FORWARD)
        self.memory = self.tree.commit(self.memory, content, belief)
        self.frame += 1
        return belief

    def prompt(self, content: int, prompts: Mapping[int, Prompt]) -> Prediction:
        self.memory, answer = self.tree.prompt(self.memory, content, prompts)
        return answer

    def seen(self, id: int, start: int) -> list[Tensor]:
        self.book.settle()
        page = self.book.pages.get(id, {})
        none = torch.zeros(SIZE, dtype=torch.bool)
        return [page[t].mask.decode() if t in page else none for t in range(start, self.frame)]

    def histories(self, id: int) -> list[History]:
        return [self.memory.inner.histories[p] for p in self.memory.trees[id].paths]


# -- selection


@pytest.mark.parametrize(
    ("scores", "quality", "presence", "kept"),
    [
        # Certain: the best three of all, whoever offers them.
        ([0, 0, 0], [[0.9, 0.8, 0.7], [0.1, 0.1, 0.1], [0.2, 0.1, 0.1]], [3, 0, 0], [(0, 0), (0, 1), (0, 2)]),
        # Identical pathways stay identical while frames are certain.
        ([-1, -1, -1], [[0.2, 0.9, 0.3]] * 3, [3, 3, 3], [(0, 1), (1, 1), (2, 1)]),
        # The old score counts.
        ([0, -5], [[0.5, 0.4, 0.1], [1.0, 1.0, 1.0]], [9, 9], [(0, 0), (0, 1)]),
        # Confident absence is certainty.
        ([0, 0], [[0.9, 0.9, 0.1], [0.9, 0.2, 0.1]], [-3, 0], [(0, 0), (0, 1)]),
        # One pathway's certainty is enough, and the limit itself is uncertain.
        ([0, 0], [[0.5, 0.5, 0.5]] * 2, [2.0001, 0], [(0, 0), (0, 1)]),
        ([0, 0], [[0.5, 0.5, 0.5]] * 2, [2.0, -2.0], [(0, 0), (1, 0)]),
        # Uncertain: of equal rounded IoUs the first counts.
        ([0, 0, 0], [[0.9, 0.8, 0.7]] * 3, [1, 1, 1], [(0, 0), (0, 1), (0, 2)]),
        ([0, 0, 0], [[0.904, 0.901, 0.7], [0.899, 0.896, 0.1], [0.5, 0.1, 0.1]], [1, 1, 1], [(0, 0), (0, 2), (2, 0)]),
        # The same IoU with and without the object are two entries.
        ([0, 0], [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]], [1, -1], [(0, 0), (1, 0)]),
        ([0, 0, 0], [[0.5] * 3, [0.5] * 3, [0.5] * 3], [1, -1, -0.5], [(0, 0), (1, 0), (2, 0)]),
        # A score of exactly 0 is absence: the third is no new value, but is filled in.
        ([0, 0, 0], [[0.5] * 3, [0.4] * 3, [0.4] * 3], [-1, 0, 1], [(0, 0), (1, 0), (2, 0)]),
        # Fill: pathways that are not represented, in their order, each with its best; so slots are not sorted.
        ([-9, 0, -3], [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0.5, 0.502, 0.5]], [0, 0, 0], [(1, 0), (0, 0), (2, 1)]),
        ([0, 0, 0, 0], [[0.3, 0.6, 0.6]] * 4, [1] * 4, [(0, 1), (0, 0), (1, 1), (2, 1)]),
        # One pathway.
        ([-2], [[0.1, 0.7, 0.7]], [0], [(0, 1)]),
        ([-2], [[0.1, 0.7, 0.7]], [5], [(0, 1)]),
        # A predicted IoU of 0 has a logarithm.
        ([0, 0], [[0.0, 0.0, 0.0]] * 2, [5, 5], [(0, 0), (0, 1)]),
    ],
)  # fmt: skip
def test_selection(scores: list[float], quality: list[list[float]], presence: list[float], kept: list[object]) -> None:
    found, totals = select_pathways(scores, quality, presence, 2.0)
    assert found == kept
    assert totals == [scores[p] + math.log(quality[p][c] + 1e-5) for p, c in found]


@given(st.integers(0, 10**6), st.integers(1, 4), st.sampled_from([0.0, 1.0, 2.0]))
def test_selection_is_the_rule(seed: int, paths: int, limit: float) -> None:
    dice = random.Random(seed)
    values = [0.0, 0.301, 0.304, 0.305, 0.5, 1.0]
    quality = [[dice.choice(values) for _ in range(3)] for _ in range(paths)]
    presence = [dice.choice([-3.0, -2.0, -1.0, 0.0, 1.0, 2.0]) for _ in range(paths)]
    scores = [dice.choice([0.0, -1.0, -1.5]) for _ in range(paths)]
    found, totals = select_pathways(scores, quality, presence, limit)
    assert found == chosen(scores, quality, presence, limit)
    assert len(found) == len(set(found)) == paths and totals[0] == max(totals)


def test_distinct_keeps_the_first_of_each_value() -> None:
    ranked = [(0, 0), (1, 0), (0, 1), (1, 1)]
    quality = [[0.714, 0.706], [0.709, 0.5]]
    assert drop_repeated_continuations(ranked, quality, [1.0, 1.0]) == [(0, 0), (1, 1)]  # 0.71 three times, 0.5
    assert drop_repeated_continuations(ranked, quality, [1.0, -1.0]) == [(0, 0), (1, 0), (1, 1)]


# -- the tree against its twin


@pytest.mark.parametrize("paths", [1, 2, 3, 4])
@given(seed=st.integers(0, 10**6), uncertainty=st.sampled_from([0.0, 1.0, 2.0, 5.0]), length=st.integers(1, 9))
@settings(max_examples=15)
def test_several_objects_get_what_each_gets_alone(paths: int, seed: int, uncertainty: float, length: int) -> None:
    """Joining in different frames, corrected and left out at random; online and final answers, masks and scores."""
    dice = random.Random(seed)
    scripted = Scripted()
    film = Filming(MemoryTree(scripted, paths, uncertainty))
    joins = {id: dice.randrange(length) for id in (4, 7, 5)}
    twins: dict[int, Twin] = {}
    for t in range(length):
        content = dice.randrange(1000)
        left_out = [id for id in twins if dice.random() < 0.15]
        belief = film.step(content, left_out)
        assert scripted.rows[-1] == sum(len(set(twin.histories)) for twin in twins.values())  # each once
        assert belief.ids == tuple(id for id in twins if id not in left_out)
        shown = dict(zip(belief.ids, belief.masks(SIZE), strict=True))
        for id, twin in twins.items():
            if id in left_out:
                twin.unseen()
                twin.traces = [[*trace, torch.zeros(SIZE, dtype=torch.bool)] for trace in twin.traces]
            else:
                assert torch.equal(twin.step(content), shown[id])
        assert scripted.committed[-1] == sum(len(set(w.histories)) for i, w in twins.items() if i not in left_out)
        told = {id: mask(id) for id, start in joins.items() if start == t or (id in left_out and dice.random() < 0.5)}
        film.prompt(content, told)
        for id in told:
            if id in twins:
                twins[id].told(id)
            else:
                twins[id] = Twin(drawn, paths, uncertainty, id)
        for id, twin in twins.items():
            assert film.histories(id) == twin.histories
            assert list(film.memory.trees[id].scores) == twin.scores
    for id, twin in twins.items():
        seen = film.seen(id, joins[id] + 1)
        assert len(seen) == len(twin.traces[0])
        assert all(torch.equal(a, b) for a, b in zip(seen, twin.traces[0], strict=True))


def certain(history: History, content: int) -> Said:
    qualities, _, masks = drawn(history, content)
    return qualities, 3.0, masks


def uncertain(history: History, content: int) -> Said:
    return [0.9, 0.6, 0.3], 1.0, drawn(history, content)[2]


def test_identical_pathways_are_computed_once() -> None:
    for say, rows in ((certain, [1, 1, 1, 1]), (uncertain, [1, 1, 3, 3])):
        scripted = Scripted(say)
        film = Filming(MemoryTree(scripted, 3))
        film.prompt(0, {1: mask(3)})
        for t in range(1, 5):
            film.step(t)
        assert scripted.rows == rows and scripted.committed == [1, *rows[2:], rows[-1]]


def test_the_frame_after_the_prompt_is_plain_and_its_quality_does_not_count() -> None:
    film = Filming(MemoryTree(Scripted(uncertain), 3))
    film.prompt(0, {1: mask(3)})
    belief = film.step(1)
    assert belief.totals.tolist() == [[0, 0, 0]] and belief.hypotheses.tolist() == [[0, 0, 0]]
    assert film.memory.trees[1] == ObjectPathways((2, 2, 2), (0.0, 0.0, 0.0), grown=True)
    belief = film.step(2)
    assert belief.hypotheses.tolist() == [[0, 1, 2]] and belief.origins.tolist() == [[0, 0, 0]]
    assert belief.totals[0].tolist() == pytest.approx([math.log(q + 1e-5) for q in (0.9, 0.6, 0.3)], abs=1e-6)
    assert len(set(film.memory.trees[1].paths)) == 3


def test_the_online_answer_is_the_best_pathway_not_the_best_mask() -> None:
    """Pathway 0 leads although pathway 1 has the better mask in this frame."""

    def say(history: History, content: int) -> Said:
        quality = [0.99, 0.2, 0.1] if len(history) == 2 else [0.5, 0.1, 0.1] if history[-1] == 0 else [0.9, 0.1, 0.1]
        return quality, 1.0, [mask(history[-1] + 1)] * 3

    film = Filming(MemoryTree(Scripted(say), 2))
    film.prompt(0, {1: mask(3)})
    film.step(1), film.step(2)
    belief = film.step(3)
    assert belief.best.quality.tolist() == torch.tensor([[0.5]]).tolist()
    assert torch.equal(belief.masks(SIZE)[0], mask(1))


# -- prompts, forgetting, copies


def parted(objects: Sequence[int] = (1,), paths: int = 3) -> Filming:
    """Objects whose pathways have parted; the prompt of object o covers o pixels."""
    film = Filming(MemoryTree(Scripted(uncertain), paths))
    film.prompt(0, {o: mask(o) for o in objects})
    for t in (1, 2, 3):
        film.step(t)
    return film


def test_a_correction_collapses_onto_the_best_pathway() -> None:
    film = parted((1, 2))
    best, others = film.histories(1)[0], film.histories(2)
    score = film.memory.trees[1].scores[0]
    answer = film.prompt(3, {1: mask(9)})
    assert answer.ids == (1,) and torch.equal(answer.masks(SIZE)[0], mask(9))
    assert film.histories(1) == [(*best, 109)] * 3 and film.memory.trees[1].scores == (score,) * 3
    assert film.histories(2) == others
    assert len(film.memory.inner.histories) == 4  # what the pathways that lost remembered is gone
    film.step(4)
    assert len(set(film.histories(1))) == 3  # it may part again at once


def test_prompts_twice_on_a_frame_before_any_commit_and_in_any_order() -> None:
    film = Filming(MemoryTree(Scripted(), 2))
    assert film.prompt(0, {}).ids == ()
    answer = film.prompt(0, {8: mask(4), 3: Point(1, 1), 5: Box(0, 0, 2, 2)})
    assert answer.ids == (8, 3, 5) and torch.equal(answer.masks(SIZE)[0], mask(4))
    answer = film.prompt(0, {5: mask(2), 9: mask(1), 8: mask(3)})
    assert answer.ids == (5, 9, 8) and answer.masks(SIZE).flatten(1).sum(1).tolist() == [2, 1, 3]
    assert {o: set(film.histories(o)) for o in (8, 3, 5, 9)} == {8: {(104, 103)}, 3: {(150,)}, 5: {(150, 102)}, 9: {(101,)}}  # fmt: skip
    assert film.step(1).ids == (8, 3, 5, 9)


def test_to_forget_leaves_the_others_and_a_forgotten_object_is_new() -> None:
    film, twin = parted((1, 2)), parted((1,))
    film.memory = film.tree.forget(film.memory, [2, 77])
    assert film.histories(1) == twin.histories(1) and list(film.memory.trees) == [1]
    assert len(film.memory.inner.histories) == 3
    a, b = film.step(4), twin.step(4)
    assert torch.equal(a.logits, b.logits) and torch.equal(a.totals, b.totals)
    film.prompt(4, {2: mask(7)})
    assert film.histories(2) == [(107,)] * 3 and not film.memory.trees[2].grown
    assert film.tree.forget(film.memory, [1, 2]).inner.histories == {}


def test_copies_of_an_object_go_on_alike_and_apart() -> None:
    film = parted((1, 2))
    twins = film.tree.branch(film.memory, {5: 1, 6: 1})
    assert list(twins.trees) == [5, 6] and len(twins.inner.histories) == 6
    assert not set(twins.trees[5].paths) & set(twins.trees[6].paths)
    belief = film.tree.predict(twins, 4)
    assert torch.equal(belief.logits[0], belief.logits[1])
    after, _ = film.tree.prompt(film.tree.commit(twins, 4, belief), 4, {6: mask(9)})
    assert len({after.inner.histories[p] for p in after.trees[5].paths}) == 3
    assert len({after.inner.histories[p] for p in after.trees[6].paths}) == 1


def test_predict_commit_and_prompt_change_no_memory() -> None:
    film = parted((1, 2))
    before = (dict(film.memory.inner.histories), dict(film.memory.trees), film.memory.used)
    belief = film.tree.predict(film.memory, 4)
    film.tree.commit(film.memory, 4, belief)
    film.tree.prompt(film.memory, 4, {1: mask(5), 9: mask(5)})
    film.tree.forget(film.memory, [1])
    assert before == (dict(film.memory.inner.histories), dict(film.memory.trees), film.memory.used)


def test_rows_may_be_committed_in_any_order_and_number() -> None:
    film = parted((1, 2, 3))
    belief = film.tree.predict(film.memory, 4)
    whole = film.tree.commit(film.memory, 4, belief)
    some = film.tree.commit(film.memory, 4, belief.only([2, 0]))
    for id in (1, 3):
        a, b = ([m.inner.histories[p] for p in m.trees[id].paths] for m in (whole, some))
        assert a == b
    assert [some.inner.histories[p][-1] for p in some.trees[2].paths] == [9, 9, 9]  # time went by


def test_the_memory_after_500_frames_is_that_after_50() -> None:
    film = Filming(MemoryTree(Scripted(limit=6), 3))
    film.prompt(0, {1: mask(3), 2: mask(5)})
    sizes = []
    for t in range(1, 501):
        film.step(t)
        if t % 10 == 0:
            film.prompt(t, {1: mask(4)})
        sizes.append(len(film.memory.inner.histories))
        assert set(film.memory.inner.histories) == {p for tree in film.memory.trees.values() for p in tree.paths}
    assert max(sizes) == 6 and max(film.tree.propagator.rows) <= 6  # type: ignore[attr-defined]


# -- over a propagator with one hypothesis, in the systems

WORLDS: list[list[Place]] = [
    [still(4, 4), moving(20, 24, 0, -1)],
    [moving(8, 0, 0, 2), moving(9, 26, 0, -2), still(24, 24)],
    [moving(4, 0, 0, 1, hidden=(5, 6, 7)), moving(20, 24, 0, -1, first=4, last=9)],
]


def silent(phase: str, done: int, total: int | None, objects: int) -> None:
    pass


def test_it_is_a_propagator() -> None:
    tree = MemoryTree(ToyPropagator())
    assert isinstance(tree, Propagator) and tree.weights == {} and tree.paths == 3 and tree.uncertainty == 2


def test_an_object_takes_what_each_of_its_pathways_takes() -> None:
    class Sized(ToyPropagator):
        def count_object_bytes(self, size: tuple[int, int]) -> int:
            return size[0] * size[1]

    assert MemoryTree(Sized(), paths=3).count_object_bytes((2, 5)) == 30
    assert MemoryTree(ToyPropagator()).count_object_bytes((2, 5)) == 0  # not known: as many objects as are wanted
    assert MemoryBudget(2**30).count_objects(0) > 256


@pytest.mark.parametrize("paths", [1, 3])
@pytest.mark.parametrize("memory", ["propagated", "detected", "key"])
@pytest.mark.parametrize("places", WORLDS)
def test_one_hypothesis_is_followed_unchanged_in_sam2bmp(places: list[Place], memory: str, paths: int) -> None:
    segmenter = ToySegmenter(blind=lambda t, o: (t * 7 + o * 3) % 5 < 2 or t < 3 * o)
    at = Sam2BmpSettings(memory=memory, max_lost=4, backward_window=5)  # type: ignore[arg-type]
    world = World(places)
    plain = Sam2Bmp(segmenter, ToyPropagator(), at).run(world, silent)
    tree = MemoryTree(ToyPropagator(), paths, uncertainty=9.0)
    grown = Sam2Bmp(segmenter, tree, at).run(world, silent)
    assert grown.masklets == plain.masklets
    online = list(Sam2Bmp(segmenter, tree, at).stream(world))
    for a, b in zip(online, Sam2Bmp(segmenter, ToyPropagator(), at).stream(world), strict=True):
        assert a.ids == b.ids and torch.equal(a.masks, b.masks) and torch.equal(a.scores, b.scores)


@pytest.mark.parametrize("places", WORLDS)
def test_one_hypothesis_is_followed_unchanged_in_track(places: list[Place]) -> None:
    world = World(places)
    prompts: Prompts = {
        9: {1: world.truth(9)[0]},
        4: {1: world.truth(4)[0], 2: world.truth(4)[1]},
        12: {2: Box(20, 20, 24, 24)},
    }
    plain, grown = (Track(p, prompts).run(world, silent) for p in (ToyPropagator(), MemoryTree(ToyPropagator())))
    assert grown.masklets == plain.masklets and len(plain.masklets) == 2


class Pictures:
    """A video of given images."""

    name, rate, damage = "pictures", 10.0, None

    def __init__(self, images: Sequence[np.ndarray]) -> None:
        self.images, self.size = images, (images[0].shape[0], images[0].shape[1])

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.read(0, len(self)))

    def read(self, start: int, stop: int) -> list[Frame]:
        return [Frame(t, self.images[t], t / 10) for t in range(start, stop)]


def film_of(numbers: Iterable[int]) -> Pictures:
    """A video for `Scripted`: each frame is its number."""
    return Pictures([np.full((*SIZE, 3), n, np.uint8) for n in numbers])


@given(st.lists(st.integers(0, 255), min_size=2, max_size=9), st.integers(1, 4))
@settings(max_examples=15)
def test_track_gives_the_final_answer_forward_and_backward(numbers: list[int], paths: int) -> None:
    middle = len(numbers) // 2
    track = Track(MemoryTree(Scripted(), paths, 1.0), {middle: {6: mask(6)}})
    pages = {m.id: m.sightings for m in track.run(film_of(numbers), silent).masklets}[6]
    for way in (range(middle + 1, len(numbers)), range(middle - 1, -1, -1)):
        twin = Twin(drawn, paths, 1.0, 6)
        for t in way:
            twin.step(numbers[t])
        for t, want in zip(way, twin.traces[0], strict=True):
            assert (pages[t].mask if t in pages else Rle.encode(mask(0))) == Rle.encode(want)
            assert t not in pages or pages[t].source is (Source.FORWARD if t > middle else Source.BACKWARD)


@given(st.lists(st.integers(0, 255), min_size=6, max_size=9), st.integers(1, 4))
@settings(max_examples=15)
def test_a_correction_in_track_settles_what_was_before_it(numbers: list[int], paths: int) -> None:
    track = Track(MemoryTree(Scripted(), paths, 1.0), {0: {6: mask(6)}, 4: {6: mask(9)}})
    pages = {m.id: m.sightings for m in track.run(film_of(numbers), silent).masklets}[6]
    twin = Twin(drawn, paths, 1.0, 6)
    for t in range(1, len(numbers)):
        if t != 4:
            twin.step(numbers[t])
            continue
        twin.unseen()
        twin.told(9)
        twin.traces = [[*trace, mask(9)] for trace in twin.traces]
    for t, want in enumerate(twin.traces[0], start=1):
        assert (pages[t].mask if t in pages else Rle.encode(mask(0))) == Rle.encode(want)
    assert pages[4].source is Source.PROMPTED


# -- a detection corrects the memory


class Finds:
    """Finds given masks in given frames."""

    categories, look_ahead = ("thing",), 0

    def __init__(self, masks: Mapping[int, Tensor], size: tuple[int, int] = SIZE) -> None:
        self.masks, self.size = masks, size

    def empty(self) -> None:
        return None

    def segment(self, memory: None, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], None]:
        return [self.one(f) for f in frames], None

    def one(self, frame: Frame) -> Detections:
        if frame.index not in self.masks:
            return Detections.none(self.size)
        return Detections(self.masks[frame.index][None], torch.tensor([0.99]), torch.tensor([0]))


def overtaking(history: History, content: int) -> Said:
    """In frame 2 two pathways part; in frame 3 the second overtakes the first; what they saw differs in frame 2."""
    if content == 2:
        return [0.9, 0.5], 1.0, [mask(5), mask(9)]
    if content == 3:
        return ([0.1, 0.05] if history[-1] == 0 else [0.95, 0.9]), 1.0, [mask(8), mask(8)]
    return [0.9, 0.8], 3.0, [mask(8), mask(7)]


@pytest.mark.parametrize(
    "memory",
    ["propagated", "detected"],
)
def test_the_masks_in_the_book_are_those_of_the_pathway_that_goes_on(memory: str) -> None:
    finds = Finds({0: mask(8), 3: mask(8)})
    system = Sam2Bmp(finds, MemoryTree(Scripted(overtaking), 2), Sam2BmpSettings(memory=memory, backward_window=0))  # type: ignore[arg-type]
    book = TrackBook()
    for look in system.forward(film_of(range(6))):
        system.write(book, look)
    book.settle()
    state = look.state.memory
    history = state.inner.histories[state.trees[1].paths[0]]  # prompt, choice in frame 1, choice in frame 2, ...
    assert book.pages[1][2].mask == Rle.encode(mask((5, 9)[history[2]]))
    assert book.pages[1][3].source is Source.DETECTED


# -- over SAM 2


HERE = pytest.mark.skipif(
    not (FOLDER / "clips.npz").is_file(), reason=f"no fixtures under {FOLDER}: set MASKLET_GOLDEN"
)


def over_sam2() -> MemoryTree[Sam2Features, Sam2Memory]:
    """Every frame is uncertain, some are unreliable: late objects, corrections, odd sizes are what the official code
    crashes on."""
    sam2 = Sam2(network("w1"), ReliableFrames(quality=0.1), postprocess=False)
    return MemoryTree(sam2, 3, uncertainty=50.0)


@HERE
def test_several_objects_over_sam2_late_corrected_saved_and_resumed(tmp_path: Path) -> None:
    tree = over_sam2()
    whole, alone = tree.empty(), {1: tree.empty(), 2: tree.empty()}
    told: dict[int, dict[int, Prompt]] = {0: {1: object_mask("plain", 0, 1)}, 1: {2: object_mask("plain", 1, 2)}, 3: {1: Point(60, 70)}}  # fmt: skip
    for t, features in enumerate(tree.encode(clip("plain")[:6])):
        belief = tree.predict(whole, features)
        if t == 5:
            store.save_memory(whole, tmp_path / "m")
            resumed = tree.predict(store.load_memory(tmp_path / "m"), features)
            assert torch.equal(belief.logits, resumed.logits) and torch.equal(belief.totals, resumed.totals)
            assert belief.ids == resumed.ids == (1, 2) and torch.equal(belief.origins, resumed.origins)
        now = told.get(t, {})
        for id, memory in alone.items():
            own = tree.predict(memory, features)
            if own.ids:
                row = belief.only([belief.ids.index(id)])
                torch.testing.assert_close(row.logits, own.logits, rtol=0, atol=1e-4)
                assert torch.equal(row.origins, own.origins) and torch.equal(row.hypotheses, own.hypotheses)
            memory = tree.commit(memory, features, own)
            alone[id], _ = tree.prompt(memory, features, {i: p for i, p in now.items() if i == id})
        whole, answer = tree.prompt(tree.commit(whole, features, belief), features, now)
        assert answer.ids == tuple(now)
    assert all(len(set(tree_.paths)) == 3 for tree_ in whole.trees.values())  # pathways are apart


@HERE
def test_a_stream_over_sam2_is_resumed_from_its_saved_state(tmp_path: Path) -> None:
    frames = clip("plain")[:4]
    finds = Finds({t: object_mask("plain", t, 1) for t in (0, 2)}, frames[0].size)
    system = Sam2Bmp(finds, over_sam2(), Sam2BmpSettings(memory="key"))
    whole = list(system.stream(frames))
    first = system.stream(frames[:2])
    parts = list(first)
    store.save_memory(first.state, tmp_path / "s")
    parts += list(system.stream(frames[2:], store.load_memory(tmp_path / "s")))
    assert len(whole) == 4
    for a, b in zip(parts, whole, strict=True):
        assert a.ids == b.ids and torch.equal(a.masks, b.masks) and torch.equal(a.scores, b.scores)


@HERE
def test_a_tiny_frame_and_an_empty_mask_over_sam2() -> None:
    tree, size = over_sam2(), (3, 5)
    features = tree.encode([Frame(t, np.full((*size, 3), 40 * t, np.uint8), 0.0) for t in range(4)])
    prompts: dict[int, Prompt] = {1: torch.zeros(size, dtype=torch.bool), 2: torch.ones(size, dtype=torch.bool)}
    memory, answer = tree.prompt(tree.empty(), features[0], prompts)
    assert answer.masks(size).flatten(1).sum(1).tolist() == [0, 15]
    for f in features[1:]:
        belief = tree.predict(memory, f)
        assert belief.masks(size).shape == (2, *size)
        memory = tree.commit(memory, f, belief)


@HERE
def test_reverse_order_over_sam2_is_backward() -> None:
    """From the last frame of a clip back: the first pass and the backward sweep of a track are one and the same."""
    frames = clip("plain")[:5]
    order = {"forward": frames[::-1], "backward": frames}
    prompt = {1: object_mask("plain", 4, 1)}
    masks = {}
    for way, pictures in order.items():
        video = Pictures([f.image for f in pictures])
        [m] = Track(over_sam2(), {0 if way == "forward" else 4: prompt}).run(video, silent).masklets
        masks[way] = {t if way == "backward" else 4 - t: s.mask for t, s in m.sightings.items()}
    assert masks["forward"] == masks["backward"]
