from __future__ import annotations

import pickle
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import SIDE, H, Place, ToyMemory, ToyPropagator, ToySegmenter, W, World, moving, square, still

from masklet.core.frames import Frame
from masklet.core.instances import Detections, Prediction, Prompt
from masklet.core.protocols import LiveSystem, Propagator, Segmenter, VideoSystem
from masklet.core.result import VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source, TrackBook
from masklet.systems.sam2bmp import Sam2Bmp, Sam2BmpSettings, ScoreSummary


def silent(phase: str, done: int, total: int | None, objects: int) -> None:
    pass


def run(world: World, segmenter: ToySegmenter | None = None, **settings: object) -> VideoResult:
    return Sam2Bmp(segmenter or ToySegmenter(), ToyPropagator(), Sam2BmpSettings(**settings)).run(world, silent)


def sources(masklet: Masklet) -> str:
    return "".join(s.source.value[0] for _, s in sorted(masklet.sightings.items()))


def is_true(masklet: Masklet, world: World, object: int) -> bool:
    """The masklet is that object, exactly, in every frame in which it is seen."""
    truth = {t: world.truth(t).get(object) for t in range(world.length)}
    seen = {t: m for t, m in truth.items() if m is not None and m.any()}
    return masklet.sightings.keys() == seen.keys() and all(
        torch.equal(masklet.sightings[t].mask.decode(), m) for t, m in seen.items()
    )


CROSSING: list[Place] = [moving(8, 0, 0, 2), moving(9, 26, 0, -2)]


def test_the_parts_fit_the_seams() -> None:
    assert isinstance(ToySegmenter(), Segmenter)
    assert isinstance(ToyPropagator(), Propagator)
    system = Sam2Bmp(ToySegmenter(), ToyPropagator())
    assert isinstance(system, VideoSystem) and isinstance(system, LiveSystem)


def test_an_object_in_every_frame() -> None:
    world = World([still(4, 4)])
    [m] = run(world).masklets
    assert is_true(m, world, 0) and sources(m) == "d" * 16 and m.id == 1


def test_an_object_that_the_segmenter_sees_late_is_completed_backward() -> None:
    world = World([still(4, 4), moving(20, 24, 0, -1)])
    result = run(world, ToySegmenter(blind=lambda t, o: o == 1 and t < 9))
    late = result.masklets[1]
    assert is_true(late, world, 1) and sources(late) == "b" * 9 + "d" * 7


def test_an_object_that_really_is_absent_stays_absent() -> None:
    world = World([moving(20, 4, 0, 1, first=6)])
    [m] = run(world).masklets
    assert m.first == 6 and is_true(m, world, 0)


def test_an_object_first_seen_in_the_last_frame() -> None:
    world = World([still(4, 4)])
    [m] = run(world, ToySegmenter(blind=lambda t, o: t < 15), key_ratio=0.0).masklets
    assert is_true(m, world, 0) and sources(m) == "b" * 15 + "d"


def test_leaving_and_returning_keeps_the_id() -> None:
    world = World([moving(4, 0, 0, 1, hidden=range(5, 9))])
    [m] = run(world).masklets
    assert is_true(m, world, 0)


def test_a_lost_object_is_forgotten_after_max_lost_frames_and_not_before() -> None:
    gap = World([moving(4, 0, 0, 1, hidden=range(5, 9))])  # 4 frames
    assert len(run(gap, max_lost=4, backward_window=0).masklets) == 1
    assert len(run(gap, max_lost=3, backward_window=0).masklets) == 2


@pytest.mark.parametrize(("max_lost", "first"), [(None, 2), (4, 2), (3, 9)])
def test_backward_too_an_object_is_forgotten_after_max_lost_frames(max_lost: int | None, first: int) -> None:
    """It is detected from frame 11 on, and hidden in four frames before frame 9."""
    gap = World([moving(4, 0, 0, 1, first=2, hidden=range(5, 9))])
    [m] = run(gap, ToySegmenter(blind=lambda t, o: t < 11), max_lost=max_lost).masklets
    assert m.first == first and sources(m) == "b" * len([t for t in range(first, 11) if t not in range(5, 9)]) + "d" * 5


