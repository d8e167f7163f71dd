from __future__ import annotations

import pickle
from itertools import islice

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toys import H, ToyPropagator, ToySegmenter, W, World, moving, square, still

from masklet.core import memory
from masklet.core.errors import InputError
from masklet.core.features import count_tensor_bytes
from masklet.core.protocols import LiveSystem, VideoSystem
from masklet.core.result import VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.models.affinity import Affinity
from masklet.models.encoder import Encoder
from masklet.models.last_masks import StillMasks
from masklet.systems.deva.online import Deva, DevaSettings, mark_absent, remove_backward_overlaps
from masklet.systems.sam2long import MemoryTree


def silent(phase: str, done: int, total: int | None, objects: int) -> None:
    pass


def deva(segmenter: ToySegmenter | None = None, **chosen: object) -> Deva:
    """As in the paper, which has no way back."""
    return Deva(segmenter or ToySegmenter(), ToyPropagator(), DevaSettings(**{"backward": False, **chosen}))


def run(world: World, segmenter: ToySegmenter | None = None, **chosen: object) -> VideoResult:
    return deva(segmenter, **chosen).run(world, silent)


TWO = [moving(2, 0, 0, 1), moving(20, 24, 0, -1)]


def exact(result: VideoResult, world: World) -> bool:
    """Every frame is the truth, object o (from 0) being id o + 1 or the other way round."""
    for t in range(world.length):
        got = {frozenset(map(tuple, s.mask.decode().nonzero().tolist())) for _, s in result.at(t)}
        want = {frozenset(map(tuple, m.nonzero().tolist())) for m in world.truth(t).values()}
        if got != want:
            return False
    return True


def test_it_is_a_system() -> None:
    assert isinstance(deva(), LiveSystem) and isinstance(deva(), VideoSystem)


@pytest.mark.parametrize("clip", [1, 2, 3, 5, 7])
@pytest.mark.parametrize("every", [1, 3, 5])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 9, 16])
def test_the_truth_in_every_schedule(clip: int, every: int, length: int) -> None:
    world = World(TWO, length=length)
    result = run(world, clip=clip, every=every)
    assert exact(result, world)
    assert {m.id for m in result.masklets} == {1, 2}
    assert sorted(m.label for m in result.masklets) == [0, 1]


def test_clips_of_the_released_schedule() -> None:
    at = DevaSettings(clip=3, every=5)
    assert [at.clip_of(t, 0) for t in range(3)] == [range(0, 3)] * 3
    assert [at.clip_of(t, 3) for t in range(3, 10)] == [None, None] + [range(5, 8)] * 3 + [None, None]
    assert DevaSettings(clip=3, every=2).clip_of(3, 3) == range(3, 5)  # every < n: no frame is asked twice


def test_a_false_alarm_of_one_frame_is_outvoted() -> None:
    world, alarm = World(TWO), ToySegmenter(alarms=[(5, square(12, 12), 0.99, 3)])
    assert len(run(world, alarm).masklets) == 2
    assert len(run(world, alarm, clip=1).masklets) == 3  # online takes what it gets


def test_a_clip_of_one_frame_as_released_says_nothing() -> None:
    assert not run(World(TWO), clip=1, single="consensus").masklets
    assert "clip=1" in run(World(TWO), clip=1, single="consensus").provenance.notes[0]


def test_latency_is_the_clip_less_one() -> None:
    read: list[int] = []

    def frames():
        for f in World(TWO):
            read.append(f.index)
            yield f

    for out in deva(clip=3, every=5).stream(frames()):
        assert read[-1] - out.index <= 2
        if out.index in (0, 5, 10):  # a clip waits until its last frame is there
            assert read[-1] == out.index + 2
        if out.index in (3, 4, 8, 9):
            assert read[-1] == out.index


def test_only_frames_of_a_clip_are_segmented_and_every_frame_is_encoded_once() -> None:
    asked: list[int] = []

    class Counting(ToySegmenter):
        def one(self, frame):
            asked.append(frame.index)
            return super().one(frame)

    system = Deva(Counting(), ToyPropagator(), DevaSettings())
    system.run(World(TWO, length=10), silent)
    assert asked == [0, 1, 2, 5, 6, 7]
    assert system.propagator.encoded == list(range(10))


