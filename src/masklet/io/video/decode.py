"""Frames out of an opened container; where some are damaged, decoding goes on at the next key frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from masklet.io.video.frame_source import DamagedSourceError
from masklet.io.video.transport import has_lost_transport_packets, is_cut_transport_file

CUT_OFF = "the file is cut off there"
MISSING = "packets are missing"
BROKEN_PACKET = "a packet is damaged"
NO_STREAMS = ("tty", "ansi")  # demuxers that draw text
PACKETS_REMEMBERED = 512  # given to the decoder and not shown yet, above which the oldest are forgotten


@dataclass(frozen=True)
class LostFrame:
    """A frame that the stream has or had, and that cannot be decoded."""

    pts: int | None  # in the stream's time base
    cause: str  # in words


def list_video_streams(container: InputContainer) -> list[VideoStream]:
    """The streams of a container that are videos, the one to take first: not a cover image, not a single image beside
    a video, the most pixels. Text that is drawn as a video is none.
    """
    if container.format.name in NO_STREAMS:
        return []
    hidden = Disposition.attached_pic | Disposition.timed_thumbnails
    found = [s for s in container.streams.video if s.codec_context is not None and not s.disposition & hidden]
    return sorted(found, key=lambda s: (s.frames == 1, -s.codec_context.width * s.codec_context.height, s.index))


def find_video_stream(container: InputContainer) -> VideoStream | None:
    """The stream that is meant by a container's video; None where it has none."""
    return next(iter(list_video_streams(container)), None)


def decode_frames(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame | LostFrame]:
    """Frames of a `stream` in the order of display, with those that are lost between two good ones.

    Raises DamagedSourceError after the last good frame where more were there or are missing.
    """
    stream.codec_context.thread_count = 1  # so that an error shows at its own frame
    reading = _DecodingPass(container, stream)
    yield from reading.read()
    if reading.damage:
        raise DamagedSourceError(reading.damage)


@dataclass
class _Spoil:
    """Packets from one on, in the order of decoding, whose frames are not as recorded, up to a key frame."""

    first: int
    cause: str
    key: int | None = None  # the packet at which decoding is right again
    key_pts: int = 0

    def covers(self, packet: int, pts: int) -> bool:
        """Whether the frame of a `packet` that is displayed at `pts` is spoiled, or refers to one that is."""
        return packet >= self.first and (self.key is None or packet < self.key or pts < self.key_pts)


