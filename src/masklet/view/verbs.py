"""What can be asked of an open video: one table, which the page uses and which `masklet serve` publishes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from masklet.core.errors import InputError
from masklet.core.limits import (
    LARGEST_NUMBER,
    check_number,
    check_text,
    check_whole_number,
    is_finite_number,
    is_whole_number,
    quote_value,
)
from masklet.core.rle import Rle
from masklet.core.timeline import bin_track, compute_bin_edges
from masklet.view.comparison import compare_frames
from masklet.view.desk import Desk, ResultEditor
from masklet.view.drawing import PALETTE
from masklet.view.survey import COURTESY

MOST_FRAMES = 64  # whose masks are given at once
MOST_BINS = 4_000
MOST_LISTED = 200  # lines of the log
MOST_POINTS = 1_000
MOST_COUNTS = 8_000_000  # characters


class ArgumentKind(NamedTuple):
    """What an argument of a verb can be."""

    schema: Mapping[str, Any]  # as JSON Schema has it
    check: Callable[[str, Any], Any]  # (name, value) -> the value as the function takes it; raises InputError


class Argument(NamedTuple):
    """One argument of a verb."""

    kind: ArgumentKind
    help: str
    default: Any = ...  # `...`: it must be given


@dataclass(frozen=True)
class Verb:
    """One thing that can be asked."""

    name: str
    help: str
    arguments: Mapping[str, Argument]
    run: Callable[..., Any]  # (desk, **arguments) -> what JSON can say
    changes: bool = False  # whether the result is another one afterwards: not while work runs


# -- kinds of arguments


def _check_whole(name: str, value: Any) -> int:
    return check_whole_number("request", name, value, LARGEST_NUMBER)


def _check_wholes(name: str, value: Any) -> list[int]:
    if not isinstance(value, list) or not all(map(is_whole_number, value)):
        raise InputError(f"request: {name} must be a list of whole numbers, not {quote_value(value)}")
    return value


def _check_words(name: str, value: Any) -> str:
    return check_text("request", name, value)


def _check_counts(name: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > MOST_COUNTS or not value.isascii():
        raise InputError(f"request: {name} must be COCO's compressed run lengths, not {quote_value(value)}")
    return value


def _check_points(name: str, value: Any) -> list[tuple[float, float, bool]]:
    if not isinstance(value, list) or len(value) > MOST_POINTS:
        raise InputError(f"request: {name} must be a list of at most {MOST_POINTS} points, not {quote_value(value)}")
    for point in value:
        if not (isinstance(point, list) and len(point) == 3 and type(point[2]) is bool):
            raise InputError(f"request: a point is [x, y, true or false], not {quote_value(point)}")
    return [(check_number("request", "x", x), check_number("request", "y", y), inside) for x, y, inside in value]


def _check_box(name: str, value: Any) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) != 4 or not all(map(is_finite_number, value)):
        raise InputError(f"request: {name} must be [x0, y0, x1, y1] in pixels, not {quote_value(value)}")
    x0, y0, x1, y1 = map(float, value)
    if x0 >= x1 or y0 >= y1:
        raise InputError(f"request: {name} {quote_value(value)} has no inside; x0 < x1 and y0 < y1")
    return x0, y0, x1, y1


def _check_optional(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    return lambda name, value: None if value is None else check(name, value)


WHOLE = ArgumentKind({"type": "integer", "minimum": 0}, _check_whole)
WHOLES = ArgumentKind({"type": "array", "items": {"type": "integer", "minimum": 0}}, _check_wholes)
TEXT = ArgumentKind({"type": "string"}, _check_words)
COUNTS = ArgumentKind({"type": "string"}, _check_counts)
POINTS = ArgumentKind(
    {
        "type": "array",
        "items": {
            "type": "array",
            "prefixItems": [{"type": "number"}, {"type": "number"}, {"type": "boolean"}],
            "minItems": 3,
            "maxItems": 3,
        },
    },
    _check_points,
)
BOX = ArgumentKind(
    {"type": ["array", "null"], "items": {"type": "number"}, "minItems": 4, "maxItems": 4}, _check_optional(_check_box)
)
OPTIONAL_WHOLE = ArgumentKind({"type": ["integer", "null"], "minimum": 0}, _check_optional(_check_whole))


def check_arguments(verb: Verb, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a verb, checked. Raises InputError where one is missing, unknown or of another kind."""
    odd = sorted(set(given) - set(verb.arguments))
    if odd:
        known = ", ".join(verb.arguments) or "none"
        raise InputError(f"{verb.name}: no argument {quote_value(odd[0])}; there are: {known}")
    missing = [name for name, one in verb.arguments.items() if one.default is ... and name not in given]
    if missing:
        raise InputError(f"{verb.name}: give {missing[0]}, {verb.arguments[missing[0]].help}")
    values = {name: given.get(name, one.default) for name, one in verb.arguments.items()}
    return {
        name: value if value is verb.arguments[name].default else verb.arguments[name].kind.check(name, value)
        for name, value in values.items()
    }


