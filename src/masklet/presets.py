"""Presets: which parts each stands for, by what is on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from masklet.core.errors import InputError
from masklet.core.wording import name_argument
from masklet.weights.store import find_checkpoint, find_weights, format_file_size

FAST, GOOD, BEST = PRESETS = ("fast", "good", "best")
SAM3 = "sam3"
SAM2_BY_QUALITY = ("sam2.1-large", "sam2.1-base-plus", "sam2.1-small", "sam2.1-tiny")
SEGMENTERS_BY_QUALITY = (
    "facebook/mask2former-swin-large-coco-instance",
    "facebook/mask2former-swin-base-coco-instance",
    "facebook/mask2former-swin-small-coco-instance",
    "facebook/mask2former-swin-tiny-coco-instance",
)


@dataclass(frozen=True)
class PartNames:
    """What a command takes where the user names nothing else, and what a fetch would add to it."""

    segmenter: str
    propagator: str
    hint: str = ""  # a sentence, or nothing
    text_segmenter: str | None = None  # of what is named in words; None: the library's

    def choose_segmenter(self, text: str, exemplars: Sequence[object] = ()) -> str | None:
        """The segmenter of what `text` names, of what `exemplars` show, or of everything. None: the library's usual.

        >>> PartNames("auto", "nano").choose_segmenter(""), PartNames("auto", "nano").choose_segmenter("", ["a box"])
        ('auto', 'sam3')
        """
        if exemplars:
            return SAM3
        return self.text_segmenter if text else self.segmenter


def choose_run_parts(preset: str) -> PartNames:
    """The parts of `run`. Raises InputError where there is no such preset.

    >>> choose_run_parts("fast").segmenter
    'motion'
    """
    check_preset(preset)
    if preset != BEST:
        return PartNames("motion" if preset == FAST else "auto", "affinity", hint_at_best(preset))
    segmenter, sam2 = find_present_model(SEGMENTERS_BY_QUALITY) or "auto", find_present_model(SAM2_BY_QUALITY)
    if find_present_model([SAM3]):
        return PartNames(segmenter, SAM3, text_segmenter=SAM3)
    return PartNames(segmenter, f"sam2long:{sam2}" if sam2 else "nano", "" if sam2 else hint_at_fetch())


def choose_track_parts(preset: str) -> PartNames:
    """The propagator of `track`. Raises InputError where there is no such preset.

    >>> choose_track_parts("good").propagator
    'nano'
    """
    check_preset(preset)
    if preset != BEST:
        return PartNames("", "affinity" if preset == FAST else "nano", hint_at_best(preset))
    if find_present_model([SAM3]):
        return PartNames("", SAM3)
    sam2 = find_present_model(SAM2_BY_QUALITY)
    return PartNames("", f"sam2long:{sam2 or 'nano'}", "" if sam2 else hint_at_fetch())


def check_preset(preset: str) -> None:
    """Raises InputError where there is no such preset."""
    if preset not in PRESETS:
        raise InputError(f"{name_argument('preset', preset)}: there are {', '.join(PRESETS)}")


def find_present_model(names: Sequence[str]) -> str | None:
    """The first of some models that is on this machine."""
    return next((name for name in names if find_weights(find_checkpoint(name))), None)


def hint_at_best(preset: str) -> str:
    """Where SAM 2 or SAM 3 is here and not used, how to use it; where neither is, how to get SAM 2."""
    found = find_present_model((SAM3, *SAM2_BY_QUALITY))
    kind = "SAM 3" if found == SAM3 else "SAM 2"
    return f"{kind} is on this machine: {name_argument('preset', BEST)} uses it" if found else hint_at_fetch()


def hint_at_fetch() -> str:
    """How to get SAM 2."""
    smallest = SAM2_BY_QUALITY[-1]
    size = format_file_size(find_checkpoint(smallest).size)
    return f"`masklet weights fetch {smallest}` ({size}, once) adds SAM 2, which {name_argument('preset', BEST)} takes"
