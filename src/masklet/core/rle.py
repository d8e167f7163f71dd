"""Masks as run lengths, which is how they outlive their frame. Without torch: scores and exports need none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int32, Int64
from pycocotools import mask as coco

from masklet.core.limits import LARGEST_SIDE, MOST_OUTLINE, MOST_PIXELS, is_finite_number, is_whole_number, quote_value

if TYPE_CHECKING:
    from torch import Tensor

MANY = 10_000  # pairs of masks: from so many on it takes less time to look at those alone that meet
FARTHEST = 1e12  # pixels: coordinates beyond are moved here, so that nothing overflows


@dataclass(frozen=True)
class Rle:
    """One mask as COCO run lengths: column-major, compressed, about 1 kB at 1080p."""

    size: tuple[int, int]  # h, w
    counts: bytes

    @staticmethod
    def encode(mask: Bool[Tensor, "h w"]) -> Rle:
        """The run lengths of a mask."""
        return Rle.encode_pixels(mask.T.contiguous().cpu().numpy().T)  # turned where the mask is: on a GPU this is fast

    @staticmethod
    def encode_pixels(pixels: Bool[np.ndarray, "h w"]) -> Rle:
        """The run lengths of a mask that is a numpy array."""
        code = coco.encode(np.asfortranarray(pixels).view(np.uint8))
        return Rle((int(code["size"][0]), int(code["size"][1])), code["counts"])

    @staticmethod
    def checked(size: tuple[int, int], counts: bytes) -> Rle:
        """Run lengths from outside. Runs of no pixel between others are taken out, for pycocotools writes beyond its
        memory where they are many. Raises ValueError where they are not those of a mask of `size` (h, w).
        """
        check_mask_size(size)
        runs = decode_rle_counts(counts)
        if (runs < 0).any() or runs.sum() != size[0] * size[1]:
            raise ValueError(f"run lengths fill {runs.sum()} pixels, not the {size[1]}x{size[0]} of the frame")
        return Rle(size, counts) if runs[1:].all() else Rle.encode_pixels(Rle(size, counts).decode_pixels())

    @staticmethod
    def from_counts(counts: Any, size: tuple[int, int]) -> Rle:
        """The mask of `size` (h, w) of uncompressed run lengths, column by column, the first outside. Raises ValueError
        where they are not those of a mask of this size.

        >>> Rle.from_counts([2, 1, 1], (2, 2)).decode_pixels().tolist()
        [[False, True], [False, False]]
        """
        check_mask_size(size)
        if not isinstance(counts, list | tuple) or not all(map(is_whole_number, counts)):
            raise ValueError(f"run lengths must be whole numbers from 0 on, not {quote_value(counts)}")
        if sum(counts) != size[0] * size[1]:
            raise ValueError(f"the run lengths do not fill the {size[1]}x{size[0]} pixels of the frame")
        code = coco.frPyObjects({"size": list(size), "counts": list(counts)}, *size)
        return Rle.checked(size, code["counts"])

    def decode(self) -> Bool[Tensor, "h w"]:
        """Decodes the RLE into a mask of `size` on the CPU."""
        import torch  # here, so that those who need pixels only do not load it

        return torch.from_numpy(self.decode_pixels())

    def decode_pixels(self) -> Bool[np.ndarray, "h w"]:
        """Decodes the RLE into a numpy array of `size`."""
        return np.asarray(coco.decode(self._coco).view(bool))

    @property
    def area(self) -> int:
        """The number of pixels in the mask, counted without decoding."""
        return int(coco.area(self._coco))

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 in pixels; x1 and y1 are one past the last."""
        x, y, w, h = (int(v) for v in coco.toBbox(self._coco))
        return x, y, x + w, y + h

    def iou(self, other: Rle) -> float:
        """Intersection over union with a mask of the same size; 0 where both are empty, as in COCO."""
        return float(compute_rle_iou([self], [other])[0, 0])

    def overlap(self, other: Rle) -> int:
        """The number of pixels that are both in this mask and in `other`, a mask of the same size."""
        return int(coco.area(coco.merge([self._coco, other._coco], intersect=True)))

    @property
    def _coco(self) -> dict[str, object]:
        return {"size": list(self.size), "counts": self.counts}


