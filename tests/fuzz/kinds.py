"""The kinds of input: how a bad one is made in a folder, and who reads it. A kind is a generator that makes the input up
to its `yield`, reads and uses it after, and writes nothing but into `place.out`.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from evaluate.vis_sets import random_set
from PIL import Image

from fuzz.mutators import (
    NUMBERS,
    Draw,
    list_evil_names,
    mutate_bytes,
    mutate_header,
    mutate_json,
    mutate_run_lengths,
    mutate_text,
    write_json,
)
from fuzz.samples import LENGTH, SIZE, make_files, make_label_png, make_picture
from masklet.api import check_prompts, load
from masklet.cli.eval import print_report
from masklet.cli.export import export_submission, write_exports
from masklet.cli.settings import parse_settings
from masklet.core.annotations import VideoFrames
from masklet.core.frames import Frame
from masklet.core.image_files import open_image
from masklet.core.memory import load_memory
from masklet.core.result import VideoResult
from masklet.core.rle import Rle, encode_box, encode_polygons
from masklet.evaluate.panoptic.metrics import evaluate_vipseg
from masklet.evaluate.tracking.burst import evaluate_burst
from masklet.evaluate.vis.metrics import evaluate_youtube_vis
from masklet.evaluate.vos.davis import evaluate_davis_semi, find_davis_sequences
from masklet.evaluate.vos.label_maps import read_labels, read_mask_frame
from masklet.evaluate.vos.lvos import evaluate_lvos
from masklet.evaluate.vos.mose import evaluate_mose_v2
from masklet.io.annotations.detections import read_detections
from masklet.io.formats.burst import read_burst
from masklet.io.formats.cocovid import read_cocovid, write_cocovid
from masklet.io.formats.davis import read_davis, read_davis16
from masklet.io.formats.mots import read_mots, read_mots_pngs, write_mots
from masklet.io.formats.panoptic import read_panoptic, write_panoptic
from masklet.io.formats.submission import read_dataset_split
from masklet.io.formats.ytvis import read_ytvis, read_ytvis_split, read_ytvis_truth, write_ytvis_truth
from masklet.io.prompts import read_dataset_prompts, read_prompt_file, read_prompts
from masklet.io.video.datasets import LAYOUTS, list_dataset_videos
from masklet.io.video.images import FramesInMemory
from masklet.io.video.sources import open_video
from masklet.models.segmenters.precomputed import Precomputed
from masklet.weights.format import read_described, read_kind
from masklet.weights.reading import locate_weights, read_network_config, read_tensors

FEW_PIXELS, FEW_FRAMES = 1 << 20, 100  # results up to these are written again in every form


@dataclass(frozen=True)
class Place:
    """Where one input is made and used."""

    root: Path  # all of it, with places to which names may lead
    given: Path  # the input
    out: Path  # the only place that may be written to

    @property
    def names(self) -> list[str]:
        """Names that lead elsewhere."""
        return list_evil_names(self.root)

    def put(self, name: str, data: bytes) -> Path:
        """Writes a file of the input."""
        path = self.given / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def put_folder(self, name: str) -> Path:
        """Writes the files of a good folder."""
        for path, data in make_files().items():
            if path.startswith(name + "/"):
                self.put(path, data)
        return self.given / name

    def damage_one(self, folder: Path, draw: Draw, pattern: str = "*") -> None:
        """Damages one file of a folder."""
        found = sorted(p for p in folder.rglob(pattern) if p.is_file())
        path = found[int(draw.integers(len(found)))]
        path.write_bytes(damage_image(path.read_bytes(), draw))

    def put_json(self, name: str, content: Any, draw: Draw) -> Path:
        """Writes a damaged JSON file."""
        path = self.given / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, mutate_json(content, draw, self.names), draw)
        return path


Kind = Callable[[Draw, Place], Iterator[None]]


def load_sample(name: str) -> Any:
    return json.loads(make_files()[name])


def damage_image(data: bytes, draw: Draw) -> bytes:
    """An image file with other bytes, another size in its header, or a bomb in its place."""
    kind = draw.integers(4)
    if kind == 0:
        return mutate_header(data, draw)
    if kind == 1:
        return make_png(*(int(draw.choice([0, 1, 24, 32, 9000, 20000, 65536, 2**31 - 1])) for _ in range(2)), draw)
    return mutate_bytes(data, draw)


def make_png(width: int, height: int, draw: Draw) -> bytes:
    """A grey PNG that says that it has this size, and packs some other number of black rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, int(draw.choice([1, 8, 16])), 0, 0, 0, 0)
    rows = zlib.compress(bytes(int(draw.choice([0, 792, 10**7]))))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def use_result(result: VideoResult, place: Place) -> None:
    """What is done with a result that could be read: it is shown, saved, read again and written in all forms."""
    assert repr(result)
    result.save(place.out / "again.json")
    assert VideoResult.load(place.out / "again.json") == result
    if result.length <= FEW_FRAMES and result.size[0] * result.size[1] <= FEW_PIXELS:
        for name in (
            "ytvis",
            "cocovid",
            "burst",
            "vipseg",
            "ref",
            "davis16",
            "coco",
            "labelme",
            "label-studio",
            "table",
            *(["davis"] if has_small_ids(result) else []),
        ):
            write_exports(name, [place.out / "again.json"], place.out / name, False)


