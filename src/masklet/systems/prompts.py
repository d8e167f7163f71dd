"""What a user says of objects, looked at before anything is made of it: prompts that fit their video."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from numbers import Integral, Real
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.frames import Video, get_recorded_size
from masklet.core.instances import Box, Clicks, Point, Prompt
from masklet.core.masks import reduce_mask
from masklet.core.rle import Rle
from masklet.systems.track import Prompts, describe_frame_range


def check_prompts(prompts: Mapping[int, Mapping[int, Any]], video: Video) -> Prompts:
    """Prompts that fit the video, masks as tensors, in the order of frames and ids: the one in which they are written
    decides nothing.
    """
    if not isinstance(prompts, Mapping):
        raise InputError(f"prompts: {type(prompts).__name__} names no frame; give {{frame: {{id: prompt}}}}")
    for frame, told in prompts.items():
        if not isinstance(frame, Integral) or frame < 0:
            raise InputError(f"prompt in frame {frame!r}: frames are whole numbers, counted from 0")
        if not isinstance(told, Mapping):
            raise InputError(f"prompt in frame {frame}: {type(told).__name__} names no object; give {{id: prompt}}")
        if 0 in told:
            raise InputError(f"prompt for object 0 in frame {frame}: ids count from 1")
    if not any(prompts.values()):
        raise InputError("no prompt; give at least one object: a frame, an id and a mask, box or point")
    late = sorted(int(t) for t, told in prompts.items() if told and 0 < len(video) <= int(t))
    if late:
        raise InputError(f"{video.name}: prompt in frame {late[0]}, but {describe_frame_range(video)}")
    checked = {int(t): {i: check_prompt(t, i, p, video) for i, p in told.items()} for t, told in prompts.items()}
    checked = {t: {int(i): prompt for i, prompt in told.items()} for t, told in checked.items()}
    check_first_prompts(checked)
    return {t: dict(sorted(told.items(), key=itemgetter(0))) for t, told in sorted(checked.items())}


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
    if not isinstance(id, Integral) or id < 0:  # results of other programs may have an object 0
        raise InputError(f"{where}: ids are whole numbers; ids count from 1")
    if isinstance(prompt, Clicks):
        return check_prompt_clicks(frame, id, prompt, video)
    if isinstance(prompt, Box | Point) and not all(isinstance(n, Real) for n in astuple(prompt)):
        raise InputError(f"{where}: {prompt} is no prompt; give its places as numbers, in pixels")
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
    """A mask of the video's size that is not empty; one of the size that frames had before they were reduced is reduced
    as they are.
    """
    (h, w), recorded = video.size, get_recorded_size(video)
    given = read_mask(where, prompt)
    if tuple(given.shape) not in ((h, w), recorded):
        size = "x".join(str(n) for n in reversed(given.shape))
        was = "" if recorded == (h, w) else f", reduced from {recorded[1]}x{recorded[0]}"
        raise InputError(f"{where}: the mask is {size}, the video {w}x{h}{was}; make the mask from the video's frame")
    mask = given if given.shape == (h, w) else reduce_mask(given, (h, w))
    if not mask.any():
        lost = f" once it is reduced to {w}x{h}" if given.any() else ""
        raise InputError(f"{where}: the mask is empty{lost}; mark at least one pixel")
    return mask


def read_mask(where: str, given: Any) -> Bool[Tensor, "h w"]:
    """The mask that an array, a tensor or RLE says. Raises InputError that begins with `where` where it is none: the
    values of a label image are of several objects, and probabilities of none for sure.
    """
    if isinstance(given, Rle):
        return given.decode()
    try:
        mask = given.cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    except ValueError:  # rows of several lengths
        mask = np.array(None)
    if mask.ndim != 2 or mask.dtype.kind not in "biuf":
        raise InputError(f"{where}: {type(given).__name__} is no prompt; give a mask [h, w], a Box, a Point or Clicks")
    marked = mask.astype(bool)
    values = mask[marked]
    if values.dtype != bool and len(values) and values.min() != values.max():
        told = f"values from {values.min():g} to {values.max():g} beside 0"
        raise InputError(f"{where}: the mask has {told}; give one that is true on the object, such as labels == 2")
    return torch.from_numpy(marked)


def check_prompt_clicks(frame: int, id: int, clicks: Clicks, video: Video) -> Prompt:
    """The points, box and mask of `clicks` on object `id` in a `frame`, which lie within the `video`; a mask alone is
    the mask itself, which is believed as it is. Raises InputError where there is none of them, or one lies outside.
    """
    where = f"prompt for object {id} in frame {frame}"
    if not isinstance(clicks.points, Sequence):
        raise InputError(f"{where}: {clicks.points} is no list of points; give Clicks((Point(x, y), ...))")
    if not (clicks.points or clicks.box or clicks.mask is not None):
        raise InputError(f"{where}: no point, box or mask in it; give one")
    if clicks.box and clicks.mask is not None:
        raise InputError(f"{where}: a box and a mask both say where the object is; give one of them, and points")
    for point in clicks.points:
        check_prompt(frame, id, point, video)
    box = clicks.box and check_prompt(frame, id, clicks.box, video)
    mask = None if clicks.mask is None else check_prompt_mask(where, clicks.mask, video)
    if mask is not None and not clicks.points:
        return mask
    return Clicks(clicks.points, box if isinstance(box, Box) else None, mask)
