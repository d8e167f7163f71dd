"""Zips as the benchmarks' servers take them, checked against the split before they are written.

| form | in the zip |
|---|---|
| ytvis, ovis | results.json with the split's ids |
| youtube-vos, mose, lvos | Annotations/<video>/<frame>.png, palette images of object ids |
| vipseg | pan_pred/<video>/<frame>.png and pred.json |

The same results give the same bytes: videos by name, every file dated 1980. One video is in memory at a time.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from masklet.core.errors import InputError
from masklet.core.files import read_text, write_atomically
from masklet.core.image_files import read_image_size
from masklet.core.limits import check_relative_path, quote_value
from masklet.core.result import VideoResult
from masklet.core.wording import name_argument
from masklet.io.formats.davis import check_palette_ids, encode_davis_pngs
from masklet.io.formats.json_entry import JsonEntry, read_json_file
from masklet.io.formats.panoptic import PanopticVideo, check_panoptic_ids, read_panoptic_split
from masklet.io.formats.split import DatasetSplit, ListedVideo
from masklet.io.formats.ytvis import format_split_entries, read_ytvis_split
from masklet.io.video.frame_source import format_size
from masklet.io.video.images import is_image_file
from masklet.io.video.sources import make_natural_key

RESULT = "masklets.json"
LIST = "a split's list of videos, as json or as txt with one name a line"
DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip can say


def read_dataset_split(path: Path) -> DatasetSplit:
    """A split's videos: the json of YouTube-VIS, OVIS, VIPSeg, YouTube-VOS, MOSE or LVOS, or a txt of names.

    Raises InputError where it is none of these, or has no video.
    """
    split = _read_json_split(path) if path.suffix.lower() == ".json" else _read_txt_split(path)
    if not split.videos:
        raise InputError(f"{path}: lists no video; give {LIST}")
    return split


def _read_json_split(path: Path) -> DatasetSplit:
    content = JsonEntry(str(path), read_json_file(path, LIST))
    videos = content.get("videos")
    if isinstance(videos, dict):  # the names are the keys
        return DatasetSplit.of(str(path), map(ListedVideo, content.entry("videos")))
    return (
        read_panoptic_split(path) if any("images" in v for v in content.entries("videos")) else read_ytvis_split(path)
    )


def _read_txt_split(path: Path) -> DatasetSplit:
    return DatasetSplit.of(str(path), map(ListedVideo, read_text(path, LIST).split()))


def list_image_files(folder: str) -> list[Path]:
    """The images of a folder in the order of their numbers; none where it is no folder."""
    found = Path(folder).iterdir() if folder and Path(folder).is_dir() else ()
    return sorted((p for p in found if is_image_file(p)), key=make_natural_key)


def find_result_files(paths: Sequence[Path]) -> list[Path]:
    """The results that are meant: files, folders of a video's results, or folders of such folders.

    Raises InputError where there is none.
    """
    found = []
    for path in paths:
        own = (
            [path]
            if path.is_file()
            else sorted(path.glob(RESULT)) or sorted(path.glob(f"*/{RESULT}"), key=make_natural_key)
        )
        if not own:
            raise InputError(f"{path}: no {RESULT} there; give such files, or the folder that masklet run wrote")
        found += own
    return found


@dataclass(frozen=True)
class SubmissionTarget:
    """Where results are to go: what a server expects."""

    form: str
    split: DatasetSplit | None = None
    frames: Path | None = None  # a folder of frames per video, such as JPEGImages

    def __post_init__(self) -> None:
        """Raises InputError where the form needs a split with ids and categories, and has none."""
        if self.form in LISTED_BY and not (self.split and self.split.categories):
            raise InputError(
                f"{self.form} needs the ids of videos and categories: give the json of the split's videos "
                f"({LISTED_BY[self.form]}) by {name_argument('videos')}"
            )

    def listed(self, result: VideoResult) -> ListedVideo:
        """The video's frames and size: of the split's list, of the folder of frames, or of the result's source.

        Raises InputError where nothing says what the frames are called.
        """
        listed = self.split.videos[result.name] if self.split else ListedVideo(result.name)
        if listed.frames is not None:
            return listed
        own = list_image_files(result.provenance.source)
        source = str(self.frames / result.name) if self.frames else result.provenance.source
        images = list_image_files(source)
        if not images:
            raise InputError(
                f"{result.name}: no frames in {source!r} that say their names; give the folder by "
                f"{name_argument('frames')}"
            )
        if len(own) == result.length > len(images) and {p.stem for p in own} >= {p.stem for p in images}:
            images = own  # only some of the frames are annotated; those of the source say which
        return ListedVideo(
            result.name, listed.id, read_image_size(images[0], "give intact frames"), tuple(p.stem for p in images)
        )

    def unfit(self, result: VideoResult) -> Iterator[str]:
        """What a server would reject of a `result`, each in a sentence; nothing where it fits."""
        if self.split and result.name not in self.split.videos:
            yield f"{result.name}: not a video of {self.split.label}; leave it out"
            return
        try:
            listed = self.listed(result)
            PARTS[self.form].check(result, self.split)
        except InputError as error:
            yield str(error)
            return
        if len(listed.frames or ()) != result.length:
            yield f"{result.name}: {result.length} frames, not the {len(listed.frames or ())} of the split; run it anew"
        if listed.size not in (None, result.size):
            expected = format_size(listed.size or (0, 0))
            yield f"{result.name}: {format_size(result.size)}, not the {expected} of the split; run it anew"

    def missing(self, names: Container[str]) -> Iterator[str]:
        """The split's videos that are not among the names, each in a sentence."""
        for name in self.split.videos if self.split else ():
            if name not in names:
                yield f"{name}: no result for this video of {self.split.label if self.split else ''}; run it too"


