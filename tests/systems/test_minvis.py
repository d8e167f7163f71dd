"""MinVIS, and what all systems of slots share: two passes, live answers, the three tasks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from slot_toys import SIZE, Clip, ToySlots, quiet, shuffled

from masklet.core import memory
from masklet.core.alignment import match_slots, match_slots_as_released
from masklet.core.errors import InputError
from masklet.systems.minvis import MinvisSettings, QueryMatching, build_minvis_system
from masklet.systems.query.answers import MaskResizer, build_task_output
from masklet.systems.query.dense_store import DenseStore
from masklet.systems.query.loop import TensorRows, follow_slots, store_dense_features


def told(result):
    """What a result says, without where it comes from."""
    return {(m.id, m.label, m.score, m.is_thing, tuple(m.sightings.items())) for m in result.masklets}


def without_ids(result):
    """The same up to the order of the slots; scores to six digits, for sums may be taken in another order."""
    rows = ((m.label, round(m.score, 6), tuple((t, s.mask) for t, s in m.sightings.items())) for m in result.masklets)
    return Counter(rows)


def live(found):
    return [(f.index, f.ids, f.masks.tolist(), f.scores.tolist(), f.labels.tolist()) for f in found]


def run(segmenter=None, clip=None, **settings):
    return build_minvis_system(segmenter or ToySlots(), MinvisSettings(**settings)).run(
        Clip() if clip is None else clip, quiet
    )


# -- matching


def test_both_directions_are_inverse():
    before = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    now = before[torch.tensor([3, 0, 8, 1, 2, 4, 7, 5, 6])]
    assert torch.equal(now[match_slots(before, now)], before)
    assert torch.equal(match_slots_as_released(before, now)[match_slots(before, now)], torch.arange(9))


def test_slots_that_change_places_keep_their_identity():
    assert told(run(ToySlots(order=shuffled()), repeats=False)) == told(run(repeats=False))


def test_the_first_frame_s_order_names_the_tracks_and_nothing_else():
    got = run(ToySlots(order=shuffled(0)), repeats=False)
    assert without_ids(got) == without_ids(run(repeats=False))
    assert told(got) != told(run(repeats=False))


# -- two passes


@pytest.mark.parametrize("window", [1, 2, 3, 7, 20])
@pytest.mark.parametrize("task", ["instance", "panoptic", "semantic"])
def test_windows_and_budgets_do_not_change_the_answer(window, task):
    at = {"task": task, "conf": 0.4, "overlap": 0.1}
    kept, again = Clip(), Clip()
    want = told(run(clip=kept, **at))
    assert want and kept.reads == 0
    assert told(run(clip=again, window=window, feature_memory=0, feature_disk=0, **at)) == want
    assert again.reads == 7


@pytest.mark.parametrize(("in_memory", "on_disk", "reads"), [(2, 1, 4), (2, 0, 7), (0, 4, 4), (9, 0, 0)])
def test_a_budget_for_some_frames(in_memory, on_disk, reads):
    clip, one = Clip(), 6 * 6 * 8 * 4
    some = run(clip=clip, window=3, feature_memory=in_memory * one, feature_disk=on_disk * one)
    assert told(some) == told(run()) and clip.reads == reads  # whole windows of kept frames need no second look


@dataclass
class Batched(ToySlots):
    """A segmenter whose network takes three frames together."""

    at_once: int = 3


@pytest.mark.parametrize(("window", "seen"), [(None, [3, 3, 1]), (5, [5, 2]), (1, [1] * 7)])
def test_a_run_sees_as_many_frames_at_once_as_the_network_takes(window, seen):
    segmenter = Batched()
    assert told(run(segmenter, window=window)) == told(run())
    assert segmenter.seen == seen
    again = Batched()
    assert told(run(again, window=window, feature_memory=0, feature_disk=0)) == told(run())
    assert again.seen == 2 * seen
    live = Batched()
    assert len([*build_minvis_system(live, MinvisSettings(window=window)).stream(Clip())]) == 7
    assert live.seen == ([1] * 7 if window is None else seen)


def literal_panoptic(probabilities, logits, view):
    """Each kept slot's masks: the winner of score x probability by the argmax of numpy, where its own is half or more."""
    scores, labels = probabilities.max(1)
    kept = [n for n in range(len(labels)) if labels[n] < probabilities.shape[1] - 1 and scores[n] > 0.2]
    soft = view.soft(logits[kept]).numpy()
    winner = (soft * scores[kept].numpy()[:, None, None]).argmax(0)
    return {n + 1: torch.from_numpy((winner == row) & (soft[row] >= 0.5)) for row, n in enumerate(kept)}


