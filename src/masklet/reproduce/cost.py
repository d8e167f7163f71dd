"""What DVIS's parts cost: parameters, and multiplications of a frame (DVIS, Table 9). No weights are needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from masklet.nn.referring_tracker import ReferringTracker, TrackerSettings
from masklet.nn.temporal_refiner import RefinerSettings, TemporalRefiner
from masklet.reproduce.recipes import Recipe
from masklet.reproduce.run import FigureComparison

CLASSES, QUERIES, WIDTH = 40, 100, 256
SIZE = (480, 864)  # 480p, padded
FRAMES = 21  # of the clip over which the refiner's cost is shared
MILLION, GIGA = 1e6, 1e9


def measure_cost(recipe: Recipe) -> list[FigureComparison]:
    """Millions of parameters and GMAC a frame of the part that a `recipe` names."""
    found = PARTS[recipe.system]()
    return [FigureComparison(name, found[name], paper) for name, paper in recipe.figures.items()]


def measure_tracker() -> Mapping[str, float]:
    """Of the referring tracker: a frame that follows another one."""
    tracker = ReferringTracker(TrackerSettings(CLASSES)).eval()
    first, second = (torch.randn(1, QUERIES, WIDTH) for _ in range(2))
    _, _, memory = tracker(first)
    return describe_cost(tracker, lambda: tracker(second, memory), 1)


def measure_refiner() -> Mapping[str, float]:
    """Of the temporal refiner, with the tracker's pass over every frame alone."""
    refiner = TemporalRefiner(RefinerSettings(CLASSES)).eval()
    tracks, context = (torch.randn(FRAMES, QUERIES, WIDTH) for _ in range(2))
    return describe_cost(refiner, lambda: refiner.refine(tracks, context), FRAMES)


def measure_segmenter() -> Mapping[str, float]:
    """Of Mask2Former with a ResNet-50."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig

    from masklet.models.transformers_output import drop_transformers_output

    resnet: Any = ResNetConfig
    mask2former: Any = Mask2FormerConfig
    with drop_transformers_output():
        backbone = resnet(out_features=["stage1", "stage2", "stage3", "stage4"])
        config = mask2former(backbone_config=backbone, num_labels=CLASSES, num_queries=QUERIES)
        made: Any = Mask2FormerForUniversalSegmentation(config)
        net = made.eval()
    image = torch.zeros(1, 3, *SIZE)
    return describe_cost(net, lambda: net(image), 1)


@torch.no_grad()
def describe_cost(module: Any, call: Callable[[], object], frames: int) -> Mapping[str, float]:
    """Parameters of a `module` in millions, and GMAC a frame of a `call` over so many `frames`."""
    with FlopCounterMode(display=False) as counter:
        call()
    parameters = sum(p.numel() for p in module.parameters())
    return {
        "million parameters": parameters / MILLION,
        "GMAC": counter.get_total_flops() / 2 / GIGA / frames,
    }


PARTS: Mapping[str, Callable[[], Mapping[str, float]]] = {
    "segmenter": measure_segmenter,
    "tracker": measure_tracker,
    "refiner": measure_refiner,
}
