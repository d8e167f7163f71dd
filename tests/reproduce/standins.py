"""Small stand-ins of the papers' data sets, each in exactly the layout in which it unpacks, from generated clips.

    python tests/reproduce/standins.py FOLDER [NAME]...

Names, splits, which frames are annotated, objects that appear late or are missing, palettes and ids are the data sets'
own; pictures are coloured rectangles that move over noise.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.io.formats.burst import write_burst
from masklet.io.formats.davis import build_davis_palette
from masklet.io.formats.panoptic import write_panoptic
from masklet.io.formats.ytvis import write_ytvis_truth
from masklet.weights.categories import OVIS, VIPSEG, VIPSEG_STUFF, YTVIS19, YTVIS21

H, W = 48, 64
COLOURS = np.array([[0, 0, 0], [230, 60, 60], [60, 200, 70], [70, 90, 230], [220, 210, 60]], np.uint8)


@dataclass(frozen=True)
class Clip:
    """A generated video: object n is there from frame `first[n]` on."""

    name: str
    images: np.ndarray  # uint8 [t h w 3]
    labels: np.ndarray  # uint8 [t h w], the object of each pixel, 0: none
    labelled: Mapping[int, str]  # object: category

    def result(self, categories: Sequence[str], stuff: Sequence[str] = (), name: str = "") -> VideoResult:
        """The truth as a result."""
        made = []
        for id, category in self.labelled.items():
            seen = {
                t: Sighting(Rle.encode_pixels(page == id), Source.DETECTED, 1.0, categories.index(category), 1.0)
                for t, page in enumerate(self.labels)
                if (page == id).any()
            }
            made.append(Masklet(id, seen, categories.index(category), 1.0, category not in stuff))
        return VideoResult(
            name or self.name, (H, W), len(self.labels), 6.0, tuple(made), tuple(categories), Provenance("truth")
        )


def make_clip(name: str, length: int, kinds: Sequence[str], seed: int, first: Sequence[int] = (0, 0, 2)) -> Clip:
    """Rectangles on noise, one for each of `kinds`, which come in at frame `first`; the second leaves for a frame."""
    draw = np.random.default_rng(seed)
    ground = np.kron(draw.integers(40, 110, (H // 4, W // 4, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    images, labels = np.repeat(ground[None], length, 0), np.zeros((length, H, W), np.uint8)
    for t in range(length):
        for n in range(len(kinds)):
            if t < first[n] or (n == 1 and length > 4 and t == length // 2):
                continue
            y, x = 4 + 14 * n, (4 + 9 * n + (1 if n % 2 else 2) * t) % (W - 18)
            labels[t, y : y + 12, x : x + 16] = n + 1
            images[t, y : y + 12, x : x + 16] = COLOURS[n + 1]
    return Clip(name, images, labels, {n + 1: kind for n, kind in enumerate(kinds)})


def put_frames(folder: Path, clip: Clip, names: Sequence[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, image in zip(names, clip.images, strict=True):
        Image.fromarray(image).save(folder / f"{name}.jpg", quality=95)


def put_palette(path: Path, page: np.ndarray) -> None:
    """A palette image of ids, as DAVIS and its kin have them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(page)
    image.putpalette(build_davis_palette())
    image.save(path)


def number(first: int, step: int, length: int, form: str) -> list[str]:
    """Names of frames."""
    return [form.format(first + step * t) for t in range(length)]


def write_ytvis(
    root: Path, split: str, kinds: Sequence[str], frames: str, listing: Path, truth: bool, length: int = 4
) -> None:
    """YouTube-VIS's form: every fifth frame, a json of videos, categories and, maybe, annotations."""
    clips = [
        make_clip(name, length, [kinds[2], kinds[7], kinds[2]], n)
        for n, name in enumerate(("0a49f5265b", "0c04834d61"))
    ]
    names = number(0, 5, length, "{:05d}")
    for clip in clips:
        put_frames(root / frames / clip.name, clip, names)
    listing.parent.mkdir(parents=True, exist_ok=True)
    write_ytvis_truth([clip.result(kinds) for clip in clips], listing, {clip.name: names for clip in clips})
    if not truth:
        content = json.loads(listing.read_text())
        listing.write_text(json.dumps({**content, "annotations": None}))


