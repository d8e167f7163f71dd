"""Inference where the weights are on a GPU, from frames to masklets, as far as that can be told here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from elsewhere import FETCHED, GPU, WithGpu, attention
from models.test_edgetam import network as edgetam_network
from models.test_everything import saved_sam2, small_sam2
from models.test_mask2former import network as mask2former_network
from models.test_text import bert_words, clip_letters, small_dino, small_owl
from models.test_xmem import weights as xmem_weights
from safetensors.torch import save_file
from test_queries import folder  # noqa: F401

import masklet
import masklet.queries  # before it is patched: what is imported meanwhile keeps what is patched
from masklet.core.frames import Frame
from masklet.core.progress import discard_progress
from masklet.core.tracks import Source
from masklet.models.mask2former.segmenter import Mask2Former
from masklet.models.sam2.edgetam import EdgeTam
from masklet.models.sam2.propagator import Sam2
from masklet.models.segmenters.prompted import EverythingSegmenter, PromptedMasker, TextSegmenter
from masklet.models.segmenters.text import GroundingDino, Owlv2, TextDetector
from masklet.models.xmem.propagator import Xmem, load_xmem
from masklet.nn.xmem import XmemNet
from masklet.systems.common import encode_batches
from masklet.systems.query.answers import MaskResizer, SlotSettings, build_task_output
from masklet.systems.rocovis import GradedInstanceOutput
from masklet.systems.sam2long import MemoryTree
from masklet.systems.sweep import make_sightings
from masklet.systems.track import Track

CPU = torch.device("cpu")
CLIP = np.random.default_rng(0).integers(0, 256, (3, 40, 64, 3), np.uint8)
DISC = CLIP // 8 + 60 + 120 * (np.hypot(*np.mgrid[-20:20, -32:32]) < 12)[None, ..., None].astype(np.uint8)
FRAMES = [Frame(t, image, t / 10) for t, image in enumerate(CLIP)]
MASKS = {1: np.eye(40, 64) > 0, 2: np.ones((40, 64), bool)}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A GPU that is not there."""
    for name in ("tensor", "as_tensor"):
        monkeypatch.setattr(torch, name, moved(getattr(torch, name)))
    monkeypatch.setattr(torch, "autocast", lambda *how, **more: nullcontext())
    for module in ("parts", "queries"):
        monkeypatch.setattr(f"masklet.{module}.resolve_device", lambda name: GPU)
    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", attention)
    with WithGpu():
        yield GPU


