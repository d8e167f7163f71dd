"""SAM 2 (Ravi et al. 2024) as a propagator, over the networks of transformers.

The networks are transformers', all that is around them is ours: a bounded memory that is a value, objects in batches,
and where transformers' session does otherwise, what the official code does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch
import torch.nn.functional as nnf
from jaxtyping import BFloat16, Bool, Float
from PIL import Image
from torch import Tensor, nn

from masklet.core.frames import Frame
from masklet.core.instances import Box, Clicks, Point, Prediction, Prompt
from masklet.core.masks import resize_bilinear
from masklet.models.sam2.memory import (
    MarkingPolicy,
    MemoryBank,
    MemoryEntry,
    MemoryPolicy,
    MemoryReading,
    RecentFrames,
    Sam2Memory,
)
from masklet.nn.memory_attention import MemoryAttention
from masklet.nn.parallel import run_on_threads

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, RGB in 0 to 1
ABSENT = -1024.0  # logit of every pixel of an object that is not in the frame
SURE = 10.0  # logit of a pixel in a given mask; also the object score of a given mask that is not empty
STEEPEST = 32.0  # logits of an earlier answer are held within this when clicks refine it
BATCHES = (16, 8, 4, 2, 1)  # objects that go through the networks together on a GPU

G = TypeVar("G")
R = TypeVar("R")
S = TypeVar("S", bound="Sam2")
P = ParamSpec("P")


def wrap_inference(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Without gradients but in training; in bfloat16 where the official code is: on a GPU, under autocast."""

    @wraps(method)
    def run(self: S, /, *args: P.args, **more: P.kwargs) -> R:
        half = torch.autocast(self.device.type, torch.bfloat16, enabled=self.half)
        with torch.set_grad_enabled(self.gradients and torch.is_grad_enabled()), half:
            return method(self, *args, **more)

    return run


@dataclass(frozen=True, eq=False)
class Sam2Features:
    """One frame as SAM 2 sees it, at strides 4, 8 and 16."""

    fine: Float[Tensor, "e h4 w4"]
    medium: Float[Tensor, "d h2 w2"]
    coarse: Float[Tensor, "c h w"]
    size: tuple[int, int]  # of the frame: h, w


