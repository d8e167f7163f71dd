"""The project's own result file: JSON, masks as COCO run lengths.

{"format": "masklet/1", "name", "size": [h, w], "length", "rate", "categories": [...],
 "provenance": {...}, "times": [seconds, ...] where not constant, "pixel_aspect" where not 1,
 "masklets": [{"id", "label", "score", "is_thing",
               "sightings": [[frame, source, score, label, presence, counts], ...]}, ...],
 "index": where in the file each masklet and every 256th of its sightings begin (`core.result_index`)}

It is written a few sightings at a time, so that a result that lies on the disk is never in memory as a whole.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

from masklet.core.errors import InputError
from masklet.core.files import path_exists, read_json, write_atomically
from masklet.core.limits import (
    LARGEST_ASPECT,
    LONGEST_EDIT,
    MOST_CATEGORIES,
    MOST_OBJECTS,
    check_count,
    check_frame_count,
    check_frame_rate,
    check_frame_size,
    check_mask_pixels,
    check_number,
    check_plain_json,
    check_relative_path,
    check_text,
    check_whole_number,
    is_finite_number,
    quote_value,
)
from masklet.core.result import Provenance, VideoResult
from masklet.core.result_index import BLOCK, HEAD, IndexWriter, convert_for_json, format_json
from masklet.core.rle import Rle, are_rle_counts_sound
from masklet.core.tracks import Masklet, Sighting, Source

FORMAT = "masklet/1"
RESULT = "masklets.json"  # in a folder of a run or a session


def write_result(result: VideoResult, path: Path) -> None:
    """Writes a result. Raises InputError where the file cannot be written, or could not be read again."""
    check_storable(f"{path}", result)
    with write_atomically(path) as file:
        file.write(f"{format_json(format_video(result))[:-1]},".encode())
        index = IndexWriter(file.tell())
        file.write(HEAD)
        for n, masklet in enumerate(result.masklets):
            file.write(b"," if n else b"")
            with explain_bad_entry(f"{path}: object {masklet.id}"):
                _write_masklet(file, masklet, index, result)
        file.write(b"],")
        file.write(index.format(file.tell()))


def check_storable(where: str, result: VideoResult) -> None:
    """Raises InputError that begins with `where` where a `result` holds what `read_result` refuses: what is written
    without that is lost.
    """
    with explain_bad_entry(where):
        read_video(where, json.loads(json.dumps(format_video(result), default=convert_for_json)))
    check_count(where, "masklets", len(result.masklets), MOST_OBJECTS)
    check_ids(where, result.masklets)
    for m in result.masklets:
        with explain_bad_entry(f"{where}: object {m.id}"):
            _read_facts(f"{where}: object {m.id}", format_masklet_facts(m), result)


def format_video(result: VideoResult) -> dict[str, Any]:
    """All of a result but its masklets, as JSON has it."""
    return {
        "format": FORMAT,
        "name": result.name,
        "size": result.size,
        "length": result.length,
        "rate": result.rate,
        "categories": result.categories,
        "provenance": _format_provenance(result.provenance),
        **({"times": result.times} if result.times else {}),
        **({"pixel_aspect": result.pixel_aspect} if result.pixel_aspect != 1 else {}),
    }


def _format_provenance(made: Provenance) -> dict[str, Any]:
    told = asdict(made)
    return told if made.edits else {name: value for name, value in told.items() if name != "edits"}


def format_masklet_facts(m: Masklet) -> dict[str, Any]:
    """All of a masklet but its sightings, as JSON has it."""
    return {"id": m.id, "label": m.label, "score": m.score, "is_thing": m.is_thing}


def _write_masklet(file: IO[bytes], m: Masklet, index: IndexWriter, video: VideoResult) -> None:
    facts = {**format_masklet_facts(m), "sightings": []}
    start = file.tell()
    file.write(format_json(facts)[:-2].encode())
    frames, places = list[int](), list[int]()
    for frame, rows in _format_blocks(m.sightings, video):
        file.write(b"," if frames else b"")
        frames.append(frame)
        places.append(file.tell())
        file.write(rows)
    index.add(start, len(m.sightings), frames, [*places, file.tell()])
    file.write(b"]}")


def _format_blocks(sightings: Mapping[int, Sighting], video: VideoResult) -> Iterator[tuple[int, bytes]]:
    """The first frame of each block of sightings, and its rows; those that lie in a file are copied from it. Raises
    ValueError or InputError where one is none of the `video`.
    """
    from masklet.core.stored_result import StoredSightings  # which needs this module

    if isinstance(sightings, StoredSightings):
        yield from sightings.format_blocks(video)
        return
    frames = sorted(sightings)
    for n in range(0, len(frames), BLOCK):
        yield frames[n], format_block(sightings, frames[n : n + BLOCK], video)


def format_block(sightings: Mapping[int, Sighting], frames: Sequence[int], video: VideoResult) -> bytes:
    """The rows of the sightings in some `frames`, with commas between them. Raises ValueError or InputError where one
    is none of the `video`.
    """
    rows = [format_sighting(t, _check_sighting(t, sightings[t], video)) for t in frames]
    return format_json(rows)[1:-1].encode()


def _check_sighting(frame: int, seen: Sighting, video: VideoResult) -> Sighting:
    """The sighting as it is. Raises ValueError or InputError where it is none in a frame of the `video`."""
    _check_place(frame, seen.label, video)
    if tuple(seen.mask.size) != tuple(video.size):
        (h, w), (rows, columns) = seen.mask.size, video.size
        raise ValueError(f"its mask in frame {frame} is {w}x{h}, the video {columns}x{rows}; make it of that size")
    check_number(f"frame {frame}", "the score", seen.score)
    check_number(f"frame {frame}", "the presence", seen.presence)
    return seen


def format_sighting(frame: int, s: Sighting) -> tuple[Any, ...]:
    """The row of a sighting in a `frame`, as `read_sighting` reads it."""
    return frame, s.source.value, s.score, s.label, s.presence, s.mask.counts.decode()


def read_result(path: Path) -> VideoResult:
    """Reads a result. Raises InputError naming the file and the entry that is damaged."""
    path = find_result_file(path)
    content = read_json(path, "a masklets.json")
    check_format(path, content)
    with explain_bad_entry(f"{path}"):
        video = read_video(f"{path}", content)
        entries = _check_list("masklets", content["masklets"])
        check_count(f"{path}", "masklets", len(entries), MOST_OBJECTS)
    masklets = []
    for n, entry in enumerate(entries):
        where = f"{path}: masklet {n}"
        with explain_bad_entry(where):
            masklets.append(_read_masklet(where, entry, video))
    _check_together(f"{path}", masklets, video.size)
    return replace(video, masklets=tuple(masklets))


def find_result_file(path: Path) -> Path:
    """The file of a result that is meant: `path`, or the one in a folder that a run or a session wrote."""
    inside = path / RESULT
    return inside if path_exists(inside) else path


def check_format(path: Path, content: Any) -> None:
    """Raises InputError where the `content` of the file at `path` is no result."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise InputError(f"{path}: not a masklet result (format {quote_value(found)}, expected {FORMAT!r})")


