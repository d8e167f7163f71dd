"""The nano segmenter: the seam, what is chosen of the cells' masks, and files."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.masks import mask_iou, matrix_nms
from masklet.core.protocols import Segmenter
from masklet.models.encoder import DeepBackbone, Encoder
from masklet.models.nano.dense import (
    SURE,
    DenseChoice,
    DenseSegmenter,
    ObjectSegmenter,
    decode_proposals,
    load_dense,
    read_dense,
    resize_cell_masks,
    save_dense,
)
from masklet.nn.dense_head import DenseHead, DenseHeadSettings

SETTINGS = DenseHeadSettings(width=32, wide=32, hidden=16)
NAMES = ("cat", "dog", "red car")


@cache
def head() -> DenseHead:
    torch.manual_seed(4)
    net = DenseHead(len(NAMES), SETTINGS).eval().requires_grad_(False)
    for parameter in net.kernel.parameters():
        parameter.normal_(std=0.2)
    net.score.weight.normal_(std=0.3)
    return net


@cache
def encoder() -> Encoder:
    return Encoder(96)


@cache
def deeper() -> DeepBackbone:
    return DeepBackbone()


def frame(size: tuple[int, int] = (120, 200)) -> Frame:
    return Frame(0, np.random.default_rng(5).integers(0, 255, (*size, 3), dtype=np.uint8))


def test_is_a_segmenter_whose_masks_are_the_frames_size() -> None:
    segmenter = DenseSegmenter(head(), NAMES, encoder(), choice=DenseChoice(least=0.0))
    assert isinstance(segmenter, Segmenter)
    [found], memory = segmenter.segment(segmenter.empty(), [frame()], ())
    assert memory is None
    assert found.masks.shape[1:] == (120, 200) and len(found) > 1
    assert found.masks.flatten(1).any(1).all()
    assert ((found.scores > 0) & (found.scores < 1)).all()
    assert set(found.labels.tolist()) <= {0, 1, 2}


def test_without_names_masks_are_the_same_and_scores_higher() -> None:
    segmenter = DenseSegmenter(head(), NAMES, encoder(), choice=DenseChoice(least=0.0))
    objects = ObjectSegmenter(segmenter)
    assert isinstance(objects, Segmenter) and objects.categories == ("object",)
    [named], _ = segmenter.segment(None, [frame()], ())
    [found], _ = objects.segment(None, [frame()], ())
    assert torch.equal(named.masks, found.masks) and not found.labels.any()
    assert (named.scores < found.scores).all()
    assert objects.weights == segmenter.weights and objects.description != segmenter.description


def test_frames_are_seen_one_by_one() -> None:
    segmenter = DenseSegmenter(head(), NAMES, encoder(), choice=DenseChoice(least=0.0))
    shown = [frame(), frame((96, 96))]
    together, _ = segmenter.segment(None, shown, ())
    for one, found in zip(shown, together, strict=True):
        [alone], _ = segmenter.segment(None, [one], ())
        assert torch.equal(alone.masks, found.masks) and torch.equal(alone.scores, found.scores)


def test_of_what_cells_offer_the_best_stays_and_twins_go() -> None:
    features = encoder()(frame())
    with torch.no_grad():
        logits, scores, names = decode_proposals(head(), deeper(), features, DenseChoice(least=0.0, nms=0.5))
        some, best, _ = decode_proposals(head(), deeper(), features, DenseChoice(least=0.0, nms=0.5, most=2))
    assert (scores[:-1] >= scores[1:]).all()
    twins = mask_iou(logits > 0, logits > 0).fill_diagonal_(0)
    assert twins.max() <= 0.5
    assert names.shape == (len(scores), 3)
    assert torch.equal(best, scores[:2]) and torch.equal(some, logits[:2])


def test_masks_that_overlap_take_from_each_others_scores() -> None:
    features = encoder()(frame())
    with torch.no_grad():
        logits, full, _ = decode_proposals(head(), deeper(), features, DenseChoice(least=0.0, sharpness=0.0, most=1000))
        _, less, _ = decode_proposals(head(), deeper(), features, DenseChoice(least=0.0, sharpness=2.0, most=1000))
    torch.testing.assert_close(less, matrix_nms(logits > 0, full, 2.0).sort(descending=True).values)
    assert less[0] == full[0] and less.sum() < full.sum()


def test_a_cell_beyond_doubt_does_not_push_the_outline() -> None:
    sure, surer = (torch.tensor([[[at, -SURE, -SURE]]]) for at in (SURE, 100 * SURE))
    assert resize_cell_masks(sure, (1, 30))[0, 0].sum() == 10  # halfway between the middles of the first two cells
    assert torch.equal(resize_cell_masks(surer, (1, 30)), resize_cell_masks(sure, (1, 30)))


def test_where_no_cell_is_sure_nothing_is_found() -> None:
    segmenter = DenseSegmenter(head(), NAMES, encoder(), choice=DenseChoice(least=1.0))
    [found], _ = segmenter.segment(None, [frame()], ())
    assert len(found) == 0 and found.masks.shape == (0, 120, 200)


# -- files


def saved(tmp_path: Path) -> Path:
    path = tmp_path / "weights.safetensors"
    save_dense(path, head(), SETTINGS, NAMES)
    return path


def test_a_file_holds_all_in_half_precision(tmp_path: Path) -> None:
    held = read_dense(saved(tmp_path))
    assert held.settings == SETTINGS and held.categories == NAMES
    wanted = head().state_dict()
    for name, value in held.head.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, wanted[name].half().float())
    assert not held.head.training and not any(p.requires_grad for p in held.head.parameters())


def test_a_segmenter_of_a_file_says_which_file(tmp_path: Path) -> None:
    path = saved(tmp_path)
    segmenter = load_dense(path, encoder())
    assert segmenter.categories == NAMES
    assert set(segmenter.weights) == {"mobilenetv2", "mobilenetv2-deep", path.name}


def test_a_cut_off_file_is_refused_by_name(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"weights\.safetensors: damaged"):
        read_dense(path)


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="not weights of a nano segmenter"):
        read_dense(path)


@pytest.mark.parametrize("lack", ["tensor", "settings"])
def test_a_file_that_lacks_something_is_refused(tmp_path: Path, lack: str) -> None:
    path = saved(tmp_path)
    tensors = load_file(path)
    metadata = {"kind": "nano-segmenter", "settings": "{}", "categories": '["cat", "dog", "red car"]'}
    if lack == "tensor":
        tensors.pop("score.bias")
        metadata["settings"] = '{"width": 32, "wide": 32, "hidden": 16}'
    save_file(tensors, path, metadata)
    words = "it lacks score.bias" if lack == "tensor" else "damaged"
    with pytest.raises(InputError, match=words):
        read_dense(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_dense(tmp_path / "none.safetensors", encoder())
