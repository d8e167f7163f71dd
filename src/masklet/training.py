"""Trainings by name: what `masklet train` trains, on what, and for how long."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from masklet.builtins import TRAININGS
from masklet.core.errors import InputError
from masklet.core.files import path_exists
from masklet.core.wording import name_argument, name_setting
from masklet.models.encoder import STRIDE as CELL
from masklet.models.mask2former.networks import infer_query_sizes, wrap_query_network
from masklet.models.mask2former.segmenter import Mask2Former
from masklet.models.mask2former.small import KIND as SMALL
from masklet.models.mask2former.small import (
    SmallMask2FormerSettings,
    create_small_mask2former,
    save_small,
)
from masklet.models.mask2former.weights import locate_mask2former
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
from masklet.models.nano.nanodet import read_nanodet_network
from masklet.models.nano.network import KIND as NANO
from masklet.models.nano.network import NanoSettings, create_nano, read_nano
from masklet.models.nano.propagator import PACKAGED as PROPAGATOR
from masklet.models.query_video.heads import HeadsOrigin
from masklet.models.sam2.edgetam import EdgeTam
from masklet.models.sam2.memory import RecentFrames
from masklet.models.sam2.propagator import Sam2
from masklet.nn.prompt_network import PromptNetwork
from masklet.nn.referring_tracker import ReferringTracker, TrackerSettings
from masklet.nn.temporal_refiner import RefinerSettings, TemporalRefiner
from masklet.parts import load_sam2
from masklet.starts import (
    OwnSizeSegmenter,
    StartingSegmenter,
    is_trained_over,
    load_starting_heads,
    load_starting_segmenter,
    load_starting_slots,
    name_start,
    split_side,
)
from masklet.train.data.clips import ClipSource, TrainingClip
from masklet.train.data.data_sources import (
    FRAMES,
    PANOPTIC,
    ClipMaking,
    FromStills,
    create_clip_source,
    create_moving_stills,
    create_object_source,
    create_still_crops,
    create_turning_stills,
    is_generated,
)
from masklet.train.data.framing import FixedFraming, ShortSideFraming
from masklet.train.data.prompt_crops import PromptCrops, StillsShare
from masklet.train.data.stills import Stills, find_still_files
from masklet.train.data.videos import FrameSampling
from masklet.train.loop.loop import Task, TrainingPlan
from masklet.train.loop.run_folder import save_network
from masklet.train.prompt_scores import name_clicks, read_objects, score_prompts, select_objects
from masklet.train.settings import (
    SamplingSettings,
    ScheduleSettings,
    apply_schedule,
    choose_settings,
    read_training_settings,
)
from masklet.train.tasks.dense import DenseTask, WeightedSource, replace_head_categories
from masklet.train.tasks.dvis import (
    REFINER_FRAMES,
    REFINER_REVERSE,
    DvisTraining,
    RefinerTask,
    TrackerTask,
    initialize_from_minvis,
)
from masklet.train.tasks.nano import ASKING, build_nano_task
from masklet.train.tasks.prompts import PromptTask
from masklet.train.tasks.propagator import PromptSampling, PropagatorTask
from masklet.train.tasks.rocovis import RocovisTask, RocovisTraining, find_ablation_row
from masklet.train.tasks.segmenter import SegmenterTask, draw_held_out_clips, fit_categories
from masklet.training_request import (
    Begun,
    ClipViews,
    DvisOptions,
    PreparedTraining,
    RocovisOptions,
    Sam2Options,
    TrackerOptions,
    TrainingRecipe,
    TrainingRequest,
    choose_views,
)
from masklet.weights.format import is_of_kind
from masklet.weights.reading import is_path
from masklet.weights.store import ZOO, verify_packaged

PACKAGED = "nano"  # the packaged models as a start
OF_SEGMENTER = ("classes", "width", "heads", "mask_width")  # of heads' settings: what the segmenter below decides
CLIP_NORM = 0.01  # of DVIS's and GenVIS's gradients, as released
MOST_LAYERS = 6  # of DVIS's tracker and refiner, as published
PROMPTED = 100  # objects by which an image predictor is validated
CLICKS = (1, 3)  # numbers of clicks, likewise

S = TypeVar("S")
N = TypeVar("N", bound=torch.nn.Module)


# -- the segmenter


def start_segmenter(wish: TrainingRequest) -> Begun:
    """Nothing, or any Mask2Former from its weights."""
    return start_over_segmenter(load_starting_segmenter(wish.start, wish.categories)) if wish.start else Begun()


def start_over_segmenter(segmenter: StartingSegmenter, **more: Any) -> Begun:
    """What begins with, or over, a segmenter; `more` as in `Begun`."""
    short = () if segmenter.size else segmenter.short
    weights = {**segmenter.loaded.weights, **more.pop("weights", {})}
    return Begun(segmenter, size=segmenter.size, short=short, side=segmenter.side, weights=weights, **more)


def build_segmenter_task(
    wish: TrainingRequest, begun: Begun, views: ClipViews, source: ClipSource, unseen: Sequence[TrainingClip]
) -> SegmenterTask:
    """The small Mask2Former from the packaged backbone, or any one from its weights.

    Args:
        wish: what is asked for.
        begun: what the training begins with.
        views: of the data, as clips are cut.
        source: gives the clips that are trained on.
        unseen: clips that it is validated on.
    """
    fresh = SmallMask2FormerSettings()
    settings = begun.segmenter.small if begun.segmenter else fresh
    net: Any = (
        begun.segmenter.loaded.net if begun.segmenter else create_small_mask2former(fresh, source.categories, wish.seed)
    )
    if begun.segmenter:
        begun.notes.extend(begun.segmenter.name_by(source.categories))
    begun.notes.extend(fit_categories(net, source.categories, wish.seed, [(net, "class_predictor")]))
    net = net.to(wish.device)

    def save(to: Path) -> None:
        if settings is None:
            save_network(net, to.with_suffix(""))
        else:
            save_small(to, net, settings, views.size)

    return SegmenterTask(
        net,
        source,
        unseen,
        save,
        clips=wish.batch // wish.parts,
        frames=wish.frames,
        at=None if isinstance(views.framing, FixedFraming) else views.losses,
        pixel_classes=0.0 if settings is None else 1.0,
    )


def is_trained_file(kind: str, path: Path) -> bool:
    """Whether it is a file that a training here wrote, of this kind."""
    return path_exists(path) and is_of_kind(path, kind)


def build_dense_task(
    wish: TrainingRequest, begun: Begun, views: ClipViews, source: ClipSource, unseen: Sequence[TrainingClip]
) -> DenseTask:
    """The nano segmenter, for the categories of the data; the arguments `wish`, `begun`, `views`, `source` and
    `unseen` are those of `build_segmenter_task`. Raises InputError where the size of the views does not fit the
    network's cells.
    """
    if any(side % CELL for side in views.size):
        h, w = views.size
        raise InputError(
            f"{name_argument('size', (h, w))}: for the nano segmenter both must be multiples of {CELL}, such as 256x320"
        )
    held = read_dense(resolve_nano_file(wish.start, SEGMENTER))
    with torch.random.fork_rng([]):
        torch.manual_seed(wish.seed)
        head = replace_head_categories(held.head, held.categories, source.categories)
    head = prepare_trained_module(head, wish)

    def save(to: Path) -> None:
        save_dense(to, head, held.settings, source.categories)

    batch = wish.batch // wish.parts
    sources = [WeightedSource(source, 1.0)]
    return DenseTask(head, source.categories, sources, unseen, save, batch=batch, short=views.side)


def plan_dense_training(wish: TrainingRequest) -> TrainingPlan:
    """Images go through the network together, so that a step is one item, or as many as the batch has parts."""
    return TrainingPlan(
        wish.steps, wish.parts, wish.lr, warm_up=min(100, wish.steps // 10), seed=wish.seed, **plan_checkpoints(wish)
    )


def resolve_nano_file(name: str, packaged: str) -> Path:
    """The packaged file of a name in the zoo, where it is called nano."""
    return verify_packaged(ZOO[packaged]) if name == PACKAGED else Path(name)


def is_nano_start(kind: str, name: str) -> bool:
    """Whether a training begins with a nano model, packaged or of a file."""
    return name == PACKAGED or is_trained_file(kind, Path(name))


BACKBONE = "net.model.pixel_level_module.encoder."


def plan_segmenter_training(wish: TrainingRequest) -> TrainingPlan:
    """Clips go through the network together, so that a step is one item, or as many as the batch has parts. What was
    trained before learns slowly.
    """
    slow = (BACKBONE + ("" if wish.start else "net."), 0.1)
    return TrainingPlan(
        wish.steps,
        wish.parts,
        wish.lr,
        warm_up=min(100, wish.steps // 10),
        factors=(slow,),
        seed=wish.seed,
        **plan_checkpoints(wish),
    )


def plan_minvis_training(wish: TrainingRequest) -> TrainingPlan:
    """As MinVIS and DVIS train a large one: a tenth of the rate for the last three tenths of the steps."""
    return replace(plan_heads_training(wish), batch=wish.parts, factors=((BACKBONE, 0.1),))


VIT_PARTS = tuple(f"{module}.{part}." for module in ("net", "segmenter") for part in ("embeddings", "layers"))


def slow_down_backbone(plan: TrainingPlan, begun: Begun, module: torch.nn.Module) -> TrainingPlan:
    """The plan, by which of an EoMT in `module` the ViT moves at a tenth of the rate, as other backbones do."""
    net = begun.segmenter.loaded.net if begun.segmenter else getattr(begun.slots, "segmenter", None)
    if net is None or wrap_query_network(net).square is None:
        return plan
    names = [name for name, _ in module.named_parameters()]
    return replace(plan, factors=tuple((p, 0.1) for p in VIT_PARTS if any(name.startswith(p) for name in names)))


# -- DVIS


def start_tracker(wish: TrainingRequest) -> Begun:
    """A segmenter, and a tracker where it goes on with one: an official checkpoint has both."""
    heads = load_starting_heads(wish.start, wish.categories) if wish.start else None
    below = wish.segmenter or (wish.start if heads and heads.is_official else "") or require_segmenter(wish)
    segmenter = load_starting_segmenter(below, wish.categories)
    if heads and wish.settings.get("over", "same") == "same" and not is_trained_over(heads, segmenter):
        raise InputError(
            f"{name_start(wish.start)}: trained over another segmenter than {below}, by their weights; give that one, "
            f"or {name_setting('over', 'any')} to go on over this one"
        )
    return start_over_segmenter(segmenter, heads=heads, weights=compute_file_hashes(wish.start))


def start_refiner(wish: TrainingRequest) -> Begun:
    """A segmenter and a trained tracker, maybe with a refiner."""
    if not wish.start:
        raise InputError(
            f"a refiner needs the tracker that it refines: give {name_argument('start', option='from')}, a file that "
            "`masklet train tracker` wrote, or an official checkpoint of DVIS"
        )
    return start_tracker(wish)


def compute_file_hashes(name: str) -> dict[str, str]:
    """{name: sha256} of a file of weights that a training begins with; none where it begins with none."""
    return dict(locate_mask2former(split_side(name)[0])[1]) if name else {}


def build_tracker_task(
    wish: TrainingRequest, begun: Begun, views: ClipViews, source: ClipSource, unseen: Sequence[TrainingClip]
) -> TrackerTask:
    """A tracker of the segmenter's own width, new or one that was trained before; the arguments `wish`, `begun`,
    `views`, `source` and `unseen` are those of `build_segmenter_task`.
    """
    segmenter = freeze_segmenter(wish, begun, source)
    if begun.heads:
        tracker = check_head_settings(begun.heads.tracker, wish)
    else:
        settings = choose_head_settings(TrackerSettings, segmenter, wish)
        tracker = create_seeded(ReferringTracker, settings, wish.seed)
        if choose_settings(TrackerOptions, wish.settings).begin == "minvis":
            initialize_from_minvis(tracker, segmenter.net)
    own = choose_dvis_training(wish, views, 0.0)
    return TrackerTask(
        OwnSizeSegmenter(segmenter),
        prepare_trained_module(tracker, wish),
        source,
        own,
        unseen,
        describe_origin(begun, views),
    )


def build_refiner_task(
    wish: TrainingRequest, begun: Begun, views: ClipViews, source: ClipSource, unseen: Sequence[TrainingClip]
) -> RefinerTask:
    """A refiner over a trained tracker, new or one that was trained before; the arguments `wish`, `begun`, `views`,
    `source` and `unseen` are those of `build_segmenter_task`.
    """
    segmenter, heads = freeze_segmenter(wish, begun, source), begun.heads
    assert heads is not None  # `start_refiner` asks for them
    tracker = heads.tracker.to(wish.device).requires_grad_(False)
    if heads.refiner:
        begun.notes.append(f"{wish.start}: holds a refiner, too; it is trained on")
        refiner = check_head_settings(heads.refiner, wish)
    else:
        refiner = create_seeded(TemporalRefiner, choose_head_settings(RefinerSettings, segmenter, wish), wish.seed)
    own = choose_dvis_training(wish, views, REFINER_REVERSE)
    return RefinerTask(
        OwnSizeSegmenter(segmenter),
        tracker,
        prepare_trained_module(refiner, wish),
        source,
        own,
        unseen,
        describe_origin(begun, views),
    )


def freeze_segmenter(wish: TrainingRequest, begun: Begun, source: ClipSource) -> Mask2Former:
    """The segmenter that heads were `begun` over, on the device of the `wish`; its classes get the names of the
    `source`'s categories where it has none.
    """
    held = begun.segmenter
    assert held is not None  # all that begin over one ask for it
    begun.notes.extend(held.name_by(source.categories))
    net: Any = held.loaded.net
    return Mask2Former(net.to(wish.device), weights=held.loaded.weights)


def describe_origin(begun: Begun, views: ClipViews) -> HeadsOrigin:
    """What the file of trained heads says of what is below them."""
    assert begun.segmenter is not None
    return HeadsOrigin(dict(begun.segmenter.loaded.weights), views.side)


def choose_dvis_training(wish: TrainingRequest, views: ClipViews, reverse: float) -> DvisTraining:
    """The settings of a training of heads by the `wish`, on clips cut as `views` has it; they run backward as often as
    `reverse` says where the wish does not.
    """
    own, told = choose_settings(TrackerOptions, wish.settings), wish.sampling.reverse
    return DvisTraining(
        wish.steps,
        wish.frames,
        reverse if told is None else told,
        views.losses,
        own.given,
        own.labels,
        own.noise,
        own.noisy,
        "bfloat16" if wish.schedule.precision == "bfloat16" else "float32",
    )


def choose_head_settings(kind: type[S], segmenter: Mask2Former, wish: TrainingRequest) -> S:
    """Settings, of the dataclass `kind`, of a new head: as wide and as deep as its `segmenter`'s decoder, unless the
    `wish` says otherwise.
    """
    told = {f.name: wish.settings[f.name] for f in fields(kind) if f.name in wish.settings}  # type: ignore[arg-type]
    return kind(**{**infer_head_sizes(segmenter), **told})


def check_head_settings(head: N, wish: TrainingRequest) -> N:
    """A head that was trained before. Raises InputError where something else is asked for than it is."""
    built: Any = head.settings
    for name, value in asdict(built).items():
        if name in wish.settings and wish.settings[name] != value:
            told = name_setting(name, wish.settings[name])
            raise InputError(f"{told}: {name_start(wish.start)} has {value}; leave it out")
    return head


def create_seeded(kind: Callable[[S], N], settings: S, seed: int) -> N:
    """A network of a `kind` with these `settings`, whose weights are random by `seed`."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return kind(settings)


