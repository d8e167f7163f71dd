"""SAM 3's detector: parity with transformers' module, phrases, exemplars, the composition with its tracker."""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from models.test_sam3_tracker import clip
from reference.roi_align import align_slowly
from small_sam3 import SIDE, TEXT, build_detector_config, draw_small_sam3, draw_weights, save_small_sam3
from torch import Tensor

import masklet
from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.instances import Box, Detections, Exemplar
from masklet.core.masks import mask_iou
from masklet.models.sam3.segmenter import Sam3Segmenter, Sam3SegmenterSettings, load_sam3_segmenter
from masklet.models.sam3.weights import read_sam3, share_trunk
from masklet.models.transformers_output import drop_transformers_output

CPU = torch.device("cpu")
ALL = Sam3SegmenterSettings(threshold=0.1, nms=1.0)
BOX = Box(10, 18, 45, 53)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_sam3(tmp_path_factory.mktemp("weights") / "sam3")


@cache
def draw_small_lite_text() -> Any:
    from transformers import Sam3LiteTextConfig, Sam3LiteTextModel

    text = {**TEXT, "model_type": "sam3_lite_text_text_model", "max_position_embeddings": 40, "num_hidden_layers": 3}
    with drop_transformers_output():
        net = Sam3LiteTextModel(Sam3LiteTextConfig(**build_detector_config(text_config=text)))
    draw_weights(net.eval().requires_grad_(False), 11)
    net.detr_decoder.presence_head.layer3.bias += 3
    return net


@pytest.fixture(scope="module")
def lite_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_sam3(tmp_path_factory.mktemp("weights") / "lite", draw_small_lite_text())


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """What transformers needs of it."""
    from transformers.models.sam3 import modeling_sam3
    from transformers.models.sam3_lite_text import modeling_sam3_lite_text

    def roi_align(features: Tensor, boxes: tuple[Tensor, ...], bins: int) -> Tensor:
        found = [align_slowly(f.numpy(), b.tolist(), bins) for f, bs in zip(features, boxes, strict=True) for b in bs]
        return torch.from_numpy(np.stack(found))

    for module in (modeling_sam3, modeling_sam3_lite_text):
        monkeypatch.setattr(
            module, "torchvision", SimpleNamespace(ops=SimpleNamespace(roi_align=roi_align)), raising=False
        )


def ask_module(net: Any, tokenizer: Any, frame: Frame, phrase: str, boxes: list[Box] | None = None) -> Any:
    """What transformers' module says of a frame, and what its post-processing makes of that: masks and scores."""
    from PIL import Image

    square = Image.fromarray(frame.image).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].float() / 127.5 - 1
    told = tokenizer(phrase, padding="max_length", max_length=32, return_tensors="pt")
    h, w = frame.size
    shown = [[(b.x0 + b.x1) / 2 / w, (b.y0 + b.y1) / 2 / h, (b.x1 - b.x0) / w, (b.y1 - b.y0) / h] for b in boxes or ()]
    more = {"input_boxes": torch.tensor([shown])} if boxes else {}
    out = net(pixel_values=pixels, **told, **more)
    scores = out.pred_logits[0].sigmoid() * out.presence_logits[0].sigmoid()
    keep = scores > ALL.threshold
    likely = torch.nn.functional.interpolate(out.pred_masks[0, keep].sigmoid()[None], frame.size, mode="bilinear")[0]
    return likely > 0.5, scores[keep]


def check_same(found: Detections, label: int, expected: tuple[Tensor, Tensor]) -> None:
    masks, scores = expected
    there = masks.flatten(1).any(1)
    rows = found.labels == label
    torch.testing.assert_close(found.scores[rows], scores[there], atol=1e-4, rtol=0)
    assert (found.masks[rows] != masks[there]).float().mean() < 1e-4  # a logit of 0, at most


