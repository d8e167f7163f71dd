"""What a result tells its reader beside the masks."""

from __future__ import annotations

from collections.abc import Sequence

from masklet.core.tracks import Masklet


def describe_lost_objects(masklets: Sequence[Masklet], length: int, most: int = 5) -> list[str]:
    """What a result says of objects that are not found to its end: a sentence each, above `most` one for all.

    Args:
        masklets: the objects.
        length: frames of the video.
        most: objects that are told of one by one.
    """
    ends = {m.id: max(m.sightings) + 1 for m in masklets}
    lost = {id: end for id, end in ends.items() if end < length}
    if len(lost) <= most:
        return [f"object {id}: not found from frame {t} on; it left, or the scene changed" for id, t in lost.items()]
    first = min(lost, key=lambda id: lost[id])
    return [f"{len(lost)} objects: not found to the end, the first of them object {first}, from frame {lost[first]} on"]
