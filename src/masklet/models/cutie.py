"""Cutie (Cheng et al., Putting the Object Back into Video Object Segmentation, CVPR 2024) as a propagator.

The networks are those of the package rf-cutie (MIT, `pip install "masklet[cutie]"`); what is remembered, and when, is
here, as a value: a few memory frames of each group of objects that began together, and of each object its sensory
state, its last mask and the sums that its object memory is averaged from.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.instances import Prediction, Prompt
from masklet.models.xmem.memory import MemoryTokens, compute_affinity
from masklet.models.xmem.propagator import make_given_prediction
from masklet.nn.xmem import Canvas, XmemQuery, aggregate_probabilities, compute_margins
from masklet.weights.reading import FILES, read_tensors
from masklet.weights.store import compute_hash
from masklet.weights.strict import load_exactly

R = TypeVar("R")
T = TypeVar("T")
P = ParamSpec("P")
WIDTH_KEY = "pix_feat_proj.weight"  # its second dimension tells the small network from the base one
CONFIGS = {1024: "base", 256: "small"}  # of rf-cutie, by that dimension
EXTRA = 'Cutie needs the package rf-cutie, which is not installed: pip install "masklet[cutie]"'


def _run_network(method: Callable[Concatenate[Cutie, P], R]) -> Callable[Concatenate[Cutie, P], R]:
    """Without gradients, and without the warnings of torch about the package's way to switch autocast off."""

    @wraps(method)
    def run(self: Cutie, /, *args: P.args, **more: P.kwargs) -> R:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.cuda.amp.autocast.*", category=FutureWarning)
            return method(self, *args, **more)

    return run


@dataclass(frozen=True)
class CutieSettings:
    """What can be set of Cutie; its numbers."""

    size: int | None = 480  # pixels of the shorter side of what it sees; none: frames stay as they are
    every: int = 5  # frames from one that is remembered to the next
    frames: int = 5  # that are remembered of each group of objects, the first one always
    top_k: int = 30  # tokens of the memory that a cell reads


@dataclass(frozen=True, eq=False)
class CutieFeatures:
    """One frame as the network sees it."""

    image: Float[Tensor, "1 3 y x"]
    scales: tuple[Tensor, ...]  # strides 16, 8, 4
    pixels: Float[Tensor, "1 c h w"]
    query: XmemQuery
    canvas: Canvas


@dataclass(frozen=True, eq=False)
class CutieTrace:
    """What is remembered of one object beside its memory frames."""

    sensory: Float[Tensor, "c h w"]
    mask: Float[Tensor, "y x"]  # the last one, soft
    summary: Float[Tensor, "q s"] | None = None  # sums of its object memory, the last channel the weights; None: new


@dataclass(frozen=True, eq=False)
class CutieMemory:
    """The memory of all objects: a value."""

    traces: Mapping[int, CutieTrace] = field(default_factory=dict)
    groups: tuple[tuple[MemoryTokens, ...], ...] = ()  # memory frames, oldest first, of objects that began together
    since: int = 0  # frames since the last one that was remembered
    unwritten: CutieMemory | None = None  # the same, had the last frame not been remembered; None: it was not

    def branch(self, origins: Mapping[int, int]) -> CutieMemory:
        """The memory of some objects alone, {new id: old id}."""
        groups = []
        for frames in self.groups:
            own = {new: old for new, old in origins.items() if old in frames[0].values}
            if own:
                groups.append(tuple(replace(f, values={n: f.values[o] for n, o in own.items()}) for f in frames))
        traces = {new: self.traces[old] for new, old in origins.items()}
        return CutieMemory(traces, tuple(groups), self.since, self.unwritten and self.unwritten.branch(origins))


