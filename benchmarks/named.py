"""Measures the segmenter `nano` on the validation part of coco80, and fits what its scores mean.

    python benchmarks/named.py coco          # mask AP as COCO's own code says it
    python benchmarks/named.py calibration   # fitted on every second image, judged on the others; a diagram in cards/

Data: ../shared/data/stills, or MASKLET_DATA.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from nano import DATA, claims, coco_scores, coco_truth
from PIL import Image
from pycocotools import mask as coco
from scipy.optimize import minimize

from masklet.core.frames import Frame
from masklet.core.instances import Detections
from masklet.core.rle import Rle
from masklet.models.nano.image_predictor import load_image_predictor, read_image_predictor
from masklet.models.nano.nanodet import NanoDetSettings, load_nanodet
from masklet.models.nano.segmenter import Calibration, NanoSegmenter
from masklet.view.drawing import SHOWN

EVALUATION = NanoDetSettings(threshold=0.02)  # and up to a hundred boxes, as COCO counts them
BINS = 10
DIAGRAM = Path("cards/logs/nano-reliability.png")


def load_segmenter(weights: Path | None, settings: NanoDetSettings = EVALUATION) -> NanoSegmenter:
    """The packaged segmenter, or one with other weights of the image predictor."""
    predictor = read_image_predictor(weights) if weights else load_image_predictor()
    return NanoSegmenter(load_nanodet(settings), predictor)


def read_image(image: dict[str, Any]) -> Frame:
    """An image of the validation part."""
    with Image.open(DATA / "coco80/images" / image["file_name"]) as opened:
        return Frame(0, np.array(opened.convert("RGB")))


def measure_coco(segmenter: NanoSegmenter, every: int) -> dict[str, float]:
    """Mask AP of names, of persons and of any object, in percent, and CPU seconds an image."""
    truth, categories = coco_truth(10**6)
    truth["images"] = truth["images"][::every]
    ids = {image["id"] for image in truth["images"]}
    truth["annotations"] = [one for one in truth["annotations"] if one["image_id"] in ids]
    named, unnamed, seconds = [], [], 0.0
    for image in truth["images"]:
        frame = read_image(image)
        began = time.process_time()
        found = segmenter.find(frame)
        seconds += time.process_time() - began
        named += claims(image["id"], found, categories)
        unnamed += claims(image["id"], replace(found, labels=torch.zeros_like(found.labels)), categories)
    by_name, any_object = coco_scores(truth, named, True), coco_scores(truth, unnamed, False)
    per = by_name.eval["precision"][0, :, :, 0, -1].mean(0)
    at = by_name.params.catIds.index(categories[segmenter.categories.index("person")])
    return {
        "80 categories AP": 100 * float(by_name.stats[0]),
        "80 categories AP50": 100 * float(by_name.stats[1]),
        "80 categories AR@100": 100 * float(by_name.stats[8]),
        "person AP50": 100 * float(per[at]),
        "any object AP": 100 * float(any_object.stats[0]),
        "any object AP50": 100 * float(any_object.stats[1]),
        "any object AR@100": 100 * float(any_object.stats[8]),
        "CPU seconds": seconds / len(truth["images"]),
    }


def judge_images(segmenter: NanoSegmenter) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each image: the evidence of every detection, and whether its name and mask are right; crowds left out."""
    truth, categories = coco_truth(10**6)
    rows = []
    for image in truth["images"]:
        own = [a for a in truth["annotations"] if a["image_id"] == image["id"]]
        found, evidence = segmenter.find_with_evidence(read_image(image))
        right, counted = judge(found, own, categories)
        rows.append((evidence.numpy()[counted], right[counted]))
    return rows


