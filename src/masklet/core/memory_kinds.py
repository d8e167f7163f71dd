"""What a saved memory is made of, by tags that stay when a class is moved or renamed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from enum import Enum
from importlib import import_module
from typing import Any, TypeVar

T = TypeVar("T", bound=type)

# Once in a file, a tag stays; only the place behind it may change.
KINDS = {
    "rle": "masklet.core.rle:Rle",
    "box": "masklet.core.instances:Box",
    "point": "masklet.core.instances:Point",
    "clicks": "masklet.core.instances:Clicks",
    "detections": "masklet.core.instances:Detections",
    "prediction": "masklet.core.instances:Prediction",
    "branches": "masklet.core.instances:Branches",
    "frame": "masklet.core.frames:Frame",
    "sighting": "masklet.core.tracks:Sighting",
    "sighting-source": "masklet.core.tracks:Source",
    "fork": "masklet.core.tracks:Fork",
    "saved-run": "masklet.core.checkpoint:SavedRun",
    "tracked-slots": "masklet.core.alignment:TrackedSlots",
    "affinity": "masklet.models.affinity:AffinityMemory",
    "affinity-shot": "masklet.models.affinity:Shot",
    "affinity-moments": "masklet.nn.propagation:Moments",
    "motion": "masklet.models.segmenters.motion:MotionMemory",
    "motion-appearance": "masklet.models.segmenters.motion:AppearanceModel",
    "auto": "masklet.models.segmenters.auto:AutoMemory",
    "nano": "masklet.models.nano.propagator:NanoMemory",
    "sam2": "masklet.models.sam2.memory:Sam2Memory",
    "sam2-bank": "masklet.models.sam2.memory:MemoryBank",
    "sam2-entry": "masklet.models.sam2.memory:MemoryEntry",
    "sam2-motion": "masklet.models.sam2.memory:BoxMotion",
    "sam2long": "masklet.systems.sam2long:PathwayMemory",
    "sam2long-tree": "masklet.systems.sam2long:ObjectPathways",
    "xmem": "masklet.models.xmem.memory:XmemMemory",
    "xmem-group": "masklet.models.xmem.memory:MemoryGroup",
    "xmem-tokens": "masklet.models.xmem.memory:MemoryTokens",
    "xmem-trace": "masklet.models.xmem.memory:ObjectTrace",
    "cutie": "masklet.models.cutie:CutieMemory",
    "cutie-trace": "masklet.models.cutie:CutieTrace",
    "genvis": "masklet.models.query_video.genvis:GenvisMemory",
    "genvis-objects": "masklet.nn.genvis:ObjectMemory",
    "rocovis": "masklet.models.query_video.rocovis:RocovisMemory",
    "rocovis-frame": "masklet.models.query_video.rocovis:RememberedFrame",
    "rocovis-stream": "masklet.systems.rocovis:RocovisState",
    "referring-tracker": "masklet.nn.referring_tracker:TrackerMemory",
    "minvis-frame": "masklet.systems.minvis:LastFrameMemory",
    "ctvis-bank": "masklet.systems.ctvis:EmbeddingBank",
    "videomt": "masklet.models.query_video.videomt:VideomtMemory",
    "dvis-clip": "masklet.systems.dvis:ClipState",
    "slot-stream": "masklet.systems.query.loop:SlotLoopState",
    "sweep": "masklet.systems.sweep:SweepState",
    "sam2bmp-scores": "masklet.systems.sam2bmp:ScoreSummary",
    "sam2bmp-stream": "masklet.systems.sam2bmp:Sam2BmpState",
    "sam2bmp-newcomer": "masklet.systems.newcomers:Newcomer",
    "sam2bmp-tally": "masklet.systems.sam2bmp:ObjectTally",
    "last-masks": "masklet.models.last_masks:LastMasksMemory",
    "deva-stream": "masklet.systems.deva.online:DevaState",
    "deva-track": "masklet.systems.deva.consensus:VotedTrack",
}
# Files of before there were tags say where a class was: these places, for good.
PLACES_BEFORE_TAGS = {
    "masklet.core.masks:Rle": "rle",
    "masklet.core.instances:Box": "box",
    "masklet.core.tracks:Sighting": "sighting",
    "masklet.core.tracks:Source": "sighting-source",
    "masklet.core.alignment:TrackedSlots": "tracked-slots",
    "masklet.models.affinity:AffinityMemory": "affinity",
    "masklet.models.affinity:Shot": "affinity-shot",
    "masklet.nn.propagation:Moments": "affinity-moments",
    "masklet.models.motion:MotionMemory": "motion",
    "masklet.models.motion:Appearance": "motion-appearance",
    "masklet.models.auto_segmenter:AutoMemory": "auto",
    "masklet.models.nano_propagator:NanoMemory": "nano",
    "masklet.models.sam2_memory:Sam2Memory": "sam2",
    "masklet.models.sam2_memory:Bank": "sam2-bank",
    "masklet.models.sam2_memory:Entry": "sam2-entry",
    "masklet.systems.sam2long:TreeMemory": "sam2long",
    "masklet.systems.sam2long:Tree": "sam2long-tree",
    "masklet.models.xmem_memory:XmemMemory": "xmem",
    "masklet.models.xmem_memory:Group": "xmem-group",
    "masklet.models.xmem_memory:Tokens": "xmem-tokens",
    "masklet.models.xmem_memory:Trace": "xmem-trace",
    "masklet.models.genvis:GenvisMemory": "genvis",
    "masklet.nn.genvis:ObjectMemory": "genvis-objects",
    "masklet.models.rocovis:RocovisMemory": "rocovis",
    "masklet.models.rocovis:Remembered": "rocovis-frame",
    "masklet.systems.rocovis:State": "rocovis-stream",
    "masklet.nn.referring_tracker:TrackerMemory": "referring-tracker",
    "masklet.systems.minvis:LastFrame": "minvis-frame",
    "masklet.systems.dvis:ClipState": "dvis-clip",
    "masklet.systems.slot_loop:State": "slot-stream",
    "masklet.systems.sam2bmp:State": "sam2bmp-stream",
    "masklet.systems.sam2bmp:Tally": "sam2bmp-tally",
    "masklet.systems.deva:State": "deva-stream",
    "masklet.systems.consensus:Track": "deva-track",
}
UPGRADES = {  # by tag: what makes the fields of today of those in older files
    "affinity-moments": "masklet.nn.propagation:upgrade_moments",
}
_TAGS = {place: tag for tag, place in KINDS.items()}
_REGISTERED: dict[str, type] = {}  # by tag: classes of other packages


def register_memory_kind(tag: str) -> Callable[[T], T]:
    """Lets a dataclass of another package be part of a saved memory: a class decorator.

    Args:
        tag: what files call it, of no other class, such as "my-package.memory"; it stays when the class is renamed.

    Returns:
        The decorator.

    Raises:
        ValueError: another class has this tag.

    >>> from dataclasses import dataclass
    >>> @register_memory_kind("example.counter")
    ... @dataclass(frozen=True)
    ... class Counter:
    ...     frames: int = 0
    >>> find_memory_tag(Counter)
    'example.counter'
    """

    def register(kind: T) -> T:
        if tag in KINDS or _REGISTERED.setdefault(tag, kind) is not kind:
            raise ValueError(f"{tag}: another class is saved under this tag")
        return kind

    return register


def find_memory_tag(kind: type) -> str:
    """What files call a class. Raises TypeError where it has no tag, or is neither a dataclass nor an enumeration."""
    place = f"{kind.__module__}:{kind.__qualname__}"
    tag = _TAGS.get(place) or next((tag for tag, known in _REGISTERED.items() if known is kind), None)
    if tag is None or not _is_plain(kind):
        raise TypeError(
            f"a memory cannot hold {kind.__module__}.{kind.__qualname__}: "
            "only dataclasses with a tag (masklet.core.memory_kinds.register_memory_kind)"
        )
    return tag


def find_memory_kind(tag: str) -> Any:
    """The class behind a tag, or behind a place of before there were tags; nothing else is ever made from a file.
    Raises ValueError where there is none.
    """
    tag = PLACES_BEFORE_TAGS.get(tag, tag)
    if tag in _REGISTERED:
        return _REGISTERED[tag]
    if tag not in KINDS:
        raise ValueError(f"{tag} is no part of a memory here; import the package that defines it")
    return _import_place(KINDS[tag])


def make_memory_part(tag: str, fields: Mapping[str, Any]) -> Any:
    """The value of the class behind a `tag`, with the `fields` that a file has of it, also where it is an older one.
    Raises ValueError where there is no such class.
    """
    upgrade = UPGRADES.get(PLACES_BEFORE_TAGS.get(tag, tag))
    return find_memory_kind(tag)(**(_import_place(upgrade)(fields) if upgrade else fields))


def _import_place(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(import_module(module), name)


def _is_plain(kind: type) -> bool:
    return is_dataclass(kind) or issubclass(kind, Enum)