def has_small_ids(result: VideoResult) -> bool:
    return all(m.id < 256 for m in result.masklets)


# -- results and the forms of data sets


def kind_result(draw: Draw, place: Place) -> Iterator[None]:
    path = place.put_json("masklets.json", load_sample("masklets.json"), draw)
    yield
    use_result(VideoResult.load(path), place)


def kind_submission(draw: Draw, place: Place) -> Iterator[None]:
    path = place.put_json("masklets.json", load_sample("masklets.json"), draw)
    for t in range(LENGTH):
        make_picture(t).save(place.put(f"frames/clip/{t:05d}.png", b""))
    truth = place.put_json("valid.json", load_sample("truth.json"), draw)
    form = str(draw.choice(["mose", "ytvis", "youtube-vos"]))
    yield
    split = None if form == "mose" else truth
    for problem in export_submission(form, [path], place.out / "x.zip", split, place.given / "frames", True, False):
        assert problem


def kind_ytvis_truth(draw: Draw, place: Place) -> Iterator[None]:
    path = place.put_json("truth.json", load_sample("truth.json"), draw)
    yield
    found = read_ytvis_truth(path)
    write_ytvis_truth(found, place.out / "again.json")
    for result in found:
        use_result(result, place)


def kind_ytvis_results(draw: Draw, place: Place) -> Iterator[None]:
    path, split = place.put_json("ytvis.json", load_sample("ytvis.json"), draw), place.given / "split.json"
    write_json(split, load_sample("truth.json"), draw)
    own = bool(draw.integers(2))
    yield
    for result in read_ytvis(path, read_ytvis_split(split) if own else None):
        use_result(result, place)


def kind_cocovid(draw: Draw, place: Place) -> Iterator[None]:
    path = place.put_json("cocovid.json", load_sample("cocovid.json"), draw)
    yield
    found = read_cocovid(path)
    if all(r.length <= FEW_FRAMES for r in found):
        write_cocovid(found, place.out / "again.json")
    for result in found:
        use_result(result, place)


def kind_burst(draw: Draw, place: Place) -> Iterator[None]:
    path = place.put_json("burst.json", load_sample("burst.json"), draw)
    yield
    for result in read_burst(path):
        use_result(result, place)


def kind_panoptic(draw: Draw, place: Place) -> Iterator[None]:
    folder = place.put_folder("panoptic")
    if draw.integers(2):
        place.damage_one(folder, draw, "*.png")
    else:
        place.put_json("panoptic/pred.json", load_sample("panoptic/pred.json"), draw)
    yield
    found = list(read_panoptic(folder / "pred.json", folder / "pan_pred"))
    write_panoptic(found, place.out / "again")


def kind_mots(draw: Draw, place: Place) -> Iterator[None]:
    path = place.put("mots.txt", mutate_text(make_files()["mots.txt"].decode(), draw, place.names))
    yield
    result = read_mots(path, {1: "cat", 2: "dog"})
    if result.length <= FEW_FRAMES and result.size[0] * result.size[1] <= FEW_PIXELS:
        write_mots(result, place.out / "again.txt")


def kind_split(draw: Draw, place: Place) -> Iterator[None]:
    contents = {"a.json": load_sample("truth.json"), "b.json": load_sample("panoptic/pred.json")}
    name = str(draw.choice([*contents, "c.json", "d.txt"]))
    if name == "d.txt":
        path = place.put(name, mutate_text("boat clip kite\nox\n", draw, place.names))
    else:
        path = place.put_json(name, contents.get(name, {"videos": {"boat": {}, "clip": {"objects": {}}}}), draw)
    yield
    read_dataset_split(path)


# -- label images


