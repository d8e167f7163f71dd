"""SAM2Long (Ding et al. 2024): a propagator's memory as a tree of hypotheses, without training.

Every object has `paths` pathways, each a memory of its own with a cumulative score. In every frame each pathway offers
its hypotheses, and the best continuations live on. Pathways that are still identical are one object of the propagator
below, and are computed once. Which frames a SAM 2 pathway remembers, and how its keys are weighted, is a read policy of
that propagator (`ReliableFrames`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Generic, TypeVar

import torch

from masklet.core.frames import Frame
from masklet.core.instances import Branches, Prediction, Prompt
from masklet.core.part_facts import collect_part_weights, describe_part, find_device
from masklet.core.protocols import BatchingPropagator, ContendingPropagator, Propagator, SizedPropagator

F = TypeVar("F")
M = TypeVar("M")

EPSILON = 1e-5  # keeps the logarithm of a predicted mask IoU of 0 finite


@dataclass(frozen=True)
class MemoryTreeSettings:
    """What can be set of a tree, and of the propagator that it is made over."""

    OF_SAM2: ClassVar[Sequence[str]] = ("quality", "modulation", "postprocess", "compile")

    paths: int = 3  # pathways of each object
    uncertainty: float = 2.0  # object score below which a frame is uncertain; by the tree's name where it is not set
    quality: float | None = None  # predicted mask IoU above which a frame is remembered; none: by the tree's name
    modulation: float = 0.05  # keys are weighted from 1 - this, the least sure frame, to 1 + this; 0: all alike
    postprocess: bool = True  # of SAM 2: as there
    compile: bool = False  # of SAM 2: as there


@dataclass(frozen=True)
class ObjectPathways:
    """One object's pathways, best first. A pathway is an id in the memory below; identical ones share it."""

    paths: tuple[int, ...]
    scores: tuple[float, ...]  # cumulative: the sum of ln(predicted mask IoU)
    grown: bool = False  # whether a frame has followed the prompt; only then do pathways part


@dataclass(frozen=True)
class PathwayMemory(Generic[M]):
    """The memory of all pathways of all objects: a value."""

    inner: M
    trees: Mapping[int, ObjectPathways] = field(default_factory=dict)
    used: int = 0  # ids given to pathways so far


