"""Prompts as they are written on the command line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from masklet.core.annotations import FrameMatcher, FramePlace, VideoFrames
from masklet.core.choices import check_choice
from masklet.core.errors import InputError
from masklet.core.instances import Box, Clicks, Exemplar, Point, Prompt
from masklet.core.limits import is_finite_number, parse_whole_number, quote_value
from masklet.core.wording import name_argument
from masklet.io.annotations.label_image import IDS, VOID, read_label_image
from masklet.io.formats.json_entry import JsonEntry, read_json_file
from masklet.io.video.datasets import DatasetVideo

KEYS = ("frame", "file", "id", "box", "points", "outside", "mask", "labels")  # of a prompt in a file
FORM = (
    "write it as FRAME:ID:mask.png, FRAME:ID:box=x0,y0,x1,y1, FRAME:ID:point=x,y, FRAME:ID:outside=x,y or "
    "FRAME:labels.png"
)
EXEMPLAR_FORM = "write it as FRAME:NAME:box=x0,y0,x1,y1 or FRAME:NAME:mask.png"
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif")


def read_prompts(texts: Sequence[str]) -> dict[int, dict[int, Prompt]]:
    """{frame: {id: prompt}} of FRAME:ID:WHAT texts. Raises InputError naming the text that is malformed."""
    prompts: dict[int, dict[int, Prompt]] = {}
    for text in texts:
        frame, told = read_prompt(text)
        add_prompts(name_argument("prompt", text), prompts, frame, told)
    return prompts


def add_prompts(label: str, prompts: dict[int, dict[int, Prompt]], frame: int, told: Mapping[int, Prompt]) -> None:
    """Adds to `prompts` what is `told` of objects in a `frame`, to what was told of them there before. Raises
    InputError, which begins with `label`, where both say where the whole object is.
    """
    for id, prompt in told.items():
        earlier = prompts.setdefault(frame, {}).get(id)
        prompts[frame][id] = prompt if earlier is None else join_prompts(label, earlier, prompt)


def join_prompts(label: str, earlier: Prompt, more: Prompt) -> Clicks:
    """Joins two prompts of one object in one frame, `earlier` and `more`: the points correct the mask.

    Raises InputError where both say where the whole object is, each with a box or a mask; the message begins with
    `label`, which says where the later one is written.
    """
    parts = Clicks.of(earlier), Clicks.of(more)
    whole = [kind for part in parts for kind in ("box", "mask") if getattr(part, kind) is not None]
    if len(whole) > 1:
        raise InputError(f"{label}: the object has a {whole[0]} in this frame already; give one of them, and points")
    boxes, masks = [p.box for p in parts if p.box], [p.mask for p in parts if p.mask is not None]
    return Clicks(parts[0].points + parts[1].points, boxes[0] if boxes else None, masks[0] if masks else None)


def read_prompt(text: str) -> tuple[int, dict[int, Prompt]]:
    """The frame and the prompts by object id of FRAME:ID:WHAT, or of FRAME:labels.png, which has an object for each of
    its values. Raises InputError where malformed, or the mask is of no use.

    >>> read_prompt("0:1:point=20,30")
    (0, {1: Point(x=20.0, y=30.0, inside=True)})
    """
    frame, _, rest = text.partition(":")
    id, _, what = rest.partition(":")
    t, number = parse_whole_number(frame.strip()), parse_whole_number(id.strip())
    if t is None or not rest:
        raise InputError(f"{name_argument('prompt', text)}: {FORM}")
    if number is None or not what:
        if Path(rest).suffix.lower() not in IMAGES:
            raise InputError(f"{name_argument('prompt', text)}: {FORM}")
        with _name_place(name_argument("prompt")):
            return t, read_label_prompts(Path(rest))
    return t, {number: _read_one_prompt(text, number, what)}


def _read_one_prompt(text: str, id: int, what: str) -> Prompt:
    if what.startswith("box="):
        return Box(*_parse_prompt_numbers(text, what, 4))
    if what.startswith(("point=", "outside=")):
        x, y = _parse_prompt_numbers(text, what, 2)
        return Point(x, y, inside=what.startswith("point="))
    with _name_place(name_argument("prompt")):
        return read_prompt_mask(Path(what), id)


def _parse_prompt_numbers(text: str, what: str, n: int) -> list[float]:
    values = parse_numbers(what.partition("=")[2])
    if len(values) != n:
        raise InputError(f"{name_argument('prompt', text)}: {n} numbers are needed after '='; {FORM}")
    return values


def read_prompt_mask(path: Path, id: int) -> Bool[Tensor, "h w"]:
    """The mask of object `id` in an image, by the rule of all label images. Raises InputError where it has none."""
    return torch.from_numpy(read_label_image(path).select(id))


def read_label_prompts(path: Path) -> dict[int, Prompt]:
    """A mask for every object of a label image, by its value; a mask alone is object 1."""
    image = read_label_image(path)
    ids = image.ids or (1,)
    return {(1 if image.is_mask else id): torch.from_numpy(image.select(id)) for id in ids}


def read_exemplars(texts: Sequence[str]) -> tuple[Exemplar, ...]:
    """What FRAME:NAME:box=x0,y0,x1,y1 and FRAME:NAME:mask.png texts show. Raises InputError naming the text that is
    malformed.

    >>> read_exemplars(["3:dog:box=10,20,60,80"])
    (Exemplar(frame=3, name='dog', shape=Box(x0=10.0, y0=20.0, x1=60.0, y1=80.0)),)
    """
    return tuple(map(_read_exemplar, texts))


def _read_exemplar(text: str) -> Exemplar:
    frame, _, rest = text.partition(":")
    name, _, what = rest.partition(":")
    t, label = parse_whole_number(frame.strip()), " ".join(name.split())
    if t is None or not label or not what:
        raise InputError(f"{name_argument('exemplar', text)}: {EXEMPLAR_FORM}")
    if what.startswith("box="):
        numbers = parse_numbers(what.partition("=")[2])
        if len(numbers) != 4:
            raise InputError(f"{name_argument('exemplar', text)}: 4 numbers are needed after '='; {EXEMPLAR_FORM}")
        return Exemplar(t, label, Box(*numbers))
    with _name_place(name_argument("exemplar")):
        return Exemplar(t, label, torch.from_numpy(read_label_image(Path(what)).select(1)))


def parse_numbers(text: str) -> list[float]:
    """The finite numbers between the commas of a text; none where one of them is none.

    >>> parse_numbers("1,2.5"), parse_numbers("1,x")
    ([1.0, 2.5], [])
    """
    try:
        values = [float(v) for v in text.split(",")]
    except ValueError:
        return []
    return values if np.isfinite(values).all() else []


@contextmanager
def _name_place(where: str) -> Iterator[None]:
    """Says of what is wrong where it was given."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


