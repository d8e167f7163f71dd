"""Propagator `affinity`: carries masks through time by feature affinity and optical flow. Nothing is trained.

Appearance says what belongs to an object (nn.propagation, from the encoder's features), flow says where it went, and
the guided filter draws the outline. See cards/affinity.md for what it reaches and where it fails.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import ClassVar

import cv2
import numpy as np
import torch
import torch.nn.functional as nnf
from jaxtyping import Bool, Float, Float16, Float32, Int32, Int64, UInt8
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from masklet.core.frames import Frame
from masklet.core.heap import return_freed_memory
from masklet.core.identity_cache import IdentityCache
from masklet.core.instances import Clicks, Prediction, Prompt
from masklet.core.masks import count_common_pixels, has_pixels, resize_bilinear
from masklet.models.encoder import STRIDE, Encoder, EncoderFeatures, FlowFinder, compute_working_size
from masklet.models.nano.image_predictor import load_image_predictor
from masklet.nn.flow import enlarge_flow
from masklet.nn.mask_windows import (
    FlowOrigins,
    Part,
    Window,
    average_over_cells,
    bound_cells,
    enlarge_cells,
    exclude_rivals,
    scale_to_cells,
)
from masklet.nn.outline import fit_guided_filter, quantize_colours
from masklet.nn.parallel import iterate_row_groups
from masklet.nn.parts import detached_components, measure_component_spread
from masklet.nn.propagation import (
    WAVES,
    FrameLink,
    Moments,
    build_cell_descriptors,
    compute_gram,
    compute_log_odds,
    compute_moments,
    find_mask_window,
    measure_colour_shares,
    measure_frame_link,
    solve_regressions,
    tabulate_colour_odds,
)
from masklet.nn.quick_linear import multiply_by_transposed

SURE = 0.02  # a belief is trusted no further than this from 0 and 1
NOWHERE = math.log(SURE / (1 - SURE))
LIKELY = 0.25  # below this, the guided filter has nothing to outline
FAINT = 0.1  # below this, a carried mask does not say where to look for its object
FARTHEST = np.float32(3)  # reaches from the carried mask, beyond which distance counts no more
MARGIN = 3  # cells around where an object may be: twice the widest guided filter
NEXT = np.ones((3, 3), np.uint8)  # a cell and those beside it
BLUR = 9  # pixels by which optical flow is wrong
BYTES = 14  # of each object's maps, for a pixel of the working image; measured with 256 objects at 480p
DRAWN = 3  # of each object's masks, for a pixel of the frame
MANY = 64  # objects whose matrices leave so many holes in memory that it pays to give them back
TOGETHER = 16  # objects whose moments are computed at once: those of one take 1 MB
PREPARED = 5  # frames whose views are kept: the one in use, and those that are made ahead of it
CHANNELS = 2 * 128 + 24 + 3 + 1 + WAVES  # of a descriptor

Map = Float32[np.ndarray, "h w"]


@dataclass(frozen=True)
class Shot:
    """The last frame of a shot. Row n is ids[n] of the memory."""

    grey: UInt8[Tensor, "h w"]  # 0 x 0: no frame yet
    soft: Float16[Tensor, "n h w"]  # the objects' masks, at the working resolution
    unseen: Bool[Tensor, " n"]  # objects that have not been seen since the shot began

    def __getitem__(self, rows: Tensor) -> Shot:
        return Shot(self.grey, self.soft[rows], self.unseen[rows])

    def with_masks(self, rows: Sequence[int], soft: Float16[Tensor, "k h w"], count: int) -> Shot:
        """With the masks `soft` of some objects; there are `count` then, and more than before have not been seen."""
        at, before = torch.tensor(rows, dtype=torch.int64), len(self.soft)
        unseen = nnf.pad(self.unseen, (0, count - before), value=True)
        unseen[at] &= ~torch.tensor([has_pixels(find_above(one, 0.5)) for one in soft], dtype=torch.bool)
        if list(rows) == list(range(count)):  # maps are large: no copy where all of them are new
            return Shot(self.grey, soft, unseen)
        whole = self.soft.new_empty(count, *self.grey.shape)
        whole[:before], whole[before:] = self.soft, 0
        whole[at] = soft
        return Shot(self.grey, whole, unseen)

    @property
    def shows_any(self) -> bool:
        """Whether an object is in sight."""
        return any(has_pixels(find_above(one, 0.5)) for one in self.soft)


@dataclass(frozen=True)
class AffinityMemory:
    """What is known of each object; its size depends on their number alone. Row n is ids[n]."""

    ids: tuple[int, ...]
    anchor: Moments  # of the frame of the first prompt
    recent: Moments  # of the frames since, older ones fading
    last: Shot  # the frame committed last
    left: Shot  # the frame before the last one that did not go on as it should: the next frame may go on from there
    shared: Float[Tensor, "n n"]  # of each two, the share of the smaller that lay in the other where one was given
    scattered: Float[Tensor, " n"]  # how far apart each object's parts were where it was given (`nn.parts`)


@dataclass(frozen=True)
class CarriedMask:
    """An object's mask of another frame, carried to this one."""

    cells: Bool[np.ndarray, "y x"]  # of this frame, in which it may be
    soft: Float16[Tensor, "h w"] | None  # the mask in the other frame; None: it was not there
    origins: FlowOrigins
    is_seen: bool = False  # whether a pixel of it is in this frame

    @staticmethod
    def of(soft: Float16[Tensor, "h w"], origins: FlowOrigins) -> CarriedMask:
        """The `soft` mask of a frame in which the pixels of this one have these `origins`."""
        cells = origins.find_cells(find_mask_window(find_above(soft, FAINT).numpy(), 0))
        whole = CarriedMask(cells, soft, origins)
        return replace(whole, is_seen=bool(cells.any() and (whole.draw(bound_cells(cells, 0)) > 0.5).any()))

    def draw(self, window: Window) -> Part:
        """The mask in a window of this frame."""
        if self.soft is None:
            return np.zeros_like(self.origins.x[window])
        return self.origins.carry(self.soft.float().numpy(), window)


