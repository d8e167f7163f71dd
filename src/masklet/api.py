"""The library's front door: a video in, masklets out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints, overload

import torch
from rich.console import Console

from masklet.builtins import QUERY_SYSTEMS, SYSTEMS
from masklet.core.checkpoint import Checkpoints
from masklet.core.choices import check_choice
from masklet.core.errors import InputError
from masklet.core.frames import Video, check_before_reading, describe_reading
from masklet.core.instances import Exemplar, FrameMasks
from masklet.core.limits import check_frame_rate, check_relative_path
from masklet.core.part_facts import (
    check_part_facts,
    collect_part_weights,
    collect_parts,
    describe_device,
    describe_part,
    find_device,
    list_part_notes,
)
from masklet.core.part_request import parse_part_name
from masklet.core.progress import Watch, discard_progress
from masklet.core.protocols import (
    AdvisingSegmenter,
    LiveSystem,
    Propagator,
    ResumableSystem,
    ScoringSegmenter,
    Segmenter,
    VideoBound,
    VideoSystem,
)
from masklet.core.result import VideoResult
from masklet.core.settings import check_setting
from masklet.io.video.sources import (
    begin_result,
    group_video_sources,
    is_list_of_images,
    iterate_live_frames,
    open_video,
    record_source,
    reopen_video,
)
from masklet.models.encoder import Encoder
from masklet.models.segmenters.function import FunctionSegmenter
from masklet.models.segmenters.precomputed import Precomputed
from masklet.parts import (
    is_promptable,
    load_bystanders,
    load_propagator,
    load_segmenter,
    load_text_segmenter,
    make_encoder,
    refuse_part_settings,
    resolve_device,
)
from masklet.registry import import_object
from masklet.systems.prompts import check_prompt as check_prompt
from masklet.systems.prompts import check_prompts as check_prompts
from masklet.systems.track import Track
from masklet.version import __version__
from masklet.view.notebook_bars import is_in_notebook, show_notebook_bars
from masklet.view.progress import show_progress_bars

if TYPE_CHECKING:
    from masklet.session.session import Session

PartChoice = str | tuple[str, Mapping[str, Any]] | Any  # a name, a name with settings, or the part itself
PARTS = ("segmenter", "propagator")
SHOWABLE = "sam3"  # the segmenter that can be shown what to find


@dataclass(frozen=True)
class Model:
    """A system with its parts, loaded once and used again and again; `load` makes one.

    Attributes:
        system: finds, segments and tracks.
        propagator: carries what `track` is given: an object, or the name of one that is made at its first use.
        device: where the networks of a propagator that is named compute.
    """

    system: VideoSystem
    propagator: PartChoice = "nano"
    device: str = "auto"

    def __repr__(self) -> str:
        """A line: the system, its parts and where they compute."""
        parts = [describe_part(part) for name in PARTS if (part := getattr(self.system, name, None)) is not None]
        return f"<Model {type(self.system).__name__.lower()}: {', '.join([*parts, self.device])}>"

    @cached_property
    def tracker(self) -> Propagator[Any, Any]:
        """The propagator of `track`, made when it is first asked for."""
        return make_propagator(self.propagator, make_encoder(self.device), self.device, {})

    @overload
    def segment(self, source: list[Any] | tuple[Any, ...], **options: Any) -> Iterator[VideoResult]: ...

    @overload
    def segment(self, source: Any, **options: Any) -> VideoResult: ...

    def segment(self, source: Any, **options: Any) -> VideoResult | Iterator[VideoResult]:
        """Finds, segments and tracks every object of a video, or of each video of a list in turn.

        Args:
            source: as in the function `segment`.
            options: `watch`, `progress`, `rate` and `name` as there.
        """
        if is_list_of_sources(source):
            sources = group_video_sources([str(path) for path in source])
            shared = replace(self, system=share_detections(self.system, len(sources)))
            return (shared.segment(one, **options) for one in sources)
        return process_source(source, lambda video: self.system, device=self.device, **options)

    def track(self, source: Any, prompts: Mapping[int, Mapping[int, Any]], **options: Any) -> VideoResult:
        """Propagates given objects both ways; `source`, `prompts` and `options` as in the function `track`."""
        carrier = self.tracker
        return process_source(
            source,
            lambda video: Track(carrier, check_prompts(prompts, video), load_bystanders(carrier)),
            device=self.device,
            **options,
        )

    def open(
        self,
        source: Any,
        *,
        result: VideoResult | str | Path | None = None,
        session: str | Path | None = None,
        rate: float | None = None,
        name: str = "",
    ) -> Session:
        """A session over a video, whose prompts and propagation this model's propagator answers; the arguments as in
        the function `open`.
        """
        return open_session(source, self.tracker, result, session, rate, name)

    def stream(self, frames: Iterable[Any]) -> Iterator[FrameMasks]:
        """Masks while `frames` arrive, as in the function `stream`; a model that is loaded with `live=True` follows at
        most 32 objects. Raises InputError where the system needs the whole video.
        """
        check_live_frames(frames)
        if not isinstance(self.system, LiveSystem):
            name = type(self.system).__name__
            raise InputError(f"stream: {name} needs the whole video before it answers; take deva, or `segment`")
        return self.system.stream(iterate_live_frames(frames))


def load(
    system: PartChoice = "sam2bmp",
    *,
    segmenter: PartChoice | None = None,
    text: str = "",
    exemplars: Sequence[Exemplar] = (),
    propagator: PartChoice | None = None,
    device: str = "auto",
    live: bool = False,
    **settings: Any,
) -> Model:
    """A system made of parts, by their names or of objects of yours, to be used again and again.

    Args:
        system: "sam2bmp"; "deva", and its other modes "deva-online", "deva-automatic" and "deva-text"; "deva-offline",
            which follows one object of each of the segmenter's categories;
            "minvis", "dvis", "dvis-offline" and "rocovis", which need no propagator (see `queries.load_query_system`);
            or an object with `run` (`core.protocols.VideoSystem`), which needs no parts.
        segmenter: "auto", which is what is taken for None; "motion"; "nano"; "nano-objects"; "everything"; a text
            detector; the path of detections made elsewhere (see `parts.load_segmenter` and `models.precomputed`); a
            name with settings, ("everything", {"points_per_side": 16}); an object that satisfies
            `core.protocols.Segmenter`; or a function from an RGB frame, uint8 [h w 3], to `Detections` or
            `supervision.Detections`.
        text: what to find, such as "dog. red car."; with it None is "grounding-dino-tiny" (see
            `parts.load_text_segmenter`), and "sam3" names a segmenter too.
        exemplars: of what to find, `Exemplar(0, "dog", Box(10, 20, 60, 80))`; with them None is "sam3".
        propagator: None, which is "affinity" for `segment` and `stream`, and "nano" for `track`; "sam2.1-tiny" and
            others of `masklet weights list`; "sam2long:sam2.1-large"; see `parts.load_propagator`; a name with
            settings; or an object that satisfies `core.protocols.Propagator`.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        live: whether the model is for an endless source: then at most 32 objects are followed, and SAM2BMP forgets one
            that has not been seen for 300 frames, unless set otherwise.
        settings: any field of the system's `Settings`, such as conf=0.8; the others keep the paper's value, or the
            one that the segmenter asks for.

    Returns:
        The model, with `segment`, `track` and `stream`.

    Raises:
        InputError: a name or a setting does not exist, or a value is not of its kind.
    """
    prompts = FinderPrompts(text, exemplars)
    made = make_system(
        system, segmenter, prompts, "affinity" if propagator is None else propagator, device, live, settings
    )
    shared = getattr(made, "propagator", None)
    return Model(made, ("nano" if propagator is None else shared or propagator), device)


@dataclass(frozen=True)
class FinderPrompts:
    """What says what a segmenter is to find."""

    text: str = ""
    exemplars: Sequence[Exemplar] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which of them there are."""
        return tuple(name for name in ("text", "exemplars") if getattr(self, name))


