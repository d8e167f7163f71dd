from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from masklet.core.errors import InputError
from masklet.core.instances import FrameMasks
from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.view import drawing
from masklet.view.drawing import DrawingStyle, DrawnObject, draw_objects
from masklet.view.strokes import Stroke, round_outline

SIZE = (270, 480)


def mask(y0, y1, x0, x1, size=SIZE):
    pixels = np.zeros(size, dtype=bool)
    pixels[y0:y1, x0:x1] = True
    return pixels


def image(value=60, size=SIZE):
    return np.full((*size, 3), value, dtype=np.uint8)


def changed(before, after):
    return (before != after).any(axis=2)


def result():
    sighting = Sighting(Rle.encode(torch.from_numpy(mask(100, 150, 200, 260))), Source.BACKWARD, 0.3)
    seen = Masklet(2, {1: sighting}, label=0, score=0.8)
    return VideoResult("clip", SIZE, 3, 25.0, (seen,), ("car",), Provenance("test"))


def test_an_object_is_tinted_and_the_frame_left_alone():
    frame = image()
    picture = draw_objects(frame, [DrawnObject(1, "car", 0.9, mask(100, 200, 100, 300))])
    assert (frame == 60).all()
    expected = np.round(0.6 * 60 + 0.4 * np.array(drawing.pick_object_colour(1)))
    assert (picture[120:180, 120:280] == expected).all()


def test_nothing_is_drawn_where_there_is_nothing():
    frame = image()
    assert (draw_objects(frame, []) == frame).all()
    assert (draw_objects(frame, [DrawnObject(1, "car", 0.9, mask(0, 0, 0, 0))]) == frame).all()


def test_the_contour_shows_on_any_ground():
    thing = DrawnObject(1, "car", 0.9, mask(100, 200, 100, 300))
    for ground in (0, 255):
        column = draw_objects(image(ground), [thing])[150, 90:110].astype(int)
        assert abs(column - drawing.pick_object_colour(1)).sum(axis=1).min() < 40
    assert column.sum(axis=1).min() < 200  # on white the dark ground around it


def test_small_objects_lie_on_top():
    small, large = DrawnObject(1, "a", 1, mask(120, 160, 150, 250)), DrawnObject(2, "b", 1, mask(100, 200, 100, 300))
    pictures = [draw_objects(image(), order) for order in ([small, large], [large, small])]
    assert (pictures[0][130:150, 160:240] == pictures[1][130:150, 160:240]).all()
    rest = draw_objects(image(), [large])
    again = draw_objects(rest, [small])
    assert (pictures[0][130:150, 160:240] == again[130:150, 160:240]).all()


def test_what_was_completed_backward_has_a_dashed_contour():
    thing = {"id": 1, "name": "car", "score": 0.9, "mask": mask(100, 200, 100, 300)}
    dashed, whole = (draw_objects(image(), [DrawnObject(**thing, stroke=s)]) for s in (Stroke.SHORT, Stroke.WHOLE))
    near = [abs(p[199, 105:295].astype(int) - drawing.pick_object_colour(1)).sum(axis=1) < 60 for p in (dashed, whole)]
    assert 0.3 < near[0].mean() < 0.8
    assert near[1].all()


def test_labels_hide_neither_objects_nor_each_other():
    things = [DrawnObject(i, "person", 0.9, mask(100, 180, 100 + 40 * i, 130 + 40 * i)) for i in range(1, 6)]
    frame = image()
    outside = changed(frame, draw_objects(frame, things))
    for thing in things:
        outside[thing.mask] = False
    one = drawing.render_lettering("person 1  0.90", 11).size
    assert outside.sum() > 5 * one  # five labels, none over another, beside the contours' outer edges


@settings(max_examples=60)
@given(
    st.tuples(st.integers(0, 269), st.integers(0, 479), st.integers(1, 269), st.integers(1, 479)),
    st.tuples(st.integers(1, 60), st.integers(1, 300)),
)
def test_a_label_lies_within_the_frame(corner, size):
    y0, x0, h, w = corner
    taken = mask(y0, y0 + h, x0, x0 + w).astype(np.uint8)
    x, y = drawing.find_label_place(drawing.find_bounding_box(taken > 0), size, taken)
    assert 0 <= x <= SIZE[1] - size[1] and 0 <= y <= SIZE[0] - size[0]