def test_two_objects_crossing_keep_their_ids() -> None:
    world = World(CROSSING)
    a, b = run(world).masklets
    assert is_true(a, world, 0) and is_true(b, world, 1)


def test_no_detection_and_no_frame_but_one() -> None:
    assert run(World([])).masklets == ()
    world = World([still(4, 4)], length=1)
    [m] = run(world).masklets
    assert is_true(m, world, 0)


def test_two_hundred_detections_in_a_frame() -> None:
    dots = [(1 + 2 * (i // 15), 1 + 2 * (i % 15)) for i in range(200)]
    alarms = [(t, square(y, x, 1), 0.99, i % 4) for t in range(2) for i, (y, x) in enumerate(dots)]

    class Forgetful(ToyPropagator):  # the toy knows an object by its colour; these have none
        def predict(self, memory, features):  # type: ignore[no-untyped-def]
            return replace(belief := super().predict(memory, features), presence=-torch.ones_like(belief.presence))

    world = World([], length=2, size=(H, W))
    result = Sam2Bmp(ToySegmenter(alarms=alarms), Forgetful()).run(world, silent)
    assert len(result.masklets) == 400  # none is found again in the next frame


def test_an_object_gone_for_the_rest_of_the_video() -> None:
    world = World([moving(4, 4, 0, 1, last=3)])
    [m] = run(world).masklets
    assert sorted(m.sightings) == [0, 1, 2, 3]


# -- matching


def test_a_match_takes_the_detected_mask_and_a_miss_the_propagated_one() -> None:
    world = World([still(4, 4)])
    larger = square(3, 3, SIDE + 2)  # IoU 36 / 64 with the object
    segmenter = ToySegmenter(blind=lambda t, o: t > 0, alarms=[(5, larger, 0.99, 0)])
    [m] = run(world, segmenter).masklets
    assert m.sightings[5].mask == Rle.encode(larger) and m.sightings[5].source is Source.DETECTED
    assert m.sightings[6].mask == Rle.encode(square(4, 4)) and m.sightings[6].source is Source.FORWARD


def test_iou_of_exactly_the_limit_is_no_match() -> None:
    half = square(4, 4)
    half[4 + SIDE // 2 :] = False
    segmenter = ToySegmenter(blind=lambda t, o: t > 0, alarms=[(5, half, 0.99, 0)])
    assert (
        len(run(World([still(4, 4)], length=7), segmenter, key_ratio=0.0, twin_frames=99, twin_iou=1.0).masklets) == 2
    )


def test_a_score_of_exactly_conf_is_low_and_of_exactly_low_conf_a_proposal() -> None:
    for score, found in ((0.75, 1), (0.7578125, 1), (0.5, 1), (0.49609375, 0)):
        world = World([still(4, 4)], length=4)
        result = run(world, ToySegmenter(score=lambda t, o, s=score: s), conf=0.75, low_conf=0.5, key_ratio=0.0)
        assert len(result.masklets) == found
        assert all(bool(m.key_frames) == (score > 0.75) for m in result.masklets)


def test_low_detections_never_match_and_overwrite() -> None:
    larger = square(3, 3, SIDE + 2)
    segmenter = ToySegmenter(blind=lambda t, o: t > 0, alarms=[(5, larger, 0.7, 0)])
    [m] = run(World([still(4, 4)]), segmenter, key_ratio=0.0).masklets
    assert m.sightings[5].mask == Rle.encode(square(4, 4))


@pytest.mark.parametrize(("shift", "started"), [(3, False), (4, True)])  # IoU 18/54 = 0.33, 12/60 = 0.2
def test_a_proposal_starts_an_object_only_where_nothing_is_tracked(shift: int, started: bool) -> None:
    segmenter = ToySegmenter(alarms=[(5, square(4, 4 + shift), 0.7, 0)])
    result = run(World([still(4, 4)]), segmenter, key_ratio=0.0, twin_frames=99, twin_iou=1.0)
    assert len(result.masklets) == 1 + started


def test_of_two_overlapping_proposals_the_better_starts() -> None:
    alarms = [(0, square(4, 4), 0.6, 0), (0, square(4, 7), 0.7, 1)]
    result = run(World([], length=1), ToySegmenter(alarms=alarms), key_ratio=0.0)
    assert [m.label for m in result.masklets] == [1]


def test_duplicates_within_a_frame_are_one_unless_the_switch_is_off() -> None:
    alarms = [(0, square(4, 4), 0.98, 0), (0, square(4, 5), 0.97, 1)]
    settings = {"twin_iou": 1.0, "key_ratio": 0.0}
    assert len(run(World([], length=1), ToySegmenter(alarms=alarms), **settings).masklets) == 1
    assert len(run(World([], length=1), ToySegmenter(alarms=alarms), nms_iou=1.0, **settings).masklets) == 2


def test_an_empty_detection_is_no_object() -> None:
    alarms = [(0, torch.zeros(H, W, dtype=torch.bool), 0.99, 0)]
    assert run(World([], length=2), ToySegmenter(alarms=alarms)).masklets == ()


def test_a_lone_false_alarm_is_filtered() -> None:
    world = World([still(4, 4), still(20, 20)])
    segmenter = ToySegmenter(blind=lambda t, o: o == 1 and t != 5)  # 1 key frame of 16
    assert [m.label for m in run(world, segmenter).masklets] == [0]
    assert [m.label for m in run(world, segmenter, key_ratio=0.05).masklets] == [0, 1]


def test_max_objects_bounds_what_is_tracked() -> None:
    world = World([still(2, 2), still(12, 12), still(22, 22)])
    result = run(world, max_objects=2)
    assert len(result.masklets) == 2
    assert "max_objects = 2" in " ".join(result.provenance.notes)


def test_the_object_lost_for_longest_makes_room() -> None:
    """Red is out of sight from 3 to 9, green from 5 to 9, when blue comes at 8: red is forgotten, green comes back."""
    places = [moving(2, 2, 0, 0, 0, 2), moving(12, 12, 0, 0, hidden=range(5, 10)), moving(22, 22, 0, 0, first=8)]
    recorder = Recorder()
    states = [k.state for k in Sam2Bmp(ToySegmenter(), recorder, Sam2BmpSettings(max_objects=2)).forward(World(places))]
    assert [sorted(states[t].tallies) for t in (7, 8, 15)] == [[1, 2], [2, 3], [2, 3]]
    assert set(states[-1].memory.anchors) == {2, 3} and states[-1].refused == 0


# -- memory


class Recorder(ToyPropagator):
    """Notes what is written to the memory: frame by frame, committed and prompted ids."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[tuple[tuple[int, ...], tuple[int, ...]]] = []

    def prompt(self, memory, features, prompts):  # type: ignore[no-untyped-def]
        self.written[-1] = (self.written[-1][0], tuple(prompts))
        return super().prompt(memory, features, prompts)

    def commit(self, memory, features, belief):  # type: ignore[no-untyped-def]
        self.written.append((belief.ids, ()))
        return super().commit(memory, features, belief)


@pytest.mark.parametrize(
    ("memory", "writes"),
    [
        ("propagated", [((), (1,)), ((1,), ()), ((1,), ())]),
        ("detected", [((), (1,)), ((), (1,)), ((), (1,))]),
        ("key", [((), (1,)), ((1,), ()), ((), (1,))]),
    ],
)
def test_what_a_match_writes_to_the_memory(memory: str, writes: list[object]) -> None:
    larger = square(3, 3, SIDE + 2)  # IoU 0.56: drift
    segmenter = ToySegmenter(blind=lambda t, o: t == 2, alarms=[(2, larger, 0.99, 0)])
    recorder = Recorder()
    Sam2Bmp(segmenter, recorder, Sam2BmpSettings(memory=memory, backward_window=0)).run(
        World([still(4, 4)], length=3), silent
    )
    assert recorder.written == writes


# -- backward phase


@pytest.mark.parametrize(("window", "first"), [(None, 0), (0, 9), (1, 8), (4, 5), (99, 0)])
def test_completion_reaches_window_frames_back(window: int | None, first: int) -> None:
    segmenter = ToySegmenter(blind=lambda t, o: t < 9)
    [m] = run(World([still(4, 4)]), segmenter, backward_window=window).masklets
    assert m.first == first


def test_one_encoder_pass_per_frame_serves_both_directions() -> None:
    world, propagator = World([still(4, 4)]), ToyPropagator()
    Sam2Bmp(ToySegmenter(blind=lambda t, o: t < 9), propagator).run(world, silent)
    assert propagator.encoded == list(range(16)) and world.reads == 0


@pytest.mark.parametrize("budget", [(0, 0), (0, 10**9), (20_000, 20_000)])
def test_features_spilled_or_computed_again_give_the_same(budget: tuple[int, int]) -> None:
    world = World([still(4, 4), moving(20, 24, 0, -1)])
    segmenter = ToySegmenter(blind=lambda t, o: o == 1 and t < 9)
    want = run(world, segmenter)
    again = run(world, segmenter, feature_memory=budget[0], feature_disk=budget[1])
    assert again.masklets == want.masklets
    assert (world.reads > 0) == (budget != (0, 10**9))


def test_backward_is_the_forward_phase_of_the_reversed_video() -> None:
    places: list[Place] = [moving(4, 0, 0, 1), moving(20, 24, 0, -1)]
    flipped: list[Place] = [lambda t, p=p: p(15 - t) for p in places]
    late = run(World(places), ToySegmenter(blind=lambda t, o: t < 15), key_ratio=0.0)
    early = run(World(flipped), ToySegmenter(blind=lambda t, o: t > 0), key_ratio=0.0)
    for a, b in zip(late.masklets, early.masklets, strict=True):
        assert {15 - t: s.mask for t, s in a.sightings.items()} == {t: s.mask for t, s in b.sightings.items()}


# -- properties


@cache
def run_plain() -> dict[int, dict[int, Sighting]]:
    """What the detections of a world in their own order become, by label."""
    return {m.label: dict(m.sightings) for m in run(make_three()).masklets}


def make_three() -> World:
    return World([*CROSSING, still(24, 24)], length=12)


@given(st.integers(0, 2**32 - 1))
def test_permuting_detections_permutes_ids_only(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)

    class Shuffled(ToySegmenter):
        def one(self, frame):  # type: ignore[no-untyped-def]
            found = super().one(frame)
            return found[torch.randperm(len(found), generator=g)]

    shuffled = run(make_three(), Shuffled())
    assert {m.label: dict(m.sightings) for m in shuffled.masklets} == run_plain() != {}


@given(st.integers(0, 12))
def test_a_stream_cut_anywhere_and_resumed_from_its_saved_state_is_one_run(cut: int) -> None:
    world = World([*CROSSING, moving(24, 24, 0, -1, first=5)], length=12)
    system = Sam2Bmp(ToySegmenter(), ToyPropagator())
    frames = list(world)
    whole = [[*look.seen.values()] for look in system.forward(frames)]
    state, parts = None, []
    for look in system.forward(frames[:cut]):
        parts.append([*look.seen.values()])
        state = look.state
    state = pickle.loads(pickle.dumps(state))
    parts += [[*k.seen.values()] for k in system.forward(frames[cut:], state)]
    assert parts == whole


def test_an_empty_frame_changes_nothing_but_the_clock() -> None:
    places: list[Place] = [moving(4, 0, 0, 1)]
    world, held = (
        World(places, length=10),
        World([lambda t: None if t == 5 else places[0](t - (t > 5))], length=11),
    )
    [plain], [gapped] = run(world).masklets, run(held).masklets
    assert {t + (t >= 5): s for t, s in plain.sightings.items()} == dict(gapped.sightings)


def test_the_stream_is_the_forward_phase_and_names_objects() -> None:
    world = World([still(4, 4), moving(20, 24, 0, -1, first=3)])
    out = list(Sam2Bmp(ToySegmenter(), ToyPropagator()).stream(world))
    assert [o.index for o in out] == list(range(16))
    assert out[0].ids == (1,) and out[4].ids == (1, 2) and out[4].labels.tolist() == [0, 1]
    assert torch.equal(out[4].masks[1], world.truth(4)[1])


def test_memory_at_frame_500_is_that_at_frame_50() -> None:
    world = World([still(4, 4), moving(20, 20, 0, 0)], length=500)
    sizes = {}
    for look in Sam2Bmp(ToySegmenter(), ToyPropagator()).forward(world):
        sizes[look.frame.index] = len(pickle.dumps(look.state))
    assert abs(sizes[499] - sizes[50]) <= 64  # numbers of other lengths, no more


def test_a_segmenter_with_look_ahead_is_given_its_future() -> None:
    class Ahead(ToySegmenter):
        def segment(self, memory, frames, future):  # type: ignore[no-untyped-def]
            asked.append((frames[0].index, [f.index for f in future]))
            return super().segment(memory, frames, future)

    asked: list[object] = []
    run(World([], length=3), Ahead(look_ahead=1))
    assert asked == [(0, [1]), (1, [2]), (2, [])]


def test_an_object_that_is_lost_is_noted_with_its_frame() -> None:
    world = World([still(4, 4), lambda t: (20, 20) if t < 9 else None])
    [note] = run(world).provenance.notes
    assert note.startswith("object 2: not found from frame 9 on")


def test_the_result_says_how_it_was_made() -> None:
    world = replace(World([still(4, 4)]), damage="toy: damaged after frame 15")
    result = run(world, conf=0.9)
    assert result.provenance.settings["conf"] == 0.9 and result.provenance.notes == ("toy: damaged after frame 15",)
    assert (result.size, result.length, result.rate) == ((H, W), 16, 10.0)


def test_an_empty_detection_takes_no_id() -> None:
    segmenter = ToySegmenter(alarms=[(0, torch.zeros(H, W, dtype=torch.bool), 0.99, 0)])
    world = World([still(4, 4), moving(20, 20, 0, 0, first=1)], length=2)
    assert [o.ids for o in Sam2Bmp(segmenter, ToyPropagator()).stream(world)] == [(1,), (1, 2)]


def test_a_proposal_with_iou_of_exactly_the_limit_starts_nothing() -> None:
    half = square(4, 4)
    half[4 + SIDE // 2 :] = False
    settings = {"novel_iou": 0.5, "key_ratio": 0.0, "twin_iou": 1.0}
    result = run(World([still(4, 4)]), ToySegmenter(alarms=[(5, half, 0.7, 0)]), **settings)
    assert len(result.masklets) == 1


def test_a_proposal_starts_nothing_where_a_confident_detection_does() -> None:
    alarms = [(0, square(4, 4), 0.99, 0), (0, square(4, 6), 0.7, 1)]  # IoU 24/48: no duplicates
    result = run(World([], length=1), ToySegmenter(alarms=alarms), key_ratio=0.0, twin_iou=1.0)
    assert [m.label for m in result.masklets] == [0]


def test_the_ratio_filter_comes_before_tracklet_nms() -> None:
    mask = Rle.encode(square(4, 4))
    pages = {
        id: {t: Sighting(mask, Source.DETECTED if t < keys else Source.BACKWARD, 0.9, 0) for t in range(frames)}
        for id, (frames, keys) in {1: (40, 3), 2: (20, 2)}.items()  # the first has more key frames, and too few
    }
    [m] = (
        Sam2Bmp(ToySegmenter(), ToyPropagator())
        ._result(World([], length=40), TrackBook(pages), 0, ScoreSummary(1, 1, 1.0))
        .masklets
    )
    assert len(m.sightings) == 20


def test_what_lacks_support_is_not_completed() -> None:
    phases = set()
    segmenter = ToySegmenter(blind=lambda t, o: t != 5)  # 1 key frame of 11
    Sam2Bmp(segmenter, ToyPropagator()).run(World([still(4, 4)]), lambda phase, *_: phases.add(phase))
    assert phases == {"forward"}


def test_with_all_detections_as_columns_an_unsure_one_may_take_a_track_from_a_sure_one() -> None:
    """The track's own square, found without much confidence, suits it better than a sure one beside it: with all N
    as columns it is paired with that, which overwrites nothing, and the sure one begins an object of its own.
    """
    own, beside = square(8, 8), square(9, 9)
    alarms = [(3, own, 0.6, 0), (3, beside, 0.99, 1)]
    found = {}
    for columns in ("confident", "all"):
        finder = ToySegmenter(blind=lambda t, o: t > 0, alarms=alarms)
        at = Sam2BmpSettings(columns=columns, nms_iou=1.0, key_ratio=0.0, twin_iou=1.0, match_iou=0.4)  # type: ignore[arg-type]
        found[columns] = Sam2Bmp(finder, ToyPropagator(), at).run(World([still(8, 8)])).masklets
    [one] = found["confident"]
    assert torch.equal(one.sightings[3].mask.decode(), beside) and one.key_frames == {0, 3}
    first, second = found["all"]
    assert torch.equal(first.sightings[3].mask.decode(), own) and first.key_frames == {0}
    assert second.key_frames == {3} and torch.equal(second.sightings[3].mask.decode(), beside)


def test_a_live_name_is_that_of_the_greatest_sum_of_scores_not_of_most_votes() -> None:
    """Twice red with 0.3, once green with 0.9."""
    said = {0: (0, 0.3), 1: (0, 0.3), 2: (1, 0.9)}
    alarms = [(t, square(8, 8), score, label) for t, (label, score) in said.items()]
    finder = ToySegmenter(blind=lambda t, o: True, alarms=alarms)
    at = Sam2BmpSettings(conf=0.2, low_conf=0.1)
    live = [out.labels.tolist() for out in Sam2Bmp(finder, ToyPropagator(), at).stream(World([still(8, 8)], length=4))]
    assert live == [[0], [0], [1], [1]]


class Live:
    """Which of the large values that were made are still held by anybody."""

    def __init__(self) -> None:
        self.made: list[weakref.ref[object]] = []

    def note(self, value: object) -> None:
        self.made.append(weakref.ref(value))

    def hold(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor, whose memory is looked after, whatever views there are of it."""
        array = tensor.numpy().copy()
        self.note(array)
        return torch.from_numpy(array)

    def count(self) -> int:
        return sum(one() is not None for one in self.made)


@dataclass
class WatchedSegmenter(ToySegmenter):
    live: Live = field(default_factory=Live)

    def one(self, frame: Frame) -> Detections:
        assert not self.live.count()  # masks of no frame before
        found = super().one(frame)
        return replace(found, masks=self.live.hold(found.masks))


@dataclass
class WatchedPropagator(ToyPropagator):
    beliefs: Live = field(default_factory=Live)
    memories: Live = field(default_factory=Live)
    told: int = 0

    def predict(self, memory: ToyMemory, features: torch.Tensor) -> Prediction:
        assert not self.beliefs.count()
        belief = super().predict(memory, features)
        assert self.memories.count() <= 1
        return replace(belief, logits=self.beliefs.hold(belief.logits))

    def commit(self, memory: ToyMemory, features: torch.Tensor, belief: Prediction) -> ToyMemory:
        memory = super().commit(memory, features, belief)
        self.memories.note(memory)
        return memory

    def prompt(
        self, memory: ToyMemory, features: torch.Tensor, prompts: Mapping[int, Prompt]
    ) -> tuple[ToyMemory, Prediction]:
        assert not self.beliefs.count() and self.memories.count() <= 1  # that of the frame before is gone
        self.told += 1
        memory, belief = super().prompt(memory, features, prompts)
        self.memories.note(memory)
        return memory, belief


def test_nothing_large_of_a_frame_is_held_while_the_next_one_is_looked_at() -> None:
    world = World([*CROSSING, moving(24, 24, 0, -1, first=5), moving(0, 20, 1, 0, first=8)], length=12)
    segmenter, propagator = WatchedSegmenter(blind=lambda t, o: t % 3 == 2), WatchedPropagator()
    system = Sam2Bmp(segmenter, propagator, Sam2BmpSettings(backward_window=0, max_objects=3))
    result = system.run(world)
    assert len(segmenter.live.made) == len(propagator.beliefs.made) == 12 and propagator.told == 2
    assert result == Sam2Bmp(ToySegmenter(segmenter.blind), ToyPropagator(), system.settings).run(world)
