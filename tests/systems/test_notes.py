from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from toys import square

from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.systems.common import describe_lost_objects


def masklet(id: int, frames: range) -> Masklet:
    seen = Sighting(Rle.encode(square(4, 4)), Source.FORWARD)
    return Masklet(id, dict.fromkeys(frames, seen))


def test_what_is_not_found_to_the_end_is_told_with_its_frame() -> None:
    found = [masklet(1, range(10)), masklet(2, range(3, 7)), masklet(3, range(4))]
    notes = describe_lost_objects(found, 10)
    assert [note[:36] for note in notes] == [
        "object 2: not found from frame 7 on;",
        "object 3: not found from frame 4 on;",
    ]
    [note] = describe_lost_objects(found, 10, most=1)
    assert note.startswith("2 objects") and "object 3, from frame 4 on" in note
    assert describe_lost_objects(found[:1], 10) == []


@given(st.lists(st.integers(1, 9), max_size=9), st.integers(0, 9))
def test_a_note_for_each_that_is_lost_or_one_for_all(ends: list[int], most: int) -> None:
    lost = sum(end < 9 for end in ends)
    notes = describe_lost_objects([masklet(id, range(end)) for id, end in enumerate(ends)], 9, most)
    assert len(notes) == (lost if lost <= most else 1)