@pytest.mark.parametrize("size", [(SIDE, SIDE), (60, 90)])
def test_phrases_are_those_of_the_module(folder: Path, size: tuple[int, int]) -> None:
    segmenter = load_sam3_segmenter(folder, ("dog", "red car"), settings=ALL)
    [frame] = clip(1, size)
    [found], _ = segmenter.segment(segmenter.empty(), [frame], ())
    assert segmenter.categories == ("dog", "red car") and len(found) > 4
    tokenizer = get_tokenizer(folder)
    for label, phrase in enumerate(segmenter.categories):
        check_same(found, label, ask_module(draw_small_sam3().detector_model, tokenizer, frame, phrase))


def get_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize("boxes", [[BOX], [BOX, Box(70, 62, 96, 88)]], ids=["one", "two"])
def test_exemplars_are_those_of_the_module(folder: Path, boxes: list[Box]) -> None:
    frames = clip(2)
    shown = [Exemplar(0, name, box) for name in ("dog", "thing") for box in boxes]
    segmenter = load_sam3_segmenter(folder, ("dog",), shown, settings=ALL)
    assert segmenter.categories == ("dog", "thing")
    bound = segmenter.bind_video(open_clip(frames))
    found = bound.find(frames[0])
    net, tokenizer = draw_small_sam3().detector_model, get_tokenizer(folder)
    check_same(found, 0, ask_module(net, tokenizer, frames[0], "dog", boxes))
    check_same(found, 1, ask_module(net, tokenizer, frames[0], "visual", boxes))
    unshown = load_sam3_segmenter(folder, ("dog",), settings=ALL).find(frames[0])
    assert not torch.allclose(unshown.scores.sort().values[-4:], found.scores[found.labels == 0].sort().values[-4:])


@pytest.mark.usefixtures("torchvision")
def test_lite_text_is_the_module(lite_folder: Path) -> None:
    [frame] = clip(1)
    segmenter = load_sam3_segmenter(lite_folder, ("dog", "red car"), [Exemplar(0, "dog", BOX)], settings=ALL)
    found = segmenter.bind_video(open_clip([frame])).find(frame)
    net, tokenizer = draw_small_lite_text(), get_tokenizer(lite_folder)
    check_same(found, 0, ask_module(net, tokenizer, frame, "dog", [BOX]))
    check_same(found, 1, ask_module(net, tokenizer, frame, "red car"))


def open_clip(frames: list[Frame]) -> Any:
    from masklet.io.video.sources import open_video

    video = open_video(np.stack([f.image for f in frames]))
    return video.__enter__()


def test_several_phrases_need_one_pass_of_the_image_encoder(folder: Path) -> None:
    segmenter = load_sam3_segmenter(folder, tuple("abcdef"), settings=ALL)
    passes = count_passes(segmenter.trunk.net)
    together = segmenter.find(clip(1)[0])
    assert passes == [1] and {*together.labels.tolist()} == {0, 1, 2, 3, 4, 5}
    alone = load_sam3_segmenter(folder, tuple("abcdef"), settings=Sam3SegmenterSettings(0.1, nms=1.0, at_once=1))
    torch.testing.assert_close(alone.find(clip(1)[0]).scores, together.scores, atol=1e-5, rtol=0)


def count_passes(net: Any) -> list[int]:
    passes: list[int] = []
    net.register_forward_hook(lambda *call: passes.append(1))
    return passes


def test_the_presence_score_counts(folder: Path) -> None:
    segmenter = load_sam3_segmenter(folder, ("dog",), settings=ALL)
    before = segmenter.find(clip(1)[0])
    net = deepcopy(segmenter.net)
    net.detr_decoder.presence_head.layer3.bias -= 50  # nothing of the kind is there
    absent = Sam3Segmenter(net, segmenter.trunk, get_tokenizer(folder), ("dog",), settings=ALL)
    assert len(before) and not len(absent.find(clip(1)[0]))


def test_twins_of_one_phrase_go(folder: Path) -> None:
    [frame] = clip(1)
    every = load_sam3_segmenter(folder, ("dog",), settings=ALL).find(frame)
    apart = load_sam3_segmenter(folder, ("dog",), settings=Sam3SegmenterSettings(0.1, nms=0.3)).find(frame)
    assert 0 < len(apart) < len(every)
    shared = mask_iou(apart.masks, apart.masks).fill_diagonal_(0)
    assert shared.max() <= 0.35  # at the frame's size, looked at before at the network's
    assert apart.scores.max() == every.scores.max()


