"""Videos from addresses and cameras, and playlists that would open other files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from masklet.core.errors import InputError
from masklet.core.wording import name_argument

if TYPE_CHECKING:
    from av.container import InputContainer

TIMEOUT = 10.0  # seconds to open, and again for each packet
SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp", "rtmps", "srt", "udp", "tcp")
PLAYLIST_OPTIONS: Mapping[str, str] = {
    "protocol_whitelist": "file,http,https,tcp,tls,crypto,data",
    "allowed_extensions": "ALL",
    "safe": "0",
}
# How those files begin that name other files: HLS, concat, DASH, SDP, PLS, ASX, SMIL.
PLAYLIST = re.compile(
    rb"^(#EXTM3U|ffconcat version|v=0\s|\[playlist\]|(<\?xml.{0,1000})?<(MPD|asx|smil)\b)", re.S | re.I
)


def is_address(source: str) -> bool:
    """Whether a source is a network address, such as https://... or rtsp://...

    >>> is_address("https://a.b/clip.mp4"), is_address("clip.mp4"), is_address("a:b.mp4")
    (True, False, False)
    """
    scheme, colon, _ = source.partition("://")
    return bool(colon) and scheme.lower() in SCHEMES


def is_camera(path: Path) -> bool:
    """Whether a path is a camera of this machine, such as /dev/video0."""
    return path.is_char_device() and path.name.startswith("video")


def name_address(address: str) -> str:
    """What a video at an address is called: the last part of its path, else the host.

    >>> name_address("https://a.b/clips/street.mp4?key=1"), name_address("rtsp://camera:554")
    ('street', 'camera')
    """
    parts = urlsplit(address)
    return Path(parts.path).stem or parts.hostname or "video"


def open_live(source: str, options: Mapping[str, str] | None = None) -> InputContainer:
    """Opens an address or a camera, with `options` of FFmpeg; raises InputError where nothing answers in time."""
    import av

    try:
        if is_address(source):
            return av.open(source, timeout=TIMEOUT, options=dict(options or {}), metadata_errors="replace")
        return av.open(source, format="v4l2", options=dict(options or {}))
    except (av.FFmpegError, ValueError, OSError) as error:
        why = getattr(error, "strerror", None) or str(error)
        why = f"no answer in {TIMEOUT:g} s" if isinstance(error, av.error.ExitError) else why
        raise InputError(f"{source}: cannot be opened ({why}); check the address, or give a file") from None


def refuse_playlist(path: Path) -> None:
    """Raises InputError where a file names other files to be opened, which the user did not name."""
    with path.open("rb") as file:
        head = file.read(2048).lstrip(b"\xef\xbb\xbf \t\r\n")
    if PLAYLIST.match(head):
        raise InputError(
            f"{path}: a playlist, which opens other files and addresses; give the video itself, "
            f"or allow that with {name_argument('allow_network', True)}"
        )
