"""What goes wrong at the door, in the user's words."""

from __future__ import annotations

import re

# What a terminal obeys in place of showing it, turns of the writing direction, and halves of characters.
COMMANDS = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape_control_characters(text: object) -> str:
    r"""A text as it is shown: characters that a terminal would obey, or cannot show, are written out.

    >>> escape_control_characters("clip\x1b[31m.mp4")
    'clip\\x1b[31m.mp4'
    """
    return COMMANDS.sub(lambda found: ascii(found[0])[1:-1], str(text))


class Interruption(SystemExit):
    """A signal ends the program; in contrast to a part that calls `sys.exit`."""


def end_on_signal(number: int, frame: object) -> None:
    """Ends the program as a shell does on a signal of this `number`, wherever it is (`frame`), so that unfinished
    folders are removed. Raises Interruption.
    """
    raise Interruption(128 + number)


class InputError(Exception):
    """Something the user gave cannot be used. The message says what, where, and what to do about it."""

    def __str__(self) -> str:
        """The message; names in it that come from files cannot command the terminal."""
        return escape_control_characters(super().__str__())
