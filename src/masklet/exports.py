"""Saved results in other forms: the door of `masklet export` and of `VideoResult.export`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from masklet.builtins import EXPORTS, FORMATS
from masklet.core.choices import check_choice
from masklet.core.errors import InputError
from masklet.core.frames import Video
from masklet.core.limits import quote_value
from masklet.core.progress import Watch, discard_progress
from masklet.core.result import VideoResult
from masklet.core.settings import check_setting
from masklet.core.wording import name_argument
from masklet.io.exports.exported_results import IMAGES, ExportedResults
from masklet.io.output_folder import OutputFolder
from masklet.io.video.sources import reopen_video
from masklet.registry import list_part_settings

NO_SETTINGS: Mapping[str, Any] = {}


def export_results(
    results: Sequence[VideoResult],
    form: str,
    folder: str | Path,
    frames: Mapping[str, Any] | None = None,
    *,
    overwrite: bool = False,
    settings: Mapping[str, Any] = NO_SETTINGS,
    reading: Mapping[str, Any] = NO_SETTINGS,
    watch: Watch = discard_progress,
) -> Path:
    """Writes results in another form, whole or not at all.

    Args:
        results: of one video each.
        form: the name of a format or an export, as `masklet export --help` lists them.
        folder: a new folder.
        frames: the videos by the results' names, as anything that `open_video` takes; the images that the form refers
            to are written from them.
        overwrite: whether what is in the folder already is replaced.
        settings: of the export, such as {"polygons": True} of "coco".
        reading: how the videos are read, as keyword arguments of `open_video`, such as {"stride": 2}; where it chooses
            no frames, as each was read when its result was made.
        watch: is told how far the work is.

    Returns:
        The folder.

    Raises:
        InputError: there is no such form or setting, the form cannot hold a result, a video is not the one that its
            result is of, or the folder is filled or cannot be written; nothing is left then.
    """
    out = Path(folder)
    chosen = check_export_settings(form, settings)
    target = OutputFolder(out.parent, out.name, overwrite)
    target.check_free()
    with ExitStack() as stack:
        sources = frames or {}
        videos = {r.name: _open_frames(r, sources[r.name], reading, stack) for r in results if r.name in sources}
        exported = ExportedResults(results, videos, watch)
        with explain_odd_names(form), target as partial:
            if form in FORMATS.names:
                _write_format(exported, form, partial)
            else:
                EXPORTS[form](exported, partial, **chosen)
    return out


@contextmanager
def explain_odd_names(form: str) -> Iterator[None]:
    """Within the block, a name that no text in UTF-8 can hold, as those of some files are, becomes an InputError."""
    try:
        yield
    except UnicodeEncodeError as error:
        odd = error.object[max(error.start - 20, 0) : error.end]
        raise InputError(
            f"{form}: the name {quote_value(odd)} is no text in UTF-8; rename the object or frame"
        ) from None


def check_export_settings(form: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a form, checked. Raises InputError where there is no such form or setting, or a value is of
    another kind.
    """
    check_choice("form", form, (*FORMATS.names, *EXPORTS.names))
    known = {} if form in FORMATS.names else list_part_settings(EXPORTS.find(form))
    if settings and not known:
        raise InputError(f"{form}: has no settings, so {', '.join(settings)} cannot be set")
    return {
        name: check_setting(f"{form}.", name, value, known[check_choice(f"setting of {form}", name, known)].kind)
        for name, value in settings.items()
    }


def _open_frames(result: VideoResult, source: Any, reading: Mapping[str, Any], stack: ExitStack) -> Video:
    if isinstance(source, Video):
        return source
    opened = reopen_video(result, source, reading)
    stack.callback(opened.close)
    return opened


def _write_format(results: ExportedResults, form: str, folder: Path) -> None:
    """A folder for each video, as `masklet run --format NAME` has it, the images beside it."""
    write = FORMATS[form]
    for result in results:
        (folder / result.name).mkdir(parents=True)
        write(result, results.find_own_frame_names(result), folder / result.name)
        if results.has_video(result):
            results.write_images_of(result, folder / result.name / IMAGES / result.name)
        results.watch(result.name, result.length, result.length, len(result.masklets))


def find_frame_sources(results: Sequence[VideoResult], sources: Sequence[str]) -> dict[str, str]:
    """The videos that `frames` means, by the results' names.

    Args:
        results: of one video each.
        sources: nothing; one for each result, in their order; or one folder in which each result's video is, called
            like it.

    Raises:
        InputError: there are as many as neither, or a result has no video in the folder.
    """
    if not sources:
        return {}
    if len(sources) == 1:
        return {r.name: _find_in_folder(r, sources[0], alone=len(results) == 1) for r in results}
    if len(sources) != len(results):
        raise InputError(
            f"{name_argument('frames')}: {len(sources)} videos for {len(results)} results; give one for each, in "
            "their order, or the "
            "folder that all are in"
        )
    return {r.name: source for r, source in zip(results, sources, strict=True)}


def _find_in_folder(result: VideoResult, source: str, alone: bool) -> str:
    """The folder or file of a result's name in `source`; `source` itself where that is the only result's video."""
    folder = Path(source)
    inside = folder / result.name
    found = [inside] if inside.is_dir() else sorted(inside.parent.glob(f"{_escape_glob(inside.name)}.*"))
    if folder.is_dir() and len(found) == 1:
        return str(found[0])
    if not alone:
        told = f"{len(found)} videos called {result.name} there; give one for each result"
        raise InputError(f"{name_argument('frames', source)}: {told}")
    return source


def _escape_glob(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
