from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from masklet.core.errors import InputError
from masklet.evaluate.vos.davis import find_davis_sequences

IDS = np.array([[0, 1], [2, 255]], dtype=np.uint8)
BINARY = np.array([[0, 255], [128, 0]], dtype=np.uint8)  # a soft edge is inside


def write(folder, sequence, masks, resolution="480p", mode="P"):
    images, annotations = (folder / part / resolution / sequence for part in ("JPEGImages", "Annotations"))
    images.mkdir(parents=True)
    annotations.mkdir(parents=True)
    for t, values in enumerate(masks):
        Image.new("RGB", (2, 2)).save(images / f"{t:05d}.jpg")
        if values is not None:
            page = Image.fromarray(values)
            if mode == "P":
                page.putpalette([0, 0, 0] * 256)
            page.convert(mode).save(annotations / f"{t:05d}.png")


def truth(folder):
    [sequence] = find_davis_sequences(folder)
    return {t: labels.tolist() for t, labels in sequence.truth().items()}


def test_palette_values_are_ids(tmp_path):
    write(tmp_path, "a", [IDS] * 3)
    assert truth(tmp_path)[0] == IDS.tolist()


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_black_and_white_is_one_object(tmp_path, mode):
    write(tmp_path, "a", [BINARY] * 3, mode=mode)
    assert truth(tmp_path)[2] == [[0, 1], [1, 0]]


def test_a_palette_with_nothing_but_255_is_one_object(tmp_path):
    write(tmp_path, "a", [np.array([[0, 255], [255, 0]], dtype=np.uint8)] * 3)
    assert truth(tmp_path)[0] == [[0, 1], [1, 0]]


def test_grey_ids_are_ids(tmp_path):
    write(tmp_path, "a", [np.array([[0, 1], [2, 0]], dtype=np.uint8)] * 3, mode="L")
    assert truth(tmp_path)[0] == [[0, 1], [2, 0]]


def test_frames_without_an_annotation_keep_their_index(tmp_path):
    write(tmp_path, "a", [IDS, None, IDS, None, IDS, None])
    [sequence] = find_davis_sequences(tmp_path)
    assert (sequence.length, sorted(sequence.truth())) == (6, [0, 2, 4])


def test_480p_is_read_where_there_are_several(tmp_path):
    write(tmp_path, "full", [IDS] * 3, resolution="1080p")
    write(tmp_path, "small", [IDS] * 3)
    assert [s.name for s in find_davis_sequences(tmp_path)] == ["small"]


def test_named_sequences_come_in_the_order_of_their_naming(tmp_path):
    for name in ("a", "b", "c"):
        write(tmp_path, name, [IDS] * 3)
    assert [s.name for s in find_davis_sequences(tmp_path)] == ["a", "b", "c"]
    assert [s.name for s in find_davis_sequences(tmp_path, ("c", "a"))] == ["c", "a"]
    with pytest.raises(InputError, match="no sequence x; it has a, b, c"):
        find_davis_sequences(tmp_path, ("x", "a"))


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(InputError, match=r"JPEGImages is not here; give a folder in DAVIS layout"):
        find_davis_sequences(tmp_path)
    for part in ("JPEGImages", "Annotations"):
        (tmp_path / part).mkdir()
    with pytest.raises(InputError, match="is empty"):
        find_davis_sequences(tmp_path)
    for part in ("JPEGImages", "Annotations"):
        (tmp_path / part / "480p").mkdir()
    with pytest.raises(InputError, match="no sequence at all"):
        find_davis_sequences(tmp_path)


def test_too_few_annotations_to_score(tmp_path):
    write(tmp_path, "a", [IDS, IDS, None])
    with pytest.raises(InputError, match="a: 2 annotated frames"):
        find_davis_sequences(tmp_path)


def test_a_sequence_without_an_object(tmp_path):
    write(tmp_path, "a", [np.zeros((2, 2), np.uint8)] * 3)
    with pytest.raises(InputError, match="a: no object in any annotation"):
        truth(tmp_path)


def test_a_mask_in_any_colour_is_inside(tmp_path):
    write(tmp_path, "a", [BINARY] * 3, mode="RGB")
    for path in tmp_path.glob("Annotations/*/*/*.png"):
        red = np.array(Image.open(path))
        red[..., 1:] = 0
        Image.fromarray(red).save(path)
    assert truth(tmp_path)[0] == [[0, 1], [1, 0]]


def test_annotations_of_other_frames_are_refused(tmp_path):
    write(tmp_path, "a", [IDS] * 4)
    folder = tmp_path / "Annotations/480p/a"
    (folder / "00003.png").rename(folder / "00004.png")
    with pytest.raises(InputError, match="1 of 4 annotations met no frame of a"):
        find_davis_sequences(tmp_path)


def test_frames_count_by_their_numbers(tmp_path):
    write(tmp_path, "a", [IDS] * 11)
    for path in tmp_path.glob("*/480p/a/*"):
        path.rename(path.with_name(f"{int(path.stem)}{path.suffix}"))
    [sequence] = find_davis_sequences(tmp_path)
    assert [p.stem for _, p in sorted(sequence.annotations.items())] == [str(t) for t in range(11)]