def test_deletion_at_the_limit_and_beyond_and_no_id_comes_back() -> None:
    world = World([still(4, 4)], length=16)
    blind = ToySegmenter(blind=lambda t, o: 1 <= t <= 9)
    beyond = run(world, blind, clip=1, every=1, max_missed=3)
    at = run(world, blind, clip=1, every=1, max_missed=3, delete="at")
    assert [max(r.masklets[0].sightings) for r in (beyond, at)] == [3, 2]
    assert [m.id for m in beyond.masklets] == [1, 2]
    assert min(beyond.masklets[1].sightings) == 10


def test_final_vote_and_running_vote() -> None:
    class Doubting(ToySegmenter):
        def one(self, frame):
            found = super().one(frame)
            return type(found)(found.masks, found.scores, found.labels if frame.index else found.labels + 2)

    world = World([still(4, 4)], length=4)
    assert [m.label for m in run(world, Doubting(), clip=1, every=1).masklets] == [0]
    running = [int(out.labels[0]) for out in deva(Doubting(), clip=1, every=1).stream(world)]
    assert running == [2, 0, 0, 0]  # one against one: the smaller label


def test_stuff_is_under_things() -> None:
    result = run(World(TWO), stuff=("red",))
    assert {m.label: m.is_thing for m in result.masklets} == {0: False, 1: True}


def test_limit_of_objects() -> None:
    world = World(TWO, length=6)
    few = run(world, clip=1, every=1, max_objects=1)
    assert len(few.masklets) == 1 and "max_objects" in few.provenance.notes[0]
    assert not run(world, clip=1, every=1, max_objects=1, overflow="all").masklets


def test_over_the_memory_tree() -> None:
    world = World(TWO)
    assert exact(Deva(ToySegmenter(), MemoryTree(ToyPropagator())).run(world, silent), world)


def same(a, b) -> bool:
    return (a.index, a.ids, a.labels.tolist(), a.scores.tolist()) == (
        b.index,
        b.ids,
        b.labels.tolist(),
        b.scores.tolist(),
    ) and torch.equal(a.masks, b.masks)


@settings(deadline=None, max_examples=25)
@given(cut=st.integers(1, 15), clip=st.integers(1, 5), every=st.integers(1, 6), tree=st.booleans())
def test_a_stream_goes_on_from_its_state(cut: int, clip: int, every: int, tree: bool) -> None:
    world = World([*TWO, moving(12, 3, 0, 1, first=4, last=12)])
    flaky = ToySegmenter(blind=lambda t, o: (t * 7 + o) % 5 == 0)
    carrier = MemoryTree(ToyPropagator()) if tree else ToyPropagator()
    system = Deva(flaky, carrier, DevaSettings(clip=clip, every=every, max_missed=1))
    whole = list(system.stream(world))
    first = system.stream(world)
    begun = list(islice(first, cut))
    rest = list(system.stream(world.read(cut, world.length), pickle.loads(pickle.dumps(first.state))))
    assert len(whole) == world.length
    assert all(same(a, b) for a, b in zip(whole, begun + rest, strict=True))


@pytest.mark.parametrize("cut", [1, 4, 6])
def test_a_saved_stream_goes_on_as_one_run(tmp_path, cut: int) -> None:
    world = World(TWO, length=10)
    system = Deva(ToySegmenter(), Affinity(Encoder()))
    whole, first = list(system.stream(world)), system.stream(world)
    begun = list(islice(first, cut))
    memory.save_memory(first.state, tmp_path / "state.safetensors")
    loaded = memory.load_memory(tmp_path / "state.safetensors")
    rest = list(system.stream(world.read(cut, world.length), loaded))
    assert any(out.ids for out in rest)
    assert all(same(a, b) for a, b in zip(whole, begun + rest, strict=True))


