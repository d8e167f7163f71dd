"""Sessions on disk: a folder with the result as it is, and a file with the anchors and all that can be undone.

{"format": "masklet-session/1", "result": sha256 of masklets.json, "anchors": [...], "done": [...], "undone": [...]}:
each entry of `done`, the last change first, is what leads back to the state before, each of `undone`, that which was
taken back last first, what leads on: the result without masklets, the ids, what is other of masklets, and of anchors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from masklet.core.codec import (
    explain_bad_entry,
    format_masklet_facts,
    format_sighting,
    format_video,
    read_masklet_facts,
    read_sighting,
    read_video,
)
from masklet.core.errors import InputError
from masklet.core.files import CHUNK, explain_write_error, read_json, write_atomically
from masklet.core.instances import Box, Clicks, Point
from masklet.core.limits import check_number, check_whole_number, quote_value
from masklet.core.result import VideoResult
from masklet.core.result_index import format_json
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting
from masklet.session.anchors import Anchor, Anchors, Spread
from masklet.session.changed_masklets import ChangedSightings
from masklet.session.history import MOST_UNDO, History, SessionState

FORMAT = "masklet-session/1"
RESULT, SESSION = "masklets.json", "session.json"


def save_history(history: History, folder: Path) -> None:
    """Writes a session into a `folder`, which is made; one that is there is replaced. Raises InputError where it cannot
    be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_write_error(folder, error) from None
    now = history.state
    now.result.save(folder / RESULT)
    content = {
        "format": FORMAT,
        "result": compute_file_hash(folder / RESULT),
        "anchors": format_anchors(now.anchors),
        "done": [format_step(a, b) for a, b in pairwise((now, *reversed(history.done)))],
        "undone": [format_step(a, b) for a, b in pairwise((now, *reversed(history.undone)))],
    }
    with write_atomically(folder / SESSION) as file:
        file.write(format_json(content).encode())


def load_history(folder: Path) -> History:
    """The session in a `folder`. Raises InputError where there is none, it is damaged, or its result was changed by
    something else.
    """
    path = folder / SESSION
    content = read_json(path, f"a folder that a session was saved into, with {RESULT} and {SESSION}")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"{path}: no saved session (expected format {FORMAT!r})")
    if content.get("result") != compute_file_hash(folder / RESULT):
        raise InputError(
            f"{folder / RESULT}: is not as the session left it; go on from it as a result, without session"
        )
    with explain_bad_entry(str(path)):
        now = SessionState(VideoResult.open(folder / RESULT))
        now = replace(now, anchors=read_anchors(str(path), content["anchors"], now.result.size, {}))
        done, undone = (read_steps(str(path), now, content[key]) for key in ("done", "undone"))
    return History(now, done, undone)


