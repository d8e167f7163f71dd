"""What the pages of docs/ speak of, as small stand-ins: clips, masks, detections, results, data sets, networks."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from reproduce import standins
from torch import Tensor
from toys import ToyPropagator

from masklet import parts
from masklet.core.frames import Frame
from masklet.core.instances import Box, Clicks, Detections, Prompt
from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.evaluate.report import Report
from masklet.evaluate.report_files import write_report
from masklet.io.formats.davis import build_davis_palette, write_davis
from masklet.io.formats.ytvis import write_ytvis, write_ytvis_truth
from masklet.io.video.encode import VideoWriter
from masklet.models.mask2former.small import SmallMask2FormerSettings, create_small_mask2former, save_small
from masklet.models.query_video.heads import save_heads
from masklet.models.query_video.rocovis import RocovisNet, RocovisNetSettings
from masklet.models.query_video.slot_weights import save_slot_model
from masklet.models.segmenters.text import split_prompts
from masklet.nn.referring_tracker import ReferringTracker, TrackerSettings
from masklet.nn.temporal_refiner import RefinerSettings, TemporalRefiner

SIZE = 232, 352
RATE = 2  # frames a second: a few frames are long enough for the times that pages name
OBJECTS = {  # by id: category, colour, and rows and columns of a rectangle that moves by a pixel a frame and back
    1: ("dog", (220, 60, 40), (10, 220, 10, 110)),
    2: ("red car", (40, 200, 60), (10, 50, 150, 210)),
    3: ("person", (40, 60, 220), (80, 120, 290, 340)),
    4: ("person", (230, 220, 60), (60, 100, 150, 210)),
    5: ("dog", (220, 60, 220), (110, 150, 150, 210)),
    6: ("person", (40, 220, 220), (160, 200, 150, 210)),
    7: ("person", (240, 240, 240), (160, 200, 290, 340)),
}
NAMES = ("dog", "red car", "person")
STEP = 4  # pixels from one to the next that a propagator looks at
NEAR = 40  # what colours may differ by
SLOTS = SmallMask2FormerSettings(hidden=32, encoder_layers=1, decoder_layers=1, queries=6, heads=4)


def draw_labels(t: int) -> np.ndarray:
    """The id of each pixel in frame `t`, 0 where nothing is."""
    labels = np.zeros(SIZE, np.uint8)
    for id, (_, _, (y0, y1, x0, x1)) in OBJECTS.items():
        labels[y0:y1, x0 + t % 4 : x1 + t % 4] = id
    return labels


def draw_frame(t: int) -> np.ndarray:
    """Frame `t` as an image."""
    image, labels = np.full((*SIZE, 3), 110, np.uint8), draw_labels(t)
    for id, (_, colour, _) in OBJECTS.items():
        image[labels == id] = colour
    return image


def write_clip(path: Path, length: int, rate: float = RATE) -> None:
    """A clip of so many frames."""
    with VideoWriter(path, SIZE, rate, crf=10) as writer:
        for t in range(length):
            writer.write(draw_frame(t))


def build_result(length: int, name: str = "clip", source: str = "clip.mp4") -> VideoResult:
    """The truth of a clip."""
    seen: dict[int, dict[int, Sighting]] = {id: {} for id in OBJECTS}
    labels = {OBJECTS[id][0]: NAMES.index(OBJECTS[id][0]) for id in OBJECTS}
    for t in range(length):
        page = draw_labels(t)
        for id, sightings in seen.items():
            kind = Source.DETECTED if t else Source.PROMPTED
            sightings[t] = Sighting(Rle.encode_pixels(page == id), kind, 0.9, labels[OBJECTS[id][0]], 1.0)
    masklets = tuple(Masklet(id, s, labels[OBJECTS[id][0]], 0.9) for id, s in seen.items())
    return VideoResult(name, SIZE, length, RATE, masklets, NAMES, Provenance("sam2bmp", source=source))


def save_result(folder: Path, result: VideoResult) -> None:
    """A result as `masklet run` leaves it."""
    (folder / result.name).mkdir(parents=True)
    result.save(folder / result.name / "masklets.json")


def write_world(folder: Path, length: int) -> None:
    """All that several pages name, with clips of so many frames."""
    write_clip(folder / "clip.mp4", length)
    for name in ("clip2.mp4", "street.mp4", "hour.mp4", "cam.mkv"):
        (folder / name).hardlink_to(folder / "clip.mp4")
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        write_clip(folder / name, 3, 0.05)  # a minute
    (folder / "camera.pipe").hardlink_to(folder / "a.mp4")
    (folder / "frames").mkdir()
    for t in range(2):
        Image.fromarray(draw_frame(t)).save(folder / f"frames/{t:05}.png")
    labels = draw_labels(0)
    Image.fromarray(labels == 1).save(folder / "mask.png")
    Image.fromarray(labels).save(folder / "labels.png")
    Image.fromarray(labels * (labels > 4)).save(folder / "00000.png")
    torch.save(torch.from_numpy(labels == 1), folder / "mask.pt")
    for name in ("dets.json", "b-boxes.json"):
        write_detections(folder / name, labels == 1)
    (folder / "prompts.json").write_text(json.dumps([{"frame": 0, "id": 1, "box": [10, 20, 110, 220]}]))
    (folder / "clips.txt").write_text("a.mp4\nb.mp4\n")
    save_result(folder / "result", build_result(length))


def lay_out_result(folder: Path) -> None:
    """The truth in out/clip, as `masklet run` would have left it."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    shutil.copytree(folder / "result", folder / "out")


