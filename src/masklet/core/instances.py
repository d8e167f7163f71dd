"""What is known about one frame: detections without identities, predictions with them, prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from masklet.core.device_masks import encode_masks, fetch_masks, paint_maps, threshold_maps
from masklet.core.label_map import LabelMap
from masklet.core.masks import resize_above_zero, resize_bilinear
from masklet.core.rle import Rle

NAMELESS = "object"  # what segmenters call what they find without a name


@dataclass(frozen=True)
class Detections:
    """One image's instances, before anyone has said who they are."""

    masks: Bool[Tensor, "n h w"]
    scores: Float[Tensor, " n"]  # 0 to 1
    labels: Int64[Tensor, " n"]  # index into the segmenter's categories
    left_out: Float[Tensor, " m"] = field(default_factory=lambda: torch.zeros(0))  # scores of what was not drawn, about

    @property
    def all_scores(self) -> Float[Tensor, " k"]:
        """The scores of what was drawn and of what was not."""
        return torch.cat([self.scores.cpu(), self.left_out.cpu()])

    @staticmethod
    def none(size: tuple[int, int]) -> Detections:
        """No detection in a frame of `size` (h, w)."""
        return Detections(torch.zeros(0, *size, dtype=torch.bool), torch.zeros(0), torch.zeros(0, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, rows: Tensor | Sequence[int]) -> Detections:
        """The detections of some rows, given as indices or as a bool tensor."""
        if isinstance(rows, Tensor) and rows.dtype == torch.bool and rows.all():
            return self  # masks are large: no copy of all of them
        at = rows if isinstance(rows, Tensor) else torch.as_tensor(rows, dtype=torch.int64)
        return Detections(self.masks[at], self.scores[at], self.labels[at])


@dataclass(frozen=True)
class Prediction:
    """A propagator's belief about one frame: k hypotheses for each object it remembers. Row n is ids[n].

    Logits and tokens may be on the propagator's device; what is a number for each hypothesis is on the CPU.
    """

    ids: tuple[int, ...]
    logits: Float[Tensor, "n k h w"]  # at the propagator's own resolution; > 0: inside
    quality: Float[Tensor, "n k"]  # expected mask IoU, 0 to 1
    presence: Float[Tensor, "n k"]  # > 0: the object is in the frame
    tokens: Float[Tensor, "n k c"] | None = None  # what the propagator wants to have back with `commit`

    def only(self, rows: Sequence[int]) -> Prediction:
        """The belief about some rows."""
        if list(rows) == list(range(len(self.ids))):
            return self
        at = torch.as_tensor(rows, dtype=torch.int64)
        return self._at(tuple(self.ids[r] for r in rows), lambda x: x[at])

    def pick(self, choice: Int64[Tensor, " n"]) -> Prediction:
        """One hypothesis of each object (k = 1)."""
        rows = torch.arange(len(self.ids))
        return self._at(self.ids, lambda x: x[rows, choice][:, None])

    @property
    def choice(self) -> Int64[Tensor, " n"]:
        """The number of each object's hypothesis of highest quality."""
        return self.quality.argmax(dim=1)

    @property
    def best(self) -> Prediction:
        """Each object's hypothesis of highest quality (k = 1)."""
        return self if self.logits.shape[1] == 1 else self.pick(self.choice)

    def _at(self, ids: tuple[int, ...], part: Callable[[Tensor], Tensor]) -> Prediction:
        tokens = None if self.tokens is None else part(self.tokens)
        return Prediction(ids, part(self.logits), part(self.quality), part(self.presence), tokens)

    def masks(self, size: tuple[int, int]) -> Bool[Tensor, "n h w"]:
        """The best hypotheses at the video's size, on the CPU; empty where the object is held to be absent."""
        if self.logits.device.type != "cpu":
            return fetch_masks(self._threshold(size))
        masks = np.zeros((len(self.ids), *size), bool)
        for row, window, logits in self.draw(size):
            masks[row][window] = logits.numpy() > 0
        return torch.from_numpy(masks)

    def encode(self, size: tuple[int, int]) -> list[Rle]:
        """The run lengths of `masks`; where the belief is on another device than the CPU, they are found there."""
        masks = self.masks(size) if self.logits.device.type == "cpu" else self._threshold(size)
        return encode_masks(masks)

    def _threshold(self, size: tuple[int, int]) -> Bool[Tensor, "n h w"]:
        """The best hypotheses at the video's size, on the belief's device."""
        return threshold_maps(self.best.logits[:, 0], self._list_present(), size)

    def _list_present(self) -> list[int]:
        """The rows of what is held to be present, by the best hypothesis."""
        return [row for row, k in enumerate(self.choice.tolist()) if self.presence[row, k] > 0]

    def label_map(self, size: tuple[int, int]) -> LabelMap:
        """The best hypotheses at the video's size, no pixel twice: where several claim one, that of greatest logit has
        it, on a tie the first.
        """
        if self.logits.device.type != "cpu":
            return LabelMap(self.ids, paint_maps(self.best.logits[:, 0], self._list_present(), size))
        return paint_greatest(self.draw(size), self.ids, size)

    def draw(self, size: tuple[int, int]) -> Iterator[tuple[int, tuple[slice, slice], Float[Tensor, "y x"]]]:
        """The best hypotheses of what is held to be present, at the video's size: each one's row, the window in which
        it can be above 0, and its logits there.
        """
        choice, there = self.choice.tolist(), self._list_present()
        drawn = resize_above_zero([self.logits[row, choice[row]] for row in there], size)
        return ((there[n], window, logits) for n, window, logits in drawn)


def paint_greatest(
    drawn: Iterable[tuple[int, tuple[slice, slice], Float[Tensor, "y x"]]], ids: tuple[int, ...], size: tuple[int, int]
) -> LabelMap:
    """Masks of which no two share a pixel: where several are above 0 the greatest has it, on a tie the first.

    Args:
        drawn: of some rows, the window in which each can be above 0, and its values there (`Prediction.draw`).
        ids: of all rows.
        size: (h, w).
    """
    greatest, rows = torch.zeros(size), torch.zeros(size, dtype=torch.int32)
    for row, window, logits in drawn:
        rows[window].masked_fill_(logits > greatest[window], row + 1)
        greatest[window] = torch.maximum(greatest[window], logits)
    return LabelMap(ids, rows.numpy())


@dataclass(frozen=True)
class Branches(Prediction):
    """A belief in several pathways through time, the best first (SAM2Long). Here k counts pathways."""

    origins: Int64[Tensor, "n k"] = field(kw_only=True)  # the pathway of the last frame that each one continues
    hypotheses: Int64[Tensor, "n k"] = field(kw_only=True)  # by which of its hypotheses
    totals: Float64[Tensor, "n k"] = field(kw_only=True)  # cumulative scores

    @property
    def choice(self) -> Int64[Tensor, " n"]:
        """The best pathway so far, which need not have the mask of highest quality in this frame."""
        return torch.zeros(len(self.ids), dtype=torch.int64)

    @property
    def best(self) -> Prediction:
        """The best pathway of each object (k = 1)."""
        return self.pick(self.choice)

    def only(self, rows: Sequence[int]) -> Branches:
        """The belief about some rows."""
        at = torch.as_tensor(rows, dtype=torch.int64)
        plain = super().only(rows)
        own = {"origins": self.origins[at], "hypotheses": self.hypotheses[at], "totals": self.totals[at]}
        return Branches(plain.ids, plain.logits, plain.quality, plain.presence, plain.tokens, **own)

    def pathways(self, ids: tuple[int, ...], rows: Sequence[tuple[int, int]]) -> Prediction:
        """Some pathways, given as (row, pathway), as objects of their own."""
        at, k = torch.tensor(rows, dtype=torch.int64).view(-1, 2).unbind(1)
        return self._at(ids, lambda x: x[at, k][:, None])


@dataclass(frozen=True)
class Box:
    """A prompt: the object fills this box. Pixels; x1 and y1 are one past the last."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class Point:
    """A prompt: the object covers this pixel, or does not."""

    x: float
    y: float
    inside: bool = True


@dataclass(frozen=True)
class Clicks:
    """A prompt: all that a user has marked of the object in this frame so far, in that order; a mask is corrected by
    the points.
    """

    points: tuple[Point, ...]
    box: Box | None = None
    mask: Bool[Tensor, "h w"] | None = field(default=None, compare=False)

    @staticmethod
    def of(prompt: Prompt) -> Clicks:
        """Any prompt as clicks.

        >>> Clicks.of(Point(3, 4))
        Clicks(points=(Point(x=3, y=4, inside=True),), box=None, mask=None)
        """
        if isinstance(prompt, Clicks):
            return prompt
        if isinstance(prompt, Box):
            return Clicks((), prompt)
        return Clicks((prompt,)) if isinstance(prompt, Point) else Clicks((), None, prompt)

    def scaled(self, x: float, y: float) -> Clicks:
        """The same in an image that has x and y times as many pixels across; a point is in the middle of its pixel."""
        points = tuple(replace(p, x=(p.x + 0.5) * x - 0.5, y=(p.y + 0.5) * y - 0.5) for p in self.points)
        box = self.box and Box(self.box.x0 * x, self.box.y0 * y, self.box.x1 * x, self.box.y1 * y)
        mask = self.mask
        if mask is not None:
            size = (round(mask.shape[0] * y), round(mask.shape[1] * x))
            mask = resize_bilinear(mask[None].float(), size)[0] > 0.5
        return Clicks(points, box, mask)

    @property
    def is_marking(self) -> bool:
        """Whether something says where the object is, and not only where it is not."""
        return self.box is not None or self.mask is not None or any(p.inside for p in self.points)


Prompt = Tensor | Box | Point | Clicks  # a Tensor is a mask, Bool[h w]


@dataclass(frozen=True)
class Exemplar:
    """One thing of the kind that is looked for, shown in a frame.

    >>> str(Exemplar(3, "dog", Box(10, 20, 60, 80)))
    'exemplar of dog in frame 3'
    """

    frame: int  # counted from 0
    name: str  # what things of the kind are called
    shape: Box | Bool[Tensor, "h w"]

    def __str__(self) -> str:
        return f"exemplar of {self.name} in frame {self.frame}"

    @property
    def key(self) -> tuple[object, ...]:
        """What tells it from another one."""
        shown = self.shape.numpy().tobytes() if isinstance(self.shape, Tensor) else self.shape
        return self.frame, self.name, shown


@dataclass(frozen=True)
class FrameMasks:
    """What a system says about one frame while it streams. Row n is ids[n]."""

    index: int
    ids: tuple[int, ...]
    masks: Bool[Tensor, "n h w"]
    scores: Float[Tensor, " n"]  # how sure the system is of the object in this frame, 0 to 1
    labels: Int64[Tensor, " n"]  # -1: no name yet
