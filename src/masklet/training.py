"""Trainings by name: what `masklet train` trains, on what, and for how long."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from masklet.core.errors import InputError
from masklet.models.dense import KIND as NANO_SEGMENTER
from masklet.models.dense import PACKAGED as SEGMENTER
from masklet.models.dense import read_dense, save_dense
from masklet.models.edgetam import EdgeTam
from masklet.models.encoder import STRIDE as CELL
from masklet.models.image_predictor import PACKAGED as IMAGE_PREDICTOR
from masklet.models.image_predictor import (
    SIDE,
    ImagePredictor,
    create_prompt_network,
    read_prompt_network,
    save_prompt_network,
)
from masklet.models.mask2former import Mask2Former, load_mask2former
from masklet.models.mask2former_weights import build
from masklet.models.nano import KIND as NANO
from masklet.models.nano import NanoSettings, nano_network, read_nano
from masklet.models.nano_propagator import PACKAGED as PROPAGATOR
from masklet.models.query_heads import load_tracker
from masklet.models.sam2 import Sam2
from masklet.models.sam2_memory import RecentFrames
from masklet.models.sam2_weights import is_path
from masklet.models.small_mask2former import KIND as SMALL
from masklet.models.small_mask2former import SmallSettings, load_small, metadata_of, save_small, small_mask2former
from masklet.models.zoo import ZOO, intact
from masklet.nn.prompt_network import PromptNetwork
from masklet.nn.referring_tracker import ReferringTracker, TrackerSettings
from masklet.nn.temporal_refiner import RefinerSettings, TemporalRefiner
from masklet.parts import load_sam2, there
from masklet.train.clips import Clip, ClipSource
from masklet.train.dense import DenseTask, Part, renamed
from masklet.train.dvis import REFINER_REVERSE, DvisTraining, RefinerTask, TrackerTask, begin_as_minvis
from masklet.train.folder import save_network
from masklet.train.framing import FixedFraming
from masklet.train.loop import Plan, Task
from masklet.train.losses import LossSettings
from masklet.train.nano import ASKING, nano_task
from masklet.train.prompt_crops import PromptCrops, StillsShare
from masklet.train.prompt_scores import name_clicks, read_objects, score_prompts, select_objects
from masklet.train.prompts import PromptTask
from masklet.train.propagator import Asking, PropagatorTask
from masklet.train.reading import (
    FRAMES,
    PANOPTIC,
    PICTURES,
    FromStills,
    crops,
    is_generated,
    moving,
    objects_of,
    source_of,
    turning,
)
from masklet.train.rocovis import ROWS, RocovisTask, RocovisTraining
from masklet.train.segmenter import SegmenterTask, held_out, points_for, with_categories
from masklet.train.stills import Stills

PACKAGED = "nano"  # what `--from` calls the packaged models
MOST_LAYERS = 6  # of DVIS's tracker and refiner, as published
PROMPTED = 100  # objects by which an image predictor is validated
CLICKS = (1, 3)  # numbers of clicks, likewise

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

    task: Callable[[Wish], Task]
    plan: Callable[[Wish], Plan]
    frames: int
    steps: int
    batch: int
    lr: float
    settings: Mapping[str, Sequence[str]]  # its own ones, and what each can be; the first where nothing is said
    size: Size = (96, 160)


# -- the segmenter


def segmenter_task(wish: Wish, source: ClipSource, unseen: Sequence[Clip]) -> SegmenterTask:
    """The small Mask2Former from the packaged backbone, or any one from its weights."""
    path = Path(wish.start)
    if not wish.start or is_file_of(SMALL, path):
        held = load_small(path) if wish.start else None
        settings = held.settings if held else SmallSettings()
        net: Any = held.net if held else small_mask2former(settings, source.categories, wish.seed)

        def save(to: Path) -> None:
            save_small(to, net, settings, wish.size)
    else:
        net = build(wish.start).net

        def save(to: Path) -> None:
            save_network(net, to.with_suffix(""))

    net = with_categories(net, source.categories, wish.seed).to(wish.device)
    return SegmenterTask(net, source, unseen, save, clips=wish.batch, frames=wish.frames)


def is_file_of(kind: str, path: Path) -> bool:
    """Whether it is a file that a training here wrote, of this kind."""
    return there(path) and path.is_file() and path.suffix == ".safetensors" and metadata_of(path).get("kind") == kind


def dense_task(wish: Wish, source: ClipSource, unseen: Sequence[Clip]) -> DenseTask:
    """The nano segmenter, for the categories of the data."""
    if any(side % CELL for side in wish.size):
        h, w = wish.size
        raise InputError(f"--size {h}x{w}: for the nano segmenter both must be multiples of {CELL}, such as 256x320")
    held = read_dense(nano_file(wish.start, SEGMENTER))
    with torch.random.fork_rng([]):
        torch.manual_seed(wish.seed)
        head = renamed(held.head, held.categories, source.categories)
    head = trained(head, wish)

    def save(to: Path) -> None:
        save_dense(to, head, held.settings, source.categories)

    short = min(wish.size)
    return DenseTask(head, source.categories, [Part(source, 1.0)], unseen, save, pictures=wish.batch, short=short)


def dense_plan(wish: Wish) -> Plan:
    """Pictures go through the network together, so that a step is one item."""
    return Plan(wish.steps, 1, wish.lr, warm_up=min(100, wish.steps // 10), seed=wish.seed, **often(wish))


def nano_file(name: str, packaged: str) -> Path:
    """The packaged file of a name in the zoo, where it is called nano."""
    return intact(ZOO[packaged]) if name == PACKAGED else Path(name)


def begins_with_nano(kind: str, name: str) -> bool:
    """Whether a training begins with a nano model, packaged or of a file."""
    return name == PACKAGED or is_file_of(kind, Path(name))


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
        net: Any = nano_network(settings)
    if wish.start:
        net, settings = read_nano(nano_file(wish.start, PROPAGATOR))
    return nano_task(net, settings, source, unseen, asked(wish, ASKING))


def asked(wish: Wish, of: Asking) -> Asking:
    """What is asked, of clips as long as the user says."""
    if wish.frames < 2:
        raise InputError(f"--frames {wish.frames}: a propagator learns from one frame to the next; give 2 or more")
    return replace(of, frames=wish.frames)


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


def sam2_task(wish: Wish, source: ClipSource, unseen: Sequence[Clip]) -> PropagatorTask:
    """SAM 2 by a name of `parts.load_sam2`: all of it but the image encoder, or that, too.

    The encoder's position encodings are never trained: they are computed once (`sam2.settle`).
    """
    asking, file = asked(wish, SAM2_ASKING), wish.start.rpartition("@")[0] or wish.start
    if is_path(file) and not there(Path(file).expanduser()):
        raise InputError(f"--from {wish.start}: no such file or folder")
    loaded = load_sam2(wish.start, RecentFrames(), wish.device.type)
    if isinstance(loaded, EdgeTam):
        raise InputError(f"--from {wish.start}: EdgeTAM cannot be trained here; give a SAM 2, such as sam2.1-tiny")
    net = loaded.net.requires_grad_(True)
    net.vision_encoder.requires_grad_(own(wish).get("encoder") == "trained")
    sam2 = Sam2(net, gradients=True)

    def save(to: Path) -> None:
        save_network(net, to.with_suffix(""))

    return PropagatorTask(net, lambda short: sam2, source, unseen, save, asking=asking)


def sam2_plan(wish: Wish) -> Plan:
    """Gently: the weights are good already, those of an encoder that is trained most of all."""
    return replace(propagator_plan(wish), weight_decay=0.1, clip_norm=0.1, factors=(("vision_encoder.", 0.1),))


# -- the image predictor


def image_predictor_task(wish: Wish) -> PromptTask:
    """The promptable network over ImageNet's, or one that was trained before; on stills alone."""
    check_crops(wish)
    shares = [StillsShare(read_stills("--data", name), 1.0, name=f"--data {name}") for name in wish.data]
    source = PromptCrops(shares)
    unseen = [read_stills("--val", name) for name in wish.val] or [share.stills for share in shares]
    asked_for = select_objects(unseen, PROMPTED)
    net = started_prompt_network(wish).enable_training().to(wish.device)
    predictor = ImagePredictor(net)

    def validate() -> dict[str, float]:
        scores = score_prompts(predictor, read_objects(asked_for), max(CLICKS))
        return {name: scores[name] for name in ("box", *map(name_clicks, CLICKS)) if name in scores}

    return PromptTask(net, source, validate, lambda path: save_prompt_network(path, net), wish.batch)