def ytvis19(root: Path) -> None:
    write_ytvis(root, "valid", YTVIS19, "ytvis_2019/valid/JPEGImages", root / "ytvis_2019/valid.json", False)


def ytvis21(root: Path) -> None:
    write_ytvis(root, "valid", YTVIS21, "ytvis_2021/valid/JPEGImages", root / "ytvis_2021/valid/instances.json", False)


def ytvis22(root: Path) -> None:
    write_ytvis(root, "valid", YTVIS21, "ytvis_2022/valid/JPEGImages", root / "ytvis_2022/valid/instances.json", False)
    put_frames(root / "ytvis_2022/valid/JPEGImages/short00001", make_clip("s", 2, YTVIS21[:1], 7), ["00000", "00005"])


def ovis(root: Path) -> None:
    clips = [make_clip(name, 4, [OVIS[2], OVIS[7]], n) for n, name in enumerate(("001ca3cb", "2c6cbc5f"))]
    names = number(1, 1, 4, "img_{:07d}")
    for clip in clips:
        put_frames(root / "ovis/valid" / clip.name, clip, names)
    (root / "ovis/annotations").mkdir(parents=True)
    (root / "ovis/train").mkdir()
    path = root / "ovis/annotations/valid.json"
    write_ytvis_truth([clip.result(OVIS) for clip in clips], path, {clip.name: names for clip in clips})
    path.write_text(json.dumps({**json.loads(path.read_text()), "annotations": None}))


def hq_ytvis(root: Path) -> None:
    for split in ("val", "test"):
        write_ytvis(root, split, YTVIS19, "hq-ytvis/train/JPEGImages", root / f"hq-ytvis/ytvis_hq-{split}.json", True)


def vipseg(root: Path) -> None:
    """VIPSeg after its own conversion to 720p, with detections as DEVA takes them beside it."""
    home, kinds = root / "VIPSeg_720P", ["car", "sky", "person"]
    clips = [make_clip(name, 6, kinds, n) for n, name in enumerate(("0_wHdQOGzXkSw", "12_1WfnI9KLUrI"))]
    names = {clip.name: number(0, 3, 6, "{:08d}") for clip in clips}
    for clip in clips:
        put_frames(home / "images" / clip.name, clip, names[clip.name])
    results = [clip.result(VIPSEG, VIPSEG_STUFF) for clip in clips]
    write_panoptic(results, home, names, dict(enumerate(VIPSEG)))
    (home / "pan_pred").rename(home / "panomasksRGB")
    content = json.loads((home / "pred.json").read_text())
    content["categories"] = [
        {"id": n, "name": name, "isthing": int(name not in VIPSEG_STUFF)} for n, name in enumerate(VIPSEG)
    ]
    for video in content["annotations"]:
        for page in video["annotations"]:
            page["image_id"] = page["file_name"][:-4]
            for segment in page["segments_info"]:
                segment["iscrowd"] = 0
                del segment["score"], segment["isthing"]
    (home / "panoptic_gt_VIPSeg_val.json").write_text(json.dumps(content))
    (home / "pred.json").unlink()
    (home / "val.txt").write_text("".join(f"{clip.name}\n" for clip in clips))
    for detector in ("mask2former-r50", "mask2former-swin-b", "video-k-net-swin-b"):
        write_panoptic(results, root / "detections/vipseg" / detector, names, dict(enumerate(VIPSEG)))


