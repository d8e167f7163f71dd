"""What XMem remembers: groups of objects that share their keys, each with a working and a long-term memory, and beside
them every object's sensory state and last mask (XMem, section 3; DEVA keeps it so).

Objects that began in the same frame are one group: what one of them remembers, all do, so that the affinity of a frame
to the memory is found once for all. Everything is a value: writing makes a new memory and shares with the old one what
has not changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import torch
import torch.nn.functional as nnf
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from masklet.nn.quick_linear import multiply_by_transposed
from masklet.nn.xmem import STRIDE, VALUE, XmemQuery

SCORES = 1 << 23  # similarities that are held at a time: 32 MiB


@dataclass(frozen=True)
class MemoryLimits:
    """How much a group remembers; XMem's numbers. A frame is a cell grid's worth of tokens."""

    frames: int = 10  # T_max: frames of working memory at which it is consolidated
    recent: int = 5  # T_min: the first frame and the last T_min - 1 stay as they are
    prototypes: int = 128  # P: what the others become
    long_term: int = 10_000  # LT_max: tokens of long-term memory


@dataclass(frozen=True, eq=False)
class MemoryTokens:
    """Remembered cells."""

    keys: Float[Tensor, "m c"]
    shrinkage: Float[Tensor, " m"]
    selection: Float[Tensor, "m c"]
    received: Float[Tensor, " m"]  # affinity, summed over all cells that have read
    reads: Float[Tensor, " m"]  # frames that have read
    values: Mapping[int, Float[Tensor, "m v"]]  # of each object

    @staticmethod
    def of(query: XmemQuery, values: Mapping[int, Float[Tensor, "m v"]]) -> MemoryTokens:
        """One frame's, not yet read."""
        none = torch.zeros_like(query.shrinkage)
        return MemoryTokens(query.keys, query.shrinkage, query.selection, none, none, values)

    @staticmethod
    def cat(parts: Sequence[MemoryTokens]) -> MemoryTokens:
        """Joins the tokens of several parts, at least one, in their order; all hold the same objects."""
        if len(parts) == 1:
            return parts[0]
        own = {f: torch.cat([getattr(p, f) for p in parts]) for f in PLAIN}
        return MemoryTokens(**own, values={id: torch.cat([p.values[id] for p in parts]) for id in parts[0].values})

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: Tensor) -> MemoryTokens:
        own = {f: getattr(self, f)[rows] for f in PLAIN}
        return MemoryTokens(**own, values={id: v[rows] for id, v in self.values.items()})

    @property
    def usage(self) -> Float[Tensor, " m"]:
        """The affinity received in a read, on average; 0 of what has not been read."""
        return self.received / self.reads.clamp(min=1)

    def read(self, received: Float[Tensor, " m"]) -> MemoryTokens:
        """The tokens after one more read, in which each of them received so much affinity."""
        return replace(self, received=self.received + received, reads=self.reads + 1)


PLAIN = tuple(f.name for f in fields(MemoryTokens) if f.name != "values")


@dataclass(frozen=True, eq=False)
class MemoryGroup:
    """The memory of objects that began in the same frame."""

    working: tuple[MemoryTokens, ...]  # a frame each, oldest first
    long_term: MemoryTokens | None = None
    since: int = 0  # frames since the last one that was remembered

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids of the group's objects, in the order in which they were added."""
        return tuple(self.working[0].values)

    @property
    def parts(self) -> tuple[MemoryTokens, ...]:
        """All tokens that are read: long-term memory, if there is any, then each working frame, oldest first."""
        return self.working if self.long_term is None else (self.long_term, *self.working)

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def read(self, received: Float[Tensor, " m"]) -> MemoryGroup:
        """After one more read, by which each token received so much affinity."""
        parts = [
            p.read(r) for p, r in zip(self.parts, torch.split(received, [len(p) for p in self.parts]), strict=True)
        ]
        if self.long_term is None:
            return replace(self, working=tuple(parts))
        return replace(self, long_term=parts[0], working=tuple(parts[1:]))

    def with_frame(self, frame: MemoryTokens, limits: MemoryLimits) -> MemoryGroup:
        """With one more frame, consolidated where that is one too many (XMem 3.2.3)."""
        group = MemoryGroup((*self.working, frame), self.long_term)
        return group if len(group.working) < limits.frames else group.consolidated(limits)

    def consolidated(self, limits: MemoryLimits) -> MemoryGroup:
        """The frames between the first and the last few become prototypes in long-term memory."""
        last = len(self.working) - limits.recent + 1
        new = compute_prototypes(MemoryTokens.cat(self.working[1:last]), limits.prototypes)
        kept = (
            [] if self.long_term is None else [select_most_used(self.long_term, limits.long_term - limits.prototypes)]
        )
        # As few as this stay as they are, in the published code: they are consolidated once more with the next.
        few = len(self.working) <= limits.recent + 1
        return replace(
            self,
            working=self.working if few else (self.working[0], *self.working[last:]),
            long_term=MemoryTokens.cat([*kept, new]),
        )

    def branch(self, origins: Mapping[int, int]) -> MemoryGroup | None:
        """The memory of some objects alone, {new id: old id}; None: of nobody."""
        own = {new: old for new, old in origins.items() if old in self.working[0].values}
        if not own:
            return None
        parts = [replace(p, values={new: p.values[old] for new, old in own.items()}) for p in self.parts]
        at = len(parts) - len(self.working)
        return replace(self, long_term=parts[0] if at else None, working=tuple(parts[at:]))


