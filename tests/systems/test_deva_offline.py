"""DEVA's offline protocol in a world of squares."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from toys import H, ToyMemory, ToyPropagator, ToySegmenter, W, World, moving, square, still

import masklet
from masklet.core.frames import Video
from masklet.core.instances import Prediction
from masklet.core.protocols import VideoSystem, Watch
from masklet.core.result import VideoResult
from masklet.core.tracks import Source
from masklet.systems.deva.offline import (
    DetectedSketches,
    DevaOffline,
    DevaOfflineSettings,
    Sketch,
    choose_key_frame,
    normalize_soft_masks,
    pick_likeliest_object,
    sample_video_frames,
    weigh_frames,
)


def silent(phase: str, done: int, total: int | None, objects: int) -> None:
    pass


def run(world: World, segmenter: ToySegmenter, frames: int = 4) -> VideoResult:
    return DevaOffline(
        DetectedSketches(segmenter), ToyPropagator(), segmenter.categories, DevaOfflineSettings(frames)
    ).run(world, silent)


def exact(result: VideoResult, world: World) -> bool:
    return all(
        {m.id - 1: s.mask.decode().tolist() for m, s in result.at(t)} == {o: m.tolist() for o, m in truth.items()}
        for t, truth in ((t, world.truth(t)) for t in range(world.length))
    )


@pytest.mark.parametrize("length", [1, 2, 3, 9, 40])
def test_objects_that_are_always_found_are_the_truth(length: int) -> None:
    world = World([moving(2, 0, 0, 1), moving(20, 24, 0, -1)], length=length)
    result = run(world, ToySegmenter())
    assert exact(result, world)
    assert [(m.id, result.name_of(m)) for m in result.masklets] == [(1, "red"), (2, "green")]


def test_one_frame_that_is_seen_is_enough() -> None:
    world = World([moving(2, 0, 0, 1)], length=20)
    result = run(world, ToySegmenter(blind=lambda t, o: t != 12))
    assert exact(result, world)
    sources = {t: s.source for t, s in result.masklets[0].sightings.items()}
    assert sources[12] is Source.DETECTED
    assert sources[11] is sources[0] is Source.BACKWARD and sources[13] is sources[19] is Source.FORWARD


@pytest.mark.parametrize(("score", "stays"), [(0.5, False), (0.9, True)])  # weights 0.38 and 0.57
def test_what_most_frames_deny_is_outvoted(score: float, stays: bool) -> None:
    wrong = ToySegmenter(score=lambda t, o: 0.2, alarms=[(1, square(4, 4) | square(20, 20), score, 0)])
    result = run(World([still(4, 4)], length=8), wrong)  # frames 1, 3, 5 and 7; the key frame is 1
    assert result.masklets[0].key_frames == {1}
    mask = result.masklets[0].sightings[1].mask.decode()
    assert mask.equal(square(4, 4) | square(20, 20) if stays else square(4, 4))


def test_a_frame_says_nothing_of_an_object_that_it_does_not_show() -> None:
    world = World([lambda t: (4, 4) if t < 4 else None, still(20, 20)], length=8)  # frames 1, 3, 5 and 7
    result = run(world, ToySegmenter())
    assert exact(result, world) and all(m.score > 0.9 for m in result.masklets)


def test_an_object_that_is_lost_on_the_way_to_the_key_frame_has_one_vote_less() -> None:
    class Forgetful(ToyPropagator):
        """Finds nothing again."""

        def predict(self, memory: ToyMemory, features: Tensor) -> Prediction:
            belief = super().predict(memory, features)
            return replace(belief, presence=-belief.presence, logits=-belief.logits.abs())

    world = World([still(4, 4)], length=8)
    system = DevaOffline(DetectedSketches(ToySegmenter()), Forgetful(), settings=DevaOfflineSettings(4))
    sketches = system.segmenter(world, sample_video_frames(8, 4), silent)
    assert system.average(world, 1, sketches).equal(sketches[1].masks)
    denying = replace(system, settings=DevaOfflineSettings(4, lost="denies"))
    assert not denying.average(world, 1, sketches).equal(sketches[1].masks)


def test_nothing_found_is_said() -> None:
    result = run(World([still(4, 4)], length=8), ToySegmenter(blind=lambda t, o: True))
    assert not result.masklets and "nothing was found in 4 frames (1, 3, 5, 7)" in result.provenance.notes[0]


@pytest.mark.parametrize(
    ("length", "most", "frames"),
    [(100, 10, (5, 15, 25, 35, 45, 55, 65, 75, 85, 95)), (4, 10, (0, 1, 2, 3)), (7, 3, (1, 3, 5)), (1, 1, (0,))],
)
def test_sampled_frames(length: int, most: int, frames: tuple[int, ...]) -> None:
    assert sample_video_frames(length, most) == frames


def drawn(area: int, score: float | None) -> Sketch:
    return Sketch((torch.arange(16.0).view(1, 4, 4) < area).float() * 0.9, score)


def test_the_key_frame_is_the_most_certain_one_and_of_equals_the_first() -> None:
    assert choose_key_frame({3: drawn(1, 0.5), 7: drawn(9, 0.7), 9: drawn(9, 0.7)}) == 7
    assert choose_key_frame({3: drawn(1, None), 7: drawn(9, None), 9: drawn(9, None)}) == 7
    unsure = Sketch(torch.full((1, 4, 4), 0.8), None)  # not above 0.8
    assert choose_key_frame({3: unsure, 7: drawn(1, None)}) == 7


def test_weights_are_a_softmax_of_twice_the_score() -> None:
    a, b = math.exp(2 * 0.2), math.exp(2 * 0.7)
    assert weigh_frames([0.2, 0.7]).tolist() == pytest.approx([a / (a + b), b / (a + b)])
    assert weigh_frames([None, None, None, None]).tolist() == [0.25] * 4


def test_each_pixel_has_its_likeliest_object_or_none() -> None:
    soft = torch.tensor([[0.6, 0.4, 0.45, 0.4], [0.7, 0.0, 0.4, 0.55]])[:, None]
    # nothing: 0.12, 0.6, 0.33, 0.27
    assert pick_likeliest_object(soft)[:, 0].tolist() == [[False, False, True, False], [True, False, False, True]]


def test_what_is_shared_out_goes_by_odds() -> None:
    alone = normalize_soft_masks(torch.tensor([[[0.0, 0.3, 0.5, 1.0]]]))
    torch.testing.assert_close(alone[0, 0], torch.tensor([0.0, 0.09 / 0.58, 0.5, 1.0]), rtol=0, atol=1e-5)
    a, b = normalize_soft_masks(torch.tensor([0.6, 0.2]).view(2, 1, 1)).flatten().tolist()
    odds = [0.32 / 0.68, 0.6 / 0.4, 0.2 / 0.8]
    assert (a, b) == pytest.approx((odds[1] / sum(odds), odds[2] / sum(odds)))


class Soft(ToyPropagator):
    """Begins with probabilities, and remembers which it was given."""

    def prompt_soft(self, memory: ToyMemory, features: Tensor, masks: Mapping[int, Tensor]) -> ToyMemory:
        self.given = masks
        return self.prompt(memory, features, {id: mask > 0.5 for id, mask in masks.items()})[0]


def test_a_propagator_that_takes_soft_masks_gets_them() -> None:
    def sketches(video: Video, at: Sequence[int], watch: Watch) -> dict[int, Sketch]:
        return {t: Sketch(square(4, 4)[None] * 0.9, None) for t in at[:2]}

    carrier = Soft()
    result = DevaOffline(sketches, carrier, settings=DevaOfflineSettings(2)).run(World([still(4, 4)], length=4), silent)
    assert isinstance(DevaOffline(sketches, carrier), VideoSystem)
    assert carrier.given[1].shape == (H, W) and 0.6 < float(carrier.given[1].max()) < 1
    assert exact(result, World([still(4, 4)], length=4))


def test_the_door() -> None:
    assert masklet.load("deva-offline", frames=3).system.settings == DevaOfflineSettings(3)
    with pytest.raises(masklet.InputError, match="frames = 0"):
        masklet.load("deva-offline", frames=0)
    with pytest.raises(masklet.InputError, match="needs the whole video"):
        masklet.stream([], system="deva-offline")