def make_system(
    system: PartChoice,
    segmenter: PartChoice | None,
    prompts: FinderPrompts,
    propagator: PartChoice,
    device: str,
    live: bool,
    settings: Mapping[str, Any],
) -> VideoSystem:
    """The system of `load`, whose arguments these are."""
    if not isinstance(system, str):
        if not isinstance(system, VideoSystem):
            raise InputError(f"system: {type(system).__name__} is no name of one, and has no `run`")
        refuse_part_settings("a system of your own", type(system).__name__, settings)
        return system
    check_choice("system", system, (*SYSTEMS.names, *QUERY_SYSTEMS))
    own, of_parts = split_settings(settings)
    if system in QUERY_SYSTEMS:
        categories = of_parts["segmenter"].pop("categories", "")
        for part, told in of_parts.items():
            refuse_part_settings(f"the {part} of a query system", system, told)
        from masklet.queries import load_query_system  # its networks are slow to import

        kind = import_object(QUERY_SYSTEMS[system].settings)
        settings = kind(**check_system_settings({**(QUERY_SYSTEMS[system].live if live else {}), **own}, kind))
        return load_query_system(
            system, segmenter, device, settings, check_setting("segmenter.", "categories", categories, str)
        )
    entry = SYSTEMS.find(system)
    kind = import_object(entry.settings or "masklet.registry:NoSettings")
    usual, usual_of_parts = split_settings({k: v for k, v in entry.usual.items() if k not in PARTS})
    checked = check_system_settings({**usual, **(entry.live if live else {}), **own}, kind)
    if segmenter is None and not prompts.kinds:
        segmenter = entry.usual.get("segmenter")
    if isinstance(segmenter, str) and parse_part_name(segmenter).base == entry.usual.get("segmenter"):
        of_parts["segmenter"] = {**usual_of_parts["segmenter"], **of_parts["segmenter"]}
    encoder = make_encoder(device)
    finder, carrier = collect_parts(
        lambda: make_segmenter(segmenter, prompts, encoder, device, of_parts["segmenter"]),
        lambda: make_propagator(propagator, encoder, device, of_parts["propagator"]),
    )
    made: VideoSystem = entry.load()(finder, carrier, kind(**{**list_advised_settings(finder, kind), **checked}))
    return made