def test_what_lies_under_others_is_committed_as_absent() -> None:
    world, carrier = World(TWO), ToyPropagator()
    [features] = carrier.encode([world.frame(0)])
    held, _ = carrier.prompt(carrier.empty(), features, {i: m for i, m in world.truth(0).items()})
    belief = carrier.predict(held, features)
    assert belief.masks((H, W)).flatten(1).any(1).tolist() == [True, True]
    assert mark_absent(belief, [1]).masks((H, W)).flatten(1).any(1).tolist() == [True, False]
    assert torch.equal(mark_absent(belief, []).logits, belief.logits)


def test_memory_is_bounded() -> None:
    world = World([moving(2, 0, 0, 0), lambda t: (20, t * 3 % 26), lambda t: (12, 4) if t % 60 < 20 else None], 500)
    sizes = {}
    stream = deva(max_missed=1).stream(world)
    for out in stream:
        sizes[out.index] = count_tensor_bytes(stream.state), len(stream.state.tracks)
    assert max(s for t, s in sizes.items() if t > 250) <= max(s for t, s in sizes.items() if t <= 250)


def test_every_frame_has_an_answer_without_any_detection() -> None:
    outs = list(deva(ToySegmenter(blind=lambda t, o: True)).stream(World(TWO)))
    assert [o.index for o in outs] == list(range(16)) and all(o.masks.shape == (0, H, W) for o in outs)


def test_objects_are_carried_back_from_their_first_mask() -> None:
    world = World([still(4, 4), still(20, 20)], length=16)
    late = ToySegmenter(blind=lambda t, o: o == 1 and t < 8)
    assert [m.first for m in run(world, late).masklets] == [0, 10]  # the first clip after frame 8
    assert exact(run(world, late, backward=True), world)


def test_what_is_carried_back_gives_way() -> None:
    def seen(source: Source, *masks: Tensor) -> dict[int, Sighting]:
        return {t: Sighting(Rle.encode(mask), source) for t, mask in enumerate(masks)}

    old = Masklet(1, seen(Source.FORWARD, square(4, 4)))
    apart, touching, same = square(20, 20), square(8, 4), square(5, 4)
    backs = [Masklet(n, seen(Source.BACKWARD, mask)) for n, mask in enumerate((apart, touching, same), start=2)]
    kept = remove_backward_overlaps([*backs, old])
    assert [m.id for m in kept] == [1, 2, 3]  # most of the third was there, under another id
    assert [m.sightings[0].mask.area for m in kept] == [36, 36, 24]
    assert torch.equal(kept[2].sightings[0].mask.decode(), touching & ~square(4, 4))


def test_of_two_that_are_carried_back_the_older_has_the_pixels() -> None:
    back = {0: Sighting(Rle.encode(square(4, 4)), Source.BACKWARD)}
    ahead = {1: Sighting(Rle.encode(square(20, 20)), Source.DETECTED)}
    assert [set(m.sightings) for m in remove_backward_overlaps([Masklet(2, back | ahead), Masklet(1, back)])] == [
        {0},
        {1},
    ]


class Recorder(ToyPropagator):
    """Keeps every belief that is committed."""

    def __init__(self) -> None:
        super().__init__()
        self.beliefs: list[dict[int, bool]] = []

    def commit(self, memory, features, belief):  # type: ignore[no-untyped-def]
        self.beliefs.append({id: bool(seen > 0) for id, seen in zip(belief.ids, belief.presence[:, 0], strict=True)})
        return super().commit(memory, features, belief)


def test_what_a_merge_covers_wholly_is_committed_as_absent() -> None:
    """Two smaller ones are found over an object, none of them matched with it: it has no pixel left, and the memory
    hears that it is gone.
    """
    whole, part = square(8, 8), square(8, 8, 3)
    alarms = [
        (0, whole, 0.99, 0),
        (2, part, 0.99, 1),
        (2, whole & ~part & (torch.arange(W) < 11), 0.99, 2),
        (2, whole & (torch.arange(W) >= 11), 0.99, 3),
    ]
    carrier = Recorder()
    at = DevaSettings(clip=1, every=1, backward=False, nms_iou=1.0)
    found = Deva(ToySegmenter(blind=lambda t, o: True, alarms=alarms), carrier, at).run(World([still(8, 8)], length=3))
    assert [sorted(m.sightings) for m in found.masklets] == [[0, 1], [2], [2], [2]]
    assert carrier.beliefs == [{}, {1: True}, {1: False}]


