"""What a training begins with: a Mask2Former, DVIS's heads or a slot model, from files of ours and official ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from masklet.core.errors import InputError
from masklet.core.wording import name_argument, name_setting
from masklet.models.mask2former.networks import wrap_query_network
from masklet.models.mask2former.segmenter import Mask2Former
from masklet.models.mask2former.small import KIND as SMALL
from masklet.models.mask2former.small import SmallMask2FormerSettings, load_small
from masklet.models.mask2former.tensor_names import GENVIS, require_kind
from masklet.models.mask2former.weights import (
    LoadedMask2Former,
    build_mask2former,
    locate_mask2former,
    name_numbered_classes,
)
from masklet.models.query_video.genvis import build_released_genvis
from masklet.models.query_video.heads import has_head, is_heads, load_refiner, load_tracker, read_heads_origin
from masklet.models.query_video.slot_weights import NETS, SlotNetwork, read_slot_network
from masklet.nn.referring_tracker import ReferringTracker, build_released_tracker
from masklet.nn.temporal_refiner import TemporalRefiner, build_released_refiner
from masklet.parts import check_short_side
from masklet.weights.format import read_kind

PUBLISHED = {"resnet": (240, 360, 480), "swin": (360, 480, 600)}  # short sides of DVIS's training, by the backbone
Size = tuple[int, int]  # h, w


def split_side(name: str) -> tuple[str, int | None]:
    """A name of weights and the size after its "@", as `masklet run` takes both. Raises InputError where that is none.

    >>> split_side("minvis.pth@480"), split_side("minvis.pth")
    (('minvis.pth', 480), ('minvis.pth', None))
    """
    base, at, side = name.rpartition("@")
    return (base, check_short_side(name, side)) if at else (name, None)


def name_start(name: str) -> str:
    """What a training begins with, as messages begin that are of it."""
    return name_argument("start", name, option="from")


@dataclass(frozen=True)
class StartingSegmenter:
    """A Mask2Former that a training begins with, or is done over."""

    name: str
    loaded: LoadedMask2Former
    side: int | None = None  # pixels of the short side, where the user says it
    small: SmallMask2FormerSettings | None = None  # of one that was trained here
    size: Size | None = None  # of the images of its training, likewise

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of its classes."""
        config: Any = self.loaded.net.config
        return tuple(config.id2label[n] for n in range(config.num_labels))

    @property
    def short(self) -> tuple[int, ...]:
        """Pixels of the short sides at which clips are published to be trained on over such a network."""
        if self.side is not None:
            return (self.side,)
        return PUBLISHED.get(wrap_query_network(self.loaded.net).backbone, PUBLISHED["swin"])

    def name_by(self, categories: Sequence[str]) -> list[str]:
        """Calls its classes as the data does, where nothing else has named them; what is to be said of it."""
        if not name_numbered_classes(self.loaded, categories):
            return []
        return [
            f"{self.name}: names no classes; they are taken for the {len(categories)} categories of the data, in their "
            f"order ({name_argument('categories')} says otherwise)"
        ]


def load_starting_segmenter(name: str, categories: str = "") -> StartingSegmenter:
    """The Mask2Former of a `name`, as segmenters are named: with "@480" behind it, at that size. `categories` name its
    classes as in `build_mask2former`; raises InputError as that.
    """
    base, side = split_side(name)
    loaded = build_mask2former(base, categories)
    if loaded.kind != SMALL:
        return StartingSegmenter(base, loaded, loaded.trained_at or side)  # an EoMT has one size
    held = load_small(locate_mask2former(base)[0])
    return StartingSegmenter(base, loaded, side, held.settings, None if side else held.size)


class OwnSizeSegmenter:
    """A `SlotSegmenter` that looks at frames in the size that they have, up to padding."""

    def __init__(self, segmenter: Mask2Former) -> None:
        self.categories, self._segmenter = segmenter.categories, segmenter

    def slots(self, frames: Sequence[Any]) -> Any:
        """All queries of a window of frames of one size."""
        return self._segmenter.at_side(min(frames[0].size)).slots(frames)


# -- DVIS's heads


@dataclass(frozen=True)
class StartingHeads:
    """Trained heads that a training begins with."""

    tracker: ReferringTracker
    refiner: TemporalRefiner | None
    categories: tuple[str, ...]
    weights: Mapping[str, str] = field(default_factory=dict)  # {file: sha256} of the segmenter below; none: not told
    below: Any = None  # the segmenter that their file holds, too: an official one does

    @property
    def is_official(self) -> bool:
        """Whether the file holds the segmenter, too."""
        return self.below is not None


def load_starting_heads(name: str, categories: str = "") -> StartingHeads:
    """The tracker, and the refiner if there is one, of a file that was trained here or of an official checkpoint, whose
    classes `categories` may name. Raises InputError where it holds no tracker.
    """
    if is_heads(name):
        tracker, names = load_tracker(name)
        refiner = load_refiner(name)[0] if has_head(name, "refiner") else None
        return StartingHeads(tracker, refiner, names, read_heads_origin(name).weights)
    base, _ = split_side(name)
    built = build_mask2former(base, categories)
    if not built.tracker:
        raise InputError(
            f"{name_start(name)}: weights of {built.kind}, which hold no tracker of DVIS; give those of one"
        )
    config: Any = built.net.config
    heads = config.num_attention_heads
    return StartingHeads(
        build_released_tracker(built.tracker, heads),
        build_released_refiner(built.refiner, heads) if built.refiner else None,
        tuple(config.id2label[n] for n in range(config.num_labels)),
        below=built.net,
    )


def is_trained_over(heads: StartingHeads, below: StartingSegmenter) -> bool:
    """Whether heads were trained over these weights of a segmenter, as far as they tell; official ones hold it."""
    if heads.below is not None:
        return has_same_weights(heads.below, below.loaded.net)
    return not heads.weights or sorted(heads.weights.values()) == sorted(below.loaded.weights.values())


def has_same_weights(one: Any, other: Any) -> bool:
    """Whether two networks are the same to the last bit, but for what only a loss reads."""
    ours, theirs = ({k: v for k, v in net.state_dict().items() if "criterion" not in k} for net in (one, other))
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


# -- slot models


def load_starting_slots(name: str, kind: str, categories: str = "") -> tuple[SlotNetwork, int | None]:
    """The slot model of a `kind` of `NETS` in a file of ours, or GenVIS of an official one, whose classes `categories`
    may name; and the size after its "@". Raises InputError where it holds another one.
    """
    base, side = split_side(name)
    path = Path(base).expanduser()
    if path.suffix == ".safetensors":
        if path.is_file() and (found := read_kind(path)) in NETS and found != kind:
            raise InputError(
                f"{name_start(name)}: weights of {found}, and {kind} is to be trained; say so by the setting row"
            )
        return read_slot_network(base, kind), side
    if kind != GENVIS:
        told = f"of official files GenVIS's are read: say {name_setting('row', 'queries')}"
        raise InputError(f"{name_start(name)}: {told}")
    built = build_mask2former(base, categories)
    require_kind(built.kind, GENVIS, name_start(name))
    net = build_released_genvis(built.net, built.objects, path)
    return SlotNetwork(net, built.shortest, built.weights), side
