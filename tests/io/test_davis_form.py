"""DAVIS's forms and their kin, both ways; the limit on the objects."""

from __future__ import annotations

import numpy as np
import pytest
from forms import NAMES, apart, bits, by_id, drafts, frame, made, masklet, pixels, video
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from masklet.core.errors import InputError
from masklet.io.formats.davis import (
    read_davis,
    read_davis16,
    read_referring,
    write_davis,
    write_davis16,
    write_referring,
)
from masklet.io.formats.postprocess import (
    FrameSegment,
    VideoIds,
    limit_as_released,
    limit_objects,
    merge_stuff,
    replace_label_ids,
)

PAGE = np.array([[0, 7, 7], [255, 9, 0]], np.uint8)


@given(drafts("v", st.integers(1, 254)))
def test_palette_images_keep_ids_and_masks(tmp_path_factory, draft):
    result, folder = apart(made(draft)), tmp_path_factory.mktemp("d")
    write_davis(result, folder / "v")
    back = read_davis(folder / "v")
    assert frame(back) == frame(result) and by_id(back) == by_id(result)
    assert all((m.label, m.score, m.is_thing) == (-1, 1.0, True) for m in back.masklets)  # names, scores, stuff: lost
    write_davis(back, folder / "w")
    for path in (folder / "v").iterdir():
        assert (folder / "w" / path.name).read_bytes() == path.read_bytes()


def test_void_is_no_object(tmp_path):
    image = Image.fromarray(PAGE)
    image.putpalette(list(range(256)) * 3)
    image.save(tmp_path / "2.png")
    Image.fromarray(np.zeros_like(PAGE)).save(tmp_path / "10.png")  # grey; numbers count in the order
    back = read_davis(tmp_path)
    assert back.length == 2 and by_id(back) == {7: {0: bits("011 000").counts}, 9: {0: bits("000 010").counts}}
    write_davis(video(masklet(255, {0: "111 000"}), masklet(3, {0: "000 001"})), tmp_path / "v")
    assert [m.id for m in read_davis(tmp_path / "v").masklets] == [3]  # the form's one id that is lost


def test_what_is_255_and_nothing_else_in_any_image_is_an_object(tmp_path):
    """DAVIS 2016: white on black, in some frames nothing."""
    write_davis16(video(masklet(1, {0: "111 000", 2: "000 001"})), tmp_path / "v")
    assert by_id(read_davis(tmp_path / "v")) == {255: {0: bits("111 000").counts, 2: bits("000 001").counts}}


@given(drafts("v"))
def test_one_object_is_the_union(tmp_path_factory, draft):
    result, folder = made(draft), tmp_path_factory.mktemp("d")
    write_davis16(result, folder / "v")
    back = read_davis16(folder / "v")
    assert frame(back) == frame(result) and by_id(back) == {k: v for k, v in {1: union(result, -2)}.items() if v}
    page = np.array(Image.open(folder / "v" / "00000.png"))
    assert page.dtype == np.uint8 and set(np.unique(page)) <= {0, 255}


@given(drafts("v", labels=st.integers(0, 2)))
def test_an_expression_is_a_folder_of_masks(tmp_path_factory, draft):
    result, folder = made(draft), tmp_path_factory.mktemp("d")
    write_referring(result, folder / "v")
    back = read_referring(folder / "v")
    assert frame(back) == frame(result) and back.categories == ("0", "1", "2")
    assert {m.id - 1: pixels(m) for m in back.masklets} == {n: u for n in range(3) if (u := union(result, n))}
    assert all(m.label == m.id - 1 for m in back.masklets)
    write_referring(back, folder / "w", expressions=back.categories)
    for path in (folder / "v").rglob("*.png"):
        assert (folder / "w" / path.relative_to(folder / "v")).read_bytes() == path.read_bytes()


def union(result, label):
    """The pixels of all objects of a label (-2: any) by frame."""
    found = {}
    for t in range(result.length):
        masks = [s.mask.decode().numpy() for m, s in result.at(t) if label in (-2, m.label)]
        if masks:
            rows = " ".join("".join(str(int(p)) for p in row) for row in np.any(masks, axis=0))
            found[t] = bits(rows).counts
    return found


def test_every_expression_has_every_frame(tmp_path):
    made = video(masklet(3, {1: "110 000"}, 1), masklet(4, {1: "000 011"}, 1), masklet(5, {0: "111 111"}, -1))
    write_referring(made, tmp_path / "v", ["a", "b", "c"], ["10", "2", "x y"])
    assert [p.relative_to(tmp_path).as_posix() for p in sorted(tmp_path.rglob("*.png"))] == [
        f"v/{e}/{n}.png" for e in ("10", "2", "x y") for n in "abc"
    ]
    back = read_referring(tmp_path / "v")
    assert back.categories == ("2", "10", "x y")
    assert [pixels(m) for m in back.masklets] == [{1: bits("110 011").counts}]
    for wrong in (["1"], ["1", "1", "2"]):
        with pytest.raises(InputError, match=r"clip: [12] expressions"):
            write_referring(made, tmp_path / "w", None, wrong)


