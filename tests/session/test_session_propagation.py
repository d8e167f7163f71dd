from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from toys import ToyPropagator, ToySegmenter, World, moving, square, still

from masklet.core.instances import Prediction
from masklet.core.result import Provenance, VideoResult
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.session.propagation import AnchorAgreement, find_nested, keep_off
from masklet.session.session import Session
from masklet.systems.bystanders import BystanderFinder


def see(mask: Tensor) -> Sighting:
    return Sighting(Rle.encode(mask), Source.FORWARD, 0.9)


def result_of(*objects: dict[int, Tensor]) -> VideoResult:
    masklets = tuple(Masklet(n + 1, {t: see(m) for t, m in one.items()}) for n, one in enumerate(objects))
    return VideoResult("toy", (32, 32), 16, 10.0, masklets, ("object",), Provenance("test"))


def test_rivals_keep_their_pixels_and_what_is_left_without_any_is_absent() -> None:
    logits = torch.stack([square(4, 4).float() - 0.5, square(20, 20).float() - 0.5])[:, None]
    belief = Prediction((1, 2), logits, torch.ones(2, 1), torch.ones(2, 1))
    kept = keep_off(belief, [Rle.encode(square(4, 7)), Rle.encode(square(20, 20))])
    assert torch.equal(kept.masks((32, 32))[0], square(4, 4) & ~square(4, 7))
    assert kept.presence[:, 0].tolist() == [1.0, -1.0] and not kept.masks((32, 32))[1].any()
    assert keep_off(belief, []) is belief


def test_rivals_are_told_at_the_resolution_of_the_belief() -> None:
    belief = Prediction((1,), torch.ones(1, 2, 16, 16), torch.ones(1, 2), torch.ones(1, 2))
    rival = torch.zeros(32, 32, dtype=torch.bool)
    rival[:, 16:] = True
    kept = keep_off(belief, [Rle.encode(rival)])
    assert (kept.logits[..., :8] > 0).all() and (kept.logits[..., 8:] < 0).all()


def test_nested_is_what_lies_in_the_other_by_more_than_half_of_the_smaller() -> None:
    result = result_of({0: square(0, 0, 6)}, {0: square(0, 3, 6)}, {0: square(0, 4, 6)}, {0: square(0, 0, 20)})
    assert find_nested(result, 1, 0, Rle.encode(square(0, 0, 6))) == {4}
    assert find_nested(result, 1, 0, Rle.encode(square(0, 1, 6))) == {2, 4}
    assert find_nested(result, 1, 1, Rle.encode(square(0, 0, 6))) == frozenset()


def agree(changed: float, *ious: float | None) -> AnchorAgreement:
    """An agreement after frames 1, 2, ...: IoU with what was there before, None where only that was seen."""
    whole = torch.zeros(10, 10, dtype=torch.bool)
    whole[:] = True
    agreement = AnchorAgreement({t: see(whole) for t in range(1, 20)}, changed)
    for t, iou in enumerate(ious, start=1):
        part = torch.zeros(100, dtype=torch.bool)
        part[: round(100 * (iou or 0))] = True
        agreement.add(t, None if iou is None else see(part.view(10, 10)))
    return agreement


@pytest.mark.parametrize(
    ("changed", "ious", "settled"),
    [
        (1.0, (0.2, 0.9, 0.95, 0.91), True),
        (1.0, (0.9, 0.9, 0.2, 0.9), False),
        (1.0, (0.9, 0.9, None, 0.9), False),
        (1.0, (0.89, 0.89, 0.89, 0.89), False),
        (0.1, (0.95, 0.95, 0.95, 0.95), False),  # a small repair goes on
        (0.1, (0.99, 0.99, 0.99), True),
    ],
)
def test_what_shows_the_same_for_three_frames_is_settled(
    changed: float, ious: tuple[float | None, ...], settled: bool
) -> None:
    assert agree(changed, *ious).is_settled == settled


