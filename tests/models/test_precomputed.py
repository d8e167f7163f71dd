from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toys import H, W, square

from masklet.core.annotations import VideoFrames
from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.instances import Detections
from masklet.core.protocols import Segmenter
from masklet.core.rle import Rle
from masklet.io.annotations.detections import read_detections
from masklet.io.video.sources import open_video
from masklet.models.segmenters.precomputed import Precomputed

RLE = {"size": [H, W], "counts": Rle.encode(square(4, 5)).counts.decode()}
GOOD = {"frame": 0, "category_id": 3, "score": 0.5, "segmentation": RLE}


def seen(path: Path, frame: int = 0, size: tuple[int, int] = (H, W)) -> Detections:
    model = Precomputed(read_detections(path))
    [found], _ = model.segment(model.empty(), [Frame(frame, np.zeros((*size, 3), np.uint8))], [])
    return found


def written(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "detections.json"
    path.write_text(json.dumps(content))
    return path


def test_every_way_to_write_a_mask(tmp_path: Path) -> None:
    runs = [5 * H + 4, 6, *[H - 6, 6] * 5]
    plain = {"size": [H, W], "counts": [*runs, H * W - sum(runs)]}
    polygon = GOOD | {"segmentation": [[5, 4, 11, 4, 11, 10, 5, 10]]}
    found = seen(written(tmp_path, [GOOD, GOOD | {"segmentation": plain}, polygon]))
    assert all(torch.equal(m, square(4, 5)) for m in found.masks) and len(found) == 3
    assert found.scores.tolist() == [0.5] * 3 and found.labels.tolist() == [0] * 3


def test_a_box_without_a_mask_is_drawn(tmp_path: Path) -> None:
    ys, xs = np.mgrid[:96, :128]
    disk = (ys - 40) ** 2 + (xs - 60) ** 2 < 24**2
    image = np.where(disk[..., None], [220, 60, 40], [30, 60, 50]).astype(np.uint8)
    box = {k: v for k, v in GOOD.items() if k != "segmentation"} | {"bbox": [36, 16, 49, 49]}
    model = Precomputed(read_detections(written(tmp_path, [box, box | {"frame": 1, "bbox": [500, 500, 4, 4]}])))
    [found, nowhere], _ = model.segment(None, [Frame(0, image), Frame(1, image)], [])
    iou = (found.masks[0].numpy() & disk).sum() / (found.masks[0].numpy() | disk).sum()
    assert iou > 0.85 > 0.79 > disk.sum() / 49**2  # better than the filled box
    assert len(nowhere) == 1 and not nowhere.masks.any()


@pytest.mark.parametrize("key", ["frame", "frame_index", "image_id"])
def test_entries_belong_to_their_frame(tmp_path: Path, key: str) -> None:
    entry = {k: v for k, v in GOOD.items() if k != "frame"} | {key: 2}
    path = written(tmp_path, [entry] * 3)
    assert [len(seen(path, t)) for t in (0, 2, 9)] == [0, 3, 0]


def test_names_come_from_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, [GOOD, GOOD | {"category_id": 1}])
    model = Precomputed(read_detections(path))
    assert isinstance(model, Segmenter) and model.categories == ("1", "3") and model.look_ahead == 0
    assert seen(path).labels.tolist() == [1, 0]
    assert model.weights == {"detections.json": hashlib.sha256(path.read_bytes()).hexdigest()}
    named = {"annotations": [GOOD], "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}]}
    assert Precomputed(read_detections(written(tmp_path, named))).categories == ("cat", "dog")
    assert seen(written(tmp_path, named)).labels.tolist() == [1]
    assert Precomputed(read_detections(written(tmp_path, []))).categories == ()


BAD = [
    ({"frame": None}, "'frame'"),
    ({"frame": -1}, "'frame'"),
    ({"frame": 0.5}, "'frame'"),
    ({"category_id": None}, "'category_id'"),
    ({"score": 1.5}, "'score'"),
    ({"score": math.nan}, "'score'"),
    ({"score": "high"}, "'score'"),
    ({"segmentation": {"size": [H, W + 1], "counts": RLE["counts"]}}, r"\[32, 33\]"),
    ({"segmentation": {"size": [H, W], "counts": RLE["counts"][:-2]}}, "run lengths|fill"),
    ({"segmentation": {"size": [H, W], "counts": "\x01"}}, "run lengths"),
    ({"segmentation": {"size": [H, W], "counts": [1, 2]}}, "do not fill"),
    ({"segmentation": {"size": [H, W], "counts": ["a"]}}, "malformed"),
    ({"segmentation": {"size": [H, W]}}, "malformed"),
    ({"segmentation": [[1, 2, 3, 4]]}, "three points"),
    ({"segmentation": []}, "neither"),
    ({"segmentation": None}, "neither"),
    ({"segmentation": 7}, "malformed"),
]


@pytest.mark.parametrize(("change", "words"), BAD, ids=str)
def test_a_malformed_entry_is_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = written(tmp_path, [GOOD, GOOD | change])
    with pytest.raises(InputError, match=words) as caught:
        seen(path)
    assert f"{path}: entry 1: " in str(caught.value)


def test_a_malformed_file_is_named(tmp_path: Path) -> None:
    no_mask = {k: v for k, v in GOOD.items() if k != "segmentation"}
    for content in ({}, 7, [7], [no_mask], {"annotations": [GOOD], "categories": [{"id": 1}]}):
        with pytest.raises(InputError, match=r"detections.json"):
            Precomputed(read_detections(written(tmp_path, content)))
    (tmp_path / "detections.json").write_text("[{")
    with pytest.raises(InputError, match="not JSON"):
        Precomputed(read_detections(tmp_path / "detections.json"))


def test_label_images_in_the_order_people_count(tmp_path: Path) -> None:
    for name, value in (("2.png", 20), ("10.png", 7), ("1.png", 9)):
        labels = np.where(square(4, 5), value, 0).astype(np.uint8)
        labels[20:24] = 3
        Image.fromarray(labels).save(tmp_path / name)
    model = Precomputed(read_detections(tmp_path), video=VideoFrames("clip", 3))
    frames = [Frame(t, np.zeros((H, W, 3), np.uint8)) for t in range(3)]
    found, _ = model.segment(None, frames, [])
    assert all(len(f) == 2 and f.scores.tolist() == [1, 1] for f in found)
    assert all(any(torch.equal(m, square(4, 5)) for m in f.masks) for f in found)
    assert "in their order" in " ".join(model.notes) and model.categories == ("object",)


def test_255_in_a_palette_image_is_void(tmp_path: Path) -> None:
    image = Image.fromarray(np.where(square(4, 5), 255, np.where(square(20, 20), 1, 0)).astype(np.uint8))
    image.putpalette([n for v in range(256) for n in (v, v, v)])
    image.save(tmp_path / "0.png")
    [mask] = seen(tmp_path).masks
    assert torch.equal(mask, square(20, 20))


def test_malformed_label_images_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no png"):
        Precomputed(read_detections(tmp_path))
    Image.new("L", (W, H)).save(tmp_path / "0.png")
    with pytest.raises(InputError, match=r"0.png.*32x32.*33x32"):
        seen(tmp_path, size=(H, W + 1))
    (tmp_path / "0.png").write_text("text")
    with pytest.raises(InputError, match=r"0.png: not an image"):
        seen(tmp_path)


def find_chosen(path: Path, frames: int = 12, **choice: Any) -> tuple[list[Detections], Sequence[str]]:
    """What the file `path` says of the frames that are chosen of a video, and what is to be told of that."""
    with open_video(np.zeros((frames, 2 * H, 2 * W, 3), np.uint8), **choice) as video:
        bound = Precomputed(read_detections(path)).bind_video(video)
        return bound.segment(None, list(video), [])[0], bound.notes


def move_square(t: int) -> dict[str, Any]:
    """A square that moves by two pixels in a frame, in a video of twice the height and width."""
    pixels = np.zeros((2 * H, 2 * W), bool)
    pixels[4:10, 2 * t : 2 * t + 6] = True
    counts = Rle.encode_pixels(pixels).counts.decode()
    return {"category_id": 1, "score": 0.5, "segmentation": {"size": [2 * H, 2 * W], "counts": counts}}


@pytest.mark.parametrize("key", ["frame", "image_id", "file_name"])
@pytest.mark.parametrize(
    ("choice", "used"),
    [
        ({"stride": 2}, range(0, 12, 2)),
        ({"start": 3, "end": 9}, range(3, 9)),
        ({"start": "0.4s", "stride": 3}, (10,)),  # at 25 a second
        ({"fps": 12.5}, range(0, 12, 2)),
    ],
)
def test_numbers_that_go_beyond_the_chosen_frames_are_those_of_the_whole_video(
    tmp_path: Path, key: str, choice: dict[str, Any], used: Sequence[int]
) -> None:
    content = [{key: f"{t:05d}.png" if key == "file_name" else t, **move_square(t)} for t in range(12)]
    found, notes = find_chosen(written(tmp_path, content), **choice)
    columns = [np.flatnonzero(one.masks[0].numpy().any(0))[0] // 2 for one in found]
    assert columns == list(used) and any("those of the whole video" in note for note in notes)


def test_numbers_of_the_chosen_frames_stay_theirs(tmp_path: Path) -> None:
    """As those of a result that was made of the same frames."""
    found, notes = find_chosen(written(tmp_path, [{"frame": t, **move_square(t)} for t in range(6)]), stride=2)
    assert [np.flatnonzero(one.masks[0].numpy().any(0))[0] // 2 for one in found] == list(range(6)) and not notes


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("kind", ["run lengths", "polygon", "box", "labelme", "cvat"])
def test_what_was_found_in_whole_frames_is_reduced_with_them(tmp_path: Path, kind: str, scale: int) -> None:
    """And what says that it was found in the smaller ones is not."""
    h, w, x0, y0, x1, y1 = (scale * v for v in (H, W, 5, 4, 11, 10))
    pixels = np.zeros((h, w), bool)
    pixels[y0:y1, x0:x1] = True
    corners = [x0, y0, x1, y0, x1, y1, x0, y1]
    image = {"id": 1, "frame_id": 0, "file_name": "00000.png", "height": h, "width": w}
    shapes: dict[str, Any] = {
        "run lengths": {"segmentation": {"size": [h, w], "counts": Rle.encode_pixels(pixels).counts.decode()}},
        "polygon": {"segmentation": [corners]},
        "box": {"bbox": [x0, y0, x1 - x0, y1 - y0]},
    }
    if kind in shapes:
        one = {"image_id": 1, "category_id": 1, "score": 0.5, **shapes[kind]}
        path = written(tmp_path, {"images": [image], "annotations": [one], "categories": [{"id": 1, "name": "a"}]})
    elif kind == "labelme":
        path = tmp_path / "labels"
        path.mkdir()
        shape = {"label": "a", "points": [corners[n : n + 2] for n in range(0, 8, 2)], "shape_type": "polygon"}
        page = {"shapes": [shape], "imagePath": "00000.png", "imageHeight": h, "imageWidth": w}
        (path / "00000.json").write_text(json.dumps(page))
    else:
        path = tmp_path / "annotations.xml"
        points = ";".join(f"{corners[n]},{corners[n + 1]}" for n in range(0, 8, 2))
        shape = f'<polygon label="a" points="{points}"/>'
        path.write_text(f'<annotations><image name="00000.png" height="{h}" width="{w}">{shape}</image></annotations>')
    [found], _ = find_chosen(path, 1, max_side=max(H, W))
    assert found.masks.shape[1:] == (H, W)
    ys, xs = np.nonzero(found.masks[0].numpy())
    if kind == "box":  # which is drawn
        assert xs.min() >= 4 and xs.max() <= 11 and ys.min() >= 3 and ys.max() <= 10
    else:
        assert torch.equal(found.masks[0], square(4, 5))


def test_boxes_of_another_size_of_frames_are_refused(tmp_path: Path) -> None:
    image = {"id": 1, "frame_id": 0, "height": 8 * H, "width": 8 * W}
    one = {"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [8, 8, 40, 40]}
    path = written(tmp_path, {"images": [image], "annotations": [one], "categories": []})
    with pytest.raises(InputError, match=f"of frames of {8 * W}x{8 * H}, those of .* are {2 * W}x{2 * H}"):
        find_chosen(path, 1)
    turned = image | {"height": 2 * W, "width": 2 * H}  # as libraries have it that know no EXIF
    path = written(tmp_path, {"images": [turned], "annotations": [one], "categories": []})
    assert len(find_chosen(path, 1)[0][0]) == 1
