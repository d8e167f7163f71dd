"""Detectors that find what is named in words: (MM-)Grounding DINO and OWLv2, over the networks of transformers.

The networks and the tokenizers are transformers'; what is before and after them is ours, since transformers' processors
need torchvision.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from PIL import Image
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.models.boxes import Boxes, convert_to_corners
from masklet.models.segmenters.quick_sampling import quicken_sampling
from masklet.models.transformers_output import drop_transformers_output
from masklet.nn.quick_linear import quicken_linear_layers
from masklet.weights.catalog import CONFIG, DETECTORS, TENSORS
from masklet.weights.reading import is_path, locate_weights, read_network_config
from masklet.weights.strict import format_keys

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and deviation, RGB in 0 to 1
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SHORTEST, LONGEST = 800, 1333  # sides of Grounding DINO's input, pixels

Q = TypeVar("Q")  # prompts as a detector reads them


@runtime_checkable
class TextDetector(Protocol[Q]):
    """Finds boxes of what prompts name."""

    weights: Mapping[str, str]
    description: str

    threshold: float  # boxes score more

    def query(self, prompts: Sequence[str]) -> Q:
        """The prompts as the network reads them. Raises InputError where it cannot."""
        ...

    def find(self, frame: Frame, query: Q) -> Boxes:
        """Boxes above the detector's thresholds; they may lie across the border, and on each other."""
        ...


# -- prompts


def split_prompts(text: str) -> tuple[str, ...]:
    """The prompts of a text, split at full stops.

    Raises InputError where there is none, or one twice.

    >>> split_prompts("dog. red  car.")
    ('dog', 'red car')
    """
    prompts = tuple(filter(None, (" ".join(part.split()) for part in text.split("."))))
    if not prompts:
        raise InputError(f'text {text!r} names nothing; separate things by full stops, such as "dog. red car."')
    lowered = [p.lower() for p in prompts]
    twice = next((p for n, p in enumerate(prompts) if lowered.index(p.lower()) < n), None)
    if twice is not None:
        raise InputError(f"text: {twice!r} stands there twice; name each thing once (capitals do not count)")
    return prompts


# -- Grounding DINO


@dataclass(frozen=True)
class DinoQuery:
    """Prompts as one sentence of Grounding DINO's."""

    tokens: Mapping[str, Int64[Tensor, "1 t"]]  # what the network takes
    own: Bool[Tensor, "p t"]  # which tokens each prompt consists of


class GroundingDino:
    """Grounding DINO (Liu et al. 2023), or MM-Grounding-DINO (Zhao et al. 2024), which is asked in the same way: all
    prompts in one sentence, a score for every box and token.
    """

    def __init__(
        self,
        net: Any,
        tokenizer: Any,
        *,
        box_threshold: float = 0.35,
        text_threshold: float = 0.35,
        weights: Mapping[str, str] | None = None,
        kind: str = "grounding-dino",
    ) -> None:
        """
        Args:
            net: a `GroundingDinoForObjectDetection` or `MMGroundingDinoForObjectDetection` of transformers, in eval
                mode.
            tokenizer: the fast tokenizer that goes with it.
            box_threshold: boxes stay whose best token scores above this.
            text_threshold: and one of whose prompts has a token above this.
            weights: sha256 of the weight files, by name.
            kind: which of the two it is, as its config says.
        """
        self.net, self.tokenizer = net, tokenizer
        self.threshold, self.text_threshold = box_threshold, text_threshold
        self.weights = weights or {}
        self.description = f"{kind}, box {box_threshold:g}, text {text_threshold:g}"

    def query(self, prompts: Sequence[str]) -> DinoQuery:
        """One lower-case sentence, a full stop after each prompt, and the tokens that each prompt has in it."""
        lowered = [prompt.lower() for prompt in prompts]
        read = self.tokenizer(". ".join(lowered) + ".", return_offsets_mapping=True)
        places = read.pop("offset_mapping")
        most = self.net.config.max_text_len
        if len(places) > most:
            raise InputError(f"text: {len(places)} tokens, Grounding DINO reads {most}; name fewer things at a time")
        ends = np.cumsum([len(prompt) + 2 for prompt in lowered]) - 2
        starts = ends - [len(prompt) for prompt in lowered]
        own = torch.tensor([[a < b and s <= a < e for a, b in places] for s, e in zip(starts, ends, strict=True)])
        unread = next((p for p, has in zip(prompts, own.any(1).tolist(), strict=True) if not has), None)
        if unread is not None:
            raise InputError(f"text: {unread!r} holds nothing that Grounding DINO can read; say it in other words")
        return DinoQuery({name: torch.tensor([ids], device=self.net.device) for name, ids in read.items()}, own)

    @torch.no_grad()
    def find(self, frame: Frame, query: DinoQuery) -> Boxes:
        """Boxes by score, each with the prompt that has its likeliest token."""
        out = self.net(pixel_values=self.pixels(frame).to(self.net.device), **query.tokens)
        likely = out.logits[0, :, : query.own.shape[1]].float().sigmoid().cpu()
        scores = likely.max(1).values
        sure = scores > self.threshold
        named = torch.where(query.own, likely[sure][:, None], 0.0).amax(2)
        found = Boxes(convert_to_corners(out.pred_boxes[0].float().cpu()[sure]), scores[sure], named.argmax(1))
        h, w = frame.size
        found = Boxes(found.corners * torch.tensor([w, h, w, h]), found.scores, found.labels)
        return found[named.amax(1) > self.text_threshold]

    def pixels(self, frame: Frame) -> Float[Tensor, "1 3 h w"]:
        """Grounding DINO's input. All of it is image: frames go one by one, so that none is padded."""
        h, w = compute_dino_size(frame.size)
        small = np.array(Image.fromarray(frame.image).resize((w, h), Image.Resampling.BILINEAR))
        return normalize_rgb(small.astype(np.float32) / 255, IMAGENET)


