"""Edits change what they name and nothing else, write themselves down, and can be replayed."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt, shift

sys.path.append(str(Path(__file__).resolve().parents[1] / "io"))

from forms import bits, drafts, made, masklet, video

from masklet.core.edits import VERBS, apply_edit, apply_edits, interpolate_masks
from masklet.core.errors import InputError
from masklet.core.result import VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Source

RESULTS = drafts(ids=st.integers(1, 50))  # plain values; `made` makes results of them


def find(result: VideoResult, id: int) -> Masklet:
    return next(m for m in result.masklets if m.id == id)


def others(result: VideoResult, *ids: int) -> list[Masklet]:
    return [m for m in result.masklets if m.id not in ids]


def without_log(result: VideoResult) -> VideoResult:
    return replace(result, provenance=replace(result.provenance, edits=()))


@given(RESULTS, st.integers(0, 4))
@settings(max_examples=30)
def test_merge_after_split_is_the_identity(draft, frame):
    result = made(draft)
    for m in result.masklets:
        if min(m.sightings) < frame <= max(m.sightings):
            cut = result.split(m.id, frame)
            new = max(x.id for x in cut.masklets)
            assert max(find(cut, m.id).sightings) < frame <= min(find(cut, new).sightings)
            assert others(cut, m.id, new) == others(result, m.id)
            whole = cut.merge(m.id, new)
            assert without_log(whole) == result
            assert whole.provenance.edits == (f"split {m.id} {frame}", f"merge {m.id} {new}")
        else:
            with pytest.raises(InputError, match="is not seen both before frame"):
                result.split(m.id, frame)


@given(RESULTS)
@settings(max_examples=30)
def test_merged_masks_are_unions_and_others_stay(draft):
    result = made(draft)
    ids = [m.id for m in result.masklets]
    if len(ids) < 2:
        return
    a, b = find(result, ids[-1]), find(result, ids[0])
    merged = result.merge(a.id, b.id)
    one = find(merged, a.id)
    assert set(one.sightings) == set(a.sightings) | set(b.sightings) and list(one.sightings) == sorted(one.sightings)
    for t, s in one.sightings.items():
        parts = [m.sightings[t].mask.decode_pixels() for m in (a, b) if t in m.sightings]
        assert (s.mask.decode_pixels() == np.any(parts, axis=0)).all()
    assert others(merged, a.id) == others(result, a.id, b.id)
    assert one.score == max(a.score, b.score)
    assert one.label == (a.label if a.label >= 0 else b.label)


@given(RESULTS, st.data())
@settings(max_examples=30)
def test_drop_trim_and_rename_leave_the_rest_as_it_is(draft, data):
    result = made(draft)
    if not result.masklets:
        return
    id = data.draw(st.sampled_from([m.id for m in result.masklets]))
    assert result.drop(id).masklets == tuple(others(result, id))
    named = result.rename(id, "my dog")
    assert named.name_of(find(named, id)) == "my dog" and others(named, id) == others(result, id)
    assert replace(find(named, id), label=find(result, id).label) == find(result, id)
    start = data.draw(st.integers(0, result.length - 1))
    stop = data.draw(st.integers(start + 1, result.length))
    for trimmed, kept in ((result.trim(start, stop), ()), (result.trim(start, stop, id), others(result, id))):
        chosen = [m for m in result.masklets if m not in kept]
        for m in chosen:
            inside = {t: s for t, s in m.sightings.items() if start <= t < stop}
            assert [x.sightings for x in trimmed.masklets if x.id == m.id] == ([inside] if inside else [])
        assert [m for m in trimmed.masklets if m in kept] == list(kept)
        assert (trimmed.length, trimmed.size) == (result.length, result.size)


def test_relabel_changes_all_of_a_name():
    result = video(masklet(1, {0: "111 000"}, 0), masklet(2, {1: "000 111"}, 1), masklet(3, {1: "100 000"}, 0))
    changed = result.relabel("cat", "red car")
    assert [changed.name_of(m) for m in changed.masklets] == ["red car", "dog", "red car"]
    assert changed.categories == ("cat", "dog", "bird", "red car")
    assert changed.provenance.edits == ("relabel cat 'red car'",)
    assert [m.id for m in result.relabel("cat", "dog").filter(labels=["dog"]).masklets] == [1, 2, 3]


class CountedId(int):
    compared = 0

    def __eq__(self, other):
        CountedId.compared += 1
        return int(self) == int(other)

    __hash__ = int.__hash__


@pytest.mark.parametrize("edit", ["merge", "drop", "trim", "smooth", "fill_gaps", "relabel"])
def test_all_of_many_objects_are_not_looked_for_one_by_one(edit):
    ids = [CountedId(n) for n in range(1, 301)]
    result = video(*(masklet(id, {0: "111 000"}, 0) for id in ids))
    arguments = {"merge": (), "drop": (), "trim": (0, 1), "smooth": (1,), "fill_gaps": (1,), "relabel": ("cat", "dog")}
    chosen = () if edit == "relabel" else map(int, ids)
    CountedId.compared = 0
    getattr(result, edit)(*arguments[edit], *chosen)
    assert CountedId.compared < 10 * len(ids)


def test_a_name_that_all_of_a_name_get_is_a_name():
    with pytest.raises(InputError, match="the new name of 'cat' is empty"):
        video(masklet(1, {0: "111 000"}, 0)).relabel("cat", "")


def test_smooth_is_a_vote():
    a, b, c = "1101 1100", "1110 1100", "1100 0100"
    result = video(masklet(1, {0: a, 1: b, 2: c}), masklet(2, {0: a}), size=(2, 4))
    seen = find(result.smooth(1, 1), 1).sightings
    assert [seen[t].mask for t in range(3)] == [bits(a), bits("1100 1100"), bits(c)]  # two of two: as it was
    assert others(result.smooth(1, 1), 1) == others(result, 1)
    blink = video(masklet(1, {0: "1000", 1: "0100", 2: "0010"}), size=(1, 4))
    assert find(blink.smooth(), 1).sightings[1] == find(blink, 1).sightings[1]  # no mask goes


def test_gaps_are_filled_by_masks_between():
    def square(x: int) -> Rle:
        pixels = np.zeros((20, 40), bool)
        pixels[5:13, x : x + 8] = True
        return Rle.encode_pixels(pixels)

    empty = masklet(1, {0: "1"}).sightings[0]
    seen = {0: replace(empty, mask=square(2), score=0.9), 4: replace(empty, mask=square(14), score=0.5)}
    result = video(replace(masklet(1, {}), sightings=seen), size=(20, 40), length=9)
    filled = find(result.fill_gaps(3), 1).sightings
    assert list(filled) == [0, 1, 2, 3, 4]
    assert [filled[t].mask.iou(square(2 + 3 * t)) for t in range(5)] == pytest.approx([1.0] * 5, abs=0.25)
    assert filled[2].mask == square(8)
    assert (filled[1].source, filled[1].score, filled[1].label) == (Source.FORWARD, 0.5, -1)
    assert filled[0] == seen[0] and filled[4] == seen[4]
    assert find(result.fill_gaps(2), 1).sightings == seen
    again = result.fill_gaps(3)
    assert without_log(again.fill_gaps(3)) == without_log(again)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=10)
def test_masks_between_are_those_of_distances_over_the_whole_plane(seed):
    """The slow twin: no window, and much empty ground around the frame."""
    rng = np.random.default_rng(seed)
    ends = []
    for _ in range(2):
        y, x, h, w = rng.integers((0, 0, 3, 3), (10, 20, 9, 9))
        ends.append(np.zeros((20, 30), bool))
        ends[-1][y : y + h, x : x + w] = rng.random(ends[-1][y : y + h, x : x + w].shape) < 0.8
        ends[-1][y + 1, x + 1] = True
    padded = [np.pad(p, 60) for p in ends]
    fields = [np.where(p, distance_transform_edt(p) - 0.5, 0.5 - distance_transform_edt(~p)) for p in padded]
    centres = [np.argwhere(p).mean(axis=0) for p in padded]
    [found] = interpolate_masks(*map(Rle.encode_pixels, ends), 1)
    middle = (centres[0] + centres[1]) / 2
    mixed = sum(shift(f, middle - c, order=1) / 2 for f, c in zip(fields, centres, strict=True))
    clear = np.abs(mixed) > 1e-9  # on the outline itself the last digit decides
    assert (found.decode_pixels() == (mixed > 0)[60:-60, 60:-60])[clear[60:-60, 60:-60]].all()


def test_filter():
    big, small = "111 111", "100 000"
    result = video(
        masklet(1, {0: big, 1: small, 2: big}, 0, 0.9), masklet(2, {0: small}, 1, 0.4), masklet(3, {0: big}, -1, 0.6)
    )
    assert [m.id for m in result.filter(min_frames=2).masklets] == [1]
    assert {m.id: list(m.sightings) for m in result.filter(min_area=2).masklets} == {1: [0, 2], 3: [0]}
    assert [m.id for m in result.filter(min_area=2, min_frames=3).masklets] == []
    assert [m.id for m in result.filter(labels=["object", "dog"]).masklets] == [2, 3]
    assert [m.id for m in result.filter(score=0.5).masklets] == [1, 3]
    assert result.filter(min_area=2, score=0.5, labels=["cat"]).provenance.edits == (
        "filter min_area=2 score=0.5 label=cat",
    )


@given(RESULTS, st.data())
@settings(max_examples=20)
def test_the_log_replays_and_survives_the_file(tmp_path_factory, draft, data):
    result = made(draft)
    if not result.masklets:
        return
    id = data.draw(st.sampled_from([m.id for m in result.masklets]))
    named = result.rename(id, 'it\'s a "name"')
    names = [named.name_of(find(named, id))]
    edited = named.smooth(1).fill_gaps(2).filter(min_frames=1, labels=names).trim(0, result.length)
    assert len(edited.provenance.edits) == 5
    path = tmp_path_factory.mktemp("log") / "masklets.json"
    edited.save(path)
    again = VideoResult.load(path)
    assert again == edited
    assert apply_edits(result, again.provenance.edits) == edited
    assert apply_edits(result, ()) == result


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "no verb ''; there are: rename ID NAME, relabel OLD NEW, merge ID ID ..."),
        ("mege 1 2", "no verb 'mege'"),
        ("merge 1", "write it as merge ID ID ..."),
        ("merge 1 1", "merge needs two different ids"),
        ("merge 1 9", "no object 9; there are: 1, 2"),
        ("merge 1 -2", "write it as merge ID ID ..."),
        ("rename 1", "write it as rename ID NAME"),
        ("rename 1 ''", "the name of object 1 is empty"),
        ("rename 'x", "no closing quotation; put a name that has quotes into others"),
        ("relabel cow dog", "no object is called 'cow'; names are: cat, dog"),
        ("split 1 0", "object 1 is not seen both before frame 0"),
        ("split 1", "write it as split ID FRAME"),
        ("drop", "write it as drop ID ..."),
        ("trim 2 2", "no frames 2 to 2; it has 3"),
        ("trim 0 4", "no frames 0 to 4"),
        ("smooth 0", "smooth needs a radius of 1 to 50"),
        ("fill-gaps 0", "fill-gaps needs a number of frames"),
        ("filter area=3", "write it as filter min_frames=N"),
        ("filter min_area=x", "write it as filter min_frames=N"),
        ("filter score=nan", "filter needs"),
        ("filter label=cow", "no object is called 'cow'; names are: bird, cat, dog"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(line, words):
    result = video(masklet(1, {0: "111 000", 2: "111 000"}, 0), masklet(2, {1: "000 111"}, 1))
    with pytest.raises(InputError) as caught:
        apply_edit(result, line)
    assert words in str(caught.value)


def test_every_verb_is_a_method_and_the_result_stays():
    result = video(masklet(1, {0: "111 000", 2: "111 000"}, 0), masklet(2, {1: "000 111"}, 1))
    before = repr(result)
    lines = [
        "rename 1 a b",
        "relabel cat cow",
        "merge 2 1",
        "split 1 1",
        "drop 2",
        "trim 1 3 1",
        "smooth",
        "fill-gaps",
        "filter min_frames=2",
    ]
    assert [line.split()[0] for line in lines] == list(VERBS)
    for line in lines:
        assert apply_edit(result, line).provenance.edits[0].split()[0] == line.split()[0]
        assert hasattr(VideoResult, line.split()[0].replace("-", "_"))
    assert repr(result) == before and not result.provenance.edits
