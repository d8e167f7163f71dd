"""A session: a video, its result, and corrections of one object in one frame that reach the frames beside it.

What can be undone is a value: the result and the anchors. Everything else is kept to answer fast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, RLock
from typing import Any

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from masklet.core.edits import find_free_id, log_edit
from masklet.core.errors import InputError
from masklet.core.features import FeatureStore
from masklet.core.frames import (
    Frame,
    Video,
    get_gaps,
    list_lost_frames,
    list_video_notes,
    read_through,
)
from masklet.core.instances import Clicks, Prompt
from masklet.core.limits import is_whole_number, quote_value
from masklet.core.part_facts import collect_part_weights, describe_part
from masklet.core.progress import Watch, discard_progress
from masklet.core.protocols import Propagator
from masklet.core.result import VideoResult, create_empty_result
from masklet.core.rle import Rle
from masklet.core.tracks import Masklet, Sighting, Source
from masklet.session.anchors import Anchor, Anchors, ObjectAnchors, Spread, keep_valid_anchors, mark_spread, set_anchor
from masklet.session.caches import FrameCache, RecentFeatures
from masklet.session.changed_masklets import change_masklet, find_masklet
from masklet.session.courses import plan_range, plan_spread
from masklet.session.history import History, SessionState
from masklet.session.propagation import Carrier, Course, run_course
from masklet.session.saved_session import save_history
from masklet.session.verbs import apply_verb
from masklet.systems.bystanders import BystanderFinder
from masklet.systems.prompts import check_prompt, read_mask
from masklet.systems.sweep import make_sightings


@dataclass(frozen=True)
class Propagated:
    """What `Session.propagate` has done."""

    id: int
    frames: tuple[int, ...]  # in which the object was looked for and what was there replaced, rising
    is_complete: bool  # False: it was stopped before


class Session:
    """A video, its result as it is corrected, and what was said of it. Several threads may use one: what changes
    something waits for what is changing, what reads does not.

    Attributes:
        revision: grows with every change, also by undo and redo.
    """

    def __init__(
        self,
        video: Video,
        propagator: Propagator[Any, Any],
        begun: VideoResult | History | None = None,
        release: Callable[[], object] = lambda: None,
        bystanders: BystanderFinder | None = None,
    ) -> None:
        """
        Args:
            video: that can be read again.
            propagator: answers prompts, and carries masks.
            begun: a result of this video to go on from, or a session that was saved; None: no object is known.
            release: is called when the session is closed, and closes the video where nobody else does.
            bystanders: finds what stands beside an object and is none, for a propagator whose objects contend.

        Raises:
            InputError: the result is of a video of another size or length.
        """
        history = begun if isinstance(begun, History) else History(SessionState(begun or create_empty_result(video)))
        check_result(video, history.state.result)
        self.video, self.propagator, self.revision = video, propagator, 0
        self._carrier = Carrier(propagator, self._encode, self.read_frame, bystanders)
        self._history, self._release = history, release
        self._told = list_video_notes(video)  # what results were last told of the video, of which ever more is known
        self._frames = FrameCache(video)
        self._store: FeatureStore[Any] = FeatureStore()
        self._features = RecentFeatures(self._store)
        self._lock, self._stop = RLock(), Event()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Session of {self.result!r}, revision {self.revision}>"

    def close(self) -> None:
        """Releases the video and removes what was kept of its frames."""
        self.stop()
        with self._lock:
            self._store.__exit__()
            self._release()

    # -- what there is

    @property
    def name(self) -> str:
        """What the result is called."""
        return self.result.name

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames in pixels."""
        return self.result.size

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return self.result.length

    @property
    def rate(self) -> float:
        """The video's frames per second."""
        return self.result.rate

    @property
    def result(self) -> VideoResult:
        """The result as it is now, a value that does not change any more."""
        return self._history.state.result

    @property
    def anchors(self) -> Anchors:
        """What was said in this session and still stands: {id: {frame: anchor}}."""
        return self._history.state.anchors

    @property
    def next_id(self) -> int:
        """The id of the next new object."""
        return find_free_id(self.result)

    def list_anchors(self, id: int) -> list[int]:
        """The frames in which somebody vouches for object `id`, rising: by a prompt, in this session or before, by
        painting or confirming. Raises InputError where there is no such object.
        """
        return self._get_anchors(id).list_frames()

    def read_frame(self, index: int) -> Frame:
        """The frame of an `index` from 0, whose `image` is uint8 RGB [h w 3]. Raises InputError where there is none."""
        return self._frames.read(self._check_frame(index))

    # -- one object in one frame

    def prompt(self, frame: int, id: int | None, prompt: Prompt) -> Rle:
        """Says where an object is in a frame, which becomes an anchor of it.

        Args:
            frame: from 0.
            id: of the object; None: a new one, which gets `next_id`.
            prompt: all that is marked in this frame: a `Box` or a `Point` in pixels, a mask (bool [h w]), or `Clicks`.
                Points correct the mask that was there before the first of them; a box or a mask stands for itself.

        Returns:
            The object's mask in this frame, which has taken the place of the one before; without a pixel where the
            object is not in the frame any more.

        Raises:
            InputError: there is no such frame, the prompt does not fit the video, or marks nothing.
        """
        with self._lock:
            frame, id = self._check_frame(frame), self._choose_id(id)
            checked = check_prompt(frame, id, prompt, self.video)
            told, before = self._complete_prompt(frame, id, checked)
            seen = self._answer(frame, id, told)
            clicks = None if isinstance(checked, Tensor) else Clicks.of(checked)
            words = ["mask"] if clicks is None else describe_clicks(clicks)
            self._set_anchor(frame, id, seen, Anchor(seen.mask, clicks, before), ("prompt", id, frame, *words))
            return seen.mask

    def paint(self, frame: int, id: int | None, mask: Rle | Bool[np.ndarray, "h w"] | Bool[Tensor, "h w"]) -> Rle:
        """Sets the `mask` of an object in a `frame`, as drawn by hand, which becomes an anchor of it; `id` as in
        `prompt`. A mask without a pixel says that the object is not there. Returns the mask. Raises InputError where
        there is no such frame or id, or the mask is none or of another size.
        """
        with self._lock:
            frame, id = self._check_frame(frame), self._choose_id(id)
            mask = (
                mask if isinstance(mask, Rle) else Rle.encode(read_mask(f"mask of object {id} in frame {frame}", mask))
            )
            if tuple(mask.size) != tuple(self.size):
                raise InputError(f"{self.name}: a mask of {mask.size[1]}x{mask.size[0]} is none of its frames")
            seen = Sighting(mask, Source.PROMPTED, score=1.0, presence=1.0)
            anchor = Anchor(mask, before=self._get_mask(frame, id))
            self._set_anchor(frame, id, seen, anchor, ("paint", id, frame))
            return mask

    def confirm(self, frame: int, id: int) -> Rle:
        """Makes what is there of object `id` in a `frame` an anchor: its mask, or that it is not seen. Returns the
        mask. Raises InputError where there is no such frame or object.
        """
        with self._lock:
            frame, id = self._check_frame(frame), self._choose_id(id)
            known = self._find(id).sightings.get(frame)
            if known is None:
                known = Sighting(Rle.encode_pixels(np.zeros(self.size, bool)), Source.PROMPTED)
            seen = replace(known, source=Source.PROMPTED)
            self._set_anchor(frame, id, seen, Anchor(seen.mask, spread=Spread.DONE), ("confirm", id, frame))
            return seen.mask

    # -- one object in many frames

    def propagate(
        self, id: int, start: int | None = None, stop: int | None = None, watch: Watch = discard_progress
    ) -> Propagated:
        """Propagates object `id` anew from its anchors, and no other: those keep their masks, and their pixels.

        Without `start` and `stop` the anchors that are new are propagated both ways, each to the next anchor or the
        video's end, or to where what is found shows for some frames what was there before. With either of them all
        frames of [start, stop) are done anew, from all anchors in them, or from those beside them where there are none.
        Between two anchors forward and backward meet where they agree best. In frames that could not be read nothing
        is seen but what somebody vouches for.

        Args:
            id: of the object.
            start: the first frame; None: of the video.
            stop: the frame after the last; None: the video's end.
            watch: called after every frame with the phase, frames done, frames in all at the most, objects.

        Returns:
            Which frames were done, and whether all of them: see `stop`.

        Raises:
            InputError: there is no such object or frame, or no anchor to begin at.
        """
        with self._lock:
            id = self._choose_id(id)
            self._stop.clear()
            courses = self._plan(id, start, stop)
            result, frames, complete = self._run_courses(courses, watch)
            if not frames:
                return Propagated(id, (), complete)
            begun = [t for t in self._get_anchors(id).new if is_within(t, start, stop)]
            whole = complete and start is None and stop is None
            anchors = mark_spread(self.anchors, id, begun, Spread.DONE if whole else Spread.BEGUN)
            logged = log_edit(result, "propagate", id, min(frames), max(frames) + 1)
            self._change(logged, anchors)
            return Propagated(id, tuple(sorted(frames)), complete)

    def stop(self) -> None:
        """Ends a `propagate` that another thread is in, after the frame that it is at. What is done is kept."""
        self._stop.set()

    # -- the result as a whole

    def edit(self, verb: str, **arguments: Any) -> VideoResult:
        """Changes the result by a verb of `core.edits`: "rename", "relabel", "merge", "split", "drop", "trim",
        "smooth", "fill_gaps" or "filter", with the arguments of that function by name; several ids are `ids`.

        Returns the new result. Raises InputError where there is no such verb, or it cannot be done.
        """
        with self._lock:
            changed = apply_verb(self.result, verb, arguments)
            self._change(changed, keep_valid_anchors(self.anchors, changed), corrected=False)
            return changed

    @property
    def can_undo(self) -> bool:
        """Whether there is a change to take back."""
        return bool(self._history.done)

    @property
    def can_redo(self) -> bool:
        """Whether there is a change that was taken back."""
        return bool(self._history.undone)

    def undo(self) -> bool:
        """Takes the last change back. Returns False where there is none."""
        return self._turn(self._history.undo())

    def redo(self) -> bool:
        """Does the change again that was taken back last. Returns False where there is none."""
        return self._turn(self._history.redo())

    def save(self, path: str | Path) -> None:
        """Writes the session into a folder: the result, the anchors, and what can be undone and done again. `open` goes
        on from there. Raises InputError where it cannot be written.
        """
        with self._lock:
            save_history(self._history, Path(path))

    # -- within

    def _turn(self, history: History | None) -> bool:
        with self._lock:
            if history is None:
                return False
            self._history = history
            self.revision += 1
            return True

    def _change(self, result: VideoResult, anchors: Anchors, corrected: bool = True) -> None:
        if corrected:
            told = list_video_notes(self.video)
            result = replace_notes(note_propagator(result, self.propagator), self._told, told)
            self._told = told
        self._history = self._history.add(SessionState(result, anchors))
        self.revision += 1

    def _check_frame(self, index: int) -> int:
        if not is_whole_number(index) or index >= self.frames:
            raise InputError(f"{self.name}: no frame {index}; it has {self.frames}, counted from 0")
        return int(index)

    def _choose_id(self, id: int | None) -> int:
        """The id that is given, or that of a new object. Raises InputError where it is none."""
        if id is None:
            return self.next_id
        if not is_whole_number(id):
            raise InputError(f"{self.name}: no object {quote_value(id)}; ids are whole numbers")
        return int(id)

    def _find(self, id: int) -> Masklet:
        known = find_masklet(self.result, id)
        if known is None and id not in self.anchors:
            there = ", ".join(str(m.id) for m in self.result.masklets[:20]) or "none"
            raise InputError(f"{self.name}: no object {id}; there are: {there}")
        return known or Masklet(id, {})

    def _get_anchors(self, id: int) -> ObjectAnchors:
        return ObjectAnchors.of(self.anchors, self._find(id))

    def _encode(self, index: int) -> Any:
        return self._features.get(index, lambda: self.propagator.encode([self._frames.read(index)])[0])

    def _get_mask(self, frame: int, id: int) -> Rle | None:
        """The mask that an object has in a frame; None where there is none."""
        masklet = find_masklet(self.result, id)
        seen = masklet.sightings.get(frame) if masklet else None
        return seen.mask if seen else None

    def _complete_prompt(self, frame: int, id: int, prompt: Prompt) -> tuple[Prompt, Rle | None]:
        """The prompt with the mask that its points correct, and that mask. Raises InputError where it marks nothing."""
        anchor = self.anchors.get(id, {}).get(frame)
        before = anchor.before if anchor and anchor.clicks else self._get_mask(frame, id)
        if isinstance(prompt, Tensor):
            return prompt, before
        clicks = Clicks.of(prompt)
        if clicks.mask is not None and not clicks.points:
            return clicks.mask, before
        if before is not None and clicks.box is None and clicks.mask is None:
            clicks = replace(clicks, mask=before.decode())
        if not clicks.is_marking:
            raise InputError(
                f"prompt for object {id} in frame {frame}: points outside alone mark nothing where it has no mask; "
                "give a point on the object, a box or a mask"
            )
        return clicks, before

    def _answer(self, frame: int, id: int, prompt: Prompt) -> Sighting:
        features, propagator = self._encode(frame), self.propagator
        memory = propagator.empty()
        memory = propagator.commit(memory, features, propagator.predict(memory, features))
        _, answer = propagator.prompt(memory, features, {id: prompt})
        [seen] = make_sightings(answer, self.size, Source.PROMPTED)
        return replace(seen, label=-1)  # nothing named it: 0 is whatever name the result has first

    def _set_anchor(self, frame: int, id: int, seen: Sighting, anchor: Anchor, line: tuple[object, ...]) -> None:
        changed = change_masklet(self.result, id, {frame: seen if seen.mask.area else None})
        self._change(log_edit(changed, *line), set_anchor(self.anchors, id, frame, anchor))

    def _plan(self, id: int, start: int | None, stop: int | None) -> list[Course]:
        anchors, masklet = self._get_anchors(id), self._find(id)
        if not anchors.list_frames():
            raise InputError(f"{self.name}: object {id} has no anchor; prompt, paint or confirm it in a frame first")
        if start is None and stop is None and anchors.new:
            return plan_spread(id, anchors, self.frames)
        first, last = start or 0, self.frames if stop is None else stop
        if not (is_whole_number(first) and is_whole_number(last) and first < last <= self.frames):
            raise InputError(f"{self.name}: no frames {first} to {last}; it has {self.frames}, counted from 0")
        return plan_range(id, anchors, masklet.sightings, int(first), int(last))

    def _run_courses(self, courses: list[Course], watch: Watch) -> tuple[VideoResult, set[int], bool]:
        """The result after `courses`, the frames that were done, and whether all of them were."""
        result, frames, before = self.result, set[int](), 0
        total = sum(len(course.frames) for course in courses)
        for course in courses:

            def go_on(done: int, course: Course = course, before: int = before) -> bool:
                watch(course.source.value, before + done, total, 1)
                return not self._stop.is_set()

            changes, complete = run_course(self._carrier, course, result, go_on)
            lost = dict.fromkeys(changes.keys() & list_lost_frames(get_gaps(self.video)))
            changes = {**changes, **lost}
            result, before = change_masklet(result, course.id, changes), before + len(course.frames)
            frames |= changes.keys()
            if not complete:
                return result, frames, False
        return result, frames, True


