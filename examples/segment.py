"""Finds, segments and tracks everything in a video: `python examples/segment.py clip.mp4`."""

import sys

import masklet


def main(video: str, out: str = "masklets.json") -> masklet.VideoResult:
    result = masklet.segment(video, progress=True)
    for m in result.masklets:
        print(f"{m.id}: {result.name_of(m)}, {len(m.sightings)} frames from {m.first}, score {m.score:.2f}")
    result.save(out)
    return result


if __name__ == "__main__":
    main(*sys.argv[1:])