def test_panoptic_and_semantic_pixels_are_the_literal_ones():
    draw = torch.Generator().manual_seed(3)
    probabilities = torch.randn(6, 5, generator=draw).mul(2).softmax(1)
    logits, view = torch.randn(6, 6, 8, generator=draw) * 4, MaskResizer((22, 28), SIZE)
    panoptic = build_task_output(probabilities, "abcd", MinvisSettings(task="panoptic", conf=0.2, overlap=0.0))
    panoptic.add(4, logits[list(panoptic.slots)], view)
    want = {n: mask for n, mask in literal_panoptic(probabilities, logits, view).items() if mask.any()}
    got = {m.id: m.sightings[4].mask.decode() for m in panoptic.masklets()}
    assert want.keys() == got.keys() and all(torch.equal(mask, got[n]) for n, mask in want.items())
    semantic = build_task_output(probabilities, "abcd", MinvisSettings(task="semantic"))
    semantic.add(4, logits, view)
    likely = np.einsum("nk,nhw->khw", probabilities[:, :-1].numpy(), view.soft(logits).numpy()).argmax(0)
    got = {m.label: m.sightings[4].mask.decode().numpy() for m in semantic.masklets()}
    assert got.keys() == {*np.unique(likely).tolist()}
    assert all((got[label] == (likely == label)).all() for label in got)


def test_what_is_kept_of_a_frame_does_not_hold_its_window():
    tracker = QueryMatching()
    looks = list(follow_slots(ToySlots(), tracker, Clip(), 4, None))
    with DenseStore() as store:
        store_dense_features(store, looks[1], tracker)
        kept = store.get(1)
    assert kept.maps.untyped_storage().nbytes() == kept.maps.nbytes
    assert torch.equal(kept.maps, looks[1].slots.mask_logits[0])


def test_rows_grow():
    rows = TensorRows()
    for n in range(200):
        rows.add(torch.full((2,), float(n)))
    assert torch.equal(rows.all, torch.arange(200.0)[:, None].expand(-1, 2)) and len(rows) == 200


def test_a_score_is_the_softmax_of_the_mean_logits():
    toy = ToySlots()
    mean = torch.stack([toy.one(t)[1] for t in range(7)]).mean(0).softmax(-1)
    found = run(toy, top=24).masklets
    assert len(found) == 24
    for m in found:
        assert m.score == pytest.approx(float(mean[(m.id - 1) % 6, m.label]), abs=1e-6)


def test_the_segmenter_sees_windows():
    toy = ToySlots()
    run(toy, window=3)
    assert toy.seen == [3, 3, 1]


def test_one_slot_one_frame_no_frame():
    one = run(ToySlots(objects=1), Clip(1), top=1)
    assert [(m.id, m.label, list(m.sightings)) for m in one.masklets] == [(1, 0, [0])]
    none = run(clip=Clip(0))
    assert none.masklets == () and none.length == 0 and "no object" in none.provenance.notes[0]


def test_nothing_to_be_seen():
    blind = ToySlots(confidence=-9.0)
    for task in ("instance", "panoptic"):
        got = run(blind, task=task, min_score=0.3)
        assert got.masklets == () and "lower" in got.provenance.notes[0]
        frames = list(build_minvis_system(blind, MinvisSettings(task=task, min_score=0.3)).stream(Clip()))
        assert [f.ids for f in frames] == [()] * 7 and frames[0].masks.shape == (0, *SIZE)


def test_damage_is_noted():
    assert run(clip=Clip(damage="frame 8 is missing")).provenance.notes == ("frame 8 is missing",)


def test_bad_settings():
    with pytest.raises(InputError, match="window = 0"):
        MinvisSettings(window=0)
    with pytest.raises(InputError, match="no category sky; it has a, b"):
        build_minvis_system(ToySlots(), MinvisSettings(stuff=("sky",)))


# -- live


def test_live_answers_end_with_the_scores_of_the_whole_video():
    system = build_minvis_system(ToySlots(order=shuffled()), MinvisSettings())
    last = list(system.stream(Clip()))[-1]
    want = {m.id: m for m in system.run(Clip(), quiet).masklets if 6 in m.sightings}
    assert set(last.ids) == set(want)
    for id, mask, score, label in zip(last.ids, last.masks, last.scores.tolist(), last.labels.tolist(), strict=True):
        assert torch.equal(mask, want[id].sightings[6].mask.decode())
        assert (score, label) == (pytest.approx(want[id].score), want[id].label)


@pytest.mark.parametrize("cut", range(1, 7))
@pytest.mark.parametrize("window", [1, 3])
def test_a_stream_cut_anywhere_goes_on_from_its_state(cut, window, tmp_path):
    system, frames = build_minvis_system(ToySlots(order=shuffled()), MinvisSettings(window=window)), list(Clip())
    whole = live(system.stream(frames))
    first = system.stream(frames)
    begun = live(next(first) for _ in range(cut))
    memory.save_memory(first.state, tmp_path / "state")
    assert begun + live(system.stream(frames[cut:], memory.load_memory(tmp_path / "state"))) == whole


def test_what_is_remembered_does_not_grow(tmp_path):
    stream, sizes = build_minvis_system(ToySlots(), MinvisSettings()).stream(Clip(40)), []
    for _ in stream:
        memory.save_memory(stream.state, tmp_path / "state")
        sizes.append(stream.state.memory.queries.nbytes + stream.state.logits.nbytes)
    assert len(set(sizes)) == 1


# -- tasks


