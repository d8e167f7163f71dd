"""MOTS's forms, text and PNGs, both ways."""

from __future__ import annotations

import numpy as np
import pytest
from forms import apart, bits, by_id, drafts, frame, made, masklet, pixels, video
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from masklet.core.errors import InputError
from masklet.io.formats.mots import (
    CLASSES,
    choose_mots_classes,
    compute_mots_ids,
    read_mots,
    read_mots_pngs,
    write_mots,
    write_mots_pngs,
)

NUMBERED = {1: "cat", 2: "dog", 3: "bird", 4: "object"}


def expected(result):
    """What comes back of a result without overlaps: full ids."""
    return {compute_mots_ids(result)[m.id]: (result.name_of(m), pixels(m)) for m in result.masklets}


def named(result):
    return {m.id: (result.name_of(m), pixels(m)) for m in result.masklets}


@given(drafts("v", st.integers(0, 999)), st.integers(0, 1))
def test_text_keeps_ids_classes_and_masks(tmp_path_factory, draft, first):
    result, folder = apart(made(draft)), tmp_path_factory.mktemp("m")
    write_mots(result, folder / "v.txt", first=first)
    read = read_mots(folder / "v.txt", NUMBERED, first, result.size, result.length)
    assert frame(read) == frame(result) and named(read) == expected(result)
    write_mots(read, folder / "w.txt", NUMBERED, first)  # what was read is written the same
    assert (folder / "w.txt").read_bytes() == (folder / "v.txt").read_bytes()
    assume(result.masklets)
    bare = read_mots(folder / "v.txt", NUMBERED, first)
    assert (bare.size, bare.length) == (result.size, 1 + max(t for m in result.masklets for t in m.sightings))


@given(drafts("v", st.integers(0, 999)))
def test_pngs_keep_ids_classes_and_masks(tmp_path_factory, draft):
    result, folder = apart(made(draft)), tmp_path_factory.mktemp("m")
    write_mots_pngs(result, folder / "v")
    read = read_mots_pngs(folder / "v", NUMBERED)
    assert frame(read) == frame(result) and named(read) == expected(result)
    write_mots_pngs(read, folder / "w", None, NUMBERED)
    for path in sorted((folder / "v").iterdir()):
        assert (folder / "w" / path.name).read_bytes() == path.read_bytes()


def test_a_worked_example(tmp_path):
    result = video(masklet(6, {0: "010 000"}, 0), masklet(7, {0: "110 110", 2: "001 001"}, 1, 0.5))
    write_mots(result, tmp_path / "v.txt", {1: "cat", 2: "dog"})
    small, large, other = (bits(r).counts.decode() for r in ("010 000", "100 110", "001 001"))
    lines = [f"0 1006 1 2 3 {small}", f"0 2007 2 2 3 {large}", f"2 2007 2 2 3 {other}"]
    assert (tmp_path / "v.txt").read_text().splitlines() == lines  # the smaller is on top
    write_mots_pngs(result, tmp_path / "v", ["a", "b", "c"])
    assert [p.name for p in sorted((tmp_path / "v").iterdir())] == ["a.png", "b.png", "c.png"]
    page = np.array(Image.open(tmp_path / "v" / "a.png"))
    assert page.dtype == np.uint16 and page.tolist() == [[2007, 1006, 0], [2007, 2007, 0]]


def test_scores_and_stuff_are_lost(tmp_path):
    write_mots(video(masklet(7, {0: "110 110"}, 0, 0.5, False)), tmp_path / "v.txt")
    read = read_mots(tmp_path / "v.txt", NUMBERED)
    assert (read.masklets[0].score, read.masklets[0].is_thing, read.length) == (1.0, True, 1)