# -- RoCoVIS


def start_rocovis(wish: TrainingRequest) -> Begun:
    """A segmenter that was trained on images, or a slot model that was trained before."""
    if not wish.start:
        return start_over_segmenter(load_starting_segmenter(require_segmenter(wish), wish.categories))
    if wish.segmenter:
        told = name_argument("segmenter", wish.segmenter)
        raise InputError(f"{told}: {name_start(wish.start)} has one already; leave it out")
    kind = find_ablation_row(choose_settings(RocovisOptions, wish.settings).row).kind
    held, side = load_starting_slots(wish.start, kind, wish.categories)
    return Begun(slots=held.net, short=(side or held.shortest,), side=side, weights=held.weights)


def build_rocovis_task(
    wish: TrainingRequest, begun: Begun, views: ClipViews, source: ClipSource, unseen: Sequence[TrainingClip]
) -> RocovisTask:
    """The whole network, maybe with other categories than before; the arguments `wish`, `begun`, `views`, `source` and
    `unseen` are those of `build_segmenter_task`.
    """
    own, net = choose_settings(RocovisOptions, wish.settings), begun.slots
    segmenter: Any = net.segmenter if net is not None else None
    heads: list[tuple[torch.nn.Module, str]] = []
    if begun.segmenter:
        segmenter = begun.segmenter.loaded.net
        begun.notes.extend(begun.segmenter.name_by(source.categories))
    elif hasattr(net, "objects"):
        heads = [(net.objects, "class_embed")]
    begun.notes.extend(
        fit_categories(segmenter, source.categories, wish.seed, [(segmenter, "class_predictor"), *heads])
    )
    if net is not None:
        net.requires_grad_(True)
        segmenter.requires_grad_(not heads)  # GenVIS's stays
    if own.similarity is not None and find_ablation_row(own.row).kind != "genvis":
        told = name_setting("similarity", own.similarity)
        raise InputError(f"{told}: is a loss of GenVIS; say {name_setting('row', 'queries')}, or leave it out")
    losses = None if wish.size else views.losses
    similarity = RocovisTraining.similarity if own.similarity is None else own.similarity
    settings = RocovisTraining(wish.frames, own.through, own.row, losses, similarity)
    return RocovisTask(
        segmenter, source, settings, unseen, device=wish.device, seed=wish.seed, shortest=views.side, net=net
    )