@dataclass(frozen=True)
class Submission:
    """Results on their way into a zip, and what a server would reject of them."""

    target: SubmissionTarget
    results: Mapping[str, Path]  # by the video's name
    problems: tuple[str, ...]

    @staticmethod
    def check(target: SubmissionTarget, results: Sequence[Path], allow_missing: bool = False) -> Submission:
        """Reads the files in `results` one by one, and notes what the `target` would reject of them as problems.

        Videos of the split without a result are problems unless `allow_missing`. Raises InputError where a file
        cannot be read.
        """
        found: dict[str, Path] = {}
        problems: list[str] = []
        for path in results:
            result = VideoResult.load(path)
            if result.name in found:
                problems.append(f"{result.name}: two results, {found[result.name]} and {path}; leave one out")
            else:
                problems += target.unfit(result)
            found[result.name] = path
        if not allow_missing:
            problems += target.missing(found)
        return Submission(target, found, tuple(problems))

    def write(self, path: Path) -> None:
        """Writes the zip, whole or not at all. Raises InputError where there are problems, or it cannot be written."""
        if self.problems:
            raise InputError(self.problems[0])
        part = PARTS[self.target.form]
        with write_atomically(path) as file, ZipFile(file, "w") as archive, tempfile.TemporaryFile() as listing:
            rows = _JsonRows(listing)
            for name in sorted(self.results):
                result = VideoResult.load(self.results[name])
                part.add(result, self.target.listed(result), self.target.split, archive, rows)
            if part.listing:
                rows.copy(archive, *part.listing)


def create_zip_info(name: str) -> ZipInfo:
    """The entry of a zip for the file `name`, the same whenever it is made. Raises InputError where it is no name."""
    check_relative_path("zip", name)
    try:
        name.encode()  # a zip has no other names, while a disk may
    except UnicodeEncodeError:
        raise InputError(f"zip: the name {quote_value(name)} is not UTF-8; rename the video and its frames") from None
    info = ZipInfo(name, DATE)
    info.create_system, info.external_attr = 3, 0o644 << 16  # unix, on every machine
    info.compress_type = ZIP_STORED if name.endswith(".png") else ZIP_DEFLATED
    return info


