"""What a run leaves in its folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from masklet.builtins import FORMATS
from masklet.core.ahead import iterate_ahead
from masklet.core.errors import InputError
from masklet.core.frames import Video, get_frame_names
from masklet.core.progress import Watch
from masklet.core.result import VideoResult
from masklet.io.formats.burst import write_burst
from masklet.io.formats.cocovid import write_cocovid
from masklet.io.formats.davis import write_davis, write_davis16, write_referring
from masklet.io.formats.mots import choose_mots_classes, write_mots
from masklet.io.formats.panoptic import write_panoptic
from masklet.io.formats.postprocess import limit_objects
from masklet.io.formats.ytvis import write_ytvis
from masklet.io.video.encode import VideoWriter
from masklet.view.drawing import draw_result

Names = Sequence[str] | None  # of the frames, where the source has them


def find_frame_names(video: Video, length: int) -> Names:
    """The frames' names in a folder of frames; None where they have none, or two have the same."""
    found = get_frame_names(video)
    return found[:length] if found and len(set(found)) == len(found) else None


def map_frame_names(result: VideoResult, names: Names) -> Mapping[str, Sequence[str]] | None:
    """The frames' names by video."""
    return None if names is None else {result.name: names}


def put_davis(result: VideoResult, names: Names, folder: Path) -> None:
    """Puts DAVIS 2017's palette PNGs of `result` into `folder`; `names` are its frames'."""
    write_davis(result, folder / "davis", names)


def put_davis16(result: VideoResult, names: Names, folder: Path) -> None:
    """Puts DAVIS 2016's black and white PNGs of `result` into `folder`; `names` are its frames'."""
    write_davis16(result, folder / "davis16", names)


def put_davis_unsupervised(result: VideoResult, names: Names, folder: Path) -> None:
    """Puts DAVIS 2017's palette PNGs of the 20 best objects of `result` into `folder`; `names` are its frames'."""
    write_davis(limit_objects(result), folder / "davis-unsupervised", names)


def put_ref(result: VideoResult, names: Names, folder: Path) -> None:
    """Puts a folder of PNGs for each object (Ref-DAVIS) of `result` into `folder`; `names` are its frames'."""
    write_referring(result, folder / "ref", names)


def put_ytvis(result: VideoResult, names: Names, folder: Path) -> None:
    """Puts ytvis.json of `result` into `folder`; `names` are its frames'."""
    write_ytvis([result], folder / "ytvis.json")


def put_burst(result: VideoResult, names: Names, folder: Path) -> None:
    """Puts burst.json of `result` into `folder`; `names` are its frames'."""
    write_burst([result], folder / "burst.json", map_frame_names(result, names))


def put_vipseg(result: VideoResult, names: Names, folder: Path) -> None:
    """Puts VIPSeg's panoptic PNGs of `result` into `folder`; `names` are its frames'."""
    write_panoptic([result], folder / "vipseg", map_frame_names(result, names))


def put_mots(result: VideoResult, names: Names, folder: Path) -> None:
    """Puts mots.txt of `result` into `folder`; `names` are its frames'."""
    write_mots(result, folder / "mots.txt", choose_mots_classes(result))


def put_cocovid(result: VideoResult, names: Names, folder: Path) -> None:
    """Puts cocovid.json of `result` into `folder`; `names` are its frames'."""
    write_cocovid([result], folder / "cocovid.json", map_frame_names(result, names))


def write_formats(result: VideoResult, video: Video, folder: Path, formats: Sequence[str]) -> list[str]:
    """The formats asked for; returns what a format cannot say of this result."""
    failed = []
    for name in formats:
        try:
            FORMATS.find(name).load()(result, find_frame_names(video, result.length), folder)
        except InputError as error:  # the result itself is not lost by that
            failed.append(f"{name}: {error}")
    return failed


def write_overlay(result: VideoResult, video: Video, path: Path, watch: Watch) -> None:
    """The video with its masklets drawn in."""
    with VideoWriter(path, result.size, result.rate, result.pixel_aspect, bool(result.times)) as writer:
        drawn = ((frame.index, draw_result(frame.image, result, frame.index)) for frame in video)
        for index, image in iterate_ahead(drawn):
            writer.write(image, result.times[index] if result.times else 0.0)
            watch("overlay", index + 1, result.length, len(result.masklets))
