"""The library's front door: a video in, masklets out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, replace
from numbers import Integral
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.frames import Video
from masklet.core.instances import Box, Clicks, FrameMasks, Point, Prompt
from masklet.core.protocols import Propagator, Segmenter, Watch
from masklet.core.result import VideoResult
from masklet.io.video import iterate_live_frames, open_video
from masklet.models.encoder import Encoder
from masklet.parts import check_choice, load_bystanders, load_propagator, load_segmenter, load_text_segmenter
from masklet.queries import QUERY_SYSTEMS, QuerySystem, load_query_system
from masklet.systems import deva, deva_offline, sam2bmp
from masklet.systems.deva import Deva
from masklet.systems.deva_offline import DetectedSketches, DevaOffline
from masklet.systems.sam2bmp import Sam2Bmp
from masklet.systems.track import Prompts, Track
from masklet.version import __version__

LARGEST = 2**53  # of a setting: what JSON keeps exactly

System = Sam2Bmp[Any, Any, Any] | Deva[Any, Any, Any] | DevaOffline[Any, Any] | QuerySystem


class SystemEntry(NamedTuple):
    """A system by name."""

    system: Callable[..., System]
    settings: type[Any]
    live: Mapping[str, Any]  # settings for a live source, which has no end: the memory must have a size


def build_deva_offline(
    finder: Segmenter[Any], carrier: Propagator[Any, Any], settings: deva_offline.DevaOfflineSettings
) -> System:
    """DEVA's offline protocol over a segmenter's best detections."""
    return DevaOffline(DetectedSketches(finder), carrier, finder.categories, settings)


SYSTEMS: Mapping[str, SystemEntry] = {
    # what is lost for ten seconds stays lost
    "sam2bmp": SystemEntry(Sam2Bmp, sam2bmp.Sam2BmpSettings, {"max_lost": 300, "max_objects": 32}),
    "deva": SystemEntry(Deva, deva.DevaSettings, {"max_objects": 32}),
    "deva-offline": SystemEntry(build_deva_offline, deva_offline.DevaOfflineSettings, {}),
}


def report_nothing(phase: str, done: int, total: int | None, objects: int) -> None:
    """A watcher that says nothing."""


def load(
    system: str = "sam2bmp",
    *,
    segmenter: str | None = None,
    text: str = "",
    propagator: str = "affinity",
    device: str = "auto",
    **settings: Any,
) -> System:
    """A system made of parts, by their names.

    Args:
        system: "sam2bmp"; "deva"; or "deva-offline", which follows one object of each of the segmenter's categories;
            "minvis", "dvis", "dvis-offline" and "rocovis", which need no propagator (see `queries.load_query_system`).
        segmenter: "auto", which is what is taken for None; "motion"; "nano"; "nano-objects"; "everything"; a text
            detector; or the path of detections made elsewhere (see `parts.load_segmenter` and `models.precomputed`).
        text: what to find, such as "dog. red car."; with it None is "grounding-dino-tiny" (see
            `parts.load_text_segmenter`).
        propagator: "affinity"; "nano"; "sam2.1-tiny" and others of `masklet weights list`; "sam2long:sam2.1-large"; see
            `parts.load_propagator`.
        device: for SAM 2: "auto", "cpu", "cuda" or "mps".
        settings: any field of the system's `Settings`, such as conf=0.8; the others keep the paper's value, or the
            one that the segmenter asks for.

    Raises:
        InputError: a name or a setting does not exist, or a value is not of its kind.
    """
    check_choice("system", system, (*SYSTEMS, *QUERY_SYSTEMS))
    if system in QUERY_SYSTEMS:
        own = QUERY_SYSTEMS[system]
        return load_query_system(system, segmenter, device, own(**check_system_settings(settings, own)))
    kind = SYSTEMS[system]
    checked = check_system_settings(settings, kind.settings)
    encoder = Encoder()
    finder: Segmenter[Any]
    if text:
        finder = load_text_segmenter(segmenter or "grounding-dino-tiny", text, device)
    else:
        finder = load_segmenter(segmenter or "auto", encoder, device)
    carrier = load_propagator(propagator, encoder, device)
    asked = {f.name: getattr(finder, f.name) for f in fields(kind.settings) if hasattr(finder, f.name)}
    return kind.system(finder, carrier, kind.settings(**{**asked, **checked}))


def segment(
    source: Any,
    *,
    system: str = "sam2bmp",
    segmenter: str | None = None,
    text: str = "",
    propagator: str = "affinity",
    device: str = "auto",
    watch: Watch = report_nothing,
    **settings: Any,
) -> VideoResult:
    """Finds, segments and tracks every object of a video.

    Args:
        source: a video file, a folder or glob of frames, an array uint8 [t h w 3] or an iterable of RGB
            frames, uint8 [h w 3].
        system, segmenter, text, propagator, device, settings: as in `load`.
        watch: called after every frame with the phase, frames done, frames in all, objects.

    Returns:
        The masklets: one mask per object and frame, at the video's size.

    Raises:
        InputError: the source cannot be read, or a name or setting does not exist.
    """
    made = load(system, segmenter=segmenter, text=text, propagator=propagator, device=device, **settings)
    with open_source(source) as video:
        return run_system(made, video, source, watch)


def track(
    source: Any,
    prompts: Mapping[int, Mapping[int, Any]],
    *,
    propagator: str = "nano",
    device: str = "auto",
    watch: Watch = report_nothing,
) -> VideoResult:
    """Propagates given objects both ways from the frames in which they are given.

    Args:
        source, watch: as in `segment`.
        prompts: {frame: {id: prompt}}, frames counted from 0, ids from 1; a prompt is a mask (bool [h w], array or
            tensor), a `Box` or a `Point` in pixels, or `Clicks` of several of them. A later prompt of the same id
            corrects it from there on (docs/prompts.md).
        propagator, device: as in `load`.

    Returns:
        One masklet per id, under that id.

    Raises:
        InputError: the source cannot be read, or a prompt does not fit the video.
    """
    carrier = load_propagator(propagator, Encoder(), device)
    with open_source(source) as video:
        return run_system(Track(carrier, check_prompts(prompts, video), load_bystanders(carrier)), video, source, watch)


def stream(
    frames: Iterable[Any],
    *,
    system: str = "sam2bmp",
    segmenter: str | None = None,
    text: str = "",
    propagator: str = "affinity",
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
        InputError: a frame is not an RGB picture or differs in size from the first.
    """
    if isinstance(frames, str | bytes | Path) or not isinstance(frames, Iterable):
        raise InputError(f"stream: {frames!r} are no frames; give RGB pictures one by one, or a file to `segment`")
    live = SYSTEMS[system].live if system in SYSTEMS else {}
    made = load(system, segmenter=segmenter, text=text, propagator=propagator, device=device, **{**live, **settings})
    if isinstance(made, DevaOffline):
        raise InputError(f"stream: {system} needs the whole video before it answers; take deva, or `segment`")
    return made.stream(iterate_live_frames(frames))


