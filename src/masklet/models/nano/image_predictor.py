"""Clicks, boxes and earlier answers to masks, in one image and without any download: `nano`'s image predictor.

Every object is looked at in a square crop of its own. Clicks are answered one after the other, each with the answer so
far at hand; where the first answer fills little of the image, the network looks again from near by. The answer to a box
or to a first click it sees once more: that is worth 0.004 to 0.007 of its IoU; of further clicks the mean of two
answers counts. Beside a prompt, or a box that somebody found, it also sees the maps of NanoDet, which has learnt from a
hundred times as many pictures.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from math import ceil, floor, hypot, inf
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, Shaped, UInt8
from torch import Tensor

from masklet.core.instances import Box, Clicks, Point
from masklet.core.label_map import find_mask_slices
from masklet.core.masks import stack_masks
from masklet.core.part_facts import CPU
from masklet.models.encoder import DEEP, MEAN, MOBILENET, STD
from masklet.models.nano.nanodet import PACKAGED as NANODET
from masklet.models.nano.nanodet import load_nanodet_network
from masklet.nn.fused_convolution import fuse_convolutions, leave_weights_undrawn
from masklet.nn.half_weights import has_bfloat16_matrices
from masklet.nn.nanodet import NanoDetNetwork
from masklet.nn.prompt_network import FIXED, MAPS, PromptNetwork
from masklet.weights.format import copy_module_weights, read_described, write_described
from masklet.weights.store import ZOO, read_packaged, verify_packaged
from masklet.weights.strict import lay_out_for_convolution, load_exactly

PACKAGED = "nano-image-predictor"  # in the zoo
KIND = "nano-image-predictor"  # in the metadata of its files
SIDE = 192  # of a crop as the network sees it, pixels
CAREFUL = 256  # the same of what somebody asked for: there are few of those
REDRAWN = (96, 128, 160, 192)  # the same of a mask that is redrawn, the least that is enough
ENLARGED = 2.0  # times as large as it is, what is redrawn is seen at most: answers are half as large as crops
RADIUS = 4  # of the disk that stands for a click, pixels of the crop
BOX_VIEW = 1.4  # side of the crop around a box, in longer sides of the box
ANSWER_VIEW = 1.6  # the same around an earlier answer
NEAR = 0.6  # of the image's longer side: a smaller view than this is worth another look
OUTSIDE = -10.0  # logit where nothing was looked at
SURE = 6.0  # of a mask that somebody gave
DOUBT = 4.0  # the same of one that is redrawn, and of what is drawn, at most
AGREED = 0.6  # IoU from which what is drawn shows the same thing as the mask that was believed
SMALLEST = 80  # pixels of a mask that is redrawn
MARGIN = 0.05  # of the sides of a box that was found: what is drawn further outside is cut off
ASKED_MARGIN = 0.02  # the same of a box that somebody asks for: those are more exact
GREY = (124, 116, 104)  # the mean of ImageNet's images, where there is no image

RgbImage = UInt8[np.ndarray, "h w 3"]
Logits = Float32[np.ndarray, "h w"]
Maps = Float32[np.ndarray, "m s s"]


@dataclass(frozen=True)
class MaskHypotheses:
    """The mask that a prompt describes, at the image's size."""

    logits: Float[Tensor, "k h w"]  # > 0: inside; the best hypothesis first
    quality: Float[Tensor, " k"]  # expected mask IoU, 0 to 1