@dataclass(frozen=True)
class MemoryTree(Generic[F, M]):
    """A propagator of pathways over a propagator of hypotheses.

    Attributes:
        propagator: any; one with a single hypothesis is followed unchanged.
        paths: pathways of each object.
        uncertainty: the object score, a logit, that some pathway must exceed in absolute value for the frame to be
            certain; in the others pathways are kept apart (SAM2Long 3.2; the paper and the official functions: 2,
            the official command line: 1).
    """

    propagator: Propagator[F, M]
    paths: int = 3
    uncertainty: float = 2.0

    @property
    def description(self) -> str:
        """What this propagator is called in a result's provenance."""
        below = describe_part(self.propagator)
        return f"sam2long, {self.paths} paths, uncertainty {self.uncertainty:g}, over {below}"

    @property
    def device(self) -> torch.device:
        """Where the propagator below computes."""
        return find_device(self.propagator)

    @property
    def contends(self) -> bool:
        """Whether the objects of the propagator below contend for pixels."""
        return isinstance(self.propagator, ContendingPropagator) and self.propagator.contends

    @property
    def weights(self) -> Mapping[str, str]:
        """The sha256 of the propagator's weight files, by name."""
        return collect_part_weights(self.propagator)

    def count_object_bytes(self, size: tuple[int, int]) -> int:
        """About how many bytes the pathways of each object take in frames of `size` (h, w); 0 where the propagator
        below does not say.
        """
        below = self.propagator
        return self.paths * below.count_object_bytes(size) if isinstance(below, SizedPropagator) else 0

    @property
    def encode_at_once(self) -> int:
        """Frames that the propagator below is good at together."""
        below = self.propagator
        return below.encode_at_once if isinstance(below, BatchingPropagator) else 1

    def encode(self, frames: Sequence[Frame]) -> list[F]:
        """Each frame's features, as the propagator below makes them."""
        return self.propagator.encode(frames)

    def empty(self) -> PathwayMemory[M]:
        """The memory of no object."""
        return PathwayMemory(self.propagator.empty())

    def predict(self, memory: PathwayMemory[M], features: F) -> Branches:
        """The pathways that live on in this frame, the best so far first: that one is the online answer."""
        belief = self.propagator.predict(memory.inner, features)
        row = {path: n for n, path in enumerate(belief.ids)}
        trees = tuple(memory.trees.values())
        kept, totals = [], []
        for tree in trees:
            continuations, scores = self._choose(tree, belief, [row[p] for p in tree.paths])
            kept.append([(tree.paths.index(tree.paths[p]), c) for p, c in continuations])  # of identical ones the first
            totals.append(scores)
        origins, k = torch.tensor(kept, dtype=torch.int64).view(-1, self.paths, 2).unbind(2)
        at = torch.tensor([[row[p] for p in tree.paths] for tree in trees], dtype=torch.int64).view(-1, self.paths)
        at = at.gather(1, origins)
        tokens = None if belief.tokens is None else belief.tokens[at, k]
        chosen = belief.logits[at, k], belief.quality[at, k], belief.presence[at, k], tokens
        summed = torch.tensor(totals, dtype=torch.float64).view(-1, self.paths)
        return Branches(tuple(memory.trees), *chosen, origins=origins, hypotheses=k, totals=summed)

    def _choose(
        self, tree: ObjectPathways, belief: Prediction, rows: Sequence[int]
    ) -> tuple[list[tuple[int, int]], list[float]]:
        """(pathway, hypothesis) of each pathway to come, and its cumulative score."""
        quality, presence = belief.quality[rows].tolist(), belief.presence[rows, 0].tolist()
        if tree.grown:
            return select_pathways(tree.scores, quality, presence, self.uncertainty)
        best = max(range(len(quality[0])), key=lambda c: quality[0][c])
        return [(0, best)] * self.paths, list(tree.scores)

    def commit(self, memory: PathwayMemory[M], features: F, belief: Prediction) -> PathwayMemory[M]:
        """The next `memory`: the pathways chosen in `belief`, each remembering the frame's `features` its own way."""
        assert isinstance(belief, Branches)
        trees, used = dict(memory.trees), memory.used
        origins: dict[int, int] = {}
        rows: list[tuple[int, int]] = []  # of the belief, for each path that goes on
        for row, id in enumerate(belief.ids):
            new: dict[tuple[int, int], int] = {}
            pairs = list(zip(belief.origins[row].tolist(), belief.hypotheses[row].tolist(), strict=True))
            for slot, (origin, hypothesis) in enumerate(pairs):
                if (origin, hypothesis) not in new:
                    used += 1
                    new[origin, hypothesis] = used
                    origins[used] = memory.trees[id].paths[origin]
                    rows.append((row, slot))
            trees[id] = ObjectPathways(
                tuple(new[pair] for pair in pairs), tuple(belief.totals[row].tolist()), grown=True
            )
        others = {p: p for id, tree in trees.items() if id not in belief.ids for p in tree.paths}
        believed = belief.pathways(tuple(origins), rows)
        inner = self.propagator.branch(memory.inner, {**others, **origins})
        return PathwayMemory(self.propagator.commit(inner, features, believed), trees, used)

    def prompt(
        self, memory: PathwayMemory[M], features: F, prompts: Mapping[int, Prompt]
    ) -> tuple[PathwayMemory[M], Prediction]:
        """Remembers `prompts` (by id) in the frame with these `features`, and returns the next memory and the masks
        made of them. What a user says is beyond doubt: an object's pathways in `memory` go on from the best one.
        """
        trees, used = dict(memory.trees), memory.used
        for id in prompts:
            if id in trees:
                best = trees[id]
                trees[id] = replace(best, paths=best.paths[:1] * self.paths, scores=best.scores[:1] * self.paths)
            else:
                used += 1
                trees[id] = ObjectPathways((used,) * self.paths, (0.0,) * self.paths)
        held = {p: p for id, tree in trees.items() if id in memory.trees for p in tree.paths}
        inner = self.propagator.branch(memory.inner, held)
        told = {trees[id].paths[0]: prompt for id, prompt in prompts.items()}
        inner, answer = self.propagator.prompt(inner, features, told)
        return PathwayMemory(inner, trees, used), replace(answer, ids=tuple(prompts))

    def forget(self, memory: PathwayMemory[M], ids: Iterable[int]) -> PathwayMemory[M]:
        """The memory without these objects."""
        gone = set(ids)
        return self.branch(memory, {id: id for id in memory.trees if id not in gone})

    def branch(self, memory: PathwayMemory[M], origins: Mapping[int, int]) -> PathwayMemory[M]:
        """The memory of the objects {new id: old id} alone."""
        trees: dict[int, ObjectPathways] = {}
        paths: dict[int, int] = {}
        used = memory.used
        for new, old in origins.items():
            tree = memory.trees[old]
            fresh = {p: used + n for n, p in enumerate(dict.fromkeys(tree.paths), start=1)}
            used += len(fresh)
            paths |= {n: p for p, n in fresh.items()}
            trees[new] = replace(tree, paths=tuple(fresh[p] for p in tree.paths))
        return PathwayMemory(self.propagator.branch(memory.inner, paths), trees, used)


def select_pathways(
    scores: Sequence[float], quality: Sequence[Sequence[float]], presence: Sequence[float], uncertainty: float
) -> tuple[list[tuple[int, int]], list[float]]:
    """The pathways of the next frame (SAM2Long 3.2).

    Args:
        scores: cumulative score of each pathway.
        quality: predicted mask IoU of each pathway's hypotheses.
        presence: object score of each pathway.
        uncertainty: a frame is certain if some object score's absolute value is above it.

    Returns:
        (pathway, hypothesis) of as many continuations as there are pathways, and their cumulative scores.
    """
    total = {
        (p, c): score + math.log(iou + EPSILON) for p, score in enumerate(scores) for c, iou in enumerate(quality[p])
    }
    ranked = sorted(total, key=lambda at: -total[at])
    certain = max(abs(s) for s in presence) > uncertainty
    kept = ranked if certain else drop_repeated_continuations(ranked, quality, presence)
    kept = kept[: len(scores)]
    # Where too few are distinct, pathways without a continuation get their best one.
    for p in range(len(scores)):
        if len(kept) < len(scores) and p not in [path for path, _ in kept]:
            kept.append(next(at for at in ranked if at[0] == p))
    return kept, [total[at] for at in kept]


def drop_repeated_continuations(
    ranked: Sequence[tuple[int, int]], quality: Sequence[Sequence[float]], presence: Sequence[float]
) -> list[tuple[int, int]]:
    """Of continuations, `ranked` as (pathway, hypothesis), those whose predicted IoU in `quality`, to two digits and
    negative where the pathway's `presence` is not above 0, is a new one.
    """
    first: dict[float, tuple[int, int]] = {}
    for p, c in ranked:
        first.setdefault(round(quality[p][c] if presence[p] > 0 else -quality[p][c], 2), (p, c))
    return list(first.values())
