from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import H, W, square

from masklet.core.errors import InputError
from masklet.core.result import Provenance, VideoResult, compute_masklet_iou
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source, TrackBook


def masklet(id: int, places: dict[int, tuple[int, int]], label: int = -1) -> Masklet:
    sight = {t: Sighting(Rle.encode(square(*at)), Source.FORWARD, 0.5) for t, at in places.items()}
    return Masklet(id, sight, label, 0.25)


def result(*masklets: Masklet, length: int = 8, size: tuple[int, int] = (H, W)) -> VideoResult:
    return VideoResult("toy", size, length, 10.0, masklets, ("cat", "dog"), Provenance("test"))


def dense(m: Masklet, length: int) -> torch.Tensor:
    empty = torch.zeros(H, W, dtype=torch.bool)
    return torch.stack([m.sightings[t].mask.decode() if t in m.sightings else empty for t in range(length)])


places = st.dictionaries(st.integers(0, 4), st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1)


@given(st.lists(places, max_size=3), st.lists(places, max_size=3))
def test_tube_iou_is_that_of_the_dense_tubes(a: list[dict], b: list[dict]) -> None:
    here, there = ([masklet(i, p) for i, p in enumerate(side)] for side in (a, b))
    want = np.zeros((len(a), len(b)))
    for r, m in enumerate(here):
        for c, k in enumerate(there):
            x, y = dense(m, 5), dense(k, 5)
            want[r, c] = (x & y).sum() / (x | y).sum()
    np.testing.assert_allclose(compute_masklet_iou(here, there), want, atol=1e-12)


def test_a_result_compared_with_itself_is_one() -> None:
    both = result(masklet(1, {0: (0, 0)}), masklet(2, {0: (20, 20), 1: (20, 20)}))
    found = both.compare(both)
    assert found.pairs == ((1, 1, 1.0), (2, 2, 1.0)) and found.mean_iou == 1.0
    assert result().compare(result()).mean_iou == 1.0


def test_comparison_pairs_objects_whatever_their_ids_and_names_the_rest() -> None:
    here = result(masklet(1, {0: (0, 0)}), masklet(2, {0: (20, 20)}))
    there = result(masklet(5, {0: (20, 20), 1: (20, 20)}), masklet(9, {3: (0, 0)}))
    found = here.compare(there)
    assert found.pairs == ((2, 5, 0.5),) and found.only_here == (1,) and found.only_there == (9,)
    assert found.mean_iou == pytest.approx(0.5 / 3)


def test_results_of_different_videos_are_not_compared() -> None:
    with pytest.raises(InputError, match="not the same video"):
        result().compare(result(length=9))


def test_supervision_gets_boxes_masks_ids_and_names() -> None:
    found = result(masklet(3, {2: (4, 5)}, label=1), masklet(7, {2: (20, 20)}), masklet(8, {1: (0, 0)}))
    got = found.to_supervision(2)
    assert got.xyxy.tolist() == [[5, 4, 11, 10], [20, 20, 26, 26]]
    assert np.array_equal(got.mask[0], square(4, 5).numpy())
    assert got.tracker_id.tolist() == [3, 7] and got.class_id.tolist() == [1, -1]
    assert got.data["class_name"].tolist() == ["dog", "object"]
    assert got.confidence.tolist() == [0.25, 0.25]
    assert len(found.to_supervision(5)) == 0


@pytest.mark.parametrize("frame", [-1, 8])
def test_a_frame_that_is_not_there(frame: int) -> None:
    with pytest.raises(InputError, match=f"toy: no frame {frame}; it has 8"):
        result().to_supervision(frame)


def test_the_book_drops_what_was_never_seen_and_orders_frames() -> None:
    book = TrackBook()
    empty, full = (Sighting(Rle.encode(m), Source.FORWARD) for m in (square(0, 0, 0), square(0, 0)))
    for id, frame, sighting in ((1, 0, empty), (2, 5, full), (2, 3, full), (2, 4, empty)):
        book.note(id, frame, sighting)
    [m] = book.masklets()
    assert m.id == 2 and list(m.sightings) == [3, 5] and m.first == 3


def test_save_and_load_round_trip(tmp_path: Path) -> None:
    whole = result(masklet(3, {2: (4, 5)}, label=1))
    whole.save(tmp_path / "r.json")
    assert VideoResult.load(tmp_path / "r.json") == whole


def test_a_notebook_shows_some_lines_and_not_all_the_masks() -> None:
    many = [masklet(n, {t: (0, 0) for t in range(8)}, label=n % 2) for n in range(1, 40)]
    whole = result(*many)
    assert repr(whole).startswith(f"<VideoResult toy: {W}x{H}, 8 frames, objects: dog 1 (8 frames), cat 2 (8 frames)")
    assert repr(whole).endswith("29 more>") and len(repr(whole)) < 1000
    assert repr(many[0]) == "<Masklet 1: label 1, score 0.25, 8 masks, frames 0 to 7>"
    assert repr(result()).endswith("objects: none>") and "no frame" in repr(Masklet(1, {}))


def test_an_empty_mask_is_no_sighting_and_an_object_without_one_is_none(tmp_path: Path) -> None:
    seen, empty = masklet(1, {0: (0, 0)}).sightings[0], Rle.encode(torch.zeros(H, W, dtype=torch.bool))
    unseen = replace(seen, mask=empty)
    made = result(Masklet(1, {0: seen, 1: unseen, 2: seen}), Masklet(2, {1: unseen}))
    assert [(m.id, list(m.sightings)) for m in made.masklets] == [(1, [0, 2])]
    assert [one.frames for one in made.statistics().objects] == [2] and list(made.tracks()) == [1]
    made.save(tmp_path / "masklets.json")
    assert VideoResult.load(tmp_path / "masklets.json") == made