# -- looking


def describe_video(desk: Desk) -> dict[str, Any]:
    """What a page must know before it shows anything; masks are not looked at."""
    result = desk.result
    objects = [
        {"id": m.id, "name": result.name_of(m), "score": m.score, "frames": len(m.sightings)} for m in result.masklets
    ]
    return {
        "name": desk.name,
        "height": result.size[0],
        "width": result.size[1],
        "length": result.length,
        "rate": result.rate,
        "pixel_aspect": result.pixel_aspect,
        "objects": objects,
        "categories": list(dict.fromkeys(o["name"] for o in objects)),
        "palette": [list(colour) for colour in PALETTE],
        "notes": [*desk.notes, *result.provenance.notes][:MOST_LISTED],
        "has_frames": desk.frames is not None,
        "others": list(desk.others),
        "forms": [list(form) for form in desk.forms],
        **describe_state(desk),
    }


def list_times(desk: Desk) -> dict[str, Any]:
    """Seconds of each frame from the first; none where the rate is constant."""
    return {"times": list(desk.result.times)}


def describe_state(desk: Desk) -> dict[str, Any]:
    """What changes with every edit."""
    editor = desk.editor
    return {
        "revision": editor.revision,
        "can_edit": True,
        "can_prompt": desk.make_session is not None,
        "can_undo": editor.can_undo,
        "can_redo": editor.can_redo,
        "unsaved": editor.revision != desk.saved,
        "edits": list(editor.result.provenance.edits[-MOST_LISTED:]),
    }


def list_masks(desk: Desk, start: int, stop: int) -> dict[str, Any]:
    """The masks of a `desk` in frames [start, stop), at most `MOST_FRAMES`: by frame, a row an object."""
    COURTESY.note()
    result, revision = desk.result, desk.editor.revision
    stop = min(stop, start + MOST_FRAMES, result.length)
    frames = [
        [
            [m.id, seen.mask.counts.decode(), seen.source.value, round(seen.score, 4), round(seen.presence, 4)]
            for m, seen in result.at(t)
        ]
        for t in range(start, stop)
    ]
    return {"revision": revision, "start": start, "frames": frames}


def list_timeline(desk: Desk, start: int, stop: int, bins: int) -> dict[str, Any]:
    """When each object of a `desk` is seen in frames [start, stop), in bins (`core.timeline.BinnedTrack`)."""
    result, survey = desk.result, desk.survey
    start, stop = min(start, result.length - 1), min(max(stop, start + 1), result.length)
    bins = max(1, min(bins, MOST_BINS))
    binned = {m.id: bin_track(survey.find_track(m), start, stop, bins) for m in survey.result.masklets}
    edges = compute_bin_edges(start, stop, bins)
    rows = {id: {"sources": b.sources, "scores": b.scores, "shares": b.shares} for id, b in binned.items()}
    return {"start": start, "stop": stop, "bins": len(edges) - 1, "done": survey.done, "objects": rows}


def list_suspicious(desk: Desk) -> dict[str, Any]:
    """Frames in which mistakes may be, as far as the search has come (`core.statistics.SuspiciousFrame`)."""
    survey = desk.survey
    found = [[s.frame, s.id, s.reason, round(s.value, 3)] for s in list(survey.suspicious)]
    return {"done": survey.done, "damage": survey.damage, "frames": found}


def describe_job(desk: Desk) -> dict[str, Any]:
    """How far the work is that runs, or how it ended."""
    job = desk.job
    if job is None:
        return {"name": "", "running": False, **describe_state(desk)}
    told = {"name": job.name, "running": job.running, "done": job.done, "total": job.total, "error": job.error}
    return {**told, "value": None if job.running else job.value, **describe_state(desk)}


# -- changing


def apply_verb(name: str) -> Callable[..., dict[str, Any]]:
    """The function of the edit `name` of `view.desk.EDITS`."""

    def edit(desk: Desk, **arguments: Any) -> dict[str, Any]:
        desk.editor.edit(name, **arguments)
        return describe_video(desk)

    return edit


def undo_edit(desk: Desk) -> dict[str, Any]:
    """Takes the last edit back."""
    desk.editor.undo()
    return describe_video(desk)


def redo_edit(desk: Desk) -> dict[str, Any]:
    """Does again what was taken back last."""
    desk.editor.redo()
    return describe_video(desk)


