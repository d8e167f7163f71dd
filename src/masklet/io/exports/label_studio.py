"""Label Studio's tasks: brush masks of frames, and boxes of videos with key frames.

A brush mask is the image as four bytes a pixel, row by row, packed by bits: the number of values, the bits of a value,
four sizes of lengths, then runs; each run says whether its value is repeated, which size its length has, the length
less one, and the value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from jaxtyping import Bool, UInt8

from masklet.core.errors import InputError
from masklet.core.files import write_atomically
from masklet.core.limits import check_frame_size, is_whole_number
from masklet.core.result import VideoResult
from masklet.core.rle import Rle
from masklet.core.tables import compute_frame_time
from masklet.io.exports.cvat import check_xml_text, count_runs, list_names
from masklet.io.exports.exported_results import IMAGES, ExportedResults
from masklet.io.exports.json_rows import write_json_list

SIZES = (4, 8, 12, 16)  # bits of a run's length
CHANNELS = 4  # bytes of a pixel
PREFIX = "/data/local-files/?d="


def write_label_studio(results: ExportedResults, folder: Path, prefix: str = PREFIX) -> None:
    """Writes a task for each frame, with brush masks.

    Args:
        results: of videos.
        folder: which gets tasks.json, config.xml for the project's labelling interface and, of videos that are given,
            images/<video>/<frame>.jpg.
        prefix: what stands before images/... in the tasks, such as the address that the images are served under
    """
    _write_tasks(folder, _list_frame_tasks(results, prefix))
    (folder / "config.xml").write_text(
        format_config(results, '<Image name="image" value="$image" zoom="true"/>', "BrushLabels", "image")
    )
    results.write_images(folder / IMAGES)


def _list_frame_tasks(results: ExportedResults, prefix: str) -> Iterator[dict[str, Any]]:
    for result in results:
        names = results.name_frames(result)
        for t in results.iterate_frame_numbers(result):
            answers = [format_brush(result, m.id, result.name_of(m), m.score, seen.mask) for m, seen in result.at(t)]
            data = {"image": f"{prefix}{IMAGES}/{result.name}/{names[t]}.jpg", "video": result.name, "frame": t}
            yield {"data": data, "annotations": [{"result": answers}]}


def write_label_studio_video(results: ExportedResults, folder: Path, prefix: str = PREFIX) -> None:
    """Writes a task for each video, with a box in every frame as a key frame. Masks are lost.

    Args:
        results: of videos.
        folder: which gets tasks.json and config.xml for the project's labelling interface.
        prefix: what stands before <video>.mp4 in the tasks, such as the address that the videos are served under
    """
    tasks = []
    for result in results:
        answers = [
            {
                "id": f"{m.id}",
                "type": "videorectangle",
                "from_name": "box",
                "to_name": "video",
                "value": {
                    "framesCount": result.length,
                    "duration": compute_frame_time(result, result.length - 1) + 1 / result.rate,
                    "sequence": list(list_video_boxes(result, m.sightings)),
                    "labels": [result.name_of(m)],
                },
                "meta": {"text": [f"id {m.id}"]},
            }
            for m in result.masklets
        ]
        tasks.append({"data": {"video": f"{prefix}{result.name}.mp4"}, "annotations": [{"result": answers}]})
        results.watch(result.name, result.length, result.length, len(result.masklets))
    _write_tasks(folder, tasks)
    shown = '<Video name="video" value="$video"/><VideoRectangle name="box" toName="video"/>'
    (folder / "config.xml").write_text(format_config(results, shown, "Labels", "video"))


def _write_tasks(folder: Path, tasks: Iterable[Any]) -> None:
    with write_atomically(folder / "tasks.json") as file:
        write_json_list(file, tasks)


def list_video_boxes(result: VideoResult, sightings: Any) -> Iterator[dict[str, Any]]:
    """The key frames of an object, counted from 1; "enabled" is false where no frame follows in which it is seen."""
    h, w = result.size
    for t in sorted(sightings):
        x0, y0, x1, y1 = sightings[t].mask.box
        place = {"x": 100 * x0 / w, "y": 100 * y0 / h, "width": 100 * (x1 - x0) / w, "height": 100 * (y1 - y0) / h}
        follows = t + 1 in sightings
        yield {"frame": t + 1, "time": compute_frame_time(result, t), "enabled": follows, "rotation": 0, **place}


def format_brush(result: VideoResult, id: int, name: str, score: float, mask: Rle) -> dict[str, Any]:
    """One object in one frame, as an answer in a task."""
    return {
        "id": f"object_{id}",
        "type": "brushlabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": result.size[1],
        "original_height": result.size[0],
        "image_rotation": 0,
        "score": score,
        "value": {"format": "rle", "rle": encode_brush(mask.decode_pixels()), "brushlabels": [name]},
        "meta": {"text": [f"id {id}"]},
    }


def format_config(results: Iterable[VideoResult], shown: str, kind: str, of: str) -> str:
    """The labelling interface: what is `shown`, and the names as labels of a `kind` for the part called `of`."""
    names = list(dict.fromkeys(name for r in results for name in list_names(r)))
    for name in names:
        check_xml_text("label-studio", name)
    labels = "".join(f"\n    <Label value={quoteattr(name)}/>" for name in names)
    return f'<View>\n  {shown}\n  <{kind} name="label" toName="{of}">{labels}\n  </{kind}>\n</View>\n'


# -- brush masks


def encode_brush(pixels: Bool[np.ndarray, "h w"]) -> list[int]:
    """A mask as Label Studio's bytes.

    >>> decode_brush(encode_brush(np.array([[0, 1], [1, 0]], bool)), (2, 2)).astype(int).tolist()
    [[0, 1], [1, 0]]
    """
    longest = 1 << SIZES[-1]
    pieces = [f"{pixels.size * CHANNELS:032b}", f"{8 - 1:05b}", *(f"{size - 1:04b}" for size in SIZES)]
    for n, run in enumerate(count_runs(pixels.ravel())):
        value = "1" * 8 if n % 2 else "0" * 8
        left = run * CHANNELS
        while left:
            part = min(left, longest)
            pieces.append(_format_run(part, value))
            left -= part
    bits = "".join(pieces)
    return np.packbits(np.frombuffer(bits.encode(), np.uint8) == ord("1")).tolist()


def _format_run(length: int, value: str) -> str:
    at = next(n for n, size in enumerate(SIZES) if length <= 1 << size)
    return f"1{at:02b}{length - 1:0{SIZES[at]}b}{value}"


class _BitReader:
    """Whole numbers out of bits, the highest bit first."""

    def __init__(self, data: bytes) -> None:
        self.bits, self.at = np.unpackbits(np.frombuffer(data, np.uint8)), 0

    def read(self, size: int) -> int:
        piece = self.bits[self.at : self.at + size]
        if len(piece) < size:
            raise ValueError("the brush mask is cut off")
        self.at += size
        return int("".join(map(str, piece.tolist())), 2)

    def read_many(self, size: int, count: int) -> UInt8[np.ndarray, " n"]:
        """So many values of at most eight bits."""
        piece = self.bits[self.at : self.at + size * count]
        if len(piece) < size * count:
            raise ValueError("the brush mask is cut off")
        self.at += size * count
        return (piece.reshape(count, size) @ (1 << np.arange(size)[::-1])).astype(np.uint8)


def decode_brush(rle: Any, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The mask of `size` (h, w) of Label Studio's bytes: where the last of a pixel's bytes, its opacity, is at least
    half. Raises ValueError where they are none.
    """
    if not isinstance(rle, list) or not all(is_whole_number(v) and v < 256 for v in rle):
        raise ValueError("a brush mask must be a list of bytes")
    reader = _BitReader(bytes(rle))
    count, word = reader.read(32), reader.read(5) + 1
    if count != size[0] * size[1] * CHANNELS or word > 8:
        raise ValueError(f"the brush mask has {count} values, not {CHANNELS} for each of {size[1]}x{size[0]} pixels")
    sizes = [reader.read(4) + 1 for _ in range(4)]
    values = np.zeros(count, np.uint8)
    at = 0
    while at < count:
        repeated = reader.read(1)
        length = reader.read(sizes[reader.read(2)]) + 1
        if at + length > count:
            raise ValueError("the brush mask is longer than its image")
        values[at : at + length] = reader.read(word) if repeated else reader.read_many(word, length)
        at += length
    mask: Bool[np.ndarray, "h w"] = values.reshape(*size, CHANNELS)[..., -1] >= 128
    return mask


def parse_brush_answer(where: str, answer: Any) -> tuple[Rle, str, str]:
    """The mask of a brush answer, its name and its object's id. Raises InputError where it is none."""
    value = answer.get("value")
    try:
        size = check_frame_size(where, answer.get("original_height"), answer.get("original_width"))
        labels = value["brushlabels"]
        return Rle.encode_pixels(decode_brush(value["rle"], size)), str(labels[0]), str(answer.get("id", ""))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{where}: no brush mask of Label Studio ({error})") from None
