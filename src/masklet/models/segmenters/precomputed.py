"""Detections made elsewhere, from a file or a folder, behind the `Segmenter` protocol."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from re import split
from typing import Any, TypeGuard

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image
from pycocotools import mask as coco
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.image_files import open_image
from masklet.core.instances import Detections
from masklet.core.masks import stack_masks
from masklet.core.part_facts import CPU
from masklet.core.rle import Rle
from masklet.models.nano.image_predictor import load_image_predictor

Entry = tuple[int, Mapping[str, Any]]  # position in the file, content


class Precomputed:
    """COCO results with a frame index, or one label image per frame.

    A JSON file is a list of {"frame" (or "frame_index", or "image_id"): int from 0, "category_id": int,
    "score": 0 to 1, "segmentation": run lengths or polygons; or instead of it "bbox": [x, y, w, h], in
    which nano's image predictor draws the mask}, or
    {"annotations": that list, "categories": [{"id", "name"}]}. In a folder, the n-th image in the order of names
    is frame n (2.png before 10.png), and a pixel's value the instance it belongs to (0: none; 255 in a palette
    image: none); these score 1.
    """

    look_ahead = 0

    def __init__(self, path: Path, device: torch.device = CPU) -> None:
        """
        Args:
            path: of a file, or of a folder of label images.
            device: where boxes without masks are filled.

        Raises:
            InputError: an entry is malformed; it names the file and the entry.
        """
        self.path, self.device = path, device
        if path.is_dir():
            self._labels: Sequence[Path] = list_label_images(path)
            self._entries: Mapping[int, list[Entry]] = {}
            self.weights: Mapping[str, str] = {}
            self.categories: tuple[str, ...] = ("object",)
            return
        content, self.weights = read_results_file(path)
        entries = content["annotations"] if isinstance(content, dict) else content
        self._labels, self._entries = (), group_by_frame(path, entries)
        names = read_category_names(path, content) if isinstance(content, dict) else {}
        known = sorted({*names, *(e["category_id"] for e in entries)})
        self._label = {id: n for n, id in enumerate(known)}
        self.categories = tuple(names.get(id, str(id)) for id in known)

    def empty(self) -> None:
        """The memory before the first frame: None, for nothing is remembered."""

    def segment(self, memory: None, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], None]:
        """Looks up the detections on record for each of `frames`, by its index; `memory` is None, and `future` is not
        looked at. Raises InputError where a mask is not of the frame's size.
        """
        return [self._from_image(f) if self._labels else self._from_entries(f) for f in frames], None

    def _from_entries(self, frame: Frame) -> Detections:
        found = self._entries.get(frame.index, [])
        masks = [decode_entry_mask(f"{self.path}: entry {n}", e, frame.size).decode() for n, e in found]
        boxed = [row for row, (_, entry) in enumerate(found) if "segmentation" not in entry]
        for row, mask in zip(
            boxed, segment_boxes(frame, [found[row][1]["bbox"] for row in boxed], self.device), strict=True
        ):
            masks[row] = mask if mask.any() else masks[row]
        return Detections(
            stack_masks(masks, frame.size),
            torch.tensor([float(e["score"]) for _, e in found]),
            torch.tensor([self._label[e["category_id"]] for _, e in found], dtype=torch.int64),
        )

    def _from_image(self, frame: Frame) -> Detections:
        if frame.index >= len(self._labels):
            return Detections.none(frame.size)
        path = self._labels[frame.index]
        image = open_label_image(path)
        labels = np.array(image)
        if labels.shape != frame.size:
            raise InputError(
                f"{path}: the labels are {format_frame_size(labels.shape)}, the video {format_frame_size(frame.size)}"
            )
        nothing = (0, 255) if image.mode == "P" else (0,)
        values = [v for v in np.unique(labels) if v not in nothing]
        masks = torch.from_numpy(np.stack([labels == v for v in values])) if values else stack_masks([], frame.size)
        return Detections(masks, torch.ones(len(values)), torch.zeros(len(values), dtype=torch.int64))


def segment_boxes(frame: Frame, boxes: Sequence[Sequence[float]], device: torch.device = CPU) -> Bool[Tensor, "n h w"]:
    """What fills each of `boxes` [x, y, w, h] of a `frame`, as nano's image predictor draws it on a `device`."""
    if not boxes:
        return stack_masks([], frame.size)
    corners = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in boxes], dtype=torch.float32)
    return load_image_predictor(device).predict_boxes(frame.image, corners)[0]


def format_frame_size(size: tuple[int, ...]) -> str:
    """A size (h, w) as width x height."""
    return "x".join(str(n) for n in reversed(size))


