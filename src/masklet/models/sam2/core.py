"""What SAM 2 computes of the objects of a frame (Ravi et al. 2024), over the networks of transformers and nano's own.

The networks are given, all that is around them is ours: objects in batches, and where transformers' session
does otherwise, what the official code does. Who holds a core says what is read of a memory and what becomes of an
answer: the propagators of SAM 2, EdgeTAM and nano, and the image model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, runtime_checkable

import torch
import torch.nn.functional as nnf
from jaxtyping import BFloat16, Bool, Float, Int
from torch import Tensor

from masklet.core.instances import Box, Clicks, Point, Prediction
from masklet.models.sam2.memory import POINTERS, SPATIAL, MemoryEntry, MemoryReading
from masklet.nn.memory_attention import MemoryAttention
from masklet.nn.memory_encoder import encode_grid
from masklet.nn.parallel import run_on_threads

ABSENT = -1024.0  # logit of every pixel of an object that is not in the frame
SURE = 10.0  # logit of a pixel in a given mask; also the object score of a given mask that is not empty
STEEPEST = 32.0  # logits of an earlier answer are held within this when clicks refine it
BATCHES = (16, 8, 4, 2, 1)  # objects that go through the networks together on a GPU


@runtime_checkable
class InferenceSettings(Protocol):
    """Where and how something computes."""

    device: torch.device
    half: bool  # in bfloat16, under autocast
    gradients: bool  # for training: gradients flow


@runtime_checkable
class FrameAttention(Protocol):
    """Memory attention, as `MemoryAttention` has it or compiled."""

    @property
    def look(self) -> Callable[[Tensor], Tensor]: ...
    def __call__(self, look: Tensor, keys: Tensor, values: Tensor, pointers: int, /) -> Tensor:
        """The frame's tokens conditioned on each object's memory."""
        ...


G = TypeVar("G")
R = TypeVar("R")
S = TypeVar("S", bound=InferenceSettings)
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


class Sam2Core:
    """SAM 2's memory attention, mask decoder and memory encoder. Nothing of a video is held.

    `side` is that of the network's square input in pixels, `mask_side` that of its logits, four to a patch.
    `unprompted` are the sparse and dense tokens of a prompt that says nothing. Whoever calls decides on gradients and
    autocast (`wrap_inference`).
    """

    def __init__(
        self, net: Any, *, postprocess: bool = True, gradients: bool = False, cpu_batches: Sequence[int] = (1,)
    ) -> None:
        """
        Args:
            net: a `Sam2VideoModel` of transformers, or nano's network, in eval mode.
            postprocess: a single mask that is not stable gives way to the best of three.
            gradients: for training: `decode` answers masks whatever the object score.
            cpu_batches: objects that go through the networks together on a CPU, the most first; a large network fills
                its caches with one.
        """
        self.net, self.postprocess, self.gradients = net, postprocess, gradients
        self.device: torch.device = net.no_memory_embedding.device
        self.batches = BATCHES if self.device.type != "cpu" else cpu_batches
        self.dtype: torch.dtype = net.no_memory_embedding.dtype
        self.half = self.device.type == "cuda"
        self.side = int(net.image_size)
        self.mask_side = 4 * int(net.backbone_feature_sizes[-1][0])
        self.attention: FrameAttention = self.build_attention()
        with torch.no_grad():
            self._frame_positions = self._encode_cells(self.net.hidden_dim)  # for memory attention
            self._image_positions = self.encode_image_positions()
            self._token_positions = self.encode_token_positions()
            self.renew()

    def build_attention(self) -> MemoryAttention:
        """The network's memory attention, for several objects at once."""
        return MemoryAttention(self.net.memory_attention)

    # -- what does not depend on the video

    def renew(self) -> None:
        """Computes anew what depends on the weights alone, after they have changed."""
        temporal = self.net.memory_temporal_positional_encoding.view(-1, 1, self.net.mem_dim).roll(1, 0)
        # Of the tokens of a remembered frame. Row 0: a conditioning frame; row n: n frames ago.
        self._memory_positions: Float[Tensor, "n p d"] = self._token_positions + temporal
        self.unprompted = self.encode_prompt([], [])

    def encode_token_positions(self) -> Float[Tensor, "p d"]:
        """Where in its frame each token of a spatial memory is."""
        return self._encode_cells(self.net.mem_dim)

    def encode_image_positions(self) -> Float[Tensor, "1 c h w"]:
        """Where each cell of the coarse features is, for the mask decoder."""
        positions: Tensor = self.net.get_image_wide_positional_embeddings().to(self.dtype)
        return positions

    def _encode_cells(self, channels: int) -> Float[Tensor, "p d"]:
        """Where in its frame each cell of the coarse features is."""
        return encode_grid(channels, *self.net.backbone_feature_sizes[-1]).to(self.device, self.dtype)

    def count_bank_bytes(self, prompts: int) -> int:
        """How many bytes the memories of one object take at most, so many `prompts` of them of conditioning frames."""
        spatial, pointers = prompts + SPATIAL + 2, prompts + POINTERS + 1
        return spatial * self._token_positions.numel() * 2 + pointers * int(self.net.hidden_dim) * 4

    # -- memory attention

    def look_around(self, features: Sam2Features) -> Float[Tensor, "1 p c"]:
        """What `attend` needs of a frame for all objects: its tokens, after looking at each other."""
        return self.attention.look(features.coarse.flatten(1).T + 0.1 * self._frame_positions)

    def attend(
        self, features: Sam2Features, look: Float[Tensor, "1 p c"], readings: Sequence[MemoryReading]
    ) -> Float[Tensor, "b c h w"]:
        """The coarse features, conditioned on the memory of each object.

        Args:
            features: of the frame.
            look: of the frame, by `look_around`.
            readings: what is read of each object's memory; of one shape (`MemoryReading.shape`), and with frames.
        """
        read = [self.embed_reading(reading) for reading in readings]
        keys, values = (torch.stack(x) for x in zip(*read, strict=True))
        tokens = self.attention(look, keys, values, len(readings[0].pointers) * self._splits)
        return tokens.transpose(1, 2).reshape(len(readings), *features.coarse.shape)

    def attend_nothing(self, features: Sam2Features) -> Float[Tensor, "1 c h w"]:
        """The coarse features where nothing is remembered."""
        conditioned: Tensor = features.coarse[None] + self.net.no_memory_embedding.view(1, -1, 1, 1)
        return conditioned

    def embed_reading(self, reading: MemoryReading) -> tuple[Float[Tensor, "m d"], Float[Tensor, "m d"]]:
        """Keys and values of memory attention: the tokens of the frames that are read, then those of the pointers."""
        frames = torch.stack([e.spatial for e in reading.frames if e.spatial is not None]).to(self.dtype)
        frame_keys = self._weigh(frames + self._memory_positions[list(reading.ranks)], reading.frame_weights)
        if not reading.pointers:
            return frame_keys.flatten(0, 1), frames.flatten(0, 1)
        pointers = torch.stack([e.pointer for e in reading.pointers])
        tokens = pointers.reshape(len(pointers), self._splits, -1)
        pointer_keys = self._weigh(tokens + self._encode_distances(reading.distances)[:, None], reading.pointer_weights)
        keys = torch.cat([frame_keys.flatten(0, 1), pointer_keys.flatten(0, 1)])
        return keys, torch.cat([frames.flatten(0, 1), tokens.flatten(0, 1)])

    @property
    def _splits(self) -> int:
        """Tokens that a pointer is cut into."""
        return int(self.net.hidden_dim // self.net.mem_dim)

    def _weigh(self, keys: Float[Tensor, "n t d"], factors: Sequence[float] | None) -> Float[Tensor, "n t d"]:
        """Each entry's keys times its factor; None: 1."""
        if factors is None:
            return keys
        return keys * torch.tensor(factors, device=self.device, dtype=self.dtype)[:, None, None]

    def _encode_distances(self, distances: Sequence[float]) -> Float[Tensor, "n d"]:
        """Encodings of how long ago the pointers are from."""
        if not self.net.config.enable_temporal_pos_encoding_for_object_pointers:
            return torch.zeros(len(distances), self.net.mem_dim, device=self.device, dtype=self.dtype)
        encoded = encode_sines(torch.tensor(distances, device=self.device), self.net.hidden_dim)
        when: Tensor = self.net.temporal_positional_encoding_projection_layer(encoded.to(self.dtype))
        return when

    # -- mask decoder

    def encode_points(
        self, points: Float[Tensor, "b k 2"], labels: Int[Tensor, "b k"]
    ) -> tuple[Float[Tensor, "b 1 s c"], Float[Tensor, "b c h w"]]:
        """Sparse and dense tokens of b prompts without a mask.

        Args:
            points: x and y in the network's pixels.
            labels: what the points are: 1 inside, 0 outside, 2 and 3 a box's corners, -1 no point.
        """
        at, marks = points.to(self.device, self.dtype), labels.to(self.device, torch.int32)
        sparse, dense = self.net.prompt_encoder(at[:, None], marks[:, None], None, None)
        return sparse, dense

    def encode_prompt(
        self, points: Sequence[tuple[float, float]], labels: Sequence[int]
    ) -> tuple[Float[Tensor, "1 1 s c"], Float[Tensor, "1 c h w"]]:
        """Sparse and dense tokens of one prompt, as `encode_points` takes it; it may have no points."""
        at = torch.tensor([points or [(0.0, 0.0)]], dtype=self.dtype)
        return self.encode_points(at, torch.tensor([labels or [-1]]))

    def encode_masks(self, logits: Float[Tensor, "b 1 s s"]) -> Float[Tensor, "b c h w"]:
        """Dense tokens of mask prompts at a quarter of the network's resolution."""
        dense: Tensor = self.net.prompt_encoder.mask_embed(logits)
        return dense

    def shrink_masks(self, squares: Float[Tensor, "b 1 y x"]) -> Float[Tensor, "b 1 s s"]:
        """Given masks in the network's square, as `encode_masks` takes them."""
        small: Tensor = self.net.mask_downsample(squares)
        return small

    def run_decoder(
        self,
        features: Sam2Features,
        conditioned: Float[Tensor, "b c h w"],
        sparse: Float[Tensor, "#b 1 s c"],
        dense: Float[Tensor, "#b c h w"],
        positions: Float[Tensor, "1 c h w"],
        *,
        several: bool,
        hints: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The mask decoder as it is.

        Args:
            features: of the frame.
            conditioned: its coarse features, conditioned on each object's memory.
            sparse: tokens of each object's points.
            dense: tokens of each object's mask prompt.
            positions: `encode_image_positions`.
            several: three hypotheses; else one mask.
            hints: what is added to the frame's fine and medium maps for each object, [b e h4 w4] and [b d h2 w2].

        Returns:
            Logits [b 1 k s s], predicted mask IoU [b 1 k], mask tokens [b 1 k c] and object score [b 1 1].
        """
        maps = [features.fine[None], features.medium[None]]
        self.net.mask_decoder.dynamic_multimask_via_stability = self.postprocess  # the network may be shared
        answer: tuple[Tensor, Tensor, Tensor, Tensor] = self.net.mask_decoder(
            image_embeddings=conditioned,
            image_positional_embeddings=positions,
            sparse_prompt_embeddings=sparse.expand(len(conditioned), -1, -1, -1),
            dense_prompt_embeddings=dense,
            multimask_output=several,
            high_resolution_features=[m + hint for m, hint in zip(maps, hints, strict=True)] if hints else maps,
        )
        return answer

    def decode(
        self,
        features: Sam2Features,
        conditioned: Float[Tensor, "b c h w"],
        sparse: Float[Tensor, "#b 1 s c"],
        dense: Float[Tensor, "#b c h w"],
        *,
        several: bool,
        hints: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The mask decoder's answers (arguments as for `run_decoder`), without a mask where the object score says that
        there is no object: logits [b k s s], predicted mask IoU [b k], object score [b k] and object pointers [b k c].
        """
        positions = self._image_positions
        decoder = self.run_decoder(features, conditioned, sparse, dense, positions, several=several, hints=hints)
        logits, quality, tokens, presence = (x[:, 0] for x in decoder)
        there = presence > 0
        pointers = torch.where(there[:, :, None], self.net.object_pointer_proj(tokens), self.net.no_object_pointer)
        shown = there | self.gradients
        logits = torch.where(shown[:, :, None, None], logits, ABSENT)
        return logits, quality, presence.expand(-1, quality.shape[1]), pointers

    # -- answers

    def stack_answers(self, ids: tuple[int, ...], rows: Sequence[tuple[Tensor, ...]]) -> Prediction:
        """What `decode` said of each object of `ids`, in that order. Beliefs leave the device, pointers stay."""
        answers = self.join_answers(ids, rows)
        return replace(answers, logits=answers.logits.cpu())

    def join_answers(self, ids: tuple[int, ...], rows: Sequence[tuple[Tensor, ...]]) -> Prediction:
        """The same, but masks stay on the device, too: of each hypothesis two numbers are copied, all at once."""
        if not rows:
            side, c = self.mask_side, self.net.hidden_dim
            none = torch.zeros(0, 3)
            return Prediction(ids, torch.zeros(0, 3, side, side), none, none, torch.zeros(0, 3, c))
        logits, quality, presence, tokens = (torch.stack(x) for x in zip(*rows, strict=True))
        quality, presence = torch.stack([quality, presence]).float().cpu()
        return Prediction(ids, logits.float(), quality, presence, tokens)

    def answer_masks(self, features: Sam2Features, masks: Mapping[int, Bool[Tensor, "y x"]]) -> Prediction:
        """Given masks, {id: mask at the frame's size}, are believed as they are; only their pointers come from the
        network.
        """
        squares = torch.stack([resize_mask_to_square(mask, self.side) for mask in masks.values()]).to(
            self.device, self.dtype
        )
        seen = squares.flatten(1).any(1)
        dense = self.encode_masks(self.shrink_masks(squares))
        coarse = features.coarse[None].expand(len(squares), -1, -1, -1)
        *_, pointers = self.decode(features, coarse, self.unprompted[0], dense, several=False)
        pointers = torch.where(seen[:, None, None], pointers, self.net.no_object_pointer)
        sure = nnf.interpolate(
            squares.float() * 2 * SURE - SURE, (self.mask_side,) * 2, mode="bilinear", antialias=True
        )
        presence = (seen.float() * 2 * SURE - SURE).cpu()[:, None]
        return Prediction(tuple(masks), sure, torch.ones_like(presence), presence, pointers)

    def answer_clicks(
        self,
        features: Sam2Features,
        id: int,
        prompt: Box | Point | Clicks,
        reading: MemoryReading,
        earlier: Float[Tensor, "s s"] | None,
    ) -> Prediction:
        """The decoder's best answer to clicks and boxes in a frame.

        Args:
            features: of the frame.
            id: of the object.
            prompt: in the frame's pixels.
            reading: what is read of the object's memory; maybe nothing.
            earlier: logits of the answer that the clicks refine, where there was one.
        """
        points, labels = encode_prompt_points(prompt, features.size, self.side)
        conditioned = self.attend_nothing(features)
        if reading.frames:
            conditioned = self.attend(features, self.look_around(features), [reading])
        sparse, dense = self.encode_prompt(points, labels)
        if earlier is not None:
            held = earlier.to(self.device, self.dtype).clamp(-STEEPEST, STEEPEST)
            dense = self.encode_masks(held[None, None])
        answer = self.decode(features, conditioned, sparse, dense, several=len(labels) < 2)
        return self.stack_answers((id,), [tuple(x[0] for x in answer)]).best

    # -- memory encoder

    def memorise(
        self,
        features: Sam2Features,
        answer: Prediction,
        times: Mapping[int, int],
        binary: bool,
        encoded: Collection[int],
    ) -> list[MemoryEntry]:
        """What is remembered of each object in a frame, in the order of the answer.

        Args:
            features: of the frame.
            answer: one mask for each object.
            times: of the frame on the clock of each object's bank, {id: time}.
            binary: masks are remembered as 0 and 1, not as probabilities.
            encoded: ids of the objects whose spatial memory is encoded; of the others the pointer alone is remembered.
        """
        rows = [row for row, id in enumerate(answer.ids) if id in encoded]

        def remember(rows: list[int]) -> Tensor:
            return self.encode_memories(features, answer.only(rows), binary)

        memories = [m for part in self.run_groups(remember, self.split_rows(rows)) for m in part]
        spatial = dict(zip(rows, memories, strict=True))
        assert answer.tokens is not None
        quality, presence = (scores[:, 0].tolist() for scores in (answer.quality, answer.presence))
        found = zip(answer.ids, answer.tokens[:, 0], quality, presence, strict=True)
        return [MemoryEntry(times[id], pointer, q, p, spatial.get(n)) for n, (id, pointer, q, p) in enumerate(found)]

    def encode_memories(self, features: Sam2Features, answer: Prediction, binary: bool) -> BFloat16[Tensor, "b p d"]:
        """Spatial memories of the answer's masks as they are kept, with arguments as for `memorise`."""
        return self.encode_frame_memories(features, answer, binary).to(torch.bfloat16)

    def encode_frame_memories(self, features: Sam2Features, answer: Prediction, binary: bool) -> Float[Tensor, "b p d"]:
        """Spatial memories with a token for each cell of the frame (SAM 2, section 4: memory encoder)."""
        large = self.enlarge_for_memory(answer.logits.to(self.device, self.dtype))
        soft = (large > 0).to(self.dtype) if binary else large.sigmoid()
        encoder, config = self.net.memory_encoder, self.net.config
        marked = encoder.mask_downsampler(soft * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc)
        fused = encoder.memory_fuser(encoder.feature_projection(features.coarse[None]) + marked)
        spatial: Tensor = encoder.projection(fused).flatten(2).transpose(1, 2)
        if self.net.occlusion_spatial_embedding_parameter is not None:
            absent = (answer.presence <= 0).to(self.device, self.dtype)
            spatial = spatial + absent[:, :, None] * self.net.occlusion_spatial_embedding_parameter
        return spatial

    def enlarge_for_memory(self, logits: Float[Tensor, "b 1 y x"]) -> Float[Tensor, "b 1 m m"]:
        """Mask logits at the size at which the memory encoder takes them: 16 pixels to a cell of the frame."""
        return nnf.interpolate(logits, (self.side,) * 2, mode="bilinear", align_corners=False)

    # -- several objects

    def group_readings(self, readings: Mapping[int, MemoryReading]) -> list[list[int]]:
        """Ids whose readings have one shape, as many as go through the networks together."""
        alike: dict[tuple[int, int], list[int]] = defaultdict(list)
        for id, reading in readings.items():
            alike[reading.shape].append(id)
        return [group for ids in alike.values() for group in self.split_rows(ids)]

    def split_rows(self, rows: Sequence[int]) -> list[list[int]]:
        """Rows in groups of few sizes: on a GPU for its compiler's sake."""
        rest, groups = list(rows), []
        while rest:
            size = next(b for b in self.batches if b <= len(rest))
            groups.append(rest[:size])
            rest = rest[size:]
        return groups

    def run_groups(self, work: Callable[[G], R], groups: Sequence[G]) -> list[R]:
        """The `work` of every group, on a CPU side by side."""
        alone = self.device.type != "cpu" or self.gradients
        return [work(group) for group in groups] if alone else run_on_threads(work, groups)


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


def resize_mask_to_square(mask: Bool[Tensor, "y x"], side: int) -> Bool[Tensor, "1 s s"]:
    """A mask in the network's square; of one too fine for it, what is left most of."""
    shares = nnf.interpolate(mask[None, None].float(), (side, side), mode="bilinear", antialias=True)[0]
    return (shares >= shares.max().clamp(max=0.5)) & (shares > 0)
