"""SAM 3's detector (Carion et al. 2025, arXiv:2511.16719) as a segmenter: all that a phrase names or a box shows.

The networks are transformers', SAM 3's own or with a small text encoder (SAM3-LiteText, Zeng et al. 2026,
arXiv:2602.12173). What is before and after them is ours, since transformers' processors need torchvision.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.frames import Frame, Video
from masklet.core.instances import Box, Detections, Exemplar
from masklet.core.masks import mask_nms, resize_bilinear, stack_masks
from masklet.core.part_facts import CPU
from masklet.models.sam2.core import wrap_inference
from masklet.models.sam3.trunk import Sam3Trunk
from masklet.models.sam3.weights import build_detector, read_sam3, share_trunk
from masklet.models.segmenters.text import load_tokenizer
from masklet.nn.roi_align import align_boxes

WORDS = 32  # tokens of a phrase, as in the published processor: shorter ones are padded
SHOWN = "visual"  # the phrase of what is shown and not named, as in the published processor


@dataclass(frozen=True)
class Sam3SegmenterSettings:
    """What can be set of SAM 3's detector; the first three are what its authors take for videos."""

    threshold: float = 0.5  # detections score more: their own score times the chance that anything of the kind is there
    sure: float = 0.7  # score above which a detection begins an object (conf of a system)
    nms: float = 0.1  # mask IoU above which the better of two detections of one phrase stays
    at_once: int = 4  # phrases that go through the network together


@dataclass(frozen=True, eq=False)
class ConceptPrompt:
    """What one phrase, or one thing that is shown, is to the network."""

    words: Float[Tensor, "t c"]
    shown: Float[Tensor, "e c"]  # tokens of exemplars; none