@dataclass(frozen=True)
class Crop:
    """A square of an image, in its pixels; it may reach over the border."""

    x: int
    y: int
    side: int

    @staticmethod
    def around(x0: float, y0: float, x1: float, y1: float, scale: float) -> Crop:
        """The square around the middle of the box `x0`, `y0`, `x1`, `y1` (pixels), `scale` times its longer side wide,
        and at least 8 pixels.
        """
        side = max(ceil(scale * max(x1 - x0, y1 - y0)), 8)
        return Crop(floor((x0 + x1 - side) / 2), floor((y0 + y1 - side) / 2), side)

    def cut(self, image: Shaped[np.ndarray, "h w ..."], side: int, border: Any) -> Shaped[np.ndarray, "s s ..."]:
        """What of an image or a map lies in the square, `side` pixels wide; `border` where there is nothing."""
        h, w = image.shape[:2]
        x0, y0, x1, y1 = self._within(h, w)
        pads = y0 - self.y, self.y + self.side - y1, x0 - self.x, self.x + self.side - x1
        inner = image[y0:y1, x0:x1]
        if not inner.size:  # beside the image
            return np.full_like(image, border, shape=(side, side, *image.shape[2:]))
        whole = cv2.copyMakeBorder(inner, *pads, cv2.BORDER_CONSTANT, value=border) if any(pads) else inner
        how = cv2.INTER_AREA if side < self.side else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(whole, (side, side), interpolation=how))

    def paste(self, logits: Float32[np.ndarray, "s s"], size: tuple[int, int]) -> Logits:
        """Logits of the crop in an image of `size` (h, w)."""
        whole = np.full(size, OUTSIDE, np.float32)
        whole[self.window(*size)] = self.enlarge(logits, size)
        return whole

    def enlarge(self, logits: Float32[np.ndarray, "s s"], size: tuple[int, int]) -> Logits:
        """Logits of the crop in the part of it that lies in an image of `size` (h, w)."""
        x0, y0, x1, y1 = self._within(*size)
        if x0 == x1 or y0 == y1:
            return np.zeros((y1 - y0, x1 - x0), np.float32)
        large = cv2.resize(logits, (self.side, self.side), interpolation=cv2.INTER_LINEAR)
        return np.asarray(large[y0 - self.y : y1 - self.y, x0 - self.x : x1 - self.x])

    def window(self, h: int, w: int) -> tuple[slice, slice]:
        """The rows and columns of an image of that size that lie in the square."""
        x0, y0, x1, y1 = self._within(h, w)
        return slice(y0, y1), slice(x0, x1)

    def _within(self, h: int, w: int) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 of the part that lies in an image; x0 = x1 or y0 = y1 where there is none."""
        x0, y0 = min(max(self.x, 0), w), min(max(self.y, 0), h)
        return x0, y0, max(min(self.x + self.side, w), x0), max(min(self.y + self.side, h), y0)

    def see(self, point: Point, side: int) -> Point:
        """A place of the image, in pixels of the crop as the network sees it, `side` pixels wide."""
        scale = side / self.side
        return replace(point, x=(point.x + 0.5 - self.x) * scale, y=(point.y + 0.5 - self.y) * scale)

    def see_box(self, box: Box, side: int) -> Box:
        """A box of the image, in pixels of the crop as the network sees it, `side` pixels wide."""
        scale = side / self.side
        x0, x1, y0, y1 = (
            (v - o) * scale for v, o in ((box.x0, self.x), (box.x1, self.x), (box.y0, self.y), (box.y1, self.y))
        )
        return Box(x0, y0, x1, y1)


@dataclass(frozen=True)
class _PromptState:
    """A prompt so far, in the image's pixels, and the answer to it, which the next click will see."""

    points: tuple[Point, ...] = ()
    box: Box | None = None
    logits: Float32[np.ndarray, "k h w"] | None = None  # the best one first
    quality: tuple[float, ...] = ()

    @property
    def soft(self) -> Logits | None:
        """The answer as probabilities; None where there is none, or nothing in it."""
        if self.logits is None or not (self.logits[0] > 0).any():
            return None
        return np.asarray(1 / (1 + np.exp(-self.logits[0].clip(-30, 30))))

    def changed_at(self, point: Point, before: _PromptState) -> _PromptState:
        """The answer where a click asks for it, the one before elsewhere: somebody who corrects a mask in one place
        means the rest to stay (progressive merge, Chen et al. 2022, arXiv:2204.02574, section 3.4).
        """
        assert self.logits is not None and before.logits is not None
        new, old = self.logits[0], before.logits[0]
        changed = ((new > 0) & (old <= 0)) if point.inside else ((new <= 0) & (old > 0))
        x, y = find_pixel(point, new.shape)
        parts = cv2.connectedComponents(changed.view(np.uint8), connectivity=4)[1]
        here = changed & (parts == parts[y, x])
        return replace(self, logits=np.where(here, new, old)[None])

    def obeys(self, point: Point) -> bool:
        """Whether the answer is as a click says."""
        if self.logits is None:
            return False
        x, y = find_pixel(point, self.logits.shape[1:])
        return bool((self.logits[0, y, x] > 0) == point.inside)


