"""How well boxes and clicks draw the objects of annotated images.

Each click lies in the middle of what is still wrong (Kirillov et al. 2023, arXiv:2304.02643, section 7.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from masklet.core.instances import Box, Clicks, Point
from masklet.models.nano.image_predictor import ImagePredictor
from masklet.train.data.prompt_crops import measure_depth
from masklet.train.data.stills import Stills

LEAST = 1024  # pixels of an object that is asked for
WORSE = 0.02  # of IoU, from which a click has made it worse


@dataclass(frozen=True)
class PromptedObject:
    """One object that is asked for."""

    image: UInt8[np.ndarray, "h w 3"]
    mask: Bool[np.ndarray, "h w"]
    box: Box


def select_objects(
    sets: Sequence[Stills], most: int | None = None, least: int = LEAST
) -> list[tuple[Stills, int, int]]:
    """Objects of `sets` with `least` pixels or more, as (set, image, object): all, or `most` of them, by seed 0."""
    found = [
        (stills, n, k)
        for stills in sets
        for n in range(len(stills))
        for k, mask in enumerate(stills.masks(n))
        if mask.area >= least
    ]
    if not most or most >= len(found):
        return found
    return [found[row] for row in np.sort(np.random.default_rng(0).choice(len(found), most, replace=False))]


def read_objects(selected: Iterable[tuple[Stills, int, int]]) -> Iterator[PromptedObject]:
    """What `select_objects` found, read as it is needed."""
    for stills, n, k in selected:
        mask = stills.masks(n)[k]
        yield PromptedObject(stills.image(n), mask.decode().numpy(), Box(*mask.box))


def score_prompts(predictor: ImagePredictor, objects: Iterable[PromptedObject], clicks: int = 5) -> dict[str, float]:
    """How well `predictor` draws the `objects`: mean IoU of boxes and of each number of clicks up to `clicks`; how far
    the IoU expected of boxes is off, in the mean; and the share of clicks after the first that make it worse. An empty
    dictionary where there is no object.
    """
    boxes, errors, rows = [], [], []
    for asked in objects:
        answer = predictor.predict(asked.image, Clicks((), asked.box))
        boxes.append(measure_best_iou(answer.logits, asked.mask))
        errors.append(abs(float(answer.quality[0]) - boxes[-1]))
        rows.append(score_clicks(predictor, asked, clicks))
    if not rows:
        return {}
    ious = np.array(rows)
    by_click = {name_clicks(n + 1): float(ious[:, n].mean()) for n in range(clicks)}
    told = {"worse by a click": float((np.diff(ious, axis=1) < -WORSE).mean())} if clicks > 1 else {}
    return {
        "objects": len(rows),
        "box": float(np.mean(boxes)),
        **by_click,
        **told,
        "box expected IoU error": float(np.mean(errors)),
    }


def name_clicks(count: int) -> str:
    """What the score of a number of clicks is called.

    >>> name_clicks(1), name_clicks(3)
    ('1 click', '3 clicks')
    """
    return "1 click" if count == 1 else f"{count} clicks"


def score_clicks(predictor: ImagePredictor, asked: PromptedObject, clicks: int) -> list[float]:
    """The IoU of what `predictor` makes of the object `asked` after each of so many `clicks`, each one on the largest
    error so far; 1 for those that nothing is left to be done for.
    """
    points: tuple[Point, ...] = ()
    found, ious = np.zeros_like(asked.mask), []
    for _ in range(clicks):
        if (found == asked.mask).all():
            ious.append(1.0)
            continue
        points = (*points, click_on_error(found, asked.mask))
        answer = predictor.predict(asked.image, Clicks(points))
        found = answer.logits[0].numpy() > 0
        ious.append(measure_best_iou(answer.logits, asked.mask))
    return ious


def measure_best_iou(logits: Float[Tensor, "k h w"], true: Bool[np.ndarray, "h w"]) -> float:
    """The IoU of the best hypothesis, the first of `logits`, with the mask `true`; 0 where both are empty."""
    found = logits[0].numpy() > 0
    return float((found & true).sum() / max((found | true).sum(), 1))


def click_on_error(found: Bool[np.ndarray, "h w"], true: Bool[np.ndarray, "h w"]) -> Point:
    """The deepest pixel of the larger error: of what is missed, or of what is too much."""
    missed, added = true & ~found, found & ~true
    region, inside = (missed, True) if missed.sum() >= added.sum() else (added, False)
    y, x = divmod(int(measure_depth(region).argmax()), region.shape[1])
    return Point(x, y, inside)