def moved(made: Any) -> Any:
    """A function that makes tensors without being told of the device."""
    return lambda *of, device="cpu", **how: made(*of, **how).to(device)


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Autocast where it is on a GPU, as a CPU has it: its list of what stays in float32 is nearly that of a GPU."""
    monkeypatch.setattr("masklet.models.query_video.slot_model.VideoSlotModel._mixed", bfloat16)
    monkeypatch.setattr("masklet.models.xmem.propagator.Xmem._half", bfloat16)
    monkeypatch.setattr(
        "masklet.nn.memory_attention.compute_attention_average", lambda q, k, v: (q @ k.mT).softmax(-1) @ v
    )  # CPUs only
    for kind in (Sam2, Mask2Former):
        monkeypatch.setattr(kind, "half", property(lambda self: True, lambda self, value: None), raising=False)
    return CPU


def bfloat16(self: Any) -> Any:
    return torch.autocast("cpu", torch.bfloat16)


@pytest.fixture(params=["gpu", "half"])
def device(request: pytest.FixtureRequest) -> torch.device:
    """What a GPU changes: the device, and the precision."""
    return request.getfixturevalue(request.param)  # type: ignore[no-any-return]


def on(device: torch.device, net: Any) -> Any:
    """A copy of a network that no model has been made of: `Sam2` leaves encodings in it."""
    return deepcopy(net).to(device)


# -- systems


@pytest.mark.parametrize(
    ("system", "files"),
    [("minvis", "small"), ("dvis", "small+heads"), ("dvis-offline", "small+heads"), ("rocovis", "rocovis")],
)
@pytest.mark.usefixtures("device")
def test_systems_of_queries(system: str, files: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.chdir(folder)
    segmenter = "+".join(f"{name}.safetensors" for name in files.split("+"))
    assert masklet.segment(CLIP, system=system, segmenter=segmenter, window=2, min_score=0).masklets


@pytest.mark.parametrize("kind", ["instance", "panoptic", "semantic", "graded"])
def test_one_copy_comes_back_of_a_frame_s_answer(kind: str, gpu: torch.device) -> None:
    """However many slots there are: where runs begin and end, or one map of labels."""
    counts = []
    for slots in (3, 9):
        chances = torch.full((slots, 3), 0.02)
        chances[torch.arange(slots), torch.arange(slots) % 2] = 0.96
        task: Any = "instance" if kind == "graded" else kind
        at = SlotSettings(task=task, overlap=0.0)
        made = GradedInstanceOutput(chances, at) if kind == "graded" else build_task_output(chances, ("a", "b"), at)
        maps = torch.randn(len(made.slots), 8, 10, generator=torch.Generator().manual_seed(slots)).to(gpu)
        FETCHED.clear()
        for frame in range(2):
            made.add(frame, maps, MaskResizer((30, 38), (60, 76)))
        counts.append(len(FETCHED))
        assert made.masklets()
    assert counts == [2, 2], FETCHED


@pytest.mark.parametrize("tree", ["", "sam2long:"])
@pytest.mark.usefixtures("device")
def test_sam2_from_masks_and_boxes(tree: str, tmp_path: Path) -> None:
    name = str(saved_sam2(tmp_path / "net"))
    found = masklet.track(CLIP, {0: MASKS, 1: {3: masklet.Box(4, 4, 20, 20)}}, propagator=f"{tree}{name}")
    assert [m.id for m in found.masklets] == [1, 2, 3]


def test_edgetam_from_masks(device: torch.device) -> None:
    prompts = {0: {id: torch.from_numpy(mask) for id, mask in MASKS.items()}}
    with masklet.api.open_source(CLIP) as video:
        found = Track(EdgeTam(on(device, edgetam_network())), prompts).run(video, discard_progress)
    assert [m.id for m in found.masklets] == [1, 2]


@pytest.mark.usefixtures("device")
def test_devas_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = partial(load_xmem, size=40)  # as the frames are, not of 480 pixels
    monkeypatch.setattr("masklet.models.xmem.propagator.load_xmem", small)
    save_file(xmem_weights(), file := tmp_path / "deva.safetensors")
    found = masklet.track(CLIP, {0: MASKS}, propagator=f"deva:{file}")
    assert [m.id for m in found.masklets] == [1, 2]


@pytest.mark.parametrize("kind", ["sam2", "edgetam", "deva"])
def test_what_comes_back_of_a_frame_does_not_grow_with_the_objects(kind: str, gpu: torch.device) -> None:
    nets: Any = {"sam2": small_sam2.__wrapped__, "edgetam": edgetam_network}
    counts = []
    for objects in (2, 6):
        if kind == "deva":
            propagator: Any = Xmem(XmemNet().eval().requires_grad_(False).to(gpu), size=40)
        else:
            propagator = {"sam2": Sam2, "edgetam": EdgeTam}[kind](on(gpu, nets[kind]()))
        [features], prompts = propagator.encode(FRAMES[:1]), {n: torch.eye(40, 64) > 0 for n in range(objects)}
        memory, _ = propagator.prompt(propagator.empty(), features, prompts)
        belief = propagator.predict(memory, features)
        FETCHED.clear()
        belief = propagator.predict(memory, features)
        make_sightings(belief, (40, 64), Source.FORWARD)
        counts.append(len(FETCHED))
    assert counts[0] == counts[1] <= 3, FETCHED  # scores, and where runs begin and end


# -- segmenters


def test_detections_of_a_mask2former(device: torch.device) -> None:
    plain, found = (
        Mask2Former(net, shortest=48, threshold=0.0).segment(None, FRAMES, [])[0]
        for net in (mask2former_network(), on(device, mask2former_network()))
    )
    for one, other in zip(found, plain, strict=True):
        assert one.masks.device == one.scores.device == CPU
        assert torch.allclose(one.scores.sort().values, other.scores.sort().values, atol=0.01)


def test_everything(device: torch.device) -> None:
    finder = EverythingSegmenter(
        PromptedMasker(Sam2(on(device, small_sam2.__wrapped__()))), 3, quality=-9.0, stability=0.0
    )
    found, _ = finder.segment(None, FRAMES[:1], [])
    assert len(found[0])


def dino(device: torch.device) -> TextDetector[Any]:
    return GroundingDino(on(device, small_dino()), bert_words(), box_threshold=0.0, text_threshold=0.0)


def owl(device: torch.device) -> TextDetector[Any]:
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(clip_letters.__wrapped__(Path("letters")))
    return Owlv2(on(device, small_owl()), words, threshold=0.0)


@pytest.mark.parametrize("detector", [dino, owl])
def test_what_is_named(detector: Any, device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    finder = TextSegmenter(
        detector(device), PromptedMasker(Sam2(on(device, small_sam2.__wrapped__()))), ("dog", "red car")
    )
    found, _ = finder.segment(None, FRAMES[:1], [])
    assert len(found[0])


# -- what ships


@pytest.mark.parametrize("segmenter", ["auto", "motion", "nano", "nano-objects", "everything:nano"])
@pytest.mark.parametrize("propagator", ["affinity", "nano"])
def test_what_ships_computes_there_and_says_so(segmenter: str, propagator: str, gpu: torch.device) -> None:
    few: Any = {"segmenter.points_per_side": 4} if segmenter == "everything:nano" else {}  # 16 points, not 144
    result = masklet.load(segmenter=segmenter, propagator=propagator, **few).segment(DISC if few else CLIP)
    assert result.provenance.settings["device"] == str(gpu)
    assert result.masklets or not few


@pytest.mark.parametrize("propagator", ["affinity", "nano", "sam2long:nano"])
def test_what_ships_tracks_there_as_here(propagator: str, gpu: torch.device) -> None:
    prompts: Any = {0: {1: MASKS[1], 2: masklet.Box(4, 4, 40, 30)}, 1: {2: masklet.Point(20, 20)}}
    there = masklet.track(CLIP, prompts, propagator=propagator)
    assert there.provenance.settings["device"] == str(gpu) and [m.id for m in there.masklets]


# -- ahead of need


def test_frames_that_are_encoded_together_are_as_one_by_one(gpu: torch.device) -> None:
    sam2 = Sam2(on(gpu, small_sam2.__wrapped__()))
    assert sam2.encode_at_once > 1 and MemoryTree(sam2).encode_at_once == sam2.encode_at_once
    together, alone = sam2.encode(FRAMES), [sam2.encode([frame])[0] for frame in FRAMES]
    for one, other in zip(together, alone, strict=True):
        for part in ("fine", "medium", "coarse"):
            torch.testing.assert_close(*(getattr(f, part).cpu() for f in (one, other)), rtol=1e-5, atol=1e-5)


def test_track_encodes_ahead_in_batches(gpu: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    sam2, batches = Sam2(on(gpu, small_sam2.__wrapped__())), list[int]()
    encode = sam2.encode
    monkeypatch.setattr(sam2, "encode", lambda frames: batches.append(len(frames)) or encode(frames), raising=False)
    video = [Frame(t, CLIP[t % len(CLIP)], t / 10) for t in range(6)]
    assert [frame.index for frame, _ in encode_batches(sam2, iter(video))] == list(range(6))
    assert batches == [4, 2]


def test_weights_are_halved_once_the_first_frame_is_there(half: torch.device) -> None:
    net = on(half, small_sam2.__wrapped__())
    sam2 = Sam2(net)
    assert net.mask_decoder.conv_s0.weight.dtype == torch.float32  # training may begin with it
    sam2.encode(FRAMES[:1])
    assert net.mask_decoder.conv_s0.weight.dtype == torch.bfloat16
