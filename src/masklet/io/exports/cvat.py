"""CVAT's XML 1.1, for images and for videos, both ways.

A mask is run lengths row by row over its box alone, beginning outside. What it cannot say: scores, frames per second,
how a mask came about. An object's id is the "group_id" of its shapes in images, the track's "id" in videos. CVAT has no
tracks of masks (its issue 6264): a job with one does not open there. Videos get polygons along the pixels' edges.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree as Xml

import numpy as np

from masklet.core.errors import InputError
from masklet.core.files import read_bytes, write_atomically
from masklet.core.limits import check_text, is_finite_number, parse_whole_number, quote_value
from masklet.core.outlines import join_polygons, trace_polygons
from masklet.core.result import VideoResult
from masklet.core.rle import Rle, encode_polygons
from masklet.core.tracks import Masklet
from masklet.io.exports.exported_results import IMAGES, ExportedResults

CVAT = "CVAT's annotations.xml 1.1"
Shape = Literal["mask", "polygon", "box"]


def write_cvat_images(results: ExportedResults, folder: Path, shape: Shape = "mask", tolerance: float = 0.0) -> None:
    """Writes CVAT's XML for images, in which every frame stands alone.

    Args:
        results: of videos.
        folder: which gets annotations.xml and, of videos that are given, images/<video>/<frame>.jpg.
        shape: mask, polygon or box
        tolerance: how far polygons may be from the mask's edge, in pixels; 0 keeps every pixel
    """
    names = [name for r in results for name in list_names(r)]
    write_xml(folder / "annotations.xml", describe_task(names), _list_image_elements(results, shape, tolerance))
    results.write_images(folder / IMAGES)


def _list_image_elements(results: ExportedResults, shape: Shape, tolerance: float) -> Iterator[Xml.Element]:
    numbers = count()
    for result in results:
        names = results.name_frames(result)
        size = {"width": str(result.size[1]), "height": str(result.size[0])}
        for t in results.iterate_frame_numbers(result):
            image = Xml.Element("image", {"id": str(next(numbers)), "name": f"{result.name}/{names[t]}.jpg", **size})
            for m, seen in result.at(t):
                own = {"label": result.name_of(m), "source": "auto", "occluded": "0"}
                for kind, place in format_shapes(seen.mask, shape, tolerance):
                    Xml.SubElement(image, kind, {**own, **place, "z_order": "0", "group_id": str(m.id)})
            yield image


def write_cvat_video(
    results: ExportedResults, folder: Path, shape: Literal["polygon", "box"] = "polygon", tolerance: float = 0.0
) -> None:
    """Writes CVAT's XML for videos, in which an object is a track; every sighting is a key frame.

    Args:
        results: of videos; each is a task of its own.
        folder: which gets <video>/annotations.xml and, of videos that are given, <video>/images/<frame>.jpg.
        shape: polygon or box; a track has one shape a frame, so parts are joined by cuts of no width
        tolerance: how far polygons may be from the mask's edge, in pixels; 0 keeps every pixel
    """
    for result in results:
        (folder / result.name).mkdir(parents=True)
        tracks = (_format_track(result, m, shape, tolerance) for m in result.masklets)
        write_xml(folder / result.name / "annotations.xml", describe_task(list_names(result), result), tracks)
        if results.has_video(result):
            results.write_images_of(result, folder / result.name / IMAGES)


def _format_track(result: VideoResult, m: Masklet, shape: Shape, tolerance: float) -> Xml.Element:
    track = Xml.Element("track", {"id": str(m.id), "label": result.name_of(m), "source": "auto"})
    for frame, outside in list_key_frames(m.sightings, result.length):
        seen = m.sightings[frame - outside]
        facts = {"frame": str(frame), "keyframe": "1", "outside": str(int(outside)), "occluded": "0"}
        for kind, place in format_shapes(seen.mask, shape, tolerance, join=True):
            Xml.SubElement(track, kind, {**facts, **place, "z_order": "0"})
    return track


def list_names(result: VideoResult) -> list[str]:
    """The names of a result's categories and objects, each once."""
    return list(dict.fromkeys([*result.categories, *map(result.name_of, result.masklets)]))


def list_key_frames(sightings: Mapping[int, Any], length: int) -> Iterator[tuple[int, bool]]:
    """The frames that a track lists, and whether it is outside from there on: every sighting, and the frame after one
    that no sighting follows.

    >>> list(list_key_frames({0: "", 1: "", 4: ""}, 5))
    [(0, False), (1, False), (2, True), (4, False)]
    """
    for t in sorted(sightings):
        yield t, False
        if t + 1 < length and t + 1 not in sightings:
            yield t + 1, True