def list_advised_settings(finder: Segmenter[Any], kind: type[Any]) -> dict[str, Any]:
    """Which of a system's settings, of this `kind`, a segmenter knows better than the paper."""
    advised: dict[str, Any] = dict(finder.advice) if isinstance(finder, AdvisingSegmenter) else {}
    if isinstance(finder, ScoringSegmenter):
        advised |= {"conf": finder.conf, "low_conf": finder.low_conf}
    return {f.name: advised[f.name] for f in fields(kind) if f.name in advised}


def split_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Settings of the system, and of its parts by "segmenter" and "propagator".

    >>> split_settings({"conf": 0.5, "segmenter.points_per_side": 16})
    ({'conf': 0.5}, {'segmenter': {'points_per_side': 16}, 'propagator': {}})
    """
    own: dict[str, Any] = {}
    of_parts: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    for name, value in settings.items():
        part, dot, key = name.partition(".")
        if dot and part not in PARTS:
            raise InputError(f"setting {name}: {part} is no part; there are: {', '.join(PARTS)}")
        (of_parts[part] if dot else own)[key if dot else name] = value
    return own, of_parts


def make_segmenter(
    given: PartChoice | None, prompts: FinderPrompts, encoder: Encoder, device: str, settings: Mapping[str, Any]
) -> Segmenter[Any]:
    """The segmenter that is `given` by name or as an object; with `prompts` one that finds what they say. `encoder` is
    shared, `device` and `settings` are those of the part. Raises InputError where it is none.
    """
    name, own = given if isinstance(given, tuple) else (given, {})
    settings = {**own, **settings}
    if name is not None and not isinstance(name, str):
        refuse_part_settings("a segmenter of your own", type(name).__name__, settings)
        if prompts.kinds:
            raise InputError("text is for a text detector by name; your own segmenter knows what it finds")
        return adopt_segmenter(name, encoder.device)
    name = SHOWABLE if name is None and prompts.exemplars else name
    if not prompts.kinds or is_promptable(name or "", *prompts.kinds):
        return load_segmenter(name or "auto", encoder, device, settings, prompts.text, prompts.exemplars)
    if prompts.exemplars:
        raise InputError(f"segmenter {name}: cannot be shown what to find; take {SHOWABLE}")
    refuse_part_settings("a text detector", name or "text", settings)
    return load_text_segmenter(name or "grounding-dino-tiny", prompts.text, device)


def adopt_segmenter(given: Any, device: torch.device) -> Segmenter[Any]:
    """An object or a function as a segmenter; boxes that a function gives become masks on `device`. Raises InputError
    where it is neither.
    """
    if isinstance(given, type):
        raise InputError(f"segmenter: {given.__name__} is a class; give an object of it, {given.__name__}(...)")
    if isinstance(given, Segmenter):
        check_part_facts("segmenter", given)
        return given
    if callable(given):
        return FunctionSegmenter(given, device=device)
    lacks = [name for name in ("categories", "look_ahead", "empty", "segment") if not hasattr(given, name)]
    raise InputError(f"segmenter: {type(given).__name__} lacks {', '.join(lacks)}, and is no function either")


def make_propagator(
    given: PartChoice, encoder: Encoder, device: str, settings: Mapping[str, Any]
) -> Propagator[Any, Any]:
    """The propagator that is `given` by name or as an object; `encoder`, `device` and `settings` as in
    `make_segmenter`. Raises InputError where it is none.
    """
    name, own = given if isinstance(given, tuple) else (given, {})
    if isinstance(name, str):
        return load_propagator(name, encoder, device, {**own, **settings})
    refuse_part_settings("a propagator of your own", type(name).__name__, settings)
    if isinstance(name, type) or not isinstance(name, Propagator):
        wanted = ("encode", "empty", "predict", "commit", "prompt", "forget", "branch")
        lacks = [method for method in wanted if not hasattr(name, method)]
        told = f"lacks {', '.join(lacks)}" if lacks else "is a class; give an object of it"
        raise InputError(f"propagator: {getattr(name, '__name__', type(name).__name__)} {told}")
    check_part_facts("propagator", name)
    return name


@overload
def segment(source: list[Any] | tuple[Any, ...], **options: Any) -> Iterator[VideoResult]: ...


@overload
def segment(
    source: Any,
    *,
    system: PartChoice = "sam2bmp",
    segmenter: PartChoice | None = None,
    text: str = "",
    exemplars: Sequence[Exemplar] = (),
    propagator: PartChoice | None = None,
    device: str = "auto",
    watch: Watch = discard_progress,
    progress: bool = False,
    rate: float | None = None,
    name: str = "",
    **settings: Any,
) -> VideoResult: ...


def segment(
    source: Any,
    *,
    system: PartChoice = "sam2bmp",
    segmenter: PartChoice | None = None,
    text: str = "",
    exemplars: Sequence[Exemplar] = (),
    propagator: PartChoice | None = None,
    device: str = "auto",
    watch: Watch = discard_progress,
    progress: bool = False,
    rate: float | None = None,
    name: str = "",
    **settings: Any,
) -> VideoResult | Iterator[VideoResult]:
    """Finds, segments and tracks every object of a video.

    Args:
        source: a video file, a folder or glob of frames, an array uint8 [t h w 3] or an iterable of RGB
            frames, uint8 [h w 3]; or a list of paths.
        system, segmenter, text, exemplars, propagator, device, settings: as in `load`.
        watch: called after every frame with the phase, frames done, frames in all, objects.
        progress: whether bars are shown, on standard error or in the notebook.
        rate: frames a second, of frames in memory.
        name: of the result, in place of the source's.

    Returns:
        The `VideoResult` with its masklets: one mask per object and frame, at the video's size. Of a list of paths an
        iterator of results, each made when it is asked for.

    Raises:
        InputError: the source cannot be read, or a name or setting does not exist.
    """
    prompts: dict[str, Any] = {"text": text, "exemplars": exemplars}
    model = load(system, segmenter=segmenter, propagator=propagator, device=device, **prompts, **settings)
    found: VideoResult | Iterator[VideoResult] = model.segment(
        source, watch=watch, progress=progress, rate=rate, name=name
    )
    return found


def track(
    source: Any,
    prompts: Mapping[int, Mapping[int, Any]],
    *,
    propagator: PartChoice = "nano",
    device: str = "auto",
    watch: Watch = discard_progress,
    progress: bool = False,
    rate: float | None = None,
    name: str = "",
    **settings: Any,
) -> VideoResult:
    """Propagates given objects both ways from the frames in which they are given.

    Args:
        source, watch, progress, rate, name: as in `segment`.
        prompts: {frame: {id: prompt}}, frames counted from 0, ids from 1; a prompt is a mask (bool [h w], array or
            tensor), a `Box` or a `Point` in pixels, or `Clicks` of several of them. A later prompt of the same id
            corrects it from there on (docs/prompts.md).
        propagator, device: as in `load`.
        settings: of the propagator, such as **{"propagator.paths": 2}.

    Returns:
        One masklet per id, under that id.

    Raises:
        InputError: the source cannot be read, or a prompt does not fit the video.
    """
    own, of_parts = split_settings(settings)
    refuse_part_settings("track", "it", {**own, **{f"segmenter.{k}": v for k, v in of_parts["segmenter"].items()}})
    carrier = make_propagator(propagator, make_encoder(device), device, of_parts["propagator"])
    return process_source(
        source,
        lambda video: Track(carrier, check_prompts(prompts, video), load_bystanders(carrier)),
        device=device,
        watch=watch,
        progress=progress,
        rate=rate,
        name=name,
    )


def stream(
    frames: Iterable[Any],
    *,
    system: PartChoice = "sam2bmp",
    segmenter: PartChoice | None = None,
    text: str = "",
    propagator: PartChoice | None = None,
    device: str = "auto",
    **settings: Any,
) -> Iterator[FrameMasks]:
    """Masks while the frames arrive, live, in bounded memory: SAM2BMP's forward phase, or DEVA.

    Args:
        frames: RGB frames, uint8 [h w 3], all of one size; they are read one by one, as they are needed.
        system, segmenter, text, propagator, device, settings: as in `load`. Unless set otherwise, at most 32 objects
            are followed, and SAM2BMP forgets one that has not been seen for 300 frames.

    Yields:
        The masks of each frame, one frame late where the segmenter looks ahead ("motion" does), and with DEVA at most
        `clip` - 1 frames late.

    Raises:
        InputError: a frame is not an RGB image or differs in size from the first.
    """
    check_live_frames(frames)
    model = load(system, segmenter=segmenter, text=text, propagator=propagator, device=device, live=True, **settings)
    return model.stream(frames)


def open(
    source: Any,
    *,
    propagator: PartChoice = "nano",
    result: VideoResult | str | Path | None = None,
    session: str | Path | None = None,
    device: str = "auto",
    rate: float | None = None,
    name: str = "",
    **settings: Any,
) -> Session:
    """A session over a video: objects are prompted and corrected frame by frame, and what is corrected is propagated.

    Args:
        source: as in `segment`.
        propagator, device: as in `load`.
        result: to go on from, of this video, or the path of its masklets.json; None: no object is known.
        session: a folder that `Session.save` has written, to go on from in place of a result.
        rate, name: as in `segment`, of a result that is begun.
        settings: of the propagator, such as **{"propagator.paths": 2}.

    Returns:
        The `Session`, which is to be closed: it is a context manager.

    Raises:
        InputError: the source or the result cannot be read, or the result is not one of the video.
    """
    own, of_parts = split_settings(settings)
    refuse_part_settings("open", "it", {**own, **{f"segmenter.{k}": v for k, v in of_parts["segmenter"].items()}})
    carrier = make_propagator(propagator, make_encoder(device), device, of_parts["propagator"])
    return open_session(source, carrier, result, session, rate, name)


def open_session(
    source: Any,
    carrier: Propagator[Any, Any],
    given: VideoResult | str | Path | None,
    saved: str | Path | None,
    rate: float | None,
    name: str,
) -> Session:
    """The session of `open`, whose arguments these are, with its propagator made."""
    from masklet.io.video.packet_index import learn_frames  # and FFmpeg, of which images need nothing
    from masklet.session.saved_session import load_history  # and scipy, of which tracking needs nothing
    from masklet.session.session import Session

    check_told(rate, name)
    if ((given is not None or saved is not None) and (rate or name)) or (given is not None and saved is not None):
        raise InputError("open: give a result or a saved session; it has its own name and rate")
    result = VideoResult.open(given) if isinstance(given, str | Path) else given
    history = None if saved is None else load_history(Path(saved))
    with ExitStack() as held:
        known = result if history is None else history.state.result
        video = held.enter_context(open_source(source, result=known))
        learn_frames(video)
        if result is None and history is None:
            begun = begin_result(source, video, __version__, name)
            result = replace(begun, rate=rate or begun.rate, times=() if rate else begun.times)
        session = Session(video, carrier, history or result, lambda: release.close(), load_bystanders(carrier))
        release = held.pop_all()
    return session


def check_told(rate: float | None, name: str) -> None:
    """Raises InputError where a result cannot have this `rate` or `name`; None and "" are those of its source."""
    check_relative_path("name", name or "unnamed")
    if rate is not None:
        check_frame_rate("rate", rate)


def check_live_frames(frames: Any) -> None:
    """Raises InputError where `frames` are not frames one by one."""
    if isinstance(frames, str | bytes | Path) or not isinstance(frames, Iterable):
        raise InputError(f"stream: {frames!r} are no frames; give RGB images one by one, or a file to `segment`")


def is_list_of_sources(source: Any) -> bool:
    """Whether a source is a list of paths, and not one of frames, nor a tuple of image files, which are one video.

    >>> is_list_of_sources(["a.mp4", "b.mp4"]), is_list_of_sources("a.mp4")
    (True, False)
    """
    paths = isinstance(source, list | tuple) and bool(source) and all(isinstance(s, str | Path) for s in source)
    return paths and not (isinstance(source, tuple) and is_list_of_images(source))


def process_source(
    source: Any,
    make: Callable[[Video], VideoSystem],
    *,
    device: str = "cpu",
    watch: Watch = discard_progress,
    progress: bool = False,
    rate: float | None = None,
    name: str = "",
) -> VideoResult:
    """Opens a `source`, whose frames the `device` decodes where it can, runs on it the system that `make` gives for it,
    and names what was used; the other arguments as in `segment`.
    """
    check_told(rate, name)
    with open_source(source, device) as video, follow_progress(name or video.name, watch, progress) as told:
        check_before_reading(video)
        result = run_system(make(video), video, source, told)
    times = () if rate else result.times
    return replace(result, name=name or result.name, rate=rate or result.rate, times=times)


def follow_progress(name: str, watch: Watch, progress: bool) -> AbstractContextManager[Watch]:
    """Bars under a `name` where `progress` asks for them, on standard error or in the notebook, else `watch` alone."""
    if progress and is_in_notebook():
        return show_notebook_bars(name)
    figures = "{task.fields[rate]:.1f} frames/s, {task.fields[objects]} objects,"
    return show_progress_bars(Console(stderr=True), name, figures) if progress else nullcontext(watch)


def run_system(
    system: Any,
    video: Video,
    source: Any,
    watch: Watch = discard_progress,
    checkpoints: Checkpoints | None = None,
) -> VideoResult:
    """Runs a `system` on a `video`, telling `watch`, from the last of the `checkpoints` on where it can go on from one,
    and notes in the result what it was made from (`source`) and with.
    """
    system = bind_parts(system, video)
    if checkpoints is not None and isinstance(system, ResumableSystem):
        result = system.run_with_checkpoints(video, watch, checkpoints)
    else:
        result = system.run(video, watch)
    parts = {k: getattr(system, k, None) for k in ("segmenter", "propagator", "bystanders")}
    # Those of `Detected` and of `BystanderFinder` are within.
    parts = {k: getattr(part, "segmenter", part) for k, part in parts.items() if part is not None}
    provenance = replace(
        result.provenance,
        settings={
            **{k: describe_part(p) for k, p in parts.items()},
            **describe_devices(parts),
            **describe_reading(video),
            **result.provenance.settings,
        },
        weights={
            **result.provenance.weights,  # of a result that was gone on with
            **{name: sha for p in parts.values() for name, sha in collect_part_weights(p).items()},
        },
        version=__version__,
        source=record_source(source, video),
        notes=(*result.provenance.notes, *(note for p in parts.values() for note in list_part_notes(p))),
    )
    return replace(result, provenance=provenance)


def share_detections(system: Any, count: int) -> Any:
    """The `system` for `count` videos: where its detections, made elsewhere, do not say which video they are of, they
    are taken for those of each, and every result says so.
    """
    finder = getattr(system, "segmenter", None)
    if count < 2 or not isinstance(finder, Precomputed) or finder.given.names_videos:
        return system
    return replace(system, segmenter=finder.share(count))


def bind_parts(part: Any, video: Video) -> Any:
    """A system, or a part of one, in which what must know the `video` that it is asked about knows it."""
    if isinstance(part, VideoBound):
        return part.bind_video(video)
    within = {name: getattr(part, name, None) for name in PARTS}
    bound = {name: bind_parts(held, video) for name, held in within.items() if held is not None}
    changed = {name: held for name, held in bound.items() if held is not within[name]}
    return replace(part, **changed) if changed else part


def describe_devices(parts: Mapping[str, Any]) -> dict[str, str]:
    """Where the parts of a system computed, under "device"; nothing for a system that has none."""
    used = dict.fromkeys(describe_device(find_device(part)) for part in parts.values())
    return {"device": ", ".join(used)} if used else {}


def open_source(source: Any, device: str = "cpu", result: VideoResult | None = None) -> AbstractContextManager[Video]:
    """A video of whatever holds frames, decoded by the `device` where that can, and for the frames of a `result` where
    there is one; one that is a `Video` already stays as it is, and open afterwards.
    """
    if isinstance(source, Video):
        return nullcontext(source)
    decoder = str(resolve_device(device))
    if result is None:
        return open_video(source, device=decoder)
    return reopen_video(result, source, {"device": decoder})


def check_system_settings(settings: Mapping[str, Any], of: type[Any]) -> dict[str, Any]:
    """`settings` that exist in a system's own class `of` them, with values of their kind."""
    kinds = get_type_hints(of)
    for name in settings:
        check_choice("setting", name, tuple(kinds))
    usual = {name: getattr(of, name, None) for name in settings}
    return {name: check_setting("", name, value, kinds[name], usual[name]) for name, value in settings.items()}
