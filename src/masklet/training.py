"""Trainings by name: what `masklet train` trains, on what, and for how long."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from masklet.builtins import TRAININGS
from masklet.core.errors import InputError
from masklet.core.files import path_exists
from masklet.models.encoder import STRIDE as CELL
from masklet.models.mask2former.networks import infer_query_sizes
from masklet.models.mask2former.segmenter import Mask2Former, load_mask2former
from masklet.models.mask2former.small import KIND as SMALL
from masklet.models.mask2former.small import (
    SmallMask2FormerSettings,
    create_small_mask2former,
    load_small,
    save_small,
)
from masklet.models.mask2former.weights import build_mask2former
from masklet.models.nano.dense import KIND as NANO_SEGMENTER
from masklet.models.nano.dense import PACKAGED as SEGMENTER
from masklet.models.nano.dense import read_dense, save_dense
from masklet.models.nano.image_predictor import PACKAGED as IMAGE_PREDICTOR
from masklet.models.nano.image_predictor import (
    SIDE,
    ImagePredictor,
    create_prompt_network,
    read_prompt_network,
    save_prompt_network,
)
from masklet.models.nano.network import KIND as NANO
from masklet.models.nano.network import NanoSettings, create_nano, read_nano
from masklet.models.nano.propagator import PACKAGED as PROPAGATOR
from masklet.models.query_video.heads import load_tracker
from masklet.models.sam2.edgetam import EdgeTam
from masklet.models.sam2.memory import RecentFrames
from masklet.models.sam2.propagator import Sam2
from masklet.nn.prompt_network import PromptNetwork
from masklet.nn.referring_tracker import ReferringTracker, TrackerSettings
from masklet.nn.temporal_refiner import RefinerSettings, TemporalRefiner
from masklet.parts import load_sam2
from masklet.train.data.clips import ClipSource, TrainingClip
from masklet.train.data.data_sources import (
    FRAMES,
    IMAGES,
    PANOPTIC,
    FromStills,
    create_clip_source,
    create_moving_stills,
    create_object_source,
    create_still_crops,
    create_turning_stills,
    is_generated,
)
from masklet.train.data.framing import FixedFraming
from masklet.train.data.prompt_crops import PromptCrops, StillsShare
from masklet.train.data.stills import Stills
from masklet.train.loop.loop import Task, TrainingPlan
from masklet.train.loop.run_folder import save_network
from masklet.train.losses import LossSettings
from masklet.train.prompt_scores import name_clicks, read_objects, score_prompts, select_objects
from masklet.train.tasks.dense import DenseTask, WeightedSource, replace_head_categories
from masklet.train.tasks.dvis import REFINER_REVERSE, DvisTraining, RefinerTask, TrackerTask, initialize_from_minvis
from masklet.train.tasks.nano import ASKING, build_nano_task
from masklet.train.tasks.prompts import PromptTask
from masklet.train.tasks.propagator import PromptSampling, PropagatorTask
from masklet.train.tasks.rocovis import ROWS, RocovisTask, RocovisTraining
from masklet.train.tasks.segmenter import SegmenterTask, choose_point_count, draw_held_out_clips, replace_class_head
from masklet.weights.format import is_of_kind
from masklet.weights.reading import is_path
from masklet.weights.store import ZOO, verify_packaged

PACKAGED = "nano"  # what `--from` calls the packaged models
MOST_LAYERS = 6  # of DVIS's tracker and refiner, as published
PROMPTED = 100  # objects by which an image predictor is validated
CLICKS = (1, 3)  # numbers of clicks, likewise

Size = tuple[int, int]  # h, w


@dataclass(frozen=True)
class TrainingRequest:
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
class TrainingRecipe:
    """One thing that can be trained, with what it takes where the user does not say."""

    task: Callable[[TrainingRequest], Task]
    plan: Callable[[TrainingRequest], TrainingPlan]
    frames: int
    steps: int
    batch: int
    lr: float
    settings: Mapping[str, Sequence[str]]  # its own ones, and what each can be; the first where nothing is said
    size: Size = (96, 160)


# -- the segmenter


def build_segmenter_task(wish: TrainingRequest, source: ClipSource, unseen: Sequence[TrainingClip]) -> SegmenterTask:
    """The small Mask2Former from the packaged backbone, or any one from its weights."""
    path = Path(wish.start)
    if not wish.start or is_trained_file(SMALL, path):
        held = load_small(path) if wish.start else None
        settings = held.settings if held else SmallMask2FormerSettings()
        net: Any = held.net if held else create_small_mask2former(settings, source.categories, wish.seed)

        def save(to: Path) -> None:
            save_small(to, net, settings, wish.size)
    else:
        net = build_mask2former(wish.start).net

        def save(to: Path) -> None:
            save_network(net, to.with_suffix(""))

    net = replace_class_head(net, source.categories, wish.seed).to(wish.device)
    return SegmenterTask(net, source, unseen, save, clips=wish.batch, frames=wish.frames)


def is_trained_file(kind: str, path: Path) -> bool:
    """Whether it is a file that a training here wrote, of this kind."""
    return path_exists(path) and is_of_kind(path, kind)


def build_dense_task(wish: TrainingRequest, source: ClipSource, unseen: Sequence[TrainingClip]) -> DenseTask:
    """The nano segmenter, for the categories of the data."""
    if any(side % CELL for side in wish.size):
        h, w = wish.size
        raise InputError(f"--size {h}x{w}: for the nano segmenter both must be multiples of {CELL}, such as 256x320")
    held = read_dense(resolve_nano_file(wish.start, SEGMENTER))
    with torch.random.fork_rng([]):
        torch.manual_seed(wish.seed)
        head = replace_head_categories(held.head, held.categories, source.categories)
    head = prepare_trained_module(head, wish)

    def save(to: Path) -> None:
        save_dense(to, head, held.settings, source.categories)

    short = min(wish.size)
    return DenseTask(
        head, source.categories, [WeightedSource(source, 1.0)], unseen, save, batch=wish.batch, short=short
    )


def plan_dense_training(wish: TrainingRequest) -> TrainingPlan:
    """Images go through the network together, so that a step is one item."""
    return TrainingPlan(
        wish.steps, 1, wish.lr, warm_up=min(100, wish.steps // 10), seed=wish.seed, **plan_checkpoints(wish)
    )


def resolve_nano_file(name: str, packaged: str) -> Path:
    """The packaged file of a name in the zoo, where it is called nano."""
    return verify_packaged(ZOO[packaged]) if name == PACKAGED else Path(name)


def is_nano_start(kind: str, name: str) -> bool:
    """Whether a training begins with a nano model, packaged or of a file."""
    return name == PACKAGED or is_trained_file(kind, Path(name))


def plan_segmenter_training(wish: TrainingRequest) -> TrainingPlan:
    """Clips go through the network together, so that a step is one item. What was trained before learns slowly."""
    slow = ("net.model.pixel_level_module.encoder." + ("" if wish.start else "net."), 0.1)
    return TrainingPlan(
        wish.steps,
        1,
        wish.lr,
        warm_up=min(100, wish.steps // 10),
        factors=(slow,),
        seed=wish.seed,
        **plan_checkpoints(wish),
    )


# -- DVIS


def build_tracker_task(wish: TrainingRequest, source: ClipSource, unseen: Sequence[TrainingClip]) -> TrackerTask:
    """A tracker of the segmenter's own width, new or from a file of one."""
    segmenter = load_frozen_segmenter(wish)
    with torch.random.fork_rng([]):
        torch.manual_seed(wish.seed)
        tracker = (
            load_tracker(wish.start)[0]
            if wish.start
            else ReferringTracker(TrackerSettings(**infer_head_sizes(segmenter)))
        )
    told = get_own_settings(wish)
    if told.pop("begin", "minvis") == "minvis" and not wish.start:
        initialize_from_minvis(tracker, segmenter.net)
    settings = DvisTraining(wish.steps, wish.frames, losses=choose_loss_settings(wish), **told)
    return TrackerTask(segmenter, prepare_trained_module(tracker, wish), source, settings, unseen)


