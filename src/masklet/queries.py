"""Systems of a Mask2Former's queries by name: MinVIS, DVIS, RoCoVIS and GenVIS, from files of weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from masklet.builtins import QUERY_SYSTEMS
from masklet.core.errors import InputError
from masklet.core.files import path_exists
from masklet.core.wording import name_argument, name_setting
from masklet.models.mask2former.networks import infer_query_sizes
from masklet.models.mask2former.segmenter import Mask2Former
from masklet.models.mask2former.tensor_names import GENVIS, OFFLINE, ONLINE, require_kind
from masklet.models.mask2former.weights import (
    CHECKPOINTS,
    LoadedMask2Former,
    build_mask2former,
    name_numbered_classes,
)
from masklet.models.query_video.genvis import Genvis, build_released_genvis
from masklet.models.query_video.heads import HeadsOrigin, load_refiner, load_tracker, read_heads_origin
from masklet.models.query_video.slot_weights import load_slot_model
from masklet.models.query_video.videomt import load_videomt
from masklet.nn.referring_tracker import ReferringTracker, build_released_tracker
from masklet.nn.temporal_refiner import TemporalRefiner, build_released_refiner
from masklet.parts import check_short_side, refuse_detections, resolve_device
from masklet.systems import ctvis, dvis, minvis, rocovis
from masklet.systems.dvis import DvisRefined
from masklet.systems.query.answers import LEAST_SCORE
from masklet.systems.query.loop import OnlineSystem
from masklet.systems.rocovis import SlotSystem
from masklet.weights.catalog import QUERIES
from masklet.weights.categories import find_stuff, read_category_names
from masklet.weights.store import compute_hash

TRAINED_SUFFIX = ".safetensors"  # of files that are trained here
QuerySystem = OnlineSystem[Any] | DvisRefined[Any] | SlotSystem[Any]


@dataclass(frozen=True)
class NamedWeights:
    """Weights as the user names them: NAME, NAME@480, and of DVIS also NAME+HEADS or NAME@480+HEADS."""

    text: str
    base: str
    shortest: int | None
    heads: Path | None
    device: str
    categories: str = ""

    @property
    def built(self) -> LoadedMask2Former:
        """The Mask2Former, and what else its file holds."""
        return build_mask2former(self.base, self.categories)

    def segmenter(self, built: LoadedMask2Former) -> Mask2Former:
        """It on the device; its weights are said to include those of the heads."""
        net: Any = built.net
        heads = {self.heads.name: compute_hash(self.heads).sha256} if self.heads else {}
        trained = read_heads_origin(self.heads).side if self.heads else None
        weights, shortest = {**built.weights, **heads}, self.shortest or trained or built.shortest
        return Mask2Former(net.to(resolve_device(self.device)), shortest=shortest, weights=weights)


def parse_weights_name(text: str, with_heads: bool, device: str) -> NamedWeights:
    """The parts of a name, `text`: a segmenter, `with_heads` maybe "+" and a file of heads, and the short side after
    "@"; networks are to be on the `device`.
    """
    base, plus, heads = text.rpartition("+") if with_heads else ("", "", "")
    base = base if plus else text
    name, at, side = base.rpartition("@")
    shortest = check_short_side(base, side) if at else None
    return NamedWeights(text, name if at else base, shortest, Path(heads).expanduser() if plus else None, device)


def load_minvis(at: NamedWeights, settings: Any) -> QuerySystem:
    """MinVIS: any Mask2Former, and matching."""
    return minvis.build_minvis_system(at.segmenter(at.built), settings)


def load_ctvis(at: NamedWeights, settings: Any) -> QuerySystem:
    """CTVIS's memory bank over any Mask2Former."""
    return ctvis.build_ctvis_system(at.segmenter(at.built), settings)


def load_dvis(at: NamedWeights, settings: Any) -> QuerySystem:
    """DVIS's online system: segmenter and tracker."""
    built = at.built
    tracker = load_named_tracker(at, built, ONLINE, settings.over)
    return dvis.build_dvis_system(at.segmenter(built), tracker, settings)