def format_shapes(mask: Rle, shape: Shape, tolerance: float, join: bool = False) -> list[tuple[str, dict[str, str]]]:
    """The elements that say a mask: their tags and what they say; a polygon for each of its parts, or one for all where
    these are to be joined.
    """
    x0, y0, x1, y1 = mask.box
    if shape == "mask":
        return [("mask", format_cvat_mask(mask))]
    if shape == "box":
        return [("box", {"xtl": str(x0), "ytl": str(y0), "xbr": str(x1), "ybr": str(y1)})]
    polygons = trace_polygons(mask, tolerance)
    polygons = [join_polygons(polygons)] if join else polygons
    return [("polygon", {"points": ";".join(f"{x},{y}" for x, y in p.tolist())}) for p in polygons]


def format_cvat_mask(mask: Rle) -> dict[str, str]:
    """A mask as CVAT says it: run lengths row by row over the box, the first outside.

    >>> format_cvat_mask(Rle.encode_pixels(np.array([[0, 0, 0], [0, 1, 1], [0, 0, 1]], bool)))
    {'rle': '0, 2, 1, 1', 'left': '1', 'top': '1', 'width': '2', 'height': '2'}
    """
    x0, y0, x1, y1 = mask.box
    runs = count_runs(mask.decode_pixels()[y0:y1, x0:x1].ravel())
    place = {"left": x0, "top": y0, "width": x1 - x0, "height": y1 - y0}
    return {"rle": ", ".join(map(str, runs)), **{name: str(value) for name, value in place.items()}}


def count_runs(values: np.ndarray) -> list[int]:
    """The lengths of a row's runs, the first of those that are not set.

    >>> count_runs(np.array([True, True, False])), count_runs(np.array([False]))
    ([0, 2, 1], [1])
    """
    ends = np.flatnonzero(np.diff(values)) + 1
    runs: list[int] = np.diff([0, *ends, len(values)]).tolist()
    return [0, *runs] if values[0] else runs


def describe_task(names: list[str], result: VideoResult | None = None) -> Xml.Element:
    """What CVAT says of a task: its labels; of one `result` its size and length, too."""
    meta = Xml.Element("meta")
    task = Xml.SubElement(meta, "task")
    if result is not None:
        facts = {"name": result.name, "size": str(result.length), "mode": "interpolation"}
        for tag, text in facts.items():
            Xml.SubElement(task, tag).text = text
        size = Xml.SubElement(task, "original_size")
        for tag, pixels in zip(("height", "width"), result.size, strict=True):
            Xml.SubElement(size, tag).text = str(pixels)
    labels = Xml.SubElement(task, "labels")
    for name in dict.fromkeys(names):
        label = Xml.SubElement(labels, "label")
        Xml.SubElement(label, "name").text = name
        Xml.SubElement(label, "attributes")
    return meta


def write_xml(path: Path, meta: Xml.Element, elements: Iterable[Xml.Element]) -> None:
    """Writes annotations.xml, one element after the other. Raises InputError where a text is none that XML can hold."""
    version = Xml.Element("version")
    version.text = "1.1"
    with write_atomically(path) as file:
        file.write(b"<?xml version='1.0' encoding='utf-8'?>\n<annotations>\n")
        for element in chain((version, meta), elements):
            for part in element.iter():
                for text in (part.text or "", *part.attrib.values()):
                    check_xml_text("cvat", text)
            Xml.indent(element, level=1)
            file.write(b"  " + Xml.tostring(element, encoding="utf-8").rstrip() + b"\n")
        file.write(b"</annotations>\n")


def check_xml_text(form: str, text: str) -> None:
    """Raises InputError where a `text` of a `form` has characters that no XML can hold."""
    if any((c < " " and c not in "\t\n\r") or "\ud800" <= c <= "\udfff" or c in "\ufffe\uffff" for c in text):
        raise InputError(f"{form}: the name {quote_value(text)} has characters that XML cannot hold; rename it")


# -- reading