def started_prompt_network(wish: Wish) -> PromptNetwork:
    """The weights to begin with."""
    if not wish.start:
        return create_prompt_network(wish.seed)
    path = nano_file(wish.start, IMAGE_PREDICTOR)
    if not there(path):
        raise InputError(f"--from {wish.start}: no such file; give nano, or weights that this training wrote")
    return read_prompt_network(path)


def check_crops(wish: Wish) -> None:
    """Raises InputError where clips are asked for that are not crops of single pictures."""
    if wish.size != (SIDE, SIDE):
        h, w = wish.size
        raise InputError(f"--size {h}x{w}: the image predictor looks at crops of {SIDE}x{SIDE}; leave --size out")
    if wish.frames != 1:
        raise InputError(f"--frames {wish.frames}: the image predictor looks at single pictures; leave --frames out")


def read_stills(option: str, name: str) -> Stills:
    """The stills of a folder. Raises InputError where it holds something else."""
    path, wrong = Path(name), ""
    if is_generated(name):
        wrong = "these are generated clips"
    elif not os.path.isdir(name):
        wrong = "no such folder"
    elif any((path / folder).is_dir() for folder in (FRAMES, PANOPTIC)):
        wrong = "these are videos"
    elif not (path / PICTURES).is_dir():
        wrong = f"no {PICTURES}/ in it"
    if wrong:
        raise InputError(
            f"{option} {name}: {wrong}, and the image predictor learns from stills; give a folder with "
            f"annotations.json and {PICTURES}/, COCO's instance form"
        )
    return Stills(path)