def plan_rocovis_training(wish: TrainingRequest) -> TrainingPlan:
    """As the trackers', the backbone at a tenth of the rate."""
    slow = ("segmenter.model.pixel_level_module.encoder.", 0.1)
    return replace(plan_heads_training(wish), factors=(slow,))


# -- the propagator


def build_propagator_task(
    wish: TrainingRequest, begun: Begun, views: ClipViews, source: ClipSource, unseen: Sequence[TrainingClip]
) -> PropagatorTask:
    """The nano propagator, new or from a file of one; the arguments `wish`, `begun`, `views`, `source` and `unseen`
    are those of `build_segmenter_task`. Raises InputError for another device than the CPU.
    """
    if wish.device.type != "cpu":
        raise InputError("the nano propagator is trained on the CPU: its guesses are made there; take the device cpu")
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
        told = name_argument("frames", wish.frames)
        raise InputError(f"{told}: a propagator learns from one frame to the next; give 2 or more")
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


def build_sam2_task(
    wish: TrainingRequest, begun: Begun, views: ClipViews, source: ClipSource, unseen: Sequence[TrainingClip]
) -> PropagatorTask:
    """SAM 2 by a name of `parts.load_sam2`: all of it but the image encoder, or that, too; the arguments `wish`,
    `begun`, `views`, `source` and `unseen` are those of `build_segmenter_task`.

    The encoder's position encodings are never trained: they are computed once (`sam2.image_encoder`).
    """
    asking, file = set_sampling_frames(wish, SAM2_ASKING), wish.start.rpartition("@")[0] or wish.start
    if is_path(file) and not path_exists(Path(file).expanduser()):
        raise InputError(f"{name_start(wish.start)}: no such file or folder")
    loaded = load_sam2(wish.start, RecentFrames(), wish.device.type)
    if isinstance(loaded, EdgeTam):
        raise InputError(f"{name_start(wish.start)}: EdgeTAM cannot be trained here; give a SAM 2, such as sam2.1-tiny")
    net = loaded.net.requires_grad_(True)
    net.vision_encoder.requires_grad_(choose_settings(Sam2Options, wish.settings).encoder == "trained")
    sam2 = Sam2(net, gradients=True)

    def save(to: Path) -> None:
        save_network(net, to.with_suffix(""))

    return PropagatorTask(net, lambda short: sam2, source, unseen, save, asking=asking)