@pytest.mark.parametrize("box, where", [((200, 100, 260, 150), "above"), ((200, 0, 260, 150), "below")])
def test_a_label_lies_above_or_else_below(box, where):
    x0, y0, x1, y1 = box
    taken = mask(y0, y1, x0, x1).astype(np.uint8)
    x, y = drawing.find_label_place(box, (18, 80), taken)
    assert x == 190
    assert y == (y0 - 18 - 3 if where == "above" else y1 + 3)


@pytest.mark.parametrize("size", [(1, 1), (9, 16), (16, 9), (1080, 1920)])
def test_frames_of_any_size(size):
    full = DrawnObject(1, "a long name of an object", 1.0, np.ones(size, dtype=bool), stroke=Stroke.SHORT)
    style = DrawingStyle(smooth=4.0, trails=2, legend=True, numbers=True)
    words = [drawing.Lettering("frame 1"), drawing.Lettering("backward", Stroke.SHORT)]
    assert draw_objects(image(size=size), [full], style, words, words).shape == (*size, 3)


def test_text_and_lines_grow_with_the_frame():
    ratios = []
    for scale in (1, 4):
        size = (270 * scale, 480 * scale)
        frame, thing = image(size=size), mask(100 * scale, 200 * scale, 100 * scale, 300 * scale, size)
        outside = changed(frame, draw_objects(frame, [DrawnObject(1, "car", 0.9, thing)])) & ~thing
        ratios.append(outside.mean())
    assert ratios[1] == pytest.approx(ratios[0], rel=0.4)


def test_colours_are_the_ids_own_and_tell_neighbours_apart():
    colours = [drawing.pick_object_colour(i) for i in range(1, 13)]
    assert len(set(colours)) == 12
    assert drawing.pick_object_colour(13) == drawing.pick_object_colour(1) == drawing.PALETTE[0]
    steps = np.linalg.norm(np.diff(np.array(colours, dtype=float), axis=0), axis=1)
    assert steps.min() > 100


def test_a_result_is_drawn_with_its_names_and_scores():
    [thing] = drawing.collect_drawn_objects(result(), 1)
    assert (thing.id, thing.name, thing.score, thing.stroke) == (2, "car", 0.8, Stroke.SHORT)
    assert (thing.mask == mask(100, 150, 200, 260)).all()
    assert (drawing.draw_result(image(), result(), 1) == draw_objects(image(), [thing])).all()
    assert (drawing.draw_result(image(), result(), 0) == image()).all()
    with pytest.raises(InputError, match="no frame 3"):
        drawing.draw_result(image(), result(), 3)


def moving_result():
    """A square that goes 10 pixels to the right a frame; detected, then forward, then backward."""
    seen = {
        t: Sighting(Rle.encode_pixels(mask(100, 160, 100 + 10 * t, 160 + 10 * t)), source)
        for t, source in enumerate((Source.DETECTED, Source.FORWARD, Source.BACKWARD))
    }
    return VideoResult("clip", SIZE, 3, 25.0, (Masklet(1, seen, 0, 0.8),), ("car",), Provenance("test"))


PLAIN = {"labels": False, "contours": False, "opacity": 0.0}


def test_a_trail_leads_to_the_object_from_where_it_was():
    frame, moves = image(), moving_result()
    assert (drawing.draw_result(frame, moves, 2, DrawingStyle(**PLAIN)) == frame).all()
    trail = changed(frame, drawing.draw_result(frame, moves, 2, DrawingStyle(**PLAIN, trails=2)))
    assert trail[130, 130:150].all() and not trail[130, :126].any() and not trail[130, 157:].any()
    assert not trail[:123].any() and not trail[138:].any()
    short = changed(frame, drawing.draw_result(frame, moves, 2, DrawingStyle(**PLAIN, trails=1)))
    assert short[130, 140:150].all() and not short[130, :136].any()
    orange = drawing.draw_result(frame, moves, 2, DrawingStyle(**PLAIN, trails=2))[129:131, 135].astype(int)
    assert abs(orange - drawing.pick_object_colour(1)).sum(axis=1).min() < 40