class Cutie:
    """A propagator with one hypothesis for each object. As with XMem objects exclude each other: logits, at the
    network's resolution, are by how much an object's log odds are above those of the best other one or the background.
    """

    def __init__(
        self,
        net: Any,
        *,
        size: int | None = 480,
        every: int = 5,
        frames: int = 5,
        top_k: int = 30,
        weights: Mapping[str, str] | None = None,
    ) -> None:
        """
        Args:
            net: a `cutie.model.cutie.CUTIE`, in eval mode.
            size, every, frames, top_k: as in `CutieSettings`.
            weights: sha256 of the weight files, by name.
        """
        self.net, self.size, self.every, self.frames, self.top_k = net, size, every, frames, top_k
        self.weights: Mapping[str, str] = weights or {}
        self.device = net.device
        self.description = f"cutie, {size or 'full'} px"

    @_run_network
    def encode(self, frames: Sequence[Frame]) -> list[CutieFeatures]:
        """The image encoder's features of each frame, one by one."""
        return [self._encode(frame) for frame in frames]

    def empty(self) -> CutieMemory:
        """The memory of no object."""
        return CutieMemory()

    @_run_network
    def predict(self, memory: CutieMemory, features: CutieFeatures) -> Prediction:
        """Every remembered object; tokens are the sensory state and the soft mask that it leaves for `commit`."""
        ids, canvas = tuple(memory.traces), features.canvas
        if not ids:
            return Prediction((), torch.zeros(0, 1, *canvas.inner), torch.zeros(0, 1), torch.zeros(0, 1))
        sensory = torch.stack([t.sensory for t in memory.traces.values()])[None]
        readout = self._read(memory, features)
        state, odds, soft = self.net.segment(features.scales, torch.stack([readout[id] for id in ids])[None], sensory)
        ahead = canvas.crop(compute_margins(odds[0])[1:])
        presence, inside = ahead.amax((1, 2)), ahead > 0
        quality = (canvas.crop(soft[0, 1:]) * inside).sum((1, 2)) / inside.sum((1, 2)).clamp(min=1)
        left = torch.cat([state[0].flatten(1), soft[0, 1:].flatten(1), presence[:, None]], 1)[:, None]
        return Prediction(ids, ahead.cpu()[:, None], quality.cpu()[:, None], presence.cpu()[:, None], left)

    @_run_network
    def commit(self, memory: CutieMemory, features: CutieFeatures, belief: Prediction) -> CutieMemory:
        """Ends a frame: the `memory` with what the `belief` left of each object; when it is time, the frame of
        `features` is remembered too. What the belief denies is remembered as absent.
        """
        noted = self._note(replace(memory, since=memory.since + 1, unwritten=None), features, belief)
        return self._write(noted, features) if noted.traces and noted.since >= self.every else noted

    @_run_network
    def prompt(
        self, memory: CutieMemory, features: CutieFeatures, prompts: Mapping[int, Prompt]
    ) -> tuple[CutieMemory, Prediction]:
        """Makes the frame of `features` a memory frame of the masks `prompts`, {id: mask}, in place of what `memory`
        held of it; the other objects enter it as they were believed, without what the prompts claim.

        Raises InputError where something else than a mask is given.
        """
        given = {id: prompt.to(self.device) for id, prompt in prompts.items() if isinstance(prompt, Tensor)}
        if len(given) < len(prompts):
            raise InputError("cutie takes masks, not clicks or boxes; use nano or sam2.1-tiny for those")
        if not given:
            return memory, make_given_prediction({}, features.canvas.size)
        before, canvas = memory.unwritten or memory, features.canvas
        told = dict(zip(given, canvas.pad(canvas.fit(torch.stack(list(given.values()))).float()), strict=True))
        free = ~(torch.stack(list(told.values())) > 0).any(0)
        others = {id: trace.mask * free for id, trace in before.traces.items() if id not in told}
        masks = {**others, **told}
        soft = aggregate_probabilities(torch.stack(list(masks.values()))).softmax(0)[1:]
        nothing = features.pixels.new_zeros(self.net.sensory_dim, *features.pixels.shape[2:])
        traces = {
            id: replace(before.traces[id], mask=mask) if id in before.traces else CutieTrace(nothing, mask)
            for id, mask in zip(masks, soft, strict=True)
        }
        ordered = {id: traces[id] for id in (*before.traces, *(id for id in told if id not in before.traces))}
        noted = replace(before, traces=ordered, unwritten=None)
        return self._write(noted, features), make_given_prediction(given, canvas.size)

    def forget(self, memory: CutieMemory, ids: Iterable[int]) -> CutieMemory:
        """The memory without these objects."""
        gone = set(ids)
        return memory.branch({id: id for id in memory.traces if id not in gone})

    def branch(self, memory: CutieMemory, origins: Mapping[int, int]) -> CutieMemory:
        """The memory of the objects {new id: old id} alone."""
        return memory.branch(origins)

    def count_object_bytes(self, size: tuple[int, int]) -> int:
        """About how many bytes each object takes while frames of `size` (h, w) are propagated, at the most."""
        h, w = Canvas.of(size, self.size).outer
        cells = (h // 16) * (w // 16)
        return int(4 * (cells * (self.frames * self.net.value_dim + 4 * self.net.sensory_dim) + 6 * h * w))

    # -- within

    def _encode(self, frame: Frame) -> CutieFeatures:
        canvas = Canvas.of(frame.size, self.size)
        image = torch.from_numpy(frame.image).to(self.device).permute(2, 0, 1)[None].float() / 255
        if canvas.inner != canvas.size:
            image = torch.nn.functional.interpolate(
                image, canvas.inner, mode="bilinear", align_corners=False, antialias=True
            )
        image = canvas.pad(image)
        scales, pixels = self.net.encode_image(image)
        key, shrinkage, selection = self.net.transform_key(scales[0])
        keys, chosen = (x[0].flatten(1).T.contiguous() for x in (key, selection))
        query = XmemQuery(keys, shrinkage.flatten(), chosen)
        return CutieFeatures(image, tuple(scales), pixels, query, canvas)

    def _read(self, memory: CutieMemory, features: CutieFeatures) -> dict[int, Float[Tensor, "c h w"]]:
        """What each object's memory says of this frame, group by group."""
        found: dict[int, Tensor] = {}
        for frames in memory.groups:
            ids, affinity = tuple(frames[0].values), compute_affinity(features.query, frames, self.top_k)
            shape = features.pixels.shape[2:]
            seen = [affinity.of(torch.cat([f.values[id] for f in frames])).T.reshape(-1, *shape) for id in ids]
            traces = [memory.traces[id] for id in ids]
            sensory, masks = (torch.stack([getattr(t, part) for t in traces])[None] for part in ("sensory", "mask"))
            fused = self.net.pixel_fusion(features.pixels, torch.stack(seen)[None], sensory, masks)
            summaries = torch.stack([t.summary for t in traces if t.summary is not None])[None, :, None]
            readout, _ = self.net.readout_query(fused, summaries)
            found |= dict(zip(ids, readout[0], strict=True))
        return found

    def _note(self, memory: CutieMemory, features: CutieFeatures, belief: Prediction) -> CutieMemory:
        """The memory with the state that a belief left; nothing is written yet."""
        if not belief.ids:
            return memory
        best = belief.best
        assert best.tokens is not None
        outer, shape = features.canvas.outer, features.pixels.shape[2:]
        whole = [self.net.sensory_dim * shape.numel(), outer[0] * outer[1], 1]
        state, soft, presence = torch.split(best.tokens[:, 0], whole, 1)
        denied = ((best.presence[:, :1] <= 0).to(self.device) & (presence > 0))[:, :, None]  # by who holds the belief
        masks = soft.reshape(-1, *outer).masked_fill(denied, 0.0)
        traces = dict(memory.traces)
        for id, own, mask in zip(best.ids, state.reshape(len(best.ids), -1, *shape), masks, strict=True):
            traces[id] = replace(traces[id], sensory=own, mask=mask)
        return replace(memory, traces=traces)

    def _write(self, noted: CutieMemory, features: CutieFeatures) -> CutieMemory:
        """The memory with this frame remembered of all objects; those that are new are a group."""
        ids, traces = tuple(noted.traces), list(noted.traces.values())
        sensory, masks = (torch.stack([getattr(t, part) for t in traces])[None] for part in ("sensory", "mask"))
        values, state, summaries, _ = self.net.encode_mask(features.image, features.pixels, sensory, masks)
        tokens = dict(zip(ids, values[0].flatten(2).transpose(1, 2).contiguous(), strict=True))
        known = [tuple(frames[0].values) for frames in noted.groups]
        new = tuple(id for id in ids if not any(id in group for group in known))
        groups = [
            keep_recent((*frames, MemoryTokens.of(features.query, {id: tokens[id] for id in group})), self.frames)
            for frames, group in zip(noted.groups, known, strict=True)
        ]
        groups += [(MemoryTokens.of(features.query, {id: tokens[id] for id in new}),)] if new else []
        after = {
            id: replace(trace, sensory=own, summary=sums if trace.summary is None else trace.summary + sums)
            for (id, trace), own, sums in zip(noted.traces.items(), state[0], summaries[0], strict=True)
        }
        return CutieMemory(after, tuple(groups), 0, noted)


def keep_recent(frames: tuple[T, ...], most: int) -> tuple[T, ...]:
    """The first frame, which is never forgotten, and the last of the others, so that there are at most `most`."""
    return (frames[0], *frames[1:][-(most - 1) :]) if most > 1 else frames[:1]


def load_cutie(path: str | Path, device: str | torch.device = "cpu", **settings: Any) -> Cutie:
    """Cutie with the weights of a file, base or small.

    Args:
        path: of the published .pth, or a safetensors file with its keys.
        device: where it computes.
        settings: as in `CutieSettings`.

    Raises:
        InputError: the package or the file is not there, or the file holds something else than Cutie's tensors.
    """
    path = Path(path).expanduser()
    if not path.is_file() or path.suffix not in FILES:
        raise InputError(f"{path}: no weight file; Cutie's weights are read from one {', '.join(FILES)} file")
    net = build_cutie(read_tensors(path), path)
    return Cutie(net.to(device), weights={path.name: compute_hash(path).sha256}, **settings)


def build_cutie(state: Mapping[str, Tensor], path: Path) -> Any:
    """The network with exactly these tensors. Raises InputError where they are not its own."""
    width = state[WIDTH_KEY].shape[1] if WIDTH_KEY in state and state[WIDTH_KEY].ndim == 4 else 0
    if width not in CONFIGS:
        raise InputError(f"{path}: not the weights of a Cutie; take cutie-base-mega.pth or cutie-small-mega.pth")
    with torch.device("meta"):
        net = create_cutie(CONFIGS[width])
    made = load_exactly(net, state, path, "Cutie")
    for name, values in (("pixel_mean", made.cfg.model.pixel_mean), ("pixel_std", made.cfg.model.pixel_std)):
        made.register_buffer(name, torch.tensor(list(values)).view(-1, 1, 1), persistent=False)
    return made


def create_cutie(kind: str) -> Any:
    """A network of random weights, "base" or "small". Raises InputError where rf-cutie is not installed."""
    try:
        import cutie
        from cutie.model.cutie import CUTIE
        from cutie.model.utils import resnet
        from omegaconf import OmegaConf
    except ImportError:
        raise InputError(EXTRA) from None
    folder = Path(cutie.__path__[0]) / "config" / "model"
    model: Any = OmegaConf.load(folder / "base.yaml")
    if kind != "base":
        model = OmegaConf.merge(model, {"pixel_encoder": OmegaConf.load(folder / f"{kind}.yaml").pixel_encoder})
    with _withhold_pretrained_weights(resnet):
        return CUTIE(OmegaConf.create({"model": model}))


@contextmanager
def _withhold_pretrained_weights(resnet: Any) -> Iterator[None]:
    """Within it the package makes networks without fetching ImageNet's weights, which ours take the place of."""
    before = resnet.model_zoo, resnet.load_weights_add_extra_dim
    resnet.model_zoo = SimpleNamespace(load_url=lambda *_, **__: {})
    resnet.load_weights_add_extra_dim = lambda *_: None
    try:
        yield
    finally:
        resnet.model_zoo, resnet.load_weights_add_extra_dim = before
