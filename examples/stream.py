"""Answers frames as they arrive, in bounded memory; saves after a while, and goes on from there, as after a restart:
`python examples/stream.py clip.mp4`.
"""

import sys

import masklet
from masklet.core.memory import load_memory, save_memory


def main(video: str, until: int = 4, state: str = "state") -> list[int]:
    model = masklet.load(segmenter="nano", live=True)  # a segmenter that does not look ahead: no frame waits
    with masklet.open_video(video) as frames:
        stream, answered = model.system.stream(iter(frames)), []
        for answer in stream:
            print(f"frame {answer.index}: {dict(zip(answer.ids, answer.scores.tolist(), strict=True))}")
            answered.append(answer.index)
            if answer.index == until - 1:
                save_memory(stream.state, state)
                break
    with masklet.open_video(video, start=str(until)) as rest:
        for answer in model.system.stream(iter(rest), load_memory(state)):
            answered.append(until + answer.index)
    return answered


if __name__ == "__main__":
    main(*sys.argv[1:])
