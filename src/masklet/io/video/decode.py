"""Frames out of an opened container; where some are damaged, decoding goes on at the next key frame."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from masklet.core.limits import check_frame_size
from masklet.io.video.avi import PIECE, AviPlace, read_avi_index
from masklet.io.video.file_end import is_cut_file
from masklet.io.video.frame_source import DamagedSourceError
from masklet.io.video.picture_order import PictureOrder
from masklet.io.video.transport import has_lost_transport_packets

CUT_OFF = "the file is cut off there"
MISSING = "packets are missing"
NO_FRAME = "a packet gave no frame"
BROKEN_PACKET = "a packet is damaged"
DURATION = re.compile(r"(\d{1,6}):(\d\d):(\d\d(?:\.\d+)?)")
# What FFmpeg checks only when it is asked: that a scan decodes to its end. Its other checks see nothing more in damaged
# files (`tools/damage.py`), or take the stuffing of MPEG-2 for damage, and the frames after a cut for broken ones.
CHECKS = {"mjpeg": "explode"}
NO_STREAMS = ("tty", "ansi")  # demuxers that draw text
UNTIMED = ("h264", "hevc")  # codecs of whose frames FFmpeg does not know the order of display in an AVI
JOINABLE = ("mpegts", "mpeg", "h264", "hevc", "m4v", "mpegvideo")  # may begin in the middle of a broadcast
FEW_REORDERED = 3  # packets by which frames most often come later than they were decoded
REORDERED = 17  # frames that a decoder holds back at most, and one
PACKETS_AWAITED = 64  # after which a packet that gave no frame is not awaited any more
NO_KEY = "a recording begins here in the middle of a group of frames"
BACK = 0.5  # seconds that times go back where another recording begins
FAR, MANY_STEPS = 10, 100  # seconds, and steps between frames, by which they jump on there
HOLE = 256  # bytes between two packets of a Matroska file with one stream, above which something else was there
MOST_MISSING = 10_000  # frames in one gap; more are times that are damaged themselves


@dataclass(frozen=True)
class LostFrame:
    """A frame that the stream has or had, and that cannot be decoded."""

    pts: int | None  # in the stream's time base
    cause: str  # in words
    dts: int | None = None  # when it would be shown, as that of a frame


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


def check_stream_size(label: str, stream: VideoStream) -> None:
    """Raises InputError where frames are larger than is taken, as the header says, before any is decoded; some headers
    say nothing.
    """
    h, w = stream.codec_context.height, stream.codec_context.width
    if h > 0 and w > 0:
        check_frame_size(label, h, w)


def decode_frames(
    container: InputContainer, stream: VideoStream, tell: Callable[[str], None] = lambda told: None
) -> Iterator[av.VideoFrame | LostFrame]:
    """Frames of a `stream` in the order of display, with those that are lost between two good ones. Their `pts` tells
    them apart, their `dts` is when they are shown, in the stream's time base; None where nothing says it. Where times
    jump, as another recording begins, `tell` hears of it in words, before that one's first frame comes.

    Raises DamagedSourceError after the last good frame where more were there or are missing.
    """
    stream.codec_context.thread_count = 1  # so that an error shows at its own frame
    if stream.codec_context.name in CHECKS:
        stream.codec_context.options = {"err_detect": CHECKS[stream.codec_context.name]}
    reading = _DecodingPass(container, stream, tell)
    for given, frame in enumerate(reading.read(), 1):
        reading.given = given
        yield frame
    if reading.damage:
        raise DamagedSourceError(reading.damage)


@dataclass
class _Spoil:
    """Packets from one on, in the order of decoding, whose frames are not as recorded, up to a key frame."""

    first: int
    cause: str
    key: int | None = None  # the packet at which decoding is right again
    key_pts: int | None = 0  # None: nothing says it
    is_over: bool = False  # whether the frame of that one, or of a later key packet, has come

    def covers(self, packet: int, pts: int) -> bool:
        """Whether the frame of a `packet` that is displayed at `pts` is spoiled, or refers to one that is."""
        if packet < self.first or self.key is None or packet < self.key:
            return packet >= self.first
        if self.key_pts is None:  # then frames of later packets that come before its frame are displayed before it
            return not self.is_over and packet != self.key
        return pts < self.key_pts


class _DecodingPass:
    """One pass over a stream: what it has seen, and what went wrong.

    Packets are counted in the order of decoding, frames found again by their packet's pts. A stream without pts gets
    the packets' numbers for it, which the frames then lose again. An AVI has none but what FFmpeg makes up, which for
    some codecs is not the order of display: those packets get their numbers within the file, which the frames keep.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, tell: Callable[[str], None]) -> None:
        self.container, self.stream, self.tell = container, stream, tell
        self.given = 0  # frames so far
        self.damage: str | None = None  # why the frames end early
        self.end = 0  # of the packets so far, in the stream's time base
        self._has_durations = False  # whether packets say how long their frames are shown
        self.packets = 0
        self.widest = self.narrowest = 0  # steps between frames that follow one another
        # Packets before damage that are damaged, too: where bytes are missing, Matroska gives those of the next packet.
        self._is_matroska = container.format.name.startswith("matroska")
        self._is_avi = container.format.name == "avi"
        self._doubtful = int(self._is_matroska)
        self._is_transport = container.format.name == "mpegts"
        self._is_joinable = container.format.name in ("mpegts", "mpeg")
        self._offset = 0  # of the times of this recording, where it is not the first
        self._last_dts: int | None = None  # that packets had
        self._seam: int | None = None  # when its first frame is shown, until that comes
        self._last_tick: int | None = None  # when the last frame was shown
        between = stream.metadata.get("alpha_mode") == "1"  # the packets lie those of its transparency
        # MPEG-1 and 2 have one rate, and what is shown longer is so by half a frame, as long as no group shows a hole
        # without a picture missing.
        self._is_even = self._is_joinable and stream.codec_context.name in ("mpeg1video", "mpeg2video")
        self._order = PictureOrder(float(stream.codec_context.framerate or stream.average_rate or 25))
        self._is_lone_matroska = self._is_matroska and len(container.streams) == 1 and not between
        self._index = read_avi_index(container.name, stream.index, stream.frames) if self._is_avi else None
        # Whether it is known of each packet when it is displayed.
        self._is_exact = self._index is not None and not stream.codec_context.has_b_frames
        if self._index:  # which tells that bytes of the packet before are missing, and not how frames are reordered
            self._doubtful = 1 + (FEW_REORDERED if stream.codec_context.has_b_frames else 0)
        self._latest = 0  # the latest packet whose frame came
        self._origin: int | None = None  # dts of an AVI's first chunk
        self._ticks: deque[int] = deque()  # when frames of an AVI are shown, in order, of those that are not yet
        # Whether packets have pts.
        self._stamped = not (self._is_avi and stream.codec_context.name in UNTIMED)
        # Whether a key frame came; what is before the first of a broadcast nobody can decode.
        self._begun = container.format.name not in JOINABLE
        self._skipping = False  # packets up to the next key frame
        self._pending: dict[int, int] = {}  # pts: packet, of frames that the decoder has not given
        self._awaited: dict[int | None, int] = {}  # the same of packets that the decoder has
        self._dropped: dict[int, int] = {}  # the same of frames that it gave spoiled
        self._spoils: list[_Spoil] = []
        self._keys: deque[tuple[int, int]] = deque(maxlen=64)  # the last key packets and their pts
        self._held: deque[tuple[av.VideoFrame, int]] = deque()  # with their packets; one to come may spoil them
        self._shown: int | None = None  # the last frame's pts
        self._fed: tuple[int | None, int | None] = (None, None)  # dts and place of the last packet
        self._fed_bytes = 0  # of the last packet
        self._fed_to = 0  # where it ends
        self._usual_dts_step = 0
        self._decoded_to: int | None = None  # the last good packet's dts: all later ones are displayed after it

    def read(self) -> Iterator[av.VideoFrame | LostFrame]:
        """All good frames, and the lost ones between them."""
        for packet in self._demux():
            if (jump := self._measure_jump(packet)) is not None:
                yield from self._begin_anew(jump)
            for frame in self._decode(packet):
                yield from self._hold(frame)
        before = len(self._held)
        for frame in self._drain():
            self._receive(frame)
        yield from self._release_tail(before)

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
        frames: list[av.VideoFrame] = []
        place = self._find_in_index(packet)
        if place == PIECE:
            self._skip_from(self.packets - 1, BROKEN_PACKET)
            return frames
        number = self._register(packet)
        if place and not place.is_whole:
            self._skip_from(number, explain_place(BROKEN_PACKET, place))
        elif packet.is_corrupt:
            self._skip_from(number, BROKEN_PACKET, self._doubtful)
        elif (self._is_transport or self._is_lone_matroska or self._is_even) and self._has_hole_before(packet):
            self._skip_from(number, MISSING)
        self._fed, self._fed_bytes = (packet.dts, packet.pos), packet.size
        self._fed_to = (self._fed_to if packet.pos is None else packet.pos) + packet.size
        if packet.is_keyframe and not packet.is_corrupt:
            frames += self._resume(number, packet.pts or 0)
        if self._skipping or not packet.size:  # the frame before is shown on
            return frames
        if packet.pts in self._pending:
            self._awaited[packet.pts] = number
        try:
            frames += packet.decode()
        except av.FFmpegError as error:
            self._awaited.pop(packet.pts, None)
            self._skip_from(number, error.strerror or "cannot be decoded")
        else:
            self._decoded_to = self._decoded_to if packet.dts is None else packet.dts
        return frames

    def _find_in_index(self, packet: av.Packet[VideoStream]) -> AviPlace | None:
        """Where a packet stands in the file, after its times are set to that, and those taken note of that are missing
        before it; None where there is no index.
        """
        if self._index is None or None in (packet.pos, packet.dts) or not packet.size:
            return None
        place = self._index.find(packet.pos, packet.size, packet.dts)  # type: ignore[arg-type]
        if place == PIECE:
            return place
        self._origin = packet.dts - place.chunk + place.missing if self._origin is None else self._origin  # type: ignore[operator]
        late = self._origin + place.chunk - packet.dts  # type: ignore[operator]
        packet.dts += late  # type: ignore[operator]
        if packet.pts is not None:
            packet.pts = packet.dts if self._is_exact else packet.pts + late
        if place.missing or not place.is_last_whole:
            self._skip_from(self.packets, explain_place(MISSING, place), self._doubtful)
        for n in range(min(place.missing, MOST_MISSING) if self._is_exact or not self._stamped else 0):
            self._note_packet(packet.dts - place.missing + n)
        return place

    def _note_packet(self, pts: int) -> None:
        """Counts a packet, from which a frame of this `pts` is to come."""
        self._pending[pts] = self.packets
        if self._is_avi:
            self._ticks.append(pts)
        self.packets += 1

    def _measure_jump(self, packet: av.Packet[VideoStream]) -> float | None:
        """By how many seconds times jump before a packet of a transport or program stream, as where recordings were put
        one after the other; None where they run on.
        """
        if not self._is_joinable or packet.dts is None:
            return None
        last, self._last_dts = self._last_dts, packet.dts
        if last is None:
            return None
        base, steady = float(self.stream.time_base or 0), self._find_usual_step()
        jump = packet.dts - last - steady
        return jump * base if jump * base < -BACK or self._is_far(jump) else None

    def _is_far(self, jump: int) -> bool:
        """Whether times that jump on by so much show that another recording begins."""
        return jump > max(FAR / float(self.stream.time_base or 1), MANY_STEPS * self._find_usual_step())

    def _begin_anew(self, jump: float) -> Iterator[av.VideoFrame | LostFrame]:
        """Ends a recording, after which another one follows: gives its last frames, with those of its packets that gave
        none, and forgets its times, which `jump`.
        """
        for frame in self._empty_decoder():
            self._receive(frame)
        while self._held:
            yield from self._release(*self._held.popleft())
        rest = sorted((self._pending | self._dropped).items())
        for pts, n in rest:
            for spoil in [s for s in self._spoils if s.covers(n, pts)][:1]:
                yield LostFrame(pts, spoil.cause, self._show(pts))
        step, last = self._find_usual_step(), self._last_tick
        for known in (self._spoils, self._keys, self._pending, self._dropped, self._awaited):
            known.clear()
        self._shown, self._skipping, self._begun = None, False, True
        self._seam = None if last is None else last + step
        self.tell(describe_seam(self.given, jump))
        self._skip_from(self.packets, NO_KEY)

    def _show(self, pts: int | None) -> int | None:
        """When a frame is shown, in a time that runs on where another recording begins."""
        if pts is None:
            return None
        last = self._last_tick
        if self._is_joinable and self._seam is None and last is not None and self._is_far(pts + self._offset - last):
            self._seam = last + self._find_usual_step()  # a frame whose time was made up of one after the seam
        if self._seam is not None:
            self._offset, self._seam = self._seam - pts, None
        self._last_tick = pts + self._offset
        return self._last_tick

    def _register(self, packet: av.Packet[VideoStream]) -> int:
        """The packet's number, after taking note of its frame."""
        number = self.packets
        self._stamped = self._stamped and (number > 0 or packet.pts is not None)
        if not self._stamped and self._is_avi:
            packet.pts = number if packet.dts is None else packet.dts
        if packet.pts is not None:
            self.end = max(self.end, packet.pts + (packet.duration or 0))
            self._has_durations |= bool(packet.duration)
        if not self._stamped and not self._is_avi:
            packet.pts = number
        if packet.is_keyframe and not self._begun:
            self._begin(packet)
        if packet.pts is not None and packet.size and not packet.is_discard:
            self._note_packet(packet.pts)
        else:
            self.packets += 1
        self._forget_hidden_packets()
        return number

    def _begin(self, packet: av.Packet[VideoStream]) -> None:
        """Takes the first key frame of a broadcast for its beginning, unless packets before it were lost."""
        self._begun = True
        if self._pending and has_lost_transport_packets(self.container.name, 0, packet.pos):
            self._spoil(0, MISSING)
        else:
            self._pending.clear()

    def _forget_hidden_packets(self) -> None:
        """Awaits no frame any more of packets that give none, such as references that are never shown."""
        oldest = self.packets - PACKETS_AWAITED
        while self._awaited and next(iter(self._awaited.values())) < oldest:
            del self._awaited[next(iter(self._awaited))]
        while self._pending and not self._spoils and next(iter(self._pending.values())) < oldest:
            hidden = next(iter(self._pending))
            del self._pending[hidden]
            if hidden in self._ticks:
                self._ticks.remove(hidden)

    def _skip_from(self, number: int, cause: str, doubtful: int = 0) -> None:
        """Spoils packets from `number` on, and so many `doubtful` ones before, and keeps them from the decoder."""
        self._spoil(number, cause, doubtful)
        self._skipping = self._begun

    def _spoil(self, number: int, cause: str, doubtful: int = 0) -> None:
        """Takes note that frames are not as recorded from packet `number` on, nor those of so many `doubtful` ones
        before it.
        """
        first = number - doubtful
        if not self._begun or any(s.first <= first and (s.key is None or number < s.key) for s in self._spoils):
            return
        later = [(key, pts) for key, pts in self._keys if key > number]
        spoil = _Spoil(first, cause)
        self._spoils.append(spoil)
        if later:
            self._end_spoil(spoil, *later[0])

    def _end_spoil(self, spoil: _Spoil, key: int, pts: int) -> None:
        """Says of a `spoil` at which key packet it ends."""
        spoil.key, spoil.key_pts = key, pts if self._stamped else None

    def _resume(self, number: int, pts: int) -> list[av.VideoFrame]:
        """Ends what is spoiled at a key packet; gives the frames that the decoder held before it is emptied."""
        self._keys.append((number, pts))
        for spoil in self._spoils:
            if spoil.key is None and number >= spoil.first:
                self._end_spoil(spoil, number, pts)
        if not self._skipping:
            return []
        self._skipping = False
        return self._empty_decoder()

    def _empty_decoder(self) -> list[av.VideoFrame]:
        """The frames that the decoder held, which then is as at the beginning."""
        frames = self._drain()
        self.stream.codec_context.flush_buffers()
        self._awaited.clear()
        return frames

    def _drain(self) -> list[av.VideoFrame]:
        """The frames that the decoder still holds."""
        try:
            return self.stream.codec_context.decode(None)
        except av.FFmpegError as error:
            self._spoil(self.packets - 1, error.strerror or "cannot be decoded")
            return []

    def _hold(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame | LostFrame]:
        """Takes a frame and gives those that none which is still to come can have spoiled: all that were decoded
        before them are there.
        """
        self._receive(frame)
        while self._held and (len(self._held) > REORDERED or self._held[0][1] < self._find_awaited() - self._doubtful):
            yield from self._release(*self._held.popleft())

    def _receive(self, frame: av.VideoFrame) -> None:
        number = self.packets - 1  # where it cannot be told
        if frame.pts is not None:
            number = self._pending.pop(frame.pts, number)
            self._awaited.pop(frame.pts, None)
        self._latest = max(self._latest, number)
        if self._index and self._latest > number:
            self._doubtful = max(self._doubtful, self._latest - number + 1)
        if frame.is_corrupt:
            self._spoil(number, "a frame is corrupt")
        self._held.append((frame, number))

    def _find_awaited(self) -> int:
        """The first packet whose frame the decoder has not given."""
        return next(iter(self._awaited.values()), self.packets)

    def _is_spoiled(self, frame: av.VideoFrame, number: int) -> bool:
        return frame.is_corrupt or any(s.covers(number, frame.pts or 0) for s in self._spoils)

    def _release(self, frame: av.VideoFrame, number: int) -> Iterator[av.VideoFrame | LostFrame]:
        """A frame after those that are lost before it; nothing where it is spoiled itself."""
        self._spoil_silent_packets(frame)
        for spoil in self._spoils:
            spoil.is_over |= frame.key_frame and spoil.key is not None and number >= spoil.key
        if self._is_spoiled(frame, number):
            if frame.pts is not None:
                self._dropped[frame.pts] = number
            return
        lost = self._take_lost(frame, number)
        yield from lost
        self._measure_step(frame, bool(lost))
        if not self._stamped and not self._is_avi:
            frame.pts = None
        frame.dts = self._show(frame.pts) if self._stamped else self._take_tick()
        yield frame

    def _take_tick(self) -> int | None:
        """When the next frame is shown that has no pts of its own."""
        return self._ticks.popleft() if self._ticks else None

    def _spoil_silent_packets(self, frame: av.VideoFrame) -> None:
        """Takes packets for damaged that gave no frame, and no error, where times show a hole before this frame."""
        usual = 1 if self._is_exact else self._find_usual_step()
        if not self._stamped or None in (frame.pts, self._shown) or not frame.pts - self._shown > 1.5 * usual > 0:  # type: ignore[operator]
            return
        missing = {pts: n for pts, n in self._pending.items() if self._shown < pts < frame.pts}  # type: ignore[operator]
        silent = [n for pts, n in missing.items() if not any(spoil.covers(n, pts) for spoil in self._spoils)]
        if silent:
            self._spoil(min(silent), NO_FRAME)

    def _take_lost(self, frame: av.VideoFrame, number: int) -> list[LostFrame]:
        """What is lost before a good frame, of packet `number`, which ends the spoils before it."""
        if not self._spoils:
            return []
        shown, lost = frame.pts or 0, dict[int, str]()
        for spoil in list(self._spoils):
            found = self._list_lost(spoil, shown) if self._stamped else self._list_lost_packets(spoil, number)
            lost |= dict.fromkeys(found, spoil.cause)
            for pts in found:
                self._pending.pop(pts, None)
                self._dropped.pop(pts, None)
            if spoil.is_over if spoil.key_pts is None else spoil.key is not None and spoil.key_pts <= shown:
                self._spoils.remove(spoil)
        if not self._stamped:
            return [LostFrame(None, cause, self._take_tick()) for cause in lost.values()]
        return self._infer_missing(lost, frame)

    def _list_lost(self, spoil: _Spoil, before: int) -> list[int]:
        """The pts of the frames that a `spoil` took, of those displayed `before` a good one."""
        missing = self._pending | self._dropped
        return sorted(pts for pts, n in missing.items() if n >= spoil.first and pts < before)

    def _list_lost_packets(self, spoil: _Spoil, good: int) -> list[int]:
        """The same where only the order of packets is known: those that the decoder gave before it, and the others up
        to where the `spoil` ends, once the packet of the `good` one is of those after it.
        """
        given = {pts for pts, n in self._dropped.items() if n >= spoil.first}
        if spoil.key is None or good < spoil.first:
            return sorted(given)
        return sorted(given | {pts for pts, n in self._pending.items() if spoil.first <= n < spoil.key})

    def _infer_missing(self, lost: dict[int, str], frame: av.VideoFrame) -> list[LostFrame]:
        """The `lost` frames with those whose packets never came, as far as the steady times around them tell."""
        step, before = 0 if self._is_exact else self._find_usual_step(), self._list_shown_before()
        marks, out = [*before, *sorted(lost), *([] if frame.pts is None else [frame.pts])], []
        cause = next(iter(lost.values()), MISSING)
        for a, b in pairwise(marks):
            missing = round((b - a) / step) - 1 if step else 0
            missing = missing if missing <= MOST_MISSING else 0
            out += [LostFrame(a + i * step, cause) for i in range(1, missing + 1)]
            out += [LostFrame(b, lost[b])] if b in lost else []
        first = sorted(lost)[:1] if not before else []
        found = [LostFrame(pts, lost[pts]) for pts in first] + out
        return [replace(one, dts=self._show(one.pts)) for one in found]

    def _list_shown_before(self) -> list[int]:
        """The pts of the frame before the next one to be shown; of an AVI's first frame, what it would be."""
        if self._shown is not None:
            return [self._shown]
        known = self._origin is not None and not self._is_exact
        return [self._origin + int(self.stream.codec_context.has_b_frames) - 1] if known else []  # type: ignore[operator]

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
        if step > 0 and not after_lost and not (self._is_joinable and self._is_far(step)):
            self.widest, self.narrowest = max(self.widest, step), min(self.narrowest or step, step)
        self._shown = frame.pts

    def _has_hole_before(self, packet: av.Packet[VideoStream]) -> bool:
        """Whether packets are missing that left a hole in the times, and in the packets of a transport stream or the
        bytes of a Matroska file: neither tells of itself that whole ones are. Of even times the hole is enough.
        """
        (dts, place), usual = self._fed, self._usual_dts_step or self._find_usual_step()
        is_missing = self._order.take(memoryview(packet)) if self._is_even else None
        if None in (dts, packet.dts):
            return False
        step = packet.dts - dts  # type: ignore[operator]
        self._usual_dts_step = min(usual or step, step)
        if not step > 1.5 * usual > 0:
            return False
        self._is_even = self._is_even and is_missing is not False
        if self._is_even and step >= 2 * usual:
            return True
        if self._is_transport:
            return has_lost_transport_packets(self.container.name, place, packet.pos)
        is_placed = self._is_lone_matroska and None not in (place, packet.pos)
        return is_placed and packet.pos - place - self._fed_bytes > HOLE  # type: ignore[operator]

    def _release_tail(self, before: int) -> Iterator[av.VideoFrame | LostFrame]:
        """The last frames, up to the first that is missing where the stream ends early.

        `before` is how many of those that are held the decoder gave before its end, among which none is missing.
        """
        self.damage = self._explain_end()
        last = len(self._held) - before
        while self._held:
            frame, number = self._held.popleft()
            if self.damage and (not self._is_complete_before(frame) or self._is_spoiled_to_the_end(number)):
                return
            in_tail = len(self._held) < last
            if in_tail and not self.damage and not self._spoils and self._has_gap_before(frame):
                self.damage = CUT_OFF
                return
            yield from self._release(frame, number)
        self.damage = self.damage or self._explain_lost_end()

    def _explain_lost_end(self) -> str | None:
        """Why frames after the last good one are spoiled; None where there are none."""
        rest = [(n, pts) for pts, n in (self._pending | self._dropped).items()]
        return next((spoil.cause for spoil in self._spoils for n, pts in rest if spoil.covers(n, pts)), None)

    def _is_spoiled_to_the_end(self, number: int) -> bool:
        return any(s.key is None and number >= s.first for s in self._spoils)

    def _explain_end(self) -> str | None:
        """Why the stream ends before its time; None where it does not."""
        spoil = next((s for s in self._spoils if s.key is None), None)
        missing = self._index.find_missing_at_end() if self._index else None
        if spoil is None and missing:
            return explain_place(CUT_OFF, missing)
        if spoil is None:
            if not self._ends_early():
                return None
            if self._is_matroska:
                self._spoil(self.packets - 1, CUT_OFF)
            return CUT_OFF
        at_end = spoil.first >= self.packets - 1 - self._doubtful
        return CUT_OFF if at_end and spoil.cause == BROKEN_PACKET else spoil.cause

    def _is_complete_before(self, frame: av.VideoFrame) -> bool:
        """Whether none before a frame can be missing: all packets after the last good one are displayed after it."""
        return None not in (self._decoded_to, frame.pts) and frame.pts <= self._decoded_to  # type: ignore[operator]

    def _ends_early(self) -> bool:
        """Whether the container promises more than came: some demuxers just stop where a file is cut off."""
        if is_cut_file(self.container.name, self.container.format.name, self._fed_to):
            return True
        promised, base = read_promised_end(self.container, self.stream), float(self.stream.time_base or 0)
        if promised is None or not base:
            return False
        period = 1 / float(self.stream.average_rate or 25)
        start = 0 if self._is_avi else self.stream.start_time or 0
        missing = promised - (self.end - start) * base
        if self._is_matroska and (step := self._find_usual_step()) and self.stream.metadata.get("DURATION"):
            # Which is exact, and the last frame's end; that one may not say how long it is shown. Times are rounded.
            shown = step if self._has_durations else 2 * step
            return missing > max(shown - 0.25 * step, shown - step + 1.5) * base
        return missing > max(1.5 * period, self.widest * base)

    def _has_gap_before(self, frame: av.VideoFrame) -> bool:
        """Whether a step in the last frames of an otherwise steady stream shows that one between is missing."""
        if frame.pts is None or self._shown is None or 0 < self.stream.frames <= self.packets:
            return False
        promised = read_promised_end(self.container, self.stream)
        usual = self._find_usual_step() if self.widest or promised is None else 0
        last = max(f.pts or 0 for f in (frame, *(f for f, _ in self._held)))
        lasting = last - self._shown > REORDERED * usual  # longer than a decoder looks ahead: times are uneven
        return not lasting and frame.pts - self._shown > 1.5 * usual > 0


