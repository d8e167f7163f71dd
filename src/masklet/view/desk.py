"""One video as it lies open: its frames, its result, what is found out about it, and the work that runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from masklet.core import edits
from masklet.core.errors import InputError
from masklet.core.files import explain_write_error
from masklet.core.limits import check_file_name
from masklet.core.progress import Watch
from masklet.core.result import VideoResult
from masklet.core.rle import Rle
from masklet.core.wording import name_argument
from masklet.view.frame_store import FrameStore
from masklet.view.survey import Survey

RESULT = "masklets.json"
MOST_UNDONE = 200  # edits that can be taken back

EDITS: Mapping[str, Callable[..., VideoResult]] = {
    "rename": edits.rename_object,
    "relabel": edits.relabel_objects,
    "merge": lambda result, ids: edits.merge_objects(result, *ids),
    "split": edits.split_object,
    "drop": lambda result, ids: edits.drop_objects(result, *ids),
    "trim": lambda result, start, stop, ids=(): edits.trim_objects(result, start, stop, *ids),
    "smooth": lambda result, radius=1, ids=(): edits.smooth_masks(result, radius, *ids),
    "fill_gaps": lambda result, longest=5, ids=(): edits.fill_gaps(result, longest, *ids),
}


class EditedVideo(Protocol):
    """A result that is edited, with undo: a `masklet.session.session.Session`, or a `ResultEditor`."""

    @property
    def result(self) -> VideoResult: ...
    @property
    def revision(self) -> int: ...
    @property
    def can_undo(self) -> bool: ...
    @property
    def can_redo(self) -> bool: ...
    def edit(self, verb: str, **arguments: Any) -> Any: ...
    def undo(self) -> Any: ...
    def redo(self) -> Any: ...
    def save(self, path: str | Path) -> None: ...


class PromptedVideo(EditedVideo, Protocol):
    """One that also answers prompts and propagates."""

    def prompt(self, frame: int, id: int | None, prompt: Any) -> Rle: ...
    def paint(self, frame: int, id: int | None, mask: Rle) -> Any: ...
    def confirm(self, frame: int, id: int) -> Any: ...
    def propagate(self, id: int, start: int | None, stop: int | None, watch: Watch) -> Any: ...
    def stop(self) -> None: ...


class ResultEditor:
    """A result that is edited without its video: names and objects, no masks."""

    def __init__(self, result: VideoResult) -> None:
        self._past, self._future = [result], list[VideoResult]()
        self.revision = 0

    @property
    def result(self) -> VideoResult:
        """The result as it is now."""
        return self._past[-1]

    @property
    def can_undo(self) -> bool:
        """Whether there is an edit to take back."""
        return len(self._past) > 1

    @property
    def can_redo(self) -> bool:
        """Whether there is an edit that was taken back."""
        return bool(self._future)

    def edit(self, verb: str, **arguments: Any) -> None:
        """Does an edit of `EDITS`. Raises InputError where it cannot be done."""
        self._past.append(EDITS[verb](self.result, **arguments))
        del self._past[: -MOST_UNDONE - 1]
        self._future.clear()
        self.revision += 1

    def undo(self) -> None:
        """Takes the last edit back. Raises InputError where there is none."""
        if not self.can_undo:
            raise InputError(f"{self.result.name}: there is nothing to undo")
        self._future.append(self._past.pop())
        self.revision += 1

    def redo(self) -> None:
        """Does again what was taken back last. Raises InputError where nothing was."""
        if not self.can_redo:
            raise InputError(f"{self.result.name}: there is nothing to redo")
        self._past.append(self._future.pop())
        self.revision += 1

    def save(self, folder: Path) -> None:
        """Writes the result into a `folder` that is there. Raises InputError where it cannot be written."""
        self.result.save(folder / RESULT)


class SessionEditor:
    """A session, and the edits that were done before it began: undo goes through both. Where an edit follows after some
    of those were taken back, a new session begins.
    """

    def __init__(self, before: ResultEditor, make_session: Callable[[VideoResult], PromptedVideo]) -> None:
        self._before, self._make_session = before, make_session
        self._session = make_session(before.result)
        self._back = 0  # how many of the edits before are taken back
        self._passed = before.revision  # revisions only ever rise

    @property
    def result(self) -> VideoResult:
        """The result as it is now."""
        return self._before.result if self._back else self._session.result

    @property
    def revision(self) -> int:
        """Another number for every other result."""
        return self._passed + self._session.revision

    @property
    def can_undo(self) -> bool:
        """Whether there is an edit to take back."""
        return (not self._back and self._session.can_undo) or self._before.can_undo

    @property
    def can_redo(self) -> bool:
        """Whether there is an edit that was taken back."""
        return self._back > 0 or self._session.can_redo

    def undo(self) -> None:
        """Takes the last edit back. Raises InputError where there is none."""
        if not self._back and self._session.can_undo:
            self._session.undo()
        else:
            self._before.undo()
            self._back, self._passed = self._back + 1, self._passed + 1

    def redo(self) -> None:
        """Does again what was taken back last. Raises InputError where nothing was."""
        if self._back:
            self._before.redo()
            self._back, self._passed = self._back - 1, self._passed + 1
        else:
            self._session.redo()

    def edit(self, verb: str, **arguments: Any) -> Any:
        """Does an edit, as the session has it."""
        return self.take_session().edit(verb, **arguments)

    def save(self, folder: Path) -> None:
        """Writes the result into a `folder` that is there, and with it what the session knows, so that another one goes
        on from it (`masklet.open`). Raises InputError where it cannot be written.
        """
        if self._back:
            self.result.save(folder / RESULT)
        else:
            self._session.save(folder)

    def take_session(self) -> PromptedVideo:
        """The session over the result as it is now."""
        if self._back:
            self._passed += self._session.revision + 1
            self._before = ResultEditor(self._before.result)
            self._session, self._back = self._make_session(self._before.result), 0
            self._passed -= self._session.revision
        return self._session


class StoppedWork(Exception):
    """Somebody has stopped the work."""


@dataclass
class DeskJob:
    """Work on a thread of its own."""

    name: str
    done: int = 0
    total: int = 0
    running: bool = True
    error: str = ""
    value: Any = None
    on_stop: Callable[[], None] | None = None  # ends the work early with what is done; else it ends without
    stopping: bool = False

    def stop(self) -> None:
        """Asks the work to end."""
        self.stopping = True
        if self.on_stop is not None:
            self.on_stop()

    def watch(self, phase: str, done: int, total: int | None, objects: int) -> None:
        """Is told how far the work is: of `total` frames so many are `done`; `phase` and `objects` are not shown.
        Raises StoppedWork where it is to end.
        """
        self.done, self.total = done, total or 0
        if self.stopping and self.on_stop is None:
            raise StoppedWork

    def run(self, work: Callable[[Watch], Any]) -> None:
        """Does the work to its end, however it ends."""
        try:
            self.value = work(self.watch)
            self.error = "stopped" if self.stopping else ""
        except StoppedWork:
            self.error = "stopped"
        except InputError as error:
            self.error = str(error)
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self.running = False


@dataclass
class Desk:
    """One video of a page."""

    name: str
    editor: ResultEditor | SessionEditor
    out: Path  # the folder of the video's results, for saves and exports
    frames: FrameStore | None = None
    others: Mapping[str, VideoResult] = field(default_factory=dict)  # to compare with
    make_session: Callable[[VideoResult], PromptedVideo] | None = None  # loads networks, at the first prompt
    export: Callable[[VideoResult, str, Path, Watch], Path] | None = None
    forms: Sequence[tuple[str, str]] = ()  # that `export` knows, with a line of help each
    notes: tuple[str, ...] = ()  # what the user must know, such as why there are no frames
    saved: int = 0  # the revision that was saved last
    job: DeskJob | None = None
    lock: threading.RLock = field(default_factory=threading.RLock)
    _survey: Survey | None = None
    _own: bool = False  # whether what is in `out` was written from here

    @property
    def result(self) -> VideoResult:
        """The result as it is now."""
        return self.editor.result

    @property
    def survey(self) -> Survey:
        """What is known of the result as it is now; the search goes on."""
        with self.lock:
            known = self._survey
            if known is None or known.result is not self.result:
                if known is not None:
                    known.stop()
                self._survey = known = Survey(self.result, known).start()
            return known

    def take_survey(self, survey: Survey) -> None:
        """Takes a `survey` of the result that was made already."""
        self._survey = survey

    def take_session(self) -> PromptedVideo:
        """The session, begun where there is none yet. Raises InputError where masks cannot be changed: there is no
        video.
        """
        if self.make_session is None:
            raise InputError(
                f"{self.name}: masks cannot be changed without the video; give it by {name_argument('video')}"
            )
        if isinstance(self.editor, ResultEditor):
            self.editor = SessionEditor(self.editor, self.make_session)
        return self.editor.take_session()

    def check_idle(self) -> None:
        """Raises InputError while work runs: what it works on stays as it is."""
        if self.job is not None and self.job.running:
            raise InputError(f"{self.name}: wait until the work ({self.job.name}) is done, or stop it")

    def start_job(self, name: str, work: Callable[[Watch], Any]) -> DeskJob:
        """Begins `work`, called `name`. Raises InputError while other work runs."""
        with self.lock:
            self.check_idle()
            self.job = job = DeskJob(name)
        threading.Thread(target=job.run, args=(work,), name=name, daemon=True).start()
        return job

    def save(self) -> Path:
        """Writes the result into `out`, and returns its path. What somebody else wrote there stays: the folder gets
        another number. Raises InputError where it cannot be written.
        """
        with self.lock:
            self.out = self.out if self._own else find_free_folder(self.out)
            make_folder(self.out)
            self._own = True
            self.editor.save(self.out)
            self.saved = self.editor.revision
            return self.out / RESULT

    def export_to(self, form: str, watch: Watch) -> str:
        """Writes the result in a `form` beside what `save` writes; returns the folder, which is new. Raises InputError
        where there is no such form, or it cannot hold the result.
        """
        if self.export is None:
            raise InputError(f"{self.name}: nothing can be exported from here")
        folder = find_free_folder(self.out.parent / check_file_name("export", f"{self.out.name}-{form}"))
        return str(self.export(self.result, form, folder, watch))


def find_free_folder(folder: Path) -> Path:
    """The folder, or where something is there already, the first of its name and a number that is free."""
    numbered = (folder if n == 1 else folder.with_name(f"{folder.name}-{n}") for n in range(1, 10_000))
    found = next((one for one in numbered if not one.exists()), None)
    if found is None:
        raise InputError(f"{folder}: there are ten thousand of this name; choose another folder")
    return found


def make_folder(folder: Path) -> None:
    """Makes a folder and those above it. Raises InputError where it cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise explain_write_error(folder, error) from None