def plan_sam2_training(wish: TrainingRequest) -> TrainingPlan:
    """Gently: the weights are good already, those of an encoder that is trained most of all."""
    return replace(plan_propagator_training(wish), weight_decay=0.1, clip_norm=0.1, factors=(("vision_encoder.", 0.1),))


# -- the image predictor


def build_image_predictor_task(wish: TrainingRequest) -> tuple[PromptTask, Begun]:
    """The promptable network over ImageNet's, or one that was trained before; on stills alone."""
    check_crops(wish)
    shares = [StillsShare(read_stills("data", name), 1.0, name=name_argument("data", name)) for name in wish.data]
    source = PromptCrops(shares)
    unseen = [read_stills("val", name) for name in wish.val] or [share.stills for share in shares]
    asked_for = select_objects(unseen, PROMPTED)
    net = init_prompt_network(wish).enable_training().to(wish.device)
    detector = read_nanodet_network().to(wish.device)

    def validate() -> dict[str, float]:
        predictor = ImagePredictor(net, load_detector=lambda: detector)  # a new one: it keeps its last answer
        scores = score_prompts(predictor, read_objects(asked_for), max(CLICKS))
        return {name: scores[name] for name in ("box", *map(name_clicks, CLICKS)) if name in scores}

    crops = wish.batch // wish.parts
    task = PromptTask(net, source, validate, lambda path: save_prompt_network(path, net), crops, detector)
    return task, Begun()


