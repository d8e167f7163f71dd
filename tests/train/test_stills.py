"""Annotated pictures as clips: reading, DVIS's pseudo videos, pasted objects, and pictures for the segmenter."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from masklet.core.errors import InputError
from masklet.core.rle import Rle
from masklet.train.data.clips import ClipSource, seed_item_generator
from masklet.train.data.framing import FixedFraming
from masklet.train.data.pasting import (
    Cutout,
    MovingStills,
    PastingSettings,
    _paste_cutout,
    extract_cutouts,
    paste_cutouts,
)
from masklet.train.data.stills import (
    CropSettings,
    PseudoVideos,
    Still,
    StillCrops,
    Stills,
    apply_random_light,
    name_as_object,
    paste_objects,
)

H, W = 48, 64
BOXES = {1: (4, 6, 20, 30), 2: (24, 20, 44, 60)}  # y0, x0, y1, x1 of two objects in each picture


def rle(box):
    mask = torch.zeros(H, W, dtype=torch.bool)
    mask[box[0] : box[2], box[1] : box[3]] = True
    code = Rle.encode(mask)
    return {"size": [H, W], "counts": code.counts.decode()}


def content():
    images = [{"id": n, "file_name": f"{n}.png", "height": H, "width": W, "coco_split": "ab"[n % 2]} for n in (5, 6, 7)]
    masks = {1: rle(BOXES[1]), 2: [[20.0, 24.0, 60.0, 24.0, 60.0, 44.0, 20.0, 44.0]]}  # run lengths, and a polygon
    annotations = [
        {
            "id": 10 * image["id"] + k,
            "image_id": image["id"],
            "category_id": 3 * k,
            "segmentation": masks[k],
            "iscrowd": 0,
        }
        for image in images[:2]
        for k in masks
    ]
    crowd = {"id": 1, "image_id": 5, "category_id": 3, "segmentation": rle((0, 0, 40, 40)), "iscrowd": 1}
    categories = [{"id": 6, "name": "dog"}, {"id": 3, "name": "cat"}]
    return {"images": images, "annotations": [*annotations, crowd], "categories": categories}


def write(folder, told):
    (folder / "images").mkdir(exist_ok=True)
    (folder / "annotations.json").write_text(json.dumps(told))
    for n in (5, 6, 7):
        image = np.random.default_rng(n).integers(60, 90, (H, W, 3), dtype=np.uint8)
        for k, (y0, x0, y1, x1) in BOXES.items():
            image[y0:y1, x0:x1] = [0, 0, 0]
            image[y0:y1, x0:x1, k - 1] = 200 + n
        Image.fromarray(image).save(folder / "images" / f"{n}.png")
    return folder


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path, content())


@pytest.fixture
def stills(folder):
    return Stills(folder)


def coloured(clip, n):
    """Where object n's colour is strong in every frame."""
    images = clip.images.permute(0, 2, 3, 1).float()
    k = int(clip.labels[n])
    return (images[..., k] > 150) & (images[..., 1 - k] < 60)


# --- reading


def test_pictures_with_their_objects(stills):
    assert stills.categories == ("cat", "dog")  # by their ids
    assert len(stills) == 2  # the third picture has none
    still = stills.still(0)
    assert still.labels == [0, 1]
    for k, (y0, x0, y1, x1) in BOXES.items():
        assert (still.ids[y0:y1, x0:x1] == k).all()
    assert (still.ids > 0).sum() == 16 * 24 + 20 * 40  # the crowd is not there


def test_pictures_that_are_wanted(folder):
    assert len(Stills(folder, wanted=lambda image: image["coco_split"] == "a")) == 1


def test_categories_are_renamed_and_ordered(folder):
    assert Stills(folder, name_as_object).categories == ("object",)
    assert set(Stills(folder, name_as_object).still(0).labels) == {0}
    named = Stills(folder, lambda name: {"cat": "animal"}.get(name, name), ("bird", "dog", "animal"))
    assert named.still(0).labels == [2, 1]


def spoil(told, *keys, value):
    at = told
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    return told


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (("annotations", 0, "image_id"), 99, r"annotations\[0\]: there is no image 99"),
        (("annotations", 1, "category_id"), 4, r"annotations\[1\]: there is no category 4"),
        (("images", 1, "id"), 5, "the image id 5 is given twice"),
        (("images", 0, "file_name"), "gone.png", "gone.png is not there"),
        (("annotations", 0, "segmentation"), {"size": [3, 3], "counts": "9"}, "the mask's size is"),
        (("annotations",), [], "no image with objects"),
    ],
)
def test_damage_is_named(tmp_path, keys, value, words):
    write(tmp_path, spoil(content(), *keys, value=value))
    with pytest.raises(InputError, match=words):
        Stills(tmp_path)