@dataclass(frozen=True)
class WindowedMask:
    """Log odds of an object's mask in the window in which it may be."""

    window: Window
    logits: Part
    outside: float  # the log odds of every pixel outside

    def paste(self, whole: Map) -> None:
        """Writes it into a map of the frame."""
        whole.fill(self.outside)
        whole[self.window] = self.logits

    def score_crispness(self, size: tuple[int, int]) -> float:
        """Expected IoU of the mask in a frame of `size` (h, w) with a draw from its soft mask, 0 to 1."""
        p, inside = 1 / (1 + np.exp(-self.logits)), self.logits > 0
        within = float(p[inside].sum())
        beyond = (size[0] * size[1] - p.size) / (1 + math.exp(-self.outside))
        return float(within / max(np.count_nonzero(inside) + float(p.sum()) - within + beyond, 1))

    def score_appearance(self, looks: Float32[np.ndarray, "y x"]) -> float:
        """Mean appearance within the mask by that of each cell of the frame, -1.5 to 1.5; -1 for an empty one."""
        inside = average_over_cells(self.logits > 0)
        area = float(inside.sum())
        return float((inside * looks[scale_to_cells(self.window)]).sum()) / area if area else -1.0


@dataclass(frozen=True)
class AffinityView:
    """What prediction and learning both want to know of a frame."""

    cells: Float[Tensor, "m d"]  # a descriptor each
    bins: Int32[np.ndarray, "h w"]  # colours
    grey: UInt8[Tensor, "h w"]
    flows: FlowFinder
    _links: dict[int, tuple[Tensor, FrameLink]] = field(
        default_factory=dict
    )  # by the id of the other frame, held with it

    @cached_property
    def gram(self) -> Float[Tensor, "d1 d2"]:
        """The products of all cells' descriptors, for what is learnt of any object in this frame."""
        return compute_gram(self.cells)

    def link(self, before: UInt8[Tensor, "h w"]) -> FrameLink:
        """How this frame goes on from another one."""
        if id(before) not in self._links:
            flow = enlarge_flow(self.flows.find(self.grey, before), (self.grey.shape[0], self.grey.shape[1]))
            self._links[id(before)] = before, measure_frame_link(before.numpy(), self.grey.numpy(), flow)
        return self._links[id(before)][1]

    def origin(self, memory: AffinityMemory) -> tuple[Shot, FrameLink]:
        """What this frame goes on from: as a rule the last one, else whichever explains it best."""
        shots = [memory.last]
        if memory.left.grey.numel() and not self.link(memory.last.grey).is_sound:
            shots.append(memory.left)
        return min(((shot, self.link(shot.grey)) for shot in shots), key=lambda found: found[1].rank)