def judge(
    found: Detections, truth: Sequence[dict[str, Any]], categories: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Whether detections are right, and whether they count: what lies on a crowd is neither right nor wrong."""
    masks = [code_of(Rle.encode(mask)) for mask in found.masks]
    right, counted = np.zeros(len(masks), bool), np.ones(len(masks), bool)
    if not masks or not truth:
        return right, counted
    crowd = [int(a.get("iscrowd", 0)) for a in truth]
    iou = np.asarray(coco.iou(masks, [a["segmentation"] for a in truth], crowd)).reshape(len(masks), len(truth))
    for row, label in enumerate(found.labels.tolist()):
        same = np.array([a["category_id"] == categories[label] for a in truth])
        right[row] = bool((iou[row][same & ~np.array(crowd, bool)] > 0.5).any())
        counted[row] = right[row] or not (iou[row][np.array(crowd, bool)] > 0.5).any()
    return right, counted


def code_of(rle: Rle) -> dict[str, Any]:
    """Run lengths as pycocotools takes them."""
    return {"size": list(rle.size), "counts": rle.counts}


def estimate(calibration: Calibration, evidence: np.ndarray) -> np.ndarray:
    """The chances, by what was seen."""
    return calibration.estimate(*torch.from_numpy(evidence).unbind(1)).double().numpy()


def fit_calibration(evidence: np.ndarray, right: np.ndarray) -> Calibration:
    """Logistic regression."""

    def cost(weights: np.ndarray) -> float:
        chance = estimate(Calibration(*weights), evidence).clip(1e-7, 1 - 1e-7)
        return float(-np.where(right, np.log(chance), np.log(1 - chance)).mean())

    return Calibration(*(round(float(w), 2) for w in minimize(cost, np.array([-1.0, 1.0, 1.0]), method="Powell").x))


def reliability(chance: np.ndarray, right: np.ndarray) -> list[tuple[float, float, int]]:
    """Of each bin of shown scores: the mean chance, the share that is right, how many there are."""
    rows = []
    for low in np.arange(BINS) / BINS:
        inside = (chance >= low) & (chance < low + 1 / BINS)
        if inside.any():
            rows.append((float(chance[inside].mean()), float(right[inside].mean()), int(inside.sum())))
    return rows


def calibration_error(rows: Sequence[tuple[float, float, int]]) -> float:
    """Expected calibration error: the mean difference of chance and share, weighted by number."""
    return sum(n * abs(p - share) for p, share, n in rows) / max(sum(n for *_, n in rows), 1)


def draw_diagram(rows: Sequence[tuple[float, float, int]], path: Path) -> None:
    """The reliability diagram: chance to the right, share that is right upwards."""
    side, edge = 320, 40
    image = np.full((side + 2 * edge, side + 2 * edge, 3), 255, np.uint8)
    corner = (edge, edge + side)
    cv2.rectangle(image, (edge, edge), (edge + side, edge + side), (120, 120, 120), 1)
    cv2.line(image, corner, (edge + side, edge), (180, 180, 180), 1, cv2.LINE_AA)
    for chance, share, count in rows:
        at = (edge + round(chance * side), edge + side - round(share * side))
        cv2.circle(image, at, 5, (200, 90, 30), -1, cv2.LINE_AA)
        cv2.putText(
            image, str(count), (at[0] + 8, at[1] + 4), cv2.FONT_HERSHEY_SIMPLEX, 0.35, (60, 60, 60), 1, cv2.LINE_AA
        )
    for text, at in (
        ("score shown", (150, 390)),
        ("right", (4, 30)),
        ("0", (28, 375)),
        ("1", (355, 375)),
        ("1", (28, 46)),
    ):
        cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (60, 60, 60), 1, cv2.LINE_AA)
    cv2.imwrite(str(path), image)


def calibrate(segmenter: NanoSegmenter, diagram: Path) -> dict[str, Any]:
    """Fitted on every second image; what the shown scores of the others are worth."""
    rows = judge_images(segmenter)
    fitted = fit_calibration(*(np.concatenate(x) for x in zip(*rows[::2], strict=True)))
    evidence, right = (np.concatenate(x) for x in zip(*rows[1::2], strict=True))
    found: dict[str, Any] = {"fitted": str(fitted)}
    for name, calibration in (("fitted", fitted), ("packaged", segmenter.calibration)):
        chance = estimate(calibration, evidence)
        shown = chance >= SHOWN
        table = reliability(chance[shown], right[shown])
        found |= {f"{name}: error of all": calibration_error(reliability(chance, right))}
        found |= {f"{name}: error of what is shown": calibration_error(table), f"{name}: bins": table}
    draw_diagram(table, diagram)
    return found


def main() -> int:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("coco", "calibration"))
    parser.add_argument("--weights", type=Path, help="of the image predictor; else the packaged ones")
    parser.add_argument("--every", type=int, default=1, help="coco: one image of so many")
    parser.add_argument("--diagram", type=Path, default=DIAGRAM)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    segmenter = load_segmenter(options.weights)
    coco_or_not = options.what == "coco"
    found = measure_coco(segmenter, options.every) if coco_or_not else calibrate(segmenter, options.diagram)
    for name, value in found.items():
        print(f"{name:<36}{value:8.3f}" if isinstance(value, float) else f"{name:<36}{value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
