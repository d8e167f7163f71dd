"""Trainings by name: what `masklet train` trains, on what, and for how long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from masklet.core.errors import InputError
from masklet.models.mask2former import Mask2Former, load_mask2former
from masklet.models.mask2former_weights import build
from masklet.models.nano import NanoSettings, nano_network, read_nano
from masklet.models.query_heads import load_tracker
from masklet.models.small_mask2former import SmallSettings, is_small, load_small, save_small, small_mask2former
from masklet.nn.referring_tracker import ReferringTracker, TrackerSettings
from masklet.nn.temporal_refiner import RefinerSettings, TemporalRefiner
from masklet.parts import there
from masklet.train.clips import Clip, ClipSource
from masklet.train.dvis import REFINER_REVERSE, DvisTraining, RefinerTask, TrackerTask, begin_as_minvis
from masklet.train.framing import FixedFraming
from masklet.train.loop import Plan, Task
from masklet.train.losses import LossSettings
from masklet.train.mixed import Mixed
from masklet.train.nano import LIVELY, nano_task
from masklet.train.pasting import MovingStills
from masklet.train.propagator import PropagatorTask
from masklet.train.rocovis import ROWS, RocovisTask, RocovisTraining
from masklet.train.scenes import RANGES, SyntheticSettings
from masklet.train.segmenter import SegmenterTask, held_out, points_for, with_categories
from masklet.train.stills import CropSettings, PseudoVideos, StillCrops, Stills, as_object
from masklet.train.synthetic import Synthetic
from masklet.train.videos import Videos, vipseg_footage, ytvis_footage

SYNTHETIC = "synthetic"
PICTURES, FRAMES = "images", "JPEGImages"  # folders by which a set of stills and a set of videos are known
TRUTHS = ("annotations.json", "instances.json", "train.json")  # of a set of videos
PANOPTIC, PANOPTIC_TRUTHS = "panomasksRGB", ("panoptic_gt_VIPSeg_train.json", "panoptic_gt.json")  # of VIPSeg
MOST_LAYERS = 6  # of DVIS's tracker and refiner, as published

Size = tuple[int, int]  # h, w


@dataclass(frozen=True)
class Wish:
    """What the user asks for, checked."""

    data: tuple[str, ...]
    val: tuple[str, ...]  # none: other clips of the data
    size: Size
    frames: int  # of a clip
    steps: int
    batch: int
    lr: float
    seed: int
    start: str  # weights to begin with, or none
    segmenter: str  # of what is trained over one, or none
    settings: Mapping[str, str]  # of the training's own
    device: torch.device


@dataclass(frozen=True)
class Training:
    """One thing that can be trained, with what it takes where the user does not say."""

    task: Callable[[Wish, ClipSource, Sequence[Clip]], Task]
    plan: Callable[[Wish], Plan]
    stills: Callable[[Stills, FixedFraming, bool], ClipSource]  # the last: whether they are varied
    frames: int
    steps: int
    batch: int
    lr: float
    held_out: int  # clips
    settings: Mapping[str, Sequence[str]]  # its own ones, and what each can be; the first where nothing is said
    read: Callable[[Path], Stills] = Stills  # a folder of stills


# -- the segmenter


def segmenter_task(wish: Wish, source: ClipSource, unseen: Sequence[Clip]) -> SegmenterTask:
    """The small Mask2Former from the packaged backbone, or any one from its weights."""
    path = Path(wish.start)
    if not wish.start or is_small_file(path):
        held = load_small(path) if wish.start else None
        settings = held.settings if held else SmallSettings()
        net: Any = held.net if held else small_mask2former(settings, source.categories, wish.seed)

        def save(to: Path) -> None:
            save_small(to, net, settings, wish.size)
    else:
        net = build(wish.start).net

        def save(to: Path) -> None:
            net.save_pretrained(to.with_suffix(""))  # a folder, as transformers loads it

    net = with_categories(net, source.categories, wish.seed).to(wish.device)
    return SegmenterTask(net, source, unseen, save, clips=wish.batch, frames=wish.frames)


def is_small_file(path: Path) -> bool:
    """Whether it is the file of a small Mask2Former."""
    return there(path) and path.is_file() and is_small(path)


def segmenter_plan(wish: Wish) -> Plan:
    """Clips go through the network together, so that a step is one item. What was trained before learns slowly."""
    slow = ("net.model.pixel_level_module.encoder." + ("" if wish.start else "net."), 0.1)
    return Plan(
        wish.steps, 1, wish.lr, warm_up=min(100, wish.steps // 10), factors=(slow,), seed=wish.seed, **often(wish)
    )


# -- DVIS


def tracker_task(wish: Wish, source: ClipSource, unseen: Sequence[Clip]) -> TrackerTask:
    """A tracker of the segmenter's own width, new or from a file of one."""
    segmenter = frozen(wish)
    with torch.random.fork_rng([]):
        torch.manual_seed(wish.seed)
        tracker = load_tracker(wish.start)[0] if wish.start else ReferringTracker(TrackerSettings(**sizes(segmenter)))
    told = own(wish)
    if told.pop("begin", "minvis") == "minvis" and not wish.start:
        begin_as_minvis(tracker, segmenter.net)
    settings = DvisTraining(wish.steps, wish.frames, losses=losses_for(wish), **told)
    return TrackerTask(segmenter, trained(tracker, wish), source, settings, unseen)


