"""Videos: from files, folders, globs, pipes and memory."""

from masklet.io.video.sources import open_video

__all__ = ["open_video"]