def encode_polygons(polygons: Any, size: tuple[int, int]) -> Rle:
    """The mask of polygons as COCO has them: what any of them covers, as pycocotools draws it.

    Args:
        polygons: each x0, y0, x1, y1, ... in pixels, three points or more. What lies far outside the frame is cut off,
            for pycocotools walks along every edge, however far it leads, and ends the process where it is too far.
        size: of the frame, (h, w).

    Returns:
        The mask, of `size`.

    Raises:
        ValueError: one is no polygon, a number is not finite, or the edges are too long for one mask.

    >>> encode_polygons([[1, 0, 3, 0, 3, 2, 1, 2]], (2, 4)).decode_pixels().astype(int).tolist()
    [[0, 1, 1, 0], [0, 1, 1, 0]]
    """
    check_mask_size(size)
    if not isinstance(polygons, list | tuple) or not polygons:
        raise ValueError(f"a mask needs at least one polygon, not {quote_value(polygons)}")
    kept = [clip_polygon(check_polygon(p), size) for p in polygons]
    outlines = [p for p in kept if len(p)]
    if sum(measure_outline(p) for p in outlines) > MOST_OUTLINE:
        raise ValueError(f"the polygons' edges are longer than {MOST_OUTLINE:,} pixels; give run lengths")
    if not outlines:
        return Rle.encode_pixels(np.zeros(size, bool))
    return Rle(size, coco.merge(coco.frPyObjects([p.ravel().tolist() for p in outlines], *size))["counts"])


def encode_box(box: Any, size: tuple[int, int]) -> Rle:
    """The mask of a filled box as COCO has it: x, y, width and height in pixels. The box is cut to the frame of `size`
    (h, w). Raises ValueError where it is no box or a number is not finite.

    >>> encode_box([1, 0, 1e8, 1e8], (2, 4)).decode_pixels().astype(int).tolist()
    [[0, 1, 1, 1], [0, 1, 1, 1]]
    """
    check_mask_size(size)
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(is_finite_number, box)):
        raise ValueError(f"a box must be four finite numbers, x, y, width and height, not {quote_value(box)}")
    x, y, width, height = map(float, box)
    if width < 0 or height < 0:
        raise ValueError(f"a box of {width:g}x{height:g} pixels; width and height are 0 or more")
    left, right = (min(max(v, 0.0), size[1]) for v in (x, x + width))
    top, bottom = (min(max(v, 0.0), size[0]) for v in (y, y + height))
    return encode_polygons([[left, top, right, top, right, bottom, left, bottom]], size)


def check_mask_size(size: tuple[int, int]) -> None:
    """Raises ValueError where a mask of `size` (h, w) has no pixel, or more than pycocotools can count."""
    if not (min(size) >= 1 and max(size) <= LARGEST_SIDE and size[0] * size[1] <= MOST_PIXELS):
        raise ValueError(f"a mask of {size[1]}x{size[0]} pixels; at most {MOST_PIXELS:,} are taken")


def check_polygon(polygon: Any) -> Float[np.ndarray, "n 2"]:
    """The points of a polygon x0, y0, x1, y1, ... Raises ValueError where it is none."""
    if not isinstance(polygon, list | tuple | np.ndarray) or len(polygon) < 6 or len(polygon) % 2:
        raise ValueError("a polygon needs three points or more, x and y each")
    if not isinstance(polygon, np.ndarray) and not all(map(is_finite_number, polygon)):
        raise ValueError("a polygon needs finite numbers")
    points = np.asarray(polygon, np.float64).reshape(-1, 2)
    if not np.isfinite(points).all():
        raise ValueError("a polygon needs finite numbers")
    return points