def build_refiner_task(wish: TrainingRequest, source: ClipSource, unseen: Sequence[TrainingClip]) -> RefinerTask:
    """A refiner over a trained tracker."""
    if not wish.start:
        raise InputError("a refiner needs the tracker that it refines: --from FILE, as masklet train tracker writes it")
    segmenter, tracker = load_frozen_segmenter(wish), load_tracker(wish.start)[0].to(wish.device).requires_grad_(False)
    with torch.random.fork_rng([]):
        torch.manual_seed(wish.seed)
        refiner = TemporalRefiner(RefinerSettings(**infer_head_sizes(segmenter)))
    settings = DvisTraining(
        wish.steps, wish.frames, REFINER_REVERSE, choose_loss_settings(wish), **get_own_settings(wish)
    )
    return RefinerTask(segmenter, tracker, prepare_trained_module(refiner, wish), source, settings, unseen)


# -- RoCoVIS


def build_rocovis_task(wish: TrainingRequest, source: ClipSource, unseen: Sequence[TrainingClip]) -> RocovisTask:
    """The whole network, beginning with a segmenter that was trained on images, maybe of other categories."""
    net = replace_class_head(build_mask2former(require_segmenter(wish)).net, source.categories, wish.seed)
    settings = RocovisTraining(wish.frames, **get_own_settings(wish))
    return RocovisTask(net, source, settings, unseen, device=wish.device, seed=wish.seed, shortest=min(wish.size))


