"""Frames out of an opened container, up to the first that is damaged."""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream
from jaxtyping import UInt8

from masklet.io.video.frame_source import DamagedSourceError

CUT_OFF = "the file is cut off there"


def find_video_stream(container: InputContainer) -> VideoStream | None:
    """The first stream that is a video, not a cover image or text drawn as one; None where there is none."""
    for stream in container.streams.video:
        cover = stream.disposition & Disposition.attached_pic
        if not cover and container.format.name != "tty" and stream.codec_context is not None:
            return stream
    return None


def decode_frames(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    """Frames of a `stream` in the order of display; raises DamagedSourceError at the first that is not as recorded."""
    stream.codec_context.thread_count = 1  # so that an error shows at its own frame
    reading = _DecodingPass(container, stream)
    yield from reading.forward()
    yield from reading.tail()
    if reading.damage:
        raise DamagedSourceError(reading.damage)


class _DecodingPass:
    """One pass over a stream: what it has seen, and what went wrong."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.container, self.stream = container, stream
        self.damage: str | None = None
        self.decoded_to: int | None = None  # the last good packet's dts: all later ones are displayed after it
        self.end = 0  # of the packets so far, in the stream's time base
        self.shown: list[int] = []  # the last pictures' pts
        self.widest = 0  # largest and smallest step between pictures
        self.narrowest = 0

    def forward(self) -> Iterator[av.VideoFrame]:
        """Frames as their packets arrive, up to the first damage, of which `damage` then says what it is."""
        try:
            for packet in self.container.demux(self.stream):
                if packet.dts is None and packet.size == 0:  # the end
                    break
                if packet.is_corrupt:
                    self.damage = CUT_OFF
                    return
                for picture in packet.decode():
                    if not self._good(picture):
                        return
                    yield picture
                self._read(packet)
        except av.FFmpegError as error:
            self.damage = error.strerror or "cannot be read on"
        if self.damage is None and self._ends_early():
            self.damage = CUT_OFF

    def tail(self) -> Iterator[av.VideoFrame]:
        """Frames that the decoder still holds, as far as none before them is missing."""
        try:
            held = self.stream.codec_context.decode(None)
        except av.FFmpegError:
            return
        for picture in held:
            if self.damage and not self._complete_before(picture):
                return
            if not self.damage and self._gap_before(picture):
                self.damage = CUT_OFF
                return
            if not self._good(picture):
                return
            yield picture

    def _good(self, picture: av.VideoFrame) -> bool:
        """Notes the time of a frame; False where it is corrupt, which ends the reading."""
        if picture.is_corrupt:
            self.damage = self.damage or "a picture is corrupt"
            return False
        if picture.pts is not None:
            if self.shown:
                step = picture.pts - self.shown[-1]
                self.widest = max(self.widest, step)
                self.narrowest = min(self.narrowest or step, step)
            self.shown = [picture.pts]
        return True

    def _read(self, packet: av.Packet[VideoStream]) -> None:
        if packet.dts is not None:
            self.decoded_to = packet.dts
        if packet.pts is not None:
            self.end = max(self.end, packet.pts + (packet.duration or 0))

    def _complete_before(self, picture: av.VideoFrame) -> bool:
        return None not in (self.decoded_to, picture.pts) and picture.pts <= self.decoded_to  # type: ignore[operator]

    def _ends_early(self) -> bool:
        """Whether the container promises more than came: some demuxers just stop where a file is cut off."""
        promised, base = read_promised_end(self.container, self.stream), float(self.stream.time_base or 0)
        if promised is None or not base:
            return False
        period = 1 / float(self.stream.average_rate or 25)
        missing = promised - (self.end - (self.stream.start_time or 0)) * base
        return missing > max(1.5 * period, self.widest * base)

    def _gap_before(self, picture: av.VideoFrame) -> bool:
        """Whether a step in the last frames of an otherwise steady stream shows that one between is missing."""
        if picture.pts is None or not self.shown:
            return False
        usual = float(self.widest) if self.widest <= 1.5 * self.narrowest else 0.0
        if not self.widest and read_promised_end(self.container, self.stream) is None:  # the second picture of all
            usual = self._period()
        return picture.pts - self.shown[-1] > 1.5 * usual > 0

    def _period(self) -> float:
        """How long a frame is shown, in the stream's time base, as its codec says; 0 where it does not."""
        rate, base = self.stream.codec_context.framerate, self.stream.time_base
        return float(1 / (rate * base)) if rate and base else 0.0


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


def convert_upright_rgb(picture: av.VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of a decoded frame as RGB, turned as the recording camera says."""
    pixels = picture.to_ndarray(format="rgb24")
    quarters = round(picture.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, quarters)) if quarters else pixels
