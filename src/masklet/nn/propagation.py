"""Label propagation in closed form: what is inside an object, by its feature affinity to all that was seen of it.

A ridge regression from features x to labels y answers  x' (sum w x x' + ridge)^-1 (sum w y x): every remembered
cell votes with its label, weighted by its affinity to x in the whitened feature space. Only two sums are needed
of all cells ever seen, so the memory has one size for ever, and the answer costs one matrix product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as nnf
from jaxtyping import Bool, Float, Float32, Int32, UInt8
from torch import Tensor

from masklet.nn.flow import compute_dense_flow, enlarge_flow, measure_unexplained_variance, shrink_for_flow
from masklet.nn.mask_windows import FlowOrigins
from masklet.nn.outline import BINS, RARE, compute_colour_histogram
from masklet.nn.quick_linear import multiply_by_transposed

WAVES = 256
ROUND = 128  # cells, a multiple of which an object has with some of no weight: oneDNN makes a program for each number
CUT = 0.8  # share of the variance that the flow leaves unexplained from which two frames are not of one scene
DOUBT = 0.25  # the same from which something may be wrong with a frame
SHARPER = 2.0  # ratio of fine detail from which one of two frames is blurred; 1.7 at most in ordinary video
FINEST = 0.5  # grey levels of detail that say nothing
FLATTEST = 4.0  # grey levels of standard deviation below which a frame shows nothing
Map = Float32[np.ndarray, "h w"]
Bins = Int32[np.ndarray, "h w"]
Grey = UInt8[np.ndarray, "h w"]


@dataclass(frozen=True)
class Moments:
    """All that is remembered of each object's look: the sums that determine its regression, and its colours."""

    gram: tuple[Float[Tensor, "d1 d2"], ...]  # of each, as `fold_symmetric` has it: large, and shared where it stays
    moment: Float[Tensor, "n d"]
    colours: Float[Tensor, "n 2 b"]  # share of every colour inside, and outside nearby

    @staticmethod
    def none(n: int, d: int) -> Moments:
        """Nothing known of n objects; `d` is even."""
        return Moments((torch.zeros(d + 1, d // 2),) * n, torch.zeros(n, d), torch.zeros(n, 2, BINS**3))

    def __getitem__(self, rows: Tensor) -> Moments:
        return Moments(tuple(self.gram[row] for row in rows.tolist()), self.moment[rows], self.colours[rows])

    def put(self, rows: Tensor, new: Moments) -> Moments:
        """With some objects' replaced by the `new` ones."""
        gram = list(self.gram)
        for row, one in zip(rows.tolist(), new.gram, strict=True):
            gram[row] = one
        moment, colours = self.moment.index_copy(0, rows, new.moment), self.colours.index_copy(0, rows, new.colours)
        return Moments(tuple(gram), moment, colours)

    def join(self, new: Moments) -> Moments:
        """These objects' moments, followed by the `new` ones."""
        moment, colours = torch.cat([self.moment, new.moment]), torch.cat([self.colours, new.colours])
        return Moments(self.gram + new.gram, moment, colours)

    def mix(self, new: Moments, share: Float[Tensor, " n"]) -> Moments:
        """For each object, `share` of the other's and the rest of these."""
        pairs = zip(self.gram, new.gram, share.tolist(), strict=True)
        moment = torch.lerp(self.moment, new.moment, share[:, None])
        colours = torch.lerp(self.colours, new.colours, share[:, None, None])
        return Moments(tuple(torch.lerp(a, b, s) for a, b, s in pairs), moment, colours)


@cache
def _draw_fourier_projection(inputs: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(inputs, WAVES, generator=draw).T.contiguous(), torch.rand(WAVES, generator=draw) * 2 * torch.pi


def compute_fourier_features(z: Float[Tensor, "m i"]) -> Float[Tensor, "m k"]:
    """Random Fourier features (Rahimi and Recht 2007): their products are a Gaussian affinity of width 1."""
    directions, phases = _draw_fourier_projection(z.shape[1])
    turns = multiply_by_transposed(z, directions)
    cosines: Tensor = turns.add_(phases).cos_().mul_((2 / WAVES) ** 0.5)
    return cosines


def build_cell_descriptors(
    keys: Float[Tensor, "c h w"], detail: Float[Tensor, "e h w"], colour: Float[Tensor, "3 h w"], context: int
) -> Float[Tensor, "m d"]:
    """One row a cell: its features `keys`, their mean over `context` x `context` cells (an odd number), its finer
    features `detail`, its `colour`, a constant, and waves of the first two, so that the affinity is the sum of a linear
    and a Gaussian one.
    """
    edge = (context // 2,) * 4
    padded = nnf.pad(keys[None], edge, mode="replicate").contiguous(memory_format=torch.channels_last)
    around = nnf.avg_pool2d(padded, context, 1)[0]  # of channels that lie side by side: a quarter of the time
    one = torch.ones_like(colour[:1])
    linear = torch.cat([part.flatten(1).T for part in (keys, around, detail, colour, one)], dim=1)
    return torch.cat([linear, compute_fourier_features(linear[:, : 2 * len(keys)])], dim=1)


def compute_moments(
    x: Float[Tensor, "m d"],
    labels: Float[Tensor, "n m"],
    beside: Float[Tensor, "n m"],
    colours: Float[Tensor, "n 2 b"],
    heed: float = 0.8,
    whole: Float[Tensor, "d1 d2"] | None = None,
) -> Moments:
    """What one frame says, inside and outside of each object having equal weight.

    Args:
        x: the frame's cells.
        labels: the share of each cell that is inside, 0 to 1.
        beside: the share of each cell that is outside, and near.
        colours: of both.
        heed: the part of the weight of all outside that lies on what is near: what touches an object is taken for it
            sooner than what is far away.
        whole: the cells' `compute_gram`, where it is known.
    """
    front = 0.5 / labels.sum(1).clamp(min=1)
    back = 0.5 * (1 - heed) / (1 - labels).sum(1).clamp(min=1)
    near = 0.5 * heed / beside.sum(1).clamp(min=1)
    weights = front[:, None] * labels + near[:, None] * beside
    everywhere = back[:, None] * (1 - labels)
    # Far outside weighs the same in all cells: one product of the frame serves all objects, and each adds its own.
    whole = compute_gram(x) if whole is None else whole
    gram = []
    for one, far in zip(weights - back[:, None] * labels, back.tolist(), strict=True):
        rows = one.nonzero()[:, 0]
        more = 0, ROUND - len(rows) % ROUND
        gram.append(compute_gram(x[nnf.pad(rows, more)], nnf.pad(one[rows], more)).add_(whole, alpha=far))
    return Moments(tuple(gram), ((weights + everywhere) * (2 * labels - 1)) @ x, colours)


def compute_gram(x: Float[Tensor, "m d"], weights: Float[Tensor, " m"] | None = None) -> Float[Tensor, "d1 d2"]:
    """The products of a frame's channels, summed over its cells with `weights` (None: 1), as `fold_symmetric` has them:
    a quarter of the products need not be computed.
    """
    half, turned = x.shape[1] // 2, x.T.contiguous()
    other = turned if weights is None else turned * weights
    left = multiply_by_transposed(other, turned[:half])
    return fold_symmetric(left, multiply_by_transposed(other[half:], turned[half:]))


def fold_symmetric(left: Float[Tensor, "d k"], corner: Float[Tensor, "k k"]) -> Float[Tensor, "d1 k"]:
    """A symmetric matrix of d x d, d even, in half the memory (LAPACK's rectangular full packed format): one triangle
    of the lower right `corner` lies over the lower triangle of the `left` half.

    >>> whole = torch.tensor([[1.0, 2.0], [2.0, 3.0]])
    >>> fold_symmetric(whole[:, :1], whole[1:, 1:])[:, 0].tolist()
    [3.0, 1.0, 2.0]
    """
    k = len(corner)
    folded = torch.cat([torch.zeros_like(left[:1]), left])
    folded[:k] = torch.where(_mask_upper_triangle(k), corner.T, folded[:k])
    return folded


def upgrade_moments(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The `fields` of `Moments` of a saved memory, also of one in which every matrix is whole."""
    gram = fields["gram"]
    if not isinstance(gram, Tensor):
        return fields
    half = gram.shape[1] // 2
    return {**fields, "gram": tuple(fold_symmetric(one[:, :half], one[half:, half:]) for one in gram)}


def unfold_lower(folded: Float[Tensor, "d1 k"]) -> Float[Tensor, "d d"]:
    """The symmetric matrix that `fold_symmetric` folded, of which only the lower triangle is right."""
    k = folded.shape[1]
    lower = folded.new_empty(2 * k, 2 * k)
    lower[:, :k], lower[:k, k:], lower[k:, k:] = folded[1:], 0.0, folded[:k].T
    return lower


@cache
def _mask_upper_triangle(k: int) -> Bool[Tensor, "k k"]:
    return torch.ones(k, k, dtype=torch.bool).triu()


def solve_regressions(known: Moments, ridge: float) -> Float[Tensor, "n d"]:
    """The regression of each object in `known`, damped by `ridge`: its product with a cell's descriptor says how much
    the cell looks like the object, about 1 inside, -1 outside.
    """
    weights = torch.empty_like(known.moment)
    for folded, moment, out in zip(known.gram, known.moment, weights, strict=True):
        damped = unfold_lower(folded)
        damped.diagonal().add_(ridge)
        out.copy_(torch.cholesky_solve(moment[:, None], torch.linalg.cholesky(damped))[:, 0])
    return weights


def find_mask_window(mask: Bool[np.ndarray, "h w"], reach: int) -> tuple[slice, slice]:
    """The part of an image within `reach` pixels of a mask's box; nothing for an empty mask."""
    x, y, w, h = cv2.boundingRect(mask.view(np.uint8))
    if w == 0:
        return slice(0, 0), slice(0, 0)
    return slice(max(y - reach, 0), y + h + reach), slice(max(x - reach, 0), x + w + reach)


def measure_colour_shares(bins: Bins, masks: Bool[Tensor, "n h w"], reach: int) -> Float[Tensor, "n 2 b"]:
    """The shares of the colours, given by every pixel's bin in `bins`, inside each of `masks`, and outside it within
    about `reach` pixels.
    """
    square = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    out = []
    for whole in masks.numpy():
        near = find_mask_window(whole, reach)
        mask = np.ascontiguousarray(whole[near])
        around = (cv2.dilate(mask.view(np.uint8), square) > 0) & ~mask if mask.size else mask
        out.append([compute_colour_histogram(bins[near], part.astype(np.float32)) for part in (mask, around)])
    return torch.from_numpy(np.array(out, np.float32).reshape(-1, 2, BINS**3))


def tabulate_colour_odds(colours: Float[Tensor, "n 2 b"], most: float) -> Float32[np.ndarray, "n b"]:
    """Log odds, from a pixel's colour alone, that it is inside each object of these `colours` (`Moments.colours`); from
    -`most` to `most`.
    """
    inside, outside = (colours + RARE).unbind(1)
    table: Float32[np.ndarray, "n b"] = (inside / outside).log().clamp(-most, most).numpy()
    return table


@dataclass(frozen=True)
class FrameLink:
    """How one frame goes on from another."""

    flow: Float32[np.ndarray, "h w 2"]  # from its pixels to those of the other
    unexplained: float  # share of its variance that is not found in the other
    altered: bool  # whether one is much lighter or more blurred than the other

    @cached_property
    def origins(self) -> FlowOrigins:
        """Where each of its pixels was in the other, and between which bounds those of each cell."""
        return FlowOrigins.of(self.flow)

    @property
    def holds(self) -> bool:
        """Whether both frames are of one scene."""
        return self.unexplained <= CUT

    @property
    def is_sound(self) -> bool:
        """Whether nothing seems to be wrong with either frame."""
        return self.unexplained <= DOUBT and not self.altered

    @property
    def rank(self) -> tuple[bool, bool, float]:
        """The less, the likelier it is that the frame follows that one rather than another one."""
        return not self.holds, self.altered, self.unexplained


def measure_frame_link(before: Grey, now: Grey, flow: Float32[np.ndarray, "h w 2"]) -> FrameLink:
    """How the frame `now` goes on from the frame `before` along the `flow` from its pixels to those of that one; where
    this does not explain it, as if exposed alike.
    """
    share = measure_unexplained_variance(now, before, flow)
    if share <= CUT:
        return FrameLink(
            flow, share, altered=not 1 / SHARPER < measure_sharpness(now) / measure_sharpness(before) < SHARPER
        )
    alike = match_exposure(now, before)
    flow = enlarge_flow(compute_dense_flow(shrink_for_flow(alike), shrink_for_flow(before)), now.shape)
    return FrameLink(flow, measure_unexplained_variance(alike, before, flow), altered=True)


def measure_sharpness(grey: Grey) -> float:
    """How much fine detail a frame has, in grey levels."""
    return float(np.abs(cv2.Laplacian(grey, cv2.CV_32F)).mean()) + FINEST


def match_exposure(grey: Grey, other: Grey) -> Grey:
    """A frame as bright and of as much contrast as another one; of a flat one nothing is made."""
    level = grey.astype(np.float32)
    gain = other.std() / max(float(level.std()), FLATTEST)
    alike: Grey = ((level - level.mean()) * gain + other.mean()).clip(0, 255).astype(np.uint8)
    return alike


def compute_log_odds(p: Float[Tensor, "..."], sure: float) -> Float[Tensor, "..."]:
    """Log odds of probabilities, held `sure` away from 0 and 1."""
    return torch.logit(p.float(), eps=sure)
