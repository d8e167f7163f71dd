"""The formats that a run writes beside its result, each into the result's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from masklet.core.result import VideoResult
from masklet.io.formats.burst import write_burst
from masklet.io.formats.cocovid import write_cocovid
from masklet.io.formats.davis import write_davis, write_davis16, write_referring
from masklet.io.formats.mots import choose_mots_classes, write_mots
from masklet.io.formats.panoptic import write_panoptic
from masklet.io.formats.postprocess import limit_objects
from masklet.io.formats.ytvis import write_ytvis
from masklet.outputs import Names


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
