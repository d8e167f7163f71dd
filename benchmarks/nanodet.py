"""Measures the packaged detector on the validation part of coco80, as COCO's own code says it.

    python benchmarks/nanodet.py                     # 284 images, the long side at 416
    python benchmarks/nanodet.py --long-side 512

Data: ../shared/data/stills, or MASKLET_DATA. Its annotations are those of COCO's images that the network was not
trained on. The time is that of reading no file: from the image to its boxes.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from typing import Any

import cv2
import numpy as np
import torch
from nano import DATA, coco_truth
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from masklet.models.boxes import Boxes
from masklet.models.nano.nanodet import COCO_NAMES, NanoDet, NanoDetSettings, load_nanodet

PERSON = COCO_NAMES.index("person")


def detect_images(detector: NanoDet, truth: dict[str, Any], categories: Sequence[int]) -> tuple[list[Any], float]:
    """The boxes of all images in COCO's form, and CPU seconds per image."""
    claimed: list[dict[str, Any]] = []
    seconds = 0.0
    for image in truth["images"]:
        with Image.open(DATA / "coco80/images" / image["file_name"]) as opened:
            pixels = np.array(opened.convert("RGB"))
        began = time.process_time()
        found = detector.detect(pixels)
        seconds += time.process_time() - began
        claimed += convert_boxes(image["id"], found, categories)
    return claimed, seconds / len(truth["images"])


def convert_boxes(image: int, found: Boxes, categories: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The boxes of the image with id `image` in COCO's form: x, y, width, height.

    Args:
        image: COCO's id.
        found: its boxes.
        categories: COCO's ids, by label.
    """
    sizes = torch.cat([found.corners[:, :2], found.corners[:, 2:] - found.corners[:, :2]], dim=1)
    for box, score, label in zip(sizes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True):
        yield {"image_id": image, "category_id": categories[label], "bbox": box, "score": score}


def evaluate_boxes(truth: dict[str, Any], claimed: list[dict[str, Any]]) -> dict[str, float]:
    """COCO's figures, in percent."""
    with redirect_stdout(io.StringIO()):  # it prints
        known = COCO()
        known.dataset = truth
        known.createIndex()
        scored = COCOeval(known, known.loadRes(claimed), "bbox")
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    precision = scored.eval["precision"][:, :, PERSON, 0, -1]  # IoU, recall, category, any area, 100 boxes
    return {
        "box AP": 100 * float(scored.stats[0]),
        "box AP50": 100 * float(scored.stats[1]),
        "person AP": 100 * float(precision.mean()),
        "person AP50": 100 * float(precision[0].mean()),
        "AP of small, below 32 x 32": 100 * float(scored.stats[3]),
        "AP of medium": 100 * float(scored.stats[4]),
        "AP of large, above 96 x 96": 100 * float(scored.stats[5]),
        "AR at 100": 100 * float(scored.stats[8]),
    }


def main() -> int:
    """Prints the figures."""
    settings = NanoDetSettings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--long-side", type=int, default=settings.long_side, help="of the network's image, pixels")
    parser.add_argument("--most", type=int, default=10**6, help="images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    truth, categories = coco_truth(options.most)
    detector = load_nanodet(NanoDetSettings(long_side=options.long_side))
    claimed, seconds = detect_images(detector, truth, categories)
    for name, value in {**evaluate_boxes(truth, claimed), "CPU ms per image": 1000 * seconds}.items():
        print(f"{name:<32}{value:6.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
