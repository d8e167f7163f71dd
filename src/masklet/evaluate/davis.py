"""Data in DAVIS layout: JPEGImages and Annotations, each <resolution>/<sequence>/<frame>."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from masklet.core.errors import InputError
from masklet.evaluate.vos import VOID, LabelMap, object_ids

RESOLUTION = "480p"  # the one that is evaluated, where a folder has several


@dataclass(frozen=True)
class DavisSequence:
    """One sequence: its frames on disk and, by frame index, where its annotations are."""

    name: str
    images: Path
    annotations: Mapping[int, Path]
    length: int  # frames

    def truth(self) -> dict[int, LabelMap]:
        """The annotated frames' objects.

        Palette images hold ids (DAVIS 2017). Others that hold 255 are one object's mask, any other value than
        0 being inside (DAVIS 2016). InputError where no frame shows an object.
        """
        pages = {t: Image.open(path) for t, path in self.annotations.items()}
        values = {t: _values(page) for t, page in pages.items()}
        if _is_binary(values, palette=all(page.mode == "P" for page in pages.values())):
            values = {t: (v > 0).astype(np.uint8) for t, v in values.items()}
        if not any(object_ids(v) for v in values.values()):
            raise InputError(f"{self.name}: no object in any annotation; leave this sequence out")
        return values


def _values(page: Image.Image) -> LabelMap:
    pixels: UInt8[np.ndarray, "h w *c"] = np.asarray(page).astype(np.uint8)
    return pixels if pixels.ndim == 2 else pixels[..., :3].max(axis=2)  # some DAVIS masks are grey in RGB


def _is_binary(values: Mapping[int, LabelMap], palette: bool) -> bool:
    found = {int(v) for page in values.values() for v in np.unique(page)}
    return VOID in found and (not palette or found <= {0, VOID})


def davis_sequences(folder: Path, names: tuple[str, ...] = ()) -> list[DavisSequence]:
    """The sequences under a folder in DAVIS layout, or the named ones. InputError where one is not there."""
    images, annotations = (_resolution(folder / part) for part in ("JPEGImages", "Annotations"))
    there = sorted(p.name for p in images.iterdir() if p.is_dir() and (annotations / p.name).is_dir())
    missing = sorted(set(names) - set(there))
    if missing or not there:
        raise InputError(f"{folder}: no sequence {', '.join(missing) or 'at all'}; it has {', '.join(there)}")
    return [_sequence(images / name, annotations / name) for name in names or there]


def _resolution(folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(
            f"{folder} is not here; name a folder in DAVIS layout (JPEGImages/480p/<sequence>/*.jpg, "
            "Annotations/480p/<sequence>/*.png) by --davis or MASKLET_DAVIS"
        )
    found = sorted(p for p in folder.iterdir() if p.is_dir())
    if not found:
        raise InputError(f"{folder} is empty; it should hold a folder such as {RESOLUTION}")
    return next((p for p in found if p.name == RESOLUTION), found[0])


def _sequence(images: Path, annotations: Path) -> DavisSequence:
    frames = sorted(p.stem for p in images.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png"))
    at = {stem: index for index, stem in enumerate(frames)}
    masks = {at[p.stem]: p for p in sorted(annotations.glob("*.png")) if p.stem in at}
    if len(masks) < 3:
        raise InputError(f"{images.name}: {len(masks)} annotated frames; three are the least that can be scored")
    return DavisSequence(images.name, images, masks, len(frames))