class ImagePredictor:
    """Masks of prompts in single images."""

    def __init__(
        self,
        net: PromptNetwork,
        weights: Mapping[str, str] | None = None,
        at_once: int = 8,
        load_detector: Callable[[], NanoDetNetwork | None] = lambda: None,
    ) -> None:
        """
        Args:
            net: of `read_prompt_network`.
            weights: sha256 of its file and of the detector's, by name.
            at_once: boxes that go through the network together.
            load_detector: gives the network whose maps are seen beside prompts, at the first prompt.
        """
        self.net, self.weights, self.at_once = net, dict(weights or {}), at_once
        self.device = next(net.parameters()).device
        self._load_detector = load_detector
        # What was asked last, and the answer: somebody who adds a click to it waits for that one alone.
        self._kept: tuple[tuple[bytes, Box | None], _PromptState] | None = None

    @cached_property
    def _detector(self) -> NanoDetNetwork | None:
        return self._load_detector()

    def predict(self, image: RgbImage, clicks: Clicks, earlier: Logits | None = None) -> MaskHypotheses:
        """The mask that clicks, a box and an earlier answer describe together.

        Args:
            image: RGB.
            clicks: at least a box, a point inside or a mask, unless there is an earlier answer; pixels of the image.
            earlier: mask logits that the clicks correct; those of `clicks.mask` count in its place.

        Returns:
            Three hypotheses where one click is all that is said, else one.
        """
        given = earlier if clicks.mask is None else np.where(clicks.mask.cpu().numpy(), SURE, -SURE).astype(np.float32)
        told = _PromptState(box=clicks.box) if given is None else _PromptState((), clicks.box, given[None], (1.0,))
        drawn = clicks.box is not None or told.soft is not None
        points = clicks.points if drawn else _put_inside_first(clicks.points)
        if not (drawn or points):
            return make_empty_hypotheses(image.shape[:2])
        key = _hash_arrays(image, given), clicks.box
        asked = self._recall(key, points) or self._begin(image, told, points)
        for point in points[len(asked.points) :]:
            asked = self._add_click(image, asked, point, drawn=drawn)
        self._kept = key, asked
        assert asked.logits is not None
        logits = np.stack([apply_clicks(one, asked.points) for one in asked.logits])
        return MaskHypotheses(torch.from_numpy(logits), torch.tensor(asked.quality))

    def predict_boxes(
        self, image: RgbImage, boxes: Float[Tensor, "n 4"]
    ) -> tuple[Bool[Tensor, "n h w"], Float[Tensor, " n"]]:
        """What fills each box (x0, y0, x1, y1, pixels), and the mask IoU that is expected of it."""
        masks, quality = [], []
        for group in torch.split(boxes, self.at_once) if len(boxes) else ():
            asked = [_PromptState(box=Box(*box)) for box in group.tolist()]
            views = [_choose_crop(one, image.shape[:2]) for one in asked]
            logits, expected = self._look(image, asked, views, self._detector)
            for one, view, answer in zip(asked, views, logits[:, 0], strict=True):
                masks.append(torch.from_numpy(_clip_to_box(view.paste(answer, image.shape[:2]), one, MARGIN) > 0))
            quality.append(expected[:, 0])
        none = torch.zeros(0)
        return stack_masks(masks, image.shape[:2]), torch.cat([none, *(torch.from_numpy(q) for q in quality)])

    def redraw(self, image: RgbImage, believed: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
        """Masks that somebody believes, corrected by what the network draws of each: it is told the mask and its box.

        Args:
            image: RGB.
            believed: mask logits.

        Returns:
            The mean of both where they agree on the whole, else what was believed, logits.
        """
        out = believed.clone()
        asked: dict[int, list[tuple[Logits, Box, Crop]]] = {side: [] for side in REDRAWN}
        for logits in out.numpy():
            mask = logits > 0
            if np.count_nonzero(mask) >= SMALLEST:
                box = _find_mask_box(mask)
                view = Crop.around(box.x0, box.y0, box.x1, box.y1, BOX_VIEW)
                asked[_choose_redrawn_side(view)].append((logits, box, view))
        for side, masks in asked.items():
            for start in range(0, len(masks), self.at_once):
                group = masks[start : start + self.at_once]
                maps = np.stack([_make_mask_maps(*one, side) for one in group])
                drawn = self._draw([view.cut(image, side, GREY) for *_, view in group], maps)[:, 0]
                for (logits, _, view), answer in zip(group, drawn, strict=True):
                    _correct_mask(logits, view, answer)
        return out

    def predict_points(
        self, image: RgbImage, points: Sequence[Point], least: float
    ) -> Iterator[tuple[Float[Tensor, "h w"], float]]:
        """What may be at each of many points of one image: of three hypotheses those of which more than `least` is
        expected; others are not drawn.

        Yields:
            Logits, and the mask IoU that is expected, point by point, the best first.
        """
        size = (image.shape[0], image.shape[1])
        whole = Crop.around(0, 0, size[1], size[0], 1)
        for start in range(0, len(points), self.at_once):
            asked = [_PromptState((point,)) for point in points[start : start + self.at_once]]
            looks = [(whole, *answer) for answer in zip(*self._look(image, asked, [whole] * len(asked)), strict=True)]
            first = [_record_best(one, *look, size) for one, look in zip(asked, looks, strict=True)]
            views = [_choose_crop(one, size) for one in first]
            near = [n for n, view in enumerate(views) if view.side < NEAR * whole.side]
            if near:
                again = self._look(image, [first[n] for n in near], [views[n] for n in near])
                for n, *answer in zip(near, *again, strict=True):
                    looks[n] = (views[n], *answer)
            for view, logits, quality in looks:
                for k in _rank_hypotheses(quality):
                    if quality[k] > np.float32(least):
                        yield torch.from_numpy(view.paste(logits[k], size)), float(quality[k])

    def _recall(self, key: tuple[bytes, Box | None], points: tuple[Point, ...]) -> _PromptState | None:
        """The last answer, where `points` only add to what was asked then."""
        if self._kept is None or self._kept[0] != key:
            return None
        asked = self._kept[1]
        return asked if points[: len(asked.points)] == asked.points else None

    def _begin(self, image: RgbImage, told: _PromptState, points: Sequence[Point]) -> _PromptState:
        """The answer before any further click: to a box, to what is drawn already, or to the first of the points."""
        if told.box:
            return self._ask(image, self._ask(image, told))  # with the answer at hand
        return self._click_anew(image, points[0]) if told.soft is None else told

    def _click_anew(self, image: RgbImage, point: Point) -> _PromptState:
        """The first click: a look at the whole image, one from near by, and one more with the answer at hand."""
        h, w = image.shape[:2]
        side = max(h, w)
        whole = Crop((w - side) // 2, (h - side) // 2, side)
        asked = self._answer(image, _PromptState((point,)), whole, doubtful=True)
        view = _choose_crop(asked, (h, w))
        if view.side < NEAR * side:
            asked = self._answer(image, asked, view, doubtful=True)
        return self._answer(image, asked, _choose_crop(asked, (h, w)), doubtful=True)

    def _add_click(self, image: RgbImage, before: _PromptState, point: Point, *, drawn: bool) -> _PromptState:
        """The answer to one click more, the mean of two looks; where something was `drawn` before anybody clicked, that
        is changed where the click asks for it, by one: two of them change too much.
        """
        asked = replace(before, points=(*before.points, point))
        if drawn and before.obeys(point):  # it says nothing new of what is drawn: corrections lie on errors
            return asked
        first = self._ask(image, asked)
        if drawn:
            return first.changed_at(point, asked)
        return _compute_mean_answer(first, self._ask(image, first))

    def _ask(self, image: RgbImage, asked: _PromptState) -> _PromptState:
        """One more look, from where all that is known of the object is seen."""
        return self._answer(image, asked, _choose_crop(asked, image.shape[:2]), doubtful=False)

    def _answer(self, image: RgbImage, asked: _PromptState, view: Crop, *, doubtful: bool) -> _PromptState:
        logits, quality = self._look_twice(image, asked, view)
        return _record_answer(asked, view, logits[0], quality[0], image.shape[:2], doubtful=doubtful)

    def _look(
        self,
        image: RgbImage,
        asked: Sequence[_PromptState],
        views: Sequence[Crop],
        detector: NanoDetNetwork | None = None,
    ) -> tuple[Float32[np.ndarray, "b k s2 s2"], Float32[np.ndarray, "b k"]]:
        maps = np.stack([_make_prompt_maps(one, view, SIDE) for one, view in zip(asked, views, strict=True)])
        return self._compute([view.cut(image, SIDE, GREY) for view in views], maps, detector)

    def _look_twice(
        self, image: RgbImage, asked: _PromptState, view: Crop
    ) -> tuple[Float32[np.ndarray, "1 k s2 s2"], Float32[np.ndarray, "1 k"]]:
        """The mean of the answers to the crop, seen more sharply, and to its mirror image: where there are few prompts
        it is worth the time.
        """
        crop, maps = view.cut(image, CAREFUL, GREY), _make_prompt_maps(asked, view, CAREFUL)
        both = np.stack([maps, maps[..., ::-1]])
        logits, quality = self._compute([crop, np.ascontiguousarray(crop[:, ::-1])], both, self._detector)
        return (logits[:1] + logits[1:, ..., ::-1]) / 2, quality.mean(0, keepdims=True)

    @torch.no_grad()
    def _compute(
        self,
        crops: Sequence[RgbImage],
        maps: Float32[np.ndarray, "b m s s"],
        detector: NanoDetNetwork | None = None,
    ) -> tuple[Float32[np.ndarray, "b k s2 s2"], Float32[np.ndarray, "b k"]]:
        seen = self.net.look(normalize_crops(crops).to(self.device), detector)
        logits, quality = self.net(seen, order_maps(maps).to(self.device))
        return logits.float().cpu().numpy(), quality.float().sigmoid().cpu().numpy()

    @torch.no_grad()
    def _draw(
        self, crops: Sequence[RgbImage], maps: Float32[np.ndarray, "b m s s"]
    ) -> Float32[np.ndarray, "b k s2 s2"]:
        """As `_compute`, without what is expected of the masks."""
        place = self.device, next(self.net.parameters()).dtype
        seen = self.net.look(normalize_crops(crops).to(*place))
        return self.net.draw(seen, order_maps(maps).to(*place))[0].float().cpu().numpy()


def _rank_hypotheses(quality: Float32[np.ndarray, " k"]) -> Int64[np.ndarray, " k1"]:
    """The numbers of the hypotheses of a doubtful prompt, the best first."""
    return 1 + np.argsort(-quality[1:], kind="stable")


def _put_inside_first(points: tuple[Point, ...]) -> tuple[Point, ...]:
    """The points with the first one inside before all others; none where all are outside."""
    first = next((n for n, point in enumerate(points) if point.inside), None)
    return () if first is None else (points[first], *points[:first], *points[first + 1 :])


def _hash_arrays(*arrays: np.ndarray | None) -> bytes:
    """Of what is in them."""
    hashed = hashlib.blake2b(digest_size=16)
    for array in arrays:
        hashed.update(b"" if array is None else f"{array.shape}".encode() + np.ascontiguousarray(array).data)
    return hashed.digest()


def _compute_mean_answer(first: _PromptState, second: _PromptState) -> _PromptState:
    """What two answers to the same clicks say in the mean."""
    assert first.logits is not None and second.logits is not None
    quality = (first.quality[0] + second.quality[0]) / 2
    return replace(second, logits=(first.logits[:1] + second.logits[:1]) / 2, quality=(quality,))


def _record_best(
    asked: _PromptState,
    view: Crop,
    logits: Float32[np.ndarray, "k s s"],
    quality: Float32[np.ndarray, " k"],
    size: tuple[int, int],
) -> _PromptState:
    """A doubtful prompt of points with the best hypothesis of the network's answer, which is what is seen next."""
    best = _rank_hypotheses(quality)[0]
    return replace(asked, logits=view.paste(logits[best], size)[None], quality=(float(quality[best]),))


def _record_answer(
    asked: _PromptState,
    view: Crop,
    logits: Float32[np.ndarray, "k s s"],
    quality: Float32[np.ndarray, " k"],
    size: tuple[int, ...],
    *,
    doubtful: bool,
) -> _PromptState:
    """The prompt with the network's answer, the best hypothesis first where it leaves doubt."""
    rows = _rank_hypotheses(quality) if doubtful else np.array([0])
    found = np.stack([_clip_to_box(view.paste(logits[k], (size[0], size[1])), asked, ASKED_MARGIN) for k in rows])
    return replace(asked, logits=found, quality=tuple(quality[rows].tolist()))


def _find_mask_box(mask: Bool[np.ndarray, "h w"]) -> Box:
    """The box of a mask that is not empty."""
    y, x = find_mask_slices(mask)
    return Box(float(x.start), float(y.start), float(x.stop), float(y.stop))


def _choose_redrawn_side(view: Crop) -> int:
    """Of the crop in which a mask is redrawn, pixels: a small one has no more to show."""
    return next((side for side in REDRAWN if side >= ENLARGED * view.side), REDRAWN[-1])


def _make_mask_maps(logits: Logits, box: Box, view: Crop, side: int) -> Maps:
    """A mask that is drawn anew, and its box, as the network sees them in a crop `side` pixels wide."""
    window = view.window(*logits.shape)
    soft = np.zeros_like(logits)
    soft[window] = 1 / (1 + np.exp(-logits[window].clip(-DOUBT, DOUBT)))
    return draw_prompt_maps([], view.see_box(box, side), view.cut(soft, side, 0.0), side)


def _correct_mask(logits: Logits, view: Crop, drawn: Float32[np.ndarray, "s s"]) -> None:
    """Makes mask logits the mean of them and of what was drawn in a crop, there, where both show the same thing."""
    here, other = logits[view.window(*logits.shape)], view.enlarge(drawn, (logits.shape[0], logits.shape[1]))
    before, after = here > 0, other > 0
    if np.count_nonzero(before & after) >= AGREED * np.count_nonzero(before | after):
        here += other.clip(-DOUBT, DOUBT)
        here /= 2


def _choose_crop(asked: _PromptState, size: tuple[int, ...]) -> Crop:
    """The square in which all is seen that is known of an object: its box, its clicks, the answer so far."""
    boxes = [(b.x0, b.y0, b.x1, b.y1) for b in ([asked.box] if asked.box else [])]
    boxes += [(p.x, p.y, p.x + 1, p.y + 1) for p in asked.points]
    if asked.logits is not None and (asked.logits[0] > 0).any():
        ys, xs = (np.flatnonzero((asked.logits[0] > 0).any(axis)) for axis in (1, 0))
        boxes.append((xs[0], ys[0], xs[-1] + 1, ys[-1] + 1))
    x0, y0, x1, y1 = np.array(boxes).T
    scale = BOX_VIEW if asked.box else ANSWER_VIEW
    return Crop.around(float(x0.min()), float(y0.min()), float(x1.max()), float(y1.max()), scale)


def _make_prompt_maps(asked: _PromptState, view: Crop, side: int) -> Maps:
    """What is known of an object as the network sees it, in a crop `side` pixels wide."""
    soft = asked.soft
    return draw_prompt_maps(
        [view.see(point, side) for point in asked.points],
        view.see_box(asked.box, side) if asked.box else None,
        None if soft is None else view.cut(soft, side, 0.0),
        side,
    )


def _clip_to_box(logits: Logits, asked: _PromptState, margin: float) -> Logits:
    """The answer to a box without what lies outside it and a margin, a share of its sides, but for where somebody
    clicked.
    """
    if asked.box is None or asked.points:
        return logits
    box = asked.box
    x, y = margin * (box.x1 - box.x0), margin * (box.y1 - box.y0)
    x0, y0, x1, y1 = (max(round(v), 0) for v in (box.x0 - x, box.y0 - y, box.x1 + x, box.y1 + y))
    out = np.full_like(logits, OUTSIDE)
    out[y0:y1, x0:x1] = logits[y0:y1, x0:x1]
    return out


def apply_clicks(logits: Logits, points: Sequence[Point]) -> Logits:
    """The answer with what was clicked as the clicks say, whatever the network made of it."""
    out = logits.copy()
    places = [find_pixel(point, out.shape) for point in points]
    for (x, y), point in zip(places, points, strict=True):
        if (out[y, x] > 0) != point.inside:
            others = [at for at, other in zip(places, points, strict=True) if other.inside != point.inside]
            apart = min((hypot(x - u, y - v) for u, v in others), default=inf)
            radius = max(ceil(min(apart, RADIUS + 1)) - 1, 0)  # short of clicks that say otherwise
            cv2.circle(out, (x, y), radius, SURE if point.inside else -SURE, cv2.FILLED)
    return out


def find_pixel(point: Point, size: tuple[int, ...]) -> tuple[int, int]:
    """x and y of the pixel of an image of `size` (h, w) whose middle is nearest.

    >>> find_pixel(Point(2.7, -0.3), (4, 6))
    (3, 0)
    """
    return min(max(round(point.x), 0), size[1] - 1), min(max(round(point.y), 0), size[0] - 1)


def make_empty_hypotheses(size: tuple[int, ...]) -> MaskHypotheses:
    """The answer to what describes no object."""
    return MaskHypotheses(torch.full((1, *size), OUTSIDE), torch.zeros(1))


def draw_prompt_maps(points: Sequence[Point], box: Box | None, earlier: Logits | None, side: int) -> Maps:
    """A prompt as the network sees it.

    Args:
        points: clicks, in pixels of the crop.
        box: likewise.
        earlier: the probabilities of an earlier answer, [side side].
        side: of the crop.
    """
    maps = np.zeros((MAPS, side, side), np.float32)
    for point in points:
        at = (round(point.x - 0.5), round(point.y - 0.5))
        cv2.circle(maps[0 if point.inside else 1], at, RADIUS, 1.0, cv2.FILLED)
    if box:
        x0, y0, x1, y1 = (min(max(round(v), 0), side) for v in (box.x0, box.y0, box.x1, box.y1))
        maps[2, y0:y1, x0:x1] = 1
    if earlier is not None:
        maps[3] = 2 * earlier - 1
    return maps


def normalize_crops(images: Sequence[RgbImage]) -> Float[Tensor, "b 3 s s"]:
    """Crops in ImageNet's normalisation, in the order of memory that convolutions like best on a CPU."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) * 255 for v in (MEAN, STD))
    crops = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    return ((crops - mean) / std).contiguous(memory_format=torch.channels_last)


def order_maps(maps: Float32[np.ndarray, "b m s s"]) -> Float[Tensor, "b m s s"]:
    """Prompts of crops, which are drawn map by map, in the order of memory that convolutions like best on a CPU."""
    return torch.from_numpy(maps).contiguous(memory_format=torch.channels_last)


# -- the network


def create_prompt_network(seed: int = 0) -> PromptNetwork:
    """The network as training begins: ImageNet's MobileNetV2, and heads of random weights.

    Raises InputError on damaged weights.
    """
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        net = PromptNetwork()
    held = {**read_packaged(ZOO[MOBILENET]), **read_packaged(ZOO[DEEP])}
    state = {}
    for name, value in held.items():
        part, _, rest = name.partition(".")
        number, _, inner = rest.partition(".")
        if part == "blocks":  # files count blocks from 0
            n = int(number)
            name = f"fixed.{n}.{inner}" if n < FIXED else f"blocks.{n - FIXED}.{inner}"
        state[name] = value.float()
    missing, unexpected = net.load_state_dict(state, strict=False)
    assert not unexpected and not any(m.startswith(("stem", "fixed", "blocks")) for m in missing)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # two thirds of the time
    return net


def save_prompt_network(path: Path, net: PromptNetwork) -> None:
    """One safetensors file in float16 that `read_prompt_network` reads."""
    write_described(path, KIND, copy_module_weights(net, torch.float16), {})


def read_prompt_network(path: Path) -> PromptNetwork:
    """The network of a file that `save_prompt_network` wrote: float32, eval, no gradients.

    Raises InputError where the file is of something else or damaged.
    """
    held = read_described(path, KIND, "nano's image predictor, as masklet train image-predictor writes them")
    with leave_weights_undrawn():
        net = PromptNetwork()
    return load_exactly(net, lay_out_for_convolution(held.tensors), path, "nano's image predictor")


def load_image_predictor(device: torch.device = CPU) -> ImagePredictor:
    """The packaged one on a `device`, the same at every call. Raises InputError where its file is damaged or gone."""
    return _load_packaged(str(device))


@cache
def _load_packaged(device: str) -> ImagePredictor:
    file, detector = ZOO[PACKAGED], ZOO[NANODET]
    predictor = read_image_predictor(verify_packaged(file), torch.device(device))
    predictor.weights = {one.name: one.sha256 for one in (file, detector)}
    fuse_convolutions(predictor.net)
    return predictor


@cache
def load_quick_redrawer(device: torch.device) -> ImagePredictor:
    """What redraws many masks on a `device`: the packaged predictor; on a CPU that multiplies matrices of bfloat16 a
    copy of it in these numbers, in half of the time.
    """
    predictor = load_image_predictor(device)
    if device.type != "cpu" or not has_bfloat16_matrices():
        return predictor
    net = copy.deepcopy(predictor.net).bfloat16()
    fuse_convolutions(net)
    return ImagePredictor(net, predictor.weights)


def read_image_predictor(path: Path, device: torch.device = CPU) -> ImagePredictor:
    """The predictor with the network of a file that `save_prompt_network` wrote, on a `device`, layer by layer. Raises
    InputError as `read_prompt_network`.
    """
    net = read_prompt_network(path).to(device)
    return ImagePredictor(net, load_detector=partial(load_nanodet_network, device))
