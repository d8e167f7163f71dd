"""Text detectors with small networks of random weights and toy vocabularies, against transformers' own processors."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from models.test_everything import SIDE, masker, picture, saved_sam2, slow_nms, small_sam2
from models.test_zoo_fetch import FakeHub, hub  # noqa: F401
from safetensors.torch import load_file, save_file
from torch import Tensor

import masklet
from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.protocols import Segmenter
from masklet.models.boxes import Boxes
from masklet.models.segmenters.prompted import HIGH, LOW, PromptedMasker, TextSegmenter
from masklet.models.segmenters.quick_sampling import QuickSampling
from masklet.models.segmenters.text import (
    GroundingDino,
    Owlv2,
    TextDetector,
    compute_dino_size,
    load_detector,
    split_prompts,
)
from masklet.parts import load_text_segmenter
from masklet.weights import fetch as fetching
from masklet.weights.catalog import CHECKPOINTS, DETECTORS, Checkpoint
from masklet.weights.store import find_weights, read_hash_record, resolve_weights

SPECIAL = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
WORDS = ("dog", "red", "car", "a", "of", "hot", "##s", "person", "straw", "##berry", "-")
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without weights."""
    monkeypatch.setenv("MASKLET_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@cache
def bert_words() -> Any:
    """A tokenizer of a few words; its special tokens have the ids that Grounding DINO knows them by."""
    from transformers import BertTokenizer

    ids = {**SPECIAL, **{word: 200 + n for n, word in enumerate(WORDS)}}
    names = {id: word for word, id in ids.items()}
    return BertTokenizer(vocab={names.get(id, f"[unused{id}]"): id for id in range(1100)})


@cache
def small_dino() -> Any:
    from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection, SwinConfig

    swin = SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, out_indices=[2, 3, 4]
    )
    few = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    few_of_dino = {"ffn_dim": 16, "attention_heads": 2, "n_points": 2}
    torch.manual_seed(1)
    config = GroundingDinoConfig(
        backbone_config=swin,
        text_config=BertConfig(vocab_size=1100, hidden_size=16, **few),
        num_queries=30,
        **{f"{part}_{what}": n for part in ("encoder", "decoder") for what, n in few_of_dino.items()},
        encoder_layers=1,
        decoder_layers=2,
        d_model=32,
    )
    return GroundingDinoForObjectDetection(config).eval().requires_grad_(False)