def init_prompt_network(wish: TrainingRequest) -> PromptNetwork:
    """The weights to begin with."""
    if not wish.start:
        return create_prompt_network(wish.seed)
    path = resolve_nano_file(wish.start, IMAGE_PREDICTOR)
    if not path_exists(path):
        raise InputError(f"{name_start(wish.start)}: no such file; give nano, or weights that this training wrote")
    return read_prompt_network(path)


def check_crops(wish: TrainingRequest) -> None:
    """Raises InputError where clips are asked for that are not crops of single images."""
    if wish.size is not None and wish.size != (SIDE, SIDE):
        told = name_argument("size", wish.size)
        raise InputError(f"{told}: the image predictor looks at crops of {SIDE}x{SIDE}; leave it out")
    if wish.frames != 1:
        told = name_argument("frames", wish.frames)
        raise InputError(f"{told}: the image predictor looks at single images; leave it out")


def read_stills(argument: str, name: str) -> Stills:
    """The stills of a folder. Raises InputError where it holds something else."""
    path, wrong = Path(name), ""
    if is_generated(name):
        wrong = "these are generated clips"
    elif not os.path.isdir(name):
        wrong = "no such folder"
    elif any((path / folder).is_dir() for folder in (FRAMES, PANOPTIC)):
        wrong = "these are videos"
    elif not (images := find_still_files(path)[1]).is_dir():
        wrong = f"no {images.name}/ in it"
    if wrong:
        raise InputError(
            f"{name_argument(argument, name)}: {wrong}, and the image predictor learns from stills; give a folder with "
            "annotations.json and images/, COCO's instance form"
        )
    return Stills(path)


