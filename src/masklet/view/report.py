"""The page with the data in it: a result to look at where there is no server, as one file or as a folder."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from masklet.core.errors import InputError
from masklet.core.files import write_atomically
from masklet.core.frames import Video
from masklet.core.progress import Watch, discard_progress
from masklet.core.result import VideoResult
from masklet.core.timeline import bin_track
from masklet.core.wording import name_argument
from masklet.view.desk import Desk, ResultEditor
from masklet.view.frame_store import encode_frame
from masklet.view.server import read_page_file
from masklet.view.survey import Survey
from masklet.view.verbs import describe_video, list_masks, list_suspicious, list_times

SIDE, QUALITY = 960, 80  # of frames in a report: pixels of the longer side, and JPEG's, to 100
WINDOW = 32  # frames whose masks are in one file of a folder, as page.js has it
MOST_BYTES = 150_000_000  # of a report in one file: browsers hold all of it
STYLE, SCRIPT = '<link rel="stylesheet" href="/page/page.css">', '<script src="/page/page.js" defer></script>'


def write_report_page(result: VideoResult, video: Video | None, path: Path, watch: Watch = discard_progress) -> None:
    """Writes a result with its frames as one HTML file, which needs nothing else.

    Args:
        result: a short one.
        video: the one that it is of; None: masks alone are shown.
        path: of the file; what is there is replaced at once and whole.
        watch: is told how far the work is.

    Raises:
        InputError: the report would be too large for one file, the video ends too early, or the file cannot be
            written.
    """
    images, size = list[str](), 0
    for jpeg in iterate_jpegs(result, video, watch):
        images.append(base64.b64encode(jpeg).decode())
        size += len(images[-1])
        if size > MOST_BYTES:
            raise refuse_size(path)
    masks = [row for start in range(0, result.length, WINDOW) for row in list_window(result, start)]
    text = build_page({**collect_facts(result, video), "images": images, "masks": masks})
    if len(text) > 2 * MOST_BYTES:
        raise refuse_size(path)
    with write_atomically(path) as file:
        file.write(text)


def refuse_size(path: Path) -> InputError:
    """What is said of a report that is too large."""
    return InputError(
        f"{path}: the report would be too large for one file; make a folder of it "
        f"({name_argument('write_report_folder', option='folder')})"
    )


def write_report_folder(
    result: VideoResult, video: Video | None, folder: Path, watch: Watch = discard_progress
) -> None:
    """Writes a result with its frames into a `folder` that is there and empty: index.html and what it loads piece by
    piece, so that the video may be long. The arguments, `watch` too, are those of `write_report_page`.
    """
    for name in ("frames", "masks"):
        (folder / name).mkdir()
    for n, data in enumerate(iterate_jpegs(result, video, watch)):
        (folder / "frames" / f"{n}.jpg").write_bytes(data)
    for start in range(0, result.length, WINDOW):
        rows = format_data(list_window(result, start))
        (folder / "masks" / f"{start}.js").write_text(f"giveMasks({start},{rows});\n")
    (folder / "index.html").write_bytes(build_page(collect_facts(result, video), "'self' file:"))


def iterate_jpegs(result: VideoResult, video: Video | None, watch: Watch) -> Iterator[bytes]:
    """The frames of a result's video as JPEGs, of which `watch` is told; none where there is no video. Raises
    InputError where it ends before the result.
    """
    if video is None:
        return
    done = 0
    for frame in video:
        if frame.index >= result.length:
            break
        yield encode_frame(frame.image, SIDE, QUALITY)
        done = frame.index + 1
        watch(result.name, done, result.length, len(result.masklets))
    if done < result.length:
        raise InputError(f"{result.name}: only {done} of the video's {result.length} frames could be read")


def list_window(result: VideoResult, start: int) -> list[Any]:
    """The masks of `WINDOW` frames from `start` on, as the page takes them."""
    found: list[Any] = list_masks(make_closed_desk(result), start, start + WINDOW)["frames"]
    return found


def collect_facts(result: VideoResult, video: Video | None) -> dict[str, Any]:
    """What the page asks of a server, answered once and for all."""
    desk = make_closed_desk(result)
    survey = Survey(result)
    survey.run()
    desk.take_survey(survey)
    tracks = {m.id: bin_track(survey.find_track(m), 0, result.length, result.length) for m in result.masklets}
    described = {**describe_video(desk), "has_frames": video is not None, "can_edit": False, "unsaved": False}
    return {
        "describe": described,
        "times": list_times(desk),
        "suspicious": list_suspicious(desk),
        "timeline": {"objects": {id: track._asdict() for id, track in tracks.items()}},
        "progress": {"name": "", "running": False},
    }


def make_closed_desk(result: VideoResult) -> Desk:
    """A result as the verbs want it, which nobody changes."""
    return Desk(result.name, ResultEditor(result), Path())


def build_page(data: Any, scripts: str = "") -> bytes:
    """The page with `data` in it. Only its own script and style may run, and `scripts` besides; nothing is sent
    anywhere.
    """
    style, script = (read_page_file(name).decode() for name in ("page.css", "page.js"))
    policy = (
        f"default-src 'none'; script-src {compute_source_hash(script)} {scripts}; "
        f"style-src {compute_source_hash(style)}; "
        "img-src data: blob: 'self' file:; base-uri 'none'; form-action 'none'"
    )
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>'
    body = f'<script id="data" type="application/json">{format_data(data)}</script>\n<script>{script}</script>\n</body>'
    page = read_page_file("index.html").decode()
    return page.replace(STYLE, head).replace(SCRIPT, "").replace("</body>", body).encode()


def format_data(data: Any) -> str:
    """A value as JSON that can stand in a script: nothing in it ends the element.

    >>> format_data("</script>")
    '"\\\\u003c/script>"'
    """
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def compute_source_hash(text: str) -> str:
    """A text's hash, as a Content-Security-Policy names what may run."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