def vspw(root: Path) -> None:
    home = root / "VSPW_480p"
    for n, name in enumerate(("1001_5z_ijQjUf_0", "1009_9GyC8g_-8LY")):
        clip = make_clip(name, 4, ["car", "sky", "person"], n)
        names = number(12, 12, 4, "{:08d}")
        put_frames(home / "data" / name / "origin", clip, names)
        classes = np.array([0, *(VIPSEG.index(k) + 1 for k in clip.labelled.values())], np.uint8)
        (home / "data" / name / "mask").mkdir()
        for frame, page in zip(names, clip.labels, strict=True):
            Image.fromarray(classes[page]).save(home / "data" / name / "mask" / f"{frame}.png")
    (home / "label_num_dic_final.json").write_text(
        json.dumps({"others": "0", **{k: str(n + 1) for n, k in enumerate(VIPSEG)}})
    )
    (home / "val.txt").write_text("1001_5z_ijQjUf_0\n1009_9GyC8g_-8LY\n")


def burst(root: Path) -> None:
    home = root / "BURST"
    for split in ("val", "test"):
        clips = [make_clip(f"{split}{n}", 6, ["acorn", "airplane", "acorn"], n) for n in range(2)]
        names = {f"YFCC100M/{clip.name}": number(1, 1, 6, "frame{:04d}") for clip in clips}
        for clip in clips:
            put_frames(home / "frames" / split / "YFCC100M" / clip.name, clip, names[f"YFCC100M/{clip.name}"])
        categories = {1: "acorn", 4: "airplane"}
        place = home / "annotations" / split
        place.mkdir(parents=True)
        for kind in ("all", "common", "uncommon"):
            path = place / f"{kind}_classes.json"
            results = [clip.result(("acorn", "airplane"), name=f"YFCC100M/{clip.name}") for clip in clips]
            write_burst(results, path, names, categories, split)
            content = json.loads(path.read_text())
            for sequence in content["sequences"]:
                sequence |= {"neg_category_ids": [], "not_exhaustive_category_ids": []}
                for key in ("annotated_image_paths", "segmentations"):
                    sequence[key] = sequence[key][::2]  # TAO annotates some frames only
            path.write_text(json.dumps(content))
        for detector in ("mask2former", "entityseg"):
            for clip in clips:
                for frame, page in zip(names[f"YFCC100M/{clip.name}"], clip.labels, strict=True):
                    put_palette(root / "detections/burst" / detector / clip.name / f"{frame}.png", page)


def write_davis(
    home: Path, clips: Sequence[Clip], year: str, split: str, binary: bool = False, full: bool = True
) -> None:
    """DAVIS's tree; `full`: all frames are annotated, else the first alone, as of test-dev."""
    for clip in clips:
        names = number(0, 1, len(clip.images), "{:05d}")
        put_frames(home / "JPEGImages/480p" / clip.name, clip, names)
        for frame, page in list(zip(names, clip.labels, strict=True))[: None if full else 1]:
            path = home / "Annotations/480p" / clip.name / f"{frame}.png"
            if binary:
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray((page > 0).astype(np.uint8) * np.uint8(255)).save(path)
            else:
                put_palette(path, page)
                if full:
                    put_palette(home / "Annotations_unsupervised/480p" / clip.name / f"{frame}.png", page)
    for one in (year,) if year == "2016" else (year, "2019"):
        (home / "ImageSets" / one).mkdir(parents=True, exist_ok=True)
        (home / "ImageSets" / one / f"{split}.txt").write_text("".join(f"{clip.name}\n" for clip in clips))


def davis16(root: Path) -> None:
    clips = [make_clip(name, 5, ["o"], n) for n, name in enumerate(("blackswan", "camel"))]
    write_davis(root / "DAVIS-2016", clips, "2016", "val", binary=True)
    for clip in clips:
        for frame, page in zip(number(0, 1, 5, "{:05d}"), clip.labels, strict=True):
            path = root / "detections/davis16/dis" / clip.name / f"{frame}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.where(page > 0, 240, 10).astype(np.uint8)).save(path)


def davis17(root: Path) -> None:
    clips = [make_clip(name, 5, ["o", "o"], n) for n, name in enumerate(("bike-packing", "dogs-jump"))]
    write_davis(root / "DAVIS", clips, "2017", "val")
    late = [make_clip("aerobatics", 5, ["o", "o"], 5)]
    write_davis(root / "DAVIS", late, "2017", "test-dev", full=False)
    put_detections(root / "detections/davis17/entityseg", [*clips, *late])


