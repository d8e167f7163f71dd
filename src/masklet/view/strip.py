"""A result as a piece of HTML that needs nothing else: a strip of frames to scrub through, and its objects."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import replace
from html import escape

import cv2
import numpy as np

from masklet.core.result import VideoResult
from masklet.view.drawing import DrawingStyle, collect_drawn_objects, draw_objects, pick_object_colour
from masklet.view.strokes import Rgb

FRAMES = 12  # of a strip
SIDE = 320  # pixels of its images' longer side
MOST_BYTES = 17_000  # of an image: with all of them as text, a strip has 300 kB at most
OBJECTS = 12  # that are listed
LONGEST = 60  # characters of a name
GROUND = 40  # grey where the video is not at hand
SCRUB = "[...this.parentNode.querySelectorAll('figure')].forEach((f, n) => { f.hidden = n != this.value })"


def choose_strip_frames(length: int) -> list[int]:
    """The frames of a strip, from the first to the last at even distances.

    >>> choose_strip_frames(3), choose_strip_frames(24)
    ([0, 1, 2], [0, 2, 4, 6, 8, 10, 13, 15, 17, 19, 21, 23])
    """
    return sorted({int(t) for t in np.linspace(0, max(length - 1, 0), FRAMES).round()}) if length else []


def render_strip(result: VideoResult, images: Mapping[int, Rgb]) -> str:
    """The HTML of a result.

    Args:
        result: of one video.
        images: its frames by number, those of `choose_strip_frames` or fewer; masks are drawn on grey in place of
            others.

    Returns:
        At most about 300 kB, however long the video and its names are. Names are escaped.
    """
    frames = choose_strip_frames(result.length)
    figures = [_render_figure(result, t, images.get(t), shown=n == 0) for n, t in enumerate(frames)]
    style = "width:100%;margin:0"
    slider = (
        f'<input type="range" min="0" max="{len(frames) - 1}" value="0" aria-label="frame" style="{style}" '
        f'oninput="{escape(SCRUB)}">'
    )
    strip = f'<div style="flex:0 1 {SIDE}px">{"".join(figures)}{slider if len(frames) > 1 else ""}</div>'
    columns = "display:flex;flex-wrap:wrap;gap:16px;align-items:flex-start"
    h, w = result.size
    head = f"{_shorten(result.name)}: {w}x{h}, {result.length} frames, {result.rate:g} per second"
    return (
        '<div style="font:13px/1.4 system-ui,sans-serif">'
        f'<div style="font-weight:600;margin-bottom:4px">{head}</div>'
        f'<div style="{columns}">{strip}{_render_objects(result)}</div></div>'
    )


def _render_figure(result: VideoResult, frame: int, image: Rgb | None, shown: bool) -> str:
    data = b64encode(_encode_small(_draw_small(result, frame, image))).decode()
    said = f"frame {frame}"
    return (
        f'<figure style="margin:0"{"" if shown else " hidden"}>'
        f'<img src="data:image/jpeg;base64,{data}" alt="{said}" style="width:100%;max-width:{SIDE}px">'
        f"<figcaption>{said}</figcaption></figure>"
    )


def _draw_small(result: VideoResult, frame: int, image: Rgb | None) -> Rgb:
    """A frame with its objects, no longer than `SIDE`, square pixels."""
    h, w = result.size[0], max(round(result.size[1] * result.pixel_aspect), 1)
    scale = min(1.0, SIDE / max(h, w))
    size = max(round(w * scale), 1), max(round(h * scale), 1)
    if image is None:
        ground = np.full((size[1], size[0], 3), GROUND, np.uint8)
    else:
        ground = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    objects = [
        replace(thing, mask=cv2.resize(thing.mask.view(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0)
        for thing in collect_drawn_objects(result, frame)
    ]
    return draw_objects(ground, objects, DrawingStyle(labels=False))


def _encode_small(image: Rgb) -> bytes:
    """A JPEG of at most `MOST_BYTES`, as good as it can be."""
    for quality in (80, 60, 40, 20, 5):
        data: bytes = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) <= MOST_BYTES:
            break
    return data


def _render_objects(result: VideoResult) -> str:
    """The objects in rows, in their colours."""
    rows = []
    for m in result.masklets[:OBJECTS]:
        colour = "#{:02x}{:02x}{:02x}".format(*pick_object_colour(m.id))
        dot = f'<span style="color:{colour}">&#9632;</span>'
        cells = f"{dot} {_shorten(result.name_of(m))} {m.id}", f"{len(m.sightings)} frames", f"{m.score:.2f}"
        rows.append("<tr>" + "".join(f'<td style="text-align:left;padding:1px 8px">{cell}</td>' for cell in cells))
    more = len(result.masklets) - OBJECTS
    if more > 0 or not rows:
        said = f"{more} more objects" if more > 0 else "no objects"
        rows.append(f'<tr><td style="text-align:left;padding:1px 8px">{said}</td>')
    return f"<table style='color:inherit;font:inherit'>{''.join(f'{row}</tr>' for row in rows)}</table>"


def _shorten(name: str) -> str:
    """A name as HTML, cut off where it is long."""
    return escape(name if len(name) <= LONGEST else f"{name[:LONGEST]}...")