@cache
def clip_letters(folder: Path) -> Path:
    """A tokenizer of letters with OWLv2's files; the end has the highest id, as OWLv2 wants it."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    vocab = ["!", *letters, *(x + "</w>" for x in letters), "do", "dog</w>", "<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: n for n, word in enumerate(vocab)}))
    (folder / "merges.txt").write_text("#version: 0.2\nd o\ndo g</w>\n")
    named = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "!", "unk_token": "<|endoftext|>"}  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps({**named, "tokenizer_class": "CLIPTokenizer"}))
    (folder / "special_tokens_map.json").write_text(json.dumps(named))
    return folder


@cache
def small_owl() -> Any:
    from transformers import Owlv2Config, Owlv2ForObjectDetection

    few = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    text = {**few, "vocab_size": 57, "bos_token_id": 55, "eos_token_id": 56}
    torch.manual_seed(2)
    config = Owlv2Config(text_config=text, vision_config={**few, "image_size": 96, "patch_size": 16}, projection_dim=16)
    return Owlv2ForObjectDetection(config).eval().requires_grad_(False)


@cache
def saved_dino(folder: Path) -> Path:
    small_dino().save_pretrained(folder)
    bert_words().save_pretrained(folder)
    return folder


@cache
def saved_owl(folder: Path) -> Path:
    clip_letters(folder)
    small_owl().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def dino_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_dino(tmp_path_factory.mktemp("saved") / "dino")


@pytest.fixture(scope="session")
def owl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_owl(tmp_path_factory.mktemp("saved") / "owl")


def dino(**thresholds: float) -> GroundingDino:
    return GroundingDino(small_dino(), bert_words(), **thresholds)


def owl(folder: Path, **thresholds: float) -> Owlv2:
    from transformers import AutoTokenizer

    return Owlv2(small_owl(), AutoTokenizer.from_pretrained(folder), **thresholds)


# -- prompts


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("dog. red car.", ("dog", "red car")),
        ("dog", ("dog",)),
        ("..dog . . red \t car..", ("dog", "red car")),
        ("Red Car. red", ("Red Car", "red")),
        ("rotes Auto. 犬", ("rotes Auto", "犬")),
    ],
)
def test_a_text_is_split_at_full_stops(text: str, prompts: tuple[str, ...]) -> None:
    assert split_prompts(text) == prompts


@pytest.mark.parametrize("text", ["", "  ", "...", " . \n."])
def test_a_text_that_names_nothing_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^text '.*' names nothing; separate things by full stops, such as \"dog"):
        split_prompts(text)


@pytest.mark.parametrize("text", ["dog. red car. dog", "Red  car. dog. red Car."])
def test_a_thing_that_stands_there_twice_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="stands there twice"):
        split_prompts(text)


# -- Grounding DINO's words


def test_spans_by_hand() -> None:
    query = dino().query(("Dog", "red cars", "strawberry"))
    words = bert_words().convert_ids_to_tokens(query.tokens["input_ids"][0].tolist())
    assert words == ["[CLS]", "dog", ".", "red", "car", "##s", ".", "straw", "##berry", ".", "[SEP]"]
    assert [row.nonzero().flatten().tolist() for row in query.own] == [[1], [3, 4, 5], [7, 8]]
    assert set(query.tokens) == {"input_ids", "token_type_ids", "attention_mask"}


def test_capitals_are_lowered_whatever_the_tokenizer_does() -> None:
    from transformers import BertTokenizer

    exact = BertTokenizer(vocab=bert_words().get_vocab(), do_lower_case=False)
    query = GroundingDino(small_dino(), exact).query(("Dog", "RED car"))
    assert query.tokens["input_ids"].tolist() == dino().query(("dog", "red car")).tokens["input_ids"].tolist()


@given(some.permutations(["dog", "red car", "a hot dog", "zebra"]))
def test_spans_follow_the_order_of_the_prompts(prompts: list[str]) -> None:
    query = dino().query(prompts)
    words = np.array(bert_words().convert_ids_to_tokens(query.tokens["input_ids"][0].tolist()))
    own = [" ".join(words[row.numpy()]) for row in query.own]
    assert own == [p.replace("zebra", "[UNK]") for p in prompts] and (query.own.sum(0) <= 1).all()


def test_spans_are_those_of_transformers_label_maps() -> None:
    from transformers.models.grounding_dino.modeling_grounding_dino import build_label_maps

    query = dino().query(("dog", "red cars", "hot-dog"))
    ids = query.tokens["input_ids"]
    [maps] = build_label_maps(torch.zeros(1, 3, 256), ids)
    assert torch.equal(maps[:, : ids.shape[1]].bool(), query.own)


def test_too_many_tokens_are_refused_and_as_many_as_fit_are_not() -> None:
    prompts = [" ".join(["dog"] * n) for n in range(1, 21)]  # 210 words, 20 full stops, beginning and end
    assert dino().query([*prompts, " ".join(["red"] * 23)]).own.shape == (21, 256)
    with pytest.raises(InputError, match=r"^text: 257 tokens, Grounding DINO reads 256; name fewer things"):
        dino().query([*prompts, " ".join(["red"] * 24)])


def test_a_prompt_without_a_token_is_named() -> None:
    with pytest.raises(InputError, match=r"^text: '\\x00' holds nothing that Grounding DINO can read"):
        dino().query(["dog", "\0"])


# -- Grounding DINO's pixels and boxes


@pytest.mark.parametrize("size", [(480, 854), (480, 640), (120, 97), (33, 400), (1080, 1920), (5, 7), (800, 1000)])
def test_pixels_are_those_of_transformers(size: tuple[int, int]) -> None:
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil

    frame = Frame(0, np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8), 0.0)
    expected = GroundingDinoImageProcessorPil()(frame.image, return_tensors="pt")
    assert expected["pixel_mask"].all()
    torch.testing.assert_close(dino().pixels(frame), expected["pixel_values"], atol=1e-5, rtol=0)


@given(some.integers(1, 3000), some.integers(1, 3000))
def test_the_size_that_is_seen(h: int, w: int) -> None:
    from transformers.image_transforms import get_size_with_aspect_ratio

    got = compute_dino_size((h, w))
    assert got == compute_dino_size((w, h))[::-1] and 800 >= min(got) >= 1
    if min(h, w) not in got and min(h, w) / max(h, w) > 0.001:  # it leaves some sizes alone that are all but right
        assert got == get_size_with_aspect_ratio((h, w), 800, 1333) and max(got) <= 1333


def by_transformers(frame: Frame, prompts: Sequence[str], box: float, text: float) -> dict[str, Any]:
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil
    from transformers.models.grounding_dino.processing_grounding_dino import GroundingDinoProcessor

    processor = GroundingDinoProcessor(GroundingDinoImageProcessorPil(), bert_words())
    inputs = processor(images=frame.image, text=[list(prompts)], return_tensors="pt")
    with torch.no_grad():
        out = small_dino()(**inputs)
    how = {"threshold": box, "text_threshold": text, "target_sizes": [frame.size]}
    return dict(processor.post_process_grounded_object_detection(out, inputs["input_ids"], **how)[0])


@pytest.mark.parametrize(
    "prompts", [("dog",), ("red car", "dog"), ("dog", "red car"), ("a hot dog", "person", "straw car")]
)
@pytest.mark.parametrize("size", [(97, 160), (160, 97)])
def test_boxes_are_those_of_transformers(prompts: tuple[str, ...], size: tuple[int, int]) -> None:
    """Its phrases are the words above the text threshold of all prompts; a box's best word is one of its prompt's."""
    frame, own = picture(*size), dino()
    expected = by_transformers(frame, prompts, 0.35, 0.35)
    found = own.find(frame, own.query(prompts))
    words = [set(re.findall("[a-z]+", phrase)) for phrase in expected["text_labels"]]  # without [SEP] and full stops
    named = [row for row, phrase in enumerate(words) if phrase]
    assert 0 < len(found) < 30
    torch.testing.assert_close(found.corners, expected["boxes"][named], atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(found.scores, expected["scores"][named], atol=1e-5, rtol=1e-5)
    for label, row in zip(found.labels.tolist(), named, strict=True):
        assert {*prompts[label].split()} & words[row]


class Told:
    """A network that says what it is told."""

    device = CPU
    config = SimpleNamespace(max_text_len=256)

    def __init__(self, likely: Sequence[Sequence[float]], boxes: Sequence[Sequence[float]]) -> None:
        logits = torch.full((1, len(likely), 256), -torch.inf)
        for row, values in enumerate(likely):
            logits[0, row, : len(values)] = torch.tensor(values).logit()
        self.out = SimpleNamespace(logits=logits, pred_boxes=torch.tensor(boxes)[None])

    def __call__(self, **inputs: Any) -> Any:
        assert inputs["pixel_values"].shape[0] == 1
        return self.out


def test_thresholds_and_labels_by_hand() -> None:
    """[CLS] dog . red car . [SEP]"""
    likely = [
        [0.1, 0.4, 0.1, 0.3, 0.2, 0.1, 0.1],  # dog
        [0.1, 0.4, 0.1, 0.1, 0.5, 0.1, 0.1],  # red car, by its second word
        [0.1, 0.3, 0.1, 0.3, 0.3, 0.1, 0.1],  # no token above the box threshold
        [0.9, 0.3, 0.1, 0.3, 0.3, 0.1, 0.1],  # only the beginning: no prompt is named
        [0.1, 0.36, 0.8, 0.1, 0.2, 0.1, 0.1],  # its best token is a full stop; dog
        [0.1, 0.6, 0.1, 0.6, 0.2, 0.1, 0.1],  # both: the first
    ]
    net = Told(likely, [[0.5, 0.25, 0.2, 0.5]] * 6)
    own = GroundingDino(net, bert_words())
    frame = picture(100, 40)
    found = own.find(frame, own.query(["dog", "red car"]))
    assert found.labels.tolist() == [0, 1, 0, 0]
    assert found.scores.tolist() == pytest.approx([0.4, 0.5, 0.8, 0.6])
    torch.testing.assert_close(found.corners, torch.tensor([[16.0, 0, 24, 50]]).expand(4, 4))
    turned = own.find(frame, own.query(["red car", "dog"]))  # [CLS] red car . dog . [SEP]
    assert turned.labels.tolist() == [0, 1, 0, 0] and turned.scores.tolist() == found.scores.tolist()
    strict = GroundingDino(net, bert_words(), box_threshold=0.55, text_threshold=0.1)
    assert strict.find(frame, strict.query(["dog", "red car"])).labels.tolist() == [0, 0, 0]
    most = GroundingDino(net, bert_words(), box_threshold=0.95)
    nothing = most.find(frame, most.query(["dog", "red car"]))
    assert len(nothing) == 0 and nothing.corners.shape == (0, 4) and nothing.labels.dtype == torch.int64


# -- OWLv2


def test_owls_tokens_are_the_prompts_own(owl_folder: Path) -> None:
    own = owl(owl_folder)
    query = own.query(["dog", "red car"])
    assert query.ids.tolist()[0] == [55, 54, 56, 0, 0, 0, 0, 0] and query.mask.tolist()[0] == [1, 1, 1, 0, 0, 0, 0, 0]
    assert query.ids.shape == (2, 8) and query.mask[1].all()
    assert own.query(["abcdefghijklmn"]).ids.shape == (1, 16)
    with pytest.raises(InputError, match=r"^text: 'abcdefghijklmno' has 17 tokens, OWLv2 reads 16; say it in fewer"):
        own.query(["dog", "abcdefghijklmno"])
    with pytest.raises(InputError, match="holds nothing that OWLv2 can read"):
        own.query([" "])


def owl_by_transformers(folder: Path, frame: Frame, prompts: Sequence[str], threshold: float) -> dict[str, Any]:
    from transformers import AutoTokenizer
    from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil

    words = AutoTokenizer.from_pretrained(folder)(
        list(prompts), padding="max_length", max_length=16, return_tensors="pt"
    )
    pixels = owl(folder).pixels(frame)  # its resizing is compared by itself
    with torch.no_grad():
        out = small_owl()(input_ids=words["input_ids"], attention_mask=words["attention_mask"], pixel_values=pixels)
    processor = Owlv2ImageProcessorPil()
    return dict(processor.post_process_object_detection(out, threshold, target_sizes=[frame.size])[0])


@pytest.mark.parametrize("size", [(97, 160), (160, 97), (64, 64)])
def test_owls_boxes_are_those_of_transformers(size: tuple[int, int], owl_folder: Path) -> None:
    frame, prompts = picture(*size), ("red car", "dog", "zebra")
    threshold = float(owl_by_transformers(owl_folder, frame, prompts, 0.0)["scores"].median())
    expected = owl_by_transformers(owl_folder, frame, prompts, threshold)
    own = owl(owl_folder, threshold=threshold)
    found = own.find(frame, own.query(prompts))
    assert 0 < len(found) < 36
    torch.testing.assert_close(found.corners, expected["boxes"], atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(found.scores, expected["scores"], atol=1e-6, rtol=1e-5)
    assert torch.equal(found.labels, expected["labels"])


@pytest.mark.parametrize(("size", "apart"), [((40, 60), 1e-6), ((97, 33), 1e-6), ((200, 300), 1e-6), ((960, 540), 2e-3)])  # fmt: skip
def test_owls_pixels_are_those_of_transformers(size: tuple[int, int], apart: float, owl_folder: Path) -> None:
    """But for the outermost pixels, where it mirrors and others repeat, and for how far a strong blur reaches."""
    from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil

    frame = Frame(0, np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8), 0.0)
    processor = Owlv2ImageProcessorPil(size={"height": 96, "width": 96})
    expected = processor(frame.image, return_tensors="pt")["pixel_values"].float()
    got = owl(owl_folder).pixels(frame)
    assert got.shape == (1, 3, 96, 96) and got.dtype == torch.float32
    torch.testing.assert_close(got[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], atol=apart, rtol=0)
    black = -torch.tensor([0.48145466, 0.4578275, 0.40821073]) / torch.tensor([0.26862954, 0.26130258, 0.27577711])
    padding = got[0, :, -1, 0] if size[0] < size[1] else got[0, :, 0, -1]
    torch.testing.assert_close(padding, black)


# -- the segmenter


class Finder:
    """Knows where things are: boxes by frame index."""

    def __init__(self, boxes: dict[int, Boxes]) -> None:
        self.boxes, self.asked = boxes, list[tuple[str, ...]]()
        self.weights, self.description = {"finder": "f" * 64}, "finder"

    threshold = 0.0

    def query(self, prompts: Sequence[str]) -> str:
        self.asked.append(tuple(prompts))
        return "+".join(prompts)

    def find(self, frame: Frame, query: str) -> Boxes:
        assert query == "dog+red car"
        return self.boxes[frame.index]


class Filler(PromptedMasker):
    """Fills every box; of an odd one nothing."""

    def __init__(self) -> None:
        self.weights, self.description, self.looked = {"filler": "a" * 64}, "filler", 0

    def look(self, frame: Frame) -> Any:
        self.looked += 1
        return SimpleNamespace(size=frame.size)

    def boxed(self, features: Any, boxes: Tensor) -> Tensor:
        masks = torch.zeros(len(boxes), *features.size, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.long().tolist(), strict=True):
            mask[y0:y1, x0:x1] = x0 % 2 == 0
        return masks


def boxes(*rows: Sequence[float]) -> Boxes:
    table = torch.tensor(rows, dtype=torch.float32).view(-1, 6)
    return Boxes(table[:, :4], table[:, 4], table[:, 5].long())


def test_masks_scores_and_labels_go_together() -> None:
    found = boxes((4, 2, 10, 8, 0.5, 1), (0, 0, 4, 4, 0.9, 0), (4, 2, 10, 9, 0.4, 0), (5, 12, 9, 15, 0.8, 0))
    finder, filler = (
        Finder({0: found, 1: boxes(), 2: boxes((-6, -4, 30, 50, 0.7, 1), (40, 0, 50, 9, 0.9, 0))}),
        Filler(),
    )
    segmenter = TextSegmenter(finder, filler, ("dog", "red car"))
    assert isinstance(segmenter, Segmenter) and isinstance(finder, TextDetector) and segmenter.empty() is None
    assert segmenter.categories == ("dog", "red car") and segmenter.look_ahead == 0
    assert segmenter.weights == {**finder.weights, **filler.weights} and finder.asked == [("dog", "red car")]
    frames = [Frame(n, np.zeros((16, 20, 3), np.uint8), 0.0) for n in range(3)]
    together, memory = segmenter.segment(None, frames, [])
    first, second, third = together
    # The third is the first again (IoU 36/42 > 0.8), whatever it is called; of the fourth there is no mask.
    assert first.scores.tolist() == pytest.approx([0.5, 0.9]) and first.labels.tolist() == [1, 0] and memory is None
    assert first.masks.shape == (2, 16, 20) and [int(m.sum()) for m in first.masks] == [36, 16]
    assert len(second) == 0 and second.masks.shape == (0, 16, 20)
    assert third.masks.all() and third.labels.tolist() == [1]
    assert filler.looked == 2, "a frame without boxes is not looked at"
    for frame, all_ in zip(frames, together, strict=True):
        [alone], _ = segmenter.segment(None, [frame], [])
        assert torch.equal(alone.masks, all_.masks) and torch.equal(alone.scores, all_.scores)
    [kept], _ = TextSegmenter(finder, filler, ("dog", "red car"), nms=0.9).segment(None, frames[:1], [])
    assert len(kept) == 3


def test_deva_lets_what_is_named_be_missed_ten_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in its text demo, in its usual mode too; what the user says goes before that."""
    named = TextSegmenter(Finder({}), Filler(), ("dog",))
    monkeypatch.setattr("masklet.api.load_text_segmenter", lambda name, text, device: named)
    assert masklet.load("deva", text="dog.", propagator="still").system.settings.max_missed == 10
    assert masklet.load("deva", text="dog.", propagator="still", max_missed=3).system.settings.max_missed == 3
    assert masklet.load("deva", segmenter=named, propagator="still").system.settings.max_missed == 10


