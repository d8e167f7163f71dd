"""VidEoMT frame by frame: the numbers of the module of transformers, which takes a whole clip, at random slim weights."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from test_eomt import SLIM, frames, save

import masklet
from masklet.core.errors import InputError
from masklet.core.memory import load_memory, save_memory
from masklet.core.protocols import SlotModel
from masklet.models.query_video.videomt import Videomt, VideomtMemory, load_videomt
from masklet.models.transformers_output import drop_transformers_output
from masklet.systems.rocovis import build_videomt_system

CPU = torch.device("cpu")


@cache
def network() -> Any:
    from transformers import VideomtConfig, VideomtForUniversalSegmentation

    torch.manual_seed(0)
    with drop_transformers_output():
        net: Any = VideomtForUniversalSegmentation(VideomtConfig(**SLIM))
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return net.eval().requires_grad_(False)


def follow(model: Videomt, clip: list[Any], memory: VideomtMemory) -> tuple[list[Any], VideomtMemory]:
    found = []
    for features in model.encode(clip):
        slots = model.predict(memory, features)
        memory = model.commit(memory, features, slots, model.trust(slots))
        found.append(slots)
    return found, memory


def test_frame_by_frame_is_what_the_module_says_of_the_clip() -> None:
    model, clip = Videomt(network()), frames((40, 50), 4)
    assert isinstance(model, SlotModel)
    found, _ = follow(model, clip, model.empty())
    images = torch.stack([torch.from_numpy(f.image) for f in frames((64, 64), 4)])  # the size of the square, unscaled
    square, _ = follow(model, frames((64, 64), 4), model.empty())
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    with torch.no_grad():
        answer = network()(pixel_values_videos=((images - mean) / std).permute(0, 3, 1, 2)[None])
    for t, slots in enumerate(square):
        torch.testing.assert_close(slots.mask_logits[0], answer.masks_queries_logits[t], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(slots.class_logits[0], answer.class_queries_logits[t], atol=1e-4, rtol=1e-4)
        again = model.decode(slots.queries[0], slots.pixel_features[0])
        torch.testing.assert_close(again, slots.mask_logits[0], atol=1e-4, rtol=1e-4)
    assert found[0].inside == (64, 64) and len(found) == 4


def test_the_memory_is_one_frame_s_queries_however_long_the_video() -> None:
    model = Videomt(network())
    shapes = {follow(model, frames(n=n), model.empty())[1].queries.shape for n in (1, 2, 6)}
    assert shapes == {(6, 16)}


def test_a_stream_goes_on_from_a_saved_memory(tmp_path: Path) -> None:
    model, clip = Videomt(network()), frames(n=4)
    whole, _ = follow(model, clip, model.empty())
    _, memory = follow(model, clip[:2], model.empty())
    save_memory(memory, tmp_path / "memory")
    rest, _ = follow(model, clip[2:], load_memory(tmp_path / "memory"))
    assert torch.equal(rest[-1].mask_logits, whole[-1].mask_logits)


def test_a_folder_runs_through_the_library(tmp_path: Path) -> None:
    folder = str(save(network(), tmp_path / "videomt"))
    clip = [f.image for f in frames(n=3)]
    result = masklet.segment(clip, system="videomt", segmenter=folder, top=3)
    assert result.provenance.system == "videomt" and result.length == 3 and result.masklets
    direct = build_videomt_system(Videomt(network()))
    assert direct.segmenter.categories == result.categories == ("cat", "dog", "bird")
    live = [*masklet.stream(clip, system="videomt", segmenter=folder, top=3)]
    assert [answer.index for answer in live] == [0, 1, 2]


def test_what_is_no_videomt_is_refused(tmp_path: Path) -> None:
    folder = save(network(), tmp_path / "videomt")
    with pytest.raises(InputError, match=r"videomt@480: a VidEoMT looks at the one size .*, 64 pixels"):
        load_videomt(str(folder), CPU, side=480)
    with pytest.raises(InputError, match="2 categories are named, this VidEoMT has 3 classes"):
        load_videomt(str(folder), CPU, categories=["a", "b"])
    told = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(told | {"model_type": "eomt"}))
    with pytest.raises(InputError, match="not a VidEoMT; give a hub id or a folder"):
        load_videomt(str(folder), CPU)
    (folder / "config.json").write_text(json.dumps(told | {"num_upscale_blocks": 1}))
    with pytest.raises(InputError, match="not the weights of the VidEoMT"):
        load_videomt(str(folder), CPU)
