"""Every form that masklet writes comes back as detections with the same masks; other tools' forms are read too."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

import masklet
from masklet.builtins import FORMATS
from masklet.cli import app
from masklet.core.annotations import VideoFrames
from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle, paint_mask_numbers
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.io.annotations.detections import read_detections
from masklet.io.video.images import FramesInMemory
from masklet.models.segmenters.precomputed import Precomputed

H, W, LENGTH = 12, 16, 4
PAGE = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text()
ROWS = {
    row[0].strip("` "): [cell.strip() for cell in row[1:]]
    for line in PAGE.splitlines()
    if line.startswith("| `") and len(row := line.strip("|").split("|")) == 5
}


def make_result(seed: int, objects: int = 3) -> VideoResult:
    rng = np.random.default_rng(seed)
    masklets = []
    for id in range(1, objects + 1):
        seen = {}
        for t in range(LENGTH):
            if t == 0 or rng.random() < 0.7:
                y, x = rng.integers(0, (H - 4, W - 5))
                mask = np.zeros((H, W), bool)
                mask[y : y + 4, x : x + 5] = True
                seen[t] = Sighting(Rle.encode_pixels(mask), Source.DETECTED, 0.75, (id - 1) % 2)
        masklets.append(Masklet(id, seen, (id - 1) % 2, 0.75))
    return VideoResult("clip", (H, W), LENGTH, 25.0, tuple(masklets), ("cat", "dog"), Provenance("hand"))


def detect(
    path: Path, names: tuple[str, ...] | None = None, name: str = "clip"
) -> list[list[tuple[str, float, bytes]]]:
    """What is found in each frame: name, score and run lengths, sorted."""
    segmenter = Precomputed(read_detections(path), video=VideoFrames(name, LENGTH, names))
    frames = [Frame(t, np.zeros((H, W, 3), np.uint8)) for t in range(LENGTH)]
    found, _ = segmenter.segment(None, frames, [])
    return [
        sorted(
            (segmenter.categories[label], round(score, 6), Rle.encode(mask).counts)
            for mask, score, label in zip(d.masks, d.scores.tolist(), d.labels.tolist(), strict=True)
        )
        for d in found
    ]


KITTI = {"car": "car", "person": "pedestrian"}


def number_names(result: VideoResult) -> list[tuple[int, Masklet]]:
    """The objects whose names KITTI does not know, by their names from 3 on in the order of appearance; others 0."""
    names = list(dict.fromkeys(name for m in result.masklets if (name := result.name_of(m)) not in KITTI))
    return [(names.index(n) + 3 if (n := result.name_of(m)) in names else 0, m) for m in result.masklets]


def expect(result: VideoResult, row: list[str]) -> list[list[tuple[str, float, bytes]]]:
    """The result as a form of this row of the table holds it."""
    overlap, names, scores, _ = row
    kitti = {m.id: KITTI.get(result.name_of(m)) or str(n) for n, m in number_names(result)}
    out = []
    for t in range(LENGTH):
        seen: list[Any] = list(result.at(t))
        masks = [s.mask for _, s in seen]
        if overlap == "lost":
            numbers = paint_mask_numbers(masks, result.size)
            masks = [Rle.encode_pixels(numbers == n) for n in range(1, len(masks) + 1)]
        if overlap == "one object":
            masks = [Rle.encode_pixels(paint_mask_numbers(masks, result.size) > 0)] if masks else []
        rows = []
        if overlap == "one object a name":
            groups = [[(m, s.mask) for m, s in seen if m.label == label] for label in (0, 1)]
            seen = [(group[0][0], None) for group in groups if group]
            masks = [
                Rle.encode_pixels(paint_mask_numbers([mask for _, mask in group], result.size) > 0)
                for group in groups
                if group
            ]
        for n, mask in enumerate(masks):
            masklet_ = seen[n][0]
            label = {
                "kept": result.name_of(masklet_),
                "numbers": str(masklet_.label + 1),
                "KITTI": kitti[masklet_.id],
                "folders": str(masklet_.label),
                "lost": "object",
            }[names]
            if mask.area:
                rows.append((label, masklet_.score if scores == "kept" else 1.0, mask.counts))
        out.append(sorted(rows))
    return out


def test_every_format_has_a_row() -> None:
    assert set(ROWS) == {*FORMATS.names, "masklets.json"} - {"toyformat"}


@pytest.mark.parametrize("form", sorted(ROWS))
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_comes_back_as_detections(form: str, seed: int, tmp_path_factory: Any) -> None:
    folder, result = tmp_path_factory.mktemp("form"), make_result(seed)
    if form == "masklets.json":
        result.save(folder / form)
    else:
        FORMATS[form](result, [f"{t:05d}" for t in range(LENGTH)], folder)
    path = folder / ROWS[form][3].strip("`")
    assert detect(path) == expect(result, ROWS[form])


def write(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


MASK = np.zeros((H, W), bool)
MASK[2:6, 3:9] = True
CODE = {"size": [H, W], "counts": Rle.encode_pixels(MASK).counts.decode()}
ONE = [[("object", 1.0, Rle.encode_pixels(MASK).counts)]]


def test_coco_with_images_several_videos_and_names_of_frames(tmp_path: Path) -> None:
    images = [
        {"id": 10 * v + t, "file_name": f"{name}/img_{t + 5:03}.jpg", "video_id": v, "width": W, "height": H}
        for v, name in ((1, "clip"), (2, "other"))
        for t in range(LENGTH)
    ]
    entries = [{"image_id": 12, "category_id": 7, "score": 0.5, "segmentation": CODE}]
    entries += [{"image_id": 23, "category_id": 7, "score": 0.5, "segmentation": CODE}]
    videos = [{"id": 1, "name": "clip"}, {"id": 2, "name": "other"}]
    path = write(tmp_path / "d.json", {"images": images, "videos": videos, "annotations": entries, "categories": []})
    names = tuple(f"img_{t + 5:03}" for t in range(LENGTH))
    assert [len(f) for f in detect(path, names)] == [0, 0, 1, 0]
    assert [len(f) for f in detect(path, names, "other")] == [0, 0, 0, 1]
    with pytest.raises(InputError, match="is of 2 videos"):
        detect(path, names, "third")


def test_videos_are_told_apart_by_folder_id_and_number_within_the_video(tmp_path: Path) -> None:
    """A file of two videos, whose masks are of frame 1 in one and of frame 2 in the other."""
    both = [("clip", 1, 1), ("other", 2, 2)]

    def list_images(**more: Any) -> list[dict[str, Any]]:
        return [
            {"id": t + (0 if more else 10 * v), "file_name": f"{name}/{t:03}.jpg", **{k: v for k in more}}
            for name, v, _ in both
            for t in range(LENGTH)
        ]

    one = {"category_id": 7, "score": 0.5, "segmentation": CODE}
    folders = {"images": list_images(), "annotations": [{**one, "image_id": t + 10 * v} for _, v, t in both]}
    numbered = {
        "videos": [{"id": v, "name": name} for name, v, _ in both],
        "images": list_images(video_id=True),
        "annotations": [{**one, "image_id": t, "video_id": v} for _, v, t in both],
    }
    for content in (folders, numbered):
        path = write(tmp_path / "d.json", content)
        for name, _, t in both:
            assert [len(f) for f in detect(path, None, name)] == [int(n == t) for n in range(LENGTH)]
    plain = [{**one, "frame": t, "video_id": v} for _, v, t in both]
    with pytest.raises(InputError, match=r"is of 2 videos \(1, 2\), none of them clip"):
        detect(write(tmp_path / "d.json", plain))
    del numbered["annotations"][0]["video_id"]
    with pytest.raises(InputError, match="is of several videos; say which with 'video_id'"):
        detect(write(tmp_path / "d.json", numbered))


def test_deva_s_images_with_a_json_beside_them(tmp_path: Path) -> None:
    page = np.zeros((H, W, 3), np.uint8)
    page[MASK] = (44, 1, 0)  # 300
    page[10:, :2] = (7, 0, 0)
    for t in range(2):
        Image.fromarray(page).save(tmp_path / f"{t:05}.png")
        segments = [{"id": 300, "category_id": 2, "score": 0.25, "isthing": True}]
        write(tmp_path / f"{t:05}.json", {"segments_info": segments, "categories": [{"id": 2, "name": "dog"}]})
    found = detect(tmp_path)
    assert found[0] == found[1] == [("dog", 0.25, ONE[0][0][2])] and not found[2]  # 7 is not listed


def test_labelme_and_ultralytics(tmp_path: Path) -> None:
    (tmp_path / "labelme").mkdir()
    (tmp_path / "yolo").mkdir()
    corners = [[3, 2], [9, 2], [9, 6], [3, 6]]
    shape = {"label": "dog", "points": corners, "shape_type": "polygon"}
    content = {"shapes": [shape], "imagePath": "img_001.jpg", "imageHeight": H, "imageWidth": W}
    write(tmp_path / "labelme" / "img_001.json", content)
    flat = " ".join(str(v) for x, y in corners for v in (x / W, y / H))
    (tmp_path / "yolo" / "img_001.txt").write_text(f"4 {flat}\n")
    names = tuple(f"img_{t:03}" for t in range(LENGTH))
    assert detect(tmp_path / "labelme", names)[1] == [("dog", 1.0, ONE[0][0][2])]
    assert detect(tmp_path / "yolo", names)[1] == [("4", 1.0, ONE[0][0][2])]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("d.json", "[{", "not JSON"),
        ("d.json", '{"annotations": 3}', "neither a list"),
        ("d.json", '[{"frame": 0, "category_id": 1, "bbox": [0, 0, 1]}]', "entry 0: 'bbox' must be four numbers"),
        ("d.json", '{"images": [{"id": 1}, {"id": 1}], "annotations": []}', "image id 1 is given twice"),
        ("d.json", '{"images": [{"id": {}}], "annotations": []}', "an id must be a number or a text"),
        (
            "d.json",
            '{"videos": [{"id": []}], "images": [{"id": 1}], "annotations": []}',
            "an id must be a number or a text",
        ),
        ("y/0.txt", "1 0.5 0.5", "line 1: a class with a box"),
        ("y/0.txt", "dog 0 0 1 1", "line 1: a class and numbers"),
        ("l/0.json", '{"shapes": [{"label": "a", "points": [[1]], "shape_type": "polygon"}]}', "pairs of numbers"),
    ],
)
def test_bad_files_are_one_sentence(name: str, text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    with pytest.raises(InputError, match=re.escape(words)):
        detect(path.parent if path.parent != tmp_path else path)


def test_what_is_of_another_video_is_refused_before_any_work(tmp_path: Path) -> None:
    entries = [{"frame": t, "category_id": 1, "score": 0.99, "segmentation": CODE} for t in (7, 9)]
    worked: list[Any] = []
    clip = np.zeros((LENGTH, H, W, 3), np.uint8)
    path = str(write(tmp_path / "d.json", entries))
    with pytest.raises(InputError, match="none of its 2 annotations is of a frame"):
        masklet.segment(clip, segmenter=path, watch=lambda *told: worked.append(told))
    assert not worked
    entries[0]["frame"] = 1
    result = masklet.segment(clip, segmenter=str(write(tmp_path / "d.json", entries)))
    assert any("1 of 2 annotations met no frame" in note for note in result.provenance.notes)
    assert torch.equal(result.masklets[0].sightings[1].mask.decode(), torch.from_numpy(MASK))


def test_one_file_does_not_serve_several_videos_without_a_word(tmp_path: Path) -> None:
    path = write(tmp_path / "d.json", [{"frame": 0, "category_id": 1, "score": 0.99, "segmentation": CODE}])
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for t in range(2):
            Image.fromarray(np.zeros((H, W, 3), np.uint8)).save(tmp_path / name / f"{t}.png")
    clips = [str(tmp_path / "a"), str(tmp_path / "b")]
    words = ["run", *clips, "-o", str(tmp_path / "out"), "--segmenter", str(path), "--no-overlay"]
    assert CliRunner().invoke(app, words).exit_code == 0
    for result in masklet.segment(clips, segmenter=str(path)):
        [note] = [n for n in result.provenance.notes if "says nothing of videos, and was used for each of 2" in n]
    told = masklet.VideoResult.load(tmp_path / "out" / "a" / "masklets.json").provenance.notes
    assert note in told
    entries = [{"frame": 0, "video": v, "category_id": 1, "score": 0.99, "segmentation": CODE} for v in "ab"]
    results = list(masklet.segment(clips, segmenter=str(write(path, entries))))
    assert [len(r.masklets) for r in results] == [1, 1]
    assert not any("says nothing" in n for r in results for n in r.provenance.notes)


@pytest.mark.parametrize(
    ("entries", "words"),
    [([], "found nothing in any frame"), ([0.3], "of 1 detections none scores above conf = 0.95; the best has 0.3")],
)
def test_why_there_is_no_object(entries: list[float], words: str, tmp_path: Path) -> None:
    given = [{"frame": 0, "category_id": 1, "score": s, "segmentation": CODE} for s in entries]
    result = masklet.segment(np.zeros((2, H, W, 3), np.uint8), segmenter=str(write(tmp_path / "d.json", given)))
    assert words in " ".join(result.provenance.notes)


def test_prompts_of_a_label_image_and_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    clip = np.full((4, 48, 64, 3), 90, np.uint8)
    clip[:, 8:24, 8:28], clip[:, 28:44, 36:60] = (220, 60, 40), (40, 60, 220)
    labels = np.zeros((48, 64), np.uint8)
    labels[8:24, 8:28], labels[28:44, 36:60] = 1, 2
    Image.fromarray(labels).save("labels.png")
    Path("clip").mkdir()
    for t, frame in enumerate(clip):
        Image.fromarray(frame).save(f"clip/img_{t + 3}.png")
    write(Path("p.json"), [{"file": "img_4.png", "labels": "labels.png"}])
    write(
        Path("q.json"),
        {"clip": [{"frame": 1, "id": 5, "box": [8, 8, 28, 24]}], "other": [{"frame": 9, "id": 1, "box": [0, 0, 2, 2]}]},
    )
    for words, ids in (
        (["--prompt", "1:labels.png"], [1, 2]),
        (["--prompts", "p.json"], [1, 2]),
        (["--prompts", "q.json"], [5]),
        (["--prompts", "q.json", "--prompt", "1:1:labels.png"], [1, 5]),
    ):
        command = ["track", "clip", "-o", "out", *words, "--propagator", "affinity", "--no-overlay", "--overwrite"]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        result = masklet.VideoResult.load("out/clip/masklets.json")
        assert [m.id for m in result.masklets] == ids and all(1 in m.sightings for m in result.masklets)
    for words, text in (
        (["--prompts", "none.json"], "none.json"),
        ([], "no prompt; give --prompt"),
        (["--prompt", "9:labels.png"], "prompt in frame 9, but clip has 4 frames"),
    ):
        done = CliRunner().invoke(app, ["track", "clip", "-o", "bad", *words, "--propagator", "affinity"])
        assert done.exit_code == 2 and text in done.output, done.output
    write(Path("r.json"), [{"frame": 9, "id": 1, "box": [0, 0, 2, 2]}])
    done = CliRunner().invoke(app, ["track", "clip", "-o", "bad", "--prompts", "r.json", "--propagator", "affinity"])
    assert done.exit_code == 2 and "r.json: the prompt for frame 9 is of no frame of clip (4 frames" in done.output


@pytest.mark.parametrize("suffix", ["png", "npz"])
def test_the_last_mask_of_another_size_is_found_before_any_work(suffix: str, tmp_path: Path) -> None:
    for t in range(LENGTH):
        mask = MASK if t < LENGTH - 1 else MASK[:5]
        if suffix == "png":
            Image.fromarray(mask).save(tmp_path / f"{t}.png")
        else:
            np.savez(tmp_path / f"{t}.npz", masks=mask[None])
    video = FramesInMemory([np.zeros((H, W, 3), np.uint8)] * LENGTH, "clip")
    with pytest.raises(InputError, match=rf"3.{suffix}: the \w+ are 16x5, the video 16x12"):
        Precomputed(read_detections(tmp_path)).bind_video(video)


PROBABILITIES = np.where(MASK, 0.75, 0.25)


@pytest.mark.parametrize(
    "masks",
    [
        MASK,
        MASK.astype(np.int64),
        PROBABILITIES.astype(np.float16),
        (PROBABILITIES * 255).astype(np.uint8),
        (PROBABILITIES * 65535).astype(np.uint16),
    ],
    ids=lambda masks: str(masks.dtype),
)
@pytest.mark.parametrize("inside", ["", "clip"])
def test_arrays_of_masks_with_scores_and_names(masks: np.ndarray, inside: str, tmp_path: Path) -> None:
    for n, more in (("2", {"labels": [1], "categories": ["cat", "dog"]}), ("1", {}), ("0", {"labels": [7]})):
        (tmp_path / inside).mkdir(exist_ok=True)
        np.savez_compressed(tmp_path / inside / f"img_{n}.npz", masks=masks[None], scores=[0.25], **more)
    found = detect(tmp_path, tuple(f"img_{t}" for t in range(LENGTH)))
    assert [[(name, score) for name, score, _ in frame] for frame in found] == [
        [("7", 0.25)], [("object", 0.25)], [("dog", 0.25)], []
    ]  # fmt: skip
    assert all(code == ONE[0][0][2] for frame in found for *_, code in frame)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"mask": MASK}, "'masks.npy' in the archive"),
        ({"masks": MASK}, r"'masks' is \[12, 16\]"),
        ({"masks": MASK[None, :5]}, "the masks are 16x5, the video 16x12"),
        ({"masks": MASK[None] * 3}, "'masks' of int64 from 0 to 3 are neither masks nor probabilities"),
        ({"masks": MASK[None] * np.uint8(100)}, "'masks' of uint8 from 0 to 100 are neither"),
        ({"masks": MASK[None] * 4.0 - 2}, "'masks' of float64 from -2 to 2 are neither"),
        ({"masks": MASK[None] * np.nan}, "from nan to nan are neither"),
        ({"masks": MASK[None], "scores": [0.5, 0.5]}, r"'scores' is \[2\] of float64; give 1 numbers"),
        ({"masks": MASK[None], "scores": [1.5]}, "'scores' must be from 0 to 1"),
        ({"masks": MASK[None], "labels": [2], "categories": ["a"]}, "'labels' are 2 to 2"),
        ({"masks": MASK[None], "labels": [-1]}, "'labels' are -1 to -1"),
        ({"masks": np.full((1, H, W), "a")}, "'masks' of <U1 are no numbers"),
        ({"masks": np.array([None])}, r"'masks' is \[1\] of object"),
    ],
)
def test_arrays_that_cannot_be_told_are_refused(arrays: dict[str, Any], words: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "0.npz", **arrays)
    with pytest.raises(InputError, match=words):
        detect(tmp_path)


def test_a_huge_array_is_refused_by_its_header(tmp_path: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 12, 16000), }"
    with ZipFile(tmp_path / "0.npz", "w") as archive:
        archive.writestr("masks.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(InputError, match="at most 4,294,967,296 bytes are taken"):
        detect(tmp_path)


def test_probabilities_as_images_where_they_are_declared(tmp_path: Path) -> None:
    for t, depth in enumerate((np.uint8, np.uint16)):
        Image.fromarray((PROBABILITIES * np.iinfo(depth).max).astype(depth)).save(tmp_path / f"{t}.png")
    assert [len(frame) for frame in detect(tmp_path)] == [2, 2, 0, 0]  # two values are ids
    write(tmp_path / "values.json", {"values": "probabilities"})
    assert detect(tmp_path)[:2] == ONE * 2
    write(tmp_path / "values.json", {"values": "logits"})
    with pytest.raises(InputError, match="says 'logits'; write"):
        detect(tmp_path)


STUFF = [
    {"id": 1, "name": "sky", "isthing": 0},
    {"id": 2, "name": "dog", "isthing": 1},
    {"id": 3, "name": "cat"},
]


def test_categories_that_are_no_things_are_told_to_deva(tmp_path: Path) -> None:
    entry = {"frame": 0, "score": 0.5, "segmentation": CODE}
    entries = [{**entry, "category_id": id} for id in (1, 2, 3)]
    path = write(tmp_path / "coco.json", {"annotations": entries, "categories": STUFF})
    assert read_detections(path).stuff == ("sky",)
    made = masklet.load("deva", segmenter=str(path), propagator="affinity").system
    assert made.settings.stuff == ("sky",)
    write(tmp_path / "coco.json", {"annotations": entries, "categories": [{**STUFF[0], "isthing": "no"}]})
    with pytest.raises(InputError, match="'isthing' must be true or false"):
        read_detections(path)


def test_stuff_of_segments_beside_images_and_of_results(tmp_path: Path) -> None:
    (tmp_path / "deva").mkdir()
    Image.fromarray(np.where(MASK, 3, 9).astype(np.uint8)).save(tmp_path / "deva/0.png")
    segments = [{"id": 3, "category_id": 2}, {"id": 9, "category_id": 1, "isthing": False}]
    write(tmp_path / "deva/0.json", {"segments_info": segments})
    assert read_detections(tmp_path / "deva").stuff == ("1",)
    result = make_result(0, 2)
    masklets = (result.masklets[0], replace(result.masklets[1], is_thing=False))
    replace(result, masklets=masklets).save(tmp_path / "masklets.json")
    assert read_detections(tmp_path / "masklets.json").stuff == ("dog",)


def test_scores_are_those_of_the_frames(tmp_path: Path) -> None:
    [masklet_] = make_result(0, 1).masklets
    seen = {0: replace(masklet_.sightings[0], score=0.25)}
    seen[1] = replace(seen[0], score=0.01, source=Source.FORWARD)
    replace(make_result(0, 1), masklets=(replace(masklet_, sightings=seen, score=0.5),)).save(
        tmp_path / "masklets.json"
    )
    assert [[score for _, score, _ in frame] for frame in detect(tmp_path / "masklets.json")] == [[0.25], [0.5], [], []]


ROW = {"category_id": 3, "score": 0.5, "bbox": [1, 2, 5, 4], "segmentation": [[1, 2, 6, 2, 6, 6, 1, 6]]}


@pytest.mark.parametrize(
    "content",
    [
        [{**ROW, "file_name": "c/00102.jpg"}],
        [{**ROW, "image": "00102.png", "image_id": 77}],
        [{**ROW, "frame": "00102.jpg"}],
        [{**ROW, "frame": "00102"}],
        [{**ROW, "frame": "2"}],
        [{**ROW, "frame_index": 2.0}],
        {"predictions": [{**ROW, "frame": 2}], "categories": [{"id": 3, "name": "3"}]},
        {"results": [{**ROW, "image_id": "00102"}]},
        {"0": [], "2": [ROW]},
        {"00101.jpg": [], "00102.jpg": [ROW]},
    ],
)
def test_an_entry_says_its_frame_in_many_ways(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.write_text(json.dumps(content))
    found = detect(path, tuple(f"{100 + t:05d}" for t in range(LENGTH)))
    assert [[(name, score) for name, score, _ in frame] for frame in found] == [[], [], [("3", 0.5)], []]


@pytest.mark.parametrize(
    "content",
    [[{**ROW, "frame": 1.5}], [{**ROW, "frame": "-1"}], [{**ROW}], {"clip": [3]}, {"clip": [{**ROW, "frame": 2}]}, {}],
)
def test_an_entry_that_says_no_frame_is_refused(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"found.json: "):
        detect(path, tuple(f"{100 + t:05d}" for t in range(LENGTH)))


def test_a_folder_of_results_says_which_file_is_meant(tmp_path: Path) -> None:
    (tmp_path / "out" / "clip").mkdir(parents=True)
    make_result(0).save(tmp_path / "out" / "clip" / "masklets.json")
    for folder in (tmp_path / "out", tmp_path / "out" / "clip"):
        with pytest.raises(
            InputError, match=r"a folder of results; give the file of one, such as .*clip/masklets\.json"
        ):
            read_detections(folder)
    (tmp_path / "out" / "clip" / "davis").mkdir()
    Image.new("L", (3, 2)).save(tmp_path / "out" / "clip" / "davis" / "0.png")  # as --format davis adds it
    with pytest.raises(InputError, match="a folder of results"):
        read_detections(tmp_path / "out")
