"""Trains the nano models that are in the package, and measures them.

    python benchmarks/nano.py segmenter            # 4,000 steps of 8 pictures
    python benchmarks/nano.py propagator           # a stage at 256 pixels, then one at 320 with many look-alikes
    python benchmarks/nano.py heads --steps 300    # a dense head against a small Mask2Former
    python benchmarks/nano.py coco                 # of the segmenter, on the validation part of coco80

Data: ../shared/data/stills, or MASKLET_DATA. Runs are in out/nano and resume where they were left.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tables_masks_clips import Answer, automatic
from tables_masks_clips import generated as clips_of

from masklet.api import open_source
from masklet.core.frames import Frame
from masklet.core.instances import Detections
from masklet.models.encoder import Encoder
from masklet.models.mask2former.segmenter import Mask2Former
from masklet.models.mask2former.small import SmallMask2FormerSettings, create_small_mask2former
from masklet.models.nano.dense import DenseSegmenter, ObjectSegmenter, load_dense, read_dense, save_dense
from masklet.models.nano.network import NanoSettings, create_nano, read_nano, save_nano
from masklet.nn.dense_head import DenseHead, DenseHeadSettings
from masklet.parts import load_propagator
from masklet.systems.sam2bmp import Sam2Bmp, Sam2BmpSettings
from masklet.train.data.clips import ClipSource, TrainingClip
from masklet.train.data.framing import FixedFraming, build_clip
from masklet.train.data.mixture import ClipMixture
from masklet.train.data.pasting import PastingSettings
from masklet.train.data.scenes import SyntheticSettings
from masklet.train.data.stills import StillCrops, Stills, name_as_object
from masklet.train.data.synthetic import SyntheticClips
from masklet.train.loop.loop import TrainingPlan, train
from masklet.train.scoring import compute_image_scores, encode_coco_rle
from masklet.train.tasks.dense import DenseTask, WeightedSource
from masklet.train.tasks.nano import ASKING, CROWDED, LIVELY, GuessDrift, build_nano_task, create_moving_clips
from masklet.train.tasks.propagator import PromptSampling, make_propagator_frames
from masklet.train.tasks.segmenter import SegmenterTask, draw_held_out_clips

DATA = Path(os.environ.get("MASKLET_DATA", "../shared/data")) / "stills"
OUT = Path("out/nano")
SIZE = (256, 320)
VOC = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
FRAMING = FixedFraming(SIZE, scale=(0.7, 1.9))


def validation() -> set[int]:
    """The pictures that nothing is trained on: they are in other sets, too."""
    images = json.loads((DATA / "coco80/annotations.json").read_bytes())["images"]
    return {image["coco_id"] for image in images if image["coco_split"] == "val2017"}


def trained_on(image: Mapping[str, Any], unseen: set[int]) -> bool:
    """Whether a picture may be trained on."""
    return image.get("coco_id") not in unseen


def parts(made_up: float) -> list[WeightedSource]:
    """What the segmenter is trained on, each set by what it labels; `made_up`: how often a picture is generated."""
    unseen = validation()

    def stills(name: str, **settings: Any) -> StillCrops:
        return StillCrops(Stills(DATA / name, wanted=lambda image: trained_on(image, unseen), **settings), FRAMING)

    generated = SyntheticSettings(size=SIZE, objects=(2, 6))
    return [
        WeightedSource(stills("coco80"), 0.62),
        WeightedSource(stills("coco_person1"), 0.12, background=0.2),
        WeightedSource(stills("coco_road4"), 0.06, background=0.5),
        WeightedSource(stills("pennfudan"), 0.03, background=0.3),
        WeightedSource(stills("voc2007", rename=lambda name: VOC.get(name, name)), 0.04, background=0.3),
        WeightedSource(stills("ecssd", rename=name_as_object), 0.08, background=0.3),
        WeightedSource(SyntheticClips(generated), made_up),
    ]


def whole(stills: Stills, most: int) -> list[TrainingClip]:
    """Pictures as they are."""
    held = (stills.still(n) for n in range(min(most, len(stills))))
    return [build_clip([still.image], [still.ids], still.labels) for still in held]


def segmenter(out: Path, steps: int, pictures: int, lr: float, start: Path | None, made_up: float) -> None:
    """The dense head, new or from a file of one."""
    settings = DenseHeadSettings()
    unseen = Stills(DATA / "coco80", wanted=lambda image: image["coco_split"] == "val2017")
    torch.manual_seed(0)
    head = read_dense(start).head.requires_grad_(True) if start else DenseHead(len(unseen.categories), settings)
    task = DenseTask(
        head,
        unseen.categories,
        parts(made_up),
        whole(unseen, 100),
        lambda path: save_dense(path, head, settings, unseen.categories),
        batch=pictures,
    )
    plan = TrainingPlan(steps, lr=lr, weight_decay=0.05, warm_up=100, validate_every=500, save_every=100)
    train(task, out, plan, {"task": "nano segmenter", "start": str(start or "")})


def propagator(out: Path, stages: Sequence[Stage]) -> None:
    """SAM 2 at nano size, stage after stage."""
    unseen = validation()
    sets = [
        Stills(DATA / name, name_as_object, wanted=lambda image: trained_on(image, unseen))
        for name in ("ecssd", "coco80", "coco_person1", "voc2007", "pennfudan")
    ]
    other = Stills(DATA / "coco80", name_as_object, wanted=lambda image: image["coco_split"] == "val2017")
    net: Any = create_nano(NanoSettings(side=stages[0].side))
    for stage in stages:
        folder = out / stage.name
        settings = NanoSettings(side=stage.side)
        if stage.start:
            save_nano(folder.with_suffix(".safetensors"), read_nano(out / stage.start)[0], settings)
            net = read_nano(folder.with_suffix(".safetensors"))[0]
        held = draw_held_out_clips(create_moving_clips([other], (1,), like=stage.like), stage.held_out, 6)
        clips: ClipSource = create_moving_clips(sets, stage.ratios, like=stage.like)
        if stage.made_up:
            made_up = Nameless(SyntheticClips(replace(GENERATED, level=stage.level)))
            clips = ClipMixture([clips, made_up], (1 - stage.made_up, stage.made_up))
        task = build_nano_task(net, settings, clips, held, stage.asking)
        task.mislead = stage.drift
        plan = TrainingPlan(
            stage.steps,
            lr=stage.lr,
            weight_decay=0.01,
            warm_up=50,
            validate_every=250,
            save_every=50,
            batch=stage.clips,
        )
        train(task, folder, plan, {"task": "nano propagator", "stage": stage.name})


DRIFT = GuessDrift()
GENERATED = SyntheticSettings(size=(224, 368), objects=(2, 5), lookalikes=0.4)


@dataclass(frozen=True)
class Nameless:
    """Clips of which nobody says what the objects are."""

    source: ClipSource
    categories: tuple[str, ...] = ("object",)

    def clip(self, random: np.random.Generator, frames: int) -> TrainingClip:
        """One more clip."""
        clip = self.source.clip(random, frames)
        return replace(clip, labels=torch.zeros_like(clip.labels))


@dataclass(frozen=True)
class Stage:
    """A part of the propagator's training."""

    name: str
    steps: int
    lr: float
    side: int
    ratios: tuple[float, ...]
    like: PastingSettings = LIVELY
    asking: PromptSampling = ASKING
    drift: GuessDrift = DRIFT
    held_out: int = 8
    start: str = ""  # weights, in the folder of the stages
    clips: int = 1  # of a step
    made_up: float = 0.0  # share of clips that are generated
    level: str | None = None  # of occlusion in these


