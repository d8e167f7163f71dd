"""Generated clips: exact masks, controlled occlusion, identities that return, look-alikes; and sets of them on disk."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from masklet.core.errors import InputError
from masklet.evaluate.vis.average_precision import compute_occlusion_score
from masklet.evaluate.vis.files import LEVELS
from masklet.io.formats.ytvis import read_ytvis_truth
from masklet.train.data import synthetic
from masklet.train.data.clips import ClipSource, seed_item_generator
from masklet.train.data.dataset_writer import name_occlusion_level, write_dataset
from masklet.train.data.render import draw_thing_masks, find_majority_ids, render_frames
from masklet.train.data.scenes import (
    RANGES,
    ScenePlan,
    SyntheticSettings,
    ThingAppearance,
    draw_object_appearances,
    plan_scene,
)
from masklet.train.data.shapes import HOLES, OUTLINES, draw_texture
from masklet.train.data.synthetic import AnnotatedClip, SyntheticClips, compute_clip_occlusion, name_hidden_shares
from masklet.train.data.trajectories import (
    MotionSettings,
    draw_absences,
    draw_key_moments,
    draw_object_path,
    sample_spline,
    transform_by_camera,
)

SMALL = SyntheticSettings(size=(48, 80), objects=(2, 4))


def same(a, b):
    return all(torch.equal(getattr(a, k), getattr(b, k)) for k in ("images", "masks", "present", "labels"))


def still(looks, poses, frames=1):
    """A plan in which nothing moves or bends."""
    n = len(looks)
    keys = np.array([0] if frames == 1 else [0, frames - 1])
    poses = np.repeat(np.array(poses, float)[:, None], len(keys), axis=1)
    return ScenePlan(frames, tuple(looks), keys, poses, np.zeros((n, 3, 3)), np.zeros((len(keys), 4)))


def look(name, label=0, paint=0):
    return ThingAppearance(OUTLINES[name], HOLES.get(name, 0.0), paint, label)


def at(x, y, radius):
    return [x, y, np.log(radius), 0, 0]


# --- clips


@pytest.mark.parametrize("frames", [1, 2, 5, 12])
def test_a_clip_is_what_it_promises(frames):
    source = SyntheticClips(SMALL)
    assert isinstance(source, ClipSource)
    for n in range(3):
        clip = source.clip(seed_item_generator(7, n), frames)
        g = len(clip.labels)
        assert clip.images.shape == (frames, 3, 48, 80)
        assert clip.masks.shape == (g, frames, 48, 80)
        assert 2 <= g <= 4
        assert int(clip.masks.sum(0).max()) <= 1  # no overlaps
        assert torch.equal(clip.present, clip.masks.flatten(2).any(2))
        assert clip.present.any(1).all()
        assert int(clip.labels.max()) < len(source.categories)


def test_the_same_numbers_give_the_same_clip_whatever_was_drawn_before():
    one, other = SyntheticClips(SMALL), SyntheticClips(SMALL)
    first = one.clip(seed_item_generator(3, 1), 4)
    other.clip(seed_item_generator(3, 0), 4)
    assert same(first, other.clip(seed_item_generator(3, 1), 4))
    assert not same(first, one.clip(seed_item_generator(3, 2), 4))


def test_clips_differ_between_frames():
    clip = SyntheticClips(SMALL).clip(seed_item_generator(1, 1), 5)
    assert not torch.equal(clip.images[0], clip.images[4])
    assert not torch.equal(clip.masks[:, 0], clip.masks[:, 4])


# --- masks


def test_the_mask_is_where_the_object_is_painted():
    flat = np.full((64, 64, 3), [200, 30, 30], np.uint8)
    made = still([look("square", paint=1)], [at(20, 12, 8)])
    drawn = draw_thing_masks(made, (32, 48))
    image = render_frames(made, {1: flat}, np.full((40, 60, 3), 90, np.uint8), (32, 48), blurred=False)[0]
    inside, outside = (image == [200, 30, 30]).all(2), (image == 90).all(2)
    assert drawn.masks[0, 0][inside].all()
    assert not drawn.masks[0, 0][outside].any()
    assert not (inside | outside).all()  # the edge is smooth
    rows, cols = np.nonzero(drawn.masks[0, 0])
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (6, 17, 14, 25)  # a side of 2 * 0.75 * 8


def test_surfaces_lie_where_their_things_are():
    halves = np.full((48, 48, 3), [0, 0, 250], np.uint8)
    halves[:, :24] = [250, 0, 0]
    made = still([look("square", paint=1)], [at(20, 20, 8)])
    image = render_frames(made, {1: halves}, halves[:, ::-1], (40, 60), blurred=False)[0]
    assert (image[16:24, 15:20, 0] > 200).all() and (image[16:24, 20:25, 2] > 200).all()
    assert (image[:10, :29, 2] > 200).all() and (image[:10, 31:, 0] > 200).all()
    shifted = replace(made, camera=np.array([[7.0, 0, 0, 0]]))
    image = render_frames(shifted, {1: halves}, halves[:, ::-1], (40, 60), blurred=False)[0]
    assert (image[:10, :36, 2] > 200).all() and (image[:10, 38:, 0] > 200).all()


@pytest.mark.parametrize("name", OUTLINES)
def test_areas_are_those_of_the_outlines(name):
    drawn = draw_thing_masks(still([look(name)], [at(100, 100, 80)]), (200, 200))
    (x, y), hole = OUTLINES[name].T, HOLES.get(name, 0.0)
    area = 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) * 80**2 * (1 - hole**2)
    assert drawn.masks.sum() == pytest.approx(area, rel=0.03)


def test_outlines_differ():
    masks = draw_thing_masks(still([look(n) for n in OUTLINES], [at(32, 32, 24)] * len(OUTLINES)), (64, 64))
    alone = [draw_thing_masks(still([look(n)], [at(32, 32, 24)]), (64, 64)).masks[0, 0] for n in OUTLINES]
    iou = [[(a & b).sum() / (a | b).sum() for b in alone] for a in alone]
    assert (np.array(iou) - np.eye(len(alone))).max() < 0.85
    assert masks.masks.sum(0).max() == 1


def test_what_lies_in_front_hides_what_lies_behind():
    made = still([look("square"), look("square")], [at(20, 20, 16), at(32, 20, 16)])
    drawn = draw_thing_masks(made, (40, 60))
    assert drawn.hidden[0, 0] == pytest.approx(0.5, abs=0.03)  # of 24 columns, 12
    assert drawn.hidden[1, 0] == 0
    assert drawn.masks[1].sum() == pytest.approx(24 * 24, abs=30)
    assert not (drawn.masks[0] & drawn.masks[1]).any()


def test_hidden_counts_only_what_the_frame_would_show():
    drawn = draw_thing_masks(still([look("square")], [at(0, 20, 16)]), (40, 60))
    assert drawn.hidden[0, 0] == 0  # half of it is outside: that is no occlusion
    gone = draw_thing_masks(still([look("square"), look("square")], [at(20, 20, 8), at(20, 20, 20)]), (40, 60))
    assert gone.hidden[0, 0] == 1
    assert not gone.masks[0].any()


def test_majority_of_four_samples():
    cases = {
        (0, 1, 1, 2): 1,
        (0, 0, 1, 1): 0,
        (3, 2, 1, 3): 3,
        (2, 2, 1, 2): 2,
        (4, 3, 2, 1): 1,
        (2, 1, 2, 1): 1,
        (0, 5, 5, 5): 5,
    }
    for samples, wanted in cases.items():
        assert find_majority_ids(np.array(samples, np.uint8).reshape(1, 2, 2)).item() == wanted


def test_motion_blur_spreads_what_moves_and_nothing_else():
    flat = {1: np.full((64, 64, 3), 255, np.uint8)}
    background = np.zeros((40, 60, 3), np.uint8)
    made = still([look("square", paint=1)], [at(20, 20, 8)], frames=3)
    moving = replace(made, poses=made.poses + np.array([0, 20])[None, :, None] * np.eye(5)[0])
    for plan_, blurs in ((made, False), (moving, True)):
        sharp, blurred = (render_frames(plan_, flat, background, (40, 60), blurred=b)[1] for b in (False, True))
        assert (np.abs(sharp.astype(int) - blurred).max() > 60) == blurs


# --- occlusion


@pytest.mark.parametrize("wanted", RANGES)
def test_levels_are_what_was_asked_for(wanted):
    source = SyntheticClips(replace(SMALL, level=wanted))
    low, high = RANGES[wanted]
    for n in range(12):
        assert low <= source.annotated(seed_item_generator(11, n), 6).occlusion <= high


def test_occlusion_is_counted_as_ovis_counts_it():
    hidden = np.array([[0.0, 0.3, 0.9, 1.0], [0.0, 0.0, 0.0, 0.04]])
    clip = SyntheticClips(SMALL).clip(seed_item_generator(0, 0), 4)
    made = AnnotatedClip(clip, hidden)
    assert made.words[0] == ["no_occlusion", "slight_occlusion", "severe_occlusion", None]
    assert made.occlusion == (compute_occlusion_score([0, 0.25, 0.75]) + 0) / 2 == 0.25
    assert set(made.words[0]) - {None} == set(LEVELS)


def test_words_begin_at_their_shares():
    names = name_hidden_shares(np.array([[0.04, 0.05, 0.49, 0.5, 0.99, 1.0]]))[0]
    assert names == ["no_occlusion", *["slight_occlusion"] * 2, *["severe_occlusion"] * 2, None]


def test_plans_become_more_crowded_until_enough_is_hidden(monkeypatch):
    crowding = []
    monkeypatch.setattr(synthetic, "plan_scene", lambda *given: crowding.append(given[3]) or plan_scene(*given))
    tried = SyntheticClips(replace(SMALL, level="moderate"))._plans(seed_item_generator(1, 0), 4, 0.375)
    levels = [next(tried)[2] for _ in range(8)]
    assert len(crowding) == 8
    for level_, one, after in zip(levels, crowding, crowding[1:], strict=False):
        assert (after > one) == (level_ < 0.375)


def test_heavy_hides_more_than_light():
    means = [
        np.mean([s.annotated(seed_item_generator(2, n), 4).occlusion for n in range(6)])
        for s in (SyntheticClips(replace(SMALL, level=v)) for v in RANGES)
    ]
    assert means == sorted(means)
    assert means[2] > means[0] + 0.2


@pytest.mark.parametrize("objects", [(1, 1), (8, 8)])
def test_levels_hold_for_few_and_many_objects(objects):
    clip = SyntheticClips(replace(SMALL, level="heavy", objects=objects)).annotated(seed_item_generator(4, 4), 5)
    assert clip.occlusion >= 0.5
    assert len(clip.clip.labels) == objects[0]


# --- events


def returns(clip):
    """Objects that are absent between two sightings."""
    return [
        n
        for n, row in enumerate(clip.present.tolist())
        if False in row[row.index(True) : len(row) - row[::-1].index(True)]
    ]


@pytest.mark.parametrize("how", ["exits", "hides"])
def test_objects_leave_and_return_as_the_same(how):
    calm = replace(SMALL, objects=(2, 2), lookalikes=0, exits=0, hides=0, visits=0, rests=0, camera=0, noise=0, blur=0)
    source = SyntheticClips(replace(calm, **{how: 1.0}, level=None))
    found = [(c, returns(c)) for c in (source.clip(seed_item_generator(5, n), 9) for n in range(8))]
    assert sum(bool(back) for _, back in found) >= 6
    clip, back = next(f for f in found if f[1])
    n = back[0]
    first, last = (int(f) for f in clip.present[n].nonzero()[[0, -1], 0])
    colours = [clip.images[t].permute(1, 2, 0)[clip.masks[n, t]].float() for t in (first, last)]
    others = [
        clip.images[last].permute(1, 2, 0)[clip.masks[m, last]].float()
        for m in range(2)
        if m != n and clip.present[m, last]
    ]
    assert len(clip.labels) == 2
    for other in others:
        assert (colours[0].mean(0) - colours[1].mean(0)).norm() < (colours[0].mean(0) - other.mean(0)).norm()


def test_nothing_happens_that_was_not_asked_for():
    quiet = replace(SMALL, exits=0, hides=0, visits=0, camera=0.0, level="light", speed=0.01)
    clips = [SyntheticClips(quiet).clip(seed_item_generator(6, n), 6) for n in range(6)]
    assert sum(len(returns(c)) for c in clips) <= 1


def test_objects_come_late_or_leave():
    drawn = [draw_absences(seed_item_generator(1, n), MotionSettings(exits=0, visits=1.0), 4) for n in range(40)]
    assert all(d.any() and not d.all() for d in drawn)
    assert all((np.diff(d.astype(int)) != 0).sum() == 1 for d in drawn)
    assert {bool(d[0]) for d in drawn} == {True, False}


def test_an_exit_is_between_two_visits_and_beyond_the_border():
    motion = MotionSettings(size=(48, 80), exits=1.0, visits=0, rests=0)
    for n in range(20):
        random = seed_item_generator(8, n)
        keys = draw_key_moments(random, 9)
        pose = draw_object_path(random, motion, keys, np.zeros((len(keys), 4)), [], 0.0)
        x, y, reach = pose[:, 0], pose[:, 1], np.exp(pose[:, 2])
        outside = (x < -reach) | (x > 80 + reach) | (y < -reach) | (y > 48 + reach)
        assert outside[1:-1].any()
        assert not outside[[0, -1]].any()


def test_lookalikes_are_alike():
    looks = draw_object_appearances(seed_item_generator(1, 1), replace(SMALL, lookalikes=1.0, objects=(4, 4)))
    assert len({(o.label, o.paint) for o in looks}) == 1
    others = draw_object_appearances(seed_item_generator(1, 1), replace(SMALL, lookalikes=0.0, objects=(4, 4)))
    assert len({o.paint for o in others}) == 4


def test_textures_come_from_their_seed():
    a, b, c = (draw_texture(np.random.default_rng(n)) for n in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


# --- motion


def test_a_spline_goes_through_its_keys_and_stays_there():
    keys, values = np.array([0, 3, 7]), np.array([1.0, 5.0, -2.0])
    assert sample_spline(keys, values, np.array([0.0, 3, 7]), 0).tolist() == [1, 5, -2]
    assert sample_spline(keys, values, np.array([-1.0, 9]), 0).tolist() == [1, -2]
    middle = sample_spline(keys, np.array([0.0, 3, 7]), np.array([1.5, 5.0]), 0)
    assert middle.tolist() == [1.5, 5.0]  # an even movement stays even


def test_things_at_rest_move_with_the_camera():
    camera = np.array([[0, 0, 0, 0], [5, -3, np.log(2), 0.1]])
    poses = transform_by_camera(np.array([40.0, 24, 1, 0, 0]), camera, 0, (48, 80))
    assert poses[0].tolist() == [40, 24, 1, 0, 0]
    assert poses[1] == pytest.approx([45, 21, 1 + np.log(2), 0.1, 0])  # the middle of the frame only shifts


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 30])
def test_key_frames_reach_from_the_first_to_the_last(frames):
    keys = draw_key_moments(seed_item_generator(0, 0), frames)
    assert (keys[0], keys[-1]) == (0, frames - 1)
    assert (np.diff(keys) > 0).all()
    assert len(keys) >= min(frames, 3)


# --- settings


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"categories": ("disc", "cat")}, "no shape is called cat; there are disc"),
        ({"categories": ()}, "no shape is called nothing"),
        ({"level": "extreme"}, "no level of occlusion is called 'extreme'; there are light, moderate, heavy"),
        ({"objects": (3, 2)}, "3 to 2 objects"),
        ({"objects": (0, 2)}, "0 to 2 objects"),
        ({"size": (8, 80)}, "frames of 80x8 are too small"),
        ({"radius": (0.01, 0.2)}, "radius"),
    ],
)
def test_settings_that_cannot_be(wrong, words):
    with pytest.raises(InputError, match=words):
        SyntheticClips(replace(SMALL, **wrong))


def test_fewer_categories_are_the_only_ones():
    source = SyntheticClips(replace(SMALL, categories=("ring", "star")))
    assert source.categories == ("ring", "star")
    assert all(int(source.clip(seed_item_generator(0, n), 2).labels.max()) <= 1 for n in range(4))


# --- sets


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    source = SyntheticClips(replace(SMALL, level="moderate"))
    folder = tmp_path_factory.mktemp("sets") / "moderate"
    return source, folder, write_dataset(source, folder, videos=3, frames=6, seed=9)


def test_a_written_set_is_what_was_generated(written):
    source, folder, truth = written
    results = read_ytvis_truth(truth)
    ids = set()
    for n, result in enumerate(results):
        clip = source.clip(seed_item_generator(9, n), 6)
        assert len(result.masklets) == len(clip.labels)
        for m, masklet in enumerate(result.masklets):
            assert result.name_of(masklet) == source.categories[clip.labels[m]]
            assert sorted(masklet.sightings) == clip.present[m].nonzero()[:, 0].tolist()
            assert all(torch.equal(s.mask.decode(), clip.masks[m, t]) for t, s in masklet.sightings.items())
            ids.add(masklet.id)
        for t in range(6):
            image = np.asarray(Image.open(folder / "JPEGImages" / result.name / f"{t:05d}.jpg")).astype(float)
            assert np.abs(image - clip.images[t].permute(1, 2, 0).numpy()).mean() < 4
    assert len(ids) == sum(len(r.masklets) for r in results)


def test_a_set_says_its_occlusion_as_ovis_does(written):
    source, _, truth = written
    content = json.loads(truth.read_text())
    words_ = [row for n in range(3) for row in source.annotated(seed_item_generator(9, n), 6).words]
    assert [a["occlusion"] for a in content["annotations"]] == words_
    assert any(row != row[::-1] for row in words_)
    for video in content["videos"]:
        own = [a for a in content["annotations"] if a["video_id"] == video["id"]]
        assert all([w is None for w in a["occlusion"]] == [s is None for s in a["segmentations"]] for a in own)
        scores = [compute_occlusion_score([LEVELS[w] for w in a["occlusion"] if w]) for a in own]
        assert video["occlusion"] == pytest.approx(np.mean(scores), abs=1e-4)
        assert video["level"] == name_occlusion_level(video["occlusion"])
        assert 0.25 <= video["occlusion"] <= 0.5


def test_the_same_seed_writes_the_same_set(written, tmp_path):
    source, folder, truth = written
    again = write_dataset(source, tmp_path / "again", videos=3, frames=6, seed=9)
    assert again.read_bytes() == truth.read_bytes()
    picture = "JPEGImages/0001/00002.jpg"
    assert (tmp_path / "again" / picture).read_bytes() == (folder / picture).read_bytes()


def test_a_filled_folder_is_not_written_over(written):
    source, folder, _ = written
    with pytest.raises(InputError, match="there are results already"):
        write_dataset(source, folder, videos=1, frames=2, seed=0)
    with pytest.raises(InputError, match="0 videos of 3 frames make no set"):
        write_dataset(source, folder, videos=0, frames=3, seed=0)


def test_levels_of_scores():
    assert compute_clip_occlusion(np.array([[0.0, 0.6]])) == 0.75
    assert [name_occlusion_level(s) for s in (0.0, 0.25, 0.26, 0.5, 0.51, 0.75)] == ["light"] * 2 + ["moderate"] * 2 + [
        "heavy"
    ] * 2
