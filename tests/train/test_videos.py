"""Annotated videos as clips: which frames are drawn, what they show, and files that do not fit."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from masklet.core.errors import InputError
from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.io.formats.panoptic import write_panoptic
from masklet.io.formats.ytvis import write_ytvis_truth
from masklet.train.data.clips import ClipSource, seed_item_generator
from masklet.train.data.data_sources import is_still_folder, read_footage
from masklet.train.data.dataset_writer import write_dataset
from masklet.train.data.framing import FixedFraming, ShortSideFraming
from masklet.train.data.scenes import SyntheticSettings
from masklet.train.data.stills import Stills
from masklet.train.data.synthetic import SyntheticClips
from masklet.train.data.videos import (
    FrameSampling,
    ReleasedLabelClips,
    VideoClips,
    make_released_labels,
    read_vipseg_footage,
    read_ytvis_footage,
)

SIZE = (24, 40)
WHOLE = FixedFraming(SIZE, (1.0, 1.0), flip=0.0)


# --- which frames


def drawn(sampling, length, count, times=200):
    return [tuple(sampling.frames(seed_item_generator(0, n), length, count).tolist()) for n in range(times)]


def test_consecutive_frames_start_anywhere():
    assert set(drawn(FrameSampling(2), 8, 5)) == {tuple(range(s, s + 5)) for s in range(4)}
    assert set(drawn(FrameSampling(2), 5, 5, 5)) == {(0, 1, 2, 3, 4)}


def test_the_released_program_never_draws_the_last_start():
    assert set(drawn(FrameSampling(2, released_start=True), 8, 5)) == {tuple(range(s, s + 5)) for s in range(3)}
    assert set(drawn(FrameSampling(2, released_start=True), 5, 5, 5)) == {(0, 1, 2, 3, 4)}


def test_short_videos_repeat_frames_in_their_order():
    for chosen in drawn(FrameSampling(2), 3, 5, 50):
        assert list(chosen) == sorted(chosen)
        assert set(chosen) == {0, 1, 2}
    released = drawn(FrameSampling(2, released_repeats=True), 3, 5, 50)
    assert all(c[:3] == (0, 1, 2) for c in released)
    assert any(list(c) != sorted(c) for c in released)


def test_other_clips_lie_around_a_reference():
    for chosen in drawn(FrameSampling(3), 20, 4):
        assert list(chosen) == sorted(chosen)
        assert any(all(abs(c - reference) <= 3 for c in chosen) for reference in chosen)
    assert {c for clip in drawn(FrameSampling(3), 20, 4) for c in clip} == set(range(20))
    assert any(len(set(c)) < 4 for c in drawn(FrameSampling(3), 20, 4))  # with replacement
    assert max(c[-1] - c[0] for c in drawn(FrameSampling(3), 20, 4)) == 6  # both ways alike
    assert drawn(FrameSampling(3), 1, 4, 1) == [(0, 0, 0, 0)]
    assert {c for (c,) in drawn(FrameSampling(3), 6, 1)} == set(range(6))


def test_reversal():
    clips = drawn(FrameSampling(2, reversal=0.5), 5, 5)
    assert set(clips) == {(0, 1, 2, 3, 4), (4, 3, 2, 1, 0)}
    assert 60 < clips.count((4, 3, 2, 1, 0)) < 140
    assert all(list(c) == sorted(c) for c in drawn(FrameSampling(2), 5, 5, 30))


# --- what they show


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    source = SyntheticClips(SyntheticSettings(size=SIZE, objects=(2, 3), exits=0.5))
    folder = tmp_path_factory.mktemp("videos") / "set"
    write_dataset(source, folder, videos=2, frames=7, seed=1)
    return source, folder


def videos(folder, framing=WHOLE, sampling=None):
    return VideoClips(*read_ytvis_footage(folder / "annotations.json", folder / "JPEGImages"), framing, sampling)


def test_a_clip_of_a_written_set_is_what_was_generated(written):
    source, folder = written
    made = [source.clip(seed_item_generator(1, n), 7) for n in range(2)]
    read = videos(folder, sampling=FrameSampling(3))
    assert isinstance(read, ClipSource)
    assert read.categories == tuple(c for c in source.categories if c in read.categories)
    seen = set()
    for n in range(6):
        clip = read.clip(seed_item_generator(2, n), 7)
        own = min(made, key=lambda m: (m.images.float() - clip.images.float()).abs().mean())
        assert torch.equal(clip.masks, own.masks)
        assert torch.equal(clip.present, own.present)
        names = [read.categories[k] for k in clip.labels]
        assert names == [source.categories[k] for k in own.labels]
        assert (clip.images.float() - own.images.float()).abs().mean() < 6
        seen.add(id(own))
    assert len(seen) == 2


def test_the_same_numbers_give_the_same_clip(written):
    read = videos(written[1], ShortSideFraming((20, 28), 100, 0.5, (26,), (16, 24)))
    one, _, again = (read.clip(seed_item_generator(3, n), 3) for n in (0, 1, 0))
    assert torch.equal(one.images, again.images)
    assert torch.equal(one.masks, again.masks)


def result(name, tracks, length, labels):
    """Tracks: per object, the frames it is seen in; object n is a column of four pixels at 10 n."""
    masklets = []
    for n, (frames, label) in enumerate(zip(tracks, labels, strict=True)):
        mask = torch.zeros(*SIZE, dtype=torch.bool)
        mask[:, 10 * n : 10 * n + 4] = True
        seen = {t: Sighting(Rle.encode(mask), Source.DETECTED, 1.0, label) for t in frames}
        masklets.append(Masklet(n + 1, seen, label, 1.0))
    return VideoResult(name, SIZE, length, 25.0, tuple(masklets), ("cat", "dog"), Provenance("made up"))


def with_frames(folder, results, suffix="jpg", mode="RGB"):
    for one in results:
        (folder / one.name).mkdir(parents=True)
        for t in range(one.length):
            Image.new(mode, SIZE[::-1], (9 * t, 30, 60)).save(folder / one.name / f"{t:05d}.{suffix}")


@pytest.fixture
def two(tmp_path):
    results = [result("a", [[0, 1, 2], [0, 1], [3]], 4, [1, 0, 1]), result("empty", [], 2, [])]
    with_frames(tmp_path / "frames", results)
    write_ytvis_truth(results, tmp_path / "truth.json")
    return tmp_path


def test_presence_is_annotation_not_visibility(two):
    """A crop that cuts an object away leaves it present with an empty mask."""
    footage, names = read_ytvis_footage(two / "truth.json", two / "frames")

    class LeftHalf:
        def view(self, random, size):
            return replace(WHOLE.view(random, size), size=(24, 12))

    clip = VideoClips(footage, names, LeftHalf(), FrameSampling(1)).clip(seed_item_generator(0, 0), 1)
    read = VideoClips(footage, names, WHOLE, FrameSampling(1))
    assert len(read) == 1  # the empty video is left out
    assert clip.images.shape[-2:] == (24, 12)
    found = {
        tuple(map(tuple, c.present.int().tolist()))
        for c in (read.clip(seed_item_generator(0, n), 3) for n in range(20))
    }
    assert found == {((1, 1, 1), (1, 1, 0)), ((1, 1, 0), (1, 0, 0), (0, 0, 1))}


def test_cropped_away_in_one_frame_is_still_present(tmp_path):
    one = result("a", [[0, 1]], 2, [0])
    mask = torch.zeros(*SIZE, dtype=torch.bool)
    mask[:, 30:] = True
    moved = {**one.masklets[0].sightings, 1: Sighting(Rle.encode(mask), Source.DETECTED, 1.0, 0)}
    one = replace(one, masklets=(Masklet(1, moved, 0, 1.0),))
    with_frames(tmp_path / "frames", [one])
    write_ytvis_truth([one], tmp_path / "truth.json")

    class Left:
        def view(self, random, size):
            return replace(WHOLE.view(random, size), size=(24, 20))

    source = VideoClips(
        *read_ytvis_footage(tmp_path / "truth.json", tmp_path / "frames"),
        Left(),
        FrameSampling(1, released_repeats=True),
    )
    clip = next(c for c in (source.clip(seed_item_generator(0, n), 3) for n in range(9)) if len(c.labels))
    assert clip.present.all()
    assert clip.masks[0].flatten(1).any(1).tolist()[:2] == [True, False]


def test_labels_are_the_objects_own_or_as_released(two):
    footage, names = read_ytvis_footage(two / "truth.json", two / "frames")
    sampling = FrameSampling(1, released_start=True)  # frames 0 to 2 only
    ours = VideoClips(footage, names, WHOLE, sampling).clip(seed_item_generator(0, 0), 3)
    assert ours.labels.tolist() == [1, 0]
    released = ReleasedLabelClips(VideoClips(footage, names, WHOLE, sampling))
    assert isinstance(released, ClipSource)
    clip = released.clip(seed_item_generator(0, 0), 3)
    assert clip.labels.tolist() == [1, 2]  # the second is not in the last frame: "no object"
    assert torch.equal(clip.masks, ours.masks)


def test_released_labels_of_worked_example():
    present = torch.tensor([[True, True], [True, False], [False, True]])
    assert make_released_labels(present, torch.tensor([4, 5, 6]), 7).tolist() == [4, 7, 6]


# --- VIPSeg's form


def test_vipseg(tmp_path):
    one = result("v", [[0, 1, 2], [1, 2]], 3, [1, 0])
    write_panoptic([one], tmp_path / "truth")
    with_frames(tmp_path / "frames", [one], "png")
    footage, names = read_vipseg_footage(
        tmp_path / "truth" / "pred.json", tmp_path / "truth" / "pan_pred", tmp_path / "frames"
    )
    assert names == ("cat", "dog")
    clip = VideoClips(footage, names, WHOLE, FrameSampling(1)).clip(seed_item_generator(0, 0), 3)
    assert sorted(clip.labels.tolist()) == [0, 1]
    first = clip.masks[clip.labels.tolist().index(1)]
    assert all(torch.equal(m, one.masklets[0].sightings[t].mask.decode()) for t, m in enumerate(first))
    assert clip.present[clip.labels.tolist().index(0)].tolist() == [False, True, True]


# --- files that do not fit


def test_missing_files_are_named(two):
    with pytest.raises(InputError, match=r"nowhere\.json: cannot be read"):
        read_ytvis_footage(two / "nowhere.json", two / "frames")
    footage, names = read_ytvis_footage(two / "truth.json", two / "elsewhere")
    with pytest.raises(InputError, match=r"a: .*00000\.jpg is not there; give the folder that holds the frames"):
        VideoClips(footage, names, WHOLE)


def test_videos_without_objects(two):
    told = json.loads((two / "truth.json").read_text())
    (two / "none.json").write_text(json.dumps({**told, "annotations": []}))
    with pytest.raises(InputError, match="none of the 2 videos has an object"):
        VideoClips(*read_ytvis_footage(two / "none.json", two / "frames"), WHOLE)
    (two / "none.json").write_text(json.dumps({**told, "videos": [], "annotations": []}))
    with pytest.raises(InputError, match="none of the 0 videos"):
        VideoClips(*read_ytvis_footage(two / "none.json", two / "frames"), WHOLE)


@pytest.mark.parametrize(("key", "value", "words"), [("video_id", 9, "video 9"), ("category_id", 9, "category 9")])
def test_ids_that_do_not_exist(two, key, value, words):
    told = json.loads((two / "truth.json").read_text())
    told["annotations"][0][key] = value
    (two / "bad.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match=words):
        read_ytvis_footage(two / "bad.json", two / "frames")


def test_pictures_that_do_not_fit(two):
    source = videos_of(two)
    Image.new("RGB", (41, 24)).save(two / "frames" / "a" / "00001.jpg")
    with pytest.raises(InputError, match=r"00001\.jpg: is 41x24, but its annotations are for 40x24"):
        source.clip(seed_item_generator(0, 0), 3)
    (two / "frames" / "a" / "00001.jpg").write_bytes(b"\xff\xd8")
    with pytest.raises(InputError, match=r"00001\.jpg: cannot be read as an image"):
        source.clip(seed_item_generator(0, 0), 3)


def videos_of(folder):
    return VideoClips(*read_ytvis_footage(folder / "truth.json", folder / "frames"), WHOLE, FrameSampling(1))


def test_sizes_are_drawn_once_a_clip(written):
    read = videos(written[1], ShortSideFraming((20, 28), 100, crop=0.0))
    assert {tuple(read.clip(seed_item_generator(4, n), 3).images.shape) for n in range(12)} == {
        (3, 3, 20, 33),
        (3, 3, 28, 47),
    }


def test_flips_are_drawn_once_a_clip(two):
    source = VideoClips(
        *read_ytvis_footage(two / "truth.json", two / "frames"), FixedFraming(SIZE, (1.0, 1.0), 0.5), FrameSampling(1)
    )
    sides = set()
    for n in range(12):
        clip = source.clip(seed_item_generator(5, n), 3)
        column = clip.masks[0].flatten(0, 1).any(0).nonzero()
        sides.add((int(column.min()), int(column.max())))
    assert sides == {(0, 3), (36, 39)}


def test_np_integers_are_fine():
    assert FrameSampling(1).frames(np.random.default_rng(0), 4, 3).dtype == np.int64


def test_exports_are_the_data_that_the_guide_trains_on(tmp_path):
    """docs/train-your-data.md: `export coco` makes stills, `export ytvis-set` videos."""
    frames = np.full((3, *SIZE, 3), 90, np.uint8)
    pixels = np.zeros(SIZE, bool)
    pixels[4:10, 5:20] = True
    seen = {t: Sighting(Rle.encode_pixels(pixels), Source.PROMPTED) for t in range(3)}
    result = VideoResult("clip", SIZE, 3, 10.0, (Masklet(1, seen, 0, 1.0),), ("car",), Provenance("test"))
    for form in ("coco", "ytvis-set"):
        result.export(form, tmp_path / form, frames=frames)
    assert is_still_folder(str(tmp_path / "coco")) and not is_still_folder(str(tmp_path / "ytvis-set"))
    assert Stills(tmp_path / "coco").categories == ("car",)
    [footage], categories = read_footage(tmp_path / "ytvis-set")
    clip = VideoClips([footage], categories, WHOLE, FrameSampling(1)).clip(seed_item_generator(0, 0), 2)
    assert categories == ("car",) and clip.images.shape[-2:] == SIZE and clip.present.all()