class Sam2:
    """A propagator with three hypotheses for each object. Logits are at a quarter of the network's resolution."""

    def __init__(
        self,
        net: Any,
        policy: MemoryPolicy | None = None,
        *,
        postprocess: bool = True,
        prompts: int = 8,
        weights: Mapping[str, str] | None = None,
        gradients: bool = False,
    ) -> None:
        """
        Args:
            net: a `Sam2VideoModel` of transformers, in eval mode; it is changed, and of no use to transformers after.
            policy: what is read of the memory; None: `RecentFrames`, as published.
            postprocess: the official builder's defaults: prompted masks are remembered as 0 and 1, and a single
                mask that is not stable gives way to the best of three. The official evaluation tools go without.
            prompts: conditioning frames that are held for each object: the first and the latest.
            weights: sha256 of the weight files, by name.
            gradients: for training: they flow through beliefs and memories, and `predict` answers masks whatever the
                object score, so that a wrong score does not keep them from learning. After each step call `renew`.
        """
        self.net, self.policy, self.gradients = net, policy or RecentFrames(), gradients
        self.half = net.no_memory_embedding.is_cuda
        self.postprocess, self.prompts, self.weights = postprocess, prompts, weights or {}
        self.side = int(net.image_size)
        self._attend = self._attention()
        with torch.no_grad():
            self._constants()

    @property
    def description(self) -> str:
        """Names the propagator and its settings in one line, which is written into a result's provenance."""
        return f"sam2, {self.side} px, {self.policy}"

    def _attention(self) -> MemoryAttention:
        return MemoryAttention(self.net.memory_attention)

    def renew(self) -> None:
        """Computes anew what depends on the weights alone, after they have changed."""
        self._memory_positions = self._where()
        self._unasked = self._asked([], [])

    def _where(self) -> Float[Tensor, "n p d"]:
        """Encodings of the tokens of a remembered frame. Row 0: a conditioning frame; row n: n frames ago."""
        temporal = self.net.memory_temporal_positional_encoding.view(-1, 1, self.net.mem_dim).roll(1, 0)
        positions: Tensor = self._spatial_positions + temporal
        return positions

    def _constants(self) -> None:
        """What does not depend on the video."""
        net, grid = self.net, self.net.backbone_feature_sizes[-1]
        self.device, self.dtype = net.no_memory_embedding.device, net.no_memory_embedding.dtype
        at = {"device": self.device, "dtype": self.dtype}
        mean, std = (torch.tensor(v, **at).view(3, 1, 1) for v in (MEAN, STD))
        self._scale, self._shift = 1 / (255 * std), mean / std
        encoding = net.memory_encoder.position_encoding
        shape = torch.Size((1, net.hidden_dim, *grid))
        how = net.hidden_dim // 2, True, encoding.scale
        around = encoding.build_sine_position_embedding(shape, self.device, self.dtype, *how)
        self._position = around[0].flatten(1).T
        self._settle(grid[0] * 4)
        self._spatial_positions = encoding((1, net.mem_dim, *grid), self.device, self.dtype)[0].flatten(1).T
        self._image_positions = net.get_image_wide_positional_embeddings().to(self.dtype)
        self.renew()

    def _settle(self, cells: int) -> None:
        freeze_position_encodings(self.net.vision_encoder, cells)

    # -- the propagator

    @wrap_inference
    def encode(self, frames: Sequence[Frame]) -> list[Sam2Features]:
        """The image encoder, one frame at a time."""
        return [self._encode(frame) for frame in frames]

    def empty(self) -> Sam2Memory:
        """The memory of no object."""
        return Sam2Memory()

    @wrap_inference
    def predict(self, memory: Sam2Memory, features: Sam2Features) -> Prediction:
        """Three hypotheses of every remembered object; tokens are the object pointers they would leave."""
        readings = {id: self.policy.read(bank) for id, bank in memory.banks.items()}
        rows: dict[int, tuple[Tensor, ...]] = {}
        if not readings:
            return self._prediction((), [])
        look = self._look(features)

        def answers(ids: list[int]) -> tuple[Tensor, ...]:
            conditioned = self._conditioned(features, look, [readings[id] for id in ids])
            return self._decoded(features, conditioned, *self._unasked, several=True)

        groups = list(self._groups(readings))
        for ids, answer in zip(groups, self._each(answers, groups), strict=True):
            rows |= dict(zip(ids, zip(*answer, strict=True), strict=True))
        return self._prediction(tuple(memory.banks), [rows[id] for id in memory.banks])

    @wrap_inference
    def commit(self, memory: Sam2Memory, features: Sam2Features, belief: Prediction) -> Sam2Memory:
        """Ends a frame: the `memory` with each object's best hypothesis in the `belief`, encoded with the `features` of
        the frame; time goes on for all objects.
        """
        best = belief.best
        banks = {id: replace(bank, now=bank.now + 1, logits=None) for id, bank in memory.banks.items()}
        assert best.tokens is not None
        entries = self._entries(features, best, {id: memory.banks[id].now for id in best.ids}, binary=False)
        for row, (id, entry) in enumerate(zip(best.ids, entries, strict=True)):
            if isinstance(self.policy, MarkingPolicy):
                order = belief.quality[row].argsort(descending=True, stable=True)
                entry = self.policy.mark(memory.banks[id], entry, belief.logits[row, order])
            recent = (*banks[id].recent, entry)
            banks[id] = self.policy.keep(replace(banks[id], recent=recent, logits=best.logits[row, 0]))
        return Sam2Memory(banks)

    @wrap_inference
    def prompt(
        self, memory: Sam2Memory, features: Sam2Features, prompts: Mapping[int, Prompt]
    ) -> tuple[Sam2Memory, Prediction]:
        """Makes the frame of `features` a conditioning frame in the `memory` of each object of `prompts`, {id: mask,
        box or clicks}. Gives the new memory, and the masks at the frame's own size.
        """
        banks = {id: memory.banks.get(id, MemoryBank(now=1)) for id in prompts}
        given = {id: p for id, p in prompts.items() if isinstance(p, Tensor)}
        answers = [self._given(features, given)] if given else []
        answers += [self._clicked(features, id, p, banks[id]) for id, p in prompts.items() if not isinstance(p, Tensor)]
        for answer in answers:
            entries = self._entries(features, answer, {id: banks[id].now - 1 for id in answer.ids}, self.postprocess)
            for row, (id, entry) in enumerate(zip(answer.ids, entries, strict=True)):
                banks[id] = banks[id].with_prompt(entry, answer.logits[row, 0], self.prompts)
        return Sam2Memory({**memory.banks, **banks}), resize_answers(answers, given, tuple(prompts), features.size)

    def forget(self, memory: Sam2Memory, ids: Iterable[int]) -> Sam2Memory:
        """The memory without these objects."""
        gone = set(ids)
        return Sam2Memory({id: bank for id, bank in memory.banks.items() if id not in gone})

    def branch(self, memory: Sam2Memory, origins: Mapping[int, int]) -> Sam2Memory:
        """The memory of the objects {new id: old id} alone."""
        return Sam2Memory({new: memory.banks[old] for new, old in origins.items()})

    # -- the networks

    def pixels(self, frame: Frame) -> Float[Tensor, "1 3 s s"]:
        """SAM 2's input: squeezed into a square, bicubic as Pillow does it."""
        square = np.array(Image.fromarray(frame.image).resize((self.side, self.side), Image.Resampling.BICUBIC))
        image = torch.from_numpy(square).to(self.device).permute(2, 0, 1).to(self.dtype)
        return (image * self._scale - self._shift)[None]

    def _encode(self, frame: Frame) -> Sam2Features:
        fine, medium, coarse = self.net.vision_encoder(self.pixels(frame)).fpn_hidden_states
        decoder = self.net.mask_decoder
        return Sam2Features(decoder.conv_s0(fine)[0], decoder.conv_s1(medium)[0], coarse[0], frame.size)

    def _look(self, features: Sam2Features) -> Float[Tensor, "1 p c"]:
        return self._attend.look(features.coarse.flatten(1).T + 0.1 * self._position)

    def _conditioned(
        self, features: Sam2Features, look: Float[Tensor, "1 p c"], readings: Sequence[MemoryReading]
    ) -> Float[Tensor, "b c h w"]:
        """The frame, conditioned on the memory of each object; the readings are of one shape."""
        read = [self._read(reading) for reading in readings]
        keys, values = (torch.stack(x) for x in zip(*read, strict=True))
        tokens = self._attend(look, keys, values, len(readings[0].pointers) * self._splits)
        return tokens.transpose(1, 2).reshape(len(readings), *features.coarse.shape)

    @property
    def _splits(self) -> int:
        """Tokens that a pointer is cut into."""
        return int(self.net.hidden_dim // self.net.mem_dim)

    def _read(self, reading: MemoryReading) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d"]]:
        """A bank's reading as keys and values of memory attention."""
        frames = torch.stack([e.spatial for e in reading.frames if e.spatial is not None]).to(self.dtype)
        frame_keys = frames + self._memory_positions[list(reading.ranks)]
        if reading.frame_weights is not None:
            frame_keys = frame_keys * self._tensor(reading.frame_weights)[:, None, None]
        if not reading.pointers:
            return frame_keys.flatten(0, 1), frames.flatten(0, 1)
        pointers = torch.stack([e.pointer for e in reading.pointers])
        tokens = pointers.reshape(len(pointers), self._splits, -1)
        pointer_keys = tokens + self._when(reading.distances)[:, None]
        if reading.pointer_weights is not None:
            pointer_keys = pointer_keys * self._tensor(reading.pointer_weights)[:, None, None]
        keys = torch.cat([frame_keys.flatten(0, 1), pointer_keys.flatten(0, 1)])
        return keys, torch.cat([frames.flatten(0, 1), tokens.flatten(0, 1)])

    def _tensor(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=self.device, dtype=self.dtype)

    def _when(self, distances: Sequence[float]) -> Float[Tensor, "n d"]:
        """Encodings of how long ago the pointers are from."""
        if not self.net.config.enable_temporal_pos_encoding_for_object_pointers:
            return torch.zeros(len(distances), self.net.mem_dim, device=self.device, dtype=self.dtype)
        encoded = encode_sines(torch.tensor(distances, device=self.device), self.net.hidden_dim)
        when: Tensor = self.net.temporal_positional_encoding_projection_layer(encoded.to(self.dtype))
        return when

    def _asked(self, points: Sequence[tuple[float, float]], labels: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Tokens of points (in the network's pixels; 1 inside, 0 outside, 2 and 3 a box's corners), and no mask."""
        coords = torch.tensor(points or [(0.0, 0.0)], device=self.device, dtype=self.dtype)
        marks = torch.tensor(labels or [-1], device=self.device, dtype=torch.int32)
        sparse, dense = self.net.prompt_encoder(coords[None, None], marks[None, None], None, None)
        return sparse, dense

    def _decoded(
        self,
        features: Sam2Features,
        conditioned: Float[Tensor, "b c h w"],
        sparse: Float[Tensor, "1 1 s c"],
        dense: Float[Tensor, "#b c h w"],
        *,
        several: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The mask decoder: logits [b k h w], predicted mask IoU [b k], object score [b k], object pointers [b k c]."""
        self.net.mask_decoder.dynamic_multimask_via_stability = self.postprocess  # the network may be shared
        logits, quality, tokens, presence = self.net.mask_decoder(
            image_embeddings=conditioned,
            image_positional_embeddings=self._image_positions,
            sparse_prompt_embeddings=sparse.expand(len(conditioned), -1, -1, -1),
            dense_prompt_embeddings=dense,
            multimask_output=several,
            high_resolution_features=[features.fine[None], features.medium[None]],
        )
        there = presence[:, 0] > 0
        pointers = torch.where(
            there[:, :, None], self.net.object_pointer_proj(tokens[:, 0]), self.net.no_object_pointer
        )
        shown = there | self.gradients
        logits = torch.where(shown[:, :, None, None], logits[:, 0], ABSENT)
        return logits, quality[:, 0], presence[:, 0].expand(-1, quality.shape[2]), pointers

    def _prediction(self, ids: tuple[int, ...], rows: Sequence[tuple[Tensor, ...]]) -> Prediction:
        """Beliefs leave the device, pointers stay."""
        if not rows:
            side, c = self.side // 4, self.net.hidden_dim
            none = torch.zeros(0, 3)
            return Prediction(ids, torch.zeros(0, 3, side, side), none, none, torch.zeros(0, 3, c))
        logits, quality, presence, tokens = (torch.stack(x) for x in zip(*rows, strict=True))
        return Prediction(ids, logits.float().cpu(), quality.float().cpu(), presence.float().cpu(), tokens)

    def _given(self, features: Sam2Features, masks: Mapping[int, Bool[Tensor, "y x"]]) -> Prediction:
        """Given masks are believed as they are; only their pointers come from the network."""
        squares = torch.stack([resize_mask_to_square(mask, self.side) for mask in masks.values()]).to(
            self.device, self.dtype
        )
        seen = squares.flatten(1).any(1)
        dense = self.net.prompt_encoder.mask_embed(self.net.mask_downsample(squares))
        coarse = features.coarse[None].expand(len(squares), -1, -1, -1)
        *_, pointers = self._decoded(features, coarse, self._unasked[0], dense, several=False)
        pointers = torch.where(seen[:, None, None], pointers, self.net.no_object_pointer)
        sure = nnf.interpolate(
            squares.float() * 2 * SURE - SURE, (self.side // 4,) * 2, mode="bilinear", antialias=True
        )
        presence = (seen.float() * 2 * SURE - SURE).cpu()[:, None]
        return Prediction(tuple(masks), sure.cpu(), torch.ones_like(presence), presence, pointers)

    def _clicked(self, features: Sam2Features, id: int, prompt: Box | Point | Clicks, bank: MemoryBank) -> Prediction:
        """The decoder's answer to clicks and boxes, in the light of what is remembered and was answered before."""
        points, labels = encode_prompt_points(prompt, features.size, self.side)
        reading = self.policy.read(bank.before(bank.now - 1))
        conditioned = features.coarse[None] + self.net.no_memory_embedding.view(1, -1, 1, 1)
        if reading.frames:
            conditioned = self._conditioned(features, self._look(features), [reading])
        sparse, dense = self._asked(points, labels)
        if bank.logits is not None:
            earlier = bank.logits.to(self.device, self.dtype).clamp(-STEEPEST, STEEPEST)
            dense = self.net.prompt_encoder.mask_embed(earlier[None, None])
        answer = self._decoded(features, conditioned, sparse, dense, several=len(labels) < 2)
        return self._prediction((id,), [tuple(x[0] for x in answer)]).best

    def _entries(
        self, features: Sam2Features, answer: Prediction, times: Mapping[int, int], binary: bool
    ) -> list[MemoryEntry]:
        """The memory encoder: what is remembered of each object in this frame."""

        def remembered(rows: list[int]) -> Tensor:
            return self._remembered(features, answer.only(rows), binary)

        spatial = [m for part in self._each(remembered, self._split(range(len(answer.ids)))) for m in part]
        assert answer.tokens is not None
        quality, presence = (scores[:, 0].tolist() for scores in (answer.quality, answer.presence))
        found = zip(answer.ids, answer.tokens[:, 0], quality, presence, spatial, strict=True)
        return [MemoryEntry(times[id], pointer, q, p, m) for id, pointer, q, p, m in found]

    def _groups(self, readings: Mapping[int, MemoryReading]) -> Iterator[list[int]]:
        """Ids whose readings have one shape, as many as go through the networks together."""
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        for id, reading in readings.items():
            alike[reading.shape].append(id)
        for ids in alike.values():
            yield from self._split(ids)

    def _split(self, rows: Sequence[int]) -> list[list[int]]:
        """Rows in groups of few sizes: on a GPU for its compiler's sake; a CPU's caches hold one object at a time."""
        rest, groups = list(rows), []
        while rest:
            size = next(b for b in (BATCHES if self.device.type != "cpu" else (1,)) if b <= len(rest))
            groups.append(rest[:size])
            rest = rest[size:]
        return groups

    def _each(self, work: Callable[[G], R], groups: Sequence[G]) -> list[R]:
        """The work of every group, on a CPU side by side."""
        alone = self.device.type != "cpu" or self.gradients
        return [work(group) for group in groups] if alone else run_on_threads(work, groups)

    def _remembered(self, features: Sam2Features, answer: Prediction, binary: bool) -> BFloat16[Tensor, "b p d"]:
        """What is remembered of the best masks."""
        return self._memorised(features, answer, binary).to(torch.bfloat16)

    def _memorised(self, features: Sam2Features, answer: Prediction, binary: bool) -> Float[Tensor, "b p d"]:
        """Spatial memories of the best masks (SAM 2, section 4: memory encoder)."""
        logits = answer.logits.to(self.device, self.dtype)
        large = nnf.interpolate(logits, (self.side,) * 2, mode="bilinear", align_corners=False)
        soft = (large > 0).to(self.dtype) if binary else large.sigmoid()
        encoder, config = self.net.memory_encoder, self.net.config
        marked = encoder.mask_downsampler(soft * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc)
        fused = encoder.memory_fuser(encoder.feature_projection(features.coarse[None]) + marked)
        spatial: Tensor = encoder.projection(fused).flatten(2).transpose(1, 2)
        if self.net.occlusion_spatial_embedding_parameter is not None:
            absent = (answer.presence <= 0).to(self.device, self.dtype)
            spatial = spatial + absent[:, :, None] * self.net.occlusion_spatial_embedding_parameter
        return spatial


def encode_sines(positions: Float[Tensor, " n"], dim: int) -> Float[Tensor, "n d"]:
    """Sine encodings of positions (Vaswani et al. 2017), sines first."""
    steps = torch.arange(dim // 2, device=positions.device) // 2
    angles = positions[:, None] / 10000 ** (4 * steps / dim)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def encode_prompt_points(
    prompt: Box | Point | Clicks, size: tuple[int, int], side: int
) -> tuple[list[tuple[float, float]], list[int]]:
    """A prompt's points as the network takes them, and what they are: 1 inside, 0 outside, 2 and 3 a box's corners.

    The prompt is in pixels of a frame of `size` (h, w), the points are in those of an input of `side` x `side`.
    """
    clicks = Clicks.of(prompt)
    box = clicks.box
    found = [(box.x0, box.y0, 2), (box.x1, box.y1, 3)] if box else []
    found += [(p.x, p.y, int(p.inside)) for p in clicks.points]
    return [(x * side / size[1], y * side / size[0]) for x, y, _ in found], [label for *_, label in found]


def resize_answers(
    answers: Sequence[Prediction], given: Mapping[int, Tensor], ids: tuple[int, ...], size: tuple[int, int]
) -> Prediction:
    """Joins `answers` to prompts, in the order of `ids`, with logits at the frame's `size` (h, w).

    The objects in `given`, {id: mask}, are answered with exactly that mask.
    """
    rows = {id: answer.only([row]) for answer in answers for row, id in enumerate(answer.ids)}
    if not rows:
        return Prediction((), torch.zeros(0, 1, *size), torch.zeros(0, 1), torch.zeros(0, 1))
    logits = [
        given[id].cpu().float() * 2 * SURE - SURE if id in given else resize_bilinear(rows[id].logits[:, 0], size)[0]
        for id in ids
    ]
    quality, presence = (torch.cat([getattr(rows[id], name) for id in ids]) for name in ("quality", "presence"))
    return Prediction(ids, torch.stack(logits)[:, None], quality, presence)


def resize_mask_to_square(mask: Bool[Tensor, "y x"], side: int) -> Bool[Tensor, "1 s s"]:
    """A mask in the network's square; of one too fine for it, what is left most of."""
    shares = nnf.interpolate(mask[None, None].float(), (side, side), mode="bilinear", antialias=True)[0]
    return (shares >= shares.max().clamp(max=0.5)) & (shares > 0)


class UnreadPositions(nn.Module):
    """In the place of position encodings that nobody reads."""

    def forward(self, shape: Sequence[int], device: torch.device, dtype: torch.dtype, mask: None = None) -> Tensor:
        return torch.zeros(0, device=device, dtype=dtype)


def freeze_position_encodings(encoder: Any, cells: int) -> None:
    """Changes an image encoder so that it does not compute anew, for every image, what is the same for all."""
    encoder.neck.position_encoding = UnreadPositions()
    if hasattr(encoder.backbone, "_get_pos_embed"):
        position = encoder.backbone._get_pos_embed((cells, cells))
        encoder.backbone._get_pos_embed = lambda size: position


def set_image_size(net: Any, side: int) -> Any:
    """The network, made to see images of `side` x `side` pixels, a multiple of 32; it was trained at one size."""
    grids = [(side // n,) * 2 for n in (4, 8, 16)]
    net.image_size = net.config.image_size = side
    net.backbone_feature_sizes = net.config.vision_config.backbone_feature_sizes = [list(grid) for grid in grids]
    prompts = net.prompt_encoder
    net.config.prompt_encoder_config.image_size = side
    prompts.image_embedding_size, prompts.mask_input_size, prompts.input_image_size = grids[2], grids[0], side
    net.config.memory_attention_rope_feat_sizes = list(grids[2])
    net.memory_attention.position_ids = net.memory_attention.precompute_positions(net.config)
    return net