def describe_clicks(clicks: Clicks) -> list[str]:
    """Clicks as the command line takes them, a word each; masks without their pixels."""
    words = ["mask"] if clicks.mask is not None else []
    if clicks.box:
        words.append(f"box={clicks.box.x0:g},{clicks.box.y0:g},{clicks.box.x1:g},{clicks.box.y1:g}")
    return words + [f"{'point' if p.inside else 'outside'}={p.x:g},{p.y:g}" for p in clicks.points]


def check_result(video: Video, result: VideoResult) -> None:
    """Raises InputError where a `result` is not one of a `video`."""
    (h, w), (rows, columns) = result.size, video.size
    if (h, w) != (rows, columns):
        told = f"its frames are {w}x{h}, those of {video.name} {columns}x{rows}"
        raise InputError(f"{result.name}: {told}; give the video that it is of")
    if len(video) != result.length:
        read_through(video)  # until then it says what its file says
    if len(video) != result.length:
        told = f"it has {result.length} frames, {video.name} {len(video)}"
        raise InputError(f"{result.name}: {told}; give the video that it is of, and the same of its frames")


def note_propagator(result: VideoResult, propagator: Propagator[Any, Any]) -> VideoResult:
    """The `result` with the propagator that corrected it, and its weights, in its provenance."""
    made = result.provenance
    settings = {**made.settings, "corrected_by": describe_part(propagator)}
    weights = {**made.weights, **collect_part_weights(propagator)}
    return replace(result, provenance=replace(made, settings=settings, weights=weights))


def replace_notes(result: VideoResult, old: Sequence[str], new: Sequence[str]) -> VideoResult:
    """The `result` with `new` notes in place of `old` ones."""
    made = result.provenance
    kept = (note for note in made.notes if note not in old)
    return replace(result, provenance=replace(made, notes=tuple(dict.fromkeys((*kept, *new)))))


def is_within(frame: int, start: int | None, stop: int | None) -> bool:
    """Whether a `frame` is in [start, stop), where None is the video's end."""
    return (start is None or frame >= start) and (stop is None or frame < stop)
