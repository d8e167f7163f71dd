"""masklet: a video in, masklets out, one mask per object per frame with an identity and a name.

>>> import masklet
>>> result = masklet.segment("clip.mp4")  # doctest: +SKIP
>>> result.save("masklets.json")  # doctest: +SKIP
"""

import os
from typing import TYPE_CHECKING, Any

from masklet.core.cores import count_usable_cores
from masklet.core.imports import import_uncollected

# torch reads it when it is loaded. Its threads would else spin while they wait for one that has no core: where anything
# else runs on the machine, a frame takes eight times as long; where nothing does, this costs 8 %.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Nor does it know of a container's quota: it would begin a thread for every core of the machine.
if (_CORES := count_usable_cores()) < (os.cpu_count() or 1):
    os.environ.setdefault("OMP_NUM_THREADS", str(_CORES))

if TYPE_CHECKING:
    from masklet.api import Model, load, open, segment, stream, track
    from masklet.core.errors import InputError
    from masklet.core.frames import Frame, Video
    from masklet.core.instances import Box, Clicks, Detections, Exemplar, FrameMasks, Point, Prediction
    from masklet.core.part_request import PartRequest
    from masklet.core.protocols import LiveSystem, Propagator, Segmenter, VideoSystem
    from masklet.core.result import Comparison, Provenance, VideoResult
    from masklet.core.rle import Rle
    from masklet.core.tracks import Masklet, Sighting, Source
    from masklet.io.video.sources import open_video
    from masklet.registry import PartEntry
    from masklet.session.anchors import Anchor
    from masklet.session.session import Session
    from masklet.systems.deva.offline import DevaOffline, DevaOfflineSettings
    from masklet.systems.deva.online import Deva, DevaSettings
    from masklet.systems.dvis import DvisRefined, DvisSettings, build_dvis_system
    from masklet.systems.minvis import MinvisSettings, build_minvis_system
    from masklet.systems.rocovis import RocovisSystemSettings, SlotSystem, build_rocovis_system
    from masklet.systems.sam2bmp import Sam2Bmp, Sam2BmpSettings
    from masklet.systems.sam2long import MemoryTree
    from masklet.systems.track import Track
    from masklet.version import __version__

_PLACES = {  # where each name is: torch and what else is slow is imported when a name is first used
    "masklet.api": ("Model", "load", "open", "segment", "stream", "track"),
    "masklet.core.errors": ("InputError",),
    "masklet.core.frames": ("Frame", "Video"),
    "masklet.core.instances": ("Box", "Clicks", "Detections", "Exemplar", "FrameMasks", "Point", "Prediction"),
    "masklet.core.rle": ("Rle",),
    "masklet.core.protocols": ("LiveSystem", "Propagator", "Segmenter", "VideoSystem"),
    "masklet.core.result": ("Comparison", "Provenance", "VideoResult"),
    "masklet.core.tracks": ("Masklet", "Sighting", "Source"),
    "masklet.io.video.sources": ("open_video",),
    "masklet.core.part_request": ("PartRequest",),
    "masklet.registry": ("PartEntry",),
    "masklet.session.anchors": ("Anchor",),
    "masklet.session.session": ("Session",),
    "masklet.systems.deva.online": ("Deva", "DevaSettings"),
    "masklet.systems.deva.offline": ("DevaOffline", "DevaOfflineSettings"),
    "masklet.systems.dvis": ("DvisRefined", "DvisSettings", "build_dvis_system"),
    "masklet.systems.minvis": ("MinvisSettings", "build_minvis_system"),
    "masklet.systems.rocovis": ("RocovisSystemSettings", "SlotSystem", "build_rocovis_system"),
    "masklet.systems.sam2bmp": ("Sam2Bmp", "Sam2BmpSettings"),
    "masklet.systems.sam2long": ("MemoryTree",),
    "masklet.systems.track": ("Track",),
    "masklet.version": ("__version__",),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "Anchor",
    "Box",
    "Clicks",
    "Comparison",
    "Detections",
    "Deva",
    "DevaOffline",
    "DevaOfflineSettings",
    "DevaSettings",
    "DvisRefined",
    "DvisSettings",
    "Exemplar",
    "Frame",
    "FrameMasks",
    "InputError",
    "LiveSystem",
    "Masklet",
    "MemoryTree",
    "MinvisSettings",
    "Model",
    "PartEntry",
    "PartRequest",
    "Point",
    "Prediction",
    "Propagator",
    "Provenance",
    "Rle",
    "RocovisSystemSettings",
    "Sam2Bmp",
    "Sam2BmpSettings",
    "Segmenter",
    "Session",
    "Sighting",
    "SlotSystem",
    "Source",
    "Track",
    "Video",
    "VideoResult",
    "VideoSystem",
    "__version__",
    "build_dvis_system",
    "build_minvis_system",
    "build_rocovis_system",
    "load",
    "open",
    "open_video",
    "segment",
    "stream",
    "track",
]


if not TYPE_CHECKING:  # or a name that does not exist would be one of any kind

    def __getattr__(name: str) -> Any:
        """A name of `__all__`, or a module of the package; it stays once it was imported."""
        if name not in _MODULES:
            raise AttributeError(f"module 'masklet' has no attribute {name!r}")
        found = getattr(import_uncollected(_MODULES[name]), name)
        globals()[name] = found
        return found


def __dir__() -> list[str]:
    """What the package exports."""
    return sorted(__all__)