def plan_rocovis_training(wish: TrainingRequest) -> TrainingPlan:
    """As the trackers', the backbone at a tenth of the rate."""
    return replace(plan_heads_training(wish), factors=(("segmenter.model.pixel_level_module.encoder.", 0.1),))


# -- the propagator


def build_propagator_task(wish: TrainingRequest, source: ClipSource, unseen: Sequence[TrainingClip]) -> PropagatorTask:
    """The nano propagator, new or from a file of one."""
    if wish.device.type != "cpu":
        raise InputError("the nano propagator is trained on the CPU: its guesses are made there; give --device cpu")
    with torch.random.fork_rng([]):
        torch.manual_seed(wish.seed)
        settings = NanoSettings()
        net: Any = create_nano(settings)
    if wish.start:
        net, settings = read_nano(resolve_nano_file(wish.start, PROPAGATOR))
    return build_nano_task(net, settings, source, unseen, set_sampling_frames(wish, ASKING))


def set_sampling_frames(wish: TrainingRequest, of: PromptSampling) -> PromptSampling:
    """What is asked, of clips as long as the user says."""
    if wish.frames < 2:
        raise InputError(f"--frames {wish.frames}: a propagator learns from one frame to the next; give 2 or more")
    return replace(of, frames=wish.frames)