def load_dvis_offline(at: NamedWeights, settings: Any) -> QuerySystem:
    """The offline and semi-online system."""
    built = at.built
    tracker, refiner = load_named_tracker(at, built, OFFLINE, settings.over), load_named_refiner(at, built)
    return DvisRefined(at.segmenter(built), tracker, refiner, settings)


def load_named_tracker(at: NamedWeights, built: LoadedMask2Former, kind: str, over: str) -> ReferringTracker:
    """The tracker of a file of heads, or of an official checkpoint of this `kind`. `over` is as in `DvisSettings`."""
    if at.heads is None:
        require_kind(built.kind, kind, at.text)
        tracker = build_released_tracker(built.tracker, built.net.config.num_attention_heads)
    else:
        tracker, categories = load_tracker(at.heads)
        if over == "same":
            check_heads_origin(read_heads_origin(at.heads), at, built)
        name_numbered_classes(built, categories)
        check_heads(tracker, categories, at, built)
    return tracker.to(resolve_device(at.device))


def load_named_refiner(at: NamedWeights, built: LoadedMask2Former) -> TemporalRefiner:
    """The refiner of the same file."""
    if at.heads is None:
        refiner = build_released_refiner(built.refiner, built.net.config.num_attention_heads)
    else:
        refiner, _ = load_refiner(at.heads)
    return refiner.to(resolve_device(at.device))


def check_heads_origin(origin: HeadsOrigin, at: NamedWeights, built: LoadedMask2Former) -> None:
    """Raises InputError where heads say that they were trained over other weights than the segmenter's."""
    if origin.weights and sorted(origin.weights.values()) != sorted(built.weights.values()):
        [(file, sha256), *_] = origin.weights.items()
        [found, *_] = built.weights.values()
        raise InputError(
            f"{at.heads}: trained over {file} (sha256 {sha256[:12]}...), but {at.base} has sha256 {found[:12]}...; "
            f"name the segmenter that it was trained over, or say {name_setting('over', 'any')} to run it over "
            "another one"
        )


def check_heads(
    tracker: ReferringTracker, categories: tuple[str, ...], at: NamedWeights, built: LoadedMask2Former
) -> None:
    """Raises InputError where heads were trained over another segmenter."""
    config: Any = built.net.config
    names = tuple(config.id2label[n] for n in range(config.num_labels))
    widths = (tracker.settings.width, tracker.settings.mask_width), infer_query_sizes(config)[:2]
    if names != categories or widths[0] != widths[1]:
        raise InputError(
            f"{at.heads}: trained over a segmenter of {len(categories)} categories and width {widths[0][0]}, but "
            f"{at.base} has {len(names)} and {widths[1][0]}; name the segmenter that it was trained over"
        )


def load_rocovis(at: NamedWeights, settings: Any) -> QuerySystem:
    """What `masklet train rocovis` has trained."""
    return rocovis.build_rocovis_system(load_named_slots(at, "rocovis"), settings)


def load_genvis(at: NamedWeights, settings: Any) -> QuerySystem:
    """An official checkpoint, or the baseline of RoCoVIS's ablation, trained with `--set row=queries`."""
    is_ours = Path(at.base).suffix == TRAINED_SUFFIX and at.base not in QUERIES
    model: Any = load_named_slots(at, "genvis") if is_ours else load_released_genvis(at)
    if settings.frames is not None:  # at most as many as it was trained with
        kept = min(settings.frames, model.net.settings.frames or settings.frames)
        model.net.settings = replace(model.net.settings, frames=kept)
    return rocovis.build_genvis_system(model, settings)


def load_released_genvis(at: NamedWeights) -> Genvis:
    """The model of an official checkpoint. Raises InputError where it is of another kind."""
    built = at.built
    require_kind(built.kind, GENVIS, at.text)
    net = build_released_genvis(built.net, built.objects, Path(at.base))
    device: Any = resolve_device(at.device)
    return Genvis(net.to(device), shortest=at.shortest or built.shortest, weights=built.weights)