def run_system(system: System | Track[Any, Any], video: Video, source: Any, watch: Watch) -> VideoResult:
    """Runs a system, and notes in the result what it was made from and with."""
    result = system.run(video, watch)
    parts = {k: getattr(system, k, None) for k in ("segmenter", "propagator", "bystanders")}
    # Those of `Detected` and of `BystanderFinder` are within.
    parts = {k: getattr(part, "segmenter", part) for k, part in parts.items() if part is not None}
    provenance = replace(
        result.provenance,
        settings={**{k: name_used_part(p) for k, p in parts.items()}, **result.provenance.settings},
        weights={name: sha for p in parts.values() for name, sha in collect_part_weights(p).items()},
        version=__version__,
        source=str(source) if isinstance(source, str | Path) else type(source).__name__,
    )
    return replace(result, provenance=provenance)


def name_used_part(part: Any) -> str:
    """What a part is called in a result's provenance."""
    return str(getattr(part, "description", type(part).__name__.lower()))


def collect_part_weights(part: Any) -> Mapping[str, str]:
    """The sha256 of the weight files in a part, or in the encoder that it looks through."""
    found: Mapping[str, str] = getattr(part, "weights", None) or getattr(getattr(part, "encoder", None), "weights", {})
    return found


def open_source(source: Any) -> AbstractContextManager[Video]:
    """A video of whatever holds frames; one that is a `Video` already stays open afterwards."""
    return nullcontext(source) if isinstance(source, Video) else open_video(source)