def one_frame(probabilities, logits, size=(8, 8), inside=(8, 8), **settings):
    made = build_task_output(torch.tensor(probabilities), ["a", "b"], MinvisSettings(**settings))
    made.add(0, logits[list(made.slots)], MaskResizer(inside, size))
    return made.masklets()


def halves(*rows):
    """Mask logits of 2 x 2 for each slot, at stride 4."""
    return torch.tensor(rows).view(-1, 2, 2)


LEFT, RIGHT, ALL = [5.0, -5, 5, -5], [-5.0, 5, -5, 5], [1.0, 1, 1, 1]


def test_the_best_pairs_of_slot_and_category():
    prob = [[0.5, 0.3, 0.2], [0.1, 0.4, 0.5]]
    found = one_frame(prob, halves(LEFT, RIGHT), top=3)
    assert [(m.id, m.label, round(m.score, 3)) for m in found] == [(1, 0, 0.5), (2, 1, 0.4), (3, 1, 0.3)]
    assert found[0].sightings[0].mask == found[2].sightings[0].mask
    assert [m.id for m in one_frame(prob, halves(LEFT, RIGHT), top=3, repeats=False)] == [1, 2]
    assert [m.id for m in one_frame(prob, halves(LEFT, RIGHT), top=3, min_score=0.4)] == [1, 2]
    assert [m.id for m in one_frame(prob, halves(LEFT, RIGHT), top=1)] == [1]
    assert len(one_frame(prob, halves(LEFT, RIGHT), top=50)) == 4  # where the program raises


def test_an_empty_mask_is_no_masklet():
    assert one_frame([[0.9, 0.1, 0.0]], -torch.ones(1, 2, 2)) == ()


def test_padding_is_cut_off():
    left = one_frame([[0.9, 0.1, 0.0]], halves(LEFT), inside=(8, 4), top=1)
    assert left[0].sightings[0].mask.area == 64  # all that is no padding


def test_a_panoptic_pixel_has_one_segment():
    # b of slot 1 lies below a of slot 0, which scores higher; what is left of b is half of its own: dropped.
    prob = [[0.95, 0.0, 0.05], [0.0, 0.9, 0.1]]
    found = one_frame(prob, halves(LEFT, ALL), task="panoptic")
    assert [(m.id, m.label) for m in found] == [(1, 0)]
    found = one_frame(prob, halves(LEFT, ALL), task="panoptic", overlap=0.4)
    assert [(m.id, m.label) for m in found] == [(1, 0), (2, 1)]
    masks = [m.sightings[0].mask.decode() for m in found]
    assert not (masks[0] & masks[1]).any() and (masks[0] | masks[1]).all()


def test_of_two_equal_masks_the_higher_score_has_the_pixels():
    found = one_frame([[0.9, 0.0, 0.1], [0.0, 0.95, 0.05]], halves(ALL, ALL), task="panoptic")
    assert [m.id for m in found] == [2]


def test_a_pixel_below_half_has_no_segment():
    [only] = one_frame([[0.9, 0.0, 0.1]], halves(LEFT), task="panoptic")
    assert only.sightings[0].mask.area == 32


def test_stuff_of_one_category_is_one_segment():
    prob = [[0.0, 0.9, 0.1], [0.0, 0.95, 0.05]]
    things = one_frame(prob, halves(LEFT, RIGHT), task="panoptic")
    assert [(m.id, m.is_thing) for m in things] == [(1, True), (2, True)]
    [stuff] = one_frame(prob, halves(LEFT, RIGHT), task="panoptic", stuff=("b",))
    assert (stuff.id, stuff.label, stuff.is_thing, stuff.score) == (4, 1, False, pytest.approx(0.95))
    assert stuff.sightings[0].mask.area == sum(m.sightings[0].mask.area for m in things)


def test_panoptic_slots_must_be_sure():
    prob = [[0.8, 0.1, 0.1], [0.05, 0.05, 0.9]]
    assert one_frame(prob, halves(LEFT, RIGHT), task="panoptic") == ()
    assert len(one_frame(prob, halves(LEFT, RIGHT), task="panoptic", conf=0.79)) == 1


def test_segments_of_a_run_share_no_pixel():
    result = run(ToySlots(order=shuffled()), task="panoptic", conf=0.3, overlap=0.1, stuff=("b",))
    assert {m.is_thing for m in result.masklets} == {True, False}
    for t in range(7):
        assert np.max(sum(m.sightings[t].mask.decode().numpy().astype(int) for m, _ in result.at(t))) == 1


def test_every_pixel_has_one_category():
    result = run(task="semantic")
    assert [m.id for m in result.masklets] == [m.label + 1 for m in result.masklets]
    for t in range(7):
        total = sum(s.mask.decode().numpy().astype(int) for _, s in result.at(t))
        assert total.shape == SIZE and (total == 1).all()


def test_a_category_adds_up_over_slots():
    prob = [[0.5, 0.3, 0.2], [0.1, 0.3, 0.6], [0.1, 0.3, 0.6]]
    [only] = one_frame(prob, halves(ALL, ALL, ALL), task="semantic")
    assert only.label == 1  # 0.9 of b against 0.7 of a