def refiner_task(wish: Wish, source: ClipSource, unseen: Sequence[Clip]) -> RefinerTask:
    """A refiner over a trained tracker."""
    if not wish.start:
        raise InputError("a refiner needs the tracker that it refines: --from FILE, as masklet train tracker writes it")
    segmenter, tracker = frozen(wish), load_tracker(wish.start)[0].to(wish.device).requires_grad_(False)
    with torch.random.fork_rng([]):
        torch.manual_seed(wish.seed)
        refiner = TemporalRefiner(RefinerSettings(**sizes(segmenter)))
    settings = DvisTraining(wish.steps, wish.frames, REFINER_REVERSE, losses_for(wish), **own(wish))
    return RefinerTask(segmenter, tracker, trained(refiner, wish), source, settings, unseen)


# -- RoCoVIS


def rocovis_task(wish: Wish, source: ClipSource, unseen: Sequence[Clip]) -> RocovisTask:
    """The whole network, beginning with a segmenter that was trained on images, maybe of other categories."""
    net = with_categories(build(named_segmenter(wish)).net, source.categories, wish.seed)
    settings = RocovisTraining(wish.frames, **own(wish))
    return RocovisTask(net, source, settings, unseen, device=wish.device, seed=wish.seed, shortest=min(wish.size))


def rocovis_plan(wish: Wish) -> Plan:
    """As the trackers', the backbone at a tenth of the rate."""
    return replace(heads_plan(wish), factors=(("segmenter.model.pixel_level_module.encoder.", 0.1),))


# -- the propagator


def propagator_task(wish: Wish, source: ClipSource, unseen: Sequence[Clip]) -> PropagatorTask:
    """The nano propagator, new or from a file of one."""
    if wish.device.type != "cpu":
        raise InputError("the nano propagator is trained on the CPU: its guesses are made there; give --device cpu")
    with torch.random.fork_rng([]):
        torch.manual_seed(wish.seed)
        settings = NanoSettings()
        net, settings = read_nano(Path(wish.start)) if wish.start else (nano_network(settings), settings)
    return nano_task(net, settings, source, unseen)