def kind_davis(draw: Draw, place: Place) -> Iterator[None]:
    name = str(draw.choice(["davis", "davis16", "mots"]))
    folder = place.put_folder(name)
    place.damage_one(folder, draw)
    yield
    read: Mapping[str, Callable[[Path], VideoResult]] = {"davis": read_davis, "davis16": read_davis16}
    result = read_mots_pngs(folder, {1: "cat", 2: "dog"}) if name == "mots" else read[name](folder)
    use_result(result, place)


def kind_image(draw: Draw, place: Place) -> Iterator[None]:
    files = [name for name in make_files() if name.startswith("picture.")]
    name = str(draw.choice([*files, "label.png", "label.png"]))
    data = make_files().get(name, make_label_png())
    path = place.put(name if draw.integers(4) else "picture.png", damage_image(data, draw))
    read = (open_image, read_labels, read_mask_frame)[int(draw.integers(3))]
    yield
    read(path)


# -- evaluation


def kind_eval_vis(draw: Draw, place: Place) -> Iterator[None]:
    truth, found = random_set(int(draw.integers(1000)))
    damaged = bool(draw.integers(2))
    gt = place.put_json("gt.json", truth, draw) if damaged else place.put("gt.json", json.dumps(truth).encode())
    pred = place.put("pred.json", json.dumps(found).encode()) if damaged else place.put_json("pred.json", found, draw)
    yield
    evaluate_youtube_vis(gt, pred).save(place.out / "report.json", "1")


def kind_eval_davis(draw: Draw, place: Place) -> Iterator[None]:
    for side in ("gt/Annotations/480p/clip", "pred/clip"):
        for t in range(LENGTH):
            place.put(f"{side}/{t:05d}.png", make_files()[f"davis/{t:05d}.png"])
    for t in range(LENGTH):
        make_picture(t).save(place.put(f"gt/JPEGImages/480p/clip/{t:05d}.png", b""))
    listed = mutate_text("clip", draw, place.names) if draw.integers(4) == 0 else b"clip\n"
    place.put("gt/ImageSets/2017/val.txt", listed)
    place.damage_one(place.given / str(draw.choice(["gt/Annotations", "pred"])), draw, "*.png")
    yield
    for sequence in find_davis_sequences(place.given / "gt"):
        sequence.truth()
    print_report(evaluate_davis_semi(place.given / "gt", place.given / "pred"), 2)


def kind_eval_panoptic(draw: Draw, place: Place) -> Iterator[None]:
    for name, data in make_files().items():
        if name.startswith("panoptic/"):
            short = name.removeprefix("panoptic/")
            place.put(f"pred/{short}", data)
            place.put(f"gt/{short.replace('pan_pred', 'panomasksRGB').replace('pred.json', 'panoptic_gt.json')}", data)
    if draw.integers(2):
        place.damage_one(place.given, draw, "*.png")
    else:
        place.put_json(
            str(draw.choice(["gt/panoptic_gt.json", "pred/pred.json"])), load_sample("panoptic/pred.json"), draw
        )
    yield
    evaluate_vipseg(place.given / "gt", place.given / "pred").save(place.out / "report.json", "1")


def kind_eval_burst(draw: Draw, place: Place) -> Iterator[None]:
    content = load_sample("burst.json")
    for sequence in content["sequences"]:
        sequence |= {"dataset": "BDD", "neg_category_ids": [], "not_exhaustive_category_ids": []}
        sequence["track_category_ids"] = {"1": 4, "2": 918}
    names = ["all_classes.json", "common_classes.json", "uncommon_classes.json", "pred.json"]
    damaged = str(draw.choice(names))
    for name in names:
        place.put_json(name, content, draw) if name == damaged else place.put(name, json.dumps(content).encode())
    yield
    evaluate_burst(place.given, place.given / "pred.json").save(place.out / "report.json", "1")


def kind_eval_meta(draw: Draw, place: Place) -> Iterator[None]:
    for side in ("gt/Annotations/clip", "pred/clip"):
        for t in range(4):
            place.put(f"{side}/{5 * t:05d}.png", make_files()[f"davis/{t:05d}.png"])
    span = {"frame_range": {"start": "0", "end": "20", "frame_nums": "4"}}
    place.put_json("gt/val_meta.json", {"videos": {"clip": {"objects": {"1": span, "2": span}}}}, draw)
    place.put_json("gt/meta.json", {"videos": {"clip": {"objects": ["1", "2"]}}}, draw)
    lvos = bool(draw.integers(2))
    if lvos:
        (place.given / "gt" / "meta.json").unlink()
    yield
    if lvos:
        evaluate_lvos(place.given / "gt", place.given / "pred", unseen=["clip"])
    else:
        evaluate_mose_v2(place.given / "gt", place.given / "pred")