class _DecodingPass:
    """One pass over a stream: what it has seen, and what went wrong.

    Packets are counted in the order of decoding, frames found again by their packet's pts. A stream without pts gets
    the packets' numbers for it, which the frames then lose again.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.container, self.stream = container, stream
        self.damage: str | None = None  # why the frames end early
        self.end = 0  # of the packets so far, in the stream's time base
        self.packets = 0
        self.widest = self.narrowest = 0  # steps between frames that follow one another
        self._stamped = True  # whether packets have pts
        self._begun = False  # a key frame came: what is before it nobody can decode
        self._skipping = False  # packets up to the next key frame
        self._pending: dict[int, int] = {}  # pts: packet, of frames that have not been shown
        self._spoils: list[_Spoil] = []
        self._keys: deque[tuple[int, int]] = deque(maxlen=64)  # the last key packets and their pts
        self._held: deque[av.VideoFrame] = deque()  # those after which a corrupt one may follow that they refer to
        self._shown: int | None = None  # the last frame's pts
        self._fed: tuple[int | None, int | None] = (None, None)  # dts and place of the last packet
        self._usual_dts_step = 0
        self._decoded_to: int | None = None  # the last good packet's dts: all later ones are displayed after it

    def read(self) -> Iterator[av.VideoFrame | LostFrame]:
        """All good frames, and the lost ones between them."""
        for packet in self._demux():
            for frame in self._decode(packet):
                yield from self._hold(frame)
        for frame in self._drain():
            self._receive(frame)
        yield from self._release_tail()

    def _demux(self) -> Iterator[av.Packet[VideoStream]]:
        """The packets to the end; an error spoils what follows, two in a row are the end."""
        failed = False
        while True:
            try:
                for packet in self.container.demux(self.stream):
                    if packet.dts is None and packet.size == 0:  # the end
                        return
                    failed = False
                    yield packet
            except av.FFmpegError as error:
                self._spoil(self.packets, error.strerror or "cannot be read on")
                if failed:
                    return
                failed = self._skipping = True
            else:
                return

    def _decode(self, packet: av.Packet[VideoStream]) -> list[av.VideoFrame]:
        """The frames that a packet brings out of the decoder."""
        number = self._register(packet)
        if packet.is_corrupt:
            self._skip_from(number, BROKEN_PACKET)
        elif self._has_hole_before(packet):
            self._skip_from(number, MISSING)
        self._fed = packet.dts, packet.pos
        frames = []
        if packet.is_keyframe and not packet.is_corrupt:
            frames = self._resume(number, packet.pts or 0)
        if self._skipping:
            return []
        try:
            frames += packet.decode()
        except av.FFmpegError as error:
            self._skip_from(number, error.strerror or "cannot be decoded")
        else:
            self._decoded_to = self._decoded_to if packet.dts is None else packet.dts
        return frames

    def _register(self, packet: av.Packet[VideoStream]) -> int:
        """The packet's number, after taking note of its frame."""
        number = self.packets
        self._stamped = self._stamped and (number > 0 or packet.pts is not None)
        if packet.pts is not None:
            self.end = max(self.end, packet.pts + (packet.duration or 0))
        if not self._stamped:
            packet.pts = number
        self._begun = self._begun or packet.is_keyframe
        if self._begun and packet.pts is not None and packet.size and not packet.is_discard:
            self._pending[packet.pts] = number
        if len(self._pending) > PACKETS_REMEMBERED and not self._spoils:
            del self._pending[next(iter(self._pending))]
        self.packets += 1
        return number

    def _skip_from(self, number: int, cause: str) -> None:
        """Spoils packets from `number` on and keeps them from the decoder."""
        self._spoil(number, cause)
        self._skipping = self._begun

    def _spoil(self, number: int, cause: str) -> None:
        """Takes note that frames are not as recorded from packet `number` on."""
        if not self._begun or any(s.covers(number, s.key_pts - 1) for s in self._spoils):
            return
        later = [(key, pts) for key, pts in self._keys if key > number]
        self._spoils.append(_Spoil(number, cause, *later[0] if later else (None,)))

    def _resume(self, number: int, pts: int) -> list[av.VideoFrame]:
        """Ends what is spoiled at a key packet; gives the frames that the decoder held before it is emptied."""
        self._keys.append((number, pts))
        for spoil in self._spoils:
            if spoil.key is None and number >= spoil.first:
                spoil.key, spoil.key_pts = number, pts
        if not self._skipping:
            return []
        self._skipping = False
        frames = self._drain()
        self.stream.codec_context.flush_buffers()
        return frames

    def _drain(self) -> list[av.VideoFrame]:
        """The frames that the decoder still holds."""
        try:
            return self.stream.codec_context.decode(None)
        except av.FFmpegError as error:
            self._spoil(self.packets - 1, error.strerror or "cannot be decoded")
            return []

    def _hold(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame | LostFrame]:
        """Takes a frame and gives those that none which is still to come can have spoiled."""
        self._receive(frame)
        while len(self._held) > self.stream.codec_context.reorder_depth:
            yield from self._release(self._held.popleft())

    def _receive(self, frame: av.VideoFrame) -> None:
        if frame.is_corrupt:
            self._spoil(self._find_packet(frame), "a frame is corrupt")
        self._held.append(frame)

    def _find_packet(self, frame: av.VideoFrame) -> int:
        """The number of a frame's packet; of the last one where it cannot be told."""
        return self._pending.get(self.packets if frame.pts is None else frame.pts, self.packets - 1)

    def _is_spoiled_to_the_end(self, frame: av.VideoFrame) -> bool:
        return any(s.key is None and s.covers(self._find_packet(frame), 0) for s in self._spoils)

    def _is_spoiled(self, frame: av.VideoFrame) -> bool:
        number, pts = self._find_packet(frame), frame.pts or 0
        return frame.is_corrupt or any(s.covers(number, pts) for s in self._spoils)

    def _release(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame | LostFrame]:
        """A frame after those that are lost before it; nothing where it is spoiled itself."""
        if self._is_spoiled(frame):
            return
        lost = self._take_lost(frame)
        yield from lost
        self._measure_step(frame, bool(lost))
        if frame.pts is not None:
            self._pending.pop(frame.pts, None)
        if not self._stamped:
            frame.pts = None
        yield frame

    def _take_lost(self, frame: av.VideoFrame) -> list[LostFrame]:
        """What is lost before a good frame, which ends the spoils before it."""
        shown, lost = frame.pts or 0, dict[int, str]()
        hurt = bool(self._spoils)
        for spoil in list(self._spoils):
            found = self._list_lost(spoil, shown)
            lost |= dict.fromkeys(found, spoil.cause)
            self._pending = {pts: n for pts, n in self._pending.items() if pts not in found}
            if spoil.key is not None and spoil.key_pts <= shown:
                self._spoils.remove(spoil)
        if not self._stamped:
            return [LostFrame(None, cause) for cause in lost.values()]
        return self._infer_missing(lost, frame) if hurt else []

    def _list_lost(self, spoil: _Spoil, before: int) -> list[int]:
        """The pts of the frames that a `spoil` took, of those displayed `before` a good one."""
        upto = before if self._stamped or spoil.key is None else spoil.key
        return sorted(pts for pts, n in self._pending.items() if n >= spoil.first and pts < upto)

    def _infer_missing(self, lost: dict[int, str], frame: av.VideoFrame) -> list[LostFrame]:
        """The `lost` frames with those whose packets never came, as far as the steady times around them tell."""
        step, before = self._find_usual_step(), [] if self._shown is None else [self._shown]
        marks, out = [*before, *sorted(lost), *([] if frame.pts is None else [frame.pts])], []
        cause = next(iter(lost.values()), MISSING)
        for a, b in pairwise(marks):
            out += [LostFrame(a + i * step, cause) for i in range(1, round((b - a) / step) if step else 1)]
            out += [LostFrame(b, lost[b])] if b in lost else []
        first = sorted(lost)[:1] if self._shown is None else []
        return [LostFrame(pts, lost[pts]) for pts in first] + out

    def _find_usual_step(self) -> int:
        """The step between frames where it is steady, else 0; of one frame alone as its codec says."""
        if self.widest:
            return self.narrowest if self.widest <= 1.5 * self.narrowest else 0
        rate, base = self.stream.average_rate or self.stream.codec_context.framerate, self.stream.time_base
        return round(1 / (rate * base)) if rate and base else 0

    def _measure_step(self, frame: av.VideoFrame, after_lost: bool) -> None:
        if frame.pts is None:
            return
        step = frame.pts - (frame.pts if self._shown is None else self._shown)
        if step > 0 and not after_lost:
            self.widest, self.narrowest = max(self.widest, step), min(self.narrowest or step, step)
        self._shown = frame.pts

    def _has_hole_before(self, packet: av.Packet[VideoStream]) -> bool:
        """Whether packets of a transport stream are missing, which it does not tell of itself where they were whole."""
        (dts, place), self_step = self._fed, self._usual_dts_step
        if self.container.format.name != "mpegts" or None in (dts, packet.dts):
            return False
        step = packet.dts - dts  # type: ignore[operator]
        self._usual_dts_step = min(self_step or step, step)
        return step > 1.5 * self_step > 0 and has_lost_transport_packets(self.container.name, place, packet.pos)

    def _release_tail(self) -> Iterator[av.VideoFrame | LostFrame]:
        """The last frames, up to the first that is missing where the stream ends early."""
        self.damage = self._explain_end()
        while self._held:
            frame = self._held.popleft()
            if self.damage and (not self._is_complete_before(frame) or self._is_spoiled_to_the_end(frame)):
                return
            if not self.damage and self._has_gap_before(frame):
                self.damage = CUT_OFF
                return
            yield from self._release(frame)

    def _explain_end(self) -> str | None:
        """Why the stream ends before its time; None where it does not."""
        spoil = next((s for s in self._spoils if s.key is None), None)
        if spoil is None:
            return CUT_OFF if self._ends_early() else None
        at_end = spoil.first >= self.packets - 1
        return CUT_OFF if at_end and spoil.cause == BROKEN_PACKET else spoil.cause

    def _is_complete_before(self, frame: av.VideoFrame) -> bool:
        """Whether none before a frame can be missing: all packets after the last good one are displayed after it."""
        return None not in (self._decoded_to, frame.pts) and frame.pts <= self._decoded_to  # type: ignore[operator]

    def _ends_early(self) -> bool:
        """Whether the container promises more than came: some demuxers just stop where a file is cut off."""
        if is_cut_transport_stream(self.container):
            return True
        promised, base = read_promised_end(self.container, self.stream), float(self.stream.time_base or 0)
        if promised is None or not base:
            return False
        period = 1 / float(self.stream.average_rate or 25)
        missing = promised - (self.end - (self.stream.start_time or 0)) * base
        return missing > max(1.5 * period, self.widest * base)

    def _has_gap_before(self, frame: av.VideoFrame) -> bool:
        """Whether a step in the last frames of an otherwise steady stream shows that one between is missing."""
        if frame.pts is None or self._shown is None or 0 < self.stream.frames <= self.packets:
            return False
        promised = read_promised_end(self.container, self.stream)
        usual = self._find_usual_step() if self.widest or promised is None else 0
        return frame.pts - self._shown > 1.5 * usual > 0


def is_cut_transport_stream(container: InputContainer) -> bool:
    """Whether a file of transport packets ends in the middle of one."""
    return container.format.name == "mpegts" and is_cut_transport_file(container.name)


def read_promised_end(container: InputContainer, stream: VideoStream) -> float | None:
    """Seconds from the first frame to the end, as the container's header says; None where it does not."""
    if container.format.name in ("mpegts", "mpeg"):  # estimated from the last packets, so no promise
        return None
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    tag = stream.metadata.get("DURATION", "")
    if tag.count(":") == 2:
        hours, minutes, seconds = (float(part) for part in tag.split(":"))
        return 3600 * hours + 60 * minutes + seconds - float((stream.start_time or 0) * (stream.time_base or 0))
    if container.duration and len(container.streams) == 1:
        return container.duration / av.time_base
    return None
