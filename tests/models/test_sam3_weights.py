"""SAM 3 from folders: by official key, refused by name where it does not fit, one image encoder for all parts."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from models.test_sam3_tracker import clip, propagator
from models.test_text import nothing_here  # noqa: F401
from safetensors.torch import load_file, save_file
from small_sam3 import SIDE, draw_small_sam3, save_small_sam3

from masklet.core.errors import InputError
from masklet.models.encoder import Encoder
from masklet.models.sam2.distractor_memory import DistractorAwareFrames
from masklet.models.sam2.memory import RecentFrames, ReliableFrames
from masklet.models.sam3.propagator import Sam3, load_sam3
from masklet.models.sam3.weights import build_detector, read_sam3, share_trunk
from masklet.models.transformers_output import drop_transformers_output
from masklet.parts import load_masker, load_propagator
from masklet.systems.sam2long import MemoryTree

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_sam3(tmp_path_factory.mktemp("weights") / "sam3")


@cache
def encoder() -> Encoder:
    return Encoder()


def damage(folder: Path, to: Path, **changes: Any) -> Path:
    """A copy of a folder with other tensors, {key: None: leave out}."""
    to.mkdir()
    (to / "config.json").write_bytes((folder / "config.json").read_bytes())
    state = {**load_file(folder / "model.safetensors"), **changes}
    save_file({k: v for k, v in state.items() if v is not None}, to / "model.safetensors")
    return to


def test_the_folder_is_the_network(folder: Path) -> None:
    frames, found = clip(1), load_sam3(folder)
    [ours], [drawn] = found.encode(frames), propagator().encode(frames)
    assert torch.equal(ours.coarse, drawn.coarse) and torch.equal(ours.fine, drawn.fine)
    assert [*found.weights] == ["sam3/model.safetensors"] and found.trunk.side == SIDE


def test_what_transformers_saves_is_read(folder: Path, tmp_path: Path) -> None:
    from transformers import Sam3TrackerVideoModel

    with drop_transformers_output():
        draw_small_sam3().save_pretrained(tmp_path / "whole")
        Sam3TrackerVideoModel.from_pretrained(folder).save_pretrained(tmp_path / "tracker")
    expected = load_sam3(folder).encode(clip(1))[0].coarse
    for name in ("whole", "tracker"):
        assert torch.equal(load_sam3(tmp_path / name).encode(clip(1))[0].coarse, expected)
    with pytest.raises(InputError, match="holds SAM 3's tracker alone; text needs the detector"):
        build_detector(read_sam3(tmp_path / "tracker"), CPU)


def test_parts_of_one_file_share_an_image_encoder(folder: Path) -> None:
    one, other = load_sam3(folder), load_sam3(folder, RecentFrames(2))
    assert one.trunk is other.trunk is share_trunk(read_sam3(folder), CPU)
    assert load_sam3(folder, side=140).trunk is not one.trunk


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tracker_model.no_object_pointer": None}, "not the weights of SAM 3's tracker: it lacks no_object_pointer"),
        (
            {"tracker_neck.fpn_layers.2.proj2.bias": torch.zeros(3)},
            r"the neck of SAM 3's tracker: it has in another shape fpn_layers\.2\.proj2\.bias",
        ),
        (
            {"detector_model.vision_encoder.backbone.more": torch.zeros(3)},
            "SAM 3's image encoder: it has besides more",
        ),
        ({"other.weight": torch.zeros(3)}, r"not weights of SAM 3: it has besides other\.weight"),
    ],
    ids=["missing", "shape", "besides", "strange"],
)
def test_other_tensors_are_refused_by_name(folder: Path, tmp_path: Path, change: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_sam3(damage(folder, tmp_path / "other", **change))


def test_other_configs_are_refused(folder: Path, tmp_path: Path) -> None:
    other = damage(folder, tmp_path / "other")
    told = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**told, "model_type": "sam_hq"}))
    with pytest.raises(InputError, match="of a network 'sam_hq'; this needs sam3_video or"):
        load_sam3(other)
    (other / "config.json").write_text(json.dumps({**told, "tracker_config": {"model_type": "sam3_tracker_video", "image_size": "wide"}}))  # fmt: skip
    with pytest.raises(InputError, match=r"config\.json: damaged"):
        load_sam3(other)
    (other / "config.json").unlink()
    with pytest.raises(InputError, match=r"a folder of weights holds config\.json"):
        load_sam3(other)


@pytest.mark.parametrize(
    ("name", "policy"),
    [("sam3", RecentFrames(4)), ("dam:sam3", DistractorAwareFrames())],
)
def test_by_name(folder: Path, name: str, policy: Any) -> None:
    found = load_propagator(f"{name}:{folder}", encoder())
    assert isinstance(found, Sam3) and found.policy == policy
    small = load_propagator(f"{name}:{folder}@140", encoder())
    assert isinstance(small, Sam3) and small.side == 140 and small.core.mask_side == 40
    frames = clip(2)
    first, second = small.encode(frames)
    memory, _ = small.prompt(small.empty(), first, {1: torch.ones(SIDE, SIDE, dtype=torch.bool)})
    assert small.predict(memory, second).logits.shape == (1, 3, 40, 40)


def test_sam2long_over_it(folder: Path) -> None:
    tree = load_propagator(f"sam2long:sam3:{folder}", encoder(), settings={"paths": 2})
    assert isinstance(tree, MemoryTree) and isinstance(tree.propagator, Sam3)
    assert isinstance(tree.propagator.policy, ReliableFrames)


def test_it_makes_masks_of_boxes(folder: Path) -> None:
    masker = load_masker(f"sam3:{folder}", "cpu")
    [frame] = clip(1, (60, 90))
    masks = masker.boxed(masker.look(frame), torch.tensor([[10.0, 10.0, 40.0, 50.0]]))
    assert masks.shape == (1, 60, 90) and masker.description == f"sam3, {SIDE} px"


def test_the_weights_folder_is_where_it_is_looked_for(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    nothing_here: Any,  # noqa: F811
) -> None:
    with pytest.raises(InputError, match=r"weights sam3 are not on this machine: run `masklet weights fetch sam3` .*, once its terms are accepted at https://huggingface\.co/facebook/sam3"):  # fmt: skip
        load_propagator("sam3", encoder())
    monkeypatch.setenv("MASKLET_WEIGHTS", str(folder.parent))
    assert isinstance(load_propagator("sam3", encoder()), Sam3)


@pytest.mark.parametrize("size", ["100", "x", "98"])
def test_sizes_that_are_none(folder: Path, size: str) -> None:
    with pytest.raises(InputError, match="SAM 3's image size after @ must be a multiple of 14 from 112 to 4032"):
        load_propagator(f"sam3:{folder}@{size}", encoder())
