"""Rows of `benchmarks/device.py` for the strongest networks, at random weights: SAM 3's tracker and detector, EdgeTAM,
Cutie, SAM-HQ. Their size is the published one, or slim.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from masklet.core.frames import Frame
from masklet.models.sam3.propagator import Sam3
from masklet.models.sam3.segmenter import Sam3Segmenter
from masklet.models.sam3.trunk import Sam3Trunk
from masklet.models.transformers_output import drop_transformers_output

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
PHRASES = ("dog", "red car", "person", "tree")
SURE = 10.0  # object score: every frame is remembered


class Letters:
    """A tokenizer for networks that have learnt no words."""

    def __call__(self, text: str | Sequence[str], **more: Any) -> dict[str, Any]:
        if isinstance(text, str):
            return {"input_ids": [1, *(2 + ord(c) % 50 for c in text), 3]}
        ids = torch.ones(len(text), more["max_length"], dtype=torch.int64)
        return {"input_ids": ids, "attention_mask": ids.clone()}


def build_sam3(is_large: bool, device: torch.device) -> tuple[Any, Any]:
    """The whole network at the published size or slim, and the tracker as transformers' session takes it."""
    from small_sam3 import build_whole_tracker, draw_small_sam3

    if not is_large:
        return draw_small_sam3(), build_whole_tracker()
    from transformers import Sam3TrackerVideoModel, Sam3VideoConfig, Sam3VideoModel

    config = Sam3VideoConfig()
    with drop_transformers_output():
        whole = Sam3VideoModel(config).eval().requires_grad_(False).to(device)
        session = Sam3TrackerVideoModel(config.tracker_config).eval().requires_grad_(False).to(device)
    for net in (whole.tracker_model, session):
        head = net.mask_decoder.pred_obj_score_head.proj_out
        head.weight.zero_()
        head.bias.fill_(SURE)
    return whole, session


def build_other_trackers(is_large: bool, device: torch.device) -> Iterator[tuple[str, Callable[[], Any]]]:
    """EdgeTAM and Cutie, by name."""
    if is_large:
        yield "EdgeTAM", partial(build_large_edgetam, device)
    if find_spec("cutie"):
        yield "Cutie", partial(build_some_cutie, "base" if is_large else "small", device)


def build_large_edgetam(device: torch.device) -> Any:
    """EdgeTAM at its published size."""
    from transformers import EdgeTamVideoConfig, EdgeTamVisionConfig

    from masklet.models.sam2.edgetam import EdgeTam, build_edgetam

    config = EdgeTamVideoConfig(
        vision_config=EdgeTamVisionConfig(),
        enable_temporal_pos_encoding_for_object_pointers=False,
        enable_occlusion_spatial_embedding=False,
    )
    return EdgeTam(build_edgetam(config).eval().requires_grad_(False).to(device))


def build_some_cutie(kind: str, device: torch.device) -> Any:
    """Cutie, "base" or "small"."""
    from masklet.models.cutie import Cutie, create_cutie

    net = create_cutie(kind).eval().requires_grad_(False).to(device)
    return Cutie(net) if kind == "base" else Cutie(net, size=None)


def detect(segmenter: Any, frames: Sequence[Frame]) -> int:
    """All phrases in each frame."""
    return len([segmenter.find(frame) for frame in frames])


def mask_boxes(is_large: bool, device: torch.device) -> Callable[[Sequence[Frame]], int]:
    """SAM-HQ's masks of 8 boxes in each frame."""
    from transformers import SamHQConfig, SamHQModel

    from masklet.models.segmenters.sam_hq import SamHqMasker

    slim = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 64, "mlp_dim": 32}
    vision = {} if is_large else {**slim, "global_attn_indexes": [0], "window_size": 4, "patch_size": 16}
    prompts = {} if is_large else {"image_size": 64}
    decoder = {"vit_dim": 768 if is_large else 32}
    config = SamHQConfig(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder)
    masker = SamHqMasker(SamHQModel(config).eval().requires_grad_(False).to(device))
    boxes = torch.tensor([[4.0 * n, 3.0 * n, 4.0 * n + 20, 3.0 * n + 18] for n in range(8)])
    return lambda frames: len([masker.boxed(masker.look(frame), boxes) for frame in frames])


def list_strong_rows(
    video: Any, is_large: bool, device: torch.device, objects: Sequence[int], track: Any, measure: Any, session: Any
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """What is measured, by name: `track(propagator, video, n)` and `session(net, pixels, masks, device)` do a clip,
    `measure(work, device)` measures it.
    """
    whole, theirs = build_sam3(is_large, device)
    trunk = Sam3Trunk(whole.detector_model.vision_encoder.backbone)
    tracker, frames = Sam3(whole.tracker_model, whole.tracker_neck, trunk), list(video)
    for n in objects:
        yield f"SAM 3's tracker, {n} objects", partial(measure, partial(track, tracker, video, n), device)
    pixels = [trunk.prepare_pixels(frame)[0] for frame in frames]
    work = partial(session, theirs, pixels, video.masks(objects[-1]), device)
    yield f"transformers' SAM 3 session, {objects[-1]} objects", partial(measure, work, device)
    finder = Sam3Segmenter(whole.detector_model, trunk, Letters(), PHRASES)
    yield f"SAM 3's detector, {len(PHRASES)} phrases", partial(measure, partial(detect, finder, frames), device)
    for name, build in build_other_trackers(is_large, device):
        yield (
            f"{name}, {objects[-1]} objects",
            lambda build=build: measure(partial(track, build(), video, objects[-1]), device),
        )
    yield "SAM-HQ, 8 boxes", lambda: measure(partial(mask_boxes(is_large, device), frames), device)