class RegressionCache:
    """The regressions of objects by the very matrices that determine them, for as long as these are remembered."""

    def __init__(self) -> None:
        self._kept: MutableMapping[Tensor, tuple[Callable[[], Tensor | None], Tensor]] = WeakIdKeyDictionary()

    def find(self, recent: Tensor, anchor: Tensor) -> Float[Tensor, " d"] | None:
        """The regression of these two matrices; None where it is not known."""
        known = self._kept.get(recent)
        return known[1] if known is not None and known[0]() is anchor else None

    def keep(self, regression: Float[Tensor, " d"], recent: Tensor, anchor: Tensor) -> None:
        """Keeps a `regression` of these two matrices."""
        self._kept[recent] = weakref.ref(anchor), regression.clone()


@dataclass(frozen=True)
class Affinity:
    """Training-free propagation with one hypothesis an object. Lengths are pixels of the working image."""

    encoder: Encoder
    contends: ClassVar[bool] = True
    context: int = 5  # cells across of the surroundings that describe a cell
    ridge: float = 3e-3  # damping of the regression
    anchored: float = 0.5  # weight of the first prompt against all that came later
    learning: float = 0.05  # weight of a new frame against those since the first prompt
    appearance: float = 4.0  # log odds of a cell that looks exactly like the object
    colour: float = 2.0  # most that a pixel's colour adds to the log odds
    motion: float = 0.25  # weight of the log odds that the flow carries over
    claim: float = 0.25  # the same, where two objects contend for a pixel
    reach: float = 40.0  # distance from the carried mask at which the log odds are less by `distance`
    distance: float = 2.0
    radius: int = 12  # of the guided filter, for objects of 96 pixels across or more
    flat: float = 1e-4  # of the guided filter: variance of colour that counts as an edge
    around: int = 30  # distance from the object at which the colours of its background are counted
    heed: float = 0.8  # weight of what lies beside an object among all that it is not
    beside: float = 0.7  # how far that reaches, in sides of the square of the object's area
    present: float = -0.3  # mean appearance above which an object is in the frame, -1 to 1
    again: float = 0.5  # the same for an object that was lost
    trust: float = 1.0  # weight of a later prompt against all seen since the first: what was wrong is unlearnt
    revised: float = 0.5  # the same against the prompts before
    nested: float = 0.5  # share of the smaller from which two objects may overlap anywhere, a thing and its part
    _views: IdentityCache[AffinityView] = field(
        default_factory=partial(IdentityCache, PREPARED), repr=False, compare=False
    )
    _regressions: RegressionCache = field(default_factory=lambda: RegressionCache(), repr=False, compare=False)

    def encode(self, frames: Sequence[Frame]) -> list[EncoderFeatures]:
        """The features of each frame, shared with whoever has the same encoder."""
        return [self.encoder(frame) for frame in frames]

    def prepare(self, features: EncoderFeatures) -> None:
        """Computes the descriptors of the frame of these `features`, and how it goes on from the one before."""
        before, view = self._views.get_latest(), self._view(features)
        _ = view.gram
        if before is not None and before.grey.shape == view.grey.shape:
            view.link(before.grey)

    def count_object_bytes(self, size: tuple[int, int]) -> int:
        """About how many bytes each object takes in frames of `size` (h, w): what is remembered of its look before and
        after a frame, and its maps of the working image and of the frame.
        """
        (h, w), (rows, columns) = compute_working_size(size, self.encoder.short), size
        folded = CHANNELS * (CHANNELS + 1) // 2
        return 3 * folded * 4 + BYTES * h * w + DRAWN * rows * columns

    def empty(self) -> AffinityMemory:
        """The memory of no object."""
        none, nobody = Moments.none(0, CHANNELS), torch.zeros(0, dtype=torch.bool)
        shot = Shot(torch.zeros(0, 0, dtype=torch.uint8), torch.zeros(0, 0, 0).half(), nobody)
        return AffinityMemory((), none, none, shot, shot, torch.zeros(0, 0), torch.zeros(0))

    def predict(self, memory: AffinityMemory, features: EncoderFeatures) -> Prediction:
        """Where every remembered object is in this frame, logits at the working resolution."""
        size = features.guide.shape[0], features.guide.shape[1]
        logits = torch.full((len(memory.ids), *size), NOWHERE)
        quality, presence = torch.zeros(len(memory.ids)), torch.full((len(memory.ids),), -1.0)
        if not memory.ids:
            return _make_belief((), logits, quality, presence)
        return_freed_memory_of_many(memory.ids)
        view = self._view(features)
        looks = self._score_looks(view, memory).clamp(-1.5, 1.5).view(-1, *features.keys.shape[1:])
        origin, found = view.origin(memory)
        carried = carry_masks(origin, found)
        lost = torch.tensor([not one.is_seen for one in carried])
        asked = torch.where(lost, self.again, self.present)
        rows = (~lost | (looks.amax((1, 2)) > asked)).nonzero()[:, 0]  # the others cannot be found
        rivals = _measure_rivalry(memory.shared[rows][:, rows], memory.anchor.moment[rows], self.nested)
        rivals[~lost[rows]] *= ~lost[rows]  # what is not seen takes nothing from what is
        for row, one in zip(
            rows.tolist(), self._draw_objects(view, features, memory, looks, carried, rows, rivals), strict=True
        ):
            alike = one.score_appearance(looks[row].numpy())
            presence[row] = alike
            if (origin.unseen[row] or not found.holds) and alike <= asked[row]:
                continue  # what another scene has of its kind is something else
            one.paste(logits[row].numpy())
            quality[row] = math.sqrt(one.score_crispness(size) * min(max(alike, 0.0), 1.0))
        return _make_belief(memory.ids, logits, quality, presence - asked)

    def _draw_objects(
        self,
        view: AffinityView,
        features: EncoderFeatures,
        memory: AffinityMemory,
        looks: Float[Tensor, "n y x"],
        carried: Sequence[CarriedMask],
        rows: Int64[Tensor, " k"],
        rivals: Float[Tensor, "k k"],
    ) -> list[WindowedMask]:
        """The masks of the objects in some `rows`: log odds from appearance, carried masks and colour, contended
        between rivals, outlined, without parts that belong to something else.
        """
        odds = tabulate_colour_odds(self._mix_colours(memory, rows), self.colour)
        places = [self._place(carried[row], looks[row].numpy()) for row in rows.tolist()]
        windows, before, evidence, claims = zip(*places, strict=True) if places else ((), (), (), ())
        for row, table, window, own in zip(rows.tolist(), odds, windows, evidence, strict=True):
            own += self.appearance * enlarge_cells(looks[row].numpy(), window) + table.take(view.bins[window])
        contenders = rivals.numpy(), (memory.shared[rows][:, rows] > 0).numpy(), [there > 0.5 for there in before]
        alone = exclude_rivals(windows, evidence, claims, *contenders, 0.0)
        logits = [
            limit_log_odds(self._outline(features.guide.numpy()[window], 1 / (1 + np.exp(-own))))
            for window, own in zip(windows, alone, strict=True)
        ]
        nothing = [np.zeros_like(own) for own in logits]
        logits = exclude_rivals(windows, logits, nothing, *contenders, math.exp(NOWHERE))  # outlines may have met again
        outside = (NOWHERE - torch.log1p(rivals.sum(1) * math.exp(NOWHERE))).tolist()
        for row, own, there in zip(rows.tolist(), logits, before, strict=True):
            box = find_mask_window(own > 0, 0)
            own[box][detached_components(own[box], there[box], float(memory.scattered[row]))] = NOWHERE
        return [WindowedMask(*one) for one in zip(windows, logits, outside, strict=True)]

    def _place(self, carried: CarriedMask, looks: Float32[np.ndarray, "y x"]) -> tuple[Window, Map, Map, Map]:
        """The window in which an object may be by what it looks like in each cell and by its carried mask; this mask
        there, what it says of the object (log odds), and what it claims before others.
        """
        window = self._find_window(carried, looks)
        there = carried.draw(window)
        if not carried.is_seen:  # the object was not in the last frame: it may come back anywhere
            return window, there, np.zeros_like(there), np.zeros_like(there)
        odds = limit_log_odds(cv2.blur(there, (BLUR, BLUR)))  # blurred by what the flow is wrong
        steps = cv2.distanceTransform((there <= 0.5).view(np.uint8), cv2.DIST_L2, 3) / np.float32(self.reach)
        motion = self.motion * odds - self.distance * np.minimum(steps, FARTHEST)
        return window, there, motion, self.claim * np.minimum(odds, 0)

    def _find_window(self, carried: CarriedMask, looks: Float32[np.ndarray, "y x"]) -> Window:
        """The window in which an object may be: where its mask was carried, and where what it looks like outweighs
        the distance from there, whatever the colours.
        """
        most = self.appearance * cv2.dilate(looks, NEXT) + self.colour
        if carried.is_seen:
            near = cv2.dilate(carried.cells.view(np.uint8), NEXT)
            steps = cv2.distanceTransform(1 - near, cv2.DIST_L2, 3) * np.float32(STRIDE / self.reach)
            most += self.motion * np.where(near > 0, -NOWHERE, NOWHERE) - self.distance * np.minimum(steps, FARTHEST)
            most[carried.cells] = 0
        return bound_cells(most > math.log(LIKELY / (1 - LIKELY)), MARGIN)

    def commit(self, memory: AffinityMemory, features: EncoderFeatures, belief: Prediction) -> AffinityMemory:
        """Ends a frame: the `memory` with each object's mask in the `belief` (its best hypothesis) as the last one. The
        looks are learnt from `features` under the masks too, unless the frame does not go on from those before.
        """
        return self.commit_some(memory, features, belief, belief.ids, self.learning)

    def commit_some(
        self,
        memory: AffinityMemory,
        features: EncoderFeatures,
        belief: Prediction,
        learnt: Collection[int],
        rate: float,
    ) -> AffinityMemory:
        """As `commit`, but looks are learnt of the objects `learnt` alone, by a `rate` in place of `learning`."""
        return_freed_memory_of_many(memory.ids)
        belief, view = belief.best, self._view(features)
        soft = torch.zeros_like(belief.logits[:, 0], dtype=torch.float16)
        for row in (belief.presence[:, 0] > 0).nonzero()[:, 0].tolist():
            soft[row] = belief.logits[row, 0].sigmoid()
        rows = [memory.ids.index(id) for id in belief.ids]
        if not memory.ids:
            return _set_last_frame(memory, features)
        origin, found = view.origin(memory)
        after = _follow_frame(memory, origin, found, view.grey)
        after = replace(after, last=after.last.with_masks(rows, soft, len(after.ids)))
        if not found.is_sound:
            return after
        some = [n for n, id in enumerate(belief.ids) if id in learnt]
        masks = soft if len(some) == len(soft) else soft[some]  # maps are large: no copy of all of them
        return self._learn(after, [rows[n] for n in some], masks, features, torch.full((len(some),), rate))

    def prompt(
        self, memory: AffinityMemory, features: EncoderFeatures, prompts: Mapping[int, Prompt]
    ) -> tuple[AffinityMemory, Prediction]:
        """Adds `prompts`, {id: mask, box or clicks}, of the frame of `features` to the `memory`; boxes and clicks
        become masks by the image predictor, over what was believed before. Gives the new memory, and the masks at the
        frame's own size.
        """
        known = {id: compute_log_odds(memory.last.soft[row].float(), SURE) for row, id in enumerate(memory.ids)}
        answers = resolve_prompts(prompts, features, known, self.encoder.device).values()
        masks, quality = [mask for mask, _ in answers], torch.tensor([quality for _, quality in answers])
        soft = _compute_coverage(masks, (features.guide.shape[0], features.guide.shape[1]))
        new = [id for id in prompts if id not in memory.ids]
        memory = _add_objects(_set_last_frame(memory, features), new)
        rows = [memory.ids.index(id) for id in prompts]
        memory = replace(memory, last=memory.last.with_masks(rows, soft, len(memory.ids)))
        apart = torch.tensor([measure_component_spread(find_above(one, 0.5).numpy()) for one in soft])
        memory = replace(memory, scattered=memory.scattered.index_copy(0, torch.tensor(rows, dtype=torch.int64), apart))
        memory = self._learn(memory, rows, soft, features, torch.full((len(rows),), self.trust), self.revised)
        memory = replace(memory, shared=_update_overlaps(memory, rows, len(new)))
        return memory, _believe_masks(tuple(prompts), masks, quality, features.size)

    def forget(self, memory: AffinityMemory, ids: Iterable[int]) -> AffinityMemory:
        """The memory without these objects."""
        gone = set(ids)
        return self.branch(memory, {id: id for id in memory.ids if id not in gone})

    def branch(self, memory: AffinityMemory, origins: Mapping[int, int]) -> AffinityMemory:
        """The memory of the objects {new id: old id} alone."""
        rows = torch.tensor([memory.ids.index(old) for old in origins.values()], dtype=torch.int64)
        looks, shots = (memory.anchor[rows], memory.recent[rows]), (memory.last[rows], memory.left[rows])
        return AffinityMemory(tuple(origins), *looks, *shots, memory.shared[rows][:, rows], memory.scattered[rows])

    def is_sound(self, memory: AffinityMemory, features: EncoderFeatures) -> bool:
        """Whether the frame goes on as it should from those before, so that something can be learnt from it."""
        return not memory.ids or self._view(features).origin(memory)[1].is_sound

    def _view(self, features: EncoderFeatures) -> AffinityView:
        return self._views.find(features) or self._views.keep(
            make_affinity_view(features, self.context, self.encoder.flows), features
        )

    def _score_looks(self, view: AffinityView, memory: AffinityMemory) -> Float[Tensor, "n m"]:
        """How much every cell looks like each object: what was learnt since the frame before is solved anew, of some
        objects at a time, whose matrices are large.
        """
        pairs, solved = list(zip(memory.recent.gram, memory.anchor.gram, strict=True)), self._regressions
        new = torch.tensor([row for row, pair in enumerate(pairs) if solved.find(*pair) is None], dtype=torch.int64)
        for part in iterate_row_groups(len(new), TOGETHER):
            rows = new[part]
            known = memory.recent[rows].mix(memory.anchor[rows], torch.full((len(rows),), self.anchored))
            for row, regression in zip(rows.tolist(), solve_regressions(known, self.ridge), strict=True):
                solved.keep(regression, *pairs[row])
        found = [solved.find(*pair) for pair in pairs]
        return multiply_by_transposed(torch.stack([one for one in found if one is not None]), view.cells)

    def _mix_colours(self, memory: AffinityMemory, rows: Tensor) -> Float[Tensor, "n 2 b"]:
        """The colours of some objects, of the first prompt and of what came since."""
        share = torch.full((len(rows), 1, 1), self.anchored)
        return torch.lerp(memory.recent.colours[rows], memory.anchor.colours[rows], share)

    def _outline(self, guide: UInt8[np.ndarray, "h w 3"], soft: Map) -> Map:
        """The guided filter, in place, where an object may be; it changes nothing elsewhere."""
        radius = self._radius(soft)
        near = find_mask_window(soft > LIKELY, 2 * radius)
        if soft[near].size:
            soft[near] = fit_guided_filter(guide[near], soft[near], radius, self.flat).at(guide[near])
        return soft

    def _radius(self, soft: Map) -> int:
        """Of the guided filter: a small object would be smoothed away by a wide one."""
        across = math.sqrt(np.count_nonzero(soft > 0.5))
        return min(max(round(across / 8), 4), self.radius)

    def _learn(
        self,
        memory: AffinityMemory,
        rows: list[int],
        soft: Float16[Tensor, "k h w"],
        features: EncoderFeatures,
        share: Float[Tensor, " k"],
        anchored: float = 0.0,
    ) -> AffinityMemory:
        """Learns some objects' looks under their masks: as the anchor where there is none yet, else as `share` of the
        recent look, and as so much of the anchor.
        """
        shown = [row for row, one in enumerate(soft) if has_pixels(find_above(one, 0.5))]
        seen = torch.tensor(shown, dtype=torch.int64)
        view, anchor, recent = self._view(features), memory.anchor, memory.recent
        at = torch.tensor(rows, dtype=torch.int64)
        for part in iterate_row_groups(len(seen), TOGETHER):
            some = seen[part]
            hard, which = find_above(soft[some], 0.5), at[some]
            colours = measure_colour_shares(view.bins, hard, self.around)
            cells = torch.cat([_aggregate_cells(mask[None].float()) for mask in hard])
            near = find_surroundings(cells, self.beside).flatten(1)
            first = (anchor.moment[which] == 0).all(1)
            new = compute_moments(view.cells, cells.flatten(1), near, colours, self.heed, view.gram)
            recent = recent.put(which, recent[which].mix(new, torch.where(first, 1.0, share[some])))
            if anchored or first.any():
                anchor = anchor.put(which, anchor[which].mix(new, torch.where(first, 1.0, anchored)))
        return replace(memory, anchor=anchor, recent=recent)