def test_regions_to_ignore_are_no_object(tmp_path):
    counts = bits("110 110").counts.decode()
    (tmp_path / "v.txt").write_text(f"0 10000 10 2 3 {counts}\n1 1003 1 2 3 {counts}\n")
    read = read_mots(tmp_path / "v.txt")
    assert by_id(read) == {1003: {1: counts.encode()}} and read.categories == tuple(CLASSES.values())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("0 1001 1 2 3", "is not of the form lines of 'frame id class"),
        ("0 x 1 2 3 06", "is not of the form"),
        ("-1 1001 1 2 3 06", "is not of the form"),
        ("3 1001 1 2 3 06", "object 1001 in frame 3, which the video does not have"),
        ("0 1001 2 2 3 06", "object 1001 is said to be of class 2"),
        ("0 3001 3 2 3 06", "object 3001 is of class 3; known are 1 car, 2 pedestrian"),
        ("0 1001 1 2 3 zz", "frame 0, object 1001: .*run lengths"),
        ("0 1001 1 3 2 06", r"frame 0, object 1001: the mask's size is \[3, 2\], the frame's \[2, 3\]"),
        ("1 1002 1 2 3 06", "object 1002 is in this frame already"),
    ],
)
def test_a_mistake_in_a_line_is_named(tmp_path, line, words):
    (tmp_path / "v.txt").write_text(f"1 1002 1 2 3 06\n{line}\n")
    with pytest.raises(InputError, match=rf"v\.txt: line 2: .*{words}"):
        read_mots(tmp_path / "v.txt", length=3)


def test_a_file_that_says_nothing(tmp_path):
    (tmp_path / "v.txt").write_text("")
    with pytest.raises(InputError, match="no line in it"):
        read_mots(tmp_path / "v.txt")
    assert read_mots(tmp_path / "v.txt", size=(2, 3), length=4).length == 4
    (tmp_path / "v.txt").write_bytes(b"\xff\x00")
    with pytest.raises(InputError, match="not a text"):
        read_mots(tmp_path / "v.txt")
    with pytest.raises(InputError, match="cannot be read"):
        read_mots(tmp_path / "none.txt")
    (tmp_path / "v.txt").write_text("0 1001 1 2 3 06\n")
    with pytest.raises(InputError, match="in frame 0, which the video does not have"):
        read_mots(tmp_path / "v.txt", first=1)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((2, 3), np.uint8), "a.png: an image of mode L; give 16 bit images"),
        (np.zeros((3, 3), np.uint16), "b.png: 3x2 pixels, the video has 3x3"),
        (np.full((2, 3), 3001, np.uint16), "image 0: object 3001 is of class 3"),
    ],
)
def test_a_png_that_does_not_fit_is_named(tmp_path, image, words):
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((2, 3), np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(InputError, match=words):
        read_mots_pngs(tmp_path)


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (video(masklet(2500, {0: "100 000"})), "object 2500 of class 1 does not fit"),
        (video(masklet(1, {0: "100 000"}), masklet(1001, {0: "100 000"})), "two objects would have the id 1001"),
        (video(masklet(1, {0: "100 000"}, 9), categories=tuple(map(str, range(10)))), "object 1 of class 10 does not"),
        (video(masklet(1, {0: "100 000"}, 64), categories=tuple(map(str, range(65)))), "object 1 of class 65 does not"),
    ],
)
def test_what_does_not_fit_is_not_written(tmp_path, result, words):
    with pytest.raises(InputError, match=f"clip: {words}"):
        write_mots(result, tmp_path / "v.txt")
    assert not list(tmp_path.iterdir())


def test_an_id_that_begins_with_its_class_stays():
    assert compute_mots_ids(video(masklet(1000, {0: "100 000"}), masklet(1, {0: "100 000"}, 1))) == {
        1000: 1000,
        1: 2001,
    }


def test_a_class_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="object 1 is called 'cat'; the categories there are car, pedestrian"):
        write_mots(video(masklet(1, {0: "100 000"})), tmp_path / "v.txt", CLASSES)


def test_classes_are_kitti_s_where_it_has_them():
    people = video(
        *(masklet(n + 1, {0: "1"}, n) for n in range(9)),
        size=(1, 1),
        categories=("a", "b", "c", "d", "e", "f", "g", "h", "person"),
    )
    assert choose_mots_classes(people) == {
        1: "car", 2: "person", 3: "a", 4: "b", 5: "c", 6: "d", 7: "e", 8: "f", 9: "g", 11: "h",
    }  # fmt: skip
    both = video(masklet(1, {0: "1"}, 0), masklet(2, {0: "1"}, 1), size=(1, 1), categories=("person", "pedestrian"))
    assert choose_mots_classes(both) == {1: "car", 2: "pedestrian", 3: "person"}
    late = video(masklet(1, {0: "1"}, 78), size=(1, 1), categories=tuple(map(str, range(80))))
    assert choose_mots_classes(late) == {1: "car", 2: "person", 3: "78"}