STAGES = (
    Stage("p256", 3000, 7e-4, 256, (3, 3, 1.5, 0.6, 0.5)),
    Stage(
        "p320",
        1800,
        4e-4,
        320,
        (2, 4, 1.5, 0.8, 0.7),
        like=CROWDED,
        asking=replace(ASKING, frames=5, objects=3),
        drift=GuessDrift(elsewhere=0.7),
        held_out=12,
        start="p256/weights.safetensors",
    ),
    Stage(
        "exact",
        1000,
        5e-4,
        256,
        (3, 3, 1.5, 0.6, 0.5),
        start="p256/weights.safetensors",
        clips=3,
        made_up=0.25,
    ),
)


# -- measuring


def coco(weights: Path | None, most: int, short: int) -> dict[str, float]:
    """Of the segmenter on coco80's validation part, as COCO's own code says it, in percent."""
    truth, categories = coco_truth(most)
    segmenter = load_dense(weights, Encoder(short))
    named, unnamed = [], []
    for image in truth["images"]:
        with Image.open(DATA / "coco80/images" / image["file_name"]) as opened:
            frame = Frame(0, np.array(opened.convert("RGB")))
        [found], _ = segmenter.segment(None, [frame], ())
        [objects], _ = ObjectSegmenter(segmenter).segment(None, [frame], ())
        named += claims(image["id"], found, categories)
        unnamed += claims(image["id"], objects, categories)
    person = categories[segmenter.categories.index("person")]
    by_name, any_object = coco_scores(truth, named, True), coco_scores(truth, unnamed, False)
    per = by_name.eval["precision"][0, :, :, 0, -1].mean(0)
    at = [k for k, id in enumerate(by_name.params.catIds) if id == person]
    return {
        "any object AP50": 100 * float(any_object.stats[1]),
        "any object AP": 100 * float(any_object.stats[0]),
        "any object AR@100": 100 * float(any_object.stats[8]),
        "person AP50": 100 * float(per[at[0]]),
        "80 categories AP50": 100 * float(by_name.stats[1]),
        "80 categories AP": 100 * float(by_name.stats[0]),
    }


