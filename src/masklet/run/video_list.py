"""The videos that a run is given: sources on the command line, and a file with one a line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from masklet.core.choices import check_choice
from masklet.core.errors import InputError
from masklet.core.files import path_exists, read_text
from masklet.core.limits import check_file_name
from masklet.core.wording import name_argument
from masklet.io.formats.json_entry import JsonEntry, read_json_line
from masklet.io.prompts import PromptFile, parse_prompts, read_prompt_file
from masklet.io.video.datasets import DatasetVideo
from masklet.io.video.selection import FrameSelection
from masklet.io.video.source_names import Source, make_unique_names
from masklet.io.video.sources import check_source_exists, group_video_sources, list_video_sources
from masklet.run.claims import FOLDER
from masklet.run.outcome import FAILURES, MANIFEST

FORM = 'a text with a source a line, or JSON lines such as {"source": "a.mp4", "name": "a"}'
KEYS = ("source", "name", "prompts", "detections", "start", "end", "stride")
TOLD = 5  # bad lines
OWN_NAMES = (MANIFEST, FAILURES, FOLDER)  # what the output folder holds beside the folders of videos


@dataclass(frozen=True)
class VideoEntry:
    """One video that a run is given.

    Attributes:
        source: as the user wrote it.
        name: of its folder.
        title: what the user calls it; "": as its source is called.
        reading: what of its frames is used, where that is not what is used of all: start, end, stride.
        prompts: the objects that are tracked in it; None: they are found.
        detections: the file or folder of what was found in it elsewhere, in place of a segmenter.
        given: the video of a data set whose own masks are tracked, as the programs of benchmarks do; None: no such one.
    """

    source: Source
    name: str = ""
    title: str = ""
    reading: Mapping[str, Any] = field(default_factory=dict)
    prompts: PromptFile | None = None
    detections: str = ""
    given: DatasetVideo | None = None


def list_videos(sources: Sequence[str], path: Path | None) -> list[VideoEntry]:
    """The videos that `sources` and the file `path` name, each with a name of its own. Raises InputError where there
    are none, or a line of the file cannot be used.
    """
    text = read_text(path, FORM) if path else ""
    lines = [(n, line.strip()) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    if path and not lines:
        raise InputError(f"{name_argument('path', path, option='list')}: holds no source; give {FORM}")
    if not (sources or lines):
        raise InputError(
            "no source; give a video file, a folder of frames, a glob or -, or a list in a file "
            f"({name_argument('path', option='list')})"
        )
    if path:
        check_no_json_list(path, text)
    if path and lines[0][1].startswith("{"):
        listed = parse_json_lines(path, lines)
        return name_videos([*map(VideoEntry, group_video_sources(sources)), *listed])
    found = group_video_sources([*sources, *(line for _, line in lines)])
    if len(found) == 1 and isinstance(found[0], str):  # of several one that is missing costs no more than itself
        check_source_exists(found[0])
    return name_videos(list(map(VideoEntry, found)))


def check_no_json_list(path: Path, text: str) -> None:
    """Raises InputError where the `text` of the file `path` is one list of JSON, whose lines would be read as globs."""
    try:
        is_list = text.lstrip().startswith("[") and isinstance(json.loads(text), list)
    except ValueError:
        return
    if is_list:
        raise InputError(f"{name_argument('path', path, option='list')}: is a list of JSON; write an object a line")


def name_videos(entries: Sequence[VideoEntry]) -> list[VideoEntry]:
    """The same, with a name for each that has none."""
    taken = [*OWN_NAMES, *(e.name for e in entries if e.name)]
    names = iter(make_unique_names([e.source for e in entries if not e.name], taken))
    return [e if e.name else replace(e, name=next(names)) for e in entries]


def list_dataset_entries(videos: Sequence[DatasetVideo], is_given: bool = False) -> list[VideoEntry]:
    """The videos of a data set, under its own names, but for those that an earlier one has, as of another root has it;
    `is_given`: the masks that it gives are tracked.
    """
    names = make_unique_names([Path(video.name).name for video in videos], OWN_NAMES)
    first = {video.name: name for name, video in zip(reversed(names), reversed(videos), strict=True)}
    return [
        VideoEntry(v.source, name, v.name if first[v.name] == name else name, given=v if is_given else None)
        for name, v in zip(names, videos, strict=True)
    ]


def parse_json_lines(path: Path, lines: Sequence[tuple[int, str]]) -> list[VideoEntry]:
    """The video of each of the numbered `lines` of a file. Raises one InputError for all that are bad."""
    found, wrong, places = list[VideoEntry](), list[str](), dict[str, int]()
    for number, line in lines:
        try:
            where = f"{name_argument('path', path, option='list')}: line {number}"
            entry = parse_json_line(where, line, path.parent)
            if entry.name and places.setdefault(entry.name, number) != number:
                raise InputError(f"{where}: line {places[entry.name]} has its name, {entry.name}")
            found.append(entry)
        except InputError as error:
            wrong.append(str(error))
    if wrong:
        rest = f"; and {len(wrong) - TOLD} more bad lines" if len(wrong) > TOLD else ""
        raise InputError("; ".join(wrong[:TOLD]) + rest)
    return found


def parse_json_line(where: str, line: str, folder: Path) -> VideoEntry:
    """The video that a `line` of JSON stands for; masks of prompts in it are relative to `folder`. Raises InputError
    that begins with `where`.
    """
    entry = read_json_line(where, line)
    for key in entry:
        check_line_key(where, key)
    if "prompts" in entry and "detections" in entry:
        raise entry.wrong("has prompts and detections; objects are either given or found, so leave one out")
    if "name" in entry:
        check_file_name(where, entry.get("name"))
        check_not_own(where, entry.get("name"))
    name = entry.get("name") if "name" in entry else ""
    return VideoEntry(
        parse_source(entry),
        name,
        name,
        parse_reading(entry),
        parse_line_prompts(entry, folder) if "prompts" in entry else None,
        parse_detections(entry) if "detections" in entry else "",
    )


def check_not_own(where: str, name: str) -> None:
    """Raises InputError that begins with `where` for a `name` that the output folder needs for something else."""
    if name in OWN_NAMES:
        raise InputError(f"{where}: the name {name} is that of masklet's own file or folder; give another one")


def check_line_key(where: str, key: str) -> None:
    """Raises InputError that begins with `where` for a key that no line has."""
    try:
        check_choice("key", key, KEYS)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


def parse_source(entry: JsonEntry) -> str:
    """The one video that a line names."""
    try:
        found = list_video_sources(entry.text("source"))
    except InputError as error:
        raise error if str(error).startswith(entry.where) else entry.wrong(str(error)) from None
    if len(found) > 1:
        raise entry.wrong(f"{entry.text('source')} matches {len(found)} videos; give one a line")
    return found[0]


def parse_reading(entry: JsonEntry) -> dict[str, Any]:
    """What of its frames is used, as the command line's options of the same names say it."""
    reading: dict[str, Any] = {key: str(check_position(entry, key)) for key in ("start", "end") if key in entry}
    if "stride" in entry:
        reading["stride"] = entry.whole("stride")
    try:
        FrameSelection(**reading).check()
    except InputError as error:
        raise entry.wrong(str(error)) from None
    return reading


