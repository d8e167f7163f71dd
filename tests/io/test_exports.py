"""Saved results in the forms of other tools: what is written, and what comes back."""

from __future__ import annotations

import csv
import json
import sys
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree as Xml

import cv2
import numpy as np
import pytest
from forms import bits, drafts, made, masklet, video
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from masklet.builtins import EXPORTS, FORMATS
from masklet.core.annotations import FrameMatcher, VideoFrames
from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.result import VideoResult
from masklet.core.rle import Rle, encode_polygons, paint_mask_numbers
from masklet.core.tracks import Masklet
from masklet.exports import export_results
from masklet.io.annotations.detections import read_detections
from masklet.io.exports.exported_results import ExportedResults
from masklet.io.exports.label_studio import decode_brush, encode_brush
from masklet.io.exports.voxel51 import build_dataset
from masklet.io.video.sources import open_video

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text()
ROWS = {
    row[0].strip("` "): [cell.strip() for cell in row[1:]]
    for line in PAGE.splitlines()
    if line.startswith("| `") and len(row := line.strip("|").split("|")) == 6
}
READ = sorted(form for form, row in ROWS.items() if row[4] != "not read back")
FRAMES = 3


def read_back(path: Path, result: VideoResult, names: Sequence[str] | None = None) -> list[list[tuple[Any, ...]]]:
    """What a file says of each frame: name, score, and run lengths or box, sorted."""
    found = read_detections(path)
    matcher = FrameMatcher("file", found.listed, VideoFrames(result.name, result.length, names))
    frames: list[list[tuple[Any, ...]]] = [[] for _ in range(result.length)]
    for t, places in matcher.group(e.place for e in found.entries).items():
        for n in places:
            for one in found.entries[n].read(result.size):
                what = one.mask.counts if one.mask else tuple(round(v, 6) for v in one.box or ())
                frames[t].append((found.categories[one.label], round(one.score, 5), what))
    return [sorted(frame) for frame in frames]


def expect(result: VideoResult, row: Sequence[str]) -> list[list[tuple[Any, ...]]]:
    """The result as a form of this row of the table holds it."""
    masks, overlap, names, scores, _ = row
    frames = []
    for t in range(result.length):
        seen = result.at(t)
        shapes = [s.mask for _, s in seen]
        if overlap == "lost":
            numbers = paint_mask_numbers(shapes, result.size)
            shapes = [Rle.encode_pixels(numbers == n) for n in range(1, len(shapes) + 1)]
        rows = []
        for (m, _), shape in zip(seen, shapes, strict=True):
            x0, y0, x1, y1 = shape.box
            what = shape.counts if masks == "kept" else (x0, y0, x1 - x0, y1 - y0)
            if shape.area:
                rows.append((call(result, m, names), round(m.score, 5) if scores == "kept" else 1.0, what))
        frames.append(sorted(rows))
    return frames


def call(result: VideoResult, m: Masklet, names: str) -> str:
    order = list(dict.fromkeys([*result.categories, *map(result.name_of, result.masklets)]))
    called = {
        "kept": result.name_of(m),
        "ids": f"{m.id:03d}",
        "numbers from 0": str(order.index(result.name_of(m))),
        "lost": "object",
    }
    return called[names]


@dataclass
class Noise:
    """A video of noise."""

    size: tuple[int, int]
    length: int
    name: str = "noise"
    rate: float = 25.0
    damage: str | None = None

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Frame]:
        return iter(self.read(0, self.length))

    def read(self, start: int, stop: int) -> list[Frame]:
        return [
            Frame(t, np.random.default_rng(t).integers(0, 256, (*self.size, 3), np.uint8), t / 25)
            for t in range(start, stop)
        ]


def test_every_export_has_a_row() -> None:
    assert set(ROWS) == set(EXPORTS.names) - {"toyexport"}


CORNERS = (
    "clip",
    (4, 4),
    2,
    [(7, {0: np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]], bool)}, 1, 0.5, True)],
)