def read_results_file(path: Path) -> tuple[Any, dict[str, str]]:
    """A file's content, and its sha256 by its name."""
    try:
        data = path.read_bytes()
        content = json.loads(data)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a COCO results json") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON, or cut off ({error}); give a COCO results json") from None
    entries = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(entries, list):
        raise InputError(f"{path}: neither a list of detections nor an object with 'annotations'")
    return content, {path.name: hashlib.sha256(data).hexdigest()}


def read_category_names(path: Path, content: Mapping[str, Any]) -> dict[int, str]:
    """The names by their ids. Raises InputError naming the category that is malformed."""
    given = content.get("categories") or []
    for n, category in enumerate(given if isinstance(given, list) else [given]):
        if not isinstance(category, dict) or not is_frame_number(category.get("id")) or "name" not in category:
            raise InputError(f"{path}: category {n}: must be an object with 'id', a whole number, and 'name'")
    return {c["id"]: str(c["name"]) for c in given}


def group_by_frame(path: Path, entries: Sequence[Any]) -> dict[int, list[Entry]]:
    """The entries of each frame, checked as far as they can be before the video is known."""
    frames: dict[int, list[Entry]] = defaultdict(list)
    for n, entry in enumerate(entries):
        frames[check_entry(f"{path}: entry {n}", entry)].append((n, entry))
    return dict(frames)


def check_entry(where: str, entry: Any) -> int:
    """The entry's frame. Raises InputError saying what is wrong with the entry."""
    if not isinstance(entry, dict):
        raise InputError(f"{where}: not an object but {type(entry).__name__}")
    frame = next((entry[k] for k in ("frame", "frame_index", "image_id") if k in entry), None)
    if not is_frame_number(frame):
        raise InputError(
            f"{where}: 'frame' (or 'frame_index', 'image_id') must be a whole number from 0, not {frame!r}"
        )
    if not is_frame_number(entry.get("category_id")):
        raise InputError(f"{where}: 'category_id' must be a whole number from 0, not {entry.get('category_id')!r}")
    score = entry.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise InputError(f"{where}: 'score' must be a number from 0 to 1, not {score!r}")
    if "segmentation" not in entry and "bbox" not in entry:
        raise InputError(f"{where}: 'segmentation' is missing")
    return int(frame)


def is_frame_number(value: Any) -> TypeGuard[int]:
    """Whether a JSON value is a whole number from 0 on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def decode_entry_mask(where: str, entry: Mapping[str, Any], size: tuple[int, int]) -> Rle:
    """The mask of a detection's `entry`: COCO RLE as text or list, polygons, or a filled box.

    `size` is the frame's, (h, w). Raises InputError, which begins with `where`, where it is malformed or of another
    size.
    """
    shape = entry.get("segmentation", entry.get("bbox"))
    try:
        if isinstance(shape, dict):
            return decode_coco_rle(shape, size)
        polygons = shape if "segmentation" in entry else [convert_box_to_polygon(shape)]
        if not polygons or any(len(p) < 6 or len(p) % 2 or not np.isfinite(p).all() for p in polygons):
            raise ValueError("a polygon needs three points, x and y each")
        code = coco.merge(coco.frPyObjects(polygons, *size))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{where}: {error if isinstance(error, ValueError) else 'malformed segmentation'}") from None
    return Rle(size, code["counts"])


def decode_coco_rle(shape: Mapping[str, Any], size: tuple[int, int]) -> Rle:
    """COCO run lengths, compressed or as a list of numbers. Raises ValueError where they do not fill the frame."""
    if tuple(shape["size"]) != size:
        raise ValueError(f"the mask is {format_frame_size(tuple(shape['size']))}, the video {format_frame_size(size)}")
    counts = shape["counts"]
    if not isinstance(counts, list):
        return Rle.checked(size, counts.encode() if isinstance(counts, str) else counts)
    if not all(is_frame_number(c) for c in counts) or sum(counts) != size[0] * size[1]:
        raise ValueError(f"run lengths fill {sum(counts)} pixels, not the {format_frame_size(size)} of the frame")
    return Rle(size, coco.frPyObjects({"size": list(size), "counts": counts}, *size)["counts"])


def convert_box_to_polygon(box: Sequence[float]) -> list[float]:
    """A box [x, y, w, h] as a polygon."""
    x, y, w, h = box
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def list_label_images(folder: Path) -> list[Path]:
    """The images of a folder in the order of their names, numbers counted."""
    pngs = (p for p in folder.iterdir() if p.suffix.lower() == ".png" and not p.name.startswith("."))
    found = sorted(pngs, key=lambda p: [(not part.isdecimal(), part.zfill(20)) for part in split(r"(\d+)", p.stem)])
    if not found:
        raise InputError(f"{folder}: no png in this folder; give one label image per frame")
    return found


def open_label_image(path: Path) -> Image.Image:
    """A label image: one value per pixel."""
    image = open_image(path)
    if image.mode not in ("P", "L", "1", "I;16", "I"):
        raise InputError(f"{path}: a colour image; give label images, the pixel's value the instance")
    return image
