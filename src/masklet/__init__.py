"""masklet: a video in, masklets out, one mask per object per frame with an identity and a name.

>>> import masklet
>>> result = masklet.segment("clip.mp4")  # doctest: +SKIP
>>> result.save("masklets.json")  # doctest: +SKIP
"""

import os

# torch reads it when it is loaded. Its threads would else spin while they wait for one that has no core: where anything
# else runs on the machine, a frame takes eight times as long; where nothing does, this costs 8 %.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from masklet.api import load, segment, stream, track
from masklet.core.errors import InputError
from masklet.core.frames import Frame, Video
from masklet.core.instances import Box, Clicks, Detections, FrameMasks, Point, Prediction
from masklet.core.masks import Rle
from masklet.core.protocols import LiveSystem, Propagator, Segmenter, VideoSystem
from masklet.core.result import Comparison, Provenance, VideoResult
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.systems.sam2bmp import Sam2Bmp, Sam2BmpSettings
from masklet.systems.track import Track
from masklet.version import __version__

__all__ = [
    "Box",
    "Clicks",
    "Comparison",
    "Detections",
    "Frame",
    "FrameMasks",
    "InputError",
    "LiveSystem",
    "Masklet",
    "Point",
    "Prediction",
    "Propagator",
    "Provenance",
    "Rle",
    "Sam2Bmp",
    "Sam2BmpSettings",
    "Segmenter",
    "Sighting",
    "Source",
    "Track",
    "Video",
    "VideoResult",
    "VideoSystem",
    "__version__",
    "load",
    "segment",
    "stream",
    "track",
]
