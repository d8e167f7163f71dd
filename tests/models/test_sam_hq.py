"""SAM-HQ against the module that it comes from, at random weights; through the doors too."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from models.test_text import bert_words, nothing_here  # noqa: F401
from torch.nn.functional import interpolate

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.models.segmenters.prompted import BoxMasker, EverythingSegmenter
from masklet.models.segmenters.sam_hq import SamHqMasker, compute_inside_size
from masklet.models.segmenters.text import GroundingDino, load_detector
from masklet.parts import load_segmenter, load_text_segmenter

SIDE = 64
CPU = torch.device("cpu")


@cache
def small_sam_hq() -> Any:
    from transformers import SamHQConfig, SamHQModel

    vision = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": SIDE, "patch_size": 8,
        "output_channels": 32, "global_attn_indexes": [0, 1], "num_pos_feats": 16, "mlp_dim": 32, "window_size": 4,
    }  # fmt: skip
    prompts = {"hidden_size": 32, "image_size": SIDE, "patch_size": 8}
    decoder = {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16, "vit_dim": 32}
    torch.manual_seed(3)
    config = SamHQConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    return SamHQModel(config).eval().requires_grad_(False)


@cache
def small_mm_dino() -> Any:
    from transformers import BertConfig, MMGroundingDinoConfig, MMGroundingDinoForObjectDetection, SwinConfig

    swin = SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, out_indices=[2, 3, 4]
    )
    few = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    own = {f"{part}_{what}": n for part in ("encoder", "decoder") for what, n in {"ffn_dim": 16, "attention_heads": 2, "n_points": 2}.items()}  # fmt: skip
    torch.manual_seed(4)
    config = MMGroundingDinoConfig(
        backbone_config=swin, text_config=BertConfig(vocab_size=1100, hidden_size=16, **few), num_queries=20,
        encoder_layers=1, decoder_layers=2, d_model=32, **own,
    )  # fmt: skip
    return MMGroundingDinoForObjectDetection(config).eval().requires_grad_(False)


def frame_of(h: int, w: int) -> Frame:
    return Frame(0, np.random.default_rng(0).integers(0, 256, (h, w, 3), np.uint8), 0.0)


def masker() -> SamHqMasker:
    return SamHqMasker(small_sam_hq(), {"w": "0" * 64})


@pytest.mark.parametrize("size", [(48, 80), (80, 48), (33, 33), (200, 300)])
def test_pixels_are_those_of_transformers(size: tuple[int, int]) -> None:
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    seen: list[torch.Tensor] = []
    net = small_sam_hq()
    own = masker()
    own.net = type("Net", (), {"get_image_embeddings": lambda s, x: (seen.append(x), net.get_image_embeddings(x))[1], "device": CPU})()  # fmt: skip
    own.look(frame_of(*size))
    sides = {"size": {"longest_edge": SIDE}, "pad_size": {"height": SIDE, "width": SIDE}}
    expected = SamImageProcessorPil(**sides)(frame_of(*size).image, return_tensors="pt")
    torch.testing.assert_close(seen[0], expected["pixel_values"], atol=1e-5, rtol=0)
    assert tuple(expected["reshaped_input_sizes"][0].tolist()) == compute_inside_size(size, SIDE)


@pytest.mark.parametrize("size", [(48, 80), (90, 50)])
def test_masks_of_boxes_are_those_of_the_module(size: tuple[int, int]) -> None:
    """Asked by the module's own door: pixels in, boxes in the network's pixels."""
    own, net = masker(), small_sam_hq()
    frame, boxes = frame_of(*size), torch.tensor([[2.0, 3.0, 30.0, 40.0], [10.0, 5.0, 44.0, 30.5], [0, 0, 9, 9]])
    features = own.look(frame)
    got = own.boxed(features, boxes)
    square = torch.zeros(1, 3, SIDE, SIDE)
    own.net = type("Net", (), {"get_image_embeddings": lambda s, x: (square.copy_(x), net.get_image_embeddings(x))[1], "device": CPU})()  # fmt: skip
    own.look(frame)
    h, w = features.inside
    with torch.no_grad():
        out = net(pixel_values=square, input_boxes=(boxes * torch.tensor([w / size[1], h / size[0]] * 2))[None], multimask_output=False)  # fmt: skip
    large = interpolate(out.pred_masks[0, :, :1], (SIDE, SIDE), mode="bilinear", align_corners=False)[..., :h, :w]
    expected = interpolate(large, size, mode="bilinear", align_corners=False)[:, 0] > 0
    assert got.shape == (3, *size) and (got != expected).float().mean() < 1e-3
    assert isinstance(own, BoxMasker) and own.boxed(features, boxes[:0]).shape == (0, *size)


def test_how_many_go_together_changes_nothing() -> None:
    frame, boxes = frame_of(40, 60), torch.rand(5, 4) * 20 + torch.tensor([0.0, 0, 30, 18])
    one, many = SamHqMasker(small_sam_hq(), at_once=2), masker()
    assert torch.equal(one.boxed(one.look(frame), boxes), many.boxed(many.look(frame), boxes))


def test_everything_takes_its_points() -> None:
    own = masker()
    features = own.look(frame_of(40, 60))
    found = list(own.pointed(features, torch.tensor([[10.0, 10.0], [50.0, 30.0]]), -9.0))
    assert len(found) == 6 and all(logits.shape == (40, 60) for logits, _ in found)
    segmenter = EverythingSegmenter(own, 3, quality=-9.0, stability=0.0)
    [detections], _ = segmenter.segment(None, [frame_of(40, 60)], [])
    assert detections.masks.shape[1:] == (40, 60)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    hq, dino = (tmp_path_factory.mktemp("saved") / name for name in ("hq", "dino"))
    small_sam_hq().save_pretrained(hq)
    small_mm_dino().save_pretrained(dino)
    bert_words().save_pretrained(dino)
    return hq, dino


def test_mm_grounding_dino_is_asked_as_grounding_dino_is(folders: tuple[Path, Path]) -> None:
    frame, net = frame_of(60, 80), small_mm_dino()
    detector = load_detector(str(folders[1]), CPU)
    assert isinstance(detector, GroundingDino) and detector.description.startswith("mm-grounding-dino")
    detector.threshold = detector.text_threshold = 0.0
    query = detector.query(("dog", "red car"))
    found = detector.find(frame, query)
    with torch.no_grad():
        out = net(pixel_values=detector.pixels(frame), **query.tokens)
    likely = out.logits[0, :, : query.own.shape[1]].sigmoid()
    assert len(found) == 20 and torch.allclose(found.scores, likely.amax(1))
    centre, extent = out.pred_boxes[0, :, :2], out.pred_boxes[0, :, 2:]
    corners = torch.cat([centre - extent / 2, centre + extent / 2], 1) * torch.tensor([80, 60, 80, 60])
    assert torch.allclose(found.corners, corners, atol=1e-4)
    assert torch.equal(found.labels, torch.stack([likely[:, own].amax(1) for own in query.own], 1).argmax(1))


def test_words_and_everything_through_the_doors(folders: tuple[Path, Path], tmp_path: Path) -> None:
    hq, dino = folders
    segmenter = load_text_segmenter(f"{dino}:{hq}", "dog. red car.", "cpu")
    assert "sam-hq, 64 px" in segmenter.description and len(segmenter.weights) == 2
    segmenter.detector.threshold = segmenter.detector.text_threshold = 0.0
    [found], _ = segmenter.segment(None, [frame_of(60, 80)], [])
    assert found.masks.shape[1:] == (60, 80)
    assert "sam-hq" in load_segmenter(f"everything:{hq}", None, "cpu").description
    (tmp_path / "hq").mkdir()
    (tmp_path / "hq" / "config.json").write_bytes((hq / "config.json").read_bytes())
    with pytest.raises(InputError, match=r"no model\.safetensors"):
        load_text_segmenter(f"{dino}:{tmp_path / 'hq'}", "dog.", "cpu")