def put_detections(folder: Path, clips: Sequence[Clip]) -> None:
    """Label images of every frame, as a detector of the open world leaves them."""
    for clip in clips:
        for frame, page in zip(number(0, 1, len(clip.images), "{:05d}"), clip.labels, strict=True):
            put_palette(folder / clip.name / f"{frame}.png", page)


def sav(root: Path) -> None:
    """SA-V: a folder of masks for each object, in every fourth frame, from where it is first annotated."""
    for split in ("val", "test"):
        home = root / f"sav_{split}"
        listed = []
        for n in range(1):
            clip = make_clip(f"sav_{n:06d}", 13, ["o", "o"], n, first=(0, 4))
            names = number(0, 1, 13, "{:05d}")
            put_frames(home / "JPEGImages_24fps" / clip.name, clip, names)
            for id in clip.labelled:
                for t in range(4 if id == 2 else 0, 13, 4):
                    path = home / "Annotations_6fps" / clip.name / f"{id - 1:03d}" / f"{names[t]}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray((clip.labels[t] == id).astype(np.uint8) * np.uint8(255)).save(path)
            listed.append(clip.name)
        (home / f"sav_{split}.txt").write_text("".join(f"{name}\n" for name in listed))


def write_lvos(home: Path, split: str) -> None:
    """LVOS: every fifth frame annotated, each object with its own range of frames."""
    videos: dict[str, Any] = {}
    for n, name in enumerate(("0tCWPOrc", "7K7WVzGG")):
        clip = make_clip(name, 16, ["o", "o"], n, first=(0, 0))
        names = number(1, 1, 16, "{:08d}")
        put_frames(home / split / "JPEGImages" / name, clip, names)
        for t in range(0, 16, 5):
            put_palette(home / split / "Annotations" / name / f"{names[t]}.png", clip.labels[t])
        span = {"start": "1", "end": "17", "frame_nums": "4"}
        videos[name] = {"objects": {str(id): {"frame_range": span} for id in clip.labelled}}
    for file in (f"{split}_meta.json", f"{split}_expression_meta.json"):
        (home / split / file).write_text(json.dumps({"videos": videos}))
    (home / "unseen_videos.txt").write_text("7K7WVzGG\n")


def lvosv1(root: Path) -> None:
    write_lvos(root / "LVOS", "valid")  # as it unpacks


def lvosv2(root: Path) -> None:
    write_lvos(root / "LVOS_V2", "val")  # as its page says


def write_mose(home: Path) -> None:
    """MOSE's valid: of the annotations the first frame's alone; train with all of them."""
    for part, full in (("valid", False), ("train", True)):
        for n in range(2):
            clip = make_clip(f"{part[0]}0{n}ff1", 5, ["o", "o"], n)
            names = number(0, 1, 5, "{:05d}")
            put_frames(home / part / "JPEGImages" / clip.name, clip, names)
            for frame, page in list(zip(names, clip.labels, strict=True))[: None if full else 1]:
                put_palette(home / part / "Annotations" / clip.name / f"{frame}.png", page)


def mosev1(root: Path) -> None:
    write_mose(root / "MOSE")


def mosev2(root: Path) -> None:
    write_mose(root / "MOSEv2")


def ytvos(root: Path) -> None:
    """YouTube-VOS's valid: every fifth frame, objects in the frame in which they appear, all frames beside."""
    home = root / "YouTube-VOS"
    meta: dict[str, Any] = {}
    for n, name in enumerate(("0062f687f1", "00f88c4f0a")):
        clip = make_clip(name, 11, ["o", "o", "o"], n, first=(0, 0, 5))
        names = number(0, 1, 11, "{:05d}")
        put_frames(home / "valid_all_frames/JPEGImages" / name, clip, names)
        some = Clip(name, clip.images[::5], clip.labels[::5], clip.labelled)
        put_frames(home / "valid/JPEGImages" / name, some, names[::5])
        put_palette(home / f"valid/Annotations/{name}/00000.png", clip.labels[0])
        put_palette(home / f"valid/Annotations/{name}/00005.png", np.where(clip.labels[5] == 3, 3, 0).astype(np.uint8))
        meta[name] = {
            "objects": {str(id): {"category": "o", "frames": names[5 if id == 3 else 0 :: 5]} for id in (1, 2, 3)}
        }
    (home / "valid/meta.json").write_text(json.dumps({"videos": meta}))


