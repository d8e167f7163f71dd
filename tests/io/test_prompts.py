from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from masklet.core.annotations import VideoFrames
from masklet.core.errors import InputError
from masklet.core.instances import Box, Clicks, Point
from masklet.io.prompts import compute_prompt_hash, parse_prompts, read_prompts


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    pixels = np.zeros((6, 8), np.uint8)
    pixels[1:3, 2:5], pixels[4, 4] = 1, 2
    image = Image.fromarray(pixels)
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    image.save(tmp_path / "ids.png")
    Image.fromarray((pixels > 0) * np.uint8(200)).save(tmp_path / "grey.png")
    Image.new("RGB", (8, 6)).save(tmp_path / "black.png")
    (tmp_path / "text.png").write_text("no image")
    return tmp_path


def test_boxes_points_and_masks_by_frame_and_id(mask: Path) -> None:
    got = read_prompts(["3:1:box=1,2,3.5,4", "3:2:point=5,6", f"0:2:{mask / 'ids.png'}"])
    assert got[3] == {1: Box(1, 2, 3.5, 4), 2: Point(5, 6)}
    assert isinstance(got[0][2], torch.Tensor) and got[0][2].nonzero().tolist() == [[4, 4]]


def test_a_palette_image_is_read_by_id_and_one_value_elsewhere_is_a_mask(mask: Path) -> None:
    for id, file, pixels in ((1, "ids.png", 6), (2, "ids.png", 1), (9, "grey.png", 7)):
        assert int(read_prompts([f"0:{id}:{mask / file}"])[0][id].sum()) == pixels


def test_a_path_may_have_colons(mask: Path) -> None:
    odd = mask / "a:b.png"
    odd.write_bytes((mask / "grey.png").read_bytes())
    assert read_prompts([f"0:1:{odd}"])[0][1].any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3:mask.txt", "write it as FRAME:ID:mask.png"),
        ("3:mask.png", "no such file"),
        ("-1:1:point=1,1", "write it as FRAME:ID"),
        ("x:1:point=1,1", "write it as FRAME:ID"),
        ("0:1:box=1,2,3", "4 numbers are needed"),
        ("0:1:point=1,nan", "2 numbers are needed"),
        ("0:1:point=", "2 numbers are needed"),
        ("0:1:none.png", "no such file"),
        ("0:1:text.png", "not an image that can be read"),
        ("0:1:black.png", "no pixel that is not black"),
        ("0:3:ids.png", "no pixel of value 3"),
    ],
)
def test_what_is_malformed_is_named(text: str, message: str, mask: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mask)
    with pytest.raises(InputError, match=message):
        read_prompts([text])


def test_points_correct_a_mask_of_the_same_frame(mask: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mask)
    clicks = read_prompts(["0:1:outside=1,1", "0:1:grey.png", "0:1:point=2,3"])[0][1]
    assert isinstance(clicks, Clicks) and clicks.points == (Point(1, 1, inside=False), Point(2, 3))
    assert clicks.mask is not None and torch.equal(clicks.mask, read_prompts(["0:1:grey.png"])[0][1])


@pytest.mark.parametrize(("first", "second"), [("grey.png", "box=1,2,8,9"), ("box=1,2,8,9", "grey.png")])
def test_an_object_is_marked_once_in_a_frame(
    mask: Path, monkeypatch: pytest.MonkeyPatch, first: str, second: str
) -> None:
    monkeypatch.chdir(mask)
    with pytest.raises(InputError, match=f"a {'mask' if first.endswith('png') else 'box'} in this frame already"):
        read_prompts([f"0:1:{first}", f"0:1:{second}"])


def test_points_and_a_box_of_one_object_are_one_prompt() -> None:
    texts = ["0:1:point=3,4", "0:1:outside=9,9", "0:1:box=1,2,8,9", "2:1:point=5,5"]
    clicks = Clicks((Point(3, 4), Point(9, 9, inside=False)), Box(1, 2, 8, 9))
    assert read_prompts(texts) == {0: {1: clicks}, 2: {1: Point(5, 5)}}


def test_one_object_has_one_box_in_a_frame() -> None:
    with pytest.raises(InputError, match="a box in this frame already"):
        read_prompts(["0:1:box=1,2,8,9", "0:1:point=2,3", "0:1:box=1,2,9,9"])


def test_equal_prompts_have_one_hash_however_they_are_written(mask: Path) -> None:
    """Or a run that goes on with the same command, written otherwise, would be refused."""

    def written(*entries: dict[str, Any]) -> str:
        return compute_prompt_hash(parse_prompts("p", list(entries), mask).prompts)

    def typed(*texts: str) -> str:
        return compute_prompt_hash(read_prompts(texts).items())

    ids, box, click = f"2:2:{mask / 'ids.png'}", "0:1:box=1,2,3,4", "0:1:outside=5,5"
    in_file = [
        {"frame": 2, "id": 2, "mask": "ids.png"},
        {"frame": 0, "id": 1, "box": [1, 2, 3, 4], "outside": [[5, 5]]},
    ]
    apart = [{"frame": 0, "id": 1, "box": [1, 2, 3, 4]}, {"frame": 0, "id": 1, "outside": [[5, 5]]}, in_file[0]]
    assert len({typed(ids, box, click), typed(box, click, ids), written(*in_file), written(*apart)}) == 1
    assert len({typed(ids, box), typed(box), typed(ids, "0:1:box=1,2,3,5"), typed(ids, "0:3:box=1,2,3,4")}) == 4
    assert typed("0:1:point=1,1", "0:1:point=2,2") != typed(
        "0:1:point=2,2", "0:1:point=1,1"
    )  # the order of clicks counts


def test_prompts_of_another_video_are_not_taken_for_this_one() -> None:
    told = [{"frame": 0, "id": 1, "box": [1, 2, 3, 4]}]
    ours = parse_prompts("p.json", {"clip": told, "other": told}, Path())
    assert ours.select(VideoFrames("clip", 3)) == {0: {1: Clicks((), Box(1, 2, 3, 4))}}
    theirs = parse_prompts("p.json", {"other": told}, Path())
    with pytest.raises(InputError, match="is of a video called other, not clip"):
        theirs.select(VideoFrames("clip", 3))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"frame": 0, "id": 1, "box": [1, 2, 3, 4]}, r"p: one prompt by itself; put it in a list, \[\{\.\.\.\}\]"),
        ({"clip": 3}, "p: 'clip' must be a list of prompts"),
        ([{"frame": 0, "id": 1, "point": [1, 2]}], "p: prompt 0: no key 'point'; did you mean points"),
        ([{"frame": 0, "id": 1, "mask": "gone.png"}], r"p: prompt 0: .*gone\.png: no such file"),
        ([{"frame": 0, "labels": "gone.png"}], r"p: prompt 0: .*gone\.png: no such file"),
    ],
)
def test_what_is_wrong_in_a_file_of_prompts_is_said_at_its_place(content: Any, said: str, tmp_path: Path) -> None:
    """What is not known is refused: a prompt that is passed over would be missed later."""
    with pytest.raises(InputError, match=said):
        parse_prompts("p", content, tmp_path)