def write_real_world(folder: Path) -> None:
    """A textured thing that moves over a textured ground, for networks that are no toys, and detections of it."""
    draw, size = np.random.default_rng(0), (144, 192)
    ground = cv2.resize(draw.integers(60, 200, (18, 24, 3), np.uint8), size[::-1])
    thing = cv2.resize(draw.integers(0, 70, (10, 12, 3), np.uint8), (60, 50)) + np.array([185, 20, 10], np.uint8)
    with VideoWriter(folder / "clip.mp4", size, 25.0) as writer:
        for t in range(4):
            frame = ground.copy()
            frame[40:90, 10 + 6 * t : 70 + 6 * t] = thing
            writer.write(frame)
    mask = np.zeros(size, bool)
    mask[40:90, 10:70] = True
    write_detections(folder / "dets.json", mask)


def write_detections(path: Path, mask: np.ndarray) -> None:
    """One detection in frame 0, as COCO's results have it."""
    entry = {"image_id": 0, "category_id": 1, "score": 0.99}
    entry["segmentation"] = {"size": list(mask.shape), "counts": Rle.encode_pixels(mask).counts.decode()}
    path.write_text(json.dumps([entry]))


# -- what single pages need besides


def prepare_batch(folder: Path) -> None:
    """Fewer videos for `*.mp4`."""
    for name in ("clip2.mp4", "street.mp4"):
        (folder / name).unlink()


def prepare_data_sets(folder: Path) -> None:
    """The roots of data sets under the names that a page gives them."""
    for name in ("davis17", "sav", "ytvis21", "mosev1"):
        getattr(standins, name)(folder / "data")
    for source, name in (("DAVIS", "DAVIS"), ("sav_val", "sav_val"), ("ytvis_2021", "YTVIS"), ("MOSE", "MOSE")):
        shutil.copytree(folder / "data" / source, folder / name)
    (folder / "YTVIS" / "train").mkdir()
    shutil.copytree(folder / "YTVIS/valid/JPEGImages", folder / "YTVIS/train/JPEGImages")
    (folder / "names.txt").write_text(sorted(p.name for p in (folder / "MOSE/valid/JPEGImages").iterdir())[0])


