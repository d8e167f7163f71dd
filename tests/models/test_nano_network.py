"""Nano's network is transformers' SAM 2 with the same weights, in everything that `Sam2Core` computes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sam2 import rebuild_with_transformers
from torch import Tensor

from masklet.core.instances import Box, Clicks, Point, Prediction, Prompt
from masklet.models.nano.network import FINE, HIDDEN, MEDIUM, MEMORY, NanoNetwork, NanoSettings
from masklet.models.sam2.core import Sam2Core, Sam2Features
from masklet.models.sam2.memory import MemoryEntry, MemoryReading
from masklet.nn.mask_decoder import DELTA, STABLE, prefer_stable
from masklet.nn.memory_encoder import encode_grid

Twins = tuple[Sam2Core, Sam2Core]
SIZES = [NanoSettings(64, 1, 32), NanoSettings(96, 3, 48), NanoSettings(160, 2, 256)]
FRAME = (40, 60)


@pytest.fixture(scope="module", params=SIZES, ids=lambda size: f"{size.side}px")
def twins(request: pytest.FixtureRequest) -> Twins:
    """Cores over our network and over transformers', with the same random weights in all that a file holds."""
    torch.manual_seed(request.param.side)
    net = NanoNetwork(request.param).eval().requires_grad_(False)
    for weight in net.state_dict().values():
        weight.copy_(torch.randn_like(weight) * (weight[0].numel() ** -0.5 if weight.ndim > 1 else 1))
    return Sam2Core(net), Sam2Core(rebuild_with_transformers(net, request.param))


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def features(core: Sam2Core) -> Sam2Features:
    s = core.side // 4
    return Sam2Features(draw(FINE, s, s), draw(MEDIUM, s // 2, s // 2), draw(HIDDEN, s // 4, s // 4), FRAME)


def reading(core: Sam2Core) -> MemoryReading:
    """Of a conditioning frame and two others."""
    p = (core.side // 16) ** 2
    entries = [MemoryEntry(n, draw(HIDDEN, seed=n), 0.9, 5.0, draw(p, MEMORY, seed=n).bfloat16()) for n in range(3)]
    return MemoryReading(entries, [0, 2, 1], entries, [0.1, 0.5, 1.0])


def same(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and b.std() > 0
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6 * float(b.abs().max()))


@pytest.mark.parametrize("several", [True, False])
@pytest.mark.parametrize("postprocess", [True, False])
def test_the_mask_decoder(twins: Twins, several: bool, postprocess: bool) -> None:
    b, answers = 3, []
    for core in twins:
        core.postprocess = postprocess
        cells = core.side // 16
        sparse, dense = draw(b, 1, 4, HIDDEN, seed=1), draw(b, HIDDEN, cells, cells, seed=2)
        conditioned, places = draw(b, HIDDEN, cells, cells, seed=3), core.encode_image_positions()
        answers.append(core.run_decoder(features(core), conditioned, sparse, dense, places, several=several))
    same(*answers)
    assert [x.shape[1:3] for x in answers[0][:3]] == [(1, 3 if several else 1)] * 3


@pytest.mark.parametrize("labels", [[-1], [1], [0, 1], [2, 3, 1, 0, -1]])
def test_the_prompt_encoder(twins: Twins, labels: list[int]) -> None:
    points = draw(2, len(labels), 2) * 20 + 30
    same(*(core.encode_points(points, torch.tensor([labels] * 2))[:1] for core in twins))
    dense = [core.encode_points(points, torch.tensor([labels] * 2))[1] for core in twins]
    assert torch.equal(*dense) and len(dense[0]) == 2
    same(*([core.encode_masks(draw(2, 1, core.side // 4, core.side // 4) * 3)] for core in twins))


def test_memory_attention_and_positions(twins: Twins) -> None:
    same(*([core.attend(f := features(core), core.look_around(f), [reading(core)] * 2)] for core in twins))
    same(*([core.attend_nothing(features(core)), core.encode_image_positions()] for core in twins))


@pytest.mark.parametrize("binary", [True, False])
def test_the_memory_encoder(twins: Twins, binary: bool) -> None:
    masks, scores = draw(3, 1, 24, 24, seed=4) * 4, torch.tensor([[3.0], [-2.0], [1.0]])
    belief = Prediction((1, 2, 3), masks, scores, scores, draw(3, 1, HIDDEN))
    same(*([core.encode_frame_memories(features(core), belief, binary)] for core in twins))


PROMPTS: list[Prompt] = [Clicks((Point(10, 12), Point(30, 5, inside=False))), Box(3, 4, 30, 35)]


@pytest.mark.parametrize("prompt", PROMPTS, ids=["clicks", "box"])
def test_answers_to_prompts(twins: Twins, prompt: Any) -> None:
    answers = []
    for core in twins:
        core.postprocess, core.gradients = True, True  # masks whatever the object score
        earlier = draw(core.side // 4, core.side // 4, seed=5)
        answers.append(core.answer_clicks(features(core), 1, prompt, reading(core), earlier))
    same(*([a.logits, a.tokens] for a in answers))  # type: ignore[list-item]
    given = {1: torch.arange(FRAME[1]).expand(FRAME) < 20}
    same(*([core.answer_masks(features(core), given).tokens] for core in twins))  # type: ignore[list-item]


def test_a_grids_positions_are_those_of_transformers() -> None:
    from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoPositionEmbeddingSine

    for channels, h, w in [(64, 4, 4), (128, 24, 24), (32, 3, 7)]:
        theirs = Sam2VideoPositionEmbeddingSine(channels // 2, normalize=True)((1, 0, h, w), "cpu", torch.float32)
        assert torch.equal(encode_grid(channels, h, w), theirs[0].flatten(1).T)


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.06, 0.5, 5.0, 100.0]))
@settings(max_examples=40, deadline=None)
def test_a_single_mask_that_is_not_stable_gives_way_to_the_best_of_three(seed: int, steep: float) -> None:
    logits, quality = draw(3, 4, 8, 8, seed=seed) * steep, draw(3, 4, seed=seed + 1).sigmoid()
    logits[0, 0] = -1.0  # an empty mask is stable
    masks, scores = prefer_stable(logits, quality)
    for row in range(3):
        first = logits[row, 0]
        high, low = int((first > DELTA).sum()), int((first > -DELTA).sum())
        best = 0 if low == 0 or high / low >= STABLE else 1 + int(quality[row, 1:].argmax())
        assert torch.equal(masks[row, 0], logits[row, best]) and scores[row, 0] == quality[row, best]