class _JsonRows:
    """A JSON list that is written row by row."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._between = file, b""

    def add(self, row: object) -> None:
        """Writes one more element of the list, anything that JSON holds."""
        self._file.write(self._between + json.dumps(row, separators=(",", ":")).encode())
        self._between = b",\n"

    def copy(self, archive: ZipFile, name: str, before: bytes, after: bytes) -> None:
        """Writes the rows into the `archive` as its file `name`, with the bytes `before` and `after` around them."""
        info = create_zip_info(name)
        info.file_size = self._file.tell() + len(before) + len(after)  # decides on the 64 bit form
        self._file.seek(0)
        with archive.open(info, "w") as entry:
            entry.write(before)
            shutil.copyfileobj(self._file, entry)
            entry.write(after)


Add = Callable[[VideoResult, ListedVideo, DatasetSplit | None, ZipFile, _JsonRows], None]


@dataclass(frozen=True)
class _SubmissionForm:
    """What a form is made of."""

    add: Add  # one video
    check: Callable[[VideoResult, DatasetSplit | None], None]  # raises InputError where an object does not fit
    listing: tuple[str, bytes, bytes] | None = None  # the json's name, and what stands around its rows


def _add_ytvis(
    result: VideoResult, listed: ListedVideo, split: DatasetSplit | None, archive: ZipFile, rows: _JsonRows
) -> None:
    for entry in format_split_entries(result, split or DatasetSplit("", {})):
        rows.add(entry)


def _add_davis(
    result: VideoResult, listed: ListedVideo, split: DatasetSplit | None, archive: ZipFile, rows: _JsonRows
) -> None:
    for name, page in zip(listed.frames or (), encode_davis_pngs(result), strict=True):
        archive.writestr(create_zip_info(f"Annotations/{result.name}/{name}.png"), page)


def _add_vipseg(
    result: VideoResult, listed: ListedVideo, split: DatasetSplit | None, archive: ZipFile, rows: _JsonRows
) -> None:
    video = PanopticVideo(result, listed.frames or (), split.category_ids if split else {})
    for name, page in video.pages():
        archive.writestr(create_zip_info(f"pan_pred/{result.name}/{name}"), page)
    rows.add(video.listed())


def _check_categories(result: VideoResult, split: DatasetSplit | None) -> None:
    known = split.category_ids if split else {}
    odd = sorted({result.name_of(m) for m in result.masklets} - known.keys())
    if odd:
        label = split.label if split else ""
        raise InputError(
            f"{result.name}: objects are called {', '.join(odd)}, which is no category of {label}; rename them, "
            "such as by `masklet edit`"
        )


def _check_palette(result: VideoResult, split: DatasetSplit | None) -> None:
    check_palette_ids(result)


def _check_panoptic(result: VideoResult, split: DatasetSplit | None) -> None:
    check_panoptic_ids(result)
    _check_categories(result, split)


_YTVIS = _SubmissionForm(_add_ytvis, _check_categories, ("results.json", b"[", b"]"))
_VOS = _SubmissionForm(_add_davis, _check_palette)
_VIPSEG = _SubmissionForm(_add_vipseg, _check_panoptic, ("pred.json", b'{"annotations":[', b"]}"))

PARTS: Mapping[str, _SubmissionForm] = {
    "ytvis": _YTVIS,
    "ovis": _YTVIS,
    "youtube-vos": _VOS,
    "mose": _VOS,
    "lvos": _VOS,
    "vipseg": _VIPSEG,
}
LISTED_BY = {"ytvis": "valid.json", "ovis": "annotations_valid.json", "vipseg": "panoptic_gt_VIPSeg_val.json"}