@pytest.mark.parametrize(
    ("ious", "new"), [((0.1, 0.6, 0.9, 0.7), 2), ((0.9, 0.1, 0.1, 0.1), 0), ((0.1, 0.2, 0.3, 0.4), 2), ((0.4,), 0)]
)
def test_two_propagations_meet_where_they_agree_best_else_in_the_middle(ious: tuple[float, ...], new: int) -> None:
    assert agree(1.0, *ious).count_new(range(1, len(ious) + 1)) == new


def spread(world: World, session: Session, frame: int, o: int, id: int) -> Callable[[int], Tensor | None]:
    """The object's masks after it was prompted in a frame, and propagated."""
    session.prompt(frame, id, world.truth(frame)[o])
    session.propagate(id, 0, len(world))
    [m] = [m for m in session.result.masklets if m.id == id]
    return lambda t: m.sightings[t].mask.decode() if t in m.sightings else None


class Greedy(ToyPropagator):
    """Takes whatever is bright for the object: what stands beside is swallowed."""

    def predict(self, memory, features):  # type: ignore[no-untyped-def]
        belief = super().predict(memory, features)
        bright = (features.amax(-1) > 100).float() * 40 - 20
        own = torch.tensor([id > 0 for id in belief.ids], dtype=torch.bool)[:, None, None, None]
        logits = torch.where(own, bright[None, None].expand_as(belief.logits), belief.logits)
        if len(belief.ids) > 1:  # objects contend: a bystander's pixels are its own
            logits[own[:, 0, 0, 0]] -= 100 * (logits[~own[:, 0, 0, 0]].amax(0) > 0).float()
        return replace(belief, logits=logits, presence=torch.ones_like(belief.presence))


def test_what_is_propagated_swallows_no_other_object_of_the_result() -> None:
    world = World([moving(4, 0, 0, 1), still(20, 20)])
    known = result_of({t: world.truth(t)[1] for t in range(16)})
    alone = spread(world, Session(world, Greedy()), 5, 0, 2)
    beside = Session(world, Greedy(), known)
    masks = spread(world, beside, 5, 0, 2)
    assert torch.equal(alone(9), world.truth(9)[0] | world.truth(9)[1]), "the toy is greedy"
    assert all(torch.equal(masks(t), world.truth(t)[0]) for t in range(16))  # type: ignore[arg-type]
    assert beside.result.masklets[0] is known.masklets[0]


def test_an_object_may_overlap_what_it_overlaps_where_it_was_corrected() -> None:
    world = World([moving(4, 0, 0, 1)])
    wrong = result_of({t: world.truth(t)[0] for t in range(16)})  # object 1 has the pixels of the new one
    masks = spread(world, Session(world, ToyPropagator(), wrong), 5, 0, 2)
    assert all(torch.equal(masks(t), world.truth(t)[0]) for t in range(16))  # type: ignore[arg-type]


def test_bystanders_keep_what_nobody_has_marked() -> None:
    world = World([moving(4, 0, 0, 1), still(11, 8)])
    finder = BystanderFinder(ToySegmenter(), least=1, reach=2.0)
    masks = spread(world, Session(world, Greedy(), bystanders=finder), 5, 0, 1)
    assert all(torch.equal(masks(t), world.truth(t)[0]) for t in range(16))  # type: ignore[arg-type]


def test_an_object_is_known_from_its_other_anchors_too() -> None:
    """Red at first, then green: the toy's anchor is its first prompt, which is the farthest."""
    world = World([moving(4, 0, 0, 1, last=7), moving(4, 0, 0, 1, first=8)])
    session = Session(world, ToyPropagator())
    session.prompt(2, 1, world.truth(2)[0])
    session.prompt(14, 1, world.truth(14)[1])
    seen: list[set[int]] = []
    begin = session.propagator.prompt
    session.propagator.prompt = lambda memory, features, told: (  # type: ignore[method-assign]
        seen.append(set(memory.anchors)) or begin(memory, features, told)
    )
    session.propagate(1)
    assert seen.count({1}) == 4, "each of the four ways begins at its own anchor after the other one"
