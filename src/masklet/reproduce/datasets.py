"""The data sets of the papers, by their official layouts: where their parts lie, and what of one is missing.

`--data` is a folder that holds data sets under the names that they unpack to, or the root of one of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from masklet.core.errors import InputError
from masklet.io.video.datasets import LAYOUTS, DatasetVideo, list_dataset_videos

LISTS = ("{split}.json", "{split}/instances.json", "annotations/instances_{split}.json")


@dataclass(frozen=True)
class PaperSet:
    """One data set as the papers use it. In all places "{split}" is the split's name.

    Attributes:
        help: what it is called.
        layout: its name in `io.video.datasets.LAYOUTS`, which says where its frames are.
        folders: what its root is called when it is unpacked.
        frames: the folder within the root that has the layout.
        listing: files that list the videos of a split; of several the first that is there. None needed: all videos.
        truth: what the metric is told as ground truth; none: only the benchmark's server has it.
        needed: what else of the root the evaluation reads.
        given: whether the objects are given as masks in first frames.
        form: of the zip for the server; "": a folder of images.
        prefix: of the images in a zip.
        hidden: splits of which only the server has the truth.
        also: what the folder of a split is called elsewhere than in the recipes.
    """

    help: str
    layout: str
    folders: Sequence[str]
    frames: str = ""
    listing: Sequence[str] = ()
    truth: Sequence[str] = ()
    needed: Sequence[str] = ()
    given: bool = False
    form: str = ""
    prefix: str = ""
    hidden: Sequence[str] = ()
    also: Mapping[str, str] = field(default_factory=dict)

    def list_split_names(self, split: str) -> Sequence[str]:
        """What the folder of a `split` may be called, the usual name first."""
        return (split, self.also[split]) if split in self.also else (split,)


def _make_given_set(help: str, layout: str, folders: Sequence[str], **more: object) -> PaperSet:
    return PaperSet(help, layout, folders, given=True, **more)  # type: ignore[arg-type]


LVOS_SPLITS = {"valid": "val"}  # as it unpacks, and as its page says
DAVIS = ("DAVIS", "davis", "DAVIS-2017", "DAVIS2017", "2017")
SETS: Mapping[str, PaperSet] = {
    "ytvis19": PaperSet(
        "YouTube-VIS 2019", "ytvis", ("ytvis_2019", "YTVIS2019", "ytvis19"), "{split}", LISTS, form="ytvis"
    ),
    "ytvis21": PaperSet(
        "YouTube-VIS 2021", "ytvis", ("ytvis_2021", "YTVIS2021", "ytvis21"), "{split}", LISTS, form="ytvis"
    ),
    "ytvis22": PaperSet(
        "YouTube-VIS 2022, of whose videos the server scores the long ones apart",
        "ytvis",
        ("ytvis_2022", "YTVIS2022", "ytvis22"),
        "{split}",
        ("{split}/instances.json", "{split}.json", "instances.json"),
        form="ytvis",
    ),
    "ovis": PaperSet(
        "OVIS",
        "ovis",
        ("ovis", "OVIS"),
        listing=("annotations/{split}.json", "annotations_{split}.json", "annotations/annotations_{split}.json"),
        form="ovis",
    ),
    "hq-ytvis": PaperSet(
        "HQ-YTVIS, whose frames are those of YouTube-VIS 2019's train",
        "ytvis",
        ("hq-ytvis", "HQ-YTVIS", "ytvis_hq"),
        "train",
        ("ytvis_hq-{split}.json",),
        ("ytvis_hq-{split}.json",),
        form="ytvis",
    ),
    "vipseg": PaperSet(
        "VIPSeg, converted to 720p",
        "vipseg",
        ("VIPSeg_720P", "VIPSeg/VIPSeg_720P", "vipseg"),
        listing=("panoptic_gt_VIPSeg_{split}.json",),
        truth=("panoptic_gt_VIPSeg_{split}.json",),
        needed=("panomasksRGB",),
        form="vipseg",
    ),
    "vipseg-things": PaperSet(
        "the things of VIPSeg",
        "vipseg",
        ("VIPSeg_720P", "VIPSeg/VIPSeg_720P", "vipseg"),
        listing=("panoptic_gt_VIPSeg_{split}.json",),
        truth=("panoptic_gt_VIPSeg_{split}.json",),
        needed=("panomasksRGB",),
        form="ytvis",
    ),
    "vspw": PaperSet(
        "VSPW", "vspw", ("VSPW_480p", "VSPW", "vspw"), listing=("{split}.txt",), truth=("data",), form="vipseg"
    ),
    "burst": PaperSet(
        "BURST",
        "burst",
        ("BURST", "burst"),
        truth=("annotations/{split}",),
        needed=(
            "annotations/{split}/all_classes.json",
            "annotations/{split}/common_classes.json",
            "annotations/{split}/uncommon_classes.json",
        ),
        form="burst",
    ),
    "ref-davis": PaperSet(
        "Ref-DAVIS 2017",
        "ref-ytvos",
        ("ref-davis", "Ref-DAVIS17"),
        "{split}",
        ("meta_expressions/{split}/meta_expressions.json",),
        ("{split}/Annotations",),
        form="referring",
    ),
    "ref-ytvos": PaperSet(
        "Ref-YouTube-VOS",
        "ref-ytvos",
        ("ref-youtube-vos", "Ref-YTVOS"),
        "{split}",
        ("meta_expressions/{split}/meta_expressions.json",),
        form="referring",
        prefix="Annotations/",
    ),
    "davis16": _make_given_set(
        "DAVIS 2016", "davis", (*DAVIS, "DAVIS-2016"), listing=("ImageSets/2016/{split}.txt",), truth=("",)
    ),
    "davis17": _make_given_set(
        "DAVIS 2017", "davis", DAVIS, listing=("ImageSets/2017/{split}.txt",), truth=("",), hidden=("test-dev",)
    ),
    "davis17-unsupervised": PaperSet(
        "DAVIS 2017, unsupervised",
        "davis",
        DAVIS,
        listing=("ImageSets/2019/{split}.txt", "ImageSets/2017/{split}.txt"),
        truth=("",),
        hidden=("test-dev",),
    ),
    "sav": _make_given_set(
        "SA-V", "sav", ("sav_{split}", "SA-V/sav_{split}"), listing=("sav_{split}.txt",), truth=("Annotations_6fps",)
    ),
    "lvosv1": _make_given_set(
        "LVOS v1",
        "lvos",
        ("LVOS", "LVOS_V1", "lvos_v1"),
        frames="{split}",
        truth=("{split}",),
        needed=("{split}/*meta.json",),
        prefix="Annotations/",
        hidden=("test",),
        also=LVOS_SPLITS,
    ),
    "lvosv2": _make_given_set(
        "LVOS v2",
        "lvos",
        ("LVOS_V2", "LVOSv2", "lvos_v2"),
        frames="{split}",
        truth=("{split}",),
        needed=("{split}/*meta.json",),
        prefix="Annotations/",
        hidden=("test",),
        also=LVOS_SPLITS,
    ),
    "mosev1": _make_given_set(
        "MOSE v1", "mose", ("MOSE", "MOSE_release", "mose"), frames="{split}", prefix="Annotations/"
    ),
    "mosev2": _make_given_set("MOSE v2", "mose", ("MOSEv2", "mosev2"), frames="{split}", prefix="Annotations/"),
    "ytvos": _make_given_set(
        "YouTube-VOS", "ytvos", ("YouTube-VOS", "ytvos", "YouTube"), frames="{split}", prefix="Annotations/"
    ),
    "vost": _make_given_set(
        "VOST", "vost", ("VOST", "vost"), listing=("ImageSets/{split}.txt",), truth=("Annotations",)
    ),
    "pumavos": _make_given_set("PUMaVOS", "pumavos", ("PUMaVOS", "pumavos"), truth=("Annotations",)),
}
UNSEEN = ("unseen_videos.txt", "{split}/unseen_videos.txt", "unseen.txt")  # LVOS: videos of kinds that no training has


@dataclass(frozen=True)
class LocatedSet:
    """A split of a data set on this machine.

    Attributes:
        about: what it is.
        root: its folder.
        split: the split's name.
        videos: of the split.
        listing: the file that lists them, where one is needed.
        truth: the ground truth; None: only a server has it.
    """

    about: PaperSet
    root: Path
    split: str
    videos: Sequence[DatasetVideo]
    listing: Path | None
    truth: Path | None

    def find(self, places: Sequence[str]) -> Path | None:
        """The first of some places that is there."""
        return find_place(self.root, places, self.split)


def find_place(root: Path, places: Sequence[str], split: str) -> Path | None:
    """The first of some `places` (patterns) within a `root` that is there, "{split}" in them being the `split`."""
    named = [place.format(split=split) for place in places]
    paths = (path for one in named for path in (sorted(root.glob(one)) if "*" in one else (root / one,)))
    return next((path for path in paths if path.exists()), None)


def find_root(about: PaperSet, data: Path, split: str) -> tuple[Path, str] | None:
    """The root of the data set `about`, of which a `split` is wanted, and what the split is called in it: within `data`
    under one of its names, or `data` itself; None where neither holds it.
    """
    found = [
        (root, name)
        for name in about.list_split_names(split)
        for root in (*(data / folder.format(split=name) for folder in about.folders), data)
        if has_frames(about, root, name)
    ]
    whole = [(root, name) for root, name in found if not about.listing or find_place(root, about.listing, name)]
    return next(iter([*whole, *found]), None)


def has_frames(about: PaperSet, root: Path, split: str) -> bool:
    """Whether the folders of frames of a `split` of the data set `about` are in its `root`."""
    base = root / about.frames.format(split=split)
    return any(any(base.glob(place.format(split))) for place in LAYOUTS[about.layout].frames)


def list_missing(name: str, data: Path, split: str) -> list[str]:
    """What of the set `name` is missing in the folder `data` for a run over a `split`: a sentence for each."""
    about = SETS[name]
    found = find_root(about, data, split)
    if found is None:
        return [describe_absent_set(name, data, split)]
    root, split = found
    wanted = [about.listing, about.truth if split not in about.hidden else (), *([one] for one in about.needed)]
    lacking = [places for places in wanted if places and find_place(root, places, split) is None]
    wrong = [
        f"data {name}: no {' or '.join(p.format(split=split) for p in dict.fromkeys(places))} in {root}"
        for places in lacking
    ]
    if wrong:
        return wrong
    try:
        videos = locate_set(name, data, split).videos
    except InputError as error:
        return [f"data {name}: {error}"]
    silent = [video.name for video in videos if about.given and not video.given]
    some = ", ".join(silent[:3]) + (f" and {len(silent) - 3} more" if len(silent) > 3 else "")
    return [f"data {name}: no annotation of a first frame of {some}, of {len(videos)} videos"] if silent else []


def describe_absent_set(name: str, data: Path, split: str) -> str:
    """What is to be said where the folder `data` holds nothing of the set `name`."""
    about = SETS[name]
    places = " or ".join(LAYOUTS[about.layout].frames).format(split)
    known = ", ".join(folder.format(split=split) for folder in about.folders)
    inside = " or ".join(f"{about.frames.format(split=one)}/" for one in about.list_split_names(split))
    return (
        f"data {name} ({about.help}): no folder {known} in {data} with {inside if about.frames else ''}{places}, "
        "nor is it that folder itself"
    )


def locate_set(name: str, data: Path, split: str) -> LocatedSet:
    """The `split` of the set `name` in the folder `data`. Raises InputError where it is not there."""
    about = SETS[name]
    found = find_root(about, data, split)
    if found is None:
        raise InputError(describe_absent_set(name, data, split))
    root, split = found
    listing = find_place(root, about.listing, split)
    is_folder = any("{}" in place for place in LAYOUTS[about.layout].frames)  # the part, and not what is listed
    part = split if is_folder else listing or ""
    videos = list_dataset_videos(
        f"{about.layout}:{part}" if part else about.layout, root / about.frames.format(split=split)
    )
    if is_folder and listing:
        videos = select_listed(videos, listing)
    truth = None if split in about.hidden else find_place(root, about.truth, split)
    return LocatedSet(about, root, split, videos, listing, truth)


def select_listed(videos: Sequence[DatasetVideo], listing: Path) -> list[DatasetVideo]:
    """The `videos` that a split's json lists, in its order. Raises InputError where some are not there."""
    from masklet.io.formats.submission import read_dataset_split

    there = {video.name: video for video in videos}
    names = list(read_dataset_split(listing).videos)
    missing = [name for name in names if name not in there]
    if missing:
        raise InputError(f"{listing}: no frames of {missing[0]}, of {len(missing)} videos; unpack them all")
    return [there[name] for name in names]
