"""Good inputs of every kind, small, made once in a process; the fuzzer damages copies of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from masklet.core.instances import Box, Clicks, Point
from masklet.core.memory import save_memory
from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.io.formats.burst import write_burst
from masklet.io.formats.cocovid import write_cocovid
from masklet.io.formats.davis import write_davis, write_davis16
from masklet.io.formats.mots import write_mots, write_mots_pngs
from masklet.io.formats.panoptic import write_panoptic
from masklet.io.formats.ytvis import write_ytvis, write_ytvis_truth
from masklet.weights.format import write_described

SIZE, LENGTH = (24, 32), 4


@cache
def make_result() -> VideoResult:
    """Two objects in four frames."""
    masklets = []
    for id in (1, 2):
        seen = {}
        for t in range(LENGTH):
            mask = np.zeros(SIZE, bool)
            mask[2 + 8 * id : 7 + 8 * id, 3 * t : 3 * t + 8] = True
            seen[t] = Sighting(Rle.encode_pixels(mask), Source.DETECTED, 0.5, id - 1, 1.0)
        masklets.append(Masklet(id, seen, id - 1, 0.9, id == 1))
    made = Provenance("test", {"conf": 0.5, "list": [1, {"a": None}]}, {"w": "00"}, "1", "clip", ("a note",))
    return VideoResult("clip", SIZE, LENGTH, 25.0, tuple(masklets), ("cat", "dog"), made)


@cache
def make_files() -> Mapping[str, bytes]:
    """Every file of every form, by its path."""
    result = make_result()
    with TemporaryDirectory() as name:
        folder = Path(name)
        result.save(folder / "masklets.json")
        write_ytvis_truth([result], folder / "truth.json")
        write_ytvis([result], folder / "ytvis.json")
        write_cocovid([result], folder / "cocovid.json")
        write_burst([result], folder / "burst.json")
        write_panoptic([result], folder / "panoptic")
        write_mots(result, folder / "mots.txt", {1: "cat", 2: "dog"})
        write_mots_pngs(result, folder / "mots", classes={1: "cat", 2: "dog"})
        write_davis(result, folder / "davis")
        write_davis16(result, folder / "davis16")
        for form in ("cvat-images", "cvat-video", "label-studio", "label-studio-video", "mot", "webdataset"):
            result.export(form, folder / form)
        save_memory(make_memory(), folder / "memory")
        write_described(folder / "described.safetensors", "toy", {"w": torch.ones(3, 2)}, {"size": [3, 2], "deep": {}})
        torch.save({"model": {"a.weight": torch.ones(2, 3), "b": torch.zeros(4)}}, folder / "weights.pt")
        torch.save({"a.weight": torch.ones(2, 3)}, folder / "older.pth", _use_new_zipfile_serialization=False)
        (folder / "plain.safetensors").write_bytes(save({"a.weight": torch.ones(2, 3)}))
        (folder / "config.json").write_text(json.dumps({"model_type": "sam2", "sizes": [1, 2, {"a": 3}]}))
        for suffix in ("png", "jpg", "bmp", "gif", "tif", "webp", "ppm", "tga", "jp2"):
            make_picture().save(folder / f"picture.{suffix}")
        for suffix, codec in (("mp4", "libx264"), ("webm", "libvpx"), ("ts", "mpeg2video"), ("avi", "mjpeg")):
            write_video(folder / f"clip.{suffix}", codec)
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def make_memory() -> Any:
    """A value with everything in it that a memory can hold."""
    clicks = Clicks((Point(1.0, 2.0), Point(3, 4, False)), Box(0, 0, 5, 5))
    sighting = next(iter(make_result().masklets[0].sightings.values()))
    return {"a": torch.ones(3, 4), 2: (clicks, [None, b"bytes", 0.5]), "seen": {0: sighting}, "n": np.arange(5)}


def make_picture(t: int = 0) -> Image.Image:
    """A small picture in colours."""
    pixels = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), np.uint8)
    pixels[5:15, 3 * t : 3 * t + 8] = (220, 30, 30)
    return Image.fromarray(pixels)


def write_video(path: Path, codec: str) -> None:
    """Twelve frames."""
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream(codec, rate=Fraction(10))
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for t in range(12):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.array(make_picture(t % 6)))))
        file.mux(stream.encode())


@cache
def make_label_png() -> bytes:
    """A grey label map, as evaluation reads it fastest."""
    labels, file = np.zeros(SIZE, np.uint8), BytesIO()
    labels[4:9, 3:9] = 1
    Image.fromarray(labels).save(file, "PNG")
    return file.getvalue()