@pytest.mark.parametrize(("columns", "kept"), [(3, True), (4, False)])
def test_what_is_carried_back_stays_while_half_of_it_is_left(columns: int, kept: bool) -> None:
    """Of six columns three are taken: exactly half is left, and stays; of four two columns are left, less than half."""
    old = Masklet(1, {0: Sighting(Rle.encode(square(4, 4)), Source.FORWARD)})
    back = Masklet(2, {0: Sighting(Rle.encode(square(4, 4 + 6 - columns)), Source.BACKWARD)})
    made = {m.id: m for m in remove_backward_overlaps([old, back])}
    assert (2 in made) is kept
    if kept:
        assert made[2].sightings[0].mask.area == 6 * (6 - columns)


def test_a_vote_counts_every_detection_that_stood_behind() -> None:
    """In the first clip two of three frames say green, in the next all three say red: four of six."""

    def label(t: int) -> int:
        return 1 if t in (0, 1) else 0

    alarms = [(t, square(8, 8), 0.9, label(t)) for t in range(12)]
    found = run(World([still(8, 8)], length=8), ToySegmenter(blind=lambda t, o: True, alarms=alarms))
    assert [m.label for m in found.masklets] == [0]
    stream = [
        int(out.labels[0])
        for out in deva(ToySegmenter(blind=lambda t, o: True, alarms=alarms)).stream(World([still(8, 8)], length=8))
    ]
    assert stream[0] == 1 and stream[-1] == 0


def test_proposals_are_above_conf_and_duplicates_go() -> None:
    """At exactly `conf` a detection is none; of two with IoU above `nms_iou` the better stays."""
    world = World([still(8, 8)], length=4)
    for score, there in ((0.5, False), (0.51, True)):
        found = run(world, ToySegmenter(score=lambda t, o, score=score: score), clip=1, every=1)  # type: ignore[misc]
        assert bool(found.masklets) is there
    twins = [(t, square(8, 9), 0.6, 1) for t in range(4)]  # IoU 5/7 with the truth
    for limit, alone in ((0.7, True), (0.72, False)):
        found = run(world, ToySegmenter(alarms=twins), clip=1, every=1, nms_iou=limit)
        assert (len(found.masklets) == 1) is alone


@pytest.mark.parametrize("clip", [1, 3])
def test_outside_it_looks_only_where_nothing_is_carried(clip: int) -> None:
    """Each frame of a clip is looked at where what was carried to it is not; what is carried is not seen again, and
    stays where only what is invisible counts as missed.
    """
    known: list[tuple[int, Tensor]] = []

    class Outside(ToySegmenter):
        def segment_outside(self, frame, mask):
            known.append((frame.index, mask))
            [found], _ = self.segment(self.empty(), [frame], [])
            return found[~(found.masks & mask).flatten(1).any(1)]

    world = World(TWO, length=12)
    result = run(world, Outside(), clip=clip, every=3, look="outside", count="invisible", max_missed=0)
    assert exact(result, world) and {m.id for m in result.masklets} == {1, 2}
    assert [t for t, _ in known] == [t for t in range(12) if clip == 3 or not t % 3][: len(known)]
    for t, mask in known:
        truth = torch.stack(list(world.truth(t).values())).any(0)
        assert torch.equal(mask, truth if t >= clip else torch.zeros_like(truth)), t
    with pytest.raises(InputError, match="look=outside"):
        deva(look="outside")


# -- one test for each sentence of docs/deva.md that has none above (tests/systems/test_deva_page.py)

FAST = [moving(4, 0, 0, 9)]  # no two frames have it in one place


def test_proposals_are_carried_to_the_first_frame_of_their_clip() -> None:
    world = World(FAST, length=3)
    assert exact(run(world), world)
    assert not run(world, alignment="none").masklets