def describe_seam(frame: int, jump: float) -> str:
    """What a result says where another recording begins at a `frame`, and times `jump` by some seconds.

    >>> describe_seam(25, -2.5)
    'another recording begins at frame 25: times jump back by 2.5 s; frames are counted on'
    """
    where = f"on by {jump:.1f} s" if jump > 0 else f"back by {-jump:.1f} s"
    return f"another recording begins at frame {frame}: times jump {where}; frames are counted on"


def explain_place(cause: str, place: AviPlace) -> str:
    """Why frames of an AVI are lost, and where the place may be another.

    >>> explain_place("packets are missing", AviPlace(9, 1, True, True, 2))
    'packets are missing, here or among the 2 frames before, which are of the same size'
    """
    if not place.alike:
        return cause
    before = "frame before, which is" if place.alike == 1 else f"{place.alike} frames before, which are"
    return f"{cause}, here or among the {before} of the same size"


def read_promised_end(container: InputContainer, stream: VideoStream) -> float | None:
    """Seconds from the first frame to the end, as the container's header says; None where it does not."""
    if container.format.name in ("mpegts", "mpeg", "hls", "dash", "concat"):  # an estimate, so no promise
        return None
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    written = DURATION.fullmatch(stream.metadata.get("DURATION", ""))  # damaged ones say nothing
    if written:
        hours, minutes, seconds = map(float, written.groups())
        return 3600 * hours + 60 * minutes + seconds - float((stream.start_time or 0) * (stream.time_base or 0))
    if container.duration and len(container.streams) == 1:
        begin = float((stream.start_time or 0) * (stream.time_base or 0)) if container.format.name == "flv" else 0.0
        return container.duration / av.time_base - begin
    return None
