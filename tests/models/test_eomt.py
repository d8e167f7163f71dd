"""EoMT as a segmenter of slots: the numbers of the module of transformers, at random slim weights."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.protocols import Segmenter, SlotSegmenter
from masklet.models.mask2former.networks import MEAN, STD, infer_query_sizes, wrap_query_network
from masklet.models.mask2former.segmenter import Mask2Former, PanopticMask2Former, load_mask2former
from masklet.models.mask2former.weights import build_mask2former
from masklet.models.transformers_output import drop_transformers_output

CPU = torch.device("cpu")
KINDS = ("eomt", "eomt_dinov3")
SLIM: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 64,
    "patch_size": 16,
    "num_upscale_blocks": 2,
    "num_blocks": 2,
    "num_queries": 6,
    "num_register_tokens": 2,
    "id2label": {0: "cat", 1: "dog", 2: "bird"},
}


@cache
def network(kind: str) -> Any:
    """Of random weights; its attention is masked, as it is before the end of a training."""
    import transformers

    name = {"eomt": "Eomt", "eomt_dinov3": "EomtDinov3"}[kind]
    torch.manual_seed(0)
    with drop_transformers_output():
        net = getattr(transformers, f"{name}ForUniversalSegmentation")(getattr(transformers, f"{name}Config")(**SLIM))
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return net.eval().requires_grad_(False)


def frames(size: tuple[int, int] = (30, 60), n: int = 2) -> list[Frame]:
    noise = np.random.default_rng(5)
    return [Frame(t, noise.integers(0, 256, (*size, 3), dtype=np.uint8)) for t in range(n)]


def save(net: Any, folder: Path) -> Path:
    with drop_transformers_output():
        net.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("masked", [0.0, 1.0])
def test_slots_are_what_the_module_says(kind: str, masked: float) -> None:
    net, segmenter = network(kind), Mask2Former(network(kind))
    net.attn_mask_probs.fill_(masked)
    assert isinstance(segmenter, SlotSegmenter) and isinstance(segmenter, Segmenter)
    slots = segmenter.slots(frames())
    images, inside = segmenter.pixels(frames())
    with torch.no_grad():
        answer = net(images)
    assert slots.inside == inside == (32, 64) and images.shape == (2, 3, 64, 64)
    torch.testing.assert_close(slots.mask_logits, answer.masks_queries_logits)
    torch.testing.assert_close(slots.class_logits, answer.class_queries_logits)
    torch.testing.assert_close(slots.queries, answer.last_hidden_state[:, :6])
    again = torch.einsum("tnc,tchw->tnhw", net.mask_head(slots.queries), slots.pixel_features)
    torch.testing.assert_close(again, slots.mask_logits)  # as FrameSlots promises to trackers


def test_what_goes_in_is_black_beside_the_frame() -> None:
    segmenter = Mask2Former(network("eomt"))
    white = [Frame(0, np.full((20, 40, 3), 255, np.uint8))]
    images, inside = segmenter.pixels(white)
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    assert inside == (32, 64)
    torch.testing.assert_close(images[0, :, 31, 63], (255 - mean) / std)
    torch.testing.assert_close(images[0, :, 32, 0], -mean / std)


def test_a_trackers_sizes() -> None:
    assert infer_query_sizes(network("eomt").config) == (16, 16, 2, 32, 2)


def test_detections_and_panoptic_ones() -> None:
    seen = frames((30, 60), 1)
    found = Mask2Former(network("eomt"), threshold=0.0).segment(None, seen, [])[0][0]
    assert len(found) and found.masks.shape[1:] == (30, 60)
    whole = PanopticMask2Former(network("eomt"), threshold=0.0, overlap=0.0).segment(None, seen, [])[0][0]
    assert int(whole.masks.sum(0).max()) <= 1
    assert Mask2Former(network("eomt_dinov3")).description == "eomt, dinov3, 64 px, 0.5"


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_gives_the_same(kind: str, tmp_path: Path) -> None:
    net = network(kind)
    net.attn_mask_probs.fill_(0)
    loaded = load_mask2former(save(net, tmp_path / "eomt"), CPU)
    assert loaded.categories == ("cat", "dog", "bird") and loaded.shortest == 64
    assert torch.equal(loaded.slots(frames()).mask_logits, Mask2Former(net).slots(frames()).mask_logits)


def test_a_folder_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    folder = save(network("eomt"), tmp_path / "eomt")
    with pytest.raises(InputError, match=r"@480: an EoMT looks at the one size .* 64 pixels"):
        load_mask2former(folder, CPU, shortest=480)
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | {"num_queries": 7}))
    with pytest.raises(InputError, match=r"not the weights of the EoMT .* another shape"):
        build_mask2former(folder)
    (folder / "config.json").write_text(json.dumps(told | {"num_attention_heads": 5}))
    with pytest.raises(InputError, match=r"config\.json: damaged"):
        build_mask2former(folder)
    (folder / "config.json").write_text(json.dumps(told | {"model_type": "bert"}))
    with pytest.raises(InputError, match="a network 'bert'; this needs 'mask2former', 'eomt' or 'eomt_dinov3'"):
        build_mask2former(folder)


def test_masks_of_another_stride_are_refused() -> None:
    class Coarse:
        config = type(network("eomt").config)(**(SLIM | {"num_upscale_blocks": 1}))

    with pytest.raises(InputError, match="masks of stride 8; here they are of stride 4"):
        wrap_query_network(Coarse())


def test_no_hook_stays() -> None:
    net = network("eomt")
    Mask2Former(net).slots(frames())
    assert not net.upscale_block._forward_hooks
