"""The pairs of `peers.py` in which networks run: a turn is a whole frame, from the pixels to masks of the frame's size.

The official SAM 2 resizes its frames when it opens a video, which is not timed; ours resizes within its turn.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import sam2_cost as plain
import torch
from peers import Pair, run_turns
from PIL import Image

from masklet.core.frames import Frame
from masklet.core.masks import resize_bilinear
from masklet.models.cutie import Cutie, create_cutie
from masklet.models.mask2former.segmenter import Mask2Former
from masklet.models.sam2.propagator import Sam2
from masklet.models.xmem.propagator import Xmem
from masklet.nn.xmem import XmemNet

Turns = Iterator[None]


@dataclass(frozen=True)
class Scale:
    """How large all of it is."""

    trunk: str  # of SAM 2
    side: int
    frame: tuple[int, int]  # h, w
    rounds: int
    warm: int


LARGE, SMALL = Scale("tiny", 512, (480, 854), 13, 8), Scale("slim", 64, (96, 128), 2, 1)


def draw_frames(scale: Scale) -> list[Frame]:
    """Noise; all turns see the same few frames in a circle."""
    rng = np.random.default_rng(0)
    return [Frame(t, rng.integers(0, 256, (*scale.frame, 3), np.uint8), t / 10) for t in range(4)]


def draw_masks(scale: Scale, objects: int) -> dict[int, torch.Tensor]:
    """A box for each object, side by side."""
    (h, w), masks = scale.frame, {}
    for n in range(objects):
        masks[n + 1] = torch.zeros(h, w, dtype=torch.bool)
        masks[n + 1][h // 4 : h // 2, n * w // objects : (2 * n + 1) * w // (2 * objects)] = True
    return masks


def follow(propagator: Any, scale: Scale, objects: int) -> Turns:
    """Ours: objects that are given in the first frame."""
    frames, masks, memory = draw_frames(scale), draw_masks(scale, objects), propagator.empty()
    for t in count():
        [features] = propagator.encode([frames[t % len(frames)]])
        if t == 0:
            memory, _ = propagator.prompt(memory, features, masks)
        belief = propagator.predict(memory, features).best
        _ = resize_bilinear(belief.logits[:, 0], scale.frame) > 0
        memory = propagator.commit(memory, features, belief)
        yield


def build_sam2(scale: Scale) -> Sam2:
    """Ours; every frame is remembered."""
    return Sam2(plain.network(scale.trunk, scale.side, plain.SURE))


def build_official_sam2(scale: Scale) -> Any:
    """The official predictor, with an object score fixed as in ours; without postprocessing, which is compiled."""
    from sam2.build_sam import build_sam2_video_predictor  # type: ignore[import-not-found]

    size = [f"++model.image_size={scale.side}"]
    predictor = build_sam2_video_predictor(
        "configs/sam2.1/sam2.1_hiera_t.yaml", None, "cpu", hydra_overrides_extra=size, apply_postprocessing=False
    )
    last = predictor.sam_mask_decoder.pred_obj_score_head.layers[-1]
    last.weight.data.zero_()
    last.bias.data.fill_(plain.SURE)
    return predictor


def follow_officially(scale: Scale, objects: int) -> Turns:
    """The official SAM 2 predictor."""
    predictor, frames = build_official_sam2(scale), draw_frames(scale)
    with tempfile.TemporaryDirectory() as folder, patch("sam2.utils.misc.tqdm", skip_bar):
        for t in range(scale.rounds):
            Image.fromarray(frames[t % len(frames)].image).save(Path(folder) / f"{t:05d}.jpg")
        state = predictor.init_state(folder)
    for id, mask in draw_masks(scale, objects).items():
        predictor.add_new_mask(state, 0, id, mask)
    with patch("sam2.sam2_video_predictor.tqdm", skip_bar):
        for _, _, logits in predictor.propagate_in_video(state):
            _ = logits > 0
            yield


def skip_bar(items: Any, **_: Any) -> Any:
    """In the place of the bar that the official code draws."""
    return items


def follow_by_session(scale: Scale, objects: int) -> Turns:
    """transformers' session; frames are prepared as ours."""
    from transformers import Sam2VideoInferenceSession

    net, frames, (h, w) = plain.network(scale.trunk, scale.side, plain.SURE), draw_frames(scale), scale.frame
    prepare = Sam2(plain.network("slim", scale.side, plain.SURE)).pixels
    session = Sam2VideoInferenceSession(video=None, video_height=h, video_width=w, dtype=torch.float32)
    for id, mask in draw_masks(scale, objects).items():
        given = torch.nn.functional.interpolate(mask[None, None].float(), (scale.side,) * 2) > 0.5
        session.add_mask_inputs(session.obj_id_to_idx(id), 0, given)
    session.obj_with_new_inputs = list(range(1, objects + 1))
    for t in count():
        answer = net(inference_session=session, frame=prepare(frames[t % len(frames)])[0])
        _ = resize_bilinear(answer.pred_masks[:, 0], scale.frame) > 0
        yield


def build_cutie() -> Any:
    """Cutie's base network with random weights."""
    torch.manual_seed(0)
    return create_cutie("base").eval().requires_grad_(False)