def load_videomt_system(at: NamedWeights, settings: Any) -> QuerySystem:
    """A VidEoMT of transformers, by hub id or folder, as a live system."""
    names, device = read_category_names(at.categories) if at.categories else None, resolve_device(at.device)
    return rocovis.build_videomt_system(load_videomt(at.base, device, side=at.shortest, categories=names), settings)


def load_named_slots(at: NamedWeights, kind: str) -> Any:
    """The model of a file that was trained here, of this `kind`."""
    names = read_category_names(at.categories) if at.categories else None
    return load_slot_model(at.base, kind, resolve_device(at.device), shortest=at.shortest, categories=names)


TRAINED = "SEGMENTER+HEADS, where `masklet train` wrote both"
WEIGHTS: Mapping[str, str] = {  # what each system takes
    "minvis": "minvis-r50-ytvis21, mask2former-swin-tiny or another Mask2Former, or an EoMT",
    "ctvis": "minvis-r50-ytvis21, mask2former-swin-tiny or another Mask2Former, or an EoMT",
    "dvis": f"dvis-online-r50-ytvis21 or another checkpoint; or {TRAINED}",
    "dvis-offline": f"dvis-offline-r50-ytvis21 or another checkpoint; or {TRAINED}",
    "rocovis": "a file that `masklet train rocovis` wrote",
    "videomt": "a VidEoMT by hub id or folder",
    "genvis": "genvis-r50-ovis or another checkpoint; or a file that `masklet train rocovis --set row=queries` wrote",
}
WITH_HEADS = ("dvis", "dvis-offline")  # heads may be named after a plus


def load_query_system(system: str, name: Any, device: str, settings: Any, categories: str = "") -> QuerySystem:
    """A system of `QUERY_SYSTEMS`.

    Args:
        system: its name.
        name: weights: a name of `masklet weights list`, a hub id, folder or file (of "minvis" and "ctvis" any
            Mask2Former or EoMT; of "videomt" a VidEoMT; of DVIS an official checkpoint, or "SEGMENTER+HEADS" with a
            file of trained heads; of GenVIS an official checkpoint or a file that was trained here, of RoCoVIS the
            latter). "NAME@480": at another size of the short side.
        device: as in `parts.load_propagator`.
        settings: of the system's own class; of pairs of slot and category those are answered that score 0.3 or more,
            unless they say otherwise.
        categories: names of the classes of official weights, as `build_mask2former` takes them.

    Raises:
        InputError: no name, or its weights are not on this machine or not of this system.
    """
    if not isinstance(name, str) or not name:
        raise InputError(f"{system} needs weights; give them by {name_argument('segmenter')}: {WEIGHTS[system]}")
    check_no_detections(system, name)
    settings = replace(settings, min_score=LEAST_SCORE if settings.min_score is None else settings.min_score)
    named = replace(parse_weights_name(name, system in WITH_HEADS, device), categories=categories)
    made: QuerySystem = QUERY_SYSTEMS[system].load()(named, settings)
    return add_known_stuff(made)


def check_no_detections(system: str, name: str) -> None:
    """Raises InputError where `name`, for the weights of a `system`, is that of a file which can only be detections."""
    path = Path(name).expanduser()
    if path_exists(path) and not path.is_dir() and path.suffix not in CHECKPOINTS:
        refuse_detections(name, system)


def add_known_stuff(made: QuerySystem) -> QuerySystem:
    """The system, told which of its categories are stuff where a panoptic answer is asked for, the user did not say it
    and the data set is known.
    """
    at: Any = made.settings
    stuff = find_stuff(made.segmenter.categories)
    if at.task != "panoptic" or at.stuff or not stuff:
        return made
    told: QuerySystem = replace(made, settings=replace(at, stuff=stuff))
    return told
