"""A propagator of your own: `python examples/own_propagator.py clip.mp4 mask.png`. This one believes that a mask stays
where it was; its memory is a value that goes in and comes out, so that it runs backward, branches and resumes as it is.
"""

import sys

import numpy as np
import torch
from PIL import Image

import masklet


class Still:
    """The memory is {id: mask}; features are the frame's size alone."""

    def encode(self, frames):
        return [frame.size for frame in frames]

    def empty(self):
        return {}

    def predict(self, memory, size):
        masks = torch.stack(list(memory.values())) if memory else torch.zeros(0, *size)
        sure = torch.ones(len(memory), 1)
        return masklet.Prediction(tuple(memory), 8 * masks[:, None] - 4, sure, sure)

    def commit(self, memory, size, belief):
        return {**memory, **{id: mask.float() for id, mask in zip(belief.ids, belief.masks(size), strict=True)}}

    def prompt(self, memory, size, prompts):
        memory = {**memory, **{id: mask.float() for id, mask in prompts.items()}}
        return memory, self.predict(memory, size)

    def forget(self, memory, ids):
        return {id: mask for id, mask in memory.items() if id not in set(ids)}

    def branch(self, memory, origins):
        return {new: memory[old] for new, old in origins.items()}


def main(video: str, mask: str) -> masklet.VideoResult:
    given = torch.from_numpy(np.array(Image.open(mask)) > 0)
    return masklet.track(video, {0: {1: given}}, propagator=Still())


if __name__ == "__main__":
    print(main(*sys.argv[1:]))
