"""A segmenter of your own, a function from an RGB frame to detections: `python examples/own_segmenter.py clip.mp4`."""

import sys

import numpy as np
import torch

import masklet


def find_red(frame: np.ndarray) -> masklet.Detections:
    """All that is red, as one object. A detector's boxes do as well, as `supervision.Detections`."""
    mask = (frame[..., 0] > 150) & (frame[..., 1:].max(2) < 120)
    if not mask.any():
        return masklet.Detections.none(frame.shape[:2])
    return masklet.Detections(torch.from_numpy(mask)[None], torch.tensor([0.97]), torch.tensor([0]))


def main(video: str) -> masklet.VideoResult:
    result = masklet.load(segmenter=find_red).segment(video)
    print(result)
    return result


if __name__ == "__main__":
    main(*sys.argv[1:])