def clip_polygon(points: Float[np.ndarray, "n 2"], size: tuple[int, int]) -> Float[np.ndarray, "m 2"]:
    """A polygon without what lies farther outside the frame of `size` (h, w) than the frame is long; one that leads no
    farther is as it was. Sutherland and Hodgman, Reentrant polygon clipping, 1974: side after side.
    """
    far = float(max(size))
    points = points.clip(-FARTHEST, FARTHEST)
    for axis, extent in ((0, size[1]), (1, size[0])):
        for sign, bound in ((1.0, -far), (-1.0, -(extent + far))):
            points = _clip_at_line(points, sign * points[:, axis] - bound, axis, sign * bound)
    return points


def _clip_at_line(
    points: Float[np.ndarray, "n 2"], inside: Float[np.ndarray, " n"], axis: int, bound: float
) -> Float[np.ndarray, "m 2"]:
    """The part of a polygon on one side of a line: `inside` is how far each point is within, `bound` where the line is
    on the `axis`.
    """
    if not len(points) or inside.min() >= 0:
        return points
    before, depth = np.roll(points, 1, axis=0), np.roll(inside, 1)
    crosses = (inside >= 0) != (depth >= 0)
    share = np.divide(depth, depth - inside, out=np.zeros_like(inside), where=crosses)
    cut = before * (1 - share[:, None]) + points * share[:, None]  # no difference, which could overflow
    cut[:, axis] = bound
    pairs = np.stack([cut, points], axis=1)  # in the order in which they follow one another
    kept: Float[np.ndarray, "m 2"] = pairs[np.stack([crosses, inside >= 0], axis=1)]
    return kept


def measure_outline(points: Float[np.ndarray, "n 2"]) -> float:
    """How many pixels pycocotools walks along the edges of a polygon."""
    return float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())


def decode_rle_counts(counts: bytes) -> Int64[np.ndarray, " n"]:
    """The runs in COCO's compressed form: five bits a character, the sixth says "more follows", the last digit
    carries the sign; from the fourth run on, the difference to the run before last is stored.

    Raises ValueError where it is no such form (pycocotools would read beyond its memory).
    """
    runs, _ = _decode_rle_numbers(counts)
    for side in (runs[1::2], runs[2::2]):
        np.cumsum(side, out=side)
    return runs


def _decode_rle_numbers(counts: bytes) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """The numbers in COCO's compressed form, and the place of the last character of each. Raises ValueError where it is
    no such form.
    """
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if not len(digits) or (digits < 0).any() or (digits > 63).any() or digits[-1] & 32:
        raise ValueError(f"{counts[:20]!r} are no COCO run lengths")
    ends = np.flatnonzero(digits < 32)
    starts = np.append(0, ends[:-1] + 1)
    places = 5 * (np.arange(len(digits)) - np.repeat(starts, ends - starts + 1))
    if places.max() > 30:
        raise ValueError(f"{counts[:20]!r} are no COCO run lengths")
    numbers = np.add.reduceat((digits & 31) << places, starts)
    numbers -= np.where(digits[ends] & 16, np.int64(1) << places[ends] + 5, 0)
    return numbers, ends


def are_rle_counts_sound(counts: Sequence[bytes], size: tuple[int, int]) -> bool:
    """Whether `Rle.checked` takes each of the `counts` for masks of `size` (h, w), as it is: of many at once this is
    known in a tenth of the time. There must be one.

    >>> are_rle_counts_sound([b"04", b"22"], (2, 2)), are_rle_counts_sound([b"04", b"23"], (2, 2))
    (True, False)
    """
    check_mask_size(size)
    try:
        runs, starts = _decode_many_counts(counts)
    except ValueError:
        return False
    filled = np.add.reduceat(runs, starts) == size[0] * size[1]
    return bool(filled.all() and (runs >= 0).all() and np.delete(runs, starts).all())


