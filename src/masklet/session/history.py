"""What a session has been: every state is a value, and nearly all of it is shared with the next."""

from __future__ import annotations

from dataclasses import dataclass, field

from masklet.core.result import VideoResult
from masklet.session.anchors import Anchors

MOST_UNDO = 100  # changes that can be taken back


@dataclass(frozen=True)
class SessionState:
    """All that a change changes, and that undoing it brings back."""

    result: VideoResult
    anchors: Anchors = field(default_factory=dict)


@dataclass(frozen=True)
class History:
    """The state as it is, those before it, and those that were taken back."""

    state: SessionState
    done: tuple[SessionState, ...] = ()  # the last one is the one before `state`
    undone: tuple[SessionState, ...] = ()  # the last one is the one after `state`

    def add(self, state: SessionState) -> History:
        """After a change to another `state`."""
        return History(state, (*self.done, self.state)[-MOST_UNDO:])

    def undo(self) -> History | None:
        """With the last change taken back; None where there is none."""
        return History(self.done[-1], self.done[:-1], (*self.undone, self.state)) if self.done else None

    def redo(self) -> History | None:
        """With the change done again that was taken back last; None where there is none."""
        return History(self.undone[-1], (*self.done, self.state), self.undone[:-1]) if self.undone else None
