"""XMem (Cheng and Schwing 2022) as DEVA modifies it (Cheng et al. 2023), as a propagator of masks.

Objects exclude each other: at every pixel, one of them or the background has it. What a frame's objects look like is
written into memory every few frames, and whenever masks are given; reading it costs the same for one object as for many
that began together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
import torch.nn.functional as nnf
from jaxtyping import Bool, Float
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.identity_cache import IdentityCache
from masklet.core.instances import Prediction, Prompt
from masklet.core.masks import resize_bilinear
from masklet.models.xmem.memory import (
    DecodedMasks,
    MemoryGroup,
    MemoryLimits,
    MemoryTokens,
    ObjectTrace,
    XmemMemory,
    compute_affinity,
)
from masklet.nn.half_weights import halve_weights
from masklet.nn.parallel import run_on_threads
from masklet.nn.pinned_upload import PinnedUpload
from masklet.nn.xmem import (
    KEY,
    STRIDE,
    VALUE,
    Canvas,
    XmemNet,
    XmemQuery,
    aggregate_probabilities,
    compute_margins,
    scale_up_bilinear,
)
from masklet.weights.reading import FILES, read_tensors
from masklet.weights.store import compute_hash
from masklet.weights.strict import load_exactly

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, RGB in 0 to 1
DRAWN = 5  # bytes of each object's masks, for a pixel of the frame
MAPS = 8  # of an object as the network sees it: probabilities, odds and margins, and those remembered
SURE = 10.0  # logit of a pixel in a given mask, and presence of a given mask that is not empty
BATCH = 8  # objects that go through the networks together on a GPU; a CPU's caches hold one

R = TypeVar("R")
P = ParamSpec("P")


def _wrap_without_gradients(method: Callable[Concatenate[Xmem, P], R]) -> Callable[Concatenate[Xmem, P], R]:
    """Without gradients."""

    @wraps(method)
    def run(self: Xmem, /, *args: P.args, **more: P.kwargs) -> R:
        with torch.no_grad():
            return method(self, *args, **more)

    return run


@dataclass(frozen=True, eq=False)
class XmemFeatures:
    """One frame as the network sees it."""

    image: Float[Tensor, "1 3 y x"]
    skips: tuple[Float[Tensor, "1 512 h8 w8"], Float[Tensor, "1 256 h4 w4"]]  # what the decoder adds
    coarse: Float[Tensor, "1 512 h w"]
    query: XmemQuery
    canvas: Canvas


@dataclass(frozen=True)
class XmemSettings:
    """What can be set of DEVA's network as a propagator."""

    size: int | None = 480  # pixels of the shorter side of what it sees; none: frames stay as they are
    every: int = 5  # frames from one that is remembered to the next
    top_k: int = 30  # tokens of the memory that a cell reads