def answer_prompt(
    desk: Desk, frame: int, id: int | None, points: list[tuple[float, float, bool]], box: tuple[float, ...] | None
) -> dict[str, Any]:
    """Makes the mask of `points` (clicks) or a `box` in one `frame` of a `desk`; without an `id`, of a new object."""
    from masklet.core.instances import Box, Clicks, Point  # which loads torch, as the session does

    check_frame(desk, frame)
    if not (box or points):
        raise InputError(f"{desk.name}: a prompt needs a box, or a click")
    clicks = Clicks(tuple(Point(*point) for point in points), Box(*box) if box else None)
    known = {m.id for m in desk.result.masklets}
    desk.take_session().prompt(frame, id, clicks)
    return {"id": find_new_id(desk, known, id), **describe_video(desk)}


def paint_mask(desk: Desk, frame: int, id: int | None, counts: str) -> dict[str, Any]:
    """Takes a mask that was painted in a `frame` of a `desk`, its `counts` COCO's compressed run lengths; without an
    `id`, of a new object.
    """
    check_frame(desk, frame)
    try:
        mask = Rle.checked(desk.result.size, counts.encode())
    except ValueError as error:
        raise InputError(f"request: {error}") from None
    known = {m.id for m in desk.result.masklets}
    desk.take_session().paint(frame, id, mask)
    return {"id": find_new_id(desk, known, id), **describe_video(desk)}


def find_new_id(desk: Desk, known: set[int], id: int | None) -> int | None:
    """The `id` that was given, or that of the object of a `desk` that is not among those that were `known`."""
    return id if id is not None else next((m.id for m in desk.result.masklets if m.id not in known), None)


def confirm_mask(desk: Desk, frame: int, id: int) -> dict[str, Any]:
    """Vouches for the mask of object `id` in a `frame` of a `desk`: propagation starts from it."""
    check_frame(desk, frame)
    desk.take_session().confirm(frame, id)
    return describe_video(desk)


def propagate_object(desk: Desk, id: int, start: int | None, stop: int | None) -> dict[str, Any]:
    """Begins to propagate the object `id` of a `desk` from its anchors: over frames [start, stop), or where these are
    not given, from what is new both ways for as long as anything changes. `progress` says how far it is.
    """
    session = desk.take_session()
    job = desk.start_job("propagate", lambda watch: discard(session.propagate(id, start, stop, watch)))
    job.on_stop = session.stop
    return describe_job(desk)


def discard(value: object) -> None:
    """Nothing of a `value`, which is not JSON."""


def stop_job(desk: Desk) -> dict[str, Any]:
    """Asks the work that runs to end."""
    if desk.job is not None:
        desk.job.stop()
    return describe_job(desk)


def check_frame(desk: Desk, frame: int) -> None:
    """Raises InputError where there is no such frame."""
    if frame >= desk.result.length:
        raise InputError(f"{desk.name}: no frame {frame}; it has {desk.result.length}, counted from 0")


# -- results that go somewhere


def save_result(desk: Desk) -> dict[str, Any]:
    """Writes the result; says where."""
    return {"path": str(desk.save()), **describe_state(desk)}


def export_result(desk: Desk, form: str) -> dict[str, Any]:
    """Begins to write the result in another form; `progress` says how far it is, and its value the folder."""
    desk.start_job("export", lambda watch: desk.export_to(form, watch))
    return describe_job(desk)


def compare_results(desk: Desk, other: str) -> dict[str, Any]:
    """Begins to compare with another result; `progress` says how far it is, and its value what came out."""
    if other not in desk.others:
        raise InputError(f"{desk.name}: nothing called {quote_value(other)} to compare with")
    result, against = desk.result, desk.others[other]
    desk.start_job("compare", lambda watch: asdict(compare_frames(result, against, watch=watch)))
    return describe_job(desk)


def list_other_masks(desk: Desk, other: str, start: int, stop: int) -> dict[str, Any]:
    """As `masks` of frames [start, stop) of a `desk`, of the result `other` to compare with."""
    if other not in desk.others:
        raise InputError(f"{desk.name}: nothing called {quote_value(other)} to compare with")
    return list_masks(Desk(other, ResultEditor(desk.others[other]), desk.out), start, stop)


# -- the table

ID = Argument(WHOLE, "the object's id")
FRAME = Argument(WHOLE, "the frame's number, from 0 on")
START = Argument(WHOLE, "the first frame")
STOP = Argument(WHOLE, "the frame after the last one")
ANY_START = Argument(OPTIONAL_WHOLE, "the first frame; null: wherever it changes", None)
ANY_STOP = Argument(OPTIONAL_WHOLE, "the frame after the last one; null: the same", None)
SOME_IDS = Argument(WHOLES, "the objects' ids")
ANY_IDS = Argument(WHOLES, "the objects' ids; all where none are given", [])
OTHER = Argument(TEXT, "the name of a result to compare with")
MAYBE_ID = Argument(OPTIONAL_WHOLE, "the object's id; null: a new object", None)