def follow_by_cutie(scale: Scale, objects: int) -> Turns:
    """rf-cutie's own `InferenceCore`, settings as published."""
    import cutie  # type: ignore[import-not-found]
    from cutie.inference.inference_core import InferenceCore  # type: ignore[import-not-found]
    from omegaconf import OmegaConf

    folder = Path(cutie.__path__[0]) / "config"
    settings: Any = OmegaConf.load(folder / "eval_config.yaml")
    settings = OmegaConf.merge(
        {k: v for k, v in settings.items() if k not in ("defaults", "hydra")},
        {"model": OmegaConf.load(folder / "model" / "base.yaml"), "mem_every": 5, "use_long_term": False},
    )
    core, frames, labels = (
        InferenceCore(build_cutie(), cfg=settings),
        draw_frames(scale),
        torch.zeros(scale.frame).long(),
    )
    for id, mask in draw_masks(scale, objects).items():
        labels[mask] = id
    for t in count():
        image = torch.from_numpy(frames[t % len(frames)].image).permute(2, 0, 1).float() / 255
        answer = core.step(image) if t else core.step(image, labels, objects=list(range(1, objects + 1)))
        core.output_prob_to_mask(answer)
        yield


def build_xmem(scale: Scale) -> Xmem:
    """DEVA's network with random weights."""
    torch.manual_seed(0)
    return Xmem(XmemNet().eval().requires_grad_(False), size=min(scale.frame))


def build_mask2former(scale: Scale) -> Any:
    """A Mask2Former over ResNet-50, a tiny one where all is small."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig

    torch.manual_seed(0)
    stages = ["stage1", "stage2", "stage3", "stage4"]
    size = {} if scale is LARGE else {"embedding_size": 8, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
    config = Mask2FormerConfig(
        backbone_config=ResNetConfig(out_features=stages, **size), id2label={n: f"kind {n}" for n in range(40)}
    )
    return Mask2FormerForUniversalSegmentation(config).eval().requires_grad_(False)


def segment(scale: Scale) -> Turns:
    """Ours: every query's mask."""
    segmenter = Mask2Former(build_mask2former(scale), shortest=min(scale.frame), threshold=0.0)
    for t in count():
        segmenter.segment(None, draw_frames(scale)[t % 4 : t % 4 + 1], [])
        yield


def segment_by_module(scale: Scale) -> Turns:
    """transformers' module and the masks of all of its queries, enlarged as its processor does it."""
    net, prepare = build_mask2former(scale), Mask2Former(build_mask2former(SMALL), shortest=min(scale.frame)).pixels
    for t in count():
        pixels, _ = prepare(draw_frames(scale)[t % 4 : t % 4 + 1])
        answer = net(pixel_values=pixels)
        scores = answer.class_queries_logits.softmax(-1)[..., :-1].flatten(1).topk(100)
        rows = scores.indices[0] // (answer.class_queries_logits.shape[2] - 1)
        maps = resize_bilinear(answer.masks_queries_logits[0, rows], scale.frame)
        inside = maps > 0
        (maps.sigmoid() * inside).flatten(1).sum(1) / (inside.flatten(1).sum(1) + 1e-6)
        yield


def follow_xmem(scale: Scale, objects: int) -> Turns:
    """Ours: DEVA's network."""
    yield from follow(build_xmem(scale), scale, objects)


def follow_cutie(scale: Scale, objects: int) -> Turns:
    """Ours, over the network of the package."""
    yield from follow(Cutie(build_cutie(), size=min(scale.frame)), scale, objects)


def follow_sam2(scale: Scale, objects: int) -> Turns:
    """Ours."""
    yield from follow(build_sam2(scale), scale, objects)


SIDES: Mapping[str, Callable[[Scale, int], Turns]] = {
    "sam2": follow_sam2,
    "sam2, official": follow_officially,
    "sam2, transformers": follow_by_session,
    "xmem": follow_xmem,
    "cutie": follow_cutie,
    "cutie, official": follow_by_cutie,
    "mask2former": lambda scale, objects: segment(scale),
    "mask2former, transformers": lambda scale, objects: segment_by_module(scale),
}
CHILDREN = {name: partial(lambda side: run_turns(side(LARGE, 1), 10), side) for name, side in SIDES.items()}


def pair_sides(
    what: str, peer: str, sides: tuple[str, str], scale: Scale, objects: int = 1, bar: float | None = None
) -> Pair:
    """One object or more; peak memory is measured with one."""
    own, other = (SIDES[side] for side in sides)
    return Pair(
        what,
        peer,
        lambda: (own(scale, objects), other(scale, objects)),
        scale.rounds,
        scale.warm,
        bar,
        sides if scale is LARGE and objects == 1 else None,
    )


def list_network_pairs(small: bool) -> dict[str, Sequence[Pair]]:
    """All pairs by the name of their part."""
    scale = SMALL if small else LARGE
    name = f"SAM 2 {scale.trunk}, {scale.side} px, a frame, one object"
    return {
        "sam2": [
            pair_sides(name, "rf-sam-2", ("sam2", "sam2, official"), scale, bar=0.9),
            pair_sides(f"{name}, session", "transformers", ("sam2", "sam2, transformers"), scale, bar=0.9),
        ],
        "xmem": [
            pair_sides(
                f"XMem (DEVA's) and Cutie-base, {n} objects", "rf-cutie", ("xmem", "cutie, official"), scale, n, 1.0
            )
            for n in (1, 5)[: 1 if small else 2]
        ],
        "cutie": [pair_sides("Cutie-base, one object", "rf-cutie", ("cutie", "cutie, official"), scale, bar=1.0)],
        "mask2former": [
            pair_sides(
                "Mask2Former, ResNet-50", "transformers", ("mask2former", "mask2former, transformers"), scale, bar=1.0
            )
        ],
    }
