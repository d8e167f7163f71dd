"""What SAM 2 remembers: a bank of entries for each object, and the policies that keep and read them.

A bank holds no frame index: its clock counts the frames that went by, in whatever direction, so that branching is
copying it and backward is showing it the frames in reverse order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import BFloat16, Float, Float64
from torch import Tensor

SPATIAL = 6  # frames without a prompt whose spatial memory is read
POINTERS = 16  # object pointers that are read at most


@dataclass(frozen=True, eq=False)
class BoxMotion:
    """How an object's box moves, as a Kalman filter knows it: middle x and y, width, height, and their velocities."""

    mean: Float64[Tensor, " 8"]  # in cells of the logits, and of these a frame
    covariance: Float64[Tensor, "8 8"]
    seen: int  # frames in a row in which the object was surely seen


@dataclass(frozen=True, eq=False)
class MemoryEntry:
    """What is remembered of one object in one frame."""

    time: int  # on the bank's clock
    pointer: Float[Tensor, " c"]
    quality: float  # predicted mask IoU
    presence: float  # object score, a logit
    spatial: BFloat16[Tensor, "p d"] | None  # None: too old to be read, or not encoded
    area: int = 0  # pixels of the mask, where the policy asks for them
    is_sample: bool = False  # what the policy has marked it as
    is_anchor: bool = False
    fit: float = 1.0  # how well it fits the object's motion, 0 to 1, where the policy asks for it
    motion: BoxMotion | None = None  # likewise


@dataclass(frozen=True, eq=False)
class MemoryBank:
    """One object's memory."""

    now: int = 0  # time of the frame to come
    prompted: tuple[MemoryEntry, ...] = ()  # conditioning frames; the first is the anchor
    recent: tuple[MemoryEntry, ...] = ()  # the other frames, oldest first
    logits: Float[Tensor, "h w"] | None = None  # the answer in the last frame, where there was one

    def before(self, time: int) -> MemoryBank:
        """The bank as it was when the frame of that time was to come."""
        earlier = [tuple(e for e in entries if e.time != time) for entries in (self.prompted, self.recent)]
        return MemoryBank(time, earlier[0], earlier[1])

    def with_prompt(self, entry: MemoryEntry, logits: Float[Tensor, "h w"], most: int) -> MemoryBank:
        """The bank with `entry` as a conditioning frame, in place of what was believed of that frame, and its `logits`
        as the last answer. Of conditioning frames at most `most` stay: the anchor and the latest.
        """
        bank = self.before(entry.time)
        prompted = (*bank.prompted, entry)
        if len(prompted) > most:
            prompted = (prompted[0], *prompted[len(prompted) - most + 1 :])
        return MemoryBank(self.now, prompted, bank.recent, logits)


@dataclass(frozen=True)
class Sam2Memory:
    """The memory of all objects: a value."""

    banks: Mapping[int, MemoryBank] = field(default_factory=dict)


def shift_time(memory: Sam2Memory, frames: int) -> Sam2Memory:
    """The memory `frames` frames later (earlier, where negative), nothing having been seen in between."""
    return Sam2Memory({id: replace(bank, now=bank.now + frames) for id, bank in memory.banks.items()})


def reverse_time(memory: Sam2Memory) -> Sam2Memory:
    """The memory with time running the other way: what was to come has been, the frame to come stays the same. How
    objects move is found anew.
    """
    banks = {}
    for id, bank in memory.banks.items():
        prompted, recent = (
            tuple(replace(e, time=-e.time, motion=None) for e in es) for es in (bank.prompted, bank.recent)
        )
        banks[id] = MemoryBank(-bank.now, prompted, recent[::-1])
    return Sam2Memory(banks)


