"""The library's door: what it takes, and what it says of the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import World, square, still

import masklet
from masklet.api import check_prompt, check_prompts, check_system_settings, load_segmenter
from masklet.core.instances import Box
from masklet.core.rle import Rle
from masklet.io.video.sources import open_video
from masklet.models.encoder import Encoder
from masklet.systems import sam2bmp
from masklet.systems.deva import online as deva

VIDEO = np.zeros((2, 16, 24, 3), np.uint8)
FULL = np.ones((16, 24), bool)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -0.1, True, "high", None, 10**400])
def test_a_setting_is_a_number_that_json_can_say(value: object) -> None:
    with pytest.raises(masklet.InputError, match="setting conf"):
        check_system_settings({"conf": value}, sam2bmp.Sam2BmpSettings)
    assert (
        check_system_settings({"conf": 1, "max_lost": None, "feature_disk": 2**40}, sam2bmp.Sam2BmpSettings) is not None
    )


@pytest.mark.parametrize(
    ("setting", "right", "wrong"),
    [
        ("stuff", ["sky"], "sky"),
        ("stuff", ["sky"], [1]),
        ("max_objects", None, 1.5),
        ("empty_born", True, 1),
        ("clip", 1, True),
        ("delete", "at", "late"),
    ],
)
def test_settings_of_other_kinds(setting: str, right: object, wrong: object) -> None:
    with pytest.raises(masklet.InputError, match=f"setting {setting}"):
        check_system_settings({setting: wrong}, deva.DevaSettings)
    assert deva.DevaSettings(**check_system_settings({setting: right}, deva.DevaSettings))


def test_each_system_has_its_own_settings() -> None:
    made = masklet.load("deva", clip=1).system
    assert made.settings == deva.DevaSettings(clip=1, conf=made.segmenter.conf)
    with pytest.raises(masklet.InputError, match="no setting 'clip'"):
        masklet.load("sam2bmp", clip=1)


@pytest.mark.parametrize(("setting", "value"), [("clip", 0), ("every", 0), ("stuff", ["sky"])])
def test_settings_of_deva_that_mean_nothing_are_refused(setting: str, value: object) -> None:
    with pytest.raises(masklet.InputError, match=setting):
        masklet.load("deva", **{setting: value})


@pytest.mark.parametrize(
    ("box", "inside"),
    [
        (Box(-5, -5, 10, 8), Box(0, 0, 10, 8)),
        (Box(20, 10, 99, 99), Box(20, 10, 24, 16)),
        (Box(-9, -9, 99, 99), Box(0, 0, 24, 16)),
    ],
)
def test_of_a_box_partly_outside_the_part_inside_counts(box: Box, inside: Box) -> None:
    assert check_prompt(0, 1, box, open_video(VIDEO)) == inside


@pytest.mark.parametrize("box", [Box(-9, 0, 0, 9), Box(24, 0, 30, 9), Box(5, 5, 5, 9), Box(float("nan"), 0, 9, 9)])
def test_a_box_that_holds_nothing_is_refused(box: Box) -> None:
    with pytest.raises(masklet.InputError, match="a part within the 24x16 video"):
        check_prompt(0, 1, box, open_video(VIDEO))


@pytest.mark.parametrize(
    "mask",
    [FULL, FULL.astype(np.uint8) * 255, FULL * 2.0, torch.from_numpy(FULL), FULL.tolist(), Rle.encode_pixels(FULL)],
)
def test_a_mask_comes_in_many_forms(mask: Any) -> None:
    got = check_prompt(0, 1, mask, open_video(VIDEO))
    assert isinstance(got, torch.Tensor) and got.dtype == torch.bool and got.all()


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ({}, "no prompt"),
        ({0: {}}, "no prompt"),
        ({-1: {1: FULL}}, "frame -1"),
        ({"0": {1: FULL}}, "frame '0'"),
        ({0: {"1": FULL}}, "ids are whole numbers"),
        ({0: FULL}, "ndarray names no object"),
        ({0: {1: "mask.png"}}, "str is no prompt"),
        ({0: {1: FULL[:8]}}, "the mask is 24x8, the video 24x16"),
        ({0: {1: ~FULL}}, "the mask is empty"),
        ({0: {1: np.arange(384).reshape(16, 24)}}, "the mask has values from 1 to 383 beside 0"),
        ({0: {1: torch.full((16, 24), 0.1).index_fill(0, torch.tensor([2]), 0.9)}}, "values from 0.1 to 0.9"),
    ],
)
def test_what_is_no_prompt_is_said(prompts: Any, words: str) -> None:
    with pytest.raises(masklet.InputError, match=words):
        check_prompts(prompts, open_video(VIDEO))


def test_what_a_result_cannot_have_is_refused_before_work() -> None:
    for rate in (0, -5.0, float("nan"), "25"):
        for do in (lambda r: masklet.track(VIDEO, {0: {1: FULL}}, rate=r), lambda r: masklet.open(VIDEO, rate=r)):
            with pytest.raises(masklet.InputError, match="frames per second"):
                do(rate)


@pytest.mark.parametrize("frames", ["clip.mp4", Path("clip.mp4"), 5])
def test_a_stream_is_of_frames(frames: Any) -> None:
    with pytest.raises(masklet.InputError, match="no frames"):
        masklet.stream(frames)


def test_a_segmenters_name_longer_than_a_file_can_have() -> None:
    with pytest.raises(masklet.InputError, match="neither a segmenter"):
        load_segmenter("a" * 5000, Encoder())


@pytest.mark.parametrize("system", ["minvis", "dvis", "dvis-offline"])
def test_systems_of_queries_need_a_mask2former(system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLET_WEIGHTS", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(masklet.InputError, match=f"{system} needs weights; give them by `segmenter`: "):
        masklet.load(system, window=2)
    with pytest.raises(masklet.InputError, match="weights facebook/mask2former-x are not on this machine"):
        masklet.load(system, segmenter="facebook/mask2former-x")
    with pytest.raises(masklet.InputError, match="window = 0"):
        masklet.load(system, window=0)


def test_what_keeps_objects_from_swallowing_each_other_is_in_the_provenance() -> None:
    """Beside the propagator: what finds bystanders, with its weights."""
    world = World([still(4, 4), still(4, 12)], length=3)
    told = masklet.track(world, {0: {1: square(4, 4)}}, propagator="affinity").provenance
    assert str(told.settings["bystanders"]).startswith("nano: ")
    assert {"nanodet", "nano-image-predictor"} <= set(told.weights)


def test_all_that_is_missing_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASKLET_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    with pytest.raises(masklet.InputError) as caught:
        masklet.load(segmenter="everything:sam2.1-large", propagator="sam2.1-tiny")
    assert "sam2.1-large" in str(caught.value) and "sam2.1-tiny" in str(caught.value)