def _decode_many_counts(counts: Sequence[bytes]) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " m"]]:
    """The runs of all masks, one after another, and where those of each start. There must be a mask. Raises ValueError
    where any of the `counts` is not COCO's compressed form.
    """
    last = np.cumsum([len(c) for c in counts]) - 1  # character of each
    steps, ends = _decode_rle_numbers(b"".join(counts))
    stops = np.searchsorted(ends, last) + 1
    starts = np.append(0, stops[:-1])
    if (starts == stops).any() or (ends[stops - 1] != last).any():
        raise ValueError("no COCO run lengths")  # none at all, or a number that goes on in the next mask
    return _sum_steps(steps, starts, stops - starts), starts


def _sum_steps(
    steps: Int64[np.ndarray, " n"], starts: Int64[np.ndarray, " m"], lengths: Int64[np.ndarray, " m"]
) -> Int64[np.ndarray, " n"]:
    """The runs of masks that lie one after another: from a mask's fourth on, `steps` are to the run before last."""
    sums = np.concatenate([np.zeros(1, np.int64), steps])  # of every other step, with a place before the first
    for side in (sums[::2], sums[1::2]):
        np.cumsum(side, out=side)
    odd = (np.arange(len(steps)) - np.repeat(starts, lengths)) % 2 == 1
    runs = sums[1:] - np.where(odd, np.repeat(sums[starts], lengths), np.repeat(sums[starts + 1], lengths))
    runs[starts] = steps[starts]
    return runs


def merge_rles(masks: Sequence[Rle]) -> Rle:
    """The mask of all pixels that any of the `masks` has, which are of one size, without decoding. There must be one.

    >>> left, right = (Rle.encode_pixels(np.array([m], bool)) for m in ([1, 0, 0], [0, 0, 1]))
    >>> merge_rles([left, right]).decode_pixels().astype(int).tolist()
    [[1, 0, 1]]
    """
    return Rle(masks[0].size, coco.merge([m._coco for m in masks])["counts"])


def compute_rle_iou(a: Sequence[Rle], b: Sequence[Rle]) -> Float[np.ndarray, "n m"]:
    """Mask IoU of every pair, without decoding."""
    if not a or not b:
        return np.zeros((len(a), len(b)))
    return np.asarray(coco.iou([r._coco for r in a], [r._coco for r in b], [0] * len(b)))


