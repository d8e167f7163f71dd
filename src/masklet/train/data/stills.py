"""Annotated images (COCO's instance form) as clips: for the segmenter, and as DVIS makes videos of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from masklet.core.errors import InputError
from masklet.core.rle import Rle
from masklet.io.formats.json_entry import JsonEntry, parse_coco_mask, read_json_object
from masklet.io.formats.split import read_categories
from masklet.io.video.images import read_rgb_image
from masklet.train.data.clips import TrainingClip
from masklet.train.data.framing import (
    ClipView,
    FixedFraming,
    Framing,
    Ids,
    RgbImage,
    build_clip,
    draw_clip_with_objects,
    join_affines,
    make_rotation,
    paint_id_map,
    transform_ids,
    transform_image,
)

FORM = "an instance json of COCO"
COCO_SPLITS = ("train2017", "train2014")
ANGLE = 15.0  # degrees, largest turn of DVIS's pseudo videos
CENTRE = (0.4, 0.6)  # of the sides, where they turn about


@dataclass(frozen=True)
class Still:
    """One image and its objects."""

    image: RgbImage
    ids: Ids  # object n is n + 1
    labels: list[int]


@dataclass(frozen=True)
class _ListedStill:
    path: Path
    size: tuple[int, int]
    masks: tuple[Rle, ...]
    labels: tuple[int, ...]


def keep_category_name(name: str) -> str:
    """Categories as the file calls them."""
    return name


def name_as_object(name: str) -> str:
    """The one name of every category, "object", for training without categories."""
    return "object"


def find_still_files(folder: Path) -> tuple[Path, Path]:
    """The annotations of a set of stills, and the folder of its images: annotations.json and images/, or as COCO
    unpacks, annotations/instances_train2017.json and train2017/.
    """
    for split in COCO_SPLITS:
        listing = folder / "annotations" / f"instances_{split}.json"
        if listing.is_file() and (folder / split).is_dir():
            return listing, folder / split
    return folder / "annotations.json", folder / "images"


def read_still_categories(folder: Path) -> tuple[str, ...]:
    """The categories of a set of stills, as its file calls them, in the order of their ids. Raises InputError where it
    cannot be read.
    """
    names = read_categories(read_json_object(find_still_files(folder)[0], FORM, "categories"))
    return tuple(names[id] for id in sorted(names))


def use_every_image(image: Mapping[str, Any]) -> bool:
    """Wants every image of the file, whatever its entry says."""
    return True


class Stills:
    """The annotated images of a folder (`find_still_files`). Crowds are left out.

    What a set does not label counts as background: give it to a training that asks for nothing else.
    """

    def __init__(
        self,
        folder: Path,
        rename: Callable[[str], str | None] = keep_category_name,
        categories: Sequence[str] | None = None,
        wanted: Callable[[Mapping[str, Any]], bool] = use_every_image,
    ) -> None:
        """Reads the list; images are read when they are needed.

        Args:
            folder: of the set.
            rename: what a category of the file is called here, None: its objects are left out; `name_as_object` for
                training without categories.
            categories: all there are, in the order of the labels; those of the file by default.
            wanted: by its entry in the file, whether an image with objects is used.

        Raises:
            InputError: files are missing or malformed, name what does not exist, or there is no image with objects.
        """
        path, images = find_still_files(folder)
        content = read_json_object(path, FORM, "categories", "images", "annotations")
        renamed = {id: rename(name) for id, name in read_categories(content).items()}
        names = {id: name for id, name in renamed.items() if name is not None}
        self.categories = tuple(categories or dict.fromkeys(names[id] for id in sorted(names)))
        strange = sorted(set(names.values()) - set(self.categories))
        if strange:
            raise InputError(
                f"{path}: {strange[0]!r} is none of the categories {', '.join(self.categories)}; rename it"
            )
        labels = {id: self.categories.index(names[id]) if id in names else None for id in renamed}
        self._listed = _list_stills(path, content, images, labels, wanted)

    def __len__(self) -> int:
        return len(self._listed)

    def still(self, n: int) -> Still:
        """One image. Raises InputError where it cannot be read or is not of the size that the json says."""
        listed = self._listed[n]
        ids = paint_id_map(listed.masks, range(1, len(listed.masks) + 1), listed.size)
        return Still(self.image(n), ids, list(listed.labels))

    def image(self, n: int) -> RgbImage:
        """The pixels of an image alone. Raises InputError as `still`."""
        listed = self._listed[n]
        try:
            image = read_rgb_image(listed.path)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise InputError(f"{listed.path}: cannot be read as an image ({error}); give an intact copy") from None
        if image.shape[:2] != listed.size:
            (h, w), (h0, w0) = image.shape[:2], listed.size
            raise InputError(f"{listed.path}: is {w}x{h}, but its annotations are for {w0}x{h0}; give the same image")
        return image

    def masks(self, n: int) -> tuple[Rle, ...]:
        """All of each object of an image, also where another one lies over it."""
        return self._listed[n].masks

    def labels(self, n: int) -> tuple[int, ...]:
        """The category of each of them."""
        return self._listed[n].labels

    def draw(self, random: np.random.Generator) -> Still:
        """An image of the set and its objects, each image alike often. Raises InputError as `still`."""
        return self.still(int(random.integers(len(self))))


def _list_stills(
    path: Path,
    content: JsonEntry,
    images: Path,
    labels: Mapping[int, int | None],
    wanted: Callable[[Mapping[str, Any]], bool],
) -> list[_ListedStill]:
    entries: dict[int, JsonEntry] = {}
    for image in content.entries("images"):
        if entries.setdefault(image.whole("id"), image) is not image:
            raise image.wrong(f"the image id {image.whole('id')} is given twice; keep one of them")
    found: dict[int, list[tuple[Rle, int]]] = {id: [] for id, image in entries.items() if wanted(image.content)}
    for annotation in content.entries("annotations"):
        id, category = annotation.whole("image_id"), annotation.whole("category_id")
        if id not in entries or category not in labels:
            kind, missing = ("category", category) if id in entries else ("image", id)
            raise annotation.wrong(f"there is no {kind} {missing} in the file")
        label = labels[category]
        if id in found and label is not None and not annotation.content.get("iscrowd"):
            mask = parse_coco_mask(annotation.where, annotation.get("segmentation"), entries[id].size())
            found[id] += [(mask, label)] if mask.area else []
    listed = [_list_one_still(images, entries[id], objects) for id, objects in found.items() if objects]
    if not listed:
        raise InputError(f"{path}: no image with objects is wanted of it; give another set, or want others")
    return listed


def _list_one_still(images: Path, image: JsonEntry, objects: Sequence[tuple[Rle, int]]) -> _ListedStill:
    path = images / image.text("file_name")
    if not path.is_file():
        raise image.wrong(f"{path} is not there; give the images that belong to the json")
    return _ListedStill(path, image.size(), tuple(m for m, _ in objects), tuple(n for _, n in objects))


class PseudoVideos:
    """A `ClipSource`: one image, turned a little more from frame to frame, as DVIS makes videos of COCO's."""

    def __init__(self, stills: Stills, framing: Framing) -> None:
        self.stills, self.framing = stills, framing
        self.categories = stills.categories

    def clip(self, random: np.random.Generator, frames: int) -> TrainingClip:
        """A clip of so many `frames`, drawn with `random`; tried up to twenty times where no object is seen."""
        return draw_clip_with_objects(lambda: self._clip(random, frames))

    def _clip(self, random: np.random.Generator, frames: int) -> TrainingClip:
        still = self.stills.draw(random)
        view = self.framing.view(random, still.ids.shape)
        angles = np.sort(random.uniform(-ANGLE, ANGLE, frames))[:: 1 if random.random() < 0.5 else -1]
        h, w = view.size
        x, y = random.uniform(*CENTRE, 2) * [w, h]
        views = [
            ClipView(view.size, join_affines(view.affine, make_rotation(float(angle), (x, y)))) for angle in angles
        ]
        return build_clip(
            [transform_image(still.image, v) for v in views],
            [transform_ids(still.ids, v) for v in views],
            still.labels,
        )


