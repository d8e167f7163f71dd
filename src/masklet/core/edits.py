"""Changes of a result by hand. Each gives a new result whose log has a line more; what it does not name stays as it
is, to the bit.

A line of the log is the edit as the command line takes it, such as "merge 3 7": `apply_edit` reads it again, so that
whoever has the result as it was has all edits but the last (`apply_edits`).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import distance_transform_edt, shift

from masklet.core.errors import InputError
from masklet.core.limits import (
    LARGEST_NUMBER,
    check_text,
    is_finite_number,
    is_whole_number,
    parse_whole_number,
    quote_value,
)
from masklet.core.result import VideoResult
from masklet.core.rle import Rle, merge_rles
from masklet.core.tracks import Masklet, Sighting, Source

# -- which object has which name and id


def rename_object(result: VideoResult, id: int, name: str) -> VideoResult:
    """Gives the object `id` of a `result` another `name`; the category is added where there is none of it. Raises
    InputError where there is no such object, or the name is no text.
    """
    _find_masklet(result, id)
    if not check_text(result.name, "the name", name):
        raise InputError(f"{result.name}: the name of object {id} is empty; give it one")
    return log_edit(_name_objects(result, {id}, name), "rename", id, name)


def _name_objects(result: VideoResult, ids: Collection[int], name: str) -> VideoResult:
    """The `result` in which the objects `ids` are called `name`."""
    known = result.categories if name in result.categories else (*result.categories, name)
    label = known.index(name)
    masklets = tuple(replace(m, label=label) if m.id in ids else m for m in result.masklets)
    return replace(result, masklets=masklets, categories=known)


def relabel_objects(result: VideoResult, old: str, new: str) -> VideoResult:
    """Gives all objects of a `result` that are called `old` the name `new`. Raises InputError where none is called
    so.
    """
    named = {m.id for m in result.masklets if result.name_of(m) == old}
    if not named:
        there = ", ".join(dict.fromkeys(map(result.name_of, result.masklets))) or "none"
        raise InputError(f"{result.name}: no object is called {quote_value(old)}; names are: {there}")
    if not check_text(result.name, "the name", new):
        raise InputError(f"{result.name}: the new name of {quote_value(old)} is empty; give one")
    return log_edit(_name_objects(result, named, new), "relabel", old, new)


def merge_objects(result: VideoResult, *ids: int) -> VideoResult:
    """Makes one object of several: the first one's id, in each frame all their pixels, the highest score. The name, and
    in frames that several are in the facts of the mask, are the first one's that has them. Raises InputError where
    fewer than two are given, one twice, or one is not there.
    """
    if len(ids) < 2 or len(set(ids)) < len(ids):
        raise InputError(f"{result.name}: merge needs two different ids or more, not {', '.join(map(str, ids))}")
    there = _choose_masklets(result, ids)
    group = [there[id] for id in ids]
    frames = sorted({t for m in group for t in m.sightings})
    sightings = {t: _join_sightings([m.sightings[t] for m in group if t in m.sightings]) for t in frames}
    label = next((m.label for m in group if m.label >= 0), -1)
    whole = replace(group[0], sightings=sightings, label=label, score=max(m.score for m in group))
    masklets = (whole if m.id == ids[0] else m for m in result.masklets if m.id not in there or m.id == ids[0])
    return log_edit(replace(result, masklets=tuple(masklets)), "merge", *ids)


def _join_sightings(seen: Sequence[Sighting]) -> Sighting:
    return seen[0] if len(seen) == 1 else replace(seen[0], mask=merge_rles([s.mask for s in seen]))


def split_object(result: VideoResult, id: int, frame: int) -> VideoResult:
    """Makes two objects of the object `id` of a `result`: from `frame` on it is another, with the next free id. Raises
    InputError where there is no such object, or it is not seen both before the frame and from it on.
    """
    masklet = _find_masklet(result, id)
    _check_frames(result, frame)
    before = {t: s for t, s in masklet.sightings.items() if t < frame}
    after = {t: s for t, s in masklet.sightings.items() if t >= frame}
    if not before or not after:
        raise InputError(f"{result.name}: object {id} is not seen both before frame {frame} and from it on")
    new = find_free_id(result)
    masklets = [replace(m, sightings=before) if m.id == id else m for m in result.masklets]
    masklets.append(replace(masklet, id=new, sightings=after))
    return log_edit(replace(result, masklets=tuple(masklets)), "split", id, frame)


def find_free_id(result: VideoResult) -> int:
    """The id of the next new object of a `result`: above all others, where there is one, else the lowest."""
    taken = {m.id for m in result.masklets}
    above = max(taken, default=0) + 1
    return above if above <= LARGEST_NUMBER else next(id for id in count(1) if id not in taken)


# -- what is left out


def drop_objects(result: VideoResult, *ids: int) -> VideoResult:
    """Leaves objects out. Raises InputError where none is given, or one is not there."""
    chosen = _choose_masklets(result, ids)
    if not ids:
        raise InputError(f"{result.name}: drop needs the ids of the objects to leave out")
    kept = tuple(m for m in result.masklets if m.id not in chosen)
    return log_edit(replace(result, masklets=kept), "drop", *ids)


def trim_objects(result: VideoResult, start: int, stop: int, *ids: int) -> VideoResult:
    """Leaves out what is seen of objects of a `result`, of all where no `ids` are given, outside of frames [start,
    stop); frames keep their numbers, and an object that is not seen any more goes. Raises InputError where there are no
    such frames or objects.
    """
    _check_frames(result, start, stop)
    if not start < stop <= result.length:
        raise InputError(f"{result.name}: no frames {start} to {stop}; it has {result.length}, counted from 0")
    chosen = _choose_masklets(result, ids)

    def is_kept(masklet: Masklet, frame: int) -> bool:
        return start <= frame < stop

    return log_edit(_keep_sightings(result, chosen, is_kept), "trim", start, stop, *ids)


def filter_objects(
    result: VideoResult,
    *,
    min_frames: int = 0,
    min_area: int = 0,
    labels: Collection[str] = (),
    score: float = 0.0,
) -> VideoResult:
    """Keeps the objects that count.

    Args:
        result: whose objects they are.
        min_frames: in how many frames an object must be seen, after small masks are left out.
        min_area: masks of fewer pixels are left out.
        labels: the names that are kept; all where none are given.
        score: objects below it are left out.

    Returns:
        The result without the others.

    Raises:
        InputError: no object is called like one of the labels, or a number is none.
    """
    if not (is_whole_number(min_frames) and is_whole_number(min_area) and is_finite_number(score)):
        raise InputError(f"{result.name}: filter needs whole numbers from 0 on for frames and area, and a score")
    if isinstance(labels, str):
        raise InputError(f"{result.name}: labels = {quote_value(labels)} must be a list of names")
    names = {result.name_of(m) for m in result.masklets} | set(result.categories)
    for name in labels:
        if name not in names:
            there = ", ".join(sorted(names)[:20]) + ", ..." * (len(names) > 20)
            raise InputError(f"{result.name}: no object is called {quote_value(name)}; names are: {there or 'none'}")
    large = result
    if min_area > 0:
        large = _keep_sightings(
            result, {m.id for m in result.masklets}, lambda m, t: m.sightings[t].mask.area >= min_area
        )
    kept = tuple(
        m
        for m in large.masklets
        if len(m.sightings) >= min_frames and m.score >= score and (not labels or result.name_of(m) in labels)
    )
    settings = {"min_frames": min_frames, "min_area": min_area, "score": score}
    told = [f"{name}={value}" for name, value in settings.items() if value]
    return log_edit(replace(result, masklets=kept), "filter", *told, *(f"label={name}" for name in labels))


def _keep_sightings(result: VideoResult, ids: Collection[int], is_kept: Callable[[Masklet, int], bool]) -> VideoResult:
    """Of the objects `ids` the sightings that are kept, and no object without any."""
    made = []
    for m in result.masklets:
        if m.id in ids:
            frames = [t for t in m.sightings if is_kept(m, t)]
            m = m if len(frames) == len(m.sightings) else replace(m, sightings={t: m.sightings[t] for t in frames})
        if m.sightings:
            made.append(m)
    return replace(result, masklets=tuple(made))


# -- masks that change


def smooth_masks(result: VideoResult, radius: int = 1, *ids: int) -> VideoResult:
    """Steadies outlines: a pixel is in a mask where it is in most of the object's masks of the frames up to `radius`
    before and after; where it is in half of them it stays as it was, and a mask that would be empty, too. No mask
    comes or goes. Raises InputError where the radius is none, or an object is not there.
    """
    if not is_whole_number(radius) or not 1 <= radius <= MOST_SMOOTHED:
        raise InputError(f"{result.name}: smooth needs a radius of 1 to {MOST_SMOOTHED} frames, not {radius}")
    return log_edit(
        _change_masklets(result, _choose_masklets(result, ids), lambda m: _smooth_masklet(m, radius)),
        "smooth",
        radius,
        *ids,
    )


def _smooth_masklet(masklet: Masklet, radius: int) -> Masklet:
    sightings: dict[int, Sighting] = {}
    window: dict[int, Bool[np.ndarray, "h w"]] = {}
    frames = sorted(masklet.sightings)
    for t in frames:
        near = [n for n in range(t - radius, t + radius + 1) if n in masklet.sightings]
        window = {n: window[n] if n in window else masklet.sightings[n].mask.decode_pixels() for n in near}
        votes = 2 * np.sum([window[n] for n in near], axis=0, dtype=np.int32) - len(near)
        steady = np.where(votes == 0, window[t], votes > 0)
        old = masklet.sightings[t]
        sightings[t] = replace(old, mask=Rle.encode_pixels(steady)) if steady.any() else old
    return replace(masklet, sightings=sightings)


def fill_gaps(result: VideoResult, longest: int = 5, *ids: int) -> VideoResult:
    """Fills the frames between two sightings of an object, where they are at most `longest`, with masks between the
    two: the outline moves and changes evenly. They count as propagated, with the lower one's score. Raises InputError
    where `longest` is no number of frames, or an object is not there.
    """
    if not is_whole_number(longest) or not longest:
        raise InputError(f"{result.name}: fill-gaps needs a number of frames from 1 on, not {longest}")
    return log_edit(
        _change_masklets(result, _choose_masklets(result, ids), lambda m: _fill_masklet(m, longest)),
        "fill-gaps",
        longest,
        *ids,
    )


def _fill_masklet(masklet: Masklet, longest: int) -> Masklet:
    sightings = dict(masklet.sightings)
    for a, b in pairwise(sorted(masklet.sightings)):
        if 1 < b - a <= longest + 1:
            first, last = masklet.sightings[a], masklet.sightings[b]
            fact = replace(first, source=Source.FORWARD, score=min(first.score, last.score), label=-1, presence=0.0)
            masks = interpolate_masks(first.mask, last.mask, b - a - 1)
            sightings |= {a + n: replace(fact, mask=mask) for n, mask in enumerate(masks, start=1) if mask.area}
    return replace(masklet, sightings={t: sightings[t] for t in sorted(sightings)})


def interpolate_masks(first: Rle, last: Rle, between: int) -> list[Rle]:
    """So many masks `between` two, `first` and `last`, of one size, that are not empty: their signed distances to the
    outline, moved to where the centre would be, are mixed (Raya and Udupa, Shape-based interpolation of
    multidimensional objects, 1990).
    """
    (x0, y0), (x1, y1) = np.minimum(first.box[:2], last.box[:2]), np.maximum(first.box[2:], last.box[2:])
    ends = [mask.decode_pixels()[y0:y1, x0:x1] for mask in (first, last)]
    centres = [np.argwhere(pixels).mean(axis=0) for pixels in ends]
    dy, dx = (int(v) for v in np.ceil(np.abs(centres[1] - centres[0])) + 1)  # no mask between reaches farther
    fields = [_compute_signed_distance(np.pad(pixels, ((dy, dy), (dx, dx)))) for pixels in ends]
    made = []
    for n in range(1, between + 1):
        share = n / (between + 1)
        centre = (1 - share) * centres[0] + share * centres[1]
        moved = [shift(f, centre - c, order=1, mode="nearest") for f, c in zip(fields, centres, strict=True)]
        canvas = np.zeros((first.size[0] + 2 * dy, first.size[1] + 2 * dx), bool)
        canvas[y0 : y1 + 2 * dy, x0 : x1 + 2 * dx] = (1 - share) * moved[0] + share * moved[1] > 0
        made.append(Rle.encode_pixels(canvas[dy:-dy, dx:-dx]))
    return made


def _compute_signed_distance(pixels: Bool[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """The distance of each pixel's middle from the mask's outline, in pixels; inside it is above 0."""
    padded = np.pad(pixels, 1)
    inside, outside = distance_transform_edt(padded), distance_transform_edt(~padded)
    signed: Float[np.ndarray, "h w"] = np.where(padded, inside - 0.5, 0.5 - outside)[1:-1, 1:-1]
    return signed


def _change_masklets(result: VideoResult, ids: Collection[int], change: Callable[[Masklet], Masklet]) -> VideoResult:
    return replace(result, masklets=tuple(change(m) if m.id in ids else m for m in result.masklets))


# -- edits as lines


@dataclass(frozen=True)
class EditVerb:
    """An edit as it is written."""

    usage: str
    words: range  # how many follow it
    apply: Callable[[VideoResult, Sequence[str]], VideoResult]


def apply_edit(result: VideoResult, line: str) -> VideoResult:
    """The result after the edit that a `line` says, such as "merge 3 7" or "rename 3 'red car'". Raises InputError
    where it says none, or it cannot be done.
    """
    try:
        verb, *words = shlex.split(line) or [""]
    except ValueError as error:
        told = f'{str(error).lower()}; put a name that has quotes into others, such as "driver\'s car"'
        raise InputError(f"edit {quote_value(line)}: {told}") from None
    if verb not in VERBS:
        raise InputError(f"edit {quote_value(line)}: no verb {quote_value(verb)}; {describe_verbs()}")
    usage = f"edit {quote_value(line)}: write it as {VERBS[verb].usage}"
    if len(words) not in VERBS[verb].words:
        raise InputError(usage)
    try:
        return VERBS[verb].apply(result, words)
    except _BadWordError:
        raise InputError(usage) from None


def apply_edits(result: VideoResult, lines: Iterable[str]) -> VideoResult:
    """The result after several edits, one after the other. Raises InputError at the first that cannot be done."""
    for line in lines:
        result = apply_edit(result, line)
    return result


def describe_verbs() -> str:
    """How each edit is written, in a line."""
    return "there are: " + ", ".join(verb.usage for verb in VERBS.values())


class _BadWordError(Exception):
    """A word that is none of its verb's."""