class Sam3Segmenter:
    """All objects of some kinds in each frame by itself, with the kinds' names."""

    look_ahead = 0
    gradients = False  # it is not trained
    advice: ClassVar[Mapping[str, float]] = {"max_missed": 10}  # of DEVA's, as for other text detectors

    def __init__(
        self,
        net: Any,
        trunk: Sam3Trunk,
        tokenizer: Any,
        phrases: Sequence[str],
        exemplars: Sequence[Exemplar] = (),
        settings: Sam3SegmenterSettings = Sam3SegmenterSettings(),
        weights: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            net: a `Sam3Model` or `Sam3LiteTextModel` of transformers, in eval mode; of its image encoder the neck.
            trunk: the image encoder, maybe shared with a propagator: then each frame is encoded once.
            tokenizer: that goes with it.
            phrases: what to find, one kind each; they are the first categories, in this order.
            exemplars: of these kinds, or of further ones, which follow.
            settings: what can be set.
            weights: sha256 of the weight files, by name.

        Raises:
            InputError: the network cannot read a phrase.
        """
        self.net, self.trunk, self.settings, self.weights = net, trunk, settings, weights or {}
        self.exemplars, self.device, self.half = tuple(exemplars), trunk.device, trunk.half
        self.categories = tuple(dict.fromkeys((*phrases, *(e.name for e in exemplars))))
        self.conf, self.low_conf, self.at_once = settings.sure, settings.threshold, settings.at_once
        self.description = describe_segmenter(trunk.side, settings, self.categories, self.exemplars)
        words = self._read(tokenizer, [name if name in phrases else SHOWN for name in self.categories])
        self._prompts = [ConceptPrompt(w, w[:0]) for w in words]
        self._is_bound = not exemplars

    @wrap_inference
    def _read(self, tokenizer: Any, phrases: Sequence[str]) -> list[Float[Tensor, "t c"]]:
        return encode_phrases(self.net, tokenizer, phrases)

    def bind_video(self, video: Video) -> Sam3Segmenter:
        """The same for one `video`, in which the exemplars are looked at. Raises InputError where one is not in it."""
        bound = copy(self)
        bound._prompts = [
            replace(prompt, shown=torch.cat([prompt.words[:0], *self._look_at(video, name)]))
            for name, prompt in zip(self.categories, self._prompts, strict=True)
        ]
        bound._is_bound = True
        return bound

    def _look_at(self, video: Video, name: str) -> Iterator[Float[Tensor, "e c"]]:
        """The tokens of the exemplars of one `name`, frame by frame."""
        shown = [e for e in self.exemplars if e.name == name]
        for index in sorted({e.frame for e in shown}):
            boxes = [find_exemplar_box(e, video.size) for e in shown if e.frame == index]
            frames = video.read(index, index + 1)
            if not frames:
                raise InputError(f"exemplar of {name} in frame {index}: {video.name} has no such frame")
            yield self.encode_exemplars(frames[0], boxes)

    @wrap_inference
    def encode_exemplars(self, frame: Frame, boxes: Sequence[Box]) -> Float[Tensor, "e c"]:
        """The tokens of what fills some `boxes` in a `frame`: with them any frame can be asked for more of its kind."""
        levels, positions = self._look(frame)
        (h, w), like = frame.size, levels[-1]
        corners = torch.tensor([[b.x0 / w, b.y0 / h, b.x1 / w, b.y1 / h] for b in boxes])
        return encode_boxes(self.net.geometry_encoder, like, positions[-1], corners.to(like))

    def empty(self) -> None:
        """The memory before the first frame: None, for nothing is remembered. Raises InputError where there are
        exemplars, and no video in which they are.
        """
        if not self._is_bound:
            raise InputError("an exemplar is looked at in its video, which frames that arrive are not: give a file")

    def segment(self, memory: None, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], None]:
        """Detects what the phrases name in each of `frames` by itself; `memory` is None, and `future` is not looked
        at. Gives one `Detections` a frame, and None.
        """
        return [self.find(frame) for frame in frames], None

    @wrap_inference
    def find(self, frame: Frame) -> Detections:
        """The detections of one frame, by phrase: one pass of the image encoder for all of them."""
        levels, positions = self._look(frame)
        masks, scores, labels = [], [], []
        for start in range(0, len(self._prompts), self.at_once):
            answer = self._ask(levels, positions, self._prompts[start : start + self.at_once])
            for row, (logits, score) in enumerate(self._choose(answer)):
                masks += [draw_mask(mask, frame.size) for mask in logits]
                scores.append(score)
                labels += [start + row] * len(score)
        found = Detections(stack_masks(masks, frame.size), torch.cat(scores), torch.tensor(labels, dtype=torch.int64))
        return found[found.masks.flatten(1).any(1)]

    def _look(self, frame: Frame) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """A frame's features at strides 3.5, 7 and 14, and where they are."""
        levels, positions = self.net.vision_encoder.neck(self.trunk(frame))
        return levels[:-1], positions[:-1]  # the coarsest is not read

    def _ask(self, levels: Sequence[Tensor], positions: Sequence[Tensor], prompts: Sequence[ConceptPrompt]) -> Any:
        """The network's answer to some prompts about one frame, a row each."""
        rows = [torch.cat([prompt.words, prompt.shown]) for prompt in prompts]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        is_said = torch.nn.utils.rnn.pad_sequence([r.new_ones(len(r), dtype=torch.bool) for r in rows], True)
        image = [tuple(x.expand(len(rows), -1, -1, -1) for x in maps) for maps in (levels, positions)]
        seen = SimpleNamespace(
            fpn_hidden_states=(*image[0], None),
            fpn_position_encoding=(*image[1], None),
            hidden_states=None,
            attentions=None,
        )
        return self.net(vision_embeds=seen, text_embeds=SimpleNamespace(pooler_output=tokens), attention_mask=is_said)

    def _choose(self, answer: Any) -> list[tuple[Float[Tensor, "n y x"], Float[Tensor, " n"]]]:
        """Mask logits and scores of the detections of each phrase: above the threshold, and no twins."""
        chances = (answer.pred_logits.float().sigmoid() * answer.presence_logits.float().sigmoid()).cpu()
        chosen = []
        for logits, chance in zip(answer.pred_masks, chances, strict=True):
            sure = (chance > self.settings.threshold).nonzero()[:, 0]
            likely = logits[sure.to(logits.device)].float()
            kept = mask_nms((likely > 0).cpu(), chance[sure], self.settings.nms)
            chosen.append((likely[kept.to(logits.device)], chance[sure][kept]))
        return chosen


def describe_segmenter(
    side: int, settings: Sam3SegmenterSettings, categories: Sequence[str], exemplars: Sequence[Exemplar]
) -> str:
    """What a result says of the segmenter."""
    shown = hashlib.sha256(repr([e.key for e in exemplars]).encode()).hexdigest()[:8] if exemplars else ""
    named = f"{', '.join(categories)}; {len(exemplars)} exemplars {shown}" if exemplars else ", ".join(categories)
    return f"sam3, {side} px, {settings.threshold:g}, nms {settings.nms:g}: {named}"


def encode_phrases(net: Any, tokenizer: Any, phrases: Sequence[str]) -> list[Float[Tensor, "t c"]]:
    """The tokens of each of some phrases. Raises InputError where the network cannot read one."""
    for phrase in phrases:
        count = len(tokenizer(phrase)["input_ids"])
        if count > WORDS:
            raise InputError(f"text: {phrase!r} has {count} tokens, SAM 3 reads {WORDS}; say it in fewer words")
        if count <= 2:  # its beginning and its end
            raise InputError(f"text: {phrase!r} holds nothing that SAM 3 can read; say it in other words")
    told = tokenizer(list(phrases), padding="max_length", max_length=WORDS, return_tensors="pt")
    device = net.text_projection.weight.device
    read = net.get_text_features(told["input_ids"].to(device), told["attention_mask"].to(device), return_dict=True)
    return [tokens[is_said] for tokens, is_said in zip(read.pooler_output, told["attention_mask"].bool(), strict=True)]


def encode_boxes(
    encoder: Any, cells: Float[Tensor, "1 c h w"], positions: Float[Tensor, "1 c h w"], boxes: Float[Tensor, "n 4"]
) -> Float[Tensor, "e c"]:
    """What SAM 3's geometry encoder says of boxes (x0, y0, x1, y1 in shares of the frame): a token of each, and one of
    all of them.
    """
    h, w = cells.shape[2:]
    normed = encoder.vision_layer_norm(cells.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    pooled = align_boxes(normed[0].float(), boxes.float() * boxes.new_tensor([w, h, w, h]), encoder.roi_size)
    x, y = (boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2
    wide, high = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    token = (
        encoder.boxes_direct_project(torch.stack([x, y, wide, high], 1))
        + encoder.boxes_pool_project(pooled.to(cells.dtype)).flatten(1)
        + encoder.boxes_pos_enc_project(encoder._encode_box_coordinates(x, y, wide, high))
        + encoder.label_embed.weight[1:2]
    )
    tokens = encoder.prompt_layer_norm(encoder.final_proj(torch.cat([token, encoder.cls_embed.weight])))[None]
    seen, where = (m.flatten(2).transpose(1, 2) for m in (cells, positions))
    for layer in encoder.layers:
        tokens = layer(prompt_feats=tokens, vision_feats=seen, vision_pos_encoding=where, prompt_mask=None)
    out: Tensor = encoder.output_layer_norm(tokens)[0]
    return out


def find_exemplar_box(exemplar: Exemplar, size: tuple[int, int]) -> Box:
    """The box of an exemplar in a frame of `size` (h, w): of a mask, the one that it fills. Raises InputError where it
    does not fit.
    """
    shape, (h, w) = exemplar.shape, size
    if isinstance(shape, Tensor):
        if tuple(shape.shape) != size:
            raise InputError(f"{exemplar}: the mask is {shape.shape[1]}x{shape.shape[0]}, the video {w}x{h}")
        ys, xs = shape.any(1).nonzero()[:, 0].tolist(), shape.any(0).nonzero()[:, 0].tolist()
        if not ys:
            raise InputError(f"{exemplar}: the mask is empty; mark at least one pixel")
        return Box(xs[0], ys[0], xs[-1] + 1, ys[-1] + 1)
    box = Box(max(shape.x0, 0), max(shape.y0, 0), min(shape.x1, w), min(shape.y1, h))
    if not (box.x0 < box.x1 and box.y0 < box.y1):
        raise InputError(f"{exemplar}: {shape} needs x0 < x1, y0 < y1 and a part within the {w}x{h} video")
    return box


def draw_mask(logits: Float[Tensor, "y x"], size: tuple[int, int]) -> Bool[Tensor, "h w"]:
    """A mask at the frame's `size` (h, w), as the published processor draws it: from chances."""
    return (resize_bilinear(logits.sigmoid()[None], size)[0] > 0.5).cpu()


def load_sam3_segmenter(
    name: str | Path,
    phrases: Sequence[str],
    exemplars: Sequence[Exemplar] = (),
    device: torch.device = CPU,
    settings: Sam3SegmenterSettings = Sam3SegmenterSettings(),
    side: int | None = None,
) -> Sam3Segmenter:
    """SAM 3's detector by a name of `masklet weights list`, a hub id or a folder. Nothing is fetched.

    Args:
        name: of the weights.
        phrases, exemplars, settings: as for `Sam3Segmenter`.
        device: where it computes.
        side: pixels of the square that frames are squeezed into; None: those that it was trained with.

    Raises:
        InputError: it is not on this machine, damaged or of another network, or cannot read a phrase.
    """
    found = read_sam3(name, side)
    net, tokenizer = build_detector(found, device), load_tokenizer(found.path.parent)
    return Sam3Segmenter(net, share_trunk(found, device), tokenizer, phrases, exemplars, settings, found.files)