def compute_file_hash(path: Path) -> str:
    """sha256 of a file. Raises InputError where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while piece := file.read(CHUNK):
                digest.update(piece)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); a saved session has one") from None
    return digest.hexdigest()


# -- from one state to another


def format_step(source: SessionState, target: SessionState) -> dict[str, Any]:
    """What leads from one state to another, as JSON has it."""
    known = {m.id: m for m in source.result.masklets}
    return {
        "video": format_video(target.result),
        "ids": [m.id for m in target.result.masklets],
        "masklets": [
            format_changed_masklet(known.get(m.id), m) for m in target.result.masklets if m is not known.get(m.id)
        ],
        "anchors": format_anchors(target.anchors, source.anchors),
    }


def format_changed_masklet(known: Masklet | None, masklet: Masklet) -> dict[str, Any]:
    """What of a masklet is other than what is `known` of it."""
    rows, gone = [], []
    before: Mapping[int, Sighting] = known.sightings if known else {}
    for t in iterate_differing_frames(before, masklet.sightings):
        if t in masklet.sightings:
            rows.append(format_sighting(t, masklet.sightings[t]))
        else:
            gone.append(t)
    return {**format_masklet_facts(masklet), "sightings": rows, "gone": gone}


def iterate_differing_frames(a: Mapping[int, Sighting], b: Mapping[int, Sighting]) -> Iterator[int]:
    """The frames in which two mappings may differ; those that share what lies below are looked at above it alone."""
    (below, own), (other, more) = ((m.below, m.changes) if isinstance(m, ChangedSightings) else (m, {}) for m in (a, b))
    frames = {*own, *more} if below is other else {*a, *b}
    return (t for t in sorted(frames) if a.get(t) != b.get(t))


def read_steps(where: str, now: SessionState, entries: Sequence[Any]) -> tuple[SessionState, ...]:
    """The states to which `entries`, which lie at `where`, lead one after the other from the state of `now`, the
    farthest first."""
    states = [now]
    for entry in entries[:MOST_UNDO]:
        states.append(read_step(where, states[-1], entry))
    return tuple(reversed(states[1:]))


def read_step(where: str, source: SessionState, entry: Mapping[str, Any]) -> SessionState:
    """The state to which an `entry`, which lies at `where`, leads from another one, of a result of the same
    `source`.
    """
    video = read_video(where, entry["video"])
    if (video.size, video.length) != (source.result.size, source.result.length):
        raise ValueError("a state of it is of another video")
    masklets = {m.id: m for m in source.result.masklets}
    for facts in entry["masklets"]:
        changed = read_changed_masklet(where, masklets, facts, video)
        masklets[changed.id] = changed
    chosen = tuple(masklets[id] for id in entry["ids"])
    anchors = read_anchors(where, entry["anchors"], video.size, source.anchors)
    return SessionState(replace(video, masklets=chosen), anchors)


def read_changed_masklet(
    where: str, known: Mapping[int, Masklet], facts: Mapping[str, Any], video: VideoResult
) -> Masklet:
    """The masklet of an entry, over what is `known` of the one with its id."""
    changes: dict[int, Sighting | None] = dict.fromkeys(facts["gone"])
    changes |= dict(read_sighting(where, row, video) for row in facts["sightings"])
    before: Mapping[int, Sighting] = known[facts["id"]].sightings if facts["id"] in known else {}
    return read_masklet_facts(where, facts, ChangedSightings(before, changes), video)


# -- anchors


def format_anchors(anchors: Anchors, known: Anchors | None = None) -> list[dict[str, Any]]:
    """Anchors as JSON has them; where others are `known`, what is other than those."""
    known = known or {}
    there = {(id, t): anchor for id, own in anchors.items() for t, anchor in own.items()}
    before = {(id, t): anchor for id, own in known.items() for t, anchor in own.items()}
    gone = [{"id": id, "frame": t, "gone": True} for id, t in before if (id, t) not in there]
    return gone + [format_anchor(*at, anchor) for at, anchor in there.items() if anchor is not before.get(at)]


def format_anchor(id: int, frame: int, anchor: Anchor) -> dict[str, Any]:
    """The anchor of object `id` in a `frame` as JSON has it."""
    told: dict[str, Any] = {
        "id": id,
        "frame": frame,
        "mask": anchor.mask.counts.decode(),
        "spread": anchor.spread.value,
    }
    if anchor.before:
        told["before"] = anchor.before.counts.decode()
    if anchor.clicks:
        box, mask = anchor.clicks.box, anchor.clicks.mask
        told["points"] = [[p.x, p.y, p.inside] for p in anchor.clicks.points]
        told |= {"box": [box.x0, box.y0, box.x1, box.y1]} if box else {}
        told |= {"given": Rle.encode(mask).counts.decode()} if mask is not None else {}
    return told


def read_anchors(where: str, entries: Sequence[Mapping[str, Any]], size: tuple[int, int], known: Anchors) -> Anchors:
    """The `known` anchors with the changes that `entries`, which lie at `where`, say; masks are of `size` (h, w)."""
    anchors = {id: dict(own) for id, own in known.items()}
    for entry in entries:
        id = check_whole_number(where, "the id of an anchor", entry["id"])
        frame = check_whole_number(where, "the frame of an anchor", entry["frame"])
        own = anchors.setdefault(id, {})
        if entry.get("gone"):
            own.pop(frame, None)
        else:
            own[frame] = read_anchor(where, entry, size)
    return {id: own for id, own in anchors.items() if own}


def read_anchor(where: str, entry: Mapping[str, Any], size: tuple[int, int]) -> Anchor:
    """The anchor of an entry that lies at `where`, whose masks are of `size` (h, w)."""

    def read_mask(key: str) -> Rle | None:
        return Rle.checked(size, entry[key].encode()) if key in entry else None

    mask, given = read_mask("mask"), read_mask("given")
    if mask is None:
        raise ValueError(f"an anchor without a mask: {quote_value(entry)}")
    clicks = None
    if "points" in entry:
        points = tuple(
            Point(check_number(where, "a point", x), check_number(where, "a point", y), bool(on))
            for x, y, on in entry["points"]
        )
        box = Box(*(check_number(where, "a box", v) for v in entry["box"])) if "box" in entry else None
        clicks = Clicks(points, box, given.decode() if given else None)
    return Anchor(mask, clicks, read_mask("before"), Spread(entry["spread"]))
