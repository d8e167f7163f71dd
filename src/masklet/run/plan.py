"""What a run does: its options, which travel to workers and other machines, and the jobs that they make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

from masklet.api import check_prompts, load, make_propagator, share_detections, split_settings
from masklet.builtins import QUERY_SYSTEMS, has_own_segmenter
from masklet.core.annotations import VideoFrames
from masklet.core.budget import MemoryBudget
from masklet.core.errors import InputError
from masklet.core.frames import Video
from masklet.core.instances import Exemplar
from masklet.io.output_folder import OutputFolder
from masklet.io.prompts import PromptFile, compute_prompt_hash, read_dataset_prompts
from masklet.io.video.datasets import DatasetVideo
from masklet.io.video.frame_source import FrameSource
from masklet.io.video.source_names import Source
from masklet.io.video.sources import open_video
from masklet.parts import load_bystanders, make_encoder, refuse_detections, resolve_device
from masklet.presets import GOOD, choose_run_parts, choose_track_parts
from masklet.run.batch import Job
from masklet.run.recipe import identify_files
from masklet.run.video_list import VideoEntry
from masklet.systems.track import Track
from masklet.systems.vos import Join, VosTrack, exclude_by_logits, keep_apart


@dataclass(frozen=True)
class RunOptions:
    """What `masklet run` was asked for: everything that decides its results.

    Attributes:
        out: the output folder.
        videos: each with a name.
        system, segmenter, text, exemplars, propagator, device, settings: as in `api.load`; None is the preset's.
        preset: fast, good or best.
        formats: to write besides masklets.json.
        overlay: whether to write overlay.mp4.
        overwrite: whether results that are there are replaced.
        reading: what of the sources is used, as `open_video` takes it.
        checkpoint: frames from one checkpoint of a video to the next; 0: none are written.
        memory: that each process may hold; None: a share of what is free where it runs.
    """

    out: Path
    videos: Sequence[VideoEntry]
    system: str = "sam2bmp"
    segmenter: str | None = None
    text: str = ""
    exemplars: Sequence[Exemplar] = ()
    propagator: str | None = None
    preset: str = GOOD
    device: str = "auto"
    settings: Mapping[str, Any] = field(default_factory=dict)
    formats: Sequence[str] = ()
    overlay: bool = True
    overwrite: bool = False
    reading: Mapping[str, Any] = field(default_factory=dict)
    checkpoint: int = 0
    memory: MemoryBudget | None = None


class RunParts:
    """The parts of a run, each loaded when it is first needed, and then shared by all videos."""

    def __init__(self, options: RunOptions) -> None:
        """Of a run with these `options`. Raises InputError where there is no such preset."""
        self.options, self.names = options, choose_run_parts(options.preset)

    @cached_property
    def system(self) -> Any:
        """What finds, segments and tracks in the videos for which nothing is given."""
        given = self.options
        usual = self.names.choose_segmenter(given.text, given.exemplars)
        made = load(
            given.system,
            segmenter=given.segmenter or (None if has_own_segmenter(given.system) else usual),
            text=given.text,
            exemplars=given.exemplars,
            propagator=given.propagator or self.names.propagator,
            device=given.device,
            **given.settings,
        ).system
        return share_detections(made, sum(is_plain(video) for video in given.videos))

    @cached_property
    def carrier(self) -> Any:
        """The propagator of what was found elsewhere."""
        if any(map(is_plain, self.options.videos)):
            return self.system.propagator
        return self._load_propagator(self.names.propagator)

    @cached_property
    def tracker(self) -> Any:
        """The propagator of what prompts give."""
        return self._load_propagator(choose_track_parts(self.options.preset).propagator)

    def _load_propagator(self, usual: str) -> Any:
        given, settings = self.options, split_settings(self.options.settings)[1]["propagator"]
        return make_propagator(given.propagator or usual, make_encoder(given.device), given.device, settings)

    def load_detected(self, path: str) -> Any:
        """The system over the detections at `path`."""
        given = self.options
        settings = {key: value for key, value in given.settings.items() if not key.startswith("propagator.")}
        made = load(given.system, segmenter=path, propagator=self.carrier, device=given.device, **settings)
        return made.system

    def check(self) -> RunParts:
        """These parts, if those that are needed can be had. Raises InputError where they cannot."""
        videos = self.options.videos
        if any(map(is_plain, videos)):
            _ = self.system
        if any(video.prompts or video.given for video in videos):
            _ = self.tracker
        detected = next((video.detections for video in videos if video.detections), "")
        if detected and self.options.system in QUERY_SYSTEMS:
            refuse_detections(detected, self.options.system)
        if detected:
            self.load_detected(detected)
        return self


def plan_jobs(options: RunOptions, parts: RunParts | None = None) -> list[Job]:
    """A job for each video; `parts` that several need are loaded once. Raises InputError where the options cannot be
    used, before any video is opened.
    """
    given = [options.segmenter or "", *(video.detections for video in options.videos)]
    folders = plan_output_folders(options.videos, options.out, options.overwrite, list(filter(None, given)))
    parts = parts or RunParts(options).check()
    return [plan_job(parts, video, folder) for video, folder in zip(options.videos, folders, strict=True)]


def is_plain(video: VideoEntry) -> bool:
    """Whether nothing is given of a video but its source."""
    return video.prompts is None and not video.detections and video.given is None


def plan_job(parts: RunParts, video: VideoEntry, folder: OutputFolder) -> Job:
    """The job of one video."""
    options, reading = parts.options, {**parts.options.reading, **video.reading}
    more: dict[str, Any] = {"reading": reading}
    make: Callable[[Video], Any]
    plan: Callable[[], Any]
    own = video.name if video.title in ("", video.name) else ""  # a data set's title is no name of its frames
    opened = partial(open_named_video, own, **reading, device=str(resolve_device(options.device)))
    if video.prompts is not None:
        more["prompts"] = compute_prompt_hash(video.prompts.prompts)
        make, plan = partial(make_track, parts, video.prompts), lambda: Track(parts.tracker, {})
    elif video.given is not None:
        more |= {"prompts": identify_files([path for path, _ in video.given.given]), "overlaps": video.given.overlaps}
        make, plan = partial(make_vos_track, parts, video.given), lambda: VosTrack(parts.tracker, {})
    elif video.detections:
        plan = lru_cache(maxsize=1)(partial(parts.load_detected, video.detections))
        make = partial(ignore_video, plan)
    else:
        make, plan = partial(ignore_video, lambda: parts.system), lambda: parts.system
    return Job(
        video.source,
        folder,
        opened,
        make,
        plan,
        more,
        options.formats,
        options.overlay,
        options.checkpoint,
        video.title,
        options.memory,
        len(options.videos) == 1,
    )


def open_named_video(name: str, source: Source, **reading: Any) -> FrameSource:
    """The video at `source`, as `open_video` reads it, under the `name` that it has in the run, if that gives it one:
    of two sources that are called alike, detections and results mean one.
    """
    opened = open_video(source, **reading)
    opened.name = name or opened.name
    return opened


def ignore_video(make: Callable[[], Any], video: Video) -> Any:
    """What `make` makes for any `video`."""
    return make()


def make_track(parts: RunParts, prompts: PromptFile, video: Video) -> Track[Any, Any]:
    """The system made of `parts` that tracks what `prompts` give in a `video`."""
    told = check_prompts(prompts.select(VideoFrames.of(video)), video)
    return Track(parts.tracker, told, load_bystanders(parts.tracker))


def make_vos_track(parts: RunParts, given: DatasetVideo, video: Video) -> VosTrack[Any, Any]:
    """The system made of `parts` that tracks what a data set has `given` in a `video`, as the programs of benchmarks
    do.
    """
    told = check_prompts(read_dataset_prompts(given).select(VideoFrames.of(video)), video)
    return VosTrack(parts.tracker, told, choose_join(given))


def choose_join(given: DatasetVideo) -> Join:
    """How a data set has the masks of a frame: each by itself, or no two over one pixel."""
    return keep_apart if given.overlaps else exclude_by_logits


def plan_output_folders(
    videos: Sequence[VideoEntry], out: Path, overwrite: bool, inputs: Sequence[str]
) -> list[OutputFolder]:
    """The output folder of each of the `videos`, of which some may be there with `overwrite`; refuses, before any work
    is done, those that a source or another of the `inputs` lies in: they would be replaced with it.
    """
    sources = [video.source for video in videos]
    files = [path for source in sources for path in ([source] if isinstance(source, str) else source[:1])]
    given = [Path(p).resolve() for p in (*files, *inputs) if p != "-"]
    needed = {folder for p in given for folder in (p, *p.parents)}
    for video in videos:
        if (out / video.name).resolve() in needed:
            raise InputError(
                f"{out / video.name}: the results would replace what they are made from; choose another folder"
            )
    return [OutputFolder(out, video.name, overwrite) for video in videos]


def hint_at_parts(options: RunOptions) -> str:
    """What the last line of a run says of better parts; nothing where the user chose them."""
    prompts = options.text or options.exemplars
    named = options.segmenter or options.propagator or prompts or has_own_segmenter(options.system)
    return "" if named else choose_run_parts(options.preset).hint