def generated(weights: Path | None, carrier: str, videos: int, level: str) -> dict[str, float]:
    """Of sam2bmp over the nano models on generated clips of 192 x 320 pixels: video AP without categories."""
    encoder, answers = Encoder(), []
    finder = ObjectSegmenter(load_dense(weights, encoder))
    asked = {f.name: getattr(finder, f.name) for f in fields(Sam2BmpSettings) if hasattr(finder, f.name)}
    for scene in clips_of(0, level, videos, 20, (192, 320)):
        system = Sam2Bmp(finder, load_propagator(carrier, encoder), Sam2BmpSettings(**asked))
        with open_source(scene.images) as video:
            answers.append(Answer.of(scene, system.run(video, lambda *_: None), {}))
    return automatic(answers, OUT / f"generated-{level}")


def heads(out: Path, steps: int) -> dict[str, float]:
    """The dense head and a small Mask2Former, from random weights on the same pictures of coco80."""
    unseen = Stills(DATA / "coco80", wanted=lambda image: image["coco_split"] == "val2017")
    known, shown, settings = unseen.categories, whole(unseen, 100), DenseHeadSettings()
    seen = Stills(DATA / "coco80", wanted=lambda image: image["coco_split"] == "train2017")
    torch.manual_seed(0)
    head, net = DenseHead(len(known), settings), create_small_mask2former(SmallMask2FormerSettings(queries=50), known)
    dense = DenseTask(head, known, [WeightedSource(StillCrops(seen, FRAMING), 1)], (), lambda path: None)
    queries = SegmenterTask(net, StillCrops(seen, FRAMING), (), lambda path: None, clips=8)
    found = {}
    for name, task in (("dense head", dense), ("Mask2Former", queries)):
        began = time.process_time()
        train(
            task,
            out / name.split()[0],
            TrainingPlan(steps, lr=1e-3, weight_decay=0.05, warm_up=100, save_every=100),
            {},
        )
        found[f"{name}: seconds a step"] = (time.process_time() - began) / steps
    in_turn = {
        "dense head": DenseSegmenter(head.eval(), known, Encoder()),
        "Mask2Former": Mask2Former(net.eval(), shortest=320, threshold=0.0, categories=known),
    }
    for name, segmenter in in_turn.items():
        scores = compute_image_scores(
            shown, [segmenter.segment(None, make_propagator_frames(c), ())[0] for c in shown], known
        )
        found |= {f"{name}: any object AP50": scores["found"], f"{name}: 80 categories AP50": scores["AP50"]}
    return found


def coco_truth(most: int) -> tuple[dict[str, Any], list[int]]:
    """The validation part in COCO's form, and the ids of its categories in their order."""
    truth = json.loads((DATA / "coco80/annotations.json").read_bytes())
    truth["images"] = [image for image in truth["images"] if image["coco_split"] == "val2017"][:most]
    ids = {image["id"] for image in truth["images"]}
    truth["annotations"] = [one for one in truth["annotations"] if one["image_id"] in ids]
    return truth, sorted(category["id"] for category in truth["categories"])


def claims(image: int, found: Detections, categories: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Detections in COCO's form."""
    for mask, score, label in zip(found.masks, found.scores.tolist(), found.labels.tolist(), strict=True):
        yield {
            "image_id": image,
            "category_id": categories[label],
            "segmentation": encode_coco_rle(mask),
            "score": score,
        }


def coco_scores(truth: dict[str, Any], claimed: list[dict[str, Any]], by_name: bool) -> COCOeval:
    """COCO's evaluation of masks."""
    with redirect_stdout(io.StringIO()):  # it prints
        known = COCO()
        known.dataset = truth
        known.createIndex()
        scored = COCOeval(known, known.loadRes(claimed), "segm")
        scored.params.useCats = int(by_name)
        scored.evaluate()
        scored.accumulate()
        scored.summarize()
    return scored


def main() -> int:
    """Runs what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("segmenter", "propagator", "heads", "coco", "generated"))
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--stages", default=",".join(stage.name for stage in STAGES), help="of the propagator")
    parser.add_argument("--lr", type=float, default=1e-3, help="learning rate of the segmenter")
    parser.add_argument("--short", type=int, default=320, help="short side of the picture that the segmenter sees")
    parser.add_argument("--made-up", type=float, default=0.05, help="generated pictures beside 0.95 others")
    parser.add_argument("--weights", type=Path, help="to begin with, or to measure; else the packaged ones")
    parser.add_argument("--propagator", default="nano", help="of generated clips")
    parser.add_argument("--level", default="light", help="of occlusion in generated clips")
    parser.add_argument("--most", type=int, default=10**6, help="pictures or clips")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if options.what == "segmenter":
        segmenter(
            options.out or OUT / "segmenter",
            options.steps,
            options.pictures,
            options.lr,
            options.weights,
            options.made_up,
        )
    elif options.what == "propagator":
        propagator(options.out or OUT, [stage for stage in STAGES if stage.name in options.stages.split(",")])
    else:
        if options.what == "heads":
            found = heads(options.out or OUT / "heads", options.steps)
        elif options.what == "coco":
            found = coco(options.weights, options.most, options.short)
        else:
            found = generated(options.weights, options.propagator, min(options.most, 20), options.level)
        for name, value in found.items():
            print(f"{name:<36}{value:6.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