def image_predictor_plan(wish: Wish) -> Plan:
    """Crops go through the network together, so that a step is one item; ImageNet's blocks learn slowly."""
    return Plan(
        wish.steps,
        1,
        wish.lr,
        weight_decay=0.01,
        warm_up=min(200, wish.steps // 10),
        factors=(("blocks.", 0.25),),
        seed=wish.seed,
        **often(wish),
    )


# -- what they share


def on_clips(
    made: Callable[[Wish, ClipSource, Sequence[Clip]], Task],
    stills: FromStills,
    unseen_clips: int,
    read: Callable[[Sequence[str], FixedFraming, FromStills, bool], ClipSource] = source_of,
) -> Callable[[Wish], Task]:
    """A task on clips of `--data`, validated on so many clips of `--val`."""

    def task(wish: Wish) -> Task:
        source = read(wish.data, FixedFraming(wish.size), stills, True)
        plain = FixedFraming(wish.size, scale=(1.0, 1.0), flip=0.0)
        unseen = read(wish.val or wish.data, plain, stills, False)
        if unseen.categories != source.categories:
            raise InputError(f"--val has other categories than --data ({', '.join(source.categories[:3])}, ...)")
        return made(wish, source, held_out(unseen, unseen_clips, wish.frames))

    return task


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


DVIS = {"given": ("once", "released"), "labels": ("own", "released")}  # `DvisTraining` says what they mean
TRACKER = {**DVIS, "begin": ("minvis", "random")}  # `begin_as_minvis`
TRAININGS: Mapping[str, Training] = {
    "segmenter": Training(on_clips(segmenter_task, crops, 100), segmenter_plan, 1, 5000, 4, 1e-3, {}),
    "propagator": Training(on_clips(propagator_task, moving, 8, objects_of), propagator_plan, 4, 4000, 1, 7e-4, {}),
    "tracker": Training(on_clips(tracker_task, turning, 40), heads_plan, 5, 4000, 1, 1e-4, TRACKER),
    "refiner": Training(on_clips(refiner_task, turning, 20), heads_plan, 10, 4000, 1, 1e-4, DVIS),
    "rocovis": Training(
        on_clips(rocovis_task, turning, 20), rocovis_plan, 5, 4000, 1, 1e-4, {"row": tuple(ROWS)[::-1]}
    ),
    "image-predictor": Training(image_predictor_task, image_predictor_plan, 1, 8000, 8, 1e-3, {}, (SIDE, SIDE)),
}


# Where a segmenter begins with nano, and where an image predictor begins with one.
DENSE = Training(on_clips(dense_task, crops, 40), dense_plan, 1, 2000, 8, 3e-4, {})
TUNED = replace(TRAININGS["image-predictor"], steps=2000, lr=2e-4)
SAM2_ASKING = Asking(frames=8, objects=3, boxes=0.25, clicks=0.25)  # SAM 2, appendix D
SAM2 = Training(
    on_clips(sam2_task, moving, 8, objects_of), sam2_plan, 8, 2000, 1, 1e-5, {"encoder": ("frozen", "trained")}
)  # where a propagator begins with weights of it


def training_of(name: str, start: str) -> Training:
    """What is trained under a name: a propagator is the nano one, or SAM 2 where it begins with weights of that; a
    segmenter is a Mask2Former, or the nano one where it begins with that; what was trained before is trained on gently.
    """
    if name == "propagator" and start and not begins_with_nano(NANO, start):
        return SAM2
    if name == "image-predictor" and start:
        return TUNED
    return DENSE if name == "segmenter" and start and begins_with_nano(NANO_SEGMENTER, start) else TRAININGS[name]


def prepared(name: str, wish: Wish) -> tuple[Task, Plan, dict[str, object]]:
    """A training of `TRAININGS` that is ready to start; and what tells it from others.

    Raises InputError where data or weights are missing, damaged or do not go together.
    """
    kind = training_of(name, wish.start)
    check_settings(name, kind, wish.settings)
    task = kind.task(wish)
    facts = ("data", "val", "size", "frames", "start", "segmenter", "settings")
    told = {"clips": wish.batch, **{fact: getattr(wish, fact) for fact in facts}}
    return task, kind.plan(wish), {"task": name, **told}


def seen_in_training(wish: Wish) -> list[str]:
    """Data whose clips are trained on and validated on: folders, where no others are named to validate on."""
    return [] if wish.val else [name for name in wish.data if not is_generated(name)]


def check_settings(name: str, kind: Training, settings: Mapping[str, str]) -> None:
    """Raises InputError where a training has no such settings."""
    for setting, value in settings.items():
        known = kind.settings.get(setting)
        if known is None:
            raise InputError(f"{name} has no setting {setting!r}; there are: {', '.join(kind.settings) or 'none'}")
        if value not in known:
            raise InputError(f"{setting} = {value}: there are {', '.join(known)}")