def make_affinity_view(features: EncoderFeatures, context: int, flows: FlowFinder) -> AffinityView:
    """What prediction and learning want to know of the frame of `features`; `context` as in `Affinity`, in cells;
    `flows` finds those to other frames.
    """
    colour = nnf.avg_pool2d(features.guide.permute(2, 0, 1)[None].float() / 255 - 0.5, STRIDE)[0]
    cells = build_cell_descriptors(features.keys.float(), features.detail.float(), colour, context)
    return AffinityView(cells, quantize_colours(features.guide.numpy()), features.grey, flows)


def resolve_prompts(
    prompts: Mapping[int, Prompt],
    features: EncoderFeatures,
    earlier: Mapping[int, Float[Tensor, "h w"]],
    device: torch.device,
) -> dict[int, tuple[Bool[Tensor, "y x"], float]]:
    """What prompts stand for, at the frame's size, and the mask IoU that is expected of it: masks as they are, clicks
    and boxes as the image predictor draws them over what was believed before.

    Args:
        prompts: of objects, by id.
        features: of the frame.
        earlier: mask logits at the working resolution, of those objects of which there are any.
        device: where the image predictor computes.
    """
    return {
        id: (prompt.bool(), 1.0)
        if isinstance(prompt, Tensor)
        else _predict_from_clicks(Clicks.of(prompt), features, earlier.get(id), device)
        for id, prompt in prompts.items()
    }


