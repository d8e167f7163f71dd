"""DVIS online, offline and semi-online over toy slots, with small networks of random weights."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from slot_toys import Clip, ToySlots, quiet, shuffled
from test_minvis import live, told, without_ids

from masklet.core import memory
from masklet.core.errors import InputError
from masklet.nn.referring_tracker import ReferringTracker, TrackerSettings
from masklet.nn.temporal_refiner import RefinerSettings, TemporalRefiner
from masklet.systems.dvis import DvisRefined, DvisSettings, build_dvis_system
from masklet.systems.minvis import build_minvis_system

SIZES = {"classes": 4, "width": 16, "heads": 2, "hidden": 32, "layers": 2, "mask_width": 16}


def tracker(**own):
    torch.manual_seed(3)
    return ReferringTracker(TrackerSettings(**SIZES, **own)).eval()


def refiner():
    torch.manual_seed(4)
    return TemporalRefiner(RefinerSettings(**SIZES)).eval()


def online(segmenter=None, network=None, **settings):
    return build_dvis_system(segmenter or ToySlots(), network or tracker(), DvisSettings(**settings))


def refined(segmenter=None, **settings):
    return DvisRefined(segmenter or ToySlots(), tracker(), refiner(), DvisSettings(**settings))


@pytest.mark.parametrize("system", [online, refined])
@pytest.mark.parametrize("task", ["instance", "panoptic", "semantic"])
def test_windows_and_budgets_do_not_change_the_answer(system, task):
    at = {"task": task, "conf": 0.3, "overlap": 0.0}
    want = told(system(**at).run(Clip(), quiet))
    assert want
    for window in (2, 3, 7, 20):
        clip = Clip()
        assert told(system(window=window, feature_memory=0, feature_disk=0, **at).run(clip, quiet)) == want
        assert clip.reads == 7


@pytest.mark.parametrize("system", [online, refined])
def test_the_order_of_slots_does_not_matter(system):
    want = system(top=8).run(Clip(), quiet)
    assert told_nearly(system(ToySlots(order=shuffled()), top=8).run(Clip(), quiet)) == told_nearly(want)
    assert without_ids(system(ToySlots(order=shuffled(0)), top=8).run(Clip(), quiet)) == without_ids(want)


def told_nearly(result):
    return {(m.id, m.label, round(m.score, 5), tuple(m.sightings)) for m in result.masklets}


def test_as_released_it_does():
    """The inverse permutation: what the released weights were trained to make good again."""
    released = tracker(matching="released")
    plain, mixed = (online(toy, released, top=8).run(Clip(), quiet) for toy in (ToySlots(), ToySlots(order=shuffled())))
    assert told_nearly(plain) != told_nearly(mixed)


def test_class_logits_are_the_tracker_s_and_masks_its_own():
    got, base = online().run(Clip(), quiet), build_minvis_system(ToySlots()).run(Clip(), quiet)
    assert {m.score for m in got.masklets}.isdisjoint(m.score for m in base.masklets)
    assert got.provenance.system == "dvis" and got.provenance.settings["top"] == 20


@pytest.mark.parametrize("cut", range(1, 7))
@pytest.mark.parametrize("window", [1, 3])
def test_a_stream_cut_anywhere_goes_on_from_its_state(cut, window, tmp_path):
    system, frames = online(ToySlots(order=shuffled()), window=window), list(Clip())
    whole = live(system.stream(frames))
    first = system.stream(frames)
    begun = live(next(first) for _ in range(cut))
    memory.save_memory(first.state, tmp_path / "state")
    assert begun + live(system.stream(frames[cut:], memory.load_memory(tmp_path / "state"))) == whole


def test_without_its_state_it_does_not(tmp_path):
    system, frames = online(ToySlots(order=shuffled())), list(Clip())
    assert live(system.stream(frames))[3:] != live(system.stream(frames[3:]))


@pytest.mark.parametrize("system", [online, refined])
def test_one_slot_one_frame_no_frame(system):
    one = system(ToySlots(objects=1), top=1).run(Clip(1), quiet)
    assert [(m.id, list(m.sightings)) for m in one.masklets] == [(1, [0])]
    none = system().run(Clip(0), quiet)
    assert none.masklets == () and "no object" in none.provenance.notes[0]


@pytest.mark.parametrize("system", [online, refined])
def test_nothing_to_be_seen(system):
    got = system(min_score=0.999).run(Clip(), quiet)
    assert got.masklets == () and "lower" in got.provenance.notes[0]


# -- clips


def test_a_clip_as_long_as_the_video_is_offline():
    want = told(refined().run(Clip(), quiet))
    for clip in (7, 30):
        assert told(refined(clip=clip).run(Clip(), quiet)) == want
    assert told(refined(clip=3).run(Clip(), quiet)) != want


def test_every_frame_counts_the_same_however_long_its_clip():
    system, clips = refined(clip=3), []
    plain = system.refiner.refine
    system.refiner.refine = lambda *given: clips.append((len(given[0]), plain(*given))) or clips[-1][1]
    stream = system.stream(Clip())
    assert len(list(stream)) == 7 and [n for n, _ in clips] == [3, 3, 1]
    torch.testing.assert_close(stream.state.logits, sum(n * logits.double() for n, (_, logits) in clips))


def test_live_clips_end_with_the_scores_of_the_whole_video():
    system = refined(clip=3)
    found = list(system.stream(Clip()))
    assert [f.index for f in found] == list(range(7))
    want = {m.id: m for m in system.run(Clip(), quiet).masklets if 6 in m.sightings}
    assert set(found[-1].ids) == set(want)
    for id, mask, score in zip(found[-1].ids, found[-1].masks, found[-1].scores.tolist(), strict=True):
        assert torch.equal(mask, want[id].sightings[6].mask.decode()) and score == pytest.approx(want[id].score)


def test_a_stream_cut_after_a_clip_goes_on_from_its_state(tmp_path):
    system, frames = refined(ToySlots(order=shuffled()), clip=2), list(Clip())
    whole = live(system.stream(frames))
    for cut in (2, 4, 6):
        first = system.stream(frames)
        begun = live(next(first) for _ in range(cut))
        memory.save_memory(first.state, tmp_path / "state")
        assert begun + live(system.stream(frames[cut:], memory.load_memory(tmp_path / "state"))) == whole


def test_a_refiner_of_whole_videos_has_no_live_answer():
    with pytest.raises(InputError, match="set clip"):
        refined().stream(Clip())
    with pytest.raises(InputError, match="clip = 0"):
        refined(clip=0)


def test_scores_as_released_are_the_greater_of_refiner_s_and_tracker_s():
    tracked = online(top=24).run(Clip(), quiet)
    paper, released = (refined(top=24, scores=s).run(Clip(), quiet) for s in ("paper", "released"))
    by = [{(m.id - 1) % 6 * 4 + m.label: m.score for m in r.masklets} for r in (tracked, paper, released)]
    shared = set(by[0]) & set(by[1]) & set(by[2])
    assert len(shared) > 12 and any(by[0][k] > by[1][k] for k in shared)
    assert all(by[2][k] == pytest.approx(max(by[0][k], by[1][k])) for k in shared)


def test_settings_are_values_of_json():
    settings = refined(clip=4, stuff=("a",)).run(Clip(), quiet).provenance.settings
    assert DvisSettings(**settings) == replace(DvisSettings(), clip=4, stuff=("a",))