class Xmem:
    """A propagator with one hypothesis for each object. Logits are at the network's resolution, without its padding:
    by how much an object's log odds are above those of the best other one or the background, so that it has exactly
    the pixels that are above 0. Presence is the greatest of them; quality is the mean probability inside the mask.

    A mask prompt becomes a memory frame of all objects that something is known of in this frame; those that are not
    prompted enter it softly, as they were believed, without what the prompts claim. `commit` remembers the
    probabilities that come in a belief's tokens (its logits only say where the object was held to be), and an object
    that was found and is now said to be absent as an empty mask.
    """

    def __init__(
        self,
        net: XmemNet,
        *,
        size: int | None = 480,
        every: int = 5,
        top_k: int = 30,
        limits: MemoryLimits | None = None,
        weights: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            net: in eval mode; its parameters are laid out anew.
            size: pixels of the shorter side of what the network sees; None: frames stay as they are.
            every: frames from one that is remembered to the next.
            top_k: tokens of the memory that a cell reads.
            limits: how much is remembered; None: XMem's.
            weights: sha256 of the weight file, by name.
        """
        self.net: XmemNet = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # half the time
        self.size, self.every, self.top_k = size, every, top_k
        self.limits, self.weights = limits or MemoryLimits(), weights or {}
        self.device = net.key_proj.key_proj.weight.device
        if self.device.type == "cuda":
            halve_weights(self.net)  # it computes under autocast
        self._upload = PinnedUpload(self.device)
        self._shift, self._scale = (torch.tensor(v, device=self.device).view(1, 3, 1, 1) for v in (MEAN, STD))
        self._predicted: IdentityCache[tuple[XmemMemory, Prediction]] = IdentityCache()  # of what memory, and what

    @property
    def description(self) -> str:
        """Names the propagator and its settings in one line, which is written into a result's provenance."""
        return f"xmem, {self.size or 'full'} px, memory every {self.every}, top {self.top_k}, {self.limits}"

    # -- the propagator

    @_wrap_without_gradients
    def encode(self, frames: Sequence[Frame]) -> list[XmemFeatures]:
        """The image encoder, one frame at a time."""
        return [self._encode(frame) for frame in frames]

    def count_object_bytes(self, size: tuple[int, int]) -> int:
        """About how many bytes each object takes in frames of `size` (h, w) once its memory is full, at the most: as if
        it shared its keys with no other.
        """
        (h, w), (rows, columns) = Canvas.of(size, self.size).outer, size
        cells = h * w // STRIDE**2
        tokens = self.limits.frames * cells + self.limits.long_term
        state = 2 * cells * VALUE + tokens * (VALUE + 2 * KEY + 3)  # sensory; values, keys, counts
        return 4 * (state + MAPS * h * w) + DRAWN * rows * columns

    def empty(self) -> XmemMemory:
        """The memory of no object."""
        return XmemMemory()

    @_wrap_without_gradients
    def predict(self, memory: XmemMemory, features: XmemFeatures) -> Prediction:
        """Every remembered object; tokens are what it leaves for `commit`."""
        ids, canvas = tuple(memory.traces), features.canvas
        if not ids:
            return Prediction((), torch.zeros(0, 1, *canvas.inner), torch.zeros(0, 1), torch.zeros(0, 1))
        readouts, received = self._read(memory, features)
        logits, sensory = self._decode(features, memory, readouts)
        odds = scale_up_bilinear(aggregate_probabilities(logits.sigmoid())[None], 4)[0]
        soft, ahead = odds.softmax(0)[1:], canvas.crop(compute_margins(odds)[1:])
        presence, inside = ahead.amax((1, 2)), ahead > 0
        quality = (canvas.crop(soft) * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
        left = DecodedMasks(sensory, soft, presence, received)
        quality, seen = torch.stack([quality, presence]).cpu()
        belief = Prediction(ids, ahead[:, None], quality[:, None], seen[:, None], left.tokens())
        self._predicted.keep((memory, belief), features)
        return belief

    @_wrap_without_gradients
    def carry(self, masks: Mapping[int, Bool[Tensor, "h w"]], source: XmemFeatures, target: XmemFeatures) -> Prediction:
        """Where the `masks` of the frame `source`, {id: mask}, are in the frame `target`, by a memory of that frame
        alone: as `prompt` and `predict`, without tokens.
        """
        memory, _ = self.prompt(self.empty(), source, masks)
        logits = self._glimpsed(target, memory, self._read(memory, target)[0])
        ahead = target.canvas.crop(
            compute_margins(scale_up_bilinear(aggregate_probabilities(logits.sigmoid())[None], 4)[0])[1:]
        )
        presence = ahead.amax((1, 2))[:, None].cpu()
        return Prediction(tuple(memory.traces), ahead[:, None], torch.ones_like(presence), presence)

    @_wrap_without_gradients
    def commit(self, memory: XmemMemory, features: XmemFeatures, belief: Prediction) -> XmemMemory:
        """Ends a frame: the `memory` with each object's state in the `belief`; time goes on for all objects. When it is
        time, the frame of `features` is remembered too.

        A group is not written while nothing is said of one of its objects: its keys are for all of them.
        """
        passed = XmemMemory(
            {id: replace(t, fresh=False) for id, t in memory.traces.items()},
            tuple(replace(g, since=g.since + 1) for g in memory.groups),
        )
        noted = self._noted(passed, features, belief)
        due = [n for n, g in enumerate(noted.groups) if g.since >= self.every and is_group_complete(g, noted)]
        return self._written(noted, features, due) if due else noted

    @_wrap_without_gradients
    def prompt(
        self, memory: XmemMemory, features: XmemFeatures, prompts: Mapping[int, Prompt]
    ) -> tuple[XmemMemory, Prediction]:
        """Makes the frame of `features` a memory frame of the masks `prompts`, {id: mask}, in place of what `memory`
        held of it; new objects are a group of their own. Gives the new memory, and the masks as they were given.

        Raises InputError where something else than a mask is given.
        """
        given = {id: prompt.to(self.device) for id, prompt in prompts.items() if isinstance(prompt, Tensor)}
        if len(given) < len(prompts):
            raise InputError("this propagator takes masks, not clicks or boxes; use sam2.1-tiny for those")
        if given:
            canvas = features.canvas
            others = [id for id, trace in memory.traces.items() if trace.fresh and id not in given]
            told = canvas.pad(canvas.fit(torch.stack(list(given.values()))).float())
            soft = self._together([memory.traces[id] for id in others], told, canvas)
            memory = self.remember(memory, features, dict(zip((*others, *given), soft, strict=True)))
        return memory, make_given_prediction(given, features.canvas.size)

    @_wrap_without_gradients
    def prompt_soft(
        self, memory: XmemMemory, features: XmemFeatures, masks: Mapping[int, Float[Tensor, "h w"]]
    ) -> XmemMemory:
        """The `memory` with `masks`, {id: probabilities at the frame's size}, as the masks of the frame of `features`
        (DEVA 3.3).
        """
        canvas, soft = features.canvas, torch.stack(list(masks.values())).to(self.device)
        fitted = canvas.pad(soft if canvas.inner == canvas.size else resize_bilinear(soft, canvas.inner))
        return self.remember(memory, features, dict(zip(masks, fitted, strict=True)))

    @_wrap_without_gradients
    def remember(
        self, memory: XmemMemory, features: XmemFeatures, soft: Mapping[int, Float[Tensor, "y x"]]
    ) -> XmemMemory:
        """Writes the frame of `features` into the `memory` with the masks `soft` (0 to 1, of the size of
        `features.image`), in place of what was remembered of it: what `prompt` does when it has fitted its masks and
        found what the other objects leave of theirs.
        """
        before = memory.unwritten or memory
        before = self._caught_up(before, features, [id for id in soft if id in before.traces])
        nothing = features.coarse.new_zeros(VALUE, *features.coarse.shape[2:])
        held = {id: t.sensory for id, t in before.traces.items()}
        new = {
            id: ObjectTrace(held.get(id, nothing), mask, features.canvas.crop(mask) > 0.5) for id, mask in soft.items()
        }
        noted = replace(before, traces={**before.traces, **new})
        return self._written(noted, features, [n for n, g in enumerate(noted.groups) if is_group_complete(g, noted)])

    def forget(self, memory: XmemMemory, ids: Iterable[int]) -> XmemMemory:
        """The memory without these objects."""
        gone = set(ids)
        return memory.branch({id: id for id in memory.traces if id not in gone})

    def branch(self, memory: XmemMemory, origins: Mapping[int, int]) -> XmemMemory:
        """The memory of the objects {new id: old id} alone."""
        return memory.branch(origins)

    # -- what is remembered

    def _noted(self, memory: XmemMemory, features: XmemFeatures, belief: Prediction) -> XmemMemory:
        """The memory with the state that a belief left; nothing is written yet."""
        if not belief.ids:
            return memory
        best = belief.best
        assert best.tokens is not None
        left = DecodedMasks.of(best.tokens, features.canvas.outer)
        denied = ((best.presence[:, 0] <= 0).to(self.device) & (left.presence > 0))[:, None, None]
        soft = left.soft.masked_fill(denied, 0.0)
        inside = best.logits[:, 0].to(self.device) > 0
        traces = {id: ObjectTrace(*own) for id, *own in zip(best.ids, left.sensory, soft, inside, strict=True)}
        received = dict(zip(best.ids, left.received, strict=True))
        groups = []
        for group in memory.groups:
            told = [id for id in group.ids if id in traces]
            unread = not any(memory.traces[id].fresh for id in group.ids)
            groups.append(group.read(received[told[0]][: len(group)]) if told and unread else group)
        return XmemMemory({**memory.traces, **traces}, tuple(groups))

    def _caught_up(self, memory: XmemMemory, features: XmemFeatures, ids: Sequence[int]) -> XmemMemory:
        """With what propagation would have left of these objects in this frame, where `commit` was told nothing."""
        missed = [id for id in ids if not memory.traces[id].fresh]
        if not missed:
            return memory
        # Most often it has just been predicted, and left out because of the prompt: decoding costs most of all.
        last = self._predicted.find(features)
        if last and all(has_same_state(last[0], memory, id) for id in missed):
            belief = last[1]
        else:
            belief = self.predict(memory.branch({id: id for id in missed}), features)
        return self._noted(memory, features, belief.only([belief.ids.index(id) for id in missed]))

    def _together(
        self, others: Sequence[ObjectTrace], told: Float[Tensor, "n y x"], canvas: Canvas
    ) -> Float[Tensor, "m y x"]:
        """Masks that are remembered in a frame with prompts: of the others as believed without what the prompts claim,
        then of the prompts; and all so that they exclude each other.
        """
        if not others and told.sum(0).max() <= 1:
            return told  # nothing to share out: they stay exactly as they are
        free = ~(told > 0).any(0)
        return aggregate_probabilities(torch.cat([*(t.mask[None] * free for t in others), told])).softmax(0)[1:]

    def _written(self, noted: XmemMemory, features: XmemFeatures, due: Sequence[int]) -> XmemMemory:
        """The memory with this frame in some groups, and in a new one of all objects that have none."""
        groups, known = list(noted.groups), {id for g in noted.groups for id in g.ids}
        new = [id for id in noted.traces if id not in known]
        ids = [id for n in due for id in groups[n].ids] + new
        values, traces = self._memorised(features, {id: noted.traces[id] for id in ids})
        for n in due:
            frame = MemoryTokens.of(features.query, {id: values[id] for id in groups[n].ids})
            groups[n] = groups[n].with_frame(frame, self.limits)
        groups += [MemoryGroup((MemoryTokens.of(features.query, {id: values[id] for id in new}),))] if new else []
        return XmemMemory({**noted.traces, **traces}, tuple(groups), noted)

    # -- the networks

    def _half(self) -> AbstractContextManager[None]:
        """bfloat16 in the networks on a GPU; what is remembered and compared is float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def pixels(self, frame: Frame) -> tuple[Float[Tensor, "1 3 y x"], Canvas]:
        """The network's input: normalised, resized, padded; and where the frame lies in it."""
        canvas = Canvas.of(frame.size, self.size)
        image = self._upload(frame.image).permute(2, 0, 1)[None].float()
        image = (image / 255 - self._shift) / self._scale
        if canvas.inner != canvas.size:
            image = nnf.interpolate(image, canvas.inner, mode="bilinear", align_corners=False, antialias=True)
        return canvas.pad(image), canvas

    def _encode(self, frame: Frame) -> XmemFeatures:
        image, canvas = self.pixels(frame)
        with self._half():
            f4, f8, coarse, for_keys = self.net.pixel_encoder(image)
            skips = self.net.mask_decoder.skips(f8, f4)
            query = self.net.key_proj(for_keys)
        return XmemFeatures(image, (skips[0].float(), skips[1].float()), coarse.float(), query, canvas)

    def _read(self, memory: XmemMemory, features: XmemFeatures) -> tuple[dict[int, Tensor], Float[Tensor, "n m"]]:
        """What is read for each object [p v], and what affinity the tokens of its group receive by that."""
        most = max(len(group) for group in memory.groups)
        readouts, received = {}, {}
        for group in memory.groups:
            found = compute_affinity(features.query, group.parts, self.top_k)
            taken = nnf.pad(found.received(len(group)), (0, most - len(group)))
            for id in group.ids:
                readouts[id] = found.of(torch.cat([part.values[id] for part in group.parts]))
                received[id] = taken
        return readouts, torch.stack([received[id] for id in memory.traces])

    def _decode(
        self, features: XmemFeatures, memory: XmemMemory, readouts: Mapping[int, Float[Tensor, "p v"]]
    ) -> tuple[Float[Tensor, "n h4 w4"], Float[Tensor, "n v h w"]]:
        """Logits of every object by itself, at stride 4, and the sensory states after."""

        def decoded(ids: Sequence[int]) -> tuple[Tensor, Tensor]:
            with self._half():
                logits, sensory = self.net.mask_decoder(*self._decodable(features, memory, readouts, ids))
            return logits, sensory

        answers = self._each(decoded, tuple(memory.traces))
        return torch.cat([a[0] for a in answers]), torch.cat([a[1] for a in answers])

    def _glimpsed(
        self, features: XmemFeatures, memory: XmemMemory, readouts: Mapping[int, Float[Tensor, "p v"]]
    ) -> Float[Tensor, "n h4 w4"]:
        """The logits of `_decode` alone."""

        def looked(ids: Sequence[int]) -> Tensor:
            with self._half():
                return self.net.mask_decoder.look(*self._decodable(features, memory, readouts, ids))[0]

        return torch.cat(self._each(looked, tuple(memory.traces)))

    def _decodable(
        self,
        features: XmemFeatures,
        memory: XmemMemory,
        readouts: Mapping[int, Float[Tensor, "p v"]],
        ids: Sequence[int],
    ) -> tuple[Any, ...]:
        """What the decoder is given of some objects."""
        readout = torch.stack([readouts[id].T.reshape(-1, *features.coarse.shape[2:]) for id in ids])
        traces = [memory.traces[id] for id in ids]
        state = torch.stack([t.sensory for t in traces]), torch.stack([t.mask for t in traces])
        return features.coarse, features.skips, readout, *state

    def _memorised(
        self, features: XmemFeatures, traces: Mapping[int, ObjectTrace]
    ) -> tuple[dict[int, Float[Tensor, "p v"]], dict[int, ObjectTrace]]:
        """The values that are remembered of each object, and its trace after the deep update."""

        def encoded(ids: Sequence[int]) -> tuple[Tensor, Tensor]:
            own = [traces[id] for id in ids]
            state = torch.stack([t.mask for t in own]), torch.stack([t.sensory for t in own])
            with self._half():
                values, sensory = self.net.mask_encoder(features.image, features.coarse, *state)
            return values.float().flatten(2).transpose(1, 2).contiguous(), sensory

        answers = self._each(encoded, tuple(traces))
        rows = [row for values, sensory in answers for row in zip(values, sensory, strict=True)]
        held = dict(zip(traces, rows, strict=True))
        after = {id: replace(trace, sensory=held[id][1]) for id, trace in traces.items()}
        return {id: v for id, (v, _) in held.items()}, after

    def _each(self, work: Callable[[Sequence[int]], R], ids: Sequence[int]) -> list[R]:
        """The work of all objects, as many together as a device is good at; on a CPU side by side."""
        if self.device.type == "cpu":
            return run_on_threads(work, [[id] for id in ids])
        return [work(ids[n : n + BATCH]) for n in range(0, len(ids), BATCH)]


def is_group_complete(group: MemoryGroup, memory: XmemMemory) -> bool:
    """Whether something is known of all objects of a group in the last frame."""
    return all(memory.traces[id].fresh for id in group.ids)


def has_same_state(a: XmemMemory, b: XmemMemory, id: int) -> bool:
    """Whether the object `id` has the very same sensory state in the memories `a` and `b`: one was made from the other
    without a change to it. False where `a` does not know the object.
    """
    return id in a.traces and a.traces[id].sensory is b.traces[id].sensory


def make_given_prediction(given: Mapping[int, Bool[Tensor, "y x"]], size: tuple[int, int]) -> Prediction:
    """The belief that holds the `given` masks, {id: mask}, for certain: logits are -`SURE` or `SURE`, quality is 1, an
    empty mask is absent. `size` (h, w) is that of the masks.
    """
    if not given:
        return Prediction((), torch.zeros(0, 1, *size), torch.zeros(0, 1), torch.zeros(0, 1))
    masks = torch.stack(list(given.values())).cpu()
    seen = masks.flatten(1).any(1)[:, None]
    sure = masks.float()[:, None] * 2 * SURE - SURE
    return Prediction(tuple(given), sure, torch.ones(len(given), 1), seen.float() * 2 * SURE - SURE)


def load_xmem(
    path: str | Path, device: str | torch.device = "cpu", size: int | None = 480, every: int = 5, top_k: int = 30
) -> Xmem:
    """The propagator with the weights of the file `path`, DEVA's published .pth or a safetensors file with its keys.

    It computes on `device`; `size`, `every` and `top_k` as in `Xmem`. Raises InputError where the file cannot be read,
    holds more than tensors, or tensors of another network.
    """
    path = Path(path).expanduser()
    if not path.is_file() or path.suffix not in FILES:
        raise InputError(f"{path}: no weight file; XMem's weights are read from one {', '.join(FILES)} file")
    net = build_xmem(read_tensors(path), path)
    return Xmem(net.to(device), size=size, every=every, top_k=top_k, weights={path.name: compute_hash(path).sha256})


def build_xmem(state: Mapping[str, Tensor], path: Path) -> XmemNet:
    """The network with exactly these tensors. Raises InputError where they are not its own."""
    with torch.device("meta"):
        net = XmemNet()
    return load_exactly(net, state, path, "DEVA's propagation network")