def _predict_from_clicks(
    clicks: Clicks, features: EncoderFeatures, earlier: Float[Tensor, "h w"] | None, device: torch.device
) -> tuple[Bool[Tensor, "y x"], float]:
    """The image predictor's best answer in the working image, at the frame's size, and its expected mask IoU."""
    (h, w), guide = features.size, features.guide.numpy()
    scale = guide.shape[1] / w, guide.shape[0] / h
    size = (guide.shape[0], guide.shape[1])
    told = None if earlier is None else resize_bilinear(earlier.detach().cpu()[None], size)[0].numpy()
    answer = load_image_predictor(device).predict(guide, clicks.scaled(*scale), told)
    return resize_bilinear(answer.logits[:1], features.size)[0] > 0, float(answer.quality[0])


def return_freed_memory_of_many(ids: Sequence[int]) -> None:
    """What was freed between the matrices of many objects, by their `ids`, is given back; of few it is not worth it."""
    if len(ids) >= MANY:
        return_freed_memory()


def find_above(soft: Float16[Tensor, "*n h w"], level: float) -> Bool[Tensor, "*n h w"]:
    """Where a soft mask, 0 to 1, is above a `level`. Half-precision numbers that are not negative are in the order of
    their bits: compared as integers, it takes a fifteenth of the time.

    >>> find_above(torch.tensor([[0.25, 0.5, 0.75]]).half(), 0.5)
    tensor([[False, False,  True]])
    """
    return torch.from_numpy(soft.numpy().view(np.int16) > np.float16(level).view(np.int16))


