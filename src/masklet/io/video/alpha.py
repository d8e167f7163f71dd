"""Where the frames of a video are opaque."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from masklet.core.errors import InputError
from masklet.core.limits import check_frame_size
from masklet.core.rle import Rle
from masklet.io.video.pixels import has_alpha
from masklet.io.video.video_file import VideoFile

# FFmpeg's own decoder of VP9 and VP8 drops the transparency, which is a second stream within the first.
WITH_ALPHA = {"vp9": "libvpx-vp9", "vp8": "libvpx"}


def iterate_opaque_masks(path: Path) -> Iterator[Rle]:
    """The pixels of each frame that are at least half opaque.

    Raises:
        InputError: it is no video, knows no transparency, or is damaged.
    """
    with VideoFile(path) as file, file.open_stream() as (container, stream):
        try:
            for n, frame in enumerate(_decode(container, stream)):
                if not has_alpha(frame):
                    raise InputError(
                        f"{path}: a video without transparency; give one of an object that is cut out, as masklet "
                        "export rgba-video writes it"
                    )
                check_frame_size(f"{path}: frame {n}", frame.height, frame.width)
                yield Rle.encode_pixels(frame.to_ndarray(format="rgba")[..., 3] >= 128)
        except av.FFmpegError as error:
            raise InputError(f"{path}: damaged ({error.strerror}); export it again") from None


def _decode(container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
    name = WITH_ALPHA.get(stream.codec_context.name)
    if name is None:
        yield from container.decode(stream)
        return
    decoder = av.CodecContext.create(name, "r")
    for packet in container.demux(stream):
        yield from decoder.decode(packet)  # type: ignore[attr-defined]
