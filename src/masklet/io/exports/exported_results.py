"""What is exported: results, the videos that they are of where these are given, and who watches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import overload

from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from masklet.core.errors import InputError
from masklet.core.frames import Frame, Video, get_frame_names, read_through
from masklet.core.limits import check_relative_path
from masklet.core.progress import Watch, discard_progress
from masklet.core.result import VideoResult
from masklet.core.wording import name_argument
from masklet.io.formats.split import check_frame_names
from masklet.io.video.frame_source import format_size
from masklet.io.video.sources import list_own_frame_names

QUALITY = 95  # of JPEGs, to 100
IMAGES = "images"  # the folder of the images that a form refers to


class ExportedResults(Sequence[VideoResult]):
    """Results on their way into another form, with the frames of their videos where they are at hand."""

    def __init__(
        self,
        results: Sequence[VideoResult],
        videos: Mapping[str, Video] | None = None,
        watch: Watch = discard_progress,
    ) -> None:
        """
        Args:
            results: of one video each.
            videos: the videos by the results' names; none, or one for each.
            watch: is told how far the work is.

        Raises:
            InputError: two results have one name, or a video's frames are not as large or as many as its result's.
        """
        self.results, self.videos, self.watch = tuple(results), videos or {}, watch
        names = [check_relative_path("results", r.name) for r in self.results]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise InputError(
                f"{twice}: two results of this name; export each into a folder of its own, or run both videos in one "
                "command, which gives them two names"
            )
        for result in self.results:
            if result.name in self.videos:
                check_same_video(result, self.videos[result.name])

    @overload
    def __getitem__(self, n: int) -> VideoResult: ...
    @overload
    def __getitem__(self, n: slice) -> Sequence[VideoResult]: ...
    def __getitem__(self, n: int | slice) -> VideoResult | Sequence[VideoResult]:
        return self.results[n]

    def __len__(self) -> int:
        return len(self.results)

    def name_frames(self, result: VideoResult) -> Sequence[str]:
        """The names of a result's frames without suffix: those of its video's images, else 00000 on."""
        own = self.find_own_frame_names(result)
        return [f"{t:05d}" for t in range(result.length)] if own is None else own

    def find_own_frame_names(self, result: VideoResult) -> Sequence[str] | None:
        """The names of the images that a result's video consists of; None where it has none, or two have the same.
        Where no video is given, those of the folder that the result was made from count, while they are there.
        """
        video = self.videos.get(result.name)
        found = list_own_frame_names(result) if video is None else get_frame_names(video)[: result.length]
        return check_frame_names(result.name, found) if found and len(set(found)) == len(found) else None

    def map_frame_names(self) -> Mapping[str, Sequence[str]]:
        """The names of the frames by video."""
        return {r.name: self.name_frames(r) for r in self.results}

    def iterate_frame_numbers(self, result: VideoResult) -> Iterator[int]:
        """The numbers of a result's frames, one after the other; who watches is told."""
        for t in range(result.length):
            yield t
            self.watch(result.name, t + 1, result.length, len(result.masklets))

    def read_frames(self, result: VideoResult) -> Iterator[Frame]:
        """The frames of a result's video. Raises InputError where its video is not given, or ends too early."""
        self.require_video(result)
        done = 0
        for frame in self.videos[result.name]:
            if frame.index >= result.length:
                break
            yield frame
            done = frame.index + 1
            self.watch(result.name, done, result.length, len(result.masklets))
        if done < result.length:
            raise InputError(f"{result.name}: only {done} of the video's {result.length} frames could be read")

    def require_video(self, result: VideoResult) -> None:
        """Raises InputError where a result's video is not given."""
        if result.name not in self.videos:
            raise InputError(
                f"{result.name}: this form has the video's images in it; give the video by {name_argument('frames')}"
            )

    def has_video(self, result: VideoResult) -> bool:
        """Whether a result's video is given."""
        return result.name in self.videos

    def write_images(self, folder: Path) -> None:
        """Writes `folder`/<video>/<frame>.jpg of every result whose video is given."""
        for result in self.results:
            if self.has_video(result):
                self.write_images_of(result, folder / result.name)

    def write_images_of(self, result: VideoResult, folder: Path, names: Sequence[str] | None = None) -> None:
        """Writes `folder`/<frame>.jpg of one result, whose video must be given; `names` are its frames' unless None."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in zip(names or self.name_frames(result), self.read_frames(result), strict=True):
            (folder / f"{name}.jpg").write_bytes(encode_jpeg(frame.image))


def check_same_video(result: VideoResult, video: Video) -> None:
    """Raises InputError where the frames of a `video` are not as large or as many as those of a `result`."""
    if video.size != result.size:
        raise InputError(
            f"{video.name}: its frames are {format_size(video.size)}, those of the result {result.name} "
            f"{format_size(result.size)}; give the video that it was made from, read in the same way "
            f"({name_argument('max_side')})"
        )
    if len(video) != result.length:
        read_through(video)  # what a container says of its length may be wrong
    if len(video) != result.length:
        raise InputError(
            f"{video.name}: has {len(video)} frames, the result {result.name} {result.length}; give the video that it "
            f"was made from, read in the same way ({', '.join(map(name_argument, ('start', 'end', 'stride', 'fps')))})"
        )


def encode_jpeg(image: UInt8[ndarray, "h w 3"]) -> bytes:
    """An RGB image as a JPEG file's content, colours at full resolution."""
    buffer = BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()