# -- masks, memories, weights


def kind_rle(draw: Draw, place: Place) -> Iterator[None]:
    pixels = draw.random((int(draw.integers(1, 9)), int(draw.integers(1, 9)))) < 0.5
    good = Rle.encode_pixels(pixels)
    text = mutate_run_lengths(good.counts.decode(), draw)
    size = good.size if draw.integers(4) else tuple(int(draw.choice([-1, 0, 1, 8, 65536, 2**31])) for _ in range(2))
    yield
    try:
        mask = Rle.checked(size, text.encode())
    except ValueError:
        return
    assert mask.decode_pixels().sum() == mask.area and mask.overlap(mask) == mask.area and mask.box


def kind_polygon(draw: Draw, place: Place) -> Iterator[None]:
    size = int(draw.choice([1, 7, 24, 1000, 65535])), int(draw.choice([1, 9, 32, 2000]))
    scale = float(draw.choice([1, 1, 3, 1e3, 1e8, 1e300]))
    shape = [[draw_coordinate(draw, scale) for _ in range(int(draw.choice([4, 5, 6, 8, 50])))] for _ in range(2)]
    counts = [int(v) if v == v and abs(v) < 1e18 else v for v in shape[0]]
    yield
    for encode, given in ((encode_polygons, shape), (encode_box, shape[0]), (Rle.from_counts, counts)):
        try:
            mask = encode(given, size)
        except ValueError:
            continue
        assert mask.size == size and 0 <= mask.area <= size[0] * size[1] and mask.box


def draw_coordinate(draw: Draw, scale: float) -> Any:
    return NUMBERS[int(draw.integers(len(NUMBERS)))] if draw.integers(20) == 0 else float(draw.normal() * 30 * scale)


def kind_memory(draw: Draw, place: Place) -> Iterator[None]:
    data = make_files()["memory"]
    length = struct.unpack("<Q", data[:8])[0]
    if draw.integers(2):  # the text of a file of before there were digests
        header = json.loads(data[8 : 8 + length])
        text = json.loads(header["__metadata__"]["masklet-memory/1"].partition(" ")[2])
        header["__metadata__"]["masklet-memory/1"] = json.dumps(mutate_json(text, draw, place.names))
        new = json.dumps(header).encode()
        data = struct.pack("<Q", len(new)) + new + data[8 + length :]
    else:
        data = mutate_bytes(data, draw)
    path = place.put("memory", data)
    yield
    load_memory(path)


def kind_weights(draw: Draw, place: Place) -> Iterator[None]:
    name = str(draw.choice(["described.safetensors", "plain.safetensors", "weights.pt", "older.pth", "config.json"]))
    if name == "config.json":
        path = place.put_json(name, load_sample(name), draw)
    else:
        path = place.put(name, (mutate_bytes, mutate_header)[int(draw.integers(2))](make_files()[name], draw))
    yield
    if name == "config.json":
        read_network_config(path)
        return
    locate_weights(path)
    if name == "described.safetensors":
        read_kind(path)
        read_described(path, "toy", "a toy")
    read_tensors(path)


# -- what users type


def kind_settings(draw: Draw, place: Place) -> Iterator[None]:
    texts = [
        mutate_text(str(draw.choice(["conf= 0.5", "low-conf= 0.3", "propagator.learning= 0.1"])), draw, place.names)
        for _ in range(int(draw.integers(1, 3)))
    ]
    pairs = [t.decode(errors="surrogateescape").replace("= ", "=") for t in texts]
    yield
    load("sam2bmp", segmenter="motion", propagator="affinity", device="cpu", **parse_settings(pairs))


class Clip:
    """As much of a video as prompts are checked against."""

    name, size, rate, damage = "clip", SIZE, 25.0, None

    def __len__(self) -> int:
        return LENGTH

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.read(0, LENGTH))

    def read(self, start: int, stop: int) -> list[Frame]:
        return [Frame(t, np.zeros((*SIZE, 3), np.uint8)) for t in range(start, stop)]


