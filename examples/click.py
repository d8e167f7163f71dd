"""Follows what one click is on, both ways: `python examples/click.py clip.mp4 310 95`."""

import sys

import masklet


def main(video: str, x: float, y: float, frame: int = 0) -> masklet.VideoResult:
    result = masklet.track(video, {frame: {1: masklet.Point(float(x), float(y))}}, progress=True)
    for t, seen in sorted(result.masklets[0].sightings.items()):
        print(f"frame {t}: {seen.mask.area} pixels, {seen.source}, score {seen.score:.2f}")
    result.save("clicked.json")
    return result


if __name__ == "__main__":
    main(*sys.argv[1:])