class CvatShape:
    """One shape of a file, with its place and the video's or image's size where the file says it."""

    def __init__(
        self,
        where: str,
        element: Xml.Element,
        label: str,
        name: str | None,
        frame: int | None,
        size: tuple[int, int] | None,
    ) -> None:
        self.where, self.element, self.label, self.name, self.frame = where, element, label, name, frame
        self.size = size

    @property
    def group(self) -> str:
        """What the shapes of one object of an image have in common; "" where it says nothing."""
        said = self.element.get("group_id", "0")
        return "" if said == "0" or self.name is None else said

    def read(self, size: tuple[int, int]) -> tuple[Rle | None, tuple[float, float, float, float] | None]:
        """The mask, or the box x, y, width, height, in a frame of `size` (h, w). Raises InputError where it is none."""
        try:
            return self._read(size)
        except (KeyError, ValueError) as error:
            raise InputError(f"{self.where}: {error}") from None

    def _read(self, size: tuple[int, int]) -> tuple[Rle | None, tuple[float, float, float, float] | None]:
        told = self.element.attrib
        if self.element.tag == "box":
            x0, y0, x1, y1 = (_read_number(told[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
            return None, (x0, y0, x1 - x0, y1 - y0)
        if self.element.tag == "polygon":
            points = [_read_number(v) for pair in told["points"].split(";") for v in pair.split(",")]
            return encode_polygons([points], size), None
        return parse_cvat_mask(told, size), None


def _read_number(text: str) -> float:
    number = float(text)
    if not is_finite_number(number):
        raise ValueError(f"{quote_value(text)} is no number")
    return number


def parse_cvat_mask(told: Mapping[str, str], size: tuple[int, int]) -> Rle:
    """The mask of `size` (h, w) that a mask element says. Raises ValueError or KeyError where it says none.

    >>> parse_cvat_mask(dict(rle="0, 2, 1, 1", left="1", top="1", width="2", height="2"), (3, 3)).area
    3
    """
    place = [parse_whole_number(told[key].strip()) for key in ("left", "top", "width", "height")]
    runs = [parse_whole_number(run.strip()) for run in told["rle"].split(",")]
    if None in place or None in runs:
        raise ValueError("a mask needs whole numbers from 0 on")
    x, y, w, h = (v or 0 for v in place)
    lengths = [v or 0 for v in runs]
    if not (w and h and x + w <= size[1] and y + h <= size[0]):
        raise ValueError(f"a mask of {w}x{h} pixels at {x}, {y} is not within the {size[1]}x{size[0]} of the frame")
    if sum(lengths) != w * h:
        raise ValueError(f"run lengths fill {sum(lengths)} pixels, not the {w}x{h} of the mask's box")
    pixels = np.zeros(size, bool)
    pixels[y : y + h, x : x + w] = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(h, w)
    return Rle.encode_pixels(pixels)


def read_cvat_shapes(path: Path) -> tuple[list[CvatShape], list[tuple[str | None, int | None]]]:
    """The shapes of a file, and every image or frame that it lists (its name or number). Raises InputError where it is
    no such file.
    """
    data = read_bytes(path, CVAT)
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise InputError(f"{path}: declares entities, which CVAT does not; give {CVAT}")
    try:
        top = Xml.fromstring(data)
    except Xml.ParseError as error:
        raise InputError(f"{path}: not XML, or cut off ({error}); give {CVAT}") from None
    if top.tag != "annotations":
        raise InputError(f"{path}: not {CVAT}")
    shapes = [*_list_image_shapes(path, top), *_list_track_shapes(path, top)]
    images = [(image.get("name"), None) for image in top.iter("image")]
    listed: list[tuple[str | None, int | None]] = [*images, *((s.name, s.frame) for s in shapes)]
    return shapes, list(dict.fromkeys(listed))


TAGS = ("mask", "polygon", "box")


def _list_image_shapes(path: Path, top: Xml.Element) -> Iterator[CvatShape]:
    for image in top.iter("image"):
        name = image.get("name")
        if not name:
            raise InputError(f"{path}: an image without a name; give {CVAT}")
        for n, element in enumerate(e for e in image if e.tag in TAGS):
            where = f"{path}: {name}, shape {n}"
            label = check_text(where, "'label'", element.get("label"))
            yield CvatShape(where, element, label, name, None, _read_size(image.get("height"), image.get("width")))


def _read_size(height: str | None, width: str | None) -> tuple[int, int] | None:
    """Height and width that a file says; None where it says none that can be."""
    h, w = parse_whole_number(height or ""), parse_whole_number(width or "")
    return (h, w) if h and w else None


def _list_track_shapes(path: Path, top: Xml.Element) -> Iterator[CvatShape]:
    size = _read_size(top.findtext(".//original_size/height"), top.findtext(".//original_size/width"))
    for track in top.iter("track"):
        place = f"{path}: track {track.get('id')}"
        label = check_text(place, "'label'", track.get("label"))
        for n, element in enumerate(e for e in track if e.tag in TAGS and e.get("outside", "0") == "0"):
            frame = parse_whole_number(element.get("frame", ""))
            if frame is None:
                raise InputError(f"{place}, shape {n}: 'frame' must be a whole number from 0 on")
            yield CvatShape(f"{place}, frame {frame}", element, label, None, frame, size)