VERBS: Mapping[str, Verb] = {
    verb.name: verb
    for verb in (
        Verb("describe", "The video, its objects, and what can be done with it.", {}, describe_video),
        Verb("times", "Seconds of each frame, where the rate is not constant.", {}, list_times),
        Verb("masks", "The masks of some frames.", {"start": START, "stop": STOP}, list_masks),
        Verb(
            "timeline",
            "When each object is seen, in bins.",
            {"start": START, "stop": STOP, "bins": Argument(WHOLE, "how many bins at most")},
            list_timeline,
        ),
        Verb("suspicious", "Frames in which mistakes may be.", {}, list_suspicious),
        Verb(
            "rename",
            "Give an object another name.",
            {"id": ID, "name": Argument(TEXT, "its name")},
            apply_verb("rename"),
            True,
        ),
        Verb(
            "relabel",
            "Give all objects of one name another.",
            {"old": Argument(TEXT, "the name that they have"), "new": Argument(TEXT, "the name that they get")},
            apply_verb("relabel"),
            True,
        ),
        Verb("merge", "Make one object of several: the first one's id.", {"ids": SOME_IDS}, apply_verb("merge"), True),
        Verb("split", "Make it another object from a frame on.", {"id": ID, "frame": FRAME}, apply_verb("split"), True),
        Verb("drop", "Leave objects out.", {"ids": SOME_IDS}, apply_verb("drop"), True),
        Verb(
            "trim",
            "Leave out what is seen outside of some frames.",
            {"start": START, "stop": STOP, "ids": ANY_IDS},
            apply_verb("trim"),
            True,
        ),
        Verb(
            "smooth",
            "Steady outlines over time.",
            {"radius": Argument(WHOLE, "frames each way", 1), "ids": ANY_IDS},
            apply_verb("smooth"),
            True,
        ),
        Verb(
            "fill_gaps",
            "Fill gaps with masks between their ends.",
            {"longest": Argument(WHOLE, "frames of the longest gap", 5), "ids": ANY_IDS},
            apply_verb("fill_gaps"),
            True,
        ),
        Verb(
            "prompt",
            "Make a mask of clicks or a box.",
            {
                "frame": FRAME,
                "id": MAYBE_ID,
                "points": Argument(POINTS, "[x, y, whether it is on the object] each", []),
                "box": Argument(BOX, "[x0, y0, x1, y1]", None),
            },
            answer_prompt,
            True,
        ),
        Verb(
            "paint",
            "Take a painted mask.",
            {"frame": FRAME, "id": MAYBE_ID, "counts": Argument(COUNTS, "COCO's compressed run lengths")},
            paint_mask,
            True,
        ),
        Verb("confirm", "Vouch for a mask.", {"frame": FRAME, "id": ID}, confirm_mask, True),
        Verb(
            "propagate",
            "Carry an object's masks on.",
            {"id": ID, "start": ANY_START, "stop": ANY_STOP},
            propagate_object,
            True,
        ),
        Verb("undo", "Take the last edit back.", {}, undo_edit, True),
        Verb("redo", "Do it again.", {}, redo_edit, True),
        Verb("save", "Write the result.", {}, save_result, True),
        Verb("export", "Write another form.", {"form": Argument(TEXT, "its name")}, export_result, True),
        Verb("compare", "Compare with another result.", {"other": OTHER}, compare_results, True),
        Verb(
            "other_masks",
            "The masks of a result to compare with.",
            {"other": OTHER, "start": START, "stop": STOP},
            list_other_masks,
        ),
        Verb("progress", "How far the work is.", {}, describe_job),
        Verb("stop", "End the work.", {}, stop_job),
    )
}


def run_verb(desk: Desk, name: str, given: Mapping[str, Any]) -> Any:
    """Does what the verb `name` asks of an open video, a `desk`, with the arguments `given`; returns what JSON can say.
    Raises InputError where there is no such verb, an argument is wrong, or it cannot be done.
    """
    if name not in VERBS:
        raise InputError(f"request: no verb {quote_value(name)}; there are: {', '.join(VERBS)}")
    verb = VERBS[name]
    arguments = check_arguments(verb, given)
    if not verb.changes:
        return verb.run(desk, **arguments)
    with desk.lock:
        desk.check_idle()
        return verb.run(desk, **arguments)