def _read_times(where: str, content: Mapping[str, Any], length: int) -> tuple[float, ...]:
    times = tuple(check_number(where, "a time", t) for t in _check_list("times", content.get("times", [])))
    if times and not (len(times) == length and all(a <= b for a, b in pairwise(times))):
        raise ValueError(f"times: {len(times)} for {length} frames; there is one for each, and they do not fall")
    return times


def _read_pixel_aspect(where: str, content: Mapping[str, Any]) -> float:
    aspect = check_number(where, "pixel_aspect", content.get("pixel_aspect", 1.0))
    if not 1 / LARGEST_ASPECT <= aspect <= LARGEST_ASPECT:
        raise ValueError(f"pixel_aspect {aspect}; it is the width of a pixel over its height")
    return aspect


def read_video(where: str, content: Mapping[str, Any]) -> VideoResult:
    """The result without its masklets."""
    size = _check_list("size", content["size"])
    if len(size) != 2:
        raise ValueError(f"'size' must be a height and a width, not {quote_value(size)}")
    categories = tuple(check_text(where, "a category", c) for c in _check_list("categories", content["categories"]))
    check_count(where, "categories", len(categories), MOST_CATEGORIES)
    return VideoResult(
        check_relative_path(where, content["name"]),
        check_frame_size(where, *size),
        check_frame_count(where, content["length"]),
        check_frame_rate(where, content["rate"]),
        (),
        categories,
        _read_provenance(f"{where}: provenance", content["provenance"]),
        _read_times(where, content, check_frame_count(where, content["length"])),
        _read_pixel_aspect(where, content),
    )


def _read_provenance(where: str, made: Any) -> Provenance:
    told = {**check_plain_json(where, _check_object(made))}
    for key in ("settings", "weights"):
        _check_object(told.get(key, {}))
    for key in ("system", "version", "source"):
        check_text(where, key, told.get(key, ""))
    notes = [check_text(where, "a note", note) for note in _check_list("notes", told["notes"])]
    edits = [check_text(where, "an edit", edit, LONGEST_EDIT) for edit in _check_list("edits", told.get("edits", []))]
    return Provenance(**{**told, "notes": tuple(notes), "edits": tuple(edits)})


def _check_list(what: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{what!r} must be a list, not {quote_value(value)}")
    return value


def _check_object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"must be an object with named values, not {quote_value(value)}")
    return value


@contextmanager
def explain_bad_entry(where: str) -> Iterator[None]:
    """Turns what a malformed entry causes into a sentence that names it."""
    try:
        yield
    except KeyError as error:
        raise InputError(f"{where}: {error.args[0]!r} is missing") from None
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}") from None


