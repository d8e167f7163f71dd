"""VSPW's mIoU and consistency against a literal twin, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from masklet.core.errors import InputError
from masklet.evaluate.panoptic.vspw import compute_consistency, evaluate_vspw


def written(folder: Path, videos: dict[str, list[np.ndarray]], inside: str = "") -> Path:
    for name, pages in videos.items():
        (folder / name / inside).mkdir(parents=True)
        for t, page in enumerate(pages):
            Image.fromarray(page).save(folder / name / inside / f"{t:08d}.png")
    return folder


def random_videos(seed: int, lengths: tuple[int, ...] = (18, 9)) -> dict[str, list[np.ndarray]]:
    rng, made = np.random.default_rng(seed), {}
    for n, length in enumerate(lengths):
        page = rng.choice([0, 1, 2, 5, 255], (6, 7)).astype(np.uint8)
        pages = []
        for _ in range(length):
            page = np.where(rng.random((6, 7)) < 0.03, rng.choice([1, 2, 5]), page).astype(np.uint8)
            pages.append(page)
        made[f"v{n}"] = pages
    return made


def twin_consistency(truth: list[np.ndarray], found: list[np.ndarray], n: int) -> float | None:
    """Pixel by pixel, window by window."""
    values = []
    for start in range(len(truth) - n + 1):
        stays = right = 0
        for place in np.ndindex(truth[0].shape):
            labels = {int(page[place]) for page in truth[start : start + n]}
            if len(labels) == 1 and not labels & {0, 254, 255}:
                stays += 1
                right += {int(page[place]) for page in found[start : start + n]} == labels
        values += [right / stays] if stays else []
    return sum(values) / len(values) if values else None


def twin_ious(truth: dict[str, list[np.ndarray]], found: dict[str, list[np.ndarray]]) -> dict[int, float]:
    t, f = (np.concatenate([p.ravel() for pages in side.values() for p in pages]) for side in (truth, found))
    counted = ~np.isin(t, (0, 254, 255))
    t, f = t[counted], f[counted]
    return {k: ((t == k) & (f == k)).sum() / ((t == k) | (f == k)).sum() for k in set(t) | set(f) if k not in (0, 255)}


@pytest.mark.parametrize("seed", range(3))
def test_numbers_are_those_of_the_twin(tmp_path: Path, seed: int) -> None:
    truth, found = random_videos(seed), random_videos(seed + 50)
    found = {v: [np.where(np.random.default_rng(seed).random(p.shape) < 0.8, t, p) for t, p in zip(truth[v], found[v], strict=True)] for v in truth}  # fmt: skip
    (tmp_path / "label_num_dic_final.json").write_text(json.dumps({"wall": 1 if seed else "1", "sky": 2}))
    gt = written(tmp_path / "data", truth, "mask").parent
    report = evaluate_vspw(gt, written(tmp_path / "pred", found))
    ious = twin_ious(truth, found)
    assert report.scores["mIoU"] == pytest.approx(100 * np.mean(list(ious.values())))
    assert report.parts["wall"]["IoU"] == pytest.approx(100 * ious[1]) and "class 5" in report.parts
    for n in (8, 16):
        each = [v for name in truth if (v := twin_consistency(truth[name], found[name], n)) is not None]
        assert report.scores[f"VC{n}"] == pytest.approx(100 * np.mean(each)) and len(each) == (2 if n == 8 else 1)


def test_a_flicker_costs_every_window_that_holds_it() -> None:
    steady = [np.full((2, 2), 3, np.uint8)] * 10
    once = [p.copy() for p in steady]
    once[0][0, 0] = 1
    assert compute_consistency(steady, once, 8) == pytest.approx((0.75 + 1 + 1) / 3)
    assert compute_consistency(steady, steady, 11) is None


def test_labels_beyond_the_list_and_missing_frames_are_refused(tmp_path: Path) -> None:
    page = np.full((4, 4), 130, np.uint8)
    gt = written(tmp_path / "gt", {"a": [page]})
    with pytest.raises(InputError, match="label 130; VSPW's are 1 to 124"):
        evaluate_vspw(gt, written(tmp_path / "pred", {"a": [page]}))
    written(tmp_path / "short", {"a": [page]})
    written(tmp_path / "long", {"a": [page % 100, page % 100]})
    with pytest.raises(InputError, match=r"no 00000001\.png"):
        evaluate_vspw(tmp_path / "long", tmp_path / "short")
