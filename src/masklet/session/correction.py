"""A result gone on with from the command line: a session of a few prompts, as a system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from masklet.core.errors import InputError
from masklet.core.frames import Video
from masklet.core.progress import Watch, discard_progress
from masklet.core.protocols import Propagator
from masklet.core.result import VideoResult
from masklet.core.wording import name_argument
from masklet.session.session import Session
from masklet.systems.bystanders import BystanderFinder
from masklet.systems.track import Prompts

F = TypeVar("F")
M = TypeVar("M")


@dataclass(frozen=True)
class Correction(Generic[F, M]):
    """Corrects the objects of a result by prompts, and adds those that are new; the others stay as they are.

    Attributes:
        propagator: any.
        prompts: of objects by their ids in the result, or of new ids.
        result: as it was.
        start, stop: the frames that are done anew, [start, stop); None: see `Session.propagate`.
        bystanders: as of `Track`.
    """

    propagator: Propagator[F, M]
    prompts: Prompts
    result: VideoResult
    start: int | None = None
    stop: int | None = None
    bystanders: BystanderFinder | None = None

    def run(self, video: Video, watch: Watch = discard_progress) -> VideoResult:
        """The result with a line more in its log for every prompt, and for every object that was propagated. Raises
        InputError where a prompt does not fit, or lies outside the frames that are to be done.
        """
        with Session(video, self.propagator, self.result, bystanders=self.bystanders) as session:
            for frame, told in sorted(self.prompts.items()):
                for id, prompt in told.items():
                    self._check_frame(frame, id)
                    session.prompt(frame, id, prompt)
            for id in dict.fromkeys(id for _, told in sorted(self.prompts.items()) for id in told):
                session.propagate(id, self.start, self.stop, watch)
            return session.result

    def _check_frame(self, frame: int, id: int) -> None:
        first, last = self.start or 0, self.result.length if self.stop is None else self.stop
        if not first <= frame < last and frame < self.result.length:  # beyond it the session has a word
            raise InputError(
                f"prompt for object {id} in frame {frame}: it is not among the frames {first} to {last - 1} "
                f"that are to be done; give others by {name_argument('start', option='only')}"
            )
