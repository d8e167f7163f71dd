"""Soft masks in a folder: one object or several, scores, what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.protocols import SoftSegmenter
from masklet.io.video.sources import open_video
from masklet.models.segmenters.soft_masks import SoftMaskFolder

SIZE = (6, 8)


def put(path: Path, value: int, size: tuple[int, int] = SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, value, np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, values, scores in (("0", (51, 204), (0.2, 0.9)), ("1", (255, None), (0.6, 0.5))):
        for t, value in enumerate(values):
            if value is not None:
                put(tmp_path / f"soft/{name}/{t:05d}.png", value)
        told = {f"{t:05d}": score for t, score in enumerate(scores)}
        (tmp_path / f"soft/{name}/scores.json").write_text(json.dumps(told))
    return tmp_path / "soft"


def test_greys_are_probabilities_and_scores_means(folder: Path) -> None:
    soft = SoftMaskFolder(folder)
    assert isinstance(soft, SoftSegmenter)
    masks, score = soft.read_soft_masks(0, SIZE)
    assert masks.shape == (2, *SIZE) and score == pytest.approx(0.4)
    torch.testing.assert_close(masks[:, 0, 0], torch.tensor([0.2, 1.0]))
    masks, score = soft.read_soft_masks(1, SIZE)
    torch.testing.assert_close(masks[:, 0, 0], torch.tensor([0.8, 0.0]))  # no image: nowhere
    assert score == pytest.approx(0.7)
    assert soft.read_soft_masks(2, SIZE)[1] is None
    (folder / "1/scores.json").unlink()
    assert SoftMaskFolder(folder).read_soft_masks(0, SIZE)[1] is None  # one of two is not known


def test_one_object_has_its_images_in_the_folder(folder: Path) -> None:
    masks, score = SoftMaskFolder(folder / "0").read_soft_masks(1, SIZE)
    assert len(masks) == 1 and score == 0.9


def test_frames_go_by_their_names(folder: Path, tmp_path: Path) -> None:
    for name in ("00001", "00007"):
        put(tmp_path / f"frames/{name}.png", 9)
    bound = SoftMaskFolder(folder).bind_video(open_video(str(tmp_path / "frames")))
    assert bound.read_soft_masks(0, SIZE)[0][0, 0, 0] == pytest.approx(0.8)
    assert not bound.read_soft_masks(1, SIZE)[0].any()


def test_as_a_segmenter_it_gives_what_is_rather_inside(folder: Path) -> None:
    frames = [Frame(t, np.zeros((*SIZE, 3), np.uint8), t) for t in range(2)]
    (first, second), _ = SoftMaskFolder(folder).segment(None, frames, [])
    assert len(first.masks) == len(second.masks) == 1  # 0.2 is not, 1 is; 0.8 is
    assert first.scores.tolist() == pytest.approx([0.4])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: put(f / "0/00000.png", 9, (5, 5)), "00000.png: 5x5, the video 8x6"),
        (lambda f: (f / "0/scores.json").write_text('{"00000": 2}'), "numbers from 0 to 1"),
        (lambda f: [p.unlink() for p in f.rglob("*.png")], "no folder with a grey png"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, change, words: str) -> None:
    change(folder)
    with pytest.raises(InputError, match=words):
        SoftMaskFolder(folder).read_soft_masks(0, SIZE)
