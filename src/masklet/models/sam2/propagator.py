"""SAM 2 (Ravi et al. 2024) as a propagator, over the networks of transformers.

What is computed is the core's (`sam2.core`) and the image encoder's (`sam2.image_encoder`); the memory is a bounded
value (`sam2.memory`, `sam2.banks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from masklet.core.frames import Frame, Video
from masklet.core.instances import Prediction, Prompt
from masklet.models.sam2.banks import PROMPTS, commit_best, prompt_banks, weigh_hypotheses
from masklet.models.sam2.core import Sam2Core, Sam2Features, wrap_inference
from masklet.models.sam2.image_encoder import BatchFrameEncoder, FrameEncoder, Sam2ImageEncoder
from masklet.models.sam2.memory import MemoryPolicy, PointingPolicy, RecentFrames, Sam2Memory
from masklet.nn.half_weights import halve_weights
from masklet.nn.mask_decoder import HYPOTHESES

AHEAD = 4  # frames that are encoded together on a GPU
DRAWN = 5  # bytes of each object's masks, for a pixel of the frame


class Sam2:
    """A propagator with three hypotheses for each object. Logits are at a quarter of the network's resolution."""

    name: ClassVar[str] = "sam2"
    core_type: ClassVar[type[Sam2Core]] = Sam2Core

    def __init__(
        self,
        net: Any,
        policy: MemoryPolicy | None = None,
        *,
        postprocess: bool = True,
        prompts: int = PROMPTS,
        weights: Mapping[str, str] | None = None,
        gradients: bool = False,
        images: FrameEncoder | None = None,
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
            images: what encodes frames; None: the network's own image encoder.
        """
        self.core = self.core_type(net, postprocess=postprocess, gradients=gradients)
        self.images = images or Sam2ImageEncoder(net)
        self.net, self.policy, self.prompts, self.weights = net, policy or RecentFrames(), prompts, weights or {}
        self.side, self.device, self.dtype = self.core.side, self.core.device, self.core.dtype
        self.half, self.postprocess, self.gradients = self.core.half, postprocess, gradients
        self._halved = False  # whether the weights are in bfloat16

    @property
    def description(self) -> str:
        """Names the propagator and its settings in one line, which is written into a result's provenance."""
        return f"{self.name}, {self.side} px, {self.policy}"

    def bind_video(self, video: Video) -> Sam2:
        """The same for one `video`: of a clip of fewer frames than pointers, as many pointers are read as it has
        frames, as in the official code.
        """
        policy = self.policy
        if not isinstance(policy, PointingPolicy) or not 0 < len(video) < policy.pointers:
            return self
        bound = copy(self)
        bound.policy = replace(policy, pointers=max(len(video), 2))  # type: ignore[type-var]
        return bound

    def renew(self) -> None:
        """Computes anew what depends on the weights alone, after they have changed."""
        self.core.renew()

    def pixels(self, frame: Frame) -> Float[Tensor, "1 3 s s"]:
        """SAM 2's input: squeezed into a square, bicubic as Pillow does it."""
        return self.images.prepare_pixels(frame)

    @wrap_inference
    def encode(self, frames: Sequence[Frame]) -> list[Sam2Features]:
        """The image encoder; on a GPU frames go through it together."""
        if self.half and not self.gradients and not self._halved:
            halve_weights(self.net)  # not earlier: training begins with what was loaded
            self._halved = True
        if isinstance(self.images, BatchFrameEncoder):
            return self.images.encode_frames(frames)
        return [self.images.encode_frame(frame) for frame in frames]

    @property
    def encode_at_once(self) -> int:
        """Frames that go through the image encoder together."""
        return AHEAD if self.device.type != "cpu" and isinstance(self.images, BatchFrameEncoder) else 1

    def count_object_bytes(self, size: tuple[int, int]) -> int:
        """About how many bytes each object takes in frames of `size` (h, w): a full bank of memories, three hypotheses
        with what is chosen of them, and its masks of the frame.
        """
        logits = (HYPOTHESES + 2) * self.core.mask_side**2 * 4  # one is chosen, one remembered
        return self.core.count_bank_bytes(self.prompts) + logits + DRAWN * size[0] * size[1]

    def empty(self) -> Sam2Memory:
        """The memory of no object."""
        return Sam2Memory()

    @wrap_inference
    def predict(self, memory: Sam2Memory, features: Sam2Features) -> Prediction:
        """Three hypotheses of every remembered object, there; tokens are the object pointers they would leave."""
        core, readings = self.core, {id: self.policy.read(bank) for id, bank in memory.banks.items()}
        if not readings:
            return core.join_answers((), [])
        look, groups = core.look_around(features), core.group_readings(readings)

        def answer(ids: list[int]) -> tuple[Tensor, ...]:
            conditioned = core.attend(features, look, [readings[id] for id in ids])
            return core.decode(features, conditioned, *core.unprompted, several=True)

        rows: dict[int, tuple[Tensor, ...]] = {}
        for ids, answers in zip(groups, core.run_groups(answer, groups), strict=True):
            rows |= dict(zip(ids, zip(*answers, strict=True), strict=True))
        belief = core.join_answers(tuple(memory.banks), [rows[id] for id in memory.banks])
        return weigh_hypotheses(self.policy, memory.banks, belief)

    @wrap_inference
    def commit(self, memory: Sam2Memory, features: Sam2Features, belief: Prediction) -> Sam2Memory:
        """Ends a frame: the `memory` with each object's best hypothesis in the `belief`, encoded with the `features` of
        the frame; time goes on for all objects.
        """
        return Sam2Memory(commit_best(self.core, self.policy, memory.banks, features, belief, belief.ids))

    @wrap_inference
    def prompt(
        self, memory: Sam2Memory, features: Sam2Features, prompts: Mapping[int, Prompt]
    ) -> tuple[Sam2Memory, Prediction]:
        """Makes the frame of `features` a conditioning frame in the `memory` of each object of `prompts`, {id: mask,
        box or clicks}. Gives the new memory, and the masks at the frame's own size.
        """
        banks, answer = prompt_banks(self.core, self.policy, memory.banks, features, prompts, self.prompts)
        return Sam2Memory(banks), answer

    def forget(self, memory: Sam2Memory, ids: Iterable[int]) -> Sam2Memory:
        """The memory without these objects."""
        gone = set(ids)
        return self.branch(memory, {id: id for id in memory.banks if id not in gone})

    def branch(self, memory: Sam2Memory, origins: Mapping[int, int]) -> Sam2Memory:
        """The memory of the objects {new id: old id} alone."""
        return Sam2Memory({new: memory.banks[old] for new, old in origins.items()})


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