# -- a file of prompts


@dataclass(frozen=True)
class PromptFile:
    """The prompts of a json file, by the frames that they say.

    [{"frame": 0, "id": 1, "box": [x0, y0, x1, y1]}, {"file": "00012.jpg", "id": 2, "points": [[x, y]],
    "outside": [[x, y]]}, {"frame": 3, "labels": "00003.png"}, {"frame": 0, "id": 3, "mask": "mask.png"}], or
    {name of a video: such a list}; paths are relative to the file.
    """

    label: str
    prompts: Sequence[tuple[FramePlace, Mapping[int, Prompt]]]

    def select(self, video: VideoFrames) -> dict[int, dict[int, Prompt]]:
        """{frame: {id: prompt}} for one video. Raises InputError where one of them is of no frame of it."""
        places = [place for place, _ in self.prompts]
        matcher = FrameMatcher(self.label, places, video)
        if not matcher.is_named:
            other = next(place.video for place in places if place.video)
            raise InputError(f"{self.label}: is of a video called {other}, not {video.name}; give them the same name")
        frames: dict[int, dict[int, Prompt]] = {}
        for place, told in self.prompts:
            frame = matcher.find(place)
            if frame is None and place.video in (None, video.name):
                raise InputError(f"{self.label}: the prompt for {place} is of no frame of {video}")
            if frame is not None:
                add_prompts(self.label, frames, frame, told)
        return frames


def read_prompt_file(path: Path) -> PromptFile:
    """The prompts of a json file. Raises InputError naming the entry that is malformed."""
    content = read_json_file(path, "a json of prompts, a list of {frame, id, box or points or mask}")
    return parse_prompts(str(path), content, path.parent)