def test_a_mask_shows_what_its_box_does(folder: Path) -> None:
    frames, mask = clip(1), torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[18:53, 10:45] = True
    video = open_clip(frames)
    found = [
        load_sam3_segmenter(folder, (), [Exemplar(0, "dog", shape)], settings=ALL).bind_video(video).find(frames[0])
        for shape in (BOX, mask)
    ]
    assert torch.equal(found[0].masks, found[1].masks) and torch.equal(found[0].scores, found[1].scores)


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (Exemplar(5, "dog", BOX), "exemplar of dog in frame 5: .* has no such frame"),
        (Exemplar(0, "dog", Box(200, 10, 220, 20)), r"exemplar of dog in frame 0: Box.* needs x0 < x1"),
        (Exemplar(0, "dog", torch.ones(3, 4, dtype=torch.bool)), "the mask is 4x3, the video 112x112"),
        (Exemplar(0, "dog", torch.zeros(SIDE, SIDE, dtype=torch.bool)), "the mask is empty"),
    ],
    ids=["frame", "outside", "size", "empty"],
)
def test_exemplars_that_do_not_fit(folder: Path, shown: Exemplar, said: str) -> None:
    segmenter = load_sam3_segmenter(folder, (), [shown])
    with pytest.raises(InputError, match=said):
        segmenter.bind_video(open_clip(clip(1)))
    with pytest.raises(InputError, match="an exemplar is looked at in its video"):
        segmenter.empty()


@pytest.mark.parametrize(
    ("phrase", "said"),
    [(" ".join("abcdefghij" * 4), "has 42 tokens, SAM 3 reads 32"), ("", "holds nothing that SAM 3 can read")],
)
def test_phrases_that_cannot_be_read(folder: Path, phrase: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_sam3_segmenter(folder, (phrase,))


@pytest.mark.parametrize("system", ["sam2bmp", "deva"])
def test_detector_and_tracker_look_through_one_encoder(folder: Path, system: str) -> None:
    """Each frame goes through the image encoder once; on the way back features are kept."""
    frames = np.stack([f.image for f in clip(6)])
    model = masklet.load(
        system, segmenter=f"sam3:{folder}", text="dog. red car.", propagator=f"sam3:{folder}", device="cpu", conf=0.2,
        **{"segmenter.threshold": 0.2},
    )  # fmt: skip
    passes = count_passes(share_trunk(read_sam3(folder), CPU).net)
    result = model.segment(frames)
    assert len(passes) == len(frames)
    assert result.masklets and {result.categories[m.label] for m in result.masklets} <= {"dog", "red car"}
    assert result.provenance.settings["segmenter"].startswith(f"sam3, {SIDE} px, 0.2, nms 0.1: dog, red car")
    assert [*result.provenance.weights] == ["sam3/model.safetensors"]


def test_by_the_library_with_an_exemplar(folder: Path) -> None:
    frames = np.stack([f.image for f in clip(4)])
    result = masklet.segment(
        frames, segmenter=f"sam3:{folder}", exemplars=[Exemplar(2, "blob", BOX)], propagator="still", conf=0.2,
        **{"segmenter.threshold": 0.2},
    )  # fmt: skip
    assert {result.categories[m.label] for m in result.masklets} == {"blob"}
    assert "blob; 1 exemplars" in result.provenance.settings["segmenter"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"segmenter": "sam3"}, "say what to find, such as text="),
        (
            {"segmenter": "motion", "exemplars": [Exemplar(0, "dog", BOX)]},
            "motion: cannot be shown what to find; take sam3",
        ),
        ({"segmenter": "sam3", "text": " . "}, "names nothing"),
    ],
)
def test_what_cannot_be_asked(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        masklet.load(**given, propagator="still")