def write_plain_vos(home: Path, form: str, listed: bool, length: int = 5) -> None:
    """JPEGImages and Annotations of all frames."""
    names = [f"10{n}_cut" for n in range(2)]
    for n, name in enumerate(names):
        clip = make_clip(name, length, ["o", "o"], n)
        frames = number(12, 12, length, form)
        put_frames(home / "JPEGImages" / name, clip, frames)
        for frame, page in zip(frames, clip.labels, strict=True):
            put_palette(home / "Annotations" / name / f"{frame}.png", page)
    if listed:
        (home / "ImageSets").mkdir()
        (home / "ImageSets/val.txt").write_text("".join(f"{name}\n" for name in names))


def vost(root: Path) -> None:
    write_plain_vos(root / "VOST", "frame{:05d}", True)


def pumavos(root: Path) -> None:
    write_plain_vos(root / "PUMaVOS", "{:07d}", False)


def write_referring(home: Path, detections: Path, truth: bool) -> None:
    """Ref-YouTube-VOS's layout: expressions by video, and soft masks of a model of images for each expression."""
    meta: dict[str, Any] = {}
    for n, name in enumerate(("0390fabe58", "1a72d9fcea")):
        clip = make_clip(name, 5, ["o", "o"], n)
        names = number(0, 1, 5, "{:05d}")
        put_frames(home / "valid/JPEGImages" / name, clip, names)
        for id in clip.labelled:
            for frame, page in zip(names, clip.labels, strict=True):
                soft = np.where(page == id, 230, 20).astype(np.uint8)
                places = [f"{n}/{name}/{id - 1}" for n in range(4)] if truth else [f"{name}/{id - 1}"]
                for place in places:
                    path = detections / place / f"{frame}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(soft).save(path)
                    (path.parent / "scores.json").write_text(
                        json.dumps({f: 0.5 + 0.1 * t for t, f in enumerate(names)})
                    )
        if truth:
            for frame, page in zip(names, clip.labels, strict=True):
                put_palette(home / "valid/Annotations" / name / f"{frame}.png", page)
        exps = {str(id - 1): {"exp": f"the {id}. rectangle", "obj_id": str(id)} for id in clip.labelled}
        meta[name] = {"expressions": exps, "frames": names}
    path = home / "meta_expressions/valid/meta_expressions.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"videos": meta}))


def ref_davis(root: Path) -> None:
    write_referring(root / "ref-davis", root / "detections/ref-davis/referformer", True)


def ref_ytvos(root: Path) -> None:
    write_referring(root / "ref-youtube-vos", root / "detections/ref-ytvos/referformer", False)


STANDINS: Mapping[str, Callable[[Path], None]] = {
    "ytvis19": ytvis19, "ytvis21": ytvis21, "ytvis22": ytvis22, "ovis": ovis, "hq-ytvis": hq_ytvis, "vipseg": vipseg,
    "vipseg-things": vipseg, "vspw": vspw, "burst": burst, "ref-davis": ref_davis, "ref-ytvos": ref_ytvos,
    "davis16": davis16, "davis17": davis17, "davis17-unsupervised": davis17, "sav": sav, "lvosv1": lvosv1,
    "lvosv2": lvosv2, "mosev1": mosev1, "mosev2": mosev2, "ytvos": ytvos, "vost": vost, "pumavos": pumavos,
}  # fmt: skip


if __name__ == "__main__":
    for name in sys.argv[2:] or [n for n in STANDINS if n not in ("vipseg-things", "davis17-unsupervised")]:
        STANDINS[name](Path(sys.argv[1]))