def _read_masklet(where: str, entry: Any, video: VideoResult) -> Masklet:
    sightings: dict[int, Sighting] = {}
    rows = _check_list("sightings", _check_object(entry)["sightings"])
    for n in range(0, len(rows), BLOCK):
        for frame, sighting in _read_block(where, rows[n : n + BLOCK], video):
            if frame in sightings:
                raise ValueError(f"frame {frame} is given twice; keep one of them")
            sightings[frame] = sighting
    return read_masklet_facts(where, entry, sightings, video)


def _read_block(where: str, rows: Sequence[Any], video: VideoResult) -> Iterator[tuple[int, Sighting]]:
    """What `read_sighting` reads in each of the `rows`."""
    if not are_rows_sound(rows, video):
        yield from (read_sighting(where, row, video) for row in rows)  # which mends them, or says what is wrong
        return
    for frame, source, score, label, presence, counts in rows:
        mask = Rle(video.size, counts.encode())
        yield frame, Sighting(mask, Source(source), float(score), label, float(presence))


def read_sighting(where: str, row: Any, video: VideoResult) -> tuple[int, Sighting]:
    """The frame and the sighting in a `row` of the file of a `video`. Raises ValueError or InputError that begins with
    `where` where it is none.
    """
    frame, source, score, label, presence, counts = row
    _check_place(frame, label, video)
    if not isinstance(counts, str):
        raise ValueError(f"a mask must be a text of run lengths, not {quote_value(counts)}")
    mask = Rle.checked(video.size, counts.encode())
    score, presence = check_number(where, "a score", score), check_number(where, "a presence", presence)
    return frame, Sighting(mask, Source(source), score, label, presence)


def are_rows_sound(rows: Iterable[Any], video: VideoResult) -> bool:
    """Whether `read_sighting` takes each of the `rows` of the file of a `video`, and its mask as it is: of many at once
    this is known in a tenth of the time.
    """
    try:
        frames, sources, scores, labels, presences, counts = zip(*rows, strict=True)
    except (TypeError, ValueError):  # rows that are none, or not of six
        return False
    kinds = [set(map(type, column)) for column in (frames, labels, sources, counts)]
    return (
        kinds == [{int}, {int}, {str}, {str}]
        and 0 <= min(frames) <= max(frames) < video.length
        and -1 <= min(labels) <= max(labels) < len(video.categories)
        and {source.value for source in Source}.issuperset(sources)
        and all(map(is_finite_number, (*scores, *presences)))
        and all(map(str.isascii, counts))
        and are_rle_counts_sound([text.encode() for text in counts], video.size)
    )


def read_masklet_facts(
    where: str, entry: Mapping[str, Any], sightings: Mapping[int, Sighting], video: VideoResult
) -> Masklet:
    """The masklet of an `entry` of the file of a `video`, with these `sightings`. Raises ValueError or InputError that
    begins with `where` where it is none.
    """
    id, label, score, is_thing = _read_facts(where, entry, video)
    made = Masklet(id, sightings, label, score, is_thing)
    if not made.sightings:
        raise ValueError("is seen in no frame; leave it out")
    return made


def _read_facts(where: str, entry: Mapping[str, Any], video: VideoResult) -> tuple[int, int, float, bool]:
    """A masklet's id, label and score, and whether it is a thing."""
    label, is_thing = entry["label"], entry["is_thing"]
    if not _is_label(label, video):
        raise ValueError(f"has label {quote_value(label)}; {_describe_labels(video)}")
    if not isinstance(is_thing, bool):
        raise ValueError(f"'is_thing' must be true or false, not {quote_value(is_thing)}")
    id, score = check_whole_number(where, "the id", entry["id"]), check_number(where, "the score", entry["score"])
    return id, label, score, is_thing


def _check_place(frame: Any, label: Any, video: VideoResult) -> None:
    """Raises ValueError where there is no such frame in a `video`, or no such label."""
    if not _is_index(frame, video.length) or not _is_label(label, video):
        known = f"frames are 0 to {video.length - 1}, {_describe_labels(video)}"
        raise ValueError(f"seen in frame {quote_value(frame)} under label {quote_value(label)}; {known}")


def _is_index(value: Any, length: int) -> bool:
    return type(value) is int and 0 <= value < length  # true is an int, but no index


def _is_label(value: Any, video: VideoResult) -> bool:
    return _is_index(value, len(video.categories)) or (type(value) is int and value == -1)


def _describe_labels(video: VideoResult) -> str:
    """Which labels there are in a `video`, by its categories."""
    return f"labels -1 (none) to {len(video.categories) - 1}"


def _check_together(where: str, masklets: Sequence[Masklet], size: tuple[int, int]) -> None:
    """Raises InputError where two masklets have one id, or a frame's masks together unpack to too much."""
    check_ids(where, masklets)
    seen = Counter(t for m in masklets for t in m.sightings)
    check_mask_pixels(where, max(seen.values(), default=0), size)


def check_ids(where: str, masklets: Sequence[Masklet]) -> None:
    """Raises InputError that begins with `where` where two masklets have one id."""
    twice = [id for id, n in Counter(m.id for m in masklets).items() if n > 1]
    if twice:
        raise InputError(f"{where}: the id {twice[0]} is given twice; keep one of them")