def check_position(entry: JsonEntry, key: str) -> str | int:
    """A frame's number or a time."""
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise entry.wrong(f'{key!r} must be a frame such as 120, or a time such as "4.5s" or "1:30"')
    return value


def parse_line_prompts(entry: JsonEntry, folder: Path) -> PromptFile:
    """The prompts of a line: a list of them, or the name of their file."""
    given = entry.get("prompts")
    try:
        if isinstance(given, str):
            return read_prompt_file(Path(given))
        if not isinstance(given, list) or not given:
            raise InputError(f"{entry.where}: 'prompts' must be a list of prompts, or the name of their file")
        return parse_prompts(f"{entry.where}: prompts", given, folder)
    except InputError as error:
        raise error if str(error).startswith(entry.where) else entry.wrong(str(error)) from None


def parse_detections(entry: JsonEntry) -> str:
    """The file of a line's detections, which is read when its video is done."""
    path = entry.text("detections")
    if not path_exists(Path(path)):
        raise entry.wrong(f"detections {path}: no such file or folder")
    return path


def choose_shard(entries: Sequence[VideoEntry], shard: str) -> list[VideoEntry]:
    """The videos of shard "i/n", i from 1: by their names every n-th, whatever their order. Raises InputError where
    there is no such shard.

    >>> [e.name for e in choose_shard([VideoEntry("c", "c"), VideoEntry("a", "a"), VideoEntry("b", "b")], "1/2")]
    ['c', 'a']
    """
    first, _, count = shard.partition("/")
    if not (first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
        raise InputError(f"{name_argument('shard', shard)}: write it as i/n with i from 1 to n, such as 1/8")
    mine = set(sorted(entry.name for entry in entries)[int(first) - 1 :: int(count)])
    return [entry for entry in entries if entry.name in mine]