def propagator_plan(wish: Wish) -> Plan:
    """The rate rises for fifty steps and falls by half a cosine."""
    return Plan(
        wish.steps,
        wish.batch,
        wish.lr,
        weight_decay=0.01,
        warm_up=min(50, wish.steps // 10),
        seed=wish.seed,
        **often(wish),
    )


# -- what they share


def own(wish: Wish) -> dict[str, Any]:
    """The training's own settings, checked before."""
    return dict(wish.settings)


def frozen(wish: Wish) -> Mask2Former:
    """The segmenter that a tracker is trained on."""
    return load_mask2former(named_segmenter(wish), wish.device, shortest=min(wish.size))


def named_segmenter(wish: Wish) -> str:
    """The weights of the segmenter below."""
    if not wish.segmenter:
        raise InputError(
            "this is trained over a segmenter: --segmenter FILE, as masklet train segmenter writes it, or any other "
            "Mask2Former by hub id, folder or file"
        )
    return wish.segmenter


def sizes(segmenter: Mask2Former) -> dict[str, Any]:
    """Settings of a tracker or refiner as wide as a segmenter's decoder, and as deep, up to the published depth."""
    at = segmenter.net.config
    return {
        "classes": len(segmenter.categories),
        "width": at.hidden_dim,
        "heads": at.num_attention_heads,
        "hidden": at.dim_feedforward,
        "layers": min(at.decoder_layers - 1, MOST_LAYERS),
        "mask_width": at.mask_feature_size,
    }


def trained(module: Any, wish: Wish) -> Any:
    """On the device, with gradients."""
    return module.to(wish.device).requires_grad_(True)


def losses_for(wish: Wish) -> LossSettings:
    """As published, with as many points as suit the size."""
    return LossSettings(points=points_for(wish.size))


def heads_plan(wish: Wish) -> Plan:
    """DVIS 4.1: a tenth of the rate for the last three tenths of the steps."""
    return Plan(wish.steps, wish.batch, wish.lr, milestones=(int(0.7 * wish.steps),), seed=wish.seed, **often(wish))


def often(wish: Wish) -> dict[str, Any]:
    """Ten validations, and a checkpoint every minute or so."""
    return {"validate_every": max(1, wish.steps // 10), "save_every": 100}


# -- what there is


def crops(stills: Stills, framing: FixedFraming, varied: bool) -> ClipSource:
    """Single pictures."""
    return StillCrops(stills, framing, None if varied else CropSettings(mosaic=0, paste=0, light=0))


def turning(stills: Stills, framing: FixedFraming, varied: bool) -> ClipSource:
    """Pictures that turn, as DVIS makes videos of them."""
    return PseudoVideos(stills, framing)


def moving(stills: Stills, framing: FixedFraming, varied: bool) -> ClipSource:
    """Cut-outs that move, bend, hide and return over a picture, filmed by a camera that moves, too."""
    return MovingStills(stills, replace(LIVELY, size=framing.size))


def objects_of(path: Path) -> Stills:
    """A set of stills whose categories do not matter."""
    return Stills(path, as_object)


DVIS = {"given": ("once", "released"), "labels": ("own", "released")}  # `DvisTraining` says what they mean
TRACKER = {**DVIS, "begin": ("minvis", "random")}  # `begin_as_minvis`
TRAININGS: Mapping[str, Training] = {
    "segmenter": Training(segmenter_task, segmenter_plan, crops, 1, 5000, 4, 1e-3, 100, {}),
    "propagator": Training(propagator_task, propagator_plan, moving, 4, 4000, 1, 7e-4, 8, {}, objects_of),
    "tracker": Training(tracker_task, heads_plan, turning, 5, 4000, 1, 1e-4, 40, TRACKER),
    "refiner": Training(refiner_task, heads_plan, turning, 10, 4000, 1, 1e-4, 20, DVIS),
    "rocovis": Training(rocovis_task, rocovis_plan, turning, 5, 4000, 1, 1e-4, 20, {"row": tuple(ROWS)[::-1]}),
}


def prepared(name: str, wish: Wish) -> tuple[Task, Plan, dict[str, object]]:
    """A training of `TRAININGS` that is ready to start; and what tells it from others.

    Raises InputError where data or weights are missing, damaged or do not go together.
    """
    kind = TRAININGS[name]
    check_settings(name, kind, wish.settings)
    source = source_of(wish.data, FixedFraming(wish.size), kind, True)
    plain = FixedFraming(wish.size, scale=(1.0, 1.0), flip=0.0)
    unseen = source_of(wish.val or wish.data, plain, kind, False)
    if unseen.categories != source.categories:
        raise InputError(f"--val has other categories than --data ({', '.join(source.categories[:3])}, ...)")
    task = kind.task(wish, source, held_out(unseen, kind.held_out, wish.frames))
    facts = ("data", "val", "size", "frames", "start", "segmenter", "settings")
    told = {"clips": wish.batch, **{fact: getattr(wish, fact) for fact in facts}}
    return task, kind.plan(wish), {"task": name, **told}


def check_settings(name: str, kind: Training, settings: Mapping[str, str]) -> None:
    """Raises InputError where a training has no such settings."""
    for setting, value in settings.items():
        known = kind.settings.get(setting)
        if known is None:
            raise InputError(f"{name} has no setting {setting!r}; there are: {', '.join(kind.settings) or 'none'}")
        if value not in known:
            raise InputError(f"{setting} = {value}: there are {', '.join(known)}")


def source_of(data: Sequence[str], framing: FixedFraming, kind: Training, varied: bool) -> ClipSource:
    """One source of all that is named, each as often as any other."""
    sources = [one_source(name, framing, kind, varied) for name in data]
    return sources[0] if len(sources) == 1 else Mixed(sources, [1.0] * len(sources))


def one_source(name: str, framing: FixedFraming, kind: Training, varied: bool) -> ClipSource:
    """Clips that are generated, or of a set in a folder. Raises InputError where it is neither."""
    word, _, level = name.partition(":")
    path = Path(name)
    if word == SYNTHETIC and (not level or level in RANGES):
        return Synthetic(SyntheticSettings(size=framing.size, level=level or None))
    if not there(path) or not path.is_dir():
        levels = ", ".join(f"{SYNTHETIC}:{known}" for known in RANGES)
        raise InputError(f"--data {name}: no such folder; give one, or {SYNTHETIC}, or {levels}")
    if (path / FRAMES).is_dir():
        return Videos(*ytvis_footage(truth_in(path, TRUTHS), path / FRAMES), framing)
    if (path / PANOPTIC).is_dir():
        return Videos(*vipseg_footage(truth_in(path, PANOPTIC_TRUTHS), path / PANOPTIC, path / PICTURES), framing)
    if (path / PICTURES).is_dir():
        return kind.stills(kind.read(path), framing, varied)
    raise InputError(
        f"--data {name}: neither a set of stills (annotations.json and {PICTURES}/, COCO's instance form) nor one of "
        f"videos (a json and {FRAMES}/, YouTube-VIS's form; {PICTURES}/ and {PANOPTIC}/, VIPSeg's)"
    )


def truth_in(folder: Path, names: Sequence[str]) -> Path:
    """The annotations of a set of videos, by the names that they may have."""
    found = [folder / name for name in names if (folder / name).is_file()]
    if not found:
        raise InputError(f"--data {folder}: has videos, but none of {', '.join(names)} with the annotations")
    return found[0]
