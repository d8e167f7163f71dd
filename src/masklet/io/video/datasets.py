"""Data sets as they are unpacked: where their videos are, and the annotations that `masklet track` is given.

A root is the folder that holds a data set, or one of its parts such as `valid`. A new layout is a line in `LAYOUTS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from masklet.core.errors import InputError
from masklet.core.files import read_text
from masklet.core.limits import check_relative_path
from masklet.core.wording import name_argument
from masklet.io.video.images import is_image_file
from masklet.io.video.source_names import sort_naturally

PARTS = ("valid", "val", "test", "train", "testing", "training")  # what folders of parts are called, the usual first
DEFAULT_LIST = "val"
TOLD = 3  # names in a message

GivenPrompts = Sequence[
    tuple[Path, int | None]
]  # label images in the order of their frames; the id of one's only object


@dataclass(frozen=True)
class DatasetLayout:
    """Where a data set has its files, within a root; of several places the first that is there.

    Attributes:
        help: the data sets that have it.
        frames: folders with a folder of images for each video; `*` is any folder, `{}` that of the part.
        annotations: folders with the annotations of each video.
        lists: files with the names of a part's videos, `{}` the part's name.
        given: which annotations of a video's folder say where the objects are that are to be tracked.
        inner: the folder in each video's own that has its images; "": the video's own has them.
        dense: folder beside the root with more frames of each video, `{}` the root's name; only the names of the
            others are asked for.
        overlaps: whether objects are asked for one by one, so that their masks may overlap.
    """

    help: str
    frames: Sequence[str]
    annotations: Sequence[str] = ()
    lists: Sequence[str] = ()
    given: Callable[[Path], GivenPrompts] | None = None
    inner: str = ""
    dense: str = ""
    overlaps: bool = False


@dataclass(frozen=True)
class DatasetVideo:
    """One video of a data set.

    Attributes:
        source: the folder of its frames.
        annotations: the folder of its annotations; None where the data set has none for it.
        given: those of them that may say where the objects are; empty where none does.
        name: of the video.
        shown: the names of the frames, without suffix, whose masks are asked for; empty: of all.
        objects: the names of its objects' folders, where they have some, in the order of their ids.
        overlaps: whether its objects' masks may overlap.
    """

    source: str
    annotations: Path | None = None
    given: GivenPrompts = ()
    name: str = ""
    shown: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    overlaps: bool = False


def list_first_image(folder: Path) -> GivenPrompts:
    """The first label image alone: objects that appear later are not tracked."""
    return list_all_images(folder)[:1]


def list_all_images(folder: Path) -> GivenPrompts:
    """All label images: an object is given in the first that shows it."""
    return [(path, None) for path in sort_naturally(p for p in folder.iterdir() if is_image_file(p))]


def list_object_images(folder: Path) -> GivenPrompts:
    """The masks in a folder for each object, whose ids count from 1 in the order of the folders."""
    objects = _list_subfolders(folder)
    return [(path, id) for id, one in enumerate(objects, start=1) for path, _ in list_all_images(one)]


def _list_subfolders(folder: Path) -> list[Path]:
    return sort_naturally(p for p in folder.iterdir() if p.is_dir())


LAYOUTS: Mapping[str, DatasetLayout] = {
    "davis": DatasetLayout(
        "DAVIS 2016, 2017, 2019",
        ("JPEGImages/480p", "JPEGImages/1080p", "JPEGImages/Full-Resolution"),
        ("Annotations/480p", "Annotations/1080p", "Annotations/Full-Resolution"),
        ("ImageSets/2017/{}.txt", "ImageSets/2019/{}.txt", "ImageSets/2016/{}.txt"),
        list_first_image,
    ),
    "ytvos": DatasetLayout(
        "YouTube-VOS",
        ("JPEGImages",),
        ("Annotations",),
        given=list_all_images,
        dense="{}_all_frames/JPEGImages",
    ),
    "mose": DatasetLayout("MOSE 1 and 2", ("JPEGImages",), ("Annotations",), given=list_first_image),
    "lvos": DatasetLayout("LVOS", ("JPEGImages",), ("Annotations",), given=list_all_images),
    "vost": DatasetLayout("VOST", ("JPEGImages",), ("Annotations",), ("ImageSets/{}.txt",), list_first_image),
    "pumavos": DatasetLayout("PUMaVOS", ("JPEGImages",), ("Annotations",), given=list_first_image),
    "sav": DatasetLayout(
        "SA-V", ("JPEGImages_24fps",), ("Annotations_6fps",), ("sav_{}.txt",), list_object_images, overlaps=True
    ),
    "ytvis": DatasetLayout("YouTube-VIS, HQ-YTVIS", ("JPEGImages",)),
    "ovis": DatasetLayout("OVIS", ("{}",)),
    "vipseg": DatasetLayout("VIPSeg", ("imgs", "images"), lists=("{}.txt",)),
    "vspw": DatasetLayout("VSPW", ("data",), lists=("{}.txt",), inner="origin"),
    "ref-ytvos": DatasetLayout("Ref-YouTube-VOS, Ref-DAVIS", ("JPEGImages",)),
    "burst": DatasetLayout("BURST, TAO", ("frames/{}/*",)),
    "kitti-mots": DatasetLayout("KITTI MOTS", ("{}/image_02",)),
}


def describe_layouts() -> str:
    """The names for a line of help."""
    return ", ".join(LAYOUTS)


def list_dataset_videos(dataset: str, root: Path) -> list[DatasetVideo]:
    """The videos of a data set.

    Args:
        dataset: its name in `LAYOUTS`; or NAME:PART, a part of it, such as davis:train or ytvos:valid, or a file with
            the names of videos, one a line, or a split's json.
        root: the folder that holds it, or a part of it.

    Returns:
        The videos of the list that the data set has for the part (without one: of `DEFAULT_LIST`, where it has that),
        else all, in the order of their names.

    Raises:
        InputError: there is no such data set, nothing of it is in the root, or the frames of videos on the list are
            not.
    """
    name, _, part = dataset.partition(":")
    if name not in LAYOUTS:
        raise InputError(f"{name_argument('dataset', dataset)}: no such data set; there are: {describe_layouts()}")
    layout = LAYOUTS[name]
    base, folders = _find_frames(name, layout, root, part)
    there = {p.name: p for folder in folders for p in _list_subfolders(folder)}
    names = _read_list(layout, base, part) or list(there)
    missing = [n for n in names if n not in there]
    if missing or not names:
        raise InputError(
            f"{folders[0]}: no frames of {_list_some(missing) or 'any video'}; unpack them all, or give a list"
        )
    return [_describe_video(layout, base, there[n]) for n in names]


def list_prompted_videos(dataset: str, root: Path) -> list[DatasetVideo]:
    """As `list_dataset_videos`, of a data set that says where the objects of its videos are. Raises InputError, too,
    where it does not, with the names of all videos of which it says nothing.
    """
    videos = list_dataset_videos(dataset, root)
    silent = [video.name for video in videos if not video.given]
    if silent:
        wanted = " or ".join(LAYOUTS[dataset.partition(":")[0]].annotations) or "annotations of first frames"
        raise InputError(
            f"{root}: no {wanted} of {_list_some(silent)}, of {len(videos)} videos; give a root that has them, a list "
            f"of those that do, or {name_argument('prompts')} without {name_argument('dataset')}"
        )
    return videos


def _list_some(names: Sequence[str]) -> str:
    return ", ".join(names[:TOLD]) + (f" and {len(names) - TOLD} more" if len(names) > TOLD else "")


def _find_frames(name: str, layout: DatasetLayout, root: Path, part: str) -> tuple[Path, list[Path]]:
    """The folder that holds the layout, and in it the folders with videos. Raises InputError where there is none, or
    several and the `part` names none of them.
    """
    found = {p: folders for p in ("", *PARTS) if (folders := _find_first(root / p, layout.frames, part))}
    if not root.is_dir() or not found:
        wanted = " or ".join(layout.frames[:2])
        raise InputError(f"{root}: holds no {wanted}, as {layout.help} has it; give the folder that does")
    chosen = next((p for p in ("", part) if p in found), None) if len(found) > 1 else next(iter(found))
    if chosen is None:
        some = ", ".join(name_argument("dataset", f"{name}:{p}") for p in found)
        raise InputError(f"{root}: holds several parts of {layout.help}; give one of them: {some}")
    return root / chosen, found[chosen]


def _find_first(base: Path, places: Sequence[str], part: str = "") -> list[Path]:
    """The folders of the first of some places that is there, for a `part` or the most usual one."""
    for place in (place.format(p) for place in places for p in ([part] if part else PARTS)):
        if found := [p for p in sort_naturally(base.glob(place)) if p.is_dir()]:
            return found
    return []


def _read_list(layout: DatasetLayout, base: Path, part: str) -> list[str]:
    """The names of the videos of a part; none where all are meant. Raises InputError where a part has no list."""
    own = [base / place.format(part or DEFAULT_LIST) for place in layout.lists]
    given = Path(part) if part and Path(part).is_file() else next((p for p in own if p.is_file()), None)
    if given is None and part and layout.lists:
        raise InputError(f"{base}: no {' or '.join(str(p.relative_to(base)) for p in own)}; give {part!r} as a file")
    if given is None:
        return []
    if given.suffix == ".json":
        from masklet.io.formats.submission import read_dataset_split  # which reads videos itself

        return list(read_dataset_split(given).videos)
    names = list(dict.fromkeys(line.strip() for line in read_text(given, "a name a line").splitlines() if line.strip()))
    return [check_relative_path(str(given), n) for n in names]


def _describe_video(layout: DatasetLayout, base: Path, frames: Path) -> DatasetVideo:
    is_nested = any(place.endswith("/*") for place in layout.frames)  # a video is called by both folders
    found = [p / frames.name for p in _find_first(base, layout.annotations) if (p / frames.name).is_dir()]
    dense = base.parent / layout.dense.format(base.name) / frames.name if layout.dense else frames
    is_dense = dense != frames and dense.is_dir()
    return DatasetVideo(
        str(dense if is_dense else frames / layout.inner),
        found[0] if found else None,
        layout.given(found[0]) if found and layout.given else (),
        f"{frames.parent.name}/{frames.name}" if is_nested else frames.name,
        tuple(path.stem for path, _ in list_all_images(frames)) if is_dense else (),
        tuple(p.name for p in _list_subfolders(found[0])) if found and layout.overlaps else (),
        layout.overlaps,
    )


def guess_layouts(root: Path) -> list[str]:
    """The names of the data sets whose layout a folder has, those with the most particular places first."""
    fits = [n for n, layout in LAYOUTS.items() if any(_find_first(root / p, layout.frames) for p in ("", *PARTS))]
    return [n for n in fits if LAYOUTS[n].frames != ("JPEGImages",)] or fits