def kind_prompts(draw: Draw, place: Place) -> Iterator[None]:
    mask = place.put("mask.png", damage_image(make_files()["davis/00000.png"], draw))
    texts = []
    for what in draw.permutation(["box= 1 , 2 , 9 , 12", "point= 5 , 6", str(mask)])[: int(draw.integers(1, 3))]:
        text = mutate_text(f"0 : {1 + len(texts)} : {what}", draw, place.names).decode(errors="surrogateescape")
        texts.append(text.replace(" ", ""))
    yield
    video: Any = Clip()
    check_prompts(read_prompts(texts), video)


def kind_prompt_file(draw: Draw, place: Place) -> Iterator[None]:
    place.put(
        "davis.png",
        damage_image(make_files()["davis/00000.png"], draw)
        if draw.integers(4) == 0
        else make_files()["davis/00000.png"],
    )
    entries = [
        {"frame": 0, "id": 1, "box": [1, 2, 9, 12]},
        {"file": "00001.jpg", "id": 2, "points": [[5, 6]], "outside": [[1, 1]]},
        {"frame": 3, "labels": "davis.png"},
        {"frame": 2, "id": 1, "mask": "davis.png"},
    ]
    path = place.put_json("prompts.json", entries if draw.integers(2) else {"clip": entries}, draw)
    yield
    names = tuple(f"{t:05d}" for t in range(LENGTH))
    video: Any = Clip()
    check_prompts(read_prompt_file(path).select(VideoFrames("clip", LENGTH, names)), video)


def kind_detections(draw: Draw, place: Place) -> Iterator[None]:
    yield from use_detections(place.put_json("found.json", make_coco_detections(), draw))


def kind_detection_files(draw: Draw, place: Place) -> Iterator[None]:
    """The other forms in which detections come: of results, of label images, of drawing programs, of detectors."""
    names = [
        "masklets.json",
        "ytvis.json",
        "truth.json",
        "cocovid.json",
        "burst.json",
        "labelme.json",
        "mots.txt",
        "txt",
    ]
    name = str(draw.choice([*names, "davis", "panoptic", "deva"]))
    if name == "labelme.json":
        shapes = [{"label": "cat", "points": [[1, 2], [20, 2], [20, 12]], "shape_type": "polygon"}]
        shapes.append({"label": "dog", "points": [[5, 5], [9, 9]], "shape_type": "circle"})
        path = place.put_json(name, {"shapes": shapes, "imagePath": "00000.png"}, draw)
    elif name.endswith(".json"):
        path = place.put_json(name, load_sample(name), draw)
    elif name.endswith("txt"):
        text = (
            make_files()["mots.txt"].decode()
            if name == "mots.txt"
            else "0 0.5 0.5 0.2 0.3 0.9\n1 0.1 0.1 0.6 0.1 0.3 0.8\n"
        )
        file = place.put("mots.txt" if name == "mots.txt" else "txt/00000.txt", mutate_text(text, draw, place.names))
        path = file if name == "mots.txt" else file.parent
    else:
        path = place.put_folder("panoptic" if name == "panoptic" else "davis")
        if name == "deva":
            segments = [{"id": id, "category_id": id, "score": 0.5} for id in (1, 2)]
            place.put_json("davis/00000.json", {"segments_info": segments}, draw)
        else:
            place.damage_one(path, draw)
    yield from use_detections(path)


def kind_array_masks(draw: Draw, place: Place) -> Iterator[None]:
    """Arrays of masks in npz files, of any kind and shape, in damaged archives, and what says that images are masks."""
    count, kinds = int(draw.choice([0, 1, 3])), ["?", "u1", "u2", "i8", "f2", "f8", "c8", "U3", "O"]
    shape = [(count, *SIZE), (*SIZE,), (count, SIZE[0], 1 << 20), (0, 0, 0)][int(draw.integers(3)) if count else 3]
    masks = np.broadcast_to(np.asarray(draw.choice(NUMBERS[:4])).astype(str(draw.choice(kinds))), shape)
    masks = masks if draw.random() < 0.5 else draw.random((count, *SIZE)) < 0.5
    arrays = {"masks": masks if masks.size < 1 << 22 else masks[:, :1], "scores": draw.random(count) * 1.05}
    arrays |= {"labels": draw.integers(-1, 3, count), "categories": np.array(place.names[:3])}
    kept = {key: value for key, value in arrays.items() if draw.random() < 0.9}
    file = BytesIO()
    np.savez_compressed(file, **kept)
    place.put("masks/0.npz", mutate_bytes(file.getvalue(), draw) if draw.random() < 0.5 else file.getvalue())
    if draw.random() < 0.3:
        Image.fromarray(draw.integers(0, 255, SIZE, np.uint8)).save(place.put("masks/0.png", b""))
        place.put_json("masks/values.json", {"values": "probabilities"}, draw)
    yield from use_detections(place.given / "masks")


