"""Which frame an annotation means: each rule by an example, and what holds for any file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masklet.core.annotations import FrameMatcher, FramePlace, VideoFrames
from masklet.core.errors import InputError

NAMED = VideoFrames("clip", 5, tuple(f"frame_{t + 10:04d}" for t in range(5)))
PLAIN = VideoFrames("clip", 5)


def find(places: list[FramePlace], video: VideoFrames) -> tuple[list[int | None], list[str]]:
    matcher = FrameMatcher("d.json", places, video)
    return [matcher.find(place) for place in places], matcher.notes


@pytest.mark.parametrize(
    ("places", "video", "frames", "words"),
    [
        ([FramePlace(index=t) for t in (0, 3)], PLAIN, [0, 3], ""),
        ([FramePlace(number=t) for t in range(5)], PLAIN, [0, 1, 2, 3, 4], ""),
        ([FramePlace(number=t) for t in (1, 3, 5)], PLAIN, [0, 2, 4], "count from 1"),
        ([FramePlace(number=t) for t in (2, 5)], PLAIN, [1, 4], "count from 1"),
        ([FramePlace(number=t, is_id=True) for t in (1, 3)], VideoFrames("clip"), [1, 3], "from 0, though none is 0"),
        ([FramePlace(number=t) for t in (1, 3)], PLAIN, [1, 3], "count from 0, though none is 0"),
        ([FramePlace(number=t) for t in (11, 13)], NAMED, [1, 3], "those in the frames' names, 10 to 14"),
        ([FramePlace(number=t) for t in (0, 3)], NAMED, [0, 3], ""),
        ([FramePlace(name=f"{t:05}.png") for t in (3, 4)], PLAIN, [3, 4], "count from 0, though none is 0"),
        ([FramePlace(name=f"{t:05}.png") for t in range(1, 6)], PLAIN, [0, 1, 2, 3, 4], "count from 1"),
        ([FramePlace(name=f"masks/frame_{t:04}.png") for t in (10, 14)], NAMED, [0, 4], ""),
        ([FramePlace(name=f"{t}.png") for t in (11, 13)], NAMED, [1, 3], ""),
        ([FramePlace(name="frame_0012.jpg", number=7)], NAMED, [2], ""),
        ([FramePlace(name=n) for n in ("a", "b", "c", "d", "e")], NAMED, [0, 1, 2, 3, 4], "in their order"),
        ([FramePlace(video="set/clip", index=2), FramePlace(video="other", index=1)], PLAIN, [2, None], ""),
        ([FramePlace(video="another", index=2)], PLAIN, [2], "of a video called another"),
        ([FramePlace(index=4), FramePlace(index=5), FramePlace(name="x")], PLAIN, [4, None, None], ""),
    ],
)
def test_rules(places: list[FramePlace], video: VideoFrames, frames: list[int | None], words: str) -> None:
    found, notes = find(places, video)
    assert found == frames
    assert (words in " ".join(notes)) if words else not notes


def test_ids_of_images_that_may_count_from_0_or_from_1_are_refused() -> None:
    """A detector that found nothing in the last frame, or in the first: one of them would be a frame late."""
    for numbers in ((1, 3), (4,), (2, 3)):
        for video in (PLAIN, NAMED):
            with pytest.raises(InputError, match="may count from 0 or from 1; say which"):
                FrameMatcher("d.json", [FramePlace(number=t, is_id=True) for t in numbers], video)


def test_what_meets_no_frame_is_counted_and_refused_where_nothing_does() -> None:
    places = [FramePlace(index=t) for t in (2, 7, 9, 2)]
    matcher = FrameMatcher("d.json", places, PLAIN)
    assert matcher.group(places) == {2: [0, 3]}
    [note] = matcher.notes
    assert "2 of 4 annotations met no frame of clip" in note and "frame 7" in note
    with pytest.raises(InputError, match=r"d.json: none of its 1 annotations is of a frame of clip \(5 frames\)"):
        FrameMatcher("d.json", places[1:2], PLAIN).group(places[1:2])
    assert FrameMatcher("d.json", [], PLAIN).group([]) == {}


def test_several_videos_none_of_them_this_one() -> None:
    places = [FramePlace(video=v, index=0) for v in "abcd"]
    with pytest.raises(InputError, match=r"of 4 videos \(a, b, c, \.\.\.\), none of them clip"):
        FrameMatcher("d.json", places, PLAIN)


PLACES = st.builds(
    FramePlace,
    video=st.sampled_from([None, "clip"]),
    index=st.none() | st.integers(0, 9),
    number=st.none() | st.integers(0, 9),
    is_id=st.booleans(),
    name=st.none() | st.sampled_from(["frame_0012.png", "3.jpg", "x"]),
)


@given(st.lists(PLACES, max_size=8), st.sampled_from([NAMED, PLAIN, VideoFrames("clip")]))
def test_a_frame_is_one_of_the_video_and_equal_places_are_one_frame(
    places: list[FramePlace], video: VideoFrames
) -> None:
    try:
        found, _ = find(places, video)
    except InputError as error:
        assert "may count from" in str(error) and not any(p.number == 0 and p.index is None for p in places)
        return
    assert all(frame is None or 0 <= frame < (video.length or 10**9) for frame in found)
    assert len({(p, f) for p, f in zip(places, found, strict=True)}) == len(set(places))
    assert all(
        f == p.index for p, f in zip(places, found, strict=True) if p.index is not None and f is not None
    ) or any(p.name for p in places)