def find_rle_overlaps(
    a: Sequence[Rle], b: Sequence[Rle]
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    """The pixels that masks of one size share: the numbers of masks in `a` and in `b` that meet, and how many pixels
    they have in common. A pair may be there several times, with a part of them each.

    >>> left, right = (Rle.encode_pixels(np.array([m], bool)) for m in ([1, 1, 0], [0, 1, 1]))
    >>> [n.tolist() for n in find_rle_overlaps([left], [left, right])]
    [[0, 0], [0, 1], [2, 1]]
    """
    return join_pairs(a, b) if len(a) * len(b) < MANY else join_runs(a, b)


def join_pairs(
    a: Sequence[Rle], b: Sequence[Rle]
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    """`find_rle_overlaps` of a few masks: pair by pair."""
    iou, areas, others = compute_rle_iou(a, b), np.array([m.area for m in a]), np.array([m.area for m in b])
    rows, cols = (iou > 0).nonzero()
    share = iou[rows, cols] / (1 + iou[rows, cols])  # iou = both / (total - both)
    return rows, cols, np.round(share * (areas[rows] + others[cols])).astype(np.int64)


def join_runs(
    a: Sequence[Rle], b: Sequence[Rle]
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    """`find_rle_overlaps` of many masks, of which most pairs do not meet: run by run."""
    (owners, starts, stops), (others, other_starts, other_stops) = _list_runs(a), _list_runs(b)
    rows, cols = _find_starts_within(starts, other_starts, other_stops, "left")
    more_cols, more_rows = _find_starts_within(other_starts, starts, stops, "right")
    rows, cols = np.concatenate([rows, more_rows]), np.concatenate([cols, more_cols])
    common = np.minimum(stops[rows], other_stops[cols]) - np.maximum(starts[rows], other_starts[cols])
    return owners[rows], others[cols], common


def _list_runs(
    masks: Sequence[Rle],
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """The runs of all `masks` by where they start, column by column: of which mask, the start, and the stop."""
    runs, starts = _decode_many_counts([m.counts for m in masks])
    lengths = np.diff(starts, append=len(runs))
    owners, place = np.repeat(np.arange(len(masks)), lengths), np.arange(len(runs)) - np.repeat(starts, lengths)
    edges = np.cumsum(runs) - owners * (masks[0].size[0] * masks[0].size[1])
    inside = np.flatnonzero(place % 2)
    order = inside[np.argsort(edges[inside - 1], kind="stable")]
    return owners[order], edges[order - 1], edges[order]


def _find_starts_within(
    points: Int64[np.ndarray, " n"],
    starts: Int64[np.ndarray, " m"],
    stops: Int64[np.ndarray, " m"],
    side: Literal["left", "right"],
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    """Which of the `points`, which rise, are in which run: numbers of both. A point at a start is in it where `side` is
    "left".
    """
    first, last = np.searchsorted(points, starts, side), np.searchsorted(points, stops, "left")
    counts = np.maximum(last - first, 0)
    runs = np.repeat(np.arange(len(starts)), counts)
    within = np.arange(len(runs)) - np.repeat(np.cumsum(counts) - counts, counts)
    return first[runs] + within, runs


def paint_mask_numbers(masks: Sequence[Rle], size: tuple[int, int]) -> Int32[np.ndarray, "h w"]:
    """Which of the `masks` of `size` (h, w) has each pixel: its number, from 1 on; 0 where there is none. A pixel that
    several claim goes to the smallest of them, on a tie to the first.

    >>> left, row = (Rle.encode_pixels(np.array(m, bool)) for m in ([[1, 0], [1, 0], [1, 0]], [[1, 1], [0, 0], [0, 0]]))
    >>> paint_mask_numbers([left, row], (3, 2)).tolist()
    [[2, 2], [1, 0], [1, 0]]
    """
    numbers = np.zeros(size, np.int32)
    for row in sorted(range(len(masks)), key=lambda n: (masks[n].area, n), reverse=True):
        numbers[masks[row].decode_pixels()] = row + 1
    return numbers


def encode_label_image(numbers: Int32[np.ndarray, "h w"], count: int) -> list[Rle]:
    """The masks of an image of numbers: where it is 1, where it is 2, and so on to `count`.

    >>> [mask.area for mask in encode_label_image(np.array([[1, 1], [0, 3]], np.int32), 3)]
    [2, 0, 1]
    """
    h, w = numbers.shape
    pixels = np.ascontiguousarray(numbers.T).ravel()
    starts = np.append(0, np.flatnonzero(pixels[1:] != pixels[:-1]) + 1)
    stops, owners = np.append(starts[1:], len(pixels)), pixels[starts]
    order = np.argsort(owners, kind="stable")
    bounds = np.searchsorted(owners[order], np.arange(1, count + 2))
    own = [order[first:last] for first, last in pairwise(bounds)]
    return [_encode_runs(starts[runs], stops[runs], (h, w)) for runs in own]


def encode_run_edges(
    owners: Int64[np.ndarray, " e"], places: Int64[np.ndarray, " e"], count: int, size: tuple[int, int]
) -> list[Rle]:
    """The `count` masks of `size` (h, w) whose runs begin and end, in turn, at `places`, of the masks `owners`."""
    bounds = np.searchsorted(owners, np.arange(count + 1))
    own = [places[first:last] for first, last in pairwise(bounds)]
    return [_encode_runs(edges[::2], edges[1::2], size) for edges in own]


def _encode_runs(starts: Int64[np.ndarray, " n"], stops: Int64[np.ndarray, " n"], size: tuple[int, int]) -> Rle:
    """The mask of `size` (h, w) whose pixels, column by column, are those from each start to before the stop."""
    edges = np.stack([starts, stops], 1).ravel()
    runs = np.diff(edges, prepend=0, append=size[0] * size[1])
    counts = runs[:-1] if len(runs) > 1 and runs[-1] == 0 else runs
    return Rle(size, coco.frPyObjects({"size": list(size), "counts": counts.tolist()}, *size)["counts"])
