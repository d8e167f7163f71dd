"""Trains nano's image predictor, and measures it.

    python benchmarks/prompts.py train --stage first     # then "second"; each resumes where it was left
    python benchmarks/prompts.py measure            # boxes and clicks on the validation part of coco80

Data: ../shared/data/stills, or MASKLET_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from nano import DATA, trained_on, validation
from safetensors.torch import load_file

from masklet.models.nano.image_predictor import (
    create_prompt_network,
    load_image_predictor,
    read_image_predictor,
    read_prompt_network,
    save_prompt_network,
)
from masklet.models.nano.nanodet import read_nanodet_network
from masklet.nn.prompt_network import PromptNetwork
from masklet.train.data.prompt_crops import PromptCrops, PromptCropSampling, StillsShare
from masklet.train.data.stills import Stills
from masklet.train.loop.loop import TrainingPlan, train
from masklet.train.loop.run_folder import WEIGHTS
from masklet.train.prompt_scores import read_objects, score_prompts, select_objects
from masklet.train.tasks.prompts import PromptBatch, PromptTask

OUT = Path("out/prompts")
PACKAGED = "packaged"  # weights, as they were when the stage began
RATIOS = {
    "coco80": 3.0,
    "ecssd": 1.2,
    "coco_person1": 1.0,
    "coco_road4": 0.7,
    "pennfudan": 0.5,
    "voc2007": 0.5,
    "feral_cats": 0.5,
    "ccp": 0.5,
    "weizmann_horse": 0.4,
    "objects_small": 0.4,
    "animals_small": 0.1,
}


def sets_for_training() -> list[StillsShare]:
    """Every set of whole objects, in shares by how well and how variedly it is labelled; none of the validation."""
    unseen = validation()
    return [
        StillsShare(Stills(DATA / name, wanted=lambda image: trained_on(image, unseen)), ratio, left_out=("part",))
        for name, ratio in RATIOS.items()
    ]


@dataclass(frozen=True)
class Stage:
    """A part of the training."""

    name: str
    steps: int
    lr: float
    sampling: PromptCropSampling
    start: str = ""  # the stage whose weights it begins with, or PACKAGED
    sides: tuple[int, ...] = ()  # of crops, pixels, one of them a batch; else that of `sampling`
    precision: Literal["float32", "bfloat16"] = "float32"
    grows: bool = False  # whether the weights that it begins with know nothing of a detector's maps


# The first was stopped after 4,467 of 8,000 steps: heavily changed and small objects taught it slowly.
STAGES = {
    stage.name: stage
    for stage in (
        Stage(
            "first",
            8000,
            1e-3,
            PromptCropSampling(
                boxes=0.45, corrections=0.15, whole=0.4, angle=15, light=0.3, worse=0.25, pasted=0.25, least=400
            ),
        ),
        Stage("second", 4600, 8e-4, PromptCropSampling(), start="first"),
        Stage("third", 8000, 6e-4, PromptCropSampling(), start=PACKAGED),
        Stage("fourth", 4000, 4e-4, PromptCropSampling(side=256), start="third"),
        Stage("fifth", 2000, 3e-4, PromptCropSampling(), start="fourth", sides=(192, 256)),
        # Boxes of pictures that were trained on had 0.769, of others 0.759: what lacks is training, not pictures.
        Stage("sixth", 6500, 8e-4, PromptCropSampling(), start="fifth", sides=(192, 256), precision="bfloat16"),
        # A wider decoder learnt the pictures better and others no better: what lacks is to know more things.
        Stage("seventh", 3300, 8e-4, PromptCropSampling(), "sixth", sides=(192, 256), precision="bfloat16", grows=True),
        # What is looked at most: prompts at 256 pixels with the maps, and second and third clicks.
        Stage(
            "eighth",
            6600,
            6e-4,
            PromptCropSampling(hinted=0.85, rounds=(0.3, 0.25, 0.25, 0.2)),
            "seventh",
            sides=(128, 192, 256, 256, 256),
            precision="bfloat16",
        ),
    )
}


class SeveralSizes(PromptTask):
    """Batches of crops of one size or another."""

    def __init__(self, net: PromptNetwork, sources: Sequence[PromptCrops], crops: int) -> None:
        super().__init__(
            net, sources[0], dict, lambda path: save_prompt_network(path, net), crops, read_nanodet_network()
        )
        self.sources = sources

    def draw(self, random: np.random.Generator) -> PromptBatch:
        self.source = self.sources[int(random.integers(len(self.sources)))]
        return super().draw(random)


def train_predictor(out: Path, stage: Stage, crops: int) -> None:
    """The network over ImageNet's, whose own blocks learn at a quarter of the rate."""
    net = create_prompt_network()
    if stage.grows:
        net.load_state_dict({**net.state_dict(), **load_file(out / stage.start / WEIGHTS)})
    elif stage.start:
        packaged = stage.start == PACKAGED
        held = load_image_predictor().net if packaged else read_prompt_network(out / stage.start / WEIGHTS)
        net.load_state_dict(held.state_dict())
    sides = stage.sides or (stage.sampling.side,)
    sources = [PromptCrops(sets_for_training(), replace(stage.sampling, side=side)) for side in sides]
    task = SeveralSizes(net, sources, crops)
    plan = TrainingPlan(
        stage.steps,
        lr=stage.lr,
        weight_decay=0.01,
        warm_up=200,
        factors=(("blocks.", 0.25),),
        save_every=100,
        validate_every=0,
        precision=stage.precision,
    )
    train(task, out / stage.name, plan, {"task": "nano image predictor", "stage": stage.name})


def measure(weights: Path | None, most: int | None) -> dict[str, float]:
    """Scores on the validation part, see `score_prompts`."""
    unseen = Stills(DATA / "coco80", wanted=lambda image: image["coco_split"] == "val2017")
    predictor = read_image_predictor(weights) if weights else load_image_predictor()
    return score_prompts(predictor, read_objects(select_objects([unseen], most)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("part", choices=("train", "measure"))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--stage", choices=STAGES, default="first")
    parser.add_argument("--crops", type=int, default=8)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "2")))
    parser.add_argument("--weights", type=Path, help="to measure; else the packaged ones")
    parser.add_argument("--most", type=int, help="objects to measure on; all where it is left out")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.part == "measure":
        print(json.dumps({k: round(v, 4) for k, v in measure(args.weights, args.most).items()}))
        return
    train_predictor(args.out, STAGES[args.stage], args.crops)


if __name__ == "__main__":
    main()