def prepare_evaluation(folder: Path) -> None:
    """Ground truth and predictions in the forms that the page's metrics read."""
    lay_out_result(folder)
    result = VideoResult.load(folder / "out/clip/masklets.json")
    length = result.length
    names = {"clip": [f"{t:05}" for t in range(length)]}
    (folder / "out/annotations").mkdir()
    write_davis(result, folder / "out/annotations/clip")
    write_ytvis_truth([result], folder / "valid.json", names)
    write_ytvis_truth([result], folder / "gt.json", names)
    write_ytvis([result], folder / "results.json")
    truth = folder / "DAVIS/Annotations/480p/clip"
    truth.mkdir(parents=True)
    (folder / "DAVIS/ImageSets/2017").mkdir(parents=True)
    (folder / "DAVIS/ImageSets/2017/val.txt").write_text("clip")
    for name in ("before", "after"):
        scores = {"J&F": 0.5}
        write_report(Report("davis", "a protocol", scores, {}, {"clip": scores}), folder / f"{name}.json", "1")
    for t in range(length):
        page = Image.fromarray(draw_labels(t))
        page.putpalette(build_davis_palette())
        page.save(truth / f"{t:05}.png")


def prepare_trained(folder: Path) -> None:
    """Weights of random numbers where trainings of the page write theirs."""
    torch.manual_seed(0)
    net = create_small_mask2former(SLOTS, NAMES)
    at = {"classes": 3, "width": 32, "heads": 4, "hidden": 32, "layers": 1, "mask_width": 32}
    for name in ("seg", "rocovis", "tracker", "refiner", "m2f/weights"):
        (folder / "out" / name).mkdir(parents=True, exist_ok=True)
    (folder / "out/m2f/weights/config.json").write_text("{}")
    save_small(folder / "out/seg/weights.safetensors", net, SLOTS, (48, 64))
    save_small(folder / "small.safetensors", net, SLOTS, (48, 64))
    tracker, refiner = ReferringTracker(TrackerSettings(**at)), TemporalRefiner(RefinerSettings(**at))
    save_heads(folder / "out/tracker/weights.safetensors", NAMES, tracker=tracker)
    save_heads(folder / "out/refiner/weights.safetensors", NAMES, tracker=tracker, refiner=refiner)
    model = RocovisNet(net, RocovisNetSettings(width=32, heads=4))
    save_slot_model(folder / "out/rocovis/weights.safetensors", "rocovis", model, 48)
    shutil.copy(folder / "out/rocovis/weights.safetensors", folder / "out/weights.safetensors")


# -- networks


@dataclass
class ColourFinder:
    """A segmenter that knows the world: each of its objects by its colour."""

    categories: tuple[str, ...] = NAMES
    look_ahead: int = 0

    def empty(self) -> None:
        """No memory."""

    def segment(self, memory: None, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], None]:
        return [self.find(frame) for frame in frames], None

    def segment_outside(self, frame: Frame, known: Tensor) -> Detections:
        found = self.find(frame)
        free = ~(found.masks & known).flatten(1).any(1)
        return Detections(found.masks[free], found.scores[free], found.labels[free])

    def find(self, frame: Frame) -> Detections:
        image = torch.from_numpy(frame.image).int()
        masks = [((image - torch.tensor(colour)).abs().amax(-1) < NEAR) for _, colour, _ in OBJECTS.values()]
        known = [name if name in self.categories else self.categories[0] for name, _, _ in OBJECTS.values()]
        labels = [self.categories.index(name) for name in known]
        rows = [(mask, 0.99, label) for mask, label in zip(masks, labels, strict=True) if mask.any()]
        if not rows:
            return Detections.none(frame.size)
        seen, scores, found = zip(*rows, strict=True)
        return Detections(torch.stack(seen), torch.tensor(scores), torch.tensor(found))