@dataclass(frozen=True)
class CropSettings:
    """Probabilities and ranges of what is done to an image."""

    mosaic: float = 0.15  # four images in one
    paste: float = 0.3  # objects of another image are pasted over this one
    light: float = 0.3  # largest change of brightness, contrast and saturation


class StillCrops:
    """A `ClipSource` for the segmenter: scale jitter, flip, colours, mosaics, copy-paste; all frames are alike."""

    def __init__(self, stills: Stills, framing: Framing, settings: CropSettings | None = None) -> None:
        self.stills, self.framing, self.settings = stills, framing, settings or CropSettings()
        self.categories = stills.categories

    def clip(self, random: np.random.Generator, frames: int) -> TrainingClip:
        """A clip of `frames` equal images, drawn with `random`."""
        return draw_clip_with_objects(lambda: self._clip(random, frames))

    def _clip(self, random: np.random.Generator, frames: int) -> TrainingClip:
        still = self._mosaic(random) if random.random() < self.settings.mosaic else self._shown(random)
        if random.random() < self.settings.paste:
            still = paste_objects(random, still, self._shown(random))
        image = apply_random_light(random, still.image, self.settings.light)
        return build_clip([image] * frames, [still.ids] * frames, still.labels)

    def _shown(self, random: np.random.Generator) -> Still:
        still = self.stills.draw(random)
        view = self.framing.view(random, still.ids.shape)
        return Still(transform_image(still.image, view), transform_ids(still.ids, view), still.labels)

    def _mosaic(self, random: np.random.Generator) -> Still:
        """Four images around a point."""
        whole = self._shown(random)
        h, w = whole.ids.shape
        y, x = int(h * random.uniform(0.3, 0.7)), int(w * random.uniform(0.3, 0.7))
        for rows, cols in ((slice(y), slice(x, w)), (slice(y, h), slice(x)), (slice(y, h), slice(x, w))):
            size = (rows.stop - (rows.start or 0), cols.stop - (cols.start or 0))
            part = self.stills.draw(random)
            view = FixedFraming(size).view(random, part.ids.shape)
            whole.image[rows, cols] = transform_image(part.image, view)
            ids = transform_ids(part.ids, view)
            whole.ids[rows, cols] = np.where(ids > 0, ids + np.uint16(len(whole.labels)), 0)
            whole.labels.extend(part.labels)
        return whole


