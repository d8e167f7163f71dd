"""Named things and what moves as one segmenter."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from toys import H, W, square

from masklet.core.frames import Frame
from masklet.core.instances import Detections
from masklet.core.protocols import ScoringSegmenter
from masklet.models.segmenters.auto import AutoSegmenter


class Told:
    """Finds what it is told to; it remembers how many frames it has seen."""

    conf, low_conf = 0.5, 0.3

    def __init__(self, categories: tuple[str, ...], found: Detections, look_ahead: int = 0) -> None:
        self.categories, self.found, self.look_ahead = categories, found, look_ahead
        self.futures: list[int] = []

    def empty(self) -> int:
        return 0

    def segment(self, memory: int, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], int]:
        self.futures.append(len(future))
        return [self.found for _ in frames], memory + len(frames)


def found(*objects: tuple[torch.Tensor, float, int]) -> Detections:
    masks, scores, labels = zip(*objects, strict=True)
    return Detections(torch.stack(masks), torch.tensor(scores), torch.tensor(labels))


def frame(index: int = 0) -> Frame:
    return Frame(index, np.zeros((H, W, 3), np.uint8))


NAMED = found((square(2, 2), 0.9, 1), (square(2, 12), 0.2, 0))


def test_a_nameless_thing_counts_where_nothing_likely_is() -> None:
    moving = found((square(2, 2), 0.8, 0), (square(2, 12), 0.7, 0), (square(9, 2), 0.4, 0))
    auto = AutoSegmenter(Told(("dog", "cat"), NAMED), Told(("object",), moving))
    assert isinstance(auto, ScoringSegmenter) and auto.categories == ("dog", "cat", "object")
    [detections], _ = auto.segment(auto.empty(), [frame()], [])
    # The cat's is taken, the unlikely dog's is not; what is not sure to move is left out.
    assert detections.labels.tolist() == [1, 0, 2]
    assert torch.equal(detections.masks, torch.stack([square(2, 2), square(2, 12), square(2, 12)]))
    assert torch.allclose(detections.scores, torch.tensor([0.9, 0.2, 0.7]))


def test_a_doubtful_name_holds_no_pixels() -> None:
    """Named things of chance 0.5 or less, however many, leave the whole alone: it is likelier than each."""
    whole = square(2, 2, 12)
    parts = [square(2, 2), square(2, 8), square(8, 2)]
    moving = Told(("object",), found((whole, 0.9, 0)))
    doubtful = AutoSegmenter(Told(("dog",), found(*((part, 0.5, 0) for part in parts))), moving)
    [detections], _ = doubtful.segment(doubtful.empty(), [frame()], [])
    assert torch.equal(detections.masks[3], whole)
    likely = AutoSegmenter(Told(("dog",), found(*((part, 0.51, 0) for part in parts))), moving)
    [detections], _ = likely.segment(likely.empty(), [frame()], [])
    assert detections.labels.tolist() == [0, 0, 0]  # three quarters of it are theirs


@pytest.mark.parametrize(
    ("score", "width", "labels"),
    [(0.4, 7, [0]), (0.3, 7, [0, 1]), (0.4, 5, [0, 1])],  # the same thing, an unsure name, less than half of it
)
def test_the_same_thing_has_its_name(score: float, width: int, labels: list[int]) -> None:
    """Above IoU 0.5 with a confident named mask a nameless one is left out, though it is the likelier of the two."""
    whole, part = torch.zeros(2, H, W, dtype=torch.bool)
    whole[2:12, 2:12], part[2:12, 2 : 2 + width] = True, True
    named = Told(("dog",), found((part, score, 0)))
    named.conf = 0.3
    segmenter = AutoSegmenter(named, Told(("object",), found((whole, 0.95, 0))))
    [detections], _ = segmenter.segment(segmenter.empty(), [frame()], [])
    assert detections.labels.tolist() == labels


def test_a_nameless_thing_keeps_what_named_ones_leave_of_it() -> None:
    half = square(2, 2).clone()
    half[:, 4:] = False
    wide = square(2, 2) | square(2, 8)
    auto = AutoSegmenter(Told(("dog",), found((half, 0.9, 0))), Told(("object",), found((wide, 0.8, 0))))
    [detections], _ = auto.segment(auto.empty(), [frame()], [])
    assert torch.equal(detections.masks[1], wide & ~half) and not (detections.masks[0] & detections.masks[1]).any()


def test_both_remember_and_look_ahead_for_themselves() -> None:
    first, second = Told(("dog",), NAMED[[0]]), Told(("object",), NAMED[[1]], look_ahead=1)
    auto = AutoSegmenter(first, second)
    assert auto.look_ahead == 1
    _, memory = auto.segment(auto.empty(), [frame(0), frame(1)], [frame(2)])
    _, memory = auto.segment(memory, [frame(2)], [])
    assert (memory.named, memory.nameless) == (3, 3)
    assert first.futures == [0, 0] and second.futures == [1, 0]


class Waiting(Told):
    """Begins to look when another one does, too; it remembers on which thread."""

    def __init__(self, both: threading.Barrier) -> None:
        super().__init__(("dog", "cat"), NAMED)
        self.both, self.threads = both, set[str]()

    def segment(self, memory: int, frames: Sequence[Frame], future: Sequence[Frame]) -> tuple[list[Detections], int]:
        self.threads.add(threading.current_thread().name)
        self.both.wait(timeout=20)
        return super().segment(memory, frames, future)


@pytest.mark.parametrize("threads", [1, 2])
def test_both_look_at_a_time_where_a_core_is_idle(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    both = threading.Barrier(threads)
    named, nameless = Waiting(both), Waiting(both)
    auto = AutoSegmenter(named, nameless)
    [detections], memory = auto.segment(auto.empty(), [frame()], [])
    assert detections.labels.tolist() == [1, 0] and (memory.named, memory.nameless) == (1, 1)
    assert len(named.threads | nameless.threads) == threads