def check_system_settings(settings: Mapping[str, Any], of: type[Any]) -> dict[str, Any]:
    """Settings that exist in a system's `Settings`, with values of their kind."""
    kinds = get_type_hints(of)
    for name, value in settings.items():
        kind = kinds[check_choice("setting", name, tuple(kinds))]
        if not is_setting_value(value, kind):
            raise InputError(f"setting {name} = {value!r} must be {describe_setting_kind(kind)}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}


def is_setting_value(value: Any, kind: Any) -> bool:
    """Whether a value is of a setting's kind; an int is a number too, a bool is not."""
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is UnionType:
        return any(is_setting_value(value, k) for k in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, int | float if kind is float else kind) and (value is None or 0 <= value <= LARGEST)


def describe_setting_kind(kind: Any) -> str:
    """A setting's kind as a reader would say it."""
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    if get_origin(kind) is UnionType:
        return " or ".join(describe_setting_kind(k) for k in get_args(kind))
    if get_origin(kind) is tuple:
        return 'a list of names, such as ["sky", "road"]'
    return {float: "a number from 0 on", bool: "true or false", int: "a whole number from 0 on", NoneType: "none"}[kind]


def check_prompts(prompts: Mapping[int, Mapping[int, Any]], video: Video) -> Prompts:
    """Prompts that fit the video, masks as tensors."""
    for frame, told in prompts.items():
        if not isinstance(frame, Integral) or frame < 0:
            raise InputError(f"prompt in frame {frame!r}: frames are whole numbers, counted from 0")
        if not isinstance(told, Mapping):
            raise InputError(f"prompt in frame {frame}: {type(told).__name__} names no object; give {{id: prompt}}")
    if not any(prompts.values()):
        raise InputError("no prompt; give at least one object: a frame, an id and a mask, box or point")
    checked = {int(t): {i: check_prompt(t, i, p, video) for i, p in told.items()} for t, told in prompts.items()}
    check_first_prompts(checked)
    return checked


def check_first_prompts(prompts: Prompts) -> None:
    """Points outside say where an object is not: they correct what is there, and mark nothing by themselves.

    Raises InputError where an object's first prompt is nothing else.
    """
    known: set[int] = set()
    for frame, told in sorted(prompts.items()):
        for id, prompt in told.items():
            if id not in known and not Clicks.of(prompt).is_marking:
                raise InputError(
                    f"prompt for object {id} in frame {frame}: its first prompt has points outside alone, which mark "
                    "nothing; give a point on the object, a box or a mask there or in an earlier frame"
                )
        known |= told.keys()


def check_prompt(frame: int, id: int, prompt: Any, video: Video) -> Prompt:
    """One prompt, of the video's size and not empty."""
    where, (h, w) = f"prompt for object {id} in frame {frame}", video.size
    if not isinstance(id, Integral) or id < 1:
        raise InputError(f"{where}: ids are whole numbers; ids count from 1")
    if isinstance(prompt, Clicks):
        return check_prompt_clicks(frame, id, prompt, video)
    if isinstance(prompt, Box):
        inside = Box(max(prompt.x0, 0), max(prompt.y0, 0), min(prompt.x1, w), min(prompt.y1, h))
        if not (inside.x0 < inside.x1 and inside.y0 < inside.y1):
            raise InputError(f"{where}: {prompt} needs x0 < x1, y0 < y1 and a part within the {w}x{h} video")
        return inside
    if isinstance(prompt, Point):
        if not (0 <= prompt.x < w and 0 <= prompt.y < h):
            raise InputError(f"{where}: {prompt} lies outside the {w}x{h} video")
        return prompt
    return check_prompt_mask(where, prompt, video)


def check_prompt_mask(where: str, prompt: Any, video: Video) -> Bool[Tensor, "h w"]:
    """A mask of the video's size that is not empty."""
    h, w = video.size
    mask = prompt.bool() if isinstance(prompt, Tensor) else torch.from_numpy(np.asarray(prompt).astype(bool))
    if mask.ndim != 2:
        raise InputError(f"{where}: {type(prompt).__name__} is no prompt; give a mask [h, w], a Box, a Point or Clicks")
    if tuple(mask.shape) != (h, w):
        size = "x".join(str(n) for n in reversed(mask.shape))
        raise InputError(f"{where}: the mask is {size}, the video {w}x{h}; make the mask from the video's frame")
    if not mask.any():
        raise InputError(f"{where}: the mask is empty; mark at least one pixel")
    return mask


def check_prompt_clicks(frame: int, id: int, clicks: Clicks, video: Video) -> Clicks:
    """Points, a box and a mask that lie within the video, at least one of them."""
    where = f"prompt for object {id} in frame {frame}"
    if not (clicks.points or clicks.box or clicks.mask is not None):
        raise InputError(f"{where}: no point, box or mask in it; give one")
    if clicks.box and clicks.mask is not None:
        raise InputError(f"{where}: a box and a mask both say where the object is; give one of them, and points")
    for point in clicks.points:
        check_prompt(frame, id, point, video)
    box = clicks.box and check_prompt(frame, id, clicks.box, video)
    mask = None if clicks.mask is None else check_prompt_mask(where, clicks.mask, video)
    return Clicks(clicks.points, box if isinstance(box, Box) else None, mask)