def parse_prompts(label: str, content: Any, folder: Path) -> PromptFile:
    """The prompts in the `content` of a json file, or of a part of one, that `label` names; the files in it are
    relative to `folder`. Raises InputError naming the entry that is malformed.
    """
    if isinstance(content, dict) and {"frame", "file"} & content.keys():
        raise InputError(f"{label}: one prompt by itself; put it in a list, [{{...}}]")
    by_video = content if isinstance(content, dict) else {None: content}
    found = []
    for video, entries in by_video.items():
        if not isinstance(entries, list):
            raise InputError(f"{label}: {repr(video) if video else 'it'} must be a list of prompts")
        for n, item in enumerate(entries):
            entry = JsonEntry(f"{label}: {video + ': ' if video else ''}prompt {n}", item)
            with _name_place(entry.where):
                for key in entry:
                    check_choice("key", key, KEYS)
            found.append((_read_prompt_place(entry, video), _read_prompt_entry(entry, folder)))
    return PromptFile(label, found)


def _read_prompt_place(entry: JsonEntry, video: str | None) -> FramePlace:
    if "file" in entry:
        return FramePlace(video, name=entry.text("file"))
    return FramePlace(video, index=entry.whole("frame"))


def _read_prompt_entry(entry: JsonEntry, folder: Path) -> dict[int, Prompt]:
    """The prompts of one entry, by id."""
    if "labels" in entry:
        path = folder / entry.text("labels")
        with _name_place(entry.where):
            return read_label_prompts(path)
    id = entry.whole("id")
    points = [
        Point(x, y, inside=key == "points")
        for key in ("points", "outside")
        for x, y in (_read_numbers(entry, p, 2) for p in _list_points(entry, key))
    ]
    box = Box(*_read_numbers(entry, entry.get("box"), 4)) if "box" in entry else None
    mask = _read_entry_mask(entry, folder, id) if "mask" in entry else None
    if not points and box is None and mask is None:
        raise entry.wrong("nothing marks the object; give box, points, outside, mask, or labels")
    return {id: Clicks(tuple(points), box, mask)}


def _read_entry_mask(entry: JsonEntry, folder: Path, id: int) -> Bool[Tensor, "h w"]:
    path = folder / entry.text("mask")
    with _name_place(entry.where):
        return read_prompt_mask(path, id)


def _list_points(entry: JsonEntry, key: str) -> list[Any]:
    return entry.items(key) if key in entry else []


def _read_numbers(entry: JsonEntry, given: Any, n: int) -> list[float]:
    numbers = given if isinstance(given, list) else []
    if len(numbers) != n or not all(map(is_finite_number, numbers)):
        raise entry.wrong(f"{n} numbers are needed, not {quote_value(given)}")
    return [float(v) for v in numbers]


def read_dataset_prompts(video: DatasetVideo) -> PromptFile:
    """What a data set says of a video's objects, each in the first image that shows it. Raises InputError where an
    image cannot be read, or none shows an object.
    """
    found: list[tuple[FramePlace, dict[int, Prompt]]] = []
    known: set[int] = set()
    for path, id in video.given:
        if id in known:
            continue
        image = read_label_image(path, IDS)
        names = {n: id or (1 if image.ids == (VOID,) else n) for n in image.ids}  # 255 alone: DAVIS 2016's one object
        masks = {name: image.select(n) for n, name in names.items() if name not in known}
        known |= masks.keys()
        found += [(FramePlace(name=path.name), {n: torch.from_numpy(mask)}) for n, mask in masks.items()]
    if not found:
        raise InputError(f"{video.source}: {video.annotations or 'its data set'} shows no object; leave this video out")
    return PromptFile(str(video.annotations), found)


def compute_prompt_hash(prompts: Iterable[tuple[object, Mapping[int, Prompt]]]) -> str:
    """What tells these prompts, each with the number or the place of the frame that it is of, from others. Equal ones
    have the same, however they are written and in whatever order: but of one object in one frame the order of points
    counts.
    """
    marked: dict[tuple[str, int], list[Clicks]] = {}
    for given, marks in prompts:
        place = FramePlace(index=given) if isinstance(given, int) else given
        for id, prompt in marks.items():
            marked.setdefault((str(place), id), []).append(Clicks.of(prompt))
    digest = hashlib.sha256()
    for key, parts in sorted(marked.items()):
        points, boxes = [p for part in parts for p in part.points], [part.box for part in parts if part.box]
        digest.update(repr((key, points, boxes)).encode())
        for mask in (part.mask for part in parts if part.mask is not None):
            digest.update(mask.numpy().tobytes())
    return digest.hexdigest()[:16]