def paste_objects(random: np.random.Generator, below: Still, above: Still) -> Still:
    """The objects of `above`, each with a chance of one half by `random`, over the image `below` (Ghiasi et al., Simple
    Copy-Paste). Labels are those of both, also of what is not pasted.
    """
    h, w = (min(a, b) for a, b in zip(below.ids.shape, above.ids.shape, strict=True))
    chosen = np.append(False, random.random(len(above.labels)) < 0.5)
    over = chosen[above.ids[:h, :w]]
    image, ids = below.image.copy(), below.ids.copy()
    image[:h, :w][over] = above.image[:h, :w][over]
    ids[:h, :w][over] = above.ids[:h, :w][over] + np.uint16(len(below.labels))
    return Still(image, ids, below.labels + above.labels)


def apply_random_light(random: np.random.Generator, image: RgbImage, most: float) -> RgbImage:
    """The image `image` with other brightness, contrast, saturation and tint, each changed by a share of at most
    `most`, drawn by `random`.
    """
    return apply_light(image, draw_light_factors(random, most))


def draw_light_factors(random: np.random.Generator, most: float) -> np.ndarray:
    """What `apply_light` multiplies by: brightness, contrast, saturation, and one for each colour; about 1."""
    return 1 + np.append(random.uniform(-most, most, 3), random.uniform(-most, most, 3) / 3)


def apply_light(image: RgbImage, factors: np.ndarray) -> RgbImage:
    """The image times factors of brightness, contrast, saturation and red, green, blue."""
    brightness, contrast, saturation, *tint = factors.astype(np.float32)
    grey = image.mean(2, keepdims=True, dtype=np.float32)
    middle = grey.mean()
    coloured = (grey + (image - grey) * saturation - middle) * contrast + middle
    return np.asarray(np.clip(coloured * (brightness * np.array(tint, np.float32)), 0, 255).astype(np.uint8))