def test_what_is_missing_is_named(tmp_path, folder):
    with pytest.raises(InputError, match=r"annotations\.json: cannot be read"):
        Stills(tmp_path / "nowhere")
    with pytest.raises(InputError, match="'cat' is none of the categories bird, dog"):
        Stills(folder, categories=("bird", "dog"))


def test_pictures_that_do_not_belong_to_the_json(folder):
    stills = Stills(folder)
    Image.new("RGB", (W, H + 1)).save(folder / "images" / "5.png")
    with pytest.raises(InputError, match=r"5\.png: is 64x49, but its annotations are for 64x48"):
        stills.still(0)
    (folder / "images" / "5.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"5\.png: cannot be read as an image"):
        stills.still(0)


# --- DVIS's pseudo videos


def test_pseudo_videos_turn_one_picture(stills):
    source = PseudoVideos(stills, FixedFraming((H, W), (1.0, 1.0), flip=0.0))
    assert isinstance(source, ClipSource)
    ways = set()
    for n in range(12):
        clip = source.clip(seed_item_generator(0, n), 5)
        assert clip.labels.tolist() == [0, 1]
        assert clip.present.all()
        assert int(clip.masks.sum(0).max()) <= 1
        for k in range(2):
            strong = coloured(clip, k)
            assert (strong & clip.masks[k]).sum() > 0.95 * clip.masks[k].sum()
        tilts = [tilt(m) for m in clip.masks[1]]
        assert max(map(abs, tilts)) <= 15.5
        assert tilts == sorted(tilts) or tilts == sorted(tilts)[::-1]
        ways.add(tilts[0] < tilts[-1])
    assert ways == {True, False}


def tilt(mask):
    """The angle of a rectangle's long side, in degrees."""
    y, x = (v.double() - v.double().mean() for v in mask.nonzero().T)
    return float(torch.rad2deg(0.5 * torch.atan2(2 * (x * y).mean(), (x * x).mean() - (y * y).mean())))


def test_clips_depend_on_the_numbers_alone(stills):
    settings = PastingSettings(size=(H, W))
    for source in (
        PseudoVideos(stills, FixedFraming((H, W))),
        MovingStills(stills, settings),
        StillCrops(stills, FixedFraming((H, W))),
    ):
        one, _, again = (source.clip(seed_item_generator(1, n), 3) for n in (0, 1, 0))
        assert torch.equal(one.images, again.images)
        assert torch.equal(one.masks, again.masks)
        assert one.images.shape == (3, 3, H, W)
        assert int(one.masks.sum(0).max()) <= 1


# --- objects over moving pictures


def flat(label, colour):
    return Cutout(np.full((20, 30, 3), colour, np.uint8), np.full((20, 30), 255, np.uint8), label)


def below():
    ids = np.zeros((H, W), np.uint16)
    ids[10:40, 10:50] = 1
    return Still(np.where(ids[..., None] > 0, np.uint8(90), np.uint8(20)).repeat(3, 2), ids, [5])


def test_cutouts_are_the_large_objects():
    still = below()
    still.ids[0, :20], still.labels[:] = 2, [5, 6]  # 20 pixels
    found = extract_cutouts(still)
    assert [(c.label, c.image.shape, c.inside.all()) for c in found] == [(5, (30, 40, 3), True)]


def test_pasted_objects_lie_where_their_masks_are():
    settings = PastingSettings(size=(H, W), light=0.0, exits=0.0, visits=0.0, objects=(2, 2))
    for n in range(6):
        clip = paste_cutouts(
            seed_item_generator(2, n), [flat(7, [255, 0, 0]), flat(8, [0, 255, 0])], below(), settings, 4
        )
        assert torch.equal(clip.present, clip.masks.flatten(2).any(2))
        images = clip.images.permute(0, 2, 3, 1).int()
        for label, channel in ((7, 0), (8, 1)):
            mask = clip.masks[clip.labels == label].any(0)
            pure = (images[..., channel] - images[..., 1 - channel]) > 220
            assert (pure & ~mask).sum() == 0
            assert (images[..., channel] - images[..., 1 - channel])[mask].float().mean() > 180
        assert int(clip.masks.sum(0).max()) == 1


def test_a_pasted_object_lies_at_its_pose_and_ends_where_it_is_half_seen():
    ids, grey = np.zeros((H, W), np.uint16), np.full((H, W, 3), 20, np.uint8)
    cutout = flat(7, [255, 20, 20])
    _paste_cutout(grey, ids, cutout, np.array([30.5, 20.25, np.log(cutout.radius), 0.0, 0.0]), 1)
    rows, cols = np.nonzero(ids)
    assert (rows.mean() + 0.5, cols.mean() + 0.5) == pytest.approx((20.25, 30.5), abs=0.5)
    assert (ids > 0).sum() == pytest.approx(20 * 30, rel=0.05)
    share = (grey[..., 0] - 20.0) / 235
    assert share[ids == 1].min() > 0.35 and share[ids == 0].max() < 0.65


def test_mosaics_keep_all_objects_apart(stills):
    source = StillCrops(stills, FixedFraming((H, W), (1.0, 1.0)), CropSettings(mosaic=1.0, paste=0.0, light=0.0))
    for n in range(5):
        clip = source.clip(seed_item_generator(10, n), 1)
        assert len(clip.labels) >= 5
        assert all(
            (coloured(clip, k) & clip.masks[k]).sum() > 0.6 * clip.masks[k].sum() for k in range(len(clip.labels))
        )


def test_pasted_objects_leave_and_return():
    settings = PastingSettings(size=(H, W), exits=1.0, visits=0.0, rests=0.0)
    rows = [paste_cutouts(seed_item_generator(3, n), [flat(7, [255, 0, 0])], below(), settings, 9) for n in range(6)]
    for clip in rows:
        seen = clip.present[clip.labels == 7][0].tolist()
        assert seen[0] and seen[-1] and not all(seen)


def test_the_background_moves_and_bends():
    still_ = replace(PastingSettings(size=(H, W)), camera=0.0, bend=0.0, light=0.0)
    calm = paste_cutouts(seed_item_generator(4, 1), [], below(), still_, 4)
    assert torch.equal(calm.masks[:, 0], calm.masks[:, 3])
    for moved in (replace(still_, camera=0.1), replace(still_, bend=0.2)):
        clip = paste_cutouts(seed_item_generator(4, 1), [], below(), moved, 4)
        assert not torch.equal(clip.masks[:, 0], clip.masks[:, 3])
        lit = clip.images.float().mean(1) > 55
        assert (lit == clip.masks[0]).float().mean() > 0.97


def test_moving_stills_show_their_own_and_others(stills):
    source = MovingStills(stills, PastingSettings(size=(H, W), objects=(2, 2), exits=0, visits=0))
    assert isinstance(source, ClipSource)
    assert max(len(source.clip(seed_item_generator(5, n), 3).labels) for n in range(6)) >= 3
    twins = MovingStills(stills, PastingSettings(size=(H, W), objects=(3, 3), lookalikes=1.0))
    found = twins._cutouts(seed_item_generator(0, 0), 3)
    assert found[0] is found[1] or found[0] is found[2]


# --- the segmenter's pictures


def test_crops_keep_objects_and_labels_together(stills):
    source = StillCrops(stills, FixedFraming((H, W), (0.5, 2.0)), CropSettings(light=0.0))
    several = 0
    for n in range(20):
        clip = source.clip(seed_item_generator(6, n), 1)
        several += len(clip.labels) > 2
        assert clip.masks.flatten(2).any(2).all()
        for k in range(len(clip.labels)):
            assert (coloured(clip, k) & clip.masks[k]).sum() >= 0.6 * clip.masks[k].sum()
    assert several >= 3  # mosaics and copies


def test_all_frames_of_a_crop_are_alike(stills):
    clip = StillCrops(stills, FixedFraming((H, W))).clip(seed_item_generator(7, 0), 2)
    assert torch.equal(clip.images[0], clip.images[1])


def test_pasting_cuts_what_lies_below():
    ids = np.zeros((H, W), np.uint16)
    ids[:20] = 1
    above = Still(np.full((H, W, 3), 250, np.uint8), ids, [9])
    made = next(
        m for m in (paste_objects(seed_item_generator(8, n), below(), above) for n in range(9)) if (m.ids == 2).any()
    )
    assert made.labels == [5, 9]
    assert (made.ids[:20] == 2).all() and (made.image[:20] == 250).all()
    assert (made.ids[20:40, 10:50] == 1).all()


def test_light_changes_by_no_more_than_its_share():
    grey = np.full((8, 8, 3), 100, np.uint8)
    assert np.array_equal(apply_random_light(seed_item_generator(0, 0), grey, 0.0), grey)
    levels = [apply_random_light(seed_item_generator(9, n), grey, 0.3).mean() for n in range(50)]
    assert 100 * 0.7 * 0.85 <= min(levels) < 90 and 110 < max(levels) <= 100 * 1.3 * 1.15


# --- the sets at hand


@pytest.mark.parametrize("name", ["coco80", "ecssd", "voc2007", "pennfudan"])
def test_the_sets_at_hand(data, name):
    folder = data / "stills" / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    stills = Stills(folder, name_as_object)
    clip = MovingStills(stills, PastingSettings(size=(H, W))).clip(seed_item_generator(0, 0), 2)
    assert clip.images.shape == (2, 3, H, W)
    assert len(stills) > 40