def test_a_legend_says_what_strokes_mean():
    """As much of an outline is drawn as of the example beside the word, and each source has another share."""
    style = DrawingStyle(labels=False, opacity=0.0, legend=True)
    shares = []
    for t in range(3):
        drawn = drawing.draw_result(image(), moving_result(), t, style)
        edge = abs(drawn[100, 102 + 10 * t : 158 + 10 * t].astype(int) - drawing.pick_object_colour(1)).sum(axis=1)
        shares.append(float((edge < 150).mean()))
        assert (drawn[-20:, 40] != 60).any() and (drawn[:90] == 60).all()  # in the lower left corner
    assert shares[0] == 1.0 and 0.6 < shares[1] < 0.9 and 0.35 < shares[2] < 0.65
    plates = [drawing._render_plate(drawing.Lettering("", stroke), 40) for stroke in drawing.LEGEND.values()]
    examples = [float((plate[len(plate) // 2, 20:160] < 50).all(axis=1).mean()) for plate in plates]
    assert examples[0] == 1.0 and examples[1] > examples[2] > 0.3


def test_each_frame_has_its_number_in_the_corner():
    frame, style = image(), DrawingStyle(**PLAIN, numbers=True)
    numbers = [drawing.draw_result(frame, moving_result(), t, style) for t in (0, 1)]
    where = changed(numbers[0], numbers[1])
    assert where[:20, :100].any() and not where[20:].any() and not where[:, 100:].any()
    letters = drawing.render_lettering("frame 1", 11)
    assert (numbers[1][: letters.shape[0], : letters.shape[1], 0] == (210 * (1 - letters)).astype(np.uint8)).all()


def test_rounded_outlines_lose_their_stairs():
    y, x = np.mgrid[:80, :80]
    disc = ((y - 40) // 8 * 8) ** 2 + ((x - 40) // 8 * 8) ** 2 < 900  # in blocks of 8 pixels
    [outline], _ = drawing.cv2.findContours(disc.astype(np.uint8), 0, drawing.cv2.CHAIN_APPROX_NONE)
    assert round_outline(outline, 0.0) is outline
    lengths = [drawing.cv2.arcLength(round_outline(outline, r).astype(np.float32), True) for r in (0.0, 2.0, 8.0)]
    assert lengths[0] > lengths[1] > lengths[2] > 2 * np.pi * 26
    assert np.abs(round_outline(outline, 2.0) - outline).max() < 4
    dot = np.array([[[5, 5]]], np.int32)
    assert (round_outline(dot, 3.0) == dot).all()


def test_a_stream_is_drawn_without_its_absent_objects():
    masks = torch.from_numpy(np.stack([mask(10, 20, 10, 20), mask(0, 0, 0, 0), mask(30, 40, 30, 40)]))
    answer = FrameMasks(7, (4, 5, 6), masks, torch.tensor([0.5, 0.6, 0.75]), torch.tensor([-1, 0, 0]))
    things = drawing.collect_live_objects(answer, ("dog",))
    assert [(t.id, t.name, t.score) for t in things] == [(4, "object", 0.5), (6, "dog", 0.75)]


def test_contact_sheet():
    sheet = drawing.build_contact_sheet([image(v, (2, 3)) for v in (1, 2, 3)], columns=2, gap=1)
    assert sheet[..., 0].tolist() == [
        [1, 1, 1, 255, 2, 2, 2],
        [1, 1, 1, 255, 2, 2, 2],
        [255] * 7,
        [3, 3, 3, 255, 255, 255, 255],
        [3, 3, 3, 255, 255, 255, 255],
    ]


def test_the_label_of_each_of_many_objects_is_rendered_once():
    drawing._render_letters.cache_clear()
    things = [DrawnObject(id, "cell", 0.5, mask(id % 200, id % 200 + 4, 8, 12)) for id in range(1, 601)]
    for _ in range(2):
        draw_objects(image(), things)
    assert drawing._render_letters.cache_info().misses == 600