@dataclass(frozen=True)
class MemoryReading:
    """What memory attention is given of one bank."""

    frames: Sequence[MemoryEntry]
    ranks: Sequence[int]  # 0: conditioning frame; n: as if n frames ago
    pointers: Sequence[MemoryEntry]
    distances: Sequence[float]  # of the pointers, in units of the longest
    frame_weights: Sequence[float] | None = None  # factors of the keys; None: 1
    pointer_weights: Sequence[float] | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Banks whose readings have one shape go through the network together."""
        return len(self.frames), len(self.pointers)


@runtime_checkable
class MemoryPolicy(Protocol):
    """What of a bank is read for the frame to come, and what must be kept for frames after it."""

    def read(self, bank: MemoryBank) -> MemoryReading:
        """What memory attention is given of the bank in the frame to come."""
        ...

    def keep(self, bank: MemoryBank) -> MemoryBank:
        """The bank, after an entry was added, without what no later frame can read."""
        ...


@runtime_checkable
class MarkingPolicy(MemoryPolicy, Protocol):
    """One that looks at all hypotheses of a frame before it is remembered."""

    def mark(self, bank: MemoryBank, entry: MemoryEntry, hypotheses: Float[Tensor, "k h w"]) -> MemoryEntry:
        """The `entry` that the `bank` is about to take, marked; `hypotheses` are mask logits, the chosen one first."""
        ...


@runtime_checkable
class WeighingPolicy(MemoryPolicy, Protocol):
    """One that has a say in which hypothesis of a frame is the best."""

    def weigh(
        self, bank: MemoryBank, hypotheses: Float[Tensor, "k h w"], quality: Float[Tensor, " k"]
    ) -> Float[Tensor, " k"]:
        """The `quality` of each of an object's `hypotheses`, mask logits, by which the best is chosen."""
        ...


@runtime_checkable
class PointingPolicy(MemoryPolicy, Protocol):
    """One that reads at most so many object pointers, and never more than the video has frames."""

    pointers: int


@dataclass(frozen=True)
class Sam2Settings:
    """What can be set of SAM 2 as a propagator."""

    conditioning: int | None = None  # conditioning frames that are read; none: all that are held
    pointers: int = POINTERS  # object pointers that are read, at most; in a shorter clip as many as it has frames
    postprocess: bool = True  # prompts are remembered as 0 and 1, unstable masks replaced; evaluations go without
    compile: bool = False  # networks by torch.compile: the first frames take long


@dataclass(frozen=True)
class RecentFrames:
    """SAM 2: the conditioning frames, the spatial memories of the last 6 frames, as far as they were encoded, and the
    pointers of the last 16 frames.
    """

    conditioning: int | None = None  # conditioning frames that are read; None: all that are held
    pointers: int = POINTERS  # at most, and at most the frames in the video; 2 or more

    def read(self, bank: MemoryBank) -> MemoryReading:
        """By true distance; a conditioning frame that is not selected counts like any other frame."""
        chosen = select_closest(bank.prompted, bank.now, self.conditioning)
        others = {bank.now - e.time: e for e in (*bank.recent, *bank.prompted) if e not in chosen}
        ranks = [n for n in range(SPATIAL, 0, -1) if n in others and others[n].spatial is not None]
        past = [e for e in chosen if e.time <= bank.now]
        near = [n for n in range(1, self.pointers) if n in others]
        distances = [bank.now - e.time for e in past] + near
        return MemoryReading(
            [*chosen, *(others[n] for n in ranks)],
            [0] * len(chosen) + ranks,
            [*past, *(others[n] for n in near)],
            [d / (self.pointers - 1) for d in distances],
        )

    def keep(self, bank: MemoryBank) -> MemoryBank:
        """One frame more than is read: a prompt may ask for the frame just seen again."""
        recent = [e for e in bank.recent if bank.now - e.time <= max(self.pointers, SPATIAL + 1)]
        return replace(bank, recent=drop_old_spatial_entries(recent, lambda e: bank.now - e.time > SPATIAL + 1))


