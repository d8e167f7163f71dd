"""Frames of a long file at once: where they are by the packets' times, and reading on from where one stopped.

A decoder alone knows for sure which frames a file has; to ask it costs minutes for an hour of video. Where packets have
times that rise, and there are as many as a result of the file has frames, it would say the same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import av

from masklet.core.frames import Frame, Video, check_before_reading, read_through
from masklet.io.video.decode import LostFrame, decode_frames
from masklet.io.video.frame_source import DamagedSourceError, FrameSource, keep_uneven_times
from masklet.io.video.selection import SelectedFrames
from masklet.io.video.video_file import VideoFile


class PacketMark(NamedTuple):
    """Where one frame of a file is."""

    pts: int  # in the stream's time base
    key: bool  # decoding can start here


def read_packet_marks(video: VideoFile) -> list[PacketMark] | None:
    """Where the frames of a file are, as its packets say, none of which is decoded; None where they say too little.

    Key frames are those at which decoding can start.
    """
    marks = []
    with video.open_stream() as (container, stream):
        try:
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard:
                    if packet.pts is None or packet.is_corrupt:
                        return None
                    marks.append(PacketMark(packet.pts, bool(packet.is_keyframe)))
        except av.FFmpegError:
            return None
    marks.sort()
    rises = all(a.pts < b.pts for a, b in pairwise(marks))
    return marks if rises and marks and marks[0].key else None


def learn_frames(video: Video) -> None:
    """Has a `video` know how many frames it has, and when each is: by what its source says of them all, such as the
    packets of its file, which are not decoded, or, where that does not tell, or the file has fewer than it says, by
    reading it to its end. Raises InputError where its frames cannot be used, such as images of several sizes.
    """
    check_before_reading(video)
    if isinstance(video, FrameSource) and not video.is_known:
        times = _foresee_times(video.source if isinstance(video, SelectedFrames) else video)
        if times is None or (isinstance(video, SelectedFrames) and not times):
            read_through(video)
        elif isinstance(video, SelectedFrames):
            video.foresee(times)
        else:
            video.times = keep_uneven_times(times, video.rate)
    if not len(video):
        read_through(video)


def _foresee_times(video: FrameSource) -> Sequence[float] | None:
    """Seconds of each frame of a `video` from its first; empty where nothing tells them before they are decoded, None
    where a file has other frames than it says.
    """
    if not isinstance(video, VideoFile):
        return video.foresee_times()
    marks = read_packet_marks(video)
    if marks is None:
        return () if video.has_all_packets() else None
    if len(marks) != len(video) or not is_end_decodable(video, marks):
        return None
    return [(mark.pts - marks[0].pts) * video.time_base for mark in marks]


def is_end_decodable(video: VideoFile, marks: Sequence[PacketMark]) -> bool:
    """Whether the last of the frames of a file that its packets tell of can be decoded: where it is cut off, not."""
    last = len(marks) - 1
    return any(frame.index == last for frame in ForwardReader(video, len(marks), marks).iterate_from(last))


class ForwardReader:
    """Windows of a video file, each of which goes on where the one before ended, if it begins there; as
    `VideoFile.read`, but for the time it takes.
    """

    def __init__(self, video: VideoFile, length: int, marks: Sequence[PacketMark] | None = None) -> None:
        """
        Args:
            video: a file.
            length: how many frames it has, as somebody has counted who has decoded it.
            marks: where they are, as `read_packet_marks` says, if it was asked already.
        """
        self.name, self.size, self.rate, self.damage = video.name, video.size, video.rate, video.damage
        self._video = video
        marks = marks or read_packet_marks(video) or ()
        self._marks: Sequence[PacketMark] = marks if len(marks) == length else ()
        self._numbers = {mark.pts: n for n, mark in enumerate(self._marks)}
        self._keys = [n for n, mark in enumerate(self._marks) if mark.key]
        self._frames: Iterator[Frame] = iter(())
        self._next = -1  # the frame that `_frames` gives next

    def __len__(self) -> int:
        return len(self._video)

    def __iter__(self) -> Iterator[Frame]:
        return iter(self._video)

    def read(self, start: int, stop: int) -> list[Frame]:
        """The frames [start, stop), fewer where the video ends before."""
        if not self._marks:
            return self._video.read(start, stop)
        if start != self._next:
            self._frames = self.iterate_from(start)
        wanted = list(range(start, min(stop, len(self._marks))))
        found = [frame for _, frame in zip(wanted, self._frames, strict=False)]
        self._next = wanted[-1] + 1 if wanted else -1
        if [frame.index for frame in found] == wanted:
            return found
        self._next = -1  # the container did not lead there
        return self._video.read(start, stop)

    def iterate_from(self, start: int) -> Iterator[Frame]:
        """The frames from `start` on, decoded from the key frame before it, as long as they come in their order."""
        key = self._keys[bisect_right(self._keys, start) - 1]
        converter, due = self._video.make_converter(), start
        with self._video.open_stream() as (container, stream):
            try:
                container.seek(self._marks[key].pts, stream=stream)
                for decoded in decode_frames(container, stream):
                    if isinstance(decoded, LostFrame) or decoded.pts is None:
                        return
                    converter.notice(decoded)
                    n = self._numbers.get(decoded.pts, -1)
                    if n == due:
                        yield Frame(n, converter.convert(decoded))
                        due += 1
                    elif n < 0 or n > due:
                        return
            except (av.FFmpegError, DamagedSourceError):
                return