def plan_image_predictor_training(wish: TrainingRequest) -> TrainingPlan:
    """Crops go through the network together, so that a step is one item, or as many as the batch has parts; ImageNet's
    blocks learn slowly.
    """
    return TrainingPlan(
        wish.steps,
        wish.parts,
        wish.lr,
        weight_decay=0.01,
        warm_up=min(200, wish.steps // 10),
        factors=(("blocks.", 0.25),),
        seed=wish.seed,
        **plan_checkpoints(wish),
    )


# -- what they share


Made = Callable[[TrainingRequest, Begun, ClipViews, ClipSource, Sequence[TrainingClip]], Task]


def start_with_nothing(wish: TrainingRequest) -> Begun:
    """What loads its weights itself, and has clips of the small size."""
    return Begun()


def build_clip_task(
    begin: Callable[[TrainingRequest], Begun],
    made: Made,
    stills: FromStills,
    unseen_clips: int,
    read: Callable[[Sequence[str], ClipMaking], ClipSource] = create_clip_source,
) -> Callable[[TrainingRequest], tuple[Task, Begun]]:
    """What builds the task of a wish on clips.

    Args:
        begin: gives what the training begins with.
        made: builds the task.
        stills: how still images become clips.
        unseen_clips: clips of `wish.val` that it is validated on, where the wish does not say how many.
        read: opens the data as one source of clips.
    """

    def task(wish: TrainingRequest) -> tuple[Task, Begun]:
        begun = begin(wish)
        views, told = choose_views(wish, begun), wish.sampling
        making = ClipMaking(views.framing, stills, True, FrameSampling(told.reach), told.ratio)
        source = read(wish.data, making)
        unseen = read(wish.val or wish.data, replace(making, framing=views.plain, varied=False))
        if unseen.categories != source.categories:
            held = f"has other categories than {name_argument('data')} ({', '.join(source.categories[:3])}, ...)"
            raise InputError(f"{name_argument('val')}: {held}")
        clips = draw_held_out_clips(unseen, told.val_clips or unseen_clips, told.val_frames or wish.frames)
        return made(wish, begun, views, source, clips), begun

    return task


def require_segmenter(wish: TrainingRequest) -> str:
    """The weights of the segmenter below."""
    if not wish.segmenter:
        raise InputError(
            f"this is trained over a segmenter: give {name_argument('segmenter')}, a file that `masklet train "
            "segmenter` wrote, or any other Mask2Former or EoMT by hub id, folder or file"
        )
    return wish.segmenter


def infer_head_sizes(segmenter: Mask2Former) -> dict[str, Any]:
    """Settings of a tracker or refiner as wide as a segmenter's decoder, and as deep, up to the published depth."""
    at = infer_query_sizes(segmenter.net.config)._asdict()
    return at | {"classes": len(segmenter.categories), "layers": min(at["layers"], MOST_LAYERS)}


def prepare_trained_module(module: Any, wish: TrainingRequest) -> Any:
    """On the device, with gradients."""
    return module.to(wish.device).requires_grad_(True)


def plan_heads_training(wish: TrainingRequest) -> TrainingPlan:
    """DVIS 4.1: a tenth of the rate for the last three tenths of the steps; gradients are clipped as released."""
    return TrainingPlan(
        wish.steps,
        wish.batch,
        wish.lr,
        clip_norm=CLIP_NORM,
        milestones=(int(0.7 * wish.steps),),
        seed=wish.seed,
        **plan_checkpoints(wish),
    )


def plan_checkpoints(wish: TrainingRequest) -> dict[str, Any]:
    """Ten validations, and a checkpoint every minute or so."""
    return {"validate_every": max(1, wish.steps // 10), "save_every": 100}


# -- what there is


CLIPS = (ScheduleSettings, SamplingSettings, ShortSideFraming)  # settings of all that is trained on clips
TRACKER = (TrackerOptions, TrackerSettings, *CLIPS)
REFINER = (DvisOptions, RefinerSettings, *CLIPS)
RECIPES: Mapping[str, TrainingRecipe] = {
    "segmenter": TrainingRecipe(
        build_clip_task(start_segmenter, build_segmenter_task, create_still_crops, 100),
        *(plan_segmenter_training, 1, 5000, 4, 1e-3, CLIPS),
    ),
    "propagator": TrainingRecipe(
        build_clip_task(start_with_nothing, build_propagator_task, create_moving_stills, 8, create_object_source),
        *(plan_propagator_training, 4, 4000, 1, 7e-4, CLIPS),
    ),
    "tracker": TrainingRecipe(
        build_clip_task(start_tracker, build_tracker_task, create_turning_stills, 40),
        *(plan_heads_training, 5, 4000, 1, 1e-4, TRACKER),
    ),
    "refiner": TrainingRecipe(
        build_clip_task(start_refiner, build_refiner_task, create_turning_stills, 20),
        *(plan_heads_training, REFINER_FRAMES, 4000, 1, 1e-4, REFINER),
    ),
    "rocovis": TrainingRecipe(
        build_clip_task(start_rocovis, build_rocovis_task, create_turning_stills, 20),
        *(plan_rocovis_training, 5, 4000, 1, 1e-4, (RocovisOptions, *CLIPS)),
    ),
    "image-predictor": TrainingRecipe(
        build_image_predictor_task, plan_image_predictor_training, 1, 8000, 8, 1e-3, (ScheduleSettings,), (SIDE, SIDE)
    ),
}


# Where a segmenter begins with nano or a large network, and where an image predictor begins with one.
DENSE = TrainingRecipe(
    build_clip_task(start_with_nothing, build_dense_task, create_still_crops, 40),
    *(plan_dense_training, 1, 2000, 8, 3e-4, CLIPS),
)
MINVIS = TrainingRecipe(
    build_clip_task(start_segmenter, build_segmenter_task, create_turning_stills, 100),
    *(plan_minvis_training, 1, 5000, 8, 1e-4, CLIPS),
)
TUNED = replace(RECIPES["image-predictor"], steps=2000, lr=2e-4)
SAM2_ASKING = PromptSampling(frames=8, objects=3, boxes=0.25, clicks=0.25)  # SAM 2, appendix D
SAM2 = TrainingRecipe(
    build_clip_task(start_with_nothing, build_sam2_task, create_moving_stills, 8, create_object_source),
    *(plan_sam2_training, 8, 2000, 1, 1e-5, (Sam2Options, *CLIPS)),
)  # where a propagator begins with weights of it


def choose_segmenter(start: str) -> TrainingRecipe:
    """A small Mask2Former; where the training begins with others, the nano segmenter or a large one."""
    if not start or is_trained_file(SMALL, Path(split_side(start)[0])):
        return RECIPES["segmenter"]
    return DENSE if is_nano_start(NANO_SEGMENTER, start) else MINVIS


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
    """The recipe of RoCoVIS, which is one for every `start`."""
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


def prepare_training(name: str, wish: TrainingRequest) -> PreparedTraining:
    """A training of `builtins.TRAININGS` that is ready to start.

    Raises InputError where data, weights or settings are missing, damaged or do not go together.
    """
    kind = choose_training(name, wish.start)
    told = read_training_settings(kind.settings, wish.settings, name, but=OF_SEGMENTER)
    wish = replace(wish, settings=told)
    plan = apply_schedule(kind.plan(wish), wish.schedule)
    task, begun = kind.task(wish)
    plan = slow_down_backbone(plan, begun, task.module)
    facts = ("data", "val", "size", "frames", "start", "segmenter", "categories", "settings")
    about = {fact: getattr(wish, fact) for fact in facts}
    return PreparedTraining(
        task, plan, {"task": name, "clips": wish.batch, **about, "weights": dict(begun.weights)}, begun.notes
    )


def find_shared_data(wish: TrainingRequest) -> list[str]:
    """Data whose clips are trained on and validated on: folders, where no others are named to validate on."""
    return [] if wish.val else [name for name in wish.data if not is_generated(name)]