def test_masks_may_come_in_any_kind_of_black_and_white(tmp_path):
    inside = np.array([[0, 1, 0], [0, 0, 1]], bool)
    images = [inside, inside.astype(np.uint8), inside.astype(np.uint8) * 200, np.stack([inside * np.uint8(9)] * 3, -1)]
    for n, pixels_ in enumerate(images):
        Image.fromarray(pixels_).save(tmp_path / f"{n}.png")
    back = read_davis16(tmp_path)
    assert by_id(back) == {1: dict.fromkeys(range(4), bits("010 001").counts)}


@pytest.mark.parametrize("reader", [read_davis, read_davis16])
@pytest.mark.parametrize(
    ("page", "words"),
    [
        (np.zeros((2, 3), np.uint16), "1.png: an image of mode I;16; give"),
        (np.zeros((3, 3), np.uint8), "1.png: 3x3 pixels, the video has 3x2; give frames of one size"),
        (b"no picture", "1.png: not an image that can be read"),
    ],
)
def test_an_image_that_does_not_fit_is_named(tmp_path, reader, page, words):
    Image.fromarray(PAGE).save(tmp_path / "0.png")
    path = tmp_path / "1.png"
    path.write_bytes(page) if isinstance(page, bytes) else Image.fromarray(page).save(path)
    with pytest.raises(InputError, match=words):
        reader(tmp_path)


def test_folders_without_images_are_named(tmp_path):
    with pytest.raises(InputError, match="no png in this folder"):
        read_davis(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        read_davis(tmp_path / "none")
    with pytest.raises(InputError, match="none in it; give a video's folder with one per expression"):
        read_referring(tmp_path)
    with pytest.raises(InputError, match="none: no such folder"):
        read_referring(tmp_path / "none")
    write_davis16(video(), tmp_path / "0")
    write_davis16(video(length=2), tmp_path / "1")
    with pytest.raises(InputError, match=r"1: 2 frames of \(2, 3\) \(height, width\), not 3 of \(2, 3\)"):
        read_referring(tmp_path)


@pytest.mark.parametrize("id", [0, -1, 256])
def test_an_id_that_no_palette_holds_is_named(tmp_path, id):
    with pytest.raises(InputError, match=f"clip: object {id} does not fit into a palette PNG"):
        write_davis(video(masklet(id, {0: "111 111"})), tmp_path / "v")
    assert not list(tmp_path.iterdir())


def test_the_limit_keeps_the_most_seen_then_the_largest():
    result = video(
        masklet(3, {0: "111 111"}),
        masklet(8, {0: "100 000", 1: "100 000"}),
        masklet(9, {0: "100 000", 2: "110 000"}),
        masklet(5, {0: "100 000", 1: "100 000", 2: "100 000"}),
    )
    limited = limit_objects(result, 2)
    assert by_id(limited) == {1: pixels(result.masklets[3]), 2: pixels(result.masklets[2])}
    assert [m.id for m in limit_objects(result, 20).masklets] == [1, 2, 3, 4]
    assert limit_objects(result, 20).masklets[0].sightings == result.masklets[0].sightings  # 3 before 5


@given(drafts("v"), st.integers(0, 5))
def test_the_limit_holds(draft, most):
    result = made(draft)
    limited = limit_objects(result, most)
    assert [m.id for m in limited.masklets] == list(range(1, min(most, len(result.masklets)) + 1))
    kept, all_ = ([len(m.sightings) for m in r.masklets] for r in (limited, result))
    assert sorted(kept) == sorted(all_)[len(all_) - len(kept) :]


def test_the_released_limit_counts_repeats():
    pages = np.zeros((3, 2, 4), int)
    pages[:2, 0, :2], pages[:2, 0, 2:], pages[2] = 5, 6, 9
    assert limit_as_released(pages, 4) == {6: 3, 5: 4}  # of equals the higher first; listed twice, so 9 goes
    assert limit_as_released(pages, 3) == {5: 2, 6: 3}
    assert limit_as_released(pages, 20) == {6: 3, 5: 4, 9: 5}
    assert replace_label_ids(pages[2], {6: 3, 5: 4}).tolist() == [[0] * 4] * 2
    assert limit_as_released([], 20) == {}


def test_ids_of_a_video():
    ids = VideoIds()
    order = [(5, 0, True), (5, 1, True), (5, 0, True), (7, 1, True), (8, 2, False), (9, 2, False), (256, 3, False)]
    assert [ids.of(FrameSegment(*s)) for s in order] == [5, 256, 5, 7, 8, 8, 257]  # 256 is taken by the changed 5
    [(page, segments)] = merge_stuff([(np.array([[1, 2, 3]]), [FrameSegment(1, 4, False), FrameSegment(2, 4, False)])])
    assert page.tolist() == [[1, 1, 0]] and segments == (FrameSegment(1, 4, False),)


def test_names_of_frames_are_checked(tmp_path):
    with pytest.raises(InputError, match="clip: 2 different names for 3 frames"):
        write_davis16(video(), tmp_path / "v", ["a", "b"])
    assert len(NAMES) == 3 and not list(tmp_path.iterdir())