@pytest.mark.parametrize("size", [(97, 160), (160, 97)])
def test_a_known_box_is_asked_of_sam2_where_it_is(size: tuple[int, int]) -> None:
    """Against a network that is asked with the box in its own pixels, past the border and within."""
    frame, own = picture(*size), masker()
    found = boxes((-20, 10, 60.5, 2000, 0.6, 1), (12, 20, 52, 60, 0.9, 0))
    segmenter = TextSegmenter(Finder({0: found}), own, ("dog", "red car"))
    [got], _ = segmenter.segment(None, [frame], [])
    assert got.masks.shape == (2, *size) and got.masks.dtype == torch.bool and got.labels.tolist() == [1, 0]
    square = Frame(0, np.asarray(frame.image), 0.0)
    features, scale = own.look(square), np.array([SIDE / size[1], SIDE / size[0]] * 2)
    for mask, box in zip(got.masks, ((0, 10, 60.5, size[0]), (12, 20, 52, 60)), strict=True):
        at = torch.tensor(np.array(box) * scale, dtype=torch.float32).view(1, 1, 2, 2)
        net = small_sam2()
        with torch.no_grad():
            sparse, dense = net.prompt_encoder(at, torch.tensor([[[LOW, HIGH]]], dtype=torch.int32), None, None)
            logits, quality, *_ = net.mask_decoder(
                image_embeddings=features.coarse[None] + net.no_memory_embedding.view(1, -1, 1, 1),
                image_positional_embeddings=net.get_image_wide_positional_embeddings(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=True,
                high_resolution_features=[features.fine[None], features.medium[None]],
            )
        best = logits[0, 0, quality[0, 0].argmax()]
        full = torch.nn.functional.interpolate(best[None, None], size, mode="bilinear", align_corners=False)[0, 0]
        assert ((full > 0) != mask).float().mean() < 0.001 and mask.any()


@pytest.mark.parametrize("kind", ["dino", "owl"])
def test_all_of_it_together(kind: str, dino_folder: Path, owl_folder: Path, tmp_path: Path) -> None:
    folder = dino_folder if kind == "dino" else owl_folder
    segmenter = load_text_segmenter(f"{folder}:{saved_sam2(tmp_path / 'sam2')}", "dog. red car.", "cpu")
    assert segmenter.categories == ("dog", "red car")
    assert sorted(segmenter.weights) == [f"{folder.name}/model.safetensors", "sam2/model.safetensors"]
    assert re.match(r"text: (grounding-dino|owlv2), .*, nms 0.8; sam2, 256 px$", segmenter.description)
    if kind == "owl":
        segmenter.detector.threshold = 0.0
    frames = [picture(97, 160), picture(64, 40)]
    together, _ = segmenter.segment(None, frames, [])
    for frame, found in zip(frames, together, strict=True):
        assert len(found) and found.masks.shape[1:] == frame.size and set(found.labels.tolist()) <= {0, 1}
        [alone], _ = segmenter.segment(None, [frame], [])
        assert torch.equal(alone.masks, found.masks) and torch.equal(alone.labels, found.labels)
        detected = segmenter.detector.find(frame, segmenter._query).within(frame.size)
        kept = detected[torch.tensor(slow_nms(detected.corners, detected.scores, 0.8))]
        assert set(found.scores.tolist()) <= set(kept.scores.tolist()) and len(found) <= len(kept)


# -- by name


def same(a: Any, b: Any) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_a_saved_folder_is_what_was_saved(dino_folder: Path, owl_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    one, two = load_detector(str(dino_folder), CPU), load_detector(str(owl_folder), CPU)
    assert isinstance(one, GroundingDino) and same(one.net, small_dino()) and not one.net.training
    assert sum(isinstance(part, QuickSampling) for part in one.net.modules()) == 3  # one in the encoder, two behind it
    assert isinstance(two, Owlv2) and same(two.net, small_owl()) and two.side == 96
    assert list(one.weights) == ["dino/model.safetensors"] and len(one.weights["dino/model.safetensors"]) == 64
    assert one.threshold == one.text_threshold == 0.35 and capsys.readouterr().err == ""


OLD = (  # as transformers 4.40, with which the hub's files were written, named Swin's parameters
    (r"attention\.relative_position_bias\.", "attention.self."),
    (r"model\.swin\.", "model."),
    (r"attention\.q_proj", "attention.self.query"),
    (r"attention\.k_proj", "attention.self.key"),
    (r"attention\.v_proj", "attention.self.value"),
    (r"attention\.o_proj", "attention.output.dense"),
    (r"mlp\.fc1", "intermediate.dense"),
    (r"mlp\.fc2", "output.dense"),
)


def hubs(state: dict[str, Tensor], cells: int, box_head: str = "bbox_embed.0") -> dict[str, Tensor]:
    """Grounding DINO's tensors as the hub has them: each once, without a norm that is not used, with Swin's indices."""
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        if "bbox_embed" in name and not name.startswith(("model.encoder_output", "bbox_embed.0")):
            continue
        if "swin.layernorm" in name:
            continue
        if "conv_encoder" in name:
            for pattern, to in OLD:
                name = re.sub(pattern, to, name)
        out[re.sub(r"^bbox_embed\.0", box_head, name)] = value
        if name.endswith("relative_position_bias_table"):
            index = torch.zeros(cells, cells, dtype=torch.int64, device=value.device)
            out[name.replace("bias_table", "index")] = index
    return out


def test_files_as_the_hub_has_them_are_read(dino_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    for file in dino_folder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    save_file(hubs(small_dino().state_dict(), 16), folder / "model.safetensors", metadata={"format": "pt"})
    assert "model.backbone.conv_encoder.model.encoder.layers.0.blocks.0.attention.self.query.bias" in load_file(folder / "model.safetensors")  # fmt: skip
    assert same(load_detector(str(folder), CPU).net, small_dino())


def bytes_of_file(state: dict[str, Tensor]) -> int:
    """Length of a safetensors file, as transformers writes it."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in sorted(state, key=lambda n: (state[n].dtype != torch.int64, n)):
        start, end = end, end + state[name].numel() * state[name].element_size()
        kind = "I64" if state[name].dtype == torch.int64 else "F32"
        header[name] = {"dtype": kind, "shape": list(state[name].shape), "data_offsets": [start, end]}
    return 8 + -(-len(json.dumps(header, separators=(",", ":"))) // 8) * 8 + end


@pytest.mark.parametrize("name", DETECTORS)
def test_networks_fill_the_hubs_files_to_the_byte(name: str) -> None:
    from transformers import (
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        Owlv2Config,
        Owlv2ForObjectDetection,
        SwinConfig,
    )

    with torch.device("meta"):
        if name == "owlv2-base":
            state = Owlv2ForObjectDetection(Owlv2Config(vision_config={"image_size": 960})).state_dict()
        elif name == "grounding-dino-tiny":
            state = hubs(GroundingDinoForObjectDetection(GroundingDinoConfig()).state_dict(), 49)
        else:
            large = {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32], "window_size": 12}
            config = GroundingDinoConfig(backbone_config=SwinConfig(**large, out_indices=[2, 3, 4]))
            state = hubs(GroundingDinoForObjectDetection(config).state_dict(), 144, "model.decoder.bbox_embed.0")
    assert bytes_of_file(state) == DETECTORS[name].size


def test_the_names_are_in_the_zoo() -> None:
    assert {**CHECKPOINTS, **DETECTORS} == CHECKPOINTS
    for name, model in DETECTORS.items():
        assert model.files[0] == "config.json" and model.files[-1] == "model.safetensors" and len(model.files) >= 4
        with pytest.raises(InputError, match=rf"^weights {name} are not on this machine: run `masklet weights fetch {name}` \(\d+ MB\), or set MASKLET_WEIGHTS"):  # fmt: skip
            load_detector(name, CPU)


def install(folder: Path, source: Path, besides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    """A detector of our own in the weights folder, under a name."""
    model = Checkpoint("toy-dino", "owner/toy-dino", licence="Apache-2.0", besides=besides)
    for table in (CHECKPOINTS, DETECTORS):
        monkeypatch.setitem(table, model.name, model)
    folder.mkdir(parents=True)
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return model


def test_a_name_is_loaded_from_the_weights_folder(
    dino_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "weights" / "toy-dino"
    model = install(folder, dino_folder, ("tokenizer.json", "tokenizer_config.json"), monkeypatch)
    own = load_detector("toy-dino", CPU)
    assert same(own.net, small_dino()) and list(own.weights) == ["toy-dino/model.safetensors"]
    assert read_hash_record("toy-dino")["model.safetensors"].sha256 == resolve_weights(model)[1]
    (folder / "tokenizer.json").unlink()
    assert find_weights(model) is None
    words = rf"^weights toy-dino: {folder} has no tokenizer\.json; bring that of owner/toy-dino there, or run `masklet weights fetch toy-dino`$"  # fmt: skip
    with pytest.raises(InputError, match=words):
        load_detector("toy-dino", CPU)


def test_the_hubs_cache_needs_the_tokenizer_too(dino_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    model = install(tmp_path / "elsewhere", dino_folder, ("tokenizer.json", "tokenizer_config.json"), monkeypatch)
    repo = tmp_path / "hub" / "models--owner--toy-dino"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("abc")
    (repo / "snapshots").mkdir()
    (tmp_path / "elsewhere").rename(repo / "snapshots" / "abc")
    located = find_weights(model)
    assert located and located.cached and located.path.name == "model.safetensors"
    assert same(load_detector("toy-dino", CPU).net, small_dino())
    (repo / "snapshots" / "abc" / "tokenizer_config.json").unlink()
    assert find_weights(model) is None


def test_a_fetch_brings_all_files(hub: FakeHub, tmp_path: Path) -> None:  # noqa: F811
    model = Checkpoint("toy", "owner/toy", besides=("vocab.json", "merges.txt"))
    hub.files |= {"/owner/toy/resolve/main/vocab.json": b'{"a": 0}', "/owner/toy/resolve/main/merges.txt": b"a b"}
    plan = fetching.plan_fetch(model)
    assert [*plan] == ["config.json", "vocab.json", "merges.txt", "model.safetensors"]
    path = fetching.fetch_checkpoint(model, plan, lambda *_: None)
    assert {p.name for p in path.parent.iterdir()} == {*model.files, "record.json"} and fetching.find_verified_file(
        model
    ) == path
    path.with_name("merges.txt").unlink()
    assert fetching.find_verified_file(model) is None
    hub.files["/owner/toy/resolve/main/vocab.json"] = b"<html>log in</html>"
    with pytest.raises(InputError, match=r"vocab\.json is not a config but another page"):
        fetching.fetch_checkpoint(model, fetching.plan_fetch(model), lambda *_: None)
    assert "hf download owner/toy config.json vocab.json merges.txt model.safetensors --local-dir toy" in fetching.explain_offline_fetch(model)  # fmt: skip


# -- what is not meant


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./gone", r"^\./gone: no such folder; give one with config\.json, model\.safetensors and a tokenizer, or one of grounding-dino-tiny, "),
        ("/gone/away.pt", r"^/gone/away\.pt: no such folder"),
        ("grounding-dino-tni", r"no weights 'grounding-dino-tni'; did you mean grounding-dino-tiny\? "),
        ("someone/else", r"run `masklet weights fetch someone/else` \(size unknown\)"),
    ],
)  # fmt: skip
def test_names_that_stand_for_nothing_here(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_detector(name, CPU)


def test_a_folder_of_another_class_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"small: of a network 'sam2_video'; text is read by grounding-dino or mm-grounding-dino or owlv2$",
    ):
        load_detector(str(saved_sam2(tmp_path / "small")), CPU)


def copied(source: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_damage_is_named(dino_folder: Path, tmp_path: Path) -> None:
    for n, (file, content, words) in enumerate(
        [
            ("model.safetensors", b"", r"damaged or of another network \(.*\); fetch or copy it again"),
            (
                "model.safetensors",
                (dino_folder / "model.safetensors").read_bytes()[:-9],
                "damaged or of another network",
            ),
            ("config.json", b"{", r"config\.json: not JSON, or cut off"),
            ("config.json", b"[]", "of a network 'None'"),
            ("tokenizer.json", b"{}", "its tokenizer cannot be read"),
        ]
    ):
        folder = copied(dino_folder, tmp_path / str(n))
        (folder / file).write_bytes(content)
        with pytest.raises(InputError, match=words):
            load_detector(str(folder), CPU)


@pytest.mark.parametrize("besides", [(), ("tokenizer_config.json",)])
def test_a_folder_without_a_tokenizer_is_named(besides: tuple[str, ...], dino_folder: Path, tmp_path: Path) -> None:
    folder = copied(dino_folder, tmp_path / "bare")
    for file in ("tokenizer.json", *besides):
        (folder / file).unlink()
    with pytest.raises(
        InputError, match=r"bare: no tokenizer; bring tokenizer\.json, or vocab\.json and merges\.txt, or"
    ):
        load_detector(str(folder), CPU)


def test_missing_strange_and_misshapen_tensors_are_named(dino_folder: Path, tmp_path: Path) -> None:
    state = load_file(dino_folder / "model.safetensors")
    key = "model.level_embed"
    for n, (other, words) in enumerate(
        [
            ({k: v for k, v in state.items() if k != key}, r"\(missing: model\.level_embed\)"),
            ({**state, "extra": torch.ones(1)}, r"\(unexpected: extra\)"),
            ({**state, key: torch.ones(2, 3)}, "model.level_embed|another network"),
        ]
    ):
        folder = copied(dino_folder, tmp_path / str(n))
        save_file(other, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(InputError, match=words):
            load_detector(str(folder), CPU)


@pytest.mark.parametrize("text", ["", "...", "dog. dog."])
def test_the_text_is_looked_at_first(text: str) -> None:
    with pytest.raises(InputError, match=r"^text"):
        load_text_segmenter("grounding-dino-tiny", text)


def test_the_masker_must_be_here_too(dino_folder: Path) -> None:
    with pytest.raises(InputError, match=r"run `masklet weights fetch sam2\.1-tiny`"):
        load_text_segmenter(str(dino_folder), "dog.")