@pytest.mark.parametrize("form", READ)
@given(draft=drafts("clip", st.integers(1, 254)))
@example(draft=CORNERS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_exported_comes_back_as_detections(form: str, draft: Any, tmp_path_factory: Any) -> None:
    if form == "hf":
        pytest.importorskip("pyarrow")
    result, out = made(draft), tmp_path_factory.mktemp("form") / "out"
    if form == "rgba-video" and min(result.size) < 2:
        return  # which is refused
    result.export(form, out, frames=Noise(result.size, result.length) if "rgba" in form else None)
    path = out / ROWS[form][4].strip("`").replace("clip", result.name)
    if not result.masklets and not path.exists():
        return  # a folder for each object of none
    assert read_back(path, result) == expect(result, ROWS[form])


@pytest.mark.parametrize("form", READ)
def test_a_video_in_a_set_comes_back(form: str, tmp_path: Path) -> None:
    """Of one called set/clip, beside others in the same and in no set where the form's file is of all."""
    if form == "hf":
        pytest.importorskip("pyarrow")
    one = video(masklet(3, {0: "110 000"}, 0), masklet(7, {0: "001 001"}, 1), name="set/clip")
    others = [video(masklet(5, {1: "100 000"}), name=name) for name in ("set/b", "clip2")]
    frames = {r.name: Noise(r.size, r.length) for r in (one, *others)} if "rgba" in form else None
    out = export_results([one, *others], form, tmp_path / "out", frames)
    path = out / ROWS[form][4].strip("`").replace("clip", one.name)
    back = [[what[:2] for what in frame] for frame in read_back(path, one)]
    assert back == [[what[:2] for what in frame] for frame in expect(one, ROWS[form])]


@pytest.mark.parametrize("form", [form for form in READ if ROWS[form][2] == "kept"])
def test_a_category_without_a_name_comes_back_as_object(form: str, tmp_path: Path) -> None:
    if form == "hf":
        pytest.importorskip("pyarrow")
    result = video(masklet(3, {0: "110 000"}, 0), masklet(7, {0: "001 001"}, 1), categories=("", "dog"))
    path = result.export(form, tmp_path / "out") / ROWS[form][4].strip("`")
    assert [name for name, *_ in read_back(path, result)[0]] == ["dog", "object"]


@pytest.mark.parametrize("form", ["sav", "rgba", "rgba-video"])
def test_objects_of_long_ids_come_back_as_objects(form: str, tmp_path: Path) -> None:
    """Their folders are of no videos: beside shorter ones, and alone where it is said what they hold."""
    long, short = masklet(1000, {0: "110 000", 1: "010 000"}), masklet(7, {1: "001 001"}, 1)
    for n, objects in enumerate([(short, long), *([] if form == "sav" else [(long,)])]):
        result = video(*objects)
        frames = Noise(result.size, result.length) if "rgba" in form else None
        out = result.export(form, tmp_path / str(n), frames=frames)
        path = out / ROWS[form][4].strip("`")
        back = [[name for name, *_ in frame] for frame in read_back(path, result)]
        assert back == [[name for name, *_ in frame] for frame in expect(result, ROWS[form])]


@pytest.mark.parametrize("form", ["cvat-images", "coco"])
@given(draft=drafts("clip", st.integers(1, 254)))
@example(draft=CORNERS)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_polygons_come_back_as_the_same_masks(form: str, draft: Any, tmp_path_factory: Any) -> None:
    """Whatever their parts and holes."""
    result = made(draft)
    out = result.export(
        form,
        tmp_path_factory.mktemp("form") / "out",
        **({"polygons": True} if form == "coco" else {"shape": "polygon"}),
    )
    path = out / ROWS[form][4].strip("`")
    assert read_back(path, result) == expect(result, ROWS[form])


def clip(tmp_path: Path, names: Sequence[str], size: tuple[int, int]) -> Path:
    """A folder of noise."""
    folder = tmp_path / "clip"
    folder.mkdir(parents=True)
    for n, name in enumerate(names):
        noise = np.random.default_rng(n).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{name}.png")
    return folder


def look_at(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def example_result() -> VideoResult:
    """A ring that moves, and a square that is hidden in frame 1."""
    ring = ["11100 10100 11100 00000", "01110 01010 01110 00000", "00111 00101 00111 00000"]
    square = "00000 00000 00011 00011"
    one = masklet(3, dict(enumerate(ring)), 0, 0.5)
    return video(one, masklet(12, {0: square, 2: square}, 1, 0.25), size=(4, 5), categories=("cat", "red car"))


NAMES = ("img_4", "img_5", "img_6")


@pytest.mark.parametrize("form", [*FORMATS.builtins, *EXPORTS.builtins], ids=lambda entry: entry.name)
def test_images_lie_where_the_form_says(form: Any, tmp_path: Path) -> None:
    """And are those of the video, found by the names that the form has for them."""
    if form.name in ("hf", "fiftyone"):
        pytest.importorskip({"hf": "pyarrow"}.get(form.name, form.name))
    result, frames = example_result(), clip(tmp_path, NAMES, (4, 5))
    out = result.export(form.name, tmp_path / "out", frames=str(frames))
    assert {p.stem for p in out.rglob("*.png")} <= set(NAMES)
    images = sorted(out.rglob("*.jpg"))
    if form.name in ("rgba", "rgba-video", "overlay", "table", "webdataset", "hf", "label-studio-video"):
        assert not images
        return
    stems = ("000001", "000002", "000003") if form.name == "mot" else NAMES
    assert [p.name for p in images] == [f"{stem}.jpg" for stem in stems]
    shown = look_at(images[0]).astype(int)
    assert np.abs(shown - look_at(frames / "img_4.png")).mean() < 12  # as good as JPEG is on noise


@pytest.mark.parametrize(
    ("form", "place"),
    [
        ("coco", lambda out: [i["file_name"] for i in json.loads((out / "annotations.json").read_text())["images"]]),
        ("cvat-images", lambda out: [i.get("name") for i in Xml.parse(out / "annotations.xml").iter("image")]),
        (
            "label-studio",
            lambda out: [t["data"]["image"].split("images/")[1] for t in json.loads((out / "tasks.json").read_text())],
        ),
        ("ytvis-set", lambda out: json.loads((out / "instances.json").read_text())["videos"][0]["file_names"]),
    ],
)
def test_names_of_images_lead_to_the_files(form: str, place: Any, tmp_path: Path) -> None:
    out = example_result().export(form, tmp_path / "out", frames=str(clip(tmp_path, NAMES, (4, 5))))
    assert place(out) == [f"clip/{n}.jpg" for n in NAMES]
    assert all((out / "images" / name).is_file() for name in place(out))
    back = read_back(
        next(p for p in out.iterdir() if p.suffix in (".json", ".xml") and p.name != "config.xml"),
        example_result(),
        NAMES,
    )
    assert [len(frame) for frame in back] == [2, 1, 2]


def test_frames_are_called_as_in_the_folder_that_a_result_was_made_from(tmp_path: Path) -> None:
    """As `masklet run --format` calls them, also where the video is not given once more."""
    folder, result = clip(tmp_path, NAMES, (4, 5)), example_result()
    result = replace(result, provenance=replace(result.provenance, source=str(folder)))
    assert {p.stem for p in result.export("davis", tmp_path / "davis").rglob("*.png")} == set(NAMES)
    (folder / "img_6.png").unlink()  # another folder now
    assert {p.stem for p in result.export("davis", tmp_path / "other").rglob("*.png")} == {"00000", "00001", "00002"}


def test_coco_with_polygons_is_drawn_by_pycocotools_to_the_pixel(tmp_path: Path, capsys: Any) -> None:
    from pycocotools.coco import COCO

    result = example_result()
    out = result.export("coco", tmp_path / "out", polygons=True)
    coco = COCO(str(out / "annotations.json"))
    drawn = {(a["track_id"], a["image_id"] - 1): coco.annToMask(a) for a in coco.anns.values()}
    assert sorted(drawn) == [(3, 0), (3, 1), (3, 2), (12, 0), (12, 2)]
    for (id, t), mask in drawn.items():
        m = next(m for m in result.masklets if m.id == id)
        assert (mask.astype(bool) == m.sightings[t].mask.decode_pixels()).all()
    one = coco.anns[1]
    assert (one["area"], one["bbox"], one["score"], one["iscrowd"]) == (8, [0, 0, 3, 3], 0.5, 0)
    assert [c["name"] for c in coco.cats.values()] == ["cat", "red car"]


def test_cvat_of_a_video(tmp_path: Path) -> None:
    out = example_result().export("cvat-video", tmp_path / "out")
    top = Xml.parse(out / "clip" / "annotations.xml").getroot()
    car = top.findall("track")[1]
    assert (car.get("id"), car.get("label")) == ("12", "red car")
    told = [(m.get("frame"), m.get("outside")) for m in car]
    assert told == [("0", "0"), ("1", "1"), ("2", "0")]
    assert dict(car[0].attrib) == {
        "frame": "0", "keyframe": "1", "outside": "0", "occluded": "0", "z_order": "0", "points": "3,2;5,2;5,4;3,4",
    }  # fmt: skip
    assert [label.findtext("name") for label in top.iter("label")] == ["cat", "red car"]
    coarse = example_result().export("cvat-images", tmp_path / "c", shape="polygon", tolerance=9.0)
    shapes = list(Xml.parse(coarse / "annotations.xml").iter("polygon"))
    assert (len(shapes), shapes[1].get("points")) == (5, "3,2;5,2;5,4;3,4")  # of which nothing else would be left
    assert top[2][0].get("points") == "0,0;1,1;2,1;2,2;1,2;1,1;0,0;3,0;3,3;0,3"
    boxes = example_result().export("cvat-video", tmp_path / "b", shape="box")
    assert Xml.parse(boxes / "clip" / "annotations.xml").getroot()[3][0].get("xbr") == "5"


def test_label_studio_s_brush_masks(tmp_path: Path) -> None:
    # Two pixels, by hand: 8 values of 8 bits; sizes of lengths 4, 8, 12 and 16; four of 0, then four of 255.
    head = f"{8:032b}" + f"{7:05b}" + f"{3:04b}{7:04b}{11:04b}{15:04b}"
    body = "1" + "00" + f"{3:04b}" + "00000000" + "1" + "00" + f"{3:04b}" + "11111111"
    by_hand = (head + body).ljust(-(-len(head + body) // 8) * 8, "0")
    assert encode_brush(np.array([[False, True]])) == [int(by_hand[n : n + 8], 2) for n in range(0, len(by_hand), 8)]
    large = np.zeros((300, 400), bool)
    large[7:290, 3:] = True
    assert (decode_brush(encode_brush(large), large.shape) == large).all()
    out = example_result().export("label-studio", tmp_path / "out", prefix="https://here/")
    task = json.loads((out / "tasks.json").read_text())[1]
    [answer] = task["annotations"][0]["result"]
    assert task["data"] == {"image": "https://here/images/clip/00001.jpg", "video": "clip", "frame": 1}
    assert answer["value"]["brushlabels"] == ["cat"] and (answer["original_width"], answer["original_height"]) == (5, 4)
    assert '<Label value="red car"/>' in (out / "config.xml").read_text()


@given(draft=drafts())
@settings(max_examples=30)
def test_brush_masks_round_trip(draft: Any) -> None:
    for m in made(draft).masklets:
        for s in m.sightings.values():
            pixels = s.mask.decode_pixels()
            assert (decode_brush(encode_brush(pixels), pixels.shape) == pixels).all()


def test_label_studio_s_boxes_of_videos(tmp_path: Path) -> None:
    out = example_result().export("label-studio-video", tmp_path / "out")
    [task] = json.loads((out / "tasks.json").read_text())
    value = task["annotations"][0]["result"][1]["value"]
    assert value["framesCount"] == 3 and value["duration"] == pytest.approx(3 / 25)
    assert value["sequence"] == [
        {"frame": 1, "time": 0.0, "enabled": False, "rotation": 0, "x": 60.0, "y": 50.0, "width": 40.0, "height": 50.0},
        {
            "frame": 3,
            "time": 0.08,
            "enabled": False,
            "rotation": 0,
            "x": 60.0,
            "y": 50.0,
            "width": 40.0,
            "height": 50.0,
        },
    ]
    value["sequence"][0]["enabled"] = True  # as somebody draws two key frames
    value["sequence"][1]["x"] = 20.0
    (out / "tasks.json").write_text(json.dumps([task]))
    assert read_back(out / "tasks.json", example_result())[1] == [
        ("cat", 1.0, (1.0, 0.0, 3.0, 3.0)),
        ("red car", 1.0, (2.0, 2.0, 2.0, 2.0)),
    ]


def test_labelme(tmp_path: Path) -> None:
    parts = video(masklet(5, {0: "101"}, 0), size=(1, 3), length=1)
    out = parts.export("labelme", tmp_path / "out")
    page = json.loads((out / "clip" / "00000.json").read_text())
    assert [s["points"] for s in page["shapes"]] == [[[0, 0], [1, 0], [1, 1], [0, 1]], [[2, 0], [3, 0], [3, 1], [2, 1]]]
    assert {(s["group_id"], s["label"], s["shape_type"]) for s in page["shapes"]} == {(5, "cat", "polygon")}
    assert (page["imagePath"], page["imageHeight"], page["imageWidth"]) == ("00000.jpg", 1, 3)


def test_ultralytics(tmp_path: Path) -> None:
    out = example_result().export("ultralytics", tmp_path / "out", split="val")
    lines = (out / "labels" / "val" / "clip" / "00002.txt").read_text().splitlines()
    assert lines[1] == "1 0.6 0.5 1 0.5 1 1 0.6 1"
    assert lines[0].split()[0] == "0" and len(lines[0].split()) == 1 + 2 * 10
    told = (out / "data.yaml").read_text()
    assert told == 'train: "images/val"\nval: "images/val"\nnames:\n  0: "cat"\n  1: "red car"\n'


def test_mot(tmp_path: Path) -> None:
    out = example_result().export("mot", tmp_path / "out")
    assert (out / "clip.txt").read_text().splitlines()[1:3] == [
        "1,12,4,3,2,2,0.25,-1,-1,-1",
        "2,3,2,1,3,3,0.5,-1,-1,-1",
    ]


def test_pascal_voc(tmp_path: Path) -> None:
    out = example_result().export("voc", tmp_path / "out")
    objects = look_at(out / "SegmentationObject" / "clip" / "00000.png")
    classes = look_at(out / "SegmentationClass" / "clip" / "00000.png")
    assert objects.tolist()[2] == [3, 3, 3, 12, 12] and classes.tolist()[2] == [1, 1, 1, 2, 2]
    assert (out / "ImageSets" / "Segmentation" / "train.txt").read_text() == "clip/00000\nclip/00001\nclip/00002\n"
    assert "red car:0,128,0::" in (out / "labelmap.txt").read_text()
    with pytest.raises(InputError, match="255"):
        video(masklet(255, {0: "1"}), size=(1, 1), length=1).export("voc", tmp_path / "no")


def test_sa_v_is_scored_by_its_own_metric(tmp_path: Path) -> None:
    from masklet.evaluate.vos.sav import evaluate_sav

    box = np.zeros((40, 40), bool)
    box[10:30, 10:30] = True
    mask = Rle.encode_pixels(box)
    one = masklet(1, {})
    seen = {t: replace(masklet(1, {0: "1"}).sightings[0], mask=mask) for t in range(4)}
    result = video(replace(one, sightings=seen), size=(40, 40), length=4)
    out = result.export("sav", tmp_path / "out")
    assert (out / "masks" / "clip" / "001" / "00003.png").is_file()
    assert evaluate_sav(out / "masks", out / "masks").scores["J&F"] == pytest.approx(100)


def test_cut_outs(tmp_path: Path) -> None:
    frames = clip(tmp_path, NAMES, (4, 5))
    out = example_result().export("rgba", tmp_path / "out", frames=str(frames))
    assert sorted(p.name for p in (out / "clip" / "012").glob("*.png")) == ["img_4.png", "img_6.png"]
    cut, shown = (look_at(p) for p in (out / "clip" / "012" / "img_4.png", frames / "img_4.png"))
    assert (cut[..., 3] == 255 * bits("00000 00000 00011 00011").decode_pixels()).all()
    assert (cut[2:, 3:, :3] == shown[2:, 3:]).all() and not cut[:2].any()
    small = example_result().export("rgba", tmp_path / "small", frames=str(frames), crop=True)
    assert look_at(small / "clip" / "012" / "img_4.png").shape == (2, 2, 4)


@pytest.mark.parametrize("codec", ["prores", "qtrle", "vp9"])
def test_cut_outs_as_videos(codec: str, tmp_path: Path) -> None:
    """A disc that moves and is not there in one frame, as long and as large as the video, sides odd, times its own."""
    y, x = np.mgrid[:45, :65]
    discs = {t: (y - 20) ** 2 + (x - 20 - 9 * t) ** 2 < 200 for t in (0, 2)}
    base = masklet(1, {0: "1"}).sightings[0]
    seen = {t: replace(base, mask=Rle.encode_pixels(disc)) for t, disc in discs.items()}
    times = (0.0, 0.1, 0.3)
    result = replace(video(replace(masklet(5, {}), sightings=seen), size=(45, 65)), times=times)
    smooth = Noise((45, 65), 3)
    smooth.read = lambda a, b: [
        Frame(t, np.dstack([x * 3, y * 4, x + y]).astype(np.uint8), t / 25) for t in range(a, b)
    ]
    out = result.export("rgba-video", tmp_path / "out", frames=smooth, codec=codec)
    [path] = (out / "clip").iterdir()
    assert path.name == ("005.webm" if codec == "vp9" else "005.mov")
    assert [len(frame) for frame in read_back(out / "clip", result)] == [1, 0, 1]
    assert read_back(path, result) == expect(result, ROWS["rgba-video"])
    shown = open_video(path)
    frames = list(shown)
    assert np.diff([f.time for f in frames]).tolist() == pytest.approx([0.1, 0.2], abs=0.002)
    colour = frames[2].image[20, 30:48].astype(int) - np.dstack([x * 3, y * 4, x + y])[20, 30:48]
    assert np.abs(colour).mean() < (8 if codec == "vp9" else 3)


def test_cut_outs_that_cannot_be_read(tmp_path: Path) -> None:
    frames = clip(tmp_path, NAMES, (4, 5))
    small = example_result().export("rgba", tmp_path / "small", frames=str(frames), crop=True)
    with pytest.raises(InputError, match="the labels are 3x3, the video 5x4"):
        read_back(small / "clip", example_result(), NAMES)
    Image.new("RGB", (5, 4)).save(small / "clip" / "003" / "img_4.png")
    with pytest.raises(InputError, match="mode RGB, whose transparency is to count; give an RGBA image"):
        read_back(small / "clip", example_result(), NAMES)
    with pytest.raises(InputError, match="too small for a video; take rgba"):
        video(size=(1, 5)).export("rgba-video", tmp_path / "no", frames=Noise((1, 5), 3))
    film = example_result().export("overlay", tmp_path / "film", frames=str(frames))
    (film / "clip.mp4").rename(film / "clip.mov")
    with pytest.raises(InputError, match="a video without transparency; give one of an object that is cut out"):
        read_back(film / "clip.mov", example_result())
    cut = example_result().export("rgba-video", tmp_path / "cut", frames=str(frames))
    [path, _] = sorted((cut / "clip").iterdir())
    for n, data in enumerate((b"", b"no video", path.read_bytes()[: path.stat().st_size // 2])):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"003\.mov: (the file is empty|not a video that can be read|damaged)"):
            read_back(path, example_result())
    with pytest.raises(InputError, match="codec = 'x' must be one of prores, qtrle, vp9"):
        example_result().export("rgba-video", tmp_path / "x", frames=str(frames), codec="x")


def test_overlay(tmp_path: Path) -> None:
    frames = tmp_path / "clip"
    frames.mkdir()
    for n in range(3):
        Image.fromarray(np.full((48, 64, 3), 100, np.uint8)).save(frames / f"{n}.png")
    mask = np.zeros((48, 64), bool)
    mask[10:40, 10:40] = True
    seen = {t: replace(masklet(1, {0: "1"}).sightings[0], mask=Rle.encode_pixels(mask)) for t in range(3)}
    result = video(replace(masklet(1, {}), sightings=seen), replace(masklet(2, {}), sightings=seen), size=(48, 64))

    def look(**settings: Any) -> np.ndarray:
        out = result.export("overlay", tmp_path / "out", frames=str(frames), overwrite=True, **settings)
        video = open_video(out / "clip.mp4")
        [first, *rest] = list(video)
        assert len(rest) == 2
        assert video.rate == settings.get("fps", 25)
        return first.image.astype(int)

    plain = dict(labels=False, contours=False)
    assert look(side_by_side=True, fps=5.0).shape == (48, 128, 3)
    # The orange of object 1 alone: 0.5 * (255, 102, 0) + 0.5 * 100, within what the video's coding changes.
    assert np.abs(look(opacity=0.5, only="1", **plain)[25, 25] - (178, 101, 50)).max() < 12
    assert np.abs(look(opacity=0.0, **plain) - 100).max() < 6
    assert np.abs(look(opacity=0.0, labels=False)[5:45, 5:45] - 100).max() > 30  # contours
    assert np.abs(look(opacity=0.0, **plain, numbers=True)[:10, :20] - 100).mean() > 50
    assert np.abs(look(opacity=0.0, **plain, legend=True)[-10:, :20] - 100).mean() > 50
    assert np.abs(look(opacity=0.0, **plain, trails=2)[22:28, 22:28] - 100).mean() > 50  # a dot where it is
    sizes = []
    for crf in (0, 51):
        look(labels=True, crf=crf)
        sizes.append((tmp_path / "out" / "clip.mp4").stat().st_size)
    assert sizes[0] > 1.5 * sizes[1]
    for words, wrong in (
        ("overlay.only", {"only": "7"}),
        ("overlay.only", {"only": "x"}),
        ("overlay.only", {"only": "0"}),
        ("0 to 1", {"opacity": 2.0}),
        ("overlay.crf = 52", {"crf": 52}),
    ):
        with pytest.raises(InputError, match=words):
            look(**wrong)


def test_webdataset(tmp_path: Path) -> None:
    frames = clip(tmp_path, NAMES, (4, 5))
    for name in ("out", "again"):
        example_result().export("webdataset", tmp_path / name, frames=str(frames), samples=2)
    shards = sorted((tmp_path / "out").iterdir())
    assert [s.read_bytes() for s in shards] == [(tmp_path / "again" / s.name).read_bytes() for s in shards]
    with tarfile.open(shards[0]) as shard:
        assert shard.getnames() == ["clip/000000.jpg", "clip/000000.json", "clip/000001.jpg", "clip/000001.json"]
    with tarfile.open(shards[1]) as shard:
        told = json.load(shard.extractfile("clip/000002.json"))
    assert told["frame_name"] == "img_6" and [o["name"] for o in told["objects"]] == ["cat", "red car"]


def test_tables(tmp_path: Path) -> None:
    out = example_result().export("table", tmp_path / "out")
    with (out / "sightings.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    assert rows[4] == {
        "video": "clip", "frame": "2", "time": "0.08", "id": "12", "name": "red car", "source": "forward", "score": "0.3",
        "presence": "0.0", "object_score": "0.25", "area": "4", "x0": "3", "y0": "2", "x1": "5", "y1": "4",
    }  # fmt: skip
    with (out / "objects.csv").open() as file:
        assert [(r["video"], r["id"], r["frames"]) for r in csv.DictReader(file)] == [
            ("clip", "3", "3"),
            ("clip", "12", "2"),
        ]


def test_several_results_are_one_set(tmp_path: Path) -> None:
    a, b = example_result(), replace(example_result(), name="b/c")
    export_results([a, b], "coco", tmp_path / "out")
    content = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert [v["name"] for v in content["videos"]] == ["clip", "b/c"] and len(content["images"]) == 6
    assert len({x["id"] for x in content["annotations"]}) == 10
    for result in (a, b):
        assert read_back(tmp_path / "out" / "annotations.json", result) == expect(result, ROWS["coco"])


# -- what is refused


@pytest.mark.parametrize(
    ("form", "given", "words"),
    [
        ("coko", {}, "no form 'coko'; did you mean coco?"),
        ("coco", {"polygon": True}, "no setting of coco 'polygon'; did you mean polygons?"),
        ("coco", {"polygons": 3}, "setting coco.polygons = 3 must be true or false"),
        ("davis", {"polygons": True}, "davis: has no settings, so polygons cannot be set"),
        ("rgba", {}, "clip: this form has the video's images in it; give the video by `frames`"),
        ("overlay", {}, "give the video by `frames`"),
        ("ultralytics", {"split": "../x"}, "must be one of train, val, test"),
        ("cvat-video", {"shape": "mask"}, "must be one of polygon, box"),
        ("webdataset", {"samples": 0}, "at least one frame"),
    ],
)
def test_bad_input_leaves_nothing(form: str, given: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        example_result().export(form, tmp_path / "out", **given)
    assert words in str(caught.value) and not list(tmp_path.iterdir())


def test_another_video_is_refused(tmp_path: Path) -> None:
    for names, size, words in (
        (NAMES, (5, 4), r"its frames are 4x5, those of the result clip 5x4.*`max_side`"),
        (NAMES[:2], (4, 5), r"has 2 frames, the result clip 3; .*`stride`"),
    ):
        frames = clip(tmp_path / str(size) / str(len(names)), names, size)
        with pytest.raises(InputError, match=words):
            example_result().export("coco", tmp_path / "out", frames=str(frames))
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="clip: two results of this name"):
        ExportedResults([example_result(), example_result()])


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.xml", b"<annotations><image", "not XML, or cut off"),
        ("a.xml", b"<other/>", "not CVAT's annotations.xml"),
        ("a.xml", b'<!DOCTYPE a [<!ENTITY b "c">]><annotations/>', "declares entities"),
        ("a.xml", b'<annotations><track id="1"/></annotations>', "track 1: 'label' must be a text"),
        ("a.xml", b'<annotations><image name="0.jpg"><mask label="a" rle="1, x" left="0" top="0" width="1" height="1"/></image></annotations>', "0.jpg, shape 0: a mask needs whole numbers"),
        ("a.xml", b'<annotations><image name="0.jpg"><mask label="a" rle="0, 9" left="0" top="0" width="1" height="1"/></image></annotations>', "run lengths fill 9 pixels, not the 1x1"),
        ("a.xml", b'<annotations><image name="0.jpg"><mask label="a" rle="0, 1" left="9" top="0" width="1" height="1"/></image></annotations>', "is not within the 5x4"),
        ("a.xml", b'<annotations><image name="0.jpg"><polygon label="a" points="0,0;nan,1;2,2"/></image></annotations>', "is no number"),
        ("a.xml", b'<annotations><image name="0.jpg"><box label="a" xtl="0"/></image></annotations>', "'ytl'"),
        ("a.txt", b"0,1,1,1,1,1,1", "line 1: the frame must be a whole number from 1 on"),
        ("a.txt", b"1,1,1,1", "line 1: frame, id, left, top, width, height are needed"),
        ("a.txt", b"1,1,1,1,nan,3", "must be a number"),
        ("a.json", b'[{"data": {"video": "clip.mp4"}, "annotations": [{"result": [{"type": "videorectangle", "value": {"labels": ["a"], "sequence": [{"frame": 9007199254740991, "x": 0, "y": 0, "width": 1, "height": 1}]}}]}]}]', "'frame' is 9007199254740991; at most"),
        ("a.tar", b"no tar", "not a tar of masklet export webdataset"),
        ("a.json", b'[{"data": {"image": "0.jpg"}, "annotations": [{"result": [{"type": "brushlabels", "value": {"brushlabels": ["a"], "rle": [0, 0, 0, 80]}}]}]}]', "cut off"),
        ("a.json", b'[{"data": {"image": "0.jpg"}, "annotations": [{"result": [{"type": "keypointlabels", "value": {}}]}]}]', "'keypointlabels'; brush masks, polygons and rectangles"),
        ("a.json", b'[{"data": {"image": "0.jpg"}, "annotations": [{"result": [{"type": "brushlabels", "value": {"brushlabels": ["a"], "rle": [300]}}]}]}]', "list of bytes"),
    ],
)  # fmt: skip
def test_damaged_files_are_one_sentence(name: str, data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_back(tmp_path / name, example_result())
    assert name in str(caught.value) and words in str(caught.value)


def test_names_that_xml_cannot_hold_are_refused(tmp_path: Path) -> None:
    odd = replace(example_result(), categories=("a\x01b", '<&">'))
    for form, words in {
        "cvat-images": "cvat",
        "label-studio": "label-studio",
        "label-studio-video": "label-studio",
    }.items():
        with pytest.raises(InputError, match=f"^{words}: the name .* has characters that XML cannot hold"):
            odd.export(form, tmp_path / "out")
    fine = replace(odd, categories=("<script>", '<&">'))
    for form in ("cvat-images", "label-studio"):
        out = fine.export(form, tmp_path / form)
        Xml.parse(out / ("config.xml" if form == "label-studio" else "annotations.xml"))
    assert {n for f in read_back(tmp_path / "cvat-images" / "annotations.xml", fine) for n, *_ in f} == {
        "<script>",
        '<&">',
    }


@pytest.mark.parametrize("form", ["table", "voc"])
def test_names_that_no_text_can_hold_are_refused(form: str, tmp_path: Path) -> None:
    odd = replace(example_result(), categories=("caf\udce9", "dog"))
    with pytest.raises(InputError, match="is no text in UTF-8; rename"):
        odd.export(form, tmp_path / "out")
    assert not list(tmp_path.iterdir())


# -- the libraries that others read these forms with


def test_datumaro_reads_them(tmp_path: Path) -> None:
    datumaro = pytest.importorskip("datumaro")
    result, frames = example_result(), clip(tmp_path, NAMES, (4, 5))
    for form, theirs in (("coco", "coco_instances"), ("cvat-images", "cvat"), ("voc", "voc_instance_segmentation")):
        out = result.export(form, tmp_path / form, frames=str(frames))
        if form == "coco":
            (out / "annotations").mkdir()
            (out / "annotations.json").rename(out / "annotations" / "instances_train.json")
            (out / "images").rename(out / "train")
            (out / "images").mkdir()
            (out / "train").rename(out / "images" / "train")
        read = datumaro.Dataset.import_from(str(out), theirs)
        found = {}
        for item in read:
            masks = [a for a in item.annotations if a.type.name in ("mask", "polygon")]
            found[Path(item.id).name] = sorted(
                np.asarray(a.image, bool).tobytes() for a in masks if a.type.name == "mask"
            )
        for t, name in enumerate(NAMES):
            masks = [s.mask.decode_pixels() for _, s in result.at(t)]
            if form == "voc":  # the smaller one is on top
                numbers = paint_mask_numbers([s.mask for _, s in result.at(t)], result.size)
                masks = [numbers == n for n in range(1, len(masks) + 1)]
            assert found[name] == sorted(mask.tobytes() for mask in masks), (form, name)


def test_datumaro_reads_tracks_of_cvat(tmp_path: Path) -> None:
    datumaro = pytest.importorskip("datumaro")
    out = example_result().export("cvat-video", tmp_path / "out")
    items = sorted(datumaro.Dataset.import_from(str(out / "clip"), "cvat"), key=lambda item: item.id)
    assert len(items) == 3
    for t, item in enumerate(items):
        shown = [a for a in item.annotations if not a.attributes["outside"]]
        drawn = {a.attributes["track_id"]: encode_polygons([list(a.points)], (4, 5)) for a in shown}
        assert drawn == {m.id: s.mask for m, s in example_result().at(t)}


def test_label_studio_s_own_decoder_reads_brush_masks(tmp_path: Path) -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    out = example_result().export("label-studio", tmp_path / "out")
    answer = json.loads((out / "tasks.json").read_text())[0]["annotations"][0]["result"][0]
    theirs = np.asarray(brush.decode_rle(answer["value"]["rle"])).reshape(4, 5, 4)[..., 3]
    assert (theirs == 255 * example_result().masklets[0].sightings[0].mask.decode_pixels()).all()


def test_label_studio_s_own_checks_pass(tmp_path: Path) -> None:
    interface = pytest.importorskip("label_studio_sdk.label_interface")
    for form in ("label-studio", "label-studio-video"):
        out = example_result().export(form, tmp_path / form)
        checks = interface.LabelInterface((out / "config.xml").read_text())
        checks.validate()
        for task in json.loads((out / "tasks.json").read_text()):
            answers = task.pop("annotations")
            assert checks.validate_task(task) and all(map(checks.validate_annotation, answers))


def put(source: Path, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(source.read_bytes())


def test_trackeval_finds_results_equal_to_themselves(tmp_path: Path) -> None:
    """As ground truth and as answers."""
    trackeval = pytest.importorskip("trackeval")
    big = np.zeros((40, 50), bool)
    big[5:20, 5:25] = True
    base = masklet(1, {0: "1"}, 0, 0.5).sightings[0]
    seen = {t: replace(base, mask=Rle.encode_pixels(np.roll(big, t, 1))) for t in range(3)}
    person = replace(masklet(1, {}, 0, 0.5), sightings=seen)
    result = video(person, size=(40, 50), categories=("person", "cat"))
    for form in ("ytvis-set", "ytvis", "burst-set", "mots"):
        result.export(form, tmp_path / form)
    put(tmp_path / "ytvis-set/instances.json", tmp_path / "ytvis_gt/youtube_vis_val/gt.json")
    put(tmp_path / "ytvis/clip/ytvis.json", tmp_path / "ytvis_us/youtube_vis_val/us/data/r.json")
    for place in ("burst_gt", "burst_us/us/data"):
        put(tmp_path / "burst-set/burst.json", tmp_path / place / "b.json")
    for name in ("0001", "0002"):
        put(tmp_path / "mots/clip/mots.txt", tmp_path / f"mots_gt/label_02/{name}.txt")
        put(tmp_path / "mots/clip/mots.txt", tmp_path / f"mots_us/us/data/{name}.txt")
    (tmp_path / "mots_gt/evaluate_mots.seqmap.val").write_text("0001 empty 000000 000003\n0002 empty 000000 000003\n")
    quiet = {"PRINT_CONFIG": False, "SPLIT_TO_EVAL": "val"}
    sets = [
        trackeval.datasets.YouTubeVIS(
            quiet | {"GT_FOLDER": f"{tmp_path}/ytvis_gt/", "TRACKERS_FOLDER": f"{tmp_path}/ytvis_us/"}
        ),
        trackeval.datasets.BURST(
            quiet
            | {"GT_FOLDER": f"{tmp_path}/burst_gt", "TRACKERS_FOLDER": f"{tmp_path}/burst_us", "EXEMPLAR_GUIDED": False}
        ),
        trackeval.datasets.KittiMOTS(
            quiet | {"GT_FOLDER": f"{tmp_path}/mots_gt", "TRACKERS_FOLDER": f"{tmp_path}/mots_us"}
        ),
    ]
    silent = dict.fromkeys(
        ("PRINT_RESULTS", "PRINT_CONFIG", "TIME_PROGRESS", "OUTPUT_SUMMARY", "OUTPUT_DETAILED", "PLOT_CURVES"), False
    )
    judge = trackeval.Evaluator(silent | {"USE_PARALLEL": False, "BREAK_ON_ERROR": True, "LOG_ON_ERROR": None})
    for one, masks in zip(sets, (3, 3, 6), strict=True):
        found, _ = judge.evaluate([one], [trackeval.metrics.HOTA({"PRINT_CONFIG": False})])
        [scores] = [v["us"]["COMBINED_SEQ"] for v in found.values()]
        right = [c["HOTA"] for c in scores.values() if c.get("HOTA", {}).get("HOTA_TP", np.zeros(1)).any()]
        assert right and all(c["HOTA_TP"][0] == masks and c["HOTA_FP"][0] == 0 for c in right)


def test_datasets_reads_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    datasets = pytest.importorskip("datasets")
    from pycocotools import mask as coco

    out = example_result().export("hf", tmp_path / "out", frames=str(clip(tmp_path, NAMES, (4, 5))))
    files = {"train": [str(p) for p in (out / "data").iterdir()]}
    rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert [r["frame_name"] for r in rows] == list(NAMES) and rows[0]["image"].size == (5, 4)
    one = rows[2]["objects"][1]
    assert (one["id"], one["name"], one["box"]) == (12, "red car", [3, 2, 5, 4])
    mask = coco.decode({"size": [rows[2]["height"], rows[2]["width"]], "counts": one["counts"].encode()})
    assert mask.tolist() == bits("00000 00000 00011 00011").decode_pixels().astype(int).tolist()


def test_webdataset_reads_its_tars(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    out = example_result().export("webdataset", tmp_path / "out", frames=str(clip(tmp_path, NAMES, (4, 5))))
    samples = list(webdataset.WebDataset(str(out / "000000.tar"), shardshuffle=False).decode("rgb8"))
    assert [s["__key__"] for s in samples] == ["clip/000000", "clip/000001", "clip/000002"]
    assert samples[0]["jpg"].shape == (4, 5, 3) and samples[1]["json"]["objects"][0]["id"] == 3


def test_motmetrics_reads_boxes(tmp_path: Path) -> None:
    motmetrics = pytest.importorskip("motmetrics")
    out = example_result().export("mot", tmp_path / "out")
    table = motmetrics.io.loadtxt(out / "clip.txt", fmt="mot15-2D")
    assert table.loc[(1, 12), ["X", "Y", "Width", "Height"]].tolist() == [3, 2, 2, 2]  # counted from 0 there


def test_ultralytics_draws_the_same_but_for_its_last_row_and_column(tmp_path: Path) -> None:
    """Its loader scales and rounds the shares and fills them by OpenCV, which counts the edge as inside."""
    out = example_result().export("ultralytics", tmp_path / "out")
    line = (out / "labels" / "train" / "clip" / "00000.txt").read_text().splitlines()[1]
    corners = (np.array(line.split()[1:], float).reshape(-1, 2) * (5, 4)).round().astype(np.int32)
    drawn = cv2.fillPoly(np.zeros((4, 5), np.uint8), [corners], 1)
    inside = bits("00000 00000 00011 00011").decode_pixels()
    assert drawn[inside].all() and not drawn[:2].any() and not drawn[:, :3].any()


def test_fiftyone_draws_the_same(tmp_path: Path) -> None:
    """Its own samples; no data set, for which it runs a database."""
    fiftyone = pytest.importorskip("fiftyone")
    samples: list[Any] = []
    stand_in = SimpleNamespace(
        Dataset=lambda: SimpleNamespace(add_sample=samples.append),
        **{name: getattr(fiftyone, name) for name in ("Sample", "Detections", "Detection")},
    )
    wide = np.zeros((4, 432), bool)
    wide[1:3, 55:60] = True
    seen = {0: replace(masklet(1, {0: "1"}).sightings[0], mask=Rle.encode_pixels(wide))}
    result = video(replace(masklet(7, {}), sightings=seen), size=(4, 432), length=1)
    build_dataset(stand_in, ExportedResults([result]), tmp_path)
    [one] = samples[0]["masklets"].detections
    assert (one.label, one.index) == ("cat", 7)
    assert (one.to_segmentation(frame_size=(432, 4)).mask > 0).tolist() == wide.tolist()


def test_fiftyone_is_told_what_its_classes_take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in that writes down what it is given: FiftyOne itself brings a database."""
    told: dict[str, Any] = {"samples": []}

    class Sample(dict[str, Any]):
        pass

    class Dataset:
        def add_sample(self, sample: Sample) -> None:
            told["samples"].append(sample)

        def export(self, export_dir: str, dataset_type: Any) -> None:
            told["exported"] = Path(export_dir).name, dataset_type

        def delete(self) -> None:
            told["deleted"] = True

    stand_in = SimpleNamespace(
        Dataset=Dataset, Sample=Sample, Detections=dict, Detection=dict, types=SimpleNamespace(FiftyOneDataset="own")
    )
    monkeypatch.setitem(sys.modules, "fiftyone", stand_in)
    with pytest.raises(InputError, match="give the video by `frames`"):
        example_result().export("fiftyone", tmp_path / "out")
    example_result().export("fiftyone", tmp_path / "out", frames=str(clip(tmp_path, NAMES, (4, 5))))
    assert told["exported"] == ("fiftyone", "own") and told["deleted"]
    assert [Path(s["filepath"]).name for s in told["samples"]] == [f"{n}.jpg" for n in NAMES]
    one = told["samples"][0]["masklets"]["detections"][1]
    assert (one["label"], one["index"], one["confidence"]) == ("red car", 12, 0.25)
    assert one["bounding_box"] == pytest.approx([0.6, 0.5, 0.4, 0.5], abs=1e-6) and one["mask"].tolist() == [
        [True, True],
        [True, True],
    ]
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(InputError, match="fiftyone is not installed: pip install fiftyone"):
        example_result().export("fiftyone", tmp_path / "again")