def compute_prototypes(candidates: MemoryTokens, most: int) -> MemoryTokens:
    """The most used tokens, by descending usage, their values and shrinkage averaged over all candidates by how similar
    these are to them: prototypes with no aliasing (XMem, eq. 6 and 7). They count as not yet read.
    """
    chosen = candidates.usage.topk(min(most, len(candidates))).indices
    key, selection = candidates.keys[chosen], candidates.selection[chosen]
    near = compute_similarity(key, selection, candidates.keys, candidates.shrinkage).softmax(1)
    values = {id: near @ v for id, v in candidates.values.items()}
    return MemoryTokens.of(XmemQuery(key, near @ candidates.shrinkage, selection), values)


def select_most_used(tokens: MemoryTokens, most: int) -> MemoryTokens:
    """At most so many tokens: those used more than the best of the others, so that equal ones stay or go together."""
    if len(tokens) <= most:
        return tokens
    return tokens[tokens.usage > tokens.usage.topk(len(tokens) - most, largest=False).values[-1]]


# -- reading


@dataclass(frozen=True, eq=False)
class TokenAffinity:
    """How much every cell takes of which tokens."""

    tokens: Int64[Tensor, "p k"]
    shares: Float[Tensor, "p k"]  # rows sum to 1

    def of(self, values: Float[Tensor, "m v"]) -> Float[Tensor, "p v"]:
        """What the cells read of one object's values."""
        return nnf.embedding_bag(self.tokens, values, per_sample_weights=self.shares, mode="sum")

    def received(self, m: int) -> Float[Tensor, " m"]:
        """The affinity that each of `m` tokens receives in all."""
        return self.shares.new_zeros(m).index_add_(0, self.tokens.flatten(), self.shares.flatten())


def compute_affinity(query: XmemQuery, parts: Sequence[MemoryTokens], most: int) -> TokenAffinity:
    """For each cell of `query`, the softmax over the `most` tokens of all `parts` of a memory that are most similar to
    it (XMem, eq. 2; STCN's top-k); token numbers count through the parts in their order.
    """
    keys, shrinkage = torch.cat([p.keys for p in parts]), torch.cat([p.shrinkage for p in parts])
    rows = max(SCORES // len(keys), 1)
    found = [
        compute_similarity(k, e, keys, shrinkage).topk(min(most, len(keys)), sorted=False)
        for k, e in zip(torch.split(query.keys, rows), torch.split(query.selection, rows), strict=True)
    ]
    return TokenAffinity(torch.cat([f.indices for f in found]), torch.cat([f.values for f in found]).softmax(1))


def compute_similarity(
    query: Float[Tensor, "p c"],
    selection: Float[Tensor, "p c"],
    keys: Float[Tensor, "m c"],
    shrinkage: Float[Tensor, " m"],
) -> Float[Tensor, "p m"]:
    """The anisotropic L2 similarity (XMem, eq. 3): - shrinkage * sum of selection (query - keys)^2, over the root of c.

    In one product: the squares are written out, the channels of one side put together with those of the other.
    """
    q, e = query, selection
    asked = torch.cat([2 * e * q, -e, -(e * q * q).sum(1, keepdim=True)], 1)
    held = torch.cat([keys, keys * keys, torch.ones_like(keys[:, :1])], 1)
    return multiply_by_transposed(asked, held * (shrinkage[:, None] / keys.shape[1] ** 0.5))


# -- memories


@dataclass(frozen=True, eq=False)
class DecodedMasks:
    """What a propagated mask leaves for `commit`; as rows of tokens it goes through any system."""

    sensory: Float[Tensor, "n v h w"]
    soft: Float[Tensor, "n y x"]  # probabilities
    presence: Float[Tensor, " n"]
    received: Float[Tensor, "n m"]  # affinity that the tokens of the object's group received; more of them hold 0

    def tokens(self) -> Float[Tensor, "n 1 c"]:
        """As one row for each object."""
        rows = [x.flatten(1) for x in (self.sensory, self.soft, self.presence[:, None], self.received)]
        return torch.cat(rows, 1)[:, None]

    @staticmethod
    def of(tokens: Float[Tensor, "n 1 c"], outer: tuple[int, int]) -> DecodedMasks:
        """From the rows; `outer` is the size of what the network sees."""
        h, w = outer[0] // STRIDE, outer[1] // STRIDE
        whole = VALUE * h * w, outer[0] * outer[1], 1
        sensory, soft, presence, received = torch.split(tokens[:, 0], [*whole, tokens.shape[2] - sum(whole)], 1)
        return DecodedMasks(sensory.reshape(-1, VALUE, h, w), soft.reshape(-1, *outer), presence[:, 0], received)


@dataclass(frozen=True, eq=False)
class ObjectTrace:
    """What is remembered of one object for the next frame only."""

    sensory: Float[Tensor, "v h w"]
    mask: Float[Tensor, "y x"]  # the last one, soft
    inside: Bool[Tensor, "y0 x0"]  # where the object was held to be, without the padding
    fresh: bool = True  # of the last frame


@dataclass(frozen=True, eq=False)
class XmemMemory:
    """The memory of all objects: a value."""

    traces: Mapping[int, ObjectTrace] = field(default_factory=dict)
    groups: tuple[MemoryGroup, ...] = ()
    unwritten: XmemMemory | None = None  # the same, had the last frame not been remembered; None: it was not

    def branch(self, origins: Mapping[int, int]) -> XmemMemory:
        """The memory of some objects alone, {new id: old id}."""
        groups = tuple(g for g in (group.branch(origins) for group in self.groups) if g is not None)
        traces = {new: self.traces[old] for new, old in origins.items()}
        return XmemMemory(traces, groups, self.unwritten.branch(origins) if self.unwritten else None)
