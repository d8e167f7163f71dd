"""Corrects one object of a result by clicks, and propagates the correction: `python examples/correct.py clip.mp4
masklets.json 3 12 310 95`, which is object 3, frame 12, a pixel that is on it. The other objects stay to the bit.
"""

import sys

import masklet


def main(video: str, result: str, id: int, frame: int, x: float, y: float) -> masklet.VideoResult:
    with masklet.open(video, result=result) as session:
        mask = session.prompt(int(frame), int(id), masklet.Point(float(x), float(y)))
        print(f"object {id} in frame {frame}: {mask.area} pixels")
        session.propagate(int(id))
        session.result.save("corrected.json")
        return session.result


if __name__ == "__main__":
    main(*sys.argv[1:])
