"""What the official programs drew, matched and lost while training."""

from __future__ import annotations

from typing import Any

from dvis_fixtures import GOLDEN, arrays, needed, told
from torch import Tensor

from masklet.train.assignment import ClipTargets
from masklet.train.losses import LossSettings


class Replay:
    """The recorded draws, in the order of the calls."""

    def __init__(self, held: dict[str, Tensor], prefix: str) -> None:
        numbers = sorted(int(k.removeprefix(prefix)) for k in held if k.startswith(prefix))
        self.draws = [held[f"{prefix}{n}"] for n in numbers]

    def __call__(self, *shape: int) -> Tensor:
        draw = self.draws.pop(0)
        assert tuple(draw.shape) == shape
        return draw


def files(prefix: str) -> list[str | None]:
    """Names of files `<prefix>*.npz`; [None], which a test skips, where there is none."""
    return sorted(p.stem for p in GOLDEN.glob(f"{prefix}*.npz")) or [None]


def opened(name: str | None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A file's arrays and what is told of them."""
    return arrays(needed(name)), told(needed(name))


def targets(held: dict[str, Tensor], start: int = 0, stop: int | None = None) -> ClipTargets:
    """The objects, in some of the frames."""
    visible = held["gt_ids"][:, start:stop] >= 0
    return ClipTargets(held["gt_masks"][:, start:stop], visible, held["gt_labels"])


def unweighted(losses: dict[str, Tensor], at: LossSettings) -> dict[str, Tensor]:
    """The losses by the official names, without their weights."""
    weights = {"class": at.classes, "mask": at.mask, "dice": at.dice}
    names = {"class": "ce", "mask": "mask", "dice": "dice"}
    return {names[key]: loss / weights[key] for key, loss in losses.items()}