def test_what_carries_proposals_is_thrown_away() -> None:
    """Each frame's proposals are carried by a memory of this one frame: two of red, three of green."""
    stream = deva(ToySegmenter(blind=lambda t, o: (t, o) == (1, 0))).stream(World(TWO, length=3))
    next(stream)
    held = stream.state
    assert sorted(map(dict, (t.votes for t in held.tracks.values())), key=str) == [{0: 2}, {1: 3}]
    assert held.memory.anchors.keys() == held.tracks.keys()


class Prompted(Recorder):
    """Keeps which objects are prompted, too."""

    def __init__(self) -> None:
        super().__init__()
        self.prompts: list[set[int]] = []

    def prompt(self, memory, features, prompts):  # type: ignore[no-untyped-def]
        self.prompts.append(set(prompts))
        return super().prompt(memory, features, prompts)


@pytest.mark.parametrize(("prompted", "told"), [("changed", [{1, 2}, {2}]), ("all", [{1, 2}, {1, 2}])])
def test_what_a_merge_changed_is_prompted_and_the_rest_committed_as_believed(
    prompted: str, told: list[set[int]]
) -> None:
    """In the second frame the first object is found as it was carried, and the second one larger."""
    larger = ToySegmenter(blind=lambda t, o: (t, o) == (1, 1), alarms=[(1, square(20, 20, 7), 0.99, 1)])
    carrier = Prompted()
    at = DevaSettings(clip=1, every=1, backward=False, prompted=prompted)  # type: ignore[arg-type]
    Deva(larger, carrier, at).run(World([still(4, 4), still(20, 20)], length=2), silent)
    assert carrier.prompts == told
    assert carrier.beliefs == [{}, {1: True} if prompted == "changed" else {}]


def test_the_final_score_is_the_mean_of_all_detections() -> None:
    found = run(World([still(4, 4)], length=2), ToySegmenter(score=lambda t, o: (0.9, 0.6)[t]), clip=1, every=1)
    assert found.masklets[0].score == pytest.approx(0.75)


@pytest.mark.parametrize(("length", "found"), [(7, 1), (8, 2)])
def test_a_clip_that_the_end_cuts_short_is_only_propagated(length: int, found: int) -> None:
    """The second clip would be frames 5 to 7; what comes in with it is seen where all of them are there."""
    world = World([still(4, 4), moving(20, 20, 0, 0, first=5)], length=length)
    result = run(world)
    assert len(result.masklets) == found and set(result.masklets[0].sightings) == set(range(length))


def test_a_stream_never_goes_back() -> None:
    late = ToySegmenter(blind=lambda t, o: o == 1 and t < 8)
    outs = list(deva(late, backward=True).stream(World([still(4, 4), still(20, 20)], length=16)))
    assert [len(out.ids) for out in outs] == [1] * 10 + [2] * 6


def test_without_stuff_no_kind_is_known() -> None:
    for stuff, kinds in (((), {None}), (("red",), {False, True})):
        stream = deva(stuff=stuff).stream(World(TWO, length=3))
        next(stream)
        assert {track.thing for track in stream.state.tracks.values()} == kinds


@pytest.mark.parametrize(("born", "objects"), [(False, 2), (True, 3)])
def test_whether_a_segment_without_a_pixel_begins_an_object(born: bool, objects: int) -> None:
    """Two frames of a clip agree on a square, the others on its halves, which lie in front and leave nothing of it."""
    whole = square(8, 8)
    left = whole & (torch.arange(W) < 11)
    seen = [(t, whole, 0.9, 0) for t in (0, 1)] + [(t, m, 0.9, 1) for t in (2, 3) for m in (left, whole & ~left)]
    blind = ToySegmenter(blind=lambda t, o: True, alarms=seen)
    stream = Deva(blind, StillMasks(), DevaSettings(clip=4, empty_born=born)).stream(World([still(8, 8)], length=4))
    next(stream)
    assert len(stream.state.tracks) == objects


def test_at_most_so_many_objects_are_tracked_at_once() -> None:
    assert DevaSettings().max_objects == 256
    world = World(TWO, length=2)
    assert [len(run(world, clip=1, every=1, max_objects=n).masklets) for n in (1, 2, 3)] == [1, 2, 2]