def compute_dino_size(size: tuple[int, int]) -> tuple[int, int]:
    """The size (h, w) at which Grounding DINO looks at a frame: the short side 800, the long one at most 1333.

    >>> compute_dino_size((480, 640)), compute_dino_size((1920, 1080)), compute_dino_size((480, 854))
    ((800, 1066), (1333, 750), (749, 1333))
    """
    short, long = min(size), max(size)
    exact = min(SHORTEST, LONGEST * short / long)
    sides = max(round(exact), 1), int(exact * long / short)
    return sides if size[0] <= size[1] else (sides[1], sides[0])


# -- OWLv2


@dataclass(frozen=True)
class Owlv2Queries:
    """Prompts as OWLv2 reads them, one by one."""

    ids: Int64[Tensor, "p t"]
    mask: Int64[Tensor, "p t"]


class Owlv2:
    """OWLv2 (Minderer et al. 2023): each prompt for itself, a score for every box and prompt."""

    def __init__(
        self, net: Any, tokenizer: Any, *, threshold: float = 0.1, weights: Mapping[str, str] | None = None
    ) -> None:
        """
        Args:
            net: an `Owlv2ForObjectDetection` of transformers, in eval mode.
            tokenizer: the tokenizer that goes with it.
            threshold: boxes stay whose best prompt scores above this. OWLv2's scores are lower than others'.
            weights: sha256 of the weight files, by name.
        """
        self.net, self.tokenizer, self.threshold, self.weights = net, tokenizer, threshold, weights or {}
        self.side = int(net.config.vision_config.image_size)
        self.description = f"owlv2, {self.side} px, {threshold:g}"

    def query(self, prompts: Sequence[str]) -> Owlv2Queries:
        """The tokens of each prompt."""
        rows = [torch.tensor(self.tokenizer(prompt)["input_ids"], dtype=torch.int64) for prompt in prompts]
        most = self.net.config.text_config.max_position_embeddings
        for prompt, row in zip(prompts, rows, strict=True):
            if len(row) > most:
                raise InputError(f"text: {prompt!r} has {len(row)} tokens, OWLv2 reads {most}; say it in fewer words")
            if len(row) <= 2:  # its beginning and its end
                raise InputError(f"text: {prompt!r} holds nothing that OWLv2 can read; say it in other words")
        padded = [
            torch.nn.utils.rnn.pad_sequence(x, batch_first=True) for x in (rows, [r.new_ones(len(r)) for r in rows])
        ]
        ids, mask = (x.to(self.net.device) for x in padded)
        return Owlv2Queries(ids, mask)

    @torch.no_grad()
    def find(self, frame: Frame, query: Owlv2Queries) -> Boxes:
        """Boxes above the threshold, each with its likeliest prompt."""
        out = self.net(
            input_ids=query.ids, attention_mask=query.mask, pixel_values=self.pixels(frame).to(self.net.device)
        )
        best = out.logits[0].float().cpu().max(1)
        scores = best.values.sigmoid()
        sure = scores > self.threshold
        # Shares of the padded square, whose corner is the frame's.
        found = convert_to_corners(out.pred_boxes[0].float().cpu()[sure]) * max(frame.size)
        return Boxes(found, scores[sure], best.indices[sure])

    def pixels(self, frame: Frame) -> Float[Tensor, "1 3 s s"]:
        """OWLv2's input: black below or to the right makes it square, then bilinear, blurred first where it shrinks."""
        side = max(frame.size)
        square: Float32[np.ndarray, "s s 3"] = np.zeros((side, side, 3), dtype=np.float32)
        square[: frame.size[0], : frame.size[1]] = frame.image / np.float32(255)
        blur = (side / self.side - 1) / 2
        if blur > 0:
            width = 2 * int(np.ceil(3 * blur)) + 1
            square = cv2.GaussianBlur(square, (width, width), blur, borderType=cv2.BORDER_REFLECT_101)
        return normalize_rgb(cv2.resize(square, (self.side, self.side), interpolation=cv2.INTER_LINEAR), CLIP)


