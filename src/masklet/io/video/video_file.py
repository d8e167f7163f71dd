"""Videos in files, and their windows, read from the key frame before them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.wording import name_argument
from masklet.io.video.avi import read_avi_index
from masklet.io.video.decode import (
    LostFrame,
    check_stream_size,
    decode_frames,
    list_video_streams,
)
from masklet.io.video.frame_source import DamagedSourceError, FrameSource, ReadFrame, fill_gaps
from masklet.io.video.hardware import MakeDecoder, is_like
from masklet.io.video.images import RATE
from masklet.io.video.matroska_sums import CLUSTER, find_damaged_parts
from masklet.io.video.mp4_tables import describe_contradictions
from masklet.io.video.network import PLAYLIST_OPTIONS, refuse_playlist
from masklet.io.video.one_pass import describe_streams
from masklet.io.video.orientation import ALPHA_NOTE, NO_MATRIX, OBLIQUE_NOTE, is_oblique
from masklet.io.video.pixels import (
    HOLDING,
    UprightConverter,
    find_display_matrix,
    is_transparent,
    read_frame_rate,
    read_pixel_aspect,
)
from masklet.io.video.source_names import GIVE, name_source


class FrameMark(NamedTuple):
    """Where one frame of a file is found again."""

    pts: int | None  # in the stream's time base
    shown: int | None  # the same, in the order of display
    key: bool = False  # decoding can start here
    lost: bool = False  # it cannot be decoded


class VideoFile(FrameSource):
    """A video file. Windows are read from the key frame before them."""

    def __init__(self, path: Path, allow_network: bool = False, make_decoder: MakeDecoder | None = None) -> None:
        """
        Args:
            path: of the file.
            allow_network: whether a playlist may open other files and addresses.
            make_decoder: of the graphics card; None: the CPU decodes. It does, too, where the other one cannot, where
                that gives another first frame, and from a frame on that it loses: what damage is the CPU says.
        """
        super().__init__(str(path), name_source(str(path)), RATE)
        self.path = path
        self._options = dict(PLAYLIST_OPTIONS) if allow_network else {}
        self._marks: list[FrameMark] = []
        self._described = False
        self._matrix: bytes | None = None  # the first frame's, where it holds for those after it
        self._claim: int | None = None
        self._check_file()
        if not allow_network:
            refuse_playlist(path)
        self._is_avi = self._is_matroska = self._is_mp4 = False
        self._track = 0  # its number in an MP4
        self._base, self._announced = 1 / RATE, 0
        self._make_decoder = make_decoder
        self.start()
        if self._make_decoder is not None:
            self._compare_decoders()

    @property
    def origin(self) -> str:
        """Its path."""
        return str(self.path)

    def _check_file(self) -> None:
        try:
            with self.path.open("rb") as file:
                if not file.read(1):
                    raise InputError(f"{self.path}: the file is empty; give a video")
        except FileNotFoundError:
            raise InputError(f"{self.path}: no such file; {GIVE}") from None
        except OSError as error:
            raise InputError(f"{self.path}: cannot be read ({error.strerror}); {GIVE}") from None

    def _compare_decoders(self) -> None:
        """Leaves decoding to the CPU where the other decoder's first frame is not like its own."""
        first = [next(iter(self._decode_by(make)), None) for make in (self._make_decoder, None)]
        images = [self.make_converter().convert(one) for one in first if isinstance(one, av.VideoFrame)]
        if len(images) < len(first) or not is_like(*images):
            self._decode_on_cpu("its first frame is another one")

    def _decode_on_cpu(self, why: str) -> None:
        """From now on; notes it, once."""
        if self._make_decoder is not None:
            self._make_decoder = None
            self.note(f"{self.label}: the CPU decoded it, for the graphics card did not ({why})")

    @contextmanager
    def open_stream(self, make_decoder: MakeDecoder | None = None) -> Iterator[tuple[InputContainer, VideoStream]]:
        """The file, open, and its stream that is shown, for a decoder of `make_decoder`, or for the CPU (None, or where
        that one cannot be had). Raises InputError where it is no video.
        """
        try:
            container = self._open_for(make_decoder) if make_decoder else None
            container = container or self._open()
        except (av.FFmpegError, UnicodeError, ValueError) as error:
            why = getattr(error, "strerror", None) or "its name is not UTF-8"
            raise InputError(f"{self.path}: not a video that can be read ({why}); {GIVE}") from None
        with container:
            streams = list_video_streams(container)
            if not streams:
                raise InputError(f"{self.path}: no video stream that can be decoded; {GIVE}")
            check_stream_size(str(self.path), streams[0])
            yield container, streams[0]

    def _open_for(self, make_decoder: MakeDecoder) -> InputContainer | None:
        """The file, open for a decoder of the graphics card; None where it cannot be had."""
        try:
            return self._open(make_decoder())
        except (av.FFmpegError, RuntimeError) as error:
            self._decode_on_cpu(getattr(error, "strerror", None) or str(error))
            return None

    def _open(self, decoder: Any = None) -> InputContainer:
        # The prefix, or a colon in the name would be a protocol.
        return av.open(f"file:{self.path}", options=self._options, metadata_errors="replace", hwaccel=decoder)

    def said(self) -> int:
        if self._claim is None:
            self._claim = self._count_packets()[1]
        return self._claim

    def _count_packets(self) -> tuple[int, int]:
        """How many packets the file has, and how many of them are to be shown."""
        packets = shown = 0
        with self.open_stream() as (container, stream):
            try:
                for packet in container.demux(stream):
                    packets += packet.size > 0 or packet.dts is not None
                    shown += packet.size > 0 and not packet.is_discard
            except av.FFmpegError:  # the frames before it are what can be hoped for
                pass
        return packets, shown

    def has_all_packets(self) -> bool:
        """Whether as many packets are there as it says of its frames, and its container calls none of them damaged."""
        with self.open_stream() as (container, stream):
            try:
                damaged = [p.is_corrupt for p in container.demux(stream) if p.size or p.dts is not None]
            except av.FFmpegError:
                return False
        return len(damaged) >= self.said() and not any(damaged)

    def frames(self) -> Iterator[Frame]:
        return fill_gaps(self._read_all(), self.lost)

    def _read_all(self) -> Iterator[ReadFrame]:
        converter = None
        for n, decoded in enumerate(self._iterate_decoded()):
            converter = converter or self.make_converter()
            if isinstance(decoded, LostFrame):
                yield ReadFrame(decoded.cause, self._time(n))
            else:
                if ALPHA_NOTE not in self.notes and is_transparent(decoded):
                    self.note(ALPHA_NOTE)
                yield ReadFrame(converter.convert(decoded), self._time(n))
        self._check_count()
        self._check_tables()
        self._check_sums()

    def _check_tables(self) -> None:
        """Notes what a file's tables say against one another, and where times go back."""
        for told in describe_contradictions(self.path, self._track) if self._is_mp4 else ():
            self._note_damage(told)
        own_times = self._is_mp4 or self._is_matroska  # those of broadcasts are made up where packets have none
        shown = [mark.shown for mark in self._marks if own_times and mark.shown is not None]
        back = [n for n, (a, b) in enumerate(itertools.pairwise(shown), 1) if b < a]
        if back:
            which = describe_numbers(back)
            self.note(f"{self.label}: times go back at {which}: those of the frames before them were taken")

    def _check_edits(self, packets: int, shown: int) -> None:
        """Notes that the file's edit list leaves frames out."""
        if self._is_mp4 and shown < packets:
            told = f"{packets} frames are in the file, {len(self._marks)} of which it asks to be shown"
            self.note(f"{self.label}: {told}; the others are left out, frames are counted without them")

    def _check_sums(self) -> None:
        """Notes of which frames a file's own checksums say that they are not as they were written."""
        damaged = find_damaged_parts(self.path) if self._is_matroska else []
        groups = [part for part in damaged if part.kind == CLUSTER]
        if len(groups) < len(damaged):
            self._note_damage("the checksum of what it says of itself is wrong: frames may look wrong")
        with self.open_stream() as (container, stream):
            packets = container.demux(stream) if groups else ()
            stamps = {p.pts for p in packets if p.pos is not None and any(g.start <= p.pos < g.stop for g in groups)}
        frames = [n for n, mark in enumerate(self._marks) if mark.pts in stamps and not mark.lost]
        if frames:
            which = describe_numbers(frames)
            self._note_damage(f"by its checksums it is damaged within {which}: some of these may look wrong")

    def _note_damage(self, told: str) -> None:
        """Notes damage of which it is not known which frame it is in. Raises InputError with `strict`."""
        if self.strict:
            raise InputError(f"{self.label}: {told}; give an intact copy, or leave {name_argument('strict')} out")
        self.note(f"{self.label}: {told}")

    def _check_count(self) -> None:
        """Notes where a file that is not told to be damaged has fewer frames than its header says."""
        read, is_told = len(self._marks), bool(self.lost) and not self._is_avi
        if self._is_avi and self._time(read - 1) * self.rate + 1.5 >= self._announced:  # frames that are shown on
            return
        if read < self._announced and not is_told:
            packets, shown = self._count_packets()
            self._check_edits(packets, shown)
            if self.lost or packets < self._announced or read < shown:
                late = self._explain_low_numbers(self._announced - read)
                self.note(f"{self.label}: its header says {self._announced} frames, {read} are there{late}")

    def _explain_low_numbers(self, missing: int) -> str:
        """From where on the frames of an AVI may have too low numbers, as the end of a sentence."""
        with self.open_stream() as (container, stream):
            index = read_avi_index(container.name, stream.index, stream.frames) if self._is_avi else None
        if not self._is_avi or (index and index.count_frames() == len(self._marks)):
            return ""
        since = f" from {min(self.lost)} on" if self.lost else ""
        what = "has no index" if index is None else "has an index of only a part"
        return f"; it {what}, so frames{since} may be counted too low, by {missing} at most"

    def _describe_stream(self, container: InputContainer, stream: VideoStream) -> None:
        """Takes from the container's header what it says of the stream."""
        self._is_avi = container.format.name == "avi"
        self._is_matroska = container.format.name.startswith("matroska")
        self._is_mp4, self._track = container.format.name.startswith("mov"), stream.id
        self.rate = read_frame_rate(stream, RATE)
        self._base = float(stream.time_base or 1 / RATE)
        self._claim, self._announced = stream.frames or None, stream.frames
        self.notes += describe_streams(container, stream)

    def _describe(self, stream: VideoStream, decoded: av.VideoFrame) -> None:
        """Takes from the first good frame what is so in all."""
        self._described = True
        matrix = find_display_matrix(decoded) or NO_MATRIX
        self._matrix = matrix if stream.codec_context.name in HOLDING else None
        self.pixel_aspect = read_pixel_aspect(stream, matrix)
        if is_oblique(matrix):
            self.note(f"{self.label}: {OBLIQUE_NOTE}")

    def make_converter(self) -> UprightConverter:
        """What converts frames from any on, once the first has been seen."""
        return UprightConverter(self._matrix)

    @property
    def time_base(self) -> float:
        """Seconds of a tick of the stream's clock."""
        return self._base

    def _time(self, n: int) -> float:
        start, now = self._marks[0].shown, self._marks[n].shown
        return n / self.rate if start is None or now is None else (now - start) * self._base

    def _iterate_decoded(self) -> Iterator[av.VideoFrame | LostFrame]:
        """All frames from the first on, decoded, their marks noted on the way."""
        for n, decoded in enumerate(self._decode_whole()):
            if n == len(self._marks):
                self._marks.append(mark_frame(decoded))
                if isinstance(decoded, LostFrame):
                    self.lost[n] = decoded.cause
            yield decoded

    def _decode_whole(self) -> Iterator[av.VideoFrame | LostFrame]:
        """All frames by the graphics card, where it is to decode, but from the first on that it loses."""
        done, make_decoder = 0, self._make_decoder
        try:
            for decoded in self._decode_by(make_decoder):
                if make_decoder and isinstance(decoded, LostFrame):
                    raise DamagedSourceError(decoded.cause)
                yield decoded
                done += 1
        except DamagedSourceError as reason:
            if make_decoder is None:
                raise
            self._decode_on_cpu(str(reason))
            yield from itertools.islice(self._decode_by(None), done, None)

    def _decode_by(self, make_decoder: MakeDecoder | None) -> Iterator[av.VideoFrame | LostFrame]:
        """All frames as one decoder gives them."""
        with self.open_stream(make_decoder) as (container, stream):
            if not self._described:
                self._describe_stream(container, stream)
            for decoded in decode_frames(container, stream, lambda told: self.note(f"{self.label}: {told}")):
                if not self._described and isinstance(decoded, av.VideoFrame):
                    self._describe(stream, decoded)
                yield decoded

    def read(self, start: int, stop: int) -> list[Frame]:
        self._mark(stop)
        return self.read_frames(range(start, min(stop, len(self._marks))))

    def read_frames(self, indices: Sequence[int]) -> list[Frame]:
        if not indices:
            return []
        self._mark(indices[-1] + 1)
        sources = {n: self._find_source(n) for n in indices}
        wanted = sorted(set(sources.values()))
        for key in self._entries(wanted[0]):
            found = self._from_key(key, wanted)
            if found is not None:
                break
        else:
            found = self._from_first(wanted)
        return [Frame(n, found[sources[n]].image, self._time(n)) for n in indices]

    def _find_source(self, n: int) -> int:
        """The frame whose image is shown as frame `n`: itself, or where it is lost the good one before or after."""
        before = (m for m in range(n, -1, -1) if not self._marks[m].lost)
        after = (m for m in range(n, len(self._marks)) if not self._marks[m].lost)
        return next(itertools.chain(before, after))

    def _mark(self, stop: int) -> None:
        """Makes sure that the frames before `stop` have been seen once, and a good one."""
        if len(self._marks) >= stop or self._length is not None:
            return
        try:
            for n, decoded in enumerate(self._iterate_decoded()):
                if n + 1 >= stop and isinstance(decoded, av.VideoFrame):
                    return
        except DamagedSourceError:
            return

    def _entries(self, start: int) -> list[int]:
        """The two key frames before a frame, the nearest first; none where timestamps tell nothing."""
        if self._is_avi and (self.lost or self.damage):  # where to seek by FFmpeg's own count, which is another
            return []
        stamps = [m.pts for m in self._marks]
        if None in stamps or len(set(stamps)) < len(stamps):
            return []
        if not self._is_avi and any(a >= b for a, b in itertools.pairwise(stamps)):  # type: ignore[operator]
            return []
        keys = [n for n in range(1, start + 1) if self._marks[n].key]
        return keys[:-3:-1]

    def _from_key(self, key: int, wanted: Sequence[int]) -> dict[int, Frame] | None:
        """The frames that are `wanted`, decoded from a key frame on; None where the container does not lead there."""
        stamps = {self._marks[n].pts: n for n in wanted}
        before = {m.pts for m in self._marks[: key + 1]}
        found: dict[int, Frame] = {}
        converter = self.make_converter()
        with self.open_stream(self._make_decoder) as (container, stream):
            try:
                container.seek(self._marks[key].pts or 0, stream=stream)
                seen = 0
                for decoded in decode_frames(container, stream):
                    if isinstance(decoded, LostFrame):
                        continue
                    if seen == 0 and not (decoded.key_frame and decoded.pts in before):
                        return None
                    seen += 1
                    converter.notice(decoded)
                    if decoded.pts in stamps:
                        n = stamps[decoded.pts]
                        found[n] = Frame(n, converter.convert(decoded))
                    if len(found) == len(stamps):
                        break
            except (av.FFmpegError, DamagedSourceError):
                pass
        return found if len(found) == len(stamps) else None

    def _from_first(self, wanted: Sequence[int]) -> dict[int, Frame]:
        left, found, converter = set(wanted), dict[int, Frame](), self.make_converter()
        try:
            for n, decoded in enumerate(self._iterate_decoded()):
                if isinstance(decoded, av.VideoFrame):
                    converter.notice(decoded)
                if n in left and isinstance(decoded, av.VideoFrame):
                    found[n] = Frame(n, converter.convert(decoded))
                    left.remove(n)
                if not left:
                    break
        except DamagedSourceError:
            pass
        if left:  # cannot be: these frames have been decoded before
            raise InputError(f"{self.path}: changed while it was read; run again")
        return found


def describe_numbers(frames: Sequence[int]) -> str:
    """Frames in words, those beside one another together.

    >>> describe_numbers([3, 4, 5, 9])
    'frames 3 to 5, 9'
    """
    begins = [n for k, n in enumerate(frames) if k == 0 or frames[k - 1] != n - 1]
    ends = [n for k, n in enumerate(frames) if k + 1 == len(frames) or frames[k + 1] != n + 1]
    spans = [f"{a} to {b}" if b > a else str(a) for a, b in zip(begins, ends, strict=True)]
    return "frames " + ", ".join(spans[:5]) + (", ..." if len(spans) > 5 else "")


def mark_frame(decoded: av.VideoFrame | LostFrame) -> FrameMark:
    """What is kept of a frame to find it again."""
    if isinstance(decoded, LostFrame):
        return FrameMark(decoded.pts, decoded.dts, lost=True)
    return FrameMark(decoded.pts, decoded.dts, bool(decoded.key_frame))