def carry_masks(origin: Shot, found: FrameLink) -> list[CarriedMask]:
    """Every object's mask in a frame by what it goes on from (`found`); nowhere in a new scene."""
    if not found.holds:
        cells = np.zeros([n // STRIDE for n in found.flow.shape[:2]], bool)
        return [CarriedMask(cells, None, found.origins)] * len(origin.soft)
    return [CarriedMask.of(soft, found.origins) for soft in origin.soft]


def _follow_frame(memory: AffinityMemory, origin: Shot, found: FrameLink, now: UInt8[Tensor, "h w"]) -> AffinityMemory:
    """The memory with this frame as the last one; masks of objects nobody speaks of stay where they are.

    Where it does not go on from the last one as it should, that one is kept: one of the two may be disturbed.
    """
    begun = origin if found.holds else Shot(now, torch.zeros_like(origin.soft), torch.ones_like(origin.unseen))
    goes_on = origin is memory.last and found.is_sound
    left = memory.last if memory.last.shows_any and not goes_on else memory.left
    return replace(memory, last=replace(begun, grey=now), left=left)


def _set_last_frame(memory: AffinityMemory, features: EncoderFeatures) -> AffinityMemory:
    """The memory with this frame as the last one."""
    size = features.guide.shape[:2]
    soft = memory.last.soft if memory.ids else memory.last.soft.new_zeros(0, *size)
    return replace(memory, last=Shot(features.grey, soft, memory.last.unseen))


def _add_objects(memory: AffinityMemory, new: Sequence[int]) -> AffinityMemory:
    """Rows for new objects, of which nothing is known; what is seen of them in the last frame is for others to say."""
    none, ids = Moments.none(len(new), CHANNELS), (*memory.ids, *new)
    return replace(
        memory,
        ids=ids,
        anchor=memory.anchor.join(none),
        recent=memory.recent.join(none),
        left=memory.left.with_masks((), memory.left.soft[:0], len(ids)),
        shared=nnf.pad(memory.shared, (0, len(new), 0, len(new))),
        scattered=torch.cat([memory.scattered, torch.zeros(len(new))]),
    )


def _make_belief(
    ids: tuple[int, ...],
    logits: Float[Tensor, "n h w"],
    quality: Float[Tensor, " n"],
    presence: Float[Tensor, " n"],
) -> Prediction:
    return Prediction(ids, logits[:, None], quality[:, None], presence[:, None])


def limit_log_odds(p: Map) -> Map:
    """Log odds of probabilities, held `SURE` away from 0 and 1."""
    held = p.clip(np.float32(SURE), np.float32(1 - SURE))
    return np.asarray(np.log(held / (1 - held)))


def _aggregate_cells(maps: Float[Tensor, "n h w"]) -> Float[Tensor, "n y x"]:
    """Means over cells."""
    return nnf.avg_pool2d(maps[None], STRIDE)[0]


def find_surroundings(cells: Float[Tensor, "n y x"], reach: float) -> Float[Tensor, "n y x"]:
    """The share of each cell that is outside an object, and not further from it than `reach` sides of the square of
    its area (2 cells at least).
    """
    steps = [max(round(reach * float(inside.sum().sqrt())), 2) for inside in cells]
    squares = [np.ones((2 * k + 1, 2 * k + 1), np.uint8) for k in steps]
    inside = (cells > 0.5).numpy().view(np.uint8)
    wide = np.stack([cv2.dilate(one, square) for one, square in zip(inside, squares, strict=True)])
    return torch.from_numpy(wide) * (1 - cells)


def _compute_coverage(masks: Sequence[Bool[Tensor, "h w"]], size: tuple[int, int]) -> Float16[Tensor, "n y x"]:
    """The share of every working pixel that lies in each mask."""
    small = torch.empty(len(masks), *size, dtype=torch.float16)
    for mask, out in zip(masks, small, strict=True):
        if mask.numel() < out.numel():
            out.copy_(resize_bilinear(mask[None].float(), size)[0])
        else:
            one = cv2.resize(mask.numpy().astype(np.float32), size[::-1], interpolation=cv2.INTER_AREA)
            out.copy_(torch.from_numpy(one))
    return small


def _believe_masks(
    ids: tuple[int, ...], masks: Sequence[Bool[Tensor, "h w"]], quality: Float[Tensor, " n"], size: tuple[int, int]
) -> Prediction:
    """The belief in `masks` of a frame of `size` (h, w) as they are."""
    outside, inside = compute_log_odds(torch.tensor([0.0, 1.0]), SURE).half().tolist()
    logits, presence = torch.full((len(ids), *size), outside, dtype=torch.float16), torch.full((len(ids),), -1.0)
    for row, mask in enumerate(masks):
        logits[row].masked_fill_(mask, inside)
        presence[row] = 2 * float(mask.any()) - 1
    return _make_belief(ids, logits, quality, presence)


def _measure_rivalry(
    shared: Float[Tensor, "n n"], anchors: Float[Tensor, "n d"], nested: float
) -> Float[Tensor, "n n"]:
    """How much each object's pixels are contended by each other. What shares an anchor are hypotheses of one object:
    they do not contend with each other, and with others no more than one. A thing does not contend with its part.
    """
    same = (anchors[:, None] == anchors).all(2) | torch.eye(len(anchors), dtype=torch.bool)
    return (~(shared > nested) & ~same) / same.sum(0)


def _update_overlaps(memory: AffinityMemory, rows: Sequence[int], new: int) -> Float[Tensor, "n n"]:
    """How far objects overlap: those that were given in the last frame, and new ones, there; others as remembered."""
    n, inside = len(memory.ids), [find_above(one, 0.5) for one in memory.last.soft]
    common = count_common_pixels(inside, range(n))
    area = common.diagonal().clamp(min=1)
    now = (common.float() / torch.minimum(area[:, None], area)).fill_diagonal_(0)
    told, fresh = torch.zeros(n, dtype=torch.bool), torch.arange(n) >= n - new
    told[list(rows)] = True
    return torch.where((told[:, None] & told) | fresh[:, None] | fresh, now, memory.shared)