def _read_number(word: str) -> int:
    number = parse_whole_number(word)
    if number is None:
        raise _BadWordError(word)
    return number


def _take_numbers(edit: Callable[..., VideoResult]) -> Callable[[VideoResult, Sequence[str]], VideoResult]:
    return lambda result, words: edit(result, *map(_read_number, words))


def _read_filter(result: VideoResult, words: Sequence[str]) -> VideoResult:
    pairs = [word.partition("=")[::2] for word in words]
    odd = [name for name, _ in pairs if name not in ("label", "score", "min_frames", "min_area")]
    if odd:
        raise _BadWordError(odd[0])
    told = dict(pairs)
    return filter_objects(
        result,
        min_frames=_read_number(told.get("min_frames", "0")),
        min_area=_read_number(told.get("min_area", "0")),
        labels=[value for name, value in pairs if name == "label"],
        score=_read_share(told.get("score", "0")),
    )


def _read_share(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise _BadWordError(word) from None


ANY = 100_001  # words that may follow a verb of any number
VERBS: Mapping[str, EditVerb] = {
    "rename": EditVerb(
        "rename ID NAME", range(2, ANY), lambda r, w: rename_object(r, _read_number(w[0]), " ".join(w[1:]))
    ),
    "relabel": EditVerb("relabel OLD NEW", range(2, 3), lambda r, w: relabel_objects(r, *w)),
    "merge": EditVerb("merge ID ID ...", range(2, ANY), _take_numbers(merge_objects)),
    "split": EditVerb("split ID FRAME", range(2, 3), _take_numbers(split_object)),
    "drop": EditVerb("drop ID ...", range(1, ANY), _take_numbers(drop_objects)),
    "trim": EditVerb("trim START STOP [ID ...]", range(2, ANY), _take_numbers(trim_objects)),
    "smooth": EditVerb("smooth [RADIUS [ID ...]]", range(ANY), _take_numbers(smooth_masks)),
    "fill-gaps": EditVerb("fill-gaps [LONGEST [ID ...]]", range(ANY), _take_numbers(fill_gaps)),
    "filter": EditVerb("filter min_frames=N min_area=N score=S label=NAME ...", range(ANY), _read_filter),
}
MOST_SMOOTHED = 50  # frames before and after, whose masks are in memory at once


def log_edit(result: VideoResult, *words: object) -> VideoResult:
    """The result with a line more in its log, which says these `words`."""
    line = shlex.join(map(str, words))
    made = result.provenance
    return replace(result, provenance=replace(made, edits=(*made.edits, line)))


def _check_frames(result: VideoResult, *frames: Any) -> None:
    """Raises InputError where one is no number of a frame, as the log has them."""
    odd = [frame for frame in frames if not is_whole_number(frame)]
    if odd:
        raise InputError(f"{result.name}: no frame {quote_value(odd[0])}; frames are whole numbers, counted from 0")


def _find_masklet(result: VideoResult, id: int) -> Masklet:
    [found] = _choose_masklets(result, [id]).values()
    return found


def _choose_masklets(result: VideoResult, ids: Sequence[int]) -> Mapping[int, Masklet]:
    """The objects `ids`, each of which must be there, by id; all where none is given."""
    known = {m.id: m for m in result.masklets}
    missing = [id for id in ids if not is_whole_number(id) or id not in known]
    if missing:
        there = ", ".join(str(m.id) for m in result.masklets[:20]) + ", ..." * (len(result.masklets) > 20)
        raise InputError(f"{result.name}: no object {missing[0]}; there are: {there or 'none'}")
    return {id: known[id] for id in ids} if ids else known
