"""Propagators without a network, and memories of one frame: what DEVA's Table 6 compares with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import Place, ToyMemory, ToyPropagator, ToySegmenter, World, moving, square, still

from masklet.core import memory as store
from masklet.core.errors import InputError
from masklet.core.frames import Frame
from masklet.core.instances import Box
from masklet.core.protocols import Propagator
from masklet.models.last_masks import FlownMasks, StillMasks
from masklet.systems.deva.by_detection import ByDetection, ByDetectionSettings
from masklet.systems.deva.online import Deva, DevaSettings
from masklet.systems.deva.short import ShortMemory


def textured(shift: int) -> Frame:
    """Noise, smooth enough for optical flow, shifted to the right."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 96), np.uint8)
    smooth = np.kron(noise[::4, ::4], np.ones((4, 4), np.uint8))
    return Frame(0, np.repeat(np.roll(smooth, shift, 1)[..., None], 3, 2))


def test_they_are_propagators() -> None:
    assert all(isinstance(p, Propagator) for p in (StillMasks(), FlownMasks(), ShortMemory(ToyPropagator())))


def test_still_masks_stay_and_flown_ones_follow_the_picture() -> None:
    mask = torch.zeros(64, 96, dtype=torch.bool)
    mask[16:48, 24:56] = True
    for kind, expected in ((StillMasks(), mask), (FlownMasks(), mask.roll(4, 1))):
        before, now = kind.encode([textured(0), textured(4)])
        memory, answer = kind.prompt(kind.empty(), before, {3: mask})
        assert torch.equal(answer.masks((64, 96))[0], mask)
        [found] = kind.predict(memory, now).masks((64, 96))
        assert (found & expected).sum() / (found | expected).sum() > 0.95, kind
    moved = StillMasks().predict(memory, before)
    assert torch.equal(moved.masks((64, 96))[0], mask)


def test_the_next_memory_is_what_was_believed_and_can_be_saved(tmp_path) -> None:  # type: ignore[no-untyped-def]
    kind = StillMasks()
    [features] = kind.encode([textured(0)])
    big, small = torch.ones(64, 96, dtype=torch.bool), torch.zeros(64, 96, dtype=torch.bool)
    small[:4, :4] = True
    memory, _ = kind.prompt(kind.empty(), features, {1: big, 2: small})
    belief = kind.predict(memory, features)
    assert kind.commit(memory, features, belief.only([1])).masks.keys() == {1, 2}
    assert kind.forget(memory, [1]).masks.keys() == {2} and kind.branch(memory, {7: 2}).masks.keys() == {7}
    store.save_memory(memory, tmp_path / "m")
    assert store.load_memory(tmp_path / "m").masks == memory.masks
    with pytest.raises(InputError, match="takes masks"):
        kind.prompt(memory, features, {1: Box(0, 0, 4, 4)})


def test_a_short_memory_begins_anew_in_every_frame() -> None:
    """The toy remembers colours: its first one for good, unless it begins anew."""
    world = World([still(4, 4)])
    short = ShortMemory(ToyPropagator())
    frames = [world.frame(t) for t in range(4)]
    for frame in frames[2:]:
        frame.image[square(4, 4).numpy()] = (200, 60, 60)  # its colour changes
    features = short.encode(frames)
    memory, _ = short.prompt(short.empty(), features[0], {1: square(4, 4)})
    for t in (1, 2):
        memory = short.commit(memory, features[t], short.predict(memory, features[t]))
    assert isinstance(memory, ToyMemory)
    assert memory.anchors[1].round().tolist() == [200.0, 60.0, 60.0] and len(memory.recent[1]) == 1
    gone = short.predict(memory, features[3])
    nothing = type(gone)(gone.ids, -gone.logits.abs(), gone.quality, -gone.presence.abs())
    assert short.commit(memory, features[3], nothing).anchors == {}


PLACES: list[Place] = [moving(4, 0, 0, 1), still(20, 20)]


def test_what_no_detection_shows_is_not_there_and_comes_back_as_another() -> None:
    finder = ToySegmenter(blind=lambda t, o: (t, o) == (6, 1))
    result = ByDetection(finder, StillMasks()).run(World(PLACES))
    assert [sorted(m.sightings) for m in result.masklets] == [list(range(16)), list(range(6)), list(range(7, 16))]
    assert [result.name_of(m) for m in result.masklets] == ["red", "green", "green"]
    world = World(PLACES)
    assert all(torch.equal(s.mask.decode(), world.truth(t)[0]) for t, s in result.masklets[0].sightings.items())


def test_detections_are_one_above_the_iou_that_is_set() -> None:
    """Moving by one of six columns they have IoU 5/7."""
    for limit, objects in ((0.7, 1), (0.72, 16)):
        made = ByDetection(ToySegmenter(), StillMasks(), ByDetectionSettings(match_iou=limit)).run(World(PLACES[:1]))
        assert len(made.masklets) == objects
    none = ByDetection(ToySegmenter(), StillMasks(), ByDetectionSettings(conf=0.995)).run(World(PLACES[:1]))
    assert none.masklets == () and "conf = 0.995" in none.provenance.notes[-1]


def test_without_alignment_a_clip_meets_as_if_nothing_had_moved() -> None:
    """An object that moves by its own width has no support in the next frame, but with its propagation it has."""
    world = World([moving(4, 0, 0, 6, last=3), still(20, 20)])
    found = {}
    for alignment in ("propagated", "none"):
        at = DevaSettings(clip=2, every=2, backward=False, alignment=alignment)  # type: ignore[arg-type]
        found[alignment] = Deva(ToySegmenter(), ToyPropagator(), at).run(world).masklets
    assert [result.label for result in found["propagated"]] == [0, 1] and [m.label for m in found["none"]] == [1]