@dataclass(frozen=True)
class ReliableFrames:
    """SAM2Long: frames in which the object was surely seen, and keys that say how surely (SAM2Long 3.3)."""

    quality: float = 0.3  # predicted mask IoU above which a frame is reliable; the official code's default: 0.1
    pointers: int = POINTERS  # 2 or more
    weights: tuple[float, float] = (0.95, 1.05)  # factors of the keys, from the lowest to the highest object score
    prompt_score: float = 10.0  # what a conditioning frame's object score counts as

    def read(self, bank: MemoryBank) -> MemoryReading:
        """By rank among the reliable frames; the last frame always counts as one."""
        valid = self.valid(bank)
        nearest = valid[-SPATIAL:]
        followers = valid[:0:-1]  # newest first, the oldest left out
        # Conditioning frames keep their true distance.
        distances = [float(bank.now - e.time) for e in bank.prompted] + [n + 1.0 for n in range(len(followers))]
        plain = not valid
        return MemoryReading(
            [*bank.prompted, *nearest],
            [0] * len(bank.prompted) + list(range(len(nearest), 0, -1)),
            [*bank.prompted, *followers],
            [d / (self.pointers - 1) for d in distances],
            None if plain else self._factors(len(bank.prompted), nearest),
            None if plain else self._factors(len(bank.prompted), followers),
        )

    def valid(self, bank: MemoryBank) -> list[MemoryEntry]:
        """The latest reliable frames, oldest first, and the last frame, reliable or not, unless it was prompted."""
        reliable = [e for e in bank.recent if self.is_reliable(e)][-(self.pointers - 1) :]
        last = [e for e in bank.recent[-1:] if e.time == bank.now - 1 and e not in reliable]
        return [*reliable, *last]

    def is_reliable(self, entry: MemoryEntry) -> bool:
        """SAM2Long eq. 4: seen, and seen well."""
        return entry.quality > self.quality and entry.presence > 0

    def _factors(self, prompts: int, others: Sequence[MemoryEntry]) -> list[float]:
        return compute_key_factors([self.prompt_score] * prompts + [e.presence for e in others], self.weights)

    def keep(self, bank: MemoryBank) -> MemoryBank:
        """What may be read, now or when a prompt asks for the frame just seen again."""
        reliable = [e for e in bank.recent if self.is_reliable(e)][-self.pointers :]
        recent = [e for e in bank.recent if e in reliable or e in bank.recent[-2:]]
        spatial = recent[-SPATIAL - 2 :]
        return replace(bank, recent=drop_old_spatial_entries(recent, lambda e: e not in spatial))


def select_closest(entries: Sequence[MemoryEntry], now: int, most: int | None) -> tuple[MemoryEntry, ...]:
    """At most `most` of the conditioning frames `entries`, None: all of them. First comes the last one before `now`,
    then the first one from `now` on, then the nearest in time.
    """
    if most is None or len(entries) <= most:
        return tuple(entries)
    before = sorted((e for e in entries if e.time < now), key=lambda e: -e.time)[:1]
    after = sorted((e for e in entries if e.time >= now), key=lambda e: e.time)[:1]
    rest = sorted((e for e in entries if e not in (*before, *after)), key=lambda e: abs(e.time - now))
    return (*before, *after, *rest)[:most]


def compute_key_factors(scores: Sequence[float], span: tuple[float, float]) -> list[float]:
    """Evenly spaced factors, the smallest for the lowest score; of equal scores the earlier has the smaller."""
    if len(scores) == 1:
        return [torch.tensor(span[0], dtype=torch.bfloat16).item()]  # as the official code has it for the lone prompt
    order = sorted(range(len(scores)), key=lambda n: scores[n])
    steps = torch.linspace(*span, len(scores)).tolist()
    return [steps[order.index(n)] for n in range(len(scores))]


def drop_old_spatial_entries(
    entries: Sequence[MemoryEntry], old: Callable[[MemoryEntry], bool]
) -> tuple[MemoryEntry, ...]:
    """The entries, the old ones without their spatial memory."""
    return tuple(replace(e, spatial=None) if e.spatial is not None and old(e) else e for e in entries)