def kind_datasets(draw: Draw, place: Place) -> Iterator[None]:
    """Roots of data sets with odd names, lists and first annotations."""
    dataset = str(draw.choice(list(LAYOUTS)))
    frames, *_ = (place.format("val").replace("*", "x") for place in LAYOUTS[dataset].frames)
    annotations = next(iter(LAYOUTS[dataset].annotations), "Annotations")
    for name in ("a", "b"):
        make_picture().save(place.put(f"{frames}/{name}/00000.png", b""))
        label = make_label_png() if draw.random() < 0.5 else damage_image(make_label_png(), draw)
        place.put(f"{annotations}/{name}/{'000/' if dataset == 'sav' else ''}00000.png", label)
    names = ["a", "b", *(name for name in draw.choice(place.names, 2) if draw.random() < 0.3)]
    text = "\n".join(names).encode(errors="surrogatepass")
    for list_ in ("ImageSets/2017/val.txt", "sav_val.txt", "val.txt"):
        place.put(list_, mutate_bytes(text, draw) if draw.random() < 0.3 else text)
    yield
    for video in list_dataset_videos(f"{dataset}:{place.names[0]}" if draw.random() < 0.2 else dataset, place.given):
        if video.given:
            read_dataset_prompts(video).select(VideoFrames("a", 1, ["00000"]))


def kind_annotation_tools(draw: Draw, place: Place) -> Iterator[None]:
    """CVAT's XML, Label Studio's tasks, MOTChallenge's lines, webdataset's tars."""
    names = ["cvat-images/annotations.xml", "cvat-video/clip/annotations.xml", "mot/clip.txt", "webdataset/000000.tar"]
    name = str(draw.choice([*names, "label-studio/tasks.json"]))
    if name.endswith(".json"):
        path = place.put_json(name, load_sample(name), draw)
    elif name.endswith(".tar"):
        path = place.put(name, mutate_bytes(make_files()[name], draw))
    else:
        path = place.put(name, mutate_text(make_files()[name].decode(), draw, place.names))
    yield from use_detections(path)


def make_coco_detections() -> dict[str, Any]:
    masks = [row[5] for m in load_sample("masklets.json")["masklets"] for row in m["sightings"]]
    rows: list[dict[str, Any]] = [
        {"frame": n % LENGTH, "category_id": 1, "score": 0.9, "segmentation": {"size": list(SIZE), "counts": counts}}
        for n, counts in enumerate(masks)
    ]
    rows[0]["segmentation"] = [[1.0, 2.0, 20.0, 2.0, 20.0, 12.0]]
    rows[1] = {"frame": 1, "category_id": 1, "score": 0.9, "bbox": [2.0, 3.0, 9.0, 9.0]}
    return {"annotations": rows, "categories": [{"id": 1, "name": "cat"}]}


def use_detections(path: Path) -> Iterator[None]:
    yield
    frames = [Frame(t, np.zeros((*SIZE, 3), np.uint8)) for t in range(LENGTH)]
    for entry in (found := read_detections(path)).entries:
        for one in entry.read(SIZE):
            assert one.mask is None or one.mask.size == SIZE
    bound = Precomputed(found).bind_video(FramesInMemory(frames, "clip"))
    for detections in bound.segment(None, frames, [])[0]:
        assert len(detections.scores) == len(detections.masks)


# -- videos


def kind_video(draw: Draw, place: Place) -> Iterator[None]:
    files = [name for name in make_files() if name.startswith("clip.")]
    name = str(draw.choice(files))
    path = place.put(name, mutate_bytes(make_files()[name], draw))
    yield
    read_frames(path)


def kind_frames(draw: Draw, place: Place) -> Iterator[None]:
    suffix = str(draw.choice(["png", "jpg", "webp", "tif", "bmp"]))
    for t in range(3):
        make_picture(t).save(place.put(f"frames/{t}.{suffix}", b""))
    place.damage_one(place.given / "frames", draw)
    yield
    read_frames(place.given / "frames")


def read_frames(source: Path) -> None:
    with open_video(source) as video:
        for frame in video:
            assert frame.size == video.size
        video.read(1, 3)


KINDS: Mapping[str, Kind] = {
    name.removeprefix("kind_").replace("_", "-"): kind for name, kind in globals().items() if name.startswith("kind_")
}
OTHERS = ("video", "frames")  # of io/video, which has its own tests of damage