def plan_propagator_training(wish: TrainingRequest) -> TrainingPlan:
    """The rate rises for fifty steps and falls by half a cosine."""
    return TrainingPlan(
        wish.steps,
        wish.batch,
        wish.lr,
        weight_decay=0.01,
        warm_up=min(50, wish.steps // 10),
        seed=wish.seed,
        **plan_checkpoints(wish),
    )


def build_sam2_task(wish: TrainingRequest, source: ClipSource, unseen: Sequence[TrainingClip]) -> PropagatorTask:
    """SAM 2 by a name of `parts.load_sam2`: all of it but the image encoder, or that, too.

    The encoder's position encodings are never trained: they are computed once (`sam2.image_encoder`).
    """
    asking, file = set_sampling_frames(wish, SAM2_ASKING), wish.start.rpartition("@")[0] or wish.start
    if is_path(file) and not path_exists(Path(file).expanduser()):
        raise InputError(f"--from {wish.start}: no such file or folder")
    loaded = load_sam2(wish.start, RecentFrames(), wish.device.type)
    if isinstance(loaded, EdgeTam):
        raise InputError(f"--from {wish.start}: EdgeTAM cannot be trained here; give a SAM 2, such as sam2.1-tiny")
    net = loaded.net.requires_grad_(True)
    net.vision_encoder.requires_grad_(get_own_settings(wish).get("encoder") == "trained")
    sam2 = Sam2(net, gradients=True)

    def save(to: Path) -> None:
        save_network(net, to.with_suffix(""))

    return PropagatorTask(net, lambda short: sam2, source, unseen, save, asking=asking)


def plan_sam2_training(wish: TrainingRequest) -> TrainingPlan:
    """Gently: the weights are good already, those of an encoder that is trained most of all."""
    return replace(plan_propagator_training(wish), weight_decay=0.1, clip_norm=0.1, factors=(("vision_encoder.", 0.1),))


# -- the image predictor


def build_image_predictor_task(wish: TrainingRequest) -> PromptTask:
    """The promptable network over ImageNet's, or one that was trained before; on stills alone."""
    check_crops(wish)
    shares = [StillsShare(read_stills("--data", name), 1.0, name=f"--data {name}") for name in wish.data]
    source = PromptCrops(shares)
    unseen = [read_stills("--val", name) for name in wish.val] or [share.stills for share in shares]
    asked_for = select_objects(unseen, PROMPTED)
    net = init_prompt_network(wish).enable_training().to(wish.device)
    predictor = ImagePredictor(net)

    def validate() -> dict[str, float]:
        scores = score_prompts(predictor, read_objects(asked_for), max(CLICKS))
        return {name: scores[name] for name in ("box", *map(name_clicks, CLICKS)) if name in scores}

    return PromptTask(net, source, validate, lambda path: save_prompt_network(path, net), wish.batch)


def init_prompt_network(wish: TrainingRequest) -> PromptNetwork:
    """The weights to begin with."""
    if not wish.start:
        return create_prompt_network(wish.seed)
    path = resolve_nano_file(wish.start, IMAGE_PREDICTOR)
    if not path_exists(path):
        raise InputError(f"--from {wish.start}: no such file; give nano, or weights that this training wrote")
    return read_prompt_network(path)


def check_crops(wish: TrainingRequest) -> None:
    """Raises InputError where clips are asked for that are not crops of single images."""
    if wish.size != (SIDE, SIDE):
        h, w = wish.size
        raise InputError(f"--size {h}x{w}: the image predictor looks at crops of {SIDE}x{SIDE}; leave --size out")
    if wish.frames != 1:
        raise InputError(f"--frames {wish.frames}: the image predictor looks at single images; leave --frames out")


def read_stills(option: str, name: str) -> Stills:
    """The stills of a folder. Raises InputError where it holds something else."""
    path, wrong = Path(name), ""
    if is_generated(name):
        wrong = "these are generated clips"
    elif not os.path.isdir(name):
        wrong = "no such folder"
    elif any((path / folder).is_dir() for folder in (FRAMES, PANOPTIC)):
        wrong = "these are videos"
    elif not (path / IMAGES).is_dir():
        wrong = f"no {IMAGES}/ in it"
    if wrong:
        raise InputError(
            f"{option} {name}: {wrong}, and the image predictor learns from stills; give a folder with "
            f"annotations.json and {IMAGES}/, COCO's instance form"
        )
    return Stills(path)


def plan_image_predictor_training(wish: TrainingRequest) -> TrainingPlan:
    """Crops go through the network together, so that a step is one item; ImageNet's blocks learn slowly."""
    return TrainingPlan(
        wish.steps,
        1,
        wish.lr,
        weight_decay=0.01,
        warm_up=min(200, wish.steps // 10),
        factors=(("blocks.", 0.25),),
        seed=wish.seed,
        **plan_checkpoints(wish),
    )


# -- what they share


def build_clip_task(
    made: Callable[[TrainingRequest, ClipSource, Sequence[TrainingClip]], Task],
    stills: FromStills,
    unseen_clips: int,
    read: Callable[[Sequence[str], FixedFraming, FromStills, bool], ClipSource] = create_clip_source,
) -> Callable[[TrainingRequest], Task]:
    """A task on clips of `--data`, validated on so many clips of `--val`."""

    def task(wish: TrainingRequest) -> Task:
        source = read(wish.data, FixedFraming(wish.size), stills, True)
        plain = FixedFraming(wish.size, scale=(1.0, 1.0), flip=0.0)
        unseen = read(wish.val or wish.data, plain, stills, False)
        if unseen.categories != source.categories:
            raise InputError(f"--val has other categories than --data ({', '.join(source.categories[:3])}, ...)")
        return made(wish, source, draw_held_out_clips(unseen, unseen_clips, wish.frames))

    return task


def get_own_settings(wish: TrainingRequest) -> dict[str, Any]:
    """The training's own settings, checked before."""
    return dict(wish.settings)


def load_frozen_segmenter(wish: TrainingRequest) -> Mask2Former:
    """The segmenter that a tracker is trained on."""
    return load_mask2former(require_segmenter(wish), wish.device, shortest=min(wish.size))


def require_segmenter(wish: TrainingRequest) -> str:
    """The weights of the segmenter below."""
    if not wish.segmenter:
        raise InputError(
            "this is trained over a segmenter: --segmenter FILE, as masklet train segmenter writes it, or any other "
            "Mask2Former by hub id, folder or file"
        )
    return wish.segmenter


def infer_head_sizes(segmenter: Mask2Former) -> dict[str, Any]:
    """Settings of a tracker or refiner as wide as a segmenter's decoder, and as deep, up to the published depth."""
    at = infer_query_sizes(segmenter.net.config)._asdict()
    return at | {"classes": len(segmenter.categories), "layers": min(at["layers"], MOST_LAYERS)}


def prepare_trained_module(module: Any, wish: TrainingRequest) -> Any:
    """On the device, with gradients."""
    return module.to(wish.device).requires_grad_(True)


def choose_loss_settings(wish: TrainingRequest) -> LossSettings:
    """As published, with as many points as suit the size."""
    return LossSettings(points=choose_point_count(wish.size))


def plan_heads_training(wish: TrainingRequest) -> TrainingPlan:
    """DVIS 4.1: a tenth of the rate for the last three tenths of the steps."""
    return TrainingPlan(
        wish.steps, wish.batch, wish.lr, milestones=(int(0.7 * wish.steps),), seed=wish.seed, **plan_checkpoints(wish)
    )


def plan_checkpoints(wish: TrainingRequest) -> dict[str, Any]:
    """Ten validations, and a checkpoint every minute or so."""
    return {"validate_every": max(1, wish.steps // 10), "save_every": 100}


# -- what there is


DVIS = {"given": ("once", "released"), "labels": ("own", "released")}  # `DvisTraining` says what they mean
NOISE = ("none", "shuffled", "mixed")  # DVIS++'s
TRACKER = {**DVIS, "begin": ("minvis", "random"), "noise": NOISE}  # `begin_as_minvis`
RECIPES: Mapping[str, TrainingRecipe] = {
    "segmenter": TrainingRecipe(
        build_clip_task(build_segmenter_task, create_still_crops, 100), plan_segmenter_training, 1, 5000, 4, 1e-3, {}
    ),
    "propagator": TrainingRecipe(
        build_clip_task(build_propagator_task, create_moving_stills, 8, create_object_source),
        plan_propagator_training,
        4,
        4000,
        1,
        7e-4,
        {},
    ),
    "tracker": TrainingRecipe(
        build_clip_task(build_tracker_task, create_turning_stills, 40), plan_heads_training, 5, 4000, 1, 1e-4, TRACKER
    ),
    "refiner": TrainingRecipe(
        build_clip_task(build_refiner_task, create_turning_stills, 20), plan_heads_training, 10, 4000, 1, 1e-4, DVIS
    ),
    "rocovis": TrainingRecipe(
        build_clip_task(build_rocovis_task, create_turning_stills, 20),
        plan_rocovis_training,
        5,
        4000,
        1,
        1e-4,
        {"row": tuple(ROWS)[::-1]},
    ),
    "image-predictor": TrainingRecipe(
        build_image_predictor_task, plan_image_predictor_training, 1, 8000, 8, 1e-3, {}, (SIDE, SIDE)
    ),
}


# Where a segmenter begins with nano, and where an image predictor begins with one.
DENSE = TrainingRecipe(
    build_clip_task(build_dense_task, create_still_crops, 40), plan_dense_training, 1, 2000, 8, 3e-4, {}
)
TUNED = replace(RECIPES["image-predictor"], steps=2000, lr=2e-4)
SAM2_ASKING = PromptSampling(frames=8, objects=3, boxes=0.25, clicks=0.25)  # SAM 2, appendix D
SAM2 = TrainingRecipe(
    build_clip_task(build_sam2_task, create_moving_stills, 8, create_object_source),
    plan_sam2_training,
    8,
    2000,
    1,
    1e-5,
    {"encoder": ("frozen", "trained")},
)  # where a propagator begins with weights of it


def choose_segmenter(start: str) -> TrainingRecipe:
    """A Mask2Former, or the nano segmenter where the training begins with that."""
    return DENSE if start and is_nano_start(NANO_SEGMENTER, start) else RECIPES["segmenter"]


def choose_propagator(start: str) -> TrainingRecipe:
    """The nano propagator, or SAM 2 where the training begins with weights of that."""
    return SAM2 if start and not is_nano_start(NANO, start) else RECIPES["propagator"]


def choose_tracker(start: str) -> TrainingRecipe:
    """DVIS's referring tracker, whatever `start` is."""
    return RECIPES["tracker"]


def choose_refiner(start: str) -> TrainingRecipe:
    """DVIS's temporal refiner, whatever `start` is."""
    return RECIPES["refiner"]


def choose_rocovis(start: str) -> TrainingRecipe:
    """RoCoVIS, whatever `start` is."""
    return RECIPES["rocovis"]


def choose_image_predictor(start: str) -> TrainingRecipe:
    """The promptable network; what was trained before is trained on gently."""
    return TUNED if start else RECIPES["image-predictor"]


def choose_training(name: str, start: str) -> TrainingRecipe:
    """What is trained under a name of `builtins.TRAININGS` from the weights `start`; "": from none. Raises InputError
    where there is no such training.
    """
    recipe: TrainingRecipe = TRAININGS[name](start)
    return recipe


def prepare_training(name: str, wish: TrainingRequest) -> tuple[Task, TrainingPlan, dict[str, object]]:
    """A training of `builtins.TRAININGS` that is ready to start; and what tells it from others.

    Raises InputError where data or weights are missing, damaged or do not go together.
    """
    kind = choose_training(name, wish.start)
    check_training_settings(name, kind, wish.settings)
    task = kind.task(wish)
    facts = ("data", "val", "size", "frames", "start", "segmenter", "settings")
    told = {"clips": wish.batch, **{fact: getattr(wish, fact) for fact in facts}}
    return task, kind.plan(wish), {"task": name, **told}


def find_shared_data(wish: TrainingRequest) -> list[str]:
    """Data whose clips are trained on and validated on: folders, where no others are named to validate on."""
    return [] if wish.val else [name for name in wish.data if not is_generated(name)]


def check_training_settings(name: str, kind: TrainingRecipe, settings: Mapping[str, str]) -> None:
    """Raises InputError where a training has no such settings."""
    for setting, value in settings.items():
        known = kind.settings.get(setting)
        if known is None:
            raise InputError(f"{name} has no setting {setting!r}; there are: {', '.join(kind.settings) or 'none'}")
        if value not in known:
            raise InputError(f"{setting} = {value}: there are {', '.join(known)}")