@dataclass
class ColourFollower(ToyPropagator):
    """Follows colours in every fourth pixel of every fourth row."""

    def encode(self, frames: Sequence[Frame]) -> list[Tensor]:
        return [torch.from_numpy(frame.image[::STEP, ::STEP]).float() for frame in frames]

    def mask(self, prompt: Prompt, features: Tensor) -> Tensor:
        clicks = Clicks.of(prompt) if not isinstance(prompt, Tensor) else Clicks((), mask=prompt)
        if clicks.mask is not None:
            return clicks.mask[::STEP, ::STEP]
        x, y = (clicks.points[0].x, clicks.points[0].y) if clicks.points else find_middle(clicks.box)
        return (features - features[int(y) // STEP, int(x) // STEP]).abs().amax(-1) < NEAR


def find_middle(box: Box) -> tuple[float, float]:
    return (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2


def put_toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Toys in the place of networks. Names, forms and settings of parts are checked as ever; no weights are read."""

    def stand_in(made: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given, **named: made()

    for name in ("load_sam2", "load_nano_propagator", "load_affinity", "load_deva", "load_cutie"):
        monkeypatch.setattr(parts, name, stand_in(ColourFollower))
    for name in ("load_auto", "load_nano", "load_nano_objects", "load_everything", "load_motion"):
        monkeypatch.setattr(parts, name, stand_in(ColourFinder))
    monkeypatch.setattr("masklet.models.mask2former.segmenter.load_mask2former", stand_in(ColourFinder))
    monkeypatch.setattr(
        "masklet.api.load_text_segmenter", lambda name, text, device: ColourFinder(tuple(split_prompts(text)))
    )


def prepare_prompts(folder: Path) -> None:
    """A video in images with the names that the page's file of prompts has."""
    (folder / "images").mkdir()
    for t in range(13):
        Image.fromarray(draw_frame(t)).save(folder / f"images/{t:05}.jpg")


def prepare_view(folder: Path) -> None:
    """A result, and another one to compare it with."""
    lay_out_result(folder)
    shutil.copytree(folder / "result", folder / "better")


def prepare_exports(folder: Path) -> None:
    """The frames of the result as other tools have them."""
    lay_out_result(folder)
    (folder / "videos").mkdir()
    (folder / "videos/clip.mp4").hardlink_to(folder / "clip.mp4")
    (folder / "JPEGImages/clip").mkdir(parents=True)
    for t in range(VideoResult.load(folder / "out/clip/masklets.json").length):
        Image.fromarray(draw_frame(t)).save(folder / f"JPEGImages/clip/{t:05}.jpg")


def prepare_training(folder: Path) -> None:
    """A result with its video, what was trained, and results to compare."""
    prepare_exports(folder)
    prepare_trained(folder)
    for name in ("held_out", "before", "after"):
        shutil.copytree(folder / "result", folder / name)


PREPARE: Mapping[str, Callable[[Path], None]] = {
    "docs/sources.md": prepare_data_sets,
    "docs/reproduce.md": prepare_data_sets,
    "docs/evaluation.md": prepare_evaluation,
    "README.md": prepare_evaluation,
    "docs/training.md": prepare_trained,
    "docs/batch.md": prepare_batch,
    "docs/exports.md": prepare_exports,
    "docs/export-to-tools.md": prepare_exports,
    "docs/train-your-data.md": prepare_training,
    "docs/sessions.md": lay_out_result,
    "docs/serve.md": lay_out_result,
    "docs/view.md": prepare_view,
    "docs/prompts.md": prepare_prompts,
    "docs/results.md": lay_out_result,
    "docs/rocovis.md": prepare_trained,
}
LENGTHS = {
    "docs/sources.md": 11,
    "docs/rocovis.md": 3,
    "docs/training.md": 3,
    "docs/train-your-data.md": 3,
    "docs/exports.md": 13,
    "docs/sessions.md": 21,
    "README.md": 13,
    "docs/prompts.md": 31,
    "docs/serve.md": 15,
}