def normalize_rgb(
    image: Float[np.ndarray, "h w 3"], to: tuple[tuple[float, ...], tuple[float, ...]]
) -> Float[Tensor, "1 3 h w"]:
    """RGB in 0 to 1 as a network takes it."""
    mean, deviation = (np.array(v, dtype=np.float32) for v in to)
    return torch.from_numpy((image - mean) / deviation).permute(2, 0, 1)[None].contiguous()


# -- by name

MM_DINO = "mm-grounding-dino"
KINDS: Mapping[str, tuple[str, Callable[..., GroundingDino | Owlv2]]] = {  # by a config's model_type
    "grounding-dino": ("GroundingDinoForObjectDetection", GroundingDino),
    MM_DINO: ("MMGroundingDinoForObjectDetection", partial(GroundingDino, kind=MM_DINO)),
    "owlv2": ("Owlv2ForObjectDetection", Owlv2),
}
VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("vocab.txt",))  # files that hold one


def load_detector(name: str, device: torch.device) -> GroundingDino | Owlv2:
    """A detector by a name of `masklet weights list`, a hub id, or a folder that transformers saved.

    Nothing is fetched. Raises InputError where it is not on this machine, damaged, or of another class.
    """
    folder, weights = locate_detector(name)
    kind = str(read_network_config(folder / CONFIG).get("model_type"))
    if kind not in KINDS:
        raise InputError(f"{folder}: of a network {kind!r}; text is read by {' or '.join(KINDS)}")
    classname, detector = KINDS[kind]
    tokenizer = load_tokenizer(folder)
    net = load_saved_network(folder, classname).to(device)
    quicken_sampling(net)
    return detector(net, tokenizer, weights=weights)


def locate_detector(name: str) -> tuple[Path, Mapping[str, str]]:
    """The folder that a name stands for, and {name: sha256} of its weights."""
    if is_path(name) and not Path(name).expanduser().is_dir():
        raise InputError(
            f"{name}: no such folder; give one with {CONFIG}, {TENSORS} and a tokenizer, or {list_detector_names()}"
        )
    path, weights = locate_weights(name)
    if path.name != TENSORS:
        raise InputError(
            f"{path}: not a text detector; give a folder as transformers saves it, or {list_detector_names()}"
        )
    return path.parent, weights


def list_detector_names() -> str:
    """The names that a user may give."""
    return f"one of {', '.join(DETECTORS)}"


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer that lies with the weights. transformers itself would make an empty one of no vocabulary."""
    from transformers import AutoTokenizer

    if not any(all((folder / file).is_file() for file in files) for files in VOCABULARIES):
        choice = ", or ".join(" and ".join(files) for files in VOCABULARIES)
        raise InputError(f"{folder}: no tokenizer; bring {choice} there, with tokenizer_config.json")
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # of many kinds, from what the files hold
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{folder}: its tokenizer cannot be read ({reason}); fetch or copy it again") from None


def load_saved_network(folder: Path, classname: str) -> Any:
    """The network (float32, eval, no gradients), with exactly the weights of the folder."""
    import transformers
    from safetensors import SafetensorError

    how: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "dtype": torch.float32}
    try:
        with drop_transformers_output():
            net, told = getattr(transformers, classname).from_pretrained(folder, output_loading_info=True, **how)
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{folder}: damaged or of another network ({reason}); fetch or copy it again") from None
    wrong = {what: told[f"{what}_keys"] for what in ("missing", "unexpected", "mismatched") if told[f"{what}_keys"]}
    if wrong:
        said = "; ".join(f"{what}: {format_keys(map(str, keys))}" for what, keys in wrong.items())
        raise InputError(f"{folder}: not the weights of this {classname} ({said}); fetch or copy it again")
    quicken_linear_layers(net)
    return net.requires_grad_(False).eval()
